#!/usr/bin/python3
"""Writes tests/golden/modules_norm.json: PyTorch 1.13's static LayerNorm, GroupNorm and InstanceNorms
(tests/quant/norm_modules_test.cpp).

Run by hand, from the repository's root, with Debian's python3 and python3-torch (1.13); a second:

    /usr/bin/python3 scripts/oracle/norm_modules.py

The form of the cases is modules.py's. gamma (seed + 3) and beta (seed + 4) are made on both sides. PyTorch takes the sums of
the codes in vectors of float32, octet in double of their values: one step.
"""
import warnings

import torch
import torch.nn.quantized as nnq

from dynamic import write
from modules import codes_case, done, numbers
from observers import values

warnings.filterwarnings("ignore")


def main():
    cases, seed = [], 1200000
    forms = [("LayerNorm", (3, 4, 9)), ("LayerNorm", (2, 3, 4, 5)), ("GroupNorm", (2, 6, 3, 4)), ("InstanceNorm1d", (2, 5, 12)),
             ("InstanceNorm2d", (2, 5, 3, 4)), ("InstanceNorm3d", (1, 4, 3, 2, 3))]
    for i in range(120):
        name, shape = forms[i % len(forms)]
        pick = numbers(seed + 5)
        eps = [1e-5, 1e-3][i // 6 % 2]
        if name == "LayerNorm":
            size = list(shape[pick(1, len(shape) - 1):])
            config = {"normalized_shape": size, "eps": eps, "elementwise_affine": True}
        elif name == "GroupNorm":
            size = [shape[1]]
            config = {"num_groups": [1, 2, 3, 6][pick(0, 3)], "num_channels": shape[1], "eps": eps, "affine": True}
        else:
            size = [shape[1]]
            config = {"num_features": shape[1], "eps": eps, "momentum": 0.1, "affine": True, "track_running_stats": False}
        case, x = codes_case("module", name, seed, shape, 1, ["quint8", "qint8"][i % 2], ["qnnpack", "onednn"][i // 2 % 2], config=config)
        gamma, beta = (torch.nn.Parameter(torch.from_numpy(values("normal", seed + k, torch.Size(size).numel(), 1.0, 0.0)).reshape(size))
                       for k in (3, 4))
        s, z = case["y"]
        if name == "LayerNorm":
            module = nnq.LayerNorm(size, gamma, beta, s, z, eps=eps)
        elif name == "GroupNorm":
            module = nnq.GroupNorm(config["num_groups"], config["num_channels"], gamma, beta, s, z, eps=eps)
        else:
            module = getattr(nnq, name)(shape[1], gamma, beta, s, z, eps=eps)
        cases.append(done(case, module(x)))
        seed += 20
    write("modules_norm", cases)


if __name__ == "__main__":
    main()
