-- name: lock_stream
-- Appends take turns per aggregate; its version is read in the next statement's snapshot. This and all that follows runs on
-- connections of applications, so a function that somebody's own could take the place of is named with its schema.
SELECT pg_advisory_xact_lock(l.key)
FROM (SELECT pg_catalog.hashtextextended(pg_catalog.concat_ws(E'\x1f', s.context, s.type, s.id), 7) AS key
      FROM unnest($1::text[], $2::text[], $3::text[]) AS s(context, type, id)
      ORDER BY key) l;

-- name: stream_version
-- The version of one aggregate's last event; 0 for no stream.
SELECT coalesce(max(e.aggregate_version), 0)::bigint
FROM reactive_orch.events e
WHERE e.bounded_context = $1::text AND e.aggregate_type = $2::text AND e.aggregate_id = $3::text;

-- name: append
-- Events in the order given, which is that of the positions returned, each numbered after the last of its aggregate, or after version $13 if that is given. If a
-- writer of plain SQL has committed since $13 was checked, that is a unique violation. The last event is looked up below the
-- sort, before anything is written: else each event would pass over all that are before it in this statement.
INSERT INTO reactive_orch.events (bounded_context, aggregate_type, aggregate_id, aggregate_version, event_id, event_type,
                                  event_version, payload, trace_id, correlation_id, causation_id, metadata, partition_key)
SELECT n.context, n.type, n.id,
       coalesce($13::bigint,
                pg_catalog.first_value((SELECT max(e.aggregate_version) FROM reactive_orch.events e
                             WHERE e.bounded_context = n.context AND e.aggregate_type = n.type
                               AND e.aggregate_id = n.id)) OVER stream, 0)
           + row_number() OVER stream,
       coalesce(n.event_id, gen_random_uuid()), n.event_type, n.event_version, n.payload,
       n.trace_id, n.correlation_id, n.causation_id, n.metadata::jsonb, n.partition_key
FROM unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::integer[], $7::bytea[], $8::text[],
            $9::text[], $10::text[], $11::text[], $12::text[])
     WITH ORDINALITY AS n(context, type, id, event_id, event_type, event_version, payload, trace_id, correlation_id,
                          causation_id, metadata, partition_key, i)
WINDOW stream AS (PARTITION BY n.context, n.type, n.id ORDER BY n.i)
ORDER BY n.i
RETURNING global_position;
