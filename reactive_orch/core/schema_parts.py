"""Indexes and triggers that the schema has made: what is not there can be made again by what stands here.

A test compares them with what `migrate` makes.
"""

from __future__ import annotations

UNIQUE_INDEXES = {
    "schema_steps_pkey": "schema_steps USING btree (version)",
    "events_pkey": "events USING btree (global_position)",
    "events_event_id_key": "events USING btree (event_id)",
    "events_bounded_context_aggregate_type_aggregate_id_aggregat_key": (
        "events USING btree (bounded_context, aggregate_type, aggregate_id, aggregate_version)"
    ),
    "logs_pkey": "logs USING btree (name)",
    "projections_pkey": "projections USING btree (replica_set, name, log)",
    "checkpoints_pkey": "checkpoints USING btree (replica_set, projection, log, partition)",
    "log_witness_pkey": "log_witness USING btree (log)",
    "failing_keys_pkey": "failing_keys USING btree (id)",
    "dead_letters_pkey": 'dead_letters USING btree (key, "position")',
    "unhandled_events_pkey": 'unhandled_events USING btree (replica_set, projection, log, partition, "position")',
    "discarded_events_pkey": 'discarded_events USING btree (replica_set, projection, log, "position", discarded_at)',
    "suspicions_pkey": "suspicions USING btree (replica_set, projection, log, partition)",
    "markers_pkey": "markers USING btree (replica_set, projection, log, worker, lane)",
    "replica_sets_pkey": "replica_sets USING btree (name)",
    "members_pkey": "members USING btree (id)",
    "generations_pkey": "generations USING btree (replica_set, number)",
    "adoptions_pkey": "adoptions USING btree (replica_set, generation, member)",
    "assignments_pkey": "assignments USING btree (replica_set, projection, log)",
    "event_counts_pkey": "event_counts USING btree (event_type, partition)",
}
"""By name, what PostgreSQL says of each, without the schema and without storage parameters. Most belong to keys."""

INDEXES = {
    "events_partition_position": "events USING btree (partition, ((global_position + 0)))",
    "events_created_at": "events USING brin (created_at, ((global_position + 0)))",
    "failing_keys_key": "failing_keys USING btree (replica_set, projection, log, key_hash)",
    "failing_keys_due": "failing_keys USING btree (replica_set, projection, log, due_at) WHERE (due_at IS NOT NULL)",
    "failing_keys_asked": "failing_keys USING btree (replica_set, projection, log) WHERE (asked_by IS NOT NULL)",
    "members_replica_set": "members USING btree (replica_set)",
}

TRIGGERS = {
    "ring": (
        "events",
        "CREATE TRIGGER ring AFTER INSERT ON reactive_orch.events "
        "FOR EACH STATEMENT EXECUTE FUNCTION reactive_orch.ring()",
    ),
    "truncated": (
        "events",
        "CREATE TRIGGER truncated AFTER TRUNCATE ON reactive_orch.events "
        "FOR EACH STATEMENT EXECUTE FUNCTION reactive_orch.log_truncated()",
    ),
    "batch_is_sealed": (
        "checkpoints",
        "CREATE CONSTRAINT TRIGGER batch_is_sealed AFTER UPDATE ON reactive_orch.checkpoints "
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((new.epoch = old.epoch)) "
        "EXECUTE FUNCTION reactive_orch.refuse_unsealed()",
    ),
}
"""By name, its table, and the statement that makes it, as PostgreSQL says it."""
