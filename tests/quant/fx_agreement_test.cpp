// What the reference graph computes in float on dequantized values and what the lowered one
// computes in integers: within one step at every value, given the same operands.
#include <gtest/gtest.h>

#include "tests/example_models.h"
#include "tests/quant/fx_agreement.h"

namespace octet::quant {
namespace {

using testing::Compared;
using testing::Recorder;

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
