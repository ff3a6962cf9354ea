// A process that forks after networks ran on several threads: parent and child go on, with equal
// results.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "octet/autograd/autograd.h"
#include "octet/base/parallel.h"
#include "octet/ops/functional.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"

namespace octet::runtime {
namespace {

graph::Graph two_convolutions() {
  graph::Graph g;
  auto x = g.add_input("x", TensorType(DType::float32, Shape{2, 16, 32, 32}));
  auto w1 = g.add_constant("w1", Tensor::rand({32, 16, 3, 3}, 1, -0.5, 0.5));
  auto w2 = g.add_constant("w2", Tensor::rand({16, 32, 3, 3}, 2, -0.5, 0.5));
  auto y = g.add_call("y", "conv2d", {x, w1}, {{"padding", std::vector<int64_t>{1, 1, 1, 1}}});
  auto r = g.add_call("r", "relu", {y});
  g.set_outputs(
      {g.add_call("z", "conv2d", {r, w2}, {{"padding", std::vector<int64_t>{1, 1, 1, 1}}})});
  return g;
}

// What fn returns in a child; -1 if the child hangs or crashes.
int in_child(const std::function<int()>& fn) {
  const pid_t pid = fork();
  if (pid == 0) {
    alarm(60);
    _exit(fn());
  }
  int status = 0;
  return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

struct ThreeThreads {
  int before = num_threads();
  ThreeThreads() {
    detail::assume_cpus(3);
    set_num_threads(3);
  }
  ~ThreeThreads() {
    detail::assume_cpus(0);
    set_num_threads(before);
  }
};

TEST(ProgramFork, FloatAndQuantizedProgramsRunInParentAndChild) {
  ThreeThreads scope;
  Tensor x = Tensor::rand({2, 16, 32, 32}, 3, -1, 1);
  graph::Graph g = two_convolutions();
  auto prepared = quant::prepare_fx(g, quant::get_default_qconfig("native"));
  prepared->forward({x});
  graph::Graph int8 = quant::convert_fx(prepared)->graph();
  for (const graph::Graph* network : {&g, &int8}) {
    Program program = compile(*network);
    const auto expected = program.run({x})[0].to_vector<float>();
    for (int round = 0; round < 2; ++round) {
      EXPECT_EQ(in_child([&] {
                  bool equal = true;
                  for (int i = 0; i < 3; ++i)
                    equal &= program.run({x})[0].to_vector<float>() == expected;
                  equal &= compile(*network).run({x})[0].to_vector<float>() == expected;
                  return equal ? 7 : 8;
                }),
                7);
      EXPECT_EQ(program.run({x})[0].to_vector<float>(), expected);
    }
  }
}

TEST(ProgramFork, TrainingRunsInParentAndChild) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "ThreadSanitizer takes a child's OpenMP threads for the parent's";
#endif
  ThreeThreads scope;
  Tensor x = Tensor::rand({8, 16, 32, 32}, 3, -1, 1),
         w = Tensor::rand({32, 16, 3, 3}, 1, -0.5, 0.5);
  auto gradient = [&] {
    Tensor weight = w.clone();
    autograd::set_requires_grad(weight);
    autograd::backward(functional::conv2d(x, weight), Tensor::full({8, 32, 30, 30}, 1));
    return autograd::grad(weight).to_vector<float>();
  };
  const auto expected = gradient();
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(in_child([&] { return gradient() == expected ? 7 : 8; }), 7);
    EXPECT_EQ(gradient(), expected);
  }
}

}  // namespace
}  // namespace octet::runtime
