-- Where people keep their items: snoozed ones are out of their list and their badge until a time, pinned ones on top. And what
-- happens by itself when its time comes: a snooze ends, a broadcast expires. Lists and counts go by the clock of the database;
-- so that screens follow, each of these gets a place in the log.

CREATE TABLE arrangements (
    recipient_number integer NOT NULL CHECK (recipient_number >= 0),
    broadcast_id uuid NOT NULL,
    -- Where the item lies, which never changes.
    position bigint NOT NULL CHECK (position > 0),
    -- Null when it is not snoozed. A time that is past hides nothing, and is taken away once the log says that it is.
    snoozed_until timestamptz CHECK (snoozed_until < 'infinity'),
    pinned_at timestamptz,
    PRIMARY KEY (recipient_number, broadcast_id)
) WITH (fillfactor = 80);
CREATE INDEX arrangements_by_broadcast ON arrangements (broadcast_id);
CREATE INDEX snoozes ON arrangements (snoozed_until) WHERE snoozed_until IS NOT NULL;

ALTER TABLE arrangements ENABLE ROW LEVEL SECURITY;
ALTER TABLE arrangements FORCE ROW LEVEL SECURITY;
CREATE POLICY own_arrangements ON arrangements FOR SELECT TO inbox_api
    USING (recipient_number = (SELECT current_recipient()));
CREATE POLICY worker_reads ON arrangements FOR SELECT TO inbox_worker USING (true);
CREATE POLICY worker_adds ON arrangements FOR INSERT TO inbox_worker WITH CHECK (true);
CREATE POLICY worker_changes ON arrangements FOR UPDATE TO inbox_worker USING (true);
CREATE POLICY remove_what_has_left ON arrangements FOR DELETE TO inbox_worker
    USING ((
        SELECT broadcasts.left_at FROM broadcasts WHERE broadcasts.broadcast_id = arrangements.broadcast_id
    ) IS NOT NULL);
GRANT SELECT ON arrangements TO inbox_api;
GRANT SELECT, INSERT, UPDATE (snoozed_until, pinned_at), DELETE ON arrangements TO inbox_worker;

-- squawk-ignore ban-drop-constraint
ALTER TABLE log DROP CONSTRAINT log_kind_known;
-- Kinds are added and none is taken away, so what is there keeps the new rule as well.
ALTER TABLE log ADD CONSTRAINT log_kind_known
    CHECK (kind IN ('item', 'silent_item', 'alert', 'receipts', 'all_read', 'retracted', 'team', 'returned', 'expired'))
    NOT VALID;

-- Whether the log says that it has expired, or need not.
ALTER TABLE broadcasts ADD COLUMN expiry_told boolean NOT NULL DEFAULT false;
-- The owner is held to the policies as well, and none is for it: nobody waits to be told of what has expired before.
ALTER TABLE broadcasts NO FORCE ROW LEVEL SECURITY;
UPDATE broadcasts SET expiry_told = true WHERE broadcasts.expires_at <= now();
ALTER TABLE broadcasts FORCE ROW LEVEL SECURITY;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX untold_expiries ON broadcasts (expires_at) WHERE NOT expiry_told AND expires_at < 'infinity';
GRANT UPDATE (expiry_told) ON broadcasts TO inbox_worker;

-- What the current recipient has, unread and in all (but for what is dismissed), as of the end of the log. With a count made
-- at an earlier position that still holds, only what came since is looked at. `valid_until` is when the first of the items
-- expires or the first snooze ends, null for never; `reads` and `dismissals` are where those stood. What is snoozed is in no
-- count: a snooze, like its end by hand, voids what was counted before it.
CREATE OR REPLACE FUNCTION count_my_items(
    known_position bigint, known_unread integer, known_total integer, known_until timestamptz,
    known_reads bigint, known_dismissals bigint
) RETURNS TABLE (
    unread_count integer, all_count integer, log_position bigint, valid_until timestamptz, reads bigint, dismissals bigint
)
LANGUAGE plpgsql STABLE
SET enable_bitmapscan = off SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
AS $function$
DECLARE
    head bigint := (SELECT log_head.position FROM log_head);
    done record;
    fresh record;
    snoozed record;
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
    SELECT array_agg(arrangements.position) AS positions, min(arrangements.snoozed_until) AS good_until
    INTO snoozed
    FROM arrangements
    WHERE arrangements.snoozed_until > now();
    RETURN QUERY
    SELECT
        (count(*) FILTER (WHERE receipt.read_at IS NULL AND arrival.position > mark.position))::integer,
        (count(*) FILTER (WHERE receipt.dismissed_at IS NULL))::integer,
        head, nullif(least(min(broadcast.expires_at), snoozed.good_until), 'infinity'),
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
    ) AS receipt ON true
    WHERE snoozed.positions IS NULL OR arrival.position <> ALL (snoozed.positions);
END;
$function$;

