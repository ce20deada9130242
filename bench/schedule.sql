-- name: list_people
-- The first of everybody, in the order of their numbers.
SELECT user_id FROM preferences.recipients ORDER BY number LIMIT $1;

-- name: list_weddings
-- Whose teams an emergency can be about.
SELECT wedding_id FROM preferences.team_members GROUP BY wedding_id ORDER BY wedding_id LIMIT $1;

-- name: arrived
-- Which of these are in an inbox, committed.
SELECT DISTINCT broadcast_id FROM inbox.arrivals WHERE broadcast_id = ANY ($1::uuid[]);

-- name: count_unfinished
-- How many of these have not come to their end.
SELECT count(*)
FROM sender.broadcasts
WHERE broadcast_id = ANY ($1::uuid[]) AND state NOT IN ('sent', 'failed', 'expired', 'cancelled');

-- name: list_ends
-- What each has come to: its state, and when it was in the last inbox and sent, in seconds after it was due.
SELECT
    broadcasts.broadcast_id,
    broadcasts.priority,
    broadcasts.state,
    extract(epoch FROM max(arrivals.arrived_at) - broadcasts.scheduled_for)::float8 AS arrived_s,
    extract(epoch FROM broadcasts.sent_at - broadcasts.scheduled_for)::float8 AS sent_s
FROM sender.broadcasts
LEFT JOIN inbox.arrivals ON arrivals.broadcast_id = broadcasts.broadcast_id AND arrivals.kind <> 'alert'
WHERE broadcasts.broadcast_id = ANY ($1::uuid[])
GROUP BY broadcasts.broadcast_id;
