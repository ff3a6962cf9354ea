// octet quantize MODEL -o OUT --calibrate DATA
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>

#include "cli/calibrate.h"
#include "cli/chunks.h"
#include "cli/common.h"
#include "cli/config.h"
#include "cli/report.h"
#include "cli/team.h"
#include "octet/base/error.h"
#include "octet/base/file.h"
#include "octet/base/progress.h"
#include "octet/base/text.h"
#include "octet/debug/check.h"
#include "octet/debug/losses.h"
#include "octet/debug/metrics.h"
#include "octet/debug/report.h"
#include "octet/graph/passes/fuse_lookups.h"
#include "octet/quant/algorithms/bias_correction.h"
#include "octet/quant/observe/min_max.h"
#include "octet/quant/tune/precision.h"
#include "octet/quant/tune/recipe.h"
#include "octet/quant/workflow/fx.h"

namespace octet::cli {
namespace {

constexpr int64_t kReportSamples = 512;  // of the calibration data
constexpr int64_t kMostAtOnce = 32;      // samples of a batch, where a recipe does not say

struct Options {
  std::string model, out, calibrate, mode = "static", report, target, recipe, ranks_report;
  std::vector<std::string> stats;
  bool json = false, force = false, resume = false;
  int64_t block_size = 0;  // 0: one scale for each row of a weight
  int64_t chunks = 0;      // of a step of a recipe's; 0: one for each rank
  // Of DATA, for the biases; -1: as many as bias_samples_of() says.
  int64_t bias_samples = -1;
  QuantizeChoice choice;
  DataOptions sampling;
  ShapeOptions shape;
  RunOptions run;

