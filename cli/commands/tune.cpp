// octet tune MODEL --data DATA -o OUT
#include "octet/quant/tune/tune.h"

#include <fmt/format.h>
#include <stdio.h>
#include <sys/wait.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <memory>

#include "cli/common.h"
#include "cli/report.h"
#include "cli/team.h"
#include "cli/weight_bits.h"
#include "octet/base/error.h"
#include "octet/base/file.h"
#include "octet/base/progress.h"
#include "octet/base/text.h"
#include "octet/debug/report.h"
#include "octet/io/npz.h"
#include "octet/io/octet_file.h"
#include "octet/io/onnx/export.h"
#include "octet/ops/op.h"
#include "octet/quant/tune/precision.h"

namespace octet::cli {
namespace {

constexpr int64_t kAtOnce = 4;       // samples: the gradients of a batch are in memory
constexpr int64_t kHoldOutEach = 4;  // the fourth, eighth ... sample judges

struct Options {
  std::string model, data, eval, out, metric, command, drop = "0.5%", report, state, cost = "time";
  std::string max_size, max_time;
  std::vector<std::string> skip;
  double target = NAN, minutes = 10, slowest = 1.25;
  int64_t distill = 800;
  int64_t top = 1, space = -1, weight_bits = 8;
  bool resume = false, json = false, force = false;
  DataOptions sampling;
  ShapeOptions shape;
  RunOptions run;
};

// "0.5%" or "0.5": a share of 1.
double parse_drop(const std::string& text) {
  std::string_view number = text;
  if (number.ends_with('%')) number.remove_suffix(1);
  double percent = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), percent);
  if (error != std::errc() || end != number.data() + number.size() || !(percent >= 0) ||
      percent > 100)
    fail(ErrorCode::invalid_argument,
         fmt::format("expected percent of the float network's score, 0 to 100, got '{}'", text));
  return percent / 100;
}

// A number above 0 and what follows it, without spaces. Error naming what was expected.
std::pair<double, std::string> parse_amount(const std::string& text, const char* expected) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || !(number > 0) || !std::isfinite(number))
    fail(ErrorCode::invalid_argument, fmt::format("expected {}, got '{}'", expected, text));
  return {number, std::string(end, text.data() + text.size())};
}

// "40%" of the float network's time: 0.4.
double parse_time(const std::string& text) {
  constexpr const char* kExpected = "percent of the float network's time, as 40%";
  const auto [number, unit] = parse_amount(text, kExpected);
  if (unit != "%")
    fail(ErrorCode::invalid_argument, fmt::format("expected {}, got '{}'", kExpected, text));
  return number / 100;
}

// "2MB" (10^6 bytes), "500kB", "120000", or "20%" of `whole` bytes.
double parse_size(const std::string& text, double whole) {
  constexpr const char* kExpected = "a size as 2MB, 500kB or 120000, or percent of MODEL's, as 20%";
  const auto [number, unit] = parse_amount(text, kExpected);
  for (const auto& [name, bytes] :
       {std::pair{"", 1.0}, {"B", 1.0}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"%", whole / 100}})
    if (unit == name) return number * bytes;
  fail(ErrorCode::invalid_argument, fmt::format("expected {}, got '{}'", kExpected, text));
}

// The ranks of mpirun.
class Ranks : public quant::TuneTeam {
 public:
  explicit Ranks(std::filesystem::path scratch) : scratch_(std::move(scratch)) {}

  bool is_first() const override { return team().is_first(); }
  std::vector<std::string> share(size_t n, const std::function<std::string(size_t)>& job) override {
    return cli::share(n, job);
  }
  std::string broadcast(const std::string& text) override { return team().broadcast(text); }
  std::string bytes_of(const graph::Graph& graph) override {
    io::save_octet(graph, scratch_);
    std::string bytes = read_file(scratch_);
    std::filesystem::remove(scratch_);
    return bytes;
  }
  graph::Graph graph_of(const std::string& bytes) override {
    write_file_atomically(scratch_, bytes);
    graph::Graph graph = io::load_octet(scratch_);
    std::filesystem::remove(scratch_);  // what is mapped stays
    return graph;
  }

