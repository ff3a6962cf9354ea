#include "octet/nn/optim.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "octet/autograd/autograd.h"
#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/base/text.h"

namespace octet::nn::optim {
namespace {

// Calls fn(i) for the elements of parameters of n elements.
template <typename Fn>
void for_each(int64_t n, Fn&& fn) {
  parallel_ranges(n, 32768, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) fn(i);
  });
}

// a + b*c with one rounding, as a fused multiply-add gives it: the product of two floats is exact
// in double.
float fma32(float a, float b, float c) {
  return static_cast<float>(static_cast<double>(b) * c + a);
}

std::string group_key(size_t i, const std::string& name) {
  return fmt::format("param_groups.{}.{}", i, name);
}
std::string state_key(size_t i, const std::string& name) {
  return fmt::format("state.{}.{}", i, name);
}

}  // namespace

// -- Optimizer ------------------------------------------------------------------------------------

void Optimizer::add_param_group(ParamGroup group) {
  std::vector<std::string> known;
  for (const auto& item : defaults_) known.push_back(item.first);
  for (const auto& item : group.options)
    OCTET_CHECK(defaults_.count(item.first), invalid_argument, "{}: unknown option '{}'{}", name_,
                item.first, did_you_mean(item.first, known));
  for (const Tensor& p : group.params) {
    OCTET_CHECK(p.defined() && p.dtype() == DType::float32 && autograd::requires_grad(p) &&
                    autograd::is_leaf(p),
                invalid_argument,
                "{}: a parameter is {}; expected float32 tensors that require gradients", name_,
                p.defined() ? to_string(p.type()) : "undefined");
    OCTET_CHECK(p.is_contiguous(), invalid_argument,
                "{}: a parameter {} is not row-major; use contiguous()", name_,
                to_string(p.type()));
    for (const ParamGroup& g : groups_)
      for (const Tensor& other : g.params)
        OCTET_CHECK(other.id() != p.id(), invalid_argument, "{}: a parameter {} is in two groups",
                    name_, to_string(p.type()));
  }
  Options options = defaults_;
  for (const auto& [name, value] : group.options) options[name] = value;
  groups_.push_back({std::move(group.params), std::move(options)});
}

void Optimizer::step() {
  autograd::NoGrad no_grad;
  for (ParamGroup& group : groups_)
    for (Tensor& p : group.params) {
      Tensor grad = autograd::grad(p);
      if (!grad.defined()) continue;
      State& state = state_[p.id()];
      if (state.empty())
        for (const std::string& name : state_names(group.options))
          state[name] = name == "step" ? Tensor::scalar(0, DType::float32) : Tensor();
      update(p, grad.contiguous(), group.options, state);
    }
}

void Optimizer::zero_grad() {
  for (ParamGroup& group : groups_)
    for (Tensor& p : group.params) autograd::zero_grad(p);
}

std::map<std::string, Tensor> Optimizer::state_dict() const {
  std::map<std::string, Tensor> dict;
  size_t index = 0;
  for (size_t g = 0; g < groups_.size(); ++g) {
    for (const auto& [name, value] : groups_[g].options)
      dict[group_key(g, name)] = Tensor::scalar(value, DType::float64);
    for (const Tensor& p : groups_[g].params) {
      auto it = state_.find(p.id());
      if (it != state_.end())
        for (const auto& [name, tensor] : it->second)
          if (tensor.defined()) dict[state_key(index, name)] = tensor.clone();
      ++index;
    }
  }
  return dict;
}

void Optimizer::load_state_dict(const std::map<std::string, Tensor>& dict) {
  std::vector<ParamGroup> groups = groups_;
  std::map<const void*, State> states;
  size_t used = 0, index = 0;
  for (size_t g = 0; g < groups.size(); ++g) {
    for (auto& [name, value] : groups[g].options) {
      auto it = dict.find(group_key(g, name));
      OCTET_CHECK(it != dict.end(), invalid_argument, "{}: the state dict has no '{}'", name_,
                  group_key(g, name));
      value = it->second.item();
      ++used;
    }
    for (const Tensor& p : groups[g].params) {
      State state;
      for (const std::string& name : state_names(groups[g].options)) {
        auto it = dict.find(state_key(index, name));
        if (it == dict.end()) continue;
        const Shape expected = name == "step" ? Shape{} : p.shape();
        OCTET_CHECK(it->second.shape() == expected, invalid_argument,
                    "{}: '{}' has shape {} in the state dict; expected {}", name_, it->first,
                    octet::to_string(it->second.shape()), octet::to_string(expected));
        state[name] = it->second.to(DType::float32).clone();
        ++used;
      }
      if (!state.empty()) states[p.id()] = std::move(state);
      ++index;
    }
  }
  OCTET_CHECK(used == dict.size(), invalid_argument,
              "{}: the state dict has {} entries, of which {} fit: it belongs to another optimizer "
              "or other parameters",
              name_, dict.size(), used);
  groups_ = std::move(groups);
  state_ = std::move(states);
}

