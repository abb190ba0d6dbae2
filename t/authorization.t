# The grammar of the Authorization header: what is a Bearer credential, what is none, and what is a broken one.

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use Test::Nginx::Socket;

our $store = new_store('main');
our $token = issue($store, '--subject', 'alice');

# Tokens of a platform that has a form of its own.
our $shortest = 'abcdefghijklmnop';
our $longest  = 'L' x 512;
our $special  = 'AZaz09-._~+/AZaz09';
our $padded   = 'abcdefghijklmn==';
my $id = 0;
patctl($store, \join('', map { qq({"token":"$_","id":"legacy.${\ ++$id}","subject":"legacy"}\n) } $shortest, $longest, $special,
    $padded), 'import', '--plaintext', '--strict', '-');

our $challenge = 'WWW-Authenticate: Bearer realm="API"';
our $invalid   = qq($challenge, error="invalid_token", error_description="The access token is invalid");

sub bearer { return map { "Authorization: Bearer $_" } @_ }
sub header { return map { "Authorization: $_" } @_ }

add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value(http_config => 'auth_pat_store $TEST_NGINX_STORE_MAIN;');
    $block->set_value(config => <<'END');
location = /t {
    auth_pat API;
    add_header X-Status $auth_pat_status always;
    try_files /nowhere =204;
}
END
});

repeat_each(2);
plan tests => repeat_each() * 1239;

no_long_string();
run_tests();

__DATA__

=== TEST 1: the scheme is matched without regard to case, and so is the name of the header
--- request eval
[("GET /t") x 7]
--- more_headers eval
["Authorization: Bearer $main::token", "Authorization: bearer $main::token", "Authorization: BEARER $main::token",
 "Authorization: bEaReR $main::token", "authorization: Bearer $main::token", "AUTHORIZATION: BEARER $main::token",
 "aUtHoRiZaTiOn: bearer $main::token"]
--- error_code eval
[(204) x 7]
--- response_headers eval
[("X-Status: ok\nWWW-Authenticate:") x 7]
--- no_error_log
[error]
[crit]
[alert]
no access token



=== TEST 2: one or more blanks follow the scheme, and blanks and tabs at the end are ignored
--- request eval
[("GET /t") x 8]
--- more_headers eval
[main::header("Bearer  $main::token", "Bearer   $main::token", "Bearer" . " " x 100 . $main::token,
 "Bearer $main::token ", "Bearer $main::token     ", "Bearer $main::token\t", "Bearer $main::token \t \t",
 "Bearer  $main::token\t\t ")]
--- error_code eval
[(204) x 8]
--- response_headers eval
[("X-Status: ok\nWWW-Authenticate:") x 8]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 3: a token may have 16 to 512 characters of the b64token alphabet, with padding at its end
--- request eval
[("GET /t") x 4]
--- more_headers eval
[main::bearer($main::shortest, $main::longest, $main::special, $main::padded)]
--- error_code eval
[(204) x 4]
--- response_headers eval
[("X-Status: ok\nWWW-Authenticate:") x 4]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 4: what looks like a token but is not in the store is unknown, even if it is only one character off
--- request eval
[("GET /t") x 12]
--- more_headers eval
[main::bearer(
 "$main::token=", "$main::token==", "${main::token}0", "0$main::token", substr($main::token, 1), substr($main::token, 0, -1),
 uc $main::token, lc $main::token, "~~~~~~~~~~~~~~~~", "a===============", "u" x 512, "abcdefghijklmno=")]
--- error_code eval
[(401) x 12]
--- response_headers eval
[("X-Status: unknown\n$main::invalid") x 12]
--- error_log
access token is unknown
--- no_error_log
[error]
[crit]
[alert]



=== TEST 5: without the header, or with an empty one, no token was presented
--- request eval
[("GET /t") x 6]
--- more_headers eval
["X-Foo: bar", "Authorization:", "Authorization: ", "X-Authorization: Bearer $main::token",
 "Proxy-Authorization: Bearer $main::token", "Authorisation: Bearer $main::token"]
--- error_code eval
[(401) x 6]
--- response_headers eval
[("X-Status: missing\n$main::challenge") x 6]
--- error_log
no access token was provided
--- no_error_log
[error]
[crit]
[alert]



=== TEST 6: another scheme is not a Bearer token, whatever follows it
--- request eval
[("GET /t") x 16]
--- more_headers eval
[main::header("Basic dXNlcjpwYXNzd29yZA==", "Basic", "Digest username=\"a\", realm=\"b\"", "Token $main::token", "Negotiate",
 "DPoP $main::token", $main::token, "Bearerx $main::token", "xBearer $main::token", "Bear $main::token",
 "Bearer-$main::token", "Bearer_ $main::token", "Bearer2 $main::token", "Be arer $main::token",
 "Basic dXNlcjpwYXNz, Bearer $main::token", "Bearers")]
