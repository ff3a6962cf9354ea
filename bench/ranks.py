#!/usr/bin/env python3
"""The cost model of docs/scaling.md: calibration on many ranks, held against what `octet quantize --ranks-report` measured.

    bench/ranks.py REPORT.json... (--observers 14 | --statistics FILE) [--bins 8192] [--samples 100000000] [--bandwidth 1.0] [--seed 0]

REPORT.json: one for each number of ranks, of the same network and samples. FILE: of `octet calibrate` on some of the samples, which is
nearer to what will be sent than what is expected of so many observers. bandwidth: GB/s between machines. Three tables: bytes and
merge time, measured and by the model; the model for more ranks and samples; and a simulation in which ranks take batches whose times
are drawn from those that were recorded.
"""
import argparse
import heapq
import json
import math
import os
import random

HALVES = 2  # statistics of the first half of the samples are kept apart


def statistics_bytes(observers, bins):
    """A histogram has bins to 2 * bins + 2 bins, of 8 bytes, by the range of its data alone: for ranges of all sizes alike, the mean
    of bins * 2**u for u from 0 to 1."""
    return HALVES * observers * 8 * bins / math.log(2)


def rounds(ranks):
    return math.ceil(math.log2(ranks)) if ranks > 1 else 0


def model_seconds(samples, step, batch_seconds, ranks, merge_seconds, size, bandwidth):
    """The rank with the most batches, then a tree of merges."""
    work = math.ceil(math.ceil(samples / step) / ranks) * batch_seconds
    return work, rounds(ranks) * (size / bandwidth + merge_seconds)


def simulate(batches, ranks, seconds, rng):
    """Each rank takes the next batch when it is done with one; the time of the last to end."""
    ends = [0.0] * ranks
    for _ in range(batches):
        heapq.heappush(ends, heapq.heappop(ends) + rng.choice(seconds))
    return max(ends)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+")
    size_from = parser.add_mutually_exclusive_group(required=True)
    size_from.add_argument("--observers", type=int, help="`octet stats show` says how many")
    size_from.add_argument("--statistics", help="a file of octet calibrate")
    parser.add_argument("--bins", type=int, default=8192, help="the least bins of a histogram: 4 times the option `bins`")
    parser.add_argument("--samples", type=int, default=100_000_000)
    parser.add_argument("--bandwidth", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    o = parser.parse_args()
    reports = sorted((json.load(open(name)) for name in o.reports), key=lambda r: len(r["ranks"]))
    size = os.path.getsize(o.statistics) if o.statistics else statistics_bytes(o.observers, o.bins)

    print("| ranks | samples of each | bytes sent | by the model | | merging ms |")
    print("|---|---|---|---|---|---|")
    merges = []
    for r in reports:
        n = len(r["ranks"])
        sent = sum(rank["bytes_sent"] for rank in r["ranks"])
        expected = (n - 1) * size
        merging = r["ranks"][0]["merging_seconds"]
        if n > 1:
            merges.append(merging / rounds(n))
        share = [rank["samples"] for rank in r["ranks"]]
        ratio = f"{sent / expected:.3f}" if n > 1 else ""
        print(f"| {n} | {min(share)} to {max(share)} | {sent:,} | {expected:,.0f} | {ratio} | {1e3 * merging:.1f} |")

    times = reports[0]["batch_seconds"]
    batch, step = sum(times) / len(times), reports[0]["step"]
    merge = min(merges) if merges else 0.0
    rng = random.Random(o.seed)
    print(f"\n{o.samples:,} samples, {1e3 * batch:.1f} ms for {step} of them, {size / 1e6:.1f} MB of statistics, "
          f"{1e3 * merge:.1f} ms a merge, {o.bandwidth} GB/s\n")
    print("| ranks | work | merges | speed-up | simulated work of 10,000 batches, of the ideal |")
    print("|---|---|---|---|---|")
    alone, _ = model_seconds(o.samples, step, batch, 1, merge, size, 1e9 * o.bandwidth)
    for n in (1, 2, 8, 64, 256, 1024):
        work, tree = model_seconds(o.samples, step, batch, n, merge, size, 1e9 * o.bandwidth)
        drawn = simulate(10_000, n, times, rng) / (10_000 * batch / n)
        print(f"| {n} | {work:,.1f} s | {1e3 * tree:.0f} ms | {alone / (work + tree):,.1f} | {drawn:.3f} |")


if __name__ == "__main__":
    main()
