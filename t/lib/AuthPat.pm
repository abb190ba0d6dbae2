package AuthPat;

# What the .t files of this project have in common: stores and tokens for a test, made with the real patctl, and a way
# to change a store between two requests of one test block.
#
#     use FindBin;
#     BEGIN { push @INC, "$FindBin::Bin/lib" }
#     use AuthPat;                    # before Test::Nginx::Socket, which reads the environment when it is loaded
#     use Test::Nginx::Socket;
#
#     our $store = new_store('main');                          # also $TEST_NGINX_STORE_MAIN in a config section
#     our $token = issue($store, '--subject', 'alice');
#     on_request(revoke => sub { patctl($store, 'revoke', '--subject', 'alice') });
#
#     location /revoke { proxy_pass http://unix:$TEST_NGINX_CONTROL; }    # GET /revoke runs that code
#
# `push @INC` rather than `use lib`: a real Test::Nginx must win over the runner in t/lib.
#
# The environment may say where things are: TEST_NGINX_BINARY and TEST_NGINX_LOAD_MODULES as for Test::Nginx, PATCTL.

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter qw(import);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use IO::Socket::UNIX;
use IPC::Open3 qw(open3);
use Symbol qw(gensym);

our @EXPORT = qw(new_store store_path issue import_each_kind patctl on_request write_file scratch);

our $ROOT   = dirname(dirname(dirname(abs_path(__FILE__))));
our $PATCTL = $ENV{PATCTL} // "$ROOT/build/patctl";
our $NGINX  = $ENV{TEST_NGINX_BINARY} // 'nginx';

# HTTP/2 is switched on by "listen … http2" up to 1.25.0, and by the directive http2 from then on.
sub has_http2_directive {
    my ($major, $minor, $patch) = `$NGINX -v 2>&1` =~ m{/(\d+)\.(\d+)\.(\d+)};
    return $major * 1e6 + $minor * 1e3 + $patch >= 1025001;
}

my $module = "$ROOT/build/ngx_http_auth_pat_module.so";

# The module may be part of the nginx that is tested: then its name is in the program.
my $is_static = system("grep -q ngx_http_auth_pat_module \"\$(command -v $NGINX)\"") == 0;

if (!defined $ENV{TEST_NGINX_LOAD_MODULES} && !$is_static) {
    -e $module or die "$module is missing: run make first\n";
    $ENV{TEST_NGINX_LOAD_MODULES} = $module;
}
-x $PATCTL or die "$PATCTL is missing: run make first\n";

# A write to a connection that nginx has closed fails, and does not end the test, whose servers would stay. A handler, as
# programs that a test starts would inherit IGNORE.
$SIG{PIPE} = sub { };

# In seconds, for an answer on a machine that has other work. None of the tests waits so long where all is right.
$ENV{TEST_NGINX_TIMEOUT} //= 60;

my $owner   = $$;
my $scratch = tempdir('auth-pat-XXXXXX', TMPDIR => 1, CLEANUP => 1);
chmod 0755, $scratch or die "chmod $scratch: $!\n";

my $control = "$scratch/control.sock";
my %actions;
my $control_pid;

$ENV{TEST_NGINX_CONTROL} = $control;
$ENV{TEST_NGINX_SCRATCH} = $scratch;

# A folder that lasts as long as the test program; $TEST_NGINX_SCRATCH in a config section.
sub scratch { return $scratch }

# Where the store of this name is, or would be; $TEST_NGINX_STORE_NAME in a config section.
sub store_path {
    my ($name) = @_;
    my $path = "$scratch/$name";
    $ENV{"TEST_NGINX_STORE_\U$name"} = $path;
    return $path;
}

# Makes an empty store, of this user unless another is named, and returns its path. Further arguments go to patctl.
sub new_store {
    my ($name, @arguments) = @_;
    my $path = store_path($name);
    patctl($path, 'init', @arguments, (grep { $_ eq '--owner' } @arguments) ? () : ('--owner', $>));
    return $path;
}

