package AuthPat::Server;

# An nginx of its own for tests that Test::Nginx's format can't express: reloads, workers that die, upgrades, HTTP/2,
# uploads, and stores that break while nginx runs. Plain Test::More; nothing here waits for a fixed time.
#
#     use AuthPat;
#     use AuthPat::Server qw(wait_for);
#
#     my $server = AuthPat::Server->new(http => 'server { listen 127.0.0.1:$PORT; location = /t { … } }');
#     $server->start;
#     my $answer = $server->get('/t', "Authorization: Bearer $token");     # {status, headers, body}
#     wait_for(sub { $server->get('/t')->{status} == 503 });
#
# $PORT, $PORT2 and $ROOT in a configuration are free ports and the folder of this server. It is stopped by the ids of
# its processes when the test program ends, also where it dies.

use strict;
use warnings;

use AuthPat;
use Exporter qw(import);
use IO::Select;
use IO::Socket::INET;
use POSIX qw(WNOHANG);
use Test::Nginx::Socket::Util qw(free_port);
use Test::Nginx::Socket::Valgrind qw(under_valgrind);
use Time::HiRes qw(sleep time);

our @EXPORT_OK = qw(wait_for slurp free_port make_certificate is_alive children_of fds_of);

my $owner = $$;
$SIG{$_} //= sub { exit 130 } for qw(INT TERM HUP);    # so that what was started is stopped
my @servers;
my $count = 0;

# In seconds, for what comes soon on a machine that has nothing else to do. A test only takes as long where it fails.
my $patience = $ENV{TEST_NGINX_USE_VALGRIND} ? 600 : 60;

# True as soon as the condition is; false if it does not become so.
sub wait_for {
    my ($condition) = @_;
    my $deadline = time + $patience;
    while (1) {
        my $value = $condition->();
        return $value if $value;
        return $value if time > $deadline;
        sleep 0.01;
    }
}

sub slurp {
    my ($path) = @_;
    open my $file, '<:raw', $path or return '';
    local $/;
    return <$file> // '';
}

# Makes fullchain.pem, for a name, and privkey.pem in a folder. The options go to openssl.
sub make_certificate {
    my ($folder, $name, @options) = @_;
    my @command = (qw(openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2), '-subj', "/CN=$name",
        @options, '-keyout', "$folder/privkey.pem", '-out', "$folder/fullchain.pem");
    my $said = `@{[ map { quotemeta } @command ]} 2>&1`;
    die $said if $?;
    return;
}

sub is_alive {
    my ($pid) = @_;
    my ($state) = slurp("/proc/$pid/stat") =~ /^\d+ \(.*\) (\S)/s;
    return defined $state && $state ne 'Z';
}

# The ids of a process's children that live.
sub children_of {
    my ($parent) = @_;
    my @children;
    for my $stat (glob '/proc/[0-9]*/stat') {
        my ($pid, $state, $ppid) = slurp($stat) =~ /^(\d+) \(.*\) (\S) (\d+)/s or next;
        push @children, $pid if $ppid == $parent && $state ne 'Z';
    }
    return sort { $a <=> $b } @children;
}

# What a process has open: {number => name}.
sub fds_of {
    my ($pid) = @_;
    my %open;
    for my $fd (glob "/proc/$pid/fd/*") {
        my $name = readlink $fd // next;
        $open{ $fd =~ s{.*/}{}r } = $name;
    }
    return \%open;
}

# main, http: configuration; access_log: of http (off); workers: their number (1); single: master_process off; user: of the
# workers; run_by: a command that runs nginx.
sub new {
    my ($class, %self) = @_;
    my $self = bless { workers => 1, main => '', http => '', access_log => 'off', %self }, $class;
    $self->{root}  = scratch() . '/server' . ++$count;
    $self->{port}  = free_port();
    $self->{port2} = free_port();
    mkdir $_ or die "mkdir $_: $!\n" for map { "$self->{root}$_" } '', '/conf', '/logs', '/html';
    chmod 0755, $self->{root};
    $self->configure;
    push @servers, $self;
    return $self;
}

