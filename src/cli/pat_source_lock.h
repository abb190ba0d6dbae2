#pragma once

#include <string>

namespace pat::cli {

/// Keeps a store to one source at a time. The lock is on its folder, and ends with the process.
class source_lock {
public:
    /// Waits for up to 10 seconds, then throws a failure with this text.
    source_lock(const std::string &folder, const std::string &text);
    source_lock(const source_lock &) = delete;
    source_lock &operator=(const source_lock &) = delete;
    ~source_lock();

private:
    int fd_;
};

}  // namespace pat::cli
