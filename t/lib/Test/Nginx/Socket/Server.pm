package Test::Nginx::Socket::Server;

# The nginx under test: its server root, its configuration and its processes.

use strict;
use warnings;

use File::Find qw(find);
use File::Path qw(make_path remove_tree);
use File::Spec;
use Test::Nginx::Socket::Util qw(claim expand_env free_port slurp verbose
    wait_until);
use Test::Nginx::Socket::Valgrind qw(under_valgrind);

my @INHERITED_ENV = qw(LD_PRELOAD LD_LIBRARY_PATH ASAN_OPTIONS);

sub new {
    my ($class) = @_;
    my $random = $ENV{TEST_NGINX_RANDOMIZE};
    my $port = !$random
        && ($ENV{TEST_NGINX_SERVER_PORT} || $ENV{TEST_NGINX_PORT});
    $port ||= free_port();

    my $self = bless {
        binary      => $ENV{TEST_NGINX_BINARY} || 'nginx',
        port        => $port,
        client_port => !$random && $ENV{TEST_NGINX_CLIENT_PORT} || $port,
        addr        => '127.0.0.1',
        server_name => 'localhost',
        workers     => 1,
        connections => 64,
        log_level   => $ENV{TEST_NGINX_LOG_LEVEL} || 'debug',
        master      => $ENV{TEST_NGINX_MASTER_PROCESS} || 'off',
        timeout     => $ENV{TEST_NGINX_TIMEOUT} || 3,
        preamble    => '',
        env         => [],
    }, $class;
    $self->_choose_root($random);
    return $self;
}

# t/servroot, as everyone expects it to be there after a failure; beside it if
# that is in use, by another run or by an nginx left over by NO_CLEAN.
sub _choose_root {
    my ($self, $random) = @_;
    my $given = !$random && $ENV{TEST_NGINX_SERVROOT};
    my $root = File::Spec->rel2abs($given || 't/servroot');
    my $in_use = $random || !claim("root $root") || _nginx_in($root);
    if ($in_use) {
        die "$root is in use by another run or by an nginx still running\n"
            if $given;
        $root .= "_$self->{port}";
        $self->{temporary} = 1;
    }
    $self->{root} = $root;
    $self->{logs} = "$root/logs";
    $self->{html} = "$root/html";
    $self->{pid_file}   = "$root/logs/nginx.pid";
    $self->{error_log}  = "$root/logs/error.log";
    $self->{access_log} = "$root/logs/access.log";
    return;
}

# The pid of the nginx that runs in a root, or 0.
sub _nginx_in {
    my ($root) = @_;
    my ($pid) = (slurp("$root/logs/nginx.pid") // '') =~ /^(\d+)$/ or return 0;
    return (slurp("/proc/$pid/cmdline") // '') =~ m{\Q$root/\E} ? $pid : 0;
}

# ---- what nginx -V says

sub version {
    my ($self) = @_;
    $self->{version} //= do {
        my ($major, $minor, $patch) =
            $self->_build_info =~ m{^nginx version: \S+?/(\d+)\.(\d+)\.(\d+)}m
            or die "cannot tell the version from '$self->{binary} -V'\n";
        number($major, $minor, $patch);
    };
    return $self->{version};
}

# A version as a number that compares: 1.22.1 is 1022001.
sub number {
    my ($major, $minor, $patch) = @_;
    return ($major * 1000 + $minor) * 1000 + $patch;
}

sub _build_info {
    my ($self) = @_;
    $self->{build_info} //= do {
        my $output = `"$self->{binary}" -V 2>&1`;
        die "cannot run '$self->{binary} -V': $output\n" if $? != 0;
        $output;
    };
    return $self->{build_info};
}

# ---- server root and configuration

