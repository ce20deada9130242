-- How many broadcasts each sender may send is counted in the transaction that accepts them, so that a limit is exact
-- whatever is asked at once, and holds whatever becomes of Redis.

-- A row for each broadcast that was accepted. It counts for an hour and for a day and then means nothing, so there is no
-- counter that anybody would have to set back, and what is older than a day is cleared away.
CREATE TABLE counted_sends (
    caller text NOT NULL,
    type text NOT NULL,
    priority smallint NOT NULL,
    -- The nil UUID when it was about no wedding.
    wedding_id uuid NOT NULL,
    at timestamptz NOT NULL,
    -- One more than that of the send before which is counted with it: two rows tell how many lie between two moments,
    -- where a service account may have sent a hundred thousand.
    ordinal bigint NOT NULL,
    request_id uuid,
    PRIMARY KEY (caller, type, priority, wedding_id, at),
    CONSTRAINT counted_priority_is_known CHECK (priority BETWEEN 1 AND 4),
    CONSTRAINT ordinals_begin_at_one CHECK (ordinal >= 1)
);

-- Whoever removes what is over goes by age alone.
CREATE INDEX counted_sends_by_age ON counted_sends (at);

-- Which counts these are: a Redis that is shared with others, or has outlived a database, must not pass for ours.
CREATE TABLE count_identity (
    identity uuid PRIMARY KEY
);
INSERT INTO count_identity (identity) VALUES (gen_random_uuid());

-- What was left after a send is part of its answer, and known only when it is counted; null for other calls.
ALTER TABLE requests
ADD COLUMN hour_limit integer,
ADD COLUMN hour_used integer,
ADD COLUMN day_limit integer,
ADD COLUMN day_used integer,
ADD COLUMN reset_time timestamptz;

ALTER TABLE counted_sends ENABLE ROW LEVEL SECURITY;
ALTER TABLE counted_sends FORCE ROW LEVEL SECURITY;

CREATE POLICY count_own ON counted_sends FOR INSERT TO sender_api
WITH CHECK (caller = current_setting('sender.caller', true));

CREATE POLICY read_own_counts ON counted_sends FOR SELECT TO sender_api
USING (caller = current_setting('sender.caller', true));

GRANT SELECT, INSERT ON counted_sends TO sender_api;
GRANT SELECT ON count_identity TO sender_api;

-- Whoever clears away what is over sees that it is, and not whose it was; what still counts is out of its reach.
CREATE POLICY find_past_counts ON counted_sends FOR SELECT TO sender_worker
USING (at < now() - interval '24 hours');

CREATE POLICY forget_past_counts ON counted_sends FOR DELETE TO sender_worker
USING (at < now() - interval '24 hours');

GRANT SELECT (at), DELETE ON counted_sends TO sender_worker;

-- How many of what is counted together came after a moment.
CREATE FUNCTION sends_after(caller text, type text, priority integer, wedding_id uuid, moment timestamptz) RETURNS bigint
LANGUAGE sql STABLE
BEGIN ATOMIC
    WITH mine AS NOT MATERIALIZED (
        SELECT counted.at, counted.ordinal
        FROM counted_sends AS counted
        WHERE counted.caller = sends_after.caller
            AND counted.type = sends_after.type
            AND counted.priority = sends_after.priority
            AND counted.wedding_id = sends_after.wedding_id
    )
    SELECT coalesce(
        (SELECT mine.ordinal FROM mine ORDER BY mine.at DESC LIMIT 1) - coalesce(
            (SELECT mine.ordinal FROM mine WHERE mine.at <= sends_after.moment ORDER BY mine.at DESC LIMIT 1),
            (SELECT mine.ordinal - 1 FROM mine ORDER BY mine.at LIMIT 1)
        ),
        0
    );
END;

