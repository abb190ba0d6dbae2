# A store that is missing, broken, replaced or in the wrong hands, before nginx starts and while it runs: nobody gets in
# who should not, the log says why, the workers live on, and service comes back by itself.
#
# Each case has a store and a location of its own in one nginx, so that all of them can be broken, and waited for, at
# the same time.

use strict;
use warnings;
use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use AuthPat::Server qw(wait_for slurp is_alive);
use Fcntl qw(:flock F_SETLK F_RDLCK F_WRLCK SEEK_SET);
use File::Copy ();
use File::Path qw(remove_tree);
use Test::More;

my $is_root = $> == 0;
my @group   = $is_root ? ('--owner', 'nobody', '--group', 'www-data') : ();
my %as      = $is_root ? (user => 'www-data') : ();
my $aside   = scratch() . '/aside';
mkdir $aside or die "mkdir $aside: $!\n";

# The group is there on Debian, where these tests belong; elsewhere workers run as root, whom no mode stops.
if ($is_root && !getpwnam 'www-data') {
    @group = %as = ();
}
my $modes_count = !$is_root || %as;

my @mounted;
my @children;
my $owner = $$;
END {
    if ($$ == $owner) {
        local $?;
        system 'umount', '-l', $_ for @mounted;
        kill KILL => $_ for @children;
        waitpid $_, 0 for @children;
    }
}

# A store with a token that is good and one that is revoked: {path, good, revoked, other}.
sub make {
    my ($name, @options) = @_;
    my %store = (path => new_store($name, @group, @options));
    return fill(\%store);
}

sub fill {
    my ($store) = @_;
    $store->{good}    = issue($store->{path}, '--subject', 'alice');
    $store->{other}   = issue($store->{path}, '--subject', 'bob');
    $store->{revoked} = issue($store->{path}, '--subject', 'mallory');
    patctl($store->{path}, 'revoke', '--subject', 'mallory');
    return $store;
}

# Copies with owner, group and modes.
sub copy { my ($from, $to) = @_; system('cp', '-a', $from, $to) == 0 or die "cp $from $to\n"; return }
sub move { my ($from, $to) = @_; rename $from, $to or die "rename $from $to: $!\n"; return }

# Overwrites a file in place, as cp(1) does: the inode stays.
sub overwrite {
    my ($path, $contents, $at) = @_;
    open my $file, $at ? '+<:raw' : '>:raw', $path or die "$path: $!\n";
    seek $file, $at, SEEK_SET if $at;
    print {$file} $contents;
    close $file or die "$path: $!\n";
    return;
}

sub random_bytes {
    my ($length) = @_;
    srand 7;
    return join '', map { chr int rand 256 } 1 .. $length;
}

# The bytes of a store whose meta record says version 2.
sub newer {
    my ($bytes) = @_;
    my $at = 0;
    while (($at = index $bytes, 'auth_pat', $at) >= 0) {
        substr $bytes, $at - 4, 1, "\xfe";
        $at += 8;
    }
    return $bytes;
}

my %stores;     # by the name of the case
my $server;

sub status { my ($case, $token) = @_; return $server->status("/$case", "Authorization: Bearer $token") }

