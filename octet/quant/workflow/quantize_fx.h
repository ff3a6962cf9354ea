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
#include "octet/quant/decide/decide.h"
#include "octet/quant/observe/qconfig.h"
#include "octet/quant/workflow/findings.h"
#include "octet/quant/workflow/report.h"

namespace octet::quant {

struct PrepareOptions {
  std::vector<std::string> skip = {};  // nodes that stay float: names, globs, or re:expressions
  std::string engine = {};             // the engine that calibrates; "" is the process's choice
  BackendConfig backend = get_native_backend_config();  // what can be quantized
};

// A float graph with observers: what prepare_fx returns. Move-only.
class PreparedGraph {
 public:
  // Runs the float network on one batch and shows its values to the observers. Returns the float
  // results.
  std::vector<Tensor> forward(const std::vector<Tensor>& inputs);

  const graph::Graph& graph() const;  // float, activations fused
  const GraphDecisions& decisions() const;
  const BackendConfig& backend() const;
  // By group of the decisions.
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

// Fuses activations, decides what is quantized (decide.h) and attaches an observer to each value
// (or group of values with one scale) that becomes codes. A call of the graph is known to the
// mapping by its name (module name), its operator (object type) and its number among the calls of
// that operator. Everything that can be wrong is reported here, before any sample is read: Error if
// nothing in the graph can be quantized, if a name or pattern matches nothing, if a qconfig cannot
// be honoured.
PreparedGraph prepare_fx(const graph::Graph& graph, const QConfigMapping& mapping,
                         const PrepareOptions& options = {});
// With QConfigMapping(qconfig): this one for every call.
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
