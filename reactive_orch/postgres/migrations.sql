-- name: applied
-- The schema steps applied, and the digest of each; NULL from before the column was there.
SELECT s.version, to_jsonb(s) ->> 'digest' AS digest FROM reactive_orch.schema_steps s ORDER BY s.version;

-- name: pin_search_path
-- What the steps create binds operators and functions for ever. They must be PostgreSQL's own, whatever others have put
-- where a search_path finds it first.
SELECT set_config('search_path', 'pg_catalog, pg_temp', true);

-- name: migration_lock
-- One migration at a time; held until the transaction ends.
SELECT pg_advisory_xact_lock(1919906403, 0);

-- name: is_recorded
-- Whether there is a table of the applied steps.
SELECT to_regclass('reactive_orch.schema_steps') IS NOT NULL;

-- name: schema_steps_table
-- Where the applied steps are recorded.
CREATE TABLE IF NOT EXISTS reactive_orch.schema_steps (
    version integer PRIMARY KEY, digest text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp());

-- name: schema
-- The schema itself.
CREATE SCHEMA IF NOT EXISTS reactive_orch;

-- name: choose_partitions
-- The number of partitions, read by the step that creates the log.
SELECT set_config('reactive_orch.partitions', $1::text, true);

-- name: record_step
-- This step has been applied.
INSERT INTO reactive_orch.schema_steps (version, digest) VALUES ($1::integer, $2::text);

-- name: mend_bell
-- Make again what writers wake the readers with, if it was dropped, disabled or damaged; returns what that was.
SELECT reactive_orch.mend_bell();

-- name: close_to_public
-- Take from PUBLIC whatever it may do with the schema and what is in it; returns with what that was.
SELECT reactive_orch.close_to_public();

-- name: is_ours
-- Whether the schema is this role's to change.
SELECT pg_has_role(n.nspowner, 'USAGE') FROM pg_namespace n WHERE n.nspname = 'reactive_orch';
