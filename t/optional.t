# auth_pat_optional: requests without a token.

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use Test::Nginx::Socket;

our $store = new_store('main');
store_path('missing');
our %token = import_each_kind($store);
write_file(scratch() . '/htpasswd', "bob:{PLAIN}secret\n");

our $basic   = 'Authorization: Basic Ym9iOnNlY3JldA==';    # bob:secret
our $nobody  = 'X-Foo: bar';
our $nothing = 'WWW-Authenticate:';

sub bearer { return map { "Authorization: Bearer $token{$_}" } @_ }
sub says { return map { "X-Status: $_" } @_ }

# One of each that is refused, and what is said of it.
our @bad = ('Authorization: Bearer x', 'Authorization: Bearer unknown-token-0001', bearer(qw(revoked expired early remote)));
our @bad_codes = (401, 401, 401, 401, 401, 403);
our @verdicts  = qw(malformed unknown revoked expired not_yet_valid address_denied);

add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value(http_config => <<'END' . ($block->http_config // ''));
auth_pat_store $TEST_NGINX_STORE_MAIN;
auth_pat API;
add_header X-Status $auth_pat_status always;
log_format auth_pat '[$uri $status pat=$auth_pat_status id=$auth_pat_id subject=$auth_pat_subject name=$auth_pat_name scope=$auth_pat_scope expires=$auth_pat_expires in=$auth_pat_expires_in plan=$auth_pat_claim_plan]';
END
});

repeat_each(2);
plan tests => repeat_each() * 268;

no_long_string();
run_tests();

__DATA__

=== TEST 1: a request without a token passes, and the variables but the status are empty
--- config
auth_pat_optional on;
access_log logs/access.log auth_pat;
location = /t { try_files /nowhere =204; }
--- request
GET /t
--- error_code: 204
--- response_headers
X-Status: anonymous
WWW-Authenticate:
--- access_log
[/t 204 pat=anonymous id=- subject=- name=- scope=- expires=- in=- plan=-]
--- no_error_log
access token
[error]
[crit]
[alert]



