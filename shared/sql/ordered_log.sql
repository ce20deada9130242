-- name: find_head
-- Where the log ends now.
SELECT position
FROM {schema}.log_head;

-- name: read_after
-- Head and entries from one snapshot: so an entry that is missing between them was pruned, and not just not seen yet.
SELECT head.position AS head, entry.position, entry.kind, entry.body, entry.at
FROM {schema}.log_head AS head
LEFT JOIN LATERAL (
    SELECT log.position, log.kind, log.body, log.at
    FROM {schema}.log
    WHERE log.position > $1 AND log.position <= head.position
    ORDER BY log.position
    LIMIT $2
) AS entry ON true
ORDER BY entry.position;

-- name: append
-- One change that others follow, in the transaction of the change.
SELECT {schema}.append_log($1, $2) AS position;

-- name: append_many
-- A group of changes at the price of one.
SELECT {schema}.append_log_many($1, $2) AS position;

-- name: count_old
-- Those before the first that is not old, so that what is left has no holes, whatever a clock that was put right did to times.
SELECT count(*) AS due
FROM {schema}.log
WHERE position < coalesce(
    (
        SELECT recent.position
        FROM {schema}.log AS recent
        WHERE recent.at >= now() - $1::interval
        ORDER BY recent.position
        LIMIT 1
    ),
    9223372036854775807
);

-- name: remove_old
-- The same, the oldest first; in small parts, so that no reader waits.
WITH oldest AS MATERIALIZED (
    SELECT first.position, first.at < now() - $1::interval AS is_old
    FROM {schema}.log AS first
    ORDER BY first.position
    LIMIT $2::integer
), gone AS (
    DELETE FROM {schema}.log
    WHERE position = ANY (ARRAY(
        SELECT oldest.position
        FROM oldest
        WHERE oldest.position < coalesce(
            (SELECT min(kept.position) FROM oldest AS kept WHERE NOT kept.is_old), 9223372036854775807
        )
    ))
    RETURNING position
)
SELECT count(*) AS removed, count(*) < $2::integer AS is_last FROM gone;