-- When there is room again in a window that is full: when the oldest of its last `limit` sends grows out of it.
CREATE FUNCTION window_opens(
    caller text, type text, priority integer, wedding_id uuid, length interval, size integer
) RETURNS timestamptz
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT counted.at + window_opens.length
    FROM counted_sends AS counted
    WHERE counted.caller = window_opens.caller
        AND counted.type = window_opens.type
        AND counted.priority = window_opens.priority
        AND counted.wedding_id = window_opens.wedding_id
    ORDER BY counted.at DESC
    LIMIT 1 OFFSET window_opens.size - 1;
END;

-- How a limit stands: what was used of the last hour and of the last day. When one of them is full, also when the next
-- send is free, and the request_ids, 16 bytes each in their order, of what was sent: nothing else of that day can have
-- been answered before, for as long as it is full.
CREATE FUNCTION limit_standing(
    caller text, type text, priority integer, wedding_id uuid, per_hour integer, per_day integer
) RETURNS TABLE (counted_at timestamptz, hour_used integer, day_used integer, reset_time timestamptz, request_ids bytea)
LANGUAGE plpgsql
AS $function$
#variable_conflict use_column
DECLARE
    about uuid := coalesce(limit_standing.wedding_id, '00000000-0000-0000-0000-000000000000');
BEGIN
    counted_at := clock_timestamp();
    hour_used := sends_after(caller, type, priority, about, counted_at - interval '1 hour');
    day_used := sends_after(caller, type, priority, about, counted_at - interval '24 hours');
    IF hour_used >= per_hour THEN
        reset_time := window_opens(caller, type, priority, about, interval '1 hour', per_hour);
    END IF;
    IF day_used >= per_day THEN
        reset_time := greatest(
            reset_time, window_opens(caller, type, priority, about, interval '24 hours', per_day)
        );
    END IF;
    IF reset_time IS NOT NULL THEN
        SELECT coalesce(string_agg(uuid_send(counted.request_id), '' ORDER BY counted.request_id), '')
        INTO request_ids
        FROM counted_sends AS counted
        WHERE counted.caller = limit_standing.caller
            AND counted.type = limit_standing.type
            AND counted.priority = limit_standing.priority
            AND counted.wedding_id = about
            AND counted.at > counted_at - interval '24 hours';
    END IF;
    RETURN NEXT;
END
$function$;

-- Counts a send, unless one of its windows is full; answers whether it was counted, and how its limit stands by then.
-- Whoever calls it holds the lock of what is counted together until the end of the transaction.
CREATE FUNCTION count_send(
    caller text, type text, priority integer, wedding_id uuid, request_id uuid, per_hour integer, per_day integer
) RETURNS TABLE (
    is_counted boolean, counted_at timestamptz, hour_used integer, day_used integer, reset_time timestamptz, request_ids bytea
)
LANGUAGE plpgsql
AS $function$
#variable_conflict use_column
DECLARE
    about uuid := coalesce(count_send.wedding_id, '00000000-0000-0000-0000-000000000000');
BEGIN
    SELECT standing.counted_at, standing.hour_used, standing.day_used, standing.reset_time, standing.request_ids
    INTO counted_at, hour_used, day_used, reset_time, request_ids
    FROM limit_standing(caller, type, priority, about, per_hour, per_day) AS standing;
    is_counted := reset_time IS NULL;
    IF is_counted THEN
        -- A clock that was set back must not put a send before the one that it follows.
        INSERT INTO counted_sends (caller, type, priority, wedding_id, at, ordinal, request_id)
        SELECT
            count_send.caller, count_send.type, count_send.priority, about,
            greatest(count_send.counted_at, max(newest.at) + interval '1 microsecond'),
            coalesce(max(newest.ordinal), 0) + 1, count_send.request_id
        FROM (
            SELECT counted.at, counted.ordinal
            FROM counted_sends AS counted
            WHERE counted.caller = count_send.caller
                AND counted.type = count_send.type
                AND counted.priority = count_send.priority
                AND counted.wedding_id = about
            ORDER BY counted.at DESC
            LIMIT 1
        ) AS newest;
        hour_used := hour_used + 1;
        day_used := day_used + 1;
        -- That was the last one for now.
        IF hour_used >= per_hour OR day_used >= per_day THEN
            SELECT standing.reset_time, standing.request_ids
            INTO reset_time, request_ids
            FROM limit_standing(caller, type, priority, about, per_hour, per_day) AS standing;
        END IF;
    END IF;
    RETURN NEXT;
