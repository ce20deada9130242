-- That a team has changed is told by rows of this outbox, written in the transaction of the change. The statements of
-- shared/sql/outbox_template.sql come first.

-- What is to be published is a row in the transaction that decided it. A row that is not due yet is a schedule; a row
-- whose lease has ended without a result is published again under the next epoch. The function bodies are bound to this
-- schema when they are made, whatever search_path their caller has. Roles that add need INSERT, those that settle or
-- cancel SELECT and UPDATE, and the relay's also DELETE to prune; the identity column needs no grant.
CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- What the row is about, so that its owner can settle or cancel it, and cannot add it twice.
    key text,
    subject text NOT NULL CHECK (subject <> ''),
    payload bytea NOT NULL,
    due_at timestamptz NOT NULL,
    -- 0 critical, 1 high, 2 normal, 3 low: a lower one goes first, however long others have waited.
    rank smallint NOT NULL CHECK (rank BETWEEN 0 AND 3),
    -- 'ack': done once JetStream has it. 'report': done when the owner says so, published again until then.
    settle text NOT NULL CHECK (settle IN ('ack', 'report')),
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'published', 'done', 'cancelled')),
    -- How often it was claimed, which makes each attempt's message id its own.
    epoch integer NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    -- How often JetStream did not take it since it last did.
    attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    lease_until timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT outbox_key_once UNIQUE (key),
    CONSTRAINT outbox_report_has_key CHECK (settle = 'ack' OR key IS NOT NULL),
    CONSTRAINT outbox_lease_while_published CHECK ((state = 'published') = (lease_until IS NOT NULL))
) WITH (fillfactor = 70);

CREATE INDEX outbox_pending ON outbox (rank, due_at) WHERE state = 'pending';
CREATE INDEX outbox_leased ON outbox (lease_until) WHERE state = 'published';
CREATE INDEX outbox_finished ON outbox (created_at) WHERE state IN ('done', 'cancelled');

-- Adds a row that is due at `due_at`, or at once when that is null, and answers its id.
CREATE FUNCTION outbox_add(
    key text, subject text, payload bytea, due_at timestamptz, rank integer, settle text
) RETURNS bigint
LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO outbox (key, subject, payload, due_at, rank, settle)
    VALUES (
        outbox_add.key, outbox_add.subject, outbox_add.payload, coalesce(outbox_add.due_at, now()),
        outbox_add.rank, outbox_add.settle
    )
    RETURNING id;
END;

-- Ends a row because what it asked for has happened; whether there was one to end.
CREATE FUNCTION outbox_settle(key text) RETURNS boolean
LANGUAGE sql
BEGIN ATOMIC
    WITH settled AS (
        UPDATE outbox SET state = 'done', lease_until = NULL
        WHERE outbox.key = outbox_settle.key AND outbox.state IN ('pending', 'published')
        RETURNING outbox.id
    )
    SELECT count(*) > 0 FROM settled;
END;

-- Ends a row because what it asked for is no longer wanted, published or not; whether there was one to end.
CREATE FUNCTION outbox_cancel(key text) RETURNS boolean
LANGUAGE sql
BEGIN ATOMIC
    WITH cancelled AS (
        UPDATE outbox SET state = 'cancelled', lease_until = NULL
        WHERE outbox.key = outbox_cancel.key AND outbox.state IN ('pending', 'published')
        RETURNING outbox.id
    )
    SELECT count(*) > 0 FROM cancelled;
END;

-- What follows is the preferences service's own: teams are set by the worker, which relays as well.
ALTER TABLE outbox ENABLE ROW LEVEL SECURITY;
ALTER TABLE outbox FORCE ROW LEVEL SECURITY;
CREATE POLICY worker_reads_and_writes ON outbox TO preferences_worker USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON outbox TO preferences_worker;
