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
-- transactions have open does not matter: SET CONSTRAINTS brings no number earlier, see pat.at_commit(). A number that
-- is missing belonged to a transaction that was rolled back. Others wait while a transaction numbers its changes: import
-- many tokens in portions of some hundreds.
--
-- The triggers fire in sessions with session_replication_role = replica as well. So a subscriber of logical
-- replication gives numbers of its own, which are good for its edges: publish pat.token alone, for it makes its own
-- tombstones, too.
--
-- Triggers can be off (ALTER TABLE … DISABLE TRIGGER, pg_restore --disable-triggers), and ENABLE TRIGGER does not bring
-- ENABLE ALWAYS back. So each row says by itself whether the numbering has seen it as it is:
--
--     numbered_hash = what the numbering saw   is_numbered = (numbered_hash = hash of the row), generated and stored
--
-- PostgreSQL computes is_numbered whatever the triggers' state is. A change that has no number yet is found through an
-- index that is empty otherwise, and numbered by the next look of an edge (pat.number_found()) or by an operator
-- (pat.number_changes()). That is also how the changes of transactions get their numbers that ask for none: with
-- pat.notify = off, which PREPARE TRANSACTION needs. What neither notices: a deletion with triggers off, or a row put
-- back together with its old number and hash. "pat-sync compare" finds both, and pat.new_epoch() repairs them.
--
-- What a caller can set (SET, ALTER ROLE … SET) decides nothing but what pat.notify, pat.actor and pat.client are for.

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
GRANT USAGE ON SCHEMA pat TO pat_edge, pat_platform, pat_profile, pat_admin, pat_auditor;

-- Raises an error for a token that an edge would reject, by the rules in docs/store-format.md. One function instead of
-- a constraint for each rule, as it can give hints and is evaluated for every row that gets its number. Strings with a
-- backslash are E'…', which does not depend on standard_conforming_strings.
CREATE OR REPLACE FUNCTION pat.check_token(digest bytea, id text, subject text, name text, scopes text[], cidrs cidr[],
    issued_at timestamptz, not_before timestamptz, expires_at timestamptz, revoked_at timestamptz, claims jsonb)
RETURNS boolean LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pat, pg_temp
AS $$
DECLARE
    control CONSTANT text := E'[\\u0001-\\u001f\\u007f]';
    scope_list text COLLATE "C" := array_to_string(scopes, ' ', '');
    length integer := 64 + octet_length(id) + octet_length(subject) + octet_length(name) + octet_length(scope_list);
    claim record;
    problem text;
    hint text;
BEGIN
    IF octet_length(digest) <> 32 THEN
        problem := 'a digest must have 32 bytes';
        hint := 'It is SHA-256 of the token, or HMAC-SHA-256 with the pepper as the key.';
    ELSIF id COLLATE "C" !~ '^[A-Za-z0-9._:@-]{1,64}$' THEN
        problem := 'an id must have 1 to 64 letters, digits and any of ._:@-';
    ELSIF octet_length(subject) NOT BETWEEN 1 AND 255 OR subject COLLATE "C" ~ control THEN
        problem := 'a subject must have 1 to 255 bytes, and no control characters';
    ELSIF octet_length(name) > 255 OR name COLLATE "C" ~ control THEN
        problem := 'a name must have at most 255 bytes, and no control characters';
    ELSIF cardinality(scopes) > 0
        AND (array_ndims(scopes) <> 1
             OR scope_list !~ E'^[\\u0021\\u0023-\\u005b\\u005d-\\u007e]+( [\\u0021\\u0023-\\u005b\\u005d-\\u007e]+)*$'
             OR cardinality(string_to_array(scope_list, ' ')) <> cardinality(scopes)) THEN
        problem := 'a scope must have one or more printable ASCII characters, and no space, quotation mark or backslash';
        hint := 'Use one element for each scope: ARRAY[''read'', ''write''].';
    ELSIF cardinality(cidrs) > 0 AND (array_ndims(cidrs) <> 1 OR array_position(cidrs, NULL) IS NOT NULL) THEN
        problem := 'cidrs must be a one-dimensional array without NULL';
    ELSIF least(issued_at, not_before, expires_at, revoked_at) < '1970-01-01 00:00:01+00'
        OR greatest(issued_at, not_before, expires_at, revoked_at) > '9999-12-31 23:59:59+00' THEN
        problem := 'a time must be later than 1970-01-01 00:00:00, and not later than the year 9999, UTC';
        hint := 'For no limit, set it to NULL.';
    ELSIF jsonb_typeof(claims) <> 'object' THEN
        problem := 'claims must be a JSON object';
        hint := 'For example {"plan": "pro"}.';
    END IF;

    IF problem IS NULL AND claims <> '{}' THEN
        FOR claim IN SELECT key, value, jsonb_typeof(value) AS type, value #>> '{}' AS text FROM jsonb_each(claims) LOOP
            IF claim.key COLLATE "C" !~ '^[a-z0-9_]{1,64}$' THEN
                problem := 'the name of a claim must have 1 to 64 lower-case letters, digits and _';
            ELSIF claim.type <> 'string' OR claim.text COLLATE "C" ~ control THEN
                problem := 'the value of a claim must be a string without control characters';
            END IF;
            length := length + 3 + octet_length(claim.key) + coalesce(octet_length(claim.text), 0);
        END LOOP;
    END IF;

    IF problem IS NULL AND cardinality(cidrs) > 0 THEN
        -- Edges store an IPv4-mapped range as an IPv4 range.
        length := length + (SELECT sum(CASE WHEN family(range) = 4 OR range <<= '::ffff:0:0/96' THEN 6 ELSE 18 END)
                            FROM unnest(cidrs) AS range);
    END IF;
    IF problem IS NULL AND length > 4096 THEN
        problem := format('a token can take at most 4096 bytes at the edges, and this one takes %s', length);
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

-- Raises an error for invalid values in a new token or in an update. Not a part of the constraint, so that a row that
-- was valid once can always be revoked, deleted and numbered; also by INSERT … ON CONFLICT (digest) DO UPDATE, which
-- passes the row unchanged.
CREATE OR REPLACE FUNCTION pat.check_new(subject text, scopes text[], claims jsonb, digest bytea DEFAULT NULL)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pat, pg_temp
AS $$
DECLARE
    problem text;
    hint text;
    bad text;
