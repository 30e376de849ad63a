-- The log, the checkpoints, the replica sets. Applied once by `migrate`, never edited afterwards.
-- The setting reactive_orch.partitions is the number of partitions, given by whoever migrates.
--
-- Text that is looked up is COLLATE "C": the order of any other collation belongs to a library of the operating system,
-- and when that is another one (an upgrade, a standby on another system) indexes do not find what is in them.
--
-- Functions run on whatever search_path their caller has: each pins it, or, where that costs what can be measured, names the
-- schema of each function, operator and type. They run with the rights of whoever calls them. But what operators do (pause,
-- rewind, remove) runs with the owner's: so they need no right to write a checkpoint otherwise than by these.
-- Who may do what stands in `grants.sql`; PUBLIC may do nothing.

-- ------------------------------------------------------------------ the log

DO $$
BEGIN
    EXECUTE format($ddl$
        CREATE TABLE reactive_orch.events (
            global_position   bigint           GENERATED ALWAYS AS IDENTITY PRIMARY KEY CHECK (global_position > 0),
            bounded_context   text COLLATE "C" NOT NULL DEFAULT 'default',
            aggregate_type    text COLLATE "C" NOT NULL,
            aggregate_id      text COLLATE "C" NOT NULL,
            aggregate_version bigint           NOT NULL CHECK (aggregate_version > 0),
            event_id          uuid             NOT NULL DEFAULT gen_random_uuid() UNIQUE,
            event_type        text COLLATE "C" NOT NULL,
            event_version     integer          NOT NULL DEFAULT 1,
            payload           bytea            NOT NULL DEFAULT '',
            trace_id          text,
            correlation_id    text,
            causation_id      text,
            metadata          jsonb            NOT NULL DEFAULT '{}',
            created_at        timestamptz      NOT NULL DEFAULT clock_timestamp(),
            partition_key     text COLLATE "C",
            partition         smallint         NOT NULL GENERATED ALWAYS AS
                ((hashtextextended(coalesce(partition_key, aggregate_id), 0) & %s)::smallint) STORED,
            UNIQUE (bounded_context, aggregate_type, aggregate_id, aggregate_version)
        )$ddl$, current_setting('reactive_orch.partitions')::integer - 1);
END
$$;

-- Uncompressed, so that what metadata will take in a reader's memory can be told without fetching it.
ALTER TABLE reactive_orch.events ALTER COLUMN metadata SET STORAGE EXTERNAL;

-- A window read asks for few partitions and a range of positions, or for many and then along the primary key. Which is
-- better only the reader knows; the sum is there so that the statement decides which index it uses, not the planner.
CREATE INDEX events_partition_position ON reactive_orch.events (partition, (global_position + 0));

-- Which stretches of the table have events of a time, for a rewind to it: one row for a megabyte, and nothing that could be
-- measured for an append. With positions as a sum, for the same reason.
CREATE INDEX events_created_at ON reactive_orch.events USING brin (created_at, (global_position + 0)) WITH (autosummarize = on);

-- The logs: which relation each is, which sequence numbers it, into how many partitions it is divided, and by what is known
-- how far it is settled (locks: whoever writes holds a lock of the relation). One for now, the own table. Whatever speaks of
-- a log names it; its events are those of its name in the view event_log, so that no runtime SQL is a template.
-- The identity is drawn anew when the log is not what it was where it has been read; from which position on, at the latest,
-- is kept with it.
CREATE TABLE reactive_orch.logs (
    name       text COLLATE "C" PRIMARY KEY,
    relation   regclass         NOT NULL,
    sequence   regclass         NOT NULL,
    partitions integer          NOT NULL CHECK (partitions BETWEEN 1 AND 1024 AND partitions & (partitions - 1) = 0),
    frontier   text             NOT NULL CHECK (frontier IN ('locks')),
    identity   uuid             NOT NULL DEFAULT gen_random_uuid(),
    differs_at bigint
);

INSERT INTO reactive_orch.logs (name, relation, sequence, partitions, frontier)
VALUES ('events', 'reactive_orch.events', pg_get_serial_sequence('reactive_orch.events', 'global_position')::regclass,
        current_setting('reactive_orch.partitions')::integer, 'locks');

CREATE VIEW reactive_orch.event_log AS
SELECT 'events'::text COLLATE "C" AS log,
       global_position, partition, bounded_context, aggregate_type, aggregate_id, aggregate_version, event_id, event_type,
       event_version, payload, trace_id, correlation_id, causation_id, metadata, created_at, partition_key
FROM reactive_orch.events;

-- Whether row level security, which the log has, may hide rows from whom the view reads for: its owner, or with
-- security_invoker the caller. A hidden row looks like a gap, and gaps are passed over. A function, as it is seldom needed
-- and a statement that may need it should not have to prepare for it.
CREATE FUNCTION reactive_orch.log_is_veiled(in_log text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.relrowsecurity AND NOT EXISTS (
        SELECT FROM pg_roles r
        WHERE r.rolname = CASE WHEN EXISTS (SELECT FROM unnest(v.reloptions) AS o
                                            WHERE o ~* '^security_invoker=(t|y|on|1)')
                               THEN current_user ELSE pg_get_userbyid(v.relowner) END
          AND (r.rolsuper OR r.rolbypassrls
               OR NOT t.relforcerowsecurity AND pg_has_role(r.oid, t.relowner, 'USAGE')))
    FROM reactive_orch.logs s
    JOIN pg_class t ON t.oid = s.relation
    JOIN pg_class v ON v.oid = 'reactive_orch.event_log'::regclass
    WHERE s.name = in_log
$$;

-- What the frontier and the reading of windows rely on: the first rule that a log breaks; NULL when it is sound. Only
-- catalogs, so that every look can afford it. Why:
--   cache, increment, cycle   positions must follow the order in which they are drawn
--   numbering, by_default     a writer that brings its own position may write behind the settled end
--   kind, children, rules     rows written through another relation hold that one's lock, and nobody looks at it
--   subscription              rows come with their positions from elsewhere, in the order of commits there
--   veiled                    see above
CREATE VIEW reactive_orch.log_rules AS
SELECT CASE
           WHEN pg_catalog.pg_is_in_recovery() THEN 'standby'
           WHEN q.seqcache <> 1 THEN 'cache'
           WHEN q.seqincrement <> 1 THEN 'increment'
           WHEN q.seqcycle THEN 'cycle'
           WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                            WHERE d.classid = 'pg_class'::regclass AND d.objid = s.sequence AND d.deptype IN ('a', 'i')
                              AND d.refclassid = 'pg_class'::regclass AND d.refobjid = s.relation
                              AND d.refobjsubid = a.attnum) THEN 'numbering'
           WHEN a.attidentity <> 'a' THEN 'by_default'
           WHEN t.relkind <> 'r' THEN 'kind'
           WHEN t.relhassubclass AND EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = t.oid)
               THEN 'children'
           WHEN t.relhasrules AND EXISTS (SELECT FROM pg_catalog.pg_rewrite w WHERE w.ev_class = t.oid) THEN 'rules'
           WHEN EXISTS (SELECT FROM pg_catalog.pg_subscription_rel r WHERE r.srrelid = t.oid) THEN 'subscription'
           WHEN t.relrowsecurity AND reactive_orch.log_is_veiled(s.name) THEN 'veiled'
       END AS flaw,
       s.name, s.relation, s.sequence, s.partitions, s.frontier, q.seqcache AS cache, q.seqincrement AS increment
FROM reactive_orch.logs s
JOIN pg_catalog.pg_class t ON t.oid = s.relation
JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.sequence
JOIN pg_catalog.pg_attribute a ON a.attrelid = s.relation AND a.attname = 'global_position';

