// The graph as text, and back.
#include <cctype>
#include <cstdlib>
#include <cstring>

#include "octet/base/check_impl.h"
#include "octet/graph/graph.h"

namespace octet::graph {
namespace {

constexpr int64_t kInline = 8;  // plain constants of up to this many elements are printed

bool prints_inline(const Tensor& t) { return !t.is_quantized() && t.numel() <= kInline && t.numel() > 0; }

std::string literal(const Tensor& t) {
  std::vector<std::string> parts;
  Tensor flat = t.reshape({-1});
  for (int64_t i = 0; i < flat.numel(); ++i) {
    double v = flat.at({i});
    if (t.dtype() == DType::float32) parts.push_back(fmt::format("{}", static_cast<float>(v)));
    else if (is_floating(t.dtype())) parts.push_back(fmt::format("{}", v));
    else if (t.dtype() == DType::int64) parts.push_back(fmt::format("{}", flat.to_vector<int64_t>()[i]));
    else parts.push_back(fmt::format("{:.0f}", v));
  }
  return t.dim() == 0 ? parts[0] : fmt::format("[{}]", fmt::join(parts, ", "));
}

std::string call_text(const Graph& g, const Node& node) {
  const ops::Op* op = ops::find(node.op);
  std::vector<std::string> args;
  for (ValueId id : node.inputs) args.push_back(id == kNone ? "none" : "%" + g.value(id).name);
  for (const auto& [name, value] : node.attrs) {
    bool is_default = false;
    if (op)
      for (const auto& [key, fallback] : op->attrs()) is_default |= key == name && fallback && *fallback == value;
    if (!is_default) args.push_back(name + "=" + to_string(value));
  }
  return fmt::format("{}({})", node.op, fmt::join(args, ", "));
}

// -- parsing -----------------------------------------------------------------------------------------

class Parser {
 public:
  Parser(std::string_view text, const std::map<std::string, Tensor>& constants) : text_(text), constants_(constants) {}

  Graph parse() {
    std::string line;
    bool open = false, closed = false;
    while (next_line(line)) {
      if (line.empty()) continue;
      try {
        OCTET_CHECK(!closed, corrupt, "text after the closing brace");
        if (!open) {
          OCTET_CHECK(line.rfind("graph ", 0) == 0 && line.ends_with("{"), corrupt, "expected 'graph NAME {{'");
          graph_.name = line.substr(6, line.find_last_not_of(" {") - 5);
          open = true;
        } else if (line == "}") {
          closed = true;
        } else if (line.rfind("return", 0) == 0) {
          graph_.set_outputs(operands(line.substr(6)));
        } else {
          statement(line);
        }
      } catch (const Error& e) {
        OCTET_FAIL(corrupt, "graph text, line {}: {}", number_, e.what());
      }
    }
    OCTET_CHECK(closed, corrupt, "graph text: no closing brace");
    graph_.check();
    return std::move(graph_);
  }

 private:
  bool next_line(std::string& line) {
    if (at_ >= text_.size()) return false;
    size_t end = std::min(text_.find('\n', at_), text_.size());
    std::string_view view = text_.substr(at_, end - at_);
    at_ = end + 1;
    ++number_;
    size_t first = view.find_first_not_of(" \t\r"), last = view.find_last_not_of(" \t\r");
    line = first == std::string_view::npos ? "" : std::string(view.substr(first, last - first + 1));
    return true;
  }

  // "(%a, none, %b)" to value ids.
  std::vector<ValueId> operands(const std::string& list) const {
    std::vector<ValueId> ids;
    size_t i = 0;
    while ((i = list.find('%', i)) != std::string::npos) {
      size_t end = list.find_first_of(",) ", i);
      ids.push_back(lookup(list.substr(i + 1, end - i - 1)));
      i = end;
    }
    return ids;
  }

  ValueId lookup(const std::string& name) const {
    auto id = graph_.find(name);
    OCTET_CHECK(id, corrupt, "%{} is not defined", name);
    return *id;
  }

  // %a: TYPE[, %b: TYPE] = RIGHT  [# note] [@ scope]
  void statement(std::string line) {
    Node node;
    size_t comment = find_outside_quotes(line, "  # ");
    if (comment != std::string::npos) {
      node.note = line.substr(comment + 4);
      line.resize(comment);
    }
    size_t scope = find_outside_quotes(line, "  @ ");
    if (scope != std::string::npos) {
      node.scope = line.substr(scope + 4);
      line.resize(scope);
    }
    size_t equals = line.find(" = ");
    OCTET_CHECK(equals != std::string::npos, corrupt, "expected '%name: Type = ...', got '{}'", line);
    std::string left = line.substr(0, equals), right = line.substr(equals + 3);
    std::vector<Value> outputs;
    for (size_t i = 0; i < left.size();) {
      OCTET_CHECK(left[i] == '%', corrupt, "expected a value's name, got '{}'", left.substr(i));
      size_t colon = left.find(": ", i), end = left.find(", %", i);
      OCTET_CHECK(colon != std::string::npos && (end == std::string::npos || colon < end), corrupt,
                  "expected '%name: Type', got '{}'", left.substr(i));
      outputs.push_back({left.substr(i + 1, colon - i - 1),
                         parse_type(left.substr(colon + 2, end == std::string::npos ? end : end - colon - 2))});
      i = end == std::string::npos ? left.size() : end + 2;
    }
    OCTET_CHECK(!outputs.empty(), corrupt, "no result in '{}'", line);
    if (right == "input") {
      node.kind = NodeKind::input;
    } else if (right == "constant" || right.rfind("constant ", 0) == 0) {
      node.kind = NodeKind::constant;
      node.value = constant(outputs[0], right.size() > 9 ? right.substr(9) : "");
    } else {
      call(node, right);
    }
    graph_.add_raw(std::move(node), outputs);
  }

