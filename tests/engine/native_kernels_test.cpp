// Native kernels of operators that also have an evaluation of their own, which ops::call takes
// first: the kernels, as programs run them, give its bits on every instruction set, in every
// layout, with every number of threads. A failing case names its seed.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "octet/base/cpu.h"
#include "octet/base/parallel.h"
#include "octet/base/random.h"
#include "octet/engine/engine.h"
#include "octet/ops/op.h"
#include "tests/engine/defaults.h"
#include "tests/engine/slack.h"

namespace octet {
namespace {

using testing::Defaults;

struct KernelCase {
  std::string op;
  std::vector<Tensor> inputs;
  Attrs attrs;
  std::optional<ops::QType> want;
  size_t constants_from = 100;  // operands from this one on are constants
  bool through_float = false;   // of codes the kernel may be one between floats
};

class KernelGenerator {
 public:
  explicit KernelGenerator(uint64_t seed) : random_(seed) {
    dtype_ = chance(0.6) ? DType::quint8 : DType::qint8;
  }
  int64_t integer(int64_t lo, int64_t hi) { return random_.integer(lo, hi); }
  bool chance(double p) { return random_.uniform() < p; }
  template <typename T>
  T one_of(const std::vector<T>& list) {
    return list[static_cast<size_t>(integer(0, static_cast<int64_t>(list.size()) - 1))];
  }
  QuantizerPtr qparams() {
    return Quantizer::per_tensor(static_cast<float>(std::pow(10.0, random_.uniform(-3, 0.5))),
                                 integer(qmin(dtype_), qmax(dtype_)), dtype_);
  }
  Tensor codes(const Shape& shape) { return codes(shape, qparams()); }
  Tensor codes(const Shape& shape, QuantizerPtr q) {
    Tensor t = Tensor::empty(shape, dtype_, std::move(q));
    auto* data = static_cast<uint8_t*>(t.raw_data());
    for (int64_t i = 0; i < t.numel(); ++i) data[i] = static_cast<uint8_t>(integer(0, 255));
    return t;
  }
  Tensor floats(const Shape& shape) {
    Tensor t = Tensor::empty(shape);
    for (int64_t i = 0; i < t.numel(); ++i)
      t.data<float>()[i] =
          chance(0.1) ? (chance(0.5) ? 0.0f : -0.0f) : static_cast<float>(random_.uniform(-3, 3));
    return t;
  }
  // Codes more often than floats.
  Tensor values(const Shape& shape) { return chance(0.7) ? codes(shape) : floats(shape); }
  ops::QType result() { return {dtype_, qparams()}; }

 private:
  Random random_;
  DType dtype_;
};

bool same_bits(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) return false;
  if (a.is_quantized() && !(*a.quantizer() == *b.quantizer())) return false;
  const Tensor x = a.contiguous(), y = b.contiguous();
  return std::memcmp(x.raw_data(), y.raw_data(), static_cast<size_t>(x.nbytes())) == 0;
}

// Null where the native engine has no kernel of its own (one through floats is not).
std::unique_ptr<Kernel> native_kernel(const OpSpec& spec, bool through_float = false) {
  auto kernel = make_kernel(spec, "native");
  if (!kernel || kernel->engine() != "native") return nullptr;
  if (through_float) return kernel;
  return kernel->name().find("in float") == std::string::npos ? std::move(kernel) : nullptr;
}

void expect_as_reference(int cases, const std::function<KernelCase(KernelGenerator&)>& make) {
  Defaults defaults;
  for (int seed = 0; seed < cases; ++seed) {
    KernelGenerator g(static_cast<uint64_t>(seed));
    const KernelCase c = make(g);
    set_engine("reference");
    const std::vector<Tensor> expected = ops::call_all(c.op, c.inputs, c.attrs, c.want);
    std::vector<std::optional<TensorType>> types;
    for (const Tensor& t : c.inputs) types.emplace_back(t.type());
    std::vector<TensorType> outputs;
    for (const Tensor& t : expected) outputs.push_back(t.type());
    const ops::Op& op = ops::get(c.op);
    std::vector<Tensor> constants = c.inputs;
    std::fill_n(constants.begin(), std::min(c.constants_from, constants.size()), Tensor());
    const OpSpec spec = ops::make_spec(op, op.complete(c.attrs), types, std::move(constants),
                                       std::move(outputs), c.op);
    std::vector<Tensor> channels_last;
    for (const Tensor& t : c.inputs)
      channels_last.push_back(t.dim() == 4 ? t.contiguous(MemoryFormat::channels_last) : t);
    set_num_threads(1 + seed / 50 % 3);  // seldom: a new count means a new pool
    for (Isa isa : supported_isas()) {
      set_isa(isa);
      auto kernel = native_kernel(spec, c.through_float);
      ASSERT_TRUE(kernel) << c.op << ", seed " << seed << ": x " << to_string(c.inputs[0].type());
      for (const auto& inputs : {c.inputs, channels_last}) {
        testing::fill_slack(inputs, 255);
        const std::vector<Tensor> got = run_kernel(*kernel, spec, inputs);
        ASSERT_EQ(got.size(), expected.size());
        for (size_t i = 0; i < got.size(); ++i)
          ASSERT_TRUE(same_bits(got[i], expected[i]))
              << c.op << ", seed " << seed << ", " << to_string(isa) << ", " << num_threads()
              << " threads: x " << to_string(c.inputs[0].type()) << ", y "
              << to_string(expected[i].type());
      }
    }
  }
}

Shape random_shape(KernelGenerator& g, int64_t rank, int64_t most) {
  Shape shape;
  for (int64_t d = 0; d < rank; ++d) shape.push_back(g.integer(1, d == 1 ? 3 * most : most));
  return shape;
}

}  // namespace

