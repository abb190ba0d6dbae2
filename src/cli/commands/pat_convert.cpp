#include "writer/pat_writer.h"

#include "cli/pat_command.h"
#include "cli/pat_command_line.h"
#include "cli/pat_failure.h"
#include "cli/pat_json.h"
#include "cli/pat_output.h"
#include "cli/pat_source_lock.h"
#include "cli/pat_time.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace pat::cli {

namespace {

constexpr const char *examples = R"(Examples:
  patctl convert
  patctl convert --format 1    before the release before this one is installed again)";

/// How many records a transaction looks at, to end within a fraction of a second.
constexpr std::size_t max_batch = 8192;

/// Writes the records of a store in another format, one transaction after another. The first shuts out releases that
/// could not read the new records, and makes all writers use the new format; the last lets in the releases that can
/// read all records. A conversion that was interrupted is run again, and skips the records that are converted.
class conversion {
public:
    explicit conversion(std::uint8_t format) noexcept : format_{format} {}

    store::fault step(store::transaction &transaction)
    {
        meta_record &info = transaction.info();
        is_overtaken_ = has_begun_ && info.record_format != format_;
        if (is_overtaken_) {
            return {};
        }
        info.format = std::max(info.format, format_);
        info.record_format = format_;

        std::vector<token_digest> others;
        if (const store::fault problem = find_others(transaction, others)) {
            return problem;
        }
        for (const token_digest &digest : others) {
            const store::fault problem = transaction.reformat(digest);
            if (problem.kind == store::fault_kind::bad_record) {
                refuse(digest, problem);
            } else if (problem) {
                return problem;
            } else {
                converted_++;
            }
        }
        if (!next_) {
            info.format = format_;
        }
        has_begun_ = true;
        return {};
    }

    /// Whether a conversion to another format has begun meanwhile.
    [[nodiscard]] bool is_overtaken() const noexcept { return is_overtaken_; }

    [[nodiscard]] bool is_done() const noexcept { return has_begun_ && !next_; }
    [[nodiscard]] std::uint64_t converted() const noexcept { return converted_; }
    [[nodiscard]] std::uint64_t unchanged() const noexcept { return unchanged_; }
    [[nodiscard]] std::uint64_t damaged() const noexcept { return damaged_; }

private:
    store::fault find_others(store::transaction &transaction, std::vector<token_digest> &others)
    {
        transaction.seek(next_.value_or(token_digest{}));
        next_.reset();

        std::size_t count = 0;
        const store::fault failed = transaction.for_each<token_record>(
            [&](const token_digest &digest, const token_record &record, store::fault problem) {
                if (count == max_batch) {
                    next_ = digest;
                    return false;
                }
                count++;
                if (problem) {
                    refuse(digest, problem);
                } else if (record.format != format_) {
                    others.push_back(digest);
                } else {
                    unchanged_++;
                }
                return true;
            });
        return !failed && next_ ? transaction.interrupt_walk(*next_) : failed;
    }

    void refuse(const token_digest &digest, store::fault problem)
    {
        error(fmt::format("record of digest {}: not converted: {}", to_hex(digest), store::fault_text{problem}.text()));
        damaged_++;
    }

    std::uint8_t format_;
    std::optional<token_digest> next_;  ///< where the next step begins
    std::uint64_t converted_ = 0;
    std::uint64_t unchanged_ = 0;
    std::uint64_t damaged_ = 0;
    bool has_begun_ = false;
    bool is_overtaken_ = false;
};

exit_status convert(const command_context &context, std::uint8_t format)
{
    const std::string &folder = context.enter();

    // A snapshot would bring back what is being undone.
    std::optional<source_lock> lock;
    if (format < newest_format) {
        lock.emplace(folder,
                     fmt::format("store \"{}\": \"patctl apply\", or another \"patctl convert\", is running on it: "
                                 "stop pat-sync first, as its next snapshot would convert the store again",
                                 folder));
    }

    store::writer writer;
    context.open(writer);

    std::uint64_t tokens = 0;
    bool changes_format = false;
    require(folder, writer.update([&](store::transaction &transaction) -> store::fault {
        tokens = transaction.info().tokens;
        changes_format = transaction.info().format != format || transaction.info().record_format != format;
        return {};
    }));

    conversion work{format};
    {
        progress bar{"converting", tokens};
        while (!work.is_done() && !work.is_overtaken()) {
            require(folder, writer.update([&](store::transaction &transaction) { return work.step(transaction); }));
            bar.reach(work.converted() + work.unchanged() + work.damaged());
        }
    }
    if (work.is_overtaken()) {
        throw failure{exit_status::fault,
                      fmt::format("store \"{}\": another \"patctl convert\" is running on it", folder)};
    }

    if (context.json) {
        write_out(json_object{}
                      .number("format", format)
                      .number("converted", work.converted())
                      .number("unchanged", work.unchanged())
                      .number("damaged", work.damaged())
                      .line());
    }
    if (!changes_format && work.converted() == 0) {
        notice(fmt::format("the store has format {} already: nothing was converted", format));
    } else {
        notice(fmt::format("converted {} records: the store has format {} now", work.converted(), format));
    }
    return work.damaged() == 0 ? exit_status::yes : exit_status::no;
}

}  // namespace

void add_convert(command_line &line, command_context &context)
{
    const auto format = std::make_shared<std::string>(std::to_string(newest_format));
    command_syntax command = line.add_command(
        "convert", "Write all records in the newest format, or in an older one", examples, [&context, format] {
            const auto number = with_name("--format", [&] { return parse_count(*format, newest_format); });
            return convert(context, static_cast<std::uint8_t>(number));
        });
    command.add_option("--format", *format, "that of the release that is to read the store")
        .value_name("N")
        .show_default();
}

}  // namespace pat::cli
