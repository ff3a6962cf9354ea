"""Are the inputs of a dynamically quantized layer quantized too? They are: within the operator, not between layers."""
import numpy as np

import octet
import octet.ao.quantization as quant


class MyModel(octet.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = octet.nn.Linear(10, 5)

    def forward(self, x):
        print("input dtype:", x.dtype)
        x = self.fc(x)
        print("output dtype:", x.dtype)
        return x


octet.manual_seed(0)
model = MyModel()
quantized_model = quant.quantize_dynamic(model, {octet.nn.Linear}, dtype=octet.qint8)
print(quantized_model)
x = octet.randn(3, 10)
y = quantized_model(x)

# By hand: the codes of x from its own range, products of codes summed in int32, and the result scaled back.
weight = quantized_model.fc.weight()
low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
levels = 127 if quantized_model.fc.reduce_range else 255
scale = np.float32((high - low) / levels)
zero_point = int(np.clip(np.rint(-low / scale), 0, levels))
x_codes = np.clip(np.rint(x.numpy() / scale) + zero_point, 0, levels).astype(np.int32)
sums = (x_codes - zero_point) @ weight.int_repr().numpy().astype(np.int32).T
by_hand = sums * (scale * np.float32(weight.q_scale())) + quantized_model.fc.bias().numpy()
with_float_inputs = x.numpy() @ weight.dequantize().numpy().T + quantized_model.fc.bias().numpy()
print("largest difference from integers by hand:   ", np.abs(y.numpy() - by_hand).max())
print("largest difference from float inputs by hand:", np.abs(y.numpy() - with_float_inputs).max())
assert np.abs(y.numpy() - by_hand).max() < 1e-5 < np.abs(y.numpy() - with_float_inputs).max()

step, = octet.explain(quantized_model.fc, [x], seconds=0).steps
print(step["op"], "-", step["numbers"], "-", step["kernel"])
assert step["numbers"] == "integers"
