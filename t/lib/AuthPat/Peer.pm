package AuthPat::Peer;

# A program that runs beside the test, and is talked to by lines: AuthPat::Peer->new($program, @arguments). It is stopped
# by its id when it is no longer wanted, or when the test program ends.

use strict;
use warnings;

use AuthPat;
use AuthPat::Server qw(is_alive slurp wait_for);
use IO::Select;
use POSIX ();
use Time::HiRes qw(time);

my $owner = $$;
my %running;
my $count = 0;

sub new {
    my ($class, @command) = @_;
    my $self = bless { log => scratch() . '/peer.' . ++$count, buffer => '' }, $class;

    pipe my $child_in, my $to   or die "pipe: $!\n";
    pipe my $from, my $child_out or die "pipe: $!\n";
    $self->{pid} = fork // die "fork: $!\n";
    if ($self->{pid} == 0) {
        open STDIN,  '<&', $child_in;
        open STDOUT, '>&', $child_out;
        open STDERR, '>',  $self->{log};
        close $_ for $to, $from;
        exec @command or POSIX::_exit(127);
    }
    $running{ $self->{pid} } = 1;
    $to->autoflush(1);
    @$self{qw(to from)} = ($to, $from);
    return $self;
}

# The next line that it prints, without its end; undef where none comes in that time, or it has ended.
sub line {
    my ($self) = @_;
    my $deadline = time + 60;    # for a test that fails
    my $select   = IO::Select->new($self->{from});
    while (1) {
        return $1 if $self->{buffer} =~ s/\A(.*)\n//;
        my $left = $deadline - time;
        return if $left <= 0;
        next   if !$select->can_read($left);
        sysread $self->{from}, $self->{buffer}, 65536, length $self->{buffer} or return;
    }
}

# Forgets the lines that it has printed so far.
sub drain {
    my ($self) = @_;
    my $select = IO::Select->new($self->{from});
    while ($select->can_read(0)) {
        sysread $self->{from}, $self->{buffer}, 65536, length $self->{buffer} or last;
    }
    $self->{buffer} =~ s/\A.*\n//s;
    return;
}

sub tell {
    my ($self, $line) = @_;
    return print { $self->{to} } "$line\n";
}

sub errors { my ($self) = @_; return slurp($self->{log}) }

sub stop {
    my ($self) = @_;
    end($self->{pid});
    return;
}

sub end {
    my ($pid) = @_;
    return if !delete $running{$pid};
    for my $signal (qw(TERM KILL)) {
        kill $signal => $pid;
        return if wait_for(sub { waitpid($pid, POSIX::WNOHANG()) != 0 }, 3);
    }
    return;
}

sub DESTROY {
    my ($self) = @_;
    local ($?, $!);
    end($self->{pid}) if $$ == $owner;
    return;
}

END {
    if ($$ == $owner) {
        local $?;
        end($_) for keys %running;
    }
}

1;
