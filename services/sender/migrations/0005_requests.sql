-- An answer holds for a day: after that its request_id is free, so that nothing is kept for ever for a retry that nobody makes
-- any more. As shared/sql/requests_template.sql has it for the services that took up request_ids later.

-- Before, an answer was only ever looked for by its id. Whoever keeps one meanwhile waits, for as long as there are answers to
-- sort: it cannot be made beside a transaction, which every migration is.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX requests_by_age ON requests (at);

-- An answer holds for a day from the beginning of its call. From that moment on its id is free, whether it was deleted or not.
CREATE FUNCTION answers_hold_after() RETURNS timestamptz
LANGUAGE sql STABLE
RETURN now() - interval '24 hours';

-- The answer that a request_id of this caller was given. It is asked for before every call that has one, and makes the id
-- free for that call when its answer holds no longer.
CREATE OR REPLACE FUNCTION find_request(caller text, method text, request_id uuid)
RETURNS TABLE (known_body_hash bytea, known_response bytea)
LANGUAGE sql
BEGIN ATOMIC
    SELECT set_config('sender.caller', find_request.caller, true);
    DELETE FROM requests AS old
    WHERE old.caller = find_request.caller
        AND old.method = find_request.method
        AND old.request_id = find_request.request_id
        AND old.at <= answers_hold_after();
    SELECT known.body_hash, known.response
    FROM requests AS known
    WHERE known.caller = find_request.caller
        AND known.method = find_request.method
        AND known.request_id = find_request.request_id;
END;

-- Deletes up to `most` answers that hold no longer, the oldest first; how many there were.
CREATE FUNCTION forget_requests(most integer) RETURNS bigint
LANGUAGE sql
BEGIN ATOMIC
    WITH oldest AS (
        SELECT requests.caller, requests.method, requests.request_id
        FROM requests
        WHERE requests.at <= answers_hold_after()
        ORDER BY requests.at
        LIMIT forget_requests.most
    ), forgotten AS (
        DELETE FROM requests AS old
        USING oldest
        -- One that somebody has just taken anew holds again.
        WHERE old.caller = oldest.caller
            AND old.method = oldest.method
            AND old.request_id = oldest.request_id
            AND old.at <= answers_hold_after()
        RETURNING old.at
    )
    SELECT count(*) FROM forgotten;
END;

-- What holds may be deleted by nobody. The worker sees that there are old ones, and not what was answered.
CREATE POLICY free_own ON requests FOR DELETE TO sender_api
USING (caller = current_setting('sender.caller', true) AND at <= answers_hold_after());
CREATE POLICY find_old ON requests FOR SELECT TO sender_worker USING (at <= answers_hold_after());
CREATE POLICY forget_old ON requests FOR DELETE TO sender_worker USING (at <= answers_hold_after());

GRANT DELETE ON requests TO sender_api;
GRANT DELETE ON requests TO sender_worker;
GRANT SELECT (caller, method, request_id, at) ON requests TO sender_worker;
