#pragma once
// Whether a float graph can be quantized, before any calibration data is read: what will be 8 bits,
// what stays float and why, weights that are degenerate, and what it would gain.
//
//   debug::Check c = debug::check(graph);
//   for (const debug::CheckedKind& kind : c.kinds)
//     std::cout << kind.op << ": " << kind.quantized << " of " << kind.nodes << "\n";
//   c.require_ok();
//
// What is quantized is quant::prepare_fx's answer, so it is what will be done.

#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "octet/base/error.h"
#include "octet/quant/workflow/fx.h"

namespace octet::debug {

// Nodes that stay float for one reason.
struct LeftFloat {
  std::string reason;
  std::vector<std::string> nodes;  // as quant::node_name() has them, in the graph's order
};

// The calls of one operator.
struct CheckedKind {
  std::string op;
  int64_t nodes = 0;
  int64_t quantized = 0;     // of them: will be 8 bits
  int64_t weight_bytes = 0;  // of their float constants, each counted once
  std::vector<LeftFloat> left_float;
};

struct Check {
  struct Problem {
    ErrorCode code = ErrorCode::invalid_argument;
    std::string message;
  };
  // What prevents quantizing. Callers add what they find themselves (data that does not fit).
  std::vector<Problem> problems;
  // What does not prevent it but is worth a look: dead channels, outliers.
  std::vector<std::string> warnings;

  std::vector<CheckedKind> kinds;  // those with the most weights first, then the most nodes
  bool decided = false;            // whether `quantized` and `left_float` are known
  int64_t nodes() const;
  int64_t quantized() const;

  // Bytes of constants: of the float graph, and once those are codes that will be.
  int64_t float_weight_bytes = 0, quantized_weight_bytes = 0;

  // Of one run; what check_run() fills in. NaN and 0: not known.
  double multiply_adds = NAN;                             // of the float graph
  double float_ms = NAN, int8_ms = NAN;                   // median
  int64_t float_memory_bytes = 0, int8_memory_bytes = 0;  // planned for values
  std::string not_run;  // why there was no run, or what went wrong in it

  // The prepared graph, not calibrated; null where preparing it failed.
  std::shared_ptr<quant::ObservedGraphModule> prepared;

  bool ok() const { return problems.empty(); }
  void add_problem(const Error& error) { problems.push_back({error.code(), error.what()}); }
  // Runs what may throw an Error, which becomes a problem.
  void collect(const std::function<void()>& what);
  // Error with every problem, if there is one: the only one as it is, else "2 problems: (1) ...".
  void require_ok() const;
};

struct CheckOptions {
  quant::QConfigMapping mapping = quant::get_default_qconfig_mapping();
  quant::PrepareOptions prepare = {};
};

// Weights are constants that will be codes of the weight's observer. Named are those with NaN or
// infinities (problems), with nothing but zeros, with channels of nothing but zeros, and with
// channels kOutlierChannel times as large as the median channel (warnings); a NaN in another
// constant is a warning. Whatever prepare_fx and compiling the graph reject is a problem.
inline constexpr double kOutlierChannel = 64;
Check check(const graph::Graph& graph, const CheckOptions& options = {});

// Calibrates a copy of `check.prepared` on one sample, converts and runs it beside the float graph:
// time (at most about `seconds` for each; left out where one run takes longer), planned memory and
// multiply-adds of these inputs. With `made_up` inputs an Error of the run is no problem: it is
// said in not_run. Does nothing unless check.prepared is set.
void check_run(Check& check, const graph::Graph& graph, const std::vector<Tensor>& inputs,
               bool made_up, double seconds = 0.1);

}  // namespace octet::debug
