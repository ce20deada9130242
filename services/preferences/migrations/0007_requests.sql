-- What a call with a request_id was answered, so that its repetition is answered the same and changes nothing again. The
-- statements of shared/sql/requests_template.sql come first.

-- A call takes its request_id in the transaction of its work. Whoever comes with the same one meanwhile waits for that
-- transaction at the primary key, and finds the id taken when it has committed; when it was refused, nothing is left of it.
-- The answer is kept in that transaction too, or, where a part of it is known only afterwards, as soon as it is whole: until
-- then the row says that the work is done and need not be done again. All functions have the caller's name from their
-- arguments; those that may run under a personal policy name it in app.caller too. The function bodies are bound to this
-- schema when they are made, whatever search_path their caller has. Roles that take ids need SELECT, INSERT and UPDATE;
-- whoever forgets, SELECT and DELETE.
CREATE TABLE requests (
    -- A user id, or the name of a service account.
    caller text NOT NULL,
    method text NOT NULL,
    request_id uuid NOT NULL,
    body_hash bytea NOT NULL,
    -- The bytes that are answered; what there is of them while they are not whole.
    response bytea NOT NULL DEFAULT '',
    is_whole boolean NOT NULL DEFAULT false,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (caller, method, request_id),
    CONSTRAINT body_hash_is_sha256 CHECK (octet_length(body_hash) = 32)
);

CREATE INDEX requests_by_age ON requests (at);

-- An answer holds for a day from the beginning of its call. From that moment on its id is free, whether it was deleted or not.
CREATE FUNCTION answers_hold_after() RETURNS timestamptz
LANGUAGE sql STABLE
RETURN now() - interval '24 hours';

-- The answer that a request_id of this caller was given, and the body that it was given to.
CREATE FUNCTION find_request(caller text, method text, request_id uuid)
RETURNS TABLE (known_body_hash bytea, known_response bytea)
LANGUAGE sql
BEGIN ATOMIC
    SELECT set_config('app.caller', find_request.caller, true);
    SELECT known.body_hash, known.response
    FROM requests AS known
    WHERE known.caller = find_request.caller
        AND known.method = find_request.method
        AND known.request_id = find_request.request_id
        AND known.is_whole
        AND known.at > answers_hold_after();
END;

-- Takes request_ids for the transaction's work, and answers those that are taken already, by their place. The arrays are one
-- element a call, null for one without an id; no call may be there twice. Personal policies are told the first caller.
CREATE FUNCTION take_requests(callers text[], methods text[], request_ids uuid[], body_hashes bytea[])
RETURNS TABLE (place integer, known_body_hash bytea, known_response bytea, known_is_whole boolean)
LANGUAGE sql
BEGIN ATOMIC
    SELECT set_config('app.caller', take_requests.callers[1], true);
    WITH asked AS MATERIALIZED (
        SELECT entry.place::integer AS place, entry.caller, entry.method, entry.request_id, entry.body_hash
        FROM unnest(take_requests.callers, take_requests.methods, take_requests.request_ids, take_requests.body_hashes)
            WITH ORDINALITY AS entry (caller, method, request_id, body_hash, place)
        WHERE entry.request_id IS NOT NULL
    ), taken AS (
        INSERT INTO requests AS known (caller, method, request_id, body_hash)
        SELECT asked.caller, asked.method, asked.request_id, asked.body_hash
        FROM asked
        -- Whoever takes several takes them in the same order, so that two never wait for each other.
        ORDER BY asked.caller, asked.method, asked.request_id
        -- What holds is written as it is: only so is it answered as somebody has committed it just now.
        ON CONFLICT (caller, method, request_id) DO UPDATE
        SET
            body_hash = CASE WHEN known.at > answers_hold_after() THEN known.body_hash ELSE excluded.body_hash END,
            response = CASE WHEN known.at > answers_hold_after() THEN known.response ELSE excluded.response END,
            is_whole = known.at > answers_hold_after() AND known.is_whole,
            at = CASE WHEN known.at > answers_hold_after() THEN known.at ELSE excluded.at END
        RETURNING
            known.caller, known.method, known.request_id, known.body_hash, known.response, known.is_whole,
            old.at > answers_hold_after() AS was_taken
    )
    SELECT asked.place, taken.body_hash, taken.response, taken.is_whole
    FROM asked
    JOIN taken USING (caller, method, request_id)
    WHERE taken.was_taken;
