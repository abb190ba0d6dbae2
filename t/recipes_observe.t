# Recipes about what operators see: json-log, prometheus.

use strict;
use warnings;

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use AuthPat::Server qw(slurp wait_for);
use AuthPat::Site qw(bearer header make_store);
use AuthPat::Upstream;
use IO::Socket::SSL;
use JSON::PP;
use Test::More;

my $site = AuthPat::Site->new(recipes => ['json-log', 'prometheus'], listen => '0.0.0.0', change => { '192.0.2.20' => '127.0.0.20' });
mkdir "$site->{root}/run/auth-pat" or die "$site->{root}/run/auth-pat: $!\n";
my $upstream = AuthPat::Upstream->new(port => $site->port(8080), answer => sub {
    my ($status, $headers, $body) = AuthPat::Upstream::echo(@_);
    return ($status, "${headers}X-Request-ID: the upstream's own\r\n", $body);
});
my $store    = make_store('api');
$site->start;

my $alice = issue($store, '--subject', 'alice "the \\ first" ä', '--expires-in', '1h');
my ($id)  = patctl($store, 'list', '--json') =~ /"id":"([^"]+)"/;
my $json  = JSON::PP->new->utf8;

# ---- json-log

my $lines = 0;

# The line of a request, decoded. The request may be code.
sub logged {
    my ($name, @request) = @_;
    my $answer = ref $request[0] ? $request[0]->() : $site->request(@request);
    my @all;
    wait_for(sub { (@all = split /\n/, $site->access_log('logged.referon.com')) > $lines });
    is(scalar @all, ++$lines, "$name: one line");
    my $line = eval { $json->decode($all[-1]) } // {};
    is($@, '', "$name: which is JSON") or diag $all[-1];
    return ($line, $answer);
}

my $url = 'https://logged.referon.com';
my ($line, $answer) = logged('a good token', "$url/things?page=2&token=$alice", bearer($alice), '-A', "curl \"x\" \x{01}\\");
is_deeply([sort keys %$line], [sort qw(time request_id address host method path protocol status bytes duration upstream
    upstream_time token_status token_id subject expires_in store_age user_agent)], 'with all members');
is($line->{status}, 200, 'status');
is($line->{path}, '/things', 'path, without the query');
is($line->{token_status}, 'ok', 'token_status');
is($line->{token_id}, $id, 'token_id');
is($line->{subject}, "alice \"the \\ first\" \x{e4}", 'subject, with quotes and all');
is($line->{user_agent}, "curl \"x\" \x{01}\\", 'user_agent, with quotes and a control character');
ok(3000 < $line->{expires_in} && $line->{expires_in} <= 3600, 'expires_in is a number');
is($line->{store_age}, undef, 'store_age is null where there is no source');
like($line->{time}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d$/, 'time');
is($line->{request_id}, header($answer, 'X-Request-ID'), 'the client gets the request\'s id');
is($answer->{body} =~ /^X-Request-ID: (.*)$/m ? $1 : '', $line->{request_id}, 'and so does the upstream');
like($line->{upstream}, qr/^127\.0\.0\.1:\d+$/, 'upstream');
ok($json->encode([@$line{qw(status bytes duration expires_in)}]) =~ /^\[\d+,\d+,[\d.]+,\d+\]$/, 'numbers are numbers');

($line, $answer) = logged('no token', "$url/t");
is_deeply([@$line{qw(status token_status token_id subject expires_in)}], [401, 'missing', '', '', undef], 'no token: the values');
is(header($answer, 'X-Request-ID'), $line->{request_id}, 'no token: the client gets the request\'s id');
patctl($store, 'revoke', $id);
($line) = logged('a revoked token', "$url/t", bearer($alice));
is_deeply([@$line{qw(status token_status token_id subject expires_in)}], [401, 'revoked', $id, '', undef],
    'a revoked token: its id, and no subject');
my $reached = time - 5;
patctl($store, \qq({"op":"heartbeat","at":$reached}\n), 'apply');
($line) = logged('a store with a source', "$url/t", bearer($alice));
ok(5 <= $line->{store_age} && $line->{store_age} < 60, 'a store with a source: store_age is a number') or diag $line->{store_age};
($line) = logged('quotes in the path', "$url/a%22b%5C%0A%7B", '-H', "Referer: $url/?token=$alice", '-H', "Cookie: pat=$alice");
is($line->{path}, "/a\"b\\\n{", 'quotes in the path: as they are');

