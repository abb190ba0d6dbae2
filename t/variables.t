# The variables: what each one holds, in every place where nginx can use it, and that nobody is identified by a token
# that is not good.

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use Test::Nginx::Socket;

our $store = new_store('main');
store_path('absent');

our %token = map { $_ => "the-token-of-$_-00001" } qw(alice bare expired revoked early remote limited1 limited2 changing);
our $expires = int(time) + 86400;

sub import_tokens {
    my (@lines) = @_;
    patctl($store, \join('', map { "$_\n" } @lines), 'import', '--plaintext', '--strict', '-');
    return;
}
my $who = '"subject":"user:%s","name":"of %s","scopes":["read","write"],"claims":{"plan":"pro","team":"a b"}';
sub line {
    my ($name, $more) = @_;
    return sprintf qq({"token":"$token{$name}","id":"id-$name",$who$more}), $name, $name;
}
import_tokens(
    qq({"token":"$token{alice}","id":"id-alice","subject":"user:alice","name":"csv upload","scopes":["csv:read","csv:write"],)
        . qq("expires_at":$expires,"claims":{"plan":"pro","team_2":"a, b = c","empty":"","level":"12"}}),
    qq({"token":"$token{bare}","id":"id-bare","subject":"user:bare"}),
    line('expired', ',"expires_at":1600000000'), line('revoked', ''), line('early', ',"not_before":4000000000'),
    line('remote', ',"cidrs":["192.0.2.0/24"]'), line('changing', ''));
patctl($store, 'revoke', 'id-revoked');

on_request('revoke-changing'  => sub { patctl($store, 'revoke', 'id-changing') });
on_request('restore-changing' => sub { patctl($store, 'restore-access', 'id-changing') });

# What the last mirrored request said, which nobody else sees.
my $noted = '';
on_request('note' => sub { my (%arguments) = @_; $noted = $arguments{who}; return '' });
on_request('told' => sub { return $noted });

# Ids that no limit has seen before, so that a block can be repeated.
my $round = 0;
on_request('fresh' => sub {
    $round++;
    import_tokens(map { qq({"token":"$token{$_}","id":"$_-$round","subject":"$_"}) } qw(limited1 limited2));
});

sub bearer { return map { "Authorization: Bearer $token{$_}" } @_ }

our @bad = ('X-Foo: bar', 'Authorization: Bearer x', 'Authorization: Bearer unknown-token-0001', bearer(qw(expired revoked early remote alice)));
our @bad_uri = map { "GET $_" } (('/t') x 7, '/scope');
our @bad_status = (401, 401, 401, 401, 401, 401, 403, 403);
our @verdicts = qw(missing malformed unknown expired revoked not_yet_valid address_denied scope_denied);
our @known_id = ('', '', '', qw(id-expired id-revoked id-early id-remote id-alice));

add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value(http_config => <<'END' . ($block->http_config // ''));
auth_pat_store $TEST_NGINX_STORE_MAIN;
END
});

repeat_each(2);
plan tests => repeat_each() * 573;

no_long_string();
run_tests();

__DATA__

=== TEST 1: each variable of a token that is let in
--- config
location = /t {
    auth_pat API;
    add_header X-Status  "[$auth_pat_status]";
    add_header X-Id      "[$auth_pat_id]";
    add_header X-Subject "[$auth_pat_subject]";
    add_header X-Name    "[$auth_pat_name]";
    add_header X-Scope   "[$auth_pat_scope]";
    add_header X-Expires "[$auth_pat_expires]";
    add_header X-Plan    "[$auth_pat_claim_plan]";
    add_header X-Team    "[$auth_pat_claim_team_2]";
    add_header X-Level   "[$auth_pat_claim_level]";
    add_header X-Empty   "[$auth_pat_claim_empty]";
    add_header X-Nothing "[$auth_pat_claim_nothing]";
    try_files /nowhere =204;
}
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
[main::bearer('alice', 'bare')]
--- error_code eval
[204, 204]
--- response_headers eval
["X-Status: [ok]\nX-Id: [id-alice]\nX-Subject: [user:alice]\nX-Name: [csv upload]\nX-Scope: [csv:read csv:write]\n"
 . "X-Expires: [$main::expires]\nX-Plan: [pro]\nX-Team: [a, b = c]\nX-Level: [12]\nX-Empty: []\nX-Nothing: []",
 "X-Status: [ok]\nX-Id: [id-bare]\nX-Subject: [user:bare]\nX-Name: []\nX-Scope: []\n"
 . "X-Expires: []\nX-Plan: []\nX-Team: []\nX-Level: []\nX-Empty: []\nX-Nothing: []"]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 2: expires_in is the rest of its life in seconds, and empty for a token that does not expire
