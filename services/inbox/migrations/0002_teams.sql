-- The inbox's own wall: who is on which wedding's team, so that someone taken off a team loses its items at once, whether
-- or not any other service can be reached. And who a caller is: user ids and numbers, learnt once and good for ever.

CREATE TABLE recipients (
    user_id uuid PRIMARY KEY,
    number integer NOT NULL UNIQUE CHECK (number >= 0)
);

-- A team that the inbox has been told of; `version` is the directory's, so that an old team never replaces a newer one.
CREATE TABLE teams (
    wedding_id uuid PRIMARY KEY,
    version bigint NOT NULL CHECK (version > 0)
);

CREATE TABLE team_members (
    wedding_id uuid NOT NULL,
    recipient_number integer NOT NULL CHECK (recipient_number >= 0),
    PRIMARY KEY (wedding_id, recipient_number)
);
CREATE INDEX team_members_by_recipient ON team_members (recipient_number, wedding_id);

-- Who the personal policies let in: the functions of the personal role set it, for their own transaction only. A setting
-- that was made once reads '' afterwards, which is nobody, like one that was never made.
CREATE FUNCTION current_recipient() RETURNS integer
LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('app.recipient', true), '')::integer;

ALTER TABLE recipients ENABLE ROW LEVEL SECURITY;
ALTER TABLE recipients FORCE ROW LEVEL SECURITY;
CREATE POLICY worker_reads_and_writes ON recipients TO inbox_worker USING (true) WITH CHECK (true);
CREATE POLICY owner_loads ON recipients TO inbox_owner USING (true) WITH CHECK (true);
GRANT SELECT, INSERT ON recipients TO inbox_worker;

GRANT SELECT, INSERT, UPDATE ON teams TO inbox_worker;

ALTER TABLE team_members ENABLE ROW LEVEL SECURITY;
ALTER TABLE team_members FORCE ROW LEVEL SECURITY;
CREATE POLICY own_teams ON team_members FOR SELECT TO inbox_api
    USING (recipient_number = (SELECT current_recipient()));
CREATE POLICY worker_reads_and_writes ON team_members TO inbox_worker USING (true) WITH CHECK (true);
CREATE POLICY owner_loads ON team_members TO inbox_owner USING (true) WITH CHECK (true);
GRANT SELECT ON team_members TO inbox_api;
GRANT SELECT, INSERT, DELETE ON team_members TO inbox_worker;
