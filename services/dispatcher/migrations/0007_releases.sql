-- What is held until the same minute goes out at one rate: of all broadcasts and all dispatchers together. A hold is cut
-- into small parts that are let go in turn, and whose turn it is follows from people's numbers alone. And what is held is
-- decided again as people change their settings, so a part may stay held after a new decision.

ALTER TABLE chunks
-- Among those who are released at the same time: by a hash of their numbers, so the same in every hold.
ADD COLUMN turn integer NOT NULL DEFAULT 0,
-- When its hold was ended; from then on it waits in its lane, to be decided anew and sent.
ADD COLUMN let_go_at timestamptz,
-- It is 0 in what is there already.
-- squawk-ignore constraint-missing-not-valid
ADD CONSTRAINT turn_is_a_place CHECK (turn >= 0);

-- In the order in which they are let go, and in which they are looked through when somebody has changed.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX held_in_turn ON chunks (priority, release_at, turn, broadcast_id, chunk) WHERE state = 'held';
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX alerts_on_their_way ON chunks (priority) INCLUDE (size, let_go_at)
WHERE state IN ('pending', 'leased') AND kind = 'alert';
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX held_chunks;

-- How many people have been let go in a second of this database's clock: one row, which is locked to let somebody go.
CREATE TABLE release_pace (
    is_the_only_one boolean PRIMARY KEY DEFAULT true,
    second timestamptz NOT NULL,
    released bigint NOT NULL,
    CONSTRAINT there_is_one CHECK (is_the_only_one),
    CONSTRAINT released_is_a_count CHECK (released >= 0)
);
INSERT INTO release_pace (second, released) VALUES ('epoch', 0);
GRANT SELECT, UPDATE ON release_pace TO dispatcher_worker;
GRANT UPDATE (let_go_at) ON chunks TO dispatcher_worker;

-- Those functions below that take one more argument have a default for it, so the dispatchers that still run go on calling
-- them. They let nobody go any more: that is left to those of this migration.

-- As before, with the turn of each draft; `age` is how long ago it was asked what these people get.
-- squawk-ignore ban-drop-function
DROP FUNCTION add_chunks(
    uuid, smallint, integer, bigint, timestamptz, text[], text[], text[], text[], timestamptz[], bytea[], integer[], interval
);
CREATE FUNCTION add_chunks(
    broadcast_id uuid, priority smallint, first integer, decided_version bigint, decided_at timestamptz,
    kinds text[], states text[], channels text[], reasons text[], release_times timestamptz[], members bytea[],
    sizes integer[], lease interval, turns integer[], age interval
) RETURNS void
LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO chunks (
        broadcast_id, chunk, priority, kind, state, channel, reason, release_at, members, size,
        decided_version, decided_at, looked_at, epoch, lease_until, turn
    )
    SELECT
        add_chunks.broadcast_id, add_chunks.first + draft.place - 1, add_chunks.priority,
        draft.kind, draft.state, draft.channel, draft.reason, draft.release_at, draft.members, draft.size,
        add_chunks.decided_version, add_chunks.decided_at, now() - add_chunks.age,
        CASE draft.state WHEN 'leased' THEN 1 ELSE 0 END,
        CASE draft.state WHEN 'leased' THEN now() + add_chunks.lease END,
        coalesce(draft.turn, 0)
    FROM unnest(
        add_chunks.kinds, add_chunks.states, add_chunks.channels, add_chunks.reasons, add_chunks.release_times,
        add_chunks.members, add_chunks.sizes, add_chunks.turns
    ) WITH ORDINALITY AS draft (kind, state, channel, reason, release_at, members, size, turn, place);
END;

-- As before: commits a snapshot once; answers 'planned', or the state of the dispatch that is there already, or 'stopped'
-- when a cancel came first. Its audience was asked for `elapsed` ago at most, and counts as looked at since then.
-- squawk-ignore ban-drop-function
DROP FUNCTION plan_dispatch(
    uuid, smallint, text, text, text, boolean, uuid, uuid[], timestamptz, bigint, timestamptz, bigint, interval,
    text[], text[], text[], text[], timestamptz[], bytea[], integer[], interval
);
CREATE FUNCTION plan_dispatch(
    broadcast_id uuid, priority smallint, state text, type text, category text, essential boolean, wedding_id uuid,
    wall uuid[], expires_at timestamptz, directory_version bigint, decide_time timestamptz, targeted bigint,
    elapsed interval, kinds text[], states text[], channels text[], reasons text[], release_times timestamptz[],
    members bytea[], sizes integer[], lease interval, turns integer[] DEFAULT NULL
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
        plan_dispatch.lease, plan_dispatch.turns, plan_dispatch.elapsed
    );
    RETURN 'planned';
END
$function$;

