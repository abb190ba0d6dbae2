#include "cli/pat_lines.h"

#include "cli/pat_failure.h"
#include "cli/pat_json.h"

#include <cerrno>
#include <cstring>

#include <openssl/crypto.h>
#include <unistd.h>

namespace pat::cli {

namespace {

constexpr std::size_t buffer_size = 16 * max_line_length;

}  // namespace

line_reader::line_reader(int fd, std::string name)
    : fd_{fd},
      name_{std::move(name)},
      buffer_(buffer_size + simdjson::SIMDJSON_PADDING)
{
}

line_reader::~line_reader()
{
    OPENSSL_cleanse(buffer_.data(), buffer_.size());
}

bool line_reader::fill()
{
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;

    for (;;) {
        const ssize_t got = read(fd_, buffer_.data() + end_, buffer_size - end_);
        if (got >= 0) {
            end_ += static_cast<std::size_t>(got);
            position_ += static_cast<std::uint64_t>(got);
            return got > 0;
        }
        if (errno != EINTR) {
            throw failure{exit_status::fault, name_ + ": " + error_text(errno)};
        }
    }
}

bool line_reader::next(line &out)
{
    out.number = ++number_;
    out.too_long = false;

    std::size_t length = 0;
    bool complete = false;
    while (!complete) {
        const char *from = buffer_.data() + begin_;
        if (const void *found = std::memchr(from + length, '\n', end_ - begin_ - length)) {
            length = static_cast<std::size_t>(static_cast<const char *>(found) - from);
            complete = true;
            break;
        }

        length = end_ - begin_;
        if (length > max_line_length) {
            out.too_long = true;
            begin_ = end_;
            length = 0;
        }
        if (!fill()) {
            break;
        }
    }

    if (!complete && length == 0 && !out.too_long) {
        return false;
    }

    out.text = {buffer_.data() + begin_, length};
    begin_ += length + (complete ? 1 : 0);

    if (out.text.ends_with('\r')) {
        out.text.remove_suffix(1);
    }
    if (out.too_long || out.text.size() > max_line_length) {
        out.too_long = true;
        out.text = {};
    }
    return true;
}

}  // namespace pat::cli
