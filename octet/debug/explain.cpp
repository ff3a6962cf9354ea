#include "octet/debug/explain.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "octet/base/check_impl.h"
#include "octet/base/cpu.h"
#include "octet/base/parallel.h"
#include "octet/base/text.h"
#include "octet/debug/table_text_impl.h"
#include "octet/engine/integer_weights_impl.h"
#include "octet/engine/registry.h"
#include "octet/nn/trace.h"

namespace octet::debug {

using graph::kNone;
using graph::Node;
using graph::ValueId;
using Arithmetic = KernelDescription::Arithmetic;

const char* to_string(Numbers numbers) {
  switch (numbers) {
    case Numbers::integers:
      return "integers";
    case Numbers::codes:
      return "codes";
    case Numbers::fixed_point:
      return "fixed point";
    case Numbers::conversion:
      return "conversion";
    case Numbers::floats:
      return "floats";
    case Numbers::layout:
      return "layout";
  }
  return "floats";
}

std::string scheme(const TensorType& type) {
  if (!type.is_quantized()) return octet::to_string(type.dtype);
  const Quantizer& q = *type.quantizer;
  if (!q.is_per_channel())
    return fmt::format("{}, per tensor, scale {:.6g}, zero point {}", octet::to_string(type.dtype),
                       q.scale(), q.zero_point());
  bool symmetric = !q.has_float_zero_points();
  const int64_t channels = type.dims[static_cast<size_t>(q.axis())].size();
  for (int64_t c = 0; symmetric && c < channels; ++c) symmetric = q.zero_point(c) == 0;
  return fmt::format("{}, per channel along {} ({}){}", octet::to_string(type.dtype), q.axis(),
                     channels, symmetric ? ", symmetric" : "");
}

namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median(std::vector<double> v) {
  if (v.empty()) return 0;
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

// The process's engine for a while.
class EngineScope {
 public:
  explicit EngineScope(const std::string& name) : before_(octet::engine()) { set_engine(name); }
  ~EngineScope() { set_engine(before_); }
  EngineScope(const EngineScope&) = delete;

 private:
  std::string before_;
};

// -- what is known of a call ----------------------------------------------------------------------

bool any_codes(const ExplainedStep& s) {
  const auto codes = [](const ExplainedOperand& o) { return o.type.is_quantized(); };
  return std::any_of(s.inputs.begin(), s.inputs.end(), codes) ||
         std::any_of(s.outputs.begin(), s.outputs.end(), codes);
}
bool result_is_float(const ExplainedStep& s) {
  return std::none_of(s.outputs.begin(), s.outputs.end(),
                      [](const ExplainedOperand& o) { return o.type.is_quantized(); });
}

// Codes or plain integers in and out.
bool no_floats(const ExplainedStep& s) {
  const auto is_float = [](const ExplainedOperand& o) { return is_floating(o.type.dtype); };
  return std::none_of(s.inputs.begin(), s.inputs.end(), is_float) &&
         std::none_of(s.outputs.begin(), s.outputs.end(), is_float);
}

Numbers numbers_of(const ExplainedStep& s) {
  switch (s.description.arithmetic) {
    case Arithmetic::integers:
      return Numbers::integers;
    case Arithmetic::table:
    case Arithmetic::codes_in_float:
      return Numbers::codes;
    case Arithmetic::moves:
      return result_is_float(s) && !no_floats(s) ? Numbers::floats : Numbers::codes;
    case Arithmetic::fixed_point:
      return Numbers::fixed_point;
    case Arithmetic::converts:
      return Numbers::conversion;
    case Arithmetic::through_float:
    case Arithmetic::floats:
      return Numbers::floats;
    case Arithmetic::unsaid:
      return !any_codes(s) || result_is_float(s) ? Numbers::floats : Numbers::codes;
  }
  return Numbers::floats;
}

// What operators' own evaluations do with codes, by the rules of ops::evaluate.
Arithmetic own_arithmetic(const ops::Op& op, bool codes) {
  if (op.traits().moves || op.traits().selects) return Arithmetic::moves;
  if (op.name() == "quantize" || op.name() == "dequantize" || op.name() == "quantize_dynamic")
    return Arithmetic::converts;
  if (op.name() == "conv_integer" || op.name() == "matmul_integer") return Arithmetic::integers;
  if (op.name() == "int_repr" || op.name() == "make_quantized") return Arithmetic::moves;
  if (!codes) return Arithmetic::floats;
  if (op.scalar()) return Arithmetic::table;
  if (op.quantized()) return Arithmetic::unsaid;  // its own way with codes
  return op.rule() == ops::QRule::same && op.eval() ? Arithmetic::moves : Arithmetic::through_float;
}

std::string float_reason(const ExplainedStep& s, const ops::Op* op, const std::string& note) {
  if (!note.empty()) return note;
  if (s.description.arithmetic == Arithmetic::through_float)
    return "no kernel works on these codes: they are dequantized, computed in float32 and "
           "quantized again";
  if (s.description.arithmetic == Arithmetic::moves) return "it copies or compares float32 values";
  if (any_codes(s) && s.description.arithmetic == Arithmetic::unsaid)
    return "its result is float32, made of dequantized codes";
  if (any_codes(s) && s.description.arithmetic == Arithmetic::floats)
    return "the weight was dequantized once and the layer computes in float32";
  if (op && op->rule() == ops::QRule::float_only) return "the operator has no form on codes";
  return "its operands are float32: it was not quantized";
}

// The ISA that an inner loop's or a kernel's name ends with or has within.
std::string isa_in(const std::string& text) {
  for (Isa isa : kIsas)
    if (text.find(octet::to_string(isa)) != std::string::npos) return octet::to_string(isa);
  return "";
}

// The weights of a recurrent layer for x and for h: their places among the operands.
std::vector<size_t> recurrent_weights(const ops::Op& op) {
  const auto w_ih = op.param_index("w_ih"), w_hh = op.param_index("w_hh");
  return w_ih && w_hh ? std::vector<size_t>{*w_ih, *w_hh} : std::vector<size_t>();
}

// Products of one result element times elements.
double multiply_adds_of(const OpSpec& spec, const std::vector<Shape>& in,
                        const std::vector<Shape>& out) {
  if (out.empty()) return 0;
  const std::string& op = spec.layer.empty() ? spec.op : spec.layer;
  const auto results = static_cast<double>(numel(out[0]));
  if (const auto weights = recurrent_weights(ops::get(spec.op)); !weights.empty()) {
    double products = 0;  // of a step of a sequence: every weight once
    for (size_t w : weights) products += static_cast<double>(numel(in[w]));
    const int64_t width = in[0].empty() ? 0 : in[0].back();
    const int64_t steps = width ? numel(in[0]) / width : 0;
    return products * static_cast<double>(steps);
  }
  if (op == "matmul" && in.size() > 1 && !in[0].empty())
    return results * static_cast<double>(in[0].back());
  const bool is_layer = ops::find_form(op, WeightForm::dynamic);  // convolutions and linear
  if (!is_layer || in.size() < 2 || in[1].size() < 2) return 0;
  const int64_t window = numel(in[1]) / std::max<int64_t>(1, in[1][0]);
  return (spec.transposed ? static_cast<double>(numel(in[0])) : results) *
         static_cast<double>(window);
}

// The bound that the weights prove, by what the kernels know of them.
std::optional<int64_t> largest_sum_of(const OpSpec& spec, const std::vector<Shape>& in) {
  using namespace engine_detail;
  if (spec.inputs.size() > 1 && spec.op == "matmul" && is_integer_matmul(spec)) {
    const auto farthest = [](const TensorType& t) {
      const int64_t z = t.quantizer->zero_point();
      return std::max(qmax(t.dtype) - z, z - qmin(t.dtype));
    };
    return in[0].back() * farthest(spec.inputs[0]) * farthest(spec.inputs[1]);
  }
  if (const auto weights = recurrent_weights(ops::get(spec.op)); !weights.empty()) {
    int64_t largest = 0;
    for (size_t w : weights) {
      // As a dynamic linear layer: x and h become codes when they are known.
      OpSpec layer;
      layer.inputs = {spec.inputs[0], spec.inputs[w]};
      layer.constants = {Tensor(), spec.constants[w]};
      if (!layer.constants[1].defined() || layer.constants[1].dtype() != DType::qint8)
        return std::nullopt;
      largest = std::max(largest, largest_sum(weight_codes(layer), layer, 0, 255, {}));
    }
    return largest;
  }
  if (!spec.attrs.has("activation") || spec.inputs.size() < 2 || !spec.has(1) ||
      !spec.constants[1].defined() || !spec.constants[1].is_quantized())
    return std::nullopt;
  if (is_integer_call(spec)) {
    const IntegerWeights w = integer_weights(spec);
    const int32_t z = w.unsigned_zero_point();
    return largest_sum(w, spec, z, z, w.bias);
  }
  if (spec.form == WeightForm::dynamic && is_dynamic_call(spec))
    return largest_sum(weight_codes(spec), spec, 0, 255, {});
  return std::nullopt;
}

double bytes_of(const TensorType& t) {
  return t.is_static() ? static_cast<double>(storage_bytes(t.dtype, numel(t.shape()))) : 0;
}

void describe_kernel(ExplainedStep& s, const Kernel& kernel) {
  s.kernel = kernel.name();
  s.engine = kernel.engine();
  s.description = kernel.description();
  if (s.description.loop.empty()) s.description.loop = s.kernel;
  s.isa = isa_in(s.description.loop);
  s.openmp = kernel.threads() == Threads::openmp;
  s.threads = num_threads();
}

void add_fused(ExplainedStep& s, const Attrs& attrs) {
  if (attrs.has("activation") && attrs.get_string("activation") != "none")
    s.fused.push_back(attrs.get_string("activation"));
}

// -- verification ---------------------------------------------------------------------------------

// Of the first element that differs; empty: identical.
std::string first_difference(const Tensor& got, const Tensor& expected) {
  const Tensor a = got.contiguous(), b = expected.contiguous();
  if (a.shape() != b.shape() || a.dtype() != b.dtype())
    return fmt::format("{}; reference {}", octet::to_string(a.type()), octet::to_string(b.type()));
  const auto size = static_cast<int64_t>(element_size(a.dtype()));
  if (is_packed(a.dtype()) || size == 0) return equal(a, b) ? "" : "other codes than the reference";
  const auto *p = static_cast<const char*>(a.raw_data()),
             *q = static_cast<const char*>(b.raw_data());
  int64_t first = -1, count = 0;
  for (int64_t i = 0; i < a.numel(); ++i)
    if (std::memcmp(p + i * size, q + i * size, static_cast<size_t>(size)) != 0) {
      if (first < 0) first = i;
      ++count;
    }
  if (count == 0) return "";
  std::vector<int64_t> place(a.shape().size());
  int64_t rest = first;
  for (size_t d = place.size(); d-- > 0; rest /= a.shape()[d]) place[d] = rest % a.shape()[d];
  const auto value = [&](const Tensor& t) {
    return (t.is_quantized() ? t.int_repr() : t).at(place);
  };
  return fmt::format("{} of {} differ, first at ({}): {}, reference {}", count, a.numel(),
                     fmt::join(place, ", "), value(a), value(b));
}

// Computes a call with the reference engine; the first difference is kept.
void verify(ExplainedStep& s, const ops::Call& call, const std::vector<Tensor>& results,
            size_t sample) {
  if (s.differs || s.numbers == Numbers::floats || s.numbers == Numbers::layout) return;
  std::vector<Tensor> expected;
  {
    EngineScope reference("reference");
    expected = ops::evaluate(call);
  }
  s.verified = "identical";
  for (size_t i = 0; i < results.size(); ++i) {
    const std::string difference = first_difference(results[i], expected[i]);
    if (difference.empty()) continue;
    s.differs = true;
    s.verified = sample == 0 ? difference : fmt::format("run {}: {}", sample, difference);
    return;
  }
}

// -- ceilings -------------------------------------------------------------------------------------

// Multiply-adds per second of a linear layer that stays in the cache; 0 if the engine has no
// kernel.
double product_ceiling(bool codes, std::string& loop) {
  const int64_t m = 192 * num_threads(), k = 512, n = 128;
  const Tensor floats = Tensor::randn({n, k}, 1);
  const Tensor weight = codes ? quantize_per_tensor(floats, 0.03, 0, DType::qint8) : floats;
  const Tensor x = codes ? quantize_per_tensor(Tensor::rand({m, k}, 2), 1.0 / 255, 0, DType::quint8)
                         : Tensor::rand({m, k}, 2);
  const ops::Op& op = ops::get("linear");
  const TensorType result =
      codes ? TensorType(DType::quint8, Shape{m, n}, Quantizer::per_tensor(1, 0, DType::quint8))
            : TensorType(DType::float32, Shape{m, n});
  const OpSpec spec = ops::make_spec(op, op.complete({}), {x.type(), weight.type(), std::nullopt},
                                     {Tensor(), weight, Tensor()}, {result}, "ceiling");
  const auto kernel = make_kernel(spec);
  if (!kernel) return 0;
  const KernelDescription d = kernel->description();
  loop = kernel->engine() + " " + (d.loop.empty() ? kernel->name() : d.loop);
  const auto plan = kernel->plan({{m, k}, {n, k}, {}}, {{m, n}});
  Buffer scratch = Buffer::allocate(plan->scratch_bytes());
  Buffer y = Buffer::allocate(static_cast<size_t>(m * n) * 4);
  const void* in[] = {x.raw_data(), weight.raw_data(), nullptr};
  void* out[] = {y.data()};
  double best = 1e9;
  const double start = now();
  for (int i = 0; i < 5 || (now() - start < 0.02 && i < 10000); ++i) {
    const double t = now();
    plan->run(in, out, scratch.data());
    best = std::min(best, now() - t);
  }
  return static_cast<double>(m * k * n) / best;
}

std::vector<Ceilings::Memory> memory_ceilings() {
  std::vector<Ceilings::Memory> list;
  for (int64_t bytes : {int64_t{64} << 10, int64_t{1} << 20, int64_t{8} << 20, int64_t{64} << 20}) {
    const int64_t half = bytes / 2;  // read one half, write the other
    Buffer block = Buffer::allocate(static_cast<size_t>(bytes));
    std::memset(block.data(), 1, static_cast<size_t>(bytes));
    double best = 1e9;
    const double start = now();
    for (int i = 0; i < 3 || (now() - start < 0.01 && i < 10000); ++i) {
      const double t = now();
      parallel_ranges(half, 1 << 16, [&](int64_t b0, int64_t b1) {
        std::memcpy(block.data() + half + b0, block.data() + b0, static_cast<size_t>(b1 - b0));
      });
      best = std::min(best, now() - t);
    }
    list.push_back({static_cast<double>(bytes), static_cast<double>(bytes) / best});
  }
  return list;
}

// The best of what was measured now and `before`.
Ceilings measure_ceilings(const Ceilings& before = {}) {
  Ceilings c;
  std::string codes, floats;
  c.integer_multiply_adds = std::max(before.integer_multiply_adds, product_ceiling(true, codes));
  c.float_multiply_adds = std::max(before.float_multiply_adds, product_ceiling(false, floats));
  c.memory = memory_ceilings();
  for (size_t i = 0; i < before.memory.size(); ++i)
    c.memory[i].bytes_per_second =
        std::max(c.memory[i].bytes_per_second, before.memory[i].bytes_per_second);
  c.description = fmt::format(
      "{:.0f} G multiply-adds/s of codes ({}) and {:.0f} G of floats ({}), measured on a product "
      "that stays in the cache; copies of a step's size, {:.0f} GB/s of 64 KB to {:.0f} GB/s of 64 "
      "MB",
      c.integer_multiply_adds / 1e9, codes, c.float_multiply_adds / 1e9, floats,
      c.memory.front().bytes_per_second / 1e9, c.memory.back().bytes_per_second / 1e9);
  return c;
}

void set_shares(Explanation& e) {
  for (const ExplainedStep& s : e.steps) e.seconds += s.seconds;
  for (ExplainedStep& s : e.steps) {
    if (s.seconds <= 0) continue;
    s.share = s.seconds / e.seconds;
    const double peak = s.numbers == Numbers::floats ? e.ceilings.float_multiply_adds
                                                     : e.ceilings.integer_multiply_adds;
    const double products = peak > 0 ? s.multiply_adds / peak : 0;
    double memory = 0;
    for (const Ceilings::Memory& m : e.ceilings.memory) {
      memory = s.bytes / m.bytes_per_second;
      if (s.bytes <= m.bytes) break;
    }
    s.bound_by_memory = memory > products;
    s.of_ceiling = std::max(memory, products) / s.seconds;
  }
}

std::string machine_text() {
  return fmt::format("{}; {} thread{}", cpu_description(), num_threads(),
                     num_threads() == 1 ? "" : "s");
}

// Runs once more and remembers which kernels ran for each step's own evaluation.
class Kernels final : public KernelWatch {
 public:
  struct Ran {
    std::string name, engine;
    KernelDescription description;
  };
  void ran(const Kernel& kernel) override {
    seen.push_back({kernel.name(), kernel.engine(), kernel.description()});
  }
  std::vector<Ran> take() { return std::exchange(seen, {}); }
  std::vector<Ran> seen;
};

// What an operator's own evaluation ran, if it ran kernels: those with integer sums are its word.
void describe_own(ExplainedStep& s, const ops::Op& op, const std::vector<Kernels::Ran>& ran) {
  s.engine = "op";
  s.kernel = "the operator's own evaluation";
  s.description.arithmetic = own_arithmetic(op, any_codes(s));
  std::vector<std::string> names;
  const Kernels::Ran* chosen = nullptr;
  for (const Kernels::Ran& r : ran) {
    if (std::find(names.begin(), names.end(), r.name) == names.end()) names.push_back(r.name);
    if (r.description.arithmetic == Arithmetic::integers && !chosen) chosen = &r;
  }
  if (ran.size() == 1) {
    s.engine = ran[0].engine;
    s.kernel = ran[0].name;
    if (ran[0].description.arithmetic != Arithmetic::unsaid)
      s.description = ran[0].description;
    else if (!any_codes(s))
      s.description.arithmetic = Arithmetic::floats;
    if (s.description.loop.empty()) s.description.loop = s.kernel;
  } else if (!names.empty()) {
    s.kernel = fmt::format("own evaluation, on {}", fmt::join(names, ", "));
    if (chosen) s.description = chosen->description;
  }
  if (s.description.loop.empty()) s.description.loop = "own evaluation";
  s.isa = isa_in(s.description.loop);
  s.threads = num_threads();
}

}  // namespace

// -- programs -------------------------------------------------------------------------------------

namespace {

class ProgramExplainer {
 public:
  ProgramExplainer(const runtime::Program& program, const std::vector<std::vector<Tensor>>& samples,
                   const ExplainOptions& options)
      : p_(program), g_(program.graph()), samples_(samples), options_(options) {
    OCTET_CHECK(!samples.empty(), invalid_argument,
                "explain: no samples; expected at least one set of inputs");
  }

