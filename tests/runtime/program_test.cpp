#include "octet/runtime/program.h"
#include "tests/graph_text.h"

#include <gtest/gtest.h>

#include <malloc.h>

#include <atomic>
#include <set>
#include <thread>

#include "octet/base/cpu.h"
#include "octet/base/parallel.h"
#include "octet/engine/registry.h"
#include "octet/quant/workflow/fx.h"
#include "tests/engine/bits.h"
#include "tests/expect_error.h"
#include "tests/graph/random_net.h"

namespace octet::runtime {
namespace {

using graph::Graph;
using graph::ValueId;
using testing::evaluate;
using testing::evaluate_values;
using testing::expect_error;
using testing::parse_body;
using testing::random_net;

Tensor image(int64_t batch, uint64_t seed) { return Tensor::randn({batch, 3, 6, 6}, seed); }

// A random network in 8 bits, or none if the seed gives one with nothing to quantize.
std::optional<Graph> quantized_net(uint64_t seed) {
  Graph g = random_net(seed, true);
  try {
    auto prepared = quant::prepare_fx(g, quant::get_default_qconfig());
    prepared->forward({image(4, seed + 1)});
    return quant::convert_fx(prepared)->graph();
  } catch (const Error& e) {
    if (std::string(e.what()).find("nothing in") == std::string::npos) throw;
    return std::nullopt;
  }
}

struct EngineGuard {
  explicit EngineGuard(const std::string& name) { set_engine(name); }
  ~EngineGuard() { set_engine("native"); }
};
struct IsaGuard {
  Isa before = current_isa();
  ~IsaGuard() { set_isa(before); }
};
struct ThreadGuard {
  int before = num_threads();
  ~ThreadGuard() { set_num_threads(before); }
};

void expect_equal(const std::vector<Tensor>& got, const std::vector<Tensor>& want,
                  const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i)
    EXPECT_TRUE(equal(got[i], want[i])) << what << " result " << i;
}
void expect_close(const std::vector<Tensor>& got, const std::vector<Tensor>& want,
                  const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i)
    EXPECT_TRUE(got[i].type() == want[i].type() && allclose(got[i], want[i], 1e-4, 1e-5))
        << what << " result " << i;
}

// Gives constants without a value in the text one.
void fill_constants(Graph& g) {
  for (const auto& node : g.nodes())
    if (node.kind == graph::NodeKind::constant && node.value.numel() > 8) {
      Tensor values = Tensor::randn(node.value.shape(), 5);
      graph::Node& mine = g.node(g.value(node.outputs[0]).producer);
      mine.value = node.value.is_quantized()
                       ? quantize(values, node.value.quantizer(), node.value.dtype())
                       : values;
    }
}

}  // namespace

TEST(Program, FloatNetworksGiveWhatTheirOperatorsGive) {
  for (const char* engine : {"native", "reference"}) {
    EngineGuard guard(engine);
    for (uint64_t seed = 0; seed < 60; ++seed) {
      Graph g = random_net(seed);
      Tensor x = image(2, seed);
      expect_close(compile(g, {engine}).run({x}), evaluate(g, {x}),
                   std::string(engine) + " " + graph::print(g));
    }
  }
}

TEST(Program, QuantizedNetworksGiveTheSameBitsAsTheirOperators) {
  int tried = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    auto g = quantized_net(seed);
    if (!g) continue;
    ++tried;
    Tensor x = image(2, seed);
    auto want = evaluate(*g, {x});
    bool all_codes = true;  // float nodes may differ in the last bit from engine to engine
    for (const auto& node : g->nodes())
      if (node.kind == graph::NodeKind::call) all_codes &= node.note.empty();
    for (const char* engine : {"native", "reference"}) {
      auto got = compile(*g, {engine}).run({x});
      std::string what = std::string(engine) + "\n" + graph::print(*g);
      if (all_codes)
        expect_equal(got, want, what);
      else if (std::string(engine) == "native")
        expect_close(got, want, what);
    }
  }
  EXPECT_GT(tried, 30);
}

TEST(Program, BatchSizeDoesNotChangeAQuantizedResult) {
  for (uint64_t seed = 0; seed < 30; ++seed) {
    auto g = quantized_net(seed);
    if (!g) continue;
    Program p = compile(*g);
    Tensor x = image(5, seed);
    auto whole = p.run({x});
    for (int64_t i : {0, 4, 2}) {
      auto one = p.run({x.slice(0, i, i + 1).contiguous()});
      for (size_t k = 0; k < whole.size(); ++k)
        EXPECT_TRUE(equal(one[k].contiguous(), whole[k].slice(0, i, i + 1).contiguous()))
            << graph::print(*g);
    }
  }
}