# Writes the configuration, with the changes that are given.
sub configure {
    my ($self, %changes) = @_;
    @$self{ keys %changes } = values %changes;

    my %words = (PORT => $self->{port}, PORT2 => $self->{port2}, ROOT => $self->{root});
    my ($main, $http) = map { s/\$(PORT2?|ROOT)\b/$words{$1}/gr } $self->{main}, $self->{http};

    my $modules = join '', map { "load_module $_;\n" } split ' ', $ENV{TEST_NGINX_LOAD_MODULES} // '';
    my $user    = $self->{user} // ($> == 0 ? 'root' : '');
    my $temp    = join '', map { "    ${_}_temp_path $self->{root}/$_;\n" } qw(client_body proxy fastcgi scgi uwsgi);

    write_file("$self->{root}/conf/nginx.conf", join '', $modules, $user ? "user $user;\n" : '',
        'daemon on;', "\n", 'master_process ', $self->{single} ? 'off' : 'on', ";\n",
        "worker_processes $self->{workers};\n",
        "error_log $self->{root}/logs/error.log info;\npid $self->{root}/logs/nginx.pid;\n$main\n",
        "events { worker_connections 1024; }\nhttp {\n    access_log $self->{access_log};\n$temp$http\n}\n");
    return $self;
}

# By its whole path, which an upgrade of the binary starts again.
my ($binary) = grep { -x } $AuthPat::NGINX =~ m{/} ? $AuthPat::NGINX : map { "$_/$AuthPat::NGINX" } split /:/, $ENV{PATH};