// -- SGD ------------------------------------------------------------------------------------------

SGD::SGD(std::vector<Tensor> params, const SGDOptions& o)
    : Optimizer("SGD", {{"lr", o.lr},
                        {"momentum", o.momentum},
                        {"dampening", o.dampening},
                        {"weight_decay", o.weight_decay},
                        {"nesterov", o.nesterov}}) {
  OCTET_CHECK(o.lr >= 0 && o.momentum >= 0 && o.weight_decay >= 0, invalid_argument,
              "SGD: lr={}, momentum={}, weight_decay={}; expected 0 or more", o.lr, o.momentum,
              o.weight_decay);
  OCTET_CHECK(!o.nesterov || (o.momentum > 0 && o.dampening == 0), invalid_argument,
              "SGD: nesterov needs a momentum and no dampening");
  add_param_group({std::move(params), {}});
}

std::vector<std::string> SGD::state_names(const Options& o) const {
  return o.at("momentum") != 0 ? std::vector<std::string>{"momentum_buffer"}
                               : std::vector<std::string>{};
}

void SGD::update(Tensor& param, const Tensor& grad, const Options& o, State& state) {
  const auto lr = static_cast<float>(-o.at("lr")), momentum = static_cast<float>(o.at("momentum"));
  const auto decay = static_cast<float>(o.at("weight_decay")),
             fresh = static_cast<float>(1 - o.at("dampening"));
  const bool nesterov = o.at("nesterov") != 0;
  bool first = false;
  float* v = nullptr;
  if (momentum != 0) {
    Tensor& buffer = state["momentum_buffer"];
    first = !buffer.defined();
    if (first) buffer = Tensor::empty(param.shape());
    v = buffer.data<float>();
  }
  float* p = param.data<float>();
  const float* g = grad.data<float>();
  for_each(param.numel(), [=](int64_t i) {
    float d = decay != 0 ? fma32(g[i], p[i], decay) : g[i];
    if (v) {
      v[i] = first ? d : fma32(v[i] * momentum, d, fresh);
      d = nesterov ? fma32(d, v[i], momentum) : v[i];
    }
    p[i] = fma32(p[i], d, lr);
  });
}

// -- Adam -----------------------------------------------------------------------------------------

Adam::Adam(std::string name, std::vector<Tensor> params, const AdamOptions& o)
    : Optimizer(name, {{"lr", o.lr},
                       {"beta1", o.beta1},
                       {"beta2", o.beta2},
                       {"eps", o.eps},
                       {"weight_decay", o.weight_decay},
                       {"amsgrad", o.amsgrad}}) {
  OCTET_CHECK(
      o.lr >= 0 && o.eps >= 0 && o.weight_decay >= 0 && o.beta1 >= 0 && o.beta1 < 1 &&
          o.beta2 >= 0 && o.beta2 < 1,
      invalid_argument,
      "{}: lr={}, beta1={}, beta2={}, eps={}, weight_decay={}; expected 0 or more, betas below 1",
      name, o.lr, o.beta1, o.beta2, o.eps, o.weight_decay);
  add_param_group({std::move(params), {}});
}
Adam::Adam(std::vector<Tensor> params, const AdamOptions& o) : Adam("Adam", std::move(params), o) {}
AdamW::AdamW(std::vector<Tensor> params, const AdamOptions& o)
    : Adam("AdamW", std::move(params), o) {
  decoupled_ = true;
}

std::vector<std::string> Adam::state_names(const Options& o) const {
  std::vector<std::string> names{"step", "exp_avg", "exp_avg_sq"};
  if (o.at("amsgrad") != 0) names.push_back("max_exp_avg_sq");
  return names;
}

