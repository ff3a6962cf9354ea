// If, Loop and Scan. If: the branch that a known condition takes stands in the node's place; of an
// unknown one both do, and their results are chosen between. Loop and Scan are unrolled: the body
// stands there once for each iteration.
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <limits>

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
    if (a[i]->elements || b[i]->elements)
      n.unsupported("a condition known only at run time and sequences");
    if (a[i]->type != b[i]->type || a[i]->type.is_quantized())
      n.unsupported("a condition known only at run time and branches that give {} and {}",
                    to_string(a[i]->type), to_string(b[i]->type));
    im.out(n, i, im.call(n, "where", {condition, a[i], b[i]}));
  }
}

constexpr int64_t kMostNodes = 1 << 17;  // that unrolling may make

bool any_rejected(const std::vector<ValPtr>& values) {
  return std::find(values.begin(), values.end(), nullptr) != values.end();
}

void reject_outputs(Importer& im, const NodeView& n) {
  for (size_t i = 0; i < n.output_count(); ++i) im.out(n, i, nullptr);
}

void check_unrolled(const NodeView& n, int64_t iterations, const onnx::GraphProto& body) {
  if (iterations > kMostNodes / std::max(1, body.node_size()))
    n.unsupported("more than {} iterations of {} nodes", kMostNodes / std::max(1, body.node_size()),
                  body.node_size());
}

// What each iteration gave, one behind another along a new dimension.
ValPtr stack(Importer& im, const NodeView& n, const std::vector<ValPtr>& values, int64_t axis) {
  if (values.empty()) n.unsupported("results of no iteration");
  axis = axis_of(n, axis, values[0]->rank() + 1);
  std::vector<ValPtr> parts;
  for (const ValPtr& v : values) {
    if (v->elements) n.unsupported("sequences as results of iterations");
    parts.push_back(im.call(n, "unsqueeze", {v}, {{"dim", axis}}));
  }
  return parts.size() == 1 ? parts[0] : im.call(n, "cat", parts, {{"dim", axis}});
}

// Inputs: how often at most, a condition, and the values that one iteration hands to the next. The
// body has the number of the iteration, the condition and these values as inputs; it gives the
// condition for the next iteration, the values, and results that are collected.
void import_loop(Importer& im, const NodeView& n) {
  const onnx::GraphProto& body = n.get_graph("body");
  int64_t limit = std::numeric_limits<int64_t>::max();
  if (n.has_input(0)) {
    if (!im.in(n, 0)->constant.defined())
      n.unsupported("a number of iterations known only at run time");
    const std::vector<int64_t> given = im.known_ints(n, 0, "the number of iterations");
    if (given.size() != 1)
      n.fail(ErrorCode::corrupt, "{} numbers of iterations; expected one", given.size());
    limit = given[0];
  }
  const bool conditional = n.has_input(1);
  ValPtr condition = conditional ? im.in(n, 1) : constant_val("", Tensor::scalar(1, DType::bool_));
  std::vector<ValPtr> carried;
  for (size_t i = 2; i < n.input_count(); ++i) carried.push_back(im.any_in(n, i));
  const auto outputs = static_cast<size_t>(body.output_size());
  if (outputs < carried.size() + 1 || n.output_count() > outputs - 1)
    n.fail(ErrorCode::corrupt, "its body has {} outputs for {} values and {} outputs", outputs,
           carried.size(), n.output_count());
  std::vector<std::vector<ValPtr>> collected(outputs - 1 - carried.size());
  if (limit != std::numeric_limits<int64_t>::max()) check_unrolled(n, limit, body);
  for (int64_t i = 0; i < limit; ++i) {
    if (!condition->is_constant() || condition->constant.numel() != 1)
      n.unsupported("a condition known only at run time");
    if (condition->constant.item() == 0) break;
    check_unrolled(n, i, body);
    std::vector<ValPtr> inputs{constant_val("", Tensor::from(std::vector<int64_t>{i}, {})),
                               condition};
    inputs.insert(inputs.end(), carried.begin(), carried.end());
    std::vector<ValPtr> results = im.inline_graph(body, inputs);
    if (any_rejected(results)) return reject_outputs(im, n);
    if (conditional) condition = results[0];
    for (size_t k = 1; k < results.size(); ++k) {
      if (k <= carried.size())
        carried[k - 1] = results[k];
      else
        collected[k - 1 - carried.size()].push_back(results[k]);
    }
  }
  for (size_t i = 0; i < n.output_count(); ++i) {
    if (i < carried.size())
      im.out(n, i, carried[i]);
    else if (im.wants_output(n, i))
      im.out(n, i, stack(im, n, collected[i - carried.size()], 0));
  }
}

