#pragma once

#include <string>

#include <sys/types.h>

namespace pat::cli {

/// A notice that the command waits for another process that writes to the store. It is named only if it has LMDB's lock
/// on lock.mdb, as has the caller: the number of its `thread` is from that file, where a worker that was taken over can
/// put that of any other process for somebody to kill.
void tell_of_waiting(const std::string &folder, pid_t thread);

}  // namespace pat::cli
