#!/usr/bin/env python3
"""octet and ONNX Runtime in turns on the same model files: prints the ratios as a table, and writes them as JSON.

    bench/compare.py DIRECTORY [--threads 1 2] [--rounds 5] [--seconds 1] [--only NAME ...] [--json OUT.json]

DIRECTORY holds ONNX models; those of MODELS that are there are measured. Each round runs both programs once, in fresh processes; the
ratio of a round is ONNX Runtime's median latency by octet's, and the table shows the median of the rounds with the lowest and highest:
on a shared machine trust those, not the milliseconds. ORT_DIR names the onnxruntime-node package (npm install --ignore-scripts
onnxruntime-node); without it only octet is measured.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
MODELS = {  # file: input dimensions
    "resnet18.q.onnx": [1, 3, 224, 224],
    "resnet50.q.onnx": [1, 3, 224, 224],
    "mobilenet_v2.q.onnx": [1, 3, 224, 224],
    "bert2.q.onnx": [1, 128, 768],
    "mlp.q.onnx": [1, 1, 28, 28],
    "cnn28.q.onnx": [1, 1, 28, 28],
    "resnet18.onnx": [1, 3, 224, 224],
    "resnet50.onnx": [1, 3, 224, 224],
    "mobilenet_v2.onnx": [1, 3, 224, 224],
    "bert2.onnx": [1, 128, 768],
    "mlp.onnx": [1, 1, 28, 28],
    "cnn28.onnx": [1, 1, 28, 28],
}


def run(command, **environment):
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if result.returncode:
        sys.exit(f"compare.py: {' '.join(map(str, command))}: {result.stderr.strip().splitlines()[-1] if result.stderr else 'failed'}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--octet", default=HERE.parent / "build/bin/octet")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    peer = "ORT_DIR" in os.environ
    rows = []
    print("| model | threads | octet ms | ONNX Runtime ms | ratio (lowest..highest) | octet load ms, MB | ONNX Runtime load ms, MB |")
    print("|---|---|---|---|---|---|---|")
    for name, dims in MODELS.items():
        model = args.directory / name
        if not model.exists() or (args.only and name not in args.only):
            continue
        for threads in args.threads:
            ours, theirs = [], []
            for _ in range(args.rounds):
                if peer:
                    theirs.append(run(["node", HERE / "ort.js", model, str(threads), str(args.seconds), *map(str, dims)]))
                ours.append(run([args.octet, "bench", model, "--threads", str(threads), "--seconds", str(args.seconds), "--json"]))
            row = {"model": name, "threads": threads, "octet": ours, "onnxruntime": theirs}
            of = lambda list_, key: statistics.median(r[key] for r in list_)
            cells = [name, str(threads), f"{of(ours, 'median_ms'):.3g}"]
            if peer:
                ratios = [t["median_ms"] / o["median_ms"] for t, o in zip(theirs, ours)]
                row["ratio"] = statistics.median(ratios)
                cells += [f"{of(theirs, 'median_ms'):.3g}", f"{row['ratio']:.2f} ({min(ratios):.2f}..{max(ratios):.2f})"]
            else:
                cells += ["", ""]
            cells.append(f"{of(ours, 'load_ms'):.0f}, {of(ours, 'peak_rss_mb'):.0f}")
            cells.append(f"{of(theirs, 'load_ms'):.0f}, {of(theirs, 'peak_rss_mb'):.0f}" if peer else "")
            print("| " + " | ".join(cells) + " |", flush=True)
            rows.append(row)
    if not rows:
        sys.exit(f"compare.py: {args.directory} has none of {', '.join(MODELS)}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
