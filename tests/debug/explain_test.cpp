// What explain says is what happened: against counters in the inner loops, against the packed
// weights, and with kernels that are wrong on purpose.
#include "octet/debug/explain.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <map>
#include <set>
#include <sstream>

#include "octet/base/cpu.h"
#include "octet/base/parallel.h"
#include "octet/engine/registry.h"
#include "octet/kernels/kernels.h"
#include "octet/nn/nn.h"
#include "octet/ops/functional.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/workflow/eager.h"
#include "octet/quant/workflow/fx.h"
#include "tests/expect_error.h"

namespace octet::testing {
namespace {

using debug::ExplainedStep;
using debug::Explanation;
using debug::Numbers;

constexpr debug::ExplainOptions kUntimed{.seconds = 0}, kVerified{.seconds = 0, .verify = true};

// Convolutions of 4, 4 and 6 channels, an addition, a softmax that stays float, 5 classes.
struct ExplainedNet : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 4, 3, {.padding = 1}));
  nn::Slot skip = slot("skip", nn::Conv2d(3, 4, 1));
  nn::Slot next = slot("next", nn::Conv2d(4, 6, 3));
  nn::Slot fc = slot("fc", nn::Linear(6, 5));
  Tensor forward(Tensor x) override {
    Tensor y = functional::relu(conv(x)) + skip(x);
    y = functional::relu(next(y));
    return functional::softmax(fc(functional::mean(y, {2, 3})), 1);
  }
};

graph::Graph quantized_net(const Tensor& x) {
  auto net = nn::make<ExplainedNet>();
  net->eval();
  auto mapping = quant::get_default_qconfig_mapping("native");
  auto prepared = quant::prepare_fx(net, mapping, {x});
  (*prepared)(x);
  return quant::convert_fx(prepared)->to_graph();
}

const ExplainedStep& step(const Explanation& e, const std::string& name) {
  for (const ExplainedStep& s : e.steps)
    if (s.name == name) return s;
  ADD_FAILURE() << "no step '" << name << "'";
  return e.steps.at(0);
}

// A table of kernels whose products count what they compute, and may be wrong for products of some
// number of channels.
class WatchedTable {
 public:
  WatchedTable() {
    base() = &kernels::table();
    table_ = *base();
    table_.gemm = gemm;
    kernels::use_table(&table_);
    reset();
    poisoned() = -1;
  }
  ~WatchedTable() { kernels::use_table(nullptr); }
  static int64_t products() { return products_; }
  static int64_t calls() { return calls_; }
  static void reset() { products_ = calls_ = 0; }
  static int64_t& poisoned() {
    static int64_t channels = -1;
    return channels;
  }

 private:
  static const kernels::KernelTable*& base() {
    static const kernels::KernelTable* table = nullptr;
    return table;
  }
  static void gemm(const kernels::GemmArgs& a, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
    ++calls_;
    products_ += (m1 - m0) * (std::min(n1, a.shape.n) - n0) * a.shape.k * a.shape.taps;
    base()->gemm(a, m0, m1, n0, n1);
    if (a.shape.n == poisoned() && a.epilogue == kernels::Epilogue::requantize)
      static_cast<uint8_t*>(a.c)[m0 * a.ldc + n0] ^= 1;
  }
  static inline std::atomic<int64_t> products_{0}, calls_{0};
  kernels::KernelTable table_;
};

struct ExplainProgram : ::testing::Test {
  Tensor x = Tensor::randn({2, 3, 8, 8}, 1);
  graph::Graph graph = quantized_net(x);
};

TEST_F(ExplainProgram, MultiplyAddsAreThoseThatTheInnerLoopsCounted) {
  WatchedTable watched;
  const runtime::Program program = runtime::compile(graph, {.engine = "native"});
  const Explanation e = debug::explain(program, {{x}}, kUntimed);
  std::vector<graph::ValueId> values;
  for (size_t i = 0; i < program.steps().size(); ++i)
    values.push_back(graph::Graph(program.graph()).node(program.steps()[i].node).outputs[0]);
  std::map<graph::NodeId, std::pair<int64_t, int64_t>> counted;  // products, calls
  WatchedTable::reset();
  program.run_watched({x}, values, [&](graph::ValueId v, const Tensor&) {
    auto& [products, calls] = counted[program.graph().value(v).producer];
    products += WatchedTable::products();
    calls += WatchedTable::calls();
    WatchedTable::reset();
  });
  int gemms = 0;
  for (size_t i = 0; i < e.steps.size(); ++i) {
    const ExplainedStep& s = e.steps[i];
    const bool gemm = s.description.loop.starts_with("gemm_u8s8_");
    const auto [products, calls] = counted[program.steps()[i].node];
    EXPECT_EQ(gemm, calls > 0) << s.name << ": " << s.description.loop;
    if (!gemm) continue;
    ++gemms;
    EXPECT_EQ(static_cast<double>(products), s.multiply_adds) << s.name;
    EXPECT_EQ(s.numbers, Numbers::integers);
  }
  EXPECT_EQ(gemms, 4);  // conv, skip, next, fc
}

