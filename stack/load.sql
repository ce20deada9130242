-- name: count_recipients
-- A database that has people in it keeps them.
SELECT count(*) FROM preferences.recipients;

-- name: skip_foreign_keys
-- The world is made consistent; checking half a million references one by one costs a third of the load.
SET LOCAL session_replication_role = replica;

-- name: continue_numbers
-- The next person is numbered after those that were loaded.
SELECT setval(pg_get_serial_sequence('preferences.recipients', 'number'), $1);

-- name: analyze_recipients
-- The first questions after a load need to know how large everything is.
ANALYZE preferences.recipients, preferences.weddings, preferences.team_members, preferences.preferences, inbox.team_members;
