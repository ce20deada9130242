-- name: set_windows
-- Quiet hours of every half hour in a dozen zones, for some of those who have set any: so many more distinct windows.
UPDATE preferences.preferences
SET
    quiet_enabled = true,
    quiet_start = time '00:00' + (recipient_number / 12 % 48) * interval '30 minutes',
    quiet_end = time '00:00' + ((recipient_number / 12 + 16) % 48) * interval '30 minutes',
    quiet_time_zone = ($1::text[])[recipient_number % 12 + 1]
WHERE recipient_number IN (
    SELECT edited.recipient_number FROM preferences.preferences AS edited ORDER BY edited.recipient_number LIMIT $2
);

-- name: set_roles
-- What the same and others have set for the role that they have: types that are muted, the benchmark's own among them, and
-- for every second one channels.
INSERT INTO preferences.role_settings (recipient_number, role, muted_types, channels)
SELECT
    edited.recipient_number,
    recipients.role,
    CASE edited.recipient_number % 3
        WHEN 0 THEN ARRAY[$1::text]
        WHEN 1 THEN ARRAY['trial.ending', 'tier.upgraded', 'form.locked']
        ELSE '{}'
    END,
    CASE edited.recipient_number % 2
        WHEN 0 THEN '{in_app,realtime,push}'::preferences.channel[]
        ELSE '{}'
    END
FROM preferences.preferences AS edited
INNER JOIN preferences.recipients ON recipients.number = edited.recipient_number
ORDER BY edited.recipient_number
LIMIT $2;

-- name: set_weddings
-- What people on teams have set for a wedding of theirs, those of the weddings that bound the audience first; every second
-- has muted it, the others have other channels for it.
INSERT INTO preferences.wedding_filters (recipient_number, wedding_id, muted, channels)
SELECT
    team_members.recipient_number,
    team_members.wedding_id,
    team_members.recipient_number % 2 = 0,
    CASE team_members.recipient_number % 2
        WHEN 0 THEN '{}'::preferences.channel[]
        ELSE '{in_app,email}'::preferences.channel[]
    END
FROM preferences.team_members
INNER JOIN preferences.preferences ON preferences.recipient_number = team_members.recipient_number
ORDER BY team_members.wedding_id
LIMIT $1;

-- name: tell_everything
-- The service reads all of it anew before its next answer.
SELECT preferences.append_log('reload', '');

-- name: count_everything
-- What is set then, of each kind.
SELECT
    (
        SELECT count(*) FROM (
            SELECT DISTINCT quiet_start, quiet_end, time_zone FROM preferences.settings_in_effect
            WHERE quiet_start IS NOT NULL
        ) AS windows
    ) AS quiet_windows,
    (SELECT count(*) FROM preferences.role_settings) AS role_settings,
    (SELECT count(*) FROM preferences.wedding_filters) AS wedding_filters,
    (SELECT count(*) FROM preferences.preferences WHERE critical_only) AS critical_only,
    (SELECT count(*) FROM preferences.preferences WHERE NOT (system AND business AND collaboration AND wedding)) AS muted;
