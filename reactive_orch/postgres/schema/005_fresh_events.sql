-- For the look at a log that brings the events it has settled along.

-- To look at the bodies of functions takes locks of the tables in them, for which whoever has locked the log is waited for.
SET LOCAL check_function_bodies = off;

-- The events of some partitions of a log in (in_low, in_high], in order, none if in_high is NULL; each with its bytes, over all
-- columns that may be long. Of an event with more than in_bytes only position and partition come. Volatile, so that it sees
-- what has been committed up to its call: a statement that has looked at the log before it may read here what that has settled.
CREATE OR REPLACE FUNCTION reactive_orch.fresh_events(
    in_log text, in_low bigint, in_high bigint, in_partitions smallint[], in_bytes bigint)
RETURNS TABLE (
    global_position bigint, partition smallint, bounded_context text, aggregate_type text, aggregate_id text,
    aggregate_version bigint, event_id uuid, event_type text, event_version integer, payload bytea, trace_id text,
    correlation_id text, causation_id text, metadata text, created_at timestamptz, partition_key text, bytes bigint)
LANGUAGE plpgsql VOLATILE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF in_high IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT s.global_position, s.partition, e.bounded_context, e.aggregate_type, e.aggregate_id, e.aggregate_version, e.event_id,
           e.event_type, e.event_version, e.payload, e.trace_id, e.correlation_id, e.causation_id, e.metadata_json, e.created_at,
           e.partition_key, e.bytes
    FROM (SELECT o.*, octet_length(o.payload)::bigint + octet_length(o.bounded_context) + octet_length(o.aggregate_type)
                    + octet_length(o.aggregate_id) + octet_length(o.event_type) + coalesce(octet_length(o.trace_id), 0)
                    + coalesce(octet_length(o.correlation_id), 0) + coalesce(octet_length(o.causation_id), 0)
                    + coalesce(octet_length(o.partition_key), 0) AS other_bytes,
                 CASE WHEN pg_column_size(o.metadata) <= in_bytes THEN o.metadata::text END AS metadata_json
          FROM reactive_orch.event_log o
          WHERE o.log = in_log AND (o.partition = ANY (in_partitions)) IS TRUE
            AND o.global_position > in_low AND o.global_position <= in_high
          OFFSET 0) s
    LEFT JOIN LATERAL (SELECT s.*, s.other_bytes + octet_length(s.metadata_json) AS bytes OFFSET 0) e ON e.bytes <= in_bytes
    ORDER BY s.global_position;
END
$$;
