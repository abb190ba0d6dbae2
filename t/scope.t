# Scopes: what a token must have been granted, in each place and for each method.

use FindBin;
BEGIN { push @INC, "$FindBin::Bin/lib" }
use AuthPat;
use Test::Nginx::Socket;

our $store = new_store('main');
our $none  = issue($store, '--subject', 'nobody');
our $read  = issue($store, '--subject', 'reader', '--scope', 'read');
our $write = issue($store, '--subject', 'writer', '--scope', 'write');
our $both  = issue($store, '--subject', 'editor', '--scope', 'read', '--scope', 'write');
our $admin = issue($store, '--subject', 'root', '--scope', 'read', '--scope', 'write', '--scope', 'admin:all');
our $alike = issue($store, '--subject', 'alike', '--scope', 'reader', '--scope', 'READ', '--scope', 'rea', '--scope', 'read:csv');

our @all_tokens = ($none, $read, $write, $both, $admin, $alike);

sub bearer { return map { "Authorization: Bearer $_" } @_ }

# The challenge for each of the scopes that were needed, or none where the token was good.
sub needs {
    return map {
        $_ eq '' ? 'WWW-Authenticate:'
            : qq(WWW-Authenticate: Bearer realm="API", error="insufficient_scope", scope="$_")
    } @_;
}

