#!/bin/sh
# The load of Docker's example-voting-app: with Apache Bench, 1,000 votes for the first option, 1,000 for the second, 1,000 for the first.
#
#   VOTE_URL     where to vote                        (http://localhost:8080)
#   RESULT_URL   the result service to check     (none: not checked)
#   VOTES_A      votes for the first option, in two runs   (2000)
#   VOTES_B      votes for the second option               (1000)
#   CONCURRENCY  concurrent requests                       (50)
#   WAIT         seconds to wait for the services, and then for the last vote to be counted  (30)
#
# The exit code is 0 only if every vote was accepted and, with RESULT_URL, the tally has grown by exactly as many.
set -eu

case ${1-} in
    -h | --help)
        sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "$0"
        exit 0
        ;;
esac

url=${VOTE_URL:-http://localhost:8080}
url=${url%/}/ # ab needs a path
result=${RESULT_URL:-}
a=${VOTES_A:-2000}
b=${VOTES_B:-1000}
concurrency=${CONCURRENCY:-50}
wait=${WAIT:-30}
here=$(CDPATH='' cd -- "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

die() {
    echo "generate-votes: $*" >&2
    exit 1
}

for number in "$a" "$b" "$concurrency" "$wait"; do
    case $number in '' | *[!0-9]*) die "VOTES_A, VOTES_B, CONCURRENCY and WAIT must be whole numbers, not '$number'" ;; esac
done
for address in "$url" ${result:+"$result"}; do
    case $address in http://?* | https://?*) ;; *) die "VOTE_URL and RESULT_URL must begin with http:// or https://, not '$address'" ;; esac
done
command -v ab >/dev/null || die 'ab is missing; install it (Debian, Ubuntu: apt install apache2-utils)'
python=$(command -v python3) || die 'python3 is missing'

ready() { "$python" -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1] + "readyz", timeout=2)' "$1" 2>/dev/null; }
await() {
    left=$wait
    until ready "$1"; do
        [ "$left" -gt 0 ] || die "$1 does not answer; is it up? $2 names another address"
        left=$((left - 1))
        sleep 1
    done
}
tally() { "$python" "$here/make-data.py" --tally "$result"; }

await "$url" VOTE_URL
"$python" "$here/make-data.py" --vote "$url" "$work" >/dev/null 2>&1 || die "$url shows no ballot"
if [ -n "$result" ]; then
    await "${result%/}/" RESULT_URL
    before=$(tally)
fi

accepted=0
failed=0
run() { # run KEY COUNT
    [ "$2" -gt 0 ] || return 0
    at_once=$concurrency
    [ "$at_once" -le "$2" ] || at_once=$2
    ab -q -n "$2" -c "$at_once" -p "$work/post$1" -T application/x-www-form-urlencoded "$url" >"$work/out" 2>&1 || {
        cat "$work/out" >&2
        die "ab could not send the votes to $url"
    }
    complete=$(sed -n 's/^Complete requests: *//p' "$work/out")
    refused=$(sed -n 's/^Non-2xx responses: *//p' "$work/out")
    # ab counts answers whose length differs from the first as failed; receipts differ in length, so these are ignored
    broken=$(sed -n 's/.*(Connect: \([0-9]*\), Receive: \([0-9]*\), Length: [0-9]*, Exceptions: \([0-9]*\)).*/\1 \2 \3/p' "$work/out")
    # shellcheck disable=SC2086 # three numbers, three arguments
    set -- "$1" "$2" ${broken:-0 0 0}
    lost=$((${refused:-0} + $3 + $4 + $5))
    accepted=$((accepted + complete - lost))
    failed=$((failed + lost))
    printf '%5d votes for %s: %5d accepted, %d refused or failed, %s a second\n' "$2" "$1" "$((complete - lost))" "$lost" \
        "$(sed -n 's/^Requests per second: *\([0-9.]*\).*/\1/p' "$work/out")"
}

run a $((a / 2))
run b "$b"
run a $((a - a / 2))
echo "$accepted accepted, $failed refused or failed"
[ "$failed" -eq 0 ] || exit 1

if [ -n "$result" ]; then
    # shellcheck disable=SC2086 # two numbers, two arguments
    set -- $before
    expected="$(($1 + a)) $(($2 + b))"
    left=$wait
    until now=$(tally) && [ "$now" = "$expected" ]; do
        [ "$left" -gt 0 ] || die "$result shows '$now' for the first two options, expected '$expected'"
        left=$((left - 1))
        sleep 1
    done
    echo "$result shows $now: exactly as many as were sent"
fi
