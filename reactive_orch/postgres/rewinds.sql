-- name: effects
-- What a rewind of projection $2 on log $3 to position $4 (NULL: keep them) would do.
SELECT e.partitions, e.unknown, e.again, e.left_out, e.exact, e.keys, e.letters_again, e.letters_dropped
FROM reactive_orch.rewind_effects($1::text, $2::text, $4::bigint, $3::text) e;

-- name: rewind
-- Positions of projection $2 on log $3 to $4 (NULL: keep them), a new epoch, and the filter that was proposed; with $5 even if
-- that leaves out events that have not been handled.
SELECT e.partitions, e.unknown, e.again, e.left_out, e.exact, e.keys, e.letters_again, e.letters_dropped
FROM reactive_orch.rewind($1::text, $2::text, $4::bigint, $3::text, $5::boolean) e;

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
-- Of a projection: the filter that a refused worker wanted, NULL when there is none; whether its checkpoints were made on
-- another log than this one, so that keeping them is the operator's word; whether the code that goes on has a reset hook, and
-- whether replayed events come to its handler.
SELECT p.proposed::text,
       p.log_identity <> reactive_orch.log_identity(p.log) OR reactive_orch.log_differs_at(p.log) IS NOT NULL AS estranged,
       coalesce((coalesce(p.proposed_declared, p.declared) -> 'reset')::boolean, false) AS resets,
       coalesce((coalesce(p.proposed_declared, p.declared) -> 'replay')::boolean, true) AS replays
FROM reactive_orch.projections p
WHERE p.replica_set = $1::text AND p.name = $2::text AND p.log = $3::text;

-- name: settled_end
-- The greatest position of log $1 that a checkpoint may be set to.
SELECT reactive_orch.settled_end($1::text);

-- name: position_before
-- The position of log $1 behind which all comes that was created at $2 or later.
SELECT reactive_orch.position_before($2::timestamptz, $1::text);
