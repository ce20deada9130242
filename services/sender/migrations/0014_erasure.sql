-- Erasing a person: what broadcasts say that were meant for them alone is replaced, and they are taken out of every targeting;
-- what they were answered and how much they sent goes. Who wrote or approved a broadcast stays, as does the audit log: an id
-- of somebody unknown, without which a decision could not be told from one's own.
--
-- No login may do that, or look through what others were answered: there are functions for it, which run as the owner and
-- name to the policies whom they erase, in sender.erased. Each step may be done again.
CREATE FUNCTION erased_user() RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('sender.erased', true), '')::uuid;

-- A search for one person goes through those that name people, which are few.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX broadcasts_naming_people ON broadcasts (created_at, broadcast_id) WHERE user_ids <> '{}';

-- The owner is held to policies as well. A row is looked at again when it names the person no more, so while somebody is
-- being erased all can be seen; what is changed or removed must be about them.
CREATE POLICY look_for_the_erased ON broadcasts FOR SELECT TO sender_owner USING (erased_user() IS NOT NULL);
CREATE POLICY change_what_names_the_erased ON broadcasts FOR UPDATE TO sender_owner
USING (erased_user() = ANY (user_ids)) WITH CHECK (true);
CREATE POLICY look_for_the_erased ON requests FOR SELECT TO sender_owner USING (erased_user() IS NOT NULL);
CREATE POLICY change_what_names_the_erased ON requests FOR UPDATE TO sender_owner
USING (position(convert_to(erased_user()::text, 'UTF8') IN response) > 0) WITH CHECK (true);
CREATE POLICY remove_of_the_erased ON requests FOR DELETE TO sender_owner USING (caller = erased_user()::text);
CREATE POLICY find_of_the_erased ON counted_sends FOR SELECT TO sender_owner USING (caller = erased_user()::text);
CREATE POLICY remove_of_the_erased ON counted_sends FOR DELETE TO sender_owner USING (caller = erased_user()::text);

-- Whether a broadcast was meant for this person and nobody else, or for others who are erased as well; a wall can only cut off.
CREATE FUNCTION means_only(broadcast broadcasts, person uuid) RETURNS boolean
LANGUAGE sql IMMUTABLE
RETURN person = ANY ((broadcast).user_ids)
    AND (broadcast).user_ids <@ ARRAY[person, '00000000-0000-0000-0000-000000000000']
    AND NOT (broadcast).everyone
    AND cardinality((broadcast).roles) + cardinality((broadcast).tiers) + cardinality((broadcast).segment_ids) = 0;

-- Replaces what some of those say that were meant for this person alone; answers which those are. They name the person until they are taken out, so that what is interrupted is found again.
CREATE FUNCTION erase_words(erased uuid, neutral_title text, neutral_message text, most integer) RETURNS SETOF uuid
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = sender, pg_temp
AS $function$
BEGIN
    PERFORM set_config('sender.erased', erased::text, true);
    RETURN QUERY
    UPDATE broadcasts
    SET
        title = neutral_title, message = neutral_message, action_label = NULL, action_url = NULL, cancel_reason = '',
        decision_reason = ''
    WHERE broadcasts.broadcast_id = ANY (ARRAY(
        SELECT alone.broadcast_id
        FROM broadcasts AS alone
        WHERE alone.user_ids <> '{}' AND means_only(alone, erased)
        ORDER BY alone.created_at, alone.broadcast_id
        LIMIT most
    ))
    RETURNING broadcasts.broadcast_id;
END
$function$;

-- Takes a person out of the targeting of these broadcasts, and of all that were not meant for them alone, whose words come
-- first: nobody stands in their place, so that it can still be seen how many were meant.
CREATE FUNCTION erase_from_targeting(erased uuid, ids uuid[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = sender, pg_temp
AS $function$
BEGIN
    PERFORM set_config('sender.erased', erased::text, true);
    UPDATE broadcasts
    SET user_ids = array_replace(broadcasts.user_ids, erased, '00000000-0000-0000-0000-000000000000')
    WHERE broadcasts.user_ids <> '{}'
        AND erased = ANY (broadcasts.user_ids)
        AND (broadcasts.broadcast_id = ANY (ids) OR NOT means_only(broadcasts, erased));
END
$function$;

-- What others were answered that names a person: it is still the answer to their retry, without the person.
CREATE FUNCTION find_answers_naming(erased uuid)
RETURNS TABLE (caller text, method text, request_id uuid, response bytea)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = sender, pg_temp
AS $function$
BEGIN
    PERFORM set_config('sender.erased', erased::text, true);
    RETURN QUERY
    SELECT known.caller, known.method, known.request_id, known.response
    FROM requests AS known
    WHERE known.caller <> erased::text AND position(convert_to(erased::text, 'UTF8') IN known.response) > 0;
END
$function$;

CREATE FUNCTION erase_from_answer(erased uuid, caller text, method text, request_id uuid, response bytea) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = sender, pg_temp
AS $function$
#variable_conflict use_variable
BEGIN
    PERFORM set_config('sender.erased', erased::text, true);
    UPDATE requests AS known
    SET response = erase_from_answer.response
    WHERE known.caller = erase_from_answer.caller
        AND known.method = erase_from_answer.method
        AND known.request_id = erase_from_answer.request_id;
END
$function$;

-- Removes what a person was answered and how much they sent; answers what of it counted together.
CREATE FUNCTION erase_own(erased uuid) RETURNS TABLE (type text, priority smallint, wedding_id uuid)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = sender, pg_temp
AS $function$
BEGIN
    PERFORM set_config('sender.erased', erased::text, true);
    DELETE FROM requests AS known WHERE known.caller = erased::text;
    RETURN QUERY
    WITH gone AS (
        DELETE FROM counted_sends AS counted
        WHERE counted.caller = erased::text
        RETURNING counted.type, counted.priority, counted.wedding_id
    )
    SELECT DISTINCT gone.type, gone.priority, gone.wedding_id FROM gone;
END
$function$;

REVOKE EXECUTE ON FUNCTION
erase_words(uuid, text, text, integer), erase_from_targeting(uuid, uuid[]), find_answers_naming(uuid),
erase_from_answer(uuid, text, text, uuid, bytea), erase_own(uuid)
FROM sender_api;