 private:
  const std::filesystem::path scratch_;
};

// A file of this rank's own beside what it is of.
std::string of_rank(const std::string& path) {
  return team().size() == 1 ? path : fmt::format("{}.{}", path, team().rank());
}

// All batches of each result behind one another, by the names of the graph's outputs.
std::map<std::string, Tensor> joined(const graph::Graph& graph, const quant::Batches& results) {
  std::map<std::string, Tensor> arrays;
  for (size_t i = 0; i < graph.outputs().size(); ++i) {
    std::vector<Tensor> parts;
    for (const std::vector<Tensor>& batch : results) parts.push_back(batch[i].contiguous());
    const bool one = parts.size() == 1 || parts[0].dim() == 0;
    arrays[graph.value(graph.outputs()[i]).name] =
        one ? parts[0] : ops::call("cat", parts, {{"dim", int64_t{0}}});
  }
  return arrays;
}

// The last number that `command FILE` prints, of predictions in FILE (.npz).
double score_of_command(const std::string& command, const std::string& file) {
  const std::string line = command + " '" + file + "'";
  FILE* pipe = ::popen(line.c_str(), "r");
  if (!pipe) fail(ErrorCode::io, fmt::format("--metric-command: cannot run '{}'", command));
  std::string text;
  char buffer[4096];
  for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) text.append(buffer, n);
  const int status = ::pclose(pipe);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    fail(ErrorCode::invalid_argument,
         fmt::format("--metric-command: '{}' failed with status {}", command,
                     WIFEXITED(status) ? WEXITSTATUS(status) : -1));
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.pop_back();
  const size_t begin = text.find_last_of(" \t\n:,=") + 1;
  double score = NAN;
  const auto [end, error] = std::from_chars(text.data() + begin, text.data() + text.size(), score);
  if (error != std::errc() || end != text.data() + text.size() || std::isnan(score))
    fail(ErrorCode::invalid_argument,
         fmt::format("--metric-command: '{}' printed no number at its end, but '{}'", command,
                     shorten(text, 60)));
  return score;
}

quant::TuneMetric command_metric(const graph::Graph& graph, const std::string& command,
                                 const std::string& file) {
  return {"command " + command,
          [&graph, command, file](const quant::Batches&, const quant::Batches& got) {
            write_npz(file, joined(graph, got));
            const double score = score_of_command(command, file);
            std::filesystem::remove(file);
            return score;
          }};
}

// Operators in float count 4, those on codes 1: the same on every machine.
double count_operators(const graph::Graph& graph) {
  const NodeCount count = count_nodes(graph);
  return static_cast<double>(4 * (count.total - count.quantized) + count.quantized);
}

quant::TuneMetric choose_metric(const Options& o, const graph::Graph& graph,
                                const std::vector<Tensor>& labels) {
  if (!o.command.empty())
    return command_metric(graph, o.command, of_rank(o.out) + ".predictions.npz");
  const bool classes = !labels.empty() && graph.type(graph.outputs().at(0)).dim() == 2;
  if (o.metric == "top-k" || (o.metric.empty() && classes)) {
    if (labels.empty())
      fail(ErrorCode::invalid_argument, "--metric top-k needs labels in the data that judges");
    return quant::top_k_metric(o.top, labels);
  }
  if (o.metric == "perplexity") {
    if (labels.empty())
      fail(ErrorCode::invalid_argument,
           "--metric perplexity needs `labels` of each place in the data that judges");
    return quant::perplexity_metric(labels);
  }
  if (o.metric == "words") return quant::words_metric(o.space);
  return quant::tune_metric(o.metric.empty() ? "cosine" : o.metric);
}

std::string line_of(const quant::TuneTrial& t) {
  return fmt::format("{:<44} {:>10.5f} {:>8.3f} {:>10}  {}", shorten(t.name, 44), t.score, t.cost,
                     human_bytes(t.size), t.above ? "enough" : "");
}

