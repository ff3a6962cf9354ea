// octet quantize MODEL -o OUT --calibrate DATA
#include <fmt/format.h>

#include <cmath>
#include <fstream>
#include <memory>

#include "common.h"
#include "octet/base/error.h"
#include "octet/base/file.h"
#include "octet/base/parallel.h"
#include "octet/base/progress.h"
#include "octet/base/text.h"
#include "octet/quant/workflow/quantize_fx.h"

namespace octet::cli {
namespace {

struct Options {
  std::string model, out, calibrate, mode = "static", qconfig = "native", observer, config;
  std::vector<std::string> skip;
  bool strict = false, json = false;
  DataOptions sampling;
  RunOptions run;
};

// --config FILE.json: {"qconfig": "native", "observer": "minmax", "skip": ["head.*"], "strict": true}. What the command line
// says wins.
void read_config(Options& o) {
  if (o.config.empty()) return;
  auto json = nlohmann::json::parse(read_file(o.config), nullptr, false);
  if (!json.is_object()) fail(ErrorCode::corrupt, fmt::format("{}: expected a JSON object", o.config));
  const std::vector<std::string> known{"qconfig", "observer", "skip", "strict"};
  for (const auto& [key, value] : json.items()) {
    try {
      if (key == "qconfig") o.qconfig = o.qconfig == "native" ? value.get<std::string>() : o.qconfig;
      else if (key == "observer") o.observer = o.observer.empty() ? value.get<std::string>() : o.observer;
      else if (key == "skip") for (const auto& s : value) o.skip.push_back(s.get<std::string>());
      else if (key == "strict") o.strict |= value.get<bool>();
      else fail(ErrorCode::invalid_argument, fmt::format("{}: unknown key '{}': expected one of {}{}", o.config, key,
                                                         fmt::join(known, ", "), did_you_mean(key, known)));
    } catch (const nlohmann::json::exception&) {
      fail(ErrorCode::corrupt, fmt::format("{}: '{}' is {}, not of the expected type", o.config, key, value.dump()));
    }
  }
}

quant::QConfig make_qconfig(const Options& o) {
  quant::QConfig qconfig = quant::get_default_qconfig(o.qconfig);
  if (!o.observer.empty()) {
    auto options = qconfig.activation.options();
    quant::ObserverFactory observer(o.observer);
    if (quant::is_per_channel(observer.options().qscheme))
      fail(ErrorCode::invalid_argument, fmt::format("--observer {}: activations are quantized per tensor; use one of minmax, "
                                                    "moving-average, histogram", o.observer));
    options.averaging_constant = observer.options().averaging_constant;
    qconfig.activation = observer.with_args(options);
  }
  return qconfig;
}

// Signal to noise of b against a, in dB; +inf if equal.
double sqnr(const Tensor& a, const Tensor& b) {
  Tensor x = a.dequantize().contiguous(), y = b.dequantize().contiguous();
  double signal = 0, noise = 0;
  for (int64_t i = 0; i < x.numel(); ++i) {
    double v = x.data<float>()[i], e = v - y.data<float>()[i];
    signal += v * v;
    noise += e * e;
  }
  return noise == 0 ? INFINITY : 10 * std::log10(signal / noise);
}

struct Comparison {
  bool labels = false;
  Accuracy before, after;
  double output_sqnr = 0;
  std::vector<Latency> latency;  // float, int8: one sample at a time
};

Comparison compare(const graph::Graph& before, const graph::Graph& after, const Dataset& dataset, int64_t count) {
  Comparison c;
  runtime::Program a = runtime::compile(before), b = runtime::compile(after);
  int64_t samples = std::min<int64_t>(count, 512);
  c.labels = dataset.has_labels();
  if (c.labels) {
    c.before = evaluate(a, dataset, samples, "float accuracy");
    c.after = evaluate(b, dataset, samples, "int8 accuracy");
  }
  Batch batch = dataset.get(0, batch_size(dataset, 1));
  auto x = ordered_inputs(before, batch);
  c.output_sqnr = sqnr(a.run(x).at(0), b.run(x).at(0));
  c.latency = measure({&a, &b}, {x, x}, 0.3);
  return c;
}

std::string text_of(double sqnr_db) { return std::isinf(sqnr_db) ? "exact" : fmt::format("{:.1f} dB", sqnr_db); }

void run(Options o) {
  o.run.apply();
  if (o.mode != "static")
    fail(ErrorCode::unsupported, fmt::format("--mode {}: this version quantizes graphs statically; use --mode static", o.mode));
  if (o.calibrate.empty())
    fail(ErrorCode::invalid_argument, "static quantization needs sample inputs to choose scales from: give --calibrate DATA (an "
                                      ".npz with `images`, or a directory of images)");
  check_model_path(o.out);
  read_config(o);
  quant::QConfig qconfig = make_qconfig(o);
  graph::Graph source = load_model(o.model);
  // All that can fail for other reasons than the data fails before the data is read.
  quant::PreparedGraph prepared = quant::prepare_fx(source, qconfig, {o.skip, ""});
  if (o.strict) {
    for (size_t i = 0; i < prepared.graph().nodes().size(); ++i) {
      const auto& node = prepared.graph().nodes()[i];
      if (node.kind == graph::NodeKind::call && !prepared.placement().quantized[i])
        fail(ErrorCode::unsupported, fmt::format("--strict: {} ({}) stays float: {}", quant::node_name(prepared.graph(), node),
                                                 node.op, prepared.placement().reason[i]));
    }
  }
  Dataset dataset = o.sampling.open(o.calibrate, source);
  int64_t count = o.sampling.count(dataset);
  {
    Progress bar("calibrating", count);
    int64_t step = batch_size(dataset, 32);
    for (int64_t i = 0; i < count; i += step) {
      Batch batch = dataset.get(i, std::min(step, count - i));
      prepared.forward(ordered_inputs(prepared.graph(), batch));
      bar.advance(batch.size);
    }
  }
  quant::ConversionReport report;
  graph::Graph int8 = quant::convert_fx(prepared, &report, false);
  int8.metadata["quantization"] = "static";
  int8.metadata["qconfig"] = quant::to_string(qconfig);
  int8.metadata["calibration"] = fmt::format("{} samples of {}", count, o.calibrate);
  save_model(int8, o.out);  // first of all: whatever happens below, the result is on disk

  Comparison c = compare(prepared.graph(), int8, dataset, count);
  auto left = report.left_float();
  double before = static_cast<double>(weight_bytes(source)), after = static_cast<double>(std::filesystem::file_size(o.out));
  if (o.json) {
    nlohmann::ordered_json json{{"output", o.out}, {"samples", count}, {"quantized_nodes", report.quantized()},
                                {"nodes", report.entries.size()}, {"float_weight_bytes", before}, {"file_bytes", after},
                                {"output_sqnr_db", c.output_sqnr}, {"float_ms", c.latency[0].median_ms},
                                {"int8_ms", c.latency[1].median_ms}, {"peak_rss_mb", peak_rss_mb()}};
    if (c.labels) {
      json["float_top1"] = c.before.top1();
      json["int8_top1"] = c.after.top1();
      json["top1_samples"] = c.after.samples;
    }
    json["warnings"] = report.warnings;
    json["left_float"] = nlohmann::ordered_json::array();
    for (const auto& e : left) json["left_float"].push_back({{"node", e.node}, {"op", e.op}, {"reason", e.reason}});
    fmt::print("{}\n", json.dump());
    return;
  }
  for (const std::string& w : report.warnings) fmt::print(stderr, "octet: warning: {}\n", w);
  fmt::print("{}: {} of {} operators in 8 bits, calibrated on {} samples (peak memory {:.0f} MB)\n", o.out, report.quantized(),
             report.entries.size(), count, peak_rss_mb());
  for (const auto& e : left) fmt::print("  stays float: {} ({}): {}\n", e.node, e.op, e.reason);
  fmt::print("{:<12} {:>12} {:>12}\n", "", "float", "int8");
  fmt::print("{:<12} {:>12} {:>12}   {:.2f}x smaller\n", "size", human_bytes(before), human_bytes(after), before / after);
  double ratio = c.latency[0].median_ms / c.latency[1].median_ms;
  fmt::print("{:<12} {:>9.3f} ms {:>9.3f} ms   {:.2f}x {} (one sample, {} threads, median)\n", "latency", c.latency[0].median_ms,
             c.latency[1].median_ms, ratio >= 1 ? ratio : 1 / ratio, ratio >= 1 ? "faster" : "slower", num_threads());
  if (ratio < 1)
    fmt::print("  slower than float: {} of {} operators stay float, and a network this small spends its time on overhead; "
               "`octet bench {} --profile` shows where\n", report.entries.size() - report.quantized(), report.entries.size(), o.out);
  if (c.labels)
    fmt::print("{:<12} {:>12.4f} {:>12.4f}   on {} of the calibration samples\n", "top-1", c.before.top1(), c.after.top1(),
               c.after.samples);
  fmt::print("{:<12} {:>12} {:>12}   of the first output, one sample\n", "SQNR", "", text_of(c.output_sqnr));
}

}  // namespace

void add_quantize(CLI::App& app) {
  auto o = std::make_shared<Options>();
  CLI::App* cmd = app.add_subcommand("quantize", "make an 8-bit network from a trained one");
  cmd->add_option("MODEL", o->model, "the trained network: .onnx or .octet")->required();
  cmd->add_option("-o,--output", o->out, ".octet, or .onnx (QDQ)")->required();
  cmd->add_option("--calibrate", o->calibrate, "sample inputs: an .npz or a directory of images");
  cmd->add_option("--mode", o->mode, "static")->check(CLI::IsMember({"static", "dynamic", "weight-only"}));
  cmd->add_option("--qconfig", o->qconfig, "native (default), fbgemm, x86, onednn, qnnpack, ...");
  cmd->add_option("--observer", o->observer, "of activations: histogram (default), minmax, moving-average");
  cmd->add_option("--skip", o->skip, "nodes to leave float: a name, a glob or re:EXPRESSION; may be repeated");
  cmd->add_option("--config", o->config, "a JSON file with qconfig, observer, skip, strict");
  cmd->add_flag("--strict", o->strict, "fail if any operator stays float");
  cmd->add_flag("--json", o->json, "print one JSON object");
  o->sampling.add_to(*cmd);
  o->run.add_to(*cmd);
  cmd->callback([o] { run(*o); });
}

}  // namespace octet::cli
