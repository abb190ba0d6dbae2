#include "pat_temp_store.h"

#include <cinttypes>

#include <dlfcn.h>

/// Writing to a store whose pages are damaged.
namespace {

using namespace pat;
using namespace pat::test;
using store::fault_kind;

constexpr unsigned tokens = 1500;

/// What the system says that its pages have, to a test that wants a file of another system; 0 for the truth.
long system_page_size;

std::uint64_t random_state = 42;

std::uint64_t next_random() noexcept
{
    random_state = random_state * 6364136223846793005 + 1442695040888963407;
    return random_state >> 16;
}

/// Enough to have a record lie on pages of its own.
std::string_view many_scopes(std::size_t length) noexcept
{
    static char text[max_record_length];
    std::memset(text, 'a', sizeof text);
    return {text, length};
}

/// A store with all that a file can have: three levels, long values, and a list of free pages.
path make_full_store(const char *name = "store", long page_size = 0)
{
    system_page_size = page_size;
    const path store = make_store(name);
    system_page_size = 0;  // maps begin where a page of this system does

    put_many(store, tokens);
    commit(store, [](store::transaction &change) {
        for (unsigned i = 0; i < tokens; i += 50) {
            const token_text text = token(i);
            token_record one = record_of(text, i % 2);
            one.scopes = many_scopes(3000);
            if (const store::fault problem = change.put(plain(text.text), one)) {
                return problem;
            }
        }
        return store::fault{};
    });
    for (unsigned i = 0; i < 5; i++) {
        put(store, i * 7 + 1, 1);
    }
    return store;
}

constexpr unsigned revoked_tokens[] = {700, 50, tokens + 1};
constexpr unsigned removed_from = 100;
constexpr unsigned removed_to = 400;

constexpr bool is_changed(unsigned number) noexcept
{
    return number == 700 || number == 50 || (number >= removed_from && number < removed_to);
}

/// What a writer does: it revokes, makes a token and removes some.
store::fault change_store(const path &store)
{
    store::writer writer;
    store::fault problem = writer.open(store.text, map_size);
    for (const unsigned number : revoked_tokens) {
        if (problem) {
            return problem;
        }
        problem = writer.update([number](store::transaction &change) {
            const token_text text = token(number);
            return change.put(plain(text.text), record_of(text, 1));
        });
    }
    if (problem) {
        return problem;
    }
    return writer.update([](store::transaction &change) {
        for (unsigned i = removed_from; i < removed_to; i++) {
            if (const store::fault failed = change.bury(plain(token(i).text), {})) {
                return failed;
            }
        }
        return store::fault{};
    });
}

/// Which tokens a reader finds.
std::array<bool, tokens> readable(const path &store)
{
    std::array<bool, tokens> result{};
    auto *reader = new store::reader;
    (void) reader->open(store.text, map_size, 1000);
    for (unsigned i = 0; i < tokens; i++) {
        const answer got = look(*reader, i);
        result[i] = got.found && got.right;
        look_after(*reader, store);
    }
    delete reader;
    return result;
}

/// Damages a page as a disk or a program may.
void damage(char *page, const char *other) noexcept
{
    const auto at = static_cast<std::size_t>(next_random() % page_size);
    const auto in_header = static_cast<std::size_t>(next_random() % 16);
    const auto in_offsets = static_cast<std::size_t>(16 + next_random() % 60);
    switch (next_random() % 6) {
    case 0: page[at] = static_cast<char>(page[at] ^ 1 << next_random() % 8); break;
    case 1: page[in_header] = static_cast<char>(next_random()); break;
    case 2: page[in_offsets] = static_cast<char>(next_random()); break;
    case 3: std::memset(page, static_cast<int>(next_random() % 2 * 0xff), page_size); break;
    case 4: std::memcpy(page, other, page_size); break;
    default:
        for (std::size_t i = at & ~std::size_t{7}; i < page_size && i < at + 16; i++) {
            page[i] = static_cast<char>(next_random());
        }
    }
}

/// Whether LMDB, which believes a page, looks for its keys behind it: what it finds there is other pages', and changes
/// with them.
bool leads_beyond(const char *page) noexcept
{
    const auto load = [page](std::size_t at) {
        std::uint16_t number;
        std::memcpy(&number, page + at, sizeof number);
        return std::size_t{number};
    };
    constexpr std::size_t lower_at = 12;
    constexpr std::size_t offsets_at = 16;
    constexpr std::size_t key_size_at = 6;
    constexpr std::size_t key_at = 8;

    const std::size_t end = load(lower_at);
    if (end > page_size) {
        return true;
    }
    for (std::size_t at = offsets_at; at + 1 < end; at += 2) {
        const std::size_t node = load(at);
        if (node + key_at > page_size || node + key_at + load(node + key_size_at) > page_size) {
            return true;
        }
    }
    return false;
}

void read_page(const path &file, std::uint64_t number, char *to)
{
    assert_int_equal(pread(descriptor_of(file), to, page_size, static_cast<off_t>(number) * page_size), page_size);
}

void writer_rule_10_no_damaged_page_ends_the_writer_or_costs_a_record(void **)
{
    const char *wanted = std::getenv("PAT_MUTATIONS");
    const unsigned mutations = wanted != nullptr ? static_cast<unsigned>(std::atoi(wanted)) : 150;

    const path store = make_full_store();
    const path data = store / "data.mdb";
    const path good = folder / "good";
    copy_file(data, good);
    const auto pages = static_cast<std::uint64_t>(size_of(good)) / page_size;

    unsigned told = 0;
    for (unsigned i = 0; i < mutations; i++) {
        static char page[page_size];
        static char other[page_size];
        const std::uint64_t number = 2 + next_random() % (pages - 2);
        read_page(good, number, page);
        read_page(good, 2 + next_random() % (pages - 2), other);
        damage(page, other);
        copy_file(good, data);
        patch(data, static_cast<off_t>(number) * page_size, page, page_size);

        const auto before = readable(store);
        const int status = status_of(start_child([&] {
            constexpr int is_told = 2;
            constexpr int is_told_badly = 3;
            const store::fault problem = change_store(store);
            switch (problem.kind) {
            case fault_kind::none: return true;
            case fault_kind::damaged:
            case fault_kind::truncated:
            case fault_kind::bad_record:
            case fault_kind::not_a_store: _exit(is_told);
            default:
                std::fprintf(stderr, "%s (%s)\n", store::message(problem), store::detail(problem));
                _exit(is_told_badly);
            }
        }));
        const bool is_told = WIFEXITED(status) && WEXITSTATUS(status) == 2;
        if (status != 0 && !is_told) {
            print_error("mutation %u, of page %" PRIu64 ": status %x\n", i, number, static_cast<unsigned>(status));
            fail();
        }
        told += is_told ? 1 : 0;

        const bool is_of_page = !leads_beyond(page);
        const auto after = readable(store);
        for (unsigned k = 0; k < tokens && is_of_page; k++) {
            if (before[k] && !after[k] && !is_changed(k)) {
                print_error("mutation %u, of page %" PRIu64 ": token %u is gone, which was %stold\n", i, number, k,
                            is_told ? "" : "not ");
                fail();
            }
        }
    }
    print_message("%u mutations, of which the writer told %u\n", mutations, told);
    assert_true(told > mutations / 20);
}

/// Whatever a writer makes of a tree is sound: nothing of it is taken for damage.
void writer_rule_10_a_good_store_stays_good(void **)
{
    const path store = make_store();
    in_child([&] {
        constexpr unsigned numbers = 3000;
        store::writer writer;
        if (writer.open(store.text, map_size)) {
            return false;
        }
        for (unsigned round = 0; round <= 60; round++) {
            const store::fault problem = writer.update([&](store::transaction &change) {
                const bool is_last = round == 60;
                const std::uint64_t kind = is_last ? 2 : next_random() % 3;
                const std::uint64_t from = is_last ? 0 : next_random() % numbers;
                const std::uint64_t changes = is_last ? numbers : next_random() % 400;
                const bool in_order = is_last || next_random() % 2 == 0;
                for (std::uint64_t i = 0; i < changes; i++) {
                    const token_text text =
                        token(static_cast<unsigned>((in_order ? from + i : next_random()) % numbers));
                    token_record one = record_of(text, 1);
                    one.scopes =
                        many_scopes(static_cast<std::size_t>(next_random() % 20 == 0 ? 2900 : next_random() % 300));
                    const store::fault failed = kind == 2   ? change.erase(plain(text.text))
                                                : kind == 1 ? change.bury(plain(text.text), {})
                                                            : change.put(plain(text.text), one);
                    if (failed) {
                        return failed;
                    }
                }
                return store::fault{};
            });
            if (problem) {
                std::fprintf(stderr, "round %u: %s (%s)\n", round, store::message(problem), store::detail(problem));
                return false;
            }
        }
        return true;
    });
}

/// LMDB leaves a value its pages that becomes shorter in the same transaction.
void writer_rule_10_a_long_value_that_became_shorter_is_no_damage(void **)
{
    const path store = make_store();
    put_many(store, tokens);
    const token_text text = token(7);

    const auto put_long = [&](store::transaction &change, std::size_t length) {
        token_record one = record_of(text);
        record_buffer buffer;
        one.scopes = many_scopes(length - encode(make_token_key(plain(text.text)), one, buffer).bytes.size());
        return change.put(plain(text.text), one);
    };
    commit(store, [&](store::transaction &change) {
        const store::fault problem = put_long(change, max_texts_length);
        return problem ? problem : put_long(change, 3000);
    });

    for (const unsigned number : {7U, 8U}) {
        in_child([&] {
            store::writer writer;
            const token_text other = token(number);
            const auto revoke = [&](store::transaction &change) {
                return change.put(plain(other.text), record_of(other, 1));
            };
            return !writer.open(store.text, map_size) && !writer.update(revoke);
        });
    }
    store::reader *reader = open_reader(store);
    for (unsigned i = 0; i < tokens; i++) {
        assert_found(*reader, i);
    }
    delete reader;
}

/// A list of free pages that names one in use would have it written over.
void writer_rule_10_a_page_in_use_is_not_taken_for_a_free_one(void **)
{
    const path store = make_store();
    put_many(store, tokens);
    put(store, 1);
    put(store, 2);
    const path data = store / "data.mdb";

    constexpr off_t transaction_at = 144;
    constexpr off_t free_root_at = 80;
    const off_t header =
        read_number(data, transaction_at) > read_number(data, page_size + transaction_at) ? 0 : page_size;
    const auto list = static_cast<off_t>(read_number(data, header + free_root_at)) * page_size;
    const off_t node = list + static_cast<off_t>(read_number(data, list + 16) & 0xffff);
    const off_t numbers = node + 16;
    const auto count = static_cast<off_t>(read_number(data, numbers));
    assert_in_range(count, 2, 500);

    // The lowest free page becomes one that is a leaf of the tree, and the list stays in its order.
    const std::uint64_t before = read_number(data, numbers + (count - 1) * 8);
    std::uint64_t used = 0;
    for (std::uint64_t page = 2; page < before; page++) {
        const auto at = static_cast<off_t>(page) * page_size;
        bool is_free = false;
        for (off_t i = 1; i <= count; i++) {
            is_free = is_free || read_number(data, numbers + i * 8) == page;
        }
        if (!is_free && at != list && (read_number(data, at + 8) >> 16 & 0xffff) == 2) {
            used = page;
        }
    }
    assert_true(used != 0);
    patch(data, numbers + count * 8, &used, sizeof used);

    in_child([&] {
        store::writer writer;
        const token_text text = token(3);
        const auto change = [&](store::transaction &to) { return to.put(plain(text.text), record_of(text)); };
        return !writer.open(store.text, map_size) && writer.update(change).kind == fault_kind::damaged;
    });
    // A reader does not know better, and refuses the tokens on that page.
    store::reader *reader = open_reader(store);
    unsigned found = 0;
    for (unsigned i = 0; i < tokens; i++) {
        const answer got = look(*reader, i);
        assert_true(got.right || got.problem.kind == fault_kind::damaged);
        found += got.right ? 1 : 0;
    }
    assert_in_range(found, 1, tokens - 1);
    delete reader;
}

/// The map is found by the page that a key lies on, and that need not begin where one of the system does.
void writer_rule_10_pages_may_have_another_size_than_those_of_the_system(void **)
{
    struct {
        const char *name;
        long page_size;
    } const files[] = {{"smaller", 2048}, {"larger", 16384}};
    for (const auto &file : files) {
        const path store = make_full_store(file.name, file.page_size);

        for (unsigned number = 0; number < 40; number++) {
            in_child([&] {
                store::writer writer;
                const token_text text = token(number);
                const auto change = [&](store::transaction &to) {
                    return to.put(plain(text.text), record_of(text, 1));
                };
                return !writer.open(store.text, map_size) && !writer.update(change);
            });
        }
        const auto found = readable(store);
        assert_int_equal(std::ranges::count(found, true), tokens);
    }
}

/// Nor is it made a new store of, with a list of free pages that nobody has looked at.
void writer_rule_10_a_store_that_has_lost_its_tree_is_damaged(void **)
{
    const path store = make_full_store();
    const path data = store / "data.mdb";
    constexpr off_t main_root_at = 128;
    constexpr std::uint64_t no_page = ~std::uint64_t{0};
    for (const off_t header : {off_t{0}, off_t{page_size}}) {
        patch(data, header + main_root_at, &no_page, sizeof no_page);
    }

    in_child(
        [&] { return store::writer::create(store.text, std::nullopt, plain, map_size).kind == fault_kind::damaged; });
}

/// What an operator is asked about is written like all else.
void writer_rule_10_what_is_held_back_is_written_to_no_damaged_page(void **)
{
    const path store = make_store();
    put_many(store, tokens);
    const path data = store / "data.mdb";
    const auto pages = static_cast<off_t>(size_of(data)) / page_size;

    // LMDB copies what lies behind this offset, which lies behind the page.
    constexpr std::uint16_t upper = 0xfff0;
    constexpr off_t flags_at = 10;
    constexpr off_t upper_at = 14;
    constexpr std::uint64_t leaf = 2;
    for (off_t page = 2; page < pages; page++) {
        if ((read_number(data, page * page_size + flags_at) & 0xffff) == leaf) {
            patch(data, page * page_size + upper_at, &upper, sizeof upper);
        }
    }

    // After a fault that had to be trapped, no transaction would begin.
    in_child([&] {
        store::writer writer;
        const auto hold = [](store::transaction &change) {
            store::held_snapshot what;
            what.held_at = 1;
            return change.hold(what);
        };
        const auto begin_only = [](store::transaction &) { return store::fault{fault_kind::exists}; };
        return !writer.open(store.text, map_size) && writer.update(hold).kind == fault_kind::damaged
               && writer.update(begin_only).kind == fault_kind::exists;
    });
}

}  // namespace

/// LMDB asks it for the size of a page; the linker prefers this to the library's.
extern "C" long sysconf(int name) noexcept
{
    static const auto system = reinterpret_cast<long (*)(int)>(dlsym(RTLD_NEXT, "sysconf"));
    return name == _SC_PAGESIZE && system_page_size != 0 ? system_page_size : system(name);
}

int main()
{
    const CMUnitTest tests[] = {
        store_test(writer_rule_10_a_good_store_stays_good),
        store_test(writer_rule_10_no_damaged_page_ends_the_writer_or_costs_a_record),
        store_test(writer_rule_10_a_long_value_that_became_shorter_is_no_damage),
        store_test(writer_rule_10_a_page_in_use_is_not_taken_for_a_free_one),
        store_test(writer_rule_10_pages_may_have_another_size_than_those_of_the_system),
        store_test(writer_rule_10_a_store_that_has_lost_its_tree_is_damaged),
        store_test(writer_rule_10_what_is_held_back_is_written_to_no_damaged_page),
    };
    return cmocka_run_group_tests_name("store pages", tests, nullptr, nullptr);
}
