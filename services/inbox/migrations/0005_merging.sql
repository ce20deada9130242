-- The two ways in and out of everybody's inboxes: chunks of an audience merge, and a cancelled broadcast is retracted. Both
-- lock the head of the log first, so that they come one after the other: a chunk finds either its tombstone or its place.

-- Keeps broadcasts' contents, given as an array of objects; what is known already stays as it is.
CREATE FUNCTION keep_contents(contents jsonb) RETURNS void
LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO broadcasts (
        broadcast_id, type, category, priority, title, message, action_label, action_url, wedding_id, couple_name,
        wedding_date, wall, expires_at, words
    )
    SELECT given.broadcast_id, given.type, given.category, given.priority, given.title, given.message,
        given.action_label, given.action_url, given.wedding_id, given.couple_name, given.wedding_date, given.wall,
        coalesce(given.expires_at, 'infinity'), array_to_tsvector(given.words)
    FROM jsonb_to_recordset(contents) AS given (
        broadcast_id uuid, type text, category smallint, priority smallint, title text, message text,
        action_label text, action_url text, wedding_id uuid, couple_name text, wedding_date date, wall uuid[],
        expires_at timestamptz, words text[]
    )
    ORDER BY given.broadcast_id
    ON CONFLICT (broadcast_id) DO NOTHING;
END;

-- Which of these chunks, by place, hold somebody who has their broadcast already: what a chunk does that was cut anew after
-- it had been merged.
CREATE FUNCTION find_overlapping(
    places integer[], broadcast_ids uuid[],
    block_places integer[], block_numbers integer[], block_members bit[],
    direct_places integer[], direct_numbers integer[]
) RETURNS integer[]
LANGUAGE sql STABLE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
BEGIN ATOMIC
    WITH
    new_blocks AS (
        SELECT part.place, broadcast_ids[part.place] AS broadcast_id, part.block, part.members
        FROM unnest(block_places, block_numbers, block_members) AS part (place, block, members)
        WHERE part.place = ANY (places)
    ),
    new_direct AS (
        SELECT part.place, broadcast_ids[part.place] AS broadcast_id, part.number
        FROM unnest(direct_places, direct_numbers) AS part (place, number)
        WHERE part.place = ANY (places)
    ),
    found AS (
        SELECT new_blocks.place
        FROM new_blocks JOIN blocks USING (broadcast_id, block)
        WHERE bit_count(blocks.members & new_blocks.members) > 0
        UNION
        SELECT new_blocks.place
        FROM new_blocks
        JOIN direct ON direct.broadcast_id = new_blocks.broadcast_id
            AND direct.recipient_number BETWEEN new_blocks.block << 12 AND (new_blocks.block << 12) + 4095
        WHERE get_bit(new_blocks.members, direct.recipient_number & 4095) <> 0
        UNION
        SELECT new_direct.place
        FROM new_direct
        JOIN blocks ON blocks.broadcast_id = new_direct.broadcast_id AND blocks.block = new_direct.number >> 12
        WHERE get_bit(blocks.members, new_direct.number & 4095) <> 0
        UNION
        SELECT new_direct.place
        FROM new_direct
        JOIN direct ON direct.broadcast_id = new_direct.broadcast_id AND direct.recipient_number = new_direct.number
    )
    SELECT coalesce(array_agg(found.place), '{}') FROM found;
END;

-- Merges chunks in one transaction, each at a position of its own, with the contents of broadcasts that may not be known yet.
-- Arrays of equal length are one element a chunk; those of blocks and direct recipients name theirs by its place in them,
-- from 1. Answers each chunk's outcome by place:
--   merged       it is in, by this call or an earlier one, at this position
--   stopped      the broadcast is retracted; nothing was done
--   overlapping  some of these recipients have the broadcast already, by another chunk; nothing was done
CREATE FUNCTION merge_chunks(
    contents jsonb,
    broadcast_ids uuid[], chunks integer[], kinds text[], recipient_counts bigint[], bodies bytea[],
    block_places integer[], block_numbers integer[], block_members bit[],
    direct_places integer[], direct_numbers integer[]
) RETURNS TABLE (place bigint, outcome text, at_position bigint, at timestamptz)
LANGUAGE plpgsql
SET enable_seqscan = off
AS $function$
#variable_conflict use_column
DECLARE
    head bigint;
    moment timestamptz;
    fresh integer[];
    later integer[];
    overlapping integer[] := '{}';
