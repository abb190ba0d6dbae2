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

void writer_rule_6_every_release_of_0_9_is_good_and_no_other(void **)
{
    const struct {
        int numbers[3];
        bool good;
    } rows[] = {
        {{0, 9, 24}, true},  {{0, 9, 26}, true},  {{0, 9, 31}, true}, {{0, 9, 33}, true},
        {{0, 8, 24}, false}, {{0, 10, 0}, false}, {{1, 0, 0}, false}, {{1, 9, 24}, false},
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
        cmocka_unit_test(writer_rule_6_every_release_of_0_9_is_good_and_no_other),
    };
    return cmocka_run_group_tests_name("store library", tests, nullptr, nullptr);
}
