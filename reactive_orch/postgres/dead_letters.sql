-- name: among
-- Which of these keys (contexts $4, types $5, ids $6) are failing keys of (replica set $1, projection $2, log $3). Good only
-- in the transaction of a swap that holds their partitions.
SELECT k.id, k.bounded_context, k.aggregate_type, k.aggregate_id
FROM unnest($4::text[], $5::text[], $6::text[]) AS s(context, type, id)
JOIN reactive_orch.failing_keys k
  ON k.replica_set = $1::text AND k.projection = $2::text AND k.log = $3::text
     AND k.key_hash = reactive_orch.key_hash(s.context, s.type, s.id)
     AND k.bounded_context = s.context AND k.aggregate_type = s.type AND k.aggregate_id = s.id;

-- name: of_partitions
-- The failing keys of partitions $4 of (replica set $1, projection $2, log $3), as above.
SELECT k.partition, k.bounded_context, k.aggregate_type, k.aggregate_id
FROM reactive_orch.failing_keys k
WHERE k.replica_set = $1::text AND k.projection = $2::text AND k.log = $3::text AND k.partition = ANY ($4::smallint[]);

-- name: queue
-- The events at positions $5, each behind those that wait of its key $4, of (replica set $1, projection $2, log $3). If a handler
-- has rewound its own projection, the key may be gone, or the event come twice. Returns what waits of the projection now, and
-- what did when somebody let it run last: keys, events, keys then, events then.
WITH queued AS (
    INSERT INTO reactive_orch.dead_letters (key, position, replayed)
    SELECT k.id, s.position, reactive_orch.is_replayed(k.replica_set, k.projection, k.log, k.partition, s.position)
    FROM unnest($4::bigint[], $5::bigint[]) AS s(key, position)
    JOIN reactive_orch.failing_keys k ON k.id = s.key
    ON CONFLICT DO NOTHING RETURNING key
), counted AS (
    UPDATE reactive_orch.checkpoints c SET waiting = c.waiting + q.events
    FROM (SELECT k.partition, count(*)::integer AS events
          FROM queued JOIN reactive_orch.failing_keys k ON k.id = queued.key GROUP BY k.partition) q
    WHERE c.replica_set = $1::text AND c.projection = $2::text AND c.log = $3::text AND c.partition = q.partition
)
SELECT w.keys, w.events + (SELECT count(*)::integer FROM queued), w.keys_then, w.events_then
FROM reactive_orch.waiting_of($1::text, $2::text, $3::text) w;

-- name: set_aside
-- The event at position $4 of log $3, with which a key begins to fail for (replica set $1, projection $2): it waits, and with
-- it its key, due in $7 seconds, or parked, or tried by others first, as process $14 asks. The key is read from the log, as the
-- event may be one that only the server can read. It may be there already. No row: the event is gone. Else what waits now, as for
-- queue, and the key's id.
WITH event AS (
    SELECT e.global_position AS position, e.partition,
           CASE WHEN e.partition_key IS NULL THEN e.bounded_context ELSE '' END AS bounded_context,
           CASE WHEN e.partition_key IS NULL THEN e.aggregate_type ELSE '' END AS aggregate_type,
           coalesce(e.partition_key, e.aggregate_id) AS aggregate_id
    FROM reactive_orch.event_log e WHERE e.log = $3::text AND e.global_position = $4::bigint
), known AS (
    SELECT k.id FROM event e JOIN reactive_orch.failing_keys k
      ON k.replica_set = $1::text AND k.projection = $2::text AND k.log = $3::text
         AND k.key_hash = reactive_orch.key_hash(e.bounded_context, e.aggregate_type, e.aggregate_id)
         AND k.bounded_context = e.bounded_context AND k.aggregate_type = e.aggregate_type
         AND k.aggregate_id = e.aggregate_id
), added AS (
    INSERT INTO reactive_orch.failing_keys (replica_set, projection, log, partition, bounded_context, aggregate_type,
                                            aggregate_id, state, attempts, due_at, error_type, sqlstate, message, traceback,
                                            worker, deaths, asked_by)
    SELECT $1::text, $2::text, $3::text, e.partition, e.bounded_context, e.aggregate_type, e.aggregate_id, $5::text,
           $6::integer, clock_timestamp() + make_interval(secs => $7::double precision), $8::text, $9::text, $10::text,
           $11::text, $12::text, $13::integer, $14::text
    FROM event e WHERE NOT EXISTS (SELECT FROM known)
    RETURNING id, partition
), letter AS (
    INSERT INTO reactive_orch.dead_letters (key, position, replayed)
    SELECT k.id, e.position, reactive_orch.is_replayed($1::text, $2::text, $3::text, e.partition, e.position)
    FROM event e, (SELECT id FROM known UNION ALL SELECT id FROM added) k
    RETURNING key
), counted AS (
    UPDATE reactive_orch.checkpoints c
    SET failing = c.failing + 1 - (SELECT count(*)::integer FROM known), waiting = c.waiting + 1
    FROM event e, letter
    WHERE c.replica_set = $1::text AND c.projection = $2::text AND c.log = $3::text AND c.partition = e.partition
)
SELECT w.keys + 1 - (SELECT count(*)::integer FROM known), w.events + 1, w.keys_then, w.events_then, letter.key,
       CASE WHEN $14::text IS NOT NULL THEN reactive_orch.notify('reactive_orch_generations', $1::text) END
