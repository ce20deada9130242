-- What leaves inboxes, and when its rows go: an item after 90 days, sooner when it has expired, a receipt with its item. What
-- is critical leaves inboxes as well, but everything that anybody did with it stays for good, with what it said.
--
-- A broadcast leaves in three steps, so that no step is long and what is seen is right between any two of them. It is taken
-- out of all inboxes at once, as by a cancel: lists, counts and screens follow, and no late chunk brings it back, since its
-- tombstone stays. Then it is emptied, a few rows at a time. A while later, when no call that saw it before can still run, its
-- text goes.

ALTER TABLE broadcasts
-- When its content was first kept, which is when it first arrived.
ADD COLUMN kept_at timestamptz NOT NULL DEFAULT now(),
-- When retention took it out of inboxes, and when the last of its rows was removed.
ADD COLUMN left_at timestamptz,
ADD COLUMN emptied_at timestamptz,
-- Of a critical one that is emptied, which is counted for good: how many inboxes it had reached.
ADD COLUMN delivered bigint,
-- All of these are null in what is there already.
-- squawk-ignore constraint-missing-not-valid
ADD CONSTRAINT what_left_is_hidden CHECK (left_at IS NULL OR hidden),
-- squawk-ignore constraint-missing-not-valid
ADD CONSTRAINT emptied_after_it_left CHECK (
    emptied_at IS NULL OR (left_at IS NOT NULL AND emptied_at >= left_at)
),
-- squawk-ignore constraint-missing-not-valid
ADD CONSTRAINT critical_ones_are_counted_for_good CHECK (
    (delivered IS NOT NULL) = (emptied_at IS NOT NULL AND priority = 1)
);

-- The owner is held to the policies as well, and none is for it: for what came before.
ALTER TABLE broadcasts NO FORCE ROW LEVEL SECURITY;
UPDATE broadcasts
SET kept_at = first.arrived_at
FROM (
    SELECT arrivals.broadcast_id, min(arrivals.arrived_at) AS arrived_at
    FROM arrivals
    GROUP BY arrivals.broadcast_id
) AS first
WHERE first.broadcast_id = broadcasts.broadcast_id;
ALTER TABLE broadcasts FORCE ROW LEVEL SECURITY;

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX staying_broadcasts ON broadcasts (kept_at) WHERE left_at IS NULL;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX expiring_broadcasts ON broadcasts (expires_at) WHERE left_at IS NULL AND expires_at < 'infinity';
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX leaving_broadcasts ON broadcasts (left_at) WHERE left_at IS NOT NULL AND emptied_at IS NULL;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX emptied_broadcasts ON broadcasts (emptied_at) WHERE emptied_at IS NOT NULL AND priority <> 1;
-- Not of the column itself, or it would offer itself for somebody's newest mark and look for that among everybody's.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX watermarks_by_age ON watermarks ((position + 0));

-- When retention took a broadcast out whose counts went with it: what is counted of it since says nothing.
ALTER TABLE retractions ADD COLUMN cleaned_at timestamptz;

-- Broadcasts whose time in inboxes is over: `item_term` after the last of it arrived, or `expired_term` if it has expired. While
-- the log still tells streams that one was taken back, its members stay, because they are who is told.
CREATE FUNCTION find_leaving(item_term interval, expired_term interval) RETURNS TABLE (broadcast_id uuid)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT old.broadcast_id
    FROM (
        SELECT broadcasts.broadcast_id, now() - item_term AS since
        FROM broadcasts
        WHERE broadcasts.left_at IS NULL AND broadcasts.kept_at < now() - item_term
        UNION ALL
        SELECT broadcasts.broadcast_id, now() - expired_term
        FROM broadcasts
        WHERE broadcasts.left_at IS NULL
            AND broadcasts.expires_at < 'infinity'
            AND broadcasts.expires_at <= now()
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
        ) IS NULL;
END;

