# Shared by every command in ci/: where things are, how they are cached, how they are reported.
#
# Sourced, never run. What costs time to make is kept in $cache, outside the checkout, in a folder whose name is the
# hash of everything that it was made from: a changed input is a new folder, an old folder is never changed.
# A folder appears under its name only when it is whole (made beside it, then renamed), so a build that was
# interrupted leaves nothing that a later one would believe.
# Does not clean the cache: remove the folder by hand when the disk is wanted back.
# shellcheck shell=bash
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${SWITCHBACK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/switchback}
export PATH="$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin"
export LC_ALL=C.UTF-8

# Progress of a build goes to stderr, so that stdout can carry a result (a folder's name).
say() { printf '%s\n' "$*" >&2; }

die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# key_of FILE...: 16 hex digits over the contents of the files, in the order given, and of the words on stdin if any.
key_of() { cat -- "$@" | sha256sum | cut -c1-16; }

# kept NAME KEY MAKER [ARG...]: the folder $cache/NAME-KEY, made by `MAKER ARG... FOLDER` when it is not there.
kept() {
    local folder=$cache/$1-$2 lock=$cache/.lock-$1 making
    shift 2
    if [ ! -d "$folder" ]; then
        mkdir -p "$cache"
        # Builds of different things do not wait for one another.
        exec 8>"$lock"
        flock 8
        if [ ! -d "$folder" ]; then
            making=$(mktemp -d "$cache/.making.XXXXXX")
            # Not as a condition: that would switch off -e inside the maker. Its end is looked at here, because a command
            # substitution, from which this is called, does not stop at it.
            (set -e; "$@" "$making") >&2 &
            wait $! || { rm -rf "$making"; return 1; }
            chmod 755 "$making"
            mv "$making" "$folder"
        fi
        exec 8>&-
    fi
    printf '%s\n' "$folder"
}
