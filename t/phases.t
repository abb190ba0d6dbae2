# Where in nginx's phases a token is asked for: locations in locations, methods, redirects within the server,
# subrequests, handlers behind it, and what runs before it; and directives in unusual places and orders.

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use Test::Nginx::Socket;

our $store = new_store('main');
our $other = new_store('other');
our $token   = issue($store, '--subject', 'alice', '--scope', 'read');
our $foreign = issue($other, '--subject', 'oscar');
our $revoked = issue($store, '--subject', 'mallory');
patctl($store, 'revoke', '--subject', 'mallory');
write_file(scratch() . '/good.pepper', '0123456789abcdef' x 4);

our $good = "Authorization: Bearer $token";
our $bad  = "Authorization: Bearer $revoked";
our $none = 'X-Foo: bar';

add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value(http_config => <<'END' . ($block->http_config // ''));
auth_pat_store $TEST_NGINX_STORE_MAIN;
END
    # What is behind nginx: nginx.
    $block->set_value(config => <<'END' . ($block->config // ''));
location /backend/ {
    auth_pat off;
    location = /backend/echo { add_header X-Seen "$http_x_subject" always; return 200 "backend: $request_method"; }
    location = /backend/accel { add_header X-Accel-Redirect "/internal/$arg_to" always; return 200 "not this"; }
    location = /backend/counted { access_log logs/backend.log; return 200 "counted"; }
}
END
});

repeat_each(2);
plan tests => repeat_each() * 585;

no_long_string();
run_tests();

__DATA__

=== TEST 1: nested locations inherit auth_pat, replace its realm or turn it off
--- config
location /a/ {
    auth_pat Outer;
    location /a/inherits { try_files /nowhere =204; }
    location /a/replaces { auth_pat Inner; try_files /nowhere =204; }
    location /a/off {
        auth_pat off;
        location /a/off/on { auth_pat Again; try_files /nowhere =204; }
        try_files /nowhere =204;
    }
    try_files /nowhere =204;
}
--- request eval
["GET /a/", "GET /a/inherits", "GET /a/replaces", "GET /a/off", "GET /a/off/on", "GET /a/inherits", "GET /a/off/on"]
--- more_headers eval
[($main::none) x 5, ($main::good) x 2]
--- error_code eval
[401, 401, 401, 204, 401, 204, 204]
--- response_headers eval
['WWW-Authenticate: Bearer realm="Outer"', 'WWW-Authenticate: Bearer realm="Outer"',
 'WWW-Authenticate: Bearer realm="Inner"', 'WWW-Authenticate:', 'WWW-Authenticate: Bearer realm="Again"',
 'WWW-Authenticate:', 'WWW-Authenticate:']
--- no_error_log
[crit]
[alert]
[error]



=== TEST 2: auth_pat of the server holds for every location that does not turn it off
--- config
auth_pat Server;
location = /t    { try_files /nowhere =204; }
location = /open { auth_pat off; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /open", "GET /index.html", "GET /nowhere", "GET /", "GET /nowhere"]
--- more_headers eval
[($main::none) x 5, $main::good]
--- error_code eval
[401, 204, 401, 401, 401, 404]
--- response_headers eval
[('WWW-Authenticate: Bearer realm="Server"', 'WWW-Authenticate:', ('WWW-Authenticate: Bearer realm="Server"') x 3,
 'WWW-Authenticate:')]
--- no_error_log
[crit]
[alert]



=== TEST 3: auth_pat off in the server leaves a location that turns it on
--- http_config
auth_pat Everywhere;
--- config
auth_pat off;
location = /t    { auth_pat Here; try_files /nowhere =204; }
location = /open { try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t", "GET /open", "GET /index.html"]
--- more_headers eval
[$main::none, $main::good, $main::none, $main::none]
--- error_code eval
[401, 204, 204, 200]
--- response_headers eval
['WWW-Authenticate: Bearer realm="Here"', ('WWW-Authenticate:') x 3]
--- no_error_log
[crit]
[alert]
[error]



=== TEST 4: limit_except asks those methods for a token that it limits
--- config
location = /t {
    limit_except GET { auth_pat Write; auth_pat_require_scope read; }
    try_files /nowhere =204;
}
location = /scope {
    limit_except GET { auth_pat Write; auth_pat_require_scope write; }
    try_files /nowhere =204;
}
location = /tight {
    auth_pat Read;
    limit_except GET { auth_pat off; }
    try_files /nowhere =204;
}
--- request eval
["GET /t", "HEAD /t", "POST /t\nx=1", "POST /t\nx=1", "DELETE /t", "OPTIONS /t", "POST /scope\nx=1", "GET /scope",
 "GET /tight", "POST /tight\nx=1"]
--- more_headers eval
[$main::bad, $main::none, $main::none, $main::good, $main::bad, $main::none, $main::good, $main::none,
 $main::none, $main::none]
--- error_code eval
[204, 204, 401, 404, 401, 401, 403, 204, 401, 404]
--- no_error_log
[crit]
[alert]



=== TEST 5: what is set around an if holds in it
--- config
location = /t {
    auth_pat API;
    if ($arg_a) { add_header X-If yes always; }
    try_files /nowhere =204;
}
location = /scope {
    auth_pat API;
    auth_pat_require_scope write;
    if ($arg_a) { add_header X-If yes always; }
    try_files /nowhere =204;
}
--- request eval
["GET /t?a=1", "GET /t?a=1", "GET /t", "GET /scope?a=1"]
--- more_headers eval
[$main::none, $main::good, $main::none, $main::good]
--- error_code eval
[401, 404, 401, 403]
--- response_headers eval
['X-If: yes', 'X-If: yes', 'X-If:', 'X-If: yes']
--- no_error_log
[crit]
[alert]



=== TEST 6: every method needs a token, and the answer to HEAD has no body
--- config
location = /t {
    auth_pat API;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/backend/echo;
}
--- request eval
[map({ "$_ /t" } qw(GET HEAD DELETE OPTIONS PROPFIND)), map({ "$_ /t\nbody" } qw(POST PUT PATCH)),
 map({ "$_ /t" } qw(GET HEAD DELETE OPTIONS PROPFIND)), map({ "$_ /t\nbody" } qw(POST PUT PATCH))]
--- more_headers eval
[($main::bad) x 8, ($main::good) x 8]
--- error_code eval
[(401) x 8, (200) x 8]
--- response_body_like eval
['401', '^\z', ('401') x 6, 'backend: GET\z', '^\z', map { "backend: $_\\z" } qw(DELETE OPTIONS PROPFIND POST PUT PATCH)]
--- no_error_log
[crit]
[alert]
[error]



=== TEST 7: try_files asks before it looks, and its named location or target asks by its own settings
--- user_files
>>> here
the file
--- config
location /f/ {
    auth_pat Files;
    alias html/;
    try_files $uri @fallback;
}
location = /here    { auth_pat Files; try_files $uri =404; }
location = /named   { auth_pat Files; try_files /nowhere @fallback; }
location = /stored  { auth_pat Files; try_files /nowhere @stored; }
location = /open    { try_files /nowhere @guarded; }
location = /target  { try_files /nowhere /guarded; }
location = /guarded { auth_pat Guarded; try_files /here =404; }
location @fallback  { auth_pat off; try_files /nowhere =204; }
location @guarded   { auth_pat Guarded; try_files /nowhere =204; }
location @stored    { auth_pat Stored; auth_pat_store $TEST_NGINX_STORE_OTHER; try_files /nowhere =204; }
--- request eval
["GET /here", "GET /here", "GET /named", "GET /named", "GET /stored", "GET /stored", "GET /open", "GET /open",
 "GET /target", "GET /target"]
--- more_headers eval
[$main::none, $main::good, $main::none, $main::good, $main::good, "Authorization: Bearer $main::foreign", $main::none,
 $main::good, $main::none, $main::good]
--- error_code eval
[401, 200, 401, 204, 401, 401, 401, 204, 401, 200]
--- response_headers eval
['WWW-Authenticate: Bearer realm="Files"', 'WWW-Authenticate:', 'WWW-Authenticate: Bearer realm="Files"',
 'WWW-Authenticate:',
 'WWW-Authenticate: Bearer realm="Stored", error="invalid_token", error_description="The access token is invalid"',
 'WWW-Authenticate: Bearer realm="Files", error="invalid_token", error_description="The access token is invalid"',
 'WWW-Authenticate: Bearer realm="Guarded"', 'WWW-Authenticate:', 'WWW-Authenticate: Bearer realm="Guarded"',
 'WWW-Authenticate:']
--- no_error_log
[crit]
[alert]
[error]



=== TEST 8: a rewrite runs before the token is asked for, so the location where it ends decides
--- config
location = /to-guarded { rewrite ^ /guarded last; }
location = /to-open    { auth_pat API; rewrite ^ /open last; }
location = /break      { auth_pat API; rewrite ^ /elsewhere break; try_files /nowhere =204; }
location = /guarded    { auth_pat API; try_files /nowhere =204; }
location = /open       { try_files /nowhere =204; }
--- request eval
["GET /to-guarded", "GET /to-guarded", "GET /to-open", "GET /break", "GET /break"]
--- more_headers eval
[$main::none, $main::good, $main::bad, $main::none, $main::good]
--- error_code eval
[401, 204, 204, 401, 204]
--- no_error_log
[crit]
[alert]
[error]



=== TEST 9: return answers before the token is asked for, as documented
--- config
location = /return   { auth_pat API; return 200 "said to all"; }
location = /redirect { auth_pat API; return 302 /open; }
location = /if       { auth_pat API; if ($arg_a) { return 200 "said to all"; } try_files /nowhere =204; }
--- request eval
["GET /return", "GET /return", "GET /redirect", "GET /if?a=1", "GET /if"]
--- more_headers eval
[$main::none, $main::bad, $main::none, $main::none, $main::none]
--- error_code eval
[200, 200, 302, 200, 401]
--- response_body_like eval
['^said to all\z', '^said to all\z', '302', '^said to all\z', '401']
--- no_error_log
[crit]
[alert]
[error]



=== TEST 10: the redirect of index asks once more, in the location of the index file
--- user_files
>>> dir/index.html
the index
>>> open/index.html
another index
--- config
location /dir/              { auth_pat Dir; index index.html; }
location = /dir/index.html  { auth_pat Index; auth_pat_require_scope read; }
location /open/             { index index.html; }
location = /open/index.html { auth_pat Index; auth_pat_require_scope write; }
--- request eval
["GET /dir/", "GET /dir/", "GET /open/", "GET /open/"]
--- more_headers eval
[$main::none, $main::good, $main::none, $main::good]
--- error_code eval
[401, 200, 401, 403]
--- response_headers eval
['WWW-Authenticate: Bearer realm="Dir"', 'WWW-Authenticate:', 'WWW-Authenticate: Bearer realm="Index"',
 'WWW-Authenticate: Bearer realm="Index", error="insufficient_scope", scope="write"']
--- no_error_log
[crit]
[alert]
[error]



=== TEST 11: X-Accel-Redirect leads to an internal location, which asks by its own settings
--- user_files
>>> internal/free
free for those the application let in
>>> internal/same
for the same token
>>> internal/scope
for writers
>>> internal/other
for another store
--- config
location = /app {
    auth_pat App;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/backend/accel;
}
location = /open {
    proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/backend/accel;
}
location /internal/      { internal; auth_pat off; }
location /internal/same  { internal; auth_pat Same; }
location /internal/scope { internal; auth_pat Scope; auth_pat_require_scope write; }
location /internal/other { internal; auth_pat Other; auth_pat_store $TEST_NGINX_STORE_OTHER; }
--- request eval
["GET /app?to=free", "GET /app?to=free", "GET /app?to=same", "GET /app?to=scope", "GET /app?to=other",
 "GET /open?to=free", "GET /open?to=same", "GET /open?to=same", "GET /open?to=other", "GET /internal/free"]
--- more_headers eval
[$main::none, ($main::good) x 4, $main::none, $main::none, $main::good, "Authorization: Bearer $main::foreign",
 $main::good]
--- error_code eval
[401, 200, 200, 403, 401, 200, 401, 200, 200, 404]
--- response_body_like eval
['401', 'free for', 'for the same', '403', '401', 'free for', '401', 'for the same', 'for another', '404']
--- no_error_log
[crit]
[alert]
[error]



=== TEST 12: auth_request, mirror, SSI and addition reach a location without its own auth_pat, as documented
--- user_files
>>> page.html
<!--# include virtual="/guarded/part" -->
>>> added.html
page
>>> guarded/part
guarded part
--- config
location /guarded/         { auth_pat Guarded; }
location = /page.html      { ssi on; }
location = /added.html     { add_after_body /guarded/part; }
location = /mirrored       { mirror /mirror; try_files /nowhere =204; }
location = /mirror         { internal; auth_pat Guarded; proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/backend/echo; }
location = /asking         { auth_request /mirror; try_files /nowhere =204; }
--- request eval
["GET /page.html", "GET /added.html", "GET /mirrored", "GET /asking", "GET /guarded/part"]
--- more_headers eval
[($main::none) x 5]
--- error_code eval
[200, 200, 204, 204, 401]
--- response_body_like eval
['^guarded part', "^page\nguarded part", '^\z', '^\z', '401']
--- no_error_log
[crit]
[alert]
[error]



=== TEST 13: a refused request is neither mirrored nor asked about nor passed on
--- config
location = /t {
    auth_pat API;
    mirror /mirror;
    auth_request /mirror;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/backend/counted;
}
location = /mirror { internal; proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/backend/counted; }
--- request eval
["GET /t", "POST /t\nbody"]
--- more_headers eval
[$main::none, $main::bad]
--- error_code eval
[401, 401]
--- no_error_log
[crit]
[alert]
/backend/counted



=== TEST 14: a part of a page that is guarded itself knows who asks
--- user_files
>>> page.html
<!--# echo var="auth_pat_subject" --> <!--# include virtual="/part" -->
--- config
location = /page.html { auth_pat API; ssi on; }
location = /part {
    auth_pat off;
    proxy_set_header X-Subject $auth_pat_subject;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/subject;
}
location = /subject { return 200 "<$http_x_subject>"; }
--- request eval
["GET /page.html", "GET /page.html"]
--- more_headers eval
[$main::good, $main::none]
--- error_code eval
[200, 401]
--- response_body_like eval
['^alice <alice>', '401']
--- no_error_log
[crit]
[alert]
[error]



=== TEST 15: proxied requests carry the identity, and only for those who are in
--- config
location = /t {
    auth_pat API;
    proxy_set_header X-Subject $auth_pat_subject;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/backend/echo;
}
location = /off {
    proxy_set_header X-Subject $auth_pat_subject;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/backend/echo;
}
--- request eval
["GET /t", "GET /t", "GET /off"]
--- more_headers eval
["$main::good\nX-Subject: admin", "$main::bad\nX-Subject: admin", "$main::good\nX-Subject: admin"]
--- error_code eval
[200, 401, 200]
--- response_headers eval
['X-Seen: alice', 'X-Seen:', 'X-Seen:']
--- no_error_log
[crit]
[alert]
[error]



=== TEST 16: a realm that is off when the request runs turns the question off, and no other value does
--- http_config
map $arg_realm $realm { default $arg_realm; }
--- config
location = /t     { auth_pat $realm; try_files /nowhere =204; }
location = /o     { auth_pat $arg_o; try_files /nowhere =204; }
location = /const { auth_pat "off "; try_files /nowhere =204; }
--- request eval
["GET /t?realm=off", "GET /t?realm=off", "GET /t?realm=on", "GET /t", "GET /t?realm=OFF", "GET /t?realm=off%20",
 "GET /o?o=off", "GET /o?o=offf", "GET /const", "GET /t?realm=x"]
--- more_headers eval
[$main::none, $main::bad, ($main::none) x 7, $main::good]
--- error_code eval
[204, 204, 401, 401, 401, 401, 204, 401, 401, 204]
--- response_headers eval
['WWW-Authenticate:', 'WWW-Authenticate:', 'WWW-Authenticate: Bearer realm="on"', 'WWW-Authenticate: Bearer realm=""',
 'WWW-Authenticate: Bearer realm="OFF"', 'WWW-Authenticate: Bearer realm="off%20"', 'WWW-Authenticate:',
 'WWW-Authenticate: Bearer realm="offf"', 'WWW-Authenticate: Bearer realm="off "', 'WWW-Authenticate:']
--- no_error_log
[crit]
[alert]
[error]



=== TEST 17: fastcgi_pass passes on what has a token, and nothing else
--- config
location = /t {
    auth_pat API;
    fastcgi_param REMOTE_USER $auth_pat_subject;
    fastcgi_pass 127.0.0.1:$TEST_NGINX_RAND_PORT_1;
}
--- tcp_listen: $TEST_NGINX_RAND_PORT_1
--- tcp_query_len: 176
--- tcp_reply eval
my $out = "Status: 200 OK\r\nContent-Type: text/plain\r\n\r\nfrom fastcgi";
pack('CCnnCC', 1, 6, 1, length $out, 0, 0) . $out . pack('CCnnCC', 1, 6, 1, 0, 0, 0)
    . pack('CCnnCC', 1, 3, 1, 8, 0, 0) . pack('NCCCC', 0, 0, 0, 0, 0)
--- no_check_leak
--- request
GET /t
--- more_headers eval
$main::good
--- error_code: 200
--- response_body: from fastcgi
--- no_error_log
[crit]
[alert]
[error]



=== TEST 18: fastcgi_pass and grpc_pass to nowhere are not even tried without a token
--- config
location = /fastcgi { auth_pat API; fastcgi_pass 127.0.0.1:1; }
location = /grpc    { auth_pat API; grpc_pass 127.0.0.1:1; }
location = /uwsgi   { auth_pat API; uwsgi_pass 127.0.0.1:1; }
location = /scgi    { auth_pat API; scgi_pass 127.0.0.1:1; }
--- request eval
["GET /fastcgi", "GET /grpc", "GET /uwsgi", "GET /scgi"]
--- more_headers eval
[($main::bad) x 4]
--- error_code eval
[401, 401, 401, 401]
--- no_error_log
[crit]
[alert]
[error]



=== TEST 19: files, empty_gif, stub_status and dav are guarded like the rest
--- user_files
>>> file
contents
--- config
auth_pat API;
location = /file        { }
location = /gif         { empty_gif; }
location = /stub_status { stub_status; }
location /dav/          { dav_methods PUT DELETE; client_body_in_file_only off; }
location = /autoindex/  { autoindex on; alias html/; }
--- request eval
["GET /file", "GET /gif", "GET /stub_status", "PUT /dav/new\ncontents", "GET /file", "GET /gif", "GET /stub_status",
 "PUT /dav/../file\nspoiled"]
--- more_headers eval
[($main::bad) x 4, ($main::good) x 3, $main::none]
--- error_code eval
[(401) x 4, (200) x 3, 401]
--- no_error_log
[crit]
[alert]
[error]



=== TEST 20: directives that have nothing to do where auth_pat is off
--- config
auth_pat_prefix ropat_;
auth_pat_leeway 5s;
auth_pat_require_scope read;
auth_pat_pepper_file $TEST_NGINX_SCRATCH/good.pepper;
location = /t { try_files /nowhere =204; }
--- request eval
["GET /t"]
--- more_headers eval
["X-Foo: bar"]
--- error_code eval
[204]
--- no_error_log
[error]
[crit]
[alert]
[emerg]



=== TEST 21: the directives in any order, on one line and over several
--- config
location = /t { auth_pat_require_scope
    ""
    match=any
; auth_pat_leeway 1y; auth_pat
"API"; try_files /nowhere =204; }
location = /u { auth_pat_prefix ropat_; auth_pat_require_scope ""; auth_pat API token=$arg_t; auth_pat_store $TEST_NGINX_STORE_MAIN; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /u?t=$main::token", "GET /u"]
--- more_headers eval
["Authorization: Bearer $main::token", "X-Foo: bar", "Authorization: Bearer $main::token"]
--- error_code eval
[204, 204, 401]
--- no_error_log
[error]
[crit]
[alert]
[emerg]



=== TEST 22: a location without a name asks by its own settings
--- config
location = /t {
    auth_pat API;
    try_files /nowhere @named;
}
location @named { auth_pat Named; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
["Authorization: Bearer $main::token", "X-Foo: bar"]
--- error_code eval
[204, 401]
--- no_error_log
[error]
[crit]
[alert]
[emerg]



=== TEST 23: every directive in each of the contexts where it may be
--- http_config
auth_pat_zone pat:1m;
auth_pat_require $http_host error=499;
auth_pat_optional on;
auth_pat_preflight pass;
auth_pat_dry_run on;
auth_pat_max_age 1y;
auth_pat_fail_open on;
auth_pat_recheck 1d;
server { listen $TEST_NGINX_SERVER_PORT; server_name status; auth_pat_status html; }
--- config
auth_pat_require $http_host error=400;
auth_pat_optional off;
auth_pat_preflight check;
auth_pat_dry_run off;
auth_pat_max_age 0;
auth_pat_fail_open off;
auth_pat_recheck 100ms;
location = /t {
    auth_pat API;
    auth_pat_require $http_host;
    auth_pat_require $http_host $request_method error=404;
    auth_pat_optional on;
    auth_pat_preflight pass;
    auth_pat_dry_run on;
    auth_pat_max_age 31536000;
    auth_pat_fail_open on;
    auth_pat_recheck 0;
    limit_except GET {
        auth_pat_require $http_host;
        auth_pat_optional off;
        auth_pat_preflight check;
        auth_pat_dry_run off;
    }
    try_files /nowhere =204;
}
location = /status { auth_pat_status; }
location = /usage { auth_pat_usage; }
--- request eval
["GET /t", "GET /status", "GET /usage", "GET /status", "POST /t\nx"]
--- more_headers eval
["Authorization: Bearer $main::token", "X-Foo: bar", "X-Foo: bar", "Host: status", "X-Foo: bar"]
--- error_code eval
[204, 200, 200, 200, 401]
--- no_error_log
[alert]
[emerg]



=== TEST 24: on, off and pass in capitals are nginx's own
--- config
location = /t { auth_pat API; auth_pat_optional ON; auth_pat_dry_run OFF; auth_pat_fail_open Off; auth_pat_preflight PASS; try_files /nowhere =204; }
--- request
GET /t
--- error_code: 204
--- no_error_log
[alert]
[crit]
[error]



=== TEST 25: the shortest and the longest times, in every unit
--- config
location = /1 { auth_pat_recheck 100ms; auth_pat_max_age 1s; }
location = /2 { auth_pat_recheck 24h; auth_pat_max_age 12M; }
location = /3 { auth_pat_recheck 86400000ms; auth_pat_max_age 365d; }
location = /4 { auth_pat_recheck 1d; auth_pat_max_age 1y; }
location = /5 { auth_pat_recheck 0ms; auth_pat_max_age 0d; }
location = /t { auth_pat_recheck "1m 30s"; auth_pat_max_age "1h 30m"; try_files /nowhere =204; }
--- request
GET /t
--- error_code: 204
--- no_error_log
[alert]
[crit]
[error]
