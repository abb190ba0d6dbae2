#include "core/pat_media.h"

#include <algorithm>

namespace pat {

bool names_media_type(std::string_view accept, std::string_view type) noexcept
{
    const auto matches = [](char have, char want) {
        return have == want || (have >= 'A' && have <= 'Z' && (have | 0x20) == want);
    };
    return std::search(accept.begin(), accept.end(), type.begin(), type.end(), matches) != accept.end();
}

}  // namespace pat
