#pragma once
// Shared by the ONNX import sources. Not public. Protobuf is only in the sources that read its
// messages: its headers cost a second.
//
// The Importer walks the nodes in order. A handler per ONNX operator reads its node through a
// NodeView and emits octet calls; calls on constants are evaluated at once, so the same handler
// also folds. Vectors that hold sizes of dimensions (Shape and arithmetic on it) are followed
// symbolically: import_sizes.cpp.

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "octet/base/check_impl.h"
#include "octet/io/onnx/import.h"

namespace google::protobuf {
class MessageLite;
}
namespace onnx {
class AttributeProto;
class FunctionProto;
class GraphProto;
class ModelProto;
class NodeProto;
class TensorProto;
class ValueInfoProto;
}  // namespace onnx

namespace octet::io::onnx_impl {

using graph::ValueId;

// -- tensors and types (import_tensor.cpp) ---------------------------------------------------

// The DType of a TensorProto::DataType; Error (unsupported) naming `what` for types octet lacks.
DType dtype_of(int32_t onnx_type, const std::string& what);
int32_t onnx_type_of(DType dtype);  // plain dtypes, and the code types of quantized ones
std::string onnx_type_name(int32_t onnx_type);
// The data of a TensorProto, checked against its dims. `dir` is where external data is looked for;
// empty: nowhere.
Tensor read_tensor(const onnx::TensorProto& proto, const std::string& what,
                   const std::filesystem::path& dir);
// UINT4 and INT4, which the TensorProto of older protobuf definitions does not name: octet has
// neither.
inline constexpr int32_t kUint4 = 21, kInt4 = 22;
bool is_narrow(int32_t onnx_type);
// UINT32 and UINT64, which int64 holds.
bool is_wide_unsigned(int32_t onnx_type);
// float16, bfloat16 and float64 to float32, the type everything is computed in.
Tensor to_compute_type(const Tensor& tensor);
DType compute_type(DType dtype);
// Parses a message; false if the bytes are not one. Silences protobuf's own messages.
bool parse(google::protobuf::MessageLite& message, std::string_view bytes);
// In the doc_string of a node that octet wrote, before the scope that several nodes share, or that
// is empty: the names of ONNX's nodes must differ.
inline constexpr const char* kScopeMark = "octet scope: ";
// In the doc_string of a DequantizeLinear that octet wrote of a number beside codes, before what it
// stands for: "div 8" where it is 1/8 and what reads it multiplies.
inline constexpr const char* kNumberMark = "octet number: ";
// Behind the name of a dynamic layer's weight: its codes as an initializer that octet wrote.
inline constexpr const char* kCodesSuffix = ".codes";
// Behind the name of zero points of blocks: several of them in a byte.
inline constexpr const char* kPackedSuffix = ".packed";
// Makes a text fit for a one-line message.
std::string one_line(std::string text);
// The characters the graph's text format prints; others become '_'.
std::string sanitize(std::string name);

// -- values ---------------------------------------------------------------------------------------

struct Val;
using ValPtr = std::shared_ptr<Val>;

// A value while a model is imported: in the graph already, or known and not yet needed there.
struct Val {
  std::string name;  // ONNX's
  TensorType type;
  ValueId id = graph::kNone;              // its value in the graph, once it has one
  Tensor constant;                        // known at import
  std::optional<std::vector<Dim>> sizes;  // an int64 scalar or vector, some entries symbolic
  // The elements of a sequence, which is followed at import only; `type` says nothing then.
  std::optional<std::vector<ValPtr>> elements;
  // DequantizeLinear of a constant: `constant` holds the codes and `type` is Float. Kept apart from
  // the graph so that Gemm and MatMul can transpose the codes.
  bool dequantized = false;
  std::string codes_name, scope;
  // What a dequantized constant with a scale for each block was made of; null for all others.
  std::shared_ptr<const struct BlockCodes> blocks;
  // ONNX's element type where octet holds it in another one: UINT32 and UINT64 (in int64), UINT4
  // and INT4 (in uint8 and int8); else 0.
  int32_t narrow = 0;
  // A number as kNumberMark has it: the operator ("div", "sub") and its operand; else "".
  std::string stands_for;
  float original = 0;

