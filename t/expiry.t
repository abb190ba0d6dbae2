# Expiry and not-before, to the second, and the leeway that a configuration allows on both.

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use IO::Socket::INET;
use Test::Nginx::Socket;
use Time::HiRes qw(sleep time);

our $store = new_store('main');
our $now   = int time;

my $day = 86400;

# The tokens, by name; the times are from now.
my %times = (
    forever   => {},
    long      => { expires_at => $day },
    soon      => { expires_at => 600 },
    just      => { expires_at => -300 },
    past      => { expires_at => -$day },
    '1970'    => { expires_at => 1 - $now },
    '2106'    => { expires_at => 4294967296 - $now },
    started   => { not_before => -300 },
    early     => { not_before => 600 },
    tomorrow  => { not_before => $day },
    'within'  => { not_before => -$day, expires_at => $day },
    over      => { not_before => -$day, expires_at => -300 },
    ahead     => { not_before => 600, expires_at => $day },
    never     => { not_before => $day, expires_at => -$day },
);

sub text_of { return sprintf 'token-of-%010s', $_[0] =~ tr/a-z0-9//cdr }

sub import_token {
    my ($name, %limits) = @_;
    my $members = join '', map { sprintf ',"%s":%d', $_, $limits{$_} } sort keys %limits;
    my $text = text_of($name);
    patctl($store, \qq({"token":"$text","id":"$name","subject":"alice","scopes":["read"]$members}\n),
        'import', '--plaintext', '--strict', '-');
    return;
}

for my $name (sort keys %times) {
    my %limits = %{ $times{$name} };
    $_ += $now for values %limits;
    import_token($name, %limits);
}
import_token('gone', expires_at => $now - 300);
patctl($store, 'revoke', 'gone');

sub bearer { return map { 'Authorization: Bearer ' . text_of($_) } @_ }

# One request; its status, and the time it was answered at as nginx knew it.
sub ask {
    my ($port, $uri, $name) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 60) or die "connect: $!\n";
    print {$socket} "GET $uri HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", bearer($name), "\r\n\r\n";
    my $answer = do { local $/; <$socket> } // '';
    $answer =~ m{\AHTTP/1\.1 (\d+).*\r\nX-Now: (\d+)\.}s or die "no answer\n";
    return ($1, $2);
}

# Gives a token a limit that is some seconds from now, and asks until the answer changes. Says whether it changed in the
# very second that it should, by nginx's clock. Where the limit came before the first answer, it was too near.
sub watch {
    my ($uri, $limit, $before, $after, $leeway) = @_;
    return sub {
        my (%arguments) = @_;
        for my $seconds (2, 4, 8, 16) {
            my $change = int(time) + $seconds;
            import_token('watched', $limit => $change - $leeway);

            for (my $count = 0; time < $change + 20; $count++) {
                my ($status, $at) = ask($arguments{port}, $uri, 'watched');
                last if $count == 0 && $at >= $change;
                my $expected = $at < $change ? $before : $after;
                return "$status instead of $expected at " . ($at - $change) . "\n" if $status != $expected;
                return "exact\n" if $at >= $change;
                sleep 0.01;
            }
        }
        return "no change\n";
    };
}

on_request('expires'        => watch('/t',      'expires_at', 204, 401, 0));
on_request('expires-leeway' => watch('/leeway', 'expires_at', 204, 401, 5));
on_request('begins'         => watch('/t',      'not_before', 401, 204, 0));
on_request('begins-leeway'  => watch('/leeway', 'not_before', 401, 204, -5));

our $challenge = 'WWW-Authenticate: Bearer realm="API", error="invalid_token", error_description="The access token';
our $expired   = "X-Status: expired\n$challenge expired\"";
our $early     = "X-Status: not_yet_valid\n$challenge is not yet valid\"";
our $ok        = "X-Status: ok\nWWW-Authenticate:";

