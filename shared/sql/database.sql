-- name: set_identity
-- Names the caller to the row level policies, for this transaction only: the next one on the connection starts without.
SELECT set_config(setting.name, setting.value, true)
FROM unnest($1::text[], $2::text[]) AS setting (name, value);

-- name: check_health
-- Proves that the database answers, not only that its port is open.
SELECT 1 AS answer;
