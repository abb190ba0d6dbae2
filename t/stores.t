# Several stores in one nginx: each place asks its own, and a pepper belongs to the store that was made with it.

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use Test::Nginx::Socket;

our $scratch = scratch();
our $first   = new_store('first');
our $second  = new_store('second');

# Peppers in the forms that they may have: hexadecimal digits with a newline behind them, and raw bytes.
write_file("$scratch/hex.pepper", '0123456789abcdef' x 4 . "\n");
write_file("$scratch/raw.pepper", join '', map { chr } 128 .. 191);
chmod 0600, "$scratch/hex.pepper", "$scratch/raw.pepper";

sub with_pepper {
    my ($name, $pepper) = @_;
    local $ENV{PAT_PEPPER_FILE} = "$scratch/$pepper.pepper";
    my $store = new_store($name);
    return issue($store, '--subject', $name);
}
our $hex = with_pepper('hex', 'hex');
our $raw = with_pepper('raw', 'raw');

our $one = issue($first, '--subject', 'first');
our $two = issue($second, '--subject', 'second');

# One token that both stores know, as two people.
our $shared = 'shared-token-00001';
patctl($first,  \qq({"token":"$shared","id":"one","subject":"one of two"}\n), 'import', '--plaintext', '--strict', '-');
patctl($second, \qq({"token":"$shared","id":"two","subject":"two of two"}\n), 'import', '--plaintext', '--strict', '-');

on_request('revoke-one'  => sub { patctl($first, 'revoke', '--id', 'one') });
on_request('restore-one' => sub { patctl($first, 'restore-access', '--id', 'one') });

sub bearer { return map { "Authorization: Bearer $_" } @_ }
sub subjects { return map { "X-Subject: $_" } @_ }

add_block_preprocessor(sub {
    my ($block) = @_;
    my $own = $block->http_config // 'auth_pat_store $TEST_NGINX_STORE_FIRST;';
    $block->set_value(http_config => <<'END' . $own);
auth_pat API;
add_header X-Subject $auth_pat_subject always;
END
});

repeat_each(2);
plan tests => repeat_each() * 301;

no_long_string();
run_tests();

__DATA__

