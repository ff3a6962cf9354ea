"""The numeric suite of graph mode, the model report, metrics: what is wrong where."""
import contextlib
import io
import unittest

import numpy as np

import octet
from octet import nn, quantization
from octet.ao.ns import _numeric_suite_fx as ns

SQNR = octet.metrics.compute_sqnr


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.relu(self.conv(x)).mean((2, 3)))


def models():
    octet.manual_seed(0)
    model, x = Net().eval(), octet.randn(8, 1, 6, 6)
    prepared = octet.prepare_fx(model, octet.get_default_qconfig_mapping(), (x,))
    prepared(x)
    return model, prepared, octet.convert_fx(prepared), x


class GraphMode(unittest.TestCase):
    def test_weights(self):
        _, prepared, int8, _ = models()
        results = ns.extract_weights("fp32", prepared, "int8", int8)
        ns.extend_logger_results_with_comparison(results, "fp32", "int8", SQNR, "sqnr")
        self.assertEqual(len(results), 2)
        for layer in results.values():
            a, b = layer["weight"]["fp32"][0], layer["weight"]["int8"][0]
            self.assertFalse(a["values"][0].is_quantized)
            self.assertTrue(b["values"][0].is_quantized)
            self.assertEqual(b["sqnr"], [SQNR(a["values"][0], b["values"][0])])
            self.assertGreater(b["sqnr"][0], 30)
            self.assertNotIn("sqnr", a)

    def test_activations_of_each_model(self):
        _, prepared, int8, x = models()
        a, b = ns.add_loggers("fp32", prepared, "int8", int8, ns.OutputLogger)
        a(x), b(x), b(x)
        results = ns.extract_logger_info(a, b, ns.OutputLogger, "int8")
        for layer in results.values():
            self.assertEqual(len(layer["node_output"]["fp32"][0]["values"]), 1)
            self.assertEqual(len(layer["node_output"]["int8"][0]["values"]), 2)
        with self.assertRaises(octet.Error):
            ns.extend_logger_results_with_comparison(results, "fp32", "other", SQNR, "sqnr")

    def test_shadows_and_split_errors(self):
        _, prepared, int8, x = models()
        shadowed = ns.add_shadow_loggers("fp32", prepared, "int8", int8)
        self.assertTrue(shadowed(x).equal(int8(x)))
        results = ns.extract_shadow_logger_info(shadowed, ns.OutputLogger, "int8")
        ns.extend_logger_results_with_comparison(results, "fp32", "int8", SQNR, "sqnr")
        for layer in results.values():
            self.assertGreater(layer["node_output"]["int8"][0]["sqnr"][0], 25)
        for error in ns.split_layer_errors(prepared, int8, [x]).values():
            self.assertGreater(error["own_sqnr"], 25)
            self.assertGreater(error["total_sqnr"], 20)

    def test_graphs_of_operators(self):
        net = octet.load("examples/glyphs/glyphs.onnx")
        images = np.load("examples/glyphs/calibrate.npz")["images"][:8].astype(np.float32)
        prepared = octet.prepare_fx(net, octet.get_default_qconfig_mapping())
        prepared(images)
        int8 = octet.convert_fx(prepared)
        self.assertIsInstance(int8, octet.Graph)
        self.assertEqual(len(ns.extract_weights("fp32", prepared, "int8", int8)), 8)

    def test_loggers_of_other_classes_are_an_error(self):
        _, prepared, int8, _ = models()
        with self.assertRaisesRegex(octet.Error, "expected OutputLogger"):
            ns.add_loggers("a", prepared, "b", int8, nn.Identity)

    def test_several_qconfigs_side_by_side(self):
        model, _, _, x = models()
        qconfigs = ns.QConfigMultiMapping().set_global(
            [quantization.get_default_qconfig("qnnpack"), quantization.get_default_qconfig()])
        self.assertEqual(len(qconfigs.qconfig_mappings_list), 2)
        shadowed = ns.prepare_n_shadows_model(model, (x,), qconfigs)
        shadowed(x)
        ns.convert_n_shadows_model(shadowed)
        ns.loggers_set_enabled(shadowed, True)
        self.assertTrue(shadowed(x).equal(model(x)))
        results = ns.extract_results_n_shadows_model(shadowed)
        self.assertEqual(len(results["model"]["node_output"]["subgraph_0_2"][0]["sqnr"]), 1)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            ns.print_comparisons_n_shadows_model(results)
        self.assertIn("fc", printed.getvalue())


