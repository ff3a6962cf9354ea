#pragma once
// What a model really computed with: for each step the kernel that ran, the types of its operands,
// what it summed in, how long it took; and why the rest is float.
//
//   runtime::Program program = runtime::compile(graph);
//   debug::Explanation e = debug::explain(program, {{x}});  // {x} are the program's inputs
//   std::cout << to_string(e);
//
// Modules, as they are called in eager mode:
//
//   std::cout << to_string(debug::explain(*int8, {{x}}, {.verify = true}));
//
// What is said of a kernel is the kernel's own word (Kernel::description), not a guess from the
// operator's name.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "octet/nn/module.h"
#include "octet/runtime/program.h"

namespace octet::debug {

struct ExplainOptions {
  double seconds = 0.3;  // how long steps are timed, one warm-up run not counted; 0: not at all
  // Compute the result of every step that has codes among its operands or results once more with
  // the reference engine, from the operands that it really had, for all samples. (The process's
  // engine is "reference" meanwhile.)
  bool verify = false;
};

// What a step computed with.
enum class Numbers {
  integers,     // sums of codes or of products of codes
  codes,        // codes, without sums: tables, maxima, copies; additions of codes through registers
  fixed_point,  // codes times float32 values as whole numbers of 24 bits (weight-only layers)
  conversion,   // quantize, dequantize
  floats,
  layout,  // values are put in another order in memory; no operator of the model
};
const char* to_string(Numbers numbers);

struct ExplainedOperand {
  std::string name;
  TensorType type;        // with the sizes of the first sample
  bool constant = false;  // known when the kernel was made: weights, biases
  double bytes = 0;
};
// "quint8, per tensor, scale 0.02, zero point 128", "qint8, per channel along 0 (64), symmetric".
std::string scheme(const TensorType& type);

struct ExplainedStep {
  std::string name;  // the module's or the file's name of the layer, else "%" and the result's
  std::string op;
  std::vector<ExplainedOperand> inputs, outputs;  // omitted operands are left out
  Numbers numbers = Numbers::floats;
  std::string why_float;  // never empty where numbers is floats, else empty

  std::string kernel;             // its name; "the operator's own evaluation" where none ran
  std::string engine;             // "native"; "op" for own evaluations, "layout"
  KernelDescription description;  // the kernel's own word
  std::string isa;                // of the inner loop: "avx512vnni"; empty where unknown
  int threads = 1;                // that it may take
  bool openmp = false;            // they are OpenMP's
  // The largest magnitude that a sum can have, found in the weights; unset without integer sums.
  std::optional<int64_t> largest_sum;
  std::vector<std::string> fused;  // what runs in this step too: "relu", "the step before, by rows"
  std::string note;                // who runs it in place of the program's engine

  double multiply_adds = 0;  // for the first sample; 0 of operators without products
  double bytes = 0;          // of operands read, packed weights and results written, each once
  double seconds = 0;        // median; 0 if not timed or part of the step before
  double share = 0;          // of the time of all steps, 0..1
  // The least time that the machine could take by the measured ceilings, by the time it took; 0 if
  // not timed. Above 1 where caches are better than what was measured, and where Winograd's
  // algorithm takes fewer multiply-adds than the plain convolution's, which are counted.
  double of_ceiling = 0;
  bool bound_by_memory = false;  // which ceiling that is: else multiply-adds

  std::string verified;  // "identical", the first difference, or empty: not asked for, or float
  bool differs = false;

  // Whether operands and result are 8-bit codes, none of them through whole tensors of floats.
  bool on_codes() const { return numbers == Numbers::integers || numbers == Numbers::codes; }
};

// What the machine can do at best, as measured beside the steps.
struct Ceilings {
  double integer_multiply_adds = 0;  // per second, u8 x s8; 0: not measured
  double float_multiply_adds = 0;
  struct Memory {
    double bytes, bytes_per_second;
  };
  std::vector<Memory> memory;  // reading and writing blocks of that many bytes, ascending
  std::string description;     // what was measured, in a sentence
};

struct Explanation {
  std::string machine;  // "AMD EPYC, 2 cores, avx512vnni; 2 threads"
  std::string engine;   // the process's, whose products the ceilings are measured with
  std::vector<ExplainedStep> steps;
  double seconds = 0;  // of all steps
  Ceilings ceilings;
  int64_t samples = 0;         // that were run
  bool verified = false;       // whether that was asked for
  std::string output_differs;  // the run as a whole against the run step by step; empty: the same
  std::vector<std::string> notes;  // warnings of kernels, and who runs what in place of the engine

  // What it comes to, in sentences: how much ran on codes, what is float and why, what verification
  // found.
  std::vector<std::string> summary() const;
  // The steps whose name matches `pattern` (base/text.h, NamePattern; "" is all operators) and that
  // did not run on 8-bit codes. Conversions and changes of layout do not count. Error if nothing
  // has such a name.
  std::vector<const ExplainedStep*> not_on_codes(const std::string& pattern) const;
};

// A table of at most 100 columns, and the summary. With `details` also a paragraph for each step.
std::string to_string(const Explanation& explanation, bool details = false);

// `samples` are inputs of runs, each in the order of the graph's inputs; at least one (Error), of
// the program's types. The first is timed.
Explanation explain(const runtime::Program& program,
                    const std::vector<std::vector<Tensor>>& samples,
                    const ExplainOptions& options = {});
// The same for a module called on each of the samples: a step is an operator call. Steps are timed
// as eager calls, with the allocation of their results.
Explanation explain(nn::Module& module, const std::vector<std::vector<Tensor>>& samples,
                    const ExplainOptions& options = {});

}  // namespace octet::debug
