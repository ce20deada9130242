-- Erasing a person cuts what leads from their user id to their number, and removes all that is about them here. The number
-- stays, as nobody's: counts are of numbers, everywhere in the suite.

-- Who was erased, as digests of user ids: whoever feeds the directory may name them again, and must not bring them back. A
-- random id cannot be found by its digest.
CREATE TABLE erased_users (
    user_hash bytea PRIMARY KEY,
    erased_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT user_hash_is_sha256 CHECK (octet_length(user_hash) = 32)
);
GRANT SELECT, INSERT ON erased_users TO preferences_worker;

CREATE FUNCTION user_hash(user_id uuid) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN sha256(uuid_send(user_id));

-- Which services are still to remove a person, this one too: each twice, because a call that had found them before may have
-- written after the first time. The row goes, and with it the user id, when the second is confirmed.
CREATE TABLE erasures (
    number integer NOT NULL,
    user_id uuid NOT NULL,
    service text NOT NULL,
    -- When it confirmed for the first time.
    told_at timestamptz,
    -- When it is to be told next, or again if it cannot be reached. At first that is left to the call that erases them, which
    -- waits as long.
    due_at timestamptz NOT NULL DEFAULT now() + interval '2 seconds',
    PRIMARY KEY (number, service),
    CONSTRAINT erasures_of_somebody_known FOREIGN KEY (number) REFERENCES recipients (number),
    CONSTRAINT erasures_service_known CHECK (service IN ('preferences', 'inbox', 'sender'))
);

CREATE INDEX erasures_by_time ON erasures (due_at);

ALTER TABLE erasures ENABLE ROW LEVEL SECURITY;
ALTER TABLE erasures FORCE ROW LEVEL SECURITY;
CREATE POLICY worker_reads_and_writes ON erasures TO preferences_worker USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, DELETE ON erasures TO preferences_worker;
GRANT UPDATE (told_at, due_at) ON erasures TO preferences_worker;

-- A user id is replaced once: when its person goes. Whatever the worker's statements say, it never stands for another.
GRANT UPDATE (user_id) ON recipients TO preferences_worker;

CREATE FUNCTION refuse_other_user() RETURNS trigger
LANGUAGE plpgsql
AS $function$
BEGIN
    RAISE EXCEPTION 'a user id is replaced only when its person is erased' USING ERRCODE = 'insufficient_privilege';
END;
$function$;

CREATE TRIGGER user_goes_with_the_person BEFORE UPDATE OF user_id ON recipients
FOR EACH ROW WHEN (OLD.user_id <> NEW.user_id AND (OLD.erased_at IS NOT NULL OR NEW.erased_at IS NULL))
EXECUTE FUNCTION refuse_other_user();

-- The audit log names who was erased; that their role went with them goes without saying.
CREATE OR REPLACE FUNCTION audit_person() RETURNS trigger
LANGUAGE plpgsql
SET search_path = preferences, pg_temp
AS $function$
BEGIN
    IF TG_ARGV[0] = 'erased' THEN
        INSERT INTO audit_events (action, user_id) VALUES ('erased', OLD.user_id);
    ELSIF TG_OP = 'INSERT' THEN
        INSERT INTO audit_events (action, user_id, role_after) VALUES ('role_changed', NEW.user_id, NEW.role);
    ELSE
        INSERT INTO audit_events (action, user_id, role_before, role_after)
        VALUES ('role_changed', NEW.user_id, OLD.role, NEW.role);
    END IF;
    RETURN NULL;
END;
$function$;

DROP TRIGGER audit_role ON recipients;
CREATE TRIGGER audit_role AFTER UPDATE OF role ON recipients
FOR EACH ROW WHEN (OLD.role <> NEW.role AND NEW.erased_at IS NULL)
EXECUTE FUNCTION audit_person('role_changed');

-- Settings are their person's own to change, and the worker's to remove once the person is gone.
CREATE POLICY worker_removes_of_the_erased ON preferences FOR DELETE TO preferences_worker
USING ((SELECT recipients.erased_at FROM recipients WHERE recipients.number = recipient_number) IS NOT NULL);
CREATE POLICY worker_removes_of_the_erased ON role_settings FOR DELETE TO preferences_worker
USING ((SELECT recipients.erased_at FROM recipients WHERE recipients.number = recipient_number) IS NOT NULL);
CREATE POLICY worker_removes_of_the_erased ON wedding_filters FOR DELETE TO preferences_worker
USING ((SELECT recipients.erased_at FROM recipients WHERE recipients.number = recipient_number) IS NOT NULL);
GRANT DELETE ON preferences, role_settings, wedding_filters TO preferences_worker;

-- Edits of one person and their erasure take turns: edits share theirs. One that comes after finds here that there is nobody,
-- before it holds anything that an erasure could wait for.
CREATE FUNCTION turn_of_person(number integer) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN hashtextextended('preferences.person.' || number, 0);

CREATE FUNCTION refuse_settings_of_nobody() RETURNS trigger
LANGUAGE plpgsql
SET search_path = preferences, pg_temp
AS $function$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(turn_of_person(caller_number()));
    IF EXISTS (SELECT FROM recipients WHERE number = caller_number() AND erased_at IS NOT NULL) THEN
        RAISE EXCEPTION 'the erased have no settings'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'preferences_of_somebody';
    END IF;
    RETURN NULL;
END;
$function$;

CREATE TRIGGER settings_are_somebodys BEFORE INSERT OR UPDATE ON preferences
FOR EACH STATEMENT WHEN (caller_number() IS NOT NULL)
EXECUTE FUNCTION refuse_settings_of_nobody();

-- Removes a person who is on no team any more and whose turn it is: nothing but a number is left of them, and rows that say
-- who is still to be told. Answers since when that is so, and the weddings that they had filters for.
CREATE FUNCTION erase_recipient(wanted integer, services text[])
RETURNS TABLE (erased_at timestamptz, filtered uuid[])
LANGUAGE plpgsql
AS $function$
#variable_conflict use_column
BEGIN
    INSERT INTO erased_users (user_hash)
    SELECT user_hash(recipients.user_id) FROM recipients WHERE recipients.number = wanted;
    INSERT INTO erasures (number, user_id, service)
    SELECT recipients.number, recipients.user_id, told.service
    FROM recipients
    CROSS JOIN unnest(services) AS told (service)
    WHERE recipients.number = wanted;
    UPDATE recipients
    SET
        user_id = gen_random_uuid(),
        display_name = 'Erased',
        role = 'erased',
        user_type = 'staff',
        tier = 'erased',
        email = NULL,
        phone = NULL,
        time_zone = 'UTC',
        erased_at = now(),
        update_time = now()
    WHERE recipients.number = wanted;
    DELETE FROM role_settings WHERE role_settings.recipient_number = wanted;
    RETURN QUERY
    WITH gone AS (
        DELETE FROM wedding_filters
        WHERE wedding_filters.recipient_number = wanted
        RETURNING wedding_filters.wedding_id
    )
    SELECT now(), coalesce(array_agg(gone.wedding_id), '{}') FROM gone;
    DELETE FROM preferences WHERE preferences.recipient_number = wanted;
END;
$function$;
