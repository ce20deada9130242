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
    due_subject text, due_payload bytea, is_due_now boolean, state broadcast_state
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

-- The login of calls may move no state. A decision is the one move that a call makes, so it is made by this function under
-- its owner's name, whose policies admit nothing else.
CREATE POLICY see_what_is_decided ON broadcasts FOR SELECT TO sender_owner
USING (current_setting('sender.decides', true) = 'true');

CREATE POLICY decide_others ON broadcasts FOR UPDATE TO sender_owner
USING (
    state = 'awaiting_approval'
    AND current_setting('sender.decides', true) = 'true'
    AND created_by <> current_setting('sender.caller', true)
)
WITH CHECK (state IN ('pending', 'rejected') AND decided_by = current_setting('sender.caller', true));

-- Decides about a broadcast in one of `states`: it is `state` from now on, and due when it is scheduled, if that is
-- pending. Whether it was this call that did so: not when it is the caller's own, somebody has decided before, it is being
-- cancelled, or has expired.
CREATE FUNCTION decide_broadcast(
    caller text, decides boolean, broadcast_id uuid, states broadcast_state[], state broadcast_state, reason text,
    due_subject text, due_payload bytea
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = sender, pg_temp
AS $function$
DECLARE
    decided broadcasts;
BEGIN
    PERFORM
        set_config('sender.caller', decide_broadcast.caller, true),
        set_config('sender.decides', decide_broadcast.decides::text, true);
    UPDATE broadcasts AS waiting
    SET
        state = decide_broadcast.state,
        decided_by = decide_broadcast.caller,
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

REVOKE EXECUTE ON FUNCTION decide_broadcast(
    text, boolean, uuid, broadcast_state[], broadcast_state, text, text, bytea
) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decide_broadcast(
    text, boolean, uuid, broadcast_state[], broadcast_state, text, text, bytea
) TO sender_api;
