-- What a recipient does with their own items changes what is counted by what they did, so that nothing is counted anew for
-- it: walking an inbox of hundreds of items costs milliseconds, and whoever has just read one wants the badge at once. And a
-- page is its places only, because what a broadcast says is the same for everybody and is kept in memory.

-- `position` is where everything that was counted before is void, as ever; what was counted after it differs from what is
-- now by as much as these two have grown.
ALTER TABLE changes
ADD COLUMN reads bigint NOT NULL DEFAULT 0,
ADD COLUMN dismissals bigint NOT NULL DEFAULT 0;

-- A process that counts in the old way would miss what is read from here on, so it is better off without an answer.
-- squawk-ignore ban-drop-function
DROP FUNCTION list_items(
    integer, boolean, smallint[], text, text, tsquery, uuid, boolean, bigint, integer, bigint, integer, timestamptz
);
-- squawk-ignore ban-drop-function
DROP FUNCTION count_unread(integer, bigint, integer, timestamptz);
-- squawk-ignore ban-drop-function
DROP FUNCTION count_my_unread(bigint, integer, timestamptz);

-- What the current recipient has, unread and in all (but for what is dismissed), as of the end of the log. With a count made
-- at an earlier position that still holds, only what came since is looked at. `valid_until` is when the first of the counted
-- expires, null for never; `reads` and `dismissals` are where those stood.
CREATE FUNCTION count_my_items(
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
        head, nullif(min(broadcast.expires_at) FILTER (WHERE receipt.dismissed_at IS NULL), 'infinity'),
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

-- The counts of a recipient.
CREATE FUNCTION count_items(
    recipient_number integer, known_position bigint, known_unread integer, known_total integer, known_until timestamptz,
    known_reads bigint, known_dismissals bigint
) RETURNS TABLE (
    unread_count integer, all_count integer, log_position bigint, valid_until timestamptz, reads bigint, dismissals bigint
)
LANGUAGE plpgsql STABLE
AS $function$
BEGIN
    PERFORM become_recipient(recipient_number);
    RETURN QUERY SELECT counted.*
    FROM count_my_items(
        known_position, known_unread, known_total, known_until, known_reads, known_dismissals
    ) AS counted;
END;
$function$;

-- A page of the recipient's items, newest arrival first, below a position: arrays of equal length, null for none. With it
-- what is counted, and how many the filter has in all. Null filters filter nothing.
CREATE FUNCTION list_items(
    recipient_number integer,
    unread_only boolean, priorities smallint[], exact_type text, type_prefix text, search tsquery, wedding uuid,
    include_dismissed boolean, below bigint, page_size integer,
    known_position bigint, known_unread integer, known_total integer, known_until timestamptz,
    known_reads bigint, known_dismissals bigint
) RETURNS TABLE (
    unread_count integer, all_count integer, log_position bigint, valid_until timestamptz, reads bigint, dismissals bigint,
    total_count bigint, positions bigint[], broadcast_ids uuid[], arrived_at timestamptz[], silent boolean[],
    read_at timestamptz[], acknowledged_at timestamptz[], dismissed_at timestamptz[], clicked_at timestamptz[]
)
LANGUAGE plpgsql STABLE
SET enable_bitmapscan = off SET enable_seqscan = off
AS $function$
#variable_conflict use_column
DECLARE
    ceiling bigint := coalesce(below, 9223372036854775807);
    counted record;
    is_filtered boolean := include_dismissed OR priorities IS NOT NULL OR exact_type IS NOT NULL
        OR type_prefix IS NOT NULL OR search IS NOT NULL OR wedding IS NOT NULL;
BEGIN
    PERFORM become_recipient(recipient_number);
    SELECT own.* INTO counted
    FROM count_my_items(
        known_position, known_unread, known_total, known_until, known_reads, known_dismissals
    ) AS own;
    RETURN QUERY
    WITH matching AS NOT MATERIALIZED (
        SELECT my_items.position, my_items.broadcast_id, my_items.arrived_at, my_items.silent, my_items.read_at,
            my_items.acknowledged_at, my_items.dismissed_at, my_items.clicked_at
        FROM my_items
        WHERE (include_dismissed OR my_items.dismissed_at IS NULL)
            AND NOT (unread_only AND my_items.is_read)
            AND (priorities IS NULL OR my_items.priority = ANY (priorities))
            AND (exact_type IS NULL OR my_items.type = exact_type)
            AND (type_prefix IS NULL OR starts_with(my_items.type, type_prefix))
            AND (wedding IS NULL OR my_items.wall @> ARRAY[wedding])
            AND (search IS NULL OR my_items.words @@ search)
    ),
    page AS MATERIALIZED (
        SELECT matching.position, matching.broadcast_id, matching.arrived_at, matching.silent, matching.read_at,
            matching.acknowledged_at, matching.dismissed_at, matching.clicked_at
        FROM matching
        WHERE matching.position < ceiling
        ORDER BY matching.position DESC
        LIMIT page_size
    )
    SELECT counted.unread_count, counted.all_count, counted.log_position, counted.valid_until, counted.reads,
        counted.dismissals,
        CASE
            WHEN NOT is_filtered AND unread_only THEN counted.unread_count
            WHEN NOT is_filtered THEN counted.all_count
            -- A first page that is not full is all there is.
            WHEN below IS NULL AND (SELECT count(*) FROM page) < page_size THEN (SELECT count(*) FROM page)
            ELSE (SELECT count(*) FROM matching)
        END,
        array_agg(page.position ORDER BY page.position DESC), array_agg(page.broadcast_id ORDER BY page.position DESC),
        array_agg(page.arrived_at ORDER BY page.position DESC), array_agg(page.silent ORDER BY page.position DESC),
        array_agg(page.read_at ORDER BY page.position DESC), array_agg(page.acknowledged_at ORDER BY page.position DESC),
        array_agg(page.dismissed_at ORDER BY page.position DESC), array_agg(page.clicked_at ORDER BY page.position DESC)
    FROM page;
END;
$function$;

-- Records what recipients did with items. Arrays of equal length are one element an item; `calls` says which belong to one
-- call, of which nothing is recorded when it dismisses a critical item that is not acknowledged. A recipient may be in one
-- call of a group only, and an item in it once. Answers each item:
--   recorded  with its times now, and whether this call was the first to acknowledge it
--   unknown   not in the recipient's inbox
--   refused   its call dismisses a critical item that is not acknowledged; `is_cause` says whether it is this one
-- and, the same for all, where in the log it is said; null when nothing changed.
CREATE OR REPLACE FUNCTION record_receipts(
    calls integer[], recipient_numbers integer[], broadcast_ids uuid[], actions text[], urls text[]
) RETURNS TABLE (
    place bigint, outcome text, read_at timestamptz, acknowledged_at timestamptz, dismissed_at timestamptz,
    clicked_at timestamptz, is_critical boolean, is_cause boolean, newly_acknowledged boolean, log_position bigint
)
LANGUAGE plpgsql
SET enable_bitmapscan = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $function$
#variable_conflict use_column
DECLARE
    moment timestamptz := clock_timestamp();
    positions bigint[];
    priorities smallint[];
    causes integer[];
    accepted integer[];
    changed integer[];
    acknowledged integer[];
    newly_read boolean[];
    dismissed integer[];
    head bigint := (SELECT log_head.position FROM log_head);
    is_certain boolean;
    entry bigint;
BEGIN
    SELECT array_agg(item.item_position ORDER BY asked.place), array_agg(item.priority ORDER BY asked.place)
    INTO positions, priorities
    FROM unnest(recipient_numbers, broadcast_ids) WITH ORDINALITY AS asked (recipient_number, broadcast_id, place)
    LEFT JOIN LATERAL find_visible_item(asked.recipient_number, asked.broadcast_id) AS item ON true;

    causes := array(
        SELECT known.place
        FROM read_receipts(recipient_numbers, broadcast_ids, positions) AS known
        WHERE actions[known.place] = 'dismissed' AND priorities[known.place] = 1 AND known.acknowledged_at IS NULL
    );
    accepted := array(
        SELECT asked.place
        FROM generate_subscripts(calls, 1) AS asked (place)
        WHERE positions[asked.place] IS NOT NULL
            AND calls[asked.place] <> ALL (array(SELECT calls[cause.place] FROM unnest(causes) AS cause (place)))
    );

    WITH step AS (
        SELECT asked.place, recipient_numbers[asked.place] AS recipient_number,
            broadcast_ids[asked.place] AS broadcast_id, actions[asked.place] AS action, urls[asked.place] AS url
        FROM unnest(accepted) AS asked (place)
    ),
    restored AS (
        UPDATE receipts SET dismissed_at = NULL
        FROM step
        WHERE step.action = 'restored'
            AND receipts.recipient_number = step.recipient_number
            AND receipts.broadcast_id = step.broadcast_id
            AND receipts.dismissed_at IS NOT NULL
        RETURNING receipts.recipient_number, receipts.broadcast_id, false AS newly_acknowledged, false AS newly_read,
            -1 AS dismissed
    ),
    recorded AS (
        INSERT INTO receipts AS known (
            recipient_number, broadcast_id, read_at, acknowledged_at, dismissed_at, clicked_at, clicked_url
        )
        SELECT step.recipient_number, step.broadcast_id, moment,
            CASE step.action WHEN 'acknowledged' THEN moment END,
            CASE step.action WHEN 'dismissed' THEN moment END,
            CASE step.action WHEN 'clicked' THEN moment END,
            CASE step.action WHEN 'clicked' THEN step.url END
        FROM step
        WHERE step.action <> 'restored'
        ORDER BY step.recipient_number, step.broadcast_id
        ON CONFLICT (recipient_number, broadcast_id) DO UPDATE
        SET acknowledged_at = coalesce(known.acknowledged_at, excluded.acknowledged_at),
            dismissed_at = coalesce(known.dismissed_at, excluded.dismissed_at),
            clicked_at = coalesce(known.clicked_at, excluded.clicked_at),
            clicked_url = coalesce(known.clicked_url, excluded.clicked_url)
        -- What changes nothing writes nothing.
        WHERE (known.acknowledged_at IS NULL AND excluded.acknowledged_at IS NOT NULL)
            OR (known.dismissed_at IS NULL AND excluded.dismissed_at IS NOT NULL)
            OR (known.clicked_at IS NULL AND excluded.clicked_at IS NOT NULL)
        RETURNING new.recipient_number, new.broadcast_id,
            old.acknowledged_at IS NULL AND new.acknowledged_at IS NOT NULL AS newly_acknowledged,
            old.read_at IS NULL AS newly_read,
            (old.dismissed_at IS NULL AND new.dismissed_at IS NOT NULL)::integer AS dismissed
    )
    SELECT array_agg(step.place ORDER BY step.place),
        array_agg(step.place) FILTER (WHERE written.newly_acknowledged),
        array_agg(written.newly_read ORDER BY step.place), array_agg(written.dismissed ORDER BY step.place)
    INTO changed, acknowledged, newly_read, dismissed
    FROM (
        SELECT restored.recipient_number, restored.broadcast_id, restored.newly_acknowledged, restored.newly_read,
            restored.dismissed
        FROM restored
        UNION ALL
        SELECT recorded.recipient_number, recorded.broadcast_id, recorded.newly_acknowledged, recorded.newly_read,
            recorded.dismissed
        FROM recorded
    ) AS written
    JOIN step USING (recipient_number, broadcast_id);

    IF changed IS NOT NULL THEN
        entry := append_log('receipts', describe_receipts(changed, recipient_numbers, broadcast_ids, positions));
        -- Until this commits, nothing else happens to any inbox. What has happened since these items were looked at may have
        -- taken one of them out of it, and so may its expiry before the commit: then nobody's counts are worth adjusting.
        is_certain := NOT EXISTS (SELECT FROM retractions WHERE retractions.position > head)
            AND NOT EXISTS (
                SELECT FROM broadcasts
                WHERE broadcasts.broadcast_id = ANY (broadcast_ids)
                    AND broadcasts.expires_at < clock_timestamp() + interval '1 minute'
            );
        INSERT INTO changes AS known (recipient_number, position, reads, dismissals)
        -- Before the first position there was nothing to count.
        SELECT recipient_numbers[step.place], CASE WHEN is_certain THEN 1 ELSE entry END,
            count(*) FILTER (WHERE step.newly_read AND positions[step.place] > coalesce((
                SELECT max(watermarks.position)
                FROM watermarks
                WHERE watermarks.recipient_number = recipient_numbers[step.place]
            ), 0)),
            sum(step.dismissed)
        FROM unnest(changed, newly_read, dismissed) AS step (place, newly_read, dismissed)
        GROUP BY recipient_numbers[step.place]
        ORDER BY recipient_numbers[step.place]
        ON CONFLICT (recipient_number) DO UPDATE
        SET position = CASE WHEN is_certain AND known.position <= head THEN known.position ELSE entry END,
            reads = known.reads + excluded.reads,
            dismissals = known.dismissals + excluded.dismissals;
    END IF;

    RETURN QUERY
    SELECT known.place,
        CASE WHEN positions[known.place] IS NULL THEN 'unknown'
            WHEN known.place = ANY (accepted) THEN 'recorded'
            ELSE 'refused' END,
        known.read_at, known.acknowledged_at, known.dismissed_at, known.clicked_at,
        priorities[known.place] IS NOT DISTINCT FROM 1, known.place = ANY (causes),
        coalesce(known.place = ANY (acknowledged), false), entry
    FROM read_receipts(recipient_numbers, broadcast_ids, positions) AS known
    ORDER BY known.place;
END;
$function$;
