# Where clients put tokens: the schemes Bearer, Basic and token of the Authorization header, headers of their own,
# several of these in one location, and what is malformed because it presents more than one credential. Each source has
# every verdict, and a 401 has a challenge for each scheme. What the real clients send is in t/edge/test_clients.py.

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use MIME::Base64 qw(encode_base64);
use Test::Nginx::Socket;

our $store = new_store('main');
store_path('absent');
our %token = import_each_kind($store);
$token{unknown} = 'the-token-of-nobody-0001';
our ($good, $revoked, $unknown) = @token{qw(alice revoked unknown)};
our $longest = 'L' x 512;
patctl($store, \qq({"token":"$longest","id":"longest","subject":"longest"}\n), 'import', '--plaintext', '--strict',
    '-');

write_file(scratch() . '/htpasswd', "bob:{PLAIN}secret\nrobot:{PLAIN}the-password-of-robot\n");

# What each token is answered with, but for challenges.
our @kinds    = qw(alice unknown revoked expired early remote);
our @statuses = (204, 401, 401, 401, 401, 403);
our @verdicts = map { "X-Status: $_" } qw(ok unknown revoked expired not_yet_valid address_denied);

sub basic { return map { 'Authorization: Basic ' . encode_base64($_, '') } @_ }
sub each_kind { my ($before) = @_; return map { "$before$token{$_}" } @kinds }
sub each_basic { my ($user) = @_; return basic(map { "$user:$token{$_}" } @kinds) }

# The challenges of an answer, in this order, and no other.
sub challenges {
    my $all = join '', map { "(?:(?!WWW-Auth)[^\n]*\n)*WWW-Authenticate: \Q$_\E\r\n" } @_;
    return qr/\A$all(?:(?!WWW-Auth)[^\n]*\n)*\z/;
}

our $basic  = 'Basic realm="API"';
our $bearer = 'Bearer realm="API"';

sub invalid { my ($why) = @_; return qq($bearer, error="invalid_token", error_description="The access token $why") }

our @reasons = ('is invalid', 'was revoked', 'expired', 'is not yet valid', 'may not be used from this address');
our $none = challenges();

