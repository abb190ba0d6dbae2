# auth_pat_fail_open: who is let in when the store can't answer, and who is not.

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use Test::Nginx::Socket;
use IO::Socket::INET;

our (%token, %store);
for my $name (qw(main damaged removed garbled)) {
    $store{$name} = new_store($name);
    %token = import_each_kind($store{$name}, damaged => '"subject":"damaged"');
}
store_path('missing');
write_file(scratch() . '/htpasswd', "bob:{PLAIN}secret\n");

our $issued = issue($store{main}, '--subject', 'issued');     # of the form that patctl issues
our $guess  = substr($issued, 0, -1) . (substr($issued, -1) eq 'a' ? 'b' : 'a');

sub slurp {
    my ($path) = @_;
    open my $file, '<:raw', $path or die "$path: $!\n";
    local $/;
    return <$file>;
}

# Overwrites a file in place: nginx has it open.
sub overwrite {
    my ($path, $contents) = @_;
    open my $file, '+<:raw', $path or die "$path: $!\n";
    print {$file} $contents;
    close $file or die "$path: $!\n";
    return;
}
{
    my $path  = "$store{damaged}/data.mdb";
    my $bytes = slurp($path);
    $bytes =~ s/id-damaged/id-dXmaged/g or die "no such record in $path\n";
    overwrite($path, $bytes);
}
my $whole = slurp("$store{garbled}/data.mdb");

# Waits until nginx answers a token at a place that does not fail open with that status.
sub becomes {
    my ($status, %arguments) = @_;
    for (1 .. 500) {
        my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $arguments{port}) or die "connect: $!\n";
        print {$socket} "GET /probe-$arguments{store} HTTP/1.0\r\nAuthorization: Bearer $token{alice}\r\n\r\n";
        return '' if <$socket> =~ / $status /;
        select undef, undef, undef, 0.01;
    }
    die "it does not become $status\n";
}
on_request('remove'  => sub { rename $store{removed}, "$store{removed}.away" or die $!; return becomes(503, @_, store => 'removed') });
on_request('restore' => sub { rename "$store{removed}.away", $store{removed} or die $!; return becomes(204, @_, store => 'removed') });
on_request('garble'  => sub { overwrite("$store{garbled}/data.mdb", "\xa5" x length $whole); return becomes(503, @_, store => 'garbled') });
on_request('mend'    => sub { overwrite("$store{garbled}/data.mdb", $whole); return becomes(204, @_, store => 'garbled') });

our $bearer = "Authorization: Bearer $token{alice}";
our $nobody = 'X-Foo: bar';
our $basic  = 'Authorization: Basic Ym9iOnNlY3JldA==';    # bob:secret
our $later  = "Retry-After: 1\nWWW-Authenticate:";
our $fault  = qr/\[crit\].* auth_pat store ".*\/missing": there is no store /;
our $open   = qr/\[crit\].* auth_pat_fail_open lets in a request whose token could not be validated, client: /;
our @bad    = map { "Authorization: Bearer $token{$_}" } qw(revoked expired early remote);

sub says { return map { "X-Status: $_" } @_ }

