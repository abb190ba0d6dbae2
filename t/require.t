# auth_pat_require: what must hold besides the token.

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use Test::Nginx::Socket;

our $store = new_store('main');
our %token = import_each_kind($store,
    gold  => '"subject":"gold","name":"of gold","scopes":["read"],"claims":{"plan":"gold"}',
    plain => '"subject":"plain"',
    odd   => '"subject":"odd","claims":{"nil":"0","nils":"00","empty":"","blank":"0 0"}');
write_file(scratch() . '/htpasswd', "bob:{PLAIN}secret\n");

our $basic = 'Authorization: Basic Ym9iOnNlY3JldA==';    # bob:secret

sub bearer { return map { "Authorization: Bearer $token{$_}" } @_ }

# The status of each answer in our words, and the token that was told of.
sub says { return map { "X-Status: $_" } @_ }

our $lacks   = 'WWW-Authenticate: Bearer realm="API", error="insufficient_scope"';
our $invalid = 'WWW-Authenticate: Bearer realm="API", error="invalid_token", '
    . 'error_description="The access token does not meet a requirement"';
our $nothing = 'WWW-Authenticate:';

add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value(http_config => <<'END' . ($block->http_config // ''));
auth_pat_store $TEST_NGINX_STORE_MAIN;
auth_pat API;
add_header X-Status $auth_pat_status always;
log_format auth_pat '[$uri $status pat=$auth_pat_status id=$auth_pat_id subject=$auth_pat_subject name=$auth_pat_name scope=$auth_pat_scope plan=$auth_pat_claim_plan]';
END
});

repeat_each(2);
plan tests => repeat_each() * 832;

no_long_string();
run_tests();

__DATA__

