#pragma once
// Post-training static quantization of a graph: prepare, calibrate, convert.
//
//   auto prepared = quant::prepare_fx(graph, quant::get_default_qconfig());
//   for (const Tensor& batch : data) prepared.forward({batch});       // calibrate
//   graph::Graph int8 = quant::convert_fx(prepared);
//
// Names are torch.ao.quantization.quantize_fx's.

#include <memory>
#include <string>
#include <vector>

#include "octet/graph/graph.h"
#include "octet/quant/backend/placement.h"
#include "octet/quant/observe/qconfig.h"
#include "octet/quant/workflow/findings.h"
#include "octet/quant/workflow/report.h"

namespace octet::quant {

struct PrepareOptions {
  std::vector<std::string> skip;  // nodes that stay float: exact names, globs, or re:expressions
  std::string engine;             // the engine that calibrates; "" is the process's choice
};

// A float graph with observers: what prepare_fx returns. Move-only.
class PreparedGraph {
 public:
  // Runs the float network on one batch and shows its values to the observers. Returns the float
  // results.
  std::vector<Tensor> forward(const std::vector<Tensor>& inputs);

  const graph::Graph& graph() const;  // float, activations fused
  const Placement& placement() const;
  const QConfig& qconfig() const;
  // By group of the placement; null where qparams are fixed.
  const std::vector<ObserverPtr>& observers() const;
  int64_t batches() const;  // seen so far
  // Of the observed values and of operands of cat, add and sub; convert_fx warns of what they show
  // to be lost.
  const SampleRanges& ranges() const;

  struct Impl;
  explicit PreparedGraph(std::unique_ptr<Impl> impl);
  PreparedGraph(PreparedGraph&&) noexcept;
  PreparedGraph& operator=(PreparedGraph&&) noexcept;
  ~PreparedGraph();

 private:
  std::unique_ptr<Impl> impl_;
};

// Fuses activations, chooses what is quantized, and attaches an observer of qconfig.activation to
// each value (or group of values with one scale). Everything that can be wrong is reported here,
// before any sample is read: Error if nothing in the graph can be quantized, if a skip pattern
// matches nothing, if the qconfig cannot be honoured.
PreparedGraph prepare_fx(const graph::Graph& graph, const QConfig& qconfig,
                         const PrepareOptions& options = {});

// The graph with explicit quantize and dequantize around float operators, weights as quantized
// constants: what runs in any framework, and what lowers to integers. Inputs and results keep their
// names and are float. Error not_calibrated naming every observer that saw no data.
graph::Graph convert_to_reference_fx(const PreparedGraph& prepared,
                                     ConversionReport* report = nullptr);

// The reference graph lowered to integer operators (graph::merge_qdq). With `strict`, an Error that
// lists the nodes that stayed float, if any computes.
graph::Graph convert_fx(const PreparedGraph& prepared, ConversionReport* report = nullptr,
                        bool strict = false);

}  // namespace octet::quant
