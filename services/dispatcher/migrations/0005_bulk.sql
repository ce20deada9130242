-- A lane of bulk has a bound of its own: five broadcasts to a million people put no more in front of a critical one, at the
-- inbox and in the database, than one of them does. `lease_chunks` stays for the dispatchers that run until they are replaced.

-- Leases what may leave a lane next: the broadcast with the fewest chunks on their way first. One whose members were
-- decided longer than `fresh` ago is answered unleased, to be decided again first, and with it what else of its broadcast
-- waits as long: one question for all of it, instead of one at each turn. Another dispatcher's broadcasts are
-- passed over while it holds them. With `members_lane`, the lane as a whole has no more on its way than that, or than the
-- chunks that one broadcast may have; several dispatchers that lease at the same moment may each fill it.
CREATE FUNCTION lease_lane(
    priority smallint, chunks_each integer, members_each integer, most_each integer, members_lane bigint,
    batch integer, lease interval, fresh interval
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
                WHERE chunks.priority = lease_lane.priority AND chunks.state = 'pending'
            ) AS waiting
            INNER JOIN dispatches AS open ON open.broadcast_id = waiting.broadcast_id
            CROSS JOIN LATERAL (
                SELECT count(*) AS chunks, coalesce(sum(chunks.size), 0) AS members
                FROM chunks
                WHERE chunks.priority = lease_lane.priority
                    AND chunks.broadcast_id = waiting.broadcast_id
                    AND chunks.state = 'leased'
            ) AS in_flight
            WHERE (open.expires_at IS NULL OR open.expires_at > now())
                AND in_flight.chunks < lease_lane.most_each
                AND (in_flight.chunks < lease_lane.chunks_each OR in_flight.members < lease_lane.members_each)
            ORDER BY in_flight.chunks, open.plan_time
            LIMIT lease_lane.batch
        )
        FOR UPDATE SKIP LOCKED
    ) AS locked;

    RETURN QUERY
    WITH lane AS (
        SELECT count(*) AS chunks, coalesce(sum(chunks.size), 0) AS members
        FROM chunks
        WHERE chunks.priority = lease_lane.priority AND chunks.state = 'leased'
    ), allowed AS (
        SELECT
            own.broadcast_id, queued.chunk, queued.looked_at > now() - lease_lane.fresh AS is_fresh,
            lane.chunks + row_number() OVER turns AS lane_chunks,
            lane.members + sum(queued.size) OVER turns AS lane_members
        FROM lane
        CROSS JOIN unnest(mine) WITH ORDINALITY AS own (broadcast_id, age)
        CROSS JOIN LATERAL (
            SELECT count(*) AS chunks, coalesce(sum(chunks.size), 0) AS members
            FROM chunks
            WHERE chunks.priority = lease_lane.priority
                AND chunks.broadcast_id = own.broadcast_id
                AND chunks.state = 'leased'
        ) AS in_flight
        CROSS JOIN LATERAL (
            SELECT
                next.chunk, next.looked_at, next.size,
                in_flight.chunks + row_number() OVER (ORDER BY next.chunk) AS chunks,
                in_flight.members + sum(next.size) OVER (ORDER BY next.chunk) AS members
            FROM (
                SELECT chunks.chunk, chunks.looked_at, chunks.size
                FROM chunks
                WHERE chunks.priority = lease_lane.priority
                    AND chunks.broadcast_id = own.broadcast_id
                    AND chunks.state = 'pending'
                ORDER BY chunks.chunk
                LIMIT lease_lane.most_each
            ) AS next
        ) AS queued
        WHERE queued.chunks <= lease_lane.most_each
            AND (queued.chunks <= lease_lane.chunks_each OR queued.members <= lease_lane.members_each)
        WINDOW turns AS (ORDER BY queued.chunks, own.age, queued.chunk)
        ORDER BY queued.chunks, own.age, queued.chunk
        LIMIT lease_lane.batch
    ), chosen AS (
        SELECT allowed.broadcast_id, allowed.chunk, allowed.is_fresh
        FROM allowed
        WHERE lease_lane.members_lane IS NULL
            OR allowed.lane_chunks <= lease_lane.chunks_each
            OR allowed.lane_members <= lease_lane.members_lane
    ), leased AS (
        UPDATE chunks
        SET state = 'leased', epoch = chunks.epoch + 1, lease_until = now() + lease_lane.lease
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
    FROM (SELECT DISTINCT chosen.broadcast_id FROM chosen WHERE NOT chosen.is_fresh) AS stale
    CROSS JOIN LATERAL (
        SELECT waiting.chunk
        FROM chunks AS waiting
        WHERE waiting.priority = lease_lane.priority
            AND waiting.broadcast_id = stale.broadcast_id
            AND waiting.state = 'pending'
            AND waiting.looked_at <= now() - lease_lane.fresh
        ORDER BY waiting.chunk
        LIMIT lease_lane.most_each
    ) AS old
    INNER JOIN chunks ON chunks.broadcast_id = stale.broadcast_id AND chunks.chunk = old.chunk;
END
$function$;
