// Writers of operators that move, pick and resize.
#include <algorithm>
#include <cmath>
#include <limits>

#include "octet/io/onnx/exporter_impl.h"
#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

// A Reshape to a result's dims: sizes that stay in their place are copied, one may be inferred.
void write_reshape_to_result(Exporter& ex, const CallView& c) {
  std::vector<int64_t> shape;
  bool inferred = false;
  const auto &from = c.type(0).dims, &to = c.result().dims;
  for (size_t d = 0; d < to.size(); ++d) {
    if (to[d].known())
      shape.push_back(to[d].size());
    else if (d < from.size() && from[d] == to[d])
      shape.push_back(0);
    else if (!inferred)
      shape.push_back(-1), inferred = true;
    else
      throw Exporter::Unsupported{"more than one size that is known only at run time"};
  }
  ex.add(c, "Reshape", {c.in[0], ex.ints(c, "shape", shape)}, c.out[0]);
}

void write_flatten(Exporter& ex, const CallView& c) {
  int64_t rank = c.rank(), start = c.attrs().get_int("start_dim"),
          end = c.attrs().get_int("end_dim");
  if (rank > 1 && start == 1 && (end == -1 || end == rank - 1))
    ex.add(c, "Flatten", c.in, c.out[0], {{"axis", int64_t{1}}});
  else
    write_reshape_to_result(ex, c);
}

void write_expand(Exporter& ex, const CallView& c) {
  if (c.attrs().any_operand()) {
    ex.add(c, "Expand", {c.in[0], ex.given(c, "shape", "shape")}, c.out[0]);
    return;
  }
  std::vector<int64_t> shape = c.attrs().get_ints("shape");
  for (int64_t& d : shape)
    if (d == -1) d = 1;  // both keep the operand's size
  ex.add(c, "Expand", {c.in[0], ex.ints(c, "shape", shape)}, c.out[0]);
}

void write_slice(Exporter& ex, const CallView& c) {
  ex.add(c, "Slice",
         {c.in[0], ex.given(c, "starts", "start"), ex.given(c, "ends", "end"),
          ex.given(c, "axes", "dim"), ex.given(c, "steps", "step")},
         c.out[0]);
}

// Opset 13 has no mode "wrap": the ends of what is left of x, put before and behind it.
void write_wrapped(Exporter& ex, const CallView& c) {
  const std::vector<int64_t>& pads = c.attrs().get_ints("pads");
  const auto rank = static_cast<size_t>(c.rank());
  constexpr int64_t kEnd = std::numeric_limits<int64_t>::max();
  std::string x = c.in[0];
  for (size_t d = 0; d < rank; ++d) {
    const int64_t before = pads[d], after = pads[d + rank];
    if (before == 0 && after == 0) continue;
    const std::string axis = ex.ints(c, "axes", {static_cast<int64_t>(d)});
    auto slice = [&](int64_t start, int64_t end) {
      return ex.step(c, "Slice",
                     {x, ex.ints(c, "starts", {start}), ex.ints(c, "ends", {end}), axis});
    };
    if (before < 0 || after < 0) x = slice(std::max<int64_t>(-before, 0), after < 0 ? after : kEnd);
    Names parts;
    if (before > 0) parts.push_back(slice(-before, kEnd));
    parts.push_back(x);
    if (after > 0) parts.push_back(slice(0, after));
    if (parts.size() > 1) x = ex.step(c, "Concat", parts, {{"axis", static_cast<int64_t>(d)}});
  }
  ex.add(c, "Identity", {x}, c.out[0]);
}

void write_pad(Exporter& ex, const CallView& c) {
  const std::string& mode = c.attrs().get_string("mode");
  if (mode == "wrap") {
    if (c.attrs().any_operand())
      throw Exporter::Unsupported{"mode \"wrap\" with pads known only at run time"};
    return write_wrapped(ex, c);
  }
  if (mode == "constant" && c.type(0).dtype != DType::float32 && !c.type(0).is_quantized())
    throw Exporter::Unsupported{"pad of " + to_string(c.type(0).dtype)};
  std::string value;
  if (const auto i = c.attrs().operand("value"))
    value = c.in.at(*i);
  else if (mode == "constant")
    value = ex.scalar(c, static_cast<float>(c.attrs().get_double("value")));
  ex.add(c, "Pad", {c.in[0], ex.given(c, "pads", "pads"), value}, c.out[0], {{"mode", mode}});
}

