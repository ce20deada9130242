-- name: claim
-- What is due, critical first, and what was published without a result until its lease ended. SKIP LOCKED lets any number
-- of relays share the work. A crash of Postgres may forget a claim, which is then made again: so it need not wait for the disk.
-- Each lease is twice as long as the one before, up to a ceiling: where much waits for its turn, saying it again makes more wait.
-- With a window, a row waits while so many that are as urgent or more are under way, said once and not settled.
WITH hasty AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true) AS setting
), due AS MATERIALIZED (
    SELECT pending.id, pending.rank, pending.due_at
    FROM hasty, {schema}.outbox AS pending
    WHERE pending.state = 'pending' AND pending.due_at <= now()
    ORDER BY pending.rank, pending.due_at
    LIMIT $1
    FOR UPDATE OF pending SKIP LOCKED
), under_way AS MATERIALIZED (
    SELECT
        published.rank,
        count(*) AS rows
    FROM {schema}.outbox AS published
    WHERE $4::integer IS NOT NULL
        AND published.state = 'published' AND published.epoch = 1 AND published.lease_until > now()
    GROUP BY published.rank
), admitted AS (
    SELECT placed.id
    FROM (
        SELECT due.id, due.rank, row_number() OVER (ORDER BY due.rank, due.due_at) AS place
        FROM due
    ) AS placed
    WHERE $4::integer IS NULL
        OR placed.place + coalesce((SELECT sum(under_way.rows) FROM under_way WHERE under_way.rank <= placed.rank), 0) <= $4
), expired AS MATERIALIZED (
    SELECT published.id
    FROM hasty, {schema}.outbox AS published
    WHERE published.state = 'published' AND published.lease_until <= now()
    ORDER BY published.lease_until
    LIMIT $1
    FOR UPDATE OF published SKIP LOCKED
)
UPDATE {schema}.outbox AS claimed
SET
    state = 'published',
    epoch = claimed.epoch + 1,
    -- What JetStream did not take was not said.
    lease_until = now() + make_interval(
        secs => least($3::float8, $2::float8 * 2 ^ least(greatest(claimed.epoch - claimed.attempts, 0), 16))
    )
FROM (SELECT admitted.id FROM admitted UNION ALL SELECT expired.id FROM expired) AS chosen
WHERE claimed.id = chosen.id
RETURNING
    claimed.id, claimed.key, claimed.subject, claimed.payload, claimed.due_at, claimed.rank, claimed.settle,
    claimed.epoch, claimed.attempts;

-- name: mark_acknowledged
-- JetStream has them: done, unless their owner must report. Only the epoch that was published, in case the lease ended meanwhile.
WITH hasty AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true) AS setting
)
UPDATE {schema}.outbox AS row
SET
    attempts = 0,
    state = CASE WHEN row.settle = 'ack' THEN 'done' ELSE row.state END,
    lease_until = CASE WHEN row.settle = 'ack' THEN NULL ELSE row.lease_until END
FROM hasty, unnest($1::bigint[], $2::integer[]) AS taken (id, epoch)
WHERE row.id = taken.id AND row.epoch = taken.epoch AND row.state = 'published';

-- name: return_unpublished
-- JetStream did not take them: they wait and are claimed again, under a new epoch since they may have got there after all.
UPDATE {schema}.outbox AS row
SET
    attempts = row.attempts + 1,
    state = 'pending',
    lease_until = NULL,
    due_at = clock_timestamp() + make_interval(secs => refused.wait_s)
FROM unnest($1::bigint[], $2::integer[], $3::float8[]) AS refused (id, epoch, wait_s)
WHERE row.id = refused.id AND row.epoch = refused.epoch AND row.state = 'published';

-- name: seconds_until_next
-- When a relay that has nothing to do must look again: at the next due time of any rank, or the end of a lease.
SELECT extract(epoch FROM least(
    (
        SELECT min(next.due_at)
        FROM generate_series(0, 3) AS ranks (rank)
        CROSS JOIN LATERAL (
            SELECT pending.due_at
            FROM {schema}.outbox AS pending
            WHERE pending.rank = ranks.rank AND pending.state = 'pending'
            ORDER BY pending.due_at
            LIMIT 1
        ) AS next
    ),
    (SELECT min(published.lease_until) FROM {schema}.outbox AS published WHERE published.state = 'published')
) - clock_timestamp())::float8 AS seconds;

-- name: add
-- In the transaction that decided it, so that it is published exactly when the decision stands.
SELECT {schema}.outbox_add($1, $2, $3, $4, $5, $6) AS id;

-- name: add_many
-- Several at once, for whoever would keep others waiting with a round trip for each.
SELECT {schema}.outbox_add(entry.key, entry.subject, entry.payload, entry.due_at, entry.rank, entry.settle) AS id
FROM unnest($1::text[], $2::text[], $3::bytea[], $4::timestamptz[], $5::integer[], $6::text[])
    AS entry (key, subject, payload, due_at, rank, settle);

-- name: settle
-- The result is there, so the row is not published again.
SELECT {schema}.outbox_settle($1) AS found;

-- name: cancel
-- Not wanted any more, so the row is not published, or not again.
SELECT {schema}.outbox_cancel($1) AS found;

-- name: count_finished
-- How many rows are over for so long that nobody asks what became of them.
SELECT count(*) AS due
FROM {schema}.outbox
WHERE state IN ('done', 'cancelled') AND created_at < now() - $1::interval;

-- name: remove_finished
-- Rows that are over only make the table larger; in small parts, so that no relay waits.
WITH gone AS (
    DELETE FROM {schema}.outbox
    WHERE id = ANY (ARRAY(
        SELECT finished.id
        FROM {schema}.outbox AS finished
        WHERE finished.state IN ('done', 'cancelled') AND finished.created_at < now() - $1::interval
        ORDER BY finished.created_at
        LIMIT $2::integer
    ))
    RETURNING id
)
SELECT count(*) AS removed, count(*) < $2::integer AS is_last FROM gone;
