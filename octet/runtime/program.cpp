#include "octet/runtime/program.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>
#include <utility>

#include "octet/base/check_impl.h"
#include "octet/base/lasting.h"
#include "octet/base/parallel.h"
#include "octet/base/text.h"
#include "octet/engine/reorder.h"
#include "octet/runtime/memory_plan.h"
#include "octet/runtime/program_impl.h"

namespace octet::runtime {
namespace {

using graph::ValueId;

// Checks inputs against the graph's types and returns the sizes of the symbolic dims.
std::map<std::string, int64_t> bind_inputs(const graph::Graph& g,
                                           const std::vector<Tensor>& inputs) {
  std::vector<std::string> names;
  for (ValueId id : g.inputs()) names.push_back(g.value(id).name);
  OCTET_CHECK(inputs.size() == names.size(), invalid_argument,
              "{}: {} inputs given; expected {} ({})", g.name, inputs.size(), names.size(),
              fmt::join(names, ", "));
  std::map<std::string, int64_t> symbols;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const TensorType& want = g.type(g.inputs()[i]);
    OCTET_CHECK(inputs[i].defined(), invalid_argument, "input '{}': no tensor given; expected {}",
                names[i], to_string(want));
    TensorType got = inputs[i].type();
    bool ok = got.dtype == want.dtype && got.dim() == want.dim() &&
              (!want.quantizer || *want.quantizer == *got.quantizer);
    for (int64_t d = 0; ok && d < want.dim(); ++d) {
      int64_t size = got.dims[d].size();
      if (want.dims[d].known()) {
        ok = want.dims[d].size() == size;
      } else {
        OCTET_CHECK(size >= 1, invalid_argument,
                    "input '{}': dimension {} ('{}') is 0; expected 1 or more", names[i], d,
                    want.dims[d].name());
        auto [it, fresh] = symbols.emplace(want.dims[d].name(), size);
        OCTET_CHECK(it->second == size, invalid_argument,
                    "input '{}': dimension {} ('{}') is {}, but was {} before", names[i], d,
                    it->first, size, it->second);
      }
    }
    OCTET_CHECK(ok, invalid_argument, "input '{}': got {}; expected {}", names[i], to_string(got),
                to_string(want));
  }
  return symbols;
}

TensorType concrete(const TensorType& type, const std::map<std::string, int64_t>& symbols) {
  TensorType result = type;
  for (Dim& d : result.dims)
    if (!d.known()) {
      auto it = symbols.find(d.name());
      if (it != symbols.end()) d = Dim(it->second);
    }
  return result;
}

size_t bytes_of(const TensorType& t) { return numel(t.shape()) * element_size(t.dtype); }

RowGroupPlan plan_group(const Program::Impl& p, const Context& c, const RowGroup& group) {
  constexpr int64_t kBlockBytes = 24 << 10, kGrain = 1 << 16;
  RowGroupPlan plan;
  const Shape& y = c.types[p.slots[p.steps[group.first].outputs[0]].value].shape();
  plan.rows = numel({y.begin(), y.end() - 1});
  if (plan.rows == 0) return plan;
  int64_t row_bytes = 0, work = 0;
  for (int s = group.first; s < group.last; ++s) {
    const TensorType& t = c.types[p.slots[p.steps[s].outputs[0]].value];
    work += numel(t.shape());
    row_bytes += static_cast<int64_t>(bytes_of(t)) / plan.rows;
  }
  plan.block = std::clamp<int64_t>(kBlockBytes / std::max<int64_t>(1, row_bytes), 1, plan.rows);
  plan.parts = std::clamp<int64_t>(work / kGrain, 1, std::min<int64_t>(num_threads(), plan.rows));
  for (int r : group.inner) {
    plan.row_bytes.push_back(c.bytes[r] / static_cast<size_t>(plan.rows));
    plan.offsets.push_back(plan.part_bytes);
    plan.part_bytes +=
        (plan.row_bytes.back() * static_cast<size_t>(plan.block) + kBufferSlack + 63) / 64 * 64;
  }
  return plan;
}

// Whether bind_inputs has nothing to say, for inputs of the shapes that it saw once.
bool types_match(const graph::Graph& g, const std::vector<Tensor>& inputs) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    const TensorType& want = g.type(g.inputs()[i]);
    if (inputs[i].dtype() != want.dtype ||
        (want.quantizer && !(*want.quantizer == *inputs[i].quantizer())))
      return false;
  }
  return true;
}

