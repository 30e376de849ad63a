-- What was parked in an outage is tried again: also what had failed before the projection was suspended, and was committed just after
-- it, so that suspend_projection() did not see it.
CREATE OR REPLACE FUNCTION reactive_orch.claim_trial(
    in_replica_set text, in_projection text, in_log text, in_partitions smallint[], in_by text, in_for_s float8,
    OUT due_in_s float8, OUT key bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    anything boolean;
    died     boolean;
BEGIN
    SELECT greatest(extract(epoch FROM p.resumes_at + CASE WHEN p.resumes_at = p.state_since AND p.state_by = in_by
                                                           THEN interval '5 seconds' ELSE '0' END - clock_timestamp()), 0),
           p.tried_by NOT IN (SELECT m.name FROM reactive_orch.living_members(in_replica_set) m)
    INTO due_in_s, died FROM reactive_orch.projections p
    WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log AND p.state = 'suspended';
    IF due_in_s IS NULL OR due_in_s > 0 AND died IS NOT TRUE THEN
        RETURN;
    END IF;
    PERFORM FROM reactive_orch.projections p
    WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log AND p.state = 'suspended'
      AND (p.resumes_at <= clock_timestamp()
           OR p.tried_by NOT IN (SELECT m.name FROM reactive_orch.living_members(in_replica_set) m))
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN  -- somebody else was quicker
        due_in_s := 1;
        RETURN;
    END IF;
    -- Of batches that were in hand when it was suspended. One that was just being committed has failed before.
    PERFORM reactive_orch.retry_parked_since(p.replica_set, p.name, p.log, p.state_by, p.state_since - interval '30 seconds')
    FROM reactive_orch.projections p
    WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log;
    SELECT (array_agg(k.id ORDER BY k.worker <> p.state_by, k.failed_last_at)
            FILTER (WHERE in_partitions IS NULL OR k.partition = ANY (in_partitions)))[1], count(*) > 0
    INTO key, anything
    FROM reactive_orch.failing_keys k
    JOIN reactive_orch.projections p ON p.replica_set = k.replica_set AND p.name = k.projection AND p.log = k.log
    WHERE k.replica_set = in_replica_set AND k.projection = in_projection AND k.log = in_log AND k.due_at IS NOT NULL
      AND coalesce(k.request, 'retry') = 'retry';
    IF key IS NOT NULL THEN
        UPDATE reactive_orch.projections p SET resumes_at = clock_timestamp() + make_interval(secs => in_for_s), tried_by = in_by
        WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log;
    ELSIF NOT anything THEN
        PERFORM reactive_orch.end_trial(in_replica_set, in_projection, in_log, '{1}', true, in_by);
        due_in_s := NULL;
    ELSE
        due_in_s := 1;
    END IF;
END
$$;
