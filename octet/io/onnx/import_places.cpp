// Operators that read and write elements at places that an operand lists, and those that are made
// of such places: one-hot vectors, reversed sequences.
#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

void need_integer_index(const NodeView& n, const Val& index) {
  if (is_floating(index.type.dtype) || index.type.is_quantized())
    n.fail(ErrorCode::corrupt, "the indices are {}", to_string(index.type));
}

void import_gather_elements(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0), index = im.in(n, 1);
  need_integer_index(n, *index);
  im.out(n, 0,
         im.call(n, "gather_elements", {x, index},
                 {{"dim", axis_of(n, n.get_int("axis", 0), x->rank())}}));
}

void import_gather_nd(Importer& im, const NodeView& n) {
  ValPtr index = im.in(n, 1);
  need_integer_index(n, *index);
  im.out(
      n, 0,
      im.call(n, "gather_nd", {im.in(n, 0), index}, {{"batch_dims", n.get_int("batch_dims", 0)}}));
}

void import_scatter(Importer& im, const NodeView& n, bool elements) {
  ValPtr x = im.in(n, 0), index = im.in(n, 1), updates = im.in(n, 2);
  need_integer_index(n, *index);
  Attrs attrs{{"reduction", n.get_string("reduction", "none")}};
  if (elements) attrs.set("dim", axis_of(n, n.get_int("axis", 0), x->rank()));
  im.out(n, 0,
         im.call(n, elements ? "scatter_elements" : "scatter_nd", {x, index, updates}, attrs));
}

// The slices whose flag is set; without an axis of the data as one list.
void import_compress(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0), flags = im.in(n, 1);
  if (flags->rank() != 1)
    n.fail(ErrorCode::corrupt, "the condition is {}; expected a list", to_string(flags->type));
  int64_t axis = 0;
  if (n.has("axis"))
    axis = axis_of(n, n.get_int("axis", 0), x->rank());
  else
    x = im.call(n, "reshape", {x}, {{"shape", std::vector<int64_t>{-1}}});
  ValPtr places = im.call(n, "nonzero", {flags});
  places = im.call(n, "squeeze", {places}, {{"dim", int64_t{0}}});
  im.out(n, 0, im.call(n, "index_select", {x, places}, {{"dim", axis}}));
}

// One more dimension, in which element i is `on` where the index is i, else `off`. A negative index
// counts from the end; one out of range sets nothing.
void import_one_hot(Importer& im, const NodeView& n) {
  ValPtr index = im.cast(n, im.in(n, 0), DType::int64), depth = im.in(n, 1), values = im.in(n, 2);
  const int64_t axis = axis_of(n, n.get_int("axis", -1), index->rank() + 1);
  if (values->rank() != 1 || values->dims()[0] != Dim(2))
    n.fail(ErrorCode::corrupt, "its values are {}; expected two", to_string(values->type));
  if (depth->rank() == 1) depth = im.call(n, "squeeze", {depth}, {{"dim", int64_t{0}}});
  depth = im.cast(n, depth, DType::int64);
  ValPtr classes;
  if (depth->constant.defined() && !(depth->constant.numel() == 1 && depth->constant.item() >= 0))
    n.fail(ErrorCode::corrupt, "its depth is {}", to_string(depth->constant));
  if (depth->constant.defined())
    classes = constant_val("", Tensor::arange(static_cast<int64_t>(depth->constant.item())));
  else
    classes = im.call(n, "arange", {depth}, {{"end", FromOperand{0}}});
  for (int64_t d = axis; d < index->rank(); ++d)
    classes = im.call(n, "unsqueeze", {classes}, {{"dim", int64_t{1}}});
  ValPtr negative = im.call(n, "less", {index, im.scalar(n, 0, DType::int64)});
  index = im.call(n, "where", {negative, im.call(n, "add", {index, depth}), index});
  index = im.call(n, "unsqueeze", {index}, {{"dim", axis}});
  const auto value = [&](int64_t i) {
    ValPtr one = im.call(n, "slice", {values}, {{"dim", int64_t{0}}, {"start", i}, {"end", i + 1}});
    return im.call(n, "squeeze", {one}, {{"dim", int64_t{0}}});
  };
  im.out(n, 0, im.call(n, "where", {im.call(n, "equal", {index, classes}), value(1), value(0)}));
}

