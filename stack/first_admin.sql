-- What makes the first admin. The statements run as the directory's own login, under its grants and policies, so that
-- whatever looks at changes of the directory sees this one too.

-- name: act_as_directory
-- A superuser may be anybody; another administrator may let themselves be this role, because they have made it.
DO $block$
BEGIN
    IF NOT pg_has_role('preferences_worker', 'SET') THEN
        GRANT preferences_worker TO CURRENT_USER WITH SET TRUE, INHERIT FALSE;
    END IF;
    SET LOCAL ROLE preferences_worker;
    SET LOCAL search_path TO preferences;
    -- Who is on record for it in the audit log.
    SET LOCAL app.actor TO 'broadcast admin bootstrap';
END
$block$;

-- name: take_turn
-- The one in which the directory is written: until this transaction ends nobody else can give anybody a role.
SELECT pg_advisory_xact_lock(hashtextextended('preferences.directory', 0));

-- name: count_admins
-- Whether this is the first one. Who was erased is nobody.
SELECT count(*) AS admins FROM recipients WHERE role = 'admin' AND erased_at IS NULL;

-- name: find_person
-- Whether the directory knows them, and still does. Of the erased it has a digest.
SELECT erased_at IS NOT NULL AS is_erased FROM recipients WHERE user_id = $1
UNION ALL
SELECT true FROM erased_users WHERE user_hash = user_hash($1);

-- name: promote
-- Somebody whom the directory knows keeps everything else.
UPDATE recipients SET role = 'admin', update_time = now() WHERE user_id = $1 RETURNING number;

-- name: add
-- Somebody new, who is one of WedSync's own.
INSERT INTO recipients (user_id, display_name, role, user_type, tier, time_zone)
VALUES ($1, $2, 'admin', 'staff', 'free', $3)
RETURNING number;

-- name: tell
-- In the same transaction and last in it: whoever asks after the commit is answered with it.
SELECT append_log('recipients', $1) AS version;