END
$function$;

-- How a limit of this caller stands, without sending anything.
CREATE FUNCTION read_quota(
    caller text, type text, priority integer, wedding_id uuid, per_hour integer, per_day integer
) RETURNS TABLE (counted_at timestamptz, hour_used integer, day_used integer, reset_time timestamptz, request_ids bytea)
LANGUAGE sql
BEGIN ATOMIC
    SELECT set_config('sender.caller', read_quota.caller, true);
    SELECT standing.counted_at, standing.hour_used, standing.day_used, standing.reset_time, standing.request_ids
    FROM limit_standing(
        read_quota.caller, read_quota.type, read_quota.priority, read_quota.wedding_id, read_quota.per_hour,
        read_quota.per_day
    ) AS standing;
END;

-- A process that sends in the old way would not be counted, so it is better off without an answer.
-- squawk-ignore ban-drop-function
DROP FUNCTION accept_broadcast(
    text, boolean, text, uuid, bytea, bytea, uuid, text, integer, text, text, text, text, boolean, uuid[], text[], text[],
    uuid[], uuid[], uuid, text, date, uuid[], timestamptz, timestamptz, timestamptz, bigint, text, bytea, boolean
);
-- squawk-ignore ban-drop-function
DROP FUNCTION find_request(text, text, uuid);

-- Accepts a broadcast: it is counted, and its request_id is kept with the answer, the broadcast with its wall and its
-- outbox row, all or nothing. When the request_id has been answered before, whatever happened meanwhile, nothing is done
-- and that answer is given. When the limit is used up nothing is done either, and `is_counted` is false.
--
-- What is counted together comes one after the other, by the lock. Each sees all before it, because in this function
-- every statement sees what was committed when it began. Two calls with one request_id are counted together, unless they
-- differ in what decides that; then they meet at the primary key of requests, and all that the second did is undone.
CREATE FUNCTION accept_broadcast(
    caller text, caller_is_service boolean, method text, request_id uuid, body_hash bytea, response bytea,
    broadcast_id uuid, type text, priority integer, title text, message text, action_label text, action_url text,
    everyone boolean, user_ids uuid[], roles text[], tiers text[], segment_ids uuid[], wedding_ids uuid[],
    wedding_id uuid, couple_name text, wedding_date date, wall uuid[],
    scheduled_for timestamptz, expires_at timestamptz, created_at timestamptz, targeted bigint,
    due_subject text, due_payload bytea, is_due_now boolean, per_hour integer, per_day integer
) RETURNS TABLE (
    known_body_hash bytea, known_response bytea, is_counted boolean, hour_limit integer, hour_used integer,
    day_limit integer, day_used integer, reset_time timestamptz, counted_at timestamptz, request_ids bytea
)
LANGUAGE plpgsql
AS $function$
#variable_conflict use_column
DECLARE
    about uuid := coalesce(accept_broadcast.wedding_id, '00000000-0000-0000-0000-000000000000');
