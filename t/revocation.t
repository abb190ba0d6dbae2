# The request after the commit: a revoked token is refused at once, a restored one let in at once.

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use IO::Select;
use IO::Socket::INET;
use Test::Nginx::Socket;

our $store = new_store('main');

# Each block has a token of its own, so that the blocks may run in any order.
our %token = map { $_ => issue($store, '--subject', "user:$_") } qw(simple alive piped stdin replaced many held looked);
our $second = issue($store, '--subject', 'user:many', '--name', 'second');
our $other  = issue($store, '--subject', 'user:man');

sub id_of {
    my ($subject) = @_;
    patctl($store, '--json', 'list', '--subject', $subject) =~ /"id":\s*"([^"]+)"/ or die "no token of $subject\n";
    return $1;
}

my $id = id_of('user:simple');
on_request('revoke'  => sub { patctl($store, 'revoke', $id) });
on_request('restore' => sub { patctl($store, 'restore-access', $id) });

for my $name (qw(alive piped many held looked)) {
    on_request("revoke-$name"  => sub { patctl($store, 'revoke', '--subject', "user:$name") });
    on_request("restore-$name" => sub { patctl($store, 'restore-access', '--subject', "user:$name") });
}
on_request('revoke-stdin'  => sub { patctl($store, \"$token{stdin}\n", 'revoke', '--token-stdin') });
on_request('restore-stdin' => sub { patctl($store, \"$token{stdin}\n", 'restore-access', '--token-stdin') });

# The sidecar changes a token by importing it again, and adds new ones.
sub import_token {
    my ($token, $id, $more) = @_;
    patctl($store, \qq({"token":"$token","id":"$id","subject":"user:imported"$more}\n), 'import', '--plaintext', '--strict', '-');
    return;
}
our $imported = 'imported-token-0001';
our $added    = 'added-token-000001';
on_request('import-scope'   => sub { import_token($imported, 'imported', ',"scopes":["read"]') });
on_request('import-no'      => sub { import_token($imported, 'imported', ',"scopes":["write"]') });
on_request('import-expired' => sub { import_token($imported, 'imported', ',"expires_at":1600000000') });
on_request('import-new'     => sub { import_token($added, 'added', '') });
on_request('import-old'     => sub { import_token($added, 'added', ',"expires_at":1500000000'); patctl($store, 'gc', '--older-than', '1d') });
import_token($imported, 'imported', ',"scopes":["read"]');

# Starts a request that limit_req holds up, revokes its token meanwhile, and tells how it ended. Where the revocation took
# longer than the request was held up, the next try has one that is held up for longer, behind others.
on_request('hold' => sub {
    my (%arguments) = @_;
    my $open = sub {
        my ($uri) = @_;
        my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $arguments{port}, Timeout => 60)
            or die "connect: $!\n";
        print {$socket} "GET $uri HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer $token{held}\r\n\r\n";
        return $socket;
    };
    my $answer = sub {
        my ($socket) = @_;
        my $text = do { local $/; <$socket> } // '';
        my ($status) = $text =~ m{\AHTTP/1\.1 (\d+)} or die "no answer\n";
        my ($early) = $text =~ /^X-Early: (\w+)/m;
        return "$status " . ($early // '-');
    };
    for (my $seconds = 1; ; $seconds *= 2) {
        my $first = $answer->($open->('/held'));
        my @before = map { $open->('/held') } 2 .. $seconds;
        my $held = $open->('/held');
        $answer->($open->('/open'));    # by then nginx has seen those before
        patctl($store, 'revoke', '--subject', 'user:held');
        my $is_late = IO::Select->new($held)->can_read(0);
        my $second = $answer->($held);
        patctl($store, 'restore-access', '--subject', 'user:held');
        return "$first, $second\n" if !$is_late || $seconds == 16;
    }
});

our $revoked = 'WWW-Authenticate: Bearer realm="API", error="invalid_token", error_description="The access token was revoked"';
our $invalid = 'WWW-Authenticate: Bearer realm="API", error="invalid_token", error_description="The access token is invalid"';
our $no      = 'WWW-Authenticate:';

sub bearer { my ($token) = @_; return "Authorization: Bearer $token" }

