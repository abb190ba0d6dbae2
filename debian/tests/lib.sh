# Shared by the tests: what they say, and an nginx with a token.
# shellcheck shell=sh

say() {
    printf '\n== %s\n' "$*"
}

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# wait_for WHAT COMMAND…
wait_for() {
    what=$1
    shift
    deadline=$(($(date +%s) + 60))
    until "$@"; do
        [ "$(date +%s)" -lt "$deadline" ] || fail "not within a minute: $what"
        sleep 0.1
    done
}

has_tokens() {
    patctl stats --json --store "$1" | grep -q '"ok":[1-9]'
}

# synchronize STORE FILE OTHER: pat-sync keeps a new store equal to a file, which gets the tokens of another store.
synchronize() {
    patctl export --store "$3" > "$2"
    chgrp pat-sync "$2"
    chmod 640 "$2"
    runuser -u pat-sync -- patctl init --store "$1" --group www-data
    printf '%s\n' "source = file://$2" "store = $1" > /etc/nginx-auth-pat/pat-sync.conf
    systemctl start pat-sync
    wait_for "pat-sync has put tokens into $1" has_tokens "$1"
}

# A server on port 8088 in front of the store.
serve() {
    cat > /etc/nginx/conf.d/tested.conf << 'END'
auth_pat_zone tested:1m;
server {
    listen 127.0.0.1:8088;
    location / {
        auth_pat tested;
        auth_pat_store /var/lib/pat/api;
        auth_pat_require_scope api:read;
        root /usr/share/nginx/html;
    }
    location = /status {
        auth_pat_status json;
    }
}
END
    nginx -t
    invoke-rc.d nginx restart
    wait_for "nginx answers" curl --silent --output /dev/null http://127.0.0.1:8088/status
}

# status [TOKEN]
status() {
    curl --silent --output /dev/null --write-out '%{http_code}' ${1:+--header "Authorization: Bearer $1"} \
        http://127.0.0.1:8088/
}

# is STATUS [TOKEN]
is() {
    got=$(status ${2:+"$2"})
    [ "$got" = "$1" ]
}

# expect STATUS [TOKEN]
expect() {
    is "$@" || fail "the status is $got instead of $1"
    echo "$1${2:+ with the token}"
}
