-- Tables, the rules for what is in them, and the numbering of changes.
--
-- An edge follows the database by a cursor: the number (seq) of the last change that it has. That works only if the
-- order of the numbers is the order in which changes become visible, which a plain sequence does not give: a
-- transaction that takes 7 may commit after one that takes 8, and whoever has read up to 8 never sees 7.
--
-- So a change gets its number in a deferred trigger, as late in its transaction as can be, under a lock that is held
-- until after the commit is visible:
--
--     BEGIN … UPDATE pat.token (seq := NULL) …  COMMIT: lock pat.clock · seq := nextval · visible · unlock
--
-- The lock is one on a table: transactions of any isolation level can wait for it (where a counter in a row would fail
-- REPEATABLE READ), and only who may write the table can hold it (which is not so for advisory locks). What other
-- transactions have open does not matter, unless they have asked for their numbers early (SET CONSTRAINTS ALL
-- IMMEDIATE). A number that is missing belonged to a transaction that was rolled back. Others wait while a transaction
-- numbers its changes, about 40 µs for each: import many tokens in portions of some hundreds.
--
-- The triggers fire in sessions with session_replication_role = replica as well. So a subscriber of logical
-- replication gives numbers of its own, which are good for its edges: publish pat.token alone, for it makes its own
-- tombstones, too. What is changed with triggers that are off (ALTER TABLE … DISABLE TRIGGER, pg_restore
-- --disable-triggers) has no number, or still that of what was there before, which nothing can notice, and no edge
-- learns of it. After changes with triggers off: install.sql (for ENABLE TRIGGER does not bring ENABLE ALWAYS back),
-- SELECT pat.number_changes(), and SELECT pat.new_epoch().

CREATE SCHEMA IF NOT EXISTS pat AUTHORIZATION pat_owner;

DO $$
BEGIN
    IF (SELECT nspowner FROM pg_namespace WHERE nspname = 'pat') <> 'pat_owner'::regrole THEN
        RAISE EXCEPTION 'there is a schema "pat" that does not belong to pat_owner'
            USING ERRCODE = 'duplicate_schema', HINT = 'Move it away: ALTER SCHEMA pat RENAME TO …';
    END IF;
END
$$;

SET LOCAL ROLE pat_owner;

REVOKE ALL ON SCHEMA pat FROM PUBLIC;
GRANT USAGE ON SCHEMA pat TO pat_edge, pat_platform;

-- Says what is wrong with a token that an edge would reject: the rules are those of docs/store-format.md. One function
-- instead of a constraint for each rule, because it can give a hint, and because it is evaluated for every row that
-- gets its number.
CREATE OR REPLACE FUNCTION pat.check_token(digest bytea, id text, subject text, name text, scopes text[], cidrs cidr[],
    issued_at timestamptz, not_before timestamptz, expires_at timestamptz, revoked_at timestamptz, claims jsonb)
RETURNS boolean LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pat, pg_temp
AS $$
DECLARE
    control CONSTANT text := '[\u0001-\u001f\u007f]';
    scope_list text COLLATE "C" := array_to_string(scopes, ' ', '');
    length integer := 64 + octet_length(id) + octet_length(subject) + octet_length(name) + octet_length(scope_list);
    claim record;
    problem text;
    hint text;
