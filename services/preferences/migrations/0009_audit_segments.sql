-- Who makes, changes or removes a segment decides who hears of what: the audit log is told of that as of roles and teams.

ALTER TABLE audit_events ADD COLUMN segment_id uuid;
-- Senders know no other event than one about a person; those that are told of a segment come with this version.
-- squawk-ignore ban-drop-not-null
ALTER TABLE audit_events ALTER COLUMN user_id DROP NOT NULL;

-- More is allowed at once, so nothing that could be relied on goes.
-- squawk-ignore ban-drop-constraint
ALTER TABLE audit_events DROP CONSTRAINT audit_events_action_known;
ALTER TABLE audit_events ADD CONSTRAINT audit_events_action_known CHECK (
    action IN (
        'role_changed', 'team_joined', 'team_left', 'erased', 'segment_created', 'segment_updated', 'segment_deleted'
    )
) NOT VALID;
ALTER TABLE audit_events ADD CONSTRAINT audit_events_person_or_segment CHECK (
    CASE WHEN action IN ('segment_created', 'segment_updated', 'segment_deleted')
        THEN segment_id IS NOT NULL AND user_id IS NULL
        ELSE user_id IS NOT NULL AND segment_id IS NULL
    END
) NOT VALID;

CREATE FUNCTION audit_segment() RETURNS trigger
LANGUAGE plpgsql
SET search_path = preferences, pg_temp
AS $function$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO audit_events (action, segment_id) VALUES (TG_ARGV[0], OLD.segment_id);
    ELSE
        INSERT INTO audit_events (action, segment_id) VALUES (TG_ARGV[0], NEW.segment_id);
    END IF;
    RETURN NULL;
END;
$function$;

CREATE TRIGGER audit_new_segment AFTER INSERT ON segments
FOR EACH ROW EXECUTE FUNCTION audit_segment('segment_created');

-- Of a count that is kept nobody needs to know.
CREATE TRIGGER audit_changed_segment AFTER UPDATE OF
name, description, is_active, roles, tiers, user_types, wedding_statuses, wedding_within_days ON segments
FOR EACH ROW EXECUTE FUNCTION audit_segment('segment_updated');

CREATE TRIGGER audit_removed_segment AFTER DELETE ON segments
FOR EACH ROW EXECUTE FUNCTION audit_segment('segment_deleted');