BEGIN
    IF jsonb_typeof(claims) = 'object' THEN
        bad := (SELECT key FROM jsonb_each_text(claims) WHERE value COLLATE "C" ~ '^ | $' LIMIT 1);
    END IF;
    IF check_new.subject COLLATE "C" ~ '^ | $' THEN
        problem := format('the subject "%s" begins or ends with a blank', check_new.subject);
        hint := 'Remove the blank: upstreams would receive the subject without it, as another subject.';
    ELSIF bad IS NOT NULL THEN
        problem := format('the value of the claim "%s" begins or ends with a blank', bad);
        hint := 'Remove the blank: upstreams would receive the value without it.';
    ELSE
        bad := (SELECT scope FROM unnest(scopes) AS scope WHERE scope COLLATE "C" ~ ',|^{|^[^{]*}$' LIMIT 1);
        IF bad IS NOT NULL THEN
            problem := format('the scope "%s" looks like a list of scopes', bad);
            hint := format('Use one element for each scope: ARRAY[%s].', (
                SELECT string_agg(quote_literal(part), ', ') FROM unnest(string_to_array(btrim(bad, '{}'), ',')) AS part));
        END IF;
    END IF;

    IF problem IS NOT NULL AND NOT EXISTS (
        SELECT FROM pat.token AS known
        WHERE known.digest = check_new.digest AND (known.subject, known.scopes, known.claims)
            = (check_new.subject, check_new.scopes, check_new.claims)) THEN
        RAISE EXCEPTION '%', problem
            USING ERRCODE = 'check_violation', HINT = hint, SCHEMA = 'pat', TABLE = 'token';
    END IF;
END
$$;

-- A salt for the hashes, so that a row copied from another database together with its number and hash is detected. A
-- function, as a generated column cannot read a table.
DO $$
BEGIN
    IF to_regprocedure('pat.salt()') IS NULL THEN
        EXECUTE format('CREATE FUNCTION pat.salt() RETURNS text LANGUAGE sql IMMUTABLE AS %L',
                       format('SELECT %L::text', gen_random_uuid()));
    END IF;
END
$$;

-- The hash of a token at its numbering: SHA-256 of everything that an edge receives, one value per line, and of the
-- number. No value contains a control character. The text depends on no setting and no version: times are the eight
-- bytes of timestamptz_send() (in hex, "-" for NULL), addresses and JSON the output of their types. If this text
-- changes, all tokens must be numbered again.
CREATE OR REPLACE FUNCTION pat.content_hash(digest bytea, id text, subject text, name text, scopes text[],
    cidrs cidr[], issued_at timestamptz, not_before timestamptz, expires_at timestamptz, revoked_at timestamptz,
    claims jsonb, seq bigint)
RETURNS bytea LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    RETURN sha256(convert_to(
        pat.salt() || chr(10) || encode(digest, 'hex') || chr(10) || id || chr(10) || subject || chr(10) || name
            || chr(10) || array_to_string(scopes, ' ') || chr(10) || array_to_string(cidrs, ' ')
            || chr(10) || encode(timestamptz_send(issued_at), 'hex')
            || chr(10) || coalesce(encode(timestamptz_send(not_before), 'hex'), '-')
            || chr(10) || coalesce(encode(timestamptz_send(expires_at), 'hex'), '-')
            || chr(10) || coalesce(encode(timestamptz_send(revoked_at), 'hex'), '-')
            || chr(10) || claims::text || chr(10) || seq,
        'UTF8'));
END
$$;

CREATE SEQUENCE IF NOT EXISTS pat.seq AS bigint NO CYCLE;

-- The highest number given. A sequence, so that SERIALIZABLE transactions notice if pat.seq fell behind it: reading the
-- tables would conflict with every other writer, and show an old state. They do not notice a restore that set this
-- sequence back as well. The next look of an edge, or a change at another isolation level, does, unless SERIALIZABLE
-- transactions have given all the lost numbers again by then.
CREATE SEQUENCE IF NOT EXISTS pat.highest AS bigint MINVALUE 0 START 0 NO CYCLE;

-- A part of the epoch: 0, then a new random value each time that pat.seq has fallen behind and is set. A sequence, as
-- setting pat.seq survives a rollback, and so must the new epoch. Random instead of consecutive, as a restore or a
-- crash may bring back an old value.
CREATE SEQUENCE IF NOT EXISTS pat.catch_ups AS bigint MINVALUE 0 START 0 NO CYCLE;

-- The lock. Empty, so that nobody else has a reason to lock it.
CREATE TABLE IF NOT EXISTS pat.clock ();

-- Locks for subjects: creating a token takes FOR SHARE, pat.revoke_subject() takes FOR UPDATE, see pat.lock_subject().
-- Rows instead of advisory locks, as only this schema can lock them. They are never updated, so that REPEATABLE READ
-- can wait for them.
CREATE TABLE IF NOT EXISTS pat.subject_lock (bucket integer PRIMARY KEY);

INSERT INTO pat.subject_lock SELECT generate_series(0, 255) ON CONFLICT DO NOTHING;

-- The state of the database as a whole, in one row.
CREATE TABLE IF NOT EXISTS pat.history (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch    text NOT NULL,                           -- a part of the epoch for edges: see pat.source()
    timeline text NOT NULL,                           -- of PostgreSQL, as of the last change
    horizon  bigint NOT NULL DEFAULT 0,               -- the highest number of a dropped tombstone
    key_id   bytea CHECK (octet_length(key_id) = 8)   -- NULL: digests without a pepper
);

CREATE TABLE IF NOT EXISTS pat.token (
    digest      bytea PRIMARY KEY,
    id          text COLLATE "C" NOT NULL UNIQUE,
    subject     text COLLATE "C" NOT NULL,
    name        text NOT NULL DEFAULT '',
    scopes      text[] NOT NULL DEFAULT '{}',
    cidrs       cidr[] NOT NULL DEFAULT '{}',         -- empty: every address
    issued_at   timestamptz NOT NULL DEFAULT now(),
    not_before  timestamptz,
    expires_at  timestamptz,                          -- NULL: never
    revoked_at  timestamptz,
    claims      jsonb NOT NULL DEFAULT '{}',
    replaced_by text COLLATE "C",                     -- the id given by pat.rotate(); not sent to edges
    seq         bigint,                               -- NULL until the change has a number
    numbered_hash   bytea,                            -- pat.content_hash() when it got the number
    numbered_digest bytea,                            -- its digest then, which edges may still have
    is_numbered boolean NOT NULL GENERATED ALWAYS AS (
        seq IS NOT NULL AND numbered_hash IS NOT DISTINCT FROM pat.content_hash(
            digest, id, subject, name, scopes, cidrs, issued_at, not_before, expires_at, revoked_at, claims, seq)) STORED,
    CONSTRAINT token_check CHECK (pat.check_token(digest, id, subject, name, scopes, cidrs, issued_at, not_before,
                                                  expires_at, revoked_at, claims))
);

