#include "pat_cmocka.h"

#include "core/pat_bytes.h"

#include <algorithm>
#include <array>

namespace {

using namespace pat;

int sign(int number) noexcept
{
    return number < 0 ? -1 : number > 0 ? 1 : 0;
}

/// A key of this length, all of one byte but the last one, and other bytes behind its end.
struct key {
    std::array<std::byte, 24> storage;
    std::size_t length;

    [[nodiscard]] std::span<const std::byte> view() const noexcept { return std::span{storage}.first(length); }
};

key make_key(std::size_t length, std::byte all, std::byte last, std::byte behind) noexcept
{
    key result{{}, length};
    result.storage.fill(behind);
    std::fill_n(result.storage.begin(), length, all);
    if (length != 0) {
        result.storage[length - 1] = last;
    }
    return result;
}

void keys_sort_by_bytes_and_then_by_length(void **)
{
    constexpr std::array values{std::byte{0}, std::byte{1}, std::byte{0x7f}, std::byte{0x80}, std::byte{0xff}};
    static std::array<key, 18 * values.size() * values.size()> keys;
    std::size_t count = 0;
    for (std::size_t length = 0; length < 18; length++) {
        for (const std::byte all : values) {
            for (const std::byte last : values) {
                keys[count] = make_key(length, all, last, count % 2 == 0 ? std::byte{0} : std::byte{0xff});
                count++;
            }
        }
    }

    for (const key &first : keys) {
        for (const key &second : keys) {
            const auto a = text_of(first.view());
            const auto b = text_of(second.view());
            assert_number_equal("keys", sign(compare_keys(first.view(), second.view())), sign(a.compare(b)));
        }
    }
}

}  // namespace

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(keys_sort_by_bytes_and_then_by_length),
    };
    return cmocka_run_group_tests_name("bytes", tests, nullptr, nullptr);
}
