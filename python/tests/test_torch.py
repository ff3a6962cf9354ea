"""Codes and numbers are PyTorch's (Debian's python3-torch; skipped without it)."""
import unittest

import numpy as np

import octet

try:
    import torch
    import torch.fx
except ImportError:
    torch = None


@unittest.skipIf(torch is None, "no torch here")
class Quantized(unittest.TestCase):
    def test_per_tensor(self):
        rng = np.random.default_rng(0)
        for case in range(200):
            scale, signed = float(rng.uniform(1e-4, 2)), bool(case % 2)
            zero_point = int(rng.integers(-128, 128) if signed else rng.integers(0, 256))
            x = (rng.normal(size=(3, 17)) * scale * rng.uniform(1, 200)).astype(np.float32)
            ours = octet.quantize_per_tensor(x, scale, zero_point, octet.qint8 if signed else octet.quint8)
            theirs = torch.quantize_per_tensor(torch.from_numpy(x), scale, zero_point, torch.qint8 if signed else torch.quint8)
            np.testing.assert_array_equal(ours.int_repr().numpy(), theirs.int_repr().numpy(), f"case {case}")
            np.testing.assert_array_equal(ours.dequantize().numpy(), theirs.dequantize().numpy(), f"case {case}")
            self.assertEqual((ours.q_scale(), ours.q_zero_point()), (theirs.q_scale(), theirs.q_zero_point()))

    def test_per_channel(self):
        rng = np.random.default_rng(1)
        for case in range(120):
            axis = case % 3
            x = (rng.normal(size=(4, 5, 6)) * rng.uniform(0.1, 20)).astype(np.float32)
            scales = rng.uniform(1e-3, 1, x.shape[axis])
            zeros = rng.integers(-20, 20, x.shape[axis])
            ours = octet.quantize_per_channel(x, scales.tolist(), zeros.tolist(), axis, octet.qint8)
            theirs = torch.quantize_per_channel(torch.from_numpy(x), torch.from_numpy(scales), torch.from_numpy(zeros), axis, torch.qint8)
            np.testing.assert_array_equal(ours.int_repr().numpy(), theirs.int_repr().numpy(), f"case {case}")
            np.testing.assert_array_equal(ours.dequantize().numpy(), theirs.dequantize().numpy(), f"case {case}")

    def test_arrays_go_both_ways_without_copies(self):
        t = octet.empty([2, 3])
        shared = torch.utils.dlpack.from_dlpack(t)
        self.assertEqual(shared.data_ptr(), t.data_ptr())
        shared.fill_(3)
        self.assertEqual(t.tolist(), [[3, 3, 3], [3, 3, 3]])


def both(name, *args, **kwargs):
    """A layer of PyTorch, and octet's with the same arguments and weights; in eval mode."""
    theirs = getattr(torch.nn, name)(*args, **kwargs).eval()
    ours = getattr(octet.nn, name)(*args, **kwargs).eval()
    if theirs.state_dict():
        with torch.no_grad():
            for p in theirs.buffers():  # statistics that are not the first ones
                if p.dtype == torch.float32:
                    p.copy_(torch.rand(p.shape) + 0.5)
        ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def arrays(value):
    if isinstance(value, (tuple, list)):
        return [a for each in value for a in arrays(each)]
    return [value.detach().numpy() if isinstance(value, torch.Tensor) else value.numpy()]