// A member of the table that counts its calls.
template <auto kMember>
struct Counted;
template <typename R, typename... A, R (*kernels::KernelTable::*kMember)(A...)>
struct Counted<kMember> {
  static inline std::atomic<int64_t> calls{0};
  static inline const kernels::KernelTable* base = nullptr;
  static R call(A... a) {
    ++calls;
    return (base->*kMember)(a...);
  }
};

// All of a network's inner loops that are named here, counted by their names.
class CountingTable {
 public:
  CountingTable() : table_(kernels::table()) {
    using T = kernels::KernelTable;
    count<&T::gemm>("gemm");
    count<&T::gemm4>("gemm4");
    count<&T::depthwise>("depthwise");
    count<&T::float_gemm>("float_gemm");
    count<&T::max_pool>("max_pool");
    count<&T::average_pool>("average_pool");
    count<&T::add>("add");
    count<&T::mul>("mul");
    count<&T::lookup>("lookup");
    count<&T::quantize>("quantize");
    count<&T::quantize_nchw_to_nhwc>("quantize");
    count<&T::dequantize>("dequantize");
    count<&T::softmax>("softmax");
    kernels::use_table(&table_);
  }
  ~CountingTable() { kernels::use_table(nullptr); }
  // The loops that ran since this was asked last.
  std::set<std::string> take() {
    std::set<std::string> ran;
    for (auto& [name, calls] : counters_)
      if (calls->exchange(0) > 0) ran.insert(name);
    return ran;
  }

 private:
  template <auto kMember>
  void count(const char* name) {
    using C = Counted<kMember>;
    C::base = &kernels::table(kernels::table().isa);
    C::calls = 0;
    table_.*kMember = C::call;
    counters_.emplace_back(name, &C::calls);
  }
  kernels::KernelTable table_;
  std::vector<std::pair<std::string, std::atomic<int64_t>*>> counters_;
};

// One operator of each kind.
struct Kinds : nn::Module {
  nn::Slot conv = slot("conv", nn::Conv2d(3, 8, 3, {.padding = 1}));
  nn::Slot depthwise = slot("depthwise", nn::Conv2d(8, 8, 3, {.padding = 1, .groups = 8}));
  nn::Slot fc = slot("fc", nn::Linear(8, 5));
  nn::Slot in_float = slot("in_float", nn::Linear(5, 4));
  Tensor forward(Tensor x) override {
    Tensor y = functional::relu(conv(x));
    y = functional::sigmoid(depthwise(y)) * y + y;
    y = functional::max_pool2d(y, 2);
    y = functional::adaptive_avg_pool2d(y, 1).flatten(1);
    return functional::softmax(in_float(fc(y)), 1);
  }
};

