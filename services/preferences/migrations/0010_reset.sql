-- Who resets their preferences has none of their own, and the preset of their role holds again. What they had set is gone from
-- their row, but for its version, which goes on counting: an etag from before a reset never names what is edited after it.

-- Processes that run until they are replaced fail for whoever has reset in the meantime; nobody else reads these columns.
-- squawk-ignore-file ban-drop-not-null
ALTER TABLE preferences
ALTER COLUMN system DROP NOT NULL,
ALTER COLUMN business DROP NOT NULL,
ALTER COLUMN collaboration DROP NOT NULL,
ALTER COLUMN wedding DROP NOT NULL,
ALTER COLUMN critical_only DROP NOT NULL,
ALTER COLUMN channels DROP NOT NULL,
ALTER COLUMN quiet_enabled DROP NOT NULL,
ALTER COLUMN quiet_start DROP NOT NULL,
ALTER COLUMN quiet_end DROP NOT NULL;

-- All of it is set, or nothing is; a zone alone means nothing.
ALTER TABLE preferences ADD CONSTRAINT preferences_are_whole_or_reset CHECK (
    num_nulls(
        system, business, collaboration, wedding, critical_only, channels, quiet_enabled, quiet_start, quiet_end
    ) = CASE WHEN system IS NULL THEN 9 ELSE 0 END
    AND (system IS NOT NULL OR quiet_time_zone IS NULL)
) NOT VALID;

-- As before; a preset holds for those who have nothing set, whether they never had or have reset it.
CREATE OR REPLACE VIEW settings_in_effect WITH (security_invoker = true) AS
SELECT
    recipients.number,
    recipients.role,
    recipients.tier,
    recipients.user_type,
    recipients.erased_at IS NOT NULL AS erased,
    CASE WHEN preferences.system IS NULL THEN recipients.role END AS preset_role,
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
