-- name: alive
-- Say, as long as this session lasts, that run $1 of tests is going on.
SELECT pg_catalog.pg_advisory_lock_shared($1::integer, $2::integer);

-- name: ended
-- Say that it is not, as far as this session knows.
SELECT pg_catalog.pg_advisory_unlock_shared($1::integer, $2::integer);

-- name: is_over
-- Whether nobody says that run $2 is going on; then nobody can say so before this session ends or unlocks.
SELECT pg_catalog.pg_try_advisory_lock($1::integer, $2::integer);

-- name: unlock
-- Let others see to run $2.
SELECT pg_catalog.pg_advisory_unlock($1::integer, $2::integer);

-- name: number
-- The number of the database that this session is in: tests name theirs by it.
SELECT d.oid::bigint FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database();

-- name: databases
-- The databases whose names begin with $1.
SELECT d.datname FROM pg_catalog.pg_database d WHERE pg_catalog.starts_with(d.datname, $1::text);

-- name: create
-- What makes database $1 a copy of $2, to which nobody is connected. File by file, which is half the time of the other way.
SELECT pg_catalog.format('CREATE DATABASE %I TEMPLATE %I STRATEGY file_copy', $1::text, $2::text);

-- name: rename
-- What gives database $1 the name $2.
SELECT pg_catalog.format('ALTER DATABASE %I RENAME TO %I', $1::text, $2::text);

-- name: drop
-- What drops database $1, whoever is connected.
SELECT pg_catalog.format('DROP DATABASE IF EXISTS %I WITH (FORCE)', $1::text);

-- name: created_at
-- The events at positions $1 were created at $2.
UPDATE reactive_orch.events SET created_at = $2::timestamptz WHERE global_position = ANY ($1::bigint[]);

-- name: at
-- The events of log $1 at positions $2, in order.
SELECT e.global_position, e.partition, e.bounded_context, e.aggregate_type, e.aggregate_id, e.aggregate_version,
       e.event_id, e.event_type, e.event_version, e.payload, e.trace_id, e.correlation_id, e.causation_id,
       e.metadata::text, e.created_at, e.partition_key
FROM reactive_orch.event_log e
WHERE e.log = $1::text AND e.global_position = ANY ($2::bigint[])
ORDER BY e.global_position;

-- name: reading_all
-- What reads all rows of a user's tables, but for columns that a sequence fills: it goes on when a transaction is taken back.
-- NULL when there is no table.
SELECT pg_catalog.string_agg(
           pg_catalog.format('SELECT %L AS "table", (pg_catalog.to_jsonb(t) - %L::text[])::text AS "row" FROM %s t',
                             c.oid::regclass, s.columns, c.oid::regclass), ' UNION ALL ') || ' ORDER BY 1, 2'
FROM pg_catalog.pg_class c
CROSS JOIN LATERAL (
    SELECT coalesce(pg_catalog.array_agg(a.attname::text), '{}') AS columns
    FROM pg_catalog.pg_attribute a
    LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = c.oid AND (a.attidentity <> '' OR pg_catalog.pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%')) s
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND c.relnamespace NOT IN (SELECT n.oid FROM pg_catalog.pg_namespace n
                             WHERE n.nspname IN ('pg_catalog', 'information_schema', 'reactive_orch'));

-- name: savepoint
-- Before a handler is called: where its writes can be taken back to.
SAVEPOINT reactive_orch_call;

-- name: take_back
-- After it failed.
ROLLBACK TO SAVEPOINT reactive_orch_call;

-- name: release
-- After it succeeded.
RELEASE SAVEPOINT reactive_orch_call;
