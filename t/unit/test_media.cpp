#include "pat_cmocka.h"

#include "core/pat_media.h"

#include <array>

namespace {

using namespace pat;
using namespace pat::test;

constexpr std::string_view json = "application/json";

void a_media_type_is_named_wherever_it_stands_and_in_any_case(void **)
{
    struct row {
        std::string_view accept;
        std::string_view type;
        bool want;
    };
    static constexpr row rows[] = {
        {"application/json", json, true},
        {"text/html, application/json;q=0.5", json, true},
        {"application/json, */*", json, true},
        {"Application/JSON", json, true},
        {"APPLICATION/JSON", json, true},
        {"text/html", "text/html", true},
        {"*/*", json, false},
        {"", json, false},
        {"application/jso", json, false},
        {"application/ json", json, false},
        {"application\x0fjson", json, false},  // a slash but for the bit that tells cases apart
    };
    for (const row &row : rows) {
        assert_number_equal(row.accept.data(), names_media_type(row.accept, row.type), row.want);
    }
}

void only_letters_have_cases(void **)
{
    constexpr std::string_view type = "aj/zm+@`{[";
    std::array<char, type.size()> accept;

    for (std::size_t position = 0; position < type.size(); position++) {
        const char want = type[position];
        for (int byte = 0; byte < 256; byte++) {
            type.copy(accept.data(), type.size());
            accept[position] = static_cast<char>(byte);

            const bool is_upper = want >= 'a' && want <= 'z' && byte == want - 'a' + 'A';
            if (names_media_type({accept.data(), accept.size()}, type) != (accept[position] == want || is_upper)) {
                fail_msg("byte 0x%02x at %zu is judged wrongly", static_cast<unsigned>(byte), position);
            }
        }
    }
}

}  // namespace

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(a_media_type_is_named_wherever_it_stands_and_in_any_case),
        cmocka_unit_test(only_letters_have_cases),
    };
    return cmocka_run_group_tests_name("media", tests, nullptr, nullptr);
}
