-- Every statement of the preferences service. The first ones run as the personal login, under the caller's identity.

-- name: read_preferences
-- What the caller is asked about, and what they have set; and the time now, for an edit of it.
SELECT
    role, version, update_time, system, business, collaboration, wedding, critical_only, channels::text[] AS channels,
    quiet_enabled, quiet_start, quiet_end, quiet_time_zone, role_settings, wedding_filters, now() AS read_at
FROM read_preferences($1);

-- name: save_preferences
-- An edit, with its place in the log and its answer, unless another one came first; and once for a request_id.
SELECT is_kept, known_body_hash, known_response
FROM save_preferences_once(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14::text[]::channel[], $15, $16, $17, $18, $19, $20, $21, $22
);

-- name: list_own_weddings
-- Where somebody belongs: how far their own wedding filters may reach, and what they are shown of others' broadcasts.
SELECT wedding_id
FROM team_members
WHERE recipient_number = $1
ORDER BY wedding_id;

-- name: find_log_identity
-- What tells the log that a connection leads to from any other; null on a standby. Postgres begins another timeline at each
-- recovery to a point in time and at each promotion, not after a crash; what a dump brings back has numbers of its own.
SELECT
    CASE
        WHEN NOT pg_is_in_recovery() THEN encode(substr(sha256(convert_to(concat_ws(
            ' ',
            cluster.system_identifier,
            left(pg_walfile_name(pg_current_wal_lsn()), 8),
            here.oid,
            'log'::regclass::oid
        ), 'UTF8')), 1, 16), 'hex')::uuid
    END AS identity
FROM pg_control_system() AS cluster
INNER JOIN pg_database AS here ON here.datname = current_database();

-- name: find_recipient
-- An entry of the directory, as far as the caller may see it.
SELECT number, user_id, display_name, role, user_type::text AS user_type, tier, email, phone, time_zone, update_time
FROM find_recipient($1, $2, $3);

-- name: find_numbers
-- Who these users are. A number never changes, so the answer may be kept; who is erased later, the index knows.
SELECT user_id, number
FROM recipients
WHERE user_id = ANY($1::uuid[]) AND erased_at IS NULL;

-- name: find_names
-- Who these numbers are, for services that know people by their numbers.
SELECT number, user_id, display_name
FROM recipients
WHERE number = ANY($1::integer[]) AND erased_at IS NULL
ORDER BY number;

-- name: list_people
-- What the index is built from, in pages of numbers: people by standing, by settings, and by quiet hours, a row a group.
SELECT
    grouping(tier) = 0 AS is_standing, grouping(time_zone) = 0 AS is_window,
    role, tier, user_type::text AS user_type, erased,
    preset_role, system, business, collaboration, wedding, critical_only, channels::text[] AS channels,
    muted_types, role_channels::text[] AS role_channels,
    quiet_start, quiet_end, time_zone,
    string_agg(int4send(number), '') AS numbers
FROM settings_in_effect
WHERE number >= $1 AND number < $2
GROUP BY GROUPING SETS (
    (role, tier, user_type, erased),
    (
        preset_role, system, business, collaboration, wedding, critical_only, channels,
        muted_types, role_channels
    ),
    (preset_role, quiet_start, quiet_end, time_zone)
);

-- name: find_people
-- The same for those whom the log names.
SELECT
    grouping(tier) = 0 AS is_standing, grouping(time_zone) = 0 AS is_window,
    role, tier, user_type::text AS user_type, erased,
    preset_role, system, business, collaboration, wedding, critical_only, channels::text[] AS channels,
    muted_types, role_channels::text[] AS role_channels,
    quiet_start, quiet_end, time_zone,
    string_agg(int4send(number), '') AS numbers
FROM settings_in_effect
WHERE number = ANY($1::integer[])
GROUP BY GROUPING SETS (
    (role, tier, user_type, erased),
    (
        preset_role, system, business, collaboration, wedding, critical_only, channels,
        muted_types, role_channels
    ),
    (preset_role, quiet_start, quiet_end, time_zone)
);

-- name: find_last_number
-- Where the pages of recipient numbers end.
SELECT coalesce(max(number), 0) AS number
FROM recipients;

-- name: list_weddings_after
-- What the index keeps of weddings, in pages; teams as one value each.
SELECT
    weddings.wedding_id, weddings.couple_name, weddings.wedding_date, weddings.time_zone, weddings.team_version,
    weddings.status::text AS status, team.numbers
