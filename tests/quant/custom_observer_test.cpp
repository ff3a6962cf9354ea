// An observer of the user's own in qconfigs and models.
#include <gtest/gtest.h>

#include "octet/nn/linear.h"
#include "octet/quant/modules/quantized.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/observe/qconfig.h"
#include "octet/quant/workflow/eager.h"
#include "tests/expect_error.h"

namespace octet::quant {
namespace {

using testing::expect_error;

// The range -3..3, whatever the data.
class ThreeObserver : public Observer {
 public:
  explicit ThreeObserver(ObserverOptions options = {}, std::string label = "")
      : Observer(options, std::move(label)) {}
  bool empty() const override { return !seen_; }
  QParams calculate_qparams() const override {
    return quant::calculate_qparams(std::vector<float>{-3}, std::vector<float>{3}, options(),
                                    label());
  }
  void reset() override { seen_ = false; }

 protected:
  void observe_floats(const Tensor&) override { seen_ = true; }
  void merge_same(const Observer&) override {}

 private:
  bool seen_ = false;
};
OCTET_OBSERVER(ThreeObserver)

TEST(CustomObserver, StandsInQConfigsLikeOctetsOwn) {
  QConfig qconfig{ObserverFactory("ThreeObserver").with_dtype(DType::quint8),
                  default_weight_observer()};
  EXPECT_EQ(to_string(qconfig.activation), "ThreeObserver()");
  auto model = nn::make<QuantWrapper>(nn::make<nn::Linear>(4, 2));
  model->eval();
  model->qconfig = qconfig;
  auto prepared = prepare(model);
  prepared->forward(Tensor::randn({2, 4}, 1));
  auto int8 = convert(prepared);
  EXPECT_NEAR(int8->submodule("module")->as<nn::quantized::Linear>().scale, 6.0 / 255, 1e-8);
}

TEST(CustomObserver, ANameThatIsTakenIsAnError) {
  expect_error(ErrorCode::invalid_argument, {"observer named MinMaxObserver already"},
               [] { ObserverRegistration<ThreeObserver> again("MinMaxObserver"); });
}

}  // namespace
}  // namespace octet::quant
