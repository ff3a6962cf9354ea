#pragma once
// The best quantization of a network, found by trial (docs/accuracy.md): from what costs nothing
// when the network runs (ranges, then the steps of recipe_steps()) to what does (layers left
// float), each kept if it helps on samples that it did not see.
//
//   quant::TuneData data{.fit = calibration, .judge = held_out};
//   quant::TuneResult best = quant::tune(graph, data);
//   std::cout << best.best().name << ": " << best.best().score << "\n";

#include <cmath>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "octet/quant/tune/recipe.h"

namespace octet::quant {

struct TuneData {
  Batches fit;    // what ranges and steps are made with; small batches where memory is short
  Batches judge;  // what trials are judged by
  int64_t without_every = 0;  // of `fit`: Recipe::Samples
  // `fit` and `judge` together, in the order of the data set: what the best is made of once more
  // at the end. None: it stays as it was judged.
  std::function<Batches()> all = {};
};

// Judges a network by its results on the judging batches; higher is better. Called for the float
// network (`got` is `expected` then) and for each trial.
struct TuneMetric {
  std::string name;
  std::function<double(const Batches& expected, const Batches& got)> score;
};
// By name, without labels: "cosine" (of all float outputs), "sqnr" (in dB), "agreement" (largest
// scores of the first output along its last dimension: debug::argmax_agreement), "sequence"
// (debug::sequence_agreement), "characters" (debug::character_agreement), "words"
// (words_metric(-1)), "iou" (of the first output as a mask: the mean of debug::mask_overlap over
// samples); of detectors with scores (N, boxes, categories) and corners (N, boxes, 4), with the
// float network's detections as the truth: "detections" (those that both find, over those that one
// does) and "map" (debug::mean_average_precision). Error for other names.
TuneMetric tune_metric(std::string_view name);
// debug::word_agreement of the first output, with that class between words; -1: the last class.
TuneMetric words_metric(int64_t space);
std::vector<std::string> tune_metric_names();
// Top-k of the first output; a tensor of labels for each judging batch.
TuneMetric top_k_metric(int64_t k, std::vector<Tensor> labels);
// Less the perplexity, exp of the mean of -log softmax(scores) at the label, of the first output,
// scores (..., classes); an int64 tensor of labels (...) for each judging batch, of which those
// that are -100 do not count. Errors of functional::cross_entropy.
TuneMetric perplexity_metric(std::vector<Tensor> labels);

struct TuneTrial {
  std::string name;    // "calibrated", "ranges", "ranges, gptq", "ranges, 4 layers float"
  double score = 0;    // of the metric
  double cost = 0;     // TuneOptions::cost
  double size = 0;     // TuneOptions::size
  double seconds = 0;  // that making and judging it took
  // By the tuner: layers in float, and those with results of 16 bits.
  std::vector<std::string> left_float = {}, in_16_bits = {};
  bool above = false;  // the bar, within slowest, max_cost and max_size
};

struct TuneResult {
  double float_score = 0, bar = 0;
  std::vector<TuneTrial> trials;  // in the order in which they were made
  size_t best_index = 0;
  std::vector<std::string> notes;  // steps that could not be tried, and why
  Recipe recipe;                   // of the best
  graph::Graph graph;              // which it makes
  const TuneTrial& best() const { return trials.at(best_index); }
  // The trials that no other one beats in score and cost both, the fastest first: what can be had
  // for which time.
  std::vector<size_t> pareto() const;
};

// Processes that tune together: each calls tune() with the same arguments and gets the same result,
// but for the network, which the first one alone has. It alone keeps the state and is told of
// trials. Times and costs are measured by one process and sent to all, so that all take the same
// decisions.
class TuneTeam {
 public:
  virtual ~TuneTeam() = default;
  virtual bool is_first() const = 0;
  // Each of job(0) .. job(n - 1) is done by one of them. What they gave, everywhere.
  virtual std::vector<std::string> share(size_t n,
                                         const std::function<std::string(size_t)>& job) = 0;
  // The first one's text, everywhere.
  virtual std::string broadcast(const std::string& text) = 0;
  // A quantized network as text, and back.
  virtual std::string bytes_of(const graph::Graph& graph) = 0;
  virtual graph::Graph graph_of(const std::string& bytes) = 0;
};

struct TuneOptions {
  TuneMetric metric = tune_metric("cosine");
  // The bar: a score that is enough; or, where that is NaN, the float network's score less
  // max_drop times its magnitude. (SQNR, which is infinite for the float network, needs a target.)
  double target = NAN;
  double max_drop = 0.005;
  double minutes = 10;  // no trial begins later; those of work that goes on count too
  // No network is tried that is expected to cost more than this times the one with all in 8 bits;
  // one with layers of 16 bits or in float that turns out to cost more is not chosen.
  double slowest = 1.25;
  int64_t most_distillation = 800;  // iterations; fewer than 50: no network is distilled
  // Budgets that a network has to keep to be good enough: the most that it may cost, as a number
  // that `cost` gives (NaN: that of all in 8 bits times `slowest`), and the most bytes. Where all
  // in 8 bits has more, layers get weights of 4 bits, those that make the least noise for the bytes
  // that they free; Error invalid_argument where that is not enough.
  double max_cost = NAN;
  double max_size = INFINITY;
  // Bytes of a network; by default those of its constants, codes of 4 bits two to a byte.
  std::function<double(const graph::Graph&)> size = {};
  // What a network costs when it runs, above 0; by default its time for one judging batch divided
  // by the float network's, measured in turns. It decides between trials above the bar.
  std::function<double(const graph::Graph&)> cost = {};
  // With what all layers start; without a global entry that is get_default_qconfig(). An observer
  // of activations that is not the default one is the only one that is tried.
  QConfigMapping mapping = {};
  std::vector<std::string> skip = {};  // layers that stay float in all trials
  std::string backend = "native";
  // A directory for the work: a recipe for each trial (NNN.json) and state.json, written atomically
  // after each. With `resume`, what it holds is not done again, and the result is the same as if
  // the work had not been cut off: all decisions are made from what is on disk. Error if it is of
  // another network, other samples or options. "": none.
  std::filesystem::path state = {};
  bool resume = false;
  TuneTeam* team = nullptr;  // those that share the work; none: this process is alone
  std::function<void(const TuneTrial&)> on_trial = {};  // after each
  // When a trial is the best so far, and at the end: what is to be kept.
  std::function<void(const graph::Graph&, const Recipe&)> on_best = {};
};

// The ladder, until a trial is above the bar or the time is up, then 7:
//  0. with max_size: layers of 4 bits, as above, in all trials
//  1. ranges: percentiles for all values; then by the noise at the outputs (choose_ranges)
//  2. each step of recipe_steps() (is_tried), added to the best so far if that scores higher
//  3. where weights have fewer than 8 bits, by the mapping for all or by max_size: rounding learned
//     layer by layer (adaround), then block by block (brecq) with 100 and 400 iterations, the
//     second while there is twice the time that it should take
//  4. of the best so far, layers with results of 16 bits or in float, by the noise that this takes
//     away (debug::sensitivity, its estimate) and what it costs, measured, within the budget: 1,
//     2, 4, ... of greedy_changes, then fewer again while the bar holds; then choose_changes, and
//     some exchanges of one of these for one that was not chosen, kept if the score is higher
//  5. what doctor() prescribes for the best without steps, alone and with biases corrected
//  6. the best so far trained to give the float network's outputs (distill), for 50, 200 and 800
//     iterations (most_distillation), while there is twice the time that this should take, or
//     three times with TuneData::all
//  7. where TuneData::all is there, the best once more, made of all samples (not what doctor()
//     prescribed); the time that this takes is kept for it. Its score and cost are those of
//     the trial that it repeats, as it has seen all samples; it is the result unless it scores
//     less than that trial, and than the bar, on those that judge
// Best is the trial with the least cost above the bar (of equal ones, within 2%, the higher score);
// while there is none, the one with the highest score of those within the budgets. Errors:
// invalid_argument without samples; those of prepare_fx; internal if no trial could be made.
TuneResult tune(const graph::Graph& graph, const TuneData& data, const TuneOptions& options = {});

}  // namespace octet::quant
