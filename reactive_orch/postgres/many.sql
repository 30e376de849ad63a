-- name: may_stage
-- Whether this role may make temporary tables in this database.
SELECT has_database_privilege(current_database(), 'TEMPORARY');

-- name: staging
-- Where events are sent first. No reader waits for what is written here.
CREATE TEMPORARY TABLE staged (
    line bigint, bounded_context text COLLATE "C", aggregate_type text COLLATE "C", aggregate_id text COLLATE "C",
    event_id uuid, event_type text COLLATE "C", event_version integer, payload bytea, trace_id text, correlation_id text,
    causation_id text, metadata jsonb, partition_key text COLLATE "C");

-- name: stage
-- Some events, with the numbers of their lines.
INSERT INTO pg_temp.staged (line, bounded_context, aggregate_type, aggregate_id, event_id, event_type, event_version,
                            payload, trace_id, correlation_id, causation_id, metadata, partition_key)
SELECT n.line, n.context, n.type, n.id, n.event_id, n.event_type, n.event_version, n.payload, n.trace_id, n.correlation_id,
       n.causation_id, n.metadata::jsonb, n.partition_key
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::integer[], $8::bytea[],
            $9::text[], $10::text[], $11::text[], $12::text[], $13::text[])
     AS n(line, context, type, id, event_id, event_type, event_version, payload, trace_id, correlation_id, causation_id,
          metadata, partition_key);

-- name: doubled
-- The first line with an event_id that a line before it has; NULL for none.
SELECT min(d.line)
FROM (SELECT s.line, row_number() OVER (PARTITION BY s.event_id ORDER BY s.line) AS n
      FROM pg_temp.staged s WHERE s.event_id IS NOT NULL) d
WHERE d.n > 1;

-- name: let_send
-- Let this transaction wait longer for what is sent in it: a large event takes seconds.
SET LOCAL idle_in_transaction_session_timeout = '60s';

-- name: numbering
-- Room for the rows of the log as they will be. Payloads are compressed by now: what is copied on is not compressed again.
CREATE TEMPORARY TABLE numbered (
    line bigint PRIMARY KEY, bounded_context text COLLATE "C", aggregate_type text COLLATE "C", aggregate_id text COLLATE "C",
    aggregate_version bigint, event_id uuid, event_type text COLLATE "C", event_version integer, payload bytea, trace_id text,
    correlation_id text, causation_id text, metadata jsonb, partition_key text COLLATE "C");

-- name: forget_numbers
-- Before they are numbered again.
TRUNCATE pg_temp.numbered;

-- name: number
-- All staged events in order, each numbered after the last of its aggregate, or after version $1 if that is given. This
-- only reads the log, so no reader waits for it: what is left for later is to write the rows as they are.
INSERT INTO pg_temp.numbered (line, bounded_context, aggregate_type, aggregate_id, aggregate_version, event_id, event_type,
                              event_version, payload, trace_id, correlation_id, causation_id, metadata, partition_key)
SELECT s.line, s.bounded_context, s.aggregate_type, s.aggregate_id,
       coalesce($1::bigint,
                first_value((SELECT max(e.aggregate_version) FROM reactive_orch.events e
                             WHERE e.bounded_context = s.bounded_context AND e.aggregate_type = s.aggregate_type
                               AND e.aggregate_id = s.aggregate_id)) OVER stream, 0)
           + row_number() OVER stream,
       coalesce(s.event_id, gen_random_uuid()), s.event_type, s.event_version, s.payload, s.trace_id, s.correlation_id,
       s.causation_id, s.metadata, s.partition_key
FROM pg_temp.staged s
WINDOW stream AS (PARTITION BY s.bounded_context, s.aggregate_type, s.aggregate_id ORDER BY s.line)
ORDER BY s.line;

-- name: moved
-- Up to $1 of the aggregates that are no longer where they were when their events were numbered.
SELECT s.bounded_context, s.aggregate_type, s.aggregate_id
FROM (SELECT n.bounded_context, n.aggregate_type, n.aggregate_id, min(n.aggregate_version) - 1 AS version
      FROM pg_temp.numbered n
      GROUP BY n.bounded_context, n.aggregate_type, n.aggregate_id) s
WHERE s.version <> coalesce((SELECT max(e.aggregate_version) FROM reactive_orch.events e
                             WHERE e.bounded_context = s.bounded_context AND e.aggregate_type = s.aggregate_type
                               AND e.aggregate_id = s.aggregate_id), 0)
LIMIT $1::integer;

-- name: write
-- The events of the lines from $1 to $2. From the first of these on, until the transaction ends, readers wait.
INSERT INTO reactive_orch.events (bounded_context, aggregate_type, aggregate_id, aggregate_version, event_id, event_type,
                                  event_version, payload, trace_id, correlation_id, causation_id, metadata, partition_key)
SELECT n.bounded_context, n.aggregate_type, n.aggregate_id, n.aggregate_version, n.event_id, n.event_type, n.event_version,
       n.payload, n.trace_id, n.correlation_id, n.causation_id, n.metadata, n.partition_key
FROM pg_temp.numbered n
WHERE n.line >= $1::bigint AND n.line <= $2::bigint
ORDER BY n.line;
