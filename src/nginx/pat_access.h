#pragma once

#include "core/pat_policy.h"
#include "nginx/pat_module.h"
#include "nginx/pat_recheck.h"

/// Deciding about a request: in the access phase, and before it where a variable asks.
namespace pat::ngx {

/// What was decided about a request. It survives internal redirects.
struct decision {
    const loc_conf *conf;  ///< under which it was made
    bool off;              ///< validation is off here; the rest says nothing
    bool enforced;         ///< in the access phase, so that it counts until the next one that is
    bool under_way;        ///< it is being made; who asks for it now would decide about itself
    bool was_asked_for;    ///< while it was under way
    bool has_record;
    bool let_in;      ///< by the outcome, or in spite of it (auth_pat_fail_open)
    bool fails_open;  ///< the outcome comes from the store, and not from the token
    verdict outcome;
    ngx_int_t require_status;  ///< of the answer, if the outcome is require_denied
    record token;              ///< if `has_record`; the token may be expired, revoked, or not sufficient
    token_key key;             ///< of what was presented
    facts request;
    recheck_place place;
    ngx_table_elt_t *retry_after;  ///< as it stands in the response
    ngx_table_elt_t *challenge;    ///< WWW-Authenticate, as it stands in the response
};

/// The handler of the access phase.
ngx_int_t handle_access(ngx_http_request_t *r) noexcept;

/// Looks again at the token of a request that was let in and is not over. False if it is not to go on; the decision
/// then says why.
[[nodiscard]] bool recheck(ngx_http_request_t *r, decision &made) noexcept;

/// Closes a request that is under way, because of what the decision says now. It may take until later, while nginx
/// waits for a file or for the lock of a cache entry (r->blocked); `is_news` is false if that was told before.
void close_request(ngx_http_request_t *r, const decision &made, bool is_news) noexcept;

#if (nginx_version < 1023000)
/// A handler of the precontent phase: takes back the challenge of a request that was let in. nginx does so by itself,
/// but before 1.23 for one header only, which auth_basic may have put in the place of ours.
ngx_int_t take_back_challenge(ngx_http_request_t *r) noexcept;
#endif

/// The decision that counts for a variable: the one that was enforced last, or else one made now for the location the
/// request is in. For a subrequest it is that of the main request. nullptr if there is no memory, or if what is asked
/// for is part of what the decision is made from.
[[nodiscard]] const decision *current_decision(ngx_http_request_t *r) noexcept;

}  // namespace pat::ngx
