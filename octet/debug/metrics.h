#pragma once
// How far one tensor is from another: PyTorch's metrics (torch.ao.ns.fx.utils) and some beyond
// them, of one pair of tensors or streamed over many; and what an error is made of.
//
//   debug::ErrorStatistics error;  // its size does not depend on how much it is shown
//   for (const Tensor& batch : data) error.add(model->forward(batch), int8->forward(batch));
//   std::cout << error.sqnr() << " dB\n";
//
// x is the float tensor, the reference; y the one that is judged. Both have the same number of
// elements, in one order (Error otherwise); their shapes may differ, as those of a float and a
// packed weight do. Quantized tensors are dequantized. Sums are taken in double.

#include <functional>
#include <optional>

#include "octet/quant/observe/histogram.h"
#include "octet/tensor/tensor.h"

namespace octet::debug {

// 10 log10(signal / noise) of two powers or sums of squares, both >= 0: infinite without noise, NaN
// if there is neither.
double decibels(double signal, double noise);

// Sums over all pairs that were added, from which the metrics follow. Elements whose x is not
// finite, as a mask's -infinity, are left out of the sums (PyTorch's metrics are NaN then).
class ErrorStatistics {
 public:
  // Error if the numbers of elements differ, or if a tensor is neither float nor quantized.
  void add(const Tensor& x, const Tensor& y);
  void merge(const ErrorStatistics& other);

  int64_t count() const { return count_; }  // elements seen
  double signal() const { return xx_; }     // sum x^2
  double noise() const { return dd_; }      // sum (x - y)^2
  // Signal to quantization noise, 20 log10(|x| / |x - y|) in dB: infinite without noise, NaN if x
  // is all zeros too.
  double sqnr() const;
  // |x - y| / |x|, >= 0; NaN or infinite if x is all zeros.
  double normalized_l2_error() const;
  // x.y / (|x| |y|) in [-1, 1]; 0 if either is all zeros.
  double cosine_similarity() const;
  double max_abs_error() const { return max_; }  // max |x - y|

 private:
  int64_t count_ = 0;
  double xx_ = 0, yy_ = 0, xy_ = 0, dd_ = 0, max_ = 0;
};

// The Kullback-Leibler divergence of the distribution of y's values from that of x's, in nats:
//  sum over bins of p log(p / q), p = (count of x + 1/2) / (n + bins / 2), q the same of y
// The bins are one grid of a power-of-two width over both ranges, as fine as the wider of two
// histograms of `bins` to 2 * bins + 2 bins; the 1/2 (Jeffreys' prior) keeps empty bins finite.
// Order and batches do not matter. bins: 16..2^20 (Error); below the number of codes, or the
// divergence only tells that there are codes.
class KlDivergence {
 public:
  explicit KlDivergence(int64_t bins = 64) : x_(bins), y_(bins) {}
  // Error if a tensor is neither float nor quantized, or if an element is not finite. x and y need
  // not have the same number of elements.
  void add(const Tensor& x, const Tensor& y);
  void merge(const KlDivergence& other);
  double value() const;  // NaN if nothing was seen