std::vector<int64_t> strides_of(const Slot& slot, const Shape& shape) {
  return slot.channels_last && shape.size() == 4 ? channels_last_strides(shape)
                                                 : contiguous_strides(shape);
}

// Whether strides put all elements in the same places.
bool same_places(const Shape& shape, const std::vector<int64_t>& a, const std::vector<int64_t>& b) {
  for (size_t d = 0; d < shape.size(); ++d)
    if (shape[d] != 1 && a[d] != b[d]) return false;
  return true;
}

std::string label_of(const graph::Graph& g, const graph::Node& node) {
  return node.scope.empty() ? "%" + g.value(node.outputs[0]).name : node.scope;
}

// The values that decide on sizes, while shapes are planned: evaluated from shapes, constants and
// what the inputs hold.
class Deciding {
 public:
  Deciding(const Program::Impl& p, const std::vector<Tensor>& inputs)
      : p_(p), values_(p.graph.values().size()), attrs_(p.graph.nodes().size()) {
    for (size_t i : p.deciding_inputs) values_[p.graph.inputs()[i]] = inputs[i];
  }

  // The types of a call's results for concrete operands, and its results if they decide.
  void call(Context& c, const graph::Node& node) {
    const graph::Graph& g = p_.graph;
    const ops::Op& op = ops::get(node.op);
    const auto index = static_cast<size_t>(g.value(node.outputs[0]).producer);
    std::vector<Tensor> operands;
    std::vector<std::optional<TensorType>> types;
    const bool open = node.attrs.any_operand();
    const bool decides = std::any_of(node.outputs.begin(), node.outputs.end(),
                                     [&](ValueId v) { return p_.decides[v]; });
    if (open || decides)
      for (ValueId v : node.inputs) operands.push_back(value(v));
    const Attrs* attrs = &node.attrs;
    size_t count = node.inputs.size();
    if (open) {
      attrs_[index] = ops::take_open_attrs(op, node.attrs, operands);
      attrs = &attrs_[index];
      count = operands.size();
    }
    for (size_t i = 0; i < count; ++i)
      types.push_back(node.inputs[i] == graph::kNone ? std::nullopt
                                                     : std::optional(c.types[node.inputs[i]]));
    auto results = op.infer(types, *attrs, graph::want_of(g, node), label_of(g, node));
    for (size_t i = 0; i < results.size(); ++i) c.types[node.outputs[i]] = results[i];
    if (!decides) return;
    for (size_t i = 0; i < operands.size(); ++i)
      if (op.traits().of_types && !operands[i].defined())
        operands[i] = Tensor::symbolic(c.types[node.inputs[i]]);
    std::vector<Tensor> made =
        ops::evaluate(ops::Call(op, std::move(operands), *attrs, std::move(results)));
    for (size_t i = 0; i < made.size(); ++i) {
      c.types[node.outputs[i]] = made[i].type();
      values_[node.outputs[i]] = std::move(made[i]);
    }
  }
  const Attrs& attrs(graph::NodeId node) const { return attrs_[node]; }

 private:
  Tensor value(ValueId v) const {
    if (v == graph::kNone) return {};
    return p_.graph.is_constant(v) ? p_.graph.constant(v) : values_[v];
  }
  const Program::Impl& p_;
  std::vector<Tensor> values_;  // undefined: does not decide
  std::vector<Attrs> attrs_;    // of open calls
};

