package AuthPat::Site;

# An nginx that runs with this repository's conf.d, as on Debian: what an operator gets who copies the folder to
# /etc/nginx, and recipes into it.
#
#     use AuthPat;
#     use AuthPat::Site qw(bearer header make_store);
#
#     my $site = AuthPat::Site->new(recipes => ['rate-limits']);
#     my $upstream = AuthPat::Upstream->new(port => $site->port(8080));
#     my $store = make_store('api');
#     $site->start;
#     my $answer = $site->request('https://limits.referon.com/', bearer(issue($store, …)));
#
# What can't be there on a test machine is replaced in the copy: ports of this host (port(N) says by which), folders
# and files of the system, and times that would be waited for. Everything else is what the file says.

use strict;
use warnings;

use AuthPat;
use AuthPat::Server qw(free_port make_certificate slurp);
use Exporter qw(import);
use File::Find qw(find);

our @ISA       = ('AuthPat::Server');
our @EXPORT_OK = qw(bearer header all_headers make_store recipes);

umask 022;    # nginx's workers are not root

# The names of all recipes.
sub recipes {
    return map { s{.*/(.*)\.conf}{$1}r } sort glob "$AuthPat::ROOT/conf.d/recipes/*.conf";
}

# A store that nginx's workers can open. Its name is the last part of the path in conf.d.
sub make_store {
    my ($name, @arguments) = @_;
    return new_store($name, $> == 0 ? ('--owner', 'nobody', '--group', 'www-data') : (), @arguments);
}

# recipes: names of those to be copied. without: files of conf.d to be left out. http: configuration that is read before
# conf.d. listen: the address where nginx listens for what is for all addresses. change: further text to be replaced.
# keeps_count: no bucket of limit_req loses a request while a test runs, so that its limit is reached by the same request
# on a machine of any speed. http2: false leaves HTTP/2 off, as it is in conf.d.
sub new {
    my ($class, %self) = @_;
    return $class->SUPER::new(user => $> == 0 ? 'www-data' : '', recipes => [], without => [], listen => '127.0.0.1',
        http2 => 1, ports => {}, change => {}, %self);
}

# The port that is used for this one.
sub port {
    my ($self, $number) = @_;
    return $self->{ports}{$number} //= free_port();
}

my $certificates;

sub certificates {
    return $certificates if $certificates;
    my $folder = scratch() . '/certificates';
    mkdir $folder or die "$folder: $!\n";
    make_certificate($folder, 'api.referon.com', '-addext', 'subjectAltName=DNS:*.referon.com');
    return $certificates = $folder;
}

