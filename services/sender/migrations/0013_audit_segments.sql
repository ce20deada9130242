-- Who makes, changes or removes a segment decides who hears of what, so the audit log has that too. Entries name the segment
-- from here on, in a second form of what is hashed; those that are in the first stay as they were.

ALTER TABLE audit_log ADD COLUMN segment_id uuid;

-- One more is allowed at once, so nothing that could be relied on goes.
-- squawk-ignore ban-drop-constraint
ALTER TABLE audit_log DROP CONSTRAINT audit_format_is_known;
ALTER TABLE audit_log ADD CONSTRAINT audit_format_is_known CHECK (format IN (1, 2)) NOT VALID;
-- In the first form it would be there without being hashed.
ALTER TABLE audit_log ADD CONSTRAINT audit_segment_is_hashed CHECK (segment_id IS NULL OR format > 1) NOT VALID;

-- As before, and the segment from the second form on.
CREATE OR REPLACE FUNCTION audit_hash(entry audit_log) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE
RETURN sha256(
    convert_to('wedsync.broadcast.audit.' || entry.format, 'UTF8')
    || audit_field(entry.previous_hash)
    || audit_field(int8send(entry.position))
    || audit_field(uuid_send(entry.event_id))
    || audit_field(int8send((extract(EPOCH FROM entry.recorded_at) * 1000000)::bigint))
    || audit_field(int8send((extract(EPOCH FROM entry.at) * 1000000)::bigint))
    || audit_field(convert_to(entry.source, 'UTF8'))
    || audit_field(convert_to(entry.actor, 'UTF8'))
    || audit_field(convert_to(entry.action, 'UTF8'))
    || audit_field(uuid_send(entry.broadcast_id))
    || audit_field(convert_to(entry.broadcast_type, 'UTF8'))
    || audit_field(int8send(entry.targeted))
    || audit_field(int8send(entry.retract::integer::bigint))
    || audit_field(int8send(entry.stopped))
    || audit_field(int8send(entry.already_sent))
    || audit_field(uuid_send(entry.user_id))
    || audit_field(uuid_send(entry.wedding_id))
    || audit_field(convert_to(entry.role_before, 'UTF8'))
    || audit_field(convert_to(entry.role_after, 'UTF8'))
    || audit_field(convert_to(entry.method, 'UTF8'))
    || audit_field(int8send(entry.attempts))
    || CASE WHEN entry.format > 1 THEN audit_field(uuid_send(entry.segment_id)) ELSE '' END
);

-- As before, in the second form.
CREATE OR REPLACE FUNCTION chain_audit_entry() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = sender, pg_temp
AS $function$
DECLARE
    last record;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('sender.audit_log', 0));
    SELECT audit_log.position, audit_log.hash INTO last
    FROM audit_log
    ORDER BY audit_log.position DESC
    LIMIT 1;
    NEW.position := coalesce(last.position, 0) + 1;
    NEW.format := 2;
    NEW.recorded_at := clock_timestamp();
    NEW.previous_hash := coalesce(last.hash, decode(repeat('00', 32), 'hex'));
    NEW.hash := audit_hash(NEW);
    RETURN NEW;
END;
$function$;