TEST(Program, BatchSizesMayAlternate) {
  Graph g = random_net(3, true);
  Program p = compile(g);
  for (int64_t batch : {1, 4, 2, 4, 1, 7, 8, 9, 10, 11, 12, 13, 1}) {
    Tensor x = image(batch, static_cast<uint64_t>(batch));
    expect_close(p.run({x}), evaluate(g, {x}), std::to_string(batch));
  }
}

TEST(Program, EveryIsaAndThreadCountGivesTheSameBits) {
  IsaGuard isa_guard;
  ThreadGuard thread_guard;
  for (int i = 0; i < testing::bits_networks(18); ++i) {
    const uint64_t seed = testing::bits_seed(i);
    auto g = quantized_net(seed);
    if (!g) continue;
    const Tensor x = image(1 + i % 5, seed);
    set_isa(Isa::scalar);
    set_num_threads(1);
    auto want = compile(*g).run({x});
    set_num_threads(testing::bits_threads(i, 6));
    for (Isa isa : supported_isas()) {
      set_isa(isa);
      expect_equal(compile(*g).run({x}), want,
                   "seed " + std::to_string(seed) + ", " + to_string(isa) + ", " +
                       std::to_string(num_threads()) + " threads");
    }
  }
}

// Kernels load whole vectors and groups of four bytes, so they read bytes of the planned memory, of
// their scratch memory and of packed weights that nobody has written (base/buffer.h). The allocator
// fills these with another byte each time.
TEST(Program, WhatMemoryHeldBeforeReachesNoResult) {
#if !defined(__GLIBC__) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "needs glibc's malloc";
#else
  IsaGuard isa_guard;
  EngineGuard engine_guard("native");
  struct PlainMemory {
    ~PlainMemory() { mallopt(M_PERTURB, 0); }
  } plain_memory;
  // Of floats: 0, NaN, and numbers beyond 2^127.
  constexpr int kFills[] = {0x00, 0xfe, 0x7f};
  for (uint64_t seed = 0; seed < 30; ++seed) {
    std::vector<Graph> graphs{random_net(seed, true)};
    if (auto g = quantized_net(seed)) graphs.push_back(*g);
    for (const Graph& g : graphs)
      for (const char* engine : {"native", "onednn", "xnnpack"})
        for (Isa isa : supported_isas()) {
          if (isa == Isa::scalar || (engine != std::string("native") && isa != isa_guard.before))
            continue;
          set_isa(isa);
          std::vector<Tensor> want;
          for (int fill : kFills) {
            const Tensor x = image(3, seed);
            mallopt(M_PERTURB, fill ^ 0xff);
            const auto got = compile(g, {.engine = engine}).run({x});
            mallopt(M_PERTURB, 0);
            if (want.empty()) want = got;
            expect_equal(got, want,
                         std::string(engine) + " " + to_string(isa) + ", memory filled with " +
                             std::to_string(fill) + ", of\n" + graph::print(g));
          }
        }
  }
#endif
}

TEST(Program, AStreamOfOddSizesHoldsTheMemoryOfAFew) {
#if !defined(__GLIBC__) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "needs glibc's malloc";
#else
  Graph g;
  const ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(1024)})),
                a = g.add_call("a", "softmax", {x}, {{"dim", int64_t{1}}}),
                b = g.add_call("b", "softmax", {a}, {{"dim", int64_t{0}}});
  g.set_outputs({g.add_call("y", "add", {a, b})});
  const Program p = compile(g);
  const auto bytes_after = [&](int64_t sizes) {
    for (int64_t n = 1; n <= sizes; ++n) p.run({Tensor::ones({1000 + n, 1024})});
    const auto used = mallinfo2();
    return used.uordblks + used.hblkhd;
  };
  const size_t before = bytes_after(0), few = bytes_after(8) - before;
  EXPECT_GT(few, 8u << 20);  // at least one value of 4 MB for some of them
  EXPECT_LT(bytes_after(40) - before, 2 * few);
#endif
}

