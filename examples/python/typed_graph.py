"""Each value of a graph has a type with its codes' scale and zero point, and keeps it through a file."""
import os
import tempfile

import octet
from octet.quantization import DeQuantStub, QuantStub, default_qconfig


class AnnotatedConvModel(octet.nn.Module):
    def __init__(self):
        super().__init__()
        self.qconfig = default_qconfig
        self.conv = octet.nn.Conv2d(3, 3, 3, bias=False).to(dtype=octet.float)
        self.quant = QuantStub()
        self.dequant = DeQuantStub()

    def forward(self, x):
        return self.dequant(self.conv(self.quant(x)))


model, x = AnnotatedConvModel().eval(), octet.rand(2, 3, 10, 10)
octet.quantization.prepare(model, inplace=True)
model(x)
octet.quantization.convert(model, inplace=True)

graph = octet.trace(model, (x,)).to_graph()
print(graph)
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "trace.octet")
    octet.save(graph, path)
    assert str(octet.load(path)) == str(graph)
assert "QUInt8" in str(graph)
