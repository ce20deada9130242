-- The answers to calls that have a request_id, to be copied into a migration of the schema that owns them;
-- `shared/replays.py` keeps and gives them.
--
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
