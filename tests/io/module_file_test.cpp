#include "octet/io/module_file.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "octet/autograd/autograd.h"
#include "octet/base/random.h"
#include "octet/debug/model_report_observer.h"
#include "octet/io/octet_file.h"
#include "octet/io/safetensors.h"
#include "octet/io/state_dict.h"
#include "octet/nn/nn.h"
#include "octet/nn/registry.h"
#include "octet/nn/rnn.h"
#include "octet/ops/functional.h"
#include "octet/quant/algorithms/input_weight_equalization.h"
#include "octet/quant/backend/module_mappings.h"
#include "octet/quant/modules/float_functional.h"
#include "octet/quant/modules/intrinsic.h"
#include "octet/quant/modules/qat.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/workflow/eager.h"
#include "octet/quant/workflow/fuse.h"
#include "octet/quant/workflow/fx.h"
#include "tests/expect_error.h"
#include "tests/io/damage.h"
#include "tests/io/old_file.h"
#include "tests/temp_dir.h"

namespace octet::module_file_test {

using testing::expect_error;
using testing::slurp;
using testing::TempDir;
using Json = nlohmann::ordered_json;
namespace nnq = nn::quantized;

// -- the users' classes ---------------------------------------------------------------------------

struct Block : nn::Module {
  explicit Block(int64_t channels = 2)
      : conv(slot("conv", nn::Conv2d(channels, channels, 3, {.padding = 1}))) {}
  nn::Slot conv;
  nn::Slot bn = slot("bn", nn::BatchNorm2d(2));
  nn::Slot relu = slot("relu", nn::ReLU());
  nn::Slot skip = slot("skip", nnq::FloatFunctional());
  Tensor forward(Tensor x) override {
    return skip.as<nnq::FloatFunctional>().add(x, relu(bn(conv(x))));
  }
};
OCTET_MODULE(Block)

struct Net : nn::Module {
  nn::Slot quant = slot("quant", quant::QuantStub());
  nn::Slot block = slot("block", Block());
  nn::Slot fc = slot("fc", nn::Linear(32, 3));
  nn::Slot dequant = slot("dequant", quant::DeQuantStub());
  Tensor forward(Tensor x) override { return dequant(fc(block(quant(x)).flatten(1))); }
};
OCTET_MODULE(Net)

// A constructor argument, a buffer, extra state, a place that may be empty.
struct Shaped : nn::Module {
  explicit Shaped(int64_t n) : n(n), weight(parameter("weight", Tensor::ones({n}))) {}
  Attrs config() const override { return {{"n", n}}; }
  static std::shared_ptr<Shaped> from_config(const Attrs& c) {
    return nn::make<Shaped>(c.get_int("n"));
  }
  std::map<std::string, Tensor> extra_state() const override { return {{"seen", seen}}; }
  void set_extra_state(const std::map<std::string, Tensor>& state) override {
    seen = state.at("seen").clone();
  }
  Tensor forward(Tensor x) override { return down.get() ? down(x * weight) : x * weight; }
  int64_t n;
  nn::Parameter weight;
  nn::Parameter bias = parameter("bias", Tensor());
  nn::Parameter count = buffer("count", Tensor::zeros({}, DType::int64));
  nn::Slot down = slot("down", nn::ModulePtr());
  Tensor seen = Tensor::zeros({2});
};
OCTET_MODULE(Shaped)

// One weight in two layers, one module in two places.
struct Tied : nn::Module {
  nn::Slot first = slot("first", nn::Linear(4, 4));
  nn::Slot second = slot("second", nn::Linear(4, 4));
  nn::Slot again = slot("again", first.get());
  Tied() { second.as<nn::Linear>().weight = first.as<nn::Linear>().weight; }
  Tensor forward(Tensor x) override { return again(second(first(x))); }
};
OCTET_MODULE(Tied)

// One module of several inputs and results on codes.
struct OnCodes : nn::Module {
  explicit OnCodes(nn::ModulePtr m = nn::make<nn::Identity>(), int64_t inputs = 1)
      : inputs(inputs) {
    add_child("inner", std::move(m));
  }
  Attrs config() const override { return {{"inputs", inputs}}; }
  static std::shared_ptr<OnCodes> from_config(const Attrs& c) {
    return nn::make<OnCodes>(nn::make<nn::Identity>(), c.get_int("inputs"));
  }
  std::vector<Tensor> forward(std::vector<Tensor> in) override {
    std::vector<Tensor> out =
        (*submodule("inner"))(std::vector<Tensor>(static_cast<size_t>(inputs), quant(in.at(0))));
    for (Tensor& y : out) y = dequant(y);
    return out;
  }
  int64_t inputs;
  nn::Slot quant = slot("quant", quant::QuantStub());
  nn::Slot dequant = slot("dequant", quant::DeQuantStub());
};
OCTET_MODULE(OnCodes)

struct Unregistered : nn::Module {
  Tensor forward(Tensor x) override { return x; }
};

// What a class was when its models were saved, and what it is now.
bool g_grown = false;
struct Growing : nn::Module {
  Growing() {
    if (g_grown) add_child("new", nn::make<nn::ReLU>());
  }
};
OCTET_MODULE(Growing)

struct WiderBase : nn::Module {
  explicit WiderBase(int64_t n = 2) : weight(parameter("weight", Tensor::ones({n}))) {}
  nn::Parameter weight;
};
struct WiderWithoutConfig : WiderBase {
  using WiderBase::WiderBase;
};
OCTET_MODULE(WiderWithoutConfig)

namespace {

void expect_same_state(nn::Module& a, nn::Module& b) {
  auto x = a.state_dict(), y = b.state_dict();
  ASSERT_EQ(x.size(), y.size());
  for (const auto& [name, tensor] : x) {
    ASSERT_TRUE(y.count(name)) << name;
    EXPECT_EQ(to_string(tensor.type()), to_string(y.at(name).type())) << name;
    EXPECT_TRUE(equal(tensor, y.at(name))) << name;
    EXPECT_EQ(autograd::requires_grad(tensor), autograd::requires_grad(y.at(name))) << name;
  }
  auto modules = a.named_modules(), others = b.named_modules();
  ASSERT_EQ(modules.size(), others.size());
  for (size_t i = 0; i < modules.size(); ++i) {
    EXPECT_EQ(modules[i].first, others[i].first);
    EXPECT_EQ(modules[i].second->training(), others[i].second->training()) << modules[i].first;
    EXPECT_EQ(modules[i].second->config(), others[i].second->config()) << modules[i].first;
  }
}

nn::ModulePtr round_trip(const nn::Module& module) {
  TempDir dir;
  save_model(dir / "a.octet", module);
  nn::ModulePtr back = load_model(dir / "a.octet");
  EXPECT_EQ(nn::to_string(*back), nn::to_string(module));
  EXPECT_EQ(io::describe_model(dir / "a.octet"), nn::to_string(module));
  EXPECT_TRUE(io::is_model_file(dir / "a.octet"));
  expect_same_state(const_cast<nn::Module&>(module), *back);
  save_model(dir / "b.octet", *back);
  EXPECT_EQ(slurp(dir / "a.octet"), slurp(dir / "b.octet")) << "saving again gives the same bytes";
  return back;
}

Tensor batch(uint64_t seed) { return Tensor::randn({2, 2, 4, 4}, seed); }

std::shared_ptr<Net> net(bool training = false) {
  manual_seed(3);
  auto model = nn::make<Net>();
  for (uint64_t i = 0; i < 3; ++i) model->forward(batch(100 + i));
  model->train(training);
  return model;
}

std::shared_ptr<Net> prepared_net() {
  auto model = net();
  model->qconfig = quant::get_default_qconfig();
  return quant::prepare(quant::fuse_modules(model, {{"block.conv", "block.bn", "block.relu"}}));
}

std::shared_ptr<Net> qat_net() {
  auto model = net(true);
  model->qconfig = quant::get_default_qat_qconfig();
  return quant::prepare_qat(
      quant::fuse_modules_qat(model, {{"block.conv", "block.bn", "block.relu"}}));
}

void expect_same_outputs(nn::Module& a, nn::Module& b, const Tensor& x) {
  EXPECT_TRUE(equal(a(x).detach(), b(x).detach()));
}

// -- every registered class -----------------------------------------------------------------------

struct Sample {
  nn::ModulePtr module;
  Tensor input;                   // undefined: it is not called
  std::vector<Tensor> more = {};  // inputs
};

template <typename M, typename... Args>
nn::ModulePtr made(Args&&... args) {
  return nn::make<M>(std::forward<Args>(args)...);
}

// The float and fused modules that others are made from.
std::vector<Sample> float_modules() {
  Tensor x2 = Tensor::randn({3, 4}, 1), x3 = Tensor::randn({2, 4, 6}, 2),
         x4 = Tensor::randn({2, 4, 5, 5}, 3), x5 = Tensor::randn({1, 4, 4, 4, 4}, 4);
  Tensor indices = Tensor::from<int64_t>({3, 0, 2, 2, 1, 4}).reshape({2, 3});
  auto linear = [] { return made<nn::Linear>(4, 3); };
  auto conv1 = [] {
    return made<nn::Conv1d>(4, 4, 3, nn::ConvOptions<1>{.stride = 2, .groups = 2});
  };
  auto conv2 = [] {
    return made<nn::Conv2d>(4, 4, 3, nn::ConvOptions<2>{.padding = 1, .bias = false});
  };
  auto conv3 = [] { return made<nn::Conv3d>(4, 4, 2); };
  auto bn1 = [] { return made<nn::BatchNorm1d>(4); };
  auto bn2 = [] { return made<nn::BatchNorm2d>(4, nn::BatchNormOptions{.eps = 1e-3}); };
  auto bn3 = [] { return made<nn::BatchNorm3d>(4); };
  auto relu = [] { return made<nn::ReLU>(); };
  auto fused = []<typename M>(M*, std::vector<nn::ModulePtr> parts) {
    return made<M>(std::move(parts));
  };
  namespace ni = nn::intrinsic;
#define OCTET_FUSED(Name, ...) fused(static_cast<ni::Name*>(nullptr), {__VA_ARGS__})
  return {
      {linear(), x2},
      {made<nn::Linear>(4, 2, false), x2},
      {conv1(), x3},
      {conv2(), x4},
      {conv3(), x5},
      {made<nn::ConvTranspose1d>(4, 2, 3), x3},
      {made<nn::ConvTranspose2d>(4, 2, 3, nn::ConvOptions<2>{.stride = 2, .output_padding = 1}),
       x4},
      {made<nn::ConvTranspose3d>(4, 2, 2), x5},
      {bn1(), x3},
      {bn2(), x4},
      {bn3(), x5},
      {made<nn::Identity>(), x2},
      {relu(), x2},
      {made<nn::ReLU6>(), x2},
      {made<nn::Sigmoid>(), x2},
      {made<nn::Tanh>(), x2},
      {made<nn::Hardsigmoid>(), x2},
      {made<nn::Hardswish>(), x2},
      {made<nn::LeakyReLU>(0.3), x2},
      {made<nn::ELU>(0.7), x2},
      {made<nn::CELU>(0.7), x2},
      {made<nn::GELU>("tanh"), x2},
      {made<nn::Hardtanh>(-0.5, 2), x2},
      {made<nn::Softmax>(1), x2},
      {made<nn::PReLU>(4, 0.1), x2},
      {OCTET_FUSED(ConvReLU1d, conv1(), relu()), x3},
      {OCTET_FUSED(ConvReLU2d, conv2(), relu()), x4},
      {OCTET_FUSED(ConvReLU3d, conv3(), relu()), x5},
      {OCTET_FUSED(ConvTransposeReLU1d, made<nn::ConvTranspose1d>(4, 2, 3), relu()), x3},
      {OCTET_FUSED(ConvTransposeReLU2d, made<nn::ConvTranspose2d>(4, 2, 3), relu()), x4},
      {OCTET_FUSED(ConvTransposeReLU3d, made<nn::ConvTranspose3d>(4, 2, 2), relu()), x5},
      {OCTET_FUSED(LinearReLU, linear(), relu()), x2},
      {OCTET_FUSED(BNReLU2d, bn2(), relu()), x4},
      {OCTET_FUSED(BNReLU3d, bn3(), relu()), x5},
      {OCTET_FUSED(ConvBn1d, conv1(), bn1()), x3},
      {OCTET_FUSED(ConvBn2d, conv2(), bn2()), x4},
      {OCTET_FUSED(ConvBn3d, conv3(), bn3()), x5},
      {OCTET_FUSED(ConvBnReLU1d, conv1(), bn1(), relu()), x3},
      {OCTET_FUSED(ConvBnReLU2d, conv2(), bn2(), relu()), x4},
      {OCTET_FUSED(ConvBnReLU3d, conv3(), bn3(), relu()), x5},
      {OCTET_FUSED(LinearBn1d, made<nn::Linear>(4, 4), bn1()), x2},
      {made<quant::QuantStub>(), x2},
      {made<quant::DeQuantStub>(), x2},
      {made<nnq::FloatFunctional>(), {}},
      {made<nn::SELU>(), x2},
      {made<nn::SiLU>(), x2},
      {made<nn::Softplus>(2, 5), x2},
      {made<nn::Softsign>(), x2},
      {made<nn::Mish>(), x2},
      {made<nn::LogSoftmax>(0), x2},
      {made<nn::LayerNorm>(Shape{5, 5}, 1e-3), x4},
      {made<nn::LayerNorm>(4, 1e-3, false), x2},
      {made<nn::GroupNorm>(2, 4), x4},
      {made<nn::InstanceNorm1d>(4), x3},
      {made<nn::InstanceNorm2d>(
           4, nn::InstanceNormOptions{.affine = true, .track_running_stats = true}),
       x4},
      {made<nn::InstanceNorm3d>(4), x5},
      {made<nn::AdaptiveAvgPool1d>(2), x3},
      {made<nn::AdaptiveAvgPool2d>(Sizes<2>{3, 2}), x4},
      {made<nn::AdaptiveAvgPool3d>(2), x5},
      {made<nn::NonDynamicallyQuantizableLinear>(4, 2), x2},
      {made<nn::LSTM>(4, 5,
                      nn::RecurrentOptions{.num_layers = 2, .bidirectional = true, .proj_size = 3}),
       x3.transpose(1, 2)},
      {made<nn::GRU>(6, 5, nn::RecurrentOptions{.bias = false, .batch_first = true}), x3},
      {made<nn::RNN>(6, 5, nn::RecurrentOptions{.nonlinearity = "relu"}), x3},
      {made<nn::LSTMCell>(4, 5), x2},
      {made<nn::GRUCell>(4, 5, false), x2},
      {made<nn::RNNCell>(4, 5, true, "relu"), x2},
      {made<nn::Embedding>(5, 3), indices},
      {made<nn::Embedding>(5, 3, 2), indices},
      {made<nn::EmbeddingBag>(5, 3, nn::EmbeddingBagOptions{.mode = "max", .padding_idx = 1}),
       indices},
  };
#undef OCTET_FUSED
}

// All that float modules become.
std::vector<Sample> made_from(const Sample& s) {
  autograd::NoGrad no_grad;
  std::vector<Sample> all;
  auto quantized = [](const Tensor& x) { return quantize_per_tensor(x, 0.03, 120, DType::quint8); };
  auto observed = [&](nn::ModulePtr m, const quant::QConfig& qconfig) {
    m->eval();
    m->qconfig = qconfig;
    auto observer = qconfig.activation.make_module("label");
    (*observer)(s.input.defined() ? (*m)(s.input) : Tensor::randn({4}, 1));
    m->add_child("activation_post_process", observer);
    return m;
  };
  auto add = [&](const quant::ModuleMapping& mapping, nn::Module& m, const Tensor& x) {
    if (nn::ModulePtr result = mapping.make(m)) all.push_back({result, x});
  };
  // Tables of embeddings have qconfigs of their own.
  const bool table = s.input.defined() && s.input.dtype() == DType::int64;
  nn::ModulePtr qat = s.module->clone();
  qat->train();
  qat->qconfig = table ? quant::default_embedding_qat_qconfig() : quant::get_default_qat_qconfig();
  if (nn::ModulePtr trained = quant::get_default_qat_module_mappings().make(*qat)) {
    (*trained)(s.input);
    all.push_back({trained, s.input});
    if (table) {
      trained->eval();
      add(quant::get_default_static_quant_module_mappings(), *trained, s.input);
      for (DType dtype : {DType::quint8, DType::quint4x2}) {
        nn::ModulePtr rows = s.module->clone();
        rows->qconfig = quant::dynamic_qconfig_for(dtype);
        add(quant::get_default_dynamic_quant_module_mappings(), *rows, s.input);
        add(quant::get_default_static_quant_reference_module_mappings(), *rows, s.input);
      }
      return all;
    }
    nn::ModulePtr done = observed(trained->clone(), quant::get_default_qat_qconfig());
    add(quant::get_default_static_quant_module_mappings(), *done, quantized(s.input));
  }
  bool stub = s.module->type_name() == "QuantStub";
  nn::ModulePtr done = observed(s.module->clone(), quant::get_default_qconfig());
  add(quant::get_default_static_quant_module_mappings(), *done,
      !s.input.defined() || stub ? s.input : quantized(s.input));
  add(quant::get_default_static_quant_reference_module_mappings(), *done, s.input);
  add(quant::get_default_weight_only_quant_module_mappings(), *done, s.input);
  for (const quant::QConfig& qconfig :
       {quant::default_dynamic_qconfig(), quant::per_channel_dynamic_qconfig(),
        quant::float16_dynamic_qconfig()}) {
    done->qconfig = qconfig;
    add(quant::get_default_dynamic_quant_module_mappings(), *done, s.input);
  }
  return all;
}

std::vector<Sample> observers() {
  std::vector<Sample> all;
  Tensor x = Tensor::randn({4, 3}, 1);
  for (const std::string& name : quant::observer_names()) {
    quant::ObserverFactory factory(name);
    if (name == "FixedQParamsObserver") factory = factory.with_fixed_qparams(0.1, 3);
    nn::ModulePtr fresh = factory.make_module("tensor"), used = factory.make_module("");
    if (name != "RecordingObserver") (*used)(x);  // its recordings are not state
    all.push_back({fresh, x});
    all.push_back({used, x});
    for (const char* fake : {"FakeQuantize", "FixedQParamsFakeQuantize",
                             "FusedMovingAvgObsFakeQuantize", "LearnableFakeQuantize"}) {
      nn::ModulePtr fq;
      try {
        fq = factory.fake_quantize(fake).make_module("fq");
      } catch (const Error&) {
        continue;  // they do not go together
      }
      all.push_back({fq->clone(), x});
      (*fq)(x);
      all.push_back({fq, x});
    }
  }
  for (nn::ModulePtr observer : {nn::ModulePtr(nn::make<quant::ModelReportObserver>()),
                                 nn::ModulePtr(nn::make<quant::InputEqualizationObserver>())}) {
    (*observer)(x);
    all.push_back({observer, x});
  }
  return all;
}

// Layers that eager quantization leaves as they are, or makes no modules of.
std::vector<Sample> other_layers() {
  Tensor x2 = Tensor::randn({3, 4}, 1), x3 = Tensor::randn({2, 4, 6}, 2),
         x4 = Tensor::randn({2, 4, 5, 5}, 3), x5 = Tensor::randn({1, 4, 4, 4, 4}, 4);
  std::vector<Sample> all{
      {made<nn::Bilinear>(4, 4, 2), x2, {x2}},
      {made<nn::Dropout>(0.3), x2},
      {made<nn::Dropout1d>(0.3), x3},
      {made<nn::Dropout2d>(0.3), x4},
      {made<nn::Dropout3d>(0.3), x5},
      {made<nn::MaxPool1d>(3, nn::MaxPoolOptions<1>{.padding = 1}), x3},
      {made<nn::MaxPool2d>(2, nn::MaxPoolOptions<2>{.stride = 1, .ceil_mode = true}), x4},
      {made<nn::MaxPool3d>(2), x5},
      {made<nn::AvgPool1d>(3), x3},
      {made<nn::AvgPool2d>(
           3,
           nn::AvgPoolOptions<2>{.padding = 1, .count_include_pad = false, .divisor_override = 4}),
       x4},
      {made<nn::AvgPool3d>(2), x5},
      {made<nn::AdaptiveMaxPool1d>(2), x3},
      {made<nn::AdaptiveMaxPool2d>(2), x4},
      {made<nn::AdaptiveMaxPool3d>(2), x5},
      {made<nn::Flatten>(0, 1), x3},
      {made<nn::Unflatten>(1, std::vector<int64_t>{2, -1}), x2},
      {made<nn::PixelShuffle>(2), x4},
      {made<nn::PixelUnshuffle>(2), Tensor::randn({1, 1, 4, 4}, 5)},
      {made<nn::ChannelShuffle>(2), x4},
      {made<nn::Upsample>(
           functional::InterpolateOptions{.scale_factor = {2, 1.5}, .mode = "bilinear"}),
       x4},
      {made<nn::Upsample>(functional::InterpolateOptions{.size = {3, 7}}), x4},
      {made<nn::MultiheadAttention>(6, 2), x3, {x3, x3}},
      {made<nn::MultiheadAttention>(6, 2,
                                    nn::AttentionOptions{.bias = false,
                                                         .add_bias_kv = true,
                                                         .kdim = 6,
                                                         .vdim = 5,
                                                         .batch_first = true,
                                                         .need_weights = false}),
       x3,
       {x3, Tensor::randn({2, 4, 5}, 1)}},
  };
  for (Sample& s : all) s.module->eval();
  return all;
}

// Networks of observed parts: prepared, in training, and converted.
std::vector<Sample> composites() {
  Tensor x2 = Tensor::randn({3, 4}, 1), x3 = Tensor::randn({2, 4, 6}, 2);
  std::vector<Sample> all;
  for (const Sample& s :
       {Sample{
            made<nn::LSTM>(
                6, 4, nn::RecurrentOptions{.num_layers = 2, .bidirectional = true, .proj_size = 3}),
            x3},
        Sample{made<nn::LSTM>(6, 4, nn::RecurrentOptions{.bias = false, .batch_first = true}), x3},
        Sample{made<nn::LSTMCell>(4, 3), x2},
        Sample{made<nn::MultiheadAttention>(6, 2, nn::AttentionOptions{.add_bias_kv = true}), x3},
        Sample{made<nn::MultiheadAttention>(
                   6, 2, nn::AttentionOptions{.bias = false, .need_weights = false}),
               x3}})
    for (bool qat : {false, true}) {
      const bool attention = s.module->type_name() == "MultiheadAttention";
      auto model = nn::make<OnCodes>(s.module->clone(), attention ? 3 : 1);
      model->train(qat);
      model->qconfig = qat ? quant::get_default_qat_qconfig() : quant::get_default_qconfig();
      auto prepared = qat ? quant::prepare_qat(model) : quant::prepare(model);
      (*prepared)(std::vector<Tensor>{s.input});
      prepared->eval();
      all.push_back({prepared->clone(), s.input});
      all.push_back({quant::convert(prepared), s.input});
      if (attention)
        all.push_back(
            {quant::quantize_dynamic<nn::Module>(s.module, {}, qat ? DType::float16 : DType::qint8),
             x3,
             {x3, x3}});
    }
  return all;
}

std::vector<Sample> losses() {
  return {{made<nn::CrossEntropyLoss>(functional::CrossEntropyOptions{
               .weight = Tensor::rand({3}, 1), .label_smoothing = 0.1}),
           {}},
          {made<nn::CrossEntropyLoss>(), {}},
          {made<nn::NLLLoss>(Tensor::rand({3}, 1), 2, "sum"), {}},
          {made<nn::MSELoss>("sum"), {}},
          {made<nn::L1Loss>(), {}},
          {made<nn::SmoothL1Loss>("mean", 0.3), {}},
          {made<nn::HuberLoss>("mean", 0.3), {}},
          {made<nn::BCEWithLogitsLoss>(Tensor(), "mean", Tensor::rand({2, 1}, 1)), {}},
          {made<nn::KLDivLoss>("batchmean", true), {}}};
}

std::vector<Sample> containers() {
  auto sequence = nn::make<nn::Sequential>(nn::Conv2d(2, 3, 3), nn::ReLU());
  sequence->append("named", nn::BatchNorm2d(3));
  auto list = nn::make<nn::ModuleList>();
  list->append(nn::Linear(2, 2)).append(nn::make<nn::Sequential>());
  auto dict = nn::make<nn::ModuleDict>();
  dict->insert("b", nn::Linear(2, 2)).insert("a", nn::ReLU());
  Tensor x = Tensor::randn({1, 2, 4, 4}, 1);
  return {{sequence, x},
          {nn::make<nn::BatchNorm2d>(
               2, nn::BatchNormOptions{.affine = false, .track_running_stats = false}),
           x},
          {list, {}},
          {dict, {}},
          {nn::make<quant::QuantWrapper>(nn::make<nn::Linear>(2, 3)), Tensor::randn({4, 2}, 1)}};
}

// Traced, prepared and converted in graph mode, with a module in a module.
struct Traced : nn::Module {
  nn::Slot body = slot("body", nn::Sequential(nn::Conv2d(2, 3, 3), nn::ReLU()));
  nn::Parameter scale = parameter("scale", Tensor::full({3, 1, 1}, 0.5));
  Tensor forward(Tensor x) override {
    return functional::sigmoid(body(x) * scale + Tensor::full({3, 1, 1}, 0.25));
  }
};
std::vector<Sample> graphs() {
  Tensor x = Tensor::randn({2, 2, 6, 6}, 1);
  auto model = nn::make<Traced>();
  auto trained = quant::prepare_qat_fx(model, quant::get_default_qat_qconfig_mapping(),
                                       std::vector<Tensor>{x});
  (*trained)(x);
  trained->eval();
  model->eval();
  auto prepared =
      quant::prepare_fx(model, quant::get_default_qconfig_mapping(), std::vector<Tensor>{x});
  (*prepared)(x);
  auto reference = quant::convert_to_reference_fx(prepared);
  return {{graph::trace(*model, {x}), x},
          {prepared->clone(), x},
          {trained, x},
          {reference, x},
          {quant::lower(reference), x},
          {quant::convert_fx(
               quant::prepare_fx(model, quant::default_dynamic_qconfig(), std::vector<Tensor>{x})),
           x}};
}

}  // namespace

namespace {
void expect_each_comes_back(const std::vector<Sample>& samples) {
  TempDir dir;
  for (const Sample& s : samples) {
    SCOPED_TRACE(nn::registered_name(*s.module) + ": " + nn::to_string(*s.module));
    save_model(dir / "a.octet", *s.module);
    nn::ModulePtr back = load_model(dir / "a.octet");
    EXPECT_EQ(nn::to_string(*back), nn::to_string(*s.module));
    expect_same_state(*s.module, *back);
    if (!s.input.defined()) continue;
    std::vector<Tensor> inputs{s.input};
    inputs.insert(inputs.end(), s.more.begin(), s.more.end());
    auto expected = (*s.module)(inputs), got = (*back)(inputs);
    ASSERT_EQ(expected.size(), got.size());
    for (size_t i = 0; i < got.size(); ++i)
      EXPECT_TRUE(equal(expected[i].detach(), got[i].detach())) << "result " << i;
  }
}
// The samples of one kind of those made from float modules.
std::vector<Sample> made_of(const std::string& room) {
  std::vector<Sample> all;
  for (const Sample& s : float_modules())
    for (Sample& made : made_from(s))
      if (nn::registered_name(*made.module).starts_with("octet::nn::" + room))
        all.push_back(std::move(made));
  return all;
}
}  // namespace

TEST(ModuleFile, FloatAndFusedModulesComeBack) { expect_each_comes_back(float_modules()); }
TEST(ModuleFile, QatModulesComeBack) { expect_each_comes_back(made_of("qat::")); }
TEST(ModuleFile, StaticModulesComeBack) {
  std::vector<Sample> all;
  for (Sample& s : made_of("quantized::"))
    if (std::string name = nn::registered_name(*s.module);
        name.rfind(':') == std::string("octet::nn::quantized:").size())
      all.push_back(std::move(s));
  EXPECT_GT(all.size(), 40u);
  expect_each_comes_back(all);
}
TEST(ModuleFile, DynamicModulesComeBack) {
  expect_each_comes_back(made_of("quantized::dynamic::"));
}
TEST(ModuleFile, WeightOnlyModulesComeBack) {
  expect_each_comes_back(made_of("quantized::weight_only::"));
}
TEST(ModuleFile, ReferenceModulesComeBack) {
  expect_each_comes_back(made_of("quantized::reference::"));
}
TEST(ModuleFile, ObserversAndFakeQuantizeModulesComeBack) { expect_each_comes_back(observers()); }
TEST(ModuleFile, OtherLayersComeBack) { expect_each_comes_back(other_layers()); }
TEST(ModuleFile, NetworksOfObservedPartsComeBack) { expect_each_comes_back(composites()); }
TEST(ModuleFile, LossesComeBack) { expect_each_comes_back(losses()); }
TEST(ModuleFile, ContainersComeBack) { expect_each_comes_back(containers()); }
TEST(ModuleFile, GraphsOfModulesComeBack) { expect_each_comes_back(graphs()); }

TEST(ModuleFile, TheseAreAllClassesThatAreRegistered) {
  std::set<std::string> covered;
  for (const auto& list : {float_modules(), made_of(""), other_layers(), composites(), observers(),
                           losses(), containers(), graphs()})
    for (const Sample& s : list)
      for (auto& [path, module] : s.module->named_modules())
        covered.insert(nn::registered_name(*module));
  for (const std::string& name : nn::registered_names()) {
    if (name.find("_test::") != std::string::npos) continue;
    EXPECT_TRUE(covered.count(name))
        << name << " is registered but not among the samples above: add one";
  }
}

// -- whole models ---------------------------------------------------------------------------------

TEST(ModuleFile, AFloatModelOfAUsersClassComesBack) {
  auto model = net();
  auto back = round_trip(*model);
  expect_same_outputs(*model, *back, batch(5));
  EXPECT_TRUE(dynamic_cast<Net*>(back.get()));
}

TEST(ModuleFile, ATrainedModelGoesOnTraining) {
  auto model = net(true);
  model->block->requires_grad(false);
  auto back = round_trip(*model);
  for (auto* m : {static_cast<nn::Module*>(model.get()), back.get()}) {
    (*m)(batch(7));
    Tensor y = (*m)(batch(8));
    autograd::backward(y, Tensor::ones(y.shape()));
  }
  auto a = model->named_parameters(), b = back->named_parameters();
  for (size_t i = 0; i < a.size(); ++i) {
    Tensor x = autograd::grad(*a[i].second), y = autograd::grad(*b[i].second);
    ASSERT_EQ(x.defined(), y.defined()) << a[i].first;
    if (x.defined()) {
      EXPECT_TRUE(equal(x, y)) << a[i].first;
    }
  }
  expect_same_state(*model, *back);
}

TEST(ModuleFile, APreparedModelGoesOnCalibrating) {
  auto model = prepared_net();
  model->forward(batch(1));
  auto back = round_trip(*model);
  for (uint64_t i = 2; i < 5; ++i) expect_same_outputs(*model, *back, batch(i));
  expect_same_state(*model, *back);
  auto x = quant::convert(model);
  auto y = quant::convert(back);
  EXPECT_EQ(nn::to_string(*x), nn::to_string(*y));
  expect_same_outputs(*x, *y, batch(9));
}

TEST(ModuleFile, AModelIsCalibratedAfterLoadingOnly) {
  auto model = prepared_net();
  auto back = round_trip(*model);
  expect_error(ErrorCode::not_calibrated, {"block.conv"}, [&] { quant::convert(back); });
  for (auto* m : {static_cast<nn::Module*>(model.get()), back.get()}) (*m)(batch(2));
  expect_same_outputs(*quant::convert(model), *quant::convert(back), batch(9));
}

TEST(ModuleFile, AQatModelGoesOnTrainingAndConverts) {
  auto model = qat_net();
  model->forward(batch(1));
  auto back = round_trip(*model);
  for (uint64_t i = 2; i < 4; ++i) expect_same_outputs(*model, *back, batch(i));
  quant::freeze_bn_stats(*model);
  quant::disable_observer(*model);
  back = round_trip(*model);
  expect_same_outputs(*model, *back, batch(4));
  expect_same_state(*model, *back);
  for (auto* m : {static_cast<nn::Module*>(model.get()), back.get()}) m->eval();
  auto x = quant::convert(model);
  auto y = quant::convert(back);
  expect_same_outputs(*x, *y, batch(9));
}

// "Saving a whole quantized module breaks": PyTorch's 'LinearPackedParams' object has no attribute
// '_modules'.
TEST(ModuleFileTraps, SavingAWholeQuantizedModule) {
  TempDir dir;
  auto prepared = prepared_net();
  prepared->forward(batch(1));
  auto int8 = quant::convert(prepared);
  auto back = round_trip(*int8);
  expect_same_outputs(*int8, *back, batch(5));
  save_model(dir / "a.octet", *int8);
  auto typed = load_model<Net>(dir / "a.octet");
  EXPECT_EQ(typed->block.as<Block>().conv->type_name(), "QuantizedConvReLU2d");
  expect_error(ErrorCode::invalid_argument, {"Net", "not a Tied"},
               [&] { load_model<Tied>(dir / "a.octet"); });
}

TEST(ModuleFile, DynamicAndWeightOnlyModelsComeBack) {
  for (const std::shared_ptr<Net>& model :
       {quant::quantize_dynamic(net()),
        quant::quantize_dynamic(net(), quant::types<nn::Linear>(DType::float16)),
        quant::quantize_weight_only(net())}) {
    auto back = round_trip(*model);
    expect_same_outputs(*model, *back, batch(5));
  }
}

TEST(ModuleFile, WhatCalibrationFoundWrongIsStillKnown) {
  auto model = net();
  model->qconfig = quant::get_default_qconfig();
  model->fc->qconfig = nullptr;  // gets codes after convert()
  auto prepared = quant::prepare(model);
  auto early = round_trip(*prepared);
  prepared->forward(batch(1));
  auto late = round_trip(*prepared);
  early->forward(batch(1));
  for (const nn::ModulePtr& m : {nn::ModulePtr(prepared), early, late})
    expect_error(ErrorCode::invalid_argument, {"'fc' (Linear) stays float", "DeQuantStub"},
                 [&] { quant::convert(m); });
}

TEST(ModuleFile, AFloatFunctionalUsedWithNumbersOnlyNeedsNoData) {
  auto functional = nn::make<nnq::FloatFunctional>();
  functional->add_scalar(Tensor::ones({1}), 2);
  auto back = round_trip(*functional);
  EXPECT_TRUE(back->as<nnq::FloatFunctional>().only_scalars());
}

TEST(ModuleFile, QconfigsComeBackExactly) {
  auto model = nn::make<nn::Sequential>();
  std::vector<std::any> configs{std::any(), std::any(nullptr), quant::QConfig()};
  for (const std::string& name : quant::qconfig_names())
    configs.push_back(quant::get_default_qconfig(name));
  quant::ObserverFactory odd = quant::ObserverFactory("PercentileObserver")
                                   .with_percentile(99.1)
                                   .with_eps(0x1.23456789abcdep-20);
  configs.push_back(quant::QConfig{odd, quant::ObserverFactory()});
  configs.push_back(quant::QConfig{quant::ObserverFactory(),
                                   odd.with_dtype(DType::qint8).with_quant_range(-100, 100)});
  configs.push_back(quant::QConfig{quant::ObserverFactory("MinMaxObserver")
                                       .fake_quantize("LearnableFakeQuantize")
                                       .with_grad_scaling(true),
                                   quant::ObserverFactory("FixedQParamsObserver")
                                       .with_fixed_qparams(1.0 / 3, 7)
                                       .fake_quantize("FixedQParamsFakeQuantize")});
  for (const std::any& q : configs) {
    auto m = nn::make<nn::Linear>(2, 2);
    m->qconfig = q;
    model->append(m);
  }
  auto back = round_trip(*model);
  for (size_t i = 0; i < configs.size(); ++i) {
    const std::any& q = back->submodule(std::to_string(i))->qconfig;
    ASSERT_EQ(q.has_value(), configs[i].has_value()) << i;
    EXPECT_EQ(q.type(), configs[i].type()) << i;
    if (q.type() == typeid(quant::QConfig)) {
      EXPECT_EQ(std::any_cast<quant::QConfig>(q), std::any_cast<quant::QConfig>(configs[i])) << i;
    }
  }
  model->qconfig = 3;
  TempDir dir;
  expect_error(ErrorCode::invalid_argument, {"the model (Sequential)", "qconfig", "int"},
               [&] { save_model(dir / "a", *model); });
}

TEST(ModuleFile, SharedModulesAndTiedTensorsStayShared) {
  TempDir dir;
  auto model = nn::make<Tied>();
  auto back = std::static_pointer_cast<Tied>(round_trip(*model));
  EXPECT_EQ(back->first.get(), back->again.get());
  EXPECT_EQ(back->first.as<nn::Linear>().weight.id(), back->second.as<nn::Linear>().weight.id());
  EXPECT_NE(back->first.as<nn::Linear>().bias.id(), back->second.as<nn::Linear>().bias.id());
  save_model(dir / "a.octet", *model);
  EXPECT_EQ(read_safetensors(dir / "a.octet").tensors.size(), 3u) << "one weight, two biases";
  // And what the constructor shares is parted if the model was.
  model->again.set(nn::make<nn::Linear>(4, 4));
  back = std::static_pointer_cast<Tied>(round_trip(*model));
  EXPECT_NE(back->first.get(), back->again.get());
}

TEST(ModuleFile, ConfigExtraStateAndEmptyPlacesComeBack) {
  auto model = nn::make<Shaped>(5);
  model->seen = Tensor::from<float>({1, 2});
  model->count = Tensor::full({}, 9, DType::int64);
  auto back = std::static_pointer_cast<Shaped>(round_trip(*model));
  EXPECT_EQ(back->n, 5);
  EXPECT_TRUE(equal(back->seen, model->seen));
  EXPECT_EQ(back->down.get(), nullptr);
  model->down.set(nn::make<nn::ReLU>());
  model->bias = Tensor::ones({3});  // one the constructor leaves out
  back = std::static_pointer_cast<Shaped>(round_trip(*model));
  EXPECT_EQ(back->down->type_name(), "ReLU");
  EXPECT_TRUE(equal(back->bias, Tensor::ones({3})));
}

TEST(ModuleFile, WhatAConstructorMakesNeedsNoConfig) {
  // Block(2) is what Net makes; alone it is made by its default constructor, which fits too.
  auto block = nn::make<Block>();
  block->eval();
  expect_same_outputs(*block, *round_trip(*block), batch(1));
}

TEST(ModuleFile, PlacesKeepTheirOrder) {
  auto model = nn::make<Block>();
  nn::ModulePtr conv = model->conv.get();
  model->remove_child("conv");
  model->add_child("conv", conv);
  model->eval();
  auto back = round_trip(*model);
  EXPECT_EQ(back->children().back().first, "conv");
  expect_same_outputs(*model, *back, batch(1));
}

TEST(ModuleFile, LoadingDrawsNoRandomNumbers) {
  TempDir dir;
  save_model(dir / "a.octet", *net());
  manual_seed(5);
  uint64_t expected = next_seed();
  manual_seed(5);
  load_model(dir / "a.octet");
  EXPECT_EQ(next_seed(), expected);
}

TEST(ModuleFile, ItIsAStateDictToo) {
  TempDir dir;
  auto model = prepared_net();
  model->forward(batch(1));
  save_model(dir / "a.octet", *quant::convert(model));
  auto state = load_state_dict(dir / "a.octet"), expected = quant::convert(model)->state_dict();
  ASSERT_EQ(state.size(), expected.size());
  for (const auto& [name, tensor] : expected) EXPECT_TRUE(equal(tensor, state.at(name))) << name;
}

TEST(ModuleFile, WritesAtomically) {
  TempDir dir;
  auto model = net();
  save_model(dir / "a.octet", *model);
  auto loaded = load_model(dir / "a.octet");  // mapped: replacing the file must not change it
  save_model(dir / "a.octet", *nn::make<Tied>());
  expect_same_state(*model, *loaded);
  std::string before = slurp(dir / "a.octet");
  expect_error(ErrorCode::unsupported,
               {"a.octet", "module '0' (Unregistered)",
                "OCTET_MODULE(octet::module_file_test::Unregistered)"},
               [&] { save_model(dir / "a.octet", *nn::make<nn::Sequential>(Unregistered())); });
  EXPECT_EQ(slurp(dir / "a.octet"), before);
  EXPECT_EQ(testing::count_files(dir.path()), 1u) << "no temporary file stays";
}

// -- errors ---------------------------------------------------------------------------------------

TEST(ModuleFile, FilesThatAreNoModelsSayWhatTheyAre) {
  TempDir dir;
  save_state_dict(dir / "state.octet", {{"x", Tensor::ones({2})}});
  io::save_octet(graph::Graph(), dir / "graph.octet");
  save_model(dir / "model.octet", *nn::make<nn::ReLU>());
  EXPECT_FALSE(io::is_model_file(dir / "graph.octet"));
  expect_error(ErrorCode::corrupt, {"state.octet", "load_state_dict"},
               [&] { load_model(dir / "state.octet"); });
  expect_error(ErrorCode::corrupt, {"graph.octet", "load_octet"},
               [&] { load_model(dir / "graph.octet"); });
  expect_error(ErrorCode::unsupported, {"model.octet", "load_model"},
               [&] { io::load_octet(dir / "model.octet"); });
  expect_error(ErrorCode::not_found, {"none.octet"}, [&] { load_model(dir / "none.octet"); });
}

TEST(ModuleFile, AClassThatHasChangedIsAnErrorThatNamesTheDifference) {
  TempDir dir;
  g_grown = true;
  save_model(dir / "grown.octet", *nn::make<Growing>());
  g_grown = false;
  save_model(dir / "plain.octet", *nn::make<Growing>());
  EXPECT_EQ(load_model(dir / "grown.octet")->children().size(), 1u)
      << "more than the constructor makes is what prepare() adds";
  g_grown = true;
  expect_error(ErrorCode::corrupt,
               {"plain.octet", "the model (Growing)", "submodule new", "not as it was"},
               [&] { load_model(dir / "plain.octet"); });
  g_grown = false;
  save_model(dir / "wide.octet", *nn::make<nn::Sequential>(WiderWithoutConfig(7)));
  expect_error(ErrorCode::corrupt,
               {"module '0' (WiderWithoutConfig)", "'weight' of shape (2)", "(7)", "from_config"},
               [&] { load_model(dir / "wide.octet"); });
}

TEST(ModuleFile, DamageNamesFileModuleAndField) {
  TempDir dir;
  auto sequence = nn::make<nn::Sequential>(nn::Linear(2, 2), nn::ReLU());
  sequence->qconfig = quant::get_default_qconfig();
  save_model(dir / "a.octet", *sequence);
  struct Case {
    const char* what;
    void (*damage)(Json& modules, std::map<std::string, Tensor>& tensors);
    std::vector<std::string> parts;
    ErrorCode code = ErrorCode::corrupt;
  };
  const Case cases[] = {
      {"unknown class",
       [](Json& m, auto&) { m[0]["class"] = "octet::nn::Linea"; },
       {"module '0'", "octet::nn::Linea", "did you mean 'octet::nn::Linear'", "OCTET_MODULE"},
       ErrorCode::not_found},
      {"no modules",
       [](Json& m, auto&) { m = Json::array(); },
       {"'modules' is not a list of modules"}},
      {"no object", [](Json& m, auto&) { m[1] = 3; }, {"module 1", "expected an object"}},
      {"no class", [](Json& m, auto&) { m[1].erase("class"); }, {"module 1", "'class' is missing"}},
      {"no mode",
       [](Json& m, auto&) { m[1].erase("training"); },
       {"module 1", "'training' is missing"}},
      {"mode", [](Json& m, auto&) { m[1]["training"] = "yes"; }, {"module 1", "'training'"}},
      {"children",
       [](Json& m, auto&) { m[2]["children"] = 1; },
       {"module 2", "'children' is not a list"}},
      {"later child",
       [](Json& m, auto&) { m[2]["children"][0][1] = 2; },
       {"module 2", "'children'", "earlier"}},
      {"negative child",
       [](Json& m, auto&) { m[2]["children"][0][1] = -1; },
       {"module 2", "'children'", "earlier"}},
      {"child of one",
       [](Json& m, auto&) { m[2]["children"][0] = Json::array({"0"}); },
       {"module 2", "'children'"}},
      {"empty place",
       [](Json& m, auto&) { m[2]["children"][0][1] = nullptr; },
       {"the model (Sequential)", "no place '0'"}},
      {"same name",
       [](Json& m, auto&) { m[2]["children"][0][0] = "1"; },
       {"the model (Sequential)", "'1'"}},
      {"bad name",
       [](Json& m, auto&) { m[2]["children"][0][0] = "a.b"; },
       {"the model (Sequential)", "'a.b'"}},
      {"lost child",
       [](Json& m, auto&) { m[2]["children"].erase(1); },
       {"module 1 is in no place"}},
      {"no config",
       [](Json& m, auto&) { m[0].erase("config"); },
       {"module '0' (Linear)", "attribute 'bias' is missing"}},
      {"config",
       [](Json& m, auto&) { m[0]["config"]["bias"] = "5"; },
       {"module '0' (Linear)", "bias=5"}},
      {"config text",
       [](Json& m, auto&) { m[0]["config"]["bias"] = "ye"; },
       {"module 0", "'bias'"}},
      {"config kind",
       [](Json& m, auto&) { m[0]["config"] = 7; },
       {"module 0", "'config' is not an object"}},
      {"too small",
       [](Json& m, auto&) { m[0]["config"]["in_features"] = "0"; },
       {"module '0' (Linear)", "0 inputs"}},
      {"too large",
       [](Json& m, auto&) { m[0]["config"]["in_features"] = "4611686018427387904"; },
       {"module '0' (Linear)"}},
      {"other size",
       [](Json& m, auto&) { m[0]["config"]["in_features"] = "3"; },
       {"module '0'", "'weight' of shape (2, 3)", "(2, 2)"}},
      {"no tensor",
       [](Json&, auto& t) { t.erase("0.weight"); },
       {"module '0'", "'0.weight' is not in the file"}},
      {"tensor missing",
       [](Json& m, auto&) { m[0]["tensors"].erase("bias"), m[0].erase("requires_grad"); },
       {"module '0'", "missing: bias; unexpected: none"}},
      {"tensor too many",
       [](Json& m, auto&) { m[1]["tensors"]["w"] = "0.bias"; },
       {"module '1'", "missing: none; unexpected: w"}},
      {"tensors", [](Json& m, auto&) { m[0]["tensors"]["bias"] = 1; }, {"module 0", "'tensors'"}},
      {"trained",
       [](Json& m, auto&) { m[0]["requires_grad"][0] = "x"; },
       {"module 0", "'requires_grad' names 'x'"}},
      {"trained integer",
       [](Json&, auto& t) { t["0.bias"] = Tensor::ones({2}, DType::int64); },
       {"module '0'", "int64"}},
      {"extra",
       [](Json& m, auto&) { m[1]["extra"]["s"] = "0.bias"; },
       {"module '1'", "extra state", "unexpected: s"}},
      {"annotation",
       [](Json& m, auto&) { m[2]["annotations"]["colour"] = Json::object(); },
       {"the model", "'colour'"},
       ErrorCode::unsupported},
      {"qconfig",
       [](Json& m, auto&) {
         m[2]["annotations"]["qconfig"]["activation.observer"] = "\"Histogram\"";
       },
       {"the model", "Histogram"},
       ErrorCode::not_found},
      {"role",
       [](Json& m, auto&) {
         m[1]["annotations"]["prepared"] = {{"role", "\"x\""}, {"path", "\"\""}};
       },
       {"module '1'", "role 'x'"}},
      {"functional",
       [](Json& m, auto&) {
         m[1]["annotations"]["prepared"] = {{"role", "\"functional\""}, {"path", "\"\""}};
       },
       {"module '1'", "FloatFunctional"}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    SafetensorsFile file = read_safetensors(dir / "a.octet");
    Json entry = Json::parse(file.metadata.at("octet.model"));
    c.damage(entry["modules"], file.tensors);
    file.metadata["octet.model"] = entry.dump();
    write_safetensors(dir / "bad.octet", file.tensors, file.metadata);
    auto parts = c.parts;
    parts.push_back("bad.octet");
    expect_error(c.code, parts, [&] { load_model(dir / "bad.octet"); });
  }
}

TEST(ModuleFile, ANewerFormatSaysSo) {
  TempDir dir;
  save_model(dir / "a.octet", *nn::make<nn::ReLU>());
  SafetensorsFile file = read_safetensors(dir / "a.octet");
  Json entry = Json::parse(file.metadata.at("octet.model"));
  EXPECT_EQ(entry["format"], 2);
  entry["format"] = 3;
  file.metadata["octet.model"] = entry.dump();
  write_safetensors(dir / "b.octet", file.tensors, file.metadata);
  expect_error(ErrorCode::unsupported,
               {"b.octet", "file format 3", "reads up to 2", "update octet"},
               [&] { load_model(dir / "b.octet"); });
}

// Without limits these would overflow the stack, or take for ever.
TEST(ModuleFile, HostileTreesAreRefused) {
  TempDir dir;
  for (bool deep : {true, false}) {
    Json modules = Json::array();
    for (int i = 0; i < (deep ? 5000 : 64); ++i) {
      Json m{{"class", "octet::nn::Sequential"},
             {"type", "Sequential"},
             {"training", true},
             {"children", Json::array()}};
      for (int k = 0; i > 0 && k < (deep ? 1 : 2); ++k)
        m["children"].push_back(Json::array({std::to_string(k), i - 1}));
      modules.push_back(std::move(m));
    }
    write_safetensors(dir / "bad.octet", {},
                      {{"octet.model", Json{{"format", 1}, {"modules", modules}}.dump()}});
    expect_error(ErrorCode::corrupt, {"too deep, or there are too many"},
                 [&] { load_model(dir / "bad.octet"); });
    expect_error(ErrorCode::corrupt, {"too deep, or there are too many"},
                 [&] { io::describe_model(dir / "bad.octet"); });
  }
}

TEST(ModuleFile, UnknownClassesAreDescribedAllTheSame) {
  TempDir dir;
  save_model(dir / "a.octet", *net());
  SafetensorsFile file = read_safetensors(dir / "a.octet");
  Json entry = Json::parse(file.metadata.at("octet.model"));
  for (Json& m : entry["modules"]) m["class"] = "theirs::" + m["type"].get<std::string>();
  file.metadata["octet.model"] = entry.dump();
  write_safetensors(dir / "b.octet", file.tensors, file.metadata);
  EXPECT_EQ(io::describe_model(dir / "b.octet"), nn::to_string(*net()));
  expect_error(ErrorCode::not_found, {"theirs::Net", "OCTET_MODULE"},
               [&] { load_model(dir / "b.octet"); });
}

// Bits flip in names, numbers and weights: what loads must also run or say why not.
TEST(FuzzModuleFile, DamagedFilesAreErrorsOrModels) {
  TempDir dir;
  auto prepared = prepared_net();
  prepared->forward(batch(1));
  for (const nn::ModulePtr& model :
       {nn::ModulePtr(prepared), nn::ModulePtr(quant::convert(prepared)),
        nn::ModulePtr(qat_net())}) {
    save_model(dir / "a.octet", *model);
    testing::spill(dir / "a.octet", testing::without_checksums(testing::slurp(dir / "a.octet")));
    int refused = testing::damage_file(dir / "a.octet", 400, [](const std::filesystem::path& path) {
      io::describe_model(path);
      (*load_model(path))(batch(2));
    });
    EXPECT_GT(refused, 150);
  }
}

}  // namespace octet::module_file_test