FROM weddings
CROSS JOIN LATERAL (
    SELECT coalesce(string_agg(int4send(team_members.recipient_number), ''), '') AS numbers
    FROM team_members
    WHERE team_members.wedding_id = weddings.wedding_id
) AS team
WHERE $1::uuid IS NULL OR weddings.wedding_id > $1
ORDER BY weddings.wedding_id
LIMIT $2;

-- name: find_weddings
-- The same for those whom the log names.
SELECT
    weddings.wedding_id, weddings.couple_name, weddings.wedding_date, weddings.time_zone, weddings.team_version,
    weddings.status::text AS status, team.numbers
FROM weddings
CROSS JOIN LATERAL (
    SELECT coalesce(string_agg(int4send(team_members.recipient_number), ''), '') AS numbers
    FROM team_members
    WHERE team_members.wedding_id = weddings.wedding_id
) AS team
WHERE weddings.wedding_id = ANY($1::uuid[]);

-- name: find_filters
-- What people have set for these weddings: one row for all who have set the same for one of them.
SELECT wedding_id, muted, channels::text[] AS channels, string_agg(int4send(recipient_number), '') AS numbers
FROM wedding_filters
WHERE wedding_id = ANY($1::uuid[])
GROUP BY wedding_id, muted, channels;

-- name: list_segment_criteria
-- What the index keeps of segments: nothing of how many meet them, which changes without a place in the log.
SELECT
    segment_id, version, is_active, roles, tiers, user_types::text[] AS user_types,
    wedding_statuses::text[] AS wedding_statuses, wedding_within_days
FROM segments;

-- name: find_segment_criteria
-- The same for those whom the log names.
SELECT
    segment_id, version, is_active, roles, tiers, user_types::text[] AS user_types,
    wedding_statuses::text[] AS wedding_statuses, wedding_within_days
FROM segments
WHERE segment_id = ANY($1::uuid[]);

-- name: find_segment
-- One as it is shown.
SELECT
    segment_id, name, description, is_active, roles, tiers, user_types::text[] AS user_types,
    wedding_statuses::text[] AS wedding_statuses, wedding_within_days, version,
    user_count, user_count_time, create_time, update_time
FROM segments
WHERE segment_id = $1;

-- name: list_segments_after
-- A page by name; what follows a name is what follows it whatever its case. No name is empty.
SELECT
    segment_id, name, description, is_active, roles, tiers, user_types::text[] AS user_types,
    wedding_statuses::text[] AS wedding_statuses, wedding_within_days, version,
    user_count, user_count_time, create_time, update_time
FROM segments
WHERE lower(name) > lower($1)
ORDER BY lower(name)
LIMIT $2;

-- name: add_segment
-- A new one, counted.
INSERT INTO segments (
    name, description, is_active, roles, tiers, user_types, wedding_statuses, wedding_within_days,
    user_count, user_count_time
)
VALUES ($1, $2, $3, $4, $5, $6::text[]::user_type[], $7::text[]::wedding_status[], $8, $9, now())
RETURNING
    segment_id, name, description, is_active, roles, tiers, user_types::text[] AS user_types,
    wedding_statuses::text[] AS wedding_statuses, wedding_within_days, version,
    user_count, user_count_time, create_time, update_time;

-- name: change_segment
-- All of one, counted anew; it is its changer's turn.
UPDATE segments
SET
    name = $2,
    description = $3,
    is_active = $4,
    roles = $5,
    tiers = $6,
    user_types = $7::text[]::user_type[],
    wedding_statuses = $8::text[]::wedding_status[],
    wedding_within_days = $9,
    version = version + 1,
    user_count = $10,
    user_count_time = now(),
    update_time = now()
WHERE segment_id = $1
RETURNING
    segment_id, name, description, is_active, roles, tiers, user_types::text[] AS user_types,
    wedding_statuses::text[] AS wedding_statuses, wedding_within_days, version,
    user_count, user_count_time, create_time, update_time;

-- name: remove_segment
-- One; it is its remover's turn.
DELETE FROM segments
WHERE segment_id = $1;

-- name: list_due_counts
-- Whose count is older than it should be: not those that another process has just counted.
SELECT segment_id
FROM segments
WHERE user_count_time IS NULL OR user_count_time < now() - make_interval(secs => $1::float8)
ORDER BY user_count_time NULLS FIRST;

-- name: keep_count
-- How many met the criteria of this version; of another it says nothing.
UPDATE segments
SET user_count = $3, user_count_time = now()
WHERE segment_id = $1 AND version = $2;

