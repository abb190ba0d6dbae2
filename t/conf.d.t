# conf.d in a real nginx: that it loads as it is on Debian, and does what its comments say.
#
# What can't be there on a test machine is replaced in a copy: addresses, certificates, log files, the upstream, the
# store. The upstream is a server in this file, which answers with what it was sent.

use strict;
use warnings;

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;

use AuthPat::Server qw(slurp);
use AuthPat::Site qw(bearer header make_store);
use AuthPat::Upstream;
use Test::More;
use Time::HiRes qw(sleep time);

my $store = store_path('api');

# A site that has auth_pat, and nothing of what could be forgotten. Its only file would take hours.
my $plain_port = AuthPat::Server::free_port();
write_file(scratch() . '/long', 'x' x 10_000_000);
my $site = AuthPat::Site->new(keeps_count => 1, http => "server { listen 127.0.0.1:$plain_port; auth_pat plain; "
    . "auth_pat_store $store; access_log off; root ${\ scratch()}; limit_rate 1k; limit_rate_after 1k; }");

my $folder  = "$site->{root}/logs";
my $uploads = scratch() . '/uploads';
mkdir $uploads or die "$uploads: $!\n";

my $upstream = AuthPat::Upstream->new(
    port   => $site->port(8080),
    answer => sub {
        my ($head, $size) = @_;
        my ($status, $headers, $body) = AuthPat::Upstream::echo($head, $size);
        return ($head =~ m{^\S+ /status_(\d+)} ? "$1 As You Wish" : $status, $headers, $body);
    },
    arrived => sub {
        my ($path, $size) = @_;
        my $file = "$uploads/" . $path =~ s{^/}{}r =~ tr{/}{_}r;
        write_file("$file.new", $size);
        rename "$file.new", $file;
    },
);

sub wait_for {
    my ($what, $condition) = @_;
    my $result = AuthPat::Server::wait_for($condition);
    return $result || fail("$what in time");
}

sub request {
    my ($path, @options) = @_;
    return $site->request($path =~ /^http/ ? $path : "https://api.referon.com$path", @options);
}

sub sent {
    my ($answer, $name) = @_;
    return join ' | ', $answer->{body} =~ /^\Q$name\E: (.*?)\r?$/mig;
}

sub is_error {
    my ($answer, $status, $error, $name) = @_;
    is($answer->{status}, $status, "$name: $status");
    is(header($answer, 'Content-Type'), 'application/json', "$name: application/json");
    like($answer->{body}, qr/^\{"error":"\Q$error\E","message":"[^"]+"\}$/, "$name: $error");
    is(header($answer, 'Cache-Control'), 'no-store', "$name: not to be cached");
    like(header($answer, 'X-Request-ID'), qr/^[0-9a-f]{32}$/, "$name: an id");
    return;
}

# ---- the configuration as such

my ($status, $loaded, $said) = $site->dump;
is($status, 0, 'nginx -T') or BAIL_OUT($said);
is_deeply([sort keys %$loaded], [sort grep { !m{^snippets/auth-pat-(?:cors|grpc|fastcgi|uwsgi|scgi|source)\.conf$} } keys %{ $site->{files} }],
    'every file but the recipes and what they alone include is loaded, by Debian\'s include of conf.d/*.conf');
like($said, qr/\[warn\].*there is no store/, 'a store that is not there yet is a warning');
unlike($said, qr/\[(?:emerg|alert|crit|error)\]/, 'and nothing is worse');

$site->start;

# ---- before there is a store

my $answer = request('/v1/things', bearer('ropat_' . 'a' x 38));
is_error($answer, 401, 'token_invalid', 'without a store, junk');

# The checksum of this one is right.
my $elsewhere = new_store('elsewhere');
my $foreign   = issue($elsewhere, '--subject', 'eve', '--scope', 'api:read');
$answer = request('/v1/things', bearer($foreign));
is_error($answer, 503, 'unavailable', 'without a store');
is(header($answer, 'Retry-After'), '1',  'without a store: one Retry-After');
is(header($answer, 'WWW-Authenticate'), '', 'without a store: no challenge');

make_store('api');
my $token = issue($store, '--subject', 'user:42', '--name', 'shop', '--scope', 'api:read', '--scope', 'csv:write');
my ($id)  = patctl($store, 'list', '--json') =~ /"id":"([^"]+)"/;

