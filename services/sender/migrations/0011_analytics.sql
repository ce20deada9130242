-- Analytics: how many people a broadcast had come to by the end of each day, and what they had done with it. Counted from
-- the truth (the snapshot at the dispatcher, arrivals and receipts at the inbox) as that was when the day ended, so that it
-- comes out the same whenever it is counted; and kept for good, when the broadcast, its items and receipts are gone.

-- A row for each day on which something about a broadcast had changed: the last one stands for all days since. Counts are
-- of people and never go down. What policies and filters ask for is a copy, because the broadcast may be gone.
CREATE TABLE daily_analytics (
    broadcast_id uuid NOT NULL,
    day date NOT NULL,
    type text NOT NULL,
    priority smallint NOT NULL,
    created_by text NOT NULL,
    targeted bigint NOT NULL,
    delivered bigint NOT NULL,
    read bigint NOT NULL,
    acknowledged bigint NOT NULL,
    clicked bigint NOT NULL,
    -- What all who have read it took for that together, each from its arrival.
    time_to_read_us bigint NOT NULL,

    PRIMARY KEY (broadcast_id, day),
    CONSTRAINT type_is_a_name CHECK (type ~ '^[a-z]+([.][a-z]+)+$' AND char_length(type) <= 64),
    CONSTRAINT priority_is_known CHECK (priority BETWEEN 1 AND 4),
    CONSTRAINT author_has_a_name CHECK (char_length(created_by) BETWEEN 1 AND 64),
    CONSTRAINT delivered_were_targeted CHECK (delivered BETWEEN 0 AND targeted),
    CONSTRAINT readers_had_it CHECK (read BETWEEN 0 AND delivered),
    CONSTRAINT acknowledged_were_readers CHECK (acknowledged BETWEEN 0 AND read),
    CONSTRAINT clicked_were_readers CHECK (clicked BETWEEN 0 AND read),
    CONSTRAINT reading_takes_readers_time CHECK (time_to_read_us >= 0 AND (read > 0 OR time_to_read_us = 0))
);

CREATE INDEX daily_analytics_by_day ON daily_analytics (day, broadcast_id);
CREATE INDEX daily_analytics_by_author ON daily_analytics (created_by, broadcast_id);

-- The weddings that bounded their audiences, as `walls` has them for as long as the broadcast lives.
CREATE TABLE analytics_walls (
    broadcast_id uuid NOT NULL,
    wedding_id uuid NOT NULL,
    PRIMARY KEY (broadcast_id, wedding_id)
);

CREATE INDEX analytics_walls_by_wedding ON analytics_walls (wedding_id, broadcast_id);

-- Broadcasts that still have to be counted: one that is dispatched is, every day for as long as its items live, because on
-- each of them somebody may read it.
CREATE TABLE tallies (
    broadcast_id uuid PRIMARY KEY REFERENCES broadcasts ON DELETE CASCADE,
    begun_at timestamptz NOT NULL DEFAULT now(),
    -- How many the snapshot holds; null until the dispatcher has told, and never changed after that.
    targeted bigint,
    -- The first day (UTC) that is not counted to its end.
    next_day date NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')::date,
    -- When it is looked at next. Who takes it on puts that off, so that another does if they do not come back. By then
    -- most broadcasts have arrived.
    due_at timestamptz NOT NULL DEFAULT now() + interval '2 seconds',
    counted_at timestamptz,
    CONSTRAINT targeted_is_a_count CHECK (targeted >= 0)
);

CREATE INDEX tallies_due ON tallies (due_at);
CREATE INDEX tallies_by_day ON tallies (next_day);

-- Those that were dispatched before there were analytics are counted from their first day on: the truth is still there.
-- The owner is held to the policies as well, and none is for it.
ALTER TABLE broadcasts NO FORCE ROW LEVEL SECURITY;
INSERT INTO tallies (broadcast_id, begun_at, next_day)
SELECT broadcasts.broadcast_id, broadcasts.scheduled_for, (broadcasts.scheduled_for AT TIME ZONE 'UTC')::date
FROM broadcasts
WHERE broadcasts.state IN ('dispatching', 'sent', 'cancelled')
    AND broadcasts.scheduled_for BETWEEN now() - interval '89 days' AND now();
ALTER TABLE broadcasts FORCE ROW LEVEL SECURITY;

ALTER TABLE daily_analytics ENABLE ROW LEVEL SECURITY;
ALTER TABLE daily_analytics FORCE ROW LEVEL SECURITY;

