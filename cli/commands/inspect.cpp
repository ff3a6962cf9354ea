// octet inspect MODEL
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>

#include "cli/common.h"
#include "octet/base/error.h"
#include "octet/base/file.h"
#include "octet/base/progress.h"
#include "octet/base/text.h"
#include "octet/debug/graph_page.h"
#include "octet/graph/passes/fuse_lookups.h"
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
  const std::vector<bool> quantized = graph::calls_on_codes(g);
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

// How many of the calls of an operator run in 8 bits, and what their weights take.
struct OperatorRow {
  std::string op;
  int64_t count = 0, quantized = 0, weight_bytes = 0;
};

std::vector<OperatorRow> operator_rows(const graph::Graph& g) {
  std::map<std::string, OperatorRow> rows;
  std::vector<bool> counted(g.values().size(), false);  // a weight that several read, once
  const std::vector<bool> quantized = graph::calls_on_codes(g);
  for (size_t n = 0; n < g.nodes().size(); ++n) {
    const graph::Node& node = g.nodes()[n];
    if (node.kind != graph::NodeKind::call) continue;
    OperatorRow& row = rows[node.op];
    row.op = node.op;
    ++row.count;
    row.quantized += quantized[n];
    for (graph::ValueId v : node.inputs) {
      if (v == graph::kNone || !g.is_constant(v) || counted[static_cast<size_t>(v)]) continue;
      counted[static_cast<size_t>(v)] = true;
      row.weight_bytes += g.constant(v).nbytes();
    }
  }
  std::vector<OperatorRow> list;
  for (auto& [op, row] : rows) list.push_back(std::move(row));
  std::stable_sort(list.begin(), list.end(), [](const OperatorRow& a, const OperatorRow& b) {
    return std::pair(a.weight_bytes, a.count) > std::pair(b.weight_bytes, b.count);
  });
  return list;
}

// Comments behind the graph, so that all of it is still a graph's text. On a terminal rows that
// stay float, in a graph with others that do not, are yellow.
void print_operators(const graph::Graph& g) {
  const std::vector<OperatorRow> rows = operator_rows(g);
  size_t width = 8;
  for (const OperatorRow& row : rows) width = std::max(width, row.op.size());
  const auto all = static_cast<double>(std::max<int64_t>(weight_bytes(g), 1));
  const NodeCount n = count_nodes(g);
  const bool colour = n.quantized > 0 && colour_wanted(1);
  const std::string widths = code_widths(g, CodesOf::values), head = "in " + widths;
  const size_t column = std::max<size_t>(10, head.size());
  fmt::print("# {:<{}} {:>6} {:>{}} {:>10}\n", "operator", width, "nodes", head, column, "weights");
  for (const OperatorRow& row : rows) {
    const auto bytes = static_cast<double>(row.weight_bytes);
    const std::string weights =
        row.weight_bytes ? fmt::format("{:>10} {:>6.1f}%", human_bytes(bytes), 100 * bytes / all)
                         : fmt::format("{:>10}", "-");
    const bool marked = colour && row.quantized < row.count;
    fmt::print("{}# {:<{}} {:>6} {:>{}} {}{}\n", marked ? "\x1b[33m" : "", row.op, width, row.count,
               row.quantized, column, weights, marked ? "\x1b[0m" : "");
  }
  fmt::print("# {} of {} operators in {}; weights {}\n", n.quantized, n.total, widths,
             human_bytes(static_cast<double>(weight_bytes(g))));
}

// A file of weights: each tensor's name and type.
void print_weights(const std::map<std::string, Tensor>& state, bool json, bool full) {
  int64_t bytes = 0, numbers = 0;
  JsonValue list = JsonValue::array();
  size_t width = 0;
  for (const auto& [name, tensor] : state)
    width = std::max(width, std::min<size_t>(name.size(), 60));
  for (const auto& [name, tensor] : state) {
    bytes += tensor.nbytes();
    numbers += tensor.numel();
    JsonValue shape = JsonValue::array();
    for (const int64_t size : tensor.shape()) shape.push_back(size);
    if (json)
      list.push_back(JsonValue::object({{"name", name},
                                        {"type", to_string(tensor.type(), false)},
                                        {"dtype", to_string(tensor.dtype())},
                                        {"shape", shape},
                                        {"bytes", tensor.nbytes()}}));
    else
      fmt::print("{:<{}} {}\n", name, width, to_string(tensor.type(), !full));
  }
  if (json)
    print_json(JsonValue::object({{"tensors", list}, {"numbers", numbers}, {"bytes", bytes}}));
  else
    fmt::print("# {} tensors, {} numbers, {}\n", state.size(), numbers,
               human_bytes(static_cast<double>(bytes)));
}

void add_inspect(CommandLine& program) {
  struct Options {
    std::string model, key, html;
    bool json = false, full = false, force = false;
    ShapeOptions shape;
  };
  auto o = std::make_shared<Options>();
  Command command = program.add_command(
      "inspect",
      "the typed graph: what is 8-bit, what stayed float and why; the tree of modules; "
      "weights");
  command.add_option("MODEL", o->model, weights_help()).type_name("").required();
  command.add_flag("--json", o->json, "print one JSON object");
  command.add_option("--html", o->html, "write the graph as a page for a browser")
      .type_name("FILE");
  command.add_flag("--full", o->full, "per-channel scales in full");
  o->shape.add_to(command);
  add_key(command, o->key);
  add_force(command, o->force);
  command.footer(
      "QUInt8 and QInt8 are 8 bits: x = scale * (code - zero_point). `# float:` says why\n"
      "an operator is not. The name behind `@` is what --skip knows an operator by.\n"
      "With --html the page has the graph, and only the operators are counted here.\n"
      "Example: octet inspect net.octet");
  command.callback([o] {
    std::filesystem::path path = o->model;
    const auto no_page = [&](const char* what) {
      if (!o->html.empty())
        wrong_usage(fmt::format("--html draws graphs of operators: {} holds {}", o->model, what));
    };
    if (is_weights_name(path)) {
      no_page("weights");
      print_weights(load_weights(path, o->key), o->json, o->full);
      return;
    }
    if (!o->key.empty()) wrong_usage("--key is for weights: " + o->model + " is a network");
    if (path.extension() == ".octet" && io::is_model_file(path)) {
      if (!o->shape.texts.empty())
        fail(ErrorCode::unsupported,
             fmt::format("{}: --shape is for graphs; this file holds a model of modules, whose "
                         "inputs have no shapes",
                         o->model));
      no_page("a model of modules");
      std::string tree = io::describe_model(path);
      if (o->json)
        print_json(JsonValue::object({{"modules", tree}}));
      else
        fmt::print("{}\n", tree);
      return;
    }
    if (!o->html.empty()) check_output(OutputKind::page, o->html, {o->model}, o->force);
    graph::Graph g = load_model(path, o->shape.shapes());
    if (!o->html.empty()) write_file_atomically(o->html, debug::html_graph(g, o->model));
    if (o->json) {
      print_json(to_json(g));
      return;
    }
    if (o->html.empty()) fmt::print("{}", graph::print(g, {.full = o->full}));
    print_operators(g);
    if (!o->html.empty()) fmt::print("page: {}\n", o->html);
  });
}

const RegisteredCommand g_inspect("inspect", add_inspect);

}  // namespace

}  // namespace octet::cli
