#include "pat_cmocka.h"

#include "store/pat_clock.h"

#include <chrono>

namespace {

using namespace pat;

std::int64_t steady_ms()
{
    return std::chrono::floor<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void the_clock_counts_milliseconds(void **)
{
    for (const std::int64_t end = steady_ms() + 3; steady_ms() < end;) {
        const std::int64_t before = steady_ms();
        const std::int64_t now = store::now_ms();
        assert_true(now >= before);
        assert_true(now <= steady_ms());
    }
}

void a_limit_allows_to_wait_until_it_is_reached(void **)
{
    const std::int64_t before = steady_ms();
    const store::time_limit limit{20};
    while (limit.wait()) {
    }
    assert_true(steady_ms() >= before + 20);
    assert_false(limit.wait());
    assert_false(store::time_limit{0}.wait());
}

}  // namespace

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(the_clock_counts_milliseconds),
        cmocka_unit_test(a_limit_allows_to_wait_until_it_is_reached),
    };
    return cmocka_run_group_tests_name("store clock", tests, nullptr, nullptr);
}
