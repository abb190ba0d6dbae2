#include "cli/pat_secret.h"

#include "cli/pat_failure.h"

#include <cerrno>
#include <csignal>
#include <cstdio>

#include <fcntl.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <termios.h>
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

/// Keeps a terminal on standard input from showing what is typed. Signals that end or stop patctl wait until it shows
/// that again.
class hidden_input {
public:
    hidden_input()
    {
        // A signal that was blocked before stays so, and would end no wait but the next one, too.
        sigset_t signals;
        sigemptyset(&signals);
        sigprocmask(SIG_BLOCK, nullptr, &mask_);
        for (const int number : {SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGTSTP, SIGALRM, SIGUSR1, SIGUSR2}) {
            if (sigismember(&mask_, number) == 0) {
                sigaddset(&signals, number);
            }
        }
        sigprocmask(SIG_BLOCK, &signals, nullptr);
        signals_ = signalfd(-1, &signals, SFD_CLOEXEC);

        if (tcgetattr(STDIN_FILENO, &shown_) == 0) {
            termios hidden = shown_;
            hidden.c_lflag &= ~static_cast<tcflag_t>(ECHO);
            hidden.c_lflag |= ECHONL;
            is_hidden_ = signals_ >= 0 && tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden) == 0;
        }
    }
    hidden_input(const hidden_input &) = delete;
    hidden_input &operator=(const hidden_input &) = delete;
    ~hidden_input()
    {
        if (is_hidden_) {
            tcsetattr(STDIN_FILENO, TCSAFLUSH, &shown_);
        }
        close(signals_);
        sigprocmask(SIG_SETMASK, &mask_, nullptr);
    }

    [[nodiscard]] bool is_hidden() const noexcept { return is_hidden_; }

    /// Waits for a line; false if a signal comes first.
    [[nodiscard]] bool wait() const noexcept
    {
        std::array<pollfd, 2> sources{{{STDIN_FILENO, POLLIN, 0}, {signals_, POLLIN, 0}}};
        while (poll(sources.data(), sources.size(), -1) < 0 && errno == EINTR) {
        }
        return sources[1].revents == 0;
    }

private:
    sigset_t mask_{};
    int signals_ = -1;
    termios shown_{};
    bool is_hidden_ = false;
};

void ask_for_token(presented_token &out)
{
    for (;;) {
        const hidden_input input;
        if (!input.is_hidden()) {
            throw failure{exit_status::fault, "standard input: the terminal would show the token that is typed"};
        }
        std::fputs("Token: ", stderr);
        if (!input.wait()) {
            // If the signal only stopped patctl, ask again.
            std::fputs("\n", stderr);
            continue;
        }
        const ssize_t length = read(STDIN_FILENO, out.bytes.data(), out.bytes.size());
        if (length < 0) {
            throw failure{exit_status::fault, fmt::format("standard input: {}", error_text(errno))};
        }
        out.length = static_cast<std::size_t>(length);
        return;
    }
}

}  // namespace

void read_token(presented_token &out)
{
    if (isatty(STDIN_FILENO) == 1) {
        ask_for_token(out);
    } else {
        read_all(STDIN_FILENO, "standard input", out);
    }

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
