"""A class of one's own that wraps tensors goes through a model in graph mode: features become codes, indices stay."""
import octet
import octet.nn.quantized as nnq
from octet import nn


class SparseTensor:
    def __init__(self, features, indices):
        self.features, self.indices = features, indices


octet.register_value(SparseTensor, lambda s: (s.features, s.indices), SparseTensor)


class SparseLinear(nn.Module):
    """The float layer: one product for each point."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, x):
        return SparseTensor(self.linear(x.features), x.indices)


class ObservedSparseLinear(SparseLinear):
    def __init__(self, linear):
        nn.Module.__init__(self)
        self.linear = linear

    @classmethod
    def from_float(cls, float_module):
        observed = cls(float_module.linear)
        observed.qconfig = float_module.qconfig
        return observed


class QuantizedSparseLinear(SparseLinear):
    def __init__(self, linear):
        nn.Module.__init__(self)
        self.linear = linear

    @classmethod
    def from_observed(cls, observed):
        observed.linear.activation_post_process = observed.activation_post_process
        return cls(nnq.Linear.from_float(observed.linear))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = SparseLinear(1, 8)
        self.second = SparseLinear(8, 4)

    def forward(self, x):
        x = self.second(self.first(x))
        return x.features, x.indices


octet.manual_seed(0)
model = Net().eval()
points = SparseTensor(octet.randn(16, 1), octet.randint(28, (16, 2)))
prepared = octet.prepare_fx(model, octet.quantization.default_qconfig, (points,), {
    "float_to_observed_custom_module_class": {"static": {SparseLinear: ObservedSparseLinear}}})
prepared(points)
int8 = octet.convert_fx(prepared, {
    "observed_to_quantized_custom_module_class": {"static": {ObservedSparseLinear: QuantizedSparseLinear}}})
print(int8)
print(int8.graph)
features, indices = int8(points)
expected, _ = model(points)
print("largest difference from float:", float((features - expected).abs().max()))
assert indices.equal(points.indices)
assert float((features - expected).abs().max()) < 0.2
