#include "pat_temp_store.h"

#include "writer/pat_snapshot.h"

#include <csignal>

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

gid_t group_of(const path &file)
{
    struct stat info;
    assert_int_equal(stat(file.text, &info), 0);
    return info.st_gid;
}

void assert_same_contents(const path &one, const path &two)
{
    static std::byte first[1 << 16];
    static std::byte second[1 << 16];
    const int one_fd = open(one.text, O_RDONLY | O_CLOEXEC);
    const int two_fd = open(two.text, O_RDONLY | O_CLOEXEC);
    const ssize_t one_size = read(one_fd, first, sizeof first);
    const ssize_t two_size = read(two_fd, second, sizeof second);
    close(one_fd);
    close(two_fd);
    assert_true(one_size > 0 && two_size > 0);
    assert_bytes_equal(one.text, std::span{first}.first(static_cast<std::size_t>(one_size)),
                       std::span{second}.first(static_cast<std::size_t>(two_size)));
}

/// Of a lock.mdb that this process makes: root's is for nobody else.
mode_t lock_mode()
{
    return geteuid() == 0 ? 0600 : 0660;
}

void writer_rule_1_modes_do_not_depend_on_the_umask(void **)
{
    for (const mode_t mask : {mode_t{0}, mode_t{077}}) {
        const mode_t before = umask(mask);
        const path store = make_store(mask == 0 ? "open" : "closed");
        umask(before);

        assert_int_equal(mode_of(store), 02750);
        assert_int_equal(mode_of(store / "data.mdb"), 0640);
        assert_int_equal(mode_of(store / "lock.mdb"), lock_mode());
        assert_int_equal(mode_of(store / "open.lock"), 0640);
    }
}

void writer_rule_1_the_group_is_that_of_the_readers(void **)
{
    if (geteuid() != 0) {
        print_message("only root can give files to another group\n");
        skip();
    }

    constexpr gid_t readers = 4242;
    const path store = folder / "store";
    assert_good(store::writer::create(store.text, readers, plain, map_size));
    for (const char *file : {".", "data.mdb", "lock.mdb", "open.lock"}) {
        assert_number_equal(file, group_of(store / file), readers);
    }
    assert_int_equal(mode_of(store), 02750);
    assert_int_equal(mode_of(store / "lock.mdb"), lock_mode());

    // The lock file that a writer makes anew gets the group from the folder, whose mode says so.
    assert_int_equal(unlink((store / "lock.mdb").text), 0);
    put(store, 1);
    assert_int_equal(group_of(store / "lock.mdb"), readers);

    // A backup is for the same readers.
    const path copy = folder / "copy";
    assert_good(store::writer::backup(store.text, copy.text, map_size));
    for (const char *file : {".", "data.mdb", "lock.mdb", "open.lock"}) {
        assert_number_equal(file, group_of(copy / file), readers);
    }
}

void writer_rule_1_readers_need_no_more_than_the_group(void **)
{
    if (geteuid() != 0) {
        print_message("only root can become another user\n");
        skip();
    }

    constexpr gid_t readers = 4242;
    constexpr uid_t owner = 4241;
    constexpr uid_t somebody = 4243;
    const path store = folder / "store";
    assert_int_equal(chown(folder.text, owner, readers), 0);
    assert_int_equal(chmod(folder.text, 0755), 0);
    in_child([&] {
        if (setgroups(0, nullptr) != 0 || setgid(readers) != 0 || setuid(owner) != 0) {
            return false;
        }
        assert_good(store::writer::create(store.text, readers, plain, map_size));
        put(store, 1);
        return true;
    });

    // The second group is that of the process; without the right one the folder is closed.
    for (const gid_t group : {readers, gid_t{4244}}) {
        in_child([&] {
            if (setgroups(0, nullptr) != 0 || setgid(group) != 0 || setuid(somebody) != 0) {
                return false;
            }
            auto *reader = new store::reader;
            const store::fault problem = reader->open(store.text, map_size, 0);
            return group == readers ? !problem && look(*reader, 1).right : problem.kind == fault_kind::denied;
        });
    }

    assert_int_equal(chmod((store / "lock.mdb").text, 0640), 0);
    in_child([&] {
        auto *reader = new store::reader;
        return setgroups(0, nullptr) == 0 && setgid(readers) == 0 && setuid(somebody) == 0
               && reader->open(store.text, map_size, 0).kind == fault_kind::no_lock_file;
    });
}

void writer_rule_1_a_lock_file_that_was_missing_gets_its_mode(void **)
{
    const path store = make_store();
    assert_int_equal(unlink((store / "lock.mdb").text), 0);
    put(store, 1);
    assert_int_equal(mode_of(store / "lock.mdb"), lock_mode());
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

    assert_int_equal(mode_of(other), 0755);
}

