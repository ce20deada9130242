-- name: count_arrived
-- In how many inboxes a broadcast is, committed.
SELECT coalesce(sum(recipients), 0)::bigint FROM inbox.arrivals WHERE broadcast_id = $1 AND kind <> 'alert';

-- name: count_arrived_each
-- The same for several at once.
SELECT broadcast_id, sum(recipients)::bigint AS recipients
FROM inbox.arrivals
WHERE broadcast_id = ANY ($1::uuid[]) AND kind <> 'alert'
GROUP BY broadcast_id;

-- name: count_outstanding
-- Whether anything is still on its way, so that one run does not disturb the next.
SELECT count(*) FROM dispatcher.dispatches WHERE close_time IS NULL;

-- name: is_closed
-- Whether nothing of a broadcast is on its way any more.
SELECT close_time IS NOT NULL FROM dispatcher.dispatches WHERE broadcast_id = $1;

-- name: find_users
-- People by their numbers.
SELECT user_id FROM preferences.recipients WHERE number BETWEEN $1 AND $2 ORDER BY number;

-- name: settle_disk
-- A server that has been in use has written what was loaded, and has its next log segments ready.
CHECKPOINT;
