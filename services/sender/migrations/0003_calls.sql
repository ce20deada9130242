-- What a call does in one round trip: it names its caller to the policies and does its work in the same transaction,
-- which takes a third of the time of a transaction with a statement for each.

-- Accepts a broadcast: its request_id with the answer, the broadcast, its wall and its outbox row, all or nothing. When
-- the request_id has been answered before, whatever happened meanwhile, nothing is done and that answer is given.
-- Two calls with one request_id meet at its primary key: the second waits for the first and then finds its answer.
CREATE FUNCTION accept_broadcast(
    caller text, caller_is_service boolean, method text, request_id uuid, body_hash bytea, response bytea,
    broadcast_id uuid, type text, priority integer, title text, message text, action_label text, action_url text,
    everyone boolean, user_ids uuid[], roles text[], tiers text[], segment_ids uuid[], wedding_ids uuid[],
    wedding_id uuid, couple_name text, wedding_date date, wall uuid[],
    scheduled_for timestamptz, expires_at timestamptz, created_at timestamptz, targeted bigint,
    due_subject text, due_payload bytea, is_due_now boolean
) RETURNS TABLE (known_body_hash bytea, known_response bytea)
LANGUAGE plpgsql
AS $function$
#variable_conflict use_column
BEGIN
    PERFORM set_config('sender.caller', accept_broadcast.caller, true);
    IF accept_broadcast.request_id IS NOT NULL THEN
        INSERT INTO requests (caller, method, request_id, body_hash, response)
        VALUES (
            accept_broadcast.caller, accept_broadcast.method, accept_broadcast.request_id,
            accept_broadcast.body_hash, accept_broadcast.response
        )
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            RETURN QUERY
            SELECT known.body_hash, known.response
            FROM requests AS known
            WHERE known.caller = accept_broadcast.caller
                AND known.method = accept_broadcast.method
                AND known.request_id = accept_broadcast.request_id;
            RETURN;
        END IF;
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
RETURNS TABLE (known_body_hash bytea, known_response bytea)
LANGUAGE sql
BEGIN ATOMIC
    SELECT set_config('sender.caller', find_request.caller, true);
    SELECT known.body_hash, known.response
    FROM requests AS known
    WHERE known.caller = find_request.caller
        AND known.method = find_request.method
        AND known.request_id = find_request.request_id;
END;

-- Keeps the answer to a call that needs no transaction with it because it may be made twice; answers the one that stands.
CREATE FUNCTION remember_request(caller text, method text, request_id uuid, body_hash bytea, response bytea)
RETURNS TABLE (known_body_hash bytea, known_response bytea)
LANGUAGE sql
BEGIN ATOMIC
    SELECT set_config('sender.caller', remember_request.caller, true);
    INSERT INTO requests (caller, method, request_id, body_hash, response)
    VALUES (
        remember_request.caller, remember_request.method, remember_request.request_id,
        remember_request.body_hash, remember_request.response
    )
    ON CONFLICT DO NOTHING;
    SELECT known.body_hash, known.response
    FROM requests AS known
    WHERE known.caller = remember_request.caller
        AND known.method = remember_request.method
        AND known.request_id = remember_request.request_id;
END;

-- A broadcast, if it is this caller's to see.
CREATE FUNCTION read_broadcast(caller text, reads_all boolean, weddings uuid[], broadcast_id uuid)
RETURNS SETOF broadcasts
LANGUAGE sql
BEGIN ATOMIC
    SELECT
        set_config('sender.caller', read_broadcast.caller, true),
        set_config('sender.reads_all', read_broadcast.reads_all::text, true),
        set_config('sender.weddings', read_broadcast.weddings::text, true);
    SELECT visible
    FROM broadcasts AS visible
    WHERE visible.broadcast_id = read_broadcast.broadcast_id;
END;

