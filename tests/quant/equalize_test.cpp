// Cross-layer equalization: against PyTorch (tests/golden/equalize.json, made by
// scripts/oracle/equalize.py), and what must hold of it where PyTorch has none.
#include "octet/quant/algorithms/equalize.h"

#include <gtest/gtest.h>

#include <cmath>

#include "octet/autograd/autograd.h"
#include "octet/base/random.h"
#include "octet/nn/nn.h"
#include "octet/ops/functional.h"
#include "octet/quant/modules/intrinsic.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/workflow/eager.h"
#include "tests/expect_error.h"
#include "tests/quant/golden_modules.h"
#include "tests/sqnr.h"

namespace octet::testing {
namespace {

using nn::Conv1d;
using nn::Conv2d;
using nn::Conv3d;
using nn::Linear;
using nn::ReLU;
using nn::Sequential;
using quant::equalize;
using quant::FuseList;

// weight() of the script.
Tensor golden_weight(uint64_t seed, const Shape& shape) {
  std::vector<float> w = golden_values("normal", seed, numel(shape), 1, 0);
  Random random(seed + 1);
  const size_t columns = static_cast<size_t>(shape[1]),
               inner = w.size() / (static_cast<size_t>(shape[0]) * columns);
  float row_scale = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    const size_t row = i / inner / columns, column = i / inner % columns;
    if (i % (inner * columns) == 0)
      row_scale = std::ldexp(1.f, static_cast<int>(random.uniform() * 10.0) - 5);
    w[i] = std::abs(w[i]) * row_scale * ((row + column) % 2 ? -1.f : 1.f);
  }
  return Tensor::from(w, shape);
}

// Within 1e-6 of the largest element: PyTorch rounds in every turn, octet once.
void expect_near(const Tensor& got, const Tensor& expected) {
  double largest = 0;
  for (float v : expected.to_vector<float>())
    largest = std::max(largest, std::abs(static_cast<double>(v)));
  EXPECT_TRUE(allclose(got.detach(), expected, 1e-6, 1e-6 * largest))
      << to_string(got) << to_string(expected);
}

TEST(GoldenEqualize, WeightsAndBiasesArePyTorchs) {
  json cases = load_golden("equalize.json");
  ASSERT_EQ(cases.size(), 80u);
  for (const json& c : cases) {
    auto model = nn::make<Sequential>();
    uint64_t seed = c["seed"];
    for (const json& l : c["layers"]) {
      const Shape shape = l["shape"].get<Shape>();
      nn::ModulePtr layer, whole;
      if (l["conv"])
        layer = nn::make<Conv2d>(shape[1], shape[0], shape[2]);
      else
        layer = nn::make<Linear>(shape[1], shape[0]);
      layer->tensor("weight") = golden_weight(seed, shape);
      layer->tensor("bias") =
          Tensor::from(golden_values("normal", seed + 2, shape[0], 1, 0), {shape[0]});
      seed += 3;
      const std::vector<nn::ModulePtr> parts{layer, nn::make<ReLU>()};
      if (!l["relu"])
        whole = layer;
      else if (l["conv"])
        whole = nn::make<nn::intrinsic::ConvReLU2d>(parts);
      else
        whole = nn::make<nn::intrinsic::LinearReLU>(parts);
      model->append(whole);
    }
    auto state =
        equalize(model, c["pairs"].get<FuseList>(), {.threshold = c["threshold"]})->state_dict();
    for (size_t k = 0; k < c["layers"].size(); ++k) {
      const json& l = c["layers"][k];
      SCOPED_TRACE(c["seed"].dump() + " layer " + std::to_string(k));
      const std::string path = std::to_string(k) + (l["relu"] ? ".0." : ".");
      expect_near(state.at(path + "weight"),
                  floats_from_base64(l["weight"], l["shape"].get<Shape>()));
      expect_near(state.at(path + "bias"),
                  floats_from_base64(l["bias"], {l["shape"][0].get<int64_t>()}));
    }
    if (HasFailure()) return;
  }
}

// -- properties -----------------------------------------------------------------------------------

// The layer with weights that differ by powers of ten between channels, on both sides.
template <typename Layer>
Layer uneven(Layer layer, uint64_t seed) {
  Random random(seed);
  Tensor w = Tensor::randn(layer.weight.shape(), seed);
  const int64_t columns = w.size(1), inner = w.numel() / w.size(0) / columns;
  std::vector<double> by_column(static_cast<size_t>(columns));
  for (double& v : by_column) v = std::pow(10, random.uniform(-1, 1));
  for (int64_t r = 0; r < w.size(0); ++r) {
    double by_row = std::pow(10, random.uniform(-1.5, 1.5));
    for (int64_t i = 0; i < columns * inner; ++i)
      w.data<float>()[r * columns * inner + i] *=
          static_cast<float>(by_row * by_column[static_cast<size_t>(i / inner)]);
  }
  layer.weight = w;
  if (layer.bias.defined()) layer.bias = Tensor::randn(layer.bias.shape(), seed + 1);
  return layer;
}

template <typename Norm>
Norm lively(int64_t features, uint64_t seed) {
  Norm bn(features);
  bn.weight = Tensor::rand({features}, seed, 0.1, 2);
  bn.bias = Tensor::rand({features}, seed + 1, -1, 1);
  bn.running_mean = Tensor::rand({features}, seed + 2, -1, 1);
  bn.running_var = Tensor::rand({features}, seed + 3, 0.3, 3);
  return bn;
}

// Largest minus smallest weight, 0 counted in, of each slice of a dimension.
std::vector<double> ranges(const Tensor& weight, int64_t d) {
  std::vector<double> result;
  for (int64_t i = 0; i < weight.size(d); ++i) {
    float low = 0, high = 0;
    for (float v : weight.detach().select(d, i).to_vector<float>())
      low = std::min(low, v), high = std::max(high, v);
    result.push_back(static_cast<double>(high) - low);
  }
  return result;
}

struct EqualizeCase {
  const char* name;
  std::shared_ptr<Sequential> model;
  Shape input;
  FuseList lists;
  // The weights that have the same ranges afterwards, along these dimensions; none where groups
  // hide the channels.
  std::vector<std::pair<const char*, int64_t>> equal = {};
};

template <typename... Ms>
std::shared_ptr<Sequential> sequence(Ms&&... modules) {
  return nn::make<Sequential>(std::forward<Ms>(modules)...);
}

std::vector<EqualizeCase> all_cases() {
  nn::ModulePtr fused = nn::make<nn::intrinsic::ConvReLU2d>(
      std::vector<nn::ModulePtr>{nn::make<Conv2d>(uneven(Conv2d(3, 8, 3), 1)), nn::make<ReLU>()});
  using nn::ConvTranspose1d, nn::ConvTranspose2d, nn::ConvTranspose3d;
  return {
      {"conv2d",
       sequence(uneven(Conv2d(3, 8, 3), 1), ReLU(), uneven(Conv2d(8, 4, 3), 2)),
       {2, 3, 8, 8},
       {{"0", "2"}},
       {{"0.weight", 0}, {"2.weight", 1}}},
      {"conv1d",
       sequence(uneven(Conv1d(3, 8, 3), 3), nn::PReLU(), uneven(Conv1d(8, 4, 3), 4)),
       {2, 3, 9},
       {{"0", "2"}},
       {{"0.weight", 0}, {"2.weight", 1}}},
      {"conv3d",
       sequence(uneven(Conv3d(2, 5, 2), 5), nn::LeakyReLU(), uneven(Conv3d(5, 3, 2), 6)),
       {1, 2, 4, 4, 4},
       {{"0", "2"}},
       {{"0.weight", 0}, {"2.weight", 1}}},
      {"transposed1d",
       sequence(uneven(ConvTranspose1d(3, 6, 3), 7), ReLU(), uneven(Conv1d(6, 4, 3), 8)),
       {2, 3, 5},
       {{"0", "2"}},
       {{"0.weight", 1}, {"2.weight", 1}}},
      {"transposed2d",
       sequence(uneven(Conv2d(3, 6, 3), 9), ReLU(), uneven(ConvTranspose2d(6, 4, 3), 10)),
       {2, 3, 6, 6},
       {{"0", "2"}},
       {{"0.weight", 0}, {"2.weight", 0}}},
      {"transposed3d",
       sequence(uneven(ConvTranspose3d(2, 4, 2), 11), uneven(ConvTranspose3d(4, 2, 2), 12)),
       {1, 2, 3, 3, 3},
       {{"0", "1"}},
       {{"0.weight", 1}, {"1.weight", 0}}},
      {"groups",
       sequence(uneven(Conv2d(4, 12, 3, {.groups = 2}), 13), ReLU(),
                uneven(Conv2d(12, 6, 3, {.groups = 3}), 14)),
       {2, 4, 7, 7},
       {{"0", "2"}}},
      {"groups, transposed",
       sequence(uneven(ConvTranspose2d(4, 12, 3, {.groups = 2}), 15), ReLU(),
                uneven(ConvTranspose2d(12, 6, 3, {.groups = 3}), 16)),
       {2, 4, 4, 4},
       {{"0", "2"}}},
      {"depthwise between",
       sequence(uneven(Conv2d(3, 8, 1), 17), ReLU(),
                uneven(Conv2d(8, 8, 3, {.padding = 1, .groups = 8}), 18), ReLU(),
                uneven(Conv2d(8, 4, 1), 19)),
       {2, 3, 6, 6},
       {{"0", "2", "4"}},
       {{"0.weight", 0}, {"2.weight", 0}, {"4.weight", 1}}},
      {"two depthwise between, 1d and transposed",
       sequence(uneven(Conv1d(3, 8, 1), 20), uneven(Conv1d(8, 8, 3, {.groups = 8}), 21), ReLU(),
                uneven(ConvTranspose1d(8, 8, 3, {.groups = 8}), 22), uneven(Conv1d(8, 4, 1), 23)),
       {2, 3, 8},
       {{"0", "1", "3", "4"}},
       {{"0.weight", 0}, {"1.weight", 0}, {"3.weight", 0}, {"4.weight", 1}}},
      {"depthwise first",
       sequence(uneven(Conv2d(6, 6, 3, {.groups = 6}), 24), ReLU(), uneven(Conv2d(6, 4, 1), 25)),
       {2, 6, 6, 6},
       {{"0", "2"}},
       {{"0.weight", 0}, {"2.weight", 1}}},
      {"depthwise last, two outputs per channel",
       sequence(uneven(Conv2d(3, 6, 1), 26), ReLU(), uneven(Conv2d(6, 12, 3, {.groups = 6}), 27)),
       {2, 3, 6, 6},
       {{"0", "2"}}},
      {"linear without biases",
       sequence(uneven(Linear(5, 9, false), 28), ReLU(), uneven(Linear(9, 4, false), 29)),
       {3, 5},
       {{"0", "2"}},
       {{"0.weight", 0}, {"2.weight", 1}}},
      {"flattened",
       sequence(uneven(Conv2d(3, 5, 3), 30), ReLU(), nn::MaxPool2d(2), nn::Flatten(),
                uneven(Linear(45, 4), 31)),
       {2, 3, 8, 8},
       {{"0", "4"}}},
      {"fused",
       sequence(fused, uneven(Conv2d(8, 4, 3), 2)),
       {2, 3, 8, 8},
       {{"0", "1"}},
       {{"0.0.weight", 0}, {"1.weight", 1}}},
      {"batch norms",
       sequence(uneven(Conv2d(3, 8, 1, {.bias = false}), 32), lively<nn::BatchNorm2d>(8, 33),
                ReLU(), uneven(Conv2d(8, 8, 3, {.groups = 8, .bias = false}), 34),
                lively<nn::BatchNorm2d>(8, 35), ReLU(),
                uneven(Conv2d(8, 6, 1, {.bias = false}), 36), lively<nn::BatchNorm2d>(6, 37),
                ReLU(), nn::Flatten(), uneven(Linear(6 * 16, 3), 38)),
       {2, 3, 6, 6},
       {{"0", "1", "3", "4", "6"}, {"6", "7", "10"}},
       {}},
      {"a chain in one list",
       sequence(uneven(Linear(4, 6), 39), uneven(Linear(6, 5), 40), ReLU(),
                uneven(Linear(5, 3), 41)),
       {2, 4},
       {{"0", "1", "3"}}},
  };
}

TEST(Equalize, TheModelComputesWhatItDidWithEqualRanges) {
  autograd::NoGrad no_grad;
  for (EqualizeCase& c : all_cases()) {
    SCOPED_TRACE(c.name);
    c.model->eval();
    Tensor x = Tensor::randn(c.input, 99), before = (*c.model)(x);
    auto state = c.model->state_dict();
    auto equal_model = equalize(c.model, c.lists);
    Tensor after = (*equal_model)(x);
    double largest = 0;
    for (float v : before.to_vector<float>())
      largest = std::max(largest, std::abs(static_cast<double>(v)));
    EXPECT_TRUE(allclose(after, before, 0, 1e-5 * largest))
        << to_string(before) << to_string(after);
    EXPECT_TRUE(octet::equal((*c.model)(x), before)) << "the original was changed";
    for (const auto& [name, d] : c.equal) {
      std::vector<double> got = ranges(equal_model->state_dict().at(name), d),
                          first = ranges(state.at(name), d);
      std::vector<double> expected =
          ranges(equal_model->state_dict().at(c.equal[0].first), c.equal[0].second);
      ASSERT_EQ(got.size(), expected.size());
      for (size_t i = 0; i < got.size(); ++i)
        EXPECT_NEAR(got[i], expected[i], 1e-6 * expected[i]) << name << " " << i;
      EXPECT_NE(got, first) << name << " was not scaled";
    }
  }
}

// Both pairs at once cannot be equal after one turn; the turns go on until nothing moves.
TEST(Equalize, ChainsOfPairsAgreeInTheEnd) {
  auto model = sequence(uneven(Linear(4, 6), 1), ReLU(), uneven(Linear(6, 5), 2), ReLU(),
                        uneven(Linear(5, 3), 3));
  auto state = equalize(model, {{"0", "2"}, {"2", "4"}}, {.threshold = 1e-9})->state_dict();
  for (auto [first, second] : {std::pair("0.weight", "2.weight"), {"2.weight", "4.weight"}}) {
    std::vector<double> out = ranges(state.at(first), 0), in = ranges(state.at(second), 1);
    for (size_t i = 0; i < out.size(); ++i)
      EXPECT_NEAR(out[i], in[i], 1e-6 * in[i]) << first << " " << i;
  }
}

TEST(Equalize, ChannelsWithoutWeightsStayAsTheyAre) {
  auto model = sequence(uneven(Linear(4, 4), 1), ReLU(), uneven(Linear(4, 3), 2));
  Tensor w0 = model->submodule("0")->tensor("weight"), w2 = model->submodule("2")->tensor("weight");
  // channel 0 leaves nothing but its bias
  for (int64_t i = 0; i < 4; ++i) w0.data<float>()[i] = 0;
  for (int64_t i = 0; i < 3; ++i) w2.data<float>()[i * 4 + 1] = 0;  // channel 1 is not used
  // channel 2 does next to nothing
  for (int64_t i = 0; i < 4; ++i) w0.data<float>()[8 + i] *= 1e-12f;
  auto state = model->state_dict(), now = equalize(model, {{"0", "2"}})->state_dict();
  for (int64_t c = 0; c < 3; ++c) {
    EXPECT_TRUE(octet::equal(now.at("0.weight").detach().select(0, c),
                             state.at("0.weight").detach().select(0, c)))
        << c;
    EXPECT_TRUE(octet::equal(now.at("2.weight").detach().select(1, c),
                             state.at("2.weight").detach().select(1, c)))
        << c;
    EXPECT_EQ(now.at("0.bias").at({c}), state.at("0.bias").at({c})) << c;
  }
  EXPECT_FALSE(octet::equal(now.at("0.weight").detach().select(0, 3),
                            state.at("0.weight").detach().select(0, 3)));
}

TEST(Equalize, WorksInPlaceIfAsked) {
  auto model = sequence(uneven(Linear(4, 6), 1), ReLU(), uneven(Linear(6, 5), 2));
  auto state = equalize(model, {{"0", "2"}})->state_dict();
  EXPECT_EQ(equalize(model, {{"0", "2"}}, {.inplace = true}), model);
  for (auto& [name, t] : model->state_dict())
    EXPECT_TRUE(octet::equal(t.detach(), state.at(name).detach())) << name;
}

TEST(Equalize, AnErrorLeavesTheModelAsItWas) {
  auto model = sequence(uneven(Conv2d(3, 8, 1), 1), lively<nn::BatchNorm2d>(8, 2), ReLU(),
                        uneven(Conv2d(8, 4, 1), 3));
  model->eval();
  EXPECT_THROW(equalize(model, {{"0", "1", "3"}, {"3", "0"}}, {.inplace = true}), Error);
  EXPECT_EQ(model->submodule("1")->type_name(), "BatchNorm2d");
}

// A small MobileNet block with the channel ranges that folded batch norms leave behind, quantized
// with one scale per weight.
TEST(Equalize, HelpsWhereOneScaleMustFitAllChannels) {
  autograd::NoGrad no_grad;
  auto model = sequence(uneven(Conv2d(3, 16, 3), 1), ReLU(),
                        uneven(Conv2d(16, 16, 3, {.padding = 1, .groups = 16}), 2), ReLU(),
                        uneven(Conv2d(16, 8, 1), 3));
  model->eval();
  Tensor x = Tensor::randn({4, 3, 12, 12}, 5), expected = (*model)(x);
  auto quality = [&](const std::shared_ptr<Sequential>& m) {
    m->qconfig = quant::get_default_qconfig("qnnpack");
    auto prepared = quant::prepare(nn::make<quant::QuantWrapper>(m));
    (*prepared)(x);
    return sqnr(expected, (*quant::convert(prepared))(x));
  };
  auto equal_model = equalize(model, {{"0", "2", "4"}});
  double before = quality(model), after = quality(equal_model);
  EXPECT_GT(after, before + 8) << before << " dB before, " << after << " after";
  EXPECT_GT(after, 28);
}

// -- what is refused ------------------------------------------------------------------------------

struct EqualizedResidual : nn::Module {
  nn::Slot conv1 = slot("conv1", uneven(Conv2d(4, 4, 1), 1));
  nn::Slot conv2 = slot("conv2", uneven(Conv2d(4, 4, 1), 2));
  Tensor forward(Tensor x) override {
    x = conv1(x);
    return x + conv2(functional::relu(x));
  }
};

TEST(Equalize, ASampleFindsTheListsThatChangeTheModel) {
  auto model = nn::make<Sequential>();
  model->append("block", nn::make<EqualizedResidual>());
  model->append("conv", uneven(Conv2d(4, 6, 1), 3)).append("last", uneven(Conv2d(6, 3, 1), 4));
  const FuseList lists{{"block.conv1", "block.conv2"}, {"conv", "last"}};
  Tensor x = Tensor::randn({1, 4, 3, 3}, 1);
  try {
    equalize(model, lists, {.sample = {x}});
    FAIL() << "nothing was thrown";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("{block.conv1, block.conv2}"), std::string::npos)
        << e.what();
    EXPECT_EQ(std::string(e.what()).find("{conv, last}"), std::string::npos) << e.what();
  }
  equalize(model, {lists[1]}, {.sample = {x}});
}

