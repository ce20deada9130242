-- name: sort_by_tier
-- People by which ten broadcasts can each reach their own part, and one all of them.
UPDATE preferences.recipients
SET tier = $3::text || '-' || ((number - $1::integer) % $4::integer)::text
WHERE number BETWEEN $1 AND $1 + $2::integer - 1;

-- name: set_nights
-- Everybody's quiet hours, until the same minute and from an hour before it, as if they had edited them.
INSERT INTO preferences.preferences (
    recipient_number, system, business, collaboration, wedding, critical_only, channels, quiet_enabled, quiet_start,
    quiet_end, quiet_time_zone
)
SELECT
    number, true, true, true, true, false, '{realtime,in_app}', true,
    ($3::timestamptz AT TIME ZONE 'UTC')::time - interval '1 hour', ($3::timestamptz AT TIME ZONE 'UTC')::time, 'UTC'
FROM preferences.recipients
WHERE number BETWEEN $1 AND $1 + $2::integer - 1
ON CONFLICT (recipient_number) DO UPDATE
SET
    system = true, business = true, collaboration = true, wedding = true, critical_only = false,
    channels = excluded.channels,
    quiet_enabled = true, quiet_start = excluded.quiet_start, quiet_end = excluded.quiet_end, quiet_time_zone = 'UTC';

-- name: tell_of_nights
-- The running service reads these people anew before its next answer.
SELECT preferences.append_log('recipients', $1);

-- name: count_held
-- Whom these broadcasts will wake, once all that they say has arrived.
SELECT coalesce(sum(size), 0)::bigint
FROM dispatcher.chunks
INNER JOIN dispatcher.dispatches USING (broadcast_id)
WHERE broadcast_id = ANY ($1::uuid[]) AND chunks.state = 'held' AND dispatches.state = 'closed';

-- name: count_asleep
-- Whom they have not woken yet.
SELECT coalesce(sum(size), 0)::bigint
FROM dispatcher.chunks
WHERE broadcast_id = ANY ($1::uuid[]) AND kind = 'alert' AND state IN ('held', 'pending', 'leased');

-- name: list_alerts
-- Who was woken when: every alert that the inbox has committed, in order.
SELECT arrivals.arrived_at, chunks.members
FROM inbox.arrivals
INNER JOIN dispatcher.chunks USING (broadcast_id, chunk)
WHERE arrivals.broadcast_id = ANY ($1::uuid[]) AND arrivals.kind = 'alert'
ORDER BY arrivals.arrived_at, arrivals.position;
