"""The same program for PyTorch 1.13 and for octet: one text, run with the names torch, nn, F, q (torch.ao.quantization) and fx
(torch.ao.quantization.quantize_fx) of the one and of the other. The last line is what the program gives; both must agree in
types, shapes, whole numbers and codes, and in floats to a tolerance. Skipped without Debian's python3-torch."""
import re
import unittest

import numpy as np

import octet

try:
    import torch
    import torch.ao.quantization
    import torch.ao.quantization.quantize_fx
except ImportError:
    torch = None

DATA = "data(2, 4, 6)"


def programs():
    """(group, text, tolerance): of floats; of codes it is the steps by which they may differ."""
    for text in tensor_programs():
        yield "tensors", text, 1e-5
    for text in functional_programs():
        yield "functions", text, 1e-5
    for text in module_programs():
        yield "modules", text, 1e-5
    for text in loss_programs():
        yield "losses and gradients", text, 1e-5
    for text in training_programs():
        yield "training", text, 1e-4
    for text in quantized_tensor_programs():
        yield "quantized tensors", text, 0
    for text in observer_programs():
        yield "observers", text, 1e-6
    for text in eager_programs():
        yield "eager mode", text, 2
    for text in graph_programs():
        yield "graph mode", text, 2


def tensor_programs():
    a = f"a = {DATA}\n"
    for name in ("abs", "ceil", "floor", "round", "sign", "neg", "exp", "sin", "cos", "tanh", "sigmoid", "relu", "reciprocal"):
        yield f"{a}a.{name}()"
    for name in ("sqrt", "log", "rsqrt"):
        yield f"{a}a.abs().{name}()"
    for name in ("add", "sub", "mul", "div", "maximum", "minimum"):
        yield f"{a}torch.{name}(a, data(2, 4, 6, seed=1))"
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        yield f"{a}torch.{name}(a, data(4, 1, seed=1))"
    for text in ("a + 1", "1 - a", "a * a", "2 / (a.abs() + 1)", "a ** 2", "-a", "a @ data(6, 3, seed=1)", "a % 2", "a > 0",
                 "(a > 0) & (a < 1)", "(a > 0) | (a < -1)", "~(a > 0)", "a[0]", "a[:, 1]", "a[..., ::2]", "a[1, 2:, None]", "a[-1, -2]",
                 "a.sum()", "a.sum(1)", "a.sum((0, 2), keepdim=True)", "a.mean()", "a.mean(-1)", "a.mean((1, 2), keepdim=True)",
                 "a.amax(1)", "a.amin((0, 1))", "a.max()", "a.min()", "a.max(1)", "a.min(2, keepdim=True)", "a.argmax()", "a.argmax(1)",
                 "a.argmin(-1, keepdim=True)", "a.prod(1)", "a.clamp(-1, 1)", "a.clamp(min=0)", "a.clip(max=0.5)", "a.flatten()",
                 "a.flatten(1)", "a.flatten(0, 1)", "a.reshape(4, 12)", "a.reshape(2, -1)", "a.view(8, 6)", "a.unsqueeze(1)",
                 "a.unsqueeze(-1).squeeze(-1)", "a[:1].squeeze()", "a.transpose(1, 2)", "a.permute(2, 0, 1)", "a[0].t()", "a[0].T",
                 "a.chunk(2, 1)", "a.chunk(4, 2)", "a.split(4, 2)", "a.split([1, 3], 1)", "a[:, :1].expand(2, 4, 6)", "a.repeat(1, 2, 1)",
                 "a.softmax(1)", "a.log_softmax(-1)", "a.numel()", "a.dim()", "a.size()", "a.size(1)", "tuple(a.shape)", "a.tolist()",
                 "a.double()", "a.half()", "a.long()", "a.int()", "(a > 0).float()", "a.contiguous().stride()", "a.transpose(0, 1).stride()",
                 "a.is_contiguous()", "a.sum().item()", "torch.cat([a, a], 1)", "torch.stack([a, a], 1)",
                 "torch.where(a > 0, a, torch.zeros_like(a))", "torch.topk(a, 2)", "torch.matmul(a, a.transpose(1, 2))",
                 "torch.bmm(a, a.transpose(1, 2))", "torch.full_like(a, 3)", "torch.ones_like(a)", "torch.allclose(a, a + 1e-9)",
                 "torch.equal(a, a.clone())", "torch.flatten(a, 1)", "torch.is_tensor(a)"):
        yield a + text
    for text in ("torch.zeros(2, 3)", "torch.ones(2)", "torch.full((2, 2), 1.5)", "torch.arange(5)", "torch.arange(1, 7, 2)",
                 "torch.arange(0.0, 1.0, 0.25)", "torch.linspace(0, 1, 5)", "torch.eye(3)", "torch.tensor([1, 2])", "torch.tensor([[1.5]])",
                 "torch.tensor([True])", "torch.tensor(3.0).item()"):
        yield text


