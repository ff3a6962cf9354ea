#include "octet/quant/observe/fake_quantize.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "octet/autograd/autograd.h"
#include "octet/base/check_impl.h"
#include "octet/nn/registry.h"
#include "octet/ops/op.h"
#include "octet/quant/observe/histogram.h"
#include "octet/quant/observe/passive.h"
#include "octet/tensor/affine.h"

namespace octet::quant {
namespace {

nn::ModulePtr checked(const ObserverFactory& factory, const std::string& label) {
  ObserverFactory plain = factory.without_fake_quantize();
  OCTET_CHECK(plain.chooses_qparams(), invalid_argument,
              "{}: fake quantization needs an observer that chooses qparams, got {}",
              label.empty() ? "FakeQuantize" : label, to_string(plain));
  CodeRange codes = code_range(plain.options());
  OCTET_CHECK(codes.quant_max - codes.quant_min < (1 << 20), invalid_argument,
              "{}: fake quantization to the codes {}..{}; expected 20 bits at most: give quant_min "
              "and quant_max",
              label.empty() ? "FakeQuantize" : label, codes.quant_min, codes.quant_max);
  ObserverPtr observer = plain.make(label);
  if (auto* histogram = dynamic_cast<HistogramObserver*>(observer.get()))
    histogram->clamp_to_code_range();
  return observer;
}

bool flag(const Tensor& t) { return t.data<uint8_t>()[0] != 0; }

Attrs codes_of(const ObserverOptions& options) {
  CodeRange codes = code_range(options);
  return {{"quant_min", codes.quant_min}, {"quant_max", codes.quant_max}};
}

template <typename T>
bool register_as() {
  nn::register_module(typeid(T), [](const Attrs& config) -> nn::ModulePtr {
    Attrs options = config;
    for (const char* name : {"observer", "label", "use_grad_scaling", "channels"})
      options.erase(name);
    ObserverFactory observer(config.get_string("observer"), options_from(options));
    std::string label = config.has("label") ? config.get_string("label") : "";
    if constexpr (std::is_same_v<T, LearnableFakeQuantize>)
      return nn::make<T>(observer, label, config.get_bool("use_grad_scaling"),
                         config.get_int("channels"));
    else
      return nn::make<T>(observer, label);
  });
  return true;
}
[[maybe_unused]] const bool g_fake_quantize_registered =
    register_as<FakeQuantize>() && register_as<FixedQParamsFakeQuantize>() &&
    register_as<FusedMovingAvgObsFakeQuantize>() && register_as<LearnableFakeQuantize>();

}  // namespace

// -- what all share -------------------------------------------------------------------------------
FakeQuantizeBase::FakeQuantizeBase(const ObserverFactory& observer, const std::string& label)
    : activation_post_process(slot("activation_post_process", checked(observer, label))) {}

void FakeQuantizeBase::enable_fake_quant(bool enabled) {
  fake_quant_enabled.data<uint8_t>()[0] = enabled;
}
void FakeQuantizeBase::enable_observer(bool enabled) {
  observer_enabled.data<uint8_t>()[0] = enabled;
}
bool FakeQuantizeBase::is_fake_quant_enabled() const { return flag(fake_quant_enabled); }
bool FakeQuantizeBase::is_observer_enabled() const { return flag(observer_enabled); }

std::string FakeQuantizeBase::title() const {
  const std::string& label = observer().label();
  return label.empty() ? type_name() : fmt::format("{} of '{}'", type_name(), label);
}

void FakeQuantizeBase::fail_not_calibrated() const {
  OCTET_FAIL(not_calibrated,
             "{} has no scale yet: run data through it with the observer enabled "
             "(enable_observer), or load a state dict",
             title());
}

QParams FakeQuantizeBase::calculate_qparams() const {
  Tensor scale = current_scale(), zero_point = current_zero_point();
  if (scale.numel() == 0) fail_not_calibrated();
  QParams q = make_qparams(scale.to(DType::float64).to_vector<double>(),
                           zero_point.to(DType::float64).to_vector<double>(), options());
  if (!observer().empty()) q.warnings = observer().calculate_qparams().warnings;
  return q;
}

std::string FakeQuantizeBase::extra_repr() const {
  const ObserverOptions& o = options();
  CodeRange codes = code_range(o);
  Tensor scale = current_scale();
  std::string qparams = "scale=None";
  if (scale.numel() > 0) qparams = octet::to_string(*calculate_qparams().quantizer);
  return fmt::format(
      "fake_quant_enabled={}, observer_enabled={}, quant_min={}, quant_max={}, dtype={}, "
      "qscheme={}, {}",
      is_fake_quant_enabled() ? 1 : 0, is_observer_enabled() ? 1 : 0, codes.quant_min,
      codes.quant_max, octet::to_string(o.dtype), to_string(o.qscheme), qparams);
}

Attrs FakeQuantizeBase::config() const {
  Attrs a = observer().config();
  a.set("observer", observer().type_name());
  return a;
}

// -- FakeQuantize ---------------------------------------------------------------------------------
void FakeQuantize::set(const std::vector<double>& scales, const std::vector<double>& zero_points) {
  const Shape shape{static_cast<int64_t>(scales.size())};
  scale_ = Tensor::from(scales, shape).to(DType::float32);
  zero_point_ = Tensor::from(zero_points, shape)
                    .to(is_float_qparams(options().qscheme) ? DType::float32 : DType::int32);
}

void FakeQuantize::follow_observer() {
  QParams q = observer().calculate_qparams();
  set(q.scales, q.zero_points);
}

Tensor FakeQuantize::forward(Tensor x) {
  if (x.is_symbolic()) return x;
  if (is_observer_enabled() && x.numel() > 0) {
    observe(x);
    follow_observer();
  }
  if (!is_fake_quant_enabled() || x.numel() == 0) return x;
  if (scale_.numel() == 0) fail_not_calibrated();
  Attrs attrs = codes_of(options());
  if (!is_per_channel())
    return ops::call("fake_quantize_per_tensor", {x, scale_, zero_point_}, attrs);
  return ops::call("fake_quantize_per_channel", {x, scale_, zero_point_},
                   attrs.set("axis", options().ch_axis));
}

std::map<std::string, Tensor> FakeQuantize::extra_state() const {
  return {{"scale", scale_}, {"zero_point", zero_point_}};
}

void FakeQuantize::set_extra_state(const std::map<std::string, Tensor>& state) {
  std::vector<double> scales = state.at("scale").to(DType::float64).to_vector<double>();
  std::vector<double> zero_points = state.at("zero_point").to(DType::float64).to_vector<double>();
  OCTET_CHECK(scales.size() == zero_points.size() && (is_per_channel() || scales.size() <= 1),
              invalid_argument, "{}: the state dict has {} scales and {} zero points; expected {}",
              title(), scales.size(), zero_points.size(),
              is_per_channel() ? "one of each per channel" : "one of each");
  CodeRange codes = code_range(options());
  for (size_t i = 0; i < scales.size(); ++i) {
    double z = zero_points[i];
    bool fits = is_float_qparams(options().qscheme) ? std::isfinite(z)
                                                    : z >= static_cast<double>(codes.quant_min) &&
                                                          z <= static_cast<double>(codes.quant_max);
    OCTET_CHECK(std::isfinite(scales[i]) && scales[i] > 0 && fits, invalid_argument,
                "{}: the state dict has scale {} and zero point {}; expected a positive scale and "
                "a zero point in {}..{}",
                title(), scales[i], z, codes.quant_min, codes.quant_max);
  }
  set(scales, zero_points);
}

FixedQParamsFakeQuantize::FixedQParamsFakeQuantize(const ObserverFactory& observer,
                                                   const std::string& label)
    : FakeQuantize(observer, label) {
  OCTET_CHECK(dynamic_cast<const FixedQParamsObserver*>(&this->observer()), invalid_argument,
              "FixedQParamsFakeQuantize: its observer is {}; expected FixedQParamsObserver",
              observer.name());
  QParams q = this->observer().calculate_qparams();
  set(q.scales, q.zero_points);
}

FusedMovingAvgObsFakeQuantize::FusedMovingAvgObsFakeQuantize(const ObserverFactory& observer,
                                                             const std::string& label)
    : FakeQuantize(observer.fake_quantize("FusedMovingAvgObsFakeQuantize"), label) {}

void FusedMovingAvgObsFakeQuantize::follow_observer() {
  if (is_float_qparams(options().qscheme)) return FakeQuantize::follow_observer();
  const std::vector<float> min = observer().min_val().to_vector<float>(),
                           max = observer().max_val().to_vector<float>();
  const CodeRange codes = code_range(options());
  std::vector<double> scales, zero_points;
  for (size_t c = 0; c < min.size(); ++c) {
    auto [s, z] = affine::choose_qparams_dynamic(
        min[c], max[c], static_cast<int32_t>(codes.quant_min),
        static_cast<int32_t>(codes.quant_max), false, is_symmetric(options().qscheme));
    scales.push_back(s);
    zero_points.push_back(z);
  }
  set(scales, zero_points);
}

// -- LearnableFakeQuantize ------------------------------------------------------------------------
LearnableFakeQuantize::LearnableFakeQuantize(const ObserverFactory& observer,
                                             const std::string& label, bool use_grad_scaling,
                                             int64_t channels)
    : FakeQuantizeBase(observer, label),
      scale(parameter("scale", Tensor::ones({channels}))),
      zero_point(parameter("zero_point", Tensor::zeros({channels}))),
      use_grad_scaling_(use_grad_scaling) {
  OCTET_CHECK(channels >= 1, invalid_argument, "{}: {} channels; expected 1 or more", title(),
              channels);
  OCTET_CHECK(
      !is_float_qparams(options().qscheme), unsupported,
      "{}: a learned zero point stands for a code; float qparams have none: use FakeQuantize",
      title());
}

void LearnableFakeQuantize::set_channels(int64_t channels) {
  if (scale.numel() == channels) return;
  const bool learned = autograd::requires_grad(scale);
  scale = Tensor::full({channels}, scale.data<float>()[0]);
  zero_point = Tensor::full({channels}, zero_point.data<float>()[0]);
  for (const Tensor* t : {static_cast<Tensor*>(&scale), static_cast<Tensor*>(&zero_point)})
    autograd::set_requires_grad(*t, learned);
}

void LearnableFakeQuantize::clamp_scale() const {
  float* s = scale.detach().data<float>();
  for (int64_t i = 0; i < scale.numel(); ++i)
    s[i] = std::max(s[i], static_cast<float>(options().eps));
}

void LearnableFakeQuantize::follow_observer() {
  QParams q = observer().calculate_qparams();
  set_channels(static_cast<int64_t>(q.scales.size()));
  std::copy(q.scales.begin(), q.scales.end(), scale.data<float>());
  std::copy(q.zero_points.begin(), q.zero_points.end(), zero_point.data<float>());
}

Tensor LearnableFakeQuantize::forward(Tensor x) {
  if (x.is_symbolic() || x.numel() == 0) return x;
  if (is_observer_enabled()) {
    observe(x);
    follow_observer();
  } else {
    clamp_scale();
  }
  if (!is_fake_quant_enabled()) return x;
  Attrs attrs = codes_of(options());
  if (is_per_channel()) attrs.set("axis", options().ch_axis);
  if (use_grad_scaling_)
    attrs.set("grad_factor", 1 / std::sqrt(static_cast<double>(x.numel()) *
                                           std::max(attrs.get_double("quant_max"), 1.0)));
  Tensor z = is_symmetric(options().qscheme) ? zero_point.detach() : zero_point;
  return ops::call("fake_quantize_learnable", {x, scale, z}, attrs);
}

Tensor LearnableFakeQuantize::current_scale() const {
  // the initial 1 means nothing
  if (observer().empty() && is_observer_enabled()) return Tensor::zeros({0});
  clamp_scale();
  return scale.detach();
}

Tensor LearnableFakeQuantize::current_zero_point() const {
  std::vector<float> z = zero_point.to_vector<float>();
  CodeRange codes = code_range(options());
  for (float& v : z)
    v = std::clamp(affine::rne(v), static_cast<float>(codes.quant_min),
                   static_cast<float>(codes.quant_max));
  return Tensor::from(z, zero_point.shape()).to(DType::int32);
}

void LearnableFakeQuantize::learn(bool enabled) {
  learning_enabled.data<uint8_t>()[0] = enabled;
  autograd::set_requires_grad(scale, enabled);
  autograd::set_requires_grad(zero_point, enabled);
}

void LearnableFakeQuantize::enable_param_learning() {
  learn(true);
  enable_fake_quant();
  disable_observer();
}

void LearnableFakeQuantize::enable_static_estimate() {
  learn(false);
  enable_fake_quant();
  enable_observer();
}

void LearnableFakeQuantize::enable_static_observation() {
  learn(false);
  disable_fake_quant();
  enable_observer();
}

Attrs LearnableFakeQuantize::config() const {
  return FakeQuantizeBase::config()
      .set("use_grad_scaling", use_grad_scaling_)
      .set("channels", scale.numel());
}

// -- on models ------------------------------------------------------------------------------------
namespace {
template <typename Fn>
void each_fake_quantize(nn::Module& model, Fn fn) {
  for (auto& [name, module] : model.named_modules())
    if (auto* f = dynamic_cast<FakeQuantizeBase*>(module)) fn(*f);
}

// The one of both that it is; calls the function for it.
template <typename OnObserver, typename OnFakeQuantize>
auto visit(const nn::Module& module, OnObserver on_observer, OnFakeQuantize on_fake_quantize) {
  if (auto* o = dynamic_cast<const Observer*>(&module)) return on_observer(*o);
  if (auto* f = dynamic_cast<const FakeQuantizeBase*>(&module)) return on_fake_quantize(*f);
  OCTET_FAIL(invalid_argument, "{}: expected an observer or a fake-quantize module",
             module.type_name());
}
}  // namespace

void enable_fake_quant(nn::Module& model) {
  each_fake_quantize(model, [](FakeQuantizeBase& f) { f.enable_fake_quant(); });
}
void disable_fake_quant(nn::Module& model) {
  each_fake_quantize(model, [](FakeQuantizeBase& f) { f.disable_fake_quant(); });
}
void enable_observer(nn::Module& model) {
  each_fake_quantize(model, [](FakeQuantizeBase& f) { f.enable_observer(); });
}
void disable_observer(nn::Module& model) {
  each_fake_quantize(model, [](FakeQuantizeBase& f) { f.disable_observer(); });
}

bool is_activation_post_process(const nn::Module& module) {
  return dynamic_cast<const Observer*>(&module) || dynamic_cast<const FakeQuantizeBase*>(&module);
}

bool chooses_qparams(const nn::Module& module) {
  return visit(
      module, [](const Observer& o) { return o.chooses_qparams(); },
      [](const FakeQuantizeBase&) { return true; });
}

QParams qparams_of(const nn::Module& module) {
  return visit(
      module, [](const Observer& o) { return o.calculate_qparams(); },
      [](const FakeQuantizeBase& f) { return f.calculate_qparams(); });
}

}  // namespace octet::quant
