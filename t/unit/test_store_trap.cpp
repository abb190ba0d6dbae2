#include "pat_temp_store.h"

#include "store/pat_trap.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

/// The trap, with a clock of ours for the processor time.
namespace {

using namespace pat;
using namespace pat::test;
namespace trap = store::trap;
using trap::outcome;

std::int64_t cpu_ns;       ///< the processor time that was used
std::int64_t cpu_step_ns;  ///< and what is used between two looks at it
int looks;                 ///< how many there were
int timers;                ///< how many there are

}  // namespace

extern "C" int clock_gettime(clockid_t clock, timespec *out) noexcept
{
    if (clock != CLOCK_THREAD_CPUTIME_ID) {
        return static_cast<int>(syscall(SYS_clock_gettime, clock, out));
    }
    looks++;
    cpu_ns += cpu_step_ns;
    *out = {cpu_ns / 1'000'000'000, cpu_ns % 1'000'000'000};
    return 0;
}

extern "C" int timer_create(clockid_t clock, sigevent *event, timer_t *out) noexcept
{
    using function = int (*)(clockid_t, sigevent *, timer_t *);
    static const auto real = reinterpret_cast<function>(dlsym(RTLD_NEXT, "timer_create"));
    const int result = real(clock, event, out);
    timers += result == 0 ? 1 : 0;
    return result;
}

extern "C" int timer_delete(timer_t timer) noexcept
{
    static const auto real = reinterpret_cast<int (*)(timer_t)>(dlsym(RTLD_NEXT, "timer_delete"));
    timers--;
    return real(timer);
}

namespace {

void wait_for_ever()
{
    for (;;) {
        pause();
    }
}

void end_it()
{
    trap::failed_assertion(nullptr, "a test");
}

void a_body_ends_in_one_of_three_ways(void **)
{
    for (int round = 0; round < 3; round++) {
        bool went_on = false;
        assert_number_equal("done", trap::run_for(10000, [&] { went_on = true; }), outcome::done);
        assert_true(went_on);
        assert_number_equal("fault", trap::run_for(10000, end_it), outcome::fault);
        assert_number_equal("late", trap::run_for(1, wait_for_ever), outcome::late);
        assert_true(trap::run([&] { assert_int_equal(trap::current.armed, 1); }));
        assert_false(trap::run(end_it));
        assert_number_equal("is armed", trap::run_for(10000, [] { assert_int_equal(trap::current.armed, 1); }),
                            outcome::done);
        assert_int_equal(trap::current.armed, 0);
        assert_int_equal(timers, 0);
    }
    end_it();  // of nobody
    for (const bool is_late : {false, true}) {
        (void) trap::run_for(1, [is_late] { is_late ? wait_for_ever() : end_it(); });
        assert_int_equal(trap::current.armed, 0);
    }
}

/// How often a body that waits for ever is looked at, if so much processor time is used between two looks.
int looks_at(std::int64_t used_ns)
{
    cpu_ns = 1'990'000'000;
    cpu_step_ns = used_ns;
    looks = 0;
    assert_number_equal("late", trap::run_for(100, wait_for_ever), outcome::late);
    return looks;
}

void a_body_is_interrupted_where_it_waits_or_after_a_second(void **)
{
    for (int round = 0; round < 2; round++) {
        assert_int_equal(looks_at(0), 2);
        assert_int_equal(looks_at(499'999), 2);
        assert_int_equal(looks_at(500'000), 20);
    }
}

void a_call_goes_on_after_the_first_signal(void **)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    char byte;
    assert_number_equal("read", trap::run_for(1, [&] { (void) !read(ends[0], &byte, 1); }), outcome::late);
    close(ends[0]);
    close(ends[1]);
}

void a_deadline_ends_nothing_outside_of_a_trap(void **)
{
    cpu_step_ns = 0;
    looks = 0;
    {
        const trap::deadline limit{1};
        while (looks < 4) {
            pause();
        }
    }
    assert_int_equal(timers, 0);
}

void a_deadline_interrupts_a_call_if_it_is_to(void **)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    in_child([&] {
        const trap::deadline limit{1000, 0};
        return !limit.is_over();
    });
    in_child([&] {
        const trap::deadline limit{1, 0};
        const auto is_interrupted = [&] {
            char byte;
            errno = 0;
            return read(ends[0], &byte, 1) < 0 && errno == EINTR && limit.is_over();
        };
        return is_interrupted() && is_interrupted();
    });
    close(ends[0]);
    close(ends[1]);
}

void a_deadline_leaves_the_signal_as_it_was(void **)
{
    struct sigaction before {};
    before.sa_handler = [](int) {};
    assert_int_equal(sigaction(SIGVTALRM, &before, nullptr), 0);
    const auto is_left = [] {
        struct sigaction after;
        assert_int_equal(sigaction(SIGVTALRM, nullptr, &after), 0);
        return after.sa_handler != SIG_DFL && after.sa_handler != SIG_IGN && (after.sa_flags & SA_NODEFER) == 0;
    };
    assert_true(is_left());
    assert_number_equal("done", trap::run_for(1000, [] {}), outcome::done);
    assert_true(is_left());
    assert_number_equal("late", trap::run_for(1, wait_for_ever), outcome::late);
    assert_true(is_left());

    // Without a timer there is no limit.
    in_child([&] {
        const struct rlimit none {
        };
        bool went_on = false;
        return setrlimit(RLIMIT_SIGPENDING, &none) == 0 && trap::run_for(1, [&] { went_on = true; }) == outcome::done
               && went_on && is_left() && timers == 0;
    });
    assert_true(std::signal(SIGVTALRM, SIG_DFL) != SIG_ERR);
}

void a_search_has_so_many_steps_and_no_more(void **)
{
    const auto count = [](unsigned steps) {
        for (unsigned i = 0; i < steps; i++) {
            trap::count_step();
        }
    };
    for (int round = 0; round < 2; round++) {
        assert_true(trap::run([&] { count(trap::max_steps - 1); }));
        assert_false(trap::run([&] { count(trap::max_steps); }));
        assert_number_equal("done", trap::run_for(10000, [&] { count(trap::max_steps - 1); }), outcome::done);
        assert_number_equal("fault", trap::run_for(10000, [&] { count(trap::max_steps); }), outcome::fault);
    }
    count(2 * trap::max_steps);  // counted for nobody
    trap::current.steps = 1;
    count(1);
}

void each_fault_is_trapped_and_not_only_the_first(void **)
{
    in_child([] {
        auto *page =
            static_cast<volatile char *>(mmap(nullptr, page_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        trap::install();
        trap::install();
        for (int round = 0; round < 3; round++) {
            if (trap::run([&] { page[0] = 1; }) || trap::run([] { raise(SIGBUS); })
                || trap::run_for(10000, [&] { page[0] = 1; }) != outcome::fault) {
                return false;
            }
        }
        return true;
    });
}

}  // namespace

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(a_body_ends_in_one_of_three_ways),
        cmocka_unit_test(a_body_is_interrupted_where_it_waits_or_after_a_second),
        cmocka_unit_test(a_call_goes_on_after_the_first_signal),
        cmocka_unit_test(a_deadline_ends_nothing_outside_of_a_trap),
        cmocka_unit_test(a_deadline_interrupts_a_call_if_it_is_to),
        cmocka_unit_test(a_deadline_leaves_the_signal_as_it_was),
        cmocka_unit_test(a_search_has_so_many_steps_and_no_more),
        cmocka_unit_test(each_fault_is_trapped_and_not_only_the_first),
    };
    return cmocka_run_group_tests_name("store trap", tests, nullptr, nullptr);
}
