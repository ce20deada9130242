-- name: make_schema
-- Where the inbox's personal queries are once more, with the conditions of the policies written into them.
CREATE SCHEMA {schema};

-- name: copy_queries
-- A view in the place of each table that a policy shows people their part of, with the policy's own words as its condition;
-- then the views and functions that read them, as they are. Names mean the inbox's own when they are read, and these when
-- they are made. Those that others' conditions look at come first.
DO $block$
DECLARE
    made text;
    statements text[];
BEGIN
    SET LOCAL search_path = inbox;
    statements := array(
        SELECT format(
            'CREATE VIEW {schema}.%I WITH (security_invoker) AS SELECT * FROM inbox.%I WHERE %s', tablename, tablename, qual
        )
        FROM pg_policies
        WHERE schemaname = 'inbox' AND roles = '{inbox_api}' AND cmd = 'SELECT'
        ORDER BY qual LIKE '%FROM%team_members%', tablename
    ) || array(
        SELECT format(
            'CREATE VIEW {schema}.%I WITH (security_invoker) AS %s', relname, rtrim(pg_get_viewdef(oid), ';')
        )
        FROM pg_class
        WHERE relnamespace = 'inbox'::regnamespace AND relkind = 'v'
        ORDER BY oid
    ) || array(
        SELECT replace(pg_get_functiondef(oid), 'FUNCTION inbox.', 'FUNCTION {schema}.')
        FROM pg_proc
        WHERE pronamespace = 'inbox'::regnamespace
            AND proname IN ('list_items', 'list_first_pages', 'count_items', 'count_my_items', 'get_item')
    );
    SET LOCAL search_path = {schema}, inbox;
    FOREACH made IN ARRAY statements LOOP
        EXECUTE made;
    END LOOP;
END
$block$;

-- name: keep_password
-- For the next statement, which takes no parameters.
SELECT set_config('bench.password', $1, true);

-- name: make_reader
-- Somebody whom no policy binds, and whose queries bind themselves.
DO $block$
BEGIN
    EXECUTE format('CREATE ROLE {schema}_reader LOGIN BYPASSRLS PASSWORD %L', current_setting('bench.password'));
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO {schema}_reader', current_database());
    GRANT USAGE ON SCHEMA {schema}, inbox TO {schema}_reader;
    GRANT SELECT ON ALL TABLES IN SCHEMA {schema}, inbox TO {schema}_reader;
    GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema}, inbox TO {schema}_reader;
    ALTER ROLE {schema}_reader SET search_path TO {schema}, inbox;
END
$block$;

-- name: remove_all
-- The role belongs to the whole cluster, and would outlive the database.
DO $block$
BEGIN
    DROP SCHEMA {schema} CASCADE;
    DROP OWNED BY {schema}_reader;
    DROP ROLE {schema}_reader;
END
$block$;
