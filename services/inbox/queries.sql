-- Every statement of the inbox. What is personal goes through functions of the schema, which set the identity that the
-- policies ask for and query in the same call.

-- name: list_items
-- A page, the counts and the total from one moment; one more item than is shown says whether there is another page.
SELECT
    page.unread_count, page.all_count, page.log_position, page.valid_until, page.reads, page.dismissals,
    page.total_count, page.top_count, page.tops_given, page.positions, page.broadcast_ids, page.arrived_at, page.silent,
    page.read_at, page.acknowledged_at, page.dismissed_at, page.clicked_at, page.snoozed_until, page.pinned_at
FROM list_items(
    $1, $2, $3, $4, $5, $6::text::tsquery, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20
) AS page;

-- name: list_first_pages
-- What many are shown who connect at the same moment, one after the other, each under their own identity.
SELECT
    page.unread_count, page.all_count, page.log_position, page.valid_until, page.reads, page.dismissals,
    page.total_count, page.top_count, page.tops_given, page.positions, page.broadcast_ids, page.arrived_at, page.silent,
    page.read_at, page.acknowledged_at, page.dismissed_at, page.clicked_at, page.snoozed_until, page.pinned_at
FROM unnest($1::integer[], $2::bigint[], $3::integer[], $4::integer[], $5::timestamptz[], $6::bigint[], $7::bigint[])
    WITH ORDINALITY AS asked (number, position, unread, total, until, reads, dismissals, place)
CROSS JOIN LATERAL list_items(
    asked.number, false, NULL, NULL, NULL, NULL, NULL, false, false, NULL, NULL, 0, $8, $9,
    asked.position, asked.unread, asked.total, asked.until, asked.reads, asked.dismissals
) AS page
ORDER BY asked.place;

-- name: get_item
-- One item, by the index on broadcasts.
SELECT
    (found.item).position, (found.item).silent, (found.item).arrived_at, (found.item).broadcast_id, (found.item).type,
    (found.item).category, (found.item).priority, (found.item).title, (found.item).message, (found.item).action_label,
    (found.item).action_url, (found.item).wedding_id, (found.item).couple_name, (found.item).wedding_date,
    (found.item).wall, (found.item).expires_at, (found.item).read_at, (found.item).acknowledged_at,
    (found.item).dismissed_at, (found.item).clicked_at, found.snoozed_until, found.pinned_at
FROM get_item($1, $2) AS found;

-- name: count_items
-- The badge: only what lies beyond an earlier count, when that still holds.
SELECT
    counted.unread_count, counted.all_count, counted.log_position, counted.valid_until, counted.reads,
    counted.dismissals
FROM count_items($1, $2, $3, $4, $5, $6, $7) AS counted;

-- name: count_items_of_many
-- The badges of those who did something at the same moment, one after the other, each under their own identity.
SELECT
    counted.unread_count, counted.all_count, counted.log_position, counted.valid_until, counted.reads,
    counted.dismissals
FROM unnest($1::integer[], $2::bigint[], $3::integer[], $4::integer[], $5::timestamptz[], $6::bigint[], $7::bigint[])
    WITH ORDINALITY AS asked (number, position, unread, total, until, reads, dismissals, place)
CROSS JOIN LATERAL count_items(
    asked.number, asked.position, asked.unread, asked.total, asked.until, asked.reads, asked.dismissals
) AS counted
ORDER BY asked.place;

-- name: merge_chunks
-- A group of chunks at the price of one commit.
SELECT merge.outcome, merge.at_position, merge.at
FROM merge_chunks($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) AS merge
ORDER BY merge.place;

-- name: find_members
-- Who has a broadcast, in these blocks or in all: bits where there are many, numbers where there are few.
SELECT blocks.block, blocks.members, NULL::integer AS recipient_number
FROM blocks
WHERE blocks.broadcast_id = $1 AND ($2::integer[] IS NULL OR blocks.block = ANY ($2))
UNION ALL
SELECT NULL, NULL, direct.recipient_number
FROM direct
WHERE direct.broadcast_id = $1 AND ($2::integer[] IS NULL OR direct.recipient_number >> 12 = ANY ($2));

-- name: record_receipts
-- A group of calls at the price of one commit.
SELECT
    receipt.outcome, receipt.read_at, receipt.acknowledged_at, receipt.dismissed_at, receipt.clicked_at,
    receipt.snoozed_until, receipt.pinned_at, receipt.is_critical, receipt.is_cause, receipt.newly_acknowledged,
    receipt.log_position, NULL::bytea AS response
FROM record_receipts($1, $2, $3, $4, $5) AS receipt
ORDER BY receipt.place;

