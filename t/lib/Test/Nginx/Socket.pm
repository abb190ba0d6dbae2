package Test::Nginx::Socket;

# The documentation is at the end.

use strict;
use warnings;

# Makes this a Test::Base: blocks, filters, ONLY, SKIP and LAST are its work.
use Test::Base -base;

use List::Util qw(shuffle);
use Test::LongString qw(is_string);
use Test::Nginx::Socket::Checks;
use Test::Nginx::Socket::Client;
use Test::Nginx::Socket::Peer;
use Test::Nginx::Socket::Server;
use Test::Nginx::Socket::Util qw(expand_env slurp);
use Time::HiRes qw(sleep);

my @NEEDS_REAL_ENV = map { "TEST_NGINX_$_" } qw(CHECK_LEAK BENCHMARK
    USE_STAP USE_RR USE_HTTP3 NO_NGINX_MANAGER IGNORE_MISSING_DIRECTIVES);
my @NEEDS_REAL_SUB = qw(run_test no_nginx_manager);

my %KNOWN_SECTION = map { $_ => 1 } qw(
    config http_config main_config server_name log_level
    user_files init must_die suppress_stderr
    request pipelined_requests raw_request raw_request_middle_delay more_headers
    timeout abort wait server_addr_for_client http2 curl
    error_code error_code_like response_headers response_headers_like
    raw_response_headers_like raw_response_headers_unlike
    response_body response_body_like response_body_unlike response_body_filters
    ignore_response error_log no_error_log grep_error_log grep_error_log_out
    access_log no_access_log
    tcp_listen tcp_reply tcp_query tcp_query_len
    skip_nginx skip_eval no_check_leak
    ONLY SKIP LAST
);
# What Test::Base keeps in a block besides its sections.
my %OF_TEST_BASE = map { $_ => 1 } qw(name description seq_num is_filtered
    blocks_object original_values _section_map _section_order);

# The functions that set, or tell, a property of the server.
my %PROPERTY = (
    log_level              => 'log_level',
    server_addr            => 'addr',
    server_name            => 'server_name',
    server_port            => 'port',
    server_port_for_client => 'client_port',
    timeout                => 'timeout',
    worker_connections     => 'connections',
    workers                => 'workers',
    config_preamble        => 'preamble',
);

our @EXPORT = (keys %PROPERTY, @NEEDS_REAL_SUB, qw(
    plan run_tests repeat_each no_shuffle no_long_string no_root_location
    master_on master_off master_process_enabled use_hup check_accum_error_log
    env_to_nginx html_dir server_root is_str bail_out
    add_block_preprocessor add_cleanup_handler add_test_cleanup_handler
    add_response_body_check
));

for my $variable (grep { $ENV{$_} } @NEEDS_REAL_ENV) {
    die "$variable needs the real Test::Nginx::Socket from CPAN; "
        . "the one in t/lib does not offer it.\n";
}

my $server = Test::Nginx::Socket::Server->new;
$ENV{TEST_NGINX_SERVER_ROOT} = $server->{root};

my $repeat_each  = 1;
my $use_hup      = $ENV{TEST_NGINX_USE_HUP};
my $in_order     = $ENV{TEST_NGINX_NO_SHUFFLE};
my $accumulate   = $ENV{TEST_NGINX_CHECK_ACCUM_ERR_LOG};
my $plain_is     = 0;
my $config_known = 0;    # a block has set up a configuration
my $peer;                # the tcp server of the current repetition
my (@preprocessors, @body_checks, @cleanups, @test_cleanups);

# ---- what .t files call

for my $function (keys %PROPERTY) {
    my $property = $PROPERTY{$function};
    no strict 'refs';
    *$function = sub (@) {
        $server->{$property} = $_[0] if @_;
        return $server->{$property};
    };
}

for my $function (@NEEDS_REAL_SUB) {
    no strict 'refs';
    *$function = sub { croak "$function() needs the real Test::Nginx::Socket" };
}

sub repeat_each (@) { $repeat_each = $_[0] if @_; return $repeat_each }
sub no_shuffle ()   { $in_order = 1; return }
sub use_hup ()      { $use_hup = 1; return }
sub no_long_string ()        { $plain_is = 1; return }
sub no_root_location ()      { $server->{no_root_location} = 1; return }
sub check_accum_error_log () { $accumulate = 1; return }
sub master_on ()    { $server->{master} = 'on'; return }
sub master_off ()   { $server->{master} = 'off'; return }
sub html_dir ()     { return $server->{html} }
sub server_root ()  { return $server->{root} }

sub master_process_enabled (@) {
    $server->{master} = $_[0] ? 'on' : 'off' if @_;
    return $server->{master};
}

