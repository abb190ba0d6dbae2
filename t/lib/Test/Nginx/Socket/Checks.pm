package Test::Nginx::Socket::Checks;

# What a block says about its responses and its logs, as tests. The number of
# tests a section makes is the format's; plans in .t files rely on it.

use strict;
use warnings;

use Digest::MD5 qw(md5_hex);
use Digest::SHA qw(sha1_hex);
use Test::Base ();
use Test::More ();
use Test::Nginx::Socket::Util qw(expand_env indexed slurp wait_until);

my %FILTERS = (
    md5_hex  => \&md5_hex,
    sha1_hex => \&sha1_hex,
    length   => sub { length $_[0] },
    uc       => sub { uc $_[0] },
    lc       => sub { lc $_[0] },
    ucfirst  => sub { ucfirst $_[0] },
    lcfirst  => sub { lcfirst $_[0] },
);

# ---- responses

sub check_response {
    my ($run, $response, $raw_headers) = @_;
    _check_status($run, $response);
    _check_raw_headers($run, $raw_headers);
    _check_headers($run, $response, $raw_headers);
    _filter_body($run, $response) if $response;
    _check_body($run, $response);
    $_->($run->{block}, $response && $response->content, $run->{index}, $run->{repeat})
        for @{ $run->{body_checks} };
    return;
}

sub _check_status {
    my ($run, $response) = @_;
    my $block = $run->{block};
    my $code = ($response && $response->code) || '';
    my $test = "$run->{name} - status code ok";
    if (defined $block->error_code_like) {
        my $pattern = indexed($run, $block->error_code_like);
        Test::More::like($code, qr/$pattern/sm, $test);
    }
    else {
        my $error_code = $block->error_code;
        Test::Base::is($code,
            defined $error_code ? indexed($run, $error_code) : 200, $test);
    }
    return;
}

sub _check_raw_headers {
    my ($run, $raw_headers) = @_;
    my ($block, $name) = @$run{qw(block name)};
    if (defined $block->raw_response_headers_like) {
        my $pattern = indexed($run, $block->raw_response_headers_like);
        Test::More::like($raw_headers, qr/$pattern/s, "$name - raw headers like");
    }
    if (defined $block->raw_response_headers_unlike) {
        my $pattern = indexed($run, $block->raw_response_headers_unlike);
        Test::More::unlike($raw_headers, qr/$pattern/s, "$name - raw headers unlike");
    }
    return;
}