-- Migration from a version without hashes. Rows with a number are taken as they are, though they may have been changed
-- with triggers off since, perhaps by a revocation that no edge knows. So each edge takes a snapshot. The table is
-- rewritten twice, and blocked for reading and writing during that time.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'pat.token'::regclass AND attname = 'is_numbered') THEN
        ALTER TABLE pat.token
            ADD COLUMN numbered_hash bytea GENERATED ALWAYS AS (
                CASE WHEN seq IS NOT NULL THEN pat.content_hash(digest, id, subject, name, scopes, cidrs, issued_at,
                    not_before, expires_at, revoked_at, claims, seq) END) STORED,
            ADD COLUMN numbered_digest bytea GENERATED ALWAYS AS (
                CASE WHEN seq IS NOT NULL THEN digest END) STORED;
        ALTER TABLE pat.token
            ALTER COLUMN numbered_hash DROP EXPRESSION,
            ALTER COLUMN numbered_digest DROP EXPRESSION;
        ALTER TABLE pat.token
            ADD COLUMN is_numbered boolean NOT NULL GENERATED ALWAYS AS (
                seq IS NOT NULL AND numbered_hash IS NOT DISTINCT FROM pat.content_hash(digest, id, subject, name,
                    scopes, cidrs, issued_at, not_before, expires_at, revoked_at, claims, seq)) STORED;
        DROP TRIGGER IF EXISTS token_number ON pat.token;
        DROP TRIGGER IF EXISTS tombstone_number ON pat.tombstone;
        DROP FUNCTION IF EXISTS pat.number_change();
        DROP INDEX IF EXISTS pat.token_unnumbered, pat.tombstone_unnumbered;
        UPDATE pat.history SET epoch = left(replace(gen_random_uuid()::text, '-', ''), 12);
    END IF;
END
$$;

-- Deleted tokens, for edges that still have them.
CREATE TABLE IF NOT EXISTS pat.tombstone (
    digest     bytea PRIMARY KEY,
    deleted_at timestamptz NOT NULL DEFAULT now(),
    seq        bigint
);

-- Separate from pat.token, so that recording use neither changes the token for edges nor locks its row.
CREATE TABLE IF NOT EXISTS pat.token_use (
    id             text COLLATE "C" PRIMARY KEY,
    last_used_at   timestamptz NOT NULL,
    last_used_from inet,
    uses           bigint NOT NULL
) WITH (fillfactor = 70);

-- A batch of uses until the end of its transaction, when it is added to pat.token_use and pat.edge: so their rows are
-- locked only during the commit, however long an edge keeps its transaction open.
CREATE TABLE IF NOT EXISTS pat.use_report (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    login name NOT NULL,
    edge  text COLLATE "C" NOT NULL CHECK (octet_length(edge) BETWEEN 1 AND 255),
    batch bigint NOT NULL,
    ids       text[] NOT NULL,          -- these four arrays have one element per token
    used_at   timestamptz[] NOT NULL,
    used_from inet[] NOT NULL,
    times     bigint[] NOT NULL
);

-- Requests of edges to number changes at the end of their transactions.
CREATE TABLE IF NOT EXISTS pat.request (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);

-- Work postponed until the transaction commits, and one row without a key that triggers all of it. Empty after each
-- transaction: see pat.at_commit().
CREATE TABLE IF NOT EXISTS pat.early (relation text, key text);

-- Always empty: see pat.is_early().
CREATE TABLE IF NOT EXISTS pat.probe (name text);

-- The last batch of each edge. Keyed by login, so that other logins cannot interfere.
CREATE TABLE IF NOT EXISTS pat.edge (
    login       name NOT NULL,
    name        text COLLATE "C" NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 255),
    batch       bigint NOT NULL,
    reported_at timestamptz NOT NULL,
    PRIMARY KEY (login, name)
) WITH (fillfactor = 70);

-- What tokens of a class of subjects may be. NULL: no limit. A subject without a class is in the class "default", which
-- allows everything until an operator says otherwise: see pat.set_policy().
CREATE TABLE IF NOT EXISTS pat.policy (
    class            text COLLATE "C" PRIMARY KEY
        CONSTRAINT policy_class CHECK (class ~ '^[A-Za-z0-9._:@-]{1,64}$'),
    longest_lifetime interval                       -- demands an expiry, too
        CONSTRAINT policy_lifetime CHECK (
            longest_lifetime > interval '0' AND date_part('year', longest_lifetime) = 0
            AND date_part('month', longest_lifetime) = 0),
    expiry_demanded  boolean NOT NULL DEFAULT false,
    most_tokens      integer CONSTRAINT policy_most_tokens CHECK (most_tokens >= 0),
    scopes           text[] CONSTRAINT policy_scopes CHECK (array_position(scopes, NULL) IS NULL),
    cidrs            cidr[]
        CONSTRAINT policy_cidrs CHECK (cardinality(cidrs) > 0 AND array_position(cidrs, NULL) IS NULL)
);

INSERT INTO pat.policy (class) VALUES ('default') ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS pat.subject_class (
    subject text COLLATE "C" PRIMARY KEY CHECK (octet_length(subject) BETWEEN 1 AND 255),
    class   text COLLATE "C" NOT NULL REFERENCES pat.policy
);

-- Who did what to which token. Written by triggers, so that no way to change a token leaves it out, and never changed
-- afterwards: see pat.guard_audit(). It holds neither tokens nor digests.
--
-- Entries have no number when they are written, for the reason at the top of this file: whoever has read up to 8 would
-- never see a 7 that is committed later. pat.audit_lines() numbers what it finds committed, so that writers of entries
-- wait neither for each other nor for readers.
CREATE TABLE IF NOT EXISTS pat.audit (
    entry      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    event      text NOT NULL,
    id         text COLLATE "C",                    -- of the token
    subject    text COLLATE "C",
    actor      text,                                -- as the caller says: see pat.act_as()
    client     inet,                                -- the same
    login      name NOT NULL DEFAULT session_user,
    login_from inet DEFAULT inet_client_addr(),     -- NULL: a local socket
    detail     jsonb NOT NULL DEFAULT '{}',
    number     bigint
);

CREATE SEQUENCE IF NOT EXISTS pat.audit_seq AS bigint NO CYCLE;

-- The lock of those who number entries. Empty, like pat.clock.
CREATE TABLE IF NOT EXISTS pat.audit_clock ();