-- As before, for what waits and for what is held: nobody in these chunks has to be decided otherwise. They count as looked
-- at since it was asked, `age` ago.
-- squawk-ignore ban-drop-function
DROP FUNCTION confirm_decisions(uuid, integer[], bigint, timestamptz);
CREATE FUNCTION confirm_decisions(
    broadcast_id uuid, numbers integer[], decided_version bigint, decided_at timestamptz,
    age interval DEFAULT interval '0', state text DEFAULT 'pending'
) RETURNS void
LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    UPDATE chunks
    SET
        decided_version = confirm_decisions.decided_version, decided_at = confirm_decisions.decided_at,
        looked_at = now() - confirm_decisions.age
    WHERE chunks.broadcast_id = confirm_decisions.broadcast_id
        AND chunks.chunk = ANY (confirm_decisions.numbers)
        AND chunks.state = confirm_decisions.state;
END
$function$;

-- Puts a chunk that waits, and that nobody else has changed since it was read, into its new form: as it was with those who
-- stay, gone when nobody does, and new chunks for the others. Answers whether it did.
-- squawk-ignore ban-drop-function
DROP FUNCTION redecide_chunk(
    uuid, integer, text, timestamptz, bytea, integer, bigint, timestamptz, text[], text[], text[], text[], timestamptz[],
    bytea[], integer[]
);
CREATE FUNCTION redecide_chunk(
    broadcast_id uuid, chunk integer, state text, was_looked_at timestamptz, kept bytea, kept_size integer,
    decided_version bigint, decided_at timestamptz, kinds text[], states text[], channels text[], reasons text[],
    release_times timestamptz[], members bytea[], sizes integer[], turns integer[] DEFAULT NULL,
    age interval DEFAULT interval '0'
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
            members = redecide_chunk.kept, size = redecide_chunk.kept_size,
            decided_version = redecide_chunk.decided_version, decided_at = redecide_chunk.decided_at,
            looked_at = now() - redecide_chunk.age
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
        redecide_chunk.release_times, redecide_chunk.members, redecide_chunk.sizes, NULL, redecide_chunk.turns,
        redecide_chunk.age
    );
    UPDATE dispatches
    SET next_chunk = dispatches.next_chunk + cardinality(redecide_chunk.kinds)
    WHERE dispatches.broadcast_id = redecide_chunk.broadcast_id;
    RETURN true;
END
$function$;