TEST(NativeKernels, AddSubAndMulOfBroadcastCodes) {
  expect_as_reference(900, [](KernelGenerator& g) {
    const int64_t rank = g.integer(1, 4);
    const Shape y = random_shape(g, rank, 12);
    // Each dimension belongs to both operands or to one; leading ones may be missing.
    auto operand = [&](Shape shape) {
      while (!shape.empty() && shape[0] == 1 && g.chance(0.5)) shape.erase(shape.begin());
      return g.codes(shape);
    };
    Shape a = y, b = y;
    for (size_t d = 0; d < y.size(); ++d)
      if (g.chance(0.5)) (g.chance(0.5) ? a : b)[d] = 1;
    const std::string op = g.one_of<std::string>({"add", "sub", "mul"});
    Attrs attrs;
    if (op != "sub") attrs.set("activation", g.one_of<std::string>({"none", "relu", "relu6"}));
    return KernelCase{op, {operand(a), operand(b)}, attrs, g.result()};
  });
}

TEST(NativeKernels, AddOfCodesAndBroadcastFloats) {
  expect_as_reference(600, [](KernelGenerator& g) {
    const Shape y = random_shape(g, g.integer(1, 4), 12);
    Shape repeated = y;
    for (int64_t& size : repeated)
      if (g.chance(0.5)) size = 1;
    while (!repeated.empty() && repeated[0] == 1 && g.chance(0.5)) repeated.erase(repeated.begin());
    Tensor a = g.codes(y), b = g.floats(repeated);
    if (g.chance(0.5)) std::swap(a, b);
    return KernelCase{"add",
                      {a, b},
                      {{"activation", g.one_of<std::string>({"none", "relu", "relu6"})}},
                      g.result()};
  });
}

TEST(NativeKernels, ArithmeticOfBroadcastFloats) {
  expect_as_reference(600, [](KernelGenerator& g) {
    const Shape y = random_shape(g, g.integer(1, 4), 12);
    Shape a = y, b = y;
    for (size_t d = 0; d < y.size(); ++d)
      if (g.chance(0.5)) (g.chance(0.5) ? a : b)[d] = 1;
    return KernelCase{g.one_of<std::string>({"add", "sub", "mul", "div"}),
                      {g.floats(a), g.floats(b)},
                      {},
                      std::nullopt};
  });
}

// The gates of squeeze-and-excite: one code for each channel, of images small and large.
TEST(NativeKernels, GatesOfChannels) {
  expect_as_reference(60, [](KernelGenerator& g) {
    const int64_t n = g.integer(1, 3), c = g.integer(1, 600), side = g.integer(1, 40);
    std::vector<Tensor> operands{g.codes({n, c, side, side}), g.codes({n, c, 1, 1})};
    if (g.chance(0.3)) std::swap(operands[0], operands[1]);
    return KernelCase{"mul", operands, {}, g.result()};
  });
}

