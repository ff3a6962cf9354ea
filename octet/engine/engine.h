#pragma once
// Engines turn one operator call with known types into something that runs.
//
//   OpSpec spec{.op = "conv2d", .attrs = attrs, .inputs = input_types, .constants = {{}, weight},
//               .present = {true, true}, .outputs = output_types, .label = "layer1.conv",
//               .table = {}, .function = nullptr};
//   std::unique_ptr<Kernel> kernel = make_kernel(spec);     // packs the constant operands, once
//   auto plan = kernel->plan(input_shapes, output_shapes);  // per shape: tables, scratch size
//   plan->run(inputs, outputs, scratch);                    // allocates nothing
//
// All engines give the same bits for quantized types; `reference` is the plainest and the oracle of
// the others.

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "octet/tensor/attrs.h"
#include "octet/tensor/tensor.h"

namespace octet {

// How a layer computes whose weight alone is quantized.
enum class WeightForm {
  in_float,     // it is no such layer
  dynamic,      // its operand is quantized at run time
  weight_only,  // with the weight's numbers, in float
};

// y[i] = f(x[i]) for n numbers; y may be x.
using FloatFunction = std::function<void(const float* x, float* y, int64_t n)>;

// One operator call: what is known before any data is.
struct OpSpec {
  std::string op;                  // name in the registry: "conv2d"
  Attrs attrs;                     // complete (defaults filled in)
  std::vector<TensorType> inputs;  // dims may be symbolic; see `present`
  std::vector<Tensor> constants;   // one per input, defined where the operand is constant
  std::vector<bool> present;       // one per input: false for an omitted optional input
  std::vector<TensorType> outputs;
  std::string label;  // the node's name, for messages
  // Operators that map one 8-bit code to another (unary functions, requantize): the result's code
  // for each of the 256 bytes of the operand, as docs/numerics.md defines it. Empty for all others.
  // Filled by ops::make_spec.
  std::vector<uint8_t> table;
  // Of operators that map one float32 to another, what computes them. Filled by ops::make_spec.
  FloatFunction function;
  // For a layer whose weight alone is quantized (ops::Traits): the layer's name, and how it
  // computes. Filled by ops::make_spec.
  std::string layer;
  WeightForm form = WeightForm::in_float;
  // What the operator is, of its ops::Traits; filled as those. A transposed convolution: its weight
  // is (in, out/groups, kernel...), as PyTorch has it, all others' (out, in/groups, ...).
  bool transposed = false;
  bool selects = false;  // results are elements of the operand, found by comparing: max_pool2d

