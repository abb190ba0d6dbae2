# Where a token is taken from: the Bearer credential, or a variable; and the prefix and checksum that may be demanded.

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use Compress::Raw::Zlib qw(crc32);
use Test::Nginx::Socket;

our $store = new_store('main');
store_path('absent');
our $token  = issue($store, '--subject', 'alice');
our $acme   = issue($store, '--subject', 'acme', '--prefix', 'acme-2.0_');
our $legacy = 'legacy-token-000001';
our $revoked = issue($store, '--subject', 'mallory');
patctl($store, 'revoke', '--subject', 'mallory');
patctl($store, \qq({"token":"$legacy","id":"legacy","subject":"legacy"}\n), 'import', '--plaintext', '--strict', '-');

# Tokens that somebody else made in our form, with a right checksum: one as ours are, and some that are not.
sub with_checksum {
    my ($text) = @_;
    my $sum = '';
    for (my $rest = crc32($text); length $sum < 6; $rest = int($rest / 62)) {
        $sum = (0 .. 9, 'A' .. 'Z', 'a' .. 'z')[$rest % 62] . $sum;
    }
    return $text . $sum;
}
our ($alike, @strange) = map { with_checksum("ropat_$_") } '0123456789abcdefghijklmnopqrsABC', '0123456789abcdefghijklmnopqrs-AB',
    '_123456789abcdefghijklmnopqrsABC', '0123456789abcdefghijklmnopqrsAB', '0123456789abcdefghijklmnopqrsABCD';
my $number = 0;
patctl($store, \join('', map { $number++; qq({"token":"$_","id":"made.$number","subject":"made"}\n) } $alike, @strange), 'import',
    '--plaintext', '--strict', '-');

# A typo in the token, and one in its checksum.
our $typo     = substr($token, 0, 10) . (substr($token, 10, 1) eq 'A' ? 'B' : 'A') . substr($token, 11);
our $checksum = substr($token, 0, -1) . (substr($token, -1) eq 'A' ? 'B' : 'A');

our $no      = 'WWW-Authenticate:';
our $asks    = 'WWW-Authenticate: Bearer realm="API"';
our $invalid = qq($asks, error="invalid_token", error_description="The access token is invalid");

our $ok        = "X-Status: ok\n$no";
our $missing   = "X-Status: missing\n$asks";
our $malformed = "X-Status: malformed\n$invalid";
our $unknown   = "X-Status: unknown\n$invalid";

sub bearer { return map { "Authorization: Bearer $_" } @_ }

