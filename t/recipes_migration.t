# The three stages of the migration from a legacy scheme.

use strict;
use warnings;

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use AuthPat::Server qw(slurp wait_for);
use AuthPat::Site qw(bearer header all_headers make_store);
use AuthPat::Upstream;
use Test::More;

my $site  = AuthPat::Site->new(recipes => ['migration-1-dry-run']);
my $store = make_store('api');

# The legacy checker is as sloppy as can be: besides its keys, it takes everything with "Bearer".
my $checker = AuthPat::Upstream->new(port => $site->port(8070), answer => sub {
    my ($head) = @_;
    return ('200 OK', "X-Legacy-User: bearer\r\n", '') if $head =~ /^Authorization: Bearer/mi;
    return ('200 OK', "X-Legacy-User: old-alice\r\n", '') if $head =~ /^X-API-Key: alice-key$/mi;
    return ('403 Forbidden', '', '') if $head =~ /^X-API-Key: locked-key$/mi;
    return ('401 Unauthorized', "WWW-Authenticate: Key\r\n", '');
});
my $upstream = AuthPat::Upstream->new(port => $site->port(8080));

my $alice   = issue($store, '--subject', 'alice');
my $revoked = issue($store, '--subject', 'mallory');
my $distant = issue($store, '--subject', 'carol', '--cidr', '192.0.2.0/24');
my $unknown = issue(new_store('elsewhere'), '--subject', 'eve');
patctl($store, 'revoke', '--subject', 'mallory');

my @key = ('-H', 'X-API-Key: alice-key');
my $url = 'https://migration.referon.com';

sub ask { my (@options) = @_; return $site->request("$url/t", @options) }

sub sent { my ($answer, $name) = @_; return join ' | ', $answer->{body} =~ /^\Q$name\E: (.*)$/mig }

# How often the log has a status and a cause, as operators are told to count them.
my ($count) = slurp("$AuthPat::ROOT/conf.d/recipes/migration-1-dry-run.conf") =~ /^# +(awk .*)$/m;

sub counted {
    my ($what) = @_;
    my ($number) = `cd $site->{root}/logs && $count` =~ /^ *(\d+) \Q$what\E$/m;
    return $number // 0;
}

my %asked;

sub is_counted {
    my ($what, $name) = @_;
    my $wanted = ++$asked{$what};
    ok(wait_for(sub { counted($what) >= $wanted }), "$name: \"$what\" is counted");
    return;
}

# ---- 1: dry run

$site->start;

for my $case (
    [200, 'missing_dry_run', 'a legacy key', @key],
    [200, 'ok',              'a legacy key and a token', @key, bearer($alice)],
    [200, 'revoked_dry_run', 'a legacy key and a revoked token', @key, bearer($revoked)],
    [200, 'malformed_dry_run', 'a legacy key and junk', @key, bearer('junk')],
    [401, 'missing_dry_run', 'nothing'],
    [403, 'missing_dry_run', 'a legacy key that is locked', '-H', 'X-API-Key: locked-key'],
    [401, 'ok',              'a token alone', bearer($alice)],
) {
    my ($status, $counted, $name, @options) = @$case;
    is(ask(@options)->{status}, $status, "1, dry run, $name: $status");
    is_counted("$status $counted", "1, dry run, $name");
}
my $answer = ask(@key, bearer($alice));
is(sent($answer, 'X-Legacy-User'), 'old-alice', '1, dry run: the upstream gets the legacy identity');
is(sent($answer, 'X-Auth-Pat-Subject'), 'alice', '1, dry run: and that of a good token');
is(sent(ask(@key, bearer($revoked)), 'X-Auth-Pat-Subject'), '', '1, dry run: not that of a bad one');
is(sent($answer, 'X-API-Key') . sent($answer, 'Authorization'), '', '1, dry run: and neither key nor token');

unlike(join("\n", $checker->requests), qr/^Authorization/m, '1, dry run: the checker sees no token');

# ---- 2: either

$site->stop;
unlink glob "$site->{root}/conf/conf.d/migration-*.conf";
$site->configure(recipes => ['migration-2-either']);
$site->start;

my $asked = $checker->requests;
$answer = ask(bearer($alice));
is($answer->{status}, 200, '2, either, a token: 200');
is(sent($answer, 'X-Auth-Pat-Subject'), 'alice', '2, either, a token: its subject');
is(sent($answer, 'X-Legacy-User'), '', '2, either, a token: no legacy identity');
$answer = ask(bearer($alice), @key, '-H', 'X-Legacy-User: admin');
is(sent($answer, 'X-Auth-Pat-Subject') . sent($answer, 'X-Legacy-User'), 'alice', '2, either, both: the identity of the token');

