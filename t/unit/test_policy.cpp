#include "pat_cmocka.h"

#include "core/pat_bytes.h"
#include "core/pat_policy.h"

#include <array>
#include <optional>

namespace {

using namespace pat;
using namespace pat::test;
using namespace std::string_view_literals;

constexpr std::int64_t t = 1700000000;  ///< "now", unless a test says otherwise

/// 192.0.2.0/24, 2001:db8::/32
constexpr std::string_view some_cidrs = "\x04\x18\xc0\x00\x02\x00"
                                        "\x06\x20\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"sv;

token_record a_record() noexcept
{
    token_record result;
    result.id = "tok_1";
    result.subject = "user-42";
    result.scopes = "read write";
    return result;
}

address peer(const char *text)
{
    const auto result = parse_address(text);
    assert_row(text, result);
    return *result;
}

void the_first_fault_in_the_order_is_the_verdict(void **)
{
    struct row {
        const char *label;
        bool revoked, revoked_here, expired, early, elsewhere, without_scope;
        access_verdict want;
    };
    static constexpr row rows[] = {
        {"no fault", 0, 0, 0, 0, 0, 0, access_verdict::ok},
        {"revoked by the source", 1, 0, 0, 0, 0, 0, access_verdict::revoked},
        {"revoked on this host", 0, 1, 0, 0, 0, 0, access_verdict::revoked},
        {"revoked twice", 1, 1, 0, 0, 0, 0, access_verdict::revoked},
        {"expired", 0, 0, 1, 0, 0, 0, access_verdict::expired},
        {"not yet valid", 0, 0, 0, 1, 0, 0, access_verdict::not_yet_valid},
        {"from elsewhere", 0, 0, 0, 0, 1, 0, access_verdict::address_denied},
        {"without a scope", 0, 0, 0, 0, 0, 1, access_verdict::scope_denied},

        {"revoked before expired", 1, 0, 1, 0, 0, 0, access_verdict::revoked},
        {"revoked here before expired", 0, 1, 1, 0, 0, 0, access_verdict::revoked},
        {"revoked before not yet valid", 1, 0, 0, 1, 0, 0, access_verdict::revoked},
        {"revoked before address", 0, 1, 0, 0, 1, 0, access_verdict::revoked},
        {"revoked before scope", 1, 0, 0, 0, 0, 1, access_verdict::revoked},
        {"revoked before all", 1, 1, 1, 1, 1, 1, access_verdict::revoked},
        {"expired before not yet valid", 0, 0, 1, 1, 0, 0, access_verdict::expired},
        {"expired before address", 0, 0, 1, 0, 1, 0, access_verdict::expired},
        {"expired before scope", 0, 0, 1, 0, 0, 1, access_verdict::expired},
        {"expired before all", 0, 0, 1, 1, 1, 1, access_verdict::expired},
        {"not yet valid before address", 0, 0, 0, 1, 1, 0, access_verdict::not_yet_valid},
        {"not yet valid before scope", 0, 0, 0, 1, 0, 1, access_verdict::not_yet_valid},
        {"not yet valid before both", 0, 0, 0, 1, 1, 1, access_verdict::not_yet_valid},
        {"address before scope", 0, 0, 0, 0, 1, 1, access_verdict::address_denied},
    };

    static constexpr scope_requirement needs_read{"read"};
    static constexpr scope_requirement needs_admin{"admin"};

    for (const row &row : rows) {
        token_record token = a_record();
        token.revoked_at = row.revoked ? t - 100 : 0;
        token.local_revoked_at = row.revoked_here ? t - 100 : 0;
        token.expires_at = row.expired ? t - 10 : t + 10;
        token.not_before = row.early ? t + 10 : t - 10;
        token.cidrs = bytes_of(some_cidrs);

        facts request;
        request.peer = peer(row.elsewhere ? "198.51.100.1" : "192.0.2.1");
        request.required = {row.without_scope ? &needs_admin : &needs_read, 1};

        assert_view_equal(row.label, name(decide(token, request, t)), name(row.want));
    }
}

void a_token_is_valid_from_not_before_until_expires_at(void **)
{
    struct row {
        const char *label;
        std::int64_t not_before;
        std::int64_t expires_at;
        std::int64_t leeway;
        std::int64_t now;
        access_verdict want;
    };
    static constexpr row rows[] = {
        {"one second before it expires", 0, t, 0, t - 1, access_verdict::ok},
        {"at expires_at", 0, t, 0, t, access_verdict::expired},
        {"one second later", 0, t, 0, t + 1, access_verdict::expired},
        {"long after", 0, t, 0, t + 1000000000, access_verdict::expired},
        {"expires_at of 1", 0, 1, 0, t, access_verdict::expired},
        {"expires_at of 1, at the start", 0, 1, 0, 0, access_verdict::ok},

        {"one second before not_before", t, 0, 0, t - 1, access_verdict::not_yet_valid},
        {"at not_before", t, 0, 0, t, access_verdict::ok},
        {"one second after not_before", t, 0, 0, t + 1, access_verdict::ok},

        {"never expires", 0, 0, 0, 253402300799, access_verdict::ok},
        {"from the start", 0, 0, 0, 0, access_verdict::ok},
        {"never expires, with leeway", 0, 0, 60, 253402300799, access_verdict::ok},

        {"leeway: last second", 0, t, 60, t + 59, access_verdict::ok},
        {"leeway: expired", 0, t, 60, t + 60, access_verdict::expired},
        {"leeway: one second later", 0, t, 60, t + 61, access_verdict::expired},
        {"leeway: at expires_at", 0, t, 60, t, access_verdict::ok},
        {"leeway: one second too early", t, 0, 60, t - 61, access_verdict::not_yet_valid},
        {"leeway: first second", t, 0, 60, t - 60, access_verdict::ok},
        {"leeway: second second", t, 0, 60, t - 59, access_verdict::ok},
        {"leeway larger than the time", 0, t, 60, 10, access_verdict::ok},

        {"valid for one second: before", t, t + 1, 0, t - 1, access_verdict::not_yet_valid},
        {"valid for one second: in it", t, t + 1, 0, t, access_verdict::ok},
        {"valid for one second: after", t, t + 1, 0, t + 1, access_verdict::expired},
        {"never valid", t, t, 0, t, access_verdict::expired},
        {"never valid, before", t, t, 0, t - 1, access_verdict::not_yet_valid},
        {"leeway opens an empty span", t, t, 1, t, access_verdict::ok},
    };

    for (const row &row : rows) {
        token_record token = a_record();
        token.not_before = row.not_before;
        token.expires_at = row.expires_at;

        facts request;
        request.leeway = row.leeway;

        assert_view_equal(row.label, name(decide(token, request, row.now)), name(row.want));
    }
}

void a_subject_that_no_upstream_could_be_told_is_refused_as_a_revoked_token_is(void **)
{
    struct row {
        const char *subject;
        access_verdict want;
    };
    static constexpr row rows[] = {
        {"user 42", access_verdict::ok},         {" user-42", access_verdict::revoked},
        {"user-42 ", access_verdict::revoked},   {" ", access_verdict::revoked},
        {"  ", access_verdict::revoked},         {"\xc2\xa0x\xc2\xa0", access_verdict::ok},
        {"user\r\n42", access_verdict::revoked}, {"user-42-of-somebody\x7f", access_verdict::revoked},
    };
    for (const row &row : rows) {
        token_record token = a_record();
        token.subject = row.subject;
        assert_number_equal(row.subject, decide(token, {}, t), row.want);
        token.expires_at = t - 1;
        assert_number_equal(row.subject, decide(token, {}, t),
                            row.want == access_verdict::ok ? access_verdict::expired : row.want);
        assert_false(token.is_revoked());
    }
}

void a_revoked_token_is_revoked_at_any_time(void **)
{
    struct row {
        const char *label;
        std::int64_t revoked_at;
        std::int64_t local_revoked_at;
        std::int64_t leeway;
    };
    static constexpr row rows[] = {
        {"by the source", t - 1, 0, 0},
        {"by the source, this second", t, 0, 0},
        {"by the source, whose clock is ahead", t + 3600, 0, 0},
        {"by the source, long ago", 1, 0, 0},
        {"by the source, with leeway", t, 0, 86400},
        {"here", 0, t - 1, 0},
        {"here, this second", 0, t, 0},
        {"here, by a clock that was ahead", 0, t + 3600, 0},
        {"here, with leeway", 0, t, 86400},
        {"by both", t, t, 0},
    };

    for (const row &row : rows) {
        token_record token = a_record();
        token.revoked_at = row.revoked_at;
        token.local_revoked_at = row.local_revoked_at;

        facts request;
        request.leeway = row.leeway;

        assert_row(row.label, token.is_revoked());
        assert_view_equal(row.label, name(decide(token, request, t)), "revoked");
    }
    assert_false(a_record().is_revoked());

    token_record denied = a_record();
    denied.denied = true;
    assert_view_equal("denied", name(decide(denied, facts{}, t)), "revoked");
}

void a_token_with_ranges_is_used_from_there_only(void **)
{
    struct row {
        const char *peer;
        access_verdict want;
    };
    static constexpr row rows[] = {
        {"192.0.2.1", access_verdict::ok},
        {"::ffff:192.0.2.1", access_verdict::ok},
        {"2001:db8::1", access_verdict::ok},
        {"192.0.3.1", access_verdict::address_denied},
        {"::ffff:192.0.3.1", access_verdict::address_denied},
        {"2001:db9::1", access_verdict::address_denied},
        {"::1", access_verdict::address_denied},
    };

    token_record token = a_record();
    token.cidrs = bytes_of(some_cidrs);

    for (const row &row : rows) {
        facts request;
        request.peer = peer(row.peer);
        assert_view_equal(row.peer, name(decide(token, request, t)), name(row.want));
        assert_view_equal(row.peer, name(decide(a_record(), request, t)), "ok");
    }
}

void a_peer_without_an_address_is_refused_where_there_are_ranges(void **)
{
    token_record everywhere = a_record();
    everywhere.cidrs = bytes_of("\x04\x00\x00\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
                                "\x00\x00\x00"sv);
    assert_true(are_cidrs(everywhere.cidrs));

    assert_view_equal("ranges", name(decide(everywhere, facts{}, t)), "address_denied");
    assert_view_equal("no ranges", name(decide(a_record(), facts{}, t)), "ok");
}

void a_requirement_asks_for_all_of_its_scopes_or_for_any(void **)
{
    struct row {
        const char *label;
        std::string_view granted;
        std::string_view required;
        bool all;  ///< what is expected if all of them are asked for
        bool any;
    };
    static constexpr row rows[] = {
        {"nothing asked", "read write", "", true, true},
        {"nothing asked and nothing granted", "", "", true, true},
        {"only spaces asked", "read", "   ", true, true},
        {"only spaces asked, nothing granted", "", " ", true, true},
        {"nothing granted", "", "read", false, false},
        {"the only one", "read", "read", true, true},
        {"first", "read write admin", "read", true, true},
        {"in the middle", "read write admin", "write", true, true},
        {"last", "read write admin", "admin", true, true},
        {"not granted", "read write admin", "delete", false, false},
        {"all of them", "read write", "read write", true, true},
        {"all of them, in another order", "read write", "write read", true, true},
        {"some of them", "read write admin", "read admin", true, true},
        {"the first is missing", "write", "read write", false, true},
        {"the last is missing", "read", "read write", false, true},
        {"the one in the middle is missing", "read admin", "read write admin", false, true},
        {"only the one in the middle is there", "write", "read write admin", false, true},
        {"all are missing", "delete", "read write admin", false, false},
        {"one twice", "read", "read read", true, true},
        {"one twice, missing", "write", "read read", false, false},

        {"spaces in front", "read write", "   read", true, true},
        {"spaces behind", "read write", "read   ", true, true},
        {"spaces between", "read write", "read    write", true, true},
        {"spaces everywhere", "read write", "  read   write  ", true, true},
        {"spaces everywhere, the first is missing", "write", "  read   write  ", false, true},
        {"spaces everywhere, the last is missing", "read", "  read   write  ", false, true},
        {"spaces in what is granted", "  read   write  ", "read write", true, true},

        {"start of what is granted", "read:orders", "read", false, false},
        {"end of what is granted", "read:orders", "orders", false, false},
        {"longer than what is granted", "read", "read:orders", false, false},
        {"another case", "read", "Read", false, false},
        {"two granted ones, glued", "read write", "readwrite", false, false},
        {"a star is a scope like another", "*", "read", false, false},
        {"asked with a comma, which is part of a scope", "read write", "read,write", false, false},
        {"tab is not a space", "read write", "read\twrite", false, false},
    };

    for (const row &row : rows) {
        assert_number_equal(row.label, satisfies(row.granted, {row.required, false}), row.all);
        assert_number_equal(row.label, satisfies(row.granted, {row.required, true}), row.any);
    }

    assert_false(scope_requirement{}.any);
}

void all_requirements_must_hold(void **)
{
    struct row {
        const char *label;
        std::array<scope_requirement, 3> required;
        std::size_t count;
        access_verdict want;
    };
    // The token has "read write".
    static constexpr row rows[] = {
        {"none", {}, 0, access_verdict::ok},
        {"one that asks for nothing", {{{""}}}, 1, access_verdict::ok},
        {"one that holds", {{{"read"}}}, 1, access_verdict::ok},
        {"one that doesn't", {{{"admin"}}}, 1, access_verdict::scope_denied},
        {"all of two", {{{"read write"}}}, 1, access_verdict::ok},
        {"all of two, one is missing", {{{"read admin"}}}, 1, access_verdict::scope_denied},
        {"any of two", {{{"read admin", true}}}, 1, access_verdict::ok},
        {"any of two, both are missing", {{{"admin delete", true}}}, 1, access_verdict::scope_denied},
        {"two that hold", {{{"read"}, {"write"}}}, 2, access_verdict::ok},
        {"the first doesn't hold", {{{"admin"}, {"write"}}}, 2, access_verdict::scope_denied},
        {"the second doesn't hold", {{{"read"}, {"admin"}}}, 2, access_verdict::scope_denied},
        {"any, then all", {{{"admin read", true}, {"read write"}}}, 2, access_verdict::ok},
        {"any, then all, which doesn't hold",
         {{{"admin read", true}, {"read admin"}}},
         2,
         access_verdict::scope_denied},
        {"any, which doesn't hold, then all", {{{"admin delete", true}, {"read"}}}, 2, access_verdict::scope_denied},
        {"one that asks for nothing, one that doesn't hold", {{{""}, {"admin"}}}, 2, access_verdict::scope_denied},
        {"any of nothing", {{{"", true}, {"read"}}}, 2, access_verdict::ok},
        {"three that hold", {{{"read"}, {"write"}, {"read write"}}}, 3, access_verdict::ok},
        {"the last of three doesn't hold", {{{"read"}, {"write"}, {"admin"}}}, 3, access_verdict::scope_denied},
        {"one behind the end doesn't count", {{{"read"}, {"write"}, {"admin"}}}, 2, access_verdict::ok},
    };

    const token_record token = a_record();
    for (const row &row : rows) {
        facts request;
        request.required = std::span{row.required}.first(row.count);
        assert_view_equal(row.label, name(decide(token, request, t)), name(row.want));
    }
}

void a_token_without_scopes_is_let_in_only_where_none_is_asked_for(void **)
{
    static constexpr scope_requirement required[] = {{"read"}};

    token_record token = a_record();
    token.scopes = "";

    facts request;
    assert_view_equal("none asked for", name(decide(token, request, t)), "ok");
    request.required = required;
    assert_view_equal("one asked for", name(decide(token, request, t)), "scope_denied");
}

void scopes_are_taken_one_after_the_other(void **)
{
    struct row {
        const char *label;
        std::string_view scopes;
        std::array<std::string_view, 3> want;
    };
    static constexpr row rows[] = {
        {"none", "", {}},
        {"spaces", "   ", {}},
        {"one", "a", {"a"}},
        {"two", "a bc", {"a", "bc"}},
        {"three, with more spaces", "  a   bc d  ", {"a", "bc", "d"}},
        {"tab is part of a scope", "a\tb", {"a\tb"}},
    };

    for (const row &row : rows) {
        std::string_view rest = row.scopes;
        for (std::string_view want : row.want) {
            assert_view_equal(row.label, take_scope(rest), want);
        }
        assert_view_equal(row.label, take_scope(rest), "");
        assert_view_equal(row.label, rest, "");
    }
}

void a_claim_is_found_by_its_whole_name(void **)
{
    struct row {
        const char *label;
        std::string_view name;
        bool found;
        std::string_view want;
    };
    static constexpr row rows[] = {
        {"first", "tenant", true, "referon"},
        {"in the middle, without a value", "plan", true, ""},
        {"last", "region", true, "eu"},
        {"unknown", "owner", false, ""},
        {"start of a name", "ten", false, ""},
        {"longer than a name", "tenants", false, ""},
        {"empty", "", false, ""},
        {"in upper case", "TENANT", false, ""},
        {"a value", "referon", false, ""},
    };

    static record_buffer buffer;
    std::size_t length = 0;
    assert_true(append_claim({"tenant", "referon"}, buffer, length));
    assert_true(append_claim({"plan", ""}, buffer, length));
    assert_true(append_claim({"region", "eu"}, buffer, length));

    token_record token = a_record();
    token.claims = std::span{buffer}.first(length);

    for (const row &row : rows) {
        const auto have = find_claim(token, row.name);
        assert_number_equal(row.label, have.has_value(), row.found);
        assert_view_equal(row.label, have.value_or(""), row.want);
    }

    assert_false(find_claim(a_record(), "tenant").has_value());
    assert_false(find_claim(a_record(), "").has_value());
}

void a_store_is_stale_when_its_heartbeat_is_too_old_or_missing_or_in_the_future(void **)
{
    struct row {
        const char *label;
        std::int64_t heartbeat;
        std::int64_t max_age;
        bool want;
    };
    constexpr std::int64_t now = 1'800'000'000;
    static constexpr row rows[] = {
        {"just now", now, 60, false},
        {"as old as may be", now - 60, 60, false},
        {"a second older", now - 61, 60, true},
        {"never", 0, 60, true},
        {"never, and the limit is further back than 1970", 0, now + 1, true},
        {"never, and there is no limit", 0, 0, false},
        {"long ago, and there is no limit", 1, 0, false},
        {"as far in the future as clocks differ", now + heartbeat_tolerance, 60, false},
        {"farther in the future", now + heartbeat_tolerance + 1, 60, true},
        {"in the future, and there is no limit", now + 3600, 0, false},
    };
    for (const row &row : rows) {
        assert_number_equal(row.label, is_stale(row.heartbeat, row.max_age, now), row.want);
    }
}

void every_verdict_has_its_name_and_lets_in_or_does_not(void **)
{
    struct row {
        access_verdict of;
        std::string_view want;
        bool lets_in;
    };
    static constexpr row rows[] = {
        {access_verdict::ok, "ok", true},
        {access_verdict::missing, "missing", false},
        {access_verdict::malformed, "malformed", false},
        {access_verdict::unknown, "unknown", false},
        {access_verdict::revoked, "revoked", false},
        {access_verdict::expired, "expired", false},
        {access_verdict::not_yet_valid, "not_yet_valid", false},
        {access_verdict::address_denied, "address_denied", false},
        {access_verdict::scope_denied, "scope_denied", false},
        {access_verdict::require_denied, "require_denied", false},
        {access_verdict::stale, "stale", false},
        {access_verdict::store_error, "store_error", false},
        {access_verdict::preflight, "preflight", true},
        {access_verdict::anonymous, "anonymous", true},
    };
    static_assert(std::size(rows) == verdict_count, "a row is missing");

    for (const row &row : rows) {
        assert_view_equal(row.want.data(), name(row.of), row.want);
        assert_number_equal(row.want.data(), lets_in(row.of), row.lets_in);
    }
    assert_view_equal("no verdict", name(static_cast<access_verdict>(255)), "store_error");
}

}  // namespace

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(the_first_fault_in_the_order_is_the_verdict),
        cmocka_unit_test(a_token_is_valid_from_not_before_until_expires_at),
        cmocka_unit_test(a_subject_that_no_upstream_could_be_told_is_refused_as_a_revoked_token_is),
        cmocka_unit_test(a_revoked_token_is_revoked_at_any_time),
        cmocka_unit_test(a_token_with_ranges_is_used_from_there_only),
        cmocka_unit_test(a_peer_without_an_address_is_refused_where_there_are_ranges),
        cmocka_unit_test(a_requirement_asks_for_all_of_its_scopes_or_for_any),
        cmocka_unit_test(all_requirements_must_hold),
        cmocka_unit_test(a_token_without_scopes_is_let_in_only_where_none_is_asked_for),
        cmocka_unit_test(scopes_are_taken_one_after_the_other),
        cmocka_unit_test(a_claim_is_found_by_its_whole_name),
        cmocka_unit_test(a_store_is_stale_when_its_heartbeat_is_too_old_or_missing_or_in_the_future),
        cmocka_unit_test(every_verdict_has_its_name_and_lets_in_or_does_not),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