-- What checkpoints are good for only as long as it stays: which log, and how it tells a key's partition. Another
-- encoding gives the same key another hash, as a machine of another byte order does.
CREATE FUNCTION reactive_orch.log_identity(in_log text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT concat_ws(' ', s.identity, s.partitions, getdatabaseencoding(), hashtextextended('reactive_orch', 0))
    FROM reactive_orch.logs s
    WHERE s.name = in_log
$$;

-- Every notification of this package leaves through here: NOTIFY is a hint, and one place can switch it off. A full queue
-- (somebody listens and sleeps in a transaction, perhaps in another database) fails whoever commits: long before that
-- nobody notifies, and everybody polls.
CREATE FUNCTION reactive_orch.notify(channel text, payload text) RETURNS void
LANGUAGE sql AS $$
    SELECT pg_catalog.pg_notify(channel, payload)
    WHERE pg_catalog.pg_notification_queue_usage() OPERATOR(pg_catalog.<) 0.5::pg_catalog.float8
$$;

-- The bell: until when, in milliseconds of the database's clock, writers are to ring. NOTIFY in a writing transaction
-- holds a lock of the whole cluster until after its flush, so nobody rings while the readers are awake anyway. A
-- sequence, since it is read in place: a writer with an old snapshot sees it too, and there is no row on the writers'
-- path to bloat. Logged: of an unlogged one a standby has no readable page when it is promoted. Never set counts as armed.
CREATE SEQUENCE reactive_orch.bell MINVALUE 0;

-- Wakes the readers while the bell is armed. All of them: it could name the partitions, so that processes without them
-- sleep on, but that takes a transition table, which costs a bulk insert 1.5 us for each row (of 12), armed or not. It
-- saved 0.16 of 0.35 cores with 16 processes at 20 events a second, 0.1 of 0.45 at 80, and nothing with 48 on 2 cores,
-- where wake-ups run into one another anyway. Armed for more than ten minutes it is by a clock that has been set back.
CREATE FUNCTION reactive_orch.ring_if_armed() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    armed_ms numeric := pg_sequence_last_value('reactive_orch.bell'::regclass) - extract(epoch FROM clock_timestamp()) * 1000;
BEGIN
    IF armed_ms IS NULL OR armed_ms > 0 AND armed_ms <= 600000 THEN
        PERFORM reactive_orch.notify('reactive_orch_events', '');
    END IF;
END
$$;

-- What every append pays. SECURITY DEFINER: a role that may only INSERT must be able to append. But each name with its
-- schema, operators too, instead of SET search_path; one expression, and RETURN NEW (which is NULL here, as a constant
-- would be a second expression): an INSERT alone in its transaction takes 24 us of processor time without the trigger,
-- 26 with this one, 29 with the function above in its place. No append fails for a hint: whatever is wrong with the bell
-- (dropped, unreadable), nobody rings, and whoever arms it is told; the block for that costs less than 1 us.
CREATE FUNCTION reactive_orch.ring() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF coalesce(pg_catalog.pg_sequence_last_value('reactive_orch.bell'::pg_catalog.regclass), 1)
       OPERATOR(pg_catalog.<>) 0 THEN
        PERFORM reactive_orch.ring_if_armed();
    END IF;
    RETURN NEW;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END
$$;

CREATE TRIGGER ring AFTER INSERT ON reactive_orch.events
FOR EACH STATEMENT EXECUTE FUNCTION reactive_orch.ring();

-- Whether the trigger above is there, as writers of this log meet it.
CREATE FUNCTION reactive_orch.trigger_rings(in_log text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM pg_trigger t JOIN reactive_orch.logs s ON t.tgrelid = s.relation::oid
                   WHERE s.name = in_log AND t.tgfoid = 'reactive_orch.ring'::regproc::oid AND t.tgenabled IN ('O', 'A'))
$$;

-- Arms the bell for a time, or with 0 disarms it. Whoever sleeps because it was armed is woken to see that it is not.
-- Returns why nobody will ring, NULL when writers will: whoever sleeps then looks by himself.
CREATE FUNCTION reactive_orch.arm_bell(in_log text, for_ms bigint) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (for_ms BETWEEN 0 AND 600000) IS NOT TRUE THEN
        RETURN 'the bell is armed for 0 to 600000 ms';
    END IF;
    IF for_ms = 0 THEN
        PERFORM setval('reactive_orch.bell', 0), reactive_orch.notify('reactive_orch_events', '');
        RETURN NULL;
    END IF;
    PERFORM setval('reactive_orch.bell', (extract(epoch FROM clock_timestamp()) * 1000)::bigint + for_ms);
    RETURN CASE
        WHEN NOT reactive_orch.trigger_rings(in_log) THEN 'the trigger of the event table is missing or disabled: run migrate'
        WHEN pg_notification_queue_usage() >= 0.5 THEN
            'the server''s queue of notifications is more than half full: a session listens inside a transaction'
    END;
EXCEPTION
    WHEN insufficient_privilege THEN
        RETURN 'this role may not set the bell: `python -m reactive_orch grants` prints what a worker needs';
    WHEN OTHERS THEN
        RETURN format('the bell cannot be set (%s): run migrate', SQLSTATE);
END
$$;

-- Mends what the two above complain of, for `migrate`, and returns what it has mended. By a new sequence, since a damaged
-- one cannot be altered. Writers wait for it no longer than the time-out.
CREATE FUNCTION reactive_orch.mend_bell() RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
    mended text[] := '{}';
    sound  boolean;
    granted record;
BEGIN
    BEGIN
        PERFORM pg_sequence_last_value('reactive_orch.bell'::regclass);
        sound := (SELECT c.relpersistence = 'p' FROM pg_class c WHERE c.oid = 'reactive_orch.bell'::regclass);
    EXCEPTION WHEN OTHERS THEN
        sound := false;
    END;
    IF NOT sound THEN
        CREATE SEQUENCE reactive_orch.new_bell MINVALUE 0;
        FOR granted IN
            SELECT a.privilege_type AS what, a.grantee::regrole::text AS whom
            FROM pg_class c, aclexplode(c.relacl) a
            WHERE c.oid = to_regclass('reactive_orch.bell') AND a.grantee <> 0  -- PUBLIC may do nothing
        LOOP
            EXECUTE format('GRANT %s ON SEQUENCE reactive_orch.new_bell TO %s', granted.what, granted.whom);
        END LOOP;
        DROP SEQUENCE IF EXISTS reactive_orch.bell;
        ALTER SEQUENCE reactive_orch.new_bell RENAME TO bell;
        mended := mended || 'the bell'::text;
    END IF;
    IF NOT reactive_orch.trigger_rings('events') THEN
        CREATE OR REPLACE TRIGGER ring AFTER INSERT ON reactive_orch.events
        FOR EACH STATEMENT EXECUTE FUNCTION reactive_orch.ring();
        mended := mended || 'the trigger of the event table'::text;
    END IF;
    RETURN mended;
END
$$;

-- Steps one and two of the frontier, in this order whatever a planner thinks: the head, then who may still write at or
-- below it. A transaction takes the table's RowExclusiveLock before it draws a position and keeps it as long as the row
-- may still appear, so a position up to the head belongs to one that is listed here, has ended, or has taken the row back. The rows are read later, in a statement
-- (and so a snapshot) of their own. A prepared transaction has no pid; after a restart its virtual
-- transaction has another name.
-- On the way it tells whether the bell has been disarmed by somebody, and how many of the writers stand in line for
-- the lock that NOTIFY takes: on a database that is not there, since it is the whole cluster's.
-- The rules come last: whoever breaks one in a transaction of its own has ended or is among the holders, so that nothing
-- settles that was not found sound afterwards.
CREATE FUNCTION reactive_orch.observe_log(
    in_log text, OUT head bigint, OUT holders text[], OUT prepared text[], OUT disarmed boolean, OUT queue integer, OUT flaw text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    BEGIN
        disarmed := coalesce(pg_sequence_last_value('reactive_orch.bell'::regclass) = 0, false);
    EXCEPTION WHEN OTHERS THEN
        disarmed := false;  -- arm_bell says what is wrong with it
    END;
    SELECT coalesce(pg_sequence_last_value(s.sequence), 0) INTO head FROM reactive_orch.logs s WHERE s.name = in_log;

    WITH locks AS MATERIALIZED (
        SELECT l.virtualtransaction AS holder, l.pid, l.locktype = 'relation' AS writes
        FROM pg_locks l
        WHERE l.pid IS DISTINCT FROM pg_backend_pid()
          AND (l.locktype = 'relation'
               AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
               AND l.relation = (SELECT s.relation::oid FROM reactive_orch.logs s WHERE s.name = in_log)
               AND l.mode = 'RowExclusiveLock'
               AND l.granted
            OR l.locktype = 'object' AND l.database = 0 AND l.classid = 'pg_database'::regclass AND l.objid = 0
               AND NOT l.granted)
    )
    SELECT coalesce(array_agg(w.holder) FILTER (WHERE w.writes), '{}'),
           coalesce(array_agg(w.holder) FILTER (WHERE w.writes AND w.pid IS NULL), '{}'),
           count(*) FILTER (WHERE NOT w.writes AND w.holder IN (SELECT o.holder FROM locks o WHERE o.writes))
    INTO holders, prepared, queue
    FROM locks w;

    -- Nearly always all is plain, which four rows of the catalogs tell; the rules themselves take three times as long.
    PERFORM FROM reactive_orch.logs s
    JOIN pg_class t ON t.oid = s.relation
    JOIN pg_sequence q ON q.seqrelid = s.sequence
    JOIN pg_attribute a ON a.attrelid = s.relation AND a.attname = 'global_position'
    WHERE s.name = in_log AND q.seqcache = 1 AND q.seqincrement = 1 AND NOT q.seqcycle AND a.attidentity = 'a' AND t.relkind = 'r'
      AND NOT (t.relrowsecurity OR t.relhassubclass OR t.relhasrules)
      AND NOT EXISTS (SELECT FROM pg_subscription_rel r WHERE r.srrelid = s.relation);
    IF NOT FOUND THEN
        SELECT coalesce(min(r.flaw), CASE count(*) WHEN 0 THEN 'source' END) INTO flaw
        FROM reactive_orch.log_rules r WHERE r.name = in_log;
    END IF;
END
$$;

-- ---------------------------------------------------------- the checkpoints

-- A projection of a replica set, the log that it reads, and the filter its checkpoints were made with. A worker with another
-- filter may not run it; what it wanted is kept as the proposal that a rewind accepts. Filters that were given up are kept: who
-- comes with one is most likely an old worker that was restarted. The epoch counts the rewinds.
-- The identity is the one that the log had when its checkpoints were made. Paused (by people) or halted (by a worker, since
-- an event has failed for good), it keeps its owners, and they rest. How often that has changed is counted, so that
-- heartbeats notice it without a notification. Declared is what a command must know of the code that was registered last with
-- the recorded filter: `reset`, it has a hook that empties what it has filled; `replay`, false if it leaves replayed events
-- out; `exclusive`, it is not to be divided, and members go by that, too. What a refused worker has declared is kept with its
-- proposal. What waited when somebody last let it run is kept: so much was known.
-- Suspended (by a worker, since many of its keys have failed alike), it rests, too, until one event that is tried now and then
-- succeeds: when next, and how often that was in vain.
-- Where it was to begin, and where that was found to be, is recorded once, when it is first registered.
-- Until `serial_until` its batches go one at a time, over all workers;
-- `serial_s` is how long that spell lasts, or the last one has lasted.
CREATE TABLE reactive_orch.projections (
    replica_set   text COLLATE "C" NOT NULL,
    name          text COLLATE "C" NOT NULL,
    log           text COLLATE "C" NOT NULL REFERENCES reactive_orch.logs,
    filter        jsonb            NOT NULL,
    proposed      jsonb,
    declared      jsonb            NOT NULL DEFAULT '{}',
    proposed_declared jsonb,
    former_filters jsonb[]         NOT NULL DEFAULT '{}',
    start         text             NOT NULL DEFAULT 'beginning',
    start_position bigint          NOT NULL DEFAULT 0,
    epoch         bigint           NOT NULL DEFAULT 0,
    log_identity  text             NOT NULL,
    created_at    timestamptz      NOT NULL DEFAULT clock_timestamp(),
    state         text COLLATE "C" NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'paused', 'halted', 'suspended')),
    state_reason  text             NOT NULL DEFAULT '',
    state_by      text             NOT NULL DEFAULT '',
    state_since   timestamptz      NOT NULL DEFAULT clock_timestamp(),
    state_changes bigint           NOT NULL DEFAULT 0,
    resumes_at    timestamptz      CHECK ((resumes_at IS NULL) = (state <> 'suspended')),
    trials        integer          NOT NULL DEFAULT 0,
    tried_by      text             COLLATE "C",
    keys_then     integer          NOT NULL DEFAULT 0,
    events_then   integer          NOT NULL DEFAULT 0,
    serial_until  timestamptz      NOT NULL DEFAULT '-infinity',
    serial_s      float8           NOT NULL DEFAULT 0,
    PRIMARY KEY (replica_set, name, log)
);

-- Rows are few and updated in every batch: room for HOT updates, and vacuum by count instead of by share. The seal is the
-- SHA-256 of the token that the batch was sealed with which has moved the row. `failing` is the number of the partition's
-- failing keys: a batch learns by its swap whether it has to ask for them. `waiting` is how many events wait with them.
-- `handled_to` is where the row stood furthest before it was rewound: events up to there are replayed. Only rewinds write it, so that
-- batches do not pay for it.
CREATE TABLE reactive_orch.checkpoints (
    replica_set text COLLATE "C" NOT NULL,
    projection  text COLLATE "C" NOT NULL,
    log         text COLLATE "C" NOT NULL,
    partition   smallint         NOT NULL,
    position    bigint           NOT NULL DEFAULT 0 CHECK (position >= 0),
    epoch       bigint           NOT NULL DEFAULT 0,
    failing     integer          NOT NULL DEFAULT 0,
    waiting     integer          NOT NULL DEFAULT 0,
    handled_to  bigint           NOT NULL DEFAULT 0,
    seal        bytea,
    PRIMARY KEY (replica_set, projection, log, partition)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000);

-- Checkpoints move only in a transaction that has been sealed by whoever moved them. A handler that sends COMMIT on its own
-- would otherwise commit the swap of a batch it has half handled, and the other half would be lost. The row, as the swap
-- has written it, names the seal; what it is made of only the client knows, until it commits. So nothing that a handler
-- says in SQL seals a batch, though he has the same rights, nor does anything he writes into the row afterwards.
CREATE FUNCTION reactive_orch.refuse_unsealed() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.current_setting('reactive_orch.sealed', true), 'UTF8'))
                OPERATOR(pg_catalog.<>) NEW.seal, true) THEN
        RAISE EXCEPTION 'a handler may not end the transaction it is given, nor make all constraints immediate'
            USING ERRCODE = 'invalid_transaction_termination',
                  HINT = 'By hand, checkpoints are moved with reactive_orch.rewind().';
    END IF;
    RETURN NULL;
END
$$;

-- A rewind needs none: under a new epoch nobody takes what he remembers for done.
CREATE CONSTRAINT TRIGGER batch_is_sealed AFTER UPDATE ON reactive_orch.checkpoints
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.epoch OPERATOR(pg_catalog.=) OLD.epoch)
EXECUTE FUNCTION reactive_orch.refuse_unsealed();

