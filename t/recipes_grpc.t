# The recipe for gRPC, with a real client and a real service.

use strict;
use warnings;

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use AuthPat::Peer;
use AuthPat::Server qw(slurp wait_for);
use AuthPat::Site qw(bearer header make_store);
use JSON::PP qw(decode_json);
use Test::More;

# /referon.Closed/ is not in the recipe: a 403 that is not about the token.
my $site  = AuthPat::Site->new(recipes => ['grpc'], keeps_count => 1, change => {
    '    # A service that needs a scope.' => "location /referon.Closed/ { deny all; grpc_pass grpc://127.0.0.1:1; }\n" });
my $peer  = "$FindBin::Bin/recipes/grpc_peer.py";
my $store = make_store('api');
$site->start;

my @to = ($site->port(443), $site->certificates . '/fullchain.pem');

sub token { my ($subject, @arguments) = @_; return issue($store, '--subject', $subject, @arguments) }

sub call {
    my ($method, @token) = @_;
    return decode_json(AuthPat::Peer->new($peer, 'call', @to, $method, @token)->line // '{}');
}

my $alice = token('alice');
my $admin = token('root', '--scope', 'admin');

# ---- without a service

my $answer = call('/referon.Demo/Echo', $alice);
is($answer->{code}, 14, 'the service is down: UNAVAILABLE');
is($answer->{details}, 'the service is not available now, try again', 'with a message');

my $service = AuthPat::Peer->new($peer, 'serve', $site->port(50051));
$service->line or BAIL_OUT('the service does not start: ' . $service->errors);

# ---- let in

$answer = call('/referon.Demo/Echo', $alice);
is($answer->{code}, 0, 'a good token: OK') or diag explain $answer;
is($answer->{answer}{size}, 10, 'the message arrives');
is($answer->{answer}{metadata}{'x-auth-pat-subject'}, 'alice', 'the service gets the subject, not what the client says');
ok(!exists $answer->{answer}{metadata}{authorization}, 'and not the token');
is(call('/referon.Admin/Echo', $admin)->{code}, 0, 'a service that needs a scope, with it: OK');

my $zoe = token('zoë', '--name', 'Zoë');
$answer = call('/referon.Demo/Echo', $zoe);
is($answer->{code}, 0, 'a subject and a name that are not ASCII do not break the call') or diag explain $answer;
is_deeply([grep { /^x-auth-pat-(?:subject|name)$/ } sort keys %{ $answer->{answer}{metadata} }], [], 'and are left out');
ok($answer->{answer}{metadata}{'x-auth-pat-id'}, 'the id is there');

# What the client makes up: one message of one byte, by a client that sends any header.
my $message = scratch() . '/message';
write_file($message, pack 'CNa', 0, 1, 'x');
my @spoofed = map { ('-H', "$_: spoofed") } qw(X-Real-IP X-Forwarded-For X-Forwarded-Proto X-Forwarded-Host Forwarded X-Request-ID
    X-API-Key X-Auth-Pat-Id X-Auth-Pat-Subject X-Auth-Pat-Name X-Auth-Pat-Scope X-Auth-Pat-Expires);
$answer = $site->request('https://grpc.referon.com/referon.Demo/Echo', bearer($alice), @spoofed, '-H',
    'Content-Type: application/grpc', '-H', 'TE: trailers', '--data-binary', "\@$message");
my $metadata = decode_json(substr $answer->{body}, 5)->{metadata};
is($metadata->{'x-real-ip'}, '127.0.0.1', 'the service gets the client\'s address');
is($metadata->{'x-forwarded-proto'}, 'https', 'and the scheme');
is_deeply([grep { $metadata->{$_} =~ /spoofed/ } sort keys %$metadata], [], 'and nothing of what the client made up');

# The two lists of headers, for gRPC and for the rest. HTTP/2 has no Connection.
my ($rest, $grpc) = map {
    my $kind = $_;
    [sort { $a cmp $b } map { s/\$auth_pat_ascii_/\$auth_pat_/r } grep { !/^Connection / } slurp("$AuthPat::ROOT/conf.d/snippets/auth-pat-$kind.conf") =~ /^${kind}_set_header (.*);$/mg];
} qw(proxy grpc);
ok(@$rest > 10, 'there is a list of headers');
is_deeply($grpc, $rest, 'a gRPC service is told what other upstreams are');

$answer = call('/referon.Demo/Refuse', $alice);
is($answer->{code}, 9, 'an error of the service keeps its code');
is($answer->{details}, 'not now', 'and its message');
is(call('/referon.Demo/Nothing', $alice)->{code}, 12, 'a method that is not there: UNIMPLEMENTED, by the service');

# ---- refused

$answer = call('/referon.Demo/Echo');
is($answer->{code}, 16, 'no token: UNAUTHENTICATED');
is($answer->{details}, 'the access token is not valid: missing', 'and why');
is($answer->{metadata}{'www-authenticate'}, 'Bearer realm="grpc.referon.com"', 'and the challenge');

my $revoked = token('mallory');
is(call('/referon.Demo/Echo', $revoked)->{code}, 0, 'before its revocation: OK');
patctl($store, 'revoke', '--subject', 'mallory');
$answer = call('/referon.Demo/Echo', $revoked);
is($answer->{code}, 16, 'a revoked token: UNAUTHENTICATED');
is($answer->{details}, 'the access token is not valid: revoked', 'and why');

$answer = call('/referon.Admin/Echo', $alice);
is($answer->{code}, 7, 'without the scope: PERMISSION_DENIED');
is($answer->{details}, 'the access token does not allow this: scope_denied', 'and why');

$answer = call('/referon.Closed/Echo', $alice);
is($answer->{code}, 7, 'what nginx itself denies: PERMISSION_DENIED');
is($answer->{details}, 'this is not allowed', 'and nothing about the token');

$answer = decode_json(AuthPat::Peer->new($peer, 'calls', @to, '/referon.Demo/Echo', token('bob'))->line // '{}');
is($answer->{code}, 8, 'too many requests: RESOURCE_EXHAUSTED');

# ---- what it looks like on the wire

$answer = $site->request('https://grpc.referon.com/referon.Demo/Echo', '-X', 'POST', '-H', 'Content-Type: application/grpc');
is($answer->{version}, 2, 'over HTTP/2');
is($answer->{status}, 200, 'a refusal has the HTTP status 200');
is(header($answer, 'Content-Type'), 'application/grpc', 'is of type application/grpc');
is(header($answer, 'grpc-status'), 16, 'and has grpc-status');

my @nghttp = ('nghttp', '-nv', '--no-verify-peer', '-H', ':method: POST', '-H', 'content-type: application/grpc', '-H',
    'te: trailers', '-H', ':authority: grpc.referon.com', "https://127.0.0.1:$to[0]/referon.Demo/Echo");
open my $nghttp, '-|', @nghttp or die "nghttp: $!\n";
my $frames = do { local $/; <$nghttp> } =~ s/\e\[[\d;]*m//gr;
close $nghttp;
like($frames, qr/recv HEADERS frame <length=\d+, flags=0x05, stream_id=\d+>\s+; END_STREAM/,
    'in one frame of headers that ends the stream: Trailers-Only');
unlike($frames, qr/recv DATA frame/, 'with no data');

# ---- a stream

my $watcher  = token('carol');
my $watch    = AuthPat::Peer->new($peer, 'watch', @to, '/referon.Demo/Watch', $watcher);
my $stays    = AuthPat::Peer->new($peer, 'watch', @to, '/referon.Demo/Watch', $alice);
like($watch->line, qr/tick/, 'a stream begins');
like($stays->line, qr/tick/, 'and another');
patctl($store, 'revoke', '--subject', 'carol');
my $last;
wait_for(sub { my $line = $watch->line // return 1; $last = $line; return $line =~ /"code"/ });
$answer = decode_json($last);
is($answer->{code}, 13, 'it ends after the revocation of its token: INTERNAL') or diag $answer->{details};
like($site->log, qr/closed|revoked/, 'the error log has it');
ok(wait_for(sub { $site->access_log('grpc.referon.com') =~ m{/referon\.Demo/Watch HTTP/2\.0" \d+ \d+ revoked } }),
    'the access log has it');
$stays->drain;
like($stays->line, qr/tick/, 'the other one goes on');

unlike($site->log . $site->access_log('grpc.referon.com'), qr/\Q${\ substr $alice, 0, 20}/, 'no log has a token');

done_testing();
