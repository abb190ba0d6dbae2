# docs/runbook.md has each line that the module logs, and each that patctl prints if something is wrong.
#
# What a line says is taken from the sources, with "…" for what is filled in, and must stand in the runbook as `code`. Of
# a line that patctl puts together in several ways, it is enough that the parts of three words and more are there.

use strict;
use warnings;
use utf8;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Find qw(find);
use Test::More;

my $root = dirname(dirname(abs_path(__FILE__)));
binmode $_, ':encoding(UTF-8)' for map { Test::More->builder->$_ } qw(output failure_output todo_output);

my $runbook = slurp("$root/docs/runbook.md");
my %line = map { s/\\\|/|/gr => 1 } $runbook =~ /`([^`\n]+)`/g;

my $string    = qr/"(?:[^"\\]|\\.)*"/;
my $character = qr/'(?:[^'\\]|\\.)'/;
my $inner     = qr/((?:[^(){}"']|$string|$character|[({](?-1)[)}])*)/;    # of brackets

# The module. What it logs begins with the first string, or with a name that nginx has for a system call.
my %name_of = (ngx_open_file_n => '"open()"', ngx_read_fd_n => '"read()"');
my @calls   = calls('ngx_log_error|ngx_conf_log_error', sources('nginx'));
cmp_ok(scalar @calls, '>', 30, 'the module logs');
for my $call (@calls) {
    my $arguments = $call->{arguments} =~ s/\b(ngx_\w+_n)\b(?=\s*")/$name_of{$1}/r;
    my ($format) = $arguments =~ /($string(?:\s*$string)*)/ or next;
    has_line($call, text_of($format) =~ s/%(?:ui|uz|[VsTM])/…/gr =~ s/…+/…/gr);
}

# What is filled in there: faults of a store, what is wrong with a record, why a token is refused.
my %texts_of;
for my $path (sources('core', 'store', 'nginx')) {
    my $file = substr $path, length "$root/";
    my ($part) = $file =~ m{^src/(\w+)/};
    for my $function (slurp($path) =~ /^\S.*\b(?:message|reason)\([^)]*\) noexcept\n\{\n(.*?)^\}/msg) {
        for my $text (map { text_of($_) } $function =~ /\breturn ((?:\s*$string)+);/g) {
            $texts_of{$part}++;
            has_line({ file => $file }, $text) if $text !~ /^(?:|no fault|no error|unknown fault|unknown error)$/;
        }
    }
}
cmp_ok($texts_of{$_} // 0, '>', 5, "src/$_ has texts") for qw(core store nginx);

# patctl.
@calls = calls('notice|warning|error|failure|bad_value|bad_text|stray_row|reject|(?:found|findings)\.add', sources('cli'));
cmp_ok(scalar @calls, '>', 90, 'patctl complains');
my @errors = map { /\breturn (.+?);/gs }
    slurp("$root/src/cli/pat_command_line.cpp") =~ /^std::string (?:usage_error|unknown_command)\(.*?\n\{\n(.*?)^\}/msg;
cmp_ok(scalar @errors, '>', 4, 'patctl complains of its arguments');
push @calls, map { { file => 'src/cli/pat_command_line.cpp', arguments => $_ } } @errors;
for my $call (@calls) {
    my $text = text_of($call->{arguments} =~ s/^\s*(?:exit_status::\w+|\{\}|merging_line_),//r);
    next if $text !~ /\w/;
    $text = "warning: $text" if ($call->{function} // '') eq 'warning';

    my @parts = grep { (() = /[\w-]+/g) >= 3 } split /…/, $text;
    if ($line{$text} || !@parts) {
        has_line($call, $text);
    } else {
        my @lacking = grep { my $part = $_; !grep { index($_, $part) >= 0 } keys %line } @parts;
        is("@lacking", '', "$call->{file}: $text");
    }
}

done_testing();

sub has_line {
    my ($call, $text) = @_;
    return ok($line{$text}, "$call->{file}: $text");
}

# The files of these folders of src, and of those below.
sub sources {
    my @files;
    find({ no_chdir => 1, wanted => sub { push @files, $_ if /\.cpp$/ } }, map { "$root/src/$_" } @_);
    return sort @files;
}

# The calls of these functions.
sub calls {
    my ($functions, @files) = @_;
    my @calls;
    for my $path (@files) {
        my $source = slurp($path) =~ s{^\s*//.*$}{}mgr;
        my $file   = substr $path, length("$root/");
        while ($source =~ /\b($functions)\s*[({]$inner[)}]/g) {
            push @calls, { file => $file, function => $1, arguments => $2 };
        }
    }
    return @calls;
}

# What an expression of strings says, with "…" for all that is not one.
sub text_of {
    my ($expression) = @_;
    my $text = '';
    $expression =~ s/fmt::format\(\s*((?:$string\s*)+)$inner\)/$1 =~ s{\{.*?\}}{…}gr/ge;
    while ($expression =~ /\G(?:($string|$character)|((?:(?!$string|$character).)+))/gs) {
        my ($constant, $other) = ($1, $2);
        $text .= defined $constant ? substr($constant, 1, -1) =~ s/\\(.)/$1/gr
            : $other =~ s/std::string//gr =~ /[\w:]/ ? '…' : '';
    }
    return $text =~ s/…+/…/gr =~ s/^(?:…(?=\w)|\s)+|\s+$//gr;
}

sub slurp {
    my ($path) = @_;
    open my $file, '<:encoding(UTF-8)', $path or die "$path: $!\n";
    local $/;
    return <$file>;
}
