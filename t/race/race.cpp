/// Opens and closes one store from many processes at once, while some of them write and some are killed at random
/// moments, and shows that the mutexes in lock.mdb survive and that no commit is lost.
///
///     build/race [--seconds N] [--processes N] [--foreign N] [--stretch MS] [--no-kills] [--seed N]
///
/// LMDB 0.9.26 to 0.9.31 destroy these mutexes if they believe to close the file as the last; from then on each lock of
/// them is EINVAL. With other releases, this program does it in the same way. --foreign adds processes that use LMDB
/// alone, as mdb_stat does, and do destroy them: then each process that meets EINVAL must have the store open again
/// soon. --stretch keeps the moment after a destruction open.
///
/// Prints one line, and exits with status 0 if nothing is wrong with it:
///
///     lmdb        the release
///     openings    of the store, by processes other than foreign ones
///     kills       of these processes
///     commits     that were acknowledged
///     einval      locks that failed: none without foreign processes
///     lost        times that a process did not find what had been acknowledged before: none
///     failed      other faults, and with foreign processes those that lasted for more than two seconds: none
///     healed      times that a process had the store open again after a fault, and longest_ms, the longest that it
///     took late        times that a process waited too long for others, which only tells that the machine is slow
///     destroyed   mutexes
///     foreign     openings by foreign processes

#include "pat_last_closer.h"

#include "writer/pat_writer.h"

#include "store/pat_clock.h"
#include "store/pat_reader.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <dlfcn.h>
#include <ftw.h>
#include <lmdb.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

using namespace pat;
using store::fault_kind;

constexpr std::size_t map_size = std::size_t{64} << 20;
constexpr unsigned max_healing_ms = 2000;
constexpr std::int64_t max_ending_ms = 20000;
constexpr unsigned tokens = 500;
constexpr int percent_writers = 20;

const token_hasher plain;

struct {
    int seconds = 5;
    unsigned processes = 8;
    unsigned foreign = 0;
    unsigned stretch_ms = 0;
    bool kills = true;
    unsigned seed = static_cast<unsigned>(std::time(nullptr));
} options;

std::string folder;

/// What all processes share. The counter in the store is its heartbeat, which each commit raises by one.
struct figures {
    std::atomic<bool> stop;
    std::atomic<long> openings, kills, commits, einval, lost, failed, healed, longest_ms, late, foreign, destroyed;
    std::atomic<long> acknowledged;  ///< the highest counter whose commit has returned
};
figures *shared;

bool is_foreign;
std::int64_t broken_since_ms;  ///< when this process met a fault that has not healed; 0 if there is none

void raise_to(std::atomic<long> &target, long value) noexcept
{
    long old = target;
    while (old < value && !target.compare_exchange_weak(old, value)) {
    }
}

void note_fault() noexcept
{
    broken_since_ms = broken_since_ms == 0 ? store::now_ms() : broken_since_ms;
}

}  // namespace

/// Defined here, so the linker prefers them to those of the libraries, for LMDB as well (-rdynamic).
extern "C" int mdb_txn_begin(MDB_env *env, MDB_txn *parent, unsigned flags, MDB_txn **out)
{
    using function = int (*)(MDB_env *, MDB_txn *, unsigned, MDB_txn **);
    static const auto real = reinterpret_cast<function>(dlsym(RTLD_NEXT, "mdb_txn_begin"));
    const int code = real(env, parent, flags, out);
    if (code == EINVAL && !is_foreign) {
        shared->einval++;
        note_fault();
    }
    return code;
}

extern "C" void mdb_env_close(MDB_env *env)
{
    using function = void (*)(MDB_env *);
    static const auto real = reinterpret_cast<function>(dlsym(RTLD_NEXT, "mdb_env_close"));
    int release[3];
    mdb_version(&release[0], &release[1], &release[2]);
    const bool destroys_itself = release[2] >= 26 && release[2] <= 31;

    const int fd = destroys_itself ? -1 : open((folder + '/' + store::lock_file).c_str(), O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        (void) test::destroy_mutexes_if_last(fd);
    }
    real(env);
    close(fd);
}

extern "C" int pthread_mutex_destroy(pthread_mutex_t *mutex) noexcept
{
    using function = int (*)(pthread_mutex_t *);
    static const auto real = reinterpret_cast<function>(dlsym(RTLD_NEXT, "pthread_mutex_destroy"));
    const int code = real(mutex);
    if (shared != nullptr) {
        shared->destroyed++;
    }
    usleep(options.stretch_ms * 1000);
    return code;
}

