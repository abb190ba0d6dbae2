# HTTP/2, with and without TLS: the same answers, and streams of one connection that are decided one by one.

use strict;
use warnings;
use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use AuthPat::Server qw(make_certificate slurp wait_for);
use Test::More;

sub has { my ($program) = @_; return grep { -x "$_/$program" } split /:/, $ENV{PATH} }

plan skip_all => 'curl with HTTP/2 is needed'
    if !has('curl') || `curl --version` !~ /^Features:.*\bHTTP2\b/m;
plan skip_all => 'nginx is built without HTTP/2' if `$AuthPat::NGINX -V 2>&1` !~ /http_v2_module/;

my $store   = new_store('main');
my $token   = issue($store, '--subject', 'alice', '--scope', 'read');
my $second  = issue($store, '--subject', 'bob');
my $revoked = issue($store, '--subject', 'mallory');
my $expired = issue($store, '--subject', 'erin', '--expires-in', '1s');
my $issued  = time;
my $distant = issue($store, '--subject', 'carol', '--cidr', '192.0.2.0/24');
patctl($store, 'revoke', '--subject', 'mallory');
my $missing = store_path('missing');

my ($on_listen, $directive) = AuthPat::has_http2_directive() ? ('', 'http2 on;') : (' http2', '');

my $tls = `$AuthPat::NGINX -V 2>&1` =~ /http_ssl_module/ && has('openssl');
make_certificate(scratch(), 'localhost') if $tls;
my $tls_listen = $tls
    ? "listen 127.0.0.1:\$PORT2 ssl$on_listen; ssl_certificate ${\scratch()}/fullchain.pem; ssl_certificate_key ${\scratch()}/privkey.pem;"
    : '';

my $server = AuthPat::Server->new(http => <<"END");
auth_pat_store $store;
log_format who '\$request_uri \$server_protocol \$status \$auth_pat_status \$auth_pat_subject';
server {
    access_log \$ROOT/logs/access.log who;
    listen 127.0.0.1:\$PORT$on_listen;
    $tls_listen
    $directive
    underscores_in_headers on;
    auth_pat API;
    location /t       { add_header X-Subject "\$auth_pat_subject" always; try_files /nowhere =204; }
    location /slow    { limit_rate 20k; add_header X-Subject "\$auth_pat_subject"; alias \$ROOT/html/; }
    location /scope   { auth_pat_require_scope write; try_files /nowhere =204; }
    location /missing { auth_pat_store $missing; try_files /nowhere =204; }
    location /upload  { client_max_body_size 0; dav_methods PUT; alias \$ROOT/html/; }
    location /any     { satisfy any; allow all; try_files /nowhere =204; }
    location /json    { error_page 401 \@json; try_files /nowhere =204; }
    location /off     { auth_pat off; try_files /nowhere =204; }
    location /header  { auth_pat API scheme=bearer header=X-API-Key; try_files /nowhere =204; }
    location /slim    { auth_pat Key token=\$http_x_api_key; try_files /nowhere =204; }
    location \@json   { return 401 '{"error":"\$auth_pat_status"}'; }
}
END
write_file("$server->{root}/html/file", 'x' x 30000);
$server->start;
wait_for(sub { time > $issued + 1 });    # the token of erin has expired

