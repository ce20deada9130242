-- name: list_people
-- The first of everybody, in the order of their numbers.
SELECT user_id FROM preferences.recipients ORDER BY number LIMIT $1;

-- name: count_waiting
-- How many broadcasts are due and have not come to their end.
SELECT count(*) FROM sender.outbox WHERE state IN ('pending', 'published') AND due_at <= clock_timestamp();
