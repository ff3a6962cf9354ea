#!/usr/bin/python3
"""One measurement of PyTorch's quantized engines: torch_peer.py ROW THREADS SECONDS -> {"onednn": ms, "qnnpack": ms} or {"fp32": ms}

ROW is one of bench/compare.py's: resnet18, resnet50, mobilenet_v2 (".q": static int8), dynamic_linear_MxKxN, dynamic_lstm. Run with Debian's
python3 (PyTorch 1.13); exits with 3 if there is no PyTorch, with 4 if the row is none of its.
"""
import copy
import json
import os
import sys
import time
import warnings

os.environ["GLOG_minloglevel"] = "2"  # qnnpack would write a warning at each call
try:
    import torch
    import torchvision
    from torch import nn
    from torch.ao.quantization import get_default_qconfig_mapping, quantize_dynamic
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
except ImportError:
    sys.exit(3)

warnings.filterwarnings("ignore")


def median_ms(model, x, seconds):
    with torch.inference_mode():
        for _ in range(3):
            model(x)
        times = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 5:
            start = time.perf_counter()
            model(x)
            times.append((time.perf_counter() - start) * 1e3)
    return sorted(times)[len(times) // 2]


def static(model, x):
    prepared = prepare_fx(copy.deepcopy(model), get_default_qconfig_mapping(torch.backends.quantized.engine), (x,))
    with torch.inference_mode():
        prepared(x)
    return convert_fx(prepared)


def row_of(row):
    """The float model, its input, and how it is quantized (None: not at all)."""
    name, _, kind = row.partition(".")
    if name in ("resnet18", "resnet50", "mobilenet_v2"):
        return getattr(torchvision.models, name)(weights=None).eval(), torch.randn(1, 3, 224, 224), static if kind == "q" else None
    if row.startswith("dynamic_linear_"):
        m, k, n = map(int, row.rpartition("_")[2].split("x"))
        return nn.Sequential(nn.Linear(k, n)), torch.randn(m, k), lambda model, _: quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    if row == "dynamic_lstm":
        return nn.LSTM(512, 512, 2), torch.randn(64, 1, 512), lambda model, _: quantize_dynamic(model, {nn.LSTM}, dtype=torch.qint8)
    sys.exit(4)


def main():
    row, threads, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, x, quantize = row_of(row)
    result = {}
    if quantize is None:
        result["fp32"] = median_ms(model, x, seconds)
    else:
        for engine in ("onednn", "qnnpack"):
            torch.backends.quantized.engine = engine
            result[engine] = median_ms(quantize(model, x), x, seconds)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
