#!/usr/bin/env python3
"""Random ONNX graphs, run by octet and by ONNX Runtime, and compared.

  ORT_DIR=.../onnxruntime-node scripts/random_graphs.py check 0:300     # seeds 0 to 299; exit status 1 if one fails
  scripts/random_graphs.py write 17 DIR                                 # the model and the data of seed 17
  scripts/random_graphs.py operators 0:300                              # how often each operator occurs

A graph has 5 to 30 nodes of the operators that octet imports, opset 7 to 23 (ONNX Runtime's own operators among them), and
some of its sizes may be open: it is run on two sets of inputs then, of different sizes. Operands that ONNX computes with
(shapes, axes, bounds) are constants, inputs, or computed in the graph. What is ill-conditioned is avoided: each value carries
bounds, and operators that jump (Floor, Greater, TopK) get operands that are computed without rounding.

Wants numpy, onnx and node with the package onnxruntime-node. Floats may differ by 1e-4 of the range, integers and bools by
nothing, values that were quantized by a step.
"""
import argparse
import collections
import json
import math
import os
import random
import subprocess
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ONNX_TYPE = {'f': TensorProto.FLOAT, 'i64': TensorProto.INT64, 'i32': TensorProto.INT32, 'b': TensorProto.BOOL,
             'u8': TensorProto.UINT8, 'i8': TensorProto.INT8}
NUMPY_TYPE = {'f': np.float32, 'i64': np.int64, 'i32': np.int32, 'b': np.bool_, 'u8': np.uint8, 'i8': np.int8}
MOST_ELEMENTS = 6000
MICROSOFT = 'com.microsoft'


class Skip(Exception):
    """An operator finds no operands here."""


class Value:
    """A value of the graph. dims: for each dimension its sizes in the two runs, which differ where the size is open."""

    def __init__(self, name, dtype, dims, lo=-2.0, hi=2.0, exact=False, opaque=False, tol=0.0):
        self.name, self.dtype, self.dims = name, dtype, tuple(dims)
        self.lo, self.hi = float(lo), float(hi)
        self.exact = exact    # computed without rounding, so that both give the same bits
        self.opaque = opaque  # sizes that only a run tells: no operator gets it that must know them
        self.tol = tol        # what it may differ by on top; then it is a result of the model and no more

    rank = property(lambda self: len(self.dims))
    magnitude = property(lambda self: max(abs(self.lo), abs(self.hi)))

    def fixed(self, axis):
        return self.dims[axis][0] == self.dims[axis][1]

    def size(self, axis):
        if not self.fixed(axis):
            raise Skip
        return self.dims[axis][0]

    def numel(self, run=None):
        return max(math.prod(d[r] for d in self.dims) for r in ([run] if run is not None else (0, 1)))

    def static(self):
        return all(a == b for a, b in self.dims)


def pair(n):
    return (n, n)


def broadcast(a, b):
    out = []
    for i in range(max(len(a), len(b))):
        x = a[-1 - i] if i < len(a) else pair(1)
        y = b[-1 - i] if i < len(b) else pair(1)
        if x != y and x != pair(1) and y != pair(1):
            raise Skip
        out.append(y if x == pair(1) else x)
    return tuple(reversed(out))


class Graph:
    """A random graph under construction."""

    def __init__(self, seed):
        self.seed = seed
        self.r = random.Random(seed)
        self.data = np.random.default_rng(seed)
        self.opset = self.r.choice([7, 8, 9, 10, 11, 11, 12, 13, 13, 14, 15, 16, 17, 17, 18, 18, 19, 20, 21, 22, 23, 23])
        self.values, self.nodes, self.initializers, self.inputs = [], [], [], []
        self.count = 0
        self.used = set()
        symbols = self.r.choice([0, 1, 1, 2, 3])
        self.symbols = {}
        for name in self.r.sample(['N', 'H', 'W', 'T'], symbols):
            a = self.r.randint(2, 9)
            # So unlike that what is computed of them is unlike too: equal sizes count as fixed.
            self.symbols[name] = (a, self.r.choice([n for n in range(1 if name == 'N' else 3, 10) if abs(n - a) >= 3]))
        self.wanted = self.r.randint(5, 30)
        # Every size of the inputs is open in the model, as some exporters have it. What then needs a size is refused.
        self.loose = self.chance(0.1)

    # -- names, data, operands ---------------------------------------------------------------------

    def name(self, prefix='v'):
        self.count += 1
        return f'{prefix}{self.count}'

    def chance(self, p):
        return self.r.random() < p

    def shape(self, rank, spatial=None):
        dims = []
        open_ones = list(self.symbols.values())
        for d in range(rank):
            if open_ones and d != 1 and self.chance(0.4):
                dims.append(self.r.choice(open_ones))
            elif d == 0:
                dims.append(pair(self.r.choice([1, 2, 3, 4])))
            elif d == 1:
                dims.append(pair(self.r.choice([1, 2, 3, 4, 4, 6, 8])))
            else:
                dims.append(pair(self.r.randint(3, 8) if rank < 5 else self.r.randint(3, 5)))
        while max(math.prod(d[r] for d in dims) for r in (0, 1)) > MOST_ELEMENTS // 3:
            dims[self.r.randrange(len(dims))] = pair(2)
        return tuple(dims)

    def numbers(self, dtype, shape, lo, hi):
        if dtype == 'f':
            return self.data.uniform(lo, hi, shape).astype(np.float32)
        if dtype == 'b':
            return self.data.integers(0, 2, shape).astype(np.bool_)
        return self.data.integers(int(lo), int(hi) + 1, shape).astype(NUMPY_TYPE[dtype])

    def bounds(self, dtype):
        return {'f': (-2, 2), 'b': (0, 1), 'u8': (0, 255), 'i8': (-128, 127)}.get(dtype, (-3, 5))

    def input(self, dtype, dims, data=None, lo=None, hi=None):
        """An input of the model. data: for each run; random numbers if not given."""
        lo, hi = self.bounds(dtype) if lo is None else (lo, hi)
        if data is None:
            data = [self.numbers(dtype, [d[r] for d in dims], lo, hi) for r in (0, 1)]
        v = Value(self.name('x'), dtype, dims, lo, hi, exact=True)
        self.inputs.append((v, data))
        self.values.append(v)
        return v

    def constant(self, array, dtype=None, node=None):
        """A constant: an initializer, or a Constant node."""
        array = np.asarray(array)
        dtype = dtype or next(k for k, t in NUMPY_TYPE.items() if array.dtype == t)
        array = array.astype(NUMPY_TYPE[dtype])
        name = self.name('c')
        tensor = numpy_helper.from_array(array, name)
        if self.chance(0.25) if node is None else node:
            self.nodes.append(helper.make_node('Constant', [], [name], value=tensor))
            self.used.add('Constant')
        else:
            self.initializers.append(tensor)
        lo, hi = (float(array.min()), float(array.max())) if array.size else (0, 0)
        return Value(name, dtype, [pair(n) for n in array.shape], lo, hi, exact=True)

    def weights(self, shape, scale=1.0):
        return self.constant(self.data.uniform(-scale, scale, shape).astype(np.float32))

    def integers(self, runs, run_time=0.35, dtype='i64', scalar=False):
        """A list of integers as an operand, for each run. They come from a constant, an input, or from nodes."""
        runs = [np.asarray(x, NUMPY_TYPE[dtype]) for x in runs]
        if scalar:
            runs = [x.reshape(()) for x in runs]
        same = np.array_equal(runs[0], runs[1])
        if same and not self.chance(run_time):
            return self.constant(runs[0])
        dims = [pair(n) for n in runs[0].shape]
        how = self.r.randrange(4)
        if how == 0 and dtype == 'i64':  # an input of another type
            v = self.input('i32', dims, [x.astype(np.int32) for x in runs], 0, 0)
            self.values.remove(v)
            return self.quiet('Cast', [v], 'i64', dims, to=TensorProto.INT64)
        shift = self.r.randint(1, 3) if how == 1 else 0
        v = self.input(dtype, dims, [x - shift for x in runs], 0, 0)
        self.values.remove(v)
        return self.quiet('Add', [v, self.constant(np.asarray(shift, NUMPY_TYPE[dtype]))], dtype, dims) if shift else v

    def quiet(self, op, inputs, dtype, dims, domain='', **attrs):
        """A node whose result no other operator picks."""
        v = self.emit(op, inputs, dtype, dims, domain=domain, **attrs)
        self.values.remove(v)
        return v

    def sizes(self, dims):
        """The dims as an operand: a constant where they are fixed, else joined from Shapes of values that have them."""
        if all(a == b for a, b in dims) and self.chance(0.6):
            return self.constant(np.array([a for a, b in dims], np.int64))
        parts = []
        for d in dims:
            source = None
            if d[0] != d[1] or self.chance(0.3):
                having = [(v, i) for v in self.values for i, x in enumerate(v.dims) if x == d and not v.opaque]
                if having:
                    source = self.r.choice(having)
            if source is None:
                if d[0] != d[1]:
                    return self.integers([[x[r] for x in dims] for r in (0, 1)])
                parts.append(self.constant(np.array([d[0]], np.int64)))
                continue
            v, i = source
            if self.opset >= 15 and self.chance(0.4):
                parts.append(self.quiet('Shape', [v], 'i64', [pair(1)], start=i, end=i + 1))
                continue
            shape = self.quiet('Shape', [v], 'i64', [pair(v.rank)])
            if self.chance(0.5):
                parts.append(self.quiet('Gather', [shape, self.constant(np.array([i], np.int64))], 'i64', [pair(1)], axis=0))
            else:
                one = self.quiet('Gather', [shape, self.constant(np.array(i, np.int64))], 'i64', [], axis=0)
                parts.append(self.unsqueeze(one, [0]))
        return self.quiet('Concat', parts, 'i64', [pair(len(dims))], axis=0)

    def unsqueeze(self, v, axes):
        dims = list(v.dims)
        for a in axes:
            dims.insert(a, pair(1))
        if self.opset < 13:
            return self.quiet('Unsqueeze', [v], v.dtype, dims, axes=axes)
        return self.quiet('Unsqueeze', [v, self.constant(np.array(axes, np.int64))], v.dtype, dims)

    def pick(self, dtype='f', rank=None, exact=False, opaque=False, most=60.0, where=None, new=0.12):
        """An existing value, or a new input."""
        ranks = range(1, 6) if rank is None else [rank] if isinstance(rank, int) else rank
        dtypes = [dtype] if isinstance(dtype, str) else dtype
        fits = [v for v in self.values
                if v.dtype in dtypes and v.rank in ranks and (v.exact or not exact) and (opaque or not v.opaque)
                and not v.tol and v.magnitude <= most and (where is None or where(v))]
        if fits and not (self.chance(new) and len(self.inputs) < 8):
            return fits[min(len(fits) - 1, int(len(fits) * self.r.random() ** 0.5))]
        if len(self.inputs) > 12:
            raise Skip
        for _ in range(20):
            dims = self.shape(self.r.choice(list(ranks)))
            v = Value('', self.r.choice(dtypes), dims, exact=True)
            if where is None or where(v):
                return self.input(v.dtype, dims)
        raise Skip

    def within(self, v, lo, hi):
        """v brought into lo..hi."""
        if v.lo >= lo and v.hi <= hi:
            return v
        if self.chance(0.4):
            if self.opset < 11:
                return self.emit('Clip', [v], 'f', v.dims, lo, hi, v.exact, min=float(lo), max=float(hi))
            ends = [self.constant(np.float32(lo)), self.constant(np.float32(hi))]
            return self.emit('Clip', [v, *ends], 'f', v.dims, lo, hi, v.exact)
        unit = self.emit('Sigmoid', [v], 'f', v.dims, 0, 1)
        scaled = self.emit('Mul', [unit, self.constant(np.float32(hi - lo))], 'f', v.dims, 0, hi - lo)
        return self.emit('Add', [scaled, self.constant(np.float32(lo))], 'f', v.dims, lo, hi)

    # -- nodes ---------------------------------------------------------------------------------------

    def node(self, op, inputs, outputs=1, domain='', **attrs):
        names = [self.name() for _ in range(outputs)]
        attrs = {k: a for k, a in attrs.items() if a is not None}
        self.nodes.append(helper.make_node(op, [v.name if isinstance(v, Value) else v for v in inputs], names,
                                           domain=domain, **attrs))
        self.used.add(op if not domain else f'{domain}.{op}')
        return names

    def result(self, name, dtype, dims, lo=-2.0, hi=2.0, exact=None, opaque=False, tol=0.0):
        v = Value(name, dtype, dims, lo, hi, dtype != 'f' if exact is None else exact, opaque, tol)
        self.values.append(v)
        return v

    def emit(self, op, inputs, dtype, dims, lo=-2.0, hi=2.0, exact=None, opaque=None, domain='', tol=0.0, **attrs):
        if max(math.prod(d[r] for d in dims) for r in (0, 1)) > MOST_ELEMENTS:
            raise Skip
        if opaque is None:
            opaque = any(isinstance(v, Value) and v.opaque for v in inputs)
        [name] = self.node(op, inputs, domain=domain, **attrs)
        return self.result(name, dtype, dims, lo, hi, exact, opaque, tol)

    def axis(self, rank, negative=True):
        a = self.r.randrange(rank)
        return a - rank if negative and self.opset >= 11 and self.chance(0.4) else a

    # -- the model -------------------------------------------------------------------------------------

    def build(self):
        for _ in range(self.r.choice([1, 1, 2, 3])):
            self.input('f', self.shape(self.r.choice([2, 3, 4, 4, 4, 5])))
        tries = 0
        while len(self.nodes) < self.wanted and tries < 400:
            tries += 1
            op = self.r.choice(OPERATORS)
            # What an attempt that finds no operands has made is unused, and goes.
            mark = (len(self.values), len(self.nodes), len(self.initializers), len(self.inputs))
            used = set(self.used)
            values = list(self.values)
            try:
                op(self)
            except Skip:
                self.values = values
                del self.nodes[mark[1]:], self.initializers[mark[2]:], self.inputs[mark[3]:]
                self.used = used
        return self.model()

    def model(self):
        read = {i for n in self.nodes for i in all_reads(n)}
        made = [v for v in self.values if v not in [i for i, _ in self.inputs]]
        outputs = [v for v in made if v.name not in read]
        outputs += [v for v in made if v.name in read and self.chance(0.08)]
        self.outputs = outputs = outputs or made[-1:]
        infos = []
        names = {dims: name for name, dims in self.symbols.items()}
        for v, _ in self.inputs:
            dims = [a if a == b else names.get((a, b), f'd{a}_{b}') for a, b in v.dims]
            if self.loose and v.dtype == 'f' and v.rank >= 2:
                dims = [None] * len(dims)
            infos.append(helper.make_tensor_value_info(v.name, ONNX_TYPE[v.dtype], dims))
        old = self.opset < 9 and self.chance(0.5)
        if old:
            for t in self.initializers:
                infos.append(helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)))
        graph = helper.make_graph(
            self.nodes, f'seed{self.seed}', infos,
            [helper.make_tensor_value_info(v.name, ONNX_TYPE[v.dtype], None) for v in outputs], self.initializers)
        opsets = [helper.make_opsetid('', self.opset)]
        if any(n.domain == MICROSOFT for n in self.nodes):
            opsets.append(helper.make_opsetid(MICROSOFT, 1))
        return helper.make_model(graph, opset_imports=opsets, ir_version=3 if old else 8, producer_name='random_graphs')