CREATE POLICY read_own_analytics ON daily_analytics FOR SELECT TO sender_api
USING (created_by = current_setting('sender.caller', true));

CREATE POLICY read_all_analytics ON daily_analytics FOR SELECT TO sender_api
USING (current_setting('sender.reads_all', true) = 'true');

CREATE POLICY read_analytics_about_own_weddings ON daily_analytics FOR SELECT TO sender_api
USING (
    EXISTS (
        SELECT
        FROM analytics_walls
        WHERE analytics_walls.broadcast_id = daily_analytics.broadcast_id
            AND analytics_walls.wedding_id = ANY (nullif(current_setting('sender.weddings', true), '')::uuid[])
    )
);

-- The worker counts, and can neither remove a day nor say that it was another's broadcast.
CREATE POLICY read_to_count ON daily_analytics FOR SELECT TO sender_worker USING (true);
CREATE POLICY add_days ON daily_analytics FOR INSERT TO sender_worker WITH CHECK (true);
CREATE POLICY raise_counts ON daily_analytics FOR UPDATE TO sender_worker USING (true);

GRANT SELECT ON daily_analytics, analytics_walls TO sender_api;
GRANT SELECT (next_day) ON tallies TO sender_api;
GRANT SELECT, INSERT ON daily_analytics TO sender_worker;
GRANT UPDATE (delivered, read, acknowledged, clicked, time_to_read_us) ON daily_analytics TO sender_worker;
GRANT SELECT, INSERT ON analytics_walls TO sender_worker;
GRANT SELECT ON walls TO sender_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON tallies TO sender_worker;

-- Keeps what was counted, one element a broadcast, and when each is looked at again, which is never where that is null.
-- Where there is no plan yet `days` is null and nothing is kept. What was counted once stays: receipts may have been erased
-- since, or have passed their time. So it makes no difference who counts what how often, and in which order.
CREATE FUNCTION keep_tallies(
    broadcast_ids uuid[], days date[], targeted bigint[], delivered bigint[], read bigint[], acknowledged bigint[],
    clicked bigint[], times_to_read_us bigint[], next_days date[], due_times timestamptz[], counted_at timestamptz
) RETURNS void
LANGUAGE sql
BEGIN ATOMIC
    INSERT INTO analytics_walls (broadcast_id, wedding_id)
    SELECT walls.broadcast_id, walls.wedding_id
    FROM unnest(keep_tallies.broadcast_ids, keep_tallies.days) AS given (broadcast_id, day)
    INNER JOIN walls ON walls.broadcast_id = given.broadcast_id
    WHERE given.day IS NOT NULL
    ON CONFLICT DO NOTHING;

    INSERT INTO daily_analytics AS known (
        broadcast_id, day, type, priority, created_by, targeted, delivered, read, acknowledged, clicked, time_to_read_us
    )
    SELECT
        given.broadcast_id, given.day, broadcasts.type, broadcasts.priority, broadcasts.created_by, given.targeted,
        greatest(given.delivered, before.delivered), greatest(given.read, before.read),
        greatest(given.acknowledged, before.acknowledged), greatest(given.clicked, before.clicked),
        CASE WHEN before.read > given.read THEN before.time_to_read_us ELSE given.time_to_read_us END
    FROM unnest(
        keep_tallies.broadcast_ids, keep_tallies.days, keep_tallies.targeted, keep_tallies.delivered, keep_tallies.read,
        keep_tallies.acknowledged, keep_tallies.clicked, keep_tallies.times_to_read_us
    ) AS given (broadcast_id, day, targeted, delivered, read, acknowledged, clicked, time_to_read_us)
    INNER JOIN broadcasts ON broadcasts.broadcast_id = given.broadcast_id
    LEFT JOIN LATERAL (
        SELECT earlier.delivered, earlier.read, earlier.acknowledged, earlier.clicked, earlier.time_to_read_us
        FROM daily_analytics AS earlier
        WHERE earlier.broadcast_id = given.broadcast_id AND earlier.day < given.day
        ORDER BY earlier.day DESC
        LIMIT 1
    ) AS before ON true
    WHERE given.day IS NOT NULL
        -- A day on which nothing happened has no row.
        AND (
            before.delivered IS NULL OR given.delivered > before.delivered OR given.read > before.read
            OR given.acknowledged > before.acknowledged OR given.clicked > before.clicked
        )
    ON CONFLICT (broadcast_id, day) DO UPDATE
    SET
        delivered = greatest(known.delivered, excluded.delivered),
        read = greatest(known.read, excluded.read),
        acknowledged = greatest(known.acknowledged, excluded.acknowledged),
        clicked = greatest(known.clicked, excluded.clicked),
        time_to_read_us = CASE
            WHEN known.read > excluded.read THEN known.time_to_read_us
            ELSE excluded.time_to_read_us
        END
    WHERE excluded.delivered > known.delivered OR excluded.read > known.read
        OR excluded.acknowledged > known.acknowledged OR excluded.clicked > known.clicked;

    UPDATE tallies
    SET
        targeted = coalesce(tallies.targeted, given.targeted),
        -- The first time, the dispatcher has told on which day to begin; from then on it only goes forward.
        next_day = CASE
            WHEN tallies.targeted IS NULL THEN given.next_day
            ELSE greatest(tallies.next_day, given.next_day)
        END,
        due_at = given.due_at,
        counted_at = greatest(tallies.counted_at, keep_tallies.counted_at)
    FROM unnest(
        keep_tallies.broadcast_ids, keep_tallies.targeted, keep_tallies.next_days, keep_tallies.due_times
    ) AS given (broadcast_id, targeted, next_day, due_at)
    WHERE tallies.broadcast_id = given.broadcast_id AND given.due_at IS NOT NULL;

    DELETE FROM tallies
    USING unnest(keep_tallies.broadcast_ids, keep_tallies.due_times) AS given (broadcast_id, due_at)
    WHERE tallies.broadcast_id = given.broadcast_id AND given.due_at IS NULL;
