package Test::Nginx::Socket::Client;

# From the request sections of a block to the responses of nginx.

use strict;
use warnings;

use Errno qw(EAGAIN EINTR);
use File::Temp ();
use HTTP::Response;
use IO::Select;
use IO::Socket::INET;
use Socket qw(IPPROTO_TCP);
use Test::More ();
use Test::Nginx::Socket::Util qw(expand_env parse_time slurp verbose wait_until);
use Time::HiRes qw(sleep);

# netlink(7), sock_diag(7), and linux/tcp_states.h
use constant {
    AF_NETLINK          => 16,
    NETLINK_SOCK_DIAG   => 4,
    SOCK_DIAG_BY_FAMILY => 20,
    NLM_F_REQUEST       => 1,
    TCP_LISTEN          => 10,
};

# ---- what to send

# A list of requests, each an array of packets: { value, delay_before }.
sub requests {
    my ($run) = @_;
    my ($block, $name) = @$run{qw(block name)};

    if (defined(my $raw = $block->raw_request)) {
        return [ map { { value => $_ } } ref $raw eq 'ARRAY' ? @$raw : $raw ];
    }
    if (my $pipelined = $block->pipelined_requests) {
        die "$name - pipelined_requests must be an array\n"
            if ref $pipelined ne 'ARRAY';
        my @texts = map {
            my $text = expand_env($pipelined->[$_], $name, $run->{ports});
            my $connection = $_ == $#$pipelined ? 'close' : 'keep-alive';
            _compose($run, $_, $connection, $text);
        } 0 .. $#$pipelined;
        return [ { value => join '', @texts } ];
    }

    my $request = $block->request;
    die "$name - has no request\n" if !defined $request;
    if (!ref $request) {
        # Comments and empty lines may come before the request line.
        $request =~ s/\A(?:\s+|\s*#[^\n]*\n)+//;
        $request = [$request];
    }
    die "$name - request must be a string or an array\n"
        if ref $request ne 'ARRAY' || !@$request;
    return map { _packets($run, $_, $request->[$_]) } 0 .. $#$request;
}

sub _packets {
    my ($run, $index, $request) = @_;
    my @parts = map { ref $_ eq 'HASH' ? { %$_ } : { value => $_ } }
        ref $request eq 'ARRAY' ? @$request : $request;
    my @values = _compose($run, $index, 'close', map { $_->{value} } @parts);
    $parts[$_]{value} = $values[$_] for 0 .. $#values;
    return \@parts;
}

# Completes a request that is given as "METHOD [uri [version]]", a newline and
# the body: adds what is missing in the first line and the headers. The text may
# come in several packets and is given back in as many.
sub _compose {
    my ($run, $index, $connection, @packets) = @_;
    my ($line, $body) = join('', @packets) =~ /\A([^\n]*\n?)(.*)\z/s;
    my ($indent, $method, $s1, $uri, $s2, $version, $s3, $end) =
        $line =~ /^(\s*)(\S+)( *)(?:(\S+)( *))?(?:(\S+)( *))?(\s*)$/
        or die "$run->{name} - not a request line: '$line'\n";

    my $headers = _more_headers($run, $index);
    my $content = $body;
    my $length = '';
    if ($body ne '' && $headers !~ /^Content-Length:/m
        && $headers !~ /^Transfer-Encoding: chunked\r$/mi)
    {
        $content =~ s/^\s+|\s+$//g;
        $length = 'Content-Length: ' . length($content) . "\r\n";
    }
    my $host = $headers =~ /^Host:/mi ? '' : "Host: $run->{server}{server_name}\r\n";
    my $conn = $headers =~ /^Connection/mi ? '' : "Connection: $connection\r\n";

    return _spread([map { length } @packets], [
        [$indent        => ''],
        [$method        => "$method "],
        [$s1            => ''],
        [$uri // ''     => ($uri // '/') . ' '],
        [$s2 // ''      => ''],
        [$version // '' => ($version // 'HTTP/1.1') . "\r\n"],
        [($s3 // '') . $end => ''],
        [''             => "$host$conn$headers$length\r\n"],
        [$body          => $content],
    ]);
}

# Lays text out over packets: each pair is a piece of the original and what
# replaces it, $sizes are those of the packets of the original. A replacement
# is split where its original is.
sub _spread {
    my ($sizes, $pairs) = @_;
    my @sizes = @$sizes;
    my @packets = ('');
    my $room = shift @sizes;
    for my $pair (@$pairs) {
        my ($taken, $text) = (length $pair->[0], $pair->[1]);
        while ($taken > $room) {
            $packets[-1] .= substr $text, 0, $room, '';
            $taken -= $room;
            $room = shift @sizes;
            push @packets, '';
        }
        $packets[-1] .= $text;
        $room -= $taken;
    }
    return @packets;
}

sub _more_headers {
    my ($run, $index) = @_;
    my $headers = $run->{block}->more_headers || '';
    if (ref $headers eq 'ARRAY') {
        $headers = $headers->[$index]
            // die "$run->{name} - more_headers lacks those of request $index\n";
    }
    return join '', map {
        my ($key, $value) = split /:\s*/, $_, 2;
        "$key: " . ($value // '') . "\r\n";
    } grep { /\S/ && !/^\s*#/ } split /\n/, $headers;
}

# ---- sending it

# Sends a request, returns all that came back.
sub exchange {
    my ($run, $request) = @_;
    verbose("request:\n", map { $_->{value} } @$request);
    my ($reply, @ends) = $run->{http2}
        ? _exchange_by_curl($run, $request) : _exchange($run, $request);
    verbose("response:\n$reply");
    # The log phase of a request comes before the server closes the connection.
    wait_until(0.5, sub { !_server_holds(@ends) }) if @ends;
    return $reply;
}

sub _exchange {
    my ($run, $request) = @_;
    my ($block, $name) = @$run{qw(block name)};
    my $timeout = parse_time($block->timeout) // $run->{server}{timeout};
    my $addr = $block->server_addr_for_client // $run->{server}{addr};
    my $client_port = $run->{server}{client_port};

    my $socket;
    wait_until($timeout, sub { $socket = IO::Socket::INET->new(
        PeerAddr => $addr, PeerPort => $client_port, Timeout => $timeout) });
    if (!$socket) {
        Test::More::fail("$name - cannot connect to $addr:$client_port: $!");
        return '';
    }
    $socket->blocking(0);
    local $SIG{PIPE} = 'IGNORE';

    # Reads while it still writes: the response may come before all is sent.
    my @packets = @$request;
    my $pending = $packets[0]{value};
    my $reader = IO::Select->new($socket);
    my $writer = IO::Select->new($socket);
    my $reply = '';
    while (1) {
        my ($readable, $writable) =
            IO::Select->select($reader, @packets ? $writer : undef, undef, $timeout);
        if (!$readable) {
            Test::More::fail("$name - client socket timed out")
                if !defined $block->abort;
            last;
        }
        if (@$readable) {
            my $got = sysread $socket, $reply, 65536, length $reply;
            last if defined $got ? $got == 0 : !($!{EAGAIN} || $!{EINTR});
        }
        if (@$writable) {
            my $sent = syswrite $socket, $pending;
            if (!defined $sent) {
                next if $!{EAGAIN} || $!{EINTR};
                warn "$name - sending the request failed: $!\n";
                last if !@$readable;
                next;
            }
            substr $pending, 0, $sent, '';
            if ($pending eq '') {
                shift @packets;
                $pending = _next_packet($block, $packets[0]) if @packets;
            }
        }
    }
    my ($server, $client) = ($socket->peername, $socket->sockname);
    close $socket;
    return ($reply, defined $server ? ($server, $client) : ());
}

sub _next_packet {
    my ($block, $packet) = @_;
    my $delay = $packet->{delay_before} // $block->raw_request_middle_delay;
    sleep $delay if $delay;
    return $packet->{value};
}

# Whether a process still has the server's end of a connection open: in the
# kernel such a socket has an inode. /proc/net/tcp says so, too, but it is long
# where others have many connections; sock_diag(7) looks up this one.
sub _server_holds {
    my ($server, $client) = map { [unpack_sockaddr_in $_] } @_;
    socket my $netlink, AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG
        or die "cannot ask the kernel for a connection: $!\n";
    # struct nlmsghdr, inet_diag_req_v2, and inet_diag_sockid in it
    send $netlink, pack('LSSLL CCCCL nna16a16LLL',
        72, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0,
        AF_INET, IPPROTO_TCP, 0, 0, ~0 & 0xffffffff,
        $server->[0], $client->[0], $server->[1], $client->[1], 0,
        (0xffffffff) x 2), 0 or die "cannot ask the kernel for a connection: $!\n";
    defined recv $netlink, my $answer, 4096, 0
        or die "the kernel does not tell about a connection: $!\n";

    my ($type, $state, $inode) =
        unpack 'x4Sx11Cx66L', $answer . "\0" x 88;
    return $type == SOCK_DIAG_BY_FAMILY && $state != TCP_LISTEN && $inode != 0;
}

# The curl command for a request, for HTTP/2 and for "--- curl".
sub curl_command {
    my ($run, $request) = @_;
    my ($block, $server) = @$run{qw(block server)};
    my ($head, $body) = split /\r\n\r\n/, join('', map { $_->{value} } @$request), 2;
    my ($line, @headers) = split /\r\n/, $head // '';
    my ($method, $uri, $version) =
        ($line // '') =~ m{^\s*(\S+) (\S+) HTTP/(\S+)$}
        or die "$run->{name} - curl cannot send this request\n";

    # Only the headers of the request, none of curl's own.
    my @curl = ('curl', '-i', '-sS', map { ('-H', $_) } 'User-Agent:', 'Accept:',
        'Host:', grep { !/^Connection\s*:/i } @headers);
    push @curl, '--http2-prior-knowledge' if $run->{http2};
    push @curl, '-0' if $version eq '1.0';
    push @curl, $method eq 'HEAD' ? '-I' : $method ne 'GET' ? ('-X', $method) : ();
    if (defined $body && $body ne '') {
        my $file = "$server->{html}/curl.data.bin";
        $server->write_file($file, $body);
        push @curl, '-H', 'Content-Type:' if !grep { /^Content-Type\s*:/i } @headers;
        push @curl, '--data-binary', "\@$file";
    }
    my $timeout = parse_time($block->timeout) // $server->{timeout};
    push @curl, '--connect-timeout', $timeout, '--max-time', $timeout;
    my $addr = $block->server_addr_for_client // $server->{addr};
    return @curl, "http://$addr:$server->{client_port}$uri";
}

sub _exchange_by_curl {
    my ($run, $request) = @_;
    my @curl = curl_command($run, $request);
    my $errors = File::Temp->new;
    # The output ends with both ends of the connection.
    my $pid = open my $output, '-|',
        'sh', '-c', 'exec "$@" 2>"$0"', "$errors", @curl, '-w',
        '\n%{remote_ip} %{remote_port} %{local_ip} %{local_port}'
        or die "cannot run curl: $!\n";
    my $reply = do { local $/; <$output> } // '';
    close $output;
    my @ends = $reply =~ s/\n([\d.]*) (\d+) ([\d.]*) (\d+)\z// && $1 ne ''
        ? (sockaddr_in($2, inet_aton $1), sockaddr_in($4, inet_aton $3)) : ();
    my $said = slurp("$errors") // '';

    if ($reply eq '') {
        Test::More::fail("$run->{name} - curl got no response: $said");
    }
    elsif ($said ne '') {
        warn "$run->{name} - curl says: $said";
    }
    return ($reply, @ends);
}

# ---- reading what came back

# Takes the first response off a reply. Returns it as a HTTP::Response (none if
# its body is broken), its raw headers and the rest of the reply.
sub first_response {
    my ($run, $reply, $is_head) = @_;
    my $name = $run->{name};

    my $raw_headers = $reply =~ /\A(.*?\r\n)\r\n/s ? $1 : '';
    my $response = HTTP::Response->parse($reply);
    my $code = $response->code // '';
    $response->code(undef) if $code !~ /^\d+$/;
    return ($response, $raw_headers, '') if $code eq '304' || $code eq '101';

    my $content = $response->content // '';
    my $length = $response->header('Content-Length') // '';
    my $rest = '';
    if (($response->header('Transfer-Encoding') // '') eq 'chunked') {
        ($content, $rest) = eval { _unchunk($content, $response->header('Trailer')) };
        if ($@) {
            Test::More::fail("$name - broken chunked body: $@");
            return (undef, $raw_headers, '');
        }
    }
    elsif ($length =~ /^\d+$/) {
        warn "$name - the body is cut off: $length bytes announced, "
            . length($content) . " came\n" if !$is_head && length $content < $length;
        $rest = substr $content, $length, length $content, ''
            if length $content > $length;
    }
    $response->content($content);
    return ($response, $raw_headers, $rest);
}

sub _unchunk {
    my ($raw, @trailers) = @_;
    my $content = '';
    while (1) {
        $raw =~ s/\A[ \t]*([0-9A-Fa-f]+)[ \t]*\r\n//
            or die $raw eq '' ? "no last chunk\n" : "no chunk size\n";
        my $size = hex $1 or last;
        die "chunk too short\n" if length $raw < $size;
        $content .= substr $raw, 0, $size, '';
        $raw =~ s/\A\r\n// or die "no newline after a chunk\n";
    }
    for my $trailer (@trailers) {
        $raw =~ s/\A\Q$trailer\E: [^\n]*\r\n// or die "no trailer $trailer\n";
    }
    $raw =~ s/\A\r\n// or die "no newline at the end\n";
    return ($content, $raw);
}

1;
