#!/usr/bin/env python3
"""The cost model of docs/performance.md: what native::split_matrix does with ResNet-50 (batch 1, 224x224) on many cores.

    bench/scaling.py [--peak 236] [--bandwidth 20] [--step 2] [--task 0.1]

peak: Gmac/s of a core; bandwidth: GB/s at which a core reads what is not in its own L2; step: microseconds that a parallel step costs
before any work; task: microseconds that a task costs. Nothing is measured here.
"""
import argparse
import heapq

MR, NR, L2 = 12, 32, 1 << 20


def layers():
    """m, n, k of each convolution, k over all taps."""
    yield 112 * 112, 64, 147
    channels = 64
    for stage, (count, side) in enumerate(zip((3, 4, 6, 3), (56, 28, 14, 7))):
        width = 64 << stage
        for block in range(count):
            before = side * 2 if stage and block == 0 else side
            yield before * before, width, channels
            yield side * side, width, 9 * width
            yield side * side, 4 * width, width
            if block == 0:
                yield side * side, 4 * width, channels
            channels = 4 * width
    yield 1, 1000, 2048


def up(a, b):
    return -(-a // b)


def parts(m, n, k, threads):
    """split_matrix's choice: into how many ranges of rows and of columns."""
    m_tiles, n_tiles = up(m, MR), up(n, NR)
    wanted = 1 if threads == 1 else min(threads * 4, max(m, 3) * n * k // 1_000_000)
    if wanted > threads:
        wanted -= wanted % threads
    wanted = max(1, wanted)

    def divide(first_tiles, second_tiles):
        first = min(wanted, first_tiles)
        return first, min(max(1, wanted // first), second_tiles)

    def last_thread(m_parts, n_parts):
        largest = min(m, up(m_tiles, m_parts) * MR) * min(n, up(n_tiles, n_parts) * NR)
        return (up(m_parts * n_parts, threads) - 1) * m * n / (m_parts * n_parts) + largest

    rows = divide(m_tiles, n_tiles)
    columns = tuple(reversed(divide(n_tiles, m_tiles)))
    few_rows = m < 4 * MR and n_tiles > rows[0]
    return columns if few_rows or last_thread(*columns) < 0.97 * last_thread(*rows) else rows


def step_us(m, n, k, threads, a):
    m_parts, n_parts = parts(m, n, k, threads)
    m_tiles, n_tiles = up(m, MR), up(n, NR)
    tasks = []
    for i in range(m_parts):
        for j in range(n_parts):
            rows = min(m, (m_tiles * (i + 1) // m_parts) * MR) - m_tiles * i // m_parts * MR
            columns = (n_tiles * (j + 1) // n_parts - n_tiles * j // n_parts) * NR
            passes = up(rows * k, L2 // 4)  # blocks of rows that stay in L2; the weights are read again for each
            read = columns * k * (passes if columns * k > L2 // 2 else 1) + rows * k
            tasks.append(max(rows * columns * k / a.peak / 1e3, read / a.bandwidth / 1e3) + a.task)
    free = [0.0] * threads  # tasks go to whoever is free
    for t in sorted(tasks, reverse=True):
        heapq.heapreplace(free, free[0] + t)
    return max(free) + (a.step if len(tasks) > 1 else 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("peak", 236), ("bandwidth", 20), ("step", 2), ("task", 0.1)):
        parser.add_argument("--" + name, type=float, default=value)
    a = parser.parse_args()
    one = sum(step_us(*layer, 1, a) for layer in layers())
    print("| cores | model, ms | speed-up | of it ideal, ms | idle at the end of steps, reading, ms | handing out, ms |\n|---|---|---|---|---|---|")
    for threads in (1, 2, 4, 8, 16, 32, 64):
        total = sum(step_us(*layer, threads, a) for layer in layers())
        ideal = sum(m * n * k for m, n, k in layers()) / a.peak / 1e3 / threads
        handing = sum(a.step for layer in layers() if max(parts(*layer, threads)) > 1)
        print(f"| {threads} | {total / 1e3:.2f} | {one / total:.1f} | {ideal / 1e3:.2f} | {(total - ideal - handing) / 1e3:.2f} | {handing / 1e3:.2f} |")


if __name__ == "__main__":
    main()
