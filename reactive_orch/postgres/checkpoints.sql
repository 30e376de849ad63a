-- name: swap
-- The compare-and-swap: partitions $4 of (replica set $1, projection $2, log $3) from positions $5 and epochs $6 to
-- positions $7. Rows that another transaction holds are skipped, so two believers neither wait nor deadlock; who gets
-- fewer rows than it sent rolls back. The rows name their seal $8, the SHA-256 of a token: the transaction, whose id is
-- returned, cannot commit before it is sealed with that token. With the token as $9 the statement is a transaction of its
-- own that moves checkpoints over stretches without events. It is sealed here, rows that stand elsewhere are left alone, and
-- it does not wait for the disk: after a crash such a stretch is read once more. Nothing moves once row level security may
-- hide events: the windows were read before, and what was hidden in them would be passed over.
WITH sent AS (
    SELECT s.partition, s.expected, s.epoch, s.target
    FROM unnest($4::smallint[], $5::bigint[], $6::bigint[], $7::bigint[]) AS s(partition, expected, epoch, target)
), locked AS MATERIALIZED (
    SELECT c.partition, c.position, c.epoch
    FROM reactive_orch.checkpoints c
    WHERE c.replica_set = $1::text AND c.projection = $2::text AND c.log = $3::text AND c.partition = ANY ($4::smallint[])
    ORDER BY c.partition FOR NO KEY UPDATE SKIP LOCKED
), swapped AS (
    UPDATE reactive_orch.checkpoints c SET position = s.target, seal = $8::bytea
    FROM locked l JOIN sent s ON s.partition = l.partition AND s.expected = l.position AND s.epoch = l.epoch
    WHERE c.replica_set = $1::text AND c.projection = $2::text AND c.log = $3::text AND c.partition = l.partition
      AND NOT (SELECT t.relrowsecurity AND reactive_orch.log_is_veiled($3::text)
               FROM pg_catalog.pg_class t
               WHERE t.oid = (SELECT s.relation::oid FROM reactive_orch.logs s WHERE s.name = $3::text))  -- a join scans pg_class
    RETURNING c.partition, c.failing
)
SELECT count(*)::integer AS swapped, pg_current_xact_id()::text AS transaction, coalesce(sum(s.failing), 0)::integer AS failing,
       CASE WHEN $9::text IS NOT NULL
            THEN set_config('reactive_orch.sealed', $9, true) || set_config('synchronous_commit', 'off', true) END
FROM swapped s;

-- name: move_back
-- The end of a batch that stops before its last event: partitions $4, which the swap has moved and locked, to positions $5;
-- not those that a handler has rewound, which are of another epoch than $6.
UPDATE reactive_orch.checkpoints c SET position = CASE c.epoch WHEN s.epoch THEN s.target ELSE c.position END
FROM unnest($4::smallint[], $5::bigint[], $6::bigint[]) AS s(partition, target, epoch)
WHERE c.replica_set = $1::text AND c.projection = $2::text AND c.log = $3::text AND c.partition = s.partition;

-- name: await_others
-- Wait until no other batch of (replica set $1, projection $2, log $3) is at work that has waited here too, for a slice; true
-- when there is none. The first statement of a batch, which holds nothing yet.
SELECT reactive_orch.await_others($1::text, $2::text, $3::text);

-- name: await_checkpoint
-- Wait for the checkpoint of partition $4 of (replica set $1, projection $2, log $3), for a slice, and keep it; no row if another
-- batch holds it for longer.
SELECT a.position, a.epoch, a.handled_to FROM reactive_orch.await_checkpoint($1::text, $2::text, $3::text, $4::smallint) a;

-- name: begin
-- The beginning of a batch that follows no other. Its connection may write in batches only: what a handler sends after
-- it has ended the transaction is refused, unless it asks for writing by BEGIN READ WRITE or by AND CHAIN.
BEGIN READ WRITE;

-- name: roll_back
-- The end of a batch that failed.
ROLLBACK;

-- name: roll_back_and_clean
-- The same, of one whose connection goes on: what a handler has done to the session ends, as it does with a seal. The last one
-- returns a row for each statement that was prepared by SQL: those are left.
ROLLBACK; RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; DISCARD TEMP; CLOSE ALL; UNLISTEN *; SELECT pg_catalog.pg_advisory_unlock_all(); SELECT FROM pg_catalog.pg_prepared_statements p WHERE p.from_sql;

-- name: own_role
-- What we write at a batch's end we write as ourselves: the role that a handler has taken on may not.
RESET SESSION AUTHORIZATION; RESET ROLE;