for my $case (
    [401, 'revoked',        $revoked, 'token_revoked'],
    [401, 'unknown',        $unknown, 'token_invalid'],
    [401, 'malformed',      'junk',   'token_invalid'],
    [403, 'address_denied', $distant, 'address_denied'],
) {
    my ($status, $why, $token, $error) = @$case;
    for my $more ([], [@key]) {
        my $name = "2, either, a token that is $why" . (@$more ? ', and a good legacy key' : '');
        $answer = ask(bearer($token), @$more);
        is($answer->{status}, $status, "$name: $status");
        like(header($answer, 'WWW-Authenticate'), qr/^Bearer realm="migration.referon.com", error=/, "$name: the challenge");
        like($answer->{body}, qr/^\{"error":"$error"/, "$name: JSON that says why");
    }
    is_counted("$status $why", "2, either, a token that is $why");
}
is(scalar $checker->requests, $asked, '2, either: the legacy checker has seen no request with a token');

$answer = ask(@key);
is($answer->{status}, 200, '2, either, a legacy key: 200');
is(sent($answer, 'X-Legacy-User'), 'old-alice', '2, either, a legacy key: its user');
is(sent($answer, 'X-Auth-Pat-Subject') . sent($answer, 'X-API-Key'), '', '2, either, a legacy key: nothing else');
is(header($answer, 'WWW-Authenticate'), '', '2, either, a legacy key: no challenge');
is_counted('200 missing', '2, either, a legacy key');
$answer = ask(@key, '-H', 'Authorization: Basic YTpi', '-H', 'X-Auth-Pat-Subject: admin');
is($answer->{status}, 200, '2, either, a legacy key and another scheme: 200');
is(sent($answer, 'X-Auth-Pat-Subject'), '', '2, either: nobody says who he is');
is($site->request("$url/t", @key, '--data-binary', 'x' x 100_000)->{status}, 200, '2, either, a legacy key with a body: 200');

$answer = ask('-H', 'X-API-Key: wrong');
is($answer->{status}, 401, '2, either, a bad legacy key: 401');
is_deeply([sort { $a cmp $b } all_headers($answer, 'WWW-Authenticate')], ['Bearer realm="migration.referon.com"', 'Key'],
    '2, either, a bad legacy key: both challenges');
like($answer->{body}, qr/^\{"error":"token_missing"/, '2, either, a bad legacy key: JSON');
is(ask('-H', 'X-API-Key: locked-key')->{status}, 401, '2, either, a locked legacy key: 401');
is($site->request("$url/_legacy", @key)->{status}, 404, '2, either: nobody can ask the checker from outside');

# What breaks.
$checker->stop;
is(ask(@key)->{status}, 500, '2, either, the checker is down, a legacy key: 500');
is(ask(bearer($alice))->{status}, 200, '2, either, the checker is down, a token: 200');
$checker = AuthPat::Upstream->new(port => $site->port(8070), answer => sub { ('200 OK', "X-Legacy-User: old\r\n", '') });
rename $store, "$store.gone" or die "$store: $!\n";
$site->stop;
$site->start;
is(ask(bearer($alice), @key)->{status}, 503, '2, either, no store, a token and a legacy key: 503 is final');
is(ask(@key)->{status}, 200, '2, either, no store, a legacy key: 200');
rename "$store.gone", $store or die "$store: $!\n";

# ---- 3: tokens only

$site->stop;
unlink glob "$site->{root}/conf/conf.d/migration-*.conf";
$site->configure(recipes => ['migration-3-pat-only']);
$site->start;

$answer = ask(bearer($alice), @key, '-H', 'X-Legacy-User: admin');
is($answer->{status}, 200, '3, tokens only, a token: 200');
is(sent($answer, 'X-Auth-Pat-Subject'), 'alice', '3, tokens only, a token: its subject');
is(sent($answer, 'X-API-Key') . sent($answer, 'X-Legacy-User'), '', '3, tokens only: nothing of the legacy scheme');
$answer = ask(@key);
is($answer->{status}, 401, '3, tokens only, a legacy key: 401');
like($answer->{body}, qr/Authorization: Bearer/, '3, tokens only, a legacy key: says what to send');
is_counted('401 missing', '3, tokens only, a legacy key');
is(ask(@key, bearer($revoked))->{status}, 401, '3, tokens only, a revoked token: 401');

# ---- a legacy scheme in the Authorization header: 1 and 2 have a line for it

$site->stop;
$checker->stop;
$checker = AuthPat::Upstream->new(port => $site->port(8070), answer => sub {
    my ($head) = @_;
    return ('200 OK', "X-Legacy-User: old-alice\r\n", '') if $head =~ /^Authorization: Basic YTpi$/m;
    return ('401 Unauthorized', "WWW-Authenticate: Basic\r\n", '');
});
my @basic = ('-H', 'Authorization: Basic YTpi');
my $line  = 'proxy_set_header Authorization $http_authorization;';
for my $case (
    ['1-dry-run', 401, 'missing_dry_run'],
    ['2-either',  200, 'missing'],
) {
    my ($stage, $token_status, $cause) = @$case;
    unlink glob "$site->{root}/conf/conf.d/migration-*.conf";
    $site->configure(recipes => ["migration-$stage"], change => { "# $line" => $line });
    $site->start;
    $answer = ask(@basic);
    is($answer->{status}, 200, "$stage, Authorization is the legacy scheme's: 200");
    is(sent($answer, 'X-Legacy-User'), 'old-alice', "$stage, Authorization is the legacy scheme's: its user");
    is(sent($answer, 'Authorization'), '', "$stage, Authorization is the legacy scheme's: the upstream does not get it");
    is_counted("200 $cause", "$stage, Authorization is the legacy scheme's");
    is(ask('-H', 'Authorization: Basic d3Jvbmc=')->{status}, 401, "$stage, Authorization is the legacy scheme's, and wrong: 401");
    is(ask()->{status}, 401, "$stage, Authorization is the legacy scheme's, nothing: 401");
    is(ask(bearer($alice))->{status}, $token_status, "$stage, Authorization is the legacy scheme's, a token: $token_status");
    $site->stop;
}

done_testing();
