# Processes of this system, and of no container, that run a file of the module that was replaced since.
outdated() {
    for maps in /proc/[0-9]*/maps; do
        process=${maps%/maps}
        if grep -qs '/ngx_http_auth_pat_module\.so (deleted)$' "$maps" && [ "$process/root" -ef / ]; then
            echo "${process#/proc/}"
        fi
    done
}

# Those of them that take requests: neither a master nor a worker that only finishes its requests.
outdated_workers() {
    for process in $(outdated); do
        if ! tr '\0' ' ' < "/proc/$process/cmdline" 2> /dev/null | grep -qE 'master process|shutting down|^$'; then
            echo "$process"
        fi
    done
}

# wait_until_none SECONDS FUNCTION
wait_until_none() {
    seconds=$1
    while [ -n "$($2)" ] && [ "$seconds" -gt 0 ]; do
        sleep 1
        seconds=$((seconds - 1))
    done
    [ -z "$($2)" ]
}
