"""Does a quantized layer compute in integers? Its inputs, weight and result by a hook, and the sums by hand."""
import numpy as np

import octet


class M(octet.nn.Module):
    def __init__(self):
        super().__init__()
        self.quant = octet.quantization.QuantStub()
        self.conv = octet.nn.Conv2d(1, 1, 1)
        self.relu = octet.nn.ReLU()
        self.dequant = octet.quantization.DeQuantStub()

    def forward(self, x):
        return self.dequant(self.relu(self.conv(self.quant(x))))


model = M().eval()
model.qconfig = octet.quantization.get_default_qconfig("fbgemm")
prepared = octet.quantization.prepare(octet.quantization.fuse_modules(model, [["conv", "relu"]]))
x = octet.randn(4, 1, 4, 4)
prepared(x)
int8 = octet.quantization.convert(prepared)

seen = {}
int8.conv.register_forward_hook(lambda module, inputs, output: seen.update(x=inputs[0], y=output))
int8(x)
x_q, w_q, y_q = seen["x"], int8.conv.weight(), seen["y"]
print(x_q.dtype, w_q.dtype, y_q.dtype)

# One product per result, for the kernel is 1x1 with one channel: all in int32 until the result is scaled.
codes = x_q.int_repr().numpy().astype(np.int32) - x_q.q_zero_point()
weight = w_q.int_repr().numpy().astype(np.int32)
s = x_q.q_scale() * w_q.q_per_channel_scales().numpy()[0]
bias = np.rint(int8.conv.bias().numpy()[0] / s).astype(np.int32)
sums = codes * weight + bias
by_hand = np.clip(np.rint(sums * np.float32(s / int8.conv.scale)) + int8.conv.zero_point, 0, 255)
print("codes that differ from integer sums by hand:", int((y_q.int_repr().numpy() != by_hand).sum()))

# The kernel's own word, and each step once more by the reference engine.
explained = octet.explain(int8, [x], seconds=0, verify=True)
for step in explained.steps:
    print(f"{step['name']:12} {step['op']:12} {step['numbers']:12} {step['kernel']}  {step['verified']}")
conv = next(step for step in explained.steps if step["op"] == "conv2d")
assert conv["numbers"] == "integers" and conv["verified"] == "identical"
