-- Whoever filters by a wedding on whose team they are not gets nothing, as for one that does not exist. Until now they got what
-- is about several weddings, and learnt by it that one of their broadcasts was also about that wedding.

-- A page of the recipient's items, newest arrival first, below a position: arrays of equal length, null for none. With it
-- what is counted, and how many the filter has in all. Null filters filter nothing; nothing of theirs is about a wedding on
-- whose team the recipient is not.
CREATE OR REPLACE FUNCTION list_items(
    recipient_number integer,
    unread_only boolean, priorities smallint[], exact_type text, type_prefix text, search tsquery, wedding uuid,
    include_dismissed boolean, below bigint, page_size integer,
    known_position bigint, known_unread integer, known_total integer, known_until timestamptz,
    known_reads bigint, known_dismissals bigint
) RETURNS TABLE (
    unread_count integer, all_count integer, log_position bigint, valid_until timestamptz, reads bigint, dismissals bigint,
    total_count bigint, positions bigint[], broadcast_ids uuid[], arrived_at timestamptz[], silent boolean[],
    read_at timestamptz[], acknowledged_at timestamptz[], dismissed_at timestamptz[], clicked_at timestamptz[]
)
LANGUAGE plpgsql STABLE
SET enable_bitmapscan = off SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
AS $function$
#variable_conflict use_column
DECLARE
    ceiling bigint := coalesce(below, 9223372036854775807);
    counted record;
    is_filtered boolean := include_dismissed OR priorities IS NOT NULL OR exact_type IS NOT NULL
        OR type_prefix IS NOT NULL OR search IS NOT NULL OR wedding IS NOT NULL;
BEGIN
    PERFORM become_recipient(recipient_number);
    SELECT own.* INTO counted
    FROM count_my_items(
        known_position, known_unread, known_total, known_until, known_reads, known_dismissals
    ) AS own;
    RETURN QUERY
    WITH matching AS NOT MATERIALIZED (
        SELECT my_items.position, my_items.broadcast_id, my_items.arrived_at, my_items.silent, my_items.read_at,
            my_items.acknowledged_at, my_items.dismissed_at, my_items.clicked_at
        FROM my_items
        WHERE (include_dismissed OR my_items.dismissed_at IS NULL)
            AND NOT (unread_only AND my_items.is_read)
            AND (priorities IS NULL OR my_items.priority = ANY (priorities))
            AND (exact_type IS NULL OR my_items.type = exact_type)
            AND (type_prefix IS NULL OR starts_with(my_items.type, type_prefix))
            AND (
                wedding IS NULL
                OR (
                    my_items.wall @> ARRAY[wedding]
                    AND EXISTS (SELECT FROM team_members WHERE team_members.wedding_id = wedding)
                )
            )
            AND (search IS NULL OR my_items.words @@ search)
    ),
    page AS MATERIALIZED (
        SELECT matching.position, matching.broadcast_id, matching.arrived_at, matching.silent, matching.read_at,
            matching.acknowledged_at, matching.dismissed_at, matching.clicked_at
        FROM matching
        WHERE matching.position < ceiling
        ORDER BY matching.position DESC
        LIMIT page_size
    )
    SELECT counted.unread_count, counted.all_count, counted.log_position, counted.valid_until, counted.reads,
        counted.dismissals,
        CASE
            WHEN NOT is_filtered AND unread_only THEN counted.unread_count
            WHEN NOT is_filtered THEN counted.all_count
            -- A first page that is not full is all there is.
            WHEN below IS NULL AND (SELECT count(*) FROM page) < page_size THEN (SELECT count(*) FROM page)
            ELSE (SELECT count(*) FROM matching)
        END,
        array_agg(page.position ORDER BY page.position DESC), array_agg(page.broadcast_id ORDER BY page.position DESC),
        array_agg(page.arrived_at ORDER BY page.position DESC), array_agg(page.silent ORDER BY page.position DESC),
        array_agg(page.read_at ORDER BY page.position DESC), array_agg(page.acknowledged_at ORDER BY page.position DESC),
        array_agg(page.dismissed_at ORDER BY page.position DESC), array_agg(page.clicked_at ORDER BY page.position DESC)
    FROM page;
END;
$function$;
