#include "cli/pat_draft.h"

#include "core/pat_address.h"

#include "cli/pat_failure.h"
#include "cli/pat_text.h"

#include <array>
#include <charconv>

#include <arpa/inet.h>
#include <simdjson.h>

namespace pat::cli {

namespace {

/// The range that the author of `text`, which has bits past its prefix, may have meant.
std::string without_host_bits(std::string_view text)
{
    const std::size_t slash = text.find('/');
    const std::string literal{text.substr(0, slash)};
    const int family = literal.find(':') == std::string::npos ? AF_INET : AF_INET6;

    std::array<unsigned char, 16> bytes{};
    std::size_t bits = 0;
    std::from_chars(text.data() + slash + 1, text.data() + text.size(), bits);
    inet_pton(family, literal.c_str(), bytes.data());

    for (std::size_t bit = bits; bit < bytes.size() * 8; bit++) {
        bytes[bit / 8] = static_cast<unsigned char>(bytes[bit / 8] & ~(0x80U >> (bit % 8)));
    }

    std::array<char, INET6_ADDRSTRLEN> result;
    inet_ntop(family, bytes.data(), result.data(), result.size());
    return fmt::format("{}/{}", result.data(), bits);
}

}  // namespace

void record_draft::add_scope(std::string_view scope)
{
    if (!is_scope(scope)) {
        throw bad_value{std::string{message(codec_error::scopes)}};
    }
    if (!scopes_.empty()) {
        scopes_ += ' ';
    }
    scopes_ += scope;
}

void record_draft::add_cidr(std::string_view text)
{
    cidr parsed;
    switch (parse_cidr(text, parsed)) {
    case cidr_error::none: break;
    case cidr_error::syntax:
        throw bad_value{
            fmt::format("{} is not an address or a range such as 192.0.2.0/24 or 2001:db8::/32", quote_value(text))};
    case cidr_error::host_bits:
        throw bad_value{
            fmt::format("\"{}\" has bits set past its prefix: did you mean {}?", text, without_host_bits(text))};
    }
    cidrs_.insert(cidrs_.end(), parsed.view().begin(), parsed.view().end());
}

void record_draft::add_claim(const token_claim &claim)
{
    if (append_claim(claim, claims_, claims_length_)) {
        return;
    }

    record_buffer empty;
    std::size_t length = 0;
    const bool fits_alone = append_claim(claim, empty, length);
    const bool too_long = fits_alone || claim.value.size() >= max_record_length;
    throw bad_value{std::string{message(too_long ? codec_error::too_long : codec_error::claims)}};
}

token_record record_draft::view() const
{
    token_record result;
    static_cast<record_scalars &>(result) = *this;
    result.id = id;
    result.subject = subject;
    result.name = name;
    result.scopes = scopes_;
    result.cidrs = cidrs_;
    result.claims = {claims_.data(), claims_length_};

    if (const codec_error error = validate(result); error != codec_error::none) {
        throw bad_value{std::string{message(error)}};
    }

    if (has_blank_ends(subject)) {
        throw bad_value{"the subject begins or ends with a blank, which an upstream would strip from its header"};
    }
    for (auto rest = result.claims; !rest.empty();) {
        if (const token_claim each = take_claim(rest); has_blank_ends(each.value)) {
            throw bad_value{fmt::format(
                "the value of claim \"{}\" begins or ends with a blank, which an upstream would strip from its header",
                each.name)};
        }
    }
    return result;
}

void require_no_other_list(std::string_view text, const char *hint)
{
    if (text.find_first_of(",;|") != std::string_view::npos || text.starts_with('{') || text.starts_with('[')) {
        throw bad_value{fmt::format("\"{}\" looks like a list of another kind: {}", printable(text), hint)};
    }
}

void require_scopes(std::string_view text)
{
    require_no_other_list(text, "separate scopes by spaces, or give them one by one");
    if (take_scope(text).empty()) {
        throw bad_value{std::string{message(codec_error::scopes)}};
    }
}

void require_utf8(std::string_view text)
{
    if (!simdjson::validate_utf8(text.data(), text.size())) {
        throw bad_value{"not valid UTF-8"};
    }
}

}  // namespace pat::cli
