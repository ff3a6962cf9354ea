// octet convert IN OUT
#include <fmt/format.h>

#include <memory>

#include "cli/common.h"
#include "octet/base/text.h"

namespace octet::cli {

namespace {

void add_convert(CommandLine& program) {
  struct Options {
    std::string in, out;
    bool force = false;
    ShapeOptions shape;
  };
  auto o = std::make_shared<Options>();
  Command command = program.add_command("convert", "between .onnx and .octet");
  command.add_option("IN", o->in, ".onnx or .octet").type_name("").required();
  command
      .add_option("OUT", o->out,
                  ".octet, or .onnx (8-bit parts as QuantizeLinear and DequantizeLinear)")
      .type_name("")
      .required()
      .check(output_model());
  o->shape.add_to(command);
  add_force(command, o->force);
  command.footer("Example: octet convert net.octet net.onnx");
  command.callback([o] {
    check_output(OutputKind::model, o->out, {o->in}, o->force);
    graph::Graph graph = load_model(o->in, o->shape.shapes());
    save_model(graph, o->out);
    NodeCount n = count_nodes(graph);
    fmt::print("{}: {} of {} operators in 8 bits ({})\n", o->out, n.quantized, n.total,
               human_bytes(static_cast<double>(file_bytes(o->out))));
  });
}

const RegisteredCommand g_convert("convert", add_convert);

}  // namespace

}  // namespace octet::cli
