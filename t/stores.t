# Several stores in one nginx: each place asks its own, a pepper belongs to the store that was made with it, and one that
# can't be read when nginx starts is warned of.

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use Test::Nginx::Socket;

our $scratch = scratch();
our $first   = new_store('first');
our $second  = new_store('second');

# Peppers in the forms that they may have: hexadecimal digits, also with the end of a line behind them, and raw bytes.
my $digits  = '0123456789abcdef' x 4;
my %peppers = (
    hex    => "$digits\n",
    digits => $digits,
    open   => $digits,
    hex128 => 'ab' x 64 . "\r\n",
    raw    => join('', map { chr } 128 .. 191),
    raw32  => join('', map { chr } 200 .. 231),
);
for my $name (keys %peppers) {
    write_file("$scratch/$name.pepper", $peppers{$name});
    chmod $name eq 'open' ? 0604 : 0600, "$scratch/$name.pepper";
}

sub with_pepper {
    my ($name, $pepper) = @_;
    local $ENV{PAT_PEPPER_FILE} = "$scratch/$pepper.pepper";
    my $store = new_store($name);
    return issue($store, '--subject', $name);
}
our $hex    = with_pepper('hex', 'hex');
our $raw    = with_pepper('raw', 'raw');
our $raw32  = with_pepper('raw32', 'raw32');
our $hex128 = with_pepper('hex128', 'hex128');

sub change {
    my ($path, $code) = @_;
    open my $file, '<:raw', "$path/data.mdb" or die "$path: $!\n";
    local $_ = do { local $/; <$file> };
    $code->();
    write_file("$path/data.mdb", $_);
    return;
}
# A store of a version that is yet to come: its meta record, which "auth_pat" is part of, says so four bytes before that.
change(new_store('newer'), sub { s/.(?=...auth_pat)/\xfe/gs or die "the meta record is not where it was\n" });
# A file that is no LMDB file, and a store with a meta record that is damaged.
change(new_store('noise'),   sub { $_ = 'not a database' x 1000 });
change(new_store('damaged'), sub { s/auth_pat/auth_cat/g });

# A file that somebody else keeps something in with LMDB: two meta pages, and a leaf with a key and a value.
sub foreign_meta {
    my ($number, @database) = @_;
    return pack 'Q<S<S<L< L<L<Q<Q< L<S<S<Q<Q<Q<Q<Q< L<S<S<Q<Q<Q<Q<Q< Q<Q< x![4096]', $number, 0, 8, 0, 0xBEEFC0DE, 1, 0, 1 << 20,
        4096, 8, (0) x 5, ~0, @database, $number;
}
change(new_store('foreign'), sub {
    $_ = foreign_meta(0, (0) x 7, ~0, 1) . foreign_meta(1, 0, 0, 1, 0, 1, 0, 1, 2, 2)
        . pack('Q<S<S<S<S< S< x4062 S<S<S<S< a3a5', 2, 0, 2, 18, 4080, 4080, 5, 0, 0, 3, 'key', 'value');
    length == 3 * 4096 or die 'length of the foreign file: ', length, "\n";
});

mkdir "$scratch/empty" or die "$scratch/empty: $!\n";
symlink $first, "$scratch/link" or die "$scratch/link: $!\n";

our $one = issue($first, '--subject', 'first');
our $two = issue($second, '--subject', 'second');

# One token that both stores know, as two people.
our $shared = 'shared-token-00001';
patctl($first,  \qq({"token":"$shared","id":"one","subject":"one of two"}\n), 'import', '--plaintext', '--strict', '-');
patctl($second, \qq({"token":"$shared","id":"two","subject":"two of two"}\n), 'import', '--plaintext', '--strict', '-');

on_request('revoke-one'  => sub { patctl($first, 'revoke', 'one') });
on_request('restore-one' => sub { patctl($first, 'restore-access', 'one') });

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
plan tests => repeat_each() * 395;

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



