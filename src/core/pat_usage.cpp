#include "core/pat_usage.h"

#include "core/pat_bytes.h"
#include "core/pat_crc32c.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <new>

namespace pat {

namespace {

[[nodiscard]] std::uint32_t hash_of(std::uint32_t store, std::string_view id) noexcept
{
    return crc32c(bytes_of(id), store);
}

}  // namespace

bool use_batch::add(std::uint32_t store, std::string_view id, std::int64_t used_at, const address &peer) noexcept
{
    const std::uint32_t hash = hash_of(store, id);

    std::size_t i = hash % slot_count;
    for (; slots_[i].count != 0; i = (i + 1) % slot_count) {
        batch_slot &slot = slots_[i];
        if (slot.hash == hash && slot.store == store && std::string_view{slot.id.data(), slot.id_length} == id) {
            slot.count++;
            slot.used_at = used_at;
            slot.peer = peer;
            return true;
        }
    }

    if (used_count_ == limit) {
        return false;
    }
    used_[used_count_++] = static_cast<std::uint16_t>(i);

    batch_slot &added = slots_[i];
    added.hash = hash;
    added.store = store;
    added.count = 1;
    added.used_at = used_at;
    added.peer = peer;
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

    // About one bucket for each entry, and an even number, which keeps the entries aligned.
    const std::size_t wanted = std::min(room / (sizeof(usage_entry) + sizeof(entry_index)), most);
    const std::size_t buckets = std::bit_floor(wanted);
    if (buckets < 2) {
        return nullptr;
    }
    const std::size_t capacity = std::min((room - buckets * sizeof(entry_index)) / sizeof(usage_entry), most);

    auto *table = new (memory.data())
        usage_table{static_cast<std::uint32_t>(capacity), static_cast<std::uint32_t>(buckets), first_cursor};
    std::fill_n(table->buckets(), buckets, none);
    return table;
}

std::optional<std::uint64_t> usage_table::parse_cursor(std::string_view text, std::int64_t now) noexcept
{
    constexpr std::int64_t a_year = std::int64_t{365} * 24 * 3600;

    std::uint64_t cursor = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), cursor);
    const bool is_cursor =
        error == std::errc{} && end == text.data() + text.size() && cursor <= cursor_at(now + a_year);
    return is_cursor ? std::optional{cursor} : std::nullopt;
}

const usage_table::usage_entry *usage_table::entries() const noexcept
{
    static_assert(sizeof(usage_table) % alignof(usage_entry) == 0
                  && 2 * sizeof(entry_index) % alignof(usage_entry) == 0);
    return reinterpret_cast<const usage_entry *>(reinterpret_cast<const entry_index *>(this + 1) + bucket_count_);
}

token_use usage_table::describe(const usage_entry &entry, std::uint64_t count) noexcept
{
    return {{entry.id.data(), entry.id_length}, entry.store, count, entry.used_at, entry.peer};
}

usage_table::entry_index usage_table::find(std::uint32_t hash, const token_use &uses) noexcept
{
    entry_index index = bucket_of(hash);
    while (index != none) {
        const usage_entry &entry = entries()[index];
        if (entry.hash == hash && entry.store == uses.store && describe(entry, 0).id == uses.id) {
            break;
        }
        index = entry.next;
    }
    return index;
}

void usage_table::append(entry_list &list, entry_links member, entry_index index) noexcept
{
    entries()[index].*member = {list.last, none};
    (list.last == none ? list.first : (entries()[list.last].*member).after) = index;
    list.last = index;
}

void usage_table::remove(entry_list &list, entry_links member, entry_index index) noexcept
{
    const links around = entries()[index].*member;
    (around.before == none ? list.first : (entries()[around.before].*member).after) = around.after;
    (around.after == none ? list.last : (entries()[around.after].*member).before) = around.before;
}

/// Returns an entry that is in no list: a new one, or that of the least recently used token.
usage_table::entry_index usage_table::make_room() noexcept
{
    if (size_ < capacity_) {
        return size_++;
    }

    const entry_index index = by_use_.first;
    usage_entry &old = entries()[index];

    entry_index *link = &bucket_of(old.hash);
    while (*link != index) {
        link = &entries()[*link].next;
    }
    *link = old.next;

    remove(by_use_, &usage_entry::by_use, index);
    if (old.is_pending) {
        remove(pending_of(old.store), &usage_entry::pending, index);
        lost_uses_ += old.total - old.confirmed;
    }
    evicted_++;
    return index;
}