 private:
  quant::Histogram x_, y_;
};

// Of one pair. PyTorch's give None for tensors that are neither float nor quantized (indices, say);
// these give NaN.
double compute_sqnr(const Tensor& x, const Tensor& y);
double compute_normalized_l2_error(const Tensor& x, const Tensor& y);
double compute_cosine_similarity(const Tensor& x, const Tensor& y);
double compute_max_abs_error(const Tensor& x, const Tensor& y);
double compute_kl_divergence(const Tensor& x, const Tensor& y, int64_t bins = 64);

// -- decisions ------------------------------------------------------------------------------------

// How many of a number of decisions are as they should be. Streams: add up.
struct Share {
  int64_t hits = 0, count = 0;
  double value() const;  // hits / count, 0..1; NaN without any
  Share& operator+=(const Share& other);
};

// Of scores along the last dimension, (..., classes), float: at how many places x and y have their
// largest score in the same class (the first of equal ones). Error if the shapes differ, or if
// there is no class.
Share argmax_agreement(const Tensor& x, const Tensor& y);

// Of scores (N, steps, classes), float: for how many of the N samples x and y read the same
// sequence. It is the classes with the largest score, repetitions taken as one and then class
// `blank` left out (A. Graves et al., "Connectionist Temporal Classification", 2006, best path
// decoding). Errors as above.
Share sequence_agreement(const Tensor& x, const Tensor& y, int64_t blank = 0);

// The same sequences, character by character: count is the length of those that x reads, hits that
// less the edits (characters put in, left out or changed: Levenshtein's distance) that make y's of
// them. 1 - value() is the character error rate of y, where x is right; value() may be negative.
Share character_agreement(const Tensor& x, const Tensor& y, int64_t blank = 0);

// The same sequences, word by word: classes `space` end words, of which none is empty, and count
// and hits are numbers of words. 1 - value() is the word error rate of y, where x is right. Error
// too if there is no class `space`.
Share word_agreement(const Tensor& x, const Tensor& y, int64_t space, int64_t blank = 0);

// Of masks, float, of any shape: count elements that x or y has at `threshold` or above, hits those
// that both have there. value() is the intersection over union (IoU, Jaccard's index); NaN if both
// are empty. Error if the shapes differ.
Share mask_overlap(const Tensor& x, const Tensor& y, float threshold = 0.5F);

// Of scores (N, classes), float, and N labels (int64): for how many samples fewer than k classes
// have a larger score than the label's (and of equal ones, a lower number). k >= 1. Error if the
// shapes do not fit, or if a label is no class.
Share top_k(const Tensor& scores, const Tensor& labels, int64_t k = 1);

// -- what an error is made of ---------------------------------------------------------------------

// The squared error of x quantized with `quantizer` to codes of `dtype`, by its cause: for elements
// beyond the values of the least and greatest code, the distance to that value (clipping); for all
// others, that to the nearest code (rounding). Their sum is the whole squared error. Streams: add
// up, or +=.
struct QuantizationError {
  double clipping = 0, rounding = 0;  // sums of squares
  int64_t clipped = 0, count = 0;     // elements
  double total() const { return clipping + rounding; }
  QuantizationError& operator+=(const QuantizationError& other);
};
// x is float32. The codes are quant_min..quant_max, by default all of the dtype. Error unless the
// quantizer fits x.
QuantizationError split_quantization_error(const Tensor& x, const QuantizerPtr& quantizer,
                                           DType dtype, std::optional<int64_t> quant_min = {},
                                           std::optional<int64_t> quant_max = {});

// The squared error of a layer f(x, w) by what was quantized:
//  weights      |f(x, w') - f(x, w)|^2
//  activations  |f(x', w) - f(x, w)|^2
//  total        |f(x', w') - f(x, w)|^2
// The rest, total - weights - activations, is what the two do to each other, and may be negative.
struct OperandError {
  double signal = 0;  // |f(x, w)|^2
  double weights = 0, activations = 0, total = 0;
  double interaction() const { return total - weights - activations; }
  OperandError& operator+=(const OperandError& other);
};
// x and w are float, x_q and w_q what became of them, quantized or dequantized; f is given float
// tensors.
//
//   auto conv = [](const Tensor& x, const Tensor& w) { return functional::conv2d(x, w); };
//   debug::OperandError e = debug::split_operand_error(conv, x, x_q, weight, weight_q);
OperandError split_operand_error(
    const std::function<Tensor(const Tensor& x, const Tensor& w)>& layer, const Tensor& x,
    const Tensor& x_q, const Tensor& w, const Tensor& w_q);

// The squared error of a layer within a network, as power: own is what the layer does to the float
// network's input; inherited = total - own is what came with its input. (Negative where the layer's
// own error cancels some of that.)
struct LayerError {
  double signal = 0;  // of the float network's result
  double own = 0, total = 0;
  double inherited() const { return total - own; }
  double own_sqnr() const;    // in dB, as ErrorStatistics::sqnr
  double total_sqnr() const;  // in dB
  LayerError& operator+=(const LayerError& other);
};
// expected: the result in the float network; alone: the quantized layer's on the float network's
// input; within: its result in the quantized network.
LayerError split_layer_error(const Tensor& expected, const Tensor& alone, const Tensor& within);

}  // namespace octet::debug
