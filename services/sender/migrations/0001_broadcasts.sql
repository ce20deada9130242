-- Broadcasts from the call that was accepted to their final state, and the answers that make a repeated call safe.
--
-- What a login may see of them depends on whom its transaction names: sender.caller (a user id, or the name of a service
-- account), sender.reads_all, sender.stops_all ('true' for those whose reach has no bounds) and sender.weddings (those on
-- whose teams the caller is). The functions below name the caller in the same round trip as they do their work.

CREATE TYPE broadcast_state AS ENUM (
    'awaiting_approval', 'pending', 'dispatching', 'sent', 'cancelled', 'expired', 'rejected', 'failed'
);

-- One row a broadcast. What it says and to whom never changes; its state does, so a page keeps room for new versions.
CREATE TABLE broadcasts (
    broadcast_id uuid PRIMARY KEY,
    type text NOT NULL,
    -- The contract's numbers, so that sorting puts critical first.
    priority smallint NOT NULL,
    title text NOT NULL,
    message text NOT NULL,
    action_label text,
    action_url text,
    everyone boolean NOT NULL,
    user_ids uuid[] NOT NULL,
    roles text[] NOT NULL,
    tiers text[] NOT NULL,
    segment_ids uuid[] NOT NULL,
    wedding_ids uuid[] NOT NULL,
    wedding_id uuid,
    couple_name text NOT NULL DEFAULT '',
    wedding_date date,
    scheduled_for timestamptz NOT NULL,
    expires_at timestamptz,
    created_by text NOT NULL,
    created_by_service boolean NOT NULL,
    created_at timestamptz NOT NULL,
    -- How many people it was meant for when it was accepted.
    targeted bigint NOT NULL,
    state broadcast_state NOT NULL,
    sent_at timestamptz,
    failed_at timestamptz,
    error text NOT NULL DEFAULT '',
    -- A cancel is asked for before anybody is told to stop, so that whatever crashes, it is finished.
    cancel_requested_at timestamptz,
    cancel_reason text NOT NULL DEFAULT '',
    retract boolean NOT NULL DEFAULT false,
    cancelled_at timestamptz,
    retracted boolean NOT NULL DEFAULT false,
    stopped bigint,
    already_sent bigint,

    CONSTRAINT type_is_a_name CHECK (type ~ '^[a-z]+([.][a-z]+)+$' AND char_length(type) <= 64),
    CONSTRAINT priority_is_known CHECK (priority BETWEEN 1 AND 4),
    CONSTRAINT title_has_its_length CHECK (char_length(title) BETWEEN 1 AND 200),
    CONSTRAINT message_has_its_length CHECK (char_length(message) BETWEEN 1 AND 1000),
    CONSTRAINT action_is_whole CHECK (num_nonnulls(action_label, action_url) <> 1),
    CONSTRAINT action_has_its_length CHECK (
        char_length(action_label) BETWEEN 1 AND 50 AND char_length(action_url) BETWEEN 1 AND 2048
    ),
    CONSTRAINT targeting_means_somebody CHECK (
        everyone OR wedding_id IS NOT NULL
        OR cardinality(user_ids) + cardinality(roles) + cardinality(tiers) + cardinality(segment_ids)
        + cardinality(wedding_ids) > 0
    ),
    CONSTRAINT everyone_stands_alone CHECK (
        NOT everyone OR cardinality(user_ids) + cardinality(roles) + cardinality(tiers) + cardinality(segment_ids) = 0
    ),
    CONSTRAINT targeting_is_bounded CHECK (
        greatest(
            cardinality(user_ids), cardinality(roles), cardinality(tiers), cardinality(segment_ids),
            cardinality(wedding_ids)
        ) <= 1000
    ),
    CONSTRAINT wall_is_its_wedding CHECK (
        wedding_id IS NULL OR wedding_ids = '{}' OR wedding_ids = ARRAY[wedding_id]
    ),
    CONSTRAINT wedding_facts_have_a_wedding CHECK (
        wedding_id IS NOT NULL OR (couple_name = '' AND wedding_date IS NULL)
    ),
    CONSTRAINT scheduled_after_creation CHECK (scheduled_for >= created_at),
    CONSTRAINT expires_after_schedule CHECK (expires_at > scheduled_for),
    CONSTRAINT author_has_a_name CHECK (char_length(created_by) BETWEEN 1 AND 64),
    CONSTRAINT targeted_is_a_count CHECK (targeted >= 0),
    -- Cancelled ones keep the time at which they were sent.
    CONSTRAINT sent_has_its_time CHECK (
        CASE state WHEN 'sent' THEN sent_at IS NOT NULL WHEN 'cancelled' THEN true ELSE sent_at IS NULL END
    ),
    CONSTRAINT failure_has_time_and_reason CHECK (
        CASE state WHEN 'failed' THEN failed_at IS NOT NULL AND error <> '' ELSE failed_at IS NULL AND error = '' END
    ),
    CONSTRAINT cancel_was_asked_for CHECK (
        cancel_requested_at IS NOT NULL OR (state <> 'cancelled' AND cancel_reason = '' AND NOT retract)
    ),
    CONSTRAINT cancelled_has_its_record CHECK (
        num_nonnulls(cancelled_at, stopped, already_sent) = CASE state WHEN 'cancelled' THEN 3 ELSE 0 END
    ),
    CONSTRAINT cancel_counts_are_counts CHECK (stopped >= 0 AND already_sent >= 0),
    CONSTRAINT retracted_was_cancelled CHECK (NOT retracted OR (state = 'cancelled' AND retract))
) WITH (fillfactor = 80);

