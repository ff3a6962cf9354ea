// Graph -> steps: kernels are made, layouts chosen, results that may share memory merged.
#include <algorithm>
#include <exception>
#include <map>

#include "octet/base/check_impl.h"
#include "octet/base/file.h"
#include "octet/base/lasting.h"
#include "octet/base/parallel.h"
#include "octet/graph/passes/fuse_lookups.h"
#include "octet/graph/passes/mixed_operands.h"
#include "octet/graph/passes/move_codes.h"
#include "octet/runtime/program_impl.h"

namespace octet::runtime {
namespace {

using graph::Graph;
using graph::kNone;
using graph::Node;
using graph::NodeId;
using graph::NodeKind;
using graph::ValueId;

// Operators that only give their operand another shape: row-major bytes stay where they are.
bool is_alias(const std::string& op) { return ops::get(op).traits().reshapes; }

// Whether codes of one type mean the same as codes of the other.
bool same_codes(const TensorType& a, const TensorType& b) {
  if (a.dtype != b.dtype || !a.quantizer != !b.quantizer) return false;
  return !a.quantizer || (!a.quantizer->is_per_channel() && *a.quantizer == *b.quantizer);
}

// Whether row-major and channels-last are the same bytes: one channel, or one pixel.
bool layout_free(const TensorType& t) {
  if (t.dim() != 4) return true;
  auto one = [&](int d) { return t.dims[d].known() && t.dims[d].size() == 1; };
  return one(1) || (one(2) && one(3));
}

class Compiler {
 public:
  Compiler(const Graph& g, const CompileOptions& options)
      : impl_(std::make_shared<Program::Impl>()),
        g_(impl_->graph),
        room_(num_threads() == 1 ? 0 : packed_bytes(g)) {
    g.require_operators("compile");
    // Other threads meanwhile clear the memory that the weights will be packed into.
    parallel_for(1 + room_.pages(), [&](int64_t i) {
      if (i == 0)
        impl_->graph =
            options.every_value
                ? g
                : graph::settle_mixed_operands(graph::fuse_lookups(graph::move_codes(g)));
      else
        room_.touch(i - 1);
    });
    impl_->engine = &find_engine(options.engine.empty() ? octet::engine() : options.engine);
    impl_->primary.assign(g_.values().size(), -1);
    second_.assign(g_.values().size(), -1);
  }

  std::shared_ptr<Program::Impl> compile() {
    find_deciding_values();
    pack_weights();
    int input = 0;
    for (size_t i = 0; i < g_.nodes().size(); ++i) {
      const Node& node = g_.node(static_cast<NodeId>(i));
      if (node.kind == NodeKind::input) {
        Root root;
        root.kind = Root::Kind::input;
        root.input = input++;
        new_slot(node.outputs[0], false, new_root(root));
      } else if (node.kind == NodeKind::call) {
        call(static_cast<NodeId>(i), node);
      }
    }
    OCTET_CHECK(cannot_run_.empty(), unsupported, "{}: no engine can run {}: {}", g_.name,
                cannot_run_.size() == 1 ? "a node" : fmt::format("{} nodes", cannot_run_.size()),
                fmt::join(cannot_run_, "; "));
    for (ValueId id : g_.outputs()) {
      Root& root = impl_->roots[impl_->slots[slot_of(id)].root];
      if (root.kind == Root::Kind::arena) root.kind = Root::Kind::output;
    }
    drop_unread();
    drop_decided();
    lifetimes();
    merge_in_place();
    group_rows();
    impl_->own_threads = std::none_of(
        impl_->steps.begin(), impl_->steps.end(),
        [](const Step& step) { return step.kernel && step.kernel->threads() == Threads::openmp; });
    return std::move(impl_);
  }

 private:
  int new_root(Root root) {
    impl_->roots.push_back(std::move(root));
    return static_cast<int>(impl_->roots.size()) - 1;
  }

  // `made`: the step that makes it; by default it is there from the start.
  int new_slot(ValueId value, bool channels_last, int root, int made = -1) {
    impl_->slots.push_back({value, channels_last, root, made});
    int slot = static_cast<int>(impl_->slots.size()) - 1;
    (impl_->primary[value] < 0 ? impl_->primary[value] : second_[value]) = slot;
    return slot;
  }

