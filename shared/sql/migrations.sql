-- name: become_owner
-- Everything in a migration belongs to the schema's owner and finds its tables there; a lock that readers hold must not
-- queue the whole service behind the migration for long.
SELECT
    set_config('role', $1, true),
    set_config('search_path', $2, true),
    set_config('lock_timeout', '10s', true);

-- name: wait_for_turn
-- Several may start at once; each file is applied by one of them while the others wait here.
SELECT pg_advisory_xact_lock(hashtextextended('wedsync.migrations.' || $1, 0));

-- name: create_history
-- The schema itself says what was applied to it, and from which text.
CREATE TABLE IF NOT EXISTS schema_migrations (
    number integer PRIMARY KEY,
    name text NOT NULL UNIQUE,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- name: list_applied
-- What is there already, to be compared with the files.
SELECT number, name, sha256
FROM schema_migrations
ORDER BY number;

-- name: record_applied
-- In the transaction of the migration, so that either both are there or neither.
INSERT INTO schema_migrations (number, name, sha256)
VALUES ($1, $2, $3);
