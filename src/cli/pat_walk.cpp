#include "cli/pat_walk.h"

#include "core/pat_token.h"

#include "cli/pat_issuing.h"
#include "cli/pat_json.h"

#include <vector>

namespace pat::cli {

std::uint64_t walk(const command_context &context, store::snapshot &snapshot, const visitor &visit,
                   const early_visitor &visit_early)
{
    std::uint64_t damaged = 0;

    for (;;) {
        std::span<const std::byte> key;
        std::span<const std::byte> value;
        bool done = false;

        const store::fault problem = snapshot.next(key, value, done);
        if (problem && problem.kind != store::fault_kind::bad_record) {
            require(context.folder(), problem);
        }
        if (done) {
            return damaged;
        }

        if (const auto early = digest_of_early_key(key); early && visit_early) {
            early_revocation found;
            if (problem || decode(key, value, found) != codec_error::none) {
                error(fmt::format("store \"{}\": the early revocation of digest {} is damaged, but still counts",
                                  context.folder(), to_hex(*early)));
                found = {.local_revoked_at = 1};
            }
            visit_early(*early, found);
            continue;
        }

        const auto digest = digest_of_key(key);
        if (!digest) {
            continue;
        }

        token_record found;
        if (problem || decode(key, value, found) != codec_error::none) {
            error(fmt::format("store \"{}\": the record of digest {} is damaged and left out (nginx refuses its token)",
                              context.folder(), to_hex(*digest)));
            damaged++;
        } else if (!visit(*digest, found)) {
            return damaged;
        }
    }
}

void warn_of_repair(const token_digest &digest)
{
    warning(fmt::format(
        "the record of digest {} was damaged and has been replaced; if it was revoked on this host, revoke it again",
        to_hex(digest)));
}

void warn_of_damaged(std::uint64_t count)
{
    if (count > 0) {
        warning(fmt::format("{} damaged records could not be read (nginx refuses their tokens): see \"patctl verify\"",
                            count));
    }
}

void add_selection(command_syntax &command, selection_options &options, selection_scope scope)
{
    std::vector<command_option> alternatives;
    alternatives.push_back(command.add_argument("ID", options.id, "the token with this id").refuse_empty());
    if (scope == selection_scope::tokens_of_subject) {
        alternatives.push_back(command.add_option("--subject", options.subject, "all tokens of this subject")
                                   .value_name("S")
                                   .refuse_empty());
    }
    alternatives.push_back(command.add_option("--digest", options.digest_text, "the token with this digest")
                               .value_name("HEX")
                               .refuse_empty());
    alternatives.push_back(command.add_flag("--token-stdin", options.token_on_stdin, "the token on standard input"));
    command.require_exactly_one("Exactly one of ID and these", alternatives);
}

selection::selection(const command_context &context, const selection_options &options)
    : id_{options.id},
      subject_{options.subject}
{
    if (!options.digest_text.empty()) {
        exact_ = with_name("--digest", [&] { return parse_digest(options.digest_text); });
    }
    if (options.token_on_stdin) {
        presented_token token;
        read_token(token);
        if (!is_token(token.text())) {
            throw bad_value{"standard input: not 16 to 512 characters of a b64token (RFC 6750)"};
        }
        prefix_ = issued_prefix(token.text());
        hasher_.emplace(context.pepper_file);
        exact_ = hasher_->get()(token.text());
    }
    if (!exact_ && id_.empty() && subject_.empty()) {
        throw bad_value{"no token was named"};  // or it would match what has an empty subject
    }
}

bool selection::matches(const token_record &candidate) const noexcept
{
    return id_.empty() ? candidate.subject == subject_ : candidate.id == id_;
}

std::string not_in_store(const selection &named)
{
    return named.is_by_id() ? "no such token in the store: none has this id (a token itself is read with --token-stdin)"
                            : "no such token in the store";
}

}  // namespace pat::cli