wait_for('the store is found', sub { request('/v1/things', bearer($token))->{status} == 200 });

# ---- who is let in, and what the upstream is told

$answer = request('/v1/things?page=2', bearer($token));
is($answer->{status}, 200, 'a good token: 200');
is($answer->{version}, 2, 'a good token: HTTP/2');
like($answer->{body}, qr{^GET /v1/things\?page=2 HTTP/1\.1}, 'a good token: the upstream gets the request');
is(sent($answer, 'Authorization'), '', 'the upstream does not get the token');
unlike($answer->{body}, qr/\Q$token\E/, 'in no header');
is(sent($answer, 'X-Auth-Pat-Id'), $id, 'but its id');
is(sent($answer, 'X-Auth-Pat-Subject'), 'user:42', 'its subject');
is(sent($answer, 'X-Auth-Pat-Name'), 'shop', 'its name');
is(sent($answer, 'X-Auth-Pat-Scope'), 'api:read csv:write', 'its scopes');
like(sent($answer, 'X-Auth-Pat-Expires'), qr/^\d{10}$/, 'and when it expires');
is(sent($answer, 'Host'), 'api.referon.com', 'the Host');
is(sent($answer, 'X-Real-IP'), '127.0.0.1', 'and the address');
is(sent($answer, 'X-Forwarded-Proto'), 'https', 'and the scheme');
like(sent($answer, 'X-Request-ID'), qr/^[0-9a-f]{32}$/, 'and an id of the request');

my @spoofed = map { ('-H', $_) } 'X-Auth-Pat-Id: pat_admin', 'x-auth-pat-subject: admin', 'X-AUTH-PAT-NAME: admin',
    'X-Auth-Pat-Scope: admin', 'X-Auth-Pat-Expires: 0', 'X_Auth_Pat_Subject: admin', 'X-Forwarded-For: 192.0.2.9',
    'X-Real-IP: 192.0.2.9', 'Forwarded: for=192.0.2.9', 'X-Forwarded-Host: evil.example', 'X-Forwarded-Proto: admin';
$answer = request('/v1/things', bearer($token), '--http1.1', @spoofed, '-H', 'Connection: X-Auth-Pat-Subject');
is($answer->{status}, 200, 'identity headers from the client: 200');
is(sent($answer, 'X-Auth-Pat-Subject'), 'user:42', 'the upstream gets its own subject, once');
unlike($answer->{body}, qr/admin|192\.0\.2\.9|evil/, 'and nothing of what the client made up');
is(sent($answer, 'Connection'), '', 'the upstream is not asked to drop headers');

my $bare = issue($store, '--subject', 'user:43', '--scope', 'api:read', '--no-expiry');
$answer = request('/v1/things', bearer($bare), @spoofed);
is(sent($answer, 'X-Auth-Pat-Name') . sent($answer, 'X-Auth-Pat-Expires'), '',
    'a header that the token has no value for is not sent, and the client\'s is dropped');

# ---- who is not

$answer = request('/v1/things');
is_error($answer, 401, 'token_missing', 'no token');
is(header($answer, 'WWW-Authenticate'), 'Bearer realm="api.referon.com"', 'no token: the challenge');
my $refused_as = header($answer, 'X-Request-ID');

$answer = request('/v1/things', bearer($foreign));
is_error($answer, 401, 'token_invalid', 'unknown token');
like(header($answer, 'WWW-Authenticate'), qr/error="invalid_token"/, 'unknown token: the challenge');

$answer = request('/v1/things', bearer(substr $token, 0, -1));
is_error($answer, 401, 'token_invalid', 'malformed token');

