-- The audit log: who did what can be read for good, and nobody can leave it out, change it or take it away unnoticed.
-- What must not happen without an entry writes it by a trigger, in the transaction of the change.

-- One row an entry, in one chain: each carries the hash of the one before. There is no text of anybody's in it.
CREATE TABLE audit_log (
    position bigint PRIMARY KEY,
    -- Which form of an entry its hash is made from; see audit_hash.
    format smallint NOT NULL,
    -- Whose repetition is known by it.
    event_id uuid NOT NULL DEFAULT gen_random_uuid(),
    recorded_at timestamptz NOT NULL,
    -- When it happened; of attempts that were added up, the minute in which they were made.
    at timestamptz NOT NULL,
    -- The service that saw it happen.
    source text NOT NULL DEFAULT 'sender',
    -- A user id, the name of a service account, or a login of this database; '' for more callers than were kept apart.
    actor text NOT NULL,
    action text NOT NULL,
    broadcast_id uuid,
    broadcast_type text,
    targeted bigint,
    retract boolean,
    stopped bigint,
    already_sent bigint,
    -- Whom it was done to.
    user_id uuid,
    wedding_id uuid,
    role_before text,
    role_after text,
    method text,
    attempts bigint,
    previous_hash bytea NOT NULL,
    hash bytea NOT NULL,

    CONSTRAINT audit_event_once UNIQUE (event_id),
    CONSTRAINT audit_position_counts CHECK (position > 0),
    CONSTRAINT audit_format_is_known CHECK (format = 1),
    CONSTRAINT audit_times_are_times CHECK (
        least(at, recorded_at) > '0001-01-01 00:00Z' AND greatest(at, recorded_at) < '9999-12-31 00:00Z'
    ),
    CONSTRAINT audit_source_is_a_name CHECK (char_length(source) BETWEEN 1 AND 64),
    CONSTRAINT audit_actor_is_named CHECK (
        char_length(actor) <= 64 AND (actor <> '' OR action = 'wall_refused')
    ),
    CONSTRAINT audit_action_is_a_slug CHECK (action ~ '^[a-z][a-z_]{0,63}$'),
    CONSTRAINT audit_attempts_are_refusals CHECK (
        num_nonnulls(method, attempts) = CASE action WHEN 'wall_refused' THEN 2 ELSE 0 END
    ),
    CONSTRAINT audit_counts_are_counts CHECK (
        targeted >= 0 AND stopped >= 0 AND already_sent >= 0 AND attempts > 0
    ),
    CONSTRAINT audit_hashes_are_sha256 CHECK (octet_length(previous_hash) = 32 AND octet_length(hash) = 32)
);

CREATE INDEX audit_log_by_time ON audit_log (at);
CREATE INDEX audit_log_by_actor ON audit_log (actor, position);
CREATE INDEX audit_log_by_action ON audit_log (action, position);
CREATE INDEX audit_log_by_broadcast ON audit_log (broadcast_id, position) WHERE broadcast_id IS NOT NULL;
CREATE INDEX audit_log_by_user ON audit_log (user_id, position) WHERE user_id IS NOT NULL;
CREATE INDEX audit_log_by_wedding ON audit_log (wedding_id, position) WHERE wedding_id IS NOT NULL;

-- What the log's end was at a moment. A log that is cut off afterwards, or written anew, does not agree with it.
CREATE TABLE audit_checkpoints (
    position bigint PRIMARY KEY,
    hash bytea NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),

    CONSTRAINT checkpoint_position_counts CHECK (position > 0),
    CONSTRAINT checkpoint_hash_is_sha256 CHECK (octet_length(hash) = 32)
);

-- One value of an entry as it is hashed: its length in four bytes, then itself; -1 and nothing for NULL. So no two entries
-- have the same bytes.
CREATE FUNCTION audit_field(value bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(int4send(octet_length(value)) || value, int4send(-1));

-- The hash of an entry, over all of it and the hash of the one before. Numbers are eight bytes, times microseconds since
-- 1970, ids sixteen bytes, texts UTF-8. Another form gets another format, and this one stays for what was written by it.
CREATE FUNCTION audit_hash(entry audit_log) RETURNS bytea
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
);

-- Puts an entry at the end of the chain, whatever whoever adds it says of its place. Whoever adds waits for the lock until
-- the one before has committed, so entries are added last in a transaction. It runs as the owner, because those who add
-- entries need not be allowed to read them.
CREATE FUNCTION chain_audit_entry() RETURNS trigger
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
    NEW.format := 1;
    NEW.recorded_at := clock_timestamp();
    NEW.previous_hash := coalesce(last.hash, decode(repeat('00', 32), 'hex'));
    NEW.hash := audit_hash(NEW);
    RETURN NEW;
END;
$function$;

CREATE TRIGGER chain_entry BEFORE INSERT ON audit_log
FOR EACH ROW EXECUTE FUNCTION chain_audit_entry();

-- Entries and checkpoints are only ever added; not even their owner can do anything else to them in passing.
CREATE FUNCTION refuse_audit_change() RETURNS trigger
LANGUAGE plpgsql
AS $function$
BEGIN
    RAISE EXCEPTION '% is only added to: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'insufficient_privilege';
END;
$function$;

CREATE TRIGGER only_added_to BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER only_added_to BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_checkpoints
FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();

-- Who does what is done in this transaction: the caller that it names, else the login.
CREATE FUNCTION audit_actor() RETURNS text
LANGUAGE sql STABLE
RETURN coalesce(nullif(current_setting('sender.caller', true), ''), session_user::text);

