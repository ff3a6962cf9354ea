#!/usr/bin/python3
"""Writes tests/golden/fx_outputs.json: what the graphs of fx_graphs.py compute in PyTorch 1.13 (qnnpack).

Run by hand, from the repository's root, with Debian's python3 and python3-torch (1.13); a few seconds:

    /usr/bin/python3 scripts/oracle/fx_outputs.py

Every model of fx_graphs.py with its config, but for its observers: after prepare_fx every HistogramObserver becomes a
MinMaxObserver, and in QAT every FusedMovingAvgObsFakeQuantize a FakeQuantize with one, of the same codes and scheme. (How octet's
histograms choose, and what PyTorch's fused module converts with, are differences of their own: docs/conformance.md. The range of
a MinMaxObserver does not depend on how many values share it either.) Parameters (`fill`) and data (`data`) are made on both sides,
on a coarse grid where most float sums are exact. Both batches calibrate, the second is then
what the graphs are given. In QAT nothing is trained: eval mode, both batches, convert.

A value's key is its module's path, "input k", the name of its constant, or the operator's name, that of an activation in it if it has
one; codes that quantize made of a value have that value's key; the second of a key that is listed has "#1" behind it. Stored are

- observers: of each value [scale, zero point, least, greatest value seen], the latter two of MinMax only
- codes: of each quantized value of the lowered graph the hash (FNV-1a) of its codes; only those of the outermost graph
- given: qparams of the inputs that are quantized before the model is called
- lowered, reference: the results, dequantized, as base64 of float32; reference only where it is not the same
"""
import json
import os

import numpy as np
import torch
from torch.ao.quantization import FakeQuantize, HistogramObserver, MinMaxObserver, PerChannelMinMaxObserver
from torch.ao.quantization.fake_quantize import FakeQuantizeBase, FusedMovingAvgObsFakeQuantize
from torch.ao.quantization.observer import ObserverBase
from torch.ao.quantization.quantize_fx import convert_fx, convert_to_reference_fx, prepare_fx, prepare_qat_fx

import fx_graphs
from dynamic import OUT
from eager import tensor
from modules import pack


def fill(model):
    """Each parameter by its place among the sorted names: batch norms with scales that are powers of two, grids of 1/32 and 1/16."""
    state = model.state_dict()
    for i, name in enumerate(sorted(k for k, v in state.items() if v.is_floating_point())):
        shape = state[name].shape
        if name.endswith("running_var"):
            power = tensor("power", 100 + i, shape)
            state[name] = (power.double() * power.double() - 1e-5).float()
        elif name.endswith("weight") and len(shape) == 1:
            state[name] = tensor("power", 100 + i, shape)
        else:
            state[name] = tensor("steps", 100 + i, shape, 0.25 if len(shape) > 1 else 0.5)
    model.load_state_dict(state)
    return model


def data(cls, seed):
    """One batch of inputs."""
    out = []
    for k, shape in enumerate(cls.inputs):
        if shape[0] == "index":
            out.append((torch.arange(int(np.prod(shape[1]))) % shape[2]).reshape(shape[1]))
        else:
            out.append(tensor("steps", seed + k, shape))
    return tuple(out)


def min_max(m):
    """What stands in for an observer or a fake-quantize module."""
    if isinstance(m, HistogramObserver):
        return MinMaxObserver(dtype=m.dtype, qscheme=m.qscheme, reduce_range=m.reduce_range)
    if isinstance(m, FusedMovingAvgObsFakeQuantize):
        o = m.activation_post_process
        return FakeQuantize(MinMaxObserver, quant_min=o.quant_min, quant_max=o.quant_max, dtype=o.dtype, qscheme=o.qscheme)
    return m


def replace_observers(module, made):
    for name, child in module._modules.items():
        if isinstance(child, (ObserverBase, FakeQuantizeBase)):
            module._modules[name] = made.setdefault(id(child), min_max(child))
        elif child is not None:
            replace_observers(child, made)


class Values(fx_graphs.Normaliser):
    """Keeps the value of every node that it makes."""

    def nodes(self):
        self.made = []
        return super().nodes()

    def emit(self, node, value=None):
        self.made.append(value)
        return super().emit(node, value)