// Opset 13 has no Trilu: where the sizes are known, what is outside the triangle is chosen to be 0.
void write_triangle(Exporter& ex, const CallView& c, bool upper) {
  const auto& dims = c.type(0).dims;
  const Dim &rows = dims[dims.size() - 2], &columns = dims.back();
  const bool number = c.type(0).dtype == DType::float32 || c.type(0).is_quantized();
  const char* reason = c.attrs().any_operand() ? "with a diagonal known only at run time"
                       : !rows.known() || !columns.known() ? "of a matrix of unknown size"
                       : !number                           ? "of integers"
                                                           : nullptr;
  if (reason || ex.opset() >= 14) {
    if (reason) ex.need(14, fmt::format("{} {}", c.node.op, reason));
    std::string k;
    if (const auto i = c.attrs().operand("diagonal"))
      k = c.type(*i).dim() == 0 ? c.in.at(*i) : ex.step(c, "Squeeze", {c.in.at(*i)});
    else if (const int64_t diagonal = c.attrs().get_int("diagonal"))
      k = ex.initializer(c.out[0] + ".k", Tensor::scalar(diagonal, DType::int64));
    ex.add(c, "Trilu", {c.in[0], k}, c.out[0], {{"upper", static_cast<int64_t>(upper)}});
    return;
  }
  Tensor mask = Tensor::zeros({rows.size(), columns.size()}, DType::bool_);
  int64_t k = c.attrs().get_int("diagonal");
  for (int64_t i = 0; i < rows.size(); ++i)
    for (int64_t j = 0; j < columns.size(); ++j)
      mask.data<bool>()[i * columns.size() + j] = upper ? j - i >= k : j - i <= k;
  ex.add(c, "Where", {ex.initializer(c.out[0] + ".mask", mask), c.in[0], ex.scalar(c, 0)},
         c.out[0]);
}

// With sizes or scales that an operand gives, of all dimensions or of all but the first two.
void write_open_resize(Exporter& ex, const CallView& c, const OnnxAttrs& attrs) {
  if (c.attrs().operand("roi") || c.attrs().get_string("coordinates") == "tf_crop_and_resize")
    throw Exporter::Unsupported{"a roi beside sizes known only at run time"};
  const bool by_size = c.attrs().operand("size").has_value();
  const size_t i = *c.attrs().operand(by_size ? "size" : "scales");
  std::string all = c.in.at(i);
  if (const int64_t kept = c.rank() - numel(c.type(i).shape()); kept > 0) {
    const std::string first =
        by_size ? ex.step(c, "Slice",
                          {ex.step(c, "Shape", {ex.codes(c.node.inputs[0])}),
                           ex.ints(c, "begin", {int64_t{0}}), ex.ints(c, "end", {kept})})
                : ex.initializer(
                      c.out[0] + ".scales",
                      Tensor::from(std::vector<float>(static_cast<size_t>(kept), 1), {kept}));
    all = ex.step(c, "Concat", {first, all}, {{"axis", int64_t{0}}});
  }
  ex.add(c, "Resize", by_size ? Names{c.in[0], "", "", all} : Names{c.in[0], "", all}, c.out[0],
         attrs);
}

// The sizes of some dimensions: opset 13 only has those of all.
void write_shape(Exporter& ex, const CallView& c) {
  const int64_t rank = c.rank(), start = c.attrs().get_int("start"), end = c.attrs().get_int("end");
  if (start == 0 && end >= rank) {
    ex.add(c, "Shape", {c.in[0]}, c.out[0]);
    return;
  }
  const std::string all = ex.step(c, "Shape", {ex.codes(c.node.inputs[0])});
  ex.add(c, "Slice", {all, ex.ints(c, "begin", {start}), ex.ints(c, "end", {end})}, c.out[0]);
}

void write_range(Exporter& ex, const CallView& c) {
  const auto number = [&](const char* name) {
    const auto i = c.attrs().operand(name);
    if (!i)
      return ex.initializer(c.out[0] + "." + name,
                            Tensor::scalar(c.attrs().get_double(name), c.result().dtype));
    const std::string& given = c.in.at(*i);
    return c.type(*i).dim() == 0 ? given : ex.step(c, "Squeeze", {given});
  };
  ex.add(c, "Range", {number("start"), number("end"), number("step")}, c.out[0]);
}

