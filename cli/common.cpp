#include "cli/common.h"

#include "cli/team.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <set>

#include "octet/base/cpu.h"
#include "octet/base/error.h"
#include "octet/base/file.h"
#include "octet/base/parallel.h"
#include "octet/base/progress.h"
#include "octet/engine/registry.h"
#include "octet/graph/passes/fuse_lookups.h"
#include "octet/io/load.h"
#include "octet/io/octet_file.h"
#include "octet/io/onnx/export.h"
#include "octet/io/onnx/import.h"
#include "octet/io/state_dict.h"

namespace octet::cli {
namespace {

constexpr int64_t kMaxSide = 1 << 15;  // of pictures, in pixels

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void check_model_name(const std::filesystem::path& path) {
  if (is_weights_name(path))
    fail(ErrorCode::invalid_argument,
         fmt::format("{}: unknown kind of model; expected a name ending in .onnx or .octet",
                     path.string()));
}

}  // namespace

// -- models ---------------------------------------------------------------------------------------

namespace {

void say_notes(const std::vector<std::string>& notes) {
  for (const std::string& note : notes) say(fmt::format("octet: note: {}", note));
}

}  // namespace

graph::Graph load_model(const std::filesystem::path& path, const graph::InputShapes& shapes) {
  std::vector<std::string> notes;
  graph::Graph graph = io::load_graph(path, shapes, &notes);
  say_notes(notes);
  return graph;
}

bool is_weights_name(const std::filesystem::path& path) {
  return path.extension() != ".octet" && path.extension() != ".onnx";
}

std::map<std::string, Tensor> load_weights(const std::filesystem::path& path,
                                           const std::string& key) {
  std::vector<std::string> notes;
  auto state = load_state_dict(path, &notes, key);
  say_notes(notes);
  return state;
}

void print_warnings(const runtime::Program& program) {
  for (const std::string& w : program.warnings()) say(fmt::format("octet: warning: {}", w));
  if (engine() == engines().front()->name()) return;  // of the default engine it is no news
  for (const std::string& f : program.fallbacks()) say(fmt::format("octet: note: {}", f));
}

void save_model(const graph::Graph& graph, const std::filesystem::path& path,
                const io::OnnxExportOptions& options) {
  check_model_name(path);
  if (path.extension() == ".octet") return io::save_octet(graph, path);
  const io::OnnxOpset opset = io::export_onnx(graph, path, options);
  if (!opset.reasons.empty())
    say(fmt::format("octet: note: {} is ONNX opset {}, for {}", path.string(), opset.version,
                    fmt::join(opset.reasons, ", ")));
}

void add_target(Command& command, std::string& target) {
  command
      .add_option("--target", target, "what an .onnx file is for: onnxruntime (default), tensorrt")
      .type_name("NAME")
      .check(accepted_by([](const std::string& name) { io::parse_onnx_target(name); }));
}

int64_t file_bytes(const std::filesystem::path& path) {
  std::error_code none;
  auto bytes = std::filesystem::file_size(path, none);
  return none ? 0 : static_cast<int64_t>(bytes);
}

// -- outputs --------------------------------------------------------------------------------------

namespace {

// Whether the file holds what the fields of an ONNX ModelProto may be, from end to end, a graph
// among them.
bool is_onnx(std::string_view bytes) {
  size_t at = 0;
  auto varint = [&](uint64_t& value) {
    value = 0;
    for (int shift = 0; shift < 64 && at < bytes.size(); shift += 7) {
      const auto byte = static_cast<unsigned char>(bytes[at++]);
      value |= static_cast<uint64_t>(byte & 127) << shift;
      if (byte < 128) return true;
    }
    return false;
  };
  bool graph = false;
  while (at < bytes.size()) {
    uint64_t key = 0, value = 0;
    if (!varint(key) || !varint(value)) return false;
    const uint64_t field = key >> 3, wire = key & 7;
    const bool number = field == 1 || field == 5;
    const bool message =
        (field >= 2 && field <= 8 && field != 5) || field == 14 || field == 20 || field == 25;
    if (wire != (number ? 0 : 2) || !(number || message)) return false;
    if (number) continue;
    if (value > bytes.size() - at) return false;
    at += value;
    graph |= field == 7;
  }
  return graph;
}

// A safetensors file whose header says that octet wrote it.
bool is_octet(std::string_view bytes) {
  if (bytes.size() < 9 || bytes[8] != '{') return false;
  uint64_t header = 0;
  for (int i = 7; i >= 0; --i)
    header = header << 8 | static_cast<unsigned char>(bytes[static_cast<size_t>(i)]);
  return header <= bytes.size() - 8 &&
         bytes.substr(8, header).find("\"octet.") != std::string_view::npos;
}

// A zip archive whose first member is an array; or an empty one.
bool is_npz(std::string_view bytes) {
  if (bytes.starts_with("PK\5\6")) return true;
  if (!bytes.starts_with("PK\3\4") || bytes.size() < 30) return false;
  const size_t name = static_cast<unsigned char>(bytes[26]) |
                      static_cast<size_t>(static_cast<unsigned char>(bytes[27])) << 8;
  return bytes.size() - 30 >= name && bytes.substr(30, name).ends_with(".npy");
}

}  // namespace

void check_output(OutputKind kind, const std::filesystem::path& path,
                  const std::vector<std::filesystem::path>& inputs, bool force) {
  octet::check_writable(path);
  std::error_code none;
  if (force || !std::filesystem::exists(path, none)) return;
  auto refuse = [&](const std::string& what) {
    fail(ErrorCode::invalid_argument,
         fmt::format("{}: {}; give another name, or --force to replace it all the same",
                     path.string(), what));
  };
  for (const auto& input : inputs)
    if (!input.empty() && std::filesystem::equivalent(path, input, none))
      refuse(input == path ? "is also the input"
                           : fmt::format("is the same file as the input {}", input.string()));
  if (!std::filesystem::is_regular_file(path, none)) refuse("is a device or a pipe, not a file");
  if (::faccessat(AT_FDCWD, path.c_str(), W_OK, AT_EACCESS) != 0) refuse("is write-protected");
  if (std::filesystem::file_size(path, none) == 0) return;
  const auto file = MappedFile::open(path);
  const std::string_view bytes(reinterpret_cast<const char*>(file->data()), file->size());
  const bool onnx = path.extension() == ".onnx";
  switch (kind) {
    case OutputKind::model:
      if (!(onnx ? is_onnx(bytes) : is_octet(bytes)))
        refuse(fmt::format("exists and is no {}", onnx ? "ONNX model" : "file of octet's"));
      break;
    case OutputKind::arrays:
      if (!is_npz(bytes)) refuse("exists and is no .npz of arrays");
      break;
    case OutputKind::page:
      if (!bytes.starts_with("<!DOCTYPE html")) refuse("exists and is no page of HTML");
      break;
    case OutputKind::xml:
      if (!bytes.starts_with("<?xml")) refuse("exists and is no XML");
      break;
    case OutputKind::recipe:
      if (bytes.substr(0, 64).find("octet.recipe") == std::string_view::npos)
        refuse("exists and is no recipe");
      break;
    case OutputKind::statistics:
      if (!is_octet(bytes) || bytes.find("\"octet.statistics\"") == std::string_view::npos)
        refuse("exists and holds no statistics of a calibration");
      break;
  }
}

void add_force(Command& command, bool& force) {
  command.add_flag("--force", force,
                   "write even over an input, a device or a file of another kind");
}

std::string weights_help() {
  return ".onnx or .octet; or weights: .pt, .pth or .bin of PyTorch,\n.safetensors, an index of "
         "shards or a directory of them";
}

void add_key(Command& command, std::string& key) {
  command.add_option("--key", key, "the state dict to read, of a checkpoint that holds several")
      .type_name("NAME");
}

// -- options --------------------------------------------------------------------------------------

Check output_model() {
  return accepted_by([](const std::string& text) { check_model_name(text); });
}

namespace {
// NAME=1x3x640x640, or 1x3x640x640 for the only input; "" and its sizes then. What is no number
// leaves its dimension open.
std::pair<std::string, Shape> parse_shape(const std::string& text) {
  const size_t equals = text.rfind('=');
  const std::string name = equals == std::string::npos ? "" : text.substr(0, equals);
  const std::string sizes = equals == std::string::npos ? text : text.substr(equals + 1);
  const auto expect = [&](bool holds) {
    if (!holds)
      fail(ErrorCode::invalid_argument,
           fmt::format("expected NAME=1x3x640x640 or 1x3x640x640, sizes of 1 to {}, where a ? or a "
                       "name leaves a size open; got '{}'",
                       INT32_MAX, text));
  };
  expect(equals != 0);
  Shape shape;
  for (size_t at = 0; at <= sizes.size();) {
    const size_t end = std::min(sizes.find('x', at), sizes.size());
    const std::string size = sizes.substr(at, end - at);
    const bool name_or_mark =
        size == "?" ||
        (!size.empty() && (std::isalpha(static_cast<unsigned char>(size[0])) || size[0] == '_'));
    int64_t n = graph::kOpenSize;
    if (!name_or_mark) {
      auto [last, error] = std::from_chars(size.data(), size.data() + size.size(), n);
      expect(error == std::errc() && last == size.data() + size.size() && n >= 1 && n <= INT32_MAX);
    }
    shape.push_back(n);
    at = end + 1;
  }
  return {name, shape};
}
}  // namespace

void ShapeOptions::add_to(Command& command) {
  command
      .add_option("--shape", texts,
                  "sizes of an input, for what the model leaves open; ? leaves it so")
      .type_name("[NAME=]1x3x640x640")
      .one_value()
      .check(accepted_by([](const std::string& text) { parse_shape(text); }));
}

graph::InputShapes ShapeOptions::shapes() const {
  graph::InputShapes shapes;
  for (const std::string& text : texts) {
    auto [name, shape] = parse_shape(text);
    if (!shapes.emplace(name, std::move(shape)).second)
      wrong_usage(name.empty() ? "--shape without a name is given twice"
                               : fmt::format("--shape is given twice for input '{}'", name));
  }
  return shapes;
}

void RunOptions::add_to(Command& command) {
  command
      .add_option("--threads", threads,
                  "default: OCTET_NUM_THREADS, or one for each CPU that may be used")
      .type_name("N")
      .check(whole_number(1, 1024));
  std::string who = fmt::format("what computes; default {}", octet::engine());
  for (const Engine* e : engines()) who += fmt::format("\n{}: {}", e->title(), e->summary());
  command.add_option("--engine", engine, who)
      .type_name("NAME")
      .check(accepted_by([](const std::string& name) { set_engine(name); }));
}

void RunOptions::apply() const {
  set_num_threads(threads ? threads : num_threads());
  if (!engine.empty()) set_engine(engine);
  current_isa();  // an OCTET_ISA that cannot be honoured is said now
}

namespace {
// fit, none, or HxW: 480x640.
Resize parse_resize(const std::string& text) {
  if (text == "fit") return {};
  if (text == "none") return {Resize::To::none};
  Resize resize{Resize::To::size};
  const char* end = text.data() + text.size();
  const auto height = std::from_chars(text.data(), end, resize.height);
  const bool by = height.ec == std::errc() && height.ptr != end && *height.ptr == 'x';
  const auto width = std::from_chars(by ? height.ptr + 1 : end, end, resize.width);
  if (!by || width.ec != std::errc() || width.ptr != end || resize.height < 1 ||
      resize.height > kMaxSide || resize.width < 1 || resize.width > kMaxSide)
    fail(ErrorCode::invalid_argument,
         fmt::format("expected fit, none, or HEIGHTxWIDTH of 1 to {}, got '{}'", kMaxSide, text));
  return resize;
}
}  // namespace

void DataOptions::add_to(Command& command) {
  command.add_option("--samples", samples, "use the first N samples only")
      .type_name("N")
      .check(whole_number(1, INT64_MAX));
  command
      .add_option("--resize", resize,
                  "of pictures: fit (default: the input's size), none (their own), HxW")
      .type_name("fit|none|HxW")
      .check(accepted_by([](const std::string& text) { parse_resize(text); }));
  command.add_option("--scale", scale, "inputs become (x * scale - mean) / std").type_name("X");
  for (auto [name, list] : {std::pair{"--mean", &mean}, std::pair{"--std", &std}})
    command.add_option(name, *list, "one number, or one per channel: 124,116,104")
        .type_name("X[,X...]")
        .delimiter(',')
        .one_value();
}

Dataset DataOptions::open(const std::filesystem::path& path, const graph::Graph& graph) const {
  std::vector<InputSpec> inputs;
  for (auto id : graph.inputs()) inputs.push_back({graph.value(id).name, graph.type(id)});
  return Dataset::open(path, inputs, Preprocess{scale, mean, std}, parse_resize(resize));
}

int64_t DataOptions::count(const Dataset& dataset) const {
  return samples ? std::min<int64_t>(samples, dataset.size()) : dataset.size();
}

// -- running --------------------------------------------------------------------------------------

std::vector<Tensor> ordered_inputs(const graph::Graph& graph, const Batch& batch) {
  std::vector<Tensor> inputs;
  for (auto id : graph.inputs()) inputs.push_back(batch.inputs.at(graph.value(id).name));
  return inputs;
}

int64_t batch_size(const Dataset& dataset, int64_t wanted) {
  return dataset.fixed_batch() ? dataset.fixed_batch() : wanted;
}

std::vector<std::vector<Tensor>> sample_batches(const graph::Graph& graph, const Dataset& dataset,
                                                int64_t count, int64_t batch, int64_t without_every,
                                                bool others, std::vector<Tensor>* labels) {
  std::vector<int64_t> wanted;
  for (int64_t i = 0; i < count; ++i)
    if ((without_every > 0 && i % without_every == without_every - 1) == others)
      wanted.push_back(i);
  const size_t step = static_cast<size_t>(batch_size(dataset, batch));
  std::vector<std::vector<Tensor>> batches;
  for (size_t i = 0; i < wanted.size(); i += step) {
    const Batch part = dataset.gather(
        {wanted.begin() + static_cast<std::ptrdiff_t>(i),
         wanted.begin() + static_cast<std::ptrdiff_t>(std::min(i + step, wanted.size()))});
    batches.push_back(ordered_inputs(graph, part));
    if (labels && part.labels.defined()) labels->push_back(part.labels);
  }
  return batches;
}

void check_labels(const Dataset& dataset, const graph::Graph& graph, int64_t count) {
  const TensorType& type = graph.type(graph.outputs().at(0));
  if (type.dim() == 2 && type.dims[1].known()) dataset.check_labels(type.dims[1].size(), count);
}

void Accuracy::add(const Tensor& output, const Tensor& labels) {
  Tensor scores = output.dequantize();
  if (scores.dim() != 2 || scores.size(0) != labels.size(0))
    fail(ErrorCode::invalid_argument,
         fmt::format(
             "top-1 needs a first output of shape (samples, classes); it is {} for {} samples",
             to_string(scores.shape()), labels.size(0)));
  scores = scores.contiguous();
  int64_t classes = scores.size(1);
  auto wanted = labels.to_vector<int64_t>();
  for (int64_t i = 0; i < scores.size(0); ++i) {
    if (wanted[i] < 0 || wanted[i] >= classes)
      fail(ErrorCode::invalid_argument,
           fmt::format("label {}: the model tells {} classes apart, so that labels are 0 to {}",
                       wanted[i], classes, classes - 1));
    const float* row = scores.data<float>() + i * classes;
    correct += std::max_element(row, row + classes) - row == wanted[i];
  }
  samples += scores.size(0);
}

Accuracy evaluate(const runtime::Program& program, const Dataset& dataset, int64_t count,
                  const std::string& what) {
  if (!dataset.has_labels())
    fail(ErrorCode::invalid_argument,
         fmt::format("{}, but no labels to compare with; give an .npz with an int64 array "
                     "`labels` beside `images`",
                     dataset.description()));
  check_labels(dataset, program.graph(), count);
  Accuracy result;
  Progress bar(what, count);
  const int64_t step = batch_size(dataset, 32);
  team().restart_counter();
  for (int64_t i = team().next() * step; i < count; i = team().next() * step) {
    Batch batch = dataset.get(i, std::min(step, count - i));
    double start = now();
    auto outputs = program.run(ordered_inputs(program.graph(), batch));
    result.seconds += now() - start;
    result.add(outputs.at(0), batch.labels);
    bar.advance(batch.size);
  }
  int64_t counts[] = {result.correct, result.samples};
  team().sum(counts, std::size(counts));
  result.correct = counts[0], result.samples = counts[1];
  return result;
}

Latency latency_of(std::vector<double> ms) {
  std::sort(ms.begin(), ms.end());
  return {ms[ms.size() / 2], ms[0]};
}

std::vector<Latency> measure(const std::vector<const runtime::Program*>& programs,
                             const std::vector<std::vector<Tensor>>& inputs, double seconds) {
  constexpr int kWarmUps = 3, kRunsPerTurn = 5;
  const auto timed_run = [&](size_t i) {
    const double start = now();
    programs[i]->run(inputs[i]);
    return now() - start;
  };
  double longest = 0;
  for (size_t i = 0; i < programs.size(); ++i) {
    double last = 0, all = 0;
    for (int warm = 0; warm < kWarmUps && all <= seconds; ++warm) all += last = timed_run(i);
    longest = std::max(longest, last);
  }
  const bool slow = longest > seconds;
  const size_t runs_per_turn = slow ? 1 : kRunsPerTurn;
  std::vector<std::vector<double>> times(programs.size());
  double end = now() + seconds * static_cast<double>(programs.size());
  while (now() < end || times[0].size() < runs_per_turn) {
    for (size_t i = 0; i < programs.size(); ++i) {
      // Each turn is a few runs after one that is not counted: the threads of the program before
      // (oneDNN's and ours are not the same) are asleep by then.
      if (!slow) programs[i]->run(inputs[i]);
      for (size_t run = 0; run < runs_per_turn; ++run) times[i].push_back(timed_run(i) * 1e3);
      rest_threads();
    }
    if (times[0].size() >= 10000) break;
  }
  std::vector<Latency> results;
  for (auto& t : times) results.push_back(latency_of(std::move(t)));
  return results;
}

std::vector<std::string> open_inputs(const graph::Graph& graph) {
  std::set<std::string> batch;
  for (auto id : graph.inputs())
    if (const TensorType& type = graph.type(id); type.dim() > 0 && !type.dims[0].known())
      batch.insert(type.dims[0].name());
  std::vector<std::string> open;
  for (auto id : graph.inputs()) {
    const auto& dims = graph.type(id).dims;
    if (std::any_of(dims.begin(), dims.end(),
                    [&](const Dim& d) { return !d.known() && !batch.count(d.name()); })) {
      std::vector<std::string> sizes;
      for (const Dim& d : dims) sizes.push_back(to_string(d));
      open.push_back(fmt::format("{} ({})", graph.value(id).name, fmt::join(sizes, ", ")));
    }
  }
  return open;
}

std::vector<Tensor> random_inputs(const graph::Graph& graph, int64_t batch) {
  if (const auto open = open_inputs(graph); !open.empty())
    fail(ErrorCode::invalid_argument,
         fmt::format("{} leaves sizes open in {} {}; random inputs need them: give each with "
                     "--shape NAME=1x3x640x640",
                     graph.name, open.size() == 1 ? "input" : "inputs", fmt::join(open, ", ")));
  std::vector<Tensor> inputs;
  for (auto id : graph.inputs()) {
    const TensorType& type = graph.type(id);
    Shape shape;
    for (const Dim& d : type.dims) shape.push_back(d.known() ? d.size() : batch);
    Tensor x = Tensor::rand(shape, 1 + inputs.size(), -1, 1);
    if (type.is_quantized())
      x = quantize(x, type.quantizer, type.dtype);
    else if (type.dtype != DType::float32)
      x = x.to(type.dtype);
    inputs.push_back(x);
  }
  return inputs;
}

// -- saying what there is -------------------------------------------------------------------------

int64_t weight_bytes(const graph::Graph& graph) {
  int64_t bytes = 0;
  for (const auto& node : graph.nodes())
    if (node.kind == graph::NodeKind::constant) bytes += node.value.nbytes();
  return bytes;
}

std::string code_widths(const graph::Graph& graph, CodesOf of) {
  std::set<int> widths;
  for (size_t v = 0; v < graph.values().size(); ++v) {
    const auto id = static_cast<graph::ValueId>(v);
    const DType dtype = graph.type(id).dtype;
    if (!is_quantized(dtype) || dtype == DType::qint32 ||
        graph.is_constant(id) != (of == CodesOf::weights))
      continue;
    widths.insert(is_packed(dtype) ? 4 : is_16_bit(dtype) ? 16 : 8);
  }
  if (widths.empty()) widths.insert(8);
  return fmt::format("{} bits", fmt::join(widths, " and "));
}

NodeCount count_nodes(const graph::Graph& graph) {
  NodeCount count;
  const std::vector<bool> quantized = graph::calls_on_codes(graph);
  for (size_t n = 0; n < quantized.size(); ++n) {
    const auto& node = graph.nodes()[n];
    if (node.kind != graph::NodeKind::call || node.op == "quantize" || node.op == "dequantize")
      continue;
    ++count.total;
    count.quantized += quantized[n];
  }
  return count;
}

double peak_rss_mb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024 / 1e6;
}

std::string threads_text() {
  const int threads = num_threads(), running = running_threads();
  return fmt::format("{} thread{}{}", threads, threads == 1 ? "" : "s",
                     running < threads ? fmt::format(" ({} at once)", running) : "");
}

namespace {
bool g_silent = false;
}
void silence() { g_silent = true; }

void say(const std::string& line) {
  if (!g_silent) say_error(line);
}

void say_error(const std::string& line) {
  const std::string text = line + "\n";
  for (size_t at = 0; at < text.size();) {
    const ssize_t n = ::write(STDERR_FILENO, text.data() + at, text.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    at += static_cast<size_t>(n);
  }
}

void print_json(const JsonValue& json) { fmt::print("{}\n", json.dump()); }

}  // namespace octet::cli
