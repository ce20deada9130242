-- Where an item is kept can change while receipts for it wait for their place in the log: it is snoozed, pinned, or comes back,
-- and that is said before them. What they had seen of it was said after that all the same, so a dismissed item stayed snoozed,
-- and other devices showed what had just been snoozed. Now they look again once they have their place, and say what stands.

-- Those of some of these items that somebody has ever arranged: nearly always none. For record_receipts, by whose settings its
-- plan is made.
CREATE FUNCTION find_arranged(places integer[], recipient_numbers integer[], broadcast_ids uuid[]) RETURNS integer[]
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT coalesce(array_agg(asked.place), '{}')
    FROM unnest(places) AS asked (place)
    CROSS JOIN LATERAL (
        SELECT arrangements.position
        FROM arrangements
        WHERE arrangements.recipient_number = recipient_numbers[asked.place]
            AND arrangements.broadcast_id = broadcast_ids[asked.place]
        LIMIT 1
    ) AS own;
END;

-- Records what recipients did with items. Arrays of equal length are one element an item; `calls` says which belong to one
-- call, of which nothing is recorded when it dismisses a critical item that is not acknowledged. A recipient may be in one
-- call of a group only, and an item in it once. Answers each item:
--   recorded  with its times now, and whether this call was the first to acknowledge it
--   unknown   not in the recipient's inbox
--   refused   its call dismisses a critical item that is not acknowledged; `is_cause` says whether it is this one
-- and, the same for all, where in the log it is said; null when nothing changed. Whoever dismisses an item ends its snooze.
CREATE OR REPLACE FUNCTION record_receipts(
    calls integer[], recipient_numbers integer[], broadcast_ids uuid[], actions text[], urls text[]
) RETURNS TABLE (
    place bigint, outcome text, read_at timestamptz, acknowledged_at timestamptz, dismissed_at timestamptz,
    clicked_at timestamptz, snoozed_until timestamptz, pinned_at timestamptz, is_critical boolean, is_cause boolean,
    newly_acknowledged boolean, log_position bigint
)
LANGUAGE plpgsql
SET enable_bitmapscan = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
AS $function$
#variable_conflict use_column
DECLARE
    moment timestamptz := clock_timestamp();
    positions bigint[];
    priorities smallint[];
    causes integer[];
    accepted integer[];
    changed integer[];
    acknowledged integer[];
    newly_read boolean[];
    dismissed integer[];
    head bigint := (SELECT log_head.position FROM log_head);
    is_certain boolean;
    snoozing integer[] := '{}';
    arranged integer[];
    entry bigint;
