#!/usr/bin/python3
"""Writes tests/golden/model_report.json: what the detectors of PyTorch 1.13's ModelReport say of small models
(tests/debug/model_report_test.cpp).

Run by hand, from the repository's root, with Debian's python3 and python3-torch (1.13); a few seconds:

    /usr/bin/python3 scripts/oracle/model_report.py

Models are sequences of layers (`build`), made on both sides, as are weights and data (`parameters`, `batches`). Each detector has
a ModelReport of its own: with several, which percentile an observer has depends on the order of a set. Layers that were fused
are called by the path that they have in the model: PyTorch says "0.0" of a Linear "0" that was fused with a ReLU. Not here, as
PyTorch cannot: inputs that have another number of channels in each batch (rows of tokens), layers without a qconfig.
"""
import warnings

import numpy as np
import torch
from torch import nn
from torch.ao.quantization import default_dynamic_quant_observer, default_per_channel_weight_observer, get_default_qconfig_mapping
from torch.ao.quantization.fx._model_report.detector import (DynamicStaticDetector, InputWeightEqualizationDetector, OutlierDetector,
                                                             PerChannelDetector)
from torch.ao.quantization.fx._model_report.model_report import ModelReport
from torch.ao.quantization.quantize_fx import prepare_fx

from dynamic import write
from observers import values

warnings.filterwarnings("ignore")

# Layers: [class, arguments ...]. `data`: one list [kind, scale, offset] for each batch. `spread`: channel c of the input is
# multiplied by 2^(spread * (c mod 8)).
CASES = [
    {"name": "linear", "layers": [["Linear", 5, 4]], "input": [16, 5], "data": [["normal", 1, 0]] * 4},
    {"name": "linear relu linear", "layers": [["Linear", 6, 8], ["ReLU"], ["Linear", 8, 3]], "input": [32, 6],
     "data": [["normal", 1, 0]] * 6},
    {"name": "unlike channels", "layers": [["Linear", 8, 8], ["ReLU"], ["Linear", 8, 3]], "input": [32, 8], "spread": 1,
     "data": [["normal", 1, 0]] * 4},
    {"name": "little unlike", "layers": [["Linear", 8, 8]], "input": [32, 8], "spread": 0.25,
     "data": [["uniform", 1, 0]] * 4},
    {"name": "growing", "layers": [["Linear", 5, 4], ["Linear", 4, 4]], "input": [16, 5],
     "data": [["normal", 2.0 ** k, 0] for k in range(6)]},
    {"name": "wandering", "layers": [["Linear", 5, 4], ["ReLU"]], "input": [16, 5],
     "data": [["normal", 1, 4.0 * k] for k in range(6)]},
    {"name": "long tails", "layers": [["Linear", 4, 4], ["ReLU"], ["Linear", 4, 2]], "input": [200, 4],
     "data": [["cubic", 1, 0]] * 3},
    {"name": "zeros now and then", "layers": [["Linear", 4, 4]], "input": [50, 4],
     "data": [["normal", 1, 0], ["normal", 0, 0], ["cubic", 1, 0], ["normal", 0, 2.0]]},
    {"name": "negative percentiles", "layers": [["Linear", 3, 3]], "input": [100, 3],
     "data": [["cubic", 1, -4.0], ["cubic", 1, -5.0]]},
    {"name": "conv", "layers": [["Conv2d", 3, 4, 3]], "input": [2, 3, 6, 6], "data": [["normal", 1, 0]] * 3},
    {"name": "convs",
     "layers": [["Conv2d", 3, 8, 3], ["ReLU"], ["MaxPool2d", 2], ["Conv2d", 8, 4, 2], ["ReLU"], ["Flatten"], ["Linear", 16, 5]],
     "input": [2, 3, 8, 8], "spread": 2, "data": [["normal", 1, 0]] * 4},
    {"name": "conv1d and 3d", "layers": [["Conv1d", 4, 6, 3], ["ReLU"], ["Conv1d", 6, 2, 2]],
     "input": [3, 4, 9], "spread": 1, "data": [["hollow", 1, 0]] * 3},
    {"name": "conv3d", "layers": [["Conv3d", 2, 3, 2]], "input": [2, 2, 4, 4, 4], "data": [["uniform", 1, 1.0]] * 3},
    {"name": "per channel", "layers": [["Linear", 5, 4], ["ReLU"], ["Linear", 4, 2]], "input": [16, 5], "mapping": "onednn",
     "data": [["normal", 1, 0]] * 2},
]


