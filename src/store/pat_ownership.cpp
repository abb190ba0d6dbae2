#include "store/pat_ownership.h"

#include "store/pat_files.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pat::store {

namespace {

constexpr uid_t root = 0;

/// An access control list shows here, too: its mask stands in place of the group's rights.
constexpr mode_t writable_by_others = S_IWGRP | S_IWOTH;

[[nodiscard]] bool is_roots_alone(const struct stat &info) noexcept
{
    return info.st_uid == root && (info.st_mode & writable_by_others) == 0;
}

/// Whether no other user can replace root's files in a folder of root.
[[nodiscard]] bool keeps_entries(const struct stat &folder) noexcept
{
    return (folder.st_mode & writable_by_others) == 0 || (folder.st_mode & S_ISVTX) != 0;
}

/// A walk along a path, one component at a time, by descriptors, so that nobody can replace a component behind it.
class walk {
public:
    /// Besides root, `user` may have folders and links on the way, and let others write there.
    explicit walk(uid_t user) noexcept : user_{user} {}

    fault start(const char *path) noexcept
    {
        if (!append(path)) {
            return from_errno(ENAMETOOLONG);
        }
        return enter_beginning();
    }

    /// Goes to the end of the path, where `wanted` is. The folders before the last are checked.
    fault finish(const struct stat &wanted) noexcept
    {
        for (std::string_view name = take(); !name.empty(); name = take()) {
            if (const fault problem = step(name)) {
                return problem;
            }
        }

        // The targets of links in /proc are not paths.
        const auto end = identify(folder_.get());
        return end == file_identity{wanted.st_dev, wanted.st_ino} ? fault{} : fault{fault_kind::exposed};
    }

    [[nodiscard]] const descriptor &folder() const noexcept { return folder_; }

private:
    static constexpr unsigned max_links = 40;  // as the kernel

    /// Puts a path in front of the rest.
    bool append(const char *path) noexcept
    {
        std::array<char, PATH_MAX> joined;
        const std::size_t length = std::strlen(path);
        const std::size_t rest = std::strlen(left_);
        if (length + 1 + rest >= joined.size()) {
            return false;
        }
        std::memcpy(joined.data(), path, length);
        joined[length] = '/';
        std::memcpy(&joined[length + 1], left_, rest + 1);
        buffer_ = joined;
        left_ = buffer_.data();
        return true;
    }

    fault enter_beginning() noexcept
    {
        if (*left_ == '/') {
            folder_ = descriptor{::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC)};
        } else if (folder_.get() < 0) {
            folder_ = descriptor{::open(".", O_PATH | O_DIRECTORY | O_CLOEXEC)};
        }
        return folder_.get() < 0 ? from_errno(errno) : fault{};
    }

    /// A copy of the next component; empty at the end.
    std::string_view take() noexcept
    {
        while (*left_ == '/') {
            left_++;
        }
        const std::size_t length = std::strcspn(left_, "/");
        std::memcpy(name_.data(), left_, length);
        name_[length] = '\0';
        left_ += length;
        return {name_.data(), length};
    }

    fault step(std::string_view name) noexcept
    {
        struct stat here;
        struct stat next;
        if (fstat(folder_.get(), &here) != 0 || fstatat(folder_.get(), name.data(), &next, AT_SYMLINK_NOFOLLOW) != 0) {
            return from_errno(errno);
        }
        if (!is_trusted(here) || (here.st_uid == root && !keeps_entries(here))) {
            return {fault_kind::exposed};
        }

        if (S_ISLNK(next.st_mode)) {
            return is_trusted(next) ? follow(name) : fault{fault_kind::exposed};
        }
        // In a folder that everybody may write to, the owner of a name can replace it at any time.
        if ((here.st_mode & writable_by_others) != 0 && !is_trusted(next)) {
            return {fault_kind::exposed};
        }

        descriptor entered{openat(folder_.get(), name.data(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)};
        if (entered.get() < 0) {
            return from_errno(errno);
        }
        folder_ = std::move(entered);
        return {};
    }

    [[nodiscard]] bool is_trusted(const struct stat &info) const noexcept
    {
        return info.st_uid == root || info.st_uid == user_;
    }

    fault follow(std::string_view name) noexcept
    {
        if (++links_ > max_links) {
            return from_errno(ELOOP);
        }

        std::array<char, PATH_MAX> target;
        const ssize_t length = readlinkat(folder_.get(), name.data(), target.data(), target.size() - 1);
        if (length < 0) {
            return from_errno(errno);
        }
        target[static_cast<std::size_t>(length)] = '\0';
        return append(target.data()) ? enter_beginning() : from_errno(ENAMETOOLONG);
    }

    uid_t user_;
    descriptor folder_;
    std::array<char, PATH_MAX> buffer_{};
    const char *left_ = buffer_.data();
    std::array<char, PATH_MAX> name_{};
    unsigned links_ = 0;
};

/// The owner of the file that nginx's workers write to; root if there is none.
[[nodiscard]] gid_t group_of_readers(const char *folder) noexcept
{
    file_path lock;
    struct stat info;
    return lock.set(folder, lock_file) && lstat(lock.text(), &info) == 0 ? info.st_gid : 0;
}

}  // namespace

