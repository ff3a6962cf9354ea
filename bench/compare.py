#!/usr/bin/env python3
"""octet and its peers in turns on the same networks: prints the ratios as a table, and writes them as JSON.

    bench/compare.py DIRECTORY [--only NAME ...] [--threads 1 2] [--rounds 5] [--torch-rounds 2] [--seconds 0.5] [--avx2 DIR] [--json OUT.json]

DIRECTORY holds the ONNX files that bench/models.py and bench/real.py make; rows whose files are missing are left out. Each round runs the programs once,
in fresh processes, one after the other; the ratio of a round is the peer's median latency by octet's, and the table shows the median of
the rounds with the lowest and highest: on a shared machine trust those, not the milliseconds.
  ONNX Runtime   if ORT_DIR names the onnxruntime-node package (npm install --ignore-scripts onnxruntime-node). --avx2 DIR: the copy
                 that bench/ort_avx2.py made, with octet held to AVX2 too
  PyTorch        if /usr/bin/python3 has it (Debian's python3-torch, python3-torchvision): float32, or the faster of its engines onednn
                 and qnnpack. It takes seconds to start, so it takes part in the first --torch-rounds rounds only.
"""
import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys

from real import NETWORKS

HERE = pathlib.Path(__file__).resolve().parent
BIN = HERE.parent / "build/bin"
PYTHON = "/usr/bin/python3"


@dataclasses.dataclass
class Row:
    name: str
    file: str           # ONNX Runtime's, in DIRECTORY
    dims: list          # of its input
    torch: str = ""     # row of bench/torch_peer.py
    operator: str = ""  # row of bench_operators, for octet's side; {} is DIRECTORY. "": `octet bench` of the file
    real: bool = False  # a real network, whose file may leave sizes open


def rows():
    image, small, tokens = [1, 3, 224, 224], [1, 1, 28, 28], [1, 128, 768]
    for kind in (".q", ""):
        for name in ("resnet18", "resnet50", "mobilenet_v2"):
            yield Row(name + kind, f"{name}{kind}.onnx", image, name + kind)
        yield Row("mobilenet_v3" + kind, f"mobilenet_v3{kind}.onnx", image)
        yield Row("unet" + kind, f"unet{kind}.onnx", [1, 3, 256, 256])
        yield Row("yolo" + kind, f"yolo{kind}.onnx", [1, 3, 320, 320])
        yield Row("bert2" + kind, f"bert2{kind}.onnx", tokens)
        yield Row("transformer12" + kind, f"transformer12{kind}.onnx", [1, 128, 384])
        for name in ("mlp", "cnn28"):
            yield Row(name + kind, f"{name}{kind}.onnx", small)
        if kind == ".q":
            yield Row("bert2.dynamic", "bert2.dynamic.onnx", tokens, operator="{}/bert2.onnx")
            for sizes in ("1x4096x4096", "128x768x3072", "1024x1024x1024"):
                name = f"dynamic_linear_{sizes}"
                yield Row(name, name + ".onnx", [int(d) for d in sizes.split("x")[:2]], name, name)
            yield Row("dynamic_lstm", "dynamic_lstm.onnx", [64, 1, 512], "dynamic_lstm", "dynamic_lstm")
            for m in (1, 16):
                for arithmetic in ("", "dynamic_"):  # float activations; quantized to 8 bits as ONNX Runtime's
                    name = f"int4_{arithmetic}linear_{m}x4096x4096"
                    yield Row(name, f"int4_linear_{m}x4096x4096.onnx", [m, 4096], operator=name)
        for network in NETWORKS:
            yield Row(network.name + kind, f"{network.name}{kind}.onnx", network.dims, real=True)


