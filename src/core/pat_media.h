#pragma once

#include <string_view>

namespace pat {

/// Whether the value of an Accept header (RFC 9110, section 12.5.1) names a media type, which is given in lower case.
/// Ignores weights, which neither browsers nor Prometheus need.
[[nodiscard]] bool names_media_type(std::string_view accept, std::string_view type) noexcept;

}  // namespace pat
