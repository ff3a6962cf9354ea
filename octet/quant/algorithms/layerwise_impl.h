#pragma once
// What algorithms on prepared graphs share: the layers with weights, and a run of the float and the
// quantized network side by side, layer by layer, in which a layer may be changed before what
// follows is computed.

#include <cmath>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "octet/quant/workflow/fx.h"

namespace octet::quant {

using Samples = std::vector<std::vector<Tensor>>;  // batches of inputs in the graph's order

// A call of an operator whose weight becomes codes in static quantization.
struct PreparedLayer {
  std::string name;          // of its result in the prepared graph
  std::string label;         // as users know it (node_name)
  std::string op;            // conv2d, linear, ...
  Attrs attrs;               // without its activation,
  std::string activation;    // which is "none", "relu" or "relu6"
  std::string weight, bias;  // its constants in the prepared graph; "" without a bias
  bool transposed = false;
  int64_t groups = 1, channels = 0;  // channels: of the result
  bool shared = false;               // another layer reads the weight, too
};

// The samples in batches of `size`, where the graph's inputs have an open first dimension and the
// batches' other sizes are alike; else as they are.
Samples in_batches(const graph::Graph& g, const Samples& samples, int64_t size);

// The standard deviation of all elements.
double spread_of(const Tensor& x);

// In the graph's order. Error `unsupported`, in the name of `who`, for a graph of module calls.
std::vector<PreparedLayer> static_layers(const ObservedGraphModule& prepared, const char* who);

// The layer's result before its activation.
Tensor layer_result(const PreparedLayer& layer, const Tensor& x, const Tensor& weight,
                    const Tensor& bias);
// The dimension of the result's channels.
int64_t channel_dim(const PreparedLayer& layer, const Tensor& result);

// A constant of the prepared graph as it is now.
Tensor constant_now(const ObservedGraphModule& prepared, const std::string& name);
// The layer's bias as it is now, undefined without one.
Tensor bias_now(const ObservedGraphModule& prepared, const PreparedLayer& layer);
// The weight as convert_fx will have it, in float.
Tensor rounded_weight(const ObservedGraphModule& prepared, const PreparedLayer& layer);

// The values of a graph on all batches, node by node; what nothing needs any more is dropped. Codes
// are kept as codes: what is dequantized is so where it is read.
class GraphRun {
 public:
  GraphRun(graph::Graph graph, const Samples& samples);
  const graph::Graph& graph() const { return graph_; }
  size_t batches() const { return batches_; }
  Tensor value(graph::ValueId v, size_t batch) const;  // undefined for kNone
  void compute(graph::NodeId n);                       // all operands are there
  // In place of compute(): sets the (only) result of a node.
  void set(graph::NodeId n, std::vector<Tensor> result);

 private:
  bool is_view(const graph::Node& node) const;
  void release(graph::ValueId v);
  void finish(graph::NodeId n);

  graph::Graph graph_;
  size_t batches_;
  std::vector<std::vector<Tensor>> values_;  // by value, then by batch; of constants one
  std::vector<int> uses_;
};

// What an algorithm sees of a layer, with all layers before it as they have been left.
struct LayerStep {
  const PreparedLayer& layer;
  size_t index, count;  // of this layer, of all
  Tensor weight, bias;  // of the float network; bias undefined: none
  size_t batches;
  // Its operand in the float network and, in codes, in the quantized one; float32.
  std::function<Tensor(size_t batch)> float_input, quantized_input;
  std::pair<float, float> kept = {-INFINITY, INFINITY};  // LayerwiseRun::kept_range
};

struct LayerwiseOptions {
  // What the float network computes, if not what the prepared graph does by now: prepared->
  // watched().graph from before any weight was changed.
  std::optional<graph::Graph> float_graph = {};
  std::function<void(size_t done, size_t all)> progress = {};  // after each layer
};

// The two networks, as they are when it is made, and their layers.
struct LayerwiseRun {
  LayerwiseRun(const ObservedGraphModule& prepared, const Samples& samples,
               const LayerwiseOptions& options, const char* who);
  // Computes a layer of the quantized network with its weight and bias as they are by now.
  void compute_layer(const ObservedGraphModule& prepared, graph::NodeId node,
                     const PreparedLayer& layer);
  // What the activation of layer i and the codes of its result keep of it; infinite where nothing
  // cuts it.
  std::pair<float, float> kept_range(size_t i) const;
  // The value of the float network that a float value of `codes` stands for.
  graph::ValueId float_value(graph::ValueId v, const char* who) const;

  std::vector<PreparedLayer> layers;
  GraphRun floats, codes;                              // codes: the reference graph
  std::vector<graph::NodeId> float_nodes, code_nodes;  // of the layers
};

// Calls `visit` for each layer in order; it may set the layer's weight and bias in `prepared`.
// Keeps what is live of the float and the quantized network for all samples. Errors:
// not_calibrated; invalid_argument without samples or for another graph's float_graph.
void for_each_layer(ObservedGraphModule& prepared, const Samples& samples,
                    const LayerwiseOptions& options, const char* who,
                    const std::function<void(const LayerStep&)>& visit);

// A layer's results before its activation, by batch: the float network's, and those of the rounded
// weight on the quantized network's operand with the float bias; and what is kept of them.
struct LayerResults {
  std::vector<Tensor> floats = {}, rounded = {};
  std::pair<float, float> kept = {-INFINITY, INFINITY};  // LayerStep's
  int64_t channel_dim = 1;
};
// By channel, what to add to the bias: the mean of float less rounded, both cut to `kept`, over
// the elements that a bias moves; 0 where it would not lower the squared error of what is kept.
// (Means of all elements would be those of values that the activation cuts off, which in deep
// networks does harm: what is kept moves by what was cut off.)
std::vector<float> bias_shift(const LayerResults& results);
// Adds a number to each channel of a tensor of one's own.
void add_to_channels(Tensor& y, int64_t channel_dim, const std::vector<float>& added);
// Sets the float bias (undefined: none) plus the shift.
void set_corrected_bias(ObservedGraphModule& prepared, const PreparedLayer& layer,
                        const Tensor& bias, const std::vector<float>& shift);
// Both, of a layer with its weight as it is by now.
void correct_bias_of(ObservedGraphModule& prepared, const LayerStep& step);

}  // namespace octet::quant