sub env_to_nginx (@) {
    croak "env_to_nginx: no arguments" if !@_;
    for my $variable (@_) {
        croak "env_to_nginx: bad argument '$variable'"
            if $variable !~ /^[A-Za-z_]/ || $variable =~ /\n/;
        push @{ $server->{env} }, $variable;
    }
    return;
}

# The latest one added runs first, except for the body checks.
sub add_block_preprocessor (&)   { unshift @preprocessors, $_[0]; return }
sub add_cleanup_handler ($)      { unshift @cleanups, $_[0]; return }
sub add_test_cleanup_handler ($) { unshift @test_cleanups, $_[0]; return }
sub add_response_body_check ($)  { push @body_checks, $_[0]; return }

sub is_str (@) {
    my ($got, $expected, $test) = @_;
    return like($got, $expected, $test) if ref $expected eq 'Regexp';
    return is($got, $expected, $test)   if $plain_is;
    return is_string($got, $expected, $test);
}

sub bail_out (@) {
    clean_up();
    Test::More::BAIL_OUT(join '', @_);
}

sub run_tests () {
    $ENV{TEST_NGINX_SERVER_PORT} = $server->{port}
        if !defined $ENV{TEST_NGINX_SERVER_PORT} || $ENV{TEST_NGINX_RANDOMIZE};
    # exit runs the END block, where everything is stopped and removed.
    local @SIG{qw(INT TERM HUP PIPE)} = (sub { exit 130 }) x 4;

    my @blocks = Test::Base::blocks();
    for my $block ($in_order ? @blocks : shuffle @blocks) {
        $_->($block) for @preprocessors;
        $block->set_value(name => "$0 " . $block->name);
        run_block($block);
        $_->($block) for @test_cleanups;
    }
    clean_up();
    return;
}

# ---- a block

sub run_block {
    my ($block) = @_;
    my $name = $block->name;
    my ($unknown) = grep { !$KNOWN_SECTION{$_} && !$OF_TEST_BASE{$_} }
        sort keys %$block;
    die "$name - section '--- $unknown' is not one that t/lib's "
        . "Test::Nginx::Socket knows\n" if defined $unknown;

    # What the checks and the client need to know.
    my $run = {
        block  => $block, name => $name, server => $server, ports => {},
        http2  => speaks_http2($block),
        repeat => 0, index => 0, several => 0,
        log_offset => 0, accumulate => $accumulate,
        body_checks => \@body_checks, is_str => \&is_str,
    };
    my $skip = skip_rule($block);

    if (!$skip) {
        if (defined $block->config)  { set_up_server($run) }
        elsif (!$config_known)       { die "$name - has no config to go on with\n" }
        return run_must_die($run) if defined $block->must_die && defined $block->config;
    }
    if (defined(my $init = $block->init)) {
        eval $init;
        die "$name - init: $@" if $@;
    }
    for my $repeat (0 .. $repeat_each - 1) {
        my $builder = Test::More->builder;
        if ($skip) {
            $builder->skip("$name - $skip->{reason}") for 1 .. $skip->{count};
        }
        else {
            $run->{repeat} = $repeat;
            $server->write_user_files(scalar $block->user_files, $name, $run->{ports})
                if $repeat > 0;
            run_once($run);
        }
    }
    append_error_log($name);
    return;
}

