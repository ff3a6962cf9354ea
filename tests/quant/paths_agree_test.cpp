// The same network quantized as modules, traced, and as a graph that came through an ONNX file: the
// same operators on the same types, the same codes.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include "octet/graph/passes/fold_batch_norm.h"
#include "octet/graph/passes/fuse.h"
#include "octet/graph/trace.h"
#include "octet/io/onnx/export.h"
#include "octet/io/onnx/import.h"
#include "octet/nn/nn.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/quant/modules/float_functional.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/workflow/eager.h"
#include "octet/quant/workflow/fuse.h"
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

// These networks are written as eager mode needs them: each activation is a module, and what has no
// weights and more than one operand is called through a FloatFunctional.

// relu(x' + conv(relu(conv(x)))), as ResNet-18 has it, behind a max pool.
struct Residual : nn::Module {
  nn::Slot stem = slot("stem", nn::Conv2d(3, 8, 3, {.padding = 1, .bias = false}));
  nn::Slot stem_bn = slot("stem_bn", nn::BatchNorm2d(8));
  nn::Slot stem_relu = slot("stem_relu", nn::ReLU());
  nn::Slot pool = slot("pool", nn::MaxPool2d(2));
  nn::Slot conv1 = slot("conv1", nn::Conv2d(8, 16, 3, {.stride = 2, .padding = 1, .bias = false}));
  nn::Slot bn1 = slot("bn1", nn::BatchNorm2d(16));
  nn::Slot relu = slot("relu", nn::ReLU());
  nn::Slot conv2 = slot("conv2", nn::Conv2d(16, 16, 3, {.padding = 1, .bias = false}));
  nn::Slot bn2 = slot("bn2", nn::BatchNorm2d(16));
  nn::Slot shortcut = slot("shortcut", nn::Conv2d(8, 16, 1, {.stride = 2, .bias = false}));
  nn::Slot shortcut_bn = slot("shortcut_bn", nn::BatchNorm2d(16));
  nn::Slot ff = slot("ff", quant::FloatFunctional());
  nn::Slot average = slot("average", nn::AdaptiveAvgPool2d(1));
  nn::Slot fc = slot("fc", nn::Linear(16, 10));
  Tensor forward(Tensor x) override {
    x = pool(stem_relu(stem_bn(stem(x))));
    const Tensor y = bn2(conv2(relu(bn1(conv1(x)))));
    x = ff.add_relu(y, shortcut_bn(shortcut(x)));
    return fc(F::flatten(average(x), 1));
  }
};
OCTET_MODULE(Residual)

// A block of MobileNetV2, with ReLU for ReLU6, which eager mode does not fuse with a convolution
// (PyTorch's examples put ReLU there too).
struct Inverted : nn::Module {
  nn::Slot expand = slot("expand", nn::Conv2d(3, 12, 1, {.bias = false}));
  nn::Slot bn1 = slot("bn1", nn::BatchNorm2d(12));
  nn::Slot act1 = slot("act1", nn::ReLU());
  nn::Slot depthwise =
      slot("depthwise", nn::Conv2d(12, 12, 3, {.padding = 1, .groups = 12, .bias = false}));
  nn::Slot bn2 = slot("bn2", nn::BatchNorm2d(12));
  nn::Slot act2 = slot("act2", nn::ReLU());
  nn::Slot project = slot("project", nn::Conv2d(12, 3, 1, {.bias = false}));
  nn::Slot bn3 = slot("bn3", nn::BatchNorm2d(3));
  nn::Slot ff = slot("ff", quant::FloatFunctional());
  nn::Slot head = slot("head", nn::Conv2d(3, 4, 1));
  Tensor forward(Tensor x) override {
    const Tensor y = act2(bn2(depthwise(act1(bn1(expand(x))))));
    return head(ff.add(x, bn3(project(y))));
  }
};
OCTET_MODULE(Inverted)

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
  nn::Slot ff = slot("ff", quant::FloatFunctional());
  nn::Slot project = slot("project", nn::Conv2d(8, 6, 1));
  Tensor forward(Tensor x) override {
    Tensor y = act(bn(conv(x)));
    return project(ff.mul(y, gate(excite(relu(squeeze(pool(y)))))));
  }
};
OCTET_MODULE(SqueezeExcite)

struct UNet : nn::Module {
  nn::Slot down = slot("down", nn::Conv2d(3, 8, 3, {.padding = 1}));
  nn::Slot relu1 = slot("relu1", nn::ReLU());
  nn::Slot pool = slot("pool", nn::MaxPool2d(2));
  nn::Slot inner = slot("inner", nn::Conv2d(8, 8, 3, {.padding = 1}));
  nn::Slot relu2 = slot("relu2", nn::ReLU());
  nn::Slot resize = slot("resize", nn::Upsample({.scale_factor = {2, 2}}));
  nn::Slot ff = slot("ff", quant::FloatFunctional());
  nn::Slot up = slot("up", nn::Conv2d(16, 4, 3, {.padding = 1}));
  Tensor forward(Tensor x) override {
    Tensor a = relu1(down(x));
    Tensor b = relu2(inner(pool(a)));
    return up(ff.cat({a, resize(b)}, 1));
  }
};
OCTET_MODULE(UNet)

