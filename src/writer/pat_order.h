#pragma once

#include "core/pat_bytes.h"

#include <cstddef>
#include <span>

namespace pat::store {

/// Ends a walk that would have no end. On damaged pages a walk may come to some keys twice, and then goes on to what
/// can be saved; but whoever writes the file can have a few pages lead to each other a billion times.
class walk_order {
public:
    /// False once too many keys were not behind those before them.
    [[nodiscard]] bool accepts(std::span<const std::byte> before, std::span<const std::byte> key) noexcept
    {
        constexpr unsigned max_steps_back = 1000;
        steps_back_ += compare_keys(before, key) < 0 ? 0 : 1;
        return steps_back_ <= max_steps_back;
    }

private:
    unsigned steps_back_ = 0;
};

}  // namespace pat::store
