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
       coalesce((SELECT max(c.position) FROM reactive_orch.checkpoints c
                 JOIN reactive_orch.projections p ON p.replica_set = c.replica_set AND p.name = c.projection
                 WHERE p.log_identity = i.identity), 0)      AS checkpoint,
       ARRAY(SELECT p.name || ' of replica set '::text || p.replica_set FROM reactive_orch.projections p
             WHERE p.log_identity <> i.identity ORDER BY p.replica_set, p.name) AS estranged
FROM reactive_orch.log_rules r CROSS JOIN (SELECT reactive_orch.log_identity() AS identity) i;

-- name: renew_identity
-- If a checkpoint stands beyond the end of the log, it counts as another log from now on.
SELECT reactive_orch.renew_log_identity();
