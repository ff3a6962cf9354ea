#include "cli/training.h"

#include "cli/chunks.h"
#include "cli/team.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "octet/autograd/autograd.h"
#include "octet/base/error.h"
#include "octet/base/file.h"
#include "octet/base/progress.h"
#include "octet/debug/metrics.h"
#include "octet/io/state_dict.h"
#include "octet/ops/functional.h"
#include "octet/quant/observe/fake_quantize.h"

namespace octet::cli {

void TrainOptions::add_to(Command& command, int64_t default_epochs, double default_lr) {
  epochs = default_epochs;
  lr = default_lr;
  command.add_option("MODEL", model, "the float network: .onnx or .octet").type_name("").required();
  command.add_option("-o,--output", out, "the result: .octet or .onnx")
      .type_name("OUT")
      .required()
      .check(output_model());
  command
      .add_option("--data", data,
                  "training samples: an .npz with `images` and `labels`, or a directory of images")
      .type_name("DATA")
      .required();
  command
      .add_option("--validate", validate,
                  "samples to judge by after each epoch (default: the last tenth of DATA)")
      .type_name("DATA");
  command.add_option("--epochs", epochs, fmt::format("times over the data ({})", epochs))
      .type_name("N")
      .check(whole_number(1, 100000));
  command
      .add_option("--patience", patience,
                  "stop after so many epochs that were not better than the best (0: never)")
      .type_name("N")
      .check(whole_number(0, 100000));
  command.add_option("--batch", batch, "samples per step (64)")
      .type_name("N")
      .check(whole_number(1, 65536));
  command
      .add_option("--chunks", chunks,
                  "parts of a batch that ranks of mpirun share (one for each rank)\n"
                  "the same number gives the same bits on any number of ranks")
      .type_name("N")
      .check(whole_number(1, 65536));
  command.add_option("--lr", lr, fmt::format("learning rate ({})", lr))
      .type_name("X")
      .check(positive_number());
  command.add_option("--momentum", momentum, "of sgd (0.9)")
      .type_name("X")
      .check(number_in(0, 0.9999));
  command.add_option("--weight-decay", weight_decay, "0.0001")
      .type_name("X")
      .check(non_negative_number());
  command
      .add_option("--optimizer", optimizer,
                  "adam (default; steps relative to the size of each weight), adamw, sgd")
      .type_name("NAME")
      .check(one_of({"adam", "adamw", "sgd"}));
  command.add_option("--schedule", schedule, "of the learning rate: cosine (default), constant")
      .type_name("NAME")
      .check(one_of({"cosine", "constant"}));
  command.add_option("--seed", seed, "of the order of samples (0)")
      .type_name("N")
      .check(whole_number(0, 1'000'000'000));
  command.add_flag("--flip", flip, "mirror images at random");
  command.add_option("--crop", crop, "shift images at random by up to so many pixels (0)")
      .type_name("N")
      .check(whole_number(0, 1024));
  command.add_option("--cutout", cutout, "blacken a square of that side at random in images (0)")
      .type_name("N")
      .check(whole_number(0, 1024));
  command.add_flag("--resume", resume,
                   "go on where an interrupted run of the same command stopped");
  command.add_flag("--json", json, "print one JSON object");
  add_force(command, force);
  sampling.add_to(command);
  shape.add_to(command);
  run.add_to(command);
}

int64_t TrainOptions::chunks_in_use() const { return chunks > 0 ? chunks : team().size(); }

void TrainOptions::check_outputs() const {
  const std::vector<std::filesystem::path> inputs{model, data, validate};
  check_output(OutputKind::model, out, inputs, force);
  check_output(OutputKind::model, checkpoint(), inputs, force);
}

// -- data -----------------------------------------------------------------------------------------

namespace {

// Where the training samples end and the validation samples begin.
int64_t training_samples(const TrainOptions& options, const Dataset& data) {
  int64_t all = options.sampling.count(data),
          held_back = options.validate.empty() ? std::max<int64_t>(1, all / 10) : 0;
  if (all - held_back < 1)
    fail(ErrorCode::invalid_argument,
         fmt::format("{}: {} samples; training needs at least 2, or --validate DATA", options.data,
                     all));
  return all - held_back;
}

LoaderOptions loader_options(const TrainOptions& options, const Dataset& data) {
  LoaderOptions o;
  o.samples = training_samples(options, data);
  o.batch_size = data.fixed_batch() > 0 ? data.fixed_batch() : std::min(options.batch, o.samples);
  const int64_t chunks = options.chunks_in_use();
  if (o.batch_size % chunks != 0 || (chunks > 1 && data.fixed_batch() > 0))
    wrong_usage(
        fmt::format("batches of {} samples do not fall into {} chunks of equal size: choose "
                    "another --batch or --chunks",
                    o.batch_size, chunks));
  o.batch_size /= chunks;
  o.shuffle = o.drop_last = true;
  o.seed = static_cast<uint64_t>(options.seed);
  o.augmentation = {options.flip, options.crop, options.cutout};
  return o;
}

}  // namespace

TrainingData::TrainingData(const TrainOptions& options, const graph::Graph& graph,
                           bool needs_labels)
    : graph_(graph),
      train_(options.sampling.open(options.data, graph)),
      valid_(options.validate.empty() ? train_ : options.sampling.open(options.validate, graph)),
      chunks_(options.chunks_in_use()),
      loader_(train_, loader_options(options, train_)) {
  if (needs_labels && !train_.has_labels())
    fail(ErrorCode::not_found,
         fmt::format("{}: training needs `labels` (N integers) beside `images`", options.data));
  check_labels(train_, graph, options.sampling.count(train_));
  if (!options.validate.empty()) check_labels(valid_, graph, valid_.size());
  valid_begin_ = options.validate.empty() ? loader_.samples() : 0;
  valid_count_ =
      options.validate.empty() ? options.sampling.count(train_) - loader_.samples() : valid_.size();
}

DataLoader& TrainingData::epoch(int64_t number) {
  loader_.set_epoch(number);
  return loader_;
}

// -- judging --------------------------------------------------------------------------------------

namespace {
// Whether all results that were added are the same one.
class Constancy {
 public:
  // y: (samples, ...).
  void add(const Tensor& y) {
    const Tensor rows = y.detach().to(DType::float32).contiguous();
    for (int64_t n = 0; n < rows.size(0); ++n, ++samples_) {
      const std::vector<float> row = rows.slice(0, n, n + 1).to_vector<float>();
      if (first_.empty()) first_ = row;
      same_ = same_ && row == first_;
    }
  }
  bool is_constant() const { return samples_ > 1 && same_; }

 private:
  std::vector<float> first_;
  bool same_ = true;
  int64_t samples_ = 0;
};
}  // namespace

Score score(const graph::Graph& graph, const TrainingData& data, const graph::Graph* teacher) {
  runtime::Program program = runtime::compile(graph);
  std::optional<runtime::Program> float_program;
  bool labels = data.validation().has_labels();
  if (!labels && teacher) float_program = runtime::compile(*teacher);
  Accuracy accuracy;
  debug::ErrorStatistics error;
  Constancy constancy;
  std::set<int64_t> said, wanted;  // classes
  int64_t step = batch_size(data.validation(), 32),
          end = data.validation_begin() + data.validation_size();
  for (int64_t i = data.validation_begin(); i < end; i += step) {
    Batch batch = data.validation().get(i, std::min(step, end - i));
    auto inputs = ordered_inputs(graph, batch);
    Tensor y = program.run(inputs).at(0);
    if (y.dim() > 0) constancy.add(y);
    Tensor expected = labels ? Tensor() : float_program->run(inputs).at(0), right = batch.labels;
    if (!labels && expected.dim() == 2 && expected.size(1) > 1)
      right = functional::argmax(expected, 1);
    if (right.defined()) {
      accuracy.add(y, right);
      const auto classes = functional::argmax(y, 1).to_vector<int64_t>(),
                 rights = right.to_vector<int64_t>();
      said.insert(classes.begin(), classes.end());
      wanted.insert(rights.begin(), rights.end());
    }
    if (!labels) error.add(expected, y);
  }
  constexpr int64_t kEnough = 20;  // samples among which one class alone is no accident
  const bool dead = constancy.is_constant() ||
                    (accuracy.samples >= kEnough && said.size() == 1 && wanted.size() > 1);
  if (accuracy.samples) return {labels ? "top1" : "agreement", accuracy.top1(), dead};
  return {"sqnr_db", error.noise() == 0 ? 200 : error.sqnr(), dead};
}

// -- the loop -------------------------------------------------------------------------------------

namespace {

double root_mean_square(const Tensor& t) {
  double squares = 0;
  for (float v : t.detach().to_vector<float>()) squares += static_cast<double>(v) * v;
  return std::sqrt(squares / static_cast<double>(t.numel()));
}

// Beside what a step of each parameter is small: imported networks have weights of all sizes
// (inputs of 0 to 255, folded batch norms), and so have scales. Steps are relative to it, as in
// Adafactor (Shazeer and Stern 2018, section 8). Those of learned scales and zero points are a
// tenth of that: with whole steps scales of weights shrank from epoch to epoch and the loss of
// ResNet-8 with weights of 2 bits rose from the third on. Weights that go back and forth between
// two codes would do that (M. Nagel et al., "Overcoming Oscillations in Quantization-Aware
// Training", 2022).
std::vector<nn::optim::ParamGroup> by_size(nn::Module& module) {
  constexpr double kOfLearned = 0.1;
  std::map<const void*, double> learned;  // of fake quantization: no weights that decay
  for (const auto& [path, m] : module.named_modules())
    if (const auto* f = dynamic_cast<const quant::LearnableFakeQuantize*>(m)) {
      const quant::CodeRange codes = quant::code_range(f->options());
      learned[f->scale.id()] = kOfLearned * root_mean_square(f->scale);
      learned[f->zero_point.id()] =
          kOfLearned * static_cast<double>(codes.quant_max - codes.quant_min);
    }
  std::vector<nn::optim::ParamGroup> groups;
  for (const Tensor& p : module.parameters()) {
    if (!autograd::requires_grad(p)) continue;
    if (const auto it = learned.find(p.id()); it != learned.end())
      groups.push_back({{p}, {{"lr", it->second}, {"weight_decay", 0}}});
    else
      groups.push_back({{p}, {{"lr", std::max(1e-3, root_mean_square(p))}}});
  }
  return groups;
}

std::unique_ptr<nn::optim::Optimizer> make_optimizer(const TrainOptions& o, nn::Module& module) {
  auto groups = by_size(module);
  if (groups.empty())
    fail(ErrorCode::invalid_argument,
         fmt::format("{}: the network has no float weights to train", o.model));
  std::unique_ptr<nn::optim::Optimizer> optimizer;
  nn::optim::AdamWOptions options;
  options.lr = o.lr;
  options.weight_decay = o.optimizer == "adam" ? 0 : o.weight_decay;
  if (o.optimizer == "sgd")
    optimizer = std::make_unique<nn::optim::SGD>(
        std::vector<Tensor>{},
        nn::optim::SGDOptions{.lr = o.lr, .momentum = o.momentum, .weight_decay = o.weight_decay});
  else if (o.optimizer == "adam")
    optimizer = std::make_unique<nn::optim::Adam>(std::vector<Tensor>{}, options);
  else
    optimizer = std::make_unique<nn::optim::AdamW>(std::vector<Tensor>{}, options);
  for (nn::optim::ParamGroup& group : groups) {
    if (o.optimizer == "sgd")
      group.options.erase("lr");
    else
      group.options["lr"] *= o.lr;
    optimizer->add_param_group(std::move(group));
  }
  return optimizer;
}

// What --resume reads: the module, the optimizer, and where the run stood.
struct Checkpoint {
  std::string path;
  void save(nn::Module& module, const nn::optim::Optimizer& optimizer, int64_t epoch,
            const TrainResult& r) const {
    std::map<std::string, Tensor> all;
    for (auto& [name, t] : module.state_dict()) all["model." + name] = t.detach().contiguous();
    for (auto& [name, t] : optimizer.state_dict()) all["optimizer." + name] = t.contiguous();
    all["epoch"] = Tensor::scalar(static_cast<double>(epoch), DType::int64);
    all["best"] = Tensor::from<double>({r.best.value, static_cast<double>(r.best_epoch)});
    save_state_dict(path, all);
  }
  int64_t load(nn::Module& module, nn::optim::Optimizer& optimizer, TrainResult& r) const {
    auto all = load_state_dict(path);
    std::map<std::string, Tensor> parts[2];
    for (auto& [name, t] : all) {
      if (name.rfind("model.", 0) == 0) parts[0][name.substr(6)] = t;
      if (name.rfind("optimizer.", 0) == 0) parts[1][name.substr(10)] = t;
    }
    if (!all.count("epoch") || !all.count("best"))
      fail(ErrorCode::corrupt, path + ": is no checkpoint of a training");
    module.load_state_dict(parts[0]);
    optimizer.load_state_dict(parts[1]);
    r.best.value = all.at("best").at({0});
    r.best_epoch = static_cast<int64_t>(all.at("best").at({1}));
    return static_cast<int64_t>(all.at("epoch").item());
  }
};

// A loss so many times the first one (or 1, if that was smaller) will not come back.
constexpr double kDiverged = 1e4;

bool is_finite(const Tensor& t) {
  for (float v : t.detach().to(DType::float32).to_vector<float>())
    if (!std::isfinite(v)) return false;
  return true;
}

using LossFn = std::function<Tensor(const TrainingData::Sample&)>;

// A run of train: the optimizer, and what the run has come to.
class Training {
 public:
  Training(const TrainOptions& options, nn::Module& module, TrainingData& data, const Score& before,
           const LossFn& loss)
      : options_(options),
        module_(module),
        data_(data),
        loss_(loss),
        chunks_(module, options.chunks_in_use(), team()),
        optimizer_(make_optimizer(options, module)),
        checkpoint_{options.checkpoint()} {
    result.before = before;
    result.best = {before.name, -INFINITY};
    for (auto& group : optimizer_->param_groups()) rates_.push_back(group.options["lr"]);
  }

  TrainResult result;

  // The epoch to begin with: 0, or with --resume the one that the checkpoint stands before.
  int64_t first_epoch() {
    if (!options_.resume) return 0;
    if (!std::filesystem::exists(checkpoint_.path))
      fail(ErrorCode::not_found,
           fmt::format("{}: there is no interrupted training to resume: run without --resume",
                       checkpoint_.path));
    return checkpoint_.load(module_, *optimizer_, result);
  }

  // A step for every batch. The mean loss; Error if the training diverges.
  double run_epoch(int64_t epoch) {
    Progress bar(fmt::format("epoch {}/{}", epoch + 1, options_.epochs), data_.batches());
    double sum = 0;
    int64_t i = 0;
    for (auto chunk = data_.epoch(epoch).begin(); i < data_.batches(); ++i) {
      if (options_.schedule == "cosine") set_rates(epoch * data_.batches() + i);
      sum += step(chunk, epoch, i);
      bar.advance(1);
    }
    return sum / static_cast<double>(data_.batches());
  }

  void check_parameters(int64_t epoch) const {
    for (auto& [name, parameter] : module_.named_parameters())
      if (!is_finite(*parameter)) diverged(fmt::format("{} is not finite any more", name), epoch);
  }

  // Saves the graph if it is the best so far, and the checkpoint. Was it the best?
  bool keep(const graph::Graph& graph, const Score& score, int64_t epoch) {
    if (std::isnan(score.value))
      diverged(fmt::format("{} became {}", score.name, score.value), epoch);
    const bool best = !score.dead && score.value > result.best.value;
    if (best) {
      if (team().is_first()) save_model(graph, options_.out);
      result.best = score;
      result.best_epoch = epoch + 1;
    }
    if (team().is_first()) checkpoint_.save(module_, *optimizer_, epoch + 1, result);
    return best;
  }

  // Has it not become better for --patience epochs?
  bool is_stale(int64_t epoch) const {
    return options_.patience > 0 && epoch + 1 - result.best_epoch >= options_.patience;
  }

  void check_result(const Score& last) const {
    if (result.best_epoch > 0) return;
    fail(ErrorCode::invalid_argument,
         fmt::format("training made a dead network: after every epoch its result ({} {:.4f}; the "
                     "float network has {:.4f}) no longer depends on its input; try a smaller "
                     "--lr than {}, or more bits; nothing was written to {}",
                     last.name, last.value, result.before.value, options_.lr, options_.out));
  }

  void remove_checkpoint() const {
    if (team().is_first()) std::filesystem::remove(checkpoint_.path);
  }

 private:
  // The learning rates of a step, along half a cosine.
  void set_rates(int64_t step) {
    const double at =
        static_cast<double>(step) / static_cast<double>(data_.batches() * options_.epochs);
    for (size_t g = 0; g < rates_.size(); ++g)
      optimizer_->param_groups()[g].options["lr"] = rates_[g] * (1 + std::cos(M_PI * at)) / 2;
  }

  // One step of the optimizer, for the batch that begins with `chunk`, which is moved behind it.
  // The loss before the step.
  double step(DataLoader::Iterator& chunk, int64_t epoch, int64_t number) {
    optimizer_->zero_grad();
    double value = 0;
    if (const int64_t chunks = options_.chunks_in_use(); chunks == 1) {
      value = pass(*chunk, 1, epoch, number);
      ++chunk;
    } else {
      chunks_.begin();
      for (int64_t c = 0; c < chunks; ++c, ++chunk) {
        if (!chunks_.is_mine(c)) continue;
        chunks_.begin_chunk();
        chunks_.end_chunk(pass(*chunk, 1.0 / static_cast<double>(chunks), epoch, number));
      }
      value = chunks_.finish();
    }
    if (first_loss_ < 0) first_loss_ = std::abs(value);
    if (!std::isfinite(value) || std::abs(value) > kDiverged * std::max(1.0, first_loss_))
      diverged(fmt::format("the loss became {:.4g} in batch {}", value, number), epoch);
    optimizer_->step();
    return value;
  }

  // Forward and backward of `share` times the loss, which is returned.
  double pass(const Batch& batch, double share, int64_t epoch, int64_t number) {
    Tensor l;
    try {
      l = loss_(data_.sample(batch));
    } catch (const Error& e) {  // an observer that met infinities, say
      if (epoch == 0 && number == 0) throw;
      diverged(e.what(), epoch);
    }
    if (share != 1) l = functional::mul(l, Tensor::scalar(static_cast<float>(share)));
    const double value = l.detach().item();
    // All chunks take part in the sums over ranks, also those whose loss is not finite.
    if (share != 1 || std::isfinite(value)) autograd::backward(l);
    return value;
  }

  [[noreturn]] void diverged(const std::string& what, int64_t epoch) const {
    std::string kept = result.best_epoch > 0
                           ? fmt::format("; {} holds the best so far, of epoch {}", options_.out,
                                         result.best_epoch)
                           : fmt::format("; nothing was written to {}", options_.out);
    fail(ErrorCode::invalid_argument,
         fmt::format("training diverged in epoch {}: {}: try a smaller --lr than {}{}", epoch + 1,
                     what, options_.lr, kept));
  }

  const TrainOptions& options_;
  nn::Module& module_;
  TrainingData& data_;
  const LossFn& loss_;
  ChunkedStep chunks_;
  std::unique_ptr<nn::optim::Optimizer> optimizer_;
  Checkpoint checkpoint_;
  std::vector<double> rates_;  // of the optimizer's groups, at the start
  double first_loss_ = -1;     // negative: none yet
};

// The first rank judges; all get its score.
Score judged(const std::function<Score(const graph::Graph&)>& judge, const graph::Graph& graph) {
  if (team().size() == 1) return judge(graph);
  Score s;
  std::string text(sizeof s.value + 1, 0);
  if (team().is_first()) {
    s = judge(graph);
    std::memcpy(text.data(), &s.value, sizeof s.value);
    text.back() = s.dead ? 1 : 0;
    text += s.name;
  }
  text = team().broadcast(text);
  std::memcpy(&s.value, text.data(), sizeof s.value);
  s.dead = text[sizeof s.value] != 0;
  s.name = text.substr(sizeof s.value + 1);
  return s;
}

}  // namespace

TrainResult train(const TrainOptions& options, nn::Module& module, TrainingData& data,
                  const Score& before,
                  const std::function<Tensor(const TrainingData::Sample&)>& loss,
                  const std::function<graph::Graph()>& to_graph,
                  const std::function<Score(const graph::Graph&)>& judge,
                  const std::function<void(int64_t)>& start_epoch) {
  auto start = std::chrono::steady_clock::now();
  Training training(options, module, data, before, loss);
  int64_t epoch = training.first_epoch();
  Score last;
  for (; epoch < options.epochs; ++epoch) {
    module.train();
    start_epoch(epoch);
    const double mean_loss = training.run_epoch(epoch);
    module.eval();
    training.check_parameters(epoch);
    const graph::Graph now = to_graph();
    last = judged(judge, now);
    const bool best = training.keep(now, last, epoch);
    say(fmt::format("epoch {}/{}: loss {:.4f}, {} {:.4f}{}", epoch + 1, options.epochs, mean_loss,
                    last.name, last.value,
                    best        ? " (best so far, saved)"
                    : last.dead ? " (dead: the same for every sample)"
                                : ""));
    if (training.is_stale(epoch)) {
      say(fmt::format("stopped: no better than epoch {} for {} epochs", training.result.best_epoch,
                      options.patience));
      ++epoch;
      break;
    }
  }
  training.remove_checkpoint();
  training.check_result(last);
  TrainResult result = training.result;
  result.epochs = epoch;
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace octet::cli
