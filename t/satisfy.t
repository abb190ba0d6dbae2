# `satisfy` beside auth_basic, allow and deny, and auth_request: who gets in, who is told what, and who is asked first.

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use Test::Nginx::Socket;

our $store = new_store('main');
store_path('missing');
our $token   = issue($store, '--subject', 'alice', '--scope', 'read');
our $revoked = issue($store, '--subject', 'mallory');
patctl($store, 'revoke', '--subject', 'mallory');
our $distant = issue($store, '--subject', 'carol', '--cidr', '192.0.2.0/24');

our $basic = 'Authorization: Basic Ym9iOnNlY3JldA==';    # bob:secret
write_file(scratch() . '/htpasswd', "bob:{PLAIN}secret\n");

our $bearer_only = qr/^WWW-Authenticate: Bearer realm="API"\r\n(?!.*WWW-Authenticate)/ms;
our $basic_only  = qr/^WWW-Authenticate: Basic realm="people"\r\n(?!.*WWW-Authenticate)/ms;
our $any         = qr/^HTTP/;
our $a_challenge = qr/^WWW-Authenticate:/mi;
our $nothing     = qr/^X-Nothing:/m;

# Both challenges, in any order, one each.
sub both_with {
    my ($bearer) = @_;
    return qr/\A(?=(?:(?!^WWW-Auth).)*^WWW-Auth(?:(?!^WWW-Auth).)*^WWW-Auth(?:(?!^WWW-Auth).)*\z)
               (?=.*^WWW-Authenticate:\ Bearer\ \Q$bearer\E\r\n)(?=.*^WWW-Authenticate:\ Basic\ realm="people"\r\n)/xms;
}

add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value(http_config => <<'END' . ($block->http_config // ''));
auth_pat_store $TEST_NGINX_STORE_MAIN;
auth_basic_user_file $TEST_NGINX_SCRATCH/htpasswd;
END
});

repeat_each(2);
plan tests => repeat_each() * 223;

no_long_string();
run_tests();

__DATA__

=== TEST 1: satisfy all wants both the token and the password, and asks for the token first
--- config
location = /t {
    satisfy all;
    auth_pat API token=$http_x_api_key;
    auth_basic people;
    try_files /nowhere =204;
}
--- request eval
["GET /t", "GET /t", "GET /t", "GET /t", "GET /t"]
--- more_headers eval
["X-Api-Key: $main::token\n$main::basic", "X-Api-Key: $main::token", $main::basic, "X-Foo: bar",
 "X-Api-Key: $main::revoked\n$main::basic"]
--- error_code eval
[204, 401, 401, 401, 401]
--- raw_response_headers_like eval
[$main::any, $main::basic_only, $main::bearer_only, $main::bearer_only,
 qr/^WWW-Authenticate: Bearer realm="API", error="invalid_token", error_description="The access token was revoked"\r$/m]
--- raw_response_headers_unlike eval
[$main::a_challenge, qr/Bearer/, qr/Basic/, qr/Basic/, qr/Basic/]
--- no_error_log
[crit]
[alert]



=== TEST 2: without a satisfy directive it is satisfy all
--- config
location = /t {
    auth_pat API token=$http_x_api_key;
    auth_basic people;
    try_files /nowhere =204;
}
--- request eval
["GET /t", "GET /t", "GET /t"]
--- more_headers eval
["X-Api-Key: $main::token\n$main::basic", "X-Api-Key: $main::token", $main::basic]
--- error_code eval
[204, 401, 401]
--- raw_response_headers_unlike eval
[$main::a_challenge, qr/Bearer/, qr/Basic/]
--- no_error_log
[crit]
[alert]



=== TEST 3: with satisfy any one of token and password will do, and no challenge is left for those who are in
--- config
location = /t {
    satisfy any;
    auth_pat API token=$http_x_api_key;
    auth_basic people;
    try_files /nowhere =204;
}
--- request eval
["GET /t", "GET /t", "GET /t", "GET /t"]
--- more_headers eval
["X-Api-Key: $main::token\n$main::basic", "X-Api-Key: $main::token", $main::basic,
 "X-Api-Key: $main::revoked\n$main::basic"]
--- error_code eval
[204, 204, 204, 204]
--- raw_response_headers_unlike eval
[$main::a_challenge, $main::a_challenge, $main::a_challenge, $main::a_challenge]
--- no_error_log
[crit]
[alert]



