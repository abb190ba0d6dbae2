# auth_pat_zone: what is counted, by whom, and what becomes of it when nginx is reloaded, restarted, or hurt.

use strict;
use warnings;
use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use AuthPat::Server qw(wait_for slurp is_alive children_of);
use IO::Socket::INET;
use JSON::PP ();
use POSIX ();
use Test::More;
use Time::HiRes qw(sleep time);

my $store   = new_store('main');
my $missing = store_path('missing');
my %token   = map { $_ => "the-token-of-$_-00001" } qw(alice expired revoked early remote closing);
patctl($store, \join("\n",
    qq({"token":"$token{alice}","id":"id-alice","subject":"alice","scopes":["read"]}),
    qq({"token":"$token{expired}","id":"id-expired","subject":"expired","expires_at":1600000000}),
    qq({"token":"$token{revoked}","id":"id-revoked","subject":"revoked","revoked_at":1600000000}),
    qq({"token":"$token{early}","id":"id-early","subject":"early","not_before":4000000000}),
    qq({"token":"$token{closing}","id":"id-closing","subject":"closing"}),
    qq({"token":"$token{remote}","id":"id-remote","subject":"remote","cidrs":["192.0.2.0/24"]}), ''),
    'import', '--plaintext', '--strict', '-');

my @verdicts = qw(ok missing malformed unknown revoked expired not_yet_valid address_denied scope_denied require_denied
    stale store_error preflight anonymous);

sub bearer { my ($name) = @_; return "Authorization: Bearer $token{$name}" }

# What is in every server here.
my $locations = <<"END";
    auth_pat API;
    auth_pat_store $store;
    location = /t         { try_files /nowhere =204; }
    location = /scope     { auth_pat_require_scope write; try_files /nowhere =204; }
    location = /require   { auth_pat_require \$arg_x; try_files /nowhere =204; }
    location = /stale     { auth_pat_max_age 1s; try_files /nowhere =204; }
    location = /missing   { auth_pat_store $missing; try_files /nowhere =204; }
    location = /optional  { auth_pat_optional on; try_files /nowhere =204; }
    location = /preflight { auth_pat_preflight pass; try_files /nowhere =204; }
    location = /off       { auth_pat off; try_files /nowhere =204; }
    location = /dry       { auth_pat_dry_run on; try_files /nowhere =204; }
    location = /open      { auth_pat_fail_open on; auth_pat_max_age 1s; try_files /nowhere =204; }
    location = /open-dry  { auth_pat_fail_open on; auth_pat_max_age 1s; auth_pat_dry_run on; try_files /nowhere =204; }
    location = /to        { try_files /nowhere /t; }
    location = /to-scope  { try_files /nowhere /scope; }
    location = /to-off    { try_files /nowhere /off; }
    location = /status    { auth_pat off; auth_pat_status json; }
    location = /metrics   { auth_pat off; auth_pat_status prometheus; }
END
my @bad = ('Authorization: Bearer x', 'Authorization: Bearer unknown-token-0001', map { bearer($_) } qw(revoked expired early remote));
my $preflight = "Origin: x\r\nAccess-Control-Request-Method: PUT";

sub status_of {
    my ($server) = @_;
    my $answer = $server->get('/status');
    my $status = eval { JSON::PP->new->utf8->decode($answer->{body}) };
    return $status // diag("no JSON: $@ in $answer->{body}") && {};
}

