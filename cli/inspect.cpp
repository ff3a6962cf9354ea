// octet inspect MODEL
#include <fmt/format.h>

#include <memory>

#include "common.h"
#include "octet/base/text.h"
#include "octet/io/module_file.h"

namespace octet::cli {
namespace {

JsonValue to_json(const graph::Graph& g) {
  auto values = [&](const std::vector<graph::ValueId>& ids) {
    JsonValue list = JsonValue::array();
    for (auto id : ids)
      list.push_back(id == graph::kNone
                         ? JsonValue()
                         : JsonValue::object({{"name", g.value(id).name},
                                              {"type", to_string(g.type(id), false)}}));
    return list;
  };
  JsonValue nodes = JsonValue::array();
  const std::vector<bool> quantized = run_quantized(g);
  for (const auto& node : g.nodes()) {
    if (node.kind != graph::NodeKind::call) continue;
    JsonValue attrs = JsonValue::object();
    for (const auto& [name, value] : node.attrs) attrs.set(name, to_string(value));
    JsonValue json = JsonValue::object(
        {{"op", node.op},
         {"name", node.scope},
         {"inputs", values(node.inputs)},
         {"outputs", values(node.outputs)},
         {"attrs", attrs},
         {"quantized",
          static_cast<bool>(quantized[static_cast<size_t>(&node - g.nodes().data())])}});
    if (!node.note.empty()) json.set("note", node.note);
    if (node.stays_float) json.set("stays_float", true);
    nodes.push_back(std::move(json));
  }
  NodeCount n = count_nodes(g);
  return JsonValue::object({{"name", g.name},
                            {"inputs", values(g.inputs())},
                            {"outputs", values(g.outputs())},
                            {"operators", n.total},
                            {"quantized_operators", n.quantized},
                            {"nodes", nodes},
                            {"weight_bytes", weight_bytes(g)},
                            {"metadata", g.metadata}});
}

void add_inspect(CommandLine& program) {
  struct Options {
    std::string model;
    bool json = false, full = false;
  };
  auto o = std::make_shared<Options>();
  Command command = program.add_command(
      "inspect",
      "the typed graph: what is 8-bit, what stayed float and why; or the tree of modules");
  command.add_option("MODEL", o->model, ".onnx or .octet").type_name("").required();
  command.add_flag("--json", o->json, "print one JSON object");
  command.add_flag("--full", o->full, "per-channel scales in full");
  command.footer(
      "QUInt8 and QInt8 are 8 bits: x = scale * (code - zero_point). `# float:` says why\n"
      "an operator is not. The name behind `@` is what --skip knows an operator by.\n"
      "Example: octet inspect net.octet");
  command.callback([o] {
    std::filesystem::path path = o->model;
    if (path.extension() == ".octet" && io::is_model_file(path)) {
      std::string tree = io::describe_model(path);
      if (o->json)
        print_json(JsonValue::object({{"modules", tree}}));
      else
        fmt::print("{}\n", tree);
      return;
    }
    graph::Graph g = load_model(path);
    if (o->json) {
      print_json(to_json(g));
      return;
    }
    fmt::print("{}", graph::print(g, {.full = o->full}));
    NodeCount n = count_nodes(g);
    fmt::print("# {} of {} operators in 8 bits; weights {}\n", n.quantized, n.total,
               human_bytes(static_cast<double>(weight_bytes(g))));
  });
}

const RegisteredCommand g_inspect("inspect", add_inspect);

}  // namespace

}  // namespace octet::cli
