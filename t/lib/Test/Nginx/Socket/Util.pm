package Test::Nginx::Socket::Util;

# What the other modules share: waiting, claiming ports and folders, expanding
# $TEST_NGINX_* variables. Reads /proc, so Linux only.

use strict;
use warnings;

use Digest::MD5 qw(md5_hex);
use Exporter qw(import);
use IO::Socket::INET;
use IO::Socket::UNIX;
use Time::HiRes qw(sleep time);

our @EXPORT_OK = qw(claim expand_env free_port indexed parse_time slurp verbose
    wait_until);

sub verbose { warn @_, "\n" if $ENV{TEST_NGINX_VERBOSE}; return }

# Polls a condition. True as soon as it holds, false once the time is over,
# which valgrind makes longer.
sub wait_until {
    my ($seconds, $condition) = @_;
    my $deadline = time + $seconds * ($ENV{TEST_NGINX_USE_VALGRIND} ? 20 : 1);
    until ($condition->()) {
        return 0 if time > $deadline;
        sleep 0.005;
    }
    return 1;
}

# "1.5", "2s" and "50ms", in seconds.
sub parse_time {
    my ($text) = @_;
    return $text if !defined $text;
    return $1 / 1000 if $text =~ /^\s*([\d.]+)ms\s*$/;
    $text =~ s/s\s*$//;
    return $text;
}

sub slurp {
    my ($path) = @_;
    open my $in, '<:raw', $path or return undef;
    local $/;
    return scalar <$in>;
}

# A claim keeps other runs away from a port or a folder for as long as this
# process lives. It is a socket in Linux' abstract name space: nothing on disk
# to clean up, and the kernel drops it however the process ends.
my @claims;

sub claim {
    my ($what) = @_;
    my $name = "\0test-nginx:" . md5_hex($what);
    my $socket = IO::Socket::UNIX->new(Local => $name, Listen => 1) or return 0;
    push @claims, $socket;
    return 1;
}

# A port no other run has claimed and nothing listens on. Taken from below
# Linux' ephemeral range, so that no outgoing connection gets it either.
sub free_port {
    for (1 .. 1000) {
        my $port = 10_000 + int rand 22_000;
        next if !claim("port $port");
        my $probe = IO::Socket::INET->new(
            LocalPort => $port, Listen => 1, ReuseAddr => 1);
        return $port if $probe;
    }
    die "found no free port\n";
}

# Expands $TEST_NGINX_*. $ports remembers what the RAND_PORT ones of a block
# stand for. A reference (qr, array, code) comes back untouched.
sub expand_env {
    my ($text, $name, $ports) = @_;
    return $text if !defined $text || ref $text;

    my $value_of = sub {
        my ($variable) = @_;
        return $ports->{$variable} //= free_port()
            if $variable =~ /^TEST_NGINX_RAND_PORT_[0-9]+$/;
        return $ENV{$variable}
            // die "$name - \$$variable is used but not in the environment\n";
    };
    $text =~ s/\$(TEST_NGINX_[_A-Z0-9]+)/$value_of->($1)/ge;
    return $text;
}

# The part of an expectation that is about the current response.
sub indexed {
    my ($run, $value) = @_;
    return $value->[$run->{index}] if ref $value eq 'ARRAY';
    die "$run->{name} - has several requests, so what is expected of the "
        . "responses must be arrays too\n" if $run->{several};
    return $value;
}

1;
