-- name: check
-- Every rule of the log, how far it goes, and what the checkpoints say of it: how far anybody has read this log, and which
-- projections were reading another one.
SELECT r.flaw                                                AS flaw,
       r.relation::text                                      AS relation,
       r.sequence::text                                      AS sequence,
       r.partitions                                          AS partitions,
       r.cache                                               AS cache,
       r.increment                                           AS increment,
       has_sequence_privilege(r.sequence::oid, 'SELECT'::text) AS readable,
       right(left(pg_get_viewdef('reactive_orch.event_log'::regclass::oid), -1), length(r.relation::text) + 5)
           = 'FROM ' || r.relation::text                     AS whole,
       (SELECT min(c.oid::regclass::text) FROM pg_class c
        WHERE c.relnamespace = 'reactive_orch'::regnamespace::oid AND c.relrowsecurity AND c.oid <> r.relation::oid
          AND row_security_active(c.oid))                    AS veiled_table,
       coalesce(pg_sequence_last_value(r.sequence), 0)       AS head,
       i.identity                                            AS identity,
       reactive_orch.read_up_to()                            AS checkpoint,
       reactive_orch.log_differs_at()                        AS differs_at,
       ARRAY(SELECT p.name || ' of replica set '::text || p.replica_set FROM reactive_orch.projections p
             WHERE p.log_identity <> i.identity ORDER BY p.replica_set, p.name) AS estranged,
       (SELECT s.differs_at FROM reactive_orch.log_source s
        WHERE EXISTS (SELECT FROM reactive_orch.projections p WHERE left(p.log_identity, 36) <> s.identity::text)) AS estranged_at
FROM reactive_orch.log_rules r CROSS JOIN (SELECT reactive_orch.log_identity() AS identity) i;

-- name: renew_identity
-- If the log is not what its checkpoints have read, it counts as another one from now on.
SELECT reactive_orch.renew_log_identity();

-- name: witness
-- Record the log as it is up to position $1, where it is settled, if that was not done in the last $2 seconds; returns up to
-- where it is recorded.
SELECT reactive_orch.witness_log($1::bigint, make_interval(secs => $2::float8));
