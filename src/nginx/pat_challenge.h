#pragma once

#include "nginx/pat_decision.h"

/// All that a client and the log are told about a decision: status, headers, reasons.
namespace pat::ngx {

/// Writes to the log why a token is refused. `consequence` is what comes of it, with a comma in front.
void log_refusal(ngx_http_request_t *r, const access_decision &decision, const char *consequence) noexcept;

/// Writes to the log what is the matter with a store.
void log_store(ngx_log_t *log, const loc_conf &conf, const finding &finding) noexcept;

/// Tells the client why it is refused, and returns the status of the answer.
[[nodiscard]] ngx_int_t refuse(ngx_http_request_t *r, access_decision &decision, std::string_view realm) noexcept;

/// Takes back what an answer of a location where the request was refused would have had.
inline void take_back_headers(access_decision &decision) noexcept
{
    for (ngx_table_elt_t *header : {decision.challenge, decision.retry_after}) {
        if (header != nullptr) {
            header->hash = 0;
        }
    }
    decision.retry_after = nullptr;
}

}  // namespace pat::ngx