BEGIN
    IF octet_length(digest) <> 32 THEN
        problem := 'a digest has 32 bytes';
        hint := 'It is SHA-256 of the token, or HMAC-SHA-256 with the pepper as the key.';
    ELSIF id COLLATE "C" !~ '^[A-Za-z0-9._:@-]{1,64}$' THEN
        problem := 'an id has 1 to 64 letters, digits and any of ._:@-';
    ELSIF octet_length(subject) NOT BETWEEN 1 AND 255 OR subject COLLATE "C" ~ control THEN
        problem := 'a subject has 1 to 255 bytes, and no control characters';
    ELSIF octet_length(name) > 255 OR name COLLATE "C" ~ control THEN
        problem := 'a name has at most 255 bytes, and no control characters';
    ELSIF cardinality(scopes) > 0
        AND (array_ndims(scopes) <> 1
             OR scope_list !~ '^[\u0021\u0023-\u005b\u005d-\u007e]+( [\u0021\u0023-\u005b\u005d-\u007e]+)*$'
             OR cardinality(string_to_array(scope_list, ' ')) <> cardinality(scopes)) THEN
        problem := 'a scope has one or more printable ASCII characters, and no space, quotation mark or backslash';
        hint := 'One element for each scope: ARRAY[''read'', ''write''].';
    ELSIF cardinality(cidrs) > 0 AND (array_ndims(cidrs) <> 1 OR array_position(cidrs, NULL) IS NOT NULL) THEN
        problem := 'address ranges are a list without NULL';
    ELSIF least(issued_at, not_before, expires_at, revoked_at) < '1970-01-01 00:00:01+00'
        OR greatest(issued_at, not_before, expires_at, revoked_at) > '9999-12-31 23:59:59+00' THEN
        problem := 'a time is later than 1970-01-01 00:00:00 and at most in the year 9999, UTC';
        hint := 'For no limit, make it NULL.';
    ELSIF jsonb_typeof(claims) <> 'object' THEN
        problem := 'claims are a JSON object';
        hint := 'For example {"plan": "pro"}.';
    END IF;

    IF problem IS NULL AND claims <> '{}' THEN
        FOR claim IN SELECT key, value, jsonb_typeof(value) AS type, value #>> '{}' AS text FROM jsonb_each(claims) LOOP
            IF claim.key COLLATE "C" !~ '^[a-z0-9_]{1,64}$' THEN
                problem := 'the name of a claim has 1 to 64 lower-case letters, digits and _';
            ELSIF claim.type <> 'string' OR claim.text COLLATE "C" ~ control THEN
                problem := 'the value of a claim is a string without control characters';
            END IF;
            length := length + 3 + octet_length(claim.key) + coalesce(octet_length(claim.text), 0);
        END LOOP;
    END IF;

    IF problem IS NULL AND cardinality(cidrs) > 0 THEN
        -- The edges store an IPv4-mapped range as the IPv4 range it stands for.
        length := length + (SELECT sum(CASE WHEN family(range) = 4 OR range <<= '::ffff:0:0/96' THEN 6 ELSE 18 END)
                            FROM unnest(cidrs) AS range);
    END IF;
    IF problem IS NULL AND length > 4096 THEN
        problem := format('a token takes at most 4096 bytes at the edges, and this one takes %s', length);
        hint := 'Shorten its claims, scopes or address ranges.';
    END IF;

    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%', problem
            USING ERRCODE = 'check_violation', HINT = coalesce(hint, 'The rules are in docs/store-format.md.'),
                SCHEMA = 'pat', TABLE = 'token', CONSTRAINT = 'token_check';
    END IF;
    RETURN true;
END
$$;

CREATE SEQUENCE IF NOT EXISTS pat.seq AS bigint NO CYCLE;

-- The lock. It has no rows, so that nobody else has a reason to lock it.
CREATE TABLE IF NOT EXISTS pat.clock ();

-- Who makes a token holds the row of its subject FOR SHARE, and pat.revoke_subject() holds it FOR UPDATE: see
-- pat.lock_subject(). Rows, and not advisory locks, because only this schema can lock them. They are never updated, so
-- that REPEATABLE READ can wait for them.
CREATE TABLE IF NOT EXISTS pat.subject_lock (bucket integer PRIMARY KEY);

INSERT INTO pat.subject_lock SELECT generate_series(0, 255) ON CONFLICT DO NOTHING;

-- What belongs to the database as a whole: one row.
CREATE TABLE IF NOT EXISTS pat.history (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch    text NOT NULL,                           -- a part of the epoch that the edges see: see pat.source()
    timeline text NOT NULL,                           -- of PostgreSQL, as of the last change
    horizon  bigint NOT NULL DEFAULT 0,               -- the highest number of a tombstone that was dropped
    key_id   bytea CHECK (octet_length(key_id) = 8)   -- NULL: digests are made without a pepper
);

