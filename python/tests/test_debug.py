"""What quantizing did, what it costs, and the best way to do it; progress callbacks; pickles of graphs."""
import copy
import json
import pickle
import unittest
import warnings

import numpy as np

import octet
from octet import nn, quantization

NET = "examples/glyphs/glyphs.onnx"


def glyphs(count):
    images = np.load("examples/glyphs/calibrate.npz")["images"][:count].astype(np.float32)
    return [images[i:i + 1] for i in range(len(images))]


class Debugging(unittest.TestCase):
    def test_explain_names_the_kernels(self):
        samples = glyphs(8)
        program = octet.compile(octet.quantize(NET, samples))
        e = octet.explain(program, samples[:1], seconds=0, verify=True)
        layers = [s for s in e.steps if s["multiply_adds"] > 0]
        self.assertTrue(layers)
        for step in layers:
            self.assertEqual((step["numbers"], step["verified"], step["on_codes"]), ("integers", "identical", True))
        self.assertEqual(e.not_on_codes(), [])
        self.assertIn("steps", str(e) + " ".join(e.summary()))
        with self.assertRaises(octet.Error):
            octet.explain(program, [])

    def test_explain_takes_modules(self):
        model = quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear})
        steps = octet.explain(model, [octet.randn(2, 4)], seconds=0).steps
        self.assertEqual([s["op"] for s in steps], ["linear_dynamic"])

    def test_sensitivity_ranks_layers(self):
        samples, progress = glyphs(8), []
        prepared = octet.prepare_fx(octet.load(NET), octet.get_default_qconfig_mapping())
        for x in samples:
            prepared(x)
        found = octet.sensitivity(prepared, samples, progress=lambda done, all: progress.append((done, all)))
        self.assertEqual(found.method, "alone")
        self.assertEqual(progress[-1][0], progress[-1][1])
        worst = [l["name"] for l in found.layers if not l["left_float"] and l["op"] != "input"]
        graph = octet.leaving_float(prepared, worst[:1])
        self.assertIn(worst[0], [l["name"] for l in found.layers])
        self.assertNotEqual(str(graph), str(octet.convert_fx(prepared)))
        with self.assertRaises(octet.Error):
            octet.sensitivity(prepared, samples, method="together")

    def test_tune_finds_a_recipe_that_replays(self):
        samples, trials = glyphs(24), []
        graph = octet.load(NET)
        batches = [np.concatenate(samples[i:i + 8]) for i in range(0, 24, 8)]
        best = octet.tune(graph, batches[:2], batches[2:], metric="cosine", minutes=0.2, on_trial=trials.append)
        self.assertEqual([t["name"] for t in trials], [t["name"] for t in best.trials])
        self.assertIn(best.best["name"], [t["name"] for t in trials])
        self.assertEqual(str(octet.apply_recipe(graph, best.recipe, batches[:2])), str(best.graph))

    def test_tune_asks_a_function_of_ones_own(self):
        def agreement(expected, got):
            return float(np.mean([np.mean(a[0].numpy().argmax(-1) == b[0].numpy().argmax(-1))
                                  for a, b in zip(expected, got)]))
        batch = np.concatenate(glyphs(8))
        best = octet.tune(octet.load(NET), [batch], [batch], metric=agreement, minutes=0.05)
        self.assertEqual(best.float_score, 1)
        def failing(expected, got):
            raise ZeroDivisionError("in the metric")
        with self.assertRaises(ZeroDivisionError):
            octet.tune(octet.load(NET), [batch], [batch], metric=failing, minutes=0.05)

    def test_progress(self):
        samples, seen = glyphs(4), []
        int8 = octet.quantize(NET, samples, progress=seen.append)
        self.assertEqual(seen, [1, 2, 3, 4])
        seen.clear()
        octet.compare(octet.load(NET), int8, samples, progress=seen.append)
        self.assertEqual(sum(seen), 4)
        class Stop(Exception):
            pass
        def stop(n):
            raise Stop
        with self.assertRaises(Stop):
            octet.compare(octet.load(NET), int8, samples, progress=stop)

    def test_too_few_samples_are_a_warning(self):
        with self.assertWarnsRegex(UserWarning, "calibration: 4 samples are few"):
            octet.quantize(NET, glyphs(4))
        samples = glyphs(256)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            octet.quantize(NET, samples)
            octet.quantize(NET, glyphs(2), qconfig_mapping=octet.QConfigMapping().set_global(
                octet.quantization.default_dynamic_qconfig))  # nothing depends on them

    def test_the_watch_says_what_samples_did(self):
        samples = glyphs(32)
        samples[20] = samples[20] * 50
        prepared = octet.prepare_fx(octet.load(NET), octet.get_default_qconfig_mapping("qnnpack"))
        watch = octet.CalibrationWatch(prepared)
        for i, x in enumerate(samples):
            if i == 16:
                watch.half_way(16)
            prepared(x)
        quality = watch.finish(32)
        self.assertEqual((quality["samples"], quality["half"], quality["influences"][0]["sample"]), (32, 16, 20))
        self.assertTrue(quality["warnings"])

    def test_graphs_are_pickled(self):
        graph = octet.quantize(NET, glyphs(4))
        for again in (pickle.loads(pickle.dumps(graph)), copy.deepcopy(graph)):
            self.assertEqual(str(again), str(graph))
        x = glyphs(1)[0]
        self.assertTrue(octet.compile(pickle.loads(pickle.dumps(graph)))(x).equal(octet.compile(graph)(x)))

    def test_engines(self):
        self.assertEqual(octet.get_engine(), "native")
        self.assertIn("reference", octet.engines())
        octet.backends.quantized.engine = "fbgemm"
        self.assertEqual(octet.backends.quantized.engine, "native")
        with self.assertRaises(octet.Error):
            octet.backends.quantized.engine = "cuda"


if __name__ == "__main__":
    unittest.main()
