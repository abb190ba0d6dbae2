# The recipe for FastCGI, uwsgi and SCGI, with applications that speak these protocols.

use strict;
use warnings;

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use AuthPat::Peer;
use AuthPat::Server qw(slurp);
use AuthPat::Site qw(bearer make_store);
use Test::More;

# A path that an upstream may read as another one, by the document's expression.
my ($refused) = slurp("$AuthPat::ROOT/docs/security.md") =~ /^ *```nginx\n(.*?request_uri.*?)^ *```/ms;

my @applications = ([fastcgi => 9000], [uwsgi => 9001], [scgi => 9002]);
my %ports        = map { $_->[1] => AuthPat::Server::free_port() } @applications;

# Where no token is asked for.
sub open_location {
    my ($protocol, $port) = @_;
    return "location = /open/$protocol { auth_pat off; include ${protocol}_params; include conf.d/snippets/auth-pat-$protocol.conf; "
        . "${protocol}_pass 127.0.0.1:$ports{$port}; }\n";
}

# Where underscores are let in, a client can name the same parameter in other ways.
my $site  = AuthPat::Site->new(recipes => ['cgi'], ports => \%ports,
    http   => 'underscores_in_headers on; large_client_header_buffers 4 16k;',
    change => { 'auth_pat cgi.referon.com;' => "auth_pat cgi.referon.com; $refused",
        '    location /uwsgi/ {' => join('', map { open_location(@$_) } @applications) . '    location /uwsgi/ {' });
my $store = make_store('api');
my @peers = map {
    my ($protocol, $port) = @$_;
    my $peer = AuthPat::Peer->new("$FindBin::Bin/recipes/cgi_peer.py", $protocol, $ports{$port});
    $peer->line or BAIL_OUT("the application for $protocol does not start: " . $peer->errors);
    $peer;
} @applications;
$site->start;

my $token = issue($store, '--subject', 'alice', '--name', 'shop', '--scope', 'read', '--no-expiry');
my ($id)  = patctl($store, 'list', '--json') =~ /"id":"([^"]+)"/;
my @made_up = map { my $name = $_; map { ('-H', "$_: spoofed") } $name, $name =~ tr/-/_/r, lc $name, uc $name,
    $name =~ tr/-/./r, $name =~ s/-/_/r }
    map({ "X-Auth-Pat-$_" } qw(Id Subject Name Scope Expires)), qw(X-Real-IP X-Forwarded-For X-Forwarded-Proto X-Forwarded-Host
    Forwarded X-Request-ID Proxy X-API-Key);

for my $case (['fastcgi', '/t'], ['uwsgi', '/uwsgi/t'], ['scgi', '/scgi/t']) {
    my ($protocol, $path) = @$case;
    my $url = "https://cgi.referon.com$path";
    my $answer = $site->request("$url?q", bearer($token), '--http1.1', @made_up, '-H', 'X-Other: mine');
    is($answer->{status}, 200, "$protocol: a good token: 200") or diag $answer->{body};
    unlike($answer->{body}, qr/spoofed/, "$protocol: nothing that the client made up arrives");
    unlike($answer->{body}, qr/\Q$token\E|^HTTP_AUTHORIZATION=/m, "$protocol: and not the token");
    my %times;
    $times{$_}++ for $answer->{body} =~ /^([^=\n]+)=/mg;
    is_deeply([grep { $times{$_} > 1 && !/^(?:HTTP_HOST|REMOTE_USER)$/ } sort keys %times], [],
        "$protocol: no parameter is there twice, but those of nginx's own file");
    is_deeply([grep { !/^\w+$/ } sort keys %times], [], "$protocol: nor one that only an application would take for it");
    my %got = $answer->{body} =~ /^(\w+)=(.*)$/mg;
    is($got{HTTP_X_AUTH_PAT_ID}, $id, "$protocol: the id");
    is($got{HTTP_X_AUTH_PAT_SUBJECT}, 'alice', "$protocol: the subject");
    is($got{REMOTE_USER}, 'alice', "$protocol: who is CGI's user, too");
    is($got{HTTP_X_AUTH_PAT_NAME}, 'shop', "$protocol: the name");
    is($got{HTTP_X_AUTH_PAT_SCOPE}, 'read', "$protocol: the scopes");
    ok(!exists $got{HTTP_X_AUTH_PAT_EXPIRES}, "$protocol: what is empty is not sent, nor the client's");
    is($got{HTTP_X_REAL_IP}, '127.0.0.1', "$protocol: the address");
    is($got{HTTP_X_FORWARDED_PROTO}, 'https', "$protocol: the scheme");
    is($got{HTTP_HOST}, 'cgi.referon.com', "$protocol: the host");
    like($got{HTTP_X_REQUEST_ID}, qr/^[0-9a-f]{32}$/, "$protocol: an id of the request");
    is($got{HTTP_X_OTHER}, 'mine', "$protocol: another header passes");
    is($got{QUERY_STRING}, 'q', "$protocol: nginx's own parameters are there");
    is($site->request($url)->{status}, 401, "$protocol: without a token: 401");

    my $over2 = $site->request($url, bearer($token), '--http2', map { /^-/ ? $_ : lc } @made_up);
    is($over2->{version}, 2, "$protocol: over HTTP/2");
    like($over2->{body}, qr/^HTTP_X_AUTH_PAT_SUBJECT=alice$/m, "$protocol: the same subject");
    unlike($over2->{body}, qr/spoofed|\Q$token\E/, "$protocol: and nothing that the client made up");

    %got = $site->request("https://cgi.referon.com/open/$protocol", '-u', 'admin:x', '--http1.1', @made_up)->{body} =~ /^(\w+)=(.*)$/mg;
    is($got{REQUEST_URI}, "/open/$protocol", "$protocol: where no token is asked for");
    is($got{REMOTE_USER}, '', "$protocol: nobody is CGI's user, whatever the client claims by Basic");
    is_deeply([grep { /AUTH/ } sort keys %got], [], "$protocol: and nothing says who it is");
}

for my $path ('/a;b', '/x/..;/admin', '/a%252Fb', '/a%2f%2525', '/%41%25', '/a%3Bb', '/x/..%3b/admin') {
    is($site->request("https://cgi.referon.com$path", bearer($token), '--path-as-is')->{status}, 400, "$path is refused");
}
for my $path ('/a?b;c', '/a%2Fb?c=%252F', '/a%41', '/') {
    is($site->request("https://cgi.referon.com$path", bearer($token))->{status}, 200, "$path is not");
}

done_testing();