=== TEST 4: with satisfy any and Bearer and Basic in the same header either is accepted
--- config
location = /t {
    satisfy any;
    auth_pat API;
    auth_basic people;
    try_files /nowhere =204;
}
--- request eval
["GET /t", "GET /t", "GET /t", "GET /t"]
--- more_headers eval
["Authorization: Bearer $main::token", $main::basic, "Authorization: Bearer $main::revoked",
 "Authorization: Basic Ym9iOndyb25n"]
--- error_code eval
[204, 204, 401, 401]
--- raw_response_headers_like eval
[$main::any, $main::any,
 main::both_with('realm="API", error="invalid_token", error_description="The access token was revoked"'),
 main::both_with('realm="API"')]
--- no_error_log
[crit]
[alert]



=== TEST 5: with satisfy any those who have neither are told of both ways
--- config
location = /t {
    satisfy any;
    auth_pat API;
    auth_basic people;
    try_files /nowhere =204;
}
--- request eval
["GET /t", "HEAD /t"]
--- error_code eval
[401, 401]
--- raw_response_headers_like eval
[main::both_with('realm="API"'), main::both_with('realm="API"')]
--- no_error_log
[crit]
[alert]



=== TEST 6: with satisfy any an address that is allowed needs no token and sees no challenge
--- config
location = /t {
    satisfy any;
    allow 127.0.0.1;
    deny all;
    auth_pat API;
    try_files /nowhere =204;
}
--- request eval
["GET /t", "GET /t", "GET /t"]
--- more_headers eval
["X-Foo: bar", "Authorization: Bearer $main::revoked", "Authorization: Bearer $main::token"]
--- error_code eval
[204, 204, 204]
--- raw_response_headers_unlike eval
[$main::a_challenge, $main::a_challenge, $main::a_challenge]
--- no_error_log
[crit]
[alert]



