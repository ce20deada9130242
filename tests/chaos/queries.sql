-- name: end_sessions
-- Everybody's but the administrator's own, who is about to need one.
SELECT pg_terminate_backend(pid)
FROM pg_stat_activity
WHERE usename <> 'postgres' AND backend_type = 'client backend';

-- name: connection_limit
-- How many connections a role may have, as a statement: -1 is no limit. Past it Postgres says 53300, as when it is full.
SELECT format('ALTER ROLE %I CONNECTION LIMIT %s', $1::text, $2::integer);

-- name: blocks_of
-- Who has a broadcast, where many of a block do.
SELECT block, members
FROM inbox.blocks
WHERE broadcast_id = $1;

-- name: direct_of
-- Who has a broadcast, where few of a block do.
SELECT recipient_number
FROM inbox.direct
WHERE broadcast_id = $1;

-- name: all_blocks
-- Who has what, where many of a block do.
SELECT broadcast_id, block, members
FROM inbox.blocks;

-- name: all_direct
-- Who has what, where few of a block do.
SELECT broadcast_id, recipient_number
FROM inbox.direct;

-- name: all_broadcasts
-- What the sender has accepted, whatever it has answered.
SELECT broadcast_id, title, state, sent_at
FROM sender.broadcasts;

-- name: waiting
-- What another admin has to decide about.
SELECT broadcast_id, expires_at IS NOT NULL AS expires
FROM sender.broadcasts
WHERE state = 'awaiting_approval' AND cancel_requested_at IS NULL
ORDER BY created_at;

-- name: unfinished
-- What is still on its way.
SELECT count(*)
FROM sender.broadcasts
WHERE state IN ('awaiting_approval', 'pending', 'dispatching')
    OR (cancel_requested_at IS NOT NULL AND state = 'sent')
    OR (retract AND NOT retracted AND state IN ('sent', 'cancelled'));

-- name: dead_letters
-- What the dispatcher has put aside, but for chunks that the run has made up.
SELECT subject, error, sum(times)::bigint AS times
FROM dispatcher.dead_letters
WHERE coalesce(chunk, 0) <> $1
GROUP BY subject, error;

-- name: walls_that_differ
-- Weddings whose team is another in the inbox than in the directory.
SELECT count(*)
FROM preferences.weddings
WHERE (SELECT array_agg(recipient_number ORDER BY recipient_number) FROM preferences.team_members
       WHERE team_members.wedding_id = weddings.wedding_id)
    IS DISTINCT FROM
      (SELECT array_agg(recipient_number ORDER BY recipient_number) FROM inbox.team_members
       WHERE team_members.wedding_id = weddings.wedding_id);

-- name: teams_of
-- Who may see what is behind a wall.
SELECT weddings.wedding_id, array(
    SELECT team_members.recipient_number
    FROM preferences.team_members
    WHERE team_members.wedding_id = weddings.wedding_id
) AS team
FROM preferences.weddings
WHERE weddings.wedding_id = ANY ($1);

-- name: audit_flaws
-- How many broadcasts have another number of entries in the audit log than they must have, and entries another hash.
SELECT
    (
        SELECT count(*)
        FROM sender.broadcasts
        WHERE (priority = 1)::integer <> (
                SELECT count(*) FROM sender.audit_log AS entry
                WHERE entry.broadcast_id = broadcasts.broadcast_id AND entry.action = 'critical_accepted'
            )
            OR (state = 'cancelled' AND 2 <> (
                SELECT count(DISTINCT action) FROM sender.audit_log AS entry
                WHERE entry.broadcast_id = broadcasts.broadcast_id AND entry.action IN ('cancel_requested', 'cancelled')
            ))
            OR (decided_by IS NOT NULL)::integer <> (
                SELECT count(*) FROM sender.audit_log AS entry
                WHERE entry.broadcast_id = broadcasts.broadcast_id AND entry.action IN ('approved', 'rejected')
                    AND entry.actor = broadcasts.decided_by
            )
    ) + (
        SELECT count(*)
        FROM (
            SELECT
                entry.hash <> sender.audit_hash(entry) AS is_changed,
                entry.previous_hash <> lag(entry.hash, 1, entry.previous_hash) OVER (ORDER BY position) AS is_replaced
            FROM sender.audit_log AS entry
        ) AS chain
        WHERE is_changed OR is_replaced
    ) AS flaws;

-- name: all_snapshots
-- How many people were meant when it was decided.
SELECT broadcast_id, targeted
FROM dispatcher.dispatches;

-- name: all_parts
-- Who got what at which moment, in crowds and alone.
SELECT broadcast_id, position, arrived_at, block, members, NULL::integer AS recipient_number
FROM inbox.blocks
UNION ALL
SELECT broadcast_id, position, arrived_at, NULL, NULL, recipient_number
FROM inbox.direct;

-- name: all_deeds
-- What people did with what they got.
SELECT recipient_number, broadcast_id, read_at, acknowledged_at, clicked_at
FROM inbox.receipts;

-- name: all_marks
-- When people marked everything as read.
SELECT recipient_number, position, at
FROM inbox.watermarks;

-- name: newest_analytics
-- What stands for each broadcast since the last day on which something changed.
SELECT DISTINCT ON (broadcast_id)
    broadcast_id, targeted, delivered, read, acknowledged, clicked, make_interval(secs => time_to_read_us / 1000000.0) AS time_to_read
FROM sender.daily_analytics
ORDER BY broadcast_id, day DESC;

-- name: moment
-- As those have it who keep everything.
SELECT now();

-- name: count_again
-- What was not counted since then is due at once, also where somebody else has taken it on before.
UPDATE sender.tallies
SET due_at = now()
WHERE counted_at IS NULL OR counted_at <= $1
RETURNING broadcast_id;
