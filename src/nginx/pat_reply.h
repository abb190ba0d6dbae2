#pragma once

#include "core/pat_address.h"
#include "nginx/pat_ngx.h"

#include <concepts>
#include <cstdint>

/// Response headers, and the responses of the module's content handlers.
namespace pat::ngx {

/// Adds a header to the response; nullptr if out of memory.
[[nodiscard]] ngx_table_elt_t *push_header(ngx_http_request_t *r, std::string_view name, ngx_str_t value) noexcept;

/// Collects the body of a response in the request's pool, and sends it. If memory runs out, send() reports it.
class reply {
public:
    explicit reply(ngx_http_request_t *r) noexcept : request_{r} {}

    void write(std::string_view text) noexcept;
    void write(const char *text) noexcept { write(std::string_view{text}); }
    void write(std::integral auto number) noexcept { write_number(static_cast<std::int64_t>(number)); }

    /// Writes a JSON string (RFC 8259, section 7) with its quotes. Escapes `<`, so that it is safe within HTML.
    void write_string(std::string_view text) noexcept;

    /// Writes the value of a label in Prometheus's exposition format, with its quotes.
    void write_label(std::string_view text) noexcept;

    /// Writes an address as text, or nothing if its family is unknown.
    void write_address(const address &peer) noexcept;

    /// Writes several parts in order.
    template <typename... Parts>
    void operator()(const Parts &...parts) noexcept
    {
        (write(parts), ...);
    }

    /// Adds a header; its value must last as long as the request.
    void header(std::string_view name, std::string_view value) noexcept;

    /// Has send() respond with 500 because memory ran out.
    void fail() noexcept { failed_ = true; }

    /// Sends the response with status 200 and forbids caching it. A content handler returns the result.
    [[nodiscard]] ngx_int_t send(std::string_view content_type) noexcept;

private:
    void write_number(std::int64_t number) noexcept;
    void write_escaped(std::string_view text, bool is_json) noexcept;

    ngx_http_request_t *request_;
    ngx_chain_t *first_ = nullptr;
    ngx_chain_t *last_ = nullptr;
    off_t length_ = 0;
    bool failed_ = false;
};

}  // namespace pat::ngx