add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value(http_config => <<'END' . ($block->http_config // 'auth_pat_fail_open on; auth_pat_store $TEST_NGINX_STORE_MISSING;'));
auth_pat API;
add_header X-Status $auth_pat_status always;
log_format auth_pat '[$uri $status pat=$auth_pat_status id=$auth_pat_id subject=$auth_pat_subject name=$auth_pat_name scope=$auth_pat_scope plan=$auth_pat_claim_plan]';
END
    $block->set_value(config => $block->config . <<'END');
location ~ ^/do/(?<action>\w+)$ { auth_pat off; proxy_pass http://unix:$TEST_NGINX_CONTROL:/$action?port=$server_port; }
END
});

repeat_each(2);
plan tests => repeat_each() * 305;

no_long_string();
run_tests();

__DATA__

=== TEST 1: if the store can't be read, a request with a token is let in, whoever it is
--- config
access_log logs/access.log auth_pat;
location = /t { try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
$main::bearer
--- error_code: 204
--- response_headers
X-Status: store_error
WWW-Authenticate:
Retry-After:
--- access_log
[/t 204 pat=store_error id=- subject=- name=- scope=- plan=-]
--- suppress_stderr
--- error_log eval
[$main::fault, $main::open]
--- no_error_log
[alert]
[emerg]



=== TEST 2: without it, it is 503
--- http_config
auth_pat_store $TEST_NGINX_STORE_MISSING;
--- config
location = /t   { try_files /nowhere =204; }
location = /off { auth_pat_fail_open off; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /off"]
--- more_headers eval
[($main::bearer) x 2]
--- error_code eval
[503, 503]
--- response_headers eval
["X-Status: store_error\n$main::later", "X-Status: store_error\n$main::later"]
--- suppress_stderr
--- no_error_log
auth_pat_fail_open lets
[alert]
[emerg]



=== TEST 3: requests without a token, and with something that can't be one, are refused as ever
--- config
location = /t { try_files /nowhere =204; }
location = /header { auth_pat API token=$http_x_api_key; try_files /nowhere =204; }
--- request eval
[("GET /t") x 5, "GET /header", "GET /header", "GET /header"]
--- more_headers eval
[$main::nobody, $main::basic, 'Authorization: Bearer', 'Authorization: Bearer short', 'Authorization: Bearer the token of alice 0001',
 $main::bearer, 'X-Api-Key: not a token at all!', "X-Api-Key: $main::token{alice}"]
--- error_code eval
[(401) x 7, 204]
--- response_headers eval
[main::says(qw(missing missing malformed malformed malformed missing malformed store_error))]
--- suppress_stderr
--- no_error_log
[alert]
[emerg]



=== TEST 4: with a prefix, what was not issued is refused, and what has a good checksum is let in
--- config
auth_pat_prefix ropat_;
location = /t { try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t", "GET /t"]
--- more_headers eval
[$main::bearer, "Authorization: Bearer $main::guess", "Authorization: Bearer $main::issued"]
--- error_code eval
[401, 401, 204]
--- response_headers eval
[main::says(qw(malformed malformed store_error))]
--- suppress_stderr
--- no_error_log
[alert]
[emerg]



=== TEST 5: scopes can't be asked for when nobody knows whose token it is
--- config
location = /t { auth_pat_require_scope write; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
[$main::bearer, $main::nobody]
--- error_code eval
[204, 401]
--- response_headers eval
[main::says(qw(store_error missing))]
--- suppress_stderr
--- no_error_log
[alert]
[emerg]



=== TEST 6: if the store is only stale, a request is let in with its identity
--- http_config
auth_pat_fail_open on;
auth_pat_store $TEST_NGINX_STORE_MAIN;
auth_pat_max_age 1m;
--- config
access_log logs/access.log auth_pat;
location = /t { try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
$main::bearer
--- error_code: 204
--- response_headers
X-Status: stale
WWW-Authenticate:
Retry-After:
--- access_log
[/t 204 pat=stale id=id-alice subject=alice name=of alice scope=read plan=pro]
--- error_log eval
[qr/\[crit\].* auth_pat store ".*\/main" is stale: no source has ever been reached/, $main::open]
--- no_error_log
[alert]
[error]



=== TEST 7: what a stale store refuses is refused
--- http_config
auth_pat_fail_open on;
auth_pat_store $TEST_NGINX_STORE_MAIN;
auth_pat_max_age 1m;
--- config
location = /t     { try_files /nowhere =204; }
location = /scope { auth_pat_require_scope write; try_files /nowhere =204; }
--- request eval
[("GET /t") x 6, "GET /scope"]
--- more_headers eval
[$main::nobody, 'Authorization: Bearer unknown-token-0001', @main::bad, $main::bearer]
--- error_code eval
[401, 401, 401, 401, 401, 403, 403]
--- response_headers eval
[main::says(qw(missing unknown revoked expired not_yet_valid address_denied scope_denied))]
--- no_error_log
[crit]
[alert]
[error]



=== TEST 8: what is required besides must hold, or it is 503
--- config
location = /t   { auth_pat_require $arg_x error=404; try_files /nowhere =204; }
location = /who { auth_pat_require $auth_pat_subject; try_files /nowhere =204; }
--- request eval
["GET /t?x=1", "GET /t?x=0", "GET /who"]
--- more_headers eval
[($main::bearer) x 3]
--- error_code eval
[204, 503, 503]
--- response_headers eval
["X-Status: store_error\nRetry-After:", ("X-Status: store_error\n$main::later") x 2]
--- suppress_stderr
--- no_error_log
[alert]
[emerg]



=== TEST 9: what is required of one who is known, though the store is stale, must hold, too
--- http_config
auth_pat_fail_open on;
auth_pat_store $TEST_NGINX_STORE_MAIN;
auth_pat_max_age 1m;
--- config
location = /t   { auth_pat_require $auth_pat_subject $auth_pat_claim_plan; try_files /nowhere =204; }
location = /no  { auth_pat_require $auth_pat_claim_none error=404; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /no"]
--- more_headers eval
[($main::bearer) x 2]
--- error_code eval
[204, 503]
--- response_headers eval
[main::says(qw(stale stale))]
--- no_error_log
[alert]
[error]



=== TEST 10: one whose requirement does not hold is not let in, and the log does not say so
--- config
access_log logs/access.log auth_pat;
location = /t { auth_pat_require $arg_x; try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
$main::bearer
--- error_code: 503
--- access_log
[/t 503 pat=store_error id=- subject=- name=- scope=- plan=-]
--- suppress_stderr
--- error_log eval
$main::fault
--- no_error_log
auth_pat_fail_open lets
[alert]



=== TEST 11: a single record that is damaged does not count: its token is refused
--- http_config
auth_pat_fail_open on;
auth_pat_store $TEST_NGINX_STORE_DAMAGED;
--- config
location = /t { try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
"Authorization: Bearer $main::token{damaged}"
--- error_code: 503
--- response_headers eval
"X-Status: store_error\n$main::later"
--- error_log eval
qr/\[crit\].* auth_pat store ".*\/damaged": a record is damaged/
--- no_error_log
auth_pat_fail_open lets
[alert]
[error]



=== TEST 12: the other tokens of a store with a damaged record are as good as ever
--- http_config
auth_pat_fail_open on;
auth_pat_store $TEST_NGINX_STORE_DAMAGED;
--- config
location = /t { try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
[$main::bearer, $main::bad[0]]
--- error_code eval
[204, 401]
--- response_headers eval
[main::says(qw(ok revoked))]
--- no_error_log
[crit]
[alert]
[error]



=== TEST 13: it is inherited and overridden on every level
--- http_config
auth_pat_fail_open on;
auth_pat_store $TEST_NGINX_STORE_MISSING;
server { listen $TEST_NGINX_SERVER_PORT; server_name closed; auth_pat_fail_open off; location / { try_files /nowhere =204; } }
--- config
location = /t { try_files /nowhere =204; }
location /off/ {
    auth_pat_fail_open off;
    location = /off/t  { try_files /nowhere =204; }
    location = /off/on { auth_pat_fail_open on; try_files /nowhere =204; }
}
--- request eval
["GET /t", "GET /t", "GET /off/t", "GET /off/on"]
--- more_headers eval
[$main::bearer, "Host: closed\n$main::bearer", $main::bearer, $main::bearer]
--- error_code eval
[204, 503, 503, 204]
--- suppress_stderr
--- no_error_log
[alert]
[emerg]



=== TEST 14: limit_except inherits it
--- config
log_not_found off;   # no try_files in limit_except: who is let in finds no file
location = /t { limit_except GET { auth_pat Inner; } try_files /nowhere =204; }
--- request eval
["GET /t", "POST /t\nx"]
--- more_headers eval
[($main::bearer) x 2]
--- error_code eval
[204, 404]
--- suppress_stderr
--- no_error_log
[alert]
[emerg]



=== TEST 15: with satisfy any it is a yes, and with satisfy all other modules must agree
--- config
auth_basic people;
auth_basic_user_file $TEST_NGINX_SCRATCH/htpasswd;
auth_pat API token=$http_x_api_key;
location = /any { satisfy any; try_files /nowhere =204; }
location = /all { satisfy all; try_files /nowhere =204; }
--- request eval
["GET /any", "GET /all", "GET /all", "GET /any"]
--- more_headers eval
["X-Api-Key: $main::token{alice}", "X-Api-Key: $main::token{alice}", "X-Api-Key: $main::token{alice}\n$main::basic", $main::nobody]
--- error_code eval
[204, 401, 204, 401]
--- suppress_stderr
--- no_error_log
[alert]
[emerg]



=== TEST 16: somebody without a token is anonymous where tokens are optional
--- config
location = /t { auth_pat_optional on; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
[$main::nobody, $main::bearer]
--- error_code eval
[204, 204]
--- response_headers eval
[main::says(qw(anonymous store_error))]
--- suppress_stderr
--- no_error_log
[alert]
[emerg]



=== TEST 17: a store that is removed while nginx runs, and comes back
--- timeout: 10
--- http_config
auth_pat_fail_open on;
auth_pat_store $TEST_NGINX_STORE_REMOVED;
--- config
location = /t { try_files /nowhere =204; }
location = /probe-removed { auth_pat_fail_open off; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t", "GET /do/remove", "GET /t", "GET /t", "GET /t", "GET /do/restore", "GET /t", "GET /t"]
--- more_headers eval
[$main::bearer, $main::bad[0], $main::nobody, $main::bearer, $main::bad[0], $main::nobody, $main::nobody, $main::bearer, $main::bad[0]]
--- error_code eval
[204, 401, 200, 204, 204, 401, 200, 204, 401]
--- response_headers eval
[main::says(qw(ok revoked off store_error store_error missing off ok revoked))]
--- no_error_log
[alert]
[emerg]



=== TEST 18: a store whose data.mdb is damaged while nginx runs, and is mended
--- timeout: 10
--- http_config
auth_pat_fail_open on;
auth_pat_store $TEST_NGINX_STORE_GARBLED;
--- config
location = /t { try_files /nowhere =204; }
location = /probe-garbled { auth_pat_fail_open off; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t", "GET /do/garble", "GET /t", "GET /t", "GET /t", "GET /do/mend", "GET /t", "GET /t"]
--- more_headers eval
[$main::bearer, $main::bad[0], $main::nobody, $main::bearer, $main::bad[0], $main::nobody, $main::nobody, $main::bearer, $main::bad[0]]
--- error_code eval
[204, 401, 200, 204, 204, 401, 200, 204, 401]
--- response_headers eval
[main::says(qw(ok revoked off store_error store_error missing off ok revoked))]
--- no_error_log
[alert]
[emerg]



=== TEST 19: an upstream is told of nobody, whatever the client says of itself
--- config
location = /t {
    proxy_set_header X-Auth-Pat-Subject $auth_pat_subject;
    proxy_set_header X-Auth-Pat-Status $auth_pat_status;
    proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/upstream;
}
location = /upstream { auth_pat off; return 200 "[$http_x_auth_pat_subject] [$http_x_auth_pat_status]"; }
--- request
GET /t
--- more_headers eval
"X-Auth-Pat-Subject: root\nX-Auth-Pat-Status: ok\n$main::bearer"
--- response_body: [] [store_error]
--- suppress_stderr
--- no_error_log
[alert]
[emerg]



=== TEST 20: after an internal redirect to a place that does not fail open, it is 503
--- config
location = /t { try_files /nowhere /closed; }
location = /closed { auth_pat_fail_open off; try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
$main::bearer
--- error_code: 503
--- response_headers
X-Status: store_error
--- suppress_stderr
--- no_error_log
[alert]
[emerg]



=== TEST 21: and from one that does not to one that does, nothing is left of the refusal
--- config
error_page 503 /open;
location = /t    { auth_pat_fail_open off; try_files /nowhere =204; }
location = /open { try_files /nowhere =410; }
--- request
GET /t
--- more_headers eval
$main::bearer
--- error_code: 410
--- response_headers
X-Status: store_error
Retry-After:
--- suppress_stderr
--- no_error_log
[alert]
[emerg]



=== TEST 22: a good store asks nothing of it
--- http_config
auth_pat_fail_open on;
auth_pat_store $TEST_NGINX_STORE_MAIN;
--- config
location = /t { try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t", "GET /t"]
--- more_headers eval
[$main::bearer, $main::bad[0], 'Authorization: Bearer unknown-token-0001']
--- error_code eval
[204, 401, 401]
--- no_error_log
auth_pat_fail_open
[crit]
[alert]
[error]