INSERT INTO pat.history (epoch, timeline)
VALUES (left(replace(gen_random_uuid()::text, '-', ''), 12), left(pg_walfile_name(pg_current_wal_lsn()), 8))
ON CONFLICT DO NOTHING;

-- The highest number visible in the caller's snapshot.
CREATE OR REPLACE FUNCTION pat.position()
RETURNS bigint LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    RETURN (SELECT greatest(horizon, (SELECT max(seq) FROM pat.token), (SELECT max(seq) FROM pat.tombstone))
            FROM pat.history);
END
$$;

-- The signature in earlier versions.
DROP FUNCTION IF EXISTS pat.catch_up();

DO $$
BEGIN
    IF (SELECT last_value FROM pat.highest) < pat.position() THEN
        PERFORM setval('pat.highest', pat.position());
    END IF;
END
$$;

-- Locks the subject until the end of the transaction, shared or alone. All subjects share 256 rows, so different
-- subjects sometimes wait for each other.
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

-- Removes the number of a changed row, which gets a new one at the end of the transaction; the numbering is an update,
-- too. A row from logical replication has the publisher's number, which does not apply here. It is not checked, as
-- refusing it would stop the replication.
CREATE OR REPLACE FUNCTION pat.before_token()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
DECLARE
    white_space CONSTANT text := E' \t\n\x0b\f\r';
    is_replicated CONSTANT boolean := current_setting('session_replication_role') = 'replica';
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.name := btrim(NEW.name, white_space);
        IF NOT is_replicated THEN
            PERFORM pat.check_new(NEW.subject, NEW.scopes, NEW.claims, NEW.digest);
        END IF;
        PERFORM pat.lock_subject(NEW.subject, false);
        NEW.seq := NULL;
        NEW.numbered_hash := NULL;
        NEW.numbered_digest := NULL;
        RETURN NEW;
    END IF;

    IF NEW.name <> OLD.name THEN
        NEW.name := btrim(NEW.name, white_space);
    END IF;
    IF (NEW.subject, NEW.scopes, NEW.claims) IS DISTINCT FROM (OLD.subject, OLD.scopes, OLD.claims)
        AND NOT is_replicated THEN
        PERFORM pat.check_new(CASE WHEN NEW.subject <> OLD.subject THEN NEW.subject END,
                              CASE WHEN NEW.scopes <> OLD.scopes THEN NEW.scopes END,
                              CASE WHEN NEW.claims <> OLD.claims THEN NEW.claims END);
    END IF;

    IF NEW.subject <> OLD.subject OR (NEW.revoked_at IS NULL AND OLD.revoked_at IS NOT NULL) THEN
        PERFORM pat.lock_subject(NEW.subject, false);
    END IF;
    IF NEW.digest <> OLD.digest OR NEW.id <> OLD.id THEN
        RAISE EXCEPTION 'the digest and the id of a token cannot be changed'
            USING ERRCODE = 'integrity_constraint_violation',
                HINT = 'Issue a new token, and revoke or delete this one.';
    END IF;
    IF (NEW.subject, NEW.name, NEW.scopes, NEW.cidrs, NEW.issued_at, NEW.not_before, NEW.expires_at, NEW.revoked_at,
        NEW.claims)
        IS DISTINCT FROM
        (OLD.subject, OLD.name, OLD.scopes, OLD.cidrs, OLD.issued_at, OLD.not_before, OLD.expires_at, OLD.revoked_at,
        OLD.claims)
        OR (NEW.seq IS DISTINCT FROM OLD.seq AND pg_trigger_depth() = 1 AND is_replicated) THEN
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

CREATE OR REPLACE FUNCTION pat.tell_early()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'early' USING ERRCODE = 'PAT01';
END
$$;

-- Whether the triggers of this name fire because of SET CONSTRAINTS … IMMEDIATE instead of the commit. Tested with
-- another trigger of that name, on pat.probe, which fires immediately or not at all.
CREATE OR REPLACE FUNCTION pat.is_early(name text)
RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pat, pg_temp SET exit_on_error = off
AS $$
BEGIN
    INSERT INTO pat.probe VALUES (is_early.name);
    RAISE EXCEPTION 'not early' USING ERRCODE = 'PAT02';
EXCEPTION
    WHEN SQLSTATE 'PAT01' THEN
        RETURN true;
    WHEN SQLSTATE 'PAT02' THEN
        RETURN false;
END
$$;

-- Overrides synchronous_commit = off: an edge must not act on changes that a crash can undo.
CREATE OR REPLACE FUNCTION pat.make_durable()
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
END
$$;

-- The last number given.
CREATE OR REPLACE FUNCTION pat.last_number()
RETURNS bigint LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    RETURN (SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM pat.seq);
END
$$;

-- The caller must hold the lock on pat.clock.
CREATE OR REPLACE FUNCTION pat.next_number()
RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    RETURN setval('pat.highest', nextval('pat.seq'));
END
$$;

-- Sets the sequence if it is behind, as after logical replication or a partial restore. Edges may already have passed
-- the numbers given since, so each takes a snapshot. The epoch is set first, so that a session that sees the sequence
-- also sees the new epoch.
CREATE OR REPLACE FUNCTION pat.catch_up(reads_tables boolean)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pat, pg_temp
AS $$
DECLARE
    wanted bigint := (SELECT last_value FROM pat.highest);
BEGIN
    IF catch_up.reads_tables THEN
        wanted := greatest(wanted, pat.position());
    END IF;
    IF pat.last_number() < wanted THEN
        PERFORM setval('pat.catch_ups',
                       ('x' || left(replace(gen_random_uuid()::text, '-', ''), 12))::bit(48)::bigint + 1);
        PERFORM setval('pat.highest', wanted);
        PERFORM setval('pat.seq', wanted);
    END IF;
END
$$;

-- Called in a transaction before it numbers changes.
CREATE OR REPLACE FUNCTION pat.begin_numbering()
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pat, pg_temp
AS $$
DECLARE
    timeline_now text;
