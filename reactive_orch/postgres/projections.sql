-- name: set_state
-- Pause, halt or resume projection $2 of replica set $1 on log $6, with a reason, by somebody; the state before.
SELECT reactive_orch.set_projection_state($1::text, $2::text, $3::text, $4::text, $5::text, $6::text);

-- name: serialize
-- Projection $2 of replica set $1 on log $3 has met a deadlock: its batches go one at a time; for how long, and whether that
-- begins now.
SELECT left_s, begins FROM reactive_orch.serialize_batches($1::text, $2::text, $3::text);

-- name: serial
-- Of which projections of replica set $1 the batches go one at a time, and up to when.
SELECT p.name, p.log, p.serial_until FROM reactive_orch.projections p
WHERE p.replica_set = $1::text AND p.serial_until > clock_timestamp();

-- name: resting
-- The projections of replica set $1 that are paused, halted or suspended.
SELECT p.name, p.log, p.state, p.state_reason, p.state_by, p.state_since, p.resumes_at
FROM reactive_orch.projections p WHERE p.replica_set = $1::text AND p.state <> 'running';

-- name: traits
-- Of the projections of replica set $1: where they began, up to where they handle events again, NULL if they do not, and whether
-- they leave these out; whether no member runs them, and the filter of a worker that was refused; whether they are exclusive.
SELECT p.name, p.log, p.start, p.start_position,
       (SELECT max(c.handled_to) FROM reactive_orch.checkpoints c
        WHERE c.replica_set = p.replica_set AND c.projection = p.name AND c.log = p.log AND c.position < c.handled_to) AS replays_to,
       NOT coalesce((p.declared -> 'replay')::boolean, true) AS leaves_replayed_out,
       NOT EXISTS (SELECT FROM reactive_orch.members m, unnest(m.projections, m.logs) AS r(projection, log)
                   WHERE m.replica_set = p.replica_set AND m.state <> 'leaving'
                     AND r.projection = p.name AND r.log = p.log) AS unserved,
       p.proposed::text,
       coalesce((p.declared -> 'exclusive')::boolean, false) AS exclusive
FROM reactive_orch.projections p WHERE p.replica_set = $1::text;

-- name: hindrance
-- How projection $2 of replica set $1 on log $3 stands, and whether a worker runs it.
SELECT p.state, EXISTS (SELECT FROM reactive_orch.member_status m, unnest(m.projections, m.logs) AS r(name, log)
                        WHERE m.replica_set = $1::text AND NOT m.gone AND (r.name, r.log) = ($2::text, $3::text))
FROM reactive_orch.projections p WHERE p.replica_set = $1::text AND p.name = $2::text AND p.log = $3::text;
