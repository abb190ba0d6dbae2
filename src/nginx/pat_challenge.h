#pragma once

#include "nginx/pat_decision.h"

/// Everything that the client and the log are told about a decision: status, headers, reasons.
namespace pat::ngx {

/// Logs why a token is refused. `consequence` ends the line: empty, or a comma and what follows from the refusal.
void log_refusal(ngx_http_request_t *r, const access_decision &decision, const char *consequence) noexcept;

/// Logs what is wrong with a store.
void log_store(ngx_log_t *log, const loc_conf &lcf, const finding &finding) noexcept;

/// Tells the client why it is refused: adds the headers, and returns the status of the response.
[[nodiscard]] ngx_int_t refuse(ngx_http_request_t *r, access_decision &decision, std::string_view realm) noexcept;

/// Removes the challenges of an earlier refusal of the same request.
inline void take_back_challenges(const access_decision &decision) noexcept
{
    for (ngx_table_elt_t *header : {decision.bearer_challenge, decision.basic_challenge}) {
        if (header != nullptr) {
            header->hash = 0;
        }
    }
}

/// Removes all of its headers.
inline void take_back_headers(access_decision &decision) noexcept
{
    take_back_challenges(decision);
    if (decision.retry_after != nullptr) {
        decision.retry_after->hash = 0;
        decision.retry_after = nullptr;
    }
}

}  // namespace pat::ngx
