"""Quantizing models of modules: eager mode, graph mode, training, observers and modules written in Python."""
import copy
import os
import pickle
import subprocess
import sys
import tempfile
import unittest

import numpy as np

import octet
import octet.nn.functional as F
import octet.nn.quantized as nnq
from octet import nn, quantization


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.quant = quantization.QuantStub()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.skip = nnq.FloatFunctional()
        self.fc = nn.Linear(8, 4)
        self.dequant = quantization.DeQuantStub()

    def forward(self, x):
        x = self.relu(self.bn(self.conv(self.quant(x))))
        x = self.skip.add(x, x).mean((2, 3))
        return self.dequant(self.fc(x))


class Plain(nn.Module):
    """Without stubs, and with calls of functions: for graph mode."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.conv(x))
        return self.fc((x + x).mean((2, 3)))


class Custom(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        return self.linear(x)


class Observed(nn.Module):
    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, x):
        return self.linear(x)

    @classmethod
    def from_float(cls, module):
        made = cls(module.linear)
        made.qconfig = module.qconfig
        return made


class Quantized(nn.Module):
    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, x):
        return self.linear(x)

    @classmethod
    def from_observed(cls, module):
        module.linear.activation_post_process = module.activation_post_process
        return cls(nnq.Linear.from_float(module.linear))


class LargestMagnitude(quantization.ObserverBase):
    def __init__(self, dtype=octet.quint8, factor=1.0):
        super().__init__(dtype)
        self.factor, self.largest = factor, 0.0

    def forward(self, x):
        self.largest = max(self.largest, float(x.abs().max()))
        return x

    def calculate_qparams(self):
        return self.largest * self.factor / 127, 128


class Ranges(quantization.UniformQuantizationObserverBase):
    def forward(self, x):
        low, high = x.min(), x.max()
        self.min_val = low if self.min_val is None else octet.minimum(self.min_val, low)
        self.max_val = high if self.max_val is None else octet.maximum(self.max_val, high)
        return x


def calibrated(backend="native"):
    model = Net().eval()
    model.qconfig = quantization.get_default_qconfig(backend)
    prepared = quantization.prepare(quantization.fuse_modules(model, [["conv", "bn", "relu"]]))
    for _ in range(4):
        prepared(octet.randn(2, 3, 6, 6))
    return model, prepared


class Eager(unittest.TestCase):
    def test_static(self):
        for backend in ("native", "fbgemm", "qnnpack"):
            model, prepared = calibrated(backend)
            report = quantization.ConversionReport()
            int8 = quantization.convert(prepared, report=report)
            x = octet.randn(2, 3, 6, 6)
            self.assertLess(float((int8(x) - model(x)).abs().max()), 0.1)
            self.assertIsInstance(int8, Net)
            self.assertIsInstance(int8.conv, nnq.ConvReLU2d)
            self.assertIsInstance(int8.skip, quantization.QFunctional)
            self.assertEqual(int8.conv.weight().dtype, octet.qint8)
            self.assertEqual(int8.conv.bias().shape, (8,))
            self.assertGreater(int8.conv.scale, 0)
            self.assertEqual(report.left_float(), [])

    def test_functions_work_on_copies_unless_inplace(self):
        model = nn.Sequential(quantization.QuantStub(), nn.Linear(2, 2), quantization.DeQuantStub()).eval()
        model.qconfig = quantization.default_qconfig
        prepared = quantization.prepare(model)
        self.assertNotIn("Observer", repr(model))
        prepared(octet.randn(4, 2))
        same = quantization.convert(prepared, inplace=True)
        self.assertIs(same, prepared)

    def test_a_part_stays_float(self):
        model = nn.Sequential(quantization.QuantWrapper(nn.Linear(4, 4)), nn.Linear(4, 4)).eval()
        model.qconfig = quantization.default_qconfig
        model[1].qconfig = None
        prepared = quantization.prepare(model)
        prepared(octet.randn(8, 4))
        int8 = quantization.convert(prepared)
        self.assertEqual(type(int8[1]), nn.Linear)
        self.assertEqual(int8(octet.randn(2, 4)).shape, (2, 4))
        with self.assertRaises(octet.Error):
            quantization.convert(prepared, strict=True)

    def test_uncalibrated_is_an_error(self):
        model = Net().eval()
        model.qconfig = quantization.default_qconfig
        with self.assertRaises(octet.Error) as caught:
            quantization.convert(quantization.prepare(model))
        self.assertEqual(caught.exception.code, "not_calibrated")

    def test_dynamic(self):
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
        x = octet.randn(3, 4)
        for spec, dtype in ((None, octet.qint8), ({nn.Linear}, octet.qint8), ({nn.Linear}, octet.float16),
                            ({"0": quantization.per_channel_dynamic_qconfig}, octet.qint8)):
            int8 = quantization.quantize_dynamic(model, spec, dtype)
            self.assertLess(float((int8(x) - model(x)).abs().max()), 0.1)
        self.assertEqual(int8[0].weight().dtype, octet.qint8)
        self.assertEqual(type(int8[2]), nn.Linear)
        with self.assertRaises(octet.Error):
            quantization.quantize_dynamic(model, {nn.LSTM})
        self.assertIn("WeightOnly", repr(quantization.quantize_weight_only(model)))

    def test_states_and_pickles_of_quantized_models(self):
        model, prepared = calibrated()
        int8 = quantization.convert(prepared)
        x = octet.randn(2, 3, 6, 6)
        for again in (copy.deepcopy(int8), pickle.loads(pickle.dumps(int8))):
            self.assertTrue(again(x).equal(int8(x)))
        fresh = Net().eval()
        fresh.qconfig = quantization.get_default_qconfig()
        fresh = quantization.prepare(quantization.fuse_modules(fresh, [["conv", "bn", "relu"]]))
        empty = quantization.convert(fresh, for_loading=True)
        with self.assertRaises(octet.Error):
            empty(x)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "int8.safetensors")
            octet.save_state_dict(path, int8.state_dict())
            empty.load_state_dict(octet.load_state_dict(path))
        self.assertTrue(empty(x).equal(int8(x)))

    def test_a_prepared_model_goes_on_after_a_pickle(self):
        _, prepared = calibrated()
        again = pickle.loads(pickle.dumps(prepared))
        x = octet.randn(2, 3, 6, 6) * 3
        prepared(x)
        again(x)
        self.assertEqual(repr(quantization.convert(again)), repr(quantization.convert(prepared)))

    def test_observers(self):
        x = octet.tensor([-1.0, 0.0, 3.0])
        for cls in (quantization.MinMaxObserver, quantization.MovingAverageMinMaxObserver,
                    quantization.HistogramObserver, quantization.PercentileObserver):
            observer = cls(dtype=octet.qint8)
            observer(x)
            scale, zero_point = observer.calculate_qparams()
            self.assertAlmostEqual(float(scale), 4 / 255, places=3)
            self.assertEqual((observer.dtype, observer.quant_min), (octet.qint8, -128))
        other = quantization.MinMaxObserver()
        other(octet.tensor([5.0]))
        mine = quantization.MinMaxObserver()
        mine(x)
        mine.merge(other)
        self.assertEqual((float(mine.min_val), float(mine.max_val)), (-1, 5))
        mine.reset_min_max_vals()
        with self.assertRaises(octet.Error) as caught:
            mine.calculate_qparams()
        self.assertEqual(caught.exception.code, "not_calibrated")
        made = quantization.MinMaxObserver.with_args(dtype=octet.qint8, qscheme=octet.per_tensor_symmetric)()
        self.assertEqual(made.qscheme, octet.per_tensor_symmetric)
        channels = quantization.PerChannelMinMaxObserver(ch_axis=1)
        channels(octet.randn(2, 3))
        self.assertEqual(channels.calculate_qparams()[0].shape, (3,))

    def test_fake_quantize(self):
        fake = quantization.FakeQuantize(observer=quantization.MovingAverageMinMaxObserver, quant_min=0, quant_max=255)
        x = octet.rand(1000)
        y = fake(x)
        self.assertLessEqual(len(set(y.tolist())), 256)
        self.assertLess(float((x - y).abs().max()), 0.01)
        fake.disable_fake_quant()
        self.assertTrue(fake(x).equal(x))

    def test_qconfigs(self):
        self.assertEqual(quantization.get_default_qconfig("fbgemm"), quantization.get_default_qconfig("x86"))
        mine = quantization.QConfig(activation=quantization.HistogramObserver.with_args(reduce_range=True),
                                    weight=quantization.default_weight_observer)
        self.assertIn("reduce_range", repr(mine))
        self.assertEqual(pickle.loads(pickle.dumps(mine)), mine)
        with self.assertRaises(octet.Error):
            quantization.QConfig(activation=3, weight=None)
        with self.assertRaises(octet.Error):
            quantization.get_default_qconfig("fbgem")


    def test_backends(self):
        backend = quantization.get_backend_config("qnnpack")
        again = quantization.BackendConfig.from_json(backend.to_json())
        self.assertEqual(again.to_json(), backend.to_json())
        self.assertEqual(backend.to_json(), quantization.get_qnnpack_backend_config().to_json())
        nothing = quantization.BackendConfig.from_json('{"name": "nothing", "configs": []}')
        model, x = Plain().eval(), octet.randn(2, 3, 6, 6)
        with self.assertRaises(octet.Error):
            octet.prepare_fx(model, quantization.default_qconfig, (x,), backend_config=nothing)
        prepared = octet.prepare_fx(model, quantization.get_default_qconfig("qnnpack"), (x,), backend_config=backend)
        prepared(x)
        self.assertIn("Quantized", repr(octet.convert_fx(prepared, backend_config=backend)))

    def test_equalization_keeps_what_the_model_computes(self):
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
        with octet.no_grad():
            model[0].weight.copy_(model[0].weight * octet.tensor([[10.0 ** i] for i in range(-4, 4)]))
        x = octet.randn(5, 4)
        even = quantization.equalize(model, [["0", "2"]], sample=[x])
        self.assertTrue(even(x).allclose(model(x), rtol=1e-4, atol=1e-4))
        def ranges(weight, dim):  # 0 counted in
            return weight.amax(dim).clamp(min=0) - weight.amin(dim).clamp(max=0)
        self.assertTrue(ranges(even[0].weight, 1).allclose(ranges(even[2].weight, 0), rtol=0.01))
        self.assertFalse(ranges(model[0].weight, 1).allclose(ranges(model[2].weight, 0), rtol=0.01))

    def test_the_numeric_suite(self):
        from octet.ao.ns import _numeric_suite as ns
        model, prepared = calibrated()
        fused = quantization.fuse_modules(model, [["conv", "bn", "relu"]])
        int8 = quantization.convert(prepared)
        weights = ns.compare_weights(fused, int8)
        self.assertEqual(set(weights), {"conv.weight", "fc.weight"})
        x = octet.randn(2, 3, 6, 6)
        outputs = ns.compare_model_outputs(copy.deepcopy(fused), copy.deepcopy(int8), x)
        a, b = outputs["conv.stats"]["float"][0], outputs["conv.stats"]["quantized"][0]
        self.assertLess(float((a - b.dequantize()).abs().max()), 0.2)
        self.assertIn("fc.stats", ns.compare_model_stub(fused, int8, [nn.Linear], x))


class WrittenInPython(unittest.TestCase):
    def test_observers(self):
        model = nn.Sequential(quantization.QuantStub(), nn.Linear(4, 4), quantization.DeQuantStub()).eval()
        model.qconfig = quantization.QConfig(activation=LargestMagnitude.with_args(factor=2.0),
                                             weight=quantization.default_weight_observer)
        prepared = quantization.prepare(model)
        x = octet.randn(8, 4)
        prepared(x)
        self.assertIsInstance(prepared[0].activation_post_process, LargestMagnitude)
        int8 = quantization.convert(prepared)
        self.assertAlmostEqual(int8[0].scale, float(x.abs().max()) * 2 / 127, places=6)
        self.assertEqual(int8[0].zero_point, 128)
        again = pickle.loads(pickle.dumps(prepared))
        self.assertEqual(again[0].activation_post_process.largest, prepared[0].activation_post_process.largest)

    def test_pickles_go_to_other_processes(self):
        program = """
