-- name: read_dense
-- The events of log $1, of partitions $2, in ($3, $4] that pass the filters $5, $6, $7: at most $8, each with its bytes, over all
-- columns that may be long. Of an event with more than $9 bytes only position and partition come: large ones are read by
-- read_large, and the others need no sum that limits them. Along the positions, past the events of other partitions: no
-- index on them can answer IS TRUE.
-- Nothing that is stored out of line is fetched to find out how long it is, but for metadata that takes at most $9 bytes.
-- Metadata counts as it is sent: a number like 1e100000 takes a few bytes in the table, and 100,000 in the answer.
SELECT s.global_position, s.partition, e.bounded_context, e.aggregate_type, e.aggregate_id, e.aggregate_version, e.event_id,
       e.event_type, e.event_version, e.payload, e.trace_id, e.correlation_id, e.causation_id, e.metadata_json, e.created_at,
       e.partition_key, e.bytes
FROM (SELECT o.*, octet_length(o.payload)::bigint + octet_length(o.bounded_context) + octet_length(o.aggregate_type)
                + octet_length(o.aggregate_id) + octet_length(o.event_type) + coalesce(octet_length(o.trace_id), 0)
                + coalesce(octet_length(o.correlation_id), 0) + coalesce(octet_length(o.causation_id), 0)
                + coalesce(octet_length(o.partition_key), 0) AS other_bytes,
             CASE WHEN pg_catalog.pg_column_size(o.metadata) <= $9::bigint THEN o.metadata::text END AS metadata_json
      FROM reactive_orch.event_log o
      WHERE o.log = $1::text AND (o.partition = ANY ($2::smallint[])) IS TRUE
        AND o.global_position > $3::bigint AND o.global_position <= $4::bigint
        AND ($5::text[] IS NULL OR o.aggregate_type = ANY ($5::text[]))
        AND ($6::text[] IS NULL OR o.bounded_context = ANY ($6::text[]))
        AND ($7::text[] IS NULL OR o.event_type = ANY ($7::text[]))
      ORDER BY o.global_position LIMIT $8::integer) s
LEFT JOIN LATERAL (SELECT s.*, s.other_bytes + octet_length(s.metadata_json) AS bytes OFFSET 0) e ON e.bytes <= $9::bigint
ORDER BY s.global_position;

-- name: read_scattered
-- The same, from the index on partitions, past no event of another one. Given the choice, the planner mostly takes the index
-- on positions, since what lies between two positions lies together, and throws most of it away. It has no choice here: only
-- the index on partitions has `global_position + 0`.
SELECT s.global_position, s.partition, e.bounded_context, e.aggregate_type, e.aggregate_id, e.aggregate_version, e.event_id,
       e.event_type, e.event_version, e.payload, e.trace_id, e.correlation_id, e.causation_id, e.metadata_json, e.created_at,
       e.partition_key, e.bytes
FROM (SELECT o.*, o.global_position + 0 AS ordinal,
             octet_length(o.payload)::bigint + octet_length(o.bounded_context) + octet_length(o.aggregate_type)
                + octet_length(o.aggregate_id) + octet_length(o.event_type) + coalesce(octet_length(o.trace_id), 0)
                + coalesce(octet_length(o.correlation_id), 0) + coalesce(octet_length(o.causation_id), 0)
                + coalesce(octet_length(o.partition_key), 0) AS other_bytes,
             CASE WHEN pg_catalog.pg_column_size(o.metadata) <= $9::bigint THEN o.metadata::text END AS metadata_json
      FROM reactive_orch.event_log o
      WHERE o.log = $1::text AND o.partition = ANY ($2::smallint[])
        AND o.global_position + 0 > $3::bigint AND o.global_position + 0 <= $4::bigint
        AND ($5::text[] IS NULL OR o.aggregate_type = ANY ($5::text[]))
        AND ($6::text[] IS NULL OR o.bounded_context = ANY ($6::text[]))
        AND ($7::text[] IS NULL OR o.event_type = ANY ($7::text[]))
      ORDER BY ordinal LIMIT $8::integer) s
LEFT JOIN LATERAL (SELECT s.*, s.other_bytes + octet_length(s.metadata_json) AS bytes OFFSET 0) e ON e.bytes <= $9::bigint
ORDER BY s.ordinal;

-- name: read_large
-- The events of log $1 at positions $2, none after the first $3 bytes. The bytes are counted twice: first as they are stored,
-- by functions that fetch no value that is stored out of line; then, for the events left, as they are sent.
SELECT w.global_position, w.partition, w.bounded_context, w.aggregate_type, w.aggregate_id, w.aggregate_version,
       w.event_id, w.event_type, w.event_version, w.payload, w.trace_id, w.correlation_id, w.causation_id,
       w.metadata_json, w.created_at, w.partition_key, w.bytes
