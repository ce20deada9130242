-- What is kept, and for how long: a broadcast until nothing shows it and nobody asks about it any more, an answer for as long
-- as its call may be repeated. Who removes them is the worker, by policies of its own: whatever its settings say, it can
-- remove nothing that is not over, nothing critical, and nothing of the last days.

-- When it came to the state that it is in, if dispatching is over then. By a trigger, so that no statement that moves a state,
-- now or later, can forget it.
ALTER TABLE broadcasts ADD COLUMN ended_at timestamptz;

-- The owner is held to the policies as well, and none is for it: for what was sent before.
ALTER TABLE broadcasts NO FORCE ROW LEVEL SECURITY;
UPDATE broadcasts
SET ended_at = coalesce(
    cancelled_at, failed_at, sent_at, CASE state WHEN 'expired' THEN expires_at END, greatest(scheduled_for, expires_at)
)
WHERE state NOT IN ('awaiting_approval', 'pending', 'dispatching');
ALTER TABLE broadcasts FORCE ROW LEVEL SECURITY;

CREATE FUNCTION note_end() RETURNS trigger
LANGUAGE plpgsql
AS $function$
BEGIN
    new.ended_at := CASE
        WHEN new.state NOT IN ('awaiting_approval', 'pending', 'dispatching') THEN clock_timestamp()
    END;
    RETURN new;
END
$function$;

CREATE TRIGGER state_has_its_time BEFORE UPDATE OF state ON broadcasts
FOR EACH ROW WHEN (new.state IS DISTINCT FROM old.state) EXECUTE FUNCTION note_end();

-- What retention walks, from the one that ended first on. Critical ones are not in it: they are kept with their receipts.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX ended_broadcasts ON broadcasts (ended_at, broadcast_id) WHERE ended_at IS NOT NULL AND priority <> 1;

-- Whether nobody can be shown a broadcast by us any more: over for so long, sooner if it has expired, and no cancel of it left
-- to finish. Whether an inbox still shows it, only the inbox knows.
CREATE FUNCTION is_over(broadcast broadcasts, expired_term interval, other_term interval) RETURNS boolean
LANGUAGE sql STABLE
RETURN (broadcast).priority <> 1
    AND (broadcast).ended_at < now() - CASE
        WHEN (broadcast).expires_at <= now() THEN least(expired_term, other_term)
        ELSE other_term
    END
    AND CASE (broadcast).state
        WHEN 'sent' THEN (broadcast).cancel_requested_at IS NULL
        WHEN 'cancelled' THEN (broadcast).retract <= (broadcast).retracted
        ELSE true
    END;

CREATE POLICY remove_what_is_over ON broadcasts FOR DELETE TO sender_worker
USING (is_over(broadcasts, interval '7 days', interval '7 days'));

-- An answer may be asked for again for a day.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX requests_by_age ON requests (at);

CREATE POLICY find_what_is_old ON requests FOR SELECT TO sender_worker USING (at < now() - interval '24 hours');
CREATE POLICY remove_what_is_old ON requests FOR DELETE TO sender_worker USING (at < now() - interval '24 hours');

-- The worker sees the age of answers, and neither whose they are nor what they say.
GRANT DELETE ON broadcasts TO sender_worker;
GRANT SELECT (at, ctid), DELETE ON requests TO sender_worker;
