#pragma once
// The inside of a Program: what compile.cpp decides once, and what program.cpp plans per set of
// shapes.
//
// A value of the graph may lie in memory in one or two layouts; each is a slot. Slots that share
// bytes (a reshape and its operand, a result written over an operand) share a root; memory is
// planned for roots.

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "octet/engine/registry.h"
#include "octet/graph/graph.h"
#include "octet/runtime/program.h"

namespace octet::runtime {

struct Slot {
  graph::ValueId value = -1;
  bool channels_last = false;
  int root = -1;
  // the step after which its bytes are there; -1: before the first (inputs, constants)
  int made = -1;
};

struct Root {
  enum class Kind { arena, input, constant, output } kind = Kind::arena;
  Tensor constant;          // Kind::constant: the data, in the slot's layout
  int input = -1;           // Kind::input: which
  int first = 0, last = 0;  // steps of definition and last use
  // arena: only steps of this group touch it, so that it is held a few rows at a time
  int group = -1;
  size_t inner = 0;  // its place among the group's inner roots
};

struct Step {
  // open: a call with attributes that operands give. With the shapes it gets a kernel of its own,
  // or is evaluated.
  enum class Kind { kernel, reorder, evaluate, open } kind = Kind::kernel;
  graph::NodeId node = -1;
  std::unique_ptr<Kernel> kernel;
  std::vector<int> inputs;   // slots; -1: packed constant or omitted
  std::vector<int> outputs;  // slots
};

// Steps first..last (excluded) whose kernels all go by rows, of equally many rows: they are run
// together, some rows at a time through all of them, so that what passes between them stays in the
// cache, and threads are woken once.
struct RowGroup {
  static constexpr size_t kMostInputs = 4;
  int first = 0, last = 0;
  std::vector<int> inner;  // roots that no other step touches
};

// A group for concrete shapes.
struct RowGroupPlan {
  int64_t rows = 0;
  int64_t block = 1;  // rows that go through at once
  int64_t parts = 1;  // threads; each has room for a block of every inner root
  size_t part_bytes = 0;
  std::vector<size_t> offsets, row_bytes;  // by inner root
};

// One set of input shapes: concrete types, kernel plans and memory. Used by one run at a time.
struct Context {
  // inner values of groups are in the arena too: steps are run one by one, to be watched
  bool every_value = false;
  std::vector<Shape> input_shapes;
  std::vector<TensorType> types;                   // by value
  std::vector<std::unique_ptr<KernelPlan>> plans;  // by step; null: evaluated
  // What the attributes of open calls are for these shapes, and their kernels, by step.
  std::map<size_t, Attrs> open_attrs;
  std::map<size_t, std::unique_ptr<Kernel>> open_kernels;
  // By Impl::deciding_inputs: what the inputs held when this was planned.
  std::vector<Tensor> decided_by;
  std::vector<size_t> offsets;  // by root, into the arena
  std::vector<size_t> bytes;    // by root
  std::vector<RowGroupPlan> groups;
  size_t scratch_offset = 0;
  Buffer arena;
  // What a run needs, kept so that it allocates nothing:
  std::vector<std::byte*> pointers;   // by root, valid during a run
  std::vector<const void*> operands;  // room for those of any step
  std::vector<void*> results;
  std::vector<Tensor> inputs;                 // contiguous; undefined between runs
  std::vector<std::vector<int64_t>> strides;  // of the results, as the last step leaves them
  std::vector<Buffer> large_results;          // of the last run, by result (result_buffer())
};

struct Program::Impl {
  graph::Graph graph;
  const Engine* engine = nullptr;  // the one that is asked first
  std::vector<Slot> slots;
  std::vector<Root> roots;
  std::vector<Step> steps;
  std::vector<RowGroup> groups;  // in order
  std::vector<StepInfo> infos;
  bool own_threads = false;  // no step's kernel runs on OpenMP's threads
  std::vector<int> primary;  // by value: its first slot, -1 for constants that are only packed
  // By value: an attribute of an open call or a size is computed from it, so that it is evaluated
  // when shapes are planned; and the inputs among them, by their place.
  std::vector<bool> decides;
  std::vector<size_t> deciding_inputs;
  std::vector<std::string> warnings;

  std::mutex mutex;
  std::vector<std::unique_ptr<Context>> idle;
};

}  // namespace octet::runtime
