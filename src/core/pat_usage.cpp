#include "core/pat_usage.h"

#include "core/pat_bytes.h"
#include "core/pat_crc32c.h"

#include <algorithm>
#include <bit>
#include <new>

namespace pat {

namespace {

[[nodiscard]] std::uint32_t hash_of(std::uint32_t store, std::string_view id) noexcept
{
    return crc32c(bytes_of(id), store);
}

}  // namespace

bool use_batch::add(std::uint32_t store, std::string_view id, std::int64_t at, const address &from) noexcept
{
    const std::uint32_t hash = hash_of(store, id);

    std::size_t i = hash % slot_count;
    for (; slots_[i].count != 0; i = (i + 1) % slot_count) {
        slot &one = slots_[i];
        if (one.hash == hash && one.store == store && std::string_view{one.id.data(), one.id_length} == id) {
            one.count++;
            one.at = at;
            one.from = from;
            return true;
        }
    }

    if (used_count_ == limit) {
        return false;
    }
    used_[used_count_++] = static_cast<std::uint16_t>(i);

    slot &added = slots_[i];
    added.hash = hash;
    added.store = store;
    added.count = 1;
    added.at = at;
    added.from = from;
    added.id_length = static_cast<std::uint8_t>(id.size());
    std::copy(id.begin(), id.end(), added.id.begin());
    return true;
}

usage_table::usage_table(std::uint32_t capacity, std::uint32_t buckets, std::uint64_t first_cursor) noexcept
    : capacity_{capacity},
      bucket_count_{buckets},
      cursor_{first_cursor}
{
    pending_.fill({none, none});
}

usage_table *usage_table::make(std::span<std::byte> memory, std::uint64_t first_cursor) noexcept
{
    constexpr std::size_t most = std::size_t{1} << 30;

    if (memory.size() < sizeof(usage_table)) {
        return nullptr;
    }
    const std::size_t room = memory.size() - sizeof(usage_table);

    // About one bucket for each entry, and an even number of them, which keeps the entries aligned.
    const std::size_t wanted = std::min(room / (sizeof(entry) + sizeof(index)), most);
    const std::size_t buckets = std::bit_floor(wanted);
    if (buckets < 2) {
        return nullptr;
    }
    const std::size_t capacity = std::min((room - buckets * sizeof(index)) / sizeof(entry), most);

    auto *made = new (memory.data())
        usage_table{static_cast<std::uint32_t>(capacity), static_cast<std::uint32_t>(buckets), first_cursor};
    std::fill_n(made->buckets(), buckets, none);
    return made;
}

const usage_table::entry *usage_table::entries() const noexcept
{
    static_assert(sizeof(usage_table) % alignof(entry) == 0 && 2 * sizeof(index) % alignof(entry) == 0);
    return reinterpret_cast<const entry *>(reinterpret_cast<const index *>(this + 1) + bucket_count_);
}

use usage_table::describe(const entry &one, std::uint64_t count) noexcept
{
    return {{one.id.data(), one.id_length}, one.store, count, one.at, one.from};
}

usage_table::index usage_table::find(std::uint32_t hash, const use &uses) noexcept
{
    index which = bucket_of(hash);
    while (which != none) {
        const entry &one = entries()[which];
        if (one.hash == hash && one.store == uses.store && describe(one, 0).id == uses.id) {
            break;
        }
        which = one.next;
    }
    return which;
}

void usage_table::append(list &to, entry_links by, index which) noexcept
{
    entries()[which].*by = {to.last, none};
    (to.last == none ? to.first : (entries()[to.last].*by).after) = which;
    to.last = which;
}

void usage_table::remove(list &from, entry_links by, index which) noexcept
{
    const links around = entries()[which].*by;
    (around.before == none ? from.first : (entries()[around.before].*by).after) = around.after;
    (around.after == none ? from.last : (entries()[around.after].*by).before) = around.before;
}

/// An entry that is in no list: a new one, or that of the token that was used least recently.
usage_table::index usage_table::make_room() noexcept
{
    if (size_ < capacity_) {
        return size_++;
    }

    const index which = by_use_.first;
    entry &old = entries()[which];

    index *link = &bucket_of(old.hash);
    while (*link != which) {
        link = &entries()[*link].next;
    }
    *link = old.next;

    remove(by_use_, &entry::by_use, which);
    if (old.is_pending) {
        remove(pending_of(old.store), &entry::pending, which);
        lost_uses_ += old.total - old.confirmed;
    }
    evicted_++;
    return which;
}

void usage_table::add(const use &uses) noexcept
{
    const std::uint32_t hash = hash_of(uses.store, uses.id);

    index which = find(hash, uses);
    if (which != none) {
        remove(by_use_, &entry::by_use, which);
    } else {
        which = make_room();

        entry &added = entries()[which];
        added = {};
        added.hash = hash;
        added.store = uses.store;
        added.id_length = static_cast<std::uint8_t>(uses.id.size());
        std::copy(uses.id.begin(), uses.id.end(), added.id.begin());
        added.next = bucket_of(hash);
        bucket_of(hash) = which;
    }
    append(by_use_, &entry::by_use, which);

    entry &one = entries()[which];
    one.total += uses.count;
    if (uses.at >= one.at) {  // another worker may have seen a later one
        one.at = uses.at;
        one.from = uses.from;
    }
    if (!one.is_pending) {
        one.is_pending = true;
        append(pending_of(one.store), &entry::pending, which);
    }
}

/// The first entry from `which` on, in a list of those with uses to report, that is of this store.
usage_table::index usage_table::skip_others(std::uint32_t store, index which) const noexcept
{
    while (which != none && entries()[which].store != store) {
        which = entries()[which].pending.after;
    }
    return which;
}

/// Takes it that the uses in a report have arrived. What was used again goes behind those that have waited for longer.
void usage_table::confirm(std::uint32_t store, std::uint64_t report) noexcept
{
    for (index which = skip_others(store, pending_of(store).first);
         which != none && entries()[which].report == report;) {
        entry &one = entries()[which];
        const index after = skip_others(store, one.pending.after);

        one.confirmed = one.reported;
        one.report = 0;
        remove(pending_of(store), &entry::pending, which);
        one.is_pending = one.total != one.confirmed;
        if (one.is_pending) {
            append(pending_of(store), &entry::pending, which);
        }
        which = after;
    }
}

std::size_t usage_table::report(std::uint32_t store, std::uint64_t &cursor, std::span<use, report_size> out) noexcept
{
    index which = skip_others(store, pending_of(store).first);
    if (which == none) {
        return 0;
    }

    // What was reported last stands in front.
    std::uint64_t report = entries()[which].report;
    if (report != 0 && report <= cursor) {
        confirm(store, report);
        which = skip_others(store, pending_of(store).first);
        report = 0;
    }

    // A report that is made again is the same, so that it can't be taken for another one.
    const bool is_again = report != 0;
    if (!is_again) {
        // Above what was given, so that it grows even where the clock that made the first cursor was put back.
        report = std::max(cursor_, cursor) + 1;
    }

    std::size_t count = 0;
    for (; which != none && count < out.size(); which = skip_others(store, entries()[which].pending.after)) {
        entry &one = entries()[which];
        if (is_again && one.report != report) {
            break;
        }
        if (!is_again) {
            one.reported = one.total;
            one.report = report;
        }
        out[count++] = describe(one, one.reported - one.confirmed);
    }

    if (count != 0) {
        cursor_ = std::max(cursor_, report);
        cursor = report;
    }
    return count;
}

std::size_t usage_table::most_used(std::span<use> out) const noexcept
{
    std::size_t count = 0;

    index which = by_use_.last;
    for (std::uint32_t looked_at = 0; which != none && looked_at < recent_size; looked_at++) {
        const entry &one = entries()[which];
        which = one.by_use.before;

        if (count == out.size()) {
            if (count == 0 || one.total <= out[count - 1].count) {
                continue;
            }
            count--;
        }
        std::size_t at = count++;
        for (; at > 0 && out[at - 1].count < one.total; at--) {
            out[at] = out[at - 1];
        }
        out[at] = describe(one, one.total);
    }
    return count;
}

}  // namespace pat