BEGIN
    -- A transaction that gives numbers must not be prepared, as it would hold the lock until COMMIT PREPARED.
    -- PostgreSQL refuses that because of the NOTIFY below; this adds a hint if the statement is recognizable.
    IF current_query() ~* E'^(\\s|/\\*([^*]|\\*[^/])*\\*/|--[^\\n]*\\n)*prepare\\s+transaction\\s[^;]*;?\\s*$' THEN
        RAISE EXCEPTION 'a transaction that has changed tokens cannot be prepared while it notifies the edges'
            USING ERRCODE = 'feature_not_supported',
                HINT = 'SET LOCAL pat.notify = off, or ALTER ROLE … SET pat.notify = off: the edges then find the'
                    ' change at their next look, at most a second after COMMIT PREPARED.';
    END IF;

    LOCK TABLE pat.clock IN EXCLUSIVE MODE;

    PERFORM pat.catch_up(reads_tables => current_setting('transaction_isolation') <> 'serializable');

    -- Record the timeline with the first change after a promotion: see pat.source().
    timeline_now := left(pg_walfile_name(pg_current_wal_lsn()), 8);
    IF timeline_now <> (SELECT timeline FROM pat.history) THEN
        UPDATE pat.history SET timeline = timeline_now;
    END IF;

    PERFORM pat.make_durable();

    -- The payload is constant, so that PostgreSQL sends one notification per transaction.
    PERFORM pg_notify('pat_changes', '');
END
$$;

-- Gives the token a number, unless it has one already, as after two changes in a transaction, or was deleted again. If
-- its digest was changed with triggers off, edges are told to delete the old one.
CREATE OR REPLACE FUNCTION pat.number_token(digest bytea)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pat, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    former bytea;
    number bigint;
BEGIN
    SELECT numbered_digest INTO former FROM pat.token WHERE token.digest = number_token.digest AND NOT is_numbered;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF former <> number_token.digest AND NOT EXISTS (SELECT FROM pat.token WHERE token.digest = former) THEN
        number := pat.next_number();
        INSERT INTO pat.tombstone (digest, seq) VALUES (former, number)
        ON CONFLICT (digest) DO UPDATE SET deleted_at = excluded.deleted_at, seq = excluded.seq;
    END IF;

    number := pat.next_number();
    UPDATE pat.token SET seq = number, numbered_digest = digest, numbered_hash = pat.content_hash(
        digest, id, subject, name, scopes, cidrs, issued_at, not_before, expires_at, revoked_at, claims, number)
    WHERE token.digest = number_token.digest;
END
$$;

CREATE OR REPLACE FUNCTION pat.number_tombstone(digest bytea)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    UPDATE pat.tombstone SET seq = pat.next_number()
    WHERE tombstone.digest = number_tombstone.digest AND tombstone.seq IS NULL;
END
$$;

-- Numbers some of the changes without a number. A row that violates the rules, which it evaded with triggers off, is
-- left for pat.number_changes() to report. If there are such rows, a second turn starts at a random digest, so that
-- they cannot block the rows behind them for good. A turn ends after some failures, as pat.clock is locked meanwhile.
CREATE OR REPLACE FUNCTION pat.number_some()
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pat, pg_temp SET exit_on_error = off
AS $$
DECLARE
    most_failures CONSTANT integer := 50;
    start bytea := '';
    tokens bytea[];
    tombstones bytea[];
    digest bytea;
    failures integer;
BEGIN
    tombstones := ARRAY(SELECT tombstone.digest FROM pat.tombstone WHERE seq IS NULL
                        ORDER BY tombstone.digest LIMIT 500 FOR NO KEY UPDATE SKIP LOCKED);
    FOR turn IN 1..2 LOOP
        -- Lock the rows before the clock, like every transaction that changes tokens; the second turn does not wait
        -- either. Skip rows that another transaction is changing.
        tokens := ARRAY(SELECT token.digest FROM pat.token WHERE NOT is_numbered AND token.digest >= start
                        ORDER BY token.digest LIMIT 500 FOR NO KEY UPDATE SKIP LOCKED);
        IF turn = 1 THEN
            IF cardinality(tokens) + cardinality(tombstones) = 0 AND pat.last_number() >= pat.position() THEN
                RETURN;
            END IF;
            -- Ignore pat.notify: the NOTIFY prevents an edge from preparing this transaction.
            PERFORM pat.begin_numbering();
            PERFORM pat.catch_up(true);
            FOREACH digest IN ARRAY tombstones LOOP
                PERFORM pat.number_tombstone(digest);
            END LOOP;
        END IF;

        failures := 0;
        FOREACH digest IN ARRAY tokens LOOP
            BEGIN
                PERFORM pat.number_token(digest);
            EXCEPTION WHEN OTHERS THEN
                IF failures = 0 THEN
                    RAISE WARNING 'the token with the digest % cannot be numbered: %', encode(digest, 'hex'), SQLERRM;
                END IF;
                failures := failures + 1;
            END;
            EXIT WHEN failures = most_failures;
        END LOOP;
        EXIT WHEN failures = 0;
        start := sha256(uuid_send(gen_random_uuid()));
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION pat.refuse_truncate()
RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'pat.% cannot be truncated, as the edges would not notice', TG_TABLE_NAME
        USING ERRCODE = 'feature_not_supported', HINT = 'Use DELETE FROM pat.token, or pat.purge().';
END
$$;

-- Adds a batch of uses to pat.token_use and pat.edge.
CREATE OR REPLACE FUNCTION pat.add_use(report bigint)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pat, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    most_edges CONSTANT integer := 1000;
    new pat.use_report;
    is_new boolean;
BEGIN
    DELETE FROM pat.use_report WHERE id = add_use.report RETURNING * INTO STRICT new;

    -- A crash must not undo the batch, which nginx then discards.
    PERFORM pat.make_durable();
    -- Without listeners. Prevents PREPARE TRANSACTION, which would keep the rows below locked.
    PERFORM pg_notify('pat_use', '');

    INSERT INTO pat.edge AS known (login, name, batch, reported_at) VALUES (new.login, new.edge, new.batch, now())
    ON CONFLICT (login, name) DO UPDATE SET batch = excluded.batch, reported_at = now()
        WHERE known.batch < excluded.batch
    RETURNING known.xmax = 0 INTO is_new;
    IF is_new IS NULL THEN
        RETURN;
    END IF;
    IF is_new THEN
        DELETE FROM pat.edge WHERE login = new.login AND name IN (
            SELECT name FROM pat.edge WHERE login = new.login
            ORDER BY reported_at DESC, name <> new.edge, name OFFSET most_edges);
    END IF;

    -- Ordered by id, to avoid deadlocks between edges.
    INSERT INTO pat.token_use AS known (id, last_used_at, last_used_from, uses)
        SELECT * FROM unnest(new.ids, new.used_at, new.used_from, new.times) AS used (id, at, used_from, times)
        WHERE EXISTS (SELECT FROM pat.token WHERE token.id = used.id)
        ORDER BY id COLLATE "C"
    ON CONFLICT (id) DO UPDATE SET
        last_used_from = CASE WHEN excluded.last_used_at >= known.last_used_at THEN excluded.last_used_from
                              ELSE known.last_used_from END,
        last_used_at = greatest(known.last_used_at, excluded.last_used_at),
        uses = least(known.uses::numeric + excluded.uses, 9223372036854775807);
