// Writers of convolutions, matrix products, pools and normalizations.
#include "octet/io/onnx/exporter_impl.h"
#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

OnnxAttrs conv_attrs_of(const CallView& c) {
  const Attrs& a = c.attrs();
  std::vector<int64_t> kernel;
  for (int64_t d = 2; d < c.rank(1); ++d)
    kernel.push_back(c.type(1).dims[static_cast<size_t>(d)].size());
  return {{"dilations", a.get_ints("dilation")},
          {"group", a.get_int("groups")},
          {"kernel_shape", kernel},
          {"pads", a.get_ints("padding")},
          {"strides", a.get_ints("stride")}};
}

void write_conv(Exporter& ex, const CallView& c) {
  write_activated(ex, c, "Conv", c.in, conv_attrs_of(c));
}

void write_conv_transpose(Exporter& ex, const CallView& c) {
  OnnxAttrs attrs = conv_attrs_of(c);
  attrs.push_back({"output_padding", c.attrs().get_ints("output_padding")});
  write_activated(ex, c, "ConvTranspose", c.in, attrs);
}

// Gemm for matrices, MatMul and Add for operands of more dimensions.
void write_linear(Exporter& ex, const CallView& c) {
  if (c.rank(0) == 2) return write_activated(ex, c, "Gemm", c.in, {{"transB", int64_t{1}}});
  Names in{c.in[0], ex.transposed_weight(c, 1)};
  if (!c.has(2)) return write_activated(ex, c, "MatMul", in, {});
  write_activated(ex, c, "Add", {ex.step(c, "MatMul", in), c.in[2]}, {});
}

OnnxAttrs pool_attrs(const Attrs& a) {
  return {{"ceil_mode", static_cast<int64_t>(a.get_bool("ceil_mode"))},
          {"kernel_shape", a.get_ints("kernel")},
          {"pads", a.get_ints("padding")},
          {"strides", a.get_ints("stride")}};
}

void write_max_pool(Exporter& ex, const CallView& c) {
  OnnxAttrs attrs = pool_attrs(c.attrs());
  attrs.push_back({"dilations", c.attrs().get_ints("dilation")});
  ex.add(c, "MaxPool", c.in, c.out[0], attrs);
}

void write_avg_pool(Exporter& ex, const CallView& c) {
  if (int64_t divisor =
          c.attrs().has("divisor_override") ? c.attrs().get_int("divisor_override") : 0)
    throw Exporter::Unsupported{fmt::format("an average pool that divides by {}", divisor)};
  OnnxAttrs attrs = pool_attrs(c.attrs());
  attrs.push_back(
      {"count_include_pad", static_cast<int64_t>(c.attrs().get_bool("count_include_pad"))});
  ex.add(c, "AveragePool", c.in, c.out[0], attrs);
}

// An even grid is an ordinary pool; ONNX has no other.
template <bool kMax>
void write_adaptive_pool(Exporter& ex, const CallView& c) {
  const auto& size = c.attrs().get_ints("output_size");
  if (std::all_of(size.begin(), size.end(), [](int64_t n) { return n == 1; })) {
    ex.add(c, kMax ? "GlobalMaxPool" : "GlobalAveragePool", c.in, c.out[0]);
    return;
  }
  std::vector<int64_t> window;
  for (size_t i = 0; i < size.size(); ++i) {
    const Dim& in = c.type(0).dims[i + 2];
    if (!in.known() || in.size() % size[i] != 0)
      throw Exporter::Unsupported{
          fmt::format("an adaptive pool of {} to {} pixels", to_string(in), size[i])};
    window.push_back(in.size() / size[i]);
  }
  ex.add(c, kMax ? "MaxPool" : "AveragePool", c.in, c.out[0],
         {{"kernel_shape", window}, {"strides", window}});
}

void write_batch_norm(Exporter& ex, const CallView& c) {
  ex.add(c, "BatchNormalization", c.in, c.out[0], {{"epsilon", c.attrs().get_double("eps")}});
}

// The name of operand i, or of a constant vector if it is omitted.
std::string vector_or(Exporter& ex, const CallView& c, size_t i, int64_t count, double value,
                      const char* what) {
  return c.has(i) ? c.in[i] : ex.initializer(c.out[0] + "." + what, Tensor::full({count}, value));
}

int64_t known_channels(const CallView& c) {
  if (!c.type(0).dims[1].known()) throw Exporter::Unsupported{"an unknown number of channels"};
  return c.type(0).dims[1].size();
}

