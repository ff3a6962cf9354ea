#pragma once
// ONNX models out: opset 13, or the lowest one that can say what the graph does.
//
// Float graphs become the ONNX operators of the same meaning. Quantized graphs become "QDQ" models,
// as ONNX Runtime fuses them back into integer kernels: a quantized value v is a QuantizeLinear of
// the float operator's result and consumers read its DequantizeLinear; int8 weights are
// initializers with a DequantizeLinear along the channel axis; the bias of a quantized convolution
// (plain or transposed) or linear is an int32 initializer with scale s_x * s_w, the code octet's
// kernels use (affine::quantize_bias). Importing such a model and merging it (graph::merge_qdq)
// gives the integer graph again. What ONNX Runtime has no integer kernel for takes a form
// that it has kernels for, where there is one (export_codes.cpp). layer_norm, gelu and hardswish,
// which opset 13 lacks, are written as the parts that import recognises; lstm, gru and rnn as one
// direction each of ONNX's layers.
//
// Scales are float32 in ONNX: a double that float32 does not hold is rounded. Dynamic layers become
// DynamicQuantizeLinear and MatMulInteger or ConvInteger: where such a layer chooses its zero point
// by PyTorch's rule (rule="pytorch"), ONNX's may be one off. Weight-only layers become float layers
// of a DequantizeLinear.

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "octet/graph/graph.h"

namespace octet::io {

// What the file is for.
enum class OnnxTarget {
  // Operators on codes take the forms that ONNX Runtime has integer kernels for.
  onnxruntime,
  // What TensorRT reads: codes of int8 with zero point 0, one scale a tensor, or for weights one a
  // channel, float biases, no operators on plain integers' products. A graph with other codes is an
  // Error (unsupported) that names the tensors.
  tensorrt,
};
const char* to_string(OnnxTarget target);
// "onnxruntime", "tensorrt"; Error (not_found) for others, with the nearest.
OnnxTarget parse_onnx_target(std::string_view name);
std::vector<std::string> onnx_target_names();

struct OnnxExportOptions {
  OnnxTarget target = OnnxTarget::onnxruntime;
};

// The opset of a file, and if it is above 13, what needs it: "triu of a matrix of unknown size".
struct OnnxOpset {
  int64_t version = 13;
  std::vector<std::string> reasons;
};

// Writes atomically. Error (unsupported) naming every node that ONNX has no operator for; (io) if
// the file cannot be written.
OnnxOpset export_onnx(const graph::Graph& graph, const std::filesystem::path& path,
                      const OnnxExportOptions& options = {});

// The model's bytes; `opset` is told which opset they are of.
std::string to_onnx_bytes(const graph::Graph& graph, const OnnxExportOptions& options = {},
                          OnnxOpset* opset = nullptr);

}  // namespace octet::io