END
$$;

-- The work for a changed row when its transaction commits. With pat.notify = off, a change gets no number until an edge
-- finds it: for prepared transactions, which must not lock pat.clock.
CREATE OR REPLACE FUNCTION pat.finish(relation text, key text)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    IF finish.relation = 'request' THEN
        DELETE FROM pat.request WHERE id = finish.key::bigint;
        PERFORM pat.number_some();
    ELSIF finish.relation = 'use_report' THEN
        PERFORM pat.add_use(finish.key::bigint);
    ELSIF lower(current_setting('pat.notify', true)) IN ('off', 'false', 'no', '0') THEN
        PERFORM pat.make_durable();
    ELSE
        PERFORM pat.begin_numbering();
        IF finish.relation = 'token' THEN
            PERFORM pat.number_token(decode(finish.key, 'hex'));
        ELSE
            PERFORM pat.number_tombstone(decode(finish.key, 'hex'));
        END IF;
    END IF;
END
$$;

-- Runs at the commit, once for each row. If SET CONSTRAINTS fires it earlier, the work is postponed: pat.clock must
-- only be locked right before the commit, and synchronous_commit must not be changed afterwards.
CREATE OR REPLACE FUNCTION pat.at_commit()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
DECLARE
    key text;
BEGIN
    -- If this transaction gave the last number, pat.begin_numbering() is done. SERIALIZABLE does not look, as reading
    -- would conflict with every other writer.
    IF TG_TABLE_NAME = 'token' THEN
        IF current_setting('transaction_isolation') <> 'serializable' AND EXISTS (
            SELECT FROM pat.token
            WHERE seq = (SELECT last_value FROM pat.seq) AND token.xmin = pg_current_xact_id()::xid) THEN
            PERFORM pat.number_token(NEW.digest);
            RETURN NULL;
        END IF;
        key := encode(NEW.digest, 'hex');
    ELSIF TG_TABLE_NAME = 'tombstone' THEN
        IF current_setting('transaction_isolation') <> 'serializable' AND EXISTS (
            SELECT FROM pat.tombstone
            WHERE seq = (SELECT last_value FROM pat.seq) AND tombstone.xmin = pg_current_xact_id()::xid) THEN
            PERFORM pat.number_tombstone(NEW.digest);
            RETURN NULL;
        END IF;
        key := encode(NEW.digest, 'hex');
    ELSE
        key := NEW.id;
    END IF;

    IF pat.is_early('at_commit') THEN
        INSERT INTO pat.early VALUES (TG_TABLE_NAME, key);
        IF NOT EXISTS (SELECT FROM pat.early WHERE early.key IS NULL) THEN
            SET CONSTRAINTS pat.after_early DEFERRED;
            INSERT INTO pat.early DEFAULT VALUES;
        END IF;
    ELSE
        PERFORM pat.finish(TG_TABLE_NAME, key);
    END IF;
    RETURN NULL;
END
$$;

-- Runs once for all postponed work. Its name differs from at_commit, so that it can defer itself without changing the
-- state of the other triggers, which they need to see.
CREATE OR REPLACE FUNCTION pat.after_early()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
DECLARE
    late record;
BEGIN
    IF pat.is_early('after_early') THEN
        SET CONSTRAINTS pat.after_early DEFERRED;
        UPDATE pat.early SET key = NULL WHERE key IS NULL;
        RETURN NULL;
    END IF;
    FOR late IN WITH gone AS (DELETE FROM pat.early RETURNING relation, key)
                SELECT DISTINCT relation, key FROM gone WHERE key IS NOT NULL ORDER BY relation, key LOOP
        PERFORM pat.finish(late.relation, late.key);
    END LOOP;
    RETURN NULL;
END
$$;

-- Says for the rest of the transaction who acts, and from where, in the audit's entries; what is NULL stays as it is.
-- Returns what held before, for pat.act_as_before(). Settings instead of parameters of a trigger, which has none:
--
--     SET LOCAL pat.actor = 'ticket 4711'
--
-- does the same for plain SQL. A caller can say anything there; pat.audit.login is what PostgreSQL knows.
--
-- This function and the next two have no SET, which would cost more than what they do: only functions with a fixed
-- search path call them.
CREATE OR REPLACE FUNCTION pat.act_as(actor text, client inet)
RETURNS text[] LANGUAGE plpgsql
AS $$
DECLARE
    before CONSTANT text[] := ARRAY[coalesce(current_setting('pat.actor', true), ''),
                                    coalesce(current_setting('pat.client', true), '')];
BEGIN
    IF act_as.actor IS NOT NULL THEN
        IF octet_length(act_as.actor) NOT BETWEEN 1 AND 255
            OR act_as.actor COLLATE "C" ~ E'[\\u0001-\\u001f\\u007f]' THEN
            RAISE EXCEPTION 'an actor must have 1 to 255 bytes, and no control characters'
                USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass the user who is signed in.';
        END IF;
        PERFORM set_config('pat.actor', act_as.actor, true);
    END IF;
    IF act_as.client IS NOT NULL THEN
        PERFORM set_config('pat.client', act_as.client::text, true);
    END IF;
    RETURN before;
END
$$;

CREATE OR REPLACE FUNCTION pat.act_as_before(before text[])
RETURNS void LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM set_config('pat.actor', act_as_before.before[1], true),
            set_config('pat.client', act_as_before.before[2], true);
END
$$;

-- Takes any value of the settings, as none may keep a token from being revoked.
CREATE OR REPLACE FUNCTION pat.write_audit(event text, id text, subject text, detail jsonb)
RETURNS void LANGUAGE plpgsql
AS $$
DECLARE
    client CONSTANT text := current_setting('pat.client', true);
BEGIN
    INSERT INTO pat.audit (event, id, subject, actor, client, detail)
    VALUES (write_audit.event, write_audit.id, write_audit.subject,
            nullif(left(current_setting('pat.actor', true), 255), ''),
            CASE WHEN client <> '' THEN pat.to_address(client) END, write_audit.detail);
END
$$;

