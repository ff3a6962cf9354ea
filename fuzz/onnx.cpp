// ONNX: messages are parsed, one of their fields is changed, and they are written again.
#include <onnx/onnx_pb.h>

#include <algorithm>

#include "fuzz/fuzz.h"
#include "octet/base/random.h"
#include "octet/graph/trace.h"
#include "octet/io/onnx/export.h"
#include "octet/io/onnx/import.h"
#include "octet/nn/nn.h"
#include "octet/quant/workflow/fx.h"
#include "tests/graph/random_net.h"
#include "tests/io/onnx/test_util.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace octet::fuzz {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// Constants of at most import_constants.cpp's kMaxConstant elements may be made from a shape, and
// results of as many as import_values.cpp's kMaxFolded.
constexpr size_t kFreeConstant = size_t{8} << 26;

// -- the mutator ----------------------------------------------------------------------------------

class Mutator {
 public:
  explicit Mutator(unsigned seed) : random_(seed) {}

  // Changes one place of the message or of one inside it.
  void change(Message& message, int depth = 0) {
    const Reflection& r = *message.GetReflection();
    std::vector<const FieldDescriptor*> set;
    r.ListFields(message, &set);
    // Mostly something further inside, where most of a model is.
    if (!set.empty() && depth < 12 && below(8) != 0) {
      const FieldDescriptor* f = set[below(set.size())];
      if (f->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
        if (!f->is_repeated()) return change(*r.MutableMessage(&message, f), depth + 1);
        const auto n = static_cast<size_t>(r.FieldSize(message, f));
        if (below(6) == 0) return rearrange(message, *f);
        return change(*r.MutableRepeatedMessage(&message, f, static_cast<int>(below(n))),
                      depth + 1);
      }
      return f->is_repeated() ? rearrange(message, *f) : set_value(message, *f);
    }
    const auto* type = message.GetDescriptor();
    if (type->field_count() == 0) return;
    const FieldDescriptor* f =
        type->field(static_cast<int>(below(static_cast<size_t>(type->field_count()))));
    if (below(3) == 0) return r.ClearField(&message, f);
    if (f->is_repeated()) return rearrange(message, *f);
    if (f->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      if (depth < 12) change(*r.MutableMessage(&message, f), depth + 1);
      return;
    }
    set_value(message, *f);
  }

 private:
  size_t below(size_t n) { return static_cast<size_t>(random_.next() % n); }

