#!/usr/bin/env bash
# Runs a test program, its tests split among the CPUs (JOBS says how many): scripts/shards.sh PROGRAM LOG [GTEST_OPTION...]
# What the parts write is in LOG.0.log, LOG.1.log and so on. Exits with 1 if a part failed, whose log it names.
set -uo pipefail
program=$1 log=$2
shift 2
export GTEST_TOTAL_SHARDS=${JOBS:-$(nproc)}
parts=() failed=0
rm -f "$log".*.log
for ((i = 0; i < GTEST_TOTAL_SHARDS; ++i)); do
  GTEST_SHARD_INDEX=$i "$program" "$@" >"$log.$i.log" 2>&1 &
  parts+=($!)
done
for i in "${!parts[@]}"; do
  wait "${parts[i]}" || {
    echo "$0: $(basename "$program") failed: $log.$i.log" >&2
    failed=1
  }
done
exit $failed
