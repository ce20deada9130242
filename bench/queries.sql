-- name: make_rows_table
-- The same work as one row per recipient, with the two indexes that it needs: a person's newest first, and a broadcast's
-- people.
CREATE TABLE IF NOT EXISTS {schema}.inbox_rows (
    recipient_number integer NOT NULL,
    delivered_at timestamptz NOT NULL,
    broadcast_id uuid NOT NULL,
    read_at timestamptz
);

-- name: index_rows_by_recipient
-- What a list of somebody's newest items reads.
CREATE INDEX IF NOT EXISTS inbox_rows_by_recipient ON {schema}.inbox_rows (recipient_number, delivered_at DESC);

-- name: index_rows_by_broadcast
-- What counting a broadcast's readers reads.
CREATE INDEX IF NOT EXISTS inbox_rows_by_broadcast ON {schema}.inbox_rows (broadcast_id);

-- name: fill_rows
-- A table that has been in use: a million rows of other broadcasts are there already.
INSERT INTO {schema}.inbox_rows (recipient_number, delivered_at, broadcast_id)
SELECT number, now() - interval '1 day', $1 FROM preferences.recipients;

-- name: make_members_table
-- The baseline finds its audiences resolved already: it pays for its rows alone.
CREATE TABLE {schema}.members (
    audience text NOT NULL,
    recipient_number integer NOT NULL,
    PRIMARY KEY (audience, recipient_number)
);

-- name: resolve_members
-- An audience by what chooses it: everyone, a role, a tier, or a list of users. Not part of what is timed.
INSERT INTO {schema}.members (audience, recipient_number)
SELECT $1, number
FROM preferences.recipients
WHERE $2::text = 'everyone' OR role = $2 OR tier = $2 OR user_id = ANY ($3::uuid[]);

-- name: analyze_members
-- So that the baseline's plan is the one for its size.
ANALYZE {schema}.members;

-- name: insert_rows
-- One row for each of these people.
INSERT INTO {schema}.inbox_rows (recipient_number, delivered_at, broadcast_id)
SELECT recipient_number, clock_timestamp(), $1
FROM {schema}.members
WHERE audience = $2;

-- name: remove_rows
-- Back to a million for the next run; not part of what is timed.
DELETE FROM {schema}.inbox_rows WHERE broadcast_id = $1;

-- name: clean_rows
-- So that each run finds the table as the first did; not part of what is timed.
VACUUM (ANALYZE) {schema}.inbox_rows;

-- name: make_schema
-- Apart from the services' own.
CREATE SCHEMA IF NOT EXISTS {schema};

-- name: read_most
-- What the callers have read already: an even share of their items, and never the newest.
INSERT INTO inbox.receipts (recipient_number, broadcast_id, read_at)
SELECT caller.number, blocks.broadcast_id, blocks.arrived_at
FROM (SELECT recipients.number FROM preferences.recipients ORDER BY recipients.number LIMIT $1) AS caller
JOIN inbox.blocks ON blocks.block = caller.number >> 12 AND get_bit(blocks.members, caller.number & 4095) <> 0
WHERE hashint4(caller.number # blocks.position::integer) & 1023 < 1024 * $2::float8;

-- name: note_reading
-- So that no badge is taken for one that was counted after it.
INSERT INTO inbox.changes (recipient_number, position)
SELECT DISTINCT receipts.recipient_number, (SELECT log_head.position FROM inbox.log_head)
FROM inbox.receipts
ON CONFLICT (recipient_number) DO NOTHING;

-- name: analyze_inboxes
-- As autovacuum would have by then.
VACUUM (ANALYZE) inbox.blocks, inbox.direct, inbox.broadcasts, inbox.receipts, inbox.changes, inbox.arrivals, inbox.log;

-- name: find_unread
-- Each caller's unread items, oldest first.
SELECT caller.user_id, caller.number, array_agg(blocks.broadcast_id ORDER BY blocks.position) AS unread
FROM (
    SELECT recipients.user_id, recipients.number FROM preferences.recipients ORDER BY recipients.number LIMIT $1
) AS caller
JOIN inbox.blocks ON blocks.block = caller.number >> 12 AND get_bit(blocks.members, caller.number & 4095) <> 0
LEFT JOIN inbox.receipts
    ON receipts.recipient_number = caller.number AND receipts.broadcast_id = blocks.broadcast_id
WHERE receipts.broadcast_id IS NULL
GROUP BY caller.user_id, caller.number;
