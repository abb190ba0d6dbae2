#include "nginx/pat_reply.h"

#include "core/pat_bytes.h"

#include <algorithm>

namespace pat::ngx {

ngx_table_elt_t *push_header(ngx_http_request_t *r, std::string_view name, ngx_str_t value) noexcept
{
    auto *header = static_cast<ngx_table_elt_t *>(ngx_list_push(&r->headers_out.headers));
    if (header == nullptr) {
        return nullptr;
    }

    *header = {};  // since nginx 1.23, it links to the next header of the same name
    header->hash = 1;
    header->key = to_ngx(name);
    header->value = value;
    return header;
}

void reply::write(std::string_view text) noexcept
{
    constexpr std::size_t buffer_size = 16384;

    while (!text.empty() && !failed_) {
        if (last_ == nullptr || last_->buf->last == last_->buf->end) {
            ngx_chain_t *added = ngx_alloc_chain_link(request_->pool);
            if (added == nullptr || (added->buf = ngx_create_temp_buf(request_->pool, buffer_size)) == nullptr) {
                failed_ = true;
                return;
            }
            added->next = nullptr;
            (last_ == nullptr ? first_ : last_->next) = added;
            last_ = added;
        }

        ngx_buf_t &buf = *last_->buf;
        const std::size_t part = std::min(text.size(), static_cast<std::size_t>(buf.end - buf.last));
        buf.last = ngx_cpymem(buf.last, text.data(), part);
        length_ += static_cast<off_t>(part);
        text = tail(text, part);
    }
}

void reply::write_number(std::int64_t number) noexcept
{
    u_char digits[NGX_INT64_LEN];
    const u_char *end = ngx_sprintf(digits, "%L", number);
    write(view({static_cast<std::size_t>(end - digits), digits}));
}

void reply::write_escaped(std::string_view text, bool is_json) noexcept
{
    constexpr std::string_view replacement = "\xef\xbf\xbd";  // U+FFFD, for what is not UTF-8

    write("\"");
    while (!text.empty()) {
        const char c = text[0];
        const auto byte = static_cast<u_char>(c);
        std::size_t length = 1;

        if (c == '"' || c == '\\') {
            write("\\");
            write(head(text, 1));
        } else if (byte >= 0x80) {
            ngx_str_t rest = to_ngx(text);
            u_char *end = rest.data;
            const std::uint32_t point = ngx_utf8_decode(&end, rest.len);
            const bool is_surrogate = point >= 0xd800 && point <= 0xdfff;
            if (point <= 0x10ffff && !is_surrogate) {
                length = static_cast<std::size_t>(end - rest.data);
                write(head(text, length));
            } else {
                write(replacement);
            }
        } else if (byte >= 0x20 && !(is_json && c == '<')) {
            write(head(text, 1));
        } else if (is_json) {
            u_char code[sizeof("\\u0000")];
            const u_char *end = ngx_sprintf(code, "\\u%04xd", static_cast<int>(byte));
            write(view({static_cast<std::size_t>(end - code), code}));
        } else {
            write(c == '\n' ? "\\n" : head(text, 1));
        }
        text = tail(text, length);
    }
    write("\"");
}

void reply::write_string(std::string_view text) noexcept
{
    write_escaped(text, true);
}

void reply::write_label(std::string_view text) noexcept
{
    write_escaped(text, false);
}

void reply::write_address(const address &peer) noexcept
{
    if (peer.family == address_family::none) {
        return;
    }
    const int family = peer.family == address_family::v4 ? AF_INET : AF_INET6;
    auto *bytes = const_cast<std::byte *>(peer.bytes.data());
    u_char text[NGX_INET6_ADDRSTRLEN];
    write(view({ngx_inet_ntop(family, bytes, text, sizeof(text)), text}));
}

void reply::header(std::string_view name, std::string_view value) noexcept
{
    failed_ |= push_header(request_, name, to_ngx(value)) == nullptr;
}

ngx_int_t reply::send(std::string_view content_type) noexcept
{
    ngx_http_request_t *r = request_;

    header("Cache-Control", "no-store");
    if (failed_ || last_ == nullptr) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_type = to_ngx(content_type);
    r->headers_out.content_type_len = std::min(content_type.find(';'), content_type.size());
    r->headers_out.content_length_n = length_;

    last_->buf->last_buf = r == r->main;
    last_->buf->last_in_chain = 1;

    const ngx_int_t status = ngx_http_send_header(r);
    if (status == NGX_ERROR || status > NGX_OK || r->header_only) {
        return status;
    }
    return ngx_http_output_filter(r, first_);
}

}  // namespace pat::ngx