def functional_programs():
    x = "x = data(2, 4, 8, 8)\n"
    for call in ("relu(x)", "relu6(x * 4)", "elu(x)", "elu(x, alpha=0.5)", "celu(x)", "selu(x)", "gelu(x)", "silu(x)", "mish(x)",
                 "leaky_relu(x, 0.2)", "hardtanh(x, -0.5, 0.5)", "hardsigmoid(x)", "hardswish(x)", "softplus(x)", "softplus(x, beta=2)",
                 "softsign(x)", "tanhshrink(x)", "hardshrink(x)", "softshrink(x)", "threshold(x, 0.1, 20)", "logsigmoid(x)", "glu(x, dim=1)",
                 "softmax(x, dim=1)", "softmin(x, dim=1)", "log_softmax(x, dim=-1)", "normalize(x, dim=1)", "normalize(x, p=1.0, dim=2)",
                 "prelu(x, data(4, seed=1))", "conv2d(x, data(6, 4, 3, 3, seed=1))", "conv2d(x, data(6, 4, 3, 3, seed=1), data(6, seed=2), padding=1)",
                 "conv2d(x, data(6, 2, 3, 3, seed=1), stride=2, groups=2)", "conv2d(x, data(6, 4, 3, 3, seed=1), dilation=2)",
                 "conv2d(x, data(4, 1, 3, 3, seed=1), groups=4, padding=(1, 0))", "conv1d(x[0], data(6, 8, 3, seed=1), padding=1)",
                 "conv_transpose2d(x, data(4, 3, 2, 2, seed=1), stride=2)", "conv_transpose1d(x[0], data(8, 3, 2, seed=1))",
                 "linear(x, data(5, 8, seed=1), data(5, seed=2))", "max_pool2d(x, 2)", "max_pool2d(x, 3, stride=2, padding=1)",
                 "max_pool1d(x[0], 2)", "avg_pool2d(x, 2)", "avg_pool2d(x, 3, 2, 1)", "avg_pool1d(x[0], 2)", "adaptive_avg_pool2d(x, 1)",
                 "adaptive_avg_pool2d(x, (3, 5))", "adaptive_max_pool2d(x, 2)", "adaptive_avg_pool1d(x[0], 3)",
                 "batch_norm(x, data(4, seed=1), data(4, seed=2).abs() + 0.5)", "layer_norm(x, (8,), data(8, seed=1), data(8, seed=2))",
                 "layer_norm(x, (8, 8))", "group_norm(x, 2)", "instance_norm(x)", "interpolate(x, scale_factor=2)",
                 "interpolate(x, size=(5, 11))", "interpolate(x, size=(12, 6), mode='bilinear', align_corners=False)",
                 "interpolate(x, scale_factor=2, mode='bilinear', align_corners=True)", "pad(x, (1, 2))", "pad(x, (1, 1, 0, 2), value=3.0)",
                 "pad(x, (1, 1, 2, 0), mode='reflect')", "pad(x, (1, 1, 1, 1), mode='replicate')", "pixel_shuffle(x, 2)",
                 "pixel_unshuffle(x, 2)", "embedding(torch.tensor([[1, 2], [0, 4]]), data(5, 3, seed=1))",
                 "one_hot(torch.tensor([0, 2, 1]), 4)", "dropout(x, 0.5, training=False)",
                 "bilinear(x, x, data(3, 8, 8, seed=1), data(3, seed=2))"):
        yield f"{x}F.{call}"


