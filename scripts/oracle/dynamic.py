#!/usr/bin/python3
"""Writes tests/golden/dynamic_*.json: PyTorch 1.13's dynamic quantization (tests/ops/dynamic_golden_test.cpp).

Run by hand, from the repository's root, with Debian's python3 and python3-torch (1.13); a few seconds:

    /usr/bin/python3 scripts/oracle/dynamic.py

Inputs are not stored but made on both sides (values and codes below; observers.py tells how). Results are stored as the
eight hexadecimal digits of their float32 bits.

dynamic_qparams: torch.quantize_per_tensor_dynamic (engine onednn: qnnpack's ignores reduce_range).
dynamic_linear: quantized::linear_dynamic and linear_relu_dynamic on engine qnnpack.
dynamic_recurrent: nn.LSTM and GRU and the cells after quantize_dynamic, on engine qnnpack.
"""
import json
import os
import warnings

import numpy as np
import torch
import torch.ao.quantization as tq

from observers import uniform, values

warnings.filterwarnings("ignore")
OUT = os.path.join(os.path.dirname(__file__), "..", "..", "tests", "golden")
KINDS = ["normal", "uniform", "relu", "cubic", "hollow", "steps"]
f32 = np.float32


def bits(a):
    return "".join("%08x" % v for v in np.ascontiguousarray(a, dtype=f32).view(np.uint32).ravel())


def codes(seed, n):
    """n qint8 codes: floor(256 * uniform) - 128."""
    return (np.floor(uniform(seed, n) * 256.0) - 128.0).astype(np.int8)


def scales(seed, n):
    """n scales: f(0.001 + 0.02 * uniform)."""
    return (0.001 + 0.02 * uniform(seed, n)).astype(f32).astype(np.float64)


def write(name, cases):
    path = os.path.join(OUT, name + ".json")
    with open(path, "w") as f:
        f.write('{"torch": "%s", "cases": [\n' % torch.__version__)
        f.write(",\n".join(json.dumps(c, separators=(",", ":")) for c in cases))
        f.write("\n]}\n")
    print(path, len(cases), "cases,", os.path.getsize(path), "bytes")


def qparams():
    torch.backends.quantized.engine = "onednn"
    cases = []
    for i in range(360):
        c = {"kind": KINDS[i % 6], "seed": 5000 + 20 * i, "n": 12, "reduce_range": bool(i // 6 % 2)}
        c["scale"] = 10.0 ** (i // 12 % 10 - 6)
        c["offset"] = [0.0, 1.0, -1.0][i // 120] * c["scale"] * 3.0
        x = torch.from_numpy(values(c["kind"], c["seed"], c["n"], c["scale"], c["offset"]))
        q = torch.quantize_per_tensor_dynamic(x, torch.quint8, c["reduce_range"])
        c.update(s=float(q.q_scale()).hex(), z=q.q_zero_point(), codes=q.int_repr().tolist())
        cases.append(c)
    write("dynamic_qparams", cases)


def weight(seed, shape, per_channel, axis=0):
    q = torch.from_numpy(codes(seed, int(np.prod(shape))).reshape(shape))
    if not per_channel:
        return torch._make_per_tensor_quantized_tensor(q, float(scales(seed + 1, 1)[0]), 0)
    n = shape[axis]
    return torch._make_per_channel_quantized_tensor(q, torch.from_numpy(scales(seed + 1, n)), torch.zeros(n, dtype=torch.long), axis)


def linear():
    torch.backends.quantized.engine = "qnnpack"
    cases = []
    for i in range(400):
        u = uniform(90000 + i, 8)
        c = {"kind": KINDS[i % 6], "seed": 20000 + 50 * i, "m": 1 + int(u[0] * 4), "k": 1 + int(u[1] * 40), "n": 1 + int(u[2] * 9)}
        c.update(per_channel=bool(i % 2), bias=bool(u[3] < 0.8), relu=bool(u[4] < 0.25), scale=10.0 ** int(u[5] * 5 - 3), offset=0.0)
        if i % 5 == 4:
            c["offset"] = 2.0 * c["scale"]
        x = torch.from_numpy(values(c["kind"], c["seed"], c["m"] * c["k"], c["scale"], c["offset"]).reshape(c["m"], c["k"]))
        w = weight(c["seed"] + 1, (c["n"], c["k"]), c["per_channel"])
        b = torch.from_numpy(values("normal", c["seed"] + 3, c["n"], 1.0, 0.0)) if c["bias"] else None
        op = torch.ops.quantized.linear_relu_dynamic if c["relu"] else torch.ops.quantized.linear_dynamic
        y = op(x, torch.ops.quantized.linear_prepack(w, b), False)
        c["y"] = bits(y.numpy())
        cases.append(c)
    write("dynamic_linear", cases)


if __name__ == "__main__":
    qparams()
    linear()