-- A process that lists in the old way would show what is snoozed, so it is better off without an answer.
-- squawk-ignore ban-drop-function
DROP FUNCTION list_items(
    integer, boolean, smallint[], text, text, tsquery, uuid, boolean, bigint, integer,
    bigint, integer, integer, timestamptz, bigint, bigint
);

-- A page of the recipient's items, newest arrival first, below a position, with those that are pinned before the others:
-- arrays of equal length, null for none. With it what is counted, and how many the filter has in all. Null filters filter
-- nothing; nothing of theirs is about a wedding on whose team the recipient is not.
--
-- What is on top is settled by the first page, or an item that is pinned or taken down meanwhile would come twice or not at
-- all: `tops` are the positions of those, all of which are left out below, and of which the first `tops_shown` were on earlier
-- pages; null for a first page, where it is what is pinned, the newest `most_tops`. `top_count` is how many there are here.
CREATE FUNCTION list_items(
    recipient_number integer,
    unread_only boolean, priorities smallint[], exact_type text, type_prefix text, search tsquery, wedding uuid,
    include_dismissed boolean, include_snoozed boolean, below bigint, tops bigint[], tops_shown integer, most_tops integer,
    page_size integer,
    known_position bigint, known_unread integer, known_total integer, known_until timestamptz,
    known_reads bigint, known_dismissals bigint
) RETURNS TABLE (
    unread_count integer, all_count integer, log_position bigint, valid_until timestamptz, reads bigint, dismissals bigint,
    total_count bigint, top_count bigint, tops_given bigint[], positions bigint[], broadcast_ids uuid[], arrived_at timestamptz[], silent boolean[],
    read_at timestamptz[], acknowledged_at timestamptz[], dismissed_at timestamptz[], clicked_at timestamptz[],
    snoozed_until timestamptz[], pinned_at timestamptz[]
)
LANGUAGE plpgsql STABLE
SET enable_bitmapscan = off SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
AS $function$
#variable_conflict use_column
DECLARE
    ceiling bigint := coalesce(below, 9223372036854775807);
    counted record;
    arranged record;
    wanted_tops bigint[];
    is_filtered boolean := include_dismissed OR include_snoozed OR priorities IS NOT NULL OR exact_type IS NOT NULL
        OR type_prefix IS NOT NULL OR search IS NOT NULL OR wedding IS NOT NULL;
BEGIN
    PERFORM become_recipient(recipient_number);
    SELECT own.* INTO counted
    FROM count_my_items(
        known_position, known_unread, known_total, known_until, known_reads, known_dismissals
    ) AS own;
    SELECT count(*) > 0 AS is_any,
        array_agg(arrangements.position) FILTER (
            WHERE arrangements.snoozed_until > now() AND NOT include_snoozed
        ) AS hidden,
        array_agg(arrangements.position) FILTER (WHERE arrangements.pinned_at IS NOT NULL) AS pinned
    INTO arranged
    FROM arrangements;
    wanted_tops := CASE WHEN tops IS NULL THEN arranged.pinned ELSE nullif(tops[tops_shown + 1:], '{}') END;
    RETURN QUERY
    WITH matching AS NOT MATERIALIZED (
        SELECT my_items.position, my_items.broadcast_id, my_items.arrived_at, my_items.silent, my_items.read_at,
            my_items.acknowledged_at, my_items.dismissed_at, my_items.clicked_at
        FROM my_items
        WHERE (include_dismissed OR my_items.dismissed_at IS NULL)
            AND (arranged.hidden IS NULL OR my_items.position <> ALL (arranged.hidden))
            AND NOT (unread_only AND my_items.is_read)
            AND (priorities IS NULL OR my_items.priority = ANY (priorities))
            AND (exact_type IS NULL OR my_items.type = exact_type)
            AND (type_prefix IS NULL OR starts_with(my_items.type, type_prefix))
            AND (
                wedding IS NULL
                OR (
                    my_items.wall @> ARRAY[wedding]
                    AND EXISTS (SELECT FROM team_members WHERE team_members.wedding_id = wedding)
                )
            )
            AND (search IS NULL OR my_items.words @@ search)
    ),
    top AS MATERIALIZED (
        SELECT matching.position, matching.broadcast_id, matching.arrived_at, matching.silent, matching.read_at,
            matching.acknowledged_at, matching.dismissed_at, matching.clicked_at
        FROM matching
        WHERE wanted_tops IS NOT NULL AND matching.position = ANY (wanted_tops)
        ORDER BY matching.position DESC
        LIMIT most_tops
    ),
    beside AS MATERIALIZED (
        SELECT coalesce(tops, (SELECT array_agg(top.position ORDER BY top.position DESC) FROM top)) AS positions
    ),
    page AS MATERIALIZED (
        SELECT matching.position, matching.broadcast_id, matching.arrived_at, matching.silent, matching.read_at,
            matching.acknowledged_at, matching.dismissed_at, matching.clicked_at
        FROM matching
        WHERE matching.position < ceiling
            AND (matching.position = ANY ((SELECT beside.positions FROM beside)::bigint[])) IS NOT TRUE
        ORDER BY matching.position DESC
        LIMIT page_size
    ),
    shown AS MATERIALIZED (
        SELECT true AS is_top, top.position, top.broadcast_id, top.arrived_at, top.silent, top.read_at,
            top.acknowledged_at, top.dismissed_at, top.clicked_at
        FROM top
        UNION ALL
        SELECT false, page.position, page.broadcast_id, page.arrived_at, page.silent, page.read_at,
            page.acknowledged_at, page.dismissed_at, page.clicked_at
        FROM page
        ORDER BY is_top DESC, position DESC
        LIMIT page_size
    )
    SELECT counted.unread_count, counted.all_count, counted.log_position, counted.valid_until, counted.reads,
        counted.dismissals,
        CASE
            WHEN NOT is_filtered AND unread_only THEN counted.unread_count
            WHEN NOT is_filtered THEN counted.all_count
            -- A first page that is not full is all there is.
            WHEN below IS NULL AND tops IS NULL AND (SELECT count(*) FROM shown) < page_size
                THEN (SELECT count(*) FROM shown)
            ELSE (SELECT count(*) FROM matching)
        END,
        count(*) FILTER (WHERE shown.is_top), coalesce((SELECT beside.positions FROM beside), '{}'),
        array_agg(shown.position ORDER BY shown.is_top DESC, shown.position DESC),
        array_agg(shown.broadcast_id ORDER BY shown.is_top DESC, shown.position DESC),
        array_agg(shown.arrived_at ORDER BY shown.is_top DESC, shown.position DESC),
        array_agg(shown.silent ORDER BY shown.is_top DESC, shown.position DESC),
        array_agg(shown.read_at ORDER BY shown.is_top DESC, shown.position DESC),
        array_agg(shown.acknowledged_at ORDER BY shown.is_top DESC, shown.position DESC),
        array_agg(shown.dismissed_at ORDER BY shown.is_top DESC, shown.position DESC),
        array_agg(shown.clicked_at ORDER BY shown.is_top DESC, shown.position DESC),
        array_agg(own.snoozed_until ORDER BY shown.is_top DESC, shown.position DESC),
        array_agg(own.pinned_at ORDER BY shown.is_top DESC, shown.position DESC)
    FROM shown
    LEFT JOIN LATERAL (
        SELECT CASE WHEN arrangements.snoozed_until > now() THEN arrangements.snoozed_until END AS snoozed_until,
            arrangements.pinned_at
        FROM arrangements
        WHERE arranged.is_any AND arrangements.broadcast_id = shown.broadcast_id
        LIMIT 1
    ) AS own ON true;