--- error_code eval
[(401) x 16]
--- response_headers eval
[("X-Status: missing\n$main::challenge") x 16]
--- error_log
no access token was provided
--- no_error_log
[error]
[crit]
[alert]



=== TEST 7: what does not start with a scheme is no credential
--- request eval
[("GET /t") x 9]
--- more_headers eval
[main::header("\"Bearer\" $main::token", ", Bearer $main::token", "= $main::token", "(x) Bearer $main::token",
 "\x80Bearer $main::token", "B\xe9arer $main::token", "\x01Bearer $main::token", "Bear\x7fer $main::token",
 "[earer $main::token")]
--- error_code eval
[(401) x 9]
--- response_headers eval
[("X-Status: missing\n$main::challenge") x 9]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 8: the scheme with nothing behind it is malformed
--- request eval
[("GET /t") x 5]
--- more_headers eval
[main::header("Bearer", "Bearer ", "bearer", "Bearer \t", "Bearer     ")]
--- error_code eval
[(401) x 5]
--- response_headers eval
[("X-Status: malformed\n$main::invalid") x 5]
--- error_log
access token is malformed
--- no_error_log
[error]
[crit]
[alert]



=== TEST 9: something other than blanks behind the scheme is malformed
--- request eval
[("GET /t") x 12]
--- more_headers eval
[main::header("Bearer\t$main::token", "Bearer \t$main::token", "Bearer\t $main::token", "Bearer,$main::token",
 "Bearer:$main::token", "Bearer: $main::token", "Bearer=$main::token", "Bearer\"$main::token\"", "Bearer(x) $main::token",
 "Bearer/1.0 $main::token", "Bearer\@api $main::token", "Bearer;$main::token")]
--- error_code eval
[(401) x 12]
--- response_headers eval
[("X-Status: malformed\n$main::invalid") x 12]
--- error_log
access token is malformed
--- no_error_log
[error]
[crit]
[alert]



=== TEST 10: more than one token, or a list, is malformed
--- request eval
[("GET /t") x 13]
--- more_headers eval
[main::header("Bearer $main::token, Bearer $main::token", "Bearer $main::token,Bearer $main::token",
 "Bearer $main::token, Basic dXNlcjpwYXNz", "Bearer $main::token,", "Bearer ,$main::token", "Bearer $main::token ,",
 "Bearer $main::token $main::token", "Bearer $main::token x", "Bearer x $main::token", "Bearer $main::token\t$main::token",
 "Bearer Bearer $main::token", "Bearer $main::token; charset=utf-8", "Bearer $main::token|$main::token")]
--- error_code eval
[(401) x 13]
--- response_headers eval
[("X-Status: malformed\n$main::invalid") x 13]
--- error_log
access token is malformed
--- no_error_log
[error]
[crit]
[alert]



=== TEST 11: quotes, parameters and characters outside the alphabet are malformed
--- request eval
[("GET /t") x 16]
--- more_headers eval
[main::bearer("\"$main::token\"", "'$main::token'", "<$main::token>", "[$main::token]", "{$main::token}",
 "token=\"$main::token\"", "access_token=$main::token", "realm=\"API\"", "%20$main::token", "$main::token%0a",
 "$main::token\\", "$main::token?", "$main::token#", "=$main::token", "abcdefgh=ijklmnop", "abcdefghijklmnop==x")]
--- error_code eval
[(401) x 16]
--- response_headers eval
[("X-Status: malformed\n$main::invalid") x 16]
--- error_log
access token is malformed
--- no_error_log
[error]
[crit]
[alert]



=== TEST 12: a value that is too short or too long is malformed
--- request eval
[("GET /t") x 9]
--- more_headers eval
[main::bearer("x", "null", "undefined", "abcdefghijklmno", "L" x 513, "L" x 1024, "L" x 7000, "=" x 16, "=" x 512)]
--- error_code eval
[(401) x 9]
--- response_headers eval
[("X-Status: malformed\n$main::invalid") x 9]
--- error_log
access token is malformed
--- no_error_log
[error]
[crit]
[alert]



=== TEST 13: control characters and bytes beyond ASCII are malformed, wherever they are
--- request eval
[("GET /t") x 14]
--- more_headers eval
[main::header("Bearer \x01$main::token", "Bearer\x01$main::token", "Bearer $main::token\x01", "Bearer $main::token\x0b",
 "Bearer $main::token\x0c", "Bearer $main::token\x1b[0m", "Bearer $main::token\x7f", "Bearer $main::token\x08",
 "Bearer\x0b$main::token", "Bearer abcdefgh\x1fijklmnop", "Bearer abcdefgh\x80ijklmnop", "Bearer abcdefgh\xffijklmnop",
 "Bearer\xc2\xa0$main::token", "Bearer abcdefgh\xc3\xa9ijklmnop")]
