-- How a recipient's own inbox is read: identity and query in one call, because a transaction with a call of its own for the
-- identity takes three times as long. These functions run as their caller, so the personal policies hold in them; what their
-- queries say beside those is for the planner. They are STABLE, so that all that one call answers is from one moment, and
-- they walk the indexes in order, whatever the statistics say: plans that read everything first would win now and then.

-- The current recipient's arrivals, whatever became of them, newest first in each part.
CREATE VIEW my_arrivals WITH (security_invoker = true) AS
(
    SELECT blocks.position, blocks.broadcast_id, blocks.silent, blocks.arrived_at
    FROM blocks
    ORDER BY blocks.position DESC
)
UNION ALL
(
    SELECT direct.position, direct.broadcast_id, direct.silent, direct.arrived_at
    FROM direct
    ORDER BY direct.position DESC
);

-- The current recipient's items: what has arrived, is not retracted or expired, and not behind a wall (a policy of
-- broadcasts). Whoever is put back on a team sees its items again, because arrivals stay.
CREATE VIEW my_items WITH (security_invoker = true) AS
SELECT
    arrival.position,
    arrival.silent,
    arrival.arrived_at,
    arrival.broadcast_id,
    broadcast.type,
    broadcast.category,
    broadcast.priority,
    broadcast.title,
    broadcast.message,
    broadcast.action_label,
    broadcast.action_url,
    broadcast.wedding_id,
    broadcast.couple_name,
    broadcast.wedding_date,
    broadcast.wall,
    broadcast.words,
    nullif(broadcast.expires_at, 'infinity') AS expires_at,
    receipt.acknowledged_at,
    receipt.dismissed_at,
    receipt.clicked_at,
    receipt.read_at IS NOT NULL
        OR arrival.position < coalesce((SELECT max(watermarks.position) FROM watermarks), 0) AS is_read,
    least(receipt.read_at, (
        SELECT watermarks.at
        FROM watermarks
        WHERE watermarks.position > arrival.position
        ORDER BY watermarks.position
        LIMIT 1
    )) AS read_at
FROM my_arrivals AS arrival
CROSS JOIN LATERAL (
    SELECT
        broadcasts.type, broadcasts.category, broadcasts.priority, broadcasts.title, broadcasts.message,
        broadcasts.action_label, broadcasts.action_url, broadcasts.wedding_id, broadcasts.couple_name,
        broadcasts.wedding_date, broadcasts.wall, broadcasts.words, broadcasts.expires_at
    FROM broadcasts
    WHERE broadcasts.broadcast_id = arrival.broadcast_id AND broadcasts.expires_at > now() AND NOT broadcasts.hidden
    LIMIT 1
) AS broadcast
LEFT JOIN LATERAL (
    SELECT receipts.read_at, receipts.acknowledged_at, receipts.dismissed_at, receipts.clicked_at
    FROM receipts
    WHERE receipts.broadcast_id = arrival.broadcast_id
    LIMIT 1
) AS receipt ON true;

GRANT SELECT ON my_arrivals, my_items TO inbox_api;

-- Makes everything after it in the transaction the recipient's.
CREATE FUNCTION become_recipient(recipient_number integer) RETURNS void
LANGUAGE sql
BEGIN ATOMIC
    SELECT set_config('app.recipient', recipient_number::text, true);
END;

-- What the current recipient has not read, as of the end of the log. With a count made at an earlier position that still
-- holds, only what came since is counted. `valid_until` is when the first of the counted expires, null for never.
CREATE FUNCTION count_my_unread(known_position bigint, known_count integer, known_until timestamptz)
RETURNS TABLE (unread_count integer, log_position bigint, valid_until timestamptz)
LANGUAGE plpgsql STABLE
SET enable_bitmapscan = off SET enable_seqscan = off
AS $function$
DECLARE
    head bigint := (SELECT log_head.position FROM log_head);
    since bigint := known_position;
    base integer := known_count;
    good_until timestamptz := coalesce(known_until, 'infinity');