// The kernel of an open call for these shapes, if there is one in the layout that its slots have.
std::unique_ptr<KernelPlan> plan_open(const Program::Impl& p, Context& c, const Deciding& deciding,
                                      const Step& step) {
  const graph::Node& node = p.graph.node(step.node);
  const auto index = static_cast<size_t>(&step - p.steps.data());
  const Attrs& attrs = c.open_attrs[index] = deciding.attrs(step.node);
  const size_t count = step.inputs.size();
  std::vector<std::optional<TensorType>> types;
  std::vector<Shape> in, out;
  for (size_t i = 0; i < count; ++i) {
    const ValueId v = node.inputs[i];
    types.push_back(v == graph::kNone ? std::nullopt : std::optional(c.types[v]));
    in.push_back(v == graph::kNone ? Shape{} : c.types[v].shape());
  }
  std::vector<TensorType> results;
  for (ValueId v : node.outputs) {
    results.push_back(c.types[v]);
    out.push_back(c.types[v].shape());
  }
  const OpSpec spec = ops::make_spec(ops::get(node.op), attrs, types, std::vector<Tensor>(count),
                                     std::move(results), label_of(p.graph, node));
  std::unique_ptr<Kernel> kernel = make_kernel(spec, p.engine->name());
  if (!kernel || kernel->threads() != Threads::own) return nullptr;
  const bool channels_last = p.slots[step.outputs[0]].channels_last;
  if (channels_last && kernel->input_layout(0) == Layout::row_major) {
    kernel = kernel->in_channels_last();
    if (!kernel) return nullptr;
  }
  const auto fits = [&](Layout layout) {
    return layout == Layout::any ||
           layout == (channels_last ? Layout::channels_last : Layout::row_major);
  };
  for (size_t i = 0; i < count; ++i)
    if (c.types[node.inputs[i]].dim() == 4 && !fits(kernel->input_layout(i))) return nullptr;
  for (size_t i = 0; i < node.outputs.size(); ++i)
    if (c.types[node.outputs[i]].dim() == 4 && !fits(kernel->output_layout(i))) return nullptr;
  std::unique_ptr<KernelPlan> plan = kernel->plan(in, out);
  c.open_kernels[index] = std::move(kernel);
  return plan;
}