TEST(ExplainCounters, EveryStepsWordIsWhatItsInnerLoopsCounted) {
  auto net = nn::make<Kinds>();
  net->eval();
  const Tensor x = Tensor::randn({2, 3, 8, 8}, 1);
  auto mapping = quant::get_default_qconfig_mapping("native");
  mapping.set_module_name("in_float", std::nullopt);
  auto prepared = quant::prepare_fx(net, mapping, {x});
  (*prepared)(x);
  CountingTable counting;
  const runtime::Program program =
      runtime::compile(quant::convert_fx(prepared)->to_graph(), {.engine = "native"});
  const Explanation e = debug::explain(program, {{x}}, kUntimed);
  std::vector<graph::ValueId> values;
  std::map<graph::NodeId, size_t> steps;  // by node; each has one here
  for (size_t i = 0; i < e.steps.size(); ++i) {
    if (e.steps[i].numbers == Numbers::layout) continue;
    const graph::NodeId node = program.steps()[i].node;
    values.push_back(program.graph().node(node).outputs[0]);
    EXPECT_TRUE(steps.emplace(node, i).second);
  }
  using Loops = std::set<std::string>;
  std::map<Loops, int> seen;
  counting.take();
  program.run_watched({x}, values, [&](graph::ValueId v, const Tensor&) {
    const ExplainedStep& s = e.steps[steps.at(program.graph().value(v).producer)];
    const Loops ran = counting.take();
    ++seen[ran];
    using A = KernelDescription::Arithmetic;
    const auto expect = [&](A arithmetic, Numbers numbers, const std::string& loop) {
      EXPECT_EQ(to_string(s.description.arithmetic), std::string(to_string(arithmetic))) << s.name;
      EXPECT_EQ(s.numbers, numbers) << s.name;
      EXPECT_TRUE(s.description.loop.starts_with(loop)) << s.name << ": " << s.description.loop;
    };
    if (ran == Loops{"gemm"})
      expect(A::integers, Numbers::integers, "gemm_u8s8_");
    else if (ran == Loops{"depthwise"})
      expect(A::integers, Numbers::integers, "depthwise_u8s8_");
    else if (ran == Loops{"average_pool"})
      expect(A::integers, Numbers::integers, "adaptive_avg_pool2d");
    else if (ran == Loops{"float_gemm"})
      expect(A::floats, Numbers::floats, "float_gemm_");
    else if (ran == Loops{"max_pool"})
      expect(A::moves, Numbers::codes, "max_pool2d");
    else if (ran == Loops{"add"} || ran == Loops{"mul"})
      expect(A::codes_in_float, Numbers::codes, "");
    else if (ran == Loops{"lookup"})
      expect(A::table, Numbers::codes, "");
    else if (ran == Loops{"quantize"} || ran == Loops{"dequantize"})
      expect(A::converts, Numbers::conversion, "");
    else if (ran == Loops{"softmax"})
      expect(A::floats, Numbers::floats, "softmax");
    else
      ADD_FAILURE() << s.name << ": " << s.op << ", " << ran.size() << " loops";
  });
  EXPECT_GE(seen.size(), 10u) << "not all kinds of steps were met";
}

TEST_F(ExplainProgram, TheLoopIsNamedByTheIsaItsKernelWasMadeFor) {
  for (Isa isa : supported_isas()) {
    const Isa before = current_isa();
    set_isa(isa);
    const runtime::Program program = runtime::compile(graph, {.engine = "native"});
    set_isa(before);
    const Explanation e = debug::explain(program, {{x}}, kUntimed);
    EXPECT_EQ(step(e, "next").isa, to_string(isa));
    const kernels::KernelTable& t = kernels::table(isa);
    EXPECT_EQ(step(e, "next").description.loop, "gemm_u8s8_" + std::string(to_string(isa)) + " " +
                                                    std::to_string(t.gemm_mr) + "x" +
                                                    std::to_string(t.gemm_nr));
  }
}

TEST_F(ExplainProgram, VerifyNamesExactlyTheStepsOfAPoisonedLoop) {
  WatchedTable watched;
  const runtime::Program program = runtime::compile(graph, {.engine = "native"});
  for (const auto& [channels, wrong] : std::map<int64_t, std::vector<std::string>>{
           {-1, {}}, {4, {"skip", "conv"}}, {5, {"fc"}}, {6, {"next"}}}) {
    WatchedTable::poisoned() = channels;
    const Explanation e =
        debug::explain(program, {{x}, {Tensor::randn({2, 3, 8, 8}, 2)}}, kVerified);
    std::vector<std::string> found;
    for (const ExplainedStep& s : e.steps)
      if (s.differs) found.push_back(s.name);
    EXPECT_EQ(found, wrong);
    EXPECT_EQ(step(e, "next").differs, channels == 6);
    if (channels == -1) {
      EXPECT_EQ(step(e, "next").verified, "identical");
      EXPECT_EQ(e.output_differs, "");
    } else {
      EXPECT_NE(step(e, wrong[0]).verified.find("reference"), std::string::npos);
    }
  }
}