add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value(http_config => <<'END' . ($block->http_config // ''));
auth_pat_store $TEST_NGINX_STORE_MAIN;
END
    $block->set_value(config => <<'END' . ($block->config // ''));
location = /t { auth_pat API; add_header X-Id $auth_pat_id always; try_files /nowhere =204; }
location ~ ^/(?:revoke|restore|import) { proxy_pass http://unix:$TEST_NGINX_CONTROL; }
END
});

repeat_each(2);
plan tests => repeat_each() * 321;

no_long_string();
run_tests();

__DATA__

=== TEST 1: a token is refused on the request after its revocation, and let in on the request after that is undone
--- request eval
["GET /t", "GET /revoke", "GET /t", "GET /t", "GET /restore", "GET /t", "GET /revoke", "GET /t", "GET /restore", "GET /t"]
--- more_headers eval
[(main::bearer($main::token{simple})) x 10]
--- error_code eval
[204, 200, 401, 401, 200, 204, 200, 401, 200, 204]
--- response_headers eval
[$main::no, $main::no, $main::revoked, $main::revoked, $main::no, $main::no, $main::no, $main::revoked, $main::no, $main::no]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 2: revoking a subject ends all of its tokens, and nobody else's
--- request eval
["GET /t", "GET /t", "GET /t", "GET /revoke-many", "GET /t", "GET /t", "GET /t", "GET /restore-many", "GET /t", "GET /t", "GET /t"]
--- more_headers eval
[map { main::bearer($_) } $main::token{many}, $main::second, $main::other, $main::other, $main::token{many}, $main::second,
 $main::other, $main::other, $main::token{many}, $main::second, $main::other]
--- error_code eval
[204, 204, 204, 200, 401, 401, 204, 200, 204, 204, 204]
--- response_headers eval
[($main::no) x 4, $main::revoked, $main::revoked, ($main::no) x 5]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 3: revoking by the token itself
--- request eval
["GET /t", "GET /revoke-stdin", "GET /t", "GET /restore-stdin", "GET /t"]
--- more_headers eval
[(main::bearer($main::token{stdin})) x 5]
--- error_code eval
[204, 200, 401, 200, 204]
--- response_headers eval
[$main::no, $main::no, $main::revoked, $main::no, $main::no]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 4: one keep-alive connection sees the change between two of its requests
--- config
location = /gif { auth_pat API; empty_gif; }
--- pipelined_requests eval
["GET /gif", "GET /revoke-piped", "GET /gif", "GET /restore-piped", "GET /gif", "GET /revoke-piped", "GET /gif", "GET /restore-piped", "GET /gif"]
--- more_headers eval
main::bearer($main::token{piped})
--- error_code eval
[200, 200, 401, 200, 200, 200, 401, 200, 200]
--- response_headers eval
[$main::no, $main::no, $main::revoked, $main::no, $main::no, $main::no, $main::revoked, $main::no, $main::no]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 5: a connection to an upstream that is kept alive does not keep a token alive
--- http_config
upstream backend { server unix:$TEST_NGINX_SERVER_ROOT/logs/backend.sock; keepalive 4; }
server { listen unix:$TEST_NGINX_SERVER_ROOT/logs/backend.sock; location / { return 200 "$http_x_subject\n"; } }
--- config
location = /up {
    auth_pat API;
    proxy_http_version 1.1;
    proxy_set_header Connection '';
    proxy_set_header X-Subject $auth_pat_subject;
    proxy_pass http://backend;
}
--- request eval
["GET /up", "GET /up", "GET /revoke-alive", "GET /up", "GET /restore-alive", "GET /up"]
--- more_headers eval
[(main::bearer($main::token{alive})) x 6]
--- error_code eval
[200, 200, 200, 401, 200, 200]
--- response_headers eval
[$main::no, $main::no, $main::no, $main::revoked, $main::no, $main::no]
--- response_body_like eval
['^user:alive$', '^user:alive$', '.', '401 Authorization Required', '.', '^user:alive$']
--- no_error_log
[error]
[crit]
[alert]



=== TEST 6: what else changes about a token counts from the next request on, too
--- config
location = /scope { auth_pat API; auth_pat_require_scope read; try_files /nowhere =204; }
--- request eval
["GET /import-scope", "GET /scope", "GET /import-no", "GET /scope", "GET /import-expired", "GET /scope", "GET /import-scope", "GET /scope"]
--- more_headers eval
[(main::bearer($main::imported)) x 8]
--- error_code eval
[200, 204, 200, 403, 200, 401, 200, 204]
--- response_headers eval
[$main::no, $main::no, $main::no, 'WWW-Authenticate: Bearer realm="API", error="insufficient_scope", scope="read"',
 $main::no, 'WWW-Authenticate: Bearer realm="API", error="invalid_token", error_description="The access token expired"',
 $main::no, $main::no]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 7: a token that is new is let in at once, and one that is removed is unknown at once
--- request eval
["GET /import-old", "GET /t", "GET /import-new", "GET /t", "GET /import-old", "GET /t"]
--- more_headers eval
[(main::bearer($main::added)) x 6]
--- error_code eval
[200, 401, 200, 204, 200, 401]
--- response_headers eval
[$main::no, $main::invalid, $main::no, $main::no, $main::no, $main::invalid]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 8: a request that waits for limit_req is refused if its token is revoked while it waits
--- http_config
limit_req_zone $uri zone=held:64k rate=1r/s;
--- config
location = /held {
    set $early $auth_pat_status;
    auth_pat API;
    add_header X-Early $early always;
    limit_req zone=held burst=50;
    try_files /nowhere =204;
}
location = /open { try_files /nowhere =204; }
location = /hold { rewrite ^ /hold?port=$server_port break; proxy_pass http://unix:$TEST_NGINX_CONTROL; }
--- request
GET /hold
--- response_body
204 ok, 401 ok
--- no_error_log
[error]
[crit]
[alert]



=== TEST 9: a revoked token is refused in each location, whatever else is asked for there
--- config
location = /scope { auth_pat API; auth_pat_require_scope nothing; try_files /nowhere =204; }
location = /plain { auth_pat API; auth_pat_leeway 1y; try_files /nowhere =204; }
--- request eval
["GET /revoke-looked", "GET /scope", "GET /plain", "GET /t", "GET /restore-looked", "GET /scope", "GET /plain"]
--- more_headers eval
[(main::bearer($main::token{looked})) x 7]
--- error_code eval
[200, 401, 401, 401, 200, 403, 204]
--- response_headers eval
[$main::no, ($main::revoked) x 3, $main::no, 'WWW-Authenticate: Bearer realm="API", error="insufficient_scope", scope="nothing"', $main::no]
--- no_error_log
[error]
[crit]
[alert]
