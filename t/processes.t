# nginx's processes and the store: reloads under load, workers that are killed, upgrades of the binary, a single process,
# an end without delay, and nothing left open.

use strict;
use warnings;
use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use AuthPat::Server qw(wait_for slurp is_alive children_of fds_of);
use POSIX qw(WNOHANG);
use Test::More;

my $store = new_store('main');
my $other = new_store('other');
my $good    = issue($store, '--subject', 'alice');
my $revoked = issue($store, '--subject', 'mallory');
my $third   = issue($other, '--subject', 'oscar');
patctl($store, 'revoke', '--subject', 'mallory');

my $location = 'location = /t { auth_pat API; try_files /nowhere =204; }';
my $serving  = "auth_pat_store $store; server { listen 127.0.0.1:\$PORT reuseport; $location }";
my $plain    = "auth_pat_store $store; server { listen 127.0.0.1:\$PORT; $location }";

sub bearer { return "Authorization: Bearer $_[0]" }

# The slots of the reader table that are taken (LMDB 0.9: 128 bytes, with their number at 56; then 64 a reader, the pid
# at 8). What lies behind that number is of a time before the table was started anew, and nobody looks at it.
sub readers {
    my ($path) = @_;
    my $lock = slurp("$path/lock.mdb");
    my ($count) = unpack 'x56 L', $lock;
    return grep { $_ } map { unpack 'x8 l', substr $lock, 128 + 64 * $_, 64 } 0 .. $count - 1;
}