// Inputs: values that one iteration hands to the next, and values of which each iteration gets a
// slice.
void import_scan(Importer& im, const NodeView& n) {
  if (n.opset() < 9) n.unsupported("opset 8's batches");
  const onnx::GraphProto& body = n.get_graph("body");
  const int64_t sliced = n.get_int("num_scan_inputs", 0);
  const auto inputs = static_cast<int64_t>(n.input_count()), states = inputs - sliced,
             outputs = int64_t{body.output_size()};
  if (sliced < 1 || states < 0 || outputs < states ||
      static_cast<int64_t>(n.output_count()) > outputs)
    n.fail(ErrorCode::corrupt, "num_scan_inputs={} of {} inputs, {} outputs", sliced, inputs,
           outputs);
  const auto option = [&](const char* name, int64_t count) {
    std::vector<int64_t> given =
        n.get_ints(name, std::vector<int64_t>(static_cast<size_t>(count), 0));
    if (static_cast<int64_t>(given.size()) != count)
      n.fail(ErrorCode::corrupt, "{}: {} values; expected {}", name, given.size(), count);
    return given;
  };
  const std::vector<int64_t> in_axes = option("scan_input_axes", sliced),
                             in_backwards = option("scan_input_directions", sliced),
                             out_axes = option("scan_output_axes", outputs - states),
                             out_backwards = option("scan_output_directions", outputs - states);
  std::vector<ValPtr> carried, data;
  std::vector<int64_t> axes;
  int64_t count = 0;
  for (int64_t i = 0; i < inputs; ++i) {
    const auto at = static_cast<size_t>(i - states);
    if (i < states) {
      carried.push_back(im.any_in(n, static_cast<size_t>(i)));
      continue;
    }
    data.push_back(im.in(n, static_cast<size_t>(i)));
    axes.push_back(axis_of(n, in_axes[at], data.back()->rank()));
    const int64_t size = known_dim(n, *data.back(), axes.back(), "Scan");
    if (i > states && size != count)
      n.fail(ErrorCode::corrupt, "slices of {} and of {}", count, size);
    count = size;
  }
  check_unrolled(n, count, body);
  std::vector<std::vector<ValPtr>> collected(static_cast<size_t>(outputs - states));
  for (int64_t i = 0; i < count; ++i) {
    std::vector<ValPtr> given = carried;
    for (size_t k = 0; k < data.size(); ++k) {
      const int64_t at = in_backwards[k] != 0 ? count - 1 - i : i;
      ValPtr part =
          im.call(n, "slice", {data[k]}, {{"dim", axes[k]}, {"start", at}, {"end", at + 1}});
      given.push_back(im.call(n, "squeeze", {part}, {{"dim", axes[k]}}));
    }
    std::vector<ValPtr> results = im.inline_graph(body, given);
    if (any_rejected(results)) return reject_outputs(im, n);
    for (size_t k = 0; k < results.size(); ++k) {
      if (k < carried.size())
        carried[k] = results[k];
      else
        collected[k - carried.size()].push_back(results[k]);
    }
  }
  for (size_t i = 0; i < n.output_count(); ++i) {
    if (i < carried.size()) {
      im.out(n, i, carried[i]);
    } else if (im.wants_output(n, i)) {
      const size_t k = i - carried.size();
      if (out_backwards[k] != 0) std::reverse(collected[k].begin(), collected[k].end());
      im.out(n, i, stack(im, n, collected[k], out_axes[k]));
    }
  }
}

}  // namespace

void add_control_flow(Handlers& h) {
  h["If"] = import_if;
  h["Loop"] = import_loop;
  h["Scan"] = import_scan;
}

}  // namespace octet::io::onnx_impl
