-- The steps that broadcasts wait for, each as one function: one round trip, one commit. They are in plpgsql where a
-- statement must see what was committed while the one before it waited for a lock.

-- Writes chunks from arrays of equal length, the first of them numbered `first`. What is to leave at once is leased
-- already, so that nothing has to be committed between this and the sending.
CREATE FUNCTION add_chunks(
    broadcast_id uuid, priority smallint, first integer, decided_version bigint, decided_at timestamptz,
    kinds text[], states text[], channels text[], reasons text[], release_times timestamptz[], members bytea[],
    sizes integer[], lease interval
) RETURNS void
LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO chunks (
        broadcast_id, chunk, priority, kind, state, channel, reason, release_at, members, size,
        decided_version, decided_at, looked_at, epoch, lease_until
    )
    SELECT
        add_chunks.broadcast_id, add_chunks.first + draft.place - 1, add_chunks.priority,
        draft.kind, draft.state, draft.channel, draft.reason, draft.release_at, draft.members, draft.size,
        add_chunks.decided_version, add_chunks.decided_at, now(),
        CASE draft.state WHEN 'leased' THEN 1 ELSE 0 END,
        CASE draft.state WHEN 'leased' THEN now() + add_chunks.lease END
    FROM unnest(
        add_chunks.kinds, add_chunks.states, add_chunks.channels, add_chunks.reasons, add_chunks.release_times,
        add_chunks.members, add_chunks.sizes
    ) WITH ORDINALITY AS draft (kind, state, channel, reason, release_at, members, size, place);
END;

-- A plan and a cancel of one broadcast wait for each other, also while there is a row of neither.
CREATE FUNCTION take_turn(broadcast_id uuid) RETURNS void
LANGUAGE sql
BEGIN ATOMIC
    SELECT pg_advisory_xact_lock(hashtextextended('dispatcher.' || take_turn.broadcast_id::text, 0));
END;

-- Commits a snapshot once: answers 'planned', or the state of the dispatch that is there already, or 'stopped' when a
-- cancel came first.
CREATE FUNCTION plan_dispatch(
    broadcast_id uuid, priority smallint, state text, type text, category text, essential boolean, wedding_id uuid,
    wall uuid[], expires_at timestamptz, directory_version bigint, decide_time timestamptz, targeted bigint,
    elapsed interval, kinds text[], states text[], channels text[], reasons text[], release_times timestamptz[],
    members bytea[], sizes integer[], lease interval
) RETURNS text
LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM take_turn(plan_dispatch.broadcast_id);
    IF EXISTS (SELECT FROM tombstones WHERE tombstones.broadcast_id = plan_dispatch.broadcast_id) THEN
        RETURN 'stopped';
    END IF;
    INSERT INTO dispatches (
        broadcast_id, priority, state, type, category, essential, wedding_id, wall, expires_at, directory_version,
        decide_time, targeted, next_chunk, begin_time, plan_time, close_time
    )
    VALUES (
        plan_dispatch.broadcast_id, plan_dispatch.priority, plan_dispatch.state, plan_dispatch.type,
        plan_dispatch.category, plan_dispatch.essential, plan_dispatch.wedding_id, plan_dispatch.wall,
        plan_dispatch.expires_at, plan_dispatch.directory_version, plan_dispatch.decide_time, plan_dispatch.targeted,
        cardinality(plan_dispatch.kinds), now() - plan_dispatch.elapsed, now(),
        CASE plan_dispatch.state WHEN 'dispatching' THEN NULL ELSE now() END
    )
    ON CONFLICT ON CONSTRAINT dispatches_pkey DO NOTHING;
    IF NOT FOUND THEN
        RETURN (SELECT dispatches.state FROM dispatches WHERE dispatches.broadcast_id = plan_dispatch.broadcast_id);
    END IF;
    PERFORM add_chunks(
        plan_dispatch.broadcast_id, plan_dispatch.priority, 0, plan_dispatch.directory_version,
        plan_dispatch.decide_time, plan_dispatch.kinds, plan_dispatch.states, plan_dispatch.channels,
        plan_dispatch.reasons, plan_dispatch.release_times, plan_dispatch.members, plan_dispatch.sizes,
        plan_dispatch.lease
    );
    RETURN 'planned';
