#include "writer/pat_snapshot.h"
#include "writer/pat_writer.h"

#include "cli/pat_command.h"
#include "cli/pat_output.h"
#include "cli/pat_time.h"
#include "cli/pat_walk.h"

#include <memory>
#include <vector>

#include <CLI/CLI.hpp>

namespace pat::cli {

namespace {

constexpr const char *examples = R"(Examples:
  patctl gc --dry-run
  patctl gc --older-than 30d)";

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

}  // namespace

void add_gc(CLI::App &app, context &with)
{
    const auto options = std::make_shared<gc_options>();
    CLI::App *command = app.add_subcommand("gc", "Remove tokens that expired or were revoked long ago");
    command->footer(examples);
    command->add_option("--older-than", options->older_than, "how long ago")->type_name("TIME")->capture_default_str();
    command->add_flag("--dry-run", options->dry_run, "count them only");
    command->callback([&with, options] { with.run = [&with, options] { return collect_garbage(with, *options); }; });
}

}  // namespace pat::cli