  // Numbers at which readers change their minds, and small ones.
  int64_t number() {
    static constexpr int64_t kEdges[] = {
        0,     1,       -1,        2,         127,       128,       255,       256,
        65535, 1 << 24, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, 1LL << 32, 1LL << 40};
    switch (below(3)) {
      case 0:
        return kEdges[below(std::size(kEdges))];
      case 1:
        return static_cast<int64_t>(below(24)) - 4;
      default:
        return static_cast<int64_t>(random_.next());
    }
  }
  double real() {
    static constexpr double kEdges[] = {0, -0.0, 1, -1, 0.5, 1e-40, 1e38, 1e300};
    if (below(6) == 0) return std::numeric_limits<double>::quiet_NaN();
    if (below(6) == 0) return std::numeric_limits<double>::infinity();
    return kEdges[below(std::size(kEdges))];
  }
  std::string text(std::string old) {
    static const char* const kWords[] = {"",
                                         "x",
                                         "Conv",
                                         "Relu",
                                         "Add",
                                         "Gemm",
                                         "MatMul",
                                         "QuantizeLinear",
                                         "DequantizeLinear",
                                         "Reshape",
                                         "Concat",
                                         "Slice",
                                         "If",
                                         "Loop",
                                         "Scan",
                                         "Resize",
                                         "LSTM",
                                         "axis",
                                         "axes",
                                         "pads",
                                         "kernel_shape",
                                         "strides",
                                         "dilations",
                                         "group",
                                         "perm",
                                         "to",
                                         "ai.onnx",
                                         "com.microsoft",
                                         "NOTSET",
                                         "SAME_UPPER",
                                         "Shape",
                                         "Gather",
                                         "Expand",
                                         "Split",
                                         "Einsum",
                                         "ij,jk->ik",
                                         "ConstantOfShape",
                                         "Range",
                                         "TopK",
                                         "Where",
                                         "Constant",
                                         "value"};
    if (below(2) == 0) return kWords[below(std::size(kWords))];
    const size_t size = old.size();
    old.resize(size + 16);
    old.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(old.data()), size, old.size()));
    return old;
  }

  void set_value(Message& m, const FieldDescriptor& f) {
    const Reflection& r = *m.GetReflection();
    switch (f.cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return r.SetInt32(&m, &f, static_cast<int32_t>(number()));
      case FieldDescriptor::CPPTYPE_INT64:
        return r.SetInt64(&m, &f, number());
      case FieldDescriptor::CPPTYPE_UINT64:
        return r.SetUInt64(&m, &f, static_cast<uint64_t>(number()));
      case FieldDescriptor::CPPTYPE_FLOAT:
        return r.SetFloat(&m, &f, static_cast<float>(real()));
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return r.SetDouble(&m, &f, real());
      case FieldDescriptor::CPPTYPE_ENUM:
        return r.SetEnumValue(&m, &f, static_cast<int>(below(20)));
      case FieldDescriptor::CPPTYPE_STRING:
        return r.SetString(&m, &f, text(r.GetString(m, &f)));
      default:
        return;
    }
  }

  // Adds, removes, exchanges or changes items.
  void rearrange(Message& m, const FieldDescriptor& f) {
    const Reflection& r = *m.GetReflection();
    const int n = r.FieldSize(m, &f);
    const size_t what = below(4);
    if (n > 0 && what == 0) return r.RemoveLast(&m, &f);
    if (n > 1 && what == 1)
      return r.SwapElements(&m, &f, static_cast<int>(below(static_cast<size_t>(n))), n - 1);
    const int at = n == 0 ? 0 : static_cast<int>(below(static_cast<size_t>(n)));
    const bool add = n == 0 || what == 2;
    switch (f.cpp_type()) {
      case FieldDescriptor::CPPTYPE_MESSAGE: {
        if (!add) return change(*r.MutableRepeatedMessage(&m, &f, at), 12);
        Message* item = r.AddMessage(&m, &f);
        if (n > 0) item->CopyFrom(r.GetRepeatedMessage(m, &f, at));
        return;
      }
      case FieldDescriptor::CPPTYPE_INT32:
        return add ? r.AddInt32(&m, &f, static_cast<int32_t>(number()))
                   : r.SetRepeatedInt32(&m, &f, at, static_cast<int32_t>(number()));
      case FieldDescriptor::CPPTYPE_INT64:
        return add ? r.AddInt64(&m, &f, number()) : r.SetRepeatedInt64(&m, &f, at, number());
      case FieldDescriptor::CPPTYPE_FLOAT:
        return add ? r.AddFloat(&m, &f, static_cast<float>(real()))
                   : r.SetRepeatedFloat(&m, &f, at, static_cast<float>(real()));
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return add ? r.AddDouble(&m, &f, real()) : r.SetRepeatedDouble(&m, &f, at, real());
      case FieldDescriptor::CPPTYPE_STRING:
        // Often a name that is there already.
        return add ? r.AddString(&m, &f, n > 0 ? r.GetRepeatedString(m, &f, at) : text(""))
                   : r.SetRepeatedString(&m, &f, at, text(r.GetRepeatedString(m, &f, at)));
      default:
        return;
    }
  }

  Random random_;
};

size_t mutate_model(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  onnx::ModelProto model;
  if (seed % 16 == 0 || !model.ParseFromArray(data, static_cast<int>(size)))
    return LLVMFuzzerMutate(data, size, max_size);
  Mutator mutator(seed);
  for (unsigned i = 0; i <= seed / 16 % 3; ++i) mutator.change(model);
  const size_t bytes = model.ByteSizeLong();
  if (bytes > max_size) return size;
  model.SerializeToArray(data, static_cast<int>(bytes));
  return bytes;
}

