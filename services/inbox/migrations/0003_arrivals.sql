-- What has arrived in whose inbox. Membership is stored by blocks of 4,096 recipient numbers: a row of bits where a block
-- holds many, a row each where it holds few, because a row for each of a million recipients would take seconds.

-- A broadcast's content, kept from the first time that a part of it came.
CREATE TABLE broadcasts (
    broadcast_id uuid PRIMARY KEY,
    type text NOT NULL CHECK (type <> ''),
    -- Numbers of the contract's enums Category and Priority; the lower a priority, the more urgent.
    category smallint NOT NULL CHECK (category > 0),
    priority smallint NOT NULL CHECK (priority > 0),
    title text NOT NULL,
    message text NOT NULL,
    action_label text,
    action_url text,
    wedding_id uuid,
    couple_name text,
    wedding_date date,
    -- The weddings whose teams may see it. The nil UUID is the wedding of what is about none: everybody is on its team, so
    -- that the personal policy needs no OR.
    wall uuid[] NOT NULL CHECK (cardinality(wall) > 0 AND array_position(wall, NULL) IS NULL),
    expires_at timestamptz NOT NULL DEFAULT 'infinity',
    -- Taken out of inboxes by a cancel.
    hidden boolean NOT NULL DEFAULT false,
    -- The words of title and message, folded as services/inbox/domain.py folds those that are searched for.
    words tsvector NOT NULL,
    CHECK ((action_label IS NULL) = (action_url IS NULL)),
    CHECK (couple_name IS NULL OR wedding_id IS NOT NULL),
    CHECK (wedding_id IS NULL OR wedding_id = ANY (wall))
);

-- Every chunk that was merged, once for good: a second merge of a chunk finds its row and does nothing.
CREATE TABLE arrivals (
    broadcast_id uuid NOT NULL REFERENCES broadcasts,
    chunk integer NOT NULL CHECK (chunk >= 0),
    kind text NOT NULL CHECK (kind IN ('item', 'silent_item', 'alert')),
    -- How many got the item by it; none by an alert.
    recipients bigint NOT NULL CHECK (recipients >= 0),
    position bigint NOT NULL UNIQUE CHECK (position > 0),
    arrived_at timestamptz NOT NULL,
    PRIMARY KEY (broadcast_id, chunk),
    CHECK (kind <> 'alert' OR recipients = 0)
);

-- Bit `number & 4095` of `members` is set for each recipient of block `number >> 12` who got it at this position.
CREATE TABLE blocks (
    block integer NOT NULL CHECK (block >= 0),
    position bigint NOT NULL CHECK (position > 0),
    broadcast_id uuid NOT NULL,
    silent boolean NOT NULL,
    arrived_at timestamptz NOT NULL,
    members bit(4096) NOT NULL,
    PRIMARY KEY (block, position)
);
CREATE INDEX blocks_by_broadcast ON blocks (broadcast_id, block);

CREATE TABLE direct (
    recipient_number integer NOT NULL CHECK (recipient_number >= 0),
    position bigint NOT NULL CHECK (position > 0),
    broadcast_id uuid NOT NULL,
    silent boolean NOT NULL,
    arrived_at timestamptz NOT NULL,
    PRIMARY KEY (recipient_number, position)
);
CREATE INDEX direct_by_broadcast ON direct (broadcast_id, recipient_number);

-- Tombstones of cancelled broadcasts, written even before anything of them came: no chunk merges past one.
CREATE TABLE retractions (
    broadcast_id uuid PRIMARY KEY,
    -- Where in the log it was taken out of inboxes; null while what had arrived stays.
    position bigint UNIQUE CHECK (position > 0),
    retracted_at timestamptz NOT NULL
);

ALTER TABLE broadcasts ENABLE ROW LEVEL SECURITY;
ALTER TABLE broadcasts FORCE ROW LEVEL SECURITY;
CREATE POLICY inside_the_wall ON broadcasts FOR SELECT TO inbox_api
    USING (wall && (
        SELECT array_append(array_agg(team_members.wedding_id), '00000000-0000-0000-0000-000000000000'::uuid)
        FROM team_members
    ));
CREATE POLICY worker_reads_and_writes ON broadcasts TO inbox_worker USING (true) WITH CHECK (true);
GRANT SELECT ON broadcasts TO inbox_api;
GRANT SELECT, INSERT, UPDATE (hidden) ON broadcasts TO inbox_worker;

GRANT SELECT, INSERT ON arrivals TO inbox_worker;

-- `get_bit(…) = 1` would be taken for a join condition and cost the order of the index; the inner SELECTs are evaluated
-- once instead of once a row. The personal role cannot read `members` itself: the policy may.
ALTER TABLE blocks ENABLE ROW LEVEL SECURITY;
ALTER TABLE blocks FORCE ROW LEVEL SECURITY;
CREATE POLICY own_arrivals ON blocks FOR SELECT TO inbox_api
    USING (
        block = (SELECT current_recipient() >> 12)
        AND get_bit(members, (SELECT current_recipient() & 4095)) <> 0
    );
CREATE POLICY worker_reads_and_writes ON blocks TO inbox_worker USING (true) WITH CHECK (true);
GRANT SELECT (block, position, broadcast_id, silent, arrived_at) ON blocks TO inbox_api;
GRANT SELECT, INSERT ON blocks TO inbox_worker;

ALTER TABLE direct ENABLE ROW LEVEL SECURITY;
ALTER TABLE direct FORCE ROW LEVEL SECURITY;
CREATE POLICY own_arrivals ON direct FOR SELECT TO inbox_api
    USING (recipient_number = (SELECT current_recipient()));
CREATE POLICY worker_reads_and_writes ON direct TO inbox_worker USING (true) WITH CHECK (true);
GRANT SELECT ON direct TO inbox_api;
GRANT SELECT, INSERT ON direct TO inbox_worker;

GRANT SELECT ON retractions TO inbox_api;
GRANT SELECT, INSERT, UPDATE ON retractions TO inbox_worker;
