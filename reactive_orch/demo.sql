-- name: count
-- Add to the counts of event types $1 in partitions $2 the numbers $3.
INSERT INTO reactive_orch.event_counts AS c (event_type, partition, events)
SELECT n.event_type, n.partition, n.events
FROM unnest($1::text[], $2::smallint[], $3::bigint[]) AS n(event_type, partition, events)
ON CONFLICT (event_type, partition) DO UPDATE SET events = c.events + excluded.events;