TEST(ProgramThreads, OneProgramMayRunInSeveralThreadsAtOnce) {
  for (bool quantized : {false, true}) {
    Graph g = quantized ? *quantized_net(4) : random_net(4, true);
    Program p = compile(g);
    std::vector<Tensor> inputs;
    std::vector<std::vector<Tensor>> want;
    for (int i = 0; i < 3; ++i) {
      inputs.push_back(image(1 + i, static_cast<uint64_t>(i)));
      want.push_back(p.run({inputs.back()}));
    }
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&, t] {
        for (int i = 0; i < 20; ++i) {
          size_t k = static_cast<size_t>(t + i) % 3;
          auto got = p.run({inputs[k]});
          for (size_t r = 0; r < got.size(); ++r) wrong += !equal(got[r], want[k][r]);
        }
      });
    for (auto& t : threads) t.join();
    EXPECT_EQ(wrong, 0) << (quantized ? "quantized" : "float");
  }
}

// Graphs made to break memory reuse and aliases: each is compared with its operators, watched and
// not.
TEST(Program, AdversarialGraphs) {
  const char* const q = "QUInt8(2, 4, 3, 3) scale=0.05 zero_point=100";
  const std::string codes =
      std::string("%x: Float(2, 4, 3, 3) = input\n%a: ") + q + " = quantize(%x)\n";
  auto val = [&](const std::string& name, const std::string& call) {
    return "%" + name + ": " + q + " = " + call + "\n";
  };
  const std::string conv = "%w: QInt8(4, 4, 1, 1) scale=0.02 zero_point=0 = constant\n";
  const struct {
    const char* name;
    std::string body;
  } cases[] = {
      {"a value used after the operator that could overwrite it",
       codes + val("b", "relu(%a)") + val("c", "add(%a, %b)") + "return (%c)"},
      {"the same operand twice", codes + val("b", "add(%a, %a)") + val("c", "relu(%b)") +
                                     val("d", "add(%c, %c)") + "return (%d)"},
      {"a result that is also used", codes + val("b", "relu(%a)") + val("c", "sigmoid(%b)") +
                                         val("d", "add(%b, %c)") + "return (%b, %d)"},
      {"the same result twice", codes + val("b", "relu(%a)") + "return (%b, %b, %b)"},
      {"results that are inputs",
       "%x: Float(2, 3) = input\n%y: Long(2) = input\nreturn (%y, %x, %x)"},
      {"a result that is a constant",
       "%x: Float(2) = input\n%c: Float(2) = constant [1, 2]\n%y: Float(2) = add(%x, %c)\nreturn "
       "(%c, %y, %c)"},
      {"results that are views of an input",
       "%x: Float(2, 3) = input\n%y: Float(6) = reshape(%x, shape=[6])\n%z: Float(6, 1) = "
       "unsqueeze(%y, dim=1)\nreturn "
       "(%y, %x, %z)"},
      {"results that are views of each other",
       codes + val("b", "relu(%a)") +
           "%c: QUInt8(2, 36) scale=0.05 zero_point=100 = flatten(%b)\nreturn (%b, %c, %b)"},
      {"a view of what the next operator overwrites",
       codes + val("b", "relu(%a)") +
           "%v: QUInt8(2, 36) scale=0.05 zero_point=100 = flatten(%b)\n" + val("c", "sigmoid(%b)") +
           val("d", "tanh(%c)") +
           "%e: QUInt8(2, 36) scale=0.05 zero_point=100 = relu(%v)\nreturn (%d, %e)"},
      {"an unused view", codes + val("b", "relu(%a)") +
                             "%v: QUInt8(2, 36) scale=0.05 zero_point=100 = flatten(%b)\n" +
                             val("c", "sigmoid(%b)") + val("d", "tanh(%c)") + "return (%d)"},
      {"a view of an NHWC value",
       codes + conv + val("b", "conv2d(%a, %w)") +
           "%v: QUInt8(2, 36) scale=0.05 zero_point=100 = flatten(%b)\n" + val("c", "relu(%b)") +
           val("d", "reshape(%v, shape=[2, 4, 3, 3])") + val("e", "add(%c, %d)") +
           "return (%v, %e, %b)"},
      {"two views of an NHWC value far apart",
       codes + conv + val("b", "conv2d(%a, %w)") + val("i", "identity(%b)") +
           val("c", "sigmoid(%i)") + val("d", "conv2d(%c, %w)") + val("j", "identity(%b)") +
           val("e", "add(%j, %d)") + "return (%e)"},
      {"NHWC and row-major operands of one add", codes + conv + val("b", "conv2d(%a, %w)") +
                                                     val("c", "add(%a, %b)") +
                                                     val("d", "add(%b, %a)") + "return (%c, %d)"},
      {"an operand and its view in one add", codes + val("b", "relu(%a)") +
                                                 val("v", "identity(%b)") +
                                                 val("c", "add(%b, %v)") + "return (%c)"},
      {"a pixel image, whose layouts are the same bytes",
       "%x: Float(2, 4, 1, 1) = input\n%w: Float(4, 4, 1, 1) = constant\n%y: Float(2, 4, 1, 1) = "
       "conv2d(%x, %w)\n%r: "
       "Float(2, 4, 1, 1) = relu(%y)\n%s: Float(2, 4, 1, 1) = add(%y, %r)\n%f: Float(2, 4) = "
       "flatten(%s)\nreturn (%f, "
       "%y)"},
      {"a view that changes qparams is no view",
       codes + "%b: QUInt8(2, 36) scale=0.1 zero_point=10 = flatten(%a)\nreturn (%b)"},
      {"views of constants",
       "%x: Float(1) = input\n%c: Float(4) = constant [1, 2, 3, 4]\n%v: Float(2, 2) = reshape(%c, "
       "shape=[2, 2])\n%y: "
       "Float(2, 2) = add(%v, %x)\nreturn (%v, %y)"},
      {"broadcasting may not be done in place",
       "%x: Float(2, 1) = input\n%y: Float(2, 3) = input\n%a: Float(2, 1) = relu(%x)\n%b: Float(2, "
       "3) = relu(%y)\n%c: "
       "Float(2, 3) = add(%a, %b)\n%d: Float(2, 3) = add(%c, %a)\nreturn (%d)"},
      {"several results",
       "%x: Float(2, 6) = input\n%r: Float(2, 6) = relu(%x)\n%a: Float(2, 2), %b: Float(2, 4) = "
       "split(%r, sizes=[2, "
       "4], dim=1)\n%v: Float(2, 3), %i: Long(2, 3) = topk(%b, k=3)\nreturn (%i, %a, %v)"},
      {"a chain in place to a result", codes + val("b", "relu(%a)") + val("c", "sigmoid(%b)") +
                                           val("d", "tanh(%c)") + "return (%d)"},
      {"a weight that is computed",
       "%x: Float(2, 3) = input\n%w: Float(4, 3) = input\n%v: Float(4, 3) = relu(%w)\n%y: Float(2, "
       "4) = linear(%x, "
       "%v)\nreturn (%y)"},
      {"a quantized weight that is computed",
       "%x: Float(2, 3) = input\n%w: Float(4, 3) = input\n%a: QUInt8(2, 3) scale=0.02 "
       "zero_point=128 = "
       "quantize(%x)\n%v: QInt8(4, 3) scale=0.02 zero_point=0 = quantize(%w)\n%y: QUInt8(2, 4) "
       "scale=0.05 "
       "zero_point=128 = linear(%a, %v)\nreturn (%y)"},
  };
  for (const auto& c : cases) {
    Graph g = parse_body(c.body);
    fill_constants(g);
    std::vector<Tensor> inputs;
    for (ValueId id : g.inputs()) {
      Tensor t = Tensor::randn(g.type(id).shape(), 11 + static_cast<uint64_t>(id));
      inputs.push_back(t.to(g.type(id).dtype));
    }
    for (const char* engine : {"native", "reference"}) {
      EngineGuard guard(engine);
      Program p = compile(g, {.engine = engine, .every_value = true});
      auto want = evaluate_values(g, inputs);
      std::vector<Tensor> outputs;
      for (ValueId id : g.outputs()) outputs.push_back(want[id]);
      for (int round = 0; round < 2; ++round)
        expect_close(p.run(inputs), outputs, std::string(engine) + ": " + c.name);
      std::vector<ValueId> all;
      for (size_t v = 0; v < g.values().size(); ++v) all.push_back(static_cast<ValueId>(v));
      std::map<ValueId, int> seen;
      auto watched = p.run_watched(inputs, all, [&](ValueId id, const Tensor& t) {
        ++seen[id];
        EXPECT_TRUE(t.type() == want[id].type() && allclose(t, want[id], 1e-4, 1e-5))
            << engine << ": " << c.name << ": watched %" << g.value(id).name;
      });
      expect_close(watched, outputs, std::string(engine) + ": " + c.name + ", watched");
      EXPECT_EQ(seen.size(), all.size()) << engine << ": " << c.name;
      for (auto [id, times] : seen)
        EXPECT_EQ(times, 1) << engine << ": " << c.name << ": %" << g.value(id).name;
    }
  }
}