$answer = request("/v1/things?token=$token&access_token=$token", '-H', "Cookie: token=$token", '-H',
    "Referer: https://api.referon.com/?token=$token");
is_error($answer, 401, 'token_missing', 'a token in the query and in a cookie');

my $revoked = issue($store, '--subject', 'user:44', '--scope', 'api:read');
is(request('/v1/things', bearer($revoked))->{status}, 200, 'before its revocation: 200');
patctl($store, 'revoke', '--subject', 'user:44');
$answer = request('/v1/things', bearer($revoked));
is_error($answer, 401, 'token_revoked', 'revoked token');
patctl($store, 'restore-access', '--subject', 'user:44');
is(request('/v1/things', bearer($revoked))->{status}, 200, 'restored: 200');

my $early = issue($store, '--subject', 'user:45', '--not-before', int(time) + 3600);
is_error(request('/v1/things', bearer($early)), 401, 'token_not_yet_valid', 'early token');

my $short = issue($store, '--subject', 'user:46', '--expires-in', '1s');
my $issued = int time;
wait_for('the token expires', sub { time >= $issued + 2 });
is_error(request('/v1/things', bearer($short)), 401, 'token_expired', 'expired token');

my $far = issue($store, '--subject', 'user:47', '--scope', 'api:read', '--cidr', '192.0.2.0/24');
is_error(request('/v1/things', bearer($far)), 403, 'address_denied', 'wrong address');

$answer = request('/v1/things', bearer($token), '-d', '{}');
is_error($answer, 403, 'scope_denied', 'POST with api:read');
like(header($answer, 'WWW-Authenticate'), qr/error="insufficient_scope", scope="api:write"/, 'which names the scope');

is(request('/v1/things', bearer($token), '-I')->{status}, 200, 'HEAD with api:read: 200');
is(request('/v1/things', '-I')->{status}, 401, 'HEAD without a token: 401');

my $writer = issue($store, '--subject', 'user:48', '--scope', 'api:write', '--scope', 'postback:write', '--scope',
    'csv:read');
for my $case (
    [200, $writer, 'POST /v1/things with api:write',  '/v1/things',   '-d', '{}'],
    [200, $writer, 'DELETE with api:write',           '/v1/things',   '-X', 'DELETE'],
    [200, $writer, 'an unusual method with api:write', '/v1/things',  '-X', 'PURGE'],
    [403, $writer, 'GET without api:read',            '/v1/things'],
    [200, $writer, 'GET /csv-consumer/ with csv:read', '/csv-consumer/'],
    [403, $writer, 'POST /csv-consumer/ with csv:read', '/csv-consumer/', '-d', 'a;b'],
    [200, $token,  'POST /csv-consumer/ with csv:write', '/csv-consumer/', '-d', 'a;b'],
    [403, $token,  'GET /csv-consumer/ with csv:write', '/csv-consumer/'],
    [200, $writer, 'POST /postback-events-consumer/ with its scope', '/postback-events-consumer/', '-d', '{}'],
    [403, $token,  'POST /postback-events-consumer/ without it', '/postback-events-consumer/', '-d', '{}'],
) {
    my ($status, $with, $name, @request) = @$case;
    is(request(shift @request, bearer($with), @request)->{status}, $status, "$name: $status");
}

# ---- the upstream's own errors, and its absence

$answer = request('/status_403', bearer($token));
is($answer->{status}, 403, 'an error of the upstream keeps its status');
like($answer->{body}, qr{^GET /status_403}, 'and its body');

# ---- uploads

my $csv = scratch() . '/big.csv';
write_file($csv, 'name;amount;when;' x (8 << 16));
my $size = -s $csv;

$answer = request('/csv-consumer/big', bearer($token), '-T', $csv);
is($answer->{status}, 200, "an upload of $size bytes: 200");
like($answer->{body}, qr/^body: $size bytes$/m, 'which arrives whole');

