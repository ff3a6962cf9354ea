#!/usr/bin/python3
"""Writes tests/golden/qat.json: quantization-aware training in PyTorch 1.13 (tests/quant/qat_golden_test.cpp).

Run by hand, from the repository's root, with Debian's python3 and python3-torch (1.13); some seconds:

    /usr/bin/python3 scripts/oracle/qat.py

A case is a model of eager.py (parameters and batches made as there), prepared with the qconfig of `backend` and `version`
(get_default_qat_qconfig) and trained for five steps of SGD on the mean squared error to targets that are data too. Stored
are the losses; the state after the last step (`state`, base64 of float32 or int32), and, from that state with observers
off: the output of the fake-quantized model in eval mode, the modules of the converted one and its output.

Conversion takes the qparams that the fake-quantize modules' forward used. FusedMovingAvgObsFakeQuantize (version 1)
otherwise answers its observer's, which differ; those are stored as `observers`.
"""
import warnings

import torch
import torch.ao.quantization as tq
from torch import nn
from torch.ao.quantization.fake_quantize import FakeQuantizeBase, FusedMovingAvgObsFakeQuantize

import eager
from dynamic import write
from modules import pack

warnings.filterwarnings("ignore")
STEPS = 5


class LinearBn(eager.Model):
    input, fuse = (6, 5), [["fc", "bn"]]

    def __init__(self):
        super().__init__()
        self.fc, self.bn = nn.Linear(5, 4), nn.BatchNorm1d(4, eager.EPS)

    def forward(self, x):
        return self.dequant(self.bn(self.fc(self.quant(x))))


class Residual2d(eager.Residual):
    """With a convolution that PyTorch 1.13 trains quantized: not Conv1d."""
    input = (2, 4, 3, 3)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)


class ConvBn1d(eager.Model):
    input, fuse = (3, 3, 8), [["conv1", "bn1", "relu1"], ["conv2", "bn2"]]

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1, self.relu1 = nn.Conv1d(3, 6, 3, padding=1), nn.BatchNorm1d(6, eager.EPS), nn.ReLU()
        self.conv2, self.bn2 = nn.Conv1d(6, 4, 3, 2, groups=2), nn.BatchNorm1d(4, eager.EPS)

    def forward(self, x):
        return self.dequant(self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(self.quant(x)))))))


def forward_qparams(self):
    return self.scale, self.zero_point


def run(cls, seed, backend, version):
    torch.backends.quantized.engine = "qnnpack"
    case = {"model": cls.__name__, "seed": seed, "backend": backend, "version": version, "exact": False,
            "shape": list(cls.input), "fuse": cls.fuse, "lr": 0.05, "momentum": 0.9}
    model = cls().train()
    with torch.no_grad():
        case["parameters"] = eager.fill(model, seed, False)
    if cls.fuse:
        model = tq.fuse_modules_qat(model, cls.fuse)
    model.qconfig = tq.get_default_qat_qconfig(backend, version)
    prepared = tq.prepare_qat(model)
    optimizer = torch.optim.SGD(prepared.parameters(), lr=case["lr"], momentum=case["momentum"])
    case["losses"] = []
    for step in range(STEPS):
        optimizer.zero_grad()
        y = prepared(eager.batch(case, step))
        loss = nn.functional.mse_loss(y, eager.tensor("normal", seed + 8000 + step, y.shape))
        loss.backward()
        optimizer.step()
        case["losses"].append(loss.item())
    prepared.eval()
    prepared.apply(tq.disable_observer)
    case["state"] = {}
    for key, t in prepared.state_dict().items():
        if t.numel() and not key.endswith((".eps", "_enabled", "num_batches_tracked")):
            case["state"][key] = pack(t.numpy())
    case["observers"] = {}
    for path, m in prepared.named_modules():
        if isinstance(m, FakeQuantizeBase) and m.activation_post_process.min_val.numel():
            if torch.isfinite(m.activation_post_process.min_val).all():
                s, z = m.activation_post_process.calculate_qparams()
                case["observers"][path] = [s.double().tolist(), z.tolist()]
    with torch.no_grad():
        x = eager.batch(case, -1)
        case["fake_y"] = pack(prepared(x).numpy())
        kept = FusedMovingAvgObsFakeQuantize.calculate_qparams
        FusedMovingAvgObsFakeQuantize.calculate_qparams = forward_qparams
        int8 = tq.convert(prepared)
        FusedMovingAvgObsFakeQuantize.calculate_qparams = kept
        case["modules"], y = eager.record(int8, x, False)
        case["y"] = pack(y.numpy())
        case["steps"] = 0
    return case


if __name__ == "__main__":
    torch.set_num_threads(1)
    cases, seed = [], 8000000
    for cls in (eager.Static, eager.ConvBnRelu, eager.Mlp, Residual2d, ConvBn1d, eager.Conv3dNet, LinearBn, eager.ResNet):
        for backend, version in (("qnnpack", 0), ("qnnpack", 1), ("fbgemm", 0), ("fbgemm", 1), ("onednn", 1)):
            seed += 10000
            cases.append(run(cls, seed, backend, version))
    write("qat", cases)
