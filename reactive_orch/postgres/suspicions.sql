-- name: found
-- Which of the partitions $4 of (replica set $1, projection $2, log $3) are suspect, and what their last owner had in hand when
-- it was lost: what is said by a process that is a member still may be taken back.
SELECT s.partition, m.worker, m.lane, m.position, m.events
FROM reactive_orch.suspicions s
LEFT JOIN LATERAL (
    SELECT m.worker, m.lane, m.position, m.events FROM reactive_orch.markers m
    WHERE m.replica_set = s.replica_set AND m.projection = s.projection AND m.log = s.log AND s.partition = ANY (m.partitions)
      AND NOT EXISTS (SELECT FROM reactive_orch.members o WHERE o.replica_set = s.replica_set AND o.name = m.worker)
    ORDER BY m.marked_at DESC LIMIT 1) m ON true
WHERE s.replica_set = $1::text AND s.projection = $2::text AND s.log = $3::text AND s.partition = ANY ($4::smallint[]);

-- name: put
-- Lane $5 of worker $4 has $8 events in hand, of partitions $6, the last at position $7. It need not outlive the server: a server
-- that has crashed explains the loss.
INSERT INTO reactive_orch.markers AS m (replica_set, projection, log, worker, lane, partitions, position, events, marked_at)
SELECT $1::text, $2::text, $3::text, $4::text, $5::integer, $6::smallint[], $7::bigint, $8::integer, clock_timestamp()
FROM (SELECT set_config('synchronous_commit', 'off', true)) AS no_flush
ON CONFLICT (replica_set, projection, log, worker, lane) DO UPDATE
SET partitions = excluded.partitions, position = excluded.position, events = excluded.events, marked_at = excluded.marked_at;

-- name: erase
-- Lane $5 of worker $4 has nothing in hand.
DELETE FROM reactive_orch.markers m
WHERE m.replica_set = $1::text AND m.projection = $2::text AND m.log = $3::text AND m.worker = $4::text AND m.lane = $5::integer;

-- name: forget
-- Partitions $4 are suspect no more, and what lost workers had in hand of them is behind us.
WITH forgotten AS (
    DELETE FROM reactive_orch.suspicions s
    WHERE s.replica_set = $1::text AND s.projection = $2::text AND s.log = $3::text AND s.partition = ANY ($4::smallint[])
)
DELETE FROM reactive_orch.markers m
WHERE m.replica_set = $1::text AND m.projection = $2::text AND m.log = $3::text AND m.partitions && $4::smallint[]
  AND NOT EXISTS (SELECT FROM reactive_orch.members o WHERE o.replica_set = $1::text AND o.name = m.worker);