  bool is_constant() const { return constant.defined() && !dequantized; }
  // Constants as linear and conv take them: plain, or dequantized codes.
  bool is_weight() const { return constant.defined(); }
  int64_t rank() const { return type.dim(); }
  const std::vector<Dim>& dims() const { return type.dims; }
};

// Codes of 4 or 8 bits, and for each `block` of them along `axis` a scale and perhaps a zero point.
struct BlockCodes {
  Tensor codes, scales, zero_points;  // codes: int8 or uint8
  int64_t axis = 0, block = 0, bits = 8;
};

ValPtr constant_val(const std::string& name, Tensor value);
// Codes (a quantized tensor) as a dequantized constant.
ValPtr dequantized_val(const std::string& name, const std::string& codes_name,
                       const std::string& scope, Tensor codes);
// An int64 value with these entries; a plain constant if all are known. `rank` 0 or 1.
ValPtr sizes_val(const std::string& name, std::vector<Dim> entries, int64_t rank);

// The double that prints like the float: what the exporter's 1e-05 was before it became a float32
// attribute. Converting back gives the same float.
double shortest(float value);

// -- nodes (import_node.cpp) -----------------------------------------------------------------

// One ONNX node: typed access to attributes. Attributes that a handler never asked for make the
// node unsupported, so that nothing which might change the meaning is passed over.
class NodeView {
 public:
  NodeView(const onnx::NodeProto& proto, int64_t opset, const std::filesystem::path& dir);
  const std::string& op() const;
  bool is_standard() const;  // of ONNX's own operators
  int64_t opset() const { return opset_; }
  const std::string& name() const { return name_; }  // or the first output's name
  // What calls made of it have as their scope: its name, but none for nodes of calls without one.
  const std::string& scope() const { return scope_; }
  const std::string& doc() const;
  std::string label() const { return fmt::format("node '{}' ({})", name_, op()); }

  size_t input_count() const;
  bool has_input(size_t i) const { return i < input_count() && !input(i).empty(); }
  const std::string& input(size_t i) const;
  size_t output_count() const;
  const std::string& output(size_t i) const;

  bool has(const std::string& attr) const { return find(attr) != nullptr; }
  int64_t get_int(const std::string& attr, int64_t fallback) const;
  double get_float(const std::string& attr, double fallback) const;
  std::string get_string(const std::string& attr, const std::string& fallback) const;
  std::vector<int64_t> get_ints(const std::string& attr,
                                const std::vector<int64_t>& fallback = {}) const;
  std::vector<double> get_floats(const std::string& attr) const;
  std::vector<std::string> get_strings(const std::string& attr) const;
  // A graph, as If has two; Error if the attribute is missing.
  const onnx::GraphProto& get_graph(const std::string& attr) const;
  // Error if the attribute is missing
  const onnx::TensorProto& get_tensor(const std::string& attr) const;
  // attributes without a meaning for inference
  void ignore(std::initializer_list<const char*> attrs) const;
  std::vector<std::string> unread() const;

  template <typename... Args>
  [[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) const {
    octet::fail(code,
                fmt::format("{}: {}", label(), fmt::format(format, std::forward<Args>(args)...)));
  }
  // The node is valid but this form of it is not supported: collected with all others of the model.
  template <typename... Args>
  [[noreturn]] void unsupported(fmt::format_string<Args...> format, Args&&... args) const {
    throw Unsupported{fmt::format(format, std::forward<Args>(args)...), false};
  }
  // The same for a form that is supported where the model's open sizes are fixed.
  template <typename... Args>
  [[noreturn]] void needs_size(fmt::format_string<Args...> format, Args&&... args) const {
    throw Unsupported{fmt::format(format, std::forward<Args>(args)...), true};
  }
  struct Unsupported {
    std::string reason;
    bool open_size;
  };

 private:
  const onnx::AttributeProto* find(const std::string& attr) const;
  const onnx::AttributeProto* find(const std::string& attr, int type, const char* kind) const;
  const onnx::NodeProto& proto_;
  int64_t opset_;
  std::filesystem::path dir_;
  std::string name_, scope_;
  mutable std::set<std::string> read_;
};

// -- the importer (import_graph.cpp, import_values.cpp) ---------------------------------

class Importer {
 public:
  Importer(onnx::ModelProto& model, const std::filesystem::path& dir,
           const OnnxImportOptions& options);
  graph::Graph run();

