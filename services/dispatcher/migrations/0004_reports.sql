-- Reports that end nothing do not wait for the disk: a crash of Postgres that forgets one leaves its chunk leased, which is
-- sent again when the lease ends, found merged, and reported again. What closes a dispatch is told to others, and waits.

-- As before: applies the inbox's word on chunks. Locks the dispatches in the order of their ids, so that two who do this
-- never wait for each other in a circle, and the second to finish a dispatch sees that it is the last. For each report
-- answers its place in the arrays, and whether it was 'applied', 'ignored' (known already, or not sent by this row), about
-- an 'unknown' chunk, or of another 'size' than was sent.
CREATE OR REPLACE FUNCTION apply_reports(broadcast_ids uuid[], numbers integer[], sizes bigint[], outcomes text[])
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

    IF NOT EXISTS (
        SELECT
        FROM dispatches
        WHERE dispatches.broadcast_id = ANY (apply_reports.broadcast_ids)
            AND dispatches.close_time IS NULL
            AND NOT EXISTS (
                SELECT
                FROM chunks
                WHERE chunks.broadcast_id = dispatches.broadcast_id AND chunks.state IN ('pending', 'leased')
            )
    ) THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
END
$function$;