  // The value's first slot; constants get one when they are first needed unpacked.
  int slot_of(ValueId value) {
    if (impl_->primary[value] < 0) {
      Root root;
      root.kind = Root::Kind::constant;
      root.constant = g_.constant(value).contiguous();
      new_slot(value, false, new_root(root));
    }
    return impl_->primary[value];
  }

  int slot_of(ValueId value, bool channels_last) {
    int first = slot_of(value);
    if (g_.type(value).dim() != 4 || impl_->slots[first].channels_last == channels_last)
      return first;
    if (second_[value] >= 0) return second_[value];
    if (layout_free(g_.type(value)))
      return new_slot(value, channels_last, impl_->slots[first].root, impl_->slots[first].made);
    if (g_.is_constant(value)) {
      Root root;
      root.kind = Root::Kind::constant;
      root.constant = g_.constant(value).contiguous(channels_last ? MemoryFormat::channels_last
                                                                  : MemoryFormat::contiguous);
      return new_slot(value, channels_last, new_root(root));
    }
    if (auto kernel = channels_last ? channels_last_kernel(first) : nullptr) {
      const Step& plain = impl_->steps[impl_->slots[first].made];
      Step step;
      step.node = plain.node;
      step.inputs = plain.inputs;
      step.outputs = {new_slot(value, true, new_root({}), next_step())};
      StepInfo info{step.node, kernel->name(), kernel->engine(),
                    0,         false,          note(g_.node(step.node).op, kernel->engine())};
      step.kernel = std::move(kernel);
      const int slot = step.outputs[0];
      add(std::move(step), std::move(info));
      return slot;
    }
    int slot = new_slot(value, channels_last, new_root({}), next_step());
    Step step;
    step.kind = Step::Kind::reorder;
    step.node = g_.value(value).producer;
    step.inputs = {first};
    step.outputs = {slot};
    add(std::move(step), {-1, channels_last ? "reorder to NHWC" : "reorder to NCHW", "layout", 0});
    return slot;
  }

  // For the step that made a row-major slot, if its kernel can as well write the other layout.
  std::unique_ptr<Kernel> channels_last_kernel(int slot) const {
    const int made = impl_->slots[slot].made;
    const Step* step = made < 0 ? nullptr : &impl_->steps[made];
    if (!step || !step->kernel || step->outputs[0] != slot || step->inputs.size() != 1 ||
        step->inputs[0] < 0)
      return nullptr;
    return impl_->slots[step->inputs[0]].channels_last ? nullptr : step->kernel->to_channels_last();
  }

  // Where a value was made in both layouts and only the second is read, the first is not made.
  void drop_unread() {
    std::vector<int> reads(impl_->slots.size(), 0);
    for (const Step& step : impl_->steps)
      for (int slot : step.inputs)
        if (slot >= 0) ++reads[slot];
    for (ValueId id : g_.outputs()) ++reads[impl_->primary[id]];
    for (size_t s = impl_->steps.size(); s-- > 0;) {
      const Step& step = impl_->steps[s];
      const ValueId value = step.outputs.size() == 1 ? impl_->slots[step.outputs[0]].value : kNone;
      if (value == kNone || impl_->primary[value] != step.outputs[0] || second_[value] < 0)
        continue;
      if (shares_root(step.outputs[0]) || reads[step.outputs[0]] != 0) continue;
      impl_->primary[value] = second_[value];
      erase_step(s);
    }
  }
  // What only decides on sizes is computed when shapes are planned, not in each run.
  void drop_decided() {
    std::vector<int> reads(impl_->roots.size(), 0);
    for (const Step& step : impl_->steps)
      for (int slot : step.inputs)
        if (slot >= 0) ++reads[impl_->slots[slot].root];
    for (ValueId id : g_.outputs()) ++reads[impl_->slots[impl_->primary[id]].root];
    for (size_t s = impl_->steps.size(); s-- > 0;) {
      const Step& step = impl_->steps[s];
      const bool needed = std::any_of(step.outputs.begin(), step.outputs.end(), [&](int slot) {
        return !impl_->decides[impl_->slots[slot].value] || reads[impl_->slots[slot].root] != 0;
      });
      if (needed) continue;
      for (int slot : step.inputs)
        if (slot >= 0) --reads[impl_->slots[slot].root];
      erase_step(s);
    }
  }
  void erase_step(size_t s) {
    impl_->steps.erase(impl_->steps.begin() + static_cast<std::ptrdiff_t>(s));
    impl_->infos.erase(impl_->infos.begin() + static_cast<std::ptrdiff_t>(s));
    for (Slot& slot : impl_->slots)
      if (slot.made >= static_cast<int>(s)) --slot.made;
  }
  bool shares_root(int slot) const {
    int count = 0;
    for (const Slot& other : impl_->slots) count += other.root == impl_->slots[slot].root;
    return count > 1;
  }

