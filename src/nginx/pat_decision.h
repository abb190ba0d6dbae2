#pragma once

#include "core/pat_policy.h"
#include "nginx/pat_conf.h"
#include "nginx/pat_recheck.h"
#include "nginx/pat_variables.h"
#include "store/pat_fault.h"

/// From what a request presents to a verdict: in the access phase, and before it where a variable asks.
namespace pat::ngx {

/// What was decided about a request. It survives internal redirects.
struct access_decision {
    const loc_conf *conf;  ///< under which it was made
    bool off;              ///< validation is off here; the rest says nothing
    bool enforced;         ///< in the access phase, so that it counts until the next one that is
    bool under_way;        ///< it is being made; who asks for it now would decide about itself
    bool was_asked_for;    ///< while it was under way
    bool never_made;       ///< and never will be: nginx has answered before the access phase
    bool waits_for_body;   ///< a part of the body has come, and not all
    bool was_asked_early;  ///< before nginx began to answer, by a variable
    bool has_challenged;   ///< since the request came to the access phase the last time
    bool has_record;
    bool let_in;      ///< by the outcome, or in spite of it (auth_pat_fail_open)
    bool fails_open;  ///< the outcome comes from the store, and not from the token
    access_verdict verdict;
    ngx_int_t require_status;  ///< of the answer, if the outcome is require_denied
    ngx_msec_t decided_at;     ///< when it was made; ngx_current_msec of that time
    token_record token;        ///< if `has_record`; the token may be expired, revoked, or not sufficient
    token_key key;             ///< of what was presented
    facts request;
    recheck_place place;
    ngx_table_elt_t *retry_after;  ///< as it stands in the response
    ngx_table_elt_t *challenge;    ///< WWW-Authenticate, as it stands in the response
};

/// Of a request that nginx has answered before the access phase.
extern const access_decision no_decision;

/// What the store says of a token.
struct finding {
    access_verdict verdict;
    bool is_of_store;  ///< it tells something about the store, and not about the token or this request
    bool found;
    store::fault problem;  ///< behind a store_error
    std::int64_t heartbeat;
};

/// Adds an empty decision to a request; nullptr if there is no memory.
[[nodiscard]] access_decision *add_decision(ngx_http_request_t *r) noexcept;

/// Makes a decision under `conf`, which has a realm. False if it can't be made: there is no memory, or a realm, token
/// or scope depends on a variable of ours. nginx would take such a variable for empty, and an empty scope demands
/// nothing.
[[nodiscard]] bool make_decision(ngx_http_request_t *r, const loc_conf &conf, bool enforced, ngx_str_t &realm,
                                 access_decision &decision) noexcept;

/// Makes it again for a request that was let in for its token, from what the store says now.
void renew_decision(ngx_http_request_t *r, access_decision &decision) noexcept;

/// Validation can be turned off by the value of the realm, too.
[[nodiscard]] inline bool turns_off(const loc_conf &conf, const ngx_str_t &realm) noexcept
{
    return conf.realm->lengths != nullptr && view(realm) == "off";
}

/// Whether nginx could not make sense of the request, and has refused it without asking any phase. Its error page may
/// be asked for like another request.
[[nodiscard]] inline bool is_unread(ngx_http_request_t *r) noexcept
{
    return progress_of(r) == progress::unread;
}

/// Finds the decision of a request whose contexts were wiped, if it has one. Its pool is still there
/// (ngx_http_realip_module finds its own in the same way).
[[nodiscard]] access_decision *find_kept_decision(ngx_http_request_t *r) noexcept;

/// The decision that was made for this request before, if any. An internal redirect wipes the request's contexts.
[[nodiscard]] inline access_decision *find_decision(ngx_http_request_t *r) noexcept
{
    auto *decision = static_cast<access_decision *>(ngx_http_get_module_ctx(r, ngx_http_auth_pat_module));
    return decision == nullptr && (r->internal || r->filter_finalize) ? find_kept_decision(r) : decision;
}

/// Looks again at the token of a request that was let in and is not over. False if it is not to go on; the decision
/// then says why.
[[nodiscard]] bool recheck(ngx_http_request_t *r, access_decision &decision) noexcept;

/// The decision that counts for a variable: the one that was enforced last, or else one made now for the location the
/// request is in; `never_made` says that there is none. For a subrequest it is that of the main request. nullptr if
/// there is no memory, or if what is asked for is part of what the decision is made from.
[[nodiscard]] const access_decision *current_decision(ngx_http_request_t *r) noexcept;

}  // namespace pat::ngx
