#!/usr/bin/python3
"""Writes tests/golden/qconfig_mapping.json: which entry of a QConfigMapping PyTorch 1.13 gives each call of a model
(tests/quant/qconfig_mapping_test.cpp), and what its default mappings say of each type.

Run by hand, from the repository's root, with Debian's python3 and python3-torch (1.13); a second:

    /usr/bin/python3 scripts/oracle/qconfig_mapping.py

The first case holds the calls of one model, as QConfigMapping::find is asked about them. Those with "entries" are random mappings
and what PyTorch's generate_qconfig_map answers for each call; QConfigs are told apart by an averaging constant, n / 1024, and 0
stands for None. Those with "backend" hold the observers that get_default_qconfig_mapping and get_default_qat_qconfig_mapping give
to modules and functions.
"""
import random
import warnings

import torch
from torch import nn
from torch.ao.quantization import QConfig, QConfigMapping, get_default_qat_qconfig_mapping, get_default_qconfig_mapping
from torch.ao.quantization.fx.qconfig_mapping_utils import generate_qconfig_map
from torch.ao.quantization.fx.tracer import QuantizationTracer
from torch.ao.quantization.observer import MovingAverageMinMaxObserver, default_weight_observer

from dynamic import write

warnings.filterwarnings("ignore")


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(2, 2, 1)

    def forward(self, x):
        y = self.conv2(self.relu(self.conv(x)))
        y = torch.add(y, x)
        return torch.add(torch.mul(y, x), y)


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Block()
        self.block1 = Block()
        self.conv = nn.Conv2d(2, 2, 1)

    def forward(self, x):
        return self.conv(torch.mul(self.block1(self.block(x)), x))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)
        self.outer = Outer()
        self.outer2 = Outer()
        self.relu = nn.ReLU()

    def forward(self, x):
        x = self.outer2(self.outer(self.conv(x)))
        return self.relu(torch.add(x, torch.add(x, x)))


TYPES = {"Conv2d": nn.Conv2d, "ReLU": nn.ReLU, "Block": Block, "Outer": Outer, "Model": Model, "add": torch.add, "mul": torch.mul}
PATHS = ["conv", "outer", "outer.block", "outer.block.conv", "outer.block1", "outer.conv", "outer2", "outer2.block.relu", "relu"]
REGEXES = ["conv", "outer.*conv", "outer", ".*block", ".*relu", "outer\\.block$", "o[a-z]+2?\\.block\\.", "outer2.*[0-9]", "(conv|relu)$"]
ORDERS = [(path, kind, index) for path in ["", "outer", "outer.block", "outer.block1", "outer2.block"]
          for kind in ["Conv2d", "add", "mul", "ReLU", "Block"] for index in [0, 1, 2]]


def qconfig(number):
    if number == 0:
        return None
    return QConfig(activation=MovingAverageMinMaxObserver.with_args(averaging_constant=number / 1024), weight=default_weight_observer)


def targets(model):
    """(node, what find() is asked) for every call, in the order of the graph."""
    tracer = QuantizationTracer([], [])
    graph = tracer.trace(model)
    modules = dict(model.named_modules())
    names = {v: k for k, v in TYPES.items()}
    names[None] = ""  # PyTorch gives the model itself no class
    seen, result = {}, []
    for node in graph.nodes:
        if node.op not in ("call_module", "call_function"):
            continue
        path, kind = tracer.node_name_to_scope[node.name]
        if node.op == "call_module":
            parent = path.rpartition(".")[0]
            target = {"module_path": path, "module_type": names[kind], "op": "", "parent_path": parent}
            key = (parent, names[kind])
        else:
            target = {"module_path": path, "module_type": names[kind], "op": names[node.target], "parent_path": ""}
            key = (path, names[node.target])
        target["index"] = seen.get(key, 0)
        seen[key] = target["index"] + 1
        result.append((node, target))
    return graph, modules, tracer.node_name_to_scope, result


