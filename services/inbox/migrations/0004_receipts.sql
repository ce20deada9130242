-- What recipients did with their items: rows only for those who did something.

CREATE TABLE receipts (
    recipient_number integer NOT NULL CHECK (recipient_number >= 0),
    broadcast_id uuid NOT NULL,
    -- Every other action implies it.
    read_at timestamptz NOT NULL,
    acknowledged_at timestamptz,
    dismissed_at timestamptz,
    clicked_at timestamptz,
    clicked_url text,
    PRIMARY KEY (recipient_number, broadcast_id),
    CHECK ((clicked_at IS NULL) = (clicked_url IS NULL))
);
CREATE INDEX receipts_by_broadcast ON receipts (broadcast_id);

-- "All read": everything that arrived before `position` counts as read at `at`, unless it was before. Never changed, so that
-- the first time wins.
CREATE TABLE watermarks (
    recipient_number integer NOT NULL CHECK (recipient_number >= 0),
    position bigint NOT NULL CHECK (position > 0),
    at timestamptz NOT NULL,
    PRIMARY KEY (recipient_number, position)
);

-- Where in the log something other than an arrival last changed a recipient's inbox: a count made before it is void.
CREATE TABLE changes (
    recipient_number integer PRIMARY KEY CHECK (recipient_number >= 0),
    position bigint NOT NULL CHECK (position > 0)
) WITH (fillfactor = 50);

ALTER TABLE receipts ENABLE ROW LEVEL SECURITY;
ALTER TABLE receipts FORCE ROW LEVEL SECURITY;
CREATE POLICY own_receipts ON receipts FOR SELECT TO inbox_api
    USING (recipient_number = (SELECT current_recipient()));
CREATE POLICY worker_reads_and_writes ON receipts TO inbox_worker USING (true) WITH CHECK (true);
GRANT SELECT ON receipts TO inbox_api;
GRANT SELECT, INSERT, UPDATE ON receipts TO inbox_worker;

ALTER TABLE watermarks ENABLE ROW LEVEL SECURITY;
ALTER TABLE watermarks FORCE ROW LEVEL SECURITY;
CREATE POLICY own_watermarks ON watermarks FOR SELECT TO inbox_api
    USING (recipient_number = (SELECT current_recipient()));
CREATE POLICY worker_reads_and_writes ON watermarks TO inbox_worker USING (true) WITH CHECK (true);
GRANT SELECT ON watermarks TO inbox_api;
GRANT SELECT, INSERT ON watermarks TO inbox_worker;

ALTER TABLE changes ENABLE ROW LEVEL SECURITY;
ALTER TABLE changes FORCE ROW LEVEL SECURITY;
CREATE POLICY own_changes ON changes FOR SELECT TO inbox_api
    USING (recipient_number = (SELECT current_recipient()));
CREATE POLICY worker_reads_and_writes ON changes TO inbox_worker USING (true) WITH CHECK (true);
GRANT SELECT ON changes TO inbox_api;
GRANT SELECT, INSERT, UPDATE ON changes TO inbox_worker;
