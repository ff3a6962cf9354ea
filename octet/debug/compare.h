#pragma once
// A float graph and what became of it in 8 bits, compared layer by layer over samples: how large
// each layer's error is, what causes it, what it costs the output, and what is wrong, in words.
//
//   debug::Samples images{.count = 512, .batch = 32, .get = [](int64_t begin, int64_t size) {
//                           return debug::SampleBatch{{x.slice(0, begin, begin + size)}};
//                         }};
//   debug::Comparison c = debug::compare(float_graph, int8_graph, images);
//   for (size_t i : c.ranking)
//     std::cout << c.layers[i].name << ": " << c.layers[i].sentence << "\n";
//
// Values of the two graphs are matched by their names, else (an ONNX file that another tool wrote)
// by operator and operands from the inputs on. Both graphs run as one program, on batches: memory
// does not depend on the number of samples.

#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "octet/graph/graph.h"

namespace octet::debug {

struct SampleBatch {
  std::vector<Tensor> inputs;  // in the graph's order; dimension 0 counts the samples
  Tensor labels = {};          // int64 (size); undefined if there are none
};
struct Samples {
  int64_t count = 0, batch = 32;  // both >= 1
  // Samples [begin, begin + size); may be called twice for the first ones.
  std::function<SampleBatch(int64_t begin, int64_t size)> get;
};

// What is wrong with a layer. All but left_float cost accuracy; that costs speed.
enum class Fault {
  none,                // its error is that of rounding to 8 bits
  scale_too_large,     // few of the codes are used
  outlier,             // few values, far from all others, stretch the range
  clipped,             // the range is too small: values beyond it are cut off
  unlike_scales,       // operands of a cat whose ranges are too different for one scale
  per_tensor_weights,  // one scale for channels of unlike size
  dead_channel,        // a channel that says something in float and nothing in 8 bits
  left_float,          // a layer with weights, or a matmul, that computes in float among others
};
inline constexpr int kFaults = 8;
const char* to_string(Fault fault);  // "scale too large"

// The range of a value after so many samples.
struct RangeAfter {
  int64_t samples = 0;
  float min = 0, max = 0;
};

struct ChannelError {
  int64_t channel = 0;
  double sqnr = 0;         // of the result, within the quantized network; dB
  double weight_sqnr = 0;  // NaN if it has no quantized weight
};

// Something that was tried on the quantized graph, and the SQNR of the first output then (without a
// softmax at the end).
struct Trial {
  std::string what;      // "observer percentile", "per-channel weights", "leave float"
  double sqnr = 0;       // dB
  double gain = 0;       // dB more than without it
  double speedup = NAN;  // so many times as fast as without it; NaN if that was not measured
};

// Of a call of the float graph (of further results of a call one each, named "split:1" and so on,
// if they are no indices), or of an input that is quantized. In dB unless said otherwise; NaN
// where there is nothing to compare, infinite where there is no error.
struct LayerComparison {
  std::string name;        // the call's scope, or its result's name
  std::string value;       // the float graph's value
  std::string op;          // "input" for inputs
  std::string shape;       // of the value
  bool matched = false;    // has a counterpart in the quantized graph; else nothing below is known
  bool quantized = false;  // computes on codes
  std::string note;        // why it stayed float, if the graph says, and what excuses its qparams
  std::vector<int> operands;  // the layers whose values it reads

  double sqnr = 0;            // within the quantized network
  double own_sqnr = 0;        // of the layer alone, fed the float network's values
  double inherited_sqnr = 0;  // of the rest of its error; infinite where there is none
  double max_error = 0;       // |x - y|, in the value's unit
  double cosine = 0;
  double activation_sqnr = 0;    // of rounding and clipping the float result to its codes
  double weight_sqnr = 0;        // of the weight itself
  double weight_error_sqnr = 0;  // of the result where only the weight is quantized (few samples)

  // Of a result on codes, per tensor; scale is 0 without.
  double scale = 0;
  int64_t zero_point = 0, quant_min = 0, quant_max = 0;
  bool own_scale = false;     // the layer has qparams of its own, not its operand's
  bool fixed_scale = false;   // of a sigmoid, softmax, tanh: those of its operator's bounded range
  int64_t codes_used = 0;     // that at least one value rounds to
  double clipped = 0;         // share of the values beyond the codes, 0..1
  double clipping_share = 0;  // of the rounding and clipping error: that of clipping, 0..1
  // Values by the code that they would have were there codes for all: [i] counts code quant_min -
  // 128 + i, the first and last also all beyond. 512 of them, or none.
  std::vector<uint64_t> histogram;