  Explanation explain() {
    steps_of_node_.resize(g_.nodes().size());
    for (size_t i = 0; i < p_.steps().size(); ++i) {
      e_.steps.emplace_back();
      if (p_.steps()[i].engine != "layout")
        steps_of_node_[static_cast<size_t>(p_.steps()[i].node)].push_back(i);
    }
    types_.resize(g_.values().size());
    for (size_t v = 0; v < types_.size(); ++v) types_[v] = g_.type(static_cast<ValueId>(v));
    e_.machine = machine_text();
    e_.engine = octet::engine();
    e_.notes = p_.warnings();
    // What the default engine leaves to others is no news.
    if (e_.engine != "native")
      for (const std::string& line : p_.fallbacks()) e_.notes.push_back(line);
    e_.samples = std::ssize(samples_);
    e_.verified = options_.verify;
    watch_types();
    for (size_t i = 0; i < e_.steps.size(); ++i) describe(i);
    if (options_.verify)
      for (size_t s = 0; s < samples_.size(); ++s) verify_sample(s);
    if (options_.seconds > 0) time_steps();
    return std::move(e_);
  }

 private:
  std::vector<ValueId> all_values() const {
    std::vector<ValueId> ids;
    for (const Node& node : g_.nodes())
      if (node.kind != graph::NodeKind::constant)
        ids.insert(ids.end(), node.outputs.begin(), node.outputs.end());
    return ids;
  }

