#include "pat_last_closer.h"
#include "pat_temp_store.h"

#include "writer/pat_snapshot.h"

#include <string_view>

#include <pthread.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

/// What the owner of a store, or a member of its group, can put in the way of those who open it.
namespace {

using namespace pat;
using namespace pat::test;
using store::fault_kind;

constexpr const char *files[] = {"data.mdb", "lock.mdb", "open.lock"};

bool make_socket(const path &at)
{
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (std::strlen(at.text) >= sizeof address.sun_path) {
        return false;
    }
    std::memcpy(address.sun_path, at.text, std::strlen(at.text) + 1);
    const bool good = bind(fd, reinterpret_cast<const sockaddr *>(&address), sizeof address) == 0;
    close(fd);
    return good;
}

struct obstacle {
    const char *name;
    bool (*make)(const path &at, const path &target);
};

constexpr obstacle obstacles[] = {
    {"a link", [](const path &at, const path &target) { return symlink(target.text, at.text) == 0; }},
    {"a link to nowhere",
     [](const path &at, const path &target) { return symlink((target / "nowhere").text, at.text) == 0; }},
    {"a link to what is not there yet",
     [](const path &at, const path &) { return symlink((folder / "new").text, at.text) == 0; }},
    {"a FIFO", [](const path &at, const path &) { return mkfifo(at.text, 0660) == 0; }},
    {"a socket", [](const path &at, const path &) { return make_socket(at); }},
    {"a folder", [](const path &at, const path &) { return mkdir(at.text, 0750) == 0; }},
    {"a device", [](const path &at, const path &) { return mknod(at.text, S_IFCHR | 0660, makedev(1, 5)) == 0; }},
    {"a hard link to a file of somebody else",
     [](const path &at, const path &target) {
         return chown(target.text, 12345, 12345) == 0 && link(target.text, at.text) == 0;
     }},
};

/// Opens the store in every way there is; true if each is refused because of the file.
bool is_refused(const path &store, const char *file)
{
    // Root refuses what others may write to before it looks at what kind of file it is.
    struct stat info;
    const bool is_of_others = geteuid() == 0 && lstat((store / file).text, &info) == 0 && S_ISREG(info.st_mode);

    const auto fits = [&](store::fault problem) {
        if (is_of_others && problem.kind == fault_kind::shared) {
            return true;
        }
        if (problem.kind != fault_kind::not_regular || std::string_view{store::detail(problem)} != file) {
            std::fprintf(stderr, "%s (%s)\n", store::message(problem), store::detail(problem));
            return false;
        }
        return true;
    };
    store::reader reader;
    store::writer writer;
    store::snapshot snapshot;
    return fits(reader.open(store.text, map_size, 0)) && fits(writer.open(store.text, map_size))
           && fits(snapshot.open(store.text, map_size))
           && fits(store::writer::create(store.text, std::nullopt, plain, map_size))
           && fits(store::writer::backup(store.text, (folder / "copy").text, map_size));
}

void reader_rule_13_what_is_no_file_is_refused_and_left_as_it_is(void **)
{
    const path store = make_store();
    put(store, 1);

    for (const obstacle &row : obstacles) {
        for (const char *file : files) {
            const path at = store / file;
            const path aside = folder / "aside";
            const path target = folder / "target";
            assert_int_equal(rename(at.text, aside.text), 0);
            copy_file(aside, target);
            assert_int_equal(chmod(target.text, 0600), 0);

            if (row.make(at, target)) {
                struct stat before;
                struct stat after;
                assert_int_equal(stat(target.text, &before), 0);
                const int status = status_of(start_child([&] { return is_refused(store, file); }));
                assert_row(row.name, status == 0);
                assert_int_equal(stat(target.text, &after), 0);
                assert_row(row.name, before.st_uid == after.st_uid && before.st_gid == after.st_gid);
                assert_row(row.name, before.st_mode == after.st_mode && before.st_size == after.st_size);
                assert_row(row.name, before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
                assert_row(row.name, access((folder / "new").text, F_OK) != 0);
                assert_row(row.name, access((folder / "copy.partial").text, F_OK) != 0);
                assert_int_equal(remove(at.text), 0);
            } else {
                print_message("%s is not permitted here\n", row.name);
            }
            assert_int_equal(unlink(target.text), 0);
            assert_int_equal(rename(aside.text, at.text), 0);
        }
    }
    store::reader *reader = open_reader(store);
    assert_found(*reader, 1);
    delete reader;
}

void reader_rule_13_a_hard_link_of_the_owner_is_a_file(void **)
{
    const path store = make_store();
    put(store, 1);
    for (const char *file : files) {
        assert_int_equal(link((store / file).text, (folder / file).text), 0);
    }
    store::reader *reader = open_reader(store);
    assert_found(*reader, 1);
    delete reader;
    put(store, 2);
}

void writer_rule_1_a_link_to_a_folder_is_not_filled(void **)
{
    const path elsewhere = folder / "elsewhere";
    const path store = folder / "store";
    assert_int_equal(mkdir(elsewhere.text, 0700), 0);
    assert_int_equal(symlink(elsewhere.text, store.text), 0);
    assert_true(static_cast<bool>(store::writer::create(store.text, std::nullopt, plain, map_size)));
    struct stat info;
    assert_int_equal(stat(elsewhere.text, &info), 0);
    assert_int_equal(info.st_mode & 07777, 0700);
    assert_int_equal(rmdir(elsewhere.text), 0);
}

/// Milliseconds that `body` takes.
template <typename Body>
long time_of(const Body &body)
{
    timespec start;
    timespec end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    body();
    clock_gettime(CLOCK_MONOTONIC, &end);
    return (end.tv_sec - start.tv_sec) * 1000 + (end.tv_nsec - start.tv_nsec) / 1000000;
}

/// A process that does something to lock.mdb and lives until it is ended.
template <typename Body>
pid_t start_holder(const path &lock, const Body &body)
{
    const path held = folder / "held";
    (void) rmdir(held.text);
    const pid_t child = start_child([&] {
        const int fd = open(lock.text, O_RDWR | O_CLOEXEC);
        if (!body(fd) || mkdir(held.text, 0700) != 0) {
            return false;
        }
        for (;;) {
            pause();
        }
    });
    while (access(held.text, F_OK) != 0) {
        usleep(1000);
    }
    return child;
}

void end_holder(pid_t child)
{
    assert_int_equal(kill(child, SIGKILL), 0);
    (void) status_of(child);
}

bool hold_mutex(int fd)
{
    void *map = mmap(nullptr, page_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return map != MAP_FAILED
           && pthread_mutex_lock(reinterpret_cast<pthread_mutex_t *>(static_cast<char *>(map) + readers_mutex_at)) == 0;
}

bool hold_file(int fd)
{
    struct flock whole {};
    whole.l_type = F_WRLCK;
    return fcntl(fd, F_OFD_SETLK, &whole) == 0;
}

void reader_rule_13_a_lock_that_somebody_holds_holds_nobody_up_for_long(void **)
{
    const path store = make_store();
    put(store, 1);
    store::reader *first = open_reader(store);

    // A dead reader beside the mutex: who is open does not look for such.
    const pid_t nobody = 0x3ffffff;
    const std::uint32_t used = 2;
    patch(store / "lock.mdb", lock_used_at, &used, sizeof used);
    patch(store / "lock.mdb", lock_readers_at + lock_reader_size + 8, &nobody, sizeof nobody);

    const pid_t holder = start_holder(store / "lock.mdb", hold_mutex);
    const long looking_ms = time_of([&] {
        for (int i = 0; i < 10; i++) {
            look_after(*first, store);
        }
    });
    assert_found(*first, 1);
    assert_in_range(looking_ms, 0, 400);

    in_child([&] {
        auto *second = new store::reader;
        int before = open("/", O_RDONLY | O_CLOEXEC);
        close(before);
        bool good = true;
        long waited_ms = 0;
        for (int i = 0; i < 3; i++) {
            waited_ms +=
                time_of([&] { good = good && second->open(store.text, map_size, 0).kind == fault_kind::stalled; });
        }
        const int after = open("/", O_RDONLY | O_CLOEXEC);  // nothing was left open
        return good && after == before && waited_ms >= 3 * 400 && waited_ms < 20000
               && look(*second, 1).problem.kind == fault_kind::stalled;
    });
    end_holder(holder);
    delete first;

    const pid_t other = start_holder(store / "lock.mdb", hold_file);
    in_child([&] {
        auto *second = new store::reader;
        return second->open(store.text, map_size, 0).kind == fault_kind::stalled;
    });
    end_holder(other);

    in_child([&] {
        auto *second = new store::reader;
        return !second->open(store.text, map_size, 0) && look(*second, 1).right;
    });
}

void reader_rule_13_a_large_table_of_readers_is_refused(void **)
{
    const path store = make_store();
    assert_int_equal(truncate((store / "lock.mdb").text, store::max_lock_file_size), 0);
    in_child([&] {
        auto *reader = new store::reader;
        return !reader->open(store.text, map_size, 0);
    });
    assert_int_equal(truncate((store / "lock.mdb").text, store::max_lock_file_size + 1), 0);
    in_child([&] {
        auto *reader = new store::reader;
        return reader->open(store.text, map_size, 0).kind == fault_kind::bad_lock_file;
    });
}

/// Where the two header pages have what they say of the file (docs/store-format.md, reader rule 8).
constexpr off_t map_size_at = 32;
constexpr off_t free_root_at = 80;
constexpr off_t last_page_at = 136;
constexpr off_t transaction_at = 144;

/// The offset of the header page of the newest commit.
off_t newest_header(const path &data)
{
    return read_number(data, transaction_at) > read_number(data, page_size + transaction_at) ? 0 : page_size;
}

void reader_rule_8_a_file_that_wants_all_of_the_address_space_is_refused(void **)
{
    const path store = make_store();
    put(store, 1);
    const path data = store / "data.mdb";
    const std::uint64_t much = std::uint64_t{100} << 40;
    const std::uint64_t pages = much / page_size;
    const std::uint64_t none = ~std::uint64_t{0};

    const struct {
        off_t at;
        std::uint64_t value;
    } rows[] = {{map_size_at, much}, {last_page_at, pages}, {last_page_at, none}};
    for (const auto &[at, value] : rows) {
        for (const off_t header : {off_t{0}, static_cast<off_t>(page_size)}) {
            const std::uint64_t good = read_number(data, header + at);
            patch(data, header + at, &value, sizeof value);
            auto *reader = new store::reader;
            const store::fault problem = reader->open(store.text, map_size, 0);
            delete reader;
            assert_fault(problem, fault_kind::damaged);
            patch(data, header + at, &good, sizeof good);
        }
    }
}

/// Puts a list of free pages in a file whose tree has 28 levels, each page of which leads to the next by a hundred
/// ways: as many steps as there are atoms in 10^31 tons.
void put_endless_list(const path &data)
{
    struct [[gnu::packed]] {
        std::uint64_t number;
        std::uint16_t pad, flags, lower, upper;
        std::uint16_t offsets[100];
    } page{};
    constexpr unsigned levels = 28;
    constexpr unsigned ways = 100;
    constexpr unsigned node_size = 16;
    static char bytes[page_size];

    const off_t header = newest_header(data);
    const std::uint64_t newest = read_number(data, header + transaction_at);
    const auto begin = static_cast<std::uint64_t>(size_of(data)) / page_size;
    for (unsigned level = 0; level < levels; level++) {
        const bool is_leaf = level == levels - 1;
        std::memset(bytes, 0, sizeof bytes);
        page.number = begin + level;
        page.flags = is_leaf ? 2 : 1;
        page.lower = 16 + 2 * ways;
        page.upper = page_size - ways * (node_size + (is_leaf ? 8 : 0));
        for (std::uint64_t i = 0; i < ways; i++) {
            const auto at = static_cast<std::uint16_t>(page.upper + i * (node_size + (is_leaf ? 8 : 0)));
            page.offsets[i] = at;
            const std::uint64_t next = page.number + 1;
            const std::uint16_t key_size = 8;
            const std::uint64_t key = i + 1 < ways ? i + 1 : newest;
            std::memcpy(bytes + at, &next, is_leaf ? 0 : 6);
            if (is_leaf) {
                bytes[at] = 8;  // a list of no pages
            }
            std::memcpy(bytes + at + 6, &key_size, 2);
            std::memcpy(bytes + at + 8, &key, 8);
        }
        std::memcpy(bytes, &page, sizeof page);
        patch(data, static_cast<off_t>(page.number) * page_size, bytes, page_size);
    }

    const std::uint64_t last = begin + levels - 1;
    patch(data, header + free_root_at, &begin, sizeof begin);
    patch(data, header + last_page_at, &last, sizeof last);
}

void reader_rule_13_a_list_of_free_pages_without_end_ends(void **)
{
    const path store = make_store();
    put_many(store, 600);
    put_endless_list(store / "data.mdb");

    in_child([&] {
        auto *reader = new store::reader;
        store::fault problem;
        const long took_ms = time_of([&] { problem = reader->open(store.text, map_size, 0); });
        // Tokens need no free page.
        return took_ms < 20000 && (problem.kind == fault_kind::stalled || (!problem && look(*reader, 599).right));
    });
}

/// Has all pages of the tree say what makes LMDB's search of a key go on for ever: that they have keys of one size,
/// which is 0, and fewer of them than none.
void put_negative_counts(const path &data, std::uint16_t lower)
{
    constexpr off_t flags_at = 10;
    constexpr off_t lower_at = 12;
    constexpr std::uint16_t tree_page = 1 | 2;
    constexpr std::uint16_t keys_of_one_size = 0x20;

    for (off_t page = off_t{2} * page_size; page < size_of(data); page += page_size) {
        const auto flags = static_cast<std::uint16_t>(read_number(data, page + flags_at));
        if ((flags & tree_page) != 0) {
            const std::uint16_t changed = 2 | keys_of_one_size;
            patch(data, page + flags_at, &changed, sizeof changed);
            patch(data, page + lower_at, &lower, sizeof lower);
        }
    }
}

void reader_rule_13_a_search_ends_whatever_a_page_says_of_its_keys(void **)
{
    const path store = make_store();
    put_many(store, 600);
    const path data = store / "data.mdb";
    const path good = folder / "good";
    copy_file(data, good);

    for (const std::uint16_t lower : std::initializer_list<std::uint16_t>{0, 1, 2, 8, 14, 15}) {
        in_child([&] {
            auto *reader = new store::reader;
            if (reader->open(store.text, map_size, 1000)) {
                return false;
            }
            put_negative_counts(data, lower);
            return look(*reader, 1).problem.kind == fault_kind::damaged
                   && reader->open(store.text, map_size, 1000).kind == fault_kind::damaged;
        });
        in_child([&] {
            store::writer writer;
            const store::fault problem = writer.open(store.text, map_size);
            const token_text text = token(1);
            const auto change = [&](store::transaction &scope) {
                return scope.put(plain(text.text), record_of(text, 1));
            };
            return problem.kind == fault_kind::damaged || writer.update(change).kind == fault_kind::damaged;
        });
        in_child([&] {
            store::snapshot snapshot;
            return snapshot.open(store.text, map_size).kind == fault_kind::damaged;
        });
        copy_file(good, data);
    }
}

}  // namespace

int main()
{
    const CMUnitTest tests[] = {
        store_test(reader_rule_13_what_is_no_file_is_refused_and_left_as_it_is),
        store_test(reader_rule_13_a_hard_link_of_the_owner_is_a_file),
        store_test(writer_rule_1_a_link_to_a_folder_is_not_filled),
        store_test(reader_rule_13_a_lock_that_somebody_holds_holds_nobody_up_for_long),
        store_test(reader_rule_13_a_large_table_of_readers_is_refused),
        store_test(reader_rule_8_a_file_that_wants_all_of_the_address_space_is_refused),
        store_test(reader_rule_13_a_list_of_free_pages_without_end_ends),
        store_test(reader_rule_13_a_search_ends_whatever_a_page_says_of_its_keys),
    };
    return cmocka_run_group_tests_name("store files", tests, nullptr, nullptr);
}