TEST(Program, WatchShowsEachWantedValueOnceAndNoOther) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    auto q = quantized_net(seed);
    Graph g = q && seed % 2 ? *q : random_net(seed, true);
    Tensor x = image(2, seed);
    auto want = evaluate_values(g, {x});
    std::vector<ValueId> wanted;
    for (size_t v = 0; v < g.values().size(); v += 2)
      wanted.insert(wanted.end(), 2, static_cast<ValueId>(v));  // doubly
    std::map<ValueId, int> seen;
    compile(g, {.every_value = true}).run_watched({x}, wanted, [&](ValueId id, const Tensor& t) {
      ++seen[id];
      EXPECT_TRUE(allclose(t, want[id], 1e-4, 1e-5)) << seed << " %" << g.value(id).name;
    });
    EXPECT_EQ(seen.size(), std::set<ValueId>(wanted.begin(), wanted.end()).size());
    for (auto [id, times] : seen)
      EXPECT_TRUE(times == 1 && id % 2 == 0) << seed << " %" << g.value(id).name;
  }
}

TEST(Program, ResultsAreTheCallersOwn) {
  Graph g = parse_body(
      "%x: Float(3) = input\n%c: Float(3) = constant [1, 2, 3]\n%y: Float(3) = relu(%x)\n"
      "%v: Float(3, 1) = unsqueeze(%y, dim=1)\nreturn (%y, %x, %c, %v, %y)");
  Program p = compile(g);
  Tensor x = Tensor::ones({3});
  auto first = p.run({x});
  for (size_t i = 0; i < first.size(); ++i) {
    for (int k = 0; k < 3; ++k) first[i].data<float>()[k] = 100.0f + static_cast<float>(i);
    for (size_t j = i + 1; j < first.size(); ++j)
      EXPECT_LT(first[j].to_vector<float>()[0], 100) << i << " shares with " << j;
  }
  EXPECT_TRUE(equal(x, Tensor::ones({3})));
  auto second = p.run({x});
  EXPECT_TRUE(equal(second[2], Tensor::from<float>({1, 2, 3})));
  EXPECT_EQ(first[0].data<float>()[0], 100) << "a later run must not change earlier results";
}