=== TEST 7: with satisfy any an address that is denied needs a token, and is asked for it
--- config
location = /t {
    satisfy any;
    deny all;
    auth_pat API;
    try_files /nowhere =204;
}
--- request eval
["GET /t", "GET /t", "GET /t"]
--- more_headers eval
["Authorization: Bearer $main::token", "X-Foo: bar", "Authorization: Bearer $main::revoked"]
--- error_code eval
[204, 401, 401]
--- raw_response_headers_like eval
[$main::any, $main::bearer_only, qr/^WWW-Authenticate: Bearer .*was revoked"\r$/m]
--- raw_response_headers_unlike eval
[$main::a_challenge, qr/error/, $main::nothing]
--- no_error_log
[crit]
[alert]



=== TEST 8: with satisfy all a good token does not help at a denied address, and a bad one is told about first
--- config
location = /t {
    satisfy all;
    deny all;
    auth_pat API;
    try_files /nowhere =204;
}
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
["Authorization: Bearer $main::token", "X-Foo: bar"]
--- error_code eval
[403, 401]
--- raw_response_headers_unlike eval
[$main::a_challenge, $main::nothing]
--- no_error_log
[crit]
[alert]



=== TEST 9: with satisfy any a missing scope or a wrong address is 403, unless somebody else asks for a password
--- config
location = /denied {
    satisfy any;
    deny all;
    auth_pat API;
    auth_pat_require_scope write;
    try_files /nowhere =204;
}
location = /basic {
    satisfy any;
    auth_basic people;
    auth_pat API;
    auth_pat_require_scope write;
    try_files /nowhere =204;
}
location = /address {
    satisfy any;
    deny all;
    auth_pat API;
    try_files /nowhere =204;
}
location = /let-in {
    satisfy any;
    allow all;
    auth_pat API;
    auth_pat_require_scope write;
    try_files /nowhere =204;
}
--- request eval
["GET /denied", "GET /basic", "GET /address", "GET /let-in"]
--- more_headers eval
["Authorization: Bearer $main::token", "Authorization: Bearer $main::token", "Authorization: Bearer $main::distant",
 "Authorization: Bearer $main::token"]
--- error_code eval
[403, 401, 403, 204]
--- raw_response_headers_like eval
[qr/^WWW-Authenticate: Bearer realm="API", error="insufficient_scope", scope="write"\r$/m,
 main::both_with('realm="API", error="insufficient_scope", scope="write"'),
 qr/^WWW-Authenticate: Bearer realm="API", error="invalid_token", error_description="The access token may not be used/m,
 $main::any]
--- raw_response_headers_unlike eval
[$main::nothing, $main::nothing, $main::nothing, $main::a_challenge]
--- no_error_log
[crit]
[alert]



=== TEST 10: satisfy all beside auth_request wants both
--- config
location = /good {
    auth_pat API;
    auth_request /yes;
    try_files /nowhere =204;
}
location = /bad {
    auth_pat API;
    auth_request /no;
    try_files /nowhere =204;
}
location = /yes {
    internal;
    auth_pat off;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/answer/204;
}
location = /no {
    internal;
    auth_pat off;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/answer/403;
}
location = /answer/204 { return 204; }
location = /answer/403 { return 403; }
--- request eval
["GET /good", "GET /good", "GET /bad", "GET /bad"]
--- more_headers eval
["Authorization: Bearer $main::token", "X-Foo: bar", "Authorization: Bearer $main::token", "X-Foo: bar"]
--- error_code eval
[204, 401, 403, 401]
--- raw_response_headers_like eval
[$main::any, $main::bearer_only, $main::any, $main::bearer_only]
--- raw_response_headers_unlike eval
[$main::a_challenge, $main::nothing, $main::a_challenge, $main::nothing]
--- no_error_log
[crit]
[alert]



=== TEST 11: with satisfy any a good token spares the auth_request, and a bad one is made up for by it
--- config
location = /broken {
    satisfy any;
    auth_pat API;
    auth_request /answer/500;
    try_files /nowhere =204;
}
location = /good {
    satisfy any;
    auth_pat API;
    auth_request /yes;
    try_files /nowhere =204;
}
location = /bad {
    satisfy any;
    auth_pat API;
    auth_request /no;
    try_files /nowhere =204;
}
location = /yes { proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/answer/204; }
location = /no  { proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/answer/403; }
location = /answer/204 { return 204; }
location = /answer/403 { return 403; }
location = /answer/500 { return 500; }
--- request eval
["GET /broken", "GET /good", "GET /good", "GET /bad", "GET /bad"]
--- more_headers eval
["Authorization: Bearer $main::token", "X-Foo: bar", "Authorization: Bearer $main::revoked",
 "Authorization: Bearer $main::token", "X-Foo: bar"]
--- error_code eval
[204, 204, 204, 204, 401]
--- raw_response_headers_like eval
[$main::any, $main::any, $main::any, $main::any, $main::bearer_only]
--- raw_response_headers_unlike eval
[$main::a_challenge, $main::a_challenge, $main::a_challenge, $main::a_challenge, $main::nothing]
--- no_error_log
[crit]
[alert]



=== TEST 12: with satisfy any no challenge is left where two refuse before a third lets in
--- config
location = /t {
    satisfy any;
    auth_pat API;
    auth_basic people;
    auth_request /yes;
    try_files /nowhere =204;
}
location = /yes { proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/answer/204; }
location = /answer/204 { return 204; }
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
["X-Foo: bar", "Authorization: Bearer $main::revoked"]
--- error_code eval
[204, 204]
--- raw_response_headers_unlike eval
[qr/Bearer/, qr/Bearer/]
--- no_error_log
[crit]
[alert]



=== TEST 13: a store that can't be read refuses a token at once under satisfy any, but not a request without one
--- config
location = /t {
    satisfy any;
    auth_pat API token=$http_x_api_key;
    auth_pat_store $TEST_NGINX_STORE_MISSING;
    auth_basic people;
    try_files /nowhere =204;
}
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
["X-Api-Key: $main::token\n$main::basic", $main::basic]
--- error_code eval
[503, 204]
--- raw_response_headers_like eval
[qr/^Retry-After: \d+\r$/m, $main::any]
--- raw_response_headers_unlike eval
[$main::a_challenge, $main::a_challenge]
--- suppress_stderr
--- no_error_log
[alert]



=== TEST 14: where auth_pat is off, by directive or by the value of its realm, the others decide alone
--- http_config
map $arg_realm $realm { default $arg_realm; }
--- config
satisfy any;
auth_pat API;
auth_basic people;
location = /off {
    auth_pat off;
    try_files /nowhere =204;
}
location = /variable {
    auth_pat $realm;
    try_files /nowhere =204;
}
location = /both {
    try_files /nowhere =204;
}
--- request eval
["GET /off", "GET /off", "GET /variable?realm=off", "GET /variable?realm=off", "GET /variable?realm=on", "GET /both"]
--- more_headers eval
["Authorization: Bearer $main::token", $main::basic, "Authorization: Bearer $main::token", $main::basic,
 "Authorization: Bearer $main::token", "X-Foo: bar"]
--- error_code eval
[401, 204, 401, 204, 204, 401]
--- raw_response_headers_like eval
[$main::basic_only, $main::any, $main::basic_only, $main::any, $main::any, main::both_with('realm="API"')]
--- raw_response_headers_unlike eval
[qr/Bearer/, $main::a_challenge, qr/Bearer/, $main::a_challenge, $main::a_challenge, $main::nothing]
--- no_error_log
[crit]
[alert]
