# The examples of the documentation: nginx takes each ```nginx block, README.md's commands of patctl work, and
# docs/directives.md has the directives and variables that the module has. t/readme/run runs all commands of README.md.

use strict;
use warnings;

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;

use Encode qw(decode_utf8);
use File::Basename qw(dirname);
use List::Util qw(uniq);
use Test::More;

my $folder = scratch() . '/nginx';
mkdir $_ or die "$_: $!\n" for $folder, "$folder/temp";

write_file("$folder/pepper", '0123456789abcdef' x 4 . "\n");
chmod 0600, "$folder/pepper";

sub blocks {
    my ($file, $language) = @_;
    open my $handle, '<', "$AuthPat::ROOT/$file" or die "$file: $!\n";
    my (@blocks, $inside);
    while (defined(my $line = <$handle>)) {
        if ($line =~ /^```(\w*)$/) {
            $inside = $inside ? undef : { language => $1, line => $., text => '' };
            push @blocks, $inside if $inside;
        } elsif ($inside) {
            $inside->{text} .= $line;
        }
    }
    return grep { $_->{language} eq $language } @blocks;
}

# What stands around a part of a configuration, for each level that it may be of.
# Debian's default log file is for root only.
my $temp = "access_log $folder/access.log; " . join ' ', map { "${_}_temp_path $folder/temp/$_;" } qw(client_body proxy fastcgi uwsgi scgi);
my $base = "pid $folder/nginx.pid; error_log $folder/error.log;\n";
my $load = join '', map { "load_module $_;\n" } split ' ', $ENV{TEST_NGINX_LOAD_MODULES} // '';
my %around = (
    main   => sub { $base . $_[0] },
    http   => sub { "$base$load events {} http { $temp\n$_[0]\n}\n" },
    server => sub { "$base$load events {} http { $temp server { listen 8080;\n$_[0]\n} }\n" },
);

# A directive in none of these is at home in each of them.
sub level {
    my ($text) = @_;
    return 'main' if $text =~ /^http \{/m;
    return 'http' if $text =~ /^(?:server|map|upstream|limit_req_zone|log_format)\b/m;
    return 'server';
}

sub test_configuration {
    my ($name, $text) = @_;
    $text =~ s/^load_module .*\n/$load/m;
    $text =~ s/^http \{\n/http { $temp\n/m;
    $text =~ s{/var/lib/pat\b}{$folder/pat}g;
    $text =~ s{/etc/nginx/pepper}{$folder/pepper}g;
    $text =~ s{/var/log/nginx/}{$folder/}g;

    write_file("$folder/nginx.conf", $around{level($text)}->($text));
    my $output = `$AuthPat::NGINX -t -p $folder -c $folder/nginx.conf -e $folder/error.log 2>&1`;
    is($?, 0, "$name: nginx -t") or diag($output);
    unlike($output, qr/\[warn\]/, "$name: without a warning");
    return;
}

mkdir "$folder/pat" or die "$folder/pat: $!\n";
if ($> == 0) {
    my ($owner, $group) = (scalar getpwnam('nobody'), scalar getgrnam('www-data'));
    chown $owner, $group, "$folder/pat" or die "$folder/pat: $!\n";
}
$ENV{PATH} = dirname($AuthPat::PATCTL) . ":$ENV{PATH}";
my $group = getgrgid((split ' ', $))[0]);
my $commands = 0;
for my $block (blocks('README.md', 'sh')) {
    for my $command (grep { /\bpatctl / } split /\n/, $block->{text}) {
        $commands++;
        my $here = $command =~ s{/var/lib/pat\b}{$folder/pat}gr =~ s{^TOKEN=\$\((.*)\)$}{$1}r;
        if ($> == 0) {
            $here =~ s/--owner pat-sync/--owner nobody/;
        } else {
            $here =~ s/--owner pat-sync --group www-data/--group $group/;
        }

        my $output = `$here 2>&1`;
        is($?, 0, "README.md: $command") or diag($output);
        like($output, qr/^ropat_[0-9A-Za-z]{38}$/m, 'prints a token') if $command =~ / issue /;
    }
}
cmp_ok($commands, '>', 3, 'README.md has commands');

# What a source sends to patctl in the example, and what is answered, but for the number of the transaction.
my ($sent, $answered) = map { $_->{text} } blocks('docs/apply.md', 'jsonl');
my $owner = $> == 0 ? '--owner nobody' : "--group $group";
system("patctl init --store $folder/followed $owner 2>$folder/said") == 0 or die slurp("$folder/said");
write_file("$folder/sent.jsonl", $sent);
my $answers = `patctl apply --store $folder/followed < $folder/sent.jsonl 2>&1`;
is($?, 0, 'docs/apply.md: the example');
is($answers =~ s/("transaction"):\d+/$1:2/r, $answered, 'docs/apply.md: is answered like this');

my $apply    = join '', map { slurp($_) } glob "$AuthPat::ROOT/src/cli/apply/*.cpp";
my $protocol = slurp("$AuthPat::ROOT/docs/apply.md");
for my $kind (['op', sort $apply =~ /^ *\{"(\w+)", message_kind::/mg], ['answer', sort $apply =~ /\banswer\("(\w+)"/g]) {
    my ($what, @words) = @$kind;
    cmp_ok(scalar @words, '>', 5, "docs/apply.md: there are words for $what");
    my @described = map { /^\| `(\w+)` \|/mg } $protocol =~ /^\| `$what` \|(.*?)\n\n/msg;
    is_deeply([sort @described], [uniq(@words)], "docs/apply.md: describes each $what, and no other");
}

my %count;
for my $file (qw(README.md docs/directives.md docs/clients.md)) {
    for my $block (blocks($file, 'nginx')) {
        $count{$file}++;
        test_configuration("$file, line $block->{line}", $block->{text});
    }
}
is(scalar keys %count, 3, 'each of these files has examples');

# Every directive and variable of the module is documented, and no other.
my $source = join '', map { slurp($_) } glob "$AuthPat::ROOT/src/nginx/*.cpp";
my %directive = map { $_ => 1 } $source =~ /ngx_string\("(auth_pat\w*)"\)/g;
my %variable  = map { $_ => 1 } $source =~ /\{"(auth_pat_\w+)", get_/g;

my $reference = slurp("$AuthPat::ROOT/docs/directives.md");
is_deeply([sort $reference =~ /^### (auth_pat\w*)$/mg], [sort keys %directive], 'docs/directives.md: the directives are the module\'s');

my %named = map { $_ => 1 } map { /`\$(auth_pat_\w+)`/g } $reference =~ /^(\| `\$auth_pat_\w+`.*)$/mg;
delete $named{auth_pat_claim_name};
is_deeply(\%named, \%variable, 'docs/directives.md: the variables are the module\'s');

# What a document links to is there, a heading too. No line is longer than 120 characters, but for those of a table, and
# with a digest or a URL.
my @documents = map { s{^\Q$AuthPat::ROOT\E/}{}r } map { glob "$AuthPat::ROOT/$_" } qw(*.md docs/*.md conf.d/*.md t/*/*.md);
my %heading;    # of a document: each heading, and the anchor that it gets
for my $file (@documents) {
    my $text = decode_utf8(slurp("$AuthPat::ROOT/$file")) =~ s/^```.*?^```$//msgr;
    $heading{$file}{$_} = lc =~ s/[^\w\s-]//gr =~ s/ /-/gr for map { s/`//gr } $text =~ /^#+ (.+)$/mg;
}
for my $file (@documents) {
    my $text = decode_utf8(slurp("$AuthPat::ROOT/$file"));
    my @dead = grep { !leads_somewhere($file, $_) } $text =~ /\]\((?!https?:)([^)]+)\)/g;
    is_deeply(\@dead, [], "$file: no dead links");

    my @long = grep { !/^\|/ && !/[0-9a-f]{64}|https?:/ && length > 120 } split /\n/, $text;
    is_deeply(\@long, [], "$file: no line is too long");
}

