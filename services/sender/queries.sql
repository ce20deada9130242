-- States go over the wire as text: for a type of ours asyncpg asks Postgres about it once on each new connection, which takes
-- longer than any of these queries.

-- name: accept_broadcast
-- The one transaction of a send. Answers the earlier answer, if its request_id had one, or whether it was counted.
SELECT
    known_body_hash, known_response, is_counted, hour_limit, hour_used, day_limit, day_used, reset_time, counted_at,
    request_ids
FROM accept_broadcast(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,
    $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31::text::broadcast_state, $32, $33
);

-- name: find_standing
-- What is left of a limit, for a caller who only asks.
SELECT counted_at, hour_used, day_used, reset_time, request_ids FROM read_quota($1, $2, $3, $4, $5, $6);

-- name: find_count_identity
-- Which counts these are.
SELECT count_identity.identity
FROM count_identity;

-- name: find_request
-- A repeated call is answered as it was the first time.
SELECT known_body_hash, known_response, hour_limit, hour_used, day_limit, day_used, reset_time FROM find_request($1, $2, $3);

-- name: remember_request
-- Keeps the answer to a call for its repetition.
SELECT known_body_hash, known_response FROM remember_request($1, $2, $3, $4, $5);

-- name: find_visible_broadcast
-- What the caller may see; the rest looks as if it did not exist.
SELECT
    broadcast_id, type, priority, title, message, action_label, action_url,
    everyone, user_ids, roles, tiers, segment_ids, wedding_ids, wedding_id, couple_name, wedding_date,
    scheduled_for, expires_at, created_by, created_by_service, created_at, targeted, state::text AS state, sent_at, failed_at, error,
    cancel_requested_at, cancel_reason, retract, cancelled_at, retracted, stopped, already_sent,
    decided_by, decided_at, decision_reason
FROM read_broadcast($1, $2, $3, $4);

-- name: list_visible_broadcasts
-- The same for many, newest first, with every filter applied here, so that a page is full.
SELECT
    broadcast_id, type, priority, title, message, action_label, action_url,
    everyone, user_ids, roles, tiers, segment_ids, wedding_ids, wedding_id, couple_name, wedding_date,
    scheduled_for, expires_at, created_by, created_by_service, created_at, targeted, state::text AS state, sent_at, failed_at, error,
    cancel_requested_at, cancel_reason, retract, cancelled_at, retracted, stopped, already_sent,
    decided_by, decided_at, decision_reason
FROM list_broadcasts($1, $2, $3, $4::text[]::broadcast_state[], $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15);

-- name: find_broadcast
-- For the suite itself, which carries any broadcast through its states.
SELECT
    broadcast_id, type, priority, title, message, action_label, action_url,
    everyone, user_ids, roles, tiers, segment_ids, wedding_ids, wedding_id, couple_name, wedding_date,
    scheduled_for, expires_at, created_by, created_by_service, created_at, targeted, state::text AS state, sent_at, failed_at, error,
    cancel_requested_at, cancel_reason, retract, cancelled_at, retracted, stopped, already_sent,
    decided_by, decided_at, decision_reason
FROM broadcasts
WHERE broadcast_id = $1;

-- name: count_segment_uses
-- What is still to go out to a segment, of the few that are to go out to any: the conditions of the index come first.
SELECT count(*) AS broadcasts
FROM broadcasts
WHERE cardinality(segment_ids) > 0
    AND state IN ('awaiting_approval', 'pending')
    AND cancel_requested_at IS NULL
    AND segment_ids @> ARRAY[$1::uuid];

-- name: find_wall
-- The weddings to ask the directory about before a coordinator is shown a broadcast.
SELECT wedding_id FROM walls WHERE broadcast_id = $1 ORDER BY wedding_id;

