#include "octet/autograd/autograd.h"

#include <atomic>
#include <map>
#include <unordered_map>
#include <unordered_set>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"

namespace octet::autograd {
namespace {

struct Node;

// What hangs on a tensor.
struct State {
  bool requires_grad = false;
  Tensor grad;
  std::shared_ptr<Node> node;   // null for leaves
  size_t output = 0;            // which result of the node the tensor is
  std::function<void()> ready;  // of a GradientHook
};
using StatePtr = std::shared_ptr<State>;

// One recorded call.
struct Node {
  std::string name;
  uint64_t order = 0;            // later calls have larger numbers
  std::vector<StatePtr> inputs;  // null: no gradient wanted
  std::vector<Shape> input_shapes;
  size_t outputs = 0;
  BackwardFn backward;  // null once used
  ~Node();
};

// A long tape (a recurrent network's) is taken apart in a loop: the stack would not hold a
// destructor per step.
thread_local std::vector<StatePtr>* t_orphans = nullptr;
Node::~Node() {
  if (t_orphans) {
    for (StatePtr& s : inputs) t_orphans->push_back(std::move(s));
    return;
  }
  std::vector<StatePtr> orphans = std::move(inputs);
  t_orphans = &orphans;
  while (!orphans.empty()) {
    StatePtr s = std::move(orphans.back());
    orphans.pop_back();
    s.reset();
  }
  t_orphans = nullptr;
}

std::atomic<uint64_t> g_order{0};
std::atomic<int64_t> g_hooks{0};
thread_local bool t_enabled = true;

StatePtr state_of(const Tensor& x) {
  return x.defined() ? std::static_pointer_cast<State>(x.autograd_slot()) : nullptr;
}

StatePtr make_state(const Tensor& x) {
  StatePtr s = state_of(x);
  if (!s) x.autograd_slot() = s = std::make_shared<State>();
  return s;
}

// How many operands of the calls behind a node each leaf with a hook is.
std::unordered_map<State*, int64_t> uses_of_hooked(const std::shared_ptr<Node>& last) {
  std::unordered_map<State*, int64_t> uses;
  if (g_hooks == 0) return uses;
  std::unordered_set<Node*> seen{last.get()};
  std::vector<Node*> open{last.get()};
  while (!open.empty()) {
    Node* node = open.back();
    open.pop_back();
    for (const StatePtr& s : node->inputs) {
      if (!s) continue;
      if (s->node) {
        if (seen.insert(s->node.get()).second) open.push_back(s->node.get());
      } else if (s->ready) {
        ++uses[s.get()];
      }
    }
  }
  return uses;
}

}  // namespace

GradientHook::GradientHook(const Tensor& x, std::function<void()> ready) : x_(x) {
  StatePtr s = state_of(x);
  OCTET_CHECK(s && s->requires_grad && !s->ready, invalid_argument,
              "GradientHook: the tensor {} {}", to_string(x.type()),
              s && s->ready ? "has one already" : "is no leaf that requires a gradient");
  s->ready = std::move(ready);
  ++g_hooks;
}

GradientHook::~GradientHook() {
  if (StatePtr s = state_of(x_)) s->ready = nullptr;
  --g_hooks;
}

void set_requires_grad(const Tensor& x, bool on) {
  OCTET_CHECK(
      x.dtype() == DType::float32 || x.dtype() == DType::float64, invalid_argument,
      "set_requires_grad: the tensor is {}; only float32 and float64 tensors have gradients",
      to_string(x.dtype()));
  OCTET_CHECK(is_leaf(x), invalid_argument,
              "set_requires_grad: the tensor is a result of {}; use detach() first",
              state_of(x)->node->name);
  if (on)
    make_state(x)->requires_grad = true;
  else
    x.autograd_slot() = nullptr;
}

bool requires_grad(const Tensor& x) {
  StatePtr s = state_of(x);
  return s && (s->requires_grad || s->node);
}

bool is_leaf(const Tensor& x) {
  StatePtr s = state_of(x);
  return !s || !s->node;
}

Tensor grad(const Tensor& x) {
  StatePtr s = state_of(x);
  return s ? s->grad : Tensor();
}

void set_grad(const Tensor& x, Tensor grad) {
  OCTET_CHECK(!grad.defined() || grad.shape() == x.shape(), invalid_argument,
              "set_grad: gradient {} for a tensor {}", to_string(grad.type()), to_string(x.type()));
  make_state(x)->grad = std::move(grad);
}

void zero_grad(const Tensor& x) {
  if (StatePtr s = state_of(x)) s->grad = Tensor();
}

Tensor accumulate(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() ? a : b;
  OCTET_CHECK(a.shape() == b.shape() && a.dtype() == b.dtype(), internal,
              "gradients {} and {} of one tensor", to_string(a.type()), to_string(b.type()));
  MemoryFormat format = a.dim() >= 3 && a.dim() <= 5 && !a.is_contiguous() &&
                                a.is_contiguous(MemoryFormat::channels_last)
                            ? MemoryFormat::channels_last
                            : MemoryFormat::contiguous;
  Tensor x = a.contiguous(format), y = b.contiguous(format),
         sum = Tensor::empty(a.shape(), a.dtype(), nullptr, format);
  auto add = [&](const auto* p, const auto* q, auto* out) {
    parallel_ranges(sum.numel(), 32768, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) out[i] = p[i] + q[i];
    });
  };
  if (a.dtype() == DType::float64)
    add(x.data<double>(), y.data<double>(), sum.data<double>());
  else
    add(x.data<float>(), y.data<float>(), sum.data<float>());
  return sum;
}

