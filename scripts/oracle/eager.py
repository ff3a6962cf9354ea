#!/usr/bin/python3
"""Writes tests/golden/eager_*.json: whole models through PyTorch 1.13's eager mode (tests/quant/eager_golden_test.cpp).

Run by hand, from the repository's root, with Debian's python3 and python3-torch (1.13); half a minute:

    /usr/bin/python3 scripts/oracle/eager.py

Each case names a model (a class here, and one in tests/quant/golden_models.h), how its parameters and its data are made
(`tensor` below, on both sides), what is fused, the qconfig and the engine. Stored are the scale, zero point, weight codes
and output codes of every quantized module, and the model's output.

`exact` models have parameters and data on a coarse grid, on which float sums are exact in any order: all observers see
the same numbers in both libraries and every qparam must be equal to the last bit. The others have ordinary numbers; there
the observed ranges may differ by float32's rounding, and outputs are compared with PyTorch's qparams put in.
"""
import warnings

import numpy as np
import torch
import torch.ao.quantization as tq
from torch import nn
from torch.ao.quantization import observer as ao

from fake_quantize import fnv
from modules import pack
from dynamic import write
from observers import values

warnings.filterwarnings("ignore")
EPS = 2.0**-10


def tensor(how, seed, shape, size=1.0, offset=0.0):
    """float32 values: those of observers.py; or sparse: whole numbers, mostly 0; power: 1/2, 1 or 2; constant."""
    n = int(np.prod(shape))
    if how == "sparse":
        v = np.rint(values("normal", seed, n, 0.6, 0.0)) * np.float32(size)
    elif how == "power":
        v = np.exp2(np.rint(values("uniform", seed, n, 1.0, 0.0))) * np.float32(size)
    elif how == "constant":
        v = np.full(n, offset)
    else:
        v = values(how, seed, n, size, offset)
    return torch.from_numpy(v.astype(np.float32)).reshape(shape)


# -- the models (tests/quant/golden_models.h has the same) ----------------------------------------------

class Model(nn.Module):
    input, fuse = None, []

    def __init__(self):
        super().__init__()
        self.quant, self.dequant = tq.QuantStub(), tq.DeQuantStub()


class Static(Model):
    """The third seed's: conv and relu."""
    input, fuse = (4, 1, 4, 4), [["conv", "relu"]]

    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(1, 1, 1), nn.ReLU()

    def forward(self, x):
        return self.dequant(self.relu(self.conv(self.quant(x))))


class ConvBnRelu(Model):
    """The third seed's for QAT, somewhat wider."""
    input, fuse = (2, 3, 6, 6), [["conv", "bn", "relu"]]

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5, EPS), nn.ReLU()

    def forward(self, x):
        return self.dequant(self.relu(self.bn(self.conv(self.quant(x)))))


class Mixed(Model):
    """The third seed's with a part that stays float."""
    input = (4, 1, 4, 4)

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)

    def forward(self, x):
        return self.conv2(self.dequant(self.conv1(self.quant(x))))


class LinearRelu(Model):
    """The third seed's for saving and loading: linear and relu, not fused."""
    input = (5, 5)

    def __init__(self):
        super().__init__()
        self.linear, self.relu = nn.Linear(5, 5), nn.ReLU()

    def forward(self, x):
        return self.dequant(self.relu(self.linear(self.quant(x))))


class Mlp(Model):
    input, fuse = (4, 12), [["fc1", "relu1"], ["fc2", "relu2"]]

    def __init__(self):
        super().__init__()
        self.fc1, self.relu1 = nn.Linear(12, 16), nn.ReLU()
        self.fc2, self.relu2 = nn.Linear(16, 8), nn.ReLU()
        self.fc3 = nn.Linear(8, 4)

    def forward(self, x):
        return self.dequant(self.fc3(self.relu2(self.fc2(self.relu1(self.fc1(self.quant(x)))))))


class Residual(Model):
    """Every operation of FloatFunctional."""
    input = (2, 4, 3)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3, padding=1)
        for name in ("add", "join", "mul", "relu_add", "number"):
            setattr(self, name, nn.quantized.FloatFunctional())

    def forward(self, x):
        x = self.quant(x)
        y = self.add.add(self.conv(x), x)
        y = self.mul.mul(y, x)
        y = self.relu_add.add_relu(y, x)
        y = self.number.mul_scalar(y, 0.5)
        return self.dequant(self.join.cat([y, x], 1))


class Fc(nn.Module):
    """The fifth seed's: one linear layer."""
    input = (3, 10)

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(10, 5)

    def forward(self, x):
        return self.fc(x)


