-- The rate of a release holds whatever happens. Alerts that did not get away from their lane were forgotten after a minute,
-- so an outage ended in as many seconds' worth at once as it had lasted minutes. And dispatchers told the second and counted
-- before they had the row that they take turns by, so one that came to it late could spend a second twice.

GRANT UPDATE (release_at) ON chunks TO dispatcher_worker;

-- Takes back what was let go more than a minute ago and still waits in its lane, so that others have its place there: it
-- is held again, behind all that is due by now. What the inbox may have already is not taken back.
CREATE FUNCTION hold_again(moment timestamptz) RETURNS void
LANGUAGE plpgsql
AS $function$
DECLARE
    owners uuid[];
    numbers integer[];
BEGIN
    SELECT array_agg(chunks.broadcast_id), array_agg(chunks.chunk) INTO owners, numbers
    FROM chunks
    -- Those that are pending, in words by which they are looked for among the alerts alone.
    WHERE chunks.priority IN (1, 2, 3, 4)
        AND chunks.state IN ('pending', 'leased')
        AND chunks.lease_until IS NULL
        AND chunks.kind = 'alert'
        AND chunks.let_go_at <= moment - interval '1 minute';
    IF owners IS NULL THEN
        RETURN;
    END IF;

    WITH own AS (
        SELECT dispatches.broadcast_id
        FROM dispatches
        WHERE dispatches.broadcast_id = ANY (owners)
        FOR UPDATE SKIP LOCKED
    )
    UPDATE chunks
    SET state = 'held', release_at = moment, let_go_at = NULL
    FROM unnest(owners, numbers) AS overdue (broadcast_id, chunk)
    INNER JOIN own ON own.broadcast_id = overdue.broadcast_id
    WHERE chunks.broadcast_id = overdue.broadcast_id
        AND chunks.chunk = overdue.chunk
        AND chunks.state = 'pending';
END
$function$;

-- Lets alerts go whose hold has ended: from then on they wait in their lanes, where they are decided anew. In no second of
-- this clock more than `rate` people: a fifth of them at once, the others over its first four fifths, so that there is time
-- to catch up. What was held longest goes first, and what is more urgent by a step counts as held a minute longer, so that
-- the less urgent wait for a while and not for ever; of those, who has the next turn. Of each lane there are never more than
-- `rate` on their way, so that no outage ends in a stampede. They keep nobody back for good: what waits for a minute is held
-- again while others are due, and what the inbox has not answered for within an hour does not count any more. A chunk that
-- is larger than the rate goes alone and is paid for by the seconds that follow. Of each lane `most` are looked at. Answers
-- how many people were let go, and in how many seconds the next hold ends (0 when one has, null when nothing is held), and
-- the lanes in which alerts are on their way. Two who call it together do not wait for each other: one of them does it.
-- `moment` is for tests. Otherwise it is when the row of the pace was had, because whoever had it before may have counted
-- in a later second than that in which this call began.
CREATE OR REPLACE FUNCTION let_go(rate integer, most integer, moment timestamptz DEFAULT NULL)
RETURNS TABLE (released bigint, next_s double precision, lanes smallint[])
LANGUAGE plpgsql
AS $function$
DECLARE
    has_clock CONSTANT boolean := moment IS NULL;
    is_ours boolean := false;
    pace record;
    this_second timestamptz;
    allowed bigint;
    spent bigint;
    taken bigint;
    busy bigint[];
    due record;
    owners uuid[] := '{}';
    numbers integer[] := '{}';
BEGIN
    -- A crash of Postgres that forgets who was let go lets them go again.
    PERFORM set_config('synchronous_commit', 'off', true);
    moment := coalesce(moment, clock_timestamp());
    released := 0;
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
    IF next_s = 0 THEN
        SELECT release_pace.second, release_pace.released INTO pace FROM release_pace FOR UPDATE SKIP LOCKED;
        is_ours := FOUND;
    END IF;
    IF is_ours THEN
        IF has_clock THEN
            moment := clock_timestamp();
        END IF;
        PERFORM hold_again(moment);
    END IF;

    SELECT array_agg(on_their_way.members ORDER BY lane.priority) INTO busy
    FROM unnest(ARRAY[1, 2, 3, 4]::smallint[]) AS lane (priority)
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(chunks.size), 0) AS members
        FROM chunks
        WHERE chunks.priority = lane.priority
            AND chunks.state IN ('pending', 'leased')
            AND chunks.kind = 'alert'
            AND chunks.let_go_at > moment - interval '1 hour'
    ) AS on_their_way;
    SELECT array_agg(lane) INTO lanes FROM unnest(ARRAY[1, 2, 3, 4]::smallint[]) AS lane WHERE busy[lane] > 0;
    IF NOT is_ours THEN
        RETURN NEXT;
        RETURN;
    END IF;

    -- A clock that was put back is waited for, but not for long.
    IF pace.second > moment + interval '1 minute' THEN
        pace.second := date_trunc('second', moment);
        pace.released := 0;
    END IF;
    this_second := greatest(date_trunc('second', moment), pace.second);
    allowed := ceil(rate * least(1, greatest(0, extract(EPOCH FROM moment - this_second)) + 0.2));
    spent := greatest(0, pace.released - rate * extract(EPOCH FROM this_second - pace.second));
    IF spent >= allowed THEN
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
