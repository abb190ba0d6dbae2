# auth_pat_preflight: a browser's question whether it may ask.

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

our $origin    = 'Origin: https://app.example';
our $asks      = 'Access-Control-Request-Method: PUT';
our $preflight = "$origin\n$asks";

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
plan tests => repeat_each() * 179;

no_long_string();
run_tests();

__DATA__

=== TEST 1: with pass, a preflight is let in without a token, and the variables but the status are empty
--- config
auth_pat_preflight pass;
access_log logs/access.log auth_pat;
location = /t { try_files /nowhere =204; }
--- request
OPTIONS /t
--- more_headers eval
$main::preflight
--- error_code: 204
--- response_headers
X-Status: preflight
WWW-Authenticate:
--- access_log
[/t 204 pat=preflight id=- subject=- name=- scope=- expires=- in=- plan=-]
--- no_error_log
access token
[error]
[crit]
[alert]



=== TEST 2: it must be OPTIONS, with an Origin and an Access-Control-Request-Method
--- config
auth_pat_preflight pass;
location = /t { try_files /nowhere =204; }
--- request eval
["OPTIONS /t", "OPTIONS /t", "OPTIONS /t", (map { "$_ /t" } qw(GET HEAD DELETE TRACK)), "POST /t\nx=1"]
--- more_headers eval
[$main::origin, $main::asks, $main::nobody, ($main::preflight) x 5]
--- error_code eval
[(401) x 8]
--- response_headers eval
[main::says(('missing') x 8)]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 3: what is in the headers does not matter, nor how their names are written
--- config
auth_pat_preflight pass;
location = /t { try_files /nowhere =204; }
--- request eval
[("OPTIONS /t") x 5]
--- more_headers eval
["ORIGIN: null\naccess-control-request-method: *", "origin: x\nACCESS-CONTROL-REQUEST-METHOD: DELETE",
 "Origin:\nAccess-Control-Request-Method:", "X-H: v\n" x 40 . $main::preflight,
 "X-Origin: a\nAccess-Control-Request-Methods: PUT"]
--- error_code eval
[204, 204, 204, 204, 401]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 4: with check, or without the directive, a preflight needs a token like any other request
--- config
location = /t     { try_files /nowhere =204; }
location = /check { auth_pat_preflight check; try_files /nowhere =204; }
--- request eval
["OPTIONS /t", "OPTIONS /check", "OPTIONS /t", "OPTIONS /check"]
--- more_headers eval
[$main::preflight, $main::preflight, map { "$main::preflight\n$_" } main::bearer('alice', 'alice')]
--- error_code eval
[401, 401, 204, 204]
--- response_headers eval
[main::says(qw(missing missing ok ok))]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 5: a preflight with a token is a preflight, whatever the token is worth
--- config
auth_pat_preflight pass;
access_log logs/access.log auth_pat;
location = /t { try_files /nowhere =204; }
--- request eval
["OPTIONS /t", "OPTIONS /t"]
--- more_headers eval
[map { "$main::preflight\n$_" } main::bearer('revoked'), $main::bad[0]]
--- error_code eval
[204, 204]
--- response_headers eval
[main::says('preflight', 'preflight')]
--- access_log
pat=preflight id=- subject=-
--- no_error_log
[error]
[crit]
[alert]



=== TEST 6: it asks for no scope, no requirement and no store
--- config
auth_pat_preflight pass;
location = /scope   { auth_pat_require_scope write; try_files /nowhere =204; }
location = /require { auth_pat_require $arg_x error=404; try_files /nowhere =204; }
location = /store   { auth_pat_store $TEST_NGINX_STORE_MISSING; try_files /nowhere =204; }
location = /stale   { auth_pat_max_age 1s; try_files /nowhere =204; }
--- request eval
["OPTIONS /scope", "OPTIONS /require", "OPTIONS /store", "OPTIONS /stale"]
--- more_headers eval
[($main::preflight) x 4]
--- error_code eval
[(204) x 4]
--- response_headers eval
[main::says(('preflight') x 4)]
--- suppress_stderr
--- no_error_log
[alert]
[emerg]



