# One token, one location: who is let in, and what the others are told.

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use Test::Nginx::Socket;

our $store = new_store('main');
our $token = issue($store, '--subject', 'alice', '--name', 'csv upload', '--scope', 'csv:write');
our $guess = substr($token, 0, -1) . (substr($token, -1) eq 'a' ? 'b' : 'a');

repeat_each(2);
plan tests => repeat_each() * (blocks() * 4);

no_long_string();
run_tests();

__DATA__

=== TEST 1: a token of the store is let in
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t {
    auth_pat API;
    try_files /nowhere =204;
}
--- request
GET /t
--- more_headers eval
"Authorization: Bearer $main::token"
--- error_code: 204
--- response_headers
WWW-Authenticate:
--- no_error_log
[error]
[crit]



=== TEST 2: without a token the client is asked for one, and told nothing else
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t {
    auth_pat API;
    try_files /nowhere =204;
}
--- request
GET /t
--- error_code: 401
--- response_headers
WWW-Authenticate: Bearer realm="API"
--- error_log
no access token was provided
--- no_error_log
[crit]



=== TEST 3: a token that the store does not hold is refused
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t {
    auth_pat API;
    try_files /nowhere =204;
}
--- request
GET /t
--- more_headers eval
"Authorization: Bearer $main::guess"
--- error_code: 401
--- response_headers
WWW-Authenticate: Bearer realm="API", error="invalid_token", error_description="The access token is invalid"
--- error_log
access token is unknown
--- no_error_log
[crit]