END;

-- The broadcasts that a call is bound to: those that it names, those about its wedding, and for who does not see all those
-- that are theirs to see; null for no bounds. They are looked up first, by their indexes, because neither a policy that
-- joins ways of seeing nor a condition that may not apply leads to any.
CREATE FUNCTION bound_analytics(caller text, reads_all boolean, weddings uuid[], ids uuid[], wedding uuid)
RETURNS uuid[]
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
AS $function$
DECLARE
    bound uuid[] := ids;
    others uuid[];
BEGIN
    IF wedding IS NOT NULL THEN
        others := array(
            SELECT analytics_walls.broadcast_id
            FROM analytics_walls
            WHERE analytics_walls.wedding_id = bound_analytics.wedding
        );
        bound := CASE
            WHEN bound IS NULL THEN others
            ELSE array(SELECT unnest(bound) INTERSECT SELECT unnest(others))
        END;
    END IF;
    IF NOT reads_all THEN
        others := array(
            SELECT own.broadcast_id
            FROM daily_analytics AS own
            WHERE own.created_by = bound_analytics.caller
            UNION
            SELECT analytics_walls.broadcast_id
            FROM analytics_walls
            WHERE analytics_walls.wedding_id = ANY (bound_analytics.weddings)
        );
        bound := CASE
            WHEN bound IS NULL THEN others
            ELSE array(SELECT unnest(bound) INTERSECT SELECT unnest(others))
        END;
    END IF;
    RETURN bound;
END
$function$;

-- The rows up to a day that a call wants; what is null does not matter. It is made part of each query that asks it.
CREATE FUNCTION wanted_analytics(
    last_day date, bound uuid[], types text[], priorities integer[], author text
) RETURNS SETOF daily_analytics
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT
        found.broadcast_id, found.day, found.type, found.priority, found.created_by, found.targeted, found.delivered,
        found.read, found.acknowledged, found.clicked, found.time_to_read_us
    FROM daily_analytics AS found
    WHERE found.day <= wanted_analytics.last_day
        AND (bound IS NULL OR found.broadcast_id = ANY (bound))
        AND (types IS NULL OR found.type = ANY (types))
        AND (priorities IS NULL OR found.priority = ANY (priorities))
        AND (author IS NULL OR found.created_by = author);
END;

-- A page of analytics by broadcast, the newest day first: the days on which something had changed.
CREATE FUNCTION list_analytics(
    caller text, reads_all boolean, weddings uuid[], first_day date, last_day date,
    ids uuid[], types text[], priorities integer[], author text, wedding uuid,
    after_day date, after_id uuid, page_size integer
) RETURNS SETOF daily_analytics
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_custom_plan SET enable_seqscan = off
AS $function$
DECLARE
    bound uuid[];
