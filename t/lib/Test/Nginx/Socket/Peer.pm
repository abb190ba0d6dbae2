package Test::Nginx::Socket::Peer;

# The server of the tcp_* sections: a process that takes one connection, reads,
# replies and is gone.

use strict;
use warnings;

use IO::Socket::INET;
use IO::Socket::UNIX;
use POSIX ();
use Test::More ();
use Test::Nginx::Socket::Util qw(expand_env verbose wait_until);

sub start {
    my ($class, $run) = @_;
    my ($block, $name) = @$run{qw(block name)};
    die "$name - tcp_listen needs tcp_reply\n" if !defined $block->tcp_reply;

    my $query = $block->tcp_query;
    my $self = bless {
        run    => $run,
        wanted => $block->tcp_query_len // (defined $query ? length $query : 0),
    }, $class;
    $self->_listen(expand_env($block->tcp_listen, $name, $run->{ports}));
    # Both processes have this file open: the child writes down what it reads.
    open $self->{seen}, '+>', undef or die "no temporary file: $!\n";

    $self->{pid} = fork // die "cannot fork: $!\n";
    return $self if $self->{pid};

    # None of the parent's clean-up may happen in here.
    $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP);
    $SIG{PIPE} = 'IGNORE';
    my $served = eval { $self->_serve; 1 };
    warn "$name - tcp server: $@" if !$served;
    POSIX::_exit($served ? 0 : 1);
}

sub _listen {
    my ($self, $target) = @_;
    my $name = $self->{run}{name};
    if ($target =~ /^\d+$/) {
        wait_until(5, sub { $self->{listener} = IO::Socket::INET->new(
            LocalAddr => '127.0.0.1', LocalPort => $target, Listen => 5,
            ReuseAddr => 1) });
    }
    elsif ($target =~ /^\S+\.sock$/) {
        unlink $target;
        $self->{path} = $target;
        $self->{listener} = IO::Socket::UNIX->new(Local => $target, Listen => 5);
    }
    else {
        die "$name - tcp_listen is neither a port nor a path to a .sock\n";
    }
    $self->{listener} or die "$name - cannot listen on $target: $!\n";
    return;
}

sub _serve {
    my ($self) = @_;
    my $block = $self->{run}{block};
    my $client = $self->{listener}->accept or die "accept: $!\n";

    my $query = '';
    do {
        sysread $client, $query, 65536, length $query or $self->{wanted} = 0;
        sysseek $self->{seen}, 0, 0;
        syswrite $self->{seen}, $query;
    } while (length $query < $self->{wanted});
    verbose("tcp query:\n$query");

    my $reply = $block->tcp_reply;
    $reply = $reply->($query) if ref $reply eq 'CODE';
    for my $part (ref $reply eq 'ARRAY' ? @$reply : $reply) {
        $client->send($part) // die "cannot send the reply: $!\n";
    }
    return;
}

# Ends the server and checks what it was asked.
sub finish {
    my ($self) = @_;
    my ($block, $name) = @{ $self->{run} }{qw(block name)};
    wait_until(0.5, sub { -s $self->{seen} >= $self->{wanted} });
    $self->stop;

    sysseek $self->{seen}, 0, 0;
    sysread $self->{seen}, my $query, -s $self->{seen};
    $self->{run}{is_str}->($query // '', $block->tcp_query, "$name - tcp_query ok")
        if defined $block->tcp_query;
    Test::More::is(length($query // ''), $block->tcp_query_len,
        "$name - tcp_query_len ok") if defined $block->tcp_query_len;
    return;
}

sub stop {
    my ($self) = @_;
    my $pid = delete $self->{pid} or return;
    kill KILL => $pid;
    waitpid $pid, 0;
    close $self->{listener};
    unlink $self->{path} if defined $self->{path};
    return;
}

1;