--- error_code eval
[(401) x 14]
--- response_headers eval
[("X-Status: malformed\n$main::invalid") x 14]
--- error_log
access token is malformed
--- no_error_log
[error]
[crit]
[alert]



=== TEST 14: nginx itself refuses two Authorization headers, in whatever order and case
--- request eval
[("GET /t") x 7]
--- more_headers eval
["Authorization: Bearer $main::token\nAuthorization: Bearer $main::token",
 "Authorization: Bearer $main::token\nAuthorization: Basic dXNlcjpwYXNz",
 "Authorization: Basic dXNlcjpwYXNz\nAuthorization: Bearer $main::token",
 "Authorization: Bearer $main::token\nX-Foo: bar\nauthorization: Bearer $main::shortest",
 "AUTHORIZATION: Bearer $main::token\n" . ("X-Foo: bar\n" x 60) . "authorization: Bearer $main::token",
 "Authorization: Bearer $main::token\nAuthorization:",
 "Authorization:\nAuthorization: Bearer $main::token"]
--- error_code eval
[(400) x 7]
--- response_headers eval
[("WWW-Authenticate:") x 7]
--- error_log
client sent duplicate header line
--- no_error_log
[error]
[crit]
[alert]



=== TEST 15: blanks before the scheme are ignored
--- raw_request eval
"GET /t HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization:      Bearer $main::token\r\n\r\n"
--- error_code: 204
--- response_headers
X-Status: ok
WWW-Authenticate:
--- no_error_log
[error]
[crit]
[alert]



=== TEST 16: tabs before the scheme and behind the token are ignored
--- raw_request eval
"GET /t HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization:\t \tBearer $main::token \t\r\n\r\n"
--- error_code: 204
--- response_headers
X-Status: ok
WWW-Authenticate:
--- no_error_log
[error]
[crit]
[alert]



=== TEST 17: a value of nothing but tabs and blanks is no token
--- raw_request eval
"GET /t HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: \t \t \r\n\r\n"
--- error_code: 401
--- response_headers eval
"X-Status: missing\n$main::challenge"
--- no_error_log
[error]
[crit]
[alert]



=== TEST 18: lines that end without a carriage return, and HTTP/1.0, make no difference
--- raw_request eval
"GET /t HTTP/1.0\nAuthorization: Bearer $main::token\n\n"
--- error_code: 204
--- response_headers
X-Status: ok
--- no_error_log
[error]
[crit]
[alert]



=== TEST 19: nginx itself refuses a NUL, before anybody is asked
--- raw_request eval
"GET /t HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer $main::token\0\r\n\r\n"
--- error_code: 400
--- no_error_log
[error]
[crit]
[alert]



=== TEST 20: nginx itself refuses a header that is folded
--- raw_request eval
"GET /t HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer\r\n $main::token\r\n\r\n"
--- error_code: 400
--- no_error_log
[error]
[crit]
[alert]



=== TEST 21: a blank between the name of the header and its colon does not let anybody in
--- raw_request eval
"GET /t HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization : Bearer $main::token\r\n\r\n"
--- error_code: 400
--- no_error_log
[crit]
[alert]



=== TEST 22: a token in the query or in the body of a form is not looked at
--- request eval
["GET /t?access_token=$main::token", "POST /t\naccess_token=$main::token"]
--- more_headers eval
["X-Foo: bar", "Content-Type: application/x-www-form-urlencoded"]
--- error_code eval
[401, 401]
--- response_headers eval
[("X-Status: missing\n$main::challenge") x 2]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 23: the text of a token is never logged, whether it is good, unknown or malformed
--- log_level: info
--- request eval
[("GET /t") x 3]
--- more_headers eval
[main::bearer($main::token, "${main::token}0", "$main::token,")]
--- error_code eval
[204, 401, 401]
--- no_error_log eval
[$main::token, '[error]', '[crit]', '[alert]']



=== TEST 24: a scheme that goes on behind Bearer, with whatever a scheme may have, is another one
--- request eval
[("GET /t") x 15]
--- more_headers eval
[map { "Authorization: Bearer$_ $main::token" } split //, q(!#$%&'*+-.^_`|~)]
--- error_code eval
[(401) x 15]
--- response_headers eval
[("X-Status: missing\n$main::challenge") x 15]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 25: no other printable character of ASCII may be part of a token
--- request eval
[("GET /t") x 25]
--- more_headers eval
[map { "Authorization: Bearer abcdefgh${_}ijklmnop" } split //, q(!"#$%&'()*,:;<=>?@[]^`{|})]
--- error_code eval
[(401) x 25]
--- response_headers eval
[("X-Status: malformed\n$main::invalid") x 25]
--- no_error_log
[error]
[crit]
[alert]
