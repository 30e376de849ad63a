-- name: blockers
-- Who holds, or stands in line for, what connection $1 waits for; nobody while it does not wait.
SELECT b.pid, p.gid AS prepared, coalesce(a.application_name, '') AS application, coalesce(a.usename, p.owner, '') AS "user",
       coalesce(a.state, CASE b.pid WHEN 0 THEN 'prepared' ELSE 'running' END) AS state, coalesce(a.query, '') AS query,
       coalesce(extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, p.prepared)), 0)::float8 AS age_s
FROM (SELECT DISTINCT u.pid FROM unnest(pg_blocking_pids($1::integer)) AS u(pid)) b
LEFT JOIN pg_stat_activity a ON a.pid = b.pid
LEFT JOIN pg_prepared_xacts p ON b.pid = 0
ORDER BY age_s DESC;

-- name: table_locks
-- Which tables of ours others may not read, or not write, and who has locked them so or stands in line for that; nobody may read a
-- table for which the strongest lock is asked, so those come first.
SELECT c.oid::regclass::text AS table, a.pid, p.gid AS prepared, coalesce(a.application_name, '') AS application,
       coalesce(a.usename, p.owner, '')::text AS "user", coalesce(a.state, CASE WHEN l.pid IS NULL THEN 'prepared' ELSE 'running' END) AS state,
       coalesce(a.query, '') AS query,
       coalesce(extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, p.prepared)), 0)::float8 AS age_s
FROM pg_locks l
JOIN pg_class c ON c.oid = l.relation AND c.relnamespace = to_regnamespace('reactive_orch') AND c.relkind IN ('r', 'p', 'v')
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_prepared_xacts p ON l.pid IS NULL AND l.virtualtransaction = '-1/' || p.transaction::text
WHERE l.locktype = 'relation' AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
  AND l.mode IN ('AccessExclusiveLock', 'ExclusiveLock', 'ShareRowExclusiveLock', 'ShareLock')
  AND l.pid IS DISTINCT FROM pg_backend_pid()
ORDER BY l.mode <> 'AccessExclusiveLock', NOT l.granted, age_s DESC, 1;
