-- What recipients do: receipts, and "all read". The workers write them, in groups: one position and one commit for all that
-- came while the commit before was under way. Workers see everybody, so these functions name the recipient they mean.

-- Voids the counts of these recipients that were made before a position.
CREATE FUNCTION note_changes(recipient_numbers integer[], at_position bigint) RETURNS void
LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO changes (recipient_number, position)
    SELECT DISTINCT changed.recipient_number, at_position
    FROM unnest(recipient_numbers) AS changed (recipient_number)
    ORDER BY changed.recipient_number
    ON CONFLICT (recipient_number) DO UPDATE SET position = excluded.position;
END;

-- Microseconds since 1970, as the log's texts have times.
CREATE FUNCTION to_microseconds(moment timestamptz) RETURNS bigint
LANGUAGE sql IMMUTABLE
RETURN (extract(epoch FROM moment) * 1000000)::bigint;

-- Where a broadcast lies in a recipient's inbox, if it lies there and is to be seen: as the view my_items, for the workers.
CREATE FUNCTION find_visible_item(wanted_recipient integer, wanted_broadcast uuid)
RETURNS TABLE (priority smallint, item_position bigint)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT broadcasts.priority, min(arrival.position)
    FROM broadcasts
    CROSS JOIN LATERAL (
        SELECT blocks.position
        FROM blocks
        WHERE blocks.broadcast_id = broadcasts.broadcast_id
            AND blocks.block = wanted_recipient >> 12
            AND get_bit(blocks.members, wanted_recipient & 4095) <> 0
        UNION ALL
        SELECT direct.position
        FROM direct
        WHERE direct.broadcast_id = broadcasts.broadcast_id AND direct.recipient_number = wanted_recipient
    ) AS arrival
    WHERE broadcasts.broadcast_id = wanted_broadcast
        AND broadcasts.expires_at > now()
        AND NOT broadcasts.hidden
        AND (
            broadcasts.wall @> ARRAY['00000000-0000-0000-0000-000000000000'::uuid]
            OR EXISTS (
                SELECT FROM team_members
                WHERE team_members.wedding_id = ANY (broadcasts.wall)
                    AND team_members.recipient_number = wanted_recipient
            )
        )
    GROUP BY broadcasts.broadcast_id;
END;

-- The times of items that lie at these positions: what was recorded, or what an "all read" implies. One row an element.
CREATE FUNCTION read_receipts(recipient_numbers integer[], broadcast_ids uuid[], positions bigint[])
RETURNS TABLE (
    place bigint, recipient_number integer, broadcast_id uuid,
    read_at timestamptz, acknowledged_at timestamptz, dismissed_at timestamptz, clicked_at timestamptz
)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT asked.place, asked.recipient_number, asked.broadcast_id,
        least(receipts.read_at, (
            SELECT watermarks.at
            FROM watermarks
            WHERE watermarks.recipient_number = asked.recipient_number AND watermarks.position > asked.position
            ORDER BY watermarks.position
            LIMIT 1
        )),
        receipts.acknowledged_at, receipts.dismissed_at, receipts.clicked_at
    FROM unnest(recipient_numbers, broadcast_ids, positions)
        WITH ORDINALITY AS asked (recipient_number, broadcast_id, position, place)
    LEFT JOIN LATERAL (
        SELECT receipts.read_at, receipts.acknowledged_at, receipts.dismissed_at, receipts.clicked_at
        FROM receipts
        WHERE receipts.recipient_number = asked.recipient_number AND receipts.broadcast_id = asked.broadcast_id
        LIMIT 1
    ) AS receipts ON true;
END;

-- Records what recipients did with items. Arrays of equal length are one element an item; `calls` says which belong to one
-- call, of which nothing is recorded when it dismisses a critical item that is not acknowledged. A recipient may be in one
-- call of a group only, and an item in it once. Answers each item:
--   recorded  with its times now, and whether this call was the first to acknowledge it
--   unknown   not in the recipient's inbox
--   refused   its call dismisses a critical item that is not acknowledged; `is_cause` says whether it is this one
-- and, the same for all, where in the log it is said; null when nothing changed.
CREATE FUNCTION record_receipts(
    calls integer[], recipient_numbers integer[], broadcast_ids uuid[], actions text[], urls text[]
) RETURNS TABLE (
    place bigint, outcome text, read_at timestamptz, acknowledged_at timestamptz, dismissed_at timestamptz,
    clicked_at timestamptz, is_critical boolean, is_cause boolean, newly_acknowledged boolean, log_position bigint
)
LANGUAGE plpgsql
SET enable_bitmapscan = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
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
        RETURNING receipts.recipient_number, receipts.broadcast_id, false AS newly_acknowledged
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
            old.acknowledged_at IS NULL AND new.acknowledged_at IS NOT NULL AS newly_acknowledged
    )
    SELECT array_agg(step.place ORDER BY step.place),
        array_agg(step.place) FILTER (WHERE written.newly_acknowledged)
    INTO changed, acknowledged
    FROM (
        SELECT restored.recipient_number, restored.broadcast_id, restored.newly_acknowledged FROM restored
        UNION ALL
        SELECT recorded.recipient_number, recorded.broadcast_id, recorded.newly_acknowledged FROM recorded
    ) AS written
    JOIN step USING (recipient_number, broadcast_id);

    IF changed IS NOT NULL THEN
        entry := append_log('receipts', describe_receipts(changed, recipient_numbers, broadcast_ids, positions));
        PERFORM note_changes(array(SELECT recipient_numbers[step.place] FROM unnest(changed) AS step (place)), entry);
    END IF;

    RETURN QUERY
    SELECT known.place,
        CASE WHEN positions[known.place] IS NULL THEN 'unknown'
            WHEN known.place = ANY (accepted) THEN 'recorded'
            ELSE 'refused' END,
        known.read_at, known.acknowledged_at, known.dismissed_at, known.clicked_at,
        priorities[known.place] IS NOT DISTINCT FROM 1, known.place = ANY (causes),
        coalesce(known.place = ANY (acknowledged), false), entry
    FROM read_receipts(recipient_numbers, broadcast_ids, positions) AS known
    ORDER BY known.place;