void Adam::update(Tensor& param, const Tensor& grad, const Options& o, State& state) {
  float& steps = state["step"].data<float>()[0];
  ++steps;
  auto past = [&](const char* name) {
    Tensor& t = state[name];
    if (!t.defined()) t = Tensor::zeros(param.shape());
    return t.data<float>();
  };
  float *m = past("exp_avg"), *v = past("exp_avg_sq"),
        *most = o.at("amsgrad") != 0 ? past("max_exp_avg_sq") : nullptr;
  const double beta1 = o.at("beta1"), beta2 = o.at("beta2"), lr = o.at("lr"),
               weight_decay = o.at("weight_decay");
  const auto b1 = static_cast<float>(beta1), b2 = static_cast<float>(beta2),
             eps = static_cast<float>(o.at("eps"));
  const auto new1 = static_cast<float>(1 - beta1), new2 = static_cast<float>(1 - beta2);
  const auto step_size = static_cast<float>(-lr / (1 - std::pow(beta1, steps)));
  const auto correction = static_cast<float>(std::sqrt(1 - std::pow(beta2, steps)));
  const auto decay = static_cast<float>(weight_decay),
             shrink = static_cast<float>(1 - lr * weight_decay);
  const bool decoupled = decoupled_;
  float* p = param.data<float>();
  const float* g = grad.data<float>();
  for_each(param.numel(), [=](int64_t i) {
    if (decoupled) p[i] *= shrink;
    const float d = !decoupled && decay != 0 ? fma32(g[i], p[i], decay) : g[i];
    m[i] = fma32(m[i] * b1, d, new1);
    v[i] = v[i] * b2 + new2 * d * d;
    float second = v[i];
    if (most) second = most[i] = std::max(most[i], v[i]);
    p[i] += step_size * m[i] / (std::sqrt(second) / correction + eps);
  });
}

double clip_grad_norm(const std::vector<Tensor>& params, double max_norm, double norm_type) {
  OCTET_CHECK(norm_type > 0, invalid_argument, "clip_grad_norm: norm_type={}; expected more than 0",
              norm_type);
  double total = 0;
  for (const Tensor& p : params) {
    Tensor grad = autograd::grad(p);
    if (!grad.defined()) continue;
    for (float v : grad.to(DType::float32).to_vector<float>()) {
      double a = std::abs(static_cast<double>(v));
      if (std::isinf(norm_type))
        total = std::max(total, a);
      else
        total += norm_type == 2 ? a * a : std::pow(a, norm_type);
    }
  }
  double norm = std::isinf(norm_type) ? total : std::pow(total, 1 / norm_type);
  auto scale = static_cast<float>(std::min(1.0, max_norm / (norm + 1e-6)));
  if (scale == 1) return norm;
  for (const Tensor& p : params) {
    Tensor grad = autograd::grad(p);
    if (!grad.defined()) continue;
    Tensor clipped = grad.detach().clone();  // gradients may share memory with others
    float* g = clipped.data<float>();
    for_each(clipped.numel(), [=](int64_t i) { g[i] *= scale; });
    autograd::set_grad(p, clipped);
  }
  return norm;
}

// -- schedules ------------------------------------------------------------------------------------

LRScheduler::LRScheduler(Optimizer& optimizer) : optimizer_(optimizer) {
  for (const ParamGroup& g : optimizer.param_groups()) base_.push_back(g.options.at("lr"));
}

void LRScheduler::set(ParamGroup& group, size_t index, int64_t epoch) {
  group.options["lr"] = lr(base_[index], epoch, index);
}

void LRScheduler::apply() {
  OCTET_CHECK(
      optimizer_.param_groups().size() == base_.size(), invalid_argument,
      "the schedule was made for {} groups of parameters, and there are {} now: add groups first",
      base_.size(), optimizer_.param_groups().size());
  for (size_t i = 0; i < base_.size(); ++i) set(optimizer_.param_groups()[i], i, epoch_);
}

void LRScheduler::step() {
  ++epoch_;
  apply();
}

std::vector<double> LRScheduler::get_last_lr() const {
  std::vector<double> rates;
  for (const ParamGroup& g : optimizer_.param_groups()) rates.push_back(g.options.at("lr"));
  return rates;
}

void LRScheduler::load_state_dict(const std::map<std::string, Tensor>& state) {
  auto it = state.find("last_epoch");
  OCTET_CHECK(it != state.end() && it->second.numel() == 1 && it->second.item() >= 0,
              invalid_argument, "the schedule's state dict has no 'last_epoch'");
  epoch_ = static_cast<int64_t>(it->second.item());
  apply();
}

