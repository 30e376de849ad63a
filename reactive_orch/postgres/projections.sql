-- name: set_state
-- Pause, halt or resume projection $2 of replica set $1 on log $6, with a reason, by somebody; the state before.
SELECT reactive_orch.set_projection_state($1::text, $2::text, $3::text, $4::text, $5::text, $6::text);

-- name: serialize
-- Projection $2 of replica set $1 on log $3 has met a deadlock: its batches go one at a time; for how long, and whether that
-- begins now.
SELECT left_s, begins FROM reactive_orch.serialize_batches($1::text, $2::text, $3::text);

-- name: resting
-- The projections of replica set $1 that are paused, halted or suspended.
SELECT p.name, p.log, p.state, p.state_reason, p.state_by, p.state_since, p.resumes_at
FROM reactive_orch.projections p WHERE p.replica_set = $1::text AND p.state <> 'running';

-- name: names
-- The projections that are recorded of replica set $1.
SELECT p.name FROM reactive_orch.projections p WHERE p.replica_set = $1::text;

-- name: hindrance
-- How projection $2 of replica set $1 on log $3 stands, and whether a worker runs it.
SELECT p.state, EXISTS (SELECT FROM reactive_orch.member_status m, unnest(m.projections, m.logs) AS r(name, log)
                        WHERE m.replica_set = $1::text AND NOT m.gone AND (r.name, r.log) = ($2::text, $3::text))
FROM reactive_orch.projections p WHERE p.replica_set = $1::text AND p.name = $2::text AND p.log = $3::text;
