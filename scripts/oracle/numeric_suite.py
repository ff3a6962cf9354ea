#!/usr/bin/python3
"""Writes tests/golden/numeric_suite_eager.json and numeric_suite_fx.json: PyTorch 1.13's numeric suites on small models.

Run by hand, from the repository's root, with Debian's python3 and python3-torch (1.13); half a minute:

    /usr/bin/python3 scripts/oracle/numeric_suite.py

Eager: the models, their parameters, qconfigs and qparams are those of eager.py's cases (tests/golden/eager_*.json), named here by file and
number; the float model is the fused one. A case has, by PyTorch's keys,

- weights: compare_weights of the two state dicts
- outputs: get_matching_activations after prepare_model_outputs and one call of each model
- stubs: compare_model_stub with all layers, fused layers and FloatFunctionals in the module_swap_list

and for each key: the float and the quantized tensor, and PyTorch's metrics of the two, [SQNR, normalised L2 error, cosine
similarity]. A tensor is {"shape", "norm", "probe"}: its L2 norm and its product with probe(); small ones have {"values"}.

PyTorch shows the result of a fused module to its logger twice, as an observer (eager.py, prepare); here it is shown once. Weights of
Conv3d are left out: qnnpack cannot unpack them.

Graph mode: the models of fx_graphs.py, prepared and calibrated as in fx_outputs.py; "fp32" is the prepared graph, "int8" the converted
one. A case has

- weights: extract_weights
- outputs: add_loggers, one call of each graph, extract_logger_info, with the inputs of layers too
- shadows: add_shadow_loggers, one call, extract_shadow_logger_info

by layer and type, {"float": entry, "quantized": entry} lists of [fqn, index_of_arg, index_within_arg] and the pairs' tensors and
metrics as above. What raises an error in PyTorch is left out. Layers have the names that octet's tracer gives them: the path of the
module that is called or whose forward calls the operator, the operator, and a number where that is taken.
"""
import contextlib
import io
import json
import os
import warnings

import numpy as np
import torch
import torch.ao.ns._numeric_suite as ns
import torch.ao.ns._numeric_suite_fx as nsfx
import torch.ao.quantization as tq
from torch import nn
from torch.ao.ns.fx import utils
from torch.ao.ns.fx.graph_matcher import get_matching_subgraph_pairs
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx, prepare_qat_fx

import eager
import fx_graphs
import fx_outputs
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


# -- graph mode ---------------------------------------------------------------------------------------

def fx_prepared(cls):
    prepare = prepare_qat_fx if cls.config.get("qat") else prepare_fx
    p = prepare(fx_outputs.fill(fx_graphs.make(cls)), fx_graphs.mapping(cls.config), fx_outputs.data(cls, 8000),
                fx_graphs.prepare_custom(cls.config))
    fx_outputs.replace_observers(p, {})
    p.eval()
    for seed in (7000, 8000):
        p(*fx_outputs.data(cls, seed))
    return p


def fx_pair(cls):
    return fx_prepared(cls), convert_fx(fx_prepared(cls), convert_custom_config=fx_graphs.convert_custom(cls.config))


def traced(m):
    """As the numeric suite traces it: nodes get names of their own."""
    gm = torch.fx.GraphModule(m, nsfx.NSTracer([], []).trace(m))
    gm._node_name_to_scope = getattr(m, "_node_name_to_scope", {})
    return gm


def names_here(p, q):
    """From the names of layers in q to octet's."""
    p, q = traced(p), traced(q)
    order = {n: i for i, n in enumerate(p.graph.nodes)}
    names, taken = {}, {}
    for a, b in sorted(get_matching_subgraph_pairs(p, q).values(), key=lambda pair: order[pair[0].base_op_node]):
        node = a.base_op_node
        path = p._node_name_to_scope[node.name][0]
        name = path
        if node.op != "call_module":
            op = node.target if node.op == "call_method" else node.target.__name__
            name = (path + "." if path else "") + {"chunk": "split"}.get(op, op)
        taken[name] = taken.get(name, -1) + 1
        name += "_%d" % taken[name] if taken[name] else ""
        names[b.end_node.name] = names[b.base_op_node.name] = names[b.start_node.name] = name
    return names


def entry(r):
    return [r["fqn"], r["index_of_arg"], r["index_within_arg"]]


def flat(v):
    return [t for part in v for t in flat(part)] if isinstance(v, (list, tuple)) else [v]


def tensors(values):
    """The tensors of one call: of a recurrent layer its sequence and states, and all weights."""
    return flat(values[0])


def fx_results(results, names):
    out = {}
    for layer, by_type in results.items():
        for kind, by_model in by_type.items():
            if set(by_model) != {"fp32", "int8"}:
                continue
            a, b = by_model["fp32"], by_model["int8"]
            pairs = [(x, y) for x, y in zip(a, b) if x["values"]]
            if not pairs:
                continue
            out.setdefault(names[layer], {})[kind] = {
                "float": [entry(x) for x, _ in pairs], "quantized": [entry(y) for _, y in pairs],
                "pairs": [pair(v, w) for x, y in pairs for v, w in zip(tensors(x["values"]), tensors(y["values"]))]}
    return out


def fx_weights(cls, x):
    p, q = fx_pair(cls)
    return nsfx.extract_weights("fp32", p, "int8", q)


def fx_values(cls, x):
    p, q = nsfx.add_loggers("fp32", *fx_pair(cls)[:1], "int8", fx_pair(cls)[1], nsfx.OutputLogger, should_log_inputs=True)
    p(*x), q(*x)
    return nsfx.extract_logger_info(p, q, nsfx.OutputLogger, "int8")


def fx_shadows(cls, x):
    p, q = fx_pair(cls)
    with contextlib.redirect_stdout(io.StringIO()):
        both = nsfx.add_shadow_loggers("fp32", p, "int8", q, nsfx.OutputLogger)
    both(*x)
    return nsfx.extract_shadow_logger_info(both, nsfx.OutputLogger, "int8")


def fx_cases():
    cases = []
    for cls in fx_graphs.MODELS:
        if cls is fx_graphs.Nothing:
            continue
        c = {"model": cls.__name__}
        for what, function in (("weights", fx_weights), ("outputs", fx_values), ("shadows", fx_shadows)):
            try:
                found = function(cls, fx_outputs.data(cls, 8000))
            except Exception as e:
                print(cls.__name__, what, type(e).__name__, str(e).strip()[:60].replace("\n", " "))
                continue
            c[what] = fx_results(found, names_here(*fx_pair(cls)))
        if "outputs" in c:
            cases.append(c)
    return cases


if __name__ == "__main__":
    torch.backends.quantized.engine = "qnnpack"
    with torch.no_grad():
        write("numeric_suite_eager", eager_cases())
        write("numeric_suite_fx", fx_cases())
