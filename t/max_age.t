# auth_pat_max_age and $auth_pat_store_age: how old the knowledge of a store is.

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use IO::Socket::INET;
use Test::Nginx::Socket;

our (%token, %store);
for my $name (qw(never old fresh aging moving recovers ahead slightly resync redirect)) {
    $store{$name} = new_store($name);
    %token = import_each_kind($store{$name});
}
our $bearer = "Authorization: Bearer $token{alice}";
store_path('missing');
write_file(scratch() . '/htpasswd', "bob:{PLAIN}secret\n");

# A patctl whose clock is ahead by so many seconds.
sub with_clock {
    my ($seconds, $code) = @_;
    my $path = write_file(scratch() . "/patctl$seconds", "#!/bin/sh\nexec faketime -f +${seconds}s '$AuthPat::PATCTL' \"\$@\"\n");
    chmod 0755, $path;
    local $AuthPat::PATCTL = $path;
    return $code->();
}

# The source was reached so many seconds ago. Returns when that was.
sub beat {
    my ($name, $ago) = @_;
    my $at = time - ($ago // 0);
    patctl($store{$name}, \qq({"op":"heartbeat","at":$at}\n), 'apply');
    return $at;
}

# One request; its status, its body, and the time it was answered at as nginx knew it.
sub ask {
    my ($port, $uri) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 60) or die "connect: $!\n";
    print {$socket} "GET $uri HTTP/1.1\r\nHost: x\r\nConnection: close\r\n$bearer\r\n\r\n";
    my $answer = do { local $/; <$socket> } // '';
    $answer =~ m{\AHTTP/1\.1 (\d+).*\r\nX-Now: (\d+)\..*?\r\n\r\n(.*)\z}s or die "no answer\n";
    return ($1, $3, $2);
}

# Brings a heartbeat, asks until the store has become stale, and brings another one. By nginx's clock, each answer must
# be the right one. Where the first answer is of a time when the store was stale already, begins again.
sub watch_staleness {
    my (%arguments) = @_;
    my ($is_stale, $tries) = (0, 0);
    for (my $at = beat('recovers'); ; ) {
        my ($status, undef, $now) = ask($arguments{port}, '/t');
        my $age = $now - $at;
        return "$status at the age of $age" if $status != ($age > 2 ? 503 : 204);
        return 'right' if $is_stale && $age <= 2;
        next if $age <= 2;

        return 'too slow' if $tries++ == 20;
        $is_stale = $tries > 1;
        $at = beat('recovers');
    }
}

# Brings heartbeats, and asks until each shows. From then on the age must be the right one by nginx's clock.
my $moving_ago = 600;

sub watch_age {
    my (%arguments) = @_;
    for (1 .. 3) {
        $moving_ago -= 10 if $moving_ago > 20;
        my $at = beat('moving', $moving_ago);
        my ($deadline, $noticed) = (time + 60);
        while (1) {
            my (undef, $age, $now) = ask($arguments{port}, '/age');
            if ($age eq '[' . ($now - $at) . ']') {
                $noticed //= $now;
                last if $now > $noticed + 1;
            } elsif ($noticed || time > $deadline) {
                return "$age instead of " . ($now - $at);
            }
            select undef, undef, undef, 0.02;
        }
    }
    return 'right';
}

beat('old', 1000);
beat('resync', 1000);
patctl($store{resync}, 'accept-snapshot');    # its tokens are of this host
eval { patctl($store{resync}, \qq({"op":"snapshot_begin","epoch":"e","seq":1}\n), 'apply') };    # and no end
with_clock(5000, sub { patctl($store{ahead}, \qq({"op":"heartbeat"}\n), 'apply') });