StepLR::StepLR(Optimizer& optimizer, int64_t step_size, double gamma)
    : LRScheduler(optimizer), step_size_(step_size), gamma_(gamma) {
  OCTET_CHECK(step_size >= 1, invalid_argument, "StepLR: step_size={}; expected 1 or more",
              step_size);
  start();
}
double StepLR::lr(double base, int64_t epoch, size_t) const {
  const int64_t steps = epoch / step_size_;
  return base * std::pow(gamma_, static_cast<double>(steps));
}

MultiStepLR::MultiStepLR(Optimizer& optimizer, std::vector<int64_t> milestones, double gamma)
    : LRScheduler(optimizer), milestones_(std::move(milestones)), gamma_(gamma) {
  start();
}
double MultiStepLR::lr(double base, int64_t epoch, size_t) const {
  auto passed =
      std::count_if(milestones_.begin(), milestones_.end(), [&](int64_t m) { return m <= epoch; });
  return base * std::pow(gamma_, static_cast<double>(passed));
}

CosineAnnealingLR::CosineAnnealingLR(Optimizer& optimizer, int64_t T_max, double eta_min)
    : LRScheduler(optimizer), T_max_(T_max), eta_min_(eta_min) {
  OCTET_CHECK(T_max >= 1, invalid_argument, "CosineAnnealingLR: T_max={}; expected 1 or more",
              T_max);
  start();
}
double CosineAnnealingLR::lr(double base, int64_t epoch, size_t) const {
  double part = static_cast<double>(epoch) / static_cast<double>(T_max_);
  return eta_min_ + (base - eta_min_) * (1 + std::cos(std::numbers::pi * part)) / 2;
}

LinearLR::LinearLR(Optimizer& optimizer, double start_factor, double end_factor,
                   int64_t total_iters)
    : LRScheduler(optimizer), start_(start_factor), end_(end_factor), total_(total_iters) {
  OCTET_CHECK(start_factor > 0 && start_factor <= 1 && end_factor >= 0 && end_factor <= 1 &&
                  total_iters >= 1,
              invalid_argument,
              "LinearLR: start_factor={}, end_factor={}, total_iters={}; expected factors from 0 "
              "to 1 (not to start with 0), and 1 "
              "step or more",
              start_factor, end_factor, total_iters);
  start();
}
double LinearLR::lr(double base, int64_t epoch, size_t) const {
  double part = static_cast<double>(std::min(epoch, total_)) / static_cast<double>(total_);
  return base * (start_ + (end_ - start_) * part);
}

LambdaLR::LambdaLR(Optimizer& optimizer, std::function<double(int64_t)> factor)
    : LRScheduler(optimizer), factor_(std::move(factor)) {
  start();
}

OneCycleLR::OneCycleLR(Optimizer& optimizer, const OneCycleOptions& options)
    : LRScheduler(optimizer), options_(options) {
  OCTET_CHECK(options.total_steps >= 1 && options.pct_start >= 0 && options.pct_start <= 1,
              invalid_argument,
              "OneCycleLR: total_steps={}, pct_start={}; expected 1 or more, and 0 to 1",
              options.total_steps, options.pct_start);
  start();
}

double OneCycleLR::at(int64_t epoch, double first, double top, double last) const {
  OCTET_CHECK(epoch <= options_.total_steps, invalid_argument, "OneCycleLR: step {} of {}", epoch,
              options_.total_steps);
  auto anneal = [&](double from, double to, double part) {
    return options_.linear ? (to - from) * part + from
                           : to + (from - to) / 2 * (1 + std::cos(std::numbers::pi * part));
  };
  double peak = options_.pct_start * static_cast<double>(options_.total_steps) - 1;
  double end = static_cast<double>(options_.total_steps) - 1, now = static_cast<double>(epoch);
  if (now <= peak) return anneal(first, top, now / peak);
  return anneal(top, last, (now - peak) / (end - peak));
}

double OneCycleLR::lr(double, int64_t epoch, size_t) const {
  double first = options_.max_lr / options_.div_factor;
  return at(epoch, first, options_.max_lr, first / options_.final_div_factor);
}

void OneCycleLR::set(ParamGroup& group, size_t index, int64_t epoch) {
  LRScheduler::set(group, index, epoch);
  if (!options_.cycle_momentum) return;
  const char* name = group.options.count("momentum") ? "momentum" : "beta1";
  group.options[name] =
      at(epoch, options_.max_momentum, options_.base_momentum, options_.max_momentum);
}

}  // namespace octet::nn::optim