-- name: begin_dispatch
-- The move to dispatching, once, with what the directory says of its wedding now; nothing when it is not pending any more or is
-- being cancelled. From here on it is counted. A crash of Postgres may forget it, so it need not wait for the disk: then the
-- outbox row, whose lease ends without a report, brings it here again, or what is reported of it does.
WITH hasty AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true) AS setting
), begun AS (
    UPDATE broadcasts
    SET
        state = 'dispatching',
        couple_name = coalesce($3, couple_name),
        wedding_date = CASE WHEN $3 IS NULL THEN wedding_date ELSE $4 END
    FROM hasty
    WHERE broadcast_id = $1 AND state = ANY ($2::text[]::broadcast_state[]) AND cancel_requested_at IS NULL
    RETURNING broadcast_id, state
), counted AS (
    INSERT INTO tallies (broadcast_id)
    SELECT broadcast_id
    FROM begun
    ON CONFLICT DO NOTHING
)
SELECT state::text AS state
FROM begun;

-- name: conclude_broadcast
-- The end of dispatching and of its outbox row, which must come together.
SELECT present::text AS present, has_moved FROM conclude_broadcast($1, $2::text[]::broadcast_state[], $3::text::broadcast_state, $4, $5);

-- name: request_cancel
-- Noted before anybody is told to stop, so that a cancel is finished whatever crashes.
SELECT request_cancel($1, $2, $3, $4::text[]::broadcast_state[], $5, $6) AS is_noted;

-- name: finish_cancel
-- Claimed only when everybody who had to stop has confirmed it. A crash may have forgotten that it was dispatched, so it is
-- counted from here on at the latest.
WITH ended AS MATERIALIZED (
    SELECT finish_cancel($1, $2::text[]::broadcast_state[], $3, $4, $5) AS is_cancelled
), counted AS (
    INSERT INTO tallies (broadcast_id)
    SELECT $1
    FROM ended
    WHERE is_cancelled
    ON CONFLICT DO NOTHING
)
SELECT is_cancelled
FROM ended;

-- name: decide_broadcast
-- An admin's word on what another has sent, and what becomes of it, in one transaction.
SELECT decide_broadcast($1, $2, $3::text[]::broadcast_state[], $4::text::broadcast_state, $5, $6, $7) AS is_decided;

-- name: count_waiting
-- How far the dispatchers are behind: what is due and has not been reported, as the partial indexes hold it. By now(), which
-- an index can be asked about, so that nothing that is scheduled for later is read.
SELECT
    rank,
    count(*) AS waiting
FROM outbox
WHERE state = 'published' OR (state = 'pending' AND due_at <= now())
GROUP BY rank;

-- name: list_unfinished_cancels
-- Those whose callers did not get an answer and have not come back; the condition is that of the index.
SELECT broadcast_id
FROM broadcasts
WHERE cancel_requested_at < clock_timestamp() - make_interval(secs => $1::float8)
    AND (
        state IN ('awaiting_approval', 'pending', 'dispatching', 'sent')
        OR (state = 'cancelled' AND retract AND NOT retracted)
    )
ORDER BY cancel_requested_at
LIMIT $2;

-- name: find_over
-- A page of what nobody can be shown by us any more, from the one that ended first on. What has not expired may still be in
-- somebody's inbox.
SELECT broadcast_id, ended_at, (expires_at <= now()) IS NOT TRUE AS may_be_shown
FROM broadcasts
WHERE ended_at < now() - least($1::interval, $2::interval)
    AND priority <> 1
    AND (ended_at, broadcast_id) > ($3::timestamptz, $4::uuid)
    AND is_over(broadcasts, $1, $2)
ORDER BY ended_at, broadcast_id
LIMIT $5;

-- name: remove_over
-- With their walls. Whether they are over is looked at again: a cancel may have come in between.
WITH gone AS (
    DELETE FROM broadcasts
    WHERE broadcast_id = ANY ($3::uuid[]) AND is_over(broadcasts, $1, $2)
    RETURNING broadcast_id
)
SELECT count(*) AS removed, false AS is_last FROM gone;

-- name: count_past_sends
-- What counts for no limit any more.
SELECT count(*) AS due FROM counted_sends WHERE at < now() - $1::interval;

-- name: remove_past_sends
-- The same, the oldest first, and whatever was sent at the same moment as the last of them.
WITH gone AS (
    DELETE FROM counted_sends
    WHERE counted_sends.at <= (
        SELECT max(oldest.at)
        FROM (
            SELECT past.at
            FROM counted_sends AS past
            WHERE past.at < now() - $1::interval
            ORDER BY past.at
            LIMIT $2::integer
        ) AS oldest
    )
    RETURNING counted_sends.at
)
SELECT count(*) AS removed, count(*) < $2::integer AS is_last FROM gone;