def base_of(nodes, at):
    """What a value is called: a node, or [node, result]."""
    n = nodes[at[0] if isinstance(at, list) else at]
    if n.get("target") == "quantize":
        return base_of(nodes, n["inputs"][0])
    base = n.get("activation") or n["target"]
    return ("input " if n["kind"] == "input" else "") + base + (".%d" % at[1] if isinstance(at, list) else "")


class Keys:
    def __init__(self, nodes):
        self.nodes, self.seen = nodes, {}

    def of(self, at):
        base = base_of(self.nodes, at)
        self.seen[base] = self.seen.get(base, -1) + 1
        return base + ("#%d" % self.seen[base] if self.seen[base] else "")


def hash_of_codes(y):
    h = 0xCBF29CE484222325
    for q in y.int_repr().contiguous().numpy().view(np.uint8).ravel():
        h = ((h ^ int(q)) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return "%016x" % h


def observed(prepared, inputs):
    norm = fx_graphs.Normaliser(prepared, inputs, [])
    nodes = norm.nodes()
    keys, out = Keys(nodes), {}
    modules = {id(m): m for m in prepared.modules()}
    by_number = {number: modules[i] for i, number in norm.observers.items()}
    for n in nodes:
        if not n.get("target", "").startswith("observer "):
            continue
        m = by_number[int(n["target"].split()[1])]
        o = m.activation_post_process if isinstance(m, FakeQuantizeBase) else m
        if not hasattr(o, "calculate_qparams") or isinstance(o, PerChannelMinMaxObserver) or type(o).__name__ == "PlaceholderObserver":
            continue
        key = keys.of(n["inputs"][0])
        scale, zero_point = o.calculate_qparams()
        out[key] = [float(scale), int(zero_point)]
        if isinstance(o, MinMaxObserver):
            out[key] += [float(o.min_val), float(o.max_val)]
    return out


def flat(y):
    return [y] if isinstance(y, torch.Tensor) else [t for e in y for t in flat(e)]


def floats(ys):
    return [pack((y.dequantize() if y.is_quantized else y).detach().numpy().astype(np.float32)) for y in ys]


def case(cls):
    batches = [data(cls, 7000), data(cls, 8000)]
    inputs = batches[1]
    prepare = prepare_qat_fx if cls.config.get("qat") else prepare_fx

    def prepared():
        p = prepare(fill(fx_graphs.make(cls)), fx_graphs.mapping(cls.config), inputs, fx_graphs.prepare_custom(cls.config))
        replace_observers(p, {})
        p.eval()
        for batch in batches:
            p(*batch)
        return p

    def converted(to):
        return to(prepared(), convert_custom_config=fx_graphs.convert_custom(cls.config))

    out = {"name": cls.__name__, "observers": observed(prepared(), inputs)}
    given = list(inputs)
    for i in cls.config.get("input_quantized_idxs", []):
        o = MinMaxObserver(reduce_range=False)
        for batch in batches:
            o(batch[i])
        scale, zero_point = o.calculate_qparams()
        out.setdefault("given", {})["input %d" % i] = [float(scale), int(zero_point)]
        given[i] = torch.quantize_per_tensor(inputs[i], float(scale), int(zero_point), torch.quint8)
    reference, lowered = converted(convert_to_reference_fx), converted(convert_fx)
    values = Values(lowered, given, fx_graphs.packed_constants(reference))
    nodes = values.nodes()
    keys = Keys(nodes)
    out["codes"] = {keys.of(i): hash_of_codes(v) for i, v in enumerate(values.made)
                    if nodes[i]["kind"] != "constant" and isinstance(v, torch.Tensor) and v.is_quantized}
    with torch.no_grad():
        ys, refs = flat(lowered(*given)), flat(reference(*given))
    out["lowered"] = floats(ys)
    if floats(refs) != out["lowered"]:
        out["reference"] = floats(refs)
    return out


def main():
    torch.backends.quantized.engine = "qnnpack"
    cases = [case(cls) for cls in fx_graphs.MODELS if cls is not fx_graphs.Nothing]  # which is an error in octet
    path = os.path.join(OUT, "fx_outputs.json")
    with open(path, "w") as f:
        f.write('{"torch": "%s", "cases": [\n' % torch.__version__)
        f.write(",\n".join(fx_graphs.compact(c) for c in cases))
        f.write("\n]}\n")
    print(path, len(cases), "cases,", os.path.getsize(path), "bytes")


if __name__ == "__main__":
    main()
