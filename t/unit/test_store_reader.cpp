#include "pat_temp_store.h"

#include "core/pat_bytes.h"

#include <csignal>
#include <ctime>

#include <dirent.h>
#include <lmdb.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>

namespace {

using namespace pat;
using namespace pat::test;
using store::fault_kind;

/// Offsets in data.mdb, as in pat_environment.cpp.
constexpr off_t data_magic_at = 16;
constexpr off_t data_version_at = 20;
constexpr off_t data_page_size_at = 40;

/// How many slots of the table are taken. What lies behind those that were handed out has no meaning.
unsigned readers_of(const path &store)
{
    unsigned used = 0;
    const auto handed_out = static_cast<std::uint32_t>(read_number(store / "lock.mdb", lock_used_at));
    for (off_t i = 0; i < handed_out; i++) {
        const off_t process_at = lock_readers_at + i * lock_reader_size + 8;
        used += static_cast<std::uint32_t>(read_number(store / "lock.mdb", process_at)) != 0 ? 1 : 0;
    }
    return used;
}

void a_commit_is_seen_by_the_next_lookup(void **)
{
    const path store = make_store();
    store::reader *reader = open_reader(store);

    assert_not_found(*reader, 1);
    put(store, 1);
    assert_found(*reader, 1);
    assert_false(look(*reader, 1).revoked);
    put(store, 1, 1);
    assert_true(look(*reader, 1).revoked);

    delete reader;
}

void reader_rule_2_a_reader_has_a_slot_in_the_table(void **)
{
    const path store = make_store();
    assert_int_equal(readers_of(store), 0);
    store::reader *reader = open_reader(store);
    assert_int_equal(readers_of(store), 1);
    delete reader;
    assert_int_equal(readers_of(store), 0);
}

void reader_rule_3_lookups_take_no_further_slot_and_hold_no_pages(void **)
{
    const path store = make_store();
    store::reader *reader = open_reader(store);

    put(store, 1);
    for (int i = 0; i < 20; i++) {
        put(store, 1, i);
        assert_found(*reader, 1);
    }
    const off_t size = size_of(store / "data.mdb");
    for (int i = 0; i < 100; i++) {
        put(store, 1, i);
        assert_found(*reader, 1);
    }

    assert_int_equal(readers_of(store), 1);
    assert_int_equal(size_of(store / "data.mdb"), size);
    delete reader;
}

/// True if no transaction is under way in the first slot of the table, so that no page is kept for it.
bool first_slot_is_idle(const path &store)
{
    return read_number(store / "lock.mdb", lock_readers_at) == ~std::uint64_t{0};
}

void reader_rule_3_no_lookup_leaves_a_transaction_under_way(void **)
{
    const path store = make_store();
    put_many(store, 3);
    damage_record(store, 2);

    static constexpr std::string_view key = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    static const token_hasher peppered{*parse_pepper(key)};
    static record_buffer memory;
    const auto none = [](void *, std::size_t) noexcept -> void * { return nullptr; };
    const auto some = [](void *to, std::size_t) noexcept { return to; };

    store::reader *reader = open_reader(store);
    assert_true(first_slot_is_idle(store));
    assert_found(*reader, 1);
    assert_true(first_slot_is_idle(store));
    assert_not_found(*reader, 3);
    assert_true(first_slot_is_idle(store));
    assert_fault(look(*reader, 2).problem, fault_kind::bad_record);
    assert_true(first_slot_is_idle(store));
    assert_found(*reader, 1);

    token_record one;
    const token_text text = token(1);
    store::lookup_result got = reader->lookup(peppered, make_token_key(peppered(text.text)), some, memory.data(), one);
    assert_fault(got.problem, fault_kind::wrong_pepper);
    assert_false(got.found);
    assert_true(first_slot_is_idle(store));
    got = reader->lookup(plain, make_token_key(plain(text.text)), none, nullptr, one);
    assert_int_equal(got.problem.code, ENOMEM);
    assert_false(got.found);
    assert_true(first_slot_is_idle(store));

    assert_fault(reader->check_made_with(peppered), fault_kind::wrong_pepper);
    assert_true(first_slot_is_idle(store));
    assert_good(reader->check_made_with(plain));
    assert_true(first_slot_is_idle(store));
    look_after(*reader, store);
    assert_true(first_slot_is_idle(store));
    assert_found(*reader, 1);
    delete reader;
}

void reader_rule_4_a_lock_file_of_another_store_is_noticed(void **)
{
    const path store = make_store();
    put(store, 1);
    store::reader *reader = open_reader(store);
    put(store, 2);
    put(store, 1, 1);

    // The lock file says which commit a reader begins with, and by that which of two meta pages it uses: three behind,
    // it is the one with the token still valid.
    for (const unsigned behind : {2, 3}) {
        const std::uint64_t old = read_number(store / "lock.mdb", lock_transaction_at) - behind;
        patch(store / "lock.mdb", lock_transaction_at, &old, sizeof old);

        const answer got = look(*reader, 1);
        assert_good(got.problem);
        assert_true(got.revoked);
        assert_int_equal(read_number(store / "lock.mdb", lock_transaction_at), old + behind);
    }
    delete reader;
}

void reader_rule_4_one_behind_is_good_only_in_the_files_at_the_path(void **)
{
    const path store = make_store();
    put(store, 1);
    const path other = make_store("other");
    put(other, 2);

    store::reader *reader = open_reader(store);
    put(store, 3);
    const std::uint64_t before = read_number(store / "lock.mdb", lock_transaction_at) - 1;
    patch(store / "lock.mdb", lock_transaction_at, &before, sizeof before);
    assert_found(*reader, 1);

    assert_int_equal(rename(store.text, (folder / "aside").text), 0);
    assert_int_equal(rename(other.text, store.text), 0);
    assert_not_found(*reader, 1);
    assert_found(*reader, 2);
    delete reader;
}

void reader_rule_4_a_lock_file_that_does_not_fit_is_let_go_of_so_that_it_heals(void **)
{
    const path store = make_store();
    put(store, 1);
    put(store, 1, 1);
    store::reader *reader = open_reader(store);

    // As long as another process has it open, opening again does not make it anew.
    const pid_t other = start_child([&] {
        auto *second = new store::reader;
        return !second->open(store.text, map_size, 10000) && pause() != 0;
    });
    for (int waited_ms = 0; readers_of(store) < 2 && waited_ms < 10000; waited_ms++) {
        usleep(1000);
    }
    assert_int_equal(readers_of(store), 2);

    const std::uint64_t old = read_number(store / "lock.mdb", lock_transaction_at) - 2;
    patch(store / "lock.mdb", lock_transaction_at, &old, sizeof old);
    const answer got = look(*reader, 1);
    const bool is_open = reader->is_open();
    look_after(*reader, store);
    const answer again = look(*reader, 1);

    assert_int_equal(kill(other, SIGKILL), 0);
    assert_true(WIFSIGNALED(status_of(other)));
    assert_fault(got.problem, fault_kind::replaced);
    assert_fault(again.problem, fault_kind::replaced);
    assert_false(is_open);
    look_after(*reader, store);
    assert_true(look(*reader, 1).revoked);
    delete reader;
}

void reader_rule_4_a_commit_that_was_not_published_is_served_soon(void **)
{
    const path store = make_store();
    put(store, 1);
    store::reader *reader = open_reader(store);
    put(store, 1, 1);

    // As if the writer had been killed between writing its commit and publishing it.
    const std::uint64_t before = read_number(store / "lock.mdb", lock_transaction_at) - 1;
    patch(store / "lock.mdb", lock_transaction_at, &before, sizeof before);
    const answer got = look(*reader, 1);
    assert_good(got.problem);
    assert_false(got.revoked);

    for (int i = 0; i < 3; i++) {
        look_after(*reader, store);
    }
    assert_true(look(*reader, 1).revoked);
    delete reader;
}

void reader_rule_5_files_that_were_replaced_are_noticed(void **)
{
    const path store = make_store();
    put(store, 1);
    const path other = make_store("other");
    put(other, 2);
    store::reader *reader = open_reader(store);
    assert_found(*reader, 1);

    const path aside = folder / "aside";
    assert_int_equal(rename(store.text, aside.text), 0);
    assert_int_equal(rename(other.text, store.text), 0);
    look_after(*reader, store);
    assert_not_found(*reader, 1);
    assert_found(*reader, 2);

    assert_int_equal(rename(store.text, other.text), 0);
    look_after(*reader, store);
    assert_fault(look(*reader, 2).problem, fault_kind::absent);
    assert_int_equal(rename(aside.text, store.text), 0);
    look_after(*reader, store);
    assert_found(*reader, 1);
    delete reader;
}

void reader_rule_5_each_of_the_files_is_looked_at(void **)
{
    const path store = make_store();
    put(store, 1);
    const path aside = folder / "aside";

    for (const char *file : {"data.mdb", "lock.mdb"}) {
        store::reader *reader = open_reader(store);
        assert_found(*reader, 1);
        assert_int_equal(rename((store / file).text, aside.text), 0);
        assert_found(*reader, 1);  // until the timer looks
        look_after(*reader, store);
        assert_false(reader->is_open());
        assert_int_not_equal(look(*reader, 1).problem.kind, fault_kind::none);
        assert_false(look(*reader, 1).found);
        assert_int_equal(rename(aside.text, (store / file).text), 0);
        look_after(*reader, store);
        assert_found(*reader, 1);
        delete reader;
    }
}

void reader_rule_5_a_store_that_appears_later_is_opened(void **)
{
    const path store = folder / "store";
    auto *reader = new store::reader;
    assert_fault(reader->open(store.text, map_size, 0), fault_kind::absent);
    assert_fault(look(*reader, 1).problem, fault_kind::absent);

    make_store();
    put(store, 1);
    look_after(*reader, store);
    assert_found(*reader, 1);
    delete reader;
}

/// A process that dies with the store open.
int start_reader_that_dies(const path &store)
{
    return status_of(start_child([&] {
        auto *leaked = new store::reader;
        return !leaked->open(store.text, map_size, 1000);
    }));
}

void writer_rule_3_a_writer_that_goes_on_frees_the_slots_of_dead_readers(void **)
{
    const path store = make_store();
    store::reader *reader = open_reader(store);
    in_child([&] {
        store::writer writer;
        const auto nothing = [](store::transaction &) { return store::fault{}; };
        if (writer.open(store.text, map_size) || start_reader_that_dies(store) != 0 || readers_of(store) != 2) {
            return false;
        }
        while (readers_of(store) != 1) {  // it looks once a second
            if (writer.update(nothing)) {
                return false;
            }
            usleep(10000);
        }
        return true;
    });
    assert_int_equal(readers_of(store), 1);
    delete reader;
}

void writer_rule_3_opening_frees_the_slots_of_dead_readers(void **)
{
    const path store = make_store();
    store::reader *reader = open_reader(store);
    in_child([&] {
        auto *leaked = new store::reader;
        return !leaked->open(store.text, map_size, 0);
    });
    assert_int_equal(readers_of(store), 2);
    in_child([&] {
        store::writer writer;
        return !writer.open(store.text, map_size);
    });
    assert_int_equal(readers_of(store), 1);
    delete reader;
}

void reader_rule_6_it_waits_for_others_that_open_and_not_for_ever(void **)
{
    const path store = make_store();
    const int fd = open((store / "open.lock").text, O_RDONLY | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX), 0);

