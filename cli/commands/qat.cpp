// octet qat MODEL --data DATA -o OUT
#include <fmt/format.h>

#include <memory>

#include "cli/training.h"
#include "cli/weight_bits.h"
#include "octet/base/error.h"
#include "octet/graph/passes/fold_batch_norm.h"
#include "octet/nn/loss.h"
#include "octet/ops/functional.h"
#include "octet/quant/algorithms/gptq.h"
#include "octet/quant/algorithms/qat_start.h"
#include "octet/quant/observe/fake_quantize.h"
#include "octet/quant/tune/precision.h"
#include "octet/quant/workflow/fx.h"
#include "octet/quant/workflow/training.h"

namespace octet::cli {
namespace {

struct Options : TrainOptions {
  std::string qconfig = "native";
  std::vector<std::string> skip;
  int64_t weight_bits = 8;
  bool distill = false, strict = false, integer_forward = false, show_state = false,
       learn_scales = false;
  double temperature = 2, labels = 0;
  std::string start;  // "float" or "gptq"; empty: as starts_from_gptq() says
};

// Weights of few bits, by default: from rounded ones, training has to find back what GPTQ knows.
bool starts_from_gptq(const Options& o) {
  constexpr int64_t kFewBits = 4;
  if (!o.start.empty()) return o.start == "gptq";
  return o.weight_bits <= kFewBits && o.qconfig == "native";
}

// The QAT network with the ranges that calibration chooses from the first samples of the training
// data, and the weights of GPTQ if that is asked for.
void start_from_calibration(const Options& o, const graph::Graph& scores,
                            quant::ObservedGraphModule& qat) {
  constexpr int64_t kAtOnce = 16, kSamples = 256;
  const Dataset dataset = o.sampling.open(o.data, scores);
  const auto samples =
      sample_batches(scores, dataset, std::min(kSamples, o.sampling.count(dataset)), kAtOnce);
  const quant::QConfig qconfig =
      quant::with_weight_bits(quant::get_default_qconfig(o.qconfig), o.weight_bits);
  auto calibrated = quant::prepare_fx(scores, qconfig, {o.skip, ""});
  {
    const quant::FixedWeights fixed(*calibrated);
    for (const std::vector<Tensor>& batch : samples) calibrated->forward(batch);
  }
  if (starts_from_gptq(o)) quant::gptq(*calibrated, samples);
  quant::start_qat_from(qat, *calibrated);
}

// Says what the layers do, once and whenever that has changed.
class StateLog {
 public:
  void tell(const Options& o, nn::Module& module, int64_t epoch) {
    const quant::QatState state = quant::qat_state(module);
    const std::string line = quant::summary(state);
    if (line == last_) return;
    last_ = line;
    say(fmt::format("from epoch {}: {}", epoch + 1, line));
    if (o.show_state) say(quant::to_string(state));
  }

 private:
  std::string last_;
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
      quant::with_weight_bits(quant::get_default_qat_qconfig(o.qconfig), o.weight_bits);
  if (o.learn_scales) qconfig = quant::with_learned_qparams(qconfig);
  graph::Graph scores = graph::without_final_softmax(source);
  // The last softmax stays float anyway: training sees the scores before it, and the result has it
  // again.
  bool cut = scores.nodes().size() != source.nodes().size();
  auto module = quant::prepare_qat_fx(scores, qconfig, {o.skip, ""});
  if (starts_from_gptq(o) || o.learn_scales) start_from_calibration(o, scores, *module);
  if (o.learn_scales) quant::enable_param_learning(*module);
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
  if (starts_from_gptq(o)) {
    module->eval();
    const Score start = judge(to_graph());
    say(fmt::format("before training, by GPTQ: {} {:.4f}", start.name, start.value));
  }
  runtime::Program teacher = runtime::compile(scores);
  auto loss = [&](const TrainingData::Sample& s) {
    Tensor y =
        (o.integer_forward ? quant::integer_forward(module, s.inputs) : module->forward(s.inputs))
            .at(0);
    if (!o.distill) return functional::cross_entropy(y, s.labels);
    Tensor expected = teacher.run(s.inputs).at(0);
    const Tensor taught = y.dim() == 2 ? functional::distillation_loss(y, expected, o.temperature)
                                       : functional::mse_loss(y, expected);
    if (o.labels == 0) return taught;
    return functional::add(
        functional::mul(taught, Tensor::scalar(1 - o.labels)),
        functional::mul(functional::cross_entropy(y, s.labels), Tensor::scalar(o.labels)));
  };
  StateLog state;
  // Ranges move with the weights at first and stand in the last third, as the codes will.
  auto start_epoch = [&](int64_t epoch) {
    if (epoch >= 1 && 3 * epoch >= 2 * o.epochs) quant::disable_observer(*module);
    state.tell(o, *module, epoch);
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
  command
      .add_option("--start", o->start,
                  "begin with float weights, or with those of GPTQ (gptq)\n"
                  "default: gptq for weights of 4 bits or fewer, else float")
      .type_name("NAME")
      .check(one_of({"float", "gptq"}));
  command.add_flag("--learn-scales", o->learn_scales,
                   "train scales and zero points as weights are (LSQ), from calibrated ones on");
  command.add_flag("--integer-forward", o->integer_forward,
                   "compute on the integer kernels, with the gradients as without\n"
                   "what is trained is to the bit what is written");
  command.add_flag("--show-state", o->show_state,
                   "say of each layer whether its observer and its fake quantization are on");
  command.add_flag("--strict", o->strict, "fail if any operator stays float");
  command.footer("Example: octet qat net.onnx --data train.npz --weight-bits 4 -o net.octet");
  command.callback([o] { run(*o); }, Command::Ranks::several);
}

const RegisteredCommand g_qat("qat", add_qat);

}  // namespace

}  // namespace octet::cli
