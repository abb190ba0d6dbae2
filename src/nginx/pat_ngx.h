#pragma once

#include <cstddef>
#include <string_view>

// nginx's headers are C, and not written for -Wpedantic and the like.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wshadow"
extern "C" {
#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
}
#pragma GCC diagnostic pop

extern "C" ngx_module_t ngx_http_auth_pat_module;

/// Bridges between nginx's types and ours.
namespace pat::ngx {

[[nodiscard]] inline std::string_view view(const ngx_str_t &text) noexcept
{
    return {reinterpret_cast<const char *>(text.data), text.len};
}

/// For nginx functions that take an ngx_str_t and only read it.
[[nodiscard]] inline ngx_str_t to_ngx(std::string_view text) noexcept
{
    return {text.size(), reinterpret_cast<u_char *>(const_cast<char *>(text.data()))};
}

/// Uninitialised memory for `count` objects of a type that needs no destructor; nullptr if there is none.
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

template <typename T>
[[nodiscard]] inline T *begin(const ngx_array_t &array) noexcept
{
    return static_cast<T *>(array.elts);
}

template <typename T>
[[nodiscard]] inline T *end(const ngx_array_t &array) noexcept
{
    return begin<T>(array) + array.nelts;
}

}  // namespace pat::ngx
