-- A worker that takes a projection up again writes the projection's row only if that changes it: others wait for that row.
CREATE OR REPLACE FUNCTION reactive_orch.take_up_projection(
    in_member integer, in_name text, in_projection text, in_log text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    -- Nobody needs a filter back that was given up.
    UPDATE reactive_orch.projections p SET proposed = NULL, proposed_declared = NULL
    FROM reactive_orch.members m
    WHERE m.id = in_member AND m.name = in_name
      AND p.replica_set = m.replica_set AND p.name = in_projection AND p.log = in_log
      AND p.proposed = ANY (p.former_filters);
    UPDATE reactive_orch.members m
    SET projections = m.projections || in_projection, logs = m.logs || in_log
    WHERE m.id = in_member AND m.name = in_name
      AND (in_projection, in_log) NOT IN (SELECT r.projection, r.log FROM unnest(m.projections, m.logs) AS r(projection, log))
$$;
