#pragma once
// What the commands share: models, data, timing and how results are shown.

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "cli/arguments.h"
#include "cli/json.h"
#include "octet/graph/graph.h"
#include "octet/graph/passes/input_shapes.h"
#include "octet/io/dataset.h"
#include "octet/io/onnx/export.h"
#include "octet/runtime/program.h"

namespace octet::cli {

// Reads .onnx (imported, activations fused, quantize/dequantize pairs merged into integer
// operators) or .octet, by the file's extension; with these sizes for its inputs.
graph::Graph load_model(const std::filesystem::path& path, const graph::InputShapes& shapes = {});

// Whether the name is not that of a network but may be one of weights: load_weights reads it.
bool is_weights_name(const std::filesystem::path& path);
// The tensors of a file of weights or a directory of them (load_state_dict), its notes on stderr.
std::map<std::string, Tensor> load_weights(const std::filesystem::path& path,
                                           const std::string& key);

// What compiling the model found that its user should know, one line each on stderr: warnings, and
// which steps the engine that was asked for has no kernel for.
void print_warnings(const runtime::Program& program);

// Writes .octet or .onnx (QDQ), by the extension; the opset, where it is above 13, is said with its
// reason.
void save_model(const graph::Graph& graph, const std::filesystem::path& path,
                const io::OnnxExportOptions& options = {});
// --target: a name that io::parse_onnx_target takes, or "".
void add_target(Command& command, std::string& target);

// The size of a file; 0 of what has none, as a device that was written to.
int64_t file_bytes(const std::filesystem::path& path);

// Asked before long work starts. Error if `path` cannot be written to (octet::check_writable), or,
// without `force`, if writing would destroy what was not meant: one of the command's own inputs
// (the same file, by whatever name), a file of another kind than is to be written, one that is
// write-protected, a device or a pipe.
// .onnx by its name or else octet's own; .npz; .html; .xml; .json; of octet calibrate
enum class OutputKind { model, arrays, page, xml, recipe, statistics };
void check_output(OutputKind kind, const std::filesystem::path& path,
                  const std::vector<std::filesystem::path>& inputs, bool force);
// --force.
void add_force(Command& command, bool& force);
// What --help says of an argument that is a network or weights.
std::string weights_help();
// --key.
void add_key(Command& command, std::string& key);

// -- options --------------------------------------------------------------------------------------

// A file to write that ends in .onnx or .octet.
Check output_model();

// --shape NAME=1x3x640x640, once for each input: sizes for what the model leaves open.
struct ShapeOptions {
  std::vector<std::string> texts;
  void add_to(Command& command);
  graph::InputShapes shapes() const;
};

// --threads, --engine.
struct RunOptions {
  int threads = 0;  // 0: OCTET_NUM_THREADS, or one for each CPU that may be used
  std::string engine;
  void add_to(Command& command);
  void apply() const;
};

// --scale, --mean, --std, --resize, --samples: how DATA becomes the model's input.
struct DataOptions {
  float scale = 1;
  std::string resize = "fit";
  std::vector<float> mean, std;
  int64_t samples = 0;  // 0: all
  void add_to(Command& command);
  Dataset open(const std::filesystem::path& path, const graph::Graph& graph) const;
  // How many samples of the dataset to use.
  int64_t count(const Dataset& dataset) const;
};

// A batch's tensors in the order of the graph's inputs.
std::vector<Tensor> ordered_inputs(const graph::Graph& graph, const Batch& batch);

// The batch size to use: what the model insists on, or `wanted`.
int64_t batch_size(const Dataset& dataset, int64_t wanted);

// The first `count` samples but for each `without_every`-th (0: all), or with `others` those alone,
// as batches of inputs in the graph's order, all in memory; `labels`, if it is given, gets those of
// each batch where the data has them.
std::vector<std::vector<Tensor>> sample_batches(const graph::Graph& graph, const Dataset& dataset,
                                                int64_t count, int64_t batch,
                                                int64_t without_every = 0, bool others = false,
                                                std::vector<Tensor>* labels = nullptr);

// Error naming the file, the sample and the classes, where one of the first `count` labels is none
// of those that the graph's first output tells apart. Nothing where there are no labels or that
// output is no (samples, classes).
void check_labels(const Dataset& dataset, const graph::Graph& graph, int64_t count);

struct Accuracy {
  int64_t correct = 0, samples = 0;
  double seconds = 0;
  // Counts a batch: rows of `output` (N, classes) whose largest value is at the label. Error if the
  // shape is another or a label is no class.
  void add(const Tensor& output, const Tensor& labels);
  double top1() const {
    return samples ? static_cast<double>(correct) / static_cast<double>(samples) : 0;
  }
};
// Top-1 over the first `count` samples. Error if the dataset has no labels.
Accuracy evaluate(const runtime::Program& program, const Dataset& dataset, int64_t count,
                  const std::string& what);

struct Latency {
  double median_ms = 0, min_ms = 0;
};
Latency latency_of(std::vector<double> ms /* at least one */);
// Runs the programs in turns of a few runs, A B A B ..., after a warm-up, until each has had
// `seconds` (and at least 5 runs; where a run takes longer than `seconds`, at least one).
std::vector<Latency> measure(const std::vector<const runtime::Program*>& programs,
                             const std::vector<std::vector<Tensor>>& inputs, double seconds);
// The sizes of a graph's inputs that are open besides the batch, which is dimension 0 and whatever
// else has its name: "images (N, 3, H, W)", one for each input.
std::vector<std::string> open_inputs(const graph::Graph& graph);
// Plausible inputs for a benchmark: the batch is `batch`, floats are uniform in -1..1 (seeded).
// Error, which names --shape, where other sizes are open.
std::vector<Tensor> random_inputs(const graph::Graph& graph, int64_t batch);

// Bytes of all constants.
int64_t weight_bytes(const graph::Graph& graph);
// Calls that run on codes (graph::calls_on_codes), and all calls.
struct NodeCount {
  int64_t quantized = 0, total = 0;
};
NodeCount count_nodes(const graph::Graph& graph);
// The widths of the codes of values between operators, or of weights: "8 bits", "4 and 8 bits".
// "8 bits" where there are none.
enum class CodesOf { values, weights };
std::string code_widths(const graph::Graph& graph, CodesOf of);

double peak_rss_mb();
// A line on standard error: an error, a warning, how far training is. What cannot be written is
// nobody's loss: unlike results, which go to standard output by fmt::print (an exception if that
// fails).
void say(const std::string& line);
void silence();                           // say() says nothing from now on: another rank does
void say_error(const std::string& line);  // the same line though silent
// "1 thread", "2 threads"; "64 threads (2 at once)" where there are fewer CPUs.
std::string threads_text();
// One line on stdout.
void print_json(const JsonValue& json);

}  // namespace octet::cli
