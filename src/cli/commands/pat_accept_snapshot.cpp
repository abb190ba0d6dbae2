#include "writer/pat_writer.h"

#include "cli/pat_command.h"
#include "cli/pat_command_line.h"
#include "cli/pat_json.h"
#include "cli/pat_output.h"

#include <algorithm>
#include <string>

namespace pat::cli {

namespace {

constexpr const char *examples = R"(Examples:
  patctl stats
  patctl accept-snapshot)";

/// Accepts the snapshot that apply holds back, or the first one of a store that has no source yet. It counts once: the
/// end of a snapshot removes it.
exit_status accept_snapshot(const command_context &context)
{
    store::writer writer;
    context.open(writer);

    store::held_snapshot held;
    std::string epoch;
    bool found = false;
    require(context.folder(), writer.update([&](store::transaction &transaction) -> store::fault {
        if (const store::fault problem = transaction.get(held, found)) {
            return problem;
        }
        if (!found && !store::is_followed(transaction.info()) && transaction.info().tokens > 0) {
            found = true;
            held.tokens = transaction.info().tokens;
            held.is_first = true;
        }
        if (!found) {
            return {};
        }
        epoch = held.epoch;
        held.epoch = epoch;
        held.held_at = context.now;
        held.is_accepted = true;
        return transaction.hold(held);
    }));

    if (!found) {
        error("no snapshot is held back: there is nothing to accept");
        return exit_status::no;
    }
    if (context.json) {
        write_out(json_object{}
                      .truth("first", held.is_first)
                      .number("removed", held.removed)
                      .number("tokens", held.tokens)
                      .line());
    }
    notice(held.is_first
               ? fmt::format("accepted: the next snapshot of a source takes over the store, and keeps of its {} "
                             "tokens those that the source has",
                             held.tokens)
               : fmt::format("accepted: the snapshot of {} tokens may remove {} of {}", held.received, held.removed,
                             held.tokens));
    return exit_status::yes;
}

}  // namespace

void add_accept_snapshot(command_line &line, command_context &context)
{
    line.add_command("accept-snapshot", "Accept the snapshot that is held back, once", examples,
                     [&context] { return accept_snapshot(context); });
}

}  // namespace pat::cli
