#pragma once
// What the commands share: models, data, timing and how results are shown.

#include <CLI/CLI.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "octet/graph/graph.h"
#include "octet/io/dataset.h"
#include "octet/runtime/program.h"

namespace octet::cli {

// Reads .onnx (imported, activations fused, quantize/dequantize pairs merged into integer operators) or .octet, by the
// file's extension.
graph::Graph load_model(const std::filesystem::path& path);

// Writes .octet or .onnx (QDQ), by the extension; any other is an error that lists these.
void check_model_path(const std::filesystem::path& path);
void save_model(const graph::Graph& graph, const std::filesystem::path& path);

// --threads, --engine.
struct RunOptions {
  int threads = 0;
  std::string engine;
  void add_to(CLI::App& app);
  void apply() const;
};

// --scale, --mean, --std, --samples: how DATA becomes the model's input.
struct DataOptions {
  float scale = 1;
  std::vector<float> mean, std;
  int64_t samples = 0;  // 0: all
  void add_to(CLI::App& app);
  Dataset open(const std::filesystem::path& path, const graph::Graph& graph) const;
  // How many samples of the dataset to use.
  int64_t count(const Dataset& dataset) const;
};

// A batch's tensors in the order of the graph's inputs.
std::vector<Tensor> ordered_inputs(const graph::Graph& graph, const Batch& batch);

// The batch size to use: what the model insists on, or `wanted`.
int64_t batch_size(const Dataset& dataset, int64_t wanted);

// Number of rows of the first output whose largest value is at the label. Error if the output is not (N, classes).
int64_t count_correct(const Tensor& output, const Tensor& labels);

struct Accuracy {
  int64_t correct = 0, samples = 0;
  double seconds = 0;
  double top1() const { return samples ? static_cast<double>(correct) / static_cast<double>(samples) : 0; }
};
// Top-1 over the first `count` samples. Error if the dataset has no labels.
Accuracy evaluate(const runtime::Program& program, const Dataset& dataset, int64_t count, const std::string& what);

struct Latency {
  double median_ms = 0, min_ms = 0;
};
// Runs the programs in turn, A B A B ..., after a warm-up, until each has had `seconds` (and at least 10 runs).
std::vector<Latency> measure(const std::vector<const runtime::Program*>& programs,
                             const std::vector<std::vector<Tensor>>& inputs, double seconds);
// Plausible inputs for a benchmark: symbolic dims become `batch`, floats are uniform in -1..1 (seeded).
std::vector<Tensor> random_inputs(const graph::Graph& graph, int64_t batch);

// Bytes of all constants.
int64_t weight_bytes(const graph::Graph& graph);
// Calls that run on codes (a quantized operand or result), and all calls.
struct NodeCount {
  int64_t quantized = 0, total = 0;
};
NodeCount count_nodes(const graph::Graph& graph);
bool runs_quantized(const graph::Graph& graph, const graph::Node& node);

double peak_rss_mb();

// The commands. Each adds itself to the program.
void add_quantize(CLI::App& app);
void add_eval(CLI::App& app);
void add_run(CLI::App& app);
void add_inspect(CLI::App& app);
void add_bench(CLI::App& app);
void add_convert(CLI::App& app);

}  // namespace octet::cli
