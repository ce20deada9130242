-- Lists of broadcasts, newest first. Each page is a walk down an index that ends when the page is full, and the policies
-- decide about each row as they do for a single broadcast.

-- Sends wait while an index is built, a second for a million broadcasts, because each file is one transaction.
-- squawk-ignore-file require-concurrent-index-creation
CREATE INDEX broadcasts_by_creation ON broadcasts (created_at, broadcast_id);
CREATE INDEX broadcasts_by_author ON broadcasts (created_by, created_at, broadcast_id);
CREATE INDEX broadcasts_by_type ON broadcasts (type, created_at, broadcast_id);
CREATE INDEX broadcasts_by_schedule ON broadcasts (scheduled_for);
-- Nearly all broadcasts are sent, and who asks for another state asks for a few of them. What compares states may tell
-- of a row why it was left out (enum_eq is not leakproof), so under policies it can be a condition of the index itself only.
CREATE INDEX broadcasts_not_sent ON broadcasts (created_at, broadcast_id) WHERE state <> 'sent';
CREATE INDEX walls_by_wedding ON walls (wedding_id, broadcast_id);

-- Whether a list wants a broadcast; what is null does not matter. Times are from and before, as is the place after which
-- a page begins. It is made part of each query that asks it.
CREATE FUNCTION is_wanted(
    candidate broadcasts, states broadcast_state[], types text[], priorities integer[], author text,
    created_from timestamptz, created_before timestamptz, due_from timestamptz, due_before timestamptz,
    after_time timestamptz, after_id uuid
) RETURNS boolean
LANGUAGE sql STABLE
RETURN (states IS NULL OR candidate.state = ANY (states))
    AND (types IS NULL OR candidate.type = ANY (types))
    AND (priorities IS NULL OR candidate.priority = ANY (priorities))
    AND (author IS NULL OR candidate.created_by = author)
    AND (created_from IS NULL OR candidate.created_at >= created_from)
    AND (created_before IS NULL OR candidate.created_at < created_before)
    AND (due_from IS NULL OR candidate.scheduled_for >= due_from)
    AND (due_before IS NULL OR candidate.scheduled_for < due_before)
    AND (after_id IS NULL OR (candidate.created_at, candidate.broadcast_id) < (after_time, after_id));

-- A page of the broadcasts that are this caller's to see, newest first. Who sees all walks all of them, or those about one
-- wedding; any other their own and those about their weddings, each by its index: a policy that joins the two cannot.
-- Planned anew for each call, because which index is best depends on what is wanted.
CREATE FUNCTION list_broadcasts(
    caller text, reads_all boolean, weddings uuid[],
    states broadcast_state[], types text[], priorities integer[], author text, wedding uuid,
    created_from timestamptz, created_before timestamptz, due_from timestamptz, due_before timestamptz,
    after_time timestamptz, after_id uuid, page_size integer
) RETURNS SETOF broadcasts
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_custom_plan SET enable_seqscan = off
AS $function$
BEGIN
    PERFORM
        set_config('sender.caller', list_broadcasts.caller, true),
        set_config('sender.reads_all', list_broadcasts.reads_all::text, true),
        set_config('sender.weddings', list_broadcasts.weddings::text, true);
    RETURN QUERY
    WITH page AS (
        (
            SELECT everything.created_at, everything.broadcast_id
            FROM broadcasts AS everything
            WHERE list_broadcasts.reads_all AND list_broadcasts.wedding IS NULL
                AND is_wanted(
                    everything, states, types, priorities, author, created_from, created_before,
                    due_from, due_before, after_time, after_id
                )
            ORDER BY everything.created_at DESC, everything.broadcast_id DESC
            LIMIT list_broadcasts.page_size
        )
        UNION
        (
            SELECT own.created_at, own.broadcast_id
            FROM broadcasts AS own
            WHERE NOT list_broadcasts.reads_all AND list_broadcasts.wedding IS NULL
                AND own.created_by = list_broadcasts.caller
                AND is_wanted(
                    own, states, types, priorities, author, created_from, created_before,
                    due_from, due_before, after_time, after_id
                )
            ORDER BY own.created_at DESC, own.broadcast_id DESC
            LIMIT list_broadcasts.page_size
        )
        UNION
        (
            SELECT about.created_at, about.broadcast_id
            FROM broadcasts AS about
            WHERE about.broadcast_id IN (
                    SELECT walls.broadcast_id
                    FROM walls
                    WHERE walls.wedding_id = ANY (
                        CASE
                            WHEN list_broadcasts.wedding IS NOT NULL THEN ARRAY[list_broadcasts.wedding]
                            WHEN NOT list_broadcasts.reads_all THEN list_broadcasts.weddings
                        END
                    )
                )
                AND is_wanted(
                    about, states, types, priorities, author, created_from, created_before,
                    due_from, due_before, after_time, after_id
                )
            ORDER BY about.created_at DESC, about.broadcast_id DESC
            LIMIT list_broadcasts.page_size
        )
    )
    SELECT listed.*
    FROM page
    INNER JOIN broadcasts AS listed ON listed.broadcast_id = page.broadcast_id
    ORDER BY page.created_at DESC, page.broadcast_id DESC
    LIMIT list_broadcasts.page_size;
END
$function$;