TEST(NativeKernels, Interpolate) {
  expect_as_reference(500, [](KernelGenerator& g) {
    const int64_t rank = g.integer(3, 4);
    const Shape shape = random_shape(g, rank, 9);
    Attrs attrs{
        {"mode", g.one_of<std::string>({"linear", "linear", "cubic", "nearest"})},
        {"coordinates", g.one_of<std::string>({"half_pixel", "align_corners", "asymmetric",
                                               "pytorch_half_pixel", "half_pixel_symmetric"})},
        {"nearest_rounding",
         g.one_of<std::string>({"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"})},
        {"exclude_outside", g.chance(0.2)},
        {"antialias", g.chance(0.2)}};
    const bool sizes = g.chance(0.5);
    std::vector<int64_t> size;
    std::vector<double> scales;
    for (int64_t d = 2; d < rank; ++d) {
      size.push_back(g.chance(0.2) ? -1 : g.integer(1, 30));
      const double least = 1.0 / static_cast<double>(shape[static_cast<size_t>(d)]);
      scales.push_back(std::max(g.one_of<double>({0.5, 1, 1.3, 2, 4}), least));
    }
    if (sizes)
      attrs.set("size", size);
    else
      attrs.set("scales", scales);
    return KernelCase{"interpolate", {g.values(shape)}, attrs, std::nullopt};
  });
}

// More columns than go into one block, and rows for several threads.
TEST(NativeKernels, InterpolateOfLargeImages) {
  expect_as_reference(12, [](KernelGenerator& g) {
    const Shape shape{g.integer(1, 2), g.integer(1, 70), g.integer(20, 60), g.integer(20, 90)};
    const Attrs attrs{{"mode", g.one_of<std::string>({"linear", "nearest"})},
                      {"coordinates", g.one_of<std::string>({"half_pixel", "align_corners"})},
                      {"size", std::vector<int64_t>{g.integer(10, 120), g.integer(10, 200)}}};
    return KernelCase{"interpolate", {g.values(shape)}, attrs, std::nullopt};
  });
}

TEST(NativeKernels, Slice) {
  expect_as_reference(500, [](KernelGenerator& g) {
    const int64_t rank = g.integer(1, 4);
    const Shape shape = random_shape(g, rank, 14);
    return KernelCase{"slice",
                      {g.values(shape)},
                      {{"dim", g.integer(-rank, rank - 1)},
                       {"start", g.integer(-8, 8)},
                       {"end", g.integer(-8, 20)},
                       {"step", g.one_of<int64_t>({1, 1, 1, 2, 3, -1, -2})}},
                      std::nullopt};
  });
}

TEST(NativeKernels, Split) {
  expect_as_reference(300, [](KernelGenerator& g) {
    const int64_t rank = g.integer(1, 4), dim = g.integer(0, rank - 1);
    Shape shape = random_shape(g, rank, 9);
    std::vector<int64_t> sizes;
    shape[static_cast<size_t>(dim)] = 0;
    for (int64_t i = g.integer(1, 4); i > 0; --i) {
      sizes.push_back(g.integer(i == 1 ? 1 : 0, 9));
      shape[static_cast<size_t>(dim)] += sizes.back();
    }
    return KernelCase{"split", {g.values(shape)}, {{"sizes", sizes}, {"dim", dim}}, std::nullopt};
  });
}

TEST(NativeKernels, Pad) {
  expect_as_reference(500, [](KernelGenerator& g) {
    const int64_t rank = g.integer(1, 4);
    Shape shape = random_shape(g, rank, 9);
    const auto mode = g.one_of<std::string>({"constant", "constant", "reflect", "edge", "wrap"});
    std::vector<int64_t> pads;
    for (int64_t i = 0; i < 2 * rank; ++i) {
      const int64_t n = shape[static_cast<size_t>(i % rank)];
      pads.push_back(g.chance(0.4) ? 0 : mode == "constant" ? g.integer(0, 20) : n - 1);
    }
    return KernelCase{
        "pad",
        {g.values(shape)},
        {{"pads", pads}, {"mode", mode}, {"value", g.one_of<double>({0, 0, 1.5, -2})}},
        std::nullopt};
  });
}

TEST(NativeKernels, Tile) {
  expect_as_reference(200, [](KernelGenerator& g) {
    const int64_t rank = g.integer(1, 4);
    const Shape shape = random_shape(g, rank, 6);
    std::vector<int64_t> repeats;
    for (int64_t d = 0; d < rank; ++d) repeats.push_back(g.integer(1, 3));
    return KernelCase{"tile", {g.values(shape)}, {{"repeats", repeats}}, std::nullopt};
  });
}