BEGIN
    IF (
        known_position <= head AND good_until > now()
        AND NOT EXISTS (
            SELECT FROM changes WHERE changes.position > known_position
        )
        AND NOT EXISTS (SELECT FROM retractions WHERE retractions.position > known_position)
    ) IS NOT TRUE THEN
        base := 0;
        good_until := 'infinity';
        since := coalesce(
            (SELECT max(watermarks.position) FROM watermarks), 0
        );
    END IF;
    RETURN QUERY
    SELECT base + count(*)::integer, head, nullif(least(good_until, min(broadcast.expires_at)), 'infinity')
    FROM my_arrivals AS arrival
    CROSS JOIN LATERAL (
        SELECT broadcasts.expires_at
        FROM broadcasts
        WHERE broadcasts.broadcast_id = arrival.broadcast_id AND broadcasts.expires_at > now() AND NOT broadcasts.hidden
        LIMIT 1
    ) AS broadcast
    WHERE arrival.position > since
        AND (SELECT receipts.read_at FROM receipts WHERE receipts.broadcast_id = arrival.broadcast_id) IS NULL;
END;
$function$;

-- The badge of a recipient.
CREATE FUNCTION count_unread(
    recipient_number integer, known_position bigint, known_count integer, known_until timestamptz
) RETURNS TABLE (unread_count integer, log_position bigint, valid_until timestamptz)
LANGUAGE plpgsql STABLE
AS $function$
BEGIN
    PERFORM become_recipient(recipient_number);
    RETURN QUERY SELECT badge.unread_count, badge.log_position, badge.valid_until
    FROM count_my_unread(known_position, known_count, known_until) AS badge;
END;
$function$;

-- A page of the recipient's items, newest arrival first, below a position; with it the badge and how many the filter has in
-- all. There is a row even when there is no item. Null filters filter nothing.
CREATE FUNCTION list_items(
    recipient_number integer,
    unread_only boolean, priorities smallint[], exact_type text, type_prefix text, search tsquery, wedding uuid,
    include_dismissed boolean, below bigint, page_size integer,
    known_position bigint, known_count integer, known_until timestamptz
) RETURNS TABLE (
    unread_count integer, log_position bigint, valid_until timestamptz, total_count bigint, item my_items
)
LANGUAGE plpgsql STABLE
SET enable_bitmapscan = off SET enable_seqscan = off
AS $function$
DECLARE
    ceiling bigint := coalesce(below, 9223372036854775807);
BEGIN
    PERFORM become_recipient(recipient_number);
    RETURN QUERY
    WITH matching AS NOT MATERIALIZED (
        SELECT my_items
        FROM my_items
        WHERE (include_dismissed OR my_items.dismissed_at IS NULL)
            AND NOT (unread_only AND my_items.is_read)
            AND (priorities IS NULL OR my_items.priority = ANY (priorities))
            AND (exact_type IS NULL OR my_items.type = exact_type)
            AND (type_prefix IS NULL OR starts_with(my_items.type, type_prefix))
            AND (wedding IS NULL OR my_items.wall @> ARRAY[wedding])
            AND (search IS NULL OR my_items.words @@ search)
    ),
    page AS MATERIALIZED (
        SELECT matching.my_items AS item
        FROM matching
        WHERE (matching.my_items).position < ceiling
        ORDER BY (matching.my_items).position DESC
        LIMIT page_size
    )
    SELECT badge.unread_count, badge.log_position, badge.valid_until,
        -- A first page that is not full is all there is.
        CASE WHEN below IS NULL AND (SELECT count(*) FROM page) < page_size THEN (SELECT count(*) FROM page)
            ELSE (SELECT count(*) FROM matching) END,
        page.item
    FROM count_my_unread(known_position, known_count, known_until) AS badge
    LEFT JOIN page ON true
    ORDER BY (page.item).position DESC;
END;
$function$;

-- One of the recipient's items, or none.
CREATE FUNCTION get_item(recipient_number integer, wanted uuid) RETURNS SETOF my_items
LANGUAGE plpgsql STABLE
SET enable_bitmapscan = off SET enable_seqscan = off
AS $function$
BEGIN
    PERFORM become_recipient(recipient_number);
    -- A broadcast can lie in an inbox once only; should it ever lie there twice, the first arrival is the item.
    RETURN QUERY SELECT my_items.* FROM my_items WHERE my_items.broadcast_id = wanted ORDER BY my_items.position LIMIT 1;
END;
$function$;
