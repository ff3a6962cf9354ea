#pragma once
// A model file, whatever its kind.

#include <filesystem>
#include <string>
#include <vector>

#include "octet/graph/graph.h"
#include "octet/graph/passes/input_shapes.h"

namespace octet::io {

// Whether the name ends in .onnx or .octet.
bool is_model_name(const std::filesystem::path& path);

// The graph of a file .octet, or of a file .onnx ready to run: activations are fused, and operators
// between QuantizeLinear and DequantizeLinear work on codes. `shapes` are sizes for what the inputs
// leave open. What is unusual about an .octet file is added to `notes`. Errors: those of load_octet
// and import_onnx; invalid_argument for other names.
graph::Graph load_graph(const std::filesystem::path& path, const graph::InputShapes& shapes = {},
                        std::vector<std::string>* notes = nullptr);

}  // namespace octet::io