-- Notes that a broadcast in one of these states is to be stopped, if it is this caller's to stop; whether it was noted.
-- From then on it cannot begin to be dispatched. The first reason stays; a later call can only add that it be retracted.
CREATE FUNCTION request_cancel(
    caller text, stops_all boolean, broadcast_id uuid, states broadcast_state[], reason text, retract boolean
) RETURNS boolean
LANGUAGE sql
BEGIN ATOMIC
    SELECT
        set_config('sender.caller', request_cancel.caller, true),
        set_config('sender.reads_all', request_cancel.stops_all::text, true),
        set_config('sender.stops_all', request_cancel.stops_all::text, true);
    WITH requested AS (
        UPDATE broadcasts AS stopping
        SET
            cancel_requested_at = coalesce(stopping.cancel_requested_at, clock_timestamp()),
            cancel_reason = CASE
                WHEN stopping.cancel_requested_at IS NULL THEN request_cancel.reason
                ELSE stopping.cancel_reason
            END,
            retract = stopping.retract OR request_cancel.retract
        WHERE stopping.broadcast_id = request_cancel.broadcast_id
            AND stopping.state = ANY (request_cancel.states)
        RETURNING stopping.broadcast_id
    )
    SELECT count(*) > 0 FROM requested;
END;

-- Ends a cancel that everybody who had to stop has confirmed. Counts are those of the first time; what was retracted
-- stays so. Answers whether it is cancelled now, which it is not when it came to another end meanwhile.
CREATE FUNCTION finish_cancel(
    broadcast_id uuid, states broadcast_state[], stopped bigint, already_sent bigint, retracted boolean
) RETURNS boolean
LANGUAGE sql
BEGIN ATOMIC
    UPDATE broadcasts AS stopping
    SET
        state = 'cancelled',
        cancelled_at = coalesce(stopping.cancelled_at, clock_timestamp()),
        stopped = coalesce(stopping.stopped, finish_cancel.stopped),
        already_sent = coalesce(stopping.already_sent, finish_cancel.already_sent),
        retracted = stopping.retracted OR finish_cancel.retracted
    WHERE stopping.broadcast_id = finish_cancel.broadcast_id
        AND stopping.cancel_requested_at IS NOT NULL
        AND stopping.state = ANY (finish_cancel.states || 'cancelled'::broadcast_state);
    SELECT outbox_cancel(finish_cancel.broadcast_id::text);
    SELECT count(*) > 0
    FROM broadcasts AS over
    WHERE over.broadcast_id = finish_cancel.broadcast_id AND over.state = 'cancelled';
END;

-- Moves a broadcast out of one of `states` to one in which dispatching is over, and ends its outbox row. Telling it again
-- changes nothing and ends the row if it has not; one that is not that far keeps its row, which brings it there. Answers
-- the state that it is in, and whether this call moved it.
CREATE FUNCTION conclude_broadcast(
    broadcast_id uuid, states broadcast_state[], state broadcast_state, at timestamptz, error text
) RETURNS TABLE (present broadcast_state, has_moved boolean)
LANGUAGE plpgsql
AS $function$
#variable_conflict use_column
BEGIN
    UPDATE broadcasts AS ending
    SET
        state = conclude_broadcast.state,
        sent_at = CASE conclude_broadcast.state WHEN 'sent' THEN conclude_broadcast.at END,
        failed_at = CASE conclude_broadcast.state WHEN 'failed' THEN conclude_broadcast.at END,
        error = CASE conclude_broadcast.state WHEN 'failed' THEN conclude_broadcast.error ELSE '' END
    WHERE ending.broadcast_id = conclude_broadcast.broadcast_id AND ending.state = ANY (conclude_broadcast.states)
    RETURNING ending.state INTO present;
    has_moved := FOUND;
    IF NOT has_moved THEN
        SELECT standing.state INTO present
        FROM broadcasts AS standing
        WHERE standing.broadcast_id = conclude_broadcast.broadcast_id;
    END IF;
    IF present NOT IN ('awaiting_approval', 'pending', 'dispatching') THEN
        PERFORM outbox_settle(conclude_broadcast.broadcast_id::text);
    END IF;
    IF present IS NOT NULL THEN
        RETURN NEXT;
    END IF;
END
$function$;
