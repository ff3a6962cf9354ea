#!/usr/bin/python3
"""Writes tests/golden/fake_quantize*.json: PyTorch 1.13's fake quantization, forward and backward
(tests/quant/fake_quantize_golden_test.cpp).

Run by hand, from the repository's root, with Debian's python3 and python3-torch (1.13); a few seconds:

    /usr/bin/python3 scripts/oracle/fake_quantize.py

Inputs are not stored: both sides make them as observers.py does. Results y and the gradient dx (of a dy that is data
too) are stored as the FNV-1a hash of their float32 bits (-0 as 0); sums that depend on their order, as hexadecimal floats.
"""
import warnings

import numpy as np
import torch
from torch.ao.quantization import fake_quantize as fq, observer as ao
from torch.ao.quantization._learnable_fake_quantize import _LearnableFakeQuantize

from observers import hexes, values, write

warnings.filterwarnings("ignore")


def fnv(tensor):
    """FNV-1a, 64 bits, over the float32 values' bits, four bytes at a time as one unit."""
    h = 0xCBF29CE484222325
    for word in (tensor.detach().contiguous().numpy() + np.float32(0)).reshape(-1).view(np.uint32):
        h = ((h ^ int(word)) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return "%016x" % h


def tensor(case, seed=0, kind=None):
    n = int(np.prod(case["shape"]))
    x = values(kind or case["kind"], case["seed"] + seed, n, case["scale"], case["offset"])
    return torch.from_numpy(x).reshape(case["shape"])


def upstream(case):
    x = values("normal", case["seed"] + 9999, int(np.prod(case["shape"])), 1.0, 0.0)
    return torch.from_numpy(x).reshape(case["shape"])


RANGES = [("quint8", 0, 255), ("quint8", 0, 127), ("qint8", -128, 127), ("qint8", -127, 127), ("quint8", 0, 15),
          ("qint8", -8, 7), ("qint8", -2, 1)]
DATA = [("normal", 1.0, 0.0), ("uniform", 20.0, 3.0), ("relu", 0.5, 0.0), ("cubic", 3.0, -1.0), ("steps", 4.0, 0.0)]


def operator_cases():
    """The operators themselves, with given qparams."""
    cases, seed = [], 50000
    for form in ("per_tensor", "per_channel", "float_qparams", "learnable", "learnable_per_channel"):
        for dtype, lo, hi in RANGES:
            for kind, scale, offset in DATA:
                case = dict(form=form, quant_min=lo, quant_max=hi, kind=kind, seed=seed, scale=scale, offset=offset)
                channels = 1 if form in ("per_tensor", "learnable") else 5
                case["shape"] = [4, 25] if channels == 1 else [2, 5, 3, 4] if seed % 40 else [5, 17]
                axis = case["axis"] = -1 if channels == 1 else len(case["shape"]) // 2 - 1
                # Scales that clip some of the data; zero points inside, and not at a half where they are rounded.
                u = values("uniform", seed + 5, 2 * channels, 1.0, 0.0).astype(np.float64)
                s = (scale * 2.0**(2.0 * u[:channels]) * 6 / (hi - lo)).astype(np.float32)
                z = lo + (u[channels:] + 1) / 2 * (hi - lo)
                if form.startswith("learnable"):
                    z = np.abs(np.rint(z)) + 0.3 * u[:channels]  # PyTorch's backward rounds negative ones otherwise
                    z = np.clip(z, max(lo, 0), hi)
                elif form != "float_qparams":
                    z = np.rint(z)
                z = z.astype(np.float32)
                case["scales"], case["zero_points"] = hexes(torch.from_numpy(s)), hexes(torch.from_numpy(z))
                seed += 20
                x = tensor(case).requires_grad_()
                ts, tz = torch.from_numpy(s), torch.from_numpy(z)
                if form == "per_tensor":
                    y = torch.fake_quantize_per_tensor_affine(x, ts, tz.int(), lo, hi)
                elif form == "per_channel":
                    y = torch.fake_quantize_per_channel_affine(x, ts, tz.int(), axis, lo, hi)
                elif form == "float_qparams":
                    y = torch.fake_quantize_per_channel_affine(x, ts, tz, axis, lo, hi)
                else:
                    ts.requires_grad_()
                    tz.requires_grad_()
                    factor = case["grad_factor"] = [1.0, 0.01, 0.3][seed // 20 % 3]
                    if axis < 0:
                        y = torch._fake_quantize_learnable_per_tensor_affine(x, ts, tz, lo, hi, factor)
                    else:
                        y = torch._fake_quantize_learnable_per_channel_affine(x, ts, tz, axis, lo, hi, factor)
                y.backward(upstream(case))
                case.update(y=fnv(y), dx=fnv(x.grad))
                if form.startswith("learnable"):
                    case.update(dscale=hexes(ts.grad), dzero_point=hexes(tz.grad))
                cases.append(case)
    return cases


def module_cases():
    """The modules over several batches: qparams, y and dx after each."""
    cases, seed = [], 80000
    forms = []
    for dtype, lo, hi in RANGES[:6]:
        for qscheme in ("per_tensor_affine", "per_tensor_symmetric", "per_channel_affine", "per_channel_symmetric"):
            if dtype == "quint8" and "symmetric" in qscheme:
                continue
            observer = "MovingAveragePerChannelMinMaxObserver" if "channel" in qscheme else "MovingAverageMinMaxObserver"
            for name in ("FakeQuantize", "FusedMovingAvgObsFakeQuantize", "LearnableFakeQuantize"):
                forms.append((name, observer, dtype, qscheme, lo, hi))
            forms.append(("FakeQuantize", observer.replace("MovingAverage", ""), dtype, qscheme, lo, hi))
    for name, observer, dtype, qscheme, lo, hi in forms:
        for kind, scale, offset in (("normal", 1.0, 0.1), ("uniform", 1e-4, 0.0), ("relu", 5.0, 0.0),
                                    ("cubic", 2.0, -9.0)):
            case = dict(module=name, observer=observer, dtype=dtype, qscheme=qscheme, quant_min=lo, quant_max=hi,
                        kind=kind, seed=seed, scale=scale, offset=offset, shape=[3, 4, 5], batches=1 + seed // 20 % 4)
            seed += 20
            kwargs = dict(dtype=getattr(torch, dtype), qscheme=getattr(torch, qscheme))
            if "Moving" in observer:
                kwargs["averaging_constant"] = case["averaging_constant"] = [0.01, 0.1, 1.0][seed // 20 % 3]
            if "channel" in qscheme:
                kwargs["ch_axis"] = case["ch_axis"] = 0 if name.startswith("Fused") else 1  # all that PyTorch's can
            kwargs.update(observer=getattr(ao, observer), quant_min=lo, quant_max=hi)
            if name == "LearnableFakeQuantize":
                channels = 4 if "channel" in qscheme else -1
                module = _LearnableFakeQuantize(channel_len=channels, use_grad_scaling=True, **kwargs)
            else:
                module = getattr(fq, name)(**kwargs)
            case["steps"] = []
            for b in range(case["batches"]):
                x = tensor(case, b).requires_grad_()
                y = module(x)
                y.backward(upstream(case))
                step = dict(scales=hexes(module.scale), zero_points=hexes(module.zero_point), y=fnv(y), dx=fnv(x.grad))
                if name.startswith("Learnable") and module.zero_point.min() < 0:
                    del step["dx"]  # PyTorch's backward takes another zero point than its forward
                case["steps"].append(step)
            cases.append(case)
    return cases


if __name__ == "__main__":
    write("fake_quantize_operators.json", operator_cases())
    write("fake_quantize_modules.json", module_cases())