  // The types of all values for the first sample, and what own evaluations run.
  void watch_types() {
    Kernels kernels;
    p_.run_watched(samples_[0], all_values(), [&](ValueId v, const Tensor& x) {
      types_[static_cast<size_t>(v)] = x.type();
      const auto node = static_cast<size_t>(g_.value(v).producer);
      for (Kernels::Ran& r : kernels.take()) ran_[node].push_back(std::move(r));
    });
  }

  ExplainedOperand operand(ValueId v) const {
    const TensorType& type = types_[static_cast<size_t>(v)];
    return {"%" + g_.value(v).name, type, g_.is_constant(v), bytes_of(type)};
  }

  void describe(size_t i) {
    ExplainedStep& s = e_.steps[i];
    const runtime::StepInfo& info = p_.steps()[i];
    const Node& node = g_.node(info.node);
    s.name = node.scope.empty() ? "%" + g_.value(node.outputs[0]).name : node.scope;
    s.note = info.note;
    if (info.engine == "layout") {
      s.op = info.kernel;
      s.kernel = info.kernel;
      s.engine = info.engine;
      s.numbers = Numbers::layout;
      s.description.arithmetic = Arithmetic::moves;
      s.description.loop = info.kernel;
      s.inputs = s.outputs = {operand(node.outputs[0])};
      s.threads = num_threads();
      s.bytes = 2 * s.inputs[0].bytes;
      return;
    }
    s.op = node.op;
    const Kernel* kernel = p_.kernel(i);
    std::vector<Shape> in, out;
    for (size_t k = 0; k < node.inputs.size(); ++k) {
      const ValueId v = node.inputs[k];
      in.push_back(v == kNone ? Shape() : shape_of(v));
      if (v == kNone) continue;
      s.inputs.push_back(operand(v));
      if (!(kernel && g_.is_constant(v) && kernel->packs(k))) s.bytes += s.inputs.back().bytes;
    }
    for (ValueId v : node.outputs) {
      out.push_back(shape_of(v));
      s.outputs.push_back(operand(v));
      s.bytes += s.outputs.back().bytes;
    }
    s.bytes += static_cast<double>(info.packed_bytes);
    const ops::Op& op = ops::get(node.op);
    if (kernel)
      describe_kernel(s, *kernel);
    else
      describe_own(s, op, ran_[static_cast<size_t>(info.node)]);
    s.numbers = numbers_of(s);
    const OpSpec spec = graph::spec_of(g_, node);
    s.multiply_adds = multiply_adds_of(spec, in, out);
    if (s.numbers == Numbers::integers && s.multiply_adds > 0)
      s.largest_sum = largest_sum_of(spec, in);
    if (s.numbers == Numbers::floats) s.why_float = float_reason(s, &op, node.note);
    add_fused(s, node.attrs);
    if (info.with_previous) s.fused.push_back("the step before, some rows at a time");
  }