sub holds {
    my ($pid, $path) = @_;
    return grep { /^\Q$path\E\// } values %{ fds_of($pid) };
}

# Reader slots are those of these processes, one each.
sub readers_are {
    my ($path, @pids) = @_;
    return "@{[sort { $a <=> $b } readers($path)]}" eq "@{[sort { $a <=> $b } @pids]}";
}

# A worker opens the files, LMDB opens two of them again, and then it takes its slot; and it may look at a file again
# meanwhile.
sub holds_once {
    my ($pid, $path) = @_;
    return "@{[sort { $a cmp $b } holds($pid, $path)]}" eq join ' ', map { "$path/$_" } qw(data.mdb data.mdb lock.mdb lock.mdb open.lock);
}

# Sockets that the master has open. Those to a worker are closed a moment after the worker is gone.
sub sockets_of { my ($pid) = @_; return scalar grep { /^socket:/ } values %{ fds_of($pid) } }

# ---- reloads under load

{
    my $server = AuthPat::Server->new(workers => 2, http => $plain);
    $server->start;
    my $master = $server->pid;
    ok wait_for(sub { readers_are($store, $server->workers) }), 'each worker has one slot of the reader table';
    ok !holds($master, $store), 'the master holds nothing of the store';
    my $sockets = sockets_of($master);

    pipe my $result, my $tell or die "pipe: $!\n";
    my $load = fork // die "fork: $!\n";
    if ($load == 0) {
        my ($count, %bad, $stop) = (0);
        local $SIG{TERM} = sub { $stop = 1 };
        while (!$stop) {
            my ($token, $expected) = $count++ % 2 ? ($good, 204) : ($revoked, 401);
            my $status = $server->status('/t', bearer($token));
            $bad{"$status for $expected"}++ if $status != $expected;
        }
        syswrite $tell, "$count " . join ', ', map { "$_: $bad{$_}" } sort keys %bad;
        POSIX::_exit(0);
    }
    close $tell;

    $server->reload or die 'no reload: ' . $server->log;
    ok wait_for(sub { sockets_of($master) == $sockets }), 'a reload leaves no socket open';
    my $before = fds_of($master);
    my $failed = 0;
    $server->reload or $failed++ for 1 .. 50;
    is $failed, 0, 'fifty reloads under load, each with new workers that serve and old ones that leave';

    kill TERM => $load;
    my $text = do { local $/; <$result> };
    waitpid $load, 0;
    my ($count, $bad) = $text =~ /^(\d+) (.*)/s;
    is $bad, '', 'no request failed and none got the wrong answer';
    cmp_ok $count, '>', 100, "there was load ($count requests)";

    ok wait_for(sub { readers_are($store, $server->workers) }), 'slots are those of the workers that live, and no more'
        or diag join ' ', readers($store);
    cmp_ok patctl($store, '--json', 'stats') =~ /"readers":(\d+)/ && $1, '<=', 12, 'the reader table did not grow';
    ok wait_for(sub { sockets_of($master) == $sockets }), 'nor do fifty';
    is scalar keys %{ fds_of($master) }, scalar keys %$before, 'the master has as many files open as before'
        or diag explain fds_of($master);
    ok !holds($master, $store), 'and none of the store';
    for my $worker ($server->workers) {
        ok wait_for(sub { holds_once($worker, $store) }), 'a worker holds the files, once'
            or diag join ' ', holds($worker, $store);
    }
    ok $server->log !~ /\[(?:alert|emerg|crit|error)\]|signal 11/, 'nothing broke';

    # ---- a worker that is killed while it holds the store

    for my $round (1 .. 3) {
        my @old = $server->workers;
        kill KILL => @old;
        ok wait_for(sub { my @new = $server->workers; @new == 2 && !grep { $_ == $old[0] || $_ == $old[1] } @new }),
            'killed workers are started again';
        ok wait_for(sub { $server->status('/t', bearer($good)) == 204 }), 'and serve';
        is $server->status('/t', bearer($revoked)), 401, 'and refuse';
    }
    # To free slots takes a lock that may be held for ever, so workers leave them to a writer.
    my ($dead) = $server->workers;
    kill KILL => $dead;
    ok wait_for(sub { my @new = $server->workers; @new == 2 && !grep { $_ == $dead } @new }), 'one more is killed';
    ok wait_for(sub {
        my %has_slot = map { $_ => 1 } readers($store);
        return $has_slot{$dead} && !grep { !$has_slot{$_} } $server->workers;
    }), 'whose slot is still taken';
    patctl($store, 'revoke', '--subject', 'alice');
    is_deeply [sort { $a <=> $b } readers($store)], [$server->workers], 'the next writer has freed them, and no other';
    is_deeply [map { $server->status('/t', bearer($good)) } 1 .. 6], [(401) x 6], 'a revocation after that counts at once';
    patctl($store, 'restore-access', '--subject', 'alice');
    is $server->status('/t', bearer($good)), 204, 'and so does its end';

    # ---- a bad configuration leaves the old one

    my @workers = $server->workers;
    my $from    = $server->log_size;
    $server->configure(http => "auth_pat_store $store; server { listen 127.0.0.1:\$PORT; location = /t { auth_pat; } }");
    $server->signal('HUP');
    ok $server->logged(qr/\[emerg\].*"auth_pat"/, $from), 'a bad configuration is told of';
    is_deeply [$server->workers], \@workers, 'and the old workers go on';
    is $server->status('/t', bearer($good)), 204, 'with the old configuration';
    my $pepper = write_file(scratch() . '/pepper', 'a' x 64);
    chmod 0600, $pepper;
    $from = $server->log_size;
    $server->configure(http => "auth_pat_pepper_file $pepper; $plain");
    $server->signal('HUP');
    ok $server->logged(qr/\[emerg\].*the pepper does not match/, $from), 'a reload with the wrong pepper is told of';
    is_deeply [$server->workers], \@workers, 'and the old workers go on';
    is $server->status('/t', bearer($good)), 204, 'and let in';

    # ---- stores that a reload adds and removes

    $server->configure(http => "auth_pat_store $other; server { listen 127.0.0.1:\$PORT; $location }");
    ok $server->reload, 'a reload with another store';
    is $server->status('/t', bearer($third)), 204, 'which is served';
    is $server->status('/t', bearer($good)), 401, 'and not the old one';
    is_deeply [readers($store)], [], 'of which no slot is left';
    $server->configure(http => "server { listen 127.0.0.1:\$PORT; location = /t { try_files /nowhere =204; } }");
    ok $server->reload, 'a reload without any store';
    is $server->status('/t'), 204, 'which is served, too';
    is_deeply [readers($other)], [], 'and holds none';

    $server->stop;
}

# ---- the end of idle processes: no timer is waited for. For these a second of a timer lasts a quarter of an hour.

my ($faketime) = glob '/usr/lib/*/faketime/libfaketime.so.1' or die "libfaketime is missing\n";
for my $kind ([workers => 2], [single => 1]) {
    my $server = AuthPat::Server->new(@$kind, run_by => ['env', "LD_PRELOAD=$faketime", 'FAKETIME=+0 x0.001'], http => "auth_pat_zone pat:1m; $plain");
    for my $signal (qw(QUIT TERM)) {
        my $what = "$signal (@$kind)";
        $server->start;
        ok wait_for(sub { $server->status('/t', bearer($good)) == 204 }), "serving before $what";
        my @all = ($server->pid, $server->workers);
        $server->signal($signal);
        ok wait_for(sub { !grep { is_alive($_) } @all }), "$what ends all without waiting for a timer";
        is_deeply [readers($store)], [], "no slot is left after $what";
    }
    ok $server->log !~ /\[alert\]|open socket/, 'nothing was left open';
}

# ---- the binary is upgraded

{
    my $server = AuthPat::Server->new(workers => 1, http => $plain);
    $server->start;
    my $old = $server->pid;
    my ($old_worker) = $server->workers;

    $server->signal('USR2');
    ok wait_for(sub { my $new = $server->pid; $new && $new != $old && $server->workers($new) == 1 }), 'a new master has a worker';
    my $new = $server->pid;
    ok wait_for(sub { readers($store) == 2 }), 'both generations read the store';
    is_deeply [map { $server->status('/t', bearer($good)) } 1 .. 6], [(204) x 6], 'both serve';

    $server->signal('WINCH', $old);
    ok wait_for(sub { !is_alive($old_worker) }), 'the old worker leaves';
    is_deeply [map { $server->status('/t', bearer($good)) } 1 .. 6], [(204) x 6], 'the new one serves';
    patctl($store, 'revoke', '--subject', 'alice');
    is $server->status('/t', bearer($good)), 401, 'a revocation counts in it';
    patctl($store, 'restore-access', '--subject', 'alice');

    $server->signal('QUIT', $old);
    ok wait_for(sub { !is_alive($old) }), 'the old master leaves';
    is_deeply [map { $server->status('/t', bearer($good)) } 1 .. 6], [(204) x 6], 'the new one serves alone';
    ok wait_for(sub { readers_are($store, $server->workers($new)) }), 'and has the only slot' or diag join ' ', readers($store);
    ok $server->log !~ /\[(?:alert|emerg|crit)\]/, 'nothing broke';
    $server->stop;
}

# ---- one process

{
    my $server = AuthPat::Server->new(single => 1, http => $plain);
    $server->start;
    my $pid = $server->pid;
    ok wait_for(sub { $server->status('/t', bearer($good)) == 204 }), 'a single process serves';
    is $server->status('/t', bearer($revoked)), 401, 'and refuses';
    ok readers_are($store, $pid), 'and has one slot' or diag join ' ', readers($store);

    # A single process of nginx 1.22 answers nobody after HUP, with or without this module. What can be told is what it
    # has open.
    for my $round (1 .. 3) {
        my $from = $server->log_size;
        $server->signal('HUP');
        ok $server->logged(qr/using the "\w+" event method/, $from), 'it is reloaded';
    }
    ok wait_for(sub { readers_are($store, $pid) }), 'with the same slot, and only one' or diag join ' ', readers($store);
    ok wait_for(sub { holds_once($pid, $store) }), 'and the files open once' or diag join ' ', holds($pid, $store);

    $server->configure(http => "server { listen 127.0.0.1:\$PORT; auth_pat_store $other; $location }");
    $server->signal('HUP');
    ok wait_for(sub { readers_are($other, $pid) }), 'a reload in a single process opens a store that was added'
        or diag join ' ', readers($other);
    ok wait_for(sub { holds_once($pid, $other) }), 'once' or diag join ' ', holds($pid, $other);
    ok $server->log !~ /\[(?:alert|emerg)\]/, 'nothing broke';

    $server->signal('QUIT');
    ok wait_for(sub { !is_alive($pid) }), 'a single process ends';
    is_deeply [readers($other)], [], 'and leaves no slot';
}

# ---- the cache's processes

{
    my $server = AuthPat::Server->new(http => "proxy_cache_path \$ROOT/cache keys_zone=one:1m loader_sleep=1s loader_files=1; $plain");
    mkdir "$server->{root}/cache";
    for my $n (10 .. 40) {
        write_file("$server->{root}/cache/" . sprintf('%032x', $n), 'x');
    }
    $server->start;
    my $cache = sub { my ($what) = @_; return grep { slurp("/proc/$_/cmdline") =~ /cache $what/ } children_of($server->pid) };
    ok wait_for(sub { $cache->('manager') }), 'there is a cache manager';
    ok !holds($_, $store), 'which does not open the store' for $cache->('manager');
    ok !holds($_, $store), 'nor does the cache loader' for $cache->('loader');
    ok wait_for(sub { readers_are($store, $server->workers) }), 'the worker alone has a slot' or diag join ' ', readers($store);
    is $server->status('/t', bearer($good)), 204, 'and serves';
    $server->stop;
}

# ---- a store that comes, goes and comes again over reloads

{
    my $late   = store_path('late');
    my $server = AuthPat::Server->new(workers => 2, http => "auth_pat_store $late; server { listen 127.0.0.1:\$PORT; $location }");
    $server->start;
    is $server->status('/t', bearer($good)), 503, 'without a store there is no answer';
    ok $server->reload, 'nginx reloads without it';
    is $server->status('/t', bearer($good)), 503, 'still no answer';
    new_store('late');
    my $token = issue($late, '--subject', 'nina');
    ok wait_for(sub { my @got = map { $server->status('/t', bearer($token)) } 1 .. 6; !grep { $_ != 204 } @got }),
        'the store is served when it has come';
    ok $server->reload, 'nginx reloads with it';
    is_deeply [map { $server->status('/t', bearer($token)) } 1 .. 6], [(204) x 6], 'and serves it from the first request on';
    $server->stop;
}

done_testing;