import pickle, sys, octet
from octet import nn, quantization
class Mine(quantization.ObserverBase):
    def __init__(self, step=1.0):
        super().__init__()
        self.step = step
    def forward(self, x):
        return x
    def calculate_qparams(self):
        return self.step, 3
if sys.argv[1] == "write":
    model = nn.Sequential(quantization.QuantStub(), nn.Linear(2, 2), quantization.DeQuantStub()).eval()
    for other in (4.0, 5.0):
        Mine.with_args(step=other)
    model.qconfig = quantization.QConfig(activation=Mine.with_args(step=0.5), weight=quantization.default_weight_observer)
    prepared = quantization.prepare(model)
    prepared(octet.randn(2, 2))
    pickle.dump((prepared, model.qconfig), open(sys.argv[2], "wb"))
else:
    prepared, qconfig = pickle.load(open(sys.argv[2], "rb"))
    assert qconfig == prepared.qconfig
    int8 = quantization.convert(prepared)
    assert (int8[1].scale, int8[1].zero_point) == (0.5, 3)
"""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "program.py")
            with open(path, "w") as file:
                file.write(program)
            for what in ("write", "read"):
                ran = subprocess.run([sys.executable, path, what, os.path.join(folder, "model.pickle")],
                                     capture_output=True, text=True)
                self.assertEqual((ran.returncode, ran.stderr), (0, ""))

    def test_equal_arguments_make_equal_qconfigs(self):
        weight = quantization.default_weight_observer
        one, two, three = (quantization.QConfig(activation=LargestMagnitude.with_args(factor=f), weight=weight)
                           for f in (1.0, 1.0, 2.0))
        self.assertEqual(one, two)
        self.assertNotEqual(one, three)

    def test_fake_quantization_with_an_observer_of_ones_own(self):
        fake = quantization.FakeQuantize(observer=LargestMagnitude)
        x = octet.rand(50)
        self.assertLess(float((fake(x) - x).abs().max()), 0.01)
        self.assertTrue(pickle.loads(pickle.dumps(fake))(x).equal(fake(x)))

    def test_observers_of_ranges_are_minmax_observers(self):
        plain, x = nn.Sequential(nn.Linear(4, 4)).eval(), octet.randn(8, 4)
        found = []
        for activation in (Ranges, quantization.MinMaxObserver):
            qconfig = quantization.QConfig(activation=activation, weight=quantization.default_weight_observer)
            prepared = octet.prepare_fx(plain, qconfig, (x,))
            prepared(x)
            found.append(octet.convert_fx(prepared)(x))
        self.assertTrue(found[0].equal(found[1]))

    def test_an_observer_that_fails_says_so(self):
        class Failing(quantization.ObserverBase):
            def forward(self, x):
                raise ZeroDivisionError("in the observer")
        class Wrong(quantization.ObserverBase):
            def forward(self, x):
                return x

            def calculate_qparams(self):
                return 0.0, 0
        for cls, error in ((Failing, ZeroDivisionError), (Wrong, octet.Error)):
            model = nn.Sequential(quantization.QuantStub(), nn.Linear(2, 2)).eval()
            model.qconfig = quantization.QConfig(activation=cls, weight=quantization.default_weight_observer)
            with self.assertRaises(error):
                prepared = quantization.prepare(model)
                prepared(octet.randn(2, 2))
                quantization.convert(prepared)

    def test_custom_modules_in_eager_mode(self):
        model = quantization.QuantWrapper(Custom()).eval()
        model.qconfig = quantization.default_qconfig
        prepared = quantization.prepare(model, prepare_custom_config_dict={
            "float_to_observed_custom_module_class": {Custom: Observed}})
        self.assertIsInstance(prepared.module, Observed)
        prepared(octet.randn(16, 3))
        int8 = quantization.convert(prepared, convert_custom_config_dict={
            "observed_to_quantized_custom_module_class": {Observed: Quantized}})
        self.assertIsInstance(int8.module, Quantized)
        x = octet.randn(2, 3)
        self.assertLess(float((int8(x) - model(x)).abs().max()), 0.2)

    def test_custom_modules_in_graph_mode(self):
        model, x = nn.Sequential(Custom()).eval(), octet.randn(16, 3)
        for give in (dict, lambda d: quantization.PrepareCustomConfig.from_dict(d)):
            prepared = octet.prepare_fx(model, {"": quantization.default_qconfig}, (x,), give({
                "float_to_observed_custom_module_class": {"static": {Custom: Observed}}}))
            prepared(x)
            int8 = octet.convert_fx(prepared, convert_custom_config_dict={
                "observed_to_quantized_custom_module_class": {"static": {Observed: Quantized}}})
            self.assertLess(float((int8(x) - model(x)).abs().max()), 0.2)


class GraphMode(unittest.TestCase):
    def test_static(self):
        model, x = Plain().eval(), octet.randn(2, 3, 6, 6)
        prepared = octet.prepare_fx(model, octet.get_default_qconfig_mapping(), (x,))
        for _ in range(4):
            prepared(octet.randn(2, 3, 6, 6))
        int8 = octet.convert_fx(prepared)
        self.assertLess(float((int8(x) - model(x)).abs().max()), 0.1)
        graph = int8.to_graph()
        self.assertTrue(octet.compile(graph)(x).equal(int8(x)))
        self.assertIn("QUInt8", str(graph))
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.octet")
            octet.save_model(path, int8)
            self.assertTrue(octet.load_model(path)(x).equal(int8(x)))
        self.assertTrue(pickle.loads(pickle.dumps(int8))(x).equal(int8(x)))

    def test_mappings_take_classes_functions_and_names(self):
        model, x = Plain().eval(), octet.randn(2, 3, 6, 6)
        default = quantization.get_default_qconfig()
        for mapping in ({"": default, "object_type": [(nn.Linear, None)]},
                        {"": default, "module_name": [("fc", None)]},
                        octet.QConfigMapping().set_global(default).set_object_type("linear", default)
                        .set_module_name("fc", None)):
            prepared = octet.prepare_fx(model, mapping, (x,))
            prepared(x)
            self.assertEqual(type(octet.convert_fx(prepared).fc), nn.Linear)
        outer = nn.Sequential(model, nn.Flatten())
        for cls, left in ((Plain, 2), (nn.Conv2d, 1)):
            prepared = octet.prepare_fx(outer.eval(), octet.QConfigMapping().set_global(default)
                                        .set_object_type(F.relu, default).set_object_type(nn.Conv2d, None), (x,))
            self.assertNotIn("0.conv", [n for n, q in prepared.qconfig_map.items() if q])
        with self.assertRaises(octet.Error):
            octet.prepare_fx(model, {"": default, "object_typ": []}, (x,))
        with self.assertRaises(octet.Error):
            octet.QConfigMapping().set_object_type("conv2", default)

    def test_a_model_is_traced_at_its_first_call_without_example_inputs(self):
        model, x = Plain().eval(), octet.randn(2, 3, 6, 6)
        prepared = octet.prepare_fx(model, {"": quantization.default_qconfig})
        prepared(x)
        int8 = octet.convert_fx(prepared)
        later = octet.convert_fx(octet.prepare_fx(Plain().eval(), {"": quantization.default_qconfig}))
        later.load_state_dict(int8.state_dict())
        self.assertTrue(later(x).equal(int8(x)))
        dynamic = octet.convert_fx(octet.prepare_fx(model, {"": quantization.default_dynamic_qconfig}))
        self.assertLess(float((dynamic(x) - model(x)).abs().max()), 0.2)
        with self.assertRaises(octet.Error):
            octet.prepare_qat_fx(model.train(), {"": quantization.default_qat_qconfig})

    def test_what_depends_on_numbers_names_the_line(self):
        class Branching(nn.Module):
            def forward(self, x):
                return x if x.sum() > 0 else -x
        with self.assertRaises(octet.Error) as caught:
            octet.trace(Branching().eval(), (octet.randn(2),))
        self.assertRegex(str(caught.exception), "^trace: Branching: .*test_quantization.py:")
        self.assertIsInstance(caught.exception.__cause__, octet.Error)  # with the lines that led there
        leaf = nn.Sequential(nn.Linear(2, 2), Branching()).eval()
        self.assertIn("Branching", repr(octet.trace(leaf, (octet.randn(3, 2),), leaf_modules=["1"])))

    def test_fusion(self):
        model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU()).eval()
        x = octet.randn(1, 1, 4, 4)
        fused = octet.fuse_fx(model, (x,))
        self.assertIn("ConvReLU2d", repr(fused))
        self.assertTrue(fused(x).allclose(model(x), atol=1e-6))

    def test_reference(self):
        model, x = Plain().eval(), octet.randn(2, 3, 6, 6)
        prepared = octet.prepare_fx(model, octet.get_default_qconfig_mapping(), (x,))
        prepared(x)
        self.assertIn("quantize", octet.convert_to_reference_fx(prepared).graph.operators)


class Training(unittest.TestCase):
    def data(self):
        octet.manual_seed(0)
        x = octet.randn(64, 3, 6, 6)
        return x, (x.mean((1, 2, 3)) > 0).long()

    def trained(self, model, steps=30, optimizer=None):
        x, labels = self.data()
        optimizer = optimizer or octet.optim.Adam(model.parameters(), lr=0.02)
        losses = []
        for _ in range(steps):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    def test_gradients(self):
        w = octet.randn(3, requires_grad=True)
        (w * w).sum().backward()
        self.assertTrue(w.grad.allclose(w.detach() * 2))
        with octet.no_grad():
            self.assertFalse((w * 2).requires_grad)
            w -= 1
        self.assertTrue(w.is_leaf)
        with self.assertRaises(octet.Error):
            w += 1
        with self.assertRaises(octet.Error):
            octet.ones(2).backward()
        w.grad = None
        self.assertIsNone(w.grad)

    def test_losses_fall(self):
        for make in (lambda p: octet.optim.SGD(p, lr=0.1, momentum=0.9), octet.optim.Adam, octet.optim.AdamW):
            octet.manual_seed(3)
            model = Plain()
            losses = self.trained(model, 40, make([{"params": list(model.parameters()), "lr": 0.05}]))
            self.assertLess(losses[-1], 0.7 * losses[0])

    def test_eager_qat(self):
        octet.manual_seed(1)
        model = Net().train()
        model.qconfig = quantization.get_default_qat_qconfig("native")
        prepared = quantization.prepare_qat(quantization.fuse_modules(model, [["conv", "bn", "relu"]]))
        losses = self.trained(prepared, 40)
        self.assertLess(losses[-1], 0.7 * losses[0])
        prepared.apply(quantization.disable_observer)
        prepared.eval()
        int8 = quantization.convert(prepared)
        x, _ = self.data()
        self.assertLessEqual(float((int8(x) - prepared(x)).abs().max()), 2.01 * int8.fc.scale)

    def test_learned_scales(self):
        octet.manual_seed(1)
        model = Net().train()
        with self.assertRaisesRegex(octet.Error, "no LearnableFakeQuantize"):
            quantization.enable_param_learning(model)
        default = quantization.get_default_qat_qconfig("native")
        learned = quantization.LearnableFakeQuantize.with_args(observer=quantization.MovingAverageMinMaxObserver)
        model.qconfig = quantization.QConfig(activation=learned, weight=default.weight)
        prepared = quantization.prepare_qat(quantization.fuse_modules(model, [["conv", "bn", "relu"]]))
        x, _ = self.data()
        prepared(x)   # ranges to begin with
        quantization.enable_param_learning(prepared)
        scales = {n: float(p.detach()[0]) for n, p in prepared.named_parameters() if n.endswith(".scale")}
        losses = self.trained(prepared, 40, octet.optim.Adam(prepared.parameters(), lr=0.002))
        self.assertLess(losses[-1], losses[0])
        self.assertTrue(scales)
        for name, p in prepared.named_parameters():
            if name in scales:
                self.assertNotEqual(float(p.detach()[0]), scales[name], name)

    def test_graph_mode_qat(self):
        octet.manual_seed(1)
        x, _ = self.data()
        prepared = octet.prepare_qat_fx(Plain().train(), octet.get_default_qat_qconfig_mapping(), (x,))
        losses = self.trained(prepared, 40)
        self.assertLess(losses[-1], 0.7 * losses[0])
        prepared.eval()
        self.assertIn("QuantizedLinear", repr(octet.convert_fx(prepared)))

    def test_schedules_and_states(self):
        model = nn.Linear(2, 2)
        optimizer = octet.optim.SGD(model.parameters(), lr=1.0, momentum=0.5)
        schedule = octet.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        schedule.step()
        self.assertEqual(optimizer.param_groups[0]["lr"], 0.5)
        octet.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 2.0)
        optimizer.param_groups[0]["lr"] = 0.25
        self.assertEqual(optimizer.param_groups[0]["lr"], 0.25)
        model(octet.ones(1, 2)).sum().backward()
        optimizer.step()
        again = octet.optim.SGD(model.parameters(), lr=1.0, momentum=0.5)
        again.load_state_dict(optimizer.state_dict())
        self.assertEqual(again.param_groups[0]["lr"], 0.25)
        self.assertGreater(octet.optim.clip_grad_norm_(model.parameters(), 0.1), 0.1)
        with self.assertRaises(octet.Error):
            optimizer.param_groups[0]["speed"] = 1

    def test_a_graph_is_trained(self):
        graph = octet.trace(Plain().eval(), (octet.randn(2, 3, 6, 6),)).to_graph()
        model = octet.GraphModule(graph).train()
        losses = self.trained(model, 40)
        self.assertLess(losses[-1], 0.7 * losses[0])
        x, _ = self.data()
        self.assertTrue(octet.compile(model.eval().to_graph())(x).allclose(model(x), atol=1e-4))


if __name__ == "__main__":
    unittest.main()
