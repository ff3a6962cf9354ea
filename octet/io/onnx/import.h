#pragma once
// ONNX models in. Opsets 7 to 23 as PyTorch, Keras and ONNX Runtime's tools write them, float or
// quantized (QDQ, QOperator).
//
//   graph::Graph g = io::import_onnx("resnet18.onnx");
//
// What comes out is an inference graph of octet's operators: constants folded, shape arithmetic
// resolved, dead nodes gone, batch norms folded into convolutions, the scattered layer norm and
// GELU of exporters made one operator again. Values and inputs keep their ONNX names; a node's
// scope is the ONNX node's name. Symbolic dimensions ("N") stay symbolic. QuantizeLinear and
// DequantizeLinear become `quantize` and `dequantize`; int8 weights become quantized constants.
// Codes of other types (16 bits, blocks with a scale each, scales that data decides) are plain
// integers and their arithmetic is spelled out. If becomes the branch it takes, or a choice between
// both. float16, bfloat16 and float64 are storage types: such inputs and outputs keep their dtype,
// arithmetic is float32.

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "octet/base/error.h"
#include "octet/graph/graph.h"
#include "octet/graph/passes/input_shapes.h"
#include "octet/tensor/tensor.h"

namespace octet::io {

struct OnnxImportOptions {
  bool fold_batch_norm = true;  // graph::fold_batch_norm
  // layer_norm, gelu, hardswish from their parts; matmul + add to linear
  bool fuse_patterns = true;
  std::map<std::string, int64_t> dims;  // sizes for symbolic dimensions: {{"N", 1}}
  // Sizes for symbolic dimensions of inputs by the inputs' names: {{"images", {1, 3, 640, 640}}};
  // errors as graph::with_input_shapes.
  graph::InputShapes shapes;
  // Values for inputs that are the same in every run, by name: they become constants. For models
  // that take as an input what octet must know at import (a shape, axes, scales).
  std::map<std::string, Tensor> constants;
};

// One operator of a model that cannot be read, and its nodes; those of unrolled loops and of
// functions are counted each time.
struct OnnxOperator {
  struct Refused {
    std::string reason;              // "": octet has no such operator
    std::vector<std::string> nodes;  // names, all of them
  };
  std::string op;
  int64_t nodes = 0;
  std::vector<Refused> refused;
  int64_t behind = 0;  // nodes that read from one that is refused: nothing is known of them
};

// Why a model cannot be read: code unsupported, a message that names every operator.
class OnnxUnsupported : public Error {
 public:
  OnnxUnsupported(const std::string& message, std::vector<OnnxOperator> operators, std::string cure)
      : Error(ErrorCode::unsupported, message),
        operators_(std::move(operators)),
        cure_(std::move(cure)) {}
  // All operators of the model, in the order they were met.
  const std::vector<OnnxOperator>& operators() const { return operators_; }
  const std::string& cure() const { return cure_; }  // what can be done

 private:
  std::vector<OnnxOperator> operators_;
  std::string cure_;
};

// Error (not_found, io) if the file cannot be read, (corrupt) if it is not a valid ONNX model,
// OnnxUnsupported naming every operator octet does not have, each with its nodes. Every message
// starts with the file's name and names the node.
graph::Graph import_onnx(const std::filesystem::path& path, const OnnxImportOptions& options = {});

// The same for a model in memory; `name` stands for the file in messages. External data is not
// available to it.
graph::Graph import_onnx_bytes(std::string_view bytes, const std::string& name = "model",
                               const OnnxImportOptions& options = {});

// The ONNX operators that import knows, by name.
std::vector<std::string> onnx_operators();

// Reads a TensorProto file (input_0.pb of the ONNX node tests). Types octet lacks are an Error.
Tensor read_onnx_tensor(const std::filesystem::path& path);

}  // namespace octet::io