FROM (SELECT t.*, sum(t.bytes) OVER (ORDER BY t.global_position ROWS UNBOUNDED PRECEDING) AS bytes_read
      FROM (SELECT s.*, s.other_bytes + octet_length(s.metadata_json) AS bytes
            FROM (SELECT r.*, r.metadata::text AS metadata_json
                  FROM (SELECT o.*, sum(o.other_bytes + o.metadata_bytes)
                                        OVER (ORDER BY o.global_position ROWS UNBOUNDED PRECEDING) AS stored_read
                        FROM (SELECT e.*, octet_length(e.payload)::bigint + octet_length(e.bounded_context)
                                        + octet_length(e.aggregate_type) + octet_length(e.aggregate_id)
                                        + octet_length(e.event_type) + coalesce(octet_length(e.trace_id), 0)
                                        + coalesce(octet_length(e.correlation_id), 0)
                                        + coalesce(octet_length(e.causation_id), 0)
                                        + coalesce(octet_length(e.partition_key), 0) AS other_bytes,
                                     pg_catalog.pg_column_size(e.metadata) AS metadata_bytes
                              FROM reactive_orch.event_log e
                              WHERE e.log = $1::text AND e.global_position = ANY ($2::bigint[])) o) r
                  WHERE r.stored_read - r.other_bytes - r.metadata_bytes < $3::bigint OFFSET 0) s) t) w
WHERE w.bytes_read - w.bytes < $3::bigint
ORDER BY w.global_position;

-- name: find_first
-- Position and partition of the first event of log $1, of partitions $2, in ($3, $4] that passes the filters $5, $6, $7.
SELECT e.global_position, e.partition
FROM reactive_orch.event_log e
WHERE e.log = $1::text AND (e.partition = ANY ($2::smallint[])) IS TRUE
  AND e.global_position > $3::bigint AND e.global_position <= $4::bigint
  AND ($5::text[] IS NULL OR e.aggregate_type = ANY ($5::text[]))
  AND ($6::text[] IS NULL OR e.bounded_context = ANY ($6::text[]))
  AND ($7::text[] IS NULL OR e.event_type = ANY ($7::text[]))
ORDER BY e.global_position LIMIT 1;

-- name: read_column
-- The event of log $1 at position $2, with nothing in it but the column $3: whether that one can be read.
SELECT CASE $3::text WHEN 'global_position' THEN e.global_position END,
       CASE $3::text WHEN 'partition' THEN e.partition END,
       CASE $3::text WHEN 'bounded_context' THEN e.bounded_context END,
       CASE $3::text WHEN 'aggregate_type' THEN e.aggregate_type END,
       CASE $3::text WHEN 'aggregate_id' THEN e.aggregate_id END,
       CASE $3::text WHEN 'aggregate_version' THEN e.aggregate_version END,
       CASE $3::text WHEN 'event_id' THEN e.event_id END,
       CASE $3::text WHEN 'event_type' THEN e.event_type END,
       CASE $3::text WHEN 'event_version' THEN e.event_version END,
       CASE $3::text WHEN 'payload' THEN e.payload END,
       CASE $3::text WHEN 'trace_id' THEN e.trace_id END,
       CASE $3::text WHEN 'correlation_id' THEN e.correlation_id END,
       CASE $3::text WHEN 'causation_id' THEN e.causation_id END,
       CASE $3::text WHEN 'metadata' THEN e.metadata::text END,
       CASE $3::text WHEN 'created_at' THEN e.created_at END,
       CASE $3::text WHEN 'partition_key' THEN e.partition_key END
FROM reactive_orch.event_log e
WHERE e.log = $1::text AND e.global_position = $2::bigint;

-- name: next_position
-- The first position of log $1 in ($2, $3] where there is an event of whatever partition; NULL when there is none.
SELECT min(e.global_position) FROM reactive_orch.event_log e
WHERE e.log = $1::text AND e.global_position > $2::bigint AND e.global_position <= $3::bigint;

-- name: any_passes
-- Whether, of the first and the last $5 events of log $1, any passes the filters $2, $3, $4; NULL when there are no events.
SELECT bool_or(($2::text[] IS NULL OR s.aggregate_type = ANY ($2::text[]))
           AND ($3::text[] IS NULL OR s.bounded_context = ANY ($3::text[]))
           AND ($4::text[] IS NULL OR s.event_type = ANY ($4::text[])))
FROM ((SELECT e.aggregate_type, e.bounded_context, e.event_type FROM reactive_orch.event_log e
       WHERE e.log = $1::text ORDER BY e.global_position LIMIT $5::integer)
      UNION ALL
      (SELECT e.aggregate_type, e.bounded_context, e.event_type FROM reactive_orch.event_log e
       WHERE e.log = $1::text ORDER BY e.global_position DESC LIMIT $5::integer)) s;
