-- name: bound
-- Let no statement of this transaction take long, and none meet somebody else's operators; and names be as we know them.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true), pg_catalog.set_config('statement_timeout', '5s', true),
       pg_catalog.set_config('lock_timeout', '2s', true), pg_catalog.set_config('quote_all_identifiers', 'off', true);

-- name: server
-- Where this connection leads.
SELECT current_setting('server_version_num')::integer AS version, current_setting('server_version') AS release,
       pg_is_in_recovery() AS standby,
       (SELECT s.reset_val = 'on' FROM pg_settings s WHERE s.name = 'default_transaction_read_only') AS read_only,
       current_database()::text AS database, current_user::text AS "user", getdatabaseencoding()::text AS encoding,
       pg_postmaster_start_time()::text AS started, pg_backend_pid() AS pid, extract(epoch FROM clock_timestamp())::float8 AS clock;

-- name: dropped
-- Which of the settings $1 are not those that were asked for when this session was made.
SELECT s.name FROM pg_settings s WHERE s.name = ANY ($1::text[]) AND s.source NOT IN ('client', 'session') ORDER BY s.name;

-- name: lock
-- Try to lock a number for this session.
SELECT pg_catalog.pg_try_advisory_lock($1::bigint);

-- name: unlock
-- Give the lock back, if this session has it.
SELECT pg_catalog.pg_advisory_unlock($1::bigint);

-- name: notify
-- Notify a channel.
SELECT pg_catalog.pg_notify($1::text, $2::text);