-- The numbering changes none of the columns that this trigger is for.
CREATE OR REPLACE FUNCTION pat.audit_token()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    internal CONSTANT text[] := '{digest,seq,numbered_hash,numbered_digest,is_numbered}';
    before jsonb;
    after jsonb;
    detail jsonb;
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM pat.write_audit('issued', NEW.id, NEW.subject, jsonb_strip_nulls(jsonb_build_object(
            'name', nullif(NEW.name, ''), 'scopes', nullif(NEW.scopes, '{}'), 'cidrs', nullif(NEW.cidrs, '{}'),
            'claims', nullif(NEW.claims, '{}'), 'not_before', NEW.not_before, 'expires_at', NEW.expires_at,
            'revoked_at', NEW.revoked_at)));
        RETURN NULL;
    ELSIF TG_OP = 'DELETE' THEN
        PERFORM pat.write_audit('deleted', OLD.id, OLD.subject, '{}');
        RETURN NULL;
    END IF;

    IF NEW.revoked_at = now() AND OLD.revoked_at IS NULL
        AND (NEW.id, NEW.subject, NEW.name, NEW.scopes, NEW.cidrs, NEW.issued_at, NEW.not_before, NEW.expires_at,
             NEW.claims, NEW.replaced_by)
            IS NOT DISTINCT FROM
            (OLD.id, OLD.subject, OLD.name, OLD.scopes, OLD.cidrs, OLD.issued_at, OLD.not_before, OLD.expires_at,
             OLD.claims, OLD.replaced_by) THEN
        PERFORM pat.write_audit('revoked', NEW.id, NEW.subject, '{}');
        RETURN NULL;
    END IF;

    before := to_jsonb(OLD) - internal;
    after := to_jsonb(NEW) - internal;
    detail := (SELECT jsonb_object_agg(key, jsonb_build_array(before -> key, after -> key))
               FROM jsonb_object_keys(after) AS key WHERE before -> key <> after -> key);
    IF detail IS NOT NULL THEN
        PERFORM pat.write_audit(
            CASE WHEN NEW.revoked_at IS NOT NULL AND OLD.revoked_at IS NULL THEN 'revoked'
                 WHEN NEW.revoked_at IS NULL AND OLD.revoked_at IS NOT NULL THEN 'restored'
                 WHEN NEW.replaced_by IS NOT NULL AND OLD.replaced_by IS NULL THEN 'rotated'
                 ELSE 'changed' END,
            NEW.id, NEW.subject, detail);
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION pat.audit_policy()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    IF TG_TABLE_NAME = 'policy' THEN
        PERFORM pat.write_audit('policy', NULL, NULL,
                                CASE WHEN TG_OP = 'DELETE' THEN jsonb_build_object('class', OLD.class, 'dropped', true)
                                     ELSE jsonb_strip_nulls(to_jsonb(NEW)) END);
    ELSIF TG_OP = 'DELETE' THEN
        PERFORM pat.write_audit('class', NULL, OLD.subject, '{"class": "default"}');
    ELSE
        PERFORM pat.write_audit('class', NULL, NEW.subject, jsonb_build_object('class', NEW.class));
    END IF;
    RETURN NULL;
END
$$;

-- Refuses every change of the audit but that an entry gets its number, and its end by pat.purge_audit(). The owner of
-- the schema can remove this trigger; it is there against mistakes, not against the owner.
CREATE OR REPLACE FUNCTION pat.guard_audit()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF OLD.number IS NULL AND NEW.number IS NOT NULL THEN
            OLD.number := NEW.number;
            IF NEW IS NOT DISTINCT FROM OLD THEN
                RETURN NEW;
            END IF;
        END IF;
    ELSIF TG_OP = 'DELETE' AND current_setting('pat.is_purging_audit', true) = 'yes' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'the audit cannot be changed'
        USING ERRCODE = 'feature_not_supported',
            HINT = 'pat.purge_audit() deletes old entries, and leaves one that says so.';
END
$$;

CREATE OR REPLACE FUNCTION pat.audit_deletion()
RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp SET timezone = 'UTC'
AS $$
BEGIN
    IF EXISTS (SELECT FROM gone) THEN
        PERFORM pat.write_audit('audit_purged', NULL, NULL, (
            SELECT jsonb_strip_nulls(jsonb_build_object(
                'entries', count(*), 'first', min(gone.at), 'last', max(gone.at), 'last_number', max(gone.number)))
            FROM gone));
    END IF;
    RETURN NULL;
END
$$;

-- The required triggers, as formatted by pg_get_triggerdef(), for comparison by pat.source(), which leaves those of the
-- audit out: edges do not depend on it.
CREATE OR REPLACE FUNCTION pat.wanted_triggers()
RETURNS TABLE (relation text, name text, definition text)
LANGUAGE sql STABLE
AS $$
    VALUES
        ('token', 'token_before', 'CREATE TRIGGER token_before BEFORE INSERT OR UPDATE ON pat.token'
            ' FOR EACH ROW EXECUTE FUNCTION pat.before_token()'),
        ('token', 'token_after', 'CREATE TRIGGER token_after AFTER INSERT OR DELETE ON pat.token'
            ' FOR EACH ROW EXECUTE FUNCTION pat.after_token()'),
        ('token', 'at_commit', 'CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT OR UPDATE ON pat.token'
            ' DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((new.seq IS NULL))'
            ' EXECUTE FUNCTION pat.at_commit()'),
        ('token', 'token_truncate', 'CREATE TRIGGER token_truncate BEFORE TRUNCATE ON pat.token'
            ' FOR EACH STATEMENT EXECUTE FUNCTION pat.refuse_truncate()'),
        ('tombstone', 'at_commit', 'CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT OR UPDATE ON pat.tombstone'
            ' DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((new.seq IS NULL))'
            ' EXECUTE FUNCTION pat.at_commit()'),
        ('tombstone', 'tombstone_truncate', 'CREATE TRIGGER tombstone_truncate BEFORE TRUNCATE ON pat.tombstone'
            ' FOR EACH STATEMENT EXECUTE FUNCTION pat.refuse_truncate()'),
        ('probe', 'at_commit', 'CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON pat.probe'
            ' DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((new.name = ''at_commit''::text))'
            ' EXECUTE FUNCTION pat.tell_early()'),
        ('probe', 'after_early', 'CREATE CONSTRAINT TRIGGER after_early AFTER INSERT ON pat.probe'
            ' DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((new.name = ''after_early''::text))'
            ' EXECUTE FUNCTION pat.tell_early()'),
        ('early', 'after_early', 'CREATE CONSTRAINT TRIGGER after_early AFTER INSERT OR UPDATE ON pat.early'
            ' DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((new.key IS NULL))'
            ' EXECUTE FUNCTION pat.after_early()'),
        ('request', 'at_commit', 'CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON pat.request'
            ' DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pat.at_commit()'),
        ('use_report', 'at_commit', 'CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON pat.use_report'
            ' DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pat.at_commit()'),
        ('token', 'audit_token', 'CREATE TRIGGER audit_token AFTER INSERT OR DELETE OR UPDATE OF id, subject, name,'
            ' scopes, cidrs, issued_at, not_before, expires_at, revoked_at, claims, replaced_by ON pat.token'
            ' FOR EACH ROW EXECUTE FUNCTION pat.audit_token()'),
        ('policy', 'audit_policy', 'CREATE TRIGGER audit_policy AFTER INSERT OR DELETE OR UPDATE ON pat.policy'
            ' FOR EACH ROW EXECUTE FUNCTION pat.audit_policy()'),
        ('subject_class', 'audit_policy', 'CREATE TRIGGER audit_policy AFTER INSERT OR DELETE OR UPDATE'
            ' ON pat.subject_class FOR EACH ROW EXECUTE FUNCTION pat.audit_policy()'),
        ('audit', 'audit_update', 'CREATE TRIGGER audit_update BEFORE UPDATE ON pat.audit'
            ' FOR EACH ROW EXECUTE FUNCTION pat.guard_audit()'),
        ('audit', 'audit_delete', 'CREATE TRIGGER audit_delete BEFORE DELETE OR TRUNCATE ON pat.audit'
            ' FOR EACH STATEMENT EXECUTE FUNCTION pat.guard_audit()'),
        ('audit', 'audit_gone', 'CREATE TRIGGER audit_gone AFTER DELETE ON pat.audit'
            ' REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION pat.audit_deletion()')
