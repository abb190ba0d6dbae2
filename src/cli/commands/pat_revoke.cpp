#include "writer/pat_writer.h"

#include "cli/pat_command.h"
#include "cli/pat_command_line.h"
#include "cli/pat_json.h"
#include "cli/pat_output.h"
#include "cli/pat_walk.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace pat::cli {

namespace {

constexpr const char *revoke_examples = R"(Examples:
  patctl revoke pat_7Kq2ZC0mS3wB1xYt
  patctl revoke --subject user:42
  patctl revoke --token-stdin < leaked-token)";

constexpr const char *restore_examples = R"(Examples:
  patctl restore-access pat_7Kq2ZC0mS3wB1xYt
  patctl restore-access --subject user:42)";

struct tally {
    std::uint64_t matched = 0;
    std::uint64_t changed = 0;
    std::uint64_t revoked_by_source = 0;
    std::uint64_t damaged = 0;
    bool is_early = false;    ///< the token that was named has no readable record
    bool is_damaged = false;  ///< as that is damaged
};

/// Sets the local revocation of tokens, to a time or to 0, and counts what it did.
class local_revocation {
public:
    local_revocation(const selection &named, std::int64_t time) : named_{named}, time_{time} {}

    store::fault apply(store::transaction &transaction)
    {
        if (!named_.fits(transaction.info())) {
            return {store::fault_kind::wrong_pepper};
        }

        std::vector<token_digest> found;
        if (named_.exact()) {
            found.push_back(*named_.exact());
        } else if (const store::fault problem = find(transaction, found)) {
            return problem;
        }

        for (const token_digest &digest : found) {
            if (const store::fault problem = set(transaction, digest)) {
                return problem;
            }
        }
        return {};
    }

    [[nodiscard]] const tally &result() const noexcept { return result_; }

private:
    store::fault find(store::transaction &transaction, std::vector<token_digest> &found)
    {
        return transaction.for_each<token_record>(
            [&](const token_digest &digest, const token_record &candidate, store::fault problem) {
                if (problem) {
                    result_.damaged++;
                } else if (named_.matches(candidate)) {
                    found.push_back(digest);
                }
                return true;
            });
    }

    store::fault set(store::transaction &transaction, const token_digest &digest)
    {
        token_record token;
        bool found = false;
        const store::fault problem = transaction.get(digest, token, found);
        if (problem.kind == store::fault_kind::bad_record || (!problem && !found)) {
            result_.is_damaged = found;
            return set_early(transaction, digest);
        }
        if (problem) {
            return problem;
        }

        result_.matched++;
        result_.revoked_by_source += token.revoked_at != 0 || token.denied || !is_sendable(token.subject) ? 1 : 0;
        if ((token.local_revoked_at != 0) == (time_ != 0)) {
            return {};
        }

        result_.changed++;
        token.local_revoked_at = time_;
        return transaction.put(digest, token);
    }

    store::fault set_early(store::transaction &transaction, const token_digest &digest)
    {
        early_revocation early;
        bool found = false;
        const store::fault problem = transaction.get(digest, early, found);
        if (problem && problem.kind != store::fault_kind::bad_record) {
            return problem;
        }

        result_.is_early = true;
        result_.matched = found ? 1 : 0;
        if (!problem && (early.local_revoked_at != 0) == (time_ != 0)) {
            return {};
        }
        result_.changed = 1;
        early.local_revoked_at = time_;
        return transaction.revoke_early(digest, early);
    }

    const selection &named_;
    std::int64_t time_;
    tally result_;
};

/// Finds the tokens that were named and sets their local revocation, all in one write transaction: a token that another
/// process issues is either found or issued afterwards. Returns after the durable commit.
tally set_local_revocation(const command_context &context, const selection &named, std::int64_t time)
{
    store::writer writer;
    context.open(writer);

    local_revocation work{named, time};
    require(context.folder(), writer.update([&](store::transaction &transaction) { return work.apply(transaction); }));

    const tally &result = work.result();
    warn_of_damaged(result.damaged);
    return result;
}

std::string count_of(std::uint64_t number)
{
    return fmt::format("{} {}", number, number == 1 ? "token" : "tokens");
}

exit_status not_found(const selection &named)
{
    error(not_in_store(named));
    return exit_status::no;
}

exit_status revoke(const command_context &context, const selection_options &options)
{
    const selection named{context, options};
    const tally done = set_local_revocation(context, named, context.now);
    if (done.is_early) {
        const char *cause =
            done.is_damaged ? "the record of the token is damaged" : "the store does not hold the token";
        write_out(context.json
                      ? json_object{}
                            .number("matched", 0)
                            .number("revoked", 0)
                            .number("already_revoked", 0)
                            .number("remembered", 1)
                            .line()
                      : fmt::format("{}, and nginx refuses it: the revocation is remembered, and counts when the token "
                                    "arrives\n",
                                    cause));
        return exit_status::yes;
    }

    const std::uint64_t before = done.matched - done.changed;
    if (context.json) {
        write_out(json_object{}
                      .number("matched", done.matched)
                      .number("revoked", done.changed)
                      .number("already_revoked", before)
                      .number("remembered", 0)
                      .line());
    } else if (done.matched > 0) {
        write_out(fmt::format("revoked {}{}\n", count_of(done.changed),
                              before > 0 ? fmt::format(", {} had been revoked before", before) : ""));
    }
    return done.matched > 0 ? exit_status::yes : not_found(named);
}

exit_status restore(const command_context &context, const selection_options &options)
{
    const selection named{context, options};
    const tally done = set_local_revocation(context, named, 0);
    const std::uint64_t before = done.matched - done.changed;

    if (context.json) {
        write_out(json_object{}
                      .number("matched", done.matched)
                      .number("restored", done.changed)
                      .number("not_revoked_here", before)
                      .number("revoked_by_source", done.revoked_by_source)
                      .line());
    } else if (done.matched > 0) {
        write_out(fmt::format("restored access of {}{}\n", count_of(done.changed),
                              before > 0 ? fmt::format(", {} had not been revoked on this host", before) : ""));
    }

    if (done.matched == 0) {
        return not_found(named);
    }
    if (done.is_early) {
        notice("the store does not hold the token: when it arrives, it is not revoked on this host");
        return exit_status::yes;
    }
    if (done.revoked_by_source > 0) {
        error(fmt::format("{} stay revoked by the source, and only the source can undo that: see \"patctl show\"",
                          count_of(done.revoked_by_source)));
        return exit_status::no;
    }
    return exit_status::yes;
}

using revocation_body = exit_status (*)(const command_context &context, const selection_options &options);

void add(command_line &line, command_context &context, const char *name, const char *description, const char *examples,
         revocation_body body)
{
    const auto options = std::make_shared<selection_options>();

    command_syntax command =
        line.add_command(name, description, examples, [&context, options, body] { return body(context, *options); });

    add_selection(command, *options, selection_scope::tokens_of_subject);
}

}  // namespace

void add_revoke(command_line &line, command_context &context)
{
    add(line, context, "revoke", "Revoke tokens on this host, from the next request on", revoke_examples, revoke);
}

void add_restore_access(command_line &line, command_context &context)
{
    add(line, context, "restore-access", "Undo \"revoke\"", restore_examples, restore);
}

}  // namespace pat::cli