// Native's addition, but for one code.
class WrongAdd final : public Kernel {
 public:
  explicit WrongAdd(std::unique_ptr<Kernel> inner) : inner_(std::move(inner)) {}
  std::string name() const override { return "wrong add"; }
  std::string engine() const override { return "wrong"; }
  Layout input_layout(size_t i) const override { return inner_->input_layout(i); }
  Layout output_layout(size_t i) const override { return inner_->output_layout(i); }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override {
    return std::make_unique<Plan>(inner_->plan(in, out));
  }

 private:
  class Plan final : public KernelPlan {
   public:
    explicit Plan(std::unique_ptr<KernelPlan> inner) : inner_(std::move(inner)) {}
    void run(std::span<const void* const> inputs, std::span<void* const> outputs,
             void* scratch) override {
      inner_->run(inputs, outputs, scratch);
      static_cast<uint8_t*>(outputs[0])[7] ^= 3;
    }
    std::unique_ptr<KernelPlan> inner_;
  };
  std::unique_ptr<Kernel> inner_;
};

TEST_F(ExplainProgram, VerifyNamesExactlyTheStepOfAWrongEngine) {
  static const bool registered = [] {
    Engine e("wrong", {}, "an addition that is wrong");
    e.add({"add"}, [](const OpSpec& spec) -> std::unique_ptr<Kernel> {
      return std::make_unique<WrongAdd>(find_engine("native").make(spec));
    });
    register_engine(std::move(e));
    return true;
  }();
  ASSERT_TRUE(registered);
  const Explanation e =
      debug::explain(runtime::compile(graph, {.engine = "wrong"}), {{x}}, kVerified);
  int wrong = 0;
  for (const ExplainedStep& s : e.steps) {
    EXPECT_EQ(s.differs, s.op == "add") << s.name << ": " << s.verified;
    wrong += s.differs;
    EXPECT_EQ(s.kernel == "wrong add", s.op == "add");
  }
  EXPECT_EQ(wrong, 1);
  EXPECT_EQ(octet::engine(), "native") << "the process's engine is what it was";
}

// An addition that is right as a whole and wrong some rows at a time.
class WrongInRows final : public Kernel {
 public:
  explicit WrongInRows(std::unique_ptr<Kernel> inner) : inner_(std::move(inner)) {}
  std::string name() const override { return "wrong in rows"; }
  std::string engine() const override { return "wrong in rows"; }
  bool by_rows() const override { return true; }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override {
    return std::make_unique<Plan>(inner_->plan(in, out));
  }

 private:
  class Plan final : public KernelPlan {
   public:
    explicit Plan(std::unique_ptr<KernelPlan> inner) : inner_(std::move(inner)) {}
    void run(std::span<const void* const> inputs, std::span<void* const> outputs,
             void* scratch) override {
      inner_->run(inputs, outputs, scratch);
    }
    void run_rows(std::span<const void* const> inputs, std::span<void* const> outputs, int64_t r0,
                  int64_t r1) override {
      inner_->run_rows(inputs, outputs, r0, r1);
      if (r0 == 0) static_cast<uint8_t*>(outputs[0])[0] ^= 1;
    }
    std::unique_ptr<KernelPlan> inner_;
  };
  std::unique_ptr<Kernel> inner_;
};

TEST(ExplainRows, VerifyComparesTheRunAsAWholeToo) {
  Engine engine("wrong in rows");
  engine.add({"add"}, [](const OpSpec& spec) -> std::unique_ptr<Kernel> {
    return std::make_unique<WrongInRows>(find_engine("native").make(spec));
  });
  register_engine(std::move(engine));
  const graph::Graph g = graph::parse(
      "graph g {\n  %x: QUInt8(4, 6) scale=0.125 zero_point=128 = input\n"
      "  %z: QUInt8(4, 6) scale=0.125 zero_point=128 = input\n"
      "  %a: QUInt8(4, 6) scale=0.25 zero_point=128 = add(%x, %z)\n"
      "  %b: QUInt8(4, 6) scale=0.5 zero_point=128 = add(%a, %x)\n  return (%b)\n}\n");
  const Tensor x = quantize_per_tensor(Tensor::randn({4, 6}, 1), 0.125, 128, DType::quint8);
  for (const auto& [engine_name, wrong] :
       std::map<std::string, bool>{{"native", false}, {"wrong in rows", true}}) {
    const Explanation e =
        debug::explain(runtime::compile(g, {.engine = engine_name}), {{x, x}}, kVerified);
    for (const ExplainedStep& s : e.steps) EXPECT_EQ(s.verified, "identical");
    EXPECT_EQ(e.steps.at(1).fused.size(), 1u) << "the two run some rows at a time";
    EXPECT_EQ(!e.output_differs.empty(), wrong) << e.output_differs;
  }
}

