#pragma once

#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include <regex.h>

namespace pat::fuzz {

/// An extended regular expression of POSIX, which matches text with any bytes in it.
class pattern {
public:
    explicit pattern(const char *expression)
    {
        if (regcomp(&compiled_, expression, REG_EXTENDED) != 0) {
            std::abort();
        }
    }
    pattern(const pattern &) = delete;
    pattern &operator=(const pattern &) = delete;
    ~pattern() { regfree(&compiled_); }

    [[nodiscard]] bool matches(std::string_view text) const { return find(text).has_value(); }

    /// The text of the first group, which is empty if the expression has none.
    [[nodiscard]] std::optional<std::string_view> find(std::string_view text) const
    {
        const std::string terminated{text};
        regmatch_t found[2]{};
        found[0].rm_eo = static_cast<regoff_t>(text.size());
        if (regexec(&compiled_, terminated.c_str(), 2, found, REG_STARTEND) != 0) {
            return std::nullopt;
        }
        if (found[1].rm_so < 0) {
            return std::string_view{};
        }
        return text.substr(static_cast<std::size_t>(found[1].rm_so),
                           static_cast<std::size_t>(found[1].rm_eo - found[1].rm_so));
    }

private:
    regex_t compiled_{};
};

}  // namespace pat::fuzz
