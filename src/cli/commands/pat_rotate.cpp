#include "writer/pat_writer.h"

#include "cli/pat_command.h"
#include "cli/pat_command_line.h"
#include "cli/pat_description.h"
#include "cli/pat_draft.h"
#include "cli/pat_issuing.h"
#include "cli/pat_json.h"
#include "cli/pat_secret.h"
#include "cli/pat_time.h"
#include "cli/pat_walk.h"

#include <algorithm>
#include <memory>
#include <optional>

namespace pat::cli {

namespace {

constexpr const char *examples = R"(Examples:
  patctl rotate pat_7Kq2ZC0mS3wB1xYt
  patctl rotate pat_7Kq2ZC0mS3wB1xYt --overlap 7d
  patctl rotate --token-stdin --overlap 0s < token)";

struct rotate_options {
    selection_options named;
    std::string overlap = "24h";
    std::string expires_in;
    std::string prefix;  ///< empty: that of the old token if it is known, or the default
};

/// Replaces the named token in two steps, so that a new token that nobody got leaves the old one as it was.
class rotation {
public:
    rotation(const selection &named, std::int64_t now, std::int64_t overlap, std::int64_t lifetime, std::string id)
        : named_{named},
          now_{now},
          overlap_{overlap},
          lifetime_{lifetime}
    {
        draft_.id = std::move(id);
    }

    /// Puts a token like the named one into the store. Throws nothing into the transaction: what it refuses is in
    /// `refusal`, and then nothing is changed.
    store::fault add_new(store::transaction &transaction, const token_hasher &hasher, const token_digest &new_digest)
    {
        if (!named_.fits(transaction.info()) || !transaction.info().made_with(hasher)) {
            return {store::fault_kind::wrong_pepper};
        }
        if (store::is_followed(transaction.info())) {
            refusal = "the store has a source, which has to issue the new token: pat.rotate() does in PostgreSQL";
            return {};
        }
        if (const store::fault problem = find(transaction); problem || !refusal.empty()) {
            return problem;
        }

        token_record old;
        bool found = false;
        if (const store::fault problem = transaction.get(digest_, old, found)) {
            return problem;
        }
        if (!found) {
            refusal = not_in_store(named_);
            return {};
        }

        try {
            draft(old);
            old_id = old.id;
            old_end = std::min(old.expires_at != 0 ? old.expires_at : INT64_MAX, now_ + overlap_);
            return transaction.put(new_digest, draft_.view());
        } catch (const bad_value &bad) {
            refusal = bad.what();
            return {};
        }
    }

    /// Has the named token expire after the overlap. It may have been revoked or removed since add_new().
    store::fault end_old(store::transaction &transaction)
    {
        token_record old;
        bool found = false;
        if (const store::fault problem = transaction.get(digest_, old, found); problem || !found) {
            old_status.reset();
            return problem;
        }
        old.expires_at = std::min(old.expires_at != 0 ? old.expires_at : INT64_MAX, old_end);
        old_end = old.expires_at;
        old_status = status_of(old, now_);
        return transaction.put(digest_, old);
    }

    [[nodiscard]] const record_draft &issued() const noexcept { return draft_; }
    [[nodiscard]] const token_digest &old_digest() const noexcept { return digest_; }

    std::string refusal;
    std::string old_id;
    std::int64_t old_end = 0;
    std::optional<access_verdict> old_status;  ///< what end_old() made of it; none: it is no longer there
    std::uint64_t damaged = 0;                 ///< records that may have been the named one

private:
    store::fault find(store::transaction &transaction)
    {
        if (named_.exact()) {
            digest_ = *named_.exact();
            return {};
        }

        std::uint64_t matched = 0;
        const store::fault failed = transaction.for_each<token_record>(
            [&](const token_digest &digest, const token_record &candidate, store::fault problem) {
                if (problem) {
                    damaged++;
                } else if (named_.matches(candidate)) {
                    digest_ = digest;
                    matched++;
                }
                return true;
            });
        if (!failed && matched != 1) {
            refusal = matched == 0 ? not_in_store(named_)
                                   : fmt::format("{} tokens have this id: name one of them by --digest", matched);
        }
        return failed;
    }

