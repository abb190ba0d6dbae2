# Tests t/lib's Test::Nginx::Socket itself: that it reports failures. A runner
# that lets everything pass would pass every other test we have.
#
# Each case is a small test file, run by a perl of its own in a folder of its
# own. It needs nginx, but not our module.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(sleep time);

# First in @INC, so that it is ours that is tested also where the real one is.
my $lib = abs_path(dirname(__FILE__) . '/lib');
my $dir = tempdir(CLEANUP => 1);
mkdir "$dir/t" or die "mkdir: $!";

# What is set for the tests around this one must not change these.
my $binary = $ENV{TEST_NGINX_BINARY};
delete @ENV{grep { /^TEST_NGINX_/ } keys %ENV};
$ENV{TEST_NGINX_BINARY} = $binary if defined $binary;

# Each request for /t is in the error log: as a notice, since not each nginx can log for debugging.
my $CONFIG = <<'END';
--- config
rewrite_log on;
rewrite ^/t$ /t;
location = /t { add_header X-A a; return 200 "hello\n"; }
location = /missing { root /nonexistent; }
END
my $HELLO = "$CONFIG--- request\nGET /t\n";
# The one that leaves the connection open.
my $OPEN_ENDED = <<'END';
--- raw_request eval
"GET /t HTTP/1.1\r\nHost: a\r\n\r\n"
END
my $TWO = "--- request eval\n['GET /t', 'GET /t']\n";

my $files = 0;

# A case: perl code to come before the plan, how many tests are planned, and
# the blocks; or else the sections of a block, with its request if it is not
# GET /t.
sub write_test {
    my (%case) = @_;
    my $head = $case{request} ? "$CONFIG$case{request}" : $HELLO;
    my $path = sprintf '%s/t/case%02d.t', $dir, ++$files;
    open my $out, '>', $path or die "$path: $!";
    print {$out} "use Test::Nginx::Socket;\n", $case{perl} // '',
        "plan tests => $case{tests};\nno_shuffle();\nrun_tests();\n",
        "__DATA__\n", $case{blocks} // "=== TEST 1: it\n$head$case{sections}\n";
    close $out or die "$path: $!";
    return $path;
}

# Starts a test file. Returns its process and where its output goes.
sub start_test {
    my ($path, %env) = @_;
    my $output = "$path.out";
    my $pid = fork // die "fork: $!";
    return ($pid, $output) if $pid;
    chdir $dir;
    @ENV{keys %env} = values %env;
    open STDOUT, '>', $output;
    open STDERR, '>&', \*STDOUT;
    exec $^X, "-I$lib", $path;
}

sub run_test_file {
    my ($path, %env) = @_;
    my ($pid, $output) = start_test($path, %env);
    waitpid $pid, 0;
    return ($?, content($output));
}

sub find_program {
    my ($name) = @_;
    my ($found) = grep { -x } $name =~ m{/} ? $name : map { "$_/$name" } split(/:/, $ENV{PATH}), '/usr/sbin';
    return $found // die "there is no $name\n";
}

sub content {
    my ($path) = @_;
    open my $in, '<', $path or return '';
    local $/;
    return <$in> // '';
}

