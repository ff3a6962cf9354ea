// octet convert IN OUT
#include <fmt/format.h>

#include <memory>

#include "common.h"
#include "octet/base/text.h"

namespace octet::cli {

void add_convert(CLI::App& app) {
  struct Options {
    std::string in, out;
    bool force = false;
  };
  auto o = std::make_shared<Options>();
  CLI::App* cmd = app.add_subcommand("convert", "between .onnx and .octet");
  cmd->add_option("IN", o->in, ".onnx or .octet")->type_name("")->required();
  cmd->add_option("OUT", o->out,
                  ".octet, or .onnx (8-bit parts as QuantizeLinear and DequantizeLinear)")
      ->type_name("")
      ->required()
      ->check(output_model());
  add_force(*cmd, o->force);
  cmd->footer("Example: octet convert net.octet net.onnx");
  cmd->callback([o] {
    check_output(OutputKind::model, o->out, {o->in}, o->force);
    graph::Graph graph = load_model(o->in);
    save_model(graph, o->out);
    NodeCount n = count_nodes(graph);
    fmt::print("{}: {} of {} operators in 8 bits ({})\n", o->out, n.quantized, n.total,
               human_bytes(static_cast<double>(file_bytes(o->out))));
  });
}

}  // namespace octet::cli