# An empty root with html/index.html. A running nginx that is about to be
# reloaded keeps its pid file and the sockets and keys it has open; its logs
# are emptied in place, as it goes on writing to them.
sub prepare_root {
    my ($self) = @_;
    my $root = $self->{root};
    remove_tree("$root/conf", glob("$root/*_temp"), glob("$root/*_cache"));
    if ($self->running) {
        find({ no_chdir => 1, wanted => sub {
            return if -d $_ || /(?:nginx\.pid|\.sock|\.crt|\.key)$/;
            if (m{^\Q$self->{logs}\E/}) { truncate $_, 0 }
            else                        { unlink $_ }
        } }, $root);
    }
    else {
        remove_tree(map { "$root/$_" } qw(cache html logs));
        # Whatever is still in there is not ours to delete.
        !-d $root or rmdir $root or die "cannot replace $root: $!\n";
    }
    make_path(map { "$root/$_" } qw(conf html logs));
    $self->write_file("$root/html/index.html",
        '<html><head><title>It works!</title></head>'
        . '<body>It works!</body></html>');
    return;
}

sub write_file {
    my ($self, $path, $content) = @_;
    open my $out, '>:raw', $path or die "cannot write $path: $!\n";
    print {$out} $content;
    close $out or die "cannot write $path: $!\n";
    return;
}