// The first seq_lens[b] steps of each sequence backwards, the rest as it is.
void import_reverse_sequence(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0), lengths = im.cast(n, im.in(n, 1), DType::int64);
  const int64_t batch = n.get_int("batch_axis", 1), time = n.get_int("time_axis", 0);
  if (batch + time != 1 || batch * time != 0 || x->rank() < 2)
    n.fail(ErrorCode::corrupt, "batch_axis={} and time_axis={} of {}", batch, time,
           to_string(x->type));
  ValPtr steps = count_up(im, n, x, time);
  // (steps, 1) and (1, batch), or the other way round
  steps = im.call(n, "unsqueeze", {steps}, {{"dim", batch}});
  lengths = im.call(n, "unsqueeze", {lengths}, {{"dim", time}});
  ValPtr last = im.call(n, "sub", {lengths, im.scalar(n, 1, DType::int64)});
  ValPtr index = im.call(
      n, "where", {im.call(n, "less", {steps, lengths}), im.call(n, "sub", {last, steps}), steps});
  for (int64_t d = 2; d < x->rank(); ++d) index = im.call(n, "unsqueeze", {index}, {{"dim", d}});
  im.out(n, 0, im.call(n, "gather_elements", {x, expand_like(im, n, index, x)}, {{"dim", time}}));
}

// The data at its places among zeros: element I[i] of the result as one list is X[i].
void import_max_unpool(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0), index = im.in(n, 1);
  const auto spatial = static_cast<size_t>(x->rank() - 2);
  Shape shape;
  if (n.has_input(2)) {
    for (const char* unused : {"kernel_shape", "pads", "strides"}) n.ignore({unused});
    shape = im.known_ints(n, 2, "output_shape");
  } else {
    const Window w = read_window(im, n, x, {}, std::nullopt);
    for (int64_t d : {0, 1}) shape.push_back(known_dim(n, *x, d, "MaxUnpool"));
    for (size_t d = 0; d < spatial; ++d)
      shape.push_back((known_dim(n, *x, static_cast<int64_t>(d) + 2, "MaxUnpool") - 1) *
                          w.stride[d] +
                      w.kernel[d] - w.pads[d] - w.pads[d + spatial]);
  }
  constexpr double kMostUnpooled = 1e12;
  double elements = 1;
  for (int64_t size : shape) {
    if (size < 0) n.fail(ErrorCode::corrupt, "a size of {}", size);
    elements *= static_cast<double>(size);
  }
  if (elements > kMostUnpooled) n.fail(ErrorCode::corrupt, "{} elements", elements);
  const Attrs flat{{"shape", std::vector<int64_t>{-1}}};
  ValPtr zeros = constant_val("", Tensor::zeros({numel(shape)}, x->type.dtype));
  ValPtr y =
      im.call(n, "scatter_elements",
              {zeros, im.call(n, "reshape", {index}, flat), im.call(n, "reshape", {x}, flat)});
  im.out(n, 0, im.call(n, "reshape", {y}, {{"shape", shape}}));
}

}  // namespace

ValPtr shape_of(Importer& im, const NodeView& n, const ValPtr& x) {
  if (!x->type.is_static()) return im.call(n, "shape", {x});
  const Shape shape = x->type.shape();
  return constant_val("", Tensor::from(shape, {static_cast<int64_t>(shape.size())}));
}

ValPtr expand_like(Importer& im, const NodeView& n, const ValPtr& x, const ValPtr& like) {
  if (like->type.is_static())
    return im.call(n, "expand", {x}, {{"shape", std::vector<int64_t>(like->type.shape())}});
  return im.call(n, "expand", {x, shape_of(im, n, like)}, {{"shape", FromOperand{1}}});
}

ValPtr count_up(Importer& im, const NodeView& n, const ValPtr& x, int64_t d) {
  if (const Dim& size = x->dims()[static_cast<size_t>(d)]; size.known())
    return constant_val("", Tensor::arange(size.size()));
  ValPtr size = im.call(n, "shape", {x}, {{"start", d}, {"end", d + 1}});
  return im.call(n, "arange", {size}, {{"end", FromOperand{0}}});
}

void add_places(Handlers& h) {
  h["GatherElements"] = import_gather_elements;
  h["GatherND"] = import_gather_nd;
  h["ScatterElements"] = [](Importer& im, const NodeView& n) { import_scatter(im, n, true); };
  h["Scatter"] = h["ScatterElements"];  // its name in opset 9
  h["ScatterND"] = [](Importer& im, const NodeView& n) { import_scatter(im, n, false); };
  h["Compress"] = import_compress;
  h["OneHot"] = import_one_hot;
  h["ReverseSequence"] = import_reverse_sequence;
  h["MaxUnpool"] = import_max_unpool;
}

}  // namespace octet::io::onnx_impl
