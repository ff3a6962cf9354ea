#!/usr/bin/python3
"""Writes tests/golden/observers_*.json: what PyTorch 1.13's observers answer (tests/quant/observer_golden_test.cpp).

Run by hand, from the repository's root, with Debian's python3 and python3-torch (1.13); a few seconds:

    /usr/bin/python3 scripts/oracle/observers.py

Inputs are not stored: both sides make them with SplitMix64 (octet/base/random.h) and a few exact double operations;
see `values`. Floats that must match bit for bit are stored as hexadecimal.

The histogram cases do not call HistogramObserver.forward, which drops the values beyond int(min) and int(max): they
hand the observer a right histogram of the data, as torch.histc makes it, and record the qparams its search then finds.
"""
import json
import os
import warnings

import numpy as np
import torch
from torch.ao.quantization import fake_quantize, observer as ao, qconfig as qconfigs

warnings.filterwarnings("ignore")
OUT = os.path.join(os.path.dirname(__file__), "..", "..", "tests", "golden")
f32 = np.float32


def uniform(seed, n):
    """The first n numbers of octet::Random(seed).uniform()."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def values(kind, seed, n, scale, offset):
    """n float32 values: f(base * scale + offset), where base takes 12 uniform numbers each.

    normal: their sum - 6. uniform: twice the first, - 1. relu: normal, at least 0. cubic: normal^3 (long tails).
    hollow: normal + 4 or - 4 by the sign of normal (two hills). steps: the normal rounded to eighths.
    """
    u = uniform(seed, 12 * n).reshape(n, 12)
    normal = np.zeros(n)
    for k in range(12):
        normal = normal + u[:, k]
    normal = normal - 6.0
    base = {
        "normal": lambda: normal,
        "uniform": lambda: u[:, 0] * 2.0 - 1.0,
        "relu": lambda: np.maximum(normal, 0.0),
        "cubic": lambda: normal * normal * normal,
        "hollow": lambda: np.where(normal < 0, normal - 4.0, normal + 4.0),
        "steps": lambda: np.rint(normal * 8.0) / 8.0,
    }[kind]()
    return (base * scale + offset).astype(f32)


def batches_of(case):
    """The batches of a case: seed + b, scaled by growth^b."""
    n = int(np.prod(case["shape"]))
    scale = case["scale"]
    for b in range(case["batches"]):
        x = values(case["kind"], case["seed"] + b, n, scale, case["offset"])
        yield torch.from_numpy(x).reshape(case["shape"])
        scale = scale * case["growth"]


def make(case):
    kwargs = dict(dtype=getattr(torch, case["dtype"]), qscheme=getattr(torch, case["qscheme"]),
                  reduce_range=case.get("reduce_range", False))
    for key in ("quant_min", "quant_max", "eps", "averaging_constant", "ch_axis"):
        if key in case:
            kwargs[key] = case[key]
    if "fixed" in case:  # FixedQParamsObserver, which knows no reduce_range
        del kwargs["reduce_range"]
        kwargs.update(case["fixed"])
    return getattr(ao, case["observer"])(**kwargs)


def hexes(tensor):
    return [float(v).hex() for v in tensor.reshape(-1)]


def answer(case):
    observer = make(case)
    for x in batches_of(case):
        observer(x)
    scale, zero_point = observer.calculate_qparams()
    if "fixed" not in case:
        case["min"], case["max"] = hexes(observer.min_val), hexes(observer.max_val)
    case["scales"] = hexes(scale)
    case["zero_points"] = hexes(zero_point) if zero_point.is_floating_point() else [int(z) for z in zero_point]
    case["codes"] = [int(observer.quant_min), int(observer.quant_max)]
    return case


def write(name, cases):
    path = os.path.join(OUT, name)
    with open(path, "w") as f:
        f.write('{"torch": "%s", "cases": [\n' % torch.__version__)
        f.write(",\n".join(json.dumps(c, separators=(",", ":")) for c in cases))
        f.write("\n]}\n")
    print(path, len(cases), "cases,", os.path.getsize(path), "bytes")


def codes(dtype, symmetric):
    """The ways to say which codes: all, reduced, custom ones, another eps."""
    ways = [{}, {"eps": 2.0**-12}, {"eps": 1e-9}]
    if dtype == "qint8":
        ways += [{"reduce_range": True}, {"quant_min": -127, "quant_max": 127}, {"quant_min": -8, "quant_max": 7},
                 {"quant_min": -127, "quant_max": 127, "reduce_range": True}]
    else:
        ways += [{"quant_min": 0, "quant_max": 127}, {"quant_min": 0, "quant_max": 15}]
        if not symmetric:
            ways += [{"reduce_range": True}]
    return ways


def range_cases(observers, shapes, schemes, per_case):
    cases, seed = [], 1000
    data = [  # kind, scale, offset, growth
        ("normal", 1.0, 0.0, 1.0), ("normal", 1e-6, 0.0, 1.5), ("uniform", 1e4, 0.0, 0.5), ("relu", 0.37, 0.0, 2.0),
        ("normal", 0.1, 5.0, 1.0), ("uniform", 3.0, -40.0, 1.1), ("cubic", 12.5, 0.25, 0.9), ("normal", 0.0, 0.0, 1.0),
        ("normal", 0.0, -2.5, 1.0), ("hollow", 1e-3, 0.0, 3.0), ("steps", 100.0, 1.0, 0.7),
    ]
    turn = 0
    for name in observers:
        for dtype in ("quint8", "qint8"):
            for scheme in schemes:
                for way in codes(dtype, "symmetric" in scheme):
                    for _ in range(per_case):
                        kind, scale, offset, growth = data[turn % len(data)]
                        shape, extra = shapes[turn % len(shapes)]
                        case = dict(observer=name, dtype=dtype, qscheme=scheme, **way, **extra)
                        if "MovingAverage" in name and turn % 3:
                            case["averaging_constant"] = [0.01, 0.1, 0.3][turn % 3]
                        case.update(kind=kind, seed=seed, shape=shape, scale=scale, offset=offset, growth=growth,
                                    batches=[1, 2, 5, 13][turn % 4])
                        cases.append(answer(case))
                        seed += 20
                        turn += 1
    return cases


def histogram_cases():
    cases, seed = [], 7000
    data = [("normal", 1.0), ("relu", 2.5), ("uniform", 0.8), ("cubic", 1.0), ("hollow", 0.01), ("normal", 1000.0)]
    ways = [dict(dtype="quint8", qscheme="per_tensor_affine"),
            dict(dtype="quint8", qscheme="per_tensor_affine", reduce_range=True),
            dict(dtype="qint8", qscheme="per_tensor_affine"),
            dict(dtype="qint8", qscheme="per_tensor_symmetric"),
            dict(dtype="quint8", qscheme="per_tensor_affine", quant_min=0, quant_max=15)]
    for n in (500, 5000, 60000):
        for kind, scale in data:
            for way in ways:
                case = dict(observer="HistogramObserver", **way, kind=kind, seed=seed, shape=[n], scale=scale,
                            offset=0.0, growth=1.0, batches=1)
                seed += 20
                x = next(batches_of(case))
                observer = make(case)
                observer.min_val.copy_(x.min())
                observer.max_val.copy_(x.max())
                observer.histogram.copy_(torch.histc(x, 2048, min=x.min().item(), max=x.max().item()))
                lo, hi = observer._non_linear_param_search()
                scale_, zero_point = observer.calculate_qparams()
                s, z = f32(scale_.item()), int(zero_point)
                q = np.clip(np.rint((x.numpy() * (f32(1) / s)).astype(f32)) + z, observer.quant_min, observer.quant_max)
                error = ((x.numpy().astype(np.float64) - (q.astype(np.float64) - z) * np.float64(s))**2).sum()
                case.update(range=hexes(torch.stack([lo, hi])), scales=[float(s).hex()], zero_points=[z],
                            codes=[int(observer.quant_min), int(observer.quant_max)], error=float(error))
                cases.append(case)
    return cases


def float_qparams_cases():
    """Scales and float zero points of per_channel_affine_float_qparams, for embeddings of 8 and 4 bits."""
    cases, seed = [], 20000
    ways = [dict(dtype="quint8"), dict(dtype="quint4x2"), dict(dtype="quint8", quant_min=0, quant_max=15),
            dict(dtype="quint8", eps=2.0**-12)]
    data = [("normal", 1.0, 0.0, 1.0), ("uniform", 0.02, 3.0, 1.5), ("cubic", 40.0, -100.0, 0.8),
            ("relu", 1.0, 0.0, 2.0), ("normal", 1e-9, 0.0, 1.0), ("normal", 0.0, 2.5, 1.0)]
    for name in ("PerChannelMinMaxObserver", "MovingAveragePerChannelMinMaxObserver"):
        for way in ways:
            for kind, scale, offset, growth in data:
                case = dict(observer=name, qscheme="per_channel_affine_float_qparams", **way)
                case.update(kind=kind, seed=seed, shape=[4, 16], scale=scale, offset=offset, growth=growth,
                            batches=1 + seed // 20 % 3)
                cases.append(answer(case))
                seed += 20
    return cases


def fixed_cases():
    cases = []
    for dtype, ranges in (("quint8", [(0, 255), (0, 127)]), ("qint8", [(-128, 127), (-127, 127)])):
        for lo, hi in ranges:
            for scale in (1 / 256, 2 / 256, 0.1, 1e-5, 3.0):
                for zero_point in sorted({lo, 0, (lo + hi + 1) // 2, hi}):
                    case = dict(observer="FixedQParamsObserver", dtype=dtype, qscheme="per_tensor_affine",
                                kind="normal", seed=1, shape=[8], scale=1.0, offset=0.0, growth=1.0, batches=1,
                                quant_min=lo, quant_max=hi, fixed=dict(scale=scale, zero_point=zero_point))
                    cases.append(answer(case))
    return cases


def qnnpack_cases():
    """The observers of the symmetric qnnpack family: codes -127..127, no scale below 2^-12."""
    cases, seed = [], 30000
    for observer, qscheme in (("MinMaxObserver", "per_tensor_symmetric"),
                              ("MovingAverageMinMaxObserver", "per_tensor_symmetric"),
                              ("MinMaxObserver", "per_tensor_affine"),
                              ("PerChannelMinMaxObserver", "per_channel_symmetric"),
                              ("MovingAveragePerChannelMinMaxObserver", "per_channel_symmetric")):
        for scale in (1.0, 0.05, 0.02, 1e-3, 1e-8):
            for batches in (1, 3):
                case = dict(observer=observer, dtype="qint8", qscheme=qscheme, quant_min=-127, quant_max=127,
                            eps=2.0**-12, kind="normal", seed=seed, shape=[3, 20], scale=scale, offset=0.0, growth=1.5,
                            batches=batches)
                cases.append(answer(case))
                seed += 20
    return cases


def definition(factory):
    """What a QConfig's activation or weight, a named observer or a named fake-quantize module makes, field by field."""
    made = factory()
    case = {"class": type(made).__name__}
    if isinstance(made, fake_quantize.FakeQuantizeBase):
        made = made.activation_post_process
        case = {"class": type(made).__name__, "fake_quantize": case["class"]}
    for key in ("dtype", "qscheme"):
        if hasattr(made, key):
            case[key] = str(getattr(made, key)).replace("torch.", "")
    passive = ("PlaceholderObserver", "NoopObserver", "Identity", "RecordingObserver", "ReuseInputObserver")
    if case["class"] not in passive:
        case.update(quant_min=int(made.quant_min), quant_max=int(made.quant_max))
    for key in ("reduce_range", "averaging_constant", "ch_axis"):
        if hasattr(made, key):
            case[key] = getattr(made, key)
    for key in ("eps", "scale", "zero_point"):
        if hasattr(made, key):
            case[key] = getattr(made, key).item()
    if case["class"] == "PlaceholderObserver":
        case["is_dynamic"] = getattr(made, "compute_dtype", None) is not None
    return case


