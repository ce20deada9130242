-- What people want to be told, how, and when not. A row exists only once they have edited it: until then the preset of their
-- role holds, which services/preferences/presets.py knows.

CREATE TYPE channel AS ENUM ('realtime', 'in_app', 'email', 'sms', 'push');

CREATE TABLE preferences (
    recipient_number integer PRIMARY KEY,
    -- The etag; counts the edits.
    version bigint NOT NULL DEFAULT 1,
    update_time timestamptz NOT NULL DEFAULT now(),
    system boolean NOT NULL,
    business boolean NOT NULL,
    collaboration boolean NOT NULL,
    wedding boolean NOT NULL,
    critical_only boolean NOT NULL,
    channels channel[] NOT NULL,
    quiet_enabled boolean NOT NULL,
    quiet_start time NOT NULL,
    quiet_end time NOT NULL,
    -- NULL follows the zone of the person's directory entry.
    quiet_time_zone text,
    CONSTRAINT preferences_recipient_known FOREIGN KEY (recipient_number) REFERENCES recipients (number),
    CONSTRAINT preferences_version_counts CHECK (version > 0),
    CONSTRAINT preferences_keep_in_app CHECK ('in_app' = ANY (channels) AND array_position(channels, NULL) IS NULL),
    CONSTRAINT preferences_quiet_window_has_length CHECK (quiet_start <> quiet_end),
    CONSTRAINT preferences_quiet_window_in_minutes CHECK (
        extract(second FROM quiet_start) = 0 AND extract(second FROM quiet_end) = 0
        AND quiet_start < '24:00' AND quiet_end < '24:00'
    ),
    CONSTRAINT preferences_quiet_time_zone_fits CHECK (char_length(quiet_time_zone) BETWEEN 1 AND 64)
);

-- No channels in a setting or a filter means that it leaves them as they are.
CREATE TABLE role_settings (
    recipient_number integer NOT NULL,
    role text NOT NULL,
    muted_types text[] NOT NULL DEFAULT '{}',
    channels channel[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (recipient_number, role),
    CONSTRAINT role_settings_belong_to_preferences
    FOREIGN KEY (recipient_number) REFERENCES preferences (recipient_number),
    CONSTRAINT role_settings_role_slug CHECK (role ~ '^[a-z][a-z0-9_-]{0,63}$'),
    CONSTRAINT role_settings_muted_types_known
    CHECK (cardinality(muted_types) <= 100 AND array_position(muted_types, NULL) IS NULL),
    CONSTRAINT role_settings_keep_in_app
    CHECK ((cardinality(channels) = 0 OR 'in_app' = ANY (channels)) AND array_position(channels, NULL) IS NULL)
);

CREATE TABLE wedding_filters (
    recipient_number integer NOT NULL,
    wedding_id uuid NOT NULL,
    muted boolean NOT NULL DEFAULT false,
    channels channel[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (recipient_number, wedding_id),
    CONSTRAINT wedding_filters_belong_to_preferences
    FOREIGN KEY (recipient_number) REFERENCES preferences (recipient_number),
    CONSTRAINT wedding_filters_wedding_known FOREIGN KEY (wedding_id) REFERENCES weddings (wedding_id),
    CONSTRAINT wedding_filters_keep_in_app
    CHECK ((cardinality(channels) = 0 OR 'in_app' = ANY (channels)) AND array_position(channels, NULL) IS NULL)
);

CREATE INDEX wedding_filters_by_wedding ON wedding_filters (wedding_id);

-- What the set indexes are built from: everybody with what they edited, else the role whose preset holds, and what they
-- set for the role that they have. Of quiet hours that are switched off nothing is told, so that more people have exactly the same settings.
-- The view looks with the eyes of whoever asks.
CREATE VIEW settings_in_effect WITH (security_invoker = true) AS
SELECT
    recipients.number,
    recipients.role,
    recipients.tier,
    recipients.user_type,
    recipients.erased_at IS NOT NULL AS erased,
    CASE WHEN preferences.version IS NULL THEN recipients.role END AS preset_role,
    preferences.system,
    preferences.business,
    preferences.collaboration,
    preferences.wedding,
    preferences.critical_only,
    preferences.channels,
    CASE WHEN preferences.quiet_enabled THEN preferences.quiet_start END AS quiet_start,
    CASE WHEN preferences.quiet_enabled THEN preferences.quiet_end END AS quiet_end,
    CASE WHEN preferences.quiet_enabled IS NOT FALSE
        THEN coalesce(preferences.quiet_time_zone, recipients.time_zone)
    END AS time_zone,
    role_settings.muted_types,
    role_settings.channels AS role_channels
FROM recipients
LEFT JOIN preferences ON preferences.recipient_number = recipients.number
LEFT JOIN role_settings
    ON role_settings.recipient_number = recipients.number AND role_settings.role = recipients.role;

ALTER TABLE preferences ENABLE ROW LEVEL SECURITY;
ALTER TABLE preferences FORCE ROW LEVEL SECURITY;
CREATE POLICY worker_reads ON preferences FOR SELECT TO preferences_worker USING (true);
CREATE POLICY people_keep_their_own ON preferences TO preferences_api
USING (recipient_number = (SELECT caller_number())) WITH CHECK (recipient_number = (SELECT caller_number()));

ALTER TABLE role_settings ENABLE ROW LEVEL SECURITY;
ALTER TABLE role_settings FORCE ROW LEVEL SECURITY;
CREATE POLICY worker_reads ON role_settings FOR SELECT TO preferences_worker USING (true);
CREATE POLICY people_keep_their_own ON role_settings TO preferences_api
USING (recipient_number = (SELECT caller_number())) WITH CHECK (recipient_number = (SELECT caller_number()));

ALTER TABLE wedding_filters ENABLE ROW LEVEL SECURITY;
ALTER TABLE wedding_filters FORCE ROW LEVEL SECURITY;
CREATE POLICY worker_reads ON wedding_filters FOR SELECT TO preferences_worker USING (true);
CREATE POLICY people_keep_their_own ON wedding_filters TO preferences_api
USING (recipient_number = (SELECT caller_number())) WITH CHECK (recipient_number = (SELECT caller_number()));

GRANT SELECT ON preferences, role_settings, wedding_filters, settings_in_effect TO preferences_worker;
GRANT SELECT, INSERT, UPDATE ON preferences TO preferences_api;
GRANT SELECT, INSERT, DELETE ON role_settings, wedding_filters TO preferences_api;
