// The parsers of text: graphs, every JSON, the command line, names.
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>

#include "cli/arguments.h"
#include "cli/config.h"
#include "fuzz/fuzz.h"
#include "octet/base/error.h"
#include "octet/base/json_impl.h"
#include "octet/base/text.h"
#include "octet/graph/graph.h"
#include "octet/io/state_dict.h"
#include "octet/quant/backend/backend_config.h"
#include "octet/quant/backend/qconfig_mapping.h"
#include "octet/quant/tune/recipe.h"
#include "tests/graph/random_net.h"

namespace octet::fuzz {
namespace {

std::string text_of(const uint8_t* data, size_t size) {
  return std::string(reinterpret_cast<const char*>(data), size);
}

// -- graph text -----------------------------------------------------------------------------------

// Constants that a text names without their values are zeros, up to 1 GB of them.
constexpr size_t kFreeConstants = size_t{1} << 30;

void run_graph(const uint8_t* data, size_t size) {
  const graph::Graph g = graph::parse(text_of(data, size));
  const std::string printed = graph::print(g, {.full = true});
  if (graph::print(graph::parse(printed), {.full = true}) != printed)
    finding("print and parse are not inverses");
}
Seeds seeds_graph() {
  Seeds seeds{
      "graph small {\n%x: Float(N, 2) = input\n%q: QUInt8(N, 2) scale=0.5 zero_point=3 = "
      "quantize(%x)  @ s  # n\n%w: QInt8(3, 2) axis=0 scale=[0.5, 0.25, 1] zero_point=0 = "
      "constant\n%b: Float(3) = constant [1, 2, 3]\n%y: QUInt8(N, 3) scale=0.25 zero_point=1 = "
      "linear(%q, %w, %b, activation=\"relu\")\nreturn (%y)\n}\n"};
  for (uint64_t seed : {2, 4, 7})
    seeds.push_back(graph::print(testing::random_net(seed, true, 5), {.full = true}));
  return seeds;
}
const RegisteredTarget g_graph({"graph_text", run_graph, seeds_graph, kFreeConstants});

// -- JSON -----------------------------------------------------------------------------------------

// nlohmann's values: what 4 M of them take.
constexpr size_t kFreeJson = size_t{64} << 20;

// The first byte chooses the reader.
void run_json(const uint8_t* data, size_t size) {
  if (size == 0) return;
  const std::string text = text_of(data + 1, size - 1);
  const auto file = [&](const std::string& name) { return input_file(data + 1, size - 1, name); };
  switch (data[0] % 6) {
    case 0:
      parse_json(text, "text");
      return;
    case 1: {
      const auto mapping = quant::QConfigMapping::from_json(text);
      if (!(quant::QConfigMapping::from_json(mapping.to_json()) == mapping))
        finding("a QConfigMapping is another after to_json and from_json");
      return;
    }
    case 2: {
      const auto backend = quant::BackendConfig::from_json(text);
      if (!(quant::BackendConfig::from_json(backend.to_json()) == backend))
        finding("a BackendConfig is another after to_json and from_json");
      return;
    }
    case 3: {
      const auto recipe = quant::Recipe::from_json(text);
      if (!(quant::Recipe::from_json(recipe.to_json()) == recipe))
        finding("a Recipe is another after to_json and from_json");
      return;
    }
    case 4:
      cli::read_config(file("config.json"));
      return;
    default:
      load_state_dict(file("model.safetensors.index.json"));
  }
}
Seeds seeds_json() {
  quant::QConfigMapping mapping(quant::get_default_qconfig());
  quant::BackendConfig small("small");
  {
    const quant::BackendConfig native = quant::get_native_backend_config();
    int n = 0;
    for (const auto* config : native.by_length())
      if (n++ < 3) small.set_backend_pattern_config(*config);
  }
  quant::Recipe recipe;
  recipe.mapping = mapping;
  recipe.skip = {"conv*"};
  return {"\0{\"a\": [1, 2.5e3, null, true, \"\\u00e9\"]}",
          "\1" + mapping.to_json(),
          "\1{\"\": \"native\", \"object_type\": [[\"octet::nn::Conv2d\", \"fbgemm\"], [\"add\", "
          "null]], \"module_name_regex\": [[\"layer.*\", \"native\"]]}",
          "\2" + small.to_json(),
          "\3" + recipe.to_json(),
          "\4{\"qconfig\": \"native\", \"skip\": [\"a\", \"re:b.*\"], \"strict\": true}",
          "\5{\"metadata\": {\"total_size\": 8}, \"weight_map\": {\"w\": \"a.safetensors\"}}"};
}
const RegisteredTarget g_json({"json", run_json, seeds_json, kFreeJson});

// -- names ----------------------------------------------------------------------------------------

void run_names(const uint8_t* data, size_t size) {
  const std::string text = text_of(data, size);
  const size_t cut = text.find('\n');
  const std::string pattern = text.substr(0, cut),
                    name = cut == text.npos ? "" : text.substr(cut + 1);
  NamePattern(pattern).matches(name);
  nearest_names(pattern, {name, "conv1", "layer1.0"});
  shorten(name, 5 + pattern.size() % 40);
}
Seeds seeds_names() {
  return {"re:^layer[0-9]+\\.conv$\nlayer1.conv", "la*[a-c]?\nlayer", "\xc3\xa9\n\xc3"};
}
const RegisteredTarget g_names({"names", run_names, seeds_names, size_t{32} << 20});

// -- the command line -----------------------------------------------------------------------------

// Another current directory, and nothing on standard output, until the end of the scope.
class ElsewhereAndSilent {
 public:
  explicit ElsewhereAndSilent(const std::filesystem::path& directory)
      : before_(std::filesystem::current_path()) {
    std::filesystem::current_path(directory);
    std::fflush(stdout);
    stdout_ = ::dup(STDOUT_FILENO);
    const int nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
    ::dup2(nowhere, STDOUT_FILENO);
    ::close(nowhere);
  }
  ~ElsewhereAndSilent() {
    std::fflush(stdout);
    ::dup2(stdout_, STDOUT_FILENO);
    ::close(stdout_);
    std::filesystem::current_path(before_);
  }
  ElsewhereAndSilent(const ElsewhereAndSilent&) = delete;

