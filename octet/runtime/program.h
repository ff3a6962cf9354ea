#pragma once
// Compiled execution: a graph becomes a list of kernel calls over one planned block of memory.

#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "octet/graph/graph.h"

namespace octet::runtime {

struct CompileOptions {
  // A name of the registry (engine/registry.h): "native"; "" is the process's choice (engine()).
  std::string engine;
  // Compute every value of the graph that is given, so that run_watched can show it: nothing is
  // fused (graph/fuse_lookups.h).
  bool every_value = false;
};

// What runs for one node of the graph.
struct StepInfo {
  graph::NodeId node = -1;
  std::string kernel;  // the kernel's name; of a reordering "reorder to NHWC" or "... to NCHW"
  // The kernel's engine; "layout" for a reordering, "op" where the operator's own evaluation runs.
  std::string engine;
  size_t packed_bytes = 0;
  // runs together with the step before, some rows at a time: the first of them has the time of all
  bool with_previous = false;
  // What ran in place of the program's engine where that had no kernel: "onednn has no kernel for
  // this softmax; native runs it". Empty where it had one, and with an engine that does not fall
  // back.
  std::string note;
};

// A compiled graph. Weights are packed once, at compile time; memory is planned once per set of
// input shapes and reused. run() may be called from several threads at once.
class Program {
 public:
  // Inputs in the graph's order. Dims must agree with the input types; a symbolic dimension may
  // have any size of 1 or more but the same one everywhere. Error naming the input, what was
  // expected and what was got. Integers, float64 and float16 are not converted: dtypes must be the
  // graph's. Results are new tensors (channels_last where the last kernel left them so); the memory
  // of results of more than 32 MB stays the program's for its next run, once nobody has them.
  std::vector<Tensor> run(const std::vector<Tensor>& inputs) const;
  std::vector<Tensor> run(std::initializer_list<Tensor> inputs) const {
    return run(std::vector<Tensor>(inputs));
  }
  std::map<std::string, Tensor> run(const std::map<std::string, Tensor>& inputs) const;

  // The same, with results written into tensors of the caller's: of run()'s types and shapes,
  // sharing no memory with each other or the inputs. From the second call with inputs of the same
  // shapes on this allocates nothing (and run() nothing but its results), if all inputs are
  // contiguous, the results laid out as run() lays them out, and every step is native or a
  // reordering (steps()): oneDNN and operators' own evaluations ("op") allocate. Error naming the
  // result, what was expected and what was got.
  void run_into(const std::vector<Tensor>& inputs, const std::vector<Tensor>& results) const;

  // Runs, and shows each of the wanted values to `watch` once, as soon as it is there. The tensors
  // are only valid during the call.
  using Watch = std::function<void(graph::ValueId, const Tensor&)>;
  std::vector<Tensor> run_watched(const std::vector<Tensor>& inputs,
                                  const std::vector<graph::ValueId>& values,
                                  const Watch& watch) const;

  // Runs once more and returns the seconds spent in each step, in the order of steps(); 0 in those
  // with_previous.
  std::vector<double> profile(const std::vector<Tensor>& inputs) const;

  // What runs: the graph that was given, but for functions of one code, which are lookups unless
  // every_value was asked for. Ids of values and nodes here are its.
  const graph::Graph& graph() const;
  const std::vector<StepInfo>& steps() const;
  // The kernel of a step, by its place in steps(); null where there is none: a reordering, or an
  // operator's own evaluation. It lives as long as the program.
  const Kernel* kernel(size_t step) const;
  const std::vector<std::string>& warnings() const;  // e.g. of sums beyond int32, one line each
  // What ran in place of the program's engine (StepInfo::note), one line for each who did: "onednn
  // has no kernel for 3 of 9 steps: softmax, layer_norm; native runs them".
  std::vector<std::string> fallbacks() const;
  size_t arena_bytes(const std::vector<Tensor>& inputs) const;  // planned memory for these shapes

  struct Impl;
  explicit Program(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

 private:
  std::shared_ptr<Impl> impl_;
};

// Error naming every node that cannot run (all of them in one).
Program compile(const graph::Graph& graph, const CompileOptions& options = {});

}  // namespace octet::runtime
