#include "cli/pat_secret.h"

#include "cli/pat_failure.h"

#include <cerrno>

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pat::cli {

namespace {

/// Reads to the end, or until `out` is full.
template <std::size_t Size>
void read_all(int fd, const std::string &name, secret<Size> &out)
{
    while (out.length < Size) {
        const ssize_t length = read(fd, out.bytes.data() + out.length, Size - out.length);
        if (length == 0) {
            return;
        }
        if (length < 0 && errno != EINTR) {
            throw failure{exit_status::fault, fmt::format("{}: {}", name, error_text(errno))};
        }
        out.length += length > 0 ? static_cast<std::size_t>(length) : 0;
    }
}

}  // namespace

void read_token(presented_token &out)
{
    read_all(STDIN_FILENO, "standard input", out);

    if (out.length == out.bytes.size()) {
        throw bad_value{"standard input: too long for a token"};
    }
    if (out.length > 0 && out.bytes[out.length - 1] == '\n') {
        out.length--;
        if (out.length > 0 && out.bytes[out.length - 1] == '\r') {
            out.length--;
        }
    }
    if (out.length == 0) {
        throw bad_value{"standard input: no token"};
    }
    if (out.text().find('\n') != std::string_view::npos) {
        throw bad_value{"standard input: more than one line, instead of one token"};
    }
}

pepper_hasher::pepper_hasher(const std::string &path)
{
    if (path.empty()) {
        return;
    }

    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        throw failure{exit_status::fault, fmt::format("pepper file \"{}\": {}", path, error_text(errno))};
    }

    // One byte more than the longest that parse_pepper() takes: hexadecimal digits and a line end.
    secret<2 * max_pepper_length + 3> contents;
    struct stat info;
    const bool is_public = fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && (info.st_mode & S_IROTH) != 0;
    try {
        read_all(fd, fmt::format("pepper file \"{}\"", path), contents);
    } catch (const failure &) {
        close(fd);
        throw;
    }
    close(fd);

    auto key = parse_pepper(contents.text());
    if (!key) {
        throw bad_value{
            fmt::format("pepper file \"{}\": neither 64 to 128 hexadecimal digits nor 32 to 64 bytes", path)};
    }
    hasher_ = token_hasher{*key};
    OPENSSL_cleanse(&*key, sizeof *key);

    if (is_public) {
        warning(fmt::format("pepper file \"{}\" can be read by everyone: chmod 640", path));
    }
}

bool kernel_random(void *, std::span<std::byte> out) noexcept
{
    while (!out.empty()) {
        const ssize_t length = getrandom(out.data(), out.size(), 0);
        if (length < 0 && errno != EINTR) {
            return false;
        }
        out = out.subspan(length > 0 ? static_cast<std::size_t>(length) : 0);
    }
    return true;
}

}  // namespace pat::cli
