// Programs and the engine that was chosen for them: what falls back is said, and threads are those
// that the kernels ask for.
#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "octet/base/parallel.h"
#include "octet/engine/registry.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/graph/random_net.h"
#include "tests/graph_text.h"

namespace octet::runtime {
namespace {

using testing::expect_error;
using testing::parse_body;

// Clamps floats at zero, on the threads that it is told to name.
class Relu final : public Kernel {
 public:
  Relu(std::string engine, Threads threads) : engine_(std::move(engine)), threads_(threads) {}
  std::string name() const override { return "plain relu"; }
  std::string engine() const override { return engine_; }
  Threads threads() const override { return threads_; }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>&,
                                   const std::vector<Shape>& outputs) const override {
    return std::make_unique<Plan>(numel(outputs[0]));
  }

 private:
  class Plan final : public KernelPlan {
   public:
    explicit Plan(int64_t n) : n_(n) {}
    void run(std::span<const void* const> inputs, std::span<void* const> outputs, void*) override {
      const auto* x = static_cast<const float*>(inputs[0]);
      std::transform(x, x + n_, static_cast<float*>(outputs[0]),
                     [](float v) { return v > 0 ? v : 0; });
    }

   private:
    int64_t n_;
  };
  std::string engine_;
  Threads threads_;
};

// Registers it once in a process, whichever test comes first.
std::string relu_engine(Threads threads) {
  static const bool registered = [] {
    for (Threads t : {Threads::own, Threads::openmp}) {
      Engine e(t == Threads::own ? "relu, own threads" : "relu, openmp");
      e.add({"relu"}, [name = e.name(), t](const OpSpec&) -> std::unique_ptr<Kernel> {
        return std::make_unique<Relu>(name, t);
      });
      register_engine(std::move(e));
    }
    return true;
  }();
  return registered && threads == Threads::own ? "relu, own threads" : "relu, openmp";
}

graph::Graph network() {
  return parse_body(
      "%x: Float(2, 8) = input\n%a: Float(2, 8) = relu(%x)\n%b: Float(2, 8) = softmax(%a, dim=-1)\n"
      "%c: Float(2, 8) = sqrt(%b)\n%d: Float(2, 8) = softmax(%c, dim=-1)\n"
      "%e: Float(2, 8) = cumsum(%d, dim=1)\nreturn (%e)");
}

struct ThreadCount {
  int before = num_threads();
  explicit ThreadCount(int n) { set_num_threads(n); }
  ~ThreadCount() {
    use_own_threads();
    set_num_threads(before);
  }
};

}  // namespace

TEST(EngineChoice, WhatTheEngineLacksIsSaidByStepAndInAll) {
  const std::string mine = relu_engine(Threads::own);
  const Program program = compile(network(), {.engine = mine});
  ASSERT_EQ(program.steps().size(), 5u);
  EXPECT_EQ(program.steps()[0].engine, mine);
  EXPECT_EQ(program.steps()[0].note, "");
  EXPECT_EQ(program.steps()[1].engine, "native");
  EXPECT_EQ(program.steps()[1].note, mine + " has no kernel for this softmax; native runs it");
  EXPECT_EQ(program.steps()[4].engine, "op");
  EXPECT_EQ(program.steps()[4].note,
            mine + " has no kernel for this cumsum; its own evaluation runs it");
  EXPECT_EQ(
      program.fallbacks(),
      (std::vector<std::string>{
          mine + " has no kernel for 3 of 5 steps: softmax, sqrt; native runs them",
          mine + " has no kernel for 1 of 5 steps: cumsum; the operator's own evaluation runs "
                 "it"}));
}

TEST(EngineChoice, TheReferenceEngineDoesNotFallBackSoThereIsNothingToSay) {
  const Program program = compile(network(), {.engine = "reference"});
  for (const StepInfo& step : program.steps()) EXPECT_EQ(step.note, "") << step.kernel;
  EXPECT_TRUE(program.fallbacks().empty());
}

TEST(EngineChoice, AProgramsEngineIsGivenByAnyOfItsNames) {
  EXPECT_EQ(compile(network(), {.engine = "x86"}).steps()[0].engine, "native");
  expect_error(ErrorCode::invalid_argument, {"unknown engine 'x87'", "did you mean 'x86'"},
               [] { compile(network(), {.engine = "x87"}); });
}

// Random quantized networks on another engine than native, in programs that run from several
// threads and have steps of both engines and operands in both layouts. Returns how many steps it
// ran.
int expect_reference_bits(const std::string& engine, const std::string& qconfig) {
  int ran = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    graph::Graph g;
    try {
      auto prepared =
          quant::prepare_fx(testing::random_net(seed, true), quant::get_default_qconfig(qconfig));
      prepared->forward({Tensor::randn({4, 3, 6, 6}, seed + 1)});
      g = quant::convert_fx(prepared)->graph();
    } catch (const Error& e) {
      if (std::string(e.what()).find("nothing in") == std::string::npos) throw;
      continue;
    }
    const Program program = compile(g, {.engine = engine}),
                  reference = compile(g, {.engine = "reference"});
    bool exact = true;  // float results of oneDNN's are not
    for (const StepInfo& step : program.steps()) {
      if (step.engine != engine) continue;
      ++ran;
      exact &= g.value(g.node(step.node).outputs[0]).type.is_quantized();
    }
    if (!exact) continue;
    std::vector<std::thread> threads;
    for (uint64_t t = 0; t < 3; ++t)
      threads.emplace_back([&, t] {
        const Tensor x = Tensor::randn({static_cast<int64_t>(t) + 1, 3, 6, 6}, seed + t);
        const auto got = program.run({x}), want = reference.run({x});
        for (size_t i = 0; i < want.size(); ++i)
          EXPECT_TRUE(equal(got[i], want[i])) << "seed " << seed << ", result " << i;
      });
    for (std::thread& t : threads) t.join();
  }
  return ran;
}

TEST(EngineChoice, QuantizedNetworksGiveTheSameBitsOnXnnpack) {
  EXPECT_GT(expect_reference_bits("xnnpack", "qnnpack"), 20);
}

// Where its sums would saturate 16 bits it runs hardly any.
TEST(EngineChoice, QuantizedNetworksGiveTheSameBitsOnOneDnn) {
  EXPECT_GT(expect_reference_bits("onednn", "onednn"), 0);
}

// OpenMP's threads go on spinning until they are sent to sleep: a program that does not need them
// does so, one that does leaves them. wake_cost() is 8 while they are the ones in use.
TEST(EngineChoice, AProgramTakesOpenMPsThreadsIfAKernelSaysSo) {
  const ThreadCount threads(2);
  const Tensor x = Tensor::randn({2, 8}, 1);
  const Program own = compile(network(), {.engine = relu_engine(Threads::own)}),
                openmp = compile(network(), {.engine = relu_engine(Threads::openmp)});
  use_openmp_threads();
  ASSERT_EQ(wake_cost(), 8);
  const Tensor from_openmp = openmp.run({x})[0];
  EXPECT_EQ(wake_cost(), 8);
  const Tensor from_own = own.run({x})[0];
  EXPECT_EQ(wake_cost(), 1);
  EXPECT_TRUE(equal(from_openmp, from_own));
}

}  // namespace octet::runtime
