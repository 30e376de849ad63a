-- name: keep
-- Count one more put-off append of this batch, and return how many there are. The setting is local to the transaction. A
-- rollback to a savepoint, however it is written, sets it back: what was counted after the savepoint does not count then.
SELECT set_config('reactive_orch.put_off', (coalesce(nullif(current_setting('reactive_orch.put_off', true), ''), '0')::integer + 1)::text, true)::integer;

-- name: kept
-- How many put-off appends of this batch no savepoint has taken back.
SELECT coalesce(nullif(current_setting('reactive_orch.put_off', true), ''), '0')::integer;
