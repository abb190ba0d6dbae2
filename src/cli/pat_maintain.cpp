#include "store/pat_files.h"
#include "store/pat_ownership.h"
#include "writer/pat_snapshot.h"
#include "writer/pat_writer.h"

#include "cli/pat_command.h"
#include "cli/pat_json.h"
#include "cli/pat_output.h"
#include "cli/pat_owner.h"
#include "cli/pat_secret.h"
#include "cli/pat_time.h"
#include "cli/pat_walk.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <system_error>
#include <vector>

#include <CLI/CLI.hpp>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pat::cli {

namespace {

exit_status init(const context &with, const std::string &owner_name, const std::string &group_name)
{
    const std::string &folder = with.folder();
    new_owner owner = read_owner(owner_name, group_name, folder);
    const pepper_hasher hash{with.pepper_file};

    if (owner.user != geteuid()) {
        make_folder_for(owner, folder);
        owner.group.reset();  // which the folder has
    } else {
        if (geteuid() == 0 && check_place(folder).kind == store::fault_kind::exposed) {
            require(folder, {store::fault_kind::exposed});
        }
        make_parents(folder);
    }
    const store::fault problem = store::writer::create(folder.c_str(), owner.group, hash.get(), with.map_size);
    if (problem.kind == store::fault_kind::absent || problem.kind == store::fault_kind::denied) {
        throw failure{exit_status::fault,
                      "store \"" + folder + "\" can't be made: " + store::detail(problem) + explain(folder)};
    }
    require(folder, problem);

    complain("made store \"" + folder + '"' + (with.pepper_file.empty() ? "" : ", whose digests need the pepper"));
    return exit_status::yes;
}

/// What verify() has found so far.
class findings {
public:
    explicit findings(bool json) noexcept : json_{json} {}

    void add(std::string_view digest_text, std::string_view cause)
    {
        count_++;
        if (json_) {
            to_.text() += R"({"digest":)";
            if (digest_text.empty()) {
                to_.text() += "null";
            } else {
                write_string(digest_text, to_.text());
            }
            to_.text() += R"(,"cause":)";
            write_string(cause, to_.text());
            to_.text() += '}';
        } else {
            to_.text() += digest_text.empty() ? "" : "digest ";
            to_.text() += digest_text;
            to_.text() += digest_text.empty() ? "" : ": ";
            to_.text() += cause;
        }
        to_.end_line();
    }

