-- Every statement of the inbox. What is personal goes through functions of the schema, which set the identity that the
-- policies ask for and query in the same call.

-- name: list_items
-- A page, the counts and the total from one moment; one more item than is shown says whether there is another page.
SELECT
    page.unread_count, page.all_count, page.log_position, page.valid_until, page.reads, page.dismissals,
    page.total_count, page.positions, page.broadcast_ids, page.arrived_at, page.silent, page.read_at,
    page.acknowledged_at, page.dismissed_at, page.clicked_at
FROM list_items($1, $2, $3, $4, $5, $6::text::tsquery, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) AS page;

-- name: list_first_pages
-- What many are shown who connect at the same moment, one after the other, each under their own identity.
SELECT
    page.unread_count, page.all_count, page.log_position, page.valid_until, page.reads, page.dismissals,
    page.total_count, page.positions, page.broadcast_ids, page.arrived_at, page.silent, page.read_at,
    page.acknowledged_at, page.dismissed_at, page.clicked_at
FROM unnest($1::integer[], $2::bigint[], $3::integer[], $4::integer[], $5::timestamptz[], $6::bigint[], $7::bigint[])
    WITH ORDINALITY AS asked (number, position, unread, total, until, reads, dismissals, place)
CROSS JOIN LATERAL list_items(
    asked.number, false, NULL, NULL, NULL, NULL, NULL, false, NULL, $8,
    asked.position, asked.unread, asked.total, asked.until, asked.reads, asked.dismissals
) AS page
ORDER BY asked.place;

-- name: get_item
-- One item, by the index on broadcasts.
SELECT
    item.position, item.silent, item.arrived_at, item.broadcast_id, item.type, item.category, item.priority, item.title,
    item.message, item.action_label, item.action_url, item.wedding_id, item.couple_name, item.wedding_date, item.wall,
    item.expires_at, item.read_at, item.acknowledged_at, item.dismissed_at, item.clicked_at
FROM get_item($1, $2) AS item;

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
    receipt.is_critical, receipt.is_cause, receipt.newly_acknowledged, receipt.log_position,
    NULL::bytea AS response
FROM record_receipts($1, $2, $3, $4, $5) AS receipt
ORDER BY receipt.place;

-- name: record_receipts_once
-- The same when some of them may be repetitions, which are recognised in the transaction that would record them.
SELECT
    receipt.outcome, receipt.read_at, receipt.acknowledged_at, receipt.dismissed_at, receipt.clicked_at,
    receipt.is_critical, receipt.is_cause, receipt.newly_acknowledged, receipt.log_position,
    receipt.response
FROM record_receipts_once($1, $2, $3, $4, $5, $6, $7, $8, $9) AS receipt
ORDER BY receipt.call, receipt.place;

-- name: mark_all_read
-- One watermark, however much there is, and once for a request_id.
SELECT mark.read_at, mark.log_position, mark.is_repeated, mark.response
FROM mark_all_read_once($1, $2, $3, $4, $5) AS mark;

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
-- What people did with broadcasts.
SELECT
    engagement.delivered, engagement.read, engagement.acknowledged, engagement.dismissed, engagement.clicked
FROM count_engagement($1) AS engagement
ORDER BY engagement.place;

-- name: find_readers
-- Whose hold may end without an alert.
SELECT reader.number
FROM find_readers($1, $2) AS reader (number);

-- name: find_log_identity
-- Which log this is.
SELECT log_identity.identity
FROM log_identity;

-- name: prune_log
-- The oldest entries, in small parts, once no stream may go on from so far back.
DELETE FROM log
WHERE log.position IN (SELECT oldest.position FROM log AS oldest ORDER BY oldest.position LIMIT $2)
    AND log.at < clock_timestamp() - make_interval(secs => $1);