add_block_preprocessor(sub {
    my ($block) = @_;
    $block->set_value(http_config => <<'END' . ($block->http_config // ''));
auth_pat_store $TEST_NGINX_STORE_MAIN;
auth_pat API;
END
});

repeat_each(2);
plan tests => repeat_each() * 600;

no_long_string();
run_tests();

__DATA__

=== TEST 1: one scope is needed, as a whole word and in its own case
--- config
location = /t { auth_pat_require_scope read; try_files /nowhere =204; }
--- request eval
[("GET /t") x 6]
--- more_headers eval
[main::bearer(@main::all_tokens)]
--- error_code eval
[403, 204, 403, 204, 204, 403]
--- response_headers eval
[main::needs('read', '', 'read', '', '', 'read')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 2: all of several scopes are needed unless match says otherwise
--- config
location = /default { auth_pat_require_scope read write; try_files /nowhere =204; }
location = /all     { auth_pat_require_scope read write match=all; try_files /nowhere =204; }
location = /one     { auth_pat_require_scope "read write"; try_files /nowhere =204; }
--- request eval
[("GET /default") x 6, ("GET /all") x 6, ("GET /one") x 6]
--- more_headers eval
[(main::bearer(@main::all_tokens)) x 3]
--- error_code eval
[(403, 403, 403, 204, 204, 403) x 3]
--- response_headers eval
[(main::needs(('read write') x 3, '', '', 'read write')) x 3]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 3: with match=any one of several scopes will do
--- config
location = /t { auth_pat_require_scope read write match=any; try_files /nowhere =204; }
--- request eval
[("GET /t") x 6]
--- more_headers eval
[main::bearer(@main::all_tokens)]
--- error_code eval
[403, 204, 204, 204, 204, 403]
--- response_headers eval
[main::needs('read write', '', '', '', '', 'read write')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 4: the last of the scopes counts like the first, for all and for any
--- config
location = /all { auth_pat_require_scope read write admin:all; try_files /nowhere =204; }
location = /any { auth_pat_require_scope x y admin:all match=any; try_files /nowhere =204; }
location = /first { auth_pat_require_scope admin:all x y match=any; try_files /nowhere =204; }
--- request eval
["GET /all", "GET /all", "GET /any", "GET /any", "GET /first", "GET /first"]
--- more_headers eval
[main::bearer(($main::both, $main::admin) x 3)]
--- error_code eval
[(403, 204) x 3]
--- response_headers eval
[main::needs('read write admin:all', '', 'x y admin:all', '', 'admin:all x y', '')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 5: match may stand anywhere, and the last one counts
--- config
location = /front  { auth_pat_require_scope match=any read write; try_files /nowhere =204; }
location = /middle { auth_pat_require_scope read match=any write; try_files /nowhere =204; }
location = /twice  { auth_pat_require_scope match=any read write match=all; try_files /nowhere =204; }
--- request eval
["GET /front", "GET /front", "GET /middle", "GET /middle", "GET /twice", "GET /twice"]
--- more_headers eval
[main::bearer($main::write, $main::none, $main::write, $main::none, $main::write, $main::both)]
--- error_code eval
[204, 403, 204, 403, 403, 204]
--- response_headers eval
[main::needs('', 'read write', '', 'read write', 'read write', '')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 6: several directives must all hold
--- config
location = /t {
    auth_pat_require_scope read;
    auth_pat_require_scope write admin:all match=any;
    try_files /nowhere =204;
}
location = /three {
    auth_pat_require_scope read;
    auth_pat_require_scope write;
    auth_pat_require_scope admin:all;
    try_files /nowhere =204;
}
--- request eval
[("GET /t") x 6, ("GET /three") x 6]
--- more_headers eval
[(main::bearer(@main::all_tokens)) x 2]
--- error_code eval
[403, 403, 403, 204, 204, 403, (403) x 4, 204, 403]
--- response_headers eval
[main::needs(('read write admin:all') x 3, '', '', 'read write admin:all', ('read write admin:all') x 4, '', 'read write admin:all')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 7: a map chooses the scopes by method: several of them, one, or none
--- http_config
map $request_method $needed {
    default "read write";
    GET     read;
    HEAD    read;
    OPTIONS "";
    DELETE  admin:all;
}
--- config
location = /t { auth_pat_require_scope $needed; try_files /nowhere =204; }
--- request eval
["GET /t", "HEAD /t", "OPTIONS /t", "POST /t\nx", "DELETE /t", "GET /t", "HEAD /t", "OPTIONS /t", "POST /t\nx", "DELETE /t"]
--- more_headers eval
[(main::bearer($main::read)) x 5, (main::bearer($main::write)) x 5]
--- error_code eval
[204, 204, 204, 403, 403, 403, 403, 204, 403, 403]
--- response_headers eval
[main::needs('', '', '', 'read write', 'admin:all', 'read', 'read', '', 'read write', 'admin:all')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 8: a map chooses the scopes by location
--- http_config
map $uri $needed {
    /open     "";
    /read     read;
    ~^/both/  "  read   write ";
    default   unheard-of;
}
--- config
auth_pat_require_scope $needed;
location ~ ^/ { try_files /nowhere =204; }
--- request eval
["GET /open", "GET /read", "GET /both/x", "GET /else", "GET /open", "GET /read", "GET /both/x", "GET /else"]
--- more_headers eval
[(main::bearer($main::none)) x 4, (main::bearer($main::both)) x 4]
--- error_code eval
[204, 403, 403, 403, 204, 204, 204, 403]
--- response_headers eval
[main::needs('', 'read', 'read write', 'unheard-of', '', '', '', 'unheard-of')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 9: variables stand beside words and within them, and obey match
--- config
location = /beside { auth_pat_require_scope $arg_a read $arg_b; try_files /nowhere =204; }
location = /within { auth_pat_require_scope ${arg_a}:${arg_b}; try_files /nowhere =204; }
location = /any    { auth_pat_require_scope $arg_a $arg_b match=any; try_files /nowhere =204; }
--- request eval
["GET /beside", "GET /beside?a=write", "GET /beside?b=x", "GET /within?a=admin&b=all", "GET /within?a=admin", "GET /any?a=x&b=write",
 "GET /any?a=x&b=y", "GET /any", "GET /any?b=read"]
--- more_headers eval
[main::bearer(($main::admin) x 9)]
--- error_code eval
[204, 204, 403, 204, 403, 204, 403, 204, 204]
--- response_headers eval
[main::needs('', '', 'read x', '', 'admin:', '', 'x y', '', '')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 10: a location inherits what the server needs, or needs something else instead
--- http_config
auth_pat_require_scope admin:all;
--- config
auth_pat_require_scope read;
auth_pat_require_scope write;
location = /inherits { try_files /nowhere =204; }
location = /replaces { auth_pat_require_scope read; try_files /nowhere =204; }
location /in/ {
    auth_pat_require_scope write;
    location = /in/inherits { try_files /nowhere =204; }
    location = /in/replaces { auth_pat_require_scope read; try_files /nowhere =204; }
}
--- request eval
[map { ("GET $_") x 2 } "/inherits", "/replaces", "/in/inherits", "/in/replaces"]
--- more_headers eval
[(main::bearer($main::read, $main::both)) x 4]
--- error_code eval
[403, 204, 204, 204, 403, 204, 204, 204]
--- response_headers eval
[main::needs('read write', '', '', '', 'write', '', '', '')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 11: a server inherits what http needs
--- http_config
auth_pat_require_scope admin:all;
--- config
location = /t { try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
[main::bearer($main::both, $main::admin)]
--- error_code eval
[403, 204]
--- response_headers eval
[main::needs('admin:all', '')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 12: an empty value cancels what would be inherited, here and in what is within
--- config
auth_pat_require_scope admin:all;
location = /t    { try_files /nowhere =204; }
location /open/ {
    auth_pat_require_scope "";
    location = /open/in { try_files /nowhere =204; }
    location = /open/read { auth_pat_require_scope read; try_files /nowhere =204; }
    try_files /nowhere =204;
}
location = /blank { auth_pat_require_scope " "; try_files /nowhere =204; }
location = /any   { auth_pat_require_scope "" match=any; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /open/", "GET /open/in", "GET /open/read", "GET /blank", "GET /any", "GET /open/"]
--- more_headers eval
[main::bearer(($main::none) x 6), "X-Foo: bar"]
--- error_code eval
[403, 204, 204, 403, 204, 204, 401]
--- response_headers eval
[main::needs('admin:all', '', '', 'read', '', ''), 'WWW-Authenticate: Bearer realm="API"']
--- no_error_log
[error]
[crit]
[alert]



=== TEST 13: limit_except needs a scope for the methods that it limits, in place of those around it
--- config
log_not_found off;   # no try_files in limit_except: who is let in finds no file
location = /t {
    auth_pat_require_scope read;
    limit_except GET { auth_pat_require_scope write; }
    try_files /nowhere =204;
}
location = /inherits {
    auth_pat_require_scope admin:all;
    limit_except GET { auth_pat Inner; }
    try_files /nowhere =204;
}
location = /cancels {
    auth_pat_require_scope admin:all;
    limit_except POST { auth_pat_require_scope ""; }
    try_files /nowhere =204;
}
--- request eval
["GET /t", "HEAD /t", "POST /t\nx", "DELETE /t", "GET /t", "POST /t\nx", "POST /inherits\nx", "GET /cancels", "POST /cancels\nx"]
--- more_headers eval
[(main::bearer($main::read)) x 4, (main::bearer($main::write)) x 5]
--- error_code eval
[204, 204, 403, 403, 403, 404, 403, 404, 403]
--- response_headers eval
[main::needs('', '', 'write', 'write', 'read', ''),
 'WWW-Authenticate: Bearer realm="Inner", error="insufficient_scope", scope="admin:all"', main::needs('', 'admin:all')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 14: the same scope twice, and every character that a scope may have
--- config
location = /twice { auth_pat_require_scope read read; auth_pat_require_scope read; try_files /nowhere =204; }
location = /odd   { auth_pat_require_scope "!#%&'()*+,-./:;<=>?@[]^_`{|}~"; try_files /nowhere =204; }
location = /match { auth_pat_require_scope xmatch=any; try_files /nowhere =204; }
--- request eval
["GET /twice", "GET /odd", "GET /match"]
--- more_headers eval
[main::bearer(($main::both) x 3)]
--- error_code eval
[204, 403, 403]
--- response_headers eval
[main::needs('', q(!#%&'()*+,-./:;<=>?@[]^_`{|}~), 'xmatch=any')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 15: where auth_pat is off no scope is asked for
--- config
auth_pat_require_scope admin:all;
location = /t { auth_pat off; try_files /nowhere =204; }
--- request eval
["GET /t", "GET /t"]
--- more_headers eval
["X-Foo: bar", main::bearer($main::none)]
--- error_code eval
[204, 204]
--- response_headers eval
[main::needs('', '')]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 16: what counts is what is needed in the access phase, not what was when a variable was used before it
--- config
location = /more {
    set $needed read;
    set $early $auth_pat_status;
    set $needed write;
    auth_pat_require_scope $needed;
    add_header X-Early $early always;
    try_files /nowhere =204;
}
location = /less {
    set $needed write;
    set $early $auth_pat_status;
    set $needed read;
    auth_pat_require_scope $needed;
    add_header X-Early $early always;
    try_files /nowhere =204;
}
--- request eval
["GET /more", "GET /less", "GET /more", "GET /less"]
--- more_headers eval
[(main::bearer($main::read)) x 2, (main::bearer($main::both)) x 2]
--- error_code eval
[403, 204, 204, 204]
--- response_headers eval
["X-Early: ok\n" . (main::needs('write'))[0], "X-Early: scope_denied\nWWW-Authenticate:", ("X-Early: ok\nWWW-Authenticate:") x 2]
--- no_error_log
[error]
[crit]
[alert]



=== TEST 17: what decides can not depend on the decision
--- http_config
map $auth_pat_subject $by_subject {
    default "";
    reader  admin;
}
map $auth_pat_status $by_status {
    default off;
    ok      API;
}
--- config
location = /scope { auth_pat_require_scope $by_subject; try_files /nowhere =204; }
location = /realm { auth_pat $by_status; try_files /nowhere =204; }
location = /token { auth_pat API token=$by_status; try_files /nowhere =204; }
--- request eval
["GET /scope", "GET /realm", "GET /realm", "GET /token"]
--- more_headers eval
[main::bearer($main::read), main::bearer($main::read), "X-Foo: bar", main::bearer($main::read)]
--- error_code eval
[500, 500, 500, 500]
--- error_log
depends on a variable that it sets itself
--- no_error_log
[crit]
[alert]
