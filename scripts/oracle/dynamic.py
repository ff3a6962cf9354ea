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


def quantized_weight(w):
    o = tq.default_weight_observer()
    o(w)
    s, z = o.calculate_qparams()
    return float(s), int(z)


def recurrent():
    """Sequences of t steps through one layer (two directions where "bidirectional"), and single steps through cells."""
    torch.backends.quantized.engine = "qnnpack"
    cases = []
    for i in range(150):
        u = uniform(95000 + i, 6)
        kind = ["LSTM", "GRU", "LSTMCell", "GRUCell", "RNNCell"][i % 5]
        cell = kind.endswith("Cell")
        c = {"kind": kind, "seed": 40000 + 100 * i, "t": 1 if cell else 1 + int(u[0] * 6), "n": 1 + int(u[1] * 3),
             "features": 1 + int(u[2] * 9), "hidden": 1 + int(u[3] * 9), "bidirectional": not cell and bool(u[4] < 0.4)}
        args = (c["features"], c["hidden"])
        if cell:
            extra = {} if kind != "RNNCell" else {"nonlinearity": ["tanh", "relu"][i // 5 % 2]}
            c.update(extra)
            m = getattr(torch.nn, kind)(*args, **extra)
        else:
            m = getattr(torch.nn, kind)(*args, bidirectional=c["bidirectional"])
        seed = c["seed"]
        names = [n for n, _ in m.named_parameters()]
        with torch.no_grad():
            for k, (_, w) in enumerate(m.named_parameters()):
                w.copy_(torch.from_numpy(values("uniform", seed + 10 + k, w.numel(), 0.5, 0.0).reshape(w.shape)))
        c["qparams"] = [quantized_weight(w.detach()) if "weight" in n else None for n, w in m.named_parameters()]
        c["qparams"] = [[p[0].hex(), p[1]] if p else None for p in c["qparams"]]
        assert names[:4] == (["weight_ih", "weight_hh", "bias_ih", "bias_hh"] if cell else
                             ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"])
        directions = 2 if c["bidirectional"] else 1
        x = torch.from_numpy(values("normal", seed, c["t"] * c["n"] * c["features"], 1.0, 0.0).reshape(c["t"], c["n"], -1))
        shape = (directions, c["n"], c["hidden"])
        h, s = (torch.from_numpy(values("uniform", seed + k, int(np.prod(shape)), 0.7, 0.0).reshape(shape)) for k in (1, 2))
        for name, model in (("float", m), ("dynamic", tq.quantize_dynamic(torch.nn.Sequential(m))[0])):
            with torch.no_grad():
                if cell:
                    out = model(x[0], (h[0], s[0]) if kind == "LSTMCell" else h[0])
                    out = out if isinstance(out, tuple) else (out,)
                else:
                    y, state = model(x, (h, s) if kind == "LSTM" else h)
                    out = (y,) + (state if isinstance(state, tuple) else (state,))
            c[name] = [bits(o.numpy()) for o in out]
        cases.append(c)
    write("dynamic_recurrent", cases)


if __name__ == "__main__":
    qparams()
    linear()
    recurrent()
