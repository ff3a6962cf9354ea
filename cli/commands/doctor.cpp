// octet doctor FLOAT QUANT --data DATA
#include "octet/quant/tune/doctor.h"

#include <fmt/format.h>

#include <cmath>
#include <memory>

#include "cli/common.h"
#include "octet/base/error.h"
#include "octet/base/file.h"
#include "octet/base/progress.h"
#include "octet/base/text.h"

namespace octet::cli {
namespace {

constexpr int64_t kMostSamples = 128, kMostAtOnce = 16;
constexpr int64_t kHoldOutEach = 4, kLeastToHoldOut = 16;

struct Options {
  std::string before, after, data, recipe;
  bool json = false, saturating = false, force = false;
  double seconds = 120;
  DataOptions sampling;
  ShapeOptions shape;
  RunOptions run;
};

int64_t hold_out_of(int64_t count) { return count >= kLeastToHoldOut ? kHoldOutEach : 0; }

std::string db_text(double value) {
  if (std::isnan(value)) return "-";
  return value > 190 ? "exact" : fmt::format("{:.1f}", value);
}

// What octet's options for DATA have to be in place of the given ones.
std::string options_text(const quant::DataChange& change) {
  const auto list = [](const std::vector<double>& v) {
    std::vector<std::string> texts;
    for (double x : v) texts.push_back(fmt::format("{:.6g}", x));
    return fmt::format("{}", fmt::join(texts, ","));
  };
  std::string text = fmt::format("--scale {:.6g}", change.scale);
  if (change.mean != std::vector<double>{0}) text += " --mean " + list(change.mean);
  if (change.std != std::vector<double>{1}) text += " --std " + list(change.std);
  return text;
}

std::string score_text(double score, double top1) {
  return fmt::format("{} dB{}", db_text(score),
                     std::isnan(top1) ? "" : fmt::format(", top-1 {:.4f}", top1));
}

void print_finding(const quant::DoctorFinding& f, int64_t number) {
  fmt::print("\n{}. {}{}: {}\n", number, to_string(f.cause),
             f.layer.empty() ? "" : " (" + f.layer + ")", f.sentence);
  const bool helps = f.best >= 0 && f.gain() >= quant::DoctorOptions().least_gain;
  if (helps) {
    const quant::DoctorCure& cure = f.cures[static_cast<size_t>(f.best)];
    fmt::print("   {}: {}: {} -> {} dB ({:+.1f}){}\n", f.kept ? "cure" : "would help", cure.what,
               db_text(f.before), db_text(cure.score), f.gain(),
               f.kept ? ""
               : f.cause == quant::Cause::saturating_target
                   ? "; --saturating puts it into the recipe"
                   : "; not in the recipe");
  } else {
    fmt::print("   {}\n",
               f.cures.empty() ? "there was nothing to try" : "nothing that was tried helps");
  }
  for (size_t i = 0; i < f.cures.size(); ++i) {
    const quant::DoctorCure& cure = f.cures[i];
    if (helps && static_cast<int>(i) == f.best) continue;
    fmt::print("   also tried: {}: {}\n", cure.what,
               cure.failed.empty() ? db_text(cure.score) + " dB" : "failed: " + cure.failed);
  }
}

void print(const Options& o, const quant::DoctorReport& r, int64_t count, int64_t all) {
  fmt::print(
      "{} beside {}, {} samples{}: {}{}\n", o.after, o.before, count,
      hold_out_of(count) ? fmt::format(", each {}th of which judges", hold_out_of(count)) : "",
      score_text(r.before, r.before_top1),
      std::isnan(r.float_top1) ? "" : fmt::format(" (float {:.4f})", r.float_top1));
  int64_t number = 0;
  for (const quant::DoctorFinding& f : r.findings) print_finding(f, ++number);
  for (const std::string& note : r.notes) fmt::print("note: {}\n", note);
  if (r.findings.empty()) fmt::print("nothing is wrong: rounding to 8 bits leaves 30 to 45 dB\n");
  fmt::print("\n");
  if (!r.cured) {
    fmt::print("no cure: {}\n", r.findings.empty() ? "none is needed" : "nothing gained enough");
    return;
  }
  fmt::print(
      "cured: {}{}\n", score_text(r.after, r.after_top1),
      std::isnan(r.float_top1_after) ? "" : fmt::format(" (float {:.4f})", r.float_top1_after));
  if (r.data) fmt::print("data: {} ({})\n", r.data->what, options_text(*r.data));
  if (!o.recipe.empty())
    fmt::print("recipe: octet quantize {} --recipe {} --calibrate {}{} -o OUT\n", o.before,
               o.recipe, o.data, count < all ? fmt::format(" --samples {}", count) : "");
  else
    fmt::print("--recipe FILE.json writes the recipe of the cured network\n");
}

JsonValue to_json(const Options& o, const quant::DoctorReport& r, int64_t count) {
  JsonValue findings = JsonValue::array();
  for (const quant::DoctorFinding& f : r.findings) {
    JsonValue cures = JsonValue::array();
    for (const quant::DoctorCure& c : f.cures) {
      JsonValue cure = JsonValue::object({{"what", c.what}, {"score_db", c.score}});
      if (!c.failed.empty()) cure.set("failed", c.failed);
      cures.push_back(std::move(cure));
    }
    JsonValue json = JsonValue::object({{"cause", to_string(f.cause)},
                                        {"layer", f.layer},
                                        {"sentence", f.sentence},
                                        {"kept", f.kept},
                                        {"before_db", f.before},
                                        {"after_db", f.after()},
                                        {"cures", cures}});
    if (f.best >= 0) json.set("best", f.cures[static_cast<size_t>(f.best)].what);
    findings.push_back(std::move(json));
  }
  JsonValue json = JsonValue::object({{"float", o.before},
                                      {"quantized", o.after},
                                      {"samples", count},
                                      {"hold_out", hold_out_of(count)},
                                      {"before_db", r.before},
                                      {"after_db", r.after},
                                      {"cured", r.cured},
                                      {"findings", findings},
                                      {"notes", r.notes}});
  if (!std::isnan(r.float_top1)) {
    json.set("float_top1", r.float_top1);
    json.set("before_top1", r.before_top1);
    json.set("after_top1", r.after_top1);
  }
  if (r.data) json.set("data", options_text(*r.data));
  if (r.cured && !o.recipe.empty()) json.set("recipe", o.recipe);
  return json;
}

void run(const Options& o) {
  o.run.apply();
  if (!o.recipe.empty())
    check_output(OutputKind::recipe, o.recipe, {o.before, o.after, o.data}, o.force);
  const graph::InputShapes shapes = o.shape.shapes();
  const graph::Graph before = load_model(o.before, shapes), after = load_model(o.after, shapes);
  if (count_nodes(before).quantized)
    fail(ErrorCode::invalid_argument,
         fmt::format("{}: is quantized already; FLOAT is the model that {} was made from", o.before,
                     o.after));
  if (!count_nodes(after).quantized)
    fail(ErrorCode::invalid_argument,
         fmt::format("{}: has no operator in 8 bits; QUANT is the quantized model", o.after));
  const Dataset dataset = o.sampling.open(o.data, before);
  int64_t count = o.sampling.count(dataset);
  if (o.sampling.samples == 0) count = std::min(count, kMostSamples);
  const bool classes = dataset.has_labels() && before.type(before.outputs().at(0)).dim() == 2;
  if (classes) check_labels(dataset, before, count);
  std::vector<Tensor> labels;
  const quant::Batches samples =
      sample_batches(before, dataset, count, kMostAtOnce, 0, false, classes ? &labels : nullptr);
  quant::DoctorOptions options{
      .seconds = o.seconds, .hold_out = hold_out_of(count), .saturating = o.saturating};
  if (progress_wanted() && !o.json)
    options.progress = [](const std::string& what) { say("octet: " + what); };
  const quant::DoctorReport r = quant::doctor(before, after, samples, labels, options);
  if (r.cured && !o.recipe.empty()) write_file_atomically(o.recipe, r.recipe.to_json());
  if (o.json)
    print_json(to_json(o, r, count));
  else
    print(o, r, count, dataset.size());
}

void add_doctor(CommandLine& program) {
  auto o = std::make_shared<Options>();
  Command command = program.add_command(
      "doctor", "why a quantized model lost accuracy, and a cure that was tried");
  command.add_option("FLOAT", o->before, ".onnx or .octet").type_name("").required();
  command.add_option("QUANT", o->after, ".onnx or .octet, made from FLOAT")
      .type_name("")
      .required();
  command
      .add_option("--data", o->data,
                  "samples as the network will see them, with `labels` for top-1")
      .type_name("DATA")
      .required();
  command
      .add_option("--recipe", o->recipe, "write the recipe of the cured network, if there is one")
      .type_name("FILE.json");
  command.add_option("--seconds", o->seconds, "no trial begins later (120)")
      .type_name("N")
      .check(positive_number());
  command.add_flag("--saturating", o->saturating,
                   "it will run in a library that adds pairs of products in 16 bits (ONNX Runtime\n"
                   "and others on CPUs without VNNI): keep what helps there");
  command.add_flag("--json", o->json, "print one JSON object");
  add_force(command, o->force);
  o->sampling.add_to(command);
  o->shape.add_to(command);
  o->run.add_to(command);
  command.footer(
      "Scores are the SQNR of the outputs in dB; every figure is of a network that was made and\n"
      "run. Of the samples (the first 128 unless --samples says otherwise) each fourth judges and\n"
      "fits nothing, where there are 16 or more.\n"
      "Example: octet doctor net.onnx net.octet --data test.npz --recipe cured.json");
  command.callback([o] { run(*o); });
}

const RegisteredCommand g_doctor("doctor", add_doctor);

}  // namespace
}  // namespace octet::cli
