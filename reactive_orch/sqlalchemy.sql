-- The savepoint that a session or a connection of SQLAlchemy has for its transaction. One name is enough, as
-- PostgreSQL takes it for the last one, and only the last one is ended.

-- name: set_savepoint
-- Its beginning.
SAVEPOINT reactive_orch_sqlalchemy;

-- name: release
-- Its commit: the batch's transaction goes on with what was done.
RELEASE SAVEPOINT reactive_orch_sqlalchemy;

-- name: take_back
-- Its rollback, in one round trip: what was done is gone, and so is the savepoint.
ROLLBACK TO SAVEPOINT reactive_orch_sqlalchemy; RELEASE SAVEPOINT reactive_orch_sqlalchemy;