def module_programs():
    image, line, volume = "data(2, 4, 9, 8)", "data(2, 4, 9)", "data(2, 4, 5, 6, 7)"
    for call, x in (("Conv2d(4, 6, 3)", image), ("Conv2d(4, 6, (3, 2), stride=2, padding=(1, 0), groups=2)", image),
                    ("Conv2d(4, 4, 3, padding='same', dilation=2, bias=False)", image), ("Conv2d(4, 6, 3, padding=1, padding_mode='reflect')", image),
                    ("Conv2d(4, 6, 3, padding=1, padding_mode='circular')", image), ("Conv2d(4, 8, 1, groups=4)", image),
                    ("Conv1d(4, 6, 3, padding=1)", line), ("Conv1d(4, 4, 3, groups=4)", line), ("Conv3d(4, 6, 3)", volume),
                    ("ConvTranspose2d(4, 6, 3, stride=2, output_padding=1)", image), ("ConvTranspose2d(4, 6, 2, groups=2, bias=False)", image),
                    ("ConvTranspose1d(4, 6, 3)", line), ("Linear(8, 5)", image), ("Linear(8, 5, bias=False)", image), ("BatchNorm2d(4)", image),
                    ("BatchNorm1d(4, affine=False)", line), ("BatchNorm3d(4, eps=0.01)", volume), ("InstanceNorm2d(4, affine=True)", image),
                    ("LayerNorm((9, 8))", image), ("LayerNorm(8, elementwise_affine=False)", image), ("GroupNorm(2, 4)", image),
                    ("PReLU()", image), ("PReLU(4)", image), ("MaxPool2d(2)", image), ("MaxPool2d(2, ceil_mode=True)", image),
                    ("AvgPool2d(3, stride=2, padding=1)", image), ("AvgPool2d(3, count_include_pad=False, padding=1)", image),
                    ("AdaptiveAvgPool2d((3, None))", image), ("AdaptiveMaxPool1d(4)", line), ("Upsample(scale_factor=2)", image),
                    ("PixelShuffle(2)", image), ("Flatten()", image), ("Flatten(2)", image), ("Softmax(1)", image), ("Dropout(0.5)", image),
                    ("Hardtanh(-2, 2)", image), ("LeakyReLU(0.3)", image), ("ELU(0.7)", image), ("Identity()", image), ("Bilinear(8, 8, 3)", None),
                    ("LSTM(8, 5)", "data(3, 2, 8)"), ("LSTM(8, 5, num_layers=2, bidirectional=True)", "data(3, 2, 8)"),
                    ("LSTM(8, 5, batch_first=True, proj_size=3)", "data(3, 2, 8)"), ("GRU(8, 5)", "data(3, 2, 8)"),
                    ("GRU(8, 5, bidirectional=True, bias=False)", "data(3, 2, 8)"), ("RNN(8, 5, nonlinearity='relu')", "data(3, 2, 8)"),
                    ("LSTMCell(8, 5)", "data(3, 8)"), ("GRUCell(8, 5)", "data(3, 8)"), ("RNNCell(8, 5)", "data(3, 8)")):
        yield f"m = same(nn.{call}).eval()\n" + (f"m({x})" if x else "m(data(3, 8), data(3, 8, seed=1))")
    model = "m = same(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(252, 5)))\n"
    for text in ("m.eval()(data(2, 4, 9, 8))", "m.train()(data(2, 4, 9, 8))", "m.train()(data(2, 4, 9, 8))\nm[1].running_mean",
                 "[name for name, _ in m.named_parameters()]", "[name for name, _ in m.named_buffers()]", "sorted(m.state_dict())",
                 "[name for name, _ in m.named_modules()]", "[type(c).__name__ for c in m.children()]", "len(m)", "m.training",
                 "m.eval().training", "sum(p.numel() for p in m.parameters())", "[name for name, _ in m.named_children()]"):
        yield model + text