  // A calibration of several ranks can be resumed, one of a single process where that is asked for.
  KeptStatistics kept() const {
    return {resume || team().size() > 1 ? out + ".stats" : "", resume};
  }
};

graph::Graph load_float_model(const std::string& path, const graph::InputShapes& shapes) {
  graph::Graph graph = load_model(path, shapes);
  if (count_nodes(graph).quantized)
    fail(ErrorCode::invalid_argument,
         fmt::format("{}: is quantized already; give the float model it was made from", path));
  return graph;
}

// --target and --backend: either chooses the other where there is one of its name. A target that
// takes less than the qconfig gives is an Error.
io::OnnxTarget choose_target(Options& o) {
  const auto has = [](const std::vector<std::string>& names, const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  if (std::filesystem::path(o.out).extension() != ".onnx") {
    if (!o.target.empty()) wrong_usage("--target is for .onnx files");
    return io::OnnxTarget::onnxruntime;
  }
  if (o.choice.backend.empty() && has(quant::backend_config_names(), o.target))
    o.choice.backend = o.target;
  if (o.target.empty() && has(io::onnx_target_names(), o.choice.backend))
    o.target = o.choice.backend;
  if (o.target.empty()) return io::OnnxTarget::onnxruntime;
  if (has(quant::backend_config_names(), o.target)) {
    if (o.mode == "dynamic")
      wrong_usage(fmt::format("--target {} has no layers of --mode dynamic", o.target));
    const quant::QConfig chosen = o.choice.static_qconfig();
    if (o.mode == "static" &&
        quant::fitting_qconfig(chosen, quant::get_backend_config(o.target)) != chosen)
      wrong_usage(fmt::format(
          "--target {} does not take what --qconfig {} and --backend {} give: "
          "leave these out",
          o.target, o.choice.qconfig.empty() ? "native" : o.choice.qconfig, o.choice.backend));
  }
  return io::parse_onnx_target(o.target);
}

// -- what quantizing did, measured ----------------------------------------------------------------

struct Comparison {
  int64_t samples = 0;
  bool top1 = false;
  Accuracy before, after;
  std::vector<debug::ErrorStatistics> noise;  // of each output that is numbers
  // float, int8: one sample at a time; none where the model leaves sizes open and there is no data
  std::vector<Latency> latency;
  bool slower() const {
    return !latency.empty() && latency[1].median_ms > 1.05 * latency[0].median_ms;
  }
  // Of the time of an 8-bit network that is the slower one: what operators take that stay float,
  // and what making codes and numbers of one another takes.
  double float_share = 0, conversion_share = 0;
  std::vector<std::string> warnings;  // outputs that are garbage
  double sqnr_db() const { return noise.at(0).noise() == 0 ? INFINITY : noise.at(0).sqnr(); }
};

void measure_shares(const runtime::Program& program, const std::vector<Tensor>& x, Comparison& c) {
  auto seconds = program.profile(x);
  double all = 0, left = 0, conversions = 0;
  for (size_t i = 0; i < seconds.size(); ++i) {
    const graph::Node& node = program.graph().node(program.steps()[i].node);
    all += seconds[i];
    if (node.op == "quantize" || node.op == "dequantize" || node.op == "requantize")
      conversions += seconds[i];
    else if (!graph::touches_codes(program.graph(), node))
      left += seconds[i];
  }
  if (all > 0) c.float_share = left / all, c.conversion_share = conversions / all;
}

template <typename Fn>
double milliseconds_of(Fn&& fn) {
  const auto start = std::chrono::steady_clock::now();
  fn();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}
double least(const std::vector<double>& v) { return *std::min_element(v.begin(), v.end()); }

// Accuracy and difference on up to `count` samples of the dataset, if there is one; latency in any
// case.
Comparison compare(const graph::Graph& before, const graph::Graph& after, const Dataset* dataset,
                   int64_t count) {
  Comparison c;
  runtime::Program a = runtime::compile(before), b = runtime::compile(after);
  c.noise.resize(before.outputs().size());
  if (!dataset && !open_inputs(before).empty()) return c;
  const std::vector<Tensor> x =
      dataset ? ordered_inputs(before, dataset->get(0, batch_size(*dataset, 1)))
              : random_inputs(before, 1);
  constexpr double kSeconds = 0.2;  // of either program
  std::vector<double> float_ms, int8_ms;
  if (dataset) {
    c.top1 = dataset->has_labels() && before.type(before.outputs()[0]).dim() == 2;
    c.samples = std::min<int64_t>(count, c.top1 ? 512 : 32);
    Progress bar("comparing with float", c.samples);
    const int64_t step = samples_at_once(before, *dataset);
    for (int64_t i = 0; i < c.samples; i += step) {
      Batch batch = dataset->get(i, std::min(step, c.samples - i));
      auto inputs = ordered_inputs(before, batch);
      std::vector<Tensor> p, q;
      float_ms.push_back(milliseconds_of([&] { p = a.run(inputs); }));
      int8_ms.push_back(milliseconds_of([&] { q = b.run(inputs); }));
      for (size_t k = 0; k < p.size(); ++k)
        if (is_floating(p[k].dtype())) c.noise[k].add(p[k], q[k]);
      if (c.top1) {
        c.before.add(p[0], batch.labels);
        c.after.add(q[0], batch.labels);
      }
      bar.advance(batch.size);
    }
    c.warnings = debug::poor_outputs(before, after, c.noise, x);
    // Runs of one sample that take longer than the time to measure need no others. The first ones
    // planned memory.
    if (step == 1 && c.samples > 1 && std::min(least(float_ms), least(int8_ms)) > 1e3 * kSeconds)
      c.latency = {latency_of({float_ms.begin() + 1, float_ms.end()}),
                   latency_of({int8_ms.begin() + 1, int8_ms.end()})};
  }
  if (c.latency.empty()) c.latency = measure({&a, &b}, {x, x}, kSeconds);
  if (c.slower()) measure_shares(b, x, c);
  return c;
}

// What correcting biases did; nothing was tried where there are no samples.
struct BiasCorrection {
  int64_t samples = 0;
  // SQNR, the mean of all outputs, of other samples where there are as many.
  double with = NAN, without = NAN;
  bool is_kept() const { return with > without; }
};

// What is reported, either way.
struct Result {
  const Options& options;
  int64_t samples;
  const quant::ConversionReport& report;
  Comparison comparison;
  int64_t float_bytes, int8_bytes, file_bytes;  // weights, weights, the file
  std::string widths;                           // of codes: "8 bits"
  std::optional<debug::CalibrationQuality> calibration;
  BiasCorrection biases;
  std::vector<std::string> warnings() const {
    std::vector<std::string> all = report.warnings;
    if (calibration)
      all.insert(all.end(), calibration->warnings.begin(), calibration->warnings.end());
    all.insert(all.end(), comparison.warnings.begin(), comparison.warnings.end());
    return all;
  }
};

// Why the 8-bit network is the slower one; "" if neither floats nor conversions take a good part of
// its time.
std::string why_slower(const Comparison& c) {
  constexpr double kGoodPart = 0.1;
  std::vector<std::string> reasons;
  if (c.float_share >= kGoodPart)
    reasons.push_back(fmt::format("operators that stay float take {:.0f}%", 100 * c.float_share));
  if (c.conversion_share >= kGoodPart)
    reasons.push_back(fmt::format("making codes of numbers and numbers of codes takes {:.0f}%",
                                  100 * c.conversion_share));
  return reasons.empty() ? "" : fmt::format("{} of the int8 time; ", fmt::join(reasons, " and "));
}

JsonValue to_json(const Result& r) {
  const Comparison& c = r.comparison;
  JsonValue json = JsonValue::object({{"output", r.options.out},
                                      {"samples", r.samples},
                                      {"quantized_nodes", r.report.quantized()},
                                      {"nodes", r.report.entries.size()},
                                      {"float_weight_bytes", r.float_bytes},
                                      {"int8_weight_bytes", r.int8_bytes},
                                      {"file_bytes", r.file_bytes},
                                      {"peak_rss_mb", peak_rss_mb()}});
  if (!c.latency.empty()) {
    json.set("float_ms", c.latency[0].median_ms);
    json.set("int8_ms", c.latency[1].median_ms);
  }
  if (c.samples) json.set("output_sqnr_db", c.sqnr_db());  // null: no difference at all
  if (c.top1) {
    json.set("float_top1", c.before.top1());
    json.set("int8_top1", c.after.top1());
    json.set("top1_samples", c.after.samples);
  }
  if (r.calibration) json.set("calibration", calibration_json(*r.calibration));
  if (r.biases.samples)
    json.set("bias_correction", JsonValue::object({{"samples", r.biases.samples},
                                                   {"kept", r.biases.is_kept()},
                                                   {"sqnr_db", r.biases.with},
                                                   {"sqnr_db_without", r.biases.without}}));
  json.set("warnings", r.warnings());
  JsonValue left = JsonValue::array();
  for (const auto& e : r.report.left_float())
    left.push_back(JsonValue::object({{"node", e.node}, {"op", e.op}, {"reason", e.reason}}));
  json.set("left_float", left);
  return json;
}

void print_latency(const Result& r) {
  const Comparison& c = r.comparison;
  if (c.latency.empty()) {
    fmt::print("{:<8} not measured: the model leaves the sizes of its inputs open; give --shape\n",
               "latency");
    return;
  }
  const double before = c.latency[0].median_ms, after = c.latency[1].median_ms;
  fmt::print("{:<8} {:>9.3f} ms {:>9.3f} ms   {:.2f}x {} (one sample, {})\n", "latency", before,
             after, std::max(before, after) / std::min(before, after),
             after <= before ? "faster" : "slower", threads_text());
  if (c.slower())
    fmt::print("  slower: {}`octet bench {} --profile` shows every step\n", why_slower(c),
               r.options.out);
}

void print(const Result& r) {
  const Comparison& c = r.comparison;
  auto left = r.report.left_float();
  int64_t quantized = r.report.quantized(), all = static_cast<int64_t>(r.report.entries.size());
  auto bytes = [](int64_t n) { return human_bytes(static_cast<double>(n)); };
  for (const std::string& w : r.warnings()) say(fmt::format("octet: warning: {}", w));
  if (r.options.mode == "static")
    fmt::print("{}: {} of {} operators in {} ({}), calibrated on {} samples\n", r.options.out,
               quantized, all, r.widths, bytes(r.file_bytes), r.samples);
  else
    fmt::print(
        "{}: {} of {} operators with weights in {}, {} ({})\n", r.options.out, quantized, all,
        r.widths,
        r.options.mode == "dynamic" ? "inputs quantized at each call" : "arithmetic in float",
        bytes(r.file_bytes));
  for (const auto& e : left) fmt::print("  stays float: {} ({}): {}\n", e.node, e.op, e.reason);
  if (int64_t moves = all - quantized - static_cast<int64_t>(left.size()))
    fmt::print("  and {} that only move{} data between these\n", moves, moves == 1 ? "s" : "");
  fmt::print("{:<8} {:>12} {:>12}\n", "", "float", "int8");
  fmt::print("{:<8} {:>12} {:>12}{}\n", "weights", bytes(r.float_bytes), bytes(r.int8_bytes),
             r.int8_bytes > 0
                 ? fmt::format("   {:.2f}x smaller", static_cast<double>(r.float_bytes) /
                                                         static_cast<double>(r.int8_bytes))
                 : "");
  print_latency(r);
  if (c.top1)
    fmt::print("{:<8} {:>12.4f} {:>12.4f}   of {} samples\n", "top-1", c.before.top1(),
               c.after.top1(), c.samples);
  double sqnr = c.sqnr_db();
  if (c.samples)
    fmt::print("{:<8} {:>12} {:>12}   of the first output, {} samples\n", "SQNR", "",
               std::isinf(sqnr) && sqnr > 0 ? "exact" : fmt::format("{:.1f} dB", sqnr), c.samples);
  if (r.biases.samples)
    fmt::print("biases {} on {} samples: {:.1f} dB with, {:.1f} dB without\n",
               r.biases.is_kept() ? "corrected" : "not corrected, tried", r.biases.samples,
               r.biases.with, r.biases.without);
  fmt::print("peak memory {:.0f} MB\n", peak_rss_mb());
}

// Only weights are quantized: nothing to calibrate. DATA, if given, is what float and 8 bits are
// compared on.
graph::Graph quantize_weights(const Options& o, const graph::Graph& source,
                              quant::ConversionReport& report) {
  quant::QConfig qconfig = o.choice.qconfig.empty() ? quant::per_channel_dynamic_qconfig()
                                                    : quant::get_default_qconfig(o.choice.qconfig);
  qconfig = quant::with_weight_bits(qconfig, o.choice.weight_bits);
  if (o.choice.mapping)
    fail(ErrorCode::unsupported,
         fmt::format("{}: a mapping is of --mode static; --mode {} takes one qconfig for all",
                     o.choice.config, o.mode));
  const quant::PrepareOptions options = o.choice.prepare_options();
  graph::Graph result =
      o.mode == "dynamic"
          ? quant::quantize_dynamic_fx(source, qconfig, options, &report)
          : quant::quantize_weight_only_fx(source, qconfig.weight, options, &report);
  if (o.choice.strict)
    for (const auto& e : report.left_float())
      fail(ErrorCode::unsupported,
           fmt::format("--strict: {} ({}) stays float: {}", e.node, e.op, e.reason));
  return result;
}

// --block-size: weights of linear layers with a scale for each block of inputs, rounded by GPTQ
// where there are samples. The file holds the recipe, which does it again.
graph::Graph quantize_blocks(const Options& o, const graph::Graph& source,
                             const quant::Batches& samples, quant::ConversionReport& report) {
  quant::Recipe recipe{.steps = {{"block_weights",
                                  {{"bits", o.choice.weight_bits},
                                   {"block_size", o.block_size},
                                   {"gptq", !samples.empty()}}}}};
  if (!samples.empty()) quant::calibrate(source, recipe, samples);
  return quant::apply(source, recipe, samples, &report);
}

quant::Recipe read_recipe(const std::string& path) {
  try {
    return quant::Recipe::from_json(read_file(path));
  } catch (const Error& e) {
    fail(e.code(), fmt::format("{}: {}", path, e.what()));
  }
}

// The samples that the recipe was made with, of DATA: those of its steps and missing ranges.
quant::Batches samples_of(const quant::Recipe& recipe, const graph::Graph& graph,
                          const Dataset& dataset, int64_t count) {
  const quant::Recipe::Samples& s = recipe.samples;
  quant::Batches batches =
      sample_batches(graph, dataset, count, s.batch ? s.batch : kMostAtOnce, s.without_every);
  if (!s.digest.empty() && quant::digest_of(batches) != s.digest)
    say("octet: warning: the recipe was made with other samples; its ranges are kept, what its "
        "steps do will differ");
  return batches;
}

// The samples, of the first `count`, that biases are corrected with. By default: what one batch of
// calibration may hold, for all their live values are in memory; none where these are few, whose
// means say little, and none for a qconfig that is to be PyTorch's.
int64_t bias_samples_of(const Options& o, const graph::Graph& source, const Dataset& dataset,
                        int64_t count) {
  constexpr int64_t kFew = 8;
  const int64_t batch = batch_size(dataset, 1);
  const auto whole = [&](int64_t n) { return std::min(n, count) / batch * batch; };
  if (o.bias_samples >= 0) return whole(o.bias_samples);
  const bool is_own = o.choice.qconfig.empty() || o.choice.qconfig == "native";
  const int64_t samples = whole(debug::samples_at_once(source));
  return is_own && samples >= kFew ? samples : 0;
}

// The mean of the SQNRs of all outputs that are numbers, in dB; without any error 200.
double mean_sqnr(const std::vector<debug::ErrorStatistics>& outputs) {
  constexpr double kExact = 200;
  double sum = 0, count = 0;
  for (const debug::ErrorStatistics& e : outputs)
    if (e.signal() > 0) sum += e.noise() > 0 ? e.sqnr() : kExact, ++count;
  return count > 0 ? sum / count : kExact;
}

// Sets what both networks have on the samples [begin, begin + biases.samples).
void judge(const graph::Graph& before, const graph::Graph& corrected, const graph::Graph& plain,
           const Dataset& dataset, int64_t begin, BiasCorrection& biases) {
  runtime::Program floats = runtime::compile(before), with = runtime::compile(corrected),
                   without = runtime::compile(plain);
  std::vector<debug::ErrorStatistics> of_with(before.outputs().size()), of_without = of_with;
  const int64_t step = samples_at_once(before, dataset), end = begin + biases.samples;
  for (int64_t i = begin; i < end; i += step) {
    const auto inputs = ordered_inputs(before, dataset.get(i, std::min(step, end - i)));
    const std::vector<Tensor> y = floats.run(inputs), p = with.run(inputs), q = without.run(inputs);
    for (size_t k = 0; k < y.size(); ++k) {
      if (!is_floating(y[k].dtype())) continue;
      of_with[k].add(y[k], p[k]);
      of_without[k].add(y[k], q[k]);
    }
  }
  biases.with = mean_sqnr(of_with);
  biases.without = mean_sqnr(of_without);
}

// The 8-bit network; of that with biases that take back what rounding moves means by, and that
// without, the one whose outputs are nearer to those of `before`.
graph::Graph convert_static(const std::shared_ptr<quant::ObservedGraphModule>& prepared,
                            const graph::Graph& before, const Dataset* dataset, int64_t count,
                            BiasCorrection& biases, quant::ConversionReport& report) {
  graph::Graph plain = quant::convert_fx(prepared, &report)->graph();
  if (!dataset || biases.samples == 0) return plain;
  {
    std::optional<Progress> bar;
    quant::correct_bias(*prepared, sample_batches(before, *dataset, biases.samples, biases.samples),
                        {.progress = [&](size_t, size_t all) {
                          if (!bar) bar.emplace("correcting biases", static_cast<int64_t>(all));
                          bar->advance();
                        }});
  }
  quant::ConversionReport of_corrected;
  graph::Graph corrected = quant::convert_fx(prepared, &of_corrected)->graph();
  judge(before, corrected, plain, *dataset, count >= 2 * biases.samples ? biases.samples : 0,
        biases);
  if (!biases.is_kept()) return plain;
  report = std::move(of_corrected);
  corrected.metadata["bias_correction"] = fmt::format("{} samples", biases.samples);
  return corrected;
}

// Options that do not go together, or that lack others.
void check_usage(const Options& o, bool is_static) {
  if (!o.recipe.empty() && (!is_static || !o.choice.qconfig.empty() || !o.choice.observer.empty() ||
                            !o.choice.config.empty() || !o.choice.skip.empty() ||
                            o.choice.weight_bits != 8 || o.block_size))
    wrong_usage(
        "--recipe says how to quantize: leave --mode, --qconfig, --observer, --config, "
        "--skip, --weight-bits and --block-size out");
  if (!o.stats.empty() && (!is_static || !o.recipe.empty() || o.resume))
    wrong_usage("--stats is of --mode static: leave --recipe and --resume out");
  if (o.resume && (!is_static || !o.recipe.empty()))
    wrong_usage("--resume goes on with a calibration: leave --recipe out, and --mode but static");
  if (team().size() > 1 && (!is_static || !o.stats.empty()))
    wrong_usage(
        "several ranks share the samples of a calibration, or the steps of a --recipe: --stats and "
        "--mode but static have none, start them without mpirun");
  if (o.chunks && o.recipe.empty()) wrong_usage("--chunks is of the steps of a --recipe");
  if (!o.ranks_report.empty() && (!is_static || !o.recipe.empty() || !o.stats.empty()))
    wrong_usage("--ranks-report is of a calibration: leave --recipe and --stats out");
  if (is_static && o.calibrate.empty() && o.recipe.empty() && o.stats.empty())
    wrong_usage(
        "--calibrate DATA is required: static quantization chooses scales from sample inputs (an "
        ".npz with `images`, or a directory of images or of .npy or .npz files, one a sample)");
  if (o.bias_samples >= 0 && (!is_static || !o.recipe.empty()))
    wrong_usage(
        "--bias-samples is of --mode static, without --recipe, whose steps are all it does");
  if (o.bias_samples > 0 && o.calibrate.empty())
    wrong_usage("--bias-samples are of DATA; give --calibrate DATA");
  if (o.block_size && (o.mode != "weight-only" || !o.choice.qconfig.empty() ||
                       !o.choice.config.empty() || !o.choice.skip.empty()))
    wrong_usage(
        "--block-size is of --mode weight-only, for all linear layers: leave --qconfig, --config "
        "and --skip out");
  if (!is_static && !o.choice.observer.empty())
    wrong_usage(fmt::format("--observer is of --mode static; --mode {} has none", o.mode));
}

// --report.
void write_page(const Options& o, const graph::Graph& before, const graph::Graph& after,
                const Dataset& dataset, int64_t count) {
  const debug::Comparison compared =
      compare_models(before, after, dataset, std::min(count, kReportSamples), true);
  write_file_atomically(o.report, debug::html_report(compared, {.float_name = o.model,
                                                                .quantized_name = o.out,
                                                                .data = dataset.description()}));
}

// Of all ranks, which share the steps that learn.
graph::Graph quantize_by_recipe(const Options& o, const graph::Graph& source,
                                const quant::Recipe& recipe, const quant::Batches& samples,
                                quant::ConversionReport& report) {
  const int64_t chunks = o.chunks > 0 ? o.chunks : team().size();
  if (chunks == 1) return quant::apply(source, recipe, samples, &report);
  LearningTeam learning(chunks, team());
  return quant::apply(source, recipe, samples, &report, &learning);
}

void run(Options o) {
  // All that can fail for other reasons than the data fails before the data is read.
  const bool is_static = o.mode == "static";
  const KeptStatistics kept = o.kept();  // while the ranks are together
  check_usage(o, is_static);
  o.run.apply();
  o.choice.read_config();
  check_output(OutputKind::model, o.out, {o.model, o.calibrate, o.choice.config}, o.force);
  const io::OnnxExportOptions target{.target = choose_target(o)};
  if (!o.report.empty()) {
    if (o.calibrate.empty())
      wrong_usage("--report compares on samples; give them with --calibrate DATA");
    check_output(OutputKind::page, o.report, {o.model, o.calibrate, o.choice.config, o.out},
                 o.force);
  }
  graph::Graph source = load_float_model(o.model, o.shape.shapes()), before = source, int8;
  quant::ConversionReport report;
  std::optional<Dataset> dataset;
  std::optional<debug::CalibrationQuality> quality;
  BiasCorrection biases;
  int64_t count = 0, calibrated = 0;  // samples of DATA; those that ranges and steps are made with
  auto open = [&] {
    dataset = o.sampling.open(o.calibrate, source);
    count = o.sampling.count(*dataset);
    check_labels(*dataset, source, count);
  };
  if (!o.recipe.empty()) {
    const quant::Recipe recipe = read_recipe(o.recipe);
    if (!o.calibrate.empty()) open();
    const quant::Batches samples =
        dataset ? samples_of(recipe, source, *dataset, count) : quant::Batches();
    int8 = quantize_by_recipe(o, source, recipe, samples, report);
    const bool is_first = team().is_first();
    leave_team();
    if (!is_first) return;  // it does the rest
    calibrated = recipe.samples.count;
    if (dataset) {
      calibrated = 0;
      for (const std::vector<Tensor>& batch : samples) calibrated += batch.at(0).size(0);
    }
  } else if (is_static) {
    debug::Check found = debug::check(
        source, {.mapping = o.choice.static_mapping(), .prepare = o.choice.prepare_options()});
    if (o.choice.strict && found.prepared)
      found.collect([&] { require_all_quantized(*found.prepared); });
    if (!o.calibrate.empty()) found.collect(open);
    found.require_ok();
    const auto prepared = found.prepared;
    std::string data = o.calibrate;
    if (o.stats.empty()) {
      RanksReport ranks;
      quality = calibrate(*prepared, *dataset, o.calibrate, count, kept,
                          o.ranks_report.empty() ? nullptr : &ranks);
      leave_team();
      if (!quality) return;  // the first rank does the rest
      if (!o.ranks_report.empty())
        write_file_atomically(o.ranks_report, ranks.to_json().dump() + "\n");
      calibrated = count;
    } else {
      const dist::Shard whole = merged_statistics(o.stats);
      whole.require_whole(fmt::format("{}", fmt::join(o.stats, ", ")));
      quality = take_statistics(*prepared, whole);
      calibrated = whole.plan.samples;
      data = whole.data;
    }
    before = prepared->watched().graph;
    biases.samples = dataset ? bias_samples_of(o, source, *dataset, count) : 0;
    int8 = convert_static(prepared, before, dataset ? &*dataset : nullptr, count, biases, report);
    int8.metadata["qconfig"] = quant::to_string(o.choice.static_qconfig());
    if (o.choice.mapping) int8.metadata["qconfig_mapping"] = o.choice.mapping->to_json();
    int8.metadata["calibration_samples"] = std::to_string(calibrated);
    int8.metadata["calibration"] = fmt::format("{} samples of {}", calibrated, data);
  } else if (o.block_size) {
    if (!o.calibrate.empty()) open();
    int8 = quantize_blocks(
        o, source,
        dataset ? sample_batches(source, *dataset, count, kMostAtOnce) : quant::Batches(), report);
  } else {
    int8 = quantize_weights(o, source, report);
    if (!o.calibrate.empty()) open();
  }
  if (o.recipe.empty()) int8.metadata["quantization"] = o.mode;
  save_model(int8, o.out, target);  // first of all: whatever happens below, the result is on disk
  remove_statistics(kept);

  Result result{o,
                calibrated,
                report,
                compare(before, int8, dataset ? &*dataset : nullptr, count),
                weight_bytes(source),
                weight_bytes(int8),
                file_bytes(o.out),
                code_widths(int8, is_static ? CodesOf::values : CodesOf::weights),
                std::move(quality),
                biases};
  if (!o.report.empty()) write_page(o, before, int8, *dataset, count);
  if (o.json)
    print_json(to_json(result));
  else
    print(result);
  if (!o.report.empty() && !o.json) fmt::print("page: {}\n", o.report);
}

void add_quantize(CommandLine& program) {
  auto o = std::make_shared<Options>();
  Command command = program.add_command("quantize", "make an 8-bit network from a trained one");
  command.add_option("MODEL", o->model, "the trained network: .onnx or .octet")
      .type_name("")
      .required();
  command.add_option("-o,--output", o->out, "the 8-bit network: .octet, or .onnx (QDQ)")
      .type_name("OUT")
      .required()
      .check(output_model());
  command
      .add_option("--calibrate", o->calibrate,
                  "sample inputs: an .npz, or a directory of images or arrays")
      .type_name("DATA");
  command.add_option("--mode", o->mode, "static (default), dynamic, weight-only")
      .type_name("MODE")
      .check(one_of({"static", "dynamic", "weight-only"}));
  o->choice.add_to(command);
  command
      .add_option("--block-size", o->block_size,
                  "of --mode weight-only: a scale for each N inputs of linear layers\n"
                  "weights of 2, 3, 4 or 8 bits, rounded by GPTQ where DATA is given")
      .type_name("N")
      .check(whole_number(1, INT64_MAX));
  add_target(command, o->target);
  command
      .add_option("--recipe", o->recipe,
                  "do what a recipe of octet tune says; DATA only where it needs some")
      .type_name("FILE.json");
  command
      .add_option("--chunks", o->chunks,
                  "parts of a step of brecq and distill in --recipe (one for each rank)\n"
                  "the same number gives the same bits on any number of ranks")
      .type_name("N")
      .check(whole_number(1, 65536));
  command
      .add_option("--bias-samples", o->bias_samples,
                  "samples of DATA to correct biases on, where that helps; 0: none\n"
                  "(default: 32, or fewer that fit; 0 for another --qconfig than native)")
      .type_name("N")
      .check(whole_number(0, INT64_MAX));
  command
      .add_option("--stats", o->stats,
                  "take what octet calibrate saw; DATA only for biases and comparison")
      .type_name("FILE");
  command.add_flag("--resume", o->resume,
                   "go on with a calibration that was cut off (keeps OUT.stats.*)");
  command
      .add_option("--ranks-report", o->ranks_report,
                  "write what each rank of mpirun did and sent (docs/scaling.md)")
      .type_name("FILE.json");
  command.add_option("--report", o->report, "write a page that shows every layer beside float")
      .type_name("FILE.html");
  command.add_flag("--strict", o->choice.strict, "fail if any operator stays float");
  command.add_flag("--json", o->json, "print one JSON object");
  add_force(command, o->force);
  o->sampling.add_to(command);
  o->shape.add_to(command);
  o->run.add_to(command);
  command.footer("Example: octet quantize net.onnx --calibrate images.npz -o net.octet");
  command.callback([o] { run(*o); }, Command::Ranks::several);
}

const RegisteredCommand g_quantize("quantize", add_quantize);

}  // namespace

}  // namespace octet::cli
