/// decide() and is_stale() against a table of reasons to refuse, written from docs/directives.md. Input: values for a
/// record and for a request.

#include "core/pat_policy.h"
#include "pat_draw.h"
#include "pat_fuzz.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

using namespace pat;

namespace {

using wide = __int128;

std::vector<std::string> words(std::string_view text)
{
    std::vector<std::string> result(1);
    for (const char c : text) {
        if (c == ' ') {
            result.emplace_back();
        } else {
            result.back() += c;
        }
    }
    std::erase(result, std::string{});
    return result;
}

bool has_required(std::string_view scopes, const scope_requirement &required)
{
    const auto list = words(scopes);
    const std::set<std::string> granted{list.begin(), list.end()};
    const auto wanted = words(required.scopes);
    const auto found = std::ranges::count_if(wanted, [&](const std::string &scope) { return granted.contains(scope); });
    return required.any ? found > 0 || wanted.empty() : found == std::ssize(wanted);
}

bool bit_of(std::span<const std::byte> bytes, std::size_t bit)
{
    return (std::to_integer<unsigned>(bytes[bit / 8]) >> (7 - bit % 8) & 1) != 0;
}

/// Whether the address is in one of the ranges, bit by bit.
bool is_within(std::span<const std::byte> cidrs, const address &peer)
{
    bool result = false;
    while (!cidrs.empty()) {
        const auto family = std::to_integer<unsigned>(cidrs[0]);
        const auto bits = std::to_integer<std::size_t>(cidrs[1]);
        const std::size_t size = family == 4 ? 4 : 16;
        bool equal = family == static_cast<unsigned>(peer.family);
        for (std::size_t bit = 0; equal && bit < bits; bit++) {
            equal = bit_of(cidrs.subspan(2), bit) == bit_of(peer.bytes, bit);
        }
        result = result || equal;
        cidrs = cidrs.subspan(2 + size);
    }
    return result;
}

bool is_visible(std::string_view text)
{
    return std::ranges::none_of(text, [](char c) { return (c >= 0 && c < ' ') || c == '\x7f'; })
           && (text.empty() || (text.front() != ' ' && text.back() != ' '));
}

struct refusal {
    bool applies;
    access_verdict verdict;
};

/// The first reason that applies is the verdict.
access_verdict right_verdict(const token_record &token, const facts &request, std::int64_t now)
{
    const refusal table[] = {
        {token.revoked_at != 0, access_verdict::revoked},
        {token.local_revoked_at != 0, access_verdict::revoked},
        {token.denied, access_verdict::revoked},
        {!is_visible(token.subject), access_verdict::revoked},
        {token.expires_at != 0 && wide{token.expires_at} + request.leeway <= now, access_verdict::expired},
        {wide{token.not_before} - request.leeway > now, access_verdict::not_yet_valid},
        {!token.cidrs.empty() && !is_within(token.cidrs, request.peer), access_verdict::address_denied},
        {!std::ranges::all_of(request.required,
                              [&](const scope_requirement &required) { return has_required(token.scopes, required); }),
         access_verdict::scope_denied},
    };
    const auto *found = std::ranges::find(table, true, &refusal::applies);
    return found == std::end(table) ? access_verdict::ok : found->verdict;
}

void try_stale(fuzz::input &in)
{
    constexpr std::int64_t ages[] = {0, 1, 60, 31536000};
    const std::int64_t heartbeat = std::clamp<std::int64_t>(fuzz::draw_time(in), 0, 253402300799);
    const std::int64_t max_age = in.one_of(ages);
    const std::int64_t now = 1000 + in.up_to(200);

    const bool right = max_age > 0 && (heartbeat == 0 || heartbeat + max_age < now || heartbeat > now + 5);
    expect(is_stale(heartbeat, max_age, now) == right);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    fuzz::input in{data, size};
    try_stale(in);

    constexpr std::int64_t leeways[] = {0, 1, 60, 31536000};
    constexpr std::int64_t times[] = {1000, 999, 1001, 940, 1060, 4294967295, 253402300799};
    facts request;
    request.peer = fuzz::draw_address(in);
    request.leeway = in.one_of(leeways);
    const std::int64_t now = in.one_of(times);

    scope_requirement required[2];
    request.required = std::span{required}.first(in.up_to(2));
    for (scope_requirement &requirement : required) {
        requirement.any = in.truth();
        requirement.scopes = in.until(';');
    }

    const fuzz::drawn_record drawn{in};
    if (are_cidrs(drawn.record.cidrs)) {  // as decode() makes sure
        expect(decide(drawn.record, request, now) == right_verdict(drawn.record, request, now));
    }
    return 0;
}