on_request('fresh'    => sub { beat('fresh', 3000) });
on_request('redirect' => sub { beat('redirect') });
on_request('aging'    => sub { beat('aging', 30) });
on_request('watch_staleness' => \&watch_staleness);
on_request('watch_age'       => \&watch_age);
on_request('slightly' => sub { with_clock(3, sub { patctl($store{slightly}, \qq({"op":"heartbeat"}\n), 'apply') }); return '' });
on_request('resync'   => sub { patctl($store{resync}, \qq({"op":"heartbeat"}\n), 'apply'); return '' });
on_request('snapshot' => sub {
    my $put = qq({"op":"put","seq":1,"digest":"%s","id":"id-alice","subject":"alice"}\n);
    require Digest::SHA;
    patctl($store{resync}, \(qq({"op":"snapshot_begin","epoch":"e","seq":2}\n)
        . sprintf($put, Digest::SHA::sha256_hex($token{alice})) . qq({"op":"snapshot_end","cursor":"2"}\n)), 'apply');
    # And back to a snapshot that is under way, for the next repetition.
    eval { patctl($store{resync}, \qq({"op":"snapshot_begin","epoch":"e","seq":3}\n), 'apply') };
    return '';
});

our $nobody  = 'X-Foo: bar';
our $basic   = 'Authorization: Basic Ym9iOnNlY3JldA==';    # bob:secret
our $later   = "Retry-After: 1\nWWW-Authenticate:";
our @bad     = ($nobody, 'Authorization: Bearer x', 'Authorization: Bearer unknown-token-0001',
    map { "Authorization: Bearer $token{$_}" } qw(revoked expired early remote));

sub says { return map { "X-Status: $_" } @_ }

