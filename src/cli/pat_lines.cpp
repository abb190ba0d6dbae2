#include "cli/pat_lines.h"

#include "cli/pat_failure.h"
#include "cli/pat_json.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <openssl/crypto.h>
#include <poll.h>
#include <unistd.h>

namespace pat::cli {

namespace {

constexpr std::size_t buffer_bytes = 16 * max_line_length;
constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";

}  // namespace

line_reader::line_reader(int fd, std::string name)
    : fd_{fd},
      name_{std::move(name)},
      buffer_(buffer_bytes + json_padding),
      beginning_(max_line_length + json_padding)
{
}

line_reader::~line_reader()
{
    OPENSSL_cleanse(buffer_.data(), buffer_.size());
    OPENSSL_cleanse(beginning_.data(), beginning_.size());
}

bool line_reader::fill()
{
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;

    for (;;) {
        const ssize_t length = read(fd_, buffer_.data() + end_, buffer_bytes - end_);
        if (length >= 0) {
            end_ += static_cast<std::size_t>(length);
            position_ += static_cast<std::uint64_t>(length);
            has_ended_ = length == 0;
            return length > 0;
        }
        if (errno == EAGAIN) {
            pollfd input{fd_, POLLIN, 0};
            poll(&input, 1, -1);
        } else if (errno != EINTR) {
            throw failure{exit_status::fault, fmt::format("{}: {}", name_, error_text(errno))};
        }
    }
}

bool line_reader::has_line()
{
    const std::size_t length = end_ - begin_;
    if (std::memchr(buffer_.data() + begin_, '\n', length) != nullptr) {
        return true;
    }
    if (length > max_line_length) {
        if (!is_skipping_) {
            std::copy_n(buffer_.data() + begin_, max_line_length, beginning_.begin());
        }
        is_skipping_ = true;
        begin_ = end_;
    }
    return false;
}

bool line_reader::is_waiting(int patience)
{
    while (!has_line() && !has_ended_) {
        pollfd input{fd_, POLLIN, 0};
        if (poll(&input, 1, patience) <= 0) {
            return false;
        }
        fill();
    }
    return true;
}

bool line_reader::next(input_line &out)
{
    while (!has_line() && fill()) {
    }

    const std::string_view rest{buffer_.data() + begin_, end_ - begin_};
    const std::size_t end = rest.find('\n');
    out.is_complete = end != std::string_view::npos;
    out.text = rest.substr(0, end);
    if (rest.empty() && !is_skipping_) {
        return false;
    }

    out.number = ++number_;
    begin_ += out.text.size() + (out.is_complete ? 1 : 0);

    out.too_long = is_skipping_;
    if (is_skipping_) {
        out.text = {beginning_.data(), max_line_length};
        is_skipping_ = false;
    } else if (out.text.ends_with('\r')) {
        out.text.remove_suffix(1);
    }
    if (out.text.size() > max_line_length) {
        out.too_long = true;
        out.text = out.text.substr(0, max_line_length);
    }
    if (out.number == 1 && out.text.starts_with(byte_order_mark)) {
        out.text.remove_prefix(byte_order_mark.size());
    }
    return true;
}

}  // namespace pat::cli