    exit_status finish(std::uint64_t records)
    {
        if (json_) {
            to_.text() += "{\"records\":" + std::to_string(records) + ",\"findings\":" + std::to_string(count_) + '}';
        } else {
            to_.text() +=
                std::to_string(records) + " records, "
                + (count_ == 0 ? "no damage" : std::to_string(count_) + (count_ == 1 ? " finding" : " findings"));
        }
        to_.end_line();
        to_.finish();
        return count_ == 0 ? exit_status::yes : exit_status::no;
    }

private:
    output to_;
    std::uint64_t count_ = 0;
    bool json_;
};

/// Faults that are what verify() looks for, and not in its way.
bool is_damage(store::fault problem)
{
    return problem.kind == store::fault_kind::damaged || problem.kind == store::fault_kind::truncated
           || problem.kind == store::fault_kind::bad_record;
}

/// Compares what was counted with what the meta record says.
void compare(const char *what, std::uint64_t counted, std::uint64_t recorded, findings &to)
{
    if (counted != recorded) {
        to.add({}, "there are " + std::to_string(counted) + ' ' + what + ", but the meta record says "
                       + std::to_string(recorded));
    }
}

exit_status verify(const context &with)
{
    findings found{with.json};
    store::snapshot from;

    if (const store::fault problem = from.open(with.enter().c_str(), with.map_size)) {
        if (!is_damage(problem)) {
            require(with.folder(), problem);
        }
        found.add({}, describe(with.folder(), problem));
        return found.finish(0);
    }

    store::statistics file;
    require(with.folder(), from.stat(file));
    progress bar{"verifying", file.entries};

    std::uint64_t records = 0;
    std::uint64_t revoked = 0;
    std::uint64_t damaged = 0;
    std::vector<std::byte> last_key;

    for (;;) {
        std::span<const std::byte> key;
        std::span<const std::byte> value;
        bool done = false;

        const store::fault problem = from.next(key, value, done);
        if (problem && problem.kind != store::fault_kind::bad_record) {
            found.add({}, "the walk ended after " + std::to_string(records) + " records: " + store::message(problem));
            return found.finish(records);
        }
        if (done) {
            break;
        }

        if (!last_key.empty() && !std::ranges::lexicographical_compare(last_key, key)) {
            // Pages that lead to each other in a circle would never end.
            found.add({}, "the keys are out of order after " + std::to_string(records) + " records");
            return found.finish(records);
        }
        last_key.assign(key.begin(), key.end());

        if (const auto buried = digest_of_tombstone_key(key)) {
            tombstone grave;
            if (const codec_error error = problem ? codec_error::too_long : decode(key, value, grave);
                error != codec_error::none) {
                found.add(to_hex(*buried), "its tombstone: " + std::string{message(error)});
            }
            continue;
        }

        if (const auto early = digest_of_early_key(key)) {
            early_revocation held;
            if (const codec_error error = problem ? codec_error::too_long : decode(key, value, held);
                error != codec_error::none) {
                found.add(to_hex(*early), "its early revocation: " + std::string{message(error)});
            }
            continue;
        }

        const auto of = digest_of_key(key);
        if (!of) {
            store::held_snapshot held;
            if (std::ranges::equal(key, store::held_key())) {
                if (const codec_error error = store::decode(value, held); error != codec_error::none) {
                    found.add({}, "the snapshot that is held back: " + std::string{message(error)});
                }
            } else if (!std::ranges::equal(key, meta_key())) {
                found.add({}, "a key that is none of ours: " + to_hex(key));
            }
            continue;
        }

        bar.reach(++records);
        record token;
        codec_error error = problem ? static_cast<codec_error>(problem.code) : decode(key, value, token);
        if (error == codec_error::none) {
            error = validate(token);
        }
        if (error != codec_error::none) {
            damaged++;
            found.add(to_hex(*of), message(error));
        } else {
            revoked += token.is_revoked() ? 1 : 0;
        }
    }

    compare("records", records, from.info().tokens, found);
    if (damaged == 0) {
        compare("revoked records", revoked, from.info().revoked, found);
    }
    return found.finish(records);
}

/// In a child that is the store's owner: copies the store into the folder `into`, under this name.
[[noreturn]] void copy_as_owner(const context &with, const store::descriptor &into, const char *name, uid_t owner,
                                int answer)
{
    constexpr mode_t writable_by_others = 022;
    try {
        const std::string from = std::filesystem::absolute(with.folder()).string();
        become(owner);
        umask(writable_by_others);
        const store::fault problem = fchdir(into.get()) == 0 ? store::writer::backup(from.c_str(), name, with.map_size)
                                                             : store::from_errno(errno);
        if (write(answer, &problem, sizeof problem) == sizeof problem) {
            std::_Exit(EXIT_SUCCESS);
        }
    } catch (const std::exception &problem) {
        complain(problem.what());
    }
    std::_Exit(EXIT_FAILURE);
}

/// As root, of a store of another user's: the place is the caller's, the copy is the owner's work, and belongs to that
/// user, so that it can be put in place of the store.
store::fault backup_for_owner(const context &with, const std::string &to, const struct stat &original)
{
    constexpr const char *name = "copy";
    constexpr mode_t only_root = 0700;

    require(with.folder(), store::check_way(with.folder().c_str(), original.st_uid));
    struct stat info;
    if (lstat(to.c_str(), &info) == 0) {
        return {store::fault_kind::exists, EEXIST};
    }
    const std::string partial = to + ".partial";
    if (mkdir(partial.c_str(), only_root) != 0) {
        return store::from_errno(errno);
    }

    // From here on by descriptor: the owner is to have no other way in.
    const store::descriptor folder{open(partial.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)};
    int ends[2];
    if (folder.get() < 0 || fchown(folder.get(), original.st_uid, original.st_gid) != 0
        || fchmod(folder.get(), store::folder_mode) != 0 || pipe2(ends, O_CLOEXEC) != 0) {
        return store::from_errno(errno);
    }
    const store::descriptor answer{ends[0]};
    store::descriptor question{ends[1]};

    const pid_t child = fork();
    if (child == 0) {
        copy_as_owner(with, folder, name, original.st_uid, question.get());
    }
    question = {};

    store::fault problem;
    if (child < 0 || read(answer.get(), &problem, sizeof problem) != sizeof problem) {
        problem = {store::fault_kind::damaged};
    }
    while (child > 0 && waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
    }

    // The owner no longer reaches what is moved now.
    if (!problem
        && (fchown(folder.get(), 0, 0) != 0 || fchmod(folder.get(), only_root) != 0
            || fstatat(folder.get(), name, &info, AT_SYMLINK_NOFOLLOW) != 0)) {
        problem = store::from_errno(errno);
    }
    if (!problem && !S_ISDIR(info.st_mode)) {
        problem = {store::fault_kind::replaced};
    }
    if (!problem && renameat(folder.get(), name, AT_FDCWD, to.c_str()) != 0) {
        problem = store::from_errno(errno);
    }
    rmdir(partial.c_str());
    return problem;
}

exit_status backup(const context &with, const std::string &to)
{
    if (geteuid() == 0 && check_place(to).kind == store::fault_kind::exposed) {
        throw failure{exit_status::fault, '"' + to
                                              + "\" can't be made: root writes to no folder on whose path others can "
                                              + "put another: name one of root's"};
    }

    struct stat info;
    const bool is_for_owner = geteuid() == 0 && stat(with.folder().c_str(), &info) == 0 && info.st_uid != 0;
    const store::fault problem = is_for_owner ? backup_for_owner(with, to, info)
                                              : store::writer::backup(with.folder().c_str(), to.c_str(), with.map_size);
    if (problem.kind == store::fault_kind::exists) {
        const bool is_complete = lstat(to.c_str(), &info) == 0;
        throw failure{exit_status::fault,
                      is_complete ? '"' + to + "\" exists already: name a new folder"
                                  : '"' + to + ".partial\" is left of a backup that was interrupted: remove it"};
    }
    if (problem.kind == store::fault_kind::absent && stat(with.folder().c_str(), &info) == 0) {
        throw failure{exit_status::fault, '"' + to + "\" can't be made: " + store::detail(problem)};
    }
    require(with.folder(), problem);

    complain("copied store \"" + with.folder() + "\" to \"" + to + '"');
    return exit_status::yes;
}

struct gc_options {
    std::string older_than = "90d";
    bool dry_run = false;
};

/// A token that is revoked on this host stays for as long as its source may send it again.
bool is_garbage(const record &token, bool has_source, std::int64_t cutoff)
{
    const bool expired = token.expires_at != 0 && token.expires_at <= cutoff;
    const bool revoked = token.revoked_at != 0 && token.revoked_at <= cutoff;
    return (expired || revoked) && (token.local_revoked_at == 0 || (expired && !has_source));
}

bool is_garbage(const tombstone &grave, bool, std::int64_t cutoff)
{
    return grave.deleted_at <= cutoff;
}

/// While a snapshot arrives, records and tombstones tell which of its rows are older than changes that were applied.
void require_no_snapshot(const context &with, store_state state)
{
    if (state == store_state::resync) {
        throw failure{exit_status::fault,
                      "store \"" + with.folder()
                          + "\" waits for the end of a snapshot of its source: nothing was removed"};
    }
}

std::uint64_t count_garbage(const context &with, std::int64_t cutoff)
{
    store::snapshot from;
    require(with.folder(), from.open(with.enter().c_str(), with.map_size));
    require_no_snapshot(with, from.info().state);

    std::uint64_t count = 0;
    walk(with, from, [&](const digest &, const record &token) {
        count += is_garbage(token, from.info().has_source(), cutoff) ? 1 : 0;
        return true;
    });
    return count;
}

/// The digests of all the records, or tombstones, that are garbage.
template <typename Entry>
store::fault find_garbage(store::transaction &in, std::int64_t cutoff, std::vector<digest> &found)
{
    for (;;) {
        digest of;
        Entry entry;
        bool done = false;

        const store::fault problem = in.next(of, entry, done);
        if (done) {
            return {};
        }
        if (problem && problem.kind != store::fault_kind::bad_record) {
            return problem;
        }
        if (!problem && is_garbage(entry, in.info().has_source(), cutoff)) {
            found.push_back(of);
        }
    }
}

std::uint64_t remove_garbage(const context &with, std::int64_t cutoff)
{
    store::writer writer;
    require(with.folder(), writer.open(with.enter().c_str(), with.map_size));

    store_state state = store_state::empty;
    const auto may_remove = [&](const store::transaction &change) {
        state = change.info().state;
        return state != store_state::resync;
    };

    std::vector<digest> tombstones;
    require(with.folder(), writer.update([&](store::transaction &change) -> store::fault {
        if (!may_remove(change)) {
            return {};
        }
        if (const store::fault problem = find_garbage<tombstone>(change, cutoff, tombstones)) {
            return problem;
        }
        for (const digest &of : tombstones) {
            if (const store::fault problem = change.unbury(of)) {
                return problem;
            }
        }
        return {};
    }));

    std::vector<digest> tokens;
    require(with.folder(), writer.update([&](store::transaction &change) -> store::fault {
        if (!may_remove(change)) {
            return {};
        }
        if (const store::fault problem = find_garbage<record>(change, cutoff, tokens)) {
            return problem;
        }
        for (const digest &of : tokens) {
            record token;
            bool found = false;
            if (const store::fault problem = change.get(of, token, found)) {
                return problem;
            }
            const store::fault problem = token.sequence == 0
                                             ? change.erase(of)
                                             : change.bury(of, {.sequence = token.sequence, .deleted_at = with.now});
            if (problem) {
                return problem;
            }
        }
        return {};
    }));
    require_no_snapshot(with, state);
    return tokens.size();
}

exit_status collect_garbage(const context &with, const gc_options &options)
{
    const std::int64_t age = with_name("--older-than", [&] { return parse_duration(options.older_than); });
    const std::int64_t cutoff = with.now - age;

    const std::uint64_t count = options.dry_run ? count_garbage(with, cutoff) : remove_garbage(with, cutoff);
    const char *verb = options.dry_run ? "would remove " : "removed ";

    write_out(with.json ? "{\"removed\":" + std::to_string(options.dry_run ? 0 : count)
                              + ",\"found\":" + std::to_string(count) + "}\n"
                        : verb + std::to_string(count) + (count == 1 ? " token\n" : " tokens\n"));
    return exit_status::yes;
}

constexpr const char *init_examples = R"(Examples:
  patctl init --store /var/lib/pat/api --group www-data
  openssl rand -hex 32 > /etc/nginx/pepper && chmod 600 /etc/nginx/pepper
  patctl init --store /var/lib/pat/api --pepper-file /etc/nginx/pepper --group www-data)";