TEST_F(ExplainProgram, WhatIsFloatHasAReasonAndFailsTheRequirement) {
  const Explanation e =
      debug::explain(runtime::compile(graph, {.engine = "native"}), {{x}}, kUntimed);
  for (const ExplainedStep& s : e.steps) {
    EXPECT_EQ(s.why_float.empty(), s.numbers != Numbers::floats) << s.name;
    for (const debug::ExplainedOperand& o : s.outputs)
      EXPECT_TRUE(!s.on_codes() || o.type.is_quantized()) << s.name;
  }
  EXPECT_TRUE(e.not_on_codes("next").empty());
  EXPECT_TRUE(e.not_on_codes("*conv*").empty());
  const auto failing = e.not_on_codes("");
  ASSERT_EQ(failing.size(), 1u);
  EXPECT_EQ(failing[0]->op, "softmax");
  expect_error(ErrorCode::not_found, {"did you mean 'next'"}, [&] { (void)e.not_on_codes("nxt"); });
}

TEST_F(ExplainProgram, CodesThroughWholeFloatTensorsAreFloat) {
  const graph::Graph g = graph::parse(
      "graph g {\n  %x: QUInt8(4, 6) scale=0.125 zero_point=128 = input\n"
      "  %w: Float(6) = constant\n  %b: Float(6) = constant\n"
      "  %y: QUInt8(4, 6) scale=0.125 zero_point=128 = layer_norm(%x, %w, %b)\n"
      "  return (%y)\n}\n",
      {{"w", Tensor::ones({6})}, {"b", Tensor::zeros({6})}});
  const Tensor codes = quantize_per_tensor(Tensor::randn({4, 6}, 1), 0.125, 128, DType::quint8);
  const Explanation e =
      debug::explain(runtime::compile(g, {.engine = "native"}), {{codes}}, kUntimed);
  ASSERT_EQ(e.steps.size(), 1u);
  EXPECT_EQ(e.steps[0].numbers, Numbers::floats);
  EXPECT_NE(e.steps[0].why_float.find("dequantized"), std::string::npos) << e.steps[0].why_float;
  EXPECT_EQ(e.not_on_codes("").size(), 1u);
}

TEST_F(ExplainProgram, TimesAddUpAndFitTheTerminal) {
  const Explanation e =
      debug::explain(runtime::compile(graph, {.engine = "native"}), {{x}}, {.seconds = 0.01});
  double share = 0, seconds = 0;
  for (const ExplainedStep& s : e.steps) {
    share += s.share;
    seconds += s.seconds;
    EXPECT_GT(s.bytes, 0) << s.name;
    EXPECT_EQ(s.of_ceiling > 0, s.seconds > 0) << s.name;
  }
  EXPECT_NEAR(share, 1, 1e-9);
  EXPECT_DOUBLE_EQ(seconds, e.seconds);
  EXPECT_GT(e.ceilings.integer_multiply_adds, 0);
  std::istringstream lines(to_string(e));
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100u) << line;
}

TEST_F(ExplainProgram, WithoutSamplesThereIsNothingToExplain) {
  expect_error(ErrorCode::invalid_argument, {"no samples"},
               [&] { debug::explain(runtime::compile(graph), {}); });
}

// -- accumulators ---------------------------------------------------------------------------------

struct LinearOnCodes {
  Tensor weight, bias;
  int64_t z_x;
  graph::Graph graph() const {
    return graph::parse(
        "graph g {\n  %x: QUInt8(N, 9) scale=0.125 zero_point=" + std::to_string(z_x) +
            " = input\n  %w: QInt8(3, 9) scale=0.5 zero_point=0 = constant\n"
            "  %b: Float(3) = constant\n"
            "  %y: QUInt8(N, 3) scale=4 zero_point=9 = linear(%x, %w, %b)\n  return (%y)\n}\n",
        {{"w", weight}, {"b", bias}});
  }
};