  Shape shape_of(ValueId v) const {
    const TensorType& t = types_[static_cast<size_t>(v)];
    return t.is_static() ? t.shape() : Shape();
  }

  // Each step's result from the operands it had, as soon as they are there.
  void verify_sample(size_t sample) {
    std::vector<int> uses = g_.use_counts();
    std::map<ValueId, Tensor> values;
    std::vector<int> missing(g_.nodes().size(), 0);
    for (size_t n = 0; n < g_.nodes().size(); ++n)
      missing[n] = static_cast<int>(g_.nodes()[n].outputs.size());
    std::vector<Tensor> outputs =
        p_.run_watched(samples_[sample], all_values(), [&](ValueId v, const Tensor& x) {
          values[v] = x.clone();
          const auto n = static_cast<size_t>(g_.value(v).producer);
          if (--missing[n] == 0) verify_node(n, sample, values, uses);
        });
    // Run as a whole, groups of rows go another way through the same kernels.
    const std::vector<Tensor> whole = p_.run(samples_[sample]);
    for (size_t i = 0; i < whole.size() && e_.output_differs.empty(); ++i)
      if (const std::string d = first_difference(whole[i], outputs[i]); !d.empty())
        e_.output_differs =
            fmt::format("%{}, run {}: {}", g_.value(g_.outputs()[i]).name, sample, d);
  }