class Fc4(nn.Module):
    """The third seed's for dynamic quantization; its input has four dimensions."""
    input = (4, 4, 4, 4)

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(x)


class Block(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.conv1, self.bn1, self.relu1 = nn.Conv2d(i, o, 3, stride, 1), nn.BatchNorm2d(o, EPS), nn.ReLU()
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1), nn.BatchNorm2d(o, EPS)
        self.down = nn.Conv2d(i, o, 1, stride) if stride > 1 else nn.Identity()
        self.skip = nn.quantized.FloatFunctional()

    def forward(self, x):
        return self.skip.add_relu(self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x))))), self.down(x))


class ResNet(Model):
    input = (1, 3, 16, 16)
    fuse = [["conv", "bn", "relu"], ["block1.conv1", "block1.bn1", "block1.relu1"], ["block1.conv2", "block1.bn2"],
            ["block2.conv1", "block2.bn1", "block2.relu1"], ["block2.conv2", "block2.bn2"]]

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 4, 3, 1, 1), nn.BatchNorm2d(4, EPS), nn.ReLU()
        self.block1, self.block2 = Block(4, 4, 1), Block(4, 8, 2)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 5)

    def forward(self, x):
        x = self.block2(self.block1(self.relu(self.bn(self.conv(self.quant(x))))))
        return self.dequant(self.fc(self.pool(x).flatten(1)))


class Activations(Model):
    input = (3, 6)

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 7)
        self.hardswish, self.leaky, self.elu = nn.Hardswish(), nn.LeakyReLU(0.2), nn.ELU(0.75)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x):
        x = self.elu(self.leaky(self.hardswish(self.fc(self.quant(x)))))
        return self.dequant(self.sigmoid(x))


class Conv1dNet(Model):
    input, fuse = (2, 3, 9), [["conv1", "bn1", "relu1"], ["conv2", "relu2"]]

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.relu1 = nn.Conv1d(3, 6, 3, padding=1), nn.BatchNorm1d(6, EPS), nn.ReLU()
        self.conv2, self.relu2 = nn.Conv1d(6, 4, 3, 2, groups=2), nn.ReLU()

    def forward(self, x):
        return self.dequant(self.relu2(self.conv2(self.relu1(self.bn1(self.conv1(self.quant(x)))))))


class Conv3dNet(Model):
    input, fuse = (1, 2, 4, 4, 4), [["conv1", "bn1", "relu1"]]

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.relu1 = nn.Conv3d(2, 3, 3, padding=1), nn.BatchNorm3d(3, EPS), nn.ReLU()
        self.conv2 = nn.Conv3d(3, 2, 2)

    def forward(self, x):
        return self.dequant(self.conv2(self.relu1(self.bn1(self.conv1(self.quant(x))))))


class Decoder(Model):
    input, fuse = (1, 4, 4, 4), [["up1", "bn1"]]

    def __init__(self):
        super().__init__()
        self.up1, self.bn1 = nn.ConvTranspose2d(4, 4, 3, 2, 1), nn.BatchNorm2d(4, EPS)
        self.relu1, self.up2 = nn.ReLU(), nn.ConvTranspose2d(4, 2, 2)

    def forward(self, x):
        return self.dequant(self.up2(self.relu1(self.bn1(self.up1(self.quant(x))))))


class Pools(Model):
    input, fuse = (1, 2, 8, 8), [["conv1", "relu1"]]

    def __init__(self):
        super().__init__()
        self.conv1, self.relu1 = nn.Conv2d(2, 4, 3, padding=1), nn.ReLU()
        self.conv2, self.fc = nn.Conv2d(4, 6, 3), nn.Linear(6, 3)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.relu1(self.conv1(self.quant(x))), 2)
        return self.dequant(self.fc(nn.functional.max_pool2d(self.conv2(x), 2).flatten(1)))


class Norms(Model):
    """A batch norm that nothing is before, alone and with its relu."""
    input, fuse = (2, 3, 4, 4), [["bn2", "relu"]]

    def __init__(self):
        super().__init__()
        self.bn1, self.conv = nn.BatchNorm2d(3, EPS), nn.Conv2d(3, 4, 3)
        self.bn2, self.relu = nn.BatchNorm2d(4, EPS), nn.ReLU()

    def forward(self, x):
        return self.dequant(self.relu(self.bn2(self.conv(self.bn1(self.quant(x))))))


# -- qconfigs ------------------------------------------------------------------------------------------

