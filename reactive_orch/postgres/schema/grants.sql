-- name: worker
-- A worker. Besides, it needs CONNECT on the database, and whatever its handlers do with tables of yours is yours to grant; one
-- whose handlers append needs the rights of an appender, too.
-- To end what a frozen or killed worker has left behind nothing is needed as long as all workers log in as this role.
GRANT USAGE ON SCHEMA reactive_orch TO :role;
GRANT SELECT ON reactive_orch.schema_steps, reactive_orch.logs, reactive_orch.log_rules, reactive_orch.event_log, reactive_orch.unhandled_events, reactive_orch.member_status TO :role;
GRANT SELECT, INSERT ON reactive_orch.projections, reactive_orch.checkpoints, reactive_orch.assignments, reactive_orch.replica_sets, reactive_orch.adoptions TO :role;
-- By columns: a worker moves its checkpoints, and that is all; to set them back, or to accept a filter, is an operator's.
GRANT UPDATE (position, seal, failing, waiting) ON reactive_orch.checkpoints TO :role;
GRANT UPDATE (proposed, proposed_declared, declared, state, state_reason, state_by, state_since, state_changes, resumes_at, trials, tried_by, serial_until, serial_s) ON reactive_orch.projections TO :role;
GRANT UPDATE (owners) ON reactive_orch.assignments TO :role;
GRANT UPDATE (generation) ON reactive_orch.replica_sets TO :role;
GRANT SELECT, INSERT, UPDATE, DELETE ON reactive_orch.members, reactive_orch.generations, reactive_orch.failing_keys, reactive_orch.markers TO :role;
GRANT SELECT, INSERT, DELETE ON reactive_orch.dead_letters, reactive_orch.suspicions TO :role;
GRANT SELECT, INSERT ON reactive_orch.discarded_events TO :role;
GRANT SELECT, UPDATE ON reactive_orch.log_witness TO :role;
GRANT SELECT ON SEQUENCE reactive_orch.events_global_position_seq TO :role;
GRANT USAGE ON SEQUENCE reactive_orch.member_ids TO :role;
GRANT SELECT, UPDATE ON SEQUENCE reactive_orch.bell TO :role;
GRANT EXECUTE ON FUNCTION reactive_orch.log_is_veiled, reactive_orch.log_identity, reactive_orch.read_up_to, reactive_orch.log_differs_at, reactive_orch.renew_log_identity, reactive_orch.settled_end, reactive_orch.witness_log, reactive_orch.observe_log, reactive_orch.observe_log_from, reactive_orch.fresh_events TO :role;
GRANT EXECUTE ON FUNCTION reactive_orch.notify, reactive_orch.trigger_rings, reactive_orch.arm_bell TO :role;
GRANT EXECUTE ON FUNCTION reactive_orch.position_before, reactive_orch.position_now, reactive_orch.start_position, reactive_orch.register_projections, reactive_orch.give_up_projection, reactive_orch.take_up_projection, reactive_orch.propose_again TO :role;
GRANT EXECUTE ON FUNCTION reactive_orch.lock_namespace, reactive_orch.join_replica_set, reactive_orch.resume_members, reactive_orch.await_death, reactive_orch.terminate_backends, reactive_orch.living_members, reactive_orch.died_giving, reactive_orch.change_generation, reactive_orch.acknowledge TO :role;
GRANT EXECUTE ON FUNCTION reactive_orch.seal_batch, reactive_orch.await_free, reactive_orch.await_checkpoint, reactive_orch.await_others, reactive_orch.serialize_batches TO :role;
GRANT EXECUTE ON FUNCTION reactive_orch.key_hash, reactive_orch.is_replayed, reactive_orch.waiting_of, reactive_orch.set_projection_state TO :role;
GRANT EXECUTE ON FUNCTION reactive_orch.suspend_projection, reactive_orch.retry_parked_since, reactive_orch.next_trial, reactive_orch.claim_trial, reactive_orch.end_trial TO :role;
-- To name the statements of others that hold the log, and since when they do:
-- GRANT pg_read_all_stats TO :role;

