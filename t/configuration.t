# What nginx says to a configuration that is wrong: each case is tried with `nginx -t`, and what it prints is compared
# whole. What a configuration that is right does to requests is in the files for its subject.

use strict;
use warnings;
use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use AuthPat::Server qw(slurp);
use Test::More;

my $scratch = scratch();

# ---- stores and peppers that are refused

my %peppers = (
    good     => '0123456789abcdef' x 4,
    other    => 'fedcba9876543210' x 4,
    short    => 'x' x 31,
    odd      => '0123456789abcdef' x 4 . '0',
    long     => 'x' x 65,
    longhex  => 'a' x 130,
    endless  => 'x' x 100_000,
    empty    => '',
    newline  => "\n",
    open     => '0123456789abcdef' x 4,
    writable => '0123456789abcdef' x 4,
    group    => '0123456789abcdef' x 4,
);
for my $name (sort keys %peppers) {
    write_file("$scratch/$name.pepper", $peppers{$name});
    chmod { open => 0604, writable => 0602, group => 0660 }->{$name} // 0600, "$scratch/$name.pepper";
}

symlink new_store('main'), "$scratch/link" or die "$scratch/link: $!\n";
{
    local $ENV{PAT_PEPPER_FILE} = "$scratch/good.pepper";
    new_store('peppered');
}

sub change {
    my ($path, $code) = @_;
    local $_ = slurp("$path/data.mdb");
    $code->();
    return write_file("$path/data.mdb", $_);
}
# A store of a format that is yet to come: its meta record, which "auth_pat" is part of, says so four bytes before that.
change(new_store('newer'), sub { s/.(?=...auth_pat)/\xfe/gs or die "the meta record is not where it was\n" });
# A file of an LMDB that is yet to come: both meta pages say version 99.
change(new_store('lmdb'), sub { substr $_, 16 + 4, 1, "\x63"; substr $_, 4096 + 16 + 4, 1, "\x63" });

# ---- the directives

# The places for a text, and what is around it in http.
my @PLACES = (qw(main events http upstream server location limit_except), 'if in server', 'if in location');
my $SERVER = 'server { listen unix:$ROOT/socket;';
my %AROUND = (
    'http'           => '%s',
    'upstream'       => 'upstream u { server 127.0.0.1:1; %s }',
    'server'         => "$SERVER %s }",
    'if in server'   => "$SERVER if (\$arg_x) { %s } }",
    'location'       => "$SERVER location = /t { %s } }",
    'if in location' => "$SERVER location = /t { if (\$arg_x) { %s } } }",
    'limit_except'   => "$SERVER location = /t { limit_except GET { %s } } }",
);

my @ANYWHERE = qw(http server location);
my @LIMITED  = (@ANYWHERE, 'limit_except');

# Each directive: where it may be, the fewest and the most arguments, and arguments that are right. Those that turn it
# off are among them, so that a duplicate behind them is tried, too. Without a most, any number is right.
my %DIRECTIVES = (
    auth_pat               => [\@LIMITED,  1, undef, 'API', 'off',
        'API scheme=bearer,basic,token user=me header=X-Key token=$uri'],
    auth_pat_store         => [\@ANYWHERE, 1, 2,     '$STORES/main'],
    auth_pat_pepper_file   => [\@ANYWHERE, 1, 1,     '$STORES/good.pepper', 'off'],
    auth_pat_prefix        => [\@ANYWHERE, 1, 1,     'ropat_', 'off'],
    auth_pat_leeway        => [\@ANYWHERE, 1, 1,     '5s', '0'],
    auth_pat_require_scope => [\@LIMITED,  1, undef, 'read', '""'],
    auth_pat_require       => [\@LIMITED,  1, undef, '$arg_x'],
    auth_pat_optional      => [\@LIMITED,  1, 1,     'on', 'off'],
    auth_pat_preflight     => [\@LIMITED,  1, 1,     'pass', 'check'],
    auth_pat_dry_run       => [\@LIMITED,  1, 1,     'on', 'off'],
    auth_pat_max_age       => [\@ANYWHERE, 1, 1,     '1m', '0'],
    auth_pat_fail_open     => [\@ANYWHERE, 1, 1,     'on', 'off'],
    auth_pat_recheck       => [\@ANYWHERE, 1, 1,     '5s', '0'],
    auth_pat_zone          => [['http'],   1, 1,     'pat:1m'],
    auth_pat_status        => [[qw(server location)], 0, 1, 'json', '', 'html'],
    auth_pat_usage         => [['location'], 0, 0,   ''],
);