BEGIN
    PERFORM set_config('sender.caller', accept_broadcast.caller, true);
    PERFORM pg_advisory_xact_lock(
        hashtextextended(
            'sender.' || concat_ws(
                '/', accept_broadcast.caller, accept_broadcast.type, accept_broadcast.priority, about
            ),
            0
        )
    );
    IF accept_broadcast.request_id IS NOT NULL THEN
        RETURN QUERY
        SELECT
            known.body_hash, known.response, NULL::boolean, known.hour_limit, known.hour_used, known.day_limit,
            known.day_used, known.reset_time, NULL::timestamptz, NULL::bytea
        FROM requests AS known
        WHERE known.caller = accept_broadcast.caller
            AND known.method = accept_broadcast.method
            AND known.request_id = accept_broadcast.request_id;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    SELECT
        counted.is_counted, per_hour, counted.hour_used, per_day, counted.day_used, counted.reset_time,
        counted.counted_at, counted.request_ids
    INTO is_counted, hour_limit, hour_used, day_limit, day_used, reset_time, counted_at, request_ids
    FROM count_send(
        accept_broadcast.caller, accept_broadcast.type, accept_broadcast.priority, about,
        accept_broadcast.request_id, per_hour, per_day
    ) AS counted;
    RETURN NEXT;
    IF NOT is_counted THEN
        RETURN;
    END IF;
    IF accept_broadcast.request_id IS NOT NULL THEN
        INSERT INTO requests (
            caller, method, request_id, body_hash, response, hour_limit, hour_used, day_limit, day_used, reset_time
        )
        VALUES (
            accept_broadcast.caller, accept_broadcast.method, accept_broadcast.request_id,
            accept_broadcast.body_hash, accept_broadcast.response,
            accept_broadcast.hour_limit, accept_broadcast.hour_used, accept_broadcast.day_limit,
            accept_broadcast.day_used, accept_broadcast.reset_time
        );
    END IF;
    INSERT INTO broadcasts (
        broadcast_id, type, priority, title, message, action_label, action_url,
        everyone, user_ids, roles, tiers, segment_ids, wedding_ids,
        wedding_id, couple_name, wedding_date, scheduled_for, expires_at,
        created_by, created_by_service, created_at, targeted, state
    )
    VALUES (
        accept_broadcast.broadcast_id, accept_broadcast.type, accept_broadcast.priority,
        accept_broadcast.title, accept_broadcast.message,
        accept_broadcast.action_label, accept_broadcast.action_url,
        accept_broadcast.everyone, accept_broadcast.user_ids, accept_broadcast.roles, accept_broadcast.tiers,
        accept_broadcast.segment_ids, accept_broadcast.wedding_ids,
        accept_broadcast.wedding_id, accept_broadcast.couple_name, accept_broadcast.wedding_date,
        accept_broadcast.scheduled_for, accept_broadcast.expires_at,
        accept_broadcast.caller, accept_broadcast.caller_is_service, accept_broadcast.created_at,
        accept_broadcast.targeted, 'pending'
    );
    INSERT INTO walls (broadcast_id, wedding_id)
    SELECT accept_broadcast.broadcast_id, bounding.wedding_id
    FROM unnest(accept_broadcast.wall) AS bounding (wedding_id);
    -- A broadcast for now is due by the clock that the relay goes by, whatever the sender's says.
    PERFORM outbox_add(
        accept_broadcast.broadcast_id::text, accept_broadcast.due_subject, accept_broadcast.due_payload,
        CASE WHEN accept_broadcast.is_due_now THEN NULL ELSE accept_broadcast.scheduled_for END,
        accept_broadcast.priority - 1, 'report'
    );
END
$function$;

-- The answer that a request_id of this caller was given.
CREATE FUNCTION find_request(caller text, method text, request_id uuid)
RETURNS TABLE (
    known_body_hash bytea, known_response bytea, hour_limit integer, hour_used integer, day_limit integer,
    day_used integer, reset_time timestamptz
)
LANGUAGE sql
BEGIN ATOMIC
    SELECT set_config('sender.caller', find_request.caller, true);
    SELECT
        known.body_hash, known.response, known.hour_limit, known.hour_used, known.day_limit, known.day_used,
        known.reset_time
    FROM requests AS known
    WHERE known.caller = find_request.caller
        AND known.method = find_request.method
        AND known.request_id = find_request.request_id;
END;