-- name: list_audit_log
-- A page of the audit log, newest first, if the caller may read it.
SELECT
    position, format, event_id, recorded_at, at, source, actor, action, broadcast_id, broadcast_type, targeted, retract,
    stopped, already_sent, user_id, wedding_id, role_before, role_after, method, attempts, segment_id, previous_hash, hash
FROM list_audit_log($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: read_audit_chain
-- What comes next in the chain, a part at a time.
SELECT
    position, format, event_id, recorded_at, at, source, actor, action, broadcast_id, broadcast_type, targeted, retract,
    stopped, already_sent, user_id, wedding_id, role_before, role_after, method, attempts, segment_id, previous_hash, hash
FROM audit_log
WHERE position > $1
ORDER BY position
LIMIT $2;

-- name: find_audit_hash
-- What a checkpoint that somebody has kept is compared with.
SELECT hash FROM audit_log WHERE position = $1;

-- name: find_audit_end
-- Whether what is missing was cut off or taken out.
SELECT max(position) AS position FROM audit_log;

-- name: record_audit_events
-- At the end of the chain, in order; what was told before is there already.
INSERT INTO audit_log (
    event_id, at, source, actor, action, user_id, wedding_id, role_before, role_after, method, attempts, segment_id
)
SELECT event_id, at, $1, actor, action, user_id, wedding_id, role_before, role_after, method, attempts, segment_id
FROM unnest(
    $2::uuid[], $3::timestamptz[], $4::text[], $5::text[], $6::uuid[], $7::uuid[], $8::text[], $9::text[], $10::text[],
    $11::bigint[], $12::uuid[]
) WITH ORDINALITY AS event (
    event_id, at, actor, action, user_id, wedding_id, role_before, role_after, method, attempts, segment_id, place
)
ORDER BY place
ON CONFLICT (event_id) DO NOTHING;

-- name: add_audit_checkpoint
-- Where the log ends, unless that is on record; any number of processes may do it.
INSERT INTO audit_checkpoints (position, hash)
SELECT position, hash FROM audit_log ORDER BY position DESC LIMIT 1
ON CONFLICT (position) DO NOTHING
RETURNING position, hash;

-- name: list_audit_checkpoints
-- What a part of the chain must agree with.
SELECT position, hash FROM audit_checkpoints WHERE position > $1 AND position <= $2;

-- name: find_last_audit_checkpoint
-- How far the log goes at least.
SELECT max(position) AS position FROM audit_checkpoints;

-- name: claim_tallies
-- What is to be counted, the longest due first. Put off by the time that counting may take, so that others leave it alone and
-- take it on when nothing comes of it.
UPDATE tallies
SET due_at = now() + make_interval(secs => $2::float8)
FROM (
    SELECT waiting.broadcast_id
    FROM tallies AS waiting
    WHERE waiting.due_at <= now()
    ORDER BY waiting.due_at
    LIMIT $1
    FOR UPDATE SKIP LOCKED
) AS due
INNER JOIN broadcasts ON broadcasts.broadcast_id = due.broadcast_id
WHERE tallies.broadcast_id = due.broadcast_id
RETURNING
    tallies.broadcast_id, tallies.begun_at, tallies.next_day, tallies.targeted, broadcasts.state::text AS state, now() AS now;

-- name: keep_tallies
-- What was counted and when each is looked at again take effect together.
SELECT keep_tallies($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: list_analytics
-- Days of broadcasts on which something had changed.
SELECT day, broadcast_id, type, priority, targeted, delivered, read, acknowledged, clicked, time_to_read_us
FROM list_analytics($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13);

-- name: sum_analytics
-- Days of types or priorities, summed over their broadcasts.
SELECT day, key, targeted, delivered, read, acknowledged, clicked, time_to_read_us
FROM sum_analytics($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14);

-- name: find_counted_through
-- The last day that is counted to its end for every broadcast, as far as it could be by now.
SELECT least(min(next_day), (now() AT TIME ZONE 'UTC')::date) - 1 AS day
FROM tallies;

-- name: erase_words
-- Broadcasts that were meant for them alone and say nothing any more.
SELECT broadcast_id FROM erase_words($1, $2, $3, $4) AS broadcast_id;

-- name: erase_from_targeting
-- Nobody in their place, in these broadcasts and in all that were not meant for them alone.
SELECT erase_from_targeting($1, $2);

-- name: find_answers_naming
-- What others were answered that names somebody.
SELECT caller, method, request_id, response FROM find_answers_naming($1);

-- name: erase_from_answer
-- The same answer without them.
SELECT erase_from_answer($1, $2, $3, $4, $5);

-- name: erase_own
-- What they were answered, and how much they sent.
SELECT type, priority, wedding_id FROM erase_own($1);

-- name: export_sent
-- What somebody sent, in order; whom they named is others' business.
SELECT
    broadcast_id, type, priority, title, message, action_label, action_url, everyone, roles, tiers, segment_ids, wedding_ids,
    wedding_id, cardinality(user_ids) AS named_users, scheduled_for, expires_at, created_at, targeted, state::text AS state,
    sent_at, failed_at, error, cancelled_at, cancel_reason
FROM broadcasts
WHERE created_by = $1 AND (created_at, broadcast_id) > ($2, $3::uuid)
ORDER BY created_at, broadcast_id
LIMIT $4;

-- name: export_naming
-- What names somebody, in order. What it says they know from their inbox, where the wall decides; what was meant for them
-- alone and is about no wedding is theirs in any case, also while it is still to come.
SELECT
    broadcast_id, type, priority, created_at, scheduled_for, expires_at, state::text AS state,
    CASE WHEN is_theirs THEN title END AS title,
    CASE WHEN is_theirs THEN message END AS message,
    CASE WHEN is_theirs THEN action_label END AS action_label,
    CASE WHEN is_theirs THEN action_url END AS action_url
FROM broadcasts
CROSS JOIN LATERAL (
    SELECT
        user_ids = ARRAY[$1::uuid] AND wedding_id IS NULL
        AND cardinality(roles) + cardinality(tiers) + cardinality(segment_ids) + cardinality(wedding_ids) = 0 AS is_theirs
) AS own
WHERE user_ids <> '{}' AND $1::uuid = ANY (user_ids) AND (created_at, broadcast_id) > ($2, $3::uuid)
ORDER BY created_at, broadcast_id
LIMIT $4;

-- name: export_audit_log
-- What somebody did, and what was done to them, newest first; by whom is others' business.
SELECT
    entry.position, entry.at, entry.action, entry.actor = $1::uuid::text AS by_you,
    (entry.user_id = $1::uuid) IS TRUE AS about_you, entry.broadcast_id, entry.broadcast_type, entry.wedding_id,
    entry.segment_id, entry.role_before, entry.role_after, entry.method, entry.attempts
FROM audit_log AS entry
WHERE entry.position IN (
        (
            SELECT own.position
            FROM audit_log AS own
            WHERE own.actor = $1::uuid::text AND own.position < $2
            ORDER BY own.position DESC
            LIMIT $3
        )
        UNION ALL
        (
            SELECT own.position
            FROM audit_log AS own
            WHERE own.user_id = $1::uuid AND own.position < $2
            ORDER BY own.position DESC
            LIMIT $3
        )
    )
ORDER BY entry.position DESC
LIMIT $3;

-- name: export_counts
-- What counts for somebody's limits.
SELECT type, priority, nullif(wedding_id, '00000000-0000-0000-0000-000000000000') AS wedding_id, count(*) AS sends,
    min(at) AS first_at, max(at) AS last_at
FROM counted_sends
WHERE caller = $1
GROUP BY type, priority, wedding_id
ORDER BY type, priority, wedding_id;

-- name: export_calls
-- Which calls of theirs are remembered, for a day.
SELECT method, at, request_id
FROM requests
WHERE caller = $1 AND (at, request_id) > ($2, $3::uuid)
ORDER BY at, request_id
LIMIT $4;