add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value(http_config => <<'END' . ($block->http_config // ''));
auth_pat_store $TEST_NGINX_STORE_MAIN;
auth_basic_user_file $TEST_NGINX_SCRATCH/htpasswd;
END
    $block->set_value(config => <<'END' . ($block->config // ''));
add_header X-Status $auth_pat_status always;
END
});

repeat_each(2);
plan tests => repeat_each() * 1461;

no_long_string();
run_tests();

__DATA__

=== TEST 1: Basic has every verdict, with any user, and its challenge has no reason
--- config
location = /t { auth_pat API scheme=basic; try_files /nowhere =204; }
--- request eval
[("GET /t") x 12]
--- more_headers eval
[main::each_basic('anyone'), main::each_basic('')]
--- error_code eval
[(@main::statuses) x 2]
--- response_headers eval
[(@main::verdicts) x 2]
--- raw_response_headers_like eval
[($main::none, (main::challenges($main::basic)) x 4, $main::none) x 2]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 2: the scheme token has every verdict, and Bearer's challenge
--- config
location = /t { auth_pat API scheme=token; try_files /nowhere =204; }
--- request eval
[("GET /t") x 12]
--- more_headers eval
[main::each_kind('Authorization: token '), main::each_kind('Authorization: TOKEN   ')]
--- error_code eval
[(@main::statuses) x 2]
--- response_headers eval
[(@main::verdicts) x 2]
--- raw_response_headers_like eval
[($main::none, map { main::challenges(main::invalid($_)) } @main::reasons) x 2]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 3: a header of its own has every verdict, in whatever case its name is, and Bearer's challenge
--- config
location = /t { auth_pat API header=X-Api-Key; try_files /nowhere =204; }
--- request eval
[("GET /t") x 12]
--- more_headers eval
[main::each_kind('X-API-Key: '), main::each_kind('x-api-key:     ')]
--- error_code eval
[(@main::statuses) x 2]
--- response_headers eval
[(@main::verdicts) x 2]
--- raw_response_headers_like eval
[($main::none, map { main::challenges(main::invalid($_)) } @main::reasons) x 2]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 4: Bearer that is named is Bearer that is not, and the names of schemes have no case
--- config
location = /named   { auth_pat API scheme=bearer; try_files /nowhere =204; }
location = /capital { auth_pat API scheme=Bearer,BASIC scheme=Token; try_files /nowhere =204; }
--- request eval
[("GET /named") x 8, ("GET /capital") x 3]
--- more_headers eval
[main::each_kind('Authorization: Bearer '), "Authorization: token $main::good", main::basic("x:$main::good"),
 "Authorization: Bearer $main::good", "Authorization: token $main::good", main::basic("x:$main::good")]
--- error_code eval
[@main::statuses, 401, 401, (204) x 3]
--- response_headers eval
[@main::verdicts, ("X-Status: missing") x 2, ("X-Status: ok") x 3]
--- raw_response_headers_like eval
[$main::none, (map { main::challenges(main::invalid($_)) } @main::reasons), (main::challenges($main::bearer)) x 2,
 ($main::none) x 3]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 5: several sources in one location: each is enough, and each scheme has a challenge, Bearer first
--- config
location = /t {
    auth_pat API scheme=basic,bearer,token header=X-API-Key header=PRIVATE-TOKEN token=$cookie_pat;
    try_files /nowhere =204;
}
--- request eval
[("GET /t") x 43]
--- more_headers eval
[main::each_kind('Authorization: Bearer '), main::each_kind('Authorization: token '), main::each_basic('x'),
 main::each_kind('X-API-Key: '), main::each_kind('Private-Token: '), main::each_kind('Cookie: a=b; pat='), 'X-Other: x',
 map({ "$_: x" } 'Authorization: Bearer', 'Authorization: Basic', 'Authorization: token', 'X-API-Key', 'Private-Token'),
 'Cookie: pat=x']
--- error_code eval
[(@main::statuses) x 6, (401) x 7]
--- response_headers eval
[(@main::verdicts) x 6, "X-Status: missing", ("X-Status: malformed") x 3, ("X-Status: malformed") x 3]
--- raw_response_headers_like eval
[($main::none, (map { main::challenges(main::invalid($_), $main::basic) } @main::reasons[0 .. 3]),
  main::challenges(main::invalid($main::reasons[4]))) x 6,
 main::challenges($main::bearer, $main::basic), (main::challenges(main::invalid('is invalid'), $main::basic)) x 6]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 6: what is not a source is not looked at, and neither is it a credential
--- config
location = /bearer { auth_pat API; try_files /nowhere =204; }
location = /basic  { auth_pat API scheme=basic; try_files /nowhere =204; }
location = /token  { auth_pat API scheme=token; try_files /nowhere =204; }
location = /header { auth_pat API header=X-API-Key; try_files /nowhere =204; }
location = /cookie { auth_pat API token=$cookie_pat; try_files /nowhere =204; }
--- request eval
[map { ("GET $_") x 4 } qw(/bearer /basic /token /header /cookie)]
--- more_headers eval
[map({ ("Authorization: Bearer $_", "Authorization: token $_", main::basic("x:$_"), "X-API-Key: $_") }
  ($main::good) x 4),
 map { ($_, $_, "X-API-Key: $_", "Authorization: Bearer $_\nCookie: pat=$_") } $main::good]
--- error_code eval
[204, (401) x 3,  401, 401, 204, 401,  401, 204, 401, 401,  401, 401, 401, 204,  401, 401, 401, 204]
--- response_headers eval
[map { "X-Status: " . ($_ ? 'ok' : 'missing') } 1, 0, 0, 0,  0, 0, 1, 0,  0, 1, 0, 0,  0, 0, 0, 1,  0, 0, 0, 1]
--- raw_response_headers_like eval
[$main::none, (main::challenges($main::bearer)) x 3,
 (main::challenges($main::basic)) x 2, $main::none, main::challenges($main::basic),
 main::challenges($main::bearer), $main::none, (main::challenges($main::bearer)) x 2,
 (main::challenges($main::bearer)) x 3, $main::none, (main::challenges($main::bearer)) x 3, $main::none]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 7: a user that is given is compared byte by byte; the credentials of another one are those of another scheme
--- config
location = /t { auth_pat API scheme=basic user=robot; try_files /nowhere =204; }
--- request eval
[("GET /t") x 11]
--- more_headers eval
[main::basic("robot:$main::good", "robot:$main::revoked", "robot:short", "robot:",
 map({ "$_:$main::good" } 'Robot', 'robots', 'robo', '', ' robot', 'robot '), 'bob:secret')]
--- error_code eval
[204, (401) x 10]
--- response_headers eval
[map { "X-Status: $_" } qw(ok revoked malformed malformed), ("missing") x 7]
--- raw_response_headers_like eval
[$main::none, (main::challenges($main::basic)) x 10]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 8: Basic that is not base64, has no colon, or no token as its password, is malformed
--- config
location = /t { auth_pat API scheme=basic; try_files /nowhere =204; }
--- request eval
[("GET /t") x 20]
--- more_headers eval
[map({ "Authorization: $_" } 'Basic', 'Basic !', "Basic $main::good", 'Basic dTp0aGUtdG9rZW4tb2YtYWxpY2UtMDAwMDE',
  'Basic dTp0aGUtdG9rZW4tb2YtYWxpY2UtMDAwMDE=, Basic dTp0aGUtdG9rZW4tb2YtYWxpY2UtMDAwMDE=',
  'Basic dTp0aGUtdG9rZW4tb2YtYWxpY2UtMDAwMDF=', 'Basic dTp0aGUtdG9rZW4tb2YtYWxpY2UtMDAwMDE=x',
  "Basic\tdTp0aGUtdG9rZW4tb2YtYWxpY2UtMDAwMDE=", 'Basic dTp0aGUtdG9rZW4tb2YtYWxpY2 UtMDAwMDE='),
 main::basic('', ':', 'u:', $main::good, "$main::good:", "$main::good:x-oauth-basic", "u::$main::good",
  "u:$main::good ", "u:Bearer $main::good", "u\n:$main::good", "u\0:$main::good")]
--- error_code eval
[(401) x 20]
--- response_headers eval
[("X-Status: malformed") x 20]
--- raw_response_headers_like eval
[(main::challenges($main::basic)) x 20]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 9: Basic has room for the longest token and a long name, and blanks around it do not matter
--- config
location = /t { auth_pat API scheme=basic; try_files /nowhere =204; }
--- request eval
[("GET /t") x 6]
--- more_headers eval
[main::basic("u:$main::longest", 'n' x 510 . ":$main::longest", 'n' x 511 . ":$main::longest",
  'n' x 5000 . ":$main::good"),
 map { s/Basic /BASIC    /r . "  \t" } main::basic("u:$main::longest", "b\xf6b:$main::longest")]
--- error_code eval
[204, 204, 401, 401, 204, 204]
--- response_headers eval
[map { "X-Status: $_" } qw(ok ok malformed malformed ok ok)]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 10: more than one credential is malformed, whatever the others are, even empty
--- config
location = /t {
    auth_pat API scheme=bearer,basic header=X-API-Key header=PRIVATE-TOKEN token=$cookie_pat;
    try_files /nowhere =204;
}
--- request eval
[("GET /t") x 17]
--- more_headers eval
[map { s/TOKEN/$main::good/gr =~ s/UNKNOWN/$main::unknown/gr }
 "Authorization: Bearer TOKEN\nX-API-Key: TOKEN", "X-API-Key: TOKEN\nAuthorization: Bearer TOKEN",
 "X-API-Key: TOKEN\nAuthorization: Bearer UNKNOWN", "X-API-Key: TOKEN\nAuthorization: Digest x",
 "X-API-Key: TOKEN\nAuthorization:",
 "X-API-Key:\nAuthorization: Bearer TOKEN", "X-API-Key: TOKEN\nAuthorization: Basic Ym9iOnNlY3JldA==",
 "X-API-Key: TOKEN\nX-API-Key: TOKEN", "X-API-Key: TOKEN\nX-Foo: x\nx-api-key: UNKNOWN", "X-API-Key: TOKEN\nX-API-Key:",
 "X-API-Key:\nX-API-Key: TOKEN", "X-API-Key: TOKEN, TOKEN", "X-API-Key: TOKEN,",
 "X-API-Key: TOKEN\nPrivate-Token: TOKEN",
 "X-API-Key: TOKEN\nCookie: pat=TOKEN", "Authorization: Bearer TOKEN\nCookie: pat=TOKEN",
 "X-API-Key: TOKEN\nPrivate-Token: TOKEN\nCookie: pat=TOKEN\nAuthorization: Bearer TOKEN"]
--- error_code eval
[(401) x 17]
--- response_headers eval
[("X-Status: malformed") x 17]
--- error_log
access token is malformed
--- no_error_log
[error]
[crit]
[alert]



=== TEST 11: one empty header is no token, and neither are two that nobody asked for
--- config
location = /t      { auth_pat API scheme=bearer header=X-API-Key; try_files /nowhere =204; }
location = /cookie { auth_pat API scheme=bearer token=$cookie_pat; try_files /nowhere =204; }
location = /alike  { auth_pat API header=X-API-Key token=$http_x_api_keys; try_files /nowhere =204; }
--- request eval
[("GET /t") x 4, ("GET /cookie") x 3]
--- more_headers eval
["X-API-Key:", "Authorization:", "Authorization: Digest x",
 "X-API-Key: $main::good\nX_API_Key: $main::good\nX-API-Keys: x",
 "Cookie: pat=\nAuthorization: Bearer $main::good", "Cookie: tap=x\nAuthorization: Bearer $main::good", "Cookie: pat="]
--- error_code eval
[401, 401, 401, 204, 204, 204, 401]
--- response_headers eval
[map { "X-Status: $_" } qw(missing missing missing ok ok ok missing)]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 12: nginx itself refuses two Authorization headers, whatever the schemes
--- config
location = /t { auth_pat API scheme=bearer,basic,token header=X-API-Key; try_files /nowhere =204; }
--- request eval
[("GET /t") x 2]
--- more_headers eval
["Authorization: Bearer $main::good\n" . (main::basic("u:$main::good"))[0],
 "Authorization:\nAuthorization: token $main::good"]
--- error_code eval
[400, 400]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 13: an error page for such a request, if it is guarded, is refused as malformed
--- config
error_page 400 /page;
location = /page { auth_pat API scheme=bearer,basic; try_files /nowhere =204; }
location = /t    { try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
"Authorization: Bearer $main::good\n" . (main::basic("u:$main::good"))[0]
--- error_code: 401
--- raw_response_headers_like eval
main::challenges(main::invalid('is invalid'), $main::basic)
--- no_error_log
[crit]
[alert]



=== TEST 14: sources are inherited with the realm, and replaced together with it
--- config
auth_pat API scheme=basic header=X-API-Key;
location = /inherits { try_files /nowhere =204; }
location = /replaces { auth_pat API; try_files /nowhere =204; }
location = /other    { auth_pat API header=Private-Token; try_files /nowhere =204; }
location = /off      { auth_pat off; try_files /nowhere =204; }
location /in/ {
    auth_pat API scheme=token;
    location = /in/inherits { try_files /nowhere =204; }
}
location = /limited {
    auth_pat off;
    limit_except GET { auth_pat API scheme=token; }
    try_files /nowhere =204;
}
--- request eval
[map { my $path = $_; ("GET $path") x 4 } qw(/inherits /replaces /other /off /in/inherits)]
--- more_headers eval
[map { (main::basic("u:$_"), "X-API-Key: $_", "Authorization: Bearer $_", "Authorization: token $_") }
 ($main::good) x 5]
--- error_code eval
[204, 204, 401, 401,  401, 401, 204, 401,  (401) x 4,  (204) x 4,  401, 401, 401, 204]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 15: auth_pat_optional and a preflight need no credential; a bad one, or two, is refused all the same
--- config
location = /optional {
    auth_pat API scheme=basic user=robot header=X-API-Key;
    auth_pat_optional on;
    try_files /nowhere =204;
}
location = /preflight {
    auth_pat API scheme=basic header=X-API-Key;
    auth_pat_preflight pass;
    try_files /nowhere =204;
}
--- request eval
[("GET /optional") x 7, ("OPTIONS /preflight") x 2]
--- more_headers eval
['X-Other: x', main::basic('bob:secret', "robot:$main::good", "robot:$main::revoked"), 'X-API-Key:', 'X-API-Key: x',
 "X-API-Key: $main::good\n" . (main::basic('bob:secret'))[0],
 "Origin: https://a.example\nAccess-Control-Request-Method: GET", 'Origin: https://a.example']
--- error_code eval
[204, 204, 204, 401, 204, 401, 401, 204, 401]
--- response_headers eval
[map { "X-Status: $_" } qw(anonymous anonymous ok revoked anonymous malformed malformed preflight missing)]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 16: for a scope or a requirement, Bearer has the reason, and Basic nothing that asks for a password
--- config
set $nothing "";
auth_pat API scheme=basic,bearer;
location = /basic      { auth_pat API scheme=basic; auth_pat_require_scope write; try_files /nowhere =204; }
location = /both       { auth_pat_require_scope write; try_files /nowhere =204; }
location = /require    { auth_pat API scheme=basic; auth_pat_require $nothing; try_files /nowhere =204; }
location = /require401 { auth_pat_require $nothing error=401; try_files /nowhere =204; }
location = /require402 { auth_pat_require $nothing error=402; try_files /nowhere =204; }
--- request eval
["GET /basic", "GET /both", "GET /require", "GET /require401", "GET /require402"]
--- more_headers eval
[main::basic(("u:$main::good") x 5)]
--- error_code eval
[403, 403, 403, 401, 402]
--- response_headers eval
[map { "X-Status: $_" } qw(scope_denied scope_denied require_denied require_denied require_denied)]
--- raw_response_headers_like eval
[$main::none, main::challenges(qq($main::bearer, error="insufficient_scope", scope="write")), $main::none,
 main::challenges(main::invalid('does not meet a requirement'), $main::basic), $main::none]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 17: a store that cannot be read is 503 for each source, and no challenge
--- config
location = /t {
    auth_pat API scheme=basic,token header=X-API-Key;
    auth_pat_store $TEST_NGINX_STORE_ABSENT;
    try_files /nowhere =204;
}
--- request eval
[("GET /t") x 3]
--- more_headers eval
[main::basic("u:$main::good"), "Authorization: token $main::good", "X-API-Key: $main::good"]
--- error_code eval
[503, 503, 503]
--- response_headers eval
[("X-Status: store_error\nRetry-After: 1") x 3]
--- raw_response_headers_like eval
[($main::none) x 3]
--- suppress_stderr
--- no_error_log
[alert]



=== TEST 18: the prefix counts for each source
--- config
location = /t {
    auth_pat API scheme=bearer,basic,token header=X-API-Key;
    auth_pat_prefix ropat_;
    try_files /nowhere =204;
}
--- request eval
[("GET /t") x 4]
--- more_headers eval
["Authorization: Bearer $main::good", main::basic("u:$main::good"), "Authorization: token $main::good",
 "X-API-Key: $main::good"]
--- error_code eval
[(401) x 4]
--- response_headers eval
[("X-Status: malformed") x 4]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 19: with satisfy any, Basic may hold a token or a password, and those who are let in see no challenge
--- config
satisfy any;
auth_basic people;
location = /any  { auth_pat API scheme=bearer,basic; try_files /nowhere =204; }
location = /user { auth_pat API scheme=bearer,basic user=token; try_files /nowhere =204; }
--- request eval
[map { my $path = $_; ("GET $path") x 6 } qw(/any /user)]
--- more_headers eval
[(main::basic('bob:secret', 'robot:the-password-of-robot', "token:$main::good", "token:$main::revoked", 'bob:wrong'),
 'X-Other: x') x 2]
--- error_code eval
[(204, 204, 204, 401, 401, 401) x 2]
--- response_headers eval
[map { "X-Status: $_" } qw(malformed unknown ok revoked malformed missing  missing missing ok revoked missing missing)]
--- raw_response_headers_like eval
[($main::none) x 3,
 main::challenges(main::invalid('was revoked'), $main::basic, 'Basic realm="people"'),
 main::challenges(main::invalid('is invalid'), $main::basic, 'Basic realm="people"'),
 main::challenges($main::bearer, $main::basic, 'Basic realm="people"'),
 ($main::none) x 3,
 main::challenges(main::invalid('was revoked'), $main::basic, 'Basic realm="people"'),
 (main::challenges($main::bearer, $main::basic, 'Basic realm="people"')) x 2]
--- no_error_log
[crit]
[alert]



=== TEST 20: with satisfy any, an address that is allowed is let in without a challenge; an error page has its own
--- config
location = /allowed { satisfy any; auth_pat API scheme=bearer,basic; allow all; try_files /nowhere =204; }
location = /page    { error_page 401 /guarded; auth_pat API scheme=bearer,basic; try_files /nowhere =204; }
location = /guarded { auth_pat "the page" scheme=bearer; try_files /nowhere =204; }
--- request eval
["GET /allowed", "GET /page", "GET /page"]
--- more_headers eval
['X-Other: x', 'X-Other: x', main::basic("u:$main::revoked")]
--- error_code eval
[204, 401, 401]
--- raw_response_headers_like eval
[$main::none, (main::challenges('Bearer realm="the page"')) x 2]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 21: a realm is quoted in each challenge, and may turn validation off
--- config
location = /t { auth_pat $arg_realm scheme=bearer,basic; try_files /nowhere =204; }
location = /q { auth_pat 'a "b" \c' scheme=bearer,basic; try_files /nowhere =204; }
--- request eval
["GET /t?realm=off", "GET /t?realm=on", "GET /q"]
--- error_code eval
[204, 401, 401]
--- raw_response_headers_like eval
[$main::none, main::challenges('Bearer realm="on"', 'Basic realm="on"'),
 main::challenges('Bearer realm="a \"b\" \\\\c"', 'Basic realm="a \"b\" \\\\c"')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 22: a subrequest and an internal redirect are decided as the request that they belong to
--- config
location = /try   { auth_pat API scheme=basic; try_files /nowhere @named; }
location @named   { auth_pat API scheme=basic; try_files /nowhere =204; }
location = /early {
    set $early $auth_pat_subject;
    auth_pat API scheme=basic;
    add_header X-Early $early always;
    add_header X-Status $auth_pat_status always;
    try_files /nowhere =204;
}
--- request eval
["GET /try", "GET /try", "GET /early", "GET /early"]
--- more_headers eval
[main::basic(("u:$main::good", "u:$main::revoked") x 2)]
--- error_code eval
[204, 401, 204, 401]
--- response_headers eval
["X-Status: ok", "X-Status: revoked", "X-Early: alice\nX-Status: ok", "X-Status: revoked"]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 23: a dry run refuses nobody, and challenges nobody
--- config
location = /t { auth_pat API scheme=basic header=X-API-Key; auth_pat_dry_run on; try_files /nowhere =204; }
--- request eval
[("GET /t") x 4]
--- more_headers eval
[main::basic("u:$main::revoked", "u:$main::good"), 'X-API-Key: x', "X-API-Key: $main::good\nX-API-Key: x"]
--- error_code eval
[(204) x 4]
--- response_headers eval
[map { "X-Status: $_" } qw(revoked_dry_run ok malformed_dry_run malformed_dry_run)]
--- raw_response_headers_like eval
[($main::none) x 4]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 24: the text of a token is never logged, nor is a password or the name that it came with
--- log_level: info
--- config
location = /t { auth_pat API scheme=bearer,basic,token header=X-API-Key; try_files /nowhere =204; }
--- request eval
[("GET /t") x 7]
--- more_headers eval
[main::basic("u:$main::good", "u:$main::revoked", "somebody:secret,$main::good"),
 "Authorization: token $main::good", "X-API-Key: $main::good", "X-API-Key: $main::good,",
 "X-API-Key: $main::good\nX-API-Key: $main::revoked"]
--- error_code eval
[204, 401, 401, 204, 204, 401, 401]
--- no_error_log eval
[$main::good, $main::revoked, substr(MIME::Base64::encode_base64("u:$main::good", ''), 0, 20), 'somebody',
 '[error]', '[crit]', '[alert]']



=== TEST 25: a name that upstreams take for that of a header= is a second credential, and is not accepted itself
--- http_config
underscores_in_headers on;
ignore_invalid_headers off;
--- config
location = /t { auth_pat API scheme=bearer header=X-API-Key; try_files /nowhere =204; }
--- request eval
[("GET /t") x 11]
--- more_headers eval
[map({ my $name = $_; ("Authorization: Bearer $main::good\n$name: $main::good", "$name: $main::good") }
  qw(X_API_Key x-api_key X.API.Key)),
 "X-API-Key: $main::good\nX_API_Key: $main::unknown", "X_API_Key: $main::unknown\nX-API-Key: $main::good",
 "X-API-Key: $main::good\nX_API_Key:", "Authorization: Bearer $main::good\nX_API_Keys: x\nX_API: x\nXXAPIXKey: x",
 "X-API-Key: $main::good\n_API_Key: x\nAuthorization_: x"]
--- error_code eval
[(401) x 9, 204, 204]
--- response_headers eval
[map { "X-Status: $_" } ("malformed") x 9, "ok", "ok"]
--- no_error_log
[error]
[crit]
[alert]