CREATE TABLE IF NOT EXISTS pat.token (
    digest      bytea PRIMARY KEY,
    id          text COLLATE "C" NOT NULL UNIQUE,
    subject     text COLLATE "C" NOT NULL,
    name        text NOT NULL DEFAULT '',
    scopes      text[] NOT NULL DEFAULT '{}',
    cidrs       cidr[] NOT NULL DEFAULT '{}',         -- empty: it may be used from every address
    issued_at   timestamptz NOT NULL DEFAULT now(),
    not_before  timestamptz,
    expires_at  timestamptz,                          -- NULL: never
    revoked_at  timestamptz,
    claims      jsonb NOT NULL DEFAULT '{}',
    replaced_by text COLLATE "C",                     -- the id that pat.rotate() gave; no matter of the edges
    seq         bigint,                               -- NULL only inside the transaction that made the change
    CONSTRAINT token_check CHECK (pat.check_token(digest, id, subject, name, scopes, cidrs, issued_at, not_before,
                                                  expires_at, revoked_at, claims))
);

-- What was deleted, for edges that still have it.
CREATE TABLE IF NOT EXISTS pat.tombstone (
    digest     bytea PRIMARY KEY,
    deleted_at timestamptz NOT NULL DEFAULT now(),
    seq        bigint
);

-- A table of its own, so that recording use does not touch the token: no change for the edges, no lock in the way.
CREATE TABLE IF NOT EXISTS pat.token_use (
    id             text COLLATE "C" PRIMARY KEY,
    last_used_at   timestamptz NOT NULL,
    last_used_from inet,
    uses           bigint NOT NULL
) WITH (fillfactor = 70);

-- How far each edge has reported use, by the login that it uses: no other login has a say in that.
CREATE TABLE IF NOT EXISTS pat.edge (
    login       name NOT NULL,
    name        text COLLATE "C" NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 255),
    batch       bigint NOT NULL,
    reported_at timestamptz NOT NULL,
    PRIMARY KEY (login, name)
) WITH (fillfactor = 70);

-- Of an earlier version, where the logins are not known: it is forgotten, and each edge begins anew.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'pat.edge'::regclass AND attname = 'login') THEN
        DELETE FROM pat.edge;
        ALTER TABLE pat.edge ADD COLUMN login name NOT NULL, DROP CONSTRAINT edge_pkey, ADD PRIMARY KEY (login, name);
    END IF;
END
$$;

INSERT INTO pat.history (epoch, timeline)
VALUES (left(replace(gen_random_uuid()::text, '-', ''), 12), left(pg_walfile_name(pg_current_wal_lsn()), 8))
ON CONFLICT DO NOTHING;

-- The highest number that is visible in the caller's snapshot.
CREATE OR REPLACE FUNCTION pat.position()
RETURNS bigint LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    RETURN (SELECT greatest(horizon, (SELECT max(seq) FROM pat.token), (SELECT max(seq) FROM pat.tombstone))
            FROM pat.history);
END
$$;

-- Holds the subject until the end of the transaction: shared with others who make tokens of it, or alone. 256 rows are
-- for all subjects, so that now and then one waits for another.
CREATE OR REPLACE FUNCTION pat.lock_subject(subject text, alone boolean)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pat, pg_temp
AS $$
DECLARE
    wanted CONSTANT integer := get_byte(sha256(convert_to(lock_subject.subject, 'UTF8')), 0);
BEGIN
    IF lock_subject.alone THEN
        PERFORM FROM pat.subject_lock WHERE bucket = wanted FOR UPDATE;
    ELSE
        PERFORM FROM pat.subject_lock WHERE bucket = wanted FOR SHARE;
    END IF;
END
$$;