add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value(http_config => 'auth_pat_store $TEST_NGINX_STORE_MAIN;' . "\n" . ($block->http_config // ''));
    $block->set_value(config => <<'END' . ($block->config // ''));
auth_pat API;
add_header X-Status $auth_pat_status always;
add_header X-Now $msec always;
END
});

repeat_each(2);
plan tests => repeat_each() * 274;

no_long_string();
run_tests();

__DATA__

=== TEST 1: a token is good until it expires, or for ever
--- config
location = /t { try_files /nowhere =204; }
--- request eval
[("GET /t") x 5]
--- more_headers eval
[main::bearer(qw(forever long soon within 2106))]
--- error_code eval
[(204) x 5]
--- response_headers eval
[($main::ok) x 5]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 2: a token that has expired is refused
--- config
location = /t { try_files /nowhere =204; }
--- request eval
[("GET /t") x 4]
--- more_headers eval
[main::bearer(qw(just past 1970 over))]
--- error_code eval
[(401) x 4]
--- response_headers eval
[($main::expired) x 4]
--- error_log eval
[qr/access token "(?:just|past|1970|over)" expired/]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 3: a token is refused before the time from which it is valid
--- config
location = /t { try_files /nowhere =204; }
--- request eval
[("GET /t") x 4]
--- more_headers eval
[main::bearer(qw(early tomorrow ahead started))]
--- error_code eval
[401, 401, 401, 204]
--- response_headers eval
[($main::early) x 3, $main::ok]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 4: expiry is told before not-before, and revocation before both
--- config
location = /t     { try_files /nowhere =204; }
location = /scope { auth_pat_require_scope write; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t", "GET /scope", "GET /scope", "GET /scope"]
--- more_headers eval
[main::bearer(qw(never gone just early gone))]
--- error_code eval
[(401) x 5]
--- response_headers eval
["$main::expired", "X-Status: revoked\n$main::challenge was revoked\"", "$main::expired", "$main::early",
 "X-Status: revoked\n$main::challenge was revoked\""]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 5: the leeway is allowed on expiry, and no more than it
--- config
auth_pat_leeway 1h;
location = /hour    { try_files /nowhere =204; }
location = /minute  { auth_pat_leeway 60; try_files /nowhere =204; }
location = /none    { auth_pat_leeway 0; try_files /nowhere =204; }
location = /long    { auth_pat_leeway 2d; try_files /nowhere =204; }
--- request eval
["GET /hour", "GET /minute", "GET /none", "GET /long", "GET /hour", "GET /long", "GET /long"]
--- more_headers eval
[main::bearer(qw(just just just just past past 1970))]
--- error_code eval
[204, 401, 401, 204, 401, 204, 401]
--- response_headers eval
[$main::ok, $main::expired, $main::expired, $main::ok, $main::expired, $main::ok, $main::expired]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 6: the leeway is allowed on not-before, and no more than it
--- config
auth_pat_leeway 1h;
location = /hour    { try_files /nowhere =204; }
location = /minute  { auth_pat_leeway 60s; try_files /nowhere =204; }
location = /none    { auth_pat_leeway 0; try_files /nowhere =204; }
location = /long    { auth_pat_leeway 2d; try_files /nowhere =204; }
--- request eval
["GET /hour", "GET /minute", "GET /none", "GET /long", "GET /hour", "GET /long", "GET /hour"]
--- more_headers eval
[main::bearer(qw(early early early early tomorrow tomorrow ahead))]
--- error_code eval
[204, 401, 401, 204, 401, 204, 204]
--- response_headers eval
[$main::ok, $main::early, $main::early, $main::ok, $main::early, $main::ok, $main::ok]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 7: the leeway is inherited from http and replaced in a location
--- http_config
auth_pat_leeway 10m;
--- config
location = /t    { try_files /nowhere =204; }
location = /none { auth_pat_leeway 0s; try_files /nowhere =204; }
location /in/ {
    auth_pat_leeway 0;
    location = /in/t     { try_files /nowhere =204; }
    location = /in/again { auth_pat_leeway 1w; try_files /nowhere =204; }
}
--- request eval
["GET /t", "GET /none", "GET /in/t", "GET /in/again"]
--- more_headers eval
[main::bearer(('just') x 4)]
--- error_code eval
[204, 401, 401, 204]
--- response_headers eval
[$main::ok, $main::expired, $main::expired, $main::ok]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 8: the longest leeway is a year, and does not delay a revocation
--- config
location = /t { auth_pat_leeway 1y; try_files /nowhere =204; }
--- request eval
[("GET /t") x 5]
--- more_headers eval
[main::bearer(qw(past tomorrow never 1970 gone))]
--- error_code eval
[204, 204, 204, 401, 401]
--- response_headers eval
[($main::ok) x 3, $main::expired, "X-Status: revoked\n$main::challenge was revoked\""]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 9: a token that expires is refused from that very second on
--- no_check_leak
--- config
location = /t { try_files /nowhere =204; }
location = /expires { auth_pat off; rewrite ^ /expires?port=$server_port break; proxy_pass http://unix:$TEST_NGINX_CONTROL; }
--- request
GET /expires
--- response_body
exact
--- error_log
access token "watched" expired
--- no_error_log
[error]
[crit]
[alert]



=== TEST 10: with a leeway a token that expires is refused from the second that is so much later
--- no_check_leak
--- config
location = /leeway { auth_pat_leeway 5s; try_files /nowhere =204; }
location = /expires-leeway { auth_pat off; rewrite ^ /expires-leeway?port=$server_port break; proxy_pass http://unix:$TEST_NGINX_CONTROL; }
--- request
GET /expires-leeway
--- response_body
exact
--- error_log
access token "watched" expired
--- no_error_log
[error]
[crit]
[alert]



=== TEST 11: a token becomes valid in that very second
--- no_check_leak
--- config
location = /t { try_files /nowhere =204; }
location = /begins { auth_pat off; rewrite ^ /begins?port=$server_port break; proxy_pass http://unix:$TEST_NGINX_CONTROL; }
--- request
GET /begins
--- response_body
exact
--- error_log
access token "watched" is not yet valid
--- no_error_log
[error]
[crit]
[alert]



=== TEST 12: with a leeway a token becomes valid in the second that is so much earlier
--- no_check_leak
--- config
location = /leeway { auth_pat_leeway 5s; try_files /nowhere =204; }
location = /begins-leeway { auth_pat off; rewrite ^ /begins-leeway?port=$server_port break; proxy_pass http://unix:$TEST_NGINX_CONTROL; }
--- request
GET /begins-leeway
--- response_body
exact
--- error_log
access token "watched" is not yet valid
--- no_error_log
[error]
[crit]
[alert]
