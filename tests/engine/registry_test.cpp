#include "octet/engine/registry.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "octet/base/error.h"
#include "octet/ops/op.h"
#include "tests/engine/defaults.h"
#include "tests/expect_error.h"

namespace octet {
namespace {

using testing::Defaults;
using testing::expect_error;

// Writes a constant; says its engine and its own name.
class ConstantKernel final : public Kernel {
 public:
  ConstantKernel(std::string engine, std::string name, uint8_t value)
      : engine_(std::move(engine)), name_(std::move(name)), value_(value) {}
  std::string name() const override { return name_; }
  std::string engine() const override { return engine_; }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>&,
                                   const std::vector<Shape>& outputs) const override {
    return std::make_unique<Plan>(value_, static_cast<size_t>(numel(outputs[0])));
  }

 private:
  class Plan final : public KernelPlan {
   public:
    Plan(uint8_t value, size_t bytes) : value_(value), bytes_(bytes) {}
    void run(std::span<const void* const>, std::span<void* const> outputs, void*) override {
      std::fill_n(static_cast<uint8_t*>(outputs[0]), bytes_, value_);
    }

   private:
    uint8_t value_;
    size_t bytes_;
  };
  std::string engine_, name_;
  uint8_t value_;
};

KernelMaker constant(const std::string& engine, const std::string& name, uint8_t value = 1) {
  return [=](const OpSpec&) { return std::make_unique<ConstantKernel>(engine, name, value); };
}
std::unique_ptr<Kernel> takes_nothing(const OpSpec&) { return nullptr; }

// Registered before main(), when octet's own engines may not have been asked for yet.
[[maybe_unused]] const bool g_registered = [] {
  Engine early("early", {"first"}, "registered by a static object");
  early.add({"relu"}, constant("early", "early relu"));
  register_engine(std::move(early));
  return true;
}();

TensorType codes() {
  return TensorType(DType::quint8, Shape{2, 4}, Quantizer::per_tensor(0.1, 3, DType::quint8));
}
OpSpec spec_of(const std::string& name, size_t operands) {
  const ops::Op& op = ops::get(name);
  return ops::make_spec(op, op.complete({}),
                        std::vector<std::optional<TensorType>>(operands, codes()),
                        std::vector<Tensor>(operands), {codes()}, name);
}

}  // namespace

TEST(Registry, OctetsOwnEnginesComeFirst) {
  std::vector<std::string> names;
  for (const Engine* e : engines()) names.push_back(e->name());
  ASSERT_GE(names.size(), 4u);
  EXPECT_EQ(names[0], "native");
  EXPECT_EQ(names[1], "onednn");
  EXPECT_NE(std::find(names.begin(), names.end(), "reference"), names.end());
  for (const char* name : {"native", "onednn", "reference"})
    EXPECT_FALSE(find_engine(name).summary().empty()) << name;
}

// A slip in the list of an engine.cpp would leave an operator to a slower engine, in silence.
TEST(Registry, OctetsOwnEnginesHaveKernelsForOperatorsThatThereAre) {
  for (const char* name : {"native", "onednn", "reference"}) {
    EXPECT_FALSE(find_engine(name).operators().empty());
    for (const std::string& op : find_engine(name).operators()) EXPECT_NO_THROW(ops::get(op));
  }
}

TEST(Registry, AStaticObjectCanRegisterAnEngine) {
  Defaults defaults;
  EXPECT_EQ(find_engine("first").name(), "early");
  set_engine("first");
  EXPECT_EQ(engine(), "early");
  EXPECT_EQ(make_kernel(spec_of("relu", 1))->name(), "early relu");
}

TEST(Registry, AnUnknownNameIsAnErrorWithTheNearestAndAllRegisteredOnes) {
  expect_error(ErrorCode::invalid_argument,
               {"unknown engine 'erly'", "did you mean 'early'", "native (also called fbgemm, x86",
                "onednn", "reference", "early (also called first)"},
               [] { find_engine("erly"); });
  expect_error(ErrorCode::invalid_argument, {"unknown engine ''"}, [] { set_engine(""); });
  EXPECT_EQ(engine(), "native");
}