END;
$function$;

-- squawk-ignore ban-drop-function
DROP FUNCTION get_item(integer, uuid);

-- One of the recipient's items, and where they keep it; or none.
CREATE FUNCTION get_item(recipient_number integer, wanted uuid)
RETURNS TABLE (item my_items, snoozed_until timestamptz, pinned_at timestamptz)
LANGUAGE plpgsql STABLE
SET enable_bitmapscan = off SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
AS $function$
BEGIN
    PERFORM become_recipient(recipient_number);
    RETURN QUERY
    SELECT found.item, own.snoozed_until, own.pinned_at
    -- A broadcast can lie in an inbox once only; should it ever lie there twice, the first arrival is the item.
    FROM (
        SELECT my_items AS item FROM my_items WHERE my_items.broadcast_id = wanted ORDER BY my_items.position LIMIT 1
    ) AS found
    LEFT JOIN LATERAL (
        SELECT CASE WHEN arrangements.snoozed_until > now() THEN arrangements.snoozed_until END AS snoozed_until,
            arrangements.pinned_at
        FROM arrangements
        WHERE arrangements.broadcast_id = wanted
    ) AS own ON true;
END;
$function$;

-- squawk-ignore ban-drop-function
DROP FUNCTION describe_receipts(integer[], integer[], uuid[], bigint[]);
-- squawk-ignore ban-drop-function
DROP FUNCTION read_receipts(integer[], uuid[], bigint[]);

-- The times of items that lie at these positions: what was recorded, or what an "all read" implies, and where they are kept. One
-- row an element.
CREATE FUNCTION read_receipts(recipient_numbers integer[], broadcast_ids uuid[], positions bigint[])
RETURNS TABLE (
    place bigint, recipient_number integer, broadcast_id uuid,
    read_at timestamptz, acknowledged_at timestamptz, dismissed_at timestamptz, clicked_at timestamptz,
    snoozed_until timestamptz, pinned_at timestamptz
)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT asked.place, asked.recipient_number, asked.broadcast_id,
        least(receipts.read_at, (
            SELECT watermarks.at
            FROM watermarks
            WHERE watermarks.recipient_number = asked.recipient_number AND watermarks.position > asked.position
            ORDER BY watermarks.position
            LIMIT 1
        )),
        receipts.acknowledged_at, receipts.dismissed_at, receipts.clicked_at,
        CASE WHEN own.snoozed_until > now() THEN own.snoozed_until END, own.pinned_at
    FROM unnest(recipient_numbers, broadcast_ids, positions)
        WITH ORDINALITY AS asked (recipient_number, broadcast_id, position, place)
    LEFT JOIN LATERAL (
        SELECT receipts.read_at, receipts.acknowledged_at, receipts.dismissed_at, receipts.clicked_at
        FROM receipts
        WHERE receipts.recipient_number = asked.recipient_number AND receipts.broadcast_id = asked.broadcast_id
        LIMIT 1
    ) AS receipts ON true
    LEFT JOIN LATERAL (
        SELECT arrangements.snoozed_until, arrangements.pinned_at
        FROM arrangements
        WHERE arrangements.recipient_number = asked.recipient_number AND arrangements.broadcast_id = asked.broadcast_id
        LIMIT 1
    ) AS own ON true;
