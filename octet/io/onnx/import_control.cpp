// If: the branch that a known condition takes stands in the node's place; of an unknown one both
// do, and their results are chosen between.
#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

void import_if(Importer& im, const NodeView& n) {
  const onnx::GraphProto &then_branch = n.get_graph("then_branch"),
                         &else_branch = n.get_graph("else_branch");
  ValPtr condition = im.in(n, 0);
  if (condition->type.dtype != DType::bool_ || !condition->type.is_static() ||
      numel(condition->type.shape()) != 1)
    n.fail(ErrorCode::corrupt, "its condition is {}; expected one bool",
           to_string(condition->type));
  auto results = [&](const onnx::GraphProto& branch) {
    std::vector<ValPtr> values = im.inline_graph(branch);
    if (values.size() != n.output_count())
      n.fail(ErrorCode::corrupt, "a branch has {} results; expected {}", values.size(),
             n.output_count());
    return values;
  };
  if (condition->is_constant()) {
    std::vector<ValPtr> values =
        results(condition->constant.item() != 0 ? then_branch : else_branch);
    for (size_t i = 0; i < values.size(); ++i) im.out(n, i, values[i]);
    return;
  }
  std::vector<ValPtr> a = results(then_branch), b = results(else_branch);
  while (condition->rank() > 0)
    condition = im.call(n, "squeeze", {condition}, {{"dim", int64_t{0}}});
  for (size_t i = 0; i < a.size(); ++i) {
    if (!a[i] || !b[i]) {  // of a node that was rejected
      im.out(n, i, nullptr);
      continue;
    }
    if (a[i]->type != b[i]->type || a[i]->type.is_quantized())
      n.unsupported("a condition known only at run time and branches that give {} and {}",
                    to_string(a[i]->type), to_string(b[i]->type));
    im.out(n, i, im.call(n, "where", {condition, a[i], b[i]}));
  }
}

}  // namespace

void add_control_flow(Handlers& h) { h["If"] = import_if; }

}  // namespace octet::io::onnx_impl