void writer_rule_1_a_folder_of_another_program_that_uses_lmdb_is_left_alone(void **)
{
    const path other = folder / "other";
    assert_int_equal(mkdir(other.text, 0755), 0);
    in_child([&] {
        MDB_env *env = nullptr;
        return mdb_env_create(&env) == 0 && mdb_env_open(env, other.text, 0, 0644) == 0;
    });
    const path before = folder / "before";
    copy_file(other / "data.mdb", before);

    assert_fault(store::writer::create(other.text, std::nullopt, plain, map_size), fault_kind::not_empty);
    assert_int_equal(mode_of(other), 0755);
    assert_int_equal(mode_of(other / "data.mdb"), 0644);
    assert_int_equal(access((other / "open.lock").text, F_OK), -1);
    assert_same_contents(other / "data.mdb", before);

    // Nor does a writer take it for a store.
    patch(other / "open.lock", 0, "", 0);
    in_child([&] {
        store::writer writer;
        return writer.open(other.text, map_size).kind == fault_kind::not_a_store;
    });
    assert_same_contents(other / "data.mdb", before);
}

void writer_rule_1_a_creation_that_was_interrupted_is_completed(void **)
{
    // What creating makes, in its order, and how far it got; the last has everything but the meta record.
    const struct {
        const char *label;
        bool has_folder, has_open_lock, has_empty_data, has_database;
    } rows[] = {
        {"the-folder", true, false, false, false},
        {"open-lock", true, true, false, false},
        {"an-empty-data-file", true, true, true, false},
        {"all-but-the-meta-record", true, true, false, true},
    };
    for (const auto &row : rows) {
        const path store = folder / row.label;
        assert_int_equal(mkdir(store.text, 0700), 0);
        if (row.has_open_lock) {
            patch(store / "open.lock", 0, "", 0);
        }
        if (row.has_empty_data) {
            patch(store / "data.mdb", 0, "", 0);
        }
        if (row.has_database) {
            in_child([&] {
                MDB_env *env = nullptr;
                return mdb_env_create(&env) == 0 && mdb_env_open(env, store.text, 0, 0600) == 0;
            });
        }

        assert_good(store::writer::create(store.text, std::nullopt, plain, map_size));
        assert_number_equal(row.label, mode_of(store), 02750);
        assert_number_equal(row.label, mode_of(store / "data.mdb"), 0640);
        assert_number_equal(row.label, mode_of(store / "lock.mdb"), lock_mode());
        assert_number_equal(row.label, mode_of(store / "open.lock"), 0640);
        put(store, 1);
        assert_fault(store::writer::create(store.text, std::nullopt, plain, map_size), fault_kind::exists);
    }
}