namespace {

std::string token(unsigned number)
{
    std::string result{"a-token-with-number-"};
    return result += std::to_string(number);
}

/// A counter that was read must not be less than one whose commit had returned before.
void check_counter(std::int64_t counter, long acknowledged)
{
    if (counter < acknowledged) {
        shared->lost++;
        std::fprintf(stderr, "race: counter %ld, after %ld was acknowledged\n", static_cast<long>(counter),
                     acknowledged);
    }
}

store::fault write_once(std::mt19937 &random)
{
    store::writer writer;
    if (const store::fault problem = writer.open(folder.c_str(), map_size)) {
        return problem;
    }
    const std::string text = token(static_cast<unsigned>(random()) % tokens);
    const long acknowledged = shared->acknowledged;
    std::int64_t counter = 0;
    const store::fault problem = writer.update([&](store::transaction &change) {
        counter = ++change.info().heartbeat;
        check_counter(counter - 1, acknowledged);
        token_record record;
        record.id = record.subject = text;
        record.revoked_at = counter;
        return change.put(plain(text), record);
    });
    if (!problem) {
        raise_to(shared->acknowledged, counter);
        shared->commits++;
    }
    return problem;
}

store::fault read_once(std::mt19937 &random)
{
    store::reader reader;
    long acknowledged = shared->acknowledged;
    if (const store::fault problem = reader.open(folder.c_str(), map_size, max_healing_ms)) {
        return problem;
    }
    for (int reads = 0; reads < 2; reads++) {
        store::condition found;
        if (const store::fault problem = reader.describe(found)) {
            return problem;
        }
        check_counter(found.heartbeat, acknowledged);
        acknowledged = std::max(shared->acknowledged.load(), static_cast<long>(found.heartbeat));
        if (reads == 0) {
            acknowledged = static_cast<long>(found.heartbeat);
            usleep(static_cast<unsigned>(random()) % 2000);
        }
    }
    return {};
}

/// Has the store open once, and again until a fault has healed.
void run_session(std::mt19937 &random)
{
    const bool writes = static_cast<int>(random() % 100) < percent_writers;
    broken_since_ms = 0;
    for (;;) {
        shared->openings++;
        const store::fault problem = writes ? write_once(random) : read_once(random);
        if (problem.kind == fault_kind::busy || problem.kind == fault_kind::stalled) {
            shared->late++;
        } else if (problem) {
            note_fault();
        }
        const std::int64_t broken_ms = broken_since_ms == 0 ? 0 : store::now_ms() - broken_since_ms;
        raise_to(shared->longest_ms, broken_ms);

        const bool may_heal = options.foreign != 0 && broken_ms <= max_healing_ms;
        if (problem && broken_since_ms != 0 && (!may_heal || problem.kind == fault_kind::lost_mutexes)) {
            shared->failed++;
            std::fprintf(stderr, "race: %s\n", store::fault_text{problem}.text());
            return;
        }
        if (!problem || broken_since_ms == 0 || shared->stop) {
            shared->healed += !problem && broken_since_ms != 0 ? 1 : 0;
            return;
        }
        usleep(1000);
    }
}

/// Uses the store as programs do that know nothing of ours.
void run_foreign_session(std::mt19937 &random)
{
    MDB_env *env = nullptr;
    MDB_txn *transaction = nullptr;
    if (mdb_env_create(&env) != 0) {
        std::abort();
    }
    if (mdb_env_open(env, folder.c_str(), MDB_RDONLY, store::data_file_mode) == 0
        && mdb_txn_begin(env, nullptr, MDB_RDONLY, &transaction) == 0) {
        mdb_txn_abort(transaction);
    }
    mdb_env_close(env);
    shared->foreign++;
    usleep(static_cast<unsigned>(random()) % 3000);
}

pid_t start(bool foreign, unsigned seed)
{
    const pid_t child = fork();
    if (child < 0) {
        std::perror("race: fork");
        std::exit(2);
    }
    if (child == 0) {
        is_foreign = foreign;
        std::mt19937 random{seed};
        while (!shared->stop) {
            foreign ? run_foreign_session(random) : run_session(random);
        }
        _exit(0);
    }
    return child;
}

/// Waits for the processes to end; true if one did not.
bool are_stuck(const std::vector<pid_t> &children)
{
    bool result = false;
    const std::int64_t end_ms = store::now_ms() + max_ending_ms;
    for (const pid_t child : children) {
        while (waitpid(child, nullptr, WNOHANG) == 0) {
            if (store::now_ms() > end_ms) {
                result = true;
                (void) kill(child, SIGKILL);
                (void) waitpid(child, nullptr, 0);
                break;
            }
            usleep(1000);
        }
    }
    return result;
}

void race()
{
    std::mt19937 random{options.seed};
    std::vector<pid_t> children;
    for (unsigned i = 0; i < options.processes + options.foreign; i++) {
        children.push_back(start(i >= options.processes, static_cast<unsigned>(random())));
    }

    const std::int64_t end_ms = store::now_ms() + options.seconds * std::int64_t{1000};
    while (store::now_ms() < end_ms) {
        usleep(static_cast<unsigned>(random()) % 2000);
        if (options.kills) {
            pid_t &child = children[random() % options.processes];
            (void) kill(child, SIGKILL);
            (void) waitpid(child, nullptr, 0);
            shared->kills++;
            child = start(false, static_cast<unsigned>(random()));
        }
    }
    shared->stop = true;
    shared->failed += are_stuck(children) ? 1 : 0;
}

[[noreturn]] void refuse(const char *argument)
{
    std::fprintf(stderr,
                 "race: \"%s\"?\n"
                 "usage: race [--seconds N] [--processes N] [--foreign N] [--stretch MS] [--no-kills] [--seed N]\n",
                 argument);
    std::exit(2);
}

void read_options(int count, char **arguments)
{
    for (int i = 1; i < count; i++) {
        const std::string_view name{arguments[i]};
        if (name == "--no-kills") {
            options.kills = false;
            continue;
        }
        char *end = nullptr;
        const char *text = i + 1 < count ? arguments[++i] : "";
        const unsigned long number = std::strtoul(text, &end, 10);
        if (*text < '0' || *text > '9' || *end != '\0' || number > 1'000'000) {
            refuse(text);
        }
        const auto value = static_cast<unsigned>(number);
        if (name == "--seconds") {
            options.seconds = static_cast<int>(value);
        } else if (name == "--processes" && value > 0) {
            options.processes = value;
        } else if (name == "--foreign") {
            options.foreign = value;
        } else if (name == "--stretch") {
            options.stretch_ms = value;
        } else if (name == "--seed") {
            options.seed = value;
        } else {
            refuse(name.data());
        }
    }
}

void remove_folder()
{
    constexpr int open_folders = 16;
    (void) nftw(
        folder.c_str(), [](const char *entry, const struct stat *, int, FTW *) { return remove(entry); }, open_folders,
        FTW_DEPTH | FTW_PHYS);
}

}  // namespace

