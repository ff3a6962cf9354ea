#include "octet/quant/algorithms/block_weights.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "octet/autograd/autograd.h"
#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/base/text.h"
#include "octet/graph/passes/merge_qdq.h"
#include "octet/quant/algorithms/codes_impl.h"
#include "octet/quant/decide/decide.h"
#include "octet/quant/modules/qparams.h"

namespace octet::quant {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeId;
using graph::NodeKind;
using graph::ValueId;

namespace {

struct BlockLayer {
  NodeId node;
  PreparedLayer layer;
};

struct CodedLayer {
  Grids grids;
  std::vector<float> zero;   // of each scale: code 0 of the file is `-zero` here
  std::vector<float> codes;  // (outputs, k), zero points taken off
  int64_t outputs = 0, k = 0;
};

std::vector<BlockLayer> block_layers(const Graph& g, const std::vector<std::string>& skip) {
  std::vector<NamePattern> patterns;
  for (const std::string& s : skip) patterns.emplace_back(s);
  std::vector<BlockLayer> layers;
  for (NodeId n = 0; n < std::ssize(g.nodes()); ++n) {
    const Node& node = g.node(n);
    if (node.kind != NodeKind::call || node.op != "linear" || !g.is_constant(node.inputs[1]))
      continue;
    const Tensor& weight = g.constant(node.inputs[1]);
    const bool has_bias = node.inputs.size() > 2 && node.inputs[2] != kNone;
    if (weight.dtype() != DType::float32 || (has_bias && !g.is_constant(node.inputs[2]))) continue;
    const std::string name = node_name(g, node);
    if (std::any_of(patterns.begin(), patterns.end(),
                    [&](const NamePattern& p) { return p.matches(name); }))
      continue;
    PreparedLayer layer{.name = g.value(node.outputs[0]).name,
                        .label = name,
                        .op = node.op,
                        .attrs = node.attrs,
                        .activation = node.attrs.get_string("activation")};
    layer.attrs.set("activation", "none");
    layer.channels = weight.size(0);
    layers.push_back({n, std::move(layer)});
  }
  return layers;
}

// Scale and zero point for values lo..hi, which hold 0, in codes 0..most.
std::pair<float, float> affine_of(float lo, float hi, float most) {
  lo = std::min(lo, 0.F);
  hi = std::max(hi, 0.F);
  if (!(hi > lo)) return {1.F, 0.F};
  const float scale = (hi - lo) / most;
  return {scale, std::clamp(std::nearbyintf(-lo / scale), 0.F, most)};
}

// The range of each block: all of it, or of its shares in 100 steps from `least` up that with the
// least squared error, weighted by `importance` (k).
void choose_grids(CodedLayer& c, const float* w, const float* importance, float most) {
  constexpr int kSteps = 100, kLeast = 30;
  parallel_for(c.outputs, [&](int64_t o) {
    for (int64_t b = 0; b < c.grids.blocks; ++b) {
      const int64_t begin = b * c.grids.block, end = std::min(c.k, begin + c.grids.block);
      const float* row = w + o * c.k;
      const auto [lo, hi] = std::minmax_element(row + begin, row + end);
      const size_t at = c.grids.at(o, begin);
      double least = std::numeric_limits<double>::infinity();
      for (int step = importance ? kLeast : kSteps; step <= kSteps; ++step) {
        const float part = static_cast<float>(step) / kSteps;
        const auto [scale, zero] = affine_of(*lo * part, *hi * part, most);
        double error = 0;
        for (int64_t j = begin; j < end && importance; ++j) {
          const float code = std::clamp(std::nearbyintf(row[j] / scale), -zero, most - zero);
          const auto e = static_cast<double>(row[j] - code * scale);
          error += e * e * static_cast<double>(importance[j]);
        }
        if (!(error < least)) continue;
        least = error;
        c.grids.scale[at] = scale;
        c.grids.lo[at] = -zero;
        c.grids.hi[at] = most - zero;
        c.zero[at] = zero;
      }
    }
  });
}

CodedLayer nearest(const Tensor& weight, const BlockWeightOptions& options) {
  CodedLayer c;
  c.outputs = weight.size(0);
  c.k = weight.size(1);
  c.grids.block = options.block_size;
  c.grids.blocks = (c.k + options.block_size - 1) / options.block_size;
  const auto count = static_cast<size_t>(c.outputs * c.grids.blocks);
  for (auto* part : {&c.grids.scale, &c.grids.lo, &c.grids.hi, &c.zero}) part->resize(count);
  const float* w = weight.data<float>();
  choose_grids(c, w, nullptr, static_cast<float>((1 << options.bits) - 1));
  for (int64_t o = 0; o < c.outputs; ++o)
    for (int64_t j = 0; j < c.k; ++j)
      c.codes.push_back(c.grids.code(c.grids.at(o, j), w[o * c.k + j]));
  return c;
}

// Sets each scale in turn so that it is the best one for the codes while the others stay:
// s_b += c_b h e / c_b h c_b, e = w - s c.
void fit_block_scales(CodedLayer& c, const GroupCodes& group) {
  const LayerProblem& problem = group.problem;
  const float* h = problem.h.data<float>();
  Tensor error = group.error(c.grids);
  Tensor gradient = ops::call("matmul", {error, problem.h});
  float* slopes = gradient.data<float>();
  parallel_for(c.outputs, [&](int64_t o) {
    float* g = slopes + o * c.k;
    const float* codes = group.codes.data() + o * c.k;
    std::vector<double> ch(static_cast<size_t>(c.k));  // c_b h
    for (int64_t b = 0; b < c.grids.blocks; ++b) {
      const int64_t begin = b * c.grids.block, end = std::min(c.k, begin + c.grids.block);
      std::fill(ch.begin(), ch.end(), 0.0);
      for (int64_t j = begin; j < end; ++j)
        for (int64_t t = 0; t < c.k && codes[j] != 0; ++t)
          ch[static_cast<size_t>(t)] +=
              static_cast<double>(codes[j]) * static_cast<double>(h[j * c.k + t]);
      double of_error = 0, of_codes = 0;
      for (int64_t j = begin; j < end; ++j) {
        of_error += static_cast<double>(codes[j]) * static_cast<double>(g[j]);
        of_codes += static_cast<double>(codes[j]) * ch[static_cast<size_t>(j)];
      }
      float& scale = c.grids.scale[c.grids.at(o, begin)];
      const auto fitted =
          of_codes > 0 ? static_cast<float>(static_cast<double>(scale) + of_error / of_codes) : 0.F;
      if (!(fitted > 0)) continue;
      const auto moved = static_cast<double>(fitted - scale);
      scale = fitted;
      for (int64_t t = 0; t < c.k; ++t)
        g[t] = static_cast<float>(static_cast<double>(g[t]) - moved * ch[static_cast<size_t>(t)]);
    }
  });
}

CodedLayer by_gptq(const LayerStep& step, const BlockWeightOptions& options,
                   BlockWeightReport::Entry& entry) {
  GroupCodes group = std::move(make_groups(step, options.rows, options.damping).at(0));
  const LayerProblem& problem = group.problem;
  CodedLayer c = nearest(step.weight.contiguous(), options);
  std::vector<float> importance;
  for (int64_t j = 0; j < c.k; ++j) importance.push_back(problem.h.data<float>()[j * c.k + j]);
  choose_grids(c, problem.w.data<float>(), importance.data(),
               static_cast<float>((1 << options.bits) - 1));
  group.round_to_nearest(c.grids);
  entry.nearest_error = group.squared_error(c.grids);
  group.round_by_columns(c.grids);
  group.descend(c.grids, options.sweeps);
  for (int turn = 0; turn < options.learn_scales; ++turn) {
    fit_block_scales(c, group);
    group.descend(c.grids, options.sweeps);
  }
  entry.error = group.squared_error(c.grids);
  c.codes = group.codes;
  return c;
}

Tensor values_of(const CodedLayer& c) {
  std::vector<float> w;
  for (int64_t o = 0, i = 0; o < c.outputs; ++o)
    for (int64_t j = 0; j < c.k; ++j, ++i)
      w.push_back(c.codes[static_cast<size_t>(i)] * c.grids.scale[c.grids.at(o, j)]);
  return Tensor::from(w, {c.outputs, c.k});
}

int64_t stored_bits(int bits) { return bits == 3 ? 4 : bits; }

// The call of linear_blocks, and its activation.
ValueId add_blocks(graph::Rewriter& r, const Node& node, const PreparedLayer& layer, ValueId x,
                   const CodedLayer& c, const Tensor& bias, int bits) {
  const int64_t width = stored_bits(bits), per_byte = 8 / width;
  const int64_t row_bytes = c.grids.block / per_byte;
  std::vector<uint8_t> bytes(static_cast<size_t>(c.outputs * c.grids.blocks * row_bytes), 0);
  for (int64_t o = 0; o < c.outputs; ++o)
    for (int64_t j = 0; j < c.k; ++j) {
      const size_t at = c.grids.at(o, j);
      const auto code =
          static_cast<unsigned>(c.codes[static_cast<size_t>(o * c.k + j)] + c.zero[at]);
      const int64_t i = j % c.grids.block;
      bytes[at * static_cast<size_t>(row_bytes) + static_cast<size_t>(i / per_byte)] |=
          static_cast<uint8_t>(code << (i % per_byte * width));
    }
  const Shape of_blocks{c.outputs, c.grids.blocks};
  const std::string& name = layer.name;
  Graph& out = r.out();
  const ValueId bias_id = bias.defined() ? out.add_constant(name + ".bias", bias) : kNone;
  const bool plain = layer.activation == "none" || layer.activation.empty();
  ValueId y = out.add_call(
      plain ? name : name + ".linear", "linear_blocks",
      {x,
       out.add_constant(name + ".codes",
                        Tensor::from(bytes, {c.outputs, c.grids.blocks, row_bytes})),
       out.add_constant(name + ".scales", Tensor::from(c.grids.scale, of_blocks)),
       out.add_constant(name + ".zero_points", Tensor::from(c.zero, of_blocks)), bias_id},
      {{"in_features", c.k}, {"block_size", c.grids.block}, {"bits", width}}, {}, node.scope);
  return plain ? y : out.add_call(name, layer.activation, {y}, {}, {}, node.scope);
}

void check(const BlockWeightOptions& o) {
  const bool bits = o.bits == 2 || o.bits == 3 || o.bits == 4 || o.bits == 8;
  OCTET_CHECK(bits, invalid_argument, "quantize_block_weights: bits {}; expected 2, 3, 4 or 8",
              o.bits);
  OCTET_CHECK(
      o.block_size >= 1 && o.block_size <= 65536 && o.block_size * stored_bits(o.bits) % 8 == 0,
      invalid_argument,
      "quantize_block_weights: block_size {}; expected 1 to 65536, and whole bytes of {} bits",
      o.block_size, stored_bits(o.bits));
}

// The operand's codes, from what the float network has there.
QParams operand_qparams(const LayerStep& step, const ObserverFactory& factory) {
  const ObserverPtr observer = factory.make(step.layer.label + ".input");
  for (size_t b = 0; b < step.batches; ++b) observer->observe(step.float_input(b));
  return observer->calculate_qparams();
}

}  // namespace

Graph quantize_block_weights(const Graph& graph, const Samples& samples,
                             const BlockWeightOptions& options, BlockWeightReport* report) {
  check(options);
  const bool look = options.gptq || options.activation;
  OCTET_CHECK(
      !look || !samples.empty(), invalid_argument,
      "quantize_block_weights: no samples, which GPTQ and operands of 8 bits need; give some, "
      "or round to the nearest code (gptq = false)");
  autograd::NoGrad no_grad;
  const std::vector<BlockLayer> layers = block_layers(graph, options.skip);
  OCTET_CHECK(!layers.empty(), invalid_argument,
              "quantize_block_weights: no linear layer with a constant weight is left to quantize");
  BlockWeightReport local;
  BlockWeightReport& result = report ? *report : local;
  result = {};
  std::map<NodeId, CodedLayer> coded;
  std::map<NodeId, QParams> operands;
  GraphRun floats(graph, look ? samples : Samples()), codes(graph, look ? samples : Samples());
  NodeId n = 0;
  for (size_t i = 0; i < layers.size(); ++i) {
    const auto& [at, layer] = layers[i];
    const Node& node = graph.node(at);
    const Tensor bias = node.inputs.size() > 2 && node.inputs[2] != kNone
                            ? graph.constant(node.inputs[2])
                            : Tensor();
    BlockWeightReport::Entry entry{layer.label};
    if (!look) {
      coded[at] = nearest(graph.constant(node.inputs[1]).contiguous(), options);
      result.layers.push_back(std::move(entry));
      continue;
    }
    for (; n < at; ++n) floats.compute(n), codes.compute(n);
    std::optional<QParams> q;
    const auto quantized_input = [&](size_t b) {
      const Tensor x = codes.value(node.inputs[0], b);
      return q ? quantize_to(x.contiguous(), *q).dequantize() : x;
    };
    const LayerStep step{layer,
                         i,
                         layers.size(),
                         graph.constant(node.inputs[1]),
                         bias,
                         samples.size(),
                         [&](size_t b) { return floats.value(node.inputs[0], b); },
                         quantized_input};
    if (options.activation) operands[at] = *(q = operand_qparams(step, *options.activation));
    coded[at] =
        options.gptq ? by_gptq(step, options, entry) : nearest(step.weight.contiguous(), options);
    result.layers.push_back(std::move(entry));
    const Tensor weight = values_of(coded[at]);
    std::vector<Tensor> results;
    for (size_t b = 0; b < samples.size(); ++b) {
      Tensor y = layer_result(layer, quantized_input(b), weight, bias);
      if (layer.activation != "none") y = ops::call(layer.activation, {y});
      results.push_back(std::move(y));
    }
    codes.set(at, std::move(results));
    floats.compute(at);
    ++n;
  }
  std::map<const Node*, const BlockLayer*> by_node;
  for (const BlockLayer& layer : layers) by_node[&graph.node(layer.node)] = &layer;
  graph::Rewriter rewriter(graph);
  return graph::remove_dead(rewriter.run([&](graph::Rewriter& r, const Node& node) {
    const auto found = by_node.find(&node);
    if (found == by_node.end()) return false;
    const auto& [at, layer] = *found->second;
    ValueId x = r(node.inputs[0]);
    if (const auto q = operands.find(at); q != operands.end()) {
      x = r.out().add_call(layer.name + ".input", "quantize", {x}, {},
                           ops::QType{q->second.dtype, q->second.quantizer});
      x = r.out().add_call(layer.name + ".input.dequantized", "dequantize", {x});
    }
    const Tensor bias = node.inputs.size() > 2 && node.inputs[2] != kNone
                            ? graph.constant(node.inputs[2])
                            : Tensor();
    r.map(node.outputs[0], add_blocks(r, node, layer, x, coded.at(at), bias, options.bits));
    return true;
  }));  // without the float weights
}

}  // namespace octet::quant