  // -- for handlers
  ValPtr in(const NodeView& n, size_t i);      // Error if it is missing or a sequence
  ValPtr any_in(const NodeView& n, size_t i);  // Error if it is missing
  const std::vector<ValPtr>& sequence(const NodeView& n, size_t i);  // Error if it is not one
  ValPtr optional_in(const NodeView& n, size_t i);                   // null if it is omitted
  // Inputs that must be known at import, as axes and pads; null/empty if omitted.
  Tensor known(const NodeView& n, size_t i, const char* what);
  std::vector<int64_t> known_ints(const NodeView& n, size_t i, const char* what);
  // entries may be symbolic
  std::vector<Dim> known_sizes(const NodeView& n, size_t i, const char* what);
  // Whether input i is there and only the model's run gives its numbers.
  bool at_run_time(const NodeView& n, size_t i);
  // Input i as an attribute of a call: the numbers if they are known (integers as a list of them),
  // else the operand that gives them, which is added to `operands`.
  Attr as_attr(const NodeView& n, size_t i, const char* what, std::vector<ValPtr>& operands);
  // The same for numbers that are known, some of them symbolic sizes; `one`: not a list.
  Attr as_attr(const NodeView& n, const std::vector<Dim>& sizes, std::vector<ValPtr>& operands,
               bool one = false);
  // Says how a symbolic size is computed when the model runs: dimension d of a value, or a op b.
  void remember(const std::string& name, ValueId value, int64_t d);
  void remember(const std::string& name, char op, const Dim& a, const Dim& b);
  void remember_sizes(const Val& v);  // of all its open dimensions
  // "[a op b]", a symbolic size that is remembered. op: '+', '-', '*', '/' or '%'.
  Dim combined(const Dim& a, char op, const Dim& b);
  // a / b rounded down, b >= 1: a name without a division where it is exact whatever a is.
  Dim quotient(const Dim& a, int64_t b);
  // The sizes as an int64 list in the graph.
  ValPtr computed(const NodeView& n, const std::vector<Dim>& sizes);

  // "axes" as an attribute (older opsets) or input i (newer); nullopt if neither is there.
  std::optional<std::vector<int64_t>> attr_or_input_ints(const NodeView& n, const char* attr,
                                                         size_t i);

  // Emits a call; evaluates it instead if every operand is a constant.
  ValPtr call(const NodeView& n, const std::string& op, const std::vector<ValPtr>& inputs,
              const Attrs& attrs = {}, const std::optional<ops::QType>& want = std::nullopt);
  std::vector<ValPtr> calls(const NodeView& n, const std::string& op,
                            const std::vector<ValPtr>& inputs, const Attrs& attrs = {},
                            const std::optional<ops::QType>& want = std::nullopt);
  // binds the node's i-th output; null: of a rejected node
  void out(const NodeView& n, size_t i, ValPtr value);
  bool wants_output(const NodeView& n, size_t i) const;  // whether anything reads it
  // The data of a TensorProto, in the type it is computed in.
  ValPtr read_constant(const onnx::TensorProto& t, const std::string& what);
  // The results of a graph inside a node (a branch of If, the body of Loop) with these inputs; its
  // nodes are visited in the node's place. Null where a node was rejected.
  std::vector<ValPtr> inline_graph(const onnx::GraphProto& g,
                                   const std::vector<ValPtr>& inputs = {});
  ValPtr scalar(const NodeView& n, double value, DType dtype = DType::float32);
  // a 2-d constant, or dequantized constant; made once per weight
  ValPtr transposed(const ValPtr& weight);
  ValPtr cast(const NodeView& n, ValPtr x, DType dtype);  // itself if it has the dtype