$$;

-- The triggers that differ from the above. The output of pg_get_triggerdef() depends on the search path.
CREATE OR REPLACE FUNCTION pat.wrong_triggers()
RETURNS TABLE (relation text, name text, definition text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off
AS $$
BEGIN
    RETURN QUERY
        SELECT * FROM pat.wanted_triggers() AS wanted
        WHERE NOT EXISTS (SELECT FROM pg_trigger
                          WHERE tgrelid = to_regclass('pat.' || wanted.relation) AND tgname = wanted.name
                            AND tgenabled = 'A' AND pg_get_triggerdef(oid) = wanted.definition);
END
$$;

-- Create only what is missing: even CREATE INDEX IF NOT EXISTS waits for all writers.
--
-- The indexes on seq are partial not only because new rows have no number: a column of a plain unique index counts as a
-- key, and updating it waits for every FOR KEY SHARE lock on the row.
DO $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN SELECT * FROM (VALUES
        ('token_seq', 'CREATE UNIQUE INDEX token_seq ON pat.token (seq) WHERE seq IS NOT NULL'),
        ('token_revoked_seq',
         'CREATE INDEX token_revoked_seq ON pat.token (seq) WHERE revoked_at IS NOT NULL AND seq IS NOT NULL'),
        ('token_found', 'CREATE INDEX token_found ON pat.token (digest) WHERE NOT is_numbered'),
        ('token_subject', 'CREATE INDEX token_subject ON pat.token (subject)'),
        ('audit_number', 'CREATE UNIQUE INDEX audit_number ON pat.audit (number) WHERE number IS NOT NULL'),
        ('audit_new', 'CREATE INDEX audit_new ON pat.audit (entry) WHERE number IS NULL'),
        ('audit_subject', 'CREATE INDEX audit_subject ON pat.audit (subject, entry)'),
        ('tombstone_seq', 'CREATE UNIQUE INDEX tombstone_seq ON pat.tombstone (seq) WHERE seq IS NOT NULL'),
        ('tombstone_found', 'CREATE INDEX tombstone_found ON pat.tombstone (digest) WHERE seq IS NULL')
        ) AS list (name, definition)
    LOOP
        IF to_regclass('pat.' || wanted.name) IS NULL THEN
            EXECUTE wanted.definition;
        END IF;
    END LOOP;

    FOR wanted IN SELECT * FROM pat.wrong_triggers() LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS %I ON pat.%I', wanted.name, wanted.relation);
        EXECUTE wanted.definition;
        EXECUTE format('ALTER TABLE pat.%I ENABLE ALWAYS TRIGGER %I', wanted.relation, wanted.name);
    END LOOP;
    IF EXISTS (SELECT FROM pat.wrong_triggers()) THEN
        RAISE EXCEPTION 'this version of PostgreSQL formats trigger definitions differently than pat.wanted_triggers()'
            USING ERRCODE = 'feature_not_supported', HINT = 'Please report it.';
    END IF;
END
$$;

-- Warn of tokens that pat.check_new() would refuse. They stay, and can be revoked, deleted and numbered.
DO $$
DECLARE
    most_named CONSTANT integer := 100;
    found bigint;
    ids text;
BEGIN
    SELECT count(*), string_agg(id, ', ' ORDER BY number) FILTER (WHERE number <= most_named) INTO found, ids
    FROM (SELECT id, row_number() OVER (ORDER BY id) AS number FROM pat.token
          WHERE subject COLLATE "C" ~ '^ | $'
             OR (claims <> '{}' AND EXISTS (SELECT FROM jsonb_each_text(claims) WHERE value COLLATE "C" ~ '^ | $'))
         ) AS odd;
    IF found > 0 THEN
        RAISE WARNING '% tokens have a subject or a claim that begins or ends with a blank: %', found,
            ids || CASE WHEN found > most_named THEN ', …' ELSE '' END
            USING HINT = 'Edges refuse them; those with such a claim as soon as they receive them again, at the latest with'
                ' a snapshot. Issue replacements, then revoke each of these tokens: SELECT pat.revoke(id).';
    END IF;
END
$$;

-- For the platform's pages. Does not show digests.
CREATE OR REPLACE VIEW pat.tokens AS
    SELECT token.id, subject, name, scopes, cidrs, claims, issued_at, not_before, expires_at, revoked_at, replaced_by,
           CASE WHEN revoked_at IS NOT NULL THEN 'revoked'
                WHEN expires_at <= now() THEN 'expired'
                WHEN not_before > now() THEN 'not_yet_valid'
                ELSE 'ok' END AS status,
           last_used_at, last_used_from, coalesce(uses, 0) AS uses
    FROM pat.token LEFT JOIN pat.token_use ON token_use.id = token.id;

CREATE OR REPLACE VIEW pat.audit_log AS
    SELECT entry, at, event, id, subject, actor, client, login, login_from, detail, number FROM pat.audit;
