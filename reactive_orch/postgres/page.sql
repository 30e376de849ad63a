-- name: generations
-- The last 20 generations of replica set $1, from number $2 on, the newest first: why each was made and when it was complete.
SELECT g.number, g.reason, g.subjects, g.members, g.moved, g.traceparent, g.initiator, g.wake_source, g.noticed_at,
       g.created_at, g.completed_at
FROM reactive_orch.generations g WHERE g.replica_set = $1::text AND g.number >= $2::bigint ORDER BY g.number DESC LIMIT 20;

-- name: adoptions
-- How members adopted the generations of replica set $1 from number $2 on, in the order in which they noticed.
SELECT a.generation, a.member, a.wake_source, a.noticed_at, a.finished_at, a.loaded_at, a.acknowledged_at, a.gave, a.took, a.kept
FROM reactive_orch.adoptions a WHERE a.replica_set = $1::text AND a.generation >= $2::bigint
ORDER BY a.generation, a.noticed_at, a.member;

-- name: parked
-- How many keys are parked of each partition of replica set $1.
SELECT k.projection, k.log, k.partition, count(*)
FROM reactive_orch.failing_keys k WHERE k.replica_set = $1::text AND k.state = 'parked'
GROUP BY k.projection, k.log, k.partition;

-- name: causes
-- The last $3 failing keys of replica set $1 by what they have failed with, at which innermost line that matches $4, or else of all: at
-- most $2 causes, those with most keys first, each with what its last key has said; and how many causes there are in all. The line stands
-- at a traceback's end: that is all that is looked at of it, as it may be long.
SELECT k.projection, k.log, k.error_type, (array_agg(k.message ORDER BY k.failed_last_at DESC))[1],
       regexp_replace(k.line, '^File "(.*)", line ([0-9]+)$', '\1:\2'), min(k.failed_first_at), max(k.failed_last_at), max(k.attempts),
       count(*), count(*) FILTER (WHERE k.state = 'parked'), sum(k.events)::bigint, array_agg(DISTINCT k.partition ORDER BY k.partition),
       count(*) OVER () AS causes
FROM (SELECT f.projection, f.log, f.error_type, f.message, f.failed_first_at, f.failed_last_at, f.attempts, f.state, f.partition,
             coalesce(substring(f.traceback FROM $4::text),
                      substring(f.traceback FROM '.*(File "[^"]*", line [0-9]+)')) AS line,
             (SELECT count(*) FROM reactive_orch.dead_letters d WHERE d.key = f.id) AS events
      FROM (SELECT l.id, l.projection, l.log, l.error_type, left(l.message, 500) AS message, right(l.traceback, 4000) AS traceback,
                   l.failed_first_at, l.failed_last_at, l.attempts, l.state, l.partition
            FROM (SELECT n.id FROM reactive_orch.failing_keys n WHERE n.replica_set = $1::text
                  ORDER BY n.failed_last_at DESC LIMIT $3::integer) newest  -- first: each text is read from its own place
            JOIN reactive_orch.failing_keys l ON l.id = newest.id) f) k
GROUP BY k.projection, k.log, k.error_type, k.line
ORDER BY count(*) FILTER (WHERE k.state = 'parked') DESC, count(*) DESC, max(k.failed_last_at) DESC LIMIT $2::integer;

-- name: failing
-- Which keys of replica set $1 fail, in a number: another one when that has changed.
SELECT coalesce(sum(('x' || substr(md5(k.id || ' ' || k.failed_last_at || ' ' || k.state), 1, 8))::bit(32)::bigint), 0)
FROM reactive_orch.failing_keys k WHERE k.replica_set = $1::text;

-- name: replica_sets
-- The names of all replica sets.
SELECT r.name FROM reactive_orch.replica_sets r ORDER BY r.name;
