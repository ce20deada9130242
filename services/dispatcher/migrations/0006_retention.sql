-- How long it is known what became of deliveries: 90 days after their dispatch was closed, unless something of it still waits.
-- The worker removes them by a policy of its own: nothing that is not closed, and nothing of the last days.

ALTER TABLE dispatches
-- From then on nobody is told of it, while its chunks are removed: a ledger is whole or it is not there.
ADD COLUMN forgotten_at timestamptz,
-- All of these are null in what is there already.
-- squawk-ignore constraint-missing-not-valid
ADD CONSTRAINT only_closed_ones_are_forgotten CHECK (
    forgotten_at IS NULL OR (close_time IS NOT NULL AND forgotten_at >= close_time)
);

-- By the time of planning, which never changes: one on the time of closing would cost every dispatch an entry when it closes.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX dispatches_by_age ON dispatches (plan_time) WHERE forgotten_at IS NULL;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX forgotten_dispatches ON dispatches (forgotten_at) WHERE forgotten_at IS NOT NULL;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX tombstones_by_age ON tombstones (at);
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX dead_letters_by_age ON dead_letters (at);
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX plan_attempts_by_age ON plan_attempts (at);

-- Dispatches whose deliveries nobody asks about any more: closed for so long, and with nothing on hold.
CREATE FUNCTION find_old_dispatches(term interval) RETURNS TABLE (broadcast_id uuid)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT dispatches.broadcast_id
    FROM dispatches
    WHERE dispatches.forgotten_at IS NULL
        AND dispatches.plan_time < now() - term
        AND dispatches.close_time < now() - term
        -- Looked up one by one: joined, all chunks there are would be read for a few dispatches.
        AND (
            SELECT chunks.chunk
            FROM chunks
            WHERE chunks.broadcast_id = dispatches.broadcast_id AND chunks.state IN ('pending', 'leased', 'held')
            LIMIT 1
        ) IS NULL
    ORDER BY dispatches.plan_time;
END;

-- Removes old dispatches with their chunks, about `most` rows at a time: answers how many dispatches are gone, and whether
-- none is left. One that is begun is finished before the next; whoever looks meanwhile finds none of it.
CREATE FUNCTION remove_old_dispatches(term interval, most integer) RETURNS TABLE (removed bigint, is_last boolean)
LANGUAGE plpgsql
AS $function$
DECLARE
    oldest uuid;
    gone bigint;
    budget bigint := most;
BEGIN
    removed := 0;
    is_last := false;
    WHILE budget > 0 AND NOT is_last LOOP
        SELECT dispatches.broadcast_id INTO oldest
        FROM dispatches
        WHERE dispatches.forgotten_at IS NOT NULL
        ORDER BY dispatches.forgotten_at
        LIMIT 1;
        IF NOT FOUND THEN
            UPDATE dispatches SET forgotten_at = clock_timestamp()
            WHERE dispatches.broadcast_id = (
                SELECT old.broadcast_id FROM find_old_dispatches(term) AS old LIMIT 1
            )
            RETURNING dispatches.broadcast_id INTO oldest;
            is_last := NOT FOUND;
            CONTINUE WHEN is_last;
        END IF;
        DELETE FROM chunks
        WHERE chunks.ctid = ANY (ARRAY(
            SELECT part.ctid FROM chunks AS part WHERE part.broadcast_id = oldest LIMIT budget
        ));
        GET DIAGNOSTICS gone = ROW_COUNT;
        IF gone < budget THEN
            DELETE FROM dispatches WHERE dispatches.broadcast_id = oldest;
            removed := removed + 1;
        END IF;
        budget := budget - gone - 1;
    END LOOP;
    RETURN NEXT;
END
$function$;

-- A dispatch and its chunks, counted by what they have in common, from one moment; none while it is being removed.
CREATE OR REPLACE FUNCTION count_dispatch(broadcast_id uuid)
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
    WHERE dispatches.broadcast_id = count_dispatch.broadcast_id AND dispatches.forgotten_at IS NULL;
END
$function$;

-- It asks for a value, because for EXISTS all dispatches might be read.
CREATE POLICY remove_what_is_forgotten ON chunks FOR DELETE TO dispatcher_worker
    USING ((
        SELECT dispatches.forgotten_at IS NOT NULL AND dispatches.close_time < now() - interval '7 days'
        FROM dispatches
        WHERE dispatches.broadcast_id = chunks.broadcast_id
    ));

GRANT UPDATE (forgotten_at), DELETE ON dispatches TO dispatcher_worker;
GRANT DELETE ON tombstones, dead_letters TO dispatcher_worker;