std::unique_ptr<Context> make_context(const Program::Impl& p, const std::vector<Tensor>& inputs,
                                      bool every_value) {
  const graph::Graph& g = p.graph;
  auto symbols = bind_inputs(g, inputs);
  auto c = std::make_unique<Context>();
  c->every_value = every_value;
  for (const Tensor& t : inputs) c->input_shapes.push_back(t.shape());
  c->types.resize(g.values().size());
  Deciding deciding(p, inputs);
  for (size_t i : p.deciding_inputs) c->decided_by.push_back(inputs[i].contiguous().clone());
  for (const graph::Node& node : g.nodes()) {
    if (node.kind != graph::NodeKind::call) {
      c->types[node.outputs[0]] = concrete(g.type(node.outputs[0]), symbols);
      continue;
    }
    deciding.call(*c, node);
  }

  c->bytes.assign(p.roots.size(), 0);
  for (const Slot& slot : p.slots)
    c->bytes[slot.root] = std::max(c->bytes[slot.root], bytes_of(c->types[slot.value]));
  std::vector<Lifetime> blocks;
  for (size_t r = 0; r < p.roots.size(); ++r)
    blocks.push_back(p.roots[r].kind == Root::Kind::arena && p.roots[r].first >= 0 &&
                             (every_value || p.roots[r].group < 0)
                         ? Lifetime{c->bytes[r], p.roots[r].first, p.roots[r].last}
                         : Lifetime{0, -1, -2});  // not in the arena
  MemoryPlan plan = plan_memory(blocks);
  c->offsets = std::move(plan.offsets);
  size_t scratch = 0;
  for (const Step& step : p.steps) {
    std::unique_ptr<KernelPlan> kernel_plan;
    if (step.kind == Step::Kind::open) {
      kernel_plan = plan_open(p, *c, deciding, step);
      if (kernel_plan) scratch = std::max(scratch, kernel_plan->scratch_bytes());
    } else if (step.kernel) {
      std::vector<Shape> in, out;
      const graph::Node& node = g.node(step.node);
      for (ValueId id : node.inputs)
        in.push_back(id == graph::kNone ? Shape{} : c->types[id].shape());
      for (ValueId id : node.outputs) out.push_back(c->types[id].shape());
      kernel_plan = step.kernel->plan(in, out);
      scratch = std::max(scratch, kernel_plan->scratch_bytes());
    } else if (step.kind == Step::Kind::reorder) {
      const Slot& to = p.slots[step.outputs[0]];
      const TensorType& type = c->types[to.value];
      kernel_plan = plan_reorder(type.shape(), element_size(type.dtype), to.channels_last);
    }
    c->plans.push_back(std::move(kernel_plan));
  }
  if (!every_value)
    for (const RowGroup& group : p.groups) {
      c->groups.push_back(plan_group(p, *c, group));
      scratch = std::max(scratch,
                         c->groups.back().part_bytes * static_cast<size_t>(c->groups.back().parts));
    }
  c->scratch_offset = plan.total;
  c->arena = allocate_lasting(plan.total + scratch);
  c->pointers.assign(p.roots.size(), nullptr);
  size_t most = 0, most_results = 0;
  for (const Step& step : p.steps) {
    most = std::max(most, step.inputs.size());
    most_results = std::max(most_results, step.outputs.size());
  }
  c->operands.resize(most);
  c->results.resize(most_results);
  c->inputs.resize(inputs.size());
  for (ValueId id : g.outputs())
    c->strides.push_back(strides_of(p.slots[p.primary[id]], c->types[id].shape()));
  return c;
}

// Whether the inputs that decide on sizes hold what they held when the context was planned.
bool decided_alike(const Program::Impl& p, const Context& c, const std::vector<Tensor>& inputs) {
  for (size_t i = 0; i < c.decided_by.size(); ++i)
    if (!equal(inputs[p.deciding_inputs[i]], c.decided_by[i])) return false;
  return true;
}

// Takes an idle context of these shapes, or makes one; gives it back when done.
class ContextLease {
 public:
  ContextLease(Program::Impl& p, const std::vector<Tensor>& inputs, bool every_value = false)
      : p_(p) {
    {
      std::lock_guard lock(p.mutex);
      p.idle.reserve(kMostIdle + 1);  // giving it back takes no memory
      for (auto& c : p.idle) {
        bool match = c->input_shapes.size() == inputs.size() && c->every_value == every_value;
        for (size_t i = 0; match && i < inputs.size(); ++i)
          match = inputs[i].defined() && c->input_shapes[i] == inputs[i].shape();
        if (!match || !decided_alike(p, *c, inputs)) continue;
        context_ = std::move(c);
        std::swap(c, p.idle.back());
        p.idle.pop_back();
        break;
      }
    }
    if (!context_)
      context_ = make_context(p, inputs, every_value);
    else if (!types_match(p.graph, inputs))
      bind_inputs(p.graph, inputs);
  }
  ~ContextLease() {
    std::lock_guard lock(p_.mutex);
    p_.idle.push_back(std::move(context_));
    if (p_.idle.size() > kMostIdle) p_.idle.erase(p_.idle.begin());
  }
  Context& operator*() { return *context_; }

 private:
  // A few shapes are kept; the oldest goes first, so that a stream of odd sizes does not hold
  // memory for each.
  static constexpr size_t kMostIdle = 8;
  Program::Impl& p_;
  std::unique_ptr<Context> context_;
};

