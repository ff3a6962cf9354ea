#!/usr/bin/python3
"""Writes tests/golden/numeric_suite_eager.json: the numeric suite of PyTorch 1.13's eager mode on small models.

Run by hand, from the repository's root, with Debian's python3 and python3-torch (1.13); half a minute:

    /usr/bin/python3 scripts/oracle/numeric_suite.py

The models, their parameters, qconfigs and qparams are those of eager.py's cases (tests/golden/eager_*.json), named here by file and
number; the float model is the fused one. A case has, by PyTorch's keys,

- weights: compare_weights of the two state dicts
- outputs: get_matching_activations after prepare_model_outputs and one call of each model
- stubs: compare_model_stub with all layers, fused layers and FloatFunctionals in the module_swap_list

and for each key: the float and the quantized tensor, and PyTorch's metrics of the two, [SQNR, normalised L2 error, cosine
similarity]. A tensor is {"shape", "norm", "probe"}: its L2 norm and its product with probe(); small ones have {"values"}.

PyTorch shows the result of a fused module to its logger twice, as an observer (eager.py, prepare); here it is shown once. Weights of
Conv3d are left out: qnnpack cannot unpack them.
"""
import json
import os
import warnings

import numpy as np
import torch
import torch.ao.ns._numeric_suite as ns
import torch.ao.quantization as tq
from torch import nn
from torch.ao.ns.fx import utils

import eager
from dynamic import OUT, write

warnings.filterwarnings("ignore")
TINY = 8


def probe(n):
    return ((np.arange(n, dtype=np.float64) * 7919) % 1000) / 1000 - 0.5


def short(v):
    return float("%.9g" % v)


def describe(t):
    t = t.dequantize() if t.is_quantized else t
    v = t.detach().double().numpy().reshape(-1)
    d = {"shape": list(t.shape)}
    if v.size <= TINY:
        d["values"] = [short(x) for x in v]
    else:
        d["norm"], d["probe"] = short(np.linalg.norm(v)), short((v * probe(v.size)).sum())
    return d


def number(v):
    v = None if v is None else float(v)
    return None if v is None or not np.isfinite(v) else short(v)


def pair(x, y):
    x = x.detach()
    shaped = y.reshape(x.shape) if y.numel() == x.numel() else y
    metrics = [number(f(x, shaped)) for f in (utils.compute_sqnr, utils.compute_normalized_l2_error, utils.compute_cosine_similarity)]
    return {"float": describe(x), "quantized": describe(y), "metrics": metrics}


def weights(found):
    return {key: pair(w["float"], w["quantized"]) for key, w in found.items()}


def results(found):
    out = {}
    for key, y in found.items():
        assert len(y["float"]) == len(y["quantized"]) == 1, (key, len(y["float"]), len(y["quantized"]))
        out[key] = pair(y["float"][0], y["quantized"][0])
    return out


SWAPPED = {nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.quantized.FloatFunctional,
           nn.intrinsic.LinearReLU, nn.intrinsic.ConvReLU1d, nn.intrinsic.ConvReLU2d, nn.intrinsic.ConvReLU3d,
           nn.intrinsic.BNReLU2d}


def suite(out, make, x):
    """`make` gives the float and the quantized model anew."""
    fused, int8 = make()
    if not any(isinstance(m, torch.ao.nn.quantized.Conv3d) for m in int8.modules()):
        out["weights"] = weights(ns.compare_weights(fused.state_dict(), int8.state_dict()))
    f, q = make()
    ns.prepare_model_outputs(f, q)
    for m in f.modules():
        if isinstance(m, nn.intrinsic._FusedModule):
            m._forward_hooks.clear()
    f(x), q(x)
    out["outputs"] = results(ns.get_matching_activations(f, q))
    f, q = make()
    out["stubs"] = results(ns.compare_model_stub(f, q, SWAPPED, x))
    return out


def static(c):
    cls = getattr(eager, c["model"])
    model = cls()
    eager.fill(model, c["seed"], c["exact"])
    model.eval()
    fused = tq.fuse_modules(model, cls.fuse) if cls.fuse else model
    fused.qconfig = eager.qconfig(c["qconfig"])
    if cls is eager.Mixed:
        fused.conv2.qconfig = None
    prepared = eager.prepare(fused)
    for b in range(c["batches"]):
        prepared(eager.batch(c, b))
    return fused, tq.convert(prepared)


def dynamic(c):
    model = getattr(eager, c["model"])()
    eager.fill(model, c["seed"], c["exact"])
    model.eval()
    return model, tq.quantize_dynamic(model, {nn.Linear: getattr(tq, c["qconfig"])})


def case(file, number, c, make):
    return suite({"file": file, "number": number, "model": c["model"]}, lambda: make(c), eager.batch(c, -1))


def eager_cases():
    cases = []
    with open(os.path.join(OUT, "eager_qnnpack.json")) as f:
        for i, c in enumerate(json.load(f)["cases"]):
            if c["qconfig"] == "minmax" or (c["qconfig"] == "minmax_per_channel" and c["exact"] and
                                            c["model"] in ("Static", "Mlp", "ResNet", "Conv1dNet", "Pools")):
                cases.append(case("eager_qnnpack.json", i, c, static))
    seen = set()
    with open(os.path.join(OUT, "eager_dynamic.json")) as f:
        for i, c in enumerate(json.load(f)["cases"]):
            if (c["model"], c["qconfig"]) not in seen:
                seen.add((c["model"], c["qconfig"]))
                cases.append(case("eager_dynamic.json", i, c, dynamic))
    return cases


if __name__ == "__main__":
    torch.backends.quantized.engine = "qnnpack"
    with torch.no_grad():
        write("numeric_suite_eager", eager_cases())
