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

-- name: prune_before
-- The oldest first, so that what is left has no holes; in small parts, so that no reader waits.
DELETE FROM {schema}.log
WHERE position IN (
    SELECT log.position
    FROM {schema}.log
    WHERE log.position < $1
    ORDER BY log.position
    LIMIT $2
);