END;

-- What the log says of receipts: [[recipient, broadcast, read, acknowledged, dismissed, clicked], …], times in microseconds, and
-- of an item that is snoozed or pinned also [… snoozed until, pinned].
CREATE FUNCTION describe_receipts(
    places integer[], recipient_numbers integer[], broadcast_ids uuid[], positions bigint[]
) RETURNS bytea
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT convert_to(json_agg(
        CASE
            WHEN known.snoozed_until IS NULL AND known.pinned_at IS NULL
                THEN json_build_array(
                    known.recipient_number, known.broadcast_id, to_microseconds(known.read_at),
                    to_microseconds(known.acknowledged_at), to_microseconds(known.dismissed_at),
                    to_microseconds(known.clicked_at)
                )
            ELSE json_build_array(
                known.recipient_number, known.broadcast_id, to_microseconds(known.read_at),
                to_microseconds(known.acknowledged_at), to_microseconds(known.dismissed_at),
                to_microseconds(known.clicked_at), to_microseconds(known.snoozed_until),
                to_microseconds(known.pinned_at)
            )
        END
        ORDER BY known.place
    )::text, 'UTF8')
    FROM read_receipts(recipient_numbers, broadcast_ids, positions) AS known
    WHERE known.place = ANY (places);
END;

-- squawk-ignore ban-drop-function
DROP FUNCTION record_receipts(integer[], integer[], uuid[], text[], text[]);

-- Those recipients of some of these items who have theirs snoozed, or had until just now. For record_receipts, by whose
-- settings its plan is made.
CREATE FUNCTION find_snoozing(places integer[], recipient_numbers integer[], broadcast_ids uuid[]) RETURNS integer[]
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT coalesce(array_agg(recipient_numbers[asked.place]), '{}')
    FROM unnest(places) AS asked (place)
    CROSS JOIN LATERAL (
        SELECT arrangements.snoozed_until
        FROM arrangements
        WHERE arrangements.recipient_number = recipient_numbers[asked.place]
            AND arrangements.broadcast_id = broadcast_ids[asked.place]
        LIMIT 1
    ) AS own
    WHERE own.snoozed_until IS NOT NULL;
END;

-- Records what recipients did with items. Arrays of equal length are one element an item; `calls` says which belong to one
-- call, of which nothing is recorded when it dismisses a critical item that is not acknowledged. A recipient may be in one
-- call of a group only, and an item in it once. Answers each item:
--   recorded  with its times now, and whether this call was the first to acknowledge it
--   unknown   not in the recipient's inbox
--   refused   its call dismisses a critical item that is not acknowledged; `is_cause` says whether it is this one
-- and, the same for all, where in the log it is said; null when nothing changed. Whoever dismisses an item ends its snooze.
CREATE FUNCTION record_receipts(
    calls integer[], recipient_numbers integer[], broadcast_ids uuid[], actions text[], urls text[]
) RETURNS TABLE (
    place bigint, outcome text, read_at timestamptz, acknowledged_at timestamptz, dismissed_at timestamptz,
    clicked_at timestamptz, snoozed_until timestamptz, pinned_at timestamptz, is_critical boolean, is_cause boolean,
    newly_acknowledged boolean, log_position bigint
)
LANGUAGE plpgsql
SET enable_bitmapscan = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
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
    snoozing integer[] := '{}';
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
        IF 'dismissed' = ANY (actions) THEN
            snoozing := find_snoozing(changed, recipient_numbers, broadcast_ids);
        END IF;
        IF snoozing <> '{}' THEN
            PERFORM take_positions(0);
            UPDATE arrangements SET snoozed_until = NULL
            FROM unnest(changed) AS step (place)
            WHERE actions[step.place] = 'dismissed'
                AND arrangements.recipient_number = recipient_numbers[step.place]
                AND arrangements.broadcast_id = broadcast_ids[step.place];
        END IF;
        entry := append_log('receipts', describe_receipts(changed, recipient_numbers, broadcast_ids, positions));
        -- Until this commits, nothing else happens to any inbox. What has happened since these items were looked at may have
        -- taken one of them out of it, and so may its expiry before the commit: then nobody's counts are worth adjusting.
        is_certain := NOT EXISTS (SELECT FROM retractions WHERE retractions.position > head)
            AND NOT EXISTS (
                SELECT FROM broadcasts
                WHERE broadcasts.broadcast_id = ANY (broadcast_ids)
                    AND broadcasts.expires_at < clock_timestamp() + interval '1 minute'
            );
        -- What is snoozed is in no count, so what is done with it changes none by one.
        snoozing := snoozing || find_snoozing(changed, recipient_numbers, broadcast_ids);
        INSERT INTO changes AS known (recipient_number, position, reads, dismissals)
        -- Before the first position there was nothing to count.
        SELECT recipient_numbers[step.place],
            CASE WHEN is_certain AND recipient_numbers[step.place] <> ALL (snoozing) THEN 1 ELSE entry END,
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
        SET position = CASE WHEN excluded.position < entry AND known.position <= head THEN known.position ELSE entry END,
            reads = known.reads + excluded.reads,
            dismissals = known.dismissals + excluded.dismissals;
    END IF;

    RETURN QUERY
    SELECT known.place,
        CASE WHEN positions[known.place] IS NULL THEN 'unknown'
            WHEN known.place = ANY (accepted) THEN 'recorded'
            ELSE 'refused' END,
        known.read_at, known.acknowledged_at, known.dismissed_at, known.clicked_at, known.snoozed_until, known.pinned_at,
        priorities[known.place] IS NOT DISTINCT FROM 1, known.place = ANY (causes),
        coalesce(known.place = ANY (acknowledged), false), entry
    FROM read_receipts(recipient_numbers, broadcast_ids, positions) AS known
    ORDER BY known.place;