TEST(Program, StridedInputsAreTaken) {
  Graph g = random_net(5);
  Tensor x = image(2, 5), nhwc = x.contiguous(MemoryFormat::channels_last);
  Program p = compile(g);
  expect_equal(p.run({nhwc}), p.run({x}), "channels last");
  expect_equal(p.run({image(4, 6).slice(0, 0, 4, 2)}),
               p.run({image(4, 6).slice(0, 0, 4, 2).contiguous()}), "sliced");
}

TEST(Program, WrongInputsAreErrorsThatNameTheInput) {
  Graph g;
  ValueId a = g.add_input("a", TensorType(DType::float32, {Dim("N"), Dim(3)}));
  ValueId b = g.add_input("b", TensorType(DType::float32, {Dim("N"), Dim(3)}));
  ValueId q = g.add_input(
      "q", TensorType(DType::quint8, {Dim(2)}, Quantizer::per_tensor(0.5, 1, DType::quint8)));
  g.set_outputs({g.add_call("y", "add", {a, b}), q});
  Program p = compile(g);
  Tensor x = Tensor::ones({2, 3}),
         codes = quantize_per_tensor(Tensor::ones({2}), 0.5, 1, DType::quint8);
  const struct {
    std::vector<Tensor> inputs;
    std::vector<std::string> parts;
  } cases[] = {
      {{}, {"0 inputs given", "expected 3", "a, b, q"}},
      {{x, x}, {"2 inputs given"}},
      {{x, x, codes, x}, {"4 inputs given"}},
      {{x, Tensor(), codes}, {"'b'", "no tensor"}},
      {{x, Tensor::ones({2, 4}), codes}, {"'b'", "Float(2, 4)", "Float(N, 3)"}},
      {{x, Tensor::ones({2, 3, 1}), codes}, {"'b'", "Float(2, 3, 1)"}},
      {{x, Tensor::ones({2, 3}, DType::float64), codes}, {"'b'", "Double(2, 3)", "Float(N, 3)"}},
      {{Tensor::ones({3}), x, codes}, {"'a'"}},
      {{x, Tensor::ones({4, 3}), codes}, {"'b'", "'N'", "4", "2"}},
      {{Tensor::ones({0, 3}), Tensor::ones({0, 3}), codes}, {"'a'", "'N'", "1 or more"}},
      {{x, x, quantize_per_tensor(Tensor::ones({2}), 0.25, 1, DType::quint8)},
       {"'q'", "scale=0.25", "scale=0.5"}},
      {{x, x, Tensor::ones({2}, DType::uint8)}, {"'q'", "Byte(2)"}},
  };
  for (const auto& c : cases) {
    expect_error(ErrorCode::invalid_argument, c.parts, [&] { p.run(c.inputs); });
    expect_error(ErrorCode::invalid_argument, c.parts, [&] {
      p.run_watched(c.inputs, {a, b}, [](ValueId, const Tensor&) {});
    });
    EXPECT_TRUE(equal(p.run({x, x, codes})[0], Tensor::full({2, 3}, 2))) << "after an error";
  }
  expect_error(ErrorCode::not_found, {"'b'", "Float(N, 3)"}, [&] {
    p.run({{"a", x}, {"q", codes}});
  });
  expect_error(ErrorCode::not_found, {"'aa'", "a, b, q", "did you mean 'a'"}, [&] {
    p.run({{"a", x}, {"aa", x}, {"b", x}, {"q", codes}});
  });
  auto named = p.run({{"a", x}, {"b", x}, {"q", codes}});
  EXPECT_TRUE(equal(named.at("y"), Tensor::full({2, 3}, 2)));
}

