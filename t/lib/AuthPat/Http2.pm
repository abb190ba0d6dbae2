package AuthPat::Http2;

# HTTP/2 by hand, for tests that say when each frame goes.

use strict;
use warnings;

use AuthPat;
use Exporter qw(import);

our @EXPORT_OK = qw(frame headers listen_http2 open_http2 read_frames sync_http2);

# The directives that have nginx speak HTTP/2 on a port; empty if it can't.
sub listen_http2 {
    my ($port) = @_;
    return '' if `$AuthPat::NGINX -V 2>&1` !~ /http_v2_module/;
    return AuthPat::has_http2_directive() ? "listen 127.0.0.1:$port; http2 on;" : "listen 127.0.0.1:$port http2;";
}

sub frame { my ($type, $flags, $stream, $bytes) = @_; return pack('xnCCN', length $bytes, $type, $flags, $stream) . $bytes }

# A frame with the headers of a request; more => names and values, end => it has no body.
sub headers {
    my ($stream, $method, $path, %with) = @_;
    my @fields = (':method', $method, ':scheme', 'http', ':path', $path, ':authority', 'localhost', @{ $with{more} // [] });
    my $block = '';
    $block .= pack 'xC/aC/a', splice @fields, 0, 2 while @fields;
    return frame(1, $with{end} ? 5 : 4, $stream, $block);
}

sub open_http2 {
    my ($socket) = @_;
    syswrite $socket, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" . frame(4, 0, 0, '');
    return;
}

# Reads frames until there is one of a type (undef: of an answer) with a flag. Returns what answers have: their headers,
# of which the status can be read, and their bodies.
sub read_frames {
    my ($socket, $type, $flag) = @_;
    my $answer = '';
    while (1) {
        my ($length, $kind, $flags) = unpack 'xnCC', take($socket, 9) // last;
        my $bytes = take($socket, $length) // last;
        $answer .= $bytes if $kind < 2;
        last if $flags & $flag && (defined $type ? $kind == $type : $kind < 2);
    }
    my ($status) = $answer =~ /[\x08\x48]\x03(\d\d\d)/ ? $1 : $answer =~ /\x88/ ? 200 : $answer =~ /\x8c/ ? 400 : 0;
    return { status => $status, text => $answer };
}

# What was sent before is known to nginx when this returns.
sub sync_http2 {
    my ($socket) = @_;
    syswrite $socket, frame(6, 0, 0, '12345678');
    read_frames($socket, 6, 1);
    return;
}

sub take {
    my ($socket, $length) = @_;
    my $bytes = '';
    while (length $bytes < $length) { sysread $socket, $bytes, $length - length $bytes, length $bytes or return }
    return $bytes;
}

1;
