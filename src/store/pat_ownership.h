#pragma once

#include "store/pat_fault.h"

#include <array>
#include <climits>
#include <cstddef>
#include <cstdint>

#include <sys/types.h>

/// The owner of a store, and the users that may not open it.
namespace pat::store {

/// The user that the installation makes for stores (scripts/systemd/pat-sync.sysusers.conf).
inline constexpr const char *default_owner = "pat-sync";

/// Root opens a store only if no other user can touch it (docs/security.md): not its files, not its folder, and not
/// the way to it, on which another folder could be put in its place. The faults are `foreign`, `shared`, `exposed` and
/// those of errno; for users other than root there is none.
fault check_for_root(const char *folder) noexcept;

/// Checks that nobody but root and `user` can make a path lead elsewhere: folders and links on the way are theirs, and
/// no other user may write to those of root's, unless they are sticky. `exposed` if not.
fault check_way(const char *path, uid_t user) noexcept;

/// Which part of a store this process may not use as a reader must.
enum class store_part : std::uint64_t { none, way, open_lock, data, lock };

/// Without bytes between its members, as for a fault.
struct refusal {
    store_part part = store_part::none;
    std::size_t way_length = 0;  ///< of `way`: how much of the path leads to the folder that may not be entered
    uid_t user = 0;              ///< the owner of the folder or file
    gid_t group = 0;
};

/// Finds the reason why this process can't read a store, after the fault `denied` or `no_lock_file`.
[[nodiscard]] refusal find_refusal(const char *folder) noexcept;

/// A shell command to show to an operator. The text is empty if it does not fit.
class shell_command {
public:
    void append(const char *words) noexcept;

    /// Appends a path as one word.
    void append_quoted(const char *path) noexcept;

    [[nodiscard]] const char *text() const noexcept { return text_.data(); }

private:
    std::array<char, std::size_t{4} * PATH_MAX> text_{};
    std::size_t length_ = 0;
};

/// The command with which an operator repairs a store that is `shared`, so that root's patctl works on it and nginx's
/// workers keep their access.
[[nodiscard]] shell_command repair_command(const char *folder) noexcept;

/// Appends "chown -R USER" with the user that the installation makes for stores, and makes it first if it is missing.
void append_change_of_owner(shell_command &command) noexcept;

}  // namespace pat::store