void writer_rule_1_a_damaged_file_in_the_folder_is_told_and_left_alone(void **)
{
    const path store = make_store();
    const std::uint32_t no_page_size = 0;  // on which LMDB would divide by zero
    constexpr off_t page_size_at = 40;
    patch(store / "data.mdb", page_size_at, &no_page_size, sizeof no_page_size);
    assert_int_equal(unlink((store / "lock.mdb").text), 0);
    in_child(
        [&] { return store::writer::create(store.text, std::nullopt, plain, map_size).kind == fault_kind::damaged; });
    assert_int_equal(access((store / "lock.mdb").text, F_OK), -1);
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

void writer_rule_3_a_file_without_its_free_last_pages_is_opened(void **)
{
    const path store = make_store();
    for (unsigned i = 0; i < 4; i++) {
        put(store, i);  // leaves free pages behind
    }
    in_child([&] {
        MDB_env *env = nullptr;
        MDB_txn *change = nullptr;
        MDB_dbi database = 0;
        if (mdb_env_create(&env) != 0 || mdb_env_set_mapsize(env, map_size) != 0
            || mdb_env_set_maxreaders(env, store::max_readers) != 0 || mdb_env_open(env, store.text, 0, 0640) != 0
            || mdb_txn_begin(env, nullptr, 0, &change) != 0 || mdb_dbi_open(change, nullptr, 0, &database) != 0) {
            return false;
        }
        static char large[3000];  // one page each
        for (const bool puts : {true, false}) {
            for (unsigned i = 0; i < 20; i++) {
                token_key key_bytes = make_token_key(plain(token(1000 + i).text));
                MDB_val key{key_bytes.size(), key_bytes.data()};
                MDB_val value{sizeof large, large};
                if ((puts ? mdb_put(change, database, &key, &value, 0) : mdb_del(change, database, &key, nullptr))
                    != 0) {
                    return false;
                }
            }
        }
        return mdb_txn_commit(change) == 0;
    });

    put(store, 4);
    assert_good(store::check_data_file(descriptor_of(store / "data.mdb"), map_size));
    store::reader *reader = open_reader(store);
    assert_found(*reader, 0);
    assert_found(*reader, 4);
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

void writer_rule_4_files_that_were_replaced_under_it_stop_it(void **)
{
    const path store = make_store();
    for (const char *file : {"data.mdb", "lock.mdb"}) {
        in_child([&] {
            store::writer writer;
            const path moved = folder / "moved";
            if (writer.open(store.text, map_size) || rename((store / file).text, moved.text) != 0) {
                return false;
            }
            const auto change = [](store::transaction &) { return store::fault{}; };
            const bool missing = writer.update(change).kind == fault_kind::replaced;
            copy_file(moved, store / file);
            const bool another = writer.update(change).kind == fault_kind::replaced;
            const bool again = rename(moved.text, (store / file).text) == 0 && !writer.update(change);
            return missing && another && again;
        });
    }
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

/// A digest that begins with `first`, which is what it is ordered by.
token_digest digest_at(unsigned first)
{
    token_digest result{};
    result[0] = static_cast<std::byte>(first);
    return result;
}

void writer_rule_7_appending_wants_ascending_digests(void **)
{
    const path store = make_store();
    const token_text text = token(1);

    commit(store, [&](store::transaction &change) {
        const token_record good = record_of(text);
        const token_record revoked = record_of(text, 1);
        bool right = !change.append(digest_at(1), good) && !change.append(digest_at(3), revoked);
        for (const unsigned again : {3, 2, 1, 0}) {
            right = right && change.append(digest_at(again), revoked).code == MDB_KEYEXIST;
        }
        right = right && !change.append(digest_at(4), good) && change.info().tokens == 3 && change.info().revoked == 1;
        return right ? store::fault{} : store::fault{fault_kind::lmdb};
    });

    commit(store, [&](store::transaction &change) {
        bool right = change.info().tokens == 3 && change.info().revoked == 1;
        for (const unsigned wanted : {1, 3, 4}) {
            token_digest of;
            token_record found;
            bool done = true;
            right = right && !change.next(of, found, done) && !done && of == digest_at(wanted) && found.id == text.text
                    && found.is_revoked() == (wanted == 3);
        }
        token_digest of;
        token_record found;
        bool done = false;
        right = right && !change.next(of, found, done) && done;
        return right ? store::fault{} : store::fault{fault_kind::lmdb};
    });
}

/// Puts a key that is none of ours into a store.
void put_foreign(const path &store, std::string_view key)
{
    in_child([&] {
        MDB_env *env = nullptr;
        MDB_txn *change = nullptr;
        MDB_dbi database = 0;
        MDB_val room{key.size(), const_cast<char *>(key.data())};
        MDB_val value{room};
        const bool good = mdb_env_create(&env) == 0 && mdb_env_set_mapsize(env, map_size) == 0
                          && mdb_env_set_maxreaders(env, store::max_readers) == 0
                          && mdb_env_open(env, store.text, 0, store::data_file_mode) == 0
                          && mdb_txn_begin(env, nullptr, 0, &change) == 0
                          && mdb_dbi_open(change, nullptr, 0, &database) == 0
                          && mdb_put(change, database, &room, &value, 0) == 0 && mdb_txn_commit(change) == 0;
        mdb_env_close(env);
        return good;
    });
}

/// How many entries a walk visits, and how it ends.
template <typename Entry>
bool walk_ends(store::transaction &change, unsigned wanted, fault_kind end)
{
    unsigned visited = 0;
    const store::fault problem =
        change.for_each<Entry>([&](const token_digest &, const Entry &, store::fault) { return ++visited != 0; });
    return problem.kind == end && visited == wanted;
}

void wait_for_file(const path &file)
{
    while (access(file.text, F_OK) != 0) {
        usleep(1000);
    }
}

void writer_rule_9_whose_lock_it_waits_for_is_told_whatever_program_has_it(void **)
{
    const path store = make_store();
    const path has_lock = folder / "has-lock";
    const pid_t other = start_child([&] {
        MDB_env *env = nullptr;
        MDB_txn *txn = nullptr;
        const bool begins = mdb_env_create(&env) == 0 && mdb_env_open(env, store.text, 0, 0640) == 0
                            && mdb_txn_begin(env, nullptr, 0, &txn) == 0 && mkdir(has_lock.text, 0700) == 0;
        pause();
        return begins;
    });
    wait_for_file(has_lock);

    in_child([&] {
        store::writer writer;
        int times = 0;
        const auto end_it = [&](pid_t thread) {
            times += thread == other ? 1 : 100;
            kill(other, SIGKILL);
        };
        return !writer.open(store.text, map_size, end_it) && times == 1;
    });
    assert_int_equal(WTERMSIG(status_of(other)), SIGKILL);
}

/// Writes to the store in a child process, whose turn it is when `begin` is there. It says so with a folder.
pid_t start_writer(const path &store, const path &begin, const path &has_turn)
{
    const path is_open = folder / "is-open";
    const pid_t child = start_child([&] {
        store::writer writer;
        return !writer.open(store.text, map_size) && mkdir(is_open.text, 0700) == 0 && (wait_for_file(begin), true)
               && !writer.update([&](store::transaction &) {
                      return mkdir(has_turn.text, 0700) == 0 ? store::fault{} : store::from_errno(errno);
                  });
    });
    wait_for_file(is_open);
    return child;
}

/// Until it is the turn of another writer next.
void wait_for_waiter(const path &store)
{
    const int data = open((store / "data.mdb").text, O_RDONLY | O_CLOEXEC);
    struct flock next {};
    do {
        usleep(1000);
        next = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1, .l_pid = 0};
    } while (fcntl(data, F_OFD_GETLK, &next) == 0 && next.l_type == F_UNLCK);
    close(data);
}

void writer_rule_9_a_writer_that_comes_back_at_once_lets_others_go_first(void **)
{
    const path store = make_store();
    const path begin = folder / "begin";
    const path has_turn = folder / "has-turn";
    const pid_t other = start_writer(store, begin, has_turn);

    // It does not wait for the other to wake up for longer than a second.
    constexpr int few = 3;
    in_child([&] {
        store::writer writer;
        const auto wait_for_other = [&](store::transaction &) {
            wait_for_waiter(store);
            return store::fault{};
        };
        bool is_good =
            !writer.open(store.text, map_size) && mkdir(begin.text, 0700) == 0 && !writer.update(wait_for_other);
        int commits = 0;
        const auto look = [&](store::transaction &) {
            commits += access(has_turn.text, F_OK) != 0 ? 1 : 0;
            return store::fault{};
        };
        for (int before = -1; is_good && commits != before;) {
            before = commits;
            is_good = !writer.update(look);
        }
        return is_good && commits < few;
    });
    assert_int_equal(status_of(other), 0);
}

void writer_rule_9_a_writer_that_is_stopped_while_it_waits_keeps_nobody_out(void **)
{
    const path store = make_store();
    const path begin = folder / "begin";
    const path has_turn = folder / "has-turn";
    const path is_stopped = folder / "is-stopped";
    const pid_t other = start_writer(store, begin, has_turn);
    const pid_t former = start_child([&] {
        store::writer writer;
        bool is_first = false;
        const auto wait = [&](store::transaction &) {
            const bool begins = mkdir(begin.text, 0700) == 0;
            wait_for_file(is_stopped);
            return begins ? store::fault{} : store::from_errno(errno);
        };
        const auto look = [&](store::transaction &) {
            is_first = access(has_turn.text, F_OK) != 0;
            return store::fault{};
        };
        return !writer.open(store.text, map_size) && !writer.update(wait) && !writer.update(look) && is_first;
    });

    wait_for_waiter(store);
    int status = 0;
    assert_int_equal(kill(other, SIGSTOP), 0);
    assert_int_equal(waitpid(other, &status, WUNTRACED), other);
    assert_int_equal(mkdir(is_stopped.text, 0700), 0);
    const int status_of_former = status_of(former);
    assert_int_equal(kill(other, SIGCONT), 0);
    assert_int_equal(status_of_former, 0);
    assert_int_equal(status_of(other), 0);
}

void a_walk_does_not_take_damage_for_its_end(void **)
{
    const struct {
        std::string_view key;
        fault_kind tokens;
        fault_kind tombstones;
    } rows[] = {
        {"u", fault_kind::damaged, fault_kind::none},
        {"t\xff\xff", fault_kind::damaged, fault_kind::none},
        {"d\xff\xff", fault_kind::none, fault_kind::damaged},
        {"n", fault_kind::none, fault_kind::none},
        {"a", fault_kind::none, fault_kind::none},
    };
    unsigned number = 0;
    for (const auto &row : rows) {
        char name[20];
        std::snprintf(name, sizeof name, "store-%u", number++);
        const path store = make_store(name);
        put_many(store, 3);
        commit(store, [](store::transaction &change) {
            return change.bury(plain(token(0).text), {.sequence = 1, .deleted_at = 1});
        });
        put_foreign(store, row.key);

        commit(store, [&](store::transaction &change) {
            return walk_ends<token_record>(change, 2, row.tokens) ? store::fault{} : store::fault{fault_kind::exists};
        });
        commit(store, [&](store::transaction &change) {
            return walk_ends<tombstone>(change, 1, row.tombstones) ? store::fault{} : store::fault{fault_kind::exists};
        });
    }
}

void a_walk_is_interrupted_only_past_its_beginning(void **)
{
    const path store = make_store();
    commit(store, [](store::transaction &change) {
        for (const unsigned at : {1, 3, 4}) {
            if (const store::fault problem = change.put(digest_at(at), record_of(token(at)))) {
                return problem;
            }
        }
        return store::fault{};
    });
    for (const unsigned begin : {0, 1, 2}) {
        commit(store, [begin](store::transaction &change) {
            change.seek(digest_at(begin));
            bool right = true;
            for (const unsigned wanted : {1, 3, 4}) {
                if (wanted < begin) {
                    continue;
                }
                token_digest digest{};
                token_record record;
                bool done = true;
                right = right && !change.next(digest, record, done) && !done && digest == digest_at(wanted);
                token_digest next{};
                const store::fault problem = change.interrupt_walk(next);
                right = right && next == digest
                        && problem.kind == (wanted > begin ? fault_kind::none : fault_kind::damaged);
            }
            unsigned left = 0;
            right = right
                    && !change.for_each<token_record>(
                        [&](const token_digest &, const token_record &, store::fault) { return ++left != 0; })
                    && left == 0;
            return right ? store::fault{} : store::fault{fault_kind::exists};
        });
    }

    commit(store, [](store::transaction &change) {
        unsigned visited = 0;
        const store::fault problem = change.for_each<token_record>(
            [&](const token_digest &, const token_record &, store::fault) { return ++visited != 2; });
        return !problem && visited == 2 ? store::fault{} : store::fault{fault_kind::exists};
    });
}

void writer_rule_8_a_backup_is_whole_or_not_there(void **)
{
    const path store = make_store();
    put(store, 1);
    const path copy = folder / "copy";

    assert_good(store::writer::backup(store.text, copy.text, map_size));
    assert_int_equal(mode_of(copy), 02750);
    assert_int_equal(mode_of(copy / "lock.mdb"), lock_mode());
    store::reader *reader = open_reader(copy);
    assert_found(*reader, 1);
    delete reader;

    // Nothing of ours is left to say that it is not whole, and it takes changes like any store.
    assert_int_equal(access((folder / "copy.partial").text, F_OK), -1);
    put(copy, 2);
    reader = open_reader(store);
    assert_not_found(*reader, 2);
    delete reader;

    assert_fault(store::writer::backup(store.text, copy.text, map_size), fault_kind::exists);
    reader = open_reader(copy);
    assert_found(*reader, 2);
    delete reader;

    const path nowhere = folder / "none/copy";
    assert_fault(store::writer::backup(store.text, nowhere.text, map_size), fault_kind::absent);
    const path second = folder / "second";
    assert_fault(store::writer::backup((folder / "none").text, second.text, map_size), fault_kind::absent);
    assert_int_equal(access(second.text, F_OK), -1);
    assert_int_equal(access((folder / "second.partial").text, F_OK), -1);
}

void writer_rule_8_a_backup_that_does_not_fit_leaves_nothing(void **)
{
    const path store = make_store();
    put_many(store, 3000);

    const path disk = folder / "disk";
    assert_int_equal(mkdir(disk.text, 0755), 0);
    if (mount("none", disk.text, "tmpfs", 0, "size=128k") != 0) {
        print_message("mounting is not permitted here\n");
        skip();
    }
    const path copy = disk / "copy";
    const store::fault problem = store::writer::backup(store.text, copy.text, map_size);
    const bool is_there = access(copy.text, F_OK) == 0;
    const bool partial_is_there = access((disk / "copy.partial").text, F_OK) == 0;
    const bool has_room = mount(nullptr, disk.text, nullptr, MS_REMOUNT, "size=16m") == 0;
    const store::fault second = store::writer::backup(store.text, copy.text, map_size);
    assert_int_equal(umount2(disk.text, MNT_DETACH), 0);

    assert_fault(problem, fault_kind::disk_full);
    assert_false(is_there);
    assert_false(partial_is_there);
    assert_true(has_room);
    assert_good(second);
}

void a_tombstone_takes_the_place_of_a_record_until_one_is_put(void **)
{
    const path store = make_store("buried");
    put(store, 1, 5);
    const token_text text = token(1);
    const token_digest of = plain(text.text);

    commit(store,
           [&](store::transaction &change) { return change.bury(of, {.sequence = 7, .deleted_at = 1700000000}); });
    in_child([&] {
        store::writer writer;
        return !writer.open(store.text, map_size) && !writer.update([&](store::transaction &change) {
            token_record token_found;
            tombstone grave;
            bool has_token = true;
            bool has_grave = false;
            (void) change.get(of, token_found, has_token);
            (void) change.get(of, grave, has_grave);
            const bool right = !has_token && has_grave && grave.sequence == 7 && grave.deleted_at == 1700000000
                               && change.info().tokens == 0 && change.info().revoked == 0;
            return right ? change.put(of, record_of(text)) : store::fault{fault_kind::lmdb};
        }) && !writer.update([&](store::transaction &change) {
            tombstone grave;
            bool has_grave = true;
            (void) change.get(of, grave, has_grave);
            return has_grave || change.info().tokens != 1 ? store::fault{fault_kind::lmdb} : store::fault{};
        });
    });
}

/// How many token records of the store are of a version.
std::size_t count_of_format(const path &store, std::uint8_t format)
{
    std::size_t count = 0;
    auto *snapshot = new store::snapshot;
    assert_good(snapshot->open(store.text, map_size));
    for (bool done = false; !done;) {
        std::span<const std::byte> key;
        std::span<const std::byte> value;
        assert_good(snapshot->next(key, value, done));
        token_record record;
        if (!done && digest_of_key(key) && decode(key, value, record) == codec_error::none) {
            count += record.format == format ? 1 : 0;
        }
    }
    delete snapshot;
    return count;
}

void records_are_written_in_the_record_format_of_the_store_and_read_in_either(void **)
{
    const path store = make_store();
    const auto set_format = [&](std::uint8_t format, std::uint8_t record_format) {
        commit(store, [&](store::transaction &change) {
            change.info().format = format;
            change.info().record_format = record_format;
            return store::fault{};
        });
    };
    const struct {
        std::uint8_t format;
        std::uint8_t record_format;
        std::size_t want_1;
        std::size_t want_2;
    } rows[] = {{2, 2, 0, 1}, {2, 1, 1, 1}, {1, 1, 2, 1}, {2, 2, 2, 2}};

    unsigned number = 0;
    for (const auto &row : rows) {
        set_format(row.format, row.record_format);
        put(store, number++);
        assert_int_equal(count_of_format(store, 1), row.want_1);
        assert_int_equal(count_of_format(store, 2), row.want_2);
    }

    store::reader *reader = open_reader(store);
    for (unsigned i = 0; i < number; i++) {
        assert_found(*reader, i);
    }
    delete reader;
}

void a_record_that_is_written_in_another_format_says_the_same(void **)
{
    const path store = make_store();
    put(store, 1);
    damage_record(store, 1);
    put(store, 2);

    const token_text text = token(3);
    const token_digest digest = plain(text.text);
    token_record record = record_of(text, 1700000000);
    record.sequence = 7;
    commit(store, [&](store::transaction &change) { return change.put(digest, record); });
    commit(store, [&](store::transaction &change) {
        change.info().record_format = first_format;
        change.info().generation++;  // the sequence no longer counts, and stays
        const store::fault damage = change.reformat(plain(token(1).text));
        return damage.kind == fault_kind::bad_record ? change.reformat(digest) : store::fault{fault_kind::damaged};
    });
    commit(store, [&](store::transaction &change) {
        token_record found;
        bool is_found = false;
        change.info().generation--;
        const store::fault problem = change.get(digest, found, is_found);
        const bool is_same = is_found && found == record && found.format == first_format;
        const bool has_counts = change.info().tokens == 3 && change.info().revoked == 1;
        return problem ? problem : is_same && has_counts ? store::fault{} : store::fault{fault_kind::damaged};
    });
}

void a_sequence_of_another_generation_counts_as_zero(void **)
{
    const path store = make_store("generation");
    const token_text kept = token(1);
    const token_text buried = token(2);

    commit(store, [&](store::transaction &change) {
        token_record one = record_of(kept);
        one.sequence = 9;
        const store::fault problem = change.put(plain(kept.text), one);
        return problem ? problem : change.bury(plain(buried.text), {.sequence = 9, .deleted_at = 1});
    });
    commit(store, [&](store::transaction &change) {
        change.info().generation++;
        return store::fault{};
    });
    commit(store, [&](store::transaction &change) {
        token_record one;
        token_record walked;
        tombstone grave;
        token_digest of;
        bool found = false;
        bool done = false;
        const bool right = !change.get(plain(kept.text), one, found) && found && one.sequence == 0
                           && !change.get(plain(buried.text), grave, found) && found && grave.sequence == 0
                           && !change.next(of, walked, done) && !done && walked.sequence == 0;
        return right ? store::fault{} : store::fault{fault_kind::lmdb};
    });
    commit(store, [&](store::transaction &change) {
        token_record one = record_of(kept);
        one.sequence = 3;
        return change.put(plain(kept.text), one);
    });
    commit(store, [&](store::transaction &change) {
        token_record one;
        bool found = false;
        (void) change.get(plain(kept.text), one, found);
        return one.sequence == 3 ? store::fault{} : store::fault{fault_kind::lmdb};
    });
}

void a_walk_begins_where_it_is_told_to_and_ends_with_its_kind(void **)
{
    const path store = make_store("walk");
    put_many(store, 40);
    commit(store, [&](store::transaction &change) {
        const token_text other = token(1000);
        return change.bury(plain(other.text), {.sequence = 1, .deleted_at = 1});
    });

    in_child([&] {
        store::writer writer;
        bool right = !writer.open(store.text, map_size);
        for (unsigned first = 0; first < 256; first++) {
            token_digest from{};
            from[0] = static_cast<std::byte>(first);

            unsigned wanted = 0;
            for (unsigned i = 0; i < 40; i++) {
                const token_text text = token(i);
                wanted += plain(text.text) >= from ? 1 : 0;
            }
            right = right && !writer.update([&](store::transaction &change) {
                unsigned walked = 0;
                change.seek(from);
                for (bool done = false;;) {
                    token_digest of;
                    token_record one;
                    if (const store::fault problem = change.next(of, one, done); problem || done) {
                        return problem || walked != wanted ? store::fault{fault_kind::lmdb} : store::fault{};
                    }
                    walked += of >= from ? 1 : 1000;
                }
            });
        }
        return right && !writer.update([](store::transaction &change) {
            unsigned walked = 0;
            for (bool done = false;; walked++) {
                token_digest of;
                tombstone grave;
                if (const store::fault problem = change.next(of, grave, done); problem || done) {
                    return problem || walked != 1 ? store::fault{fault_kind::lmdb} : store::fault{};
                }
            }
        });
    });
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

void a_writer_that_is_killed_in_a_transaction_leaves_nothing(void **)
{
    const path store = make_store();
    put(store, 1);
    for (int round = 0; round < 3; round++) {
        const pid_t child = start_child([&] {
            store::writer writer;
            const token_text text = token(2);
            return !writer.open(store.text, map_size) && !writer.update([&](store::transaction &change) {
                (void) change.put(plain(text.text), record_of(text));
                raise(SIGKILL);
                return store::fault{};
            });
        });
        const int status = status_of(child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    }
    put(store, 3);
    store::reader *reader = open_reader(store);
    assert_found(*reader, 1);
    assert_not_found(*reader, 2);
    assert_found(*reader, 3);
    delete reader;
}

void a_record_that_is_damaged_can_be_told_replaced_and_removed(void **)
{
    const path store = make_store();
    put_many(store, 3);
    damage_record(store, 0);
    damage_record(store, 2);

    commit(store, [](store::transaction &change) {
        token_record one;
        bool found = false;
        bool right = change.info().tokens == 3 && change.info().revoked == 1
                     && change.get(plain(token(0).text), one, found).kind == fault_kind::bad_record && found;

        // A walk meets the three in some order, and names those that are damaged.
        unsigned damaged = 0;
        unsigned good = 0;
        right = right
                && !change.for_each<token_record>(
                    [&](const token_digest &digest, const token_record &, store::fault problem) {
                        const bool is_damaged = problem.kind == fault_kind::bad_record;
                        damaged += is_damaged ? 1 : 0;
                        good += problem ? 0 : 1;
                        right = right && is_damaged == (digest != plain(token(1).text));
                        return true;
                    });
        return right && damaged == 2 && good == 1 ? store::fault{} : store::fault{fault_kind::lmdb};
    });
    commit(store, [](store::transaction &change) {
        const token_text first = token(0);
        const bool right = !change.put(plain(first.text), record_of(first, 1)) && change.info().tokens == 3
                           && change.info().revoked == 2 && !change.erase(plain(token(2).text))
                           && change.info().tokens == 2 && change.info().revoked == 2;
        return right ? store::fault{} : store::fault{fault_kind::lmdb};
    });
    store::reader *reader = open_reader(store);
    assert_found(*reader, 0);
    assert_not_found(*reader, 2);
    delete reader;
}

/// A store as it should be: of each token whether it is there, and whether it is revoked.
struct model {
    static constexpr unsigned tokens = 50;

    bool there[tokens];
    bool revoked[tokens];
    std::uint64_t state;

    unsigned random(unsigned below)
    {
        state = state * 6364136223846793005 + 1442695040888963407;
        return static_cast<unsigned>(state >> 33) % below;
    }

    /// True if both the counts and the records are the same.
    bool matches(store::transaction &change) const
    {
        std::uint64_t count = 0;
        std::uint64_t count_revoked = 0;
        for (unsigned i = 0; i < tokens; i++) {
            count += there[i] ? 1 : 0;
            count_revoked += revoked[i] ? 1 : 0;

            const token_text text = token(i);
            token_record one;
            bool found = false;
            if (change.get(plain(text.text), one, found) || found != there[i]
                || (found && (one.id != text.text || one.is_revoked() != revoked[i]))) {
                return false;
            }
        }
        return change.info().tokens == count && change.info().revoked == count_revoked;
    }

    /// A few changes at random.
    bool change(store::transaction &to)
    {
        for (unsigned step = 0; step < 20; step++) {
            const unsigned number = random(tokens);
            const token_text text = token(number);
            if (random(3) == 0) {
                if (to.erase(plain(text.text))) {
                    return false;
                }
                there[number] = revoked[number] = false;
                continue;
            }
            token_record one = record_of(text);
            one.revoked_at = random(2);
            one.local_revoked_at = random(2);
            if (to.put(plain(text.text), one)) {
                return false;
            }
            there[number] = true;
            revoked[number] = one.is_revoked();
        }
        return true;
    }
};

void the_counts_are_right_after_any_sequence_of_changes(void **)
{
    const path store = make_store();
    in_child([&] {
        store::writer writer;
        if (writer.open(store.text, map_size)) {
            return false;
        }

        model now{};
        now.state = 7;
        for (int commits = 0; commits < 200; commits++) {
            const model before = now;
            const bool is_given_up = now.random(4) == 0;
            const store::fault problem = writer.update([&](store::transaction &change) {
                const bool right = before.matches(change) && now.change(change) && now.matches(change);
                if (!right) {
                    return store::fault{fault_kind::damaged};
                }
                return is_given_up ? store::fault{fault_kind::wrong_pepper} : store::fault{};
            });
            if (problem.kind != (is_given_up ? fault_kind::wrong_pepper : fault_kind::none)) {
                return false;
            }
            if (is_given_up) {
                const std::uint64_t state = now.state;
                now = before;
                now.state = state;
            }
        }
        return true;
    });
}

}  // namespace

int main()
{
    const CMUnitTest tests[] = {
        store_test(writer_rule_1_modes_do_not_depend_on_the_umask),
        store_test(writer_rule_1_the_group_is_that_of_the_readers),
        store_test(writer_rule_1_readers_need_no_more_than_the_group),
        store_test(writer_rule_1_a_folder_of_another_program_that_uses_lmdb_is_left_alone),
        store_test(writer_rule_1_a_lock_file_that_was_missing_gets_its_mode),
        store_test(writer_rule_1_what_is_there_is_left_alone),
        store_test(writer_rule_1_a_creation_that_was_interrupted_is_completed),
        store_test(writer_rule_1_a_damaged_file_in_the_folder_is_told_and_left_alone),
        store_test(writer_rule_3_opening_publishes_a_commit_of_a_killed_writer),
        store_test(writer_rule_3_a_file_without_its_free_last_pages_is_opened),
        store_test(writer_rule_4_a_lock_file_of_another_store_stops_it),
        store_test(writer_rule_4_files_that_were_replaced_under_it_stop_it),
        store_test(writer_rule_5_a_full_disk_leaves_the_store_usable),
        store_test(writer_rule_7_appending_wants_ascending_digests),
        store_test(writer_rule_9_whose_lock_it_waits_for_is_told_whatever_program_has_it),
        store_test(writer_rule_9_a_writer_that_comes_back_at_once_lets_others_go_first),
        store_test(writer_rule_9_a_writer_that_is_stopped_while_it_waits_keeps_nobody_out),
        store_test(a_walk_does_not_take_damage_for_its_end),
        store_test(a_walk_is_interrupted_only_past_its_beginning),
        store_test(writer_rule_8_a_backup_is_whole_or_not_there),
        store_test(writer_rule_8_a_backup_that_does_not_fit_leaves_nothing),
        store_test(a_tombstone_takes_the_place_of_a_record_until_one_is_put),
        store_test(records_are_written_in_the_record_format_of_the_store_and_read_in_either),
        store_test(a_record_that_is_written_in_another_format_says_the_same),
        store_test(a_sequence_of_another_generation_counts_as_zero),
        store_test(a_walk_begins_where_it_is_told_to_and_ends_with_its_kind),
        store_test(a_transaction_that_fails_leaves_nothing),
        store_test(a_writer_that_is_killed_in_a_transaction_leaves_nothing),
        store_test(a_record_that_is_damaged_can_be_told_replaced_and_removed),
        store_test(the_counts_are_right_after_any_sequence_of_changes),
    };
    return cmocka_run_group_tests_name("store writer", tests, nullptr, nullptr);
}