-- name: record_receipts_once
-- The same when some of them may be repetitions, which are recognised in the transaction that would record them.
SELECT
    receipt.outcome, receipt.read_at, receipt.acknowledged_at, receipt.dismissed_at, receipt.clicked_at,
    receipt.snoozed_until, receipt.pinned_at, receipt.is_critical, receipt.is_cause, receipt.newly_acknowledged,
    receipt.log_position, receipt.response
FROM record_receipts_once($1, $2, $3, $4, $5, $6, $7, $8, $9) AS receipt
ORDER BY receipt.call, receipt.place;

-- name: mark_all_read
-- One watermark, however much there is, and once for a request_id.
SELECT mark.read_at, mark.log_position, mark.is_repeated, mark.response
FROM mark_all_read_once($1, $2, $3, $4, $5) AS mark;

-- name: arrange_item
-- Where somebody keeps an item, once for a request_id.
SELECT
    arranged.outcome, arranged.read_at, arranged.acknowledged_at, arranged.dismissed_at, arranged.clicked_at,
    arranged.snoozed_until, arranged.pinned_at, arranged.log_position, arranged.response
FROM arrange_item_once($1, $2, $3, $4, $5, $6, $7, $8, $9) AS arranged;

-- name: pass_time
-- What is over by now is said in the log, so that screens follow.
SELECT passed.log_position, passed.is_more, passed.next_in
FROM pass_time($1) AS passed;

-- name: retract_broadcast
-- The tombstone, and with it out of all inboxes.
SELECT retraction.arrived, retraction.chunks
FROM retract_broadcast($1, $2) AS retraction;

-- name: apply_team
-- The inbox's own wall.
SELECT apply_team($1, $2, $3) AS version;

-- name: find_team_version
-- A change that is applied already need not be fetched.
SELECT teams.version
FROM teams
WHERE teams.wedding_id = $1;

-- name: find_unknown_teams
-- Walls that nobody has told the inbox of yet.
SELECT wall.wedding_id
FROM unnest($1::uuid[]) AS wall (wedding_id)
WHERE NOT EXISTS (SELECT FROM teams WHERE teams.wedding_id = wall.wedding_id);

-- name: find_teams
-- The walls that live streams are about to meet; one that was never told of is a team of nobody.
SELECT
    wall.wedding_id,
    coalesce(teams.version, 0) AS version,
    array(
        SELECT team_members.recipient_number
        FROM team_members
        WHERE team_members.wedding_id = wall.wedding_id
    ) AS members
FROM unnest($1::uuid[]) AS wall (wedding_id)
LEFT JOIN teams ON teams.wedding_id = wall.wedding_id;

-- name: is_behind_wall
-- Whether somebody asks for what is about weddings on whose teams they are not, as the personal policy has it.
SELECT EXISTS (
    SELECT FROM broadcasts
    WHERE broadcasts.broadcast_id = $2
        AND NOT broadcasts.wall && (
            SELECT array_append(array_agg(team_members.wedding_id), '00000000-0000-0000-0000-000000000000'::uuid)
            FROM team_members
            WHERE team_members.recipient_number = $1
        )
) AS is_behind;

-- name: find_contents
-- What live streams are about to show.
SELECT
    broadcasts.broadcast_id, broadcasts.type, broadcasts.category, broadcasts.priority, broadcasts.title,
    broadcasts.message, broadcasts.action_label, broadcasts.action_url, broadcasts.wedding_id, broadcasts.couple_name,
    broadcasts.wedding_date, broadcasts.wall, nullif(broadcasts.expires_at, 'infinity') AS expires_at
FROM broadcasts
WHERE broadcasts.broadcast_id = ANY ($1::uuid[]);

-- name: find_first_arrivals
-- When the items that alerts are for had arrived.
SELECT arrivals.broadcast_id, min(arrivals.arrived_at) AS arrived_at
FROM arrivals
WHERE arrivals.broadcast_id = ANY ($1::uuid[]) AND arrivals.kind <> 'alert'
GROUP BY arrivals.broadcast_id;

-- name: find_numbers
-- Numbers of users, where they are known.
SELECT recipients.user_id, recipients.number
FROM recipients
WHERE recipients.user_id = ANY ($1::uuid[]);

-- name: keep_numbers
-- A number never changes, so whoever was first was right.
INSERT INTO recipients (user_id, number)
SELECT learnt.user_id, learnt.number
FROM unnest($1::uuid[], $2::integer[]) AS learnt (user_id, number)
ORDER BY learnt.user_id
ON CONFLICT DO NOTHING;

-- name: count_engagement
-- What people did with broadcasts, and since when that cannot be said any more.
SELECT
    engagement.delivered, engagement.read, engagement.acknowledged, engagement.dismissed, engagement.clicked,
    cleaned_since(($1::uuid[])[engagement.place]) AS cleaned_at
FROM count_engagement($1) AS engagement
ORDER BY engagement.place;

