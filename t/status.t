# auth_pat_status: what it answers, in which format, and to whom. What it counts is in zone.t.

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use Test::Nginx::Socket;
use Digest::SHA qw(sha256_base64);
use IO::Socket::INET;
use IPC::Open3 qw(open3);
use JSON::PP ();

our $store = new_store('main');
store_path('missing');
our $fed = new_store('fed');
mkdir scratch() . '/"q<b>&' or die $!;
our $odd = new_store('odd');
our $token = issue($store, '--subject', 'alice');
our ($id) = patctl($store, '--json', 'list') =~ /"id":"([^"]+)"/;
issue($store, '--subject', 'mallory');
patctl($store, 'revoke', '--subject', 'mallory');
my $at = time - 100;
patctl($fed, \qq({"op":"heartbeat","at":$at}\n), 'apply');
write_file(scratch() . '/htpasswd', "bob:{PLAIN}secret\n");
write_file(scratch() . '/ssi.html', 'a<!--#include virtual="/status" -->b');
our @verdicts = qw(ok missing malformed unknown revoked expired not_yet_valid address_denied scope_denied require_denied
    stale store_error preflight anonymous);

# ---- what is looked at in an answer

sub json { my ($text) = @_; return JSON::PP->new->utf8->decode($text) }

sub members { my ($of) = @_; return ref $of eq 'HASH' ? join ' ', sort keys %$of : $of // 'null' }

# The age of the store that was reached at that time, when nginx answered.
sub is_age { my ($age) = @_; return $age >= 100 && $age <= time - $at }

sub guarded { my ($code) = @_; return sub { my ($text) = @_; my $got = eval { $code->($text) }; return $got // "$@\n$text" } }

# The names of all members, each object once.
our $structure = guarded(sub {
    my $status = json($_[0]);
    my @counts = map { members($status->{$_}) } qw(requests dry_run closed);
    return join "\n", members($status), members($status->{zone}), (grep { $_ ne join ' ', sort @verdicts } @counts),
        members($status->{servers}[0]), members($status->{history}), members($status->{tokens}),
        map({ members($_) } @{ $status->{stores} }), '';
});

our $of_stores = guarded(sub {
    my $status = json($_[0]);
    return join '', map {
        my $one = $_;
        join(' ', map({ my $value = $one->{$_} // 'null';
            $value =~ s{.*/}{} if $_ eq 'path';
            $value = 'TIME' if $_ eq 'heartbeat' && $value =~ /^\d{10}$/;
            "$_=$value" } grep { exists $one->{$_} } qw(path open problem state heartbeat tokens revoked map_bytes)))
            . (exists $one->{age} ? ' age=' . (defined $one->{age} ? is_age($one->{age}) ? 'RIGHT' : $one->{age} : 'null') : '')
            . "\n";
    } @{ $status->{stores} };
});

# What promtool says of it, and its exit status.
our $checked = guarded(sub {
    my $pid = open3(my $in, my $out, undef, 'promtool', 'check', 'metrics');
    print {$in} $_[0];
    close $in;
    my $said = do { local $/; <$out> } // '';
    waitpid $pid, 0;
    return $said . 'exit ' . ($? >> 8) . "\n";
});

# The families, with the names of their labels.
our $families = guarded(sub {
    my %seen;
    my @lines = map { s/="(?:[^"\\]|\\.)*"//gr =~ s/ -?\d+$//r } grep { !/^#/ } split /\n/, $_[0];
    return join "\n", (grep { !$seen{$_}++ } @lines), '';
});

our $of_fed = guarded(sub { return join '', map { s{="[^"]*/(\w+)"}{="$1"}r =~ s/ \d{10}$/ TIME/r =~ s/ (\d{3,})$/is_age($1) ? ' RIGHT' : ' WRONG'/er } $_[0] =~ /^auth_pat_store_(?:up|heartbeat\w+|age\w+).*\n/mg });

# Without the server that Test::Nginx may add.
our $of_servers = guarded(sub {
    my $status = json($_[0]);
    return join '', map { "[$_->{name}]\n" } grep { $_->{name} ne 'test-nginx' } @{ $status->{servers} };
});
our $server_labels = guarded(sub { return join '', map { "$_\n" } grep { $_ ne '"test-nginx"' } $_[0] =~ /^auth_pat_fail_open_total\{server=(.*)\} \d+$/mg });

# What is wrong with a page.
our $page = guarded(sub {
    my ($text) = @_;
    my @problems;
    push @problems, "has $1" while $text =~ /((?:\bsrc|\bhref)\s*=\s*["']?[^"'\s>]+|\@import|\burl\((?!#)[^)]*\)|\bimport\s*\()/g;
    push @problems, "has a style attribute" if $text =~ /<[^>]*\sstyle\s*=/;
    push @problems, "has an event handler: $1" if $text =~ /<[a-z][^<>]*\s(on\w+)\s*=/;
    push @problems, 'is not one document' if () = $text =~ /<!doctype html>/gi, $text !~ /\A\s*<!doctype html>/i;
    my ($data) = $text =~ m{<script[^>]*type="?application/json"?[^>]*>(.*?)</script>}s or push @problems, 'has no data';
    my $status = eval { json($data) } or push @problems, "its data: $@";
    push @problems, 'its data is not the status' if !$status || !$status->{stores};
    return @problems ? join("\n", @problems) : 'good';
});

# The policy of a page with this style and script.
sub policy_for {
    my ($style, $script) = map { "'sha256-" . sha256_base64($_) . "='" } @_;
    return "default-src 'none'; style-src $style; script-src $script; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
}
our $policy = guarded(sub { return policy_for($_[0] =~ m{<style>(.*?)</style>}s, $_[0] =~ m{<script>(.*?)</script>}s) });

# Whether a page comes with the policy for it.
on_request(policy => sub {
    my (%arguments) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $arguments{port}) or die "connect: $!\n";
    print {$socket} "GET /html HTTP/1.0\r\n\r\n";
    my $answer = do { local $/; <$socket> };
    my ($header) = $answer =~ /^Content-Security-Policy: (.*)\r$/m;
    my $wanted = $policy->($answer);
    return $header eq $wanted ? 'good' : "has: $header\nwants: $wanted";
});

our ($version) = do { local @ARGV = "$AuthPat::ROOT/VERSION"; <> =~ /^"([\d.]+)"$/ } or die "there is no version\n";

our $json = 'Content-Type: application/json';
our $text = 'Content-Type: text/plain; version=0.0.4; charset=utf-8';
our $html = 'Content-Type: text/html; charset=utf-8';
our $nothing = qr/^X-Nothing:/m;

add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value(http_config => $block->http_config // <<'END');
auth_pat_zone pat:1m;
END
    $block->set_value(config => <<'END' . ($block->config // ''));
location = /status     { auth_pat_status; }
location = /json       { auth_pat_status json; }
location = /prometheus { auth_pat_status prometheus; }
location = /html       { auth_pat_status html; }
END
});

repeat_each(2);
plan tests => repeat_each() * 412;

no_long_string();
run_tests();

__DATA__

=== TEST 1: JSON has all the members that are documented, and no others
--- config
location = /t { auth_pat API; auth_pat_store $TEST_NGINX_STORE_MAIN; try_files /nowhere =204; }
--- request
GET /json
--- response_headers eval
"$main::json\nCache-Control: no-store\nVary:"
--- response_body_filters eval
$main::structure
--- response_body
closed dry_run fail_open history nginx requests servers stores time tokens version zone
name since size
closed dry_run fail_open name requests
dry_run end fail_open interval requests
capacity cursor evicted known lost_uses top
age heartbeat map_bytes max_readers open path problem readers revoked state tokens transaction used_bytes
--- no_error_log
[error]
[crit]
[alert]



=== TEST 2: without a zone there are only the stores
--- http_config
# no zone
--- config
location = /t { auth_pat API; auth_pat_store $TEST_NGINX_STORE_MAIN; try_files /nowhere =204; }
--- request
GET /json
--- response_body_filters eval
main::guarded(sub { my $status = main::json($_[0]); return CORE::join "\n", main::members($status), main::members($status->{zone}), scalar @{ $status->{stores} }, '' })
--- response_body
nginx stores time version zone
null
1
--- no_error_log
[error]
[crit]
[alert]



=== TEST 3: without a zone and without a store there is nothing, in every format
--- http_config
# no zone
--- config
--- request eval
["GET /json", "GET /prometheus", "GET /html"]
--- response_body_like eval
[qr/\A\{"time":\d+,"version":"$main::version","nginx":"[\d.]+","zone":null,"stores":\[\]\}\n\z/, qr/\A(?:#[^\n]*\n)+auth_pat_build_info\{version="$main::version",nginx="[\d.]+"\} 1\n(?:#[^\n]*\n)+\z/, qr/"zone":null,"stores":\[\]\}/]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 4: a store is told of where auth_pat has never been on
--- config
location = /t { auth_pat_store $TEST_NGINX_STORE_MAIN; try_files /nowhere =204; }
--- request
GET /json
--- response_body_filters eval
$main::of_stores
--- response_body eval
"path=main open=1 problem= state=ready heartbeat=null tokens=2 revoked=1 map_bytes=34359738368 age=null\n"
--- no_error_log
[error]
[crit]
[alert]



=== TEST 5: of each store it is told whether it is open, what the problem is, and when its source was reached
--- config
location = /1 { auth_pat_store $TEST_NGINX_STORE_FED map_size=1g; try_files /nowhere =204; }
location = /2 { auth_pat_store $TEST_NGINX_STORE_MISSING; try_files /nowhere =204; }
location = /3 { auth_pat_store $TEST_NGINX_STORE_MAIN; try_files /nowhere =204; }
--- request
GET /json
--- response_body_filters eval
$main::of_stores
--- response_body_like eval
qr/\Apath=fed open=1 problem= state=empty heartbeat=TIME tokens=0 revoked=0 map_bytes=1073741824 age=RIGHT
path=missing open=0 problem=there is no store [^\n]*
path=main open=1 problem= state=ready heartbeat=null tokens=2 revoked=1 map_bytes=34359738368 age=null
\z/
--- suppress_stderr
--- no_error_log
[alert]
[emerg]



=== TEST 6: of a store that is not open there is nothing but its problem
--- config
location = /2 { auth_pat_store $TEST_NGINX_STORE_MISSING; try_files /nowhere =204; }
--- request
GET /json
--- response_body_filters eval
main::guarded(sub { return main::members(main::json($_[0])->{stores}[0]) })
--- response_body: open path problem
--- suppress_stderr
--- no_error_log
[alert]
[emerg]



=== TEST 7: the zone is told by its name and size
--- http_config
auth_pat_zone some-name:128k;
--- config
--- request
GET /json
--- response_body_filters eval
main::guarded(sub {
    my ($status) = main::json($_[0]);
    return "$status->{zone}{name} $status->{zone}{size} " . (abs($status->{zone}{since} - time) < 600 ? 'now' : 'when?') . ' '
        . (abs($status->{time} - time) < 3 ? 'now' : 'when?') . " $status->{history}{interval} "
        . CORE::join(' ', map { my $of = $status->{history}{$_}; map { scalar @{ $of->{$_} } } sort keys %$of } qw(requests dry_run)) })
--- response_body eval
"some-name 131072 now now 10 " . CORE::join ' ', (90) x 28
--- no_error_log
[error]
[crit]
[alert]



=== TEST 8: Prometheus has all the families that are documented, and no others
--- config
location = /t { auth_pat API; auth_pat_store $TEST_NGINX_STORE_FED; try_files /nowhere =204; }
--- request
GET /prometheus
--- response_headers eval
"$main::text\nCache-Control: no-store\nVary:"
--- response_body_filters eval
$main::families
--- response_body
auth_pat_build_info{version,nginx}
auth_pat_requests_total{server,status}
auth_pat_dry_run_total{server,status}
auth_pat_closed_total{server,status}
auth_pat_fail_open_total{server}
auth_pat_usage_tokens
auth_pat_usage_capacity_tokens
auth_pat_usage_evicted_total
auth_pat_usage_lost_total
auth_pat_store_up{store}
auth_pat_store_heartbeat_timestamp_seconds{store}
auth_pat_store_age_seconds{store}
auth_pat_store_transaction{store}
auth_pat_store_tokens{store}
auth_pat_store_revoked_tokens{store}
auth_pat_store_readers{store}
auth_pat_store_max_readers{store}
auth_pat_store_used_bytes{store}
auth_pat_store_map_bytes{store}
--- no_error_log
[error]
[crit]
[alert]



=== TEST 9: of a store that can't be read there is only that it is not up, and without a source there is no age
--- config
location = /1 { auth_pat_store $TEST_NGINX_STORE_FED; try_files /nowhere =204; }
location = /2 { auth_pat_store $TEST_NGINX_STORE_MISSING; try_files /nowhere =204; }
location = /3 { auth_pat_store $TEST_NGINX_STORE_MAIN; try_files /nowhere =204; }
--- request
GET /prometheus
--- response_body_filters eval
$main::of_fed
--- response_body
auth_pat_store_up{store="fed"} 1
auth_pat_store_up{store="missing"} 0
auth_pat_store_up{store="main"} 1
auth_pat_store_heartbeat_timestamp_seconds{store="fed"} TIME
auth_pat_store_age_seconds{store="fed"} RIGHT
--- suppress_stderr
--- no_error_log
[alert]
[emerg]



=== TEST 10: promtool has nothing to say of it
--- config
server_name a.example "q\"uote" 'back\\slash' '<script>' 'a{b}';
location = /1 { auth_pat API; auth_pat_store $TEST_NGINX_STORE_FED; try_files /nowhere =204; }
location = /2 { auth_pat_store $TEST_NGINX_STORE_MISSING; try_files /nowhere =204; }
--- request
GET /prometheus
--- response_body_filters eval
$main::checked
--- response_body eval
"exit 0\n"
--- suppress_stderr
--- no_error_log
[alert]
[emerg]



=== TEST 11: promtool has nothing to say of it without a zone either
--- http_config
# no zone
--- config
location = /1 { auth_pat API; auth_pat_store $TEST_NGINX_STORE_FED; try_files /nowhere =204; }
--- request
GET /prometheus
--- response_body_filters eval
$main::checked
--- response_body eval
"exit 0\n"
--- no_error_log
[alert]
[emerg]



=== TEST 12: names of servers are escaped as each format wants it
--- http_config
auth_pat_zone names:1m;
server { listen 127.0.0.1:$TEST_NGINX_RAND_PORT_1; server_name 'q"uote'; location / { return 204; } }
server { listen 127.0.0.1:$TEST_NGINX_RAND_PORT_1; server_name 'back\\slash'; location / { return 204; } }
server { listen 127.0.0.1:$TEST_NGINX_RAND_PORT_1; server_name '<script>alert(1)</script>'; location / { return 204; } }
server { listen 127.0.0.1:$TEST_NGINX_RAND_PORT_1; server_name '~^(?<n>\d+)\.example$'; location / { return 204; } }
server { listen 127.0.0.1:$TEST_NGINX_RAND_PORT_1; server_name bücher.example; location / { return 204; } }
server { listen 127.0.0.1:$TEST_NGINX_RAND_PORT_1; location / { return 204; } }
server { listen 127.0.0.1:$TEST_NGINX_RAND_PORT_1; server_name first second; location / { return 204; } }
--- config
--- request eval
["GET /json", "GET /prometheus", "GET /prometheus"]
--- response_body_filters eval
sub { my ($body) = @_; our $asked; return $body =~ /^\{/ ? do { utf8::encode(my $names = $main::of_servers->($body)); $names } : $asked++ % 2 ? $main::checked->($body) : $main::server_labels->($body) }
--- response_body eval
[qq([q"uote]\n[back\\slash]\n[<script>alert(1)</script>]\n[~^(?<n>\\d+)\\.example\$]\n[bücher.example]\n[]\n[first]\n[localhost]\n),
 qq("q\\"uote"\n"back\\\\slash"\n"<script>alert(1)</script>"\n"~^(?<n>\\\\d+)\\\\.example\$"\n"bücher.example"\n""\n"first"\n"localhost"\n),
 "exit 0\n"]
--- suppress_stderr
--- no_error_log
[alert]
[emerg]



=== TEST 13: in the page no name of a server or a store can end the script that it is in
--- http_config
auth_pat_zone page:1m;
server { listen 127.0.0.1:$TEST_NGINX_RAND_PORT_1; server_name '</script><script>alert(1)</script>'; location / { return 204; } }
server { listen 127.0.0.1:$TEST_NGINX_RAND_PORT_1; server_name '<!--<script>'; location / { return 204; } }
--- config
location = /t { auth_pat_store '$TEST_NGINX_SCRATCH/"q<b>&'; try_files /nowhere =204; }
--- request
GET /html
--- response_body_filters eval
main::guarded(sub { my ($text) = @_; return CORE::join ' ', scalar(() = $text =~ /<script/g), scalar(() = $text =~ m{</script}g), scalar(() = $text =~ /<!--/g), scalar(() = $text =~ /<b>&/g), $main::page->($text) })
--- response_body: 2 2 0 0 good
--- suppress_stderr
--- no_error_log
[alert]
[emerg]



=== TEST 14: a page loads nothing, and its policy forbids that it does
--- config
location = /t { auth_pat API; auth_pat_store $TEST_NGINX_STORE_MAIN; try_files /nowhere =204; }
--- request
GET /html
--- response_headers_like eval
"Content-Type: text/html; charset=utf-8\nCache-Control: no-store\nX-Content-Type-Options: nosniff\nReferrer-Policy: no-referrer\nContent-Security-Policy: default-src 'none'; style-src 'sha256-[\\w+/]{43}='; script-src 'sha256-[\\w+/]{43}='; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
--- response_body_filters eval
$main::page
--- response_body: good
--- no_error_log
[error]
[crit]
[alert]



=== TEST 15: the hashes of the policy are those of the style and the script
--- config
location = /policy { proxy_pass http://unix:$TEST_NGINX_CONTROL:/policy?port=$server_port; }
--- request
GET /policy
--- response_body: good
--- no_error_log
[error]
[crit]
[alert]



=== TEST 16: without an argument the Accept header decides: nobody in particular gets JSON
--- config
--- request eval
[("GET /status") x 9]
--- more_headers eval
['X-Foo: bar', 'Accept: */*', 'Accept: application/json', 'Accept: image/png', 'Accept:', 'Accept: application/*',
 'Accept: application/vnd.api+json', 'Accept: ,;,=', 'Accept: text/*']
--- response_headers eval
[("$main::json\nVary: Accept") x 9]
--- response_body_like eval
[(qr/\A\{"time":/) x 9]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 17: Prometheus gets its format
--- config
--- request eval
[("GET /status") x 6]
--- more_headers eval
['Accept: application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2',
 'Accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2',
 'Accept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.3',
 'Accept: text/plain;version=0.0.4;q=1,*/*;q=0.1', 'Accept: text/plain', "Accept: image/png\nAccept: TEXT/Plain"]
--- response_headers eval
[("$main::text\nVary: Accept") x 6]
--- response_body_like eval
[(qr/\A# HELP auth_pat_build_info /) x 6]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 18: a browser gets a page
--- config
--- request eval
[("GET /status") x 5]
--- more_headers eval
['Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7',
 'Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8', 'Accept: text/html', 'Accept: application/json, text/plain, Text/HTML;charset=utf-8', "Accept: text/plain\nAccept: text/html"]
--- response_headers eval
[("$main::html\nVary: Accept") x 5]
--- response_body_like eval
[(qr/\A\s*<!doctype html>/i) x 5]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 19: with an argument the Accept header does not matter
--- config
--- request eval
["GET /json", "GET /prometheus", "GET /html", "GET /json?format=html"]
--- more_headers eval
["Accept: text/html", "Accept: text/html", "Accept: application/json", "X-Foo: bar"]
--- response_headers eval
[map { "$_\nVary:" } $main::json, $main::text, $main::html, $main::json]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 20: HEAD gets the headers alone, and other methods 405
--- config
--- request eval
["HEAD /json", "HEAD /status", "HEAD /html", "POST /json\nx=1", "PUT /json\nx=1", "DELETE /json", "OPTIONS /json"]
--- error_code eval
[200, 200, 200, 405, 405, 405, 405]
--- response_body_like eval
[('\A\z') x 3, ('405 Not Allowed') x 4]
--- response_headers_like eval
["$main::json\nContent-Length: [1-9]\\d+\nCache-Control: no-store", "$main::json\nVary: Accept", "Content-Length: \\d{4,}", ("X-Foo: ") x 4]
--- no_error_log
[crit]
[alert]



=== TEST 21: a body is thrown away, and the next request on the connection is answered
--- config
--- pipelined_requests eval
["GET /json\nGET /nonsense HTTP/1.1", "GET /prometheus\nxyz", "GET /json"]
--- response_headers eval
[$main::json, $main::text, $main::json]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 22: what may see it is for allow and deny, and for auth_pat itself
--- config
location = /denied  { deny all; auth_pat_status; }
location = /allowed { allow 127.0.0.1; deny all; auth_pat_status; }
location = /guarded { auth_pat API; auth_pat_store $TEST_NGINX_STORE_MAIN; auth_pat_status; }
location = /off     { auth_pat off; auth_pat_status; }
location = /basic   { auth_basic people; auth_basic_user_file $TEST_NGINX_SCRATCH/htpasswd; auth_pat_status json; }
--- request eval
["GET /denied", "GET /allowed", "GET /guarded", "GET /guarded", "GET /off", "GET /basic", "GET /basic"]
--- more_headers eval
['X-Foo: bar', 'X-Foo: bar', 'X-Foo: bar', "Authorization: Bearer $main::token", 'X-Foo: bar', 'X-Foo: bar', 'Authorization: Basic Ym9iOnNlY3JldA==']
--- error_code eval
[403, 200, 401, 200, 200, 401, 200]
--- no_error_log
[crit]
[alert]



=== TEST 23: it may be that of a whole server
--- http_config
auth_pat_zone pat:1m;
server { listen $TEST_NGINX_SERVER_PORT; server_name status; auth_pat_status json; }
--- config
--- request eval
["GET /", "GET /any/where"]
--- more_headers eval
['Host: status', 'Host: status']
--- response_headers eval
[$main::json, $main::json]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 24: it is not inherited
--- config
location /outer/ { auth_pat_status json; location /outer/inner { } }
log_not_found off;
--- request eval
["GET /outer/x", "GET /outer/inner"]
--- error_code eval
[200, 404]
--- no_error_log
[crit]
[alert]



=== TEST 25: a subrequest to it does no harm: auth_request, mirror, and an include
--- config
location = /auth   { auth_request /status; try_files /nowhere =204; }
location = /mirror { mirror /json; mirror /html; try_files /nowhere =204; }
location = /ssi.html { ssi on; alias $TEST_NGINX_SCRATCH/ssi.html; default_type text/html; }
--- request eval
["GET /auth", "GET /mirror", "GET /ssi.html", "GET /auth", "HEAD /ssi.html"]
--- error_code eval
[204, 204, 200, 204, 200]
--- response_body_like eval
['^$', '^$', '\Aa\{"time":.*\}\nb\z', '^$', '^$']
--- no_error_log
[error]
[crit]
[alert]



=== TEST 26: internal redirects lead to it, and filters work on it
--- config
error_page 404 = /json;
location = /try  { try_files /nowhere /json; }
location = /gzip { gzip on; gzip_types *; gzip_min_length 1; auth_pat_status json; }
location = /proxied { proxy_pass http://127.0.0.1:$TEST_NGINX_SERVER_PORT/json; }
location = /rewritten { rewrite ^ /json last; }
--- request eval
["GET /try", "GET /gone", "GET /gzip", "GET /gzip", "GET /proxied", "GET /rewritten"]
--- more_headers eval
['X-Foo: bar', 'X-Foo: bar', 'Accept-Encoding: gzip', 'X-Foo: bar', 'X-Foo: bar', 'X-Foo: bar']
--- error_code eval
[(200) x 6]
--- response_headers eval
['Content-Encoding:', 'Content-Encoding:', 'Content-Encoding: gzip', 'Content-Encoding:', $main::json, $main::json]
--- no_error_log
[crit]
[alert]



=== TEST 27: a store whose path has a quote and an angle bracket is told of in every format
--- config
location = /t { auth_pat_store '$TEST_NGINX_SCRATCH/"q<b>&'; try_files /nowhere =204; }
--- request eval
["GET /json", "GET /prometheus", "GET /prometheus"]
--- response_body_filters eval
sub { my ($body) = @_; our $count; return $body =~ /^\{/ ? main::json($body)->{stores}[0]{path} =~ s{.*/}{}r : $count++ % 2 ? $main::checked->($body) : $body =~ /^(auth_pat_store_up.*)/m && $1 =~ s{"/.*/}{"/}r }
--- response_body eval
['"q<b>&', 'auth_pat_store_up{store="/\"q<b>&"} 0', "exit 0\n"]
--- suppress_stderr
--- no_error_log
[alert]
[emerg]
