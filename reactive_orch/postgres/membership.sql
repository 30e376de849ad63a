-- name: register
-- Record the projections, their logs, their filters, what is declared of them, and where new ones begin; returns those that are
-- refused.
SELECT projection, log
FROM reactive_orch.register_projections($1::text, $2::text[], $3::text[], $4::text[], $5::text[], $6::text[]);

-- name: join
-- Take the lock that says "I live" and write a waiting row; returns the member's id.
SELECT reactive_orch.join_replica_set($1::text, $2::text, $3::text[], $4::text[], $5::interval, $6::integer[], $7::integer[]);

-- name: resume
-- After a lost connection: take the locks of these members again and record the new backend.
SELECT reactive_orch.resume_members($1::text, $2::integer[]);

-- name: heartbeat
-- Say that these members live, by the database's clock, and what they tell; the ids that come back are still members. In the same look:
-- the generation, how often projections were rewound, paused or resumed, and whether the replica set has somebody to admit or to remove,
-- or a failing key that this process could try for another: not while its projection rests, nor what people have asked for. A row
-- that somebody has locked is passed over and not waited for: this connection would be taken for lost, and the members of other
-- replica sets have their heartbeats, too.
WITH free AS (
    SELECT m.id FROM reactive_orch.members m
    WHERE m.name = $1::text AND m.id = ANY ($2::integer[]) FOR NO KEY UPDATE SKIP LOCKED
), beat AS (
    UPDATE reactive_orch.members m
    SET heartbeat_at = clock_timestamp(), account = coalesce(w.account::jsonb, m.account),
        backend_pid = a.pid, backend_start = a.backend_start  -- when the connection was made, the row may have been locked
    FROM free JOIN unnest($2::integer[], $3::text[]) AS w(id, account) USING (id), pg_stat_get_activity(pg_backend_pid()) a
    WHERE m.id = free.id RETURNING m.id
)
SELECT o.id, o.replica_set, r.generation,
       (SELECT coalesce(sum(p.epoch + p.state_changes), 0)
        FROM reactive_orch.projections p WHERE p.replica_set = o.replica_set)::bigint AS changes,
       EXISTS (SELECT FROM reactive_orch.member_status m
               WHERE m.replica_set = o.replica_set AND (m.gone OR m.state = 'waiting'))
       OR EXISTS (SELECT FROM reactive_orch.failing_keys k
                  JOIN reactive_orch.projections p ON p.replica_set = k.replica_set AND p.name = k.projection AND p.log = k.log
                  WHERE k.replica_set = o.replica_set AND k.asked_by <> $1::text AND k.taken_by IS NULL AND k.request IS NULL
                    AND p.state = 'running') AS attention,
       pg_notification_queue_usage() AS queue_usage, beat.id IS NULL AS late
FROM reactive_orch.members o JOIN reactive_orch.replica_sets r ON r.name = o.replica_set LEFT JOIN beat ON beat.id = o.id
WHERE o.name = $1::text AND o.id = ANY ($2::integer[]);

-- name: await_death
-- Wait in the ring: true when the member's lock is free, false when the slice has passed.
SELECT reactive_orch.await_death($1::integer);

-- name: terminate
-- End what removed members have left behind; returns how many backends could not be ended.
SELECT reactive_orch.terminate_backends($1::text[]);

-- name: observe
-- A replica set in one snapshot: its generation, its members, who owns what, how many partitions the logs have.
SELECT r.generation, g.reason, g.subjects, g.traceparent, g.moved, g.created_at,
       extract(epoch FROM clock_timestamp() - g.created_at)::float8 AS age_s, g.completed_at IS NOT NULL AS complete,
       (SELECT coalesce(json_agg(json_build_array(p.name, p.log, p.epoch)), '[]')
        FROM reactive_orch.projections p WHERE p.replica_set = r.name)::text AS epochs,
       (SELECT coalesce(json_agg(json_build_array(p.name, p.log, p.state, CASE p.state WHEN 'suspended' THEN p.state_reason ELSE '' END)), '[]')
        FROM reactive_orch.projections p WHERE p.replica_set = r.name AND p.state <> 'running')::text AS resting,
       (SELECT coalesce(json_agg(json_build_array(p.name, p.log)), '[]')
        FROM reactive_orch.projections p
        WHERE p.replica_set = r.name AND p.declared @> '{"exclusive": true}')::text AS exclusive,
       (SELECT coalesce(json_agg(json_build_array(
                   p.name, p.log, least(extract(epoch FROM p.serial_until - clock_timestamp()), p.serial_s))), '[]')
        FROM reactive_orch.projections p
        WHERE p.replica_set = r.name AND p.serial_until > clock_timestamp())::text AS serial,
       (SELECT coalesce(json_agg(DISTINCT jsonb_build_array(k.projection, k.log)), '[]')
        FROM reactive_orch.failing_keys k
        WHERE k.replica_set = r.name AND k.asked_by IS NOT NULL AND k.taken_by IS NULL AND k.request IS NULL)::text AS asked,
       (SELECT coalesce(json_agg(json_build_object(
                   'id', m.id, 'name', m.name, 'state', m.state, 'projections', m.projections, 'logs', m.logs,
                   'lock_held', m.lock_held, 'dead', m.dead, 'stale', m.stale, 'heartbeat_age_s', m.heartbeat_age_s,
                   'stale_after_s', extract(epoch FROM m.stale_after), 'acknowledged', m.acknowledged) ORDER BY m.id), '[]')
        FROM reactive_orch.member_status m WHERE m.replica_set = r.name)::text AS members,
       (SELECT coalesce(json_agg(json_build_array(a.projection, a.log, a.owners)), '[]')
        FROM reactive_orch.assignments a WHERE a.replica_set = r.name)::text AS owners,
       (SELECT coalesce(json_object_agg(s.name, s.partitions), '{}') FROM reactive_orch.logs s)::text AS partitions