struct Decoder : nn::Module {
  nn::Slot first = slot("first", nn::Conv2d(3, 8, 3, {.stride = 2, .padding = 1}));
  nn::Slot relu1 = slot("relu1", nn::ReLU());
  nn::Slot up = slot("up", nn::ConvTranspose2d(8, 4, 2, {.stride = 2}));
  nn::Slot relu2 = slot("relu2", nn::ReLU());
  nn::Slot last = slot("last", nn::Conv2d(4, 3, 3, {.padding = 1}));
  nn::Slot sigmoid = slot("sigmoid", nn::Sigmoid());
  Tensor forward(Tensor x) override { return sigmoid(last(relu2(up(relu1(first(x)))))); }
};
OCTET_MODULE(Decoder)

struct Glu : nn::Module {
  nn::Slot in = slot("in", nn::Conv2d(3, 12, 3, {.padding = 1}));
  nn::Slot gate = slot("gate", nn::Sigmoid());
  nn::Slot ff = slot("ff", quant::FloatFunctional());
  nn::Slot out = slot("out", nn::Conv2d(6, 4, 1));
  Tensor forward(Tensor x) override {
    std::vector<Tensor> halves = F::chunk(in(x), 2, 1);
    return out(ff.mul(halves[0], gate(halves[1])));
  }
};
OCTET_MODULE(Glu)

struct Scaled : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3));
  nn::Slot head = slot("head", nn::Conv2d(4, 4, 1));
  Tensor forward(Tensor x) override { return head(F::leaky_relu(conv(x) * 0.5 + 2)); }
};
OCTET_MODULE(Scaled)

// A network with the list of what a user of eager mode fuses in it.
struct Network {
  SmallModel float_model;
  quant::FuseList fuse = {};
  // Whether eager mode finds other scales than graph mode, which gives the operands of a cat and
  // their result one observer.
  bool other_scales = false;
};

Tensor images(int64_t n, uint64_t seed) { return Tensor::randn({n, 3, 16, 16}, seed); }

std::vector<Network> eager_networks() {
  return {
      {{"Residual", nn::make<Residual>(), images},
       {{"stem", "stem_bn", "stem_relu"},
        {"conv1", "bn1", "relu"},
        {"conv2", "bn2"},
        {"shortcut", "shortcut_bn"}}},
      {{"Inverted", nn::make<Inverted>(), images},
       {{"expand", "bn1", "act1"}, {"depthwise", "bn2", "act2"}, {"project", "bn3"}}},
      {{"SqueezeExcite", nn::make<SqueezeExcite>(), images}, {{"conv", "bn"}, {"squeeze", "relu"}}},
      {{"UNet", nn::make<UNet>(), images}, {{"down", "relu1"}, {"inner", "relu2"}}, true},
      {{"Decoder", nn::make<Decoder>(), images}, {{"first", "relu1"}, {"up", "relu2"}}},
      {{"Glu", nn::make<Glu>(), images}},
  };
}