=== TEST 1: each location asks its own store
--- config
location = /first  { auth_pat_store $TEST_NGINX_STORE_FIRST; try_files /nowhere =204; }
location = /second { auth_pat_store $TEST_NGINX_STORE_SECOND; try_files /nowhere =204; }
--- request eval
[("GET /first") x 3, ("GET /second") x 3]
--- more_headers eval
[(main::bearer($main::one, $main::two, $main::shared)) x 2]
--- error_code eval
[204, 401, 204, 401, 204, 204]
--- response_headers eval
[main::subjects('first', '', 'one of two', '', 'second', 'two of two')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 2: each server asks its own store, and http's is for those without
--- http_config
auth_pat_store $TEST_NGINX_STORE_FIRST;
server { listen $TEST_NGINX_SERVER_PORT; server_name second; auth_pat_store $TEST_NGINX_STORE_SECOND; location / { try_files /nowhere =204; } }
server { listen $TEST_NGINX_SERVER_PORT; server_name inherits; location / { try_files /nowhere =204; } }
server { listen $TEST_NGINX_SERVER_PORT; server_name off; auth_pat off; location / { try_files /nowhere =204; } }
--- config
location = /t { try_files /nowhere =204; }
--- request eval
[("GET /t") x 8]
--- more_headers eval
[map { my $host = $_; map { "Host: $host\nAuthorization: Bearer $_" } $main::one, $main::two } qw(localhost second inherits off)]
--- error_code eval
[204, 401, 401, 204, 204, 401, 204, 204]
--- response_headers eval
[main::subjects('first', '', '', 'second', 'first', ('') x 3)]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 3: a store is inherited from location to location
--- config
auth_pat_store $TEST_NGINX_STORE_FIRST;
location /in/ {
    auth_pat_store $TEST_NGINX_STORE_SECOND;
    location = /in/second { try_files /nowhere =204; }
    location = /in/first  { auth_pat_store $TEST_NGINX_STORE_FIRST; try_files /nowhere =204; }
}
location = /first { try_files /nowhere =204; }
--- request eval
["GET /in/second", "GET /in/first", "GET /first", "GET /in/second", "GET /in/first", "GET /first"]
--- more_headers eval
[main::bearer(($main::one) x 3, ($main::two) x 3)]
--- error_code eval
[401, 204, 204, 204, 401, 401]
--- response_headers eval
[main::subjects('', 'first', 'first', 'second', '', '')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 4: a token that is revoked in one store lives on in the other
--- config
location = /first  { auth_pat_store $TEST_NGINX_STORE_FIRST; try_files /nowhere =204; }
location = /second { auth_pat_store $TEST_NGINX_STORE_SECOND; try_files /nowhere =204; }
location ~ ^/re { auth_pat off; proxy_pass http://unix:$TEST_NGINX_CONTROL; }
--- request eval
["GET /first", "GET /second", "GET /revoke-one", "GET /first", "GET /second", "GET /restore-one", "GET /first"]
--- more_headers eval
[main::bearer(($main::shared) x 7)]
--- error_code eval
[204, 204, 200, 401, 204, 200, 204]
--- response_headers eval
[main::subjects('one of two', 'two of two', '', '', 'two of two', '', 'one of two')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 5: an internal redirect to a place with another store asks that one
--- config
location = /t { auth_pat_store $TEST_NGINX_STORE_FIRST; try_files /nowhere /second; }
location = /second { auth_pat_store $TEST_NGINX_STORE_SECOND; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t", "GET /t"]
--- more_headers eval
[main::bearer($main::one, $main::two, $main::shared)]
--- error_code eval
[401, 401, 204]
--- response_headers eval
[main::subjects('', '', 'two of two')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 6: a store with a pepper beside one without, and beside one with another pepper
--- config
location = /plain { auth_pat_store $TEST_NGINX_STORE_FIRST; try_files /nowhere =204; }
location = /hex   { auth_pat_store $TEST_NGINX_STORE_HEX; auth_pat_pepper_file $TEST_NGINX_SCRATCH/hex.pepper; try_files /nowhere =204; }
location = /raw   { auth_pat_store $TEST_NGINX_STORE_RAW; auth_pat_pepper_file $TEST_NGINX_SCRATCH/raw.pepper; try_files /nowhere =204; }
--- request eval
[map { ("GET /$_") x 3 } qw(plain hex raw)]
--- more_headers eval
[(main::bearer($main::one, $main::hex, $main::raw)) x 3]
--- error_code eval
[204, 401, 401, 401, 204, 401, 401, 401, 204]
--- response_headers eval
[main::subjects('first', '', '', '', 'hex', '', '', '', 'raw')]
--- no_error_log
[error]
[crit]
[alert]
[warn]



=== TEST 7: a pepper is inherited, and turned off for a store without one
--- http_config
auth_pat_pepper_file $TEST_NGINX_SCRATCH/hex.pepper;
auth_pat_store $TEST_NGINX_STORE_HEX;
--- config
location = /inherits { try_files /nowhere =204; }
location = /again    { auth_pat_pepper_file $TEST_NGINX_SCRATCH/hex.pepper; try_files /nowhere =204; }
location = /raw      { auth_pat_store $TEST_NGINX_STORE_RAW; auth_pat_pepper_file $TEST_NGINX_SCRATCH/raw.pepper; try_files /nowhere =204; }
location /off/ {
    auth_pat_store $TEST_NGINX_STORE_FIRST;
    auth_pat_pepper_file off;
    location = /off/in { try_files /nowhere =204; }
}
--- request eval
[map { ("GET /$_") x 3 } qw(inherits again raw off/in)]
--- more_headers eval
[(main::bearer($main::one, $main::hex, $main::raw)) x 4]
--- error_code eval
[401, 204, 401, 401, 204, 401, 401, 401, 204, 204, 401, 401]
--- response_headers eval
[main::subjects('', 'hex', '', '', 'hex', '', '', '', 'raw', 'first', '', '')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 8: the path of a store may end with slashes and be named more than once, with the same map size
--- config
location = /a { auth_pat_store $TEST_NGINX_STORE_FIRST/; try_files /nowhere =204; }
location = /b { auth_pat_store $TEST_NGINX_STORE_FIRST//; try_files /nowhere =204; }
location = /c { auth_pat_store $TEST_NGINX_STORE_FIRST map_size=32g; try_files /nowhere =204; }
location = /d { auth_pat_store $TEST_NGINX_STORE_SECOND map_size=1g; try_files /nowhere =204; }
location = /e { auth_pat_store $TEST_NGINX_STORE_SECOND map_size=1024m; try_files /nowhere =204; }
--- request eval
["GET /a", "GET /b", "GET /c", "GET /d", "GET /e"]
--- more_headers eval
[main::bearer(($main::shared) x 5)]
--- error_code eval
[(204) x 5]
--- response_headers eval
[main::subjects(('one of two') x 3, ('two of two') x 2)]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 9: a store that is not there does not touch the others
--- config
location = /first  { auth_pat_store $TEST_NGINX_STORE_FIRST; try_files /nowhere =204; }
location = /absent { auth_pat_store $TEST_NGINX_SCRATCH/absent; try_files /nowhere =204; }
--- request eval
["GET /first", "GET /absent", "GET /first"]
--- more_headers eval
[main::bearer(($main::one) x 3)]
--- error_code eval
[204, 503, 204]
--- response_headers eval
[main::subjects('first', '', 'first')]
--- no_error_log
[error]
[alert]