add_block_preprocessor(sub {
    my ($block) = @_;
    my $own = $block->http_config // '';
    my $policy = $own =~ /no store/ ? '' : $own =~ /auth_pat_store/ ? 'auth_pat API;'
        : 'auth_pat API; auth_pat_store $TEST_NGINX_STORE_NEVER;';
    $block->set_value(http_config => "$policy\n" . <<'END' . $own);
add_header X-Status $auth_pat_status always;
log_format auth_pat '[$uri $status pat=$auth_pat_status id=$auth_pat_id subject=$auth_pat_subject name=$auth_pat_name scope=$auth_pat_scope plan=$auth_pat_claim_plan]';
END
    $block->set_value(config => $block->config . <<'END');
location ~ ^/do/(?<action>\w+)$ { auth_pat off; proxy_read_timeout 180s; proxy_pass http://unix:$TEST_NGINX_CONTROL:/$action?port=$server_port; }
END
});

repeat_each(2);
plan tests => repeat_each() * 266;

no_long_string();
run_tests();

__DATA__

=== TEST 1: a source that was reached in time makes no difference, and one that was not makes it 503
--- config
location = /1h { auth_pat_store $TEST_NGINX_STORE_OLD; auth_pat_max_age 1h; try_files /nowhere =204; }
location = /1m { auth_pat_store $TEST_NGINX_STORE_OLD; auth_pat_max_age 1m; try_files /nowhere =204; }
--- request eval
["GET /1h", "GET /1m", "HEAD /1m"]
--- more_headers eval
[($main::bearer) x 3]
--- error_code eval
[204, 503, 503]
--- response_headers eval
["X-Status: ok\nRetry-After:", ("X-Status: stale\n$main::later") x 2]
--- no_error_log
[alert]
[error]



=== TEST 2: the log says how old it is, and what is allowed
--- config
location = /t { auth_pat_store $TEST_NGINX_STORE_OLD; auth_pat_max_age 1m; try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
$main::bearer
--- error_code: 503
--- error_log eval
qr/\[crit\].* auth_pat store ".*\/old" is stale: its source was reached 1\d\d\d seconds ago, and at most 60 are allowed, client: /
--- no_error_log
[alert]
[error]



=== TEST 3: what the store refuses it goes on refusing, for the same reason
--- config
auth_pat_store $TEST_NGINX_STORE_OLD;
auth_pat_max_age 1m;
location = /t     { try_files /nowhere =204; }
location = /scope { auth_pat_require_scope write; try_files /nowhere =204; }
--- request eval
[("GET /t") x 7, "GET /scope"]
--- more_headers eval
[@main::bad, $main::bearer]
--- error_code eval
[401, 401, 401, 401, 401, 401, 403, 403]
--- response_headers eval
[main::says(qw(missing malformed unknown revoked expired not_yet_valid address_denied scope_denied))]
--- no_error_log
is stale
[crit]
[alert]
[error]



=== TEST 4: 0, or no directive, is no limit
--- config
location = /none  { auth_pat_store $TEST_NGINX_STORE_OLD; try_files /nowhere =204; }
location = /zero  { auth_pat_store $TEST_NGINX_STORE_OLD; auth_pat_max_age 0; try_files /nowhere =204; }
location = /never { auth_pat_store $TEST_NGINX_STORE_NEVER; auth_pat_max_age 0s; try_files /nowhere =204; }
location = /ahead { auth_pat_store $TEST_NGINX_STORE_AHEAD; try_files /nowhere =204; }
--- request eval
["GET /none", "GET /zero", "GET /never", "GET /ahead"]
--- more_headers eval
[($main::bearer) x 4]
--- error_code eval
[(204) x 4]
--- response_headers eval
[main::says(('ok') x 4)]
--- no_error_log
[crit]
[alert]
[error]



=== TEST 5: a store that no source has ever fed is always stale
--- config
location = /t { auth_pat_store $TEST_NGINX_STORE_NEVER; auth_pat_max_age 365d; try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
$main::bearer
--- error_code: 503
--- response_headers eval
"X-Status: stale\n$main::later"
--- error_log eval
qr/\[crit\].* auth_pat store ".*\/never" is stale: no source has ever been reached, client: /
--- no_error_log
[alert]
[error]



=== TEST 6: a time that is in the future is stale
--- config
location = /t { auth_pat_store $TEST_NGINX_STORE_AHEAD; auth_pat_max_age 365d; try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
$main::bearer
--- error_code: 503
--- response_headers eval
"X-Status: stale\n$main::later"
--- error_log eval
qr/\[crit\].* auth_pat store ".*\/ahead" is stale: /
--- no_error_log
[alert]
[error]



=== TEST 7: a time that is in the future by no more than 5 seconds is not
--- config
location = /t { auth_pat_store $TEST_NGINX_STORE_SLIGHTLY; auth_pat_max_age 1m; try_files /nowhere =204; }
--- request eval
["GET /do/slightly", "GET /t"]
--- more_headers eval
[$main::bearer, $main::bearer]
--- error_code eval
[200, 204]
--- no_error_log
[crit]
[alert]
[error]



=== TEST 8: the limit is what counts: the same store is stale here and is not there
--- config
auth_pat_store $TEST_NGINX_STORE_AGING;
location = /20s { auth_pat_max_age 20s; try_files /nowhere =204; }
location = /28s { auth_pat_max_age 28s; try_files /nowhere =204; }
location = /10m { auth_pat_max_age 10m; try_files /nowhere =204; }
location = /1h  { auth_pat_max_age 1h;  try_files /nowhere =204; }
--- request eval
["GET /do/aging", "GET /20s", "GET /28s", "GET /10m", "GET /1h"]
--- more_headers eval
[($main::bearer) x 5]
--- error_code eval
[200, 503, 503, 204, 204]
--- no_error_log
[alert]
[error]



=== TEST 9: it becomes stale while nginx runs, and is not any more with the next heartbeat
--- no_check_leak
--- timeout: 180
--- config
location = /t { auth_pat_store $TEST_NGINX_STORE_RECOVERS; auth_pat_max_age 2s; add_header X-Now $msec always; try_files /nowhere =204; }
--- request
GET /do/watch_staleness
--- response_body chomp
right
--- no_error_log
[alert]
[error]



=== TEST 10: nobody is identified, and the id is known, for the log
--- config
access_log logs/access.log auth_pat;
location = /t { auth_pat_store $TEST_NGINX_STORE_OLD; auth_pat_max_age 1m; try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
$main::bearer
--- error_code: 503
--- access_log
[/t 503 pat=stale id=id-alice subject=- name=- scope=- plan=-]
--- no_error_log
[alert]
[error]



=== TEST 11: it is inherited and overridden on every level
--- http_config
auth_pat_store $TEST_NGINX_STORE_OLD;
auth_pat_max_age 1m;
server { listen $TEST_NGINX_SERVER_PORT; server_name other; auth_pat_max_age 1h; location / { try_files /nowhere =204; } }
--- config
location = /t { try_files /nowhere =204; }
location /in/ {
    auth_pat_max_age 1h;
    location = /in/t   { try_files /nowhere =204; }
    location = /in/own { auth_pat_max_age 2m; try_files /nowhere =204; }
    location = /in/0   { auth_pat_max_age 0; try_files /nowhere =204; }
}
--- request eval
["GET /t", "GET /t", "GET /in/t", "GET /in/own", "GET /in/0"]
--- more_headers eval
[$main::bearer, "Host: other\n$main::bearer", ($main::bearer) x 3]
--- error_code eval
[503, 204, 204, 503, 204]
--- no_error_log
[alert]
[error]



=== TEST 12: with satisfy any a 503 is final
--- config
location = /t {
    satisfy any;
    auth_basic people;
    auth_basic_user_file $TEST_NGINX_SCRATCH/htpasswd;
    auth_pat API token=$http_x_api_key;
    auth_pat_store $TEST_NGINX_STORE_OLD;
    auth_pat_max_age 1m;
    try_files /nowhere =204;
}
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
["X-Api-Key: $main::token{alice}\n$main::basic", $main::basic]
--- error_code eval
[503, 204]
--- response_headers eval
[$main::later, 'Retry-After:']
--- no_error_log
[alert]
[error]



=== TEST 13: what is required besides is not asked of a token that is stale
--- config
location = /t {
    auth_pat_store $TEST_NGINX_STORE_OLD;
    auth_pat_max_age 1m;
    auth_pat_require $arg_x error=404;
    try_files /nowhere =204;
}
--- request eval
["GET /t", "GET /t?x=1"]
--- more_headers eval
[($main::bearer) x 2]
--- error_code eval
[503, 503]
--- response_headers eval
[main::says('stale', 'stale')]
--- no_error_log
[alert]
[error]



=== TEST 14: while a snapshot is awaited, heartbeats do not count, and what there is is stale when its time is over
--- config
auth_pat_store $TEST_NGINX_STORE_RESYNC;
location = /t { auth_pat_max_age 10s; try_files /nowhere =204; }
location = /no-limit { try_files /nowhere =204; }
--- request eval
["GET /do/resync", "GET /no-limit"]
--- more_headers eval
[($main::bearer) x 2]
--- error_code eval
[200, 204]
--- no_error_log
[crit]
[alert]
[error]



=== TEST 15: error_page gives it a body, and keeps Retry-After
--- config
error_page 503 @later;
location = /t { auth_pat_store $TEST_NGINX_STORE_OLD; auth_pat_max_age 1m; try_files /nowhere =204; }
location @later { return 503 "$auth_pat_status"; }
--- request
GET /t
--- more_headers eval
$main::bearer
--- error_code: 503
--- response_headers
Retry-After: 1
--- response_body: stale
--- no_error_log
[alert]
[error]



=== TEST 16: $auth_pat_store_age says how many seconds ago the source of the location's store was reached
--- config
auth_pat_store $TEST_NGINX_STORE_OLD;
location = /old    { add_header X-Age "[$auth_pat_store_age]" always; try_files /nowhere =204; }
location = /never  { auth_pat_store $TEST_NGINX_STORE_NEVER; add_header X-Age "[$auth_pat_store_age]" always; try_files /nowhere =204; }
location = /fresh  { auth_pat_store $TEST_NGINX_STORE_FRESH; add_header X-Age "[$auth_pat_store_age]" always; try_files /nowhere =204; }
location = /gone   { auth_pat_store $TEST_NGINX_STORE_MISSING; add_header X-Age "[$auth_pat_store_age]" always; try_files /nowhere =204; }
location = /ahead  { auth_pat_store $TEST_NGINX_STORE_AHEAD; add_header X-Age "[$auth_pat_store_age]" always; try_files /nowhere =204; }
location = /resync { auth_pat_store $TEST_NGINX_STORE_RESYNC; add_header X-Age "[$auth_pat_store_age]" always; try_files /nowhere =204; }
--- request eval
["GET /do/fresh", map { "GET /$_" } qw(fresh old never gone ahead resync)]
--- more_headers eval
[($main::bearer) x 7]
--- error_code eval
[200, 204, 204, 204, 503, 204, 204]
--- response_headers_like eval
['X-Status: off', map { "X-Age: $_" } '\[30[0-9]{2}\]', '\[1[0-9]{3}\]', '\[\]', '\[\]', '\[-[45][0-9]{3}\]', '\[[0-9]{1,4}\]']
--- suppress_stderr
--- no_error_log
[alert]
[emerg]



=== TEST 17: the age is told of a refused request, of one that is let in, and where validation is off
--- config
auth_pat_store $TEST_NGINX_STORE_OLD;
add_header X-Age "[$auth_pat_store_age]" always;
location = /t     { try_files /nowhere =204; }
location = /stale { auth_pat_max_age 1m; try_files /nowhere =204; }
location = /off   { auth_pat off; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t", "GET /stale", "GET /off"]
--- more_headers eval
[$main::bearer, $main::nobody, $main::bearer, $main::nobody]
--- error_code eval
[204, 401, 503, 204]
--- response_headers_like eval
[('X-Age: \[1\d\d\d\]') x 4]
--- no_error_log
[alert]
[error]



=== TEST 18: the age can be asked for before the access phase, where no lookup has been
--- config
auth_pat_store $TEST_NGINX_STORE_OLD;
location = /return { auth_pat off; return 200 "[$auth_pat_store_age]"; }
location = /set    { set $age $auth_pat_store_age; add_header X-Age $age always; try_files /nowhere =204; }
location = /if     { if ($auth_pat_store_age ~ "^\d{4}$") { return 210; } try_files /nowhere =204; }
--- request eval
["GET /return", "GET /set", "GET /if"]
--- more_headers eval
[($main::bearer) x 3]
--- error_code eval
[200, 204, 210]
--- response_body_like eval
['^\[1\d\d\d\]$', '^$', '^$']
--- no_error_log
[alert]
[error]



=== TEST 19: without a store there is no age
--- http_config
# no store
--- config
location = /t { auth_pat off; return 200 "[$auth_pat_store_age]"; }
--- request
GET /t
--- response_body: []
--- no_error_log
[alert]
[error]



=== TEST 20: the age follows a heartbeat without a lookup
--- no_check_leak
--- timeout: 180
--- config
location = /age { auth_pat off; auth_pat_store $TEST_NGINX_STORE_MOVING; add_header X-Now $msec; return 200 "[$auth_pat_store_age]"; }
--- request
GET /do/watch_age
--- response_body chomp
right
--- no_error_log
[crit]
[alert]
[error]



=== TEST 21: after an internal redirect it is that of the store of the new location
--- config
location = /t { auth_pat_store $TEST_NGINX_STORE_OLD; try_files /nowhere /in; }
location = /in { auth_pat_store $TEST_NGINX_STORE_NEVER; add_header X-Age "[$auth_pat_store_age]" always; try_files /nowhere =204; }
location = /and-back { auth_pat_store $TEST_NGINX_STORE_NEVER; set $age "[$auth_pat_store_age]"; try_files /nowhere /old; }
location = /old { auth_pat_store $TEST_NGINX_STORE_OLD; add_header X-Age "$age[$auth_pat_store_age]" always; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /and-back"]
--- more_headers eval
[($main::bearer) x 2]
--- error_code eval
[204, 204]
--- response_headers_like eval
['X-Age: \[\]', 'X-Age: \[\]\[1\d\d\d\]']
--- no_error_log
[crit]
[alert]
[error]



=== TEST 22: after an internal redirect what is stale is asked of the new location
--- config
location = /t { auth_pat_store $TEST_NGINX_STORE_OLD; try_files /nowhere /in; }
location = /in { auth_pat_store $TEST_NGINX_STORE_OLD; auth_pat_max_age 1m; try_files /nowhere =204; }
--- request
GET /t
--- more_headers eval
$main::bearer
--- error_code: 503
--- response_headers
X-Status: stale
--- no_error_log
[alert]
[error]



=== TEST 23: a snapshot that is complete is a heartbeat, too
--- config
location = /t { auth_pat_store $TEST_NGINX_STORE_RESYNC; auth_pat_max_age 30s; try_files /nowhere =204; }
--- request eval
["GET /do/snapshot", "GET /t"]
--- more_headers eval
[($main::bearer) x 2]
--- error_code eval
[200, 204]
--- no_error_log
[crit]
[alert]
[error]
