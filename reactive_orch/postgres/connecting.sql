-- name: server
-- Which server a connection leads to, of which timeline, and which database there. Everybody may ask.
SELECT (SELECT c.system_identifier FROM pg_catalog.pg_control_system() c)                                    AS system,
       (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())::bigint AS database,
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN 0
            ELSE ('x'::text || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8)
                 )::bit(32)::integer
       END                                                                                                   AS timeline,
       pg_catalog.pg_postmaster_start_time()                                                                 AS started_at;
