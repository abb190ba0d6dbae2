#include "store/pat_ownership.h"
#include "writer/pat_writer.h"

#include "cli/pat_command.h"
#include "cli/pat_command_line.h"
#include "cli/pat_owner.h"
#include "cli/pat_secret.h"

#include <memory>

#include <unistd.h>

namespace pat::cli {

namespace {

constexpr const char *examples = R"(Examples:
  patctl init --store /var/lib/pat/api --group www-data
  openssl rand -hex 32 > /etc/nginx/pepper && chmod 600 /etc/nginx/pepper
  patctl init --store /var/lib/pat/api --pepper-file /etc/nginx/pepper --group www-data)";

exit_status init(const command_context &context, const std::string &owner_name, const std::string &group_name)
{
    const std::string &folder = context.folder();
    new_owner owner = read_owner(owner_name, group_name, folder);
    const pepper_hasher hash{context.pepper_file};

    if (owner.user != geteuid()) {
        make_folder_for(owner, folder);
        owner.group.reset();  // which the folder has
    } else {
        if (geteuid() == 0 && check_place(folder).kind == store::fault_kind::exposed) {
            require(folder, {store::fault_kind::exposed});
        }
        make_parents(folder);
    }
    const store::fault problem = store::writer::create(folder.c_str(), owner.group, hash.get(), context.map_size);
    if (problem.kind == store::fault_kind::absent || problem.kind == store::fault_kind::denied) {
        throw failure{exit_status::fault,
                      fmt::format("store \"{}\" can't be made: {}{}", folder, store::detail(problem), explain(folder))};
    }
    require(folder, problem);

    notice(context.pepper_file.empty() ? fmt::format("made store \"{}\"", folder)
                                       : fmt::format("made store \"{}\", whose digests need the pepper", folder));
    return exit_status::yes;
}

}  // namespace

void add_init(command_line &line, command_context &context)
{
    const auto owner = std::make_shared<std::string>();
    const auto group = std::make_shared<std::string>();
    command_syntax command = line.add_command("init", "Make a store", examples,
                                              [&context, owner, group] { return init(context, *owner, *group); });
    command.add_option("--owner", *owner, "owner of the store, whom root becomes to work on it")
        .value_name("USER")
        .refuse_empty();
    command.add_option("--group", *group, "group that nginx's workers run as").value_name("G").refuse_empty();
}

}  // namespace pat::cli