def all_reads(node):
    yield from node.input
    for a in node.attribute:
        if a.HasField('g'):
            for n in a.g.node:
                yield from all_reads(n)
            for o in a.g.output:
                yield o.name


# -- operators, one function each --------------------------------------------------------------------

OPERATORS = []


def operator(since=7, until=99, weight=1):
    def add(fn):
        def checked(g):
            if not since <= g.opset <= until:
                raise Skip
            fn(g)
        OPERATORS.extend([checked] * weight)
        return fn
    return add


def unary(op, since=7, domain=None, jumps=False, result=None, image=None, keeps=False, **attributes):
    """domain: what x must lie in; image(lo, hi): the bounds of the result; attributes: functions of g."""
    def fn(g):
        v = g.pick(exact=jumps, opaque=True)
        if domain:
            v = g.within(v, *domain)
        lo, hi = image(v.lo, v.hi) if image else (-1, 1)
        g.emit(op, [v], result or 'f', v.dims, lo, hi, v.exact and keeps, **{k: a(g) for k, a in attributes.items()})
    operator(since)(fn)


def pick_one(*choices):
    return lambda g: g.r.choice(choices)


def wide(lo, hi):  # of functions that grow no faster than x
    return min(lo, -1.8), max(hi, 0)


unary('Abs', keeps=True, image=lambda lo, hi: (0, max(-lo, hi)))
unary('Neg', keeps=True, image=lambda lo, hi: (-hi, -lo))
unary('Ceil', jumps=True, keeps=True, image=lambda lo, hi: (math.ceil(lo), math.ceil(hi)))
unary('Floor', jumps=True, keeps=True, image=lambda lo, hi: (math.floor(lo), math.floor(hi)))
unary('Round', 11, jumps=True, keeps=True, image=lambda lo, hi: (lo - 1, hi + 1))
unary('Sign', 9, jumps=True, keeps=True)
unary('Exp', domain=(-3, 2), image=lambda lo, hi: (0, 8))
unary('Log', domain=(0.1, 4))
unary('Sqrt', domain=(0.01, 9), image=lambda lo, hi: (0, 3))
unary('Reciprocal', domain=(0.3, 4), image=lambda lo, hi: (0, 4))
unary('Sin')
unary('Cos')
unary('Tan', domain=(-1, 1), image=lambda lo, hi: (-1.6, 1.6))
unary('Asin', domain=(-0.9, 0.9))
unary('Acos', domain=(-0.9, 0.9), image=lambda lo, hi: (0, 3.2))
unary('Atan', image=lambda lo, hi: (-1.6, 1.6))
unary('Sinh', 9, domain=(-2, 2), image=lambda lo, hi: (-4, 4))
unary('Cosh', 9, domain=(-2, 2), image=lambda lo, hi: (0, 4))
unary('Asinh', 9, domain=(-8, 8), image=lambda lo, hi: (-3, 3))
unary('Acosh', 9, domain=(1.2, 8), image=lambda lo, hi: (0, 3))
unary('Atanh', 9, domain=(-0.9, 0.9), image=lambda lo, hi: (-1.5, 1.5))
unary('Erf', 9)
unary('Relu', keeps=True, image=lambda lo, hi: (0, max(hi, 0)))
unary('LeakyRelu', image=wide, alpha=pick_one(None, 0.1, 0.3, 1.5))
unary('Elu', image=wide, alpha=pick_one(None, 0.5, 1.5))
unary('Celu', 12, image=wide, alpha=pick_one(None, 0.5, 1.5))
unary('Selu', image=lambda lo, hi: (-2, 1.2 * max(hi, 0)), alpha=pick_one(None, 1.5), gamma=pick_one(None, 1.1))
unary('ThresholdedRelu', 10, jumps=True, keeps=True, image=lambda lo, hi: (0, max(hi, 0)), alpha=pick_one(None, 0.3))
unary('HardSigmoid', image=lambda lo, hi: (0, 1), alpha=pick_one(None, 0.4), beta=pick_one(None, 0.3))
unary('HardSwish', 14, image=wide)
unary('Mish', 18, image=wide)
unary('Gelu', 20, image=wide, approximate=pick_one(None, 'none', 'tanh'))
unary('Softplus', image=lambda lo, hi: (0, max(hi, 0) + 1))
unary('Softsign')
unary('Sigmoid', image=lambda lo, hi: (0, 1))
unary('Tanh')
unary('Shrink', 9, jumps=True, image=lambda lo, hi: (lo - 1, hi + 1), bias=pick_one(None, 0.2), lambd=pick_one(None, 0.8))
unary('Identity', keeps=True, image=lambda lo, hi: (lo, hi))
unary('IsNaN', 9, result='b', image=lambda lo, hi: (0, 1))
unary('IsInf', 10, result='b', image=lambda lo, hi: (0, 1), detect_positive=pick_one(None, 1), detect_negative=pick_one(None, 0))


@operator()
def not_(g):
    v = g.pick('b', opaque=True)
    g.emit('Not', [v], 'b', v.dims, 0, 1)


@operator()
def integer_unary(g):
    v = g.pick(['i32', 'i64'], opaque=True)
    op = g.r.choice(['Abs', 'Neg', 'Sign', 'Identity'])
    if op == 'Sign' and g.opset < 9:
        raise Skip
    g.emit(op, [v], v.dtype, v.dims, -v.magnitude, v.magnitude)


@operator()
def dropout(g):
    v = g.pick(opaque=True)
    if g.opset < 12:
        g.emit('Dropout', [v], 'f', v.dims, v.lo, v.hi, v.exact, ratio=0.3)
    else:
        ratio = [g.constant(np.float32(0.4))] if g.chance(0.5) else []
        g.emit('Dropout', [v, *ratio], 'f', v.dims, v.lo, v.hi, v.exact)


@operator(weight=2)
def clip(g):
    v = g.pick(opaque=True)
    lo, hi = g.r.uniform(-1, 0), g.r.choice([g.r.uniform(0.2, 1.5), 6.0])
    low, high = g.r.choice([(1, 1), (1, 0), (0, 1)])
    bounds = (lo if low else v.lo, hi if high else v.hi)
    if g.opset < 11:
        g.emit('Clip', [v], 'f', v.dims, *bounds, v.exact, min=lo if low else None, max=hi if high else None)
        return
    ends = []
    for has, end in ((low, lo), (high, hi)):
        if not has:
            ends.append('')
        elif g.chance(0.2):
            ends.append(g.input('f', [], [np.float32(end)] * 2, end, end))
        else:
            ends.append(g.constant(np.float32(end)))
    while ends and ends[-1] == '':
        ends.pop()
    g.emit('Clip', [v, *ends], 'f', v.dims, *bounds, v.exact)


@operator(since=12)
def clip_integers(g):
    v = g.pick(['i32', 'i64'], opaque=True)
    ends = [g.constant(np.array(e, NUMPY_TYPE[v.dtype])) for e in (-1, 2)]
    g.emit('Clip', [v, *ends], v.dtype, v.dims, -1, 2)


@operator()
def prelu(g):
    v = g.pick(where=lambda v: v.rank >= 2)
    if g.opset < 9 or g.chance(0.6):
        try:
            shape = [v.size(1)] + [1] * (v.rank - 2)
        except Skip:
            shape = [1]
    else:
        shape = [1]
    slope = g.constant(g.data.uniform(-0.5, 0.9, shape).astype(np.float32))
    g.emit('PRelu', [v, slope], 'f', v.dims, -v.magnitude, v.magnitude)


def partner(g, v, dtype=None, opaque=True):
    """An operand that broadcasts against v."""
    dtype = dtype or v.dtype
    if g.chance(0.45):
        def fits(o):
            try:
                broadcast(v.dims, o.dims)
                return o.name != ''
            except Skip:
                return False
        fitting = [o for o in g.values if o.dtype == dtype and fits(o) and not o.tol and o.magnitude < 30
                   and (opaque or not o.opaque)]
        if fitting:
            return g.r.choice(fitting)
    dims = list(v.dims)[g.r.randint(0, v.rank) if g.chance(0.6) else 0:]
    dims = [d if d[0] == d[1] and g.chance(0.6) else pair(1) for d in dims]
    return g.constant(g.numbers(dtype, [a for a, b in dims], *({'f': (-1.5, 1.5), 'b': (0, 1)}.get(dtype, (-3, 4)))))


@operator(weight=6)
def binary(g):
    v = g.pick(['f', 'f', 'f', 'i32', 'i64'], opaque=True, most=25)
    w = partner(g, v)
    op = g.r.choice(['Add', 'Sub', 'Mul'])
    if g.chance(0.5):
        v, w = w, v
    m = v.magnitude * w.magnitude if op == 'Mul' else v.magnitude + w.magnitude
    if op in ('Add', 'Sub', 'Mul') and v.dtype != 'f' and m > 1e6:
        raise Skip
    g.emit(op, [v, w], v.dtype, broadcast(v.dims, w.dims), -m, m, v.dtype != 'f')


@operator(weight=2)
def divide(g):
    v = g.pick(['f', 'f', 'i32', 'i64'], opaque=True)
    if v.dtype == 'f':
        w = g.within(partner(g, v), 0.4, 3)
        g.emit('Div', [v, w], 'f', broadcast(v.dims, w.dims), -v.magnitude / 0.4, v.magnitude / 0.4)
        return
    w = g.constant(np.array(g.r.choice([1, 2, 3, -2]), NUMPY_TYPE[v.dtype]))
    g.emit('Div', [v, w], v.dtype, v.dims, -v.magnitude, v.magnitude)


@operator(weight=2)
def power(g):
    v = g.pick(opaque=True, most=5)
    kind = g.r.randrange(3)
    if kind == 0:
        y = g.constant(np.float32(g.r.choice([2, 3])))
        bound = v.magnitude ** 3
    elif kind == 1:
        v = g.within(v, 0.2, 3)
        y = g.within(partner(g, v), -1.5, 2)
        bound = 12
    elif g.opset >= 12:
        y = g.constant(np.array(g.r.choice([2, 3]), g.r.choice([np.int32, np.int64])))
        bound = v.magnitude ** 3
    else:
        raise Skip
    g.emit('Pow', [v, y], 'f', broadcast(v.dims, y.dims), -bound, bound)


@operator(weight=2)
def variadic(g):
    op = g.r.choice(['Max', 'Min', 'Sum', 'Mean'])
    integers = op in ('Max', 'Min') and g.opset >= 12 and g.chance(0.3)
    v = g.pick(g.r.choice(['i32', 'i64']) if integers else 'f', opaque=True, most=20)
    xs = [v] + [partner(g, v) for _ in range(g.r.choice([0, 1, 1, 2]))]
    dims = v.dims
    for x in xs[1:]:
        if g.opset < 8 and x.dims != v.dims:
            raise Skip
        dims = broadcast(dims, x.dims)
    m = sum(x.magnitude for x in xs)
    g.emit(op, xs, v.dtype, dims, -m, m, v.dtype != 'f' or (op in ('Max', 'Min') and all(x.exact for x in xs)))


@operator()
def modulo(g):
    if g.opset < 10:
        raise Skip
    if g.chance(0.5):
        v = g.pick(['i32', 'i64'], opaque=True)
        w = g.constant(np.array(g.r.choice([2, 3, -3]), NUMPY_TYPE[v.dtype]))
        fmod = g.r.choice([None, 0, 1])
        g.emit('Mod', [v, w], v.dtype, v.dims, -3, 3, fmod=fmod)
    else:
        v = g.pick(exact=True, opaque=True)
        g.emit('Mod', [v, g.constant(np.float32(0.75))], 'f', v.dims, -1, 1, True, fmod=1)


@operator(weight=2)
def logical(g):
    v = g.pick('b', opaque=True)
    w = partner(g, v)
    g.emit(g.r.choice(['And', 'Or', 'Xor']), [v, w], 'b', broadcast(v.dims, w.dims), 0, 1)


@operator(weight=3)
def compare(g):
    op = g.r.choice(['Equal', 'Greater', 'Less', 'GreaterOrEqual', 'LessOrEqual'])
    if op.endswith('OrEqual') and g.opset < 12:
        raise Skip
    types = ['i32', 'i64']
    if op != 'Equal' or g.opset >= 11:
        types += ['f', 'f']
    if op != 'Equal' and g.opset < 9:
        types = ['f']
    v = g.pick(types, exact=True, opaque=True)
    w = partner(g, v)
    if not w.exact:
        raise Skip
    g.emit(op, [v, w], 'b', broadcast(v.dims, w.dims), 0, 1)


@operator(since=9, weight=2)
def where(g):
    c = g.pick('b', opaque=True, new=0.3)
    dims = c.dims
    types = ['f', 'f', 'i64'] + (['i32'] if g.opset >= 9 else [])
    dtype = g.r.choice(types)
    a = partner(g, c, dtype)
    dims = broadcast(dims, a.dims)
    b = partner(g, Value('', dtype, dims), dtype)
    g.emit('Where', [c, a, b], dtype, broadcast(dims, b.dims), min(a.lo, b.lo), max(a.hi, b.hi), a.exact and b.exact)


@operator(weight=2)
def cast(g):
    v = g.pick(['f', 'i32', 'i64', 'b', 'u8'], exact=True, opaque=True)
    to = g.r.choice(['f', 'i32', 'i64', 'b'])
    like = g.opset >= 15 and g.chance(0.3)
    lo, hi = (0, 1) if to == 'b' else (v.lo, v.hi)
    if like:
        other = g.constant(np.zeros([1], NUMPY_TYPE[to]))
        g.emit('CastLike', [v, other], to, v.dims, lo, hi, True)
    else:
        g.emit('Cast', [v], to, v.dims, lo, hi, True, to=ONNX_TYPE[to])


# -- reductions ----------------------------------------------------------------------------------------

REDUCTIONS = ['ReduceSum', 'ReduceMean', 'ReduceMax', 'ReduceMin', 'ReduceProd', 'ReduceL1', 'ReduceL2', 'ReduceLogSum',
              'ReduceLogSumExp', 'ReduceSumSquare']


