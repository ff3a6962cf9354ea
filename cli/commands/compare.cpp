// octet compare FLOAT QUANT --data DATA
#include <fmt/format.h>

#include <cmath>
#include <memory>

#include "cli/common.h"
#include "cli/report.h"
#include "cli/team.h"
#include "octet/base/error.h"
#include "octet/base/file.h"
#include "octet/base/progress.h"
#include "octet/base/text.h"
#include "octet/debug/compare.h"
#include "octet/debug/report.h"
#include "octet/quant/tune/recipe.h"

namespace octet::cli {
namespace {

struct Options {
  std::string before, after, data, html, junit;
  bool json = false, advise = false, force = false;
  double max_drop = -1, min_sqnr = NAN, min_speedup = -1;
  int64_t top = 10;
  DataOptions sampling;
  ShapeOptions shape;
  RunOptions run;
  bool has_gates() const { return max_drop >= 0 || !std::isnan(min_sqnr) || min_speedup >= 0; }
};

std::string db_text(double value) {
  if (std::isnan(value)) return "-";
  if (std::isinf(value)) return value > 0 ? "exact" : "none";
  return fmt::format("{:.1f}", value);
}

std::string percent(double share) {
  return std::isnan(share) ? "-" : fmt::format("{:.1f}%", 100 * share);
}

void print_summary(const debug::Comparison& c) {
  const auto bytes = [](int64_t n) { return human_bytes(static_cast<double>(n)); };
  fmt::print("{:<8} {:>12} {:>12}\n", "", "float", "int8");
  if (c.has_top1)
    fmt::print("{:<8} {:>12.4f} {:>12.4f}   {:+.2f} points, of {} samples\n", "top-1", c.float_top1,
               c.quantized_top1, 100 * (c.quantized_top1 - c.float_top1), c.samples);
  if (!std::isnan(c.agreement))
    fmt::print("{:<8} {:>12} {:>12}   samples with the same first class\n", "agree", "",
               percent(c.agreement));
  fmt::print("{:<8} {:>12} {:>12}\n", "weights", bytes(c.float_bytes), bytes(c.quantized_bytes));
  fmt::print("{:<8} {:>12} {:>12}   planned for values, one sample\n", "memory",
             bytes(c.float_memory_bytes), bytes(c.quantized_memory_bytes));
  const double ratio = c.float_ms / c.quantized_ms;
  fmt::print("{:<8} {:>9.3f} ms {:>9.3f} ms   {:.2f}x {} (one sample, {})\n", "latency", c.float_ms,
             c.quantized_ms, std::max(ratio, 1 / ratio), ratio >= 1 ? "faster" : "slower",
             threads_text());
  for (const debug::OutputComparison& o : c.outputs)
    fmt::print("{:<8} {:>12} {:>12}   of output %{}\n", "SQNR", "",
               std::isfinite(o.sqnr) ? db_text(o.sqnr) + " dB" : db_text(o.sqnr), o.name);
}

void print_layers(const debug::Comparison& c, int64_t top) {
  const size_t shown = std::min(c.ranking.size(), static_cast<size_t>(top));
  size_t width = 5;
  for (size_t r = 0; r < shown; ++r) width = std::max(width, c.layers[c.ranking[r]].name.size());
  width = std::min<size_t>(width, 36);
  fmt::print("\n{:<{}} {:<14} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}  {}\n", "layer", width,
             "operator", "noise", "SQNR", "own", "weight", "clipped", "codes", "fault");
  for (size_t r = 0; r < shown; ++r) {
    const debug::LayerComparison& l = c.layers[c.ranking[r]];
    fmt::print("{:<{}} {:<14} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}  {}\n", shorten(l.name, width),
               width, shorten(l.op, 14), percent(l.noise_share), db_text(l.sqnr),
               db_text(l.own_sqnr), db_text(l.weight_sqnr), l.scale > 0 ? percent(l.clipped) : "-",
               l.scale > 0 ? std::to_string(l.codes_used) : "-",
               l.fault == debug::Fault::none ? "" : debug::to_string(l.fault));
  }
  if (shown < c.ranking.size()) fmt::print("and {} more (--top N)\n", c.ranking.size() - shown);
  int64_t said = 0, faults = 0;
  for (size_t i : c.ranking) {
    const debug::LayerComparison& l = c.layers[i];
    faults += l.fault != debug::Fault::none;
    if ((l.sentence.empty() && l.trials.empty()) || said >= top) continue;
    if (said++ == 0) fmt::print("\n");
    if (!l.sentence.empty()) fmt::print("{} ({}): {}.\n", l.name, l.op, l.sentence);
    if (l.trials.empty()) continue;
    const debug::Trial& best = l.trials[0];
    fmt::print("  of {} tried on {}, {}\n", l.trials.size(), l.name,
               !std::isnan(best.speedup)
                   ? fmt::format("{}: {:+.1f} dB at the output, {:.2f} times as fast", best.what,
                                 best.gain, best.speedup)
               : best.gain >= 0.1
                   ? fmt::format("{} helps most: {:+.1f} dB at the output", best.what, best.gain)
                   : "nothing helps");
  }
  if (faults > top) fmt::print("{} layers have a fault; --top {} lists all\n", faults, faults);
  if (!c.trials.empty() && c.trials[0].gain >= 0.1)
    fmt::print("tried: {}: {:+.1f} dB at the output\n", c.trials[0].what, c.trials[0].gain);
  if (c.unmatched)
    fmt::print("{} operator{} of the float model {} no counterpart in the quantized one\n",
               c.unmatched, c.unmatched == 1 ? "" : "s", c.unmatched == 1 ? "has" : "have");
}

std::vector<debug::Gate> gates_of(const Options& o, const debug::Comparison& c) {
  std::vector<debug::Gate> gates;
  if (o.max_drop >= 0) {
    const double drop = 100 * (c.float_top1 - c.quantized_top1);
    gates.push_back(
        {"max-drop",
         fmt::format("top-1 {} by {:.2f} points, from {:.4f} to {:.4f} (may fall by {:g})",
                     drop > 0 ? "fell" : "rose", std::abs(drop), c.float_top1, c.quantized_top1,
                     o.max_drop),
         drop <= o.max_drop + 1e-9});
  }
  if (!std::isnan(o.min_sqnr))
    for (const debug::OutputComparison& out : c.outputs)
      gates.push_back({"min-sqnr" + (c.outputs.size() > 1 ? " " + out.name : ""),
                       fmt::format("the SQNR of output %{} is {} dB (at least {:g})", out.name,
                                   db_text(out.sqnr), o.min_sqnr),
                       out.sqnr >= o.min_sqnr});
  if (o.min_speedup >= 0) {
    const double ratio = c.float_ms / c.quantized_ms;
    gates.push_back({"min-speedup",
                     fmt::format("the quantized model is {:.2f} times as fast (at least {:g})",
                                 ratio, o.min_speedup),
                     ratio >= o.min_speedup});
  }
  return gates;
}

void run(const Options& o) {
  o.run.apply();
  if (!o.junit.empty() && !o.has_gates())
    wrong_usage("--junit has nothing to say without --max-drop, --min-sqnr or --min-speedup");
  const std::vector<std::filesystem::path> inputs{o.before, o.after, o.data};
  if (!o.html.empty()) check_output(OutputKind::page, o.html, inputs, o.force);
  if (!o.junit.empty()) check_output(OutputKind::xml, o.junit, inputs, o.force);
  const graph::InputShapes shapes = o.shape.shapes();
  const graph::Graph before = load_model(o.before, shapes), after = load_model(o.after, shapes);
  const Dataset dataset = o.sampling.open(o.data, before);
  const int64_t count = o.sampling.count(dataset);
  check_labels(dataset, before, count);
  const bool classes = dataset.has_labels() && before.type(before.outputs().at(0)).dim() == 2;
  if (o.max_drop >= 0 && !classes)
    fail(ErrorCode::invalid_argument,
         fmt::format("--max-drop needs labels to measure top-1 with, and a first output of shape "
                     "(samples, classes); {} and %{} do not give that",
                     dataset.description(), before.value(before.outputs()[0]).name));
  const bool is_first = team().is_first();
  debug::Comparison c = compare_models(before, after, dataset, count, o.advise || !o.html.empty(),
                                       o.min_speedup >= 0 ? 0.3 : 0.03);
  if (!is_first) return;
  const debug::ReportOptions names{o.before, o.after, dataset.description()};
  if (!o.html.empty()) write_file_atomically(o.html, debug::html_report(c, names));
  const std::vector<debug::Gate> gates = gates_of(o, c);
  if (!o.junit.empty())
    write_file_atomically(o.junit, debug::junit_report(gates, "octet compare " + o.after));
  if (o.json) {
    fmt::print("{}\n", debug::to_json(c, names));
  } else {
    fmt::print("{} beside {}, {} samples\n", o.after, o.before, c.samples);
    print_summary(c);
    print_layers(c, o.top);
    if (!o.html.empty()) fmt::print("page: {}\n", o.html);
    for (const debug::Gate& gate : gates)
      if (gate.passed) fmt::print("ok: {}: {}\n", gate.name, gate.message);
  }
  std::string reasons;
  for (const debug::Gate& gate : gates)
    if (!gate.passed)
      reasons += fmt::format("{}--{}: {}", reasons.empty() ? "" : "; ", gate.name, gate.message);
  if (!reasons.empty()) fail(ErrorCode::invalid_argument, reasons);
}

void add_compare(CommandLine& program) {
  auto o = std::make_shared<Options>();
  Command command =
      program.add_command("compare", "a quantized model beside the float one, layer by layer");
  command.add_option("FLOAT", o->before, ".onnx or .octet").type_name("").required();
  command.add_option("QUANT", o->after, ".onnx or .octet, made from FLOAT")
      .type_name("")
      .required();
  command.add_option("--data", o->data, "samples, with `labels` for top-1")
      .type_name("DATA")
      .required();
  command.add_option("--html", o->html, "write a page for a browser").type_name("FILE");
  command.add_option("--top", o->top, "how many layers to list (default 10)")
      .type_name("N")
      .check(whole_number(0, 1000000));
  command.add_flag("--advise", o->advise,
                   "try what may help the worst layers (10 s at most; --html does it too)");
  command.add_option("--max-drop", o->max_drop, "fail if top-1 falls by more than so many points")
      .type_name("POINTS")
      .check(number_in(0, 100));
  command.add_option("--min-sqnr", o->min_sqnr, "fail if an output has a lower SQNR")
      .type_name("DB")
      .check(number_in(-200, 200));
  command
      .add_option("--min-speedup", o->min_speedup,
                  "fail unless it is so many times as fast as float")
      .type_name("X")
      .check(positive_number());
  command.add_option("--junit", o->junit, "write what passed and failed as JUnit XML")
      .type_name("FILE");
  command.add_flag("--json", o->json, "print one JSON object");
  add_force(command, o->force);
  o->sampling.add_to(command);
  o->shape.add_to(command);
  o->run.add_to(command);
  command.footer(
      "Layers are listed by what they cost the output. `noise` is a layer's share of the output's\n"
      "noise, `SQNR` within the quantized model and `own` alone, in dB; `codes` of 256 are used.\n"
      "Exit status 1 also where a condition (--max-drop, ...) does not hold.\n"
      "Example: octet compare net.onnx net.octet --data test.npz --max-drop 0.5 --html net.html");
  command.callback([o] { run(*o); }, Command::Ranks::several);
}

const RegisteredCommand g_compare("compare", add_compare);

}  // namespace

debug::Comparison compare_models(const graph::Graph& float_graph, const graph::Graph& after,
                                 const Dataset& dataset, int64_t count, bool advise,
                                 double seconds) {
  constexpr int64_t kMostForSteps = 64, kAtOnce = 4;
  graph::Graph before = float_graph;
  if (quant::has_float_counterpart(after))
    before = quant::float_counterpart(
        float_graph, after,
        sample_batches(float_graph, dataset, std::min(count, kMostForSteps), kAtOnce));
  Progress bar("comparing", count);
  debug::Samples samples{.count = count, .batch = batch_size(dataset, 32), .get = {}};
  const bool classes = before.type(before.outputs().at(0)).dim() == 2;
  samples.get = [&](int64_t begin, int64_t size) {
    const Batch batch = dataset.get(begin, size);
    return debug::SampleBatch{ordered_inputs(before, batch), classes ? batch.labels : Tensor()};
  };
  debug::CompareOptions options;
  options.progress = [&](int64_t n) { bar.advance(n); };
  team().restart_counter();
  const debug::SharedSamples shared{
      .next = [] { return team().next(); },
      .reduce = [](const auto& own, const auto& merge) { team().reduce(own, merge); },
      .is_first = team().is_first()};
  if (team().size() > 1) options.shared = &shared;
  debug::Comparison c = debug::compare(before, after, samples, options);
  bar.finish();
  const bool is_first = team().is_first();
  leave_team();
  if (!is_first) return c;  // the first rank does the rest
  if (advise) debug::advise(c, before, after, samples);
  const runtime::Program a = runtime::compile(before), b = runtime::compile(after);
  print_warnings(b);
  const std::vector<Tensor> x = ordered_inputs(before, dataset.get(0, batch_size(dataset, 1)));
  const std::vector<Latency> latency = measure({&a, &b}, {x, x}, seconds);
  c.float_ms = latency[0].median_ms;
  c.quantized_ms = latency[1].median_ms;
  c.float_bytes = weight_bytes(before);
  c.quantized_bytes = weight_bytes(after);
  c.float_memory_bytes = static_cast<int64_t>(a.arena_bytes(x));
  c.quantized_memory_bytes = static_cast<int64_t>(b.arena_bytes(x));
  return c;
}

}  // namespace octet::cli