// The curve of what can be had for which time, a trial a line.
std::string pareto_csv(const quant::TuneResult& r) {
  std::string text = "trial,score,cost,bytes\n";
  for (const size_t i : r.pareto()) {
    const quant::TuneTrial& t = r.trials[i];
    text += fmt::format("\"{}\",{},{},{}\n", t.name, t.score, t.cost, t.size);
  }
  return text;
}

JsonValue to_json(const Options& o, const quant::TuneResult& r) {
  JsonValue trials = JsonValue::array();
  for (const quant::TuneTrial& t : r.trials) {
    JsonValue left = JsonValue::array();
    for (const std::string& name : t.left_float) left.push_back(name);
    JsonValue in_16_bits = JsonValue::array();
    for (const std::string& name : t.in_16_bits) in_16_bits.push_back(name);
    trials.push_back(JsonValue::object({{"name", t.name},
                                        {"score", t.score},
                                        {"cost", t.cost},
                                        {"bytes", t.size},
                                        {"above", t.above},
                                        {"left_float", left},
                                        {"in_16_bits", in_16_bits}}));
  }
  JsonValue pareto = JsonValue::array();
  for (const size_t i : r.pareto()) pareto.push_back(r.trials[i].name);
  return JsonValue::object({{"output", o.out},
                            {"float_score", r.float_score},
                            {"bar", r.bar},
                            {"best", r.best().name},
                            {"best_score", r.best().score},
                            {"above", r.best().above},
                            {"trials", trials},
                            {"pareto", pareto},
                            {"notes", r.notes}});
}

// All but what is done after each trial.
quant::TuneOptions tune_options(const Options& o, const graph::Graph& graph,
                                const std::vector<Tensor>& labels) {
  quant::TuneOptions options{
      .metric = choose_metric(o, graph, labels),
      .target = o.target,
      .max_drop = parse_drop(o.drop),
      .minutes = o.minutes,
      .slowest = o.slowest,
      .most_distillation = o.distill,
      .mapping = quant::with_weight_bits(quant::get_default_qconfig(), o.weight_bits),
      .skip = o.skip,
      .state = o.state.empty() ? o.out + ".tune" : o.state,
      .resume = o.resume};
  if (o.cost == "operators") options.cost = count_operators;
  if (!o.max_time.empty()) options.max_cost = parse_time(o.max_time);
  if (!o.max_size.empty())
    options.max_size = parse_size(o.max_size, static_cast<double>(file_bytes(o.model)));
  // Of the file as it would be.
  const std::string extension = std::filesystem::path(o.out).extension().string();
  options.size = [extension,
                  trial = of_rank(options.state / "trial") + extension](const graph::Graph& g) {
    if (extension == ".octet")
      io::save_octet(g, trial);
    else
      io::export_onnx(g, trial);
    const auto bytes = static_cast<double>(file_bytes(trial));
    std::filesystem::remove(trial);
    return bytes;
  };
  return options;
}

// Samples that fit and samples that judge, with the labels of the latter.
quant::TuneData read_data(const Options& o, const graph::Graph& graph,
                          std::vector<Tensor>& labels) {
  const Dataset dataset = o.sampling.open(o.data, graph);
  const int64_t count = o.sampling.count(dataset);
  const bool of_places = o.metric == "perplexity";  // it checks its labels itself
  quant::TuneData data;
  if (o.eval.empty()) {
    if (count < kHoldOutEach)
      fail(ErrorCode::invalid_argument,
           fmt::format("{}: {} samples; a fourth of them judges, so give {} or more, or --eval",
                       o.data, count, kHoldOutEach));
    if (!of_places) check_labels(dataset, graph, count);
    data.without_every = kHoldOutEach;
    data.judge = sample_batches(graph, dataset, count, kAtOnce, kHoldOutEach, true, &labels);
    data.all = [&graph, dataset, count] { return sample_batches(graph, dataset, count, kAtOnce); };
  } else {
    const Dataset judging = o.sampling.open(o.eval, graph);
    if (!of_places) check_labels(judging, graph, judging.size());
    data.judge = sample_batches(graph, judging, judging.size(), kAtOnce, 0, false, &labels);
  }
  data.fit = sample_batches(graph, dataset, count, kAtOnce, data.without_every);
  return data;
}

