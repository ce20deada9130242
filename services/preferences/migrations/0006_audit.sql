-- What the directory changes of roles and teams is told to the audit log, which the sender keeps: each change writes an
-- event by a trigger, in its own transaction, and the event waits here until the sender has it.

CREATE TABLE audit_events (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- By which the sender knows one that it is told again.
    event_id uuid NOT NULL DEFAULT gen_random_uuid(),
    at timestamptz NOT NULL DEFAULT now(),
    -- A user id, the name of a service account, or the login when the transaction names nobody.
    actor text NOT NULL DEFAULT coalesce(nullif(current_setting('app.actor', true), ''), session_user::text),
    action text NOT NULL,
    user_id uuid NOT NULL,
    wedding_id uuid,
    role_before text,
    role_after text,

    CONSTRAINT audit_events_action_known CHECK (
        action IN ('role_changed', 'team_joined', 'team_left', 'erased')
    ),
    CONSTRAINT audit_events_actor_named CHECK (char_length(actor) BETWEEN 1 AND 64),
    CONSTRAINT audit_events_wedding_of_team CHECK (
        (wedding_id IS NOT NULL) = (action IN ('team_joined', 'team_left'))
    ),
    CONSTRAINT audit_events_roles_of_change CHECK (
        CASE action
            WHEN 'role_changed' THEN role_after IS NOT NULL AND role_after IS DISTINCT FROM role_before
            ELSE num_nonnulls(role_before, role_after) = 0
        END
    )
);

CREATE FUNCTION audit_person() RETURNS trigger
LANGUAGE plpgsql
SET search_path = preferences, pg_temp
AS $function$
BEGIN
    IF TG_ARGV[0] = 'erased' THEN
        INSERT INTO audit_events (action, user_id) VALUES ('erased', NEW.user_id);
    ELSIF TG_OP = 'INSERT' THEN
        INSERT INTO audit_events (action, user_id, role_after) VALUES ('role_changed', NEW.user_id, NEW.role);
    ELSE
        INSERT INTO audit_events (action, user_id, role_before, role_after)
        VALUES ('role_changed', NEW.user_id, OLD.role, NEW.role);
    END IF;
    RETURN NULL;
END;
$function$;

-- Somebody new of another role has been given no rights: that is a kind of person.
CREATE TRIGGER audit_new_role AFTER INSERT ON recipients
FOR EACH ROW WHEN (NEW.role IN ('admin', 'coordinator'))
EXECUTE FUNCTION audit_person('role_changed');

CREATE TRIGGER audit_role AFTER UPDATE OF role ON recipients
FOR EACH ROW WHEN (OLD.role <> NEW.role)
EXECUTE FUNCTION audit_person('role_changed');

CREATE TRIGGER audit_erasure AFTER UPDATE OF erased_at ON recipients
FOR EACH ROW WHEN (OLD.erased_at IS NULL AND NEW.erased_at IS NOT NULL)
EXECUTE FUNCTION audit_person('erased');

-- Who is on a team is inside its wall, and a coordinator may write to it.
CREATE FUNCTION audit_team() RETURNS trigger
LANGUAGE plpgsql
SET search_path = preferences, pg_temp
AS $function$
BEGIN
    INSERT INTO audit_events (action, user_id, wedding_id)
    SELECT TG_ARGV[0], recipients.user_id, moved.wedding_id
    FROM moved
    JOIN recipients ON recipients.number = moved.recipient_number
    ORDER BY moved.wedding_id, moved.recipient_number;
    RETURN NULL;
END;
$function$;

CREATE TRIGGER audit_joined AFTER INSERT ON team_members
REFERENCING NEW TABLE AS moved
FOR EACH STATEMENT EXECUTE FUNCTION audit_team('team_joined');

CREATE TRIGGER audit_left AFTER DELETE ON team_members
REFERENCING OLD TABLE AS moved
FOR EACH STATEMENT EXECUTE FUNCTION audit_team('team_left');

ALTER TABLE audit_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_events FORCE ROW LEVEL SECURITY;
CREATE POLICY worker_adds_and_tells ON audit_events TO preferences_worker USING (true) WITH CHECK (true);

-- An event cannot be altered on its way; it goes when the sender has it.
GRANT SELECT, INSERT, DELETE ON audit_events TO preferences_worker;