// A tensor over a slot's bytes, for the time of the run.
Tensor view(const Program::Impl& p, const Context& c, int slot_index) {
  const Slot& slot = p.slots[slot_index];
  const TensorType& type = c.types[slot.value];
  Shape shape = type.shape();
  Buffer bytes = Buffer::wrap(c.pointers[slot.root], bytes_of(type), nullptr);
  return Tensor::wrap(bytes, shape, type.dtype, type.quantizer, strides_of(slot, shape));
}

// Runs a step by its operator's own evaluation.
void evaluate_step(const Program::Impl& p, Context& c, size_t index) {
  const Step& step = p.steps[index];
  const graph::Node& node = p.graph.node(step.node);
  const ops::Op& op = ops::get(node.op);
  std::vector<Tensor> inputs;
  // Constants as the same tensors each time: what is packed for them is kept with them.
  for (int slot : step.inputs) {
    const Root* root = slot < 0 ? nullptr : &p.roots[p.slots[slot].root];
    inputs.push_back(!root ? Tensor()
                     : root->kind == Root::Kind::constant && !p.slots[slot].channels_last
                         ? root->constant
                         : view(p, c, slot));
  }
  std::vector<TensorType> types;
  for (ValueId id : node.outputs) types.push_back(c.types[id]);
  std::vector<Tensor> results;
  try {
    const auto open = c.open_attrs.find(index);
    results = ops::evaluate(ops::Call(op, std::move(inputs),
                                      open != c.open_attrs.end() ? open->second : node.attrs,
                                      std::move(types)));
  } catch (const Error& e) {  // of the numbers: which node met them
    throw Error(e.code(), fmt::format("{}: {}", label_of(p.graph, node), e.what()));
  }
  for (size_t i = 0; i < results.size(); ++i) view(p, c, step.outputs[i]).copy_from(results[i]);
}

void run_step(const Program::Impl& p, Context& c, size_t index) {
  const Step& step = p.steps[index];
  switch (step.kind) {
    case Step::Kind::open:
      if (!c.plans[index]) {
        evaluate_step(p, c, index);
        return;
      }
      [[fallthrough]];
    case Step::Kind::reorder:
    case Step::Kind::kernel: {
      auto pointer = [&](int slot) -> std::byte* {
        return slot < 0 ? nullptr : c.pointers[p.slots[slot].root];
      };
      for (size_t i = 0; i < step.inputs.size(); ++i) c.operands[i] = pointer(step.inputs[i]);
      for (size_t i = 0; i < step.outputs.size(); ++i) c.results[i] = pointer(step.outputs[i]);
      c.plans[index]->run({c.operands.data(), step.inputs.size()},
                          {c.results.data(), step.outputs.size()},
                          c.arena.data() + c.scratch_offset);
      return;
    }
    case Step::Kind::evaluate:
      evaluate_step(p, c, index);
      return;
  }
}

// One part of a group's rows, a block after the other.
void run_rows(const Program::Impl& p, Context& c, size_t index, int64_t part) {
  const RowGroup& group = p.groups[index];
  const RowGroupPlan& plan = c.groups[index];
  const auto mine = reinterpret_cast<uintptr_t>(c.arena.data() + c.scratch_offset) +
                    plan.part_bytes * static_cast<size_t>(part);
  const int64_t end = plan.rows * (part + 1) / plan.parts;
  for (int64_t r0 = plan.rows * part / plan.parts; r0 < end; r0 += plan.block) {
    const int64_t r1 = std::min(end, r0 + plan.block);
    // Kernels count rows from the tensor's first: for an inner root that would lie before its
    // block.
    auto pointer = [&](int slot) -> std::byte* {
      if (slot < 0) return nullptr;
      const Root& root = p.roots[p.slots[slot].root];
      if (root.group < 0) return c.pointers[p.slots[slot].root];
      // NOLINTNEXTLINE(performance-no-int-to-ptr)
      return reinterpret_cast<std::byte*>(mine + plan.offsets[root.inner] -
                                          plan.row_bytes[root.inner] * static_cast<size_t>(r0));
    };
    for (int s = group.first; s < group.last; ++s) {
      const Step& step = p.steps[s];
      const void* in[RowGroup::kMostInputs];
      for (size_t i = 0; i < step.inputs.size(); ++i) in[i] = pointer(step.inputs[i]);
      void* out = pointer(step.outputs[0]);
      c.plans[s]->run_rows({in, step.inputs.size()}, {&out, 1}, r0, r1);
    }
  }
}

