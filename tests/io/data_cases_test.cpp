// Inputs of public reports: models with inputs and the results they must give, run as `octet run`
// runs them, quantized with the inputs as calibration data, and written and read again in both
// formats. Where a file has no results, they are computed here by ONNX's definition.
#include <gtest/gtest.h>

#include <cmath>

#include "octet/graph/passes/fuse.h"
#include "octet/graph/passes/merge_qdq.h"
#include "octet/io/npz.h"
#include "octet/io/octet_file.h"
#include "octet/io/onnx/export.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"
#include "tests/data.h"
#include "tests/io/onnx/test_util.h"
#include "tests/sqnr.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

namespace fs = std::filesystem;

using Arrays = std::map<std::string, Tensor>;

// As `octet run` reads a model.
graph::Graph load(const fs::path& path) {
  if (path.extension() == ".octet") return io::load_octet(path);
  return graph::merge_qdq(graph::fuse_activations(io::import_onnx(path)));
}

struct ReportedCase {
  explicit ReportedCase(const std::string& name)
      : file(cases_dir() / (name + ".onnx")), graph(load(file)) {
    for (auto& [key, value] : read_npz(cases_dir() / (name + ".npz")))
      (key.starts_with("in.") ? in : out)[key.substr(key.find('.') + 1)] = value;
  }
  // The tensor of an initializer of the model.
  Tensor initializer(const std::string& name) const {
    for (const std::string& t : submessages(submessages(slurp(file), 7).at(0), 5))
      if (submessages(t, 8).at(0) == name) {
        TempDir dir;
        spill(dir / "t.pb", t);
        return io::read_onnx_tensor(dir / "t.pb");
      }
    throw std::runtime_error("no initializer " + name);
  }
  fs::path file;
  graph::Graph graph;
  Arrays in, out;
};

// As `octet run` writes the results: codes are integers of the type that the model declares.
Arrays run(const graph::Graph& g, const Arrays& in) {
  Arrays out = runtime::compile(g).run(in);
  for (auto& [name, value] : out)
    if (value.is_quantized()) value = value.int_repr();
  return out;
}

double value_range(const Tensor& t) {
  double low = 0, high = 0;
  for (float v : t.to(DType::float32).contiguous().reshape({-1}).to_vector<float>()) {
    low = std::min<double>(low, v);
    high = std::max<double>(high, v);
  }
  return high - low;
}

// Integers equal, floats within 1e-4 of the expected values' range.
void expect_same(const Tensor& got, const Tensor& want, const std::string& what) {
  ASSERT_EQ(got.shape(), want.shape()) << what;
  ASSERT_EQ(got.dtype(), want.dtype()) << what;
  if (!is_floating(want.dtype())) {
    EXPECT_TRUE(equal(got, want)) << what << ":\n"
                                  << to_string(got) << "\nexpected\n"
                                  << to_string(want);
    return;
  }
  EXPECT_TRUE(allclose(got, want, 0, 1e-4 * value_range(want) + 1e-30))
      << what << ":\n"
      << to_string(got) << "\nexpected\n"
      << to_string(want);
}

void expect_all(const Arrays& got, const Arrays& want, const std::string& what) {
  ASSERT_FALSE(want.empty());
  for (const auto& [name, value] : want) {
    ASSERT_TRUE(got.count(name)) << what << " gives no " << name;
    expect_same(got.at(name), value, what + ", " + name);
  }
}

// The same results from the files of both formats.
void expect_survives_files(const graph::Graph& g, const Arrays& in, const Arrays& want) {
  TempDir dir;
  io::save_octet(g, dir / "m.octet");
  expect_all(run(load(dir / "m.octet"), in), want, ".octet");
  io::export_onnx(g, dir / "m.onnx");
  expect_all(run(load(dir / "m.onnx"), in), want, ".onnx");
}

// The right values, now and after writing and reading.
void check_float(const std::string& name) {
  ReportedCase c(name);
  expect_all(run(c.graph, c.in), c.out, name);
  expect_survives_files(c.graph, c.in, c.out);
}

std::vector<Tensor> in_order(const graph::Graph& g, const Arrays& in) {
  std::vector<Tensor> values;
  for (graph::ValueId id : g.inputs()) values.push_back(in.at(g.value(id).name));
  return values;
}

struct Quantized {
  graph::Graph graph;
  quant::ConversionReport report;
};