# HTTP/2: a client that goes in the middle of its first headers, and gets no answer.
($line) = logged('half a request', sub {
    my $socket = IO::Socket::SSL->new(PeerAddr => '127.0.0.1', PeerPort => $site->port(443), SSL_verify_mode => 0,
        SSL_hostname => 'logged.referon.com', SSL_alpn_protocols => ['h2'], Timeout => 5) or die "connect: $SSL_ERROR\n";
    my $settings = pack 'H*', '000000' . '04' . '00' . '00000000';
    my $ping     = pack 'H*', '000008' . '06' . '00' . '00000000' . '6e6f7720676f2e2e';
    my $headers  = pack 'H*', '000014' . '01' . '04' . '00000001';
    print {$socket} join '', "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", $settings, $ping, $headers, "\x82\x87\x84";
    local $SIG{ALRM} = sub { die "no answer to a ping\n" };
    alarm 10;
    my $got = '';
    1 while $got !~ /now go\.\./ && sysread $socket, $got, 4096, length $got;    # nginx has read what was sent
    alarm 0;
    $socket->close;
});
ok(exists $line->{status} && !defined $line->{status}, 'half a request: the status is null');

unlike($site->access_log('logged.referon.com'), qr/\Q${\ substr $alice, 0, 20}/, 'no token is in the log, wherever the client put it');

# ---- prometheus

$answer = $site->request('http://metrics.referon.com:9146/metrics');
is($answer->{status}, 200, 'metrics: 200');
like(header($answer, 'Content-Type'), qr{^text/plain; version=0\.0\.4}, 'metrics: of Prometheus\' type');
ok(wait_for(sub {
    $answer = $site->request('http://metrics.referon.com:9146/metrics');
    $answer->{body} =~ /^auth_pat_requests_total\{server="logged\.referon\.com",status="revoked"\} 2$/m;
}), 'metrics: what was refused is counted');
like($answer->{body}, qr/^auth_pat_store_up\{store="\Q$store\E"\} 1$/m, 'metrics: of the store');
unlike($answer->{body}, qr/\Q${\ substr $alice, 0, 20}/, 'metrics: no token');

{
    write_file(scratch() . '/metrics', $answer->{body});
    is(system("promtool check metrics < ${\scratch()}/metrics >${\scratch()}/promtool 2>&1"), 0, 'metrics: promtool takes them')
        or diag slurp(scratch() . '/promtool');

    # The example in the comments, with the rules where they are here.
    my ($example) = slurp("$AuthPat::ROOT/conf.d/recipes/prometheus.conf") =~ /^(#     scrape_configs:\n(?:#      .*\n|#     \w+:\n)+)/m;
    my $rules = "$AuthPat::ROOT/scripts/prometheus/alerts.yml";
    $example =~ s/^#     //mg;
    $example =~ s{/usr/share/nginx-auth-pat/prometheus/alerts\.yml}{$rules} or die "the example names no rules\n";
    write_file(scratch() . '/config.yml', $example);
    is(system("promtool check config ${\scratch()}/config.yml >${\scratch()}/promtool 2>&1"), 0, 'metrics: promtool takes the example')
        or diag slurp(scratch() . '/promtool');

    # What alerts and the dashboard are about is there.
    my %known = map { $_ => 1 } $answer->{body} =~ /^auth_pat_requests_total\{.*status="(\w+)"\}/mg;
    my $alerts    = slurp($rules) =~ s/^(?:#| *(?:summary|description):).*//mgr;
    my $dashboard = join '', slurp("$AuthPat::ROOT/scripts/prometheus/grafana.json") =~ /^ *"(?:expr|query)": (".*")/mg;
    for (['alerts', $alerts], ['the dashboard', $dashboard]) {
        my ($what, $expressions) = @$_;
        my %named = map { $_ => 1 } $expressions =~ /\b(auth_pat_\w+)/g;
        cmp_ok(scalar keys %named, '>', 5, "metrics: $what: names some");
        like($answer->{body}, qr/^$_[ {]/m, "metrics: $_, named by $what, is there") for sort keys %named;
        my @statuses = map { split /\|/ } $expressions =~ /status!?=~?\\?"([\w|]*)/g;
        is_deeply([grep { !$known{$_} } @statuses], [], "metrics: $what: so are the statuses: @statuses");
    }
}

is($site->request('http://metrics.referon.com:9146/metrics', '--interface', '127.0.0.20')->{status}, 200, 'metrics: Prometheus may read them');
is($site->request('http://metrics.referon.com:9146/metrics', '--interface', '127.0.0.21')->{status}, 403, 'metrics: others may not');
is($site->request('http://metrics.referon.com:9146/')->{status}, 404, 'metrics: nothing else is there');

my $socket = "$site->{root}/run/auth-pat/metrics.sock";
$answer = $site->request('http://metrics.referon.com/metrics', '--unix-socket', $socket);
is($answer->{status}, 200, 'metrics: on the socket: 200');
like($answer->{body}, qr/^auth_pat_store_up\{/m, 'metrics: and the same');

done_testing();
