/// A reader on a store whose data.mdb and lock.mdb others spoil, before it opens them and meanwhile. Input: which
/// store, and steps: writes to a file, and what a worker of nginx does.
///
/// Whatever is spoilt, no record is found but those that were written under that key, and no figures but those that
/// were written; nothing crashes, hangs, or is left open.

#include "core/pat_policy.h"
#include "core/pat_record.h"
#include "pat_fuzz.h"
#include "store/pat_lmdb_header.h"
#include "store/pat_reader.h"
#include "writer/pat_writer.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace pat;

// The traps of the store handle these signals. A fault within LMDB leaves behind what LMDB had allocated.
extern "C" const char *__asan_default_options();
const char *__asan_default_options()
{
    return "handle_segv=0:handle_sigbus=0:detect_leaks=0";
}

namespace {

constexpr std::size_t map_size = std::size_t{64} << 20;
constexpr std::size_t page_size = 4096;
constexpr unsigned known_tokens = 120;
constexpr unsigned all_tokens = known_tokens + 8;  ///< the last of which no store has
constexpr std::int64_t now = 1'700'000'000;

const token_hasher hasher;

[[noreturn]] void give_up(const char *what)
{
    std::perror(what);
    std::abort();
}

std::string name_of(unsigned number)
{
    return "a-token-with-number-" + std::to_string(1000 + number);
}

/// Some tokens are good, others are not.
token_record record_of(unsigned number, const std::string &name)
{
    static const std::string filler(3000, 's');
    token_record result;
    result.id = name;
    result.subject = name;
    result.scopes = number == 9 ? std::string_view{filler} : "api:read";  // needs a page of its own
    result.revoked_at = number % 4 == 1 ? now - 1 : 0;
    result.local_revoked_at = number % 4 == 2 ? now - 1 : 0;
    result.expires_at = number % 4 == 3 ? now - 1 : 0;
    return result;
}

void require(store::fault problem)
{
    if (problem) {
        std::fprintf(stderr, "%s\n", store::fault_text{problem}.text());
        std::abort();
    }
}

std::vector<char> contents_of(int fd)
{
    struct stat info {};
    if (fstat(fd, &info) != 0) {
        give_up("fstat");
    }
    std::vector<char> result(static_cast<std::size_t>(info.st_size));
    if (pread(fd, result.data(), result.size(), 0) != static_cast<ssize_t>(result.size())) {
        give_up("pread");
    }
    return result;
}

/// A file that is spoilt and restored. It is never closed, as that would drop LMDB's locks on it in this process.
class spoilt_file {
public:
    explicit spoilt_file(const std::string &path) : fd_{open(path.c_str(), O_RDWR | O_CLOEXEC)}
    {
        if (fd_ < 0) {
            give_up(path.c_str());
        }
        right_ = contents_of(fd_);
    }

    void restore() const
    {
        write(0, right_.data(), right_.size());
        cut(right_.size());
    }

    void write(std::size_t at, const void *bytes, std::size_t size) const
    {
        if (pwrite(fd_, bytes, size, static_cast<off_t>(at)) != static_cast<ssize_t>(size)) {
            give_up("pwrite");
        }
    }

    void cut(std::size_t length) const
    {
        if (ftruncate(fd_, static_cast<off_t>(length)) != 0) {
            give_up("ftruncate");
        }
    }

    [[nodiscard]] int descriptor() const { return fd_; }
    [[nodiscard]] std::size_t size() const { return right_.size(); }

    template <typename Number>
    [[nodiscard]] Number number(std::size_t at) const
    {
        Number result;
        std::memcpy(&result, &right_[at], sizeof result);
        return result;
    }

private:
    int fd_;
    std::vector<char> right_;
};

/// A store in shared memory, with what it has held since it was made.
class victim {
public:
    explicit victim(std::string folder)
        : folder_{std::move(folder)},
          data_{folder_ + "/data.mdb"},
          lock_{folder_ + "/lock.mdb"}
    {
    }

    [[nodiscard]] const char *folder() const { return folder_.c_str(); }
    [[nodiscard]] const spoilt_file &data() const { return data_; }
    [[nodiscard]] const spoilt_file &lock() const { return lock_; }

    void restore() const
    {
        data_.restore();
        lock_.restore();
    }