# Counters that are not 0.
sub nonzero { my ($of) = @_; return { map { $of->{$_} ? ($_ => $of->{$_}) : () } keys %{ $of // {} } } }

sub of_server {
    my ($status, $name) = @_;
    my ($server, $more) = grep { $_->{name} eq $name } @{ $status->{servers} };
    return $more ? die "two lines of \"$name\"" : $server;
}

sub sum { my ($of) = @_; my $sum = 0; $sum += $_ for values %{ $of // {} }; return $sum }

# The status once so many requests are counted, and so many refusals of dry runs: other workers take up to a second.
sub counted {
    my ($server, $requests, $dry) = @_;
    my $status;
    wait_for(sub {
        $status = status_of($server);
        sum($status->{requests}) >= $requests && sum($status->{dry_run}) >= ($dry // 0);
    });
    return $status;
}

sub send_to {
    my ($server, $host, $path, $method, @headers) = @_;
    my $socket = $server->connect or die "connect: $!\n";
    return AuthPat::Server::exchange($socket, join "\r\n", "$method $path HTTP/1.1", "Host: $host", 'Connection: close', @headers, '', '')->{status};
}

# ---- each verdict, by name of the server, in one process and in several

for my $case (['one worker', workers => 1], ['two workers', workers => 2], ['a single process', single => 1, workers => 1]) {
    my ($what, @options) = @$case;
    my $server = AuthPat::Server->new(@options, http => "auth_pat_zone pat:1m;"
        . join '', map { "server { listen 127.0.0.1:\$PORT; $_ $locations }" }
            'server_name one uno;', 'server_name two;', 'listen 127.0.0.1:$PORT2; server_name three;');
    # A second server of the first one's name.
    $server->configure(http => $server->{http} . "server { listen 127.0.0.1:\$PORT2; server_name one; $locations }");
    my $start = int time;
    $server->start;

    my $ok = 0;
    for my $round (1 .. 3) {
        my $number = 0;
        $ok += send_to($server, 'one', @$_[0, 1], $_->[2] // ()) == $_->[3] for
            ['/t', 'GET', bearer('alice'), 204], ['/t', 'GET', 'X-A: b', 401], (map { ['/t', 'GET', $_, $number++ < 5 ? 401 : 403] } @bad),
            ['/scope', 'GET', bearer('alice'), 403], ['/require', 'GET', bearer('alice'), 403], ['/stale', 'GET', bearer('alice'), 503],
            ['/missing', 'GET', bearer('alice'), 503], ['/preflight', 'OPTIONS', $preflight, 204], ['/optional', 'GET', 'X-A: b', 204],
            ['/off', 'GET', 'X-A: b', 204];
    }
    is $ok, 3 * 15, "$what: each verdict three times";
    my $status = counted($server, 42);
    is_deeply $status->{requests}, { map { $_ => 3 } @verdicts }, "$what: each is counted three times"
        or diag explain $status->{requests};
    is_deeply of_server($status, 'one')->{requests}, { map { $_ => 3 } @verdicts }, "$what: for its server";
    is_deeply nonzero(of_server($status, 'two')->{requests}), {}, "$what: and no other";
    is_deeply [map { $_->{name} } @{ $status->{servers} }], [qw(one two three)], "$what: servers of one name are one line, in their order";
    is_deeply nonzero($status->{dry_run}), {}, "$what: nothing was a dry run";
    is $status->{fail_open}, 0, "$what: and none let in in spite of a fault";

    my $history = $status->{history};
    is sum({ map { my $name = $_; $name => eval { my $sum = 0; $sum += $_ for @{ $history->{requests}{$name} }; $sum } } @verdicts }), 42,
        "$what: the history has each of them once";
    my $before = 89 - int(($history->{end} - $start) / 10 + 1);    # the last slice that was over when nginx started
    is_deeply [map { scalar grep { $_ } @{ $history->{requests}{$_} }[0 .. $before] } @verdicts], [(0) x 14], "$what: at its end";
    ok $history->{end} > $start && $history->{end} <= time + 10, "$what: which is now";
    is $history->{end} % 10, 0, "$what: with an interval of 10 seconds";

    # Elsewhere.
    send_to($server, 'two', '/t', 'GET') for 1 .. 4;
    send_to($server, 'uno', '/t', 'GET', bearer('alice')) for 1 .. 2;
    my $socket = $server->connect($server->{port2});
    AuthPat::Server::exchange($socket, "GET /t HTTP/1.1\r\nHost: one\r\nConnection: close\r\n" . bearer('alice') . "\r\n\r\n");
    $socket = $server->connect($server->{port2});
    AuthPat::Server::exchange($socket, "GET /t HTTP/1.1\r\nHost: nobody\r\nConnection: close\r\n\r\n");
    $status = counted($server, 42 + 8);
    is of_server($status, 'one')->{requests}{ok}, 6, "$what: a server is named by its first name, wherever it listens";
    my %sum = map { my $name = $_; $name => eval { my $sum = 0; $sum += $_->{requests}{$name} for @{ $status->{servers} }; $sum } } @verdicts;
    is_deeply $status->{requests}, \%sum, "$what: the sums are those of the servers";

    $server->get('/dry', $bad[2]);
    $server->get('/dry', bearer('alice'));
    $server->get('/open', bearer('alice')) for 1 .. 2;
    $server->get('/open-dry', bearer('alice'));
    $server->get('/to', bearer('alice'));
    $server->get('/to-off', bearer('alice'));
    $server->get('/to-scope', bearer('alice'));
    $status = counted($server, 50 + 8, 1);
    is_deeply nonzero($status->{dry_run}), { revoked => 1 }, "$what: a dry run that would have been refused is counted apart";
    is_deeply nonzero(of_server($status, 'one')->{dry_run}), { revoked => 1 }, "$what: for its server";
    is_deeply { map { my $name = $_; my $sum = 0; $sum += $_ for @{ $status->{history}{dry_run}{$name} }; $sum ? ($name => $sum) : () } @verdicts },
        { revoked => 1 }, "$what: in the history, too";
    is $status->{fail_open}, 3, "$what: those that auth_pat_fail_open let in are counted";
    is $status->{requests}{stale}, 3 + 3, "$what: with their verdict";
    is $status->{requests}{ok}, 6 + 1 + 1 + 1 + 1, "$what: a request that is led on is counted once where the verdict is the same, and where validation is off";
    is $status->{requests}{scope_denied}, 3 + 1, "$what: and where it is another one, that counts, too";

    # The same in the other format.
    my $metrics = $server->get('/metrics')->{body};
    my %metric = $metrics =~ /^auth_pat_requests_total\{server="one",status="(\w+)"\} (\d+)$/mg;
    is_deeply \%metric, of_server($status, 'one')->{requests}, "$what: Prometheus is told the same";
    my ($open) = $metrics =~ /^auth_pat_fail_open_total\{server="one"\} (\d+)$/m;
    is $open, 3, "$what: and of auth_pat_fail_open, too";
    my %dry = $metrics =~ /^auth_pat_dry_run_total\{server="one",status="(\w+)"\} (\d+)$/mg;
    is_deeply nonzero(\%dry), { revoked => 1 }, "$what: and of dry runs";
    ok $status->{zone}{since} >= $start && $status->{zone}{since} <= time, "$what: it counts since nginx started";
    ok $server->log !~ /\[(?:alert|emerg|error)\]|signal 11/, "$what: nothing broke" or diag $server->log;
    $server->stop;
}

# ---- running requests that are closed

{
    my $server = AuthPat::Server->new(http => "auth_pat_zone pat:1m; server { listen 127.0.0.1:\$PORT; server_name one; $locations
        location = /long { auth_pat_recheck 100ms; limit_rate 1k; limit_rate_after 1k; alias \$ROOT/long; }
        location = /dry-long { auth_pat_dry_run on; auth_pat_recheck 100ms; limit_rate 1k; limit_rate_after 1k; alias \$ROOT/long; } }");
    write_file("$server->{root}/long", 'x' x 1_000_000);
    $server->start;
    my $socket = $server->connect;
    syswrite $socket, "GET /long HTTP/1.1\r\nHost: one\r\n" . bearer('closing') . "\r\n\r\n";
    AuthPat::Server::read_until($socket, qr/\r\n\r\nx/, 3);
    my $dry = $server->connect;
    syswrite $dry, "GET /dry-long HTTP/1.1\r\nHost: one\r\n" . bearer('closing') . "\r\n\r\n";
    AuthPat::Server::read_until($dry, qr/\r\n\r\nx/, 3);
    patctl($store, 'revoke', 'id-closing');
    my $status;
    ok wait_for(sub { $status = status_of($server); $status->{closed}{revoked} }), 'a running request that is closed is counted';
    AuthPat::Server::read_until($dry, qr/x{3000}/);    # a kilobyte a second
    $status = status_of($server);
    is_deeply nonzero($status->{closed}), { revoked => 1 }, 'once, by what was found, and one of a dry run is not closed';
    is_deeply nonzero(of_server($status, 'one')->{closed}), { revoked => 1 }, 'for its server';
    is_deeply nonzero($status->{requests}), { ok => 2 }, 'and as the request that it was';
    like $server->get('/metrics')->{body}, qr/^auth_pat_closed_total\{server="one",status="revoked"\} 1$/m, 'Prometheus is told the same';
    $server->stop;
}

# ---- workers tell each other by themselves

{
    my $server = AuthPat::Server->new(workers => 2, http => "auth_pat_zone pat:1m; server { listen 127.0.0.1:\$PORT reuseport; server_name one; $locations }");
    $server->start;
    my $one = $server->connect;    # is served by one of them for as long as it lasts
    my $ask = sub {
        my $answer = AuthPat::Server::exchange($one, "GET /status HTTP/1.1\r\nHost: one\r\n\r\n");
        return sum(JSON::PP->new->utf8->decode($answer->{body})->{requests});
    };
    my $right = 0;
    for my $round (1 .. 3) {
        $server->get('/t', bearer('alice')) for 1 .. 30;
        $right++ if wait_for(sub { $ask->() == 30 * $round });
    }
    is $right, 3, 'what the other worker has counted arrives, again and again';
    $server->stop;
}

# ---- reloads

{
    my $config = sub {
        my ($zone, @names) = @_;
        return "auth_pat_zone $zone;" . join '', map { "server { listen 127.0.0.1:\$PORT; server_name $_; $locations }" } @names;
    };
    my $server = AuthPat::Server->new(workers => 2, http => $config->('pat:256k', qw(one two)));
    $server->start;
    send_to($server, 'one', '/t', 'GET', bearer('alice')) for 1 .. 5;
    send_to($server, 'two', '/t', 'GET') for 1 .. 3;
    my $before = counted($server, 8);

    # At once, so that the old workers still have something to add.
    send_to($server, 'one', '/t', 'GET', bearer('alice')) for 1 .. 5;
    $server->reload or die 'no reload: ' . $server->log;
    my $status = counted($server, 13);
    is of_server($status, 'one')->{requests}{ok}, 10, 'a reload keeps the counters, and what old workers have counted';
    is of_server($status, 'two')->{requests}{missing}, 3, 'of every server';
    is $status->{zone}{since}, $before->{zone}{since}, 'which count since they did';

    $server->configure(http => $config->('pat:256k', qw(three two four)));
    $server->reload or die 'no reload: ' . $server->log;
    send_to($server, 'three', '/t', 'GET', bearer('alice')) for 1 .. 2;
    send_to($server, 'two', '/t', 'GET') for 1 .. 2;
    $status = counted($server, 17);
    is_deeply { map { $_->{name} => nonzero($_->{requests}) } @{ $status->{servers} } },
        { two => { missing => 5 }, three => { ok => 2 }, four => {} },
        'a server that is new is counted for itself, and the others go on';
    is sum($status->{requests}), 17, 'what was counted for one that is gone stays in the sum';

    $server->configure(http => $config->('pat:256k', qw(four one)));
    $server->reload or die 'no reload: ' . $server->log;
    send_to($server, 'one', '/t', 'GET', bearer('alice'));
    $status = counted($server, 18);
    is of_server($status, 'one')->{requests}{ok}, 11, 'one that comes back goes on counting';

    my $ok = 0;
    for (1 .. 10) {
        $ok += send_to($server, 'one', '/t', 'GET', bearer('alice')) == 204 for 1 .. 20;
        $server->reload or die 'no reload';
    }
    $status = counted($server, 18 + 200);
    is of_server($status, 'one')->{requests}{ok}, 11 + $ok, 'ten reloads lose nothing and count nothing twice';
    is sum(nonzero($status->{requests})), 18 + 200, 'nor elsewhere';

    # Another size, name, and none.
    $server->configure(http => $config->('pat:512k', qw(one two)));
    wait_for(sub { time >= $before->{zone}{since} + 1 });    # since is in seconds
    $server->reload or die 'no reload: ' . $server->log;
    $status = status_of($server);
    is_deeply nonzero($status->{requests}), {}, 'with another size, it starts anew';
    is $status->{zone}{size}, 512 * 1024, 'with that size';
    cmp_ok $status->{zone}{since}, '>', $before->{zone}{since}, 'and counts since now';
    $server->get('/t', bearer('alice'));
    is sum(counted($server, 1)->{requests}), 1, 'and counts';

    $server->configure(http => $config->('other:512k', qw(one two)));
    $server->reload or die 'no reload: ' . $server->log;
    is sum(status_of($server)->{requests}), 0, 'with another name, too';

    $server->configure(http => join '', map { "server { listen 127.0.0.1:\$PORT; server_name $_; $locations }" } 'one');
    $server->reload or die 'no reload: ' . $server->log;
    is $server->status('/t', bearer('alice')), 204, 'without a zone, requests are as ever';
    is status_of($server)->{zone}, undef, 'and there is none';

    $server->configure(http => $config->('pat:512k', 'one'));
    $server->reload or die 'no reload: ' . $server->log;
    $server->get('/t', bearer('alice')) for 1 .. 2;
    is sum(counted($server, 2)->{requests}), 2, 'it comes back, empty';

    # A zone that becomes too small, by a reload.
    my @workers = $server->workers;
    my $from = $server->log_size;
    $server->configure(http => $config->('pat:64k', map { "server-$_" } 1 .. 400));
    $server->signal('HUP');
    ok $server->logged(qr/\[emerg\].* auth_pat_zone "pat" is too small for 400 servers and 2 stores/, $from), 'a zone that is too small is told of';
    is_deeply [$server->workers], \@workers, 'and the old workers go on';
    $server->get('/t', bearer('alice'));
    is sum(counted($server, 3)->{requests}), 3, 'and count on, in their zone';

    # A reload does not fail for want of room: the sum goes on, and names that are gone make room.
    my $many = sub { $config->('pat:512k', map { "$_[0]-$_.example" } 1 .. 300) };
    for my $names (qw(a-server-with-a-long-name another yet-another and-one-more)) {
        $from = $server->log_size;
        $server->configure(http => $many->($names));
        $server->reload or die 'no reload: ' . $server->log;
        send_to($server, "$names-1.example", '/t', 'GET', bearer('alice'));
        send_to($server, "$names-300.example", '/t', 'GET', bearer('alice'));
    }
    like $server->log, qr/\[warn\].* auth_pat_zone "pat" has no room for \d+ more servers or stores, which are not counted separately/,
        'a zone that has no room for new names says so';
    is sum(counted($server, 11)->{requests}), 11, 'but all is counted';

    for (1 .. 3) {
        $server->configure(http => $config->('pat:512k', qw(one two)));
        $server->reload or die 'no reload: ' . $server->log;
    }
    $from = $server->log_size;
    $server->configure(http => $config->('pat:512k', map { "new-$_" } 1 .. 20));
    $server->reload or die 'no reload: ' . $server->log;
    send_to($server, 'new-20', '/t', 'GET', bearer('alice'));
    is of_server(counted($server, 12), 'new-20')->{requests}{ok}, 1, 'a name takes the place of one that is long gone';
    unlike $server->log($from), qr/has no room/, 'for which there is room';

    $server->stop;
    $server->start;
    is sum(status_of($server)->{requests}), 0, 'a restart does not keep it';
    $server->stop;
}

# ---- workers that are killed

{
    my $server = AuthPat::Server->new(workers => 2, http => "auth_pat_zone pat:256k; server { listen 127.0.0.1:\$PORT reuseport; server_name one; $locations }");
    $server->start;
    $server->get('/t', bearer('alice')) for 1 .. 20;
    my $before = counted($server, 20);
    is $before->{requests}{ok}, 20, 'before a worker is killed, all is counted';
    my $failed = 0;
    for my $round (1 .. 12) {
        # Under load, so that it may be in the midst of anything.
        my @load = map {
            my $pid = fork // die "fork: $!\n";
            if ($pid == 0) {
                my $end = time + 0.25;
                $_ % 2 ? $server->get('/status') : $server->get('/t', bearer('alice')) while time < $end;
                POSIX::_exit(0);
            }
            $pid;
        } 1 .. 3;
        sleep 0.05 + rand 0.2;
        my @workers = $server->workers;
        kill KILL => $workers[ $round % 2 ];
        waitpid $_, 0 for @load;
        $failed++ if !wait_for(sub { my @now = $server->workers; @now == 2 && !grep { $_ == $workers[ $round % 2 ] } @now });
        $failed++ if 6 != grep { ($server->get('/status')->{status} // 0) == 200 } 1 .. 6;
    }
    is $failed, 0, 'workers that are killed hang nobody: there are new ones, and each answers';
    my $count = status_of($server)->{requests}{ok};
    cmp_ok $count, '>=', 20, 'what was counted is still there';
    $server->get('/t', bearer('alice')) for 1 .. 10;
    ok wait_for(sub { status_of($server)->{requests}{ok} >= $count + 10 }), 'and counting goes on';
    ok $server->log !~ /signal 11|\[emerg\]/, 'nothing broke';
    ok $server->stop, 'and nginx stops as ever';
}

# ---- a zone with room for little, and configurations that are wrong

for my $case (
    ['pat:64k', 1, qr//], ['pat:65536', 1, qr//], ['pat:64m', 1, qr//], ['pat:1g', 0, qr/invalid zone "pat:1g"/], ['pat:65535', 0, qr/zone "pat:65535" is too small: the minimum is 64k/],
    ['pat:63k', 0, qr/zone "pat:63k" is too small: the minimum is 64k/],
    ['pat:0', 0, qr/is too small/], ['pat:', 0, qr/invalid zone "pat:"/], ['pat', 0, qr/invalid zone "pat"/], ['zone=pat:1m', 0, qr/invalid zone "zone=pat:1m"/], [':1m', 0, qr/invalid zone ":1m"/],
    ['pat:x', 0, qr/invalid zone "pat:x"/], ['pat:1t', 0, qr/invalid zone "pat:1t"/], ['pat:-1m', 0, qr/invalid zone "pat:-1m"/],
    ['pat:1m:2m', 0, qr/invalid zone "pat:1m:2m"/], ['pat:1.5m', 0, qr/invalid zone "pat:1.5m"/],
    ['pat:99999999999999999999m', 0, qr/invalid zone "pat:99999999999999999999m"/])
{
    my ($zone, $is_good, $message) = @$case;
    my $server = AuthPat::Server->new(http => "auth_pat_zone $zone; server { listen 127.0.0.1:\$PORT; $locations }");
    my ($exit, $said) = $server->check;
    is $exit, $is_good ? 0 : 1, "auth_pat_zone $zone is " . ($is_good ? 'good' : 'not good');
    like $said, $message, 'and it is said why' if !$is_good;
    like $said, qr{in \Q$server->{root}\E/conf/nginx\.conf:\d+}, 'and where' if !$is_good;
}
{
    my $server = AuthPat::Server->new(http => "auth_pat_zone a:1m;\nauth_pat_zone b:1m;\nserver { listen 127.0.0.1:\$PORT; $locations }");
    my ($exit, $said) = $server->check;
    like $said, qr{"auth_pat_zone" directive is duplicate in }, 'there can be one zone';
    $server->configure(http => "limit_req_zone \$remote_addr zone=pat:1m rate=1r/s;\nauth_pat_zone pat:1m;\nserver { listen 127.0.0.1:\$PORT; $locations }");
    ($exit, $said) = $server->check;
    isnt $exit, 0, 'a name that another module has taken is an error';
    like $said, qr/the shared memory zone "pat" is already declared for a different use/, 'as nginx says';
    $server->configure(http => 'auth_pat_zone pat:64k;' . join '', map { "server { listen 127.0.0.1:\$PORT; server_name s$_; }" } 1 .. 300);
    ($exit, $said) = $server->check;
    isnt $exit, 0, 'so is a zone that is too small for all servers';
    like $said, qr/\[emerg\].*auth_pat_zone "pat" is too small for 300 servers and 0 stores/, 'and it says for how many';
}

done_testing;
