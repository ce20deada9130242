-- Dispatches and their chunks: the frozen snapshot of a broadcast's audience, and what has become of each part of it.
-- A chunk is a row with a bitmap, because a row for each of a million recipients would take seconds.

-- One row a broadcast. Whoever changes its chunks locks this row first, so counts of them are exact while it is held.
CREATE TABLE dispatches (
    broadcast_id uuid PRIMARY KEY,
    -- The contract's numbers, so that sorting puts critical first.
    priority smallint NOT NULL,
    state text NOT NULL,
    type text NOT NULL,
    category text NOT NULL,
    essential boolean NOT NULL,
    wedding_id uuid,
    -- The weddings whose teams bound it; empty for none.
    wall uuid[] NOT NULL,
    expires_at timestamptz,
    -- When the snapshot was decided: the place in the directory's log, and the moment that quiet hours were seen at.
    directory_version bigint NOT NULL,
    decide_time timestamptz NOT NULL,
    targeted bigint NOT NULL,
    next_chunk integer NOT NULL DEFAULT 0,
    -- When a dispatcher began on it, when the snapshot was committed, and when nothing was pending any more.
    begin_time timestamptz NOT NULL,
    plan_time timestamptz NOT NULL,
    close_time timestamptz,

    CONSTRAINT priority_goes_with_broadcast UNIQUE (broadcast_id, priority),
    CONSTRAINT priority_is_known CHECK (priority BETWEEN 1 AND 4),
    CONSTRAINT state_is_known CHECK (state IN ('dispatching', 'closed', 'stopped', 'expired')),
    CONSTRAINT type_is_a_name CHECK (type ~ '^[a-z]+([.][a-z]+)+$' AND char_length(type) <= 64),
    CONSTRAINT category_is_known CHECK (category IN ('system', 'business', 'collaboration', 'wedding')),
    CONSTRAINT wall_names_weddings CHECK (array_position(wall, NULL) IS NULL),
    CONSTRAINT wedding_is_in_the_wall CHECK (wedding_id IS NULL OR wedding_id = ANY (wall)),
    CONSTRAINT version_is_a_place CHECK (directory_version >= 0),
    CONSTRAINT targeted_is_a_count CHECK (targeted >= 0),
    CONSTRAINT next_chunk_is_a_number CHECK (next_chunk >= 0),
    CONSTRAINT times_are_in_order CHECK (begin_time <= plan_time AND plan_time <= close_time),
    -- A stopped one is closed once the inbox has decided about what was on its way.
    CONSTRAINT close_has_its_time CHECK (
        CASE state WHEN 'stopped' THEN true WHEN 'dispatching' THEN close_time IS NULL ELSE close_time IS NOT NULL END
    ),
    CONSTRAINT expired_means_nobody CHECK (state <> 'expired' OR (targeted = 0 AND next_chunk = 0))
) WITH (fillfactor = 80);

-- A part of a snapshot that shares kind, state and the rest. What was sent once never changes its members: the inbox may
-- have merged it whatever became of the report.
CREATE TABLE chunks (
    broadcast_id uuid NOT NULL,
    chunk integer NOT NULL,
    priority smallint NOT NULL,
    kind text NOT NULL,
    state text NOT NULL,
    -- Of kind 'none', which records why these recipients get nothing on one channel.
    channel text,
    reason text,
    -- When an alert that waits for the end of quiet hours is due.
    release_at timestamptz,
    -- A serialised bitmap of recipient numbers, and how many they are.
    members bytea NOT NULL,
    size integer NOT NULL,
    -- When the outcome of these members was decided last, as in dispatches; and by the clock of this database when that
    -- was written down, which says whether it is recent enough for the chunk to leave.
    decided_version bigint NOT NULL,
    decided_at timestamptz NOT NULL,
    looked_at timestamptz NOT NULL,
    -- How often it was sent; each time is an attempt of its own, with a message id of its own.
    epoch integer NOT NULL,
    -- When it is sent again unless the inbox has answered.
    lease_until timestamptz,

    PRIMARY KEY (broadcast_id, chunk),
    CONSTRAINT chunk_of_a_dispatch FOREIGN KEY (broadcast_id, priority) REFERENCES dispatches (broadcast_id, priority),
    CONSTRAINT chunk_is_a_number CHECK (chunk >= 0),
    CONSTRAINT kind_is_known CHECK (kind IN ('item', 'silent_item', 'alert', 'none')),
    CONSTRAINT chunk_state_is_known CHECK (
        state IN ('pending', 'leased', 'held', 'done', 'suppressed', 'cancelled', 'expired')
    ),
    CONSTRAINT channel_is_known CHECK (channel IN ('realtime', 'in_app')),
    CONSTRAINT reason_is_known CHECK (
        reason IN (
            'not_in_audience', 'outside_wall', 'erased', 'critical_only', 'category_muted', 'wedding_muted',
            'type_muted', 'channel_off', 'channel_not_for_priority', 'no_address', 'already_read',
            'address_suppressed'
        )
    ),
    CONSTRAINT nothing_is_sent_to_the_suppressed CHECK ((kind = 'none') = (state = 'suppressed')),
    CONSTRAINT suppressed_has_its_reason CHECK (num_nonnulls(channel, reason) = CASE kind WHEN 'none' THEN 2 ELSE 0 END),
    CONSTRAINT only_alerts_wait CHECK (release_at IS NULL OR kind = 'alert'),
    CONSTRAINT held_until_a_time CHECK (state <> 'held' OR release_at IS NOT NULL),
    CONSTRAINT members_are_there CHECK (octet_length(members) > 0 AND size > 0),
    -- 16 blocks of 4,096.
    CONSTRAINT what_is_sent_is_small CHECK (kind = 'none' OR size <= 65536),
    CONSTRAINT decided_at_a_place CHECK (decided_version >= 0),
    CONSTRAINT leased_until_a_time CHECK ((state = 'leased') = (lease_until IS NOT NULL)),
    CONSTRAINT epoch_counts_what_was_sent CHECK (
        CASE
            WHEN state IN ('leased', 'done') THEN epoch > 0
            WHEN state = 'cancelled' THEN epoch >= 0
            ELSE epoch = 0
        END
    )
) WITH (fillfactor = 80);

