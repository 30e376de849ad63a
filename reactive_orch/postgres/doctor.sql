-- name: collation
-- The version of the database's collation: as recorded, and as the operating system has it now.
SELECT d.datcollversion AS recorded, pg_database_collation_actual_version(d.oid) AS actual
FROM pg_database d WHERE d.datname = current_database();

-- name: limits
-- The server's time-outs, in milliseconds, as this session has begun with them.
SELECT s.name, s.reset_val::bigint AS ms FROM pg_settings s
WHERE s.name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout',
                 'transaction_timeout');

-- name: silenced
-- For whom triggers do not fire in this database.
SELECT r.rolname::text AS role, d.datname::text AS database
FROM pg_db_role_setting s
LEFT JOIN pg_roles r ON r.oid = s.setrole
LEFT JOIN pg_database d ON d.oid = s.setdatabase
WHERE 'session_replication_role=replica' = ANY (s.setconfig)
  AND (s.setdatabase = 0 OR d.datname = current_database())
  AND (s.setrole = 0 OR r.rolname IS NOT NULL)
UNION ALL
SELECT NULL, NULL FROM pg_settings p
WHERE p.name = 'session_replication_role' AND p.reset_val = 'replica' AND p.source IN ('configuration file', 'command line')
ORDER BY 1, 2;

-- name: powers
-- What this role may do with sessions of others: see what they do, end those of workers.
SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_queries,
       pg_has_role(current_user, 'pg_signal_backend', 'USAGE')
       OR NOT EXISTS (SELECT FROM pg_stat_activity a
                      WHERE a.datname = current_database() AND a.application_name LIKE 'reactive\_orch:%'
                        AND NOT pg_has_role(a.usesysid, 'USAGE')) AS ends_sessions;

-- name: open
-- The oldest open transactions of the whole server, prepared ones too.
SELECT a.pid, NULL AS prepared, coalesce(a.application_name, '') AS application, coalesce(a.usename, '')::text AS "user",
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS age_s, coalesce(a.state, '') AS state,
       coalesce(a.query, '') AS query, a.datname = current_database() AS here,
       (a.backend_xid IS NOT NULL OR a.backend_xmin IS NOT NULL) AS keeps_rows
FROM pg_stat_activity a
WHERE a.xact_start IS NOT NULL AND a.datname IS NOT NULL AND a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
UNION ALL
SELECT NULL, p.gid, '', p.owner::text, extract(epoch FROM clock_timestamp() - p.prepared)::float8, 'prepared', '',
       p.database = current_database(), true
FROM pg_prepared_xacts p
ORDER BY age_s DESC LIMIT 20;

-- name: slots
-- Replication slots for which vacuum keeps rows, and how many transactions ago it has begun to.
SELECT s.slot_name::text AS name, s.active, age(s.xmin) AS transactions
FROM pg_replication_slots s WHERE s.xmin IS NOT NULL ORDER BY 3 DESC;

-- name: queue
-- How full the server's queue of notifications is.
SELECT pg_notification_queue_usage();

-- name: connections
-- The limits of connections that count for this role, and who uses how many.
WITH me AS (
    SELECT r.rolname, r.rolsuper, r.rolconnlimit FROM pg_roles r WHERE r.rolname = current_user
), sessions AS (
    SELECT a.datname, a.usename,
           a.datname = current_database() AND a.application_name LIKE 'reactive\_orch:%' AS ours
    FROM pg_stat_activity a WHERE a.datid IS NOT NULL AND a.usesysid IS NOT NULL
), limits AS (
    SELECT 'server' AS of, NULL::name AS datname, NULL::name AS usename,
           current_setting('max_connections')::integer - CASE WHEN m.rolsuper THEN 0 ELSE
               current_setting('superuser_reserved_connections')::integer
               + coalesce(current_setting('reserved_connections', true), '0')::integer END AS most
    FROM me m
    UNION ALL
    SELECT 'database', d.datname, NULL, d.datconnlimit
    FROM pg_database d, me m WHERE d.datname = current_database() AND d.datconnlimit >= 0 AND NOT m.rolsuper
    UNION ALL
    SELECT 'role', NULL, m.rolname, m.rolconnlimit FROM me m WHERE m.rolconnlimit >= 0 AND NOT m.rolsuper
)
SELECT l.of, l.most, count(*) FILTER (WHERE NOT s.ours) AS others, count(*) FILTER (WHERE s.ours) AS ours
FROM limits l
LEFT JOIN sessions s ON (l.datname IS NULL OR s.datname = l.datname) AND (l.usename IS NULL OR s.usename = l.usename)
GROUP BY l.of, l.most ORDER BY l.of;

