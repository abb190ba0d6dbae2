#include "cli/pat_output.h"

#include "cli/pat_failure.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include <unistd.h>

namespace pat::cli {

namespace {

constexpr std::size_t buffer_bytes = std::size_t{256} * 1024;

}  // namespace

void write_out(std::string_view text)
{
    while (!text.empty()) {
        const ssize_t written = write(STDOUT_FILENO, text.data(), text.size());
        if (written < 0 && errno != EINTR) {
            throw failure{exit_status::fault, "standard output: " + error_text(errno)};
        }
        text.remove_prefix(written > 0 ? static_cast<std::size_t>(written) : 0);
    }
}

void output_stream::add_line(std::string_view line)
{
    text_ += line;
    if (text_.size() >= buffer_bytes) {
        finish();
    }
}

void output_stream::finish()
{
    write_out(text_);
    text_.clear();
}

void property_list::add(std::string name, std::string value)
{
    if (!value.empty()) {
        properties_.emplace_back(std::move(name), std::move(value));
    }
}

void property_list::write(output_stream &output) const
{
    std::size_t width = 0;
    for (const auto &[name, value] : properties_) {
        width = std::max(width, name.size());
    }
    for (const auto &[name, value] : properties_) {
        output.text() += name;
        output.text().append(width + 2 - name.size(), ' ');
        output.text() += value;
        output.end_line();
    }
}

progress::progress(const char *activity, std::uint64_t total) noexcept
    : activity_{activity},
      total_{total},
      visible_{isatty(STDERR_FILENO) == 1}
{
}

progress::~progress()
{
    if (visible_) {
        std::fputs("\r\033[K", stderr);
    }
}

void progress::reach(std::uint64_t done) noexcept
{
    constexpr int width = 40;
    constexpr std::uint64_t uncounted_step = 16384;

    if (!visible_ || done < next_) {
        return;
    }

    if (total_ == 0) {
        next_ = done + uncounted_step;
        std::fprintf(stderr, "\r\033[K%s %llu", activity_, static_cast<unsigned long long>(done));
        return;
    }

    const auto percent = static_cast<int>(std::min<std::uint64_t>(100, done * 100 / total_));
    const int filled = percent * width / 100;
    next_ = done + std::max<std::uint64_t>(1, total_ / 100);

    char bar[width + 1];
    std::fill_n(bar, filled, '#');
    std::fill(bar + filled, bar + width, '.');
    bar[width] = '\0';
    std::fprintf(stderr, "\r%s [%s] %3d%%", activity_, bar, percent);
}

}  // namespace pat::cli
