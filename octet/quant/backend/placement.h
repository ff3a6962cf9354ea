#pragma once
// Which values of a graph become codes, which of them share qparams, and why the rest stays float.

#include <string>
#include <vector>

#include "octet/graph/graph.h"

namespace octet::quant {

// The native backend's answer for a float graph (activations fused already). Its rules:
//  - conv1d, conv2d and linear with a constant float32 weight (and bias) run on codes; so do add,
//  sub, mul, cat,
//    activations and pools that at least one quantized operator feeds.
//  - add, sub and mul with a constant operand stay float: box decoding and input normalization live
//  on precision that
//    8 bits do not have.
//  - Operators that keep qparams (pools, resizing, reshape, permute, slice, split ...) are
//  quantized with their operand, or
//    where all they feed is quantized.
//  - cat has one scale for its operands and its result, so that it only copies.
//  - Everything else is float; why_not_placed() says why.
//  - A graph in which nothing is quantized so is taken as one whose inputs are codes.
struct Placement {
  // By value: the group of values that share one observer and one scale; -1: float.
  std::vector<int> group;
  int groups = 0;
  // By group: the values to watch during calibration (results that stay within the range of their
  // operand's are left out), and fixed qparams where the operator dictates them (sigmoid, tanh);
  // then nothing is watched.
  std::vector<std::vector<graph::ValueId>> watch;
  std::vector<std::optional<ops::QType>> fixed;
  // By node: whether it runs on codes; and for calls that do not, why.
  std::vector<bool> quantized;
  std::vector<std::string> reason;
};

// `skip` are node patterns (base/text.h matches) of nodes that stay float; a pattern that matches
// no node is an Error with the nearest names. `dtype` is that of the activations.
Placement place(const graph::Graph& graph, const std::vector<std::string>& skip, DType dtype);

// By node: the pattern that skips it, or "". Error as of place().
std::vector<std::string> skipped_nodes(const graph::Graph& graph,
                                       const std::vector<std::string>& skip);

// Whether an operator that keeps qparams may give values outside the range of its operand (which
// always includes 0): a pad with another value than 0, a clamp that does not hold 0, cubic
// interpolation, an average with a divisor of its own, a number added or multiplied.
bool widens(const graph::Node& node);

// What static quantization of graphs (networks from ONNX files) does with an operator.
enum class Placeable {
  yes,           // it runs on codes where its operands allow
  not_yet,       // it could run on codes, but place() does not have it do so
  wide_range,    // it could run on codes, but its results range too widely for 256 of one scale
  weights_only,  // its weights may be codes, in dynamic and weight-only quantization
  no,            // it has no form for codes
};
Placeable placeable(const std::string& op);
// The same as the reason why a node of that operator stays float; "" for `yes`.
std::string why_not_placed(const std::string& op);

// Whether the operator's second operand is a weight that becomes codes: conv1d, conv2d, linear.
// PReLU's slopes are no such weight: they stay float.
bool has_weight(const graph::Node& node);

// The name users know a node by: its scope (module path or ONNX node name), or its result's name.
std::string node_name(const graph::Graph& graph, const graph::Node& node);

}  // namespace octet::quant