def run(command, environment):
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=os.environ | environment)
    if result.returncode:
        sys.exit(f"compare.py: {' '.join(map(str, command))}: {result.stderr.strip().splitlines()[-1] if result.stderr else 'failed'}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def median_of(measurements, key):
    return statistics.median(m[key] for m in measurements)


class Table:
    """The measurements of one row on so many threads, and how they are shown."""

    def __init__(self, row, threads):
        self.row, self.threads = row, threads
        self.octet, self.onnxruntime, self.torch = [], [], []

    def ratios(self, peer):
        return [p["median_ms"] / o["median_ms"] for p, o in zip(peer, self.octet)]

    def peer_cells(self, peer):
        if not peer:
            return ["", ""]
        ratios = self.ratios(peer)
        engine = f" ({peer[0]['engine']})" if "engine" in peer[0] else ""
        return [f"{median_of(peer, 'median_ms'):.3g}{engine}", f"{statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"]

    def memory_cell(self, measurements):
        return f"{median_of(measurements, 'load_ms'):.0f}, {median_of(measurements, 'peak_rss_mb'):.0f}" if measurements else ""

    def line(self):
        cells = [self.row.name, str(self.threads), f"{median_of(self.octet, 'median_ms'):.3g}"]
        cells += self.peer_cells(self.onnxruntime) + self.peer_cells(self.torch)
        # (bench_operators makes its layers itself: its memory is no loader's.)
        cells += ["", ""] if self.row.operator else [self.memory_cell(self.octet), self.memory_cell(self.onnxruntime)]
        return "| " + " | ".join(cells) + " |"

    def as_json(self):
        result = {"model": self.row.name, "threads": self.threads}
        for name in ("octet", "onnxruntime", "torch"):
            measurements = getattr(self, name)
            result[name] = measurements
            if name != "octet" and measurements:
                result[f"ratio_{name}"] = statistics.median(self.ratios(measurements))
        return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--bin", type=pathlib.Path, default=BIN, help="where octet and bench_operators are; default build/bin")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--torch-rounds", type=int, default=2, help="0: without PyTorch")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[r.name for r in rows()], help="; ".join(r.name for r in rows()))
    parser.add_argument("--avx2", type=pathlib.Path, metavar="DIR", help="both without AVX-512 and VNNI, PyTorch left out; DIR is bench/ort_avx2.py's")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    ours, theirs = {}, {}  # environment variables
    if args.avx2:
        held = args.avx2.resolve()
        if not (held / "cpuid.so").exists():
            parser.error(f"--avx2 {args.avx2}: no cpuid.so there; expected a directory that bench/ort_avx2.py made")
        ours = {"OCTET_ISA": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
        theirs = {"ORT_DIR": str(held / "node_modules/onnxruntime-node"), "LD_PRELOAD": str(held / "cpuid.so")}
    ort = "ORT_DIR" in os.environ | theirs
    torch = (args.torch_rounds > 0 and not args.avx2
             and subprocess.run([PYTHON, "-c", "import torch, torchvision"], capture_output=True).returncode == 0)
    done = []
    print("| model | threads | octet ms | ONNX Runtime ms | ratio (lowest..highest) | PyTorch ms | ratio | octet load ms, MB "
          "| ONNX Runtime load ms, MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows():
        model = args.directory / row.file
        operator = row.operator.replace("{}", str(args.directory))
        if (args.only and row.name not in args.only) or not model.exists():
            continue
        for threads in args.threads:
            table = Table(row, threads)
            for i in range(args.rounds):
                if torch and row.torch and i < args.torch_rounds:
                    engines = run([PYTHON, HERE / "torch_peer.py", row.torch, threads, args.seconds], {})
                    best = min(engines, key=engines.get)
                    table.torch.append({"median_ms": engines[best], "engine": best, "engines": engines})
                if ort:
                    table.onnxruntime.append(run(["node", HERE / "ort.js", model, threads, args.seconds, *row.dims], theirs))
                if operator:
                    table.octet.append(run([args.bin / "bench_operators", operator, threads, args.seconds], ours))
                else:
                    shape = ["--shape", "x".join(map(str, row.dims))] if row.real else []
                    table.octet.append(run([args.bin / "octet", "bench", model, *shape, "--threads", threads, "--seconds", args.seconds, "--json"], ours))
            print(table.line(), flush=True)
            done.append(table.as_json())
    if not done:
        sys.exit(f"compare.py: {args.directory} has none of the files; make them with bench/models.py {args.directory}")
    if args.json:
        args.json.write_text(json.dumps(done, indent=1) + "\n")


if __name__ == "__main__":
    main()
