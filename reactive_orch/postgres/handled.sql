-- Whether a position is handled: for applications that wait for it.

-- name: await_handled
-- The first of the positions $4 that is not handled by projection $2 of replica set $1 on log $3, NULL if all are; $5: all of
-- the projection is meant. Tells the workers that somebody waits, whom they answer by the number $6; NULL: they are not told.
SELECT reactive_orch.await_handled($1::text, $2::text, $3::text, $4::bigint[], $5::boolean, $6::integer);

-- name: why_unhandled
-- Why position $4 is not.
SELECT found, checkpoint, workers, state, key_state, error_type
FROM reactive_orch.why_unhandled($1::text, $2::text, $3::text, $4::bigint, $5::boolean);

-- name: answer
-- Tells these sessions to look, each on a channel of its own.
SELECT reactive_orch.notify('reactive_orch_handled_' || s.session, '')
FROM pg_catalog.unnest($1::integer[]) AS s(session);