class Report(unittest.TestCase):
    detectors = ("dynamic_vs_static_detector", "input_weight_equalization_detector", "outlier_detector",
                 "per_channel_detector")

    def report(self):
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
        x = octet.randn(64, 4) * octet.tensor([1.0, 1, 1, 50])
        prepared = octet.prepare_fx(model, octet.get_default_qconfig_mapping("qnnpack"), (x,))
        report = quantization.ModelReport(prepared, {
            quantization.PerChannelDetector(), quantization.DynamicStaticDetector(tolerance=0.5),
            quantization.InputWeightEqualizationDetector(), quantization.OutlierDetector()})
        return report, x

    def test_what_each_detector_says(self):
        report, x = self.report()
        self.assertEqual(report.get_desired_reports_names(), set(self.detectors))
        watched = report.prepare_detailed_calibration()
        self.assertTrue(report.get_observers_of_interest()["outlier_detector"])
        self.assertIsNone(report._repr_html_())
        watched(x)
        found = report.generate_model_report(remove_inserted_observers=True)
        self.assertEqual(tuple(sorted(found)), self.detectors)
        text, layers = found["per_channel_detector"]
        self.assertIn("per channel", text.lower().replace("_", " "))
        self.assertEqual(set(layers), {"0", "2"})
        self.assertFalse(layers["0"]["per_channel_quantization_used"])
        self.assertEqual(len(found["outlier_detector"][1]["0"]["outliers_detected"]), 4)
        self.assertIn("comp_stat", report.to_table("comp_stat"))
        mapping = report.generate_qconfig_mapping().to_json()
        self.assertIn("PerChannel", mapping)
        self.assertIsInstance(report.generate_equalization_mapping(), octet.QConfigMapping)

    def test_a_page(self):
        report, x = self.report()
        with self.assertRaisesRegex(octet.Error, "call generate_model_report first"):
            report.to_html()
        report.prepare_detailed_calibration()(x)
        report.generate_model_report(True)
        for detector in self.detectors:
            self.assertIn(detector, report._repr_html_())

    def test_it_takes_prepared_models_only(self):
        with self.assertRaises(octet.Error):
            quantization.ModelReport(nn.Linear(2, 2), {quantization.OutlierDetector()})


class Metrics(unittest.TestCase):
    def test_of_pairs(self):
        x = octet.tensor([1.0, 2, 3, 4])
        y = octet.tensor([1.0, 2, 3, 5])
        m = octet.metrics
        self.assertAlmostEqual(m.compute_sqnr(x, y), 10 * np.log10(30), places=5)
        self.assertAlmostEqual(m.compute_normalized_l2_error(x, y), np.sqrt(1 / 30), places=6)
        self.assertAlmostEqual(m.compute_cosine_similarity(x, y), 34 / np.sqrt(30 * 39), places=6)
        self.assertEqual(m.compute_max_abs_error(x, y), 1)
        self.assertGreater(m.compute_kl_divergence(octet.randn(1000), octet.randn(1000) * 3), 0.1)
        self.assertIs(octet.ao.ns.fx.utils.compute_sqnr, m.compute_sqnr)
        with self.assertRaises(octet.Error):
            m.compute_sqnr(x, octet.tensor([1.0]))

    def test_streams(self):
        error, x = octet.metrics.ErrorStatistics(), octet.randn(2, 100)
        y = x + 0.01
        for a, b in zip(x, y):
            error.add(a, b)
        self.assertEqual(error.count, 200)
        self.assertAlmostEqual(error.sqnr(), octet.metrics.compute_sqnr(x, y), places=6)

    def test_decisions(self):
        scores = octet.tensor([[1.0, 2], [3, 0]])
        self.assertEqual(float(octet.metrics.top_k(scores, octet.tensor([1, 1]))), 0.5)
        share = octet.metrics.argmax_agreement(scores, octet.tensor([[0.0, 1], [0, 1]]))
        self.assertEqual((share.hits, share.count), (1, 2))
        share += share
        self.assertEqual((share.hits, share.count, share.value()), (2, 4, 0.5))
        steps = octet.tensor([[[0.0, 1], [1, 0], [0, 1]]])
        self.assertEqual(octet.metrics.sequence_agreement(steps, steps).hits, 1)
        self.assertEqual(octet.metrics.character_agreement(steps, steps).count, 2)
        self.assertEqual(octet.metrics.mask_overlap(octet.tensor([1.0, 1]), octet.tensor([1.0, 0])).value(), 0.5)

    def test_detections(self):
        scores, corners = octet.tensor([[[0.9], [0.8], [0.1]]]), octet.tensor([[[0.0, 0, 2, 2], [0, 0, 2, 2], [5, 5, 6, 6]]])
        found = octet.metrics.detections(scores, corners)
        self.assertEqual([[(d.category, d.x1) for d in picture] for picture in found], [[(0, 2.0)]])
        self.assertEqual(octet.metrics.found_again(found, found).value(), 1)
        self.assertEqual(octet.metrics.mean_average_precision(found, [[]]), 0)


if __name__ == "__main__":
    unittest.main()