void backward(const Tensor& y, const Tensor& dy, bool retain_graph) {
  StatePtr root = state_of(y);
  OCTET_CHECK(root && (root->node || root->requires_grad), invalid_argument,
              "backward: the tensor {} was not computed from a tensor that requires a gradient",
              to_string(y.type()));
  Tensor start = dy;
  if (!start.defined()) {
    OCTET_CHECK(y.numel() == 1, invalid_argument,
                "backward: the tensor has shape {}; only one element needs no dy: sum() "
                "or mean() it, or give the gradient",
                to_string(y.shape()));
    start = Tensor::ones(y.shape(), y.dtype());
  }
  OCTET_CHECK(start.shape() == y.shape(), invalid_argument, "backward: dy {} for a tensor {}",
              to_string(start.type()), to_string(y.type()));
  NoGrad no_grad;
  if (!root->node) {
    root->grad = accumulate(root->grad, start);
    if (root->ready) root->ready();
    return;
  }
  std::unordered_map<State*, int64_t> uses = uses_of_hooked(root->node);
  // The latest call first: by then all uses of its results have been seen.
  struct Pending {
    std::shared_ptr<Node> node;
    std::vector<Tensor> dys;
  };
  std::map<uint64_t, Pending, std::greater<>> pending;
  auto give = [&](const StatePtr& state, const Tensor& g) {
    if (!state->node) {
      if (state->requires_grad) state->grad = accumulate(state->grad, g);
      return;
    }
    Pending& p = pending[state->node->order];
    if (!p.node) {
      p.node = state->node;
      p.dys.resize(state->node->outputs);
    }
    p.dys[state->output] = accumulate(p.dys[state->output], g);
  };
  give(root, start);
  while (!pending.empty()) {
    Pending p = std::move(pending.begin()->second);
    pending.erase(pending.begin());
    Node& node = *p.node;
    OCTET_CHECK(node.backward, invalid_argument,
                "backward: the tape behind this tensor was already used (at {}): compute it "
                "again, or give retain_graph the first time",
                node.name);
    std::vector<Tensor> dxs = node.backward(p.dys);
    if (!retain_graph) node.backward = nullptr;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const StatePtr& input = node.inputs[i];
      if (!input) continue;
      const auto used = uses.find(input.get());
      const bool last_use = used != uses.end() && --used->second == 0 && input->ready;
      if (i >= dxs.size() || !dxs[i].defined()) {
        if (last_use && input->grad.defined()) input->ready();
        continue;
      }
      OCTET_CHECK(dxs[i].shape() == node.input_shapes[i], internal,
                  "the gradient of {} for input {} has shape {}; expected {}", node.name, i,
                  to_string(dxs[i].shape()), to_string(node.input_shapes[i]));
      give(input, dxs[i]);
      if (last_use) input->ready();
    }
  }
}

bool enabled() { return t_enabled; }
GradMode::GradMode(bool on) : before_(t_enabled) { t_enabled = on; }
GradMode::~GradMode() { t_enabled = before_; }

void record(std::string name, const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs,
            BackwardFn backward) {
  if (!t_enabled) return;
  bool any = false;
  for (const Tensor& x : inputs) any = any || requires_grad(x);
  if (!any) return;
  auto node = std::make_shared<Node>();
  node->name = std::move(name);
  node->order = ++g_order;
  node->outputs = outputs.size();
  node->backward = std::move(backward);
  for (const Tensor& x : inputs) {
    node->inputs.push_back(requires_grad(x) ? state_of(x) : nullptr);
    node->input_shapes.push_back(x.defined() ? x.shape() : Shape{});
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i].dtype() != DType::float32 && outputs[i].dtype() != DType::float64) continue;
    auto state = std::make_shared<State>();
    state->node = node;
    state->output = i;
    outputs[i].autograd_slot() = state;
  }
}

}  // namespace octet::autograd