END;
$function$;

-- squawk-ignore ban-drop-function
DROP FUNCTION record_receipts_once(
    text[], text[], uuid[], bytea[], integer[], integer[], uuid[], text[], text[]
);

-- As record_receipts, for calls of which some have a request_id: the first four arrays are one element a call, null for one
-- without, and `calls` counts from 1. A call whose id is taken records nothing. It is answered `repeated`, in one row, with
-- what stands, null for another body; or, while nobody has kept its whole answer, what its items are by now. What is refused
-- leaves its id free.
CREATE FUNCTION record_receipts_once(
    callers text[], methods text[], request_ids uuid[], body_hashes bytea[],
    calls integer[], recipient_numbers integer[], broadcast_ids uuid[], actions text[], urls text[]
) RETURNS TABLE (
    call integer, place integer, outcome text, read_at timestamptz, acknowledged_at timestamptz, dismissed_at timestamptz,
    clicked_at timestamptz, snoozed_until timestamptz, pinned_at timestamptz, is_critical boolean, is_cause boolean,
    newly_acknowledged boolean, log_position bigint, response bytea
)
LANGUAGE plpgsql
SET enable_bitmapscan = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $function$
#variable_conflict use_column
DECLARE
    taken record;
    repeated integer[] := '{}';
    unanswered integer[] := '{}';
    fresh integer[];
BEGIN
    FOR taken IN
        SELECT earlier.place, earlier.known_response,
            earlier.known_body_hash = body_hashes[earlier.place] AS is_same, earlier.known_is_whole AS is_whole
        FROM take_requests(callers, methods, request_ids, body_hashes) AS earlier
    LOOP
        repeated := repeated || taken.place;
        IF taken.is_whole OR NOT taken.is_same THEN
            call := taken.place;
            outcome := 'repeated';
            response := CASE WHEN taken.is_same THEN taken.known_response END;
            RETURN NEXT;
        ELSE
            unanswered := unanswered || taken.place;
        END IF;
    END LOOP;

    fresh := array(
        SELECT asked.place
        FROM generate_subscripts(calls, 1) AS asked (place)
        WHERE calls[asked.place] <> ALL (repeated)
        ORDER BY asked.place
    );
    RETURN QUERY
    WITH recorded AS MATERIALIZED (
        SELECT calls[fresh[receipt.place]] AS call, fresh[receipt.place] AS place, receipt.outcome, receipt.read_at,
            receipt.acknowledged_at, receipt.dismissed_at, receipt.clicked_at, receipt.snoozed_until, receipt.pinned_at,
            receipt.is_critical, receipt.is_cause, receipt.newly_acknowledged, receipt.log_position
        FROM record_receipts(
            array(SELECT calls[item.place] FROM unnest(fresh) AS item (place)),
            array(SELECT recipient_numbers[item.place] FROM unnest(fresh) AS item (place)),
            array(SELECT broadcast_ids[item.place] FROM unnest(fresh) AS item (place)),
            array(SELECT actions[item.place] FROM unnest(fresh) AS item (place)),
            array(SELECT urls[item.place] FROM unnest(fresh) AS item (place))
        ) AS receipt
    ), freed AS (
        DELETE FROM requests
        USING (SELECT DISTINCT recorded.call FROM recorded WHERE recorded.outcome = 'refused') AS refused
        WHERE requests.caller = callers[refused.call]
            AND requests.method = methods[refused.call]
            AND requests.request_id = request_ids[refused.call]
    )
    SELECT recorded.call, recorded.place, recorded.outcome, recorded.read_at, recorded.acknowledged_at,
        recorded.dismissed_at, recorded.clicked_at, recorded.snoozed_until, recorded.pinned_at, recorded.is_critical,
        recorded.is_cause, recorded.newly_acknowledged, recorded.log_position, NULL::bytea
    FROM recorded;

    RETURN QUERY
    SELECT calls[item.place], item.place, CASE WHEN found.item_position IS NULL THEN 'unknown' ELSE 'recorded' END,
        receipt.read_at, receipt.acknowledged_at, receipt.dismissed_at, receipt.clicked_at, receipt.snoozed_until,
        receipt.pinned_at, false, false, false,
        NULL::bigint, NULL::bytea
    FROM generate_subscripts(calls, 1) AS item (place)
    LEFT JOIN LATERAL find_visible_item(recipient_numbers[item.place], broadcast_ids[item.place]) AS found ON true
    CROSS JOIN LATERAL read_receipts(
        ARRAY[recipient_numbers[item.place]], ARRAY[broadcast_ids[item.place]], ARRAY[found.item_position]
    ) AS receipt
    WHERE calls[item.place] = ANY (unanswered);