-- name: take_directory_turn
-- One change of people, weddings, teams or segments at a time, so that none decides on what another is about to change; and
-- whose it is, for what the audit log is told of it.
SELECT
    set_config('app.actor', $1, true) AS actor,
    pg_advisory_xact_lock(hashtextextended('preferences.directory', 0));

-- name: find_roles
-- Who is to be changed, and whether it would give or take the admin role.
SELECT user_id, role
FROM recipients
WHERE user_id = ANY($1::uuid[]);

-- name: find_erased
-- Who of these was erased. Whoever feeds the directory may name them for ever, and must not be refused for it.
SELECT named.user_id
FROM unnest($1::uuid[]) AS named (user_id)
WHERE EXISTS (SELECT FROM erased_users WHERE erased_users.user_hash = user_hash(named.user_id));

-- name: upsert_recipients
-- Adds who is new and alters who is different, in the order given. The erased are not brought back.
WITH given AS (
    SELECT place, user_id, display_name, role, user_type::user_type AS user_type, tier, email, phone, time_zone
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[])
        WITH ORDINALITY AS entry (user_id, display_name, role, user_type, tier, email, phone, time_zone, place)
), altered AS (
    UPDATE recipients
    SET
        display_name = given.display_name,
        role = given.role,
        user_type = given.user_type,
        tier = given.tier,
        email = given.email,
        phone = given.phone,
        time_zone = given.time_zone,
        update_time = now()
    FROM given
    WHERE recipients.user_id = given.user_id
        AND recipients.erased_at IS NULL
        AND (
            recipients.display_name, recipients.role, recipients.user_type, recipients.tier, recipients.email,
            recipients.phone, recipients.time_zone
        ) IS DISTINCT FROM (
            given.display_name, given.role, given.user_type, given.tier, given.email, given.phone, given.time_zone
        )
    RETURNING recipients.user_id
), added AS (
    INSERT INTO recipients (user_id, display_name, role, user_type, tier, email, phone, time_zone)
    SELECT user_id, display_name, role, user_type, tier, email, phone, time_zone
    FROM given
    WHERE NOT EXISTS (SELECT FROM recipients AS known WHERE known.user_id = given.user_id)
        AND NOT EXISTS (SELECT FROM erased_users WHERE erased_users.user_hash = user_hash(given.user_id))
    ORDER BY place
    RETURNING user_id, number
)
SELECT
    coalesce(known.number, added.number, 0) AS number,
    added.number IS NOT NULL AS is_added,
    altered.user_id IS NOT NULL AS is_altered
FROM given
LEFT JOIN recipients AS known ON known.user_id = given.user_id
LEFT JOIN added ON added.user_id = given.user_id
LEFT JOIN altered ON altered.user_id = given.user_id
ORDER BY given.place;

-- name: upsert_weddings
-- Adds what is new and alters what is different; teams and their versions stay.
WITH given AS (
    SELECT wedding_id, couple_name, wedding_date, status::wedding_status AS status, time_zone
    FROM unnest($1::uuid[], $2::text[], $3::date[], $4::text[], $5::text[])
        AS entry (wedding_id, couple_name, wedding_date, status, time_zone)
), altered AS (
    UPDATE weddings
    SET
        couple_name = given.couple_name,
        wedding_date = given.wedding_date,
        status = given.status,
        time_zone = given.time_zone,
        update_time = now()
    FROM given
    WHERE weddings.wedding_id = given.wedding_id
        AND (weddings.couple_name, weddings.wedding_date, weddings.status, weddings.time_zone)
        IS DISTINCT FROM (given.couple_name, given.wedding_date, given.status, given.time_zone)
    RETURNING weddings.wedding_id
), added AS (
    INSERT INTO weddings (wedding_id, couple_name, wedding_date, status, time_zone)
    SELECT wedding_id, couple_name, wedding_date, status, time_zone
    FROM given
    WHERE NOT EXISTS (SELECT FROM weddings AS known WHERE known.wedding_id = given.wedding_id)
    RETURNING wedding_id
)
SELECT wedding_id, true AS is_added
FROM added
UNION ALL
SELECT wedding_id, false
FROM altered;

-- name: find_team_version
-- Whether there is such a wedding, and whether a team was ever set.
SELECT team_version
FROM weddings
WHERE wedding_id = $1;

-- name: find_team
-- What the inbox is told: the team as it is by now.
SELECT
    weddings.team_version,
    array(
        SELECT team_members.recipient_number
        FROM team_members
        WHERE team_members.wedding_id = weddings.wedding_id
    ) AS members
