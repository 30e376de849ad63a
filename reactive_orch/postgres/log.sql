-- name: observe
-- Steps one and two of the frontier: the head, then who may still write above $2, which is settled, and not above the head;
-- last, whether the log is sound.
SELECT head, holders, prepared, disarmed, queue, flaw FROM reactive_orch.observe_log_from($1::text, $2::bigint);

-- name: look
-- The same, and, if nobody may write at or below the head and it is at most $3 positions further than $2, the events of
-- partitions $4 in between: step three, with a snapshot of its own, of those that are not larger than $5 bytes.
SELECT f.*, h.high IS NOT NULL AS brought, o.head, o.holders, o.prepared, o.disarmed, o.queue, o.flaw
FROM reactive_orch.observe_log_from($1::text, $2::bigint) o
CROSS JOIN LATERAL (SELECT CASE WHEN o.holders = '{}' AND o.flaw IS NULL AND o.head - $2::bigint <= $3::integer THEN o.head END AS high) h
LEFT JOIN LATERAL reactive_orch.fresh_events($1::text, $2::bigint, h.high, $4::smallint[], $5::bigint) f ON true
ORDER BY f.global_position;

-- name: run_end
-- The end of log $1's run without gaps directly after $2, looking at no more than $4 positions up to $3; NULL for none.
-- The n-th row of the run is at $2 + n, so no row of it lies beyond $2 + $4; a LIMIT would leave that to the planner.
SELECT max(r.global_position)
FROM (SELECT e.global_position, row_number() OVER (ORDER BY e.global_position) AS n
      FROM reactive_orch.event_log e
      WHERE e.log = $1::text AND e.global_position > $2::bigint
        AND e.global_position <= least($3::bigint, $2::bigint + $4::integer)) r
WHERE r.global_position = $2::bigint + r.n;

-- name: read_stream
-- The events of one aggregate in log $1 after a version, in order.
SELECT e.global_position, e.partition, e.bounded_context, e.aggregate_type, e.aggregate_id, e.aggregate_version,
       e.event_id, e.event_type, e.event_version, e.payload, e.trace_id, e.correlation_id, e.causation_id,
       e.metadata::text, e.created_at, e.partition_key
FROM reactive_orch.event_log e
WHERE e.log = $1::text AND e.bounded_context = $2::text AND e.aggregate_type = $3::text AND e.aggregate_id = $4::text
  AND e.aggregate_version > $5::bigint
ORDER BY e.aggregate_version;

-- name: holders
-- Who holds the frontier of log $1: open transactions that may have drawn a position, the oldest first.
SELECT l.pid, p.gid AS prepared, coalesce(a.application_name, '') AS application, coalesce(a.usename, p.owner, '') AS "user",
       coalesce(a.state, 'prepared') AS state, coalesce(a.query, '') AS query,
       greatest(extract(epoch FROM now() - coalesce(a.xact_start, p.prepared)), 0)::float8 AS age_s
FROM pg_locks l
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_locks t ON l.pid IS NULL AND t.pid IS NULL AND t.locktype = 'transactionid'
                    AND t.virtualtransaction = l.virtualtransaction
LEFT JOIN pg_prepared_xacts p ON p.transaction = t.transactionid
WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.granted
  AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
  AND l.relation = (SELECT s.relation::oid FROM reactive_orch.logs s WHERE s.name = $1::text)
  AND l.pid IS DISTINCT FROM pg_backend_pid()
ORDER BY coalesce(a.xact_start, p.prepared) NULLS LAST;

-- name: arm
-- Let the writers of log $1 ring for the next $2 milliseconds; 0: not any more. Returns why nobody will; NULL if writers
-- will. Its commit need not wait for the disk, nor for a standby: whoever loses his connection in a crash arms again.
SELECT reactive_orch.arm_bell($1::text, $2::bigint), set_config('synchronous_commit', 'off', true);