void usage_table::add(const token_use &uses) noexcept
{
    const std::uint32_t hash = hash_of(uses.store, uses.id);

    entry_index index = find(hash, uses);
    if (index != none) {
        remove(by_use_, &usage_entry::by_use, index);
    } else {
        index = make_room();

        usage_entry &added = entries()[index];
        added = {};
        added.hash = hash;
        added.store = uses.store;
        added.id_length = static_cast<std::uint8_t>(uses.id.size());
        std::copy(uses.id.begin(), uses.id.end(), added.id.begin());
        added.next = bucket_of(hash);
        bucket_of(hash) = index;
    }
    append(by_use_, &usage_entry::by_use, index);

    usage_entry &entry = entries()[index];
    entry.total += uses.count;
    if (uses.used_at >= entry.used_at) {  // another worker may have seen a later one
        entry.used_at = uses.used_at;
        entry.peer = uses.peer;
    }
    if (!entry.is_pending) {
        entry.is_pending = true;
        append(pending_of(entry.store), &usage_entry::pending, index);
    }
}

/// Finds the first entry of this store from `index` on, in a list of entries with uses to report.
usage_table::entry_index usage_table::skip_others(std::uint32_t store, entry_index index) const noexcept
{
    while (index != none && entries()[index].store != store) {
        index = entries()[index].pending.after;
    }
    return index;
}

/// Confirms the uses in a report. Tokens that were used again go behind those that have waited longer.
void usage_table::confirm(std::uint32_t store, std::uint64_t report) noexcept
{
    for (entry_index index = skip_others(store, pending_of(store).first);
         index != none && entries()[index].report == report;) {
        usage_entry &entry = entries()[index];
        const entry_index after = skip_others(store, entry.pending.after);

        entry.confirmed = entry.reported;
        entry.report = 0;
        remove(pending_of(store), &usage_entry::pending, index);
        entry.is_pending = entry.total != entry.confirmed;
        if (entry.is_pending) {
            append(pending_of(store), &usage_entry::pending, index);
        }
        index = after;
    }
}

std::size_t usage_table::report(std::uint32_t store, std::uint64_t &cursor,
                                std::span<token_use, report_size> out) noexcept
{
    entry_index index = skip_others(store, pending_of(store).first);
    if (index == none) {
        return 0;
    }

    // The last report is at the front of the list.
    std::uint64_t report = entries()[index].report;
    if (report != 0 && report <= cursor) {
        confirm(store, report);
        index = skip_others(store, pending_of(store).first);
        report = 0;
    }

    // An unconfirmed report is repeated unchanged, so that its cursor never stands for other uses.
    const bool is_again = report != 0;
    if (!is_again) {
        // Greater than the given cursor, too, as the clock behind the first cursor may have been set back.
        report = std::max(cursor_, cursor) + 1;
    }

    std::size_t count = 0;
    for (; index != none && count < out.size(); index = skip_others(store, entries()[index].pending.after)) {
        usage_entry &entry = entries()[index];
        if (is_again && entry.report != report) {
            break;
        }
        if (!is_again) {
            entry.reported = entry.total;
            entry.report = report;
        }
        out[count++] = describe(entry, entry.reported - entry.confirmed);
    }

    if (count != 0) {
        cursor_ = std::max(cursor_, report);
        cursor = report;
    }
    return count;
}

std::size_t usage_table::most_used(std::span<token_use> out) const noexcept
{
    std::size_t count = 0;

    entry_index index = by_use_.last;
    for (std::uint32_t looked_at = 0; index != none && looked_at < recent_size; looked_at++) {
        const usage_entry &entry = entries()[index];
        index = entry.by_use.before;

        if (count == out.size()) {
            if (count == 0 || entry.total <= out[count - 1].count) {
                continue;
            }
            count--;
        }
        std::size_t position = count++;
        for (; position > 0 && out[position - 1].count < entry.total; position--) {
            out[position] = out[position - 1];
        }
        out[position] = describe(entry, entry.total);
    }
    return count;
}

}  // namespace pat