# Brings nginx up with the configuration of the block: by a reload if there is
# one that runs and HUP is asked for, else by a restart.
sub set_up_server {
    my ($run) = @_;
    my ($block, $name, $ports) = @$run{qw(block name ports)};
    my $must_die = defined $block->must_die;
    my $hup = $use_hup && !$must_die;
    my $reload = $hup && $server->running;
    # nginx reloads only under a master.
    master_on() if $hup;

    $server->stop if !$reload;
    my %sections = map { $_ => expand_env(scalar $block->$_, $name, $ports) // '' }
        qw(config http_config main_config);
    $server->prepare_root;
    $server->write_user_files(scalar $block->user_files, $name, $ports);
    $server->write_config({
        %sections,
        http2       => $run->{http2},
        log_level   => scalar $block->log_level,
        server_name => scalar $block->server_name,
    });
    $config_known = 1;
    if ($reload)       { $server->reload($name) }
    elsif (!$must_die) { $server->start($name, defined $block->suppress_stderr) }
    return;
}

sub run_must_die {
    my ($run) = @_;
    my ($block, $name) = @$run{qw(block name)};
    my $expected = $block->must_die;
    for my $repeat (0 .. $repeat_each - 1) {
        $run->{repeat} = $repeat;
        my $status = $server->launch(defined $block->suppress_stderr);
        if ($status & 127) {
            fail("$name - nginx died of signal " . ($status & 127));
        }
        elsif ($expected =~ /^\s*\d+\s*$/) {
            is($status >> 8, $expected, "$name - nginx died with the expected exit code");
        }
        else {
            isnt($status, 0, "$name - nginx died as it must");
        }
        Test::Nginx::Socket::Checks::check_error_log($run);
        $server->stop;
    }
    return;
}

# All the requests of a block, once.
sub run_once {
    my ($run) = @_;
    my ($block, $name) = @$run{qw(block name)};
    my @requests = Test::Nginx::Socket::Client::requests($run);
    my $pipelined = $block->pipelined_requests;
    my $count = $pipelined ? @$pipelined : 1;
    $run->{several} = $pipelined || @requests > 1;
    $run->{index} = 0;
    warn '# ', join(' ', map { shell_quoted($_) }
        Test::Nginx::Socket::Client::curl_command($run, $requests[0])), "\n"
        if defined $block->curl;

    $peer = Test::Nginx::Socket::Peer->start($run) if defined $block->tcp_listen;
    for my $request (@requests) {
        my $is_head = $request->[0]{value} =~ /^\s*HEAD\s/;
        my $reply = Test::Nginx::Socket::Client::exchange($run, $request);
        for (1 .. $count) {
            $reply = check_first($run, $reply, $is_head);
            $run->{index}++;
        }
        warn "WARNING: $name - there is more after the response: '$reply'\n"
            if $reply ne '' && !defined $block->ignore_response;
    }
    if ($peer) {
        $peer->finish;
        undef $peer;
    }
    return;
}

# Checks the first response in a reply and the logs, returns the rest.
sub check_first {
    my ($run, $reply, $is_head) = @_;
    my $block = $run->{block};
    my $ignore = defined $block->ignore_response;
    if (!$ignore) {
        (my $response, my $raw_headers, $reply) =
            Test::Nginx::Socket::Client::first_response($run, $reply, $is_head);
        Test::Nginx::Socket::Checks::check_response($run, $response, $raw_headers);
    }
    sleep $block->wait if $block->wait;
    Test::Nginx::Socket::Checks::check_error_log($run);
    Test::Nginx::Socket::Checks::check_access_log($run) if !$ignore;
    return $reply;
}

sub shell_quoted {
    my ($word) = @_;
    return $word if $word =~ m{^[-\w./:@=,+%]+$};
    $word =~ s/'/'\\''/g;
    return "'$word'";
}

# http2 is for the block that asks for it, and with TEST_NGINX_USE_HTTP2 for
# every one that can do with it.
sub speaks_http2 {
    my ($block) = @_;
    my $http1_only = defined $block->raw_request || $block->pipelined_requests;
    if (defined $block->http2) {
        die $block->name, " - http2 goes with neither raw_request nor "
            . "pipelined_requests\n" if $http1_only;
        return 1;
    }
    return 0 if !$ENV{TEST_NGINX_USE_HTTP2} || $http1_only;
    my $request = $block->request;
    return 0 if !defined $request || (!ref $request && $request =~ m{HTTP/1\.0});
    return ($block->config // '') !~
        /proxy_pass .*:\$(?:server_port|TEST_NGINX_SERVER_PORT)/;
}

# ---- what is skipped

# The rule by which a block is skipped: the count of its tests and a reason.
sub skip_rule {
    my ($block) = @_;
    if (defined(my $spec = $block->skip_eval)) {
        my ($count, $code) = $spec =~ /^\s*(\d+)\s*:\s*(.*)/s
            or die $block->name, " - bad skip_eval\n";
        my $skip = eval $code;
        die $block->name, " - skip_eval: $@" if $@;
        return { count => $count, reason => 'skip_eval' } if $skip;
    }
    my $spec = $block->skip_nginx // return undef;
    $spec =~ s/^\s*(\d+)\s*:// or die $block->name, " - bad skip_nginx\n";
    my $count = $1;
    my $reason = version_rule($block, $spec) // return undef;
    return { count => $count, reason => $reason };
}

# "< 1.19.3", "< 1.19.3 or >= 1.25.1", either with ": reason" behind it. The
# reason, if it is true of this nginx.
sub version_rule {
    my ($block, $spec) = @_;
    my $condition = qr/[<>]=?\s*\d+\.\d+\.\d+/;
    my ($first, $and_or, $second, $reason) =
        $spec =~ /^\s*($condition)(?:\s*(and|or)\s*($condition))?(?:\s*:\s*(.*?))?\s*$/
        or die $block->name, " - bad skip_nginx\n";

    my $holds = sub {
        my ($op, @version) = $_[0] =~ /^([<>]=?)\s*(\d+)\.(\d+)\.(\d+)$/;
        my $order = $server->version
            <=> Test::Nginx::Socket::Server::number(@version);
        return $op =~ /=/ && $order == 0 || ($op =~ /</ ? $order < 0 : $order > 0);
    };
    my $true = $holds->($first);
    $true = $and_or eq 'and' ? $true && $holds->($second) : $true || $holds->($second)
        if $and_or;
    return $true ? $reason || "nginx version$spec" : undef;
}

# ---- the end

sub append_error_log {
    my ($name) = @_;
    my $path = $ENV{TEST_NGINX_ERROR_LOG} or return;
    open my $out, '>>:raw', $path or die "cannot append to $path: $!\n";
    print {$out} "\n=== $name\n", slurp($server->{error_log}) // '';
    close $out or die "cannot append to $path: $!\n";
    return;
}

# Runs at the end of run_tests, but also if the file dies or is interrupted
# before; what has been cleaned up is not cleaned up again.
sub clean_up {
    $_->() for splice @cleanups;
    $peer->stop if $peer;
    undef $peer;
    $server->stop if !$ENV{TEST_NGINX_NO_CLEAN};
    return;
}

END {
    my $status = $?;
    clean_up();
    my $failed = $status || !Test::More->builder->is_passing;
    $server->remove_root($failed || $ENV{TEST_NGINX_NO_CLEAN}) if $server;
    $? = $status;
}

1;

__END__

=head1 NAME

Test::Nginx::Socket - runs tests written for openresty's module of that name

=head1 DESCRIPTION

A small stand-in for Test::Nginx::Socket 0.32 on machines that cannot get it
from CPAN. Test files put this folder at the end of C<@INC>, so where the real
one is installed it is the real one that runs. Hence the rule for any change
here: what a test file says must mean the same under both, down to the number
of tests. For what a section or a function means, see the manual of the real one.

    BEGIN { push @INC, 't/lib' }
    use Test::Nginx::Socket;
    plan tests => repeat_each() * blocks() * 2;
    run_tests();
    __DATA__
    === TEST 1: hello
    --- config
    location = /t { return 200 "hello\n"; }
    --- request
    GET /t
    --- response_body
    hello

Needs Linux (it reads F</proc>), nginx 1.19.5 or later, the Perl modules
Test::Base, Test::LongString and HTTP::Response, and curl for HTTP/2.

=head1 SECTIONS

=over

=item The server

config, http_config, main_config, server_name, log_level, user_files, init,
must_die, suppress_stderr

=item The request

request, pipelined_requests, raw_request, raw_request_middle_delay,
more_headers, timeout, abort, wait, server_addr_for_client, http2, curl

=item The response

error_code, error_code_like, response_headers, response_headers_like,
raw_response_headers_like, raw_response_headers_unlike, response_body,
response_body_like, response_body_unlike, response_body_filters,
ignore_response

=item The logs

error_log, no_error_log, grep_error_log, grep_error_log_out, access_log,
no_access_log

=item A server behind nginx

tcp_listen, tcp_reply, tcp_query, tcp_query_len

=item The block

skip_nginx, skip_eval, no_check_leak (as there is no such check, it does
nothing), and Test::Base's ONLY, SKIP and LAST

=back

The real one takes no notice of a section it does not know; here it ends the
file. A section of your own must be gone when the block runs: have a block
preprocessor use it and C<< delete $block->{section} >>.

=head1 ENVIRONMENT

With the meaning the real one gives them: TEST_NGINX_BINARY, _SERVER_PORT,
_CLIENT_PORT, _PORT, _SERVROOT, _RANDOMIZE, _LOAD_MODULES, _LD_PRELOAD,
_WORKER_USER, _MASTER_PROCESS, _LOG_LEVEL, _TIMEOUT, _USE_HUP, _USE_HTTP2,
_NO_SHUFFLE, _NO_CLEAN, _FAST_SHUTDOWN, _CHECK_ACCUM_ERR_LOG, _ERROR_LOG,
_VERBOSE, _USE_VALGRIND.

The modes that need the real one (TEST_NGINX_CHECK_LEAK, _BENCHMARK and a few
more) are refused.

=head1 DIFFERENCES

=over

=item *

Without a port in the environment nginx gets a free one, not 1984. If
F<t/servroot> is in use by another run, the server root is
F<t/servroot_PORT>; it is removed at the end, unless tests failed.

=item *

It waits for conditions, not for fixed times: for the old workers to quit after
a reload, for the log phase of a request before it looks at the logs, and up to
half a second for lines error_log and access_log expect. A reload puts no
requests of its own into the logs.

=item *

It does not kill what it finds running, only what it started.

=item *

If nginx does not start, or a section makes no sense, the test file dies. The
real one bails out, which ends the whole run of prove.

=item *

Under TEST_NGINX_USE_VALGRIND, nginx runs as it does without, as a daemon too,
it has more time, and a report of valgrind fails the test file.

=item *

A no_error_log pattern is one test, however many lines have it.

=back

=cut