def loss_programs():
    given = "x, t, k = data(6, 4), data(6, 4, seed=1), labels(6, 4)\nx.requires_grad_()\n"
    for loss in ("F.cross_entropy(x, k)", "F.cross_entropy(x, k, label_smoothing=0.1)", "F.cross_entropy(x, k, reduction='sum')",
                 "F.cross_entropy(x, k, weight=data(4, seed=2).abs())", "F.mse_loss(x, t)", "F.mse_loss(x, t, reduction='sum')", "F.l1_loss(x, t)",
                 "F.smooth_l1_loss(x, t)", "F.smooth_l1_loss(x, t, beta=0.5)", "F.huber_loss(x, t, delta=0.7)",
                 "F.nll_loss(F.log_softmax(x, dim=1), k)", "F.binary_cross_entropy_with_logits(x, (t > 0).float())",
                 "F.kl_div(F.log_softmax(x, dim=1), F.softmax(t, dim=1), reduction='batchmean')", "(x * t).sum()", "(x @ t.t()).mean()",
                 "F.gelu(x).sum()", "F.silu(x).pow(2).mean()", "x.softmax(1).max(1)[0].sum()", "F.layer_norm(x, (4,)).abs().sum()",
                 "(x.clamp(-1, 1) * t).sum()", "torch.cat([x, x * 2], 1).pow(3).mean()", "x[:, 1:3].exp().sum()", "F.normalize(x, dim=1).pow(3).sum()"):
        yield f"{given}loss = {loss}\nloss.backward()\n(loss.item(), x.grad)"
    for call, target in (("CrossEntropyLoss()", "k"), ("CrossEntropyLoss(ignore_index=1)", "k"), ("MSELoss()", "t"), ("L1Loss(reduction='sum')", "t"),
                         ("SmoothL1Loss(beta=0.3)", "t"), ("HuberLoss()", "t"), ("BCEWithLogitsLoss()", "(t > 0).float()")):
        yield f"{given}loss = nn.{call}(x, {target})\nloss.backward()\n(loss.item(), x.grad)"


def training_programs():
    start = "m = same(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)))\nx, y = data(16, 4), data(16, 2, seed=1)\n"
    steps = ("for _ in range(8):\n    o.zero_grad()\n    F.mse_loss(m(x), y).backward()\n    o.step()\n    {}\n"
             "[p.detach() for p in m.parameters()]")
    for call in ("SGD(m.parameters(), lr=0.1)", "SGD(m.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)",
                 "SGD(m.parameters(), lr=0.1, momentum=0.9, nesterov=True)", "Adam(m.parameters(), lr=0.01)",
                 "Adam(m.parameters(), lr=0.01, betas=(0.8, 0.9))", "Adam(m.parameters(), amsgrad=True)", "AdamW(m.parameters(), lr=0.01)"):
        yield f"{start}o = torch.optim.{call}\n" + steps.format("pass")
    for call in ("StepLR(o, 3)", "MultiStepLR(o, [2, 5])", "CosineAnnealingLR(o, 8)", "LinearLR(o, total_iters=4)"):
        yield f"{start}o = torch.optim.SGD(m.parameters(), lr=0.1)\ns = torch.optim.lr_scheduler.{call}\n" + steps.format("s.step()")


