# auth_pat_usage: which tokens were used, told once and for all to who keeps count of it.

use strict;
use warnings;
use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use AuthPat::Server qw(wait_for);
use IO::Socket::UNIX;
use JSON::PP ();
use Test::More;
use Time::HiRes qw(sleep time);

# A store with so many tokens, named by letters: {path, tokens => {name => token}}.
sub make_store {
    my ($name, @names) = @_;
    my $path = new_store($name);
    my %tokens = map { $_ => "the-token-of-$name-$_" } @names;
    patctl($path, \join('', map { qq({"token":"$tokens{$_}","id":"$name:$_","subject":"$_","scopes":["read"]}\n) } @names),
        'import', '--plaintext', '--strict', '-');
    return { path => $path, tokens => \%tokens };
}
my $main  = make_store('main', 'a' .. 'f', 'revoked');
my $other = make_store('other', 'a' .. 'c');
my $many  = make_store('many', map { "t$_" } 1 .. 2600);
patctl($main->{path}, 'revoke', 'main:revoked');

sub bearer { my ($store, $name) = @_; return "Authorization: Bearer $store->{tokens}{$name}" }

# A program under valgrind has 128 GiB of addresses, and three stores would take 96 of them.
sub conf { return configuration(@_) =~ s/\bauth_pat_store [^;]+\K;/ map_size=1g;/gr }

sub configuration {
    my ($zone, %stores) = @_;
    %stores = (main => $main, other => $other, many => $many) if !%stores;
    return "auth_pat_zone $zone; keepalive_requests 100000; server { listen 127.0.0.1:\$PORT; listen unix:\$ROOT/socket; listen [::1]:\$PORT2; auth_pat API; auth_pat_store $main->{path};"
        . " location = /status { auth_pat off; auth_pat_store $main->{path}; auth_pat_status json; }"
        . join('', map { " location = /$_ { auth_pat_store $stores{$_}{path}; try_files /nowhere =204; }"
            . " location = /usage-$_ { auth_pat off; auth_pat_store $stores{$_}{path}; auth_pat_usage; }" } sort keys %stores)
        . " location = /scope { auth_pat_store $main->{path}; auth_pat_require_scope write; try_files /nowhere =204; }"
        . " location = /require { auth_pat_store $main->{path}; auth_pat_require \$arg_x; try_files /nowhere =204; }"
        . " location = /dry { auth_pat_store $main->{path}; auth_pat_dry_run on; try_files /nowhere =204; }"
        . " location = /dry-scope { auth_pat_store $main->{path}; auth_pat_dry_run on; auth_pat_require_scope write; try_files /nowhere =204; }"
        . " location = /stale { auth_pat_store $main->{path}; auth_pat_fail_open on; auth_pat_max_age 1s; try_files /nowhere =204; }"
        . " location = /on { auth_pat_store $main->{path}; try_files /nowhere /main; } location = /on-scope { auth_pat_store $main->{path}; try_files /nowhere /scope; }"
        . " location = /missing { auth_pat_store @{[store_path('missing')]}; auth_pat_fail_open on; try_files /nowhere =204; }"
        . " location = /usage-guarded { auth_pat_store $main->{path}; auth_pat_usage; }"
        . " location = /usage-denied { auth_pat off; deny all; auth_pat_store $main->{path}; auth_pat_usage; }"
        . " location = /include { auth_pat off; auth_request /usage-main; try_files /nowhere =204; } }";
}

# A report: its lines, each {id, at, from, count}, and the cursor.
sub report {
    my ($server, $store, $after) = @_;
    my $answer = $server->get("/usage-$store" . (defined $after ? "?after=$after" : ''));
    $answer->{status} == 200 or die "usage: $answer->{status}\n";
    my @lines = split /\n/, $answer->{body}, -1;
    pop(@lines) eq '' or die "the last line has no end: $answer->{body}";
    my @records = map { JSON::PP->new->utf8->decode($_) } @lines;
    my $cursor = pop @records;
    join(' ', keys %$cursor) eq 'cursor' or die "no cursor at the end: $answer->{body}";
    return { lines => \@records, cursor => $cursor->{cursor}, text => $answer->{body}, headers => $answer->{headers} };
}

# {id => count}
sub counts { my ($report) = @_; return { map { $_->{id} => $_->{count} } @{ $report->{lines} } } }

