// Writers of operators on plain integers, and of dynamic layers: the nodes that import makes them
// of.
#include <onnx/onnx_pb.h>

#include <cmath>

#include "octet/io/onnx/exporter_impl.h"
#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

// Channels-first: a vector of one number per channel as it broadcasts over a result with
// `after` dimensions behind the channels.
Tensor per_channel(const Tensor& vector, int64_t after) {
  if (vector.numel() == 1) return vector.reshape({});
  Shape shape(static_cast<size_t>(after + 1), 1);
  shape[0] = vector.numel();
  return vector.reshape(shape);
}

void write_dynamic(Exporter& ex, const CallView& c) {
  const ops::Traits& traits = ops::get(c.node.op).traits();
  const graph::ValueId id = c.node.inputs[1];
  if (traits.transposed || !c.graph.is_constant(id) || !c.type(1).is_quantized())
    throw Exporter::Unsupported{"ONNX multiplies integers in plain convolutions and products only"};
  if (!c.type(0).is_quantized() && c.attrs().get_bool("reduce_range"))
    throw Exporter::Unsupported{
        "it quantizes its operand to 7 bits, which ONNX has no operator for"};
  const bool linear = std::string(traits.layer) == "linear";
  const std::string& y = c.out[0];
  std::string x, scale, zero;
  if (const TensorType& type = c.type(0); type.is_quantized()) {
    x = ex.codes(c.node.inputs[0]);
    scale = ex.scalar(c, static_cast<float>(type.quantizer->scale()));
    zero = ex.initializer(
        y + ".x_zero_point",
        Tensor::scalar(static_cast<double>(type.quantizer->zero_point()), code_dtype(type.dtype)));
  } else {
    const Names parts{ex.fresh(c, "codes"), ex.fresh(c, "scale"), ex.fresh(c, "zero_point")};
    ex.add_many(c, "DynamicQuantizeLinear", {c.in[0]}, parts, {});
    x = parts[0], scale = parts[1], zero = parts[2];
  }
  const Tensor& weight = c.graph.constant(id);
  const Quantizer& q = *weight.quantizer();
  const int64_t after = linear ? 0 : weight.dim() - 2;
  Tensor codes = weight.int_repr();
  if (linear) codes = codes.transpose(0, 1);
  // Import calls the quantized weight of codes NAME NAME.q, and that of NAME.codes NAME.
  std::string name = c.graph.value(id).name;
  if (name.ends_with(".q"))
    name.resize(name.size() - 2);
  else
    name += kCodesSuffix;
  const auto count = std::ssize(q.scales());
  const Tensor scales =
                   Tensor::from(std::vector<float>(q.scales().begin(), q.scales().end()), {count}),
               zeros = Tensor::from(q.zero_points(), {count}).to(codes.dtype());
  const Names operands{
      x, ex.initializer(name, codes.contiguous()), zero,
      ex.initializer(name + ".zero_point", count == 1 ? zeros.reshape({}) : zeros)};
  OnnxAttrs attrs;
  if (!linear) {
    const Attrs& a = c.attrs();
    attrs = {{"dilations", a.get_ints("dilation")},
             {"group", a.get_int("groups")},
             {"pads", a.get_ints("padding")},
             {"strides", a.get_ints("stride")}};
  }
  std::string sums = ex.step(c, linear ? "MatMulInteger" : "ConvInteger", operands, attrs);
  sums = ex.step(c, "Cast", {sums}, {{"to", int64_t{onnx::TensorProto::FLOAT}}});
  const std::string steps =
      ex.step(c, "Mul", {scale, ex.initializer(name + ".scale", per_channel(scales, after))});
  if (!c.has(2)) return write_activated(ex, c, "Mul", {sums, steps}, {});
  std::string bias = c.in[2];
  if (!linear) bias = ex.constant_as(c, 2, per_channel(c.graph.constant(c.node.inputs[2]), after));
  write_activated(ex, c, "Add", {ex.step(c, "Mul", {sums, steps}), bias}, {});
}

void write_conv_integer(Exporter& ex, const CallView& c) {
  const Attrs& a = c.attrs();
  ex.add(c, "ConvInteger", c.in, c.out[0],
         {{"dilations", a.get_ints("dilation")},
          {"group", a.get_int("groups")},
          {"pads", a.get_ints("padding")},
          {"strides", a.get_ints("stride")}});
}

// Zero points as bytes that hold several, where they are codes.
std::string zero_points(Exporter& ex, const CallView& c, int64_t bits) {
  if (!c.has(3)) return "";
  if (!c.graph.is_constant(c.node.inputs[3])) return c.in[3];
  const Tensor zeros = c.graph.constant(c.node.inputs[3]).contiguous();
  const int64_t rows = zeros.size(0), blocks = zeros.size(1), per_byte = 8 / bits,
                row_bytes = (blocks + per_byte - 1) / per_byte;
  Tensor packed = Tensor::zeros({rows, row_bytes}, DType::uint8);
  for (int64_t i = 0; i < zeros.numel(); ++i) {
    const float z = zeros.data<float>()[i];
    if (!(z >= 0 && z < static_cast<float>(1 << bits)) || z != std::floor(z)) return c.in[3];
    packed.data<uint8_t>()[i / blocks * row_bytes + i % blocks / per_byte] |=
        static_cast<uint8_t>(static_cast<int>(z) << (i % blocks % per_byte * bits));
  }
  return ex.initializer(c.in[3] + kPackedSuffix, packed.reshape({rows * row_bytes}));
}

void write_linear_blocks(Exporter& ex, const CallView& c) {
  const int64_t bits = c.attrs().get_int("bits");
  Names in{c.in[0], c.in[1], c.in[2], zero_points(ex, c, bits)};
  if (c.has(4)) in.insert(in.end(), {"", c.in[4]});
  ex.add_microsoft(c, "MatMulNBits", in, c.out,
                   {{"K", c.attrs().get_int("in_features")},
                    {"N", c.type(2).dims[0].size()},
                    {"bits", bits},
                    {"block_size", c.attrs().get_int("block_size")}});
}

}  // namespace

void add_integer_writers(std::unordered_map<std::string, Writer>& w) {
  for (const char* op :
       {"linear_dynamic", "conv1d_dynamic", "conv2d_dynamic", "conv3d_dynamic",
        "conv_transpose1d_dynamic", "conv_transpose2d_dynamic", "conv_transpose3d_dynamic"})
    w[op] = write_dynamic;
  w["conv_integer"] = write_conv_integer;
  w["linear_blocks"] = write_linear_blocks;
  w["matmul_integer"] = [](Exporter& ex, const CallView& c) {
    ex.add(c, "MatMulInteger", c.in, c.out[0]);
  };
  w["quantize_dynamic"] = [](Exporter& ex, const CallView& c) {
    ex.add_many(c, "DynamicQuantizeLinear", c.in, c.out, {});
  };
}

}  // namespace octet::io::onnx_impl