  void verify_node(size_t n, size_t sample, std::map<ValueId, Tensor>& values,
                   std::vector<int>& uses) {
    const Node& node = g_.nodes()[n];
    if (node.kind == graph::NodeKind::call && !steps_of_node_[n].empty()) {
      std::vector<Tensor> inputs, results;
      for (ValueId v : node.inputs)
        inputs.push_back(v == kNone ? Tensor() : g_.is_constant(v) ? g_.constant(v) : values.at(v));
      std::vector<TensorType> types;
      for (ValueId v : node.outputs) {
        results.push_back(values.at(v));
        types.push_back(results.back().type());
      }
      const ops::Call call(ops::get(node.op), std::move(inputs), node.attrs, std::move(types));
      for (size_t step : steps_of_node_[n]) verify(e_.steps[step], call, results, sample);
    }
    for (ValueId v : node.inputs)
      if (v != kNone && --uses[static_cast<size_t>(v)] == 0) values.erase(v);
  }

  void time_steps() {
    std::vector<std::vector<double>> times(e_.steps.size());
    const Ceilings before = measure_ceilings();
    const double start = now();
    do {
      const std::vector<double> seconds = p_.profile(samples_[0]);
      for (size_t i = 0; i < seconds.size(); ++i) times[i].push_back(seconds[i]);
    } while (now() - start < options_.seconds || times.empty() || times[0].size() < 3);
    for (size_t i = 0; i < times.size(); ++i) e_.steps[i].seconds = median(times[i]);
    e_.ceilings = measure_ceilings(before);
    set_shares(e_);
  }

  const runtime::Program& p_;
  const graph::Graph& g_;
  const std::vector<std::vector<Tensor>>& samples_;
  const ExplainOptions& options_;
  std::vector<TensorType> types_;
  std::vector<std::vector<size_t>> steps_of_node_;
  std::map<size_t, std::vector<Kernels::Ran>> ran_;
  Explanation e_;
};

}  // namespace

Explanation explain(const runtime::Program& program,
                    const std::vector<std::vector<Tensor>>& samples,
                    const ExplainOptions& options) {
  return ProgramExplainer(program, samples, options).explain();
}

// -- modules --------------------------------------------------------------------------------------

namespace {

// Where calls come from: the paths of the modules that are being called.
class ModulePaths final : public nn::ModuleTrace {
 public:
  explicit ModulePaths(nn::Module& root) {
    for (const auto& [path, module] : root.named_modules()) paths_.emplace(module, path);
  }
  std::vector<Tensor> on_call(const ops::Call& call, const ops::Interceptor::Next& next) override {
    return next(call);
  }
  std::vector<Tensor> on_module(nn::Module& module, const std::vector<Tensor>& inputs,
                                const Next& next) override {
    const auto found = paths_.find(&module);
    if (found == paths_.end()) return next(inputs);
    stack_.push_back(found->second);
    struct Pop {
      std::vector<std::string>& stack;
      ~Pop() { stack.pop_back(); }
    } pop{stack_};
    return next(inputs);
  }
  std::string current() const { return stack_.empty() ? "" : stack_.back(); }

