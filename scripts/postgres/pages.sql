-- Functions for pages on which users and administrators manage tokens.
--
-- Those that end in _for take the subject that is signed in, which is the actor as well, and reach no token of another
-- one: an unknown id and the id of another subject's token give the same error. Those that end in _as take the
-- administrator, and reach all tokens. The policy of the token's subject counts for both.

SET LOCAL ROLE pat_owner;

---------------------------------------------------------------------------------------------------------------------
-- Lists
---------------------------------------------------------------------------------------------------------------------

-- The tokens of a subject, or of all, a page at a time: the next one is what follows after the value "page" of the last
-- row. "sort" is created, expires, name, status, subject or used, and descending with a - before it. The search is for
-- a part of the name, the id or the subject, in upper or lower case.
--
-- The key is text that sorts as the column does, so that it can be handed out and taken back. With subject it is the
-- column itself, for the index.
CREATE OR REPLACE FUNCTION pat.list_tokens(of_subject text, search text, with_status text, sort text, "limit" integer,
    after text)
RETURNS TABLE (id text, subject text, name text, scopes text[], cidrs cidr[], claims jsonb, issued_at timestamptz,
    not_before timestamptz, expires_at timestamptz, revoked_at timestamptz, replaced_by text, status text,
    last_used_at timestamptz, last_used_from inet, uses bigint, page text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pat, pg_temp SET timezone = 'UTC'
AS $$
DECLARE
    time_form CONSTANT text := 'YYYYMMDDHH24MISSUS';
    is_descending CONSTANT boolean := starts_with(list_tokens.sort, '-');
    key CONSTANT text := CASE ltrim(list_tokens.sort, '-')
        WHEN 'created' THEN format('to_char(issued_at, %L)', time_form)
        WHEN 'expires' THEN format('coalesce(to_char(expires_at, %L), ''~'')', time_form)
        WHEN 'name' THEN 'lower(name)'
        WHEN 'status' THEN 'array_position(''{ok,not_yet_valid,expired,revoked}'', status)::text'
        WHEN 'subject' THEN 'subject'
        WHEN 'used' THEN format('coalesce(to_char(last_used_at, %L), '''')', time_form) END;
    key_after CONSTANT text := substring(list_tokens.after FROM '^(.*)/[^/]*$');
    id_after CONSTANT text := substring(list_tokens.after FROM '[^/]*$');
BEGIN
    IF key IS NULL THEN
        RAISE EXCEPTION 'tokens cannot be sorted by "%"', list_tokens.sort
            USING ERRCODE = 'invalid_parameter_value',
                HINT = 'sort is created, expires, name, status, subject or used, or one of them with a - before it.';
    END IF;
    IF (list_tokens.with_status IN ('ok', 'not_yet_valid', 'expired', 'revoked')) IS FALSE THEN
        RAISE EXCEPTION 'there is no status "%"', list_tokens.with_status
            USING ERRCODE = 'invalid_parameter_value', HINT = 'status is ok, not_yet_valid, expired or revoked.';
    END IF;
    IF (list_tokens."limit" BETWEEN 1 AND 1000) IS NOT TRUE THEN
        RAISE EXCEPTION 'limit must be from 1 to 1000'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'For more, get the next page with after.';
    END IF;
    IF list_tokens.after IS NOT NULL AND key_after IS NULL THEN
        RAISE EXCEPTION 'after is no value of the column page'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass that of the last row of the previous page.';
    END IF;

    -- Planned with the values of the parameters, so that conditions without one cost nothing.
    RETURN QUERY EXECUTE format(
        'SELECT id, subject, name, scopes, cidrs, claims, issued_at, not_before, expires_at, revoked_at, replaced_by,'
        '       status, last_used_at, last_used_from, uses, key || ''/'' || id'
        ' FROM (SELECT *, (%1$s) COLLATE "C" AS key FROM pat.tokens) AS listed'
        ' WHERE ($1 IS NULL OR subject = $1) AND ($2 IS NULL OR status = $2)'
        '   AND ($3 = '''' OR strpos(lower(name), $3) > 0 OR strpos(lower(id), $3) > 0'
        '        OR ($1 IS NULL AND strpos(lower(subject), $3) > 0))'
        '   AND ($4 IS NULL OR (key, id) %2$s ($4, $5))'
        ' ORDER BY key %3$s, id %3$s LIMIT $6',
        key, CASE WHEN is_descending THEN '<' ELSE '>' END, CASE WHEN is_descending THEN 'DESC' ELSE 'ASC' END)
    USING list_tokens.of_subject, list_tokens.with_status, lower(coalesce(list_tokens.search, '')), key_after, id_after,
        list_tokens."limit";
END
$$;

-- The tokens of a subject. The search is for a part of the name or the id.
CREATE OR REPLACE FUNCTION pat.tokens_of(subject text, search text DEFAULT NULL, with_status text DEFAULT NULL,
    sort text DEFAULT '-created', "limit" integer DEFAULT 100, after text DEFAULT NULL)
RETURNS TABLE (id text, name text, scopes text[], cidrs cidr[], issued_at timestamptz, not_before timestamptz,
    expires_at timestamptz, revoked_at timestamptz, replaced_by text, status text, last_used_at timestamptz,
    last_used_from inet, uses bigint, page text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT listed.id, listed.name, listed.scopes, listed.cidrs, listed.issued_at, listed.not_before,
               listed.expires_at, listed.revoked_at, listed.replaced_by, listed.status, listed.last_used_at,
               listed.last_used_from, listed.uses, listed.page
        FROM pat.list_tokens(coalesce(tokens_of.subject, ''), tokens_of.search, tokens_of.with_status, tokens_of.sort,
                             tokens_of."limit", tokens_of.after) AS listed;
END
$$;

-- The tokens of a subject, or of all. The search is for a part of the name, the id or the subject. Only the order by
-- subject has an index; any other one reads all tokens, unless a subject is given.
CREATE OR REPLACE FUNCTION pat.find_tokens(search text DEFAULT NULL, of_subject text DEFAULT NULL,
    with_status text DEFAULT NULL, sort text DEFAULT 'subject', "limit" integer DEFAULT 100, after text DEFAULT NULL)
RETURNS TABLE (id text, subject text, name text, scopes text[], cidrs cidr[], claims jsonb, issued_at timestamptz,
    not_before timestamptz, expires_at timestamptz, revoked_at timestamptz, replaced_by text, status text,
    last_used_at timestamptz, last_used_from inet, uses bigint, page text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT * FROM pat.list_tokens(find_tokens.of_subject, find_tokens.search, find_tokens.with_status,
                                      find_tokens.sort, find_tokens."limit", find_tokens.after);
END
$$;

-- What happened to the tokens of a subject, newest first; the next page is what came before the last entry of this one.
-- Without the logins of the platform, which are not the subject's business.
CREATE OR REPLACE FUNCTION pat.audit_of(subject text, "limit" integer DEFAULT 100, before bigint DEFAULT NULL)
RETURNS TABLE (entry bigint, at timestamptz, event text, id text, actor text, client inet, detail jsonb)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    IF (audit_of."limit" BETWEEN 1 AND 1000) IS NOT TRUE THEN
        RAISE EXCEPTION 'limit must be from 1 to 1000'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'For more, get the next page with before.';
    END IF;
    RETURN QUERY
        SELECT audit.entry, audit.at, audit.event, audit.id, audit.actor, audit.client, audit.detail FROM pat.audit
        WHERE audit.subject = audit_of.subject AND (audit_of.before IS NULL OR audit.entry < audit_of.before)
        ORDER BY audit.entry DESC LIMIT audit_of."limit";
END
$$;

-- The token with a digest, for whoever presents it: no row if there is none.
CREATE OR REPLACE FUNCTION pat.describe(digest bytea)
RETURNS TABLE (id text, subject text, name text, scopes text[], cidrs cidr[], issued_at timestamptz,
    not_before timestamptz, expires_at timestamptz, revoked_at timestamptz, replaced_by text, status text,
    last_used_at timestamptz, last_used_from inet, uses bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT tokens.id, tokens.subject, tokens.name, tokens.scopes, tokens.cidrs, tokens.issued_at,
               tokens.not_before, tokens.expires_at, tokens.revoked_at, tokens.replaced_by, tokens.status,
               tokens.last_used_at, tokens.last_used_from, tokens.uses
        FROM pat.tokens
        WHERE tokens.id = (SELECT token.id FROM pat.token WHERE token.digest = describe.digest);
END
$$;

---------------------------------------------------------------------------------------------------------------------
-- For a subject
---------------------------------------------------------------------------------------------------------------------

-- Locks the token of a subject, so that it stays the subject's until the end of the transaction. Who locks the subject,
-- too, does so before, as pat.revoke_subject() does.
CREATE OR REPLACE FUNCTION pat.lock_token_of(subject text, id text)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    PERFORM FROM pat.token WHERE token.id = lock_token_of.id AND token.subject = lock_token_of.subject
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the subject has no token with the id "%"', lock_token_of.id
            USING ERRCODE = 'no_data_found', HINT = 'pat.tokens_of(subject) lists the ids.';
    END IF;
END
$$;

-- The id of the token with a digest; with a subject, only of that subject's.
CREATE OR REPLACE FUNCTION pat.id_of(digest bytea, subject text)
RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pat, pg_temp
AS $$
DECLARE
    found text;
BEGIN
    found := (SELECT token.id FROM pat.token
              WHERE token.digest = id_of.digest AND (id_of.subject IS NULL OR token.subject = id_of.subject));
    IF found IS NULL THEN
        RAISE EXCEPTION 'this is not a token %', CASE WHEN id_of.subject IS NULL THEN 'of this database'
                                                      ELSE 'of the subject' END
            USING ERRCODE = 'no_data_found',
                HINT = 'The digest is that of the whole token, with the pepper if there is one.';
    END IF;
    RETURN found;
END
$$;

-- Without claims, which the platform vouches for, and without a digest or an id of the caller's, which would tell
-- whether another subject has it.
CREATE OR REPLACE FUNCTION pat.issue_for(subject text, name text DEFAULT '', scopes text[] DEFAULT '{}',
    expires_at timestamptz DEFAULT now() + interval '2160 hours', cidrs text[] DEFAULT '{}',
    not_before timestamptz DEFAULT NULL, prefix text DEFAULT 'ropat_', pepper bytea DEFAULT NULL,
    client inet DEFAULT NULL, OUT id text, OUT token text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    SELECT issued.id, issued.token INTO id, token
    FROM pat.issue(issue_for.subject, issue_for.name, issue_for.scopes, issue_for.expires_at, issue_for.cidrs,
                   issue_for.not_before, prefix => issue_for.prefix, pepper => issue_for.pepper,
                   actor => coalesce(issue_for.subject, ''), client => issue_for.client) AS issued;
END
$$;

CREATE OR REPLACE FUNCTION pat.rotate_for(subject text, INOUT id text, overlap interval DEFAULT '24 hours',
    lifetime interval DEFAULT NULL, prefix text DEFAULT 'ropat_', pepper bytea DEFAULT NULL, client inet DEFAULT NULL,
    OUT token text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    PERFORM pat.lock_policy(subject);
    PERFORM pat.lock_token_of(subject, id);
    SELECT rotated.id, rotated.token INTO id, token
    FROM pat.rotate(id, overlap, pepper, prefix => prefix, lifetime => lifetime, actor => subject, client => client)
        AS rotated;
END
$$;

CREATE OR REPLACE FUNCTION pat.revoke_for(subject text, id text, client inet DEFAULT NULL)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    PERFORM pat.lock_token_of(subject, id);
    RETURN pat.revoke(id, actor => subject, client => client);
END
$$;

-- For a token that was pasted: the caller computes the digest. is_new is false if the token was revoked before.
CREATE OR REPLACE FUNCTION pat.revoke_digest_for(subject text, digest bytea, client inet DEFAULT NULL, OUT id text,
    OUT is_new boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    id := pat.id_of(digest, coalesce(subject, ''));
    is_new := pat.revoke_for(subject, id, client);
END
$$;

CREATE OR REPLACE FUNCTION pat.revoke_all_for(subject text, client inet DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    RETURN pat.revoke_subject(subject, actor => coalesce(subject, ''), client => client);
END
$$;

---------------------------------------------------------------------------------------------------------------------
-- For administrators
---------------------------------------------------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION pat.issue_as(actor text, subject text, name text DEFAULT '', scopes text[] DEFAULT '{}',
    expires_at timestamptz DEFAULT now() + interval '2160 hours', cidrs text[] DEFAULT '{}',
    not_before timestamptz DEFAULT NULL, claims jsonb DEFAULT '{}', prefix text DEFAULT 'ropat_',
    pepper bytea DEFAULT NULL, client inet DEFAULT NULL, OUT id text, OUT token text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    SELECT issued.id, issued.token INTO id, token
    FROM pat.issue(issue_as.subject, issue_as.name, issue_as.scopes, issue_as.expires_at, issue_as.cidrs,
                   issue_as.not_before, issue_as.claims, issue_as.prefix, issue_as.pepper,
                   actor => coalesce(issue_as.actor, ''), client => issue_as.client) AS issued;
END
$$;

CREATE OR REPLACE FUNCTION pat.rotate_as(actor text, INOUT id text, overlap interval DEFAULT '24 hours',
    lifetime interval DEFAULT NULL, prefix text DEFAULT 'ropat_', pepper bytea DEFAULT NULL, client inet DEFAULT NULL,
    OUT token text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
    SELECT rotated.id, rotated.token INTO id, token
    FROM pat.rotate(id, overlap, pepper, prefix => prefix, lifetime => lifetime, actor => coalesce(actor, ''),
                    client => client) AS rotated;
END
$$;

CREATE OR REPLACE FUNCTION pat.revoke_as(actor text, id text, client inet DEFAULT NULL)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    RETURN pat.revoke(id, actor => coalesce(actor, ''), client => client);
END
$$;

CREATE OR REPLACE FUNCTION pat.revoke_digest_as(actor text, digest bytea, client inet DEFAULT NULL, OUT id text,
    OUT is_new boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    id := pat.id_of(digest, NULL);
    is_new := pat.revoke_as(actor, id, client);
END
$$;

CREATE OR REPLACE FUNCTION pat.revoke_all_as(actor text, subject text, client inet DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pat, pg_temp
AS $$
BEGIN
    RETURN pat.revoke_subject(subject, actor => coalesce(actor, ''), client => client);
END
$$;

RESET ROLE;