-- name: appender
-- An application that appends: INSERT, COPY, append() and the command `append`. It needs CONNECT on the database besides.
GRANT USAGE ON SCHEMA reactive_orch TO :role;
-- By columns: who could write global_position could put an event where the readers have been already.
GRANT INSERT (bounded_context, aggregate_type, aggregate_id, aggregate_version, event_id, event_type, event_version, payload, trace_id, correlation_id, causation_id, metadata, partition_key) ON reactive_orch.events TO :role;
-- For append(), which looks up an aggregate's version, and returns positions; INSERT and COPY do without.
GRANT SELECT (global_position, bounded_context, aggregate_type, aggregate_id, aggregate_version) ON reactive_orch.events TO :role;
-- For handled(), which waits until what was appended is handled.
GRANT EXECUTE ON FUNCTION reactive_orch.await_handled, reactive_orch.why_unhandled TO :role;
-- For the command `append`.
GRANT SELECT ON reactive_orch.schema_steps TO :role;
-- To read what was appended, by read_stream(), which append() does not need:
-- GRANT SELECT ON reactive_orch.event_log TO :role;

-- name: monitor
-- Who looks: `status`, `watch`, `doctor`, `dead-letters list` and `show`, `replica-sets list`, `trace`. It needs CONNECT on the database besides.
-- Of events it reads positions, ids, types, versions and times, no payloads; of failing keys their ids, and errors with their tracebacks.
GRANT USAGE ON SCHEMA reactive_orch TO :role;
GRANT SELECT (log, global_position, partition, event_id, event_type, aggregate_version, created_at) ON reactive_orch.event_log TO :role;
GRANT SELECT ON reactive_orch.schema_steps, reactive_orch.logs, reactive_orch.log_rules, reactive_orch.log_witness TO :role;
GRANT SELECT ON reactive_orch.projections, reactive_orch.checkpoints, reactive_orch.failing_keys, reactive_orch.dead_letters TO :role;
GRANT SELECT ON reactive_orch.replica_sets, reactive_orch.members, reactive_orch.member_status, reactive_orch.assignments, reactive_orch.generations, reactive_orch.adoptions TO :role;
GRANT SELECT ON SEQUENCE reactive_orch.events_global_position_seq TO :role;
GRANT EXECUTE ON FUNCTION reactive_orch.log_is_veiled, reactive_orch.log_identity, reactive_orch.read_up_to, reactive_orch.log_differs_at, reactive_orch.lock_namespace TO :role;
-- For `dead-letters show --payload`:
-- GRANT SELECT (payload) ON reactive_orch.event_log TO :role;
-- To see the statements of others that hold the log, and since when they do (pg_monitor includes it):
-- GRANT pg_read_all_stats TO :role;

-- name: operator
-- And acts: `pause`, `resume`, `rewind`, `dead-letters retry`, `skip` and `discard`, `replica-sets remove`. What a reset hook
-- does with tables of yours is yours to grant.
GRANT EXECUTE ON FUNCTION reactive_orch.set_projection_state, reactive_orch.remove_replica_set TO :role;
GRANT EXECUTE ON FUNCTION reactive_orch.rewind, reactive_orch.rewind_effects, reactive_orch.filter_accepted, reactive_orch.settled_end, reactive_orch.position_before TO :role;
GRANT UPDATE (request, requested_by, request_position, due_at) ON reactive_orch.failing_keys TO :role;
GRANT SELECT ON reactive_orch.discarded_events TO :role;
GRANT EXECUTE ON FUNCTION reactive_orch.notify TO :role;
-- To end the sessions that hold the log (pg_terminate_backend); a role with ADMIN OPTION on it may grant it:
GRANT pg_signal_backend TO :role;