=== TEST 2: what is no token here is none: another scheme, no header, an empty value
--- config
auth_pat_optional on;
location = /t      { try_files /nowhere =204; }
location = /header { auth_pat API token=$http_x_api_key; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t", "GET /t", "GET /header", "GET /header", "GET /header", "HEAD /t", "POST /t\nx=1"]
--- more_headers eval
[$main::nobody, $main::basic, 'Authorization:', $main::nobody, 'X-Api-Key:', main::bearer('alice'), $main::nobody, $main::nobody]
--- error_code eval
[(204) x 8]
--- response_headers eval
[main::says(('anonymous') x 8)]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 3: a token that is not good is refused as ever
--- config
auth_pat_optional on;
location = /t { try_files /nowhere =204; }
--- request eval
[("GET /t") x 7, "GET /t"]
--- more_headers eval
[@main::bad, 'Authorization: Bearer', main::bearer('alice')]
--- error_code eval
[@main::bad_codes, 401, 204]
--- response_headers eval
[main::says(@main::verdicts, 'malformed', 'ok')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 4: a good token identifies its holder as ever
--- config
auth_pat_optional on;
access_log logs/access.log auth_pat;
location = /t { try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
main::bearer('alice')
--- error_code: 204
--- response_headers
X-Status: ok
--- access_log
pat=ok id=id-alice subject=alice name=of alice scope=read
--- no_error_log
[error]
[crit]
[alert]



=== TEST 5: where a scope is needed, a token is: who has none gets the 401 of missing
--- config
auth_pat_optional on;
location = /all  { auth_pat_require_scope read; try_files /nowhere =204; }
location = /any  { auth_pat_require_scope read write match=any; try_files /nowhere =204; }
location = /two  { auth_pat_require_scope $arg_none; auth_pat_require_scope read; try_files /nowhere =204; }
--- request eval
["GET /all", "GET /any", "GET /two", "GET /all"]
--- more_headers eval
[($main::nobody) x 3, main::bearer('alice')]
--- error_code eval
[401, 401, 401, 204]
--- response_headers eval
[("X-Status: missing\nWWW-Authenticate: Bearer realm=\"API\"") x 3, "X-Status: ok\n$main::nothing"]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 6: a scope that a variable leaves empty is no need, so reading may be for everybody
--- http_config
map $request_method $needed { default write; GET ""; HEAD ""; }
--- config
auth_pat_optional on;
auth_pat_require_scope $needed;
location = /t { try_files /nowhere =204; }
--- request eval
["GET /t", "HEAD /t", "POST /t\nx=1", "GET /t", "POST /t\nx=1"]
--- more_headers eval
[($main::nobody) x 3, main::bearer('alice', 'alice')]
--- error_code eval
[204, 204, 401, 204, 403]
--- response_headers eval
[main::says(qw(anonymous anonymous missing ok scope_denied))]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 7: it is off by default, and it is inherited and overridden on every level
--- http_config
auth_pat_optional on;
server { listen $TEST_NGINX_SERVER_PORT; server_name off; auth_pat_optional off; location / { try_files /nowhere =204; } }
--- config
location = /t { try_files /nowhere =204; }
location /off/ {
    auth_pat_optional off;
    location = /off/t  { try_files /nowhere =204; }
    location = /off/on { auth_pat_optional on; try_files /nowhere =204; }
}
--- request eval
["GET /t", "GET /t", "GET /off/t", "GET /off/on"]
--- more_headers eval
[$main::nobody, 'Host: off', $main::nobody, $main::nobody]
--- error_code eval
[204, 401, 401, 204]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 8: without the directive a token is needed
--- config
location = /t { try_files /nowhere =204; }
--- request
GET /t
--- error_code: 401
--- response_headers
X-Status: missing
--- no_error_log
[error]



=== TEST 9: in limit_except it holds for the methods that are not listed
--- config
log_not_found off;   # no try_files in limit_except: who is let in finds no file
location = /reading { limit_except POST { auth_pat_optional on; } try_files /nowhere =204; }
location = /writing { auth_pat_optional on; limit_except GET { auth_pat_optional off; } try_files /nowhere =204; }
location = /inherits { auth_pat_optional on; limit_except GET { auth_pat Inner; } try_files /nowhere =204; }
--- request eval
["GET /reading", "POST /reading\nx", "GET /writing", "POST /writing\nx", "POST /inherits\nx"]
--- error_code eval
[404, 401, 204, 401, 404]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 10: with satisfy any, no token is no reason to let a request in
--- config
satisfy any;
auth_pat_optional on;
auth_basic people;
auth_basic_user_file $TEST_NGINX_SCRATCH/htpasswd;
location = /t { try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t", "GET /t", "GET /t"]
--- more_headers eval
[$main::nobody, $main::basic, main::bearer('alice', 'revoked')]
--- error_code eval
[401, 204, 204, 401]
--- response_headers_like eval
['WWW-Authenticate: Basic realm="people"', 'X-Status: anonymous', 'X-Status: ok', 'X-Status: revoked']
--- no_error_log
[crit]
[alert]



=== TEST 11: with satisfy any and deny, no token is no reason to let a request in either
--- config
location = /any { satisfy any; auth_pat_optional on; deny all; try_files /nowhere =204; }
location = /all { satisfy all; auth_pat_optional on; allow all; try_files /nowhere =204; }
location = /den { satisfy all; auth_pat_optional on; deny all; try_files /nowhere =204; }
--- request eval
["GET /any", "GET /any", "GET /all", "GET /den", "GET /den"]
--- more_headers eval
[$main::nobody, main::bearer('alice'), $main::nobody, $main::nobody, main::bearer('alice')]
--- error_code eval
[403, 204, 204, 403, 403]
--- no_error_log
[crit]
[alert]



=== TEST 12: a request without a token needs no store, and one with a token does
--- config
auth_pat_optional on;
auth_pat_store $TEST_NGINX_STORE_MISSING;
location = /t { try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t", "GET /t"]
--- more_headers eval
[$main::nobody, main::bearer('alice'), $main::bad[0]]
--- error_code eval
[204, 503, 401]
--- response_headers eval
[main::says(qw(anonymous store_error malformed))]
--- suppress_stderr
--- no_error_log
[alert]
[emerg]



=== TEST 13: a store that is stale is no matter for a request without a token
--- config
auth_pat_optional on;
auth_pat_max_age 10s;
location = /t { try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
[$main::nobody, main::bearer('alice')]
--- error_code eval
[204, 503]
--- response_headers eval
[main::says(qw(anonymous stale))]
--- no_error_log
[alert]
[error]



=== TEST 14: a prefix is demanded of who brings a token, not of who brings none
--- config
auth_pat_optional on;
auth_pat_prefix ropat_;
location = /t { try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
[$main::nobody, main::bearer('alice')]
--- error_code eval
[204, 401]
--- response_headers eval
[main::says(qw(anonymous malformed))]
--- no_error_log
[crit]
[alert]
[error]



=== TEST 15: after an internal redirect to a place where a token is needed, one is
--- config
location = /t { auth_pat_optional on; try_files /nowhere /needed; }
location = /back { auth_pat_optional on; try_files /nowhere /optional; }
location = /needed { try_files /nowhere =204; }
location = /optional { auth_pat_optional on; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /back", "GET /t"]
--- more_headers eval
[$main::nobody, $main::nobody, main::bearer('alice')]
--- error_code eval
[401, 204, 204]
--- response_headers eval
[main::says(qw(missing anonymous ok))]
--- no_error_log
[crit]
[alert]
[error]



=== TEST 16: the upstream is told of nobody, whatever the client says of itself
--- config
auth_pat_optional on;
location = /t {
    proxy_set_header X-Auth-Pat-Subject $auth_pat_subject;
    proxy_set_header X-Auth-Pat-Status $auth_pat_status;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/upstream;
}
location = /upstream { auth_pat off; return 200 "[$http_x_auth_pat_subject] [$http_x_auth_pat_status]"; }
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
['X-Auth-Pat-Subject: root', "X-Auth-Pat-Subject: root\n" . (main::bearer('alice'))[0]]
--- response_body eval
['[] [anonymous]', '[alice] [ok]']
--- no_error_log
[crit]
[alert]
[error]