TEST(Registry, NamesAndAliasesAreTakenOnce) {
  expect_error(ErrorCode::invalid_argument, {"'fbgemm'", "a name of native"},
               [] { register_engine(Engine("mine", {"fbgemm"})); });
  expect_error(ErrorCode::invalid_argument, {"'early'", "a name of early"},
               [] { register_engine(Engine("early")); });
  expect_error(ErrorCode::invalid_argument, {"empty"}, [] { register_engine(Engine("")); });
  EXPECT_THROW(find_engine("mine"), Error);
}

TEST(Engine, MakersOfAnOperatorAreAskedInTheirOrderAndThoseForAnyLast) {
  Engine e("ordered");
  e.add_for_any(constant("ordered", "any"));
  e.add({"add", "mul"}, takes_nothing);
  e.add({"add"}, constant("ordered", "second"));
  e.add({"add"}, constant("ordered", "third"));
  EXPECT_EQ(e.make(spec_of("add", 2))->name(), "second");
  EXPECT_EQ(e.make(spec_of("mul", 2))->name(), "any");
  EXPECT_EQ(e.make(spec_of("relu", 1))->name(), "any");
  EXPECT_EQ(e.operators(), (std::vector<std::string>{"add", "mul"}));
}

TEST(Engine, WhatAnEngineLacksFallsBackUnlessItSaysOtherwise) {
  Engine falls("falls"), alone("alone", {}, "", false);
  for (Engine* e : {&falls, &alone}) {
    e->add({"relu"}, takes_nothing);
    e->add({"mul"}, constant(e->name(), "own"));
    register_engine(*e);
  }
  EXPECT_EQ(make_kernel(spec_of("mul", 2), "falls")->engine(), "falls");
  EXPECT_EQ(make_kernel(spec_of("relu", 1), "falls")->engine(), "native");
  EXPECT_EQ(make_kernel(spec_of("add", 2), "falls")->engine(), "native");
  EXPECT_EQ(make_kernel(spec_of("mul", 2), "alone")->engine(), "alone");
  EXPECT_EQ(make_kernel(spec_of("relu", 1), "alone"), nullptr);
  EXPECT_EQ(make_kernel(spec_of("add", 2), "alone"), nullptr);
  // Nobody else's work is given to an engine that was not asked for.
  EXPECT_EQ(make_kernel(spec_of("mul", 2))->engine(), "native");
}

TEST(Engine, KernelsSayWhoseThreadsTheyUse) {
  const ops::Op& op = ops::get("relu");
  const TensorType x(DType::float32, Shape{2, 4});
  const OpSpec spec = ops::make_spec(op, op.complete({}), {x}, {Tensor()}, {x}, "relu");
  EXPECT_EQ(make_kernel(spec, "native")->threads(), Threads::own);
  EXPECT_EQ(make_kernel(spec, "onednn")->threads(), Threads::openmp);
}

TEST(Engine, EagerCallsUseARegisteredEngine) {
  Defaults defaults;
  Engine sevens("sevens");
  sevens.add({"linear"}, constant("sevens", "seven", 7));
  register_engine(std::move(sevens));
  const Tensor x = quantize_per_tensor(Tensor::rand({3, 4}, 1), 0.1, 0, DType::quint8),
               w = quantize_per_tensor(Tensor::randn({2, 4}, 2), 0.02, 0, DType::qint8);
  const ops::QType want{DType::quint8, Quantizer::per_tensor(0.5, 0, DType::quint8)};
  set_engine("sevens");
  const Tensor y = ops::call("linear", {x, w}, {}, want);
  EXPECT_EQ(y.int_repr().to_vector<uint8_t>(), std::vector<uint8_t>(6, 7));
}

TEST(Registry, EnginesCanBeRegisteredAndAskedForByManyThreads) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([t] {
      for (int i = 0; i < 20; ++i) {
        const std::string name = "thread " + std::to_string(t) + " " + std::to_string(i);
        Engine e(name);
        e.add({"relu"}, constant(name, name));
        register_engine(std::move(e));
        EXPECT_EQ(make_kernel(spec_of("relu", 1), name)->engine(), name);
        EXPECT_EQ(make_kernel(spec_of("add", 2), name)->engine(), "native");
      }
    });
  for (std::thread& t : threads) t.join();
}

}  // namespace octet
