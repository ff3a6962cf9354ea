#pragma once
// Observers beyond PyTorch's that keep HistogramObserver's histogram and choose the range by other
// rules. All of them are per tensor, exactly mergeable, and independent of order, batching and
// threads, as the histogram is.

#include "octet/quant/observe/histogram.h"

namespace octet::quant {

// The range that loses the least information: among clipped ranges, the one with the smallest
// Kullback-Leibler divergence of the quantized distribution from the true one (S. Migacz, "8-bit
// Inference with TensorRT", GTC 2017).
//
// Candidates are T = L, L+1, ... bins, where bins lie `bins` to 2*bins over max |x| (options.bins:
// 2048). Symmetric schemes take the distribution of |x| over [0, T] with L = (codes + 1) / 2 levels
// (128 for int8); affine ones that of x over [-T, T] within [min, max], with all codes as levels. P
// is the histogram of the window with what lies beyond added to its end bins; Q is the window
// without that, its counts summed by level and spread over the level's bins that are not empty.
// Where Q is 0 and P is not, the divergence is infinite. Zeros, which are exact at any scale and
// after a ReLU outnumber everything, count no more than their neighbours (as in NVIDIA's own
// calibrators). Of equal divergences the widest range wins; without enough bins for L levels it is
// the full range.
Range entropy_range(const Histogram& histogram, const ObserverOptions& options);

// The range that holds options.percentile percent of the values. Symmetric: [-T, T], T the
// percentile of |x| (H. Wu et al., "Integer Quantization for Deep Learning Inference", 2020,
// section 5.2). Affine: half of the rest is cut off at each end. Linear inside a bin; 100 gives the
// full range.
Range percentile_range(const Histogram& histogram, const ObserverOptions& options);

// The range with the least expected squared error among the full one (widened to 0) shrunk in 100
// equal steps (M. Nagel et al., "A White Paper on Neural Network Quantization", 2021, section 3.1:
// MSE range setting by grid search). HistogramObserver's search moves both ends by themselves and
// is never worse.
Range mse_range(const Histogram& histogram, const ObserverOptions& options,
                std::optional<CodeRange> codes = {});

// The observers that choose so. Options, errors and cost as HistogramObserver's.
class EntropyObserver : public HistogramObserver {
 public:
  explicit EntropyObserver(ObserverOptions options = {}, std::string label = "")
      : HistogramObserver("EntropyObserver", options, label) {}

 protected:
  Range choose_range() const override { return entropy_range(histogram(), options()); }
};

class PercentileObserver : public HistogramObserver {
 public:
  explicit PercentileObserver(ObserverOptions options = {}, std::string label = "")
      : HistogramObserver("PercentileObserver", options, label) {}

 protected:
  Range choose_range() const override { return percentile_range(histogram(), options()); }
};

class MSEObserver : public HistogramObserver {
 public:
  explicit MSEObserver(ObserverOptions options = {}, std::string label = "")
      : HistogramObserver("MSEObserver", options, label) {}

 protected:
  Range choose_range() const override { return mse_range(histogram(), options(), codes()); }
};

}  // namespace octet::quant
