#include "nginx/pat_status.h"

#include "core/pat_bytes.h"
#include "nginx/pat_module.h"
#include "nginx/pat_reply.h"
#include "nginx/pat_status_page.h"
#include "nginx/pat_zone.h"
#include "store/pat_reader.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <iterator>
#include <optional>

#include <openssl/sha.h>

namespace pat::ngx {

namespace {

/// A cursor from farther in the future is not one that a clock made which was wrong. It would stay for ever, as cursors
/// only grow.
constexpr time_t farthest_cursor = time_t{365} * 24 * 3600;

[[nodiscard]] main_conf &main_conf_of(const ngx_http_request_t *r) noexcept
{
    return *static_cast<main_conf *>(ngx_http_get_module_main_conf(r, ngx_http_auth_pat_module));
}

[[nodiscard]] const loc_conf &loc_conf_of(const ngx_http_request_t *r) noexcept
{
    return *static_cast<const loc_conf *>(ngx_http_get_module_loc_conf(r, ngx_http_auth_pat_module));
}

/// What a content handler begins with; NGX_OK if it is to answer.
[[nodiscard]] ngx_int_t begin_answer(ngx_http_request_t *r) noexcept
{
    if ((r->method & (NGX_HTTP_GET | NGX_HTTP_HEAD)) == 0) {
        return NGX_HTTP_NOT_ALLOWED;
    }
    return ngx_http_discard_request_body(r);
}

// ---- the figures

/// A store and what is known of it now.
struct store_figures {
    std::string_view path;
    store::fault problem;
    store::condition now;
};

/// All that a status tells.
struct status {
    const zone_conf *zone;  ///< nullptr: there is none, and only the stores are known
    zone_figures figures;
    std::span<store_figures> stores;
};

[[nodiscard]] bool read_status(ngx_http_request_t *r, status &out) noexcept
{
    const main_conf &conf = main_conf_of(r);

    auto *stores = allocate<store_figures>(r->pool, conf.stores.nelts);
    if (stores == nullptr) {
        return false;
    }
    out.stores = {stores, conf.stores.nelts};

    for (auto **store = begin<store_conf *>(conf.stores); store != end<store_conf *>(conf.stores); store++, stores++) {
        *stores = {view((*store)->path), {store::fault_kind::absent}, {}};
        if ((*store)->reader != nullptr) {
            stores->problem = (*store)->reader->describe(stores->now);
        }
    }

    out.zone = conf.zone;
    if (conf.zone == nullptr) {
        return true;
    }
    return read_zone(*conf.zone, r->pool, out.figures);
}

/// The text of an address; empty if there is none.
[[nodiscard]] std::string_view text_of(const address &from, std::array<u_char, NGX_INET6_ADDRSTRLEN> &buffer) noexcept
{
    if (from.family == address_family::none) {
        return {};
    }
    const int family = from.family == address_family::v4 ? AF_INET : AF_INET6;
    auto *bytes = const_cast<std::byte *>(from.bytes.data());
    return view({ngx_inet_ntop(family, bytes, buffer.data(), buffer.size()), buffer.data()});
}

// ---- JSON

void write_counts(reply &to, const char *name, const verdict_counts &counts) noexcept
{
    to("\"", name, "\":{");
    for (std::size_t i = 0; i < counts.size(); i++) {
        to(i == 0 ? "\"" : ",\"", pat::name(static_cast<verdict>(i)), "\":", counts[i]);
    }
    to("}");
}

void write_counters(reply &to, const counters &counts) noexcept
{
    write_counts(to, "requests", counts.requests);
    to(",");
    write_counts(to, "dry_run", counts.dry_run);
    to(",\"fail_open\":", counts.fail_open, ",");
    write_counts(to, "closed", counts.closed);
}

/// Writes a count of each slice up to the newest, the oldest first.
template <typename Count>
void write_series(reply &to, const history &last, std::int64_t newest, const Count &count) noexcept
{
    constexpr auto slices = static_cast<std::int64_t>(history::slice_count);

    to("[");
    for (std::int64_t number = newest - slices + 1; number <= newest; number++) {
        const history::slice &slice = last.slices[static_cast<std::size_t>(number % slices)];
        to(slice.number == number ? count(slice) : 0, number == newest ? "]" : ",");
    }
}

void write_history(reply &to, const char *name, const history &last, std::int64_t newest,
                   std::array<std::uint32_t, verdict_count> history::slice::*counts) noexcept
{
    to("\"", name, "\":{");
    for (std::size_t i = 0; i < verdict_count; i++) {
        to(i == 0 ? "\"" : ",\"", pat::name(static_cast<verdict>(i)), "\":");
        write_series(to, last, newest, [&](const history::slice &slice) { return (slice.*counts)[i]; });
    }
    to("}");
}

void write_zone(reply &to, const status &from) noexcept
{
    const zone_figures &figures = from.figures;

    to("{\"name\":");
    to.write_string(view(from.zone->memory->shm.name));
    to(",\"size\":", from.zone->memory->shm.size, ",\"since\":", figures.since, "},");

    write_counters(to, figures.all);

    to(",\"servers\":[");
    for (const server_figures &server : figures.servers) {
        to(&server == figures.servers.data() ? "{\"name\":" : ",{\"name\":");
        to.write_string(view(server.name));
        to(",");
        write_counters(to, server.counts);
        to("}");
    }

    const std::int64_t newest = ngx_time() / history::slice_seconds;
    to("],\"history\":{\"interval\":", history::slice_seconds, ",\"end\":", (newest + 1) * history::slice_seconds, ",");
    write_history(to, "requests", *figures.last, newest, &history::slice::requests);
    to(",");
    write_history(to, "dry_run", *figures.last, newest, &history::slice::dry_run);
    to(",\"fail_open\":");
    write_series(to, *figures.last, newest, [](const history::slice &slice) { return slice.fail_open; });

    const usage_figures &usage = figures.usage;
    to("},\"tokens\":{\"known\":", usage.known, ",\"capacity\":", usage.capacity, ",\"evicted\":", usage.evicted,
       ",\"lost_uses\":", usage.lost_uses, ",\"cursor\":", usage.cursor, ",\"top\":[");
    for (const use &one : figures.most_used) {
        std::array<u_char, NGX_INET6_ADDRSTRLEN> text;
        to(&one == figures.most_used.data() ? "{\"id\":" : ",{\"id\":");
        to.write_string(one.id);
        to(",\"uses\":", one.count, ",\"last_at\":", one.at, ",\"last_from\":\"", text_of(one.from, text), "\"}");
    }
    to("]},");
}

void write_store(reply &to, const store_figures &store) noexcept
{
    to("{\"path\":");
    to.write_string(store.path);
    to(",\"open\":", store.problem ? "false" : "true", ",\"problem\":");

    if (store.problem) {
        const char *detail = store::detail(store.problem);
        std::array<u_char, NGX_MAX_ERROR_STR> text;
        const u_char *end = ngx_slprintf(text.data(), text.data() + text.size(), "%s%s%s",
                                         store::message(store.problem), *detail != '\0' ? ": " : "", detail);
        to.write_string(view({static_cast<std::size_t>(end - text.data()), text.data()}));
        to("}");
        return;
    }

    const store::condition &now = store.now;
    to("\"\",\"state\":\"", name(now.state), "\",");
    if (now.heartbeat == 0) {
        to("\"heartbeat\":null,\"age\":null");
    } else {
        to("\"heartbeat\":", now.heartbeat, ",\"age\":", ngx_time() - now.heartbeat);
    }
    to(",\"transaction\":", now.commit, ",\"tokens\":", now.tokens, ",\"revoked\":", now.revoked,
       ",\"readers\":", now.readers, ",\"max_readers\":", now.max_readers, ",\"used_bytes\":", now.used_bytes,
       ",\"map_bytes\":", now.map_size, "}");
}

void write_json(reply &to, const status &from) noexcept
{
    to("{\"time\":", ngx_time(), ",\"nginx\":\"" NGINX_VERSION "\",\"zone\":");
    if (from.zone == nullptr) {
        to("null,");
    } else {
        write_zone(to, from);
    }

    to("\"stores\":[");
    for (const store_figures &store : from.stores) {
        to(&store == from.stores.data() ? "" : ",");
        write_store(to, store);
    }
    to("]}\n");
}

// ---- Prometheus

void write_family(reply &to, const char *name, const char *type, const char *help) noexcept
{
    to("# HELP auth_pat_", name, " ", help, "\n# TYPE auth_pat_", name, " ", type, "\n");
}

/// Writes a counter with a sample for each server and verdict.
void write_verdicts(reply &to, const status &from, const char *name, const char *help,
                    verdict_counts counters::*counts) noexcept
{
    write_family(to, name, "counter", help);
    for (const server_figures &server : from.figures.servers) {
        for (std::size_t i = 0; i < verdict_count; i++) {
            to("auth_pat_", name, "{server=");
            to.write_label(view(server.name));
            to(",status=\"", pat::name(static_cast<verdict>(i)), "\"} ", (server.counts.*counts)[i], "\n");
        }
    }
}

/// Writes a gauge with a sample for each store that `value` gives one for.
template <typename Value>
void write_stores(reply &to, const status &from, const char *name, const char *help, const Value &value) noexcept
{
    write_family(to, name, "gauge", help);
    for (const store_figures &store : from.stores) {
        const std::optional<std::int64_t> sample = value(store);
        if (sample) {
            to("auth_pat_", name, "{store=");
            to.write_label(store.path);
            to("} ", *sample, "\n");
        }
    }
}

void write_single(reply &to, const char *name, const char *type, const char *help, std::uint64_t value) noexcept
{
    write_family(to, name, type, help);
    to("auth_pat_", name, " ", value, "\n");
}

void write_prometheus(reply &to, const status &from) noexcept
{
    using optional = std::optional<std::int64_t>;

    const auto if_open = [](auto member) {
        return [member](const store_figures &store) {
            return store.problem ? optional{} : static_cast<std::int64_t>(store.now.*member);
        };
    };
    const auto if_reached = [](auto value) {
        return [value](const store_figures &store) {
            return store.problem || store.now.heartbeat == 0 ? optional{} : value(store.now.heartbeat);
        };
    };

    if (from.zone != nullptr) {
        write_verdicts(to, from, "requests_total", "Requests that were decided about, by verdict.",
                       &counters::requests);
        write_verdicts(to, from, "dry_run_total", "Refusals that were none, because of auth_pat_dry_run.",
                       &counters::dry_run);
        write_verdicts(to, from, "closed_total", "Requests that auth_pat_recheck closed while they were running.",
                       &counters::closed);

        write_family(to, "fail_open_total", "counter", "Requests that auth_pat_fail_open let in.");
        for (const server_figures &server : from.figures.servers) {
            to("auth_pat_fail_open_total{server=");
            to.write_label(view(server.name));
            to("} ", server.counts.fail_open, "\n");
        }

        const usage_figures &usage = from.figures.usage;
        write_single(to, "usage_tokens", "gauge", "Tokens whose last use is known.", usage.known);
        write_single(to, "usage_capacity_tokens", "gauge", "Tokens whose last use the zone has room for.",
                     usage.capacity);
        write_single(to, "usage_evicted_total", "counter", "Tokens that had to make room for others.", usage.evicted);
        write_single(to, "usage_lost_total", "counter", "Uses that were never reported.", usage.lost_uses);
    }

    write_stores(to, from, "store_up", "Whether the store can be read.",
                 [](const store_figures &store) { return optional{store.problem ? 0 : 1}; });
    write_stores(to, from, "store_heartbeat_timestamp_seconds", "When the source of the store was last reached.",
                 if_reached([](std::int64_t heartbeat) { return optional{heartbeat}; }));
    write_stores(to, from, "store_age_seconds", "How long ago that was.",
                 if_reached([](std::int64_t heartbeat) { return optional{ngx_time() - heartbeat}; }));
    write_stores(to, from, "store_transaction", "Transaction id of the newest commit.",
                 if_open(&store::condition::commit));
    write_stores(to, from, "store_tokens", "Tokens in the store.", if_open(&store::condition::tokens));
    write_stores(to, from, "store_revoked_tokens", "Tokens in the store that are revoked.",
                 if_open(&store::condition::revoked));
    write_stores(to, from, "store_readers", "Slots of the reader table that were handed out.",
                 if_open(&store::condition::readers));
    write_stores(to, from, "store_max_readers", "Slots of the reader table.", if_open(&store::condition::max_readers));
    write_stores(to, from, "store_used_bytes", "Size of the data file.", if_open(&store::condition::used_bytes));
    write_stores(to, from, "store_map_bytes", "Size that the data file can grow to.",
                 if_open(&store::condition::map_size));
}

// ---- HTML

/// Writes the source expression of an inline script or style (Content Security Policy, section 2.3.1).
u_char *write_hash(u_char *at, std::string_view contents) noexcept
{
    u_char digest[SHA256_DIGEST_LENGTH];
    SHA256(reinterpret_cast<const u_char *>(contents.data()), contents.size(), digest);

    at = ngx_cpymem(at, "'sha256-", sizeof("'sha256-") - 1);
    ngx_str_t from = {sizeof(digest), digest};
    ngx_str_t to = {0, at};
    ngx_encode_base64(&to, &from);
    at += to.len;
    *at++ = '\'';
    return at;
}

/// Nothing may be loaded, run or sent but what the page itself is made of.
void add_policy(ngx_http_request_t *r, reply &to) noexcept
{
    constexpr std::string_view start = "default-src 'none'; style-src ";
    constexpr std::string_view script = "; script-src ";
    constexpr std::string_view rest =
        "; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    constexpr std::size_t hash_length = sizeof("'sha256-'") + ngx_base64_encoded_length(SHA256_DIGEST_LENGTH);

    auto *text = allocate<u_char>(r->pool, start.size() + script.size() + rest.size() + 2 * hash_length);
    if (text == nullptr) {
        return to.fail();
    }
    u_char *at = ngx_cpymem(text, start.data(), start.size());
    at = write_hash(at, status_page::style);
    at = ngx_cpymem(at, script.data(), script.size());
    at = write_hash(at, status_page::script);
    at = ngx_cpymem(at, rest.data(), rest.size());

    to.header("Content-Security-Policy", view({static_cast<std::size_t>(at - text), text}));
    to.header("X-Content-Type-Options", "nosniff");
    to.header("Referrer-Policy", "no-referrer");
}

void write_html(reply &to, const status &from) noexcept
{
    to(status_page::before_style, status_page::style, status_page::between);
    write_json(to, from);
    to(status_page::after_data, status_page::script, status_page::end);
}

// ---- which of them

[[nodiscard]] std::string_view trim(std::string_view text) noexcept
{
    while (text.starts_with(' ') || text.starts_with('\t')) {
        text.remove_prefix(1);
    }
    while (text.ends_with(' ') || text.ends_with('\t')) {
        text.remove_suffix(1);
    }
    return text;
}

/// Takes what stands before the next `separator` off `list`, without the blanks around it.
[[nodiscard]] std::string_view take_item(std::string_view &list, char separator) noexcept
{
    const std::string_view item = head(list, std::min(list.find(separator), list.size()));
    list.remove_prefix(std::min(item.size() + 1, list.size()));
    return trim(item);
}

[[nodiscard]] bool equal_without_case(std::string_view one, std::string_view other) noexcept
{
    return one.size() == other.size() && ngx_strncasecmp(to_ngx(one).data, to_ngx(other).data, one.size()) == 0;
}

/// A qvalue (RFC 9110, section 12.4.2), in thousandths.
[[nodiscard]] unsigned parse_weight(std::string_view text) noexcept
{
    constexpr unsigned whole = 1000;

    if (text.starts_with('1')) {
        return whole;
    }
    unsigned weight = 0;
    unsigned digit = whole / 10;
    for (const char c : text.starts_with("0.") ? tail(text, 2) : std::string_view{}) {
        if (c < '0' || c > '9') {
            break;
        }
        weight += static_cast<unsigned>(c - '0') * digit;
        digit /= 10;
    }
    return weight;
}

/// How narrow a media range is that a type is in (RFC 9110, section 12.5.1); 0 if it isn't.
[[nodiscard]] unsigned match(std::string_view range, std::string_view type) noexcept
{
    if (equal_without_case(range, type)) {
        return 3;
    }
    if (range.ends_with("/*") && equal_without_case(head(range, range.size() - 1), head(type, type.find('/') + 1))) {
        return 2;
    }
    return range == "*/*" ? 1 : 0;
}

/// How much the client likes a type: the weight of the narrowest range that it is in.
[[nodiscard]] unsigned weight_of(const ngx_http_request_t *r, std::string_view type) noexcept
{
    constexpr unsigned without_header = 1;

    bool has_header = false;
    unsigned narrowest = 0;
    unsigned weight = 0;

    for (const ngx_list_part_t *part = &r->headers_in.headers.part; part != nullptr; part = part->next) {
        for (const ngx_table_elt_t &header : std::span{static_cast<ngx_table_elt_t *>(part->elts), part->nelts}) {
            if (view({header.key.len, header.lowcase_key}) != "accept") {
                continue;
            }
            has_header = true;

            for (std::string_view ranges = view(header.value); !ranges.empty();) {
                std::string_view parameters = take_item(ranges, ',');
                const unsigned width = match(take_item(parameters, ';'), type);
                if (width <= narrowest) {
                    continue;
                }
                narrowest = width;
                weight = 1000;
                while (!parameters.empty()) {
                    std::string_view value = take_item(parameters, ';');
                    if (equal_without_case(take_item(value, '='), "q")) {
                        weight = parse_weight(trim(value));
                    }
                }
            }
        }
    }
    return has_header ? weight : without_header;
}

/// What the client likes best; of what it likes as much, the first in this list.
[[nodiscard]] status_format negotiate(const ngx_http_request_t *r) noexcept
{
    constexpr struct {
        std::string_view type;
        status_format format;
    } offers[] = {
        {"application/json", status_format::json},
        {"text/html", status_format::html},
        {"text/plain", status_format::prometheus},
        {"application/openmetrics-text", status_format::prometheus},
    };

    status_format best = status_format::json;
    unsigned best_weight = 0;
    for (const auto &offer : offers) {
        if (const unsigned weight = weight_of(r, offer.type); weight > best_weight) {
            best = offer.format;
            best_weight = weight;
        }
    }
    return best;
}

/// Reads the argument "after" of the query, which is 0 if it is not there. False if it can't be a cursor.
[[nodiscard]] bool read_cursor(ngx_http_request_t *r, std::uint64_t &out) noexcept
{
    ngx_str_t name = ngx_string("after");
    ngx_str_t value;

    out = 0;
    if (ngx_http_arg(r, name.data, name.len, &value) != NGX_OK) {
        return true;
    }
    const auto *first = reinterpret_cast<const char *>(value.data);
    const auto [end, error] = std::from_chars(first, first + value.len, out);
    return error == std::errc{} && end == first + value.len
           && out <= usage_table::cursor_at(ngx_time() + farthest_cursor);
}

}  // namespace

ngx_int_t handle_status(ngx_http_request_t *r) noexcept
{
    if (const ngx_int_t code = begin_answer(r); code != NGX_OK) {
        return code;
    }

    status now{};
    if (!read_status(r, now)) {
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
    case status_format::json: write_json(answer, now); return answer.send("application/json");
    case status_format::prometheus:
        write_prometheus(answer, now);
        return answer.send("text/plain; version=0.0.4; charset=utf-8");
    case status_format::html:
        add_policy(r, answer);
        write_html(answer, now);
        return answer.send("text/html; charset=utf-8");
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

    std::span<const use> uses;
    if (!report_usage(*main_conf_of(r).zone, *loc_conf_of(r).store, cursor, r->pool, uses)) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    reply answer{r};
    for (const use &one : uses) {
        std::array<u_char, NGX_INET6_ADDRSTRLEN> text;
        answer("{\"id\":");
        answer.write_string(one.id);
        answer(",\"at\":", one.at, ",\"from\":\"", text_of(one.from, text), "\",\"count\":", one.count, "}\n");
    }
    answer("{\"cursor\":", cursor, "}\n");
    return answer.send("application/x-ndjson");
}

}  // namespace pat::ngx
