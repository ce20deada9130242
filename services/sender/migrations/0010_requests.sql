-- An answer holds for a day: after that its request_id is free, so that nothing is kept for ever for a retry that nobody makes
-- any more. As shared/sql/requests_template.sql has it for the services that took up request_ids later.

-- An answer holds for a day from the beginning of its call. From that moment on its id is free, whether it was deleted or not.
CREATE FUNCTION answers_hold_after() RETURNS timestamptz
LANGUAGE sql STABLE
RETURN now() - interval '24 hours';

-- The answer that a request_id of this caller was given. It is asked for before every call that has one, and makes the id
-- free for that call when its answer holds no longer.
CREATE OR REPLACE FUNCTION find_request(caller text, method text, request_id uuid)
RETURNS TABLE (
    known_body_hash bytea, known_response bytea, hour_limit integer, hour_used integer, day_limit integer,
    day_used integer, reset_time timestamptz
)
LANGUAGE sql
BEGIN ATOMIC
    SELECT set_config('sender.caller', find_request.caller, true);
    DELETE FROM requests AS old
    WHERE old.caller = find_request.caller
        AND old.method = find_request.method
        AND old.request_id = find_request.request_id
        AND old.at <= answers_hold_after();
    SELECT
        known.body_hash, known.response, known.hour_limit, known.hour_used, known.day_limit, known.day_used,
        known.reset_time
    FROM requests AS known
    WHERE known.caller = find_request.caller
        AND known.method = find_request.method
        AND known.request_id = find_request.request_id;
END;

-- Of their own, callers free what holds no longer, and nothing that does.
CREATE POLICY free_own ON requests FOR DELETE TO sender_api
USING (caller = current_setting('sender.caller', true) AND at <= answers_hold_after());

GRANT DELETE ON requests TO sender_api;