void write_interpolate(Exporter& ex, const CallView& c) {
  const Attrs& a = c.attrs();
  const std::string& coordinates = a.get_string("coordinates");
  const bool antialias = a.get_bool("antialias") && a.get_string("mode") != "nearest";
  if (antialias) ex.need(18, "interpolate with antialias");
  if (coordinates == "half_pixel_symmetric")
    ex.need(19, "interpolate with coordinates=\"half_pixel_symmetric\"");
  OnnxAttrs attrs{{"coordinate_transformation_mode", coordinates},
                  {"cubic_coeff_a", a.get_double("cubic_coeff")},
                  {"exclude_outside", static_cast<int64_t>(a.get_bool("exclude_outside"))},
                  {"mode", a.get_string("mode")},
                  {"nearest_mode", a.get_string("nearest_rounding")}};
  if (antialias) attrs.push_back({"antialias", int64_t{1}});
  if (a.any_operand()) return write_open_resize(ex, c, attrs);
  auto rank = static_cast<size_t>(c.rank());
  std::vector<double> scales = a.get_doubles("scales"), roi = a.get_doubles("roi");
  std::string roi_name;
  if (!roi.empty()) {
    std::vector<float> all(rank - roi.size() / 2, 0);  // N and C as they are
    all.insert(all.end(), roi.begin(), roi.begin() + static_cast<std::ptrdiff_t>(roi.size() / 2));
    all.insert(all.end(), rank - roi.size() / 2, 1);
    all.insert(all.end(), roi.begin() + static_cast<std::ptrdiff_t>(roi.size() / 2), roi.end());
    roi_name =
        ex.initializer(c.out[0] + ".roi", Tensor::from(all, {static_cast<int64_t>(all.size())}));
    attrs.push_back({"extrapolation_value", a.get_double("extrapolation")});
  }
  if (!scales.empty()) {
    if (!a.get_doubles("size").empty()) throw Exporter::Unsupported{"sizes beside scales"};
    std::vector<float> all(rank - std::min(rank, scales.size()), 1);  // N and C stay
    all.insert(all.end(), scales.begin(), scales.end());
    std::string name =
        ex.initializer(c.out[0] + ".scales", Tensor::from(all, {static_cast<int64_t>(all.size())}));
    ex.add(c, "Resize", {c.in[0], roi_name, name}, c.out[0], attrs);
    return;
  }
  std::vector<int64_t> sizes;
  bool known = true;
  for (const Dim& d : c.result().dims) {
    known &= d.known();
    sizes.push_back(d.known() ? d.size() : -1);
  }
  if (known) {
    ex.add(c, "Resize", {c.in[0], roi_name, "", ex.ints(c, "sizes", sizes)}, c.out[0], attrs);
    return;
  }
  // Sizes are given for all dimensions: those that stay and are known only at run time are the
  // operand's.
  size_t from = 0;
  while (from < rank && c.result().dims[from] == c.type(0).dims[from]) ++from;
  for (size_t d = from; d < rank; ++d)
    if (sizes[d] < 0)
      throw Exporter::Unsupported{
          fmt::format("sizes beside a dimension '{}' that is known only at run time",
                      c.result().dims[d].name())};
  std::string shape = ex.step(c, "Shape", {ex.codes(c.node.inputs[0])});
  std::string kept =
      ex.step(c, "Slice",
              {shape, ex.ints(c, "begin", {0}), ex.ints(c, "end", {static_cast<int64_t>(from)})});
  std::string rest =
      ex.ints(c, "sizes", {sizes.begin() + static_cast<std::ptrdiff_t>(from), sizes.end()});
  std::string all = ex.step(c, "Concat", {kept, rest}, {{"axis", int64_t{0}}});
  ex.add(c, "Resize", {c.in[0], roi_name, "", all}, c.out[0], attrs);
}

void write_suppression(Exporter& ex, const CallView& c) {
  const auto number = [&](const char* name) -> std::string {
    if (const auto i = c.attrs().operand(name)) return c.in.at(*i);
    const double value = c.attrs().get_double(name);
    if (std::isinf(value)) return "";
    return ex.initializer(c.out[0] + "." + name, Tensor::full({1}, value));
  };
  ex.add(c, "NonMaxSuppression",
         {c.in[0], c.in[1], ex.given(c, "max_output", "max_output"), number("iou_threshold"),
          number("score_threshold")},
         c.out[0],
         {{"center_point_box", static_cast<int64_t>(c.attrs().get_bool("center_point_box"))}});
}

void write_scatter(Exporter& ex, const CallView& c, const char* op, OnnxAttrs attrs) {
  if (const std::string& r = c.attrs().get_string("reduction"); r != "none") {
    ex.need(r == "add" || r == "mul" ? 16 : 18,
            fmt::format("{} with reduction=\"{}\"", c.node.op, r));
    attrs.push_back({"reduction", r});
  }
  ex.add(c, op, c.in, c.out[0], attrs);
}

}  // namespace