BEGIN
    PERFORM
        set_config('sender.caller', list_analytics.caller, true),
        set_config('sender.reads_all', list_analytics.reads_all::text, true),
        set_config('sender.weddings', list_analytics.weddings::text, true);
    bound := bound_analytics(caller, reads_all, weddings, ids, wedding);
    RETURN QUERY
    SELECT found.*
    FROM wanted_analytics(list_analytics.last_day, bound, types, priorities, author) AS found
    WHERE found.day >= list_analytics.first_day
        AND (after_id IS NULL OR (found.day, found.broadcast_id) < (after_day, after_id))
    ORDER BY found.day DESC, found.broadcast_id DESC
    LIMIT list_analytics.page_size;
END
$function$;

-- A page of analytics by type, or by priority, the newest day first: a row a day from the first broadcast of each on, with
-- the sums of what stood for all of them that day. Each row of a broadcast adds to its sum what came since the one before.
CREATE FUNCTION sum_analytics(
    caller text, reads_all boolean, weddings uuid[], first_day date, last_day date,
    ids uuid[], types text[], priorities integer[], author text, wedding uuid,
    by_type boolean, after_day date, after_key text, page_size integer
) RETURNS TABLE (
    day date, key text, targeted bigint, delivered bigint, read bigint, acknowledged bigint, clicked bigint,
    time_to_read_us bigint
)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_custom_plan SET enable_seqscan = off
AS $function$
#variable_conflict use_column
DECLARE
    bound uuid[];
BEGIN
    PERFORM
        set_config('sender.caller', sum_analytics.caller, true),
        set_config('sender.reads_all', sum_analytics.reads_all::text, true),
        set_config('sender.weddings', sum_analytics.weddings::text, true);
    bound := bound_analytics(caller, reads_all, weddings, ids, wedding);
    RETURN QUERY
    WITH step AS (
        SELECT
            -- What was there before the first day that is asked for stands on it.
            greatest(found.day, sum_analytics.first_day) AS day,
            CASE WHEN sum_analytics.by_type THEN found.type ELSE found.priority::text END AS key,
            found.targeted - lag(found.targeted, 1, 0::bigint) OVER life AS targeted,
            found.delivered - lag(found.delivered, 1, 0::bigint) OVER life AS delivered,
            found.read - lag(found.read, 1, 0::bigint) OVER life AS read,
            found.acknowledged - lag(found.acknowledged, 1, 0::bigint) OVER life AS acknowledged,
            found.clicked - lag(found.clicked, 1, 0::bigint) OVER life AS clicked,
            found.time_to_read_us - lag(found.time_to_read_us, 1, 0::bigint) OVER life AS time_to_read_us
        FROM wanted_analytics(sum_analytics.last_day, bound, types, priorities, author) AS found
        WINDOW life AS (PARTITION BY found.broadcast_id ORDER BY found.day)
    ),
    increase AS (
        SELECT
            step.day, step.key, sum(step.targeted) AS targeted, sum(step.delivered) AS delivered, sum(step.read) AS read,
            sum(step.acknowledged) AS acknowledged, sum(step.clicked) AS clicked,
            sum(step.time_to_read_us) AS time_to_read_us
        FROM step
        GROUP BY step.day, step.key
    ),
    total AS (
        SELECT
            standing.day::date AS day, since.key,
            sum(increase.targeted) OVER so_far AS targeted, sum(increase.delivered) OVER so_far AS delivered,
            sum(increase.read) OVER so_far AS read, sum(increase.acknowledged) OVER so_far AS acknowledged,
            sum(increase.clicked) OVER so_far AS clicked, sum(increase.time_to_read_us) OVER so_far AS time_to_read_us
        FROM (SELECT increase.key, min(increase.day) AS day FROM increase GROUP BY increase.key) AS since
        CROSS JOIN LATERAL generate_series(
            since.day::timestamp, sum_analytics.last_day::timestamp, interval '1 day'
        ) AS standing (day)
        LEFT JOIN increase ON increase.key = since.key AND increase.day = standing.day::date
        WINDOW so_far AS (PARTITION BY since.key ORDER BY standing.day)
    )
    SELECT
        total.day, total.key, total.targeted::bigint, total.delivered::bigint, total.read::bigint,
        total.acknowledged::bigint, total.clicked::bigint, total.time_to_read_us::bigint
    FROM total
    WHERE sum_analytics.after_day IS NULL
        OR total.day < sum_analytics.after_day
        OR (total.day = sum_analytics.after_day AND total.key > sum_analytics.after_key)
    ORDER BY total.day DESC, total.key
    LIMIT sum_analytics.page_size;
END
$function$;
