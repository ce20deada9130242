-- What makes a service's place in a database: its roles, its schema, and nobody else's way in.

-- name: keep_passwords
-- A DO block takes no parameters, so the passwords it needs are settings of the transaction.
SELECT
    set_config('stack.api_password', $1, true) AS api_password,
    set_config('stack.worker_password', $2, true) AS worker_password;

-- name: make_roles
-- Roles belong to the whole cluster, so another database, or another stack at this very moment, may have made them.
DO $block$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['{schema}_owner', '{schema}_api', '{schema}_worker'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I', role_name);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END LOOP;
    EXECUTE format('ALTER ROLE {schema}_api LOGIN PASSWORD %L', current_setting('stack.api_password'));
    EXECUTE format('ALTER ROLE {schema}_worker LOGIN PASSWORD %L', current_setting('stack.worker_password'));
    -- Queries name their tables without the schema.
    ALTER ROLE {schema}_api SET search_path TO {schema};
    ALTER ROLE {schema}_worker SET search_path TO {schema};
    -- For SET ROLE in the migrations, and for an administrator who is no superuser.
    GRANT {schema}_owner TO CURRENT_USER WITH SET TRUE, INHERIT FALSE;
END
$block$;

-- name: find_powers
-- A role that bypasses row level security, or may become another, would make every policy worthless.
SELECT role.rolname AS role_name
FROM pg_catalog.pg_roles AS role
WHERE role.rolname IN ('{schema}_owner', '{schema}_api', '{schema}_worker')
    AND (
        role.rolsuper
        OR role.rolbypassrls
        OR role.rolcreaterole
        OR role.rolcreatedb
        OR role.rolreplication
        OR (role.rolcanlogin AND role.rolname = '{schema}_owner')
        OR EXISTS (SELECT FROM pg_catalog.pg_auth_members AS membership WHERE membership.member = role.oid)
    );

-- name: close_database
-- By default everybody may connect, make temporary tables and look into the schema "public".
DO $block$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    REVOKE ALL ON SCHEMA public FROM PUBLIC;
END
$block$;

-- name: open_schema
-- A service's logins see their own schema and no other; what they may do to its tables, its migrations grant. Functions and
-- types are everybody's by default: here they are for the two logins only, those of later migrations and those that are there.
DO $block$
DECLARE
    made text;
BEGIN
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO {schema}_api, {schema}_worker', current_database());
    CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {schema}_owner;
    SET LOCAL ROLE {schema}_owner;
    GRANT USAGE ON SCHEMA {schema} TO {schema}_api, {schema}_worker;
    ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM PUBLIC;
    ALTER DEFAULT PRIVILEGES REVOKE ALL ON TYPES FROM PUBLIC;
    ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT EXECUTE ON FUNCTIONS TO {schema}_api, {schema}_worker;
    FOR made IN
        SELECT routine.oid::regprocedure::text
        FROM pg_catalog.pg_proc AS routine
        WHERE routine.pronamespace = '{schema}'::regnamespace AND routine.proacl IS NULL
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', made);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO {schema}_api, {schema}_worker', made);
    END LOOP;
    FOR made IN
        SELECT type.oid::regtype::text
        FROM pg_catalog.pg_type AS type
        WHERE type.typnamespace = '{schema}'::regnamespace AND type.typtype IN ('d', 'e') AND type.typacl IS NULL
    LOOP
        EXECUTE format('REVOKE ALL ON TYPE %s FROM PUBLIC', made);
    END LOOP;
    RESET ROLE;
END
$block$;
