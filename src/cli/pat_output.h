#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// Standard output, for people and for machines.
namespace pat::cli {

/// Writes all of `text` to standard output, or throws a failure.
void write_out(std::string_view text);

/// Gathers output and writes it in large pieces. Without finish(), the last of them may be lost.
class output_stream {
public:
    /// To append to; every line ends with end_line().
    [[nodiscard]] std::string &text() noexcept { return text_; }

    void end_line() { add_line("\n"); }

    /// Adds a line with its end.
    void add_line(std::string_view line);
    void finish();

private:
    std::string text_;
};

/// Names and their values, one a line; those without a value are left out.
class property_list {
public:
    void add(std::string name, std::string value);
    void write(output_stream &output) const;

private:
    std::vector<std::pair<std::string, std::string>> properties_;
};

/// A progress bar on standard error while it lives, if that is a terminal.
class progress {
public:
    /// `total` of 0: not known.
    progress(const char *activity, std::uint64_t total) noexcept;
    progress(const progress &) = delete;
    progress &operator=(const progress &) = delete;
    ~progress();

    void reach(std::uint64_t done) noexcept;

private:
    const char *activity_;
    std::uint64_t total_;
    std::uint64_t next_ = 0;
    bool visible_;
};

}  // namespace pat::cli