-- A change begins: its row has no number until the end of the transaction. The numbering itself is an update, too.
-- What logical replication brings has the number that it has elsewhere, which is not for here.
CREATE OR REPLACE FUNCTION pat.before_token()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM pat.lock_subject(NEW.subject, false);
        NEW.seq := NULL;
        RETURN NEW;
    END IF;

    IF NEW.subject <> OLD.subject OR (NEW.revoked_at IS NULL AND OLD.revoked_at IS NOT NULL) THEN
        PERFORM pat.lock_subject(NEW.subject, false);
    END IF;
    IF NEW.digest <> OLD.digest OR NEW.id <> OLD.id THEN
        RAISE EXCEPTION 'the digest and the id of a token can''t be changed'
            USING ERRCODE = 'integrity_constraint_violation',
                HINT = 'Issue another token, and revoke or delete this one.';
    END IF;
    IF (NEW.subject, NEW.name, NEW.scopes, NEW.cidrs, NEW.issued_at, NEW.not_before, NEW.expires_at, NEW.revoked_at,
        NEW.claims)
        IS DISTINCT FROM
        (OLD.subject, OLD.name, OLD.scopes, OLD.cidrs, OLD.issued_at, OLD.not_before, OLD.expires_at, OLD.revoked_at,
        OLD.claims)
        OR (NEW.seq IS DISTINCT FROM OLD.seq AND pg_trigger_depth() = 1
            AND current_setting('session_replication_role') = 'replica') THEN
        NEW.seq := NULL;
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION pat.after_token()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        DELETE FROM pat.tombstone WHERE tombstone.digest = NEW.digest;
        DELETE FROM pat.token_use WHERE token_use.id = NEW.id;
    ELSE
        INSERT INTO pat.tombstone (digest) VALUES (OLD.digest)
        ON CONFLICT (digest) DO UPDATE SET deleted_at = excluded.deleted_at, seq = NULL;
        DELETE FROM pat.token_use WHERE token_use.id = OLD.id;
    END IF;
    RETURN NULL;
END
$$;

-- What is to be done once in a transaction before it numbers its changes.
CREATE OR REPLACE FUNCTION pat.begin_numbering()
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pat, pg_temp
AS $$
DECLARE
    highest bigint;
    timeline_now text := left(pg_walfile_name(pg_current_wal_lsn()), 8);
BEGIN
    -- Logical replication and partial restores leave the sequence behind. SERIALIZABLE does not look: that would count
    -- as a conflict with every other writer.
    IF current_setting('transaction_isolation') <> 'serializable' THEN
        highest := pat.position();
        IF (SELECT last_value FROM pat.seq) < highest THEN
            PERFORM setval('pat.seq', highest);
        END IF;
    END IF;

    -- The first change after a standby has become the primary: see pat.source().
    IF timeline_now <> (SELECT timeline FROM pat.history) THEN
        UPDATE pat.history SET timeline = timeline_now;
    END IF;

    -- An edge must not act on what a crash can still undo.
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;

    -- Always the same payload: PostgreSQL sends it once for each transaction.
    PERFORM pg_notify('pat_changes', '');
END
$$;

-- Runs when the transaction commits (or at SET CONSTRAINTS), once for each row that has no number yet.
CREATE OR REPLACE FUNCTION pat.number_change()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
DECLARE
    transaction text;
BEGIN
    LOCK TABLE pat.clock IN EXCLUSIVE MODE;

    transaction := pg_current_xact_id()::text;
    IF current_setting('pat.numbering', true) IS DISTINCT FROM transaction THEN
        PERFORM pat.begin_numbering();
        PERFORM set_config('pat.numbering', transaction, true);
    END IF;

    -- A row that was changed twice has its number already, one that was deleted again is not there.
    IF TG_TABLE_NAME = 'token' THEN
        UPDATE pat.token SET seq = nextval('pat.seq') WHERE digest = NEW.digest AND seq IS NULL;
    ELSE
        UPDATE pat.tombstone SET seq = nextval('pat.seq') WHERE digest = NEW.digest AND seq IS NULL;
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION pat.refuse_truncate()
RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'pat.% can''t be truncated: the edges would not learn of it', TG_TABLE_NAME
        USING ERRCODE = 'feature_not_supported', HINT = 'Use DELETE FROM pat.token, or pat.purge().';
END
$$;

