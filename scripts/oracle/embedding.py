#!/usr/bin/python3
"""Writes tests/golden/embedding.json: PyTorch 1.13's float-qparams tables (tests/ops/embedding_golden_test.cpp).

Run by hand, from the repository's root, with Debian's python3 and python3-torch (1.13); a second:

    /usr/bin/python3 scripts/oracle/embedding.py

Codes, dequantized values and the qparams of the rows by PerChannelMinMaxObserver with per_channel_affine_float_qparams;
sums, means and maxima of bags by torch.nn.functional.embedding_bag on the dequantized table (PyTorch's own quantized bags
are wrong in the last two).
"""
import numpy as np
import torch
from torch.ao.quantization import observer as ao

from dynamic import bits, write
from observers import uniform, values

KINDS = ["normal", "uniform", "relu", "cubic", "hollow", "steps"]


def main():
    cases = []
    for i in range(120):
        u = uniform(70000 + i, 4)
        c = {"kind": KINDS[i % 6], "seed": 60000 + 10 * i, "rows": 2 + int(u[0] * 4), "columns": 1 + int(u[1] * 8),
             "scale": 10.0 ** (i // 12 % 4 - 2), "offset": 0.0, "dtype": ["quint8", "quint4x2"][i // 6 % 2]}
        x = torch.from_numpy(values(c["kind"], c["seed"], c["rows"] * c["columns"], c["scale"], c["offset"]).reshape(c["rows"], -1))
        dtype = getattr(torch, c["dtype"])
        o = ao.PerChannelMinMaxObserver(dtype=dtype, qscheme=torch.per_channel_affine_float_qparams, ch_axis=0)
        o(x)
        s, z = o.calculate_qparams()
        q = torch.quantize_per_channel(x, s, z, 0, dtype)
        y = q.dequantize()
        codes = q.int_repr().numpy().ravel()
        if c["dtype"] == "quint4x2":  # packed, the first code in the low bits
            codes = np.stack([codes & 15, codes >> 4], 1).ravel()[: y.numel()]
        index = torch.from_numpy((uniform(80000 + i, 7) * c["rows"]).astype(np.int64))
        offsets = torch.tensor([0, 2, 2, 5])
        c.update(s=bits(s.numpy()), z=bits(z.numpy()), codes=codes.tolist(), y=bits(y.numpy()), index=index.tolist())
        for mode in ("sum", "mean", "max"):
            c[mode] = bits(torch.nn.functional.embedding_bag(index, y, offsets, mode=mode).numpy())
        cases.append(c)
    write("embedding", cases)


if __name__ == "__main__":
    main()