FROM letter, reactive_orch.waiting_of($1::text, $2::text, $3::text) w;

-- name: next_due
-- How many keys of (replica set $1, projection $2, log $3) fail in partitions $4, and the one that is due first, if any is.
SELECT f.failing, k.id, k.partition, (SELECT min(d.position) FROM reactive_orch.dead_letters d WHERE d.key = k.id),
       k.attempts, k.deaths, k.request, k.requested_by, k.request_position, k.asked_by,
       extract(epoch FROM k.due_at - clock_timestamp())::double precision AS due_in_s
FROM (SELECT coalesce(sum(c.failing), 0)::integer AS failing FROM reactive_orch.checkpoints c
      WHERE c.replica_set = $1::text AND c.projection = $2::text AND c.log = $3::text
        AND c.partition = ANY ($4::smallint[])) f
LEFT JOIN LATERAL (
    SELECT k.* FROM reactive_orch.failing_keys k
    WHERE k.replica_set = $1::text AND k.projection = $2::text AND k.log = $3::text AND k.due_at IS NOT NULL
      AND k.partition = ANY ($4::smallint[])
    ORDER BY k.due_at LIMIT 1) k ON f.failing > 0;

-- name: first_waiting
-- The positions of the first $2 events that wait of key $1, and whether they are replayed. Good only in the transaction of a
-- swap that holds its partition.
SELECT d.position, d.replayed FROM reactive_orch.dead_letters d WHERE d.key = $1::bigint ORDER BY d.position LIMIT $2::integer;

-- name: evict
-- The events of key $4 up to position $5 wait no longer: handled, or, if it was asked for by $7, left out, as request $6
-- says, and recorded. If none of the key waits now, it is no failing key any more; else it goes on at once. A request to
-- discard stays that came meanwhile; the others were about the event that has gone.
WITH key AS (
    SELECT k.* FROM reactive_orch.failing_keys k WHERE k.id = $4::bigint
), evicted AS (
    DELETE FROM reactive_orch.dead_letters d WHERE d.key = $4::bigint AND d.position <= $5::bigint RETURNING d.position
), recorded AS (
    INSERT INTO reactive_orch.discarded_events (replica_set, projection, log, partition, position, bounded_context,
                                                aggregate_type, aggregate_id, request, requested_by)
    SELECT $1::text, $2::text, $3::text, k.partition, e.position, k.bounded_context, k.aggregate_type, k.aggregate_id,
           $6::text, coalesce($7::text, '')
    FROM key k, evicted e WHERE $6::text IS NOT NULL
), live AS (
    DELETE FROM reactive_orch.failing_keys k
    WHERE k.id = $4::bigint AND NOT EXISTS (SELECT FROM reactive_orch.dead_letters d
                                            WHERE d.key = $4::bigint AND d.position > $5::bigint)
    RETURNING k.partition
), going_on AS (
    UPDATE reactive_orch.failing_keys k
    SET state = 'retrying', attempts = 0, deaths = 0, due_at = clock_timestamp(), asked_by = NULL, taken_by = NULL,
        request = CASE k.request WHEN 'discard' THEN k.request END
    WHERE k.id = $4::bigint AND EXISTS (SELECT FROM reactive_orch.dead_letters d
                                        WHERE d.key = $4::bigint AND d.position > $5::bigint)
), counted AS (
    UPDATE reactive_orch.checkpoints c
    SET failing = c.failing - (SELECT count(*)::integer FROM live),
        -- What was deleted by hand is not counted any more when nothing can be left of it.
        waiting = CASE WHEN c.failing = (SELECT count(*) FROM live) THEN 0
                       ELSE c.waiting - (SELECT count(*)::integer FROM evicted) END
    FROM key k
    WHERE c.replica_set = $1::text AND c.projection = $2::text AND c.log = $3::text AND c.partition = k.partition
)
SELECT count(*), (SELECT reactive_orch.notify('reactive_orch_generations', $1::text) FROM key k WHERE k.asked_by IS NOT NULL)
FROM live;

