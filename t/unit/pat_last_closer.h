#pragma once

#include <cstddef>
#include <initializer_list>

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

namespace pat::test {

/// Where LMDB has its mutexes in lock.mdb (mdb.c: MDB_txninfo) on 64-bit machines.
inline constexpr std::size_t readers_mutex_at = 8;
inline constexpr std::size_t writers_mutex_at = 64;

/// Destroys the mutexes in lock.mdb, open for reading and writing as `fd`; false if that fails.
inline bool destroy_mutexes(int fd) noexcept
{
    constexpr std::size_t length = 4096;
    void *map = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        return false;
    }
    for (const std::size_t at : {readers_mutex_at, writers_mutex_at}) {
        pthread_mutex_destroy(reinterpret_cast<pthread_mutex_t *>(static_cast<std::byte *>(map) + at));
    }
    return munmap(map, length) == 0;
}

/// The same as LMDB 0.9.26 to 0.9.31 do it before they close lock.mdb: if no other process has it open, by the lock
/// that this process would get. Any release of LMDB can so be tested like these.
inline bool destroy_mutexes_if_last(int fd) noexcept
{
    struct flock first {};
    first.l_type = F_WRLCK;
    first.l_whence = SEEK_SET;
    first.l_len = 1;
    return fcntl(fd, F_SETLK, &first) == 0 && destroy_mutexes(fd);
}

}  // namespace pat::test
