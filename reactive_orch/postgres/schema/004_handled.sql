-- For applications that wait until what they have appended is handled.

-- To look at the bodies of functions takes locks of the tables in them, for which whoever has locked the log is waited for.
SET LOCAL check_function_bodies = off;

-- append() returns positions. Who may look up versions for it may read those, too, by columns or not at all before.
DO $$
DECLARE
    appender record;
BEGIN
    FOR appender IN
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS name
        FROM pg_attribute c, aclexplode(c.attacl) a
        WHERE c.attrelid = 'reactive_orch.events'::regclass AND c.attname = 'aggregate_version' AND a.privilege_type = 'SELECT'
    LOOP
        EXECUTE format('GRANT SELECT (global_position) ON reactive_orch.events TO %s', appender.name);
    END LOOP;
END
$$;

-- The first of these positions whose event a projection has not handled; NULL if there is none. An event is handled when the
-- checkpoint of its partition is there and it does not wait with a failing key. With `in_whole` all of the projection has to
-- be: every partition, and no event up to there waits. A position without an event is not handled, unless in_whole.
CREATE OR REPLACE FUNCTION reactive_orch.first_unhandled(
    in_replica_set text, in_projection text, in_log text, in_positions bigint[], in_whole boolean) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH wanted AS (SELECT w.position FROM unnest(in_positions) AS w(position)),
    slowest AS (
        SELECT coalesce(min(c.position), 0) AS position, coalesce(sum(c.failing), 0) AS failing
        FROM reactive_orch.checkpoints c
        WHERE in_whole AND c.replica_set = in_replica_set AND c.projection = in_projection AND c.log = in_log
    ),
    waiting AS (
        SELECT coalesce(min(d.position), 9223372036854775807) AS position
        FROM reactive_orch.failing_keys k
        CROSS JOIN LATERAL (SELECT d.position FROM reactive_orch.dead_letters d
                            WHERE d.key = k.id ORDER BY d.position LIMIT 1) d
        WHERE in_whole AND (SELECT s.failing FROM slowest s) > 0
          AND k.replica_set = in_replica_set AND k.projection = in_projection AND k.log = in_log
    )
    SELECT min(w.position)
    FROM wanted w
    LEFT JOIN reactive_orch.event_log e ON NOT in_whole AND e.log = in_log AND e.global_position = w.position
    LEFT JOIN reactive_orch.checkpoints c
           ON c.replica_set = in_replica_set AND c.projection = in_projection AND c.log = in_log AND c.partition = e.partition
    CROSS JOIN slowest s
    CROSS JOIN waiting v
    WHERE CASE WHEN in_whole THEN s.position < w.position OR v.position <= w.position
               ELSE c.position IS NULL OR c.position < w.position OR c.failing > 0 AND EXISTS (
                        SELECT FROM reactive_orch.failing_keys k
                        JOIN reactive_orch.dead_letters d ON d.key = k.id AND d.position = w.position
                        WHERE k.replica_set = in_replica_set AND k.projection = in_projection AND k.log = in_log
                          AND k.key_hash = CASE WHEN e.partition_key IS NULL
                                                THEN reactive_orch.key_hash(e.bounded_context, e.aggregate_type, e.aggregate_id)
                                                ELSE reactive_orch.key_hash('', '', e.partition_key) END)
          END
$$;

-- The same; and if there is one, the workers of the replica set are told that this session waits, and for what: for the
-- partitions of these events, or with NULL for all of them, to be read up to the last of these positions, and saved. They
-- answer on a channel of the number that the session gives; with NULL they are told nothing. What they are told only makes
-- them quicker.
CREATE OR REPLACE FUNCTION reactive_orch.await_handled(
    in_replica_set text, in_projection text, in_log text, in_positions bigint[], in_whole boolean, in_session integer)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    first bigint := reactive_orch.first_unhandled(in_replica_set, in_projection, in_log, in_positions, in_whole);
    told text;
BEGIN
    IF first IS NOT NULL AND in_session IS NOT NULL THEN
        told := json_build_array(
            in_replica_set, in_projection, in_log, in_session, (SELECT max(w.position) FROM unnest(in_positions) AS w(position)),
            CASE WHEN NOT in_whole THEN (
                SELECT json_agg(DISTINCT e.partition) FROM reactive_orch.event_log e
                WHERE e.log = in_log AND e.global_position = ANY (in_positions)) END);
        IF octet_length(told) < 8000 THEN  -- what a notification can carry
            PERFORM reactive_orch.notify('reactive_orch_awaited', told);
        END IF;
    END IF;
    RETURN first;
END
$$;

-- Why a position is not handled: whether there is such an event, how far its partition is, or with `in_whole` the slowest
-- one, NULL if no worker has ever run the projection; how many workers run it, and whether it rests; the failing key
-- with which it waits, and why that fails, without values.
CREATE OR REPLACE FUNCTION reactive_orch.why_unhandled(
    in_replica_set text, in_projection text, in_log text, in_position bigint, in_whole boolean,
    OUT found boolean, OUT checkpoint bigint, OUT workers integer, OUT state text, OUT key_state text, OUT error_type text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH event AS (SELECT e.partition FROM reactive_orch.event_log e WHERE e.log = in_log AND e.global_position = in_position)
    SELECT EXISTS (SELECT FROM event),
           (SELECT min(c.position) FROM reactive_orch.checkpoints c
            WHERE c.replica_set = in_replica_set AND c.projection = in_projection AND c.log = in_log
              AND (in_whole OR c.partition = (SELECT e.partition FROM event e))),
           (SELECT count(*)::integer FROM reactive_orch.member_status m
            WHERE m.replica_set = in_replica_set AND NOT m.gone
              AND (in_projection, in_log) IN (SELECT r.projection, r.log FROM unnest(m.projections, m.logs) AS r(projection, log))),
           (SELECT p.state FROM reactive_orch.projections p
            WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log),
           k.state, k.error_type
    FROM (SELECT) AS one
    LEFT JOIN LATERAL (
        SELECT k.state, k.error_type
        FROM reactive_orch.failing_keys k
        CROSS JOIN LATERAL (SELECT d.position FROM reactive_orch.dead_letters d
                            WHERE d.key = k.id AND d.position <= in_position
                              AND d.position >= CASE WHEN in_whole THEN 0 ELSE in_position END
                            ORDER BY d.position LIMIT 1) d
        WHERE k.replica_set = in_replica_set AND k.projection = in_projection AND k.log = in_log
        ORDER BY d.position
        LIMIT 1) k ON true
$$;
