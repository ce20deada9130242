-- The directory's log: every change to people, weddings, teams and preferences has a place in it, and the set indexes follow
-- it. A directory version is a position here. The statements of shared/sql/ordered_log_template.sql come first.

-- A position is taken from the one row of log_head, which stays locked until the taking transaction ends: whoever comes
-- next waits for it. So positions become visible in their order and without gaps, and a rollback gives its own back.
-- Take positions last in a transaction, so that others wait for a commit only. The function bodies are bound to this
-- schema when they are made, whatever search_path their caller has. Roles that append need SELECT and UPDATE on log_head
-- and INSERT on log; readers need SELECT on both; who prunes also needs DELETE on log.

-- One row on a page of its own: it is updated in place at every append, and its page is cleaned as it goes.
CREATE TABLE log_head (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    position bigint NOT NULL DEFAULT 0 CHECK (position >= 0)
) WITH (fillfactor = 10);

INSERT INTO log_head DEFAULT VALUES;

CREATE TABLE log (
    position bigint PRIMARY KEY CHECK (position > 0),
    kind text NOT NULL,
    body bytea NOT NULL,
    at timestamptz NOT NULL
);

-- Takes the next `count` positions and answers the last of them; the head when `count` is 0.
CREATE FUNCTION take_positions(count integer) RETURNS bigint
LANGUAGE sql
BEGIN ATOMIC
    UPDATE log_head SET position = position + take_positions.count RETURNING position;
END;

-- Appends one entry and answers its position.
CREATE FUNCTION append_log(kind text, body bytea) RETURNS bigint
LANGUAGE sql
BEGIN ATOMIC
    WITH head AS (
        UPDATE log_head SET position = position + 1 RETURNING position
    )
    INSERT INTO log (position, kind, body, at)
    SELECT head.position, append_log.kind, append_log.body, clock_timestamp() FROM head
    RETURNING position;
END;

-- Appends entries in the order of the arrays, which are of equal length, and answers the last position.
CREATE FUNCTION append_log_many(kinds text[], bodies bytea[]) RETURNS bigint
LANGUAGE sql
BEGIN ATOMIC
    WITH head AS (
        UPDATE log_head SET position = position + cardinality(append_log_many.kinds) RETURNING position
    ), appended AS (
        INSERT INTO log (position, kind, body, at)
        SELECT head.position - cardinality(append_log_many.kinds) + entry.place, entry.kind, entry.body, clock_timestamp()
        FROM head, unnest(append_log_many.kinds, append_log_many.bodies) WITH ORDINALITY AS entry (kind, body, place)
    )
    SELECT head.position FROM head;
END;

-- What follows is the preferences service's own.

-- Bodies are small or bitmaps, which do not shrink: trying costs time under the lock of log_head.
ALTER TABLE log ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE log ADD CONSTRAINT log_kind_known CHECK (kind IN ('recipients', 'weddings', 'team', 'filters', 'reload'));

-- The log names recipients: only the worker reads it. Who edits their own preferences adds to it and sees nothing.
ALTER TABLE log ENABLE ROW LEVEL SECURITY;
ALTER TABLE log FORCE ROW LEVEL SECURITY;
CREATE POLICY worker_reads_and_writes ON log TO preferences_worker USING (true) WITH CHECK (true);
CREATE POLICY people_add_changes ON log FOR INSERT TO preferences_api WITH CHECK (true);
GRANT SELECT, INSERT, DELETE ON log TO preferences_worker;
GRANT INSERT ON log TO preferences_api;
GRANT SELECT, UPDATE ON log_head TO preferences_worker, preferences_api;