void add_movement_writers(std::unordered_map<std::string, Writer>& w) {
  w["reshape"] = [](Exporter& ex, const CallView& c) {
    OnnxAttrs attrs;
    if (c.attrs().get_bool("allow_zero")) {
      ex.need(14, "reshape with sizes of 0 that mean 0");
      attrs.push_back({"allowzero", int64_t{1}});
    }
    ex.add(c, "Reshape", {c.in[0], ex.given(c, "shape", "shape")}, c.out[0], attrs);
  };
  w["flatten"] = write_flatten;
  w["permute"] = [](Exporter& ex, const CallView& c) {
    ex.add(c, "Transpose", c.in, c.out[0], {{"perm", c.attrs().get_ints("dims")}});
  };
  w["unsqueeze"] = [](Exporter& ex, const CallView& c) {
    ex.add(c, "Unsqueeze", {c.in[0], ex.given(c, "axes", "dim")}, c.out[0]);
  };
  w["squeeze"] = [](Exporter& ex, const CallView& c) {
    ex.add(c, "Squeeze", {c.in[0], ex.given(c, "axes", "dim")}, c.out[0]);
  };
  w["expand"] = write_expand;
  w["slice"] = write_slice;
  w["split"] = [](Exporter& ex, const CallView& c) {
    ex.add(c, "Split", {c.in[0], ex.given(c, "sizes", "sizes")}, c.out[0],
           {{"axis", c.attrs().get_int("dim")}});
  };
  w["cat"] = [](Exporter& ex, const CallView& c) {
    ex.add(c, "Concat", c.in, c.out[0], {{"axis", c.attrs().get_int("dim")}});
  };
  w["pad"] = write_pad;
  w["index_select"] = [](Exporter& ex, const CallView& c) {
    ex.add(c, "Gather", c.in, c.out[0], {{"axis", c.attrs().get_int("dim")}});
  };
  w["embedding"] = [](Exporter& ex, const CallView& c) {
    ex.add(c, "Gather", c.in, c.out[0], {{"axis", int64_t{0}}});
  };
  w["gather_elements"] = [](Exporter& ex, const CallView& c) {
    ex.add(c, "GatherElements", c.in, c.out[0], {{"axis", c.attrs().get_int("dim")}});
  };
  w["gather_nd"] = [](Exporter& ex, const CallView& c) {
    ex.add(c, "GatherND", c.in, c.out[0], {{"batch_dims", c.attrs().get_int("batch_dims")}});
  };
  w["scatter_elements"] = [](Exporter& ex, const CallView& c) {
    write_scatter(ex, c, "ScatterElements", {{"axis", c.attrs().get_int("dim")}});
  };
  w["scatter_nd"] = [](Exporter& ex, const CallView& c) { write_scatter(ex, c, "ScatterND", {}); };
  w["roi_align"] = [](Exporter& ex, const CallView& c) {
    const Attrs& a = c.attrs();
    if (a.get_string("coordinates") != "output_half_pixel")
      ex.need(16, "roi_align with coordinates=\"half_pixel\"");
    const std::vector<int64_t>& size = a.get_ints("output_size");
    const std::string images =
        c.type(2).dtype == DType::int64
            ? c.in[2]
            : ex.step(c, "Cast", {c.in[2]}, {{"to", int64_t{onnx_type_of(DType::int64)}}});
    OnnxAttrs attrs{{"mode", a.get_string("mode")},
                    {"output_height", size.at(0)},
                    {"output_width", size.at(1)},
                    {"sampling_ratio", a.get_int("sampling_ratio")},
                    {"spatial_scale", a.get_double("spatial_scale")}};
    if (ex.opset() >= 16)  // before, it was always output_half_pixel
      attrs.push_back({"coordinate_transformation_mode", a.get_string("coordinates")});
    ex.add(c, "RoiAlign", {c.in[0], c.in[1], images}, c.out[0], attrs);
  };
  w["non_max_suppression"] = write_suppression;
  w["tile"] = [](Exporter& ex, const CallView& c) {
    ex.add(c, "Tile", {c.in[0], ex.given(c, "repeats", "repeats")}, c.out[0]);
  };
  w["triu"] = [](Exporter& ex, const CallView& c) { write_triangle(ex, c, true); };
  w["tril"] = [](Exporter& ex, const CallView& c) { write_triangle(ex, c, false); };
  w["topk"] = [](Exporter& ex, const CallView& c) {
    ex.add(c, "TopK", {c.in[0], ex.given(c, "k", "k")}, c.out[0],
           {{"axis", c.attrs().get_int("dim")},
            {"largest", static_cast<int64_t>(c.attrs().get_bool("largest"))}});
  };
  w["pixel_shuffle"] = [](Exporter& ex, const CallView& c) {
    ex.add(c, "DepthToSpace", c.in, c.out[0],
           {{"blocksize", c.attrs().get_int("upscale_factor")}, {"mode", std::string("CRD")}});
  };
  w["interpolate"] = write_interpolate;
  w["shape"] = write_shape;
  w["arange"] = write_range;
}

}  // namespace octet::io::onnx_impl