@operator(weight=6)
def reduce(g):
    op = g.r.choice(REDUCTIONS)
    integers = op in ('ReduceSum', 'ReduceMax', 'ReduceMin') and g.chance(0.3)
    v = g.pick(g.r.choice(['i32', 'i64']) if integers else 'f', most=10)
    if op == 'ReduceProd':
        v = g.within(v, 0.6, 1.2)
    if op == 'ReduceLogSum':
        v = g.within(v, 0.2, 4)
    axes = sorted(g.r.sample(range(v.rank), g.r.randint(1, v.rank)))
    if g.opset >= 11:
        axes = [a - v.rank if g.chance(0.3) else a for a in axes]
    keep = g.r.choice([None, 1, 0])
    everything = g.chance(0.15)
    gone = set(range(v.rank)) if everything else {a % v.rank for a in axes}
    dims = [pair(1) if i in gone else d for i, d in enumerate(v.dims)]
    count = max(math.prod(v.dims[i][r] for i in gone) for r in (0, 1))
    lo, hi = {'ReduceMean': (v.lo, v.hi), 'ReduceMax': (v.lo, v.hi), 'ReduceMin': (v.lo, v.hi), 'ReduceLogSum': (-2, 12),
              'ReduceLogSumExp': (-12, 20), 'ReduceProd': (0, 1.2 ** count if count < 40 else 1e9)}.get(
                  op, (-count * v.magnitude ** 2, count * v.magnitude ** 2 + count))
    exact = v.dtype != 'f' or (op in ('ReduceMax', 'ReduceMin') and v.exact)
    if keep == 0:
        dims = [d for i, d in enumerate(dims) if i not in gone]
    as_operand = g.opset >= 18 or (op == 'ReduceSum' and g.opset >= 13)
    if not as_operand:
        g.emit(op, [v], v.dtype, dims, lo, hi, exact, axes=None if everything else axes, keepdims=keep)
        return
    operands = [v]
    run_time = False
    if not everything:
        before = len(g.inputs)
        operands.append(g.integers([axes, axes], 0.25))
        run_time = len(g.inputs) > before
    if everything and g.chance(0.3):
        g.emit(op, [v], v.dtype, [pair(1)] * v.rank if keep != 0 else [], lo, hi, exact, keepdims=keep, noop_with_empty_axes=0)
        return
    g.emit(op, operands, v.dtype, dims, lo, hi, exact, opaque=run_time, keepdims=keep)


@operator(weight=2)
def arg_reduce(g):
    v = g.pick(['f', 'f', 'i32'], exact=True)
    a = g.axis(v.rank)
    keep = g.r.choice([None, 0, 1])
    dims = [pair(1) if i == a % v.rank else d for i, d in enumerate(v.dims)]
    if keep == 0:
        del dims[a % v.rank]
    last = g.r.choice([None, 1]) if g.opset >= 12 else None
    size = max(v.dims[a % v.rank])
    g.emit(g.r.choice(['ArgMax', 'ArgMin']), [v], 'i64', dims, 0, size, axis=a, keepdims=keep, select_last_index=last)


@operator(weight=2)
def softmax(g):
    op = g.r.choice(['Softmax', 'LogSoftmax', 'Hardmax'])
    v = g.pick(exact=op == 'Hardmax', most=20)
    a = g.r.choice([None, g.axis(v.rank)])
    if a is None and g.opset < 13 and v.rank < 2:
        raise Skip
    g.emit(op, [v], 'f', v.dims, *((-45, 0) if op == 'LogSoftmax' else (0, 1)), op == 'Hardmax', axis=a)


@operator(since=11)
def cumsum(g):
    v = g.pick(['f', 'f', 'i32', 'i64'])
    a = g.axis(v.rank)
    m = v.magnitude * max(v.dims[a % v.rank])
    axis = g.integers([a, a], 0.25, scalar=True)
    g.emit('CumSum', [v, axis], v.dtype, v.dims, -m, m, v.dtype != 'f', exclusive=g.r.choice([None, 1]), reverse=g.r.choice([None, 1]))


@operator()
def lp_normalization(g):
    v = g.within(g.pick(), 0.3, 2)
    g.emit('LpNormalization', [v], 'f', v.dims, 0, 1, axis=g.r.choice([None, g.axis(v.rank)]), p=g.r.choice([None, 1, 2]))


@operator(weight=2)
def top_k(g):
    v = g.pick('f', exact=True)
    a = g.axis(v.rank)
    k = g.r.randint(1, min(v.dims[a % v.rank]))
    dims = [pair(k) if i == a % v.rank else d for i, d in enumerate(v.dims)]
    if g.opset < 10:
        names = g.node('TopK', [v], 2, axis=a, k=k)
        opaque = False
    else:
        before = len(g.inputs)
        operand = g.integers([[k], [k]], 0.25)
        opaque = len(g.inputs) > before
        largest = g.r.choice([None, 0]) if g.opset >= 11 else None
        names = g.node('TopK', [v, operand], 2, axis=a, largest=largest)
    g.result(names[0], 'f', dims, v.lo, v.hi, True, opaque)
    g.result(names[1], 'i64', dims, 0, max(v.dims[a % v.rank]), opaque=opaque)


# -- movement ------------------------------------------------------------------------------------------

ANY = ['f', 'f', 'f', 'i32', 'i64', 'b']


