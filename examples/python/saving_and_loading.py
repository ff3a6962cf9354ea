"""A quantized model as a state dict, loaded into a model that was never calibrated; and as a file of its own."""
import io
import os
import tempfile

import octet
from octet import nn
from octet.quantization import default_qconfig
from octet.quantization.quantize_fx import convert_fx, prepare_fx


class M(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 5)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.linear(x))


prepared = prepare_fx(M().eval(), {"": default_qconfig})
prepared(octet.rand(5, 5))
quantized = convert_fx(prepared)
x = octet.rand(5, 5)

# The state dict: codes, scales and zero points under the names of the modules. The file is safetensors, and nothing in
# it is run when it is read.
b = io.BytesIO()
octet.save(quantized.state_dict(), b)
b.seek(0)
again = convert_fx(prepare_fx(M().eval(), {"": default_qconfig}))
again.load_state_dict(octet.load(b))
assert again(x).equal(quantized(x))

# The graph, which needs no class to be loaded: what torch.jit.script is for.
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "model.octet")
    octet.save(octet.trace(quantized, (x,)).to_graph(), path)
    program = octet.compile(octet.load(path))
    assert program(x).equal(quantized(x))
    print(program.graph)