=== TEST 1: a value is neither empty nor 0, and nothing else is taken for either
--- config
location = /t { auth_pat_require $arg_x; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t?x", "GET /t?x=", "GET /t?x=0", map { "GET /t?x=$_" } qw(1 00 0.0 -0 +0 0x 0;0 %30 %20 off false no)]
--- more_headers eval
[(main::bearer('plain')) x 16]
--- error_code eval
[(403) x 4, (204) x 12]
--- response_headers eval
[main::says(('require_denied') x 4, ('ok') x 12)]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 2: each of several values must hold
--- config
location = /t { auth_pat_require $arg_a $arg_b $arg_c; try_files /nowhere =204; }
--- request eval
[map { "GET /t?$_" } 'a=1&b=1&c=1', 'a=0&b=1&c=1', 'a=1&b=0&c=1', 'a=1&b=1&c=0', 'a=1&b=1', 'b=1&c=1', 'c=1']
--- more_headers eval
[(main::bearer('plain')) x 7]
--- error_code eval
[204, (403) x 6]
--- response_headers eval
[main::says('ok', ('require_denied') x 6)]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 3: several directives must all hold, and are tried in their order
--- config
location = /t {
    auth_pat_require $arg_a $arg_d error=402;
    auth_pat_require $arg_b error=404;
    auth_pat_require $arg_c error=401;
    try_files /nowhere =204;
}
--- request eval
[map { "GET /t?$_" } 'a=1&b=1&c=1&d=1', 'b=1&c=1&d=1', 'a=1&c=1&d=1', 'a=1&b=1&d=1', 'a=1&b=1&c=1', 'a=1&d=1', 'd=1', '']
--- more_headers eval
[(main::bearer('plain')) x 8]
--- error_code eval
[204, 402, 404, 401, 402, 404, 402, 402]
--- response_headers eval
[map { "X-Status: $_" } 'ok', ('require_denied') x 7]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 4: without error= it is 403, and with it, that status; there is a challenge with 401 and 403 alone
--- config
location = /default { auth_pat_require $arg_x; try_files /nowhere =204; }
location = /400 { auth_pat_require $arg_x error=400; try_files /nowhere =204; }
location = /401 { auth_pat_require $arg_x error=401; try_files /nowhere =204; }
location = /402 { auth_pat_require $arg_x error=402; try_files /nowhere =204; }
location = /403 { auth_pat_require $arg_x error=403; try_files /nowhere =204; }
location = /404 { auth_pat_require $arg_x error=404; try_files /nowhere =204; }
location = /405 { auth_pat_require $arg_x error=405; try_files /nowhere =204; }
location = /407 { auth_pat_require $arg_x error=407; try_files /nowhere =204; }
location = /418 { auth_pat_require $arg_x error=418; try_files /nowhere =204; }
location = /429 { auth_pat_require $arg_x error=429; try_files /nowhere =204; }
location = /451 { auth_pat_require $arg_x error=451; try_files /nowhere =204; }
--- request eval
[map { "GET /$_" } qw(default 400 401 402 403 404 405 407 418 429 451)]
--- more_headers eval
[(main::bearer('gold')) x 11]
--- error_code eval
[403, 400, 401, 402, 403, 404, 405, 407, 418, 429, 451]
--- response_headers eval
[map { "X-Status: require_denied\nRetry-After:\n$_" } $main::lacks, $main::nothing, $main::invalid, $main::nothing,
 $main::lacks, ($main::nothing) x 6]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 5: with error=444 the connection is closed without an answer
--- config
access_log logs/access.log auth_pat;
location = /t { auth_pat_require $arg_x error=444; try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
"Authorization: Bearer $main::token{plain}"
--- ignore_response
--- wait: 0.1
--- error_log
access token "id-plain" does not meet a requirement
--- no_error_log
[error]
[crit]
[alert]



=== TEST 6: with error=444 there are no bytes of an answer
--- config
location = /t { auth_pat off; proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/inner$is_args$args; }
location = /inner { auth_pat_require $arg_x error=444; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t?x=1"]
--- more_headers eval
[main::bearer('plain', 'plain')]
--- error_code eval
[502, 204]
--- no_error_log
[crit]
[alert]



=== TEST 7: error= may stand anywhere, and the last one counts for the whole directive
--- config
location = /front  { auth_pat_require error=404 $arg_a $arg_b; try_files /nowhere =204; }
location = /middle { auth_pat_require $arg_a error=404 $arg_b; try_files /nowhere =204; }
location = /twice  { auth_pat_require $arg_a error=402 $arg_b error=404; try_files /nowhere =204; }
--- request eval
[map { ("GET /$_?a=1&b=1", "GET /$_?b=1", "GET /$_?a=1") } qw(front middle twice)]
--- more_headers eval
[(main::bearer('plain')) x 9]
--- error_code eval
[(204, 404, 404) x 3]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 8: it is inherited from http to server, location and a location within
--- http_config
auth_pat_require $arg_h error=410;
server { listen $TEST_NGINX_SERVER_PORT; server_name other; auth_pat_require $arg_s error=411; location / { try_files /nowhere =204; } }
--- config
location = /t { try_files /nowhere =204; }
location /in/ { location = /in/t { try_files /nowhere =204; } }
--- request eval
["GET /t?h=1", "GET /t?s=1", "GET /in/t?h=1", "GET /in/t?s=1", "GET /t?h=1", "GET /t?s=1"]
--- more_headers eval
[(main::bearer('plain')) x 4, map { "Host: other\n$_" } main::bearer('plain', 'plain')]
--- error_code eval
[204, 410, 204, 410, 411, 204]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 9: those of a level take the place of all that are above it
--- http_config
auth_pat_require $arg_h error=410;
--- config
auth_pat_require $arg_s error=411;
auth_pat_require $arg_s2 error=412;
location = /server { try_files /nowhere =204; }
location /own/ {
    auth_pat_require $arg_l error=413;
    location = /own/t     { try_files /nowhere =204; }
    location = /own/inner { auth_pat_require $arg_i error=414; try_files /nowhere =204; }
}
--- request eval
["GET /server?s=1&s2=1", "GET /server?h=1&s=1", "GET /server?h=1&s2=1", "GET /own/t?l=1", "GET /own/t?h=1&s=1&s2=1",
 "GET /own/inner?i=1", "GET /own/inner?h=1&s=1&s2=1&l=1"]
--- more_headers eval
[(main::bearer('plain')) x 7]
--- error_code eval
[204, 412, 411, 204, 413, 204, 414]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 10: limit_except inherits it, and has its own for the methods that are not listed
--- config
# No try_files in limit_except: DELETE, where it is let in, gets 405.
location /inherits { auth_pat_require $arg_l error=410; limit_except GET { auth_pat API; } try_files /nowhere =204; }
location /own {
    auth_pat_require $arg_l error=410;
    limit_except GET { auth_pat_require $arg_m error=411; }
    try_files /nowhere =204;
}
--- request eval
["GET /inherits?l=1", "DELETE /inherits?l=1", "DELETE /inherits?m=1", "GET /own?l=1", "GET /own?m=1", "HEAD /own?m=1",
 "DELETE /own?m=1", "DELETE /own?l=1"]
--- more_headers eval
[(main::bearer('plain')) x 8]
--- error_code eval
[204, 405, 410, 204, 410, 410, 405, 411]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 11: a value may be a claim of the token
--- config
location = /plan  { auth_pat_require $auth_pat_claim_plan; try_files /nowhere =204; }
location = /nil   { auth_pat_require $auth_pat_claim_nil; try_files /nowhere =204; }
location = /nils  { auth_pat_require $auth_pat_claim_nils; try_files /nowhere =204; }
location = /empty { auth_pat_require $auth_pat_claim_empty; try_files /nowhere =204; }
location = /blank { auth_pat_require $auth_pat_claim_blank; try_files /nowhere =204; }
--- request eval
["GET /plan", "GET /plan", "GET /nil", "GET /nils", "GET /empty", "GET /blank", "GET /nils"]
--- more_headers eval
[main::bearer('gold', 'plain', ('odd') x 4, 'gold')]
--- error_code eval
[204, 403, 403, 204, 403, 204, 403]
--- response_headers eval
[main::says('ok', 'require_denied', 'require_denied', 'ok', 'require_denied', 'ok', 'require_denied')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 12: a map turns a claim into what is required, as in the documentation
--- http_config
map $auth_pat_claim_plan $has_reports {
    volatile;
    default  0;
    gold     1;
    silver   1;
}
--- config
location /reports/ { auth_pat_require $has_reports error=402; try_files /nowhere =204; }
--- request eval
["GET /reports/", "GET /reports/", "GET /reports/", "GET /reports/"]
--- more_headers eval
[main::bearer('gold', 'plain', 'odd', 'revoked')]
--- error_code eval
[204, 402, 402, 401]
--- response_headers eval
[main::says('ok', 'require_denied', 'require_denied', 'revoked')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 13: what a map found out earlier in the request stays as it was, unless it is volatile
--- http_config
map $auth_pat_claim_plan $once   { default 0; gold 1; }
map $auth_pat_claim_plan $always { volatile; default 0; gold 1; }
--- config
location ~ ^/(once|always)$ {
    auth_pat API token=$http_x_first;
    set $seen "$once $always";
    rewrite ^ /in$uri last;
}
location = /in/once   { auth_pat API token=$http_x_second; auth_pat_require $once; try_files /nowhere =204; }
location = /in/always { auth_pat API token=$http_x_second; auth_pat_require $always; try_files /nowhere =204; }
--- request eval
["GET /once", "GET /always", "GET /once", "GET /always"]
--- more_headers eval
[("X-First: $main::token{gold}\nX-Second: $main::token{plain}") x 2,
 ("X-First: $main::token{plain}\nX-Second: $main::token{gold}") x 2]
--- error_code eval
[204, 403, 403, 204]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 14: a value is made of variables, of the request or of the connection
--- config
location = /header { auth_pat_require $http_x_debug; try_files /nowhere =204; }
location = /cookie { auth_pat_require $cookie_consent; try_files /nowhere =204; }
location = /two    { auth_pat_require $arg_a$arg_b; try_files /nowhere =204; }
location = /braces { auth_pat_require "${arg_a}"; try_files /nowhere =204; }
location = /tls    { auth_pat_require $https; try_files /nowhere =204; }
location = /local  { auth_pat_require $remote_addr; try_files /nowhere =204; }
--- request eval
["GET /header", "GET /header", "GET /cookie", "GET /cookie", "GET /two", "GET /two?a=0", "GET /two?a=0&b=0", "GET /two?b=1",
 "GET /braces?a=1", "GET /braces?a=0", "GET /tls", "GET /local"]
--- more_headers eval
[(map { "$_\n" . (main::bearer('plain'))[0] } 'X-Debug: 1', 'X-Debug: 0', 'Cookie: consent=yes', 'Cookie: consent=0'),
 (main::bearer('plain')) x 8]
--- error_code eval
[204, 403, 204, 403, 403, 403, 204, 204, 204, 403, 403, 204]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 15: it is the last thing that is asked of a token: one that is not good is refused for that
--- config
location = /t     { auth_pat_require $arg_x error=404; try_files /nowhere =204; }
location = /scope { auth_pat_require_scope write; auth_pat_require $arg_x error=404; try_files /nowhere =204; }
--- request eval
[("GET /t") x 7, "GET /scope", "GET /t"]
--- more_headers eval
['X-Foo: bar', 'Authorization: Bearer x', 'Authorization: Bearer unknown-token-0001',
 main::bearer(qw(revoked expired early remote gold gold))]
--- error_code eval
[401, 401, 401, 401, 401, 401, 403, 403, 404]
--- response_headers eval
[main::says(qw(missing malformed unknown revoked expired not_yet_valid address_denied scope_denied require_denied))]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 16: scopes are needed besides, whichever directive comes first
--- config
auth_pat_require $arg_x error=404;
auth_pat_require_scope read;
location = /t { try_files /nowhere =204; }
--- request eval
["GET /t?x=1", "GET /t", "GET /t?x=1", "GET /t"]
--- more_headers eval
[main::bearer('gold', 'gold', 'plain', 'plain')]
--- error_code eval
[204, 404, 403, 403]
--- response_headers eval
["X-Status: ok\n$main::nothing", "X-Status: require_denied\n$main::nothing",
 ("X-Status: scope_denied\n$main::lacks, scope=\"read\"") x 2]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 17: a refusal does not name scopes that the token has
--- config
location = /t { auth_pat_require_scope read; auth_pat_require $arg_x; try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
"Authorization: Bearer $main::token{gold}"
--- error_code: 403
--- response_headers eval
"X-Status: require_denied\n$main::lacks"
--- no_error_log
[error]
[crit]
[alert]



=== TEST 18: the variables have the values that they have if the request is let in
--- http_config
map $auth_pat_status  $is_ok   { volatile; default 0; ok 1; }
map $auth_pat_subject $is_gold { volatile; default 0; gold 1; }
map $auth_pat_scope   $reads   { volatile; default 0; ~\bread\b 1; }
--- config
location = /status  { auth_pat_require $is_ok; try_files /nowhere =204; }
location = /subject { auth_pat_require $is_gold; try_files /nowhere =204; }
location = /scope   { auth_pat_require $reads; try_files /nowhere =204; }
location = /all     { auth_pat_require $auth_pat_status $auth_pat_id $auth_pat_subject $auth_pat_name $auth_pat_scope; try_files /nowhere =204; }
--- request eval
[("GET /status", "GET /subject", "GET /scope", "GET /all") x 2]
--- more_headers eval
[main::bearer(('gold') x 4, ('plain') x 4)]
--- error_code eval
[204, 204, 204, 204, 204, 403, 403, 403]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 19: after a refusal the id is known, and nobody is identified
--- config
access_log logs/access.log auth_pat;
location = /t {
    auth_pat_require $auth_pat_status $auth_pat_subject $auth_pat_name $auth_pat_scope $auth_pat_claim_plan $arg_x error=402;
    try_files /nowhere =204;
}
--- request
GET /t
--- more_headers eval
"Authorization: Bearer $main::token{gold}"
--- error_code: 402
--- response_headers
X-Status: require_denied
--- access_log
[/t 402 pat=require_denied id=id-gold subject=- name=- scope=- plan=-]
--- error_log
access token "id-gold" does not meet a requirement
--- no_error_log
[error]
[crit]
[alert]



=== TEST 20: one that is let in has its variables afterwards
--- config
access_log logs/access.log auth_pat;
location = /t { auth_pat_require $arg_x error=402; try_files /nowhere =204; }
--- request
GET /t?x=1
--- more_headers eval
"Authorization: Bearer $main::token{gold}"
--- error_code: 204
--- access_log
[/t 204 pat=ok id=id-gold subject=gold name=of gold scope=read plan=gold]
--- no_error_log
does not meet a requirement
[error]
[crit]
[alert]



=== TEST 21: a refusal is logged at info
--- log_level: notice
--- config
location = /t { auth_pat_require $arg_x; try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
"Authorization: Bearer $main::token{gold}"
--- error_code: 403
--- no_error_log
does not meet a requirement
[error]



=== TEST 22: with satisfy any, another module is asked after 401 and 403, and any other error is final
--- config
satisfy any;
auth_basic people;
auth_basic_user_file $TEST_NGINX_SCRATCH/htpasswd;
auth_pat API token=$http_x_api_key;
location = /default { auth_pat_require $arg_x; try_files /nowhere =204; }
location = /401     { auth_pat_require $arg_x error=401; try_files /nowhere =204; }
location = /402     { auth_pat_require $arg_x error=402; try_files /nowhere =204; }
location = /404     { auth_pat_require $arg_x error=404; try_files /nowhere =204; }
--- request eval
[("GET /default", "GET /401", "GET /402", "GET /404") x 2, "GET /404?x=1"]
--- more_headers eval
[("X-Api-Key: $main::token{gold}\n$main::basic") x 4, ("X-Api-Key: $main::token{gold}") x 5]
--- error_code eval
[204, 204, 402, 404, 401, 401, 402, 404, 204]
--- raw_response_headers_unlike eval
[(qr/^WWW-Authenticate:/m) x 4, (qr/^X-Nothing:/m) x 2, (qr/^WWW-Authenticate:/m) x 3]
--- no_error_log
[crit]
[alert]



=== TEST 23: with satisfy any, who does not meet a requirement is told of both ways
--- config
location = /t {
    satisfy any;
    auth_basic people;
    auth_basic_user_file $TEST_NGINX_SCRATCH/htpasswd;
    auth_pat API token=$http_x_api_key;
    auth_pat_require $arg_x;
    try_files /nowhere =204;
}
--- request
GET /t
--- more_headers eval
"X-Api-Key: $main::token{gold}"
--- error_code: 401
--- raw_response_headers_like eval
qr/(?=.*^WWW-Authenticate: Bearer realm="API", error="insufficient_scope"\r$)(?=.*^WWW-Authenticate: Basic realm="people"\r$)/ms
--- no_error_log
[crit]
[alert]



=== TEST 24: it is asked of a request without a token, too, that auth_pat_optional lets in
--- config
auth_pat_optional on;
location = /t    { auth_pat_require $arg_x; try_files /nowhere =204; }
location = /401  { auth_pat_require $arg_x error=401; try_files /nowhere =204; }
location = /404  { auth_pat_require $arg_x error=404; try_files /nowhere =204; }
location = /who  { auth_pat_require $auth_pat_subject; try_files /nowhere =204; }
--- request eval
["GET /t?x=1", "GET /t", "GET /401", "GET /404", "GET /who", "GET /who"]
--- more_headers eval
[('X-Foo: bar') x 5, main::bearer('plain')]
--- error_code eval
[204, 403, 401, 404, 403, 204]
--- response_headers eval
["X-Status: anonymous\n$main::nothing", ("X-Status: require_denied\nWWW-Authenticate: Bearer realm=\"API\"") x 2,
 "X-Status: require_denied\n$main::nothing", "X-Status: require_denied\nWWW-Authenticate: Bearer realm=\"API\"", "X-Status: ok\n$main::nothing"]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 25: a map on the verdict tells the anonymous from those with a token
--- http_config
map $auth_pat_status:$request_method $may { volatile; default 0; ~^ok: 1; anonymous:GET 1; }
--- config
auth_pat_optional on;
location = /t { auth_pat_require $may error=401; try_files /nowhere =204; }
--- request eval
["GET /t", "DELETE /t", "GET /t", "DELETE /t"]
--- more_headers eval
['X-Foo: bar', 'X-Foo: bar', main::bearer('plain', 'plain')]
--- error_code eval
[204, 401, 204, 204]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 26: it is not asked of a preflight, which has no values to look at
--- config
location = /t { auth_pat_preflight pass; auth_pat_require $arg_x error=404; try_files /nowhere =204; }
--- request eval
["OPTIONS /t", "OPTIONS /t", "OPTIONS /t"]
--- more_headers eval
["Origin: https://a.example\nAccess-Control-Request-Method: PUT", "Origin: https://a.example",
 "Authorization: Bearer $main::token{plain}"]
--- error_code eval
[204, 401, 404]
--- response_headers eval
[main::says('preflight', 'missing', 'require_denied')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 27: with auth_pat_dry_run nobody is refused, and the log and the variables say who would have been
--- config
auth_pat_dry_run on;
access_log logs/access.log auth_pat;
location = /t { auth_pat_require $auth_pat_subject $arg_x error=404; try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
"Authorization: Bearer $main::token{gold}"
--- error_code: 204
--- response_headers eval
"X-Status: require_denied_dry_run\n$main::nothing"
--- access_log
[/t 204 pat=require_denied_dry_run id=id-gold subject=- name=- scope=- plan=-]
--- error_log
access token "id-gold" does not meet a requirement, dry run
--- no_error_log
[error]
[crit]
[alert]



=== TEST 28: after an internal redirect it is that of the new location, and the variables are those of the last decision
--- config
access_log logs/access.log auth_pat;
location = /t { auth_pat_require $arg_a error=410; try_files /nowhere /in$is_args$args; }
location = /in { auth_pat_require $arg_b error=411; try_files /nowhere =204; }
location = /off { auth_pat_require $arg_a error=410; try_files /nowhere /in-off$is_args$args; }
location = /in-off { auth_pat off; auth_pat_require $arg_b error=411; try_files /nowhere =204; }
--- request eval
["GET /t?a=1&b=1", "GET /t?b=1", "GET /t?a=1", "GET /off?a=1", "GET /off?b=1"]
--- more_headers eval
[main::bearer(('gold') x 5)]
--- error_code eval
[204, 410, 411, 204, 410]
--- response_headers eval
[main::says('ok', 'require_denied', 'require_denied', 'ok', 'require_denied')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 29: error_page gives a status a body of its own, and the variables say what happened
--- config
error_page 402 @pay;
error_page 429 = @later;
location = /t     { auth_pat_require $arg_x error=402; try_files /nowhere =204; }
location = /later { auth_pat_require $arg_x error=429; try_files /nowhere =204; }
location = /403   { auth_pat_require $arg_x; error_page 403 @refused; try_files /nowhere =204; }
location @pay     { return 402 "pay: $auth_pat_status $auth_pat_id $auth_pat_subject."; }
location @later   { return 503 "later: $auth_pat_status"; }
location @refused { return 403 "no: $auth_pat_status"; }
--- request eval
["GET /t", "GET /later", "GET /403", "GET /t?x=1"]
--- more_headers eval
[main::bearer(('gold') x 4)]
--- error_code eval
[402, 503, 403, 204]
--- response_headers eval
[$main::nothing, $main::nothing, $main::lacks, $main::nothing]
--- response_body eval
["pay: require_denied id-gold .", "later: require_denied", "no: require_denied", ""]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 30: an error_page in a location with a requirement of its own is refused there
--- config
error_page 402 /pay;
location = /t   { auth_pat_require $arg_x error=402; try_files /nowhere =204; }
location = /pay { auth_pat_require $arg_y error=402; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t?y=1"]
--- more_headers eval
[main::bearer(('gold') x 2)]
--- error_code eval
[402, 402]
--- response_body_like eval
[qr/402 Payment Required/, qr/\A\z|402/]
--- no_error_log
[crit]
[alert]



=== TEST 31: with auth_pat off nothing is required, be it so by the realm's value
--- config
location = /off   { auth_pat off; auth_pat_require $arg_x; try_files /nowhere =204; }
location = /value { auth_pat $arg_realm; auth_pat_require $arg_x; try_files /nowhere =204; }
--- request eval
["GET /off", "GET /value?realm=off", "GET /value?realm=on", "GET /value?realm=on&x=1"]
--- more_headers eval
[('X-Foo: bar') x 2, main::bearer(('gold') x 2)]
--- error_code eval
[204, 204, 403, 204]
--- response_headers eval
[main::says('off', 'off', 'require_denied', 'ok')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 32: every method is asked, and HEAD gets the same headers
--- config
location = /t { auth_pat_require $arg_x; try_files /nowhere =204; }
--- request eval
["HEAD /t", "POST /t\nx=1", "PUT /t\nx=1", "OPTIONS /t", "HEAD /t?x=1"]
--- more_headers eval
[main::bearer(('gold') x 5)]
--- error_code eval
[403, 403, 403, 403, 204]
--- response_headers eval
[($main::lacks) x 4, $main::nothing]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 33: who asks for a variable before the access phase is told of the requirement, too
--- config
access_log logs/access.log auth_pat;
location = /t {
    set $before "$auth_pat_subject/$auth_pat_status";
    auth_pat_require $arg_x;
    add_header X-Before $before always;
    try_files /nowhere =204;
}
--- request
GET /t
--- more_headers eval
"Authorization: Bearer $main::token{gold}"
--- error_code: 403
--- response_headers
X-Before: /require_denied
--- access_log
pat=require_denied id=id-gold subject=- name=-
--- no_error_log
[error]
[crit]
[alert]



=== TEST 34: a realm with a quote is escaped in the challenge of an unmet requirement
--- config
location = /t { auth_pat "a\"b$arg_r"; auth_pat_require $arg_x; try_files /nowhere =204; }
--- request
GET /t?r=c
--- more_headers eval
"Authorization: Bearer $main::token{gold}"
--- error_code: 403
--- response_headers
WWW-Authenticate: Bearer realm="a\"bc", error="insufficient_scope"
--- no_error_log
[error]
[crit]
[alert]
