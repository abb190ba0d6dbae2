# What the client is told when it is refused: status, WWW-Authenticate, Retry-After, each word of them.

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use Test::Nginx::Socket;

our $store = new_store('main');
store_path('absent');
our $good    = issue($store, '--subject', 'alice', '--scope', 'csv:read');
our $revoked = issue($store, '--subject', 'mallory');
our $remote  = issue($store, '--subject', 'bob', '--cidr', '192.0.2.0/24');
our $expired = 'expired-token-0001';
our $early   = 'early-token-000001';
patctl($store, \<<"END", 'import', '--plaintext', '--strict', '-');
{"token":"$expired","id":"pat_expired","subject":"eve","expires_at":1600000000}
{"token":"$early","id":"pat_early","subject":"eve","not_before":4000000000}
END
patctl($store, 'revoke', '--subject', 'mallory');

our $challenge = 'WWW-Authenticate: Bearer realm="API"';

sub bearer { return map { "Authorization: Bearer $_" } @_ }

# Every verdict in turn: what to send, and the answer to it.
our @every = bearer($good, 'too-short', 'unknown-token-0001', $expired, $revoked, $early, $remote, $good);
$every[8] = 'X-Foo: bar';
our @every_uri = (('/t') x 7, '/scope', '/t');
our @every_status = (204, 401, 401, 401, 401, 401, 403, 403, 401);
our @every_challenge = (
    'WWW-Authenticate:',
    (map { qq($challenge, error="invalid_token", error_description="The access token $_") } 'is invalid', 'is invalid',
        'expired', 'was revoked', 'is not yet valid', 'may not be used from this address'),
    qq($challenge, error="insufficient_scope", scope="csv:write"),
    $challenge,
);

add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value(http_config => "auth_pat_store \$TEST_NGINX_STORE_MAIN;\n" . ($block->http_config // ''));
});

repeat_each(2);
plan tests => repeat_each() * 391;

no_long_string();
run_tests();

__DATA__

