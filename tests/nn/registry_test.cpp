#include "octet/nn/registry.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "octet/base/random.h"
#include "octet/nn/init.h"
#include "octet/nn/linear.h"
#include "tests/expect_error.h"

namespace octet::nn::registry_test {

using testing::expect_error;

// Its from_config is Linear's, which makes Linears.
struct Derived : Linear {
  Derived() : Linear(2, 2) {}
};
OCTET_MODULE(Derived)

struct Empty : Module {
  Slot place = slot("place", ModulePtr());
  Tensor forward(Tensor x) override { return place(x); }
};

TEST(Registry, AnInheritedFromConfigIsNotUsed) {
  auto made = make_registered(registered_name(*make<Derived>()), make<Derived>()->config());
  EXPECT_TRUE(is_registered_as(*made, "octet::nn::registry_test::Derived"));
  EXPECT_FALSE(is_registered_as(*made, "octet::nn::Linear"));
  EXPECT_FALSE(is_registered_as(*make<Empty>(), "octet::nn::registry_test::Empty"));
}

TEST(Registry, NamesAreSortedAndQualified) {
  auto names = registered_names();
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
  EXPECT_TRUE(std::count(names.begin(), names.end(), "octet::nn::Conv2d"));
}

TEST(Registry, AnnotationsHaveNamesOfTheirOwn) {
  Annotation annotation{[](const Module&) -> std::optional<Attrs> { return std::nullopt; },
                        [](Module&, Module&, const Attrs&) {}};
  register_annotation("registry_test", annotation);
  auto all = annotations();
  EXPECT_TRUE(std::any_of(all.begin(), all.end(),
                          [](const auto& a) { return a.first == "registry_test"; }));
  expect_error(ErrorCode::invalid_argument, {"'registry_test' is registered twice"},
               [&] { register_annotation("registry_test", annotation); });
}

TEST(Registry, SkippedInitialValuesDrawNoRandomNumbers) {
  manual_seed(1);
  uint64_t expected = next_seed();
  manual_seed(1);
  {
    init::Skip skip;
    EXPECT_EQ(Linear(3, 2).weight.shape(), (Shape{2, 3}));
  }
  EXPECT_EQ(next_seed(), expected);
  uint64_t after = next_seed();
  manual_seed(1);
  Linear drawn(3, 2);
  EXPECT_NE(next_seed(), expected);
  EXPECT_NE(after, expected);
}

TEST(Slot, AnEmptyPlaceIsAnErrorThatNamesIt) {
  auto module = make<Empty>();
  EXPECT_EQ(module->place.get(), nullptr);
  expect_error(ErrorCode::invalid_argument, {"Empty", "'place'"},
               [&] { module->forward(Tensor::ones({1})); });
  expect_error(ErrorCode::invalid_argument, {"'place'"}, [&] { module->place.as<Linear>(); });
  expect_error(ErrorCode::invalid_argument, {"'place'"}, [&] { module->place->type_name(); });
}

template <int N>
struct NthPower : Module {
  Tensor forward(Tensor x) override { return x; }
};
using Square = NthPower<2>;

TEST(Registry, AnAliasOfATemplateHasTheNameItIsRegisteredBy) {
  EXPECT_EQ(class_name(typeid(Square)), "NthPower<2>");
  register_module<Square>("octet::nn::registry_test::Square");
  EXPECT_EQ(class_name(typeid(Square)), "Square");
  EXPECT_EQ(make<Square>()->type_name(), "Square");
  EXPECT_EQ(registered_name(*make<Square>()), "octet::nn::registry_test::Square");
  EXPECT_TRUE(make_registered("octet::nn::registry_test::Square", {})->class_type() ==
              typeid(Square));
  expect_error(ErrorCode::invalid_argument, {"Square is registered twice"},
               [] { register_module<Square>("octet::nn::registry_test::Square"); });
}

TEST(Module, KnowsItsHooksAndItsOwnTensors) {
  auto module = make<Linear>(2, 2, false);
  auto own = module->own_tensors();
  ASSERT_EQ(own.size(), 2u);
  EXPECT_EQ(own[1].first, "bias");
  EXPECT_FALSE(own[1].second->defined());
  module->add_forward_hook("after",
                           [](Module&, const std::vector<Tensor>&, std::vector<Tensor>&) {});
  module->add_forward_pre_hook("before", [](Module&, std::vector<Tensor>&) {});
  EXPECT_TRUE(module->has_forward_hook("after"));
  EXPECT_TRUE(module->has_forward_hook("before"));
  module->remove_forward_hook("after");
  EXPECT_FALSE(module->has_forward_hook("after"));
}

}  // namespace octet::nn::registry_test