@operator(weight=4)
def reshape(g):
    v = g.pick(ANY)
    kind = g.r.randrange(4)
    run_time = False
    if kind == 0:  # neighbouring dimensions joined
        i = g.r.randrange(v.rank)
        j = g.r.randint(i + 1, v.rank)
        joined = tuple(math.prod(d[r] for d in v.dims[i:j]) for r in (0, 1))
        dims = [*v.dims[:i], joined, *v.dims[j:]]
        wanted = [0] * i + [-1] + [d[0] if d[0] == d[1] else None for d in v.dims[j:]]
        if None in wanted:
            operand = g.sizes(dims)
        elif j == v.rank or g.chance(0.7):
            operand = g.constant(np.array(wanted, np.int64))
        else:
            operand = g.sizes(dims)
    elif kind == 1:  # a dimension split
        splits = [(i, f) for i, d in enumerate(v.dims) for f in (2, 3, 4) if d[0] % f == 0 and d[1] % f == 0]
        if not splits:
            raise Skip
        i, f = g.r.choice(splits)
        rest = tuple(n // f for n in v.dims[i])
        parts = [pair(f), rest] if g.chance(0.5) else [rest, pair(f)]
        dims = [*v.dims[:i], *parts, *v.dims[i + 1:]]
        wanted = [0] * i + [p[0] if p == pair(f) else -1 for p in parts]
        if parts[0] == parts[1]:
            wanted = [0] * i + [f, -1]
        tail = [d[0] if d[0] == d[1] else None for d in v.dims[i + 1:]]
        operand = g.sizes(dims) if None in tail else g.constant(np.array(wanted + tail, np.int64))
    elif kind == 2:  # the sizes of another order, computed
        dims = list(v.dims)
        g.r.shuffle(dims)
        operand = g.sizes(dims)
    else:  # sizes that only the run gives
        flat = tuple(v.numel(r) for r in (0, 1))
        dims = [flat] if g.chance(0.5) else [flat, pair(1)]
        before = len(g.inputs)
        operand = g.integers([[d[r] for d in dims] for r in (0, 1)], 1.0)
        run_time = len(g.inputs) > before
    g.emit('Reshape', [v, operand], v.dtype, dims, v.lo, v.hi, v.exact, opaque=run_time)


@operator(weight=2)
def flatten(g):
    v = g.pick()
    a = g.r.choice([None, g.r.randint(0, v.rank)])
    at = 1 if a is None else a
    if a is not None and g.opset >= 11 and g.chance(0.3) and a < v.rank:
        a -= v.rank
    dims = [tuple(math.prod(d[r] for d in part) for r in (0, 1)) for part in (v.dims[:at], v.dims[at:])]
    g.emit('Flatten', [v], 'f', dims, v.lo, v.hi, v.exact, axis=a)


@operator(weight=3)
def transpose(g):
    v = g.pick(ANY, opaque=True)
    perm = list(range(v.rank))
    g.r.shuffle(perm)
    if g.chance(0.2):
        perm = list(reversed(range(v.rank)))
        g.emit('Transpose', [v], v.dtype, [v.dims[i] for i in perm], v.lo, v.hi, v.exact)
    else:
        g.emit('Transpose', [v], v.dtype, [v.dims[i] for i in perm], v.lo, v.hi, v.exact, perm=perm)


@operator(weight=2)
def squeeze(g):
    v = g.pick(ANY, where=lambda v: pair(1) in v.dims)
    ones = [i for i, d in enumerate(v.dims) if d == pair(1)]
    no_axes = g.chance(0.25) and not g.loose and all(d == pair(1) or 1 not in d for d in v.dims)
    axes = ones if no_axes else sorted(g.r.sample(ones, g.r.randint(1, len(ones))))
    dims = [d for i, d in enumerate(v.dims) if i not in axes]
    if g.opset >= 11:
        axes = [a - v.rank if g.chance(0.3) else a for a in axes]
    if no_axes:
        g.emit('Squeeze', [v], v.dtype, dims, v.lo, v.hi, v.exact)
    elif g.opset < 13:
        g.emit('Squeeze', [v], v.dtype, dims, v.lo, v.hi, v.exact, axes=axes)
    else:
        before = len(g.inputs)
        operand = g.integers([axes, axes], 0.25)
        g.emit('Squeeze', [v, operand], v.dtype, dims, v.lo, v.hi, v.exact, opaque=len(g.inputs) > before)


@operator(weight=2)
def unsqueeze(g):
    v = g.pick(ANY, rank=range(1, 5))
    rank = v.rank + g.r.choice([1, 1, 2])
    axes = sorted(g.r.sample(range(rank), rank - v.rank))
    rest = iter(v.dims)
    dims = [pair(1) if i in axes else next(rest) for i in range(rank)]
    if g.opset >= 11:
        axes = [a - rank if g.chance(0.3) else a for a in axes]
    if g.chance(0.3):
        g.r.shuffle(axes)
    if g.opset < 13:
        g.emit('Unsqueeze', [v], v.dtype, dims, v.lo, v.hi, v.exact, axes=axes)
    else:
        before = len(g.inputs)
        operand = g.integers([axes, axes], 0.25)
        g.emit('Unsqueeze', [v, operand], v.dtype, dims, v.lo, v.hi, v.exact, opaque=len(g.inputs) > before)


@operator(since=8, weight=2)
def expand(g):
    v = g.pick(ANY, rank=range(1, 5))
    target = list(v.dims)
    for i, d in enumerate(target):
        if d == pair(1):
            target[i] = g.r.choice([pair(1), pair(3), *g.symbols.values()])
    if g.chance(0.4):
        target.insert(0, pair(2))
    asked = [pair(1) if g.chance(0.2) and d in v.dims else d for d in target]
    asked = [pair(1) if asked[i] == pair(1) and i >= len(target) - v.rank and v.dims[i - len(target)] == target[i] else t
             for i, t in enumerate(target)]
    before = len(g.inputs)
    operand = g.sizes(asked)
    g.emit('Expand', [v, operand], v.dtype, target, v.lo, v.hi, v.exact, opaque=len(g.inputs) > before)


@operator(weight=3)
def concat(g):
    v = g.pick(['f', 'f', 'f', 'i64'])
    a = g.axis(v.rank)
    at = a % v.rank
    others = [o for o in g.values if o.dtype == v.dtype and o.rank == v.rank and not o.tol and not o.opaque
              and all(i == at or x == y for i, (x, y) in enumerate(zip(o.dims, v.dims)))]
    xs = [v] + [g.r.choice(others) for _ in range(g.r.randint(0, 2))]
    if g.chance(0.4) and all(d[0] == d[1] for i, d in enumerate(v.dims) if i != at):
        shape = [2 if i == at else d[0] for i, d in enumerate(v.dims)]
        xs.append(g.constant(g.numbers(v.dtype, shape, -1, 1)))
    dims = list(v.dims)
    dims[at] = tuple(sum(x.dims[at][r] for x in xs) for r in (0, 1))
    g.emit('Concat', xs, v.dtype, dims, min(x.lo for x in xs), max(x.hi for x in xs), all(x.exact for x in xs), axis=a)


@operator(weight=3)
def split(g):
    v = g.pick(['f', 'f', 'i64'], where=lambda v: any(min(d) >= 2 for d in v.dims))
    a = g.r.choice([i for i, d in enumerate(v.dims) if min(d) >= 2])
    size = v.dims[a]
    kind = g.r.randrange(3)
    count = g.r.randint(2, min(3, min(size)))
    attrs, operands, opaque = {}, [v], False
    if kind == 0 and (g.opset >= 18 or size[0] % count == 0 and size[1] % count == 0):  # equal parts
        part = [-(-n // count) for n in size]
        parts = [tuple(max(0, min(part[r], size[r] - i * part[r])) for r in (0, 1)) for i in range(count)]
        if any(n == 0 for p in parts for n in p):
            raise Skip
        if g.opset >= 18:
            attrs['num_outputs'] = count
    elif size[0] == size[1]:
        cut = sorted(g.r.sample(range(1, size[0]), count - 1))
        sizes = [b - a for a, b in zip([0] + cut, cut + [size[0]])]
        parts = [pair(n) for n in sizes]
        if g.opset < 13:
            attrs['split'] = sizes
        else:
            before = len(g.inputs)
            operands.append(g.integers([sizes, sizes], 0.25))
            opaque = len(g.inputs) > before
    else:  # sizes computed when it runs
        if g.opset < 13:
            raise Skip
        parts = [pair(1), (size[0] - 1, size[1] - 1)]
        operands.append(g.integers([[1, n - 1] for n in size], 1.0))
        opaque = True
    axis = a - v.rank if g.opset >= 11 and g.chance(0.3) else a
    names = g.node('Split', operands, len(parts), axis=axis, **attrs)
    for name, p in zip(names, parts):
        g.result(name, v.dtype, [p if i == a else d for i, d in enumerate(v.dims)], v.lo, v.hi, v.exact, opaque)


@operator(weight=3)
def pad(g):
    v = g.pick()
    mode = g.r.choice(['constant', 'constant', 'reflect', 'edge'] + (['wrap'] if g.opset >= 19 else []))
    lowest = [0 if mode != 'constant' else -1 if min(d) >= 4 else 0 for d in v.dims]
    highest = [min(min(d) - 1, 2) if mode in ('reflect', 'wrap') else 2 for d in v.dims]
    some = g.chance(0.6)
    pads = [0 if some and g.chance(0.5) else g.r.randint(l, max(h, l)) for l, h in zip(lowest * 2, highest * 2)]
    value = g.r.choice([0.0, 0.5, -1.5])
    dims = [tuple(n + pads[i] + pads[i + v.rank] for n in d) for i, d in enumerate(v.dims)]
    if any(n < 1 for d in dims for n in d):
        raise Skip
    lo, hi = min(v.lo, value), max(v.hi, value)
    if g.opset < 11:
        g.emit('Pad', [v], 'f', dims, lo, hi, v.exact, pads=pads, mode=mode, value=value if mode == 'constant' else None)
        return
    operands = [v]
    before = len(g.inputs)
    axes = None
    if g.opset >= 18 and g.chance(0.3):
        axes = [i for i in range(v.rank) if pads[i] or pads[i + v.rank]]
        if not axes:
            raise Skip
        pads = [pads[i] for i in axes] + [pads[i + v.rank] for i in axes]
    operands.append(g.integers([pads, pads], 0.25 if axes is None else 0))
    if mode == 'constant' and g.chance(0.6):
        operands.append(g.constant(np.float32(value)))
    elif axes:
        operands.append('')
    if axes:
        operands.append(g.constant(np.array(axes, np.int64)))
    g.emit('Pad', operands, 'f', dims, min(v.lo, value, 0), max(v.hi, value, 0), v.exact, opaque=len(g.inputs) > before,
           mode=mode if mode != 'constant' or g.chance(0.5) else None)


@operator(weight=2)
def tile(g):
    v = g.pick(['f', 'f', 'i64'])
    repeats = [g.r.choice([1, 1, 2, 3]) for _ in v.dims]
    before = len(g.inputs)
    operand = g.integers([repeats, repeats], 0.25)
    g.emit('Tile', [v, operand], v.dtype, [tuple(n * k for n in d) for d, k in zip(v.dims, repeats)], v.lo, v.hi, v.exact,
           opaque=len(g.inputs) > before)


@operator(since=14)
def trilu(g):
    v = g.pick(['f', 'f', 'i64'], where=lambda v: v.rank >= 2)
    k = [g.integers([g.r.randint(-2, 2)] * 2, 0.2, scalar=True)] if g.chance(0.6) else []
    g.emit('Trilu', [v, *k], v.dtype, v.dims, min(v.lo, 0), max(v.hi, 0), v.exact, upper=g.r.choice([None, 0, 1]))


@operator(weight=2)
def depth_to_space(g):
    v = g.pick(rank=4)
    if g.chance(0.5):
        b = 2
        if v.size(1) % 4:
            raise Skip
        dims = [v.dims[0], pair(v.size(1) // 4), *(tuple(n * 2 for n in d) for d in v.dims[2:])]
        mode = g.r.choice([None, 'DCR', 'CRD']) if g.opset >= 11 else None
        g.emit('DepthToSpace', [v], 'f', dims, v.lo, v.hi, v.exact, blocksize=b, mode=mode)
    else:
        b = g.r.choice([2, 3])
        if any(n % b for d in v.dims[2:] for n in d):
            raise Skip
        dims = [v.dims[0], pair(v.size(1) * b * b), *(tuple(n // b for n in d) for d in v.dims[2:])]
        g.emit('SpaceToDepth', [v], 'f', dims, v.lo, v.hi, v.exact, blocksize=b)


@operator(weight=4)
def slice_(g):
    v = g.pick(ANY)
    axes = sorted(g.r.sample(range(v.rank), g.r.randint(1, min(2, v.rank))))
    starts, ends, steps, dims = [], [], [], list(v.dims)
    for a in axes:
        least = min(v.dims[a])
        step = g.r.choice([1, 1, 2, -1, -2]) if g.opset >= 10 else 1
        if step > 0:
            start = g.r.choice([0, 0, g.r.randrange(least), -g.r.randint(1, least)])
            end = g.r.choice([2 ** 31 - 1, 2 ** 63 - 1, least, -1])
        else:
            start = g.r.choice([-1, 2 ** 31 - 1, least - 1])
            end = g.r.choice([-2 ** 31, -2 ** 63 + 1, 0])
        sizes = tuple(len(range(n)[slice(start, end, step)]) for n in v.dims[a])
        if 0 in sizes:
            raise Skip
        dims[a] = sizes
        starts.append(start)
        ends.append(end)
        steps.append(step)
    names = [a - v.rank if g.opset >= 11 and g.chance(0.3) else a for a in axes]
    if g.opset < 10:
        g.emit('Slice', [v], v.dtype, dims, v.lo, v.hi, v.exact, starts=starts, ends=ends, axes=names)
        return
    operands = [v]
    before = len(g.inputs)
    operands += [g.integers([starts] * 2, 0.2), g.integers([ends] * 2, 0.2)]
    if axes != list(range(len(axes))) or g.chance(0.6) or any(s != 1 for s in steps):
        operands.append(g.integers([names] * 2, 0.1))
        if any(s != 1 for s in steps) or g.chance(0.5):
            operands.append(g.integers([steps] * 2, 0.1))
    g.emit('Slice', operands, v.dtype, dims, v.lo, v.hi, v.exact, opaque=len(g.inputs) > before)


@operator(weight=3)
def gather(g):
    v = g.pick(ANY)
    a = g.axis(v.rank)
    at = a % v.rank
    least = min(v.dims[at])
    low = -least if g.opset >= 11 else 0
    dtype = g.r.choice(['i64', 'i32'])
    shape = g.r.choice([[], [1], [3], [2, 2]])
    index = g.data.integers(low, least, shape).astype(NUMPY_TYPE[dtype])
    if g.chance(0.3):
        index = g.input(dtype, [pair(n) for n in shape], [index, index], low, least)
        g.values.remove(index)
    else:
        index = g.constant(index)
    dims = [*v.dims[:at], *index.dims, *v.dims[at + 1:]]
    g.emit('Gather', [v, index], v.dtype, dims, v.lo, v.hi, v.exact, axis=a)


@operator(since=11)
def gather_elements(g):
    v = g.pick(['f', 'f', 'i64'], where=lambda v: v.static() or v.rank >= 2)
    a = g.axis(v.rank)
    at = a % v.rank
    dims = [pair(2) if i == at else pair(g.r.randint(1, min(d))) for i, d in enumerate(v.dims)]
    least = min(v.dims[at])
    index = g.constant(g.data.integers(-least, least, [d[0] for d in dims]).astype(np.int64))
    g.emit('GatherElements', [v, index], v.dtype, dims, v.lo, v.hi, v.exact, axis=a)


@operator(since=11)
def gather_nd(g):
    v = g.pick(['f', 'f', 'i64'])
    batch = 1 if g.opset >= 12 and v.rank >= 2 and v.fixed(0) and g.chance(0.4) else 0
    depth = g.r.randint(1, v.rank - batch) if v.rank > batch else 1
    shape = ([v.dims[0][0]] if batch else []) + [g.r.randint(1, 3)]
    columns = [g.data.integers(-min(v.dims[batch + k]), min(v.dims[batch + k]), shape) for k in range(depth)]
    index = g.constant(np.stack(columns, -1).astype(np.int64))
    dims = [pair(n) for n in shape] + list(v.dims[batch + depth:])
    g.emit('GatherND', [v, index], v.dtype, dims, v.lo, v.hi, v.exact, batch_dims=batch or None)


@operator(since=9, weight=2)
def scatter_elements(g):
    v = g.pick('f')
    a = g.axis(v.rank)
    at = a % v.rank
    least = min(v.dims[at])
    count = g.r.randint(1, least)
    shape = [count if i == at else g.r.randint(1, min(d)) for i, d in enumerate(v.dims)]
    order = np.stack([g.data.permutation(least)[:count] for _ in range(math.prod(shape) // count)])
    index = np.moveaxis(order.reshape([n for i, n in enumerate(shape) if i != at] + [count]), -1, at)
    updates = g.weights(shape)
    reduction = None
    if g.opset >= 16:
        reduction = g.r.choice([None, 'none', 'add', 'mul'] + (['max', 'min'] if g.opset >= 18 else []))
    operands = [v, g.constant(np.ascontiguousarray(index).astype(np.int64)), updates]
    m = v.magnitude + 1
    g.emit('Scatter' if g.opset < 11 else 'ScatterElements', operands, 'f', v.dims, -m, m, v.exact and reduction in (None, 'none'),
           axis=a, reduction=reduction)


@operator(since=11)
def scatter_nd(g):
    v = g.pick('f')
    depth = g.r.randint(1, v.rank)
    if not all(v.fixed(i) for i in range(depth, v.rank)):
        raise Skip
    total = math.prod(min(d) for d in v.dims[:depth])
    count = g.r.randint(1, min(3, total))
    flat = g.data.permutation(total)[:count]
    index = np.stack(np.unravel_index(flat, [min(d) for d in v.dims[:depth]]), -1).astype(np.int64)
    updates = g.weights([count] + [d[0] for d in v.dims[depth:]])
    reduction = g.r.choice([None, 'add', 'mul']) if g.opset >= 16 else None
    m = v.magnitude + 1
    g.emit('ScatterND', [v, g.constant(index), updates], 'f', v.dims, -m, m, v.exact and not reduction, reduction=reduction)


@operator(since=9)
def non_zero(g):
    v = g.pick(['b', 'i64', 'f'], exact=True)
    counted = g.emit('NonZero', [v], 'i64', [pair(v.rank), pair(1)], 0, 8, opaque=True)
    if g.chance(0.5):
        g.emit('Shape', [counted], 'i64', [pair(2)], 0, 500, opaque=True)


@operator(since=9)
def compress(g):
    v = g.pick(['f', 'i64'])
    a = g.r.randrange(v.rank)
    least = min(v.dims[a])
    mask = g.data.integers(0, 2, [least]).astype(np.bool_)
    mask[g.r.randrange(least)] = True
    dims = [pair(int(mask.sum())) if i == a else d for i, d in enumerate(v.dims)]
    g.emit('Compress', [v, g.constant(mask)], v.dtype, dims, v.lo, v.hi, v.exact, axis=a)


@operator(since=9)
def one_hot(g):
    v = g.pick(['i64'], rank=range(1, 4), where=lambda v: v.lo >= -3 and v.hi <= 8)
    depth = g.r.randint(8, 10)
    a = g.r.choice([None, 0, -1, v.rank])
    at = v.rank if a is None else a % (v.rank + 1)
    dims = list(v.dims)
    dims.insert(at, pair(depth))
    values = g.constant(np.array([0.0, 1.0] if g.chance(0.5) else [-0.5, 2.0], np.float32))
    depth = g.constant(np.array([depth] if g.opset < 11 or g.chance(0.5) else depth, np.int64))
    g.emit('OneHot', [v, depth, values], 'f', dims, -1, 2, True, axis=a)


@operator(weight=2)
def shape_of(g):
    v = g.pick(ANY, opaque=True)
    if g.chance(0.3):
        g.emit('Size', [v], 'i64', [], 0, 5000)
        return
    start = end = None
    names = range(v.rank)
    if g.opset >= 15 and g.chance(0.5):
        start, end = g.r.choice([(0, 1), (1, None), (-1, None), (-2, -1), (0, 9)])
        names = range(v.rank)[start:end]
    if len(names) == 0:
        raise Skip
    g.emit('Shape', [v], 'i64', [pair(len(names))], 0, 5000, start=start, end=end)


@operator(since=11)
def range_(g):
    if g.chance(0.5) and g.symbols:
        having = [(v, i) for v in g.values for i, d in enumerate(v.dims) if d in g.symbols.values() and not v.opaque]
        if not having:
            raise Skip
        v, i = g.r.choice(having)
        shape = g.quiet('Shape', [v], 'i64', [pair(v.rank)])
        n = g.quiet('Gather', [shape, g.constant(np.array(i, np.int64))], 'i64', [], axis=0)
        g.emit('Range', [g.constant(np.array(0, np.int64)), n, g.constant(np.array(1, np.int64))], 'i64', [v.dims[i]], 0, 9)
        return
    dtype = g.r.choice(['i64', 'i32', 'f'])
    start, limit, step = g.r.choice([(0, 5, 1), (1, 8, 2), (6, 0, -2)])
    ends = [np.array(x, NUMPY_TYPE[dtype]) for x in (start, limit, step)]
    if g.chance(0.3) and dtype != 'f':
        operands = [g.integers([x, x], 0.6, dtype, scalar=True) for x in ends]
        opaque = True
    else:
        operands, opaque = [g.constant(x) for x in ends], False
    g.emit('Range', operands, dtype, [pair(len(range(start, limit, step)))], 0, 8, True, opaque=opaque)


@operator(since=9)
def constant_of_shape(g):
    dims = g.shape(g.r.choice([1, 2, 3]))
    before = len(g.inputs)
    operand = g.sizes(dims)
    dtype = g.r.choice(['f', 'i64', 'i32', 'b', None])
    value = {'f': 0.75, 'i64': 3, 'i32': -2, 'b': True}.get(dtype)
    tensor = None if dtype is None else numpy_helper.from_array(np.array([value], NUMPY_TYPE[dtype]))
    v = 0 if value is None else float(value)
    g.emit('ConstantOfShape', [operand], dtype or 'f', dims, min(v, 0), max(v, 0), True, opaque=len(g.inputs) > before, value=tensor)


@operator(since=9)
def eye_like(g):
    v = g.pick(['f', 'i64'], rank=2)
    g.emit('EyeLike', [v], v.dtype, v.dims, 0, 1, True, k=g.r.choice([None, 1, -1]))


@operator(since=18)
def center_crop_pad(g):
    v = g.pick('f', where=lambda v: any(a == b for a, b in v.dims))
    fixed = [i for i in range(v.rank) if v.fixed(i)]
    axes = sorted(g.r.sample(fixed, min(len(fixed), g.r.choice([1, 2]))))
    sizes = [g.r.randint(1, v.dims[a][0] + 3) for a in axes]
    dims = list(v.dims)
    for a, n in zip(axes, sizes):
        dims[a] = pair(n)
    g.emit('CenterCropPad', [v, g.constant(np.array(sizes, np.int64))], 'f', dims, min(v.lo, 0), max(v.hi, 0), v.exact, axes=axes)


@operator(since=10)
def reverse_sequence(g):
    v = g.pick('f', where=lambda v: v.rank >= 2)
    batch, time = g.r.choice([(0, 1), (1, 0)])
    n = v.size(batch)
    lengths = g.constant(g.data.integers(1, min(v.dims[time]) + 1, [n]).astype(np.int64))
    g.emit('ReverseSequence', [v, lengths], 'f', v.dims, v.lo, v.hi, v.exact, batch_axis=batch, time_axis=time)


# -- layers ----------------------------------------------------------------------------------------------

def window(g, v, kernel=None, ceil=False, pads_below_kernel=False):
    """Kernel, stride, pads ... of a convolution or a pool over v, and the sizes of its result."""
    spatial = v.rank - 2
    kernel = kernel or [g.r.randint(1, 3) for _ in range(spatial)]
    attrs = {'kernel_shape': kernel}
    stride, dilation, pads = [1] * spatial, [1] * spatial, [0] * (2 * spatial)
    if g.chance(0.5):
        attrs['strides'] = stride = [g.r.randint(1, 3) for _ in range(spatial)]
    return attrs, kernel, stride, dilation, pads


@operator(weight=8)
def conv(g):
    v = g.pick(rank=[3, 4, 4, 4, 5], most=30, where=lambda v: v.rank >= 3 and v.fixed(1) and all(min(d) >= 3 for d in v.dims[2:]))
    attrs, kernel, stride, dilation, pads = window(g, v)
    channels = v.size(1)
    group = g.r.choice([k for k in range(1, channels + 1) if channels % k == 0])
    out = group * g.r.randint(1, max(1, 6 // group))
    if g.chance(0.3) and max(kernel) > 1:
        dilation = [g.r.choice([1, 2]) if k < 3 else 1 for k in kernel]
        attrs['dilations'] = dilation
    auto = g.chance(0.2) and max(dilation) == 1
    sizes = []
    if auto:
        attrs['auto_pad'] = mode = g.r.choice(['SAME_UPPER', 'SAME_LOWER', 'VALID'])
        for d, k, s in zip(v.dims[2:], kernel, stride):
            sizes.append(tuple((n - k) // s + 1 if mode == 'VALID' else -(-n // s) for n in d))
    else:
        if g.chance(0.6):
            attrs['pads'] = pads = [g.r.randint(0, 2) for _ in range(2 * len(kernel))]
        for i, (d, k, s, l) in enumerate(zip(v.dims[2:], kernel, stride, dilation)):
            sizes.append(tuple((n + pads[i] + pads[i + len(kernel)] - l * (k - 1) - 1) // s + 1 for n in d))
    if any(n < 1 for d in sizes for n in d):
        raise Skip
    fan = channels // group * math.prod(kernel)
    w = g.weights([out, channels // group, *kernel], 1.5 / math.sqrt(fan))
    operands = [v, w]
    if g.chance(0.6):
        operands.append(g.weights([out]))
    if g.chance(0.3):
        del attrs['kernel_shape']
    m = v.magnitude * 1.5 * math.sqrt(fan) + 1
    y = g.emit('Conv', operands, 'f', [v.dims[0], pair(out), *sizes], -m, m, group=group if group > 1 or g.chance(0.3) else None, **attrs)
    if g.chance(0.3):
        batch_norm_of(g, y)


@operator(weight=4)
def conv_transpose(g):
    v = g.pick(rank=[3, 4, 4, 5], most=30, where=lambda v: v.rank >= 3 and v.fixed(1))
    attrs, kernel, stride, dilation, pads = window(g, v)
    channels = v.size(1)
    group = g.r.choice([k for k in range(1, min(channels, 4) + 1) if channels % k == 0])
    out = g.r.randint(1, 4)
    extra = [0] * len(kernel)
    if g.chance(0.3):
        attrs['dilations'] = dilation = [g.r.choice([1, 2]) for _ in kernel]
    if g.chance(0.4):
        attrs['pads'] = pads = [g.r.randint(0, min(1, k - 1)) for k in kernel] * 2
    if g.chance(0.3):
        extra = [g.r.randint(0, s - 1) for s in stride]
        attrs['output_padding'] = extra
    auto = g.chance(0.15)
    sizes = []
    for i, d in enumerate(v.dims[2:]):
        sizes.append(tuple(stride[i] * (n - 1) + extra[i] + (kernel[i] - 1) * dilation[i] + 1 - pads[i] - pads[i + len(kernel)] for n in d))
    if auto and 'pads' not in attrs and 'output_padding' not in attrs and 'dilations' not in attrs:
        attrs['auto_pad'] = g.r.choice(['SAME_UPPER', 'SAME_LOWER'])
        if any(k < s for k, s in zip(kernel, stride)):
            raise Skip
        sizes = [tuple(n * s for n in d) for d, s in zip(v.dims[2:], stride)]
    if any(n < 1 for d in sizes for n in d):
        raise Skip
    fan = channels // group * math.prod(kernel)
    operands = [v, g.weights([channels, out, *kernel], 1.5 / math.sqrt(fan))]
    if g.chance(0.6):
        operands.append(g.weights([out * group]))
    m = v.magnitude * 1.5 * math.sqrt(fan) + 1
    g.emit('ConvTranspose', operands, 'f', [v.dims[0], pair(out * group), *sizes], -m, m, group=group if group > 1 else None, **attrs)


def batch_norm_of(g, v):
    c = v.size(1)
    values = [g.constant(g.data.uniform(0.5, 1.5, [c]).astype(np.float32)), g.weights([c]), g.weights([c]),
              g.constant(g.data.uniform(0.5, 2, [c]).astype(np.float32))]
    m = (v.magnitude + 1) * 2.2 + 1
    g.emit('BatchNormalization', [v, *values], 'f', v.dims, -m, m, epsilon=g.r.choice([None, 1e-3]), momentum=g.r.choice([None, 0.8]))


@operator(weight=2)
def batch_norm(g):
    batch_norm_of(g, g.pick(where=lambda v: v.rank >= 2 and v.fixed(1), most=30))


@operator()
def instance_norm(g):
    v = g.pick(exact=True, rank=[3, 4, 5], where=lambda v: v.fixed(1) and min(v.dims[-1]) >= 3)
    c = v.size(1)
    g.emit('InstanceNormalization', [v, g.weights([c]), g.weights([c])], 'f', v.dims, -8, 8, epsilon=g.r.choice([None, 1e-2]))


@operator()
def lrn(g):
    v = g.pick(rank=4)
    g.emit('LRN', [v], 'f', v.dims, v.lo, v.hi, size=g.r.choice([1, 3, 5]), alpha=g.r.choice([None, 0.3]), beta=g.r.choice([None, 0.6]),
           bias=g.r.choice([None, 2.0]))


@operator(since=17, weight=2)
def layer_norm(g):
    v = g.pick(exact=True, where=lambda v: v.fixed(-1) and v.dims[-1][0] >= 3)
    a = -1
    if v.rank >= 2 and v.fixed(-2) and g.chance(0.3):
        a = v.rank - 2
    shape = [d[0] for d in v.dims[a:]]
    operands = [v, g.weights(shape)] + ([g.weights(shape)] if g.chance(0.6) else [])
    g.emit('LayerNormalization', operands, 'f', v.dims, -6, 6, axis=a, epsilon=g.r.choice([None, 1e-3]))


@operator(since=18)
def group_norm(g):
    v = g.pick(exact=True, rank=[3, 4], where=lambda v: v.fixed(1) and v.rank >= 3)
    c = v.size(1)
    groups = g.r.choice([k for k in range(1, c + 1) if c % k == 0])
    n = c if g.opset >= 21 else groups
    g.emit('GroupNormalization', [v, g.weights([n]), g.weights([n])], 'f', v.dims, -6, 6, num_groups=groups, epsilon=g.r.choice([None, 1e-3]))


@operator(since=9)
def mean_variance(g):
    v = g.pick(exact=True, rank=4, where=lambda v: min(v.dims[-1]) >= 3 and v.name.startswith('x'))
    g.emit('MeanVarianceNormalization', [v], 'f', v.dims, -6, 6, axes=g.r.choice([None, [0, 2, 3], [2, 3]]))


@operator(weight=4)
def pool(g):
    op = g.r.choice(['MaxPool', 'AveragePool', 'LpPool'])
    v = g.pick(rank=[3, 4, 4, 5] if op != 'LpPool' else [3, 4], where=lambda v: v.rank >= 3 and all(min(d) >= 3 for d in v.dims[2:]))
    attrs, kernel, stride, dilation, pads = window(g, v, [g.r.randint(2, 3) for _ in range(v.rank - 2)])
    ceil = op != 'LpPool' and g.opset >= 10 and g.chance(0.3)
    if op == 'MaxPool' and g.opset >= 10 and g.chance(0.2):
        attrs['dilations'] = dilation = [g.r.choice([1, 2]) if k == 2 else 1 for k in kernel]
    sizes = []
    if g.chance(0.15) and max(dilation) == 1 and not ceil:
        attrs['auto_pad'] = mode = g.r.choice(['SAME_UPPER', 'SAME_LOWER', 'VALID'])
        for d, k, s in zip(v.dims[2:], kernel, stride):
            sizes.append(tuple((n - k) // s + 1 if mode == 'VALID' else -(-n // s) for n in d))
    else:
        if g.chance(0.4):
            attrs['pads'] = pads = [g.r.randint(0, 1) for _ in range(2 * len(kernel))]
        for i, (d, k, s, l) in enumerate(zip(v.dims[2:], kernel, stride, dilation)):
            out = []
            for n in d:
                room = n + pads[i] + pads[i + len(kernel)] - l * (k - 1) - 1
                count = (-(-room // s) if ceil else room // s) + 1
                if ceil and (count - 1) * s >= n + pads[i]:
                    count -= 1
                out.append(count)
            sizes.append(tuple(out))
    if any(n < 1 for d in sizes for n in d):
        raise Skip
    if ceil:
        attrs['ceil_mode'] = 1
    if op == 'AveragePool' and g.chance(0.4):
        attrs['count_include_pad'] = 1
    if op == 'LpPool':
        attrs['p'] = g.r.choice([1, 2, 3])
        v = g.within(v, 0.2, 2)
    dims = [*v.dims[:2], *sizes]
    if op == 'MaxPool' and g.opset >= 8 and v.exact and v.static() and v.rank in (3, 4) and g.chance(0.3):
        names = g.node(op, [v], 2, **attrs)
        g.result(names[0], 'f', dims, v.lo, v.hi, True)
        g.result(names[1], 'i64', dims, 0, 5000)
        return
    m = v.magnitude * math.prod(kernel) if op == 'LpPool' else v.magnitude
    g.emit(op, [v], 'f', dims, min(v.lo, -m if v.lo < 0 else 0), max(v.hi, m), op == 'MaxPool' and v.exact, **attrs)


@operator(weight=2)
def global_pool(g):
    v = g.pick(rank=[3, 4, 4, 5])
    op = g.r.choice(['GlobalAveragePool', 'GlobalMaxPool', 'GlobalLpPool'])
    if op == 'GlobalLpPool':
        if g.opset >= 22:
            raise Skip  # ONNX Runtime 1.30 has none
        v = g.within(v, 0.2, 2)
    m = v.magnitude * (v.numel() if op == 'GlobalLpPool' else 1)
    g.emit(op, [v], 'f', [*v.dims[:2], *([pair(1)] * (v.rank - 2))], -m, m, op == 'GlobalMaxPool' and v.exact,
           p=g.r.choice([None, 1, 2]) if op == 'GlobalLpPool' else None)


@operator(since=9)
def max_unpool(g):
    v = g.pick(rank=4, exact=True, where=lambda v: v.static() and all(min(d) >= 4 for d in v.dims[2:]))
    h, w = (v.size(i) // 2 for i in (2, 3))
    dims = [*v.dims[:2], pair(h), pair(w)]
    names = g.node('MaxPool', [v], 2, kernel_shape=[2, 2], strides=[2, 2])
    g.result(names[0], 'f', dims, v.lo, v.hi, True)
    places = g.result(names[1], 'i64', dims, 0, 5000)
    if h * 2 == v.size(2) and w * 2 == v.size(3):
        g.emit('MaxUnpool', [names[0], places], 'f', [*dims[:2], pair(2 * h), pair(2 * w)], min(v.lo, 0), max(v.hi, 0), True,
               kernel_shape=[2, 2], strides=[2, 2])
    else:
        sizes = g.constant(np.array([d[0] for d in v.dims], np.int64))
        g.emit('MaxUnpool', [names[0], places, sizes], 'f', v.dims, min(v.lo, 0), max(v.hi, 0), True, kernel_shape=[2, 2], strides=[2, 2])


@operator(weight=5)
def matmul(g):
    v = g.pick(most=20)
    if g.chance(0.4):
        others = [o for o in g.values if o.dtype == 'f' and o.rank >= 2 and v.rank >= 2 and o.dims[-2] == v.dims[-1] and not o.opaque
                  and not o.tol and o.magnitude <= 20]
        if others:
            o = g.r.choice(others)
            dims = [*broadcast(v.dims[:-2], o.dims[:-2]), v.dims[-2], o.dims[-1]]
            m = v.magnitude * o.magnitude * max(v.dims[-1])
            g.emit('MatMul', [v, o], 'f', dims, -m, m)
            return
    k = v.size(-1)
    n = g.r.randint(1, 8)
    shape = g.r.choice([[k, n], [k, n], [k, n], [k], [2, k, n] if v.rank <= 2 else [k, n]])
    w = g.weights(shape, 1.5 / math.sqrt(k))
    m = v.magnitude * 1.5 * math.sqrt(k)
    dims = [*broadcast(v.dims[:-2], w.dims[:-2]), *([v.dims[-2]] if v.rank >= 2 else []), *([pair(n)] if len(shape) > 1 else [])]
    y = g.emit('MatMul', [v, w], 'f', dims, -m, m)
    if len(shape) > 1 and g.chance(0.4):
        g.emit('Add', [y, g.weights([n])], 'f', dims, -m - 1, m + 1)


@operator(weight=3)
def gemm(g):
    v = g.pick(rank=2, most=20)
    a = g.r.choice([None, 1])
    dims = v.dims[::-1] if a else v.dims
    if dims[1][0] != dims[1][1]:
        raise Skip
    k, n = dims[1][0], g.r.randint(1, 8)
    b = g.r.choice([None, 1])
    w = g.weights([n, k] if b else [k, n], 1.5 / math.sqrt(k))
    operands = [v, w]
    if g.opset < 11 or g.chance(0.7):
        operands.append(g.weights(g.r.choice([[n], [1, n], [1]] + ([[dims[0][0], n], [dims[0][0], 1]] if dims[0][0] == dims[0][1] else []))))
    m = v.magnitude * 3 * math.sqrt(k) + 2
    g.emit('Gemm', operands, 'f', [dims[0], pair(n)], -m, m, transA=a, transB=b, alpha=g.r.choice([None, 0.5]), beta=g.r.choice([None, 2.0]))


@operator(since=12)
def einsum(g):
    v = g.pick(rank=[2, 3, 4], most=15)
    kind = g.r.randrange(4)
    letters = 'abcd'[:v.rank]
    m = v.magnitude
    if kind == 0:
        k = v.size(-1)
        g.emit('Einsum', [v, g.weights([k, 3])], 'f', [*v.dims[:-1], pair(3)], -m * k, m * k, equation=f'{letters},{letters[-1]}z->{letters[:-1]}z')
    elif kind == 1:
        count = max(v.dims[-1])
        g.emit('Einsum', [v], 'f', v.dims[:-1], -m * count, m * count, equation=f'{letters}->{letters[:-1]}')
    elif kind == 2:
        g.emit('Einsum', [v], 'f', v.dims[::-1], v.lo, v.hi, v.exact, equation=f'{letters} -> {letters[::-1]}')
    else:
        k = v.size(-1)
        g.emit('Einsum', [v, g.weights([4, k])], 'f', [*v.dims[:-1], pair(4)], -m * k, m * k, equation=f'...{letters[-1]},z{letters[-1]}->...z')


@operator(weight=2)
def recurrent(g):
    v = g.pick(rank=3, most=10, where=lambda v: v.fixed(2))
    op = g.r.choice(['LSTM', 'GRU', 'RNN'])
    gates = {'LSTM': 4, 'GRU': 3, 'RNN': 1}[op]
    hidden = g.r.randint(1, 4)
    direction = g.r.choice([None, 'forward', 'reverse', 'bidirectional'])
    n = 2 if direction == 'bidirectional' else 1
    features = v.size(2)
    operands = [v, g.weights([n, gates * hidden, features], 0.6), g.weights([n, gates * hidden, hidden], 0.6)]
    bias = g.chance(0.6)
    operands.append(g.weights([n, 2 * gates * hidden], 0.4) if bias else '')
    lengths = g.chance(0.2) and v.fixed(1)
    operands.append(g.constant(g.data.integers(1, min(v.dims[0]) + 1, [v.dims[1][0]]).astype(np.int32)) if lengths else '')
    if g.chance(0.4) and v.fixed(1):
        operands.append(g.weights([n, v.dims[1][0], hidden]))
        if op == 'LSTM':
            operands.append(g.weights([n, v.dims[1][0], hidden]))
    while operands[-1] == '':
        operands.pop()
    attrs = {'hidden_size': hidden, 'direction': direction}
    if op == 'GRU':
        attrs['linear_before_reset'] = g.r.choice([None, 1])
    if op == 'RNN' and g.chance(0.3):
        attrs['activations'] = ['Relu'] * n
    outputs = g.r.choice([1, 2])
    names = g.node(op, operands, outputs, **attrs)
    m = 30 if 'activations' in attrs else 1
    g.result(names[0], 'f', [v.dims[0], pair(n), v.dims[1], pair(hidden)], -m, m)
    if outputs == 2:
        g.result(names[1], 'f', [pair(n), v.dims[1], pair(hidden)], -m, m)


@operator(since=17)
def transform(g):
    v = g.pick(rank=range(2, 5), most=10, where=lambda v: v.rank >= 2 and any(a == b for a, b in v.dims[1:]))
    axis = g.r.choice([i for i in range(1, v.rank) if v.fixed(i)])
    x = g.unsqueeze(v, [v.rank])
    onesided = g.r.choice([None, 1])
    n = v.size(axis)
    dims = [pair(n // 2 + 1) if i == axis and onesided else d for i, d in enumerate(v.dims)] + [pair(2)]
    m = v.magnitude * n
    if g.opset < 20:
        g.emit('DFT', [x], 'f', dims, -m, m, axis=axis, onesided=onesided)
    else:
        g.emit('DFT', [x, '', g.constant(np.array(axis, np.int64))], 'f', dims, -m, m, onesided=onesided)


@operator(since=17)
def short_transform(g):
    v = g.pick(rank=2, most=10, where=lambda v: min(v.dims[1]) >= 4)
    step, length = g.r.randint(1, 3), 4
    window = g.emit(g.r.choice(['HannWindow', 'HammingWindow', 'BlackmanWindow']), [g.constant(np.array(length, np.int64))], 'f',
                    [pair(length)], 0, 1, periodic=g.r.choice([None, 0]))
    dims = [v.dims[0], tuple((n - length) // step + 1 for n in v.dims[1]), pair(length // 2 + 1), pair(2)]
    m = v.magnitude * length
    g.emit('STFT', [g.unsqueeze(v, [2]), g.constant(np.array(step, np.int64)), window], 'f', dims, -m, m)


@operator(since=17)
def window_of_input(g):
    n = g.r.choice([pair(6), *g.symbols.values()])
    size = g.input('i64', [], [np.array(k, np.int64) for k in n], 0, 0)
    g.values.remove(size)
    g.emit(g.r.choice(['HannWindow', 'HammingWindow', 'BlackmanWindow']), [size], 'f', [n], 0, 1, opaque=True, periodic=g.r.choice([None, 0]))


# -- images and boxes ------------------------------------------------------------------------------------

@operator(weight=4)
def resize(g):
    v = g.pick(rank=4, exact=True)
    if g.opset < 10:
        if g.opset < 9:
            scales = [1.0, 1.0, 2.0, g.r.choice([1.0, 2.0])]
            g.emit('Upsample', [v], 'f', [*v.dims[:2], *(tuple(int(n * s) for n in d) for d, s in zip(v.dims[2:], scales[2:]))],
                   v.lo, v.hi, scales=scales, mode=g.r.choice([None, 'nearest', 'linear']))
        else:
            scales = [1.0, 1.0, g.r.choice([2.0, 3.0]), g.r.choice([1.0, 2.0])]
            g.emit('Upsample', [v, g.constant(np.array(scales, np.float32))], 'f',
                   [*v.dims[:2], *(tuple(int(n * s) for n in d) for d, s in zip(v.dims[2:], scales[2:]))], v.lo, v.hi,
                   mode=g.r.choice([None, 'nearest', 'linear']))
        return
    if g.opset == 10:
        scales = [1.0, 1.0, g.r.choice([2.0, 0.5]), 2.0]
        g.emit('Resize', [v, g.constant(np.array(scales, np.float32))], 'f',
               [*v.dims[:2], *(tuple(int(n * s) for n in d) for d, s in zip(v.dims[2:], scales[2:]))], v.lo, v.hi,
               mode=g.r.choice([None, 'nearest', 'linear']))
        return
    mode = g.r.choice(['nearest', 'linear', 'cubic'])
    attrs = {'mode': mode}
    attrs['coordinate_transformation_mode'] = g.r.choice(
        [None, 'half_pixel', 'align_corners', 'asymmetric', 'pytorch_half_pixel'])
    if mode == 'nearest':
        attrs['nearest_mode'] = g.r.choice([None, 'floor', 'ceil', 'round_prefer_ceil', 'round_prefer_floor'])
    if mode == 'cubic':
        attrs['cubic_coeff_a'] = g.r.choice([None, -0.5])
        attrs['exclude_outside'] = g.r.choice([None, 1])
    if g.opset >= 18 and mode != 'nearest' and g.chance(0.25):
        attrs['antialias'] = 1
        attrs['coordinate_transformation_mode'] = None
    empty = g.constant(np.zeros([0], np.float32), node=False) if g.opset < 13 else ''
    m = v.magnitude * 2
    if g.chance(0.5):
        scales = [1.0, 1.0, g.r.choice([2.0, 0.5, 1.5]), g.r.choice([1.0, 2.0, 0.75])]
        sizes = [tuple(math.floor(n * s) for n in d) for d, s in zip(v.dims[2:], scales[2:])]
        if any(n < 1 for d in sizes for n in d):
            raise Skip
        if g.opset >= 18 and g.chance(0.3):
            attrs['axes'] = [2, 3]
            scales = scales[2:]
        g.emit('Resize', [v, empty, g.constant(np.array(scales, np.float32))], 'f', [*v.dims[:2], *sizes], -m, m, **attrs)
        return
    sizes = [pair(g.r.randint(2, 9)) if g.chance(0.5) else tuple(n * 2 for n in d) for d in v.dims[2:]]
    scales = empty if g.opset < 13 else ''
    before = len(g.inputs)
    operand = g.sizes([*v.dims[:2], *sizes])
    g.emit('Resize', [v, empty, scales, operand], 'f', [*v.dims[:2], *sizes], -m, m, opaque=len(g.inputs) > before, **attrs)


@operator(since=16)
def grid_sample(g):
    v = g.pick(rank=4, exact=True)
    h, w = g.r.randint(2, 5), g.r.randint(2, 5)
    if not v.fixed(0):
        raise Skip
    grid = g.weights([v.size(0), h, w, 2], 1.2)
    mode = g.r.choice([None, 'bilinear', 'nearest', 'bicubic'] if g.opset < 20 else [None, 'linear', 'nearest', 'cubic'])
    g.emit('GridSample', [v, grid], 'f', [*v.dims[:2], pair(h), pair(w)], -2 * v.magnitude, 2 * v.magnitude, mode=mode,
           padding_mode=g.r.choice([None, 'zeros', 'border', 'reflection']), align_corners=g.r.choice([None, 1]))


@operator(since=10, until=21)  # ONNX Runtime 1.30 has no newer one
def roi_align(g):
    v = g.pick(rank=4, exact=True)
    n = 3
    corners = g.data.uniform(0, 3, [n, 2])
    rois = g.constant(np.concatenate([corners, corners + g.data.uniform(1, 4, [n, 2])], 1).astype(np.float32))
    images = g.constant(g.data.integers(0, min(v.dims[0]), [n]).astype(np.int64))
    h, w = g.r.randint(1, 3), g.r.randint(1, 3)
    mode = g.r.choice([None, 'half_pixel', 'output_half_pixel']) if g.opset >= 16 else None
    g.emit('RoiAlign', [v, rois, images], 'f', [pair(n), v.dims[1], pair(h), pair(w)], -v.magnitude, v.magnitude, output_height=h,
           output_width=w, sampling_ratio=g.r.choice([None, 1, 2]), spatial_scale=g.r.choice([None, 0.5]),
           mode=g.r.choice([None, 'avg', 'max']), coordinate_transformation_mode=mode)


@operator(since=10)
def suppression(g):
    n = g.r.choice([6, 9])
    corners = g.data.uniform(0, 4, [1, n, 2])
    data = [np.concatenate([corners, corners + g.data.uniform(1, 3, [1, n, 2])], 2).astype(np.float32)] * 2
    boxes = g.input('f', [pair(1), pair(n), pair(4)], data)
    scores = g.input('f', [pair(1), pair(2), pair(n)], lo=0, hi=1)
    operands = [boxes, scores]
    for value, dtype in ((g.r.randint(1, 4), np.int64), (0.4, np.float32), (0.2, np.float32)):
        operands.append(g.constant(np.array([value], dtype)))
        if len(operands) > 3 and g.chance(0.3):
            break
    g.emit('NonMaxSuppression', operands, 'i64', [pair(1), pair(3)], 0, 9, opaque=True, center_point_box=g.r.choice([None, 0]))


# -- control flow and sequences --------------------------------------------------------------------------

def body_chain(g, name, rounds=None):
    """Nodes that compute a value of the same shape from `name`: ([nodes], its name)."""
    nodes = []
    for _ in range(rounds or g.r.randint(1, 3)):
        op = g.r.choice(['Tanh', 'Abs', 'Sigmoid', 'Neg', 'Sin', 'Relu', 'Mul'])
        out = g.name('b')
        if op == 'Mul':
            c = g.name('b')
            nodes.append(helper.make_node('Constant', [], [c], value=numpy_helper.from_array(np.array(0.5, np.float32))))
            nodes.append(helper.make_node('Mul', [name, c], [out]))
        else:
            nodes.append(helper.make_node(op, [name], [out]))
        name = out
    return nodes, name


def info(name, dtype, dims=None):
    return helper.make_tensor_value_info(name, ONNX_TYPE[dtype], dims)


@operator(weight=3)
def if_(g):
    v = g.pick(most=20)
    kind = g.r.randrange(3)
    if kind == 0:
        condition = g.constant(np.array(g.chance(0.5)))
    elif kind == 1:
        condition = g.input('b', [], [np.array(True), np.array(False)], 0, 1)
        g.values.remove(condition)
    else:
        if g.opset < 9:
            raise Skip
        total = g.quiet('Size', [v], 'i64', [])
        condition = g.quiet('Greater', [total, g.constant(np.array(g.r.randint(1, 200), np.int64))], 'b', [])
    branches = []
    for _ in range(2):
        nodes, name = body_chain(g, v.name)
        branches.append(helper.make_graph(nodes, 'branch', [], [info(name, 'f')]))
    m = max(v.magnitude, 1)
    g.emit('If', [condition], 'f', v.dims, -m, m, then_branch=branches[0], else_branch=branches[1])


@operator(weight=2)
def loop(g):
    v = g.pick(most=20, rank=range(1, 4))
    count = g.r.randint(1, 3)
    i, c, s = g.name('i'), g.name('q'), g.name('s')
    nodes, name = body_chain(g, s)
    keep = g.name('q')
    if g.chance(0.5):  # ended by a condition that the iteration's number decides
        most = g.name('b')
        nodes.append(helper.make_node('Constant', [], [most], value=numpy_helper.from_array(np.array(1, np.int64))))
        if g.opset < 9:
            raise Skip
        nodes.append(helper.make_node('Less', [i, most], [keep]))
        given = g.constant(np.array(True))
        rounds = min(count, 2)
    else:
        nodes.append(helper.make_node('Identity', [c], [keep]))
        given = g.constant(np.array(True)) if g.chance(0.5) else ''
        rounds = count
    scanned = g.chance(0.5)
    outputs = [info(keep, 'b', []), info(name, 'f')]
    if scanned:
        scan = g.name('b')
        nodes.append(helper.make_node('Identity', [name], [scan]))
        outputs.append(info(scan, 'f'))
    body = helper.make_graph(nodes, 'body', [info(i, 'i64', []), info(c, 'b', []), info(s, 'f')], outputs)
    names = g.node('Loop', [g.constant(np.array(count, np.int64)), given, v], 2 if scanned else 1, body=body)
    m = max(v.magnitude, 1)
    g.result(names[0], 'f', v.dims, -m, m)
    if scanned:
        g.result(names[1], 'f', [pair(rounds), *v.dims], -m, m)


@operator(since=9)
def scan(g):
    v = g.pick(most=5, rank=range(2, 5), where=lambda v: any(a == b for a, b in v.dims))
    axis = g.r.choice([i for i in range(v.rank) if v.fixed(i)])
    rest = [d for i, d in enumerate(v.dims) if i != axis]
    if any(a != b for a, b in rest):
        raise Skip
    shape = [a for a, b in rest]
    start = g.weights(shape)
    state, x, total, copy = g.name('s'), g.name('s'), g.name('b'), g.name('b')
    body = helper.make_graph(
        [helper.make_node('Add', [state, x], [total]), helper.make_node('Tanh', [total], [copy])], 'body',
        [info(state, 'f', shape), info(x, 'f', shape)], [info(total, 'f', shape), info(copy, 'f', shape)])
    back = g.r.choice([None, [1]])
    names = g.node('Scan', [start, v], 2, body=body, num_scan_inputs=1, scan_input_axes=[axis], scan_input_directions=back,
                   scan_output_directions=g.r.choice([None, [1]]))
    m = v.magnitude * v.size(axis) + 1
    g.result(names[0], 'f', rest, -m, m)
    g.result(names[1], 'f', [v.dims[axis], *rest], -1, 1)


@operator(since=11, weight=2)
def sequences(g):
    v = g.pick(most=20, where=lambda v: any(a == b and a >= 2 for a, b in v.dims))
    kind = g.r.randrange(3)
    if kind == 0:
        a = g.r.choice([i for i in range(v.rank) if v.fixed(i) and v.dims[i][0] >= 2])
        size = v.size(a)
        split = [g.constant(np.array(1, np.int64))] if g.chance(0.5) else []
        keep = None if split else g.r.choice([None, 0])
        [parts] = g.node('SplitToSequence', [v, *split], axis=a, keepdims=keep)
        dims = [pair(1) if i == a else d for i, d in enumerate(v.dims)]
        if keep == 0:
            del dims[a]
        if g.chance(0.5) and not (keep == 0 and v.rank == 1):
            stacked = g.chance(0.4)
            if stacked:
                g.emit('ConcatFromSequence', [parts], 'f', [pair(size), *dims], v.lo, v.hi, v.exact, axis=0, new_axis=1)
            elif dims:
                g.emit('ConcatFromSequence', [parts], 'f', [tuple(n * size for n in dims[0]), *dims[1:]], v.lo, v.hi, v.exact, axis=0)
        g.emit('SequenceAt', [parts, g.constant(np.array(g.r.choice([0, -1, size - 1]), np.int64))], 'f', dims, v.lo, v.hi, v.exact)
        if g.chance(0.4):
            g.emit('SequenceLength', [parts], 'i64', [], 0, 9)
        return
    w = g.emit('Neg', [v], 'f', v.dims, -v.hi, -v.lo, v.exact)
    if kind == 1:
        [s] = g.node('SequenceConstruct', [v, w])
    else:
        [s] = g.node('SequenceEmpty', [])
        [s] = g.node('SequenceInsert', [s, v])
        [s] = g.node('SequenceInsert', [s, w, *([g.constant(np.array(0, np.int64))] if g.chance(0.5) else [])])
    count = 2
    if g.chance(0.3):
        [s] = g.node('SequenceErase', [s, *([g.constant(np.array(0, np.int64))] if g.chance(0.5) else [])])
        count = 1
    m = v.magnitude
    g.emit('ConcatFromSequence', [s], 'f', [tuple(n * count for n in v.dims[0]), *v.dims[1:]], -m, m, v.exact, axis=0)


# -- quantized -------------------------------------------------------------------------------------------

def quantized(g, v, dtype, scale, zero, domain=''):
    operands = [v, g.constant(np.float32(scale)), g.constant(np.array(zero, NUMPY_TYPE[dtype]))]
    return g.emit('QuantizeLinear', operands, dtype, v.dims, 0, 255)


@operator(since=10, weight=2)
def quantize(g):
    v = g.pick(exact=True)
    dtype = g.r.choice(['u8', 'i8'])
    q = quantized(g, v, dtype, g.r.choice([0.017, 0.031]), g.r.choice([0, 3, 100]))
    scale = g.r.choice([0.02, 0.013])
    g.emit('DequantizeLinear', [q, g.constant(np.float32(scale)), g.constant(np.array(5, NUMPY_TYPE[dtype]))], 'f', q.dims, -4, 4, tol=scale)


@operator(since=10)
def integer_products(g):
    v = g.pick(rank=[2, 3, 4], exact=True, where=lambda v: v.fixed(-1))
    if g.chance(0.5):
        q = quantized(g, v, 'u8', 0.02, 100)
        if g.opset >= 11 and g.chance(0.5):
            names = g.node('DynamicQuantizeLinear', [v], 3)
            q = g.result(names[0], 'u8', v.dims, 0, 255, exact=False, tol=1)
            g.values.remove(q)
            scale = Value(names[1], 'f', [])
            zero = Value(names[2], 'u8', [])
        else:
            scale, zero = g.constant(np.float32(0.02)), g.constant(np.array(100, np.uint8))
        k = v.size(-1)
        w = g.constant(g.data.integers(-100, 100, [k, 4]).astype(np.int8))
        y = g.emit('MatMulInteger', [q, w, zero], 'i32', [*v.dims[:-1], pair(4)], -1e6, 1e6, tol=200)
        y = g.emit('Cast', [y], 'f', y.dims, -1e6, 1e6, to=TensorProto.FLOAT, tol=200)
        y = g.emit('Mul', [y, scale], 'f', y.dims, -1e6, 1e6, tol=4)
        g.emit('Mul', [y, g.constant(np.float32(0.01))], 'f', y.dims, -1e6, 1e6, tol=0.05)
        return
    v = g.pick(rank=4, exact=True, where=lambda v: v.fixed(1) and all(min(d) >= 3 for d in v.dims[2:]))
    q = quantized(g, v, 'u8', 0.02, 100)
    c = v.size(1)
    dims = [v.dims[0], pair(3), *(tuple(n - 2 for n in d) for d in v.dims[2:])]
    if g.chance(0.4):
        w = g.constant(g.data.integers(0, 255, [3, c, 3, 3]).astype(np.uint8))
        g.emit('ConvInteger', [q, w, g.constant(np.array(100, np.uint8)), g.constant(np.array(120, np.uint8))], 'i32', dims, -1e7, 1e7, tol=1e-9)
        return
    w = g.constant(g.data.integers(-100, 100, [3, c, 3, 3]).astype(np.int8))
    bias = [g.constant(g.data.integers(-500, 500, [3]).astype(np.int32))] if g.chance(0.5) else []
    operands = [q, g.constant(np.float32(0.02)), g.constant(np.array(100, np.uint8)), w,
                g.constant(np.float32(0.01) if g.chance(0.5) else np.array([0.01, 0.02, 0.005], np.float32)),
                g.constant(np.zeros([], np.int8)), g.constant(np.float32(0.05)), g.constant(np.array(128, np.uint8)), *bias]
    if operands[4].rank:
        operands[5] = g.constant(np.zeros([3], np.int8))
    y = g.emit('QLinearConv', operands, 'u8', dims, 0, 255, tol=1)
    g.emit('DequantizeLinear', [y, operands[6], operands[7]], 'f', dims, -7, 7, tol=0.05)


@operator(since=13, weight=2)
def qdq_layer(g):
    """Q/DQ around a layer, as quantizers write it."""
    v = g.pick(rank=[2, 4], exact=True, where=lambda v: v.rank in (2, 4) and v.fixed(1) and all(min(d) >= 3 for d in v.dims[2:]))
    dtype = g.r.choice(['u8', 'i8'])
    zero = g.constant(np.array(100 if dtype == 'u8' else -10, NUMPY_TYPE[dtype]))
    s = g.constant(np.float32(0.02))
    q = g.quiet('QuantizeLinear', [v, s, zero], dtype, v.dims)
    x = g.quiet('DequantizeLinear', [q, s, zero], 'f', v.dims)
    c, n = v.size(1), 3
    axis = None
    if v.rank == 2:
        codes, dims = [c, n], [v.dims[0], pair(n)]
    else:
        codes, dims = [n, c, 3, 3], [v.dims[0], pair(n), *(tuple(m - 2 for m in d) for d in v.dims[2:])]
    if g.chance(0.5):
        axis = 1 if v.rank == 2 else 0
        scale = g.constant(g.data.uniform(0.005, 0.02, [n]).astype(np.float32))
        wzero = g.constant(np.zeros([n], np.int8))
    else:
        scale, wzero = g.constant(np.float32(0.01)), g.constant(np.array(0, np.int8))
    w = g.quiet('DequantizeLinear', [g.constant(g.data.integers(-127, 128, codes).astype(np.int8)), scale, wzero], 'f',
                [pair(k) for k in codes], axis=axis)
    op = 'Conv' if v.rank == 4 else g.r.choice(['MatMul', 'Gemm'])
    y = g.quiet(op, [x, w], 'f', dims)
    if g.chance(0.5):
        y = g.quiet('Relu', [y], 'f', dims)
    out, ozero = g.constant(np.float32(0.06)), g.constant(np.array(90 if dtype == 'u8' else 0, NUMPY_TYPE[dtype]))
    q = g.quiet('QuantizeLinear', [y, out, ozero], dtype, dims)
    g.emit('DequantizeLinear', [q, out, ozero], 'f', dims, -15, 15, tol=0.06)


# -- ONNX Runtime's own operators ------------------------------------------------------------------------

@operator(weight=2)
def microsoft_unary(g):
    v = g.pick(opaque=True)
    op = g.r.choice(['Gelu', 'QuickGelu', 'FastGelu', 'BiasGelu'])
    operands = [v]
    if op == 'BiasGelu' or (op == 'FastGelu' and g.chance(0.5)):
        if v.opaque:
            raise Skip
        operands.append(g.weights([v.size(-1)]))
    g.emit(op, operands, 'f', v.dims, min(v.lo - 1, -1), max(v.hi + 1, 1), domain=MICROSOFT, alpha=g.r.choice([None, 1.5]) if op == 'QuickGelu' else None)


@operator()
def microsoft_matmul(g):
    v = g.pick(rank=[2, 3], most=20)
    k = v.size(-1)
    transposed = g.r.choice([None, 1])
    w = g.weights([5, k] if transposed else [k, 5], 1.5 / math.sqrt(k))
    m = v.magnitude * 2 * math.sqrt(k)
    g.emit('FusedMatMul', [v, w], 'f', [*v.dims[:-1], pair(5)], -m, m, domain=MICROSOFT, alpha=g.r.choice([None, 0.5]), transB=transposed)


@operator()
def microsoft_conv(g):
    v = g.pick(rank=4, most=20, where=lambda v: v.fixed(1))
    c = v.size(1)
    w = g.weights([4, c, 1, 1], 1.5 / math.sqrt(c))
    m = v.magnitude * 1.5 * math.sqrt(c) + 1
    g.emit('FusedConv', [v, w, g.weights([4])], 'f', [v.dims[0], pair(4), *v.dims[2:]], -m, m, domain=MICROSOFT,
           activation=g.r.choice(['Relu', 'Tanh', 'Sigmoid']))


@operator()
def microsoft_norm(g):
    v = g.pick(rank=3, exact=True, where=lambda v: v.fixed(2) and v.dims[2][0] >= 3)
    n = v.size(2)
    skip = g.emit('Sin', [v], 'f', v.dims)
    op = g.r.choice(['SkipLayerNormalization', 'SkipSimplifiedLayerNormalization'])
    operands = [v, skip, g.weights([n])] + ([g.weights([n])] if op == 'SkipLayerNormalization' else [])
    g.emit(op, operands, 'f', v.dims, -6, 6, domain=MICROSOFT, epsilon=1e-5)


@operator(since=23, weight=3)
def rms_norm(g):
    v = g.pick(exact=True, where=lambda v: v.fixed(-1) and v.dims[-1][0] >= 3)
    g.emit('RMSNormalization', [v, g.weights([v.size(-1)])], 'f', v.dims, -6, 6, axis=g.r.choice([None, -1]), epsilon=g.r.choice([None, 1e-3]))


@operator(since=23, weight=3)
def attention(g):
    v = g.pick(rank=4, exact=True, most=5, where=lambda v: v.fixed(-1) and v.name.startswith('x'))
    k = g.emit('Sin', [v], 'f', v.dims)
    w = g.emit('Neg', [v], 'f', v.dims, -v.hi, -v.lo, v.exact)
    operands = [v, k, w]
    g.emit('Attention', operands, 'f', v.dims, v.lo, v.hi, scale=g.r.choice([None, 0.5]), is_causal=g.r.choice([None, 1]))


@operator(since=17)
def sequence_map(g):
    v = g.pick(most=20)
    w = g.emit('Cos', [v], 'f', v.dims)
    [s] = g.node('SequenceConstruct', [v, w])
    x = g.name('s')
    nodes, name = body_chain(g, x)
    body = helper.make_graph(nodes, 'body', [info(x, 'f', None)], [info(name, 'f')])
    [s] = g.node('SequenceMap', [s], body=body)
    m = max(v.magnitude, 1)
    g.emit('ConcatFromSequence', [s], 'f', [pair(2), *v.dims], -m, m, axis=0, new_axis=1)


@operator()
def types_between(g):
    """Through a wider or a narrower type and back."""
    v = g.pick(exact=True, opaque=True)
    if g.chance(0.5):
        [wide] = g.node('Cast', [v], to=TensorProto.DOUBLE)
        g.emit('Cast', [wide], 'f', v.dims, v.lo, v.hi, True, opaque=v.opaque, to=TensorProto.FLOAT)
    else:
        unit = g.within(v, 0, 100)
        to = g.r.choice(['u8', 'i8'])
        if not unit.exact:
            raise Skip
        codes = g.emit('Cast', [unit], to, v.dims, 0, 100, True, to=ONNX_TYPE[to])
        g.emit('Cast', [codes], 'f', v.dims, 0, 100, True, to=TensorProto.FLOAT)


# -- ONNX Runtime's quantized operators ----------------------------------------------------------------

def codes_of(g, v, dtype, scale=0.02):
    """v quantized: the codes, their scale and zero point."""
    zero = g.constant(np.array(100 if dtype == 'u8' else -10, NUMPY_TYPE[dtype]))
    s = g.constant(np.float32(scale))
    return [g.quiet('QuantizeLinear', [v, s, zero], dtype, v.dims), s, zero]


def dequantized(g, q, scale, zero):
    """The end of a chain of codes: it may differ by a step."""
    g.emit('DequantizeLinear', [q, scale, zero], 'f', q.dims, -20, 20, tol=float(scale_value(g, scale)))


def scale_value(g, scale):
    for t in g.initializers:
        if t.name == scale.name:
            return numpy_helper.to_array(t)
    return scale.hi


def parameters(g, dtype, scale, zero):
    return [g.constant(np.float32(scale)), g.constant(np.array(zero, NUMPY_TYPE[dtype]))]


@operator(since=10, weight=3)
def qlinear_binary(g):
    v = g.pick(exact=True, rank=range(2, 5))
    dtype = g.r.choice(['u8', 'i8'])
    a = codes_of(g, v, dtype)
    other = g.emit('Neg', [v], 'f', v.dims, -v.hi, -v.lo, True) if g.chance(0.5) else g.weights([v.size(-1)], 1.5)
    b = codes_of(g, other, dtype, 0.013)
    end = parameters(g, dtype, 0.04, 90 if dtype == 'u8' else 3)
    op = g.r.choice(['QLinearAdd', 'QLinearMul'])
    q = g.quiet(op, [*a, *b, *end], dtype, v.dims, domain=MICROSOFT)
    dequantized(g, q, *end)


@operator(since=10, weight=3)
def qlinear_unary(g):
    v = g.pick(exact=True, rank=range(2, 5))
    dtype = g.r.choice(['u8', 'i8'])
    a = codes_of(g, v, dtype)
    op = g.r.choice(['QLinearSigmoid', 'QLinearLeakyRelu', 'QLinearSoftmax'])
    if op == 'QLinearSoftmax' and min(v.dims[-1]) == 1:
        raise Skip  # ONNX Runtime 1.30 gives 0 for a probability of 1
    end = parameters(g, dtype, 1 / 256 if op in ('QLinearSigmoid', 'QLinearSoftmax') else 0.02, {'u8': 0, 'i8': -128}[dtype]
                     if op in ('QLinearSigmoid', 'QLinearSoftmax') else {'u8': 100, 'i8': 0}[dtype])
    attrs = {}
    if op == 'QLinearLeakyRelu':
        attrs['alpha'] = 0.2
    if op == 'QLinearSoftmax':
        attrs = {'axis': -1, 'opset': g.opset}
        if g.opset < 13:
            attrs['axis'] = v.rank - 1
    q = g.quiet(op, [*a, *end], dtype, v.dims, domain=MICROSOFT, **attrs)
    dequantized(g, q, *end)


@operator(since=10, weight=2)
def qlinear_pool(g):
    v = g.pick(exact=True, rank=4, where=lambda v: all(min(d) >= 3 for d in v.dims[2:]))
    dtype = g.r.choice(['u8', 'i8'])
    a = codes_of(g, v, dtype)
    end = parameters(g, dtype, 0.018, 110 if dtype == 'u8' else 0)
    if g.chance(0.5):
        q = g.quiet('QLinearGlobalAveragePool', [*a, *end], dtype, [*v.dims[:2], pair(1), pair(1)], domain=MICROSOFT)
    else:
        dims = [*v.dims[:2], *(tuple(n - 1 for n in d) for d in v.dims[2:])]
        q = g.quiet('QLinearAveragePool', [*a, *end], dtype, dims, domain=MICROSOFT, kernel_shape=[2, 2])
    dequantized(g, q, *end)


@operator(since=10, weight=2)
def qlinear_join(g):
    v = g.pick(exact=True, rank=range(2, 5))
    dtype = 'u8'
    a, b = codes_of(g, v, dtype), codes_of(g, v, dtype, 0.03)
    end = parameters(g, dtype, 0.025, 120)
    if g.chance(0.6):
        axis = g.r.randrange(v.rank)
        dims = [tuple(2 * n for n in d) if i == axis else d for i, d in enumerate(v.dims)]
        q = g.quiet('QLinearConcat', [*end, *a, *b], dtype, dims, domain=MICROSOFT, axis=axis)
    else:
        c = g.quiet('Greater', [v, g.constant(np.float32(0))], 'b', v.dims)
        q = g.quiet('QLinearWhere', [c, *a, *b, *end], dtype, v.dims, domain=MICROSOFT)
    dequantized(g, q, *end)


@operator(since=10, weight=2)
def qlinear_matmul(g):
    v = g.pick(exact=True, rank=[2, 3], where=lambda v: v.fixed(-1))
    a = codes_of(g, v, 'u8')
    k, n = v.size(-1), g.r.randint(1, 5)
    w = g.constant(g.data.integers(-100, 100, [k, n]).astype(np.int8))
    end = parameters(g, 'u8', 0.05, 128)
    dims = [*v.dims[:-1], pair(n)]
    if v.rank == 2 and g.chance(0.5):
        bias = g.constant(g.data.integers(-300, 300, [n]).astype(np.int32))
        q = g.quiet('QGemm', [*a, w, *parameters(g, 'i8', 0.01, 0), bias, *end], 'u8', dims, domain=MICROSOFT)
    else:
        q = g.quiet('QLinearMatMul', [*a, w, *parameters(g, 'i8', 0.01, 0), *end], 'u8', dims)
    dequantized(g, q, *end)


@operator(since=11, weight=3)
def dynamic_products(g):
    v = g.pick(exact=True, rank=[2, 3], where=lambda v: v.fixed(-1))
    k, n = v.size(-1), g.r.randint(1, 5)
    scale = g.constant(np.float32(0.01)) if g.chance(0.5) else g.constant(g.data.uniform(0.005, 0.02, [n]).astype(np.float32))
    zero = g.constant(np.zeros(scale.rank and [n] or [], np.int8))
    w = g.constant(g.data.integers(-100, 100, [k, n]).astype(np.int8))
    bias = [g.weights([n])] if g.chance(0.5) else []
    dims = [*v.dims[:-1], pair(n)]
    tol = 4 / 255 * 100 * 0.02 * 0.6 * k
    if g.chance(0.5):
        g.emit('DynamicQuantizeMatMul', [v, w, scale, zero, *bias], 'f', dims, -99, 99, tol=tol, domain=MICROSOFT)
    else:
        q, s, z = codes_of(g, v, 'u8')
        g.emit('MatMulIntegerToFloat', [q, w, s, scale, z, zero, *bias], 'f', dims, -99, 99, tol=0.04, domain=MICROSOFT)


@operator(weight=2)
def matmul_bits(g):
    k, n = 32, g.r.choice([4, 8])
    x = g.input('f', [g.r.choice([pair(3), *g.symbols.values()]), pair(k)])
    codes = g.constant(g.data.integers(0, 256, [n, k // 16, 8]).astype(np.uint8))
    scales = g.constant(g.data.uniform(0.01, 0.1, [n * (k // 16)]).astype(np.float32))
    zeros = [g.constant(g.data.integers(0, 256, [n * ((k // 16 + 1) // 2)]).astype(np.uint8))] if g.chance(0.5) else []
    g.emit('MatMulNBits', [x, codes, scales, *zeros], 'f', [x.dims[0], pair(n)], -99, 99, domain=MICROSOFT, K=k, N=n, bits=4, block_size=16)


@operator()
def microsoft_quantize(g):
    v = g.pick(exact=True)
    s, z = parameters(g, 'u8', 0.02, 100)
    q = g.quiet('QuantizeLinear', [v, s, z], 'u8', v.dims, domain=MICROSOFT)
    g.emit('DequantizeLinear', [q, s, z], 'f', v.dims, -3, 4, domain=MICROSOFT, tol=0.02)


@operator(weight=2)
def microsoft_attention(g):
    kind = g.r.randrange(3)
    v = g.input('f', [g.r.choice([pair(2), *g.symbols.values()]), g.r.choice([pair(5), *g.symbols.values()]), pair(8)])
    if kind == 0:
        operands = [v, g.weights([8, 24], 0.5), g.weights([24], 0.3)]
        g.emit('Attention', operands, 'f', v.dims, -3, 3, domain=MICROSOFT, num_heads=2, unidirectional=g.r.choice([None, 1]) if v.static() else None)
    elif kind == 1:
        k = g.emit('Sin', [v], 'f', v.dims)
        w = g.emit('Neg', [v], 'f', v.dims, exact=True)
        g.emit('MultiHeadAttention', [v, k, w], 'f', v.dims, -3, 3, domain=MICROSOFT, num_heads=2)
    else:
        a = codes_of(g, v, 'u8') if g.opset >= 10 else None
        if not a:
            raise Skip
        w = g.constant(g.data.integers(-100, 100, [8, 24]).astype(np.int8))
        operands = [a[0], w, g.weights([24], 0.3), a[1], g.constant(np.float32(0.005)), '', a[2], g.constant(np.array(0, np.int8))]
        g.emit('QAttention', operands, 'f', v.dims, -3, 3, domain=MICROSOFT, num_heads=2, tol=0.01)


@operator()
def microsoft_embedding(g):
    n, length = g.r.choice([pair(2), *g.symbols.values()]), pair(4)
    ids = g.input('i32', [n, length], lo=0, hi=9)
    segments = g.input('i32', [n, length], lo=0, hi=1)
    g.values.remove(ids)
    g.values.remove(segments)
    operands = [ids, segments, g.weights([10, 6]), g.weights([8, 6]), g.weights([2, 6]), g.weights([6]), g.weights([6])]
    names = g.node('EmbedLayerNormalization', operands, 2, domain=MICROSOFT)
    g.result(names[0], 'f', [n, length, pair(6)], -6, 6)


@operator()
def microsoft_more(g):
    v = g.pick(rank=2, most=10)
    k = v.size(-1)
    op = g.r.choice(['FusedGemm', 'SimplifiedLayerNormalization'])
    if op == 'FusedGemm':
        g.emit(op, [v, g.weights([k, 4], 0.5), g.weights([4])], 'f', [v.dims[0], pair(4)], 0, 99, domain=MICROSOFT,
               activation=g.r.choice(['Relu', 'Tanh']))
    else:
        if k < 3 or not v.exact:
            raise Skip
        g.emit(op, [v, g.weights([k])], 'f', v.dims, -6, 6, axis=-1, epsilon=1e-5)


@operator(since=11)
def dynamic_lstm(g):
    v = g.input('f', [pair(3), g.r.choice([pair(2), *g.symbols.values()]), pair(4)])
    h = 3
    w = g.constant(g.data.integers(-100, 100, [1, 4, 4 * h]).astype(np.int8))
    r = g.constant(g.data.integers(-100, 100, [1, h, 4 * h]).astype(np.int8))
    scale, zero = g.constant(np.array([0.01], np.float32)), g.constant(np.zeros([1], np.int8))
    names = g.node('DynamicQuantizeLSTM', [v, w, r, g.weights([1, 8 * h], 0.3), '', '', '', '', scale, zero, scale, zero], 1, domain=MICROSOFT,
                   hidden_size=h)
    g.result(names[0], 'f', [v.dims[0], pair(1), v.dims[1], pair(h)], -1, 1, tol=0.03)


@operator(since=13)
def gather_blocks(g):
    codes = g.constant(g.data.integers(0, 256, [6, 16]).astype(np.uint8))
    scales = g.constant(g.data.uniform(0.01, 0.1, [6, 2]).astype(np.float32))
    n = g.r.choice([pair(3), *g.symbols.values()])
    index = g.input('i64', [n], lo=0, hi=5)
    g.values.remove(index)
    g.emit('GatherBlockQuantized', [codes, index, scales], 'f', [n, pair(32)], -2, 2, domain=MICROSOFT, gather_axis=0, quantize_axis=1,
           block_size=16, bits=4)


# -- running ---------------------------------------------------------------------------------------------

def write(seed, folder):
    """The model and its inputs in `folder`; returns the Graph."""
    g = Graph(seed)
    model = g.build()
    os.makedirs(folder, exist_ok=True)
    onnx.save(model, f'{folder}/model.onnx')
    for run in (0, 1):
        for v, data in g.inputs:
            np.save(f'{folder}/{v.name}.{run}.npy', data[run])
    return g


def run_ort(folder, g, runs, nudge=0.0, optimize=True):
    """The results of each run by ONNX Runtime."""
    jobs = []
    for run in runs:
        feeds = []
        for v, data in g.inputs:
            path = f'{folder}/{v.name}.{run}.bin'
            x = data[run]
            if nudge and v.dtype == 'f':
                x = (x * (1 + nudge)).astype(np.float32)
            np.ascontiguousarray(x).tofile(path)
            feeds.append({'name': v.name, 'type': 'bool' if v.dtype == 'b' else str(np.dtype(NUMPY_TYPE[v.dtype])),
                          'dims': list(x.shape), 'file': path})
        jobs.append({'inputs': feeds, 'out': f'{folder}/ort{run}'})
    with open(f'{folder}/ort.json', 'w') as f:
        json.dump({'model': f'{folder}/model.onnx', 'runs': jobs, 'optimize': optimize}, f)
    return f'{folder}/ort.json'


def read_ort(folder, run):
    path = f'{folder}/ort{run}.json'
    if not os.path.exists(path):
        return None
    with open(path) as f:
        meta = json.load(f)
    if 'error' in meta:
        return meta['error']
    return {m['name']: np.fromfile(m['file'], m['type']).reshape(m['dims']) for m in meta['results']}


def start_ort(specs):
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'run_ort.js')
    done = subprocess.run(['node', script, *specs], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError('ONNX Runtime: ' + done.stderr[-500:])


def run_octet(binary, folder, g, run, extra=()):
    command = [binary, 'run', f'{folder}/model.onnx', '--output', f'{folder}/octet{run}.npz', *extra]
    for v, _ in g.inputs:
        command += ['--input', f'{v.name}={folder}/{v.name}.{run}.npy']
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip()[-600:] or f'ended by signal {-done.returncode}'
    with np.load(f'{folder}/octet{run}.npz') as z:
        return {k: z[k] for k in z.files}


def scale_of(x):
    finite = x[np.isfinite(x)] if x.size else x
    return max(float(np.ptp(finite)), 0.1 * float(np.abs(finite).max()), 1e-3) if finite.size else 1.0


def difference(v, got, want):
    """What is wrong with octet's result; '' if nothing."""
    if got.shape != want.shape:
        return f'{v.name}: shape {got.shape}, ONNX Runtime has {want.shape}'
    if got.dtype != want.dtype:
        return f'{v.name}: {got.dtype}, ONNX Runtime has {want.dtype}'
    a, b = got.astype(np.float64), want.astype(np.float64)
    with np.errstate(invalid='ignore'):
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        error = np.where(same, 0, np.abs(a - b))
    error = np.where(np.isnan(error), np.inf, error)
    allowed = v.tol * 1.01 + (1e-4 * scale_of(b) if want.dtype == np.float32 else 0)
    if error.size and error.max() > allowed:
        at = np.unravel_index(error.argmax(), error.shape)
        return f'{v.name} at {[int(i) for i in at]}: {got[at]}, ONNX Runtime has {want[at]} ({error.max():.3g} > {allowed:.3g})'
    return ''


def ill_conditioned(folder, g, run, name):
    """Whether ONNX Runtime's own result moves as much when the inputs move by a rounding."""
    try:
        start_ort([run_ort(folder, g, [run], 3e-7)])
        a = read_ort(folder, run)
        start_ort([run_ort(folder, g, [run], -3e-7, optimize=False)])
        b = read_ort(folder, run)
        if a[name].shape != b[name].shape:
            return True
        x, y = a[name].astype(np.float64), b[name].astype(np.float64)
        return bool((np.abs(x - y) > 2e-5 * scale_of(y)).any()) if x.size else False
    except (RuntimeError, TypeError, KeyError):
        return False


def check(seeds, binary, work, verbose=False):
    counts = collections.Counter()
    failures = []
    batch = 50
    for start in range(0, len(seeds), batch):
        graphs = {}
        for seed in seeds[start:start + batch]:
            graphs[seed] = write(seed, f'{work}/{seed}')
        start_ort([run_ort(f'{work}/{seed}', g, (0, 1)) for seed, g in graphs.items()])
        for seed, g in graphs.items():
            folder = f'{work}/{seed}'
            outcome = ''
            for run in (0, 1):
                want = read_ort(folder, run)
                if want is None or isinstance(want, str):
                    outcome = 'not run by ONNX Runtime'
                    if verbose:
                        print(f'seed {seed}: {want}')
                    break
                got = run_octet(binary, folder, g, run)
                if isinstance(got, str) and g.loose and '--shape' in got:
                    outcome = 'refused'
                    break
                if isinstance(got, str):
                    outcome = f'run {run}: {got}'
                    break
                for v in g.outputs:
                    wrong = difference(v, got[v.name], want[v.name]) if v.name in got else f'no result {v.name}'
                    if wrong and ill_conditioned(folder, g, run, v.name):
                        counts['ill-conditioned'] += 1
                        continue
                    if wrong:
                        outcome = f'run {run}: {wrong}'
                        break
                if outcome:
                    break
            if outcome in ('not run by ONNX Runtime', 'refused'):
                counts[outcome] += 1
            elif outcome:
                failures.append(seed)
                print(f'seed {seed} (opset {g.opset}): {outcome}', flush=True)
            else:
                counts['agree'] += 1
    print(f'{counts["agree"]} of {len(seeds)} graphs agree, {len(failures)} fail, {counts["not run by ONNX Runtime"]} are not run by '
          f'ONNX Runtime, {counts["refused"]} want their sizes fixed, {counts["ill-conditioned"]} results are ill-conditioned')
    if failures:
        print('failing seeds:', *failures)
    return not failures


def seeds_of(text):
    seeds = []
    for part in text.split(','):
        ends = part.split(':')
        seeds += range(int(ends[0]), int(ends[-1]) if len(ends) > 1 else int(ends[0]) + 1)
    return seeds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    p = commands.add_parser('check', help='run graphs by octet and ONNX Runtime and compare')
    p.add_argument('seeds', help='17, 0:300 or 3,5,10:20')
    p.add_argument('--octet', default=os.environ.get('OCTET_BINARY') or 'build/bin/octet')
    p.add_argument('--work', help='a directory in which models and results stay')
    p.add_argument('--verbose', action='store_true', help='say why ONNX Runtime does not run a graph')
    p = commands.add_parser('write', help='write one graph and its data')
    p.add_argument('seed', type=int)
    p.add_argument('folder')
    p = commands.add_parser('operators', help='count the operators')
    p.add_argument('seeds')
    o = parser.parse_args()
    if o.command == 'write':
        write(o.seed, o.folder)
    elif o.command == 'operators':
        counts = collections.Counter()
        for seed in seeds_of(o.seeds):
            g = Graph(seed)
            g.build()
            counts.update(g.used)
        for name, n in sorted(counts.items()):
            print(f'{n:5} {name}')
    elif o.work:
        os.makedirs(o.work, exist_ok=True)
        sys.exit(not check(seeds_of(o.seeds), o.octet, o.work, o.verbose))
    else:
        with tempfile.TemporaryDirectory() as work:
            sys.exit(not check(seeds_of(o.seeds), o.octet, work, o.verbose))


if __name__ == '__main__':
    main()