-- name: count_engagement_until
-- What people had done with broadcasts by a moment that is past, and since when that cannot be said any more.
SELECT
    engagement.delivered, engagement.read, engagement.acknowledged, engagement.dismissed, engagement.clicked,
    engagement.time_to_read_us, engagement.cleaned_at
FROM count_engagement_until($1, $2) AS engagement
ORDER BY engagement.place;

-- name: find_reached
-- Behind which walls a broadcast is, and since when it is not known any more who had it.
SELECT broadcasts.wall, coalesce(broadcasts.left_at, cleaned_since(broadcasts.broadcast_id)) AS cleaned_at
FROM broadcasts
WHERE broadcasts.broadcast_id = $1;

-- name: list_receipt_owners
-- Whoever did something with a broadcast that is not in inboxes any more.
SELECT receipts.recipient_number
FROM receipts
WHERE receipts.broadcast_id = $1;

-- name: list_receipts
-- Some people's receipts of a broadcast, for those who wait for them.
SELECT receipt.number, receipt.arrived_at, receipt.read_at, receipt.acknowledged_at
FROM list_receipts($1, $2, $3, $4) AS receipt
ORDER BY receipt.number;

-- name: count_acknowledged
-- How many have acknowledged a broadcast, of all or of these.
SELECT count(*) AS acknowledged
FROM receipts
WHERE receipts.broadcast_id = $1
    AND receipts.acknowledged_at IS NOT NULL
    AND ($2::integer[] IS NULL OR receipts.recipient_number = ANY ($2));

-- name: find_readers
-- Whose hold may end without an alert.
SELECT reader.number
FROM find_readers($1, $2) AS reader (number);

-- name: find_log_identity
-- Which log this is, as things stand now.
SELECT current_log_identity() AS identity;

-- name: find_shown
-- Which of these somebody's inbox shows; with the last three, which it still would after it was cleaned up.
SELECT broadcasts.broadcast_id
FROM broadcasts
WHERE broadcasts.broadcast_id = ANY ($1::uuid[])
    AND NOT broadcasts.hidden
    AND broadcasts.expires_at > now()
    AND EXISTS (SELECT FROM arrivals WHERE arrivals.broadcast_id = broadcasts.broadcast_id)
    AND NOT (
        $2::boolean AND EXISTS (
            SELECT FROM find_leaving($3, $4) AS leaving WHERE leaving.broadcast_id = broadcasts.broadcast_id
        )
    );

-- name: find_next_leaving
-- The next to be taken out of inboxes, and whether anybody sees it go.
SELECT
    broadcasts.broadcast_id, broadcasts.wall, NOT broadcasts.hidden AND broadcasts.expires_at > now() AS is_shown
FROM find_leaving($1, $2) AS leaving
INNER JOIN broadcasts ON broadcasts.broadcast_id = leaving.broadcast_id
LIMIT 1;

-- name: count_leaving
-- Those whose time in inboxes is over.
SELECT count(*) AS due FROM find_leaving($1, $2);

-- name: take_out
-- From here on it is in nobody's inbox.
SELECT take_out($1, $2, $3, $4)::integer AS removed, false AS is_last;

-- name: count_leaving_items
-- What lies in inboxes of those, and of those that were taken out and are not empty yet.
WITH over AS (
    SELECT leaving.broadcast_id FROM find_leaving($1, $2) AS leaving
    UNION ALL
    SELECT broadcasts.broadcast_id
    FROM broadcasts
    WHERE broadcasts.left_at IS NOT NULL AND broadcasts.emptied_at IS NULL
)
SELECT coalesce(sum(part.items), 0)::bigint AS due
FROM (
    SELECT bit_count(blocks.members) AS items
    FROM over
    INNER JOIN blocks ON blocks.broadcast_id = over.broadcast_id
    UNION ALL
    SELECT count(*)
    FROM over
    INNER JOIN direct ON direct.broadcast_id = over.broadcast_id
) AS part;

-- name: empty_broadcasts
-- The rows of what was taken out, and of what is critical only once its receipts say all that is known.
SELECT emptied.removed, emptied.is_last FROM empty_broadcasts($1) AS emptied;

-- name: count_old_marks
-- "All read" that says nothing of anything that is there, nor would after what is over has gone.
SELECT count(*) AS due
FROM watermarks
WHERE watermarks.position + 0 <= coalesce(
    (
        SELECT arrivals.position
        FROM arrivals
        INNER JOIN broadcasts ON broadcasts.broadcast_id = arrivals.broadcast_id
        WHERE broadcasts.left_at IS NULL
            AND NOT EXISTS (
                SELECT FROM find_leaving($1, $2) AS leaving WHERE leaving.broadcast_id = arrivals.broadcast_id
            )
        ORDER BY arrivals.position
        LIMIT 1
    ),
    9223372036854775807
);