constexpr const char *verify_examples = R"(Examples:
  patctl verify
  patctl verify --json | jq -r 'select(.digest) | .digest')";

constexpr const char *backup_examples = R"(Examples:
  patctl backup /var/backups/pat-$(date +%F))";

constexpr const char *gc_examples = R"(Examples:
  patctl gc --dry-run
  patctl gc --older-than 30d)";

}  // namespace

void add_maintain(CLI::App &app, context &with)
{
    {
        const auto owner = std::make_shared<std::string>();
        const auto group = std::make_shared<std::string>();
        CLI::App *command = app.add_subcommand("init", "Make a store");
        command->footer(init_examples);
        command->add_option("--owner", *owner, "user whose store it is, and as whom root works on it")
            ->type_name("USER");
        command->add_option("--group", *group, "group that nginx's workers run as")->type_name("G");
        command->callback(
            [&with, owner, group] { with.run = [&with, owner, group] { return init(with, *owner, *group); }; });
    }
    {
        CLI::App *command = app.add_subcommand("verify", "Check every record, and the counts");
        command->footer(verify_examples);
        command->callback([&with] { with.run = [&with] { return verify(with); }; });
    }
    {
        const auto to = std::make_shared<std::string>();
        CLI::App *command = app.add_subcommand("backup", "Copy the store, while it is in use, to a new folder");
        command->footer(backup_examples);
        command->add_option("DIR", *to, "the new folder")->required();
        command->callback([&with, to] { with.run = [&with, to] { return backup(with, *to); }; });
    }
    {
        const auto options = std::make_shared<gc_options>();
        CLI::App *command = app.add_subcommand("gc", "Remove tokens that expired or were revoked long ago");
        command->footer(gc_examples);
        command->add_option("--older-than", options->older_than, "how long ago")
            ->type_name("TIME")
            ->capture_default_str();
        command->add_flag("--dry-run", options->dry_run, "count them only");
        command->callback(
            [&with, options] { with.run = [&with, options] { return collect_garbage(with, *options); }; });
    }
}

}  // namespace pat::cli