def quantized_tensor_programs():
    for dtype, zero_point in (("quint8", 0), ("quint8", 17), ("quint8", 255), ("qint8", 0), ("qint8", -128), ("qint8", 60), ("qint32", 5)):
        for scale in (0.05, 0.3):
            t = f"t = torch.quantize_per_tensor({DATA} * 3, {scale}, {zero_point}, torch.{dtype})\n"
            yield t + "(t.int_repr(), t.dequantize(), t.q_scale(), t.q_zero_point())"
    t = f"t = torch.quantize_per_tensor({DATA}, 0.05, 10, torch.quint8)\n"
    for text in ("t[0]", "t.reshape(4, 12)", "t.transpose(0, 1).dequantize()", "t.flatten(1)", "t.shape", "t.is_quantized", "t.numel()",
                 "t.unsqueeze(0)", "t.permute(2, 0, 1).int_repr()", "torch.equal(t, t.clone())", "F.relu(t.dequantize())"):
        yield t + text
    for axis in (0, 1, 2):
        n = (2, 4, 6)[axis]
        yield (f"t = torch.quantize_per_channel({DATA}, data({n}, seed=3).abs() + 0.01, torch.tensor(list(range({n}))), {axis}, torch.qint8)\n"
               "(t.int_repr(), t.dequantize(), t.q_per_channel_axis(), t.q_per_channel_zero_points())")


# Zero points as numbers: PyTorch's are int32 of affine schemes and int64 of symmetric ones, octet's int64.
def observer_programs():
    for name in ("MinMaxObserver", "MovingAverageMinMaxObserver", "PerChannelMinMaxObserver", "MovingAveragePerChannelMinMaxObserver"):
        for dtype in ("quint8", "qint8"):
            for scheme in ("affine", "symmetric"):
                for more in ("", ", reduce_range=True"):
                    if more and scheme == "symmetric":
                        continue
                    whole = "per_channel" if "PerChannel" in name else "per_tensor"
                    yield (f"o = q.{name}(dtype=torch.{dtype}, qscheme=torch.{whole}_{scheme}{more})\n"
                           "for i in range(3):\n    o(data(4, 6, seed=i) * 3 + 1)\n([p.tolist() for p in o.calculate_qparams()], o.min_val, o.max_val)")
    for text in ("o = q.MinMaxObserver(quant_min=0, quant_max=15)", "o = q.MinMaxObserver(dtype=torch.qint8, quant_min=-127, quant_max=127)",
                 "o = q.MovingAverageMinMaxObserver(averaging_constant=0.5)", "o = q.PerChannelMinMaxObserver(ch_axis=1)",
                 "o = q.MinMaxObserver.with_args(dtype=torch.qint8)()", "o = q.default_observer()", "o = q.default_weight_observer()",
                 "o = q.default_per_channel_weight_observer()", "o = q.FixedQParamsObserver(scale=0.5, zero_point=3)"):
        yield text + "\no(data(4, 6))\n[p.tolist() for p in o.calculate_qparams()]"
    for text in ("f = q.FakeQuantize(observer=q.MinMaxObserver, quant_min=0, quant_max=255)",
                 "f = q.FakeQuantize(observer=q.MinMaxObserver, quant_min=-128, quant_max=127, dtype=torch.qint8, qscheme=torch.per_tensor_symmetric)",
                 "f = q.FakeQuantize(observer=q.MovingAverageMinMaxObserver, quant_min=0, quant_max=15)", "f = q.default_fake_quant()",
                 "f = q.default_weight_fake_quant()", "f = q.default_per_channel_weight_fake_quant()"):
        yield text + "\nf(data(4, 6))"
        yield text + "\nx = data(4, 6) * 2\nx.requires_grad_()\nf(x).sum().backward()\nx.grad"
    for name in ("default_qconfig", "default_per_channel_qconfig", "default_dynamic_qconfig", "per_channel_dynamic_qconfig",
                 "float16_dynamic_qconfig", "default_qat_qconfig"):
        yield f"c = q.{name}\n[type(part()).__name__ for part in (c.activation, c.weight)]"


