#!/usr/bin/python3
"""Writes tests/golden/modules_*.json: PyTorch 1.13's quantized modules (tests/quant/modules_golden_test.cpp).

Run by hand, from the repository's root, with Debian's python3 and python3-torch (1.13); a few seconds:

    /usr/bin/python3 scripts/oracle/modules.py

Operands are not stored but made on both sides from the case's seed: codes of the input (seed), weights (seed + 1), their
scales (seed + 2), bias (seed + 3), as in dynamic.py and observers.py. Results are stored as base64: codes, or float32.
`steps` is how many codes the results may differ by: 0 where PyTorch's arithmetic is well defined, else 1 (see each family).

A case names the class of a module (`module`, with `config`), or the operator that a module without qparams calls (`op`,
`attrs`), or a method of QFunctional (`functional`).
"""
import base64
import warnings

import numpy as np
import torch
import torch.nn.functional as F
import torch.nn.intrinsic.quantized as nniq
import torch.nn.intrinsic.quantized.dynamic as nniqd
import torch.nn.quantized as nnq
import torch.nn.quantized._reference as nnqr
import torch.nn.quantized.dynamic as nnqd

from dynamic import codes, scales, write
from observers import uniform, values

warnings.filterwarnings("ignore")
f32 = np.float32


def pack(a):
    return base64.b64encode(np.ascontiguousarray(a).tobytes()).decode()


def numbers(seed):
    """Endless choices for a case: pick(low, high) gives an integer of low..high."""
    state = iter(uniform(seed + 777777, 64))
    return lambda low, high: low + int(next(state) * (high - low + 1))


def quantized_input(case, dtype="quint8"):
    """Codes of all values; scale and zero point are the case's x."""
    shape = case["shape"]
    q = codes(case["seed"], int(np.prod(shape))).reshape(shape)
    if dtype == "quint8":
        q = (q.astype(np.int16) + 128).astype(np.uint8)
    return torch._make_per_tensor_quantized_tensor(torch.from_numpy(q), case["x"][0], case["x"][1])


def quantized_weight(case, shape, axis):
    q = torch.from_numpy(codes(case["seed"] + 1, int(np.prod(shape))).reshape(shape))
    if not case["per_channel"]:
        return torch._make_per_tensor_quantized_tensor(q, float(scales(case["seed"] + 2, 1)[0]), case["weight_zero_point"])
    n = shape[axis]
    return torch._make_per_channel_quantized_tensor(
        q, torch.from_numpy(scales(case["seed"] + 2, n)), torch.zeros(n, dtype=torch.long), axis)


def scale(u, low=-2.3, high=-0.5):
    return float(f32(10.0 ** (low + (high - low) * u)))


def result_of(case, real):
    """A scale and zero point for results of this range; a third of them saturate."""
    pick = numbers(case["seed"] + 13)
    real = real.detach().numpy()
    width = float(np.abs(real).max()) + 1e-6
    kind = pick(0, 2)
    if kind == 0:  # the range, as an observer chooses it
        low, high = min(real.min(), 0.0), max(real.max(), 0.0)
        s = float(f32((high - low + 1e-6) / 255))
        return [s, int(np.clip(np.rint(-low / s), 0, 255))]
    return [float(f32(width / (300 if kind == 1 else 40))), pick(0, 255)]


# -- linear and convolution layers ---------------------------------------------------------------------

