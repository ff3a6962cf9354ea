#!/usr/bin/python3
"""Makes the ONNX files that bench/compare.py measures, with random weights: networks of the usual shapes as float and as QDQ files
(*.q.onnx: activations uint8, weights int8 per channel), BERT with dynamic quantization, and single operators of ONNX Runtime.

    bench/models.py DIRECTORY [--only NAME ...]

Needs python3-onnx (Debian's /usr/bin/python3 has it). Ranges of activations are chosen, not measured: what is compared is the time.
Files that are there are left alone.
"""
import argparse
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


class Net:
    """A graph in the making. With `qdq`, results of the layers pass through QuantizeLinear and DequantizeLinear, weights are
    dequantized int8; without, the same layers are float. Batch norms are folded already."""

    def __init__(self, name, shape, qdq, seed=0):
        self.name, self.qdq = name, qdq
        self.rng = np.random.default_rng(seed)
        self.nodes, self.initializers, self.scale = [], [], {}
        self.shape = list(shape)
        self.count = 0

    # -- building blocks --------------------------------------------------------------------------
    def fresh(self, stem):
        self.count += 1
        return f"{stem}_{self.count}"

    def node(self, op, inputs, domain=None, outputs=1, **attributes):
        names = [self.fresh(op) for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, names[0], domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, values, dtype=np.float32):
        name = self.fresh("c")
        self.initializers.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def random(self, *shape, gain, fan_in):
        return (self.rng.standard_normal(shape) * gain / fan_in**0.5).astype(np.float32)

    def codes(self, x, low, high):
        """x through uint8 codes of low..high."""
        if not self.qdq:
            return x
        scale = np.float32((high - low) / 255)
        return self.same_codes(x, scale, np.uint8(round(-low / float(scale))))

    def same_codes(self, x, scale, zero_point):
        s, z = self.constant(scale), self.constant(zero_point, np.uint8)
        y = self.node("DequantizeLinear", [self.node("QuantizeLinear", [x, s, z]), s, z])
        self.scale[y] = (scale, zero_point)
        return y

    def weight(self, w, axis):
        """The operand of a layer, and its scales (none in float)."""
        if not self.qdq:
            return self.constant(w), None
        others = tuple(i for i in range(w.ndim) if i != axis)
        scale = (np.abs(w).max(axis=others) / 127).astype(np.float32)
        by_axis = scale.reshape([-1 if i == axis else 1 for i in range(w.ndim)])
        codes = self.constant(np.rint(w / by_axis), np.int8)
        zeros = self.constant(np.zeros(len(scale)), np.int8)
        return self.node("DequantizeLinear", [codes, self.constant(scale), zeros], axis=axis), scale

    def bias(self, x, n, weight_scale):
        b = self.random(n, gain=0.1, fan_in=1)
        if not self.qdq:
            return self.constant(b)
        scale = (self.scale[x][0] * weight_scale).astype(np.float32)
        return self.node("DequantizeLinear", [self.constant(np.rint(b / scale), np.int32), self.constant(scale),
                                              self.constant(np.zeros(n), np.int32)], axis=0)

    def activated(self, x, activation, reach=6.0):
        """In QDQ files the range alone is the activation: results below 0 have no code."""
        if self.qdq:
            return self.codes(x, 0.0 if activation else -reach, reach)
        if activation == "relu6":
            return self.node("Clip", [x, self.constant(0.0), self.constant(6.0)])
        return self.node("Relu", [x]) if activation else x

    # -- layers -----------------------------------------------------------------------------------
    def conv(self, x, n_in, n_out, kernel, stride=1, groups=1, activation="relu", gain=2**0.5):
        w, scale = self.weight(self.random(n_out, n_in // groups, kernel, kernel, gain=gain, fan_in=n_in // groups * kernel * kernel), 0)
        y = self.node("Conv", [x, w, self.bias(x, n_out, scale)], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[kernel // 2] * 4,
                      dilations=[1, 1], group=groups)
        return self.activated(y, activation)

    def gemm(self, x, n_in, n_out, activation=None):
        w, scale = self.weight(self.random(n_out, n_in, gain=1, fan_in=n_in), 0)
        return self.activated(self.node("Gemm", [x, w, self.bias(x, n_out, scale)], transB=1, alpha=1.0, beta=1.0), activation)

    def add(self, x, y, activation=None):
        return self.activated(self.node("Add", [x, y]), activation)

    def moved(self, op, inputs, **attributes):
        """An operator that keeps the codes of its first operand."""
        y = self.node(op, inputs, **attributes)
        return self.same_codes(y, *self.scale[inputs[0]]) if self.qdq else y

    def gated(self, x, gate, **attributes):
        """x * gate(x): SiLU, hard swish."""
        return self.codes(self.node("Mul", [x, self.codes(self.node(gate, [x], **attributes), 0, 1)]), -0.4, 6)

    def conv_transpose(self, x, n_in, n_out, kernel):
        """`kernel` is the stride, too."""
        w, scale = self.weight(self.random(n_in, n_out, kernel, kernel, gain=1, fan_in=n_in), 1)
        y = self.node("ConvTranspose", [x, w, self.bias(x, n_out, scale)], kernel_shape=[kernel] * 2, strides=[kernel] * 2)
        return self.activated(y, None)

    def head(self, x, channels):
        """Global average, and the classifier."""
        x = self.codes(self.node("GlobalAveragePool", [x]), 0.0, 6.0)
        x = self.node("Flatten", [x], axis=1)
        if self.qdq:
            x = self.codes(x, 0.0, 6.0)
        return self.gemm(x, channels, 1000)

    def model(self, y, batch="N"):
        assert self.nodes[-1].output[0] == y
        self.nodes[-1].output[0] = "y"
        graph = helper.make_graph(self.nodes, self.name, [helper.make_tensor_value_info("x", FLOAT, [batch] + self.shape[1:])],
                                  [helper.make_tensor_value_info("y", FLOAT, None)], self.initializers)
        opsets = [helper.make_opsetid("", 13)]
        if any(n.domain for n in self.nodes):
            opsets.append(helper.make_opsetid("com.microsoft", 1))
        model = helper.make_model(graph, opset_imports=opsets)
        model.ir_version = 8
        return model


# -- networks ----------------------------------------------------------------------------------------
def resnet(name, qdq, blocks, bottleneck):
    net = Net(name, [1, 3, 224, 224], qdq)
    x = net.conv(net.codes("x", -3, 3), 3, 64, 7, 2)
    x = net.moved("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = 64
    for stage, count in enumerate(blocks):
        width = 64 << stage
        out = width * (4 if bottleneck else 1)
        for block in range(count):
            stride = 2 if stage and block == 0 else 1
            if bottleneck:
                y = net.conv(x, channels, width, 1)
                y = net.conv(y, width, width, 3, stride)
                y = net.conv(y, width, out, 1, activation=None, gain=0.3)
            else:
                y = net.conv(x, channels, width, 3, stride)
                y = net.conv(y, width, out, 3, activation=None, gain=0.3)
            if stride != 1 or channels != out:
                x = net.conv(x, channels, out, 1, stride, activation=None)
            x = net.add(y, x, "relu")
            channels = out
    return net.model(net.head(x, channels))


def mobilenet_v2(name, qdq):
    net = Net(name, [1, 3, 224, 224], qdq)
    x = net.conv(net.codes("x", -3, 3), 3, 32, 3, 2, activation="relu6")
    channels = 32
    for expand, out, count, stride in [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]:
        for block in range(count):
            s, wide = stride if block == 0 else 1, channels * expand
            y = net.conv(x, channels, wide, 1, activation="relu6") if expand > 1 else x
            y = net.conv(y, wide, wide, 3, s, groups=wide, activation="relu6")
            y = net.conv(y, wide, out, 1, activation=None, gain=1)
            x = net.add(x, y) if s == 1 and channels == out else y
            channels = out
    x = net.conv(x, channels, 1280, 1, activation="relu6")
    return net.model(net.head(x, 1280))


def mobilenet_v3(name, qdq):
    """Large: 3x3 and 5x5 depthwise layers, hard swish, squeeze and excitation."""
    hard_sigmoid = {"gate": "HardSigmoid", "alpha": 1 / 6, "beta": 0.5}
    net = Net(name, [1, 3, 224, 224], qdq)

    def conv(x, n_in, n_out, kernel, stride=1, groups=1, swish=False):
        y = net.conv(x, n_in, n_out, kernel, stride, groups, activation=None if swish else "relu")
        return net.gated(y, **hard_sigmoid) if swish else y

    def squeeze(x, channels, low):
        inner = (channels // 4 + 7) // 8 * 8
        y = net.codes(net.node("GlobalAveragePool", [x]), low, 6)
        y = net.conv(net.conv(y, channels, inner, 1), inner, channels, 1, activation=None)
        gate = net.codes(net.node("HardSigmoid", [y], alpha=1 / 6, beta=0.5), 0, 1)
        return net.codes(net.node("Mul", [x, gate]), low, 6)

    x = conv(net.codes("x", -3, 3), 3, 16, 3, 2, swish=True)
    channels = 16
    for kernel, wide, out, squeezes, swish, stride in [
            (3, 16, 16, False, False, 1), (3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1), (5, 72, 40, True, False, 2),
            (5, 120, 40, True, False, 1), (5, 120, 40, True, False, 1), (3, 240, 80, False, True, 2), (3, 200, 80, False, True, 1),
            (3, 184, 80, False, True, 1), (3, 184, 80, False, True, 1), (3, 480, 112, True, True, 1), (3, 672, 112, True, True, 1),
            (5, 672, 160, True, True, 2), (5, 960, 160, True, True, 1), (5, 960, 160, True, True, 1)]:
        y = conv(x, channels, wide, 1, swish=swish) if wide != channels else x
        y = conv(y, wide, wide, kernel, stride, groups=wide, swish=swish)
        if squeezes:
            y = squeeze(y, wide, -0.4 if swish else 0.0)
        y = net.conv(y, wide, out, 1, activation=None, gain=1)
        x = net.add(x, y) if stride == 1 and channels == out else y
        channels = out
    x = conv(x, channels, 960, 1, swish=True)
    x = net.codes(net.node("GlobalAveragePool", [x]), -0.4, 6)
    x = net.codes(net.node("Flatten", [x], axis=1), -0.4, 6)
    x = net.gated(net.gemm(x, 960, 1280), **hard_sigmoid)
    return net.model(net.gemm(x, 1280, 1000))


def unet(name, qdq, levels=4, width=32):
    """256x256, two 3x3 layers at each level, max pools on the way down, transposed convolutions and concatenations on the way up."""
    net = Net(name, [1, 3, 256, 256], qdq)

    def twice(x, n_in, n_out):
        return net.conv(net.conv(x, n_in, n_out, 3), n_out, n_out, 3)

    x, channels, skipped = net.codes("x", -3, 3), 3, []
    for level in range(levels):
        x = twice(x, channels, width << level)
        channels = width << level
        skipped.append(x)
        x = net.moved("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
    x = twice(x, channels, 2 * channels)
    channels *= 2
    for beside in reversed(skipped):
        x = net.conv_transpose(x, channels, channels // 2, 2)
        joined = net.codes(net.node("Concat", [beside, x], axis=1), -6, 6)
        x = twice(joined, channels, channels // 2)
        channels //= 2
    return net.model(net.conv(x, channels, 2, 1, activation=None))


def yolo(name, qdq):
    """320x320: the backbone, the neck (nearest resize, concatenations, splits) and one layer of each head of a small YOLO; SiLU."""
    net = Net(name, [1, 3, 320, 320], qdq)

    def conv(x, n_in, n_out, kernel, stride=1):
        return net.gated(net.conv(x, n_in, n_out, kernel, stride, activation=None, gain=1), "Sigmoid")

    def joined(*parts):
        return net.moved("Concat", list(parts), axis=1)

    def block(x, n_in, n_out, count=1):
        half = n_out // 2
        parts = net.node("Split", [conv(x, n_in, n_out, 1), net.constant([half, half], np.int64)], outputs=2, axis=1)
        parts = [net.codes(part, -0.4, 6) for part in parts]
        for _ in range(count):
            inner = conv(conv(parts[-1], half, half, 3), half, half, 3)
            parts.append(net.codes(net.node("Add", [parts[-1], inner]), -0.4, 6))
        return conv(joined(*parts), (2 + count) * half, n_out, 1)

    def larger(x):
        scales = net.constant([1, 1, 2, 2])
        return net.moved("Resize", [x, "", scales], mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")

    x = conv(net.codes("x", 0, 1), 3, 16, 3, 2)
    x = block(conv(x, 16, 32, 3, 2), 32, 32)
    eighth = block(conv(x, 32, 64, 3, 2), 64, 64, 2)
    sixteenth = block(conv(eighth, 64, 128, 3, 2), 128, 128, 2)
    deepest = block(conv(sixteenth, 128, 256, 3, 2), 256, 256)
    up = block(joined(larger(deepest), sixteenth), 384, 128)
    first = block(joined(larger(up), eighth), 192, 64)
    second = block(joined(conv(first, 64, 64, 3, 2), up), 192, 128)
    third = block(joined(conv(second, 128, 128, 3, 2), deepest), 384, 256)
    heads = []
    for x, channels in ((first, 64), (second, 128), (third, 256)):
        head = net.conv(conv(x, channels, 64, 3), 64, 144, 1, activation=None)
        heads.append(net.moved("Reshape", [head, net.constant([0, 144, -1], np.int64)]))
    return net.model(net.moved("Concat", heads, axis=2))


def mlp(name, qdq):
    net = Net(name, [1, 1, 28, 28], qdq)
    x = net.node("Flatten", [net.codes("x", -3, 3)], axis=1)
    x = net.codes(x, -3, 3)
    x = net.gemm(x, 784, 512, "relu")
    x = net.gemm(x, 512, 512, "relu")
    return net.model(net.gemm(x, 512, 10))


def cnn28(name, qdq):
    net = Net(name, [1, 1, 28, 28], qdq)
    x = net.codes("x", -3, 3)
    for n_in, n_out in [(1, 32), (32, 64)]:
        x = net.conv(x, n_in, n_out, 3)
        x = net.moved("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
    x = net.node("Flatten", [x], axis=1)
    x = net.codes(x, 0, 6)
    x = net.gemm(x, 64 * 49, 128, "relu")
    return net.model(net.gemm(x, 128, 10))


def encoder(name, qdq, layers, width, heads=12, tokens=128, dynamic=False):
    """BERT's layers on 128 tokens. Quantized are products and additions, as ONNX Runtime's own tool does with
    op_types_to_quantize=MatMul,Add; what stands between them is float."""
    inner = 4 * width
    net = Net(name, [1, tokens, width], qdq)
    shared = {}  # a tensor's codes, dynamic: three layers read the same

    def linear(x, n_in, n_out):
        w, bias = net.random(n_in, n_out, gain=1, fan_in=n_in), net.constant(net.random(n_out, gain=0.1, fan_in=1))
        if not dynamic:
            return add(bias, net.codes(net.node("MatMul", [x, net.weight(w, 1)[0]]), -6, 6))
        if x not in shared:
            shared[x] = net.node("DynamicQuantizeLinear", [x], outputs=3)
        q, scale, zero_point = shared[x]
        w_scale = (np.abs(w).max(axis=0) / 127).astype(np.float32)
        product = net.node("MatMulInteger", [q, net.constant(np.rint(w / w_scale), np.int8), zero_point])
        factor = net.node("Mul", [scale, net.constant(w_scale)])
        return net.node("Add", [bias, net.node("Mul", [net.node("Cast", [product], to=FLOAT), factor])])

    def add(x, y, low=-6, high=6):
        return net.codes(net.node("Add", [x, y]), low, high)

    def norm(x):
        centered = net.node("Sub", [x, net.node("ReduceMean", [x], axes=[-1])])
        variance = net.node("ReduceMean", [net.node("Pow", [centered, net.constant(2.0)])], axes=[-1])
        deviation = net.node("Sqrt", [add(net.codes(variance, 0, 6), net.constant(1e-5), 0, 6)])
        scaled = net.node("Mul", [net.node("Div", [centered, deviation]), net.constant(np.ones(width))])
        return add(net.codes(scaled, -6, 6), net.constant(np.zeros(width)))

    def gelu(x):
        erf = net.node("Erf", [net.node("Div", [x, net.constant(2**0.5)])])
        y = net.node("Mul", [x, add(net.codes(erf, -1, 1), net.constant(1.0), 0, 2)])
        return net.node("Mul", [y, net.constant(0.5)])

    def by_heads(x, order):
        x = net.node("Reshape", [x, net.constant([1, tokens, heads, width // heads], np.int64)])
        return net.codes(net.node("Transpose", [x], perm=order), -6, 6)

    x = net.codes("x", -6, 6)
    for _ in range(layers):
        q, k, v = (linear(x, width, width) for _ in range(3))
        q, k, v = by_heads(q, [0, 2, 1, 3]), by_heads(k, [0, 2, 3, 1]), by_heads(v, [0, 2, 1, 3])
        scores = net.node("Div", [net.codes(net.node("MatMul", [q, k]), -40, 40), net.constant((width / heads)**0.5)])
        weights = net.codes(net.node("Softmax", [scores], axis=-1), 0, 1)
        mixed = net.codes(net.node("MatMul", [weights, v]), -6, 6)
        mixed = net.node("Reshape", [net.node("Transpose", [mixed], perm=[0, 2, 1, 3]), net.constant([1, tokens, width], np.int64)])
        x = norm(add(x, linear(net.codes(mixed, -6, 6), width, width)))
        wide = net.codes(gelu(linear(x, width, inner)), -0.2, 6)
        x = norm(add(x, linear(wide, inner, width)))
    return net.model(x, batch=1)


def bert2(name, qdq, dynamic=False):
    """Two layers of BERT base."""
    return encoder(name, qdq, 2, 768, dynamic=dynamic)


def transformer12(name, qdq):
    """Twelve layers as wide as those of small sentence encoders."""
    return encoder(name, qdq, 12, 384)


# -- single operators -----------------------------------------------------------------------------------
def dynamic_linear(name, m, k, n):
    net = Net(name, [m, k], False)
    q, scale, zero_point = net.node("DynamicQuantizeLinear", ["x"], outputs=3)
    product = net.node("MatMulInteger", [q, net.constant(net.rng.integers(-127, 128, (k, n)), np.int8), zero_point])
    factor = net.node("Mul", [scale, net.constant(np.full(n, 0.01))])
    return net.model(net.node("Mul", [net.node("Cast", [product], to=FLOAT), factor]), batch=m)


def int4_linear(name, m, k, n, block=32):
    """accuracy_level 4: ONNX Runtime may quantize the activations to int8."""
    net = Net(name, [m, k], False)
    w = net.constant(net.rng.integers(0, 256, (n, k // block, block // 2)), np.uint8)
    y = net.node("MatMulNBits", ["x", w, net.constant(np.full(n * (k // block), 0.01))], domain="com.microsoft", K=k, N=n, bits=4,
                 block_size=block, accuracy_level=4)
    return net.model(y, batch=m)


def dynamic_lstm(name, tokens=64, width=512, layers=2):
    net = Net(name, [tokens, 1, width], False)
    x = "x"
    for _ in range(layers):
        w, r = (net.constant(net.rng.integers(-127, 128, (1, width, 4 * width)), np.int8) for _ in range(2))
        scale, zero = net.constant(np.full((1, 4 * width), 3e-4)), net.constant(np.zeros((1, 4 * width)), np.int8)
        bias = net.constant(np.zeros((1, 8 * width)))
        y = net.node("DynamicQuantizeLSTM", [x, w, r, bias, "", "", "", "", scale, zero, scale, zero], domain="com.microsoft",
                     hidden_size=width, direction="forward")
        x = net.node("Squeeze", [y, net.constant([1], np.int64)])
    return net.model(x, batch=tokens)


FILES = {}
for _suffix, _qdq in ((".onnx", False), (".q.onnx", True)):
    FILES["resnet18" + _suffix] = lambda name, qdq=_qdq: resnet(name, qdq, [2, 2, 2, 2], False)
    FILES["resnet50" + _suffix] = lambda name, qdq=_qdq: resnet(name, qdq, [3, 4, 6, 3], True)
    for _make in (mobilenet_v2, mobilenet_v3, unet, yolo, bert2, transformer12, mlp, cnn28):
        FILES[_make.__name__ + _suffix] = lambda name, make=_make, qdq=_qdq: make(name, qdq)
FILES["bert2.dynamic.onnx"] = lambda name: bert2(name, False, dynamic=True)
for _m, _k, _n in ((1, 4096, 4096), (128, 768, 3072), (1024, 1024, 1024)):
    FILES[f"dynamic_linear_{_m}x{_k}x{_n}.onnx"] = lambda name, mkn=(_m, _k, _n): dynamic_linear(name, *mkn)
for _m in (1, 16):
    FILES[f"int4_linear_{_m}x4096x4096.onnx"] = lambda name, m=_m: int4_linear(name, m, 4096, 4096)
FILES["dynamic_lstm.onnx"] = dynamic_lstm


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--only", nargs="+", choices=list(FILES), metavar="NAME", default=list(FILES))
    args = parser.parse_args()
    args.directory.mkdir(parents=True, exist_ok=True)
    for file in args.only:
        path = args.directory / file
        if not path.exists():
            onnx.save(FILES[file](file.split(".")[0]), str(path))
            print(path)


if __name__ == "__main__":
    main()
