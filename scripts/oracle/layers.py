#!/usr/bin/python3
"""Golden files of layers, losses, optimizers and schedules, from PyTorch 1.13 (Debian's python3).

    scripts/oracle/layers.py            # writes tests/golden/layers_*.json

A case of a layer has its class, configuration (as octet's config() has it), state, inputs, outputs, gradients of inputs and
parameters for the given gradients of the outputs, the buffers afterwards, and how PyTorch prints it. Inputs and weights are
multiples of 1/16, so that their text is short; results have 8 digits.
"""
import json
import math
import os

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
OUT = os.path.join(os.path.dirname(__file__), "../../tests/golden")


def coarse(*shape, scale=1.0):
    return torch.round(torch.randn(shape) * 16 * scale) / 16


def distinct(*shape):
    """All values differ: maxima are clear."""
    n = math.prod(shape)
    return ((torch.randperm(n) - n // 2).float() / 16).reshape(shape)


def number(v):
    return v if isinstance(v, (int, bool)) else float(f"{v:.8g}")


def encode(t):
    if t is None:
        return None
    t = t.detach()
    kind = {torch.int64: "int64", torch.bool: "bool"}.get(t.dtype)
    data = [number(v) for v in t.reshape(-1).tolist()]
    data = [int(v) if isinstance(v, float) and v == int(v) and abs(v) < 1e6 else v for v in data]
    return {"shape": list(t.shape), "data": data, **({"dtype": kind} if kind else {})}


def gradient(x):
    """None where there is none to compare: of indices, and of logarithms at 0."""
    return None if x is None or x.grad is None or x.grad.isnan().any() else encode(x.grad)


def flat(y):
    """A layer's results in octet's order: (y, (h, c)) is y, h, c."""
    if isinstance(y, torch.Tensor):
        return [y]
    return [t for each in y if each is not None for t in flat(each)]


class Cases:
    def __init__(self, name):
        self.name, self.cases = name, []

    def add(self, module, config, inputs, training=True, call=None, name=None, printed=True, no_dy=()):
        cls = name or type(module).__name__
        module.train(training)
        with torch.no_grad():
            for key, p in module.named_parameters():
                if p.dim() > 1 or "bias" in key or "weight_hr" in key:
                    p.copy_(coarse(*p.shape, scale=0.5))
                else:
                    p.copy_(coarse(*p.shape, scale=0.25) + 1)
            for key, b in module.named_buffers():
                if key.endswith("running_mean"):
                    b.copy_(coarse(*b.shape))
                elif key.endswith("running_var"):
                    b.copy_(coarse(*b.shape).abs() + 0.5)
        state = {k: encode(v) for k, v in module.state_dict().items()}
        inputs = [x.clone().requires_grad_(x.is_floating_point()) if x is not None else None for x in inputs]
        outputs = flat(call(module, inputs) if call else module(*inputs))
        dys = [None if i in no_dy or not y.requires_grad else coarse(*y.shape) for i, y in enumerate(outputs)]
        pairs = [(y, dy) for y, dy in zip(outputs, dys) if dy is not None]
        if pairs:
            torch.autograd.backward([y for y, _ in pairs], [dy for _, dy in pairs])
        after = {k: encode(v) for k, v in module.named_buffers()}
        after = {k: v for k, v in after.items() if v != state.get(k)}
        self.cases.append({"class": cls, "config": config, "training": training, "state": state,
                           "inputs": [encode(x) for x in inputs], "outputs": [encode(y) for y in outputs],
                           "dys": [encode(d) for d in dys],
                           "input_grads": [gradient(x) for x in inputs],
                           "grads": {k: encode(p.grad) for k, p in module.named_parameters()},
                           **({"buffers": after} if after else {}),
                           **({"printed": str(module)} if printed else {})})

    def write(self):
        path = os.path.join(OUT, f"layers_{self.name}.json")
        with open(path, "w") as f:
            f.write("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in self.cases) + "\n]\n")
        print(path, len(self.cases), os.path.getsize(path))


def lists(n, v):
    return [v] * n if isinstance(v, int) else list(v)


def convolutions():
    c = Cases("conv")
    sizes = {1: [7], 2: [5, 5], 3: [3, 3, 4]}
    variants = [dict(kernel_size=3), dict(kernel_size=2, stride=2, padding=1), dict(kernel_size=3, padding=2, dilation=2),
                dict(kernel_size=1, bias=False), dict(kernel_size=2, groups=2), dict(kernel_size=3, padding=1, groups=4)]
    for n in (1, 2, 3):
        for v in variants + ([dict(kernel_size=(3, 2), stride=(1, 2), padding=(0, 1), dilation=(2, 1))] if n == 2 else []):
            if n == 3 and v["kernel_size"] == 3:
                v = dict(v, kernel_size=2)  # short files
            for transposed in (False, True):
                extra = {"output_padding": 1} if transposed and v.get("stride") == 2 else {}
                cls = getattr(nn, f"Conv{'Transpose' if transposed else ''}{n}d")
                m = cls(4, 4, **v, **extra)
                config = {"in_channels": 4, "out_channels": 4, "kernel_size": lists(n, v["kernel_size"]),
                          "stride": lists(n, v.get("stride", 1)), "padding": lists(n, v.get("padding", 0)),
                          "dilation": lists(n, v.get("dilation", 1)), "groups": v.get("groups", 1), "bias": v.get("bias", True),
                          "output_padding": lists(n, extra.get("output_padding", 0))}
                c.add(m, config, [coarse(2 if n < 3 else 1, 4, *sizes[n])])
        m = getattr(nn, f"Conv{n}d")(2, 3, 2)
        one = {"stride": [1] * n, "padding": [0] * n, "dilation": [1] * n, "groups": 1, "bias": True, "output_padding": [0] * n}
        c.add(m, {"in_channels": 2, "out_channels": 3, "kernel_size": [2] * n, **one}, [coarse(2, *sizes[n])])
    c.write()


def linears():
    c = Cases("linear")
    for bias in (True, False):
        for shape in ((3, 5), (2, 3, 5), (5,), (1, 2, 2, 5)):
            c.add(nn.Linear(5, 4, bias), {"in_features": 5, "out_features": 4, "bias": bias}, [coarse(*shape)])
        for shape in ((3,), (2, 2)):
            c.add(nn.Bilinear(3, 4, 2, bias), {"in1_features": 3, "in2_features": 4, "out_features": 2, "bias": bias},
                  [coarse(*shape, 3), coarse(*shape, 4)])
    c.add(nn.Identity(), {}, [coarse(3, 2)])
    for index in (torch.tensor([0, 4, 2, 4]), torch.tensor([[1, 0], [3, 1]]), torch.tensor(2)):
        for padding in (None, 1, -1):
            m = nn.Embedding(5, 3, padding_idx=padding)
            c.add(m, {"num_embeddings": 5, "embedding_dim": 3, "padding_idx": -1 if padding is None else padding % 5}, [index])
    for mode in ("sum", "mean", "max"):
        for padding in (None, 2):
            config = {"num_embeddings": 5, "embedding_dim": 3, "mode": mode, "include_last_offset": False,
                      "padding_idx": -1 if padding is None else padding}
            c.add(nn.EmbeddingBag(5, 3, mode=mode, padding_idx=padding), config, [torch.tensor([[0, 4, 2], [1, 1, 3]])])
            c.add(nn.EmbeddingBag(5, 3, mode=mode, padding_idx=padding), config,
                  [torch.tensor([0, 4, 2, 1, 3, 0]), torch.tensor([0, 2, 5])])
        c.add(nn.EmbeddingBag(5, 3, mode=mode, include_last_offset=True), dict(config, include_last_offset=True, padding_idx=-1),
              [torch.tensor([0, 4, 2, 1, 3, 0]), torch.tensor([0, 3, 3, 6])])
    c.add(nn.EmbeddingBag(5, 3, mode="sum"), dict(config, mode="sum", padding_idx=-1),
          [torch.tensor([[0, 4, 2], [1, 1, 3]]), None, coarse(2, 3)],
          call=lambda m, x: m(x[0], per_sample_weights=x[2]))
    c.write()


def norms():
    c = Cases("norm")
    shapes = {1: [(5, 4), (2, 4, 3)], 2: [(2, 4, 2, 3)], 3: [(2, 4, 2, 1, 2)]}
    for n in (1, 2, 3):
        for shape in shapes[n]:
            for v in (dict(), dict(eps=1e-3, momentum=0.3), dict(affine=False), dict(track_running_stats=False)):
                full = dict(dict(eps=1e-5, momentum=0.1, affine=True, track_running_stats=True), **v)
                for training in (True, False):
                    c.add(getattr(nn, f"BatchNorm{n}d")(4, **full), dict(full, num_features=4), [coarse(*shape, scale=2)], training)
    for n, shape in ((1, (2, 4, 5)), (2, (2, 4, 2, 3)), (3, (1, 4, 2, 2, 2)), (2, (4, 3, 2))):
        for v in (dict(), dict(affine=True), dict(track_running_stats=True), dict(affine=True, track_running_stats=True, momentum=0.3)):
            full = dict(dict(eps=1e-5, momentum=0.1, affine=False, track_running_stats=False), **v)
            for training in (True, False) if full["track_running_stats"] else (True,):
                c.add(getattr(nn, f"InstanceNorm{n}d")(4, **full), dict(full, num_features=4), [coarse(*shape, scale=2)], training)
    for groups in (1, 2, 4):
        for affine in (True, False):
            for shape in ((2, 4, 3), (3, 4, 2, 2), (2, 4)):
                if shape == (2, 4) and groups > 1:
                    continue  # too few numbers in a group: only rounding is left of the gradient
                c.add(nn.GroupNorm(groups, 4, 1e-4, affine), {"num_groups": groups, "num_channels": 4, "eps": 1e-4, "affine": affine},
                      [coarse(*shape, scale=2)])
    for shape in ((4,), (3, 4)):
        for affine in (True, False):
            c.add(nn.LayerNorm(shape, elementwise_affine=affine),
                  {"normalized_shape": list(shape), "eps": 1e-5, "elementwise_affine": affine}, [coarse(2, 3, 4, scale=2)])
    c.write()


def activations():
    c = Cases("activation")
    for m, config in [(nn.ReLU(), {}), (nn.ReLU6(), {}), (nn.Sigmoid(), {}), (nn.Tanh(), {}), (nn.Hardsigmoid(), {}),
                      (nn.Hardswish(), {}), (nn.LeakyReLU(0.1), {"negative_slope": 0.1}), (nn.LeakyReLU(), {"negative_slope": 0.01}),
                      (nn.ELU(), {"alpha": 1.0}), (nn.ELU(1.5), {"alpha": 1.5}), (nn.CELU(), {"alpha": 1.0}), (nn.CELU(0.5), {"alpha": 0.5}),
                      (nn.GELU(), {"approximate": "none"}), (nn.GELU("tanh"), {"approximate": "tanh"}),
                      (nn.Hardtanh(), {"min": -1.0, "max": 1.0}), (nn.Hardtanh(-0.3, 2.2), {"min": -0.3, "max": 2.2}),
                      (nn.SELU(), {}), (nn.SiLU(), {}), (nn.Softsign(), {}), (nn.Softplus(), {"beta": 1.0, "threshold": 20.0}),
                      (nn.Softplus(2, 3), {"beta": 2.0, "threshold": 3.0})]:
        x = coarse(4, 12, scale=3)
        if isinstance(m, nn.Hardtanh):
            x = x + 1 / 32  # its gradient at the corners is 0 in PyTorch, while clamp's is 1
        c.add(m, config, [x])
        c.add(m, config, [torch.tensor([-30.0, -1e-3, 0.0, 1e-3, 5.5, 30.0])], printed=False)
    for dim in (0, 1, -1):
        c.add(nn.Softmax(dim), {"dim": dim}, [coarse(2, 3, 4, scale=2)])
        c.add(nn.LogSoftmax(dim), {"dim": dim}, [coarse(2, 3, 4, scale=2)])
    for n in (1, 3):
        c.add(nn.PReLU(n), {"num_parameters": n}, [coarse(2, 3, 4)])
    for p in (0.0, 0.5):
        c.add(nn.Dropout(p), {"p": p}, [coarse(3, 4)], training=False)
        c.add(nn.Dropout2d(p), {"p": p}, [coarse(2, 3, 2, 2)], training=False)
    c.write()


def pools():
    c = Cases("pool")
    sizes = {1: [9], 2: [6, 7], 3: [4, 5, 4]}
    for n in (1, 2, 3):
        for v in (dict(kernel_size=2), dict(kernel_size=3, stride=2, padding=1), dict(kernel_size=3, stride=2, ceil_mode=True),
                  dict(kernel_size=2, stride=1, dilation=2)):
            full = dict(dict(stride=v["kernel_size"], padding=0, dilation=1, ceil_mode=False), **v)
            config = {"kernel": lists(n, full["kernel_size"]), "stride": lists(n, full["stride"]), "padding": lists(2 * n, full["padding"]),
                      "dilation": lists(n, full["dilation"]), "ceil_mode": full["ceil_mode"]}
            c.add(getattr(nn, f"MaxPool{n}d")(**v), config, [distinct(2 if n < 3 else 1, 2, *sizes[n])])
        for v in (dict(kernel_size=2), dict(kernel_size=3, stride=2, padding=1), dict(kernel_size=3, stride=2, padding=1, ceil_mode=True),
                  dict(kernel_size=3, stride=2, padding=1, count_include_pad=False), dict(kernel_size=2, divisor_override=3)):
            if n == 1 and "divisor_override" in v:
                continue
            full = dict(dict(stride=v["kernel_size"], padding=0, ceil_mode=False, count_include_pad=True, divisor_override=0), **v)
            config = {"kernel": lists(n, full["kernel_size"]), "stride": lists(n, full["stride"]), "padding": lists(2 * n, full["padding"]),
                      "ceil_mode": full["ceil_mode"], "count_include_pad": full["count_include_pad"],
                      "divisor_override": full["divisor_override"]}
            c.add(getattr(nn, f"AvgPool{n}d")(**v), config, [coarse(2 if n < 3 else 1, 2, *sizes[n])])
        for size in (1, 3):
            for kind in ("Avg", "Max"):
                c.add(getattr(nn, f"Adaptive{kind}Pool{n}d")(size), {"output_size": [size] * n}, [distinct(1, 2, *sizes[n])])
    c.add(nn.AdaptiveAvgPool2d((None, 3)), {"output_size": [-1, 3]}, [distinct(1, 2, 4, 5)])
    c.add(nn.MaxPool2d(2), {"kernel": [2, 2], "stride": [2, 2], "padding": [0] * 4, "dilation": [1, 1], "ceil_mode": False},
          [distinct(2, 4, 4)])
    for mode, spatial in (("nearest", 1), ("nearest", 2), ("nearest", 3), ("nearest-exact", 2), ("linear", 1), ("bilinear", 2),
                          ("bicubic", 2), ("trilinear", 3)):
        for align in ((False, True) if "linear" in mode or mode == "bicubic" else (None,)):
            for kw in (dict(scale_factor=2), dict(scale_factor=1.7), dict(size=tuple([5, 2, 3][:spatial]))):
                m = nn.Upsample(**kw, mode=mode, align_corners=align)
                config = {"size": list(kw.get("size", [])), "scale_factor": [float(kw["scale_factor"])] if "scale_factor" in kw else [],
                          "mode": mode, "align_corners": bool(align)}
                c.add(m, config, [coarse(1, 1, *[3, 4, 2][:spatial])], printed=not (spatial == 1 and "size" in kw))
    c.add(nn.Flatten(), {"start_dim": 1, "end_dim": -1}, [coarse(2, 3, 2)])
    c.add(nn.Flatten(0, 1), {"start_dim": 0, "end_dim": 1}, [coarse(2, 3, 2)])
    c.add(nn.Unflatten(1, (2, 3)), {"dim": 1, "unflattened_size": [2, 3]}, [coarse(2, 6, 2)])
    c.add(nn.PixelShuffle(2), {"upscale_factor": 2}, [coarse(1, 8, 2, 3)])
    c.add(nn.PixelUnshuffle(2), {"downscale_factor": 2}, [coarse(1, 2, 4, 6)])
    c.add(nn.ChannelShuffle(2), {"groups": 2}, [coarse(1, 6, 1, 2)], no_dy=(0,))
    c.write()


def recurrent():
    c = Cases("recurrent")
    base = dict(num_layers=1, bias=True, batch_first=False, dropout=0.0, bidirectional=False, proj_size=0)
    for cls in (nn.RNN, nn.LSTM, nn.GRU):
        variants = [dict(), dict(num_layers=2), dict(bidirectional=True), dict(num_layers=2, bidirectional=True), dict(bias=False),
                    dict(batch_first=True)]
        if cls is nn.LSTM:
            variants += [dict(proj_size=2), dict(proj_size=2, num_layers=2, bidirectional=True)]
        if cls is nn.RNN:
            variants += [dict(nonlinearity="relu"), dict(nonlinearity="relu", num_layers=2)]
        for v in variants:
            full = dict(base, **v)
            kwargs = {k: x for k, x in full.items() if not (k == "proj_size" and cls is not nn.LSTM)}
            config = dict(full, input_size=3, hidden_size=4, nonlinearity=full.get("nonlinearity", "tanh"))
            states = full["num_layers"] * (2 if full["bidirectional"] else 1)
            out = full["proj_size"] or 4
            for given in (False, True):
                if given and len(v) == 2 and cls is not nn.LSTM:
                    continue
                m = cls(3, 4, **kwargs)
                inputs = [coarse(1, 3, 3) if full["batch_first"] else coarse(3, 1, 3)]
                if given:
                    inputs.append(coarse(states, 1, out))
                    if cls is nn.LSTM:
                        inputs.append(coarse(states, 1, 4))
                c.add(m, config, inputs,
                      call=lambda m, x: m(x[0], tuple(x[1:]) if isinstance(m, nn.LSTM) else x[1]) if len(x) > 1 else m(x[0]))
        m = cls(3, 4, **{k: x for k, x in base.items() if not (k == "proj_size" and cls is not nn.LSTM)})
        c.add(m, dict(base, input_size=3, hidden_size=4, nonlinearity="tanh"), [coarse(5, 3)])
    for cls in (nn.RNNCell, nn.LSTMCell, nn.GRUCell):
        for bias in (True, False):
            for shape in ((2,), ()):
                config = {"input_size": 3, "hidden_size": 4, "bias": bias}
                if cls is nn.RNNCell:
                    config["nonlinearity"] = "tanh"
                c.add(cls(3, 4, bias), config, [coarse(*shape, 3)])
                states = [coarse(*shape, 4) for _ in range(2 if cls is nn.LSTMCell else 1)]
                c.add(cls(3, 4, bias), config, [coarse(*shape, 3)] + states,
                      call=lambda m, x: m(x[0], tuple(x[1:]) if isinstance(m, nn.LSTMCell) else x[1]))
    c.add(nn.RNNCell(3, 4, nonlinearity="relu"), {"input_size": 3, "hidden_size": 4, "bias": True, "nonlinearity": "relu"}, [coarse(2, 3)])
    c.write()


def attention():
    c = Cases("attention")
    base = dict(dropout=0.0, bias=True, add_bias_kv=False, add_zero_attn=False, kdim=4, vdim=4, batch_first=False)

    def add(v, inputs, need_weights=True, average=True):
        full = dict(base, **v)
        m = nn.MultiheadAttention(4, 2, **full)
        config = dict(full, embed_dim=4, num_heads=2, need_weights=need_weights, average_attn_weights=average)
        c.add(m, config, inputs,
              call=lambda m, x: m(x[0], x[1], x[2], key_padding_mask=x[3], attn_mask=x[4], need_weights=need_weights,
                                  average_attn_weights=average))

    def qkv(first=False, k=4, v=4):
        shapes = [(3, 2, 4), (5, 2, k), (5, 2, v)]
        return [coarse(*((s[1], s[0], s[2]) if first else s)) for s in shapes]

    padding = torch.tensor([[False, False, False, True, True], [False, False, False, False, True]])
    later = torch.triu(torch.ones(3, 5, dtype=torch.bool), 2)
    per_head = torch.round(torch.randn(4, 3, 5) * 4) / 4
    for v in (dict(), dict(bias=False), dict(batch_first=True), dict(add_bias_kv=True), dict(add_zero_attn=True),
              dict(kdim=3, vdim=2), dict(add_bias_kv=True, add_zero_attn=True)):
        x = qkv(v.get("batch_first", False), v.get("kdim", 4), v.get("vdim", 4))
        add(v, x + [None, None])
        add(v, x + [padding, None])
        add(v, x + [None, later])
        add(v, x + [padding, later])
    add({}, qkv() + [None, per_head])
    add({}, qkv() + [None, None], need_weights=False)
    add({}, qkv() + [None, later], average=False)
    add({}, [coarse(3, 4), coarse(5, 4), coarse(5, 4), None, None])
    add({}, [coarse(3, 4), coarse(5, 4), coarse(5, 4), padding[0], later])
    c.write()


def losses():
    c = Cases("loss")
    weight = torch.tensor([1.0, 0.5, 2.0, 0.25])
    for reduction in ("mean", "sum", "none"):
        for w in (None, weight):
            for smoothing in (0.0, 0.125):
                config = {"reduction": reduction, "ignore_index": -100, "label_smoothing": smoothing, "weight": [-1] if w is None else [4]}
                make = lambda ignore=-100: nn.CrossEntropyLoss(w, reduction=reduction, label_smoothing=smoothing, ignore_index=ignore)
                c.add(make(), config, [coarse(5, 4, scale=2), torch.tensor([0, 3, 1, 1, 2])])
                c.add(make(1), dict(config, ignore_index=1), [coarse(2, 4, 3), torch.tensor([[0, 3, 1], [1, 2, 2]])])
                c.add(make(), config, [coarse(3, 4), torch.softmax(coarse(3, 4), 1).detach()])
            config = {"reduction": reduction, "ignore_index": 2, "weight": [-1] if w is None else [4]}
            c.add(nn.NLLLoss(w, ignore_index=2, reduction=reduction), config, [coarse(4, 4), torch.tensor([0, 3, 2, 1])])
        for m, config in ((nn.MSELoss(reduction=reduction), {}), (nn.L1Loss(reduction=reduction), {}),
                          (nn.SmoothL1Loss(reduction=reduction), {"beta": 1.0}), (nn.SmoothL1Loss(reduction=reduction, beta=0.3), {"beta": 0.3}),
                          (nn.HuberLoss(reduction=reduction), {"delta": 1.0}), (nn.HuberLoss(reduction=reduction, delta=0.7), {"delta": 0.7})):
            c.add(m, dict(config, reduction=reduction), [coarse(3, 4), coarse(3, 4)])
        for w, p in ((None, None), (weight, None), (None, weight), (weight, weight)):
            c.add(nn.BCEWithLogitsLoss(w, reduction=reduction, pos_weight=p),
                  {"reduction": reduction, "weight": [-1] if w is None else [4], "pos_weight": [-1] if p is None else [4]},
                  [coarse(3, 4, scale=4), (coarse(3, 4) > 0).float()])
    c.add(nn.CrossEntropyLoss(), {"reduction": "mean", "ignore_index": -100, "label_smoothing": 0.0, "weight": [-1]},
          [coarse(4), torch.tensor(2)])
    for reduction in ("mean", "sum", "none", "batchmean"):
        for log_target in (False, True):
            target = torch.softmax(coarse(3, 4), 1)
            target[0] = torch.tensor([0.0, 0.5, 0.0, 0.5]) if not log_target else target[0]
            c.add(nn.KLDivLoss(reduction=reduction, log_target=log_target), {"reduction": reduction, "log_target": log_target},
                  [torch.log_softmax(coarse(3, 4), 1), target.log() if log_target else target])
    c.write()


def optimizers():
    cases = []
    start = [coarse(3, 2), coarse(4)]
    grads = [[coarse(3, 2), coarse(4)] for _ in range(6)]
    for name, options in [("SGD", dict(lr=0.1)), ("SGD", dict(lr=0.1, momentum=0.9)), ("SGD", dict(lr=0.1, weight_decay=0.01)),
                          ("SGD", dict(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.001)),
                          ("SGD", dict(lr=0.05, momentum=0.9, dampening=0.5)),
                          ("Adam", dict()), ("Adam", dict(lr=0.01, weight_decay=0.1)), ("Adam", dict(lr=0.02, amsgrad=True)),
                          ("Adam", dict(lr=0.01, betas=(0.8, 0.9), eps=1e-4)), ("AdamW", dict()), ("AdamW", dict(lr=0.01, weight_decay=0.1)),
                          ("AdamW", dict(lr=0.02, amsgrad=True))]:
        params = [p.clone().requires_grad_() for p in start]
        optimizer = getattr(torch.optim, name)([{"params": [params[0]]}, {"params": [params[1]], "weight_decay": 0.05}], **options)
        steps = []
        for step in grads:
            for p, g in zip(params, step):
                p.grad = g.clone()
            optimizer.step()
            steps.append([encode(p) for p in params])
        betas = options.pop("betas", None)
        if betas:
            options.update(beta1=betas[0], beta2=betas[1])
        cases.append({"optimizer": name, "options": {k: float(v) for k, v in options.items()}, "steps": steps})
    schedules = []
    for name, kwargs, count in [("StepLR", dict(step_size=3), 10), ("StepLR", dict(step_size=2, gamma=0.5), 10),
                                ("MultiStepLR", dict(milestones=[2, 5, 6]), 10), ("MultiStepLR", dict(milestones=[1, 1, 4], gamma=0.3), 8),
                                ("CosineAnnealingLR", dict(T_max=7), 14), ("CosineAnnealingLR", dict(T_max=5, eta_min=0.01), 11),
                                ("LinearLR", dict(), 8), ("LinearLR", dict(start_factor=0.1, end_factor=0.8, total_iters=4), 8),
                                ("OneCycleLR", dict(max_lr=0.4, total_steps=12), 11),
                                ("OneCycleLR", dict(max_lr=0.4, total_steps=10, pct_start=0.4, anneal_strategy="linear", div_factor=10,
                                                    final_div_factor=100), 9)]:
        p = torch.zeros(1, requires_grad=True)
        optimizer = torch.optim.SGD([{"params": [p]}, {"params": [torch.zeros(1, requires_grad=True)], "lr": 0.3}], lr=0.1, momentum=0.9)
        schedule = getattr(torch.optim.lr_scheduler, name)(optimizer, **kwargs)
        lrs, momenta = [], []
        for i in range(count + 1):
            lrs.append([g["lr"] for g in optimizer.param_groups])
            momenta.append(optimizer.param_groups[0]["momentum"])
            optimizer.step()
            if i < count:
                schedule.step()
        schedules.append({"schedule": name, "arguments": kwargs, "lrs": lrs, "momenta": momenta})
    clips = []
    for norm_type in (2.0, 1.0, 3.0, math.inf):
        for most in (0.5, 100.0):
            params = [p.clone().requires_grad_() for p in start]
            for p, g in zip(params, grads[0]):
                p.grad = g.clone()
            norm = torch.nn.utils.clip_grad_norm_(params, most, norm_type)
            clips.append({"norm_type": str(norm_type), "max_norm": most, "norm": number(norm.item()), "grads": [encode(p.grad) for p in params]})
    student, teacher = coarse(3, 4).requires_grad_(), coarse(3, 4)
    t = 2.5
    loss = nn.functional.kl_div(torch.log_softmax(student / t, 1), torch.softmax(teacher / t, 1), reduction="batchmean") * t * t
    loss.backward()
    distillation = {"student": encode(student), "teacher": encode(teacher), "temperature": t, "loss": number(loss.item()), "grad": encode(student.grad)}
    path = os.path.join(OUT, "optimizers.json")
    with open(path, "w") as f:
        json.dump({"start": [encode(p) for p in start], "grads": [[encode(g) for g in s] for s in grads], "optimizers": cases,
                   "schedules": schedules, "clips": clips, "distillation": distillation}, f, separators=(",", ":"))
        f.write("\n")
    print(path, len(cases) + len(schedules) + len(clips) + 1, os.path.getsize(path))


for make in (convolutions, linears, norms, activations, pools, recurrent, attention, losses, optimizers):
    make()