TEST(Equalize, ASampleAllowsWhatIsDeclaredBetweenButDoesNotRunThere) {
  struct Net : nn::Module {
    nn::Slot conv1 = slot("conv1", uneven(Conv2d(2, 4, 1), 1));
    nn::Slot sigmoid = slot("sigmoid", nn::Sigmoid());
    nn::Slot conv2 = slot("conv2", uneven(Conv2d(4, 2, 1), 2));
    Tensor forward(Tensor x) override { return sigmoid(conv2(conv1(x))); }
  };
  auto net = nn::make<Net>();
  expect_error(ErrorCode::invalid_argument,
               {"'sigmoid' (Sigmoid)", "between 'conv1' and 'conv2'", "sample"}, [&] {
                 equalize(net, {{"conv1", "conv2"}});
               });
  equalize(net, {{"conv1", "conv2"}}, {.sample = {Tensor::randn({1, 2, 3, 3}, 1)}});
}

TEST(Equalize, WhatCannotBeEqualizedIsAnErrorThatSaysWhy) {
  auto shared = nn::make<Linear>(4, 4);
  auto model = nn::make<Sequential>();
  model->append("conv", Conv2d(3, 8, 1))
      .append("bn", nn::BatchNorm2d(8))
      .append("relu6", nn::ReLU6())
      .append("dw", Conv2d(8, 8, 3, {.groups = 8}));
  model->append("pw", Conv2d(8, 6, 1))
      .append("a", Linear(4, 4))
      .append("b", Linear(4, 4))
      .append("c", Linear(4, 4));
  model->append("odd", Linear(7, 2))
      .append("shared", shared)
      .append("again", shared)
      .append("gru", nn::GRU(4, 4));
  model->append("bn1d", nn::BatchNorm1d(4)).append("nan", Linear(4, 4)).append("end", Linear(4, 4));
  model->submodule("nan")->tensor("weight").data<float>()[3] = NAN;
  model->append("trained", nn::make<nn::intrinsic::ConvBn2d>(std::vector<nn::ModulePtr>{
                               nn::make<Conv2d>(6, 6, 1), nn::make<nn::BatchNorm2d>(6)}));
  auto check = [&](ErrorCode code, const FuseList& lists, const std::vector<std::string>& parts) {
    SCOPED_TRACE(parts[0]);
    expect_error(code, parts, [&] { equalize(model, lists); });
  };
  const auto bad = ErrorCode::invalid_argument;
  model->eval();
  check(bad, {{"conv", "dw"}},
        {"equalize {conv, dw}", "'bn' (BatchNorm2d)", "name it in the list"});
  check(bad, {{"conv", "bn", "dw"}}, {"'relu6' (ReLU6)", "put a ReLU there"});
  check(bad, {{"a"}}, {"equalize {a}", "two layers or more"});
  check(bad, {{"a", "a"}}, {"'a' is named twice"});
  check(bad, {{"a", "b"}, {"a", "c"}}, {"'a' is followed by 'b'"});
  check(bad, {{"a", "c"}, {"b", "c"}}, {"'c' follows 'a'"});
  check(bad, {{"dw", "odd"}}, {"'dw' gives 8 channels and 'odd' takes 7"});
  check(bad, {{"shared", "end"}}, {"'shared' stands in 2 places"});
  check(ErrorCode::unsupported, {{"c", "gru"}}, {"'gru' is a GRU", "Conv1d"});
  check(ErrorCode::not_found, {{"a", "bb"}}, {"bb"});
  check(bad, {{"nan", "end"}}, {"'nan' has 1 weights that are NaN"});
  check(bad, {{"bn", "dw"}}, {"expected a layer before the batch norm 'bn'"});
  check(bad, {{"pw", "trained"}}, {"'trained' is a ConvBn2d", "eval mode"});
  model->train();
  check(bad, {{"conv", "bn", "dw"}}, {"'bn' is in training mode", "eval()"});
  expect_error(bad, {"threshold", "-1"}, [&] { equalize(model, {{"a", "b"}}, {.threshold = -1}); });
}

TEST(Equalize, APreparedModelIsRefused) {
  auto model = sequence(Linear(4, 4), ReLU(), Linear(4, 4));
  model->eval();
  model->qconfig = quant::get_default_qconfig();
  auto prepared = quant::prepare(model);
  expect_error(ErrorCode::invalid_argument, {"prepared already", "before prepare"}, [&] {
    equalize(prepared, {{"0", "2"}});
  });
}

}  // namespace
}  // namespace octet::testing