Quantized quantize(const ReportedCase& c) {
  auto prepared = quant::prepare_fx(c.graph, quant::get_default_qconfig("native"));
  prepared->forward(in_order(c.graph, c.in));
  Quantized q;
  q.graph = quant::convert_fx(prepared, &q.report)->graph();
  return q;
}

// Quantized with its inputs as calibration data, the first output comes within `db` of the right
// one, with `integer` running in 8 bits; and the files of both formats give the same.
void check_quantized(const std::string& name, double db, const std::string& integer) {
  ReportedCase c(name);
  Quantized q = quantize(c);
  const std::string first = c.graph.value(c.graph.outputs()[0]).name;
  const Arrays got = run(q.graph, c.in);
  EXPECT_GE(sqnr(c.out.at(first), got.at(first)), db) << graph::print(q.graph);
  EXPECT_TRUE(q.graph.type(node_of(q.graph, integer).outputs[0]).is_quantized())
      << graph::print(q.graph);
  TempDir dir;
  io::save_octet(q.graph, dir / "q.octet");
  io::export_onnx(q.graph, dir / "q.onnx");
  EXPECT_TRUE(equal(run(load(dir / "q.octet"), c.in).at(first), got.at(first)));
  const graph::Graph again = load(dir / "q.onnx");
  EXPECT_TRUE(again.type(node_of(again, integer).outputs[0]).is_quantized()) << graph::print(again);
  EXPECT_TRUE(equal(run(again, c.in).at(first), got.at(first)))
      << sqnr(got.at(first), run(again, c.in).at(first)) << " dB\n"
      << graph::print(again);
}

void check(const std::string& name, double db, const std::string& integer) {
  check_float(name);
  check_quantized(name, db, integer);
}

// -- transposed convolutions ----------------------------------------------------------------------

TEST(DataCases, ConvTranspose1d) {
  OCTET_NEED_CASE("convtranspose.c1d.onnx");
  check("convtranspose.c1d", 30, "conv_transpose1d");
}

TEST(DataCases, ConvTransposeDepthwise) {
  OCTET_NEED_CASE("convtranspose.depthwise.onnx");
  check("convtranspose.depthwise", 30, "conv_transpose2d");
}

TEST(DataCases, ConvTransposeDilatedWithUnevenPads) {
  OCTET_NEED_CASE("convtranspose.dil_asympads.onnx");
  check("convtranspose.dil_asympads", 30, "conv_transpose2d");
}

TEST(DataCases, ConvTransposeInGroups) {
  OCTET_NEED_CASE("convtranspose.group3.onnx");
  check("convtranspose.group3", 30, "conv_transpose2d");
}

TEST(DataCases, ConvTransposeOutputShape) {
  OCTET_NEED_CASE("convtranspose.output_shape.onnx");
  check("convtranspose.output_shape", 30, "conv_transpose2d");
}

TEST(DataCases, ConvTransposeSameLower) {
  OCTET_NEED_CASE("convtranspose.same_lower_k3s2.onnx");
  check("convtranspose.same_lower_k3s2", 30, "conv_transpose2d");
}

TEST(DataCases, ConvTransposeSameUpper) {
  OCTET_NEED_CASE("convtranspose.same_upper_k4s2.onnx");
  check("convtranspose.same_upper_k4s2", 30, "conv_transpose2d");
}

TEST(DataCases, ConvTransposeQdqRunsInIntegers) {
  OCTET_NEED_CASE("convtranspose.qdq.onnx");
  check_float("convtranspose.qdq");
  EXPECT_EQ(ops_of(ReportedCase("convtranspose.qdq").graph),
            "quantize conv_transpose2d dequantize");
}

// -- recurrent layers, resizing, graphs -----------------------------------------------------------

TEST(DataCases, RecurrentLayer) {
  OCTET_NEED_CASE("gru-lstm.m.onnx");
  check("gru-lstm.m", 30, "linear");
  ReportedCase c("gru-lstm.m");
  graph::Graph dynamic = quant::quantize_dynamic_fx(c.graph);
  EXPECT_TRUE(dynamic.type(node_of(dynamic, "rnn").inputs[2]).is_quantized());
  EXPECT_GE(sqnr(c.out.at("y"), run(dynamic, c.in).at("y")), 30);
}