sub passes {
    my ($what, %case) = @_;
    my ($status, $output) = run_test_file(write_test(%case), %{ $case{env} // {} });
    ok($status == 0 && $output !~ /^not ok/m, "$what: passes") or diag($output);
    my $ran = () = $output =~ /^ok /mg;
    is($ran, $case{tests}, "$what: number of tests");
    return $output;
}

# $words: what the output must have to tell the reader what is wrong.
sub fails {
    my ($what, $words, %case) = @_;
    my ($status, $output) = run_test_file(write_test(%case), %{ $case{env} // {} });
    isnt($status, 0, "$what: fails");
    like($output, $words, "$what: says so");
    return $output;
}

sub fails_one {
    my ($what, $words, %case) = @_;
    my $output = fails($what, $words, %case);
    my $failed = () = $output =~ /^not ok/mg;
    is($failed, 1, "$what: fails nothing else") or diag($output);
    return;
}

# ---- what is right passes

my %good = (
    perl => "repeat_each(2);\n", tests => 28, blocks => <<"END",
=== TEST 1: one of each check
${HELLO}--- response_body
hello
--- response_headers
X-A: a
! X-B
--- raw_response_headers_like: X-A
--- error_log
GET /t
--- no_error_log
[error]
--- access_log
GET /t

=== TEST 2: must die
--- config
no_such_directive;
--- must_die
--- suppress_stderr
--- error_log
no_such_directive

=== TEST 3: a new configuration, several requests
--- config
location /n { return 404 "\$request_uri"; }
--- request eval
["GET /n1", "GET /n2"]
--- error_code eval
[404, 404]
--- response_body eval
["/n1", "/n2"]
END
);
passes('good file', %good);
passes('good file, HUP', %good, env => { TEST_NGINX_USE_HUP => 1 });
passes('skipped block', tests => 3, sections => "--- skip_nginx: 3: > 1.0.0");

# ---- what is wrong fails

fails_one('wrong status', qr/status code ok.*got: '200'.*expected: '404'/s,
    tests => 1, sections => '--- error_code: 404');
fails_one('status other than 200', qr/got: '404'.*expected: '?200/s,
    tests => 1, request => "--- request\nGET /missing\n", sections => '');
fails_one('wrong body', qr/response_body ok.*got: "hello.*expected: "bye/s,
    tests => 2, sections => "--- response_body\nbye");
fails_one('wrong body, plain', qr/response_body ok.*got: 'hello/s,
    perl => "no_long_string();\n", tests => 2, sections => "--- response_body\nbye");
fails_one('body not like', qr/response_body_like ok.*doesn't match '.*bye/s,
    tests => 2, sections => '--- response_body_like: bye');
fails_one('body like', qr/response_body_unlike ok.*matches '.*hell/s,
    tests => 2, sections => '--- response_body_unlike: hell');
fails_one('wrong header', qr/header X-A ok.*got: 'a'.*expected: 'b'/s,
    tests => 2, sections => '--- response_headers: X-A: b');
fails_one('missing header', qr/header X-B ok.*got: ''/s,
    tests => 2, sections => '--- response_headers: X-B: b');
fails_one('forbidden header', qr/header X-A not there/,
    tests => 2, sections => '--- response_headers: ! X-A');
fails_one('header not like', qr/header X-A like ok/,
    tests => 2, sections => '--- response_headers_like: X-A: \d+');
fails_one('raw headers not like', qr/raw headers like/,
    tests => 2, sections => '--- raw_response_headers_like: X-B');
fails_one('raw headers like', qr/raw headers unlike/,
    tests => 2, sections => '--- raw_response_headers_unlike: X-A');
fails_one('second of two responses', qr/response_body ok \(req 1.*got: "hello/s,
    tests => 4, request => $TWO,
    sections => qq{--- response_body eval\n["hello\\n", "bye"]});
fails_one('missing error_log line', qr/error_log has a line with 'no such line'/,
    tests => 3, sections => "--- error_log\nGET /t\nno such line");
fails_one('missing error_log regex', qr/error_log has a line with/,
    tests => 2, sections => "--- error_log eval\nqr/no such l.ne/");
fails_one('forbidden error_log line',
    qr/error_log has no line with '\[error\]'.*there are 1: .*No such file/s,
    tests => 2, request => "--- request\nGET /missing\n", sections => <<'END');
--- error_code: 404
--- no_error_log
[error]
END
my %earlier_line = (
    tests => 4, request => "--- request eval\n['GET /t?1', 'GET /t?2']\n",
    sections => '--- error_log: GET /t?1');
fails_one('error_log line of an earlier request', qr/error_log has a line with 'GET/,
    %earlier_line);
passes('error_log line of an earlier request, accumulated', %earlier_line,
    perl => "check_accum_error_log();\n");
fails_one('wrong grep_error_log_out', qr/grep_error_log_out ok/,
    tests => 2, sections => "--- grep_error_log: [alert]\n--- grep_error_log_out\nx");
fails_one('missing access_log line', qr/access_log has a line with 'GET \/other'/,
    tests => 2, sections => '--- access_log: GET /other');
fails_one('forbidden access_log line', qr/access_log has no line with 'GET \/t'/,
    tests => 2, sections => '--- no_access_log: GET /t');
fails_one('must_die that lives', qr/nginx died as it must/,
    tests => 1, sections => '--- must_die');
fails_one('must_die of the wrong code', qr/expected exit code.*got: '?1.*expected: '?3/s,
    tests => 1, blocks => "=== TEST 1: it\n--- config\nnope;\n--- must_die: 3\n");
fails_one('must_die without its log line', qr/error_log has a line with 'other'/,
    tests => 2,
    blocks => "=== TEST 1: it\n--- config\nnope;\n--- must_die\n--- error_log: other\n");
fails_one('wrong tcp_query', qr/tcp_query ok/, tests => 2, blocks => <<'END');
=== TEST 1: it
--- config
location = /t { proxy_pass http://127.0.0.1:$TEST_NGINX_RAND_PORT_1; }
--- tcp_listen: $TEST_NGINX_RAND_PORT_1
--- tcp_reply eval
"HTTP/1.0 200 OK\r\n\r\n"
--- tcp_query: GOT
--- request
GET /t
END
fails('timeout', qr/client socket timed out/,
    tests => 1, request => $OPEN_ENDED, sections => '--- timeout: 100ms');
fails('wrong plan', qr/planned 3 tests but ran 1/, tests => 3, sections => '');
fails('second block, HUP', qr/TEST 2: it - response_body ok.*got: "hello/s, tests => 3,
    env => { TEST_NGINX_USE_HUP => 1 },
    blocks => "=== TEST 1: it\n$HELLO\n=== TEST 2: it\n$HELLO--- response_body\nbye\n");

# ---- what makes no sense ends the file

fails('unknown section', qr{case\d+\.t TEST 1: it - section '--- respons_body'},
    tests => 1, sections => '--- respons_body: hello');
fails('unknown section, HUP', qr{TEST 1: it - section '--- respons_body'},
    tests => 1, sections => '--- respons_body: hello',
    env => { TEST_NGINX_USE_HUP => 1 });
fails('nginx that does not start', qr/TEST 1: it - nginx does not start.*"nope"/s,
    tests => 1, blocks => "=== TEST 1: it\n--- config\nnope;\n--- request\nGET /t\n");
fails('nginx that does not reload', qr/TEST 2: it - nginx refuses to reload.*"nope"/s,
    tests => 2, env => { TEST_NGINX_USE_HUP => 1 },
    blocks => "=== TEST 1: it\n$HELLO\n"
        . "=== TEST 2: it\n--- config\nnope;\n--- request\nGET /t\n");
fails('scalar for several responses', qr/must be\s+arrays too/, tests => 1,
    request => $TWO, sections => '--- error_code: 200');
fails('unset variable', qr/\$TEST_NGINX_NOT_SET is used/, tests => 1,
    sections => '--- http_config: # $TEST_NGINX_NOT_SET');
fails('function of the real one', qr/no_nginx_manager\(\) needs the real/,
    perl => "no_nginx_manager();\n", tests => 1, sections => '');
fails('function nobody has', qr/no_such_function/,
    perl => "no_such_function();\n", tests => 1, sections => '');
for my $mode (qw(CHECK_LEAK BENCHMARK)) {
    fails("TEST_NGINX_$mode", qr/TEST_NGINX_$mode needs the real Test::Nginx/,
        tests => 1, sections => '', env => { "TEST_NGINX_$mode" => 1 });
}
fails('bail_out', qr/^Bail out!\s+enough/m,
    perl => "bail_out('enough');\n", tests => 1, sections => '');

# ---- under valgrind

SKIP: {
    my $nginx = $binary // 'nginx';
    skip 'there is no valgrind', 4 if system('valgrind --version >/dev/null 2>&1') != 0;
    skip "valgrind can not run $nginx, which has sanitizers", 4
        if content(find_program($nginx)) =~ /__asan_init/;
    symlink abs_path(dirname(__FILE__) . '/../valgrind.suppress'), "$dir/valgrind.suppress" or die "symlink: $!";

    # Reads memory that it has freed, in each program that it is loaded into.
    my $library = "$dir/planted.so";
    open my $compiler, '|-', qw(cc -shared -fPIC -x c -o), $library, '-' or die "cc: $!";
    print {$compiler} <<'END';
#include <stdlib.h>
__attribute__((constructor)) static void read_freed_memory(void)
{
    volatile char *memory = malloc(1);
    free((void *) memory);
    (void) *memory;
}
END
    close $compiler or die "cc: $?";

    my %checked = (tests => 1, sections => '');
    passes('valgrind', %checked, env => { TEST_NGINX_USE_VALGRIND => 1 });
    fails('what valgrind reports', qr/valgrind reports:.*Invalid read of size 1.*read_freed_memory/s, %checked,
        env => { TEST_NGINX_USE_VALGRIND => 1, LD_PRELOAD => $library });
}

# ---- what is started is stopped

# Starts a test that would take a minute. Returns its process and nginx'.
sub running_test {
    my $path = write_test(tests => 1,
        perl => "\$SIG{ALRM} = sub { die qq{alarm\\n} };\n",
        request => $OPEN_ENDED, sections => '--- timeout: 60');
    my $pid_file = "$path.root/logs/nginx.pid";
    my ($test) = start_test($path, TEST_NGINX_SERVROOT => "$path.root");
    my $deadline = time + 20;
    sleep 0.02 until content($pid_file) =~ /\n/ || time > $deadline;
    my ($nginx) = content($pid_file) =~ /(\d+)/;
    return ($test, $nginx);
}

sub is_alive { return content("/proc/$_[0]/stat") =~ /\) [^ZX] / }

# ALRM makes the test die.
for my $signal (qw(INT TERM ALRM)) {
    my ($test, $nginx) = running_test();
    ok($nginx && is_alive($nginx), "SIG$signal: nginx is running");
    kill $signal => $test;
    waitpid $test, 0;
    isnt($?, 0, "SIG$signal: the test fails");
    my $deadline = time + 20;
    sleep 0.02 until !is_alive($nginx) || time > $deadline;    # it may outlive the test for a moment
    ok(!is_alive($nginx), "SIG$signal: nginx is stopped");
}

# ---- two at once keep out of each other's way

my @tests = map { [start_test(write_test(%good))] } 1 .. 3;
for my $test (@tests) {
    my ($pid, $output) = @$test;
    waitpid $pid, 0;
    is($?, 0, 'one of three at once passes') or diag(content($output));
}
is_deeply([glob "$dir/t/servroot_*"], [], 'their server roots are removed');

# A taken port is one to wait for, not to kill for.
my $taken = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die $!;
fails('taken port', qr/nginx does not start.*Address already in use/s,
    tests => 1, sections => '', env => { TEST_NGINX_PORT => $taken->sockport });

done_testing();
