"""Algorithms on graphs and prepared models: each is called, and the codes lose less by it."""
import unittest

import numpy as np

import octet
from octet import nn, quantization

NET = "examples/glyphs/glyphs.onnx"


def batches(count=64, size=8):
    images = np.load("examples/glyphs/calibrate.npz")["images"][:count].astype(np.float32)
    return [images[i:i + size] for i in range(0, count, size)]


def prepared_of(graph, samples, qconfig="qnnpack"):
    prepared = octet.prepare_fx(graph, octet.get_default_qconfig_mapping(qconfig))
    for x in samples:
        prepared(x)
    return prepared


def quality(float_graph, graph, samples):
    error, a, b = octet.metrics.ErrorStatistics(), octet.compile(float_graph), octet.compile(graph)
    for x in samples:
        error.add(a(x), b(x))
    return error.sqnr()


class OnPreparedGraphs(unittest.TestCase):
    """Weights with one scale each, to leave something to win."""

    def setUp(self):
        self.graph, self.samples = octet.load(NET), batches()
        self.prepared = prepared_of(self.graph, self.samples)
        self.before = quality(self.graph, octet.convert_fx(self.prepared), self.samples)

    def after(self):
        return quality(self.graph, octet.convert_fx(self.prepared), self.samples)

    def test_gptq(self):
        progress = []
        report = quantization.gptq(self.prepared, self.samples, progress=lambda done, all: progress.append((done, all)))
        self.assertEqual(len(report["layers"]), 8)
        self.assertEqual(progress[-1], (8, 8))
        for layer in report["layers"]:
            self.assertLess(layer["error"], layer["nearest_error"])
        self.assertGreater(self.after(), self.before + 3)

    def test_distill(self):
        done = []
        found = quantization.distill(self.prepared, self.samples, iterations=20, progress=lambda now, of: done.append((now, of)))
        self.assertLessEqual(found["error"], found["before"])
        self.assertEqual(done[-1], (20, 20))

    def test_adaround(self):
        report = quantization.adaround(self.prepared, self.samples, iterations=30)
        self.assertEqual([e["layers"] for e in report["entries"]], [[l["layer"]] for l in quantization.gptq(
            prepared_of(self.graph, self.samples), self.samples, sweeps=0, learn_scales=0)["layers"]])
        self.assertGreater(self.after(), self.before + 2)

    def test_ranges_and_biases(self):
        original = self.prepared.float_graph()
        self.assertEqual(str(original), str(prepared_of(self.graph, self.samples).float_graph()))
        quantization.choose_weight_ranges(self.prepared)
        quantization.correct_bias(self.prepared, self.samples, float_graph=original)
        self.assertGreater(self.after(), self.before)
        with self.assertRaisesRegex(octet.Error, "expected mse or octav"):
            quantization.choose_weight_ranges(self.prepared, criterion="l1")

    def test_choose_ranges_says_what_changed(self):
        candidates = [quantization.PercentileObserver.with_args(percentile=p) for p in (99.9, 100.0)]
        for chosen in quantization.choose_ranges(self.prepared, self.samples, candidates=candidates):
            self.assertIn(chosen["observer"].options["percentile"], (99.9, 100))
            self.assertLess(chosen["after"], chosen["before"])

    def test_biases_without_data(self):
        found = quantization.correct_bias_analytically(self.prepared, self.graph)
        self.assertEqual(len(found["corrected"] + found["unknown"]), 8)

    def test_an_uncalibrated_model_is_an_error(self):
        fresh = octet.prepare_fx(self.graph, octet.get_default_qconfig_mapping())
        for call in (quantization.gptq, quantization.correct_bias, quantization.adaround, quantization.distill, quantization.choose_ranges):
            with self.assertRaises(octet.Error) as caught:
                call(fresh, self.samples)
            self.assertEqual(caught.exception.code, "not_calibrated")
            with self.assertRaisesRegex(octet.Error, "no samples"):
                call(self.prepared, [])
        with self.assertRaises(octet.Error):
            quantization.gptq(nn.Linear(2, 2), self.samples)

    def test_training_starts_from_what_gptq_chose(self):
        calibrated = prepared_of(self.graph, self.samples, "native")
        quantization.gptq(calibrated, self.samples)
        qat = octet.prepare_qat_fx(self.graph, octet.get_default_qat_qconfig_mapping())
        quantization.start_qat_from(qat, calibrated)
        qat.eval()
        self.assertGreater(quality(self.graph, octet.convert_fx(qat), self.samples), self.before)