# response_headers wins over response_headers_like.
sub _check_headers {
    my ($run, $response, $raw_headers) = @_;
    my ($block, $name) = @$run{qw(block name)};
    my $got = sub { ($response && scalar $response->header($_[0])) // '' };

    if (defined $block->response_headers) {
        for my $pair (_header_pairs(indexed($run, $block->response_headers))) {
            my ($key, $value) = @$pair;
            if (!defined $value) {
                Test::More::unlike($raw_headers, qr/^\s*\Q$key\E\s*:/m,
                    "$name - header $key not there");
                next;
            }
            Test::Base::is($got->($key), _fill_in_ports($run, $value),
                "$name - header $key ok");
        }
    }
    elsif (defined $block->response_headers_like) {
        for my $pair (_header_pairs(indexed($run, $block->response_headers_like))) {
            my ($key, $pattern) = @$pair;
            Test::More::like($got->($key), qr/^$pattern$/,
                "$name - header $key like ok");
        }
    }
    return;
}

# "Key: value" lines. "! Key", and a line without a colon, has no value: the
# header must not be there. Of a key that comes twice the last one counts.
sub _header_pairs {
    my ($text) = @_;
    my (@keys, %value);
    for my $line (split /\n/, $text) {
        $line =~ s/^\s+|\s+$//g;
        my ($key, $value) =
            $line =~ s/^!\s*// ? ($line, undef) : split /\s*:\s*/, $line, 2;
        $key //= '';
        push @keys, $key if !exists $value{$key};
        $value{$key} = $value;
    }
    return map { [$_, $value{$_}] } @keys;
}

sub _fill_in_ports {
    my ($run, $text) = @_;
    $text =~ s/\$ServerPort\b/$run->{server}{port}/g;
    $text =~ s/\$ServerPortForClient\b/$run->{server}{client_port}/g;
    return $text;
}

# A filter name or a sub, several of either, or a list of such per request.
sub _filter_body {
    my ($run, $response) = @_;
    my $filters = $run->{block}->response_body_filters // return;
    $filters = [split ' ', $filters] if !ref $filters;
    $filters = indexed($run, $filters)
        // die "$run->{name} - response_body_filters lacks those of a request\n"
        if ref $filters eq 'ARRAY' && ref $filters->[0] eq 'ARRAY';

    my $content = $response->content;
    for my $filter (ref $filters eq 'ARRAY' ? @$filters : $filters) {
        my $code = ref $filter eq 'CODE' ? $filter : $FILTERS{$filter}
            // die "$run->{name} - unknown response body filter '$filter'\n";
        $content = $code->($content);
    }
    $response->content($content);
    return;
}

# Only one of response_body, response_body_like and response_body_unlike
# counts, in this order.
sub _check_body {
    my ($run, $response) = @_;
    my ($block, $name) = @$run{qw(block name)};
    my $content = $response ? $response->content : undef;
    my $which = "(req $run->{index}, repeat $run->{repeat})";

    if (defined $block->response_body) {
        my $expected = indexed($run, $block->response_body);
        $expected = expand_env(_fill_in_ports($run, $expected), $name, $run->{ports})
            if defined $expected && !ref $expected;
        $run->{is_str}->($content, $expected, "$name - response_body ok $which");
    }
    elsif (defined(my $like = $block->response_body_like)) {
        my $pattern = _fill_in_ports($run, indexed($run, $like));
        Test::More::like($content, qr/$pattern/s,
            "$name - response_body_like ok $which");
    }
    elsif (defined(my $unlike = $block->response_body_unlike)) {
        my $pattern = _fill_in_ports($run, indexed($run, $unlike));
        Test::More::unlike($content, qr/$pattern/s,
            "$name - response_body_unlike ok $which");
    }
    return;
}

# ---- logs

# Looks at what came into the error log since the last look, or at all of it
# under check_accum_error_log. Lines that must be there may still be on their
# way, so this waits a little for them.
sub check_error_log {
    my ($run) = @_;
    my ($block, $name) = @$run{qw(block name)};
    my @wanted = _patterns(scalar $block->error_log);
    my @forbidden = _patterns(scalar $block->no_error_log);
    my ($grep, $grep_out) = _grep_sections($run);

    my @lines;
    wait_until(0.5, sub {
        @lines = _new_lines($run);
        !grep { my $pattern = $_; !grep { _matches($_, $pattern) } @lines } @wanted;
    });
    $run->{log_offset} += length for @lines;

    if (defined $grep) {
        my $regex = ref $grep ? $grep : qr/\Q$grep\E/;
        my $found = join '', map { "$_\n" } grep { !/\n/ }
            map { /$regex/ ? $& : () } @lines;
        $run->{is_str}->($found, $grep_out,
            "$name - grep_error_log_out ok (repeat $run->{repeat})");
    }
    _check_lines($run, 'error_log', \@lines, \@wanted, \@forbidden);

    if (my ($assertion) = grep { /\bAssertion .*?failed\b/ } @lines) {
        Test::More::fail("$name - $assertion");
    }
    # Trouble nobody asked about is worth a look, though it fails no test. A
    # block where nginx must die has it for sure.
    return if defined $block->must_die;
    for my $level (qw(alert crit emerg)) {
        next if grep { index($_, "[$level") >= 0 } @wanted, @forbidden;
        warn "WARNING: $name - $_" for grep { /\[$level\]/ } @lines;
    }
    return;
}

sub check_access_log {
    my ($run) = @_;
    my $block = $run->{block};
    my @wanted = _patterns(scalar $block->access_log);
    my @forbidden = _patterns(scalar $block->no_access_log);
    return if !@wanted && !@forbidden;

    my @lines;
    wait_until(0.5, sub {
        @lines = (slurp($run->{server}{access_log}) // '') =~ /^.*\n?/mg;
        !grep { my $pattern = $_; !grep { _matches($_, $pattern) } @lines } @wanted;
    });
    _check_lines($run, 'access_log', \@lines, \@wanted, \@forbidden);
    return;
}

sub _check_lines {
    my ($run, $log, $lines, $wanted, $forbidden) = @_;
    my ($name, $repeat) = @$run{qw(name repeat)};
    for my $pattern (@$wanted) {
        my $found = grep { _matches($_, $pattern) } @$lines;
        Test::More::ok($found,
            "$name - $log has a line with '$pattern' (repeat $repeat)");
    }
    for my $pattern (@$forbidden) {
        my @found = grep { _matches($_, $pattern) } @$lines;
        Test::More::ok(!@found,
            "$name - $log has no line with '$pattern' (repeat $repeat)")
            or Test::More::diag('there are ', scalar @found, ': ', $found[0]);
    }
    return;
}

# A section of patterns: a line each, or an array, or one regex.
sub _patterns {
    my ($section) = @_;
    return if !defined $section;
    return grep { defined } @$section if ref $section eq 'ARRAY';
    return ref $section ? $section : grep { $_ ne '' } split /\n/, $section;
}

sub _matches {
    my ($line, $pattern) = @_;
    return ref $pattern ? $line =~ $pattern : index($line, $pattern) >= 0;
}

sub _new_lines {
    my ($run) = @_;
    open my $log, '<:raw', $run->{server}{error_log} or return;
    seek $log, $run->{log_offset}, 0 if !$run->{accumulate};
    return <$log>;
}

# What to grep for and what to expect, for the current repetition.
sub _grep_sections {
    my ($run) = @_;
    my ($block, $name, $repeat) = @$run{qw(block name repeat)};
    my $grep = $block->grep_error_log;
    my $out = $block->grep_error_log_out;
    die "$name - grep_error_log and grep_error_log_out need each other\n"
        if defined $grep != defined $out;
    $grep = $grep->[$repeat] if ref $grep eq 'ARRAY';
    $out = $out->[$repeat]   if ref $out eq 'ARRAY';
    return ($grep, expand_env($out, $name, $run->{ports}));
}

1;
