#include "cli/pat_waiting.h"

#include "cli/pat_failure.h"

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

#include <unistd.h>

namespace pat::cli {

namespace {

/// The process that a thread belongs to; 0: it can't be found.
pid_t process_of(pid_t thread)
{
    std::ifstream status{fmt::format("/proc/{}/status", thread)};
    for (std::string line; std::getline(status, line);) {
        std::istringstream fields{line};
        std::string name;
        pid_t number = 0;
        if (fields >> name >> number && name == "Tgid:") {
            return number;
        }
    }
    return 0;
}

/// The files on which a process has locks of its own, as the kernel identifies them. LMDB has one on lock.mdb as long
/// as that is open. Unlike /proc/PID/fd, anybody may read this of a process that was started by root.
std::set<std::string> locked_files(pid_t process)
{
    std::set<std::string> result;
    std::ifstream locks{"/proc/locks"};
    for (std::string line; std::getline(locks, line);) {
        std::istringstream fields{line};
        std::string number;
        std::string kind;
        std::string strictness;
        std::string access;
        pid_t owner = 0;
        std::string file;
        if (fields >> number >> kind >> strictness >> access >> owner >> file && kind == "POSIX" && owner == process) {
            result.insert(file);
        }
    }
    return result;
}

bool has_store_open(pid_t process)
{
    const std::set<std::string> ours = locked_files(getpid());
    const std::set<std::string> others = locked_files(process);
    return std::ranges::any_of(others, [&](const std::string &file) { return ours.contains(file); });
}

}  // namespace

void tell_of_waiting(const std::string &folder, pid_t thread)
{
    std::string other = "another process";
    std::string where = " (fuser -v lists those that have its lock.mdb open)";
    if (const pid_t process = process_of(thread); process != 0 && has_store_open(process)) {
        std::string name;
        std::getline(std::ifstream{fmt::format("/proc/{}/comm", process)}, name);
        other = fmt::format("process {} ({})", process, name);
        where.clear();
    }
    notice(fmt::format("store \"{}\": waiting for {}, which is writing to it{}: if it is stopped, continue it "
                       "(kill -CONT), or kill it, which the store survives",
                       folder, other, where));
}

}  // namespace pat::cli