-- As before, except that a chunk also has to be decided again first when that was done at a version of the directory before
-- `least_version`: so that whatever was accepted before a lane took the chunk up is in it. Leases what may leave a lane next:
-- the broadcast with the fewest chunks on their way first. One whose members were decided longer than `fresh` ago is answered
-- unleased, and with it what else of its broadcast waits as long: one question for all of it, instead of one at each turn.
-- Another dispatcher's broadcasts are passed over while it holds them. With `members_lane`, the lane as a whole has no more
-- on its way than that, or than the chunks that one broadcast may have; several dispatchers that lease at the same moment may
-- each fill it.
-- squawk-ignore ban-drop-function
DROP FUNCTION lease_lane(smallint, integer, integer, integer, bigint, integer, interval, interval);
CREATE FUNCTION lease_lane(
    priority smallint, chunks_each integer, members_each integer, most_each integer, members_lane bigint,
    batch integer, lease interval, fresh interval, least_version bigint DEFAULT 0
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
            own.broadcast_id, queued.chunk,
            queued.looked_at > now() - lease_lane.fresh AND queued.decided_version >= least_version AS is_fresh,
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
                next.chunk, next.looked_at, next.decided_version, next.size,
                in_flight.chunks + row_number() OVER (ORDER BY next.chunk) AS chunks,
                in_flight.members + sum(next.size) OVER (ORDER BY next.chunk) AS members
            FROM (
                SELECT chunks.chunk, chunks.looked_at, chunks.decided_version, chunks.size
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
            AND (waiting.looked_at <= now() - lease_lane.fresh OR waiting.decided_version < least_version)
        ORDER BY waiting.chunk
        LIMIT lease_lane.most_each
    ) AS old
    INNER JOIN chunks ON chunks.broadcast_id = stale.broadcast_id AND chunks.chunk = old.chunk;
END
$function$;

-- Lets alerts go whose hold has ended: from then on they wait in their lanes, where they are decided anew. In no second of
-- this clock more than `rate` people: a fifth of them at once, the others over its first four fifths, so that there is time
-- to catch up. What was held longest goes first, and what is more urgent by a step counts as held a minute longer, so that
-- the less urgent wait for a while and not for ever; of those, who has the next turn. Of a lane whose alerts do not get away
-- there are never more than `rate` on their way, so that no outage ends in a stampede; what has not got away within a minute
-- keeps nobody back any more. A chunk that is larger than the rate goes alone and is paid for by the seconds that follow. Of each
-- lane `most` are looked at. Answers how many people were let go, and in how many seconds the next hold ends (0 when one has,
-- null when nothing is held), and the lanes in which alerts are on their way. `moment` is now but in tests. Two who call it together do not wait for each other: one of them does it.
CREATE FUNCTION let_go(rate integer, most integer, moment timestamptz DEFAULT now())
RETURNS TABLE (released bigint, next_s double precision, lanes smallint[])
LANGUAGE plpgsql
AS $function$
DECLARE
    this_second CONSTANT timestamptz := date_trunc('second', moment);
    begun CONSTANT double precision := extract(EPOCH FROM moment - this_second);
    allowed CONSTANT bigint := ceil(rate * least(1, begun + 0.2));
    spent bigint;
    taken bigint;
    busy bigint[];
    due record;
    owners uuid[] := '{}';
    numbers integer[] := '{}';
BEGIN
    -- A crash of Postgres that forgets who was let go lets them go again.
    PERFORM set_config('synchronous_commit', 'off', true);
    released := 0;
    SELECT array_agg(on_their_way.members ORDER BY lane.priority) INTO busy
    FROM unnest(ARRAY[1, 2, 3, 4]::smallint[]) AS lane (priority)
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(chunks.size), 0) AS members
        FROM chunks
        WHERE chunks.priority = lane.priority
            AND chunks.state IN ('pending', 'leased')
            AND chunks.kind = 'alert'
            AND chunks.let_go_at > moment - interval '1 minute'
    ) AS on_their_way;

    SELECT array_agg(lane) INTO lanes FROM unnest(ARRAY[1, 2, 3, 4]::smallint[]) AS lane WHERE busy[lane] > 0;
    SELECT
        CASE WHEN min(held.release_at) <= moment THEN 0 ELSE extract(EPOCH FROM min(held.release_at) - moment) END
    INTO next_s
    FROM unnest(ARRAY[1, 2, 3, 4]::smallint[]) AS lane (priority)
    CROSS JOIN LATERAL (
        SELECT chunks.release_at
        FROM chunks
        WHERE chunks.priority = lane.priority AND chunks.state = 'held'
        ORDER BY chunks.release_at
        LIMIT 1
    ) AS held;
    IF next_s IS DISTINCT FROM 0 THEN
        RETURN NEXT;
        RETURN;
    END IF;

    SELECT greatest(0, pace.released - rate * abs(extract(EPOCH FROM this_second - pace.second)))::bigint INTO spent
    FROM release_pace AS pace
    FOR UPDATE SKIP LOCKED;
    IF NOT FOUND OR (spent >= allowed) THEN
        RETURN NEXT;
        RETURN;
    END IF;

    taken := 0;
    FOR due IN
        SELECT waiting.broadcast_id, waiting.chunk, waiting.priority, waiting.size
        FROM unnest(ARRAY[1, 2, 3, 4]::smallint[]) AS lane (priority)
        CROSS JOIN LATERAL (
            SELECT chunks.broadcast_id, chunks.chunk, chunks.priority, chunks.size, chunks.release_at, chunks.turn
            FROM chunks
            INNER JOIN dispatches ON dispatches.broadcast_id = chunks.broadcast_id
            WHERE chunks.priority = lane.priority
                AND chunks.state = 'held'
                AND chunks.release_at <= moment
                AND dispatches.state = 'closed'
                AND (dispatches.expires_at IS NULL OR dispatches.expires_at > moment)
            ORDER BY chunks.release_at, chunks.turn, chunks.broadcast_id, chunks.chunk
            LIMIT most
        ) AS waiting
        ORDER BY
            waiting.release_at + (waiting.priority - 1) * interval '1 minute', waiting.turn, waiting.broadcast_id,
            waiting.chunk
    LOOP
        CONTINUE WHEN busy[due.priority] > 0 AND busy[due.priority] + due.size > rate;
        IF spent + taken + due.size > allowed AND NOT (spent + taken = 0 AND due.size > rate) THEN
            -- Who is next in turn is waited for, except at the end of a second, when they are the first of the next.
            EXIT WHEN allowed < rate;
            CONTINUE;
        END IF;
        taken := taken + due.size;
        busy[due.priority] := busy[due.priority] + due.size;
        lanes := lanes || due.priority;
        owners := owners || due.broadcast_id;
        numbers := numbers || due.chunk;
    END LOOP;
    IF taken = 0 THEN
        RETURN NEXT;
        RETURN;
    END IF;

    WITH own AS (
        SELECT dispatches.broadcast_id
        FROM dispatches
        WHERE dispatches.broadcast_id = ANY (owners)
        FOR UPDATE SKIP LOCKED
    ), gone AS (
        UPDATE chunks
        SET state = 'pending', let_go_at = moment, decided_version = 0, looked_at = 'epoch'
        FROM unnest(owners, numbers) AS chosen (broadcast_id, chunk)
        INNER JOIN own ON own.broadcast_id = chosen.broadcast_id
        WHERE chunks.broadcast_id = chosen.broadcast_id
            AND chunks.chunk = chosen.chunk
            AND chunks.state = 'held'
        RETURNING chunks.size
    )
    SELECT coalesce(sum(gone.size), 0) INTO released FROM gone;
    UPDATE release_pace SET second = this_second, released = spent + let_go.released;
    RETURN NEXT;
END
$function$;