END
$function$;

-- Leases what may leave a lane next: the broadcast with the fewest chunks on their way first. One whose members were
-- decided longer than `fresh` ago is answered unleased, to be decided again first. Another dispatcher's broadcasts are
-- passed over while it holds them.
CREATE FUNCTION lease_chunks(
    priority smallint, chunks_each integer, members_each integer, most_each integer, batch integer,
    lease interval, fresh interval
) RETURNS TABLE (
    broadcast_id uuid, chunk integer, kind text, epoch integer, members bytea, decided_version bigint,
    decided_at timestamptz, looked_at timestamptz, is_leased boolean
)
LANGUAGE plpgsql
AS $function$
DECLARE
    mine uuid[];
BEGIN
    SELECT array_agg(locked.broadcast_id ORDER BY locked.plan_time) INTO mine
    FROM (
        SELECT dispatches.broadcast_id, dispatches.plan_time
        FROM dispatches
        WHERE dispatches.broadcast_id IN (
            SELECT waiting.broadcast_id
            FROM (
                SELECT DISTINCT chunks.broadcast_id
                FROM chunks
                WHERE chunks.priority = lease_chunks.priority AND chunks.state = 'pending'
            ) AS waiting
            INNER JOIN dispatches AS open ON open.broadcast_id = waiting.broadcast_id
            CROSS JOIN LATERAL (
                SELECT count(*) AS chunks, coalesce(sum(chunks.size), 0) AS members
                FROM chunks
                WHERE chunks.priority = lease_chunks.priority
                    AND chunks.broadcast_id = waiting.broadcast_id
                    AND chunks.state = 'leased'
            ) AS in_flight
            WHERE (open.expires_at IS NULL OR open.expires_at > now())
                AND in_flight.chunks < lease_chunks.most_each
                AND (in_flight.chunks < lease_chunks.chunks_each OR in_flight.members < lease_chunks.members_each)
            ORDER BY in_flight.chunks, open.plan_time
            LIMIT lease_chunks.batch
        )
        FOR UPDATE SKIP LOCKED
    ) AS locked;

    RETURN QUERY
    WITH chosen AS (
        SELECT
            own.broadcast_id, queued.chunk, queued.looked_at > now() - lease_chunks.fresh AS is_fresh
        FROM unnest(mine) WITH ORDINALITY AS own (broadcast_id, age)
        CROSS JOIN LATERAL (
            SELECT count(*) AS chunks, coalesce(sum(chunks.size), 0) AS members
            FROM chunks
            WHERE chunks.priority = lease_chunks.priority
                AND chunks.broadcast_id = own.broadcast_id
                AND chunks.state = 'leased'
        ) AS in_flight
        CROSS JOIN LATERAL (
            SELECT
                next.chunk, next.looked_at,
                in_flight.chunks + row_number() OVER (ORDER BY next.chunk) AS chunks,
                in_flight.members + sum(next.size) OVER (ORDER BY next.chunk) AS members
            FROM (
                SELECT chunks.chunk, chunks.looked_at, chunks.size
                FROM chunks
                WHERE chunks.priority = lease_chunks.priority
                    AND chunks.broadcast_id = own.broadcast_id
                    AND chunks.state = 'pending'
                ORDER BY chunks.chunk
                LIMIT lease_chunks.most_each
            ) AS next
        ) AS queued
        WHERE queued.chunks <= lease_chunks.most_each
            AND (queued.chunks <= lease_chunks.chunks_each OR queued.members <= lease_chunks.members_each)
        ORDER BY queued.chunks, own.age
        LIMIT lease_chunks.batch
    ), leased AS (
        UPDATE chunks
        SET state = 'leased', epoch = chunks.epoch + 1, lease_until = now() + lease_chunks.lease
        FROM chosen
        WHERE chosen.is_fresh AND chunks.broadcast_id = chosen.broadcast_id AND chunks.chunk = chosen.chunk
        RETURNING
            chunks.broadcast_id, chunks.chunk, chunks.kind, chunks.epoch, chunks.members, chunks.decided_version,
            chunks.decided_at, chunks.looked_at
    )
    SELECT
        leased.broadcast_id, leased.chunk, leased.kind, leased.epoch, leased.members, leased.decided_version,
        leased.decided_at, leased.looked_at, true
    FROM leased
    UNION ALL
    SELECT
        chunks.broadcast_id, chunks.chunk, chunks.kind, chunks.epoch, chunks.members, chunks.decided_version,
        chunks.decided_at, chunks.looked_at, false
    FROM chosen
    INNER JOIN chunks ON chunks.broadcast_id = chosen.broadcast_id AND chunks.chunk = chosen.chunk
    WHERE NOT chosen.is_fresh;
