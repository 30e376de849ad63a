-- name: now
-- The clock by which ages are told: the transaction's, so that all are, and what began at a time began then at every look.
SELECT now();

-- name: needed
-- How far all projections of log $1 have come, of all replica sets, and the first event that waits with a failing key of theirs.
SELECT (SELECT min(c.position) FROM reactive_orch.checkpoints c WHERE c.log = $1::text) AS slowest,
       (SELECT min(d.position) FROM reactive_orch.dead_letters d JOIN reactive_orch.failing_keys k ON k.id = d.key
        WHERE k.log = $1::text) AS first_waiting;

-- name: generations
-- The last $2 generations of each replica set, or of replica set $1 alone, the newest first; one row without a number before the first.
SELECT r.name, g.number, g.reason, g.subjects, g.moved, extract(epoch FROM now() - g.created_at)::float8 AS age_s,
       extract(epoch FROM g.completed_at - g.created_at)::float8 AS complete_s
FROM reactive_orch.replica_sets r
LEFT JOIN reactive_orch.generations g
       ON g.replica_set = r.name AND g.number <= r.generation AND g.number > r.generation - $2::integer
WHERE $1::text IS NULL OR r.name = $1::text ORDER BY r.name, g.number DESC;

-- name: workers
-- The members of all replica sets, each with the projections of its set that it does not run.
SELECT m.id, m.replica_set, m.name, m.state, m.lock_held AS connected, m.stale,
       greatest(extract(epoch FROM now() - m.heartbeat_at), 0)::float8 AS heartbeat_age_s,
       extract(epoch FROM m.stale_after)::float8 AS stale_after_s,
       ARRAY(SELECT DISTINCT p.name
             FROM reactive_orch.projections p
             WHERE p.replica_set = m.replica_set
               AND (p.name, p.log) NOT IN (SELECT own.projection, own.log FROM unnest(m.projections, m.logs) AS own(projection, log))
             ORDER BY p.name) AS lacks,
       m.account::text
FROM reactive_orch.member_status m ORDER BY m.replica_set, m.id;

-- name: projections
-- The projections of all replica sets, or of $1: how they rest, how far they have been saved, whose they are, what waits of them, and
-- how old the first event is behind what has been saved of a partition, up to the log's head.
SELECT p.replica_set, p.name, p.log, p.state, p.state_reason, p.state_by, p.state_since, p.resumes_at,
       extract(epoch FROM now() - p.state_since)::float8 AS state_s,
       CASE WHEN p.serial_until > now() THEN p.serial_until END AS serial_until,
       p.proposed::text, p.start, p.start_position, c.saved, c.replays_to, coalesce(a.owners, '{}') AS owners,
       NOT coalesce((p.declared -> 'replay')::boolean, true) AS leaves_replayed_out,
       coalesce((p.declared -> 'exclusive')::boolean, false) AS exclusive,
       EXISTS (SELECT FROM reactive_orch.members m, unnest(m.projections, m.logs) AS r(projection, log)
               WHERE m.replica_set = p.replica_set AND m.state <> 'leaving'
                 AND r.projection = p.name AND r.log = p.log) AS served,
       k.failing_keys, k.parked_keys, k.failing_s, d.waiting_events, d.parked_events,
       (SELECT f.error_type || ': ' || f.message FROM reactive_orch.failing_keys f
        WHERE f.replica_set = p.replica_set AND f.projection = p.name AND f.log = p.log
        ORDER BY f.failed_last_at DESC LIMIT 1) AS last_error,
       (SELECT extract(epoch FROM now() - min(e.created_at))::float8
        FROM reactive_orch.checkpoints s
        CROSS JOIN LATERAL (SELECT o.created_at FROM reactive_orch.event_log o
                            WHERE o.log = s.log AND o.partition = s.partition AND o.global_position + 0 > s.position
                            ORDER BY o.global_position + 0 LIMIT 1) e
        WHERE s.replica_set = p.replica_set AND s.projection = p.name AND s.log = p.log) AS oldest_s
FROM reactive_orch.projections p
LEFT JOIN reactive_orch.assignments a ON a.replica_set = p.replica_set AND a.projection = p.name AND a.log = p.log
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(c.position ORDER BY c.partition), '{}') AS saved,
           max(c.handled_to) FILTER (WHERE c.position < c.handled_to) AS replays_to
    FROM reactive_orch.checkpoints c WHERE c.replica_set = p.replica_set AND c.projection = p.name AND c.log = p.log) c
CROSS JOIN LATERAL (
    SELECT count(*) AS failing_keys, count(*) FILTER (WHERE f.state = 'parked') AS parked_keys,
           coalesce(extract(epoch FROM now() - min(f.failed_first_at)), 0)::float8 AS failing_s
    FROM reactive_orch.failing_keys f WHERE f.replica_set = p.replica_set AND f.projection = p.name AND f.log = p.log) k
CROSS JOIN LATERAL (
    SELECT count(*) AS waiting_events, count(*) FILTER (WHERE f.state = 'parked') AS parked_events
    FROM reactive_orch.dead_letters w JOIN reactive_orch.failing_keys f ON f.id = w.key
    WHERE f.replica_set = p.replica_set AND f.projection = p.name AND f.log = p.log) d
WHERE $1::text IS NULL OR p.replica_set = $1::text ORDER BY p.replica_set, p.name, p.log;

-- name: connections
-- How many connections there are, and how many there may be for whoever is no superuser, wherever that is limited: to the server, to
-- this database, and by each role that has some of this package's. What is reserved (from PostgreSQL 16 on also for a role) is counted apart.
WITH backends AS (
    SELECT a.usesysid, a.datid, a.application_name FROM pg_catalog.pg_stat_activity a
    WHERE a.usesysid IS NOT NULL AND a.datid IS NOT NULL AND coalesce(a.backend_type, 'client backend') = 'client backend'
), reserved AS (
    SELECT current_setting('superuser_reserved_connections')::integer + coalesce(current_setting('reserved_connections', true), '0')::integer AS number
)
SELECT 'server' AS of, '' AS name, (SELECT count(*) FROM backends)::integer AS used,
       current_setting('max_connections')::integer - r.number AS most, r.number AS reserved
FROM reserved r
UNION ALL
SELECT 'database', d.datname::text, (SELECT count(*) FROM backends b WHERE b.datid = d.oid)::integer, d.datconnlimit, 0
FROM pg_catalog.pg_database d WHERE d.datname = current_database() AND d.datconnlimit >= 0
UNION ALL
SELECT 'role', r.rolname::text, count(*)::integer, r.rolconnlimit, 0
FROM pg_catalog.pg_roles r JOIN backends b ON b.usesysid = r.oid
WHERE r.rolconnlimit >= 0 AND NOT r.rolsuper
GROUP BY r.oid, r.rolname, r.rolconnlimit HAVING bool_or(b.application_name LIKE 'reactive\_orch:%');
