#include "nginx/pat_status_figures.h"

#include "core/pat_bytes.h"

#include <openssl/sha.h>

// Embed the files of page/. The assembler finds them through the -I that config.make sets.
asm(R"(
    .macro embed name, file
    .globl \name, \name\()_end
    .hidden \name, \name\()_end
    \name: .incbin "\file"
    \name\()_end:
    .endm

    .pushsection .rodata
    embed auth_pat_page_html, nginx/page/page.html
    embed auth_pat_page_css, nginx/page/page.css
    embed auth_pat_page_js, nginx/page/page.js
    .popsection
)");

extern "C" {
extern const char auth_pat_page_html[], auth_pat_page_html_end[];
extern const char auth_pat_page_css[], auth_pat_page_css_end[];
extern const char auth_pat_page_js[], auth_pat_page_js_end[];
}

namespace pat::ngx {

namespace {

[[nodiscard]] std::string_view embedded(const char *begin, const char *end) noexcept
{
    return {begin, static_cast<std::size_t>(end - begin)};
}

/// Writes the source expression of an inline script or style (Content Security Policy Level 3, section 2.3.1).
[[nodiscard]] u_char *write_hash(u_char *p, std::string_view contents) noexcept
{
    u_char digest[SHA256_DIGEST_LENGTH];
    SHA256(reinterpret_cast<const unsigned char *>(contents.data()), contents.size(), digest);

    p = ngx_cpymem(p, "'sha256-", sizeof("'sha256-") - 1);
    ngx_str_t binary = {sizeof(digest), digest};
    ngx_str_t text = {0, p};
    ngx_encode_base64(&text, &binary);
    p += text.len;
    *p++ = '\'';
    return p;
}

/// Restricts the page to its own style and script, and to requests to its own server.
void add_policy(reply &answer, ngx_pool_t *pool, std::string_view css, std::string_view js) noexcept
{
    constexpr std::string_view start = "default-src 'none'; style-src ";
    constexpr std::string_view script = "; script-src ";
    constexpr std::string_view rest =
        "; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    constexpr std::size_t hash_length = sizeof("'sha256-'") + ngx_base64_encoded_length(SHA256_DIGEST_LENGTH);

    auto *text = allocate<u_char>(pool, start.size() + script.size() + rest.size() + 2 * hash_length);
    if (text == nullptr) {
        return answer.fail();
    }
    u_char *p = ngx_cpymem(text, start.data(), start.size());
    p = write_hash(p, css);
    p = ngx_cpymem(p, script.data(), script.size());
    p = write_hash(p, js);
    p = ngx_cpymem(p, rest.data(), rest.size());

    answer.header("Content-Security-Policy", view({static_cast<std::size_t>(p - text), text}));
    answer.header("X-Content-Type-Options", "nosniff");
    answer.header("Referrer-Policy", "no-referrer");
}

/// Writes `html` through `mark`, and removes that part from it.
void write_through(reply &answer, std::string_view &html, std::string_view mark) noexcept
{
    const std::size_t length = html.find(mark) + mark.size();
    answer(head(html, length));
    html = tail(html, length);
}

}  // namespace

void write_page(reply &answer, ngx_pool_t *pool, const status_figures &figures) noexcept
{
    std::string_view html = embedded(auth_pat_page_html, auth_pat_page_html_end);
    const std::string_view css = embedded(auth_pat_page_css, auth_pat_page_css_end);
    const std::string_view js = embedded(auth_pat_page_js, auth_pat_page_js_end);

    add_policy(answer, pool, css, js);

    write_through(answer, html, "<style>");
    answer(css);
    write_through(answer, html, "type=\"application/json\">");
    write_json(answer, figures);
    write_through(answer, html, "<script>");
    answer(js, html);
}

}  // namespace pat::ngx
