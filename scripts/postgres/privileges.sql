-- What each role may do.

SET LOCAL ROLE pat_owner;

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
    pat.issue(text, text, text[], timestamptz, text[], timestamptz, jsonb, text, bytea, bytea, text, text, inet),
    pat.rotate(text, interval, bytea, bytea, text, text, interval, text, inet),
    pat.revoke(text, text, inet),
    pat.revoke_subject(text, timestamptz, text, inet),
    pat.purge(timestamptz, interval, integer),
    pat.policy_of(text),
    pat.expiring(interval, timestamptz)
TO pat_platform;

GRANT SELECT ON pat.tokens TO pat_platform;

GRANT EXECUTE ON FUNCTION
    pat.tokens_of(text, text, text, text, integer, text),
    pat.issue_for(text, text, text[], timestamptz, text[], timestamptz, text, bytea, inet),
    pat.rotate_for(text, text, interval, interval, text, bytea, inet),
    pat.revoke_for(text, text, inet),
    pat.revoke_digest_for(text, bytea, inet),
    pat.revoke_all_for(text, inet),
    pat.audit_of(text, integer, bigint),
    pat.policy_of(text),
    pat.describe(bytea)
TO pat_profile;

GRANT EXECUTE ON FUNCTION
    pat.find_tokens(text, text, text, text, integer, text),
    pat.issue_as(text, text, text, text[], timestamptz, text[], timestamptz, jsonb, text, bytea, inet),
    pat.rotate_as(text, text, interval, interval, text, bytea, inet),
    pat.revoke_as(text, text, inet),
    pat.revoke_digest_as(text, bytea, inet),
    pat.revoke_all_as(text, text, inet),
    pat.policy_of(text)
TO pat_admin;

GRANT SELECT ON pat.audit_log TO pat_admin, pat_auditor;

GRANT EXECUTE ON FUNCTION pat.audit_lines(bigint, integer) TO pat_auditor;

RESET ROLE;