BEGIN
    IF contents IS NOT NULL THEN
        PERFORM keep_contents(contents);
    END IF;
    head := take_positions(0);
    moment := clock_timestamp();

    -- Looked up one by one, because a plan from a time when these tables were small would read all of them.
    SELECT array_agg(asked.place ORDER BY asked.place),
        array_agg(asked.place) FILTER (WHERE asked.kind <> 'alert' AND (
            SELECT arrivals.chunk
            FROM arrivals
            WHERE arrivals.broadcast_id = asked.broadcast_id AND arrivals.kind <> 'alert'
            LIMIT 1
        ) IS NOT NULL)
    INTO fresh, later
    FROM unnest(broadcast_ids, chunks, kinds) WITH ORDINALITY AS asked (broadcast_id, chunk, kind, place)
    WHERE (
            SELECT arrivals.chunk
            FROM arrivals
            WHERE arrivals.broadcast_id = asked.broadcast_id AND arrivals.chunk = asked.chunk
        ) IS NULL
        AND (
            SELECT retractions.broadcast_id FROM retractions WHERE retractions.broadcast_id = asked.broadcast_id
        ) IS NULL;

    IF later IS NOT NULL THEN
        overlapping := find_overlapping(
            later, broadcast_ids, block_places, block_numbers, block_members, direct_places, direct_numbers
        );
        fresh := array(SELECT step.place FROM unnest(fresh) AS step (place) WHERE step.place <> ALL (overlapping));
    END IF;

    IF cardinality(fresh) > 0 THEN
        PERFORM take_positions(cardinality(fresh));
        INSERT INTO log (position, kind, body, at)
        SELECT head + step.number, kinds[step.place], bodies[step.place], moment
        FROM unnest(fresh) WITH ORDINALITY AS step (place, number);
        INSERT INTO arrivals (broadcast_id, chunk, kind, recipients, position, arrived_at)
        SELECT broadcast_ids[step.place], chunks[step.place], kinds[step.place], recipient_counts[step.place],
            head + step.number, moment
        FROM unnest(fresh) WITH ORDINALITY AS step (place, number);
        INSERT INTO blocks (block, position, broadcast_id, silent, arrived_at, members)
        SELECT part.block, head + step.number, broadcast_ids[step.place], kinds[step.place] = 'silent_item', moment,
            part.members
        FROM unnest(fresh) WITH ORDINALITY AS step (place, number)
        JOIN unnest(block_places, block_numbers, block_members) AS part (place, block, members) USING (place);
        INSERT INTO direct (recipient_number, position, broadcast_id, silent, arrived_at)
        SELECT part.recipient_number, head + step.number, broadcast_ids[step.place],
            kinds[step.place] = 'silent_item', moment
        FROM unnest(fresh) WITH ORDINALITY AS step (place, number)
        JOIN unnest(direct_places, direct_numbers) AS part (place, recipient_number) USING (place);
    END IF;

    RETURN QUERY
    SELECT asked.place,
        CASE WHEN arrival.position IS NOT NULL THEN 'merged'
            WHEN asked.place = ANY (overlapping) THEN 'overlapping'
            ELSE 'stopped' END,
        arrival.position, arrival.arrived_at
    FROM unnest(broadcast_ids, chunks) WITH ORDINALITY AS asked (broadcast_id, chunk, place)
    LEFT JOIN LATERAL (
        SELECT arrivals.position, arrivals.arrived_at
        FROM arrivals
        WHERE arrivals.broadcast_id = asked.broadcast_id AND arrivals.chunk = asked.chunk
        LIMIT 1
    ) AS arrival ON true
    ORDER BY asked.place;
END;
$function$;

-- Writes a broadcast's tombstone: no chunk of it merges from now on. With `hide`, what had arrived leaves all inboxes. Answers
-- how many inboxes it had reached, and by which chunks.
CREATE FUNCTION retract_broadcast(wanted uuid, hide boolean) RETURNS TABLE (arrived bigint, chunks integer[])
LANGUAGE plpgsql
SET enable_seqscan = off
AS $function$
DECLARE
    found_chunks integer[];
    found_recipients bigint;
BEGIN
    PERFORM take_positions(0);
    INSERT INTO retractions (broadcast_id, retracted_at) VALUES (wanted, clock_timestamp())
    ON CONFLICT (broadcast_id) DO NOTHING;
    SELECT array_agg(arrivals.chunk ORDER BY arrivals.chunk), sum(arrivals.recipients)
    INTO found_chunks, found_recipients
    FROM arrivals
    WHERE arrivals.broadcast_id = wanted;
    IF hide AND found_recipients > 0 THEN
        UPDATE broadcasts SET hidden = true WHERE broadcasts.broadcast_id = wanted AND NOT broadcasts.hidden;
        IF FOUND THEN
            UPDATE retractions SET position = append_log('retracted', uuid_send(wanted))
            WHERE retractions.broadcast_id = wanted;
        END IF;
    END IF;
    RETURN QUERY SELECT coalesce(found_recipients, 0), coalesce(found_chunks, '{}');
END;
$function$;