-- The last statement before COMMIT: still the transaction the swap was made in? What handlers have left in the session
-- goes: it would meet other handlers, in an order that nobody knows. Temporary tables go after the COMMIT, for which
-- constraints of theirs may wait. To look for prepared statements takes 20 us beside 5 of the driver's, 70 beside 20.
CREATE FUNCTION reactive_orch.seal_batch(in_transaction text, in_token text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    left_over text;
BEGIN
    IF (in_transaction = pg_current_xact_id_if_assigned()::text) IS NOT TRUE THEN
        RAISE EXCEPTION 'a handler may not end the transaction it is given' USING ERRCODE = 'invalid_transaction_termination';
    END IF;
    PERFORM pg_advisory_unlock_all();
    UNLISTEN *;
    EXECUTE 'CLOSE ALL';
    FOR left_over IN SELECT p.name FROM pg_prepared_statements p WHERE p.from_sql LOOP
        EXECUTE format('DEALLOCATE %I', left_over);
    END LOOP;
    PERFORM set_config('reactive_orch.sealed', in_token, true);
END
$$;

-- What each log was when workers last looked, up to a position where it was settled: where it was empty (of its last 10,000
-- rows, the last 100 gaps), and its last events. None of this changes: an event cannot come where none was, nor another
-- one in place of one. A row that is gone says nothing: whoever keeps a log for a year deletes it.
CREATE TABLE reactive_orch.log_witness (
    log         text COLLATE "C" PRIMARY KEY,
    identity    uuid             NOT NULL,
    up_to       bigint           NOT NULL DEFAULT 0,
    gaps        int8multirange   NOT NULL DEFAULT '{}',
    positions   bigint[]         NOT NULL DEFAULT '{}',
    event_ids   uuid[]           NOT NULL DEFAULT '{}',
    recorded_at timestamptz      NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50);

INSERT INTO reactive_orch.log_witness (log, identity) SELECT s.name, s.identity FROM reactive_orch.logs s;

-- How far anybody has read this very log; 0 for nothing.
CREATE FUNCTION reactive_orch.read_up_to(in_log text) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(max(c.position), 0)
    FROM reactive_orch.checkpoints c
    JOIN reactive_orch.projections p ON p.replica_set = c.replica_set AND p.name = c.projection AND p.log = c.log
    WHERE c.log = in_log AND p.log_identity = reactive_orch.log_identity(in_log)
$$;

-- The first position at which a log is known to be another one than what its checkpoints have read; NULL for none, or
-- while nobody has read anything. Its end: positions up to there were drawn before and will be drawn again. Or an event
-- that has come where there was none, or that is not the one that was there.
CREATE FUNCTION reactive_orch.log_differs_at(in_log text) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT least(
        (SELECT h.head + 1 WHERE h.head < greatest(w.up_to, r.read)),
        (SELECT min(e.global_position)
         FROM unnest(w.positions, w.event_ids) AS k(position, event_id)
         JOIN reactive_orch.event_log e ON e.log = in_log AND e.global_position = k.position
         WHERE e.event_id <> k.event_id),
        (SELECT min(l.position)
         FROM unnest(w.gaps) AS g(gap)
         CROSS JOIN LATERAL (SELECT e.global_position AS position FROM reactive_orch.event_log e
                             WHERE e.log = in_log AND e.global_position >= lower(g.gap)
                               AND e.global_position < upper(g.gap)
                             ORDER BY e.global_position LIMIT 1) l))
    FROM reactive_orch.logs s
    LEFT JOIN reactive_orch.log_witness w ON w.log = s.name AND w.identity = s.identity
    CROSS JOIN LATERAL (SELECT coalesce(pg_sequence_last_value(s.sequence), 0) AS head) h
    CROSS JOIN (SELECT reactive_orch.read_up_to(in_log) AS read) r
    WHERE s.name = in_log AND r.read > 0
$$;

-- Records a log as it is up to a settled position, but only if it is still what it was, and not as long as a record is
-- younger than in_unless_within; whatever position is given, what is not settled is not recorded. Nor is anything by whoever
-- reads from a snapshot that is older than this call, in which events may still be missing. While nobody has read anything,
-- what was recorded before does not bind. Returns up to where the log is recorded then.
CREATE FUNCTION reactive_orch.witness_log(in_log text, in_settled bigint, in_unless_within interval) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    present uuid := (SELECT s.identity FROM reactive_orch.logs s WHERE s.name = in_log);
    was     reactive_orch.log_witness;
    first   bigint;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);  -- what a crash takes back is recorded again
    in_settled := least(in_settled, reactive_orch.settled_end(in_log), 9223372036854775806);  -- one more is a number, too
    SELECT w.* INTO was FROM reactive_orch.log_witness w
    WHERE w.log = in_log AND w.recorded_at NOT BETWEEN clock_timestamp() - in_unless_within AND clock_timestamp()
    FOR UPDATE SKIP LOCKED;
    IF NOT FOUND OR present IS NULL OR current_setting('transaction_isolation') IN ('repeatable read', 'serializable')
       OR reactive_orch.log_differs_at(in_log) IS NOT NULL THEN
        RETURN (SELECT w.up_to FROM reactive_orch.log_witness w WHERE w.log = in_log);
    END IF;
    IF was.identity <> present OR reactive_orch.read_up_to(in_log) = 0 THEN
        was.up_to := 0;
        was.gaps := '{}';
    ELSIF in_settled <= was.up_to THEN
        RETURN was.up_to;
    END IF;

    first := coalesce((SELECT e.global_position FROM reactive_orch.event_log e
                       WHERE e.log = in_log AND e.global_position > was.up_to AND e.global_position <= in_settled
                       ORDER BY e.global_position DESC OFFSET 9999 LIMIT 1), was.up_to);
    was.gaps := was.gaps + coalesce((
        SELECT range_agg(int8range(r.before + 1, r.position))
        FROM (SELECT p.position, lag(p.position, 1, first) OVER (ORDER BY p.position) AS before
              FROM (SELECT e.global_position AS position FROM reactive_orch.event_log e
                    WHERE e.log = in_log AND e.global_position > first AND e.global_position <= in_settled
                    UNION ALL SELECT in_settled + 1) p) r
        WHERE r.position > r.before + 1), '{}');
    UPDATE reactive_orch.log_witness w
    SET identity = present, up_to = in_settled, recorded_at = clock_timestamp(),
        gaps = coalesce((SELECT range_agg(k.gap)
                         FROM (SELECT g.gap FROM unnest(was.gaps) AS g(gap) ORDER BY g.gap DESC LIMIT 100) k), '{}'),
        (positions, event_ids) = (
            SELECT coalesce(array_agg(k.global_position), '{}'), coalesce(array_agg(k.event_id), '{}')
            FROM (SELECT e.global_position, e.event_id FROM reactive_orch.event_log e
                  WHERE e.log = in_log AND e.global_position <= in_settled ORDER BY e.global_position DESC LIMIT 8) k)
    WHERE w.log = in_log;
    RETURN in_settled;
END
$$;

