# The alert rules of scripts/prometheus: Prometheus takes them, and t/prometheus/alerts.yml has each of them raised. And
# the dashboard of Grafana: it is whole, and Prometheus takes its queries. That their metrics exist is looked at where
# these are served: t/recipes_observe.t, t/sync/test_pat_sync.py.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use JSON::PP qw(decode_json);
use Test::More;

my $root  = dirname(dirname(abs_path(__FILE__)));
my $rules = "$root/scripts/prometheus/alerts.yml";
my $tests = "$root/t/prometheus/alerts.yml";

for my $arguments ("check rules $rules", "test rules $tests") {
    my $output = `promtool $arguments 2>&1`;
    is($?, 0, "promtool $arguments") or diag($output);
}

my @alerts = slurp($rules) =~ /- alert: (\w+)$/mg;
cmp_ok(scalar @alerts, '>', 10, 'there are alerts');
my %raised = map { $_ => 1 } slurp($tests) =~ /alertname: (\w+)\n +exp_alerts:\n/g;
is_deeply([grep { !$raised{$_} } @alerts], [], 'each of them is raised');

# ---- the dashboard

my $dashboard = decode_json(slurp("$root/scripts/prometheus/grafana.json"));
is_deeply($dashboard->{id}, undef, 'the dashboard has no id, which Grafana gives');
cmp_ok($dashboard->{schemaVersion}, '<=', 38, 'it is of the schema of Grafana 10, or older');

my %variable = map { $_->{name} => $_ } @{ $dashboard->{templating}{list} };
is($variable{datasource}{type}, 'datasource', 'its source of data is a variable');

my @panels = @{ $dashboard->{panels} };
my @shown  = grep { $_->{type} ne 'row' } @panels;
cmp_ok(scalar @shown, '>', 10, 'there are panels');
my (%ids, %taken);
$ids{ $_->{id} }++ for @panels;
is_deeply([grep { $ids{$_} > 1 } keys %ids], [], 'each has an id of its own');
for my $panel (@panels) {
    my $at = $panel->{gridPos};
    for my $x ($at->{x} .. $at->{x} + $at->{w} - 1) {
        $taken{"$x $_"}++ for $at->{y} .. $at->{y} + $at->{h} - 1;
    }
    cmp_ok($at->{x} + $at->{w}, '<=', 24, "$panel->{title}: is within the page");
}
is_deeply([grep { $taken{$_} > 1 } keys %taken], [], 'no two of them overlap');

my @sources = map { $_->{datasource} } @shown, (map { @{ $_->{targets} } } @shown), grep { $_->{type} eq 'query' } values %variable;
is_deeply([grep { $_->{uid} ne '${datasource}' || $_->{type} ne 'prometheus' } @sources], [], 'all ask that source');

# Grafana puts these in.
my %built_in = (__rate_interval => '5m', __range => '6h');
my @queries  = map { $_->{expr} } map { @{ $_->{targets} } } @shown;
my %used;
for my $query (@queries) {
    $query =~ s/\$(\w+)/$used{$1}++; $built_in{$1} \/\/ '.*'/ge;
}
is_deeply([grep { !$built_in{$_} && !$variable{$_} } keys %used], [], 'each variable of a query is one');
is_deeply([grep { $_ ne 'datasource' && !$used{$_} } keys %variable], [], 'each variable is used');

my $folder = tempdir(CLEANUP => 1);
open my $file, '>', "$folder/queries.yml" or die "$folder/queries.yml: $!\n";
print {$file} "groups:\n  - name: queries\n    rules:\n";
printf {$file} "      - record: query:%d\n        expr: '%s'\n", $_, $queries[$_] =~ s/'/''/gr for 0 .. $#queries;
close $file or die "$folder/queries.yml: $!\n";
my $said = `promtool check rules $folder/queries.yml 2>&1`;
is($?, 0, 'Prometheus takes its queries') or diag($said);
like($said, qr/ ${\ scalar @queries} rules found/, 'all of them');

done_testing();

sub slurp {
    my ($path) = @_;
    open my $file, '<', $path or die "$path: $!\n";
    local $/;
    return <$file>;
}