int main(int count, char **arguments)
{
    read_options(count, arguments);
    void *memory = mmap(nullptr, sizeof(figures), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const char *parent = std::getenv("TMPDIR");
    folder = std::string{parent != nullptr ? parent : "/tmp"} + "/auth-pat-race-XXXXXX";
    if (memory == MAP_FAILED || mkdtemp(folder.data()) == nullptr) {
        std::perror("race");
        return 2;
    }
    shared = new (memory) figures{};

    std::mt19937 random{options.seed};
    store::fault problem = store::writer::create(folder.c_str(), std::nullopt, plain, map_size);
    if (!problem) {
        race();
        problem = write_once(random);
    }
    if (problem) {
        std::fprintf(stderr, "race: %s\n", store::fault_text{problem}.text());
        shared->failed++;
    }
    remove_folder();

    int release[3];
    mdb_version(&release[0], &release[1], &release[2]);
    const figures &seen = *shared;
    std::printf(
        "lmdb=%d.%d.%d openings=%ld kills=%ld commits=%ld einval=%ld lost=%ld failed=%ld late=%ld destroyed=%ld "
        "foreign=%ld healed=%ld longest_ms=%ld seed=%u\n",
        release[0], release[1], release[2], seen.openings.load(), seen.kills.load(), seen.commits.load(),
        seen.einval.load(), seen.lost.load(), seen.failed.load(), seen.late.load(), seen.destroyed.load(),
        seen.foreign.load(), seen.healed.load(), seen.longest_ms.load(), options.seed);
    const bool is_good =
        seen.commits > 1 && seen.lost == 0 && seen.failed == 0 && (seen.einval == 0 || options.foreign != 0);
    return is_good ? 0 : 1;
}