=== TEST 7: it is inherited and overridden on every level
--- http_config
auth_pat_preflight pass;
server { listen $TEST_NGINX_SERVER_PORT; server_name check; auth_pat_preflight check; location / { try_files /nowhere =204; } }
--- config
location = /t { try_files /nowhere =204; }
location /check/ {
    auth_pat_preflight check;
    location = /check/t    { try_files /nowhere =204; }
    location = /check/pass { auth_pat_preflight pass; try_files /nowhere =204; }
}
--- request eval
["OPTIONS /t", "OPTIONS /t", "OPTIONS /check/t", "OPTIONS /check/pass"]
--- more_headers eval
[$main::preflight, "Host: check\n$main::preflight", $main::preflight, $main::preflight]
--- error_code eval
[204, 401, 401, 204]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 8: in limit_except it holds for the methods that are not listed
--- config
location = /pass  { limit_except GET { auth_pat_preflight pass; } try_files /nowhere =204; }
location = /check { auth_pat_preflight pass; limit_except GET { auth_pat_preflight check; } try_files /nowhere =204; }
location = /listed { limit_except OPTIONS { auth_pat_preflight pass; } try_files /nowhere =204; }
location = /inherits { auth_pat_preflight pass; limit_except GET { auth_pat Inner; } try_files /nowhere =204; }
--- request eval
["OPTIONS /pass", "OPTIONS /check", "OPTIONS /listed", "OPTIONS /inherits"]
--- more_headers eval
[($main::preflight) x 4]
--- error_code eval
[405, 401, 401, 405]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 9: with satisfy any a preflight is let in, and with satisfy all other modules must agree
--- config
auth_pat_preflight pass;
auth_basic people;
auth_basic_user_file $TEST_NGINX_SCRATCH/htpasswd;
location = /any { satisfy any; try_files /nowhere =204; }
location = /all { satisfy all; try_files /nowhere =204; }
--- request eval
["OPTIONS /any", "OPTIONS /all"]
--- more_headers eval
[($main::preflight) x 2]
--- error_code eval
[204, 401]
--- response_headers eval
[$main::nothing, 'WWW-Authenticate: Basic realm="people"']
--- no_error_log
[crit]
[alert]



=== TEST 10: it is not taken for optional: a preflight that is none is missing its token
--- config
auth_pat_preflight pass;
auth_pat_optional on;
location = /t { try_files /nowhere =204; }
--- request eval
["OPTIONS /t", "OPTIONS /t", "OPTIONS /t"]
--- more_headers eval
[$main::preflight, $main::origin, "$main::origin\n" . (main::bearer('revoked'))[0]]
--- error_code eval
[204, 204, 401]
--- response_headers eval
[main::says('preflight', 'anonymous', 'revoked')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 11: a preflight comes to the upstream without an identity
--- config
auth_pat_preflight pass;
location = /t {
    proxy_set_header X-Auth-Pat-Subject $auth_pat_subject;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/upstream;
}
location = /upstream { auth_pat off; return 200 "$request_method [$http_x_auth_pat_subject]"; }
--- request
OPTIONS /t
--- more_headers eval
"X-Auth-Pat-Subject: root\n$main::preflight\n" . (main::bearer('alice'))[0]
--- response_body: OPTIONS []
--- no_error_log
[error]
[crit]
[alert]



=== TEST 12: where validation is off, a preflight is nothing special
--- config
auth_pat_preflight pass;
location = /off { auth_pat off; try_files /nowhere =204; }
--- request
OPTIONS /off
--- more_headers eval
$main::preflight
--- error_code: 204
--- response_headers
X-Status: off
--- no_error_log
[error]