for my $case (
    ['no token',      'token_missing'],
    ['unknown token', 'token_invalid', bearer($foreign)],
    ['token without the scope', 'scope_denied', bearer($writer)],
) {
    my ($name, $error, @options) = @$case;
    $answer = request('/csv-consumer/none', @options, '--http1.1', '-T', $csv, '-H', 'Expect: 100-continue',
        '--expect100-timeout', 20);
    is_error($answer, $error eq 'scope_denied' ? 403 : 401, $error, "an upload, $name");
    is($answer->{uploaded}, 0, "an upload, $name: nothing of the body was sent");
    unlike($answer->{head}, qr/100 Continue/, "an upload, $name: nor asked for");
}
ok(!-e "$uploads/csv-consumer_none", 'the upstream has seen none of these');

{
    my $head = scratch() . '/curl.streamed';
    open my $curl, '|-', 'curl', '-q', '-sk', '--max-time', 120, '--noproxy', '*', '--connect-to',
        "api.referon.com:443:127.0.0.1:${\ $site->port(443)}", bearer($token), '-o', $head, '-T', '-',
        "https://api.referon.com/csv-consumer/streamed"
        or die "curl: $!\n";
    $curl->autoflush(1);
    print {$curl} 'x' x 1000;
    my $seen = wait_for('the upstream gets a part', sub { slurp("$uploads/csv-consumer_streamed") });
    is($seen, 1000, 'the upstream gets a part of an upload before the rest has been sent');
    print {$curl} 'y' x 1000;
    close $curl;
    like(slurp($head), qr/^body: 2000 bytes$/m, 'and then the rest');
}

$answer = request('/postback-events-consumer/e', bearer($writer), '--data-binary', 'x' x 65536);
is($answer->{status}, 200, 'an event of 64 KiB: 200');
like($answer->{body}, qr/^body: 65536 bytes$/m, 'which arrives whole');
is_error(request('/postback-events-consumer/e', bearer($writer), '--data-binary', 'x' x 65537), 413, 'too_large',
    'a larger event');
is_error(request('/postback-events-consumer/e', '--data-binary', 'x' x 65537), 413, 'too_large',
    'a larger event without a token');
is_error(request('/postback-events-consumer/e', bearer($writer), '--http1.1', '-H', 'Transfer-Encoding: chunked',
    '--data-binary', 'x' x 70000), 413, 'too_large', 'a larger event whose length is not announced');
is_error(request('/postback-events-consumer/e', '--http1.1', '-H', 'Transfer-Encoding: chunked',
    '--data-binary', 'x' x 70000), 401, 'token_missing', 'the same without a token');

# ---- the rest

is(request('/healthz')->{status}, 204, '/healthz without a token: 204');

