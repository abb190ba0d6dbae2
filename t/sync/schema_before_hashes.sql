-- What the schema was before its rows had hashes, as far as an update must bring it along.

CREATE SCHEMA pat AUTHORIZATION pat_owner;
SET ROLE pat_owner;
GRANT USAGE ON SCHEMA pat TO pat_edge, pat_platform;
CREATE SEQUENCE pat.seq AS bigint NO CYCLE;
CREATE TABLE pat.clock ();
CREATE TABLE pat.subject_lock (bucket integer PRIMARY KEY);
INSERT INTO pat.subject_lock SELECT generate_series(0, 255);
CREATE TABLE pat.history (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row), epoch text NOT NULL, timeline text NOT NULL,
    horizon bigint NOT NULL DEFAULT 0, key_id bytea CHECK (octet_length(key_id) = 8));
INSERT INTO pat.history (epoch, timeline) VALUES ('1234567890ab', '00000001');

CREATE FUNCTION pat.check_token(digest bytea, id text, subject text, name text, scopes text[], cidrs cidr[],
    issued_at timestamptz, not_before timestamptz, expires_at timestamptz, revoked_at timestamptz, claims jsonb)
RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN true; END';
CREATE TABLE pat.token (
    digest bytea PRIMARY KEY, id text COLLATE "C" NOT NULL UNIQUE, subject text COLLATE "C" NOT NULL,
    name text NOT NULL DEFAULT '', scopes text[] NOT NULL DEFAULT '{}', cidrs cidr[] NOT NULL DEFAULT '{}',
    issued_at timestamptz NOT NULL DEFAULT now(), not_before timestamptz, expires_at timestamptz,
    revoked_at timestamptz, claims jsonb NOT NULL DEFAULT '{}', replaced_by text COLLATE "C", seq bigint,
    CONSTRAINT token_check CHECK (pat.check_token(digest, id, subject, name, scopes, cidrs, issued_at, not_before,
                                                  expires_at, revoked_at, claims)));
CREATE TABLE pat.tombstone (digest bytea PRIMARY KEY, deleted_at timestamptz NOT NULL DEFAULT now(), seq bigint);
CREATE TABLE pat.token_use (id text COLLATE "C" PRIMARY KEY, last_used_at timestamptz NOT NULL, last_used_from inet,
                            uses bigint NOT NULL) WITH (fillfactor = 70);
CREATE TABLE pat.edge (
    login name NOT NULL, name text COLLATE "C" NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 255),
    batch bigint NOT NULL, reported_at timestamptz NOT NULL, PRIMARY KEY (login, name)) WITH (fillfactor = 70);
CREATE UNIQUE INDEX token_seq ON pat.token (seq) WHERE seq IS NOT NULL;
CREATE INDEX token_revoked_seq ON pat.token (seq) WHERE revoked_at IS NOT NULL AND seq IS NOT NULL;
CREATE INDEX token_unnumbered ON pat.token (seq) WHERE seq IS NULL;
CREATE INDEX token_subject ON pat.token (subject);
CREATE UNIQUE INDEX tombstone_seq ON pat.tombstone (seq) WHERE seq IS NOT NULL;
CREATE INDEX tombstone_unnumbered ON pat.tombstone (seq) WHERE seq IS NULL;

CREATE FUNCTION pat.after_token() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN INSERT INTO pat.tombstone (digest) VALUES (OLD.digest); RETURN NULL; END';
CREATE FUNCTION pat.number_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('UPDATE pat.%I SET seq = nextval(''pat.seq'') WHERE digest = $1 AND seq IS NULL', TG_TABLE_NAME)
    USING NEW.digest;
    RETURN NULL;
END
$$;
CREATE TRIGGER token_after AFTER DELETE ON pat.token FOR EACH ROW EXECUTE FUNCTION pat.after_token();
CREATE CONSTRAINT TRIGGER token_number AFTER INSERT OR UPDATE ON pat.token DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (NEW.seq IS NULL) EXECUTE FUNCTION pat.number_change();
CREATE CONSTRAINT TRIGGER tombstone_number AFTER INSERT OR UPDATE ON pat.tombstone DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.seq IS NULL) EXECUTE FUNCTION pat.number_change();

CREATE FUNCTION pat.source(OUT epoch text, OUT "position" bigint, OUT horizon bigint, OUT key_id text,
    OUT is_standby boolean, OUT unnumbered boolean) LANGUAGE sql AS $$
    SELECT 'old', max(seq), 0::bigint, NULL, false, false FROM pat.token
$$;
GRANT EXECUTE ON FUNCTION pat.source() TO pat_edge;
