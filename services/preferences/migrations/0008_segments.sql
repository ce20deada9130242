-- Segments: saved criteria that a broadcast can be targeted at. Who meets them is found when it is asked, from the set
-- indexes, which follow the log here as they do for everything else; a row says what is asked for, and nothing of a person.

CREATE TABLE segments (
    segment_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL,
    description text NOT NULL DEFAULT '',
    is_active boolean NOT NULL DEFAULT true,
    -- A criterion that is empty, or null, is none.
    roles text[] NOT NULL DEFAULT '{}',
    tiers text[] NOT NULL DEFAULT '{}',
    user_types user_type[] NOT NULL DEFAULT '{}',
    wedding_statuses wedding_status[] NOT NULL DEFAULT '{}',
    wedding_within_days integer,
    -- The etag; counts the changes, and not the counts.
    version bigint NOT NULL DEFAULT 1,
    user_count bigint NOT NULL DEFAULT 0,
    -- Null until somebody has counted.
    user_count_time timestamptz,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT segments_name_fits CHECK (char_length(name) BETWEEN 1 AND 100),
    CONSTRAINT segments_description_fits CHECK (char_length(description) <= 500),
    CONSTRAINT segments_some_criterion CHECK (
        cardinality(roles) + cardinality(tiers) + cardinality(user_types) + cardinality(wedding_statuses) > 0
        OR wedding_within_days IS NOT NULL
    ),
    -- Joined by what no slug has: a text that has it comes apart otherwise than it was put together.
    CONSTRAINT segments_roles_slugs CHECK (
        cardinality(roles) <= 100
        AND array_to_string(roles, ' ', '?') ~ '^([a-z][a-z0-9_-]{0,63}( [a-z][a-z0-9_-]{0,63})*)?$'
        AND string_to_array(array_to_string(roles, ' ', '?'), ' ') = roles
    ),
    CONSTRAINT segments_tiers_slugs CHECK (
        cardinality(tiers) <= 100
        AND array_to_string(tiers, ' ', '?') ~ '^([a-z][a-z0-9_-]{0,63}( [a-z][a-z0-9_-]{0,63})*)?$'
        AND string_to_array(array_to_string(tiers, ' ', '?'), ' ') = tiers
    ),
    CONSTRAINT segments_user_types_known CHECK (array_position(user_types, NULL) IS NULL),
    CONSTRAINT segments_wedding_statuses_known CHECK (array_position(wedding_statuses, NULL) IS NULL),
    CONSTRAINT segments_wedding_days_in_range CHECK (wedding_within_days BETWEEN 0 AND 3650),
    CONSTRAINT segments_version_counts CHECK (version > 0),
    CONSTRAINT segments_user_count_counts CHECK (user_count >= 0)
);

-- Two that differ by case alone would be taken for one another. Lists are in this order.
CREATE UNIQUE INDEX segments_name_once ON segments (lower(name));

-- Those that everybody starts with. Their ids are the same everywhere, so that services can be set up with them; they can be
-- changed and deleted like any other.
INSERT INTO segments (segment_id, name, description, roles, tiers, user_types, wedding_statuses, wedding_within_days)
VALUES
(
    '5e90e000-0000-4000-8000-000000000001', 'Wedding Coordinators', 'Suppliers who coordinate weddings.',
    '{coordinator}', '{}', '{supplier}', '{}', NULL
),
(
    '5e90e000-0000-4000-8000-000000000002', 'Wedding Photographers', 'Suppliers who photograph weddings.',
    '{photographer}', '{}', '{supplier}', '{}', NULL
),
(
    '5e90e000-0000-4000-8000-000000000003', 'Active Couples',
    'Couples whose wedding is planned or confirmed and within a year.',
    '{}', '{}', '{couple}', '{planning,confirmed}', 365
),
(
    '5e90e000-0000-4000-8000-000000000004', 'Premium Users', 'Everybody on a professional or enterprise tier.',
    '{}', '{professional,enterprise}', '{}', '{}', NULL
);

-- One more is allowed at once, so nothing that could be relied on goes.
-- squawk-ignore ban-drop-constraint
ALTER TABLE log DROP CONSTRAINT log_kind_known;
ALTER TABLE log ADD CONSTRAINT log_kind_known CHECK (
    kind IN ('recipients', 'weddings', 'team', 'filters', 'segments', 'reload')
) NOT VALID;

-- Who may see them is decided by role and scope alone, at the edge.
GRANT SELECT, INSERT, DELETE ON segments TO preferences_worker;
GRANT UPDATE (
    name, description, is_active, roles, tiers, user_types, wedding_statuses, wedding_within_days, version,
    user_count, user_count_time, update_time
) ON segments TO preferences_worker;
GRANT SELECT ON segments TO preferences_api;