// --report.
void write_page(const Options& o, const graph::Graph& graph, const quant::TuneResult& r,
                const std::string& metric) {
  const Dataset judging = o.sampling.open(o.eval.empty() ? o.data : o.eval, graph);
  const debug::Comparison compared =
      compare_models(graph, r.graph, judging, std::min<int64_t>(judging.size(), 64), false);
  debug::ReportOptions page{.float_name = o.model,
                            .quantized_name = o.out,
                            .data = judging.description(),
                            .score_name = metric};
  const std::vector<size_t> curve = r.pareto();
  for (size_t i = 0; i < r.trials.size(); ++i) {
    const quant::TuneTrial& t = r.trials[i];
    const bool on_curve = std::find(curve.begin(), curve.end(), i) != curve.end();
    page.tried.push_back({t.name, t.score, t.cost, t.size, on_curve, i == r.best_index});
  }
  write_file_atomically(o.report, debug::html_report(compared, page));
}

void run(Options o) {
  o.run.apply();
  check_output(OutputKind::model, o.out, {o.model, o.data, o.eval}, o.force);
  if (!o.report.empty())
    check_output(OutputKind::page, o.report, {o.model, o.data, o.eval, o.out}, o.force);
  const graph::Graph graph = load_model(o.model, o.shape.shapes());
  if (count_nodes(graph).quantized)
    fail(ErrorCode::invalid_argument,
         fmt::format("{}: is quantized already; give the float model it was made from", o.model));
  std::vector<Tensor> labels;
  const quant::TuneData data = read_data(o, graph, labels);
  quant::TuneOptions options = tune_options(o, graph, labels);
  bool first = true;
  options.on_trial = [&](const quant::TuneTrial& t) {
    if (o.json) return;
    if (first)
      fmt::print("{:<44} {:>10} {:>8} {:>10}\n", "trial", shorten(options.metric.name, 10), "cost",
                 "size");
    first = false;
    fmt::print("{}\n", line_of(t));
    std::fflush(stdout);
  };
  options.on_best = [&](const graph::Graph& best, const quant::Recipe& recipe) {
    save_model(best, o.out);
    write_file_atomically(options.state / "best.json", recipe.to_json());
  };
  std::filesystem::create_directories(options.state);
  Ranks ranks(of_rank(options.state / "sent"));
  if (team().size() > 1) options.team = &ranks;
  const quant::TuneResult r = quant::tune(graph, data, options);
  const bool is_first = team().is_first();
  leave_team();
  if (!is_first) return;
  write_file_atomically(options.state / "pareto.csv", pareto_csv(r));
  if (!o.report.empty()) write_page(o, graph, r, options.metric.name);
  if (o.json) {
    print_json(to_json(o, r));
    return;
  }
  for (const std::string& note : r.notes) say(fmt::format("octet: note: {}", note));
  fmt::print("{}: {}; {} {:.5f} (float {:.5f}, the bar {:.5f}{})\n", o.out, r.best().name,
             options.metric.name, r.best().score, r.float_score, r.bar,
             r.best().above ? "" : ", which no trial reached");
  std::vector<std::string> pareto;
  for (const size_t i : r.pareto()) pareto.push_back(r.trials[i].name);
  fmt::print("no trial is both better and faster than: {} ({})\n", fmt::join(pareto, "; "),
             (options.state / "pareto.csv").string());
  fmt::print("recipe: {}\n", (options.state / "best.json").string());
}

