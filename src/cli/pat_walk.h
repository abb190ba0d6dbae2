#pragma once

#include "core/pat_record.h"
#include "writer/pat_snapshot.h"

#include "cli/pat_command.h"
#include "cli/pat_command_line.h"
#include "cli/pat_secret.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

/// Finding token records.
namespace pat::cli {

/// Returns false to end a walk.
using visitor = std::function<bool(const token_digest &digest, const token_record &found)>;

using early_visitor = std::function<void(const token_digest &digest, const early_revocation &found)>;

/// Visits the token records of a snapshot in key order, after its early revocations if `visit_early` is given. Damaged
/// records are left out and named on standard error; returns their number.
std::uint64_t walk(const command_context &context, store::snapshot &snapshot, const visitor &visit,
                   const early_visitor &visit_early = {});

/// Says on standard error that a record was replaced which could not be read.
void warn_of_repair(const token_digest &digest);

/// Says on standard error that records could not be read, one of which may be the one that was named.
void warn_of_damaged(std::uint64_t count);

/// How a command line names tokens: exactly one of these.
struct selection_options {
    std::string id;
    std::string subject;
    std::string digest_text;
    bool token_on_stdin = false;
};

enum class selection_scope : unsigned char { one_token, tokens_of_subject };

/// Declares them for a command, which requires exactly one; `--subject` is for commands on all tokens of a subject.
void add_selection(command_syntax &command, selection_options &options, selection_scope scope);

/// The tokens that were named. A token on standard input has been read, and made a digest, when this is constructed.
class selection {
public:
    selection(const command_context &context, const selection_options &options);

    [[nodiscard]] bool is_by_id() const noexcept { return !id_.empty(); }

    /// The one digest that was named, if it was named by a digest or a token.
    [[nodiscard]] const std::optional<token_digest> &exact() const noexcept { return exact_; }

    /// The prefix of the token on standard input; empty if none was read, or one of another form than we issue.
    [[nodiscard]] const std::string &prefix() const noexcept { return prefix_; }

    /// Whether a record has the id or the subject that was named.
    [[nodiscard]] bool matches(const token_record &candidate) const noexcept;

    /// False for a token's digest that a store with this meta record can't hold.
    [[nodiscard]] bool fits(const meta_record &meta) const noexcept
    {
        return !hasher_ || meta.made_with(hasher_->get());
    }

private:
    std::string id_;
    std::string subject_;
    std::string prefix_;
    std::optional<token_digest> exact_;
    std::optional<pepper_hasher> hasher_;
};

/// The error that no token is the named one. It tells who gave a token instead of an id how a token is named.
[[nodiscard]] std::string not_in_store(const selection &named);

}  // namespace pat::cli