 private:
  std::map<const nn::Module*, std::string> paths_;
  std::vector<std::string> stack_;
};

// Sees the calls of a module's run; those that a call makes itself belong to it.
class CallWatch final : public ops::Interceptor {
 public:
  CallWatch(Explanation& e, const ModulePaths& paths, const ExplainOptions& options, size_t sample,
            bool first, std::vector<std::vector<double>>& times)
      : e_(e), paths_(paths), options_(options), sample_(sample), first_(first), times_(times) {}

  std::vector<Tensor> on_call(const ops::Call& call, const Next& next) override {
    if (inside_) return next(call);
    inside_ = true;
    struct Leave {
      bool& inside;
      ~Leave() { inside = false; }
    } leave{inside_};
    std::vector<Tensor> results;
    Kernels kernels;
    const double start = now();
    results = next(call);
    const double seconds = now() - start;
    const size_t at = at_++;
    if (first_) describe(call, results, kernels.take());
    if (at >= e_.steps.size()) return results;  // this sample takes another way
    if (first_) times_.emplace_back();
    times_[at].push_back(seconds);
    ExplainedStep& s = e_.steps[at];
    if (options_.verify && s.op == call.op().name()) verify(s, call, results, sample_);
    return results;
  }

 private:
  void describe(const ops::Call& call, const std::vector<Tensor>& results,
                const std::vector<Kernels::Ran>& ran) {
    ExplainedStep& s = e_.steps.emplace_back();
    const ops::Op& op = call.op();
    s.op = op.name();
    s.name = paths_.current().empty() ? op.name() : paths_.current();
    std::vector<std::optional<TensorType>> types;
    std::vector<Tensor> constants;
    std::vector<Shape> in, out;
    // As engines see eager calls: the operands behind the first are known where it has a weight.
    const bool weighted = op.param_index("weight") == size_t{1};
    const std::vector<size_t> recurrent = recurrent_weights(op);
    const auto known = [&](size_t i) {
      return (weighted && i > 0) || (!recurrent.empty() && i >= recurrent[0]);
    };
    for (size_t i = 0; i < call.inputs().size(); ++i) {
      const Tensor& x = call.inputs()[i];
      types.push_back(x.defined() ? std::optional(x.type()) : std::nullopt);
      constants.push_back(known(i) ? x : Tensor());
      in.push_back(x.defined() ? x.shape() : Shape());
      if (!x.defined()) continue;
      const std::string& name = op.params()[std::min(i, op.params().size() - 1)].name;
      s.inputs.push_back({name, x.type(), known(i), bytes_of(x.type())});
      s.bytes += s.inputs.back().bytes;
    }
    for (size_t i = 0; i < results.size(); ++i) {
      out.push_back(results[i].shape());
      s.outputs.push_back({"result", results[i].type(), false, bytes_of(results[i].type())});
      s.bytes += s.outputs.back().bytes;
    }
    describe_own(s, op, ran);
    s.numbers = numbers_of(s);
    const OpSpec spec =
        ops::make_spec(op, call.attrs(), types, std::move(constants), call.outputs(), s.name);
    s.multiply_adds = multiply_adds_of(spec, in, out);
    if (s.numbers == Numbers::integers && s.multiply_adds > 0)
      s.largest_sum = largest_sum_of(spec, in);
    if (s.numbers == Numbers::floats) s.why_float = float_reason(s, &op, "");
    add_fused(s, call.attrs());
  }

