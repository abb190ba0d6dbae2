# Requests that nginx answers before the access phase: nobody was let in, so the log names nobody. And CONNECT, which no
# token opens.

use strict;
use warnings;
use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use AuthPat::Http2 qw(headers listen_http2 open_http2 read_frames);
use AuthPat::Server qw(make_certificate slurp wait_for);
use AuthPat::Upstream;
use Test::More;

my $store = new_store('main');
my $token = issue($store, '--subject', 'alice', '--name', 'laptop', '--claim', 'plan=pro');
my $good  = "Authorization: Bearer $token";

my $http2 = listen_http2('$PORT2');
my $has_tunnel = `strings -a \$(command -v $AuthPat::NGINX) 2>/dev/null || cat \$(command -v $AuthPat::NGINX)` =~ /tunnel_pass/;
my $upstream_port = AuthPat::Server::free_port();
my $tunnel = $has_tunnel ? "tunnel_pass 127.0.0.1:$upstream_port;" : 'try_files /nowhere =204;';
my $location_port = AuthPat::Server::free_port();
my $open_port     = AuthPat::Server::free_port();
my $guarded_port  = AuthPat::Server::free_port();
my $shut_port     = AuthPat::Server::free_port();
my $dry_port      = AuthPat::Server::free_port();
my $tls_port      = AuthPat::Server::free_port();

# Of the servers on one port, "asking" wants to know the client by a certificate.
my $has_tls = `$AuthPat::NGINX -V 2>&1` =~ /http_ssl_module/ && eval { require IO::Socket::SSL };
my $tls = '';
if ($has_tls) {
    my $folder = scratch();
    make_certificate($folder, 'localhost');
    $tls = join '', map { <<"END" } ['plain', ''], ['asking', "ssl_verify_client on; ssl_client_certificate $folder/fullchain.pem;"];
server {
    listen 127.0.0.1:$tls_port ssl;
    server_name $_->[0];
    ssl_certificate $folder/fullchain.pem;
    ssl_certificate_key $folder/privkey.pem;
    $_->[1]
    access_log \$ROOT/logs/access.log who;
    auth_pat API;
    add_header X-Told "told:\$auth_pat_status/\$auth_pat_subject." always;
    location / { add_header X-Told ""; try_files /nowhere =204; }
}
END
}

# Three servers, and all once more for headers that never end, whose second would be too short for other requests.
my @late_ports = map { AuthPat::Server::free_port() } 1 .. 3;
my @late       = map { "listen 127.0.0.1:$_; client_header_timeout 1s;" } @late_ports;
my @listen     = ("listen 127.0.0.1:\$PORT; $http2", "listen 127.0.0.1:$location_port;", "listen 127.0.0.1:$guarded_port;");
my @servers    = map { <<"END" } \@listen, \@late;
server {
    $_->[0]
    access_log \$ROOT/logs/access.log who;
    auth_pat API;
    add_header X-Told "told:\$auth_pat_status/\$auth_pat_subject." always;
    location = /t        { add_header X-Told ""; try_files /nowhere =204; }
    location = /return   { add_header X-Told ""; return 200 "nothing"; }
    location = /header   { return 403; }
    location = /says     { add_header X-Told ""; return 200 "told:\$auth_pat_status/\$auth_pat_subject."; }
    location = /if       { add_header X-Told ""; if (\$auth_pat_subject = alice) { return 403; } try_files /nowhere =204; }
    location = /444      { return 444; }
    location = /limited  { add_header X-Told ""; limit_req zone=token; try_files /nowhere =204; }
    location = /broken   { add_header X-Told ""; rewrite ^ /elsewhere break; limit_req zone=token; try_files /nowhere =204; }
    location = /address  { add_header X-Told ""; limit_req zone=address; try_files /nowhere =204; }
    location = /off      { auth_pat off; try_files /nowhere =204; }
}
server {
    $_->[1]
    access_log \$ROOT/logs/access.log who;
    error_page 400 405 408 414 501 505 \@page;
    location \@page { return 400 "told:\$auth_pat_status/\$auth_pat_subject."; }
    location / { auth_pat API; try_files /nowhere =204; }
}
server {
    $_->[2]
    access_log \$ROOT/logs/access.log who;
    auth_pat API;
    error_page 400 408 414 501 505 /page;
    error_page 405 /required;
    location = /page     { root \$ROOT/html; }
    location = /required { auth_pat_require \$auth_pat_subject; root \$ROOT/html; }
    location = /status { auth_pat off; access_log off; auth_pat_status json; }
    location = /usage  { auth_pat off; access_log off; auth_pat_usage; }
}
END