END;
$function$;

-- What the log says of receipts: [[recipient, broadcast, read, acknowledged, dismissed, clicked], …], times in microseconds.
CREATE FUNCTION describe_receipts(
    places integer[], recipient_numbers integer[], broadcast_ids uuid[], positions bigint[]
) RETURNS bytea
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT convert_to(json_agg(json_build_array(
        known.recipient_number, known.broadcast_id, to_microseconds(known.read_at),
        to_microseconds(known.acknowledged_at), to_microseconds(known.dismissed_at), to_microseconds(known.clicked_at)
    ) ORDER BY known.place)::text, 'UTF8')
    FROM read_receipts(recipient_numbers, broadcast_ids, positions) AS known
    WHERE known.place = ANY (places);
END;

-- Everything that has arrived counts as read from now on; answers since when everything does, and where in the log that is
-- said. Writes nothing when nothing has arrived since the last time. What is behind a wall now counts as well, should it
-- come back.
CREATE FUNCTION mark_all_read(wanted_recipient integer) RETURNS TABLE (read_at timestamptz, log_position bigint)
LANGUAGE plpgsql
SET enable_bitmapscan = off SET enable_seqscan = off
AS $function$
DECLARE
    moment timestamptz := clock_timestamp();
    last_mark record;
    entry bigint;
BEGIN
    SELECT watermarks.position, watermarks.at INTO last_mark
    FROM watermarks
    WHERE watermarks.recipient_number = wanted_recipient
    ORDER BY watermarks.position DESC
    LIMIT 1;
    IF NOT EXISTS (
        SELECT FROM blocks
        WHERE blocks.block = wanted_recipient >> 12
            AND blocks.position > coalesce(last_mark.position, 0)
            AND get_bit(blocks.members, wanted_recipient & 4095) <> 0
    ) AND NOT EXISTS (
        SELECT FROM direct
        WHERE direct.recipient_number = wanted_recipient AND direct.position > coalesce(last_mark.position, 0)
    ) THEN
        RETURN QUERY SELECT coalesce(last_mark.at, moment), NULL::bigint;
        RETURN;
    END IF;
    entry := append_log('all_read', convert_to(
        json_build_object('recipient', wanted_recipient, 'at', to_microseconds(moment))::text, 'UTF8'
    ));
    INSERT INTO watermarks (recipient_number, position, at) VALUES (wanted_recipient, entry, moment);
    PERFORM note_changes(ARRAY[wanted_recipient], entry);
    RETURN QUERY SELECT moment, entry;
END;
$function$;

-- From now on these are the wedding's team, unless a newer version is known; answers the version that holds. Arrivals stay
-- as they are, so whoever is put back sees the wedding's items again.
CREATE FUNCTION apply_team(wedding uuid, new_version bigint, members integer[]) RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off
AS $function$
DECLARE
    moved integer[];
BEGIN
    INSERT INTO teams AS known (wedding_id, version) VALUES (wedding, new_version)
    ON CONFLICT (wedding_id) DO UPDATE SET version = excluded.version WHERE known.version < excluded.version;
    IF NOT FOUND THEN
        RETURN (SELECT teams.version FROM teams WHERE teams.wedding_id = wedding);
    END IF;
    WITH removed AS (
        DELETE FROM team_members
        WHERE team_members.wedding_id = wedding AND team_members.recipient_number <> ALL (members)
        RETURNING team_members.recipient_number
    ),
    added AS (
        INSERT INTO team_members (wedding_id, recipient_number)
        SELECT wedding, member.number FROM unnest(members) AS member (number)
        ON CONFLICT (wedding_id, recipient_number) DO NOTHING
        RETURNING team_members.recipient_number
    )
    SELECT array_agg(change.recipient_number ORDER BY change.recipient_number)
    INTO moved
    FROM (
        SELECT removed.recipient_number FROM removed UNION ALL SELECT added.recipient_number FROM added
    ) AS change;
    IF moved IS NOT NULL THEN
        PERFORM note_changes(moved, append_log('team', convert_to(json_build_object(
            'wedding', wedding, 'version', new_version, 'members', to_json(members), 'moved', to_json(moved)
        )::text, 'UTF8')));
    END IF;
    RETURN new_version;
END;
$function$;