  // What a step's user should know of who runs it, if that is not the engine that was asked first.
  std::string note(const std::string& op, const std::string& runs) const {
    if (runs == impl_->engine->name() || !impl_->engine->falls_back()) return "";
    return fmt::format("{} has no kernel for this {}; {} runs it", impl_->engine->name(), op, runs);
  }

  int next_step() const { return static_cast<int>(impl_->steps.size()); }

  void add(Step step, StepInfo info) {
    info.node = step.node;
    impl_->steps.push_back(std::move(step));
    impl_->infos.push_back(std::move(info));
  }

  // About what the weights of the integer kernels will take.
  static size_t packed_bytes(const Graph& g) {
    int64_t bytes = 0;
    for (const Node& node : g.nodes())
      if (has_weight(g, node) && g.type(node.outputs[0]).is_quantized())
        bytes += g.constant(node.inputs[1]).nbytes();
    return static_cast<size_t>(bytes);
  }
  // Whether the node has a quantized weight worth the thought.
  static bool has_weight(const Graph& g, const Node& node) {
    constexpr int64_t kManyBytes = 16 << 10;
    if (node.kind != NodeKind::call || node.inputs.size() < 2 || node.inputs[1] == kNone ||
        !g.is_constant(node.inputs[1]))
      return false;
    const Tensor& weight = g.constant(node.inputs[1]);
    return weight.is_quantized() && weight.nbytes() >= kManyBytes;
  }

  // Kernels with many weights, whose packing is most of the work of compiling, are made first, on
  // all threads: each by one of them, the largest first, but those that alone would keep a thread
  // busy for longer than the others by all together.
  void pack_weights() {
    std::vector<std::pair<int64_t, NodeId>> order;
    int64_t total = 0;
    for (size_t i = 0; i < g_.nodes().size(); ++i) {
      const Node& node = g_.node(static_cast<NodeId>(i));
      if (!has_weight(g_, node)) continue;
      const int64_t bytes = g_.constant(node.inputs[1]).nbytes();
      order.emplace_back(-bytes, static_cast<NodeId>(i));
      total += bytes;
    }
    std::sort(order.begin(), order.end());
    for (const auto& [bytes, id] : order) packed_[id];
    auto make = [&](size_t i) {
      Packed& p = packed_.find(order[i].second)->second;
      try {
        p.spec = graph::spec_of(g_, g_.node(order[i].second));
        p.kernel = make_kernel(p.spec, impl_->engine->name());
        if (p.kernel) forget_packed(p.spec, *p.kernel);
      } catch (...) {
        p.error = std::current_exception();  // said when it is the node's turn
      }
    };
    size_t large = 0;
    for (; large < order.size() && -order[large].first * num_threads() > total; ++large) {
      total += order[large].first;
      make(large);
    }
    parallel_for(static_cast<int64_t>(order.size() - large),
                 [&](int64_t i) { make(large + static_cast<size_t>(i)); });
  }

  // The kernel has its own copy; the graph's is seldom looked at again. (Each time the other
  // threads are interrupted: small constants are not worth it.)
  static void forget_packed(const OpSpec& spec, const Kernel& kernel) {
    constexpr int64_t kWorthIt = 64 << 10;
    for (size_t i = 0; i < spec.constants.size(); ++i)
      if (const Tensor& t = spec.constants[i];
          t.defined() && t.nbytes() >= kWorthIt && kernel.packs(i))
        forget_file_pages(t.raw_data(), t.nbytes());
  }

