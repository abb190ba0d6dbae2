#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pat::cli {

struct input_line {
    std::string_view text;  ///< without its end and a byte order mark; what JSON parsers read ahead of it is readable
    std::uint64_t number = 0;
    bool too_long = false;     ///< then the text is its beginning
    bool is_complete = false;  ///< false for a last line without its end
};

/// Reads a file line by line in bounded memory, which is wiped in the end. The last line may lack its end.
class line_reader {
public:
    /// `name` is for error messages.
    line_reader(int fd, std::string name);
    line_reader(const line_reader &) = delete;
    line_reader &operator=(const line_reader &) = delete;
    ~line_reader();

    /// The next line, until the next call; false at the end. Throws a failure.
    bool next(input_line &out);

    /// Whether next() has a line, or the end of the file, within `patience` milliseconds.
    [[nodiscard]] bool is_waiting(int patience = 0);

    /// Bytes read so far.
    [[nodiscard]] std::uint64_t position() const noexcept { return position_; }

private:
    bool has_line();
    bool fill();

    int fd_;
    std::string name_;
    std::vector<char> buffer_;
    std::vector<char> beginning_;  ///< of a line that is too long
    bool is_skipping_ = false;     ///< the rest of it
    bool has_ended_ = false;
    std::size_t begin_ = 0;
    std::size_t end_ = 0;
    std::uint64_t position_ = 0;
    std::uint64_t number_ = 0;
};

}  // namespace pat::cli