--- config
location = /t { auth_pat API; add_header X-In "[$auth_pat_expires_in]"; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
[main::bearer('alice', 'bare')]
--- error_code eval
[204, 204]
--- response_headers_like eval
['X-In: \[8(?:[56]\d{3})\]', 'X-In: \[\]']
--- no_error_log
[error]
[crit]
[alert]



=== TEST 3: the name of a claim is taken whole and in its own case
--- config
location = /t {
    auth_pat API;
    add_header X-Claims "[$auth_pat_claim_pla][$auth_pat_claim_plans][$auth_pat_claim_PLAN][$auth_pat_claim_][$auth_pat_claim_team][${auth_pat_claim_plan}]";
    try_files /nowhere =204;
}
--- request
GET /t
--- more_headers eval
main::bearer('alice')
--- error_code: 204
--- response_headers
X-Claims: [][][pro][][][pro]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 4: a token that is not good identifies nobody; its id alone is told, if it has one
--- config
auth_pat API;
add_header X-Status $auth_pat_status always;
add_header X-Id "$auth_pat_id" always;
add_header X-Who "[$auth_pat_subject$auth_pat_name$auth_pat_scope$auth_pat_expires$auth_pat_expires_in$auth_pat_claim_plan$auth_pat_claim_team]" always;
location = /t     { try_files /nowhere =204; }
location = /scope { auth_pat_require_scope admin; try_files /nowhere =204; }
--- request eval
[@main::bad_uri]
--- more_headers eval
[@main::bad]
--- error_code eval
[@main::bad_status]
--- response_headers eval
[map { "X-Status: $main::verdicts[$_]\nX-Id: $main::known_id[$_]\nX-Who: []" } 0 .. 7]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 5: where auth_pat is off the status says so, and a good token identifies nobody
--- http_config
map $arg_realm $realm { default off; on API; }
--- config
add_header X-Status "$auth_pat_status" always;
add_header X-Who "[$auth_pat_id$auth_pat_subject$auth_pat_name$auth_pat_scope$auth_pat_expires$auth_pat_expires_in$auth_pat_claim_plan]" always;
location = /none    { try_files /nowhere =204; }
location = /off     { auth_pat off; try_files /nowhere =204; }
location = /dynamic { auth_pat $realm; try_files /nowhere =204; }
--- request eval
["GET /none", "GET /off", "GET /dynamic", "GET /none", "GET /off", "GET /dynamic", "GET /dynamic?realm=on"]
--- more_headers eval
[main::bearer(('alice') x 3), ('X-Foo: bar') x 4]
--- error_code eval
[(204) x 6, 401]
--- response_headers eval
[("X-Status: off\nX-Who: []") x 6, "X-Status: missing\nX-Who: []"]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 6: a store that can't be read is a status of its own, and identifies nobody
--- config
location = /t {
    auth_pat API;
    auth_pat_store $TEST_NGINX_STORE_ABSENT;
    add_header X-Status "$auth_pat_status [$auth_pat_id$auth_pat_subject]" always;
    try_files /nowhere =204;
}
--- request
GET /t
--- more_headers eval
main::bearer('alice')
--- error_code: 503
--- response_headers
X-Status: store_error []
--- no_error_log
[error]
[alert]



=== TEST 7: the access log of a token that is let in
--- http_config
log_format seven 'seven "$auth_pat_status" "$auth_pat_id" "$auth_pat_subject" "$auth_pat_name" "$auth_pat_scope" "$auth_pat_claim_plan" "$auth_pat_claim_nothing"';
--- config
location = /t { auth_pat API; access_log logs/access.log seven; try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
main::bearer('alice')
--- error_code: 204
--- access_log
seven "ok" "id-alice" "user:alice" "csv upload" "csv:read csv:write" "pro" "-"
--- no_error_log
[error]
[crit]
[alert]



=== TEST 8: the access log of a token that was revoked
--- http_config
log_format eight 'eight "$status" "$auth_pat_status" "$auth_pat_id" "$auth_pat_subject" "$auth_pat_name" "$auth_pat_scope" "$auth_pat_expires"';
--- config
location = /t { auth_pat API; access_log logs/access.log eight; try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
main::bearer('revoked')
--- error_code: 401
--- access_log
eight "401" "revoked" "id-revoked" "-" "-" "-" "-"
--- no_error_log
[error]
[crit]
[alert]



=== TEST 9: the access log of a request to where auth_pat is off
--- http_config
log_format nine 'nine "$auth_pat_status" "$auth_pat_id"';
--- config
location = /open { access_log logs/access.log nine; try_files /nowhere =204; }
--- request
GET /open
--- more_headers eval
main::bearer('alice')
--- error_code: 204
--- access_log
nine "off" "-"
--- no_error_log
[error]
[crit]
[alert]



=== TEST 10: an access log for those alone who were refused
--- http_config
log_format ten 'ten $uri "$auth_pat_status"';
map $auth_pat_status $refused { default 1; ok 0; off 0; }
--- config
access_log logs/access.log ten if=$refused;
location = /t    { auth_pat API; try_files /nowhere =204; }
location = /open { try_files /nowhere =204; }
--- request eval
["GET /t", "GET /open", "GET /t"]
--- more_headers eval
['X-Foo: bar', main::bearer('alice', 'alice')]
--- error_code eval
[401, 204, 204]
--- access_log
ten /t "missing"
--- no_access_log
ten /open
ten /t "ok"
--- no_error_log
[error]
[crit]
[alert]



=== TEST 11: a map of a variable, in a header
--- http_config
map $auth_pat_subject $tier { default guest; ~^user: member; user:alice gold; }
map $auth_pat_claim_plan $rate { default 1; pro 100; }
map $auth_pat_status $in { default no; ok yes; }
--- config
location = /t { auth_pat API; add_header X-Tier "$tier $rate $in" always; try_files /nowhere =204; }
--- request eval
[("GET /t") x 4]
--- more_headers eval
[main::bearer('alice', 'bare', 'revoked'), 'X-Foo: bar']
--- error_code eval
[204, 204, 401, 401]
--- response_headers eval
['X-Tier: gold 100 yes', 'X-Tier: member 1 yes', 'X-Tier: guest 1 no', 'X-Tier: guest 1 no']
--- no_error_log
[error]
[crit]
[alert]



=== TEST 12: if and set ask before the access phase
--- config
location = /if {
    auth_pat API;
    if ($auth_pat_status != ok) { return 402; }
    try_files /nowhere =204;
}
location = /set {
    set $early "$auth_pat_status/$auth_pat_subject/$auth_pat_id";
    auth_pat API;
    add_header X-Early $early always;
    add_header X-Late "$auth_pat_status/$auth_pat_subject/$auth_pat_id" always;
    try_files /nowhere =204;
}
location = /rewrite {
    auth_pat API;
    rewrite ^ /set?who=$auth_pat_subject last;
}
--- request eval
["GET /if", "GET /if", "GET /if", "GET /set", "GET /set", "GET /set", "GET /rewrite", "GET /rewrite"]
--- more_headers eval
[main::bearer('alice', 'revoked'), 'X-Foo: bar', main::bearer('alice', 'revoked'), 'X-Foo: bar', main::bearer('alice', 'expired')]
--- error_code eval
[204, 402, 402, 204, 401, 401, 204, 401]
--- response_headers eval
[('X-Early:') x 3, map { "X-Early: $_\nX-Late: $_" } 'ok/user:alice/id-alice', 'revoked//id-revoked', 'missing//',
 'ok/user:alice/id-alice', 'expired//id-expired']
--- no_error_log
[error]
[crit]
[alert]



=== TEST 13: limit_req by id limits each token by itself, and not the requests without one
--- http_config
limit_req_zone $auth_pat_id zone=by_id:64k rate=1r/m;
--- config
location = /t { auth_pat API; limit_req zone=by_id; limit_req_status 429; try_files /nowhere =204; }
location = /fresh { proxy_pass http://unix:$TEST_NGINX_CONTROL; }
--- request eval
["GET /fresh", "GET /t", "GET /t", "GET /t", "GET /t", "GET /t", "GET /t", "GET /t"]
--- more_headers eval
[main::bearer(qw(limited1 limited1 limited1 limited2 limited2 limited1)), 'X-Foo: bar', 'X-Foo: bar']
--- error_code eval
[200, 204, 429, 204, 429, 429, 401, 401]
--- no_error_log
[crit]
[alert]



=== TEST 14: limit_req by subject does not count the requests of a token that is not good
--- http_config
limit_req_zone $auth_pat_subject zone=by_subject:64k rate=1r/m;
--- config
location = /t { auth_pat API; limit_req zone=by_subject; limit_req_status 429; try_files /nowhere =204; }
--- request eval
[("GET /t") x 6]
--- more_headers eval
[main::bearer(qw(revoked revoked expired expired remote early))]
--- error_code eval
[401, 401, 401, 401, 403, 401]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 15: the upstream is told who it is, and the client can't say so itself
--- http_config
server {
    listen unix:$TEST_NGINX_SERVER_ROOT/logs/variables.sock;
    location / { return 200 "[$http_x_subject][$http_x_scope][$http_x_claim][$http_authorization]\n"; }
}
--- config
location = /t {
    auth_pat API;
    proxy_set_header X-Subject $auth_pat_subject;
    proxy_set_header X-Scope $auth_pat_scope;
    proxy_set_header X-Claim $auth_pat_claim_plan;
    proxy_set_header Authorization '';
    proxy_pass http://unix:$TEST_NGINX_SERVER_ROOT/logs/variables.sock;
}
location = /open {
    proxy_set_header X-Subject $auth_pat_subject;
    proxy_set_header X-Scope $auth_pat_scope;
    proxy_set_header X-Claim $auth_pat_claim_plan;
    proxy_set_header Authorization '';
    proxy_pass http://unix:$TEST_NGINX_SERVER_ROOT/logs/variables.sock;
}
--- request eval
["GET /t", "GET /t", "GET /open"]
--- more_headers eval
[map { "$_\nX-Subject: root\nX-Scope: all\nX-Claim: free" } main::bearer('alice', 'bare', 'alice')]
--- response_body eval
["[user:alice][csv:read csv:write][pro][]\n", "[user:bare][][][]\n", "[][][][]\n"]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 16: after error_page the variables still tell about the request that was refused
--- config
error_page 401 403 @refused;
error_page 404 = /page;
location = /t     { auth_pat API; try_files /nowhere =204; }
location = /scope { auth_pat API; auth_pat_require_scope admin; try_files /nowhere =204; }
location = /404   { auth_pat API; try_files /nowhere =404; }
location @refused { add_header X-Told "$auth_pat_status/$auth_pat_id/$auth_pat_subject" always; return 418; }
location = /page  { auth_pat off; add_header X-Told "$auth_pat_status/$auth_pat_id/$auth_pat_subject" always; try_files /nowhere =204; }
--- request eval
[@main::bad_uri, "GET /404"]
--- more_headers eval
[@main::bad, main::bearer('alice')]
--- error_code eval
[(418) x 8, 204]
--- response_headers eval
[(map { "X-Told: $main::verdicts[$_]/$main::known_id[$_]/" } 0 .. 7), "X-Told: ok/id-alice/user:alice"]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 17: after redirects within the server the identity is kept where auth_pat is off
--- config
location = /try    { auth_pat API; try_files /nowhere /inner; }
location = /named  { auth_pat API; try_files /nowhere @named; }
location = /accel  { auth_pat API; proxy_pass http://127.0.0.1:$server_port/backend; }
location = /backend { add_header X-Accel-Redirect /inner; return 200; }
location = /inner  { internal; add_header X-Told "$auth_pat_status/$auth_pat_id/$auth_pat_subject/$auth_pat_claim_plan" always; try_files /nowhere =204; }
location @named    { add_header X-Told "$auth_pat_status/$auth_pat_id/$auth_pat_subject/$auth_pat_claim_plan" always; try_files /nowhere =204; }
--- request eval
["GET /try", "GET /named", "GET /accel"]
--- more_headers eval
[main::bearer(('alice') x 3)]
--- error_code eval
[204, 204, 204]
--- response_headers eval
[("X-Told: ok/id-alice/user:alice/pro") x 3]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 18: a redirect to a place that asks for more is decided anew, and the variables tell about that
--- config
location = /t { auth_pat API; set $early $auth_pat_subject; try_files /nowhere /inner; }
location = /inner {
    auth_pat Inner;
    auth_pat_require_scope admin;
    add_header X-Told "$auth_pat_status/$auth_pat_id/$auth_pat_subject" always;
    add_header X-Early $early always;
    try_files /nowhere =204;
}
--- request
GET /t
--- more_headers eval
main::bearer('alice')
--- error_code: 403
--- response_headers
X-Told: scope_denied/id-alice/
X-Early: user:alice
--- no_error_log
[error]
[crit]
[alert]



=== TEST 19: subrequests know what is known about their main request
--- http_config
server {
    listen unix:$TEST_NGINX_SERVER_ROOT/logs/variables.sock;
    location / { return 200 "[$http_x_subject]"; }
}
--- config
location = /part { proxy_set_header X-Subject $auth_pat_subject; proxy_pass http://unix:$TEST_NGINX_SERVER_ROOT/logs/variables.sock; }
location = /auth {
    auth_pat API;
    auth_request /part;
    auth_request_set $told $auth_pat_subject;
    add_header X-Told $told always;
    try_files /nowhere =204;
}
location = /page.html { auth_pat API; ssi on; }
--- user_files
>>> page.html
<!--# include virtual="/part" --> <!--# echo var="auth_pat_status" -->
--- request eval
["GET /page.html", "GET /page.html", "GET /auth"]
--- more_headers eval
[main::bearer('alice', 'bare', 'alice')]
--- error_code eval
[200, 200, 204]
--- response_body_like eval
['^\[user:alice\] ok', '^\[user:bare\] ok', '^$']
--- response_headers eval
['X-Told:', 'X-Told:', 'X-Told: user:alice']
--- no_error_log
[error]
[crit]
[alert]



=== TEST 20: what a variable said on one request does not stay for the next one of the connection
--- config
location = /gif { auth_pat API; add_header X-Told "$auth_pat_status/$auth_pat_subject" always; empty_gif; }
location ~ ^/(?:revoke|restore) { proxy_pass http://unix:$TEST_NGINX_CONTROL; }
--- pipelined_requests eval
["GET /gif", "GET /revoke-changing", "GET /gif", "GET /restore-changing", "GET /gif"]
--- more_headers eval
main::bearer('changing')
--- error_code eval
[200, 200, 401, 200, 200]
--- response_headers eval
['X-Told: ok/user:changing', 'X-Told:', 'X-Told: revoked/', 'X-Told:', 'X-Told: ok/user:changing']
--- no_error_log
[error]
[crit]
[alert]



=== TEST 21: a realm and a scope may depend on the request
--- config
location = /t {
    auth_pat "API for $arg_team";
    auth_pat_require_scope csv:$arg_do;
    add_header X-Told "$auth_pat_status/$auth_pat_scope" always;
    try_files /nowhere =204;
}
--- request eval
["GET /t?team=a&do=read", "GET /t?team=b&do=delete"]
--- more_headers eval
[main::bearer('alice', 'alice')]
--- error_code eval
[204, 403]
--- response_headers eval
["X-Told: ok/csv:read csv:write\nWWW-Authenticate:",
 "X-Told: scope_denied/\nWWW-Authenticate: Bearer realm=\"API for b\", error=\"insufficient_scope\", scope=\"csv:delete\""]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 22: a realm that is off when a variable is used, and on in the access phase, is on
--- config
location = /t {
    set $realm $arg_first;
    set $early "$auth_pat_status/$auth_pat_subject";
    set $realm $arg_second;
    auth_pat $realm;
    add_header X-Early $early always;
    add_header X-Late "$auth_pat_status/$auth_pat_subject" always;
    try_files /nowhere =204;
}
--- request eval
["GET /t?first=off&second=API", "GET /t?first=off&second=API", "GET /t?first=API&second=off", "GET /t?first=off&second=off"]
--- more_headers eval
[main::bearer('alice'), 'X-Foo: bar', 'X-Foo: bar', main::bearer('alice')]
--- error_code eval
[204, 401, 204, 204]
--- response_headers eval
["X-Early: off/\nX-Late: ok/user:alice", "X-Early: off/\nX-Late: missing/\nWWW-Authenticate: Bearer realm=\"API\"",
 "X-Early: missing/\nWWW-Authenticate:", "X-Early: off/\nX-Late: off/"]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 23: a mirror is told what was decided about the request that it mirrors
--- config
location = /t { auth_pat API; mirror /mirror; empty_gif; }
location = /mirror {
    internal;
    auth_pat Mirror;
    auth_pat_require_scope admin;
    rewrite ^ /note?who=$auth_pat_status/$auth_pat_id/$auth_pat_subject/$auth_pat_claim_plan break;
    proxy_pass http://unix:$TEST_NGINX_CONTROL;
}
location = /told { proxy_pass http://unix:$TEST_NGINX_CONTROL; }
--- request eval
["GET /t", "GET /told", "GET /t", "GET /told", "GET /t", "GET /told"]
--- more_headers eval
[main::bearer(qw(alice alice bare bare revoked revoked))]
--- error_code eval
[(200) x 4, 401, 200]
--- response_body_like eval
['^GIF', '^ok/id-alice/user:alice/pro$', '^GIF', '^ok/id-bare/user:bare/$', '401', '^ok/id-bare/user:bare/$']
--- no_error_log
[error]
[crit]
[alert]



=== TEST 24: what is demanded can't depend on the decision itself; such a request is refused, whoever sends it
--- http_config
map $auth_pat_subject $needed { default admin; user:alice ""; }
--- config
location = /realm { auth_pat "$auth_pat_status"; try_files /nowhere =204; }
location = /token { auth_pat API token=$http_x_key$auth_pat_claim_key; try_files /nowhere =204; }
location = /scope { auth_pat API; auth_pat_require_scope $auth_pat_scope; try_files /nowhere =204; }
location = /map   { auth_pat API; auth_pat_require_scope $needed; try_files /nowhere =204; }
location = /early { set $early $auth_pat_status; auth_pat API; auth_pat_require_scope $auth_pat_claim_plan; try_files /nowhere =204; }
--- request eval
["GET /realm", "GET /token", "GET /scope", "GET /map", "GET /early", "GET /scope", "GET /map"]
--- more_headers eval
[main::bearer('alice'), "X-Key: $main::token{alice}", main::bearer(('alice') x 3, ('bare') x 2)]
--- error_code eval
[(500) x 7]
--- error_log
depends on a variable that it sets itself
--- no_error_log
[crit]
[alert]



=== TEST 25: the decision that let a request in is remembered when a filter ends it, even if the token is revoked meanwhile
--- http_config
proxy_cache_path $TEST_NGINX_SCRATCH/cache keys_zone=pages:1m;
--- config
location = /page.html {
    auth_pat API;
    proxy_cache pages;
    proxy_cache_key $request_id;
    proxy_cache_valid 200 1m;
    proxy_pass http://unix:$TEST_NGINX_CONTROL:/revoke-changing;
    add_header X-Told "$auth_pat_status/$auth_pat_subject" always;
}
location = /restore-changing { proxy_pass http://unix:$TEST_NGINX_CONTROL; }
--- request eval
["GET /page.html", "GET /restore-changing", "GET /page.html", "GET /page.html", "GET /restore-changing"]
--- more_headers eval
["Authorization: Bearer $main::token{changing}\nIf-Match: \"nothing\"", main::bearer(('changing') x 4)]
--- error_code eval
[412, 200, 200, 401, 200]
--- response_headers eval
["X-Told: ok/user:changing\nWWW-Authenticate:", 'X-Told:', 'X-Told: ok/user:changing', 'X-Told: revoked/', 'X-Told:']
--- no_error_log
[error]
[crit]
[alert]



=== TEST 26: the access log tells what the access phase decided, not what a variable said before it
--- http_config
log_format late 'late $arg_n "$auth_pat_status" "$auth_pat_id" "$auth_pat_subject" "$auth_pat_claim_plan"';
--- config
location = /t {
    set $key $arg_first;
    set $early "$auth_pat_status/$auth_pat_id/$auth_pat_subject/$auth_pat_claim_plan";
    set $key $arg_second;
    auth_pat API token=$key;
    access_log logs/access.log late;
    try_files /nowhere =204;
}
--- request eval
["GET /t?n=1&first=$main::token{alice}", "GET /t?n=2&second=$main::token{alice}",
 "GET /t?n=3&first=$main::token{alice}&second=$main::token{revoked}", "GET /t?n=4&first=$main::token{alice}"]
--- error_code eval
[401, 204, 401, 401]
--- no_access_log eval
[qr/late 1 "(?!missing" "-" "-" "-")/, qr/late 2 "(?!ok" "id-alice" "user:alice" "pro")/, qr/late 3 "(?!revoked" "id-revoked" "-" "-")/]
--- access_log
late 1 "missing"
--- no_error_log
[error]
[crit]
[alert]
