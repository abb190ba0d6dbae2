# The recipe for WebSockets, with a real client and a real service.

use strict;
use warnings;

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use AuthPat::Peer;
use AuthPat::Server qw(wait_for);
use AuthPat::Site qw(bearer header make_store);
use AuthPat::Upstream;
use JSON::PP qw(decode_json);
use Test::More;

# Three sockets at once instead of twenty.
my $site  = AuthPat::Site->new(recipes => ['websocket'], change => { 'limit_conn websocket_open 20' => 'limit_conn websocket_open 3' });
my $peer  = "$FindBin::Bin/recipes/websocket_peer.py";
my $store = make_store('api');
$site->start;

my $service = AuthPat::Peer->new($peer, 'serve', $site->port(8080));
$service->line or BAIL_OUT('the service does not start: ' . $service->errors);

sub token { my ($subject, @arguments) = @_; return issue($store, '--subject', $subject, @arguments) }

# A client, what became of its handshake, and what the service was sent.
sub open_socket {
    my ($path, @headers) = @_;
    my $client = AuthPat::Peer->new($peer, 'connect', $site->port(443), $path, @headers);
    my $answer = decode_json($client->line // '{"status":"nothing"}');
    my $sent   = $answer->{status} eq 101 ? decode_json(decode_json($client->line)->{message}) : {};
    return ($client, $answer, $sent);
}

sub says {
    my ($client, $text) = @_;
    $client->tell($text);
    return decode_json($client->line // '{"message":null}')->{message};
}

my $alice = token('alice');
my $bob   = token('bob');

# ---- a token as a subprotocol

my ($client, $answer, $sent) = open_socket('/socket', "offer=bearer $alice");
is($answer->{status}, 101, 'the token as a subprotocol: open') or diag explain $answer;
is($answer->{selected}, 'bearer', '"bearer" is selected, as the service selects nothing');
is($sent->{'x-auth-pat-subject'}, 'alice', 'the service gets the subject');
ok(!exists $sent->{'sec-websocket-protocol'}, 'and no subprotocol');
unlike(join(' ', %$sent), qr/\Q$alice/, 'and not the token, in no header');
is($sent->{connection} =~ tr/A-Z/a-z/r, 'upgrade', 'and one Connection header');
is(says($client, 'hello'), 'hello', 'a message comes back');

my ($chat, $chat_answer, $chat_sent) = open_socket('/socket', "offer=chat.v1 bearer $bob");
is($chat_answer->{selected}, 'chat.v1', 'what the service selects is selected, once');
is($chat_sent->{'sec-websocket-protocol'}, 'chat.v1', 'the service sees the application\'s subprotocol');

(undef, $answer, $sent) = open_socket('/socket', "offer=chat.v2 chat.v1 bearer $bob");
is($answer->{selected}, 'chat.v1', 'of several, too');
is($sent->{'sec-websocket-protocol'}, 'chat.v2, chat.v1', 'which the service all sees');

(undef, $answer) = open_socket('/socket', 'offer=chat.v1');
is($answer->{status}, 401, 'no token: 401');
is($answer->{challenge}, 'Bearer realm="socket.referon.com"', 'and the challenge');
for my $case (
    ['a bad token'                   => "offer=bearer $alice" . 'x'],
    ['a token that is not the last'  => "offer=bearer $alice chat.v1"],
    ['a token without "bearer"'      => "offer=chat.v1 $alice"],
    ['a token behind "Bearer"'       => "offer=Bearer $alice"],
    ['a token in Authorization'      => "Authorization=Bearer $alice"],
    ['a token in a cookie'           => "Cookie=pat=$alice", 'Origin=https://app.referon.com'],
) {
    my ($name, @headers) = @$case;
    is((open_socket('/socket', @headers))[1]{status}, 401, "$name: 401");
}

# ---- a token in a cookie

my ($cookie, $cookie_answer, $cookie_sent)
    = open_socket('/cookie-socket', "Cookie=theme=dark; pat=$alice", 'Origin=https://app.referon.com');
is($cookie_answer->{status}, 101, 'the token in a cookie, from our own page: open') or diag explain $cookie_answer;
is($cookie_sent->{'x-auth-pat-subject'}, 'alice', 'the service gets the subject');
ok(!exists $cookie_sent->{cookie}, 'and no cookie');
is(says($cookie, 'hello'), 'hello', 'a message comes back');

for my $origin ('https://evil.example', 'https://app.referon.com.evil.example', 'http://app.referon.com', 'null', undef) {
    (undef, $answer) = open_socket('/cookie-socket', "Cookie=pat=$alice", $origin ? "Origin=$origin" : ());
    is($answer->{status}, 403, 'the cookie from ' . ($origin // 'no origin') . ': 403');
}
is((open_socket('/cookie-socket', 'Origin=https://app.referon.com'))[1]{status}, 401, 'from our own page without the cookie: 401');
like($site->access_log('socket.referon.com'), qr/ 403 \d+ require_denied /, 'the log says why');

# ---- nothing else is there, and not without end

for my $path ('/', '/index.html', '/socketxyz', '/socket/', '/cookie-socketxyz') {
    my $there = $site->request("https://socket.referon.com$path", '--http1.1', '-H', "Sec-WebSocket-Protocol: bearer, $alice");
    is($there->{status}, 404, "$path: 404");
    like($there->{body}, qr/^\{"error":"not_found"/, "$path: as JSON");
}

my $dave = token('dave');
my @open = map { (open_socket('/socket', 'offer=bearer ' . ($_ == 2 ? token('dave') : $dave)))[0] } 1 .. 3;
is((open_socket('/socket', "offer=bearer $dave"))[1]{status}, 429, 'a subject has a limit of open sockets: 429');
my @erin = open_socket('/socket', 'offer=bearer ' . token('erin'));
is($erin[1]{status}, 101, 'another subject has one of its own');
pop(@open)->stop;
ok(wait_for(sub { (open_socket('/socket', "offer=bearer $dave"))[1]{status} == 101 }), 'one that was closed does not count');

# ---- a revocation while sockets are open

patctl($store, 'revoke', '--subject', 'alice');
for my $case ([subprotocol => $client], [cookie => $cookie]) {
    my ($name, $socket) = @$case;
    like($socket->line, qr/^\{"closed": 1006\}$/, "a socket is closed after the revocation of its token ($name)");
}
ok(wait_for(sub { 2 == (() = $site->access_log('socket.referon.com') =~ / 101 \d+ revoked /g) }), 'the access log says why');
is(says($chat, 'still here'), 'still here', 'the socket of another token stays');
is((open_socket('/socket', "offer=bearer $alice"))[1]{status}, 401, 'and a new one with the revoked token is refused');

# ---- nothing but WebSockets

$service->stop;
my $upstream = AuthPat::Upstream->new(port => $site->port(8080));
for my $case (['/socket', '-H', "Sec-WebSocket-Protocol: bearer, $bob"],
    ['/cookie-socket', '-H', "Cookie: pat=$bob", '-H', 'Origin: https://app.referon.com']) {
    my ($path, @with) = @$case;
    my $upgraded = sub {
        my ($protocol) = @_;
        my $there = $site->request("https://socket.referon.com$path", '--http1.1', @with, '-H', 'Connection: Upgrade, HTTP2-Settings',
            '-H', "Upgrade: $protocol", '-H', 'HTTP2-Settings: AAMAAABkAAQAAP__');
        is($there->{status}, 200, "$path, Upgrade: $protocol: passed on");
        return join ', ', map { lc } $there->{body} =~ /^((?:upgrade|connection): .*?)\r?$/mig;
    };
    is($upgraded->('h2c'), '', "$path: no other protocol, which would be a way past nginx");
    is($upgraded->('websocket, h2c'), '', "$path: nor one among several");
    is($upgraded->('WebSocket'), 'connection: upgrade, upgrade: websocket', "$path: WebSocket, however it is written");
}

unlike($site->log . $site->access_log('socket.referon.com'), qr/\Q${\ substr $alice, 0, 20}/, 'no log has a token');

done_testing();
