// What the reference graph computes in float on dequantized values and what the lowered one computes in integers: within one step at
// every value, given the same operands.
#include <gtest/gtest.h>

#include <cmath>

#include "octet/quant/workflow/fx.h"
#include "tests/example_models.h"

namespace octet::quant {
namespace {

using graph::Graph;
using graph::GraphModule;
using graph::ValueId;

// Keeps what each value of the lowered graph was.
struct Recorder : GraphModule {
  using GraphModule::forward;
  Recorder(const GraphModule& lowered) : GraphModule(lowered.graph(), const_cast<GraphModule&>(lowered)) {}
  std::map<std::string, Tensor> seen;
  Tensor result(ValueId id, Tensor value) override {
    seen[graph().value(id).name] = value;
    return value;
  }
};

// Runs the reference graph, compares each quantized value with the lowered graph's of that name, and goes on with the latter.
struct Compared : GraphModule {
  using GraphModule::forward;
  Compared(const GraphModule& reference, std::map<std::string, Tensor> lowered)
      : GraphModule(reference.graph(), const_cast<GraphModule&>(reference)), lowered(std::move(lowered)) {}
  std::map<std::string, Tensor> lowered;
  int64_t values = 0, differ = 0;
  int worst = 0;
  std::string where;
  Tensor result(ValueId id, Tensor value) override {
    auto it = lowered.find(graph().value(id).name);
    if (!value.is_quantized() || it == lowered.end() || !it->second.is_quantized()) return value;
    EXPECT_EQ(*value.quantizer(), *it->second.quantizer()) << it->first;
    auto a = value.int_repr().to(DType::int32).to_vector<int32_t>(), b = it->second.int_repr().to(DType::int32).to_vector<int32_t>();
    for (size_t i = 0; i < a.size(); ++i) {
      int d = std::abs(a[i] - b[i]);
      ++values;
      differ += d != 0;
      if (d > worst) worst = d, where = it->first;
    }
    return it->second;
  }
};

TEST(FxAgreement, ReferenceAndLoweredAreWithinOneStepAtEveryValue) {
  for (auto& m : testing::small_models()) {
    m.model->eval();
    std::vector<Tensor> example{m.x(2, 1)};
    auto prepared = prepare_fx(m.model, get_default_qconfig_mapping(), example);
    for (uint64_t s = 1; s < 4; ++s) (*prepared)(m.x(2, s));
    auto reference = convert_to_reference_fx(prepared);
    auto lowered = lower(reference);
    auto recorder = nn::make<Recorder>(*lowered);
    recorder->eval();
    (void)recorder->forward(std::vector<Tensor>{m.x(3, 9)});
    auto compared = nn::make<Compared>(*reference, recorder->seen);
    compared->eval();
    (void)compared->forward(std::vector<Tensor>{m.x(3, 9)});
    EXPECT_GT(compared->values, 100) << m.name;
    EXPECT_LE(compared->worst, 1) << m.name << " at %" << compared->where;
    EXPECT_LT(compared->differ, compared->values / 50) << m.name;  // ties only
  }
}

}  // namespace
}  // namespace octet::quant
