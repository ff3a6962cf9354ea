// Memory runs out at the n-th allocation of loading, importing, compiling, running and saving: what
// is thrown is a std::bad_alloc or an Error that says so, nothing is lost, and the next attempt
// gives what it always gave. Not of exporting to ONNX: protobuf 3.21 counts a new element of a
// repeated field before it has memory for it, and its destructor then takes what is not there.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <new>

#include "octet/base/error.h"
#include "octet/base/parallel.h"
#include "octet/io/module_file.h"
#include "octet/io/npz.h"
#include "octet/io/octet_file.h"
#include "octet/io/onnx/export.h"
#include "octet/io/onnx/import.h"
#include "octet/io/state_dict.h"
#include "octet/nn/nn.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"
#include "tests/faults/inject.h"
#include "tests/faults/rounds.h"
#include "tests/graph/random_net.h"
#include "tests/temp_dir.h"

namespace octet {
namespace {

using faults::Call;
using faults::Fault;

graph::Graph network(bool quantized) {
  const graph::Graph g = testing::random_net(4, true, 5);
  if (!quantized) return g;
  auto prepared = quant::prepare_fx(g, quant::get_default_qconfig());
  prepared->forward({Tensor::randn({2, 3, 6, 6}, 1)});
  return quant::convert_fx(prepared)->graph();
}

// Lets the n-th allocation of `work` fail, and with `on` all after it, for about `few` n from the
// first to the last; `same` says whether work's result is right. The number of failures.
template <typename Work, typename Same>
int sweep(Work&& work, Same&& same, int few = 150) {
  work();  // what is made once and kept
  faults::arm({Call::allocate, Fault::none});
  work();
  const long calls = faults::count(Call::allocate);
  faults::disarm();
  EXPECT_GT(calls, 0);
  const long step = std::max<long>(1, calls / testing::fault_rounds(few));
  int failures = 0;
  long before = 0, grown = 0;
  for (const bool on : {false, true})
    for (long n = 1; n <= calls; n += step) {
      SCOPED_TRACE(::testing::Message() << "allocation " << n << " of " << calls);
      before = faults::live_blocks();
      faults::arm({Call::allocate, Fault::no_space, n, on});
      try {
        work();
        faults::disarm();
      } catch (const std::bad_alloc&) {
        faults::disarm();
        ++failures;
      } catch (const Error& e) {
        faults::disarm();
        ++failures;
        EXPECT_NE(std::string(e.what()).find("memory"), std::string::npos) << e.what();
      }
      grown += faults::live_blocks() - before;
      EXPECT_TRUE(same(work())) << "after a failure the result is another";
    }
  // A few blocks may belong to what is made once and kept; a leak would grow with each failure.
  EXPECT_LT(grown, failures / 4 + 8) << "blocks were lost";
  return failures;
}

class MemoryFaults : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override { set_num_threads(2); }
  void TearDown() override { set_num_threads(threads_); }
  int threads_ = num_threads();
};

TEST_P(MemoryFaults, LoadingAGraph) {
  testing::TempDir dir;
  const graph::Graph g = network(GetParam());
  io::save_octet(g, dir / "g.octet");
  const std::string want = graph::print(g, {.full = true});
  EXPECT_GT(sweep([&] { return graph::print(io::load_octet(dir / "g.octet"), {.full = true}); },
                  [&](const std::string& got) { return got == want; }),
            100);
}

TEST_P(MemoryFaults, ImportingOnnx) {
  const std::string bytes = io::to_onnx_bytes(network(GetParam()));
  const std::string want = graph::print(io::import_onnx_bytes(bytes), {.full = true});
  EXPECT_GT(sweep([&] { return graph::print(io::import_onnx_bytes(bytes), {.full = true}); },
                  [&](const std::string& got) { return got == want; }),
            100);
}

// What is saved, and that the next save writes the same.
int sweep_save(const std::function<void(const std::filesystem::path&)>& save) {
  testing::TempDir dir;
  const auto path = dir / "file";
  save(path);
  const std::string want = testing::slurp(path);
  const auto saved = [&] {
    save(path);
    return testing::slurp(path);
  };
  // Each save waits for the disk.
  const int failures = sweep(
      saved, [&](const std::string& got) { return got == want; }, 40);
  EXPECT_EQ(testing::count_files(dir.path()), 1u) << "something was left behind";
  return failures;
}

TEST_P(MemoryFaults, SavingAGraph) {
  const graph::Graph g = network(GetParam());
  EXPECT_GT(sweep_save([&](const auto& path) { io::save_octet(g, path); }), 40);
}

TEST_P(MemoryFaults, SavingModulesAndStates) {
  const auto model = nn::make<nn::Linear>(3, 4);
  EXPECT_GT(sweep_save([&](const auto& path) { save_model(path, *model); }), 40);
  std::map<std::string, Tensor> state{{"w", Tensor::arange(30).to(DType::float32)}};
  if (GetParam())
    state["w"] = quantize(state["w"], Quantizer::per_tensor(0.5, 3, DType::quint8), DType::quint8);
  EXPECT_GT(sweep_save([&](const auto& path) { save_state_dict(path, state); }), 30);
}

TEST_P(MemoryFaults, CompilingAndRunning) {
  const graph::Graph g = network(GetParam());
  const Tensor x = Tensor::randn({3, 3, 6, 6}, 2);
  const auto want = runtime::compile(g).run({x});
  const auto same = [&](const std::vector<Tensor>& got) { return equal(got[0], want[0]); };
  EXPECT_GT(sweep([&] { return runtime::compile(g).run({x}); }, same), 100);
  const runtime::Program program = runtime::compile(g);
  EXPECT_GT(sweep([&] { return program.run({x}); }, same), 0);
}

TEST_P(MemoryFaults, ReadingArrays) {
  testing::TempDir dir;
  write_npz(dir / "a.npz", {{"x", Tensor::arange(30)}, {"y", Tensor::ones({4})}}, GetParam());
  EXPECT_GT(sweep([&] { return read_npz(dir / "a.npz"); },
                  [](const std::map<std::string, Tensor>& got) { return got.size() == 2; }),
            10);
}

INSTANTIATE_TEST_SUITE_P(FloatAndCodes, MemoryFaults, ::testing::Bool());

}  // namespace
}  // namespace octet