fault check_way(const char *path, uid_t user) noexcept
{
    struct stat end;
    if (stat(path, &end) != 0) {
        return from_errno(errno);
    }
    walk along{user};
    const fault problem = along.start(path);
    return problem ? problem : along.finish(end);
}

fault check_for_root(const char *folder) noexcept
{
    if (geteuid() != root) {
        return {};
    }

    struct stat info;
    if (stat(folder, &info) != 0) {
        return from_errno(errno);
    }
    if (info.st_uid != root) {
        return {fault_kind::foreign};
    }

    walk along{root};
    fault problem = along.start(folder);
    if (!problem) {
        problem = along.finish(info);
    }
    if (problem) {
        return problem;
    }

    // From here on, nobody can replace the folder that was reached.
    const int fd = along.folder().get();
    if (fstat(fd, &info) != 0) {
        return from_errno(errno);
    }
    bool is_shared = !is_roots_alone(info);
    for (const char *file : {data_file, lock_file, open_lock_file}) {
        if (fstatat(fd, file, &info, AT_SYMLINK_NOFOLLOW) == 0) {
            is_shared = is_shared
                        || (S_ISREG(info.st_mode) && !is_roots_alone(info));  // other files do not belong to the store
        } else if (errno != ENOENT) {
            return from_errno(errno);
        }
    }
    return is_shared ? fault{fault_kind::shared} : fault{};
}

refusal find_refusal(const char *folder) noexcept
{
    const auto may = [](const char *path, int rights) {
        return faccessat(AT_FDCWD, path, rights, AT_EACCESS) == 0 || errno != EACCES;
    };
    const auto refused = [](store_part part, std::size_t way_length, const char *path) {
        struct stat info = {};
        (void) stat(path, &info);
        return refusal{part, way_length, info.st_uid, info.st_gid};
    };

    file_path path;
    const std::string_view whole{folder};
    for (std::size_t end = whole.find('/', 1);; end = whole.find('/', end + 1)) {
        const std::size_t length = std::min(end, whole.size());
        if (path.set_start(folder, length) && !may(path.text(), X_OK)) {
            return refused(store_part::way, length, path.text());
        }
        if (end == std::string_view::npos) {
            break;
        }
    }

    struct {
        store_part part;
        const char *file;
        int rights;
    } const needed[] = {
        {store_part::open_lock, open_lock_file, R_OK},
        {store_part::data, data_file, R_OK},
        {store_part::lock, lock_file, R_OK | W_OK},
    };
    for (const auto &[part, file, rights] : needed) {
        if (path.set(folder, file) && !may(path.text(), rights)) {
            return refused(part, 0, path.text());
        }
    }
    return {};
}

void append_change_of_owner(shell_command &command) noexcept
{
    if (getpwnam(default_owner) == nullptr) {
        command.append("useradd --system ");
        command.append(default_owner);
        command.append(" && ");
    }
    command.append("chown -R ");
    command.append(default_owner);
}

shell_command repair_command(const char *folder) noexcept
{
    shell_command result;
    if (group_of_readers(folder) == 0) {
        result.append("chown -R root ");
        result.append_quoted(folder);
        result.append(" && chmod -R go-w ");
    } else {
        append_change_of_owner(result);
        result.append(" ");
    }
    result.append_quoted(folder);
    return result;
}

void shell_command::append(const char *words) noexcept
{
    const std::size_t more = std::strlen(words);
    if (length_ + more >= text_.size()) {
        text_[0] = '\0';
        length_ = text_.size();  // and it stays empty
        return;
    }
    std::memcpy(&text_[length_], words, more + 1);
    length_ += more;
}

void shell_command::append_quoted(const char *path) noexcept
{
    constexpr const char *plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/._-+,:@%";
    if (path[std::strspn(path, plain)] == '\0' && *path != '-') {
        append(path);
        return;
    }

    append("'");
    for (; *path != '\0'; path++) {
        const char character[] = {*path, '\0'};
        append(*path == '\'' ? "'\\''" : character);
    }
    append("'");
}

}  // namespace pat::store
