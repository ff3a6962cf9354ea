#!/usr/bin/python3
"""Writes tests/golden/pytorch_files.json: files of torch.save by PyTorch 1.13 (tests/io/pytorch_golden_test.cpp).

Run by hand, from the repository's root, with Debian's python3 and python3-torch (1.13); seconds:

    /usr/bin/python3 scripts/oracle/pytorch_files.py

A case is a file (`file`, base64), the tensors that PyTorch has for it (dtype, shape, and the bytes in row-major order as
base64; of quantized ones the codes' and scale, zero_point and axis), and of models an input and its output. Parameters and
inputs are whole numbers over a power of two, on which float sums are exact in any order.
"""
import base64
import io
import warnings

import torch
import torch.ao.quantization as tq
from torch import nn

from dynamic import write

warnings.filterwarnings("ignore")


def grid(shape, seed, scale=8):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-8, 9, shape, generator=generator).float() / scale


def b64(t):
    t = t.detach().contiguous().reshape(-1)
    return base64.b64encode(bytes(t.view(torch.uint8).tolist() if t.dtype != torch.bool else t.int().tolist())).decode() \
        if t.numel() else ""


def stored(t):
    item = {"dtype": str(t.dtype).replace("torch.", ""), "shape": list(t.shape)}
    if not t.is_quantized:
        return dict(item, data=b64(t))
    item["data"] = b64(t.int_repr())
    if t.qscheme() == torch.per_tensor_affine:
        return dict(item, scale=[t.q_scale()], zero_point=[t.q_zero_point()])
    return dict(item, scale=t.q_per_channel_scales().tolist(), zero_point=t.q_per_channel_zero_points().tolist(),
                axis=t.q_per_channel_axis(), float_zero_point=t.q_per_channel_zero_points().is_floating_point())


def unpacked(state):
    """The names that octet has for packed parameters."""
    result = {}
    for name, value in state.items():
        if name.endswith("_packed_params._packed_params"):
            stem = name[:-len("_packed_params._packed_params")]
            result[stem + "weight"] = value[0]
            if value[1] is not None:
                result[stem + "bias"] = value[1]
        elif name.endswith("_packed_params._packed_weight"):
            result[name[:-len("_packed_params._packed_weight")] + "weight"] = value
        elif isinstance(value, torch.Tensor):
            result[name] = value
    return result


def case(name, state, saved=None, x=None, y=None, **how):
    file = io.BytesIO()
    torch.save(state if saved is None else saved, file, **how)
    result = {"name": name, "file": base64.b64encode(file.getvalue()).decode(),
              "tensors": {k: stored(v) for k, v in unpacked(state).items()}}
    if x is not None:
        result.update(input=stored(x), output=stored(y))
    return result


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.quant, self.conv, self.bn = tq.QuantStub(), nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)
        self.relu, self.fc, self.dequant = nn.ReLU(), nn.Linear(12, 2), tq.DeQuantStub()

    def forward(self, x):
        return self.dequant(self.fc(self.relu(self.bn(self.conv(self.quant(x)))).flatten(1)))


def net():
    model = Net().eval()
    for i, p in enumerate(model.parameters()):
        p.data = grid(p.shape, i)
    model.bn.running_mean = grid((3,), 20)
    model.bn.running_var = torch.tensor([1.0, 4.0, 16.0]) - model.bn.eps
    return model


def tensors():
    base = torch.arange(24.0)
    state = {"rows": base.reshape(4, 6), "turned": base.reshape(4, 6).t(), "part": base[5:17:3], "same": base,
             "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3), "expanded": torch.ones(1).expand(3),
             "parameter": nn.Parameter(torch.ones(2)),
             "channels_last": grid((2, 3, 2, 2), 1).to(memory_format=torch.channels_last)}
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
                  torch.uint8, torch.bool):
        state[str(dtype)] = (base[:5] > 2) if dtype == torch.bool else (base[:5] + 100).to(dtype)
    return state


def quantized():
    w = grid((3, 4), 7)
    state = {str(d): torch.quantize_per_tensor(w, 0.1, 3, d) for d in (torch.quint8, torch.qint8, torch.qint32)}
    scales, zeros = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64), torch.tensor([0, -3, 5])
    state["channels"] = torch.quantize_per_channel(w, scales, zeros, 0, torch.qint8)
    state["axis 1"] = torch.quantize_per_channel(w.t().contiguous(), scales, zeros, 1, torch.qint8)
    state["rows"] = torch.quantize_per_channel(w, scales.float(), torch.tensor([0.5, 1.25, 7.0]), 0, torch.quint8)
    state["turned"] = state["torch.qint8"].t()
    return state


def main():
    cases = [case("tensors", tensors()), case("tensors, protocol 4", tensors(), pickle_protocol=4),
             case("tensors, legacy", tensors(), _use_new_zipfile_serialization=False),
             case("quantized", quantized()),
             case("quantized, legacy", quantized(), _use_new_zipfile_serialization=False)]
    model, x = net(), grid((2, 2, 4, 4), 30)
    optimizer = torch.optim.Adam(model.parameters())
    model(x).sum().backward()
    optimizer.step()
    model = net()
    state = model.state_dict()
    cases.append(case("net", state, x=x, y=model(x)))
    cases.append(case("net in a checkpoint", state, {"epoch": 3, "state_dict": nn.DataParallel(model).state_dict(),
                                                     "optimizer": optimizer.state_dict(), "best": torch.tensor(0.5)}))
    torch.backends.quantized.engine = "onednn"
    model.qconfig = tq.get_default_qconfig("fbgemm")
    prepared = tq.prepare(tq.fuse_modules(model, [["conv", "bn", "relu"]]))
    prepared(x)
    converted = tq.convert(prepared)
    cases.append(case("quantized net", converted.state_dict(), x=x, y=converted(x)))
    embedding = nn.Sequential(nn.EmbeddingBag(4, 8))
    embedding[0].weight.data = grid((4, 8), 9)
    embedding.qconfig = tq.float_qparams_weight_only_qconfig
    cases.append(case("embedding", tq.convert(tq.prepare(embedding)).state_dict()))
    write("pytorch_files", cases)


if __name__ == "__main__":
    main()
