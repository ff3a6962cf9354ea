// Two ways to the same result, on networks that are drawn from the input: optimised against
// unoptimised, native against reference, before against after a file.
#include <cmath>
#include <optional>

#include "fuzz/fuzz.h"
#include "octet/base/cpu.h"
#include "octet/base/error.h"
#include "octet/engine/engine.h"
#include "octet/graph/passes/fuse.h"
#include "octet/graph/passes/merge_qdq.h"
#include "octet/graph/passes/multiply_codes.h"
#include "octet/io/octet_file.h"
#include "octet/io/onnx/export.h"
#include "octet/io/onnx/import.h"
#include "octet/quant/workflow/fx.h"
#include "octet/runtime/program.h"
#include "tests/graph/random_net.h"

namespace octet::fuzz {
namespace {

using graph::Graph;
using testing::evaluate;

constexpr size_t kFreeRun = size_t{1} << 26;

// What the first bytes choose, and the network of the others.
struct Case {
  Graph network;
  Tensor x;
  std::optional<Graph> quantized;  // none where there is nothing to quantize
};

Case make_case(const uint8_t* data, size_t size) {
  Choices choose(data, size);
  static const char* const kQConfigs[] = {"native", "fbgemm", "qnnpack"};
  const char* qconfig = kQConfigs[choose.integer(0, 2)];
  const int64_t batch = choose.integer(1, 5);
  const uint64_t seed = choose.next();
  const double spread = std::pow(10.0, choose.integer(-3, 3));
  Case c;
  c.network = testing::random_net_of(choose, true, static_cast<int>(choose.integer(1, 12)));
  c.x = Tensor::rand({batch, 3, 6, 6}, seed, -spread, spread);
  try {
    auto prepared = quant::prepare_fx(c.network, quant::get_default_qconfig(qconfig));
    prepared->forward({Tensor::rand({4, 3, 6, 6}, seed + 1, -1, 1)});
    c.quantized = quant::convert_fx(prepared)->graph();
  } catch (const Error& e) {
    if (std::string(e.what()).find("nothing in") == std::string::npos) throw;
  }
  return c;
}

// Float operators may differ in the last bit from engine to engine.
bool only_codes(const Graph& g) {
  for (const graph::Node& node : g.nodes())
    if (node.kind == graph::NodeKind::call && !node.note.empty()) return false;
  return true;
}

void same(const std::vector<Tensor>& got, const std::vector<Tensor>& want, bool bits,
          const std::string& what, const Graph& g) {
  if (got.size() != want.size()) finding(what + ": another number of results");
  for (size_t i = 0; i < got.size(); ++i) {
    const bool ok = bits ? equal(got[i], want[i]) : allclose(got[i], want[i], 1e-3, 1e-4);
    if (!ok)
      finding(what + ": result " + std::to_string(i) + " differs, of\n" +
              graph::print(g, {.full = true}));
  }
}

// What compile() makes of a graph against its operators, called one after the other.
void run_compile(const uint8_t* data, size_t size) {
  const Case c = make_case(data, size);
  same(runtime::compile(c.network).run({c.x}), evaluate(c.network, {c.x}), false, "compile",
       c.network);
  if (c.quantized && only_codes(*c.quantized))
    same(runtime::compile(*c.quantized).run({c.x}), evaluate(*c.quantized, {c.x}), true,
         "compile of codes", *c.quantized);
}

// Every instruction set of the native engine against the reference engine.
void run_engine(const uint8_t* data, size_t size) {
  const Case c = make_case(data, size);
  if (!c.quantized || !only_codes(*c.quantized)) return;
  const auto want = runtime::compile(*c.quantized, {.engine = "reference"}).run({c.x});
  for (const Isa isa : supported_isas()) {
    set_isa(isa);
    same(runtime::compile(*c.quantized, {.engine = "native"}).run({c.x}), want, true,
         to_string(isa), *c.quantized);
  }
}

// .octet and ONNX there and back.
void run_files(const uint8_t* data, size_t size) {
  const Case c = make_case(data, size);
  for (const Graph* g : {&c.network, c.quantized ? &*c.quantized : nullptr}) {
    if (!g) continue;
    const auto path = work_directory() / "there.octet";
    io::save_octet(*g, path);
    const Graph back = io::load_octet(path);
    if (graph::print(back, {.full = true}) != graph::print(*g, {.full = true}))
      finding(".octet changed\n" + graph::print(*g, {.full = true}));
    same(evaluate(back, {c.x}), evaluate(*g, {c.x}), true, ".octet", *g);
    const auto loaded = [](const Graph& graph) {
      return graph::multiply_codes(graph::merge_qdq(
          graph::fuse_activations(io::import_onnx_bytes(io::to_onnx_bytes(graph)))));
    };
    const Graph once = loaded(*g), twice = loaded(once);
    const bool bits = g != &c.network && only_codes(*g);
    same(evaluate(once, {c.x}), evaluate(*g, {c.x}), bits, "ONNX", *g);
    same(evaluate(twice, {c.x}), evaluate(once, {c.x}), bits, "ONNX again", once);
  }
}

Seeds seeds_networks() {
  Seeds seeds;
  Random random(1);
  for (int i = 0; i < 12; ++i) {
    std::string s;
    for (int64_t n = random.integer(20, 160); n > 0; --n) s += static_cast<char>(random.next());
    seeds.push_back(s);
  }
  return seeds;
}
const RegisteredTarget g_compile({"diff_compile", run_compile, seeds_networks, kFreeRun}),
    g_engine({"diff_engine", run_engine, seeds_networks, kFreeRun}),
    g_files({"diff_files", run_files, seeds_networks, kFreeRun});

}  // namespace
}  // namespace octet::fuzz