def build(layers):
    make = {"MaxPool2d": lambda k: nn.MaxPool2d(k), "Flatten": lambda: nn.Flatten(1)}
    return nn.Sequential(*(make.get(name, getattr(nn, name, None))(*args) for name, *args in layers))


def parameters(model, seed):
    """Parameter (or buffer, of models without parameters) k in the order of the model: values("normal", seed + k)."""
    with torch.no_grad():
        for k, p in enumerate(list(model.parameters()) or list(model.buffers())):
            p.copy_(torch.from_numpy(values("normal", seed + k, p.numel(), 1.0, 0.0)).reshape(p.shape))


def spread_of(case, ndim):
    channels = case["input"][1]
    factors = np.exp2(np.float32(case.get("spread", 0)) * (np.arange(channels) % 8)).astype(np.float32)
    return torch.from_numpy(factors).reshape([1, channels] + [1] * (ndim - 2))


def batches(case):
    shape = case["input"]
    for k, (kind, scale, offset) in enumerate(case["data"]):
        x = torch.from_numpy(values(kind, case["seed"] + 100 + k, int(np.prod(shape)), scale, offset)).reshape(shape)
        yield x * spread_of(case, len(shape))


def plain(v):
    if isinstance(v, torch.Tensor):
        v = v.tolist()
    if isinstance(v, list):
        return [plain(e) for e in v]
    if isinstance(v, float) and not np.isfinite(v):
        return str(v)
    return v


def rows(prepared, info):
    """By the path in the model; the ReLU of a fused layer is left out."""
    result = {}
    fused = {path for path, module in prepared.named_modules() if type(module).__module__.startswith("torch.nn.intrinsic") or
             type(module).__module__.startswith("torch.ao.nn.intrinsic")}
    for path, row in info.items():
        parent, _, last = path.rpartition(".")
        if parent in fused:
            if last != "0":
                continue
            path = parent
        result[path] = {key: plain(value) for key, value in row.items()}
    return result


def detectors():
    return [PerChannelDetector("qnnpack"), DynamicStaticDetector(), InputWeightEqualizationDetector(0.5), OutlierDetector()]


def calibrated(c, wanted):
    model = build(c["layers"])
    parameters(model, c["seed"])
    model.eval()
    prepared = prepare_fx(model, get_default_qconfig_mapping(c.get("mapping", "qnnpack")), (next(batches(c)),))
    report = ModelReport(prepared, wanted)
    watched = report.prepare_detailed_calibration()
    for x in batches(c):
        watched(x)
    return report, watched


def main():
    torch.backends.quantized.engine = "qnnpack"
    for i, c in enumerate(CASES):
        c["seed"] = 9100000 + 1000 * i
        c["reports"] = {}
        for detector in detectors():
            name = detector.get_detector_name()
            report, watched = calibrated(c, {detector})
            c["reports"][name] = rows(watched, report.generate_model_report(False)[name][1])
        report, watched = calibrated(c, set(detectors()[:2]))
        report.generate_model_report(False)
        qconfigs = report.generate_qconfig_mapping().module_name_qconfigs
        c["mapping_says"] = rows(watched, {path: {"dynamic": q.activation is default_dynamic_quant_observer,
                                                  "per_channel": q.weight is default_per_channel_weight_observer}
                                           for path, q in qconfigs.items()})
    write("model_report", CASES)


if __name__ == "__main__":
    main()