  // The values that attributes of open calls and the sizes of results are computed from.
  void find_deciding_values() {
    std::vector<bool>& decides = impl_->decides;
    decides.assign(g_.values().size(), false);
    for (size_t n = g_.nodes().size(); n-- > 0;) {
      const Node& node = g_.nodes()[n];
      if (node.kind != NodeKind::call) continue;
      const ops::Traits& traits = ops::get(node.op).traits();
      bool decided = traits.data_sized;
      for (ValueId v : node.outputs) decided = decided || decides[v];
      for (ValueId v : node.inputs)
        if (decided && !traits.of_types && v != kNone) decides[v] = true;
      for (const auto& [name, value] : node.attrs)
        if (const auto i = node.attrs.operand(name)) decides[node.inputs[*i]] = true;
      if (traits.data_sized)
        for (ValueId v : node.outputs) decides[v] = true;
    }
    for (size_t i = 0; i < g_.inputs().size(); ++i)
      if (decides[g_.inputs()[i]]) impl_->deciding_inputs.push_back(i);
  }

  // A call with attributes that operands give: what runs it is chosen with the shapes. Where it
  // moves elements it takes the layout that its operand has.
  void open_call(NodeId id, const Node& node) {
    Step step;
    step.kind = Step::Kind::open;
    step.node = id;
    bool channels_last = false;
    size_t count = node.inputs.size();  // without those that give attributes
    for (const auto& [name, value] : node.attrs)
      if (const auto i = node.attrs.operand(name)) count = std::min(count, *i);
    for (size_t i = 0; i < count; ++i) {
      const ValueId v = node.inputs[i];
      int slot = v == kNone ? -1 : slot_of(v);
      if (i == 0 && slot >= 0 && impl_->slots[slot].channels_last) {
        channels_last = ops::get(node.op).traits().moves && node.outputs.size() == 1 &&
                        g_.type(node.outputs[0]).dim() == 4;
        if (!channels_last) slot = slot_of(v, false);
      }
      step.inputs.push_back(slot);
    }
    for (ValueId v : node.outputs)
      step.outputs.push_back(new_slot(v, channels_last, new_root({}), next_step()));
    add(std::move(step), {id, node.op, "op", 0, false, ""});
  }

  void call(NodeId id, const Node& node) {
    if (is_alias(node.op) && !g_.is_constant(node.inputs[0]) &&
        same_codes(g_.type(node.inputs[0]), g_.type(node.outputs[0]))) {
      int source = slot_of(node.inputs[0], false);
      new_slot(node.outputs[0], false, impl_->slots[source].root, impl_->slots[source].made);
      return;
    }
    if (node.attrs.any_operand()) {
      open_call(id, node);
      return;
    }
    OpSpec spec;
    std::unique_ptr<Kernel> kernel;
    if (auto it = packed_.find(id); it != packed_.end()) {
      if (it->second.error) std::rethrow_exception(it->second.error);
      spec = std::move(it->second.spec);
      kernel = std::move(it->second.kernel);
    } else {
      spec = graph::spec_of(g_, node);
      kernel = make_kernel(spec, impl_->engine->name());
      if (kernel) forget_packed(spec, *kernel);
    }
    Step step;
    step.node = id;
    if (!kernel) {
      if (!can_evaluate(spec)) cannot_run_.push_back(describe(spec));
      step.kind = Step::Kind::evaluate;
      for (ValueId v : node.inputs) step.inputs.push_back(v == kNone ? -1 : slot_of(v));
      for (ValueId v : node.outputs)
        step.outputs.push_back(new_slot(v, false, new_root({}), next_step()));
      add(std::move(step), {id, node.op, "op", 0, false, note(node.op, "its own evaluation")});
      return;
    }
    // Kernels that take any layout get the one their first operand has.
    bool any = false;
    for (ValueId v : node.inputs)
      if (v != kNone && !g_.is_constant(v)) {
        any = impl_->slots[slot_of(v)].channels_last;
        break;
      }
    if (kernel->input_layout(0) == Layout::row_major && mostly_channels_last(node))
      if (auto other = kernel->in_channels_last()) kernel = std::move(other);
    for (const std::string& w : kernel->warnings()) impl_->warnings.push_back(w);
    auto wants_nhwc = [&](Layout layout, ValueId v) {
      if (g_.type(v).dim() != 4) return false;
      return layout == Layout::channels_last || (layout == Layout::any && any);
    };
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      ValueId v = node.inputs[i];
      bool absent = v == kNone || (g_.is_constant(v) && kernel->packs(i));
      step.inputs.push_back(absent ? -1 : slot_of(v, wants_nhwc(kernel->input_layout(i), v)));
    }
    for (size_t i = 0; i < node.outputs.size(); ++i)
      step.outputs.push_back(new_slot(node.outputs[i],
                                      wants_nhwc(kernel->output_layout(i), node.outputs[i]),
                                      new_root({}), next_step()));
    StepInfo info{id,
                  kernel->name(),
                  kernel->engine(),
                  kernel->packed_bytes(),
                  false,
                  note(node.op, kernel->engine())};
    step.kernel = std::move(kernel);
    add(std::move(step), std::move(info));
  }