END;
$function$;

-- Snoozes or pins one of a recipient's items, or ends either; `until` belongs to `snoozed`. Answers
--   arranged   with the item's times now, and where in the log it is said; null when nothing changed
--   unknown    not in the recipient's inbox
--   dismissed  it is dismissed, and can be neither snoozed nor pinned
--   full       `most_pinned` items that are listed are pinned already
CREATE FUNCTION arrange_item(
    wanted_recipient integer, wanted_broadcast uuid, change text, until timestamptz, most_pinned integer
) RETURNS TABLE (
    outcome text, read_at timestamptz, acknowledged_at timestamptz, dismissed_at timestamptz, clicked_at timestamptz,
    snoozed_until timestamptz, pinned_at timestamptz, log_position bigint
)
LANGUAGE plpgsql
SET enable_bitmapscan = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $function$
#variable_conflict use_column
DECLARE
    moment timestamptz := clock_timestamp();
    lies_at bigint;
    known record;
    entry bigint;
BEGIN
    -- Before any row of arrangements, as whoever ends snoozes does, so that neither waits for the other.
    PERFORM take_positions(0);
    SELECT item.item_position INTO lies_at FROM find_visible_item(wanted_recipient, wanted_broadcast) AS item;
    IF NOT FOUND THEN
        outcome := 'unknown';
        RETURN NEXT;
        RETURN;
    END IF;
    SELECT own.snoozed_until, own.pinned_at, receipt.dismissed_at INTO known
    FROM (SELECT) AS nothing
    LEFT JOIN arrangements AS own
        ON own.recipient_number = wanted_recipient AND own.broadcast_id = wanted_broadcast
    LEFT JOIN receipts AS receipt
        ON receipt.recipient_number = wanted_recipient AND receipt.broadcast_id = wanted_broadcast;
    outcome := CASE
        WHEN change IN ('snoozed', 'pinned') AND known.dismissed_at IS NOT NULL THEN 'dismissed'
        WHEN change = 'pinned' AND known.pinned_at IS NULL AND count_pinned(wanted_recipient) >= most_pinned THEN 'full'
        ELSE 'arranged'
    END;
    IF outcome <> 'arranged' THEN
        RETURN NEXT;
        RETURN;
    END IF;

    IF (
        CASE change
            WHEN 'snoozed' THEN known.snoozed_until IS DISTINCT FROM until
            WHEN 'woken' THEN known.snoozed_until IS NOT NULL
            WHEN 'pinned' THEN known.pinned_at IS NULL
            WHEN 'unpinned' THEN known.pinned_at IS NOT NULL
        END
    ) THEN
        INSERT INTO arrangements AS own (recipient_number, broadcast_id, position, snoozed_until, pinned_at)
        VALUES (
            wanted_recipient, wanted_broadcast, lies_at,
            CASE change WHEN 'snoozed' THEN until WHEN 'woken' THEN NULL ELSE known.snoozed_until END,
            CASE change WHEN 'pinned' THEN moment WHEN 'unpinned' THEN NULL ELSE known.pinned_at END
        )
        ON CONFLICT (recipient_number, broadcast_id) DO UPDATE
        SET snoozed_until = excluded.snoozed_until, pinned_at = excluded.pinned_at;
        entry := append_log('receipts', describe_receipts(
            ARRAY[1], ARRAY[wanted_recipient], ARRAY[wanted_broadcast], ARRAY[lies_at]
        ));
        IF change IN ('snoozed', 'woken') THEN
            PERFORM note_changes(ARRAY[wanted_recipient], entry);
        END IF;
    END IF;
    RETURN QUERY
    SELECT 'arranged', receipt.read_at, receipt.acknowledged_at, receipt.dismissed_at, receipt.clicked_at,
        receipt.snoozed_until, receipt.pinned_at, entry
    FROM read_receipts(ARRAY[wanted_recipient], ARRAY[wanted_broadcast], ARRAY[lies_at]) AS receipt;
