"""A model of which one part stays float. Where a stub is missing, convert says which and where."""
import octet


class M(octet.nn.Module):
    def __init__(self, forgetful=False):
        super().__init__()
        self.forgetful = forgetful
        self.quant = octet.quantization.QuantStub()
        self.conv1 = octet.nn.Conv2d(1, 1, 1)
        self.conv2 = octet.nn.Conv2d(1, 1, 1)
        self.dequant = octet.quantization.DeQuantStub()

    def forward(self, x):
        x = self.conv1(self.quant(x))
        if not self.forgetful:
            x = self.dequant(x)
        return self.conv2(x)


def quantized(model, x):
    model.eval()
    model.qconfig = octet.quantization.default_qconfig
    model.conv2.qconfig = None  # stays float
    prepared = octet.quantization.prepare(model)
    prepared(x)
    return octet.quantization.convert(prepared)


x = octet.randn(2, 1, 4, 4)
print(quantized(M(), x))
try:
    quantized(M(forgetful=True), x)
    raise AssertionError("codes reached a float layer")
except octet.Error as error:
    print(error)
