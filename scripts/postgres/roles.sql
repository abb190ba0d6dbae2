-- Roles without login. Grant them to the logins of the platform and of pat-sync:
--
--     GRANT pat_platform TO shop;
--     GRANT pat_edge TO edge_fra1;
--
-- pat_owner     owns the schema; for operators: pat.new_epoch(), pat.number_changes(), pat.use_pepper(), policies
-- pat_platform  issues, rotates, revokes and purges tokens, and reads the view pat.tokens
-- pat_profile   does so for one subject at a time, by functions alone: for a page on which users manage their tokens
-- pat_admin     does so for all subjects, by functions that demand who acts; reads the audit
-- pat_auditor   reads the audit
-- pat_edge      reads changes and snapshots, and records use

DO $$
DECLARE
    role text;
BEGIN
    IF current_setting('server_version_num')::integer < 130000 THEN
        RAISE EXCEPTION 'PostgreSQL % is too old', current_setting('server_version')
            USING ERRCODE = 'feature_not_supported', HINT = 'The schema pat needs PostgreSQL 13 or newer.';
    END IF;
    IF current_setting('server_encoding') <> 'UTF8' THEN
        RAISE EXCEPTION 'the encoding of database "%" is %, but the edges need UTF8',
            current_database(), current_setting('server_encoding')
            USING ERRCODE = 'feature_not_supported', HINT = 'CREATE DATABASE … ENCODING ''UTF8'' TEMPLATE template0';
    END IF;

    FOREACH role IN ARRAY ARRAY['pat_owner', 'pat_platform', 'pat_profile', 'pat_admin', 'pat_auditor', 'pat_edge'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        END IF;
    END LOOP;

    -- Only members of pat_owner can create objects that it owns; a superuser counts as one.
    IF NOT pg_has_role('pat_owner', 'USAGE') THEN
        EXECUTE format('GRANT pat_owner TO %I', current_user);
    END IF;
END
$$;
