# Uploads: a dead token is refused before the body, whatever way the body is announced, and a good one gets it through.

use strict;
use warnings;
use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use AuthPat::Server qw(wait_for slurp);
use Test::More;

my $store   = new_store('main');
my $token   = issue($store, '--subject', 'alice', '--scope', 'read');
my $revoked = issue($store, '--subject', 'mallory');
patctl($store, 'revoke', '--subject', 'mallory');
my $missing = store_path('missing');

my $server = AuthPat::Server->new(http => <<"END");
client_header_timeout 20s;
client_body_timeout 20s;
lingering_close off;
auth_pat_store $store;
server {
    listen 127.0.0.1:\$PORT;
    client_max_body_size 1m;
    auth_pat API;
    location /upload { proxy_pass http://127.0.0.1:\$PORT2; }
    location /scope { auth_pat_require_scope write; proxy_pass http://127.0.0.1:\$PORT2; }
    location /missing { auth_pat_store $missing; proxy_pass http://127.0.0.1:\$PORT2; }
    location /unbuffered { proxy_request_buffering off; proxy_http_version 1.1; proxy_pass http://127.0.0.1:\$PORT2; }
    location /dav { client_max_body_size 0; dav_methods PUT; }
    location /json { error_page 401 \@json; proxy_pass http://127.0.0.1:\$PORT2; }
    location /page { error_page 401 /401; proxy_pass http://127.0.0.1:\$PORT2; }
    location = /401 { auth_pat off; internal; return 401 "page"; }
    location /basic { satisfy any; auth_basic people; auth_basic_user_file \$ROOT/users; proxy_pass http://127.0.0.1:\$PORT2; }
    location \@json { return 401 '{}'; }
    location /equals { error_page 401 = \@json; proxy_pass http://127.0.0.1:\$PORT2; }
    location /small { client_max_body_size 10; proxy_pass http://127.0.0.1:\$PORT2; }
}
server {
    listen 127.0.0.1:\$PORT2;
    client_max_body_size 0;
    location / { proxy_pass http://127.0.0.1:\$PORT2/length/; client_body_buffer_size 2m; }
    location /length/ { return 200 "length=\$content_length;\$http_transfer_encoding"; }
}
END
write_file("$server->{root}/users", "bob:{PLAIN}secret\n");
$server->start;

my $good = "Authorization: Bearer $token";
my $bad  = "Authorization: Bearer $revoked";
my $none = 'X-Nothing: here';

sub head {
    my ($line, @headers) = @_;
    return join "\r\n", "$line HTTP/1.1", 'Host: localhost', @headers, '', '';
}

# Sends the head of a request only: (the first answer, the connection).
sub send_head {
    my $socket = $server->connect or die "connect: $!\n";
    return (AuthPat::Server::exchange($socket, head(@_)), $socket);
}

my @expect = ('Expect: 100-continue', 'Content-Length: 500000000');

for my $case (
    ['a revoked token',         401, '/upload',     $bad],
    ['no token',                401, '/upload',     $none],
    ['an unknown token',        401, '/upload',     'Authorization: Bearer 0123456789abcdef0123'],
    ['a malformed header',      401, '/upload',     'Authorization: Bearer'],
    ['a missing scope',         403, '/scope',      $good],
    ['a store that is missing', 503, '/missing',    $good],
    ['a dead token, unbuffered', 401, '/unbuffered', $bad],
    ['a dead token and PUT',    401, '/dav/file',   $bad],
    ['a dead token and a JSON answer', 401, '/json', $bad],
    ['a dead token and a page', 401, '/page',       $bad],
) {
    my ($what, $status, $path, $header) = @$case;
    my $method = $path =~ /dav/ ? 'PUT' : 'POST';
    # Nothing of the body is ever sent: an nginx that waited for it would time out here.
    for my $way (['Expect: 100-continue', 'Content-Length: 500000'], ['Content-Length: 500000'],
                 ['Expect: 100-continue', 'Transfer-Encoding: chunked'], ['Transfer-Encoding: chunked']) {
        my ($answer, $socket) = send_head("$method $path", $header, @$way);
        is $answer->{status}, $status, "$what is refused before the body (@$way)";
        unlike $answer->{headers} . $answer->{body} . AuthPat::Server::read_until($socket, qr/x\A/, 0.02),
            qr/100 Continue/i, "$what is not told to continue (@$way)";
    }
}

# The body's size is looked at before the phases, so the answer may be 413; a token is not needed to learn the limit.
{
    my ($answer) = send_head('POST /upload', $bad, @expect);
    is $answer->{status}, 413, 'a body over client_max_body_size is refused as such, as nginx does before the access phase';
    unlike $answer->{headers}, qr/WWW-Authenticate|100 Continue/, 'and neither challenged nor continued';

    ($answer) = send_head('PUT /dav/big', $bad, @expect);
    is $answer->{status}, 401, 'where there is no limit half a gigabyte is refused before the body';

    ($answer) = send_head('POST /small', $good, 'Content-Length: 11');
    is $answer->{status}, 413, 'a good token does not help against client_max_body_size';

    ($answer) = send_head('POST /small', $bad, 'Transfer-Encoding: chunked');
    is $answer->{status}, 401, 'a chunked body of unknown size is refused for its token';
}

# With a good token the body is asked for, and gets there.
for my $path ('/upload', '/unbuffered') {
    my ($answer, $socket) = send_head("POST $path", $good, 'Expect: 100-continue', 'Content-Length: 300000');
    is $answer->{status}, 100, "a good token with Expect is told to continue ($path)";
    $answer = AuthPat::Server::exchange($socket, 'x' x 300000);
    is $answer->{status}, 200, "and its body gets through ($path)";
    like $answer->{body}, qr/length=300000;/, "all of it ($path)";

    ($answer, $socket) = send_head("POST $path", $good, 'Expect: 100-continue', 'Transfer-Encoding: chunked');
    is $answer->{status}, 100, "a good token with Expect and a chunked body is told to continue ($path)";
    $answer = AuthPat::Server::exchange($socket, join '', map({ "3e8\r\n" . 'y' x 1000 . "\r\n" } 1 .. 20), "0\r\n\r\n");
    is $answer->{status}, 200, "and its chunks get through ($path)";
    like $answer->{body}, qr/length=20000;|length=;chunked/, "all of them ($path)";
}

{
    my $socket = $server->connect;
    my $answer = AuthPat::Server::exchange($socket, head('PUT /dav-none', $good, 'Content-Length: 5') . 'hello');
    isnt $answer->{status}, 401, 'a good token is not refused with PUT';

    $answer = AuthPat::Server::exchange($server->connect, head('POST /basic', $none, $expect[0], 'Content-Length: 5'));
    is $answer->{status}, 401, 'with satisfy any the body is not asked for either where all refuse';
    unlike $answer->{headers}, qr/100 Continue/, 'and the client is not told to continue';

    $socket = $server->connect;
    $answer = AuthPat::Server::exchange($socket,
        head('POST /basic', 'Authorization: Basic Ym9iOnNlY3JldA==', 'Expect: 100-continue', 'Content-Length: 5'));
    is $answer->{status}, 100, 'with satisfy any a body is asked for where another lets in after auth_pat refused';
    $answer = AuthPat::Server::exchange($socket, 'hello');
    is $answer->{status}, 200, 'and it gets through';
    unlike $answer->{headers}, qr/WWW-Authenticate/, 'without a challenge';
}

# `error_page 401 = @json` with return: nginx forgets that the client still waits, unless told by a status.
{
    my ($answer) = send_head('POST /equals', $bad, 'Expect: 100-continue', 'Content-Length: 500000');
    is $answer->{status}, 401, 'a page with an equals sign does not ask for the body of a dead token either';
}

# The body that comes anyway is read away or cut off, and never taken for the next request.
{
    my $smuggled = head('GET /upload', $good);
    my $socket   = $server->connect;
    my $first    = AuthPat::Server::exchange($socket, head('POST /upload', $bad, 'Content-Length: ' . length $smuggled) . $smuggled);
    is $first->{status}, 401, 'a dead token with a body is refused';
    my $second = AuthPat::Server::exchange($socket, head('GET /upload', $good));
    is $second->{status}, 200, 'the connection goes on after the body was read away';
    is AuthPat::Server::read_until($socket, qr/./, 0.05), '', 'and the body was not taken for a request';
}
{
    my $socket = $server->connect;
    my $first  = AuthPat::Server::exchange($socket, head('POST /upload', $bad, 'Transfer-Encoding: chunked') . "5\r\nhello\r\n0\r\n\r\n");
    is $first->{status}, 401, 'a dead token with a chunked body is refused';
    is AuthPat::Server::exchange($socket, head('GET /upload', $good))->{status}, 200, 'the connection goes on after the chunks';
}
{
    my $socket = $server->connect;
    my @statuses;
    for (1 .. 10) {
        push @statuses, AuthPat::Server::exchange($socket, head('GET /upload', $bad))->{status},
            AuthPat::Server::exchange($socket, head('GET /upload', $good))->{status};
    }
    is "@statuses", join(' ', (401, 200) x 10), 'refused and allowed requests alternate on one connection';
}
{
    my $socket  = $server->connect;
    my $request = join '', map { head('GET /upload', $_) } $good, $bad, $none, $good;
    syswrite $socket, $request;
    my $text = AuthPat::Server::read_until($socket, qr/(?:HTTP\/1.1 \d+.*){4}length/s, 5);
    my @statuses = $text =~ m{HTTP/1\.1 (\d+)}g;
    is "@statuses", '200 401 401 200', 'pipelined requests are decided one by one';
}
{
    # t/parked.t has more of these.
    my $other = issue($store, '--subject', 'bob');
    my ($answer, $socket) = send_head('POST /upload', "Authorization: Bearer $other", 'Expect: 100-continue', 'Content-Length: 100');
    is $answer->{status}, 100, 'the body of a token that is good is asked for';
    patctl($store, 'revoke', '--subject', 'bob');
    $answer = AuthPat::Server::exchange($socket, 'z' x 100);
    is $answer->{status}, 401, 'but a token that is revoked during its upload does not get it through';
}

my @bodies = grep { -f } glob "$server->{root}/client_body/*";
is "@bodies", '', 'no body of anybody was left on disk';
ok $server->log !~ /\[(?:alert|emerg)\]|signal \d/, 'nothing broke';
ok $server->log !~ /\Q$token\E|\Q$revoked\E/, 'no token is in the log';

done_testing;