TEST(DataCases, ResizeCubicExcludingOutside) {
  OCTET_NEED_CASE("upsample-resize.cubic.onnx");
  check("upsample-resize.cubic", 30, "conv2d");
}

TEST(DataCases, ResizeToSizesComputedInTheGraph) {
  OCTET_NEED_CASE("upsample-resize.rs11dyn.onnx");
  check("upsample-resize.rs11dyn", 30, "conv2d");
}

TEST(DataCases, ResizeOfSomeAxes) {
  OCTET_NEED_CASE("upsample-resize.rs18axes.onnx");
  check("upsample-resize.rs18axes", 30, "conv2d");
}

TEST(DataCases, IfWithAKnownCondition) {
  OCTET_NEED_CASE("misc-graph.ifc.onnx");
  check("misc-graph.ifc", 30, "conv2d");
}

TEST(DataCases, ValuesOnTheWayAndInputsAsOutputs) {
  OCTET_NEED_CASE("misc-graph.mid.onnx");
  ReportedCase c("misc-graph.mid");
  expect_all(run(c.graph, c.in), c.out, "mid");
  expect_survives_files(c.graph, c.in, c.out);
}

TEST(DataCases, ReduceMaxWithAxesAsInput) {
  OCTET_NEED_CASE("split-reduce-opset18.rmax18.onnx");
  check("split-reduce-opset18.rmax18", 30, "conv2d");
}

TEST(DataCases, SplitWithoutSizes) {
  OCTET_NEED_CASE("split-reduce-opset18.split13_nosplit.onnx");
  check("split-reduce-opset18.split13_nosplit", 30, "conv2d");
}

TEST(DataCases, ClipWithMinAboveMaxGivesMax) {
  OCTET_NEED_CASE("clip.minmaxcross.onnx");
  check_float("clip.minmaxcross");
}

TEST(DataCases, Uint8InAndOut) {
  OCTET_NEED_CASE("uint8-io.full.onnx");
  check_float("uint8-io.full");
}

// -- integer operators ----------------------------------------------------------------------------

TEST(DataCases, DequantizeInBlocks) {
  OCTET_NEED_CASE("integer-ops.block_dq21.onnx");
  check_float("integer-ops.block_dq21");
}

TEST(DataCases, SixteenBitCodes) {
  OCTET_NEED_CASE("integer-ops.ql16.onnx");
  check_float("integer-ops.ql16");
}

TEST(DataCases, MatMulOfPackedBits) {
  OCTET_NEED_CASE("integer-ops.matmulnbits.onnx");
  check_float("integer-ops.matmulnbits");
}

TEST(DataCases, AddOfCodes) {
  OCTET_NEED_CASE("integer-ops.qlinearadd.onnx");
  check_float("integer-ops.qlinearadd");
}

// (N, C, H, W) of which only whole windows count, x and w as whole numbers: the sum of products at
// an output.
int64_t window_sum(const Tensor& x, int64_t x_zero, const Tensor& w, int64_t w_zero, int64_t pad,
                   int64_t groups, const std::vector<int64_t>& at) {
  int64_t sum = 0;
  const int64_t group = at[1] / (w.size(0) / groups);
  for (int64_t c = 0; c < w.size(1); ++c)
    for (int64_t i = 0; i < w.size(2); ++i)
      for (int64_t j = 0; j < w.size(3); ++j) {
        const int64_t h = at[2] + i - pad, v = at[3] + j - pad;
        if (h < 0 || h >= x.size(2) || v < 0 || v >= x.size(3)) continue;
        sum += (static_cast<int64_t>(x.at({at[0], group * w.size(1) + c, h, v})) - x_zero) *
               (static_cast<int64_t>(w.at({at[1], c, i, j})) - w_zero);
      }
  return sum;
}

TEST(DataCases, ConvInteger) {
  OCTET_NEED_CASE("integer-ops.convinteger.onnx");
  ReportedCase c("integer-ops.convinteger");
  const Tensor &x = c.in.at("a"), w = c.initializer("w");
  Tensor want = Tensor::zeros({1, 4, 8, 8}, DType::int32);
  for (int64_t i = 0; i < want.numel(); ++i)
    want.data<int32_t>()[i] =
        static_cast<int32_t>(window_sum(x, 120, w, 0, 1, 1, {0, i / 64, i / 8 % 8, i % 8}));
  expect_same(run(c.graph, c.in).at("y"), want, "y");
  expect_survives_files(c.graph, c.in, {{"y", want}});
}