def qconfig(name):
    weight = ao.MinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric)
    channel = ao.PerChannelMinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_channel_symmetric)
    full = ao.MinMaxObserver.with_args(dtype=torch.quint8)
    return {"minmax": lambda: tq.QConfig(full, weight),
            "minmax_per_channel": lambda: tq.QConfig(full, channel),
            "moving_average": lambda: tq.QConfig(
                ao.MovingAverageMinMaxObserver.with_args(dtype=torch.quint8, averaging_constant=0.25), weight),
            "default_qconfig": lambda: tq.default_qconfig,
            "default_per_channel_qconfig": lambda: tq.default_per_channel_qconfig}.get(
                name, lambda: tq.get_default_qconfig(name))()


# -- making, running, recording -------------------------------------------------------------------------

def fill(model, seed, exact):
    """Sets the parameters; returns [name, how, seed, size, offset] of each."""
    made = []
    for name, t in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        norm = name.rsplit(".", 1)[0].rsplit(".", 1)[-1].startswith("bn")
        leaf = name.rsplit(".", 1)[-1]
        if exact:
            how = (("power", 0.5, 0.0) if norm and leaf == "weight" else ("constant", 1.0, 1.0 - EPS) if leaf == "running_var"
                   else ("steps", 1.0, 0.0) if t.dim() == 1 else ("sparse", 1.0, 0.0))
        else:
            fan = float(np.prod(t.shape[1:])) if t.dim() > 1 else 1.0
            how = (("uniform", 0.5, 1.0) if norm and leaf in ("weight", "running_var") else ("normal", 0.25, 0.0) if t.dim() == 1
                   else ("normal", float(np.float32(fan**-0.5)), 0.0))
        seed += 20
        made.append([name, how[0], seed, how[1], how[2]])
        t.copy_(tensor(how[0], seed, t.shape, how[1], how[2]))
    return made


def batch(case, index):
    """Batch `index` of a case's data; -1 is the one that outputs are of."""
    return tensor(*["steps" if case["exact"] else "normal", case["seed"] + 7000 + index], case["shape"])


QUANTIZED = ("torch.ao.nn.quantized", "torch.nn.intrinsic.quantized", "torch.nn.quantized")


def is_quantized(module):
    return type(module).__module__.startswith(QUANTIZED) and hasattr(module, "scale")


def describe(module, out, codes):
    hidden = "Conv" in type(module).__name__ and "3d" in type(module).__name__ and torch.backends.quantized.engine == "qnnpack"
    d = {"type": type(module).__name__, "scale": float(module.scale), "zero_point": int(module.zero_point)}
    if callable(getattr(module, "weight", None)) and not hidden:
        w = module.weight()
        per_channel = w.qscheme() != torch.per_tensor_affine
        d["weight"] = pack(w.int_repr().numpy())
        d["weight_scales"] = w.q_per_channel_scales().tolist() if per_channel else [w.q_scale()]
    if out is not None:
        d["codes"] = pack(out.int_repr().numpy()) if codes else byte_hash(out)
    return d


