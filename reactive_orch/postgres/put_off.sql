-- name: keep
-- Count one more put-off append of this batch, and return how many there are. The setting is local to the transaction and
-- falls back with a savepoint, however that is written: who was counted after the savepoint is not counted any more.
SELECT set_config('reactive_orch.put_off', (coalesce(nullif(current_setting('reactive_orch.put_off', true), ''), '0')::integer + 1)::text, true)::integer;

-- name: kept
-- How many put-off appends of this batch no savepoint has taken back.
SELECT coalesce(nullif(current_setting('reactive_orch.put_off', true), ''), '0')::integer;
