#include "octet/base/check_impl.h"
#include "octet/quant/workflow/flow_impl.h"

namespace octet::quant {
namespace {

class Mark final : public ops::TensorTrace {
 public:
  Mark(std::shared_ptr<Flow> flow, std::string producer, bool same_scale)
      : flow_(std::move(flow)), producer_(std::move(producer)), same_scale_(same_scale) {}
  const std::string& producer() const { return producer_; }
  bool same_scale() const { return same_scale_; }

  std::vector<Tensor> on_call(const ops::Call& call, const ops::Interceptor::Next& next) override {
    std::vector<Tensor> results = next(call);
    const std::string& op = call.op().name();
    if (op == "dequantize") return results;
    ops::QRule rule = call.op().rule();
    if (rule == ops::QRule::same || rule == ops::QRule::fixed) {
      for (Tensor& y : results) flow_->mark(y, producer_, same_scale_ && rule == ops::QRule::same);
      return results;
    }
    bool integer_result = true;
    for (const Tensor& y : results) integer_result = integer_result && !is_floating(y.dtype());
    if (integer_result) return results;  // shapes, indices, comparisons
    std::string where =
        flow_->running.empty() ? "the model's forward" : fmt::format("'{}'", flow_->running.back());
    std::vector<std::string> operands;
    for (const Tensor& x : call.inputs())
      if (x.defined())
        operands.push_back(Flow::marked(x) ? fmt::format("quantized from '{}'", Flow::producer(x))
                                           : fmt::format("{}", octet::to_string(x.dtype())));
    bool functional = op == "add" || op == "sub" || op == "mul" || op == "cat" || op == "matmul";
    flow_->problem(fmt::format(
        "{} in {} gets operands that will be ({}): {}", op, where, fmt::join(operands, ", "),
        functional
            ? fmt::format("use nn::quantized::FloatFunctional::{}, which has an observer for its "
                          "result, or a DeQuantStub before it",
                          op)
            : "put a DeQuantStub before it, or give the module a qconfig"));
    return results;
  }

 private:
  std::shared_ptr<Flow> flow_;
  std::string producer_;
  bool same_scale_;
};

std::shared_ptr<Mark> mark_of(const Tensor& x) {
  return std::dynamic_pointer_cast<Mark>(ops::trace_of(x));
}

}  // namespace

void Flow::mark(Tensor& x, const std::string& producer, bool same_scale) {
  if (!x.defined() || !is_floating(x.dtype())) return;
  // the handle may be the operand's own, and the caller's
  x = x.has_slots() ? unmarked(x) : x.detach();
  ops::set_trace(x, std::make_shared<Mark>(shared_from_this(), producer, same_scale));
}

bool Flow::marked(const Tensor& x) { return mark_of(x) != nullptr; }

std::string Flow::producer(const Tensor& x) {
  auto mark = mark_of(x);
  return mark ? mark->producer() : "";
}

std::string Flow::scale_source(const Tensor& x) {
  auto mark = mark_of(x);
  return mark && mark->same_scale() ? mark->producer() : "";
}

Tensor Flow::unmarked(const Tensor& x) {
  if (!x.defined() || !x.has_slots()) return x;
  Tensor y = x.detach();
  y.autograd_slot() = x.autograd_slot();
  return y;
}

}  // namespace octet::quant
