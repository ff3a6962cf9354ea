// A process that forks after networks ran on several threads: parent and child go on, with equal results.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "octet/base/parallel.h"
#include "octet/engine/engine.h"
#include "octet/quant/workflow/quantize_fx.h"
#include "octet/runtime/program.h"

namespace octet::runtime {
namespace {

graph::Graph two_convolutions() {
  graph::Graph g;
  auto x = g.add_input("x", {DType::float32, {2, 16, 32, 32}});
  auto w1 = g.add_constant("w1", Tensor::rand({32, 16, 3, 3}, 1, -0.5, 0.5));
  auto w2 = g.add_constant("w2", Tensor::rand({16, 32, 3, 3}, 2, -0.5, 0.5));
  auto y = g.add_call("y", "conv2d", {x, w1}, {{"padding", std::vector<int64_t>{1, 1}}});
  auto r = g.add_call("r", "relu", {y});
  g.set_outputs({g.add_call("z", "conv2d", {r, w2}, {{"padding", std::vector<int64_t>{1, 1}}})});
  return g;
}

// 7 if the program gives `expected` in a child, on several threads; -1 if the child hangs or crashes.
int in_child(const graph::Graph& g, const Program& program, const Tensor& x, const Tensor& expected) {
  const pid_t pid = fork();
  if (pid == 0) {
    alarm(60);
    bool equal = true;
    for (int i = 0; i < 3; ++i) equal &= program.run({x})[0].to_vector<float>() == expected.to_vector<float>();
    equal &= compile(g).run({x})[0].to_vector<float>() == expected.to_vector<float>();
    _exit(equal ? 7 : 8);
  }
  int status = 0;
  return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(ProgramFork, FloatAndQuantizedProgramsRunInParentAndChild) {
  const int before = num_threads();
  detail::assume_cpus(3);
  set_num_threads(3);
  Tensor x = Tensor::rand({2, 16, 32, 32}, 3, -1, 1);
  graph::Graph g = two_convolutions();
  quant::PreparedGraph prepared = quant::prepare_fx(g, quant::get_default_qconfig("native"));
  prepared.forward({x});
  graph::Graph int8 = quant::convert_fx(prepared);
  // The engine of the default, and oneDNN with OpenMP's threads.
  for (const char* engine : {"native", "onednn"}) {
    set_engine(engine);
    for (const graph::Graph* network : {&g, &int8}) {
      Program program = compile(*network);
      Tensor y = program.run({x})[0];
      for (int round = 0; round < 2; ++round) {
        EXPECT_EQ(in_child(*network, program, x, y), 7) << engine;
        EXPECT_EQ(program.run({x})[0].to_vector<float>(), y.to_vector<float>()) << engine;
      }
    }
  }
  set_engine("native");
  detail::assume_cpus(0);
  set_num_threads(before);
}

}  // namespace
}  // namespace octet::runtime