    /// Has LMDB believe that another process has lock.mdb open, so that it takes the file as it is.
    void occupy(bool is_occupied) const
    {
        struct flock range {};
        range.l_type = static_cast<short>(is_occupied ? F_RDLCK : F_UNLCK);
        range.l_len = 1;
        if (fcntl(lock_.descriptor(), F_OFD_SETLK, &range) != 0) {
            give_up("fcntl");
        }
    }

private:
    std::string folder_;
    spoilt_file data_;
    spoilt_file lock_;
};

class victims {
public:
    victims()
    {
        if (mkdtemp(folder_.data()) == nullptr) {
            give_up(folder_.c_str());
        }
        static std::string to_remove;
        to_remove = folder_;
        (void) std::atexit([] {
            (void) nftw(
                to_remove.c_str(), [](const char *entry, const struct stat *, int, FTW *) { return remove(entry); }, 16,
                FTW_DEPTH | FTW_PHYS);
        });

        // One with pages of earlier commits, in which fewer tokens are revoked, and a copy without them.
        const std::string grown = folder_ + "/grown";
        const std::string compact = folder_ + "/compact";
        require(store::writer::create(grown.c_str(), std::nullopt, hasher, map_size));
        for (const bool is_last : {false, true}) {
            store::writer writer;
            require(writer.open(grown.c_str(), map_size));
            require(writer.update([&](store::transaction &change) { return fill(change, is_last); }));
        }
        require(store::writer::backup(grown.c_str(), compact.c_str(), map_size));
        for (const std::string &folder : {grown, compact}) {
            store::reader reader;
            require(reader.open(folder.c_str(), map_size, 1000));
        }
        grown_ = std::make_unique<victim>(grown);
        compact_ = std::make_unique<victim>(compact);
    }

    [[nodiscard]] const victim &grown() const { return *grown_; }
    [[nodiscard]] const victim &compact() const { return *compact_; }

private:
    static store::fault fill(store::transaction &change, bool is_last)
    {
        change.info().heartbeat = is_last ? now : now - 60;
        for (unsigned number = 0; number < known_tokens; number++) {
            const std::string name = name_of(number);
            token_record record = record_of(number, name);
            if (!is_last) {
                record.revoked_at = 0;
            }
            if (const store::fault problem = change.put(hasher(name), record)) {
                return problem;
            }
        }
        return {};
    }