=== TEST 10: a data.mdb that is something else is only warned of, and requests get 503
--- config
location = /t { auth_pat_store $TEST_NGINX_STORE_NOISE; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
[main::bearer($main::one, $main::hex)]
--- error_code eval
[503, 503]
--- error_log
[crit]
/noise": data.mdb is not a store of nginx-auth-pat
--- no_error_log
[alert]
[emerg]



=== TEST 11: a data.mdb that somebody else keeps something in is only warned of, and requests get 503
--- config
location = /t { auth_pat_store $TEST_NGINX_STORE_FOREIGN; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
[main::bearer($main::one, $main::hex)]
--- error_code eval
[503, 503]
--- error_log
[crit]
/foreign": data.mdb is not a store of nginx-auth-pat
--- no_error_log
[alert]
[emerg]



=== TEST 12: a data.mdb whose meta record is damaged is only warned of, and requests get 503
--- config
location = /t { auth_pat_store $TEST_NGINX_STORE_DAMAGED; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
[main::bearer($main::one, $main::hex)]
--- error_code eval
[503, 503]
--- error_log
[crit]
/damaged": a record is damaged
--- no_error_log
[alert]
[emerg]



=== TEST 13: a folder without a store is only warned of, and requests get 503
--- config
location = /t { auth_pat_store $TEST_NGINX_SCRATCH/empty; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
[main::bearer($main::one, $main::hex)]
--- error_code eval
[503, 503]
--- error_log
[crit]
/empty": there is no store ("patctl init" makes one)
--- no_error_log
[alert]
[emerg]



=== TEST 14: a store that nobody uses need not be right
--- http_config
auth_pat_store $TEST_NGINX_STORE_NEWER;
--- config
auth_pat off;
location = /t { auth_pat API; auth_pat_store $TEST_NGINX_STORE_FIRST; try_files /nowhere =204; }
location = /off { auth_pat off; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t", "GET /off"]
--- more_headers eval
[main::bearer($main::one), "X-Foo: bar", "X-Foo: bar"]
--- error_code eval
[204, 401, 204]
--- no_error_log
[alert]
[emerg]



=== TEST 15: a path through a symbolic link, and map sizes of a page and of a terabyte
--- http_config
auth_pat_store $TEST_NGINX_STORE_SECOND;
--- config
location = /a { auth_pat_store $TEST_NGINX_SCRATCH/link; try_files /nowhere =204; }
location = /b { auth_pat_store $TEST_NGINX_STORE_HEX map_size=1024g; auth_pat_pepper_file $TEST_NGINX_SCRATCH/hex.pepper; try_files /nowhere =204; }
location = /c { auth_pat_store $TEST_NGINX_STORE_RAW32 map_size=4096; auth_pat_pepper_file $TEST_NGINX_SCRATCH/raw32.pepper; try_files /nowhere =204; }
--- request eval
["GET /a", "GET /b", "GET /c"]
--- more_headers eval
[main::bearer($main::one, $main::hex, $main::raw32)]
--- error_code eval
[204, 204, 204]
--- no_error_log
[error]
[crit]
[alert]
[emerg]



=== TEST 16: peppers of 32 and 64 bytes, and of 64 and 128 digits, with and without the end of a line
--- config
location = /hex    { auth_pat_store $TEST_NGINX_STORE_HEX; auth_pat_pepper_file $TEST_NGINX_SCRATCH/digits.pepper; try_files /nowhere =204; }
location = /raw32  { auth_pat_store $TEST_NGINX_STORE_RAW32; auth_pat_pepper_file $TEST_NGINX_SCRATCH/raw32.pepper; try_files /nowhere =204; }
location = /raw    { auth_pat_store $TEST_NGINX_STORE_RAW; auth_pat_pepper_file $TEST_NGINX_SCRATCH/raw.pepper; try_files /nowhere =204; }
location = /hex128 { auth_pat_store $TEST_NGINX_STORE_HEX128; auth_pat_pepper_file $TEST_NGINX_SCRATCH/hex128.pepper; try_files /nowhere =204; }
--- request eval
["GET /hex", "GET /raw32", "GET /raw", "GET /hex128"]
--- more_headers eval
[main::bearer($main::hex, $main::raw32, $main::raw, $main::hex128)]
--- error_code eval
[204, 204, 204, 204]
--- no_error_log
[error]
[crit]
[alert]
[emerg]



=== TEST 17: a pepper file that everybody may read is warned of, and used
--- config
location = /t { auth_pat_store $TEST_NGINX_STORE_HEX; auth_pat_pepper_file $TEST_NGINX_SCRATCH/open.pepper; try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
main::bearer($main::hex)
--- error_code: 204
--- no_error_log
[error]
[crit]
[alert]
[emerg]



=== TEST 18: a store's relative path starts from the prefix of nginx
--- config
location = /t { auth_pat_store logs/nowhere; try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
main::bearer($main::one)
--- error_code: 503
--- error_log eval
qr{auth_pat store "/[^"]*/logs/nowhere": there is no store}
--- no_error_log
[alert]
[emerg]
/conf/logs/nowhere