my $server = AuthPat::Server->new(http => <<"END");
large_client_header_buffers 2 1k;
auth_pat_store $store;
auth_pat_zone pat:1m;
limit_req_zone \$auth_pat_id zone=token:1m rate=1r/m;
limit_req_zone \$binary_remote_addr zone=address:1m rate=1r/m;
limit_req_status 429;
log_format who '\$status \$auth_pat_status "\$auth_pat_id" "\$auth_pat_subject" "\$auth_pat_name" "\$auth_pat_claim_plan"';
@servers
server {
    listen 127.0.0.1:$shut_port;
    auth_pat API;
    location / { $tunnel }
}
server {
    listen 127.0.0.1:$open_port;
    location / { $tunnel }
}
server {
    listen 127.0.0.1:$dry_port;
    auth_pat API;
    auth_pat_dry_run on;
    location / { $tunnel }
}
$tls
END
write_file("$server->{root}/html/$_", "the page\n") for qw(page required);
my $upstream = AuthPat::Upstream->new(port => $upstream_port);
$server->start;

sub head {
    my ($line, @headers) = @_;
    return join "\r\n", $line, 'Host: localhost', @headers, '', '';
}

# What an exchange has the access log say.
sub logged_by {
    my ($exchange) = @_;
    my $log = "$server->{root}/logs/access.log";
    my $from = -s $log // 0;
    $exchange->();
    wait_for(sub { substr(slurp($log), $from) =~ /\n/ }, 10);
    return substr(slurp($log), $from) =~ s/\n\z//r;
}

my $nobody = '- "-" "-" "-" "-"';
my $first = logged_by(sub { is $server->status('/t', $good), 204, 'a good token' });
my ($id) = $first =~ /^204 ok "([^"]+)" "alice" "laptop" "pro"$/;
ok $id, 'is named in the log' or BAIL_OUT($first);

my %unread = (
    'two Authorization headers'      => [400, head('GET /t HTTP/1.1', $good, $good)],
    'another one that is good'       => [400, head('GET /t HTTP/1.1', 'Authorization: Basic eDp5', $good)],
    'a header that is too large'     => [400, head('GET /t HTTP/1.1', $good, 'X-Large: ' . 'x' x 2000)],
    'a bad Content-Length'           => [400, head('GET /t HTTP/1.1', $good, 'Content-Length: ten')],
    'two Content-Lengths'            => [400, head('POST /t HTTP/1.1', $good, 'Content-Length: 1', 'Content-Length: 1')],
    'a length and chunks'            => [400, head('POST /t HTTP/1.1', $good, 'Content-Length: 1', 'Transfer-Encoding: chunked')],
    'an unknown Transfer-Encoding'   => [501, head('POST /t HTTP/1.1', $good, 'Transfer-Encoding: zip')],
    'a second Host'                  => [400, head('GET /t HTTP/1.1', $good, 'Host: other')],
    'TRACE'                          => [405, head('TRACE /t HTTP/1.1', $good)],
    'headers that never end'         => [408, "GET /t HTTP/1.1\r\nHost: localhost\r\n$good\r\n"],
    'a bad request line'             => [400, "GET\r\n\r\n"],
    'a request line too large'       => [414, head('GET /t?' . 'x' x 2000 . ' HTTP/1.1', $good)],
    'a request line of HTTP/2'       => [505, head('GET /t HTTP/2.0', $good)],
);
# Of the three servers.
sub ports_for { return $_[0] =~ /never end/ ? @late_ports : ($server->{port}, $location_port, $guarded_port) }