END;

-- Keeps what calls that have taken their ids are answered, and answers what stands: an answer that is whole is never replaced.
CREATE FUNCTION keep_answers(
    callers text[], methods text[], request_ids uuid[], responses bytea[], are_whole boolean
) RETURNS TABLE (place integer, response bytea)
LANGUAGE sql
SET enable_bitmapscan = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
BEGIN ATOMIC
    UPDATE requests AS known
    SET
        response = CASE WHEN known.is_whole THEN known.response ELSE entry.response END,
        is_whole = known.is_whole OR keep_answers.are_whole
    FROM unnest(keep_answers.callers, keep_answers.methods, keep_answers.request_ids, keep_answers.responses)
        WITH ORDINALITY AS entry (caller, method, request_id, response, place)
    WHERE known.caller = entry.caller AND known.method = entry.method AND known.request_id = entry.request_id
    RETURNING entry.place::integer, new.response;
END;

-- What follows is the preferences service's own.

-- People see what they were answered themselves; services write the directory as the worker.
ALTER TABLE requests ENABLE ROW LEVEL SECURITY;
ALTER TABLE requests FORCE ROW LEVEL SECURITY;
CREATE POLICY people_repeat_their_own ON requests TO preferences_api
USING (caller = current_setting('app.caller', true))
WITH CHECK (caller = current_setting('app.caller', true));
CREATE POLICY worker_reads_and_writes ON requests TO preferences_worker USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON requests TO preferences_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON requests TO preferences_worker;

-- As save_preferences, once for a request_id (null for none) and in the same round trip: no transaction is open between two
-- statements while it has the head of the log. What it answers is given, so its time is too. `expected` is null for an edit
-- that changes nothing: then the answer is kept alone. Answers whether all that was kept, which it is not when somebody
-- was faster; or with what an id that is taken was taken for and answered.
CREATE FUNCTION save_preferences_once(
    caller_name text, method text, request_id uuid, body_hash bytea, response bytea, saved_at timestamptz,
    caller integer, expected bigint,
    system boolean, business boolean, collaboration boolean, wedding boolean,
    critical_only boolean, channels channel[],
    quiet_enabled boolean, quiet_start time, quiet_end time, quiet_time_zone text,
    role_settings jsonb, wedding_filters jsonb, kinds text[], bodies bytea[]
) RETURNS TABLE (is_kept boolean, known_body_hash bytea, known_response bytea)
LANGUAGE plpgsql
AS $function$
#variable_conflict use_variable
BEGIN
    RETURN QUERY
    SELECT false, taken.known_body_hash, taken.known_response
    FROM take_requests(ARRAY[caller_name], ARRAY[method], ARRAY[request_id], ARRAY[body_hash]) AS taken;
    IF FOUND THEN
        RETURN;
    END IF;
    IF expected IS NOT NULL AND save_preferences(
        caller, expected, system, business, collaboration, wedding, critical_only, channels,
        quiet_enabled, quiet_start, quiet_end, quiet_time_zone, role_settings, wedding_filters, kinds, bodies
    ) IS NULL THEN
        DELETE FROM requests AS own
        WHERE own.caller = caller_name
            AND own.method = save_preferences_once.method
            AND own.request_id = save_preferences_once.request_id;
        RETURN QUERY SELECT false, NULL::bytea, NULL::bytea;
        RETURN;
    END IF;
    UPDATE preferences AS own SET update_time = saved_at WHERE own.recipient_number = caller AND expected IS NOT NULL;
    PERFORM keep_answers(ARRAY[caller_name], ARRAY[method], ARRAY[request_id], ARRAY[response], true);
    RETURN QUERY SELECT true, NULL::bytea, NULL::bytea;
END;
$function$;