-- name: remove_old_marks
-- The same; what is being emptied has its arrivals until it is empty.
WITH gone AS (
    DELETE FROM watermarks
    WHERE watermarks.ctid = ANY (ARRAY(
        SELECT mark.ctid
        FROM watermarks AS mark
        WHERE mark.position + 0 <= (SELECT coalesce(min(arrivals.position), 9223372036854775807) FROM arrivals)
        LIMIT $1::integer
    ))
    RETURNING watermarks.position
)
SELECT count(*) AS removed, count(*) < $1::integer AS is_last FROM gone;

-- name: count_emptied_texts
-- Texts of what has been empty for so long that no call which saw it before can still run.
SELECT count(*) AS due
FROM broadcasts
WHERE broadcasts.emptied_at < now() - $1::interval AND broadcasts.priority <> 1;

-- name: remove_emptied_texts
-- With what such a call may have written meanwhile.
WITH gone AS (
    DELETE FROM broadcasts
    WHERE broadcasts.ctid = ANY (ARRAY(
        SELECT emptied.ctid
        FROM broadcasts AS emptied
        WHERE emptied.emptied_at < now() - $1::interval AND emptied.priority <> 1
        ORDER BY emptied.emptied_at
        LIMIT $2::integer
    ))
    RETURNING broadcasts.broadcast_id
), strays AS (
    DELETE FROM receipts
    WHERE receipts.broadcast_id = ANY (ARRAY(SELECT gone.broadcast_id FROM gone))
)
SELECT count(*) AS removed, count(*) < $2::integer AS is_last FROM gone;

-- name: erase_inbox
-- A number is nobody's from here on.
SELECT erase_inbox($1, $2) AS position;

-- name: replace_contents
-- What broadcasts say now, whatever they said before.
SELECT replace_contents($1);

-- name: export_items
-- Everything that came to a number, newest first, whatever became of it; shown is what their own list may still show, or did
-- until it expired.
SELECT
    arrival.position, arrival.broadcast_id, arrival.silent, arrival.arrived_at,
    NOT broadcasts.hidden AND broadcasts.wall && (
        SELECT array_append(array_agg(team_members.wedding_id), '00000000-0000-0000-0000-000000000000'::uuid)
        FROM team_members
        WHERE team_members.recipient_number = $1
    ) AS is_shown,
    broadcasts.type, broadcasts.category, broadcasts.priority, broadcasts.title, broadcasts.message,
    broadcasts.action_label, broadcasts.action_url, broadcasts.wedding_id,
    nullif(broadcasts.expires_at, 'infinity') AS expires_at
FROM (
    (
        SELECT blocks.position, blocks.broadcast_id, blocks.silent, blocks.arrived_at
        FROM blocks
        WHERE blocks.block = $1::integer >> 12
            AND blocks.position < $2
            AND get_bit(blocks.members, $1::integer & 4095) <> 0
        ORDER BY blocks.position DESC
        LIMIT $3
    )
    UNION ALL
    (
        SELECT direct.position, direct.broadcast_id, direct.silent, direct.arrived_at
        FROM direct
        WHERE direct.recipient_number = $1 AND direct.position < $2
        ORDER BY direct.position DESC
        LIMIT $3
    )
) AS arrival
LEFT JOIN broadcasts ON broadcasts.broadcast_id = arrival.broadcast_id
ORDER BY arrival.position DESC
LIMIT $3;

-- name: export_receipts
-- Everything that a number did with items, also with those that are not there any more.
SELECT
    receipts.broadcast_id, receipts.read_at, receipts.acknowledged_at, receipts.dismissed_at, receipts.clicked_at,
    receipts.clicked_url
FROM receipts
WHERE receipts.recipient_number = $1 AND ($2::uuid IS NULL OR receipts.broadcast_id > $2)
ORDER BY receipts.broadcast_id
LIMIT $3;

-- name: export_arrangements
-- Where a number keeps items, in order of their broadcasts.
SELECT arrangements.broadcast_id, arrangements.snoozed_until, arrangements.pinned_at
FROM arrangements
WHERE arrangements.recipient_number = $1 AND ($2::uuid IS NULL OR arrangements.broadcast_id > $2)
ORDER BY arrangements.broadcast_id
LIMIT $3;

-- name: export_marks
-- When a number said of everything that it is read.
SELECT watermarks.position, watermarks.at
FROM watermarks
WHERE watermarks.recipient_number = $1 AND watermarks.position < $2
ORDER BY watermarks.position DESC
LIMIT $3;

-- name: export_calls
-- Which calls of a user are remembered, for a day.
SELECT requests.method, requests.at, requests.request_id
FROM requests
WHERE requests.caller = $1 AND (requests.at, requests.request_id) > ($2, $3::uuid)
ORDER BY requests.at, requests.request_id
LIMIT $4;
