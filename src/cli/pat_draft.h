#pragma once

#include "core/pat_policy.h"
#include "core/pat_record.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace pat::cli {

/// A record under construction, which owns the memory that a `token_record` only points to. Its functions throw
/// bad_value.
class record_draft : public record_scalars {
public:
    std::string id;
    std::string subject;
    std::string name;

    /// Adds one scope.
    void add_scope(std::string_view scope);

    /// Adds a range, as text.
    void add_cidr(std::string_view text);

    void add_claim(const token_claim &claim);

    /// The record, if it satisfies validate() and no text that goes into a header has blank ends. Valid until the next
    /// change.
    [[nodiscard]] token_record view() const;

private:
    std::string scopes_;
    std::vector<std::byte> cidrs_;
    record_buffer claims_;
    std::size_t claims_length_ = 0;
};

/// Throws bad_value, with a hint, for a list with commas, semicolons or bars, or one of JSON or PostgreSQL.
void require_no_other_list(std::string_view text, const char *hint);

/// Throws bad_value for a list of scopes without any, and for a list of another kind than separated by spaces, which
/// would become a single scope that no location requires.
void require_scopes(std::string_view text);

/// Calls `visit(scope)` for each scope of a text, as require_scopes() wants it.
template <typename Visit>
void for_each_scope_in(std::string_view text, const Visit &visit)
{
    require_scopes(text);
    for (auto scope = take_scope(text); !scope.empty(); scope = take_scope(text)) {
        visit(scope);
    }
}

/// Throws bad_value unless `text` is UTF-8: JSON, headers and terminals take nothing else.
void require_utf8(std::string_view text);

}  // namespace pat::cli
