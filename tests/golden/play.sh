#!/bin/sh
# Plays the golden lines inside a lab guest, through two binaries that have the same name.
#
#   play.sh LINES THEIRS OURS     two folders with a `migratepages` in each
#
# Prints each line on which they differ, then a count; ends with 1 if there was a difference. Written
# for busybox's shell. On this computer the same lines are played by crates/cli/tests/cli.

lines=$1 theirs=$2 ours=$3
scratch=$(mktemp -d)
sleep 600 &
PID=$!

play() { # NAME FOLDER WORDS...
    name=$1 folder=$2
    shift 2
    (cd "$folder" && exec ./migratepages "$@") >"$scratch/$name.out" 2>"$scratch/$name.err"
    echo "exit status $?" >>"$scratch/$name.out"
}

played=0 different=0
set -f
# No word of a line is split or expanded but $PID; `;` is no separator here.
sed 's/;/\\;/g' "$lines" >"$scratch/lines"
while IFS= read -r line; do
    case $line in '#'*) continue ;; esac
    eval "set -- $line"
    play theirs "$theirs" "$@"
    play ours "$ours" "$@"
    played=$((played + 1))
    for stream in out err; do
        if ! cmp -s "$scratch/theirs.$stream" "$scratch/ours.$stream"; then
            different=$((different + 1))
            echo "different std$stream: $line"
            sed 's/^/  theirs: /' "$scratch/theirs.$stream"
            sed 's/^/  ours:   /' "$scratch/ours.$stream"
        fi
    done
done <"$scratch/lines"
kill "$PID"
rm -r "$scratch"
echo "$played lines played, $different differences"
[ "$different" -eq 0 ]