std::vector<SmallModel> networks() {
  std::vector<SmallModel> all = testing::small_models();
  std::erase_if(all, [](const SmallModel& m) { return m.name == "BiLSTM"; });
  for (const Network& n : eager_networks()) all.push_back(n.float_model);
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
std::multiset<std::string> typed(const Graph& g, bool with_qparams = true) {
  std::multiset<std::string> lines;
  for (const Node& node : g.nodes()) {
    if (node.kind != NodeKind::call || node.op == "dequantize") continue;
    const TensorType& type = g.type(node.outputs[0]);
    if (node.op == "embedding" || node.op == "index_select") continue;  // ONNX has Gather for both
    if (type.is_quantized() && with_qparams)
      lines.insert(fmt::format("{} {} {:.6g} {}", node.op, to_string(type.dtype),
                               type.quantizer->scale(), type.quantizer->zero_point()));
    else
      lines.insert(node.op + " " + to_string(type.dtype));
  }
  return lines;
}

void expect_modules_and_onnx_agree(const quant::BackendConfig& backend) {
  const quant::QConfig qconfig = quant::fitting_qconfig(quant::get_default_qconfig(), backend);
  const quant::QConfigMapping mapping = backend == quant::get_native_backend_config()
                                            ? quant::get_default_qconfig_mapping()
                                            : quant::QConfigMapping(qconfig);
  for (const SmallModel& m : networks()) {
    SCOPED_TRACE(m.name);
    m.model->eval();
    const Tensor example = m.x(2, 1);
    auto modules = quant::prepare_fx(m.model, mapping, std::vector<Tensor>{example}, {}, backend);
    auto imported =
        quant::prepare_fx(through_onnx(*m.model, example), mapping, {.backend = backend});
    for (uint64_t seed = 1; seed < 5; ++seed) {
      (*modules)(m.x(2, seed));
      (*imported)(m.x(2, seed));
    }
    quant::ConversionReport of_modules, of_graph;
    const Graph a = graph::fuse_activations(quant::convert_fx(modules, &of_modules)->to_graph());
    const Graph b = quant::convert_fx(imported, &of_graph)->graph();
    EXPECT_EQ(typed(a), typed(b)) << graph::print(a) << "\n" << graph::print(b);
    // By operators: a LayerNorm and a layer_norm are the same.
    const auto left = [](const quant::ConversionReport& report) {
      std::multiset<std::string> ops;
      for (const auto& e : report.left_float())
        if (e.op != "Embedding" && e.op != "index_select")
          ops.insert(e.op == "LayerNorm"             ? "layer_norm"
                     : nn::operator_of(e.op).empty() ? e.op
                                                     : nn::operator_of(e.op));
      return ops;
    };
    EXPECT_EQ(left(of_modules), left(of_graph));
    const Tensor x = m.x(2, 9);
    // Bert's position embeddings are a call of a module, whose rows become codes; an exporter folds
    // them into a constant, which an add takes as floats.
    if (m.name != "Bert") {
      EXPECT_TRUE(equal(runtime::compile(a).run({x})[0], runtime::compile(b).run({x})[0]));
    }
  }
}

TEST(PathsAgree, ModulesAndOnnxGiveTheSameTypedGraphAndTheSameCodes) {
  expect_modules_and_onnx_agree(quant::get_native_backend_config());
}

TEST(PathsAgree, ModulesAndOnnxAgreeForTensorRt) {
  expect_modules_and_onnx_agree(quant::get_tensorrt_backend_config());
}

TEST(PathsAgree, ModulesAndOnnxAgreeForQnnpack) {
  expect_modules_and_onnx_agree(quant::get_qnnpack_backend_config());
}

// Eager mode sees one module at a time, so what only a graph knows is off: which functions join
// into one table, and which islands do not pay.
TEST(PathsAgree, EagerModeGivesTheSameTypedGraphAndTheSameCodes) {
  for (const Network& n : eager_networks()) {
    const SmallModel& m = n.float_model;
    SCOPED_TRACE(m.name);
    m.model->eval();
    const Tensor example = m.x(2, 1);
    nn::ModulePtr wrapped = quant::fuse_modules(m.model, n.fuse);
    wrapped = nn::make<quant::QuantWrapper>(wrapped);
    wrapped->eval();
    wrapped->qconfig = quant::get_default_qconfig();
    auto eager = quant::prepare(wrapped);
    auto traced = quant::prepare_fx(m.model, quant::get_default_qconfig_mapping(),
                                    std::vector<Tensor>{example},
                                    {.leave_islands_float = false, .join_tables = false});
    for (uint64_t seed = 1; seed < 5; ++seed) {
      (*eager)(m.x(2, seed));
      (*traced)(m.x(2, seed));
    }
    quant::ConversionReport of_eager;
    const nn::ModulePtr converted = quant::convert(eager, {.report = &of_eager});
    EXPECT_TRUE(of_eager.left_float().empty());
    const Graph a =
        graph::fuse_activations(graph::trace(*converted, std::vector<Tensor>{example})->to_graph());
    const Graph b = graph::fuse_activations(quant::convert_fx(traced)->to_graph());
    EXPECT_EQ(typed(a, !n.other_scales), typed(b, !n.other_scales)) << graph::print(a) << "\n"
                                                                    << graph::print(b);
    if (n.other_scales) continue;
    const Tensor x = m.x(2, 9);
    EXPECT_TRUE(equal((*converted)(x), runtime::compile(b).run({x})[0]));
  }
}

TEST(PathsAgree, EagerModeQuantizesBertDynamicallyAsGraphModeDoes) {
  for (const SmallModel& m : testing::small_models()) {
    if (m.name != "Bert") continue;
    m.model->eval();
    const nn::ModulePtr eager = quant::quantize_dynamic(m.model);
    auto traced = quant::convert_fx(
        quant::prepare_fx(m.model, quant::QConfigMapping(quant::default_dynamic_qconfig()),
                          std::vector<Tensor>{m.x(2, 1)}));
    EXPECT_TRUE(equal((*eager)(m.x(2, 9)), (*traced)(m.x(2, 9))));
  }
}

}  // namespace octet::paths_agree_test
