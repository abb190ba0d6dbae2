#include "pat_temp_store.h"

#include "store/pat_files.h"
#include "store/pat_ownership.h"

#include <string_view>

#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <sys/mman.h>

/// Who may put what in the way of a store, and who may not open it.
namespace {

using namespace pat;
using namespace pat::test;
using store::fault_kind;
using store::store_part;

constexpr uid_t root = 0;
constexpr uid_t owner = 4241;
constexpr uid_t somebody = 4243;
constexpr const char *files[] = {store::data_file, store::lock_file, store::open_lock_file};

bool has_owner;  ///< whether the system has the user that the installation makes

}  // namespace

/// Stands in for the C library's.
extern "C" passwd *getpwnam(const char *)
{
    static passwd one{};
    return has_owner ? &one : nullptr;
}

namespace {

/// Skips a test that another user than root runs.
void require_root()
{
    if (geteuid() != root) {
        print_message("only root can give files to other users\n");
        skip();
    }
}

void give(const path &to, uid_t user, mode_t mode)
{
    assert_int_equal(chown(to.text, user, 0), 0);
    assert_int_equal(chmod(to.text, mode), 0);
}

path make_folder_of(const path &at, uid_t user, mode_t mode)
{
    assert_int_equal(mkdir(at.text, 0700), 0);
    give(at, user, mode);
    return at;
}

path make_link(const path &at, const char *target, uid_t user)
{
    assert_int_equal(symlink(target, at.text), 0);
    assert_int_equal(lchown(at.text, user, 0), 0);
    return at;
}

bool become_somebody()
{
    return setgroups(0, nullptr) == 0 && setgid(somebody) == 0 && setuid(somebody) == 0;
}

// ---- the way to a store

void a_way_is_safe_if_only_root_and_the_user_can_change_it(void **)
{
    require_root();
    constexpr fault_kind none = fault_kind::none;
    constexpr fault_kind exposed = fault_kind::exposed;
    struct row {
        const char *label;
        uid_t folder_of;
        mode_t mode;
        uid_t end_of;
        uid_t user;
        fault_kind wanted;
    };
    static constexpr row rows[] = {
        {"root's", root, 0755, root, root, none},
        {"root's, and what is at its end is another's", root, 0755, somebody, root, none},
        {"root's, its group may write", root, 0775, root, root, exposed},
        {"root's, all others may write", root, 0757, root, root, exposed},
        {"root's, its group may write, for another user", root, 0770, owner, owner, exposed},
        {"sticky", root, 01777, root, root, none},
        {"sticky, and what is at its end is another's", root, 01777, owner, root, exposed},
        {"sticky, and what is at its end is the user's", root, 01777, owner, owner, none},
        {"sticky, and what is at its end is root's", root, 01777, root, owner, none},
        {"sticky, and what is at its end is somebody's", root, 01777, somebody, owner, exposed},
        {"the user's", owner, 0755, owner, owner, none},
        {"the user's, and what is at its end is root's", owner, 0700, root, owner, none},
        {"the user's, and what is at its end is somebody's", owner, 0755, somebody, owner, none},
        {"the user's, for root", owner, 0755, root, root, exposed},
        {"somebody's", somebody, 0755, owner, owner, exposed},
        {"the user's, others may write", owner, 0777, owner, owner, none},
        {"the user's, others may write, and what is at its end is somebody's", owner, 0777, somebody, owner, exposed},
        {"the user's, the group may write, and what is at its end is somebody's", owner, 0770, somebody, owner,
         exposed},
    };

    const path way = make_folder_of(folder / "way", root, 0755);
    const path end = make_folder_of(way / "end", root, 0755);
    for (const row &row : rows) {
        give(way, row.folder_of, row.mode);
        give(end, row.end_of, 0755);
        assert_number_equal(row.label, store::check_way(end.text, row.user).kind, row.wanted);
    }
}

void a_way_may_be_written_in_any_manner(void **)
{
    require_root();
    const path way = make_folder_of(folder / "way", root, 0755);
    make_folder_of(way / "end", root, 0755);
    for (const char *text : {"end/", "end//", "./end", "../way/end", "end/../end/."}) {
        assert_fault(store::check_way((way / text).text, root), fault_kind::none);
    }
    in_child([&] {
        bool good = chdir(way.text) == 0;
        for (const char *text : {"end", "./end/", "../way//end", "."}) {
            good = good && !store::check_way(text, root);
        }
        return good && store::check_way("absent", root).kind == fault_kind::absent;
    });
    assert_fault(store::check_way((way / "absent").text, root), fault_kind::absent);
    copy_file({"/dev/null"}, way / "file");
    assert_fault(store::check_way((way / "file").text, root), fault_kind::absent);

    // A folder that may be passed through need not be readable.
    give(folder, root, 0711);
    give(way, root, 0711);
    in_child([&] { return become_somebody() && chdir(way.text) == 0 && !store::check_way("end", root); });

    give(way, somebody, 0755);
    for (const char *text : {"way/end", "./way/end", "way/end/../../way/end", "way/../way/end"}) {
        assert_fault(store::check_way((folder / text).text, root), fault_kind::exposed);
    }
}

void a_link_on_the_way_is_followed_if_nobody_else_can_change_it(void **)
{
    require_root();
    const path way = make_folder_of(folder / "way", root, 0755);
    const path end = make_folder_of(way / "end", root, 0755);
    make_folder_of(end / "inner", root, 0755);

    for (const char *target : {"end", "./end/", "../way/end", end.text}) {
        struct {
            uid_t link_of;
            uid_t user;
            fault_kind wanted;
        } const rows[] = {
            {root, root, fault_kind::none},         {root, owner, fault_kind::none},
            {owner, owner, fault_kind::none},       {owner, root, fault_kind::exposed},
            {somebody, owner, fault_kind::exposed},
        };
        for (const auto &row : rows) {
            const path link = make_link(way / "link", target, row.link_of);
            assert_fault(store::check_way(link.text, row.user), row.wanted);
            assert_fault(store::check_way((link / "inner").text, row.user), row.wanted);
            assert_int_equal(unlink(link.text), 0);
        }
    }

    // What it leads to is looked at as well.
    const path open = make_folder_of(folder / "open", root, 0777);
    make_folder_of(open / "end", root, 0755);
    assert_fault(store::check_way(make_link(way / "to-open", "../open/end", root).text, root), fault_kind::exposed);
    assert_fault(store::check_way(make_link(way / "to-nowhere", "nowhere", root).text, root), fault_kind::absent);
    assert_fault(store::check_way(make_link(way / "to-link", "to-open", root).text, root), fault_kind::exposed);
    assert_int_equal(store::check_way(make_link(way / "to-itself", "to-itself", root).text, root).code, ELOOP);

    // As many as the kernel follows.
    path last = end;
    for (unsigned i = 0; i < 40; i++) {
        last = make_link(way / label_at("link", i), last.text, root);
    }
    assert_fault(store::check_way(last.text, root), fault_kind::none);
    assert_int_equal(store::check_way(make_link(way / "one-more", last.text, root).text, root).code, ELOOP);
}

/// A path of this length to a folder that is named at its beginning.
const char *padded(const char *path, std::size_t length)
{
    static char text[5 * PATH_MAX];
    const std::size_t begin = std::strlen(path);
    std::memset(text, '/', sizeof text);
    std::memcpy(text, path, begin);
    text[length] = '\0';
    return text;
}

void a_way_has_a_length(void **)
{
    require_root();
    const path way = make_folder_of(folder / "way", root, 0755);
    assert_fault(store::check_way(padded(way.text, PATH_MAX - 2), root), fault_kind::none);
    assert_int_equal(store::check_way(padded(way.text, PATH_MAX - 1), root).code, ENAMETOOLONG);
    assert_int_equal(store::check_way(padded(way.text, PATH_MAX), root).code, ENAMETOOLONG);

    // The target of a link takes the place of its name. Both paths get a slash at their end.
    constexpr std::size_t target = 3000;
    make_link(folder / "link", padded(way.text, target), root);
    const path link = folder / "link";
    const std::size_t fits = std::strlen(link.text) + PATH_MAX - 3 - target;
    assert_fault(store::check_way(padded(link.text, fits), root), fault_kind::none);
    assert_int_equal(store::check_way(padded(link.text, fits + 1), root).code, ENAMETOOLONG);
}

void a_link_in_proc_does_not_tell_its_way(void **)
{
    require_root();
    const path way = make_folder_of(folder / "way", root, 0755);
    const bool was_permitted = in_child_if_permitted([&](bool &permitted) {
        const int fd = open(way.text, O_PATH | O_DIRECTORY);
        char link[40];
        std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        const bool was_good = !store::check_way(link, root);
        permitted = unshare(CLONE_NEWNS) == 0 && mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0
                    && mount("none", way.text, "tmpfs", 0, "mode=755") == 0;
        return was_good && store::check_way(link, root).kind == fault_kind::exposed;
    });
    if (!was_permitted) {
        print_message("mounting is not permitted here\n");
        skip();
    }
}

// ---- stores of root's

void root_opens_a_store_that_nobody_else_can_touch(void **)
{
    require_root();
    const path store = make_store();
    assert_fault(store::check_for_root(store.text), fault_kind::none);
    assert_fault(store::check_for_root((folder / "absent").text), fault_kind::absent);
    copy_file({"/dev/null"}, folder / "file");
    assert_fault(store::check_for_root((folder / "file").text), fault_kind::absent);

    for (const mode_t mode : {02770, 02752}) {
        assert_int_equal(chmod(store.text, mode), 0);
        assert_fault(store::check_for_root(store.text), fault_kind::shared);
    }
    give(store, owner, 0750);
    assert_fault(store::check_for_root(store.text), fault_kind::foreign);
    give(store, root, 0750);
    assert_fault(store::check_for_root(store.text), fault_kind::none);

    for (const char *name : files) {
        const path file = store / name;
        for (const mode_t mode : {0620, 0602}) {
            assert_int_equal(chmod(file.text, mode), 0);
            assert_fault(store::check_for_root(store.text), fault_kind::shared);
        }
        give(file, owner, 0600);
        assert_fault(store::check_for_root(store.text), fault_kind::shared);

        // Who opens the store finds what is no file, or is missing.
        assert_int_equal(unlink(file.text), 0);
        assert_fault(store::check_for_root(store.text), fault_kind::none);
        make_link(file, "elsewhere", owner);
        assert_fault(store::check_for_root(store.text), fault_kind::none);
    }

    assert_int_equal(chmod(folder.text, 0777), 0);
    assert_fault(store::check_for_root(store.text), fault_kind::exposed);
}

void of_other_users_nothing_is_asked(void **)
{
    require_root();
    const path store = make_folder_of(folder / "store", owner, 0777);
    assert_int_equal(chmod(folder.text, 0777), 0);
    in_child([&] { return become_somebody() && !store::check_for_root(store.text); });
}

// ---- what a reader may not use

store::refusal refusal_of(const char *folder)
{
    static auto *found = static_cast<store::refusal *>(
        mmap(nullptr, sizeof(store::refusal), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    assert_true(found != MAP_FAILED);
    in_child([&] {
        if (!become_somebody()) {
            return false;
        }
        *found = store::find_refusal(folder);
        return true;
    });
    return *found;
}

void the_reason_of_a_refusal_is_the_first_folder_or_file_that_is_closed(void **)
{
    require_root();
    assert_int_equal(chmod(folder.text, 0755), 0);
    const path above = make_folder_of(folder / "above", root, 0755);
    const path store = above / "store";
    assert_good(store::writer::create(store.text, std::nullopt, plain, map_size));
    assert_int_equal(chmod(store.text, 0755), 0);
    for (const char *file : files) {
        assert_int_equal(chmod((store / file).text, 0666), 0);
    }
    assert_number_equal("none", refusal_of(store.text).part, store_part::none);

    struct {
        const path *at;
        const char *file;
        mode_t mode;
        store_part part;
        std::size_t length;
    } const rows[] = {
        {&folder, "", 0700, store_part::way, std::strlen(folder.text)},
        {&folder, "above", 0644, store_part::way, std::strlen(above.text)},
        {&above, "store", 0700, store_part::way, std::strlen(store.text)},
        {&store, "open.lock", 0600, store_part::open_lock, 0},
        {&store, "data.mdb", 0600, store_part::data, 0},
        {&store, "lock.mdb", 0644, store_part::lock, 0},
        {&store, "lock.mdb", 0622, store_part::lock, 0},
    };
    for (const auto &row : rows) {
        const path at = *row.at / row.file;
        struct stat before;
        assert_int_equal(stat(at.text, &before), 0);
        assert_int_equal(chown(at.text, owner, 4242), 0);
        assert_int_equal(chmod(at.text, row.mode), 0);
        const store::refusal found = refusal_of(store.text);
        assert_number_equal(row.file, found.part, row.part);
        assert_number_equal(row.file, found.way_length, row.length);
        assert_number_equal(row.file, found.user, owner);
        assert_number_equal(row.file, found.group, 4242);
        give(at, root, before.st_mode & 07777);
    }

    assert_int_equal(unlink((store / "data.mdb").text), 0);
    assert_number_equal("missing", refusal_of(store.text).part, store_part::none);
    assert_number_equal("absent", refusal_of((folder / "absent").text).part, store_part::none);
    assert_number_equal("too long", refusal_of(padded(store.text, PATH_MAX + 10)).part, store_part::none);
}

// ---- commands for an operator

void a_path_is_quoted_where_a_shell_would_not_take_it_as_it_is(void **)
{
    struct row {
        const char *path;
        const char *want;
    };
    static constexpr row rows[] = {
        {"/var/lib/pat/store-1_2.3+4,5:6@7%", "chown /var/lib/pat/store-1_2.3+4,5:6@7%"},
        {"relative", "chown relative"},
        {"-R", "chown '-R'"},
        {"a-R", "chown a-R"},
        {"/a b", "chown '/a b'"},
        {"/it's", "chown '/it'\\''s'"},
        {"/$(reboot)", "chown '/$(reboot)'"},
        {"/a;b", "chown '/a;b'"},
        {"/\xc3\xa4", "chown '/\xc3\xa4'"},
    };
    for (const row &row : rows) {
        static store::shell_command command;
        command = {};
        command.append("chown ");
        command.append_quoted(row.path);
        assert_view_equal(row.path, command.text(), row.want);
    }
}

void a_command_that_does_not_fit_is_left_out(void **)
{
    static char most[4 * PATH_MAX];
    std::memset(most, 'x', sizeof most - 1);

    static store::shell_command command;
    command.append(most);
    assert_string_equal(command.text(), most);
    command.append("");
    assert_string_equal(command.text(), most);
    command.append("y");
    assert_string_equal(command.text(), "");
    command.append("y");
    assert_string_equal(command.text(), "");

    command = {};
    command.append(padded("", sizeof most));
    command.append("y");
    assert_string_equal(command.text(), "");

    command = {};
    command.append("echo ");
    command.append(most + 5);
    assert_int_equal(std::strlen(command.text()), sizeof most - 1);
    command = {};
    command.append("echo ");
    command.append(most + 4);
    assert_string_equal(command.text(), "");
}

void a_shared_store_is_given_to_root_or_to_the_owner_of_stores(void **)
{
    require_root();
    const path store = make_store();
    char want[2000];

    std::snprintf(want, sizeof want, "chown -R root %s && chmod -R go-w %s", store.text, store.text);
    assert_string_equal(store::repair_command(store.text).text(), want);
    std::snprintf(want, sizeof want, "chown -R root %s && chmod -R go-w %s", folder.text, folder.text);
    assert_string_equal(store::repair_command(folder.text).text(), want);

    assert_int_equal(chown((store / "lock.mdb").text, root, 4242), 0);
    has_owner = true;
    std::snprintf(want, sizeof want, "chown -R pat-sync %s", store.text);
    assert_string_equal(store::repair_command(store.text).text(), want);
    has_owner = false;
    std::snprintf(want, sizeof want, "useradd --system pat-sync && chown -R pat-sync %s", store.text);
    assert_string_equal(store::repair_command(store.text).text(), want);
}

}  // namespace

int main()
{
    const CMUnitTest tests[] = {
        store_test(a_way_is_safe_if_only_root_and_the_user_can_change_it),
        store_test(a_way_may_be_written_in_any_manner),
        store_test(a_link_on_the_way_is_followed_if_nobody_else_can_change_it),
        store_test(a_way_has_a_length),
        store_test(a_link_in_proc_does_not_tell_its_way),
        store_test(root_opens_a_store_that_nobody_else_can_touch),
        store_test(of_other_users_nothing_is_asked),
        store_test(the_reason_of_a_refusal_is_the_first_folder_or_file_that_is_closed),
        cmocka_unit_test(a_path_is_quoted_where_a_shell_would_not_take_it_as_it_is),
        cmocka_unit_test(a_command_that_does_not_fit_is_left_out),
        store_test(a_shared_store_is_given_to_root_or_to_the_owner_of_stores),
    };
    return cmocka_run_group_tests_name("store ownership", tests, nullptr, nullptr);
}