// Called before the first step, with -1, and after each (after a group's last in place of its
// steps, with the first).
using AfterStep = std::function<void(Context&, int)>;

// Runs all steps. The pointers of the roots of results are set.
void run_steps(Program::Impl& p, Context& c, const std::vector<Tensor>& given,
               const AfterStep& after) {
  for (size_t i = 0; i < given.size(); ++i) c.inputs[i] = given[i].contiguous();
  for (size_t r = 0; r < p.roots.size(); ++r) {
    const Root& root = p.roots[r];
    switch (root.kind) {
      case Root::Kind::arena:
        c.pointers[r] = c.arena.data() + c.offsets[r];
        break;
      case Root::Kind::input:
        c.pointers[r] = static_cast<std::byte*>(c.inputs[root.input].raw_data());
        break;
      case Root::Kind::constant:
        c.pointers[r] = static_cast<std::byte*>(root.constant.raw_data());
        break;
      case Root::Kind::output:
        break;
    }
  }
  if (after) after(c, -1);
  size_t group = 0;
  for (size_t s = 0; s < p.steps.size();) {
    const size_t step = s;
    if (!c.every_value && group < p.groups.size() && p.groups[group].first == static_cast<int>(s)) {
      parallel_for(c.groups[group].parts, [&](int64_t part) { run_rows(p, c, group, part); });
      s = static_cast<size_t>(p.groups[group++].last);
    } else {
      run_step(p, c, s++);
    }
    if (after) after(c, static_cast<int>(step));
  }
}

// Calls with a context of these inputs' shapes, whose tensors it lets go of afterwards.
template <typename Fn>
auto with_context(Program::Impl& p, const std::vector<Tensor>& given, bool every_value, Fn&& fn) {
  std::optional<SpinningThreads> spinning;
  if (p.own_threads)
    use_own_threads();
  else
    spinning.emplace();
  ContextLease lease(p, given, every_value);
  struct Release {
    Context& c;
    ~Release() {
      for (Tensor& t : c.inputs) t = {};
    }
  } release{*lease};
  return fn(*lease);
}

// Memory for result i. Of large ones it is that of the last run, if nobody has its result any more:
// the allocator gives such blocks back to the system, and fresh pages take time. (KeepFreedBlocks
// would keep blocks of the whole process as long as the program lives.)
Buffer result_buffer(Context& c, size_t i, size_t bytes) {
  constexpr size_t kLarge = size_t{32} << 20;  // glibc's DEFAULT_MMAP_THRESHOLD_MAX
  if (bytes <= kLarge) return Buffer::allocate(bytes);
  c.large_results.resize(std::max(c.large_results.size(), i + 1));
  Buffer& last = c.large_results[i];
  if (!last.is_only_one()) last = Buffer::allocate(bytes);
  return last;
}