 private:
  void check_header();
  Dim open_dim(const onnx::ValueInfoProto& input, size_t d) const;
  void bind_shapes();
  void read_inputs();
  std::vector<const onnx::NodeProto*> order(const onnx::GraphProto& g);
  void visit(const onnx::NodeProto& node);
  void inline_function(const NodeView& n, const onnx::NodeProto& node,
                       const onnx::FunctionProto& function, const std::vector<ValPtr>& inputs);
  void finish_outputs();
  ValPtr lookup(const std::string& name);
  ValueId materialize(const NodeView& n, const ValPtr& v);
  ValPtr computed(const NodeView& n, const Dim& size);
  bool names_open_size(const std::string& message) const;
  std::string shape_cure() const;
  [[noreturn]] void report_unsupported();
  OnnxOperator& operator_named(const std::string& op);
  std::string free_name(const std::string& name);
  void take_name(ValueId id, const std::string& name);

  onnx::ModelProto& model_;
  std::filesystem::path dir_;
  OnnxImportOptions options_;
  graph::Graph graph_;
  int64_t opset_ = 0;
  std::unordered_map<std::string, ValPtr> values_;  // null: made by an unsupported node
  std::unordered_map<std::string, onnx::TensorProto*> initializers_;
  std::unordered_map<std::string, const onnx::FunctionProto*> functions_;
  std::unordered_map<std::string, int64_t> suffixes_;  // the last of each name, "_3"
  int function_depth_ = 0;
  int64_t visited_ = 0;  // nodes, those of unrolled loops and of functions each time
  std::unordered_map<const Val*, ValPtr> transposed_;
  std::vector<ValPtr> kept_;                    // keys of transposed_ stay alive
  std::unordered_map<std::string, int> reads_;  // by live nodes and as graph outputs
  size_t first_new_value_ = 0;                  // values made by the node that is being visited
  struct Rejected {
    std::string op, reason, node;
    bool open_size = false;
  };
  std::vector<Rejected> rejected_;
  std::vector<OnnxOperator> operators_;  // that were met, and where each of them is
  std::unordered_map<std::string, size_t> operator_index_;
  // How symbolic sizes are computed, and the values that do.
  struct Recipe {
    ValueId value = graph::kNone;
    int64_t dim = 0;
    char op = 0;
    Dim a = 0, b = 0;
  };
  std::unordered_map<std::string, Recipe> recipes_;
  std::unordered_map<std::string, ValPtr> computed_;
};

using Handler = std::function<void(Importer&, const NodeView&)>;
using Handlers = std::unordered_map<std::string, Handler>;
const Handlers& handlers();
// One per subject.
void add_elementwise(Handlers& h);
void add_reductions(Handlers& h);
void add_layers(Handlers& h);
void add_recurrent(Handlers& h);
void add_integer(Handlers& h);
void add_control_flow(Handlers& h);
void add_sequences(Handlers& h);
void add_pools(Handlers& h);
void add_normalizations(Handlers& h);
void add_movement(Handlers& h);
void add_indexing(Handlers& h);
void add_places(Handlers& h);
void add_regions(Handlers& h);
void add_einsum(Handlers& h);
void add_fused(Handlers& h);
void add_attention(Handlers& h);
void add_resize(Handlers& h);
void add_sizes(Handlers& h);
void add_constants(Handlers& h);
void add_spectra(Handlers& h);
void add_quantization(Handlers& h);

// Shape arithmetic: handles the node if its operands are small integer vectors, symbolic or not;
// false if it is not of that kind.
bool fold_sizes(Importer& im, const NodeView& n, const std::vector<ValPtr>& inputs);
// The `shape` attribute of reshape and of expand for wanted sizes, some symbolic, of data of dims
// `from`; nullopt if it must be computed when the model runs.
std::optional<std::vector<int64_t>> reshape_attr(const NodeView& n, const std::vector<Dim>& from,
                                                 const std::vector<Dim>& wanted, bool zero_copies);
// x in these sizes, some of them symbolic: left out if it changes nothing. zero_copies: 0 is x's
// size.
ValPtr emit_reshape(Importer& im, const NodeView& n, const ValPtr& x,
                    const std::vector<Dim>& wanted, bool zero_copies);
// x in the sizes of `like`, which has as many elements.
ValPtr reshape_like(Importer& im, const NodeView& n, const ValPtr& x, const ValPtr& like);
// x whose dimension d has this size: a reshape says so where it is open, and the model's run checks
// it.
ValPtr with_size(Importer& im, const NodeView& n, const ValPtr& x, int64_t d, int64_t size);
// The sizes of x as an int64 list; x broadcast to the shape of `like`; 0, 1, ... for dimension d of
// x. All of them constants where the sizes are known.
ValPtr shape_of(Importer& im, const NodeView& n, const ValPtr& x);
ValPtr expand_like(Importer& im, const NodeView& n, const ValPtr& x, const ValPtr& like);
ValPtr count_up(Importer& im, const NodeView& n, const ValPtr& x, int64_t d);
// How many times `of` is in `size`, if that is a whole number whatever the symbols are.
std::optional<int64_t> multiple_of(const Dim& size, const Dim& of);
std::optional<std::vector<int64_t>> expand_attr(const NodeView& n, const std::vector<Dim>& from,
                                                const std::vector<Dim>& wanted);

// What QuantizeLinear/DequantizeLinear's scale and zero point mean for data of dims `dims`.
QuantizerPtr read_quantizer(const NodeView& n, const Tensor& scale, const Tensor& zero_point,
                            int64_t axis, const std::vector<Dim>& dims, DType qdtype);

// Quantized codes, or plain integers as they are, as plain integers.
ValPtr plain_codes(Importer& im, const NodeView& n, const ValPtr& v);

// The sliding window of a conv or pool over the dimensions after (N, C), auto_pad resolved.
struct Window {
  std::vector<int64_t> kernel, stride, dilation, pads;  // pads: all beginnings, then all ends
};
// Where the padding of auto_pad depends on a size that is open, x becomes its padded form, with
// `fill` (Unsupported without).
Window read_window(Importer& im, const NodeView& n, ValPtr& x, const std::vector<int64_t>& kernel,
                   std::optional<double> fill);

// The attributes of octet's convolution of x, which may be padded for it, with weight w.
Attrs conv_attrs(Importer& im, const NodeView& n, ValPtr& x, const Val& w,
                 std::optional<double> fill);
// conv1d, conv2d or conv3d, whichever the ranks say; `b` may be null.
ValPtr emit_conv(Importer& im, const NodeView& n, ValPtr x, const ValPtr& w, const ValPtr& b);
// conv_integer of codes; the zero points may be null.
ValPtr emit_conv_integer(Importer& im, const NodeView& n, ValPtr x, const ValPtr& w,
                         const ValPtr& x_zero, const ValPtr& w_zero);
// Gemm of a, b and c (null if there is none), with the node's attributes.
ValPtr emit_gemm(Importer& im, const NodeView& n, ValPtr a, ValPtr b, ValPtr c);
// The node's pool of x, and the pool of all of each channel.
// `sum`: the sum of each window instead of its mean.
ValPtr emit_pool(Importer& im, const NodeView& n, ValPtr x, bool max, bool sum = false);
ValPtr emit_global_pool(Importer& im, const NodeView& n, const ValPtr& x, bool max);
// linear_blocks of x and a matrix of codes in blocks along its inputs, (out, in) or (in, out); null
// if w is none. The bias is a constant vector of floats, or null.
ValPtr emit_linear_blocks(Importer& im, const NodeView& n, const ValPtr& x, const ValPtr& w,
                          bool out_first, const ValPtr& bias);
// linear if b is a constant matrix, else matmul.
ValPtr emit_matmul(Importer& im, const NodeView& n, const ValPtr& a, const ValPtr& b);

// d in -rank..rank-1 to 0..rank-1; Error naming the node.
int64_t axis_of(const NodeView& n, int64_t d, int64_t rank);
// Known size of a dimension; unsupported otherwise.
int64_t known_dim(const NodeView& n, const Val& v, int64_t d, const char* why);

// -- passes after import ---------------------------------------------------------------------

graph::Graph fuse_patterns(const graph::Graph& graph);    // import_patterns.cpp
graph::Graph join_code_forms(const graph::Graph& graph);  // import_codes.cpp
// import_squeezes.cpp: `named` are the values that have names of the model's
graph::Graph cancel_squeezes(const graph::Graph& g, const std::vector<bool>& named);
// Layers on codes that quantize_dynamic makes, scaled to float32, as the dynamic layers that do all
// of it (import_dynamic.cpp).
graph::Graph fuse_dynamic(const graph::Graph& graph);

}  // namespace octet::io::onnx_impl
