# The alert rules of scripts/prometheus: Prometheus takes them, and t/prometheus/alerts.yml has each of them raised. That
# their metrics exist is looked at where these are served: t/recipes_observe.t, t/sync/test_pat_sync.py.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
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

done_testing();

sub slurp {
    my ($path) = @_;
    open my $file, '<', $path or die "$path: $!\n";
    local $/;
    return <$file>;
}