def mappings():
    model = Model()
    graph, modules, scopes, calls = targets(model)
    rng = random.Random(1)
    cases = []
    for case in range(60):
        count = 0

        def next_number():
            nonlocal count
            count += 1
            return 0 if rng.random() < 0.15 else count

        pick = lambda options, most: rng.sample(options, rng.randint(0, most))
        entries = {"global": next_number() if case % 4 else 0}
        entries["object_type"] = [[t, next_number()] for t in pick(sorted(TYPES), 4)]
        entries["module_name_regex"] = [[r, next_number()] for r in pick(REGEXES, 3)]
        entries["module_name"] = [[p, next_number()] for p in pick(PATHS, 3)]
        entries["module_name_object_type_order"] = [[*o, next_number()] for o in pick(ORDERS, 6)]
        mapping = QConfigMapping().set_global(qconfig(entries["global"]))
        for kind, n in entries["object_type"]:
            mapping.set_object_type(TYPES[kind], qconfig(n))
        for regex, n in entries["module_name_regex"]:
            mapping.set_module_name_regex(regex, qconfig(n))
        for path, n in entries["module_name"]:
            mapping.set_module_name(path, qconfig(n))
        for path, kind, index, n in entries["module_name_object_type_order"]:
            mapping.set_module_name_object_type_order(path, TYPES[kind], index, qconfig(n))
        found = generate_qconfig_map(model, modules, graph, mapping, scopes)
        answers = []
        for node, _ in calls:
            q = found[node.name]
            answers.append(0 if q is None else round(q.activation().averaging_constant * 1024))
        cases.append({"entries": entries, "answers": answers})
    return [target for _, target in calls], cases


DEFAULTS = {"Conv2d": nn.Conv2d, "ConvTranspose2d": nn.ConvTranspose2d, "Linear": nn.Linear, "ReLU": nn.ReLU, "BatchNorm2d": nn.BatchNorm2d,
            "LayerNorm": nn.LayerNorm, "Hardsigmoid": nn.Hardsigmoid, "Sigmoid": nn.Sigmoid, "Softmax": nn.Softmax, "Tanh": nn.Tanh,
            "MaxPool2d": nn.MaxPool2d, "conv2d": nn.functional.conv2d, "linear": nn.functional.linear, "add": torch.add,
            "sigmoid": torch.sigmoid, "hardsigmoid": nn.functional.hardsigmoid, "tanh": torch.tanh, "reshape": "reshape",
            "conv_transpose2d": nn.functional.conv_transpose2d, "layer_norm": nn.functional.layer_norm, "relu": nn.functional.relu}


def describe(factory):
    made = factory()
    inner = getattr(made, "activation_post_process", made)
    result = {"fake_quantize": type(made).__name__ if made is not inner else "", "observer": type(inner).__name__}
    if result["observer"] in ("PlaceholderObserver", "NoopObserver", "ReuseInputObserver"):
        return result
    result.update({"dtype": str(inner.dtype)[6:], "qscheme": str(inner.qscheme)[6:], "quant_min": int(inner.quant_min),
                   "quant_max": int(inner.quant_max)})
    if result["observer"] == "FixedQParamsObserver":
        result.update({"scale": float(inner.scale), "zero_point": int(inner.zero_point)})
    return result


def defaults():
    cases = []
    for name in ["fbgemm", "x86", "onednn", "qnnpack"]:
        for qat in [False, True]:
            mapping = (get_default_qat_qconfig_mapping if qat else get_default_qconfig_mapping)(name)
            for kind, key in DEFAULTS.items():
                q = mapping.object_type_qconfigs.get(key, mapping.global_qconfig)
                cases.append({"backend": name, "qat": qat, "type": kind, "activation": describe(q.activation), "weight": describe(q.weight)})
    return cases


def main():
    calls, cases = mappings()
    write("qconfig_mapping", [{"targets": calls}] + cases + defaults())


if __name__ == "__main__":
    main()
