#pragma once

#include <cstdint>
#include <ctime>

namespace pat::store {

[[nodiscard]] inline std::int64_t now_ms() noexcept
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * std::int64_t{1000} + now.tv_nsec / 1'000'000;
}

/// The time that may be spent on trying something again and again.
class time_limit {
public:
    explicit time_limit(unsigned limit_ms) noexcept : end_ms_{now_ms() + limit_ms} {}

    /// Sleeps for a millisecond, or returns false if the time is up.
    [[nodiscard]] bool wait() const noexcept
    {
        if (now_ms() >= end_ms_) {
            return false;
        }
        constexpr timespec step{0, 1'000'000};
        nanosleep(&step, nullptr);
        return true;
    }

private:
    std::int64_t end_ms_;
};

}  // namespace pat::store
