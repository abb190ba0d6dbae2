# Recipes about what is between client and upstream: cache, mirror, several-apis, load-balancer.

use strict;
use warnings;

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use AuthPat::Server qw(slurp wait_for);
use AuthPat::Site qw(bearer header all_headers make_store);
use AuthPat::Upstream;
use IO::Socket::INET;
use IO::Socket::SSL;
use Test::More;

# nginx listens on all addresses of 127.0.0.0/8, so that clients can have different ones.
my $site = AuthPat::Site->new(recipes => ['cache', 'mirror', 'several-apis', 'load-balancer'], listen => '0.0.0.0',
    change => { '192.0.2.10' => '127.0.0.10', '192.0.2.11' => '127.0.0.11' });
my $upstream = AuthPat::Upstream->new(port => $site->port(8080), answer => sub {
    my ($head, $size) = @_;
    my (undef, $headers, $body) = AuthPat::Upstream::echo($head, $size);
    return ('500 Oops', $headers, $body) if $head =~ m{^\S+ /fails};
    return ('200 OK', "${headers}Cache-Control: private\r\n", $body) if $head =~ m{^\S+ /private};
    return ('200 OK', "${headers}Set-Cookie: session=1\r\n", $body) if $head =~ m{^\S+ /session};
    return ('200 OK', $headers, $body);
});
my $mirrored = AuthPat::Upstream->new(port => $site->port(8090), arrived => sub { write_file(scratch() . '/mirrored', $_[1]) });

for my $name (qw(orders billing)) {
    write_file("$site->{root}/pepper-$name", unpack('H*', "pepper of $name") . '00' x 32);
    chmod 0600, "$site->{root}/pepper-$name";
}
sub peppered { my ($name) = @_; return ('--pepper-file', "$site->{root}/pepper-$name") }

my $store   = make_store('api');
my $orders  = make_store('orders', peppered('orders'));
my $billing = make_store('billing', peppered('billing'));
$site->start;

sub token { my ($subject, @arguments) = @_; return issue($store, '--subject', $subject, @arguments) }

sub sent { my ($answer, $name) = @_; return join ' | ', $answer->{body} =~ /^\Q$name\E: (.*)$/mig }

my $answer;

# ---- cache

