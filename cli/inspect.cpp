// octet inspect MODEL
#include <fmt/format.h>

#include <memory>

#include "common.h"
#include "octet/base/text.h"
#include "octet/io/module_file.h"

namespace octet::cli {
namespace {

nlohmann::ordered_json to_json(const graph::Graph& g) {
  using Json = nlohmann::ordered_json;
  auto values = [&](const std::vector<graph::ValueId>& ids) {
    Json list = Json::array();
    for (auto id : ids) {
      if (id == graph::kNone)
        list.push_back(nullptr);
      else
        list.push_back({{"name", g.value(id).name}, {"type", to_string(g.type(id), false)}});
    }
    return list;
  };
  Json nodes = Json::array();
  const std::vector<bool> quantized = run_quantized(g);
  for (const auto& node : g.nodes()) {
    if (node.kind != graph::NodeKind::call) continue;
    Json attrs = Json::object();
    for (const auto& [name, value] : node.attrs) attrs[name] = to_string(value);
    Json json{{"op", node.op},
              {"name", node.scope},
              {"inputs", values(node.inputs)},
              {"outputs", values(node.outputs)},
              {"attrs", attrs},
              {"quantized", quantized[static_cast<size_t>(&node - g.nodes().data())]}};
    if (!node.note.empty()) json["note"] = node.note;
    if (node.stays_float) json["stays_float"] = true;
    nodes.push_back(std::move(json));
  }
  NodeCount n = count_nodes(g);
  return {{"name", g.name},
          {"inputs", values(g.inputs())},
          {"outputs", values(g.outputs())},
          {"operators", n.total},
          {"quantized_operators", n.quantized},
          {"nodes", nodes},
          {"weight_bytes", weight_bytes(g)},
          {"metadata", g.metadata}};
}

}  // namespace

void add_inspect(CLI::App& app) {
  struct Options {
    std::string model;
    bool json = false, full = false;
  };
  auto o = std::make_shared<Options>();
  CLI::App* cmd = app.add_subcommand(
      "inspect",
      "the typed graph: what is 8-bit, what stayed float and why; or the tree of modules");
  cmd->add_option("MODEL", o->model, ".onnx or .octet")->type_name("")->required();
  cmd->add_flag("--json", o->json, "print one JSON object");
  cmd->add_flag("--full", o->full, "per-channel scales in full");
  cmd->footer(
      "QUInt8 and QInt8 are 8 bits: x = scale * (code - zero_point). `# float:` says why\n"
      "an operator is not. The name behind `@` is what --skip knows an operator by.\n"
      "Example: octet inspect net.octet");
  cmd->callback([o] {
    std::filesystem::path path = o->model;
    if (path.extension() == ".octet" && io::is_model_file(path)) {
      std::string tree = io::describe_model(path);
      if (o->json)
        print_json({{"modules", tree}});
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

}  // namespace octet::cli