$answer = request('http://api.referon.com/v1/things', bearer($token));
is($answer->{status}, 403, 'plain HTTP: 403');
like($answer->{body}, qr/^\{"error":"tls_required",/, 'plain HTTP: JSON');

mkdir $_ or die "$_: $!\n" for map { "$site->{root}/html/.well-known$_" } '', '/acme-challenge';
write_file("$site->{root}/html/.well-known/acme-challenge/1", "challenge\n");
$answer = request('http://api.referon.com/.well-known/acme-challenge/1');
is("$answer->{status} $answer->{body}", "200 challenge\n", 'what certbot puts there is served by plain HTTP');

# ---- 429

my $busy = issue($store, '--subject', 'user:49', '--scope', 'api:read');
$answer = request('/v1/things?[1-60]', bearer($busy));
is_error($answer, 429, 'too_many_requests', 'too many requests');
is(header($answer, 'Retry-After'), '1', 'too many requests: Retry-After');
is_deeply([request('/v1/things?[1-20]', bearer($bare))->{all} =~ /^(\d+)/mg], [(200) x 20],
    'another token has a limit of its own');
is_deeply([request('/v1/things?[1-80]')->{all} =~ /^(\d+)/mg], [(401) x 80],
    'a request without a token is not counted');

# ---- for this host only

$answer = $site->request('http://localhost:8081/status', '-H', 'Accept: application/json');
is($answer->{status}, 200, '/status: 200');
like($answer->{body}, qr/"path": ?"\Q$store\E"/, '/status knows the store');
wait_for('/status counts', sub {
    $site->request('http://localhost:8081/status', '-H', 'Accept: application/json')->{body} =~ /"revoked": ?[1-9]/;
});
$answer = $site->request('http://localhost:8081/usage?after=0');
is($answer->{status}, 200, '/usage: 200');
like($answer->{body}, qr/^\{"id":"\Q$id\E","at":\d+,"from":"127\.0\.0\.1","count":\d+\}$/m, '/usage knows who was let in');

{
    my $doomed = issue($store, '--subject', 'user:50', '--scope', 'csv:write');
    open my $curl, '|-', 'curl', '-q', '-sk', '--max-time', 120, '--noproxy', '*', '--connect-to',
        "api.referon.com:443:127.0.0.1:${\ $site->port(443)}", bearer($doomed), '-o', '/dev/null', '-T', '-',
        'https://api.referon.com/csv-consumer/doomed'
        or die "curl: $!\n";
    $curl->autoflush(1);
    print {$curl} 'x';
    wait_for('an upload begins', sub { -e "$uploads/csv-consumer_doomed" });
    patctl($store, 'revoke', '--subject', 'user:50');
    ok(AuthPat::Server::wait_for(sub { slurp("$folder/api.referon.com.access.log") =~ m{/csv-consumer/doomed .* revoked } }),
        'an upload ends after the revocation of its token');
    close $curl;
}

{
    my $doomed = issue($store, '--subject', 'user:51');
    my $stays  = issue($store, '--subject', 'user:52');
    my ($ended, $going) = map {
        my $socket = $site->connect($plain_port);
        syswrite $socket, "GET /long HTTP/1.1\r\nHost: plain\r\nAuthorization: Bearer $_\r\n\r\n";
        like(AuthPat::Server::read_until($socket, qr/\r\n\r\nx/), qr{^HTTP/1\.1 200 }, 'an answer begins');
        $socket;
    } $doomed, $stays;
    patctl($store, 'revoke', '--subject', 'user:51');
    AuthPat::Server::read_until($ended, qr/never/);
    ok(eof $ended, 'an answer ends after the revocation of its token, in a server that has no directive for that');
    like(AuthPat::Server::read_until($going, qr/x{2000}/), qr/x{2000}/, 'that of another token goes on');
}

# ---- logs

my $log = slurp("$folder/api.referon.com.access.log");
like($log, qr{^127\.0\.0\.1 \[[^]]+\] "GET /v1/things HTTP/2\.0" 200 \d+ ok "\Q$id\E" [\d.]+ "curl[^"]*" [0-9a-f]{32}$}m,
    'the access log has status and id');
like($log, qr{" 401 \d+ missing .* \Q$refused_as\E$}m, 'and the id that the client got with an error');
like($log, qr{"GET /v1/things HTTP/2\.0" 401 \d+ missing "-"}, 'of refused requests, too');
like($log, qr{ 401 \d+ revoked "pat_\w+"}, 'with the id of a revoked token');
like($log, qr{ 429 \d+ ok "pat_\w+"}, 'and of one that is limited');
unlike($log, qr/healthz/, 'without the load balancer\'s questions');
for ([token => $token], [revoked => $revoked], [foreign => $foreign], [busy => $busy]) {
    my ($name, $secret) = @$_;
    unlike($log, qr/\Q${\ substr $secret, 0, 20}/, "the access log does not have the $name token");
}
is(slurp("$folder/access.log"), '', 'nothing goes to the access log of http');
unlike(slurp("$folder/error.log"), qr/\[(?:emerg|alert)\]|worker process \d+ exited on signal/, 'no worker was lost');

done_testing();
