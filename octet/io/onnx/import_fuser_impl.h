#pragma once
// What the rewriters of an imported graph share: they match from the last part of what becomes one
// operator, and emit that operator in its place; parts that nothing else uses die.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "octet/graph/passes/merge_qdq.h"
#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {

class PatternFuser {
 protected:
  explicit PatternFuser(const graph::Graph& g) : g_(g), uses_(g.use_counts()), rewriter_(g) {}
  ~PatternFuser() = default;

  // The graph in which each call that `fuse(rewriter, node)` returns true for is what that emitted.
  template <typename Fuse>
  graph::Graph rewritten(const Fuse& fuse) {
    return graph::remove_dead(rewriter_.run([&](graph::Rewriter& r, const graph::Node& node) {
      return node.kind == graph::NodeKind::call && fuse(r, node);
    }));
  }

  // The call that makes v, if it is of this operator and its attributes are numbers; null
  // otherwise.
  const graph::Node* made_by(ValueId v, std::string_view op) const {
    if (v == graph::kNone) return nullptr;
    const graph::Node& p = g_.producer(v);
    return p.kind == graph::NodeKind::call && p.op == op && !p.attrs.any_operand() ? &p : nullptr;
  }

  // `op` in the place of `root`. Returns true.
  bool replace(graph::Rewriter& r, const graph::Node& root, const std::string& op,
               std::vector<ValueId> operands, const Attrs& attrs) {
    return replace(r, root, op, std::move(operands), attrs, root.scope);
  }
  bool replace(graph::Rewriter& r, const graph::Node& root, const std::string& op,
               std::vector<ValueId> operands, const Attrs& attrs, const std::string& scope) {
    r.map(root.outputs[0], r.out().add_call(g_.value(root.outputs[0]).name, op, std::move(operands),
                                            attrs, std::nullopt, scope));
    return true;
  }

  const graph::Graph& g_;
  std::vector<int> uses_;
  graph::Rewriter rewriter_;
};

}  // namespace octet::io::onnx_impl
