# All recipes of conf.d: that nginx takes each by itself, and all of them together, that conf.d/README.md has them, and that
# each has a test of what it promises.

use strict;
use warnings;

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use AuthPat::Server qw(slurp);
use AuthPat::Site qw(recipes);
use Test::More;

my @recipes = recipes();
my %replaced;

# What the operator of a recipe has to make first.
sub prepare {
    my ($site) = @_;
    mkdir "$site->{root}/run/auth-pat" or die "$site->{root}/run/auth-pat: $!\n";
    for my $name (qw(orders billing)) {
        write_file("$site->{root}/pepper-$name", '0123456789abcdef' x 4);
        chmod 0600, "$site->{root}/pepper-$name";
    }
    return;
}

sub is_taken {
    my ($name, %site) = @_;
    my $site = AuthPat::Site->new(%site);
    prepare($site);
    my ($status, $loaded, $said) = $site->dump;
    is($status, 0, "$name: nginx takes it") or diag $said;
    my @warnings = grep { !/there is no store/ } $said =~ /^nginx: \[.*$/mg;
    is_deeply(\@warnings, [], "$name: without a warning");
    $replaced{$_} += $site->{replaced}{$_} for keys %{ $site->{replaced} };
    return ($site, $loaded);
}

my %seen;
for my $recipe (@recipes) {
    my ($site, $loaded) = is_taken($recipe, recipes => [$recipe], without => ['api.referon.com']);
    is_deeply([sort grep { !m{^snippets/} } keys %$loaded], ['00-auth-pat.conf', "$recipe.conf"],
        "$recipe: with 00-auth-pat.conf and snippets alone");
    $seen{$_} = 1 for keys %$loaded;
}

# The stages of the migration have one server name.
my @stages = grep { /^migration-/ } @recipes;
my @others = grep { !/^migration-/ } @recipes;
for my $stage (@stages) {
    my ($site, $loaded) = is_taken("all recipes with $stage", recipes => [@others, $stage]);
    $seen{$_} = 1 for keys %$loaded;
}
is_taken('all recipes without HTTP/2', recipes => [@others, $stages[0]], http2 => 0);
my (undef, $sourced) = is_taken('all tokens from a source', change => { '# include' => 'include' });
$seen{$_} = 1 for keys %$sourced;
my $wanted = AuthPat::Site->new(recipes => \@recipes)->{files};
is_deeply(\%seen, $wanted, 'every file of conf.d is loaded by one of these');
is_deeply([grep { !$replaced{$_} } sort keys %replaced], [], 'all that the tests replace is somewhere in conf.d');

# Each location that passes a request on decides about the headers of the client: by the snippet, or by passing none. What
# it sets besides must not be there twice: nginx would send both.
for my $file (grep { !m{^snippets/} } sort keys %$wanted) {
    my $path = "$AuthPat::ROOT/conf.d/" . ($file =~ /^(?:00-auth-pat|api\.referon\.com)\.conf$/ ? '' : 'recipes/') . $file;
    my $text = slurp($path) =~ s/^ *#.*\n//mgr;
    for my $server ($text =~ /^server \{\n(.*?)^\}/msg) {
        my $around = $server =~ s/^    location .*?^    \}\n//msgr;
        my @locations = $server =~ /^    location (.*?^    \})/msg;
        for my $location (grep { /^ *(?:proxy|grpc|fastcgi|uwsgi|scgi)_pass /m } @locations) {
            my ($name) = $location =~ /^(.*?) \{/;
            my ($kind) = $location =~ /^ *(proxy|grpc|fastcgi|uwsgi|scgi)_pass /m;
            my $headers = join '', grep { /^ *${kind}_(?:set_header|param) /m || m{/auth-pat-$kind\.conf;} || /^ *${kind}_pass_request_headers / }
                map { "$_\n" } split /\n/, $location;
            $headers ||= $around;
            like($headers, qr{include conf\.d/snippets/auth-pat-$kind\.conf;|${kind}_pass_request_headers off;},
                "$file, location $name: passes the headers of the snippet, or none of the client's");
            $headers =~ s{^ *include (conf\.d/snippets/auth-pat-$kind\.conf);}{slurp("$AuthPat::ROOT/$1")}me;
            my %times;
            $times{lc $1}++ while $headers =~ /^ *${kind}_(?:set_header|param) (\S+) (?!"";)/mg;
            is_deeply([grep { $times{$_} > 1 } sort keys %times], [], "$file, location $name: and none is set twice");
        }
    }
}

# What a client wants to speak instead of HTTP is passed on by name: see security.md.
for my $file (glob "$AuthPat::ROOT/conf.d/*.conf $AuthPat::ROOT/conf.d/*/*.conf $AuthPat::ROOT/docs/*.md") {
    unlike(slurp($file), qr/_set_header +Upgrade +\$http_upgrade;/, "$file: passes no protocol on that it does not name");
}

# They are inert where they are.
my $inert = AuthPat::Site->new;
ok(!grep({ /recipes/ } keys %{ ($inert->dump)[1] }), 'conf.d/*.conf does not include recipes/');

my $readme = slurp("$AuthPat::ROOT/conf.d/README.md");
is_deeply([sort $readme =~ m{^\| \[([\w-]+)\]\(recipes/\1\.conf\) \|}mg], \@recipes, 'conf.d/README.md has each recipe, once');

my %tested = map { ($_ => 1) } map { map { /'([\w-]+)'/g } slurp($_) =~ /recipes => \[(.*?)\]/sg } glob "$FindBin::Bin/recipes_*.t";
is_deeply([grep { !$tested{$_} } @recipes], [], 'each recipe has a test of what it promises');

done_testing();
