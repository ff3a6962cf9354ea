#include "octet/nn/loss.h"

#include "octet/base/check_impl.h"
#include "octet/nn/registry.h"
#include "octet/ops/functional.h"
#include "octet/ops/op.h"

namespace octet::functional {
namespace {

using ops::call;

Tensor number_like(const Tensor& x, double value) { return Tensor::scalar(value, x.dtype()); }

Tensor reduce(const Tensor& loss, const std::string& reduction, const char* who) {
  if (reduction == "mean") return mean(loss);
  if (reduction == "sum") return sum(loss);
  OCTET_CHECK(reduction == "none", invalid_argument,
              "{}: reduction=\"{}\"; expected \"mean\", \"sum\" or \"none\"", who, reduction);
  return loss;
}

void need_equal_shapes(const Tensor& input, const Tensor& target, const char* who) {
  OCTET_CHECK(input.shape() == target.shape(), invalid_argument,
              "{}: input {} and target {}; expected one shape", who, to_string(input.type()),
              to_string(target.type()));
}

// Class indices and what is needed of them. The classes of `input` are dimension 1 (0 of a 1-d
// input); `rows` has them last.
struct Targets {
  int64_t classes = 0;
  Shape shape;                  // of the loss of each target
  std::vector<int64_t> picked;  // row*classes + class; ignored targets point at class 0
  std::vector<float> weight;    // of each target: its class's, 0 if it is ignored
  double total = 0;             // of the weights
  Tensor weights(const Tensor& like) const {
    return Tensor::from(weight, {static_cast<int64_t>(weight.size())}).to(like.dtype());
  }
};

Targets targets(const Tensor& input, const Tensor& target, const Tensor& class_weight,
                int64_t ignore_index, const char* who) {
  Targets t;
  OCTET_CHECK(input.dim() >= 1 && target.dtype() == DType::int64, invalid_argument,
              "{}: input {} and target {}; expected (N, C, ...) and class indices, int64 (N, ...)",
              who, to_string(input.type()), to_string(target.type()));
  const int64_t at = input.dim() == 1 ? 0 : 1;
  t.classes = input.size(at);
  t.shape = input.shape();
  t.shape.erase(t.shape.begin() + at);
  OCTET_CHECK(target.shape() == t.shape, invalid_argument,
              "{}: input {} and target {}; expected a target of shape {}", who,
              to_string(input.type()), to_string(target.type()), to_string(t.shape));
  OCTET_CHECK(!class_weight.defined() || class_weight.shape() == Shape{t.classes}, invalid_argument,
              "{}: {} class weights for {} classes", who, class_weight.numel(), t.classes);
  std::vector<float> each = class_weight.defined()
                                ? class_weight.to(DType::float32).to_vector<float>()
                                : std::vector<float>(static_cast<size_t>(t.classes), 1.0f);
  int64_t row = 0;
  for (int64_t c : target.to_vector<int64_t>()) {
    const bool ignored = c == ignore_index;
    OCTET_CHECK(ignored || (c >= 0 && c < t.classes), invalid_argument,
                "{}: target {} is none of the {} classes", who, c, t.classes);
    t.picked.push_back(row++ * t.classes + (ignored ? 0 : c));
    t.weight.push_back(ignored ? 0 : each[static_cast<size_t>(c)]);
    t.total += t.weight.back();
  }
  return t;
}

// (N, C, ...) as rows of C.
Tensor class_rows(const Tensor& x) {
  if (x.dim() <= 2) return x.reshape({-1, x.size(-1)});
  std::vector<int64_t> order{0};
  for (int64_t d = 2; d < x.dim(); ++d) order.push_back(d);
  order.push_back(1);
  return x.permute(order).reshape({-1, x.size(1)});
}

// What each target contributes: values (rows) * weights, 0 for ignored ones whatever their value.
Tensor weighted(const Tensor& values, const Targets& t) {
  std::vector<bool> kept;
  for (float w : t.weight) kept.push_back(w != 0);
  Tensor mask = Tensor::from(kept, {static_cast<int64_t>(kept.size())});
  return call("where", {mask, values * t.weights(values), number_like(values, 0)});
}

Tensor nll_of_rows(const Tensor& rows, const Targets& t) {
  Tensor index = Tensor::from(t.picked, {static_cast<int64_t>(t.picked.size())});
  return weighted(-call("index_select", {rows.reshape({-1}), index}), t);
}

// Of the losses of the targets: shaped, summed, or averaged by `total`.
Tensor reduce_targets(const Tensor& losses, const Targets& t, const std::string& reduction,
                      const char* who) {
  if (reduction == "mean") return sum(losses) / t.total;
  return reduce(reduction == "none" ? losses.reshape(t.shape) : losses, reduction, who);
}

Tensor cross_entropy_of_probabilities(const Tensor& input, const Tensor& target,
                                      const CrossEntropyOptions& o) {
  OCTET_CHECK(target.dtype() == input.dtype(), invalid_argument,
              "cross_entropy: input {} and target {}; expected one dtype", to_string(input.type()),
              to_string(target.type()));
  const int64_t at = input.dim() == 1 ? 0 : 1, classes = input.size(at);
  Tensor wanted = target;
  if (o.label_smoothing > 0)
    wanted = target * (1 - o.label_smoothing) + o.label_smoothing / static_cast<double>(classes);
  Tensor each = log_softmax(input, at) * wanted;
  if (o.weight.defined()) {
    Shape shape(static_cast<size_t>(input.dim()), 1);
    shape[static_cast<size_t>(at)] = classes;
    each = each * o.weight.reshape(shape);
  }
  Tensor loss = -sum(each, {at});
  if (o.reduction == "mean")
    return sum(loss) / (static_cast<double>(input.numel()) / static_cast<double>(classes));
  return reduce(loss, o.reduction, "cross_entropy");
}

}  // namespace

Tensor cross_entropy(const Tensor& input, const Tensor& target, const CrossEntropyOptions& o) {
  OCTET_CHECK(o.label_smoothing >= 0 && o.label_smoothing <= 1, invalid_argument,
              "cross_entropy: label_smoothing={}; expected 0 to 1", o.label_smoothing);
  OCTET_CHECK(input.dim() >= 1, invalid_argument,
              "cross_entropy: the input has no dimension of classes");
  if (target.shape() == input.shape() && target.dtype() != DType::int64)
    return cross_entropy_of_probabilities(input, target, o);
  const Targets t = targets(input, target, o.weight, o.ignore_index, "cross_entropy");
  Tensor rows = log_softmax(class_rows(input), 1), losses = nll_of_rows(rows, t);
  if (o.label_smoothing == 0) return reduce_targets(losses, t, o.reduction, "cross_entropy");
  Targets even = t;  // every class of every target that is not ignored, by the class's weight only
  for (float& w : even.weight) w = w != 0;
  int64_t kept = 0;
  std::vector<int64_t> wanted = target.to_vector<int64_t>();
  for (size_t i = 0; i < wanted.size(); ++i) kept += even.weight[i] = wanted[i] != o.ignore_index;
  Tensor smooth =
      weighted(-sum(o.weight.defined() ? rows * o.weight.to(rows.dtype()) : rows, {1}), even);
  even.total = o.weight.defined() ? t.total : static_cast<double>(kept);
  return reduce_targets(losses, t, o.reduction, "cross_entropy") * (1 - o.label_smoothing) +
         reduce_targets(smooth, even, o.reduction, "cross_entropy") *
             (o.label_smoothing / static_cast<double>(t.classes));
}

Tensor nll_loss(const Tensor& input, const Tensor& target, const Tensor& weight,
                int64_t ignore_index, const std::string& reduction) {
  const Targets t = targets(input, target, weight, ignore_index, "nll_loss");
  return reduce_targets(nll_of_rows(class_rows(input), t), t, reduction, "nll_loss");
}

Tensor mse_loss(const Tensor& input, const Tensor& target, const std::string& reduction) {
  need_equal_shapes(input, target, "mse_loss");
  Tensor d = input - target;
  return reduce(d * d, reduction, "mse_loss");
}

Tensor l1_loss(const Tensor& input, const Tensor& target, const std::string& reduction) {
  need_equal_shapes(input, target, "l1_loss");
  return reduce(abs(input - target), reduction, "l1_loss");
}

Tensor smooth_l1_loss(const Tensor& input, const Tensor& target, const std::string& reduction,
                      double beta) {
  OCTET_CHECK(beta >= 0, invalid_argument, "smooth_l1_loss: beta={}; expected 0 or more", beta);
  if (beta == 0) return l1_loss(input, target, reduction);
  need_equal_shapes(input, target, "smooth_l1_loss");
  Tensor d = abs(input - target), near = call("less", {d, number_like(d, beta)});
  return reduce(call("where", {near, d * d * 0.5 / beta, d - 0.5 * beta}), reduction,
                "smooth_l1_loss");
}

Tensor huber_loss(const Tensor& input, const Tensor& target, const std::string& reduction,
                  double delta) {
  OCTET_CHECK(delta > 0, invalid_argument, "huber_loss: delta={}; expected more than 0", delta);
  need_equal_shapes(input, target, "huber_loss");
  Tensor d = abs(input - target), near = call("less_equal", {d, number_like(d, delta)});
  return reduce(call("where", {near, d * d * 0.5, (d - 0.5 * delta) * delta}), reduction,
                "huber_loss");
}

Tensor binary_cross_entropy_with_logits(const Tensor& input, const Tensor& target,
                                        const Tensor& weight, const std::string& reduction,
                                        const Tensor& pos_weight) {
  need_equal_shapes(input, target, "binary_cross_entropy_with_logits");
  // -log(sigmoid(x)) is softplus(-x), and -log(1 - sigmoid(x)) is x + softplus(-x).
  Tensor negative = softplus(-input), loss = (1 - target) * input;
  loss = loss + (pos_weight.defined() ? ((pos_weight - 1) * target + 1) * negative : negative);
  return reduce(weight.defined() ? loss * weight : loss, reduction,
                "binary_cross_entropy_with_logits");
}

Tensor kl_div(const Tensor& input, const Tensor& target, const std::string& reduction,
              bool log_target) {
  Tensor loss;
  if (log_target) {
    loss = exp(target) * (target - input);
  } else {
    // Where target is 0 the product is 0: log(1) stands in for log(0).
    Tensor zero = number_like(target, 0), is_zero = call("equal", {target, zero});
    loss = target * (log(call("where", {is_zero, number_like(target, 1), target})) - input);
  }
  if (reduction == "batchmean")
    return sum(loss) / static_cast<double>(input.dim() ? input.size(0) : 1);
  return reduce(loss, reduction, "kl_div");
}

Tensor distillation_loss(const Tensor& student, const Tensor& teacher, double temperature) {
  OCTET_CHECK(temperature > 0, invalid_argument,
              "distillation_loss: temperature={}; expected more than 0", temperature);
  need_equal_shapes(student, teacher, "distillation_loss");
  OCTET_CHECK(student.dim() == 2, invalid_argument, "distillation_loss: logits {}; expected (N, C)",
              to_string(student.type()));
  Tensor wanted = log_softmax(teacher.detach() * (1 / temperature), 1);
  return kl_div(log_softmax(student * (1 / temperature), 1), wanted, "batchmean", true) *
         (temperature * temperature);
}

}  // namespace octet::functional