TEST(Program, RunsAfterAnErrorInTheMiddle) {
  Graph g = parse_body(
      "%x: Float(3) = input\n%i: Long(1) = input\n%r: Float(3) = relu(%x)\n"
      "%y: Float(1) = index_select(%r, %i)\nreturn (%y)");
  Program p = compile(g);
  Tensor x = Tensor::from<float>({1, 2, 3});
  EXPECT_EQ(p.run({x, Tensor::from<int64_t>({2})})[0].item(), 3);
  EXPECT_THROW(p.run({x, Tensor::from<int64_t>({7})}), Error);
  EXPECT_EQ(p.run({x, Tensor::from<int64_t>({1})})[0].item(), 2);
  EXPECT_THROW(p.run_watched({x, Tensor::from<int64_t>({0})}, {0},
                             [](ValueId, const Tensor&) { throw Error(ErrorCode::io, "stop"); }),
               Error);
  EXPECT_EQ(p.run({x, Tensor::from<int64_t>({0})})[0].item(), 1);
}

TEST(Program, WhatCannotRunIsSaidWhenCompilingAllOfIt) {
  Graph g = parse_body(
      "%x: Double(1, 2, 4, 4) = input\n%w: Double(1, 2, 1, 1) = constant [1, 2]\n"
      "%y: Float(1, 1, 4, 4) = conv2d(%x, %w)  @ first.conv\n"
      "%z: Float(1, 1, 2, 2) = conv2d(%x, %w, stride=[2, 2])  @ second.conv\nreturn (%y, %z)");
  expect_error(ErrorCode::unsupported,
               {"2 nodes", "first.conv", "Double(1, 2, 4, 4)", "second.conv"}, [&] { compile(g); });
  expect_error(ErrorCode::invalid_argument, {"unknown engine 'nativ'", "native"},
               [&] { compile(random_net(1), {"nativ"}); });
}

TEST(Program, StepsTellWhatRuns) {
  Graph g = *quantized_net(4);
  Program p = compile(g);
  ASSERT_FALSE(p.steps().empty());
  for (const StepInfo& s : p.steps()) {
    EXPECT_FALSE(s.kernel.empty());
    EXPECT_TRUE(
        (std::set<std::string>{"native", "onednn", "reference", "op", "layout"}.count(s.engine)))
        << s.engine;
    EXPECT_GE(s.node, 0);
  }
  EXPECT_EQ(p.profile({image(2, 1)}).size(), p.steps().size());
  EXPECT_GT(p.arena_bytes({image(2, 1)}), 0u);
  Program reference = compile(g, {"reference"});
  for (const StepInfo& s : reference.steps()) EXPECT_NE(s.engine, "native");
}

