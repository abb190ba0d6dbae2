-- Installs or updates the schema pat:
--
--     psql -d DATABASE -f scripts/postgres/install.sql
--
-- as a superuser, or as a role with CREATEROLE and CREATE on the database. It is safe to run it again.
--
-- Everything is in the schema pat. Extensions are not used, as managed servers offer different ones and pgcrypto may be
-- in any schema; the core's sha256() and gen_random_uuid(), for random bytes, are enough.

\set ON_ERROR_STOP on

BEGIN;

SET LOCAL client_min_messages = warning;
-- A longer wait for another transaction would block all later ones.
SET LOCAL lock_timeout = '10s';

\ir roles.sql
\ir schema.sql
\ir functions.sql
\ir pages.sql
\ir privileges.sql

COMMIT;