  Explanation& e_;
  const ModulePaths& paths_;
  const ExplainOptions& options_;
  size_t sample_;
  bool first_;
  std::vector<std::vector<double>>& times_;
  size_t at_ = 0;
  bool inside_ = false;
};

}  // namespace

Explanation explain(nn::Module& module, const std::vector<std::vector<Tensor>>& samples,
                    const ExplainOptions& options) {
  OCTET_CHECK(!samples.empty(), invalid_argument,
              "explain: no samples; expected at least one set of inputs");
  Explanation e;
  e.machine = machine_text();
  e.engine = octet::engine();
  e.samples = std::ssize(samples);
  e.verified = options.verify;
  const auto paths = std::make_shared<ModulePaths>(module);
  std::vector<std::vector<double>> times;
  autograd::NoGrad no_grad;
  const auto run = [&](size_t sample, bool first, const ExplainOptions& how) {
    const nn::SeeAllModules see(paths);
    CallWatch watch(e, *paths, how, sample, first, times);
    module(samples[sample]);
  };
  run(0, true, options);
  for (size_t s = 1; options.verify && s < samples.size(); ++s) run(s, false, options);
  if (options.seconds <= 0) return e;
  for (auto& t : times) t.clear();  // weights were packed meanwhile, results verified
  const Ceilings before = measure_ceilings();
  const double start = now();
  do {
    run(0, false, {});
  } while (now() - start < options.seconds || times.empty() || times[0].size() < 3);
  for (size_t i = 0; i < times.size(); ++i) e.steps[i].seconds = median(times[i]);
  e.ceilings = measure_ceilings(before);
  set_shares(e);
  return e;
}

// -- text -----------------------------------------------------------------------------------------

namespace {

bool is_operator(const ExplainedStep& s) {
  return s.numbers != Numbers::conversion && s.numbers != Numbers::layout;
}

std::string plural(int64_t n, const std::string& what) {
  return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
}

std::string percent(double share) {
  return share > 0 && share < 0.001 ? "0.1 %" : fmt::format("{:.1f} %", share * 100);
}

std::string short_type(const TensorType& t) {
  std::string name = t.dtype == DType::quint8     ? "u8"
                     : t.dtype == DType::qint8    ? "s8"
                     : t.dtype == DType::qint32   ? "s32"
                     : t.dtype == DType::float32  ? "f32"
                     : t.dtype == DType::float16  ? "f16"
                     : t.dtype == DType::quint4x2 ? "u4"
                     : t.dtype == DType::quint16  ? "u16"
                     : t.dtype == DType::qint16   ? "s16"
                     : t.dtype == DType::qint4x2  ? "s4"
                                                  : octet::to_string(t.dtype);
  return name;
}

// The operands that matter, and the result: "u8 x s8 > u8". What becomes codes on the fly is
// "f32~u8".
std::string short_types(const ExplainedStep& s) {
  const auto codes = std::find_if(s.inputs.begin(), s.inputs.end(), [](const ExplainedOperand& o) {
    return o.constant && o.type.is_quantized();
  });
  std::string text;
  if (!s.inputs.empty()) text = short_type(s.inputs[0].type);
  if (s.numbers == Numbers::integers && text == "f32") text += "~u8";
  if (s.inputs.size() > 1)
    text += (s.multiply_adds > 0 ? " x " : ", ") +
            short_type((codes == s.inputs.end() ? s.inputs[1] : *codes).type);
  return text + (s.outputs.empty() ? "" : " > " + short_type(s.outputs[0].type));
}

std::string count_text(double n) {
  if (n >= 1e9) return fmt::format("{:.2f}G", n / 1e9);
  if (n >= 1e6) return fmt::format("{:.1f}M", n / 1e6);
  if (n >= 1e3) return fmt::format("{:.0f}k", n / 1e3);
  return fmt::format("{:.0f}", n);
}

std::string grouped(int64_t n) {
  std::string digits = std::to_string(n);
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<size_t>(at), ",");
  return digits;
}

std::string joined(const std::vector<std::string>& parts) {
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::string details_of(const ExplainedStep& s) {
  const KernelDescription& d = s.description;
  std::string text = fmt::format("{} ({})\n", s.name, s.op);
  const auto line = [&](const char* what, const std::string& value) {
    if (!value.empty()) text += fmt::format("  {:<12} {}\n", what, value);
  };
  for (const ExplainedOperand& o : s.inputs)
    line(o.constant ? "constant" : "operand", o.name + ": " + scheme(o.type));
  for (const ExplainedOperand& o : s.outputs) line("result", o.name + ": " + scheme(o.type));
  line("on the fly", d.at_run_time);
  line("numbers", s.why_float.empty() ? to_string(s.numbers) : "floats: " + s.why_float);
  std::string sums = d.accumulator;
  if (s.largest_sum)
    sums += fmt::format("; |sum| <= {}, proven from the weights{}", grouped(*s.largest_sum),
                        *s.largest_sum < int64_t{1} << 31 ? ": int32 holds it" : "");
  if (d.wide_channels)
    sums += fmt::format("; {} summed again in 64 bits", plural(d.wide_channels, "channel"));
  line("accumulator", sums);
  line("epilogue", d.epilogue);
  line("rounding", d.rounding);
  line("kernel",
       fmt::format("{}: {}{}", s.engine, d.loop, d.loop == s.kernel ? "" : " (" + s.kernel + ")"));
  line("instead", s.note);
  if (d.weight_bits) line("weight", fmt::format("codes of {} bits", d.weight_bits));
  line("fused", joined(s.fused));
  line("threads", fmt::format("up to {}{}", s.threads, s.openmp ? ", OpenMP's" : ""));
  if (s.multiply_adds > 0) line("products", count_text(s.multiply_adds) + " multiply-adds");
  line("bytes", human_bytes(s.bytes));
  if (s.seconds > 0)
    line("time", fmt::format("{:.1f} us, {} of all; {:.0f} % of what {} allow", s.seconds * 1e6,
                             percent(s.share), s.of_ceiling * 100,
                             s.bound_by_memory ? "memory and caches" : "the multipliers"));
  line("verified", s.verified);
  return text;
}

}  // namespace

std::vector<const ExplainedStep*> Explanation::not_on_codes(const std::string& pattern) const {
  const NamePattern wanted(pattern.empty() ? "*" : pattern);
  std::vector<const ExplainedStep*> found;
  std::vector<std::string> names;
  bool any = false;
  for (const ExplainedStep& s : steps) {
    if (!is_operator(s)) continue;
    names.push_back(s.name);
    if (!wanted.matches(s.name)) continue;
    any = true;
    if (!s.on_codes()) found.push_back(&s);
  }
  OCTET_CHECK(any || pattern.empty(), not_found, "no operator is called '{}'{}", pattern,
              did_you_mean(pattern, names));
  return found;
}

std::vector<std::string> Explanation::summary() const {
  int64_t operators = 0, codes = 0, sums = 0, checked = 0, differ = 0;
  double codes_share = 0, conversion_share = 0;
  int64_t conversions = 0;
  for (const ExplainedStep& s : steps) {
    if (!s.verified.empty()) ++checked;
    differ += s.differs;
    if (!is_operator(s)) {
      ++conversions;
      conversion_share += s.share;
      continue;
    }
    ++operators;
    if (!s.on_codes()) continue;
    ++codes;
    sums += s.numbers == Numbers::integers;
    codes_share += s.share;
  }
  const auto of_time = [&](double share) {
    return seconds > 0 ? fmt::format(", {} of the time", percent(share)) : std::string();
  };
  // What is not on codes, by the reason.
  struct Group {
    void add(const std::string& name, double part) {
      names.push_back(name);
      share += part;
    }
    std::vector<std::string> names;
    double share = 0;
  };
  const auto listed = [](const std::vector<std::string>& names) {
    const size_t shown = std::min<size_t>(names.size(), 6);
    return fmt::format(
        " ({}{})",
        fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown), ", "),
        names.size() > shown ? fmt::format(" and {} more", names.size() - shown) : "");
  };
  std::map<std::string, Group> others;
  std::vector<std::string> lines;
  lines.push_back(
      fmt::format("{} of {} ran on 8-bit codes{}: {} with integer sums, {} by tables, "
                  "copies, comparisons or element by element.",
                  codes, plural(operators, "operator"), of_time(codes_share), sums, codes - sums));
  if (conversions)
    lines.push_back(fmt::format("{} between floats and codes or between layouts{}.",
                                plural(conversions, "conversion"), of_time(conversion_share)));
  for (const ExplainedStep& s : steps) {
    const std::string name = fmt::format("{} ({})", s.name, s.op);
    if (s.numbers == Numbers::fixed_point)
      others
          ["Not 8 bits|the weight is codes, the operand float32 values as whole numbers of 24 bits"]
              .add(name, s.share);
    if (s.numbers == Numbers::floats) others["Float|" + s.why_float].add(name, s.share);
  }
  for (const auto& [key, o] : others) {
    const size_t bar = key.find('|');
    lines.push_back(fmt::format(
        "{}: {}{}{}: {}.", key.substr(0, bar),
        o.names.size() == 1 ? o.names[0] : plural(std::ssize(o.names), "operator"),
        of_time(o.share), o.names.size() == 1 ? "" : listed(o.names), key.substr(bar + 1)));
  }
  if (verified) {
    lines.push_back(
        differ == 0 && output_differs.empty()
            ? fmt::format(
                  "Verified: the results of {} are identical to the reference engine's, for "
                  "{}.",
                  plural(checked, "step"), plural(samples, "run"))
            : fmt::format("WRONG: {} of {} differ from the reference engine.", differ,
                          plural(checked, "verified step")));
    for (const ExplainedStep& s : steps)
      if (s.differs) lines.push_back(fmt::format("Wrong: {} ({}): {}.", s.name, s.op, s.verified));
    if (!output_differs.empty())
      lines.push_back("Wrong: run as a whole the result is another: " + output_differs + ".");
  }
  for (const std::string& note : notes) lines.push_back("Note: " + note + ".");
  return lines;
}

