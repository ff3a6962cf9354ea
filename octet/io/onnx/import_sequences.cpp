// Sequences of tensors. Their elements are followed at import: none is left in the graph.
#include <algorithm>

#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

ValPtr sequence_val(std::vector<ValPtr> elements) {
  auto v = std::make_shared<Val>();
  v->elements = std::move(elements);
  return v;
}

// Input `i` as a place from 0 to `last`, negative ones counting back from `size`.
size_t position_of(Importer& im, const NodeView& n, size_t i, int64_t size, int64_t last) {
  if (!n.has_input(i)) return static_cast<size_t>(last);
  const Tensor given = im.known(n, i, "the position");
  const auto at = given.numel() == 1 ? static_cast<int64_t>(given.item()) : last + 1;
  if (at < -size || at > last) n.fail(ErrorCode::corrupt, "position {} of {} elements", at, size);
  return static_cast<size_t>(at < 0 ? at + size : at);
}

void import_construct(Importer& im, const NodeView& n) {
  std::vector<ValPtr> elements;
  for (size_t i = 0; i < n.input_count(); ++i) elements.push_back(im.in(n, i));
  im.out(n, 0, sequence_val(std::move(elements)));
}

void import_insert(Importer& im, const NodeView& n) {
  std::vector<ValPtr> elements = im.sequence(n, 0);
  const size_t at = position_of(im, n, 2, std::ssize(elements), std::ssize(elements));
  elements.insert(elements.begin() + static_cast<std::ptrdiff_t>(at), im.in(n, 1));
  im.out(n, 0, sequence_val(std::move(elements)));
}

void import_erase(Importer& im, const NodeView& n) {
  std::vector<ValPtr> elements = im.sequence(n, 0);
  if (elements.empty()) n.fail(ErrorCode::corrupt, "its sequence is empty");
  const size_t at = position_of(im, n, 1, std::ssize(elements), std::ssize(elements) - 1);
  elements.erase(elements.begin() + static_cast<std::ptrdiff_t>(at));
  im.out(n, 0, sequence_val(std::move(elements)));
}

void import_at(Importer& im, const NodeView& n) {
  const std::vector<ValPtr>& elements = im.sequence(n, 0);
  if (elements.empty()) n.fail(ErrorCode::corrupt, "its sequence is empty");
  im.out(n, 0, elements[position_of(im, n, 1, std::ssize(elements), std::ssize(elements) - 1)]);
}

void import_length(Importer& im, const NodeView& n) {
  const auto size = static_cast<int64_t>(im.sequence(n, 0).size());
  im.out(n, 0, constant_val("", Tensor::from(std::vector<int64_t>{size}, {})));
}

void import_concat_from(Importer& im, const NodeView& n) {
  std::vector<ValPtr> elements = im.sequence(n, 0);
  if (elements.empty()) n.unsupported("an empty sequence");
  const bool stacks = n.get_int("new_axis", 0) != 0;
  const int64_t axis =
      axis_of(n, n.get_int("axis", 0), elements[0]->rank() + static_cast<int64_t>(stacks));
  if (stacks)
    for (ValPtr& v : elements) v = im.call(n, "unsqueeze", {v}, {{"dim", axis}});
  im.out(n, 0, elements.size() == 1 ? elements[0] : im.call(n, "cat", elements, {{"dim", axis}}));
}

// Parts of sizes, of one size, or of 1, which loses the dimension unless keepdims is set.
void import_split_to(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0);
  const int64_t axis = axis_of(n, n.get_int("axis", 0), x->rank()),
                size = known_dim(n, *x, axis, "SplitToSequence");
  bool keep = n.get_int("keepdims", 1) != 0;
  std::vector<int64_t> sizes;
  if (n.has_input(1)) {
    keep = true;
    const std::vector<int64_t> given = im.known_ints(n, 1, "split");
    if (im.in(n, 1)->rank() == 1) {
      for (int64_t part : given)
        if (part < 0 || part > size) n.fail(ErrorCode::corrupt, "a part of size {}", part);
      sizes = given;
    } else {
      if (given.size() != 1 || given[0] < 1)
        n.fail(ErrorCode::corrupt, "parts of {}", fmt::join(given, ", "));
      for (int64_t at = 0; at < size; at += given[0])
        sizes.push_back(std::min(given[0], size - at));
    }
  } else {
    sizes.assign(static_cast<size_t>(size), 1);
  }
  std::vector<ValPtr> parts = im.calls(n, "split", {x}, {{"sizes", sizes}, {"dim", axis}});
  if (!keep)
    for (ValPtr& v : parts) v = im.call(n, "squeeze", {v}, {{"dim", axis}});
  im.out(n, 0, sequence_val(std::move(parts)));
}

// The body once for each element; tensors among the inputs are the same for all.
void import_map(Importer& im, const NodeView& n) {
  const onnx::GraphProto& body = n.get_graph("body");
  const size_t count = im.sequence(n, 0).size();
  std::vector<std::vector<ValPtr>> made(n.output_count());
  for (size_t k = 0; k < count; ++k) {
    std::vector<ValPtr> inputs;
    for (size_t i = 0; i < n.input_count(); ++i) {
      ValPtr v = im.any_in(n, i);
      if (v->elements && v->elements->size() != count)
        n.fail(ErrorCode::corrupt, "sequences of {} and {} elements", count, v->elements->size());
      inputs.push_back(v->elements ? (*v->elements)[k] : v);
    }
    const std::vector<ValPtr> results = im.inline_graph(body, inputs);
    if (results.size() < made.size())
      n.fail(ErrorCode::corrupt, "its body has {} outputs", results.size());
    for (size_t i = 0; i < made.size(); ++i) made[i].push_back(results[i]);
  }
  for (size_t i = 0; i < made.size(); ++i) {
    const bool rejected = std::find(made[i].begin(), made[i].end(), nullptr) != made[i].end();
    im.out(n, i, rejected ? nullptr : sequence_val(made[i]));
  }
}

}  // namespace

void add_sequences(Handlers& h) {
  h["SequenceEmpty"] = [](Importer& im, const NodeView& n) {
    n.ignore({"dtype"});
    im.out(n, 0, sequence_val({}));
  };
  h["SequenceConstruct"] = import_construct;
  h["SequenceInsert"] = import_insert;
  h["SequenceErase"] = import_erase;
  h["SequenceAt"] = import_at;
  h["SequenceLength"] = import_length;
  h["ConcatFromSequence"] = import_concat_from;
  h["SequenceMap"] = import_map;
  h["SplitToSequence"] = import_split_to;
}

}  // namespace octet::io::onnx_impl