-- Only what is missing: looking at the table, even CREATE INDEX IF NOT EXISTS waits for all who write.
--
-- The indexes on seq are partial, and not only because rows begin without a number: a column of a plain unique index is
-- part of a key, and an update of it waits for everybody who holds FOR KEY SHARE on the row.
DO $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN SELECT * FROM (VALUES
        ('token', 'token_seq', 'CREATE UNIQUE INDEX token_seq ON pat.token (seq) WHERE seq IS NOT NULL'),
        ('token', 'token_revoked_seq',
         'CREATE INDEX token_revoked_seq ON pat.token (seq) WHERE revoked_at IS NOT NULL AND seq IS NOT NULL'),
        ('token', 'token_unnumbered', 'CREATE INDEX token_unnumbered ON pat.token (seq) WHERE seq IS NULL'),
        ('token', 'token_subject', 'CREATE INDEX token_subject ON pat.token (subject)'),
        ('tombstone', 'tombstone_seq',
         'CREATE UNIQUE INDEX tombstone_seq ON pat.tombstone (seq) WHERE seq IS NOT NULL'),
        ('tombstone', 'tombstone_unnumbered',
         'CREATE INDEX tombstone_unnumbered ON pat.tombstone (seq) WHERE seq IS NULL'),

        ('token', 'token_before', 'CREATE TRIGGER token_before BEFORE INSERT OR UPDATE ON pat.token'
            ' FOR EACH ROW EXECUTE FUNCTION pat.before_token()'),
        ('token', 'token_after', 'CREATE TRIGGER token_after AFTER INSERT OR DELETE ON pat.token'
            ' FOR EACH ROW EXECUTE FUNCTION pat.after_token()'),
        ('token', 'token_number', 'CREATE CONSTRAINT TRIGGER token_number AFTER INSERT OR UPDATE ON pat.token'
            ' DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.seq IS NULL)'
            ' EXECUTE FUNCTION pat.number_change()'),
        ('token', 'token_truncate', 'CREATE TRIGGER token_truncate BEFORE TRUNCATE ON pat.token'
            ' FOR EACH STATEMENT EXECUTE FUNCTION pat.refuse_truncate()'),
        ('tombstone', 'tombstone_number', 'CREATE CONSTRAINT TRIGGER tombstone_number'
            ' AFTER INSERT OR UPDATE ON pat.tombstone'
            ' DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.seq IS NULL)'
            ' EXECUTE FUNCTION pat.number_change()'),
        ('tombstone', 'tombstone_truncate', 'CREATE TRIGGER tombstone_truncate BEFORE TRUNCATE ON pat.tombstone'
            ' FOR EACH STATEMENT EXECUTE FUNCTION pat.refuse_truncate()')) AS list (relation, name, definition)
    LOOP
        IF to_regclass('pat.' || wanted.name) IS NULL
            AND NOT EXISTS (SELECT FROM pg_trigger
                            WHERE tgrelid = ('pat.' || wanted.relation)::regclass AND tgname = wanted.name) THEN
            EXECUTE wanted.definition;
        END IF;
    END LOOP;

    FOR wanted IN
        SELECT tgrelid::regclass AS relation, tgname AS name FROM pg_trigger
        WHERE tgrelid IN ('pat.token'::regclass, 'pat.tombstone'::regclass) AND NOT tgisinternal AND tgenabled <> 'A'
    LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', wanted.relation, wanted.name);
    END LOOP;
END
$$;

-- For the platform's pages. Of a digest it shows nothing.
CREATE OR REPLACE VIEW pat.tokens AS
    SELECT token.id, subject, name, scopes, cidrs, claims, issued_at, not_before, expires_at, revoked_at, replaced_by,
           CASE WHEN revoked_at IS NOT NULL THEN 'revoked'
                WHEN expires_at <= now() THEN 'expired'
                WHEN not_before > now() THEN 'not_yet_valid'
                ELSE 'ok' END AS status,
           last_used_at, last_used_from, coalesce(uses, 0) AS uses
    FROM pat.token LEFT JOIN pat.token_use ON token_use.id = token.id;

GRANT SELECT ON pat.tokens TO pat_platform;