    auto *reader = new store::reader;
    timespec start;
    timespec end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    assert_fault(reader->open(store.text, map_size, 50), fault_kind::busy);
    clock_gettime(CLOCK_MONOTONIC, &end);
    const long waited_ms = (end.tv_sec - start.tv_sec) * 1000 + (end.tv_nsec - start.tv_nsec) / 1000000;
    assert_in_range(waited_ms, 40, 5000);

    close(fd);
    look_after(*reader, store);
    assert_true(reader->is_open());
    delete reader;
}

/// Opens, looks for what was committed before it began, and closes, for ever.
bool open_and_close_for_ever(const path &store, unsigned number)
{
    for (;;) {
        store::reader reader;
        if (reader.open(store.text, map_size, 10000)) {
            return false;
        }
        const answer got = look(reader, number);
        if (got.problem || !got.right) {
            return false;
        }
    }
}

void reader_rule_6_openers_that_are_killed_make_no_commit_vanish(void **)
{
    constexpr unsigned openers = 3;  // few, so that one is often the only one, who sets the lock file up
    constexpr unsigned commits = 100;
    const path store = make_store();
    put(store, 0);

    pid_t children[openers];
    for (pid_t &child : children) {
        child = start_child([&] { return open_and_close_for_ever(store, 0); });
    }
    for (unsigned i = 1; i < commits; i++) {
        pid_t &victim = children[i % openers];
        assert_int_equal(kill(victim, SIGKILL), 0);
        const int status = status_of(victim);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        const unsigned last = i - 1;
        victim = start_child([&] { return open_and_close_for_ever(store, last); });

        put(store, i);
    }
    for (const pid_t child : children) {
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_true(WIFSIGNALED(status_of(child)));
    }

    store::reader *reader = open_reader(store);
    for (unsigned i = 0; i < commits; i++) {
        assert_found(*reader, i);
    }
    look_after(*reader, store);
    assert_int_equal(readers_of(store), 1);
    delete reader;
}

