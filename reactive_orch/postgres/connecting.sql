-- name: server
-- Which database a connection leads to, on which server, of which timeline, since which start and which recovery from a
-- crash (which begins all statistics anew). Everybody may ask, unless that was taken away.
SELECT (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())::bigint AS database,
       pg_catalog.pg_postmaster_start_time()                                                                 AS started_at,
       (SELECT c.system_identifier FROM pg_catalog.pg_control_system() c)                                    AS system,
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN 0
            ELSE ('x'::text || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8)
                 )::bit(32)::integer
       END                                                                                                   AS timeline,
       (SELECT a.stats_reset FROM pg_catalog.pg_stat_archiver a)                                             AS recovered_at;

-- name: least
-- What everybody may ask of that.
SELECT (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())::bigint AS database,
       pg_catalog.pg_postmaster_start_time()                                                                 AS started_at;

-- name: search_path
-- Where this session looks names up: a pooler may have dropped what we have asked for.
SELECT pg_catalog.current_setting('search_path');

-- name: system
-- Which server.
SELECT c.system_identifier FROM pg_catalog.pg_control_system() c;

-- name: timeline
-- Of which timeline.
SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN 0
            ELSE ('x'::text || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8)
                 )::bit(32)::integer
       END;

-- name: may_look_sooner
-- Whether this role may say when the server looks for deadlocks, and by now it does so only after more than $1 milliseconds.
SELECT pg_catalog.has_parameter_privilege('deadlock_timeout', 'SET')
       AND (SELECT s.setting::integer > $1::integer FROM pg_catalog.pg_settings s WHERE s.name = 'deadlock_timeout');

-- name: recovered_at
-- Since which recovery from a crash.
SELECT a.stats_reset FROM pg_catalog.pg_stat_archiver a;