# Both workers answer now and then: as many requests as make it likely.
sub statuses { my ($case, $token, $count) = @_; return map { status($case, $token) } 1 .. $count // 8 }

my %let_in;     # a revoked token's 200s, by case

# Waits until that is the answer of every worker, while the revoked token is tried all the time.
sub becomes {
    my ($case, $token, $expected) = @_;
    my %seen;
    my $is = wait_for(sub {
        $let_in{$case}++ if status($case, $stores{$case}{revoked}) == 204;
        %seen = ();
        $seen{$_}++ for statuses($case, $token, 6);
        return keys %seen == 1 && $seen{$expected};
    });
    diag "$case: got @{[%seen]}, not $expected" if !$is;
    return $is;
}

sub conf_for {
    my (@cases) = @_;
    return join '', "server { listen 127.0.0.1:\$PORT;\n",
        map({ "location = /$_ { auth_pat API; auth_pat_store $stores{$_}{path}; " . ($stores{$_}{conf} // '')
                . " try_files /nowhere =204; }\n" } @cases), "}\n";
}

# ---- what nginx finds when it starts

my %message = (
    missing     => qr/there is no store/,
    empty       => qr/data\.mdb is truncated/,
    truncated   => qr/data\.mdb is truncated/,
    header_only => qr/data\.mdb is truncated/,
    random      => qr/not a store/,
    foreign     => qr/not a store/,
    zero_page   => qr/data\.mdb is damaged/,
    zeroed      => qr/damaged/,
    no_lock     => qr/lock\.mdb or open\.lock is missing/,
    no_opening  => qr/./,
    no_data     => qr/there is no store/,
    a_file      => qr/there is no store/,
    held        => qr/open\.lock is taken/,
    locked_out  => qr/can't be read|lock\.mdb or open\.lock is missing/,
    lock_mode   => qr/lock\.mdb or open\.lock is missing/,
    read_only   => qr/read-only file system/,
);

sub break_at_start {
    my ($case, $path) = @_;
    my $data  = "$path/data.mdb";
    my $bytes = slurp($data);

    if    ($case eq 'missing')     { remove_tree($path) }
    elsif ($case eq 'empty')       { overwrite($data, '') }
    elsif ($case eq 'truncated')   { truncate $data, root($bytes) * 4096 }
    elsif ($case eq 'header_only') { truncate $data, 100 }
    elsif ($case eq 'random')      { overwrite($data, random_bytes(length $bytes)) }
    elsif ($case eq 'foreign')     { overwrite($data, "text\n" x 9000) }
    elsif ($case eq 'zero_page')   { overwrite($data, "\0\0\0\0", 40); overwrite($data, "\0\0\0\0", 4096 + 40) }
    elsif ($case eq 'zeroed')      { overwrite($data, "\0" x (length($bytes) - 8192), 8192) }
    elsif ($case eq 'no_lock')     { unlink "$path/lock.mdb" }
    elsif ($case eq 'no_opening')  { unlink "$path/open.lock" }
    elsif ($case eq 'no_data')     { unlink $data }
    elsif ($case eq 'a_file')      { remove_tree($path); write_file($path, 'a file') }
    elsif ($case eq 'locked_out')  { chmod 0, $path }
    elsif ($case eq 'lock_mode')   { chmod 0440, "$path/lock.mdb" }
    elsif ($case eq 'read_only') {
        system("mount --bind $path $path && mount -o remount,bind,ro $path") == 0 or die "mount\n";
        push @mounted, $path;
    }
    elsif ($case eq 'held') {
        open $stores{held}{lock}, '<', "$path/open.lock" or die "open.lock: $!\n";
        flock $stores{held}{lock}, LOCK_EX or die "flock: $!\n";
    }
    return;
}

{
    my @cases = sort keys %message;
    @cases = grep { $_ ne 'locked_out' && $_ ne 'lock_mode' } @cases if !$modes_count;
    my $can_mount = $is_root && do {
        my $try = scratch() . '/mount';
        mkdir $try;
        system("mount --bind $try $try 2>/dev/null && mount -o remount,bind,ro $try 2>/dev/null") == 0
            && system('umount', $try) == 0;
    };
    @cases = grep { $_ ne 'read_only' } @cases if !$can_mount;
    SKIP: { skip 'mounting is not permitted here', 1 if !$can_mount; pass 'a read-only mount can be tried' }

    for my $case (@cases) {
        $stores{$case} = make("start_$case");
        copy($stores{$case}{path}, "$aside/start_$case");
        break_at_start($case, $stores{$case}{path});
    }

    $server = AuthPat::Server->new(%as, workers => 2, http => conf_for(@cases));

    my ($status, $text) = $server->check;
    is $status, 0, 'nginx -t passes with stores that a sidecar or an operator may still mend';
    for my $case (@cases) {
        like $text, qr/\[warn\].*\Q"$stores{$case}{path}": \E.*$message{$case}.*used by "auth_pat" in .*nginx\.conf:\d+/,
            "nginx -t warns of it: $case";
    }

    $server->start;
    my @workers = $server->workers;

    for my $case (@cases) {
        my $from   = $server->log_size;
        my $answer = $server->get("/$case", "Authorization: Bearer $stores{$case}{good}");
        is $answer->{status}, 503, "a good token gets 503: $case";
        like $answer->{headers}, qr/^Retry-After: \d+\r$/m, "and is told to come back: $case";
        unlike $answer->{headers}, qr/WWW-Authenticate/, "and not asked for a token: $case";
        is status($case, $stores{$case}{revoked}), 503, "a revoked token gets no more: $case";
        is $server->status("/$case"), 401, "no token is still 401: $case";
        ok $server->logged(qr/\[crit\].*\Q"$stores{$case}{path}": \E.*$message{$case}/, $from), "the log says it: $case"
            or diag substr $server->log($from), 0, 600;
    }

    # Mended: by putting the right folder there, or by undoing it.
    for my $case (@cases) {
        my $path = $stores{$case}{path};
        if    ($case eq 'locked_out') { chmod 02750, $path }
        elsif ($case eq 'lock_mode')  { chmod 0660,  "$path/lock.mdb" }
        elsif ($case eq 'held')       { close $stores{held}{lock} }
        elsif ($case eq 'read_only')  { system('umount', $path) == 0 or die "umount\n"; @mounted = grep { $_ ne $path } @mounted }
        else {
            move($path, "$aside/broken_$case") if -e $path;
            move("$aside/start_$case", $path);
        }
    }
    for my $case (@cases) {
        ok becomes($case, $stores{$case}{good}, 204), "a store that is mended serves without a reload: $case";
        is status($case, $stores{$case}{revoked}), 401, "and its revocations count: $case";
    }
    is_deeply [$server->workers], \@workers, 'the workers are the same';
    is_deeply \%let_in, {}, 'no revoked token got in';
    ok $server->log !~ /\[(?:alert|emerg)\]|signal \d/, 'nothing broke' or diag grep { /\[(?:alert|emerg)/ } split /^/, $server->log;
    ok $server->logged(qr/\[notice\].*\Q$stores{missing}{path}\E" is open/), 'that the store is open is in the log, too';
    $server->stop;
}

# ---- what can't be mended by waiting fails nginx -t

{
    my $pepper = write_file(scratch() . '/pepper', 'a' x 64);
    my $wrong  = write_file(scratch() . '/wrong',  'b' x 64);
    chmod 0600, $pepper, $wrong;

    my $plain    = new_store('plain', @group);
    my $peppered = store_path('peppered');
    patctl($peppered, '--pepper-file', $pepper, 'init', @group);
    my $newer = new_store('newer', @group);
    overwrite("$newer/data.mdb", newer(slurp("$newer/data.mdb")));
    my $newer_lmdb = new_store('newer_lmdb', @group);
    overwrite("$newer_lmdb/data.mdb", "\x02", $_ + 20) for 0, 4096;

    my @final = (
        ['a pepper for a store without one', $plain,    $pepper, qr/the pepper does not match/],
        ['no pepper for a store with one',   $peppered, undef,   qr/the pepper does not match/],
        ['the wrong pepper',                 $peppered, $wrong,  qr/the pepper does not match/],
        ['a newer format',                   $newer,    undef,   qr/written by a newer version of nginx-auth-pat/],
        ['a newer LMDB',                     $newer_lmdb, undef, qr/written by a newer LMDB/],
        ['the right pepper',                 $peppered, $pepper, undef],
    );
    for my $one (@final) {
        my ($what, $path, $file, $expected) = @$one;
        my $trial = AuthPat::Server->new(%as, http => 'server { listen 127.0.0.1:$PORT; location / { auth_pat API; '
            . "auth_pat_store $path; " . ($file ? "auth_pat_pepper_file $file; " : '') . '} }');
        my ($status, $text) = $trial->check;
        is $status, defined $expected ? 1 : 0, "nginx -t and $what" or diag $text;
        like $text, qr/\[emerg\].*\Q"$path": \E.*$expected.*nginx\.conf:\d+/, "nginx -t tells of $what" if $expected;
    }
}

# ---- what happens while nginx runs

%stores = ();

my @cases = (
    # name => sub that breaks it; what the good token, and the one of the new contents, get; seconds
    'swapped', 'renamed_data', 'copied_over', 'older_backup', 'newer_by_one', 'newer_by_two', 'same_number',
    'truncated', 'emptied', 'randomised', 'zeroed', 'zeroed_header', 'flipped', 'lock_removed', 'lock_replaced', 'all_removed',
    'open_lock_held', 'other_pepper', 'newer_format', 'symlinked', 'two_mistakes',
    $modes_count ? ('unreadable') : (),
);

for my $case (@cases) {
    $stores{$case} = make("run_$case");
}

# symlinked: the path is a link, as deployments have it, that is turned to another folder.
move($stores{symlinked}{path}, "$aside/link_target");
symlink "$aside/link_target", $stores{symlinked}{path} or die "symlink: $!\n";

my %next;    # contents to come, by case
for my $case (qw(swapped renamed_data copied_over symlinked)) {
    $next{$case} = make("next_$case");
    issue($next{$case}{path}, '--subject', "more$_") for 1 .. 3;
}
copy($stores{older_backup}{path}, "$aside/older");
$stores{older_backup}{late} = issue($stores{older_backup}{path}, '--subject', 'late') for 1 .. 3;

for my $case (qw(newer_by_one newer_by_two)) {
    copy($stores{$case}{path}, "$aside/$case");
    patctl("$aside/$case", 'revoke', '--subject', 'alice');
    issue("$aside/$case", '--subject', 'late') if $case eq 'newer_by_two';
}
copy($stores{same_number}{path}, "$aside/same_number");
patctl($stores{same_number}{path}, 'revoke', '--subject', 'bob');
patctl("$aside/same_number", 'revoke', '--subject', 'alice');

my $pepper = scratch() . '/pepper';
$next{other_pepper}{path} = store_path('next_pepper');
patctl($next{other_pepper}{path}, '--pepper-file', $pepper, 'init', @group);

copy($stores{$_}{path}, "$aside/run_$_")
    for grep { $_ ne 'symlinked' } @cases;

$server = AuthPat::Server->new(%as, workers => 2, http => conf_for(@cases));
$server->start;
my @workers = $server->workers;
my $from    = $server->log_size;

for my $case (@cases) {
    ok becomes($case, $stores{$case}{good}, 204), "before: $case";
    is status($case, $stores{$case}{revoked}), 401, "before, a revoked token: $case";
}

my %break = (
    swapped       => sub { my ($path, $case) = @_; move($path, "$aside/gone_$case"); move($next{$case}{path}, $path) },
    renamed_data  => sub { my ($path, $case) = @_; move("$next{$case}{path}/data.mdb", "$path/data.mdb") },
    copied_over   => sub { my ($path, $case) = @_; File::Copy::copy("$next{$case}{path}/data.mdb", "$path/data.mdb") or die },
    older_backup  => sub { File::Copy::copy("$aside/older/data.mdb", "$_[0]/data.mdb") or die },
    newer_by_one  => sub { File::Copy::copy("$aside/newer_by_one/data.mdb", "$_[0]/data.mdb") or die },
    newer_by_two  => sub { File::Copy::copy("$aside/newer_by_two/data.mdb", "$_[0]/data.mdb") or die },
    same_number   => sub { File::Copy::copy("$aside/same_number/data.mdb", "$_[0]/data.mdb") or die },
    truncated     => sub { truncate "$_[0]/data.mdb", 8192 },
    emptied       => sub { truncate "$_[0]/data.mdb", 0 },
    randomised    => sub { overwrite("$_[0]/data.mdb", random_bytes(-s "$_[0]/data.mdb"), 0) },
    zeroed        => sub { my $size = -s "$_[0]/data.mdb"; overwrite("$_[0]/data.mdb", "\0" x ($size - 8192), 8192) },
    zeroed_header => sub { my $bytes = slurp("$_[0]/data.mdb"); overwrite("$_[0]/data.mdb", ("\0" x 8192) . substr $bytes, 8192) },
    flipped       => sub {
        my ($path, $case) = @_;
        my ($id) = patctl($path, '--json', 'list', '--subject', 'alice') =~ /"id":"([^"]+)"/;
        my $bytes = slurp("$path/data.mdb");
        my @at;
        while ($bytes =~ /\Q$id\E/g) { push @at, $-[0] }
        for my $at (@at) {
            my $byte = substr $bytes, $at + 6, 1;
            overwrite("$path/data.mdb", chr(ord($byte) ^ 1), $at + 6);
        }
        $stores{$case}{at} = { map { ($_ + 6 => substr $bytes, $_ + 6, 1) } @at };
    },
    lock_removed  => sub { unlink "$_[0]/lock.mdb" or die },
    lock_replaced => sub { copy("$_[0]/lock.mdb", "$_[0]/new"); move("$_[0]/new", "$_[0]/lock.mdb") },
    all_removed   => sub { remove_tree($_[0]) },
    open_lock_held => sub {
        my ($path, $case) = @_;
        open $stores{$case}{lock}, '<', "$aside/run_$case/open.lock" or die;
        flock $stores{$case}{lock}, LOCK_EX or die;
        move($path, "$aside/gone_$case");
        move("$aside/run_$case", $path);
    },
    other_pepper  => sub { my ($path, $case) = @_; move($path, "$aside/gone_$case"); move($next{$case}{path}, $path) },
    newer_format  => sub { overwrite("$_[0]/data.mdb", newer(slurp("$_[0]/data.mdb")), 0) },
    symlinked     => sub { my ($path, $case) = @_; symlink $next{$case}{path}, "$path.new" or die; move("$path.new", $path) },
    two_mistakes  => sub { unlink "$_[0]/lock.mdb"; truncate "$_[0]/data.mdb", 5000 },
    unreadable    => sub { chmod 0, $_[0] },
);

$break{$_}->($stores{$_}{path}, $_) for @cases;

# Contents that were replaced by whole ones are the ones that count, by themselves and soon.
for my $case (qw(swapped renamed_data copied_over symlinked)) {
    ok becomes($case, $next{$case}{good}, 204), "the new contents are served: $case";
    ok becomes($case, $stores{$case}{good}, 401), "and the old ones are not: $case";
    isnt status($case, $next{$case}{revoked}), 204, "the new revocations count at once: $case";
    ok becomes($case, $next{$case}{revoked}, 401), "and for each worker: $case";
}
ok becomes('older_backup', $stores{older_backup}{good}, 204), 'an older backup that is copied over a store is served';
ok becomes('older_backup', $stores{older_backup}{late}, 401), 'and what came after it is unknown';
for my $case (qw(newer_by_one newer_by_two same_number)) {
    ok becomes($case, $stores{$case}{good}, 401), "a revocation in a file that is copied over the store counts: $case";
}
ok becomes('same_number', $stores{same_number}{other}, 204), 'and what that file allows is allowed';
ok becomes('newer_by_one', $stores{newer_by_one}{other}, 204), 'and others are let in as before';
ok becomes('lock_replaced', $stores{lock_replaced}{good}, 204), 'a lock.mdb that was replaced by a copy is taken';

# What is broken is told to be so, and heals.
my %broken = (
    truncated      => qr/truncated|damaged/,
    emptied        => qr/truncated|damaged/,
    randomised     => qr/not a store|damaged|truncated|replaced/,
    zeroed         => qr/damaged/,
    zeroed_header  => qr/not a store|damaged|replaced/,
    flipped        => qr/a record is damaged/,
    lock_removed   => qr/lock\.mdb or open\.lock is missing/,
    all_removed    => qr/there is no store/,
    open_lock_held => qr/open\.lock is taken/,
    other_pepper   => qr/pepper does not match/,
    newer_format   => qr/newer version/,
    two_mistakes   => qr/truncated|damaged|lock\.mdb or open\.lock is missing/,
    unreadable     => qr/can't be read/,
);
my @broken = grep { $broken{$_} } @cases;

for my $case (@broken) {
    # A record that was read before it was zeroed is no longer; whatever the page cache holds, it is not let in for long.
    ok becomes($case, $stores{$case}{good}, 503), "a good token gets 503: $case";
    ok $server->logged(qr/\[crit\].*\Q"$stores{$case}{path}": \E.*$broken{$case}/, $from), "the log says why: $case"
        or diag grep { /\Q$stores{$case}{path}\E/ } (split /^/, $server->log($from))[0 .. 20];
}
is status('flipped', $stores{flipped}{other}), 204, 'another record of a store with a damaged one is still good';
is status('flipped', $stores{flipped}{revoked}), 401, 'and a revoked one still is not';
is_deeply [$server->workers], \@workers, 'the workers are the same ones';

for my $case (@broken) {
    my $path = $stores{$case}{path};
    if ($case eq 'flipped') {
        overwrite("$path/data.mdb", $stores{$case}{at}{$_}, $_) for keys %{ $stores{$case}{at} };
    }
    elsif ($case eq 'unreadable')     { chmod 02750, $path }
    elsif ($case eq 'open_lock_held') { close $stores{$case}{lock} }
    elsif ($case eq 'lock_removed')   { patctl($path, 'restore-access', '--subject', 'nobody') if !eval { issue($path, '--subject', 'new') } }
    elsif ($case eq 'newer_format')   { overwrite("$path/data.mdb", slurp("$aside/run_$case/data.mdb"), 0) }
    else {
        move($path, "$aside/broken_run_$case") if -e $path;
        move($case eq 'other_pepper' ? "$aside/gone_$case" : "$aside/run_$case", $path);
    }
}
for my $case (@broken) {
    ok becomes($case, $stores{$case}{good}, 204), "service comes back by itself: $case";
    is status($case, $stores{$case}{revoked}), 401, "and so do its revocations: $case";
}

# A commit that comes after all of this is seen at once.
for my $case (grep { !/^(?:newer_by|same_number|swapped|renamed_data|copied_over|symlinked)/ } @cases) {
    patctl($stores{$case}{path}, 'revoke', '--subject', 'alice');
    my %seen = map { ($_ => 1) } statuses($case, $stores{$case}{good});
    is_deeply [keys %seen], [401], "the next revocation counts from the next request on: $case";
}

is_deeply [$server->workers], \@workers, 'the workers are the same ones at the end';
is_deeply \%let_in, {}, 'no revoked token got in at any time';
ok $server->log !~ /\[(?:alert|emerg)\]|signal \d/, 'nothing broke' or diag grep { /\[(?:alert|emerg)/ } split /^/, $server->log;
{
    my %crit;
    my $log = $server->log($from);
    $crit{$1}++ while $log =~ /\[crit\] \S+ auth_pat store "([^"]+)"/g;
    my ($most) = sort { $b <=> $a } values %crit, 0;
    cmp_ok $most, '<=', 30, 'a fault that lasts is not logged each second by each worker';
}
$server->stop;

# ---- the reader table

{
    my $full = make('full');
    my $dead = make('dead');
    %stores = (full => $full, dead => $dead);

    # LMDB 0.9: 128 bytes, with their number at 56, then 64 for each of 1024 readers: transaction (8), pid (4), thread (8). A process lives that
    # holds the lock on the byte of its pid.
    my $occupy = sub {
        my ($path, $pid) = @_;
        open my $file, '+<:raw', "$path/lock.mdb" or die "lock.mdb: $!\n";
        # Byte 0 is locked by all who have the environment open, or the next one starts with an empty table.
        for my $lock ([F_RDLCK, 0], $pid == $$ ? [F_WRLCK, $pid] : ()) {
            my $flock = pack 's s x4 q q l x4', $lock->[0], SEEK_SET, $lock->[1], 1, 0;
            fcntl $file, F_SETLK, $flock or die "fcntl: $!\n";
        }
        seek $file, 128, SEEK_SET;
        print {$file} pack('q l x4 q x40', -1, $pid, 1) x 1024;
        seek $file, 56, SEEK_SET;
        print {$file} pack 'L', 1024;
        $file->flush;
        return $file;
    };

    my $gone = fork // die "fork: $!\n";
    POSIX::_exit(0) if $gone == 0;
    waitpid $gone, 0;

    pipe my $ready, my $tell or die "pipe: $!\n";
    my $holder = fork // die "fork: $!\n";
    if ($holder == 0) {
        my @files = ($occupy->($full->{path}, $$), $occupy->($dead->{path}, $gone));
        syswrite $tell, 'x';
        sleep 600;
        POSIX::_exit(0);
    }
    push @children, $holder;
    sysread $ready, my $byte, 1;

    $server = AuthPat::Server->new(%as, workers => 2, http => conf_for('full', 'dead'));
    $server->start;
    my @workers = $server->workers;

    is status('dead', $dead->{good}), 204, 'a reader table full of the dead is cleared at once';
    is status('full', $full->{good}), 503, 'with a reader table full of the living a good token gets 503';
    is status('full', $full->{revoked}), 503, 'and so does a revoked one';
    ok $server->logged(qr/\[crit\].*\Q$full->{path}\E": the reader table is full/), 'the log says so';
    kill KILL => $holder;
    waitpid $holder, 0;
    @children = ();
    ok becomes('full', $full->{good}, 204), 'service comes back when the slots are free';
    is status('full', $full->{revoked}), 401, 'with its revocations';
    is_deeply [$server->workers], \@workers, 'with the same workers';
    $server->stop;
}

done_testing;
# The root page of the tree of records, by the newer of the two meta pages (LMDB, mdb.c: MDB_meta).
sub root {
    my ($bytes) = @_;
    my ($first, $second) = map { unpack 'Q<', substr $bytes, $_ + 144, 8 } 0, 4096;
    return unpack 'Q<', substr $bytes, ($first > $second ? 0 : 4096) + 128, 8;
}