FROM reactive_orch.replica_sets r
LEFT JOIN reactive_orch.generations g ON g.replica_set = r.name AND g.number = r.generation
WHERE r.name = $1::text;

-- name: change
-- Write the generation after $2, whole or not at all; NULLs when the replica set has moved on.
SELECT number, created_at, overtaken
FROM reactive_orch.change_generation($1::text, $2::bigint, $3::text, $4::integer[], $5::text, $6::integer[],
                                     $7::integer[], $8::text[], $9::text[], $10::integer[], $11::integer, $12::integer,
                                     $13::text, $14::float8);

-- name: acknowledge
-- Member $2 of process $3 has adopted the generation, and how; no row when there is another one already.
SELECT notify_s, completed_at, slowest, kept, notify_max_s, finish_max_s, load_max_s
FROM reactive_orch.acknowledge($1::text, $2::integer, $3::text, $4::bigint, $5::text, $6::float8, $7::float8, $8::float8,
                               $9::integer, $10::integer, $11::integer);

-- name: leave
-- Ask to be removed by the next change; a worker that was never admitted needs none.
WITH never_admitted AS (
    DELETE FROM reactive_orch.members m WHERE m.id = $1::integer AND m.name = $2::text AND m.state = 'waiting'
)
UPDATE reactive_orch.members m SET state = 'leaving'
WHERE m.id = $1::integer AND m.name = $2::text AND m.state = 'active';

-- name: give_up
-- Member $1 of process $2 no longer runs projection $3 on log $4.
SELECT reactive_orch.give_up_projection($1::integer, $2::text, $3::text, $4::text);

-- name: take_up
-- Member $1 of process $2 runs projection $3 on log $4, too.
SELECT reactive_orch.take_up_projection($1::integer, $2::text, $3::text, $4::text);

-- name: propose_again
-- Projection $2 on log $3 of replica set $1 is to have filter $4 and what $5 declares, if nobody runs it; tells whether it was said.
SELECT reactive_orch.propose_again($1::text, $2::text, $3::text, $4::text, $5::text);

-- name: withdraw
-- Take back what was proposed again for projection $2 on log $3 of replica set $1, if that is still filter $4: somebody runs it.
-- Nobody who has the row is waited for, as a rewind has; false then.
WITH free AS (
    SELECT p.replica_set, p.name, p.log FROM reactive_orch.projections p
    WHERE p.replica_set = $1::text AND p.name = $2::text AND p.log = $3::text FOR NO KEY UPDATE SKIP LOCKED
), taken_back AS (
    UPDATE reactive_orch.projections p SET proposed = NULL, proposed_declared = NULL
    FROM free WHERE (p.replica_set, p.name, p.log) = (free.replica_set, free.name, free.log) AND p.proposed = $4::jsonb
)
SELECT EXISTS (SELECT FROM free);

-- name: unlock
-- Give back the lock of a member that has left, so that the connection can serve others.
SELECT pg_advisory_unlock(reactive_orch.lock_namespace(), $1::integer);

-- name: generation
-- Why a generation was made and when it was complete.
SELECT g.number, g.reason, g.subjects, g.members, g.moved, g.traceparent, g.initiator, g.wake_source, g.noticed_at,
       g.created_at, g.completed_at
FROM reactive_orch.generations g WHERE g.replica_set = $1::text AND g.number = $2::bigint;

-- name: adoptions
-- How the members adopted a generation, in the order in which they noticed.
SELECT a.member, a.wake_source, a.noticed_at, a.finished_at, a.loaded_at, a.acknowledged_at, a.gave, a.took, a.kept
FROM reactive_orch.adoptions a WHERE a.replica_set = $1::text AND a.generation = $2::bigint
ORDER BY a.noticed_at, a.member;

-- name: replica_sets
-- All replica sets by name.
SELECT r.name, r.generation FROM reactive_orch.replica_sets r ORDER BY r.name;