 private:
  std::filesystem::path before_;
  int stdout_;
};

// Arguments are separated by newlines; in the empty directory where they are read no model is
// there, so nothing long begins. A command that a user names (--metric-command) is never run.
void run_arguments(const uint8_t* data, size_t size) {
  std::string text = text_of(data, size);
  for (char& c : text)
    if (c == '/' || c == '\0') c = '_';
  if (text.find("metric") != text.npos) return;
  std::vector<std::string> arguments{"octet"};
  for (size_t at = 0; at <= text.size() && arguments.size() < 64;) {
    const size_t end = std::min(text.find('\n', at), text.size());
    arguments.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  std::vector<char*> argv;
  for (std::string& a : arguments) argv.push_back(a.data());
  argv.push_back(nullptr);
  const ElsewhereAndSilent elsewhere(work_directory());
  cli::CommandLine program("octet", "summary", "version");
  cli::RegisteredCommand::add_all(program);
  try {
    program.run(static_cast<int>(arguments.size()), argv.data());
  } catch (const cli::WrongUsage&) {
  }
}
Seeds seeds_arguments() {
  return {
      "quantize\nm.onnx\n--calibrate\nx.npz\n-o\nq.octet\n--samples\n8\n--"
      "observer\nHistogramObserver",
      "quantize\n--help",
      "--version",
      "run\nm.octet\n--input\nx.npz\n-o\ny.npz\n--threads\n2",
      "compare\nFLOAT\nQUANT\n--data\nx.npz\n--json",
      "bench\nm.octet\n--batch\n4\n--seconds\n1\n--engine\nnative",
      "export\nm.octet\n--target\ntensorrt\n-o\ny.onnx",
      "inspect\nm.onnx\n--shape\nx=1,3,8,8\n--full",
      "tune\nm.onnx\n--data\nx.npz\n--max-drop\n0.5\n--minutes\n1\n--state\ns",
      "qat\nm.onnx\n--data\nx.npz\n--epochs\n1\n--lr\n0.1\n--optimizer\nsgd",
      "eval\nm.onnx\n--data\nx.npz\n--mean\n1,2,3\n--std\n1",
      "reference\nman"};
}
const RegisteredTarget g_arguments({"arguments", run_arguments, seeds_arguments, size_t{32} << 20});

}  // namespace
}  // namespace octet::fuzz
