# Records that nobody but their forger has checked: their checksums are right, and what they say is not. It ends no header,
# no line and no string where it leaves the process, and does nothing to a terminal.

use strict;
use warnings;
use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use AuthPat::Server qw(slurp wait_for);
use AuthPat::Upstream;
use Digest::SHA qw(sha256);
use JSON::PP qw(decode_json);
use Test::More;

my $store = new_store('main');
my %token = import_each_kind($store,
    id      => '"subject":"of-id","name":"n"',
    subject => '"subject":"of-subject-000000000","name":"n"',
    name    => '"subject":"of-name","name":"name-00000000000000"',
    scope   => '"subject":"of-scope","scopes":["scope-00000000000000"]',
    claim   => '"subject":"of-claim","claims":{"plan":"claim-00000000000000"}',
    key     => '"subject":"of-key","claims":{"k000000000":"value"}',
    revoked => '"subject":"of-revoked","revoked_at":1600000000',
);
my $evil_header = "\r\nX-Evil: yes\r\n";
my $evil_id     = qq(id\n"<\e]);

my @crc_table = map { my $crc = $_; $crc = $crc & 1 ? ($crc >> 1) ^ 0x82f63b78 : $crc >> 1 for 1 .. 8; $crc } 0 .. 255;

sub crc32c {
    my $crc = 0xffffffff;
    $crc = ($crc >> 8) ^ $crc_table[($crc ^ $_) & 0xff] for unpack 'C*', shift;
    return $crc ^ 0xffffffff;
}

# Replaces text in the record of a token by other text of the same length, and puts the checksum right.
sub forge {
    my ($name, $old, $new) = @_;
    my $path  = "$store/data.mdb";
    my $bytes = slurp($path);
    my $key   = 't' . sha256($token{$name});
    my $done  = 0;

    # LMDB lays the value behind the key, and its length 8 bytes before. The newest page with it is the one that counts; others are of no use to anybody.
    for (my $at = 0; ($at = index $bytes, $key, $at) >= 0; $at += length $key) {
        my $start = $at + length $key;
        my $value = substr $bytes, $start, unpack 'V', substr $bytes, $at - 8, 4;
        my $place = index $value, $old;
        next if $place < 0 || unpack('V', $value) != crc32c($key . substr $value, 4);
        length $old == length $new or die "another length: $old\n";
        substr $value, $place, length $new, $new;
        substr $value, 0, 4, pack 'V', crc32c($key . substr $value, 4);
        substr $bytes, $start, length $value, $value;
        $done++;
    }
    $done or die "no record of $name\n";
    open my $file, '+<:raw', $path or die "$path: $!\n";
    print {$file} $bytes;
    close $file or die "$path: $!\n";
    return;
}

sub padded { my ($text, $length) = @_; return $text . 'x' x ($length - length $text) }

forge('id',      'id-id',                'i' . substr $evil_id, 0, 4);
forge('revoked', 'id-revoked',           padded($evil_id, 10));
forge('subject', 'of-subject-000000000', padded($evil_header, 20));
forge('name',    'name-00000000000000',  padded($evil_header, 19));
forge('scope',   'scope-00000000000000', padded($evil_header, 20));
forge('claim',   'claim-00000000000000', padded($evil_header, 20));
forge('key',     'k000000000',           padded("\e]0;", 10));

my $upstream_port = AuthPat::Server::free_port();
my $upstream = AuthPat::Upstream->new(port => $upstream_port);
my $server = AuthPat::Server->new(http => <<"END");
auth_pat_zone pat:1m;
auth_pat_store $store;
log_format who escape=none '<\$status \$auth_pat_status \$auth_pat_id \$auth_pat_subject>';
server {
    listen 127.0.0.1:\$PORT;
    access_log \$ROOT/logs/access.log who;
    auth_pat API;
    location / {
        add_header X-Subject \$auth_pat_subject;
        add_header X-Id "\$auth_pat_id.";
        proxy_set_header X-Subject \$auth_pat_subject;
        proxy_set_header X-Name \$auth_pat_name;
        proxy_set_header X-Id \$auth_pat_id;
        proxy_set_header X-Scope \$auth_pat_scope;
        proxy_set_header X-Plan \$auth_pat_claim_plan;
        proxy_pass http://127.0.0.1:$upstream_port;
    }
    location = /status { auth_pat off; auth_pat_status; }
    location = /usage  { auth_pat off; auth_pat_usage; }
}
END
$server->start;

is $server->status('/subject', "Authorization: Bearer $token{subject}"), 401, 'nobody gets in without a subject';
for my $name (qw(id name scope claim key alice)) {
    my $answer = $server->get("/$name", "Authorization: Bearer $token{$name}");
    is $answer->{status}, 200, "$name: let in";
    unlike $answer->{headers}, qr/X-Evil|\e/, "$name: no header of its own to the client";
    unlike $answer->{body}, qr/X-Evil|\e/, "$name: nor to the upstream";
}
is $server->status('/revoked', "Authorization: Bearer $token{revoked}"), 401, 'a revoked token with a forged id is refused';
ok $server->logged(qr/access token "\?" was revoked/), 'and the log has no id';
unlike $server->log, qr/\e/, 'nor anything else of it';
like $server->get('/alice', "Authorization: Bearer $token{alice}")->{body}, qr/^X-Subject: alice$/m, 'a good one is told as ever';

like patctl($store, 'show', 'id-subject'), qr/has a control character/, 'and patctl says why it is refused';

my $usage;
ok wait_for(sub { ($usage = $server->get('/usage'))->{body} =~ /id-alice/ }), 'uses are reported';
for my $line (split /\n/, $usage->{body}) {
    my $fields = eval { decode_json($line) };
    ok $fields && (exists $fields->{cursor} || $fields->{id} =~ /^[\w.:\@-]+$/), "a line of /usage: $line";
}
for my $accept ('application/json', 'text/html', 'text/plain') {
    my $body = $server->get('/status', "Accept: $accept")->{body};
    ok length $body, "/status as $accept";
    unlike $body, qr/id\\?n?"?<|\e/, 'has nothing of a forged record';
}
my $status = decode_json($server->get('/status', 'Accept: application/json')->{body});
ok !grep({ $_->{id} !~ /^[\w.:\@-]+$/ } @{ $status->{tokens}{top} }), 'no id there is none';

my $log = slurp("$server->{root}/logs/access.log");
unlike $log, qr/Evil|\e/, 'the access log has nothing of it either, even without escapes';
is scalar(() = $log =~ /^</mg), scalar(() = $log =~ /\n/g), 'and a line for each request';

for my $command (['list'], map({ ['show', $_] } 'id-subject', 'id-key', 'id-name', 'id-claim', 'id-scope'), ['stats'], ['verify']) {
    my $text = eval { patctl($store, @$command) } // $@;
    unlike $text, qr/[^\n\x20-\x7e\x80-\xff]/, "patctl @$command prints no control character";
}

ok $server->log !~ /\[(?:alert|emerg)\]|signal \d/, 'nothing broke' or diag $server->log;

done_testing;
