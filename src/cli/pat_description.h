#pragma once

#include "core/pat_policy.h"
#include "core/pat_record.h"
#include "writer/pat_snapshot.h"

#include "cli/pat_command.h"
#include "cli/pat_output.h"

#include <cstdint>
#include <string>

/// How a token is described, to people and to programs.
namespace pat::cli {

/// The verdict on a token itself, whatever the address of the client and the required scopes.
[[nodiscard]] access_verdict status_of(token_record token, std::int64_t now);

/// Why a token is refused although nobody revoked it; empty if it is not refused.
[[nodiscard]] const char *cause_of(const token_record &token) noexcept;

/// Writes a token as one line of JSON.
void write_json(const command_context &context, const token_digest &digest, const token_record &token,
                output_stream &output);

/// A time, and how far it is from now; empty if it is not set.
[[nodiscard]] std::string show_time(std::int64_t time, std::int64_t now);

/// The format of a store, and how many of its records are not in it.
[[nodiscard]] std::string describe_format(const meta_record &info, std::uint64_t other_format);

/// Opens the store for reading.
void open(const command_context &context, store::snapshot &out);

}  // namespace pat::cli
