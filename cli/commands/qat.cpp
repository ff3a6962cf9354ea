// octet qat MODEL --data DATA -o OUT
#include <fmt/format.h>

#include <memory>

#include "cli/training.h"
#include "cli/weight_bits.h"
#include "octet/base/error.h"
#include "octet/graph/passes/fold_batch_norm.h"
#include "octet/nn/loss.h"
#include "octet/ops/functional.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/workflow/fx.h"

namespace octet::cli {
namespace {

struct Options : TrainOptions {
  std::string qconfig = "native";
  std::vector<std::string> skip;
  int64_t weight_bits = 8;
  bool distill = false, strict = false;
  double temperature = 2, labels = 0;
};

void run(const Options& o) {
  o.run.apply();
  o.check_outputs();
  graph::Graph source = graph::fold_batch_norm(load_model(o.model, o.shape.shapes()));
  if (count_nodes(source).quantized)
    fail(ErrorCode::invalid_argument,
         fmt::format("{}: is quantized already; give the float model it was made from", o.model));
  if (o.labels > 0 && !o.distill)
    wrong_usage("--labels is of --distill: without it all of the loss is that of the labels");
  TrainingData data(o, source, !o.distill || o.labels > 0);
  quant::QConfig qconfig =
      with_weight_bits(quant::get_default_qat_qconfig(o.qconfig), o.weight_bits);
  graph::Graph scores = graph::without_final_softmax(source);
  // The last softmax stays float anyway: training sees the scores before it, and the result has it
  // again.
  bool cut = scores.nodes().size() != source.nodes().size();
  auto module = quant::prepare_qat_fx(scores, qconfig, {o.skip, ""});
  quant::ConversionReport report;
  auto to_graph = [&] {
    graph::Graph int8 = quant::convert_fx(module, &report, o.strict)->graph();
    if (!cut) return int8;
    const graph::Node& last = source.producer(source.outputs()[0]);
    int8.set_outputs({int8.add_call(source.value(source.outputs()[0]).name, last.op,
                                    {int8.outputs()[0]}, last.attrs, std::nullopt, last.scope)});
    return int8;
  };
  auto judge = [&](const graph::Graph& g) { return score(g, data, &source); };
  Score before = judge(source);
  runtime::Program teacher = runtime::compile(scores);
  auto loss = [&](const TrainingData::Sample& s) {
    Tensor y = module->forward(s.inputs).at(0);
    if (!o.distill) return functional::cross_entropy(y, s.labels);
    Tensor expected = teacher.run(s.inputs).at(0);
    const Tensor taught = y.dim() == 2 ? functional::distillation_loss(y, expected, o.temperature)
                                       : functional::mse_loss(y, expected);
    if (o.labels == 0) return taught;
    return functional::add(
        functional::mul(taught, Tensor::scalar(1 - o.labels)),
        functional::mul(functional::cross_entropy(y, s.labels), Tensor::scalar(o.labels)));
  };
  // Ranges move with the weights at first and stand in the last third, as the codes will.
  auto start_epoch = [&](int64_t epoch) {
    if (epoch >= 1 && 3 * epoch >= 2 * o.epochs) quant::disable_observer(*module);
  };
  TrainResult r = train(o, *module, data, before, loss, to_graph, judge, start_epoch);
  if (o.json) {
    print_json(JsonValue::object({{"output", o.out},
                                  {"measure", r.best.name},
                                  {"float", r.before.value},
                                  {"quantized", r.best.value},
                                  {"best_epoch", r.best_epoch},
                                  {"epochs", r.epochs},
                                  {"samples", data.size()},
                                  {"validation_samples", data.validation_size()},
                                  {"quantized_nodes", report.quantized()},
                                  {"nodes", report.entries.size()},
                                  {"warnings", report.warnings},
                                  {"seconds", r.seconds},
                                  {"peak_rss_mb", peak_rss_mb()}}));
    return;
  }
  for (const std::string& w : report.warnings) say(fmt::format("octet: warning: {}", w));
  fmt::print("{}: {} of {} operators on codes, weights of {} bits\n", o.out, report.quantized(),
             report.entries.size(), o.weight_bits);
  for (const auto& e : report.left_float())
    fmt::print("  stays float: {} ({}): {}\n", e.node, e.op, e.reason);
  fmt::print("{} {:.4f} of {} validation samples after epoch {} (float: {:.4f}), {:.1f} s, {}\n",
             r.best.name, r.best.value, data.validation_size(), r.best_epoch, r.before.value,
             r.seconds, threads_text());
}

void add_qat(CommandLine& program) {
  auto o = std::make_shared<Options>();
  Command command = program.add_command(
      "qat", "quantization-aware training: a quantized network from a trained one");
  o->add_to(command, 3, 0.001);
  command.add_option("--qconfig", o->qconfig, "native (default), fbgemm, x86, onednn, qnnpack")
      .type_name("NAME")
      .check(accepted_by([](const std::string& name) { quant::get_default_qat_qconfig(name); }));
  add_weight_bits(command, o->weight_bits);
  command.add_flag("--distill", o->distill,
                   "learn from the float network's results: DATA needs no labels");
  command
      .add_option("--labels", o->labels,
                  "of --distill: the share of the loss that is of the labels, 0 to 1 (0)")
      .type_name("X")
      .check(number_in(0, 1));
  command.add_option("--temperature", o->temperature, "of --distill (2)")
      .type_name("X")
      .check(positive_number());
  command.add_option("--skip", o->skip, "operators to leave float: a name, glob, or re:EXPRESSION")
      .type_name("PATTERN")
      .one_value();
  command.add_flag("--strict", o->strict, "fail if any operator stays float");
  command.footer("Example: octet qat net.onnx --data train.npz --weight-bits 4 -o net.octet");
  command.callback([o] { run(*o); });
}

const RegisteredCommand g_qat("qat", add_qat);

}  // namespace

}  // namespace octet::cli