void reader_rule_7_a_map_that_another_process_made_larger_is_taken_over(void **)
{
    const path store = make_store();
    constexpr std::size_t small = std::size_t{1} << 20;
    auto *reader = new store::reader;
    assert_good(reader->open(store.text, small, 0));

    commit(store, [](store::transaction &change) {
        for (unsigned i = 0; i < 20000; i++) {
            const token_text text = token(i);
            if (const store::fault problem = change.put(plain(text.text), record_of(text))) {
                return problem;
            }
        }
        return store::fault{};
    });
    assert_true(size_of(store / "data.mdb") > static_cast<off_t>(small));
    assert_found(*reader, 19999);
    delete reader;
}

void reader_rule_7_a_full_table_of_dead_readers_is_cleared(void **)
{
    const path store = make_store();
    store::reader *reader = open_reader(store);  // or else the next to open would make the table anew

    const path lock = store / "lock.mdb";
    const auto used = static_cast<std::uint32_t>(store::max_readers);
    patch(lock, lock_used_at, &used, sizeof used);
    const pid_t nobody = 0x3ffffff;
    for (off_t i = 1; i < store::max_readers; i++) {
        patch(lock, lock_readers_at + i * lock_reader_size + 8, &nobody, sizeof nobody);
    }

    in_child([&] {
        store::reader second;
        return !second.open(store.text, map_size, 0);
    });
    delete reader;
}

