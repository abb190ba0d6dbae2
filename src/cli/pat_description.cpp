#include "cli/pat_description.h"

#include "cli/pat_failure.h"
#include "cli/pat_json.h"
#include "cli/pat_time.h"

namespace pat::cli {

access_verdict status_of(token_record token, std::int64_t now)
{
    token.cidrs = {};
    return decide(token, {}, now);
}

const char *cause_of(const token_record &token) noexcept
{
    return has_blank_ends(token.subject) ? "its subject begins or ends with a blank, which an upstream would strip"
           : has_control(token.subject)  ? "its subject has a control character, which no upstream is told"
                                         : "";
}

std::string describe_format(const meta_record &info, std::uint64_t other_format)
{
    return fmt::format(
        "{}{}{}", info.format, other_format > 0 ? fmt::format(", which {} records do not have", other_format) : "",
        info.record_format != info.format ? fmt::format(", being converted to {}", info.record_format) : "");
}

void open(const command_context &context, store::snapshot &out)
{
    require(context.folder(), out.open(context.enter().c_str(), context.map_size));
}

void write_json(const command_context &context, const token_digest &digest, const token_record &token,
                output_stream &output)
{
    json_object json;
    json.text("status", name(status_of(token, context.now)));
    if (const char *cause = cause_of(token); *cause != '\0') {
        json.text("cause", cause);
    }
    output.add_line(add_fields(digest, token, json).line());
}

std::string show_time(std::int64_t time, std::int64_t now)
{
    if (time == 0) {
        return {};
    }
    return time > now ? fmt::format("{} (in {})", format_time(time), format_duration(time - now))
                      : fmt::format("{} ({} ago)", format_time(time), format_duration(now - time));
}

}  // namespace pat::cli
