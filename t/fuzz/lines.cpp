/// Lines of a file or a pipe, as patctl reads them, against a plain split. Input: bytes.

#include "cli/pat_json.h"
#include "cli/pat_lines.h"
#include "pat_fuzz.h"

#include <cstdlib>
#include <string>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

using namespace pat;

namespace {

/// A file in memory with this content, which is read from its start.
int file_of(std::string_view content)
{
    static const int fd = memfd_create("lines", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 0) != 0
        || pwrite(fd, content.data(), content.size(), 0) != static_cast<ssize_t>(content.size())
        || lseek(fd, 0, SEEK_SET) != 0) {
        std::abort();
    }
    return fd;
}

std::string_view without(std::string_view text, std::string_view start, std::string_view end)
{
    text.remove_prefix(text.starts_with(start) ? start.size() : 0);
    text.remove_suffix(text.ends_with(end) ? end.size() : 0);
    return text;
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    fuzz::input in{data, size};

    // A byte that stands for itself so many times makes lines too long.
    std::string content;
    const std::size_t times = in.byte() % 4 * 20000;
    const std::string_view text = in.rest();
    for (const char c : text) {
        content.append(c == '*' ? std::max<std::size_t>(times, 1) : 1, c);
        if (content.size() > 4 * cli::max_line_length) {
            break;
        }
    }

    cli::line_reader reader{file_of(content), "input"};
    std::string_view rest = content;
    std::uint64_t number = 0;
    cli::input_line line;
    while (reader.next(line)) {
        expect(!rest.empty());
        const std::size_t end = rest.find('\n');
        const std::string_view raw = rest.substr(0, end);
        rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
        number++;

        const std::string_view right = without(raw, number == 1 ? "\xef\xbb\xbf" : "", "\r");
        expect(line.number == number && line.is_complete == (end != std::string_view::npos));
        if (raw.size() > cli::max_line_length + 1) {
            expect(line.too_long);
        }
        if (line.too_long) {
            expect(raw.size() > cli::max_line_length && right.starts_with(line.text.substr(0, 1000)));
            expect(line.text.size() <= cli::max_line_length);
        } else {
            expect(line.text == right);
        }
    }
    expect(rest.empty() && reader.position() == content.size());
    return 0;
}
