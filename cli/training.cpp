#include "training.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>

#include "octet/autograd/autograd.h"
#include "octet/base/error.h"
#include "octet/base/file.h"
#include "octet/base/progress.h"
#include "octet/io/state_dict.h"
#include "octet/ops/functional.h"

namespace octet::cli {

void TrainOptions::add_to(CLI::App& app, int64_t default_epochs, double default_lr) {
  epochs = default_epochs;
  lr = default_lr;
  app.add_option("MODEL", model, "the float network: .onnx or .octet")->type_name("")->required();
  app.add_option("-o,--output", out, "the result: .octet or .onnx")
      ->type_name("OUT")
      ->required()
      ->check(output_model());
  app.add_option("--data", data,
                 "training samples: an .npz with `images` and `labels`, or a directory of images")
      ->type_name("DATA")
      ->required();
  app.add_option("--validate", validate,
                 "samples to judge by after each epoch (default: the last tenth of DATA)")
      ->type_name("DATA");
  app.add_option("--epochs", epochs, fmt::format("times over the data ({})", epochs))
      ->type_name("N")
      ->check(whole_number(1, 100000));
  app.add_option("--batch", batch, "samples per step (64)")
      ->type_name("N")
      ->check(whole_number(1, 65536));
  app.add_option("--lr", lr, fmt::format("learning rate ({})", lr))
      ->type_name("X")
      ->check(CLI::PositiveNumber.description(""));
  app.add_option("--momentum", momentum, "of sgd (0.9)")
      ->type_name("X")
      ->check(CLI::Range(0.0, 0.9999).description(""));
  app.add_option("--weight-decay", weight_decay, "0.0001")
      ->type_name("X")
      ->check(CLI::NonNegativeNumber.description(""));
  app.add_option("--optimizer", optimizer,
                 "adam (default; steps relative to the size of each weight), adamw, sgd")
      ->type_name("NAME")
      ->check(CLI::IsMember({"adam", "adamw", "sgd"}).description(""));
  app.add_option("--schedule", schedule, "of the learning rate: cosine (default), constant")
      ->type_name("NAME")
      ->check(CLI::IsMember({"cosine", "constant"}).description(""));
  app.add_option("--seed", seed, "of the order of samples (0)")
      ->type_name("N")
      ->check(whole_number(0, 1'000'000'000));
  app.add_flag("--flip", flip, "mirror images at random");
  app.add_option("--crop", crop, "shift images at random by up to so many pixels (0)")
      ->type_name("N")
      ->check(whole_number(0, 1024));
  app.add_flag("--resume", resume, "go on where an interrupted run of the same command stopped");
  app.add_flag("--json", json, "print one JSON object");
  add_force(app, force);
  sampling.add_to(app);
  run.add_to(app);
}

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
  o.shuffle = o.drop_last = true;
  o.seed = static_cast<uint64_t>(options.seed);
  o.augmentation = {options.flip, options.crop};
  return o;
}

}  // namespace

TrainingData::TrainingData(const TrainOptions& options, const graph::Graph& graph,
                           bool needs_labels)
    : graph_(graph),
      train_(options.sampling.open(options.data, graph)),
      valid_(options.validate.empty() ? train_ : options.sampling.open(options.validate, graph)),
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

Score score(const graph::Graph& graph, const TrainingData& data, const graph::Graph* teacher) {
  runtime::Program program = runtime::compile(graph);
  std::optional<runtime::Program> float_program;
  bool labels = data.validation().has_labels();
  if (!labels && teacher) float_program = runtime::compile(*teacher);
  Accuracy accuracy;
  double signal = 0, noise = 0;
  int64_t step = batch_size(data.validation(), 32),
          end = data.validation_begin() + data.validation_size();
  for (int64_t i = data.validation_begin(); i < end; i += step) {
    Batch batch = data.validation().get(i, std::min(step, end - i));
    auto inputs = ordered_inputs(graph, batch);
    Tensor y = program.run(inputs).at(0);
    if (labels) {
      accuracy.add(y, batch.labels);
      continue;
    }
    Tensor expected = float_program->run(inputs).at(0);
    if (expected.dim() == 2 && expected.size(1) > 1)
      accuracy.add(y, functional::argmax(expected, 1));
    auto a = expected.contiguous().to_vector<float>(),
         b = y.dequantize().contiguous().to_vector<float>();
    for (size_t k = 0; k < a.size(); ++k) {
      signal += static_cast<double>(a[k]) * a[k];
      noise += (static_cast<double>(a[k]) - b[k]) * (static_cast<double>(a[k]) - b[k]);
    }
  }
  if (labels) return {"top1", accuracy.top1()};
  if (accuracy.samples) return {"agreement", accuracy.top1()};
  return {"sqnr_db", noise == 0 ? 200 : 10 * std::log10(signal / noise)};
}

// -- the loop -------------------------------------------------------------------------------------

namespace {

std::unique_ptr<nn::optim::Optimizer> make_optimizer(const TrainOptions& o, nn::Module& module) {
  auto parameters = module.parameters();
  if (parameters.empty())
    fail(ErrorCode::invalid_argument,
         fmt::format("{}: the network has no float weights to train", o.model));
  if (o.optimizer == "sgd")
    return std::make_unique<nn::optim::SGD>(
        parameters,
        nn::optim::SGDOptions{.lr = o.lr, .momentum = o.momentum, .weight_decay = o.weight_decay});
  nn::optim::AdamOptions options;
  options.weight_decay = o.optimizer == "adam" ? 0 : o.weight_decay;
  std::unique_ptr<nn::optim::Optimizer> optimizer;
  for (const Tensor& p : parameters) {
    // Imported networks have weights of all sizes (inputs of 0 to 255, folded batch norms): steps
    // are relative to them, as in Adafactor (Shazeer and Stern 2018, section 8).
    double squares = 0;
    for (float v : p.detach().to_vector<float>()) squares += static_cast<double>(v) * v;
    options.lr = o.lr * std::max(1e-3, std::sqrt(squares / static_cast<double>(p.numel())));
    if (optimizer)
      optimizer->add_param_group({{p}, {{"lr", options.lr}}});
    else if (o.optimizer == "adam")
      optimizer = std::make_unique<nn::optim::Adam>(std::vector<Tensor>{p}, options);
    else
      optimizer = std::make_unique<nn::optim::AdamW>(std::vector<Tensor>{p}, options);
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

}  // namespace

TrainResult train(const TrainOptions& options, nn::Module& module, TrainingData& data,
                  const Score& before,
                  const std::function<Tensor(const TrainingData::Sample&)>& loss,
                  const std::function<graph::Graph()>& to_graph,
                  const std::function<Score(const graph::Graph&)>& judge,
                  const std::function<void(int64_t)>& start_epoch) {
  auto start = std::chrono::steady_clock::now();
  auto optimizer = make_optimizer(options, module);
  TrainResult r;
  r.before = before;
  r.best = {before.name, -INFINITY};
  Checkpoint checkpoint{options.checkpoint()};
  int64_t epoch = 0, steps = data.batches() * options.epochs;
  std::vector<double> rates;
  for (auto& group : optimizer->param_groups()) rates.push_back(group.options["lr"]);
  bool exists = std::filesystem::exists(checkpoint.path);
  if (options.resume && !exists)
    fail(ErrorCode::not_found,
         fmt::format("{}: there is no interrupted training to resume: run without --resume",
                     checkpoint.path));
  if (options.resume) epoch = checkpoint.load(module, *optimizer, r);
  double first_loss = -1;
  auto diverged = [&](const std::string& what, int64_t at) {
    std::string kept = r.best_epoch > 0 ? fmt::format("; {} holds the best so far, of epoch {}",
                                                      options.out, r.best_epoch)
                                        : fmt::format("; nothing was written to {}", options.out);
    fail(ErrorCode::invalid_argument,
         fmt::format("training diverged in epoch {}: {}: try a smaller --lr than {}{}", at + 1,
                     what, options.lr, kept));
  };
  for (; epoch < options.epochs; ++epoch) {
    module.train();
    start_epoch(epoch);
    double sum = 0;
    {
      Progress bar(fmt::format("epoch {}/{}", epoch + 1, options.epochs), data.batches());
      int64_t i = 0;
      for (const Batch& batch : data.epoch(epoch)) {
        if (options.schedule == "cosine") {
          double at = static_cast<double>(epoch * data.batches() + i) / static_cast<double>(steps);
          for (size_t g = 0; g < rates.size(); ++g)
            optimizer->param_groups()[g].options["lr"] = rates[g] * (1 + std::cos(M_PI * at)) / 2;
        }
        Tensor l;
        try {
          l = loss(data.sample(batch));
        } catch (const Error& e) {  // an observer that met infinities, say
          if (epoch == 0 && i == 0) throw;
          diverged(e.what(), epoch);
        }
        double value = l.detach().item();
        if (first_loss < 0) first_loss = std::abs(value);
        if (!std::isfinite(value) || std::abs(value) > kDiverged * std::max(1.0, first_loss))
          diverged(fmt::format("the loss became {:.4g} in batch {}", value, i), epoch);
        optimizer->zero_grad();
        autograd::backward(l);
        optimizer->step();
        sum += value;
        ++i;
        bar.advance(1);
      }
    }
    module.eval();
    for (auto& [name, parameter] : module.named_parameters())
      if (!is_finite(*parameter)) diverged(fmt::format("{} is not finite any more", name), epoch);
    graph::Graph now = to_graph();
    Score s = judge(now);
    if (std::isnan(s.value)) diverged(fmt::format("{} became {}", s.name, s.value), epoch);
    bool best = s.value > r.best.value;
    if (best) {
      save_model(now, options.out);
      r.best = s;
      r.best_epoch = epoch + 1;
    }
    checkpoint.save(module, *optimizer, epoch + 1, r);
    say(fmt::format("epoch {}/{}: loss {:.4f}, {} {:.4f}{}", epoch + 1, options.epochs,
                    sum / static_cast<double>(data.batches()), s.name, s.value,
                    best ? " (best so far, saved)" : ""));
  }
  std::filesystem::remove(checkpoint.path);
  r.epochs = options.epochs;
  r.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return r;
}

}  // namespace octet::cli