END;
$function$;

-- How many of the items that a recipient has pinned are there still, and not dismissed.
CREATE FUNCTION count_pinned(wanted_recipient integer) RETURNS bigint
LANGUAGE sql STABLE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
BEGIN ATOMIC
    SELECT count(*)
    FROM arrangements AS own
    CROSS JOIN LATERAL find_visible_item(wanted_recipient, own.broadcast_id) AS item
    LEFT JOIN receipts AS receipt
        ON receipt.recipient_number = wanted_recipient AND receipt.broadcast_id = own.broadcast_id
    WHERE own.recipient_number = wanted_recipient AND own.pinned_at IS NOT NULL AND receipt.dismissed_at IS NULL;
END;

-- As arrange_item, for a call that may have a request_id. One whose id is taken changes nothing, and is answered `repeated`
-- with what stands, null for another body; or, while nobody has kept its whole answer, how the item is by now. What is
-- refused leaves its id free.
CREATE FUNCTION arrange_item_once(
    caller text, method text, request_id uuid, body_hash bytea,
    wanted_recipient integer, wanted_broadcast uuid, change text, until timestamptz, most_pinned integer
) RETURNS TABLE (
    outcome text, read_at timestamptz, acknowledged_at timestamptz, dismissed_at timestamptz, clicked_at timestamptz,
    snoozed_until timestamptz, pinned_at timestamptz, log_position bigint, response bytea
)
LANGUAGE plpgsql
SET enable_bitmapscan = off SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
AS $function$
#variable_conflict use_column
DECLARE
    taken record;
    done record;
BEGIN
    SELECT earlier.known_response, earlier.known_body_hash = arrange_item_once.body_hash AS is_same,
        earlier.known_is_whole AS is_whole
    INTO taken
    FROM take_requests(
        ARRAY[arrange_item_once.caller], ARRAY[arrange_item_once.method], ARRAY[arrange_item_once.request_id],
        ARRAY[arrange_item_once.body_hash]
    ) AS earlier;
    IF FOUND AND (taken.is_whole OR NOT taken.is_same) THEN
        outcome := 'repeated';
        response := CASE WHEN taken.is_same THEN taken.known_response END;
        RETURN NEXT;
    ELSIF FOUND THEN
        RETURN QUERY
        SELECT 'arranged', receipt.read_at, receipt.acknowledged_at, receipt.dismissed_at, receipt.clicked_at,
            receipt.snoozed_until, receipt.pinned_at, NULL::bigint, NULL::bytea
        FROM read_receipts(ARRAY[wanted_recipient], ARRAY[wanted_broadcast], ARRAY[(
            SELECT item.item_position FROM find_visible_item(wanted_recipient, wanted_broadcast) AS item
        )]) AS receipt;
    ELSE
        SELECT arranged.* INTO done
        FROM arrange_item(wanted_recipient, wanted_broadcast, change, until, most_pinned) AS arranged;
        IF done.outcome <> 'arranged' THEN
            DELETE FROM requests
            WHERE requests.caller = arrange_item_once.caller
                AND requests.method = arrange_item_once.method
                AND requests.request_id = arrange_item_once.request_id;
        END IF;
        RETURN QUERY
        SELECT done.outcome, done.read_at, done.acknowledged_at, done.dismissed_at, done.clicked_at, done.snoozed_until,
            done.pinned_at, done.log_position, NULL::bytea;
    END IF;
END;
$function$;

-- Gives up to `most` snoozes that are over, and as many broadcasts that have expired, their places in the log. Answers the last
-- of these, null for none, whether there may be more, and how long it is until the next; null for never.
CREATE FUNCTION pass_time(most integer) RETURNS TABLE (log_position bigint, is_more boolean, next_in interval)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $function$
DECLARE
    moment timestamptz := clock_timestamp();
    ended integer := 0;
    expired integer := 0;
    returned record;
    over uuid;