TEST(DataCases, QLinearConv) {
  OCTET_NEED_CASE("integer-ops.qlinearconv.onnx");
  ReportedCase c("integer-ops.qlinearconv");
  const Tensor &x = c.in.at("a"), w = c.initializer("w"), ws = c.initializer("ws"),
               b = c.initializer("b");
  Tensor want = Tensor::zeros({1, 6, 8, 8}, DType::uint8);
  for (int64_t i = 0; i < want.numel(); ++i) {
    const int64_t channel = i / 64;
    const int64_t sum =
        window_sum(x, 120, w, 0, 1, 3, {0, channel, i / 8 % 8, i % 8}) + b.data<int32_t>()[channel];
    const float scale = 0.02f * ws.data<float>()[channel] / 0.05f;
    want.data<uint8_t>()[i] = static_cast<uint8_t>(
        std::clamp(std::nearbyint(static_cast<float>(sum) * scale) + 99.0f, 0.0f, 255.0f));
  }
  expect_same(run(c.graph, c.in).at("y"), want, "y");
  EXPECT_TRUE(c.graph.type(node_of(c.graph, "conv2d").outputs[0]).is_quantized());
  expect_survives_files(c.graph, c.in, {{"y", want}});
}

TEST(DataCases, DynamicQuantizeLinearAndMatMulInteger) {
  OCTET_NEED_CASE("integer-ops.dql_matmulinteger.onnx");
  ReportedCase c("integer-ops.dql_matmulinteger");
  const Tensor &x = c.in.at("x"), w = c.initializer("w");
  const float ws = c.initializer("ws").data<float>()[0];
  float low = 0, high = 0;
  for (float v : x.to_vector<float>()) low = std::min(low, v), high = std::max(high, v);
  const float scale = (high - low) / 255;
  const float zero = std::nearbyint(std::clamp(0 - low / scale, 0.0f, 255.0f));
  const int64_t rows = x.size(0), k = x.size(1), columns = w.size(1);
  Tensor want = Tensor::zeros({rows, columns});
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) {
      int32_t sum = 0;
      for (int64_t p = 0; p < k; ++p) {
        const float code =
            std::clamp(std::nearbyint(x.data<float>()[i * k + p] / scale) + zero, 0.0f, 255.0f);
        sum += (static_cast<int32_t>(code) - static_cast<int32_t>(zero)) *
               w.data<int8_t>()[p * columns + j];
      }
      want.data<float>()[i * columns + j] = static_cast<float>(sum) * (scale * ws);
    }
  EXPECT_TRUE(equal(run(c.graph, c.in).at("y"), want))
      << to_string(run(c.graph, c.in).at("y")) << to_string(want);
  expect_survives_files(c.graph, c.in, {{"y", want}});
}

// -- quantization: biases, slopes, joined scales --------------------------------------------------

TEST(DataCases, PrunedChannelKeepsItsBias) {
  OCTET_NEED_CASE("dead-channel-bias.m_zero.onnx");
  check("dead-channel-bias.m_zero", 30, "conv2d");
}

TEST(DataCases, NearlyPrunedChannelKeepsItsBias) {
  OCTET_NEED_CASE("dead-channel-bias.m_1e-6.onnx");
  check("dead-channel-bias.m_1e-6", 30, "conv2d");
}

TEST(DataCases, NetWithAPrunedChannelKeepsItsBias) {
  OCTET_NEED_CASE("dead-channel-bias.net.onnx");
  check("dead-channel-bias.net", 30, "conv2d");
}

TEST(DataCases, BiasAtTheEndOfInt32) {
  OCTET_NEED_CASE("qdq-conv-bias.m_231-1.onnx");
  check_float("qdq-conv-bias.m_231-1");
}

TEST(DataCases, UnusedOutlierSlopeCostsNothing) {
  OCTET_NEED_CASE("prelu-unused-outlier-slope.1c11.onnx");
  check("prelu-unused-outlier-slope.1c11", 25, "conv2d");
}

TEST(DataCases, ConcatOfInputs) {
  OCTET_NEED_CASE("concat-inputs.only.onnx");
  check_float("concat-inputs.only");
}

}  // namespace
}  // namespace octet::testing