sub command {
    my ($self, @arguments) = @_;
    return (@{ $self->{run_by} // [] }, under_valgrind($binary), '-p', $self->{root}, '-c', "$self->{root}/conf/nginx.conf", '-e',
        "$self->{root}/logs/error.log", @arguments);
}

# nginx -t: (exit status, what it printed).
sub check {
    my ($self) = @_;
    my $pid = open my $output, '-|';
    defined $pid or die "fork: $!\n";
    if ($pid == 0) {
        open STDERR, '>&', \*STDOUT;
        exec $self->command('-t') or POSIX::_exit(127);
    }
    my $text = do { local $/; <$output> // '' };
    close $output;
    return ($? >> 8, $text);
}

# Starts nginx and waits until it listens. nginx daemonises itself, so the process that is started ends.
sub start {
    my ($self) = @_;
    my $pid = fork // die "fork: $!\n";
    if ($pid == 0) {
        open STDIN,  '<',  '/dev/null';
        open STDOUT, '>>', "$self->{root}/logs/start";
        open STDERR, '>&', \*STDOUT;
        exec $self->command or POSIX::_exit(127);
    }
    waitpid $pid, 0;
    die "nginx does not start: ", slurp("$self->{root}/logs/start"), $self->log if $?;

    wait_for(sub { $self->pid && $self->{single} || $self->workers == $self->{workers} })
        or die "nginx does not come up: ", $self->log;
    $self->{seen}{ $self->pid } = 1;
    return $self;
}

sub pid {
    my ($self) = @_;
    my ($pid) = slurp("$self->{root}/logs/nginx.pid") =~ /^(\d+)$/m or return 0;
    return $pid if $self->{seen}{$pid};
    return 0 if slurp("/proc/$pid/cmdline") !~ /nginx/;
    $self->{seen}{$pid} = 1;
    return $pid;
}

# The ids of the workers that serve: not of those that are shutting down.
sub workers {
    my ($self, $master) = @_;
    my @children = children_of($master // $self->pid);
    return grep { slurp("/proc/$_/cmdline") =~ /^nginx: worker process(?! is)/ } @children
        if !$ENV{TEST_NGINX_USE_VALGRIND};

    # The titles of processes are valgrind's.
    my $log = $self->log;
    my %serves = map { $_ => 1 } $log =~ / start worker process (\d+)$/mg;
    delete @serves{ $log =~ / (\d+)#\d+: (?:gracefully shutting down|exiting)$/mg };
    return grep { $serves{$_} } @children;
}

sub signal {
    my ($self, $signal, $pid) = @_;
    $pid //= $self->pid;
    kill $signal => $pid or die "kill $signal $pid: $!\n";
    return;
}

# Reloads, and waits until new workers serve and the old ones are gone.
sub reload {
    my ($self) = @_;
    my %old = map { $_ => 1 } children_of($self->pid);
    $self->signal('HUP');
    return wait_for(sub {
        $self->workers == $self->{workers} && !grep { $old{$_} } children_of($self->pid);
    });
}

sub log {
    my ($self, $from) = @_;
    return substr slurp("$self->{root}/logs/error.log"), $from // 0;
}

sub log_size { my ($self) = @_; return -s "$self->{root}/logs/error.log" // 0 }

# The log has a line like this behind that place, soon.
sub logged {
    my ($self, $pattern, $from) = @_;
    return wait_for(sub { $self->log($from) =~ $pattern });
}

# Stops nginx by the ids of its processes, first politely. False if that was not enough.
sub stop {
    my ($self) = @_;
    my @masters = grep { is_alive($_) && slurp("/proc/$_/cmdline") =~ /nginx/ } keys %{ $self->{seen} };
    my @workers = map { children_of($_) } @masters;

    my $last;
    for my $signal (qw(TERM KILL)) {
        $last = $signal;
        kill $signal => grep { is_alive($_) } @masters;
        last if wait_for(sub { !grep { is_alive($_) } @masters, @workers });
        kill $signal => grep { is_alive($_) } @workers;
    }
    $self->{seen} = {};
    return $last eq 'TERM';
}

# ---- a client

sub connect {
    my ($self, $port) = @_;
    return IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port // $self->{port}, Timeout => $patience,
        Proto => 'tcp');
}

# Reads until the pattern matches what has come in so far, the other side closes, or the time is up.
sub read_until {
    my ($socket, $pattern, $seconds) = @_;
    my $deadline = time + ($seconds // $patience);
    my $text = '';
    my $select = IO::Select->new($socket);
    while ($text !~ $pattern) {
        my $left = $deadline - time;
        last if $left <= 0;
        next if !$select->can_read($left);
        sysread $socket, $text, 65536, length $text or last;
    }
    return $text;
}

# Sends text, and reads one answer to it from a connection that may be kept.
sub exchange {
    my ($socket, $request, $seconds) = @_;
    syswrite $socket, $request if length $request;

    my $text = read_until($socket, qr/\r\n\r\n/, $seconds);
    my ($head, $body) = $text =~ /\A(.*?\r\n)\r\n(.*)\z/s or return { status => 0, headers => $text, body => '' };
    my ($status) = $head =~ m{\AHTTP/\d\.\d (\d+)};

    if (my ($length) = $head =~ /^Content-Length: (\d+)/mi) {
        while ($request !~ /\AHEAD/ && length $body < $length) {
            my $more = read_until($socket, qr/./s, $seconds);
            last if !length $more;
            $body .= $more;
        }
    }
    return { status => $status, headers => $head, body => $body };
}

# One request on a connection of its own.
sub get {
    my ($self, $path, @headers) = @_;
    my $socket = $self->connect or return { status => 0, headers => '', body => '' };
    return exchange($socket, join "\r\n", "GET $path HTTP/1.1", 'Host: localhost', 'Connection: close', @headers, '', '');
}

sub status { my ($self, @request) = @_; return $self->get(@request)->{status} }

END {
    if ($$ == $owner) {
        local $?;
        $_->stop for @servers;
    }
}

1;
