#pragma once

#include <string_view>

namespace pat {

/// The release that this code was compiled as. The file VERSION is a literal, which pat-sync and packages read, too.
inline constexpr std::string_view release =
#include "../../VERSION"
    ;

}  // namespace pat