// Gates, resizes, paddings, slices and joins of NHWC values stay NHWC, on codes and on floats.
TEST(Program, WhatRunsInEitherLayoutNeedsNoReorder) {
  const std::string type = "QUInt8(2, 4, 6, 6) scale=0.05 zero_point=100",
                    qparams = " scale=0.05 zero_point=100";
  const std::string codes =
      "%x: " + type +
      " = input\n%w: QInt8(4, 4, 1, 1) scale=0.02 zero_point=0 = constant\n%a: " + type +
      " = conv2d(%x, %w)\n%g: QUInt8(2, 4, 1, 1)" + qparams +
      " = adaptive_avg_pool2d(%a, output_size=[1, 1])\n%b: " + type +
      " = mul(%a, %g)\n%c: " + "QUInt8(2, 4, 12, 12)" + qparams +
      " = interpolate(%b, scales=[2, 2], mode=\"linear\")\n%d: QUInt8(2, 4, 14, 14)" + qparams +
      " = pad(%c, pads=[0, 0, 1, 1, 0, 0, 1, 1])\n%e: QUInt8(2, 2, 14, 14)" + qparams +
      " = slice(%d, dim=1, start=1, end=3)\n%f: QUInt8(2, 4, 14, 14)" + qparams +
      " = cat(%e, %e, dim=1)\n%y: QUInt8(2, 4, 14, 14)" + qparams +
      " = conv2d(%f, %w)\nreturn (%y)";
  std::string floats = codes;
  const auto replace = [&](const std::string& from, const std::string& to) {
    for (size_t at; (at = floats.find(from)) != std::string::npos;)
      floats.replace(at, from.size(), to);
  };
  replace(qparams, "");
  replace(" scale=0.02 zero_point=0", "");
  replace("QUInt8", "Float");
  replace("QInt8", "Float");
  for (const std::string& text : {codes, floats}) {
    Graph g = parse_body(text);
    fill_constants(g);
    Program p = compile(g);
    int reorders = 0;  // of the network's input and result
    for (const StepInfo& s : p.steps()) {
      EXPECT_TRUE(s.engine == "native" || s.engine == "layout") << s.kernel;
      reorders += s.engine == "layout";
    }
    EXPECT_LE(reorders, 1);
    const Tensor x = Tensor::randn(g.type(g.inputs()[0]).shape(), 3);
    const TensorType& of = g.type(g.inputs()[0]);
    const std::vector<Tensor> inputs{of.is_quantized() ? quantize(x, of.quantizer, of.dtype) : x};
    expect_close(p.run(inputs), {evaluate_values(g, inputs)[g.outputs()[0]]}, text);
  }
}

TEST(Program, AKernelMayHaveManyResults) {
  Graph g;
  const ValueId x = g.add_input("x", TensorType(DType::float32, Shape{9, 2}));
  g.set_outputs(g.add_calls("y", "split", {x}, {{"sizes", std::vector<int64_t>(9, 1)}}));
  const Tensor rows = Tensor::randn({9, 2}, 1);
  const std::vector<Tensor> parts = compile(g).run({rows});
  ASSERT_EQ(parts.size(), 9u);
  for (int64_t i = 0; i < 9; ++i) EXPECT_TRUE(equal(parts[i], rows.slice(0, i, i + 1)));
}

TEST(Program, MemoryIsReusedAlongAChain) {
  Graph g;
  ValueId v = g.add_input("x", TensorType(DType::float32, Shape{1, 1000}));
  for (int i = 0; i < 10; ++i) v = g.add_call("y", "softmax", {v});
  g.set_outputs({v});
  EXPECT_LT(compile(g).arena_bytes({Tensor::ones({1, 1000})}), 3u * 4200);
}

TEST(Program, AGraphWithoutOperatorsRuns) {
  Graph g;
  g.add_input("x", TensorType(DType::float32, Shape{2}));
  EXPECT_TRUE(compile(g).run({Tensor::ones({2})}).empty());
  g.set_outputs({0});
  EXPECT_TRUE(equal(compile(g).run({Tensor::ones({2})})[0], Tensor::ones({2})));
}

}  // namespace octet::runtime
