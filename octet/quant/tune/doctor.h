#pragma once
// From "accuracy dropped" to a cause and a cure that was tried (docs/doctor.md).
//
//   quant::DoctorReport r = quant::doctor(float_graph, int8_graph, samples);
//   for (const quant::DoctorFinding& f : r.findings)
//     std::cout << f.layer << ": " << f.sentence << "\n";
//   std::cout << r.recipe.to_json();  // what octet quantize --recipe reads
//
// Causes are read from debug::compare's figures; a cure is a change of the recipe that makes the
// quantized network, and its gain is that of the network that the changed recipe really makes.

#include <cmath>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "octet/quant/tune/recipe.h"

namespace octet::quant {

enum class Cause {
  outlier_channel,     // one channel of a weight makes one channel of the result so much larger
  clipped_tail,        // the range of a value is too small: its tail is cut off
  stretched_range,     // one sample, of these or of those that calibrated, stretched a range
  dead_channel,        // a channel says something in float and nothing in 8 bits
  unlike_operands,     // branches of unlike range share one scale in a cat
  per_tensor_weights,  // channels of unlike size share one scale
  saturating_target,   // fine in exact arithmetic, not where pairs of products saturate at 16 bits
  fixed_range,         // values of a softmax, sigmoid or tanh fill little of the fixed range
  few_samples,         // many ranges are too small: calibration saw too little
  preprocessing,       // the data are scaled or shifted otherwise than those of before
  weights,             // the weights are other codes than quantizing the float ones gives
  rounding,            // no layer is wrong by itself
};
inline constexpr int kCauses = 12;
const char* to_string(Cause cause);  // "outlier channel"

// Scores are the SQNR of the float outputs in dB: of several outputs that of their
// mean noise-to-signal ratio, and a softmax at the end is left out. NaN: not measured.
struct DoctorCure {
  std::string what;    // "per-channel weights"
  double score = NAN;  // with it, and with what was kept before
  std::string failed;  // why the network could not be made
};

struct DoctorFinding {
  Cause cause = Cause::rounding;
  std::string layer;              // its name; "" where it is none's
  std::string sentence;           // what is wrong, with figures
  double suspected = 0;           // gain in dB, by which findings are ordered
  double before = NAN;            // the score without it. Of a saturating target, that target's.
  std::vector<DoctorCure> cures;  // as tried, the cheapest first
  int best = -1;                  // of cures: the cheapest within 1 dB of the highest score
  bool kept = false;              // it gains enough and is part of the recipe
  double after() const { return best < 0 ? NAN : cures[static_cast<size_t>(best)].score; }
  double gain() const { return after() - before; }
};

// How the samples have to be changed: (x * scale - mean) / std, by channel (dimension 1) or for
// all. What octet's --scale, --mean and --std do.
struct DataChange {
  std::string what;  // "divided by 255"
  double scale = 1;
  std::vector<double> mean = {0}, std = {1};
};

struct DoctorReport {
  double before = NAN, after = NAN;  // scores: of the network that was given; with what was kept
  // Top-1, 0..1; NaN without labels.
  double float_top1 = NAN, before_top1 = NAN, after_top1 = NAN;
  double float_top1_after = NAN;        // on changed data; else float_top1
  std::vector<DoctorFinding> findings;  // those kept first, each in the order of their trials
  std::optional<DataChange> data;       // set if that is the cure, or a part of it
  bool cured = false;                   // whether anything was kept
  Recipe recipe;                        // of the cured network, or of one like the given
  graph::Graph graph;                   // the cured network; the given one if nothing was kept
  std::vector<std::string> notes;       // what could not be looked at, or is to be known
};

struct DoctorOptions {
  double seconds = 120;     // no trial begins later
  double least_gain = 0.5;  // in dB: a cure with less is not kept
  // n: each n-th sample takes no part in fitting ranges, and scores are taken on these alone (where
  // the network fixes the batch, each batch that ends with one). 0: all samples do both.
  int64_t hold_out = 0;
  // The network is to run where pairs of products saturate at 16 bits: what helps there is kept,
  // though it costs a little elsewhere. Else it is only told.
  bool saturating = false;
  std::function<void(const std::string& what)> progress = {};  // before each step
};

// `samples`: batches of inputs in the graphs' order, all in memory. Causes are looked for in all of
// them; DoctorOptions::hold_out says which fit ranges and which judge. `labels`: of each batch,
// int64 (size), or none. The recipe is that of `quantized` where its metadata hold one; else it is
// read off its scales and weights. Errors: those of debug::compare (networks that do not belong
// together); invalid_argument without samples; unsupported where no value is codes.
DoctorReport doctor(const graph::Graph& float_graph, const graph::Graph& quantized,
                    const Batches& samples, const std::vector<Tensor>& labels = {},
                    const DoctorOptions& options = {});

// The samples so changed. Error unless each input is float32.
Batches changed(const Batches& samples, const DataChange& change);

}  // namespace octet::quant