  // Whether at least half of a call's operands that have a layout are channels_last: what follows
  // them will most likely be so too.
  bool mostly_channels_last(const Node& node) {
    int balance = 0, found = 0;
    for (ValueId v : node.inputs) {
      if (v == kNone || g_.is_constant(v) || g_.type(v).dim() != 4 || layout_free(g_.type(v)))
        continue;
      balance += impl_->slots[slot_of(v)].channels_last ? 1 : -1;
      ++found;
    }
    return found > 0 && balance >= 0;
  }

  // Whether ops::evaluate has a way to compute the call; its rules, on types.
  bool can_evaluate(const OpSpec& spec) const {
    const ops::Op& op = ops::get(spec.op);
    bool quantized_operand = false, quantized = false;
    for (const TensorType& t : spec.inputs) quantized_operand |= t.is_quantized();
    for (const TensorType& t : spec.outputs) quantized |= t.is_quantized();
    quantized |= quantized_operand;
    if (quantized && op.quantized()) return true;
    if (op.eval() && (!quantized || op.rule() == ops::QRule::same)) return true;
    if (quantized && op.eval()) return true;
    // Only engines can, with weights that may be known at run time only; codes may become float for
    // it.
    OpSpec known = spec;
    for (size_t i = 0; i < known.inputs.size(); ++i) {
      TensorType& t = known.inputs[i];
      if (quantized && t.is_quantized()) t = TensorType(DType::float32, t.dims);
      known.constants[i] =
          i > 0 && spec.has(i) && t.is_static() ? Tensor::zeros(t.shape(), t.dtype) : Tensor();
    }
    for (TensorType& t : known.outputs)
      if (t.is_quantized()) t = TensorType(DType::float32, t.dims);
    return make_kernel(known, impl_->engine->name()) != nullptr;
  }

  static std::string describe(const OpSpec& spec) {
    std::vector<std::string> types;
    for (size_t i = 0; i < spec.inputs.size(); ++i)
      types.push_back(spec.has(i) ? to_string(spec.inputs[i]) : "none");
    return fmt::format("{} ({} of {})", spec.label, spec.op, fmt::join(types, ", "));
  }

  void lifetimes() {
    auto& roots = impl_->roots;
    for (Root& r : roots) r.first = r.last = -1;
    for (size_t s = 0; s < impl_->steps.size(); ++s) {
      auto touch = [&](int slot) {
        if (slot < 0) return;
        Root& r = roots[impl_->slots[slot].root];
        if (r.first < 0) r.first = static_cast<int>(s);
        r.last = static_cast<int>(s);
      };
      for (int slot : impl_->steps[s].outputs) touch(slot);
      for (int slot : impl_->steps[s].inputs) touch(slot);
    }
  }

