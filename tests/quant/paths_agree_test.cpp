// The same network quantized as modules, traced, and as a graph that came through an ONNX file: the
// same operators on the same types, the same codes.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include "octet/graph/fold_batch_norm.h"
#include "octet/graph/fuse.h"
#include "octet/graph/trace.h"
#include "octet/io/onnx_export.h"
#include "octet/io/onnx_import.h"
#include "octet/nn/nn.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"
#include "tests/example_models.h"
#include "tests/temp_dir.h"

namespace octet::paths_agree_test {

namespace F = functional;
using graph::Graph;
using graph::Node;
using graph::NodeKind;
using testing::SmallModel;

// Squeeze-and-excite with hardswish, as MobileNetV3 has it.
struct SqueezeExcite : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 8, 3, {.padding = 1}));
  nn::Slot bn = slot("bn", nn::BatchNorm2d(8));
  nn::Slot act = slot("act", nn::Hardswish());
  nn::Slot pool = slot("pool", nn::AdaptiveAvgPool2d(1));
  nn::Slot squeeze = slot("squeeze", nn::Conv2d(8, 4, 1));
  nn::Slot relu = slot("relu", nn::ReLU());
  nn::Slot excite = slot("excite", nn::Conv2d(4, 8, 1));
  nn::Slot gate = slot("gate", nn::Hardsigmoid());
  nn::Slot project = slot("project", nn::Conv2d(8, 6, 1));
  Tensor forward(Tensor x) override {
    Tensor y = act(bn(conv(x)));
    return project(y * gate(excite(relu(squeeze(pool(y))))));
  }
};
OCTET_MODULE(SqueezeExcite)

struct UNet : nn::Module {
  nn::Slot down = slot("down", nn::Conv2d(3, 8, 3, {.padding = 1}));
  nn::Slot inner = slot("inner", nn::Conv2d(8, 8, 3, {.padding = 1}));
  nn::Slot up = slot("up", nn::Conv2d(16, 4, 3, {.padding = 1}));
  Tensor forward(Tensor x) override {
    Tensor a = F::relu(down(x));
    Tensor b = F::relu(inner(F::max_pool2d(a, 2)));
    return up(F::cat({a, F::interpolate(b, {.scale_factor = {2, 2}})}, 1));
  }
};
OCTET_MODULE(UNet)

struct Decoder : nn::Module {
  nn::Slot first = slot("first", nn::Conv2d(3, 8, 3, {.stride = 2, .padding = 1}));
  nn::Slot up = slot("up", nn::ConvTranspose2d(8, 4, 2, {.stride = 2}));
  nn::Slot last = slot("last", nn::Conv2d(4, 3, 3, {.padding = 1}));
  Tensor forward(Tensor x) override { return F::sigmoid(last(F::relu(up(F::relu(first(x)))))); }
};
OCTET_MODULE(Decoder)

struct Glu : nn::Module {
  nn::Slot in = slot("in", nn::Conv2d(3, 12, 3, {.padding = 1}));
  nn::Slot out = slot("out", nn::Conv2d(6, 4, 1));
  Tensor forward(Tensor x) override {
    std::vector<Tensor> halves = F::chunk(in(x), 2, 1);
    return out(halves[0] * F::sigmoid(halves[1]));
  }
};
OCTET_MODULE(Glu)

struct Scaled : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
  nn::Slot head = slot("head", nn::Conv2d(4, 4, 1));
  Tensor forward(Tensor x) override { return head(F::leaky_relu(conv(x) * 0.5 + 2)); }
};
OCTET_MODULE(Scaled)

std::vector<SmallModel> networks() {
  std::vector<SmallModel> all = testing::small_models();
  std::erase_if(all, [](const SmallModel& m) { return m.name == "BiLSTM"; });
  auto images = [](int64_t n, uint64_t seed) { return Tensor::randn({n, 3, 16, 16}, seed); };
  all.push_back({"SqueezeExcite", nn::make<SqueezeExcite>(), images});
  all.push_back({"UNet", nn::make<UNet>(), images});
  all.push_back({"Decoder", nn::make<Decoder>(), images});
  all.push_back({"Glu", nn::make<Glu>(), images});
  all.push_back({"Scaled", nn::make<Scaled>(), images});
  return all;
}

// The float network as other tools would hand it over.
Graph through_onnx(const nn::Module& model, const Tensor& example) {
  Graph g = graph::trace(const_cast<nn::Module&>(model), std::vector<Tensor>{example})->to_graph();
  testing::TempDir dir;
  io::export_onnx(graph::fold_batch_norm(g), dir / "float.onnx");
  return io::import_onnx(dir / "float.onnx");
}

// Operators on codes with their types, and how many are float: what an order of nodes, names and
// moves of data do not change.
std::multiset<std::string> typed(const Graph& g) {
  std::multiset<std::string> lines;
  for (const Node& node : g.nodes()) {
    if (node.kind != NodeKind::call || node.op == "dequantize") continue;
    const TensorType& type = g.type(node.outputs[0]);
    if (node.op == "embedding" || node.op == "index_select") continue;  // ONNX has Gather for both
    lines.insert(type.is_quantized()
                     ? fmt::format("{} {} {:.6g} {}", node.op, to_string(type.dtype),
                                   type.quantizer->scale(), type.quantizer->zero_point())
                     : node.op + " float");
  }
  return lines;
}

TEST(PathsAgree, ModulesAndOnnxGiveTheSameTypedGraphAndTheSameCodes) {
  for (const SmallModel& m : networks()) {
    SCOPED_TRACE(m.name);
    m.model->eval();
    const Tensor example = m.x(2, 1);
    auto modules = quant::prepare_fx(m.model, quant::get_default_qconfig_mapping(),
                                     std::vector<Tensor>{example});
    auto imported =
        quant::prepare_fx(through_onnx(*m.model, example), quant::get_default_qconfig_mapping());
    for (uint64_t seed = 1; seed < 5; ++seed) {
      (*modules)(m.x(2, seed));
      (*imported)(m.x(2, seed));
    }
    quant::ConversionReport of_modules, of_graph;
    const Graph a = graph::fuse_activations(
        quant::convert_fx(modules, {}, quant::get_native_backend_config(), &of_modules)
            ->to_graph());
    const Graph b = quant::convert_fx(imported, &of_graph)->graph();
    EXPECT_EQ(typed(a), typed(b)) << graph::print(a) << "\n" << graph::print(b);
    for (const quant::ConversionReport* report : {&of_modules, &of_graph})
      for (const auto& e : report->left_float())
        if (e.op != "Embedding" && e.op != "index_select") EXPECT_EQ(e.op, "div") << e.reason;
    const Tensor x = m.x(2, 9);
    // Bert's position embeddings are a call of a module, whose rows become codes; an exporter folds
    // them into a constant, which an add takes as floats.
    if (m.name != "Bert")
      EXPECT_TRUE(equal(runtime::compile(a).run({x})[0], runtime::compile(b).run({x})[0]));
  }
}

}  // namespace octet::paths_agree_test