  bool has(size_t i) const { return i < present.size() && present[i]; }
};

// How a kernel wants an operand to lie in memory.
enum class Layout {
  row_major,
  channels_last,  // NHWC; 4-d values only
  any,            // either, but all `any` operands of one kernel the same
};

// Whose threads a kernel's plans run on. Two pools whose threads wait for work by spinning take
// each other's cores: a program in which nothing runs on OpenMP sends OpenMP's threads to sleep.
enum class Threads {
  own,     // parallel_for's (base/parallel.h), or the calling thread alone
  openmp,  // OpenMP's, as oneDNN's are
};

// How a kernel computes, in its own words: what debug::explain shows. It is asked for when somebody
// wants to know, never when the kernel runs.
struct KernelDescription {
  enum class Arithmetic {
    unsaid,          // the kernel does not say
    integers,        // sums of codes, or of products of codes, as whole numbers
    table,           // for each of 256 codes the result's code
    moves,           // elements are copied or compared
    codes_in_float,  // codes become float32 and codes again in the inner loop, a few at a time
    fixed_point,     // float32 values as whole numbers of 24 bits, times codes: exact sums
    converts,        // floats to codes, or codes to floats
    through_float,   // whole operands are dequantized, a float kernel runs, its result is quantized
    floats,
  };
  Arithmetic arithmetic = Arithmetic::unsaid;
  // The inner loop: operand types, ISA and register tile. "gemm_u8s8_avx512vnni 12x32"
  std::string loop;
  std::string accumulator;    // the type that products are summed in: "int32"; empty without sums
  std::string at_run_time;    // what is quantized on the fly, and how; empty if nothing is
  std::string epilogue;       // what becomes of a sum: "bias, requantize, relu"
  std::string rounding;       // of results to codes
  int weight_bits = 0;        // of a packed weight's codes (packed they may be wider); 0: none
  int64_t wide_channels = 0;  // output channels that are summed again in 64 bits
};
const char* to_string(KernelDescription::Arithmetic arithmetic);

// A kernel for given shapes. run() may be called by one thread at a time per plan.
class KernelPlan {
 public:
  virtual ~KernelPlan() = default;
  virtual size_t scratch_bytes() const { return 0; }
  // inputs[i] is null for packed constants and omitted inputs. Buffers follow the kernel's layouts
  // and kBufferSlack.
  virtual void run(std::span<const void* const> inputs, std::span<void* const> outputs,
                   void* scratch) = 0;
  // Rows r0..r1 of the result, on the calling thread. Of kernels by rows only.
  virtual void run_rows(std::span<const void* const> inputs, std::span<void* const> outputs,
                        int64_t r0, int64_t r1);
};

// Packed constants and a choice of algorithm; shared by all shapes. Immutable, so safe to share
// between threads.
class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual std::string name() const = 0;    // "conv2d igemm 12x32"
  virtual std::string engine() const = 0;  // the engine's name in the registry: "native"
  virtual Threads threads() const { return Threads::own; }
  virtual Layout input_layout(size_t) const { return Layout::row_major; }
  virtual Layout output_layout(size_t) const { return Layout::row_major; }
  // Whether a row of the result (its last dimension; the others count rows) depends only on the
  // same row of those operands whose other dimensions are the result's. Operands of other shapes
  // may be read whole. Needs no scratch memory. Of `any` layout: element by element, so that any
  // cut of the bytes into rows will do.
  virtual bool by_rows() const { return false; }
  // The same computation from a row-major operand to a channels_last result, where the change of
  // layout comes for free. Null: no.
  virtual std::unique_ptr<Kernel> to_channels_last() const { return nullptr; }
  // The same computation with all operands and results of four dimensions channels_last, of a
  // kernel whose first operand is row_major and that would as well run there: where the operands
  // lie so, nothing has to be reordered. Null: no.
  virtual std::unique_ptr<Kernel> in_channels_last() const { return nullptr; }
  // Whether output 0 may be written over input 0 (same size and layout).
  virtual bool in_place() const { return false; }
  // Whether constant operand i was packed at make time; run() then gets a null pointer for it.
  // Constants that were not are passed like other operands.
  virtual bool packs(size_t) const { return false; }
  // Bytes of packed constants held.
  virtual size_t packed_bytes() const { return 0; }
  virtual KernelDescription description() const { return {}; }
  // Things the user should know, e.g. sums that can leave int32; one line each.
  virtual std::vector<std::string> warnings() const { return {}; }
  virtual std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& inputs,
                                           const std::vector<Shape>& outputs) const = 0;
};

// Chooses the engine used where a program does not name one: one of the registry's
// (engine/registry.h), by its name or one of its other names. "native" is the default; "onednn" and
// "reference" come with octet too. Native results are the same bits on every instruction set, in
// float too; those of oneDNN's float kernels are not. An unknown name is an Error that lists the
// registered ones. Thread-safe.
void set_engine(std::string_view name);
std::string engine();  // its name: "native", also where "fbgemm" was asked for

// A kernel of the first that has one: the engine of that name (by default engine()), native, oneDNN
// (gradients of layers only), reference, and native's float kernel between a dequantization and a
// quantization. An engine that does not fall back (reference) is asked alone. Null if none has a
// kernel: the operator's own evaluation is used then (ops/op.h). Error as set_engine's.
std::unique_ptr<Kernel> make_kernel(const OpSpec& spec, std::string_view engine = "");

// Runs a kernel on tensors: puts operands into the kernel's layouts, allocates the outputs. For
// single calls; the runtime plans whole graphs.
std::vector<Tensor> run_kernel(const Kernel& kernel, const OpSpec& spec,
                               const std::vector<Tensor>& inputs);

// Sees every kernel that run_kernel and CachedKernel run on this thread while it lives: what eager
// calls ran on. The innermost one is told.
class KernelWatch {
 public:
  KernelWatch();
  virtual ~KernelWatch();
  KernelWatch(const KernelWatch&) = delete;
  KernelWatch& operator=(const KernelWatch&) = delete;
  virtual void ran(const Kernel& kernel) = 0;

 private:
  KernelWatch* outer_;
};

// A kernel with its last plan, for calls that repeat with the same constants: eager modules. Safe
// for concurrent calls.
class CachedKernel {
 public:
  // `spec` may have symbolic dims. Null kernel: nobody has one.
  explicit CachedKernel(const OpSpec& spec);
  ~CachedKernel();
  bool found() const { return kernel_ != nullptr; }
  const Kernel& kernel() const { return *kernel_; }
  // `outputs` are the concrete types of the results.
  std::vector<Tensor> run(const std::vector<Tensor>& inputs,
                          const std::vector<TensorType>& outputs) const;

 private:
  struct Plan;
  std::unique_ptr<Kernel> kernel_;
  std::vector<bool> constant_;
  std::unique_ptr<Plan> plan_;
};

}  // namespace octet