-- What the finisher of cancels looks for; nearly always empty.
CREATE INDEX unfinished_cancels ON broadcasts (cancel_requested_at)
WHERE cancel_requested_at IS NOT NULL
    AND (
        state IN ('awaiting_approval', 'pending', 'dispatching', 'sent')
        OR (state = 'cancelled' AND retract AND NOT retracted)
    );

-- The weddings that bound an audience, apart from the broadcast so that it can be asked on which of their teams a caller
-- is before the broadcast itself is shown. There is nothing about a person in it.
CREATE TABLE walls (
    broadcast_id uuid NOT NULL REFERENCES broadcasts ON DELETE CASCADE,
    wedding_id uuid NOT NULL,
    PRIMARY KEY (broadcast_id, wedding_id)
);

-- The first answer to each request_id, in the bytes in which it was given.
CREATE TABLE requests (
    caller text NOT NULL,
    method text NOT NULL,
    request_id uuid NOT NULL,
    body_hash bytea NOT NULL,
    response bytea NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (caller, method, request_id),
    CONSTRAINT body_hash_is_sha256 CHECK (octet_length(body_hash) = 32)
);

ALTER TABLE broadcasts ENABLE ROW LEVEL SECURITY;
ALTER TABLE broadcasts FORCE ROW LEVEL SECURITY;
ALTER TABLE requests ENABLE ROW LEVEL SECURITY;
ALTER TABLE requests FORCE ROW LEVEL SECURITY;

CREATE POLICY send_in_own_name ON broadcasts FOR INSERT TO sender_api
WITH CHECK (created_by = current_setting('sender.caller', true));

CREATE POLICY read_own ON broadcasts FOR SELECT TO sender_api
USING (created_by = current_setting('sender.caller', true));

CREATE POLICY read_all ON broadcasts FOR SELECT TO sender_api
USING (current_setting('sender.reads_all', true) = 'true');

CREATE POLICY read_about_own_weddings ON broadcasts FOR SELECT TO sender_api
USING (
    EXISTS (
        SELECT
        FROM walls
        WHERE walls.broadcast_id = broadcasts.broadcast_id
            AND walls.wedding_id = ANY (nullif(current_setting('sender.weddings', true), '')::uuid[])
    )
);

CREATE POLICY stop_own ON broadcasts FOR UPDATE TO sender_api
USING (created_by = current_setting('sender.caller', true));

CREATE POLICY stop_all ON broadcasts FOR UPDATE TO sender_api
USING (current_setting('sender.stops_all', true) = 'true');

-- The worker carries any broadcast through its states, and can neither add nor remove one.
CREATE POLICY read_to_dispatch ON broadcasts FOR SELECT TO sender_worker USING (true);
CREATE POLICY move_state ON broadcasts FOR UPDATE TO sender_worker USING (true);

CREATE POLICY remember_own ON requests FOR INSERT TO sender_api
WITH CHECK (caller = current_setting('sender.caller', true));

CREATE POLICY replay_own ON requests FOR SELECT TO sender_api
USING (caller = current_setting('sender.caller', true));

GRANT SELECT, INSERT ON broadcasts TO sender_api;
GRANT UPDATE (cancel_requested_at, cancel_reason, retract) ON broadcasts TO sender_api;
GRANT SELECT, INSERT ON walls TO sender_api;
GRANT SELECT, INSERT ON requests TO sender_api;
GRANT SELECT ON broadcasts TO sender_worker;
GRANT UPDATE (
    state, couple_name, wedding_date, sent_at, failed_at, error, cancelled_at, retracted, stopped, already_sent
) ON broadcasts TO sender_worker;
