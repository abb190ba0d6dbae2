#include "pat_cmocka.h"

#include "core/pat_bytes.h"
#include "core/pat_crc32c.h"

#include <array>

namespace {

using namespace pat;
using namespace std::string_view_literals;

using crc_function = std::uint32_t (*)(std::span<const std::byte>, std::uint32_t) noexcept;

constexpr crc_function both[] = {crc32c, crc32c_by_table};

void known_texts_have_their_known_crc(void **)
{
    std::array<std::byte, 32> bytes{};

    for (const crc_function crc : both) {
        assert_int_equal(crc({}, 0), 0);
        assert_int_equal(crc(bytes_of("123456789"), 0), 0xE3069283);  // the check value of every catalogue of CRCs

        // RFC 3720, appendix B.4.
        bytes.fill(std::byte{0});
        assert_int_equal(crc(bytes, 0), 0x8A9136AA);
        bytes.fill(std::byte{0xff});
        assert_int_equal(crc(bytes, 0), 0x62A8AB43);
        for (std::size_t i = 0; i < bytes.size(); i++) {
            bytes[i] = static_cast<std::byte>(i);
        }
        assert_int_equal(crc(bytes, 0), 0x46DD794E);
        for (std::size_t i = 0; i < bytes.size(); i++) {
            bytes[i] = static_cast<std::byte>(31 - i);
        }
        assert_int_equal(crc(bytes, 0), 0x113FDB5C);
    }
}

void the_processor_and_the_table_agree_at_every_length_and_alignment(void **)
{
    std::array<std::byte, 320> bytes;
    std::uint32_t state = 1;
    for (std::byte &byte : bytes) {
        state = state * 1664525 + 1013904223;
        byte = static_cast<std::byte>(state >> 24);
    }

    for (std::size_t start = 0; start < 9; start++) {
        for (std::size_t length = 0; start + length <= bytes.size(); length++) {
            const auto part = std::span{bytes}.subspan(start, length);
            assert_int_equal(crc32c(part, 0), crc32c_by_table(part, 0));
        }
    }
}

void parts_have_the_crc_of_the_whole(void **)
{
    constexpr std::string_view whole = "the quick brown fox jumps over the lazy dog";

    for (const crc_function crc : both) {
        for (std::size_t cut = 0; cut <= whole.size(); cut++) {
            assert_int_equal(crc(bytes_of(tail(whole, cut)), crc(bytes_of(head(whole, cut)), 0)),
                             crc(bytes_of(whole), 0));
        }
    }
    for (std::size_t cut = 0; cut <= whole.size(); cut++) {
        assert_int_equal(crc32c(bytes_of(head(whole, cut)), bytes_of(tail(whole, cut))), crc32c(bytes_of(whole)));
    }
}

}  // namespace

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(known_texts_have_their_known_crc),
        cmocka_unit_test(the_processor_and_the_table_agree_at_every_length_and_alignment),
        cmocka_unit_test(parts_have_the_crc_of_the_whole),
    };
    return cmocka_run_group_tests_name("crc32c", tests, nullptr, nullptr);
}
