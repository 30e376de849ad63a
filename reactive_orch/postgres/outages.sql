-- name: suspend
-- Projection $2 of replica set $1 on log $3 rests because of $4, says $5: its keys have been failing for $6 seconds. $7 are the
-- pauses before its trials.
SELECT reactive_orch.suspend_projection($1::text, $2::text, $3::text, $4::text, $5::text, $6::double precision,
                                        $7::double precision[]);

-- name: claim
-- Whether a trial of projection $2 of replica set $1 on log $3 is due, of a key of partitions $4: then it is the caller's for $5
-- seconds. The key that has not been tried for longest.
SELECT t.due_in_s, k.id, k.partition, k.position, k.attempts, k.deaths, k.request, k.requested_by, 0::double precision
FROM reactive_orch.claim_trial($1::text, $2::text, $3::text, $4::smallint[], $5::double precision) t
LEFT JOIN LATERAL (
    SELECT k.id, k.partition, (SELECT min(d.position) FROM reactive_orch.dead_letters d WHERE d.key = k.id) AS position,
           k.attempts, k.deaths, k.request, k.requested_by
    FROM reactive_orch.failing_keys k WHERE k.id = t.key) k ON true;

-- name: end_trial
-- The trial of projection $2 of replica set $1 on log $3 has succeeded, or not ($5); $4 are the pauses before each trial.
SELECT reactive_orch.end_trial($1::text, $2::text, $3::text, $4::double precision[], $5::boolean);
