-- name: listed
-- All replica sets: since when they have their generation, how many workers live, what is recorded of them, how many keys fail.
SELECT r.name, r.generation,
       (SELECT g.created_at FROM reactive_orch.generations g WHERE g.replica_set = r.name AND g.number = r.generation) AS since,
       (SELECT count(*) FROM reactive_orch.member_status m WHERE m.replica_set = r.name AND (m.lock_held OR NOT m.stale)) AS workers,
       ARRAY(SELECT p.name FROM reactive_orch.projections p WHERE p.replica_set = r.name ORDER BY p.name) AS projections,
       (SELECT count(*) FROM reactive_orch.failing_keys k WHERE k.replica_set = r.name) AS failing_keys
FROM reactive_orch.replica_sets r ORDER BY r.name;

-- name: remove
-- Forget replica set $1, or of it only projection $2 on log $3: how many projections, and how many events waited.
SELECT projections, waiting FROM reactive_orch.remove_replica_set($1::text, $2::text, $3::text);