sub use_token { my ($server, $store, $name, $count, $path) = @_; ($server->get($path // '/' . ($store == $main ? 'main' : $store == $other ? 'other' : 'many'), bearer($store, $name))->{status} // 0) == 204 or die "no use of $name\n" for 1 .. $count // 1; return }

# ---- one reader

my $server = AuthPat::Server->new(http => conf('pat:1m'));
$server->start;

my $empty = report($server, 'main');
is_deeply $empty->{lines}, [], 'at first there is nothing to tell';
is $empty->{cursor}, 0, 'and the cursor stays the one that was given, 0 if there was none';
is report($server, 'main', 123)->{cursor}, 123, 'or 123';

my $time = int time;
use_token($server, $main, 'a', 3);
use_token($server, $main, 'b');
my $first = report($server, 'main', 0);
is_deeply [map { "$_->{id} $_->{count} $_->{from}" } @{ $first->{lines} }], ['main:a 3 127.0.0.1', 'main:b 1 127.0.0.1'],
    'each token that was used is told of once, with the number of uses, that which waits for longest first';
is_deeply [map { join ' ', sort keys %$_ } @{ $first->{lines} }], ['at count from id', 'at count from id'], 'with id, time, address and count';
ok !(grep { $_->{at} < $time || $_->{at} > time } @{ $first->{lines} }), 'the time is that of the last use';
like $first->{text}, qr/\A(?:\{"id":"main:[ab]","at":\d+,"from":"127\.0\.0\.1","count":\d+\}\n){2}\{"cursor":\d+\}\n\z/, 'as it is documented';
like $first->{headers}, qr/^Content-Type: application\/x-ndjson\r$/m, 'the type is that of JSON Lines';
like $first->{headers}, qr/^Cache-Control: no-store\r$/m, 'nobody keeps it';
cmp_ok $first->{cursor}, '>', 0, 'the cursor has grown';
cmp_ok $first->{cursor}, '<', 2**53, 'and is a number that JSON can say';

my $again = report($server, 'main', 0);
is $again->{text}, $first->{text}, 'a report that was not confirmed is repeated as it was';
use_token($server, $main, 'a', 2);
use_token($server, $main, 'c');
$again = report($server, 'main', 0);
is_deeply [counts($again), $again->{cursor}], [counts($first), $first->{cursor}], 'also when there have been more uses since';
$again = report($server, 'main');
is_deeply [counts($again), $again->{cursor}], [counts($first), $first->{cursor}], 'or no cursor is given';
$again = report($server, 'main', $first->{cursor} - 1);
is_deeply [counts($again), $again->{cursor}], [counts($first), $first->{cursor}], 'or an older one';

my $second = report($server, 'main', $first->{cursor});
is_deeply [map { "$_->{id} $_->{count}" } @{ $second->{lines} }], ['main:c 1', 'main:a 2'], 'the cursor confirms, and what has come since follows';
cmp_ok $second->{cursor}, '>', $first->{cursor}, 'with a cursor that has grown';
is_deeply counts(report($server, 'main', $first->{cursor})), counts($second), 'which is repeated in its turn';
my $third = report($server, 'main', $second->{cursor});
is_deeply $third->{lines}, [], 'when all is confirmed there is nothing';
is $third->{cursor}, $second->{cursor}, 'and the cursor stays';
is_deeply report($server, 'main', 0)->{lines}, [], 'and an old cursor brings nothing back';

use_token($server, $main, 'd');
my $above = report($server, 'main', $second->{cursor} + 1000);
cmp_ok $above->{cursor}, '>', $second->{cursor} + 1000, 'a cursor from elsewhere that is higher is outgrown';
is_deeply counts($above), { 'main:d' => 1 }, 'and confirms nothing that was not told';
report($server, 'main', $above->{cursor});

# ---- what a use is

$server->get('/main', $_) for 'X-A: b', 'Authorization: Bearer x', 'Authorization: Bearer unknown-token-0001', bearer($main, 'revoked');
$server->get($_, bearer($main, 'a')) for '/scope', '/require', '/dry-scope', '/missing';
is_deeply report($server, 'main', $above->{cursor})->{lines}, [], 'who is not let in, or would not be, and who is not known, uses nothing';
$server->get($_, bearer($main, 'e')) for '/dry', '/stale', '/require?x=1';
my $uses = report($server, 'main', $above->{cursor});
is_deeply counts($uses), { 'main:e' => 3 }, 'a use is a request that was let in with the token, in a dry run or in spite of a stale store, too';
my $cursor = $uses->{cursor};
$server->get($_, bearer($main, 'e')) for '/on', '/on-scope';
$uses = report($server, 'main', $cursor);
is_deeply counts($uses), { 'main:e' => 2 }, 'a request that is led on within the server is one use';
$cursor = $uses->{cursor};

# ---- stores

use_token($server, $main, 'a');
use_token($server, $other, 'a', 2);
use_token($server, $other, 'b');
my $of_main  = report($server, 'main', $cursor);
my $of_other = report($server, 'other', 0);
is_deeply counts($of_main), { 'main:a' => 1 }, 'each store has its own report';
is_deeply counts($of_other), { 'other:a' => 2, 'other:b' => 1 }, 'of its own tokens';
report($server, 'main', $of_main->{cursor});
is_deeply counts(report($server, 'other', 0)), counts($of_other), 'confirming one does not confirm the other';
is_deeply report($server, 'other', $of_other->{cursor})->{lines}, [], 'which has a cursor of its own';

# ---- addresses

{
    my $unix = IO::Socket::UNIX->new(Peer => "$server->{root}/socket") or die "socket: $!\n";
    AuthPat::Server::exchange($unix, "GET /main HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" . bearer($main, 'a') . "\r\n\r\n");
    require IO::Socket::IP;
    my $six = IO::Socket::IP->new(PeerHost => '::1', PeerPort => $server->{port2}) or die "::1: $!\n";
    AuthPat::Server::exchange($six, "GET /main HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" . bearer($main, 'b') . "\r\n\r\n");
    use_token($server, $main, 'c');
    my $report = report($server, 'main', $of_main->{cursor});
    is_deeply { map { $_->{id} => $_->{from} } @{ $report->{lines} } }, { 'main:a' => '', 'main:b' => '::1', 'main:c' => '127.0.0.1' },
        'the address is empty for a UNIX-domain socket, and the usual text for IPv6 and IPv4';
    $cursor = $report->{cursor};

    $six = IO::Socket::IP->new(PeerHost => '::1', PeerPort => $server->{port2}) or die "::1: $!\n";
    use_token($server, $main, 'a');
    AuthPat::Server::exchange($six, "GET /main HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" . bearer($main, 'a') . "\r\n\r\n");
    $report = report($server, 'main', $cursor);
    is_deeply [map { "$_->{id} $_->{from} $_->{count}" } @{ $report->{lines} }], ['main:a ::1 2'], 'of several uses it is that of the last one';
    $cursor = $report->{cursor};
    report($server, 'main', $cursor);
}

# ---- questions that are wrong

is $server->status("/usage-main?after=$_"), 400, "after=$_ is no cursor"
    for '', 'x', '-1', '1x', '0x10', '1.5', ' 1', '+1', '%31', '1%20', (int(time) + 370 * 86400) << 20, '9007199254740990', '18446744073709551616', '99999999999999999999999';
is $server->status("/usage-main?after=$_"), 200, "after=$_ is one" for 0, '00', 1, (int(time) + 360 * 86400) << 20;
is $server->status('/usage-main?before=x'), 200, 'another argument does not matter';
for my $method (qw(POST PUT DELETE OPTIONS)) {
    my $socket = $server->connect;
    is AuthPat::Server::exchange($socket, "$method /usage-main HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nxy")->{status}, 405, "$method is not allowed";
}
{
    my $socket = $server->connect;
    my $head = AuthPat::Server::exchange($socket, "HEAD /usage-main HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    is $head->{status}, 200, 'HEAD is answered';
    is $head->{body}, '', 'without a body';
    $socket = $server->connect;
    is AuthPat::Server::exchange($socket, "GET /usage-main HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nxyzxy")->{status}, 200, 'a body is thrown away';
    is AuthPat::Server::exchange($socket, "GET /usage-main HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")->{status}, 200, 'and the next request is answered';
}

# ---- who may ask

is $server->status('/usage-denied'), 403, 'deny holds for it';
is $server->status('/usage-guarded'), 401, 'and so does auth_pat';
is $server->status('/usage-guarded', bearer($main, 'a')), 200, 'which lets a token in';
is $server->status('/include'), 204, 'a subrequest to it does no harm';

# ---- more than fits into a report

{
    my $socket = $server->connect;
    AuthPat::Server::exchange($socket, "GET /many HTTP/1.1\r\nHost: a\r\n" . bearer($many, "t$_") . "\r\n\r\n") for 1 .. 2500;
    my @sizes;
    my %seen;
    my $after = 0;
    my @order;
    while (1) {
        my $report = report($server, 'many', $after);
        last if !@{ $report->{lines} };
        push @sizes, scalar @{ $report->{lines} };
        push @order, map { $_->{id} =~ /t(\d+)$/ } @{ $report->{lines} };
        $seen{ $_->{id} } += $_->{count} for @{ $report->{lines} };
        is_deeply counts(report($server, 'many', $after)), counts($report), 'a full report is repeated as it was';
        $after = $report->{cursor};
    }
    is_deeply \@sizes, [1000, 1000, 500], 'a report has at most 1,000 lines';
    is scalar(grep { $_ == 1 } values %seen), 2500, 'and each token is in one of them, once';
    is_deeply \@order, [1 .. 2500], 'those that wait for longest first';
}
{
    my $status = JSON::PP->new->utf8->decode($server->get('/status')->{body});
    is $status->{tokens}{known}, 2500 + 7, 'the status knows how many tokens there are' or diag explain $status->{tokens};
    is $status->{tokens}{evicted}, 0, 'none had to go';
    is $status->{tokens}{lost_uses}, 0, 'and no use is lost';
    cmp_ok $status->{tokens}{cursor}, '>=', $cursor, 'and the cursor is the highest';
    my @top = @{ $status->{tokens}{top} };
    is scalar @top, 10, 'there are ten that were used most';
    is_deeply [map { $_->{uses} } @top], [sort { $b <=> $a } map { $_->{uses} } @top], 'in their order';
    my ($a) = grep { $_->{id} eq 'main:a' } @top;
    is_deeply [sort keys %$a], [qw(id last_at last_from uses)], 'with id, uses and last use';
    is $a->{uses}, 10, 'each with all of its uses, confirmed or not';
    is $top[0]{id}, 'main:a', 'the first is the one that was used most';
}

# ---- reloads and restarts

{
    my $before = report($server, 'main', $cursor);
    $cursor = report($server, 'main', $before->{cursor})->{cursor};
    use_token($server, $main, 'f', 2);
    $server->reload or die 'no reload: ' . $server->log;
    my $report = report($server, 'main', $cursor);
    is_deeply counts($report), { 'main:f' => 2 }, 'a reload loses nothing';
    cmp_ok $report->{cursor}, '>', $cursor, 'and the cursor grows on';
    $server->reload or die 'no reload: ' . $server->log;
    my $again = report($server, 'main', $cursor);
    is_deeply [counts($again), $again->{cursor}], [counts($report), $report->{cursor}], 'a report that is not confirmed is repeated after a reload, too';

    # Stores in another order, and one more.
    my $extra = make_store('extra', 'a');
    $server->configure(http => conf('pat:1m', aaa => $extra, main => $main, other => $other));
    $server->reload or die 'no reload: ' . $server->log;
    $server->get('/aaa', bearer($extra, 'a'));
    is_deeply counts(report($server, 'main', $cursor)), { 'main:f' => 2 }, 'a store that is new does not take the place of another one';
    is_deeply counts(report($server, 'aaa', 0)), { 'extra:a' => 1 }, 'and has its own report';
    $cursor = $report->{cursor};
    is_deeply report($server, 'main', $cursor)->{lines}, [], 'and what was told is told once';

    use_token($server, $main, 'a');
    my $last = report($server, 'main', $cursor);
    $server->stop;
    wait_for(sub { time >= ($last->{cursor} >> 20) + 1 });    # the cursors of a new zone begin with its second
    $server->start;
    is_deeply report($server, 'main', $last->{cursor})->{lines}, [], 'after a restart there is nothing';
    use_token($server, $main, 'b');
    $report = report($server, 'main', $last->{cursor});
    is_deeply counts($report), { 'main:b' => 1 }, 'but what has been used since';
    cmp_ok $report->{cursor}, '>', $last->{cursor}, 'and the cursor still grows';
}
ok $server->log !~ /\[(?:alert|emerg)\]|signal 11/, 'nothing broke';
$server->stop;

# ---- several workers

{
    my $workers = AuthPat::Server->new(workers => 2, http => conf('pat:1m') =~ s/listen 127.0.0.1:\$PORT;/listen 127.0.0.1:\$PORT reuseport;/r);
    $workers->start;
    use_token($workers, $main, $_, 20) for qw(a b);
    my (%sum, $after);
    wait_for(sub {
        my $report = report($workers, 'main', $after);
        $sum{ $_->{id} } += $_->{count} for @{ $report->{lines} };
        $after = $report->{cursor};
        ($sum{'main:a'} // 0) >= 20 && ($sum{'main:b'} // 0) >= 20;
    });
    is_deeply \%sum, { 'main:a' => 20, 'main:b' => 20 }, 'what several workers see adds up';
    use_token($workers, $main, 'c', 20);
    $workers->reload or die 'no reload: ' . $workers->log;
    wait_for(sub {
        my $report = report($workers, 'main', $after);
        $sum{ $_->{id} } += $_->{count} for @{ $report->{lines} };
        $after = $report->{cursor};
        ($sum{'main:c'} // 0) >= 20;
    });
    is $sum{'main:c'}, 20, 'and nothing is lost with workers that end';
    $workers->stop;
}

# ---- a small zone

{
    my $small = AuthPat::Server->new(http => conf('pat:64k'));
    $small->start;
    my $capacity = JSON::PP->new->utf8->decode($small->get('/status')->{body})->{tokens}{capacity};
    cmp_ok $capacity, '>', 20, "a zone of 64k has room for some tokens ($capacity)";
    cmp_ok $capacity, '<', 1000, 'and not for many';
    my $count = $capacity + 50;
    my $socket = $small->connect;
    AuthPat::Server::exchange($socket, "GET /many HTTP/1.1\r\nHost: a\r\n" . bearer($many, "t$_") . "\r\n\r\n") for 1 .. $count;
    my $status = JSON::PP->new->utf8->decode($small->get('/status')->{body});
    is $status->{tokens}{known}, $capacity, 'a full zone knows as many as it has room for';
    is $status->{tokens}{evicted}, 50, 'and counts those that had to go';
    is $status->{tokens}{lost_uses}, 50, 'and the uses that were never told';
    my %told;
    my $after = 0;
    while (1) {
        my $report = report($small, 'many', $after);
        last if !@{ $report->{lines} };
        $told{ $_->{id} } += $_->{count} for @{ $report->{lines} };
        $after = $report->{cursor};
    }
    is_deeply [sort { $a <=> $b } map { /(\d+)$/ } keys %told], [51 .. $count], 'the least recently used went first';
    AuthPat::Server::exchange($socket, "GET /many HTTP/1.1\r\nHost: a\r\n" . bearer($many, "t$_") . "\r\n\r\n") for 1 .. 10;
    $status = JSON::PP->new->utf8->decode($small->get('/status')->{body});
    is $status->{tokens}{evicted}, 60, 'one that was told and confirmed makes room, too';
    is $status->{tokens}{lost_uses}, 50, 'and nothing is lost by that';
    is_deeply counts(report($small, 'many', $after)), { map { ("many:t$_" => 1) } 1 .. 10 }, 'those that come back are told again';
    $small->stop;
}
{
    my $server = AuthPat::Server->new(http => conf('pat:1m'));
    $server->start;
    my $status = JSON::PP->new->utf8->decode($server->get('/status')->{body});
    my $capacity = $status->{tokens}{capacity};
    cmp_ok $capacity, '>', 5000, "a megabyte has room for about 6,000 tokens ($capacity)";
    cmp_ok $capacity, '<', 7500, 'and not for many more';
    $server->stop;
}

# ---- configurations that are wrong

for my $case (
    ['', "auth_pat_store $main->{path};", qr/"auth_pat_usage" is used without an "auth_pat_zone" in .*nginx\.conf:\d+/],
    ['auth_pat_zone pat:1m;', '', qr/"auth_pat_usage" is used without an "auth_pat_store" in .*nginx\.conf:\d+/],
    ['', '', qr/"auth_pat_usage" is used without an "auth_pat_(?:store|zone)" in .*nginx\.conf:\d+/])
{
    my ($zone, $store, $message) = @$case;
    my $server = AuthPat::Server->new(http => "$zone server { listen 127.0.0.1:\$PORT; location = /usage { $store auth_pat_usage; } }");
    my ($exit, $said) = $server->check;
    isnt $exit, 0, 'auth_pat_usage needs a store and a zone';
    like $said, $message, 'and says what is missing, and where';
}
for my $order ("auth_pat_zone pat:1m; SERVER", "SERVER auth_pat_zone pat:1m;") {
    my $server = AuthPat::Server->new(http => $order =~ s/SERVER/auth_pat_store $main->{path}; server { listen 127.0.0.1:\$PORT; location = \/usage { auth_pat_usage; } }/r);
    my ($exit, $said) = $server->check;
    is $exit, 0, 'a store of http and a zone will do, wherever the zone stands' or diag $said;
}

done_testing;
