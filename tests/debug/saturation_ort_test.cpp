// The forecast of saturation against ONNX Runtime itself on a CPU whose best is AVX2: this one, or
// an emulated Haswell (qemu-x86_64) where this one has VNNI.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "octet/base/cpu.h"
#include "octet/debug/saturation.h"
#include "octet/io/onnx/export.h"
#include "octet/nn/nn.h"
#include "octet/ops/functional.h"
#include "octet/quant/workflow/fx.h"
#include "tests/process.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

// Operands and weights are mostly positive, so that pairs of products leave 16 bits.
struct WideNet : nn::Module {
  nn::Slot stem = slot("stem", nn::Conv2d(3, 8, 3, {.padding = 1}));
  nn::Slot depthwise = slot("depthwise", nn::Conv2d(8, 8, 3, {.groups = 8}));
  nn::Slot grouped = slot("grouped", nn::Conv2d(8, 6, 3, {.stride = 2, .groups = 2}));
  nn::Slot pointwise = slot("pointwise", nn::Conv2d(6, 7, 1));
  nn::Slot fc = slot("fc", nn::Linear(63, 10));
  Tensor forward(Tensor x) override {
    x = functional::relu(stem(x));
    x = functional::relu(grouped(functional::relu(depthwise(x))));
    return fc(functional::relu(pointwise(x)).flatten(1));
  }
};

struct OrtSaturation : ::testing::TestWithParam<const char*> {};  // the activations' dtype

TEST_P(OrtSaturation, TheForecastIsWhatOnnxRuntimeComputesOnAvx2) {
  if (!std::getenv("ORT_DIR")) GTEST_SKIP() << "ORT_DIR does not name an onnxruntime-node package";
  std::vector<std::string> command{"/usr/bin/env", "node"};
  if (cpu_supports(Isa::avxvnni) || cpu_supports(Isa::avx512vnni)) {
    const std::string both = "{ command -v qemu-x86_64 && command -v node; } || exit 1";
    if (run_process({"/usr/bin/env", "sh", "-c", both}).code != 0)
      GTEST_SKIP() << "this CPU has VNNI, and there is no qemu-x86_64 to hide it";
    const auto node = run_process({"/usr/bin/env", "sh", "-c", "command -v node"}).out;
    command = {"/usr/bin/env", "qemu-x86_64", "-cpu", "Haswell", node.substr(0, node.find('\n'))};
  }
  auto net = nn::make<WideNet>();
  net->eval();
  uint64_t seed = 1;
  for (auto& [name, p] : net->named_parameters())
    p->copy_from(Tensor::rand(p->shape(), seed++, -0.1, 1));
  const Tensor x = Tensor::rand({4, 3, 9, 9}, 99, 0, 1);
  Attrs qconfig = quant::to_attrs(quant::get_default_qconfig("native"));
  qconfig.set("activation.dtype", std::string(GetParam()));
  auto prepared =
      quant::prepare_fx(net, quant::QConfigMapping().set_global(quant::qconfig_from(qconfig)), {x});
  (*prepared)(x);
  const graph::Graph graph = quant::convert_fx(prepared)->to_graph();

  const runtime::Program program = runtime::compile(graph, {.engine = "native"});
  const debug::SaturationReport report = debug::forecast_saturation(program, {{x}});
  ASSERT_GT(report.outputs.at(0).error.noise(), 0) << "nothing saturates: the test says nothing";
  const Tensor forecast = runtime::compile(graph, {.engine = "saturating16"}).run({x})[0];

  TempDir dir;
  const std::string model = dir.path() / "net.onnx", data = dir.path() / "x.f32";
  io::export_onnx(graph, model);
  std::ofstream(data, std::ios::binary)
      .write(static_cast<const char*>(x.raw_data()), static_cast<std::streamsize>(x.nbytes()));
  command.insert(command.end(), {"tests/run_ort.js", model, data, "4", "3", "9", "9"});
  const RunResult run = run_process(command);
  ASSERT_EQ(run.code, 0) << run.err;
  std::vector<float> ort;
  std::istringstream lines(run.out);
  for (std::string line; std::getline(lines, line);) ort.push_back(std::stof(line));
  EXPECT_EQ(ort, forecast.to_vector<float>());
}

INSTANTIATE_TEST_SUITE_P(Ort, OrtSaturation, ::testing::Values("quint8", "qint8"));

}  // namespace
}  // namespace octet::testing
