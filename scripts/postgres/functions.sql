-- Functions for edges, the platform and operators.
--
-- They run as pat_owner with a fixed search path. Pass tokens and peppers as bound parameters, never in the text of a
-- statement, which PostgreSQL may log (log_statement, pg_stat_statements).

---------------------------------------------------------------------------------------------------------------------
-- For edges
---------------------------------------------------------------------------------------------------------------------

-- The state of the source. A number (seq) is meaningful only within an epoch, which is
--
--     cluster - timeline - database - oid of pat.token - pat.history.epoch with pat.catch_ups
--
-- so that another cluster, a promoted standby (which may lack the last commits), a copy of the database and a restored
-- dump have other epochs. A standby has the epoch of its primary: it cannot query the timeline that it follows without
-- more privileges, but the primary records its timeline with its first change, and the control file's timeline is never
-- newer than the data that can be read.
--
-- position is the highest number in the caller's snapshot. An edge whose cursor is below horizon may have missed
-- deletions whose tombstones were dropped, and needs a snapshot.
--
-- unnumbered is true if there are changes without a number, which no edge receives, or if the next numbers would be too
-- low: pat.number_found() repairs both. triggers lists the triggers that differ from pat.wanted_triggers(), so that
-- changes may be missed. In both cases, edges must not claim to be up to date.
DO $$
BEGIN
    IF (SELECT pronargs = 0 AND cardinality(proallargtypes) < 7 FROM pg_proc
        WHERE oid = to_regprocedure('pat.source()')) THEN
        DROP FUNCTION pat.source();
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION pat.source(OUT epoch text, OUT "position" bigint, OUT horizon bigint, OUT key_id text,
    OUT is_standby boolean, OUT unnumbered boolean, OUT triggers text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    history pat.history;
    timeline text;
    catch_ups bigint;
BEGIN
    SELECT * INTO STRICT history FROM pat.history;
    "position" := pat.position();

    -- Read in this order, the reverse of that in pat.catch_up().
    unnumbered := pat.last_number() < "position";
    SELECT last_value INTO STRICT catch_ups FROM pat.catch_ups;

    is_standby := pg_is_in_recovery();
    IF is_standby THEN
        timeline := greatest(
            history.timeline,
            (SELECT lpad(upper(to_hex(timeline_id)), 8, '0') FROM pg_control_checkpoint()),
            (SELECT lpad(upper(to_hex(min_recovery_end_timeline)), 8, '0') FROM pg_control_recovery()));
    ELSE
        timeline := left(pg_walfile_name(pg_current_wal_lsn()), 8);
    END IF;

    epoch := concat_ws('-',
                       (SELECT lpad(to_hex(system_identifier), 16, '0') FROM pg_control_system()),
                       lower(ltrim(timeline, '0')),
                       (SELECT to_hex(oid::bigint) FROM pg_database WHERE datname = current_database()),
                       to_hex('pat.token'::regclass::oid::bigint),
                       CASE WHEN catch_ups = 0 THEN history.epoch
                            ELSE left(encode(sha256(convert_to(history.epoch || catch_ups, 'UTF8')), 'hex'), 12) END);
    horizon := history.horizon;
    key_id := encode(history.key_id, 'hex');
    unnumbered := unnumbered
        OR EXISTS (SELECT FROM pat.token WHERE NOT is_numbered)
        OR EXISTS (SELECT FROM pat.tombstone WHERE seq IS NULL);
    triggers := (SELECT string_agg(format('%s on pat.%s', wrong.name, wrong.relation), ', '
                                   ORDER BY wrong.relation, wrong.name)
                 FROM pat.wrong_triggers() AS wrong WHERE wrong.name NOT LIKE 'audit%');
END
$$;

-- Returns up to 500 digests of changes without a number. On a primary, these are numbered when this transaction
-- commits, and nothing is locked until then, except those that another transaction is changing or has prepared. So a
-- digest that this call returns and the next one does not has got its number.
CREATE OR REPLACE FUNCTION pat.number_found()
RETURNS bytea[] LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    found bytea[];
BEGIN
    -- The inner limits avoid reading more rows than are returned.
    found := ARRAY((SELECT digest FROM pat.token WHERE NOT is_numbered ORDER BY digest LIMIT 500)
                   UNION (SELECT digest FROM pat.tombstone WHERE seq IS NULL ORDER BY digest LIMIT 500)
                   ORDER BY digest LIMIT 500);
    IF (cardinality(found) > 0 OR pat.last_number() < pat.position())
        AND current_setting('transaction_read_only') = 'off' THEN
        INSERT INTO pat.request DEFAULT VALUES;
    END IF;
    RETURN found;
END
$$;

-- The "put" line of a token for "patctl apply"; NULL while the token has no number. Without SET, so that the planner
-- can inline it. Ids, scopes and address ranges have no characters that JSON escapes: see pat.check_token().
CREATE OR REPLACE FUNCTION pat.put_line(token pat.token)
RETURNS text LANGUAGE sql STABLE
AS $$
    SELECT CASE WHEN token.seq IS NOT NULL THEN
           concat('{"op":"put","seq":', token.seq,
                  ',"digest":"', encode(token.digest, 'hex'),
                  '","id":"', token.id,
                  '","subject":', to_json(token.subject),
                  CASE WHEN token.name <> '' THEN ',"name":' || to_json(token.name) END,
                  CASE WHEN cardinality(token.scopes) > 0
                       THEN ',"scopes":["' || array_to_string(token.scopes, '","') || '"]' END,
                  CASE WHEN cardinality(token.cidrs) > 0
                       THEN ',"cidrs":["' || array_to_string(token.cidrs, '","') || '"]' END,
                  ',"issued_at":', floor(date_part('epoch', token.issued_at))::bigint,
                  ',"not_before":' || ceil(date_part('epoch', token.not_before))::bigint,
                  ',"expires_at":' || floor(date_part('epoch', token.expires_at))::bigint,
                  ',"revoked_at":' || floor(date_part('epoch', token.revoked_at))::bigint,
                  CASE WHEN token.claims <> '{}' THEN ',"claims":' || token.claims::text END,
                  '}') END
$$;

CREATE OR REPLACE FUNCTION pat.delete_line(tombstone pat.tombstone)
RETURNS text LANGUAGE sql STABLE
AS $$
    SELECT '{"op":"delete","seq":' || tombstone.seq || ',"digest":"' || encode(tombstone.digest, 'hex') || '"}'
$$;

-- The changes after a number, in order, each as a line for "patctl apply". With only_revocations, only revoked tokens
-- and deletions.
--
-- The settings make each session keep one plan, which uses the indexes: planning takes longer than reading a few rows.
CREATE OR REPLACE FUNCTION pat.changes(after bigint, "limit" integer, only_revocations boolean DEFAULT false)
RETURNS TABLE (seq bigint, digest bytea, change text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    IF (changes.after >= (SELECT horizon FROM pat.history)) IS NOT TRUE THEN
        -- The code is "snapshot too old", a name that PostgreSQL 17 has no more.
        RAISE EXCEPTION 'some changes after % are no longer available', changes.after
            USING ERRCODE = '72000', HINT = 'Start over with pat.snapshot().';
    END IF;

    -- The inner limits let the planner merge both in order, and stop early.
    IF changes.only_revocations THEN
        RETURN QUERY
            (SELECT token.seq, token.digest, pat.put_line(token) FROM pat.token
             WHERE token.seq > changes.after AND token.revoked_at IS NOT NULL
             ORDER BY token.seq LIMIT changes."limit")
            UNION ALL
            (SELECT tombstone.seq, tombstone.digest, pat.delete_line(tombstone) FROM pat.tombstone
             WHERE tombstone.seq > changes.after ORDER BY tombstone.seq LIMIT changes."limit")
            ORDER BY 1 LIMIT changes."limit";
    ELSE
        RETURN QUERY
            (SELECT token.seq, token.digest, pat.put_line(token) FROM pat.token
             WHERE token.seq > changes.after ORDER BY token.seq LIMIT changes."limit")
            UNION ALL
            (SELECT tombstone.seq, tombstone.digest, pat.delete_line(tombstone) FROM pat.tombstone
             WHERE tombstone.seq > changes.after ORDER BY tombstone.seq LIMIT changes."limit")
            ORDER BY 1 LIMIT changes."limit";
    END IF;
END
$$;

-- All tokens after a digest, ordered by digest. Read all pages of a snapshot in one REPEATABLE READ transaction,
-- together with pat.source(). Tokens without a number are left out, so that edges deny them: see pat.source().
CREATE OR REPLACE FUNCTION pat.snapshot(after bytea DEFAULT '', "limit" integer DEFAULT NULL)
RETURNS TABLE (digest bytea, change text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT token.digest, pat.put_line(token) FROM pat.token
        WHERE token.digest > coalesce(snapshot.after, '') AND token.seq IS NOT NULL
        ORDER BY token.digest LIMIT snapshot."limit";
END
$$;

-- Whether a change that an edge has, identified by its number and at least 8 hexadecimal digits of its digest, belongs
-- to this history. After a restore from an older copy it does not: its digest has no change with that number or a later
-- one, or another digest has that number. This is a heuristic, as only the last change of a digest is kept: it fails if
-- both the digest and the one that was given its number have changed since the restore. To be sure, call
-- pat.new_epoch() after a restore.
CREATE OR REPLACE FUNCTION pat.continues(seq bigint, digest_prefix text)
RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    lowest bytea;
    highest bytea;
    newest bigint;
BEGIN
    IF continues.seq = 0 THEN
        RETURN true;
    END IF;
    IF (continues.digest_prefix COLLATE "C" ~ '^[0-9A-Fa-f]{8,64}$') IS NOT TRUE THEN
        RAISE EXCEPTION 'digest_prefix is not the beginning of a digest'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'It must have 8 to 64 hexadecimal digits.';
    END IF;

    lowest := decode(rpad(continues.digest_prefix, 64, '0'), 'hex');
    highest := decode(rpad(continues.digest_prefix, 64, 'f'), 'hex');
    -- Materialized, as the planner would otherwise walk the index on seq to find the highest.
    WITH found AS MATERIALIZED (
        SELECT token.seq FROM pat.token WHERE token.digest BETWEEN lowest AND highest
        UNION ALL
        SELECT tombstone.seq FROM pat.tombstone WHERE tombstone.digest BETWEEN lowest AND highest)
    SELECT max(found.seq) INTO newest FROM found;
    RETURN coalesce(newest, (SELECT horizon FROM pat.history)) >= continues.seq
        AND NOT EXISTS (SELECT FROM pat.token
                        WHERE token.seq = continues.seq AND token.digest NOT BETWEEN lowest AND highest)
        AND NOT EXISTS (SELECT FROM pat.tombstone
                        WHERE tombstone.seq = continues.seq AND tombstone.digest NOT BETWEEN lowest AND highest);
END
$$;

-- Converts text to an address; NULL if it is none, such as nginx's "unix:" for a client on a local socket.
CREATE OR REPLACE FUNCTION pat.to_address(text text)
RETURNS inet LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pat, pg_temp SET exit_on_error = off
AS $$
BEGIN
    RETURN to_address.text::inet;
EXCEPTION WHEN invalid_text_representation THEN
    RETURN NULL;
END
$$;

-- Records a batch of uses since the edge's previous one:
--
--     [{"id": "pat_…", "at": 1798761600, "from": "203.0.113.7", "count": 3}, …]
--
-- and returns the number of tokens in it. A batch whose number is not higher than the edge's last one was recorded
-- before and is ignored; each login has its own edges. The count of an element is limited to 1 to 1,000,000. Invalid
-- elements are ignored: unknown ids, invalid times or counts, and elements with a backslash, which no id or address
-- contains. uses is json, as jsonb would refuse the whole batch for one string with a NUL.
--
-- Locks are taken when the transaction commits, so that an edge with an open transaction blocks nobody. A login has at
-- most 1,000 edges; a new one replaces the one that has not reported for longest.
--
-- An edge that crashes or loses its connection continues from pat.last_batch(). This is safe as long as a number always
-- stands for the same uses: a late batch is recorded once, whether the original or its repetition arrives first.
CREATE OR REPLACE FUNCTION pat.record_use(edge text, batch bigint, uses json)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    -- Fits into float8.
    number_form CONSTANT text COLLATE "C" := '^[0-9]{1,20}([.][0-9]{1,30})?([eE][+]?[0-9]{1,2})?$';
    ids text[];
    used_at timestamptz[];
    used_from inet[];
    times bigint[];
BEGIN
    PERFORM pat.make_durable();

    IF record_use.batch IS NULL OR json_typeof(record_use.uses) IS DISTINCT FROM 'array' THEN
        RAISE EXCEPTION 'batch must be a number, and uses a JSON array'
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'For example [{"id": "pat_1", "at": 1798761600, "count": 3}].';
    END IF;

    IF EXISTS (SELECT FROM pat.edge
               WHERE login = session_user AND name = record_use.edge AND batch >= record_use.batch)
        OR EXISTS (SELECT FROM pat.use_report AS report
                   WHERE login = session_user AND report.edge = record_use.edge
                     AND report.batch >= record_use.batch) THEN
        RETURN 0;
    END IF;

    -- Times in the future are cut off. CASE guarantees that values are checked before they are converted; WHERE does
    -- not.
    SELECT array_agg(id), array_agg(latest), array_agg(latest_from), array_agg(sum)
    INTO ids, used_at, used_from, times
    FROM (SELECT id, max(at) AS latest, (array_agg(address ORDER BY at DESC))[1] AS latest_from, sum(number)::bigint
          FROM (SELECT used ->> 'id' AS id,
                       least(to_timestamp((used ->> 'at')::double precision), now()) AS at,
                       greatest(least(coalesce((used ->> 'count')::double precision, 1), 1000000), 1)::bigint AS number,
                       pat.to_address(used ->> 'from') AS address
                FROM (SELECT CASE WHEN json_typeof(element) = 'object' AND strpos(element::text, E'\\') = 0
                                  THEN element END
                      FROM json_array_elements(record_use.uses) AS element) AS objects (used)
                WHERE CASE WHEN json_typeof(used -> 'id') = 'string' AND json_typeof(used -> 'at') = 'number'
                                AND used ->> 'at' ~ number_form AND coalesce(used ->> 'count' ~ number_form, true)
                           THEN (used ->> 'at')::double precision BETWEEN 1 AND 253402300799 END) AS good
          WHERE EXISTS (SELECT FROM pat.token WHERE token.id = good.id)
          GROUP BY id) AS sums;

    INSERT INTO pat.use_report (login, edge, batch, ids, used_at, used_from, times)
    VALUES (session_user, record_use.edge, record_use.batch, coalesce(ids, '{}'), coalesce(used_at, '{}'),
            coalesce(used_from, '{}'), coalesce(times, '{}'));
    RETURN coalesce(cardinality(ids), 0);
END
$$;

-- The last batch recorded for an edge of the caller's login; 0 if there is none.
CREATE OR REPLACE FUNCTION pat.last_batch(edge text)
RETURNS bigint LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    RETURN coalesce((SELECT known.batch FROM pat.edge AS known
                     WHERE known.login = session_user AND known.name = last_batch.edge), 0);
END
$$;

---------------------------------------------------------------------------------------------------------------------
-- Creating tokens
---------------------------------------------------------------------------------------------------------------------

-- Random base62 characters, from gen_random_uuid(), which is cryptographically random except for the version bits in
-- bytes 6 and 8. Bytes from 248 on are discarded, so that all characters are equally likely.
CREATE OR REPLACE FUNCTION pat.random_base62(length integer)
RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pat, pg_temp
AS $$
DECLARE
    base62 CONSTANT text := '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
    result text := '';
    bytes bytea;
    byte integer;
BEGIN
    LOOP
        bytes := uuid_send(gen_random_uuid());
        FOREACH byte IN ARRAY ARRAY[0, 1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 13, 14, 15] LOOP
            IF octet_length(result) = random_base62.length THEN
                RETURN result;
            END IF;
            byte := get_byte(bytes, byte);
            IF byte < 248 THEN
                result := result || substr(base62, byte % 62 + 1, 1);
            END IF;
        END LOOP;
    END LOOP;
END
$$;

-- The checksum at the end of a token: zlib's CRC-32 as 6 base62 digits.
CREATE OR REPLACE FUNCTION pat.checksum(of text)
RETURNS text LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pat, pg_temp
AS $$
DECLARE
    base62 CONSTANT text := '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
    polynomial CONSTANT bigint := x'edb88320'::bigint;
    ones CONSTANT bigint := x'ffffffff'::bigint;
    bytes CONSTANT bytea := convert_to(checksum.of, 'UTF8');
    crc bigint := ones;
    result text := '';
BEGIN
    FOR i IN 0 .. octet_length(bytes) - 1 LOOP
        crc := crc # get_byte(bytes, i);
        FOR bit IN 1 .. 8 LOOP
            crc := (crc >> 1) # (polynomial * (crc & 1));
        END LOOP;
    END LOOP;

    crc := crc # ones;
    FOR i IN 1 .. 6 LOOP
        result := substr(base62, (crc % 62)::integer + 1, 1) || result;
        crc := crc / 62;
    END LOOP;
    RETURN result;
END
$$;

-- RFC 2104, with a key of at most 64 bytes.
CREATE OR REPLACE FUNCTION pat.hmac_sha256(key bytea, message bytea)
RETURNS bytea LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pat, pg_temp
AS $$
DECLARE
    inner_pad bytea := decode(repeat('36', 64), 'hex');
    outer_pad bytea := decode(repeat('5c', 64), 'hex');
BEGIN
    FOR i IN 0 .. octet_length(hmac_sha256.key) - 1 LOOP
        inner_pad := set_byte(inner_pad, i, get_byte(inner_pad, i) # get_byte(hmac_sha256.key, i));
        outer_pad := set_byte(outer_pad, i, get_byte(outer_pad, i) # get_byte(hmac_sha256.key, i));
    END LOOP;
    RETURN sha256(outer_pad || sha256(inner_pad || hmac_sha256.message));
END
$$;

CREATE OR REPLACE FUNCTION pat.key_id_of(pepper bytea)
RETURNS bytea LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    IF (octet_length(key_id_of.pepper) BETWEEN 32 AND 64) IS NOT TRUE THEN
        RAISE EXCEPTION 'a pepper must have 32 to 64 bytes'
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'To convert hexadecimal digits, use decode(…, ''hex'').';
    END IF;
    RETURN substr(sha256('nginx-auth-pat pepper'::bytea || key_id_of.pepper), 1, 8);
END
$$;

-- The signatures in earlier versions.
DROP FUNCTION IF EXISTS
    pat.issue(text, text, text[], timestamptz, text[], timestamptz, jsonb, text, bytea, bytea, text),
    pat.rotate(text, interval, bytea, bytea, text, text),
    pat.revoke(text),
    pat.revoke_subject(text, timestamptz);

-- An IPv4-mapped range as the IPv4 range that edges make of it; others as they are.
CREATE OR REPLACE FUNCTION pat.unmapped(range cidr)
RETURNS cidr LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    IF family(range) = 6 AND range <<= '::ffff:0:0/96' THEN
        RETURN (substr(host(range), 8) || '/' || masklen(range) - 96)::cidr;
    END IF;
    RETURN range;
END
$$;

-- This function and the following ones have no SET, which would cost more than what they do: only functions with a
-- fixed search path call them.
CREATE OR REPLACE FUNCTION pat.find_policy(subject text)
RETURNS pat.policy LANGUAGE plpgsql STABLE
AS $$
DECLARE
    found pat.policy;
BEGIN
    SELECT policy.* INTO STRICT found FROM pat.policy
    WHERE policy.class = coalesce((SELECT member.class FROM pat.subject_class AS member
                                   WHERE member.subject = find_policy.subject), 'default');
    RETURN found;
END
$$;

-- Locks the subject of a token that is about to be created, and returns the policy. If the number of tokens is limited,
-- the subject is locked alone, so that two transactions cannot both create the last one; and the second must see the
-- token of the first, which requires READ COMMITTED.
CREATE OR REPLACE FUNCTION pat.lock_policy(subject text)
RETURNS pat.policy LANGUAGE plpgsql
AS $$
DECLARE
    found CONSTANT pat.policy := pat.find_policy(lock_policy.subject);
BEGIN
    IF found.most_tokens IS NOT NULL
        AND current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'the policy "%" limits the number of tokens, which could be missed at isolation level %',
            found.class, upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'feature_not_supported',
                HINT = 'Start the transaction with BEGIN ISOLATION LEVEL READ COMMITTED.';
    END IF;
    PERFORM pat.lock_subject(lock_policy.subject, alone => found.most_tokens IS NOT NULL);
    RETURN found;
END
$$;

-- Raises an error for a new token that the policy does not allow. The constraint in the error tells the rules apart.
-- A lifetime may be longer by a twenty-fourth, but at most by an hour: a day can have 25 hours, and the caller's clock
-- may be ahead.
CREATE OR REPLACE FUNCTION pat.check_policy(policy pat.policy, scopes text[], cidrs cidr[], expires_at timestamptz)
RETURNS void LANGUAGE plpgsql
AS $$
DECLARE
    latest CONSTANT timestamptz := now() + make_interval(secs => date_part('epoch', policy.longest_lifetime));
    rule text;
    problem text;
    hint text;
    bad text;
BEGIN
    IF check_policy.expires_at IS NULL AND (policy.expiry_demanded OR latest IS NOT NULL) THEN
        rule := 'policy_lifetime';
        problem := format('the policy "%s" demands that a token expires', policy.class);
        hint := 'Set expires_at' || coalesce(format(', to %s at the latest.', latest), '.');
    ELSIF check_policy.expires_at > latest + least(policy.longest_lifetime / 24, interval '1 hour') THEN
        rule := 'policy_lifetime';
        problem := format('the policy "%s" allows no token to live longer than %s', policy.class,
                          policy.longest_lifetime);
        hint := format('Set expires_at to %s at the latest.', latest);
    END IF;

    IF problem IS NULL AND policy.scopes IS NOT NULL THEN
        bad := (SELECT scope FROM unnest(check_policy.scopes) AS scope WHERE scope <> ALL (policy.scopes) LIMIT 1);
        IF bad IS NOT NULL THEN
            rule := 'policy_scopes';
            problem := format('the policy "%s" does not allow the scope "%s"', policy.class, bad);
            hint := coalesce('It allows: ' || nullif(array_to_string(policy.scopes, ', '), '') || '.',
                             'It allows no scope.');
        END IF;
    END IF;

    IF problem IS NULL AND policy.cidrs IS NOT NULL THEN
        IF cardinality(check_policy.cidrs) = 0 THEN
            check_policy.cidrs := '{0.0.0.0/0,::/0}';
            problem := format('the policy "%s" does not allow a token for every address', policy.class);
        END IF;
        bad := (SELECT range FROM unnest(check_policy.cidrs) AS range
                WHERE NOT EXISTS (SELECT FROM unnest(policy.cidrs) AS allowed
                                  WHERE pat.unmapped(range) <<= pat.unmapped(allowed)) LIMIT 1);
        IF bad IS NULL THEN
            problem := NULL;
        ELSE
            rule := 'policy_cidrs';
            problem := coalesce(problem, format('the policy "%s" does not allow the address range %s',
                                                policy.class, bad));
            hint := format('Set cidrs to ranges within %s.', array_to_string(policy.cidrs, ', '));
        END IF;
    END IF;

    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%', problem
            USING ERRCODE = 'check_violation', HINT = hint, SCHEMA = 'pat', TABLE = 'policy', CONSTRAINT = rule;
    END IF;
END
$$;

-- The tokens of a subject that count against the limit: those that are, or will be, valid. One that was rotated counts
-- through its replacement, unless that has ended or was rotated, too: so at most twice as many tokens are valid.
CREATE OR REPLACE FUNCTION pat.count_tokens(subject text)
RETURNS bigint LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN (
        SELECT count(*) FROM pat.token
        WHERE token.subject = count_tokens.subject AND token.revoked_at IS NULL
            AND (token.expires_at > now()) IS NOT FALSE
            AND NOT EXISTS (SELECT FROM pat.token AS replacement
                            WHERE replacement.id = token.replaced_by AND replacement.subject = token.subject
                                AND replacement.revoked_at IS NULL AND (replacement.expires_at > now()) IS NOT FALSE
                                AND replacement.replaced_by IS NULL));
END
$$;

-- Raises an error if the subject has more tokens than it may; called after a token was created. Not STABLE, as it must
-- see tokens that were committed while pat.lock_policy() waited.
CREATE OR REPLACE FUNCTION pat.check_number(policy pat.policy, subject text)
RETURNS void LANGUAGE plpgsql
AS $$
BEGIN
    IF pat.count_tokens(check_number.subject) > policy.most_tokens THEN
        RAISE EXCEPTION '"%" may have at most % tokens, by the policy "%"',
            check_number.subject, policy.most_tokens, policy.class
            USING ERRCODE = 'check_violation', SCHEMA = 'pat', TABLE = 'policy', CONSTRAINT = 'policy_most_tokens',
                HINT = 'Revoke one that is no longer used. One that was rotated counts, too, once its replacement is'
                    ' rotated or revoked.';
    END IF;
END
$$;

-- Creates a token without regard to the policy.
CREATE OR REPLACE FUNCTION pat.create_token(subject text, name text, scopes text[], expires_at timestamptz,
    cidrs cidr[], not_before timestamptz, claims jsonb, prefix text, pepper bytea, digest bytea, INOUT id text,
    OUT token text)
LANGUAGE plpgsql
AS $$
#variable_conflict use_column
DECLARE
    wanted_key bytea;
BEGIN
    IF create_token.expires_at <= now() THEN
        RAISE EXCEPTION 'the token would already be expired, at %', create_token.expires_at
            USING ERRCODE = 'invalid_parameter_value', HINT = 'For a token that does not expire: expires_at => NULL.';
    END IF;
    IF create_token.not_before >= create_token.expires_at THEN
        RAISE EXCEPTION 'the token would expire at %, before it becomes valid', create_token.expires_at
            USING ERRCODE = 'invalid_parameter_value', HINT = 'not_before must be earlier than expires_at.';
    END IF;
    IF create_token.prefix COLLATE "C" !~ '^[A-Za-z0-9_.-]{1,32}$' THEN
        RAISE EXCEPTION 'a prefix must have 1 to 32 letters, digits, _, - or .'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'For example ropat_.';
    END IF;

    -- pat.use_pepper() waits for this lock, so that no token is created with an outdated pepper.
    LOCK TABLE pat.token IN ROW EXCLUSIVE MODE;

    IF create_token.digest IS NULL OR create_token.pepper IS NOT NULL THEN
        wanted_key := (SELECT key_id FROM pat.history);
        IF wanted_key IS NULL AND create_token.pepper IS NOT NULL THEN
            RAISE EXCEPTION 'the tokens of this database do not use a pepper'
                USING ERRCODE = 'invalid_parameter_value', HINT = 'To introduce one, call pat.use_pepper().';
        ELSIF wanted_key IS NOT NULL AND create_token.pepper IS NULL THEN
            RAISE EXCEPTION 'the tokens of this database require a pepper'
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass it: pepper => ….';
        ELSIF create_token.pepper IS NOT NULL AND pat.key_id_of(create_token.pepper) <> wanted_key THEN
            RAISE EXCEPTION 'the tokens of this database use another pepper'
                USING ERRCODE = 'invalid_parameter_value',
                    HINT = format('Pass the one with the id %s.', encode(wanted_key, 'hex'));
        END IF;
    END IF;

    IF create_token.digest IS NULL THEN
        token := create_token.prefix || pat.random_base62(32);
        token := token || pat.checksum(token);
        digest := CASE WHEN create_token.pepper IS NULL THEN sha256(convert_to(token, 'UTF8'))
                       ELSE pat.hmac_sha256(create_token.pepper, convert_to(token, 'UTF8')) END;
    END IF;
    id := coalesce(create_token.id, 'pat_' || pat.random_base62(16));

    INSERT INTO pat.token (digest, id, subject, name, scopes, cidrs, issued_at, not_before, expires_at, claims)
    VALUES (create_token.digest, create_token.id, create_token.subject, coalesce(create_token.name, ''),
            create_token.scopes, create_token.cidrs, now(), create_token.not_before, create_token.expires_at,
            coalesce(create_token.claims, '{}'));
END
$$;

-- Creates a token that the policy of its subject allows, and returns it with its id. It cannot be shown again, as only
-- its digest is stored. If the caller passes a digest, the caller has created the token, and NULL is returned instead.
-- With expires_at => NULL, the token never expires; the default is 90 days (in hours, as the length of a day depends on
-- TimeZone). Empty cidrs allow every address. For actor and client, see pat.act_as().
CREATE OR REPLACE FUNCTION pat.issue(subject text, name text DEFAULT '', scopes text[] DEFAULT '{}',
    expires_at timestamptz DEFAULT now() + interval '2160 hours', cidrs text[] DEFAULT '{}',
    not_before timestamptz DEFAULT NULL, claims jsonb DEFAULT '{}', prefix text DEFAULT 'ropat_',
    pepper bytea DEFAULT NULL, digest bytea DEFAULT NULL, INOUT id text DEFAULT NULL, actor text DEFAULT NULL,
    client inet DEFAULT NULL, OUT token text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    before CONSTANT text[] := CASE WHEN num_nonnulls(issue.actor, issue.client) > 0
                                   THEN pat.act_as(issue.actor, issue.client) END;
    new_scopes CONSTANT text[] := coalesce(issue.scopes, '{}');
    new_cidrs CONSTANT cidr[] := coalesce(issue.cidrs, '{}')::cidr[];
    policy CONSTANT pat.policy := pat.lock_policy(issue.subject);
BEGIN
    PERFORM pat.check_policy(policy, new_scopes, new_cidrs, issue.expires_at);
    SELECT created.id, created.token INTO id, token
    FROM pat.create_token(issue.subject, issue.name, new_scopes, issue.expires_at, new_cidrs, issue.not_before,
                          issue.claims, issue.prefix, issue.pepper, issue.digest, issue.id) AS created;
    IF policy.most_tokens IS NOT NULL THEN
        PERFORM pat.check_number(policy, issue.subject);
    END IF;
    IF before IS NOT NULL THEN
        PERFORM pat.act_as_before(before);
    END IF;
END
$$;

-- Creates a token like an existing one, with the same lifetime or the given one, starting now. The old one stays valid
-- for the overlap, but no longer than before. A token that the policy no longer allows is refused, rather than replaced
-- by one that can do less without a word.
CREATE OR REPLACE FUNCTION pat.rotate(INOUT id text, overlap interval DEFAULT '24 hours', pepper bytea DEFAULT NULL,
    digest bytea DEFAULT NULL, prefix text DEFAULT 'ropat_', new_id text DEFAULT NULL, lifetime interval DEFAULT NULL,
    actor text DEFAULT NULL, client inet DEFAULT NULL, OUT token text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp SET timezone = 'UTC'
AS $$
#variable_conflict use_column
DECLARE
    before CONSTANT text[] := CASE WHEN num_nonnulls(rotate.actor, rotate.client) > 0
                                   THEN pat.act_as(rotate.actor, rotate.client) END;
    old pat.token;
    policy pat.policy;
    ends timestamptz;
    rule text;
    hint text;
BEGIN
    IF rotate.overlap IS NULL OR rotate.overlap < interval '0' THEN
        RAISE EXCEPTION 'overlap must not be negative'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'interval ''0'' ends the old token at once.';
    END IF;

    -- Lock the subject before the row, as pat.revoke_subject() does, to avoid deadlocks.
    policy := pat.lock_policy((SELECT token.subject FROM pat.token WHERE token.id = rotate.id));
    SELECT * INTO old FROM pat.token WHERE token.id = rotate.id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no token with the id "%"', rotate.id
            USING ERRCODE = 'no_data_found', HINT = 'The view pat.tokens lists the ids.';
    ELSIF old.revoked_at IS NOT NULL THEN
        RAISE EXCEPTION 'the token "%" is revoked', rotate.id
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Issue a new one with pat.issue().';
    ELSIF old.replaced_by IS NOT NULL THEN
        RAISE EXCEPTION 'the token "%" was replaced by "%"', rotate.id, old.replaced_by
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Rotate the new one.';
    ELSIF old.expires_at <= now() THEN
        RAISE EXCEPTION 'the token "%" has expired', rotate.id
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Issue a new one with pat.issue().';
    END IF;

    ends := now() + coalesce(rotate.lifetime, old.expires_at - old.issued_at);
    BEGIN
        PERFORM pat.check_new(old.subject, old.scopes, old.claims);
        PERFORM pat.check_policy(policy, old.scopes, old.cidrs, ends);
    EXCEPTION WHEN check_violation THEN
        GET STACKED DIAGNOSTICS rule = CONSTRAINT_NAME;
        hint := CASE WHEN rule = 'policy_lifetime'
                     THEN format('Give the new one a lifetime that is allowed%s: pat.rotate(id, lifetime => …).',
                                 ', at most ' || policy.longest_lifetime)
                     ELSE 'Issue a corrected one with pat.issue(…), then revoke this one with pat.revoke(id).' END;
        RAISE EXCEPTION 'the token "%" cannot be rotated, as a new token like it is invalid: %', rotate.id, SQLERRM
            USING ERRCODE = 'check_violation', CONSTRAINT = rule, HINT = hint;
    END;
    SELECT created.id, created.token INTO id, token
    FROM pat.create_token(old.subject, old.name, old.scopes, ends, old.cidrs,
                          CASE WHEN old.not_before > now() THEN old.not_before END, old.claims, rotate.prefix,
                          rotate.pepper, rotate.digest, rotate.new_id) AS created;

    UPDATE pat.token SET expires_at = least(token.expires_at, now() + rotate.overlap), replaced_by = rotate.id
    WHERE token.digest = old.digest;
    IF EXISTS (SELECT FROM pat.token
               WHERE token.digest = old.digest
                   AND (token.replaced_by = rotate.id
                        AND token.expires_at <= least(old.expires_at, now() + rotate.overlap)) IS NOT TRUE) THEN
        RAISE EXCEPTION 'the token "%" is not rotated: a trigger or rule on pat.token kept its row from being written',
            old.id
            USING ERRCODE = 'triggered_action_exception',
                HINT = 'Remove the triggers and rules on pat.token that are not from install.sql: see \d pat.token.';
    END IF;
    IF policy.most_tokens IS NOT NULL THEN
        PERFORM pat.check_number(policy, old.subject);
    END IF;
    IF before IS NOT NULL THEN
        PERFORM pat.act_as_before(before);
    END IF;
END
$$;

---------------------------------------------------------------------------------------------------------------------
-- Revoking and deleting tokens
---------------------------------------------------------------------------------------------------------------------

-- Returns true if this call revoked the token, false if it was revoked before. An unknown id is an error, so that a
-- typo does not look like a revocation; so is a revocation that a foreign trigger or rule prevents.
CREATE OR REPLACE FUNCTION pat.revoke(id text, actor text DEFAULT NULL, client inet DEFAULT NULL)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    before CONSTANT text[] := CASE WHEN num_nonnulls(revoke.actor, revoke.client) > 0
                                   THEN pat.act_as(revoke.actor, revoke.client) END;
    was_written boolean;
BEGIN
    UPDATE pat.token SET revoked_at = now() WHERE token.id = revoke.id AND token.revoked_at IS NULL;
    was_written := FOUND;

    -- A foreign trigger may have deleted the row after the update, which ends the token as well.
    IF NOT was_written AND NOT EXISTS (SELECT FROM pat.token WHERE token.id = revoke.id) THEN
        RAISE EXCEPTION 'there is no token with the id "%"', revoke.id
            USING ERRCODE = 'no_data_found', HINT = 'The view pat.tokens lists the ids.';
    ELSIF EXISTS (SELECT FROM pat.token WHERE token.id = revoke.id AND token.revoked_at IS NULL) THEN
        RAISE EXCEPTION 'the token "%" is not revoked: a trigger or rule on pat.token kept its row from being written',
            revoke.id
            USING ERRCODE = 'triggered_action_exception',
                HINT = 'Remove the triggers and rules on pat.token that are not from install.sql: see \d pat.token.';
    END IF;
    IF before IS NOT NULL THEN
        PERFORM pat.act_as_before(before);
    END IF;
    RETURN was_written;
END
$$;

-- Revokes all tokens of a subject, or those issued before a time, and returns their number. It waits for transactions
-- that create tokens of the subject and must see their result, which requires READ COMMITTED. If its transaction has
-- changed tokens of the subject before, a deadlock is possible, and one of the transactions fails.
CREATE OR REPLACE FUNCTION pat.revoke_subject(subject text, issued_before timestamptz DEFAULT NULL,
    actor text DEFAULT NULL, client inet DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    before CONSTANT text[] := CASE WHEN num_nonnulls(revoke_subject.actor, revoke_subject.client) > 0
                                   THEN pat.act_as(revoke_subject.actor, revoke_subject.client) END;
    revoked bigint;
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'pat.revoke_subject() could miss tokens at isolation level %',
            upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'feature_not_supported',
                HINT = 'Start the transaction with BEGIN ISOLATION LEVEL READ COMMITTED.';
    END IF;
    PERFORM pat.lock_subject(revoke_subject.subject, true);

    -- Lock in a fixed order, to avoid deadlocks between two calls.
    WITH found AS MATERIALIZED (
        SELECT token.digest FROM pat.token
        WHERE token.subject = revoke_subject.subject AND token.revoked_at IS NULL
            AND (revoke_subject.issued_before IS NULL OR token.issued_at < revoke_subject.issued_before)
        ORDER BY token.digest FOR NO KEY UPDATE)
    UPDATE pat.token SET revoked_at = now() FROM found WHERE token.digest = found.digest;
    GET DIAGNOSTICS revoked = ROW_COUNT;
    IF EXISTS (SELECT FROM pat.token
               WHERE token.subject = revoke_subject.subject AND token.revoked_at IS NULL
                   AND (revoke_subject.issued_before IS NULL OR token.issued_at < revoke_subject.issued_before)) THEN
        RAISE EXCEPTION 'tokens of "%" are not revoked: a trigger or rule on pat.token kept their rows from being written',
            revoke_subject.subject
            USING ERRCODE = 'triggered_action_exception',
                HINT = 'Remove the triggers and rules on pat.token that are not from install.sql: see \d pat.token.';
    END IF;
    IF before IS NOT NULL THEN
        PERFORM pat.act_as_before(before);
    END IF;
    RETURN revoked;
END
$$;

-- Deletes tokens that expired or were revoked before a time, and returns their number. Edges learn of the deletions
-- from tombstones, which are dropped after keep_tombstones: an edge that was away for longer takes a snapshot. At most
-- at_most tokens are deleted, as other changes wait while a transaction numbers its own: repeat the call, in a new
-- transaction, until it returns 0.
CREATE OR REPLACE FUNCTION pat.purge(before timestamptz, keep_tombstones interval DEFAULT '30 days',
    at_most integer DEFAULT 1000)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp SET timezone = 'UTC'
AS $$
#variable_conflict use_column
DECLARE
    ids text[];
    dropped bigint;
BEGIN
    IF purge.before IS NULL OR purge.before > now() THEN
        RAISE EXCEPTION 'before must be a time in the past'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'For example pat.purge(now() - interval ''90 days'').';
    END IF;
    IF purge.keep_tombstones IS NULL OR purge.keep_tombstones < interval '0' OR purge.at_most IS NULL THEN
        RAISE EXCEPTION 'keep_tombstones must be an interval of 0 or more, and at_most a number'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'The defaults are 30 days and 1000.';
    END IF;

    ids := ARRAY(SELECT token.id FROM pat.token
                 WHERE token.expires_at < purge.before OR token.revoked_at < purge.before
                 ORDER BY token.id LIMIT purge.at_most FOR UPDATE SKIP LOCKED);
    -- Lock in the same order as pat.add_use().
    PERFORM FROM pat.token_use WHERE token_use.id = ANY (ids) ORDER BY token_use.id FOR UPDATE;
    DELETE FROM pat.token WHERE token.id = ANY (ids);

    WITH old AS (DELETE FROM pat.tombstone WHERE tombstone.deleted_at < now() - purge.keep_tombstones
                 RETURNING tombstone.seq)
    SELECT max(old.seq) INTO dropped FROM old;
    UPDATE pat.history SET horizon = dropped WHERE history.horizon < dropped;

    RETURN cardinality(ids);
END
$$;

---------------------------------------------------------------------------------------------------------------------
-- What may be issued, what ends soon
---------------------------------------------------------------------------------------------------------------------

-- What the subject's next token may be, for a page that offers only that. NULL: no limit. latest_expiry is the end of
-- the longest lifetime, if the token is issued now; never_allowed is whether a token without an end is allowed.
CREATE OR REPLACE FUNCTION pat.policy_of(subject text, OUT class text, OUT longest_lifetime interval,
    OUT latest_expiry timestamptz, OUT never_allowed boolean, OUT most_tokens integer, OUT tokens bigint,
    OUT scopes text[], OUT cidrs cidr[])
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    policy CONSTANT pat.policy := pat.find_policy(policy_of.subject);
BEGIN
    class := policy.class;
    longest_lifetime := policy.longest_lifetime;
    latest_expiry := now() + policy.longest_lifetime;
    never_allowed := NOT policy.expiry_demanded AND policy.longest_lifetime IS NULL;
    most_tokens := policy.most_tokens;
    tokens := pat.count_tokens(policy_of.subject);
    scopes := policy.scopes;
    cidrs := policy.cidrs;
END
$$;

-- The tokens that end within an interval from now, and are neither revoked nor rotated. With since, only those that
-- came into the interval after that time, by their issue or because their end came closer: who passes the time of the
-- previous call gets each token once.
--
-- It reads all tokens. An index would cost more at each token that is issued or revoked than a daily job gains.
CREATE OR REPLACE FUNCTION pat.expiring("within" interval, since timestamptz DEFAULT NULL)
RETURNS TABLE (subject text, id text, name text, expires_at timestamptz, last_used_at timestamptz, last_used_from inet)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp SET timezone = 'UTC'
AS $$
#variable_conflict use_column
BEGIN
    IF (expiring."within" > interval '0') IS NOT TRUE THEN
        RAISE EXCEPTION 'within must be an interval of more than 0'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'For example pat.expiring(''7 days'').';
    END IF;
    RETURN QUERY
        SELECT token.subject, token.id, token.name, token.expires_at, known.last_used_at, known.last_used_from
        FROM pat.token LEFT JOIN pat.token_use AS known ON known.id = token.id
        WHERE token.expires_at > now() AND token.expires_at <= now() + expiring."within"
            AND token.revoked_at IS NULL AND token.replaced_by IS NULL
            AND (expiring.since IS NULL
                 OR greatest(token.expires_at - expiring."within", token.issued_at) > expiring.since)
        ORDER BY token.subject, token.expires_at, token.id;
END
$$;

---------------------------------------------------------------------------------------------------------------------
-- The audit
---------------------------------------------------------------------------------------------------------------------

-- The entries after a number, in order, each as a line of JSON. A field without a value is left out. Entries get their
-- numbers here, once they are committed: so whoever passes the last number of the previous call misses none, and an
-- open transaction delays its own entries alone. A session that may not write, as on a standby, gets those that have
-- numbers.
CREATE OR REPLACE FUNCTION pat.audit_lines(after bigint DEFAULT 0, "limit" integer DEFAULT 1000)
RETURNS TABLE (number bigint, line text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp SET timezone = 'UTC'
AS $$
#variable_conflict use_column
DECLARE
    missing bigint;
BEGIN
    IF (audit_lines.after >= 0 AND audit_lines."limit" > 0) IS NOT TRUE THEN
        RAISE EXCEPTION 'after must be the number of an entry or 0, and limit at least 1'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'For example pat.audit_lines(0, 1000).';
    END IF;
    -- Numbers become visible in order, as the lock is held until the end of the transaction.
    missing := audit_lines."limit" - (SELECT count(*) FROM (SELECT FROM pat.audit WHERE audit.number > audit_lines.after
                                                            LIMIT audit_lines."limit") AS numbered);
    IF missing > 0 AND current_setting('transaction_read_only') = 'off' THEN
        IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
            RAISE EXCEPTION 'pat.audit_lines() could miss entries at isolation level %',
                upper(current_setting('transaction_isolation'))
                USING ERRCODE = 'feature_not_supported',
                    HINT = 'Start the transaction with BEGIN ISOLATION LEVEL READ COMMITTED.';
        END IF;
        LOCK TABLE pat.audit_clock IN EXCLUSIVE MODE;
        WITH found AS MATERIALIZED (
            SELECT audit.entry FROM pat.audit WHERE audit.number IS NULL ORDER BY audit.entry LIMIT missing),
        numbered AS MATERIALIZED (SELECT found.entry, nextval('pat.audit_seq') AS number FROM found)
        UPDATE pat.audit SET number = numbered.number FROM numbered WHERE audit.entry = numbered.entry;
    END IF;
    RETURN QUERY
        SELECT audit.number, json_strip_nulls(json_build_object(
            'number', audit.number, 'at', audit.at, 'event', audit.event, 'id', audit.id, 'subject', audit.subject,
            'actor', audit.actor, 'client', host(audit.client), 'login', audit.login,
            'login_from', host(audit.login_from), 'detail', nullif(audit.detail, '{}')))::text
        FROM pat.audit WHERE audit.number > audit_lines.after ORDER BY audit.number LIMIT audit_lines."limit";
END
$$;

-- Deletes entries from before a time, oldest first and at most at_most, and returns their number. Repeat the call until
-- it returns 0. The deletion is an entry itself.
CREATE OR REPLACE FUNCTION pat.purge_audit(before timestamptz, at_most integer DEFAULT 10000)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
DECLARE
    deleted bigint;
BEGIN
    IF (purge_audit.before <= now() AND purge_audit.at_most > 0) IS NOT TRUE THEN
        RAISE EXCEPTION 'before must be a time in the past, and at_most at least 1'
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'For example pat.purge_audit(now() - interval ''1 year'').';
    END IF;
    PERFORM set_config('pat.is_purging_audit', 'yes', true);
    DELETE FROM pat.audit WHERE audit.entry IN (
        SELECT oldest.entry FROM (SELECT audit.entry, audit.at FROM pat.audit
                                  ORDER BY audit.entry LIMIT purge_audit.at_most) AS oldest
        WHERE oldest.at < purge_audit.before);
    GET DIAGNOSTICS deleted = ROW_COUNT;
    PERFORM set_config('pat.is_purging_audit', '', true);
    RETURN deleted;
END
$$;

---------------------------------------------------------------------------------------------------------------------
-- For operators
---------------------------------------------------------------------------------------------------------------------

-- Numbers all changes without a number, made with triggers off or with pat.notify = off, and returns how many there
-- were. It waits for transactions that are changing these rows. If a row violates the rules, which it evaded with
-- triggers off, the call fails with an error that names it, and numbers nothing. A sequence that fell behind catches
-- up.
CREATE OR REPLACE FUNCTION pat.number_changes()
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
DECLARE
    tokens bytea[];
    tombstones bytea[];
    found bytea;
BEGIN
    -- Lock the rows before the clock, like every transaction that changes tokens.
    tokens := ARRAY(SELECT token.digest FROM pat.token WHERE NOT is_numbered ORDER BY token.digest FOR NO KEY UPDATE);
    tombstones := ARRAY(SELECT tombstone.digest FROM pat.tombstone WHERE seq IS NULL
                        ORDER BY tombstone.digest FOR NO KEY UPDATE);
    IF cardinality(tokens) + cardinality(tombstones) > 0 OR pat.last_number() < pat.position() THEN
        PERFORM pat.begin_numbering();
        PERFORM pat.catch_up(true);
        FOREACH found IN ARRAY tombstones LOOP
            PERFORM pat.number_tombstone(found);
        END LOOP;
        BEGIN
            FOREACH found IN ARRAY tokens LOOP
                PERFORM pat.number_token(found);
            END LOOP;
        EXCEPTION WHEN check_violation THEN
            RAISE EXCEPTION 'the token "%" cannot be numbered: %',
                (SELECT token.id FROM pat.token WHERE token.digest = found), SQLERRM
                USING ERRCODE = 'check_violation',
                    HINT = 'Correct or delete its row in pat.token, then call pat.number_changes() again.';
        END;
    END IF;
    RETURN cardinality(tokens) + cardinality(tombstones);
END
$$;

-- Makes every edge take a snapshot, and returns the new epoch. Call it after a restore that pat.source() cannot notice,
-- after deletions with triggers off, or if an edge may be wrong.
CREATE OR REPLACE FUNCTION pat.new_epoch()
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    LOCK TABLE pat.clock IN EXCLUSIVE MODE;
    PERFORM pat.catch_up(true);
    PERFORM pat.next_number();
    UPDATE pat.history SET epoch = left(replace(gen_random_uuid()::text, '-', ''), 12);
    PERFORM pg_notify('pat_changes', '');
    RETURN (SELECT source.epoch FROM pat.source() AS source);
END
$$;

-- Introduces a pepper, the same as in the edges' stores, and returns its key id. From then on, pat.issue() and
-- pat.rotate() require the pepper, which is not stored. Not possible once there are tokens, whose digests would not
-- match.
CREATE OR REPLACE FUNCTION pat.use_pepper(pepper bytea)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
DECLARE
    wanted bytea := pat.key_id_of(use_pepper.pepper);
BEGIN
    LOCK TABLE pat.token IN SHARE ROW EXCLUSIVE MODE;
    IF (SELECT key_id FROM pat.history) IS DISTINCT FROM wanted THEN
        IF EXISTS (SELECT FROM pat.token) THEN
            RAISE EXCEPTION 'there are tokens with another pepper, or without one'
                USING ERRCODE = 'object_not_in_prerequisite_state',
                    HINT = 'The pepper of existing tokens cannot be changed: delete the tokens, or use another database.';
        END IF;
        UPDATE pat.history SET key_id = wanted;
    END IF;
    RETURN encode(wanted, 'hex');
END
$$;

-- Sets the whole policy of a class: what is left out is not limited. Tokens that exist stay as they are; the policy is
-- looked at when one is issued or rotated.
CREATE OR REPLACE FUNCTION pat.set_policy(class text, longest_lifetime interval DEFAULT NULL,
    expiry_demanded boolean DEFAULT false, most_tokens integer DEFAULT NULL, scopes text[] DEFAULT NULL,
    cidrs text[] DEFAULT NULL)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    IF date_part('year', set_policy.longest_lifetime) <> 0 OR date_part('month', set_policy.longest_lifetime) <> 0 THEN
        RAISE EXCEPTION 'longest_lifetime must be in days or hours, not in months, which differ'
            USING ERRCODE = 'check_violation', HINT = 'For example 90 days.', CONSTRAINT = 'policy_lifetime';
    END IF;
    INSERT INTO pat.policy (class, longest_lifetime, expiry_demanded, most_tokens, scopes, cidrs)
    VALUES (set_policy.class, set_policy.longest_lifetime, set_policy.expiry_demanded, set_policy.most_tokens,
            set_policy.scopes, set_policy.cidrs::cidr[])
    ON CONFLICT ON CONSTRAINT policy_pkey DO UPDATE SET
        longest_lifetime = excluded.longest_lifetime, expiry_demanded = excluded.expiry_demanded,
        most_tokens = excluded.most_tokens, scopes = excluded.scopes, cidrs = excluded.cidrs;
END
$$;

CREATE OR REPLACE FUNCTION pat.drop_policy(class text)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    IF drop_policy.class = 'default' THEN
        RAISE EXCEPTION 'the policy "default" cannot be dropped'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'pat.set_policy(''default'') lifts its limits.';
    END IF;
    BEGIN
        DELETE FROM pat.policy WHERE policy.class = drop_policy.class;
    EXCEPTION WHEN foreign_key_violation THEN
        RAISE EXCEPTION 'there are subjects in the class "%"', drop_policy.class
            USING ERRCODE = 'foreign_key_violation', HINT = 'Put them into another one with pat.set_class().';
    END;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no policy "%"', drop_policy.class
            USING ERRCODE = 'no_data_found', HINT = 'The table pat.policy lists them.';
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION pat.set_class(subject text, class text DEFAULT 'default')
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pat.policy WHERE policy.class = set_class.class) THEN
        RAISE EXCEPTION 'there is no policy "%"', set_class.class
            USING ERRCODE = 'no_data_found', HINT = 'Set it first: pat.set_policy(class, …).';
    END IF;
    IF set_class.class = 'default' THEN
        DELETE FROM pat.subject_class AS member WHERE member.subject = set_class.subject;
    ELSE
        INSERT INTO pat.subject_class (subject, class) VALUES (set_class.subject, set_class.class)
        ON CONFLICT ON CONSTRAINT subject_class_pkey DO UPDATE SET class = excluded.class;
    END IF;
END
$$;

RESET ROLE;
