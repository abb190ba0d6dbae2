# Requests that wait between the decision and the upstream: for the rest of their body, or for another module of the
# access phase. The upstream gets nothing of a request whose token is no longer good when it would.

use strict;
use warnings;
use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use AuthPat::Http2 qw(frame headers listen_http2 open_http2 read_frames sync_http2);
use AuthPat::Server qw(slurp wait_for);
use AuthPat::Upstream;
use Test::More;
use Time::HiRes ();

my $store = new_store('main');

my $http2 = listen_http2('$PORT2');

my $upstream_port = AuthPat::Server::free_port();
my $gate_port     = AuthPat::Server::free_port();
my $page_port     = AuthPat::Server::free_port();

my $server = AuthPat::Server->new(http => <<"END");
client_body_timeout 30s;
lingering_close off;
auth_pat_zone pat:1m;
auth_pat_store $store;
log_format who '\$request_uri \$status \$auth_pat_status "\$auth_pat_subject"';
proxy_set_header X-Subject \$auth_pat_subject;
fastcgi_param X_SUBJECT \$auth_pat_subject;
server {
    listen 127.0.0.1:\$PORT;
    access_log \$ROOT/logs/access.log who;
    auth_pat API;
    location /buffered    { proxy_pass http://127.0.0.1:$upstream_port; }
    location /file        { client_body_in_file_only clean; proxy_pass http://127.0.0.1:$upstream_port; }
    location /unbuffered  { proxy_request_buffering off; proxy_http_version 1.1; proxy_pass http://127.0.0.1:$upstream_port; }
    location /fastcgi     { fastcgi_pass 127.0.0.1:$upstream_port; }
    location /mirrored    { mirror /mirror; proxy_pass http://127.0.0.1:$upstream_port; }
    location = /mirror    { internal; auth_pat off; proxy_pass http://127.0.0.1:$upstream_port; }
    location /dav/        { dav_methods PUT; root \$ROOT/html; }
    location /scope       { auth_pat_require_scope write; proxy_pass http://127.0.0.1:$upstream_port; }
    location /claim       { auth_pat_require \$auth_pat_claim_paid error=402; proxy_pass http://127.0.0.1:$upstream_port; }
    location /dry         { auth_pat_dry_run on; proxy_pass http://127.0.0.1:$upstream_port; }
    location /optional    { auth_pat_optional on; proxy_pass http://127.0.0.1:$upstream_port; }
    location /named       { error_page 401 = \@page; proxy_pass http://127.0.0.1:$upstream_port; }
    location \@page       { auth_pat off; proxy_set_header X-Page yes; proxy_pass http://127.0.0.1:$upstream_port; }
    location /tried       { try_files /nowhere \@app; }
    location \@app        { auth_pat off; proxy_pass http://127.0.0.1:$upstream_port; }
    location /slow-tried  { try_files /nowhere \@slow; }
    location \@slow       { auth_pat off; auth_request /gate; proxy_pass http://127.0.0.1:$upstream_port; }
    location /page-unbuffered { error_page 401 = \@raw-page; proxy_request_buffering off; proxy_http_version 1.1;
                            proxy_pass http://127.0.0.1:$upstream_port; }
    location \@raw-page   { auth_pat off; proxy_http_version 1.1; proxy_set_header Connection "";
                            proxy_pass http://127.0.0.1:$page_port; }
    location /any         { satisfy any; deny all; proxy_pass http://127.0.0.1:$upstream_port; }
    location /asked       { auth_request /gate; proxy_pass http://127.0.0.1:$upstream_port; }
    location = /gate      { internal; auth_pat off; proxy_pass http://127.0.0.1:$gate_port; proxy_pass_request_body off;
                            proxy_set_header Content-Length ""; proxy_set_header X-Subject ""; }
    location = /status    { auth_pat off; auth_pat_status json; }
}
server {
    $http2
    server_name two;
    access_log \$ROOT/logs/access.log who;
    auth_pat API;
    location /buffered   { proxy_pass http://127.0.0.1:$upstream_port; }
    location /unbuffered { proxy_request_buffering off; proxy_http_version 1.1; proxy_pass http://127.0.0.1:$upstream_port; }
}
END

my $opened = scratch() . '/gate';
my $upstream = AuthPat::Upstream->new(port => $upstream_port);
my $page = AuthPat::Upstream->new(port => $page_port);
my $gate = AuthPat::Upstream->new(port => $gate_port, answer => sub {
    wait_for(sub { -e $opened }, 20);
    return ('204 No Content', '', '');
});
$server->start;

my $count = 0;

sub head {
    my ($line, @headers) = @_;
    return join "\r\n", "$line HTTP/1.1", 'Host: localhost', @headers, '', '';
}

sub bearer { my ($token) = @_; return "Authorization: Bearer $token" }

# What the upstream was asked with this path.
sub asked { my ($path) = @_; return grep { m{^\w+ \Q$path\E[ ?]} } $upstream->requests }

# A millisecond is over, which is what nginx measures time in.
sub let_time_pass {
    my $end = Time::HiRes::time() + 0.005;
    wait_for(sub { Time::HiRes::time() > $end });
    return;
}

my $subject = 'user0';
sub new_token { $subject = 'user' . ++$count; return issue($store, '--subject', $subject, @_) }
sub revoke { patctl($store, 'revoke', '--subject', $subject); return }

my @length = ('Content-Length: 10');
my @chunked = ('Transfer-Encoding: chunked');

# Sends the head and a part of the body, lets something happen, and sends the rest: the answer.
sub slow_upload {
    my ($path, $token, $meanwhile, @headers) = @_;
    my $method = $path =~ m{^/dav/} ? 'PUT' : 'POST';
    my $is_chunked = "@headers" =~ /chunked/;
    my $socket = $server->connect;
    syswrite $socket, head("$method $path", bearer($token), @headers);
    if ("@headers" =~ /100-continue/) {
        like AuthPat::Server::read_until($socket, qr/\r\n\r\n/), qr/^HTTP\/1.1 100/, "$path: told to continue";
    }
    syswrite $socket, $is_chunked ? "5\r\nfirst\r\n" : 'first';
    # The worker has decided, and read what there is, when it has answered somebody else who came later.
    $server->status('/status');
    let_time_pass();
    $meanwhile->();
    return AuthPat::Server::exchange($socket, $is_chunked ? "5\r\nsecon\r\n0\r\n\r\n" : 'secon', 20);
}

my $challenge = qr/^WWW-Authenticate: Bearer realm="API", error="invalid_token", error_description="The access token was revoked"\r$/m;

for my $way ([@length], [@chunked], ['Expect: 100-continue', @length]) {
    for my $kind (qw(buffered file unbuffered fastcgi mirrored any tried)) {
        my $path = "/$kind" . ++$count;
        my $answer = slow_upload($path, new_token(), \&revoke, @$way);
        is $answer->{status}, 401, "$path: a token that is revoked during the upload is refused (@$way)";
        like $answer->{headers}, $challenge, "$path: with the reason";
        if ($kind eq 'unbuffered') {
            ok !grep({ /body: 10|second/ } slurp("$upstream->{log}")), "$path: its upstream has not got all";
        } else {
            is scalar(asked($path)), 0, "$path: its upstream was not asked";
        }
        ok wait_for(sub { slurp("$server->{root}/logs/access.log") =~ m{^\Q$path\E 401 revoked "-"$}m }),
            "$path: the log names nobody" or diag slurp("$server->{root}/logs/access.log");
    }
}

for my $way ([@length], [@chunked]) {
    for my $kind (qw(buffered file unbuffered mirrored tried)) {
        my $path = "/$kind" . ++$count;
        my $answer = slow_upload($path, new_token(), sub { }, @$way);
        is $answer->{status}, 200, "$path: a token that stays good gets its upload through (@$way)";
        like $answer->{body}, qr/^X-Subject: $subject$/m, "$path: with its subject";
        like $answer->{body}, qr/^body: 10 bytes$/m, "$path: and all of its body";
    }
}

{
    my $token = new_token();
    my $answer = slow_upload('/dav/file', $token, \&revoke, @length);
    is $answer->{status}, 401, 'a PUT whose token is revoked meanwhile is refused';
    ok !-e "$server->{root}/html/dav/file", 'and writes no file';
}
{
    # Of an unbuffered upload, the upstream has what comes at once: it is looked at each second in which something does.
    my $path  = '/unbuffered' . ++$count;
    my $token = new_token();
    my $socket = $server->connect;
    my $part  = "5\r\nfirst\r\n";
    syswrite $socket, head("POST $path", bearer($token), @chunked) . $part;
    ok wait_for(sub { asked($path) }, 10), "$path: the upstream has the request";
    revoke();
    my $answer;
    wait_for(sub {
        syswrite $socket, $part;
        $answer = AuthPat::Server::read_until($socket, qr/\r\n\r\n/, 0.1);
    }, 10);
    like $answer, qr/^HTTP\/1.1 401/, "$path: is ended before its body is";
    like $answer, $challenge, "$path: with the reason";
}
{
    my $token = new_token('--expires-in', '1s');
    my $end = time + 1;
    my $answer = slow_upload('/buffered/expiry', $token, sub { wait_for(sub { time > $end }, 5) }, @length);
    is $answer->{status}, 401, 'a token that expires during the upload is refused';
    like $answer->{headers}, qr/error_description="The access token expired"/, 'and said to have expired';
    is scalar(asked('/buffered/expiry')), 0, 'and its upstream was not asked';
}
{
    my $change = sub {
        my ($token, $kept, $id) = @_;
        my $digest = `printf %s "$token" | sha256sum` =~ s/ .*//sr;
        patctl($store, \qq({"op":"put","seq":@{[++$count]},"digest":"$digest","id":"$id","subject":"ann",$kept}\n{"op":"commit","cursor":"$count"}\n), 'apply');
    };
    my $token = 'pat-of-ann-0123456789abcdef0123456789';
    $change->($token, '"scopes":["write"],"claims":{"paid":"1"}', 'ann');
    my $answer = slow_upload('/scope', $token, sub { $change->($token, '"scopes":["read"],"claims":{"paid":"1"}', 'ann') }, @length);
    is $answer->{status}, 403, 'a scope that is taken away during the upload is missed';
    like $answer->{headers}, qr/insufficient_scope", scope="write"/, 'and named';
    $answer = slow_upload('/claim', $token, sub { $change->($token, '"scopes":["write"],"claims":{"paid":"0"}', 'ann') }, @length);
    is $answer->{status}, 402, 'a claim that changes during the upload is looked at again';
    $change->($token, '"scopes":["write"],"claims":{"paid":"1"}', 'ann');
    $answer = slow_upload('/buffered', $token, sub { $change->($token, '"cidrs":["192.0.2.0/24"]', 'ann') }, @length);
    is $answer->{status}, 403, 'an address that is no longer allowed is refused';
    like $answer->{headers}, qr/may not be used from this address/, 'and told why';
}
{
    my $from = $server->log_size;
    my $answer = slow_upload('/dry', new_token(), \&revoke, @length);
    is $answer->{status}, 200, 'a dry run refuses nobody later either';
    unlike $answer->{body}, qr/X-Subject/, 'but the upstream is told no subject';
    ok $server->logged(qr/was revoked, dry run/, $from), 'and the log tells';
}
{
    my $socket = $server->connect;
    syswrite $socket, head('POST /optional', @length) . 'first';
    $server->status('/status');
    let_time_pass();
    is AuthPat::Server::exchange($socket, 'secon')->{status}, 200, 'somebody without a token is not asked for one later';
}
{
    my $answer = slow_upload('/named', new_token(), \&revoke, @length);
    is $answer->{status}, 200, 'an error page that reads the body';
    like $answer->{body}, qr/^X-Page: yes$/m, 'is asked for';
    like $answer->{body}, qr/^body: 10 bytes$/m, 'with all of the body';
    unlike $answer->{body}, qr/X-Subject/, 'and without a subject';
}
# An error page of an unbuffered upload, of which the upstream of the page could get but a part: it gets none, and is not
# told to wait for one.
for my $way ([@length], [@chunked]) {
    for my $is_end (1, 0) {
        my $path = '/page-unbuffered' . ++$count;
        my $what = "$path, refused " . ($is_end ? 'at its end' : 'part-way') . " (@$way)";
        my $token = new_token();
        my $socket = $server->connect;
        my $is_chunked = "@$way" =~ /chunked/;
        my $part = $is_chunked ? "5\r\nparts\r\n" : 'parts';
        syswrite $socket, head("POST $path", bearer($token), $is_chunked || $is_end ? @$way : 'Content-Length: 100000') . $part;
        ok wait_for(sub { asked($path) }, 10), "$what: the upstream has the request";
        let_time_pass();
        revoke();
        my $answer;
        my $last = $is_end ? $part . ($is_chunked ? "0\r\n\r\n" : '') : $part;
        wait_for(sub {
            syswrite $socket, $last;
            $answer = AuthPat::Server::read_until($socket, qr/bytes\n/, $is_end ? 10 : 0.1);
        }, 10);
        like $answer, qr/^HTTP\/1.1 200/, "$what: the page is shown";
        like $answer, qr/^body: 0 bytes$/m, "$what: its upstream has got no body";
        my ($seen) = grep { m{^POST \Q$path\E } } $page->requests;
        unlike $seen // '', qr/^Transfer-Encoding|^Content-Length: [^0]/mi, "$what: nor the promise of one" or diag $seen;
    }
}
{
    # What follows the body on the connection is neither lost nor taken for something else.
    my $token = new_token();
    my $socket = $server->connect;
    syswrite $socket, head('POST /buffered', bearer($token), @chunked) . "5\r\nfirst\r\n";
    $server->status('/status');
    let_time_pass();
    revoke();
    my $answer = AuthPat::Server::exchange($socket, "0\r\n\r\n" . head('GET /status'));
    is $answer->{status}, 401, 'a chunked body with a request behind it: refused';
    like $answer->{headers}, qr/^Connection: close\r$/m, 'and the connection ends';
    is AuthPat::Server::read_until($socket, qr/HTTP/, 1), '', 'without another answer';
}
{
    my $before = $server->get('/status')->{body};
    my ($ok) = $before =~ /"requests":\{"ok":(\d+)/;
    slow_upload('/buffered', new_token(), sub { }, @length);
    ok wait_for(sub { my ($now) = $server->get('/status')->{body} =~ /"requests":\{"ok":(\d+)/; $now == $ok + 1 }),
        'an upload whose token stays good is counted once';
    my ($revoked) = $server->get('/status')->{body} =~ /"requests":\{[^}]*"revoked":(\d+)/;
    slow_upload('/buffered', new_token(), \&revoke, @length);
    ok wait_for(sub { my ($now) = $server->get('/status')->{body} =~ /"requests":\{[^}]*"revoked":(\d+)/; $now == $revoked + 1 }),
        'one whose token was revoked is counted as that';
}
{
    my $token = new_token();
    my $socket = $server->connect;
    syswrite $socket, head('GET /asked', bearer($token));
    ok wait_for(sub { $gate->requests }), 'the auth_request is under way';
    let_time_pass();
    revoke();
    write_file($opened, '');
    my $answer = AuthPat::Server::exchange($socket, '', 20);
    is $answer->{status}, 401, 'a token that is revoked while auth_request is asked is refused';
    like $answer->{headers}, $challenge, 'with the reason';
    is scalar(asked('/asked')), 0, 'and its upstream was not asked';
    is $server->status('/asked', bearer(new_token())), 200, 'one that stays good is let through';
}
{
    unlink $opened;
    my $asked = $gate->requests;
    my $token = new_token();
    my $socket = $server->connect;
    syswrite $socket, head('GET /slow-tried', bearer($token));
    ok wait_for(sub { $gate->requests > $asked }), 'the auth_request of a location that a redirect led to is under way';
    let_time_pass();
    revoke();
    write_file($opened, '');
    my $answer = AuthPat::Server::exchange($socket, '', 20);
    is $answer->{status}, 401, 'a token that is revoked meanwhile is refused there, too';
    like $answer->{headers}, $challenge, 'with the reason';
    is scalar(asked('/slow-tried')), 0, 'and its upstream was not asked';
    is $server->status('/slow-tried', bearer(new_token())), 200, 'one that stays good is let through';
}

SKIP: {
    skip 'nginx with HTTP/2 is needed', 8 if !$http2;
    for my $kind (qw(buffered unbuffered)) {
        for my $is_revoked (1, 0) {
            my $path = "/$kind" . ++$count;
            my $token = new_token();
            my $socket = $server->connect($server->{port2});
            open_http2($socket);
            syswrite $socket, headers(1, 'POST', $path, more => [authorization => "Bearer $token"]) . frame(0, 0, 1, 'first');
            sync_http2($socket);
            let_time_pass();
            revoke() if $is_revoked;
            syswrite $socket, frame(0, 1, 1, 'secon');
            my $answer = read_frames($socket, undef, 1);
            is $answer->{status}, $is_revoked ? 401 : 200, "HTTP/2, $path: " . ($is_revoked ? 'refused' : 'let through');
            if (!$is_revoked) {
                like $answer->{text}, qr/^X-Subject: $subject$/m, "HTTP/2, $path: with its subject";
                like $answer->{text}, qr/^body: 10 bytes$/m, "HTTP/2, $path: and all of its body";
            } elsif ($kind eq 'buffered') {
                is scalar(asked($path)), 0, "HTTP/2, $path: its upstream was not asked";
            }
        }
    }
}

# nginx's time stands still between the parts of a body.
my $still = AuthPat::Server->new(main => 'timer_resolution 1h;', http => <<"END");
auth_pat_zone pat:1m;
auth_pat_store $store;
server {
    listen 127.0.0.1:\$PORT;
    auth_pat API;
    location /buffered { proxy_pass http://127.0.0.1:$upstream_port; }
    location = /status { auth_pat off; auth_pat_status json; }
}
END
$still->start;
{
    my $moving = $server;
    $server = $still;
    my $answer = slow_upload('/buffered-still', new_token(), \&revoke, @length);
    is $answer->{status}, 401, 'with timer_resolution a token that is revoked during the upload is refused';
    is scalar(asked('/buffered-still')), 0, 'and its upstream was not asked';
    $server = $moving;
}

my @bodies = grep { -f } glob "$server->{root}/client_body/*";
is "@bodies", '', 'no body was left on disk';
ok $server->log !~ /\[(?:alert|emerg)\]|signal \d/, 'nothing broke' or diag $server->log;

done_testing;
