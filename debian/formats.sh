# refuse_older PACKAGE VERSION: ends the script, and thereby the change to an older version, if a store has a format that
# the older version cannot read. Its patctl could not convert the store either.
refuse_older() {
    if dpkg --compare-versions "$2" ge '#FORMAT_SINCE#' || ! command -v patctl > /dev/null; then
        return 0
    fi
    refused=false
    for file in /var/lib/pat/*/data.mdb; do
        store=${file%/data.mdb}
        [ -e "$file" ] || continue
        # A patctl of such a version refuses a newer store, too.
        if ! said=$(patctl stats --json --store "$store" 2>&1) || echo "$said" | grep -qE '"format":[2-9]'; then
            echo "$1: version $2 could not read the store $store. Stop pat-sync, run" >&2
            echo "patctl convert --format 1 --store $store" >&2
            echo "install version $2, and then start pat-sync." >&2
            refused=true
        fi
    done
    ! $refused || exit 1
}