for my $what (sort keys %unread) {
    my ($status, $request) = @{ $unread{$what} };
    my ($first_port, $named_port) = ports_for($what);
    for my $port ($first_port, $named_port) {
        my $answer;
        # nginx has no named location for a request without a path.
        my $logged = $port == $named_port && $what =~ /line/ ? 500 : $status;
        is logged_by(sub { $answer = AuthPat::Server::exchange($server->connect($port), $request) }), "$logged $nobody",
            "$what: the log names nobody, port $port";
        unlike $answer->{headers} . $answer->{body}, qr/told:(?!-\/\.)/, "$what: nor does the answer";
    }
}
SKIP: {
    skip 'nginx with TLS, and IO::Socket::SSL, are needed', 8 if !$has_tls;
    my $asks = sub {
        my ($sni, $host) = @_;
        my $socket = $server->connect($tls_port);
        if ($sni) {
            IO::Socket::SSL->start_SSL($socket, SSL_hostname => $sni, SSL_verify_mode => IO::Socket::SSL::SSL_VERIFY_NONE())
                or die "TLS: " . IO::Socket::SSL::errstr() . "\n";
        }
        # The token comes before what has nginx answer.
        return AuthPat::Server::exchange($socket, join "\r\n", 'GET /t HTTP/1.1', $good, "Host: $host", '', '');
    };
    for my $case (
        ['a good token by TLS',                'plain',  'plain',  204, qq(ok "$id" "alice" "laptop" "pro")],
        ['a Host that TLS was not set up for', 'plain',  'asking', 421, $nobody],
        ['a client without a certificate',     'asking', 'asking', 400, $nobody],
        ['no TLS where it is asked for',       '',       'plain',  400, $nobody],
    ) {
        my ($what, $sni, $host, $status, $line) = @$case;
        my $answer;
        is logged_by(sub { $answer = $asks->($sni, $host) }), "$status $line", "$what: the log";
        unlike $answer->{headers} . $answer->{body}, qr/told:(?!-\/\.)/, "$what: the answer names nobody";
    }
}

{
    my $two = $unread{'two Authorization headers'}[1];
    my $answer;
    logged_by(sub { $answer = AuthPat::Server::exchange($server->connect($location_port), $two) });
    is $answer->{body}, 'told:-/.', 'an error page of such a request knows nobody';
    my $line = logged_by(sub { $answer = AuthPat::Server::exchange($server->connect($guarded_port), $two) });
    is $line, "401 $nobody", 'one that is guarded takes none of two tokens';
    unlike $answer->{body}, qr/the page/, 'and is not shown';

    for my $case (['a good token', $good, "405 $nobody", "the page\n"], ['no token', 'X-None: 1', "401 $nobody", undef]) {
        my ($what, $header, $logged, $body) = @$case;
        is logged_by(sub { $answer = AuthPat::Server::exchange($server->connect($guarded_port), head('TRACE /t HTTP/1.1', $header)) }),
            $logged, "an error page that requires a subject, $what: the log names nobody";
        is $answer->{body}, $body, 'the page is shown' if $body;
    }
}

{
    my $counted = sub {
        my ($requests) = AuthPat::Server::exchange($server->connect($guarded_port), head('GET /status HTTP/1.1'))->{body} =~ /"requests":(\{[^}]*\})/;
        return $requests . AuthPat::Server::exchange($server->connect($guarded_port), head('GET /usage HTTP/1.1'))->{body} =~ s/"(?:cursor|time)":[^,}]*//gr;
    };
    my $before = $counted->();
    for my $what (sort keys %unread) {
        like logged_by(sub { AuthPat::Server::exchange($server->connect((ports_for($what))[2]), $unread{$what}[1]) }),
            qr/^\d+ \Q$nobody\E$/, "$what: the log names nobody, with a guarded error page";
    }
    is $counted->(), $before, 'and nothing was counted, nor used';
}