my %REPEATABLE = map { ($_ => 1) } qw(auth_pat_require_scope auth_pat_require);

# ---- nginx -t

my $nginx = AuthPat::Server->new;
{
    my ($status, $said) = $nginx->check;
    $status == 0 or die "nginx -t fails without any of our directives: $said\n";
}

# What nginx says to a text in a place, with a base in http before it. $STORES is the folder of stores and peppers, in
# the text and in what is said. The text is one line; its file and number are left out behind "in", and so is whether
# nginx had read to the end before it gave up.
sub said_to {
    my ($where, $text, $base) = @_;
    s/\$STORES\b/$scratch/g for $text, $base;
    my ($main, $http) = ('', '');
    if    ($where eq 'main')   { $main = "$text #" }
    elsif ($where eq 'events') { $main = "events { $text } #" }
    else                       { $http = sprintf "$AROUND{$where} #", $text }
    $nginx->configure(main => $main, http => "$base\n$http");

    my ($status, $said) = $nginx->check;
    my $file   = "$nginx->{root}/conf/nginx.conf";
    my @lines  = split /\n/, slurp($file);
    my ($line) = grep { $lines[$_ - 1] =~ /#$/ } 1 .. @lines;
    $said =~ s/^nginx: //mg;
    $said =~ s/^the configuration file \Q$file\E syntax is ok\n//m;
    $said =~ s/ in\K \Q$file:$line\E\b//g;
    $said =~ s/\Q$file\E (?=test )//;
    return $said =~ s/\Q$scratch\E/\$STORES/gr . "status $status";
}

# The messages are all that nginx says, at level emerg where they don't start with another.
sub is_refused {
    my ($name, $where, $text, @messages) = @_;
    my $base     = $where eq 'http' ? '' : 'auth_pat_store $STORES/main;';
    my @expected = ((map { /^\[/ ? $_ : "[emerg] $_" } @messages), 'configuration file test failed', 'status 1');
    return is(said_to($where, $text, $base), join("\n", @expected), $name);
}

sub is_taken {
    my ($name, $where, $text) = @_;
    my $base = join ' ', grep { $text !~ /^\Q$_\E/ } 'auth_pat_store $STORES/main;', 'auth_pat_zone pat:1m;';
    return is(said_to($where, $text, $base), "configuration file test is successful\nstatus 0", $name);
}

# ---- places, numbers of arguments and repetitions

my @commands = map { /ngx_string\("(\w+)"\)/g } map { /^ngx_command_t \w+\[\] = \{\n(.*?)^\};/msg }
    map { slurp($_) } glob "$AuthPat::ROOT/src/nginx/*.cpp";
is_deeply([sort keys %DIRECTIVES], [sort @commands], 'each directive of the module is tried here');

for my $directive (sort keys %DIRECTIVES) {
    my ($places, $fewest, $most, @values) = @{ $DIRECTIVES{$directive} };

    for my $where (@PLACES) {
        my $taken   = sub { my ($text) = @_; is_taken("$text in $where", $where, $text) };
        my $refused = sub { my ($text, $message) = @_; is_refused("$text in $where", $where, $text, $message) };

        if (!grep { $_ eq $where } @$places) {
            $refused->("$directive $values[0];", qq("$directive" directive is not allowed here in));
            next;
        }
        $taken->("$directive $values[0];");

        for my $number (grep { $_ >= 0 } $fewest - 1, defined $most ? $most + 1 : ()) {
            my $text = join ' ', $directive, ($values[0] || 'on') x $number;
            $refused->("$text;", qq(invalid number of arguments in "$directive" directive in));
        }

        for my $first (@values) {
            for my $second (@values) {
                my $text = "$directive $first; $directive $second;";
                my $message = qq("$directive" directive is duplicate in);
                $REPEATABLE{$directive} ? $taken->($text) : $refused->($text, $message);
            }
        }
    }
}

# ---- what is wrong with values

# A case for each value, which stands where %s is. Quotes around it are not part of what nginx says.
sub each_of {
    my ($where, $text, $message, @values) = @_;
    my @cases;
    for my $value (@values) {
        my $case = $text =~ s/%s/$value/r;
        push @cases, [$case, $where, $case, $message =~ s/%s/$value =~ s{^"(.*)"$}{$1}r/er];
    }
    return @cases;
}

sub store_fault {
    my ($name, $fault) = @_;
    return qq(auth_pat store "\$STORES/$name": $fault, used by "auth_pat" in);
}

my $NEWER       = store_fault('newer', 'the store was written by a newer version of nginx-auth-pat');
my $MISMATCH    = 'the pepper does not match: the store was made with another pepper, or only one of them has a pepper';
my $TWO_SIZES   = 'store "$STORES/main" has a different map size in in';    # the places of the first and of the second
my $NO_VARIABLE = '"%s" is not a variable: with other text it would never be empty or 0 in';

my @REFUSED = (
    # name, where, text, messages

    ['auth_pat without a store', 'http', 'server { location = /t { auth_pat API; } }',
        '"auth_pat" is on without an "auth_pat_store" in'],
    ['auth_pat in http, and a store in only one of the servers', 'http',
        'auth_pat API; server { auth_pat_store $STORES/main; } server { location = /t { try_files /nowhere =204; } }',
        '"auth_pat" is on without an "auth_pat_store" in'],
    ['auth_pat in limit_except without a store', 'http',
        'server { location = /t { limit_except GET { auth_pat API; } } }',
        '"auth_pat" is on without an "auth_pat_store" in'],
    ['auth_pat_usage without a store', 'http', 'auth_pat_zone pat:1m; server { location = /t { auth_pat_usage; } }',
        '"auth_pat_usage" is used without an "auth_pat_store" in'],
    ['auth_pat_usage without a zone', 'location', 'auth_pat_usage;',
        '"auth_pat_usage" is used without an "auth_pat_zone" in'],

    ['a parameter that auth_pat does not know', 'server', 'auth_pat API realm=x;', 'invalid parameter "realm=x" in'],
    ['the name of a parameter alone', 'server', 'auth_pat API token;', 'invalid parameter "token" in'],
    ['a parameter in capitals', 'server', 'auth_pat API TOKEN=$http_x_api_key;',
        'invalid parameter "TOKEN=$http_x_api_key" in'],
    ['off and a source of tokens', 'server', 'auth_pat off token=$http_x_api_key;',
        'invalid parameter "token=$http_x_api_key" in'],
    each_of('server', 'auth_pat off %s;', 'invalid parameter "%s" in', qw(scheme=basic user=robot header=X-Key)),
    ['off and a parameter that auth_pat does not know', 'server', 'auth_pat off x;', 'invalid parameter "x" in'],
    ['token= without a variable', 'server', 'auth_pat API token=secret;',
        '"token=secret" must name a variable that holds the token in'],
    ['token= with nothing', 'server', 'auth_pat API token=;', '"token=" must name a variable that holds the token in'],
    ['token= with a variable that nobody has', 'server', 'auth_pat API token=$no_such_variable;',
        'unknown "no_such_variable" variable'],
    ['token= with a variable that has no name', 'server', 'auth_pat API token=$;', 'invalid variable name in'],
    ['token= twice', 'server', 'auth_pat API token=$arg_x token=$arg_y;', 'duplicate parameter "token=$arg_y" in'],
    each_of('server', 'auth_pat API scheme=%s;', 'invalid scheme "%s": must be bearer, basic or token in',
        '', qw(digest Bear bearers $arg_x)),
    ['an empty name among schemes', 'server', 'auth_pat API scheme=bearer,;',
        'invalid scheme "": must be bearer, basic or token in'],
    ['a blank among schemes', 'server', 'auth_pat API "scheme=bearer, basic";',
        'invalid scheme " basic": must be bearer, basic or token in'],
    ['a scheme twice', 'server', 'auth_pat API scheme=basic,Bearer,BASIC;',
        'duplicate parameter "scheme=basic,Bearer,BASIC" in'],
    ['a scheme twice, in two parameters', 'server', 'auth_pat API scheme=basic scheme=token,basic;',
        'duplicate parameter "scheme=token,basic" in'],
    each_of('server', 'auth_pat API scheme=basic %s;',
        '"%s" must be a user name, without variables, colons and control characters in',
        'user=', 'user=a:b', 'user=$arg_x', qq("user=a\tb"), qq("user=a\x7f")),
    ['user= twice', 'server', 'auth_pat API scheme=basic user=a user=b;', 'duplicate parameter "user=b" in'],
    ['user= without Basic', 'server', 'auth_pat API scheme=bearer,token user=a;', '"user=" needs "scheme=basic" in'],
    ['user= alone', 'server', 'auth_pat API user=a;', '"user=" needs "scheme=basic" in'],
    each_of('server', 'auth_pat API "header=%s";',
        'invalid header "%s": a name begins with a letter or digit, and has these and "-"; '
            . 'for another one, use "token=$http_NAME" in',
        '', '-', '-Key', 'X_API_Key', 'X-Key:', 'X Key', '$arg_x', "X-K\xc3\xa9y"),
    each_of('server', 'auth_pat API header=%s;', 'invalid header "%s": use "scheme=" in',
        qw(Authorization authorization)),
    each_of('server', 'auth_pat API header=%s;', 'invalid header "%s": use "token=$cookie_NAME" in', qw(Cookie COOKIE)),
    each_of('server', 'auth_pat API header=%s;',
        'invalid header "%s": it has another meaning; use a name such as "X-API-Key" in',
        qw(Host connection Content-Length Transfer-Encoding Upgrade Range If-Match User-Agent Referer Expect TE),
        qw(Trailer Keep-Alive Proxy-Authorization proxy-connection Origin Forwarded Date Via Accept Accept-Encoding),
        qw(Access-Control-Request-Headers Sec-Fetch-Site)),
    map({ ["$_->[0], which is read anyway", 'server', "auth_pat API $_->[0] $_->[1];",
        qq("$_->[0]" has a header that "scheme=" or "header=" reads in)] }
        ['token=$http_x_api_key', 'header=X-Key header=X-API-Key'], ['token=$http_X_Key', 'header=x-key'],
        ['token=$http_X_API_Key', 'header=X-API-Key'], ['token=$HTTP_X_API_KEY', 'header=X-API-Key'],
        ['token=${http_x_api_key}', 'header=X-API-Key'], ['token=$cookie_pat${Http_X_Key}', 'header=x-key'],
        ['token=$http_authorization', 'scheme=bearer'], ['token=$HTTP_Authorization', 'scheme=token'],
        ['token=$http_authorization', 'header=X-Key']),
    ['header= twice', 'server', 'auth_pat API header=X-Key header=x-kEY;', 'duplicate parameter "header=x-kEY" in'],
    ['a realm with a variable that nobody has', 'server', 'auth_pat "API of $no_such_variable";',
        'unknown "no_such_variable" variable'],
    ['a realm with a brace that is not closed', 'server', 'auth_pat "API ${host";',
        'the closing bracket in "host" variable is missing in'],

    ['a store with an empty path', 'server', 'auth_pat_store "";', '"auth_pat_store" needs the path of a folder in'],
    ['a parameter that auth_pat_store does not know', 'server', 'auth_pat_store $STORES/main size=1g;',
        'invalid parameter "size=1g" in'],
    each_of('server', 'auth_pat_store $STORES/main map_size=%s;', 'invalid map size "%s" in',
        '', qw(x 0 -1 1t 1g1 4095 99999999999999999999g 1.5g)),
    ['two paths of one store', 'http',
        'auth_pat_store $STORES/main; server { location = /t { auth_pat API; } '
            . 'location = /u { auth_pat API; auth_pat_store $STORES/link; } }',
        'auth_pat store "$STORES/link" in is the same as "$STORES/main" in: use one path for it'],
    ['two map sizes for one store', 'http',
        'auth_pat_store $STORES/main map_size=1g; server { auth_pat_store $STORES/main map_size=2g; }', $TWO_SIZES],
    ['a map size that conflicts with the default', 'http',
        'auth_pat_store $STORES/main; server { auth_pat_store $STORES/main map_size=1g; }', $TWO_SIZES],
    ['two map sizes for one store, whose path is written with and without a slash', 'http',
        'auth_pat_store $STORES/main/ map_size=1g; server { auth_pat_store $STORES/main map_size=2g; }', $TWO_SIZES],

    ['a store of a newer format', 'location', 'auth_pat API; auth_pat_store $STORES/newer;', $NEWER],
    ['a store of a newer LMDB', 'location', 'auth_pat API; auth_pat_store $STORES/lmdb;',
        store_fault('lmdb', 'data.mdb was written by a newer LMDB')],
    ['the warning of a store that is not there yet, beside an error', 'server',
        'location = /a { auth_pat API; auth_pat_store $STORES/later; } '
            . 'location = /b { auth_pat API; auth_pat_store $STORES/newer; }',
        '[warn] ' . store_fault('later', 'there is no store ("patctl init" makes one): No such file or directory'),
        $NEWER],

    ['a store that was made with a pepper, without one', 'location', 'auth_pat API; auth_pat_store $STORES/peppered;',
        store_fault('peppered', $MISMATCH)],
    ['a store that was made without a pepper, with one', 'location',
        'auth_pat API; auth_pat_store $STORES/main; auth_pat_pepper_file $STORES/good.pepper;',
        store_fault('main', $MISMATCH)],
    ['a store that was made with another pepper', 'location',
        'auth_pat API; auth_pat_store $STORES/peppered; auth_pat_pepper_file $STORES/other.pepper;',
        store_fault('peppered', $MISMATCH)],
    ['one store with the right pepper and without it', 'http',
        'auth_pat API; auth_pat_store $STORES/peppered; auth_pat_pepper_file $STORES/good.pepper; '
            . 'server { location = /a { try_files /nowhere =204; } location = /t { auth_pat_pepper_file off; } }',
        store_fault('peppered', $MISMATCH)],
    ['a pepper file that is not there', 'server', 'auth_pat_pepper_file $STORES/nowhere.pepper;',
        'open() "$STORES/nowhere.pepper" failed (2: No such file or directory) in'],
    ['a relative path of a pepper file starts from the folder of nginx.conf', 'server',
        'auth_pat_pepper_file nowhere.pepper;',
        'open() "$STORES/server1/conf/nowhere.pepper" failed (2: No such file or directory) in'],
    ['a pepper file that is a folder', 'server', 'auth_pat_pepper_file $STORES;',
        'read() "$STORES" failed (21: Is a directory) in',
        '[warn] pepper file "$STORES" is accessible to all users in'],
    each_of('server', 'auth_pat_pepper_file $STORES/%s.pepper;',
        'pepper file "$STORES/%s.pepper" must hold 32 to 64 bytes, or 64 to 128 hexadecimal digits in',
        qw(short odd long longhex endless empty newline)),
    ['the warning of a pepper file that everybody may read or write, beside an error', 'server',
        'location = /a { auth_pat_pepper_file $STORES/open.pepper; } '
            . 'location = /b { auth_pat_pepper_file $STORES/writable.pepper; } '
            . 'location = /c { auth_pat_pepper_file $STORES/group.pepper; } auth_pat_prefix "";',
        '[warn] pepper file "$STORES/open.pepper" is accessible to all users in',
        '[warn] pepper file "$STORES/writable.pepper" is accessible to all users in',
        'invalid prefix "": 1 to 32 letters, digits, "_", "-" and "." are allowed in'],

    each_of('server', 'auth_pat_prefix %s;',
        'invalid prefix "%s": 1 to 32 letters, digits, "_", "-" and "." are allowed in',
        '""', '"a b"', 'ro/pat', '"ro,pat"', 'préfix', 'a' x 33, 'ropat~', '$host'),
    (map { each_of('server', "$_ %s;", qq("$_" directive invalid value in),
        qw(x -1 1x "" 1.5s 5ms 99999999999999999999s)) } qw(auth_pat_leeway auth_pat_max_age)),
    each_of('server', 'auth_pat_max_age %s;', '"auth_pat_max_age" directive invalid value in', 'off'),
    (map { each_of('server', "$_ %s;", 'value must be between 0 and 31536000 in', qw(31536001 13M)) }
        qw(auth_pat_leeway auth_pat_max_age)),
    each_of('server', 'auth_pat_recheck %s;', 'invalid interval "%s": must be 0, or 100ms to 1d in',
        qw(x -1 1x "" 99ms 1ms 0.5s 86400001ms 25h 2d off 99999999999999999999s)),
    each_of('location', 'auth_pat_status %s;', 'invalid format "%s": must be json, prometheus or html in',
        'text', 'json,html', '$arg_x', '""', 'off'),
    (map { each_of('location', "$_ %s;", qq(invalid value "%s" in "$_" directive, it must be "on" or "off" in),
        qw(yes 1 $arg_x "")) } qw(auth_pat_optional auth_pat_dry_run auth_pat_fail_open)),
    each_of('location', 'auth_pat_preflight %s;', 'invalid value "%s" in', qw(on off $arg_x "")),

    ['a scope with a quote', 'server', 'auth_pat_require_scope "re\"ad";', 'invalid scope "re"ad" in'],
    ['a scope with a backslash', 'server', 'auth_pat_require_scope "re\\\\ad";', 'invalid scope "re\ad" in'],
    ['a scope with a letter beyond ASCII', 'server', 'auth_pat_require_scope léire;', 'invalid scope "léire" in'],
    ['a scope with a tab', 'server', 'auth_pat_require_scope "read wr\tite";', "invalid scope \"read wr\tite\" in"],
    ['a bad scope behind a good one', 'server', 'auth_pat_require_scope read "wri\"te";', 'invalid scope "wri"te" in'],
    ['a scope with a variable that nobody has', 'server', 'auth_pat_require_scope $no_such_variable;',
        'unknown "no_such_variable" variable'],
    each_of('server', 'auth_pat_require_scope read %s;', 'invalid parameter "%s" in',
        qw(match=none match= match=ALL match=$arg_match)),
    ['match=any without a scope', 'server', 'auth_pat_require_scope match=any;',
        '"auth_pat_require_scope" names no scope in'],

    each_of('server', 'auth_pat_require $arg_x %s;', 'invalid parameter "%s": a status from 400 to 499 is allowed in',
        map { "error=$_" } '', qw(399 500 x 40 4030 -403 403x $arg_x 99999999999999999999)),
    ['a bad error= behind a good one', 'server', 'auth_pat_require $arg_x error=403 error=503;',
        'invalid parameter "error=503": a status from 400 to 499 is allowed in'],
    ['error= alone', 'server', 'auth_pat_require error=404;', '"auth_pat_require" names no variable in'],
    ['error= alone beside a good auth_pat_require', 'server', 'auth_pat_require $arg_x; auth_pat_require error=404;',
        '"auth_pat_require" names no variable in'],
    each_of('server', 'auth_pat_require $arg_x %s;', $NO_VARIABLE, '1', 'arg_x', '""', '"a b"', 'Error=404'),
    each_of('server', 'auth_pat_require %s;', $NO_VARIABLE, '$arg_x=gold', '"$arg_x "'),
    ['auth_pat_require with a variable that nobody has', 'server', 'auth_pat_require $nobody_has_this;',
        'unknown "nobody_has_this" variable'],
    ['auth_pat_require with a variable that has no name', 'server', 'auth_pat_require $;', 'invalid variable name in'],
    ['auth_pat_require with a brace that is not closed', 'server', 'auth_pat_require "${arg_x";',
        'the closing bracket in "arg_x" variable is missing in'],
);

is_refused(@$_) for @REFUSED;

done_testing();
