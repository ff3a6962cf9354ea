"""The Python face: arrays without copies, networks quantized and run, errors with codes, nothing leaked."""
import gc
import json
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import threading
import unittest

import numpy as np

import octet

NET = "examples/glyphs/glyphs.onnx"


def glyphs(count):
    images = np.load("examples/glyphs/calibrate.npz")["images"][:count].astype(np.float32)
    return [images[i:i + 1] for i in range(len(images))]


class Arrays(unittest.TestCase):
    def test_a_tensor_and_its_array_share_memory(self):
        t = octet.empty([3, 5])
        a = np.asarray(t)
        self.assertEqual(a.ctypes.data, t.data_ptr())
        a[1, 2] = 7
        self.assertEqual(t.numpy()[1, 2], 7)

    def test_an_arrays_tensor_shares_memory(self):
        a = np.arange(4096, dtype=np.float32)[:100].reshape(4, 25)  # a page's end is far
        t = octet.from_numpy(a)
        self.assertEqual(t.data_ptr(), a.ctypes.data)
        del a
        gc.collect()
        self.assertEqual(t.numpy()[3, 24], 99)

    def test_an_array_that_ends_with_its_page_is_copied(self):
        import mmap
        a = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), dtype=np.float32)
        t = octet.from_numpy(a)
        self.assertNotEqual(t.data_ptr(), a.ctypes.data)
        self.assertEqual(t.shape, (mmap.PAGESIZE // 4,))

    def test_an_array_outlives_its_tensor(self):
        a = octet.Tensor(np.ones((2, 2), np.float32)).numpy()
        gc.collect()
        self.assertEqual(a.sum(), 4)

    def test_strided_views_and_dtypes(self):
        for d in (np.float32, np.float64, np.int64, np.int32, np.int8, np.uint8, np.bool_):
            a = np.ones((2, 3, 4), d)
            t = octet.Tensor(a).permute([2, 0, 1])
            self.assertEqual(t.numpy().shape, (4, 2, 3))
            self.assertEqual(t.numpy().dtype, d)
        np.testing.assert_array_equal(octet.Tensor(np.arange(6).reshape(2, 3).T).numpy(), [[0, 3], [1, 4], [2, 5]])

    def test_dlpack(self):
        t = octet.Tensor(np.arange(3, dtype=np.float32))
        self.assertEqual(np.from_dlpack(t).tolist(), [0, 1, 2])
        self.assertEqual(octet.from_dlpack(np.arange(3.0)).tolist(), [0, 1, 2])

    def test_quantized_tensors(self):
        x = np.array([-1.0, 0, 0.26, 100], np.float32)
        q = octet.quantize_per_tensor(x, 0.5, 10, octet.quint8)
        self.assertEqual((q.q_scale(), q.q_zero_point(), q.is_quantized), (0.5, 10, True))
        self.assertEqual(q.int_repr().tolist(), [8, 10, 11, 210])
        self.assertEqual(q.dequantize().tolist(), [-1, 0, 0.5, 100])
        with self.assertRaises(octet.Error) as caught:
            np.asarray(q)
        self.assertEqual(caught.exception.code, "invalid_argument")

    def test_quantized_per_channel_is_the_formula(self):
        x = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
        scales = [0.01, 0.02, 0.03]
        q = octet.quantize_per_channel(x, scales, [0, 1, 2], 0, octet.qint8)
        inverse = (1 / np.array(scales, np.float32)).astype(np.float32)[:, None]
        expected = np.clip(np.rint(x * inverse) + np.array([[0], [1], [2]]), -128, 127)
        np.testing.assert_array_equal(q.int_repr().numpy(), expected)
        self.assertEqual(q.q_per_channel_axis(), 0)

    def test_pickle(self):
        for t in (octet.Tensor(np.arange(5)), octet.quantize_per_tensor(np.ones(3, np.float32), 0.1, 3, octet.qint8),
                  octet.quantize_per_channel(np.ones((2, 2), np.float32), [0.1, 0.2], [0, 1], 1, octet.quint8)):
            u = pickle.loads(pickle.dumps(t))
            self.assertEqual(repr(u), repr(t))
            np.testing.assert_array_equal((u.int_repr() if u.is_quantized else u).numpy(), (t.int_repr() if t.is_quantized else t).numpy())


class Networks(unittest.TestCase):
    def test_static_quantization_end_to_end(self):
        samples = glyphs(64)
        int8 = octet.quantize(NET, samples)
        self.assertIn("quantize", int8.operators)
        a, b = octet.compile(octet.load(NET)), octet.compile(int8)
        agree = [int(a(x).numpy().argmax() == b(x).numpy().argmax()) for x in samples]
        self.assertGreater(np.mean(agree), 0.9)
        with tempfile.TemporaryDirectory() as d:
            for name in ("q.octet", "q.onnx"):
                int8.save(os.path.join(d, name))
                again = octet.compile(octet.load(os.path.join(d, name)))
                np.testing.assert_array_equal(again(samples[0]).numpy(), b(samples[0]).numpy())

    def test_the_steps_of_graph_mode_give_the_same(self):
        samples = glyphs(8)
        prepared = octet.prepare_fx(octet.load(NET), octet.get_default_qconfig_mapping())
        for x in samples:
            prepared(x)
        self.assertEqual(str(octet.convert_fx(prepared)), str(octet.quantize(NET, samples)))

    def test_a_mapping_leaves_layers_float(self):
        mapping = octet.get_default_qconfig_mapping().set_object_type("linear", None)
        text = str(octet.quantize(NET, glyphs(4), qconfig_mapping=mapping))
        self.assertRegex(text, r"Float\(N, \d+\) = linear")
        again = octet.QConfigMapping.from_json(mapping.to_json())
        self.assertEqual(json.loads(again.to_json()), json.loads(mapping.to_json()))

    def test_other_modes(self):
        self.assertIn("linear_dynamic", octet.quantize(NET, mode="dynamic").operators)
        self.assertIn("linear_weight_only", octet.quantize(NET, mode="weight-only").operators)
        self.assertRaises(ValueError, octet.quantize, NET, mode="fast")
        self.assertRaises(ValueError, octet.quantize, NET)

    def test_inputs_by_name_and_engines(self):
        net = octet.load(NET)
        name, x = net.inputs[0][0], glyphs(1)[0]
        by_name = octet.compile(net).run({name: x})[net.outputs[0][0]]
        reference = octet.compile(net, engine="reference")(x)
        np.testing.assert_allclose(by_name.numpy(), reference.numpy(), rtol=1e-5, atol=1e-5)

    def test_a_comparison_is_a_page(self):
        samples = glyphs(16)
        report = octet.compare(octet.load(NET), octet.quantize(NET, samples), samples)
        self.assertIn("<html", report._repr_html_())
        self.assertIn("layers", json.loads(report.to_json()))
        self.assertIn("<html", octet.load(NET)._repr_html_())

    def test_errors_have_codes(self):
        for code, wrong in (("not_found", lambda: octet.load("/nowhere.onnx")), ("invalid_argument", lambda: octet.load("x.txt")),
                            ("invalid_argument", lambda: octet.compile(octet.load(NET))(np.ones((1, 2), np.float32)))):
            with self.assertRaises(octet.Error) as caught:
                wrong()
            self.assertEqual(caught.exception.code, code)
            self.assertNotIn("\n", str(caught.exception))

    def test_threads_run_at_once_and_agree(self):
        program, x = octet.compile(octet.load(NET)), glyphs(1)[0]
        expected, found = program(x).numpy(), []
        threads = [threading.Thread(target=lambda: found.append(program(x).numpy())) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(len(found), 8)
        for y in found:
            np.testing.assert_array_equal(y, expected)

    def test_ten_thousand_loads_leak_nothing(self):
        with tempfile.TemporaryDirectory() as d:
            path = os.path.join(d, "q.octet")
            octet.quantize(NET, mode="dynamic").save(path)
            for i in range(10000):
                graph = octet.load(path)
                octet.from_numpy(np.ones(64, np.float32)).numpy()
                if i == 2000:
                    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            del graph
            self.assertLess(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, 4096)  # KB


USER = '''
import numpy as np
import octet
from octet import nn, quantization
import octet.nn.functional as F


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant = quantization.QuantStub()
        self.conv = nn.Conv2d(1, 4, 3, padding="same")
        self.dequant = quantization.DeQuantStub()

    def forward(self, x: octet.Tensor) -> octet.Tensor:
        y: octet.Tensor = self.dequant(F.relu(self.conv(self.quant(x))))
        return y


model = Net().eval()
model.qconfig = quantization.get_default_qconfig("fbgemm")
prepared = quantization.prepare(model)
prepared(octet.randn(1, 1, 4, 4))
int8 = quantization.convert(prepared)
opt = octet.optim.SGD(model.parameters(), lr=0.1)
loss = F.cross_entropy(model(octet.zeros(1, 1, 4, 4)), octet.tensor([1]))
loss.backward()
opt.step()
q: octet.Tensor = octet.quantize_per_tensor(np.ones(3, np.float32), 0.1, 0, octet.quint8)
g: octet.Graph = octet.quantize('net.onnx', [np.ones((1, 3), np.float32)])
s: float = q.q_scale()
x: octet.Tensor = q.dequantize() * 2 + 1
m = octet.QConfigMapping().set_object_type(nn.Linear, None)
with octet.no_grad():
    v, i = x.max(0)
found = quantization.gptq(octet.prepare_fx(g), [x], sweeps=3)
smooth: octet.Graph = quantization.smooth_quant(g, [x], alpha=0.5)
report = quantization.ModelReport(octet.prepare_fx(model, None, (x,)), {quantization.OutlierDetector()})
page: str = octet.doctor(g, g, [x]).to_html()
decibels: float = octet.metrics.compute_sqnr(x, x)
weights = octet.ao.ns._numeric_suite_fx.extract_weights("a", g, "b", g)
'''


class Stubs(unittest.TestCase):
    def test_the_compiled_modules_names_are_the_stubs(self):
        import ast
        with open(os.path.join(os.path.dirname(octet.__file__), "_octet.pyi")) as file:
            tree = ast.parse(file.read())

        def names(body):
            found = set()
            for node in body:
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                    found.add(node.name)
                elif isinstance(node, ast.AnnAssign):
                    found.add(node.target.id)
            return found
        here = {name for name in dir(octet._octet) if not name.startswith("__")}
        said = names(tree.body)
        self.assertEqual(here - said, set())
        self.assertEqual(said - here - {"Error"}, set())
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and isinstance(getattr(octet._octet, node.name), type):
                cls = getattr(octet._octet, node.name)
                own = {name for name in vars(cls) if not name.startswith("__")}
                self.assertEqual(own - names(node.body), set(), node.name)
        with open(os.path.join(os.path.dirname(octet.__file__), "nn", "functional.pyi")) as file:
            said = names(ast.parse(file.read()).body)
        self.assertEqual({n for n in vars(octet._octet._functional) if not n.startswith("__")}, said)

    def test_mypy_strict(self):
        code = USER
        wrong = code + "t: int = q.q_scale()\n"
        try:
            import mypy  # noqa: F401
        except ImportError:
            self.skipTest("no mypy here")
        with tempfile.TemporaryDirectory() as d:
            for text, status in ((code, 0), (wrong, 1), (code + "nn.Conv2d(1, 2)\n", 1), (code + "octet.flaten(x)\n", 1)):
                path = os.path.join(d, "user.py")
                with open(path, "w") as file:
                    file.write(text)
                ran = subprocess.run([sys.executable, "-m", "mypy", "--strict", "--cache-dir", d, path], capture_output=True, text=True,
                                     env={**os.environ, "MYPYPATH": os.path.dirname(os.path.dirname(octet.__file__))})
                self.assertEqual(ran.returncode, status, ran.stdout + ran.stderr)


if __name__ == "__main__":
    unittest.main()