@unittest.skipIf(torch is None, "no torch here")
class Layers(unittest.TestCase):
    def check(self, name, args, kwargs, *inputs, tolerance=1e-5):
        ours, theirs = both(name, *args, **kwargs)
        with torch.no_grad():
            expected = arrays(theirs(*inputs))
        found = arrays(ours(*[octet.tensor(x.numpy()) if isinstance(x, torch.Tensor) else
                              tuple(octet.tensor(y.numpy()) for y in x) for x in inputs]))
        self.assertEqual(len(found), len(expected), name)
        for a, b in zip(found, expected):
            self.assertEqual(a.shape, b.shape, name)
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=f"{name}{args}{kwargs}")
        self.assertEqual([n for n, _ in ours.named_parameters()], [n for n, _ in theirs.named_parameters()], name)

    def test_layers_give_what_pytorchs_give(self):
        torch.manual_seed(0)
        image, line, volume = torch.randn(2, 4, 9, 8), torch.randn(2, 4, 9), torch.randn(2, 4, 5, 6, 7)
        for args, kwargs in (((4, 6, 3), {}), ((4, 6, (3, 2)), {"stride": 2, "padding": (1, 0), "groups": 2}),
                             ((4, 4, 3), {"padding": "same", "dilation": 2, "bias": False}),
                             ((4, 6, 3), {"padding": 1, "padding_mode": "reflect"})):
            self.check("Conv2d", args, kwargs, image)
        self.check("Conv1d", (4, 6, 3), {"padding": 1}, line)
        self.check("Conv3d", (4, 6, 3), {}, volume)
        self.check("ConvTranspose2d", (4, 6, 3), {"stride": 2, "output_padding": 1}, image)
        self.check("ConvTranspose1d", (4, 6, 3), {}, line)
        self.check("Linear", (8, 5), {}, image)
        for name in ("ReLU", "ReLU6", "Sigmoid", "Tanh", "Hardsigmoid", "Hardswish", "LeakyReLU", "ELU", "CELU", "SELU",
                     "GELU", "Hardtanh", "Softplus", "Softsign", "Mish", "SiLU", "PReLU", "Flatten", "Identity"):
            self.check(name, (), {}, image)
        self.check("Softmax", (1,), {}, image)
        self.check("LogSoftmax", (-1,), {}, image)
        for args, kwargs in (((2,), {}), ((3,), {"stride": 2, "padding": 1}), ((2,), {"ceil_mode": True})):
            self.check("MaxPool2d", args, kwargs, image)
            self.check("AvgPool2d", args, kwargs, image)
        self.check("MaxPool1d", (2,), {}, line)
        self.check("AvgPool3d", (2,), {}, volume)
        self.check("AvgPool2d", (2,), {"divisor_override": 3}, image)
        self.check("AdaptiveAvgPool2d", ((3, None),), {}, image)
        self.check("AdaptiveMaxPool1d", (4,), {}, line)
        self.check("BatchNorm2d", (4,), {}, image)
        self.check("BatchNorm1d", (4,), {"affine": False}, line)
        self.check("InstanceNorm2d", (4,), {"affine": True}, image)
        self.check("LayerNorm", ((9, 8),), {}, image)
        self.check("GroupNorm", (2, 4), {}, image)
        self.check("Upsample", (), {"scale_factor": 2, "mode": "bilinear", "align_corners": True}, image)
        self.check("PixelShuffle", (2,), {}, image)
        self.check("Embedding", (10, 3), {"padding_idx": -1}, torch.randint(10, (2, 5)))
        self.check("Bilinear", (8, 8, 3), {}, image, image)

    def test_recurrent_networks_and_attention(self):
        torch.manual_seed(1)
        x = torch.randn(5, 3, 4)
        for name, kwargs in (("LSTM", {}), ("LSTM", {"num_layers": 2, "bidirectional": True}), ("GRU", {}),
                             ("LSTM", {"proj_size": 2}), ("RNN", {"nonlinearity": "relu"}), ("GRU", {"batch_first": True})):
            self.check(name, (4, 6), kwargs, x)
        self.check("LSTM", (4, 6), {}, x, (torch.randn(1, 3, 6), torch.randn(1, 3, 6)))
        self.check("LSTMCell", (4, 6), {}, x[0], (torch.randn(3, 6), torch.randn(3, 6)))
        self.check("GRUCell", (4, 6), {}, x[0])
        y = torch.randn(5, 3, 8)
        self.check("MultiheadAttention", (8, 2), {}, y, y, y)

    def test_losses_and_gradients(self):
        torch.manual_seed(2)
        scores, labels, other = torch.randn(6, 4), torch.randint(4, (6,)), torch.randn(6, 4)
        weight = torch.rand(4)
        for name, kwargs, target in (("CrossEntropyLoss", {}, labels), ("CrossEntropyLoss", {"label_smoothing": 0.1}, labels),
                                     ("CrossEntropyLoss", {"weight": weight, "reduction": "sum"}, labels), ("MSELoss", {}, other),
                                     ("L1Loss", {}, other), ("SmoothL1Loss", {"beta": 0.5}, other), ("HuberLoss", {}, other),
                                     ("BCEWithLogitsLoss", {"pos_weight": weight}, (other > 0).float())):
            theirs = scores.clone().requires_grad_()
            ours = octet.tensor(scores.numpy(), requires_grad=True)
            a = getattr(torch.nn, name)(**kwargs)(theirs, target)
            b = getattr(octet.nn, name)(**{k: octet.tensor(v.numpy()) if isinstance(v, torch.Tensor) else v
                                           for k, v in kwargs.items()})(ours, octet.tensor(target.numpy()))
            a.backward()
            b.backward()
            np.testing.assert_allclose(b.item(), a.item(), rtol=1e-5, err_msg=name)
            np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-4, atol=1e-6, err_msg=name)

    def test_optimizers_take_the_same_steps(self):
        torch.manual_seed(3)
        x, y = torch.randn(16, 4), torch.randn(16, 2)
        for name, kwargs in (("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}), ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
                             ("Adam", {"lr": 0.01, "betas": (0.8, 0.9)}), ("Adam", {"amsgrad": True}), ("AdamW", {"lr": 0.01})):
            theirs = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
            ours = octet.nn.Sequential(octet.nn.Linear(4, 8), octet.nn.Tanh(), octet.nn.Linear(8, 2))
            ours.load_state_dict(theirs.state_dict())
            a = getattr(torch.optim, name)(theirs.parameters(), **kwargs)
            b = getattr(octet.optim, name)(ours.parameters(), **kwargs)
            for _ in range(10):
                for model, opt, mse, inputs, target in ((theirs, a, torch.nn.functional.mse_loss, x, y),
                                                        (ours, b, octet.nn.functional.mse_loss, octet.tensor(x.numpy()), octet.tensor(y.numpy()))):
                    opt.zero_grad()
                    mse(model(inputs), target).backward()
                    opt.step()
            for p, q in zip(ours.parameters(), theirs.parameters()):
                np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-4, atol=1e-5, err_msg=f"{name} {kwargs}")


