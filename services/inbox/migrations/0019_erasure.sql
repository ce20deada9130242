-- Erasing a person: what leads from their user id to their number goes, and what they typed or followed. What is kept under
-- the number stays, as nobody's, because counts are made of it. And what a broadcast says can be replaced, for one that was
-- meant for this person alone.

-- Every node hears of both by the log, like of everything else that streams show: a number whose person is gone, in four bytes,
-- and a broadcast that says something else, by its id. What is there is of the kinds that were known before.
-- squawk-ignore ban-drop-constraint
ALTER TABLE log DROP CONSTRAINT log_kind_known;
ALTER TABLE log ADD CONSTRAINT log_kind_known CHECK (
    kind IN (
        'item', 'silent_item', 'alert', 'receipts', 'all_read', 'retracted', 'team', 'returned', 'expired', 'erased',
        'rewritten'
    )
) NOT VALID;

-- No login may remove who somebody is, or change what a broadcast says. Two functions do, as the owner, who is held to policies
-- too: the broadcast that it rewrites it names in app.rewritten.
CREATE FUNCTION rewritten_broadcast() RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE
RETURN nullif(current_setting('app.rewritten', true), '')::uuid;

CREATE POLICY find_what_is_rewritten ON broadcasts FOR SELECT TO inbox_owner
USING (broadcast_id = (SELECT rewritten_broadcast()));
CREATE POLICY rewrite ON broadcasts FOR UPDATE TO inbox_owner
USING (broadcast_id = (SELECT rewritten_broadcast()));

CREATE FUNCTION forget_recipient(wanted uuid) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = inbox, pg_temp
BEGIN ATOMIC
    DELETE FROM recipients WHERE recipients.user_id = forget_recipient.wanted;
END;

CREATE FUNCTION rewrite_content(
    wanted uuid, title text, message text, action_label text, action_url text, words text[]
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = inbox, pg_temp
AS $function$
BEGIN
    PERFORM set_config('app.rewritten', wanted::text, true);
    UPDATE broadcasts
    SET
        title = rewrite_content.title,
        message = rewrite_content.message,
        action_label = rewrite_content.action_label,
        action_url = rewrite_content.action_url,
        words = array_to_tsvector(rewrite_content.words)
    WHERE broadcasts.broadcast_id = wanted;
    PERFORM set_config('app.rewritten', '', true);
END
$function$;

REVOKE EXECUTE ON FUNCTION forget_recipient(uuid), rewrite_content(uuid, text, text, text, text, text[]) FROM inbox_api;

-- Forgets who a number was. Done again, it removes what a call has written meanwhile that had found them before, and has
-- every node forget them again.
CREATE FUNCTION erase_inbox(wanted_user uuid, wanted_recipient integer) RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off
AS $function$
BEGIN
    PERFORM forget_recipient(wanted_user);
    DELETE FROM requests WHERE requests.caller = wanted_user::text;
    UPDATE receipts SET clicked_url = ''
    WHERE receipts.recipient_number = wanted_recipient AND receipts.clicked_url <> '';
    RETURN append_log('erased', int4send(wanted_recipient));
END
$function$;

-- From now on these broadcasts say this, given as for keep_contents: also those of which nothing has come, because an older
-- text may be on its way here, and what is kept first stays.
CREATE FUNCTION replace_contents(contents jsonb) RETURNS void
LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM keep_contents(contents);
    PERFORM rewrite_content(
        given.broadcast_id, given.title, given.message, given.action_label, given.action_url, given.words
    )
    FROM jsonb_to_recordset(contents) AS given (
        broadcast_id uuid, title text, message text, action_label text, action_url text, words text[]
    )
    ORDER BY given.broadcast_id;
    PERFORM append_log('rewritten', uuid_send(given.broadcast_id))
    FROM jsonb_to_recordset(contents) AS given (broadcast_id uuid);
END
$function$;
