// What runs allocate: malloc and its kin, counted, for small networks of native steps in the shapes
// of known ones.
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>

#include "octet/base/parallel.h"
#include "octet/ops/functional.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"
#include "tests/expect_error.h"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && defined(__GLIBC__)
#define OCTET_COUNTS_ALLOCATIONS 1
#else
#define OCTET_COUNTS_ALLOCATIONS 0  // the sanitizers have a malloc of their own
#endif

namespace {
std::atomic<int64_t> g_allocations{0};
}

#if OCTET_COUNTS_ALLOCATIONS
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void* malloc(size_t n) { return ++g_allocations, __libc_malloc(n); }
void* calloc(size_t n, size_t m) { return ++g_allocations, __libc_calloc(n, m); }
void* realloc(void* p, size_t n) { return ++g_allocations, __libc_realloc(p, n); }
void* aligned_alloc(size_t a, size_t n) { return ++g_allocations, __libc_memalign(a, n); }
int posix_memalign(void** p, size_t a, size_t n) {
  return ++g_allocations, (*p = __libc_memalign(a, n)) ? 0 : ENOMEM;
}
}
#endif

namespace octet::runtime {
namespace {

using graph::Graph;
using graph::ValueId;
using testing::expect_error;
using List = std::vector<int64_t>;

int64_t allocations(const std::function<void()>& fn) {
  int64_t before = g_allocations;
  fn();
  return g_allocations - before;
}

struct Net {
  explicit Net(TensorType input) { x = g.add_input("x", std::move(input)); }
  ValueId weight(Shape shape) {
    ++count;
    return g.add_constant("w" + std::to_string(count),
                          Tensor::rand(shape, static_cast<uint64_t>(count), -0.5, 0.5));
  }
  ValueId call(const std::string& op, std::vector<ValueId> operands, const Attrs& attrs = {}) {
    return g.add_call("v" + std::to_string(++count), op, std::move(operands), attrs);
  }
  ValueId conv(ValueId v, int64_t in, int64_t out, int64_t k, int64_t groups = 1,
               int64_t stride = 1) {
    const int64_t p = k / 2;
    return call(
        "conv2d", {v, weight({out, in / groups, k, k}), weight({out})},
        {{"padding", List{p, p, p, p}}, {"stride", List{stride, stride}}, {"groups", groups}});
  }
  // Of 8 bits throughout.
  Graph quantized(ValueId y, const Tensor& sample) {
    g.set_outputs({y});
    auto prepared = quant::prepare_fx(g, quant::get_default_qconfig());
    prepared->forward({sample});
    return quant::convert_fx(prepared)->graph();
  }
  Graph g;
  ValueId x;
  uint64_t count = 0;
};

Tensor image() { return Tensor::randn({1, 3, 16, 16}, 1); }

Graph resnet() {
  Net n(TensorType(DType::float32, {Dim(1), Dim(3), Dim(16), Dim(16)}));
  ValueId v = n.call("relu", {n.conv(n.x, 3, 8, 7, 1, 2)});
  v = n.call("max_pool2d", {v},
             {{"kernel", List{3, 3}}, {"stride", List{2, 2}}, {"padding", List{1, 1, 1, 1}}});
  ValueId y =
      n.conv(n.call("relu", {n.conv(n.call("relu", {n.conv(v, 8, 4, 1)}), 4, 4, 3)}), 4, 8, 1);
  y = n.call("relu", {n.call("add", {y, v})});
  y = n.call("flatten", {n.call("adaptive_avg_pool2d", {y}, {{"output_size", List{1, 1}}})},
             {{"start_dim", int64_t{1}}});
  return n.quantized(n.call("linear", {y, n.weight({10, 8}), n.weight({10})}), image());
}

Graph mobilenet() {
  Net n(TensorType(DType::float32, {Dim(1), Dim(3), Dim(16), Dim(16)}));
  ValueId v = n.call("relu6", {n.conv(n.x, 3, 8, 3, 1, 2)});
  ValueId y = n.call("relu6", {n.conv(n.call("relu6", {n.conv(v, 8, 24, 1)}), 24, 24, 3, 24)});
  y = n.call("add", {n.conv(y, 24, 8, 1), v});
  return n.quantized(n.call("adaptive_avg_pool2d", {y}, {{"output_size", List{1, 1}}}), image());
}

// The feed-forward part of a transformer's layer.
Graph feed_forward() {
  Net n(TensorType(DType::float32, {Dim(1), Dim(6), Dim(16)}));
  ValueId y = n.call("relu", {n.call("linear", {n.x, n.weight({32, 16}), n.weight({32})})});
  y = n.call("linear", {y, n.weight({16, 32}), n.weight({16})});
  return n.quantized(n.call("add", {y, n.x}), Tensor::randn({1, 6, 16}, 1));
}

}  // namespace

TEST(Allocation, RunsOfNativeStepsAllocateOnlyTheirResultsAndRunIntoNothing) {
  if (!OCTET_COUNTS_ALLOCATIONS) GTEST_SKIP() << "not with a sanitizer's malloc";
  const int before = num_threads();
  for (int threads : {1, 2}) {
    set_num_threads(threads);
    for (const auto& [name, graph, x] :
         {std::tuple("resnet", resnet(), image()), std::tuple("mobilenet", mobilenet(), image()),
          std::tuple("feed forward", feed_forward(), Tensor::randn({1, 6, 16}, 2))}) {
      SCOPED_TRACE(name + std::string(", threads: ") + std::to_string(threads));
      Program p = compile(graph);
      for (const StepInfo& step : p.steps())
        EXPECT_TRUE(step.engine == "native" || step.engine == "layout")
            << step.kernel << " " << step.engine;
      const std::vector<Tensor> inputs{x};
      const auto want = p.run(inputs);
      std::vector<Tensor> got{Tensor::empty(want[0].shape(), want[0].dtype(), want[0].quantizer())};
      p.run_into(inputs, got);
      EXPECT_EQ(allocations([&] { p.run_into(inputs, got); }), 0);
      EXPECT_TRUE(equal(got[0], want[0]));
      // The tensor, its type and its memory, and the list: nothing that grows with the network.
      EXPECT_LE(allocations([&] { p.run(inputs); }), 12);
    }
  }
  set_num_threads(before);
}

// Blocks that the allocator would give back to the system.
TEST(LargeResults, TakeTheMemoryOfTheLastRunOnceNobodyHasIt) {
  Program p = compile(graph::parse(
      "graph g {\n%x: Float(N, 1024) = input\n%y: Float(N, 1024) = relu(%x)\nreturn (%y)\n}\n"));
  const Tensor x = Tensor::full({9000, 1024}, 1.5);  // 36 MB
  std::vector<Tensor> held = p.run({x});
  const void* first = held[0].raw_data();
  const Tensor part = held[0].slice(0, 8000, 8001);
  held.clear();
  const Tensor second = p.run({x * 2.0})[0];
  EXPECT_NE(second.raw_data(), first) << "a view of the first result is still there";
  EXPECT_TRUE(equal(part, Tensor::full({1, 1024}, 1.5)));
  const void* before = second.raw_data();
  held = {second};
  const Tensor third = p.run({x})[0];
  EXPECT_NE(third.raw_data(), before);
  EXPECT_TRUE(equal(second, Tensor::full({9000, 1024}, 3.0)));
  const void* last = p.run({x})[0].raw_data();
  EXPECT_EQ(p.run({x * 4.0})[0].raw_data(), last);
  EXPECT_TRUE(equal(third, x));
}

TEST(Allocation, TheCounterCounts) {
  if (!OCTET_COUNTS_ALLOCATIONS) GTEST_SKIP() << "not with a sanitizer's malloc";
  EXPECT_GT(allocations([] { Tensor::zeros({3, 4}); }), 0);
}

TEST(RunInto, WritesAnyLayoutAndResultsThatAreInputsOrRepeat) {
  Graph g = graph::parse(
      "graph g {\n%x: Float(2, 3, 4, 4) = input\n%y: Float(2, 3, 4, 4) = relu(%x)\nreturn (%y, %x, "
      "%y)\n}\n");
  Program p = compile(g);
  Tensor x = Tensor::randn({2, 3, 4, 4}, 3);
  auto want = p.run({x});
  std::vector<Tensor> got;
  for (int i = 0; i < 3; ++i)
    got.push_back(Tensor::empty(x.shape(), DType::float32, nullptr, MemoryFormat::channels_last));
  p.run_into({x}, got);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(equal(got[i], want[i])) << i;
}

TEST(RunInto, SaysWhichResultDoesNotFit) {
  Program p = compile(feed_forward());
  Tensor x = Tensor::randn({1, 6, 16}, 2);
  auto results = p.run({x});
  expect_error(ErrorCode::invalid_argument, {"2 results given; expected 1"}, [&] {
    p.run_into({x}, {results[0], results[0]});
  });
  expect_error(ErrorCode::invalid_argument, {"result '", "(1, 6, 15)", "expected Float(1, 6, 16)"},
               [&] {
                 p.run_into({x}, {Tensor::zeros({1, 6, 15})});
               });
}

}  // namespace octet::runtime
