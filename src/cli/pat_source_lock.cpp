#include "cli/pat_source_lock.h"

#include "cli/pat_failure.h"

#include <cerrno>

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <unistd.h>

namespace pat::cli {

source_lock::source_lock(const std::string &folder, const std::string &text)
    : fd_{open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)}
{
    if (fd_ < 0) {
        require(folder, store::from_errno(errno));
    }

    constexpr int longest_wait_ms = 10000;
    constexpr int pause_ms = 20;
    for (int waited = 0; flock(fd_, LOCK_EX | LOCK_NB) != 0; waited += pause_ms) {
        if (waited >= longest_wait_ms) {
            throw failure{exit_status::fault, text};
        }
        poll(nullptr, 0, pause_ms);
    }
}

source_lock::~source_lock()
{
    close(fd_);
}

}  // namespace pat::cli
