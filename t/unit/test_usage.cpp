#include "core/pat_usage.h"

#include "pat_cmocka.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

// What is kept here of uses is bounded, loses nothing that it does not count, and is reported once.

namespace {

using namespace pat;

constexpr std::uint64_t first_cursor = 1'000;
constexpr std::size_t report_size = usage_table::report_size;

alignas(16) std::array<std::byte, 4 << 20> memory;
std::array<token_use, report_size> reported;
std::array<char, max_id_length> id_text;

address from(std::uint8_t last)
{
    const std::byte bytes[] = {std::byte{203}, std::byte{0}, std::byte{113}, std::byte{last}};
    return make_address(bytes);
}

/// An id of its own for each number; good until the next one is made.
std::string_view id(std::size_t number)
{
    const int length = std::snprintf(id_text.data(), id_text.size(), "pat_%zu", number);
    return {id_text.data(), static_cast<std::size_t>(length)};
}

token_use uses(std::size_t number, std::uint64_t count, std::int64_t at = 100, std::uint32_t store = 0)
{
    return {id(number), store, count, at, from(1)};
}

unsigned char filled_with = 0;

/// In memory that holds what was there before, or something else.
usage_table &make(std::size_t size = memory.size())
{
    std::memset(memory.data(), filled_with += 0x55, memory.size());
    usage_table *table = usage_table::make(std::span{memory}.first(size), first_cursor);
    assert_non_null(table);
    return *table;
}

std::span<const token_use> report(usage_table &table, std::uint64_t &cursor, std::uint32_t store = 0)
{
    return std::span{reported}.first(table.report(store, cursor, reported));
}

void assert_use(const char *label, const token_use &have, std::size_t number, std::uint64_t count, std::int64_t at)
{
    assert_view_equal(label, have.id, id(number));
    assert_number_equal(label, have.count, count);
    assert_number_equal(label, have.used_at, at);
}

void a_batch_counts_uses_of_a_token_together(void **)
{
    static use_batch batch;
    assert_true(batch.is_empty());
    assert_true(batch.add(0, "pat_a", 100, from(1)));
    assert_true(batch.add(0, "pat_b", 101, from(2)));
    assert_true(batch.add(0, "pat_a", 102, from(3)));
    assert_true(batch.add(1, "pat_a", 103, from(4)));
    assert_false(batch.is_empty());

    std::size_t count = 0;
    std::array<token_use, 4> got;
    batch.drain([&](const token_use &one) { got[count++] = one; });
    assert_int_equal(count, 3);
    assert_view_equal("first", got[0].id, "pat_a");
    assert_number_equal("first", got[0].count, 2);
    assert_number_equal("first", got[0].used_at, 102);
    assert_bytes_equal("first", got[0].peer.bytes, from(3).bytes);
    assert_number_equal("first", got[0].store, 0);
    assert_view_equal("second", got[1].id, "pat_b");
    assert_number_equal("second", got[1].count, 1);
    assert_view_equal("another store", got[2].id, "pat_a");
    assert_number_equal("another store", got[2].store, 1);

    assert_true(batch.is_empty());
    batch.drain([](const token_use &) { fail_msg("it was drained"); });
}

void a_batch_that_is_full_takes_no_other_token_but_counts_those_that_it_has(void **)
{
    static use_batch batch;
    for (std::size_t i = 0; i < use_batch::limit; i++) {
        assert_number_equal("filling", batch.is_filling(), i > use_batch::limit / 2);
        assert_true(batch.add(0, id(i), 100, from(1)));
    }
    assert_false(batch.add(0, id(use_batch::limit), 100, from(1)));
    for (std::size_t i = 0; i < use_batch::limit; i++) {
        assert_true(batch.add(0, id(i), 101, from(1)));
    }

    std::size_t count = 0;
    batch.drain([&](const token_use &one) {
        assert_use("of each", one, count, 2, 101);
        count++;
    });
    assert_int_equal(count, use_batch::limit);
    assert_true(batch.add(0, id(use_batch::limit), 100, from(1)));
    batch.drain([](const token_use &one) { assert_number_equal("afterwards", one.count, 1); });
}

void an_id_may_be_as_long_as_ids_are(void **)
{
    static use_batch batch;
    std::array<char, max_id_length> longest;
    longest.fill('x');
    const std::string_view text{longest.data(), longest.size()};

    assert_true(batch.add(0, text, 100, from(1)));
    usage_table &table = make();
    batch.drain([&](const token_use &one) { table.add(one); });

    std::uint64_t cursor = 0;
    const auto got = report(table, cursor);
    assert_int_equal(got.size(), 1);
    assert_view_equal("longest", got[0].id, text);
}

void a_table_needs_room_for_a_few_tokens(void **)
{
    assert_null(usage_table::make({}, 0));
    assert_null(usage_table::make(std::span{memory}.first(200), 0));

    std::size_t smallest = 0;
    while (usage_table::make(std::span{memory}.first(smallest), 0) == nullptr) {
        smallest++;
    }
    assert_int_equal(make(smallest).capacity(), 2);
    assert_in_range(make(1 << 20).capacity(), 5000, 10000);
}

void what_is_reported_is_confirmed_by_the_next_question(void **)
{
    usage_table &table = make();
    std::uint64_t cursor = 0;
    assert_int_equal(report(table, cursor).size(), 0);
    assert_int_equal(cursor, 0);

    table.add(uses(1, 2, 100));
    table.add(uses(2, 1, 101));
    table.add(uses(1, 3, 102));
    auto got = report(table, cursor);
    assert_int_equal(got.size(), 2);
    assert_use("in the order of waiting", got[0], 1, 5, 102);
    assert_use("in the order of waiting", got[1], 2, 1, 101);
    assert_true(cursor > first_cursor);

    std::uint64_t next = cursor;
    assert_int_equal(report(table, next).size(), 0);
    assert_int_equal(next, cursor);

    table.add(uses(2, 4, 103));
    got = report(table, next);
    assert_int_equal(got.size(), 1);
    assert_use("what has come since", got[0], 2, 4, 103);
    assert_true(next > cursor);
    assert_int_equal(report(table, next).size(), 0);
}

void a_report_that_is_not_confirmed_is_made_again_as_it_was(void **)
{
    usage_table &table = make();
    table.add(uses(1, 2));
    table.add(uses(2, 1));
    std::uint64_t first = 0;
    assert_int_equal(report(table, first).size(), 2);

    table.add(uses(1, 10));
    table.add(uses(3, 1));
    std::uint64_t again = 0;
    auto got = report(table, again);
    assert_int_equal(got.size(), 2);
    assert_use("again", got[0], 1, 2, 100);
    assert_use("again", got[1], 2, 1, 100);
    assert_int_equal(again, first);

    std::uint64_t second = first;
    got = report(table, second);
    assert_int_equal(got.size(), 2);
    assert_use("those that waited come first", got[0], 3, 1, 100);
    assert_use("then what was used again", got[1], 1, 10, 100);
    assert_true(second > first);

    // Also to somebody who has a cursor from long ago.
    again = 0;
    assert_int_equal(report(table, again).size(), 2);
    assert_int_equal(again, second);
}

void busy_tokens_do_not_keep_others_out_of_a_report(void **)
{
    usage_table &table = make();
    for (std::size_t i = 0; i < report_size + 10; i++) {
        table.add(uses(i, 1));
    }
    std::uint64_t cursor = 0;
    assert_int_equal(report(table, cursor).size(), report_size);
    for (std::size_t i = 0; i < report_size; i++) {
        table.add(uses(i, 1));
    }
    const auto got = report(table, cursor);
    assert_int_equal(got.size(), report_size);
    for (std::size_t i = 0; i < 10; i++) {
        assert_use("those that waited", got[i], report_size + i, 1, 100);
    }
}

void a_cursor_grows_beyond_one_from_the_future(void **)
{
    usage_table &table = make();
    table.add(uses(1, 1));
    std::uint64_t cursor = first_cursor * 1000;
    assert_int_equal(report(table, cursor).size(), 1);
    assert_true(cursor > first_cursor * 1000);
    const std::uint64_t before = cursor;
    table.add(uses(1, 1));
    assert_int_equal(report(table, cursor).size(), 1);
    assert_true(cursor > before);
}

void a_cursor_is_a_number_of_at_most_a_year_from_now(void **)
{
    struct row {
        const char *text;
        std::optional<std::uint64_t> want;
    };
    constexpr std::int64_t now = 1'700'000'000;
    static constexpr row rows[] = {
        {"0", 0},
        {"1782579200000000", 1782579200000000},
        {"1815647092736000", 1815647092736000},  // (now + 365 * 86400) << 20
        {"1815647092736001", std::nullopt},
        {"18446744073709551615", std::nullopt},
        {"18446744073709551616", std::nullopt},
        {"", std::nullopt},
        {"-1", std::nullopt},
        {"+1", std::nullopt},
        {" 1", std::nullopt},
        {"1 ", std::nullopt},
        {"1.0", std::nullopt},
        {"0x1", std::nullopt},
    };
    for (const row &row : rows) {
        const auto have = usage_table::parse_cursor(row.text, now);
        assert_row(row.text, have == row.want);
    }
}

void stores_are_reported_apart(void **)
{
    usage_table &table = make();
    table.add(uses(1, 1, 100, 0));
    table.add(uses(1, 2, 100, 7));
    table.add(uses(2, 3, 100, 7));

    std::uint64_t cursor = 0;
    auto got = report(table, cursor, 7);
    assert_int_equal(got.size(), 2);
    assert_use("of store 7", got[0], 1, 2, 100);
    assert_use("of store 7", got[1], 2, 3, 100);
    table.add(uses(3, 4, 100, 7 + 16));  // whose tokens may wait in the same list
    std::uint64_t another = 0;
    got = report(table, another, 7 + 16);
    assert_int_equal(got.size(), 1);
    assert_use("of store 23", got[0], 3, 4, 100);
    std::uint64_t other = 0;
    got = report(table, other, 0);
    assert_int_equal(got.size(), 1);
    assert_use("of store 0", got[0], 1, 1, 100);
    assert_int_equal(report(table, cursor, 7).size(), 0);
    assert_int_equal(report(table, other, 0).size(), 0);
    assert_int_equal(report(table, other, 1).size(), 0);
}

void the_last_use_is_the_latest_whoever_saw_it(void **)
{
    usage_table &table = make();
    token_use late = uses(1, 1, 200);
    late.peer = from(9);
    table.add(late);
    table.add(uses(1, 1, 150));

    std::uint64_t cursor = 0;
    const auto got = report(table, cursor);
    assert_use("latest", got[0], 1, 2, 200);
    assert_bytes_equal("latest", got[0].peer.bytes, from(9).bytes);
}

void a_full_table_forgets_the_token_that_was_used_least_recently(void **)
{
    constexpr std::size_t size = 64 << 10;
    usage_table &table = make(size);
    const std::size_t capacity = table.capacity();
    for (std::size_t i = 0; i < capacity; i++) {
        table.add(uses(i, 1));
    }
    const auto behind = std::span{memory}.subspan(size);
    assert_true(std::ranges::all_of(behind, [](std::byte byte) { return byte == std::byte{filled_with}; }));
    assert_int_equal(table.size(), capacity);
    assert_int_equal(table.evicted(), 0);

    table.add(uses(0, 1));  // so that number 1 is the oldest
    table.add(uses(capacity, 1));
    assert_int_equal(table.size(), capacity);
    assert_int_equal(table.evicted(), 1);
    assert_int_equal(table.lost_uses(), 1);

    // What was confirmed is not lost.
    std::uint64_t cursor = 0;
    std::map<std::string, std::uint64_t> counts;
    for (auto got = report(table, cursor); !got.empty(); got = report(table, cursor)) {
        for (const token_use &one : got) {
            counts[std::string{one.id}] += one.count;
        }
    }
    assert_int_equal(counts.size(), capacity);
    assert_int_equal(counts["pat_0"], 2);
    assert_int_equal(counts.count("pat_1"), 0);
    for (std::size_t i = 0; i < capacity; i++) {
        table.add(uses(2 * capacity + i, 1));
    }
    assert_int_equal(table.evicted(), 1 + capacity);
    assert_int_equal(table.lost_uses(), 1);
    assert_int_equal(report(table, cursor).size(), std::min(capacity, report_size));
    table.count_lost(5);
    assert_int_equal(table.lost_uses(), 6);
}

void of_a_token_that_is_forgotten_what_was_not_confirmed_is_lost(void **)
{
    usage_table &table = make(64 << 10);
    std::uint64_t cursor = 0;
    table.add(uses(0, 5));
    assert_int_equal(report(table, cursor).size(), 1);
    assert_int_equal(report(table, cursor).size(), 0);
    table.add(uses(0, 2));
    for (std::size_t i = 1; i <= table.capacity(); i++) {
        table.add(uses(i, 1));
    }
    assert_int_equal(table.evicted(), 1);
    assert_int_equal(table.lost_uses(), 2);
}

void tokens_of_the_same_hash_are_counted_apart(void **)
{
    static use_batch batch;
    usage_table &table = make();
    for (const std::string_view id : {"pat_ue2r43xy", "pat_c54cvxdh"}) {  // of the same CRC-32C
        assert_true(batch.add(0, id, 100, from(1)));
    }
    batch.drain([&](const token_use &one) { table.add(one); });

    std::uint64_t cursor = 0;
    const auto got = report(table, cursor);
    assert_int_equal(got.size(), 2);
    assert_view_equal("first", got[0].id, "pat_ue2r43xy");
    assert_view_equal("second", got[1].id, "pat_c54cvxdh");
}

void the_tokens_that_were_used_most_come_first(void **)
{
    usage_table &table = make();
    std::array<token_use, 3> most;
    assert_int_equal(table.most_used(most), 0);
    assert_int_equal(table.most_used({}), 0);

    for (const std::size_t number : {5, 1, 9, 3, 7}) {
        table.add(uses(number, number));
    }
    assert_int_equal(table.most_used(most), 3);
    assert_use("most", most[0], 9, 9, 100);
    assert_use("second", most[1], 7, 7, 100);
    assert_use("third", most[2], 5, 5, 100);

    std::uint64_t cursor = 0;
    (void) report(table, cursor);
    (void) report(table, cursor);
    assert_int_equal(table.most_used(most), 3);
    assert_use("also when it was reported", most[0], 9, 9, 100);
    assert_int_equal(table.most_used({}), 0);
}

void of_tokens_that_were_used_as_often_the_ones_used_last_come_first(void **)
{
    usage_table &table = make();
    std::array<token_use, 3> most;
    for (const std::size_t number : {1, 2, 3, 4}) {
        table.add(uses(number, 7));
    }
    assert_int_equal(table.most_used(most), 3);
    assert_use("last", most[0], 4, 7, 100);
    assert_use("before it", most[1], 3, 7, 100);
    assert_use("before that", most[2], 2, 7, 100);
}

void of_very_many_tokens_the_ones_used_last_are_looked_at(void **)
{
    static std::array<std::byte, 16 << 20> large;
    usage_table *table = usage_table::make(large, first_cursor);
    assert_true(table->capacity() > usage_table::recent_size);

    table->add(uses(0, 1000));
    for (std::size_t i = 1; i < usage_table::recent_size; i++) {
        table->add(uses(i, 1));
    }
    std::array<token_use, 1> most;
    assert_int_equal(table->most_used(most), 1);
    assert_use("the oldest that is looked at", most[0], 0, 1000, 100);
    table->add(uses(usage_table::recent_size, 2));
    assert_int_equal(table->most_used(most), 1);
    assert_use("then it is not", most[0], usage_table::recent_size, 2, 100);
}

/// Against a model: a random mixture of uses, reports that arrive, are lost, or come twice. At the end each use was
/// reported exactly once, or counted as lost.
void nothing_is_lost_and_nothing_is_counted_twice(void **)
{
    for (unsigned seed = 1; seed <= 20; seed++) {
        std::srand(seed);
        usage_table &table = make(seed % 2 == 0 ? memory.size() : std::size_t{48} << 10);
        std::map<std::string, std::uint64_t> used;
        std::map<std::string, std::uint64_t> recorded;
        std::uint64_t confirmed = 0;
        std::uint64_t evicted_uses = 0;

        const auto take = [&](bool arrives) {
            std::uint64_t cursor = confirmed;
            const auto got = report(table, cursor);
            if (arrives && cursor > confirmed) {
                for (const token_use &one : got) {
                    recorded[std::string{one.id}] += one.count;
                }
                confirmed = cursor;
            }
            return !got.empty();
        };

        for (unsigned step = 0; step < 3000; step++) {
            if (std::rand() % 50 == 0) {
                take(std::rand() % 3 != 0);
            } else {
                const auto number = static_cast<std::size_t>(std::rand() % 2000);
                const auto count = static_cast<std::uint64_t>(std::rand() % 3 + 1);
                used[std::string{id(number)}] += count;
                table.add(uses(number, count, step));
            }
        }
        while (take(true)) {
        }

        std::uint64_t lost = 0;
        for (const auto &[name, count] : used) {
            assert_true(recorded[name] <= count);
            lost += count - recorded[name];
        }
        evicted_uses = table.lost_uses();
        if (table.evicted() == 0) {
            assert_int_equal(lost, 0);
        }
        assert_true(lost <= evicted_uses);
    }
}

}  // namespace

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_counts_uses_of_a_token_together),
        cmocka_unit_test(a_batch_that_is_full_takes_no_other_token_but_counts_those_that_it_has),
        cmocka_unit_test(an_id_may_be_as_long_as_ids_are),
        cmocka_unit_test(a_table_needs_room_for_a_few_tokens),
        cmocka_unit_test(what_is_reported_is_confirmed_by_the_next_question),
        cmocka_unit_test(a_report_that_is_not_confirmed_is_made_again_as_it_was),
        cmocka_unit_test(busy_tokens_do_not_keep_others_out_of_a_report),
        cmocka_unit_test(a_cursor_grows_beyond_one_from_the_future),
        cmocka_unit_test(a_cursor_is_a_number_of_at_most_a_year_from_now),
        cmocka_unit_test(stores_are_reported_apart),
        cmocka_unit_test(the_last_use_is_the_latest_whoever_saw_it),
        cmocka_unit_test(a_full_table_forgets_the_token_that_was_used_least_recently),
        cmocka_unit_test(of_a_token_that_is_forgotten_what_was_not_confirmed_is_lost),
        cmocka_unit_test(tokens_of_the_same_hash_are_counted_apart),
        cmocka_unit_test(the_tokens_that_were_used_most_come_first),
        cmocka_unit_test(of_tokens_that_were_used_as_often_the_ones_used_last_come_first),
        cmocka_unit_test(of_very_many_tokens_the_ones_used_last_are_looked_at),
        cmocka_unit_test(nothing_is_lost_and_nothing_is_counted_twice),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
