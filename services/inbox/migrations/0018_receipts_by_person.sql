-- Who did what with a broadcast, by person: for those who sent it and wait for an answer.

-- What these people did with a broadcast, in the order of their numbers, at most `most` of them: when it had arrived, when they
-- first read it (by a receipt, or by the first "all read" after it), and when they acknowledged it, null for never. As
-- `unacknowledged_only` has it, not those who have.
CREATE FUNCTION list_receipts(wanted uuid, numbers integer[], unacknowledged_only boolean, most integer) RETURNS TABLE (
    number integer, arrived_at timestamptz, read_at timestamptz, acknowledged_at timestamptz
)
LANGUAGE sql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
BEGIN ATOMIC
    WITH page AS MATERIALIZED (
        SELECT asked.number, receipt.read_at, receipt.acknowledged_at
        FROM unnest(numbers) AS asked (number)
        LEFT JOIN LATERAL (
            SELECT receipts.read_at, receipts.acknowledged_at
            FROM receipts
            WHERE receipts.recipient_number = asked.number AND receipts.broadcast_id = wanted
            LIMIT 1
        ) AS receipt ON true
        WHERE NOT (unacknowledged_only AND receipt.acknowledged_at IS NOT NULL)
        ORDER BY asked.number
        LIMIT most
    )
    SELECT page.number, arrival.arrived_at,
        least(page.read_at, (
            SELECT watermarks.at
            FROM watermarks
            WHERE watermarks.recipient_number = page.number AND watermarks.position > arrival.position
            ORDER BY watermarks.position
            LIMIT 1
        )),
        page.acknowledged_at
    FROM page
    LEFT JOIN LATERAL (
        SELECT blocks.position, blocks.arrived_at
        FROM blocks
        WHERE blocks.broadcast_id = wanted
            AND blocks.block = page.number >> 12
            AND get_bit(blocks.members, page.number & 4095) <> 0
        UNION ALL
        SELECT direct.position, direct.arrived_at
        FROM direct
        WHERE direct.broadcast_id = wanted AND direct.recipient_number = page.number
        LIMIT 1
    ) AS arrival ON true
    ORDER BY page.number;
END;
