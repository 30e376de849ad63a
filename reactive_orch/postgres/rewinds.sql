-- name: effects
-- What a rewind of projection $2 on log $3 to position $4 (NULL: keep them) would do.
SELECT e.partitions, e.unknown, e.again, e.left_out, e.exact, e.keys, e.letters_again, e.letters_dropped
FROM reactive_orch.rewind_effects($1::text, $2::text, $4::bigint, $3::text) e;

-- name: rewind
-- Positions of projection $2 on log $3 to $4 (NULL: keep them), a new epoch, and the filter that is accepted, which is to be $6
-- (NULL: any); with $5 even if that leaves out events that have not been handled.
SELECT e.partitions, e.unknown, e.again, e.left_out, e.exact, e.keys, e.letters_again, e.letters_dropped
FROM reactive_orch.rewind($1::text, $2::text, $4::bigint, $3::text, $5::boolean, $6::text::jsonb) e;

-- name: own_path
-- Let what follows in this transaction look nowhere but at PostgreSQL's own.
SET LOCAL search_path = pg_catalog, pg_temp;

-- name: users_path
-- And what follows now, where its user does.
SET LOCAL search_path TO DEFAULT;

-- name: transaction
-- Which transaction this is.
SELECT pg_current_xact_id()::text;

-- name: known
-- Of projection $2 on log $3: the filter that a rewind to $4 (NULL: keep) accepts, NULL when there is none; the one that a refused
-- worker wanted and that it does not accept; whether its checkpoints were made on another log than this one, so that keeping them is
-- the operator's word; whether the code that goes on has a reset hook, and whether replayed events come to its handler.
SELECT a.filter::text, CASE WHEN a.filter IS NULL THEN p.proposed::text END AS former,
       p.log_identity <> reactive_orch.log_identity(p.log) OR reactive_orch.log_differs_at(p.log) IS NOT NULL AS estranged,
       coalesce((d.declared -> 'reset')::boolean, false) AS resets,
       coalesce((d.declared -> 'replay')::boolean, true) AS replays
FROM reactive_orch.projections p
CROSS JOIN LATERAL reactive_orch.filter_accepted(p.proposed, p.former_filters, $4::bigint) a(filter)
CROSS JOIN LATERAL (SELECT CASE WHEN a.filter IS NULL THEN p.declared ELSE coalesce(p.proposed_declared, p.declared) END) d(declared)
WHERE p.replica_set = $1::text AND p.name = $2::text AND p.log = $3::text;

-- name: settled_end
-- The greatest position of log $1 that a checkpoint may be set to.
SELECT reactive_orch.settled_end($1::text);

-- name: position_before
-- The position of log $1 behind which all comes that was created at $2 or later.
SELECT reactive_orch.position_before($2::timestamptz, $1::text);
