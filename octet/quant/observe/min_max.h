#pragma once
// Observers of the least and the greatest value.

#include "octet/quant/observe/observer.h"

namespace octet::quant {

// The running minimum and maximum of all data. Exact: independent of order, batching and threads.
// Per-tensor schemes only (Error).
class MinMaxObserver : public Observer {
 public:
  explicit MinMaxObserver(ObserverOptions options = {}, std::string label = "");
  bool empty() const override { return empty_; }
  QParams calculate_qparams() const override;
  Tensor min_val() const override;
  Tensor max_val() const override;
  void reset() override { empty_ = true; }
  std::map<std::string, Tensor> extra_state() const override;
  void set_extra_state(const std::map<std::string, Tensor>& state) override;

 protected:
  void observe_floats(const Tensor& x) override;
  void merge_same(const Observer& other) override;
  virtual void update(float min, float max);

  bool empty_ = true;
  float min_ = 0, max_ = 0;  // set unless empty_
};

// The moving average of the batches' minima and maxima: the first batch's own, then, in float32,
//  mn = f(mn + f(c * f(cur - mn)))   with c = averaging_constant.
// Depends on the order and the size of batches by its nature. merge() gives what observing this
// one's batches and then other's would, up to float32 rounding.
class MovingAverageMinMaxObserver : public MinMaxObserver {
 public:
  explicit MovingAverageMinMaxObserver(ObserverOptions options = {}, std::string label = "");
  void reset() override;
  std::map<std::string, Tensor> extra_state() const override;
  void set_extra_state(const std::map<std::string, Tensor>& state) override;

 protected:
  void merge_same(const Observer& other) override;
  void update(float min, float max) override;

 private:
  int64_t batches_ = 0;
  float first_min_ = 0, first_max_ = 0;  // of the first batch: what merge() needs
};

// The running minimum and maximum of each slice along ch_axis. Exact, as MinMaxObserver.
// Per-channel schemes only (Error).
class PerChannelMinMaxObserver : public Observer {
 public:
  static ObserverOptions default_options() {
    return {.qscheme = ObserverScheme::per_channel_affine};
  }
  explicit PerChannelMinMaxObserver(ObserverOptions options = default_options(),
                                    std::string label = "");
  bool empty() const override { return min_.empty(); }
  QParams calculate_qparams() const override;
  Tensor min_val() const override;
  Tensor max_val() const override;
  void reset() override;
  std::map<std::string, Tensor> extra_state() const override;
  void set_extra_state(const std::map<std::string, Tensor>& state) override;

 protected:
  // For a class derived from it, which is called `name`.
  PerChannelMinMaxObserver(std::string_view name, ObserverOptions options, std::string label);
  void observe_floats(const Tensor& x) override;
  void merge_same(const Observer& other) override;
  // batch_min_ and batch_max_ of x. Error if it has too few dimensions, another number of channels
  // than before, or values that are not finite.
  void scan(const Tensor& x);
  // min and max of one batch, one per channel.
  virtual void update(const std::vector<float>& min, const std::vector<float>& max);
  void check_channels(size_t channels) const;

  std::vector<float> min_, max_;              // [channels], empty before the first batch
  std::vector<float> batch_min_, batch_max_;  // of the tensor at hand
};

// Per channel what MovingAverageMinMaxObserver is per tensor.
class MovingAveragePerChannelMinMaxObserver : public PerChannelMinMaxObserver {
 public:
  explicit MovingAveragePerChannelMinMaxObserver(ObserverOptions options = default_options(),
                                                 std::string label = "");
  void reset() override;
  std::map<std::string, Tensor> extra_state() const override;
  void set_extra_state(const std::map<std::string, Tensor>& state) override;

 protected:
  void merge_same(const Observer& other) override;
  void update(const std::vector<float>& min, const std::vector<float>& max) override;

 private:
  int64_t batches_ = 0;
  std::vector<float> first_min_, first_max_;
};

}  // namespace octet::quant
