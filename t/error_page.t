# error_page for what auth_pat refuses: bodies and statuses of its own, the challenge with them, and the log of the page.

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use Test::Nginx::Socket;

our $store = new_store('main');
store_path('missing');
our $token   = issue($store, '--subject', 'alice', '--scope', 'read');
our $revoked = issue($store, '--subject', 'mallory');
patctl($store, 'revoke', '--subject', 'mallory');
our ($id)         = patctl($store, '--json', 'list', '--subject', 'alice') =~ /"id":"([^"]+)"/;
our ($revoked_id) = patctl($store, '--json', 'list', '--subject', 'mallory') =~ /"id":"([^"]+)"/;

our $any         = qr/^HTTP/;
our $nothing     = qr/^X-Nothing:/m;
our $a_challenge = qr/^WWW-Authenticate:/m;

# The header is there once.
sub once { return qr/\A(?!.*^\Q$_[0]\E:.*^\Q$_[0]\E:).*^\Q$_[0]\E: $_[1]\r$/ms }

our $asked    = once('WWW-Authenticate', 'Bearer realm="API"');
our $told     = once('WWW-Authenticate', 'Bearer realm="API", error="invalid_token", error_description="[^"]*revoked"');
our $scopes   = once('WWW-Authenticate', 'Bearer realm="API", error="insufficient_scope", scope="write"');
our $come_back = once('Retry-After', '\d+');

add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value(http_config => <<'END' . ($block->http_config // ''));
auth_pat_store $TEST_NGINX_STORE_MAIN;
log_format auth_pat '[$request_uri $uri $status pat=$auth_pat_status id=$auth_pat_id subject=$auth_pat_subject]';
END
});

repeat_each(2);
plan tests => repeat_each() * 207;

no_long_string();
run_tests();

__DATA__

=== TEST 1: named locations with return give 401, 403 and 503 bodies of their own and keep the headers
--- config
auth_pat API;
error_page 401 @unauthorized;
error_page 403 @forbidden;
error_page 503 @unavailable;
location = /t       { try_files /nowhere =204; }
location = /scope   { auth_pat_require_scope write; try_files /nowhere =204; }
location = /missing { auth_pat_store $TEST_NGINX_STORE_MISSING; try_files /nowhere =204; }
location @unauthorized { default_type application/json; return 401 '{"status":401,"error":"$auth_pat_status"}'; }
location @forbidden    { default_type application/json; return 403 '{"status":403,"error":"$auth_pat_status"}'; }
location @unavailable  { default_type application/json; return 503 '{"status":503,"error":"$auth_pat_status"}'; }
--- request eval
["GET /t", "GET /t", "GET /t", "GET /scope", "GET /missing", "HEAD /t", "POST /t\nbody=1"]
--- more_headers eval
["X-Foo: bar", "Authorization: Bearer $main::revoked", "Authorization: Bearer $main::token",
 "Authorization: Bearer $main::token", "Authorization: Bearer $main::token", "X-Foo: bar",
 "Authorization: Bearer $main::revoked"]
--- error_code eval
[401, 401, 204, 403, 503, 401, 401]
--- raw_response_headers_like eval
[$main::asked, $main::told, $main::any, $main::scopes, $main::come_back, $main::asked, $main::told]
--- raw_response_headers_unlike eval
[qr/text.html/, qr/text.html/, $main::a_challenge, qr/text.html/, $main::a_challenge, qr/text.html/, qr/text.html/]
--- response_body eval
['{"status":401,"error":"missing"}', '{"status":401,"error":"revoked"}', '', '{"status":403,"error":"scope_denied"}',
 '{"status":503,"error":"store_error"}', '', '{"status":401,"error":"revoked"}']
--- suppress_stderr
--- no_error_log
[alert]
[error]



=== TEST 2: with an equals sign the status is that of the named location
--- config
auth_pat API;
location = /t {
    error_page 401 403 503 = @json;
    try_files /nowhere =204;
}
location = /fixed {
    error_page 401 =418 @json;
    try_files /nowhere =204;
}
location @json { return 401 '{"id":"$auth_pat_id"}'; }
--- request eval
["GET /t", "GET /t", "GET /fixed", "GET /t"]
--- more_headers eval
["X-Foo: bar", "Authorization: Bearer $main::revoked", "X-Foo: bar", "Authorization: Bearer $main::token"]
--- error_code eval
[401, 401, 418, 204]
--- raw_response_headers_like eval
[$main::asked, $main::told, $main::asked, $main::any]
--- response_body eval
['{"id":""}', "{\"id\":\"$main::revoked_id\"}", '{"id":""}', '']
--- no_error_log
[crit]
[alert]
[error]



