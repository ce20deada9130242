-- What people had done with broadcasts by a moment that is past: for the analytics of a day, which are counted after it
-- and must come out the same whenever that is. Everything that is counted has its time, and none is ever taken back.

-- Those who have read a broadcast, each once: when it had arrived, when they first read it (by a receipt, or by the first
-- "all read" after it), and when they acknowledged it and followed its action, null for never. Nobody reads before it has
-- arrived, or acknowledges before they have read, though each time was taken before its transaction came through.
CREATE FUNCTION find_readings(wanted uuid) RETURNS TABLE (
    recipient_number integer, arrived_at timestamptz, read_at timestamptz, acknowledged_at timestamptz,
    clicked_at timestamptz
)
LANGUAGE sql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET work_mem = '64MB'
BEGIN ATOMIC
    WITH part AS MATERIALIZED (
        SELECT blocks.block, blocks.position, blocks.arrived_at, blocks.members
        FROM blocks
        WHERE blocks.broadcast_id = wanted
    ),
    single AS MATERIALIZED (
        SELECT direct.recipient_number, direct.position, direct.arrived_at
        FROM direct
        WHERE direct.broadcast_id = wanted
    ),
    receipt AS MATERIALIZED (
        SELECT receipts.recipient_number, receipts.recipient_number >> 12 AS block,
            least(receipts.read_at, receipts.acknowledged_at, receipts.clicked_at) AS read_at,
            receipts.acknowledged_at, receipts.clicked_at
        FROM receipts
        WHERE receipts.broadcast_id = wanted
    ),
    deed AS (
        SELECT receipt.recipient_number, part.arrived_at, receipt.read_at, receipt.acknowledged_at, receipt.clicked_at
        FROM receipt
        JOIN part ON part.block = receipt.block
        WHERE get_bit(part.members, receipt.recipient_number & 4095) <> 0
        UNION ALL
        SELECT receipt.recipient_number, single.arrived_at, receipt.read_at, receipt.acknowledged_at, receipt.clicked_at
        FROM receipt
        JOIN single ON single.recipient_number = receipt.recipient_number
        UNION ALL
        -- The first mark of each after the arrival: a walk along the index for each block or person, because what everybody
        -- has ever marked is much more than what one broadcast has to do with.
        SELECT mark.recipient_number, part.arrived_at, mark.at, NULL, NULL
        FROM part
        CROSS JOIN LATERAL (
            SELECT DISTINCT ON (watermarks.recipient_number) watermarks.recipient_number, watermarks.at
            FROM watermarks
            WHERE watermarks.recipient_number BETWEEN part.block << 12 AND (part.block << 12) + 4095
                AND watermarks.position > part.position
            ORDER BY watermarks.recipient_number, watermarks.position
        ) AS mark
        WHERE get_bit(part.members, mark.recipient_number & 4095) <> 0
        UNION ALL
        SELECT single.recipient_number, single.arrived_at, mark.at, NULL, NULL
        FROM single
        CROSS JOIN LATERAL (
            SELECT watermarks.at
            FROM watermarks
            WHERE watermarks.recipient_number = single.recipient_number AND watermarks.position > single.position
            ORDER BY watermarks.position
            LIMIT 1
        ) AS mark
    ),
    person AS (
        SELECT deed.recipient_number, min(deed.arrived_at) AS arrived_at, min(deed.read_at) AS read_at,
            min(deed.acknowledged_at) AS acknowledged_at, min(deed.clicked_at) AS clicked_at
        FROM deed
        GROUP BY deed.recipient_number
    )
    SELECT person.recipient_number, person.arrived_at, greatest(person.arrived_at, person.read_at),
        CASE WHEN person.acknowledged_at IS NOT NULL THEN greatest(person.arrived_at, person.acknowledged_at) END,
        CASE WHEN person.clicked_at IS NOT NULL THEN greatest(person.arrived_at, person.clicked_at) END
    FROM person;
END;

-- How many people had done what with each of these broadcasts before a moment, and how long all who had read it had taken
-- for that together, in microseconds; zeros for one that is not known. `dismissed` are those who had dismissed it by then
-- and have it dismissed now: who restored it since cannot be told from who never dismissed it. Since `cleaned_at` all this
-- says nothing, also of what is critical: its receipts stay, but not when its items had arrived.
CREATE FUNCTION count_engagement_until(broadcast_ids uuid[], until timestamptz) RETURNS TABLE (
    place bigint, delivered bigint, read bigint, acknowledged bigint, dismissed bigint, clicked bigint,
    time_to_read_us bigint, cleaned_at timestamptz
)
LANGUAGE sql STABLE
SET enable_seqscan = off
BEGIN ATOMIC
    SELECT asked.place,
        (
            SELECT coalesce(sum(arrivals.recipients), 0)
            FROM arrivals
            WHERE arrivals.broadcast_id = asked.broadcast_id AND arrivals.arrived_at < until
        ),
        person.read, person.acknowledged,
        (
            SELECT count(*)
            FROM receipts
            WHERE receipts.broadcast_id = asked.broadcast_id AND receipts.dismissed_at < until
        ),
        person.clicked, person.time_to_read_us,
        coalesce(
            (SELECT broadcasts.left_at FROM broadcasts WHERE broadcasts.broadcast_id = asked.broadcast_id),
            cleaned_since(asked.broadcast_id)
        )
    FROM unnest(broadcast_ids) WITH ORDINALITY AS asked (broadcast_id, place)
    CROSS JOIN LATERAL (
        SELECT count(*) AS read,
            count(*) FILTER (WHERE reading.acknowledged_at < until) AS acknowledged,
            count(*) FILTER (WHERE reading.clicked_at < until) AS clicked,
            coalesce(extract(epoch FROM sum(reading.read_at - reading.arrived_at)) * 1000000, 0)::bigint
                AS time_to_read_us
        FROM find_readings(asked.broadcast_id) AS reading
        WHERE reading.read_at < until
    ) AS person
    ORDER BY asked.place;
END;