namespace octet::nn {

OCTET_MODULE(CrossEntropyLoss)
OCTET_MODULE(NLLLoss)
OCTET_MODULE(MSELoss)
OCTET_MODULE(L1Loss)
OCTET_MODULE(SmoothL1Loss)
OCTET_MODULE(HuberLoss)
OCTET_MODULE(BCEWithLogitsLoss)
OCTET_MODULE(KLDivLoss)

namespace {
// A weight's shape in the config, so that from_config makes a buffer that the state dict fills.
std::vector<int64_t> shape_of(const Tensor& t) { return t.defined() ? t.shape() : Shape{-1}; }
Tensor weight_of(const Attrs& c, const char* name) {
  const Shape& shape = c.get_ints(name);
  return shape == Shape{-1} ? Tensor() : Tensor::ones(shape);
}
}  // namespace

std::vector<Tensor> Loss::forward(std::vector<Tensor> inputs) {
  OCTET_CHECK(inputs.size() == 2, invalid_argument,
              "{}: {} inputs given; it takes an input and a target", type_name(), inputs.size());
  return {compute(inputs[0], inputs[1])};
}

CrossEntropyLoss::CrossEntropyLoss(functional::CrossEntropyOptions o)
    : Loss(o.reduction),
      ignore_index(o.ignore_index),
      label_smoothing(o.label_smoothing),
      weight(buffer("weight", o.weight)) {}
Tensor CrossEntropyLoss::compute(const Tensor& input, const Tensor& target) {
  return functional::cross_entropy(input, target,
                                   {weight, ignore_index, reduction, label_smoothing});
}
Attrs CrossEntropyLoss::config() const {
  return {{"reduction", reduction},
          {"ignore_index", ignore_index},
          {"label_smoothing", label_smoothing},
          {"weight", shape_of(weight)}};
}
std::shared_ptr<CrossEntropyLoss> CrossEntropyLoss::from_config(const Attrs& c) {
  return make<CrossEntropyLoss>(
      functional::CrossEntropyOptions{weight_of(c, "weight"), c.get_int("ignore_index"),
                                      c.get_string("reduction"), c.get_double("label_smoothing")});
}

NLLLoss::NLLLoss(Tensor w, int64_t ignore, std::string reduction)
    : Loss(std::move(reduction)), ignore_index(ignore), weight(buffer("weight", std::move(w))) {}
Tensor NLLLoss::compute(const Tensor& input, const Tensor& target) {
  return functional::nll_loss(input, target, weight, ignore_index, reduction);
}
Attrs NLLLoss::config() const {
  return {{"reduction", reduction}, {"ignore_index", ignore_index}, {"weight", shape_of(weight)}};
}
std::shared_ptr<NLLLoss> NLLLoss::from_config(const Attrs& c) {
  return make<NLLLoss>(weight_of(c, "weight"), c.get_int("ignore_index"),
                       c.get_string("reduction"));
}

BCEWithLogitsLoss::BCEWithLogitsLoss(Tensor w, std::string reduction, Tensor positive)
    : Loss(std::move(reduction)),
      weight(buffer("weight", std::move(w))),
      pos_weight(buffer("pos_weight", std::move(positive))) {}
Tensor BCEWithLogitsLoss::compute(const Tensor& input, const Tensor& target) {
  return functional::binary_cross_entropy_with_logits(input, target, weight, reduction, pos_weight);
}
Attrs BCEWithLogitsLoss::config() const {
  return {
      {"reduction", reduction}, {"weight", shape_of(weight)}, {"pos_weight", shape_of(pos_weight)}};
}
std::shared_ptr<BCEWithLogitsLoss> BCEWithLogitsLoss::from_config(const Attrs& c) {
  return make<BCEWithLogitsLoss>(weight_of(c, "weight"), c.get_string("reduction"),
                                 weight_of(c, "pos_weight"));
}

std::string Loss::extra_repr() const { return ""; }
Attrs MSELoss::config() const { return {{"reduction", reduction}}; }
std::shared_ptr<MSELoss> MSELoss::from_config(const Attrs& c) {
  return make<MSELoss>(c.get_string("reduction"));
}
Attrs L1Loss::config() const { return {{"reduction", reduction}}; }
std::shared_ptr<L1Loss> L1Loss::from_config(const Attrs& c) {
  return make<L1Loss>(c.get_string("reduction"));
}
Attrs SmoothL1Loss::config() const { return {{"reduction", reduction}, {"beta", beta}}; }
std::shared_ptr<SmoothL1Loss> SmoothL1Loss::from_config(const Attrs& c) {
  return make<SmoothL1Loss>(c.get_string("reduction"), c.get_double("beta"));
}
Attrs HuberLoss::config() const { return {{"reduction", reduction}, {"delta", delta}}; }
std::shared_ptr<HuberLoss> HuberLoss::from_config(const Attrs& c) {
  return make<HuberLoss>(c.get_string("reduction"), c.get_double("delta"));
}
Attrs KLDivLoss::config() const { return {{"reduction", reduction}, {"log_target", log_target}}; }
std::shared_ptr<KLDivLoss> KLDivLoss::from_config(const Attrs& c) {
  return make<KLDivLoss>(c.get_string("reduction"), c.get_bool("log_target"));
}

}  // namespace octet::nn