void add_budgets(Command& command, Options& o) {
  command
      .add_option("--slowest", o.slowest,
                  "most time with layers left float, over that without (1.25)")
      .type_name("X")
      .check(positive_number());
  command
      .add_option("--distill", o.distill,
                  "most iterations of distillation: 50, 200 or 800; 0: none (800)")
      .type_name("N")
      .check(whole_number(0, INT32_MAX));
  command
      .add_option("--max-time", o.max_time,
                  "most time, in percent of float's: 40% (in place of --slowest)")
      .type_name("P%")
      .check(accepted_by([](const std::string& text) { parse_time(text); }));
  command
      .add_option("--max-size", o.max_size,
                  "most bytes of OUT: 2MB, 500kB, or percent of MODEL's: 20%\n"
                  "layers get weights of 4 bits where 8 are too many")
      .type_name("SIZE")
      .check(accepted_by([](const std::string& text) { parse_size(text, 1); }));
}

void add_tune(CommandLine& program) {
  auto o = std::make_shared<Options>();
  Command command =
      program.add_command("tune", "find the best 8-bit network by trial, within a time");
  command.add_option("MODEL", o->model, "the trained network: .onnx or .octet")
      .type_name("")
      .required();
  command
      .add_option("--data", o->data,
                  "sample inputs; each fourth judges, with its label if there are labels")
      .type_name("DATA")
      .required();
  command.add_option("-o,--output", o->out, "the 8-bit network: .octet, or .onnx (QDQ)")
      .type_name("OUT")
      .required()
      .check(output_model());
  command.add_option("--eval", o->eval, "other samples that judge; all of --data fit then")
      .type_name("DATA");
  std::vector<std::string> names = quant::tune_metric_names();
  command
      .add_option("--metric", o->metric,
                  fmt::format("{},\n{}\n"
                              "(all against float), top-k, perplexity (with labels)\n"
                              "default: top-k with labels, else cosine",
                              fmt::join(names.begin(), names.begin() + 6, ", "),
                              fmt::join(names.begin() + 6, names.end(), ", ")))
      .type_name("NAME")
      .check([names]() mutable {
        names.insert(names.end(), {"top-k", "perplexity"});
        return one_of(names);
      }());
  command.add_option("--top", o->top, "the k of top-k (1)")
      .type_name("K")
      .check(whole_number(1, INT64_MAX));
  command.add_option("--space", o->space, "of words: the class that ends them (the last class)")
      .type_name("CLASS")
      .check(whole_number(0, INT64_MAX));
  command
      .add_option("--metric-command", o->command,
                  "a command that is given predictions (.npz, as its last argument)\n"
                  "and prints a number; higher is better")
      .type_name("CMD");
  command
      .add_option("--max-drop", o->drop,
                  "percent of the float network's score that may be lost (0.5%)")
      .type_name("P%")
      .check(accepted_by([](const std::string& text) { parse_drop(text); }));
  command.add_option("--target", o->target, "a score that is enough, in place of --max-drop")
      .type_name("N");
  command.add_option("--minutes", o->minutes, "no trial begins later (10)")
      .type_name("N")
      .check(positive_number());
  add_budgets(command, *o);
  command
      .add_option("--cost", o->cost,
                  "time (default, measured), or operators (those in float count 4)")
      .type_name("NAME")
      .check(one_of({"time", "operators"}));
  add_weight_bits(command, o->weight_bits);
  command.add_option("--skip", o->skip, "operators to leave float: a name, glob, or re:EXPRESSION")
      .type_name("PATTERN")
      .one_value();
  command.add_option("--state", o->state, "a directory for the trials' recipes (OUT.tune)")
      .type_name("DIR");
  command.add_flag("--resume", o->resume, "go on where work in that directory was cut off");
  command.add_option("--report", o->report, "write a page that shows every layer beside float")
      .type_name("FILE.html");
  command.add_flag("--json", o->json, "print one JSON object");
  add_force(command, o->force);
  o->sampling.add_to(command);
  o->shape.add_to(command);
  o->run.add_to(command);
  command.footer("Example: octet tune net.onnx --data images.npz -o net.octet --minutes 15");
  command.callback([o] { run(*o); }, Command::Ranks::several);
}

const RegisteredCommand g_tune("tune", add_tune);

}  // namespace
}  // namespace octet::cli