=== TEST 1: each verdict has its status and its challenge, and none but 503 a Retry-After
--- config
auth_pat API;
location = /t     { try_files /nowhere =204; }
location = /scope { auth_pat_require_scope csv:write; try_files /nowhere =204; }
--- request eval
[map { "GET $_" } @main::every_uri]
--- more_headers eval
[@main::every]
--- error_code eval
[@main::every_status]
--- response_headers eval
[map { "$_\nRetry-After:" } @main::every_challenge]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 2: HEAD is answered as GET is, without a body
--- config
auth_pat API;
location = /t     { try_files /nowhere =204; }
location = /scope { auth_pat_require_scope csv:write; try_files /nowhere =204; }
--- request eval
[map { "HEAD $_" } @main::every_uri]
--- more_headers eval
[@main::every]
--- error_code eval
[@main::every_status]
--- response_headers eval
[map { "$_\nRetry-After:" } @main::every_challenge]
--- response_body eval
[('') x 9]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 3: other methods are answered as GET is
--- config
auth_pat API;
location = /t { try_files /nowhere =204; }
--- request eval
["OPTIONS /t", "DELETE /t", "PUT /t\nx", "POST /t\nx", "PATCH /t\nx", "PROPFIND /t"]
--- more_headers eval
[('X-Foo: bar') x 6]
--- error_code eval
[(401) x 6]
--- response_headers eval
[($main::challenge) x 6]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 4: there is one challenge, and the client's own WWW-Authenticate does not matter
--- config
auth_pat API;
location = /t { try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
["WWW-Authenticate: Basic", "WWW-Authenticate: Basic\nAuthorization: Bearer $main::revoked"]
--- error_code eval
[401, 401]
--- raw_response_headers_like eval
[(qr/\A(?!.*WWW-Authenticate.*WWW-Authenticate).*\r\nWWW-Authenticate: Bearer realm="API"/s) x 2]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 5: a store that is not there gets a 503 and Retry-After, and no challenge
--- config
auth_pat API;
location = /t { auth_pat_store $TEST_NGINX_STORE_ABSENT; try_files /nowhere =204; }
--- request eval
["GET /t", "HEAD /t"]
--- more_headers eval
[main::bearer($main::good, $main::revoked)]
--- error_code eval
[503, 503]
--- response_headers eval
[("Retry-After: 1\nWWW-Authenticate:") x 2]
--- error_log eval
[qr/\[crit\] .* auth_pat store "[^"]+\/absent": there is no store .*: No such file or directory, client: /]
--- no_error_log
[error]
[alert]



=== TEST 6: a store that is not there does not keep a client without a token, or with a broken one, from being told
--- config
auth_pat API;
location = /t { auth_pat_store $TEST_NGINX_STORE_ABSENT; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t", "GET /t"]
--- more_headers eval
["X-Foo: bar", "Authorization: Basic dXNlcjpwYXNz", "Authorization: Bearer x"]
--- error_code eval
[401, 401, 401]
--- response_headers eval
["$main::challenge\nRetry-After:", "$main::challenge\nRetry-After:",
 "$main::challenge, error=\"invalid_token\", error_description=\"The access token is invalid\"\nRetry-After:"]
--- no_error_log
[error]
[alert]



=== TEST 7: quotes and backslashes of the realm are escaped
--- config
location = /quotes      { auth_pat 'the "big" API'; try_files /nowhere =204; }
location = /backslashes { auth_pat 'a\\b\\'; try_files /nowhere =204; }
location = /both        { auth_pat '\\"'; try_files /nowhere =204; }
location = /all         { auth_pat '""""'; try_files /nowhere =204; }
--- request eval
["GET /quotes", "GET /backslashes", "GET /both", "GET /all"]
--- more_headers eval
[('X-Foo: bar') x 4]
--- error_code eval
[(401) x 4]
--- response_headers eval
['WWW-Authenticate: Bearer realm="the \\"big\\" API"', 'WWW-Authenticate: Bearer realm="a\\\\b\\\\"',
 'WWW-Authenticate: Bearer realm="\\\\\\""', 'WWW-Authenticate: Bearer realm="\\"\\"\\"\\""']
--- no_error_log
[error]
[crit]
[alert]



=== TEST 8: an empty realm, blanks and non-ASCII text are taken as they are
--- config
location = /empty  { auth_pat ''; try_files /nowhere =204; }
location = /blanks { auth_pat 'a  b, c=d'; try_files /nowhere =204; }
location = /utf8   { auth_pat 'Größe'; try_files /nowhere =204; }
location = /long   { auth_pat 'RRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRR'; try_files /nowhere =204; }
--- request eval
["GET /empty", "GET /blanks", "GET /utf8", "GET /long"]
--- more_headers eval
[('X-Foo: bar') x 4]
--- error_code eval
[(401) x 4]
--- raw_response_headers_like eval
['WWW-Authenticate: Bearer realm=""\r\n', 'WWW-Authenticate: Bearer realm="a  b, c=d"\r\n',
 "WWW-Authenticate: Bearer realm=\"Gr\xc3\xb6\xc3\x9fe\"\r\n", 'WWW-Authenticate: Bearer realm="R{104}"\r\n']
--- no_error_log
[error]
[crit]
[alert]



=== TEST 9: the realm may hold variables, which are escaped as well
--- config
location = /t { auth_pat 'API of $arg_who ($request_method)'; try_files /nowhere =204; }
location = /h { auth_pat $http_x_realm; try_files /nowhere =204; }
--- request eval
["GET /t?who=me", "POST /t?who=a\"b", "GET /t?who=", "GET /h", "GET /h"]
--- more_headers eval
['X-Foo: bar', 'X-Foo: bar', 'X-Foo: bar', 'X-Realm: a\\"b', 'X-Foo: bar']
--- error_code eval
[(401) x 5]
--- response_headers eval
['WWW-Authenticate: Bearer realm="API of me (GET)"', 'WWW-Authenticate: Bearer realm="API of a\\"b (POST)"',
 'WWW-Authenticate: Bearer realm="API of  (GET)"', 'WWW-Authenticate: Bearer realm="a\\\\\\"b"',
 'WWW-Authenticate: Bearer realm=""']
--- no_error_log
[error]
[crit]
[alert]



=== TEST 10: control characters of the realm, which could end the header, become blanks
--- config
location ~ ^/r/(?<captured>[\x00-\xff]*)$ { auth_pat 'x${captured}y'; try_files /nowhere =204; }
location = /h { auth_pat 'x${http_x_realm}y'; try_files /nowhere =204; }
location = /line { auth_pat 'two
lines'; try_files /nowhere =204; }
--- request eval
["GET /r/%0d%0aSet-Cookie:%20a=b", "GET /r/%0aevil", "GET /r/%01%1f%7f", "GET /h", "GET /line"]
--- more_headers eval
['X-Foo: bar', 'X-Foo: bar', 'X-Foo: bar', "X-Realm: a\x01\x1b\x7f\tb", 'X-Foo: bar']
--- error_code eval
[(401) x 5]
--- raw_response_headers_like eval
['WWW-Authenticate: Bearer realm="x  Set-Cookie: a=by"\r\n', 'WWW-Authenticate: Bearer realm="x evily"\r\n',
 'WWW-Authenticate: Bearer realm="x   y"\r\n', 'WWW-Authenticate: Bearer realm="xa    by"\r\n',
 'WWW-Authenticate: Bearer realm="two lines"\r\n']
--- raw_response_headers_unlike eval
[(qr/^(?:Set-Cookie|evil)/m) x 5]
--- no_error_log
[crit]
[alert]



=== TEST 11: insufficient_scope names all that is needed, of every directive, in order
--- config
auth_pat API;
auth_pat_require_scope csv:write;
location = /one     { try_files /nowhere =204; }
location = /two     { auth_pat_require_scope csv:write csv:admin; try_files /nowhere =204; }
location = /any     { auth_pat_require_scope a b match=any; try_files /nowhere =204; }
location = /several { auth_pat_require_scope csv:read; auth_pat_require_scope x y match=any; auth_pat_require_scope z; try_files /nowhere =204; }
location = /vars    { auth_pat_require_scope $arg_a mid $arg_b; try_files /nowhere =204; }
--- request eval
["GET /one", "GET /two", "GET /any", "GET /several", "GET /vars?a=one&b=two", "GET /vars", "GET /vars?a=q\"uo\\te"]
--- more_headers eval
[main::bearer(($main::good) x 7)]
--- error_code eval
[(403) x 7]
--- response_headers eval
[map { "$main::challenge, error=\"insufficient_scope\", scope=\"$_\"" } 'csv:write', 'csv:write csv:admin', 'a b',
 'csv:read x y z', 'one mid two', 'mid', 'q\\"uo\\\\te mid']
--- error_log
lacks a scope
--- no_error_log
[error]
[crit]
[alert]



=== TEST 12: who may not use the token at all is not told which scope is needed
--- config
auth_pat API;
auth_pat_require_scope csv:write;
location = /t { try_files /nowhere =204; }
--- request eval
[("GET /t") x 3]
--- more_headers eval
["X-Foo: bar", main::bearer($main::revoked, 'unknown-token-0001')]
--- error_code eval
[401, 401, 401]
--- raw_response_headers_unlike eval
[(qr/scope/) x 3]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 13: the challenge is in the header of a request that is passed on, and not in that of one that is let in
--- config
location = /t       { auth_pat API; proxy_pass http://127.0.0.1:$server_port/backend; }
location = /backend { add_header WWW-Authenticate 'Basic realm="backend"' always; return 401; }
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
["X-Foo: bar", main::bearer($main::good)]
--- error_code eval
[401, 401]
--- response_headers eval
[$main::challenge, 'WWW-Authenticate: Basic realm="backend"']
--- no_error_log
[error]
[crit]
[alert]



=== TEST 14: each verdict is logged at info with the token's id, and a request that is let in is not
--- config
auth_pat API;
location = /t { try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
main::bearer($main::expired)
--- error_code: 401
--- error_log eval
[qr/\[info\] .* access token "[\w.:\@-]+" expired.*, client: 127\.0\.0\.1, .*request: "GET \/t HTTP\/1\.1"/]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 15: a revoked token is logged with its id
--- config
auth_pat API;
location = /t { try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
main::bearer($main::revoked)
--- error_code: 401
--- error_log eval
[qr/\[info\] .* access token "pat_\w+" was revoked/]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 16: a token from the wrong address is logged with its id
--- config
auth_pat API;
location = /t { try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
main::bearer($main::remote)
--- error_code: 403
--- error_log eval
[qr/\[info\] .* access token "pat_\w+" may not be used from this address/]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 17: a token that is not yet valid is logged with its id
--- config
auth_pat API;
location = /t { try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
main::bearer($main::early)
--- error_code: 401
--- error_log eval
[qr/\[info\] .* access token "[\w.:\@-]+" is not yet valid/]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 18: off is a word of its own, not a realm that starts or ends with it, nor one in capitals
--- config
location = /a { auth_pat office; try_files /nowhere =204; }
location = /b { auth_pat OFF; try_files /nowhere =204; }
location = /c { auth_pat "off "; try_files /nowhere =204; }
location = /d { auth_pat "off"; try_files /nowhere =204; }
location = /e { auth_pat on; try_files /nowhere =204; }
--- request eval
["GET /a", "GET /b", "GET /c", "GET /d", "GET /e"]
--- more_headers eval
[("X-Foo: bar") x 5]
--- error_code eval
[401, 401, 401, 204, 401]
--- response_headers eval
['WWW-Authenticate: Bearer realm="office"', 'WWW-Authenticate: Bearer realm="OFF"', 'WWW-Authenticate: Bearer realm="off "',
 'WWW-Authenticate:', 'WWW-Authenticate: Bearer realm="on"']
--- no_error_log
[error]
[crit]
[alert]
[emerg]
