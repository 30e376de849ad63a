-- name: swap
-- The compare-and-swap of the checkpoints of several projections of replica set $1 that read log $2: projections $3, partitions
-- $4, from positions $5 and epochs $6 to positions $7; what is said of `swap` in checkpoints.sql holds for it. Whoever gets
-- fewer rows than it sent, of whichever projection, rolls back.
WITH sent AS (
    SELECT s.projection, s.partition, s.expected, s.epoch, s.target
    FROM unnest($3::text[], $4::smallint[], $5::bigint[], $6::bigint[], $7::bigint[])
         AS s(projection, partition, expected, epoch, target)
), locked AS MATERIALIZED (
    SELECT c.projection, c.partition, c.position, c.epoch
    FROM (SELECT s.projection, s.partition FROM sent s ORDER BY s.projection, s.partition) s
    CROSS JOIN LATERAL (
        SELECT c.projection, c.partition, c.position, c.epoch
        FROM reactive_orch.checkpoints c
        WHERE c.replica_set = $1::text AND c.projection = s.projection AND c.log = $2::text AND c.partition = s.partition
        FOR NO KEY UPDATE SKIP LOCKED) c
), swapped AS (
    UPDATE reactive_orch.checkpoints c SET position = s.target, seal = $8::bytea
    FROM locked l
    JOIN sent s ON s.projection = l.projection AND s.partition = l.partition AND s.expected = l.position AND s.epoch = l.epoch
    WHERE c.replica_set = $1::text AND c.projection = l.projection AND c.log = $2::text AND c.partition = l.partition
      AND NOT (SELECT t.relrowsecurity AND reactive_orch.log_is_veiled($2::text)
               FROM pg_catalog.pg_class t
               WHERE t.oid = (SELECT s.relation::oid FROM reactive_orch.logs s WHERE s.name = $2::text))
    RETURNING c.failing
)
SELECT count(*)::integer AS swapped, pg_current_xact_id()::text AS transaction, coalesce(sum(s.failing), 0)::integer AS failing
FROM swapped s;