@unittest.skipIf(torch is None, "no torch here")
class Observers(unittest.TestCase):
    def test_qparams(self):
        torch.manual_seed(0)
        import torch.ao.quantization as theirs
        ours = octet.quantization
        for name in ("MinMaxObserver", "MovingAverageMinMaxObserver", "PerChannelMinMaxObserver",
                     "MovingAveragePerChannelMinMaxObserver"):
            for dtype in ("quint8", "qint8"):
                for scheme in ("affine", "symmetric"):
                    qscheme = ("per_channel_" if "PerChannel" in name else "per_tensor_") + scheme
                    for reduce_range in (False, True) if scheme == "affine" else (False,):
                        a = getattr(theirs, name)(dtype=getattr(torch, dtype), qscheme=getattr(torch, qscheme),
                                                  reduce_range=reduce_range)
                        b = getattr(ours, name)(dtype=getattr(octet, dtype), qscheme=getattr(octet, qscheme),
                                                reduce_range=reduce_range)
                        for _ in range(3):
                            x = torch.randn(4, 6) * 3 + 1
                            a(x)
                            b(octet.tensor(x.numpy()))
                        for p, q in zip(b.calculate_qparams(), a.calculate_qparams()):
                            np.testing.assert_array_equal(p.numpy(), q.numpy(), f"{name} {dtype} {qscheme} {reduce_range}")

    def test_qconfigs_have_the_same_observers(self):
        import torch.ao.quantization as theirs
        for name in ("default_qconfig", "default_per_channel_qconfig", "default_dynamic_qconfig", "per_channel_dynamic_qconfig",
                     "float16_dynamic_qconfig", "default_qat_qconfig", "default_weight_only_qconfig", "default_activation_only_qconfig"):
            a, b = getattr(theirs, name), getattr(octet.quantization, name)
            for side in ("activation", "weight"):
                p, q = getattr(a, side)(), getattr(b, side)
                self.assertEqual(type(p).__name__, q.fake_quantize_name or q.name or "Identity", f"{name}.{side}")


