#pragma once
// What ModelReport's detectors know of a tensor:
// torch.ao.quantization.fx._model_report.model_report_observer.

#include <vector>

#include "octet/quant/observe/observer.h"

namespace octet::quant {

// Statistics of the batches that pass, for the tensor and for each channel along options.ch_axis;
// they take a few numbers per channel, however much data passes. It chooses no qparams, so a model
// that holds it is converted as if it did not.
class ModelReportObserver : public Observer {
 public:
  // PyTorch's arguments ch_axis = 1 and comp_percentile = 0.9 are these options; `percentile` is in
  // percent, within [0, 100].
  static ObserverOptions default_options() { return {.ch_axis = 1, .percentile = 90}; }
  explicit ModelReportObserver(ObserverOptions options = default_options(), std::string label = "");

  bool empty() const override { return batches_ == 0; }
  bool chooses_qparams() const override { return false; }
  QParams calculate_qparams() const override;  // Error unsupported
  void reset() override;
  std::string extra_repr() const override;
  std::map<std::string, Tensor> extra_state() const override;
  void set_extra_state(const std::map<std::string, Tensor>& state) override;

  // -- of the tensor ------------------------------------------------------------------------------
  int64_t num_batches_tracked() const { return batches_; }
  // mean of the batches' max - min
  double average_batch_activation_range() const { return average_range_; }
  // +inf and -inf before the first batch
  float epoch_activation_min() const { return epoch_min_; }
  float epoch_activation_max() const { return epoch_max_; }
  // average_batch_activation_range / (epoch_activation_max - epoch_activation_min): 1 if all
  // batches have the range of the whole data. Of data that never changes it is 1, too (PyTorch: an
  // error). Error not_calibrated if there was none.
  double get_batch_to_epoch_ratio() const;

  // -- of each channel ----------------------------------------------------------------------------
  Tensor min_val() const override;  // (channels)
  Tensor max_val() const override;
  // Mean over the batches of max / percentile, where the percentile of n values is number
  // floor(percentile * (n - 1)) of the sorted ones. A percentile of 0 below another max counts as a
  // ratio of 3.4e38; batches in which both are 0 do not count.
  const std::vector<double>& average_percentile_ratio() const { return ratio_; }
  // the batches that count
  const std::vector<int64_t>& percentile_batches_tracked() const { return ratio_batches_; }
  const std::vector<int64_t>& constant_channels() const {
    return constant_;
  }  // the batches in which all values are one

 protected:
  void observe_floats(const Tensor& x) override;
  void merge_same(const Observer& other) override;

 private:
  void check_channels(size_t channels) const;

  int64_t batches_ = 0;
  double average_range_ = 0;
  float epoch_min_, epoch_max_;
  std::vector<float> min_, max_;  // [channels], all of them, empty before the first batch
  std::vector<double> ratio_;
  std::vector<int64_t> ratio_batches_, constant_;
};

}  // namespace octet::quant
