# Addresses: a token that is bound to ranges is good from nowhere else, and realip says where a request comes from.

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use IO::Socket::IP;
use Test::Nginx::Socket;

our $store = new_store('main');

my %ranges = (
    home     => ['127.0.0.0/8'],
    exact    => ['127.0.0.1'],
    other    => ['127.0.0.2/32'],
    remote   => ['192.0.2.0/24'],
    several  => ['192.0.2.0/24', '2001:db8::/32', '198.51.100.7', '127.0.0.1/32'],
    all4     => ['0.0.0.0/0'],
    all6     => ['::/0'],
    half     => ['192.0.2.128/25'],
    local6   => ['::1/128'],
    net6     => ['2001:db8:1::/48'],
    odd      => ['192.0.2.4/31'],
    anywhere => [],
);
our %token = map {
    $_ => issue($store, '--subject', $_, '--scope', 'read', map { ('--cidr', $_) } @{ $ranges{$_} })
} sort keys %ranges;

our $has_ipv6 = !!IO::Socket::IP->new(LocalHost => '::1', LocalPort => 0, Listen => 1);

our $no     = 'WWW-Authenticate:';
our $denied = 'WWW-Authenticate: Bearer realm="API", error="invalid_token", '
    . 'error_description="The access token may not be used from this address"';

sub bearer { return map { "Authorization: Bearer $token{$_}" } @_ }

# A token, used from an address as a proxy in front of nginx would tell it.
sub from { my ($address, $name) = @_; return join "\n", bearer($name), "X-Forwarded-For: $address" }

add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value(http_config => <<'END' . ($block->http_config // ''));
auth_pat_store $TEST_NGINX_STORE_MAIN;
END
});

repeat_each(2);
plan tests => repeat_each() * 397;

no_long_string();
run_tests();

__DATA__

=== TEST 1: a token without ranges is good from everywhere, one with ranges only from there
--- config
location = /t { auth_pat API; try_files /nowhere =204; }
--- request eval
[("GET /t") x 6]
--- more_headers eval
[main::bearer(qw(anywhere home exact several all4 home))]
--- error_code eval
[(204) x 6]
--- response_headers eval
[($main::no) x 6]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 2: from any other address it is 403, and logged
--- config
location = /t { auth_pat API; try_files /nowhere =204; }
--- request eval
[("GET /t") x 4]
--- more_headers eval
[main::bearer(qw(other remote local6 all6))]
--- error_code eval
[(403) x 4]
--- response_headers eval
[($main::denied) x 4]
--- error_log
may not be used from this address
--- no_error_log
[error]
[crit]
[alert]



