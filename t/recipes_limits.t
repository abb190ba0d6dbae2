# The recipes that limit: rate-limits and failed-addresses.

use strict;
use warnings;

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use AuthPat::Server qw(slurp wait_for);
use AuthPat::Site qw(bearer header make_store);
use AuthPat::Upstream;
use POSIX ();
use Test::More;

# A client on this host may say which address it has.
my $site = AuthPat::Site->new(recipes => ['rate-limits', 'failed-addresses'], keeps_count => 1,
    http => 'set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For;');
my $enough = scratch() . '/enough';
my $upstream = AuthPat::Upstream->new(port => $site->port(8080), answer => sub {
    my ($head, $size) = @_;
    wait_for(sub { -e $enough }) if $head =~ m{^GET /slow};
    return AuthPat::Upstream::echo($head, $size);
});
my $store = make_store('api');
$site->start;

sub token { my ($subject, @arguments) = @_; return issue($store, '--subject', $subject, @arguments) }

sub statuses { my ($answer) = @_; return $answer->{all} =~ /^(\d+)/mg }

sub is_429 {
    my ($answer, $name) = @_;
    is($answer->{status}, 429, "$name: 429");
    is(header($answer, 'Content-Type'), 'application/json', "$name: application/json");
    like($answer->{body}, qr/^\{"error":"too_many_requests","message":"[^"]+"\}$/, "$name: the body");
    is(header($answer, 'Retry-After'), '1', "$name: Retry-After");
    return;
}

# ---- rate-limits

my $url = 'https://limits.referon.com';

sub limited_by { my ($zone, $from) = @_; return $site->log($from) =~ /limiting requests, excess: [\d.]+ by zone "$zone"/ }

my $answer = $site->request("$url/t?[1-60]", bearer(token('alice')));
is_429($answer, 'a token that is used too often');
is_deeply([(statuses($answer))[0 .. 40]], [(200) x 41], 'but not before its burst is used up');
ok(limited_by('auth_pat_id'), 'it was the limit of the token');
is_deeply([statuses($site->request("$url/t?[1-20]", bearer(token('carol'))))], [(200) x 20], 'another token is not limited');

# Each of these alone stays below its limit.
my $from = $site->log_size;
$site->request("$url/t?[1-38]", bearer(token('bob'))) for 1 .. 4;
ok(limited_by('rate_limits_subject', $from), 'all tokens of a subject together have a limit');
ok(!limited_by('auth_pat_id', $from), 'before each of them has used up its own');

$from = $site->log_size;
$site->request("$url/t?[1-38]", bearer(token("user:$_"))) for 1 .. 4;
ok(!limited_by('rate_limits_subject', $from), 'as many requests of several subjects are not limited');

# A token that was revoked, and goes on.
my $dave = token('dave');
my $stolen = token('dave');
$from = $site->log_size;
patctl($store, \$stolen, 'revoke', '--token-stdin');
is($site->request("$url/t", bearer($stolen))->{status}, 401, 'a revoked token: 401 at first');
is_429($site->request("$url/t?[1-60]", bearer($stolen)), 'a revoked token that is used too often');
ok(!limited_by('rate_limits_subject', $from), 'which counts nothing for its subject');
is_deeply([statuses($site->request("$url/t?[1-30]", bearer($dave)))], [(200) x 30], 'whose good token works as ever');

is_deeply([statuses($site->request("$url/reports/t?[1-30]", bearer(token('erin'))))], [(403) x 30],
    'without the scope: 403, not counted for the subject');
$answer = $site->request("$url/reports/t?[1-20]", bearer(token('frank', '--scope', 'api:write')));
is_429($answer, 'a location with a smaller burst');
is_deeply([(statuses($answer))[0 .. 5]], [(200) x 6], 'which is used up first');

is_deeply([statuses($site->request("$url/t?[1-80]"))], [(401) x 80], 'without a token: 401, not counted');

# The upstream answers when 20 requests are under way, and another was refused.
my $watch = fork // die "fork: $!\n";
if ($watch == 0) {
    wait_for(sub { $site->log =~ /limiting connections/ && 20 <= grep { m{^GET /slow} } $upstream->requests });
    write_file($enough, '');
    POSIX::_exit(0);
}
my @at_once = statuses($site->request("$url/slow?[1-30]", bearer(token('grace')), '-Z', '--parallel-immediate', '--parallel-max',
    30, '--no-progress-meter'));
waitpid $watch, 0;
ok(20 <= grep({ $_ == 200 } @at_once), 'twenty requests at once are let in');
ok(scalar(grep { $_ == 429 } @at_once), 'more than twenty are not') or diag "@at_once";

# ---- failed-addresses

$url = 'https://failures.referon.com';
my $good  = token('heidi');
my $other = new_store('other');
my $bad   = issue($other, '--subject', 'eve');
my $old   = token('leo', '--expires-in', '1s');
my $issued = time;

sub from { my ($address) = @_; return ('-H', "X-Forwarded-For: $address") }

my @seen = statuses($answer = $site->request("$url/t?[1-40]", bearer($bad), from('203.0.113.7')));
is_deeply([@seen[0 .. 20]], [(401) x 21], 'the first failures of an address: 401');
is($seen[39], 429, 'then 429');
is_429($answer, 'an address that fails too often');
is($site->request("$url/t?[1-10]", bearer('junk'), from('203.0.113.7'))->{status}, 429, 'another bad token from there: 429, too');
is($site->request("$url/t", bearer($good), from('203.0.113.7'))->{status}, 200, 'a good token from there: 200');
is_deeply([statuses($site->request("$url/t?[1-40]", from('203.0.113.7')))], [(401) x 40], 'no token from there: 401');
is($site->request("$url/t", bearer($bad), from('203.0.113.8'))->{status}, 401, 'a bad token from another address: 401');

wait_for(sub { time > $issued + 1 });    # leo's token has expired
# Each from an address of its own, with fewer requests than a token may make.
my $last = 20;
for my $case (
    [revoked        => do { my $token = token('ivan'); patctl($store, 'revoke', '--subject', 'ivan'); $token }],
    [not_yet_valid  => token('judy', '--not-before', time + 3600)],
    [address_denied => token('kim', '--cidr', '192.0.2.0/24')],
    [malformed      => substr $good, 0, -1],
    [expired        => $old],
) {
    my ($status, $token) = @$case;
    is($site->request("$url/t?[1-35]", bearer($token), from('203.0.113.' . $last++))->{status}, 429, "$status counts as a failure");
}

# The bytes of this network have line feeds and zeros.
$site->request("$url/t?[1-21]", bearer($bad), from('2001:db8:a0a:a::1'));
is($site->request("$url/t?[1-10]", bearer($bad), from('2001:db8:a0a:a:ffff::2'))->{status}, 429,
    'another IPv6 address of the same /64 is limited, too');
is($site->request("$url/t", bearer($bad), from('2001:db8:a0a:b::1'))->{status}, 401, 'one of another /64 is not');

is($site->{replaced}{rate}, 3, 'each of the limits has a rate');
like($site->access_log('failures.referon.com'), qr/^203\.0\.113\.7 .* 429 \d+ unknown "-"/m, 'the log has address and cause');

done_testing();