# Each promise has a test, and each test that a promise names is there: path, or path::name.
my ($promises) = slurp("$AuthPat::ROOT/docs/security.md") =~ /^## Tests of these promises\n(.*?)^## /ms;
for my $promise (grep { !/^\| \*\*|^\| promise |^\|-/ } $promises =~ /^(\|.*)$/mg) {
    my (undef, $what, $tests) = split / ?\| ?/, $promise;
    my @tests = map { [split /::/] } $tests =~ /`([^`]+)`/g;
    my @missing = grep { !-f "$AuthPat::ROOT/$_->[0]" || $_->[1] && slurp("$AuthPat::ROOT/$_->[0]") !~ /\b$_->[1]\b/ } @tests;
    ok(@tests && !@missing, "docs/security.md: tested: $what") or diag(join '::', @$_) for @missing;
}

# The same of what sources, tests and configuration cite: a page of docs, and perhaps a heading of it in quotes.
chdir $AuthPat::ROOT or die "$AuthPat::ROOT: $!\n";
my @citing = grep { -f && !/\.md$/ } split /\n/, `git ls-files -co --exclude-standard`;
cmp_ok(scalar @citing, '>', 100, 'there are files that may cite');
for my $file (@citing) {
    my $text = slurp($file) =~ s{\n\s*(?://+|#|--)\s*}{ }gr;
    while ($text =~ m{\b(docs/[\w-]+\.md)(?:, "([^"\n]+)")?}g) {
        my ($document, $heading) = ($1, $2);
        ok($heading{$document} && (!defined $heading || $heading{$document}{$heading}),
            "$file: there is $document" . (defined $heading ? ", \"$heading\"" : ''));
    }
}

# Examples spell scopes in one way, which conf.d requires: what is accessed, and how.
for my $file (@documents, grep { m{^(?:conf\.d|scripts|src/cli)/} } @citing) {
    is_deeply([slurp($file) =~ /\b(?:read|write|admin):[a-z]+/g], [], "$file: scopes are spelled as in conf.d");
}

# What auth_pat_recheck costs is the same wherever it is said.
my ($share) = slurp("$AuthPat::ROOT/t/bench/README.md") =~ /share_percent=([\d.]+)/ or die "there is no figure\n";
for my $file (qw(docs/directives.md docs/operations.md)) {
    my ($said) = slurp("$AuthPat::ROOT/$file") =~ /([\d.]+) % of a\s+core/;
    is($said, sprintf('%.1f', $share), "$file: the share of a core is the one that was measured");
}

# The example of a token has the checksum that it says.
my ($example) = slurp("$AuthPat::ROOT/docs/store-format.md") =~ /^ +(ropat_ +\w{32} +\w{6})$/m or die "there is no example of a token\n";
write_file("$folder/token", $example =~ s/ +//gr . "\n");
my $verdict = `patctl check --store $folder/followed --prefix ropat_ < $folder/token 2>&1`;
is($verdict, "unknown\n", 'docs/store-format.md: the example of a token is one');

done_testing();

sub leads_somewhere {
    my ($file, $link) = @_;
    my ($path, $anchor) = $link =~ /^([^#]*)(?:#(.*))?$/s;
    my $target = $path eq '' ? $file : dirname($file) . "/$path";
    $target =~ s{^\./}{};
    1 while $target =~ s{(?:^|(?<=/))(?!\.\./)[^/]+/\.\./}{};
    return -e "$AuthPat::ROOT/$target" if !defined $anchor;
    return scalar grep { $_ eq $anchor } values %{ $heading{$target} // {} };
}

sub slurp {
    my ($path) = @_;
    open my $file, '<', $path or die "$path: $!\n";
    local $/;
    return <$file>;
}
