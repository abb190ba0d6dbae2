#pragma once

#include "core/pat_address.h"
#include "core/pat_record.h"
#include "pat_fuzz.h"

#include <array>
#include <limits>

/// Values of records drawn from an input: mostly those at the edges of what is allowed.
namespace pat::fuzz {

inline std::int64_t draw_time(input &in) noexcept
{
    constexpr std::int64_t edges[] = {0,
                                      1,
                                      1'000,
                                      999,
                                      1'001,
                                      253402300799,
                                      1060,
                                      4294967295,
                                      253402300798,
                                      4294967296,
                                      -1,
                                      253402300800,
                                      940,
                                      2147483648,
                                      std::numeric_limits<std::int64_t>::max(),
                                      std::numeric_limits<std::int64_t>::min()};
    const std::uint8_t kind = in.byte();
    return kind < 0xf0 ? edges[kind % std::size(edges)] : in.number<std::int64_t>();
}

/// Appends ranges to `out` as a record has them, some of them impossible ones.
inline std::span<const std::byte> draw_cidrs(input &in, std::span<std::byte> out) noexcept
{
    std::size_t length = 0;
    for (unsigned count = in.up_to(3); count > 0 && length + max_cidr_length <= out.size(); count--) {
        const std::uint8_t kind = in.byte();
        const unsigned family = kind % 8 == 7 ? kind : kind % 2 == 0 ? 4 : 6;
        const std::size_t size = family == 4 ? 4 : 16;
        out[length++] = static_cast<std::byte>(family);
        out[length++] = static_cast<std::byte>(in.up_to(family == 4 ? 33 : 129));
        for (std::size_t i = 0; i < size; i++) {
            out[length++] = static_cast<std::byte>(in.byte() % 4);
        }
    }
    return out.first(length);
}

inline address draw_address(input &in) noexcept
{
    constexpr address_family families[] = {address_family::none, address_family::v4, address_family::v6,
                                           address_family::v4};
    address result;
    result.family = in.one_of(families);
    for (std::byte &byte : result.bytes) {
        byte = static_cast<std::byte>(in.byte() % 4);
    }
    return result;
}

/// A record whose texts are in the input, and whose lists are in here.
struct drawn_record {
    token_record record;
    std::array<std::byte, 4 * max_cidr_length> cidrs{};
    record_buffer claims{};

    explicit drawn_record(input &in) noexcept
    {
        record.format = in.truth() ? newest_format : first_format;
        record.denied = in.byte() % 8 == 0;
        record.generation = in.byte();
        record.sequence = in.truth() ? in.number<std::uint64_t>() : in.byte();
        record.issued_at = draw_time(in);
        record.not_before = draw_time(in);
        record.expires_at = draw_time(in);
        record.revoked_at = in.byte() % 4 == 0 ? draw_time(in) : 0;
        record.local_revoked_at = in.byte() % 4 == 0 ? draw_time(in) : 0;
        record.cidrs = draw_cidrs(in, cidrs);

        std::size_t length = 0;
        for (unsigned count = in.up_to(2); count > 0; count--) {
            const std::string_view name = in.until(';');
            (void) append_claim({name, in.until(';')}, claims, length);
        }
        record.claims = std::span{claims}.first(length);
        record.id = in.until(';');
        record.subject = in.until(';');
        record.name = in.until(';');
        record.scopes = in.until(';');
    }
    drawn_record(const drawn_record &) = delete;
    drawn_record &operator=(const drawn_record &) = delete;
};

}  // namespace pat::fuzz
