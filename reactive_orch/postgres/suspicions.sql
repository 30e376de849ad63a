-- name: found
-- Which of the partitions $4 of (replica set $1, projection $2, log $3) are suspect, and what their last owner had in hand when
-- it was lost: what is said by a process that is a member still may be taken back, unless it is dead. If one that is dead has not
-- adopted the generation, all of them are, if they were awaited ($5): their rows may be free because it died.
SELECT p.partition, m.worker, m.lane, m.position, m.events
FROM unnest($4::smallint[]) AS p(partition)
LEFT JOIN LATERAL (
    SELECT m.worker, m.lane, m.position, m.events FROM reactive_orch.markers m
    WHERE m.replica_set = $1::text AND m.projection = $2::text AND m.log = $3::text AND p.partition = ANY (m.partitions)
      AND m.worker NOT IN (SELECT o.name FROM reactive_orch.living_members($1::text) o)
    ORDER BY m.marked_at DESC LIMIT 1) m ON true
WHERE EXISTS (SELECT FROM reactive_orch.suspicions s
              WHERE s.replica_set = $1::text AND s.projection = $2::text AND s.log = $3::text AND s.partition = p.partition)
   OR $5::boolean AND reactive_orch.died_giving($1::text);

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
  AND m.worker NOT IN (SELECT o.name FROM reactive_orch.living_members($1::text) o);
