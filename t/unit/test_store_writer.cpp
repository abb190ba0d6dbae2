#include "pat_temp_store.h"

#include <grp.h>
#include <lmdb.h>
#include <sys/mount.h>

namespace {

using namespace pat;
using namespace pat::test;
using store::fault_kind;

unsigned mode_of(const path &file)
{
    struct stat info;
    assert_int_equal(stat(file.text, &info), 0);
    return info.st_mode & 07777;
}

void writer_rule_1_modes_do_not_depend_on_the_umask(void **)
{
    for (const mode_t mask : {mode_t{0}, mode_t{077}}) {
        const mode_t before = umask(mask);
        const path store = make_store(mask == 0 ? "open" : "closed");
        umask(before);

        assert_int_equal(mode_of(store), 02750);
        assert_int_equal(mode_of(store / "data.mdb"), 0640);
        assert_int_equal(mode_of(store / "lock.mdb"), 0660);
        assert_int_equal(mode_of(store / "open.lock"), 0640);
    }
}

void writer_rule_1_a_lock_file_that_was_missing_gets_its_mode(void **)
{
    const path store = make_store();
    assert_int_equal(unlink((store / "lock.mdb").text), 0);
    put(store, 1);
    assert_int_equal(mode_of(store / "lock.mdb"), 0660);
}

void writer_rule_1_what_is_there_is_left_alone(void **)
{
    const path store = make_store();
    put(store, 1);
    assert_fault(store::writer::create(store.text, std::nullopt, plain, map_size), fault_kind::exists);
    store::reader *reader = open_reader(store);
    assert_found(*reader, 1);
    delete reader;

    const path other = folder / "other";
    assert_int_equal(mkdir(other.text, 0755), 0);
    patch(other / "precious", 0, "x", 1);
    assert_fault(store::writer::create(other.text, std::nullopt, plain, map_size), fault_kind::not_empty);
    assert_int_equal(access((other / "open.lock").text, F_OK), -1);

    // A folder of another program that uses LMDB.
    assert_int_equal(unlink((other / "precious").text), 0);
    patch(other / "data.mdb", 0, "x", 1);
    assert_fault(store::writer::create(other.text, std::nullopt, plain, map_size), fault_kind::not_empty);
    assert_int_equal(mode_of(other), 0755);
}

void writer_rule_1_a_creation_that_was_interrupted_is_completed(void **)
{
    const path store = folder / "store";
    assert_int_equal(mkdir(store.text, 0700), 0);
    patch(store / "open.lock", 0, "", 0);
    patch(store / "data.mdb", 0, "", 0);
    assert_good(store::writer::create(store.text, std::nullopt, plain, map_size));
    assert_int_equal(mode_of(store), 02750);
    put(store, 1);
}

void writer_rule_3_opening_publishes_a_commit_of_a_killed_writer(void **)
{
    const path store = make_store();

    store::reader *reader = open_reader(store);
    put(store, 1);

    // A writer that dies with the lock, as between writing a commit and publishing it.
    in_child([&] {
        MDB_env *env = nullptr;
        MDB_txn *txn = nullptr;
        const std::uint64_t before = read_number(store / "lock.mdb", lock_transaction_at) - 1;
        const bool has_lock = mdb_env_create(&env) == 0 && mdb_env_open(env, store.text, 0, 0640) == 0
                              && mdb_txn_begin(env, nullptr, 0, &txn) == 0;
        patch(store / "lock.mdb", lock_transaction_at, &before, sizeof before);
        return has_lock;
    });
    assert_not_found(*reader, 1);

    in_child([&] {
        store::writer writer;
        return !writer.open(store.text, map_size);
    });
    assert_found(*reader, 1);
    delete reader;
}

void writer_rule_4_a_lock_file_of_another_store_stops_it(void **)
{
    const path store = make_store();
    put(store, 1);
    store::reader *reader = open_reader(store);  // or else opening would make the lock file anew

    const std::uint64_t wrong = 1000;
    patch(store / "lock.mdb", lock_transaction_at, &wrong, sizeof wrong);
    in_child([&] {
        store::writer writer;
        return writer.open(store.text, map_size).kind == fault_kind::replaced;
    });
    delete reader;
}

void writer_rule_5_a_full_disk_leaves_the_store_usable(void **)
{
    const path disk = folder / "disk";
    assert_int_equal(mkdir(disk.text, 0755), 0);
    if (mount("none", disk.text, "tmpfs", 0, "size=256k") != 0) {
        print_message("mounting is not permitted here\n");
        skip();
    }

    const path store = make_store("disk/store");
    put(store, 1);
    constexpr unsigned many = 5000;
    const auto fill = [](store::transaction &change) {
        for (unsigned i = 2; i < many; i++) {
            const token_text text = token(i);
            if (const store::fault problem = change.put(plain(text.text), record_of(text))) {
                return problem;
            }
        }
        return store::fault{};
    };

    in_child([&] {
        store::writer writer;
        return !writer.open(store.text, map_size) && writer.update(fill).kind == fault_kind::disk_full
               && mount(nullptr, disk.text, nullptr, MS_REMOUNT, "size=16m") == 0 && !writer.update(fill);
    });
    store::reader *reader = open_reader(store);
    assert_found(*reader, 1);
    assert_found(*reader, many - 1);
    delete reader;
    assert_int_equal(umount(disk.text), 0);
}

void writer_rule_7_appending_wants_ascending_digests(void **)
{
    const path store = make_store();
    digest low{};
    digest high{};
    high[0] = std::byte{1};
    const token_text text = token(1);

    commit(store, [&](store::transaction &change) {
        const record one = record_of(text);
        if (change.append(low, one) || change.append(high, one)) {
            return store::fault{fault_kind::lmdb};
        }
        return change.append(low, one).code == MDB_KEYEXIST ? store::fault{} : store::fault{fault_kind::lmdb};
    });
    commit(store, [](store::transaction &change) {
        return change.info().tokens == 2 ? store::fault{} : store::fault{fault_kind::lmdb};
    });
}

void writer_rule_8_a_backup_is_whole_or_not_there(void **)
{
    const path store = make_store();
    put(store, 1);
    const path copy = folder / "copy";

    assert_good(store::writer::backup(store.text, copy.text, map_size));
    assert_int_equal(mode_of(copy), 02750);
    assert_int_equal(mode_of(copy / "lock.mdb"), 0660);
    store::reader *reader = open_reader(copy);
    assert_found(*reader, 1);
    delete reader;

    assert_fault(store::writer::backup(store.text, copy.text, map_size), fault_kind::exists);
    const path nowhere = folder / "none/copy";
    assert_fault(store::writer::backup(store.text, nowhere.text, map_size), fault_kind::absent);
    const path second = folder / "second";
    assert_fault(store::writer::backup((folder / "none").text, second.text, map_size), fault_kind::absent);
    assert_int_equal(access(second.text, F_OK), -1);
    assert_int_equal(access((folder / "second.partial").text, F_OK), -1);
}

void a_transaction_that_fails_leaves_nothing(void **)
{
    const path store = make_store();
    in_child([&] {
        store::writer writer;
        const token_text text = token(1);
        return !writer.open(store.text, map_size)
               && writer.update([&](store::transaction &change) {
                            (void) change.put(plain(text.text), record_of(text));
                            return store::fault{fault_kind::wrong_pepper};
                        }).kind
                      == fault_kind::wrong_pepper;
    });
    store::reader *reader = open_reader(store);
    assert_not_found(*reader, 1);
    delete reader;
}

void the_counts_are_right_after_any_sequence_of_changes(void **)
{
    constexpr unsigned tokens = 50;
    const path store = make_store();

    commit(store, [](store::transaction &change) {
        std::array<bool, tokens> there{};
        std::array<bool, tokens> revoked{};
        std::uint32_t state = 7;
        const auto random = [&](std::uint32_t below) {
            state = state * 1664525 + 1013904223;
            return (state >> 8) % below;
        };

        for (int step = 0; step < 5000; step++) {
            const unsigned number = random(tokens);
            const token_text text = token(number);
            if (random(3) == 0) {
                if (change.erase(plain(text.text))) {
                    return store::fault{fault_kind::lmdb};
                }
                there[number] = revoked[number] = false;
            } else {
                record one = record_of(text);
                one.revoked_at = random(2);
                one.local_revoked_at = random(2);
                if (change.put(plain(text.text), one)) {
                    return store::fault{fault_kind::lmdb};
                }
                there[number] = true;
                revoked[number] = one.is_revoked();
            }

            std::uint64_t count = 0;
            std::uint64_t count_revoked = 0;
            for (unsigned i = 0; i < tokens; i++) {
                count += there[i] ? 1 : 0;
                count_revoked += revoked[i] ? 1 : 0;
            }
            if (change.info().tokens != count || change.info().revoked != count_revoked) {
                return store::fault{fault_kind::damaged};
            }
        }
        return store::fault{};
    });
}

}  // namespace

int main()
{
    const CMUnitTest tests[] = {
        store_test(writer_rule_1_modes_do_not_depend_on_the_umask),
        store_test(writer_rule_1_a_lock_file_that_was_missing_gets_its_mode),
        store_test(writer_rule_1_what_is_there_is_left_alone),
        store_test(writer_rule_1_a_creation_that_was_interrupted_is_completed),
        store_test(writer_rule_3_opening_publishes_a_commit_of_a_killed_writer),
        store_test(writer_rule_4_a_lock_file_of_another_store_stops_it),
        store_test(writer_rule_5_a_full_disk_leaves_the_store_usable),
        store_test(writer_rule_7_appending_wants_ascending_digests),
        store_test(writer_rule_8_a_backup_is_whole_or_not_there),
        store_test(a_transaction_that_fails_leaves_nothing),
        store_test(the_counts_are_right_after_any_sequence_of_changes),
    };
    return cmocka_run_group_tests_name("store writer", tests, nullptr, nullptr);
}