-- name: failed_again
-- The first waiting event of key $1, at position $12, has failed once more: due again in $4 seconds, or parked, or tried by others
-- first, as process $11 asks; who has asked before is told. A request that came meanwhile, another one than $13, stays, and is due at
-- once. No row: somebody else has dealt with it meanwhile.
UPDATE reactive_orch.failing_keys k
SET state = $2::text, attempts = $3::integer,
    due_at = clock_timestamp() + make_interval(secs => CASE WHEN k.request IS DISTINCT FROM $13::text THEN 0
                                                            ELSE $4::double precision END),
    request = nullif(k.request, $13::text), failed_last_at = clock_timestamp(),
    error_type = $5::text, sqlstate = $6::text, message = $7::text, traceback = $8::text, worker = $9::text,
    deaths = $10::integer, asked_by = $11::text, taken_by = CASE WHEN $11::text IS NULL THEN k.taken_by END
WHERE k.id = $1::bigint AND k.attempts = $3::integer - 1
  AND $12::bigint = (SELECT min(d.position) FROM reactive_orch.dead_letters d WHERE d.key = k.id)
RETURNING k.id, CASE WHEN k.asked_by IS NOT NULL OR k.taken_by IS NOT NULL
                     THEN reactive_orch.notify('reactive_orch_generations', k.replica_set) END;

-- name: take_up
-- A key of (replica set $1, projection $2, log $3) that another process than $4 wants to be tried by others before it is parked: the
-- caller is to try it within $5 seconds. No row: there is none.
UPDATE reactive_orch.failing_keys k
SET taken_by = $4::text, due_at = clock_timestamp() + make_interval(secs => $5::double precision)
WHERE k.id = (SELECT a.id FROM reactive_orch.failing_keys a
              WHERE a.replica_set = $1::text AND a.projection = $2::text AND a.log = $3::text
                AND a.asked_by <> $4::text AND a.taken_by IS NULL AND a.request IS NULL
              ORDER BY a.id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)
RETURNING k.id, k.partition, (SELECT min(d.position) FROM reactive_orch.dead_letters d WHERE d.key = k.id), k.attempts, k.deaths,
          k.request, k.requested_by, k.request_position, k.asked_by, 0::double precision;

-- name: give_back
-- Key $1 that process $2 has taken up could not be tried: whoever owns its partition acts on it at once.
UPDATE reactive_orch.failing_keys k SET due_at = clock_timestamp() WHERE k.id = $1::bigint AND k.taken_by = $2::text;

-- name: answers
-- Of the keys $4 of (replica set $1, projection $2, log $3), which have failed at positions $5 in epochs $6, those about which
-- nobody is asked any more, and whether that event was handled: its key is gone, or going on, and not since the event was left out
-- or the projection rewound.
SELECT a.id, (k.id IS NULL OR (k.state = 'retrying' AND k.attempts = 0))
             AND EXISTS (SELECT FROM reactive_orch.projections p
                         WHERE p.replica_set = $1::text AND p.name = $2::text AND p.log = $3::text AND p.epoch = a.epoch)
             AND NOT EXISTS (SELECT FROM reactive_orch.discarded_events e
                             WHERE e.replica_set = $1::text AND e.projection = $2::text AND e.log = $3::text
                               AND e.position = a.position)
FROM unnest($4::bigint[], $5::bigint[], $6::bigint[]) AS a(id, position, epoch)
LEFT JOIN reactive_orch.failing_keys k ON k.id = a.id
WHERE k.asked_by IS NULL;

-- name: tried_in_vain
-- Key $1 was tried while its projection is suspended, and has failed: that is no attempt.
UPDATE reactive_orch.failing_keys k SET failed_last_at = clock_timestamp() WHERE k.id = $1::bigint;