-- Takes a broadcast out of all inboxes if its time there is over; whether it did. `members` are those who see it go. What was
-- counted before is void from this position on, for everybody; streams go on from it, so no crash may forget it.
CREATE FUNCTION take_out(wanted uuid, members bytea, item_term interval, expired_term interval) RETURNS boolean
LANGUAGE plpgsql
AS $function$
DECLARE
    gone record;
    entry bigint;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    PERFORM take_positions(0);
    UPDATE broadcasts SET hidden = true, left_at = clock_timestamp()
    WHERE broadcasts.broadcast_id = wanted
        AND EXISTS (
            SELECT FROM find_leaving(item_term, expired_term) AS leaving WHERE leaving.broadcast_id = wanted
        )
    RETURNING broadcasts.priority INTO gone;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    entry := append_log('retracted', uuid_send(wanted) || members);
    INSERT INTO retractions AS known (broadcast_id, position, retracted_at, cleaned_at)
    VALUES (wanted, entry, clock_timestamp(), CASE WHEN gone.priority <> 1 THEN clock_timestamp() END)
    ON CONFLICT (broadcast_id) DO UPDATE SET position = excluded.position, cleaned_at = excluded.cleaned_at;
    RETURN true;
END
$function$;

-- Notes for these recipients of a broadcast what "all read" says of it, so that it is known without their item: `positions`
-- are where it arrived.
CREATE FUNCTION keep_reads(wanted uuid, numbers integer[], positions bigint[]) RETURNS void
LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO receipts AS known (recipient_number, broadcast_id, read_at)
    SELECT item.number, wanted, mark.at
    FROM unnest(numbers, positions) AS item (number, position)
    CROSS JOIN LATERAL (
        SELECT watermarks.at
        FROM watermarks
        WHERE watermarks.recipient_number = item.number AND watermarks.position > item.position
        ORDER BY watermarks.position
        LIMIT 1
    ) AS mark
    ON CONFLICT (recipient_number, broadcast_id) DO UPDATE SET read_at = excluded.read_at
    WHERE excluded.read_at < known.read_at;
END;

-- Removes up to `most` rows of a broadcast that has left and is not critical; how many those were, and of how many items.
CREATE FUNCTION remove_rows(wanted uuid, most integer) RETURNS TABLE (gone bigint, items bigint)
LANGUAGE plpgsql
AS $function$
DECLARE
    found_rows bigint;
BEGIN
    WITH removed AS (
        DELETE FROM blocks
        WHERE blocks.ctid = ANY (ARRAY(
            SELECT part.ctid FROM blocks AS part WHERE part.broadcast_id = wanted LIMIT most
        ))
        RETURNING bit_count(blocks.members) AS people
    )
    SELECT count(*), coalesce(sum(removed.people), 0) INTO gone, items FROM removed;
    DELETE FROM direct
    WHERE direct.ctid = ANY (ARRAY(
        SELECT part.ctid FROM direct AS part WHERE part.broadcast_id = wanted LIMIT most - gone
    ));
    GET DIAGNOSTICS found_rows = ROW_COUNT;
    gone := gone + found_rows;
    items := items + found_rows;
    DELETE FROM receipts
    WHERE receipts.ctid = ANY (ARRAY(
        SELECT part.ctid FROM receipts AS part WHERE part.broadcast_id = wanted LIMIT most - gone
    ));
    GET DIAGNOSTICS found_rows = ROW_COUNT;
    gone := gone + found_rows;
    RETURN NEXT;
END
$function$;

-- The same for a critical one, whose receipts stay: nobody's item goes before their receipt says all that is known. Of a
-- block the first `most` members at a time, so that a step is never longer than it is allowed to be.
CREATE FUNCTION settle_rows(wanted uuid, most integer) RETURNS TABLE (gone bigint, items bigint)
LANGUAGE plpgsql
AS $function$
DECLARE
    part record;
    numbers integer[];
    positions bigint[];
