-- name: schema_version
-- The newest schema step applied.
SELECT max(s.version) FROM reactive_orch.schema_steps s;

-- name: migration_lock
-- One migration at a time; held until the transaction ends.
SELECT pg_advisory_xact_lock(1919906403, 0);

-- name: schema_steps_table
-- Where the applied steps are recorded.
CREATE TABLE IF NOT EXISTS reactive_orch.schema_steps (
    version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT clock_timestamp());

-- name: schema
-- The schema itself.
CREATE SCHEMA IF NOT EXISTS reactive_orch;

-- name: choose_partitions
-- The number of partitions, read by the step that creates the log.
SELECT set_config('reactive_orch.partitions', $1::text, true);

-- name: record_step
-- This step has been applied.
INSERT INTO reactive_orch.schema_steps (version) VALUES ($1::integer);
