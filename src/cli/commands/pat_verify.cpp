#include "writer/pat_held.h"
#include "writer/pat_snapshot.h"

#include "cli/pat_command.h"
#include "cli/pat_command_line.h"
#include "cli/pat_description.h"
#include "cli/pat_json.h"
#include "cli/pat_output.h"

#include <algorithm>
#include <vector>

namespace pat::cli {

namespace {

constexpr const char *examples = R"(Examples:
  patctl verify
  patctl verify --json | jq -r 'select(.digest) | .digest')";

/// Counts and prints what is wrong with a store.
class findings {
public:
    explicit findings(bool json) noexcept : json_{json} {}

    void add(std::string_view digest_text, std::string_view cause)
    {
        count_++;
        if (json_) {
            json_object json;
            digest_text.empty() ? json.null("digest") : json.text("digest", digest_text);
            output_.add_line(json.text("cause", cause).line());
        } else {
            output_.add_line(digest_text.empty() ? fmt::format("{}\n", cause)
                                                 : fmt::format("digest {}: {}\n", digest_text, cause));
        }
    }

    /// `info` is the meta record, if all records were looked at, of which `other_format` are not in the store's format.
    exit_status finish(std::uint64_t records, const meta_record *info = nullptr, std::uint64_t other_format = 0)
    {
        if (json_) {
            json_object json;
            json.number("records", records).number("findings", count_);
            if (info != nullptr) {
                json.number("format", info->format).number("other_format", other_format);
            }
            output_.add_line(json.line());
        } else {
            output_.add_line(fmt::format(
                "{} records, {}{}\n", records,
                count_ == 0 ? "no damage" : fmt::format("{} {}", count_, count_ == 1 ? "finding" : "findings"),
                info == nullptr ? "" : "; format " + describe_format(*info, other_format)));
        }
        output_.finish();
        return count_ == 0 ? exit_status::yes : exit_status::no;
    }

private:
    output_stream output_;
    std::uint64_t count_ = 0;
    bool json_;
};

/// Faults that verify() is looking for, rather than those that prevent it.
bool is_damage(store::fault problem)
{
    return problem.kind == store::fault_kind::damaged || problem.kind == store::fault_kind::truncated
           || problem.kind == store::fault_kind::bad_record;
}

/// Compares a count with the meta record.
void compare(const char *name, std::uint64_t counted, std::uint64_t recorded, findings &findings)
{
    if (counted != recorded) {
        findings.add({}, fmt::format("there are {} {}, but the meta record says {}", counted, name, recorded));
    }
}

struct record_counts {
    std::uint64_t all = 0;
    std::uint64_t revoked = 0;
    std::uint64_t damaged = 0;
    std::uint64_t other_format = 0;
};

void check_token(const token_digest &digest, std::span<const std::byte> key, std::span<const std::byte> value,
                 store::fault problem, std::uint8_t format, record_counts &counts, findings &findings)
{
    counts.all++;
    token_record token;
    codec_error error = problem ? static_cast<codec_error>(problem.code) : decode(key, value, token);
    if (error == codec_error::none) {
        error = validate(token);
    }
    if (error != codec_error::none) {
        counts.damaged++;
        findings.add(to_hex(digest), message(error));
        return;
    }
    counts.revoked += token.is_revoked() ? 1 : 0;
    counts.other_format += token.format != format ? 1 : 0;
}

/// Checks an entry that is not a token record.
void check_other(std::span<const std::byte> key, std::span<const std::byte> value, store::fault problem,
                 findings &findings)
{
    codec_error error = codec_error::none;
    tombstone grave;
    early_revocation early;
    store::held_snapshot held;

    if (const auto buried = digest_of_tombstone_key(key)) {
        error = problem ? codec_error::too_long : decode(key, value, grave);
        if (error != codec_error::none) {
            findings.add(to_hex(*buried), fmt::format("its tombstone: {}", message(error)));
        }
    } else if (const auto digest = digest_of_early_key(key)) {
        error = problem ? codec_error::too_long : decode(key, value, early);
        if (error != codec_error::none) {
            findings.add(to_hex(*digest), fmt::format("its early revocation: {}", message(error)));
        }
    } else if (std::ranges::equal(key, store::held_key())) {
        error = store::decode(value, held);
        if (error != codec_error::none) {
            findings.add({}, fmt::format("the record of the snapshot that is held back: {}", message(error)));
        }
    } else if (!std::ranges::equal(key, meta_key())) {
        findings.add({}, fmt::format("unknown key: {}", to_hex(key)));
    }
}

exit_status verify(const command_context &context)
{
    findings found{context.json};
    store::snapshot snapshot;

    if (const store::fault problem = snapshot.open(context.enter().c_str(), context.map_size)) {
        if (!is_damage(problem)) {
            require(context.folder(), problem);
        }
        found.add({}, describe(context.folder(), problem));
        return found.finish(0);
    }

    store::statistics file;
    require(context.folder(), snapshot.stat(file));
    progress bar{"verifying", file.entries};

    record_counts counts;
    std::vector<std::byte> last_key;

    for (;;) {
        std::span<const std::byte> key;
        std::span<const std::byte> value;
        bool done = false;

        const store::fault problem = snapshot.next(key, value, done);
        if (problem && problem.kind != store::fault_kind::bad_record) {
            found.add({}, fmt::format("reading stopped after {} records: {}", counts.all, store::message(problem)));
            return found.finish(counts.all);
        }
        if (done) {
            break;
        }

        if (!last_key.empty() && !std::ranges::lexicographical_compare(last_key, key)) {
            // Stop here: pages that refer to each other in a circle would never end.
            found.add({}, fmt::format("the keys are out of order after {} records", counts.all));
            return found.finish(counts.all);
        }
        last_key.assign(key.begin(), key.end());

        if (const auto digest = digest_of_key(key)) {
            check_token(*digest, key, value, problem, snapshot.info().format, counts, found);
            bar.reach(counts.all);
        } else {
            check_other(key, value, problem, found);
        }
    }

    compare("records", counts.all, snapshot.info().tokens, found);
    if (counts.damaged == 0) {
        compare("revoked records", counts.revoked, snapshot.info().revoked, found);
    }
    return found.finish(counts.all, &snapshot.info(), counts.other_format);
}

}  // namespace

void add_verify(command_line &line, command_context &context)
{
    line.add_command("verify", "Check every record, and the counts", examples, [&context] { return verify(context); });
}

}  // namespace pat::cli
