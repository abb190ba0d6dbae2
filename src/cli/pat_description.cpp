#include "cli/pat_description.h"

#include "cli/pat_json.h"
#include "cli/pat_time.h"

namespace pat::cli {

verdict status_of(record token, std::int64_t now)
{
    token.ranges = {};
    return decide(token, {}, now);
}

const char *cause_of(const record &token) noexcept
{
    return has_blank_ends(token.subject) ? "its subject begins or ends with a blank, which an upstream would strip"
           : has_control(token.subject)  ? "its subject has a control character, which no upstream is told"
                                         : "";
}

void open(const context &with, store::snapshot &out)
{
    require(with.folder(), out.open(with.enter().c_str(), with.map_size));
}

void write_json(const context &with, const digest &of, const record &token, output &to)
{
    to.text() += R"({"status":)";
    write_string(name(status_of(token, with.now)), to.text());
    if (const char *cause = cause_of(token); *cause != '\0') {
        write_name("cause", to.text());
        write_string(cause, to.text());
    }
    write_fields(of, token, to.text());
    to.text() += '}';
    to.end_line();
}

std::string show_time(std::int64_t time, std::int64_t now)
{
    if (time == 0) {
        return {};
    }
    return format_time(time)
           + (time > now ? " (in " + format_duration(time - now) + ')' : " (" + format_duration(now - time) + " ago)");
}

}  // namespace pat::cli