void write_instance_norm(Exporter& ex, const CallView& c) {
  int64_t channels = known_channels(c);
  Names in{c.in[0], vector_or(ex, c, 1, channels, 1, "weight"),
           vector_or(ex, c, 2, channels, 0, "bias")};
  ex.add(c, "InstanceNormalization", in, c.out[0], {{"epsilon", c.attrs().get_double("eps")}});
}

// As PyTorch writes it: groups as the channels of an instance norm, then a scale and a shift per
// channel.
void write_group_norm(Exporter& ex, const CallView& c) {
  int64_t groups = c.attrs().get_int("groups");
  std::string grouped = ex.step(c, "Reshape", {c.in[0], ex.ints(c, "grouped", {0, groups, -1})});
  std::string ones = ex.initializer(c.out[0] + ".ones", Tensor::ones({groups}));
  std::string zeros = ex.initializer(c.out[0] + ".zeros", Tensor::zeros({groups}));
  std::string y = ex.step(c, "InstanceNormalization", {grouped, ones, zeros},
                          {{"epsilon", c.attrs().get_double("eps")}});
  std::vector<int64_t> shape{0};
  for (size_t d = 1; d < c.type(0).dims.size(); ++d) {
    if (!c.type(0).dims[d].known()) throw Exporter::Unsupported{"data of unknown size"};
    shape.push_back(c.type(0).dims[d].size());
  }
  std::vector<int64_t> per_channel(static_cast<size_t>(c.rank()) - 1, 1);
  per_channel[0] = -1;
  bool weight = c.has(1), bias = c.has(2);
  auto reshape = [&](const std::string& x, const std::vector<int64_t>& to, bool last) {
    Names in{x, ex.ints(c, "shape", to)};
    return last ? ex.add(c, "Reshape", in, c.out[0]) : ex.step(c, "Reshape", in);
  };
  y = reshape(y, shape, !weight && !bias);
  if (weight) {
    Names in{y, reshape(c.in[1], per_channel, false)};
    y = bias ? ex.step(c, "Mul", in) : ex.add(c, "Mul", in, c.out[0]);
  }
  if (bias) ex.add(c, "Add", {y, reshape(c.in[2], per_channel, false)}, c.out[0]);
}

// The parts that import's pattern puts together again.
void write_layer_norm(Exporter& ex, const CallView& c) {
  std::vector<int64_t> axes;
  int64_t axis = c.attrs().get_int("axis");
  for (int64_t d = axis < 0 ? axis + c.rank() : axis; d < c.rank(); ++d) axes.push_back(d);
  const bool input = ex.opset() >= 18;  // of ReduceMean
  const std::string given = input ? ex.ints(c, "axes", axes) : "";
  OnnxAttrs over{{"keepdims", int64_t{1}}};
  if (!input) over.insert(over.begin(), {"axes", axes});
  std::string centered =
      ex.step(c, "Sub", {c.in[0], ex.step(c, "ReduceMean", {c.in[0], given}, over)});
  std::string square = ex.step(c, "Pow", {centered, ex.scalar(c, 2)});
  std::string variance = ex.step(c, "ReduceMean", {square, given}, over);
  std::string eps = ex.scalar(c, static_cast<float>(c.attrs().get_double("eps")));
  std::string deviation = ex.step(c, "Sqrt", {ex.step(c, "Add", {variance, eps})});
  auto put = [&](const char* op, Names in, bool last) {
    return last ? ex.add(c, op, in, c.out[0]) : ex.step(c, op, in);
  };
  std::string y = put("Div", {centered, deviation}, !c.has(1) && !c.has(2));
  if (c.has(1)) y = put("Mul", {y, c.in[1]}, !c.has(2));
  if (c.has(2)) put("Add", {y, c.in[2]}, true);
}

}  // namespace

void add_layer_writers(std::unordered_map<std::string, Writer>& w) {
  w["conv1d"] = write_conv;
  w["conv2d"] = write_conv;
  w["conv3d"] = write_conv;
  for (const char* op : {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})
    w[op] = write_conv_transpose;
  w["linear"] = write_linear;
  for (const char* dims : {"1d", "2d", "3d"}) {
    w[std::string("max_pool") + dims] = write_max_pool;
    w[std::string("avg_pool") + dims] = write_avg_pool;
    w[std::string("adaptive_avg_pool") + dims] = write_adaptive_pool<false>;
    w[std::string("adaptive_max_pool") + dims] = write_adaptive_pool<true>;
  }
  w["batch_norm"] = write_batch_norm;
  w["instance_norm"] = write_instance_norm;
  w["group_norm"] = write_group_norm;
  w["layer_norm"] = write_layer_norm;
}

}  // namespace octet::io::onnx_impl
