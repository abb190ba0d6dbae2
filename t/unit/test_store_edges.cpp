#include "pat_last_closer.h"
#include "pat_temp_store.h"

#include "store/pat_trap.h"
#include "writer/pat_snapshot.h"

#include <csignal>
#include <string_view>

#include <lmdb.h>
#include <sched.h>
#include <sys/mount.h>

namespace {

using namespace pat;
using namespace pat::test;
using store::fault_kind;

unsigned flags_of(const path &store, store::open_mode mode)
{
    unsigned flags = 0;
    auto *open = new store::environment;
    assert_good(open->open(store.text, mode, map_size, 0));
    assert_int_equal(mdb_env_get_flags(open->get(), &flags), 0);
    delete open;
    return flags;
}

void reader_rule_2_the_flags(void **)
{
    const unsigned flags = flags_of(make_store(), store::open_mode::read);
    assert_true((flags & MDB_RDONLY) != 0);
    assert_true((flags & MDB_NOTLS) != 0);
    assert_true((flags & MDB_NOLOCK) == 0);
}

void writer_rule_2_writes_are_plain_and_synchronous(void **)
{
    const unsigned flags = flags_of(make_store(), store::open_mode::write);
    assert_true((flags & (MDB_RDONLY | MDB_NOLOCK | MDB_WRITEMAP | MDB_MAPASYNC | MDB_NOSYNC | MDB_NOMETASYNC)) == 0);
}

void reader_rule_7_map_and_table_are_of_the_same_size_everywhere(void **)
{
    const path store = make_store();
    for (const store::open_mode mode : {store::open_mode::read, store::open_mode::write}) {
        if (mode == store::open_mode::write) {  // then it is the first to open the store
            assert_int_equal(unlink((store / "lock.mdb").text), 0);
        }
        MDB_envinfo info{};
        auto *open = new store::environment;
        assert_good(open->open(store.text, mode, store::default_map_size, 0));
        assert_int_equal(mdb_env_info(open->get(), &info), 0);
        delete open;
        assert_int_equal(info.me_mapsize, std::size_t{32} << 30);
        assert_int_equal(info.me_maxreaders, 1024);
    }
}

void reader_rule_7_a_table_full_of_living_readers_is_told(void **)
{
    const path store = make_store();
    put(store, 1);
    store::reader *reader = open_reader(store);

    // Of a process that lives, and whose lock tells so, which is what counts.
    const path lock = store / "lock.mdb";
    const auto used = static_cast<std::uint32_t>(store::max_readers);
    const pid_t living = getpid();
    patch(lock, lock_used_at, &used, sizeof used);
    for (off_t i = 1; i < store::max_readers; i++) {
        patch(lock, lock_readers_at + i * lock_reader_size + 8, &living, sizeof living);
    }

    in_child([&] {
        auto *second = new store::reader;
        if (second->open(store.text, map_size, 0).kind != fault_kind::readers_full || second->is_open()
            || look(*second, 1).problem.kind != fault_kind::readers_full) {
            return false;
        }
        // A slot that becomes free is taken.
        const pid_t nobody = 0;
        return pwrite(descriptor_of(lock), &nobody, sizeof nobody, lock_readers_at + 5 * lock_reader_size + 8)
                   == sizeof nobody
               && (look_after(*second, store), look(*second, 1).right);
    });
    assert_found(*reader, 1);

    const pid_t nobody = 0;
    for (off_t i = 1; i < store::max_readers; i++) {
        patch(lock, lock_readers_at + i * lock_reader_size + 8, &nobody, sizeof nobody);
    }
    delete reader;
}

void reader_rule_7_a_slot_that_was_taken_away_has_the_store_opened_again(void **)
{
    const path store = make_store();
    put(store, 1);
    store::reader *reader = open_reader(store);
    assert_found(*reader, 1);
    const pid_t other = 0x3ffffff;
    patch(store / "lock.mdb", lock_readers_at + 8, &other, sizeof other);
    assert_found(*reader, 1);
    put(store, 1, 1);
    assert_true(look(*reader, 1).revoked);
    delete reader;
}

void writer_rule_4_a_full_map_is_told_and_leaves_the_store_usable(void **)
{
    const path store = make_store();
    constexpr std::size_t small = std::size_t{256} << 10;
    put(store, 0);
    in_child([&] {
        store::writer writer;
        const auto fill = [](unsigned count) {
            return [count](store::transaction &change) {
                for (unsigned i = 1; i <= count; i++) {
                    const token_text text = token(i);
                    if (const store::fault problem = change.put(plain(text.text), record_of(text))) {
                        return problem;
                    }
                }
                return store::fault{};
            };
        };
        return !writer.open(store.text, small) && writer.update(fill(5000)).kind == fault_kind::map_full
               && !writer.update(fill(10));
    });
    store::reader *reader = open_reader(store);
    assert_found(*reader, 0);
    assert_found(*reader, 10);
    assert_not_found(*reader, 11);
    delete reader;
}

void reader_rule_8_a_file_that_lacks_half_of_its_pages_or_more_is_refused(void **)
{
    const path store = make_store();
    put_many(store, 2000);
    put_many(store, 2000);  // writes all pages again, behind the first ones, which become free
    for (unsigned i = 0; i < 4; i++) {
        put(store, i);  // the roots move to those
    }
    const path data = store / "data.mdb";
    const path good = folder / "good";
    copy_file(data, good);

    for (off_t length = 2 * page_size; length <= size_of(good) / 2; length += page_size) {
        copy_file(good, data);
        assert_int_equal(truncate(data.text, length), 0);
        auto *reader = new store::reader;
        const store::fault problem = reader->open(store.text, map_size, 0);
        delete reader;
        assert_fault(problem, fault_kind::truncated);
    }
}

void reader_rule_9_a_data_file_that_is_mounted_read_only_is_refused(void **)
{
    const path store = make_store();
    const path data = store / "data.mdb";
    const bool was_permitted = in_child_if_permitted([&](bool &permitted) {
        permitted = unshare(CLONE_NEWNS) == 0 && mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0
                    && mount(data.text, data.text, nullptr, MS_BIND, nullptr) == 0
                    && mount(nullptr, data.text, nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY, nullptr) == 0;
        auto *reader = new store::reader;
        return reader->open(store.text, map_size, 0).kind == fault_kind::read_only;
    });
    if (!was_permitted) {
        print_message("mounting is not permitted here\n");
        skip();
    }
}

/// Runs `body` as the first process of a PID namespace; as what start_child() gives.
template <typename Body>
pid_t start_in_pid_namespace(const Body &body)
{
    return start_child([&] {
        if (unshare(CLONE_NEWPID) != 0) {
            return false;
        }
        const pid_t first = fork();
        if (first == 0) {
            _exit(getpid() == 1 && body() ? 0 : 1);
        }
        int status = 0;
        return first > 0 && waitpid(first, &status, 0) == first && status == 0;
    });
}

/// Opens a store as a reader or a writer, tells so with a folder, and closes it when there is another one.
bool hold(const path &store, store::open_mode mode, const path &is_open, const path &may_close)
{
    auto *held = new store::environment;
    const bool good = !held->open(store.text, mode, map_size, 1000) && mkdir(is_open.text, 0700) == 0;
    const bool closes = good && appears(may_close);
    held->close();
    return closes;
}

store::fault try_to_open(const path &store, store::open_mode mode)
{
    auto *tried = new store::environment;
    const store::fault problem = tried->open(store.text, mode, map_size, 1000);
    tried->close();
    return problem;
}

void reader_rule_12_a_store_is_open_in_one_pid_namespace_only(void **)
{
    if (!in_child_if_permitted([](bool &permitted) {
            permitted = unshare(CLONE_NEWPID) == 0;
            return true;
        })) {
        print_message("PID namespaces are not permitted here\n");
        skip();
    }

    const path store = make_store();
    put(store, 1);
    int round = 0;
    for (const store::open_mode first : {store::open_mode::read, store::open_mode::write}) {
        for (const store::open_mode second : {store::open_mode::read, store::open_mode::write}) {
            for (const bool first_is_inside : {true, false}) {
                char name[32];
                std::snprintf(name, sizeof name, "is-open-%d", round);
                const path is_open = folder / name;
                std::snprintf(name, sizeof name, "may-close-%d", round);
                const path may_close = folder / name;
                round++;

                const auto holds = [&] { return hold(store, first, is_open, may_close); };
                const auto is_refused = [&] {
                    const store::fault problem = try_to_open(store, second);
                    return problem.kind == fault_kind::other_namespace
                           && std::string_view{store::message(problem)}.find("shareProcessNamespace")
                                  != std::string_view::npos;
                };
                const pid_t holder = first_is_inside ? start_in_pid_namespace(holds) : start_child(holds);
                assert_true(appears(is_open));

                // Another one of its own namespace is let in, and one of a third namespace is not.
                const int same =
                    first_is_inside ? 0 : status_of(start_child([&] { return !try_to_open(store, second); }));
                const int other =
                    status_of(first_is_inside ? start_child(is_refused) : start_in_pid_namespace(is_refused));
                const int third = status_of(start_in_pid_namespace(is_refused));

                assert_int_equal(mkdir(may_close.text, 0700), 0);
                assert_int_equal(status_of(holder), 0);
                assert_int_equal(same, 0);
                assert_int_equal(other, 0);
                assert_int_equal(third, 0);

                // When it has gone, it is another one's turn.
                const auto is_let_in = [&] { return !try_to_open(store, second); };
                assert_int_equal(status_of(start_in_pid_namespace(is_let_in)), 0);
                assert_int_equal(status_of(start_child(is_let_in)), 0);
            }
        }
    }
}

void reader_rule_12_a_reader_that_was_killed_in_another_pid_namespace_is_forgotten(void **)
{
    const path store = make_store();
    if (status_of(start_in_pid_namespace([] { return true; })) != 0) {
        print_message("PID namespaces are not permitted here\n");
        skip();
    }
    assert_int_not_equal(status_of(start_in_pid_namespace([&] {
                             auto *leaked = new store::environment;
                             if (leaked->open(store.text, store::open_mode::read, map_size, 1000)) {
                                 return true;
                             }
                             _exit(1);
                         })),
                         0);
    put(store, 1);
}

void reader_rule_12_without_proc_a_store_is_not_opened(void **)
{
    const path store = make_store();
    const bool was_permitted = in_child_if_permitted([&](bool &permitted) {
        permitted = unshare(CLONE_NEWNS) == 0 && mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0
                    && mount("none", "/proc", "tmpfs", 0, nullptr) == 0;
        const store::fault problem = try_to_open(store, store::open_mode::read);
        return problem.kind == fault_kind::no_namespace && problem.code == ENOENT;
    });
    if (!was_permitted) {
        print_message("mounting is not permitted here\n");
        skip();
    }
}

/// A member of the store's group can give LMDB's own lock back, which lies in lock.mdb.
void writer_rule_9_two_writers_are_kept_apart_without_the_lock_in_lock_mdb(void **)
{
    const path store = make_store();
    const path has_begun = folder / "has-begun";
    const path may_end = folder / "may-end";

    const pid_t first = start_child([&] {
        store::writer writer;
        return !writer.open(store.text, map_size) && !writer.update([&](store::transaction &change) {
            const token_text text = token(1);
            const store::fault problem = change.put(plain(text.text), record_of(text));
            return mkdir(has_begun.text, 0700) == 0 && appears(may_end) ? problem : store::fault{fault_kind::lmdb};
        });
    });
    assert_true(appears(has_begun));

    const char free_mutex[4] = {};
    patch(store / "lock.mdb", writers_mutex_at, free_mutex, sizeof free_mutex);
    const pid_t second = start_child([&] {
        store::writer writer;
        return !writer.open(store.text, map_size) && !writer.update([&](store::transaction &change) {
            const token_text text = token(2);
            return access(may_end.text, F_OK) == 0 ? change.put(plain(text.text), record_of(text))
                                                   : store::fault{fault_kind::replaced};
        });
    });
    usleep(100000);  // if it went on, it would find that it may not
    assert_int_equal(mkdir(may_end.text, 0700), 0);
    assert_int_equal(status_of(first), 0);
    assert_int_equal(status_of(second), 0);

    store::reader *reader = open_reader(store);
    assert_found(*reader, 1);
    assert_found(*reader, 2);
    delete reader;
}

/// On disks of one page, of two and so on, which leave off everything that creating does.
void writer_rule_1_a_creation_on_a_full_disk_is_told_and_completed_later(void **)
{
    const path disk = folder / "disk";
    assert_int_equal(mkdir(disk.text, 0755), 0);
    for (int pages = 1; pages <= 20; pages++) {
        char size[32];
        std::snprintf(size, sizeof size, "size=%dk", pages * 4);
        if (mount("none", disk.text, "tmpfs", 0, size) != 0) {
            print_message("mounting is not permitted here\n");
            skip();
        }
        const path store = disk / "store";
        const pid_t child = start_child([&] {
            const store::fault problem = store::writer::create(store.text, std::nullopt, plain, map_size);
            return problem.kind == fault_kind::none || problem.kind == fault_kind::disk_full
                   || problem.kind == fault_kind::damaged;
        });
        const int status = status_of(child);
        const bool has_room = mount(nullptr, disk.text, nullptr, MS_REMOUNT, "size=16m") == 0;
        const pid_t again = start_child([&] {
            const store::fault problem = store::writer::create(store.text, std::nullopt, plain, map_size);
            auto *reader = new store::reader;
            return (!problem || problem.kind == fault_kind::exists) && !reader->open(store.text, map_size, 0)
                   && !look(*reader, 1).problem;
        });
        const int again_status = status_of(again);
        assert_int_equal(umount2(disk.text, MNT_DETACH), 0);
        assert_number_equal(label_at("with pages", static_cast<std::size_t>(pages)), status, 0);
        assert_true(has_room);
        assert_number_equal(label_at("again after pages", static_cast<std::size_t>(pages)), again_status, 0);
    }
}

void a_path_that_is_too_long_is_refused(void **)
{
    static char name[PATH_MAX + 10];
    std::memset(name, 'a', sizeof name - 1);
    static store::file_path joined;

    // Of PATH_MAX bytes the last is the zero.
    name[PATH_MAX - 2] = '\0';
    assert_true(joined.join(name, "b"));
    assert_int_equal(std::strlen(joined.text()), PATH_MAX - 1);
    name[PATH_MAX - 2] = 'a';
    name[PATH_MAX - 1] = '\0';
    assert_false(joined.join(name, "b"));
    assert_true(joined.join(name, ""));
    assert_false(joined.set(name, "b"));

    assert_true(joined.set_start(name, PATH_MAX - 1));
    assert_int_equal(std::strlen(joined.text()), PATH_MAX - 1);
    assert_false(joined.set_start(name, PATH_MAX));
    assert_true(joined.set_start("/a/b", 2));
    assert_string_equal(joined.text(), "/a");

    name[0] = '/';
    auto *reader = new store::reader;
    assert_int_equal(reader->open(name, map_size, 0).code, ENAMETOOLONG);
    delete reader;
    in_child([&] {
        const path store = make_store();
        store::writer writer;
        return writer.open(name, map_size).code == ENAMETOOLONG
               && static_cast<bool>(store::writer::create(name, std::nullopt, plain, map_size))
               && static_cast<bool>(store::writer::backup(store.text, name, map_size));
    });
}

void a_reader_never_goes_back_to_an_older_commit(void **)
{
    constexpr unsigned readers = 3;
    constexpr std::int64_t commits = 400;
    const path store = make_store();
    put(store, 1, 1);

    pid_t children[readers];
    for (unsigned i = 0; i < readers; i++) {
        children[i] = start_child([&, i] {
            static record_buffer memory;
            auto *reader = new store::reader;
            const token_text text = token(1);
            std::int64_t newest = 0;
            if (reader->open(store.text, map_size, 10000)) {
                return false;
            }
            for (unsigned round = 0; newest < commits; round++) {
                token_record one;
                const store::lookup_result got = reader->lookup(
                    plain, make_token_key(plain(text.text)), [](void *to, std::size_t) noexcept { return to; },
                    memory.data(), one);
                if (got.problem || !got.found || one.revoked_at < newest) {
                    return false;
                }
                newest = one.revoked_at;
                if (i == 0 && round % 50 == 0 && reader->open(store.text, map_size, 10000)) {
                    return false;
                }
            }
            return true;
        });
    }
    in_child([&] {
        store::writer writer;
        const token_text text = token(1);
        if (writer.open(store.text, map_size)) {
            return false;
        }
        for (std::int64_t i = 2; i <= commits; i++) {
            if (writer.update(
                    [&](store::transaction &change) { return change.put(plain(text.text), record_of(text, i)); })) {
                return false;
            }
        }
        return true;
    });
    for (const pid_t child : children) {
        assert_int_equal(status_of(child), 0);
    }
}

void a_trap_is_set_only_while_its_body_runs(void **)
{
    assert_int_equal(store::trap::current.armed, 0);
    assert_true(store::trap::run([] { assert_int_equal(store::trap::current.armed, 1); }));
    assert_int_equal(store::trap::current.armed, 0);
    assert_false(store::trap::run([] { store::trap::failed_assertion(nullptr, "a test"); }));
    assert_int_equal(store::trap::current.armed, 0);
}

/// Walks the store and looks for each of its tokens, as patctl does.
bool walk(const path &store, unsigned tokens, bool is_whole)
{
    auto *snapshot = new store::snapshot;
    const store::fault opened = snapshot->open(store.text, map_size);
    bool right = !is_whole || !opened;
    if (!opened) {
        // A page that links back to itself must not be walked for ever.
        unsigned entries = 0;
        for (bool done = false; !done && right && entries < 100 * tokens; entries++) {
            std::span<const std::byte> key;
            std::span<const std::byte> value;
            const store::fault problem = snapshot->next(key, value, done);
            if (problem) {
                right = !is_whole;
                break;
            }
        }
        right = right && (!is_whole || entries == tokens + 2);
        for (unsigned i = 0; i < tokens; i++) {
            const token_text text = token(i);
            const token_key key = make_token_key(plain(text.text));
            std::span<const std::byte> value;
            bool found = false;
            token_record one;
            const store::fault problem = snapshot->find(key, value, found);
            const bool is_good = !problem && found && decode(key, value, one) == codec_error::none;
            right = right && (!is_whole || is_good)
                    && (!is_good || (one.id == text.text && one.is_revoked() == (i % 2 != 0)));
        }
    }
    delete snapshot;
    return right;
}

void a_snapshot_of_a_damaged_store_shows_no_wrong_record_and_ends_well(void **)
{
    constexpr unsigned tokens = 300;
    const path store = make_store();
    put_many(store, tokens);
    const path data = store / "data.mdb";
    const path good = folder / "good";
    copy_file(data, good);
    in_child([&] { return walk(store, tokens, true); });

    const off_t pages = size_of(good) / page_size;
    static char contents[page_size];
    for (off_t page = 0; page < pages; page++) {
        for (const char flag : {'\0', '\1'}) {
            std::memset(contents, 0, sizeof contents);
            contents[10] = flag;  // of a branch page, on which LMDB asserts that there are keys
            patch(data, page * page_size, contents, sizeof contents);
            in_child([&] { return walk(store, tokens, false); });
            copy_file(good, data);
        }
    }
    for (off_t length = 0; length < size_of(good); length += page_size) {
        assert_int_equal(truncate(data.text, length), 0);
        in_child([&] { return walk(store, tokens, false); });
        copy_file(good, data);
    }
}

void writer_rule_8_a_backup_of_a_damaged_store_is_a_fault_and_leaves_nothing(void **)
{
    constexpr unsigned tokens = 600;
    const path store = make_store();
    put_many(store, tokens);
    const path data = store / "data.mdb";
    const path good = folder / "good";
    copy_file(data, good);
    const path copy = folder / "copy";

    const off_t pages = size_of(good) / page_size;
    static char branch_without_keys[page_size];
    branch_without_keys[10] = 1;
    for (off_t page = 1; page < pages; page++) {
        for (const bool is_cut : {true, false}) {
            if (is_cut) {
                assert_int_equal(truncate(data.text, page * page_size), 0);
            } else {
                patch(data, page * page_size, branch_without_keys, page_size);
            }
            const int status = status_of(start_child(
                [&] { return store::writer::backup(store.text, copy.text, map_size).kind == fault_kind::none; }));
            const char *label =
                label_at(is_cut ? "cut short at page" : "a page that can't be:", static_cast<std::size_t>(page));
            assert_row(label, WIFEXITED(status));
            assert_int_equal(access((folder / "copy.partial").text, F_OK), -1);
            if (WEXITSTATUS(status) == 0) {  // the page was of no use
                in_child([&] { return walk(copy, tokens, true); });
                assert_int_equal(rename(copy.text, (folder / label).text), 0);
            }
            assert_int_equal(access(copy.text, F_OK), -1);
            copy_file(good, data);
        }
    }
    assert_good(store::writer::backup(store.text, copy.text, map_size));
}

void writer_rule_8_a_backup_that_was_interrupted_is_told_and_left_alone(void **)
{
    const path store = make_store();
    put(store, 1);
    const path copy = folder / "copy";
    const path partial = folder / "copy.partial";
    assert_int_equal(mkdir(partial.text, 0750), 0);
    patch(partial / "data.mdb", 0, "x", 1);
    assert_fault(store::writer::backup(store.text, copy.text, map_size), fault_kind::exists);
    assert_int_equal(access(copy.text, F_OK), -1);
    assert_int_equal(size_of(partial / "data.mdb"), 1);
}

void every_fault_has_words_in_lower_case_without_a_full_stop(void **)
{
    for (unsigned kind = 0; kind <= static_cast<unsigned>(fault_kind::lmdb); kind++) {
        const std::string_view words = store::message({static_cast<fault_kind>(kind)});
        const char *label = label_at("fault", kind);
        assert_row(label, words != "unknown fault" && !words.empty());
        assert_row(label, (words[0] >= 'a' && words[0] <= 'z') || words.starts_with("LMDB"));
        assert_row(label, words.back() != '.');
        for (unsigned other = 0; other < kind; other++) {
            assert_row(label, words != store::message({static_cast<fault_kind>(other)}));
        }
    }
    assert_string_equal(store::detail({}), "");
    assert_string_equal(store::detail({fault_kind::denied, EACCES}), "Permission denied");
    assert_view_equal("codec", store::detail(store::from_codec(codec_error::checksum)), message(codec_error::checksum));
    assert_string_equal(store::detail({fault_kind::lmdb, MDB_PANIC}), mdb_strerror(MDB_PANIC));
    assert_string_equal(store::detail({fault_kind::not_regular, 1}), "data.mdb");
    assert_string_equal(store::detail({fault_kind::not_regular, 2}), "lock.mdb");
    assert_string_equal(store::detail({fault_kind::not_regular, 3}), "open.lock");
    assert_string_equal(store::detail({fault_kind::not_regular, 4}), "");
    assert_string_equal(store::detail({fault_kind::not_regular, -1}), "");
    assert_string_equal(store::message({static_cast<fault_kind>(255)}), "unknown fault");

    assert_string_equal(store::fault_text({fault_kind::exists}).text(), "there is a store already");
    assert_string_equal(store::fault_text({fault_kind::exists, EEXIST}).text(),
                        "there is a store already: File exists");
}

void mutexes_that_cannot_be_locked_are_lost(void **)
{
    for (const int code : {EINVAL, ENOTRECOVERABLE}) {
        assert_true((store::from_begin(code) == store::fault{fault_kind::lost_mutexes, code}));
    }
    for (const int code : {0, EIO, EACCES, MDB_READERS_FULL}) {
        assert_true(store::from_begin(code) == store::from_lmdb(code));
    }
}

void every_code_is_translated(void **)
{
    const struct {
        int code;
        fault_kind wanted;
    } rows[] = {
        {0, fault_kind::none},
        {ENOENT, fault_kind::absent},
        {ENOTDIR, fault_kind::absent},
        {EACCES, fault_kind::denied},
        {EPERM, fault_kind::denied},
        {EROFS, fault_kind::read_only},
        {EAGAIN, fault_kind::busy},
        {EEXIST, fault_kind::exists},
        {ENOSPC, fault_kind::disk_full},
        {EDQUOT, fault_kind::disk_full},
        {EIO, fault_kind::disk_full},
        {ENOMEM, fault_kind::lmdb},
        {MDB_INVALID, fault_kind::not_a_store},
        {MDB_VERSION_MISMATCH, fault_kind::newer_lmdb},
        {MDB_PAGE_NOTFOUND, fault_kind::damaged},
        {MDB_CORRUPTED, fault_kind::damaged},
        {MDB_CURSOR_FULL, fault_kind::damaged},
        {MDB_READERS_FULL, fault_kind::readers_full},
        {MDB_BAD_RSLOT, fault_kind::replaced},
        {MDB_MAP_FULL, fault_kind::map_full},
        {MDB_PANIC, fault_kind::lmdb},
        {MDB_KEYEXIST, fault_kind::lmdb},
    };
    for (const auto &row : rows) {
        const store::fault have = store::from_lmdb(row.code);
        assert_number_equal(mdb_strerror(row.code), have.kind, row.wanted);
        assert_number_equal(mdb_strerror(row.code), have.code, row.code);
    }
}

}  // namespace