def definition_cases():
    cases = []

    def add(name, q, **how):
        cases.append(dict(qconfig=name, **how, activation=definition(q.activation), weight=definition(q.weight)))

    for name in sorted(vars(qconfigs)):
        if isinstance(getattr(qconfigs, name), qconfigs.QConfig):
            add(name, getattr(qconfigs, name))
    for backend in ("fbgemm", "x86", "qnnpack", "onednn"):
        add(backend, qconfigs.get_default_qconfig(backend))
        for version in (0, 1):
            add(backend, qconfigs.get_default_qat_qconfig(backend, version), version=version)
    for module in (ao, fake_quantize):
        for name in sorted(vars(module)):
            factory = getattr(module, name)
            named = name.startswith(("default_", "fused_")) or "range_neg_127" in name
            if named and (isinstance(factory, ao._PartialWrapper) or isinstance(factory, type)):
                if module is ao or "fake_quant" in name:
                    cases.append(dict(name=name, makes=definition(factory)))
    return cases


if __name__ == "__main__":
    tensor = [([64], {}), ([2, 3, 5], {}), ([1], {}), ([3, 4, 5, 6], {})]
    channel = [([4, 3], {}), ([3, 2, 3, 3], {}), ([2, 3, 4], {"ch_axis": 1}), ([5, 2, 3], {"ch_axis": 2}),
               ([3, 1, 1, 1], {})]
    write("observers_min_max.json",
          range_cases(["MinMaxObserver", "MovingAverageMinMaxObserver"], tensor,
                      ["per_tensor_affine", "per_tensor_symmetric"], 5))
    write("observers_per_channel.json",
          range_cases(["PerChannelMinMaxObserver", "MovingAveragePerChannelMinMaxObserver"], channel,
                      ["per_channel_affine", "per_channel_symmetric"], 4))
    write("observers_histogram.json", histogram_cases())
    write("observers_more.json", float_qparams_cases() + fixed_cases() + qnnpack_cases())
    write("observers_qconfigs.json", definition_cases())
