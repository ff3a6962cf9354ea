#!/usr/bin/python3
"""Writes tests/golden/modules_embedding.json: PyTorch 1.13's quantized tables (tests/quant/embedding_modules_test.cpp).

Run by hand, from the repository's root, with Debian's python3 and python3-torch (1.13); a second:

    /usr/bin/python3 scripts/oracle/embedding_modules.py

The table is made on both sides from the case's seed (values()), indices and per-sample weights from seed + 1 and seed + 2
(uniform numbers). Results are base64 of float32. Forms: "dynamic" (quantize_dynamic), "static" (prepare, convert) and "qat"
(prepare_qat; "trained" is the result before convert). What PyTorch gets wrong is not here: bags that are means or maxima
("mean" is summed, "max" fails), include_last_offset (it is lost), 4-bit Embedding (its forward overflows).
"""
import warnings

import numpy as np
import torch
import torch.ao.quantization as tq
import torch.nn as nn
import torch.nn.qat as nnqat

from dynamic import write
from modules import pack
from observers import uniform, values

warnings.filterwarnings("ignore")


def main():
    torch.backends.quantized.engine = "qnnpack"
    cases = []
    for i in range(120):
        u = uniform(180000 + i, 6)
        form = ["dynamic", "static", "qat"][i % 3]
        bag = i // 3 % 4 != 0
        bits4 = bag and i // 12 % 2 == 1
        c = {"form": form, "kind": "EmbeddingBag" if bag else "Embedding", "dtype": "quint4x2" if bits4 else "quint8",
             "seed": 1100000 + 20 * i, "rows": 2 + int(u[0] * 9), "columns": 2 + 2 * int(u[1] * 6), "scale": [0.1, 1.0, 30.0][i % 7 % 3]}
        if bag:
            c.update(weighted=bool(u[3] < 0.5))
            m = nn.EmbeddingBag(c["rows"], c["columns"], mode="sum")
        else:
            m = nn.Embedding(c["rows"], c["columns"])
        m.weight.data = torch.from_numpy(values("normal", c["seed"], m.weight.numel(), c["scale"], 0.0)).reshape(m.weight.shape)
        n = 7 if bag else 4
        index = torch.from_numpy(np.floor(uniform(c["seed"] + 1, n) * c["rows"]).astype(np.int64))
        args = [index]
        if bag:
            args.append(torch.tensor([0, 2, 2, 5]))
            args.append(torch.from_numpy(uniform(c["seed"] + 2, n).astype(np.float32)) if c["weighted"] else None)
        suffix = "_4bit" if bits4 else ""
        model = nn.Sequential(m)
        if form == "qat":
            model.train()
            model.qconfig = getattr(tq, "default_embedding_qat_qconfig" + suffix)
            model = tq.prepare_qat(model, mapping={nn.Embedding: nnqat.Embedding, nn.EmbeddingBag: nnqat.EmbeddingBag})
            c["trained"] = pack(model[0](*args).detach().numpy())
            q = tq.convert(model.eval(), mapping={nnqat.Embedding: nn.quantized.Embedding, nnqat.EmbeddingBag: nn.quantized.EmbeddingBag})[0]
        else:
            qconfig = getattr(tq, "float_qparams_weight_only_qconfig" + suffix)
            model.eval()
            if form == "dynamic":
                q = tq.quantize_dynamic(model, {type(m): qconfig}, dtype=getattr(torch, c["dtype"]))[0]
            else:
                model.qconfig = qconfig
                q = tq.convert(tq.prepare(model))[0]
        c["repr"] = repr(q)
        c["out"] = pack(q(*args).numpy())
        cases.append(c)
    write("modules_embedding", cases)


if __name__ == "__main__":
    main()
