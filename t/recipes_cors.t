# The recipe for CORS: what a browser would make of each answer.

use strict;
use warnings;

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use AuthPat::Server qw(wait_for);
use AuthPat::Site qw(bearer header all_headers make_store);
use AuthPat::Upstream;
use Test::More;

my $site     = AuthPat::Site->new(recipes => ['cors'], keeps_count => 1);
my $store    = make_store('api');
my $upstream = AuthPat::Upstream->new(port => $site->port(8080), answer => sub {
    my ($head, $size) = @_;
    my (undef, $headers, $body) = AuthPat::Upstream::echo($head, $size);
    my $own = join '', map { "$_\r\n" } 'Access-Control-Allow-Origin: https://upstream.example',
        'Access-Control-Allow-Credentials: true', 'Vary: Accept', 'X-From: upstream';
    return ('200 OK', $headers . $own, $body);
});
$site->start;

my $url     = 'https://cors.referon.com';
my $alice   = issue($store, '--subject', 'alice');
my $app     = 'https://app.referon.com';

sub origin { return ('-H', "Origin: $_[0]") }

sub preflight {
    my ($path, $origin, @more) = @_;
    return $site->request("$url$path", '-X', 'OPTIONS', origin($origin), '-H', 'Access-Control-Request-Method: PUT', '-H',
        'Access-Control-Request-Headers: authorization', @more);
}

# May a script of this origin read the answer? As a browser decides it, for a request without cookies.
sub readable {
    my ($answer, $origin) = @_;
    my @allowed = all_headers($answer, 'Access-Control-Allow-Origin');
    return @allowed == 1 && $allowed[0] eq $origin;
}

# ---- preflights that nginx answers

my $answer = preflight('/t', $app);
is($answer->{status}, 204, 'a preflight: 204, without a token');
ok(readable($answer, $app), 'the origin is allowed');
like(header($answer, 'Access-Control-Allow-Methods'), qr/\bPUT\b/, 'and the method');
like(header($answer, 'Access-Control-Allow-Headers'), qr/\bAuthorization\b/, 'and the header');
is(header($answer, 'Access-Control-Max-Age'), 7200, 'for two hours');
is(header($answer, 'Vary'), 'Origin', 'Vary: Origin');
is(header($answer, 'Access-Control-Allow-Credentials'), '', 'no credentials');
is($answer->{body}, '', 'and no body');
is(scalar $upstream->requests, 0, 'the upstream has not seen it');
ok(wait_for(sub { $site->access_log('cors.referon.com') =~ m{"OPTIONS /t HTTP/2\.0" 204 0 - "-"} }), 'the log has it, and no decision, as nginx answers before the access phase');

for my $origin ('https://evil.example', 'https://app.referon.com.evil.example', 'https://evil.example/https://app.referon.com',
    'http://app.referon.com', 'https://app.referon.com:8443', 'null', '*') {
    my $refused = preflight('/t', $origin);
    is($refused->{status}, 204, "a preflight of $origin: 204");
    unlike($refused->{head}, qr/^Access-Control/mi, "and nothing allowed to $origin");
    is(header($refused, 'Vary'), 'Origin', "Vary: Origin for $origin");
}

# ---- what looks like one, and is not

for my $case (
    ['OPTIONS without a method'  => '-X', 'OPTIONS', origin($app)],
    ['OPTIONS without an origin' => '-X', 'OPTIONS', '-H', 'Access-Control-Request-Method: PUT'],
    ['GET with both headers'     => origin($app), '-H', 'Access-Control-Request-Method: PUT'],
) {
    my ($name, @options) = @$case;
    is($site->request("$url/t", @options)->{status}, 401, "$name: 401");
}
is(scalar $upstream->requests, 0, 'the upstream has seen none of all these');

# ---- requests

$answer = $site->request("$url/t", origin($app), bearer($alice));
is($answer->{status}, 200, 'a good token: 200');
ok(readable($answer, $app), 'the script may read it') or diag $answer->{head};
is(header($answer, 'Access-Control-Allow-Credentials'), '', 'without cookies, whatever the upstream says');
is(join(', ', sort { $a cmp $b } all_headers($answer, 'Vary')), 'Accept, Origin', 'Vary: Origin, besides the upstream\'s own');
is(header($answer, 'Access-Control-Allow-Methods'), '', 'what is for preflights only is in no other answer');

$answer = $site->request("$url/t", origin($app));
is($answer->{status}, 401, 'no token: 401');
ok(readable($answer, $app), 'the script may read the 401');
like(header($answer, 'Access-Control-Expose-Headers'), qr/WWW-Authenticate/, 'and its challenge');
like(header($answer, 'Access-Control-Expose-Headers'), qr/X-Request-ID/, 'and its id');
like(header($answer, 'X-Request-ID'), qr/^[0-9a-f]{32}$/, 'which is there');
like($answer->{body}, qr/^\{"error":"token_missing"/, 'and its body, which is JSON');
is(header($answer, 'Vary'), 'Origin', 'and has Vary: Origin');

my $busy = issue($store, '--subject', 'bob');
$answer = $site->request("$url/t?[1-60]", origin($app), bearer($busy));
is($answer->{status}, 429, 'too many requests: 429');
ok(readable($answer, $app), 'the script may read the 429');
like(header($answer, 'Access-Control-Expose-Headers'), qr/Retry-After/, 'and its Retry-After');
is(header($answer, 'Retry-After'), 1, 'which is there');

$answer = $site->request("$url/t", origin('https://evil.example'), bearer($alice));
unlike($answer->{head}, qr/^Access-Control/mi, 'a script of another origin may not read an answer');
is(join(', ', sort { $a cmp $b } all_headers($answer, 'Vary')), 'Accept, Origin', 'which still has Vary: Origin');
unlike($site->request("$url/t", bearer($alice))->{head}, qr/^Access-Control/mi, 'a client without an origin gets no headers');

# ---- preflights that the upstream answers

$answer = preflight('/own-cors/t', 'https://upstream.example');
is($answer->{status}, 200, 'a preflight for the upstream: its own status');
is(header($answer, 'X-From'), 'upstream', 'which the upstream sent');
ok(readable($answer, 'https://upstream.example'), 'with its own headers, once');
like($answer->{body}, qr/^OPTIONS \/own-cors\/t/, 'it got the preflight');
unlike($answer->{body}, qr/^X-Auth-Pat-/m, 'with no identity');
unlike(preflight('/own-cors/t', 'https://upstream.example', '-H', 'X-Auth-Pat-Subject: admin', bearer($alice))->{body},
    qr/admin|alice/, 'also where the client makes one up');
is($site->request("$url/own-cors/t", '-X', 'OPTIONS')->{status}, 401, 'any other OPTIONS: 401');
ok(readable($site->request("$url/own-cors/t", origin($app)), $app), 'a script may read a 401 there, too');

done_testing();
