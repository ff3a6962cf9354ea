// Networks as C source: compiled without floats, they give octet's codes.
#include "octet/runtime/export_c.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "octet/graph/trace.h"
#include "octet/io/onnx/import.h"
#include "octet/nn/nn.h"
#include "octet/ops/functional.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"
#include "tests/data.h"
#include "tests/expect_error.h"
#include "tests/process.h"
#include "tests/temp_dir.h"

namespace octet::runtime {
namespace {

using graph::Graph;

// A converted network whose inputs are codes as they come in C, and whose results are codes.
Graph quantized(const nn::ModulePtr& model, const std::vector<Tensor>& samples,
                const quant::QConfigMapping& mapping = quant::get_default_qconfig_mapping()) {
  model->eval();
  const auto prepared = quant::prepare_fx(model, mapping, samples);
  prepared->forward(samples);
  return quant::convert_fx(prepared)->to_graph();
}

// Compiles the source of the network and runs it on `runs` random inputs of codes; the results are
// compared with the program's, whose float inputs are these codes' values.
void expect_same(const Graph& network, int runs = 5) {
  const CSource source = export_c(network, "net");
  testing::TempDir dir;
  for (const auto& [name, text] : source.files) testing::spill(dir / name, text);
  std::vector<graph::ValueId> ins, outs;  // of codes
  for (const graph::Node& node : network.nodes()) {
    if (node.kind != graph::NodeKind::call) continue;
    if (node.op == "quantize") ins.push_back(node.outputs[0]);
    if (node.op == "dequantize") outs.push_back(node.inputs[0]);
  }
  std::string main =
      "#include <stdio.h>\n#include \"net.h\"\n"
      "static uint8_t arena[NET_ARENA_SIZE];\nint main(void) {\n";
  std::string arguments;
  for (size_t i = 0; i < ins.size(); ++i) {
    main += "  static uint8_t in" + std::to_string(i) + "[NET_INPUT_" + std::to_string(i) +
            "_SIZE];\n  if (fread(in" + std::to_string(i) + ", 1, sizeof in" + std::to_string(i) +
            ", stdin) != sizeof in" + std::to_string(i) + ") return 1;\n";
    arguments += "in" + std::to_string(i) + ", ";
  }
  for (size_t i = 0; i < outs.size(); ++i) {
    main += "  static uint8_t out" + std::to_string(i) + "[NET_OUTPUT_" + std::to_string(i) +
            "_SIZE];\n";
    arguments += "out" + std::to_string(i) + ", ";
  }
  main += "  net_run(" + arguments + "arena);\n";
  for (size_t i = 0; i < outs.size(); ++i)
    main +=
        "  fwrite(out" + std::to_string(i) + ", 1, sizeof out" + std::to_string(i) + ", stdout);\n";
  testing::spill(dir / "main.c", main + "  return 0;\n}\n");
  const std::string at = dir.path().string();
  // -mgeneral-regs-only makes any use of a float an error.
  const auto compiled = testing::run_process(
      {"/bin/sh", "-c",
       "cd " + at +
           " && cc -std=c99 -O1 -Wall -Wextra -Wpedantic -Werror -ffreestanding "
           "-mgeneral-regs-only -c net.c octet_runtime.c && cc -std=c99 -c main.c && cc *.o -o "
           "net"});
  ASSERT_EQ(compiled.code, 0) << compiled.err;

  const Program program = compile(network, {.engine = "", .every_value = true});
  std::mt19937 random(7);
  for (int run = 0; run < runs; ++run) {
    std::string codes;
    std::map<graph::ValueId, Tensor> inputs;
    for (size_t i = 0; i < ins.size(); ++i) {
      const TensorType& t = network.type(ins[i]);
      Shape shape;
      for (const Dim& d : t.dims) shape.push_back(d.known() ? d.size() : 1);
      Tensor q = Tensor::empty(shape, t.dtype, t.quantizer);
      auto* bytes = static_cast<uint8_t*>(q.raw_data());
      for (int64_t k = 0; k < q.numel(); ++k) bytes[k] = static_cast<uint8_t>(random());
      codes.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(q.numel()));
      inputs[network.producer(ins[i]).inputs[0]] = q.dequantize();
    }
    std::vector<Tensor> x;
    for (const graph::ValueId id : network.inputs()) x.push_back(inputs.at(id));
    std::map<graph::ValueId, std::string> expected;
    program.run_watched(x, outs, [&](graph::ValueId id, const Tensor& value) {
      const Tensor y = value.contiguous();
      expected[id].assign(static_cast<const char*>(y.raw_data()), static_cast<size_t>(y.numel()));
    });
    testing::spill(dir / "in.bin", codes);
    const auto ran =
        testing::run_process({"/bin/sh", "-c", "cd " + at + " && ./net < in.bin > out.bin"});
    ASSERT_EQ(ran.code, 0) << ran.err;
    std::string wanted;
    std::vector<graph::ValueId> in_order(outs);
    std::sort(in_order.begin(), in_order.end());
    for (const graph::ValueId id : in_order) wanted += expected.at(id);
    ASSERT_TRUE(testing::slurp(dir / "out.bin") == wanted) << "run " << run;
  }
}

quant::QConfigMapping signed_codes() {
  quant::QConfig q = quant::get_default_qconfig();
  q.activation = q.activation.with_dtype(DType::qint8);
  return quant::QConfigMapping(q);
}

TEST(ExportC, AnMlp) {
  expect_same(quantized(nn::make<nn::Sequential>(nn::make<nn::Linear>(20, 32), nn::make<nn::ReLU>(),
                                                 nn::make<nn::Linear>(32, 32), nn::make<nn::Tanh>(),
                                                 nn::make<nn::Linear>(32, 10)),
                        {Tensor::randn({8, 20}, 1)}));
}

nn::ModulePtr conv(int64_t in, int64_t out, Sizes<2> kernel, nn::ConvOptions<2> options = {}) {
  return nn::make<nn::Conv2d>(in, out, kernel, options);
}

nn::ModulePtr convolutions() {
  return nn::make<nn::Sequential>(conv(3, 8, 3, {.stride = 2, .padding = 1}), nn::make<nn::ReLU6>(),
                                  conv(8, 8, 3, {.padding = 1, .groups = 8}),
                                  conv(8, 12, {3, 2}, {.dilation = {2, 1}, .groups = 4}),
                                  nn::make<nn::MaxPool2d>(2), nn::make<nn::Flatten>(),
                                  nn::make<nn::Linear>(12 * 2 * 3, 5));
}

TEST(ExportC, ConvolutionsWithGroupsStridesAndDilation) {
  expect_same(quantized(convolutions(), {Tensor::randn({1, 3, 16, 16}, 2)}));
}

TEST(ExportC, SignedCodes) {
  expect_same(quantized(convolutions(), {Tensor::randn({1, 3, 16, 16}, 2)}, signed_codes()));
}

// Additions and products with broadcasting, tables, cat of unlike scales, moves, two results.
struct Branches : nn::Module {
  nn::Slot first = slot("first", nn::Conv2d(2, 4, 1)), second = slot("second", nn::Conv2d(2, 4, 1));
  std::vector<Tensor> forward(std::vector<Tensor> in) override {
    const Tensor y = first(in[0]);
    const Tensor scaled = y * functional::sigmoid(functional::adaptive_avg_pool2d(y, {1, 1}));
    const Tensor sum = scaled + second(in[0]);
    const Tensor joined = functional::cat({functional::hardswish(sum), y}, 1);
    return {joined.permute({0, 2, 3, 1}).slice(1, 1, 7, 2), functional::avg_pool2d(sum, 3, 2, 1)};
  }
};

TEST(ExportC, BranchesTablesAndMoves) {
  expect_same(quantized(nn::make<Branches>(), {Tensor::randn({1, 2, 8, 8}, 3)}));
}

TEST(ExportC, FloatsAtTheEndsAreLeftToTheCallerWithANote) {
  const Graph net =
      quantized(nn::make<nn::Sequential>(nn::make<nn::Linear>(6, 4), nn::make<nn::Softmax>(1)),
                {Tensor::randn({4, 6}, 1)},
                quant::get_default_qconfig_mapping().set_object_type("softmax", std::nullopt));
  const CSource source = export_c(net, "net");
  ASSERT_EQ(source.notes.size(), 2u);
  EXPECT_NE(source.notes[0].find("is quantized by the caller"), std::string::npos);
  EXPECT_NE(source.notes[1].find("softmax"), std::string::npos) << source.notes[1];
  expect_same(net);
}

TEST(ExportC, WhatCannotBeWrittenIsNamed) {
  const Graph net =
      quantized(nn::make<nn::Sequential>(nn::make<nn::Linear>(6, 4), nn::make<nn::Softmax>(1),
                                         nn::make<nn::Linear>(4, 4)),
                {Tensor::randn({4, 6}, 1)});
  testing::expect_error(ErrorCode::unsupported, {"C source", "softmax"},
                        [&] { export_c(net, "net"); });
  testing::expect_error(ErrorCode::invalid_argument, {"'my net'", "identifier"},
                        [&] { export_c(net, "my net"); });
}

TEST(ExportC, FloatNetworksHaveNothingToWrite) {
  nn::Linear linear(6, 4);
  const Graph net = graph::trace(linear, {Tensor::randn({1, 6}, 1)})->to_graph();
  testing::expect_error(ErrorCode::invalid_argument, {"nothing in the network computes with codes"},
                        [&] { export_c(net, "net"); });
}

TEST(DataExportC, ResNet8OnPictures) {
  OCTET_NEED_DATA("models/resnet8-cifar10.onnx");
  const Graph net = io::import_onnx(testing::data_dir() / "models/resnet8-cifar10.onnx");
  const auto prepared = quant::prepare_fx(net, quant::get_default_qconfig_mapping());
  prepared->forward({Tensor::rand({8, 3, 32, 32}, 4, 0, 255)});
  expect_same(quant::convert_fx(prepared)->graph(), 3);
}

}  // namespace
}  // namespace octet::runtime