END
$function$;

-- Notes that nobody in these chunks has to be decided otherwise. Losing it costs one more look, so it does not wait for
-- the disk.
CREATE FUNCTION confirm_decisions(broadcast_id uuid, numbers integer[], decided_version bigint, decided_at timestamptz)
RETURNS void
LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    UPDATE chunks
    SET
        decided_version = confirm_decisions.decided_version, decided_at = confirm_decisions.decided_at,
        looked_at = now()
    WHERE chunks.broadcast_id = confirm_decisions.broadcast_id
        AND chunks.chunk = ANY (confirm_decisions.numbers)
        AND chunks.state = 'pending';
END
$function$;

-- Puts a chunk that waits, and that nobody else has changed since it was read, into its new form: pending with those who
-- stay, gone when nobody does, and new chunks for the others. Answers whether it did.
CREATE FUNCTION redecide_chunk(
    broadcast_id uuid, chunk integer, state text, was_looked_at timestamptz, kept bytea, kept_size integer,
    decided_version bigint, decided_at timestamptz, kinds text[], states text[], channels text[], reasons text[],
    release_times timestamptz[], members bytea[], sizes integer[]
) RETURNS boolean
LANGUAGE plpgsql
AS $function$
DECLARE
    lane smallint;
    first integer;
BEGIN
    SELECT dispatches.priority, dispatches.next_chunk INTO lane, first
    FROM dispatches
    WHERE dispatches.broadcast_id = redecide_chunk.broadcast_id
    FOR UPDATE;
    IF redecide_chunk.kept_size = 0 THEN
        DELETE FROM chunks
        WHERE chunks.broadcast_id = redecide_chunk.broadcast_id
            AND chunks.chunk = redecide_chunk.chunk
            AND chunks.state = redecide_chunk.state
            AND chunks.looked_at = redecide_chunk.was_looked_at;
    ELSE
        UPDATE chunks
        SET
            state = 'pending', members = redecide_chunk.kept, size = redecide_chunk.kept_size,
            decided_version = redecide_chunk.decided_version, decided_at = redecide_chunk.decided_at,
            looked_at = now()
        WHERE chunks.broadcast_id = redecide_chunk.broadcast_id
            AND chunks.chunk = redecide_chunk.chunk
            AND chunks.state = redecide_chunk.state
            AND chunks.looked_at = redecide_chunk.was_looked_at;
    END IF;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM add_chunks(
        redecide_chunk.broadcast_id, lane, first, redecide_chunk.decided_version, redecide_chunk.decided_at,
        redecide_chunk.kinds, redecide_chunk.states, redecide_chunk.channels, redecide_chunk.reasons,
        redecide_chunk.release_times, redecide_chunk.members, redecide_chunk.sizes, NULL
    );
    UPDATE dispatches
    SET next_chunk = dispatches.next_chunk + cardinality(redecide_chunk.kinds)
    WHERE dispatches.broadcast_id = redecide_chunk.broadcast_id;
    RETURN true;
