# What nginx says to a configuration that is wrong, and that it takes what is right but unusual.

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use Test::Nginx::Socket;

our $scratch = scratch();
our $store   = new_store('main');
our $token   = issue($store, '--subject', 'alice');

my %peppers = (
    good    => '0123456789abcdef' x 4,
    other   => 'fedcba9876543210' x 4,
    short   => 'x' x 31,
    odd     => '0123456789abcdef' x 4 . '0',
    long    => 'x' x 65,
    longhex => 'a' x 130,
    endless => 'x' x 100_000,
    empty   => '',
    newline => "\n",
    open    => '0123456789abcdef' x 4,
    writable => '0123456789abcdef' x 4,
    group   => '0123456789abcdef' x 4,
    bytes32 => join('', map { chr } 200 .. 231),
    bytes64 => join('', map { chr } 128 .. 191),
    digits128 => 'ab' x 64 . "\r\n",
);
for my $name (sort keys %peppers) {
    write_file("$scratch/$name.pepper", $peppers{$name});
    chmod { open => 0604, writable => 0602, group => 0660 }->{$name} // 0600, "$scratch/$name.pepper";
}

sub with_pepper {
    my ($name, $pepper) = @_;
    local $ENV{PAT_PEPPER_FILE} = "$scratch/$pepper.pepper";
    return issue(new_store($name), '--subject', 'alice');
}
our $peppered  = with_pepper('peppered', 'good');
our $bytes32   = with_pepper('bytes32', 'bytes32');
our $bytes64   = with_pepper('bytes64', 'bytes64');
our $digits128 = with_pepper('digits128', 'digits128');

# A store of a version that is yet to come: its meta record, which "auth_pat" is part of, says version 2.
sub change {
    my ($path, $code) = @_;
    open my $file, '<:raw', "$path/data.mdb" or die "$path: $!\n";
    local $_ = do { local $/; <$file> };
    $code->();
    write_file("$path/data.mdb", $_);
    return;
}
change(new_store('newer'), sub {
    my $at = 0;
    while (($at = index $_, 'auth_pat', $at) >= 0) {
        substr $_, $at - 4, 1, "\x02";
        $at += 8;
    }
});
# A file of an LMDB that is yet to come, one that is no LMDB file, and one with a meta record that is damaged.
change(new_store('lmdb'),    sub { substr $_, 16 + 4, 1, "\x63"; substr $_, 4096 + 16 + 4, 1, "\x63" });
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
symlink $store, "$scratch/link" or die "$scratch/link: $!\n";

repeat_each(2);
plan tests => repeat_each() * 1445;

no_long_string();
run_tests();

__DATA__

=== TEST 1: auth_pat twice in one place
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat API;
auth_pat API;
--- must_die
--- suppress_stderr
--- error_log
"auth_pat" directive is duplicate in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 2: auth_pat off twice in one place
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat off;
auth_pat off;
--- must_die
--- suppress_stderr
--- error_log
"auth_pat" directive is duplicate in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 3: auth_pat_store twice in one place
--- config
auth_pat_store $TEST_NGINX_STORE_MAIN;
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_store" directive is duplicate in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 4: auth_pat_pepper_file twice in one place
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_pepper_file $TEST_NGINX_SCRATCH/good.pepper;
auth_pat_pepper_file $TEST_NGINX_SCRATCH/good.pepper;
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_pepper_file" directive is duplicate in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 5: auth_pat_prefix twice in one place
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_prefix ropat_;
auth_pat_prefix ropat_;
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_prefix" directive is duplicate in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 6: auth_pat_leeway twice in one place
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_leeway 5s;
auth_pat_leeway 5s;
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_leeway" directive is duplicate in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 7: auth_pat on and off in one place
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t {
    auth_pat API;
    auth_pat off;
}
--- must_die
--- suppress_stderr
--- error_log
"auth_pat" directive is duplicate in
--- no_error_log
[alert]
[crit]



=== TEST 8: auth_pat_pepper_file off and on in one place
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_pepper_file off;
auth_pat_pepper_file $TEST_NGINX_SCRATCH/good.pepper;
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_pepper_file" directive is duplicate in
--- no_error_log
[alert]
[crit]



=== TEST 9: auth_pat_prefix off and on in one place
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_prefix off;
auth_pat_prefix ropat_;
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_prefix" directive is duplicate in
--- no_error_log
[alert]
[crit]



