-- name: list_edited
-- People who have set something, spread over everybody.
SELECT recipient_number
FROM preferences.preferences
ORDER BY recipient_number % 97, recipient_number
LIMIT $1;

-- name: change_people
-- Each of them mutes a category or hears of it again, and has an entry of the log alone, as when people edit one by one.
WITH changed AS (
    UPDATE preferences.preferences
    SET system = NOT system, version = version + 1, update_time = now()
    WHERE recipient_number = ANY ($1::integer[])
)
SELECT preferences.append_log_many(array_fill('recipients'::text, ARRAY[cardinality($2::bytea[])]), $2::bytea[]);
