#pragma once
// ONNX models out: opset 13, IR version 7.
//
// Float graphs become the ONNX operators of the same meaning. Quantized graphs become "QDQ" models,
// as ONNX Runtime fuses them back into integer kernels: a quantized value v is a QuantizeLinear of
// the float operator's result and consumers read its DequantizeLinear; int8 weights are
// initializers with a DequantizeLinear along the channel axis; the bias of a quantized convolution
// (plain or transposed) or linear is an int32 initializer with scale s_x * s_w, the code octet's
// kernels use (affine::quantize_bias). Importing such a model and merging it (graph::merge_qdq)
// gives the integer graph again. layer_norm, gelu and hardswish, which opset 13 lacks, are written
// as the parts that import recognises; lstm, gru and rnn as one direction each of ONNX's layers.
//
// Scales are float32 in ONNX: a double that float32 does not hold is rounded. Dynamic layers become
// DynamicQuantizeLinear and MatMulInteger or ConvInteger: where such a layer chooses its zero point
// by PyTorch's rule (rule="pytorch"), ONNX's may be one off. Weight-only layers become float layers
// of a DequantizeLinear.

#include <filesystem>
#include <string>

#include "octet/graph/graph.h"

namespace octet::io {

// Writes atomically. Error (unsupported) naming every node that ONNX has no operator for; (io) if
// the file cannot be written.
void export_onnx(const graph::Graph& graph, const std::filesystem::path& path);

// The model's bytes.
std::string to_onnx_bytes(const graph::Graph& graph);

}  // namespace octet::io
