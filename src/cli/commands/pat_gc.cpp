#include "writer/pat_snapshot.h"
#include "writer/pat_writer.h"

#include "cli/pat_command.h"
#include "cli/pat_command_line.h"
#include "cli/pat_json.h"
#include "cli/pat_output.h"
#include "cli/pat_time.h"
#include "cli/pat_walk.h"

#include <memory>
#include <vector>

namespace pat::cli {

namespace {

constexpr const char *examples = R"(Examples:
  patctl gc --dry-run
  patctl gc --older-than 30d)";

struct gc_options {
    std::string older_than = "90d";
    bool dry_run = false;
};

/// A token that is revoked on this host stays as long as its source may send it again.
bool is_garbage(const token_record &token, bool has_source, std::int64_t cutoff)
{
    const bool expired = token.expires_at != 0 && token.expires_at <= cutoff;
    const bool revoked = token.revoked_at != 0 && token.revoked_at <= cutoff;
    return (expired || revoked) && (token.local_revoked_at == 0 || (expired && !has_source));
}

bool is_garbage(const tombstone &grave, bool, std::int64_t cutoff)
{
    return grave.deleted_at <= cutoff;
}

/// While a snapshot arrives, its rows are compared with records and tombstones, as changes may be newer.
void require_no_snapshot(const command_context &context, store_state state)
{
    if (state == store_state::resync) {
        throw failure{exit_status::fault,
                      fmt::format("store \"{}\" waits for the end of a snapshot of its source: nothing was removed",
                                  context.folder())};
    }
}

std::uint64_t count_garbage(const command_context &context, std::int64_t cutoff)
{
    store::snapshot snapshot;
    require(context.folder(), snapshot.open(context.enter().c_str(), context.map_size));
    require_no_snapshot(context, snapshot.info().state);

    std::uint64_t count = 0;
    walk(context, snapshot, [&](const token_digest &, const token_record &token) {
        count += is_garbage(token, snapshot.info().has_source(), cutoff) ? 1 : 0;
        return true;
    });
    return count;
}

/// The digests of all the records, or tombstones, that are garbage.
template <typename Entry>
store::fault find_garbage(store::transaction &transaction, std::int64_t cutoff, std::vector<token_digest> &found)
{
    return transaction.for_each<Entry>([&](const token_digest &digest, const Entry &entry, store::fault problem) {
        if (!problem && is_garbage(entry, transaction.info().has_source(), cutoff)) {
            found.push_back(digest);
        }
        return true;
    });
}

std::uint64_t remove_garbage(const command_context &context, std::int64_t cutoff)
{
    store::writer writer;
    context.open(writer);

    store_state state = store_state::empty;
    const auto may_remove = [&](const store::transaction &transaction) {
        state = transaction.info().state;
        return state != store_state::resync;
    };

    std::vector<token_digest> tombstones;
    require(context.folder(), writer.update([&](store::transaction &transaction) -> store::fault {
        if (!may_remove(transaction)) {
            return {};
        }
        if (const store::fault problem = find_garbage<tombstone>(transaction, cutoff, tombstones)) {
            return problem;
        }
        for (const token_digest &digest : tombstones) {
            if (const store::fault problem = transaction.unbury(digest)) {
                return problem;
            }
        }
        return {};
    }));

    std::vector<token_digest> tokens;
    require(context.folder(), writer.update([&](store::transaction &transaction) -> store::fault {
        if (!may_remove(transaction)) {
            return {};
        }
        if (const store::fault problem = find_garbage<token_record>(transaction, cutoff, tokens)) {
            return problem;
        }
        for (const token_digest &digest : tokens) {
            token_record token;
            bool found = false;
            if (const store::fault problem = transaction.get(digest, token, found)) {
                return problem;
            }
            const store::fault problem =
                token.sequence == 0 ? transaction.erase(digest)
                                    : transaction.bury(digest, {.sequence = token.sequence, .deleted_at = context.now});
            if (problem) {
                return problem;
            }
        }
        return {};
    }));
    require_no_snapshot(context, state);
    return tokens.size();
}

exit_status collect_garbage(const command_context &context, const gc_options &options)
{
    const std::int64_t age = with_name("--older-than", [&] { return parse_duration(options.older_than); });
    const std::int64_t cutoff = context.now - age;

    const std::uint64_t count = options.dry_run ? count_garbage(context, cutoff) : remove_garbage(context, cutoff);
    const char *verb = options.dry_run ? "would remove" : "removed";

    write_out(context.json ? json_object{}.number("removed", options.dry_run ? 0 : count).number("found", count).line()
                           : fmt::format("{} {} {}\n", verb, count, count == 1 ? "token" : "tokens"));
    return exit_status::yes;
}

}  // namespace

void add_gc(command_line &line, command_context &context)
{
    const auto options = std::make_shared<gc_options>();
    command_syntax command = line.add_command("gc", "Remove tokens that expired or were revoked long ago", examples,
                                              [&context, options] { return collect_garbage(context, *options); });
    command.add_option("--older-than", options->older_than, "since when at least").value_name("TIME").show_default();
    command.add_flag("--dry-run", options->dry_run, "only count them");
}

}  // namespace pat::cli
