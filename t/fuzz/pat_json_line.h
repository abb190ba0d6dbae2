#pragma once

#include "cli/pat_json.h"
#include "pat_fuzz.h"

#include <string>
#include <string_view>

#include <simdjson.h>

namespace pat::fuzz {

/// Text that a parser may read ahead of, as a line of an input is.
class padded_text {
public:
    explicit padded_text(std::string_view text) : bytes_{text}, length_{text.size()}
    {
        bytes_.append(cli::json_padding, '\0');
    }

    [[nodiscard]] std::string_view text() const { return head(bytes_, length_); }

private:
    std::string bytes_;
    std::size_t length_;
};

/// Its memory is as large for each line, and so is made once.
inline cli::json_parser &json_parser()
{
    static cli::json_parser parser;
    return parser;
}

}  // namespace pat::fuzz