# Codes over their whole range, as QNNPACK has them, which is what Debian's PyTorch quantizes for.
QCONFIG = ("qconfig = q.QConfig(activation=q.MinMaxObserver.with_args(dtype=torch.quint8), weight=q.default_weight_observer)\n")


def eager_programs():
    image = "data(4, 4, 8, 8)"
    layers = (("nn.Linear(8, 5)", image), ("nn.Linear(8, 5, bias=False)", image), ("nn.Conv2d(4, 6, 3)", image),
              ("nn.Conv2d(4, 6, 3, stride=2, padding=1)", image), ("nn.Conv2d(4, 8, 3, groups=4)", image), ("nn.Conv2d(4, 6, 1, bias=False)", image),
              ("nn.Sequential(nn.Conv2d(4, 6, 3), nn.ReLU())", image), ("nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))", image),
              ("nn.Sequential(nn.Conv2d(4, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 2, 2))", image),
              ("nn.Sequential(nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))", image),
              ("nn.Sequential(nn.Linear(8, 8), nn.Hardswish(), nn.Linear(8, 2))", image))
    for layer, x in layers:
        yield (f"{QCONFIG}m = q.QuantWrapper(same({layer})).eval()\nm.qconfig = qconfig\np = q.prepare(m)\nfor i in range(3):\n"
               f"    p(data(4, 4, 8, 8, seed=i))\nc = q.convert(p)\nsteps(c, c({x}))")
    fused = "m = same(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 2, 3))).eval()\n"
    yield f"{fused}[type(x).__name__ for x in q.fuse_modules(m, [['0', '1', '2']]).children()]"
    yield f"{fused}q.fuse_modules(m, [['0', '1', '2']])({image})"
    yield (f"{QCONFIG}{fused}m = q.QuantWrapper(q.fuse_modules(m, [['0', '1', '2']]))\nm.qconfig = qconfig\np = q.prepare(m)\np({image})\n"
           f"c = q.convert(p)\nsteps(c, c({image}))")
    for layer in ("nn.Linear(16, 8)", "nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))"):
        yield (f"m = same(nn.Sequential({layer}))\nd = q.quantize_dynamic(m, {{nn.Linear}})\n"
               "[x.weight().int_repr() for x in d.modules() if type(x).__name__ == 'Linear']")
        yield f"m = same(nn.Sequential({layer}))\n[type(x).__name__ for x in q.quantize_dynamic(m, {{nn.Linear}}).modules() if 'Packed' not in type(x).__name__]"
    qat = ("m = same(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU())).train()\n"
           "m.qconfig = q.QConfig(activation=q.default_fake_quant, weight=q.default_weight_fake_quant)\n"
           "p = q.prepare_qat(q.fuse_modules_qat(m, [['0', '1', '2']]))\n")
    yield qat + "[type(x).__name__ for x in p.children()]"


def graph_programs():
    image = "data(4, 4, 8, 8)"
    for layers in ("nn.Linear(8, 5)", "nn.Conv2d(4, 6, 3)", "nn.Conv2d(4, 6, 3), nn.ReLU()", "nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU()",
                   "nn.Conv2d(4, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 2, 2)", "nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)"):
        yield (f"{QCONFIG}m = same(nn.Sequential({layers})).eval()\np = fx.prepare_fx(m, {{'': qconfig}}, ({image},))\nfor i in range(3):\n"
               f"    p(data(4, 4, 8, 8, seed=i))\nc = fx.convert_fx(p)\nsteps(c, c({image}))")
        yield f"m = same(nn.Sequential({layers})).eval()\nfx.fuse_fx(m, *fuse_arguments({image}))({image})"