-- Adds the entry of a change to a broadcast; its argument is the action.
CREATE FUNCTION audit_broadcast() RETURNS trigger
LANGUAGE plpgsql
SET search_path = sender, pg_temp
AS $function$
BEGIN
    INSERT INTO audit_log (
        at, actor, action, broadcast_id, broadcast_type, wedding_id, targeted, retract, stopped, already_sent
    )
    VALUES (
        now(), coalesce(CASE WHEN TG_ARGV[0] IN ('approved', 'rejected') THEN NEW.decided_by END, audit_actor()),
        TG_ARGV[0], NEW.broadcast_id, NEW.type, NEW.wedding_id, NEW.targeted,
        CASE TG_ARGV[0] WHEN 'cancel_requested' THEN NEW.retract WHEN 'cancelled' THEN NEW.retracted END,
        CASE TG_ARGV[0] WHEN 'cancelled' THEN NEW.stopped END,
        CASE TG_ARGV[0] WHEN 'cancelled' THEN NEW.already_sent END
    );
    RETURN NULL;
END;
$function$;

-- Deferred, so that the chain's lock is taken when all else of the transaction is done and held for its commit only. What
-- none of them is about, a send that is not critical above all, pays for no more than the conditions.
CREATE CONSTRAINT TRIGGER audit_critical AFTER INSERT ON broadcasts
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
WHEN (NEW.priority = 1)
EXECUTE FUNCTION audit_broadcast('critical_accepted');

CREATE CONSTRAINT TRIGGER audit_cancel_request AFTER UPDATE OF cancel_requested_at, retract ON broadcasts
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
WHEN (
    (OLD.cancel_requested_at IS NULL AND NEW.cancel_requested_at IS NOT NULL) OR (NEW.retract AND NOT OLD.retract)
)
EXECUTE FUNCTION audit_broadcast('cancel_requested');

CREATE CONSTRAINT TRIGGER audit_cancel AFTER UPDATE OF state, retracted ON broadcasts
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
WHEN (
    NEW.state = 'cancelled' AND (OLD.state <> 'cancelled' OR (NEW.retracted AND NOT OLD.retracted))
)
EXECUTE FUNCTION audit_broadcast('cancelled');

CREATE CONSTRAINT TRIGGER audit_approval AFTER UPDATE OF state ON broadcasts
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
WHEN (OLD.state = 'awaiting_approval' AND NEW.state = 'pending')
EXECUTE FUNCTION audit_broadcast('approved');

CREATE CONSTRAINT TRIGGER audit_rejection AFTER UPDATE OF state ON broadcasts
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
WHEN (OLD.state = 'awaiting_approval' AND NEW.state = 'rejected')
EXECUTE FUNCTION audit_broadcast('rejected');

-- A page of entries, newest first, if the caller may read them. Null filters filter nothing. Which of the indexes
-- serves depends on the filters, so each call is planned for its own.
CREATE FUNCTION list_audit_log(
    reads_audit boolean, actions text[], actor text, broadcast_id uuid, user_id uuid, wedding_id uuid,
    since timestamptz, until timestamptz, below bigint, size integer
) RETURNS SETOF audit_log
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_custom_plan
AS $function$
#variable_conflict use_column
BEGIN
    PERFORM set_config('sender.reads_audit', list_audit_log.reads_audit::text, true);
    RETURN QUERY
    SELECT entry.*
    FROM audit_log AS entry
    WHERE (list_audit_log.actions IS NULL OR entry.action = ANY (list_audit_log.actions))
        AND (list_audit_log.actor IS NULL OR entry.actor = list_audit_log.actor)
        AND (list_audit_log.broadcast_id IS NULL OR entry.broadcast_id = list_audit_log.broadcast_id)
        AND (list_audit_log.user_id IS NULL OR entry.user_id = list_audit_log.user_id)
        AND (list_audit_log.wedding_id IS NULL OR entry.wedding_id = list_audit_log.wedding_id)
        AND (list_audit_log.since IS NULL OR entry.at >= list_audit_log.since)
        AND (list_audit_log.until IS NULL OR entry.at < list_audit_log.until)
        AND (list_audit_log.below IS NULL OR entry.position < list_audit_log.below)
    ORDER BY entry.position DESC
    LIMIT list_audit_log.size;
END;
$function$;

ALTER TABLE audit_log ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_log FORCE ROW LEVEL SECURITY;

-- A call adds entries in its caller's name, and reads them where its caller may read all of them.
CREATE POLICY record_own ON audit_log FOR INSERT TO sender_api
WITH CHECK (actor = current_setting('sender.caller', true));

CREATE POLICY read_audit ON audit_log FOR SELECT TO sender_api
USING (current_setting('sender.reads_audit', true) = 'true');

-- The worker adds what it does itself and what others have seen, and checks the chain.
CREATE POLICY record_any ON audit_log FOR INSERT TO sender_worker WITH CHECK (true);
CREATE POLICY read_to_verify ON audit_log FOR SELECT TO sender_worker USING (true);

-- The end of the chain, for whoever adds to it.
CREATE POLICY read_the_end ON audit_log FOR SELECT TO sender_owner USING (true);

GRANT SELECT, INSERT ON audit_log TO sender_api;
GRANT SELECT, INSERT ON audit_log TO sender_worker;
GRANT SELECT, INSERT ON audit_checkpoints TO sender_worker;