    /// Drafts the new token, as pat.rotate() does. Throws bad_value.
    void draft(const token_record &old)
    {
        const std::string_view id = old.id;
        if (status_of(old, now_) == access_verdict::revoked) {
            throw bad_value{fmt::format("the token \"{}\" is revoked: issue a new one", id)};
        }
        if (old.expires_at != 0 && old.expires_at <= now_) {
            throw bad_value{fmt::format("the token \"{}\" has expired: issue a new one", id)};
        }
        if (old.not_before > now_) {
            throw bad_value{fmt::format("the token \"{}\" is not valid yet: issue a new one", id)};
        }
        if (lifetime_ == 0 && old.expires_at != 0 && (old.issued_at == 0 || old.issued_at >= old.expires_at)) {
            throw bad_value{fmt::format(
                "the lifetime of the token \"{}\" is not known, as its record has no good issued_at: use --expires-in",
                id)};
        }

        draft_.subject = old.subject;
        draft_.name = old.name;
        for_each_scope(old, [&](std::string_view scope) { draft_.add_scope(scope); });
        for_each_cidr(old, [&](std::string_view cidr) { draft_.add_cidr(cidr); });
        for_each_claim(old, [&](const token_claim &claim) { draft_.add_claim(claim); });
        draft_.issued_at = now_;
        if (lifetime_ != 0) {
            draft_.expires_at = now_ + lifetime_;
        } else if (old.expires_at != 0) {
            draft_.expires_at = now_ + (old.expires_at - old.issued_at);
        }
        with_name("a new token like it is invalid", [&] { (void) draft_.view(); });
    }

    const selection &named_;
    std::int64_t now_;
    std::int64_t overlap_;
    std::int64_t lifetime_;  ///< 0: that of the old token
    token_digest digest_{};
    record_draft draft_;
};

std::string describe_old(const rotation &done)
{
    const std::string &id = done.old_id;
    if (!done.old_status) {
        return fmt::format("{} is no longer in the store", id);
    }
    switch (*done.old_status) {
    case access_verdict::revoked: return fmt::format("{} is revoked", id);
    case access_verdict::expired: return fmt::format("{} is no longer valid", id);
    default: return fmt::format("{} is still valid, until {}", id, format_time(done.old_end));
    }
}

exit_status rotate(const command_context &context, const rotate_options &options)
{
    const std::int64_t overlap = with_name("--overlap", [&] { return parse_duration(options.overlap); });
    const std::int64_t lifetime = options.expires_in.empty() ? 0 : read_lifetime(options.expires_in);
    prepare_to_issue(context, options.prefix.empty() ? std::string{default_prefix} : options.prefix);

    const selection named{context, options.named};
    const std::string_view known = named.prefix().empty() ? default_prefix : std::string_view{named.prefix()};
    const pepper_hasher hash{context.pepper_file};
    store::writer writer;
    context.open(writer);

    const fresh_token token{options.prefix.empty() ? known : options.prefix};
    rotation work{named, context.now, overlap, lifetime, generate_id()};
    require(context.folder(), writer.update([&](store::transaction &transaction) {
        return work.add_new(transaction, hash.get(), hash.get()(token.text()));
    }));
    warn_of_damaged(work.damaged);
    if (!work.refusal.empty()) {
        error(work.refusal);
        return exit_status::no;
    }

    const record_draft &issued = work.issued();
    print_token(token.text(), issued.view(), context.json);
    if (const store::fault problem =
            writer.update([&](store::transaction &transaction) { return work.end_old(transaction); })) {
        throw failure{
            exit_status::fault,
            fmt::format("{}; the new token {} was issued, but {} stays as it was: once the new one is in use, "
                        "end the old one with \"patctl revoke --digest {}\"",
                        describe(context.folder(), problem), issued.id, work.old_id, to_hex(work.old_digest()))};
    }
    notice(fmt::format("issued {} for {}, {}", issued.id, issued.subject, describe_end(issued.expires_at)));
    notice(describe_old(work));
    return exit_status::yes;
}

}  // namespace

void add_rotate(command_line &line, command_context &context)
{
    const auto options = std::make_shared<rotate_options>();
    command_syntax command = line.add_command("rotate", "Replace a token by a new one like it", examples,
                                              [&context, options] { return rotate(context, *options); });

    add_selection(command, options->named, selection_scope::one_token);

    command.add_option("--overlap", options->overlap, "how long the old token stays valid, at most")
        .value_name("TIME")
        .show_default();
    command.add_option("--expires-in", options->expires_in, "lifetime of the new token, instead of that of the old one")
        .value_name("TIME")
        .refuse_empty();
    const std::string prefix =
        fmt::format("prefix of the new token: with --token-stdin the old one's, else {}", default_prefix);
    command.add_option("--prefix", options->prefix, prefix.c_str()).value_name("P").refuse_empty();
}

}  // namespace pat::cli
