-- Who has read what: receipts, and every "all read" after an arrival. For the ledger and for holds that may end unneeded.

-- Those who have read a broadcast, each once; with `block_numbers`, those in these blocks.
CREATE FUNCTION find_readers(wanted uuid, block_numbers integer[]) RETURNS SETOF integer
LANGUAGE sql STABLE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
BEGIN ATOMIC
    SELECT receipts.recipient_number
    FROM receipts
    WHERE receipts.broadcast_id = wanted
        AND (block_numbers IS NULL OR receipts.recipient_number >> 12 = ANY (block_numbers))
    UNION
    SELECT watermarks.recipient_number
    FROM blocks
    JOIN watermarks
        ON watermarks.recipient_number BETWEEN blocks.block << 12 AND (blocks.block << 12) + 4095
        AND watermarks.position > blocks.position
        AND get_bit(blocks.members, watermarks.recipient_number & 4095) <> 0
    WHERE blocks.broadcast_id = wanted AND (block_numbers IS NULL OR blocks.block = ANY (block_numbers))
    UNION
    SELECT direct.recipient_number
    FROM direct
    JOIN watermarks
        ON watermarks.recipient_number = direct.recipient_number AND watermarks.position > direct.position
    WHERE direct.broadcast_id = wanted
        AND (block_numbers IS NULL OR direct.recipient_number >> 12 = ANY (block_numbers));
END;

-- How many people did what with each of these broadcasts; zeros for one that is not known.
CREATE FUNCTION count_engagement(broadcast_ids uuid[]) RETURNS TABLE (
    place bigint, delivered bigint, read bigint, acknowledged bigint, dismissed bigint, clicked bigint
)
LANGUAGE sql STABLE
SET enable_seqscan = off
BEGIN ATOMIC
    SELECT asked.place,
        (SELECT coalesce(sum(arrivals.recipients), 0) FROM arrivals WHERE arrivals.broadcast_id = asked.broadcast_id),
        (SELECT count(*) FROM find_readers(asked.broadcast_id, NULL)),
        receipt.acknowledged, receipt.dismissed, receipt.clicked
    FROM unnest(broadcast_ids) WITH ORDINALITY AS asked (broadcast_id, place)
    CROSS JOIN LATERAL (
        SELECT count(receipts.acknowledged_at) AS acknowledged, count(receipts.dismissed_at) AS dismissed,
            count(receipts.clicked_at) AS clicked
        FROM receipts
        WHERE receipts.broadcast_id = asked.broadcast_id
    ) AS receipt
    ORDER BY asked.place;
END;