BEGIN
    SELECT array_agg(item.item_position ORDER BY asked.place), array_agg(item.priority ORDER BY asked.place)
    INTO positions, priorities
    FROM unnest(recipient_numbers, broadcast_ids) WITH ORDINALITY AS asked (recipient_number, broadcast_id, place)
    LEFT JOIN LATERAL find_visible_item(asked.recipient_number, asked.broadcast_id) AS item ON true;

    causes := array(
        SELECT known.place
        FROM read_receipts(recipient_numbers, broadcast_ids, positions) AS known
        WHERE actions[known.place] = 'dismissed' AND priorities[known.place] = 1 AND known.acknowledged_at IS NULL
    );
    accepted := array(
        SELECT asked.place
        FROM generate_subscripts(calls, 1) AS asked (place)
        WHERE positions[asked.place] IS NOT NULL
            AND calls[asked.place] <> ALL (array(SELECT calls[cause.place] FROM unnest(causes) AS cause (place)))
    );

    WITH step AS (
        SELECT asked.place, recipient_numbers[asked.place] AS recipient_number,
            broadcast_ids[asked.place] AS broadcast_id, actions[asked.place] AS action, urls[asked.place] AS url
        FROM unnest(accepted) AS asked (place)
    ),
    restored AS (
        UPDATE receipts SET dismissed_at = NULL
        FROM step
        WHERE step.action = 'restored'
            AND receipts.recipient_number = step.recipient_number
            AND receipts.broadcast_id = step.broadcast_id
            AND receipts.dismissed_at IS NOT NULL
        RETURNING receipts.recipient_number, receipts.broadcast_id, false AS newly_acknowledged, false AS newly_read,
            -1 AS dismissed
    ),
    recorded AS (
        INSERT INTO receipts AS known (
            recipient_number, broadcast_id, read_at, acknowledged_at, dismissed_at, clicked_at, clicked_url
        )
        SELECT step.recipient_number, step.broadcast_id, moment,
            CASE step.action WHEN 'acknowledged' THEN moment END,
            CASE step.action WHEN 'dismissed' THEN moment END,
            CASE step.action WHEN 'clicked' THEN moment END,
            CASE step.action WHEN 'clicked' THEN step.url END
        FROM step
        WHERE step.action <> 'restored'
        ORDER BY step.recipient_number, step.broadcast_id
        ON CONFLICT (recipient_number, broadcast_id) DO UPDATE
        SET acknowledged_at = coalesce(known.acknowledged_at, excluded.acknowledged_at),
            dismissed_at = coalesce(known.dismissed_at, excluded.dismissed_at),
            clicked_at = coalesce(known.clicked_at, excluded.clicked_at),
            clicked_url = coalesce(known.clicked_url, excluded.clicked_url)
        -- What changes nothing writes nothing.
        WHERE (known.acknowledged_at IS NULL AND excluded.acknowledged_at IS NOT NULL)
            OR (known.dismissed_at IS NULL AND excluded.dismissed_at IS NOT NULL)
            OR (known.clicked_at IS NULL AND excluded.clicked_at IS NOT NULL)
        RETURNING new.recipient_number, new.broadcast_id,
            old.acknowledged_at IS NULL AND new.acknowledged_at IS NOT NULL AS newly_acknowledged,
            old.read_at IS NULL AS newly_read,
            (old.dismissed_at IS NULL AND new.dismissed_at IS NOT NULL)::integer AS dismissed
    )
    SELECT array_agg(step.place ORDER BY step.place),
        array_agg(step.place) FILTER (WHERE written.newly_acknowledged),
        array_agg(written.newly_read ORDER BY step.place), array_agg(written.dismissed ORDER BY step.place)
    INTO changed, acknowledged, newly_read, dismissed
    FROM (
        SELECT restored.recipient_number, restored.broadcast_id, restored.newly_acknowledged, restored.newly_read,
            restored.dismissed
        FROM restored
        UNION ALL
        SELECT recorded.recipient_number, recorded.broadcast_id, recorded.newly_acknowledged, recorded.newly_read,
            recorded.dismissed
        FROM recorded
    ) AS written
    JOIN step USING (recipient_number, broadcast_id);

    IF changed IS NOT NULL THEN
        IF 'dismissed' = ANY (actions) THEN
            snoozing := find_snoozing(changed, recipient_numbers, broadcast_ids);
        END IF;
        IF snoozing <> '{}' THEN
            PERFORM take_positions(0);
            UPDATE arrangements SET snoozed_until = NULL
            FROM unnest(changed) AS step (place)
            WHERE actions[step.place] = 'dismissed'
                AND arrangements.recipient_number = recipient_numbers[step.place]
                AND arrangements.broadcast_id = broadcast_ids[step.place];
        END IF;
        entry := append_log('receipts', describe_receipts(changed, recipient_numbers, broadcast_ids, positions));
        -- Until this commits, nothing else happens to any inbox. What has happened since these items were looked at may have
        -- taken one of them out of it, and so may its expiry before the commit: then nobody's counts are worth adjusting.
        is_certain := NOT EXISTS (SELECT FROM retractions WHERE retractions.position > head)
            AND NOT EXISTS (
                SELECT FROM broadcasts
                WHERE broadcasts.broadcast_id = ANY (broadcast_ids)
                    AND broadcasts.expires_at < clock_timestamp() + interval '1 minute'
            );
        arranged := find_arranged(changed, recipient_numbers, broadcast_ids);
        IF arranged <> '{}' THEN
            -- What is snoozed is in no count, so what is done with it changes none by one.
            snoozing := snoozing || find_snoozing(arranged, recipient_numbers, broadcast_ids);
            IF entry > head + 1 THEN
                -- Something was said since these were looked at, and may have been where they are kept.
                UPDATE arrangements SET snoozed_until = NULL
                FROM unnest(arranged) AS step (place)
                WHERE actions[step.place] = 'dismissed'
                    AND arrangements.recipient_number = recipient_numbers[step.place]
                    AND arrangements.broadcast_id = broadcast_ids[step.place]
                    AND arrangements.snoozed_until IS NOT NULL;
                entry := append_log(
                    'receipts', describe_receipts(arranged, recipient_numbers, broadcast_ids, positions)
                );
            END IF;
        END IF;
        INSERT INTO changes AS known (recipient_number, position, reads, dismissals)
        -- Before the first position there was nothing to count.
        SELECT recipient_numbers[step.place],
            CASE WHEN is_certain AND recipient_numbers[step.place] <> ALL (snoozing) THEN 1 ELSE entry END,
            count(*) FILTER (WHERE step.newly_read AND positions[step.place] > coalesce((
                SELECT max(watermarks.position)
                FROM watermarks
                WHERE watermarks.recipient_number = recipient_numbers[step.place]
            ), 0)),
            sum(step.dismissed)
        FROM unnest(changed, newly_read, dismissed) AS step (place, newly_read, dismissed)
        GROUP BY recipient_numbers[step.place]
        ORDER BY recipient_numbers[step.place]
        ON CONFLICT (recipient_number) DO UPDATE
        SET position = CASE WHEN excluded.position < entry AND known.position <= head THEN known.position ELSE entry END,
            reads = known.reads + excluded.reads,
            dismissals = known.dismissals + excluded.dismissals;
    END IF;

    RETURN QUERY
    SELECT known.place,
        CASE WHEN positions[known.place] IS NULL THEN 'unknown'
            WHEN known.place = ANY (accepted) THEN 'recorded'
            ELSE 'refused' END,
        known.read_at, known.acknowledged_at, known.dismissed_at, known.clicked_at, known.snoozed_until, known.pinned_at,
        priorities[known.place] IS NOT DISTINCT FROM 1, known.place = ANY (causes),
        coalesce(known.place = ANY (acknowledged), false), entry
    FROM read_receipts(recipient_numbers, broadcast_ids, positions) AS known
    ORDER BY known.place;
END;
$function$;