// -- the importer ---------------------------------------------------------------------------------

void run_onnx(const uint8_t* data, size_t size) {
  const graph::Graph g =
      io::import_onnx_bytes(std::string_view(reinterpret_cast<const char*>(data), size));
  g.check();
  // What was imported is exported, and that is a model again.
  std::string bytes;
  try {
    bytes = io::to_onnx_bytes(g);
  } catch (const Error& e) {
    if (e.code() == ErrorCode::internal) throw;
    return;  // not everything that is read can be written
  }
  io::import_onnx_bytes(bytes).check();
}

template <typename M>
std::string exported(M&& model, const Tensor& x) {
  model->eval();
  return io::to_onnx_bytes(graph::trace(*model, {x})->to_graph());
}

Seeds seeds_onnx() {
  using namespace testing;  // NOLINT: OnnxModel
  Seeds seeds;
  for (uint64_t seed : {1, 3, 4, 6, 8})
    seeds.push_back(io::to_onnx_bytes(random_net(seed, true, 5)));
  auto prepared = quant::prepare_fx(random_net(4, true, 5), quant::get_default_qconfig());
  prepared->forward({Tensor::randn({2, 3, 6, 6}, 1)});
  seeds.push_back(io::to_onnx_bytes(quant::convert_fx(prepared)->graph()));
  seeds.push_back(exported(nn::make<nn::LSTM>(3, 4), Tensor::randn({5, 2, 3}, 1)));
  seeds.push_back(exported(
      nn::make<nn::Sequential>(nn::make<nn::Linear>(6, 4), nn::make<nn::LayerNorm>(Shape{4}),
                               nn::make<nn::Softmax>(1)),
      Tensor::randn({2, 6}, 1)));
  const auto longs = [](const std::vector<int64_t>& v) {
    return Tensor::from(v, {static_cast<int64_t>(v.size())});
  };
  seeds.push_back(OnnxModel()
                      .input("x", {"N", 3, 4})
                      .constant("s", longs({0, -1, 2}))
                      .constant("i", longs({0}))
                      .node("Reshape", {"x", "s"}, {"a"})
                      .node("Shape", {"a"}, {"n"})
                      .node("Gather", {"n", "i"}, {"k"})
                      .node("Expand", {"a", "n"}, {"e"})
                      .node("Concat", {"e", "a"}, {"y"}, {{"axis", int64_t{1}}})
                      .output("y")
                      .bytes());
  return seeds;
}
const RegisteredTarget g_onnx({"onnx", run_onnx, seeds_onnx, kFreeConstant, mutate_model});

// -- TensorProto files ----------------------------------------------------------------------------

void run_tensor(const uint8_t* data, size_t size) {
  const Tensor t = io::read_onnx_tensor(input_file(data, size, "in.pb"));
  (void)to_string(t.contiguous());
}
size_t mutate_tensor(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  onnx::TensorProto tensor;
  if (seed % 8 == 0 || !tensor.ParseFromArray(data, static_cast<int>(size)))
    return LLVMFuzzerMutate(data, size, max_size);
  Mutator(seed).change(tensor);
  const size_t bytes = tensor.ByteSizeLong();
  if (bytes > max_size) return size;
  tensor.SerializeToArray(data, static_cast<int>(bytes));
  return bytes;
}
Seeds seeds_tensor() {
  onnx::TensorProto a, b;
  a.add_dims(2);
  a.set_data_type(onnx::TensorProto::FLOAT);
  a.set_raw_data(std::string(8, '\1'));
  b.add_dims(3);
  b.set_data_type(onnx::TensorProto::INT64);
  for (int i = 0; i < 3; ++i) b.add_int64_data(i);
  return {a.SerializeAsString(), b.SerializeAsString()};
}
const RegisteredTarget g_tensor({"onnx_tensor", run_tensor, seeds_tensor, kPlain, mutate_tensor});

}  // namespace
}  // namespace octet::fuzz