# Issues a token and returns it. The arguments go to patctl.
sub issue {
    my ($store, @arguments) = @_;
    my $token = patctl($store, 'issue', @arguments);
    chomp $token;
    return $token;
}

# Imports a token that is good, alice's, and one for each reason to refuse one that the store holds; and more, by name and
# further fields as JSON. Returns the tokens by name; the id of one is "id-" and its name.
sub import_each_kind {
    my ($store, %more) = @_;
    my %fields = (
        alice   => '"subject":"alice","name":"of alice","scopes":["read"],"claims":{"plan":"pro"}',
        expired => '"subject":"expired","expires_at":1600000000',
        revoked => '"subject":"revoked","revoked_at":1600000000',
        early   => '"subject":"early","not_before":4000000000',
        remote  => '"subject":"remote","cidrs":["192.0.2.0/24"]',
        %more,
    );
    my %token = map { $_ => "the-token-of-$_-00001" } keys %fields;
    patctl($store, \join('', map { qq({"token":"$token{$_}","id":"id-$_",$fields{$_}}\n) } sort keys %fields),
        'import', '--plaintext', '--strict', '-');
    return %token;
}

# Runs patctl on a store and returns what it prints; dies where it fails. A first argument that is a reference to a
# string goes to its standard input.
sub patctl {
    my ($store, @arguments) = @_;
    my $input = ref $arguments[0] ? ${ shift @arguments } : '';

    my $pid = open3(my $in, my $out, my $err = gensym, $PATCTL, '--store', $store, @arguments);
    print {$in} $input;
    close $in;
    my $output = do { local $/; <$out> };
    my $errors = do { local $/; <$err> };
    waitpid $pid, 0;
    die "patctl @arguments: exit status ", $? >> 8, ": $errors" if $?;
    return $output // '';
}

sub write_file {
    my ($path, $contents) = @_;
    open my $file, '>:raw', $path or die "$path: $!\n";
    print {$file} $contents;
    close $file or die "$path: $!\n";
    return $path;
}

# Runs code for each request to /NAME on the control socket. What it returns is the body of the answer; where it dies
# the answer is 500. The code gets the arguments of the request's query, as a hash. To be called before run_tests(); the
# code runs in a process of its own.
sub on_request {
    my ($name, $code) = @_;
    $actions{$name} = $code;

    if ($control_pid) {
        stop_control();
    }
    my $listener = IO::Socket::UNIX->new(Local => $control, Listen => 16) or die "$control: $!\n";
    chmod 0777, $control;

    $control_pid = fork // die "fork: $!\n";
    if ($control_pid == 0) {
        serve($listener);
    }
    return;
}

sub serve {
    my ($listener) = @_;
    $SIG{$_} = 'DEFAULT' for qw(TERM INT);    # a handler in Perl would wait for accept() to return

    while (my $client = $listener->accept) {
        my $request = <$client> // next;
        while (defined(my $header = <$client>)) {
            last if $header =~ /^\r?\n$/;
        }
        my ($name, $query) = $request =~ m{^\S+ /?([\w-]*)(?:\?(\S*))?};
        my %arguments = map { /^([^=]*)=?(.*)/ } split /&/, $query // '';
        my $body = eval { ($actions{$name} // die "no action \"$name\"\n")->(%arguments) };
        my $status = $@ ? '500 Internal Server Error' : '200 OK';
        $body = $@ || ($body // '');
        print {$client} "HTTP/1.0 $status\r\nContent-Length: ", length $body, "\r\nConnection: close\r\n\r\n$body";
        close $client;
    }
    require POSIX;
    POSIX::_exit(0);
}

sub stop_control {
    kill TERM => $control_pid;
    waitpid $control_pid, 0;
    unlink $control;
    $control_pid = undef;
    return;
}

END {
    if ($$ == $owner && $control_pid) {
        local $?;
        stop_control();
    }
}

1;
