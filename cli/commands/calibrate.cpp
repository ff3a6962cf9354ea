// octet calibrate MODEL --data DATA --shard I/N -o STATS
#include <fmt/format.h>

#include <charconv>
#include <memory>

#include "cli/calibrate.h"
#include "cli/config.h"
#include "octet/base/error.h"
#include "octet/debug/check.h"

namespace octet::cli {
namespace {

struct Shard {
  int64_t i = 0, n = 1;
};

// "3/8".
Shard parse_shard(const std::string& text) {
  Shard s;
  const char* end = text.data() + text.size();
  const auto [slash, first] = std::from_chars(text.data(), end, s.i);
  if (first == std::errc() && slash != end && *slash == '/') {
    const auto [last, second] = std::from_chars(slash + 1, end, s.n);
    if (second == std::errc() && last == end && s.n >= 1 && s.i >= 0 && s.i < s.n) return s;
  }
  fail(ErrorCode::invalid_argument,
       fmt::format("'{}' is no part I/N of the samples, with I from 0 to N - 1", text));
}

struct CalibrateOptions {
  std::string model, data, out, shard = "0/1";
  bool force = false;
  QuantizeChoice choice;
  DataOptions sampling;
  ShapeOptions shape;
  RunOptions run;
};

void run_calibrate(CalibrateOptions o) {
  o.run.apply();
  o.choice.read_config();
  check_output(OutputKind::statistics, o.out, {o.model, o.data, o.choice.config}, o.force);
  const Shard shard = parse_shard(o.shard);
  const graph::Graph source = load_model(o.model, o.shape.shapes());
  debug::Check found = debug::check(
      source, {.mapping = o.choice.static_mapping(), .prepare = o.choice.prepare_options()});
  std::optional<Dataset> dataset;
  found.collect([&] { dataset = o.sampling.open(o.data, source); });
  found.require_ok();
  const dist::Shard seen = calibrate_part(*found.prepared, *dataset, o.data,
                                          o.sampling.count(*dataset), shard.i, shard.n);
  dist::save_shard(o.out, seen);
  fmt::print("{}: {} of {} samples, {} observers ({})\n", o.out, seen.count(), seen.plan.samples,
             seen.all().observers().size(), human_bytes(static_cast<double>(file_bytes(o.out))));
}

void add_calibrate(CommandLine& program) {
  auto o = std::make_shared<CalibrateOptions>();
  Command command =
      program.add_command("calibrate", "see a part of the samples, for quantize --stats");
  command.add_option("MODEL", o->model, "the trained network: .onnx or .octet")
      .type_name("")
      .required();
  command.add_option("--data", o->data, "all samples: an .npz, or a directory of images or arrays")
      .type_name("DATA")
      .required();
  command.add_option("-o,--output", o->out, "what the observers saw").type_name("STATS").required();
  command.add_option("--shard", o->shard, "which part of the samples: 0/4 to 3/4 (0/1)")
      .type_name("I/N")
      .check(accepted_by([](const std::string& text) { parse_shard(text); }));
  o->choice.add_to(command);
  add_force(command, o->force);
  o->sampling.add_to(command);
  o->shape.add_to(command);
  o->run.add_to(command);
  command.footer("Example: octet calibrate net.onnx --data images --shard 0/4 -o stats.0");
  command.callback([o] { run_calibrate(*o); });
}

const RegisteredCommand g_calibrate("calibrate", add_calibrate);

}  // namespace
}  // namespace octet::cli
