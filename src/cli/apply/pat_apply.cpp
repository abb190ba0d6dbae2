#include "cli/apply/pat_applier.h"
#include "cli/pat_command_line.h"
#include "cli/pat_output.h"

#include <cerrno>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

namespace pat::cli {

namespace {

constexpr int first_wait_ms = 100;
constexpr int longest_wait_ms = 5000;

/// How often to check whether a held snapshot was accepted.
constexpr int held_wait_ms = 1000;

/// The largest size of a pipe that an unprivileged process may choose (pipe(7)).
constexpr int pipe_bytes = 1 << 20;

constexpr const char *apply_examples = R"(Examples:
  patctl apply < changes.jsonl
  pat-sync --source postgresql://… runs it, and so may any program that writes
  {"op":"put","seq":7,"digest":"9f86d0…","id":"42","subject":"user:42"} and {"op":"commit","cursor":"7"})";

}  // namespace

applier::applier(const command_context &context)
    : context_{context},
      lock_{context.enter(),
            fmt::format("store \"{}\": another \"patctl apply\" is running on it, or \"patctl convert\"",
                        context.folder())},
      lines_{STDIN_FILENO, "standard input"}
{
    // Only pipes have this, and more than the system allows is no harm either.
    static_cast<void>(fcntl(STDIN_FILENO, F_SETPIPE_SZ, pipe_bytes));
    context_.open(writer_);
}

exit_status applier::run()
{
    open();
    while (!has_ended_ || (merging_ && !is_held())) {
        if (is_held()) {
            static_cast<void>(lines_.is_waiting(held_wait_ms));
        }
        read_lines();
        write_batch();
        if (merging_) {
            merge();
        }
        flush();
    }
    return finish();
}

void applier::update(const std::function<store::fault(store::transaction &)> &body)
{
    for (int wait = first_wait_ms;; wait = std::min(2 * wait, longest_wait_ms)) {
        const store::fault problem = writer_.update(body);
        if (problem.kind != store::fault_kind::disk_full) {
            require(context_.folder(), problem);
            return;
        }

        const std::string cause = describe(context_.folder(), problem);
        error(cause);
        answers_ += answer("waiting").text("cause", cause).number("milliseconds", wait).line();
        flush();

        // Without a reader, end: changes that are not durable will be sent again.
        pollfd input{STDIN_FILENO, 0, 0};
        if (poll(&input, has_ended_ ? 0 : 1, wait) > 0) {
            throw failure{exit_status::fault, cause};
        }
    }
}

void applier::keep(const meta_record &info)
{
    state_ = info.state;
    epoch_ = info.epoch;
    last_sequence_ = info.last_sequence;
    snapshot_sequence_ = info.snapshot_sequence;
    open_generations_ = info.open_generations;
}

void applier::open()
{
    update([&](store::transaction &transaction) -> store::fault {
        const meta_record &info = transaction.info();
        const bool has_pepper = info.scheme == digest_scheme::hmac_sha256;
        keep(info);
        cursor_ = info.cursor;

        json_object opened = answer("opened");
        opened.text("state", name(info.state))
            .text("epoch", info.epoch)
            .text("cursor", info.cursor)
            .number("last_sequence", info.last_sequence)
            .number("heartbeat", info.heartbeat)
            .number("tokens", info.tokens)
            .text("scheme", word_for(info.scheme));
        if (has_pepper) {
            opened.text("key_id", to_hex(info.key));
        }
        answers_ = opened.line();
        return {};
    });
    flush();
}

exit_status applier::finish()
{
    if (is_cut_off_) {
        error("the last line of the input is incomplete, and was dropped");
    }
    if (!batch_.changes.empty()) {
        error(fmt::format("{} changes without a commit after them were dropped", batch_.changes.size()));
    }
    if (is_held()) {
        error(held_cause());
    }
    if (arriving_) {
        error("the input ended before the end of the snapshot: the store waits for a complete one");
    }
    return is_cut_off_ || arriving_ || is_held() || !batch_.changes.empty() ? exit_status::no : exit_status::yes;
}

void applier::flush()
{
    write_out(answers_);
    answers_.clear();
}

std::int64_t applier::newer_heartbeat(std::int64_t stored, std::int64_t time)
{
    return stored > now() ? time : std::max(stored, time);
}

void add_apply(command_line &line, command_context &context)
{
    line.add_command("apply", "Apply the changes that a source sends, and acknowledge them", apply_examples,
                     [&context] { return std::make_unique<applier>(context)->run(); });
}

}  // namespace pat::cli
