#pragma once
// What `octet train` and `octet qat` share: options, the loop over epochs, and keeping the best
// result on disk.

#include <functional>
#include <memory>
#include <string>

#include "cli/common.h"
#include "octet/graph/graph_module.h"
#include "octet/io/data_loader.h"
#include "octet/nn/optim.h"

namespace octet::cli {

struct TrainOptions {
  std::string model, out, data, validate, optimizer = "adam", schedule = "cosine";
  int64_t epochs = 5, batch = 64, seed = 0, patience = 0;
  int64_t chunks = 0;  // 0: one for each rank
  double lr = 0, momentum = 0.9, weight_decay = 1e-4;
  bool flip = false, resume = false, json = false, force = false;
  int64_t crop = 0, cutout = 0;
  DataOptions sampling;
  ShapeOptions shape;
  RunOptions run;
  void add_to(Command& command, int64_t epochs, double lr);
  int64_t chunks_in_use() const;
  // What --resume reads, beside the result.
  std::string checkpoint() const { return out + ".train"; }
  // check_output of both.
  void check_outputs() const;
};

// Samples for training, and for validation: those of --validate, or the last tenth of the data.
class TrainingData {
 public:
  TrainingData(const TrainOptions& options, const graph::Graph& graph, bool needs_labels);
  struct Sample {
    std::vector<Tensor> inputs;  // in the graph's order
    Tensor labels;               // undefined without
  };
  // The chunks of an epoch's batches, one batch after the other, shuffled by --seed and its number.
  DataLoader& epoch(int64_t number);
  Sample sample(const Batch& batch) const { return {ordered_inputs(graph_, batch), batch.labels}; }
  int64_t size() const { return loader_.samples(); }
  int64_t batches() const { return loader_.size() / chunks_; }
  const Dataset& validation() const { return valid_; }
  int64_t validation_begin() const { return valid_begin_; }
  int64_t validation_size() const { return valid_count_; }

 private:
  const graph::Graph& graph_;
  Dataset train_, valid_;
  int64_t valid_begin_ = 0, valid_count_ = 0, chunks_;
  DataLoader loader_;
};

// One number that says how good a graph is (higher is better), and its name.
struct Score {
  std::string name;
  double value = 0;
  // The network says the same of every sample, though it should not: it has learned to ignore its
  // input.
  bool dead = false;
};
// Top-1 on the validation samples, or, without labels, minus the mean squared difference to the
// float graph's results.
Score score(const graph::Graph& graph, const TrainingData& data, const graph::Graph* teacher);

// What one run did.
struct TrainResult {
  Score before, best;
  int64_t best_epoch = 0, epochs = 0;
  double seconds = 0;
};

// Trains `module` for the options' epochs. `loss` gives the loss of one batch; `to_graph` the graph
// to be judged and saved after an epoch. The best graph so far is always at options.out; OUT.train
// holds what --resume needs. Ends early after --patience epochs without a better one. Error, with
// nothing at options.out, if training diverges before there is one, or if all are dead.
TrainResult train(
    const TrainOptions& options, nn::Module& module, TrainingData& data, const Score& before,
    const std::function<Tensor(const TrainingData::Sample&)>& loss,
    const std::function<graph::Graph()>& to_graph,
    const std::function<Score(const graph::Graph&)>& judge,
    const std::function<void(int64_t epoch)>& start_epoch = [](int64_t) {});

}  // namespace octet::cli
