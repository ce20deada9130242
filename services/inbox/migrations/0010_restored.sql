-- Whoever restores an item that they had dismissed is counted one more, so a count must end with the expiry of what is
-- dismissed as well: until now it outlived a restored item.

-- What the current recipient has, unread and in all (but for what is dismissed), as of the end of the log. With a count made
-- at an earlier position that still holds, only what came since is looked at. `valid_until` is when the first of the items
-- expires, null for never; `reads` and `dismissals` are where those stood.
CREATE OR REPLACE FUNCTION count_my_items(
    known_position bigint, known_unread integer, known_total integer, known_until timestamptz,
    known_reads bigint, known_dismissals bigint
) RETURNS TABLE (
    unread_count integer, all_count integer, log_position bigint, valid_until timestamptz, reads bigint, dismissals bigint
)
LANGUAGE plpgsql STABLE
SET enable_bitmapscan = off SET enable_seqscan = off
AS $function$
DECLARE
    head bigint := (SELECT log_head.position FROM log_head);
    done record;
    fresh record;
BEGIN
    SELECT coalesce(max(changes.position), 0) AS void, coalesce(max(changes.reads), 0) AS reads,
        coalesce(max(changes.dismissals), 0) AS dismissals
    INTO done
    FROM changes;
    IF known_position <= head
        AND done.void <= known_position
        AND coalesce(known_until, 'infinity') > now()
        AND NOT EXISTS (SELECT FROM retractions WHERE retractions.position > known_position)
    THEN
        -- Whatever was done with these is among the reads and dismissals.
        SELECT count(*) AS items, coalesce(min(broadcast.expires_at), 'infinity') AS good_until
        INTO fresh
        FROM my_arrivals AS arrival
        CROSS JOIN LATERAL (
            SELECT broadcasts.expires_at
            FROM broadcasts
            WHERE broadcasts.broadcast_id = arrival.broadcast_id
            LIMIT 1
        ) AS broadcast
        WHERE arrival.position > known_position;
        -- What came and has expired since may have been read in between: nobody knows by now.
        IF fresh.good_until > now() THEN
            RETURN QUERY SELECT
                (known_unread + fresh.items - (done.reads - known_reads))::integer,
                (known_total + fresh.items - (done.dismissals - known_dismissals))::integer,
                head, nullif(least(known_until, fresh.good_until), 'infinity'), done.reads, done.dismissals;
            RETURN;
        END IF;
    END IF;
    RETURN QUERY
    SELECT
        (count(*) FILTER (WHERE receipt.read_at IS NULL AND arrival.position > mark.position))::integer,
        (count(*) FILTER (WHERE receipt.dismissed_at IS NULL))::integer,
        head, nullif(min(broadcast.expires_at), 'infinity'),
        done.reads, done.dismissals
    FROM (SELECT coalesce(max(watermarks.position), 0) AS position FROM watermarks) AS mark
    CROSS JOIN my_arrivals AS arrival
    CROSS JOIN LATERAL (
        SELECT broadcasts.expires_at
        FROM broadcasts
        WHERE broadcasts.broadcast_id = arrival.broadcast_id AND broadcasts.expires_at > now() AND NOT broadcasts.hidden
        LIMIT 1
    ) AS broadcast
    LEFT JOIN LATERAL (
        SELECT receipts.read_at, receipts.dismissed_at
        FROM receipts
        WHERE receipts.broadcast_id = arrival.broadcast_id
        LIMIT 1
    ) AS receipt ON true;
END;
$function$;