=== TEST 3: a static page is served where its location has auth_pat off
--- user_files
>>> 401.html
who are you
>>> 503.html
later
--- config
auth_pat API;
error_page 401 /401.html;
error_page 503 /503.html;
location = /401.html { internal; auth_pat off; }
location = /503.html { internal; auth_pat off; }
location = /t       { try_files /nowhere =204; }
location = /missing { auth_pat_store $TEST_NGINX_STORE_MISSING; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t", "GET /missing", "GET /401.html", "HEAD /t"]
--- more_headers eval
["X-Foo: bar", "Authorization: Bearer $main::revoked", "Authorization: Bearer $main::token",
 "Authorization: Bearer $main::token", "X-Foo: bar"]
--- error_code eval
[401, 401, 503, 404, 401]
--- raw_response_headers_like eval
[$main::asked, $main::told, $main::come_back, $main::any, $main::asked]
--- response_body_like eval
["^who are you\n\\z", "^who are you\n\\z", "^later\n\\z", "404 Not Found", '^\z']
--- suppress_stderr
--- no_error_log
[alert]
[error]



=== TEST 4: a page that is behind auth_pat itself is refused too, with one challenge and one Retry-After
--- user_files
>>> 401.html
who are you
>>> 503.html
later
--- config
auth_pat API;
error_page 401 /401.html;
error_page 403 /403.html;
error_page 503 /503.html;
location = /401.html { internal; }
location = /403.html { internal; auth_pat Other; }
location = /503.html { internal; auth_pat_store $TEST_NGINX_STORE_MISSING; }
location = /t       { try_files /nowhere =204; }
location = /scope   { auth_pat_require_scope write; try_files /nowhere =204; }
location = /missing { auth_pat_store $TEST_NGINX_STORE_MISSING; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t", "GET /missing"]
--- more_headers eval
["X-Foo: bar", "Authorization: Bearer $main::revoked", "Authorization: Bearer $main::token"]
--- error_code eval
[401, 401, 503]
--- raw_response_headers_like eval
[$main::asked, $main::told, $main::come_back]
--- response_body_unlike eval
["who are you", "who are you", "later"]
--- suppress_stderr
--- no_error_log
[alert]
[error]



=== TEST 5: a page can be a 200, a 204, a redirect or an upstream's answer, and nothing of the target is served
--- user_files
>>> secret.html
the secret
>>> page.html
the page
--- config
auth_pat API;
location = /secret.html { error_page 401 =200 /page.html; }
location = /empty       { error_page 401 =204 /empty-page; try_files /secret.html =404; }
location = /redirect    { error_page 401 =302 http://example.com/login; try_files /secret.html =404; }
location = /upstream    { error_page 401 = @upstream; try_files /secret.html =404; }
location = /page.html   { auth_pat off; }
location = /empty-page  { auth_pat off; return 204; }
location @upstream      { auth_pat off; rewrite ^ /answer break; proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT; }
location = /answer      { auth_pat off; return 299 "asked as $request_method"; }
--- request eval
["GET /secret.html", "GET /empty", "GET /redirect", "GET /upstream", "GET /secret.html"]
--- more_headers eval
["X-Foo: bar", "X-Foo: bar", "X-Foo: bar", "Authorization: Bearer $main::revoked", "Authorization: Bearer $main::token"]
--- error_code eval
[200, 204, 302, 299, 200]
--- raw_response_headers_like eval
[$main::any, $main::any, qr/^Location: http:..example.com.login\r$/m, $main::any, $main::any]
--- response_body_like eval
["^the page\n\\z", '^\z', "302 Found", 'asked as GET', "^the secret\n\\z"]
--- no_error_log
[crit]
[alert]
[error]



=== TEST 6: pages of pages: with recursive_error_pages a refused page has a page, without it nginx's own
--- config
auth_pat API;
location /on/ {
    recursive_error_pages on;
    location = /on/t    { error_page 401 /on/page; try_files /nowhere =204; }
    location = /on/page { error_page 401 = @last; try_files /nowhere =204; }
}
location /off/ {
    location = /off/t    { error_page 401 /off/page; try_files /nowhere =204; }
    location = /off/page { error_page 401 = @last; try_files /nowhere =204; }
}
location = /loop { recursive_error_pages on; error_page 401 /loop; try_files /nowhere =204; }
location @last { return 401 "the last page"; }
--- request eval
["GET /on/t", "GET /off/t", "GET /loop"]
--- error_code eval
[401, 401, 500]
--- response_body_like eval
['^the last page\z', '401 Authorization Required', '500 Internal Server Error']
--- raw_response_headers_like eval
[$main::asked, $main::asked, $main::any]
--- no_error_log
[crit]
[alert]



=== TEST 7: the log line of a page with return
--- config
access_log logs/access.log auth_pat;
auth_pat API;
error_page 401 @json;
location = /t  { try_files /nowhere =204; }
location @json { return 401 '{}'; }
--- log_level: info
--- request
GET /t
--- more_headers eval
"Authorization: Bearer $main::revoked"
--- error_code: 401
--- access_log eval
["[/t /t 401 pat=revoked id=$main::revoked_id subject=-]"]
--- no_access_log
mallory
ropat_
--- no_error_log
[error]
ropat_



=== TEST 8: the log line of a page with auth_pat off
--- config
access_log logs/access.log auth_pat;
auth_pat API;
error_page 403 /403.html;
location = /t        { auth_pat_require_scope write; try_files /nowhere =204; }
location = /403.html { auth_pat off; return 403 "no"; }
--- log_level: info
--- request
GET /t
--- more_headers eval
"Authorization: Bearer $main::token"
--- error_code: 403
--- access_log eval
["[/t /403.html 403 pat=scope_denied id=$main::id subject=-]"]
--- no_access_log
alice
ropat_
--- no_error_log
[error]
ropat_



=== TEST 9: the log line of a page for a request without a token
--- config
access_log logs/access.log auth_pat;
auth_pat API;
error_page 401 =200 /page;
location = /t    { try_files /nowhere =204; }
location = /page { auth_pat off; return 200 "x"; }
--- request
GET /t
--- error_code: 200
--- access_log
[/t /page 200 pat=missing id=- subject=-]
--- no_error_log
[error]
[crit]



=== TEST 10: the page for a 404 behind auth_pat is for those who are in, and keeps their identity
--- config
auth_pat API;
error_page 404 = @missing;
location = /t { try_files /nowhere =404; }
location @missing { return 404 "nothing here for $auth_pat_subject ($auth_pat_status)"; }
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
["Authorization: Bearer $main::token", "X-Foo: bar"]
--- error_code eval
[404, 401]
--- response_body_like eval
['^nothing here for alice \(ok\)\z', '401 Authorization Required']
--- no_error_log
[crit]
[alert]



=== TEST 11: a page may look for the token elsewhere, and who is let in there is not challenged
--- config
location = /t {
    auth_pat API;
    error_page 401 = @key;
    try_files /nowhere =204;
}
location @key {
    auth_pat Key token=$http_x_api_key;
    try_files /nowhere =204;
}
--- request eval
["GET /t", "GET /t", "GET /t"]
--- more_headers eval
["Authorization: Bearer $main::token", "X-Api-Key: $main::token", "X-Api-Key: $main::revoked"]
--- error_code eval
[204, 204, 401]
--- raw_response_headers_like eval
[$main::any, $main::any, main::once('WWW-Authenticate', 'Bearer realm="Key", error.*revoked"')]
--- raw_response_headers_unlike eval
[$main::a_challenge, $main::a_challenge, qr/realm="API"/]
--- no_error_log
[crit]
[alert]



=== TEST 12: a page is challenged with where the location has pages of pages, as it is elsewhere
--- config
location = /t {
    auth_pat API;
    recursive_error_pages on;
    error_page 401 /page;
    try_files /nowhere =204;
}
location = /page { auth_pat off; set $who $auth_pat_status; }
--- user_files
>>> page
the page
--- request eval
["GET /t"]
--- error_code eval
[401]
--- raw_response_headers_like eval
[main::once('WWW-Authenticate', 'Bearer realm="API"')]
--- response_body_like eval
['the page']
--- no_error_log
[crit]
[alert]



=== TEST 13: a page that the realm leaves open is challenged with where it is of the same location, and tells of the refusal
--- http_config
map $uri $realm { volatile; /401.html off; default API; }
--- config
auth_pat $realm;
error_page 401 /401.html;
add_header X-Told "$auth_pat_status/$auth_pat_id" always;
--- user_files
>>> 401.html
the page
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
["X-Foo: bar", "Authorization: Bearer $main::revoked"]
--- error_code eval
[401, 401]
--- raw_response_headers_like eval
[main::once('WWW-Authenticate', 'Bearer realm="API"'), $main::told]
--- response_body eval
["the page\n", "the page\n"]
--- response_headers eval
["X-Told: missing/", "X-Told: revoked/$main::revoked_id"]
--- no_error_log
[crit]
[alert]