=== TEST 3: the client's own word about its address does not count
--- config
location = /t { auth_pat API; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t", "GET /t"]
--- more_headers eval
[main::from('192.0.2.1', 'remote'), CORE::join('', main::bearer('remote'), "\nX-Real-IP: 192.0.2.1\nForwarded: for=192.0.2.1"),
 main::from('192.0.2.1', 'home')]
--- error_code eval
[403, 403, 204]
--- response_headers eval
[$main::denied, $main::denied, $main::no]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 4: with realip in the server the address is the one that the proxy tells
--- config
set_real_ip_from 127.0.0.1;
real_ip_header X-Forwarded-For;
location = /t { auth_pat API; try_files /nowhere =204; }
--- request eval
[("GET /t") x 8]
--- more_headers eval
[main::from('192.0.2.0', 'remote'), main::from('192.0.2.255', 'remote'), main::from('192.0.1.255', 'remote'),
 main::from('192.0.3.0', 'remote'), main::from('192.0.2.1', 'home'), main::from('198.51.100.7', 'several'),
 main::from('198.51.100.6', 'several'), main::from('192.0.2.1', 'anywhere')]
--- error_code eval
[204, 204, 403, 403, 403, 204, 403, 204]
--- response_headers eval
[$main::no, $main::no, ($main::denied) x 3, $main::no, $main::denied, $main::no]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 5: prefixes that do not end at a byte are exact
--- config
set_real_ip_from 127.0.0.1;
real_ip_header X-Forwarded-For;
location = /t { auth_pat API; try_files /nowhere =204; }
--- request eval
[("GET /t") x 7]
--- more_headers eval
[main::from('192.0.2.127', 'half'), main::from('192.0.2.128', 'half'), main::from('192.0.2.255', 'half'),
 main::from('192.0.2.3', 'odd'), main::from('192.0.2.4', 'odd'), main::from('192.0.2.5', 'odd'), main::from('192.0.2.6', 'odd')]
--- error_code eval
[403, 204, 204, 403, 204, 204, 403]
--- response_headers eval
[$main::denied, $main::no, $main::no, $main::denied, $main::no, $main::no, $main::denied]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 6: with realip in a location it counts there and nowhere else
--- config
location = /proxied { set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For; auth_pat API; try_files /nowhere =204; }
location = /direct  { auth_pat API; try_files /nowhere =204; }
--- request eval
["GET /proxied", "GET /direct", "GET /proxied", "GET /direct"]
--- more_headers eval
[main::from('192.0.2.1', 'remote'), main::from('192.0.2.1', 'remote'), main::from('192.0.2.1', 'home'), main::from('192.0.2.1', 'home')]
--- error_code eval
[204, 403, 403, 204]
--- response_headers eval
[$main::no, $main::denied, $main::denied, $main::no]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 7: realip does not listen to a proxy that it does not trust
--- config
set_real_ip_from 203.0.113.0/24;
real_ip_header X-Forwarded-For;
location = /t { auth_pat API; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
[main::from('192.0.2.1', 'remote'), main::from('192.0.2.1', 'home')]
--- error_code eval
[403, 204]
--- response_headers eval
[$main::denied, $main::no]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 8: of several proxies the last that is not trusted counts
--- config
set_real_ip_from 127.0.0.1;
set_real_ip_from 203.0.113.0/24;
real_ip_header X-Forwarded-For;
real_ip_recursive on;
location = /t { auth_pat API; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
[main::from('127.0.0.1, 192.0.2.9, 203.0.113.5', 'remote'), main::from('192.0.2.9, 198.51.100.9, 203.0.113.5', 'remote')]
--- error_code eval
[204, 403]
--- response_headers eval
[$main::no, $main::denied]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 9: IPv6 addresses that realip tells are compared with IPv6 ranges
--- config
set_real_ip_from 127.0.0.1;
real_ip_header X-Forwarded-For;
location = /t { auth_pat API; try_files /nowhere =204; }
--- request eval
[("GET /t") x 9]
--- more_headers eval
[main::from('2001:db8:1::1', 'net6'), main::from('2001:db8:1:ffff:ffff:ffff:ffff:ffff', 'net6'), main::from('2001:db8:2::1', 'net6'),
 main::from('2001:db8::1', 'several'), main::from('2001:db9::1', 'several'), main::from('2001:db8::1', 'all6'),
 main::from('2001:db8::1', 'all4'), main::from('::1', 'local6'), main::from('::2', 'local6')]
--- error_code eval
[204, 204, 403, 204, 403, 204, 403, 204, 403]
--- response_headers eval
[$main::no, $main::no, $main::denied, $main::no, $main::denied, $main::no, $main::denied, $main::no, $main::denied]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 10: an IPv4 address in IPv6 clothes is an IPv4 address
--- config
set_real_ip_from 127.0.0.1;
real_ip_header X-Forwarded-For;
location = /t { auth_pat API; try_files /nowhere =204; }
--- request eval
[("GET /t") x 5]
--- more_headers eval
[main::from('::ffff:192.0.2.1', 'remote'), main::from('::ffff:127.0.0.1', 'exact'), main::from('::ffff:192.0.3.1', 'remote'),
 main::from('::ffff:192.0.2.1', 'all4'), main::from('::192.0.2.1', 'remote')]
--- error_code eval
[204, 204, 403, 204, 403]
--- response_headers eval
[$main::no, $main::no, $main::denied, $main::no, $main::denied]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 11: a client that comes over IPv6
--- skip_eval: 35: !$main::has_ipv6
--- http_config
server {
    listen [::1]:$TEST_NGINX_RAND_PORT_1;
    location = /t { auth_pat API; try_files /nowhere =204; }
}
--- config
location = /t { proxy_pass http://[::1]:$TEST_NGINX_RAND_PORT_1; }
--- request eval
[("GET /t") x 7]
--- more_headers eval
[main::bearer(qw(anywhere local6 all6 home net6 all4 several))]
--- error_code eval
[204, 204, 204, (403) x 4]
--- response_headers eval
[($main::no) x 3, ($main::denied) x 4]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 12: a client that comes over IPv4 to a socket for both
--- skip_eval: 30: !$main::has_ipv6
--- http_config
server {
    listen [::]:$TEST_NGINX_RAND_PORT_1 ipv6only=off;
    location = /t { auth_pat API; try_files /nowhere =204; }
}
--- config
location = /t { proxy_pass http://127.0.0.1:$TEST_NGINX_RAND_PORT_1; }
--- request eval
[("GET /t") x 6]
--- more_headers eval
[main::bearer(qw(anywhere exact several all4 other local6))]
--- error_code eval
[(204) x 4, (403) x 2]
--- response_headers eval
[($main::no) x 4, ($main::denied) x 2]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 13: a client without an address, on a UNIX-domain socket, is in no range
--- http_config
server {
    listen unix:$TEST_NGINX_SERVER_ROOT/logs/address.sock;
    location = /t { auth_pat API; try_files /nowhere =204; }
    location = /real { set_real_ip_from unix:; real_ip_header X-Forwarded-For; auth_pat API; try_files /nowhere =204; }
}
--- config
location ~ ^/(?:t|real)$ { proxy_pass http://unix:$TEST_NGINX_SERVER_ROOT/logs/address.sock; }
--- request eval
[("GET /t") x 5, ("GET /real") x 3]
--- more_headers eval
[main::bearer(qw(anywhere home all4 all6 several)), main::from('192.0.2.1', 'remote'), main::from('192.0.3.1', 'remote'), main::bearer('home')]
--- error_code eval
[204, (403) x 4, 204, 403, 403]
--- response_headers eval
[$main::no, ($main::denied) x 4, $main::no, ($main::denied) x 2]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 14: a wrong address is told before a missing scope, and a token that can't be used there is known by its id alone
--- config
location = /t {
    auth_pat API;
    auth_pat_require_scope write;
    add_header X-Who "$auth_pat_status/$auth_pat_subject/$auth_pat_scope" always;
    add_header X-Id $auth_pat_id always;
    try_files /nowhere =204;
}
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
[main::bearer(qw(remote home))]
--- error_code eval
[403, 403]
--- response_headers_like eval
["X-Who: address_denied//\nX-Id: pat_\\w+\nWWW-Authenticate: .*invalid_token.*",
 "X-Who: scope_denied//\nX-Id: pat_\\w+\nWWW-Authenticate: .*insufficient_scope.*"]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 15: what a variable said before realip ran does not count for the address that realip then tells
--- config
location = /t {
    set_real_ip_from 127.0.0.1;
    real_ip_header X-Forwarded-For;
    set $early $auth_pat_status;
    auth_pat API;
    add_header X-Status $auth_pat_status always;
    try_files /nowhere =204;
}
--- request eval
[("GET /t") x 4]
--- more_headers eval
[main::from('192.0.2.1', 'home'), main::from('192.0.2.1', 'remote'), main::from('192.0.2.1', 'anywhere'), main::bearer('home')]
--- error_code eval
[403, 204, 204, 204]
--- response_headers eval
["X-Status: address_denied\n$main::denied", ("X-Status: ok\n$main::no") x 3]
--- no_error_log
[error]
[crit]
[alert]
