#pragma once

#include "core/pat_bytes.h"

#include <cstddef>
#include <span>

namespace pat::store {

/// Ends an endless walk. On damaged pages a walk may visit some keys twice and still reach further records, but a
/// crafted file can have a few pages refer to each other a billion times.
class walk_order {
public:
    /// False once too many keys were out of order.
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
