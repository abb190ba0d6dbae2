-- Installs the schema pat, or brings it up to date:
--
--     psql -d DATABASE -f scripts/postgres/install.sql
--
-- as a superuser, or as a role with CREATEROLE that may CREATE in the database. Running it again does no harm.
--
-- Everything is in the schema pat, and nothing needs an extension: managed servers offer different ones, and pgcrypto
-- may live in any schema. What the core has is enough: sha256(), and gen_random_uuid() for random bytes.

\set ON_ERROR_STOP on

BEGIN;

SET LOCAL client_min_messages = warning;
-- Waiting longer for somebody's transaction would hold up everybody who comes after us.
SET LOCAL lock_timeout = '10s';

\ir roles.sql
\ir schema.sql
\ir functions.sql

COMMIT;