TEST(NativeKernels, Cat) {
  expect_as_reference(500, [](KernelGenerator& g) {
    const int64_t rank = g.integer(1, 4), dim = g.integer(0, rank - 1);
    const bool floats = g.chance(0.3), same = g.chance(0.3);
    const ops::QType want = g.result();
    Shape shape = random_shape(g, rank, 14);
    std::vector<Tensor> parts;
    for (int64_t i = g.integer(1, 4); i > 0; --i) {
      shape[static_cast<size_t>(dim)] = g.integer(i == 1 ? 1 : 0, g.chance(0.1) ? 400 : 20);
      parts.push_back(floats ? g.floats(shape)
                      : same ? g.codes(shape, want.quantizer)
                             : g.codes(shape));
    }
    return KernelCase{"cat", parts, {{"dim", dim}}, floats ? std::nullopt : std::optional(want)};
  });
}

// Dimensions that follow each other, which is what networks reduce.
TEST(NativeKernels, Reductions) {
  expect_as_reference(900, [](KernelGenerator& g) {
    const int64_t rank = g.integer(1, 4);
    const Shape shape = random_shape(g, rank, g.chance(0.1) ? 60 : 9);
    std::vector<int64_t> dims;
    const int64_t first = g.integer(0, rank - 1), last = g.integer(first, rank - 1);
    for (int64_t d = first; d <= last; ++d) dims.push_back(g.chance(0.5) ? d : d - rank);
    if (first == 0 && last == rank - 1 && g.chance(0.5)) dims.clear();
    const Attrs attrs{{"dim", dims}, {"keepdim", g.chance(0.5)}};
    const auto op = g.one_of<std::string>({"mean", "mean", "amax", "amin", "sum"});
    if (op == "sum") return KernelCase{op, {g.floats(shape)}, attrs, std::nullopt};
    if (op == "mean" && g.chance(0.3))
      return KernelCase{op, {g.floats(shape)}, attrs, std::nullopt};
    const bool own = op == "mean" && g.chance(0.5);
    return KernelCase{op, {g.codes(shape)}, attrs, own ? std::optional(g.result()) : std::nullopt};
  });
}

TEST(NativeKernels, SumsOfCodesGoThroughFloats) {
  expect_as_reference(60, [](KernelGenerator& g) {
    return KernelCase{"sum",
                      {g.codes(random_shape(g, 4, 9))},
                      {{"dim", std::vector<int64_t>{2, 3}}},
                      g.result(),
                      100,
                      true};
  });
}

TEST(NativeKernels, Normalizations) {
  expect_as_reference(500, [](KernelGenerator& g) {
    const int64_t groups = g.integer(1, 4);
    Shape shape = random_shape(g, g.integer(2, 4), 9);
    shape[1] *= groups;
    const bool floats = g.chance(0.5);
    std::vector<Tensor> operands{floats ? g.floats(shape) : g.codes(shape)};
    std::optional<ops::QType> want;
    if (!floats) want = g.result();
    auto channels = [&] { return g.floats({shape[1]}); };
    switch (g.integer(0, 2)) {
      case 0: {
        for (int i = 0; i < 3; ++i) operands.push_back(channels());
        operands.push_back(Tensor::rand({shape[1]}, 7, 0.1, 3));
        return KernelCase{"batch_norm", operands, {}, want, 1, true};
      }
      case 1:
        operands.push_back(channels());
        operands.push_back(channels());
        return KernelCase{"instance_norm", operands, {}, want, 100, true};
      default:
        if (g.chance(0.7)) operands.push_back(channels());
        if (operands.size() == 2 && g.chance(0.7)) operands.push_back(channels());
        return KernelCase{"group_norm", operands, {{"groups", groups}}, want, 100, true};
    }
  });
}

TEST(NativeKernels, SoftmaxAlongEveryDimension) {
  expect_as_reference(300, [](KernelGenerator& g) {
    const int64_t rank = g.integer(1, 4);
    const Shape shape = random_shape(g, rank, 12);
    const bool floats = g.chance(0.6);
    return KernelCase{"softmax",
                      {floats ? g.floats(shape) : g.codes(shape)},
                      {{"dim", g.integer(-rank, rank - 1)}},
                      std::nullopt,
                      100,
                      true};
  });
}

// A call whose result has other qparams than the operand is not a move of codes.
TEST(NativeKernels, MovesThatRequantizeAreLeftToTheOperator) {
  const TensorType x(DType::quint8, Shape{2, 3}, Quantizer::per_tensor(0.1, 3, DType::quint8)),
      y(DType::quint8, Shape{2, 2}, Quantizer::per_tensor(0.2, 3, DType::quint8));
  const ops::Op& slice = ops::get("slice");
  const Attrs attrs = slice.complete({{"dim", 1}, {"start", 0}, {"end", 2}});
  EXPECT_EQ(native_kernel(ops::make_spec(slice, attrs, {x}, {}, {y}, "s")), nullptr);
}

}  // namespace octet
