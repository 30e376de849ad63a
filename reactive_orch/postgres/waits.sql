-- name: blockers
-- Who holds, or stands in line for, what connection $1 waits for; nobody while it does not wait.
SELECT b.pid, p.gid AS prepared, coalesce(a.application_name, '') AS application, coalesce(a.usename, p.owner, '') AS "user",
       coalesce(a.state, CASE b.pid WHEN 0 THEN 'prepared' ELSE 'running' END) AS state, coalesce(a.query, '') AS query,
       coalesce(extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, p.prepared)), 0)::float8 AS age_s
FROM (SELECT DISTINCT u.pid FROM unnest(pg_blocking_pids($1::integer)) AS u(pid)) b
LEFT JOIN pg_stat_activity a ON a.pid = b.pid
LEFT JOIN pg_prepared_xacts p ON b.pid = 0
ORDER BY age_s DESC;
