-- The log says of an expiry which broadcast it is, and who had that is looked up when it is read. A broadcast that was old when
-- it expired left at the next clean-up, and its members with it: whoever came back after that from a cursor before its expiry
-- was never told, nor was anybody when the clean-up came before the log had said it.

-- Not of the others, whose bodies are large. There is none for most clean-ups to find.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX expiries ON log (body) WHERE kind = 'expired';

-- Broadcasts whose time in inboxes is over: `item_term` after the last of it arrived, or `expired_term` if it has expired. While
-- the log still tells streams that one was taken back or has expired, or is yet to tell them, its members stay, because they are
-- who is told.
CREATE OR REPLACE FUNCTION find_leaving(item_term interval, expired_term interval) RETURNS TABLE (broadcast_id uuid)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT old.broadcast_id
    FROM (
        SELECT broadcasts.broadcast_id, now() - item_term AS since
        FROM broadcasts
        WHERE broadcasts.left_at IS NULL
            AND broadcasts.kept_at < now() - item_term
            AND (broadcasts.expiry_told OR broadcasts.expires_at > now())
        UNION ALL
        SELECT broadcasts.broadcast_id, now() - expired_term
        FROM broadcasts
        WHERE broadcasts.left_at IS NULL
            AND broadcasts.expires_at < 'infinity'
            AND broadcasts.expires_at <= now()
            AND broadcasts.expiry_told
            AND broadcasts.kept_at < now() - expired_term
            AND broadcasts.kept_at >= now() - item_term
    ) AS old
    -- Looked up one by one: joined, all arrivals and all tombstones there are would be read for a few broadcasts.
    WHERE (
            SELECT arrivals.chunk
            FROM arrivals
            WHERE arrivals.broadcast_id = old.broadcast_id AND arrivals.arrived_at >= old.since
            LIMIT 1
        ) IS NULL
        AND (
            SELECT log.position
            FROM retractions
            INNER JOIN log ON log.position = retractions.position
            WHERE retractions.broadcast_id = old.broadcast_id
            LIMIT 1
        ) IS NULL
        AND (
            SELECT log.position
            FROM log
            WHERE log.kind = 'expired' AND log.body = uuid_send(old.broadcast_id)
            LIMIT 1
        ) IS NULL;
END;
