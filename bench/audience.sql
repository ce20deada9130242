-- name: find_weddings
-- Whose teams bound the audience with three criteria.
SELECT wedding_id FROM preferences.weddings ORDER BY wedding_id LIMIT $1;

-- name: find_people
-- Whose entries are changed to see how soon an answer knows of it.
SELECT user_id, display_name, role, user_type::text AS user_type, tier, email, phone, time_zone
FROM preferences.recipients
WHERE number BETWEEN $1 AND $1 + $2 - 1
ORDER BY number;

-- name: count_weddings
-- How large the world is.
SELECT count(*) FROM preferences.weddings;

-- name: count_three_criteria
-- People with one of these roles or tiers, on one of these teams.
SELECT count(*)
FROM preferences.recipients
WHERE erased_at IS NULL
    AND (role = ANY ($1::text[]) OR tier = ANY ($2::text[]))
    AND number IN (SELECT recipient_number FROM preferences.team_members WHERE wedding_id = ANY ($3::uuid[]));

-- name: preview_three_criteria
-- What each of them would get: how many hear of it, do not want to, and sleep.
SELECT
    coalesce(critical_only OR NOT system, false) AS is_muted,
    coalesce(
        CASE
            WHEN quiet_start < quiet_end
                THEN (now() AT TIME ZONE time_zone)::time >= quiet_start AND (now() AT TIME ZONE time_zone)::time < quiet_end
            ELSE (now() AT TIME ZONE time_zone)::time >= quiet_start OR (now() AT TIME ZONE time_zone)::time < quiet_end
        END,
        false
    ) AS is_asleep,
    count(*)
FROM preferences.settings_in_effect
WHERE NOT erased
    AND (role = ANY ($1::text[]) OR tier = ANY ($2::text[]))
    AND number IN (SELECT recipient_number FROM preferences.team_members WHERE wedding_id = ANY ($3::uuid[]))
GROUP BY 1, 2;

-- name: resolve_everyone
-- The same of everybody, with who they are.
SELECT
    number,
    coalesce(critical_only OR NOT system, false) AS is_muted,
    coalesce(
        CASE
            WHEN quiet_start < quiet_end
                THEN (now() AT TIME ZONE time_zone)::time >= quiet_start AND (now() AT TIME ZONE time_zone)::time < quiet_end
            ELSE (now() AT TIME ZONE time_zone)::time >= quiet_start OR (now() AT TIME ZONE time_zone)::time < quiet_end
        END,
        false
    ) AS is_asleep
FROM preferences.settings_in_effect
WHERE NOT erased;

-- name: count_tier
-- Who has a tier.
SELECT count(*) FROM preferences.recipients WHERE tier = $1 AND erased_at IS NULL;

-- name: count_segment
-- People on a wedding of these statuses that is today, at its place, or so many days ahead at most.
SELECT count(*)
FROM preferences.recipients
WHERE erased_at IS NULL
    AND number IN (
        SELECT team_members.recipient_number
        FROM preferences.weddings
        INNER JOIN preferences.team_members USING (wedding_id)
        WHERE weddings.status::text = ANY ($1::text[])
            AND weddings.wedding_date - (now() AT TIME ZONE weddings.time_zone)::date BETWEEN 0 AND $2::integer
    );

-- name: resolve_segment
-- The same people, with what each of them would get.
SELECT
    number,
    coalesce(critical_only OR NOT system, false) AS is_muted,
    coalesce(
        CASE
            WHEN quiet_start < quiet_end
                THEN (now() AT TIME ZONE time_zone)::time >= quiet_start AND (now() AT TIME ZONE time_zone)::time < quiet_end
            ELSE (now() AT TIME ZONE time_zone)::time >= quiet_start OR (now() AT TIME ZONE time_zone)::time < quiet_end
        END,
        false
    ) AS is_asleep
FROM preferences.settings_in_effect
WHERE NOT erased
    AND number IN (
        SELECT team_members.recipient_number
        FROM preferences.weddings
        INNER JOIN preferences.team_members USING (wedding_id)
        WHERE weddings.status::text = ANY ($1::text[])
            AND weddings.wedding_date - (now() AT TIME ZONE weddings.time_zone)::date BETWEEN 0 AND $2::integer
    );

-- name: find_wedding
-- The one that is changed between two counts.
SELECT wedding_date, status::text AS status, time_zone FROM preferences.weddings WHERE wedding_id = $1;
