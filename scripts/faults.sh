#!/usr/bin/env bash
# The tests of faults (tests/faults): each call of the system of a save fails, memory runs out, and the program is killed.
# scripts/faults.sh [ROUNDS]: so many of each kind of call, and so many kills at random moments of the four commands together.
# The tests are split among the CPUs (JOBS says how many). Ends in one line of figures; exits with 1 if a test failed.
set -uo pipefail
cd "$(dirname "$0")/.."
export OCTET_FAULT_ROUNDS=${1:-300}
scripts/build.sh octet-cli test_faults || exit 2
directory=$(scripts/build.sh --directory) failed=0 seconds=$SECONDS
export OCTET_BINARY=$PWD/$directory/bin/octet
scripts/shards.sh "$directory/bin/test_faults" "$directory/faults" || failed=1
cat "$directory"/faults.*.log | awk -v rounds="$OCTET_FAULT_ROUNDS" -v seconds=$((SECONDS - seconds)) -v failed=$failed '
  /^faults of the program: / { faults += $5 }
  /^killed: / { killed += $2; done += $5 }
  /^\[==========\] .* ran/ { tests += $2 }
  END { printf "faults: %d rounds, %d tests, %d faults of the program, %d kills (%d came too late), %d s, %s\n", rounds, tests, faults, killed,
    done, seconds, failed ? "FAILED" : "all pass" }'
exit $failed
