#include "octet/graph/passes/input_shapes.h"

#include "octet/base/check_impl.h"
#include "octet/base/text.h"

namespace octet::graph {
namespace {

using NamedDims = std::pair<std::string, std::vector<Dim>>;

// "(1, 3, ?, ?)"
std::string shape_text(const Shape& shape) {
  std::vector<std::string> sizes;
  for (int64_t size : shape) sizes.push_back(size == kOpenSize ? "?" : std::to_string(size));
  return fmt::format("({})", fmt::join(sizes, ", "));
}

std::string dims_text(const std::vector<Dim>& dims) {
  std::vector<std::string> sizes;
  for (const Dim& d : dims) sizes.push_back(to_string(d));
  return fmt::format("({})", fmt::join(sizes, ", "));
}

const NamedDims& input_of(const std::vector<NamedDims>& inputs, const std::string& name) {
  std::vector<std::string> names;
  for (const NamedDims& input : inputs) {
    if (input.first == name) return input;
    names.push_back(input.first);
  }
  if (name.empty()) {
    OCTET_CHECK(inputs.size() == 1, invalid_argument,
                "a shape without a name is for models with one input; this one has {}: {}; name "
                "the input that the shape is for",
                inputs.size(), fmt::join(names, ", "));
    return inputs[0];
  }
  OCTET_FAIL(not_found, "shape {}: there is no input of that name; the inputs are: {}{}", name,
             fmt::join(names, ", "), did_you_mean(name, names));
}

}  // namespace

std::map<std::string, int64_t> sizes_of_dims(const std::vector<NamedDims>& inputs,
                                             const InputShapes& shapes) {
  std::map<std::string, int64_t> sizes;
  for (const auto& given : shapes) {
    const NamedDims& input = input_of(inputs, given.first);
    const std::string& name = input.first;
    const std::vector<Dim>& dims = input.second;
    const Shape& shape = given.second;
    const auto expected = [&] {
      return fmt::format("input '{}': expected {}, got {}", name, dims_text(dims),
                         shape_text(shape));
    };
    OCTET_CHECK(shape.size() == dims.size(), invalid_argument,
                "{}: the input has {} dimensions, the shape has {}", expected(), dims.size(),
                shape.size());
    for (size_t d = 0; d < dims.size(); ++d) {
      if (shape[d] == kOpenSize) continue;
      OCTET_CHECK(shape[d] >= 1, invalid_argument, "{}: sizes are 1 or more", expected());
      if (dims[d].known()) {
        OCTET_CHECK(dims[d].size() == shape[d], invalid_argument,
                    "{}: dimension {} is fixed at {}; only symbolic ones may be given a size",
                    expected(), d, dims[d].size());
        continue;
      }
      const auto [at, fresh] = sizes.emplace(dims[d].name(), shape[d]);
      OCTET_CHECK(fresh || at->second == shape[d], invalid_argument,
                  "{}: {} is {} elsewhere; a name has one size", expected(), dims[d].name(),
                  at->second);
    }
  }
  return sizes;
}

Graph with_input_shapes(const Graph& graph, const InputShapes& shapes) {
  graph.require_operators("with_input_shapes");
  std::vector<NamedDims> inputs;
  for (ValueId v : graph.inputs()) inputs.emplace_back(graph.value(v).name, graph.type(v).dims);
  const std::map<std::string, int64_t> sizes = sizes_of_dims(inputs, shapes);
  if (sizes.empty()) return graph;
  Rewriter rewriter(graph);
  return rewriter.run([&](Rewriter& r, const Node& node) {
    if (node.kind != NodeKind::input) return false;
    TensorType type = graph.type(node.outputs[0]);
    for (Dim& d : type.dims)
      if (auto size = d.known() ? sizes.end() : sizes.find(d.name()); size != sizes.end())
        d = Dim(size->second);
    r.map(node.outputs[0], r.out().add_input(graph.value(node.outputs[0]).name, std::move(type)));
    return true;
  });
}

}  // namespace octet::graph