TEST(ExplainSums, TheLargestSumIsReachedByTheWorstOperandAndNoOther) {
  const LinearOnCodes layer{quantize_per_tensor(Tensor::randn({3, 9}, 4), 0.5, 0, DType::qint8),
                            Tensor::from<float>({1.0f, -40.0f, 3.0f}), 77};
  const Tensor codes = quantize_per_tensor(Tensor::zeros({1, 9}), 0.125, 77, DType::quint8);
  const Explanation e =
      debug::explain(runtime::compile(layer.graph(), {.engine = "native"}), {{codes}}, kUntimed);
  ASSERT_TRUE(e.steps.at(0).largest_sum.has_value());
  const auto w = layer.weight.int_repr().to_vector<int8_t>();
  const auto b = layer.bias.to_vector<float>();
  int64_t largest = 0;
  for (int n = 0; n < 3; ++n) {
    int64_t most = std::lround(b[n] / 0.0625f), least = most;
    for (int k = 0; k < 9; ++k) {
      const int64_t low = -77 * w[n * 9 + k], high = (255 - 77) * w[n * 9 + k];
      most += std::max(low, high);
      least += std::min(low, high);
    }
    largest = std::max({largest, most, -least});
  }
  EXPECT_EQ(*e.steps[0].largest_sum, largest);
  EXPECT_EQ(e.steps[0].description.accumulator, "int32");
  EXPECT_EQ(e.steps[0].description.wide_channels, 0);
}

TEST(ExplainSums, ChannelsBeyondInt32AreSaidToBeSummedInMore) {
  const LinearOnCodes layer{quantize_per_tensor(Tensor::randn({3, 9}, 4), 0.5, 0, DType::qint8),
                            Tensor::from<float>({1.0f, -4e9f, 3.0f}), 0};
  const Tensor codes = quantize_per_tensor(Tensor::zeros({1, 9}), 0.125, 0, DType::quint8);
  const Explanation e =
      debug::explain(runtime::compile(layer.graph(), {.engine = "native"}), {{codes}}, kVerified);
  EXPECT_EQ(e.steps.at(0).description.wide_channels, 1);
  EXPECT_GT(*e.steps[0].largest_sum, int64_t{1} << 31);
  EXPECT_EQ(e.steps[0].verified, "identical");
  EXPECT_EQ(e.notes.size(), 1u);
}

// -- packed weights -------------------------------------------------------------------------------

// A dynamic layer answers a row with a single 1 by a column of its weight, as it is packed.
TEST(ExplainPacked, WhatIsMultipliedAreTheWeightsCodesInTheBitsThatAreSaid) {
  for (const bool narrow : {false, true}) {
    const int64_t n = 5, k = 8;
    Tensor weight =
        quantize_per_tensor(Tensor::randn({n, k}, 6), narrow ? 0.5 : 0.03125, 0, DType::qint8);
    const graph::Graph g =
        graph::parse("graph g {\n  %x: Float(M, 8) = input\n  %w: QInt8(5, 8) scale=" +
                         std::string(narrow ? "0.5" : "0.03125") +
                         " zero_point=0 = constant\n  %y: Float(M, 5) = linear_dynamic(%x, %w)\n"
                         "  return (%y)\n}\n",
                     {{"w", weight}});
    const runtime::Program program = runtime::compile(g, {.engine = "native"});
    const Explanation e = debug::explain(program, {{Tensor::ones({1, k})}}, kVerified);
    const ExplainedStep& s = e.steps.at(0);
    EXPECT_EQ(s.description.weight_bits, narrow ? 4 : 8);
    EXPECT_NE(s.description.loop.find(narrow ? "gemm_u8u4_" : "gemm_u8s8_"), std::string::npos);
    const kernels::KernelTable& t = kernels::table();
    const size_t packed = narrow ? t.gemm4_packed_bytes({n, k, 1}) : t.gemm_packed_bytes({n, k, 1});
    EXPECT_EQ(program.steps()[0].packed_bytes / 64, (packed + 63) / 64);
    EXPECT_EQ(s.bytes, static_cast<double>(k * 4 + n * 4) +
                           static_cast<double>(program.steps()[0].packed_bytes));
    EXPECT_NE(s.description.at_run_time.find("float32 to 256 codes of quint8"), std::string::npos);
    const auto codes = weight.int_repr().to_vector<int8_t>();
    for (int64_t i = 0; i < k; ++i) {
      Tensor one = Tensor::zeros({1, k});
      one.data<float>()[i] = 1;
      const auto y = program.run({one})[0].to_vector<float>();
      for (int64_t c = 0; c < n; ++c)
        EXPECT_EQ(std::lround(y[static_cast<size_t>(c)] / (narrow ? 0.5 : 0.03125)),
                  codes[static_cast<size_t>(c * k + i)]);
    }
  }
}

