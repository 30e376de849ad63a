-- Who is connected to a server.

-- name: others
-- The sessions of clients, in whatever database, but for this one: as what, and as whom, they have come.
SELECT a.application_name, a.usename::text AS role
FROM pg_catalog.pg_stat_activity a
WHERE a.backend_type = 'client backend' AND a.pid <> pg_catalog.pg_backend_pid()
ORDER BY a.backend_start;
