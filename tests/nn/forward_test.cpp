// A direct call of forward goes where operator() goes, whatever the class and however it is
// reached; from within a call of the module it is the plain function. And modules that nn::make did
// not make.
#include <gtest/gtest.h>

#include <thread>

#include "octet/base/check_impl.h"
#include "octet/graph/trace.h"
#include "octet/nn/nn.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "tests/expect_error.h"

namespace octet::nn::forward_test {
namespace {

using testing::expect_error;

// How often the module's hooks ran.
template <typename M>
std::shared_ptr<int> count_calls(M& module) {
  auto count = std::make_shared<int>(0);
  module.add_forward_hook(
      "count", [count](Module&, const std::vector<Tensor>&, std::vector<Tensor>&) { ++*count; });
  return count;
}

Tensor x() { return Tensor::from<float>({1, -2}); }

struct One : Module {
  Tensor forward(Tensor x) override { return x * 2.0; }
};
struct Several : Module {
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override {
    return {inputs.at(0) + inputs.at(1)};
  }
};
struct Both : Module {
  // its own other form
  Tensor forward(Tensor x) override { return forward(std::vector<Tensor>{x}).at(0); }
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override { return {inputs.at(0) * 3.0}; }
};
// Inherits both forms and overrides one, calling the base's.
struct Derived : Both {
  using Both::forward;
  Tensor forward(Tensor x) override { return Both::forward(x) + 1.0; }
};
struct OnlyInherits : One {};
struct Again : Module {
  Tensor forward(Tensor x) override { return depth++ < 3 ? forward(x * 2.0) : x; }
  int depth = 0;
};
struct Fails : Module {
  Tensor forward(Tensor x) override {
    if (fail) OCTET_FAIL(invalid_argument, "as asked");
    return x;
  }
  bool fail = true;
};
struct WithExtraForms : Module {
  Tensor forward(Tensor x) override { return x; }
  Tensor forward(Tensor a, Tensor b) { return a + b; }
};
struct ProtectedForward : Module {
 protected:
  Tensor forward(Tensor x) override { return x; }
};
// The class in the middle is abstract and has constructor arguments.
struct Scaled : Module {
  explicit Scaled(double by) : by(by) {}
  virtual std::string what() const = 0;
  Tensor forward(Tensor x) override { return x * by; }
  double by;
};
struct Tripled : Scaled {
  Tripled() : Scaled(3) {}
  std::string what() const override { return "tripled"; }
};
struct Mixin {
  virtual ~Mixin() = default;
  int number = 7;
};
struct Mixed : Mixin, Module {
  Slot fc = slot("fc", ReLU());
  Tensor forward(Tensor x) override { return fc->forward(x); }
};

TEST(Forward, RunsHooksThroughASlotAPointerAContainerAndAReference) {
  struct Net : Module {
    Slot fc = slot("fc", ReLU());
    Tensor forward(Tensor x) override { return fc->forward(x); }
  };
  auto net = make<Net>();
  auto calls = count_calls(*net->fc);
  EXPECT_EQ(net->forward(x()).to_vector<float>(), (std::vector<float>{1, 0}));
  EXPECT_EQ(*calls, 1);
  net->fc.as<ReLU>().forward(x());
  net->submodule("fc")->forward(std::vector{x()});
  EXPECT_EQ(*calls, 3);
  auto list = make<Sequential>(ReLU(), ReLU());
  auto inner = count_calls((*list)[1]), whole = count_calls(*list);
  (*list)[1].forward(x());
  list->forward(x());
  list->forward(std::vector{x()});
  EXPECT_EQ(*inner, 3);
  EXPECT_EQ(*whole, 2);
}

TEST(Forward, RunsHooksOnceForEveryKindOfClass) {
  auto check = [](auto module, std::vector<float> expected) {
    auto calls = count_calls(*module);
    EXPECT_EQ(static_cast<Module&>(*module).forward(x()).template to_vector<float>(), expected)
        << module->type_name();
    EXPECT_EQ(*calls, 1) << module->type_name();
    EXPECT_EQ(
        static_cast<Module&>(*module).forward(std::vector{x()}).at(0).template to_vector<float>(),
        expected)
        << module->type_name();
    EXPECT_EQ(*calls, 2) << module->type_name();
    EXPECT_EQ((*module)(x()).template to_vector<float>(), expected) << module->type_name();
    EXPECT_EQ(*calls, 3) << module->type_name();
  };
  check(make<One>(), {2, -4});
  check(make<Both>(), {3, -6});
  check(make<OnlyInherits>(), {2, -4});
  check(make<Tripled>(), {3, -6});
  check(make<Mixed>(), {1, 0});
  check(make<ProtectedForward>(), {1, -2});
  check(make<WithExtraForms>(), {1, -2});
  check(make<Sequential>(One(), Both()), {6, -12});
}

TEST(Forward, TakesSeveralTensors) {
  auto both = make<Several>();
  auto calls = count_calls(*both);
  EXPECT_EQ(both->forward({x(), x()}).at(0).to_vector<float>(), (std::vector<float>{2, -4}));
  EXPECT_EQ(*calls, 1);
}

TEST(Forward, ABasesForwardIsThePlainFunction) {
  auto module = make<Derived>();
  auto calls = count_calls(*module);
  EXPECT_EQ(module->forward(x()).to_vector<float>(), (std::vector<float>{4, -5}));
  EXPECT_EQ(*calls, 1)
      << "Both::forward(x) in Derived::forward, and what that calls, are not calls of the module";
}

TEST(Forward, RecursionIntoItselfIsThePlainFunction) {
  auto module = make<Again>();
  auto calls = count_calls(*module);
  EXPECT_EQ(module->forward(x()).to_vector<float>(), (std::vector<float>{8, -16}));
  EXPECT_EQ(*calls, 1);
}

TEST(Forward, AHookMayCallIt) {
  auto module = make<One>();
  int calls = 0;
  module->add_forward_hook("again",
                           [&](Module& m, const std::vector<Tensor>& in, std::vector<Tensor>& out) {
                             ++calls;
                             out[0] = out[0] + m.forward(in[0]);
                           });
  EXPECT_EQ(module->forward(x()).to_vector<float>(), (std::vector<float>{4, -8}));
  EXPECT_EQ(calls, 1);
}

TEST(Forward, OneModuleInsideAnotherOfItsClass) {
  struct Nested : Module {
    explicit Nested(int depth) {
      if (depth > 0) add_child("inner", make<Nested>(depth - 1));
    }
    Tensor forward(Tensor x) override {
      return has_submodule("inner") ? submodule("inner")->forward(x) * 2.0 : x;
    }
  };
  auto module = make<Nested>(2);
  auto outer = count_calls(*module), middle = count_calls(*module->submodule("inner")),
       inner = count_calls(*module->submodule("inner.inner"));
  EXPECT_EQ(module->forward(x()).to_vector<float>(), (std::vector<float>{4, -8}));
  EXPECT_EQ(std::vector({*outer, *middle, *inner}), std::vector({1, 1, 1}));
}

TEST(Forward, AnExceptionLeavesNothingBehind) {
  auto module = make<Fails>();
  auto calls = count_calls(*module);
  expect_error(ErrorCode::invalid_argument, {"as asked"}, [&] { module->forward(x()); });
  module->fail = false;
  module->forward(x());
  EXPECT_EQ(*calls, 1);
}

TEST(Forward, IsToldApartByThread) {
  struct Slow : Module {
    Tensor forward(Tensor x) override {
      // while this thread is inside, the other is not
      if (++entered == 1) std::thread([&] { forward(x); }).join();
      return x;
    }
    int entered = 0;
  };
  auto module = make<Slow>();
  auto calls = count_calls(*module);
  module->forward(x());
  EXPECT_EQ(*calls, 2);
}

TEST(Forward, AnAddressUsedAgainIsNotTakenForACallUnderWay) {
  for (int i = 0; i < 20; ++i) {
    auto module = make<One>();
    auto calls = count_calls(*module);
    module->forward(x());
    EXPECT_EQ(*calls, 1);
  }
}

TEST(Forward, OfACloneRunsTheClonesHooks) {
  auto module = make<Mixed>();
  auto copy = module->clone();
  auto calls = count_calls(*copy->submodule("fc"));
  copy->forward(x());
  module->forward(x());
  EXPECT_EQ(*calls, 1);
}

TEST(Forward, ClassesAreWhatTheUserWrote) {
  auto module = make<Tripled>();
  EXPECT_EQ(module->class_type(), typeid(Tripled));
  EXPECT_EQ(module->type_name(), "Tripled");
  EXPECT_EQ(module->clone()->class_type(), typeid(Tripled));
  EXPECT_EQ(module->as<Scaled>().by, 3);
  EXPECT_EQ(registered_name(*make<Linear>(2, 2)), "octet::nn::Linear");
  EXPECT_EQ(make<Mixed>()->number, 7);
}

TEST(Forward, OfASubmoduleIsAModuleCallInATrace) {
  struct Net : Module {
    Slot fc = slot("fc", Linear(2, 3));
    Slot act = slot("act", One());
    Tensor forward(Tensor x) override { return act->forward(fc.as<Linear>().forward(x)); }
  };
  auto traced = graph::trace(*make<Net>(), {TensorType(DType::float32, {Dim("N"), 2})});
  std::vector<std::string> calls;
  for (const graph::Node& node : traced->graph().nodes())
    if (node.kind == graph::NodeKind::module || node.kind == graph::NodeKind::call)
      calls.push_back(node.op + "@" + node.scope);
  EXPECT_EQ(calls, (std::vector<std::string>{"Linear@fc", "mul@act"}));
}

// -- users' own types -----------------------------------------------------------------------------

struct Pair {
  Tensor a, b;
};

}  // namespace
}  // namespace octet::nn::forward_test

