"""A module that is observed and quantized in a way of its own, in eager and in graph mode."""
import octet
import octet.nn.quantized as nnq
import octet.quantization.quantize_fx


class CustomModule(octet.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = octet.nn.Linear(3, 3)

    def forward(self, x):
        return self.linear(x)


class ObservedCustomModule(octet.nn.Module):
    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, x):
        return self.linear(x)

    @classmethod
    def from_float(cls, float_module):
        observed = cls(float_module.linear)
        observed.qconfig = float_module.qconfig
        return observed


class StaticQuantCustomModule(octet.nn.Module):
    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, x):
        return self.linear(x)

    @classmethod
    def from_observed(cls, observed_module):
        observed_module.linear.activation_post_process = observed_module.activation_post_process
        return cls(nnq.Linear.from_float(observed_module.linear))


octet.manual_seed(0)
samples = octet.randn(32, 3)

# Eager mode. The wrapper's stubs make codes of floats and floats of codes.
m = octet.quantization.QuantWrapper(octet.nn.Sequential(CustomModule())).eval()
m.qconfig = octet.quantization.default_qconfig
mp = octet.quantization.prepare(m, prepare_custom_config_dict={
    "float_to_observed_custom_module_class": {CustomModule: ObservedCustomModule}})
mp(samples)
mq = octet.quantization.convert(mp, convert_custom_config_dict={
    "observed_to_quantized_custom_module_class": {ObservedCustomModule: StaticQuantCustomModule}})
print(mq)
assert float((mq(samples) - m(samples)).abs().max()) < 0.1

# Graph mode. Stubs are not needed.
m = octet.nn.Sequential(CustomModule()).eval()
mp = octet.quantization.quantize_fx.prepare_fx(
    m, {"": octet.quantization.default_qconfig}, (samples,), prepare_custom_config_dict={
        "float_to_observed_custom_module_class": {"static": {CustomModule: ObservedCustomModule}}})
mp(samples)
mq = octet.quantization.quantize_fx.convert_fx(mp, convert_custom_config_dict={
    "observed_to_quantized_custom_module_class": {"static": {ObservedCustomModule: StaticQuantCustomModule}}})
print(mq)
assert float((mq(samples) - m(samples)).abs().max()) < 0.1