# $user_files: the section, ">>> name [time]" lines with contents below or
# [[name, content, time], ...]. Names are relative to html/.
sub write_user_files {
    my ($self, $user_files, $name, $ports) = @_;
    return if !defined $user_files;

    my @files;
    if (!ref $user_files) {
        for my $line ($user_files =~ /^(.*\n?)/mg) {
            if ($line =~ />>> (\S+)(?:\s+(.+))?/) { push @files, [$1, '', $2] }
            elsif (@files)                        { $files[-1][1] .= $line }
        }
    }
    elsif (ref $user_files eq 'ARRAY') { @files = @$user_files }
    else { die "$name - user_files must be a string or an array\n" }

    for my $file (@files) {
        my ($path, $content, $time) = @$file;
        $path = "$self->{html}/$path" if $path !~ m{^/};
        make_path($path =~ m{^(.*)/});
        $self->write_file($path, expand_env($content // '', $name, $ports));
        next if !$time;
        local $ENV{TZ} = 'GMT';
        system('touch', '-t', $time, $path) == 0
            or die "$name - cannot set the time of $path to $time\n";
    }
    return;
}

# $sections: config, http_config, main_config, log_level, server_name and http2
# (whether to speak it) of the block.
sub write_config {
    my ($self, $sections) = @_;
    my %s = %$sections;
    my $level = $s{log_level} || $self->{log_level};
    my $env = join '', map { /\s/ ? "env '$_';\n" : "env $_;\n" }
        @INHERITED_ENV, @{ $self->{env} };
    my $modules = join '', map { "load_module $_;\n" }
        split ' ', $ENV{TEST_NGINX_LOAD_MODULES} // '';
    my $temp_paths = join '', map { "    ${_}_temp_path $self->{root}/${_}_temp;\n" }
        grep { $s{http_config} !~ /\b${_}_temp_path\b/
               && $self->_build_info !~ /--without-http_${_}_module/ }
        qw(client_body proxy fastcgi scgi uwsgi);
    (my $server_name = $s{server_name} // $self->{server_name}) =~ s/([\\'])/\\$1/g;

    # "http2 on" came with 1.25.1.
    my $new_http2 = $self->version >= number(1, 25, 1);
    my $listen = $self->{port} . ($s{http2} && !$new_http2 ? ' http2' : '') . ';'
        . ($s{http2} && $new_http2 ? ' http2 on;' : '');
    my $root_location = $self->{no_root_location} ? '' : <<"END";
        location / {
            root $self->{html};
            index index.html index.htm;
        }
END
    my $user = $ENV{TEST_NGINX_WORKER_USER} || ($> == 0 ? 'root' : '');
    $user = "user $user;" if $user;

    $self->write_file("$self->{root}/conf/nginx.conf", <<"END");
daemon on;
master_process $self->{master};
worker_processes $self->{workers};
error_log $self->{error_log} $level;
pid $self->{pid_file};
$user
$env$modules
$s{main_config}

http {
    access_log $self->{access_log};
$temp_paths    default_type text/plain;
    keepalive_timeout 68000ms;

$s{http_config}

    server {
        listen $listen
        server_name '$server_name';
        client_max_body_size 30M;

$self->{preamble}
$s{config}

$root_location    }
}

events {
    accept_mutex off;
    worker_connections $self->{connections};
}
END
    return;
}

# ---- processes

sub running { my ($self) = @_; return $self->{pid} && _alive($self->{pid}) }

# Gone, or a zombie that its parent is slow to reap: both are not alive.
sub _alive {
    my ($pid) = @_;
    return (slurp("/proc/$pid/stat") // '') =~ /\) [^ZX] /;
}

sub _children {
    my ($parent) = @_;
    return map { /^(\d+) \(.*\) [^ZX] (\d+) /s && $2 == $parent ? $1 : () }
        map { slurp($_) // () } glob '/proc/[0-9]*/stat';
}

# Runs the command that starts nginx; returns its status as in $?. nginx has
# read its configuration and is listening when that command ends.
sub launch {
    my ($self, $quiet) = @_;
    my @command = under_valgrind($self->{binary}, '-e', $self->{error_log},
        '-p', "$self->{root}/", '-c', "$self->{root}/conf/nginx.conf");
    verbose("starting: @command");
    my $output = $quiet ? '>/dev/null 2>&1' : '>/dev/null';
    local $ENV{LD_PRELOAD} = join ' ', $ENV{TEST_NGINX_LD_PRELOAD},
        $ENV{LD_PRELOAD} // () if $ENV{TEST_NGINX_LD_PRELOAD};
    my $status =
        system 'sh', '-c', qq{exec "\$0" "\$@" $output}, @command;
    return $status if $status != 0;

    wait_until(10, sub { (slurp($self->{pid_file}) // '') =~ /^(\d+)\n/
                         and $self->{pid} = $1 })
        or die "nginx started but wrote no $self->{pid_file}\n";
    return 0;
}

sub start {
    my ($self, $name, $quiet) = @_;
    my $status;
    # A port may stay taken for a moment, by what the block before left over.
    wait_until(5, sub {
        $status = $self->launch($quiet);
        $status == 0 || $self->_errors !~ /Address already in use/;
    });
    die "$name - nginx does not start (status $status):\n" . $self->_errors
        if $status != 0;
    return;
}

sub _errors {
    my ($self) = @_;
    my $log = slurp($self->{error_log}) // '';
    return join '', $log =~ /^.*\[(?:emerg|alert|crit)\].*\n/mg;
}

# Has the master read the new configuration and waits until none of the old
# workers accepts connections any more. They should be gone, but one that is
# busy with a connection a test gave up may take its time to drain it.
sub reload {
    my ($self, $name) = @_;
    my $master = $self->{pid};
    my @old = _children($master);
    my %is_old = map { $_ => 1 } @old;
    kill HUP => $master;

    my $refused = sub { $self->_errors =~ /\[emerg\] $master#/ };
    my $replaced = sub { !!grep { !$is_old{$_} } _children($master) };
    wait_until(10, sub { $refused->() || $replaced->() })
        or die "$name - nginx does not reload\n";
    die "$name - nginx refuses to reload:\n" . $self->_errors if $refused->();

    my $gone = sub { !grep { _alive($_) } @old };
    my $draining = sub {
        !grep { (slurp("/proc/$_/cmdline") || 'shutting down') !~ /shutting down/ }
            @old;
    };
    wait_until(1, $gone) or wait_until(9, $draining)
        or die "$name - the old nginx workers do not quit\n";
    return;
}

sub stop {
    my ($self) = @_;
    # A signal may have ended launch() before it had read the pid.
    my $pid = delete $self->{pid} || _nginx_in($self->{root}) or return;
    my @family = ($pid, _children($pid));
    my $gone = sub { !grep { _alive($_) } @family };
    my $gentle = $ENV{TEST_NGINX_FAST_SHUTDOWN} ? 'TERM' : 'QUIT';

    kill $gentle => $pid;
    return if wait_until($self->{timeout}, $gone);
    warn "nginx $pid does not quit, terminating it\n";
    kill TERM => $pid;
    return if wait_until(3, $gone);
    kill KILL => grep { _alive($_) } @family;
    wait_until(3, $gone);
    return;
}

# Removes a root that is not t/servroot, unless there is something to look at.
sub remove_root {
    my ($self, $failed) = @_;
    remove_tree($self->{root}) if $self->{temporary} && !$failed;
    return;
}

1;