add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value(http_config => <<'END' . ($block->http_config // ''));
auth_pat_store $TEST_NGINX_STORE_MAIN;
END
    $block->set_value(config => <<'END' . ($block->config // ''));
add_header X-Status $auth_pat_status always;
END
});

repeat_each(2);
plan tests => repeat_each() * 627;

no_long_string();
run_tests();

__DATA__

=== TEST 1: a token from a header of its own, and from nowhere else
--- config
location = /t { auth_pat API token=$http_x_api_key; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t", "GET /t", "GET /t?x_api_key=$main::token", "GET /t", "GET /t"]
--- more_headers eval
["X-API-Key: $main::token", main::bearer($main::token), "X-Foo: bar", "Cookie: x_api_key=$main::token",
 "X-API-Key: $main::token\nAuthorization: Bearer nonsense", "x-api-key: $main::token\nAuthorization: Basic x"]
--- error_code eval
[204, 401, 401, 401, 204, 204]
--- response_headers eval
[$main::ok, $main::missing, $main::missing, $main::missing, $main::ok, $main::ok]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 2: a token from a cookie
--- config
location = /t { auth_pat API token=$cookie_session; try_files /nowhere =204; }
--- request eval
[("GET /t") x 5]
--- more_headers eval
["Cookie: session=$main::token", "Cookie: a=b; session=$main::token; c=d", "Cookie: other=$main::token", "Cookie: session=",
 "Cookie: session=short"]
--- error_code eval
[204, 204, 401, 401, 401]
--- response_headers eval
[$main::ok, $main::ok, $main::missing, $main::missing, $main::malformed]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 3: a token from an argument, as it stands there
--- config
location = /t { auth_pat API token=$arg_key; try_files /nowhere =204; }
--- request eval
["GET /t?key=$main::token", "GET /t?a=b&key=$main::token&c=d", "GET /t?key=", "GET /t?yek=$main::token", "GET /t?key=$main::token%20",
 "GET /t?key=+$main::token", "GET /t?key=${main::token}0"]
--- error_code eval
[204, 204, 401, 401, 401, 401, 401]
--- response_headers eval
[$main::ok, $main::ok, $main::missing, $main::missing, $main::malformed, $main::unknown, $main::unknown]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 4: several variables, and text around them, make one token
--- config
location = /two  { auth_pat API token=$http_x_first$http_x_second; try_files /nowhere =204; }
location = /text { auth_pat API token=legacy-${arg_rest}; try_files /nowhere =204; }
--- request eval
["GET /two", "GET /two", "GET /two", "GET /two", "GET /text?rest=token-000001", "GET /text?rest=token-000002", "GET /text"]
--- more_headers eval
["X-First: " . substr($main::token, 0, 20) . "\nX-Second: " . substr($main::token, 20), "X-First: $main::token",
 "X-Second: $main::token", "X-First: $main::token\nX-Second: $main::token", ("X-Foo: bar") x 3]
--- error_code eval
[204, 204, 204, 401, 204, 401, 401]
--- response_headers eval
[$main::ok, $main::ok, $main::ok, $main::unknown, $main::ok, $main::unknown, $main::malformed]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 5: a map chooses one of two sources
--- http_config
map $http_x_api_key $key { default $http_x_api_key; "" $cookie_key; }
--- config
location = /t { auth_pat API token=$key; try_files /nowhere =204; }
--- request eval
[("GET /t") x 4]
--- more_headers eval
["X-API-Key: $main::token", "Cookie: key=$main::token", "X-API-Key: bad\nCookie: key=$main::token", "X-Foo: bar"]
--- error_code eval
[204, 204, 401, 401]
--- response_headers eval
[$main::ok, $main::ok, $main::malformed, $main::missing]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 6: what a variable holds must be a token and nothing else
--- config
location = /t { auth_pat API token=$http_x_api_key; try_files /nowhere =204; }
--- request eval
[("GET /t") x 11]
--- more_headers eval
["X-API-Key: Bearer $main::token", "X-API-Key: $main::token,", "X-API-Key: $main::token $main::token", "X-API-Key: $main::token\t",
 "X-API-Key: abcdefghijklmno", "X-API-Key: abcdefghijklmnop", "X-API-Key: " . "a" x 512, "X-API-Key: " . "a" x 513,
 "X-API-Key: $main::token\x01", "X-API-Key: $main::token\xff", "X-API-Key: ===================="]
--- error_code eval
[(401) x 11]
--- response_headers eval
[($main::malformed) x 5, $main::unknown, $main::unknown, ($main::malformed) x 4]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 7: the source is inherited with the realm, and replaced together with it
--- config
auth_pat API token=$http_x_api_key;
location = /inherits { try_files /nowhere =204; }
location = /replaces { auth_pat API; try_files /nowhere =204; }
location = /other    { auth_pat API token=$arg_key; try_files /nowhere =204; }
location = /off      { auth_pat off; try_files /nowhere =204; }
location /in/ {
    auth_pat API;
    location = /in/inherits { try_files /nowhere =204; }
}
--- request eval
[map { ("GET $_") x 2 } "/inherits", "/replaces", "/other?key=$main::token", "/off", "/in/inherits"]
--- more_headers eval
[("X-API-Key: $main::token", main::bearer($main::token)) x 5]
--- error_code eval
[204, 401, 401, 204, 204, 204, 204, 204, 401, 204]
--- response_headers eval
[$main::ok, $main::missing, $main::missing, $main::ok, $main::ok, $main::ok, "X-Status: off\n$main::no", "X-Status: off\n$main::no",
 $main::missing, $main::ok]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 8: with a prefix only tokens of the form we issue are looked up
--- config
location = /ours   { auth_pat API; auth_pat_prefix ropat_; try_files /nowhere =204; }
location = /acme   { auth_pat API; auth_pat_prefix acme-2.0_; try_files /nowhere =204; }
location = /any    { auth_pat API; try_files /nowhere =204; }
--- request eval
[("GET /ours") x 3, ("GET /acme") x 3, ("GET /any") x 3]
--- more_headers eval
[(main::bearer($main::token, $main::acme, $main::legacy)) x 3]
--- error_code eval
[204, 401, 401, 401, 204, 401, 204, 204, 204]
--- response_headers eval
[$main::ok, $main::malformed, $main::malformed, $main::malformed, $main::ok, $main::malformed, ($main::ok) x 3]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 9: with a prefix a typo is refused before anything is looked up, so that not even a store is needed
--- config
location = /prefix { auth_pat API; auth_pat_store $TEST_NGINX_STORE_ABSENT; auth_pat_prefix ropat_; try_files /nowhere =204; }
location = /plain  { auth_pat API; auth_pat_store $TEST_NGINX_STORE_ABSENT; try_files /nowhere =204; }
--- request eval
["GET /prefix", "GET /prefix", "GET /prefix", "GET /prefix", "GET /plain"]
--- more_headers eval
[main::bearer($main::typo, $main::checksum, $main::legacy, $main::token, $main::typo)]
--- error_code eval
[401, 401, 401, 503, 503]
--- response_headers eval
[($main::malformed) x 3, ("X-Status: store_error\n$main::no\nRetry-After: 1") x 2]
--- no_error_log
[error]
[alert]



=== TEST 10: a typo is malformed with a prefix, and unknown without one
--- config
location = /prefix { auth_pat API; auth_pat_prefix ropat_; try_files /nowhere =204; }
location = /plain  { auth_pat API; try_files /nowhere =204; }
--- request eval
[("GET /prefix") x 8, ("GET /plain") x 2]
--- more_headers eval
[main::bearer($main::typo, $main::checksum, "$main::token=", "${main::token}0", substr($main::token, 0, -1), uc $main::token,
 "ROPAT_" . substr($main::token, 6), "x$main::token", $main::typo, $main::checksum)]
--- error_code eval
[(401) x 10]
--- response_headers eval
[($main::malformed) x 8, ($main::unknown) x 2]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 11: the prefix is inherited, replaced, and turned off
--- http_config
auth_pat_prefix ropat_;
--- config
auth_pat API;
location = /inherits { try_files /nowhere =204; }
location = /acme     { auth_pat_prefix acme-2.0_; try_files /nowhere =204; }
location /off/ {
    auth_pat_prefix off;
    location = /off/in { try_files /nowhere =204; }
    location = /off/on { auth_pat_prefix ropat_; try_files /nowhere =204; }
}
--- request eval
[map { ("GET $_") x 2 } "/inherits", "/acme", "/off/in", "/off/on"]
--- more_headers eval
[main::bearer(($main::token, $main::acme) x 4)]
--- error_code eval
[204, 401, 401, 204, 204, 204, 204, 401]
--- response_headers eval
[$main::ok, $main::malformed, $main::malformed, $main::ok, $main::ok, $main::ok, $main::ok, $main::malformed]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 12: the prefix counts for a token from a variable, too
--- config
location = /t { auth_pat API token=$http_x_api_key; auth_pat_prefix ropat_; try_files /nowhere =204; }
--- request eval
[("GET /t") x 4]
--- more_headers eval
["X-API-Key: $main::token", "X-API-Key: $main::legacy", "X-API-Key: $main::checksum", "X-Foo: bar"]
--- error_code eval
[204, 401, 401, 401]
--- response_headers eval
[$main::ok, $main::malformed, $main::malformed, $main::missing]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 13: what counts is the token in the access phase, not one that a variable was used with before it
--- config
location = /t {
    set $key $http_x_first;
    set $early $auth_pat_status;
    set $key $http_x_second;
    auth_pat API token=$key;
    add_header X-Early $early always;
    add_header X-Status $auth_pat_status always;
    try_files /nowhere =204;
}
location = /again {
    set $early $auth_pat_status;
    if ($args ~ ^first=) { rewrite ^ /again?key=$arg_key&early=$early? last; }
    auth_pat API token=$arg_key$arg_first;
    add_header X-Early $arg_early always;
    add_header X-Status $auth_pat_status always;
    try_files /nowhere =204;
}
--- request eval
["GET /t", "GET /t", "GET /t", "GET /t", "GET /again?first=$main::legacy&key="]
--- more_headers eval
["X-First: $main::token\nX-Second: $main::revoked", "X-First: $main::revoked\nX-Second: $main::token",
 "X-First: $main::token", "X-Second: $main::token", "X-Foo: bar"]
--- error_code eval
[401, 204, 401, 204, 401]
--- response_headers eval
["X-Early: ok\nX-Status: revoked", "X-Early: revoked\n$main::ok", "X-Early: ok\n$main::missing", "X-Early: missing\n$main::ok",
 "X-Early: ok\n$main::missing"]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 14: the form we issue is more than a prefix and a checksum: 32 letters and digits are between them
--- config
location = /ours { auth_pat API; auth_pat_prefix ropat_; try_files /nowhere =204; }
location = /any  { auth_pat API; try_files /nowhere =204; }
--- request eval
[("GET /ours") x 5, ("GET /any") x 5]
--- more_headers eval
[(main::bearer($main::alike, @main::strange)) x 2]
--- error_code eval
[204, (401) x 4, (204) x 5]
--- response_headers eval
[$main::ok, ($main::malformed) x 4, ($main::ok) x 5]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 15: prefixes of one character and of 32, and of every kind of character that is allowed
--- config
auth_pat API;
location = /a { auth_pat_prefix r; try_files /nowhere =204; }
location = /b { auth_pat_prefix aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; try_files /nowhere =204; }
location = /c { auth_pat_prefix A-Z_a.z09; try_files /nowhere =204; }
location = /d { auth_pat_prefix ropat_; try_files /nowhere =204; }
--- request eval
["GET /a", "GET /b", "GET /c", "GET /d"]
--- more_headers eval
[("Authorization: Bearer $main::token") x 4]
--- error_code eval
[401, 401, 401, 204]
--- no_error_log
[error]
[crit]
[alert]
[emerg]
