#!/usr/bin/python3
"""Writes tests/golden/example_models.json: the models of examples/models in PyTorch 1.13 (tests/nn/example_models_test.cpp).

Run by hand, from the repository's root, with Debian's python3, python3-torch (1.13) and python3-torchvision (0.14); a few
seconds:

    /usr/bin/python3 scripts/oracle/example_models.py

ResNet-18 and MobileNetV2 are torchvision's, BERT is written below after the paper with Hugging Face's names, the LSTM is
torch.nn's. "keys" are the names and shapes of a state dict. Neither parameters nor inputs are stored: both sides make them;
see `fill` and `main`.
"""
import math
import warnings

import numpy as np
import torch
import torchvision
from torch import nn

from dynamic import write
from observers import uniform, values

warnings.filterwarnings("ignore")


class Node(nn.Module):
    """Modules by name."""

    def __init__(self, /, **children):
        super().__init__()
        for name, child in children.items():
            setattr(self, name, child)


class Bert(nn.Module):
    def __init__(self, vocabulary, hidden, layers, heads, intermediate, max_positions, token_types):
        super().__init__()
        norm = lambda: nn.LayerNorm(hidden, eps=1e-12)
        self.heads = heads
        self.embeddings = Node(
            word_embeddings=nn.Embedding(vocabulary, hidden),
            position_embeddings=nn.Embedding(max_positions, hidden),
            token_type_embeddings=nn.Embedding(token_types, hidden),
            LayerNorm=norm(),
        )
        make = lambda: Node(
            attention=Node(
                self=Node(query=nn.Linear(hidden, hidden), key=nn.Linear(hidden, hidden), value=nn.Linear(hidden, hidden)),
                output=Node(dense=nn.Linear(hidden, hidden), LayerNorm=norm()),
            ),
            intermediate=Node(dense=nn.Linear(hidden, intermediate)),
            output=Node(dense=nn.Linear(intermediate, hidden), LayerNorm=norm()),
        )
        self.encoder = Node(layer=nn.ModuleList([make() for _ in range(layers)]))

    def forward(self, ids, mask=None):
        e = self.embeddings
        x = e.word_embeddings(ids) + e.position_embeddings.weight[: ids.shape[1]] + e.token_type_embeddings.weight[0]
        x = e.LayerNorm(x)
        for layer in self.encoder.layer:
            a = layer.attention
            q, k, v = (f(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for f in (a.self.query, a.self.key, a.self.value))
            scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
            p = torch.softmax(scores if mask is None else scores + mask, -1)
            x = a.output.LayerNorm(a.output.dense((p @ v).transpose(1, 2).flatten(2)) + x)
            y = torch.nn.functional.gelu(layer.intermediate.dense(x))
            x = layer.output.LayerNorm(layer.output.dense(y) + x)
        return x


class BiLSTM(nn.Module):
    def __init__(self, vocabulary, embedding_dim, hidden, layers, num_classes, pooling):
        super().__init__()
        self.pooling = pooling
        self.embedding = nn.Embedding(vocabulary, embedding_dim)
        self.lstm = nn.LSTM(embedding_dim, hidden, layers, batch_first=True, bidirectional=True)
        self.classifier = nn.Linear(2 * hidden, num_classes)

    def forward(self, ids):
        y = self.lstm(self.embedding(ids))[0]
        return self.classifier(y.mean(1) if self.pooling == "mean" else y[:, -1])


def fill(model, seed):
    """The k-th tensor of the state dict in the order of names: variances 1..1.5, weights of norms 0.75..1.25, other vectors
    within 0.2, others uniform with standard deviation 1/sqrt(elements per first index)."""
    for k, (name, t) in enumerate(sorted(model.state_dict().items())):
        if t.dtype != torch.float32:
            continue
        scale, offset = math.sqrt(3.0 / (t.numel() / t.shape[0])), 0.0
        if name.endswith("running_var"):
            scale, offset = 0.25, 1.25
        elif t.dim() == 1:
            scale, offset = (0.25, 1.0) if name.endswith("weight") else (0.2, 0.0)
        t.copy_(torch.from_numpy(values("uniform", seed + k, t.numel(), scale, offset).reshape(t.shape)))


def keys(model):
    return {name: list(t.shape) for name, t in sorted(model.state_dict().items())}


def resnet18(o):
    m = torchvision.models.resnet18(num_classes=o["num_classes"])
    if o["width"] == 64:
        return m
    block = torchvision.models.resnet.BasicBlock
    w = m.inplanes = o["width"]  # torchvision fixes it to 64
    m.conv1, m.bn1 = nn.Conv2d(3, w, 7, 2, 3, bias=False), nn.BatchNorm2d(w)
    for i in range(4):
        setattr(m, f"layer{i + 1}", m._make_layer(block, w << i, 2, 1 if i == 0 else 2))
    m.fc = nn.Linear(8 * w, o["num_classes"])
    return m


def mobilenet_v2(o):
    return torchvision.models.mobilenet_v2(
        num_classes=o["num_classes"], width_mult=o["width_mult"], inverted_residual_setting=o.get("stages")
    )


MODELS = {"resnet18": resnet18, "mobilenet_v2": mobilenet_v2, "bert": lambda o: Bert(**o), "bilstm": lambda o: BiLSTM(**o)}


def main():
    cases = []

    def add(model, shape=None, seed=0, mask=False, **options):
        c = {"model": model, "options": options}
        m = MODELS[model](options).eval()
        if shape is None:
            c["keys"] = keys(m)
        else:
            c.update(seed=seed, shape=shape, mask=mask)
            with torch.no_grad():
                fill(m, seed)
                n = int(np.prod(shape))
                if model in ("bert", "bilstm"):
                    inputs = [torch.from_numpy((uniform(seed + 1000, n) * options["vocabulary"]).astype(np.int64).reshape(shape))]
                else:
                    inputs = [torch.from_numpy(values("normal", seed + 1000, n, 1.0, 0.0).reshape(shape))]
                if mask:  # the last tokens of the second text are padding
                    inputs.append(torch.zeros(shape[0], 1, 1, shape[1]))
                    inputs[1][1, :, :, -2:] = -10000.0
                y = m(*inputs)
            c.update(out_shape=list(y.shape), out=[float("%.8g" % v) for v in y.flatten().tolist()])
        cases.append(c)

    bert = {"vocabulary": 50, "hidden": 24, "layers": 2, "heads": 3, "intermediate": 40, "max_positions": 12, "token_types": 2}
    lstm = {"vocabulary": 50, "embedding_dim": 12, "hidden": 8, "num_classes": 5}
    add("resnet18", num_classes=1000, width=64)
    add("mobilenet_v2", num_classes=1000, width_mult=1.0)
    add("mobilenet_v2", num_classes=10, width_mult=0.35)
    add("bert", **bert)
    add("bilstm", **lstm, layers=2, pooling="mean")
    add("resnet18", [2, 3, 64, 64], 5000000, num_classes=10, width=8)
    add("resnet18", [1, 3, 45, 33], 5001000, num_classes=7, width=4)
    small = [[1, 8, 1, 1], [3, 16, 2, 2], [2, 16, 1, 1]]
    add("mobilenet_v2", [2, 3, 32, 32], 5002000, num_classes=10, width_mult=1.0, stages=small)
    add("mobilenet_v2", [1, 3, 64, 64], 5003000, num_classes=10, width_mult=0.1)
    add("bert", [2, 7], 5004000, **bert)
    add("bert", [3, 12], 5005000, True, **bert)
    add("bilstm", [3, 6], 5006000, layers=1, pooling="mean", **lstm)
    add("bilstm", [2, 5], 5007000, layers=2, pooling="last", **lstm)
    write("example_models", cases)


if __name__ == "__main__":
    main()
