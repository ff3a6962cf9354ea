#pragma once
// How octet is told to quantize a user's own modules: fusions, reference modules and the user's
// kernels, in a BackendConfig.

#include <octet/quant/workflow/fx.h>

namespace sparse {

// octet's own backend and, beside it, sparse convolutions in 8 bits (features quint8 or qint8,
// weights qint8):
//   conv + batch norm + relu, conv + relu, conv + batch norm    fused to one layer
//   SparseConvReLU, SparseConv2d                                lowered to QuantizedSparseConvReLU,
//                                                               QuantizedSparseConv
//   ToDense                                                     on codes, its operand's qparams
//                                                               kept
octet::quant::BackendConfig sparse_backend();

// The same for an engine that wants explicit quantize and dequantize around the layers that it
// knows itself (as TensorRT does) and cannot look into the user's: Linear and Conv2d, alone or with
// a relu, are not lowered.
octet::quant::BackendConfig sparse_backend_for_explicit_qdq();

// A converted model as one graph for such an engine: its own layers are operators on dequantized
// codes, weights among them; the user's modules are module calls, which the engine has as plugins.
octet::graph::Graph export_qdq(const octet::graph::GraphModule& model);

// Activations of this dtype (quint8 or qint8), weights qint8 per channel, scores as floats.
octet::quant::QConfigMapping sparse_qconfig_mapping(octet::DType activation);

}  // namespace sparse
