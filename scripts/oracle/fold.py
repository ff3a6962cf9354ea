#!/usr/bin/python3
"""Writes tests/golden/fold.json: layers with a batch norm folded in, by PyTorch 1.13 (tests/quant/fold_golden_test.cpp).

Run by hand, from the repository's root, with Debian's python3 and python3-torch (1.13); a second:

    /usr/bin/python3 scripts/oracle/fold.py

Parameters are made on both sides from the case's seed: weight, bias, gamma, beta, running mean and variance are values()
of observers.py with seed, seed + 1, ... seed + 5. The folded weight and bias are stored as base64 of their float32 bits.

Transposed layers with groups are folded group by group: PyTorch's own function takes them for layers of out/groups channels.
"""
import warnings

import numpy as np
import torch
from torch import nn
from torch.nn.utils import fusion

from dynamic import write
from modules import numbers, pack
from observers import values

warnings.filterwarnings("ignore")
FORMS = ["Linear", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]


def normal(seed, shape, scale=1.0):
    return torch.from_numpy(values("normal", seed, int(np.prod(shape)), scale, 0.0)).reshape(shape)


def make(cls, seed):
    pick = numbers(seed)
    transposed, spatial = "Transpose" in cls, 0 if cls == "Linear" else int(cls[-2])
    bias = pick(0, 3) > 0
    if spatial:
        groups = pick(1, 3)
        config = {"in_channels": groups * pick(1, 3), "out_channels": groups * pick(1, 3), "groups": groups, "bias": bias,
                  "kernel_size": [pick(1, 3) for _ in range(spatial)]}
        layer = getattr(nn, cls)(**config)
        config.update(stride=[1] * spatial, padding=[0] * spatial, dilation=[1] * spatial, output_padding=[0] * spatial)
        channels = config["out_channels"]
    else:
        groups = 1
        config = {"in_features": pick(1, 9), "out_features": pick(1, 9), "bias": bias}
        layer = nn.Linear(**config)
        channels = config["out_features"]
    affine = not spatial or pick(0, 3) > 0  # PyTorch cannot fold one without into a linear layer
    bn = {"num_features": channels, "eps": [1e-5, 1e-3, 1e-8][pick(0, 2)], "affine": affine, "momentum": 0.1,
          "track_running_stats": True}
    norm = getattr(nn, "BatchNorm%dd" % max(spatial, 1))(channels, bn["eps"], 0.1, affine)
    case = {"module": cls, "seed": seed, "config": config, "bn": bn, "var_scale": [1.0, 1e-3, 1e4][pick(0, 2)],
            "gamma": ["normal", "steps"][pick(0, 1)]}
    layer.weight.data = normal(seed, layer.weight.shape)
    if bias:
        layer.bias.data = normal(seed + 1, (channels,))
    if affine:
        norm.weight.data = torch.from_numpy(values(case["gamma"], seed + 2, channels, 1.0, 0.0))
        norm.bias.data = normal(seed + 3, (channels,))
    norm.running_mean = normal(seed + 4, (channels,))
    norm.running_var = torch.from_numpy(values("relu", seed + 5, channels, case["var_scale"], 0.0))
    if not spatial:
        w, b = fusion.fuse_linear_bn_weights(layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps,
                                             norm.weight, norm.bias)
    else:
        def part(t, n):
            return list(t.chunk(n)) if t is not None else [None] * n
        n = groups if transposed else 1
        of = [part(t, n) for t in (layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias)]
        folded = [fusion.fuse_conv_bn_weights(w, b, m, v, norm.eps, g, e, transposed) for w, b, m, v, g, e in zip(*of)]
        w, b = (torch.cat([f[k] for f in folded]) for k in (0, 1))
    case["weight"], case["result_bias"] = pack(w.detach().numpy()), pack(b.detach().numpy())
    return case


if __name__ == "__main__":
    write("fold", [make(FORMS[i % len(FORMS)], 900000 + 20 * i) for i in range(140)])
