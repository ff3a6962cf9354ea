// octet stats show|merge STATS... [-o MERGED]
#include <fmt/format.h>

#include <memory>

#include "cli/calibrate.h"

namespace octet::cli {
namespace {

struct StatsOptions {
  std::string action, out;
  std::vector<std::string> files;
  bool force = false;
};

void print_statistics(const dist::Shard& shard) {
  const dist::Plan& plan = shard.plan;
  fmt::print("{} of {} samples of {}, in batches of {}{}\n", shard.count(), plan.samples,
             shard.data, plan.step, shard.count() == plan.samples ? ": all of them" : "");
  const quant::CalibrationStatistics all = shard.all();
  fmt::print("network {}, {} observers\n", shard.network, all.observers().size());
  for (const auto& [path, observer] : all.observers())
    fmt::print("  {:<40} {}\n", observer->label().empty() ? path : observer->label(),
               quant::to_string(*observer));
}

void run_stats(const StatsOptions& o) {
  if (o.action == "show") {
    if (!o.out.empty()) wrong_usage("octet stats show writes nothing: leave -o out");
    print_statistics(merged_statistics(o.files));
    return;
  }
  if (o.out.empty()) wrong_usage("octet stats merge needs -o MERGED");
  check_output(OutputKind::statistics, o.out, {o.files.begin(), o.files.end()}, o.force);
  const dist::Shard all = merged_statistics(o.files);
  dist::save_shard(o.out, all);
  fmt::print("{}: {} of {} samples\n", o.out, all.count(), all.plan.samples);
}

void add_stats(CommandLine& program) {
  auto o = std::make_shared<StatsOptions>();
  Command command =
      program.add_command("stats", "merge what several octet calibrate saw, or show it");
  command.add_option("ACTION", o->action, "merge, show")
      .type_name("")
      .required()
      .check(one_of({"merge", "show"}));
  command.add_option("STATS", o->files, "files of octet calibrate").type_name("").required();
  command.add_option("-o,--output", o->out, "the statistics of all of them").type_name("MERGED");
  add_force(command, o->force);
  command.footer("Example: octet stats merge stats.0 stats.1 -o stats.all");
  command.callback([o] { run_stats(*o); });
}

const RegisteredCommand g_stats("stats", add_stats);

}  // namespace
}  // namespace octet::cli