/// Whether another reader in this process may open what is at a path.
bool may_be_opened(const path &at)
{
    auto *second = new store::reader;
    const store::fault problem = second->open(at.text, map_size, 0);
    delete second;
    assert_true(!problem || problem.kind == fault_kind::same_store_twice);
    return !problem;
}

void a_store_is_described_as_of_now(void **)
{
    const path store = make_store();
    auto *reader = new store::reader;
    store::condition have{};
    assert_fault(reader->describe(have), fault_kind::absent);
    assert_int_equal(reader->heartbeat(), 0);

    assert_good(reader->open(store.text, map_size, 0));
    assert_good(reader->describe(have));
    assert_number_equal("state", have.state, store_state::empty);
    assert_int_equal(have.tokens, 0);
    const std::uint64_t before = have.commit;

    put_many(store, 5);
    commit(store, [](store::transaction &change) {
        change.info().state = store_state::ready;
        change.info().heartbeat = 1'700'000'000;
        return store::fault{};
    });
    have = {};
    assert_good(reader->describe(have));
    assert_number_equal("state", have.state, store_state::ready);
    assert_int_equal(have.heartbeat, 1'700'000'000);
    assert_int_equal(reader->heartbeat(), 1'700'000'000);
    assert_int_equal(have.tokens, 5);
    assert_int_equal(have.revoked, 2);
    assert_int_equal(have.commit, before + 2);
    assert_int_equal(have.used_bytes, size_of(store / "data.mdb"));
    assert_int_equal(have.map_size, map_size);
    assert_int_equal(have.readers, 2);  // the writers had one of them, one after the other
    assert_int_equal(have.max_readers, store::max_readers);

    reader->close();
    assert_int_equal(reader->heartbeat(), 0);
    delete reader;
}

void a_store_is_open_only_once_in_a_process(void **)
{
    const path stores[] = {make_store("a"), make_store("b"), make_store("c")};
    const path links[] = {folder / "to-a", folder / "to-b", folder / "to-c"};
    store::reader *readers[3];
    for (std::size_t i = 0; i < 3; i++) {
        put(stores[i], 1);
        assert_int_equal(symlink(stores[i].text, links[i].text), 0);
        assert_true(may_be_opened(links[i]));
        readers[i] = open_reader(stores[i]);
    }

    for (const path &link : links) {
        assert_false(may_be_opened(link));
    }
    in_child([&] { return may_be_opened(links[0]) && may_be_opened(links[2]); });  // has none of the locks
    delete readers[1];
    assert_false(may_be_opened(links[0]));
    assert_true(may_be_opened(links[1]));
    assert_false(may_be_opened(links[2]));
    delete readers[2];
    assert_false(may_be_opened(links[0]));
    assert_true(may_be_opened(links[2]));
    assert_found(*readers[0], 1);

    // Each of the two files alone would lose its locks.
    for (const char *file : {"data.mdb", "lock.mdb"}) {
        const path shared = stores[1] / file;
        const path aside = folder / "aside";
        assert_int_equal(rename(shared.text, aside.text), 0);
        assert_int_equal(link((stores[0] / file).text, shared.text), 0);
        assert_false(may_be_opened(stores[1]));
        assert_int_equal(rename(aside.text, shared.text), 0);
    }
    assert_int_equal(unlink((stores[1] / "lock.mdb").text), 0);
    auto *without = new store::reader;
    assert_fault(without->open(stores[1].text, map_size, 0), fault_kind::no_lock_file);
    delete without;
    delete readers[0];
    assert_true(may_be_opened(links[0]));
}

void reader_rule_8_a_header_that_can_not_be_is_refused_before_lmdb_sees_it(void **)
{
    const path store = make_store();
    put(store, 1);
    put(store, 2);  // so that the second of the two pages is the newer one
    const path data = store / "data.mdb";
    const path good = folder / "good";
    copy_file(data, good);

    const std::uint32_t zero = 0;
    const std::uint32_t odd = 4097;
    const std::uint32_t huge = 1 << 20;
    const std::uint32_t two = 2;
    const std::uint32_t small = 256;
    const std::uint32_t other = 8192;
    const struct {
        const char *label;
        off_t at;
        const std::uint32_t *value;
        fault_kind wanted;
    } rows[] = {
        {"magic", data_magic_at, &zero, fault_kind::not_a_store},
        {"version", data_version_at, &two, fault_kind::newer_lmdb},
        {"page size 0", data_page_size_at, &zero, fault_kind::damaged},
        {"page size 4097", data_page_size_at, &odd, fault_kind::damaged},
        {"page size 1 M", data_page_size_at, &huge, fault_kind::damaged},
        {"page size 256", data_page_size_at, &small, fault_kind::damaged},
        {"page size 8192", data_page_size_at, &other, fault_kind::not_a_store},
        {"page size 8192 of the second page", page_size + data_page_size_at, &other, fault_kind::damaged},
        {"version of the second page", page_size + data_version_at, &two, fault_kind::newer_lmdb},
        {"magic of the second page", page_size + data_magic_at, &zero, fault_kind::not_a_store},
        {"page size of the second page", page_size + data_page_size_at, &zero, fault_kind::damaged},
    };
    for (const auto &row : rows) {
        copy_file(good, data);
        patch(data, row.at, row.value, sizeof *row.value);
        auto *reader = new store::reader;
        const store::fault problem = reader->open(store.text, map_size, 0);
        delete reader;
        if (problem.kind != row.wanted) {
            print_error("%s\n", row.label);
        }
        assert_fault(problem, row.wanted);
    }

    for (const off_t length : {off_t{0}, off_t{1}, off_t{100}, off_t{page_size}, off_t{page_size + 100},
                               off_t{2 * page_size}, size_of(good) - page_size, size_of(good) - 1}) {
        copy_file(good, data);
        assert_int_equal(truncate(data.text, length), 0);
        auto *reader = new store::reader;
        const store::fault problem = reader->open(store.text, map_size, 0);
        delete reader;
        assert_fault(problem, fault_kind::truncated);
    }

    copy_file(good, data);
    store::reader *reader = open_reader(store);
    assert_found(*reader, 1);
    delete reader;
}

void reader_rule_8_a_file_of_random_bytes_is_refused(void **)
{
    const path store = make_store();
    std::uint64_t state = 1;
    for (int round = 0; round < 100; round++) {
        static std::uint64_t bytes[4 * page_size / sizeof(std::uint64_t)];
        for (std::uint64_t &word : bytes) {
            state = state * 6364136223846793005 + 1442695040888963407;
            word = state ^ state >> 29;
        }
        // In every other round it begins as an LMDB file does, so that more of it is looked at.
        if (round % 2 != 0) {
            constexpr std::uint32_t begin[] = {0xBEEFC0DE, 1};
            for (const std::size_t at : {std::size_t{0}, std::size_t{page_size}}) {
                std::memcpy(reinterpret_cast<std::byte *>(bytes) + at + data_magic_at, begin, sizeof begin);
                const std::uint32_t size = page_size;
                std::memcpy(reinterpret_cast<std::byte *>(bytes) + at + data_page_size_at, &size, sizeof size);
            }
        }
        patch(store / "data.mdb", 0, bytes, sizeof bytes);
        store::reader reader;
        const store::fault problem = reader.open(store.text, map_size, 0);
        assert_true(problem.kind == fault_kind::not_a_store || problem.kind == fault_kind::truncated
                    || problem.kind == fault_kind::damaged);
    }
}

/// Pages that a transaction took at the end of the file and gave back are never written, so the file need not reach as
/// far as its last page.
void reader_rule_8_free_pages_at_the_end_may_be_missing(void **)
{
    constexpr unsigned large = 20;
    const path store = make_store();
    for (unsigned i = 0; i < 4; i++) {
        put(store, 1000 + i);  // leaves free pages behind
    }

    commit(store, [](store::transaction &change) {
        static char scope[3000];  // a record of its own page
        std::memset(scope, 'a', sizeof scope);
        for (unsigned i = 0; i < large; i++) {
            const token_text text = token(i);
            token_record one = record_of(text);
            one.scopes = {scope, sizeof scope};
            if (const store::fault problem = change.put(plain(text.text), one)) {
                return problem;
            }
        }
        for (unsigned i = 0; i < large; i++) {
            const token_text text = token(i);
            if (const store::fault problem = change.erase(plain(text.text))) {
                return problem;
            }
        }
        return store::fault{};
    });

    assert_good(store::check_data_file(descriptor_of(store / "data.mdb"), map_size));
    store::reader *reader = open_reader(store);
    assert_found(*reader, 1000);
    assert_not_found(*reader, 0);
    delete reader;
    put(store, 0);
}

void reader_rule_9_a_read_only_mount_is_refused(void **)
{
    const path store = make_store();
    bool skipped = false;
    auto *shared =
        static_cast<bool *>(mmap(nullptr, sizeof(bool), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));

    in_child([&] {
        if (unshare(CLONE_NEWNS) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0
            || mount(store.text, store.text, nullptr, MS_BIND, nullptr) != 0
            || mount(nullptr, store.text, nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY, nullptr) != 0) {
            *shared = true;
            return true;
        }
        store::reader reader;
        return reader.open(store.text, map_size, 0).kind == fault_kind::read_only;
    });

    skipped = *shared;
    munmap(shared, sizeof(bool));
    if (skipped) {
        print_message("mounting is not permitted here\n");
        skip();
    }
}

/// How many entries a folder has.
int entries_of(const path &of)
{
    DIR *entries = opendir(of.text);
    assert_non_null(entries);
    int count = 0;
    while (readdir(entries) != nullptr) {
        count++;
    }
    closedir(entries);
    return count - 2;
}

void reader_rule_10_a_reader_makes_no_file(void **)
{
    const path store = make_store();
    put(store, 1);
    for (const char *file : {"lock.mdb", "open.lock", "data.mdb"}) {
        const path gone = store / file;
        const path aside = folder / "aside";
        assert_int_equal(rename(gone.text, aside.text), 0);
        auto *reader = new store::reader;
        const store::fault problem = reader->open(store.text, map_size, 0);
        look_after(*reader, store);
        const bool is_open = reader->is_open();
        delete reader;
        assert_fault(problem, std::strcmp(file, "data.mdb") == 0 ? fault_kind::absent : fault_kind::no_lock_file);
        assert_false(is_open);
        assert_int_equal(entries_of(store), 2);
        assert_int_equal(access(gone.text, F_OK), -1);
        assert_int_equal(rename(aside.text, gone.text), 0);
    }

    const path good = folder / "good";
    copy_file(store / "data.mdb", good);
    store::reader *reader = open_reader(store);
    assert_found(*reader, 1);
    look_after(*reader, store);
    delete reader;
    assert_int_equal(entries_of(store), 3);
    assert_int_equal(size_of(store / "data.mdb"), size_of(good));

    const path nothing = folder / "nothing";
    auto *other = new store::reader;
    assert_fault(other->open(nothing.text, map_size, 0), fault_kind::absent);
    delete other;
    assert_int_equal(access(nothing.text, F_OK), -1);
}

void reader_rule_11_a_file_that_was_overwritten_in_place_is_seen_by_the_timer(void **)
{
    static constexpr std::string_view key = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    static const token_hasher peppered{*parse_pepper(key)};

    const path store = make_store();
    const path other = folder / "other";
    assert_good(store::writer::create(other.text, std::nullopt, peppered, map_size));
    store::reader *reader = open_reader(store);
    assert_not_found(*reader, 1);

    // The same commit by its number, so nothing but a look at the meta record tells.
    copy_file(other / "data.mdb", store / "data.mdb");
    look_after(*reader, store);
    assert_fault(look(*reader, 1).problem, fault_kind::wrong_pepper);
    delete reader;
}

/// A creation that was interrupted before its first commit, or the file of another program. It is not a store that
/// knows no token.
void reader_rule_11_a_database_without_any_commit_is_not_a_store(void **)
{
    const path store = folder / "store";
    assert_int_equal(mkdir(store.text, 0750), 0);
    patch(store / "open.lock", 0, "", 0);
    in_child([&] {
        MDB_env *env = nullptr;
        return mdb_env_create(&env) == 0 && mdb_env_set_maxreaders(env, store::max_readers) == 0
               && mdb_env_open(env, store.text, 0, 0640) == 0;
    });

    auto *reader = new store::reader;
    const store::fault problem = reader->open(store.text, map_size, 0);
    const answer got = look(*reader, 1);
    delete reader;
    assert_fault(problem, fault_kind::not_a_store);
    assert_fault(got.problem, fault_kind::not_a_store);
}

void reader_rule_11_a_change_of_the_meta_record_is_seen(void **)
{
    const path store = make_store();
    put(store, 1);
    store::reader *reader = open_reader(store);
    assert_found(*reader, 1);

    commit(store, [](store::transaction &change) {
        change.info().key[0] = std::byte{1};
        return store::fault{};
    });
    assert_fault(look(*reader, 1).problem, fault_kind::wrong_pepper);

    // Nothing is left of a look at one that cannot be read.
    commit(store, [](store::transaction &change) {
        change.info().state = static_cast<store_state>(9);
        return store::fault{};
    });
    for (int round = 0; round < 3; round++) {
        assert_fault(look(*reader, 1).problem, fault_kind::bad_record);
    }
    delete reader;
}

}  // namespace

int main()
{
    const CMUnitTest tests[] = {
        store_test(a_commit_is_seen_by_the_next_lookup),
        store_test(reader_rule_2_a_reader_has_a_slot_in_the_table),
        store_test(reader_rule_3_lookups_take_no_further_slot_and_hold_no_pages),
        store_test(reader_rule_3_no_lookup_leaves_a_transaction_under_way),
        store_test(reader_rule_4_a_lock_file_of_another_store_is_noticed),
        store_test(reader_rule_4_one_behind_is_good_only_in_the_files_at_the_path),
        store_test(reader_rule_4_a_lock_file_that_does_not_fit_is_let_go_of_so_that_it_heals),
        store_test(reader_rule_4_a_commit_that_was_not_published_is_served_soon),
        store_test(reader_rule_5_files_that_were_replaced_are_noticed),
        store_test(reader_rule_5_each_of_the_files_is_looked_at),
        store_test(reader_rule_5_a_store_that_appears_later_is_opened),
        store_test(writer_rule_3_a_writer_that_goes_on_frees_the_slots_of_dead_readers),
        store_test(writer_rule_3_opening_frees_the_slots_of_dead_readers),
        store_test(reader_rule_6_it_waits_for_others_that_open_and_not_for_ever),
        store_test(reader_rule_6_openers_that_are_killed_make_no_commit_vanish),
        store_test(reader_rule_7_a_map_that_another_process_made_larger_is_taken_over),
        store_test(reader_rule_7_a_full_table_of_dead_readers_is_cleared),
        store_test(a_store_is_described_as_of_now),
        store_test(a_store_is_open_only_once_in_a_process),
        store_test(reader_rule_8_a_header_that_can_not_be_is_refused_before_lmdb_sees_it),
        store_test(reader_rule_8_a_file_of_random_bytes_is_refused),
        store_test(reader_rule_8_free_pages_at_the_end_may_be_missing),
        store_test(reader_rule_9_a_read_only_mount_is_refused),
        store_test(reader_rule_10_a_reader_makes_no_file),
        store_test(reader_rule_11_a_file_that_was_overwritten_in_place_is_seen_by_the_timer),
        store_test(reader_rule_11_a_database_without_any_commit_is_not_a_store),
        store_test(reader_rule_11_a_change_of_the_meta_record_is_seen),
    };
    return cmocka_run_group_tests_name("store reader", tests, nullptr, nullptr);
}
