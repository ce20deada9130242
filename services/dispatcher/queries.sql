-- name: plan_dispatch
-- The snapshot, its chunks and the look for a cancel are one commit, because who is in it must never change after.
SELECT plan_dispatch(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22
) AS outcome;

-- name: lease_chunks
-- One round trip chooses, fences and hands out, so that a lane waits for the disk once.
SELECT broadcast_id, chunk, kind, epoch, members, decided_version, decided_at, looked_at, is_leased
FROM lease_lane($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: lease_again
-- What the inbox has not answered for in time is sent again under the next epoch, each time after a longer wait: a chunk
-- is never given up, and a slow inbox is not buried.
UPDATE chunks
SET
    epoch = chunks.epoch + 1,
    lease_until = now() + least($3::interval, $2::interval * 2 ^ least(chunks.epoch, 16))
FROM (
    SELECT overdue.broadcast_id, overdue.chunk
    FROM chunks AS overdue
    WHERE overdue.priority = ANY ($1) AND overdue.state = 'leased' AND overdue.lease_until < now()
    ORDER BY overdue.lease_until
    LIMIT $4
    FOR UPDATE SKIP LOCKED
) AS due
WHERE chunks.broadcast_id = due.broadcast_id AND chunks.chunk = due.chunk
RETURNING chunks.broadcast_id, chunks.chunk, chunks.priority, chunks.kind, chunks.epoch, chunks.members;

-- name: read_rules
-- What a decision about a recipient depends on besides who they are.
SELECT broadcast_id, priority, type, category, essential, wedding_id, wall
FROM dispatches
WHERE broadcast_id = ANY ($1);

-- name: confirm_decisions
-- Looked at again, and nobody has to be decided otherwise.
SELECT confirm_decisions($1, $2, $3, $4, $5, $6);

-- name: redecide_chunk
-- Who stays and who moves on change together, or the ledger would not add up.
SELECT redecide_chunk(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17
) AS is_changed;

-- name: let_go
-- The holds that have ended, in turn, as many people as this second has room for.
SELECT released, next_s, lanes FROM let_go($1, $2);

-- name: find_coarse
-- What is due soon and still has to be cut into parts that can go one after the other.
SELECT broadcast_id, chunk, members, decided_version, decided_at, looked_at, release_at, turn
FROM chunks
WHERE priority = ANY ($1) AND state = 'held' AND release_at <= now() + interval '1 minute' AND size > $2
ORDER BY release_at
LIMIT $3;

-- name: find_oldest_decision
-- From when on somebody whose alert is held may have changed without anybody having looked.
SELECT min(decided_version) AS version
FROM chunks
WHERE priority = ANY ($1) AND state = 'held' AND release_at > now();

-- name: is_any_asleep
-- So that nobody is asked for changes that concern nobody. What is due is decided anew when it is let go.
SELECT EXISTS (
    SELECT FROM chunks WHERE priority = ANY ($1) AND state = 'held' AND release_at > now()
) AS is_any_asleep;

-- name: list_asleep
-- What is held in a lane and not due yet, page by page in the order of its index. What is due has its place in the queue,
-- and would lose it if it were decided about.
SELECT
    chunks.broadcast_id, chunks.chunk, chunks.members, chunks.decided_version, chunks.decided_at, chunks.looked_at,
    chunks.release_at, chunks.turn
FROM chunks
WHERE chunks.priority = $1
    AND chunks.state = 'held'
    AND (chunks.release_at, chunks.turn, chunks.broadcast_id, chunks.chunk) > (greatest($2, now()), $3, $4, $5)
ORDER BY chunks.release_at, chunks.turn, chunks.broadcast_id, chunks.chunk
LIMIT $6;

-- name: list_walls
-- The broadcasts among these that are about one of these weddings, or bound by its team.
SELECT broadcast_id FROM dispatches WHERE broadcast_id = ANY ($1) AND wall && $2;

-- name: lock_expired
-- Whoever changes chunks locks their dispatch first, in the order of ids. Alerts are looked at when they are due.
SELECT dispatches.broadcast_id
FROM dispatches
WHERE dispatches.expires_at <= now()
    AND dispatches.broadcast_id IN (
        SELECT chunks.broadcast_id
        FROM chunks
        WHERE chunks.priority = ANY ($1) AND chunks.state = 'pending'
        UNION ALL
        SELECT chunks.broadcast_id
        FROM chunks
        WHERE chunks.priority = ANY ($1) AND chunks.state = 'held' AND chunks.release_at <= now()
    )
ORDER BY dispatches.broadcast_id
FOR UPDATE OF dispatches SKIP LOCKED;

-- name: expire_chunks
-- What has not left by its expiry never leaves.
UPDATE chunks
SET state = 'expired'
WHERE broadcast_id = ANY ($1)
    AND (state = 'pending' OR (state = 'held' AND release_at <= now()));

-- name: apply_reports
-- A batch of the inbox's words at the price of one commit.
SELECT place, verdict, priority
FROM apply_reports($1, $2, $3, $4);

-- name: close_finished
-- Nothing is pending any more: the ledger is closed. Of a stopped one only the time is noted. A transaction that waited
-- for the plan began before it, but does not end it before it was made.
UPDATE dispatches
SET
    state = CASE state WHEN 'dispatching' THEN 'closed' ELSE state END,
    close_time = greatest(now(), plan_time)
WHERE broadcast_id = ANY ($1)
    AND close_time IS NULL
    AND NOT EXISTS (
        SELECT
        FROM chunks
        WHERE chunks.broadcast_id = dispatches.broadcast_id AND chunks.state IN ('pending', 'leased')
    )
RETURNING
    broadcast_id, priority, state, targeted, close_time, extract(EPOCH FROM close_time - begin_time)::float8 AS seconds;

-- name: find_dispatch
-- What a due message that comes again finds.
SELECT
    broadcast_id, priority, state, targeted, close_time, extract(EPOCH FROM close_time - begin_time)::float8 AS seconds
FROM dispatches
WHERE broadcast_id = $1;

-- name: begin_attempt
-- Counted before the work, so that a message that kills its dispatcher is counted too.
INSERT INTO plan_attempts (broadcast_id, attempts, at)
VALUES ($1, 1, now())
ON CONFLICT (broadcast_id) DO UPDATE SET attempts = plan_attempts.attempts + 1, at = now()
RETURNING attempts;

-- name: forget_attempts
-- The work came to an orderly end, or could not be done for reasons that are not the message's.
DELETE FROM plan_attempts
WHERE broadcast_id = $1;

-- name: bury
-- The same trouble again is one row.
INSERT INTO dead_letters (subject, broadcast_id, chunk, error, at)
VALUES ($1, $2, $3, $4, now())
ON CONFLICT ON CONSTRAINT same_trouble_once DO UPDATE SET times = dead_letters.times + 1, at = now();

-- name: count_dispatch
-- The ledger is counted from the chunks by one GROUP BY, never kept beside them; not while they are being removed.
SELECT
    state, priority, targeted, directory_version, plan_time, close_time, kind, chunk_state, channel, reason, chunks,
    members, release_at
FROM count_dispatch($1);

-- name: find_tombstone
-- A second cancel answers what the first one did.
SELECT planned, stopped, in_flight, targeted
FROM tombstones
WHERE broadcast_id = $1;

-- name: take_turn
-- From here on no plan of this broadcast is committed until the cancel is.
SELECT take_turn($1);

-- name: lock_dispatch
-- So that no chunk is leased or reported while the rest is cancelled.
SELECT targeted
FROM dispatches
WHERE broadcast_id = $1
FOR UPDATE;

-- name: cancel_waiting
-- What has not left never leaves. The members are counted as people: an alert and its item are one.
UPDATE chunks
SET state = 'cancelled'
WHERE broadcast_id = $1 AND state IN ('pending', 'held')
RETURNING members;

-- name: count_in_flight
-- Of these only the inbox knows.
SELECT coalesce(sum(size), 0)::bigint AS members
FROM chunks
WHERE broadcast_id = $1 AND state = 'leased' AND kind IN ('item', 'silent_item');

-- name: mark_stopped
-- One that had expired before it was planned stays so. Without anything on its way it is closed at once, but not before
-- it was planned, which may have been since this transaction began.
UPDATE dispatches
SET
    state = CASE state WHEN 'expired' THEN state ELSE 'stopped' END,
    close_time = coalesce(
        close_time,
        CASE
            WHEN NOT EXISTS (
                SELECT FROM chunks WHERE chunks.broadcast_id = dispatches.broadcast_id AND chunks.state = 'leased'
            ) THEN greatest(now(), plan_time)
        END
    )
WHERE broadcast_id = $1;

-- name: add_tombstone
-- Written even before there is a plan: a late one finds it.
INSERT INTO tombstones (broadcast_id, at, planned, stopped, in_flight, targeted)
VALUES ($1, now(), $2, $3, $4, $5);

-- name: count_old_dispatches
-- Those, and what a run that was broken off has left of others.
SELECT
    (SELECT count(*) FROM find_old_dispatches($1)) + (
        SELECT count(*) FROM dispatches WHERE forgotten_at IS NOT NULL
    ) AS due;

-- name: remove_old_dispatches
-- With their chunks, a few at a time.
SELECT removed, is_last FROM remove_old_dispatches($1, $2);

-- name: count_old_tombstones
-- The sender plans nothing of a broadcast that is cancelled, so a tombstone is needed against plans of its own time only.
SELECT count(*) AS due FROM tombstones WHERE at < now() - $1::interval;

-- name: remove_old_tombstones
-- The same, the oldest first.
WITH gone AS (
    DELETE FROM tombstones
    WHERE ctid = ANY (ARRAY(
        SELECT old.ctid FROM tombstones AS old WHERE old.at < now() - $1::interval ORDER BY old.at LIMIT $2::integer
    ))
    RETURNING at
)
SELECT count(*) AS removed, count(*) < $2::integer AS is_last FROM gone;

-- name: count_old_letters
-- Trouble that has not come again for so long is over.
SELECT count(*) AS due FROM dead_letters WHERE at < now() - $1::interval;

-- name: remove_old_letters
-- The same, the oldest first.
WITH gone AS (
    DELETE FROM dead_letters
    WHERE ctid = ANY (ARRAY(
        SELECT old.ctid FROM dead_letters AS old WHERE old.at < now() - $1::interval ORDER BY old.at LIMIT $2::integer
    ))
    RETURNING at
)
SELECT count(*) AS removed, count(*) < $2::integer AS is_last FROM gone;

-- name: count_old_attempts
-- What a process that died has left counted.
SELECT count(*) AS due FROM plan_attempts WHERE at < now() - $1::interval;

-- name: remove_old_attempts
-- The same, the oldest first.
WITH gone AS (
    DELETE FROM plan_attempts
    WHERE ctid = ANY (ARRAY(
        SELECT old.ctid FROM plan_attempts AS old WHERE old.at < now() - $1::interval ORDER BY old.at LIMIT $2::integer
    ))
    RETURNING at
)
SELECT count(*) AS removed, count(*) < $2::integer AS is_last FROM gone;

-- name: export_chunks
-- The next of all chunks there are: who is in one, only its bitmap says.
SELECT
    chunks.broadcast_id, chunks.chunk, chunks.kind, chunks.state, chunks.channel, chunks.reason, chunks.release_at,
    chunks.decided_at, chunks.members, dispatches.plan_time
FROM chunks
LEFT JOIN dispatches ON dispatches.broadcast_id = chunks.broadcast_id
WHERE (chunks.broadcast_id, chunks.chunk) > ($1::uuid, $2::integer)
ORDER BY chunks.broadcast_id, chunks.chunk
LIMIT $3;
