-- A broadcast to very many people, and a critical one that is about no wedding, waits until another admin than its sender
-- has approved it. Until then its outbox row is a timer: due when it expires, which then ends it, and not there when it does
-- not. Approving makes the row due when the broadcast is, in the transaction that moves its state. That nobody decides about
-- their own is held here too.

ALTER TABLE broadcasts
ADD COLUMN decided_by text,
ADD COLUMN decided_at timestamptz,
ADD COLUMN decision_reason text NOT NULL DEFAULT '';

ALTER TABLE broadcasts ADD CONSTRAINT decider_is_another CHECK (decided_by <> created_by) NOT VALID;
ALTER TABLE broadcasts ADD CONSTRAINT decider_has_a_name CHECK (char_length(decided_by) BETWEEN 1 AND 64) NOT VALID;
ALTER TABLE broadcasts ADD CONSTRAINT decision_is_whole CHECK (num_nonnulls(decided_by, decided_at) <> 1) NOT VALID;
ALTER TABLE broadcasts ADD CONSTRAINT decision_reason_has_a_decision CHECK (
    decision_reason = '' OR decided_at IS NOT NULL
) NOT VALID;
ALTER TABLE broadcasts ADD CONSTRAINT decision_reason_has_its_length CHECK (char_length(decision_reason) <= 500) NOT VALID;
ALTER TABLE broadcasts ADD CONSTRAINT decision_fits_state CHECK (
    CASE state WHEN 'awaiting_approval' THEN decided_at IS NULL WHEN 'rejected' THEN decided_at IS NOT NULL ELSE true END
) NOT VALID;

-- As before, but for the state that it is accepted in. The one without a state stays for the senders that run until they
-- are replaced.
CREATE FUNCTION accept_broadcast(
    caller text, caller_is_service boolean, method text, request_id uuid, body_hash bytea, response bytea,
    broadcast_id uuid, type text, priority integer, title text, message text, action_label text, action_url text,
    everyone boolean, user_ids uuid[], roles text[], tiers text[], segment_ids uuid[], wedding_ids uuid[],
    wedding_id uuid, couple_name text, wedding_date date, wall uuid[],
    scheduled_for timestamptz, expires_at timestamptz, created_at timestamptz, targeted bigint,
    due_subject text, due_payload bytea, is_due_now boolean, state broadcast_state, per_hour integer,
    per_day integer
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
        accept_broadcast.targeted, accept_broadcast.state
    );
    INSERT INTO walls (broadcast_id, wedding_id)
    SELECT accept_broadcast.broadcast_id, bounding.wedding_id
    FROM unnest(accept_broadcast.wall) AS bounding (wedding_id);
    -- A broadcast for now is due by the clock that the relay goes by, whatever the sender's says.
    IF accept_broadcast.state = 'pending' OR accept_broadcast.expires_at IS NOT NULL THEN
        PERFORM outbox_add(
            accept_broadcast.broadcast_id::text, accept_broadcast.due_subject, accept_broadcast.due_payload,
            CASE
                WHEN accept_broadcast.state <> 'pending' THEN accept_broadcast.expires_at
                WHEN NOT accept_broadcast.is_due_now THEN accept_broadcast.scheduled_for
            END,
            accept_broadcast.priority - 1, 'report'
        );
    END IF;
END
$function$;

-- The login of calls may move no state, so a decision is the worker's, who may move any: once the call has been let in, as the
-- end of a cancel is. The row that makes an approved broadcast due is new when it was not there as a timer.
GRANT UPDATE (decided_by, decided_at, decision_reason) ON broadcasts TO sender_worker;
GRANT INSERT ON outbox TO sender_worker;

-- Decides about a broadcast in one of `states`: it is `state` from now on, and due when it is scheduled, if that is
-- pending. Whether it was this call that did so: not when somebody has decided before, it is being cancelled, or has expired.
CREATE FUNCTION decide_broadcast(
    decided_by text, broadcast_id uuid, states broadcast_state[], state broadcast_state, reason text,
    due_subject text, due_payload bytea
) RETURNS boolean
LANGUAGE plpgsql
AS $function$
DECLARE
    decided broadcasts;
BEGIN
    UPDATE broadcasts AS waiting
    SET
        state = decide_broadcast.state,
        decided_by = decide_broadcast.decided_by,
        decided_at = clock_timestamp(),
        decision_reason = decide_broadcast.reason
    WHERE waiting.broadcast_id = decide_broadcast.broadcast_id
        AND waiting.state = ANY (decide_broadcast.states)
        AND waiting.cancel_requested_at IS NULL
        AND (waiting.expires_at IS NULL OR waiting.expires_at > clock_timestamp())
    RETURNING waiting.* INTO decided;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF decided.state = 'pending' THEN
        INSERT INTO outbox AS timer (key, subject, payload, due_at, rank, settle)
        VALUES (
            decided.broadcast_id, decide_broadcast.due_subject, decide_broadcast.due_payload,
            greatest(decided.scheduled_for, now()), decided.priority - 1, 'report'
        )
        ON CONFLICT (key) DO UPDATE SET due_at = excluded.due_at;
    ELSE
        PERFORM outbox_cancel(decided.broadcast_id::text);
    END IF;
    RETURN true;
END
$function$;
