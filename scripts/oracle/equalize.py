#!/usr/bin/python3
"""Writes tests/golden/equalize.json: PyTorch 1.13's torch.ao.quantization._equalize on chains of layers
(tests/quant/equalize_test.cpp).

Run by hand, from the repository's root, with Debian's python3 and python3-torch (1.13); a few seconds:

    /usr/bin/python3 scripts/oracle/equalize.py

Weights are made on both sides (`weight`). Every channel has weights of both signs: where one has not, PyTorch leaves 0 out
of its range, and octet does not. Results are base64 of float32. What PyTorch cannot do is not here: layers without bias at the
beginning of a pair, other convolutions than Conv2d, groups.
"""
import warnings

import numpy as np
import torch
from torch import nn
from torch.ao.quantization import _equalize

from dynamic import write
from modules import pack
from observers import uniform, values

warnings.filterwarnings("ignore")


def weight(seed, shape):
    """|normal| * (-1)^(row + column) * 2^(-5..4, chosen for each row)."""
    w = np.abs(values("normal", seed, int(np.prod(shape)), 1.0, 0.0)).reshape(shape)
    rows = np.exp2(np.floor(uniform(seed + 1, shape[0]) * 10.0) - 5.0).astype(np.float32)
    rest = (1,) * (len(shape) - 1)
    signs = 1.0 - 2.0 * ((np.arange(shape[0])[:, None] + np.arange(shape[1])[None]) % 2)
    return torch.from_numpy((w * rows.reshape(-1, *rest) * signs.reshape(*signs.shape, *rest[1:])).astype(np.float32))


def main():
    cases = []
    for i in range(80):
        u = uniform(880000 + i, 16)
        n = 2 + i % 3
        c = {"seed": 7000000 + 100 * i, "threshold": [1e-4, 1e-2, 1.0][i // 3 % 3], "layers": []}
        channels = [2 + int(u[k] * 5) for k in range(n + 1)]
        convs = int(u[5] * (n + 1))  # the first ones; the others are Linear
        model, modules = nn.Sequential(), []
        for k in range(n):
            relu, size = bool(u[6 + k] < 0.5), 1 + int(u[11 + k] * 3)
            cin, cout = channels[k], channels[k + 1]
            layer = nn.Conv2d(cin, cout, size) if k < convs else nn.Linear(cin, cout)
            with torch.no_grad():
                layer.weight.copy_(weight(c["seed"] + 3 * k, tuple(layer.weight.shape)))
                layer.bias.copy_(torch.from_numpy(values("normal", c["seed"] + 3 * k + 2, cout, 1.0, 0.0)))
            modules.append(layer)
            if relu:
                layer = (nn.intrinsic.ConvReLU2d if k < convs else nn.intrinsic.LinearReLU)(layer, nn.ReLU())
            c["layers"].append({"conv": k < convs, "relu": relu, "shape": list(modules[-1].weight.shape)})
            model.add_module(str(k), layer)
        model.eval()
        pairs = [[str(k), str(k + 1)] for k in range(n - 1)]
        if i % 4 == 3:
            pairs.reverse()
        c["pairs"] = pairs
        _equalize.equalize(model, pairs, c["threshold"], inplace=True)
        for layer, out in zip((m if isinstance(m, (nn.Conv2d, nn.Linear)) else m[0] for m in model), c["layers"]):
            out.update(weight=pack(layer.weight.detach().numpy()), bias=pack(layer.bias.detach().numpy()))
        cases.append(c)
    write("equalize", cases)


if __name__ == "__main__":
    main()