BEGIN
    SELECT blocks.block, blocks.position, blocks.members INTO part
    FROM blocks
    WHERE blocks.broadcast_id = wanted
    ORDER BY blocks.block
    LIMIT 1;
    IF FOUND THEN
        numbers := array(
            SELECT (part.block << 12) + bits.place
            FROM generate_series(0, 4095) AS bits (place)
            WHERE get_bit(part.members, bits.place) <> 0
            ORDER BY bits.place
            LIMIT most
        );
        positions := array_fill(part.position, ARRAY[cardinality(numbers)]);
        IF cardinality(numbers) < bit_count(part.members) THEN
            UPDATE blocks
            SET members = blocks.members & (repeat('1', 4096)::bit(4096) >> ((numbers[most] & 4095) + 1))
            WHERE blocks.block = part.block AND blocks.position = part.position;
        ELSE
            DELETE FROM blocks WHERE blocks.block = part.block AND blocks.position = part.position;
        END IF;
    ELSE
        SELECT coalesce(array_agg(few.recipient_number), '{}'), coalesce(array_agg(few.position), '{}')
        INTO numbers, positions
        FROM (
            SELECT direct.recipient_number, direct.position
            FROM direct
            WHERE direct.broadcast_id = wanted
            ORDER BY direct.recipient_number
            LIMIT most
        ) AS few;
        DELETE FROM direct
        USING unnest(numbers, positions) AS item (number, position)
        WHERE direct.recipient_number = item.number AND direct.position = item.position;
    END IF;
    PERFORM keep_reads(wanted, numbers, positions);
    gone := cardinality(numbers);
    items := gone;
    RETURN NEXT;
END
$function$;

-- Empties what has left inboxes, the first to leave first, until about `most` rows are gone: answers how many items that
-- were, and whether nothing is left to be emptied.
CREATE FUNCTION empty_broadcasts(most integer) RETURNS TABLE (removed bigint, is_last boolean)
LANGUAGE plpgsql
AS $function$
DECLARE
    leaving record;
    step record;
    budget bigint := most;
BEGIN
    removed := 0;
    is_last := false;
    WHILE budget > 0 AND NOT is_last LOOP
        SELECT broadcasts.broadcast_id, broadcasts.priority INTO leaving
        FROM broadcasts
        WHERE broadcasts.left_at IS NOT NULL AND broadcasts.emptied_at IS NULL
        ORDER BY broadcasts.left_at
        LIMIT 1;
        is_last := NOT FOUND;
        CONTINUE WHEN is_last;
        IF leaving.priority = 1 THEN
            SELECT settled.gone, settled.items INTO step
            FROM settle_rows(leaving.broadcast_id, budget::integer) AS settled;
        ELSE
            SELECT emptied.gone, emptied.items INTO step
            FROM remove_rows(leaving.broadcast_id, budget::integer) AS emptied;
        END IF;
        IF step.gone = 0 THEN
            UPDATE broadcasts
            SET
                emptied_at = clock_timestamp(),
                delivered = CASE
                    WHEN leaving.priority = 1 THEN (
                        SELECT coalesce(sum(arrivals.recipients), 0)
                        FROM arrivals
                        WHERE arrivals.broadcast_id = leaving.broadcast_id
                    )
                END
            WHERE broadcasts.broadcast_id = leaving.broadcast_id;
            DELETE FROM arrivals WHERE arrivals.broadcast_id = leaving.broadcast_id;
        END IF;
        budget := budget - step.gone - 1;
        removed := removed + step.items;
    END LOOP;
    RETURN NEXT;
END
$function$;

-- How many people did what with each of these broadcasts; zeros for one that is not known.
CREATE OR REPLACE FUNCTION count_engagement(broadcast_ids uuid[]) RETURNS TABLE (
    place bigint, delivered bigint, read bigint, acknowledged bigint, dismissed bigint, clicked bigint
)
LANGUAGE sql STABLE
SET enable_seqscan = off
BEGIN ATOMIC
    SELECT asked.place,
        coalesce(
            (SELECT broadcasts.delivered FROM broadcasts WHERE broadcasts.broadcast_id = asked.broadcast_id),
            (SELECT sum(arrivals.recipients) FROM arrivals WHERE arrivals.broadcast_id = asked.broadcast_id),
            0
        ),
        (SELECT count(*) FROM find_readers(asked.broadcast_id, NULL)),
        receipt.acknowledged, receipt.dismissed, receipt.clicked
    FROM unnest(broadcast_ids) WITH ORDINALITY AS asked (broadcast_id, place)
    CROSS JOIN LATERAL (
        SELECT count(receipts.acknowledged_at) AS acknowledged, count(receipts.dismissed_at) AS dismissed,
            count(receipts.clicked_at) AS clicked
        FROM receipts
        WHERE receipts.broadcast_id = asked.broadcast_id
    ) AS receipt
    ORDER BY asked.place;
