#!/usr/bin/python3
"""Writes tests/golden/modules_recurrent.json: PyTorch 1.13's quantize_dynamic of recurrent networks on engine qnnpack
(tests/quant/recurrent_modules_test.cpp).

Run by hand, from the repository's root, with Debian's python3 and python3-torch (1.13); a few seconds:

    /usr/bin/python3 scripts/oracle/recurrent_modules.py

Inputs are not stored but made on both sides from the case's seed: x (seed), the states (seed + 1, seed + 2), the parameters
in their order (seed + 10 + k). Results are base64 of float32. What PyTorch cannot do is not here: no biases, projections,
unbatched sequences, RNN.
"""
import warnings

import numpy as np
import torch
import torch.ao.quantization as tq

from dynamic import write
from modules import pack
from observers import uniform, values

warnings.filterwarnings("ignore")


def network(case):
    args, o = (case["input_size"], case["hidden_size"]), {}
    if not case["kind"].endswith("Cell"):
        o = {k: case[k] for k in ("num_layers", "batch_first", "bidirectional")}
    elif case["kind"] == "RNNCell":
        o = {"nonlinearity": case["nonlinearity"]}
    m = getattr(torch.nn, case["kind"])(*args, **o).eval()
    with torch.no_grad():
        for k, w in enumerate(m.parameters()):
            w.copy_(torch.from_numpy(values("uniform", case["seed"] + 10 + k, w.numel(), 0.5, 0.0).reshape(w.shape)))
    return m


def main():
    torch.backends.quantized.engine = "qnnpack"
    cases = []
    for i in range(120):
        u = uniform(170000 + i, 8)
        kind = ["LSTM", "GRU", "LSTM", "GRU", "LSTMCell", "GRUCell", "RNNCell"][i % 7]
        cell = kind.endswith("Cell")
        c = {"kind": kind, "seed": 1000000 + 100 * i, "input_size": 1 + int(u[0] * 9), "hidden_size": 1 + int(u[1] * 9)}
        if not cell:
            c.update(num_layers=1 + int(u[2] * 3), batch_first=bool(u[3] < 0.5), bidirectional=bool(u[4] < 0.5))
        elif kind == "RNNCell":
            c["nonlinearity"] = ["tanh", "relu"][i // 7 % 2]
        c["states"] = bool(u[5] < 0.6)
        steps, batch = 1 + int(u[6] * 5), 1 + int(u[7] * 3)
        m = network(c)
        if cell:
            c["shape"], state = [batch, c["input_size"]], [batch, c["hidden_size"]]
        else:
            c["shape"] = [batch, steps, c["input_size"]] if c["batch_first"] else [steps, batch, c["input_size"]]
            state = [c["num_layers"] * (1 + c["bidirectional"]), batch, c["hidden_size"]]
        x = torch.from_numpy(values("normal", c["seed"], int(np.prod(c["shape"])), 1.0, 0.0).reshape(c["shape"]))
        h, s = (torch.from_numpy(values("uniform", c["seed"] + k, int(np.prod(state)), 0.7, 0.0).reshape(state)) for k in (1, 2))
        given = ((h, s) if kind.startswith("LSTM") else h) if c["states"] else None
        q = tq.quantize_dynamic(torch.nn.Sequential(m), {type(m)}, dtype=torch.qint8)[0]
        c["repr"] = repr(q)
        with torch.no_grad():
            out = q(x, given)
        if cell:
            out = out if isinstance(out, tuple) else (out,)
        else:
            out = (out[0],) + (out[1] if isinstance(out[1], tuple) else (out[1],))
        c["out"] = [pack(o.numpy()) for o in out]
        cases.append(c)
    write("modules_recurrent", cases)


if __name__ == "__main__":
    main()