def weighted_case(cls, seed, engine):
    """steps: 0 on qnnpack, whose arithmetic is octet's. 1 on onednn, which adds the bias in float."""
    pick = numbers(seed)
    spatial = 0 if "Linear" in cls else int(cls[-2])
    transposed, relu = "Transpose" in cls, "ReLU" in cls
    case = {"module": cls, "seed": seed, "engine": engine, "steps": 0 if engine == "qnnpack" else 1}
    config = {"bias": pick(0, 4) > 0}
    case["per_channel"] = bool(pick(0, 1))
    case["weight_zero_point"] = 0
    if not spatial:
        config.update(in_features=pick(1, 40), out_features=pick(1, 12))
        case["shape"] = [pick(1, 5), config["in_features"]]
        if pick(0, 5) == 0:
            case["shape"] = [2] + case["shape"]
        weight_shape = (config["out_features"], config["in_features"])
    else:
        groups, multiple = [(1, 0), (1, 0), (2, 2), (3, 1), (4, 1)][pick(0, 4)]
        depthwise = groups > 1 and multiple == 1
        cin = groups * (1 if depthwise else pick(1, 3))
        cout = groups * pick(1, 2 if depthwise else 4)
        if depthwise and transposed:
            cout = cin
        most = {1: 5, 2: 4, 3: 3}[spatial]
        config.update(in_channels=cin, out_channels=cout, groups=groups, kernel_size=[pick(1, most) for _ in range(spatial)])
        config.update(stride=[pick(1, 2) for _ in range(spatial)],
                      dilation=[pick(1, 2) if spatial < 3 and pick(0, 2) == 0 else 1 for _ in range(spatial)])
        config["padding"] = [pick(0, (k - 1) // 2 + 1) if pick(0, 1) else 0 for k in config["kernel_size"]]
        config["output_padding"] = [0] * spatial
        size = [max(pick(3, {1: 12, 2: 7, 3: 5}[spatial]), (k - 1) * d + 1) for k, d in
                zip(config["kernel_size"], config["dilation"])]
        if transposed:
            config["padding"] = [min(p, k - 1) for p, k in zip(config["padding"], config["kernel_size"])]
            if engine == "qnnpack":  # PyTorch refuses it on onednn
                config["output_padding"] = [pick(0, s - 1) for s in config["stride"]]
            size = [min(s, 5) for s in size]
            if engine == "onednn" or groups > 1:
                case["per_channel"] = False  # PyTorch refuses, or fails
            weight_shape = (cin, cout // groups, *config["kernel_size"])
        else:
            weight_shape = (cout, cin // groups, *config["kernel_size"])
        case["shape"] = [pick(1, 2), cin, *size]
    if engine == "qnnpack" and not case["per_channel"] and pick(0, 5) == 0:
        case["weight_zero_point"] = pick(-20, 20)
    case["config"] = config
    case["x"] = [scale(pick(0, 1000) / 1000), pick(0, 255)]
    out = weight_shape[1] * config["groups"] if transposed else weight_shape[0]
    if engine == "onednn" and spatial and depthwise and cout > cin and np.prod(config["kernel_size"]) == 8:
        return None  # PyTorch's results are up to 58 steps off
    arguments = {k: v for k, v in config.items() if k != "output_padding" or transposed}
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
    if cls == "Linear":
        arguments["bias_"] = arguments.pop("bias")
    torch.backends.quantized.engine = engine
    module = getattr(nniq if relu else nnq, cls)(**arguments)
    w = quantized_weight(case, weight_shape, 1 if transposed else 0)
    fan = float(np.sqrt(np.prod(weight_shape[1:]) if not transposed else np.prod(weight_shape[2:]) * cin / groups))
    case["bias_scale"] = float(f32(case["x"][0] * 0.01 * 2000 * fan))
    b = torch.from_numpy(values("normal", seed + 3, out, case["bias_scale"], 0.0)) if config["bias"] else None
    x = quantized_input(case)
    if spatial:
        f = getattr(F, "conv%s%dd" % ("_transpose" if transposed else "", spatial))
        more = dict(stride=config["stride"], padding=config["padding"], dilation=config["dilation"], groups=config["groups"])
        if transposed:
            more["output_padding"] = config["output_padding"]
        real = f(x.dequantize(), w.dequantize(), b, **more)
    else:
        real = F.linear(x.dequantize(), w.dequantize(), b)
    if real.numel() > 420:
        return None
    case["y"] = result_of(case, torch.relu(real) if relu else real)
    module.set_weight_bias(w, b)
    module.scale, module.zero_point = case["y"]
    y = module(x)
    assert y.shape == real.shape
    case["result"] = pack(y.int_repr().numpy())
    # Those that PyTorch gets wrong would be seen here.
    off = (y.dequantize() - real.clamp(min=0) if relu else y.dequantize() - real).abs()
    low, high = (0 - case["y"][1]) * case["y"][0], (255 - case["y"][1]) * case["y"][0]
    inside = (real > low) & (real < high)
    assert not inside.any() or off[inside].max() < case["y"][0] * 1.6, case
    return case


def weighted(plan, seed):
    cases = []
    for cls, engine, count in plan:
        made = 0
        while made < count:
            case = weighted_case(cls, seed, engine)
            seed += 20
            if case:
                cases.append(case)
                made += 1
    return cases


def linear_and_conv():
    write("modules_linear", weighted([("Linear", "qnnpack", 60), ("LinearReLU", "qnnpack", 30), ("Linear", "onednn", 30),
                                      ("LinearReLU", "onednn", 15)], 100000))
    write("modules_conv", weighted([("Conv2d", "qnnpack", 90), ("ConvReLU2d", "qnnpack", 50), ("Conv1d", "qnnpack", 30),
                                    ("ConvReLU1d", "qnnpack", 20), ("Conv3d", "qnnpack", 30), ("ConvReLU3d", "qnnpack", 20),
                                    ("Conv2d", "onednn", 40), ("ConvReLU2d", "onednn", 20), ("Conv1d", "onednn", 20),
                                    ("ConvReLU1d", "onednn", 10), ("Conv3d", "onednn", 20), ("ConvReLU3d", "onednn", 10)],
                                   200000))
    write("modules_conv_transpose", weighted([("ConvTranspose2d", "qnnpack", 50), ("ConvTranspose1d", "qnnpack", 30),
                                              ("ConvTranspose2d", "onednn", 30), ("ConvTranspose1d", "onednn", 15),
                                              ("ConvTranspose3d", "onednn", 15)], 300000))


# -- modules without a quantized weight ----------------------------------------------------------------

def codes_case(kind, name, seed, shape, steps, dtype="quint8", engine="onednn", **more):
    """The start of a case: `kind` is module, op or functional. The result has qparams of its own (y)."""
    pick = numbers(seed)
    low, high = (0, 255) if dtype == "quint8" else (-128, 127)
    case = {kind: name, "seed": seed, "engine": engine, "steps": steps, "shape": list(shape), "dtype": dtype}
    case["x"] = [scale(pick(0, 1000) / 1000), pick(low, high)]
    case["y"] = [scale(pick(0, 1000) / 1000), pick(low, high)]
    case.update(more)
    torch.backends.quantized.engine = engine
    return case, quantized_input(case, dtype)


def done(case, y):
    """Stores codes and qparams of y."""
    case["y"] = [y.q_scale(), y.q_zero_point()]
    case["result"] = pack(y.int_repr().numpy())
    return case


def activations():
    """Modules with qparams of their own: a float function between dequantize and quantize."""
    cases, seed = [], 400000

    def add(name, count, steps, make, shape=(3, 50), dtypes=("quint8", "qint8"), engines=("qnnpack", "onednn"), config=None,
            fixed=None):
        nonlocal seed
        for i in range(count):
            pick = numbers(seed + 5)
            dtype, engine = dtypes[i % len(dtypes)], engines[i // 2 % len(engines)]
            more = config(pick) if config else {}
            case, x = codes_case("module", name, seed, shape, steps, dtype, engine, config=more)
            if fixed:
                case["y"] = fixed(dtype, case["y"])
            cases.append(done(case, make(more, *case["y"])(x)))
            seed += 20

    add("ELU", 20, 0, lambda c, s, z: nnq.ELU(s, z, c["alpha"]), config=lambda p: {"alpha": p(1, 8) / 4})
    add("LeakyReLU", 20, 0, lambda c, s, z: nnq.LeakyReLU(s, z, c["negative_slope"]),
        config=lambda p: {"negative_slope": p(0, 32) / 64})
    add("Hardswish", 20, 0, lambda c, s, z: nnq.Hardswish(s, z))
    add("Sigmoid", 20, 0, lambda c, s, z: nnq.Sigmoid(s, z), fixed=lambda d, y: [1 / 256, 0 if d == "quint8" else -128])
    add("Sigmoid", 10, 0, lambda c, s, z: nnq.Sigmoid(s, z), engines=("onednn",))
    add("Softmax", 20, 0, lambda c, s, z: nnq.Softmax(c["dim"], s, z), shape=(3, 4, 5), config=lambda p: {"dim": p(-1, 2)},
        fixed=lambda d, y: [1 / 256, 0 if d == "quint8" else -128])
    add("Softmax", 10, 0, lambda c, s, z: nnq.Softmax(c["dim"], s, z), shape=(3, 4, 5), config=lambda p: {"dim": p(-1, 2)})
    write("modules_activations", cases + prelu(seed) + batch_norms(seed + 5000))


def prelu(seed):
    """PyTorch quantizes the slopes: only slopes that are codes (64ths) are the same numbers for both."""
    cases = []
    for i in range(20):
        pick = numbers(seed + 5)
        channels = [1, 4][i % 2]
        slopes = [pick(0, 80) / 64 for _ in range(channels)]
        case, x = codes_case("module", "PReLU", seed, (2, 4, 9), 0, config={"num_parameters": channels})
        case["weight"] = slopes
        module = nnq.PReLU(*case["y"], channels)
        module.set_weight(torch.quantize_per_tensor(torch.tensor(slopes), 1 / 64, 0, torch.quint8))
        cases.append(done(case, module(x)))
        seed += 20
    return cases


def batch_norms(seed):
    """PyTorch scales the codes by one float32 factor; octet computes in float32 on their values: one step."""
    cases = []
    forms = [("BatchNorm2d", nnq.BatchNorm2d, (2, 5, 3, 4)), ("BNReLU2d", nniq.BNReLU2d, (2, 5, 3, 4)),
             ("BatchNorm3d", nnq.BatchNorm3d, (1, 4, 3, 2, 3)), ("BNReLU3d", nniq.BNReLU3d, (1, 4, 3, 2, 3)),
             ("BatchNorm1d", None, (3, 4, 6))]
    for name, cls, shape in forms:
        for _ in range(12):
            channels = shape[1]
            case, x = codes_case("module", name, seed, shape, 1, config={"num_features": channels, "eps": 1e-5,
                                                                          "momentum": 0.1, "affine": True,
                                                                          "track_running_stats": True})
            gamma, beta, mean = (torch.from_numpy(values("normal", seed + k, channels, 1.0, 0.0)) for k in (3, 4, 5))
            var = torch.from_numpy(values("uniform", seed + 6, channels, 0.5, 0.75))
            s, z = case["y"]
            if cls is None:
                y = torch.ops.quantized.batch_norm1d(x, gamma, beta, mean, var, 1e-5, s, z)
            else:
                module = cls(channels).eval()
                module.weight.data, module.bias.data, module.running_mean, module.running_var = gamma, beta, mean, var
                module.scale, module.zero_point = torch.tensor(s), torch.tensor(z)
                y = module(x)
            cases.append(done(case, y))
            seed += 20
    return cases


# -- operators that modules call without qparams -------------------------------------------------------

def operators():
    cases, seed = [], 500000

    def add(op, count, steps, shape, attrs, run, dtypes=("quint8", "qint8"), engines=("qnnpack", "onednn"), own=False):
        nonlocal seed
        for i in range(count):
            pick = numbers(seed + 5)
            dtype, engine = dtypes[i % len(dtypes)], engines[i // 2 % len(engines)]
            a = attrs(pick) if callable(attrs) else attrs
            case, x = codes_case("op", op, seed, shape, steps, dtype, engine, attrs=a)
            if own:
                case["want"] = case["y"] if own == "y" else case["x"]
            cases.append(done(case, run(x, a, *case["y"])))
            seed += 20

    flat, image = (2, 77), (2, 3, 7, 8)
    add("relu", 8, 0, flat, {}, lambda x, a, s, z: torch.relu(x))
    add("relu6", 8, 0, flat, {}, lambda x, a, s, z: nnq.ReLU6()(x))
    add("clamp", 8, 0, flat, lambda p: {"min": -p(1, 20) / 8, "max": p(1, 20) / 8},
        lambda x, a, s, z: F.hardtanh(x, a["min"], a["max"]))
    add("threshold", 6, 0, flat, lambda p: {"threshold": p(-9, 9) / 8, "value": p(-9, 9) / 8},
        lambda x, a, s, z: F.threshold(x, a["threshold"], a["value"]), own="x")
    add("tanh", 12, 0, flat, {}, lambda x, a, s, z: torch.tanh(x))
    add("hardsigmoid", 12, 0, flat, {}, lambda x, a, s, z: F.hardsigmoid(x))
    add("gelu", 12, 0, flat, {}, lambda x, a, s, z: F.gelu(x), own="x")
    add("celu", 12, 0, flat, lambda p: {"alpha": p(1, 8) / 4}, lambda x, a, s, z: torch.ops.quantized.celu(x, s, z, a["alpha"]),
        own="y")

    def window(n, avg):
        def attrs(pick):
            kernel = [pick(2, 3) for _ in range(n)]
            a = {"kernel": kernel, "stride": [pick(1, 3) for _ in range(n)], "ceil_mode": bool(pick(0, 1))}
            a["padding"] = [pick(0, k // 2) for k in kernel] * 2
            if avg:
                a["count_include_pad"] = True
            elif n < 3:
                # Dilation only without padding: there qnnpack takes the border's code for the padding's.
                a["dilation"] = [pick(1, 2) if p == 0 else 1 for p in a["padding"][:n]]
            return a
        return attrs

    def pool(n, avg):
        f = getattr(F, "%s_pool%dd" % ("avg" if avg else "max", n))

        def run(x, a, s, z):
            more = {"ceil_mode": a["ceil_mode"], "padding": a["padding"][:n], "stride": a["stride"]}
            more.update({"count_include_pad": True} if avg else {"dilation": a["dilation"]} if n < 3 else {})
            return f(x, a["kernel"], **more)
        return run

    add("max_pool1d", 12, 0, (2, 3, 11), window(1, False), pool(1, False))
    add("max_pool2d", 24, 0, image, window(2, False), pool(2, False))
    add("avg_pool1d", 12, 1, (2, 3, 11), window(1, True), pool(1, True))
    add("avg_pool2d", 24, 1, image, window(2, True), pool(2, True))
    add("avg_pool3d", 8, 0, (1, 3, 4, 5, 4), window(3, True), pool(3, True), engines=("onednn",))
    add("adaptive_avg_pool1d", 6, 1, (2, 3, 11), lambda p: {"output_size": [p(1, 5)]},
        lambda x, a, s, z: F.adaptive_avg_pool1d(x, a["output_size"][0]))
    add("adaptive_avg_pool2d", 20, 1, image, lambda p: {"output_size": [p(1, 4), p(1, 4)]},
        lambda x, a, s, z: F.adaptive_avg_pool2d(x, a["output_size"]))
    add("adaptive_avg_pool3d", 8, 1, (1, 3, 4, 5, 4), lambda p: {"output_size": [p(1, 3) for _ in range(3)]},
        lambda x, a, s, z: F.adaptive_avg_pool3d(x, a["output_size"]))
    add("mean", 12, 1, image, lambda p: {"dim": [[2, 3], [1], [0, 2]][p(0, 2)], "keepdim": bool(p(0, 1))},
        lambda x, a, s, z: torch.mean(x, a["dim"], a["keepdim"]))
    add("interpolate", 8, 0, image, lambda p: {"size": [p(3, 12), p(3, 12)], "mode": "nearest", "coordinates": "asymmetric",
                                               "nearest_rounding": "floor"},
        lambda x, a, s, z: F.interpolate(x, a["size"], mode="nearest"))
    add("interpolate", 16, 1, image, lambda p: {"size": [p(3, 12), p(3, 12)], "mode": "linear",
                                                "coordinates": ["half_pixel", "align_corners"][p(0, 1)]},
        lambda x, a, s, z: F.interpolate(x, a["size"], mode="bilinear", align_corners=a["coordinates"] != "half_pixel"))
    add("pixel_shuffle", 4, 0, (2, 12, 3, 2), {"upscale_factor": 2}, lambda x, a, s, z: F.pixel_shuffle(x, 2))
    write("modules_operators", cases)


# -- QFunctional, Quantize, DeQuantize -----------------------------------------------------------------

def functionals():
    """add, cat and their like as PyTorch's portable kernels do them. Below 32 elements those take their scalar path, which
    is octet's arithmetic (steps 0); above, a vector path that rounds otherwise now and then (steps 1). qnnpack's own add is
    fixed point (steps 1)."""
    cases, seed = [], 600000

    def add(name, count, steps, shape, run, engines=("onednn",), second=None, **attrs):
        nonlocal seed
        for i in range(count):
            pick = numbers(seed + 5)
            case, x = codes_case("functional", name, seed, shape, steps, engine=engines[i % len(engines)])
            case.update(attrs)
            functional = nnq.QFunctional()
            functional.scale, functional.zero_point = case["y"]
            case["want"] = case["y"]
            if second == "scalar":
                case["value"] = [0.0, 0.5, -1.25, 3.0, -40.0, 100.0][i % 6]
                y = run(functional, x, case["value"])
            else:
                case["b"] = {"seed": seed + 1, "shape": list(second or shape), "dtype": "quint8",
                             "x": [scale(pick(0, 1000) / 1000), pick(0, 255)]}
                y = run(functional, x, quantized_input(case["b"]))
            cases.append(done(case, y))
            seed += 20

    for shape, steps, count in (((5, 6), 0, 20), ((3, 70), 1, 10)):
        add("add", count, steps, shape, lambda f, a, b: f.add(a, b))
        add("add_relu", count, steps, shape, lambda f, a, b: f.add_relu(a, b))
    add("add", 10, 1, (4, 40), lambda f, a, b: f.add(a, b), engines=("qnnpack",))
    add("add_relu", 10, 1, (4, 40), lambda f, a, b: f.add_relu(a, b), engines=("qnnpack",))
    add("add", 6, 0, (2, 3, 4), lambda f, a, b: f.add(a, b), second=(1, 3, 1))
    add("mul", 20, 0, (3, 70), lambda f, a, b: f.mul(a, b), engines=("onednn", "qnnpack"))
    add("mul", 6, 0, (2, 3, 4), lambda f, a, b: f.mul(a, b), second=(1, 3, 1))
    add("cat", 10, 0, (2, 3, 9), lambda f, a, b: f.cat([a, b], 1), engines=("onednn", "qnnpack"), dim=1)
    add("cat", 4, 0, (2, 3, 9), lambda f, a, b: f.cat([a, b], 0), engines=("onednn", "qnnpack"), second=(5, 3, 9), dim=0)
    add("matmul", 10, 0, (4, 6), lambda f, a, b: torch.ops.quantized.matmul(a, b, f.scale, f.zero_point), second=(6, 5))
    add("add_scalar", 12, 0, (2, 15), lambda f, a, v: f.add_scalar(a, v), engines=("onednn", "qnnpack"), second="scalar")
    add("mul_scalar", 12, 0, (2, 15), lambda f, a, v: f.mul_scalar(a, v), engines=("onednn", "qnnpack"), second="scalar")
    write("modules_functional", cases + stubs(seed))


def stubs(seed):
    cases = []
    for i in range(16):
        dtype = ["quint8", "qint8"][i % 2]
        case, x = codes_case("dequantize", "DeQuantize", seed, (3, 30), 0, dtype)
        case["result"] = pack(nnq.DeQuantize()(x).numpy())
        cases.append(case)
        seed += 20
        case, _ = codes_case("quantize", "Quantize", seed, (3, 30), 0, dtype)
        case["data"] = [["normal", "uniform", "cubic", "steps"][i % 4], [0.01, 1.0, 10.0][i % 3]]
        v = torch.from_numpy(values(case["data"][0], seed, 90, case["data"][1], 0.0)).reshape(3, 30)
        y = nnq.Quantize(case["y"][0], case["y"][1], getattr(torch, dtype))(v)
        cases.append(done(case, y))
        seed += 20
    return cases


# -- dynamic and reference modules ---------------------------------------------------------------------

def dynamic():
    """Dynamic linear modules on qnnpack: the same float32 bits."""
    cases, seed = [], 700000
    torch.backends.quantized.engine = "qnnpack"
    for i in range(40):
        pick = numbers(seed)
        cls = "LinearReLU" if i % 3 == 2 else "Linear"
        config = {"in_features": pick(1, 30), "out_features": pick(1, 9), "bias": pick(0, 3) > 0}
        case = {"module": "dynamic::" + cls, "seed": seed, "engine": "qnnpack", "config": config, "shape":
                [pick(1, 4), config["in_features"]], "per_channel": bool(i % 2), "weight_zero_point": 0, "bias_scale": 0.5,
                "data": [["normal", "relu", "cubic"][i % 3], [0.1, 1.0, 30.0][i // 3 % 3]]}
        if i % 5 == 4:
            case["shape"] = [2] + case["shape"]
        name = {"bias" if cls == "LinearReLU" else "bias_": config["bias"]}
        module = (nniqd if cls == "LinearReLU" else nnqd).__dict__[cls](config["in_features"], config["out_features"], **name)
        b = torch.from_numpy(values("normal", seed + 3, config["out_features"], 0.5, 0.0)) if config["bias"] else None
        module.set_weight_bias(quantized_weight(case, (config["out_features"], config["in_features"]), 0), b)
        x = values(case["data"][0], seed, int(np.prod(case["shape"])), case["data"][1], 0.0)
        case["result"] = pack(module(torch.from_numpy(x).reshape(case["shape"])).numpy())
        cases.append(case)
        seed += 20
    write("modules_dynamic", cases)


def reference():
    """Reference modules: float layers on dequantized weights. Weights bit for bit; results to float32's rounding."""
    cases, seed = [], 800000
    forms = [("Linear", 0), ("Conv1d", 1), ("Conv2d", 2), ("Conv3d", 3), ("ConvTranspose1d", 1), ("ConvTranspose2d", 2),
             ("ConvTranspose3d", 3)]
    for i in range(56):
        cls, spatial = forms[i % len(forms)]
        pick = numbers(seed)
        per_channel = bool(i // len(forms) % 2)
        transposed = "Transpose" in cls
        if spatial:
            config = {"in_channels": 4, "out_channels": pick(1, 3) * 2, "groups": pick(1, 2), "bias": True,
                      "kernel_size": [pick(1, 3) for _ in range(spatial)], "stride": [1] * spatial, "padding": [0] * spatial,
                      "dilation": [1] * spatial, "output_padding": [0] * spatial}
            args = {k: v for k, v in config.items() if k != "output_padding"}
            shape = [1, 4] + [4] * spatial
        else:
            config = {"in_features": 7, "out_features": 5, "bias": True}
            args, shape = dict(config), [3, 7]
        layer = getattr(torch.nn, cls)(**args)
        axis = 1 if transposed else 0
        n = layer.weight.shape[axis]
        w = layer.weight
        w.data = torch.from_numpy(values("normal", seed + 1, w.numel(), 0.2, 0.0)).reshape(w.shape)
        layer.bias.data = torch.from_numpy(values("normal", seed + 3, layer.bias.numel(), 0.2, 0.0))
        q = {"dtype": torch.qint8}
        if per_channel:
            s = scales(seed + 2, n)
            q.update(qscheme=torch.per_channel_affine, scale=torch.tensor(s, dtype=torch.float32),
                     zero_point=torch.zeros(n, dtype=torch.int32), axis=axis)
        else:
            s = scales(seed + 2, 1)
            q.update(qscheme=torch.per_tensor_affine, scale=float(s[0]), zero_point=0)
        module = getattr(nnqr, cls).from_float(layer, q)
        x = torch.from_numpy(values("normal", seed, int(np.prod(shape)), 1.0, 0.0)).reshape(shape)
        case = {"module": "reference::" + cls, "seed": seed, "config": config, "shape": shape, "per_channel": per_channel,
                "axis": axis, "weight": pack(module.get_weight().detach().numpy()), "result": pack(module(x).detach().numpy())}
        cases.append(case)
        seed += 20
    write("modules_reference", cases)


if __name__ == "__main__":
    linear_and_conv()
    activations()
    operators()
    functionals()
    dynamic()
    reference()
