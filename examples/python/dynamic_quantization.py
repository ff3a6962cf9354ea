"""Dynamic quantization: weights become codes now, activations at each call. Nothing is calibrated."""
import octet


class M(octet.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = octet.nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(x)


model = M()
int8 = octet.quantization.quantize_dynamic(model, {octet.nn.Linear}, dtype=octet.qint8)
x = octet.randn(4, 4, 4, 4)
print(int8)
print("largest difference from float:", float((int8(x) - model(x)).abs().max()))
