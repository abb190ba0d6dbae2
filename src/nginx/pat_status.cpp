#include "nginx/pat_status.h"

#include "core/pat_media.h"
#include "nginx/pat_conf.h"
#include "nginx/pat_status_figures.h"

namespace pat::ngx {

namespace {

/// Checks the method and discards the body. Returns NGX_OK if the handler should respond.
[[nodiscard]] ngx_int_t begin_answer(ngx_http_request_t *r) noexcept
{
    if ((r->method & (NGX_HTTP_GET | NGX_HTTP_HEAD)) == 0) {
        return NGX_HTTP_NOT_ALLOWED;
    }
    return ngx_http_discard_request_body(r);
}

[[nodiscard]] bool read_figures(ngx_http_request_t *r, status_figures &figures) noexcept
{
    const main_conf &mcf = main_conf_of(r);

    auto *stores = allocate<store_figures>(r->pool, mcf.stores.nelts);
    if (stores == nullptr) {
        return false;
    }
    figures.stores = {stores, mcf.stores.nelts};

    for (const store_conf *store : items<store_conf *>(mcf.stores)) {
        *stores = {view(store->path), {store::fault_kind::absent}, {}};
        if (store->reader != nullptr) {
            stores->problem = store->reader->describe(stores->now);
        }
        stores++;
    }

    figures.zone = mcf.zone;
    return mcf.zone == nullptr || read_zone(*mcf.zone, r->pool, figures.counted);
}

[[nodiscard]] bool accepts(const ngx_http_request_t *r, std::string_view type) noexcept
{
    const auto *header = find_header(r, "accept");
    while (header != nullptr) {
        if (names_media_type(view(header->value), type)) {
            return true;
        }
        header = find_header(r, "accept", header);
    }
    return false;
}

[[nodiscard]] status_format negotiate(const ngx_http_request_t *r) noexcept
{
    if (accepts(r, "text/html")) {
        return status_format::html;
    }
    return accepts(r, "text/plain") ? status_format::prometheus : status_format::json;
}

/// Reads the argument "after" of the query, 0 if absent. Returns false if it cannot be a cursor.
[[nodiscard]] bool read_cursor(ngx_http_request_t *r, std::uint64_t &out) noexcept
{
    ngx_str_t name = ngx_string("after");
    ngx_str_t value;

    out = 0;
    if (ngx_http_arg(r, name.data, name.len, &value) != NGX_OK) {
        return true;
    }
    const auto cursor = usage_table::parse_cursor(view(value), ngx_time());
    out = cursor.value_or(0);
    return cursor.has_value();
}

}  // namespace

ngx_int_t handle_status(ngx_http_request_t *r) noexcept
{
    if (const ngx_int_t code = begin_answer(r); code != NGX_OK) {
        return code;
    }

    status_figures figures{};
    if (!read_figures(r, figures)) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    reply answer{r};
    status_format format = loc_conf_of(r).status;
    if (format == status_format::by_accept) {
        format = negotiate(r);
        answer.header("Vary", "Accept");
    }

    switch (format) {
    case status_format::by_accept:
    case status_format::json: write_json(answer, figures); return answer.send("application/json");
    case status_format::prometheus:
        write_prometheus(answer, figures);
        return answer.send("text/plain; version=0.0.4; charset=utf-8");
    case status_format::html: write_page(answer, r->pool, figures); return answer.send("text/html; charset=utf-8");
    }
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
}

ngx_int_t handle_usage(ngx_http_request_t *r) noexcept
{
    if (const ngx_int_t code = begin_answer(r); code != NGX_OK) {
        return code;
    }

    std::uint64_t cursor;
    if (!read_cursor(r, cursor)) {
        ngx_log_error(NGX_LOG_INFO, r->connection->log, 0, "\"after\" is not a cursor of auth_pat_usage");
        return NGX_HTTP_BAD_REQUEST;
    }

    std::span<const token_use> uses;
    if (!report_usage(*main_conf_of(r).zone, *loc_conf_of(r).store, cursor, r->pool, uses)) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    reply answer{r};
    for (const token_use &token : uses) {
        answer("{\"id\":");
        answer.write_string(token.id);
        answer(",\"at\":", token.used_at, ",\"from\":\"");
        answer.write_address(token.peer);
        answer("\",\"count\":", token.count, "}\n");
    }
    answer("{\"cursor\":", cursor, "}\n");
    return answer.send("application/x-ndjson");
}

}  // namespace pat::ngx
