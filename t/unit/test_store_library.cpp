#include "pat_cmocka.h"

#include "store/pat_environment.h"

namespace {

int release[3];

}  // namespace

/// Stands in for LMDB's own.
extern "C" char *mdb_version(int *major, int *minor, int *patch)
{
    *major = release[0];
    *minor = release[1];
    *patch = release[2];
    return nullptr;
}

namespace {

using namespace pat;

void writer_rule_6_releases_that_lose_their_mutexes_or_have_another_format_are_refused(void **)
{
    const struct {
        int numbers[3];
        bool good;
    } rows[] = {
        {{0, 9, 24}, true}, {{0, 9, 25}, true}, {{0, 9, 26}, false}, {{0, 9, 29}, false}, {{0, 9, 31}, false},
        {{0, 9, 32}, true}, {{0, 9, 33}, true}, {{0, 10, 0}, false}, {{1, 0, 0}, false},  {{1, 9, 24}, false},
    };
    for (const auto &row : rows) {
        for (int i = 0; i < 3; i++) {
            release[i] = row.numbers[i];
        }
        assert_int_equal(store::check_library().kind,
                         row.good ? store::fault_kind::none : store::fault_kind::bad_library);
    }
}

}  // namespace

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(writer_rule_6_releases_that_lose_their_mutexes_or_have_another_format_are_refused),
    };
    return cmocka_run_group_tests_name("store library", tests, nullptr, nullptr);
}