template <>
struct octet::nn::Value<octet::nn::forward_test::Pair> {
  using Pair = forward_test::Pair;
  static std::vector<Tensor> tensors(const Pair& x) { return {x.a, x.b}; }
  static Pair from(const std::vector<Tensor>& t) { return {t.at(0), t.at(1)}; }
  static std::vector<std::string> names() { return {"a", "b"}; }
};

namespace octet::nn::forward_test {
namespace {

struct Swap : ValueModule<Pair> {
  Pair forward_value(Pair x) override { return {x.b, x.a}; }
};

TEST(Forward, OfUsersTypesRunsHooksInEveryForm) {
  auto module = make<Swap>();
  auto calls = count_calls(*module);
  Pair y = module->forward_value({x(), x() * 2.0});
  EXPECT_EQ(y.a.to_vector<float>(), (std::vector<float>{2, -4}));
  EXPECT_EQ(*calls, 1);
  module->forward({x(), x()});
  EXPECT_EQ(*calls, 2);
  struct Net : Module {
    Slot swap = slot("swap", Swap());
  };
  auto net = make<Net>();
  auto inside = count_calls(*net->swap);
  net->swap.call<Pair>(Pair{x(), x()});
  net->swap.as<Swap>().forward_value({x(), x()});
  EXPECT_EQ(*inside, 2);
}

// -- modules that nn::make did not make -----------------------------------------------------------

TEST(NotMade, AnObjectOnTheStackComputes) {
  Mixed net;
  EXPECT_FALSE(net.is_made());
  EXPECT_EQ(net.forward(x()).to_vector<float>(), (std::vector<float>{1, 0}));
  EXPECT_EQ(net(x()).to_vector<float>(), (std::vector<float>{1, 0}));
  EXPECT_TRUE(net.fc->is_made());
  auto copy = make<Mixed>(net);
  EXPECT_TRUE(copy->is_made() && copy->clone()->is_made());
}

TEST(NotMade, APointerThatNobodyElseHasMovesIntoASlotOrAContainer) {
  struct Net : Module {
    Slot fc = slot("fc", std::make_shared<Linear>(2, 3));
    Tensor forward(Tensor x) override { return fc->forward(x); }
  };
  auto net = make<Net>();
  auto calls = count_calls(*net->fc);
  net->clone();
  net->forward(Tensor::ones({1, 2}));
  EXPECT_EQ(*calls, 1);
  auto list = make<Sequential>(std::make_shared<One>());
  list->append(std::make_unique<Both>());
  EXPECT_TRUE((*list)[0].is_made() && (*list)[1].is_made());
}

TEST(NotMade, ASharedPointerIsRefusedAtOnceWithTheWayOut) {
  auto fc = std::make_shared<Linear>(2, 3);
  auto list = make<Sequential>();
  const std::vector<std::string> words{"head: this Linear was not made by nn::make",
                                       "nn::make<Linear>(...)"};
  expect_error(ErrorCode::invalid_argument, words, [&] { list->append("head", fc); });
  auto net = make<Mixed>();
  expect_error(ErrorCode::invalid_argument, {"fc: this Linear was not made"},
               [&] { net->fc.set(fc); });
  expect_error(ErrorCode::invalid_argument, {"fc: this Linear was not made"},
               [&] { net->set_submodule("fc", fc); });
  expect_error(ErrorCode::invalid_argument, {"clone: this Linear was not made"},
               [&] { fc->clone(); });
  EXPECT_EQ(list->size(), 0u);
}

}  // namespace
}  // namespace octet::nn::forward_test