FROM weddings
WHERE weddings.wedding_id = $1;

-- name: find_unsettled_teams
-- Teams that the inbox was told of a while ago and has not confirmed, or could not be told of; few enough for one turn.
-- Each arm goes by the index of its state, which leaves out all that has ended.
(
    SELECT key
    FROM outbox
    WHERE state = 'published' AND created_at < clock_timestamp() - make_interval(secs => $1::float8)
    LIMIT 100
)
UNION ALL
(
    SELECT key
    FROM outbox
    WHERE state = 'pending' AND created_at < clock_timestamp() - make_interval(secs => $1::float8)
    LIMIT 100
);

-- name: replace_team
-- The whole team at once: who is not named leaves, who is joins.
WITH removed AS (
    DELETE FROM team_members
    WHERE wedding_id = $1 AND recipient_number <> ALL($2::integer[])
    RETURNING recipient_number
), added AS (
    INSERT INTO team_members (wedding_id, recipient_number)
    SELECT $1, named.recipient_number
    FROM unnest($2::integer[]) AS named (recipient_number)
    ON CONFLICT DO NOTHING
    RETURNING recipient_number
)
SELECT (SELECT count(*) FROM added) AS added, (SELECT count(*) FROM removed) AS removed;

-- name: raise_team_versions
-- What tells the inbox which of two teams is the later one.
UPDATE weddings
SET team_version = team_version + 1, update_time = now()
WHERE wedding_id = ANY($1::uuid[])
RETURNING wedding_id, team_version;

-- name: list_audit_events
-- What the sender has not been told yet, in order.
SELECT event_id, at, actor, action, user_id, wedding_id, role_before, role_after, segment_id
FROM audit_events
ORDER BY position
LIMIT $1;

-- name: forget_audit_events
-- The sender has these.
DELETE FROM audit_events
WHERE event_id = ANY($1::uuid[]);

-- name: find_number_to_erase
-- Somebody who has not been erased; within the directory's turn, so that nobody else erases them meanwhile.
SELECT number
FROM recipients
WHERE user_id = $1 AND erased_at IS NULL;

-- name: take_turn_of_person
-- Edits that are under way come to their end, and later ones find nobody.
SELECT pg_advisory_xact_lock(turn_of_person($1));

-- name: leave_teams
-- The weddings that are to be told so.
DELETE FROM team_members
WHERE recipient_number = $1
RETURNING wedding_id;

-- name: erase_recipient
-- All that is about them here, at once.
SELECT erased_at, filtered FROM erase_recipient($1, $2);

-- name: forget_answers_of
-- What somebody was answered who has been erased; but that they were, for as long as they may ask again.
DELETE FROM requests
WHERE caller = $1 AND method <> 'EraseRecipient';

-- name: list_due_erasures
-- Of whom a service is to be told next, oldest first.
SELECT number, user_id, service
FROM erasures
WHERE service = $1 AND due_at <= now()
ORDER BY due_at
LIMIT $2;

-- name: list_first_erasures
-- Who has not confirmed yet that a person is gone.
SELECT number, user_id, service
FROM erasures
WHERE user_id = $1 AND told_at IS NULL
ORDER BY service;

-- name: confirm_erasure
-- The first time it is to be done once more after a while; the second time there is nothing left to do.
WITH over AS (
    DELETE FROM erasures
    WHERE number = $1 AND service = $2 AND told_at IS NOT NULL AND due_at <= now()
), begun AS (
    UPDATE erasures
    SET told_at = now(), due_at = now() + make_interval(secs => $3::float8)
    WHERE number = $1 AND service = $2 AND told_at IS NULL
)
SELECT;

-- name: postpone_erasure
-- The service could not be reached, or failed. Whoever says so late does not undo what another has said meanwhile.
UPDATE erasures
SET due_at = greatest(due_at, now() + make_interval(secs => $3::float8))
WHERE number = $1 AND service = $2;

-- name: list_audit_events_about
-- What the sender has not been told yet of what somebody did, or what was done to them.
SELECT at, action, actor = $1::uuid::text AS by_you, (user_id = $1::uuid) IS TRUE AS about_you,
    wedding_id, segment_id, role_before, role_after
FROM audit_events
WHERE user_id = $1::uuid OR actor = $1::uuid::text
ORDER BY position;

-- name: list_answers_of
-- Which calls of theirs are remembered, for a day.
SELECT method, at
FROM requests
WHERE caller = $1
ORDER BY at, method;
