# auth_pat_dry_run: what would happen is told, and does not happen.

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
plan tests => repeat_each() * 222;

no_long_string();
run_tests();

__DATA__

=== TEST 1: no request is refused, and the status says why each would have been
--- config
auth_pat_dry_run on;
location = /t       { try_files /nowhere =204; }
location = /scope   { auth_pat_require_scope write; try_files /nowhere =204; }
location = /require { auth_pat_require $arg_x; try_files /nowhere =204; }
location = /store   { auth_pat_store $TEST_NGINX_STORE_MISSING; try_files /nowhere =204; }
location = /stale   { auth_pat_max_age 1s; try_files /nowhere =204; }
--- request eval
[("GET /t") x 7, "GET /scope", "GET /require", "GET /store", "GET /stale"]
--- more_headers eval
[$main::nobody, @main::bad, main::bearer(('alice') x 4)]
--- error_code eval
[(204) x 11]
--- response_headers eval
[map { "X-Status: ${_}_dry_run\nWWW-Authenticate:\nRetry-After:" } 'missing', @main::verdicts,
 qw(scope_denied require_denied store_error stale)]
--- suppress_stderr
--- no_error_log
[alert]
[emerg]



=== TEST 2: who would be let in is, with the status of ever
--- config
auth_pat_dry_run on;
location = /t    { try_files /nowhere =204; }
location = /anon { auth_pat_optional on; try_files /nowhere =204; }
location = /pre  { auth_pat_preflight pass; try_files /nowhere =204; }
location = /open { auth_pat_fail_open on; auth_pat_max_age 1s; try_files /nowhere =204; }
location = /off  { auth_pat off; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /anon", "OPTIONS /pre", "GET /open", "GET /off"]
--- more_headers eval
[main::bearer('alice'), $main::nobody, "Origin: x\nAccess-Control-Request-Method: PUT", main::bearer('alice'), $main::nobody]
--- error_code eval
[(204) x 5]
--- response_headers eval
[main::says(qw(ok anonymous preflight stale off))]
--- no_error_log
[alert]
[error]



=== TEST 3: the variables of the token are empty where it would have been refused, but for its id
--- config
auth_pat_dry_run on;
access_log logs/access.log auth_pat;
location = /t { auth_pat_require_scope write; try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
main::bearer('alice')
--- error_code: 204
--- access_log
[/t 204 pat=scope_denied_dry_run id=id-alice subject=- name=- scope=- expires=- in=- plan=-]
--- error_log
access token "id-alice" lacks a scope, dry run
--- no_error_log
[error]
[crit]
[alert]



=== TEST 4: and they are there where it is good
--- config
auth_pat_dry_run on;
access_log logs/access.log auth_pat;
location = /t { try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
main::bearer('alice')
--- error_code: 204
--- access_log
[/t 204 pat=ok id=id-alice subject=alice name=of alice scope=read expires=- in=- plan=pro]
--- no_error_log
dry run
[error]
[crit]
[alert]



=== TEST 5: the log has the line of a refusal, which ends in dry run: no token
--- config
auth_pat_dry_run on;
location = /t { try_files /nowhere =204; }
--- request
GET /t
--- error_code: 204
--- error_log eval
qr/\[info\].* no access token was provided, dry run, client: /
--- no_error_log
[error]



=== TEST 6: the log has the line of a refusal, which ends in dry run: a token that was revoked
--- config
auth_pat_dry_run on;
location = /t { try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
main::bearer('revoked')
--- error_code: 204
--- error_log eval
qr/\[info\].* access token "id-revoked" was revoked, dry run, client: /
--- no_error_log
[error]



=== TEST 7: a refusal that is one does not speak of a dry run
--- config
location = /t { try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
main::bearer('revoked')
--- error_code: 401
--- error_log
access token "id-revoked" was revoked, client:
--- no_error_log
dry run
[error]



=== TEST 8: none is let in that another module refuses
--- config
auth_pat_dry_run on;
auth_basic people;
auth_basic_user_file $TEST_NGINX_SCRATCH/htpasswd;
auth_pat API token=$http_x_api_key;
location = /any { satisfy any; try_files /nowhere =204; }
location = /all { satisfy all; try_files /nowhere =204; }
location = /deny { auth_basic off; satisfy any; deny all; try_files /nowhere =204; }
--- request eval
[("GET /any", "GET /all") x 3, "GET /deny"]
--- more_headers eval
[("X-Api-Key: $main::token{alice}") x 2, ("X-Api-Key: $main::token{revoked}\n$main::basic") x 2, ($main::nobody) x 2,
 "X-Api-Key: $main::token{alice}"]
--- error_code eval
[401, 401, 204, 204, 401, 401, 403]
--- response_headers eval
[('WWW-Authenticate: Basic realm="people"') x 2, ($main::nothing) x 2, ('WWW-Authenticate: Basic realm="people"') x 2, $main::nothing]
--- no_error_log
[crit]
[alert]



=== TEST 9: it is inherited and overridden on every level
--- http_config
auth_pat_dry_run on;
server { listen $TEST_NGINX_SERVER_PORT; server_name real; auth_pat_dry_run off; location / { try_files /nowhere =204; } }
--- config
location = /t { try_files /nowhere =204; }
location /off/ {
    auth_pat_dry_run off;
    location = /off/t  { try_files /nowhere =204; }
    location = /off/on { auth_pat_dry_run on; try_files /nowhere =204; }
}
--- request eval
["GET /t", "GET /t", "GET /off/t", "GET /off/on"]
--- more_headers eval
[$main::nobody, 'Host: real', $main::nobody, $main::nobody]
--- error_code eval
[204, 401, 401, 204]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 10: in limit_except it holds for the methods that are not listed
--- config
log_not_found off;   # no try_files in limit_except: who is let in finds no file
location = /writing { limit_except GET { auth_pat_dry_run on; } try_files /nowhere =204; }
location = /reading { auth_pat_dry_run on; limit_except GET { auth_pat_dry_run off; } try_files /nowhere =204; }
location = /inherits { auth_pat_dry_run on; limit_except GET { auth_pat Inner; } try_files /nowhere =204; }
--- request eval
["GET /writing", "POST /writing\nx", "GET /reading", "POST /reading\nx", "POST /inherits\nx"]
--- error_code eval
[401, 404, 204, 401, 404]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 11: after an internal redirect from a dry run to a place where it is none, the refusal is one, and the other way round
--- config
location = /dry  { auth_pat_dry_run on; try_files /nowhere /real; }
location = /real { try_files /nowhere =204; }
location = /first { auth_pat_dry_run on; try_files /nowhere /second; }
location = /second { auth_pat_dry_run on; auth_pat_require_scope write; try_files /nowhere =204; }
--- request eval
["GET /dry", "GET /first", "GET /first"]
--- more_headers eval
[main::bearer('revoked'), main::bearer('revoked'), main::bearer('alice')]
--- error_code eval
[401, 204, 204]
--- response_headers eval
[main::says(qw(revoked revoked_dry_run scope_denied_dry_run))]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 12: an error_page that leads to a dry run has no challenge left of it, and keeps the status
--- config
error_page 401 /refused;
location = /t       { try_files /nowhere =204; }
location = /refused { auth_pat_dry_run on; try_files /nowhere =410; }
--- request
GET /t
--- more_headers eval
main::bearer('revoked')
--- error_code: 410
--- response_headers
X-Status: revoked_dry_run
WWW-Authenticate:
--- no_error_log
[crit]
[alert]



=== TEST 13: an upstream is told of nobody whose token would have been refused
--- config
auth_pat_dry_run on;
location = /t {
    proxy_set_header X-Auth-Pat-Subject $auth_pat_subject;
    proxy_set_header X-Auth-Pat-Status $auth_pat_status;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/upstream;
}
location = /upstream { auth_pat off; return 200 "[$http_x_auth_pat_subject] [$http_x_auth_pat_status]"; }
--- request eval
[("GET /t") x 3]
--- more_headers eval
["X-Auth-Pat-Subject: root", main::bearer('revoked', 'alice')]
--- response_body eval
['[] [missing_dry_run]', '[] [revoked_dry_run]', '[alice] [ok]']
--- no_error_log
[crit]
[alert]
[error]



=== TEST 14: the status is told before the access phase as after it
--- config
auth_pat_dry_run on;
location = /t { set $before $auth_pat_status; add_header X-Before $before; try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
main::bearer('expired')
--- error_code: 204
--- response_headers
X-Before: expired_dry_run
--- no_error_log
[error]



=== TEST 15: a realm that depends on a variable of ours is answered with 500, unless it is a dry run
--- config
location = /real { auth_pat "$auth_pat_subject"; try_files /nowhere =204; }
location = /dry  { auth_pat "$auth_pat_subject"; auth_pat_dry_run on; try_files /nowhere =204; }
--- request eval
["GET /real", "GET /dry"]
--- more_headers eval
[main::bearer(('alice') x 2)]
--- error_code eval
[500, 204]
--- error_log
realm, token or scope of "auth_pat" depends on a variable that it sets itself
--- no_error_log
[crit]
[alert]



=== TEST 16: a fault of the store is logged at crit in a dry run, too
--- config
auth_pat_dry_run on;
location = /t { auth_pat_store $TEST_NGINX_STORE_MISSING; try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
main::bearer('alice')
--- error_code: 204
--- suppress_stderr
--- error_log eval
qr/\[crit\].* auth_pat store ".*missing": there is no store/
--- no_error_log
[alert]
[emerg]
