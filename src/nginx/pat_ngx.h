#pragma once

#include <cstddef>
#include <span>
#include <string_view>

// nginx's headers are C, and not clean under these warnings.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wshadow"
extern "C" {
#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include <v2/ngx_http_v2.h>  // ngx_http.h omits it if nginx is built without HTTP/2
}
#pragma GCC diagnostic pop

extern "C" ngx_module_t ngx_http_auth_pat_module;

/// Bridges between nginx's types and ours.
namespace pat::ngx {

/// Stands in for the connection that nginx's debug log expects behind a timer.
inline ngx_connection_t no_connection;

/// Makes `event` a timer (or an event to post) that does not keep a worker from exiting.
inline void prepare_timer(ngx_event_t &event, ngx_event_handler_pt handler, ngx_log_t *log) noexcept
{
    no_connection.fd = static_cast<ngx_socket_t>(-1);

    event.handler = handler;
    event.log = log;
    event.data = &no_connection;  // for ngx_event_ident() in debug logs
    event.cancelable = 1;
}

[[nodiscard]] inline std::string_view view(const ngx_str_t &text) noexcept
{
    return {reinterpret_cast<const char *>(text.data), text.len};
}

/// For nginx functions that take an ngx_str_t and only read it.
[[nodiscard]] inline ngx_str_t to_ngx(std::string_view text) noexcept
{
    return {text.size(), reinterpret_cast<u_char *>(const_cast<char *>(text.data()))};
}

[[nodiscard]] inline std::string_view lower_name(const ngx_table_elt_t &header) noexcept
{
    return view({header.key.len, header.lowcase_key});
}

/// Finds the first request header after `after` (nullptr: from the start) whose lower-case name is right; nullptr if
/// none.
template <typename Predicate>
[[nodiscard]] inline const ngx_table_elt_t *find_header_if(const ngx_http_request_t *r, const Predicate &is_right,
                                                           const ngx_table_elt_t *after = nullptr) noexcept
{
    bool is_after = after == nullptr;
    for (const ngx_list_part_t *part = &r->headers_in.headers.part; part != nullptr; part = part->next) {
        for (const ngx_table_elt_t &header : std::span{static_cast<ngx_table_elt_t *>(part->elts), part->nelts}) {
            if (is_after && is_right(lower_name(header))) {
                return &header;
            }
            is_after = is_after || &header == after;
        }
    }
    return nullptr;
}

/// Likewise, the first with this lower-case name.
[[nodiscard]] inline const ngx_table_elt_t *find_header(const ngx_http_request_t *r, std::string_view name,
                                                        const ngx_table_elt_t *after = nullptr) noexcept
{
    return find_header_if(
        r, [&](std::string_view other) { return other == name; }, after);
}

/// Allocates uninitialised memory for `count` objects without destructors; nullptr if out of memory.
template <typename T>
[[nodiscard]] inline T *allocate(ngx_pool_t *pool, std::size_t count = 1) noexcept
{
    static_assert(__has_trivial_destructor(T));
    return static_cast<T *>(ngx_palloc(pool, count * sizeof(T)));
}

template <typename T>
[[nodiscard]] inline T *push(ngx_array_t &array) noexcept
{
    return static_cast<T *>(ngx_array_push(&array));
}

/// The elements of an array, for a range-based for.
template <typename T>
[[nodiscard]] inline std::span<T> items(const ngx_array_t &array) noexcept
{
    return {static_cast<T *>(array.elts), array.nelts};
}

}  // namespace pat::ngx
