-- For looks that need not read the locks of the whole server.

-- To look at the bodies of functions takes locks of the tables in them, for which whoever has locked the log is waited for.
SET LOCAL check_function_bodies = off;

-- What observe_log() says, by whoever knows up to where the log is settled. If every position from there to the head has a row,
-- nobody can still commit one of them: then there are no holders to be looked for, and nobody among them stands in line for
-- the lock of NOTIFY. To look for them takes a time that grows with the connections that the server allows, and with the locks
-- that anybody holds in any database. The head comes first here, too: the rows are read in a snapshot of their own. Not a
-- second observe_log(): GRANT names that without arguments.
CREATE OR REPLACE FUNCTION reactive_orch.observe_log_from(
    in_log text, in_settled bigint,
    OUT head bigint, OUT holders text[], OUT prepared text[], OUT disarmed boolean, OUT queue integer, OUT flaw text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    whole boolean;
BEGIN
    SELECT coalesce(pg_sequence_last_value(s.sequence), 0) INTO head FROM reactive_orch.logs s WHERE s.name = in_log;
    whole := head = in_settled;
    IF head > in_settled AND head - in_settled <= 100 THEN
        whole := (SELECT count(*) FROM reactive_orch.event_log e
                  WHERE e.log = in_log AND e.global_position > in_settled AND e.global_position <= head) = head - in_settled;
    END IF;
    IF whole IS NOT TRUE THEN
        SELECT o.* INTO head, holders, prepared, disarmed, queue, flaw FROM reactive_orch.observe_log(in_log) o;
        RETURN;
    END IF;
    holders := '{}';
    prepared := '{}';
    queue := 0;
    BEGIN
        disarmed := coalesce(pg_sequence_last_value('reactive_orch.bell'::regclass) = 0, false);
    EXCEPTION WHEN OTHERS THEN
        disarmed := false;  -- arm_bell says what is wrong with it
    END;

    -- Last, and as observe_log() does it.
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
