-- A log that was put back to an earlier state goes on under the same positions with other entries, and so does a standby's that
-- took over without the last of them. The identity of the log was the same, so cursors and badges from before were taken as
-- good. Now it also says where the log stands: Postgres counts timelines, and begins another at each recovery to a point in
-- time and at each promotion, not after a crash; another cluster has another identifier; and what a dump brings back, or a copy
-- of a database, has numbers of its own.

GRANT SELECT ON log_identity TO inbox_api;

-- What tells the log from any other; null on a standby, of which nobody can say which log it will be.
CREATE FUNCTION current_log_identity() RETURNS uuid
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT
        CASE
            WHEN NOT pg_is_in_recovery() THEN encode(substr(sha256(convert_to(concat_ws(
                ' ',
                log_identity.identity,
                cluster.system_identifier,
                -- The timeline is the first part of the name of the file that is written to.
                left(pg_walfile_name(pg_current_wal_lsn()), 8),
                here.oid,
                'log_identity'::regclass::oid
            ), 'UTF8')), 1, 16), 'hex')::uuid
        END
    FROM log_identity
    CROSS JOIN pg_control_system() AS cluster
    INNER JOIN pg_database AS here ON here.datname = current_database();
END;