  // A result may take the place of an operand that nobody reads afterwards.
  void merge_in_place() {
    auto& roots = impl_->roots;
    for (size_t s = 0; s < impl_->steps.size(); ++s) {
      Step& step = impl_->steps[s];
      if (!step.kernel || !step.kernel->in_place() || step.inputs.empty() || step.inputs[0] < 0)
        continue;
      const Slot& in = impl_->slots[step.inputs[0]];
      const Slot& out = impl_->slots[step.outputs[0]];
      const TensorType &ti = g_.type(in.value), &to = g_.type(out.value);
      if (ti.dims != to.dims || element_size(ti.dtype) != element_size(to.dtype)) continue;
      int from = in.root, over = out.root;
      // Another operand in the same bytes might be read after they were written.
      bool read_again = false;
      for (size_t i = 1; i < step.inputs.size(); ++i)
        read_again |= step.inputs[i] >= 0 && impl_->slots[step.inputs[i]].root == from;
      if (read_again) continue;
      if (from == over || roots[from].kind != Root::Kind::arena ||
          roots[from].last != static_cast<int>(s))
        continue;
      if (roots[over].kind == Root::Kind::constant || roots[over].kind == Root::Kind::input)
        continue;
      roots[from].last = roots[over].last;
      // a result of the graph is written straight into its tensor
      roots[from].kind = roots[over].kind;
      for (Slot& slot : impl_->slots)
        if (slot.root == over) slot.root = from;
      roots[over].first = roots[over].last = -1;
      roots[over].kind = Root::Kind::arena;
    }
  }

  // Whether step s may be run by rows together with those from `first` on.
  bool joins(int first, int s) const {
    const Step& step = impl_->steps[s];
    if (step.kind != Step::Kind::kernel || !step.kernel->by_rows() || step.outputs.size() != 1 ||
        step.inputs.size() > RowGroup::kMostInputs)
      return false;
    const Slot& out = impl_->slots[step.outputs[0]];
    const TensorType &y = g_.type(out.value),
                     &of = g_.type(impl_->slots[impl_->steps[first].outputs[0]].value);
    auto same_rows = [&](const TensorType& t) {
      return !t.dims.empty() && t.dims.size() == of.dims.size() &&
             std::equal(t.dims.begin(), t.dims.end() - 1, of.dims.begin());
    };
    if (y.dim() < 2 || !same_rows(y) ||
        out.channels_last != impl_->slots[impl_->steps[first].outputs[0]].channels_last)
      return false;
    if (out.channels_last && y.dims != of.dims) return false;  // rows of bytes, not of the tensor
    for (int slot : step.inputs) {
      if (slot < 0) continue;
      const Slot& in = impl_->slots[slot];
      const TensorType& x = g_.type(in.value);
      if (out.channels_last && (x.dims != y.dims || !in.channels_last)) return false;
      if (!same_rows(x) && in.made >= first) return false;  // read whole, but not whole yet
    }
    return true;
  }

  // Neighbours that go by rows become groups; roots that only they touch are theirs, all others
  // live as long as the group runs.
  void group_rows() {
    const int count = static_cast<int>(impl_->steps.size());
    for (int first = 0; first < count;) {
      int last = first;
      while (last < count && joins(first, last)) ++last;
      if (last - first >= 2) impl_->groups.push_back({first, last, {}});
      first = std::max(last, first + 1);
    }
    for (size_t r = 0; r < impl_->roots.size(); ++r) {
      Root& root = impl_->roots[r];
      if (root.kind != Root::Kind::arena || root.first < 0) continue;
      for (size_t g = 0; g < impl_->groups.size(); ++g) {
        RowGroup& group = impl_->groups[g];
        auto inside = [&](int step) { return group.first <= step && step < group.last; };
        if (inside(root.first) && inside(root.last)) {
          root.group = static_cast<int>(g);
          root.inner = group.inner.size();
          group.inner.push_back(static_cast<int>(r));
          break;
        }
        if (inside(root.first)) root.first = group.first;
        if (inside(root.last)) root.last = group.last - 1;
      }
    }
    for (const RowGroup& group : impl_->groups)
      for (int s = group.first + 1; s < group.last; ++s) impl_->infos[s].with_previous = true;
  }

  std::shared_ptr<Program::Impl> impl_;
  const Graph& g_;
  const LastingRoom room_;   // for packed weights
  std::vector<int> second_;  // by value: the slot of its other layout
  struct Packed {
    OpSpec spec;
    std::unique_ptr<Kernel> kernel;
    std::exception_ptr error;
  };
  std::map<NodeId, Packed> packed_;  // kernels made before their turn
  std::vector<std::string> cannot_run_;
};

}  // namespace

Program compile(const graph::Graph& graph, const CompileOptions& options) {
  return Program(Compiler(graph, options).compile());
}

}  // namespace octet::runtime
