// Recurrent networks with quantized weights, against PyTorch 1.13
// (tests/golden/modules_recurrent.json, made by scripts/oracle/recurrent_modules.py) and, in the
// forms that PyTorch has not, against the float networks.
#include "octet/quant/modules/recurrent.h"

#include <gtest/gtest.h>

#include "octet/base/random.h"
#include "octet/nn/containers.h"
#include "octet/nn/linear.h"
#include "octet/nn/registry.h"
#include "octet/quant/workflow/eager.h"
#include "tests/expect_error.h"
#include "tests/quant/golden_modules.h"
#include "tests/sqnr.h"

namespace octet::testing {
namespace {

namespace nnqd = nn::quantized::dynamic;
using quant::quantize_dynamic;
using Tensors = std::vector<Tensor>;

// The network of a golden case.
nn::ModulePtr golden_network(const json& c) {
  const std::string kind = c["kind"];
  Attrs config{{"input_size", c["input_size"].get<int64_t>()},
               {"hidden_size", c["hidden_size"].get<int64_t>()},
               {"bias", true}};
  config.set("nonlinearity",
             c.contains("nonlinearity") ? c["nonlinearity"].get<std::string>() : "tanh");
  if (!kind.ends_with("Cell")) {
    config.set("num_layers", c["num_layers"].get<int64_t>())
        .set("batch_first", c["batch_first"].get<bool>());
    config.set("bidirectional", c["bidirectional"].get<bool>())
        .set("dropout", 0.0)
        .set("proj_size", int64_t{0});
  }
  nn::ModulePtr network = nn::make_registered("octet::nn::" + kind, config);
  uint64_t seed = c["seed"].get<uint64_t>() + 10;
  for (auto& [name, w] : network->named_parameters())
    w->detach().copy_from(
        Tensor::from(golden_values("uniform", seed++, w->numel(), 0.5, 0), w->shape()));
  return network;
}

// As the operators' (tests/ops/recurrent_test.cpp): sigmoid and tanh are rounded from double here,
// by approximations of float32 there; an ulp of a hidden state may move it, and what follows, but
// it does not add up.
constexpr double kTolerance = 5e-7;

TEST(GoldenRecurrentModules, DynamicNetworksGivePyTorchsNumbers) {
  json cases = load_golden("modules_recurrent.json");
  ASSERT_EQ(cases.size(), 120u);
  for (const json& c : cases) {
    nn::ModulePtr network = quantize_dynamic(golden_network(c));
    EXPECT_EQ(nn::to_string(*network), c["repr"].get<std::string>());
    const Shape shape = c["shape"].get<Shape>();
    const uint64_t seed = c["seed"];
    Tensors inputs{Tensor::from(golden_values("normal", seed, numel(shape), 1, 0), shape)};
    Tensors zero_states = (*network)(inputs);
    const size_t first = c["kind"].get<std::string>().ends_with("Cell") ? 0 : 1;
    if (c["states"])
      for (size_t i = first; i < zero_states.size(); ++i) {
        const Shape state = zero_states[i].shape();
        inputs.push_back(Tensor::from(
            golden_values("uniform", seed + inputs.size(), numel(state), 0.7, 0), state));
      }
    Tensors results = (*network)(inputs);
    ASSERT_EQ(results.size(), c["out"].size());
    for (size_t i = 0; i < results.size(); ++i)
      EXPECT_TRUE(
          allclose(results[i], floats_from_base64(c["out"][i], results[i].shape()), 0, kTolerance))
          << i << " of " << c;
  }
}

// Every form of network, small.
std::vector<nn::RecurrentOptions> forms(bool lstm) {
  std::vector<nn::RecurrentOptions> all;
  for (int bits = 0; bits < (lstm ? 32 : 16); ++bits)
    all.push_back({.num_layers = bits & 1 ? 2 : 1,
                   .bias = !(bits & 2),
                   .batch_first = (bits & 4) != 0,
                   .bidirectional = (bits & 8) != 0,
                   .proj_size = bits & 16 ? 5 : 0});
  return all;
}

std::vector<nn::ModulePtr> networks() {
  std::vector<nn::ModulePtr> all;
  for (const auto& o : forms(true)) all.push_back(nn::make<nn::LSTM>(6, 16, o));
  for (const auto& o : forms(false)) {
    all.push_back(nn::make<nn::GRU>(6, 16, o));
    all.push_back(nn::make<nn::RNN>(6, 16, o));
  }
  for (bool bias : {true, false}) {
    all.push_back(nn::make<nn::LSTMCell>(6, 16, bias));
    all.push_back(nn::make<nn::GRUCell>(6, 16, bias));
    all.push_back(nn::make<nn::RNNCell>(6, 16, bias));
  }
  for (auto& m : all) m->eval();
  return all;
}

Tensor input_of(const nn::Module& network, uint64_t seed) {
  return dynamic_cast<const nn::RNNBase*>(&network) ? Tensor::randn({4, 3, 6}, seed)
                                                    : Tensor::randn({3, 6}, seed);
}

// Traps: "LSTM without bias, with projection, unbatched fails".
TEST(RecurrentModulesTraps, EveryFormOfNetworkIsQuantizedAndNearTheFloatOne) {
  manual_seed(1);
  for (const nn::ModulePtr& network : networks()) {
    SCOPED_TRACE(nn::to_string(*network));
    nn::ModulePtr dynamic = quantize_dynamic(network);
    EXPECT_EQ(dynamic->type_name(), "DynamicQuantized" + network->type_name());
    EXPECT_TRUE(dynamic->parameters().empty());
    Tensor x = input_of(*network, 3);
    auto expect_near = [&](const Tensors& inputs) {
      Tensors a = (*dynamic)(inputs), b = (*network)(inputs);
      ASSERT_EQ(a.size(), b.size());
      for (size_t i = 0; i < a.size(); ++i) EXPECT_GT(sqnr(b[i].detach(), a[i]), 28) << i;
    };
    expect_near({x});
    Tensors states = (*network)(Tensors{x});
    if (x.dim() == 3) states.erase(states.begin());
    states.insert(states.begin(), x);
    expect_near(states);
    const bool batch_first =
        x.dim() == 3 && dynamic_cast<nn::RNNBase&>(*network).options.batch_first;
    // without a batch
    expect_near({x.dim() == 2 ? x.select(0, 0) : x.select(batch_first ? 0 : 1, 0)});
  }
}

TEST(RecurrentModules, UnbatchedAndBatchFirstAreTheSameNumbers) {
  manual_seed(2);
  nn::RecurrentOptions options{.num_layers = 2, .bidirectional = true, .proj_size = 3};
  auto network = nn::make<nn::LSTM>(4, 7, options);
  network->eval();
  auto dynamic = std::dynamic_pointer_cast<nnqd::LSTM>(quantize_dynamic<nn::Module>(network));
  ASSERT_TRUE(dynamic);
  Tensor x = Tensor::randn({6, 1, 4}, 1);
  Tensor y = dynamic->forward(x);
  EXPECT_TRUE(equal(dynamic->forward(x.squeeze(1)), y.squeeze(1)));
  dynamic->options.batch_first = true;
  EXPECT_TRUE(equal(dynamic->forward(x.transpose(0, 1)), y.transpose(0, 1).contiguous()));
}

TEST(RecurrentModules, Float16NetworksComputeInFloatOnRoundedWeights) {
  manual_seed(3);
  for (const nn::ModulePtr& network : networks()) {
    nn::ModulePtr half = quantize_dynamic(network, {}, DType::float16), rounded = network->clone();
    for (auto& [name, w] : rounded->named_parameters())
      if (name.find("weight") != std::string::npos)
        w->detach().copy_from(w->detach().to(DType::float16).to(DType::float32));
    Tensor x = input_of(*network, 4);
    EXPECT_TRUE(equal((*half)(x), (*rounded)(x).detach())) << nn::to_string(*network);
  }
}

TEST(RecurrentModules, PerChannelWeightsAreNearer) {
  manual_seed(4);
  auto network = nn::make<nn::GRU>(6, 16);
  network->eval();
  // Gates of very different weights: one scale fits them badly.
  Tensor w = network->tensor("weight_ih_l0").detach();
  for (int64_t i = 0; i < 16 * 6; ++i) w.data<float>()[i] *= 40;
  Tensor x = Tensor::randn({5, 4, 6}, 5), y = (*network)(x).detach();
  auto with = [&](const quant::QConfig& q) {
    return sqnr(y, (*quantize_dynamic<nn::Module>(network, quant::QConfigSpec().set("", q)))(x));
  };
  EXPECT_GT(with(quant::per_channel_dynamic_qconfig()), with(quant::default_dynamic_qconfig()) + 3);
}

TEST(RecurrentModules, ReduceRangeIsPassedOn) {
  auto network = nn::make<nn::LSTM>(6, 16);
  network->eval();
  auto dynamic = std::dynamic_pointer_cast<nnqd::LSTM>(quantize_dynamic<nn::Module>(network));
  Tensor x = Tensor::randn({5, 4, 6}, 5), y = dynamic->forward(x);
  dynamic->set_reduce_range(true);
  EXPECT_FALSE(equal(dynamic->forward(x), y));
  EXPECT_GT(sqnr(y, dynamic->forward(x)), 25);
}

TEST(RecurrentModules, WeightsArePackedOnceAndResultsStay) {
  auto network = nn::make<nn::LSTM>(6, 16);
  network->eval();
  auto dynamic = std::dynamic_pointer_cast<nnqd::LSTM>(quantize_dynamic<nn::Module>(network));
  Tensor x = Tensor::randn({5, 4, 6}, 6), y = dynamic->forward(x);
  auto packed = dynamic->weights().at("weight_ih_l0").packed_slot();
  ASSERT_TRUE(packed);
  EXPECT_TRUE(equal(dynamic->forward(x), y));
  EXPECT_TRUE(equal(dynamic->forward(x.slice(0, 0, 2)), dynamic->forward(x.slice(0, 0, 2))));
  EXPECT_EQ(dynamic->weights().at("weight_ih_l0").packed_slot(), packed);
}

TEST(RecurrentModules, ReferenceNetworksComputeOnDequantizedWeights) {
  manual_seed(7);
  for (const nn::ModulePtr& network : networks()) {
    nn::ModulePtr source = network->clone();
    source->qconfig = quant::default_dynamic_qconfig();
    nn::ModulePtr reference =
        quant::get_default_static_quant_reference_module_mappings().make(*source);
    ASSERT_TRUE(reference);
    EXPECT_EQ(reference->type_name(), "QuantizedReference" + network->type_name());
    for (auto& [name, w] : source->named_parameters())
      if (name.find("weight") != std::string::npos)
        w->detach().copy_from(reference->extra_state().at(name).dequantize());
    Tensor x = input_of(*network, 8);
    EXPECT_TRUE(equal((*reference)(x), (*source)(x).detach())) << nn::to_string(*network);
  }
}

TEST(RecurrentModules, ModelsKeepTheirOtherLayers) {
  auto model = nn::make<nn::Sequential>(nn::LSTM(4, 5), nn::Linear(5, 2));
  auto only_lstm = quantize_dynamic(model, quant::types<nn::LSTM>());
  EXPECT_EQ(only_lstm->submodule("0")->type_name(), "DynamicQuantizedLSTM");
  EXPECT_EQ(only_lstm->submodule("1")->type_name(), "Linear");
  quant::ConversionReport report;
  quantize_dynamic(model, quant::types<nn::Linear>(), DType::qint8, {.report = &report});
  ASSERT_EQ(report.left_float().size(), 1u) << "a network that stays float is reported";
  EXPECT_EQ(report.left_float()[0].node, "0");
}

TEST(RecurrentModules, StatesThatDoNotFitAreErrors) {
  auto network = nn::make<nn::LSTM>(4, 5);
  auto a = quantize_dynamic<nn::Module>(network),
       b = quantize_dynamic<nn::Module>(nn::make<nn::LSTM>(4, 6));
  auto state = a->state_dict();
  EXPECT_EQ(state.size(), 4u);
  EXPECT_EQ(state.at("weight_ih_l0").dtype(), DType::qint8);
  expect_error(ErrorCode::invalid_argument, {"DynamicQuantizedLSTM", "expected"},
               [&] { a->load_state_dict(b->state_dict()); });
  expect_error(ErrorCode::invalid_argument,
               {"weight_hh_l0 is float32 in the state dict and qint8 in the model"},
               [&] { a->load_state_dict(network->state_dict()); });
  expect_error(ErrorCode::invalid_argument, {"GRU: from_float was given a LSTM; expected a GRU"},
               [&] { nnqd::GRU::from_float(*network); });
}

}  // namespace
}  // namespace octet::testing
