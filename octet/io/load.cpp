#include "octet/io/load.h"

#include <fmt/format.h>

#include "octet/base/error.h"
#include "octet/graph/passes/fuse.h"
#include "octet/graph/passes/merge_qdq.h"
#include "octet/graph/passes/multiply_codes.h"
#include "octet/io/octet_file.h"
#include "octet/io/onnx/import.h"

namespace octet::io {

bool is_model_name(const std::filesystem::path& path) {
  return path.extension() == ".octet" || path.extension() == ".onnx";
}

graph::Graph load_graph(const std::filesystem::path& path, const graph::InputShapes& shapes,
                        std::vector<std::string>* notes) {
  if (!is_model_name(path))
    fail(ErrorCode::invalid_argument,
         fmt::format("{}: unknown kind of model; expected a name ending in .onnx or .octet",
                     path.string()));
  if (path.extension() == ".onnx") {
    OnnxImportOptions options;
    options.shapes = shapes;
    return graph::multiply_codes(
        graph::merge_qdq(graph::fuse_activations(import_onnx(path, options))));
  }
  graph::Graph graph = load_octet(path, notes);
  if (shapes.empty()) return graph;
  try {
    return graph::with_input_shapes(graph, shapes);
  } catch (const Error& e) {
    fail(e.code(), fmt::format("{}: {}", path.string(), e.what()));
  }
}

}  // namespace octet::io