std::vector<Tensor> execute(Program::Impl& p, const std::vector<Tensor>& given,
                            const AfterStep& after, bool every_value = false) {
  return with_context(p, given, every_value, [&](Context& c) {
    const auto& outputs = p.graph.outputs();
    auto slot_of = [&](size_t i) -> const Slot& { return p.slots[p.primary[outputs[i]]]; };
    std::vector<Tensor> results(outputs.size());
    for (auto& pointer : c.pointers) pointer = nullptr;
    for (size_t i = 0; i < outputs.size(); ++i) {
      const Slot& slot = slot_of(i);
      if (p.roots[slot.root].kind != Root::Kind::output || c.pointers[slot.root]) continue;
      Buffer buffer = result_buffer(c, i, c.bytes[slot.root]);
      c.pointers[slot.root] = buffer.data();
      const TensorType& type = c.types[slot.value];
      results[i] =
          Tensor::wrap(std::move(buffer), type.shape(), type.dtype, type.quantizer, c.strides[i]);
    }
    run_steps(p, c, given, after);
    // An output that is an input, a constant or a view of another output is copied: results are the
    // caller's own.
    for (size_t i = 0; i < outputs.size(); ++i)
      if (!results[i].defined()) results[i] = view(p, c, p.primary[outputs[i]]).clone();
    return results;
  });
}

}  // namespace

std::vector<Tensor> Program::run(const std::vector<Tensor>& inputs) const {
  return execute(*impl_, inputs, nullptr);
}

void Program::run_into(const std::vector<Tensor>& inputs,
                       const std::vector<Tensor>& results) const {
  const Impl& p = *impl_;
  with_context(*impl_, inputs, false, [&](Context& c) {
    const auto& outputs = p.graph.outputs();
    OCTET_CHECK(results.size() == outputs.size(), invalid_argument,
                "{}: {} results given; expected {}", p.graph.name, results.size(), outputs.size());
    for (size_t i = 0; i < outputs.size(); ++i) {
      const TensorType& want = c.types[outputs[i]];
      const Tensor& got = results[i];
      bool ok = got.defined() && got.dtype() == want.dtype && got.dim() == want.dim() &&
                (!want.quantizer || *want.quantizer == *got.quantizer());
      for (int64_t d = 0; ok && d < want.dim(); ++d) ok = got.shape()[d] == want.dims[d].size();
      OCTET_CHECK(ok, invalid_argument, "result '{}': got {}; expected {}",
                  p.graph.value(outputs[i]).name,
                  got.defined() ? to_string(got.type()) : "no tensor", to_string(want));
    }
    // The first result of each root is written by its step; others are copied from there
    // afterwards.
    auto laid_out = [&](size_t i) {
      return same_places(results[i].shape(), results[i].strides(), c.strides[i]);
    };
    std::vector<Buffer> elsewhere;
    for (auto& pointer : c.pointers) pointer = nullptr;
    for (size_t i = 0; i < outputs.size(); ++i) {
      const int root = p.slots[p.primary[outputs[i]]].root;
      if (p.roots[root].kind == Root::Kind::output && !c.pointers[root] && laid_out(i))
        c.pointers[root] = static_cast<std::byte*>(results[i].raw_data());
    }
    for (size_t r = 0; r < p.roots.size(); ++r)
      if (p.roots[r].kind == Root::Kind::output && !c.pointers[r]) {
        elsewhere.push_back(Buffer::allocate(c.bytes[r]));
        c.pointers[r] = elsewhere.back().data();
      }
    run_steps(*impl_, c, inputs, nullptr);
    for (size_t i = 0; i < outputs.size(); ++i) {
      const std::byte* from = c.pointers[p.slots[p.primary[outputs[i]]].root];
      if (!laid_out(i))
        Tensor(results[i]).copy_from(view(p, c, p.primary[outputs[i]]));
      else if (results[i].nbytes() && from != results[i].raw_data())
        std::memcpy(results[i].raw_data(), from, results[i].nbytes());
    }
  });
}