  float min = 0, max = 0;                // of the float values
  std::vector<RangeAfter> calibration;   // after 1, 2, 4 ... samples, and all
  int64_t stretched_by = -1;             // the sample that holds the largest magnitude
  std::vector<float> largest;            // magnitudes of the samples, the largest first, up to 8
  std::vector<int64_t> largest_samples;  // theirs

  std::vector<ChannelError> worst_channels;  // up to 8, the worst first
  // The channel of the float result with the largest magnitude (-1: it has no channels), and so
  // many times that of the median channel it is; infinite where that is 0.
  int64_t widest_channel = -1;
  double widest_ratio = 1;
  std::vector<int64_t> dead_channels;  // up to 64
  bool per_channel_weights = false;

  // The share of the first output's noise that the layer's weights and rounding make: 0..1, over
  // few samples; NaN where it was not measured. A softmax at the end is left out.
  double noise_share = 0;
  // The first output's SQNR were only this layer quantized (few samples).
  double alone_sqnr = 0;
  double time_share = 0;  // of the quantized program's time; NaN if not known

  Fault fault = Fault::none;
  bool of_weight = false;     // the fault is that of the weight's scale, not of the result's
  std::string sentence;       // what is wrong and what to do; "" for Fault::none
  std::vector<Trial> trials;  // the best first
};

struct OutputComparison {
  std::string name;
  double sqnr = 0, max_error = 0, cosine = 0;
};

struct Comparison {
  int64_t samples = 0;
  std::vector<LayerComparison> layers;  // in the float graph's order
  // All matched layers: those with a fault of accuracy by what they cost the output, then those
  // left float by their time, then the others by what they cost the output.
  std::vector<size_t> ranking;
  std::vector<OutputComparison> outputs;
  bool has_top1 = false;
  double float_top1 = 0, quantized_top1 = 0;  // 0..1
  double agreement = 0;       // share of samples with the same first class (2-d outputs), else NaN
  std::vector<Trial> trials;  // of all layers together; the best first
  int64_t unmatched = 0;      // calls of the float graph without a counterpart

  // What the caller knows (the command line measures them); 0: not known.
  double float_ms = 0, quantized_ms = 0;                       // one sample
  int64_t float_bytes = 0, quantized_bytes = 0;                // of weights
  int64_t float_memory_bytes = 0, quantized_memory_bytes = 0;  // of activations, planned
};

// For processes that compare together: each sees some of the batches, and the first one, which has
// what all have seen in the end, goes on from there.
struct SharedSamples {
  std::function<int64_t()> next;  // the number of the next batch that nobody has taken: 0, 1, ...
  // Brings what the processes have together: `own()` is what this one hands on, `merge` adds what
  // another one has.
  std::function<void(const std::function<std::string()>& own,
                     const std::function<void(const std::string& theirs)>& merge)>
      reduce;
  bool is_first = true;  // this process; what the others are given back says nothing
};

struct CompareOptions {
  // Layers whose cost to the output is measured (each in a run of its own), and on how many
  // samples: the first ones. The worst are taken. 0: none.
  int64_t probe_layers = 24, probe_samples = 4;
  // No further layers are measured after that, and fewer samples where all would take longer.
  // INFINITY: all of them.
  double probe_seconds = 5;
  // After each batch, with how many samples it was.
  std::function<void(int64_t)> progress = {};
  const SharedSamples* shared = nullptr;  // none: this process sees all samples
};

// Error if the graphs differ in their inputs (shapes, number) or outputs (number), or if nothing
// matches; and whatever running them gives.
Comparison compare(const graph::Graph& float_graph, const graph::Graph& quantized,
                   const Samples& samples, const CompareOptions& options = {});

// Orders `ranking` anew, after time_share has been filled in.
void rank(Comparison& comparison);

struct AdviceOptions {
  int64_t layers = 5;    // the worst ones
  int64_t samples = 32;  // the first ones, on which the gain is measured
  double seconds = 10;   // nothing further is tried after that
};
// Tries for the worst layers what may help: other observers, scales per channel, leaving float, or
// quantizing what was left float; adds what was found to their trials, and what other observers do
// for all layers to the comparison's. The graphs and samples are those of compare().
void advise(Comparison& comparison, const graph::Graph& float_graph, const graph::Graph& quantized,
            const Samples& samples, const AdviceOptions& options = {});

}  // namespace octet::debug