# Runs curl; its arguments are never seen by a shell. {status, headers, body, protocol}.
sub run {
    my (@command) = @_;
    my $pid = open my $output, '-|';
    defined $pid or die "fork: $!\n";
    if ($pid == 0) {
        open STDERR, '>', '/dev/null';
        exec @command or POSIX::_exit(127);
    }
    my $text = do { local $/; <$output> // '' };
    close $output;
    return $text;
}

my $longest = $ENV{TEST_NGINX_USE_VALGRIND} ? 200 : 20;    # seconds

sub fetch {
    my ($url, @arguments) = @_;
    my $text = run('curl', '-q', '-s', '-k', '-i', '--max-time', $longest, @arguments, $url);
    my ($head, $body) = $text =~ /\A(.*?\r\n)\r\n(.*)\z/s or return { status => 0, protocol => '', headers => $text, body => '' };
    my ($protocol, $status) = $head =~ m{\AHTTP/(\S+) (\d+)};
    return { status => $status, protocol => $protocol, headers => $head, body => $body };
}

my @ways = (['h2c', "http://127.0.0.1:$server->{port}", '--http2-prior-knowledge']);
push @ways, ['h2', "https://127.0.0.1:$server->{port2}", '--http2'] if $tls;
my $start = 'Bearer realm="API"';

for my $way (@ways) {
    my ($name, $base, $option) = @$way;

    my @cases = (
        # path, headers, status, challenge
        ['/t', ["Authorization: Bearer $token"], 204, undef],
        ['/t', ["authorization: bearer $token"], 204, undef],
        ['/t', ["AUTHORIZATION: BEARER  $token "], 204, undef],
        ['/t', [], 401, $start],
        ['/t', ['Authorization: Basic Ym9iOnNlY3JldA=='], 401, $start],
        ['/t', ["Authorization: Bearer $revoked"], 401, qq{$start, error="invalid_token", error_description="The access token was revoked"}],
        ['/t', ["Authorization: Bearer $expired"], 401, qq{$start, error="invalid_token", error_description="The access token expired"}],
        ['/t', ["Authorization: Bearer ${token}x"], 401, qq{$start, error="invalid_token", error_description="The access token is invalid"}],
        ['/t', ["Authorization: Bearer $distant"], 403, qq{$start, error="invalid_token", error_description="The access token may not be used from this address"}],
        ['/scope', ["Authorization: Bearer $token"], 403, qq{$start, error="insufficient_scope", scope="write"}],
        ['/missing', ["Authorization: Bearer $token"], 503, undef],
        ['/any', [], 204, undef],
        ['/any', ["Authorization: Bearer $revoked"], 204, undef],
        ['/off', [], 204, undef],
        ['/header', ["X-API-Key: $token"], 204, undef],
        ['/header', ["X_API_Key: $second", "Authorization: Bearer $token"], 401,
            qq{$start, error="invalid_token", error_description="The access token is invalid"}],
        ['/slim', ["X-Api-Key: $token"], 204, undef],
        ['/slim', ["Authorization: Bearer $token"], 401, 'Bearer realm="Key"'],
    );
    for my $case (@cases) {
        my ($path, $headers, $status, $challenge) = @$case;
        my $answer = fetch("$base$path", $option, map { ('-H', $_) } @$headers);
        my $what = "$name $path " . (@$headers ? substr $headers->[0], 0, 24 : 'without a token');
        is "$answer->{protocol} $answer->{status}", "2 $status", "$what is $status";
        my @challenges = $answer->{headers} =~ /^www-authenticate: (.*?)\r$/mgi;
        is_deeply \@challenges, [defined $challenge ? $challenge : ()], "$what has the right challenge";
    }

    like fetch("$base/missing", $option, '-H', "Authorization: Bearer $token")->{headers}, qr/^retry-after: \d+\r$/m,
        "$name a 503 has Retry-After";

    # Two authorization fields: not the first, not the last, neither.
    for my $pair ([$token, $token], [$token, $revoked], [$revoked, $token]) {
        my $answer = fetch("$base/t", $option, map { ('-H', "Authorization: Bearer $_") } @$pair);
        like $answer->{status}, qr/^40[01]$/, "$name two authorization fields are refused";
    }
    my $answer = fetch("$base/t", $option, '-H', "Authorization: Bearer $token", '-H', 'Authorization: Basic Ym9iOnNlY3JldA==');
    like $answer->{status}, qr/^40[01]$/, "$name a second field of another scheme is refused, too";

    $answer = fetch("$base/json", $option, '-H', "Authorization: Bearer $revoked");
    is "$answer->{status} $answer->{body}", '401 {"error":"revoked"}', "$name error_page has a body of its own";
    like $answer->{headers}, qr/^www-authenticate: Bearer /m, "$name and keeps the challenge";

    $answer = fetch("$base/t", $option, '-I', '-H', "Authorization: Bearer $revoked");
    is "$answer->{status} $answer->{body}", '401 ', "$name HEAD is refused without a body";

    # An upload: the answer is there though the body is not.
    my $file = scratch() . '/body';
    open my $big, '>', $file or die "$file: $!\n";
    truncate $big, 20_000_000 or die "truncate: $!\n";
    close $big;
    $answer = fetch("$base/upload/new", $option, '-T', $file, '-H', 'Expect:', '-H', "Authorization: Bearer $revoked");
    # curl 7.88 loses an early answer, and streams in parallel, with prior knowledge.
    is $answer->{status}, 401, "$name a dead token is refused before an upload" if $name eq 'h2';
    ok !-e "$server->{root}/html/new", "$name and nothing of it is stored";
    $answer = fetch("$base/upload/new", $option, '-T', $file, '-H', 'Expect:', '-H', "Authorization: Bearer $token");
    is $answer->{status}, 201, "$name a good token gets its upload through";
    is -s "$server->{root}/html/new", 20_000_000, "$name all of it";
    unlink "$server->{root}/html/new";

    # Streams of different tokens at once on one connection.
    if ($name eq 'h2') {
        my %expected = ($token => 200, $second => 200, $revoked => 401, $expired => 401, "${token}x" => 401);
        my @requests = (sort keys %expected) x 6;
        my @command  = ('curl', '-q', '-s', '-k', '--parallel', '--parallel-max', '30', '--max-time', $longest);
        my $index    = 0;
        for my $one (@requests) {
            push @command, '--next' if $index;
            push @command, '-s', '-k', $option, '-o', scratch() . '/part' . $index, '-w', "$index %{http_code} %{http_version}\n",
                '-H', "Authorization: Bearer $one", "$base/slow/file?$index";
            $index++;
        }
        my %got = map { /^(\d+) (\d+ \S+)$/ ? ($1 => $2) : () } split /\n/, run(@command);
        my %want = map { ($_ => "$expected{ $requests[$_] } 2") } 0 .. $#requests;
        is_deeply \%got, \%want, "$name streams with different tokens at once each get their own answer";
        my @subjects;
        wait_for(sub {    # a request is logged after its answer
            @subjects = sort map { (split)[4] } grep { m{^/slow/file\?\d+ HTTP/2.0 200} } split /\n/, slurp("$server->{root}/logs/access.log");
            @subjects >= 12;
        });
        is_deeply \@subjects, [('alice') x 6, ('bob') x 6], "$name and each its own identity in the log";
        truncate "$server->{root}/logs/access.log", 0;
    }

    # The next stream of a connection that stays, after a revocation.
    patctl($store, 'revoke', '--subject', 'bob');
    is fetch("$base/t", $option, '-H', "Authorization: Bearer $second")->{status}, 401, "$name a revocation counts at once";
    patctl($store, 'restore-access', '--subject', 'bob');
    is fetch("$base/t", $option, '-H', "Authorization: Bearer $second")->{status}, 204, "$name and so does its end";
}

SKIP: {
    skip 'nghttp is not installed', 4 if !has('nghttp');
    my @urls = map { "http://127.0.0.1:$server->{port}/t?$_" } 1 .. 50;
    my %count;
    my $text = run('nghttp', '-nv', '-H', "authorization: Bearer $token", @urls);
    $count{$1}++ while $text =~ /:status: (\d+)/g;
    is_deeply \%count, { 204 => 50 }, 'fifty streams of one connection with a good token';
    %count = ();
    $text = run('nghttp', '-nv', '-H', "authorization: Bearer $revoked", @urls);
    $count{$1}++ while $text =~ /:status: (\d+)/g;
    is_deeply \%count, { 401 => 50 }, 'fifty with a dead one';
    $text = run('nghttp', '-nv', '-H', ':method: PUT', '-d', scratch() . '/body', '-H', "authorization: Bearer $revoked",
        "http://127.0.0.1:$server->{port}/upload/new");
    like $text, qr/:status: 401/, 'a dead token is refused before an upload';
    $text = run('nghttp', '-nv', '-H', "authorization: Bearer $token", '-H', "authorization: Bearer $revoked", $urls[0]);
    like $text, qr/:status: 40[01]/, 'two fields that differ, sent as they are';
}

ok $server->log !~ /\[(?:alert|emerg)\]|signal \d/, 'nothing broke';
# nginx itself quotes a header that comes twice.
my $log = $server->log =~ s/^.*client sent duplicate header line.*\n//mgr;
ok $log !~ /\Q$token\E|\Q$revoked\E/, 'the module writes no token to the log';

done_testing;
