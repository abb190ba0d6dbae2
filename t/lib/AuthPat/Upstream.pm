package AuthPat::Upstream;

# An HTTP server in place of the one behind nginx: it answers with what it was sent, and remembers it.
#
#     my $upstream = AuthPat::Upstream->new(port => $port);
#     my $upstream = AuthPat::Upstream->new(port => $port, answer => sub {
#         my ($head, $body_size, $self) = @_;
#         return ('404 Not Found', "Content-Type: text/plain\r\n", "nothing\n");
#     });
#     $upstream->requests;     # the heads of all requests so far
#
# arrived => sub { my ($path, $size) = @_; … } is called with the size of a body while it arrives. The code runs in
# processes of its own. They are stopped by their ids when the test program ends.

use strict;
use warnings;

use AuthPat;
use AuthPat::Server qw(slurp);
use Fcntl qw(:flock);
use IO::Socket::INET;
use POSIX ();

my $owner = $$;
my @upstreams;

sub new {
    my ($class, %self) = @_;
    my $self = bless { answer => \&echo, arrived => sub { }, %self }, $class;
    $self->{log} = scratch() . "/upstream.$self->{port}.log";

    my $listener = IO::Socket::INET->new(Listen => 64, LocalAddr => '127.0.0.1', LocalPort => $self->{port},
        ReuseAddr => 1) or die "port $self->{port}: $!\n";
    $self->{pid} = fork // die "fork: $!\n";
    $self->run($listener) if $self->{pid} == 0;
    push @upstreams, $self;
    return $self;
}

# Sends the request's head back.
sub echo {
    my ($head, $size) = @_;
    return ('200 OK', "Content-Type: text/plain\r\n", "$head\nbody: $size bytes\n");
}

sub run {
    my ($self, $listener) = @_;
    $SIG{CHLD} = 'IGNORE';
    $SIG{TERM} = 'DEFAULT';    # a handler in Perl would wait for accept() to return
    while (1) {
        my $client = $listener->accept or next;
        my $pid = fork // next;
        if ($pid == 0) {
            eval { $self->serve($client) };
            close $client;
            POSIX::_exit(0);
        }
        close $client;
    }
}

sub serve {
    my ($self, $client) = @_;
    my ($head, $size) = ('', 0);

    while (defined(my $line = <$client>)) {
        last if $line =~ /^\r?\n$/;
        $head .= $line =~ s/\r//r;
    }
    my ($path) = $head =~ m{^\S+ (/[\w./-]*)};

    open my $log, '>>', $self->{log} or die "$self->{log}: $!\n";
    flock $log, LOCK_EX;
    print {$log} "$head\n";
    close $log;

    my $take = sub {
        my ($left) = @_;
        while ($left > 0) {
            my $got = read $client, my $bytes, $left > 65536 ? 65536 : $left or die "the request ends early\n";
            $left -= $got;
            $size += $got;
            $self->{arrived}->($path, $size);
        }
    };
    if ($head =~ /^Content-Length: (\d+)/mi) {
        $take->($1);
    } elsif ($head =~ /^Transfer-Encoding: chunked/mi) {
        while (defined(my $line = <$client>)) {
            my $left = hex($line =~ s/\s+$//r) or last;
            $take->($left);
            <$client>;
        }
    }

    my ($status, $headers, $body) = $self->{answer}->($head, $size, $self);
    print {$client} "HTTP/1.1 $status\r\n${headers}Content-Length: ", length $body, "\r\nConnection: close\r\n\r\n",
        $head =~ /^HEAD/ ? '' : $body;
    return;
}

sub requests {
    my ($self) = @_;
    return split /\n\n/, slurp($self->{log});
}

sub stop {
    my ($self) = @_;
    my $pid = delete $self->{pid} or return;
    kill TERM => $pid;
    waitpid $pid, 0;
    return;
}

END {
    if ($$ == $owner) {
        local $?;
        $_->stop for @upstreams;
    }
}

1;