std::map<std::string, Tensor> Program::run(const std::map<std::string, Tensor>& inputs) const {
  const graph::Graph& g = impl_->graph;
  std::vector<std::string> names;
  for (ValueId id : g.inputs()) names.push_back(g.value(id).name);
  for (const auto& [name, tensor] : inputs)
    OCTET_CHECK(std::find(names.begin(), names.end(), name) != names.end(), not_found,
                "there is no input '{}'; the inputs are: {}{}", name, fmt::join(names, ", "),
                did_you_mean(name, names));
  std::vector<Tensor> ordered;
  for (const std::string& name : names) {
    auto it = inputs.find(name);
    OCTET_CHECK(it != inputs.end(), not_found, "no tensor was given for input '{}' ({})", name,
                to_string(g.type(*g.find(name))));
    ordered.push_back(it->second);
  }
  auto results = run(ordered);
  std::map<std::string, Tensor> named;
  for (size_t i = 0; i < results.size(); ++i) named[g.value(g.outputs()[i]).name] = results[i];
  return named;
}

std::vector<Tensor> Program::run_watched(const std::vector<Tensor>& inputs,
                                         const std::vector<ValueId>& values,
                                         const Watch& watch) const {
  const Impl& p = *impl_;
  std::vector<bool> wanted(p.graph.values().size(), false);
  for (ValueId id : values) {
    OCTET_CHECK(id >= 0 && static_cast<size_t>(id) < wanted.size(), invalid_argument,
                "run_watched: there is no value {}", id);
    wanted[id] = true;
  }
  std::vector<std::vector<ValueId>> by_step(p.steps.size() + 1);  // [0]: before the first
  for (size_t id = 0; id < wanted.size(); ++id) {
    if (!wanted[id]) continue;
    int slot = p.primary[id];
    by_step[slot < 0 ? 0 : p.slots[slot].made + 1].push_back(static_cast<ValueId>(id));
  }
  return execute(
      *impl_, inputs,
      [&](Context& c, int step) {
        for (ValueId id : by_step[step + 1])
          // may be nowhere but in a kernel
          if (p.graph.is_constant(id))
            watch(id, p.graph.constant(id));
          else
            watch(id, view(p, c, p.primary[id]));
      },
      true);
}

std::vector<double> Program::profile(const std::vector<Tensor>& inputs) const {
  std::vector<double> seconds(impl_->steps.size());
  execute(*impl_, inputs, nullptr);  // plans and warms up
  auto last = std::chrono::steady_clock::now();
  execute(*impl_, inputs, [&](Context&, int s) {
    auto now = std::chrono::steady_clock::now();
    if (s >= 0) seconds[s] = std::chrono::duration<double>(now - last).count();
    last = now;
  });
  return seconds;
}

const graph::Graph& Program::graph() const { return impl_->graph; }
const std::vector<StepInfo>& Program::steps() const { return impl_->infos; }
const Kernel* Program::kernel(size_t step) const { return impl_->steps.at(step).kernel.get(); }
const std::vector<std::string>& Program::warnings() const { return impl_->warnings; }

std::vector<std::string> Program::fallbacks() const {
  struct Group {
    std::string engine;
    int steps = 0;
    std::vector<std::string> ops;
  };
  std::vector<Group> groups;
  for (const StepInfo& info : impl_->infos) {
    if (info.note.empty()) continue;
    auto group = std::find_if(groups.begin(), groups.end(),
                              [&](const Group& g) { return g.engine == info.engine; });
    if (group == groups.end()) group = groups.insert(group, {info.engine, 0, {}});
    ++group->steps;
    const std::string& op = impl_->graph.node(info.node).op;
    if (std::find(group->ops.begin(), group->ops.end(), op) == group->ops.end())
      group->ops.push_back(op);
  }
  std::vector<std::string> lines;
  for (const Group& g : groups)
    lines.push_back(fmt::format("{} has no kernel for {} of {} steps: {}; {} runs {}",
                                impl_->engine->name(), g.steps, impl_->infos.size(),
                                fmt::join(g.ops, ", "),
                                g.engine == "op" ? "the operator's own evaluation" : g.engine,
                                g.steps == 1 ? "it" : "them"));
  return lines;
}

size_t Program::arena_bytes(const std::vector<Tensor>& inputs) const {
  ContextLease lease(*impl_, inputs);
  return (*lease).arena.bytes();
}

}  // namespace octet::runtime
