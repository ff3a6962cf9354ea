"""Static quantization in eager mode: stubs mark where codes begin and end, samples say how they are scaled."""
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
fused = octet.quantization.fuse_modules(model, [["conv", "relu"]])
prepared = octet.quantization.prepare(fused)

x = octet.randn(4, 1, 4, 4)
prepared(x)  # calibration: in earnest, some hundred samples of the data

int8 = octet.quantization.convert(prepared)
print(int8)
print("largest difference from float:", float((int8(x) - model(x)).abs().max()))
