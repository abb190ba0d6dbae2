package Test::Nginx::Socket::Valgrind;

# nginx under valgrind, where TEST_NGINX_USE_VALGRIND is set. As with the real
# Test::Nginx, a number stands for the usual options, anything else is options,
# and ./valgrind.suppress names what is to be ignored. Unlike there, a test
# program fails if valgrind reports anything of an nginx that it has started.

use strict;
use warnings;

use Exporter qw(import);
use File::Temp qw(tempdir);
use Test::Nginx::Socket::Util qw(slurp);

our @EXPORT_OK = qw(under_valgrind);

my $options = $ENV{TEST_NGINX_USE_VALGRIND};
my $owner   = $$;
my $reports = $options ? tempdir('valgrind-XXXXXX', TMPDIR => 1, CLEANUP => 1) : undef;
chmod 01777, $reports if $reports;    # workers may have another user

# The words of a command, with valgrind before them if it is asked for.
sub under_valgrind {
    my (@command) = @_;
    return @command if !$options;
    my @given = $options !~ /^\d+$/ ? split ' ', $options
        : qw(--tool=memcheck --leak-check=full --show-possibly-lost=no
             --errors-for-leak-kinds=definite --num-callers=100 --gen-suppressions=all);
    push @given, '--suppressions=valgrind.suppress' if -f 'valgrind.suppress';
    return ('valgrind', '-q', "--log-file=$reports/%p", @given, @command);
}

# Runs after what stops nginx: the END of a module that is loaded later.
END {
    if ($reports && $$ == $owner) {
        my $status = $?;
        for my $path (sort glob "$reports/*") {
            my $report = slurp($path) // '';
            next if $report eq '';
            print STDERR "valgrind reports:\n$report";
            $status ||= 1;
        }
        $? = $status;
    }
}

1;
