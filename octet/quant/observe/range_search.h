#pragma once
// Which range of a histogram to quantize: the one with the least expected squared error.

#include <optional>
#include <span>

#include "octet/quant/observe/histogram.h"

namespace octet::quant {

struct RangeChoice {
  // within the data's range widened to 0 (symmetric: -m, m); pass to choose_qparams
  float min, max;
  double error;  // expected sum of (x - dequantize(quantize(x)))^2 over all values
};

// Expected squared error of quantizing the histogram's values with scale s, zero point z and codes
// lo..hi, taking the density as uniform inside a bin (as NormMinimization of Caffe2 and PyTorch's
// _compute_quantization_error do). The grid is the real one, s*(q - z), clamping included. hi - lo
// < 65536 (Error).
double expected_error(const Histogram& histogram, float scale, int64_t zero_point, int64_t lo,
                      int64_t hi);

// The range whose qparams (choose_qparams with these options) have the least expected_error over
// the codes that the quantizer clamps to (by default running_codes: with reduce_range more than
// those the scale is made for) among those tried: the full range, a coarse grid of ends, then steps
// around the best of them down to a fraction of a bin. Never worse than the full range. With more
// than 4096 codes (qint32, 16 bits) quantizing costs less than the histogram can tell, and the full
// range is returned. Error if the histogram is empty.
RangeChoice search_range(const Histogram& histogram, const ObserverOptions& options,
                         std::optional<CodeRange> codes = {});

// The same with fewer ranges to try: the full range (widened to 0) shrunk to 1/steps, 2/steps, ...
// of itself.
RangeChoice shrink_range(const Histogram& histogram, const ObserverOptions& options,
                         int steps = 100, std::optional<CodeRange> codes = {});

// Of the range of these values (widened to 0) shrunk to steps/steps, ..., 2/steps, 1/steps of
// itself the one whose qparams quantize them with the least squared error (M. Nagel et al., "A
// White Paper on Neural Network Quantization", 2021, section 3.1); of equal ones the widest. With
// more than 4096 codes the full range. {0, 0, 0} if there are no values.
RangeChoice least_error_range(std::span<const float> values, const ObserverOptions& options,
                              int steps = 100);

}  // namespace octet::quant