BEGIN
    IF EXISTS (SELECT FROM arrangements WHERE arrangements.snoozed_until <= moment)
        OR EXISTS (
            SELECT FROM broadcasts
            WHERE NOT broadcasts.expiry_told AND broadcasts.expires_at < 'infinity' AND broadcasts.expires_at <= moment
        )
    THEN
        -- Only one at a time, and no item moves meanwhile.
        PERFORM take_positions(0);
        FOR returned IN
            WITH over AS MATERIALIZED (
                SELECT arrangements.recipient_number, arrangements.broadcast_id, arrangements.position
                FROM arrangements
                WHERE arrangements.snoozed_until <= moment
                ORDER BY arrangements.snoozed_until
                LIMIT most
            ),
            ended AS (
                UPDATE arrangements SET snoozed_until = NULL
                FROM over
                WHERE arrangements.recipient_number = over.recipient_number
                    AND arrangements.broadcast_id = over.broadcast_id
            )
            SELECT over.broadcast_id, count(*)::integer AS people,
                array_agg(over.recipient_number) AS numbers, array_agg(over.position) AS positions
            FROM over
            GROUP BY over.broadcast_id
            ORDER BY min(over.position)
        LOOP
            ended := ended + returned.people;
            log_position := coalesce(
                tell_returned(returned.broadcast_id, returned.numbers, returned.positions), log_position
            );
        END LOOP;
        FOR over IN
            UPDATE broadcasts SET expiry_told = true
            WHERE broadcasts.ctid = ANY (ARRAY(
                SELECT due.ctid
                FROM broadcasts AS due
                WHERE NOT due.expiry_told AND due.expires_at < 'infinity' AND due.expires_at <= moment
                ORDER BY due.expires_at
                LIMIT most
            ))
            RETURNING CASE WHEN NOT broadcasts.hidden THEN broadcasts.broadcast_id END
        LOOP
            expired := expired + 1;
            -- Nobody misses what was taken out before, or came too late to be seen.
            IF EXISTS (
                SELECT FROM arrivals WHERE arrivals.broadcast_id = over AND arrivals.recipients > 0
            ) THEN
                log_position := append_log('expired', uuid_send(over));
            END IF;
        END LOOP;
    END IF;
    is_more := ended >= most OR expired >= most;
    next_in := least(
        (SELECT min(arrangements.snoozed_until) FROM arrangements WHERE arrangements.snoozed_until > moment),
        (
            SELECT min(broadcasts.expires_at)
            FROM broadcasts
            WHERE NOT broadcasts.expiry_told AND broadcasts.expires_at < 'infinity' AND broadcasts.expires_at > moment
        )
    ) - clock_timestamp();
    RETURN NEXT;
END;
$function$;

-- Says in the log who has an item back, which lay at these positions: the broadcast, then [[recipient, arrived, silent, read,
-- acknowledged, dismissed, clicked, snoozed, pinned], …], times in microseconds. Not of whoever has dismissed it, or has it no
-- more; null when that is everybody.
CREATE FUNCTION tell_returned(wanted uuid, numbers integer[], positions bigint[]) RETURNS bigint
LANGUAGE plpgsql
SET enable_bitmapscan = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $function$
DECLARE
    items json;
BEGIN
    SELECT json_agg(json_build_array(
        receipt.recipient_number, to_microseconds(arrival.arrived_at), arrival.silent, to_microseconds(receipt.read_at),
        to_microseconds(receipt.acknowledged_at), NULL, to_microseconds(receipt.clicked_at), NULL,
        to_microseconds(receipt.pinned_at)
    ) ORDER BY receipt.recipient_number)
    INTO items
    FROM read_receipts(numbers, array_fill(wanted, ARRAY[cardinality(numbers)]), positions) AS receipt
    CROSS JOIN LATERAL find_visible_item(receipt.recipient_number, wanted) AS item
    CROSS JOIN LATERAL (
        SELECT blocks.arrived_at, blocks.silent
        FROM blocks
        WHERE blocks.block = receipt.recipient_number >> 12 AND blocks.position = item.item_position
            AND get_bit(blocks.members, receipt.recipient_number & 4095) <> 0
        UNION ALL
        SELECT direct.arrived_at, direct.silent
        FROM direct
        WHERE direct.recipient_number = receipt.recipient_number AND direct.position = item.item_position
    ) AS arrival
    WHERE receipt.dismissed_at IS NULL;
    IF items IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN append_log('returned', convert_to(json_build_object('broadcast', wanted, 'items', items)::text, 'UTF8'));
END;
$function$;

-- Removes where up to `most` people kept an item that has left; how many did.
CREATE FUNCTION remove_arrangements(wanted uuid, most integer) RETURNS bigint
LANGUAGE sql
BEGIN ATOMIC
    WITH removed AS (
        DELETE FROM arrangements
        WHERE arrangements.ctid = ANY (ARRAY(
            SELECT part.ctid FROM arrangements AS part WHERE part.broadcast_id = wanted LIMIT greatest(most, 0)
        ))
        RETURNING arrangements.recipient_number
    )
    SELECT count(*) FROM removed;
END;

-- Removes up to `most` rows of a broadcast that has left and is not critical; how many those were, and of how many items.
CREATE OR REPLACE FUNCTION remove_rows(wanted uuid, most integer) RETURNS TABLE (gone bigint, items bigint)
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
    gone := gone + remove_arrangements(wanted, (most - gone)::integer);
    RETURN NEXT;
END
$function$;

-- As remove_rows for a critical one, whose receipts stay: nobody's item goes before their receipt says all that is known. Of a
-- block the first `most` members at a time, so that a step is never longer than it is allowed to be.
CREATE OR REPLACE FUNCTION settle_rows(wanted uuid, most integer) RETURNS TABLE (gone bigint, items bigint)
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
    items := cardinality(numbers);
    gone := items + remove_arrangements(wanted, (most - items)::integer);
    RETURN NEXT;
END
$function$;