// -- modules --------------------------------------------------------------------------------------

struct Eager : nn::Module {
  nn::Slot quant = slot("quant", quant::QuantStub());
  nn::Slot conv = slot("conv", nn::Conv2d(1, 2, 3));
  nn::Slot dequant = slot("dequant", quant::DeQuantStub());
  nn::Slot fc = slot("fc", nn::Linear(4, 3));
  Tensor forward(Tensor x) override { return fc(dequant(conv(quant(x)))); }
};

TEST(ExplainModule, TheKernelsThatEagerCallsRanAreNamedByTheirModules) {
  auto model = nn::make<Eager>();
  model->eval();
  model->qconfig = quant::get_default_qconfig("native");
  model->fc->qconfig = std::shared_ptr<const quant::QConfig>();
  auto prepared = quant::prepare(model);
  const Tensor x = Tensor::randn({2, 1, 6, 6}, 3);
  prepared->forward(x);
  auto int8 = quant::convert(prepared);
  const Explanation e = debug::explain(*int8, {{x}, {x}}, {.seconds = 0.005, .verify = true});
  ASSERT_EQ(e.steps.size(), 4u);
  EXPECT_EQ(step(e, "quant").numbers, Numbers::conversion);
  EXPECT_EQ(step(e, "conv").numbers, Numbers::integers);
  EXPECT_EQ(step(e, "conv").description.loop.rfind("gemm_u8s8_", 0), 0u);
  EXPECT_EQ(step(e, "conv").multiply_adds, 2 * 2 * 16 * 9);
  EXPECT_TRUE(step(e, "conv").largest_sum.has_value());
  EXPECT_EQ(step(e, "conv").verified, "identical");
  EXPECT_EQ(step(e, "dequant").verified, "identical");
  EXPECT_EQ(step(e, "fc").numbers, Numbers::floats);
  EXPECT_NE(step(e, "fc").why_float, "");
  EXPECT_GT(step(e, "conv").seconds, 0);
}

TEST(ExplainModule, ADynamicLayerQuantizesItsOperandOnTheFly) {
  auto model = nn::make<nn::Sequential>(nn::Linear(10, 5));
  auto dynamic = quant::quantize_dynamic(model, quant::types<nn::Linear>(), DType::qint8);
  const Explanation e = debug::explain(*dynamic, {{Tensor::randn({3, 10}, 1)}}, kVerified);
  ASSERT_EQ(e.steps.size(), 1u);
  EXPECT_EQ(e.steps[0].name, "0");
  EXPECT_EQ(e.steps[0].numbers, Numbers::integers);
  EXPECT_NE(e.steps[0].description.at_run_time.find("float32 to 256 codes of quint8"),
            std::string::npos);
  EXPECT_EQ(e.steps[0].verified, "identical");
  EXPECT_TRUE(e.not_on_codes("").empty());
}

TEST(ExplainModule, ARecurrentLayersProductsAndSumsAreThoseOfBothWeights) {
  auto model = nn::make<nn::LSTM>(5, 6);
  model->eval();
  struct ExplainedNet : nn::Module {
    explicit ExplainedNet(std::shared_ptr<nn::LSTM> m) : lstm(slot("lstm", std::move(m))) {}
    nn::Slot lstm;
    Tensor forward(Tensor x) override { return lstm(std::vector<Tensor>{x})[0]; }
  };
  auto net = nn::make<ExplainedNet>(model);
  net->eval();
  auto dynamic = quant::quantize_dynamic(net, quant::types<nn::LSTM>(), DType::qint8);
  const Explanation e = debug::explain(*dynamic, {{Tensor::randn({7, 2, 5}, 1)}}, kVerified);
  for (const ExplainedStep& s : e.steps) {
    if (s.op != "lstm") continue;
    EXPECT_EQ(s.multiply_adds, 7 * 2 * 24 * (5 + 6));
    ASSERT_TRUE(s.largest_sum.has_value());
    EXPECT_LE(*s.largest_sum, 6 * 255 * 128);
    EXPECT_GT(*s.largest_sum, 255 * 127);
    EXPECT_EQ(s.verified, "identical");
    return;
  }
  ADD_FAILURE() << "no lstm";
}

}  // namespace
}  // namespace octet::testing