{
    my $url   = 'https://cache.referon.com';
    my @read  = ('--scope', 'api:read');
    my $alice = token('alice', @read);
    my $twin  = token('alice', @read);
    my $bob   = token('bob', @read);
    my $count = 0;

    # What the cache says, and whose answer it is.
    my $ask = sub {
        my ($path, @options) = @_;
        $answer = $site->request("$url$path", @options);
        return header($answer, 'X-Cache-Status') . ' ' . sent($answer, 'X-Auth-Pat-Subject');
    };
    is($ask->('/t', bearer($alice)), 'MISS alice', 'cache: the first answer is the upstream\'s');
    is($ask->('/t', bearer($alice)), 'HIT alice', 'cache: the second comes from the cache');
    is($ask->('/t', bearer($twin)), 'HIT alice', 'cache: also for another token of the subject');
    is(header($answer, 'Vary'), 'Authorization', 'cache: Vary: Authorization');
    is($ask->('/t', bearer($bob)), 'MISS bob', 'cache: another subject gets an answer of its own');
    is($ask->('/t', bearer($bob)), 'HIT bob', 'cache: which is kept, too');
    is($ask->('/t?x=1', bearer($bob)), 'MISS bob', 'cache: another query is another answer');
    is($ask->('/t', bearer(token('alice', @read, '--scope', 'admin'))), 'MISS alice', 'cache: so are other scopes');
    is(sent($answer, 'X-Auth-Pat-Scope'), 'api:read admin', 'cache: of which the upstream is told');
    is($ask->('/t', bearer($alice), '-I'), 'HIT ', 'cache: HEAD comes from the cache, too');

    # What the key has, an id of the request, and nothing else.
    my @told = ('Host: cache.referon.com', 'X-Auth-Pat-Scope: api:read', 'X-Auth-Pat-Subject: carol', 'X-Forwarded-Proto: https',
        'X-Request-ID: …');
    my @made_up = map { ('-H', "$_: made-up") } qw(Accept Accept-Encoding Accept-Language Cookie Forwarded If-None-Match
        Origin Referer User-Agent X-Auth-Pat-Claim-Plan X-Auth-Pat-Expires X-Auth-Pat-Id X-Auth-Pat-Name X-Auth-Pat-Scope
        X-Auth-Pat-Subject X-Forwarded-For X-Forwarded-Host X-Forwarded-Port X-Forwarded-Proto X-HTTP-Method-Override
        X-Original-URL X-Real-IP X-Request-ID X-Whatever);
    my $carol = token('carol', @read, '--name', 'laptop');
    for my $case (
        ['headers'                       => @made_up],
        ['headers, HTTP/1.1'             => '--http1.1', @made_up],
        ['a body'                        => '-X', 'GET', '--data-binary', 'made-up'],
        ['a body without a length'       => '-X', 'GET', '--data-binary', 'made-up', '-H', 'Content-Length:'],
        ['a body in chunks'              => '-X', 'GET', '--data-binary', 'made-up', '--http1.1', '-H', 'Transfer-Encoding: chunked'],
    ) {
        my ($name, @options) = @$case;
        is($ask->('/u?' . $count++, bearer($carol), @options), 'MISS carol', "cache: $name of the client's");
        my (undef, @got) = split /\n/, $answer->{body} =~ s/^(X-Request-ID: )[0-9a-f]{32}$/$1…/mr;
        is_deeply([sort { $a cmp $b } @got], [sort { $a cmp $b } @told, '', 'body: 0 bytes'],
            "cache: $name: the upstream is told what the key has, and nothing else") or diag explain \@got;
    }
    is($ask->('/u?0', bearer($carol), '-H', 'X-Forwarded-Host: evil.example', '-H', 'X-Request-ID: evil'), 'HIT carol',
        'cache: who makes up more gets the same answer');

    # Subjects, scopes and addresses that look the same when they are written one behind the other.
    for my $pair (
        [['a', '/b/t'],         ['a/b', '/t']],
        [['a b', '/t'],         ['a', '/t', 'b']],
    ) {
        my @seen = map {
            my ($subject, $path, @more) = @$_;
            $ask->("$path?pair=" . ($count++ >> 1), bearer(token($subject, (map { ('--scope', $_) } @more), @read)));
        } @$pair;
        like($seen[1], qr/^MISS/, "cache: \"$pair->[1][0]\" does not get the answer of \"$pair->[0][0]\"");
    }

    # Who gets nothing from the cache.
    is($ask->('/t'), ' ', 'cache: no token, nothing');
    is($answer->{status}, 401, 'cache: but 401');
    $ask->('/t', bearer(token('alice')));
    is($answer->{status}, 403, 'cache: 403 without the scope');
    is($ask->('/t', bearer($alice)), 'HIT alice', 'cache: the answer is still there');
    patctl($store, 'revoke', '--subject', 'alice');
    $ask->('/t', bearer($alice));
    is($answer->{status}, 401, 'cache: 401 for the token that was revoked since');
    unlike($answer->{body}, qr/alice/, 'cache: and nothing of what is kept');
    is($ask->('/t', bearer($bob)), 'HIT bob', 'cache: others are still served from it');

    # What is not kept.
    for my $path ('/fails', '/private', '/session') {
        $ask->($path, bearer($bob));
        is($ask->($path, bearer($bob)), 'MISS bob', "cache: $path is not kept");
    }

    # What goes past it.
    my $writer = token('bob', @read, '--scope', 'api:write');
    is($ask->('/w', bearer($writer)), 'MISS bob', 'cache: GET of a client that may write');
    for my $method (qw(POST PUT DELETE OPTIONS)) {
        is($ask->('/w', bearer($writer), '-X', $method, '-d', 'hello', '-H', 'If-Match: "x"'), ' bob', "cache: $method goes past the cache");
        like($answer->{body}, qr{^$method /w HTTP}, "cache: $method: the upstream gets it");
        like($answer->{body}, qr/^body: 5 bytes$/m, "cache: $method: with its body");
        is(sent($answer, 'If-Match') . sent($answer, 'Content-Type'), '"x"application/x-www-form-urlencoded', "cache: $method: and its headers");
        is(sent($answer, 'Authorization'), '', "cache: $method: but not the token");
    }
    for my $case (
        [401, 'token_missing', 'without a token'],
        [403, 'scope_denied',  'without the scope to write', bearer($bob)],
        [401, 'token_revoked', 'with a revoked token', bearer($alice)],
    ) {
        my ($status, $error, $name, @options) = @$case;
        $ask->('/w', @options, '-d', 'hello');
        is($answer->{status}, $status, "cache: POST $name: $status");
        like($answer->{body}, qr/^\{"error":"$error"/, "cache: POST $name: $error");
        like(header($answer, 'WWW-Authenticate'), qr/^Bearer realm="cache\.referon\.com"/, "cache: POST $name: the challenge");
    }
    ok(wait_for(sub { $site->access_log('cache.referon.com') =~ m{"POST /w HTTP/2\.0" 401 \d+ revoked } }), 'cache: the log has it');
    is($ask->('/w', bearer($writer)), 'HIT bob', 'cache: what is kept is still there');
    unlike(`grep -rla '$bob' $site->{root}/cache`, qr/./, 'cache: no token is in the cache');
}

# The same where a token is not needed.
{
    my $open = AuthPat::Site->new(recipes => ['cache'], change => { 'auth_pat_require_scope api:read;' => 'auth_pat_optional on;' });
    my $behind = AuthPat::Upstream->new(port => $open->port(8080));
    $open->start;
    my $bob = token('bob');
    my @seen = map { header($open->request('https://cache.referon.com/t', @$_), 'X-Cache-Status') } [], [], [bearer($bob)],
        [bearer($bob)], [];
    is_deeply(\@seen, [qw(BYPASS BYPASS MISS HIT BYPASS)], 'cache: what anonymous clients get is not from the cache');
    my @kept = split /\n/, `find $open->{root}/cache -type f`;
    is(scalar @kept, 1, 'cache: nor kept there') or diag "@kept";
}

# ---- mirror

{
    my $url   = 'https://mirror.referon.com';
    my $alice = token('mirror:alice');
    $answer = $site->request("$url/things?page=2", bearer($alice), '-d', 'hello', '-H', 'X-Auth-Pat-Id: pat_admin');
    is($answer->{status}, 200, 'mirror: a good token: 200');
    like($answer->{body}, qr/^body: 5 bytes$/m, 'mirror: the upstream gets the body');
    ok(wait_for(sub { $mirrored->requests == 1 }), 'mirror: the test system gets a copy');
    my ($copy) = $mirrored->requests;
    like($copy, qr{^POST /things\?page=2 HTTP/1\.1$}m, 'mirror: with method, path and query');
    ok(wait_for(sub { slurp(scratch() . '/mirrored') eq '5' }), 'mirror: and the body');
    like($copy, qr/^X-Auth-Pat-Subject: mirror:alice$/m, 'mirror: and the identity');
    like($copy, qr/^X-Mirrored: 1$/m, 'mirror: and a mark');
    unlike($copy, qr/^Authorization|\Q$alice\E|admin/m, 'mirror: but not the token, nor what the client says about itself');

    my $revoked = token('mirror:bob');
    patctl($store, 'revoke', '--subject', 'mirror:bob');
    is($site->request("$url/things", bearer($revoked), '-d', 'x')->{status}, 401, 'mirror: a revoked token: 401');
    is($site->request("$url/things")->{status}, 401, 'mirror: no token: 401');
    is($site->request("$url/_mirror", bearer($alice))->{status}, 404, 'mirror: nobody gets there from outside');
    is($site->request("$url/last", bearer($alice))->{status}, 200, 'mirror: another good one');
    ok(wait_for(sub { grep { m{/last} } $mirrored->requests }), 'mirror: is copied');
    is(scalar $mirrored->requests, 2, 'mirror: of what was refused there was no copy');

    $mirrored->stop;
    is($site->request("$url/t", bearer($alice))->{status}, 200, 'mirror: without the test system: 200');
}

# ---- several-apis

{
    my $order = issue($orders,  peppered('orders'),  '--subject', 'orders:1');
    my $bill  = issue($billing, peppered('billing'), '--subject', 'billing:1', '--prefix', 'robill_');
    my $same  = token('api:1');    # the prefix of orders, another store
    like($order, qr/^ropat_/,  'several-apis: tokens of one store have its prefix');
    like($bill,  qr/^robill_/, 'several-apis: those of the other have another');

    my %subject = ($order => 'orders:1', $bill => 'billing:1');
    for my $case (
        ['orders.referon.com/t',          $order, 200, 'ok'],
        ['orders.referon.com/t',          $bill,  401, 'malformed'],
        ['orders.referon.com/t',          $same,  401, 'unknown'],
        ['orders.referon.com/billing/t',  $bill,  200, 'ok'],
        ['orders.referon.com/billing/t',  $order, 401, 'malformed'],
        ['billing.referon.com/t',         $bill,  200, 'ok'],
        ['billing.referon.com/t',         $order, 401, 'malformed'],
    ) {
        my ($at, $token, $status, $why) = @$case;
        my ($host) = $at =~ m{^([^/]+)};
        my ($kind) = $token =~ /^([^_]+_)/;
        $answer = $site->request("https://$at", bearer($token));
        is($answer->{status}, $status, "several-apis: $kind at $at: $status");
        is(sent($answer, 'X-Auth-Pat-Subject'), $subject{$token}, "several-apis: $kind at $at: its subject") if $status == 200;
        ok(wait_for(sub { ($site->access_log($host) =~ / (\S+) "[^"]*" \S+ "[^"]*" \S+\n\z/)[0] eq $why }),
            "several-apis: $kind at $at: $why");
    }
    like(header($site->request('https://orders.referon.com/billing/t'), 'WWW-Authenticate'), qr/realm="billing\.referon\.com"/,
        'several-apis: the challenge names the API');

    my %id = map { my ($name, $of) = @$_; ($name => patctl($of, 'list', '--json', peppered($name)) =~ /"id":"([^"]+)"/ ? $1 : die) }
        [orders => $orders], [billing => $billing];
    for my $name (sort keys %id) {
        my ($other) = grep { $_ ne $name } keys %id;
        my $usage;
        ok(wait_for(sub { ($usage = $site->request("http://localhost:8082/usage/$name?after=0")->{body}) =~ /"\Q$id{$name}\E"/ }),
            "several-apis: the usage of $name has its token");
        unlike($usage, qr/\Q$id{$other}\E/, "several-apis: and not that of $other");
    }
}

# ---- load-balancer

{
    my $url   = 'https://balanced.referon.com/t';
    my $token = token('lb', '--cidr', '203.0.113.0/24');
    my $ask   = sub {
        my ($peer, $forwarded) = @_;
        $answer = $site->request($url, bearer($token), '--interface', $peer, $forwarded ? ('-H', "X-Forwarded-For: $forwarded") : ());
        return $answer->{status};
    };
    is($ask->('127.0.0.10', '203.0.113.7'), 200, 'load-balancer: a client in the token\'s range: 200');
    is(sent($answer, 'X-Real-IP'), '203.0.113.7', 'load-balancer: the upstream is told its address');
    is(sent($answer, 'X-Forwarded-For'), '203.0.113.7', 'load-balancer: in either header');
    is($ask->('127.0.0.10', '198.51.100.1'), 403, 'load-balancer: one that is not: 403');
    is($ask->('127.0.0.10', '203.0.113.7, 127.0.0.11'), 200, 'load-balancer: two in a row: 200');
    is($ask->('127.0.0.10', '203.0.113.7, 198.51.100.1'), 403,
        'load-balancer: what the client has put before its own address does not count: 403');
    is($ask->('127.0.0.10', '203.0.113.7, 198.51.100.1, 127.0.0.11'), 403, 'load-balancer: nor with two in a row: 403');
    is($ask->('127.0.0.12', '203.0.113.7'), 403, 'load-balancer: the header of anybody else does not count: 403');
    is($ask->('127.0.0.10'), 403, 'load-balancer: without the header it is the load balancer\'s address: 403');
    like($site->access_log('balanced.referon.com'), qr/^203\.0\.113\.7 .* 200 \d+ ok /m, 'load-balancer: the log has the address');
    like($site->access_log('balanced.referon.com'), qr/^198\.51\.100\.1 .* 403 \d+ address_denied /m, 'load-balancer: of those refused, too');

    # The PROXY protocol, which is spoken before TLS.
    my $by_proxy = sub {
        my ($peer, $line) = @_;
        my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $site->port(8443), LocalAddr => $peer, Timeout => 5)
            or die "connect: $!\n";
        print {$socket} $line;
        IO::Socket::SSL->start_SSL($socket, SSL_verify_mode => 0, Timeout => 5) or return 0;
        print {$socket} "GET /t HTTP/1.1\r\nHost: balanced.referon.com\r\nAuthorization: Bearer $token\r\n"
            . "X-Forwarded-For: 203.0.113.9\r\nConnection: close\r\n\r\n";
        my $text = do { local $/; <$socket> } // '';
        my ($status) = $text =~ m{^HTTP/1\.1 (\d+)} or return 0;
        return ($status, $text =~ /^X-Real-IP: (.*?)\r?$/m);
    };
    is(join(' ', $by_proxy->('127.0.0.10', "PROXY TCP4 203.0.113.7 192.0.2.1 5555 443\r\n")), '200 203.0.113.7',
        'load-balancer: the address of the PROXY protocol: 200');
    is(($by_proxy->('127.0.0.10', "PROXY TCP4 198.51.100.1 192.0.2.1 5555 443\r\n"))[0], 403,
        'load-balancer: one that is not in the range: 403, whatever the headers say');
    is(($by_proxy->('127.0.0.12', "PROXY TCP4 203.0.113.7 192.0.2.1 5555 443\r\n"))[0], 403,
        'load-balancer: the PROXY protocol of anybody else does not count: 403');
    is($by_proxy->('127.0.0.10', ''), 0, 'load-balancer: without it: no connection');
}

unlike($site->log, qr/\[(?:emerg|alert)\]|ropat_\w|robill_\w/, 'nothing is in the error log that should not be');
unlike(join('', map { $site->access_log("$_.referon.com") } qw(cache mirror orders billing balanced)), qr/ropat_\w|robill_\w/,
    'and no token in any access log');

done_testing();
