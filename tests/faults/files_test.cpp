// Every call of the system that a save makes fails once, in every way that it can: the file then
// holds what it held before or all of the new contents, and nothing else is left behind.
#include <gtest/gtest.h>

#include <functional>

#include "octet/base/error.h"
#include "octet/io/module_file.h"
#include "octet/io/npz.h"
#include "octet/io/octet_file.h"
#include "octet/io/onnx/export.h"
#include "octet/io/state_dict.h"
#include "octet/nn/nn.h"
#include "tests/faults/inject.h"
#include "tests/graph/random_net.h"
#include "tests/temp_dir.h"

namespace octet {
namespace {

using faults::Call;
using faults::Fault;
using testing::count_files;
using testing::slurp;
using testing::spill;
using testing::TempDir;

// Large enough for several writes (file.cpp gathers 64 KB).
const Shape kShape{300, 100};

struct Way {
  Call call;
  Fault fault;
  bool recovers;  // nothing is lost, and the save must succeed
};
constexpr Way kWays[] = {
    {Call::open, Fault::no_space, false},    {Call::write, Fault::short_count, true},
    {Call::write, Fault::interrupted, true}, {Call::write, Fault::no_space, false},
    {Call::write, Fault::io_error, false},   {Call::write, Fault::torn, false},
    {Call::sync, Fault::io_error, false},    {Call::sync, Fault::no_space, false},
    {Call::close, Fault::no_space, false},   {Call::rename, Fault::io_error, false}};

// Lets each call of `save` fail, `on`: and all of its kind after it. The number of faults.
int sweep(const std::function<void(const std::filesystem::path&)>& save) {
  TempDir dir;
  const std::filesystem::path path = dir / "file";
  const std::string old = "what was there before";
  spill(path, old);
  save(path);  // what is set up once
  faults::arm({});
  save(path);
  faults::disarm();
  const std::string want = slurp(path);
  EXPECT_GE(faults::count(Call::write), 1);
  EXPECT_GE(faults::count(Call::sync), 1);
  long calls[static_cast<size_t>(Call::count_)];
  for (const Way& w : kWays) calls[static_cast<size_t>(w.call)] = faults::count(w.call);
  int tried = 0;
  for (const Way& w : kWays)
    for (long n = 1; n <= calls[static_cast<size_t>(w.call)]; ++n)
      for (const bool on : {false, true}) {
        if (on && w.fault == Fault::interrupted) continue;  // for ever
        SCOPED_TRACE(::testing::Message() << "call " << static_cast<int>(w.call) << ", fault "
                                          << static_cast<int>(w.fault) << ", number " << n
                                          << (on ? " and all after it" : ""));
        spill(path, old);
        bool saved = true;
        faults::arm({w.call, w.fault, n, on});
        try {
          save(path);
          faults::disarm();
        } catch (const Error& e) {
          faults::disarm();
          saved = false;
          EXPECT_EQ(e.code(), ErrorCode::io) << e.what();
          EXPECT_NE(std::string(e.what()).find(path.string()), std::string::npos) << e.what();
        }
        ++tried;
        EXPECT_EQ(slurp(path) == (saved ? want : old), true) << "a torn file";
        EXPECT_EQ(count_files(dir.path()), 1u) << "something was left behind";
        EXPECT_TRUE(saved || !w.recovers);
      }
  return tried;
}

TEST(SaveFaults, Graphs) {
  graph::Graph g = testing::random_net(3, true);
  g.add_constant("large", Tensor::randn(kShape, 1));
  EXPECT_GT(sweep([&](const auto& path) { io::save_octet(g, path); }), 20);
}

TEST(SaveFaults, GraphsAsOnnx) {
  graph::Graph g = testing::random_net(3, true);
  const graph::ValueId x = g.inputs()[0],
                       large = g.add_constant("large", Tensor::randn({36, 800}, 1)),
                       flat = g.add_call("r", "reshape", {x},
                                         {{"shape", std::vector<int64_t>{-1, 36}}});
  std::vector<graph::ValueId> outputs = g.outputs();
  outputs.push_back(g.add_call("m", "matmul", {flat, large}));
  g.set_outputs(outputs);
  EXPECT_GT(sweep([&](const auto& path) { io::export_onnx(g, path); }), 15);
}

TEST(SaveFaults, StateDicts) {
  const std::map<std::string, Tensor> state{{"w", Tensor::randn(kShape, 1)},
                                            {"b", Tensor::ones({3})}};
  EXPECT_GT(sweep([&](const auto& path) { save_state_dict(path, state); }), 20);
}

TEST(SaveFaults, Modules) {
  const auto model = nn::make<nn::Linear>(300, 100);
  EXPECT_GT(sweep([&](const auto& path) { save_model(path, *model); }), 20);
}

TEST(SaveFaults, Arrays) {
  const Tensor x = Tensor::randn(kShape, 1);
  EXPECT_GT(sweep([&](const auto& path) { write_npy(path, x); }), 20);
  for (const bool compress : {false, true})
    EXPECT_GT(sweep([&](const auto& path) {
                write_npz(path, {{"x", x}, {"y", x}}, compress);
              }),
              20);
}

}  // namespace
}  // namespace octet