for my $case (
    ['return that asks nothing',       '/return',  200, $nobody],
    ['444',                            '/444',     444, $nobody],
    ['a limit by address, at first',   '/address', 204, qq(ok "$id" "alice" "laptop" "pro")],
    ['a limit by address',             '/address', 429, $nobody],
    ['return that tells the verdict',  '/says',    200, $nobody],
    ['a header that tells it',         '/header',  403, $nobody],
    ['if that looks at the subject',   '/if',      403, $nobody],
    ['a limit by token, at first',     '/limited', 204, qq(ok "$id" "alice" "laptop" "pro")],
    ['a limit by token',               '/limited', 429, qq(ok "$id" "alice" "laptop" "pro")],
    ['a limit behind rewrite … break', '/broken',  429, qq(ok "$id" "alice" "laptop" "pro")],
    ['a location with auth_pat off',   '/off',     204, 'off "-" "-" "-" "-"'],
) {
    my ($what, $path, $status, $line) = @$case;
    my $answer;
    is logged_by(sub { $answer = $server->get($path, $good) }), "$status $line", "$what: the log";
    is $answer->{body}, 'told:ok/alice.', "$what: the answer" if $path eq '/says';
}

SKIP: {
    skip 'nginx with HTTP/2 is needed', 2 if !$http2;
    my $socket = $server->connect($server->{port2});
    open_http2($socket);
    my @token = (authorization => "Bearer $token");
    is logged_by(sub { syswrite $socket, headers(1, 'GET', '/t', end => 1, more => \@token); read_frames($socket, undef, 1) }),
        qq(204 ok "$id" "alice" "laptop" "pro"), 'HTTP/2: a good token is named';
    is logged_by(sub { syswrite $socket, headers(3, 'GET', '/t', end => 1, more => [@token, @token]); read_frames($socket, undef, 1) }),
        "400 $nobody", 'HTTP/2: two Authorization headers, and the log names nobody';
}

# ---- CONNECT

sub tunnel {
    my ($port, @headers) = @_;
    my $socket = $server->connect($port);
    my $answer = AuthPat::Server::exchange($socket, join "\r\n", "CONNECT 127.0.0.1:$upstream_port HTTP/1.1",
        "Host: 127.0.0.1:$upstream_port", @headers, '', '');
    syswrite $socket, head("GET /through-$port HTTP/1.1") if $answer->{status} == 200;
    AuthPat::Server::read_until($socket, qr/bytes/) if $answer->{status} == 200;
    return $answer->{status};
}

for my $headers ([$good], [], ["Proxy-Authorization: Bearer $token"], [$good, "Proxy-Authorization: Bearer $token"]) {
    my $status = tunnel($shut_port, @$headers);
    ok $status == 405 || !$has_tunnel && $status == 400, "CONNECT is refused under auth_pat (@$headers)" or diag $status;
}
is grep({ /through-$shut_port/ } $upstream->requests), 0, 'and nothing goes through';
SKIP: {
    skip 'nginx 1.31 is needed', 3 if !$has_tunnel;
    is tunnel($open_port), 200, 'a tunnel without auth_pat is one';
    is tunnel($dry_port), 200, 'a dry run refuses none';
    ok $server->logged(qr/"auth_pat" refuses CONNECT, dry run/), 'but says so';
    ok $server->logged(qr/"auth_pat" refuses CONNECT(?!, dry)/), 'as the log does of a refusal';
}

ok $server->log !~ /\[(?:alert|emerg)\]|signal \d/, 'nothing broke' or diag $server->log;

done_testing;