-- If a log is not what its checkpoints have read, it counts as another one from now on, on which no checkpoint was made:
-- numbers alone cannot tell that any more as soon as enough is written. Nothing happens otherwise, nor if that is known
-- already, so anybody may call it.
CREATE FUNCTION reactive_orch.renew_log_identity(in_log text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE reactive_orch.logs s SET identity = gen_random_uuid(), differs_at = reactive_orch.log_differs_at(in_log)
    WHERE s.name = in_log AND reactive_orch.log_differs_at(in_log) IS NOT NULL
$$;

-- The end of a log, up to which a checkpoint may be set: while nobody is appending all of it, else as far as anybody has
-- read this very log. The caller's own transaction counts among the writers.
CREATE FUNCTION reactive_orch.settled_end(in_log text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    head bigint;
    read bigint;
BEGIN
    SELECT coalesce(pg_sequence_last_value(s.sequence), 0) INTO head FROM reactive_orch.logs s WHERE s.name = in_log;
    IF NOT EXISTS (SELECT FROM pg_locks l
                   WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.granted
                     AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
                     AND l.relation = (SELECT s.relation::oid FROM reactive_orch.logs s WHERE s.name = in_log)) THEN
        RETURN head;
    END IF;
    read := reactive_orch.read_up_to(in_log);
    RETURN CASE WHEN read <= head THEN read ELSE 0 END;
END
$$;

-- TRUNCATE ... RESTART IDENTITY, while nobody need be there to see it. Without RESTART the positions go on.
CREATE FUNCTION reactive_orch.log_truncated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM reactive_orch.renew_log_identity(s.name) FROM reactive_orch.logs s WHERE s.relation::oid = TG_RELID;
    RETURN NULL;
END
$$;

CREATE TRIGGER truncated AFTER TRUNCATE ON reactive_orch.events
FOR EACH STATEMENT EXECUTE FUNCTION reactive_orch.log_truncated();

-- Pauses, halts or resumes a projection, for the whole replica set, and tells all its workers. What is in a batch is still
-- committed. Returns the state before. Whoever halts it has not heard of a pause yet: that stays. A pause may get another reason.
CREATE FUNCTION reactive_orch.set_projection_state(
    in_replica_set text, in_projection text, in_state text, in_reason text, in_by text, in_log text DEFAULT 'events')
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before text;
BEGIN
    SELECT p.state INTO before FROM reactive_orch.projections p
    WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('replica set %L has no projection %L', in_replica_set, in_projection);
    END IF;
    IF in_state NOT IN ('running', 'paused', 'halted') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('a projection is set to running, paused or halted, not to %L', in_state);
    END IF;
    IF before <> in_state AND NOT (before = 'paused' AND in_state = 'halted') OR in_state = 'paused' AND in_reason <> '' THEN
        UPDATE reactive_orch.projections p
        SET state = in_state, state_reason = in_reason, state_by = in_by, state_since = clock_timestamp(),
            state_changes = p.state_changes + 1, resumes_at = NULL, tried_by = NULL,
            trials = CASE in_state WHEN 'running' THEN 0 ELSE p.trials END,
            (keys_then, events_then) = (
                SELECT coalesce(w.keys, p.keys_then), coalesce(w.events, p.events_then)
                FROM (VALUES (1)) AS one
                LEFT JOIN reactive_orch.waiting_of(in_replica_set, in_projection, in_log) w ON in_state = 'running')
        WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log;
        PERFORM reactive_orch.notify('reactive_orch_generations', in_replica_set);
    END IF;
    RETURN before;
END
$$;

-- A deadlock of a projection's handlers: from now on its batches go one at a time, on all workers, for a spell of 10 s. If the
-- next deadlock comes within a minute after a spell, it is twice as long, up to ten minutes: who writes shared rows deadlocks at
-- once again, and each time costs a deadlock_timeout. Returns how many seconds are left, of a spell that somebody else has begun
-- too, and whether it has begun now; NULLs for a projection that is not known.
CREATE FUNCTION reactive_orch.serialize_batches(
    in_replica_set text, in_projection text, in_log text, OUT left_s float8, OUT begins boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    until  timestamptz;
    last_s float8;
    now_   timestamptz;
BEGIN
    SELECT p.serial_until, p.serial_s INTO until, last_s FROM reactive_orch.projections p
    WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    now_ := clock_timestamp();
    begins := NOT (until > now_ AND until <= now_ + make_interval(secs => last_s));  -- the clock may have been set back
    IF begins THEN
        last_s := CASE WHEN until > now_ - interval '1 minute' THEN least(2 * last_s, 600) ELSE 10 END;
        until := now_ + make_interval(secs => last_s);
        UPDATE reactive_orch.projections p
        SET serial_until = until, serial_s = last_s, state_changes = p.state_changes + 1
        WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log;
        PERFORM reactive_orch.notify('reactive_orch_generations', in_replica_set);
    END IF;
    left_s := extract(epoch FROM until - now_);
END
$$;

-- Waits, at the beginning of a batch, until no other batch of the projection is at work that has waited here too; no longer
-- than a slice: false then. Whoever waits holds nothing yet. The lock ends with the transaction.
CREATE FUNCTION reactive_orch.await_others(in_replica_set text, in_projection text, in_log text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '900ms' AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(concat_ws(E'\x1f', in_replica_set, in_projection, in_log), 11));
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$$;

-- Wait for a checkpoint that a batch may hold, but no longer than a slice, and keep it up to the end of the transaction; no row if
-- it is held for longer. The transaction holds nothing yet.
CREATE FUNCTION reactive_orch.await_checkpoint(
    in_replica_set text, in_projection text, in_log text, in_partition smallint,
    OUT "position" bigint, OUT epoch bigint, OUT handled_to bigint) RETURNS SETOF record
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '900ms' AS $$
BEGIN
    RETURN QUERY SELECT c.position, c.epoch, c.handled_to FROM reactive_orch.checkpoints c
    WHERE c.replica_set = in_replica_set AND c.projection = in_projection AND c.log = in_log AND c.partition = in_partition
    FOR NO KEY UPDATE;
EXCEPTION WHEN lock_not_available THEN
    RETURN;
END
$$;

-- ----------------------------------------------------------- the failing keys

-- A key is what orders events: their partition key, or else bounded context, aggregate type and aggregate id. A partition key
-- stands as an id without a context and a type (''). Its hash, so that a long id does not make an index row that is too long.
CREATE FUNCTION reactive_orch.key_hash(in_context text, in_type text, in_id text) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT pg_catalog.hashtextextended(in_id COLLATE "C", pg_catalog.hashtextextended(in_type COLLATE "C",
           pg_catalog.hashtextextended(in_context COLLATE "C", 0)))
$$;

-- The keys of a projection of which an event has failed. That event and all later ones of its key wait in dead_letters, in
-- the order of the log, while all other keys go on. The row is there as long as any of them waits. Everything but the
-- request, and whose a second opinion is, is written only in a batch that holds the partition's checkpoint.
-- `due_at` is when the owner is to act; a parked key has none and waits for somebody's request. `deaths` is how many of the
-- attempts have ended the process, or its connection, instead of failing. `request_position` is where the first waiting event was for
-- who has asked: only that one is skipped. `asked_by` is the process that would park the key, and
-- wants another one to try it first; `taken_by` the one that does.
CREATE TABLE reactive_orch.failing_keys (
    id              bigint           GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    replica_set     text COLLATE "C" NOT NULL,
    projection      text COLLATE "C" NOT NULL,
    log             text COLLATE "C" NOT NULL,
    partition       smallint         NOT NULL,
    bounded_context text COLLATE "C" NOT NULL,
    aggregate_type  text COLLATE "C" NOT NULL,
    aggregate_id    text COLLATE "C" NOT NULL,
    key_hash        bigint           NOT NULL
        GENERATED ALWAYS AS (reactive_orch.key_hash(bounded_context, aggregate_type, aggregate_id)) STORED,
    state           text COLLATE "C" NOT NULL CHECK (state IN ('retrying', 'parked')),
    attempts        integer          NOT NULL,
    deaths          integer          NOT NULL DEFAULT 0,
    due_at          timestamptz,
    request         text COLLATE "C" CHECK (request IN ('retry', 'skip', 'discard')),
    requested_by    text,
    request_position bigint,
    asked_by        text,
    taken_by        text,
    error_type      text             NOT NULL,
    sqlstate        text,
    message         text             NOT NULL,
    traceback       text             NOT NULL,
    worker          text             NOT NULL,
    failed_first_at timestamptz      NOT NULL DEFAULT clock_timestamp(),
    failed_last_at  timestamptz      NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX failing_keys_key ON reactive_orch.failing_keys (replica_set, projection, log, key_hash);

-- Without those that wait for a person: however many they are, the next one that is due is found at once.
CREATE INDEX failing_keys_due ON reactive_orch.failing_keys (replica_set, projection, log, due_at) WHERE due_at IS NOT NULL;

CREATE INDEX failing_keys_asked ON reactive_orch.failing_keys (replica_set, projection, log) WHERE asked_by IS NOT NULL;

-- A letter is replayed if its event had been handled before it began to wait.
CREATE TABLE reactive_orch.dead_letters (
    key      bigint  NOT NULL REFERENCES reactive_orch.failing_keys ON DELETE CASCADE,
    position bigint  NOT NULL,
    replayed boolean NOT NULL DEFAULT false,
    PRIMARY KEY (key, position)
);

-- How many keys of a projection fail and how many events wait, and how many did when somebody last let it run. From the
-- counts in the checkpoints: what others have counted and not committed yet is missing.
CREATE FUNCTION reactive_orch.waiting_of(
    in_replica_set text, in_projection text, in_log text,
    OUT keys integer, OUT events integer, OUT keys_then integer, OUT events_then integer)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.keys, c.events, coalesce(p.keys_then, 0), coalesce(p.events_then, 0)
    FROM (SELECT coalesce(sum(c.failing), 0)::integer AS keys, coalesce(sum(c.waiting), 0)::integer AS events
          FROM reactive_orch.checkpoints c
          WHERE c.replica_set = in_replica_set AND c.projection = in_projection AND c.log = in_log) c
    LEFT JOIN reactive_orch.projections p
      ON p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log
$$;

-- The same of one partition, counted: for when the counts in the checkpoints are to be made anew.
CREATE FUNCTION reactive_orch.count_waiting(
    in_replica_set text, in_projection text, in_log text, in_partition smallint, OUT keys integer, OUT events integer)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(DISTINCT k.id)::integer, count(d.position)::integer
    FROM reactive_orch.failing_keys k LEFT JOIN reactive_orch.dead_letters d ON d.key = k.id
    WHERE k.replica_set = in_replica_set AND k.projection = in_projection AND k.log = in_log AND k.partition = in_partition
$$;

-- What has never been handled although its partition's checkpoint has stood behind it: events that waited with a failing key when
-- a rewind took them off. They come again as new ones. Rows that the checkpoint has passed since mean nothing any more; the next
-- rewind deletes them.
CREATE TABLE reactive_orch.unhandled_events (
    replica_set text COLLATE "C" NOT NULL,
    projection  text COLLATE "C" NOT NULL,
    log         text COLLATE "C" NOT NULL,
    partition   smallint         NOT NULL,
    position    bigint           NOT NULL,
    PRIMARY KEY (replica_set, projection, log, partition, position)
);

-- Whether an event of a partition has been handled before for a projection. Good only while the partition's checkpoint is held.
CREATE FUNCTION reactive_orch.is_replayed(
    in_replica_set text, in_projection text, in_log text, in_partition smallint, in_position bigint) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM reactive_orch.checkpoints c
                   WHERE c.replica_set = in_replica_set AND c.projection = in_projection AND c.log = in_log
                     AND c.partition = in_partition AND in_position <= c.handled_to)
       AND NOT EXISTS (SELECT FROM reactive_orch.unhandled_events u
                       WHERE u.replica_set = in_replica_set AND u.projection = in_projection AND u.log = in_log
                         AND u.partition = in_partition AND u.position = in_position)
$$;

-- What was left out for good, because somebody said so.
CREATE TABLE reactive_orch.discarded_events (
    replica_set     text COLLATE "C" NOT NULL,
    projection      text COLLATE "C" NOT NULL,
    log             text COLLATE "C" NOT NULL,
    partition       smallint         NOT NULL,
    position        bigint           NOT NULL,
    bounded_context text COLLATE "C" NOT NULL,
    aggregate_type  text COLLATE "C" NOT NULL,
    aggregate_id    text COLLATE "C" NOT NULL,
    request         text COLLATE "C" NOT NULL,
    requested_by    text             NOT NULL,
    discarded_at    timestamptz      NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (replica_set, projection, log, position, discarded_at)
);

-- Partitions whose owner was lost, and nobody knows why: an event of theirs may have ended its process, and may do so again.
-- Whoever loads them says what he has in hand, in `markers`, until he has come past what the lost owner can have had in hand.
CREATE TABLE reactive_orch.suspicions (
    replica_set text COLLATE "C" NOT NULL,
    projection  text COLLATE "C" NOT NULL,
    log         text COLLATE "C" NOT NULL,
    partition   smallint         NOT NULL,
    since       timestamptz      NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (replica_set, projection, log, partition)
);

-- What a lane of a worker has in hand of suspect partitions, or of a failing key: committed before its handler is called, gone
-- with the batch. So one that is there although its process is no member any more says at which event, or in which batch, that
-- process has ended. The position is that of the last of these events.
CREATE TABLE reactive_orch.markers (
    replica_set text COLLATE "C" NOT NULL,
    projection  text COLLATE "C" NOT NULL,
    log         text COLLATE "C" NOT NULL,
    worker      text COLLATE "C" NOT NULL,
    lane        integer          NOT NULL,
    partitions  smallint[]       NOT NULL,
    position    bigint           NOT NULL,
    events      integer          NOT NULL,
    marked_at   timestamptz      NOT NULL,
    PRIMARY KEY (replica_set, projection, log, worker, lane)
) WITH (fillfactor = 50);

-- ------------------------------------------------------------- the rewinds

-- Whether a filter, as it is recorded, lets an event pass. What it does not name may be anything.
CREATE FUNCTION reactive_orch.passes(in_filter jsonb, in_context text, in_type text, in_event_type text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (pg_catalog.jsonb_typeof(in_filter OPERATOR(pg_catalog.->) 'bounded_contexts') IS DISTINCT FROM 'array'
            OR (in_filter OPERATOR(pg_catalog.->) 'bounded_contexts') OPERATOR(pg_catalog.?) in_context)
       AND (pg_catalog.jsonb_typeof(in_filter OPERATOR(pg_catalog.->) 'aggregate_types') IS DISTINCT FROM 'array'
            OR (in_filter OPERATOR(pg_catalog.->) 'aggregate_types') OPERATOR(pg_catalog.?) in_type)
       AND (pg_catalog.jsonb_typeof(in_filter OPERATOR(pg_catalog.->) 'event_types') IS DISTINCT FROM 'array'
            OR (in_filter OPERATOR(pg_catalog.->) 'event_types') OPERATOR(pg_catalog.?) in_event_type)
$$;

-- How many events in (in_low, in_high] pass a filter and are at or before the checkpoint of their partition, or, if they are
-- not to be handled ones, behind it. The first 100,000 rows of the log there are looked at. If there are more, the number is what
-- it would be if the rest was like them, at least 1, and not exact: whoever asks may hold locks meanwhile.
CREATE FUNCTION reactive_orch.events_between(
    in_replica_set text, in_projection text, in_log text, in_filter jsonb, in_low bigint, in_high bigint, in_handled boolean,
    OUT events bigint, OUT exact boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN r.exact THEN r.found
                ELSE greatest(1, r.found * (in_high - in_low)::numeric / (r.last - in_low))::bigint END, r.exact
    FROM (SELECT count(*) FILTER (WHERE (s.position <= c.position) = in_handled
                                    AND reactive_orch.passes(in_filter, s.bounded_context, s.aggregate_type, s.event_type)) AS found,
                 count(*) < 100000 AS exact, max(s.position) AS last
          FROM (SELECT e.global_position AS position, e.partition, e.bounded_context, e.aggregate_type, e.event_type
                FROM reactive_orch.event_log e
                WHERE e.log = in_log AND e.global_position > in_low AND e.global_position <= in_high
                ORDER BY e.global_position LIMIT 100000) s
          LEFT JOIN reactive_orch.checkpoints c ON c.replica_set = in_replica_set AND c.projection = in_projection
                                               AND c.log = in_log AND c.partition = s.partition) r
$$;

-- The filter that a rewind makes the recorded one; NULL: none. A former one comes back by the express word alone, which is to keep
-- the positions: else an old worker that was restarted would have its filter back by the next rewind, whatever that is for.
CREATE FUNCTION reactive_orch.filter_accepted(proposed jsonb, former_filters jsonb[], position_to bigint) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN position_to IS NULL OR proposed <> ALL (former_filters) THEN proposed END
$$;

-- The events that wait with failing keys and that a rewind takes off: those behind its target, which come again; those that the
-- filter of then leaves out; and all of them if the log is another one now, as they say nothing about this one.
CREATE FUNCTION reactive_orch.letters_taken(in_replica_set text, in_projection text, position_to bigint, in_log text)
RETURNS TABLE (key bigint, "position" bigint, comes_again boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT w.key, w.position, w.comes_again
    FROM (SELECT d.key, d.position, coalesce(d.position > position_to, false) AS comes_again,
                 p.log_identity <> reactive_orch.log_identity(in_log) AS estranged,
                 CASE WHEN a.filter IS NOT NULL THEN
                     (SELECT NOT reactive_orch.passes(a.filter, e.bounded_context, e.aggregate_type, e.event_type)
                      FROM reactive_orch.event_log e WHERE e.log = in_log AND e.global_position = d.position) END AS unwanted
          FROM reactive_orch.projections p
          CROSS JOIN LATERAL reactive_orch.filter_accepted(p.proposed, p.former_filters, position_to) a(filter)
          JOIN reactive_orch.failing_keys k ON k.replica_set = p.replica_set AND k.projection = p.name AND k.log = p.log
          JOIN reactive_orch.dead_letters d ON d.key = k.id
          WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log) w
    WHERE w.comes_again OR w.unwanted OR w.estranged
$$;

-- What a rewind does, or would do as things stand: to how many partitions, of how many of which nobody knows what has been
-- handled, since their checkpoints are gone or were made on another log; of the others, how many events it lets be handled
-- again, how many it leaves out that have not been handled, and whether these two are exact; of how many failing keys events that
-- wait are taken off, how many of those come again, and how many do not.
CREATE FUNCTION reactive_orch.rewind_effects(
    in_replica_set text, in_projection text, position_to bigint, in_log text DEFAULT 'events',
    OUT partitions integer, OUT unknown integer, OUT again bigint, OUT left_out bigint, OUT exact boolean,
    OUT keys bigint, OUT letters_again bigint, OUT letters_dropped bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    wanted    jsonb;
    estranged boolean;
    first     bigint;
    last      bigint;
    back      record;
    ahead     record;
BEGIN
    SELECT coalesce(reactive_orch.filter_accepted(p.proposed, p.former_filters, position_to), p.filter),
           p.log_identity <> reactive_orch.log_identity(in_log) INTO wanted, estranged
    FROM reactive_orch.projections p WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('replica set %L has no projection %L', in_replica_set, in_projection);
    END IF;
    SELECT count(DISTINCT t.key), count(*) FILTER (WHERE t.comes_again), count(*) FILTER (WHERE NOT t.comes_again)
    INTO keys, letters_again, letters_dropped
    FROM reactive_orch.letters_taken(in_replica_set, in_projection, position_to, in_log) t;

    SELECT s.partitions, s.partitions - count(c.position), min(c.position), max(c.position) INTO partitions, unknown, first, last
    FROM reactive_orch.logs s
    LEFT JOIN reactive_orch.checkpoints c ON c.replica_set = in_replica_set AND c.projection = in_projection AND c.log = s.name
                                         AND c.partition < s.partitions
    WHERE s.name = in_log GROUP BY s.partitions;
    unknown := CASE WHEN estranged THEN partitions ELSE unknown END;
    again := 0;
    left_out := 0;
    exact := true;
    IF unknown = partitions OR position_to IS NULL THEN
        RETURN;
    END IF;
    back := reactive_orch.events_between(in_replica_set, in_projection, in_log, wanted, position_to, last, true);
    ahead := reactive_orch.events_between(in_replica_set, in_projection, in_log, wanted, first, position_to, false);
    again := greatest(back.events - letters_again, 0);
    left_out := ahead.events;
    exact := back.exact AND ahead.exact;
END
$$;

-- Positions back (or forward) while workers run, and with them the filter that is accepted, if one is, and the log they
-- are positions of. `in_planned` is the filter that the caller was told will be accepted, JSON's null for none: another one is not.
-- NULL: it was told nothing. The epoch is raised, so that no batch begun before can commit, even when a position returns to an
-- old value. position_to NULL keeps the positions; checkpoints that were deleted come back at position_to. The workers
-- look at the epochs. Returns what it has done, as told above. Raises what is not a position: nobody reads behind it. And, under
-- the locks that nobody handles an event without, what would leave out events that have not been handled, unless that is meant.
CREATE FUNCTION reactive_orch.rewind(
    in_replica_set text, in_projection text, position_to bigint, in_log text DEFAULT 'events',
    in_skip_unhandled boolean DEFAULT false, in_planned jsonb DEFAULT NULL,
    OUT partitions integer, OUT unknown integer, OUT again bigint, OUT left_out bigint, OUT exact boolean,
    OUT keys bigint, OUT letters_again bigint, OUT letters_dropped bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    settled bigint := reactive_orch.settled_end(in_log);
    present integer;
    last    bigint;
    estranged boolean;
    accepted jsonb;
BEGIN
    PERFORM reactive_orch.renew_log_identity(in_log);  -- if nobody has noticed yet: this is the word that is asked for then
    PERFORM FROM reactive_orch.checkpoints c
    WHERE c.replica_set = in_replica_set AND c.projection = in_projection AND c.log = in_log
    ORDER BY c.partition FOR NO KEY UPDATE;
    -- So that what is proposed stays what it is, and before the failing keys, as whoever suspends it does.
    SELECT reactive_orch.filter_accepted(p.proposed, p.former_filters, position_to) INTO accepted
    FROM reactive_orch.projections p
    WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log FOR NO KEY UPDATE;
    IF in_planned <> coalesce(accepted, 'null') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('the filter that %L would get has changed since it was told: nothing was done, rewind again', in_projection);
    END IF;
    -- In the order in which everybody locks several of them.
    PERFORM FROM reactive_orch.failing_keys k
    WHERE k.replica_set = in_replica_set AND k.projection = in_projection AND k.log = in_log ORDER BY k.id FOR UPDATE;

    SELECT e.* INTO partitions, unknown, again, left_out, exact, keys, letters_again, letters_dropped
    FROM reactive_orch.rewind_effects(in_replica_set, in_projection, position_to, in_log) e;
    SELECT count(*), max(c.position) INTO present, last FROM reactive_orch.checkpoints c
    WHERE c.replica_set = in_replica_set AND c.projection = in_projection AND c.log = in_log AND c.partition < partitions;
    IF position_to IS NULL AND (present < partitions OR last > (
        SELECT coalesce(pg_sequence_last_value(s.sequence), 0) FROM reactive_orch.logs s WHERE s.name = in_log)) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('the positions of %L cannot be kept: %s of its %s checkpoints are there, the last at position %s',
                             in_projection, present, partitions, coalesce(last, 0)),
            HINT = 'Give a position, or 0 for the start.';
    END IF;
    IF position_to < 0 OR position_to > settled THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('position %s is not one up to %s, where the log is settled', position_to, settled);
    END IF;
    estranged := (SELECT p.log_identity <> reactive_orch.log_identity(in_log) FROM reactive_orch.projections p
                  WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log);
    IF left_out > 0 AND in_skip_unhandled IS NOT TRUE THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('%s%s up to position %s %s not been handled and would be left out for good: '
                             'if that is meant, say --skip-unhandled',
                             CASE WHEN NOT exact THEN 'about ' END, left_out || CASE left_out WHEN 1 THEN ' event' ELSE ' events' END,
                             position_to, CASE left_out WHEN 1 THEN 'has' ELSE 'have' END),
            HINT = 'Of this function: in_skip_unhandled.';
    END IF;

    -- What somebody had in hand at another position says nothing now.
    DELETE FROM reactive_orch.markers m
    WHERE m.replica_set = in_replica_set AND m.projection = in_projection AND m.log = in_log;

    -- What the checkpoints have passed is dealt with by now; what waits and comes again has not been handled yet.
    DELETE FROM reactive_orch.unhandled_events u USING reactive_orch.checkpoints c
    WHERE u.replica_set = in_replica_set AND u.projection = in_projection AND u.log = in_log
      AND c.replica_set = in_replica_set AND c.projection = in_projection AND c.log = in_log
      AND c.partition = u.partition AND (u.position <= c.position OR estranged);
    INSERT INTO reactive_orch.unhandled_events (replica_set, projection, log, partition, position)
    SELECT in_replica_set, in_projection, in_log, k.partition, t.position
    FROM reactive_orch.letters_taken(in_replica_set, in_projection, position_to, in_log) t
    JOIN reactive_orch.failing_keys k ON k.id = t.key
    JOIN reactive_orch.dead_letters d ON d.key = t.key AND d.position = t.position
    WHERE t.comes_again AND NOT d.replayed AND NOT estranged
    ON CONFLICT DO NOTHING;

    -- Of a key whose first waiting event goes, the next one has not been tried.
    WITH taken AS MATERIALIZED (
        SELECT t.key, t.position FROM reactive_orch.letters_taken(in_replica_set, in_projection, position_to, in_log) t
    ), gone AS (
        DELETE FROM reactive_orch.dead_letters d USING taken t WHERE d.key = t.key AND d.position = t.position
    )
    UPDATE reactive_orch.failing_keys k
    SET state = 'retrying', attempts = 0, deaths = 0, due_at = clock_timestamp(),
        request = CASE k.request WHEN 'discard' THEN k.request END
    FROM (SELECT t.key, min(t.position) AS position FROM taken t GROUP BY t.key) f
    WHERE k.id = f.key AND f.position = (SELECT min(d.position) FROM reactive_orch.dead_letters d WHERE d.key = k.id);
    DELETE FROM reactive_orch.failing_keys k
    WHERE k.replica_set = in_replica_set AND k.projection = in_projection AND k.log = in_log
      AND NOT EXISTS (SELECT FROM reactive_orch.dead_letters d WHERE d.key = k.id);

    UPDATE reactive_orch.projections p
    SET epoch = 1 + greatest(p.epoch, (SELECT max(c.epoch) FROM reactive_orch.checkpoints c
                                       WHERE c.replica_set = in_replica_set AND c.projection = in_projection AND c.log = in_log)),
        log_identity = reactive_orch.log_identity(in_log)
    WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log;
    UPDATE reactive_orch.projections p
    SET filter = accepted, former_filters = array_append(array_remove(p.former_filters, accepted), p.filter),
        declared = coalesce(p.proposed_declared, p.declared), proposed = NULL, proposed_declared = NULL
    WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log AND accepted IS NOT NULL;
    UPDATE reactive_orch.checkpoints c
    SET position = coalesce(position_to, c.position), epoch = p.epoch,
        handled_to = CASE WHEN estranged THEN 0 ELSE greatest(c.handled_to, c.position) END,
        (failing, waiting) = (SELECT w.keys, w.events
                              FROM reactive_orch.count_waiting(in_replica_set, in_projection, in_log, c.partition) w)
    FROM reactive_orch.projections p
    WHERE c.replica_set = in_replica_set AND c.projection = in_projection AND c.log = in_log
      AND p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log;
    INSERT INTO reactive_orch.checkpoints (replica_set, projection, log, partition, position, epoch, failing, waiting)
    SELECT in_replica_set, in_projection, in_log, g.partition, position_to, p.epoch, w.keys, w.events
    FROM reactive_orch.projections p, generate_series(0, partitions - 1) AS g(partition),
         reactive_orch.count_waiting(in_replica_set, in_projection, in_log, g.partition::smallint) w
    WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log AND position_to IS NOT NULL
    ON CONFLICT DO NOTHING;

    PERFORM reactive_orch.notify('reactive_orch_generations', in_replica_set);
END
$$;

-- The position behind which everything comes that was created at a time or later; at most the settled end. Times do not follow
-- positions: an event may have waited for its commit, a clock be set back, a writer bring a time of its own. So what a search that
-- trusts them has found is only a bound, and what is before it is looked up by the index below. Planners do not know how little
-- that one reads.
CREATE FUNCTION reactive_orch.position_before(
    in_time timestamptz, in_log text DEFAULT 'events', in_settled bigint DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    settled bigint := coalesce(in_settled, reactive_orch.settled_end(in_log));
    low     bigint := 0;
    high    bigint := settled;
    middle  bigint;
    event   record;
BEGIN
    WHILE low < high LOOP
        middle := (low + high) / 2;
        SELECT e.global_position AS position, e.created_at INTO event FROM reactive_orch.event_log e
        WHERE e.log = in_log AND e.global_position > middle AND e.global_position <= settled
        ORDER BY e.global_position LIMIT 1;
        IF event.created_at < in_time THEN
            low := event.position;
        ELSE
            high := middle;
        END IF;
    END LOOP;
    RETURN least(high, (SELECT min(e.global_position + 0) - 1 FROM reactive_orch.event_log e
                        WHERE e.log = in_log AND e.created_at >= in_time AND e.global_position + 0 <= high));
END
$$;

-- The position behind which all comes that nobody can see yet: where "from now on" begins. While others write, what is in flight
-- now must end first; what becomes visible by then, in a gap behind which nobody has read, of the last 500,000 positions, comes
-- after now. If somebody does not end in two seconds, it is as far as anybody has read this very log, and from there to the
-- first gap. Whoever is in flight has all his positions in gaps.
CREATE FUNCTION reactive_orch.position_now(in_log text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    first  record;
    seen   record;
    low    bigint;
    gaps   int8multirange;
    before bigint;
BEGIN
    SELECT o.* INTO first FROM reactive_orch.observe_log(in_log) o;
    IF first.holders = '{}' THEN
        RETURN first.head;
    END IF;
    before := reactive_orch.read_up_to(in_log);
    low := greatest(before, first.head - 500000);
    gaps := (SELECT coalesce(range_agg(int8range(r.before + 1, r.position)), '{}')
             FROM (SELECT p.position, lag(p.position, 1, low) OVER (ORDER BY p.position) AS before
                   FROM (SELECT e.global_position AS position FROM reactive_orch.event_log e
                         WHERE e.log = in_log AND e.global_position > low AND e.global_position <= first.head
                         UNION ALL SELECT first.head + 1) p) r
             WHERE r.position > r.before + 1);
    FOR attempt IN 1..200 LOOP
        PERFORM pg_sleep(0.01);
        SELECT o.* INTO seen FROM reactive_orch.observe_log(in_log) o;
        IF NOT first.holders && seen.holders AND seen.prepared = '{}' THEN
            RETURN coalesce((SELECT min(e.global_position) - 1 FROM reactive_orch.event_log e
                             WHERE e.log = in_log AND e.global_position > low AND e.global_position <= first.head
                               AND gaps @> e.global_position), first.head);
        END IF;
    END LOOP;
    RETURN coalesce((SELECT max(r.position)
                     FROM (SELECT e.global_position AS position, row_number() OVER (ORDER BY e.global_position) AS nth
                           FROM reactive_orch.event_log e
                           WHERE e.log = in_log AND e.global_position > before
                             AND e.global_position <= before + 1000000) r
                     WHERE r.position = before + r.nth), before);
END
$$;

-- Where a projection begins that is registered for the first time.
CREATE FUNCTION reactive_orch.start_position(in_start text, in_log text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF in_start = 'beginning' THEN
        RETURN 0;
    ELSIF in_start = 'now' THEN
        RETURN reactive_orch.position_now(in_log);
    ELSIF in_start::timestamptz > clock_timestamp() THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('a projection cannot start at a time to come: %s', in_start);
    END IF;
    RETURN reactive_orch.position_before(in_start::timestamptz, in_log, reactive_orch.position_now(in_log));
END
$$;

-- Many keys of a running projection have failed alike: it rests, and is tried again by itself after in_pauses_s, of which the next
-- one is taken each time, from the first on unless it has run for less than a minute. Keys that were parked while they failed, or
-- a little before, are tried again with the rest: nobody is to do that by hand. If others run it, too (in_others), its first
-- trial is due at once: it is theirs (claim_trial). Returns whether it was running.
CREATE FUNCTION reactive_orch.suspend_projection(
    in_replica_set text, in_projection text, in_log text, in_reason text, in_by text, in_failing_s float8, in_pauses_s float8[],
    in_others boolean)
RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    failed integer;
    since  timestamptz := clock_timestamp();
BEGIN
    SELECT CASE WHEN p.state_since > clock_timestamp() - interval '1 minute' THEN p.trials ELSE 0 END INTO failed
    FROM reactive_orch.projections p
    WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log AND p.state = 'running'
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE reactive_orch.projections p
    SET state = 'suspended', state_reason = in_reason, state_by = in_by, state_since = since, trials = failed,
        state_changes = p.state_changes + 1, tried_by = NULL,
        resumes_at = CASE WHEN in_others THEN since ELSE reactive_orch.next_trial(failed, in_pauses_s) END
    WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log;
    PERFORM reactive_orch.retry_parked_since(in_replica_set, in_projection, in_log, in_by,
                                             clock_timestamp() - make_interval(secs => in_failing_s + 30));
    PERFORM reactive_orch.notify('reactive_orch_generations', in_replica_set);
    RETURN true;
END
$$;

-- Asks for what was parked in an outage to be tried again.
CREATE FUNCTION reactive_orch.retry_parked_since(
    in_replica_set text, in_projection text, in_log text, in_by text, in_since timestamptz) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    UPDATE reactive_orch.failing_keys k SET request = 'retry', requested_by = in_by, due_at = clock_timestamp()
    FROM (SELECT l.id FROM reactive_orch.failing_keys l
          WHERE l.replica_set = in_replica_set AND l.projection = in_projection AND l.log = in_log
            AND l.state = 'parked' AND l.request IS NULL AND l.failed_last_at > in_since
          ORDER BY l.id FOR NO KEY UPDATE) locked  -- batches may let more wait with it meanwhile
    WHERE k.id = locked.id
$$;

-- When the next trial is due after so many in vain.
CREATE FUNCTION reactive_orch.next_trial(in_failed integer, in_pauses_s float8[]) RETURNS timestamptz
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT clock_timestamp() + make_interval(secs => in_pauses_s[least(in_failed + 1, cardinality(in_pauses_s))])
$$;

-- Whether a trial of a suspended projection is due: then a key of in_partitions (NULL: of any) is the caller's to try, for in_for_s
-- seconds, or as long as it lives, the one whose last attempt is longest ago. Else in how many seconds to ask again; NULL when it
-- is not suspended. If nothing is left to be tried, it runs again. The first trial of all may be due at once: then it is for others than the process
-- that has suspended the projection, for 5 seconds, and of a key that has failed there: perhaps nobody else fails.
CREATE FUNCTION reactive_orch.claim_trial(
    in_replica_set text, in_projection text, in_log text, in_partitions smallint[], in_by text, in_for_s float8,
    OUT due_in_s float8, OUT key bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    anything boolean;
    died     boolean;
BEGIN
    SELECT greatest(extract(epoch FROM p.resumes_at + CASE WHEN p.resumes_at = p.state_since AND p.state_by = in_by
                                                           THEN interval '5 seconds' ELSE '0' END - clock_timestamp()), 0),
           p.tried_by NOT IN (SELECT m.name FROM reactive_orch.living_members(in_replica_set) m)
    INTO due_in_s, died FROM reactive_orch.projections p
    WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log AND p.state = 'suspended';
    IF due_in_s IS NULL OR due_in_s > 0 AND died IS NOT TRUE THEN
        RETURN;
    END IF;
    PERFORM FROM reactive_orch.projections p
    WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log AND p.state = 'suspended'
      AND (p.resumes_at <= clock_timestamp()
           OR p.tried_by NOT IN (SELECT m.name FROM reactive_orch.living_members(in_replica_set) m))
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN  -- somebody else was quicker
        due_in_s := 1;
        RETURN;
    END IF;
    -- Of batches that were in hand when it was suspended.
    PERFORM reactive_orch.retry_parked_since(p.replica_set, p.name, p.log, p.state_by, p.state_since)
    FROM reactive_orch.projections p
    WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log;
    SELECT (array_agg(k.id ORDER BY k.worker <> p.state_by, k.failed_last_at)
            FILTER (WHERE in_partitions IS NULL OR k.partition = ANY (in_partitions)))[1], count(*) > 0
    INTO key, anything
    FROM reactive_orch.failing_keys k
    JOIN reactive_orch.projections p ON p.replica_set = k.replica_set AND p.name = k.projection AND p.log = k.log
    WHERE k.replica_set = in_replica_set AND k.projection = in_projection AND k.log = in_log AND k.due_at IS NOT NULL
      AND coalesce(k.request, 'retry') = 'retry';
    IF key IS NOT NULL THEN
        UPDATE reactive_orch.projections p SET resumes_at = clock_timestamp() + make_interval(secs => in_for_s), tried_by = in_by
        WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log;
    ELSIF NOT anything THEN
        PERFORM reactive_orch.end_trial(in_replica_set, in_projection, in_log, '{1}', true, in_by);
        due_in_s := NULL;
    ELSE
        due_in_s := 1;
    END IF;
END
$$;

-- A trial has succeeded: the projection runs again. Or it was in vain: the next one is due after the next pause, if the trial was
-- still that of in_by, the process that has tried it. Returns in how many seconds the next one is due; NULL when it is not suspended
-- any more. How often it was in vain is kept for the case that it does not run for long.
CREATE FUNCTION reactive_orch.end_trial(
    in_replica_set text, in_projection text, in_log text, in_pauses_s float8[], in_succeeded boolean, in_by text) RETURNS float8
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE reactive_orch.projections p
    SET trials = p.trials + 1, state = CASE WHEN in_succeeded THEN 'running' ELSE p.state END,
        state_since = CASE WHEN in_succeeded THEN clock_timestamp() ELSE p.state_since END,
        state_reason = CASE WHEN in_succeeded THEN 'a trial has succeeded' ELSE p.state_reason END,
        state_by = CASE WHEN in_succeeded THEN in_by ELSE p.state_by END,
        state_changes = p.state_changes + in_succeeded::integer, tried_by = NULL,
        resumes_at = CASE WHEN NOT in_succeeded THEN reactive_orch.next_trial(p.trials + 1, in_pauses_s) END
    WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log AND p.state = 'suspended'
      AND (in_succeeded OR p.tried_by = in_by);
    IF FOUND AND in_succeeded THEN
        PERFORM reactive_orch.notify('reactive_orch_generations', in_replica_set);
    END IF;
    RETURN (SELECT extract(epoch FROM p.resumes_at - clock_timestamp()) FROM reactive_orch.projections p
            WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log);
END
$$;

-- Waits until one of these checkpoints is free, but no longer than a slice; returns for whom any of them is free then: the
-- waiters' numbers, one for each row.
CREATE FUNCTION reactive_orch.await_free(
    in_waiters integer[], in_replica_sets text[], in_projections text[], in_logs text[], in_partitions smallint[])
RETURNS integer[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '50ms' AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);  -- the locks end with the statement: nothing to flush
    BEGIN
        PERFORM FROM reactive_orch.checkpoints c
        WHERE c.replica_set = in_replica_sets[1] AND c.projection = in_projections[1] AND c.log = in_logs[1]
          AND c.partition = in_partitions[1]
        FOR UPDATE;
    EXCEPTION WHEN lock_not_available THEN
        NULL;
    END;
    RETURN ARRAY(
        SELECT f.waiter
        FROM (SELECT w.waiter
              FROM unnest(in_waiters, in_replica_sets, in_projections, in_logs, in_partitions)
                       AS w(waiter, replica_set, projection, log, partition)
              JOIN reactive_orch.checkpoints c USING (replica_set, projection, log, partition)
              FOR UPDATE OF c SKIP LOCKED) f
        UNION  -- and who waits for what is not there: it has to say so
        SELECT w.waiter
        FROM unnest(in_waiters, in_replica_sets, in_projections, in_logs, in_partitions)
                 AS w(waiter, replica_set, projection, log, partition)
        WHERE NOT EXISTS (SELECT FROM reactive_orch.checkpoints c WHERE c.replica_set = w.replica_set
                          AND c.projection = w.projection AND c.log = w.log AND c.partition = w.partition));
END
$$;

-- --------------------------------------------------------- the replica sets

CREATE TABLE reactive_orch.replica_sets (
    name       text COLLATE "C" PRIMARY KEY,
    generation bigint           NOT NULL DEFAULT 0
);

-- Ids are the keys of advisory locks, under the namespace below; drawn once, never again on this server. A member is its
-- id and its name: a promoted standby that has lost the last ids draws them a second time.
CREATE SEQUENCE reactive_orch.member_ids AS integer;

CREATE FUNCTION reactive_orch.lock_namespace() RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT 1919906403 $$;  -- the bytes of "rorc"

-- A member runs projections[i] on the log logs[i]. `account` is what it says of itself with its heartbeats, for people.
CREATE TABLE reactive_orch.members (
    id            integer          PRIMARY KEY,
    replica_set   text COLLATE "C" NOT NULL,
    state         text COLLATE "C" NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'active', 'leaving')),
    name          text COLLATE "C" NOT NULL,
    projections   text[]           NOT NULL,
    logs          text[]           NOT NULL CHECK (cardinality(logs) = cardinality(projections)),
    backend_pid   integer          NOT NULL,
    backend_start timestamptz      NOT NULL,
    heartbeat_at  timestamptz      NOT NULL DEFAULT clock_timestamp(),
    stale_after   interval         NOT NULL,
    acknowledged  bigint           NOT NULL DEFAULT 0,
    account       jsonb
) WITH (fillfactor = 50);
CREATE INDEX members_replica_set ON reactive_orch.members (replica_set);

CREATE TABLE reactive_orch.generations (
    replica_set text COLLATE "C" NOT NULL,
    number      bigint           NOT NULL,
    reason      text             NOT NULL CHECK (reason IN ('join', 'leave', 'death', 'stale', 'capability')),
    subjects    integer[]        NOT NULL,
    members     integer[]        NOT NULL,
    moved       integer          NOT NULL,
    traceparent text,
    initiator   integer          NOT NULL,
    wake_source text             NOT NULL,
    noticed_at  timestamptz      NOT NULL,
    created_at  timestamptz      NOT NULL DEFAULT clock_timestamp(),
    completed_at  timestamptz,
    PRIMARY KEY (replica_set, number)
);

-- How each member adopted a generation, by the database's clock; written with its acknowledgement, for the trace command.
-- finished_at, loaded_at: NULL when there was nothing to give, or to take.
CREATE TABLE reactive_orch.adoptions (
    replica_set     text COLLATE "C" NOT NULL,
    generation      bigint           NOT NULL,
    member          integer          NOT NULL,
    wake_source     text             NOT NULL,
    noticed_at      timestamptz      NOT NULL,
    finished_at     timestamptz,
    loaded_at       timestamptz,
    acknowledged_at timestamptz      NOT NULL,
    gave            integer          NOT NULL,
    took            integer          NOT NULL,
    kept            integer          NOT NULL,
    PRIMARY KEY (replica_set, generation, member),
    FOREIGN KEY (replica_set, generation) REFERENCES reactive_orch.generations (replica_set, number) ON DELETE CASCADE
);

-- owners[p + 1] is the member that handles partition p of the log for the projection, 0 for nobody.
CREATE TABLE reactive_orch.assignments (
    replica_set text COLLATE "C" NOT NULL,
    projection  text COLLATE "C" NOT NULL,
    log         text COLLATE "C" NOT NULL,
    owners      integer[]        NOT NULL,
    PRIMARY KEY (replica_set, projection, log)
);

-- The members, and the three signs that one is gone: it is leaving, it is dead, it is stale. The workers' core ranks them and
-- says when they are to be trusted; here, and in change_generation, they are only looked at.
-- Dead: its lock is free, and that proves it. It proves nothing while the server has started, or come back from a crash,
-- after the member's recorded connection (every lock was lost then), nor while its process still has its tail connection:
-- it has lost one connection and is on its way back. A process that dies loses all of them at once. The tail is that of a
-- log in this database: it must be a connection to where the members are, and one that no statement keeps for long.
CREATE VIEW reactive_orch.member_status AS
SELECT m.*,
       l.pid IS NOT NULL                                      AS lock_held,
       extract(epoch FROM clock_timestamp() - m.heartbeat_at) AS heartbeat_age_s,
       d.dead,
       s.stale,
       m.state = 'leaving' OR d.dead OR s.stale               AS gone
FROM reactive_orch.members m
LEFT JOIN pg_locks l
       ON l.locktype = 'advisory'
      AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
      AND l.classid = reactive_orch.lock_namespace()::oid
      AND l.objid = m.id::oid
      AND l.objsubid = 2
      AND l.mode = 'ExclusiveLock'
      AND l.granted
      AND l.pid = m.backend_pid
CROSS JOIN LATERAL (
    SELECT l.pid IS NULL
       AND m.backend_start >= pg_postmaster_start_time()
       -- After a crash the postmaster is the old one, its checkpointer is not (NULL without the right to see it).
       AND m.backend_start >= coalesce((SELECT a.backend_start FROM pg_stat_activity a
                                        WHERE a.backend_type = 'checkpointer'), '-infinity')
       AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.application_name = 'reactive_orch:tail:' || m.name)
           AS dead
) d
CROSS JOIN LATERAL (SELECT clock_timestamp() - m.heartbeat_at > m.stale_after AS stale) s;

-- Waits until a member's lock is free, but no longer than a slice: true when it is. In shared mode, so that a watcher
-- that dies while it waits does not leave the lock taken; a slice ends before deadlock_timeout (1 s), so that
-- log_lock_waits stays silent, and with it the snapshot that would hold back vacuum.
CREATE FUNCTION reactive_orch.await_death(in_member integer) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '900ms' AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(reactive_orch.lock_namespace(), in_member);
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$$;

-- Ends the backends that removed members have left behind: those of a process that was killed in mid-query or is
-- frozen hold rows that others wait for. Only backends of that very process: its name is drawn anew at every start.
-- Without the right to end them the time-outs of their connections do it, later. Returns how many it could not end.
CREATE FUNCTION reactive_orch.terminate_backends(in_names text[]) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    backend record;
    spared  integer := 0;
BEGIN
    FOR backend IN
        SELECT a.pid FROM pg_stat_activity a
        WHERE a.application_name = ANY (ARRAY(SELECT 'reactive_orch:' || k || ':' || n
                                              FROM unnest(in_names) AS n,
                                                   unnest('{membership,watch,tail,coordination,work}'::text[]) AS k))
          AND a.datname = current_database() AND a.pid <> pg_backend_pid()
    LOOP
        BEGIN
            PERFORM pg_terminate_backend(backend.pid);
        EXCEPTION WHEN insufficient_privilege THEN
            spared := spared + 1;
        END;
    END LOOP;
    RETURN spared;
END
$$;

-- A worker's projections, the log that each reads, and their filters, before it joins. One whose recorded filter differs is
-- refused: its checkpoints say nothing about the events that the old filter left out. A new one begins where it is said, from all
-- partitions' point of view at the same position. Returns the refused. What is declared of
-- them is recorded as well, of the refused with what they propose.
CREATE FUNCTION reactive_orch.register_projections(
    in_replica_set text, in_names text[], in_logs text[], in_filters text[], in_declared text[] DEFAULT '{}',
    in_starts text[] DEFAULT '{}')
RETURNS TABLE (projection text, log text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO reactive_orch.replica_sets (name) VALUES (in_replica_set) ON CONFLICT DO NOTHING;
    -- What an earlier projection of this name has left behind, whose row was deleted by hand.
    DELETE FROM reactive_orch.failing_keys k USING unnest(in_names, in_logs) AS w(name, log)
    WHERE k.replica_set = in_replica_set AND k.projection = w.name AND k.log = w.log
      AND NOT EXISTS (SELECT FROM reactive_orch.projections p
                      WHERE p.replica_set = in_replica_set AND p.name = w.name AND p.log = w.log);
    -- Checkpoints come with their projection and never later: who finds them deleted must not begin at 0 again.
    WITH new AS MATERIALIZED (
        SELECT w.name, w.log, w.filter::jsonb AS filter, coalesce(w.start, 'beginning') AS start
        FROM unnest(in_names, in_logs, in_filters, in_starts) AS w(name, log, filter, start)
        WHERE NOT EXISTS (SELECT FROM reactive_orch.projections p
                          WHERE p.replica_set = in_replica_set AND p.name = w.name AND p.log = w.log)
    ), starts AS MATERIALIZED (  -- once each: to find the end of a busy log takes seconds
        SELECT d.start, d.log, reactive_orch.start_position(d.start, d.log) AS position
        FROM (SELECT DISTINCT n.start, n.log FROM new n) d
    ), added AS (
        INSERT INTO reactive_orch.projections (replica_set, name, log, filter, log_identity, start, start_position)
        SELECT in_replica_set, n.name, n.log, n.filter, reactive_orch.log_identity(n.log), n.start, s.position
        FROM new n JOIN starts s ON s.start = n.start AND s.log = n.log
        ORDER BY n.name COLLATE "C", n.log COLLATE "C"
        ON CONFLICT DO NOTHING RETURNING name, log, epoch, start_position
    )
    INSERT INTO reactive_orch.checkpoints (replica_set, projection, log, partition, epoch, position)
    SELECT in_replica_set, a.name, a.log, g.partition, a.epoch, a.start_position
    FROM added a JOIN reactive_orch.logs s ON s.name = a.log, generate_series(0, s.partitions - 1) AS g(partition)
    ORDER BY a.name, a.log, g.partition
    ON CONFLICT DO NOTHING;

    -- Whoever comes with the recorded filter takes an older proposal back.
    UPDATE reactive_orch.projections p
    SET proposed = nullif(w.filter::jsonb, p.filter),
        proposed_declared = CASE WHEN w.filter::jsonb <> p.filter THEN w.declared::jsonb END,
        declared = CASE WHEN w.filter::jsonb = p.filter THEN coalesce(w.declared::jsonb, p.declared) ELSE p.declared END
    FROM unnest(in_names, in_logs, in_filters, in_declared) AS w(name, log, filter, declared)
    WHERE p.replica_set = in_replica_set AND p.name = w.name AND p.log = w.log
      AND (p.proposed IS DISTINCT FROM nullif(w.filter::jsonb, p.filter)
           OR w.declared::jsonb IS DISTINCT FROM CASE WHEN w.filter::jsonb = p.filter THEN p.declared
                                                      ELSE p.proposed_declared END);

    RETURN QUERY
    SELECT w.name, w.log FROM unnest(in_names, in_logs, in_filters) AS w(name, log, filter)
    JOIN reactive_orch.projections p ON p.replica_set = in_replica_set AND p.name = w.name AND p.log = w.log
    WHERE p.filter <> w.filter::jsonb ORDER BY w.name COLLATE "C", w.log COLLATE "C";
END
$$;

-- A running worker learns that a projection's filter is another one now: it stays for its others.
CREATE FUNCTION reactive_orch.give_up_projection(in_member integer, in_name text, in_projection text, in_log text)
RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    UPDATE reactive_orch.members m
    SET (projections, logs) = (
        SELECT coalesce(array_agg(r.projection ORDER BY r.i), '{}'), coalesce(array_agg(r.log ORDER BY r.i), '{}')
        FROM unnest(m.projections, m.logs) WITH ORDINALITY AS r(projection, log, i)
        WHERE (r.projection, r.log) <> (in_projection, in_log))
    WHERE m.id = in_member AND m.name = in_name
$$;

-- A worker that gave a projection up, or was refused, comes with its filter again when nobody else runs it: so that the word that
-- accepts a filter finds one. Not over another's proposal. Tells whether it does. It asks again and again: while there is nothing to
-- say it writes nothing, and it waits for nobody who has the row, as a rewind has.
CREATE FUNCTION reactive_orch.propose_again(
    in_replica_set text, in_projection text, in_log text, in_filter text, in_declared text)
RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- The row first, as whoever takes it up does: what is looked at then stays so.
    PERFORM FROM reactive_orch.projections p
    WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log
      AND p.proposed IS NULL AND p.filter <> in_filter::jsonb
    FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE reactive_orch.projections p SET proposed = in_filter::jsonb, proposed_declared = in_declared::jsonb
    WHERE p.replica_set = in_replica_set AND p.name = in_projection AND p.log = in_log
      AND NOT EXISTS (SELECT FROM reactive_orch.members m
                      WHERE m.replica_set = in_replica_set AND m.state <> 'leaving'
                        AND (in_projection, in_log) IN (SELECT r.projection, r.log FROM unnest(m.projections, m.logs) AS r(projection, log)));
    RETURN FOUND;
END
$$;

-- And that it is its own again, so that it runs it as well. Then nobody needs a filter back that was given up.
CREATE FUNCTION reactive_orch.take_up_projection(in_member integer, in_name text, in_projection text, in_log text)
RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    UPDATE reactive_orch.projections p
    SET proposed = CASE WHEN p.proposed <> ALL (p.former_filters) THEN p.proposed END,
        proposed_declared = CASE WHEN p.proposed <> ALL (p.former_filters) THEN p.proposed_declared END
    FROM reactive_orch.members m
    WHERE m.id = in_member AND m.name = in_name
      AND p.replica_set = m.replica_set AND p.name = in_projection AND p.log = in_log;
    UPDATE reactive_orch.members m
    SET projections = m.projections || in_projection, logs = m.logs || in_log
    WHERE m.id = in_member AND m.name = in_name
      AND (in_projection, in_log) NOT IN (SELECT r.projection, r.log FROM unnest(m.projections, m.logs) AS r(projection, log))
$$;

-- A worker asks to be admitted: takes its lock ("I live"), then writes its row. Never the other way round: a row
-- without its lock is a dead member. Nobody is notified: the joiner makes the change that admits it, and the heartbeats
-- of the others cover one that dies in between.
CREATE FUNCTION reactive_orch.join_replica_set(
    in_replica_set text, in_name text, in_projections text[], in_logs text[], in_stale_after interval,
    in_known integer[], in_drawn integer[])
RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    member integer;
    locked boolean := false;
BEGIN
    -- Held until it has joined: nobody removes the replica set meanwhile. Nothing waits on the membership connection.
    PERFORM FROM reactive_orch.replica_sets r WHERE r.name = in_replica_set FOR KEY SHARE NOWAIT;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('replica set %L has been removed; a worker that is started makes it anew', in_replica_set);
    END IF;

    -- What this process has joined without ever learning the id: the answer was lost. Nobody works for such a member.
    DELETE FROM reactive_orch.members m
    WHERE m.replica_set = in_replica_set AND m.name = in_name AND (m.id = ANY (in_known)) IS NOT TRUE AND m.state = 'waiting';
    UPDATE reactive_orch.members m SET state = 'leaving'
    WHERE m.replica_set = in_replica_set AND m.name = in_name AND (m.id = ANY (in_known)) IS NOT TRUE AND m.state = 'active';

    -- A standby that is promoted without the tail of the log draws ids anew. Other processes have other names.
    -- And anybody who may connect can hold the lock of an id that nobody has yet: then another id is drawn.
    FOR attempt IN 1..10000 LOOP
        member := nextval('reactive_orch.member_ids');
        CONTINUE WHEN member = ANY (in_drawn);
        locked := pg_try_advisory_lock(reactive_orch.lock_namespace(), member);
        EXIT WHEN locked;
    END LOOP;
    IF NOT locked THEN
        RAISE EXCEPTION USING ERRCODE = 'lock_not_available', MESSAGE = format('other sessions hold the locks of all ids up to %s', member);
    END IF;

    INSERT INTO reactive_orch.members (id, replica_set, name, projections, logs, backend_pid, backend_start, stale_after)
    SELECT member, in_replica_set, in_name, in_projections, in_logs, a.pid, a.backend_start, in_stale_after
    FROM pg_stat_get_activity(pg_backend_pid()) a;
    RETURN member;
END
$$;

-- A worker that lost its connection and has a new one takes its locks again, under the same ids, and records the new
-- backend; where somebody has locked the row its next heartbeats do that. Its old backend may not have noticed yet and
-- still hold the locks: it is ended. Returns the ids whose rows are still there; for the others the worker was removed
-- meanwhile. A row of another name is another process's, which has drawn the same id on a server that had lost the first
-- one.
CREATE FUNCTION reactive_orch.resume_members(in_name text, in_ids integer[]) RETURNS integer[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Its own process's backends have its own rights: this cannot be refused.
    PERFORM pg_terminate_backend(a.pid)
    FROM reactive_orch.members m JOIN pg_stat_activity a ON a.pid = m.backend_pid AND a.backend_start = m.backend_start
    WHERE m.id = ANY (in_ids) AND m.name = in_name AND a.pid <> pg_backend_pid();
    PERFORM pg_advisory_lock(reactive_orch.lock_namespace(), own.id)
    FROM (SELECT m.id FROM reactive_orch.members m WHERE m.id = ANY (in_ids) AND m.name = in_name ORDER BY m.id) own;

    UPDATE reactive_orch.members m
    SET backend_pid = a.pid, backend_start = a.backend_start, heartbeat_at = clock_timestamp()
    FROM pg_stat_get_activity(pg_backend_pid()) a
    WHERE m.id IN (SELECT f.id FROM reactive_orch.members f
                   WHERE f.id = ANY (in_ids) AND f.name = in_name FOR NO KEY UPDATE SKIP LOCKED);
    RETURN ARRAY(SELECT m.id FROM reactive_orch.members m WHERE m.id = ANY (in_ids) AND m.name = in_name);
END
$$;

-- Forgets a projection of a replica set, or all of them and the replica set itself: checkpoints, failing keys and what waits of
-- them, generations. Refused while a worker lives that runs it; one that is cut off and comes back finds nothing to join. Returns
-- how many projections it had, and how many events waited.
CREATE FUNCTION reactive_orch.remove_replica_set(
    in_replica_set text, in_projection text DEFAULT NULL, in_log text DEFAULT 'events',
    OUT projections bigint, OUT waiting bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    living text;
BEGIN
    PERFORM FROM reactive_orch.replica_sets r WHERE r.name = in_replica_set FOR UPDATE;  -- nobody joins, no generation is written
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('there is no replica set %L', in_replica_set);
    END IF;
    SELECT string_agg(DISTINCT m.name, ', ' ORDER BY m.name) INTO living FROM reactive_orch.member_status m
    WHERE m.replica_set = in_replica_set AND (m.lock_held OR NOT m.stale)
      AND (in_projection IS NULL OR (in_projection, in_log) IN (SELECT * FROM unnest(m.projections, m.logs)));
    IF living IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'object_in_use',
            MESSAGE = format('workers run it that live, or did so a moment ago: %s; stop them first', living);
    END IF;
    IF in_projection IS NOT NULL AND EXISTS (
        SELECT FROM reactive_orch.projections p
        WHERE p.replica_set = in_replica_set AND (p.name, p.log) = (in_projection, in_log) AND p.proposed IS NOT NULL)
       AND EXISTS (SELECT FROM reactive_orch.member_status m
                   WHERE m.replica_set = in_replica_set AND (m.lock_held OR NOT m.stale)) THEN
        RAISE EXCEPTION USING ERRCODE = 'object_in_use',
            MESSAGE = format('a worker waits for %L with another filter: accept that by rewind --to keep, or stop it first', in_projection);
    END IF;

    DELETE FROM reactive_orch.checkpoints c
    WHERE c.replica_set = in_replica_set AND (in_projection IS NULL OR (c.projection, c.log) = (in_projection, in_log));
    DELETE FROM reactive_orch.assignments a
    WHERE a.replica_set = in_replica_set AND (in_projection IS NULL OR (a.projection, a.log) = (in_projection, in_log));
    DELETE FROM reactive_orch.suspicions s
    WHERE s.replica_set = in_replica_set AND (in_projection IS NULL OR (s.projection, s.log) = (in_projection, in_log));
    DELETE FROM reactive_orch.markers m
    WHERE m.replica_set = in_replica_set AND (in_projection IS NULL OR (m.projection, m.log) = (in_projection, in_log));
    DELETE FROM reactive_orch.unhandled_events u
    WHERE u.replica_set = in_replica_set AND (in_projection IS NULL OR (u.projection, u.log) = (in_projection, in_log));
    DELETE FROM reactive_orch.discarded_events d
    WHERE d.replica_set = in_replica_set AND (in_projection IS NULL OR (d.projection, d.log) = (in_projection, in_log));
    WITH gone AS (
        DELETE FROM reactive_orch.failing_keys k
        WHERE k.replica_set = in_replica_set AND (in_projection IS NULL OR (k.projection, k.log) = (in_projection, in_log))
        RETURNING k.id
    ) SELECT count(*) INTO waiting FROM gone JOIN reactive_orch.dead_letters d ON d.key = gone.id;
    DELETE FROM reactive_orch.projections p
    WHERE p.replica_set = in_replica_set AND (in_projection IS NULL OR (p.name, p.log) = (in_projection, in_log));
    GET DIAGNOSTICS projections = ROW_COUNT;
    IF in_projection IS NULL THEN
        DELETE FROM reactive_orch.members m WHERE m.replica_set = in_replica_set;
        DELETE FROM reactive_orch.generations g WHERE g.replica_set = in_replica_set;  -- and with them the adoptions
        DELETE FROM reactive_orch.replica_sets r WHERE r.name = in_replica_set;
    ELSIF projections = 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('replica set %L has no projection %L', in_replica_set, in_projection);
    END IF;
END
$$;

-- The members of a replica set that are not dead, and whether one has died that may have had in hand what it was to give. These
-- are functions, and not inlined: batches of suspect partitions alone pay for planning the view.
CREATE FUNCTION reactive_orch.living_members(in_replica_set text) RETURNS TABLE (name text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT m.name FROM reactive_orch.member_status m WHERE m.replica_set = in_replica_set AND NOT m.dead
$$;

CREATE FUNCTION reactive_orch.died_giving(in_replica_set text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM reactive_orch.member_status m JOIN reactive_orch.replica_sets r ON r.name = m.replica_set
                   WHERE m.replica_set = in_replica_set AND m.state = 'active' AND m.dead AND m.acknowledged < r.generation)
$$;

-- The only writer of generations. Optimistic: whoever computed the change did so from generation in_after and holds no
-- lock meanwhile; here, in one statement, it is checked again and written whole or not at all. NULL: read again.
-- in_owners has the owners of in_projections[i] on in_logs[i] one after the other, as many each as that log has partitions;
-- in_noticed_s is how long ago the initiator noticed what this generation is about. A generation without members is
-- complete as it is written. `overtaken`: the one before was not complete.
CREATE FUNCTION reactive_orch.change_generation(
    in_replica_set text, in_after bigint, in_reason text, in_subjects integer[], in_traceparent text,
    in_admit integer[], in_remove integer[], in_projections text[], in_logs text[], in_owners integer[],
    in_moved integer, in_initiator integer, in_wake_source text, in_noticed_s float8,
    OUT number bigint, OUT created_at timestamptz, OUT overtaken boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    members integer[];
    widths  integer[] := ARRAY(SELECT s.partitions
                               FROM unnest(in_projections, in_logs) WITH ORDINALITY AS w(projection, log, i)
                               LEFT JOIN reactive_orch.logs s ON s.name = w.log ORDER BY w.i);
BEGIN
    IF array_position(widths, NULL) IS NOT NULL
       OR cardinality(in_owners) <> (SELECT coalesce(sum(w), 0) FROM unnest(widths) AS w) THEN
        RAISE EXCEPTION 'the owners must be as many as the partitions, which are %', widths
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM FROM reactive_orch.replica_sets r
    WHERE r.name = in_replica_set AND r.generation = in_after FOR NO KEY UPDATE;
    IF NOT FOUND
       OR EXISTS (SELECT FROM reactive_orch.member_status m
                  WHERE m.id = ANY (in_remove) AND NOT (m.gone AND m.replica_set = in_replica_set))
       OR (SELECT count(*)
           FROM (SELECT FROM reactive_orch.members m  -- locked: whoever waits may withdraw just now
                 WHERE m.id = ANY (in_admit) AND m.replica_set = in_replica_set AND m.state = 'waiting'
                 FOR NO KEY UPDATE) w) <> cardinality(in_admit)
    THEN
        RETURN;
    END IF;
    number := in_after + 1;
    created_at := clock_timestamp();
    overtaken := EXISTS (SELECT FROM reactive_orch.generations g
                         WHERE g.replica_set = in_replica_set AND g.number = in_after AND g.completed_at IS NULL);

    -- Whoever goes without a word may have been ended by an event: of what it owned, or of what it had not given yet, whose
    -- owner has not adopted the generation either. Only rows that are missing are written: one that is there may be locked by
    -- a batch, and no change waits for a handler.
    WITH lost AS (
        SELECT m.id, m.acknowledged < in_after AS gives, l.projection, l.log
        FROM reactive_orch.members m LEFT JOIN LATERAL unnest(m.projections, m.logs) AS l(projection, log) ON true
        WHERE m.id = ANY (in_remove) AND m.state <> 'leaving'
    )
    INSERT INTO reactive_orch.suspicions (replica_set, projection, log, partition)
    SELECT DISTINCT in_replica_set, a.projection, a.log, o.number - 1
    FROM reactive_orch.assignments a
    CROSS JOIN LATERAL unnest(a.owners) WITH ORDINALITY AS o(member, number)
    JOIN reactive_orch.members m ON m.id = o.member
    JOIN lost l ON l.id = o.member OR l.gives AND m.acknowledged < in_after AND l.projection = a.projection AND l.log = a.log
    WHERE a.replica_set = in_replica_set
      AND NOT EXISTS (SELECT FROM reactive_orch.suspicions s
                      WHERE s.replica_set = in_replica_set AND s.projection = a.projection AND s.log = a.log
                        AND s.partition = o.number - 1)
    ON CONFLICT DO NOTHING;

    DELETE FROM reactive_orch.members m WHERE m.id = ANY (in_remove);
    UPDATE reactive_orch.members m SET state = 'active' WHERE m.id = ANY (in_admit);
    UPDATE reactive_orch.replica_sets r SET generation = in_after + 1 WHERE r.name = in_replica_set;

    INSERT INTO reactive_orch.assignments (replica_set, projection, log, owners)
    SELECT in_replica_set, w.projection, w.log, in_owners[w.last - w.width + 1 : w.last]
    FROM (SELECT p.projection, p.log, p.width, sum(p.width) OVER (ORDER BY p.i) AS last
          FROM unnest(in_projections, in_logs, widths) WITH ORDINALITY AS p(projection, log, width, i)) w
    ON CONFLICT (replica_set, projection, log) DO UPDATE SET owners = excluded.owners;

    members := ARRAY(SELECT m.id FROM reactive_orch.members m
                     WHERE m.replica_set = in_replica_set AND m.state <> 'waiting' ORDER BY m.id);
    INSERT INTO reactive_orch.generations (replica_set, number, reason, subjects, members, moved, traceparent, initiator,
                                           wake_source, noticed_at, created_at, completed_at)
    SELECT in_replica_set, in_after + 1, in_reason, in_subjects, members, in_moved, in_traceparent, in_initiator,
           in_wake_source, w.at - make_interval(secs => in_noticed_s), w.at, CASE members WHEN '{}' THEN w.at END
    FROM (SELECT created_at AS at) w;
    DELETE FROM reactive_orch.generations g WHERE g.replica_set = in_replica_set AND g.number <= in_after - 1000;

    PERFORM reactive_orch.notify('reactive_orch_generations', in_replica_set);
END
$$;

-- A member has adopted a generation, this is how. Under the replica set's row, since two last ones must see each other;
-- the last one completes it and gets the summary. No row: the generation is not the present one any more, or this is no
-- member of it.
CREATE FUNCTION reactive_orch.acknowledge(
    in_replica_set text, in_member integer, in_name text, in_generation bigint, in_wake_source text,
    in_total_s float8, in_finish_s float8, in_load_s float8, in_gave integer, in_took integer, in_kept integer)
RETURNS TABLE (notify_s float8, completed_at timestamptz, slowest integer, kept integer,
               notify_max_s float8, finish_max_s float8, load_max_s float8)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    noticed timestamptz := clock_timestamp() - make_interval(secs => in_total_s);
    completed timestamptz;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);  -- what a crash takes back is acknowledged again
    PERFORM FROM reactive_orch.replica_sets r
    WHERE r.name = in_replica_set AND r.generation = in_generation FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE reactive_orch.members m SET acknowledged = in_generation
    WHERE m.id = in_member AND m.name = in_name AND m.replica_set = in_replica_set AND m.state <> 'waiting';
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO reactive_orch.adoptions (replica_set, generation, member, wake_source, noticed_at, finished_at, loaded_at,
                                         acknowledged_at, gave, took, kept)
    SELECT in_replica_set, in_generation, in_member, in_wake_source, noticed, noticed + make_interval(secs => in_finish_s),
           noticed + make_interval(secs => in_load_s), clock_timestamp(), in_gave, in_took, in_kept
    ON CONFLICT DO NOTHING;
    UPDATE reactive_orch.generations g SET completed_at = clock_timestamp()
    WHERE g.replica_set = in_replica_set AND g.number = in_generation AND g.completed_at IS NULL
      AND NOT EXISTS (SELECT FROM reactive_orch.members m
                      WHERE m.replica_set = in_replica_set AND m.state <> 'waiting' AND m.acknowledged < in_generation)
    RETURNING g.completed_at INTO completed;
    RETURN QUERY
    SELECT extract(epoch FROM noticed - g.created_at)::float8, completed, s.slowest, s.kept, s.notify, s.finish, s.load
    FROM reactive_orch.generations g
    LEFT JOIN LATERAL (
        SELECT (array_agg(a.member ORDER BY a.acknowledged_at DESC))[1] AS slowest, sum(a.kept)::integer AS kept,
               max(extract(epoch FROM a.noticed_at - g.created_at))::float8 AS notify,
               max(extract(epoch FROM a.finished_at - a.noticed_at))::float8 AS finish,
               max(extract(epoch FROM a.loaded_at - a.noticed_at))::float8 AS load
        FROM reactive_orch.adoptions a
        WHERE a.replica_set = in_replica_set AND a.generation = in_generation
    ) s ON completed IS NOT NULL
    WHERE g.replica_set = in_replica_set AND g.number = in_generation;
END
$$;

-- Takes from PUBLIC, for `migrate`, whatever it may do with the schema and what is in it, and returns with what that was. A new
-- function is everybody's to call, and what an owner has set as default privileges may give more.
CREATE FUNCTION reactive_orch.close_to_public() RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    closed text[] := '{}';
    found  text;
BEGIN
    FOR found IN
        SELECT 'SCHEMA reactive_orch' FROM pg_namespace n, aclexplode(n.nspacl) a
        WHERE n.oid = 'reactive_orch'::regnamespace AND a.grantee = 0
        UNION
        SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::regclass
        FROM pg_class c
        CROSS JOIN LATERAL (SELECT FROM aclexplode(c.relacl) a WHERE a.grantee = 0
                            UNION ALL
                            SELECT FROM pg_attribute t, aclexplode(t.attacl) a WHERE t.attrelid = c.oid AND a.grantee = 0) open
        WHERE c.relnamespace = 'reactive_orch'::regnamespace
        UNION
        SELECT 'ROUTINE ' || p.oid::regprocedure
        FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
        WHERE p.pronamespace = 'reactive_orch'::regnamespace AND a.grantee = 0
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', found);
        closed := closed || found;
    END LOOP;
    RETURN closed;
END
$$;

-- --------------------------------------------------------------- the demo

-- What the built-in projection shows. Keyed by partition too, so that two workers never wait for each other's rows.
CREATE TABLE reactive_orch.event_counts (
    event_type text COLLATE "C" NOT NULL,
    partition  smallint         NOT NULL,
    events     bigint           NOT NULL,
    PRIMARY KEY (event_type, partition)
) WITH (fillfactor = 50);
