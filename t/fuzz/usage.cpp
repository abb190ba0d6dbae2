/// The batch and the table of uses against lists. Input: what workers and readers of reports do, one after the other.

#include "core/pat_usage.h"
#include "pat_fuzz.h"

#include <algorithm>
#include <array>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

using namespace pat;

namespace {

constexpr std::size_t max_tokens = 24;  ///< more than the table has room for
constexpr std::uint64_t first_cursor = usage_table::cursor_at(1000);

struct known_token {
    std::string id;
    std::uint32_t store;
    std::uint64_t total = 0;
    std::uint64_t confirmed = 0;
    std::uint64_t reported = 0;
    std::uint64_t report = 0;
    std::int64_t used_at = 0;
};

/// What the table is to do: tokens by last use, those with uses to report by how long they have waited.
class model {
public:
    std::list<known_token> by_use;  ///< least recently used first
    std::list<known_token *> waiting;
    std::uint64_t cursor = first_cursor;
    std::uint64_t evicted = 0;
    std::uint64_t lost = 0;

    void add(const token_use &use, std::size_t capacity)
    {
        auto token = std::ranges::find_if(
            by_use, [&](const known_token &known) { return known.id == use.id && known.store == use.store; });
        if (token != by_use.end()) {
            by_use.splice(by_use.end(), by_use, token);
        } else {
            if (by_use.size() == capacity) {
                known_token &old = by_use.front();
                if (std::erase(waiting, &old) > 0) {
                    lost += old.total - old.confirmed;
                }
                evicted++;
                by_use.pop_front();
            }
            by_use.push_back({std::string{use.id}, use.store});
        }

        known_token &known = by_use.back();
        known.total += use.count;
        known.used_at = std::max(known.used_at, use.used_at);
        if (std::ranges::find(waiting, &known) == waiting.end()) {
            waiting.push_back(&known);
        }
    }

    std::vector<known_token *> waiting_of(std::uint32_t store) const
    {
        std::vector<known_token *> result;
        std::ranges::copy_if(waiting, std::back_inserter(result),
                             [&](const known_token *token) { return token->store == store; });
        return result;
    }

    std::vector<known_token *> report(std::uint32_t store, std::uint64_t &asked)
    {
        auto tokens = waiting_of(store);
        if (!tokens.empty() && tokens.front()->report != 0 && tokens.front()->report <= asked) {
            const std::uint64_t confirmed = tokens.front()->report;
            for (known_token *token : tokens) {
                if (token->report != confirmed) {
                    break;
                }
                token->confirmed = token->reported;
                token->report = 0;
                std::erase(waiting, token);
                if (token->total != token->confirmed) {
                    waiting.push_back(token);
                }
            }
            tokens = waiting_of(store);
        }
        if (tokens.empty()) {
            return tokens;
        }

        const std::uint64_t again = tokens.front()->report;
        if (again != 0) {
            std::erase_if(tokens, [&](const known_token *token) { return token->report != again; });
            asked = again;
        } else {
            tokens.resize(std::min<std::size_t>(tokens.size(), usage_table::report_size));
            asked = std::max(cursor, asked) + 1;
            for (known_token *token : tokens) {
                token->reported = token->total;
                token->report = asked;
            }
        }
        cursor = std::max(cursor, asked);
        return tokens;
    }
};

class scenario {
public:
    explicit scenario(std::size_t bytes)
        : memory_(bytes),
          table_{usage_table::make(std::as_writable_bytes(std::span{memory_}), first_cursor)}
    {
    }

    [[nodiscard]] bool is_possible() const { return table_ != nullptr && table_->capacity() <= max_tokens; }

    void step(fuzz::input &in)
    {
        switch (in.byte() % 8) {
        case 0:
        case 1:
        case 2:
        case 3: use(in); break;
        case 4: drain(); break;
        case 5:
        case 6: report(in); break;
        default: most_used(in); break;
        }
        expect(table_->size() == right_.by_use.size());
        expect(table_->evicted() == right_.evicted && table_->lost_uses() == right_.lost);
        expect(table_->cursor() == right_.cursor);
    }

private:
    void use(fuzz::input &in)
    {
        const std::uint8_t token = in.byte();
        const std::string id = token < 250 ? std::string(1 + token % 64, static_cast<char>('a' + token % 7)) : "";
        const std::uint32_t store = in.byte() % 4 * 8U;  // two of them share a list
        const std::int64_t at = in.byte();
        if (batch_.add(store, id, at, {})) {
            auto &use = batched_[{store, id}];
            use.first++;
            use.second = at;
            if (std::ranges::find(order_, std::pair{store, id}) == order_.end()) {
                order_.emplace_back(store, id);
            }
        }
    }

    void drain()
    {
        auto next = order_.begin();
        batch_.drain([&](const token_use &use) {
            expect(next != order_.end());
            const auto &[count, at] = batched_.at(*next);
            expect(use.store == next->first && use.id == next->second && use.count == count && use.used_at == at);
            next++;
            table_->add(use);
            right_.add(use, table_->capacity());
        });
        expect(next == order_.end() && batch_.is_empty());
        order_.clear();
        batched_.clear();
    }

    void report(fuzz::input &in)
    {
        const std::uint32_t store = in.byte() % 4 * 8U;
        const std::uint64_t cursors[] = {0, last_, last_ - 1, last_ + 1, first_cursor, first_cursor + 5};
        std::uint64_t cursor = in.one_of(cursors);
        std::uint64_t right_cursor = cursor;

        static std::array<token_use, usage_table::report_size> uses;
        const std::size_t count = table_->report(store, cursor, uses);
        const auto right = right_.report(store, right_cursor);
        expect(count == right.size() && cursor == right_cursor);
        for (std::size_t i = 0; i < count; i++) {
            expect(uses[i].id == right[i]->id && uses[i].store == store && uses[i].used_at == right[i]->used_at);
            expect(uses[i].count == right[i]->reported - right[i]->confirmed && uses[i].count > 0);
        }
        last_ = cursor;
    }

    void most_used(fuzz::input &in)
    {
        std::vector<token_use> uses(in.up_to(5));
        uses.resize(table_->most_used(uses));
        std::vector<std::uint64_t> totals;
        for (const known_token &token : right_.by_use) {
            totals.push_back(token.total);
        }
        std::ranges::sort(totals, std::greater{});
        expect(uses.size() <= totals.size());
        for (std::size_t i = 0; i < uses.size(); i++) {
            expect(uses[i].count == totals[i]);
        }
    }

    std::vector<std::uint64_t> memory_;
    usage_table *table_;
    use_batch batch_;
    model right_;
    std::uint64_t last_ = 0;
    std::map<std::pair<std::uint32_t, std::string>, std::pair<std::uint64_t, std::int64_t>> batched_;
    std::vector<std::pair<std::uint32_t, std::string>> order_;
};

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    fuzz::input in{data, size};
    const auto tokens = std::make_unique<scenario>(in.up_to(400));
    while (tokens->is_possible() && !in.has_ended()) {
        tokens->step(in);
    }
    return 0;
}