class Run:
    """Both runs of one program: what the second needs of the first."""

    def __init__(self, tensor, library, nn, functional, quantization, graph_mode, states):
        self.tensor, self.states, self.at = tensor, states, 0
        self.names = {"torch": library, "nn": nn, "F": functional, "q": quantization, "fx": graph_mode, "same": self.same,
                      "data": self.data, "labels": self.labels, "steps": self.steps, "fuse_arguments": self.fuse_arguments}

    def data(self, *shape, seed=0):
        return self.tensor(np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32))

    def labels(self, count, classes):
        return self.tensor(np.random.default_rng(0).integers(0, classes, count))

    def same(self, module):
        """PyTorch's initial weights for both."""
        if self.tensor is torch.from_numpy:
            with torch.no_grad():
                for p in module.buffers():  # statistics that are not the first ones
                    if p.dtype == torch.float32:
                        p.copy_(torch.rand(p.shape) + 0.5)
            self.states.append({name: value.clone() for name, value in module.state_dict().items()})
        else:
            if self.states[self.at]:
                module.load_state_dict(self.states[self.at])
            self.at += 1
        return module

    def fuse_arguments(self, x):
        return () if self.tensor is torch.from_numpy else ((x,),)  # of PyTorch's only newer ones take example_inputs

    def steps(self, model, result):
        """The result of a quantized model in steps of its last scale, to whole ones."""
        scales = [float(m.scale) for m in model.modules() if hasattr(m, "scale") and not isinstance(getattr(m, "scale"), property)]
        return Codes(np.asarray(result.detach().numpy() if hasattr(result, "detach") else result.numpy()) / scales[-1])

    def __call__(self, text):
        *lines, last = re.sub(r"\n(?=\s)", "\0", text).split("\n")
        exec("\n".join(lines).replace("\0", "\n"), self.names)
        return eval(last.replace("\0", "\n"), self.names)


class Codes:
    def __init__(self, values):
        self.values = values


@unittest.skipIf(torch is None, "no torch here")
class Conformance(unittest.TestCase):
    def agree(self, a, b, tolerance, what):
        if isinstance(a, Codes):
            self.assertEqual(a.values.shape, b.values.shape, what)
            # PyTorch rounds its multipliers otherwise.
            self.assertLessEqual(np.abs(a.values - b.values).max(), tolerance + 0.02, what)
        elif isinstance(a, (tuple, list)):
            self.assertEqual(len(a), len(b), what)
            for x, y in zip(a, b):
                self.agree(x, y, tolerance, what)
        elif hasattr(a, "is_quantized") and a.is_quantized:
            self.assertTrue(b.is_quantized, what)
            self.assertEqual((a.q_scale(), a.q_zero_point()), (b.q_scale(), b.q_zero_point()), what)
            self.agree(a.int_repr(), b.int_repr(), tolerance, what)
        elif hasattr(a, "detach"):
            x, y = a.detach().numpy(), b.detach().numpy()
            self.assertEqual((x.shape, x.dtype), (y.shape, y.dtype), what)
            if x.dtype.kind == "f":
                loose = max(tolerance, 1e-5) if x.dtype != np.float16 else 1e-3
                np.testing.assert_allclose(y, x, rtol=loose, atol=loose, err_msg=what)
            else:
                np.testing.assert_array_equal(y, x, what)
        elif isinstance(a, float):
            np.testing.assert_allclose(b, a, rtol=max(tolerance, 1e-5), atol=1e-7, err_msg=what)
        else:
            self.assertEqual(a, b, what)

    def test_the_same_text_gives_the_same(self):
        torch.backends.quantized.engine = "qnnpack"
        texts = list(programs())
        self.assertEqual(len({text for _, text, _ in texts}), len(texts))
        self.assertGreaterEqual(len(texts), 300)
        for group, text, tolerance in texts:
            with self.subTest(group=group, program=text):
                torch.manual_seed(0)
                states = []
                theirs = Run(torch.from_numpy, torch, torch.nn, torch.nn.functional, torch.ao.quantization,
                             torch.ao.quantization.quantize_fx, states)(text)
                ours = Run(octet.tensor, octet, octet.nn, octet.nn.functional, octet.quantization, octet.quantization.quantize_fx,
                           states)(text)
                self.agree(theirs, ours, tolerance, text)


if __name__ == "__main__":
    unittest.main()
