-- name: suspend
-- Projection $2 of replica set $1 on log $3 rests because of $4, says $5: its keys have been failing for $6 seconds. $7 are the
-- pauses before its trials, $8 whether others run it, too.
SELECT reactive_orch.suspend_projection($1::text, $2::text, $3::text, $4::text, $5::text, $6::double precision,
                                        $7::double precision[], $8::boolean);

-- name: claim
-- Whether a trial of projection $2 of replica set $1 on log $3 is due, of a key of partitions $4 (NULL: any): then it is for process
-- $5, and for $6 seconds. The key that has not been tried for longest.
SELECT t.due_in_s, k.id, k.partition, k.position, k.attempts, k.deaths, k.request, k.requested_by, k.request_position, k.asked_by, 0::double precision
FROM reactive_orch.claim_trial($1::text, $2::text, $3::text, $4::smallint[], $5::text, $6::double precision) t
LEFT JOIN LATERAL (
    SELECT k.id, k.partition, (SELECT min(d.position) FROM reactive_orch.dead_letters d WHERE d.key = k.id) AS position,
           k.attempts, k.deaths, k.request, k.requested_by, k.request_position, k.asked_by
    FROM reactive_orch.failing_keys k WHERE k.id = t.key) k ON true;

-- name: end_trial
-- The trial of projection $2 of replica set $1 on log $3 by process $6 has succeeded, or not ($5); $4 are the pauses before each trial.
SELECT reactive_orch.end_trial($1::text, $2::text, $3::text, $4::double precision[], $5::boolean, $6::text);

-- name: give_back
-- The trial that process $4 has claimed of projection $2 of replica set $1 on log $3 was not made: it is due again in a second.
UPDATE reactive_orch.projections p SET resumes_at = clock_timestamp() + interval '1 second', tried_by = NULL
WHERE p.replica_set = $1::text AND p.name = $2::text AND p.log = $3::text AND p.state = 'suspended' AND p.tried_by = $4::text;

-- name: resumed_by
-- Which process has tried an event of projection $2 of replica set $1 on log $3, so that it is not suspended any more. No row if
-- somebody has resumed it, or it does not run.
SELECT p.state_by FROM reactive_orch.projections p
WHERE p.replica_set = $1::text AND p.name = $2::text AND p.log = $3::text
  AND p.state = 'running' AND p.state_reason = 'a trial has succeeded';