-- name: step
-- The newest step of the schema.
SELECT coalesce(max(s.version), 0) FROM reactive_orch.schema_steps s;

-- name: is_there
-- Whether there is a schema of ours, seen without any right to it.
SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = 'reactive_orch' AND c.relname = 'events');

-- name: rights
-- Which of these rights this role lacks: privilege $1[i] on the object of our schema that is of kind $2[i] and called $3[i], or on
-- its column $4[i].
SELECT string_agg(DISTINCT w.privilege, ', ') AS privileges, w.kind, w.name
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS w(privilege, kind, name, part)
LEFT JOIN pg_class c ON w.kind IN ('TABLE', 'SEQUENCE') AND c.relnamespace = to_regnamespace('reactive_orch') AND c.relname = w.name
LEFT JOIN pg_proc p ON w.kind = 'FUNCTION' AND p.pronamespace = to_regnamespace('reactive_orch') AND p.proname = w.name
WHERE NOT CASE
    WHEN w.kind = 'SCHEMA' THEN has_schema_privilege(to_regnamespace('reactive_orch')::oid, w.privilege)
    WHEN w.kind = 'FUNCTION' THEN has_function_privilege(p.oid, w.privilege)
    WHEN w.kind = 'SEQUENCE' THEN has_sequence_privilege(c.oid, w.privilege)
    WHEN w.part <> '' THEN has_column_privilege(c.oid, w.part, w.privilege)
    ELSE has_table_privilege(c.oid, w.privilege)
END
GROUP BY w.kind, w.name ORDER BY w.kind <> 'SCHEMA', w.kind DESC, w.name;

-- name: bell
-- Whether the sequence is there by which writers know whether to ring.
SELECT to_regclass('reactive_orch.bell') IS NOT NULL;

-- name: indexes
-- The indexes of our tables.
SELECT i.indexrelid::regclass::text AS name, pg_get_indexdef(i.indexrelid) AS definition, i.indisvalid AND i.indisready AS valid
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
WHERE c.relnamespace = 'reactive_orch'::regnamespace ORDER BY 1;

-- name: triggers
-- The triggers of our tables, and whether they fire for an ordinary session.
SELECT t.tgname::text AS name, t.tgrelid::regclass::text AS table, t.tgenabled IN ('O', 'A') AS fires
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE c.relnamespace = 'reactive_orch'::regnamespace AND NOT t.tgisinternal ORDER BY 2, 1;

-- name: guarded
-- Our tables that have row level security.
SELECT c.oid::regclass::text FROM pg_class c
WHERE c.relnamespace = 'reactive_orch'::regnamespace AND c.relrowsecurity ORDER BY 1;

-- name: checkpoints
-- How large the table of the checkpoints is, how much of it is dead, and whether somebody cleans it.
SELECT pg_stat_get_live_tuples(c.oid) AS live, pg_stat_get_dead_tuples(c.oid) AS dead, pg_relation_size(c.oid) AS bytes,
       coalesce((SELECT o.option_value::boolean FROM pg_options_to_table(c.reloptions) o
                 WHERE o.option_name = 'autovacuum_enabled'), true) AS autovacuum,
       current_setting('autovacuum')::boolean AS server_autovacuum
FROM pg_class c WHERE c.oid = 'reactive_orch.checkpoints'::regclass;

-- name: log_end
-- The last position of log $1, and the last that its sequence has given.
SELECT s.name, coalesce((SELECT e.global_position FROM reactive_orch.event_log e WHERE e.log = s.name
                         ORDER BY e.global_position DESC LIMIT 1), 0) AS last,
       coalesce(pg_sequence_last_value(s.sequence), 0) AS drawn, s.sequence::text AS sequence
FROM reactive_orch.logs s WHERE s.name = $1::text;
