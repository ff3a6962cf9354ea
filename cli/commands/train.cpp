// octet train MODEL --data DATA -o OUT
#include <fmt/format.h>

#include <memory>

#include "cli/training.h"
#include "octet/base/error.h"
#include "octet/base/random.h"
#include "octet/graph/passes/fold_batch_norm.h"
#include "octet/graph/passes/fuse.h"
#include "octet/io/onnx/import.h"
#include "octet/nn/init.h"
#include "octet/nn/loss.h"

namespace octet::cli {
namespace {

// Weights drawn anew (Kaiming normal), biases zero, batch norms neutral: training from scratch.
void initialise(graph::GraphModule& module, int64_t seed) {
  manual_seed(static_cast<uint64_t>(seed));
  auto set = [&](const std::string& name, Tensor& t) {
    bool spread = name.ends_with("running_var"),
         scale = t.dim() == 1 && name.find("weight") != std::string::npos;
    if (t.dim() >= 2)
      t.copy_from(nn::init::kaiming_normal(t.shape(), t.numel() / t.size(0)));
    else
      t.copy_from(Tensor::full(t.shape(), spread || scale ? 1 : 0));
  };
  for (auto& [name, t] : module.named_parameters()) set(name, *t);
  for (auto& [name, t] : module.named_buffers()) set(name, *t);
}

// Batch norms as they are in the file, not folded: training needs their statistics.
graph::Graph load_for_training(const std::string& path, const graph::InputShapes& shapes) {
  if (!path.ends_with(".onnx")) return load_model(path, shapes);
  io::OnnxImportOptions options;
  options.fold_batch_norm = false;
  options.shapes = shapes;
  return io::import_onnx(path, options);
}

void run(const TrainOptions& o, bool from_scratch, double label_smoothing) {
  o.run.apply();
  o.check_outputs();
  graph::Graph source = load_for_training(o.model, o.shape.shapes());
  if (count_nodes(source).quantized)
    fail(ErrorCode::invalid_argument,
         fmt::format("{}: is quantized; `octet train` trains float networks, `octet qat` makes "
                     "8-bit ones of them",
                     o.model));
  TrainingData data(o, source, true);
  auto module = nn::make<graph::GraphModule>(graph::without_final_softmax(source));
  if (from_scratch && !o.resume) initialise(*module, o.seed);
  auto judge = [&](const graph::Graph& g) { return score(g, data, nullptr); };
  Score before = judge(module->with_values(source));
  TrainResult r = train(
      o, *module, data, before,
      [&](const TrainingData::Sample& s) {
        return functional::cross_entropy(module->forward(s.inputs).at(0), s.labels,
                                         {.label_smoothing = label_smoothing});
      },
      [&] { return graph::fuse_activations(graph::fold_batch_norm(module->with_values(source))); },
      judge);
  if (o.json) {
    print_json(JsonValue::object({{"output", o.out},
                                  {"before", r.before.value},
                                  {"top1", r.best.value},
                                  {"best_epoch", r.best_epoch},
                                  {"epochs", r.epochs},
                                  {"samples", data.size()},
                                  {"validation_samples", data.validation_size()},
                                  {"seconds", r.seconds},
                                  {"peak_rss_mb", peak_rss_mb()}}));
    return;
  }
  fmt::print(
      "{}: top-1 {:.4f} of {} validation samples after epoch {} (before: {:.4f}), {:.1f} s, {}\n",
      o.out, r.best.value, data.validation_size(), r.best_epoch, r.before.value, r.seconds,
      threads_text());
}

void add_train(CommandLine& program) {
  auto o = std::make_shared<TrainOptions>();
  auto from_scratch = std::make_shared<bool>(false);
  auto label_smoothing = std::make_shared<double>(0);
  Command command = program.add_command("train", "train a float network, or train it further");
  o->add_to(command, 5, 0.01);
  command.add_flag("--from-scratch", *from_scratch, "draw new weights first");
  command
      .add_option("--label-smoothing", *label_smoothing,
                  "share of each label that goes to all classes alike (0)")
      .type_name("X")
      .check(number_in(0, 0.9999));
  command.footer("Example: octet train net.onnx --data train.npz --epochs 10 -o trained.octet");
  command.callback([o, from_scratch, label_smoothing] { run(*o, *from_scratch, *label_smoothing); },
                   Command::Ranks::several);
}

const RegisteredCommand g_train("train", add_train);

}  // namespace

}  // namespace octet::cli