-- Bitmaps hardly shrink, and trying costs more than it saves.
ALTER TABLE chunks ALTER COLUMN members SET STORAGE EXTERNAL;

CREATE INDEX pending_chunks ON chunks (priority, broadcast_id, chunk) WHERE state = 'pending';
CREATE INDEX leased_chunks ON chunks (priority, broadcast_id) WHERE state = 'leased';
CREATE INDEX held_chunks ON chunks (priority, release_at) WHERE state = 'held';

-- Cancels, written even before there is a plan, with what the first of them answered.
CREATE TABLE tombstones (
    broadcast_id uuid PRIMARY KEY,
    at timestamptz NOT NULL,
    planned boolean NOT NULL,
    stopped bigint NOT NULL,
    in_flight bigint NOT NULL,
    targeted bigint NOT NULL,
    CONSTRAINT counts_are_counts CHECK (stopped >= 0 AND in_flight >= 0 AND targeted >= 0),
    CONSTRAINT stopped_were_targeted CHECK (stopped <= targeted AND in_flight <= targeted),
    CONSTRAINT without_a_plan_nobody CHECK (planned OR targeted = 0)
);

-- How often planning a broadcast was begun again and came to no orderly end, so that one which kills its dispatcher is
-- put aside. There is no row for those that go well at first.
CREATE TABLE plan_attempts (
    broadcast_id uuid PRIMARY KEY,
    attempts integer NOT NULL,
    at timestamptz NOT NULL,
    CONSTRAINT attempts_are_counted CHECK (attempts > 0)
);

-- Messages that cannot be processed: ids and a reason, never what they said. The same trouble again adds to its count.
CREATE TABLE dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject text NOT NULL,
    broadcast_id uuid,
    chunk integer,
    error text NOT NULL,
    at timestamptz NOT NULL,
    times integer NOT NULL DEFAULT 1,
    CONSTRAINT same_trouble_once UNIQUE NULLS NOT DISTINCT (subject, broadcast_id, chunk, error),
    CONSTRAINT subject_is_one CHECK (subject ~ '^[a-z_]+([.][a-z_]+)+$'),
    CONSTRAINT error_is_a_word CHECK (error ~ '^[A-Z][A-Z_]{0,63}$'),
    CONSTRAINT chunk_of_a_broadcast CHECK (chunk IS NULL OR (broadcast_id IS NOT NULL AND chunk >= 0)),
    CONSTRAINT times_are_counted CHECK (times > 0)
);

-- Bitmaps say who is told what. The role that answers calls sees the broadcast that its transaction names, and all that
-- it can do to a chunk is to cancel it while it waits; the worker works on all of them and cannot change what is final.
ALTER TABLE chunks ENABLE ROW LEVEL SECURITY;
ALTER TABLE chunks FORCE ROW LEVEL SECURITY;

-- A setting that was made once reads '' afterwards, which is no broadcast, like one that was never made.
CREATE FUNCTION current_broadcast() RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('app.broadcast', true), '')::uuid;

CREATE POLICY named_broadcast ON chunks FOR SELECT TO dispatcher_api USING (broadcast_id = current_broadcast());
CREATE POLICY cancel_what_waits ON chunks FOR UPDATE TO dispatcher_api
    USING (broadcast_id = current_broadcast() AND state IN ('pending', 'held')) WITH CHECK (state = 'cancelled');

CREATE POLICY read_to_dispatch ON chunks FOR SELECT TO dispatcher_worker USING (true);
CREATE POLICY add_what_is_not_final ON chunks FOR INSERT TO dispatcher_worker
    WITH CHECK (state IN ('pending', 'leased', 'held', 'suppressed'));
CREATE POLICY change_what_is_not_final ON chunks FOR UPDATE TO dispatcher_worker
    USING (state IN ('pending', 'leased', 'held')) WITH CHECK (state <> 'suppressed');
CREATE POLICY remove_what_was_never_sent ON chunks FOR DELETE TO dispatcher_worker
    USING (state IN ('pending', 'held'));

GRANT SELECT ON dispatches, chunks, tombstones TO dispatcher_api;
GRANT UPDATE (state, close_time) ON dispatches TO dispatcher_api;
GRANT UPDATE (state) ON chunks TO dispatcher_api;
GRANT INSERT ON tombstones TO dispatcher_api;

GRANT SELECT, INSERT ON dispatches TO dispatcher_worker;
GRANT UPDATE (state, next_chunk, close_time) ON dispatches TO dispatcher_worker;
GRANT SELECT, INSERT, DELETE ON chunks TO dispatcher_worker;
GRANT UPDATE (state, members, size, decided_version, decided_at, looked_at, epoch, lease_until) ON chunks TO dispatcher_worker;
GRANT SELECT ON tombstones TO dispatcher_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON plan_attempts TO dispatcher_worker;
GRANT SELECT, INSERT, UPDATE ON dead_letters TO dispatcher_worker;