std::string to_string(const Explanation& e, bool details) {
  constexpr size_t kTypes = 17, kLoop = 26, kName = 26;
  std::string text = e.machine + "\n";
  const bool timed = e.seconds > 0;
  text += fmt::format("{:>8} {:>5} {:>5} {:>6}  {:<{}} {:<{}} {}\n", timed ? "us" : "",
                      timed ? "%" : "", timed ? "ceil%" : "", "MACs", "types", kTypes, "inner loop",
                      kLoop, "operator and name");
  for (const ExplainedStep& s : e.steps) {
    // Many loops are called as their operator.
    const bool said = s.op == s.name || s.description.loop.starts_with(s.op);
    const std::string what = said ? s.name : s.op + " " + s.name;
    std::string time, share, ceiling;
    if (s.seconds > 0) {
      time = fmt::format("{:.1f}", s.seconds * 1e6);
      share = fmt::format("{:.1f}", s.share * 100);
      ceiling = fmt::format("{:.0f}", s.of_ceiling * 100);
    } else if (timed) {
      time = "\"";
    }
    const char* mark = s.differs                                      ? "WRONG "
                       : s.numbers == Numbers::floats && any_codes(s) ? "float "
                                                                      : "";
    text +=
        fmt::format("{:>8} {:>5} {:>5} {:>6}  {:<{}} {:<{}} {}\n", time, share, ceiling,
                    s.multiply_adds > 0 ? count_text(s.multiply_adds) : "", short_types(s), kTypes,
                    shorten(s.description.loop, kLoop), kLoop, shorten(mark + what, kName));
  }
  const bool winograd = std::any_of(e.steps.begin(), e.steps.end(), [](const ExplainedStep& s) {
    return s.description.loop.starts_with("winograd");
  });
  if (details)
    for (const ExplainedStep& s : e.steps) text += "\n" + details_of(s);
  text += "\n";
  for (const std::string& line : e.summary()) text += wrapped(line);
  if (timed && !e.ceilings.description.empty())
    text += wrapped(
        "ceil%: the share of this machine's ceilings: " + e.ceilings.description + "." +
        (winograd ? " Winograd's algorithm takes fewer multiply-adds than are counted." : ""));
  return text;
}

}  // namespace octet::debug