    std::string folder_ = "/dev/shm/auth-pat-fuzz-XXXXXX";
    std::unique_ptr<victim> grown_;
    std::unique_ptr<victim> compact_;
};

/// Where in a file something stands, and how many bytes it has.
struct place {
    std::size_t at;
    std::size_t size;
};

constexpr place meta_fields[] = {
    {16, 4}, {20, 4}, {24, 8}, {32, 8}, {40, 4}, {44, 2},  {46, 2},  {48, 8},  {56, 8},  {64, 8},  {72, 8},
    {80, 8}, {88, 4}, {92, 2}, {94, 2}, {96, 8}, {104, 8}, {112, 8}, {120, 8}, {128, 8}, {136, 8}, {144, 8},
};

/// The page's number, flags, and the ends of its lists of nodes; for a long value, the number of its pages.
constexpr place page_fields[] = {{0, 8}, {8, 2}, {10, 2}, {12, 2}, {14, 2}, {12, 4}};

/// The parts of a node's header: the size of its value, or the page it leads to; flags; the size of its key.
constexpr place node_fields[] = {{0, 2}, {2, 2}, {4, 2}, {6, 2}};

/// What LMDB has in lock.mdb: magic number, version and format, the newest transaction, the number of slots.
constexpr place lock_fields[] = {{0, 4}, {4, 4}, {48, 8}, {56, 4}};

/// Of the mutex for taking a slot: whether it is locked, how often, by whom, and its kind. Left out are its pointers,
/// through which the C library writes: docs/security.md.
constexpr place mutex_fields[] = {{8, 4}, {12, 4}, {16, 4}, {20, 4}, {24, 4}};

constexpr place slot_fields[] = {{0, 8}, {8, 4}, {16, 8}};
constexpr std::size_t slots_at = 128;
constexpr std::size_t slot_bytes = 64;

template <std::size_t Count>
place pick(fuzz::input &in, const place (&places)[Count])
{
    return places[in.byte() % Count];
}

/// Somewhere in data.mdb, found along the structure of its pages.
place pick_in_data(fuzz::input &in, const spoilt_file &data)
{
    const std::size_t pages = data.size() / page_size;
    const std::uint8_t kind = in.byte() % 8;
    if (kind == 0) {
        const place field = pick(in, meta_fields);
        return {in.byte() % 2 * page_size + field.at, field.size};
    }

    const std::size_t page = in.number<std::uint16_t>() % pages * page_size;
    const std::size_t nodes = std::max<std::size_t>((data.number<std::uint16_t>(page + 12) - 16U) / 2 % page_size, 1);
    const std::size_t pointer = page + 16 + in.byte() % nodes * 2;
    const std::size_t node = page + data.number<std::uint16_t>(std::min(pointer, page + page_size - 2)) % page_size;
    switch (kind) {
    case 1:
    case 2: {
        const place field = pick(in, page_fields);
        return {page + field.at, field.size};
    }
    case 3: return {pointer, 2};
    case 4:
    case 5: {
        const place field = pick(in, node_fields);
        return {node + field.at, field.size};
    }
    case 6: return {node + 8 + in.byte(), 1};
    default: return {page + in.number<std::uint16_t>() % page_size, 1};
    }
}

/// Seldom in a mutex, as half a second passes until waiting for it ends.
place pick_in_lock(fuzz::input &in)
{
    const std::uint8_t kind = in.byte() % 32;
    if (kind == 0) {
        return pick(in, mutex_fields);
    }
    if (kind < 16) {
        return pick(in, lock_fields);
    }
    const place field = pick(in, slot_fields);
    return {slots_at + in.byte() % 4 * slot_bytes + field.at, field.size};
}

/// Changes a number in place: to another one, by a little, or in one bit.
void spoil(fuzz::input &in, const spoilt_file &file, place where)
{
    where.at = std::min(where.at, file.size() - where.size);
    std::uint64_t value = 0;
    (void) pread(file.descriptor(), &value, where.size, static_cast<off_t>(where.at));
    switch (in.byte() % 4) {
    case 0: value = in.byte(); break;
    case 1: value = in.number<std::uint64_t>(); break;
    case 2: value += static_cast<std::uint64_t>(std::int64_t{in.number<std::int8_t>()}); break;
    default: value ^= std::uint64_t{1} << in.byte() % (8 * where.size); break;
    }
    file.write(where.at, &value, where.size);
}

/// Puts one page in the place of another one.
void copy_page(fuzz::input &in, const spoilt_file &data)
{
    const std::size_t pages = data.size() / page_size;
    const std::size_t from = in.byte() % (pages + 1);
    const std::size_t to = in.byte() % pages;
    std::array<char, page_size> page{};
    if (from < pages) {
        (void) pread(data.descriptor(), page.data(), page.size(), static_cast<off_t>(from * page_size));
    }
    data.write(to * page_size, page.data(), page.size());
}

void *allocate(void *memory, std::size_t size) noexcept
{
    auto &bytes = *static_cast<std::unique_ptr<std::byte[]> *>(memory);
    bytes = std::make_unique<std::byte[]>(size);
    return bytes.get();
}

/// Looks a token up. What is found must be what was written.
void look_up(store::reader &reader, unsigned number, bool is_compact)
{
    const std::string name = name_of(number);
    static std::unique_ptr<std::byte[]> memory;
    token_record found;
    const store::lookup_result result = reader.lookup(hasher, make_token_key(hasher(name)), allocate, &memory, found);
    expect(!result.problem || !result.found);
    if (!result.found) {
        return;
    }

    expect(number < known_tokens);
    token_record right = record_of(number, name);
    if (!is_compact && found.revoked_at == 0) {
        right.revoked_at = 0;  // from a page of the commit before
    }
    expect(found == right);
    expect(result.heartbeat == now || (!is_compact && (result.heartbeat == now - 60 || result.heartbeat == 0)));

    const scope_requirement required[] = {{"api:read"}};
    const access_verdict verdict = decide(found, {{}, std::span{required}.first(number == 9 ? 0 : 1)}, now);
    expect(verdict != access_verdict::ok || number % 4 == 0 || (!is_compact && number % 4 == 1));
}

void describe(store::reader &reader)
{
    store::condition figures{};
    if (!reader.describe(figures)) {
        expect(figures.tokens == known_tokens || figures.tokens == 0);
    }
}

/// What nginx's timer does once a second.
void look_after(store::reader &reader, const char *folder)
{
    if (reader.is_open()) {
        reader.maintain();
    } else {
        (void) reader.open(folder, map_size, 0);
    }
}

/// Pages of address space.
std::size_t mapped_pages()
{
    static const int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    std::array<char, 64> text{};
    (void) pread(fd, text.data(), text.size() - 1, 0);
    return std::strtoull(text.data(), nullptr, 10);
}

int next_descriptor()
{
    const int fd = dup(STDERR_FILENO);
    close(fd);
    return fd;
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    static const victims stores;

    fuzz::input in{data, size};
    const std::uint8_t flags = in.byte();
    const bool is_compact = (flags & 1) != 0;
    const victim &target = is_compact ? stores.compact() : stores.grown();
    target.restore();
    target.occupy((flags & 2) != 0);
    const std::size_t mapped = mapped_pages();
    const int descriptors = next_descriptor();

    {
        store::reader reader;
        for (int steps = 0; steps < 32 && !in.has_ended(); steps++) {
            switch (in.byte() % 16) {
            case 0:
            case 1:
            case 2:
            case 3:
            case 4: spoil(in, target.data(), pick_in_data(in, target.data())); break;
            case 5: spoil(in, target.lock(), pick_in_lock(in)); break;
            case 6: copy_page(in, target.data()); break;
            case 7: target.data().cut(in.number<std::uint32_t>() % (target.data().size() + page_size)); break;
            case 8:
            case 9: look_after(reader, target.folder()); break;
            case 10: describe(reader); break;
            default: look_up(reader, in.byte() % all_tokens, is_compact); break;
            }
        }
        look_after(reader, target.folder());
        for (unsigned number = 0; number < all_tokens; number += 5) {
            look_up(reader, number, is_compact);
        }
        describe(reader);
    }

    expect(next_descriptor() == descriptors);
    expect(mapped_pages() < mapped + map_size / page_size);
    return 0;
}