sub adapt {
    my ($self, $text) = @_;
    my $root = $self->{root};
    my $replace = sub {
        my ($what, $pattern, $with) = @_;
        $self->{replaced}{$what} += $text =~ s/$pattern/$with->()/ge;
    };

    # HTTP/2 is switched on as the comment there says.
    $replace->('HTTP/2', AuthPat::has_http2_directive() ? (qr/^ *\K# (?=http2 on;)/m, sub { '' })
        : (qr/^ *listen (?:\[::\]:)?\d+ ssl\K/m, sub { ' http2' })) if $self->{http2};
    $replace->('IPv6 port',   qr/^ *listen \[::\].*?;\n/m,            sub { '' });
    $replace->('local port',  qr/\b127\.0\.0\.1:(\d+)/,               sub { '127.0.0.1:' . $self->port($1) });
    $replace->('port',        qr/\blisten (\d+)(?=[ ;])/,              sub { "listen $self->{listen}:" . $self->port($1) });
    $replace->('certificate', qr{/etc/nginx/tls\b},                   sub { certificates() });
    $replace->('store',       qr{/var/lib/pat/(\w+)},                 sub { store_path($1) });
    $replace->('webroot',     qr{/var/www/html\b},                    sub { "$root/html" });
    $replace->('log',         qr{/var/log/nginx\b},                   sub { "$root/logs" });
    $replace->('cache',       qr{/var/cache\b},                       sub { "$root/cache" });
    $replace->('socket',      qr{unix:/run\b},                        sub { "unix:$root/run" });
    $replace->('pepper',      qr{/etc/nginx/pepper},                  sub { "$root/pepper" });
    $replace->('interval',    qr/\bauth_pat_recheck \d+s;/,           sub { 'auth_pat_recheck 300ms;' });
    $replace->('rate',        qr{\brate=\K\d+r/[sm]\b},            sub { '1r/m' }) if $self->{keeps_count};
    for my $what (sort keys %{ $self->{change} }) {
        $replace->($what, qr/\Q$what\E/, sub { $self->{change}{$what} });
    }
    return $text;
}

sub configure {
    my ($self, %changes) = @_;
    @$self{ keys %changes } = values %changes;

    my $root = $self->{root};
    for my $folder (map { "$root/$_" } 'cache', 'run', 'conf/conf.d') {
        -d $folder or mkdir $folder or die "$folder: $!\n";
    }

    # What is in conf.d but for recipes/, and then the recipes that are wanted.
    my $from = "$AuthPat::ROOT/conf.d";
    my %without = map { ("$_.conf" => 1) } @{ $self->{without} };
    my %files;
    find({ no_chdir => 1, wanted => sub {
        my $name = $File::Find::name =~ s{^\Q$from\E/?}{}r;
        $files{$name} = $File::Find::name if -f && $name =~ /\.conf$/ && $name !~ m{^recipes/} && !$without{$name};
    } }, $from);
    $files{"$_.conf"} = "$from/recipes/$_.conf" for @{ $self->{recipes} };

    $self->{files} = {};
    for my $name (sort keys %files) {
        if ($name =~ m{^(.*)/}) {
            -d "$root/conf/conf.d/$1" or mkdir "$root/conf/conf.d/$1" or die "$1: $!\n";
        }
        -f $files{$name} or die "there is no $files{$name}\n";
        write_file("$root/conf/conf.d/$name", $self->adapt(slurp($files{$name})));
        $self->{files}{$name} = 1;
    }

    # As Debian's, as far as it matters here.
    for my $protocol (qw(fastcgi uwsgi scgi)) {
        write_file("$root/conf/${protocol}_params", join '', map { "${protocol}_param $_;\n" } 'QUERY_STRING $query_string',
            'REQUEST_METHOD $request_method', 'REQUEST_URI $request_uri', 'REMOTE_ADDR $remote_addr', 'HTTP_HOST $host',
            $protocol eq 'fastcgi' ? 'REMOTE_USER $remote_user' : ());
    }
    my $types = -e '/etc/nginx/mime.types' ? 'include /etc/nginx/mime.types;' : '';
    local $self->{access_log} = "$root/logs/access.log";
    local $self->{http} = join "\n", $types, 'default_type application/octet-stream;', $self->{http},
        "include $root/conf/conf.d/*.conf;";
    return $self->SUPER::configure;
}

# nginx -T: its exit status, the names of the files under conf.d that it read, and what it said.
sub dump {
    my ($self) = @_;
    my $said = "$self->{root}/logs/dump";
    my @command = map { quotemeta } $self->command('-T');
    my $text = `@command 2>$said`;
    my $status = $? >> 8;
    my %loaded = map { ($_ => 1) } $text =~ m{^# configuration file \Q$self->{root}\E/conf/conf\.d/(\S+):$}mg;
    return ($status, \%loaded, slurp($said));
}

sub access_log {
    my ($self, $name) = @_;
    return slurp("$self->{root}/logs/$name.access.log");
}

# Runs curl. {status, head, body}, and what curl knows: uploaded bytes, the version of HTTP. A URL with a range makes
# several requests: `all` has the status of each, the rest is about the last one.
my $count = 0;

sub request {
    my ($self, $url, @options) = @_;
    my ($head, $body) = map { scratch() . "/curl.$$." . $count++ . ".$_" } qw(head body);

    my ($scheme, $host, $port) = $url =~ m{^(https?)://([^/:]+)(?::(\d+))?};
    $port //= $scheme eq 'https' ? 443 : 80;
    my $to = "$host:$port:127.0.0.1:" . $self->port($port);
    my @command = ('curl', '-q', '-sk', '--max-time', 120, '--noproxy', '*', '--connect-to', $to, '-D', $head, '-o', $body,
        '-w', '%{http_code} %{size_upload} %{http_version}\n', @options, $url);

    open my $curl, '-|', @command or die "curl: $!\n";
    my $all = do { local $/; <$curl> } // '';
    close $curl;
    my ($status, $uploaded, $version) = split ' ', (split /\n/, $all)[-1];

    my %answer = (status => $status, uploaded => $uploaded, version => $version, all => $all, head => slurp($head) =~ s/\r//gr,
        body => slurp($body));
    unlink $head, $body;
    return \%answer;
}

# The values of a header in the last answer.
sub all_headers {
    my ($answer, $name) = @_;
    my ($last) = $answer->{head} =~ /(HTTP(?:(?!^HTTP).)*)\z/ms;
    return ($last // '') =~ /^\Q$name\E: *(.*)$/mig;
}

sub header { return join ' | ', all_headers(@_) }

sub bearer {
    my ($token) = @_;
    return ('-H', "Authorization: Bearer $token");
}

1;