END
$function$;

-- Applies the inbox's word on chunks. Locks the dispatches in the order of their ids, so that two who do this never wait
-- for each other in a circle, and the second to finish a dispatch sees that it is the last. For each report answers its
-- place in the arrays, and whether it was 'applied', 'ignored' (known already, or not sent by this row), about an
-- 'unknown' chunk, or of another 'size' than was sent.
CREATE FUNCTION apply_reports(broadcast_ids uuid[], numbers integer[], sizes bigint[], outcomes text[])
RETURNS TABLE (place bigint, verdict text, priority smallint)
LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM dispatches.broadcast_id
    FROM dispatches
    WHERE dispatches.broadcast_id = ANY (apply_reports.broadcast_ids)
    ORDER BY dispatches.broadcast_id
    FOR UPDATE;

    RETURN QUERY
    WITH report AS (
        SELECT given.broadcast_id, given.chunk, given.size, given.outcome, given.place
        FROM unnest(
            apply_reports.broadcast_ids, apply_reports.numbers, apply_reports.sizes, apply_reports.outcomes
        ) WITH ORDINALITY AS given (broadcast_id, chunk, size, outcome, place)
    ), applied AS (
        UPDATE chunks
        SET state = CASE report.outcome WHEN 'merged' THEN 'done' ELSE 'cancelled' END, lease_until = NULL
        FROM report
        WHERE chunks.broadcast_id = report.broadcast_id
            AND chunks.chunk = report.chunk
            AND chunks.state = 'leased'
            AND (chunks.size = report.size OR report.outcome = 'stopped')
        RETURNING chunks.broadcast_id, chunks.chunk
    )
    SELECT
        report.place,
        CASE
            WHEN applied.chunk IS NOT NULL THEN 'applied'
            WHEN chunks.chunk IS NULL THEN 'unknown'
            WHEN chunks.state = 'leased' THEN 'size'
            ELSE 'ignored'
        END,
        chunks.priority
    FROM report
    LEFT JOIN applied ON applied.broadcast_id = report.broadcast_id AND applied.chunk = report.chunk
    LEFT JOIN chunks ON chunks.broadcast_id = report.broadcast_id AND chunks.chunk = report.chunk;
END
$function$;

-- A dispatch and its chunks, counted by what they have in common, from one moment; one row with nulls when it has none.
CREATE FUNCTION count_dispatch(broadcast_id uuid)
RETURNS TABLE (
    state text, priority smallint, targeted bigint, directory_version bigint, plan_time timestamptz,
    close_time timestamptz, kind text, chunk_state text, channel text, reason text, chunks bigint, members bigint,
    release_at timestamptz
)
LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM set_config('app.broadcast', count_dispatch.broadcast_id::text, true);
    RETURN QUERY
    SELECT
        dispatches.state, dispatches.priority, dispatches.targeted, dispatches.directory_version,
        dispatches.plan_time, dispatches.close_time, counted.kind, counted.state, counted.channel, counted.reason,
        counted.chunks, counted.members, counted.release_at
    FROM dispatches
    LEFT JOIN LATERAL (
        SELECT
            chunks.kind, chunks.state, chunks.channel, chunks.reason, count(*) AS chunks,
            sum(chunks.size) AS members, min(chunks.release_at) AS release_at
        FROM chunks
        WHERE chunks.broadcast_id = dispatches.broadcast_id
        GROUP BY chunks.kind, chunks.state, chunks.channel, chunks.reason
    ) AS counted ON true
    WHERE dispatches.broadcast_id = count_dispatch.broadcast_id;
END
$function$;
