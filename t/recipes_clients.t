# The recipe for tokens wherever clients put them: each source is accepted, and none reaches the upstream.

use strict;
use warnings;

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use AuthPat::Server qw(slurp);
use AuthPat::Site qw(bearer header all_headers make_store);
use AuthPat::Upstream;
use MIME::Base64 qw(encode_base64);
use Test::More;

my $site     = AuthPat::Site->new(recipes => ['clients']);
my $upstream = AuthPat::Upstream->new(port => $site->port(8080));
my $store    = make_store('api');
$site->start;

my $token   = issue($store, '--subject', 'alice');
my $revoked = issue($store, '--subject', 'mallory');
patctl($store, 'revoke', '--subject', 'mallory');

# What may be sent, by its name: options of curl, for a token.
my %sources = (
    Bearer          => sub { bearer($_[0]) },
    Basic           => sub { ('-u', "git:$_[0]") },
    'Basic, nobody' => sub { ('-u', ":$_[0]") },
    token           => sub { ('-H', "Authorization: token $_[0]") },
    map { my $name = $_; ($name => sub { ('-H', "$name: $_[0]") }) } 'X-API-Key', 'PRIVATE-TOKEN', 'JOB-TOKEN',
);

# Those that each location accepts, and the challenges of its 401.
my $bearer    = 'Bearer realm="clients.referon.com"';
my $basic     = 'Basic realm="clients.referon.com"';
my %locations = (
    '/'        => [[$bearer, $basic], 'Bearer', 'Basic', 'Basic, nobody', 'token', 'X-API-Key'],
    '/api/v4/' => [[$bearer], 'Bearer', 'PRIVATE-TOKEN', 'JOB-TOKEN'],
    '/app/'    => [[$bearer], 'Bearer', 'X-API-Key'],
);

# Nothing of a request that has arrived holds a token, plain or in base64.
sub is_without_token {
    my ($name, $text) = @_;
    for my $secret ($token, $revoked) {
        my @encoded = map { substr encode_base64("$_$secret", ''), 8, 24 } '', 'x', 'xx';
        unlike($text, qr/\Q$_\E/, "$name: no token") for $secret, @encoded;
    }
    return;
}

for my $path (sort keys %locations) {
    my ($challenges, @accepted) = @{ $locations{$path} };
    my %is_accepted = map { ($_ => 1) } @accepted;
    my $url = "https://clients.referon.com${path}t";

    for my $version ('--http1.1', '--http2') {
        for my $source (sort keys %sources) {
            my $name   = "$path $version $source";
            my $answer = $site->request($url, $version, $sources{$source}->($token));
            if ($is_accepted{$source}) {
                is($answer->{status}, 200, "$name: 200");
                like($answer->{body}, qr/^X-Auth-Pat-Subject: alice$/m, "$name: and the upstream learns who it is");
                my $header = $source =~ /-/ ? $source : 'Authorization';
                like(header($answer, 'Vary'), qr/(?:^|, )\Q$header\E(?:,|$)/, "$name: a cache keeps it for this token");
                unlike($answer->{body}, qr/^(?:Authorization|[\w-]+-Token|X-API-Key):/mi, "$name: by no credential");
            } else {
                is($answer->{status}, 401, "$name: 401");
            }

            $answer = $site->request($url, $version, $sources{$source}->($revoked));
            is($answer->{status}, 401, "$name, revoked: 401");
            my $error = $is_accepted{$source} ? 'token_revoked' : 'token_missing';
            like($answer->{body}, qr/^\{"error":"$error"/, "$name, revoked: JSON that says why");
        }
    }

    my $answer = $site->request($url);
    is_deeply([all_headers($answer, 'WWW-Authenticate')], $challenges, "$path: the challenges");

    # Any two of those that are accepted, of which one is good.
    for my $first (@accepted) {
        for my $second (grep { $_ ne $first } @accepted) {
            next if 2 == grep { !/-/ } $first, $second;    # both in Authorization: nginx says 400
            my @options = ($sources{$first}->($token), $sources{$second}->($revoked));
            is($site->request($url, @options)->{status}, 401, "$path $first and $second: 401");
        }
    }
}

# What is no source of a location is left out all the same, as far as the snippet knows it.
my $answer = $site->request('https://clients.referon.com/api/v4/t', bearer($token), '-H', "X-API-Key: $revoked");
is($answer->{status}, 200, 'a header that is no source: 200');
unlike($answer->{body}, qr/^X-API-Key/mi, 'and it does not pass');

is_without_token('all requests', join "\n", $upstream->requests);
cmp_ok(scalar $upstream->requests, '>=', 20, 'there were some');

my $log = $site->access_log('clients.referon.com');
like($log, qr/ 200 \d+ ok "pat_\w+"/, 'the access log has the id');
is_without_token('the log', $log . $site->log);

done_testing();
