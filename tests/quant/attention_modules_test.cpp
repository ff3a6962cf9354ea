// Static LSTM and MultiheadAttention: as prepare() observes them they compute what the float ones
// do, as convert() makes them they are near; and dynamic attention.
#include "octet/quant/modules/attention.h"

#include <gtest/gtest.h>

#include "octet/autograd/autograd.h"
#include "octet/base/random.h"
#include "octet/nn/containers.h"
#include "octet/nn/registry.h"
#include "octet/quant/modules/lstm.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/workflow/eager.h"
#include "tests/expect_error.h"
#include "tests/sqnr.h"

namespace octet::testing {
namespace {

using Tensors = std::vector<Tensor>;

// A module of several inputs and results between stubs: those that are float are quantized on the
// way in and back.
struct Between : nn::Module {
  explicit Between(nn::ModulePtr m) { add_child("inner", std::move(m)); }
  nn::Slot quant = slot("quant", quant::QuantStub());
  nn::Slot quant_state = slot("quant_state", quant::QuantStub());
  nn::Slot dequant = slot("dequant", quant::DeQuantStub());
  bool attention = false;  // inputs 3 and 4 are masks
  Tensors forward(Tensors in) override {
    for (size_t i = 0; i < in.size(); ++i)
      if (i < (attention ? 3u : 1u))
        in[i] = quant(in[i]);
      else if (!attention)
        in[i] = quant_state(in[i]);
    Tensors out = (*submodule("inner"))(in);
    for (Tensor& y : out) y = dequant(y);
    return out;
  }
};

std::shared_ptr<Between> prepared(const nn::ModulePtr& m, bool attention, bool qat = false) {
  auto model = nn::make<Between>(m->clone());
  model->attention = attention;
  model->train(qat);
  // Observers of extremes are quick; histograms gain little on a few numbers.
  quant::QConfig minmax{quant::ObserverFactory("MinMaxObserver"),
                        quant::get_default_qconfig().weight};
  model->qconfig = qat ? quant::get_default_qat_qconfig() : minmax;
  if (attention) model->quant_state->qconfig = nullptr;
  return qat ? quant::prepare_qat(model) : quant::prepare(model);
}

// Prepares, calibrates and converts; the observed network must compute what the float one does.
std::shared_ptr<Between> converted(const nn::ModulePtr& m, const Tensors& inputs, bool attention) {
  auto model = prepared(m, attention);
  Tensors expected = (*m)(inputs), observed = (*model)(inputs);
  EXPECT_EQ(expected.size(), observed.size());
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_TRUE(allclose(observed[i].detach(), expected[i].detach(), 1e-5, 1e-6))
        << "observed, result " << i;
  // not used: calibrated all the same
  if (!attention && inputs.size() == 1) (*model->quant_state.get())(inputs[0]);
  return quant::convert(model);
}

void expect_near(const nn::ModulePtr& m, const Tensors& inputs, bool attention, double decibels) {
  auto int8 = converted(m, inputs, attention);
  Tensors expected = (*m)(inputs), got = (*int8)(inputs);
  ASSERT_EQ(expected.size(), got.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(expected[i].shape(), got[i].shape());
    EXPECT_GT(sqnr(expected[i], got[i]), decibels)
        << "result " << i << " of " << nn::to_string(*m) << " with " << inputs.size() << " inputs";
  }
}

TEST(StaticLstm, EveryFormIsNearTheFloatOne) {
  manual_seed(1);
  for (int bits = 0; bits < 32; ++bits) {
    nn::RecurrentOptions o{.num_layers = bits & 1 ? 2 : 1,
                           .bias = !(bits & 2),
                           .batch_first = (bits & 4) != 0,
                           .bidirectional = (bits & 8) != 0,
                           .proj_size = bits & 16 ? 6 : 0};
    nn::ModulePtr lstm = nn::make<nn::LSTM>(8, 16, o);
    lstm->eval();
    Tensor x = Tensor::randn({5, 4, 8}, 2);
    expect_near(lstm, {x}, false, 22);
    expect_near(lstm, {x.select(0, 1)}, false, 22);
    Tensors states = (*lstm)(Tensors{x});
    expect_near(lstm, {x, states[1].detach(), states[2].detach()}, false, 22);
  }
}

TEST(StaticLstm, CellsToo) {
  manual_seed(2);
  for (bool bias : {true, false}) {
    nn::ModulePtr cell = nn::make<nn::LSTMCell>(8, 16, bias);
    cell->eval();
    Tensor x = Tensor::randn({6, 8}, 3);
    Tensors states = (*cell)(Tensors{x});
    expect_near(cell, {x}, false, 25);
    expect_near(cell, {x, states[0].detach(), states[1].detach()}, false, 25);
    expect_near(cell, {x.select(0, 2)}, false, 22);
  }
}

TEST(StaticLstm, TheNetworksAreMadeOfPyTorchsParts) {
  auto lstm = nn::make<nn::LSTM>(3, 4);
  lstm->eval();
  auto model = prepared(lstm, false);
  EXPECT_EQ(model->submodule("inner")->type_name(), "QuantizableLSTM");
  EXPECT_EQ(model->submodule("inner.layers.0")->type_name(), "_LSTMLayer");
  EXPECT_EQ(model->submodule("inner.layers.0.layer_fw.cell")->type_name(), "QuantizableLSTMCell");
  for (const char* part :
       {"igates", "hgates", "gates", "fgate_cx", "igate_cgate", "fgate_cx_igate_cgate", "ogate_cy"})
    EXPECT_TRUE(model->has_submodule(std::string("inner.layers.0.layer_fw.cell.") + part +
                                     ".activation_post_process"))
        << part;
  Tensor x = Tensor::randn({2, 1, 3}, 1);
  (*model)({x, Tensor::zeros({1, 1, 4}), Tensor::zeros({1, 1, 4})});
  auto int8 = quant::convert(model);
  EXPECT_EQ(int8->submodule("inner")->type_name(), "QuantizedLSTM");
  EXPECT_EQ(int8->submodule("inner.layers.0.layer_fw.cell.igates")->type_name(), "QuantizedLinear");
  EXPECT_EQ(int8->submodule("inner.layers.0.layer_fw.cell.gates")->type_name(), "QFunctional");
  expect_error(ErrorCode::invalid_argument, {"QuantizedLSTM: state 0", "expected codes"}, [&] {
    (*int8->submodule("inner"))({(*int8->quant)(x), Tensor::zeros({1, 1, 4})});
  });
}

TEST(StaticLstm, AFloatInputIsAProblemThatConvertNames) {
  auto model = nn::make<nn::Sequential>(nn::LSTM(3, 4));
  model->eval();
  model->qconfig = quant::get_default_qconfig();
  auto observed = quant::prepare(model);
  observed->forward(Tensor::randn({2, 1, 3}, 1));
  expect_error(ErrorCode::invalid_argument,
               {"'0' (QuantizableLSTM) will be quantized but its input stays float32"},
               [&] { quant::convert(observed); });
}

TEST(StaticLstm, TrainingReachesItsWeights) {
  manual_seed(3);
  nn::ModulePtr lstm = nn::make<nn::LSTM>(4, 8);
  auto model = prepared(lstm, false, true);
  Tensors inputs{Tensor::randn({3, 2, 4}, 1), Tensor::zeros({1, 2, 8}), Tensor::zeros({1, 2, 8})};
  Tensor y = (*model)(inputs)[0];
  autograd::backward(y, Tensor::ones(y.shape()));
  for (auto& [name, p] : model->submodule("inner")->named_parameters())
    EXPECT_TRUE(autograd::grad(*p).defined()) << name;
  model->eval();
  Tensors trained = (*model)(inputs);
  EXPECT_GT(sqnr(trained[0], (*quant::convert(model))(inputs)[0]), 30);
}

// -- attention ------------------------------------------------------------------------------------

struct AttentionCase {
  nn::AttentionOptions options;
  bool unbatched = false;
  int mask = 0;  // 1: bool, 2: float, 3: per head
  bool padding = false;
};

std::vector<AttentionCase> attention_cases() {
  std::vector<AttentionCase> all;
  for (int bits = 0; bits < 64; ++bits) {
    AttentionCase c;
    c.options.bias = !(bits & 1);
    c.options.batch_first = (bits & 2) != 0;
    c.options.add_bias_kv = (bits & 4) != 0;
    c.options.add_zero_attn = (bits & 8) != 0;
    if (bits & 16) c.options.kdim = 6, c.options.vdim = 10;
    c.options.need_weights = !(bits & 32);
    c.options.average_attn_weights = bits % 3 != 0;
    c.mask = bits % 4;
    c.padding = bits % 5 == 0;
    c.unbatched = bits % 7 == 6;
    if (c.unbatched && c.mask == 3) c.mask = 1;
    all.push_back(c);
  }
  return all;
}

Tensors attention_inputs(const AttentionCase& c, int64_t heads) {
  const int64_t length = 5, steps = 7, batch = 3, embed = 8;
  auto input = [&](int64_t n, int64_t size, uint64_t seed) {
    Tensor x = Tensor::randn({n, batch, size}, seed);
    return c.unbatched ? x.select(1, 0) : c.options.batch_first ? x.transpose(0, 1) : x;
  };
  Tensors in{input(length, embed, 1), input(steps, c.options.kdim ? c.options.kdim : embed, 2),
             input(steps, c.options.vdim ? c.options.vdim : embed, 3)};
  auto mask = [&](const Shape& shape, uint64_t seed) {  // never a whole row
    Tensor m = Tensor::zeros(shape, DType::bool_);
    Random random(seed);
    for (int64_t i = 0; i < m.numel(); ++i)
      static_cast<bool*>(m.raw_data())[i] = i % steps != 0 && random.uniform() < 0.3;
    return m;
  };
  if (c.padding || c.mask)
    in.push_back(c.padding ? mask(c.unbatched ? Shape{steps} : Shape{batch, steps}, 4) : Tensor());
  if (c.mask == 1) in.push_back(mask({length, steps}, 5));
  if (c.mask == 2) in.push_back(Tensor::randn({length, steps}, 5));
  if (c.mask == 3) in.push_back(mask({batch * heads, length, steps}, 5));
  return in;
}

nn::ModulePtr attention_of(const AttentionCase& c) {
  nn::ModulePtr m = nn::make<nn::MultiheadAttention>(8, 2, c.options);
  m->eval();
  return m;
}

// Traps: "static MultiheadAttention with batch_first gives 0.4 dB".
TEST(StaticAttentionTraps, EveryFormIsNearTheFloatOne) {
  manual_seed(4);
  for (const AttentionCase& c : attention_cases())
    expect_near(attention_of(c), attention_inputs(c, 2), true, 25);
}

TEST(StaticAttention, IsMadeOfPyTorchsParts) {
  auto int8 = converted(attention_of({}), attention_inputs({}, 2), true);
  auto inner = int8->submodule("inner");
  EXPECT_EQ(inner->type_name(), "QuantizedMultiheadAttention");
  const std::pair<const char*, const char*> parts[] = {{"out_proj", "QuantizedLinear"},
                                                       {"linear_Q", "QuantizedLinear"},
                                                       {"linear_K", "QuantizedLinear"},
                                                       {"linear_V", "QuantizedLinear"},
                                                       {"q_scaling_product", "QFunctional"},
                                                       {"quant_attn_output", "Quantize"},
                                                       {"quant_attn_output_weights", "Quantize"},
                                                       {"dequant_q", "DeQuantize"},
                                                       {"dequant_k", "DeQuantize"},
                                                       {"dequant_v", "DeQuantize"}};
  ASSERT_EQ(inner->children().size(), std::size(parts));
  for (size_t i = 0; i < std::size(parts); ++i) {
    EXPECT_EQ(inner->children()[i].first, parts[i].first);
    EXPECT_EQ(inner->children()[i].second->type_name(), parts[i].second);
  }
}

TEST(StaticAttention, TrainingReachesItsWeights) {
  manual_seed(5);
  AttentionCase c;
  c.options.add_bias_kv = true;
  auto model = prepared(attention_of(c), true, true);
  Tensors inputs = attention_inputs(c, 2);
  Tensor y = (*model)(inputs)[0];
  autograd::backward(y, Tensor::ones(y.shape()));
  for (auto& [name, p] : model->submodule("inner")->named_parameters())
    EXPECT_TRUE(autograd::grad(*p).defined()) << name;
  model->eval();
  Tensors trained = (*model)(inputs);
  EXPECT_GT(sqnr(trained[0], (*quant::convert(model))(inputs)[0]), 30);
}

TEST(DynamicAttention, WithoutAWeightOnlyFormItIsReportedAsFloat) {
  struct Net : nn::Module {
    nn::Slot attention = slot("attention", nn::MultiheadAttention(8, 2));
    nn::Slot fc = slot("fc", nn::Linear(8, 2));
  };
  quant::ConversionReport report;
  quant::quantize_weight_only(nn::make<Net>(), {}, DType::qint8, {.report = &report});
  std::vector<std::string> left;
  for (const auto& e : report.left_float()) left.push_back(e.node);
  EXPECT_EQ(left, (std::vector<std::string>{"attention.out_proj", "attention"}));
}

TEST(DynamicAttention, EveryFormIsNearTheFloatOne) {
  manual_seed(6);
  for (const AttentionCase& c : attention_cases())
    for (DType dtype : {DType::qint8, DType::float16}) {
      nn::ModulePtr attention = attention_of(c),
                    dynamic = quant::quantize_dynamic(attention, {}, dtype);
      EXPECT_EQ(dynamic->type_name(), "DynamicQuantizedMultiheadAttention");
      EXPECT_EQ(dynamic->submodule("linear_Q")->type_name(), "DynamicQuantizedLinear");
      Tensors inputs = attention_inputs(c, 2), expected = (*attention)(inputs),
              got = (*dynamic)(inputs);
      ASSERT_EQ(expected.size(), got.size());
      for (size_t i = 0; i < got.size(); ++i)
        EXPECT_GT(sqnr(expected[i], got[i]), dtype == DType::qint8 ? 30 : 55);
    }
}

}  // namespace
}  // namespace octet::testing