=== TEST 10: auth_pat without a store
--- config
location = /t { auth_pat API; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat" is on without an "auth_pat_store" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 11: auth_pat in http, and a store in only one of the servers
--- http_config
auth_pat API;
server { listen 127.0.0.1:$TEST_NGINX_RAND_PORT_1; auth_pat_store $TEST_NGINX_STORE_MAIN; }
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat" is on without an "auth_pat_store" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 12: auth_pat in limit_except without a store
--- config
location = /t { limit_except GET { auth_pat API; } }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat" is on without an "auth_pat_store" in
--- no_error_log
[alert]
[crit]



=== TEST 13: auth_pat with no arguments
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat;
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat" directive in
--- no_error_log
[alert]
[crit]



=== TEST 14: auth_pat with 3 arguments
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat a b c;
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat" directive in
--- no_error_log
[alert]
[crit]



=== TEST 15: auth_pat_store with no arguments
--- config
auth_pat_store;
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_store" directive in
--- no_error_log
[alert]
[crit]



=== TEST 16: auth_pat_store with 3 arguments
--- config
auth_pat_store a b c;
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_store" directive in
--- no_error_log
[alert]
[crit]



=== TEST 17: auth_pat_pepper_file with no arguments
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_pepper_file;
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_pepper_file" directive in
--- no_error_log
[alert]
[crit]



=== TEST 18: auth_pat_pepper_file with 2 arguments
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_pepper_file a b;
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_pepper_file" directive in
--- no_error_log
[alert]
[crit]



=== TEST 19: auth_pat_prefix with no arguments
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_prefix;
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_prefix" directive in
--- no_error_log
[alert]
[crit]



=== TEST 20: auth_pat_prefix with 2 arguments
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_prefix a b;
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_prefix" directive in
--- no_error_log
[alert]
[crit]



=== TEST 21: auth_pat_leeway with no arguments
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_leeway;
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_leeway" directive in
--- no_error_log
[alert]
[crit]



=== TEST 22: auth_pat_leeway with 2 arguments
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_leeway 1 2;
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_leeway" directive in
--- no_error_log
[alert]
[crit]



=== TEST 23: auth_pat_require_scope with no arguments
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require_scope;
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_require_scope" directive in
--- no_error_log
[alert]
[crit]



=== TEST 24: auth_pat with a parameter that it does not know
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat API realm=x;
--- must_die
--- suppress_stderr
--- error_log
invalid parameter "realm=x" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 25: auth_pat with the name of a parameter alone
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat API token;
--- must_die
--- suppress_stderr
--- error_log
invalid parameter "token" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 26: auth_pat with a parameter in capitals
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat API TOKEN=$http_x_api_key;
--- must_die
--- suppress_stderr
--- error_log
invalid parameter "TOKEN=$http_x_api_key" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 27: auth_pat with off and a source of tokens
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat off token=$http_x_api_key;
--- must_die
--- suppress_stderr
--- error_log
invalid parameter "token=$http_x_api_key" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 28: auth_pat with off and a parameter that it does not know
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat off x;
--- must_die
--- suppress_stderr
--- error_log
invalid parameter "x" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 29: token= without a variable
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat API token=secret;
--- must_die
--- suppress_stderr
--- error_log
"token=secret" must name a variable that holds the token in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 30: token= with nothing
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat API token=;
--- must_die
--- suppress_stderr
--- error_log
"token=" must name a variable that holds the token in
--- no_error_log
[alert]
[crit]



=== TEST 31: token= with a variable that nobody has
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat API token=$no_such_variable;
--- must_die
--- suppress_stderr
--- error_log
unknown "no_such_variable" variable
--- no_error_log
[alert]
[crit]



=== TEST 32: token= with a variable that has no name
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat API token=$;
--- must_die
--- suppress_stderr
--- error_log
invalid variable name in
--- no_error_log
[alert]
[crit]



=== TEST 33: a realm with a variable that nobody has
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat "API of $no_such_variable";
--- must_die
--- suppress_stderr
--- error_log
unknown "no_such_variable" variable
--- no_error_log
[alert]
[crit]



=== TEST 34: a realm with a brace that is not closed
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat "API ${host";
--- must_die
--- suppress_stderr
--- error_log
the closing bracket in "host" variable is missing
--- no_error_log
[alert]
[crit]



=== TEST 35: auth_pat_store with an empty path
--- config
auth_pat_store "";
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_store" needs the path of a folder in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 36: auth_pat_store with a parameter that it does not know
--- config
auth_pat_store $TEST_NGINX_STORE_MAIN size=1g;
--- must_die
--- suppress_stderr
--- error_log
invalid parameter "size=1g" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 37: map_size= with nothing
--- config
auth_pat_store $TEST_NGINX_STORE_MAIN map_size=;
--- must_die
--- suppress_stderr
--- error_log
invalid map size "" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 38: map_size=x
--- config
auth_pat_store $TEST_NGINX_STORE_MAIN map_size=x;
--- must_die
--- suppress_stderr
--- error_log
invalid map size "x" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 39: map_size=0
--- config
auth_pat_store $TEST_NGINX_STORE_MAIN map_size=0;
--- must_die
--- suppress_stderr
--- error_log
invalid map size "0" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 40: map_size=-1
--- config
auth_pat_store $TEST_NGINX_STORE_MAIN map_size=-1;
--- must_die
--- suppress_stderr
--- error_log
invalid map size "-1" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 41: map_size=1t
--- config
auth_pat_store $TEST_NGINX_STORE_MAIN map_size=1t;
--- must_die
--- suppress_stderr
--- error_log
invalid map size "1t" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 42: map_size=1g1
--- config
auth_pat_store $TEST_NGINX_STORE_MAIN map_size=1g1;
--- must_die
--- suppress_stderr
--- error_log
invalid map size "1g1" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 43: map_size=4095
--- config
auth_pat_store $TEST_NGINX_STORE_MAIN map_size=4095;
--- must_die
--- suppress_stderr
--- error_log
invalid map size "4095" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 44: map_size=99999999999999999999g
--- config
auth_pat_store $TEST_NGINX_STORE_MAIN map_size=99999999999999999999g;
--- must_die
--- suppress_stderr
--- error_log
invalid map size "99999999999999999999g" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 45: map_size=1.5g
--- config
auth_pat_store $TEST_NGINX_STORE_MAIN map_size=1.5g;
--- must_die
--- suppress_stderr
--- error_log
invalid map size "1.5g" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 46: two map sizes for one store
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN map_size=1g;
--- config
auth_pat_store $TEST_NGINX_STORE_MAIN map_size=2g;
--- must_die
--- suppress_stderr
--- error_log
/main" has another map size in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 47: a map size that conflicts with the default
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_store $TEST_NGINX_STORE_MAIN map_size=1g;
--- must_die
--- suppress_stderr
--- error_log
/main" has another map size in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 48: two map sizes for one store, whose path is written with and without a slash
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN/ map_size=1g;
--- config
auth_pat_store $TEST_NGINX_STORE_MAIN map_size=2g;
--- must_die
--- suppress_stderr
--- error_log
/main" has another map size in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 49: a pepper file that is not there
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_pepper_file $TEST_NGINX_SCRATCH/nowhere.pepper;
--- must_die
--- suppress_stderr
--- error_log
open() "
nowhere.pepper" failed (2: No such file or directory) in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 50: a pepper file that is a folder
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_pepper_file $TEST_NGINX_SCRATCH;
--- must_die
--- suppress_stderr
--- error_log
failed (21: Is a directory) in
--- no_error_log
[alert]
[crit]



=== TEST 51: a pepper file with 31 bytes
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_pepper_file $TEST_NGINX_SCRATCH/short.pepper;
--- must_die
--- suppress_stderr
--- error_log
short.pepper" must hold 32 to 64 bytes, or 64 to 128 hexadecimal digits in
--- no_error_log
[alert]
[crit]



=== TEST 52: a pepper file with an odd number of digits
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_pepper_file $TEST_NGINX_SCRATCH/odd.pepper;
--- must_die
--- suppress_stderr
--- error_log
odd.pepper" must hold 32 to 64 bytes, or 64 to 128 hexadecimal digits in
--- no_error_log
[alert]
[crit]



=== TEST 53: a pepper file with 65 bytes
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_pepper_file $TEST_NGINX_SCRATCH/long.pepper;
--- must_die
--- suppress_stderr
--- error_log
long.pepper" must hold 32 to 64 bytes, or 64 to 128 hexadecimal digits in
--- no_error_log
[alert]
[crit]



=== TEST 54: a pepper file with 130 digits
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_pepper_file $TEST_NGINX_SCRATCH/longhex.pepper;
--- must_die
--- suppress_stderr
--- error_log
longhex.pepper" must hold 32 to 64 bytes, or 64 to 128 hexadecimal digits in
--- no_error_log
[alert]
[crit]



=== TEST 55: a pepper file with a hundred thousand bytes
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_pepper_file $TEST_NGINX_SCRATCH/endless.pepper;
--- must_die
--- suppress_stderr
--- error_log
endless.pepper" must hold 32 to 64 bytes, or 64 to 128 hexadecimal digits in
--- no_error_log
[alert]
[crit]



=== TEST 56: a pepper file with nothing
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_pepper_file $TEST_NGINX_SCRATCH/empty.pepper;
--- must_die
--- suppress_stderr
--- error_log
empty.pepper" must hold 32 to 64 bytes, or 64 to 128 hexadecimal digits in
--- no_error_log
[alert]
[crit]



=== TEST 57: a pepper file with a newline
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_pepper_file $TEST_NGINX_SCRATCH/newline.pepper;
--- must_die
--- suppress_stderr
--- error_log
newline.pepper" must hold 32 to 64 bytes, or 64 to 128 hexadecimal digits in
--- no_error_log
[alert]
[crit]



=== TEST 58: a prefix with nothing
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_prefix "";
--- must_die
--- suppress_stderr
--- error_log
invalid prefix "": 1 to 32 letters, digits, "_", "-" and "." are allowed in
--- no_error_log
[alert]
[crit]



=== TEST 59: a prefix with a blank
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_prefix "a b";
--- must_die
--- suppress_stderr
--- error_log
invalid prefix "a b": 1 to 32 letters, digits, "_", "-" and "." are allowed in
--- no_error_log
[alert]
[crit]



=== TEST 60: a prefix with a slash
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_prefix ro/pat;
--- must_die
--- suppress_stderr
--- error_log
invalid prefix "ro/pat": 1 to 32 letters, digits, "_", "-" and "." are allowed in
--- no_error_log
[alert]
[crit]



=== TEST 61: a prefix with a comma
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_prefix "ro,pat";
--- must_die
--- suppress_stderr
--- error_log
invalid prefix "ro,pat": 1 to 32 letters, digits, "_", "-" and "." are allowed in
--- no_error_log
[alert]
[crit]



=== TEST 62: a prefix with a letter beyond ASCII
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_prefix préfix;
--- must_die
--- suppress_stderr
--- error_log
invalid prefix "pr
--- no_error_log
[alert]
[crit]



=== TEST 63: a prefix with 33 characters
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_prefix aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa;
--- must_die
--- suppress_stderr
--- error_log
invalid prefix "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa": 1 to 32 letters, digits, "_", "-" and "." are allowed in
--- no_error_log
[alert]
[crit]



=== TEST 64: a prefix with a tilde
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_prefix ropat~;
--- must_die
--- suppress_stderr
--- error_log
invalid prefix "ropat~": 1 to 32 letters, digits, "_", "-" and "." are allowed in
--- no_error_log
[alert]
[crit]



=== TEST 65: a prefix with a variable
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_prefix $host;
--- must_die
--- suppress_stderr
--- error_log
invalid prefix "$host": 1 to 32 letters, digits, "_", "-" and "." are allowed in
--- no_error_log
[alert]
[crit]



=== TEST 66: a leeway of x
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_leeway x;
--- must_die
--- suppress_stderr
--- error_log
invalid leeway "x": a time of at most a year is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 67: a leeway of -1
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_leeway -1;
--- must_die
--- suppress_stderr
--- error_log
invalid leeway "-1": a time of at most a year is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 68: a leeway of 1x
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_leeway 1x;
--- must_die
--- suppress_stderr
--- error_log
invalid leeway "1x": a time of at most a year is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 69: a leeway of ""
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_leeway "";
--- must_die
--- suppress_stderr
--- error_log
invalid leeway "": a time of at most a year is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 70: a leeway of 1.5s
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_leeway 1.5s;
--- must_die
--- suppress_stderr
--- error_log
invalid leeway "1.5s": a time of at most a year is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 71: a leeway of 5ms
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_leeway 5ms;
--- must_die
--- suppress_stderr
--- error_log
invalid leeway "5ms": a time of at most a year is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 72: a leeway of 99999999999999999999s
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_leeway 99999999999999999999s;
--- must_die
--- suppress_stderr
--- error_log
invalid leeway "99999999999999999999s": a time of at most a year is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 73: a scope with a quote
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require_scope "re\"ad";
--- must_die
--- suppress_stderr
--- error_log
invalid scope "
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 74: a scope with a backslash
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require_scope "re\\ad";
--- must_die
--- suppress_stderr
--- error_log
invalid scope "
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 75: a scope with a letter beyond ASCII
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require_scope léire;
--- must_die
--- suppress_stderr
--- error_log
invalid scope "
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 76: a scope with a tab
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require_scope "read wr\tite";
--- must_die
--- suppress_stderr
--- error_log
invalid scope "
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 77: a bad scope behind a good one
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require_scope read "wri\"te";
--- must_die
--- suppress_stderr
--- error_log
invalid scope "wri"te" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 78: a scope with a variable that nobody has
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require_scope $no_such_variable;
--- must_die
--- suppress_stderr
--- error_log
unknown "no_such_variable" variable
--- no_error_log
[alert]
[crit]



=== TEST 79: match=none
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require_scope read match=none;
--- must_die
--- suppress_stderr
--- error_log
invalid parameter "match=none" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 80: match= with nothing
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require_scope read match=;
--- must_die
--- suppress_stderr
--- error_log
invalid parameter "match=" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 81: match=ALL
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require_scope read match=ALL;
--- must_die
--- suppress_stderr
--- error_log
invalid parameter "match=ALL" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 82: match=$arg_match
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require_scope read match=$arg_match;
--- must_die
--- suppress_stderr
--- error_log
invalid parameter "match=$arg_match" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 83: match=any without a scope
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require_scope match=any;
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_require_scope" names no scope in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 84: auth_pat outside http
--- main_config
auth_pat API;
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat" directive is not allowed here in
--- no_error_log
[alert]
[crit]



=== TEST 85: auth_pat_store outside http
--- main_config
auth_pat_store x;
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_store" directive is not allowed here in
--- no_error_log
[alert]
[crit]



=== TEST 86: auth_pat_pepper_file outside http
--- main_config
auth_pat_pepper_file off;
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_pepper_file" directive is not allowed here in
--- no_error_log
[alert]
[crit]



=== TEST 87: auth_pat_prefix outside http
--- main_config
auth_pat_prefix x;
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_prefix" directive is not allowed here in
--- no_error_log
[alert]
[crit]



=== TEST 88: auth_pat_leeway outside http
--- main_config
auth_pat_leeway 1;
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_leeway" directive is not allowed here in
--- no_error_log
[alert]
[crit]



=== TEST 89: auth_pat_require_scope outside http
--- main_config
auth_pat_require_scope x;
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_require_scope" directive is not allowed here in
--- no_error_log
[alert]
[crit]



=== TEST 90: auth_pat in an if of the server
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
if ($arg_x) { auth_pat API; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat" directive is not allowed here in
--- no_error_log
[alert]
[crit]



=== TEST 91: auth_pat_store in an if of the server
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
if ($arg_x) { auth_pat_store x; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_store" directive is not allowed here in
--- no_error_log
[alert]
[crit]



=== TEST 92: auth_pat_require_scope in an if of the server
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
if ($arg_x) { auth_pat_require_scope x; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_require_scope" directive is not allowed here in
--- no_error_log
[alert]
[crit]



=== TEST 93: auth_pat_store in limit_except
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { limit_except GET { auth_pat_store x; } }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_store" directive is not allowed here in
--- no_error_log
[alert]
[crit]



=== TEST 94: auth_pat_pepper_file in limit_except
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { limit_except GET { auth_pat_pepper_file off; } }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_pepper_file" directive is not allowed here in
--- no_error_log
[alert]
[crit]



=== TEST 95: auth_pat_prefix in limit_except
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { limit_except GET { auth_pat_prefix x; } }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_prefix" directive is not allowed here in
--- no_error_log
[alert]
[crit]



=== TEST 96: auth_pat_leeway in limit_except
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { limit_except GET { auth_pat_leeway 1; } }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_leeway" directive is not allowed here in
--- no_error_log
[alert]
[crit]



=== TEST 97: auth_pat in an upstream
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
upstream u { server 127.0.0.1:1; auth_pat API; }
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat" directive is not allowed here in
--- no_error_log
[alert]
[crit]



=== TEST 98: a store that was made with a pepper, without one
--- config
location = /t { auth_pat API; auth_pat_store $TEST_NGINX_STORE_PEPPERED; }
--- must_die
--- suppress_stderr
--- error_log
/peppered": the pepper does not match: the store was made with another one, or one of both has none, used by "auth_pat" in 
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 99: a store that was made without a pepper, with one
--- config
location = /t { auth_pat API; auth_pat_store $TEST_NGINX_STORE_MAIN; auth_pat_pepper_file $TEST_NGINX_SCRATCH/good.pepper; }
--- must_die
--- suppress_stderr
--- error_log
/main": the pepper does not match: the store was made with another one, or one of both has none, used by "auth_pat" in 
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 100: a store that was made with another pepper
--- config
location = /t { auth_pat API; auth_pat_store $TEST_NGINX_STORE_PEPPERED; auth_pat_pepper_file $TEST_NGINX_SCRATCH/other.pepper; }
--- must_die
--- suppress_stderr
--- error_log
/peppered": the pepper does not match: the store was made with another one, or one of both has none, used by "auth_pat" in 
--- no_error_log
[alert]
[crit]



=== TEST 101: one store with the right pepper and without it
--- http_config
auth_pat API;
auth_pat_store $TEST_NGINX_STORE_PEPPERED;
auth_pat_pepper_file $TEST_NGINX_SCRATCH/good.pepper;
--- config
location = /a { try_files /nowhere =204; }
location = /t { auth_pat_pepper_file off; }
--- must_die
--- suppress_stderr
--- error_log
/peppered": the pepper does not match: the store was made with another one, or one of both has none, used by "auth_pat" in 
--- no_error_log
[alert]
[crit]



=== TEST 102: a store of a newer format
--- config
location = /t { auth_pat API; auth_pat_store $TEST_NGINX_STORE_NEWER; }
--- must_die
--- suppress_stderr
--- error_log
/newer": the store was written by a newer version of nginx-auth-pat, used by "auth_pat" in 
--- no_error_log
[alert]
[crit]



=== TEST 103: a store of a newer LMDB
--- config
location = /t { auth_pat API; auth_pat_store $TEST_NGINX_STORE_LMDB; }
--- must_die
--- suppress_stderr
--- error_log
/lmdb": data.mdb was written by a newer LMDB
--- no_error_log
[alert]
[crit]



=== TEST 104: a data.mdb that is something else is only warned of, and requests get 503
--- config
location = /t { auth_pat API; auth_pat_store $TEST_NGINX_STORE_NOISE; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
["Authorization: Bearer $main::token", "Authorization: Bearer $main::peppered"]
--- error_code eval
[503, 503]
--- error_log
[crit]
/noise": data.mdb is not a store of nginx-auth-pat
--- no_error_log
[alert]
[emerg]



=== TEST 105: a data.mdb that somebody else keeps something in is only warned of, and requests get 503
--- config
location = /t { auth_pat API; auth_pat_store $TEST_NGINX_STORE_FOREIGN; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
["Authorization: Bearer $main::token", "Authorization: Bearer $main::peppered"]
--- error_code eval
[503, 503]
--- error_log
[crit]
/foreign": data.mdb is not a store of nginx-auth-pat
--- no_error_log
[alert]
[emerg]



=== TEST 106: a data.mdb whose meta record is damaged is only warned of, and requests get 503
--- config
location = /t { auth_pat API; auth_pat_store $TEST_NGINX_STORE_DAMAGED; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
["Authorization: Bearer $main::token", "Authorization: Bearer $main::peppered"]
--- error_code eval
[503, 503]
--- error_log
[crit]
/damaged": a record is damaged
--- no_error_log
[alert]
[emerg]



=== TEST 107: a folder without a store is only warned of, and requests get 503
--- config
location = /t { auth_pat API; auth_pat_store $TEST_NGINX_SCRATCH/empty; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
["Authorization: Bearer $main::token", "Authorization: Bearer $main::peppered"]
--- error_code eval
[503, 503]
--- error_log
[crit]
/empty": there is no store ("patctl init" makes one)
--- no_error_log
[alert]
[emerg]



=== TEST 108: a store that nobody uses need not be right
--- http_config
auth_pat_store $TEST_NGINX_STORE_NEWER;
--- config
location = /t { auth_pat API; auth_pat_store $TEST_NGINX_STORE_MAIN; try_files /nowhere =204; }
location = /off { auth_pat off; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t", "GET /off"]
--- more_headers eval
["Authorization: Bearer $main::token", "X-Foo: bar", "X-Foo: bar"]
--- error_code eval
[204, 401, 204]
--- no_error_log
[alert]
[emerg]



=== TEST 109: off is a word of its own, not a realm that starts or ends with it, nor one in capitals
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /a { auth_pat office; try_files /nowhere =204; }
location = /b { auth_pat OFF; try_files /nowhere =204; }
location = /c { auth_pat "off "; try_files /nowhere =204; }
location = /d { auth_pat "off"; try_files /nowhere =204; }
location = /e { auth_pat on; try_files /nowhere =204; }
--- request eval
["GET /a", "GET /b", "GET /c", "GET /d", "GET /e"]
--- more_headers eval
[("X-Foo: bar") x 5]
--- error_code eval
[401, 401, 401, 204, 401]
--- response_headers eval
['WWW-Authenticate: Bearer realm="office"', 'WWW-Authenticate: Bearer realm="OFF"', 'WWW-Authenticate: Bearer realm="off "',
 'WWW-Authenticate:', 'WWW-Authenticate: Bearer realm="on"']
--- no_error_log
[error]
[crit]
[alert]
[emerg]



=== TEST 110: a path through a symbolic link, and map sizes of a page and of a terabyte
--- config
location = /a { auth_pat API; auth_pat_store $TEST_NGINX_SCRATCH/link; try_files /nowhere =204; }
location = /b { auth_pat API; auth_pat_store $TEST_NGINX_STORE_PEPPERED map_size=1024g; auth_pat_pepper_file $TEST_NGINX_SCRATCH/good.pepper; try_files /nowhere =204; }
location = /c { auth_pat API; auth_pat_store $TEST_NGINX_STORE_BYTES32 map_size=4096; auth_pat_pepper_file $TEST_NGINX_SCRATCH/bytes32.pepper; try_files /nowhere =204; }
--- request eval
["GET /a", "GET /b", "GET /c"]
--- more_headers eval
["Authorization: Bearer $main::token", "Authorization: Bearer $main::peppered", "Authorization: Bearer $main::bytes32"]
--- error_code eval
[204, 204, 204]
--- no_error_log
[error]
[crit]
[alert]
[emerg]



=== TEST 111: peppers of 32 and 64 bytes, and of 64 and 128 digits
--- config
location = /good { auth_pat API; auth_pat_store $TEST_NGINX_STORE_PEPPERED; auth_pat_pepper_file $TEST_NGINX_SCRATCH/good.pepper; try_files /nowhere =204; }
location = /bytes32 { auth_pat API; auth_pat_store $TEST_NGINX_STORE_BYTES32; auth_pat_pepper_file $TEST_NGINX_SCRATCH/bytes32.pepper; try_files /nowhere =204; }
location = /bytes64 { auth_pat API; auth_pat_store $TEST_NGINX_STORE_BYTES64; auth_pat_pepper_file $TEST_NGINX_SCRATCH/bytes64.pepper; try_files /nowhere =204; }
location = /digits128 { auth_pat API; auth_pat_store $TEST_NGINX_STORE_DIGITS128; auth_pat_pepper_file $TEST_NGINX_SCRATCH/digits128.pepper; try_files /nowhere =204; }
--- request eval
["GET /good", "GET /bytes32", "GET /bytes64", "GET /digits128"]
--- more_headers eval
["Authorization: Bearer $main::peppered", "Authorization: Bearer $main::bytes32", "Authorization: Bearer $main::bytes64", "Authorization: Bearer $main::digits128"]
--- error_code eval
[204, 204, 204, 204]
--- no_error_log
[error]
[crit]
[alert]
[emerg]



=== TEST 112: prefixes of one character and of 32, and of every kind of character that is allowed
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat API;
location = /a { auth_pat_prefix r; try_files /nowhere =204; }
location = /b { auth_pat_prefix aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; try_files /nowhere =204; }
location = /c { auth_pat_prefix A-Z_a.z09; try_files /nowhere =204; }
location = /d { auth_pat_prefix ropat_; try_files /nowhere =204; }
--- request eval
["GET /a", "GET /b", "GET /c", "GET /d"]
--- more_headers eval
[("Authorization: Bearer $main::token") x 4]
--- error_code eval
[401, 401, 401, 204]
--- no_error_log
[error]
[crit]
[alert]
[emerg]



=== TEST 113: directives that have nothing to do where auth_pat is off
--- config
auth_pat_prefix ropat_;
auth_pat_leeway 5s;
auth_pat_require_scope read;
auth_pat_pepper_file $TEST_NGINX_SCRATCH/good.pepper;
location = /t { try_files /nowhere =204; }
--- request eval
["GET /t"]
--- more_headers eval
["X-Foo: bar"]
--- error_code eval
[204]
--- no_error_log
[error]
[crit]
[alert]
[emerg]



=== TEST 114: the directives in any order, on one line and over several
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_require_scope
    ""
    match=any
; auth_pat_leeway 1y; auth_pat
"API"; try_files /nowhere =204; }
location = /u { auth_pat_prefix ropat_; auth_pat_require_scope ""; auth_pat API token=$arg_t; auth_pat_store $TEST_NGINX_STORE_MAIN; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /u?t=$main::token", "GET /u"]
--- more_headers eval
["Authorization: Bearer $main::token", "X-Foo: bar", "Authorization: Bearer $main::token"]
--- error_code eval
[204, 204, 401]
--- no_error_log
[error]
[crit]
[alert]
[emerg]



=== TEST 115: a location without a name asks by its own settings
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t {
    auth_pat API;
    try_files /nowhere @named;
}
location @named { auth_pat Named; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
["Authorization: Bearer $main::token", "X-Foo: bar"]
--- error_code eval
[204, 401]
--- no_error_log
[error]
[crit]
[alert]
[emerg]



=== TEST 116: a pepper file that everybody may read is warned of, and used
--- config
location = /t { auth_pat API; auth_pat_store $TEST_NGINX_STORE_PEPPERED; auth_pat_pepper_file $TEST_NGINX_SCRATCH/open.pepper; try_files /nowhere =204; }
--- request eval
["GET /t"]
--- more_headers eval
["Authorization: Bearer $main::peppered"]
--- error_code eval
[204]
--- no_error_log
[error]
[crit]
[alert]
[emerg]



=== TEST 117: a leeway of a year and a second
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_leeway 31536001;
--- must_die
--- suppress_stderr
--- error_log
invalid leeway "31536001": a time of at most a year is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 118: a leeway of thirteen months
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_leeway 13M;
--- must_die
--- suppress_stderr
--- error_log
invalid leeway "13M": a time of at most a year is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 119: the warning of a pepper file that everybody may read or write, beside an error
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /a { auth_pat_pepper_file $TEST_NGINX_SCRATCH/open.pepper; }
location = /b { auth_pat_pepper_file $TEST_NGINX_SCRATCH/writable.pepper; }
location = /c { auth_pat_pepper_file $TEST_NGINX_SCRATCH/group.pepper; }
auth_pat_prefix "";
--- must_die
--- suppress_stderr
--- error_log
[warn]
open.pepper" is accessible to all users in
writable.pepper" is accessible to all users in
invalid prefix ""
--- no_error_log
[alert]
[crit]
group.pepper" is accessible



=== TEST 120: the warning of a store that is not there yet, beside an error
--- config
location = /a { auth_pat API; auth_pat_store $TEST_NGINX_SCRATCH/later; }
location = /b { auth_pat API; auth_pat_store $TEST_NGINX_STORE_NEWER; }
--- must_die
--- suppress_stderr
--- error_log
[warn]
/later": there is no store ("patctl init" makes one): No such file or directory, used by "auth_pat" in 
/newer": the store was written by a newer version
--- no_error_log
[alert]
[crit]



=== TEST 121: a pepper file's relative path starts from the folder of nginx.conf
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_pepper_file nowhere.pepper;
--- must_die
--- suppress_stderr
--- error_log
/conf/nowhere.pepper" failed (2: No such file or directory) in
--- no_error_log
[alert]
[crit]



=== TEST 122: a store's relative path starts from the prefix of nginx
--- config
location = /t { auth_pat API; auth_pat_store logs/nowhere; try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
"Authorization: Bearer $main::token"
--- error_code: 503
--- error_log eval
qr{auth_pat store "/[^"]*/logs/nowhere": there is no store}
--- no_error_log
[alert]
[emerg]
/conf/logs/nowhere



=== TEST 123: auth_pat_optional twice in one place
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_optional on;
auth_pat_optional on;
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_optional" directive is duplicate in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 124: auth_pat_preflight twice in one place
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_preflight pass;
auth_pat_preflight pass;
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_preflight" directive is duplicate in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 125: auth_pat_dry_run twice in one place
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_dry_run on;
auth_pat_dry_run on;
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_dry_run" directive is duplicate in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 126: auth_pat_max_age twice in one place
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_max_age 1m;
auth_pat_max_age 1m;
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_max_age" directive is duplicate in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 127: auth_pat_fail_open twice in one place
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_fail_open on;
auth_pat_fail_open on;
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_fail_open" directive is duplicate in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 128: auth_pat_recheck twice in one place
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_recheck 5s;
auth_pat_recheck 5s;
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_recheck" directive is duplicate in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 129: auth_pat_zone twice
--- http_config
auth_pat_zone pat:1m;
auth_pat_zone pat:1m;
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_zone" directive is duplicate in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 130: auth_pat_status twice in one place
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_status json;
auth_pat_status json;
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_status" directive is duplicate in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 131: auth_pat_usage twice in one place
--- http_config
auth_pat_zone pat:1m;
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_usage; auth_pat_usage; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_usage" directive is duplicate in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 132: auth_pat_optional on and auth_pat_optional off in one place
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_optional on; auth_pat_optional off; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_optional" directive is duplicate in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 133: auth_pat_preflight check and auth_pat_preflight check in one place
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_preflight check; auth_pat_preflight check; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_preflight" directive is duplicate in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 134: auth_pat_dry_run off and auth_pat_dry_run on in one place
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_dry_run off; auth_pat_dry_run on; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_dry_run" directive is duplicate in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 135: auth_pat_max_age 0 and auth_pat_max_age 1m in one place
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_max_age 0; auth_pat_max_age 1m; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_max_age" directive is duplicate in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 136: auth_pat_fail_open off and auth_pat_fail_open off in one place
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_fail_open off; auth_pat_fail_open off; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_fail_open" directive is duplicate in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 137: auth_pat_recheck 0 and auth_pat_recheck 0 in one place
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_recheck 0; auth_pat_recheck 0; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_recheck" directive is duplicate in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 138: auth_pat_status and auth_pat_status html in one place
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_status; auth_pat_status html; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_status" directive is duplicate in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 139: auth_pat_require with no arguments
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_require; }
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_require" directive in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 140: auth_pat_optional with no arguments
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_optional; }
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_optional" directive in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 141: auth_pat_optional with too many arguments
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_optional on on; }
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_optional" directive in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 142: auth_pat_preflight with no arguments
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_preflight; }
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_preflight" directive in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 143: auth_pat_preflight with too many arguments
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_preflight pass pass; }
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_preflight" directive in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 144: auth_pat_dry_run with no arguments
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_dry_run; }
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_dry_run" directive in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 145: auth_pat_dry_run with too many arguments
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_dry_run on on; }
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_dry_run" directive in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 146: auth_pat_max_age with no arguments
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_max_age; }
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_max_age" directive in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 147: auth_pat_max_age with too many arguments
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_max_age 1m 1m; }
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_max_age" directive in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 148: auth_pat_fail_open with no arguments
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_fail_open; }
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_fail_open" directive in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 149: auth_pat_fail_open with too many arguments
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_fail_open on on; }
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_fail_open" directive in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 150: auth_pat_recheck with no arguments
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_recheck; }
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_recheck" directive in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 151: auth_pat_recheck with too many arguments
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_recheck 5s 5s; }
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_recheck" directive in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 152: auth_pat_zone with no arguments
--- http_config
auth_pat_zone;
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_zone" directive in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 153: auth_pat_zone with too many arguments
--- http_config
auth_pat_zone pat:1m pat:1m;
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_zone" directive in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 154: auth_pat_status with too many arguments
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_status json json; }
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_status" directive in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 155: auth_pat_usage with too many arguments
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_usage on; }
--- must_die
--- suppress_stderr
--- error_log
invalid number of arguments in "auth_pat_usage" directive in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 156: auth_pat_optional yes
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_optional yes; }
--- must_die
--- suppress_stderr
--- error_log
invalid value "yes" in "auth_pat_optional" directive, it must be "on" or "off" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 157: auth_pat_optional 1
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_optional 1; }
--- must_die
--- suppress_stderr
--- error_log
invalid value "1" in "auth_pat_optional" directive, it must be "on" or "off" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 158: auth_pat_optional $arg_x
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_optional $arg_x; }
--- must_die
--- suppress_stderr
--- error_log
invalid value "$arg_x" in "auth_pat_optional" directive, it must be "on" or "off" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 159: auth_pat_optional ""
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_optional ""; }
--- must_die
--- suppress_stderr
--- error_log
invalid value "" in "auth_pat_optional" directive, it must be "on" or "off" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 160: auth_pat_dry_run yes
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_dry_run yes; }
--- must_die
--- suppress_stderr
--- error_log
invalid value "yes" in "auth_pat_dry_run" directive, it must be "on" or "off" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 161: auth_pat_dry_run 1
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_dry_run 1; }
--- must_die
--- suppress_stderr
--- error_log
invalid value "1" in "auth_pat_dry_run" directive, it must be "on" or "off" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 162: auth_pat_dry_run $arg_x
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_dry_run $arg_x; }
--- must_die
--- suppress_stderr
--- error_log
invalid value "$arg_x" in "auth_pat_dry_run" directive, it must be "on" or "off" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 163: auth_pat_dry_run ""
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_dry_run ""; }
--- must_die
--- suppress_stderr
--- error_log
invalid value "" in "auth_pat_dry_run" directive, it must be "on" or "off" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 164: auth_pat_fail_open yes
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_fail_open yes; }
--- must_die
--- suppress_stderr
--- error_log
invalid value "yes" in "auth_pat_fail_open" directive, it must be "on" or "off" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 165: auth_pat_fail_open 1
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_fail_open 1; }
--- must_die
--- suppress_stderr
--- error_log
invalid value "1" in "auth_pat_fail_open" directive, it must be "on" or "off" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 166: auth_pat_fail_open $arg_x
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_fail_open $arg_x; }
--- must_die
--- suppress_stderr
--- error_log
invalid value "$arg_x" in "auth_pat_fail_open" directive, it must be "on" or "off" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 167: auth_pat_fail_open ""
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_fail_open ""; }
--- must_die
--- suppress_stderr
--- error_log
invalid value "" in "auth_pat_fail_open" directive, it must be "on" or "off" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 168: auth_pat_preflight on
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_preflight on; }
--- must_die
--- suppress_stderr
--- error_log
invalid value "on" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 169: auth_pat_preflight off
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_preflight off; }
--- must_die
--- suppress_stderr
--- error_log
invalid value "off" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 170: auth_pat_preflight $arg_x
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_preflight $arg_x; }
--- must_die
--- suppress_stderr
--- error_log
invalid value "$arg_x" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 171: auth_pat_preflight ""
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_preflight ""; }
--- must_die
--- suppress_stderr
--- error_log
invalid value "" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 172: a max age of x
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_max_age x;
--- must_die
--- suppress_stderr
--- error_log
invalid max age "x": a time of at most a year is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 173: a max age of -1
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_max_age -1;
--- must_die
--- suppress_stderr
--- error_log
invalid max age "-1": a time of at most a year is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 174: a max age of 1x
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_max_age 1x;
--- must_die
--- suppress_stderr
--- error_log
invalid max age "1x": a time of at most a year is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 175: a max age of ""
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_max_age "";
--- must_die
--- suppress_stderr
--- error_log
invalid max age "": a time of at most a year is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 176: a max age of 1.5s
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_max_age 1.5s;
--- must_die
--- suppress_stderr
--- error_log
invalid max age "1.5s": a time of at most a year is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 177: a max age of 5ms
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_max_age 5ms;
--- must_die
--- suppress_stderr
--- error_log
invalid max age "5ms": a time of at most a year is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 178: a max age of 31536001
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_max_age 31536001;
--- must_die
--- suppress_stderr
--- error_log
invalid max age "31536001": a time of at most a year is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 179: a max age of 13M
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_max_age 13M;
--- must_die
--- suppress_stderr
--- error_log
invalid max age "13M": a time of at most a year is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 180: a max age of 99999999999999999999s
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_max_age 99999999999999999999s;
--- must_die
--- suppress_stderr
--- error_log
invalid max age "99999999999999999999s": a time of at most a year is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 181: a max age of off
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_max_age off;
--- must_die
--- suppress_stderr
--- error_log
invalid max age "off": a time of at most a year is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 182: a recheck interval of x
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_recheck x;
--- must_die
--- suppress_stderr
--- error_log
invalid interval "x": 0, or 100ms to 1d, are allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 183: a recheck interval of -1
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_recheck -1;
--- must_die
--- suppress_stderr
--- error_log
invalid interval "-1": 0, or 100ms to 1d, are allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 184: a recheck interval of 1x
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_recheck 1x;
--- must_die
--- suppress_stderr
--- error_log
invalid interval "1x": 0, or 100ms to 1d, are allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 185: a recheck interval of ""
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_recheck "";
--- must_die
--- suppress_stderr
--- error_log
invalid interval "": 0, or 100ms to 1d, are allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 186: a recheck interval of 99ms
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_recheck 99ms;
--- must_die
--- suppress_stderr
--- error_log
invalid interval "99ms": 0, or 100ms to 1d, are allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 187: a recheck interval of 1ms
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_recheck 1ms;
--- must_die
--- suppress_stderr
--- error_log
invalid interval "1ms": 0, or 100ms to 1d, are allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 188: a recheck interval of 0.5s
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_recheck 0.5s;
--- must_die
--- suppress_stderr
--- error_log
invalid interval "0.5s": 0, or 100ms to 1d, are allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 189: a recheck interval of 86400001ms
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_recheck 86400001ms;
--- must_die
--- suppress_stderr
--- error_log
invalid interval "86400001ms": 0, or 100ms to 1d, are allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 190: a recheck interval of 25h
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_recheck 25h;
--- must_die
--- suppress_stderr
--- error_log
invalid interval "25h": 0, or 100ms to 1d, are allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 191: a recheck interval of 2d
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_recheck 2d;
--- must_die
--- suppress_stderr
--- error_log
invalid interval "2d": 0, or 100ms to 1d, are allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 192: a recheck interval of off
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_recheck off;
--- must_die
--- suppress_stderr
--- error_log
invalid interval "off": 0, or 100ms to 1d, are allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 193: a recheck interval of 99999999999999999999s
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_recheck 99999999999999999999s;
--- must_die
--- suppress_stderr
--- error_log
invalid interval "99999999999999999999s": 0, or 100ms to 1d, are allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 194: auth_pat_status text
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_status text; }
--- must_die
--- suppress_stderr
--- error_log
invalid format "text": json, prometheus or html are allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 195: auth_pat_status json,html
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_status json,html; }
--- must_die
--- suppress_stderr
--- error_log
invalid format "json,html": json, prometheus or html are allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 196: auth_pat_status $arg_x
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_status $arg_x; }
--- must_die
--- suppress_stderr
--- error_log
invalid format "$arg_x": json, prometheus or html are allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 197: auth_pat_status ""
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_status ""; }
--- must_die
--- suppress_stderr
--- error_log
invalid format "": json, prometheus or html are allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 198: auth_pat_status off
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_status off; }
--- must_die
--- suppress_stderr
--- error_log
invalid format "off": json, prometheus or html are allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 199: auth_pat_require with error=399
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require $arg_x error=399;
--- must_die
--- suppress_stderr
--- error_log
invalid parameter "error=399": a status from 400 to 499 is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 200: auth_pat_require with error=500
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require $arg_x error=500;
--- must_die
--- suppress_stderr
--- error_log
invalid parameter "error=500": a status from 400 to 499 is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 201: auth_pat_require with error=
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require $arg_x error=;
--- must_die
--- suppress_stderr
--- error_log
invalid parameter "error=": a status from 400 to 499 is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 202: auth_pat_require with error=x
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require $arg_x error=x;
--- must_die
--- suppress_stderr
--- error_log
invalid parameter "error=x": a status from 400 to 499 is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 203: auth_pat_require with error=40
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require $arg_x error=40;
--- must_die
--- suppress_stderr
--- error_log
invalid parameter "error=40": a status from 400 to 499 is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 204: auth_pat_require with error=4030
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require $arg_x error=4030;
--- must_die
--- suppress_stderr
--- error_log
invalid parameter "error=4030": a status from 400 to 499 is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 205: auth_pat_require with error=-403
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require $arg_x error=-403;
--- must_die
--- suppress_stderr
--- error_log
invalid parameter "error=-403": a status from 400 to 499 is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 206: auth_pat_require with error=403x
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require $arg_x error=403x;
--- must_die
--- suppress_stderr
--- error_log
invalid parameter "error=403x": a status from 400 to 499 is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 207: auth_pat_require with error=$arg_x
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require $arg_x error=$arg_x;
--- must_die
--- suppress_stderr
--- error_log
invalid parameter "error=$arg_x": a status from 400 to 499 is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 208: auth_pat_require with error=99999999999999999999
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require $arg_x error=99999999999999999999;
--- must_die
--- suppress_stderr
--- error_log
invalid parameter "error=99999999999999999999": a status from 400 to 499 is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 209: auth_pat_require with a bad error= behind a good one
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require $arg_x error=403 error=503;
--- must_die
--- suppress_stderr
--- error_log
invalid parameter "error=503": a status from 400 to 499 is allowed in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 210: auth_pat_require with error= alone
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require error=404;
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_require" names no variable in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 211: auth_pat_require with error= alone beside a good one
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require $arg_x;
auth_pat_require error=404;
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_require" names no variable in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 212: auth_pat_require with 1, which has no variable
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require $arg_x 1;
--- must_die
--- suppress_stderr
--- error_log
"1" is not a variable: with other text it would never be empty or 0 in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 213: auth_pat_require with arg_x, which has no variable
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require $arg_x arg_x;
--- must_die
--- suppress_stderr
--- error_log
"arg_x" is not a variable: with other text it would never be empty or 0 in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 214: auth_pat_require with "", which has no variable
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require $arg_x "";
--- must_die
--- suppress_stderr
--- error_log
"" is not a variable: with other text it would never be empty or 0 in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 215: auth_pat_require with "a b", which has no variable
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require $arg_x "a b";
--- must_die
--- suppress_stderr
--- error_log
"a b" is not a variable: with other text it would never be empty or 0 in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 216: auth_pat_require with Error=404, which has no variable
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require $arg_x Error=404;
--- must_die
--- suppress_stderr
--- error_log
"Error=404" is not a variable: with other text it would never be empty or 0 in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 217: auth_pat_require with a variable that nobody has
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require $nobody_has_this;
--- must_die
--- suppress_stderr
--- error_log
unknown "nobody_has_this" variable
--- no_error_log
[alert]
[crit]



