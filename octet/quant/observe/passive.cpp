#include "octet/quant/observe/passive.h"

#include <utility>

#include "octet/base/check_impl.h"

namespace octet::quant {
namespace {

ObserverOptions check_fixed(const ObserverOptions& options, const std::string& label) {
  std::string who =
      label.empty() ? "FixedQParamsObserver" : fmt::format("FixedQParamsObserver of '{}'", label);
  OCTET_CHECK(options.scale && options.zero_point, invalid_argument,
              "{}: give scale and zero_point; got ({})", who, to_string(options));
  OCTET_CHECK(!is_per_channel(options.qscheme), invalid_argument,
              "{}: qscheme {}; expected per_tensor_affine or per_tensor_symmetric", who,
              to_string(options.qscheme));
  ObserverOptions rest = options;
  rest.scale = {};
  rest.zero_point = {};
  validate(rest, who);
  CodeRange codes = code_range(options);
  OCTET_CHECK(*options.zero_point >= codes.quant_min && *options.zero_point <= codes.quant_max,
              invalid_argument, "{}: zero_point {}; expected one of the codes {}..{}", who,
              *options.zero_point, codes.quant_min, codes.quant_max);
  // checks the scale
  Quantizer::per_tensor(static_cast<float>(*options.scale), *options.zero_point, options.dtype);
  return options;
}

}  // namespace

FixedQParamsObserver::FixedQParamsObserver(ObserverOptions options, std::string label)
    : Observer(check_fixed(options, label), label) {}

QParams FixedQParamsObserver::calculate_qparams() const {
  return make_qparams({static_cast<float>(*options().scale)},
                      {static_cast<double>(*options().zero_point)}, options());
}

QParams PassiveObserver::calculate_qparams() const { fail_no_qparams(); }

void RecordingObserver::observe(const Tensor& x) {
  OCTET_CHECK(x.defined(), invalid_argument, "{}: given an undefined tensor", title());
  tensors_.push_back(x.detach().clone());
}

QParams RecordingObserver::calculate_qparams() const { fail_no_qparams(); }

std::string RecordingObserver::extra_repr() const {
  return fmt::format("{} tensors", tensors_.size());
}

void RecordingObserver::merge_same(const Observer& other) {
  std::vector<Tensor> more = static_cast<const RecordingObserver&>(other).tensors_;
  tensors_.insert(tensors_.end(), more.begin(), more.end());
}

}  // namespace octet::quant
