#pragma once

#include "store/pat_fault.h"

#include <filesystem>
#include <optional>
#include <string>

#include <sys/types.h>

/// The user that works on a store. Root does not open files that another user can change, so it becomes that user
/// first, for good: open files as the caller (peppers, input) before.
namespace pat::cli {

/// As root: becomes the owner of the folder, if that is another user. There need not be a folder. Throws a failure if a
/// third user could lead it to another store.
void become_owner_of(const std::string &folder);

/// Becomes this user, with the groups that it has, and can't go back. Only for root.
void become(uid_t user);

/// The owner of a new store.
struct new_owner {
    uid_t user = 0;
    std::optional<gid_t> group;
};

/// The owner that "patctl init" was told; empty texts were not given. Without one, a folder that there is keeps its
/// owner, and a store that root makes for a group, or on a host with the user "pat-sync", belongs to another user.
/// Throws bad_value.
new_owner read_owner(const std::string &user_name, const std::string &group_name, const std::string &folder);

/// The folder that a path lies in.
std::filesystem::path folder_above(const std::string &folder);

/// Whether root alone decides where something is made at this path; `exposed` if not.
store::fault check_place(const std::string &folder);

/// Makes the folders above that are missing. nginx's workers must be able to pass through them, and nobody else may put
/// another store in its place, whatever the umask is. Throws a failure.
void make_parents(const std::string &folder);

/// As root, for another user: makes the folder with those above it, or takes an empty one of root's, gives it to that
/// user, and becomes it. Where others can change the path, that user makes the folder instead of root. A folder that
/// does not belong to root keeps its owner. Throws a failure.
void make_folder_for(const new_owner &owner, const std::string &folder);

}  // namespace pat::cli
