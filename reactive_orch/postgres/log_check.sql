-- name: logs
-- The logs there are.
SELECT s.name, s.partitions, s.frontier FROM reactive_orch.logs s ORDER BY s.name;

-- name: check
-- Every rule of log $1, how far it goes, and what the checkpoints say of it: how far anybody has read this log, and which
-- projections were reading another one.
SELECT r.flaw                                                AS flaw,
       r.name                                                AS name,
       r.frontier                                            AS frontier,
       r.relation::text                                      AS relation,
       r.sequence::text                                      AS sequence,
       r.partitions                                          AS partitions,
       r.cache                                               AS cache,
       r.increment                                           AS increment,
       has_sequence_privilege(r.sequence::oid, 'SELECT'::text) AS readable,
       CASE WHEN v.shown IS NOT NULL THEN EXISTS (
           SELECT FROM regexp_split_to_table(left(v.shown, -1), 'UNION ALL'::text) AS b(shown)
           WHERE strpos(split_part(b.shown, ' AS log'::text, 1), quote_literal(r.name) || '::text'::text) > 0
             AND right(btrim(b.shown, E' \n'::text), length(r.relation::text) + 5) = 'FROM '::text || r.relation::text)
       END                                                   AS whole,
       (SELECT min(c.oid::regclass::text) FROM pg_class c
        WHERE c.relnamespace = 'reactive_orch'::regnamespace::oid AND c.relrowsecurity AND c.oid <> r.relation::oid
          AND row_security_active(c.oid))                    AS veiled_table,
       coalesce(pg_sequence_last_value(r.sequence), 0)       AS head,
       i.identity                                            AS identity,
       reactive_orch.read_up_to(r.name)                      AS checkpoint,
       reactive_orch.log_differs_at(r.name)                  AS differs_at,
       ARRAY(SELECT p.name || ' of replica set '::text || p.replica_set FROM reactive_orch.projections p
             WHERE p.log = r.name AND p.log_identity <> i.identity ORDER BY p.replica_set, p.name) AS estranged,
       (SELECT s.differs_at FROM reactive_orch.logs s
        WHERE s.name = r.name
          AND EXISTS (SELECT FROM reactive_orch.projections p
                      WHERE p.log = s.name AND left(p.log_identity, 36) <> s.identity::text)) AS estranged_at
FROM reactive_orch.log_rules r
CROSS JOIN LATERAL (SELECT reactive_orch.log_identity(r.name) AS identity) i
CROSS JOIN (SELECT pg_get_viewdef('reactive_orch.event_log'::regclass::oid) AS shown) v
WHERE r.name = $1::text;

-- name: renew_identity
-- If log $1 is not what its checkpoints have read, it counts as another one from now on.
SELECT reactive_orch.renew_log_identity($1::text);

-- name: witness
-- Record log $1 as it is up to position $2, where it is settled, if that was not done in the last $3 seconds; returns up to
-- where it is recorded.
SELECT reactive_orch.witness_log($1::text, $2::bigint, make_interval(secs => $3::float8));