def byte_hash(q):
    """FNV-1a, 64 bits, over the codes."""
    h = 0xCBF29CE484222325
    for byte in q.int_repr().contiguous().numpy().astype(np.uint8).reshape(-1):
        h = ((h ^ int(byte)) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return "%016x" % h


def check(module, x, y):
    """An error if a convolution's codes are more than a step from the float layer's on the same numbers."""
    w, b = module._weight_bias()
    real = nn.functional.conv2d(x.dequantize(), w.dequantize(), b, module.stride, module.padding, module.dilation,
                                module.groups)
    low = module.zero_point if "ReLU" in type(module).__name__ else 0
    codes = torch.clamp(torch.round(real / module.scale) + module.zero_point, low, 255)
    assert (codes - y.int_repr().float()).abs().max() <= 1, module


def record(model, x, codes):
    """What every quantized module is and gives (`codes`: themselves, else their hash), and the model's output."""
    outs, hooks = {}, []

    def keep(name, m, i, o):
        outs[name] = o
        if type(m).__name__ in ("Conv2d", "ConvReLU2d"):
            check(m, i[0], o)

    for name, m in model.named_modules():
        if is_quantized(m):
            hooks.append(m.register_forward_hook(lambda m, i, o, name=name: keep(name, m, i, o)))
    y = model(x)
    for h in hooks:
        h.remove()
    modules = {name: describe(m, outs.get(name), codes) for name, m in model.named_modules() if is_quantized(m)}
    return modules, y


def prepare(model):
    """PyTorch shows each batch twice to the observer of a fused module: the module is a Sequential, which runs the observer as
    its last part, and then its hook does. That moves a moving average twice; here it is shown once, as octet does."""
    prepared = tq.prepare(model)
    for m in prepared.modules():
        if isinstance(m, nn.intrinsic._FusedModule):
            m._forward_hooks.clear()
    return prepared


def run(cls, seed, config, engine, exact, batches=3, codes=False):
    torch.backends.quantized.engine = engine
    case = {"model": cls.__name__, "seed": seed, "qconfig": config, "engine": engine, "exact": exact, "batches": batches,
            "shape": list(cls.input), "fuse": cls.fuse}
    model = cls()
    case["parameters"] = fill(model, seed, exact)
    model.eval()
    fused = tq.fuse_modules(model, cls.fuse) if cls.fuse else model
    fused.qconfig = qconfig(config)
    if cls is Mixed:
        fused.conv2.qconfig = None
    prepared = prepare(fused)
    for b in range(batches):
        prepared(batch(case, b))
    int8 = tq.convert(prepared)
    x = batch(case, -1)
    case["modules"], y = record(int8, x, codes)
    case["y"] = pack(y.detach().numpy())
    if not exact:
        case["error"] = float(((y.double() - fused(x).double())**2).mean().detach())
    return case


MODELS = [Static, ConvBnRelu, Mixed, LinearRelu, Mlp, Residual, ResNet, Activations, Conv1dNet, Conv3dNet, Decoder, Pools,
          Norms]
INEXACT = (Activations,)  # their functions are not exact on any grid


def static(name, engine, configs, seed, codes):
    cases = []
    for cls in MODELS:
        for config in configs:
            for exact in (True, False):
                seed += 10000
                if (exact and cls in INEXACT) or (cls is Decoder and "channel" in config):
                    continue  # PyTorch refuses transposed layers with per-channel weights
                if engine == "onednn" and (cls is Mixed or (cls is ResNet and not exact)):
                    continue  # PyTorch's layer of one channel gives garbage after other models ran (check); size
                # Batch norms on codes differ by a step in places (docs/conformance.md), and so do onednn's layers.
                cases.append(run(cls, seed, config, engine, exact, codes=codes or cls is Norms))
                cases[-1]["steps"] = 1 if codes or cls is Norms else 0
    write(name, cases)


def named():
    """The named qconfigs, whose histogram observers differ on purpose: the squared error against the float model."""
    cases, seed = [], 5000000
    torch.backends.quantized.engine = "qnnpack"
    for cls in (Static, ConvBnRelu, Mlp, Residual, ResNet, Conv1dNet, Pools, Activations):
        for config in ("qnnpack", "fbgemm", "onednn"):
            seed += 10000
            case = {"model": cls.__name__, "seed": seed, "qconfig": config, "engine": "qnnpack", "exact": False, "batches": 4,
                    "shape": [8, *cls.input[1:]], "fuse": cls.fuse}
            model = cls()
            case["parameters"] = fill(model, seed, False)
            model.eval()
            model = tq.fuse_modules(model, cls.fuse) if cls.fuse else model
            model.qconfig = qconfig(config)
            prepared = prepare(model)
            xs = [batch(case, b) for b in range(case["batches"])]
            for x in xs:
                prepared(x)
            int8 = tq.convert(prepared)
            case["error"] = float(np.mean([((int8(x).double() - model(x).double())**2).mean().item() for x in xs]))
            cases.append(case)
    write("eager_named", cases)


def dynamic():
    """quantize_dynamic on qnnpack: weights and results bit for bit."""
    cases, seed = [], 6000000
    torch.backends.quantized.engine = "qnnpack"
    for cls in (Fc, Fc4, Mlp):
        for config in ("default_dynamic_qconfig", "per_channel_dynamic_qconfig"):
            for _ in range(6):
                seed += 10000
                case = {"model": cls.__name__, "seed": seed, "qconfig": config, "engine": "qnnpack", "exact": False,
                        "shape": list(cls.input)}
                model = cls()
                case["parameters"] = fill(model, seed, False)
                int8 = tq.quantize_dynamic(model.eval(), {nn.Linear: getattr(tq, config)})
                case["weights"] = {}
                for name, m in int8.named_modules():
                    if type(m).__name__ == "Linear":
                        case["weights"][name] = pack(m.weight().int_repr().numpy())
                case["y"] = pack(int8(batch(case, -1)).numpy())
                cases.append(case)
    write("eager_dynamic", cases)


if __name__ == "__main__":
    with torch.no_grad():
        static("eager_onednn", "onednn", ["minmax_per_channel", "default_per_channel_qconfig"], 3000000, True)
        configs = ["minmax", "minmax_per_channel", "moving_average", "default_qconfig", "default_per_channel_qconfig"]
        static("eager_qnnpack", "qnnpack", configs, 1000000, False)
        named()
        dynamic()
