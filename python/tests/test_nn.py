"""Modules: classes of one's own and octet's layers, their attributes, state, hooks, copies and pickles."""
import copy
import gc
import pickle
import threading
import unittest
import weakref

import numpy as np

import octet
import octet.nn.functional as F
from octet import nn


class Net(nn.Module):
    def __init__(self, classes=5):
        super().__init__()
        self.classes = classes
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(8, classes)

    def forward(self, x):
        x = self.relu(self.bn(self.conv(x)))
        return self.fc(x.mean((2, 3)))


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(octet.ones(3))
        self.register_buffer("offset", octet.zeros(3))
        self.notes = ["kept"]

    def forward(self, x, twice=False, *, plus=None):
        y = x * self.scale + self.offset
        y = y * 2 if twice else y
        return {"y": y if plus is None else y + plus, "both": (x, [y])}


class Modules(unittest.TestCase):
    def test_attributes_are_submodules_parameters_and_buffers(self):
        net = Net()
        self.assertEqual([name for name, _ in net.named_children()], ["conv", "bn", "relu", "fc"])
        self.assertEqual(net.conv.kernel_size, (3, 3))
        self.assertEqual(net.fc.in_features, 8)
        self.assertIs(net.conv, net.conv)
        self.assertEqual([n for n, _ in Scaled().named_parameters()], ["scale"])
        self.assertEqual([n for n, _ in Scaled().named_buffers()], ["offset"])
        self.assertIn("(conv): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))", repr(net))
        with self.assertRaisesRegex(AttributeError, "Net has no attribute 'nothing'"):
            net.nothing

    def test_a_place_takes_another_module(self):
        net = Net()
        net.fc = nn.Linear(8, 2)
        self.assertEqual(net(octet.randn(1, 3, 4, 4)).shape, (1, 2))
        net.set_submodule("relu", nn.Sigmoid())
        self.assertIsInstance(net.relu, nn.Sigmoid)

    def test_forward_takes_and_gives_what_it_likes(self):
        m, x = Scaled(), octet.tensor([1.0, 2.0, 3.0])
        result = m(x, True, plus=x)
        self.assertEqual(result["y"].tolist(), [3, 6, 9])
        self.assertEqual(result["both"][1][0].tolist(), [2, 4, 6])

    def test_a_module_is_no_part_of_itself(self):
        inner = nn.Sequential(nn.ReLU())
        outer = nn.Sequential(inner)
        with self.assertRaises(octet.Error):
            inner.back = outer
        with self.assertRaises(octet.Error):
            outer.me = outer
        with self.assertRaises(TypeError):
            nn.Sequential(3)

    def test_super_init_comes_first(self):
        class Forgetful(nn.Module):
            def __init__(self):
                self.fc = nn.Linear(1, 1)
        with self.assertRaisesRegex(AttributeError, "super"):
            Forgetful()

    def test_layers_are_not_derived_from(self):
        with self.assertRaisesRegex(TypeError, "octet.nn.Module"):
            class Mine(nn.Linear):
                pass

    def test_containers(self):
        s = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        self.assertEqual(len(s), 3)
        self.assertIsInstance(s[1], nn.ReLU)
        self.assertEqual(len(s[:2]), 2)
        self.assertEqual(s(octet.randn(4, 2)).shape, (4, 1))
        self.assertEqual(len(nn.ModuleList([nn.ReLU(), nn.ReLU()])), 2)
        d = nn.ModuleDict({"a": nn.ReLU()})
        self.assertIn("a", d)
        self.assertEqual(list(d), ["a"])

    def test_modes_reach_submodules(self):
        net = Net().eval()
        self.assertFalse(net.bn.training)
        self.assertTrue(net.train().bn.training)

        class Frozen(nn.Module):
            def __init__(self):
                super().__init__()
                self.bn = nn.BatchNorm2d(1)

            def train(self, mode=True):
                super().train(mode)
                self.bn.eval()
                return self
        outer = nn.Sequential(Frozen()).train()
        self.assertTrue(outer[0].training)
        self.assertFalse(outer[0].bn.training)

    def test_state_dicts(self):
        a, b = Net(), Net()
        b.load_state_dict(a.state_dict())
        x = octet.randn(2, 3, 5, 5)
        self.assertTrue(a.eval()(x).equal(b.eval()(x)))
        with self.assertRaises(octet.Error) as caught:
            b.load_state_dict({"conv.weight": octet.zeros(1)})
        self.assertEqual(caught.exception.code, "invalid_argument")
        self.assertIn("fc.bias", str(caught.exception))

    def test_hooks_see_and_change(self):
        net, seen = Net().eval(), []
        x = octet.randn(2, 3, 5, 5)
        y = net(x)
        handle = net.conv.register_forward_hook(lambda m, i, o: seen.append((type(m), i[0].shape, o.shape)))
        net.register_forward_hook(lambda m, i, o: o * 2)
        net.register_forward_pre_hook(lambda m, i: (i[0] + 0,))
        self.assertTrue(net(x).allclose(y * 2))
        handle.remove()
        net(x)
        self.assertEqual(seen, [(nn.Conv2d, (2, 3, 5, 5), (2, 8, 5, 5))])

    def test_copies_share_nothing(self):
        m = Scaled()
        c = copy.deepcopy(m)
        c.notes.append("more")
        with octet.no_grad():
            c.scale.copy_(octet.zeros(3))
        self.assertEqual(m.notes, ["kept"])
        self.assertEqual(m.scale.tolist(), [1, 1, 1])
        self.assertIsInstance(c, Scaled)
        net = Net()
        net.again = net.conv  # shared stays shared
        twin = copy.deepcopy(net)
        self.assertIs(twin.again, twin.conv)

    def test_pickles(self):
        for model in (Net().eval(), Scaled(), nn.Sequential(nn.LSTM(3, 4), )):
            again = pickle.loads(pickle.dumps(model))
            self.assertEqual(repr(again), repr(model))
            self.assertEqual(again.training, model.training)
            for name, tensor in model.state_dict().items():
                self.assertTrue(tensor.equal(again.state_dict()[name]), name)
        self.assertTrue(all(p.requires_grad for p in pickle.loads(pickle.dumps(Net())).parameters()))

    def test_nothing_keeps_a_model_alive(self):
        net = Net()
        net(octet.randn(1, 3, 4, 4))
        net.register_forward_hook(lambda m, i, o: None)
        array = np.ones(3)
        net.marker = array
        gone = weakref.ref(net)
        del net
        self.assertIsNone(gone())
        import sys
        self.assertEqual(sys.getrefcount(array), 2)  # its attributes are gone with it
        gc.collect()

    def test_attributes_outlive_the_python_object(self):
        outer = nn.Sequential(Scaled())
        outer[0].notes.append("later")
        gc.collect()
        self.assertEqual(outer[0].notes, ["kept", "later"])
        self.assertIsInstance(outer[0], Scaled)

    def test_exceptions_come_through(self):
        class Bad(nn.Module):
            def forward(self, x):
                raise KeyError("mine")
        with self.assertRaises(KeyError):
            nn.Sequential(nn.ReLU(), Bad())(octet.zeros(1))
        class None_(nn.Module):
            def forward(self, x):
                return None
        self.assertIsNone(None_()(octet.zeros(1)))

    def test_a_program_ends_while_models_and_threads_live(self):
        import subprocess
        import sys
        program = """
import atexit, threading, octet
from octet import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.notes = [object()]
    def forward(self, x):
        return self.fc(x)
net, x = Net(), octet.randn(2, 4)
net.register_forward_hook(lambda m, i, o: o * 2)
kept = [net(x), net.state_dict(), octet.trace(net.eval(), (x,)), octet.quantization.HistogramObserver.with_args()]
def work():
    while True:
        net(x)
threading.Thread(target=work, daemon=True).start()
atexit.register(lambda: net(x))
raise SystemExit(3)
"""
        for _ in range(8):
            ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
            self.assertEqual((ran.returncode, ran.stderr), (3, ""))

    def test_a_model_in_a_loop_of_references_ends(self):
        with self.assertRaises(octet.Error):
            a = nn.ModuleList()
            a.append(nn.ModuleList([a]))

    def test_threads(self):
        net, x = Net().eval(), octet.randn(4, 3, 8, 8)
        expected, found = net(x), []
        threads = [threading.Thread(target=lambda: found.append(net(x).equal(expected))) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(found, [True] * 8)

    def test_recurrent_networks(self):
        y, (h, c) = nn.LSTM(4, 6, 2)(octet.randn(5, 3, 4))
        self.assertEqual((y.shape, h.shape, c.shape), ((5, 3, 6), (2, 3, 6), (2, 3, 6)))
        y, h = nn.GRU(4, 6)(octet.randn(5, 3, 4), octet.zeros(1, 3, 6))
        self.assertEqual(h.shape, (1, 3, 6))
        y, w = nn.MultiheadAttention(8, 2)(*[octet.randn(5, 3, 8)] * 3)
        self.assertEqual((y.shape, w.shape), ((5, 3, 8), (3, 5, 5)))

    def test_every_layer_is_made_with_its_defaults(self):
        arguments = {"Linear": (3, 4), "Bilinear": (2, 3, 4), "Embedding": (5, 3), "EmbeddingBag": (5, 3),
                     "LSTM": (3, 4), "GRU": (3, 4), "RNN": (3, 4), "LSTMCell": (3, 4), "GRUCell": (3, 4),
                     "RNNCell": (3, 4), "MultiheadAttention": (8, 2), "LayerNorm": (3,), "GroupNorm": (2, 4),
                     "Unflatten": (1, (2, 2)), "PixelShuffle": (2,), "PixelUnshuffle": (2,), "ChannelShuffle": (2,)}
        for name in nn.__all__:
            cls = getattr(nn, name)
            if not isinstance(cls, type) or not cls.__module__.endswith("layers"):
                continue
            args = arguments.get(name)
            if args is None:
                args = (3, 4, 2) if "Conv" in name else (2,) if "Pool" in name or "Norm" in name else ()
                args = ({"size": 4},) if name == "Upsample" else args
            made = cls(**args[0]) if args and isinstance(args[0], dict) else cls(*args)
            self.assertEqual(type(made), cls)
            self.assertTrue(repr(made).startswith(name + "("), repr(made))


class Tensors(unittest.TestCase):
    def test_arithmetic_is_numpys(self):
        rng = np.random.default_rng(0)
        a, b = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=4).astype(np.float32)
        x, y = octet.tensor(a), octet.tensor(b)
        for ours, theirs in ((x + y, a + b), (x - 2, a - 2), (2 - x, 2 - a), (x * y, a * b), (x / y, a / b),
                             (-x, -a), (abs(x), abs(a)), (a * y, a * b), (x.sum(), a.sum()),
                             (x.mean(1, keepdim=True), a.mean(1, keepdims=True)), (x.max(), a.max()),
                             (x.t(), a.T), (x @ x.t(), a @ a.T), (x ** 2, a ** 2), (x.clamp(min=0), a.clip(0))):
            np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5, atol=1e-6)

    def test_integers_stay_integers(self):
        i = octet.arange(5)
        self.assertEqual((i.dtype, (i + 1).dtype, (i / 2).dtype, (i * 0.5).dtype),
                         (octet.int64, octet.int64, octet.float32, octet.float32))
        u = octet.tensor(np.array([250, 255], np.uint8))
        self.assertEqual((u + 10).tolist(), [260, 265])  # int32, in which octet computes
        self.assertEqual((u > 251).tolist(), [False, True])

    def test_indexing_is_numpys(self):
        a = np.arange(24).reshape(2, 3, 4)
        x = octet.tensor(a)
        for i in (0, -1, slice(1, None), (0, 2), (slice(None), 1, slice(0, 4, 2)), (Ellipsis, 3), (0, Ellipsis, None),
                  (slice(None), np.array([2, 0])), (np.array([True, False]))):
            np.testing.assert_array_equal(x[i].numpy(), a[i], str(i))
        with self.assertRaises(IndexError):
            x[2]
        self.assertEqual([row.shape for row in x], [(3, 4), (3, 4)])
        x[0, 1] = 7
        self.assertEqual(x[0, 1].tolist(), [7] * 4)

    def test_shapes(self):
        x = octet.zeros(2, 3, 4)
        self.assertEqual(x.reshape(6, -1).shape, (6, 4))
        self.assertEqual(x.view([24]).shape, (24,))
        self.assertEqual(x.permute(2, 0, 1).shape, (4, 2, 3))
        self.assertEqual(x.unsqueeze(0).squeeze().shape, (2, 3, 4))
        self.assertEqual([c.shape[1] for c in x.split(2, 1)], [2, 1])
        self.assertEqual(x.size(), (2, 3, 4))
        self.assertEqual(x.expand(2, 3, 4).repeat(2, 1, 1).shape, (4, 3, 4))

    def test_functions(self):
        x = octet.randn(2, 3, 8, 8)
        w = octet.randn(4, 3, 3, 3)
        self.assertEqual(F.conv2d(x, w, padding="same").shape, (2, 4, 8, 8))
        self.assertEqual(F.max_pool2d(x, 2).shape, (2, 3, 4, 4))
        self.assertEqual(F.adaptive_avg_pool2d(x, (None, 1)).shape, (2, 3, 8, 1))
        self.assertEqual(octet.cat([x, x], 1).shape, (2, 6, 8, 8))
        self.assertEqual(F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False).shape, (2, 3, 16, 16))
        self.assertEqual(octet.ops("relu", x).shape, x.shape)
        self.assertIn("conv2d", octet.operators())
        with self.assertRaises(octet.Error) as caught:
            octet.ops("rellu", x)
        self.assertIn("relu", str(caught.exception))

    def test_random_numbers_follow_the_seed(self):
        octet.manual_seed(1)
        a = octet.randn(4)
        octet.manual_seed(1)
        self.assertTrue(a.equal(octet.randn(4)))
        self.assertTrue(0 <= octet.randint(0, 3, (100,)).min() and octet.randint(3, (100,)).max() < 3)


if __name__ == "__main__":
    unittest.main()