-- name: seal
-- The end of a batch, in one round trip: is this still the transaction of the swap? Then commit it. A handler's role ends
-- before, its settings and tables after: constraints that wait for the COMMIT may need them. The swap's transaction and
-- the token are put in the place of their names, as several statements in one round trip have no parameters.
RESET SESSION AUTHORIZATION; RESET ROLE; SELECT reactive_orch.seal_batch('TRANSACTION', 'TOKEN'); COMMIT; RESET ALL; DISCARD TEMP;

-- name: seal_and_go_on
-- The same, and the beginning of the next batch in the same round trip. BEGIN, not AND CHAIN: the next transaction must have
-- none of the properties of this one. The settings are reset in a transaction between the two: if that was done in the next
-- batch's, its rollback would bring them back.
RESET SESSION AUTHORIZATION; RESET ROLE; SELECT reactive_orch.seal_batch('TRANSACTION', 'TOKEN'); COMMIT; BEGIN; RESET ALL; DISCARD TEMP; COMMIT; BEGIN READ WRITE;

-- name: transaction_limits
-- For how long a transaction of this user may last here, in seconds; 0 for ever, NULL before PostgreSQL 17. And for how long
-- the server has been up, since its start or since it recovered from a crash.
SELECT extract(epoch FROM current_setting('transaction_timeout', true)::interval)::double precision AS limit_s,
       extract(epoch FROM clock_timestamp() - greatest(
           pg_postmaster_start_time(),
           (SELECT a.backend_start FROM pg_stat_activity a WHERE a.backend_type = 'checkpointer')))::double precision AS up_s;

-- name: load_free
-- The checkpoints of partitions $4 that no transaction holds, and whether they were made with filter $5. Only rows of the
-- epoch that the projection's row has: if a rewind has just moved one, it is found at the next look. The locks end with the
-- statement, so its commit need not wait for the disk.
SELECT c.partition, c.position, c.epoch, c.handled_to, p.filter = $5::jsonb AS ours
FROM (SELECT set_config('synchronous_commit', 'off', true)) AS no_flush
CROSS JOIN reactive_orch.checkpoints c
JOIN reactive_orch.projections p ON p.replica_set = c.replica_set AND p.name = c.projection AND p.log = c.log
     AND p.epoch = c.epoch
WHERE c.replica_set = $1::text AND c.projection = $2::text AND c.log = $3::text AND c.partition = ANY ($4::smallint[])
ORDER BY c.partition FOR UPDATE OF c SKIP LOCKED;

-- name: accepted
-- Which of the projections $2 on the logs $3 of replica set $1 are recorded with the filters $4.
SELECT p.name, p.log FROM unnest($2::text[], $3::text[], $4::text[]) AS w(name, log, filter)
JOIN reactive_orch.projections p ON p.replica_set = $1::text AND p.name = w.name AND p.log = w.log
WHERE p.filter = w.filter::jsonb;

-- name: unhandled
-- Which of the events of partitions $4 in ($5, $6] have never been handled, though their checkpoints have stood behind them. Good
-- only in the transaction of a swap that holds these.
SELECT u.position FROM reactive_orch.unhandled_events u
WHERE u.replica_set = $1::text AND u.projection = $2::text AND u.log = $3::text AND u.partition = ANY ($4::smallint[])
  AND u.position > $5::bigint AND u.position <= $6::bigint;

-- name: await_free
-- Wait for the first of these rows, for a slice; returns the numbers $1 of those who wait for one that is free then, or that
-- is not there.
SELECT reactive_orch.await_free($1::integer[], $2::text[], $3::text[], $4::text[], $5::smallint[]);

-- name: incomplete
-- Which of the projections $2 on the logs $3 lack, for some partition, a checkpoint that can be loaded; whether they are recorded.
SELECT w.name, EXISTS (SELECT FROM reactive_orch.projections p
                       WHERE p.replica_set = $1::text AND p.name = w.name AND p.log = w.log) AS recorded
FROM unnest($2::text[], $3::text[]) AS w(name, log)
WHERE (SELECT count(*) FROM reactive_orch.checkpoints c
       JOIN reactive_orch.projections p ON p.replica_set = c.replica_set AND p.name = c.projection AND p.log = c.log
            AND p.epoch = c.epoch
       WHERE c.replica_set = $1::text AND c.projection = w.name AND c.log = w.log)
      < (SELECT s.partitions FROM reactive_orch.logs s WHERE s.name = w.log)
ORDER BY w.name, w.log;