-- name: listed
-- The failing keys of replica set $1: of projection $2, id $3, type $4, context $5, log $6, each of them NULL for all; at most $7 of
-- them, or all if that is NULL. The keys as bytes: a database in SQL_ASCII has some that are no text.
SELECT k.id, k.projection, k.log, k.partition, convert_to(k.bounded_context, e.name), convert_to(k.aggregate_type, e.name),
       convert_to(k.aggregate_id, e.name), k.state, k.request,
       k.attempts, k.error_type, k.sqlstate, k.message, k.traceback, k.worker, k.failed_first_at, k.failed_last_at,
       l.events, l.first_position
FROM reactive_orch.failing_keys k
CROSS JOIN (SELECT CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END AS name) e
CROSS JOIN LATERAL (SELECT count(*)::integer AS events, min(d.position) AS first_position
                    FROM reactive_orch.dead_letters d WHERE d.key = k.id) l
WHERE k.replica_set = $1::text AND ($2::text IS NULL OR k.projection = $2::text)
  AND ($3::text IS NULL OR k.aggregate_id = $3::text) AND ($4::text IS NULL OR k.aggregate_type = $4::text)
  AND ($5::text IS NULL OR k.bounded_context = $5::text) AND ($6::text IS NULL OR k.log = $6::text)
ORDER BY k.projection, k.log, k.id LIMIT $7::integer;

-- name: first_events
-- Of the events at positions $3 of logs $2, the first of keys $1 each: what a monitor may read. The type as bytes, as above; the
-- time as a text, as it may be one that only the server has.
SELECT s.id, e.global_position, e.event_id,
       convert_to(e.event_type, CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END),
       e.aggregate_version,
       CASE WHEN isfinite(e.created_at) THEN to_char(e.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"')
            ELSE e.created_at::text END
FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS s(id, log, position)
JOIN reactive_orch.event_log e ON e.log = s.log AND e.global_position = s.position;

-- name: first_payloads
-- Their payloads.
SELECT s.id, e.payload
FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS s(id, log, position)
JOIN reactive_orch.event_log e ON e.log = s.log AND e.global_position = s.position;

-- name: may_not_read_payloads
-- Who we are, if we may not.
SELECT current_user::text WHERE NOT has_column_privilege('reactive_orch.event_log', 'payload', 'SELECT');

-- name: request
-- Asks the owners of the keys $2 of replica set $1 to do $3, for $4, who has seen their first waiting events at positions $5. Returns
-- how many of them are still there.
WITH asked AS (
    UPDATE reactive_orch.failing_keys k
    SET request = $3::text, requested_by = $4::text, request_position = s.position, due_at = clock_timestamp()
    FROM (SELECT l.id FROM reactive_orch.failing_keys l WHERE l.id = ANY ($2::bigint[]) ORDER BY l.id FOR NO KEY UPDATE) locked
    JOIN unnest($2::bigint[], $5::bigint[]) AS s(id, position) ON s.id = locked.id
    WHERE k.id = locked.id RETURNING k.id
)
SELECT a.asked, reactive_orch.notify('reactive_orch_generations', $1::text)
FROM (SELECT count(*)::integer AS asked FROM asked) a;

-- name: outdated
-- Key $1 was to be skipped at another event than waits first now: that is not done. It is parked as before, or goes on.
UPDATE reactive_orch.failing_keys k
SET request = nullif(k.request, 'skip'), due_at = CASE WHEN k.state <> 'parked' OR k.request <> 'skip' THEN k.due_at END
WHERE k.id = $1::bigint;

-- name: left_out
-- How many of the events at positions $4 were left out, for projections $2 on logs $3 of replica set $1.
SELECT count(*)::integer
FROM reactive_orch.discarded_events e
JOIN unnest($2::text[], $3::text[], $4::bigint[]) AS s(projection, log, position)
  ON e.projection = s.projection AND e.log = s.log AND e.position = s.position
WHERE e.replica_set = $1::text;

-- name: outstanding
-- How many of the keys $1 are still to be tried, or to be left out, and how many have been parked.
SELECT count(*) FILTER (WHERE k.request IS NOT NULL OR k.state = 'retrying')::integer AS outstanding,
       count(*) FILTER (WHERE k.request IS NULL AND k.state = 'parked')::integer AS parked
FROM reactive_orch.failing_keys k WHERE k.id = ANY ($1::bigint[]);

-- name: waits
-- How many keys of projection $2 of replica set $1 on log $3 fail, and how many events wait; now, and when somebody last let it run.
SELECT w.keys, w.events, w.keys_then, w.events_then FROM reactive_orch.waiting_of($1::text, $2::text, $3::text) w;

