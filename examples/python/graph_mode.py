"""Graph mode: the model is traced, so its forward needs no stubs and may call functions."""
import copy

import octet
import octet.quantization.quantize_fx as quantize_fx


class UserModel(octet.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = octet.nn.Conv2d(3, 8, 3)
        self.bn = octet.nn.BatchNorm2d(8)
        self.fc = octet.nn.Linear(8, 4)

    def forward(self, x):
        x = octet.relu(self.bn(self.conv(x)))
        return self.fc((x + x).mean((2, 3)))


model_fp = UserModel()
example = octet.randn(2, 3, 8, 8)

# Dynamic and weight-only: no calibration. Without example inputs the model is traced at its first call.
prepared = quantize_fx.prepare_fx(copy.deepcopy(model_fp).eval(), {"": octet.quantization.default_dynamic_qconfig})
print(quantize_fx.convert_fx(prepared)(example).shape)

# Static.
qconfig_dict = {"": octet.quantization.get_default_qconfig("qnnpack")}
prepared = quantize_fx.prepare_fx(copy.deepcopy(model_fp).eval(), qconfig_dict, (example,))
for _ in range(8):
    prepared(octet.randn(2, 3, 8, 8))
int8 = quantize_fx.convert_fx(prepared)
print(int8)
program = octet.compile(int8)  # what runs fastest
assert program(example).equal(int8(example))

# Training. Example inputs are needed here: the optimizer wants the parameters before the first call.
qconfig_dict = {"": octet.quantization.get_default_qat_qconfig("qnnpack")}
prepared = quantize_fx.prepare_qat_fx(copy.deepcopy(model_fp).train(), qconfig_dict, (example,))
optimizer = octet.optim.SGD(prepared.parameters(), lr=0.01)
for _ in range(3):
    optimizer.zero_grad()
    (prepared(example) ** 2).mean().backward()
    optimizer.step()
print(quantize_fx.convert_fx(prepared.eval())(example).shape)

# Fusion alone.
print(quantize_fx.fuse_fx(copy.deepcopy(model_fp).eval(), (example,)))
