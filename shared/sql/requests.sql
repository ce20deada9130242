-- name: find
-- A repeated call is answered as it was the first time.
SELECT known_body_hash, known_response
FROM {schema}.find_request($1, $2, $3);

-- name: take
-- In the transaction of the work, so that two calls with one id never both do it.
SELECT known_body_hash, known_response, known_is_whole
FROM {schema}.take_requests(ARRAY[$1::text], ARRAY[$2::text], ARRAY[$3::uuid], ARRAY[$4::bytea]);

-- name: keep
-- What a first call is answered, in the transaction of its work.
SELECT kept.place, kept.response
FROM {schema}.keep_answers($1, $2, $3, $4, $5) AS kept;

-- name: complete
-- What is known of answers after the work was committed. A crash of Postgres may forget it, and then a repetition finds it out
-- again: so it need not wait for the disk.
WITH hasty AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true) AS setting
)
SELECT kept.place, kept.response
FROM hasty, {schema}.keep_answers($1, $2, $3, $4, true) AS kept;

-- name: count_old
-- Nobody repeats a call after so long.
SELECT count(*) AS due FROM {schema}.requests WHERE at < now() - $1::interval;

-- name: remove_old
-- The same, the oldest first; one that somebody has just taken anew is not old any more.
WITH gone AS (
    DELETE FROM {schema}.requests
    WHERE ctid = ANY (ARRAY(
        SELECT old.ctid
        FROM {schema}.requests AS old
        WHERE old.at < now() - $1::interval
        ORDER BY old.at
        LIMIT $2::integer
    )) AND at < now() - $1::interval
    RETURNING at
)
SELECT count(*) AS removed, count(*) < $2::integer AS is_last FROM gone;