class OnGraphs(unittest.TestCase):
    def test_the_function_stays_the_same(self):
        graph, samples = octet.load(NET), batches()
        for call in (quantization.smooth_quant, quantization.awq, quantization.absorb_high_biases,
                     quantization.cross_layer_equalization):
            self.assertGreater(quality(graph, call(graph, samples), samples), 80, call.__name__)
        self.assertGreater(quality(graph, quantization.hadamard_rotation(graph), samples), 80)

    def test_smooth_quant_reports_its_factors(self):
        model = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 4)).eval()
        x, report = octet.randn(16, 8), []
        graph = octet.trace(model, (x,)).to_graph()
        smooth = quantization.smooth_quant(graph, [x], alpha=0.5, report=report)
        self.assertEqual([len(e["factors"]) for e in report], [8])
        np.testing.assert_allclose(octet.compile(smooth)(x).numpy(), model(x).numpy(), rtol=1e-4, atol=1e-5)

    def test_cross_layer_equalization_helps_one_scale_per_weight(self):
        graph, samples, report = octet.load(NET), batches(), []
        equal = quantization.cross_layer_equalization(graph, report=report)
        self.assertTrue(report)
        self.assertEqual(set(report[0]), {"producers", "consumers", "factors"})
        before = quality(graph, octet.convert_fx(prepared_of(graph, samples)), samples)
        self.assertGreater(quality(graph, octet.convert_fx(prepared_of(equal, samples)), samples), before)

    def test_block_weights(self):
        model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
        x, report = octet.randn(64, 64), []
        graph = octet.trace(model, (x,)).to_graph()
        small = quantization.quantize_block_weights(graph, [x], bits=4, block_size=16, report=report)
        self.assertEqual(small.operators.count("linear_blocks"), 2)
        nearest = quantization.quantize_block_weights(graph, bits=4, block_size=16, gptq=False)
        self.assertGreater(quality(graph, small, [x]), quality(graph, nearest, [x]))
        self.assertEqual(len(report), 2)

    def test_batch_norms_are_estimated_anew(self):
        model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).eval()
        x, names = octet.randn(8, 1, 4, 4) * 3 + 5, []
        graph = quantization.reestimate_batch_norms(octet.trace(model, (x,)).to_graph(), [x], report=names)
        self.assertEqual(len(names), 1)
        y = octet.compile(graph)(x).numpy()
        np.testing.assert_allclose(y.mean((0, 2, 3)), 0, atol=1e-4)

    def test_input_weight_equalization(self):
        model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)).eval()
        factors = octet.tensor([100.0, 1, 1, 1, 1, 1, 1, 1])
        with octet.no_grad():
            model[0].weight.copy_(model[0].weight / factors)
        x = octet.randn(64, 8) * factors
        mapping = octet.get_default_qconfig_mapping("qnnpack")

        def error(equalized):
            prepared = octet.prepare_fx(model, mapping, (x,))
            if equalized:
                which = octet.QConfigMapping().set_global(quantization.default_equalization_qconfig())
                prepared = quantization.prepare_equalization_fx(prepared, which)
            prepared(x)
            if equalized:
                report = []
                prepared = quantization.convert_equalization_fx(prepared, report)
                self.assertEqual([len(e["scale"]) for e in report], [8, 8])
            return octet.metrics.compute_sqnr(model(x), octet.convert_fx(prepared)(x))
        self.assertGreater(error(True), error(False) + 10)


class Observers(unittest.TestCase):
    def test_ranges_of_least_squared_error(self):
        weight = np.random.default_rng(0).normal(size=(4, 256)).astype(np.float32)
        weight[0, 0] = 30  # 4 bits cannot hold this and the rest

        def error(cls):
            observer = cls(ch_axis=0, dtype=octet.qint8, qscheme=octet.per_channel_symmetric, quant_min=-7, quant_max=7)
            observer(weight)
            scale, zero_point = observer.calculate_qparams()
            codes = np.clip(np.round(weight / scale.numpy()[:, None]) + zero_point.numpy()[:, None], -7, 7)
            return float(((codes - zero_point.numpy()[:, None]) * scale.numpy()[:, None] - weight).std(1)[1:].sum())
        self.assertLess(error(quantization.PerChannelMSEObserver), error(quantization.PerChannelMinMaxObserver))
        qconfig = quantization.QConfig(quantization.default_observer, quantization.PerChannelMSEObserver.with_args(
            dtype=octet.qint8, qscheme=octet.per_channel_symmetric))
        self.assertEqual(qconfig.weight.name, "PerChannelMSEObserver")


class Doctor(unittest.TestCase):
    def test_a_cause_and_a_cure(self):
        graph, samples, said = octet.load(NET), batches(), []
        mapping = octet.get_default_qconfig_mapping("qnnpack")
        poor = octet.quantize(graph, batches(2, 1), qconfig_mapping=mapping)
        report = octet.doctor(graph, poor, samples, seconds=20, progress=said.append)
        self.assertTrue(report.cured)
        self.assertGreater(report.after, report.before)
        self.assertTrue(said)
        causes = [f["cause"] for f in report.findings]
        self.assertIn("too few samples", causes)
        kept = [f for f in report.findings if f["kept"]]
        self.assertTrue(kept and all(f["gain"] > 0 and f["cures"][f["best"]]["what"] for f in kept))
        self.assertEqual(quality(graph, report.graph, samples),
                         quality(graph, octet.apply_recipe(graph, report.recipe, samples), samples))

    def test_labels_are_counted(self):
        archive = np.load("examples/glyphs/test.npz")
        images, labels = archive["images"][:64].astype(np.float32), archive["labels"][:64].astype(np.int64)
        graph = octet.load(NET)
        report = octet.doctor(graph, octet.quantize(graph, batches()), [images], [labels], seconds=0.1)
        self.assertGreater(report.float_top1, 0.5)
        self.assertIsNone(report.data)


if __name__ == "__main__":
    unittest.main()