  static size_t find_outside_quotes(const std::string& line, const std::string& what) {
    bool quoted = false;
    for (size_t i = 0; i < line.size(); ++i) {
      if (line[i] == '"' && (i == 0 || line[i - 1] != '\\')) quoted = !quoted;
      if (!quoted && line.compare(i, what.size(), what) == 0) return i;
    }
    return std::string::npos;
  }

  Tensor constant(const Value& value, const std::string& text) const {
    if (auto it = constants_.find(value.name); it != constants_.end()) return it->second;
    Shape shape = value.type.shape();
    if (value.type.is_quantized()) {
      Tensor codes = Tensor::zeros(shape, code_dtype(value.type.dtype));
      return make_quantized(codes, value.type.quantizer);
    }
    if (text.empty()) return Tensor::zeros(shape, value.type.dtype);
    std::vector<double> values;
    std::vector<int64_t> integers;
    for (const char* p = text.c_str(); *p;) {
      if (std::strchr("[], ", *p)) {
        ++p;
        continue;
      }
      char* end = nullptr;
      values.push_back(std::strtod(p, &end));
      OCTET_CHECK(end != p, corrupt, "cannot read the constant '{}'", text);
      integers.push_back(std::strtoll(p, nullptr, 10));
      p = end;
    }
    OCTET_CHECK(static_cast<int64_t>(values.size()) == numel(shape), corrupt, "{} values for {}", values.size(),
                to_string(value.type));
    if (value.type.dtype == DType::int64) return Tensor::from(integers, shape);
    return Tensor::from(values, shape).to(value.type.dtype);
  }

  // op(%a, none, name=value, ...)
  void call(Node& node, const std::string& right) const {
    size_t open = right.find('(');
    OCTET_CHECK(open != std::string::npos && right.back() == ')', corrupt, "expected 'op(...)', got '{}'", right);
    node.op = right.substr(0, open);
    Attrs attrs;
    std::string argument;
    int depth = 0;
    bool quoted = false;
    for (size_t i = open + 1; i < right.size(); ++i) {
      char c = right[i];
      if (c == '"' && right[i - 1] != '\\') quoted = !quoted;
      if (!quoted && c == '[') ++depth;
      if (!quoted && c == ']') --depth;
      bool end = !quoted && depth == 0 && (c == ',' || i + 1 == right.size());
      if (!end) {
        if (!(argument.empty() && c == ' ')) argument += c;
        continue;
      }
      if (argument.empty()) continue;
      if (argument == "none") node.inputs.push_back(kNone);
      else if (argument[0] == '%') node.inputs.push_back(lookup(argument.substr(1)));
      else {
        size_t equals = argument.find('=');
        OCTET_CHECK(equals != std::string::npos, corrupt, "expected 'name=value', got '{}'", argument);
        attrs.set(argument.substr(0, equals), parse_attr(argument.substr(equals + 1)));
      }
      argument.clear();
    }
    node.attrs = ops::get(node.op).complete(attrs);
  }

  std::string_view text_;
  const std::map<std::string, Tensor>& constants_;
  size_t at_ = 0;
  int number_ = 0;
  Graph graph_;
};

}  // namespace

std::string print(const Graph& g, const PrintOptions& options) {
  std::string out = fmt::format("graph {} {{\n", g.name);
  for (const Node& node : g.nodes()) {
    if (node.kind == NodeKind::constant && !options.constants) continue;
    std::vector<std::string> left;
    for (ValueId id : node.outputs)
      left.push_back(fmt::format("%{}: {}", g.value(id).name, to_string(g.type(id), !options.full)));
    std::string right = node.kind == NodeKind::input ? "input" : node.kind == NodeKind::constant ? "constant" : call_text(g, node);
    if (node.kind == NodeKind::constant && prints_inline(node.value)) right += " " + literal(node.value);
    out += fmt::format("  {} = {}", fmt::join(left, ", "), right);
    if (!node.scope.empty()) out += "  @ " + node.scope;
    if (!node.note.empty()) out += "  # " + node.note;
    out += "\n";
  }
  std::vector<std::string> results;
  for (ValueId id : g.outputs()) results.push_back("%" + g.value(id).name);
  return out + fmt::format("  return ({})\n}}\n", fmt::join(results, ", "));
}

Graph parse(std::string_view text, const std::map<std::string, Tensor>& constants) {
  return Parser(text, constants).parse();
}

}  // namespace octet::graph
