#pragma once

#include "core/pat_record.h"
#include "core/pat_token.h"

#include "cli/pat_command.h"

#include <string>
#include <string_view>

#include <openssl/crypto.h>

/// What the commands share that make tokens.
namespace pat::cli {

/// A token that is wiped when it goes out of scope.
class fresh_token {
public:
    explicit fresh_token(std::string_view prefix);
    fresh_token(const fresh_token &) = delete;
    fresh_token &operator=(const fresh_token &) = delete;
    ~fresh_token() { OPENSSL_cleanse(&token_, sizeof token_); }

    [[nodiscard]] std::string_view text() const noexcept { return token_.text(); }

private:
    issued_token token_;
};

/// The prefix of a token of the form we issue; empty for one of another form.
[[nodiscard]] std::string issued_prefix(std::string_view token);

/// An id of 16 characters of base62, which is 95 bits: among 2^32 tokens, two have the same with a probability of
/// 2^-32.
[[nodiscard]] std::string generate_id();

/// The value of --expires-in. Throws bad_value.
[[nodiscard]] std::int64_t read_lifetime(const std::string &text);

/// Throws a failure if no token can be made and handed over: for a wrong clock, prefix or standard output.
void prepare_to_issue(const command_context &context, const std::string &prefix);

/// Prints the token, once, which is in the store by now.
void print_token(std::string_view token, const token_record &issued, bool json);

/// Until when a token is valid, as the end of a sentence.
[[nodiscard]] std::string describe_end(std::int64_t expires_at);

}  // namespace pat::cli