END;

-- Since when what is counted of a broadcast says nothing; null while it is true.
CREATE FUNCTION cleaned_since(wanted uuid) RETURNS timestamptz
LANGUAGE sql STABLE
SET enable_seqscan = off
RETURN (SELECT retractions.cleaned_at FROM retractions WHERE retractions.broadcast_id = wanted);

-- Whatever statement asks: rows of items go only once their broadcast has left, receipts of what is critical never, nor what
-- it said; "all read" only where it says nothing of what is there. So what was one policy for all that workers do, is one for
-- each thing that they do. They ask for a value, because for EXISTS all broadcasts might be read.
DROP POLICY worker_reads_and_writes ON broadcasts;
CREATE POLICY worker_reads ON broadcasts FOR SELECT TO inbox_worker USING (true);
CREATE POLICY worker_adds ON broadcasts FOR INSERT TO inbox_worker WITH CHECK (true);
CREATE POLICY worker_changes ON broadcasts FOR UPDATE TO inbox_worker USING (true);
CREATE POLICY remove_what_is_emptied ON broadcasts FOR DELETE TO inbox_worker
    USING (emptied_at IS NOT NULL AND priority <> 1);

DROP POLICY worker_reads_and_writes ON blocks;
CREATE POLICY worker_reads ON blocks FOR SELECT TO inbox_worker USING (true);
CREATE POLICY worker_adds ON blocks FOR INSERT TO inbox_worker WITH CHECK (true);
CREATE POLICY thin_out_what_has_left ON blocks FOR UPDATE TO inbox_worker
    USING ((SELECT broadcasts.left_at FROM broadcasts WHERE broadcasts.broadcast_id = blocks.broadcast_id) IS NOT NULL);
CREATE POLICY remove_what_has_left ON blocks FOR DELETE TO inbox_worker
    USING ((SELECT broadcasts.left_at FROM broadcasts WHERE broadcasts.broadcast_id = blocks.broadcast_id) IS NOT NULL);

DROP POLICY worker_reads_and_writes ON direct;
CREATE POLICY worker_reads ON direct FOR SELECT TO inbox_worker USING (true);
CREATE POLICY worker_adds ON direct FOR INSERT TO inbox_worker WITH CHECK (true);
CREATE POLICY remove_what_has_left ON direct FOR DELETE TO inbox_worker
    USING ((SELECT broadcasts.left_at FROM broadcasts WHERE broadcasts.broadcast_id = direct.broadcast_id) IS NOT NULL);

DROP POLICY worker_reads_and_writes ON receipts;
CREATE POLICY worker_reads ON receipts FOR SELECT TO inbox_worker USING (true);
CREATE POLICY worker_adds ON receipts FOR INSERT TO inbox_worker WITH CHECK (true);
CREATE POLICY worker_changes ON receipts FOR UPDATE TO inbox_worker USING (true);
CREATE POLICY remove_what_has_left ON receipts FOR DELETE TO inbox_worker
    USING ((
        SELECT broadcasts.left_at IS NOT NULL AND broadcasts.priority <> 1
        FROM broadcasts
        WHERE broadcasts.broadcast_id = receipts.broadcast_id
    ));

DROP POLICY worker_reads_and_writes ON watermarks;
CREATE POLICY worker_reads ON watermarks FOR SELECT TO inbox_worker USING (true);
CREATE POLICY worker_adds ON watermarks FOR INSERT TO inbox_worker WITH CHECK (true);
CREATE POLICY remove_before_all_arrivals ON watermarks FOR DELETE TO inbox_worker
    USING (position <= (SELECT coalesce(min(arrivals.position), 9223372036854775807) FROM arrivals));

GRANT UPDATE (left_at, emptied_at, delivered), DELETE ON broadcasts TO inbox_worker;
GRANT UPDATE (members) ON blocks TO inbox_worker;
GRANT DELETE ON arrivals, blocks, direct, receipts, watermarks TO inbox_worker;