=== TEST 218: auth_pat_require with a variable that has no name
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require $;
--- must_die
--- suppress_stderr
--- error_log
invalid variable name in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 219: auth_pat_require with a brace that is not closed
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require "${arg_x";
--- must_die
--- suppress_stderr
--- error_log
the closing bracket in "arg_x" variable is missing in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 220: auth_pat_usage without a store
--- http_config
auth_pat_zone pat:1m;
--- config
location = /t { auth_pat_usage; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_usage" is used without an "auth_pat_store" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 221: auth_pat_usage without a zone
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_usage; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_usage" is used without an "auth_pat_zone" in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 222: auth_pat_require outside http
--- main_config
auth_pat_require $arg_x;
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_require" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 223: auth_pat_optional outside http
--- main_config
auth_pat_optional on;
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_optional" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 224: auth_pat_preflight outside http
--- main_config
auth_pat_preflight pass;
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_preflight" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 225: auth_pat_dry_run outside http
--- main_config
auth_pat_dry_run on;
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_dry_run" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 226: auth_pat_max_age outside http
--- main_config
auth_pat_max_age 1m;
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_max_age" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 227: auth_pat_fail_open outside http
--- main_config
auth_pat_fail_open on;
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_fail_open" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 228: auth_pat_recheck outside http
--- main_config
auth_pat_recheck 5s;
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_recheck" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 229: auth_pat_zone outside http
--- main_config
auth_pat_zone pat:1m;
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_zone" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 230: auth_pat_status outside http
--- main_config
auth_pat_status json;
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_status" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 231: auth_pat_usage outside http
--- main_config
auth_pat_usage;
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_usage" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 232: auth_pat_require in an if of the server
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
if ($arg_x) { auth_pat_require $arg_x; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_require" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 233: auth_pat_optional in an if of the server
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
if ($arg_x) { auth_pat_optional on; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_optional" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 234: auth_pat_preflight in an if of the server
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
if ($arg_x) { auth_pat_preflight pass; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_preflight" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 235: auth_pat_dry_run in an if of the server
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
if ($arg_x) { auth_pat_dry_run on; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_dry_run" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 236: auth_pat_max_age in an if of the server
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
if ($arg_x) { auth_pat_max_age 1m; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_max_age" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 237: auth_pat_fail_open in an if of the server
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
if ($arg_x) { auth_pat_fail_open on; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_fail_open" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 238: auth_pat_recheck in an if of the server
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
if ($arg_x) { auth_pat_recheck 5s; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_recheck" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 239: auth_pat_zone in an if of the server
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
if ($arg_x) { auth_pat_zone pat:1m; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_zone" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 240: auth_pat_status in an if of the server
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
if ($arg_x) { auth_pat_status json; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_status" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 241: auth_pat_usage in an if of the server
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
if ($arg_x) { auth_pat_usage; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_usage" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 242: auth_pat_require in an if of a location
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { if ($arg_x) { auth_pat_require $arg_x; } }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_require" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 243: auth_pat_optional in an if of a location
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { if ($arg_x) { auth_pat_optional on; } }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_optional" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 244: auth_pat_preflight in an if of a location
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { if ($arg_x) { auth_pat_preflight pass; } }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_preflight" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 245: auth_pat_dry_run in an if of a location
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { if ($arg_x) { auth_pat_dry_run on; } }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_dry_run" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 246: auth_pat_max_age in an if of a location
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { if ($arg_x) { auth_pat_max_age 1m; } }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_max_age" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 247: auth_pat_fail_open in an if of a location
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { if ($arg_x) { auth_pat_fail_open on; } }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_fail_open" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 248: auth_pat_recheck in an if of a location
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { if ($arg_x) { auth_pat_recheck 5s; } }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_recheck" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 249: auth_pat_zone in an if of a location
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { if ($arg_x) { auth_pat_zone pat:1m; } }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_zone" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 250: auth_pat_status in an if of a location
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { if ($arg_x) { auth_pat_status json; } }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_status" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 251: auth_pat_usage in an if of a location
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { if ($arg_x) { auth_pat_usage; } }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_usage" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 252: auth_pat_max_age in limit_except
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { limit_except GET { auth_pat_max_age 1m; } }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_max_age" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 253: auth_pat_fail_open in limit_except
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { limit_except GET { auth_pat_fail_open on; } }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_fail_open" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 254: auth_pat_recheck in limit_except
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { limit_except GET { auth_pat_recheck 5s; } }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_recheck" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 255: auth_pat_zone in limit_except
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { limit_except GET { auth_pat_zone pat:1m; } }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_zone" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 256: auth_pat_status in limit_except
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { limit_except GET { auth_pat_status json; } }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_status" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 257: auth_pat_usage in limit_except
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { limit_except GET { auth_pat_usage; } }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_usage" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 258: auth_pat_zone in a server
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_zone pat:1m;
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_zone" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 259: auth_pat_usage in a server
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_usage;
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_usage" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 260: auth_pat_zone in a location
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { auth_pat_zone pat:1m; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_zone" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 261: auth_pat_status in http
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
auth_pat_status json;
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_status" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 262: auth_pat_usage in http
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
auth_pat_usage;
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_usage" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 263: auth_pat_require in an upstream
--- http_config
upstream u { server 127.0.0.1:1; auth_pat_require $arg_x; }
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_require" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 264: auth_pat_optional in an upstream
--- http_config
upstream u { server 127.0.0.1:1; auth_pat_optional on; }
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_optional" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 265: auth_pat_preflight in an upstream
--- http_config
upstream u { server 127.0.0.1:1; auth_pat_preflight pass; }
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_preflight" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 266: auth_pat_dry_run in an upstream
--- http_config
upstream u { server 127.0.0.1:1; auth_pat_dry_run on; }
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_dry_run" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 267: auth_pat_max_age in an upstream
--- http_config
upstream u { server 127.0.0.1:1; auth_pat_max_age 1m; }
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_max_age" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 268: auth_pat_fail_open in an upstream
--- http_config
upstream u { server 127.0.0.1:1; auth_pat_fail_open on; }
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_fail_open" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 269: auth_pat_recheck in an upstream
--- http_config
upstream u { server 127.0.0.1:1; auth_pat_recheck 5s; }
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_recheck" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 270: auth_pat_zone in an upstream
--- http_config
upstream u { server 127.0.0.1:1; auth_pat_zone pat:1m; }
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_zone" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 271: auth_pat_status in an upstream
--- http_config
upstream u { server 127.0.0.1:1; auth_pat_status json; }
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_status" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 272: auth_pat_usage in an upstream
--- http_config
upstream u { server 127.0.0.1:1; auth_pat_usage; }
--- config
location = /t { try_files /nowhere =204; }
--- must_die
--- suppress_stderr
--- error_log
"auth_pat_usage" directive is not allowed here in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 273: every directive in each of the contexts where it may be
--- http_config
auth_pat_zone pat:1m;
auth_pat_store $TEST_NGINX_STORE_MAIN;
auth_pat_require $http_host error=499;
auth_pat_optional on;
auth_pat_preflight pass;
auth_pat_dry_run on;
auth_pat_max_age 1y;
auth_pat_fail_open on;
auth_pat_recheck 1d;
server { listen $TEST_NGINX_SERVER_PORT; server_name status; auth_pat_status html; }
--- config
auth_pat_require $http_host error=400;
auth_pat_optional off;
auth_pat_preflight check;
auth_pat_dry_run off;
auth_pat_max_age 0;
auth_pat_fail_open off;
auth_pat_recheck 100ms;
location = /t {
    auth_pat API;
    auth_pat_require $http_host;
    auth_pat_require $http_host $request_method error=404;
    auth_pat_optional on;
    auth_pat_preflight pass;
    auth_pat_dry_run on;
    auth_pat_max_age 31536000;
    auth_pat_fail_open on;
    auth_pat_recheck 0;
    limit_except GET {
        auth_pat_require $http_host;
        auth_pat_optional off;
        auth_pat_preflight check;
        auth_pat_dry_run off;
    }
    try_files /nowhere =204;
}
location = /status { auth_pat_status; }
location = /usage { auth_pat_usage; }
--- request eval
["GET /t", "GET /status", "GET /usage", "GET /status", "POST /t\nx"]
--- more_headers eval
["Authorization: Bearer $main::token", "X-Foo: bar", "X-Foo: bar", "Host: status", "X-Foo: bar"]
--- error_code eval
[204, 200, 200, 200, 401]
--- no_error_log
[alert]
[emerg]



=== TEST 274: on, off and pass in capitals are nginx's own
--- config
location = /t { auth_pat API; auth_pat_store $TEST_NGINX_STORE_MAIN; auth_pat_optional ON; auth_pat_dry_run OFF; auth_pat_fail_open Off; auth_pat_preflight PASS; try_files /nowhere =204; }
--- request
GET /t
--- error_code: 204
--- no_error_log
[alert]
[crit]
[error]



=== TEST 275: the shortest and the longest times, in every unit
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /1 { auth_pat_recheck 100ms; auth_pat_max_age 1s; }
location = /2 { auth_pat_recheck 24h; auth_pat_max_age 12M; }
location = /3 { auth_pat_recheck 86400000ms; auth_pat_max_age 365d; }
location = /4 { auth_pat_recheck 1d; auth_pat_max_age 1y; }
location = /5 { auth_pat_recheck 0ms; auth_pat_max_age 0d; }
location = /t { auth_pat_recheck "1m 30s"; auth_pat_max_age "1h 30m"; try_files /nowhere =204; }
--- request
GET /t
--- error_code: 204
--- no_error_log
[alert]
[crit]
[error]



=== TEST 276: auth_pat_require with text beside the variable, 1
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require $arg_x=gold;
--- must_die
--- suppress_stderr
--- error_log
"$arg_x=gold" is not a variable: with other text it would never be empty or 0 in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]



=== TEST 277: auth_pat_require with text beside the variable, 2
--- http_config
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
auth_pat_require "$arg_x ";
--- must_die
--- suppress_stderr
--- error_log
"$arg_x " is not a variable: with other text it would never be empty or 0 in
/conf/nginx.conf:
--- no_error_log
[alert]
[crit]
