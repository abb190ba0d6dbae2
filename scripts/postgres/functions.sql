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
                 FROM pat.wrong_triggers() AS wrong);
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

-- Creates a token and returns it with its id. It cannot be shown again, as only its digest is stored. If the caller
-- passes a digest, the caller has created the token, and NULL is returned instead. With expires_at => NULL, the token
-- never expires; the default is 90 days (in hours, as the length of a day depends on TimeZone). Empty cidrs allow every
-- address.
CREATE OR REPLACE FUNCTION pat.issue(subject text, name text DEFAULT '', scopes text[] DEFAULT '{}',
    expires_at timestamptz DEFAULT now() + interval '2160 hours', cidrs text[] DEFAULT '{}',
    not_before timestamptz DEFAULT NULL, claims jsonb DEFAULT '{}', prefix text DEFAULT 'ropat_',
    pepper bytea DEFAULT NULL, digest bytea DEFAULT NULL, INOUT id text DEFAULT NULL, OUT token text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    wanted_key bytea;
BEGIN
    IF issue.expires_at <= now() THEN
        RAISE EXCEPTION 'the token would already be expired, at %', issue.expires_at
            USING ERRCODE = 'invalid_parameter_value', HINT = 'For a token that does not expire: expires_at => NULL.';
    END IF;
    IF issue.not_before >= issue.expires_at THEN
        RAISE EXCEPTION 'the token would expire at %, before it becomes valid', issue.expires_at
            USING ERRCODE = 'invalid_parameter_value', HINT = 'not_before must be earlier than expires_at.';
    END IF;
    IF issue.prefix COLLATE "C" !~ '^[A-Za-z0-9_.-]{1,32}$' THEN
        RAISE EXCEPTION 'a prefix must have 1 to 32 letters, digits, _, - or .'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'For example ropat_.';
    END IF;

    -- pat.use_pepper() waits for this lock, so that no token is created with an outdated pepper.
    LOCK TABLE pat.token IN ROW EXCLUSIVE MODE;

    IF issue.digest IS NULL OR issue.pepper IS NOT NULL THEN
        wanted_key := (SELECT key_id FROM pat.history);
        IF wanted_key IS NULL AND issue.pepper IS NOT NULL THEN
            RAISE EXCEPTION 'the tokens of this database do not use a pepper'
                USING ERRCODE = 'invalid_parameter_value', HINT = 'To introduce one, call pat.use_pepper().';
        ELSIF wanted_key IS NOT NULL AND issue.pepper IS NULL THEN
            RAISE EXCEPTION 'the tokens of this database require a pepper'
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass it: pepper => ….';
        ELSIF issue.pepper IS NOT NULL AND pat.key_id_of(issue.pepper) <> wanted_key THEN
            RAISE EXCEPTION 'the tokens of this database use another pepper'
                USING ERRCODE = 'invalid_parameter_value',
                    HINT = format('Pass the one with the id %s.', encode(wanted_key, 'hex'));
        END IF;
    END IF;

    IF issue.digest IS NULL THEN
        token := issue.prefix || pat.random_base62(32);
        token := token || pat.checksum(token);
        digest := CASE WHEN issue.pepper IS NULL THEN sha256(convert_to(token, 'UTF8'))
                       ELSE pat.hmac_sha256(issue.pepper, convert_to(token, 'UTF8')) END;
    END IF;
    id := coalesce(issue.id, 'pat_' || pat.random_base62(16));

    INSERT INTO pat.token (digest, id, subject, name, scopes, cidrs, issued_at, not_before, expires_at, claims)
    VALUES (issue.digest, issue.id, issue.subject, coalesce(issue.name, ''), coalesce(issue.scopes, '{}'),
            coalesce(issue.cidrs, '{}')::cidr[], now(), issue.not_before, issue.expires_at,
            coalesce(issue.claims, '{}'));
END
$$;

-- Creates a token like an existing one, with the same lifetime starting now. The old one stays valid for the overlap,
-- but no longer than before.
CREATE OR REPLACE FUNCTION pat.rotate(INOUT id text, overlap interval DEFAULT '24 hours', pepper bytea DEFAULT NULL,
    digest bytea DEFAULT NULL, prefix text DEFAULT 'ropat_', new_id text DEFAULT NULL, OUT token text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp SET timezone = 'UTC'
AS $$
#variable_conflict use_column
DECLARE
    old pat.token;
BEGIN
    IF rotate.overlap IS NULL OR rotate.overlap < interval '0' THEN
        RAISE EXCEPTION 'overlap must not be negative'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'interval ''0'' ends the old token at once.';
    END IF;

    -- Lock the subject before the row, as pat.revoke_subject() does, to avoid deadlocks.
    PERFORM pat.lock_subject((SELECT token.subject FROM pat.token WHERE token.id = rotate.id), false);
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

    BEGIN
        PERFORM pat.check_new(old.subject, old.scopes, old.claims);
    EXCEPTION WHEN check_violation THEN
        RAISE EXCEPTION 'the token "%" cannot be rotated, as a new token like it is invalid: %', rotate.id, SQLERRM
            USING ERRCODE = 'check_violation',
                HINT = 'Issue a corrected one with pat.issue(…), then revoke this one with pat.revoke(id).';
    END;
    SELECT issued.id, issued.token INTO id, token
    FROM pat.issue(old.subject, old.name, old.scopes, now() + (old.expires_at - old.issued_at), old.cidrs::text[],
                   CASE WHEN old.not_before > now() THEN old.not_before END, old.claims, rotate.prefix, rotate.pepper,
                   rotate.digest, rotate.new_id) AS issued;

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
END
$$;

---------------------------------------------------------------------------------------------------------------------
-- Revoking and deleting tokens
---------------------------------------------------------------------------------------------------------------------

-- Returns true if this call revoked the token, false if it was revoked before. An unknown id is an error, so that a
-- typo does not look like a revocation; so is a revocation that a foreign trigger or rule prevents.
CREATE OR REPLACE FUNCTION pat.revoke(id text)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
#variable_conflict use_column
DECLARE
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
    RETURN was_written;
END
$$;

-- Revokes all tokens of a subject, or those issued before a time, and returns their number. It waits for transactions
-- that create tokens of the subject and must see their result, which requires READ COMMITTED. If its transaction has
-- changed tokens of the subject before, a deadlock is possible, and one of the transactions fails.
CREATE OR REPLACE FUNCTION pat.revoke_subject(subject text, issued_before timestamptz DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
#variable_conflict use_column
DECLARE
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

---------------------------------------------------------------------------------------------------------------------
-- Privileges
---------------------------------------------------------------------------------------------------------------------

-- New functions are executable by PUBLIC. install.sql is one transaction, so nobody could call them before this.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA pat FROM PUBLIC;

GRANT EXECUTE ON FUNCTION
    pat.source(),
    pat.number_found(),
    pat.changes(bigint, integer, boolean),
    pat.snapshot(bytea, integer),
    pat.continues(bigint, text),
    pat.record_use(text, bigint, json),
    pat.last_batch(text)
TO pat_edge;

GRANT EXECUTE ON FUNCTION
    pat.issue(text, text, text[], timestamptz, text[], timestamptz, jsonb, text, bytea, bytea, text),
    pat.rotate(text, interval, bytea, bytea, text, text),
    pat.revoke(text),
    pat.revoke_subject(text, timestamptz),
    pat.purge(timestamptz, interval, integer)
TO pat_platform;

RESET ROLE;