int main()
{
    const CMUnitTest tests[] = {
        store_test(reader_rule_2_the_flags),
        store_test(writer_rule_2_writes_are_plain_and_synchronous),
        store_test(reader_rule_7_map_and_table_are_of_the_same_size_everywhere),
        store_test(reader_rule_7_a_table_full_of_living_readers_is_told),
        store_test(reader_rule_7_a_slot_that_was_taken_away_has_the_store_opened_again),
        store_test(reader_rule_8_a_file_that_lacks_half_of_its_pages_or_more_is_refused),
        store_test(reader_rule_9_a_data_file_that_is_mounted_read_only_is_refused),
        store_test(writer_rule_4_a_full_map_is_told_and_leaves_the_store_usable),
        store_test(reader_rule_12_a_store_is_open_in_one_pid_namespace_only),
        store_test(reader_rule_12_a_reader_that_was_killed_in_another_pid_namespace_is_forgotten),
        store_test(reader_rule_12_without_proc_a_store_is_not_opened),
        store_test(writer_rule_9_two_writers_are_kept_apart_without_the_lock_in_lock_mdb),
        store_test(writer_rule_1_a_creation_on_a_full_disk_is_told_and_completed_later),
        store_test(a_path_that_is_too_long_is_refused),
        store_test(a_reader_never_goes_back_to_an_older_commit),
        cmocka_unit_test(a_trap_is_set_only_while_its_body_runs),
        store_test(a_snapshot_of_a_damaged_store_shows_no_wrong_record_and_ends_well),
        store_test(writer_rule_8_a_backup_of_a_damaged_store_is_a_fault_and_leaves_nothing),
        store_test(writer_rule_8_a_backup_that_was_interrupted_is_told_and_left_alone),
        cmocka_unit_test(every_fault_has_words_in_lower_case_without_a_full_stop),
        cmocka_unit_test(mutexes_that_cannot_be_locked_are_lost),
        cmocka_unit_test(every_code_is_translated),
    };
    return cmocka_run_group_tests_name("store edges", tests, nullptr, nullptr);
}