@unittest.skipIf(torch is None, "no torch here")
class EagerMode(unittest.TestCase):
    """Whole models, quantized by both with the same weights and samples (qnnpack: all codes are in use)."""

    def models(self, module, nn, quantization, functional):
        class M(module):
            def __init__(self):
                super().__init__()
                self.quant = quantization.QuantStub()
                self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
                self.bn1 = nn.BatchNorm2d(8)
                self.relu1 = nn.ReLU()
                self.conv2 = nn.Conv2d(8, 8, 3, stride=2, groups=4)
                self.add = functional()
                self.pool = nn.AdaptiveAvgPool2d(1)
                self.flatten = nn.Flatten()
                self.fc = nn.Linear(8, 5)
                self.dequant = quantization.DeQuantStub()

            def forward(self, x):
                x = self.relu1(self.bn1(self.conv1(self.quant(x))))
                x = self.conv2(x)
                x = self.add.add(x, x)
                return self.dequant(self.fc(self.flatten(self.pool(x))))
        return M()

    def pair(self):
        import torch.ao.quantization as tq
        torch.manual_seed(0)
        theirs = self.models(torch.nn.Module, torch.nn, tq, torch.nn.quantized.FloatFunctional)
        ours = self.models(octet.nn.Module, octet.nn, octet.quantization, octet.quantization.FloatFunctional)
        theirs.train()(torch.randn(16, 3, 12, 12))
        ours.load_state_dict(theirs.state_dict())
        return ours.eval(), theirs.eval()

    def test_static(self):
        import torch.ao.quantization as tq
        ours, theirs = self.pair()
        fuse = [["conv1", "bn1", "relu1"]]
        observers = [tq.MinMaxObserver.with_args(dtype=torch.quint8), octet.quantization.MinMaxObserver.with_args(dtype=octet.quint8)]
        theirs.qconfig = tq.QConfig(activation=observers[0], weight=tq.default_weight_observer)
        ours.qconfig = octet.quantization.QConfig(activation=observers[1], weight=octet.quantization.default_weight_observer)
        theirs = tq.prepare(tq.fuse_modules(theirs, fuse))
        ours = octet.quantization.prepare(octet.quantization.fuse_modules(ours, fuse))
        for _ in range(4):
            x = torch.randn(4, 3, 12, 12)
            theirs(x)
            ours(octet.tensor(x.numpy()))
        torch.backends.quantized.engine = "qnnpack"
        a, b = tq.convert(theirs), octet.quantization.convert(ours)
        for name in ("quant", "conv1", "conv2", "fc"):
            p, q = getattr(b, name), getattr(a, name)
            np.testing.assert_allclose(p.scale, float(q.scale), rtol=1e-5, err_msg=name)
            self.assertEqual(p.zero_point, int(q.zero_point), name)
        for name in ("conv1", "conv2", "fc"):
            p, q = getattr(b, name).weight().int_repr().numpy(), getattr(a, name).weight().int_repr().numpy()
            self.assertLessEqual(np.abs(p.astype(int) - q.astype(int)).max(), 1, name)
        x = torch.randn(8, 3, 12, 12)
        steps = np.abs(b(octet.tensor(x.numpy())).numpy() - a(x).numpy()) / b.fc.scale
        self.assertLessEqual(steps.max(), 2.01)  # of 255: PyTorch rounds its multipliers otherwise
        self.assertEqual([n for n, _ in b.named_modules()], [n for n, _ in a.named_modules() if "_packed_params" not in n
                                                               and "activation_post_process" not in n])

    def test_dynamic(self):
        torch.manual_seed(4)
        theirs, ours = torch.nn.Sequential(torch.nn.Linear(16, 8)), octet.nn.Sequential(octet.nn.Linear(16, 8))
        ours.load_state_dict(theirs.state_dict())
        torch.backends.quantized.engine = "qnnpack"  # what Debian's PyTorch has
        a = torch.ao.quantization.quantize_dynamic(theirs, {torch.nn.Linear})
        b = octet.quantization.quantize_dynamic(ours, {octet.nn.Linear})
        np.testing.assert_array_equal(b[0].weight().int_repr().numpy(), a[0].weight().int_repr().numpy())
        x = torch.randn(5, 16)
        np.testing.assert_allclose(b(octet.tensor(x.numpy())).numpy(), a(x).numpy(), atol=0.02)  # it uses all codes


@unittest.skipIf(torch is None, "no torch here")
class Bridge(unittest.TestCase):
    def test_state_dicts_of_quantized_tensors(self):
        x = torch.randn(3, 4)
        state = octet.from_torch_state_dict({"a": torch.quantize_per_tensor(x, 0.1, 3, torch.quint8), "b": x,
                                             "c": torch.quantize_per_channel(x, torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0, 1, 2]), 0, torch.qint8)})
        np.testing.assert_allclose(state["a"].dequantize().numpy(), torch.quantize_per_tensor(x, 0.1, 3, torch.quint8).dequantize().numpy())
        self.assertEqual((state["c"].q_per_channel_axis(), state["c"].q_per_channel_zero_points().tolist()), (0, [0, 1, 2]))
        np.testing.assert_array_equal(state["b"].numpy(), x.numpy())

    def test_models_come_by_onnx(self):
        class M(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = torch.nn.Conv2d(3, 8, 3)
                self.bn = torch.nn.BatchNorm2d(8)
                self.fc = torch.nn.Linear(8, 4)

            def forward(self, x):
                return self.fc(torch.relu(self.bn(self.conv(x))).mean((2, 3)))
        model, x = M(), torch.randn(2, 3, 8, 8)
        model(x)
        for given in (model, torch.jit.script(model), torch.jit.trace(model.eval(), x), torch.fx.symbolic_trace(model)):
            graph = octet.from_torch(given, x)
            more = torch.randn(5, 3, 8, 8)
            np.testing.assert_allclose(octet.compile(graph)(more.numpy()).numpy(), model.eval()(more).detach().numpy(), rtol=1e-4, atol=1e-5)
        int8 = octet.quantize(graph, [torch.randn(1, 3, 8, 8).numpy() for _ in range(8)])
        self.assertIn("quantize", int8.operators)
        y = octet.GraphModule(octet.from_torch(model, x))(x)  # tensors of PyTorch are taken as they are
        self.assertEqual(y.shape, (2, 4))

    def test_a_models_mode_stays(self):
        model = torch.nn.Sequential(torch.nn.Linear(2, 2)).train()
        octet.from_torch(model, torch.randn(1, 2))
        self.assertTrue(model.training)


if __name__ == "__main__":
    unittest.main()
