// The graph as text, and back.
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>

#include "octet/base/check_impl.h"
#include "octet/base/text.h"
#include "octet/graph/graph.h"

namespace octet::graph {
namespace {

// Behind a call: Node::stays_float.
constexpr std::string_view kStaysFloat = " stays float";
constexpr int64_t kInline = 8;  // plain constants of up to this many elements are printed

bool prints_inline(const Tensor& t) {
  return !t.is_quantized() && t.numel() <= kInline && t.numel() > 0;
}

std::string literal(const Tensor& t) {
  std::vector<std::string> parts;
  Tensor flat = t.reshape({-1});
  for (int64_t i = 0; i < flat.numel(); ++i) {
    double v = flat.at({i});
    if (t.dtype() == DType::float32)
      parts.push_back(fmt::format("{}", static_cast<float>(v)));
    else if (is_floating(t.dtype()))
      parts.push_back(fmt::format("{}", v));
    else if (t.dtype() == DType::int64)
      parts.push_back(fmt::format("{}", flat.to_vector<int64_t>()[i]));
    else
      parts.push_back(fmt::format("{:.0f}", v));
  }
  return t.dim() == 0 ? parts[0] : fmt::format("[{}]", fmt::join(parts, ", "));
}

// A string on one line, between quotes. Unlike octet::to_string(Attr) it has no raw line ends.
std::string quote(const std::string& text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\')
      out += std::string("\\") + c;
    else if (c == '\n')
      out += "\\n";
    else if (static_cast<unsigned char>(c) < ' ' || c == 0x7f)
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    else
      out += c;
  }
  return out + "\"";
}

// Names of graphs, scopes and notes stand there as they are unless that would be ambiguous.
std::string free_text(const std::string& text) {
  bool odd = text.empty() || text[0] == '"' || text[0] == ' ' || text.back() == ' ' ||
             text.back() == '{' || text.find("  ") != std::string::npos;
  for (char c : text) odd |= static_cast<unsigned char>(c) < ' ' || c == 0x7f;
  return odd ? quote(text) : text;
}

std::string call_text(const Graph& g, const Node& node) {
  const ops::Op* op = node.kind == NodeKind::call ? ops::find(node.op) : nullptr;
  std::vector<std::string> args;
  // Operands that give attributes stand behind those: "reshape(%x, shape=%sizes)".
  const auto gives_attr = [&](size_t i) {
    return std::any_of(node.attrs.begin(), node.attrs.end(),
                       [&](const auto& attr) { return node.attrs.operand(attr.first) == i; });
  };
  for (size_t i = 0; i < node.inputs.size(); ++i)
    if (!gives_attr(i))
      args.push_back(node.inputs[i] == kNone ? "none"
                                             : fmt::format("%{}", g.value(node.inputs[i]).name));
  for (const auto& [name, value] : node.attrs) {
    if (const auto operand = node.attrs.operand(name)) {
      args.push_back(fmt::format("{}=%{}", name, g.value(node.inputs.at(*operand)).name));
      continue;
    }
    bool is_default = false;
    if (op)
      for (const auto& [key, fallback] : op->attrs())
        is_default |= key == name && fallback && *fallback == value;
    const auto* text = std::get_if<std::string>(&value);
    if (!is_default) args.push_back(name + "=" + (text ? quote(*text) : to_string(value)));
  }
  return fmt::format("{}{}({})", node.kind == NodeKind::module ? "module " : "", node.op,
                     fmt::join(args, ", "));
}

// -- parsing --------------------------------------------------------------------------------------

// The string whose opening quote is at text[at]; `at` moves behind the closing one.
std::string unquote(const std::string& text, size_t& at) {
  std::string out;
  for (++at; at < text.size() && text[at] != '"'; ++at) {
    if (text[at] != '\\') {
      out += text[at];
      continue;
    }
    char c = ++at < text.size() ? text[at] : 0;
    if (c == 'n')
      out += '\n';
    else if (c == '"' || c == '\\')
      out += c;
    else if (c == 'x' && at + 2 < text.size() &&
             std::isxdigit(static_cast<unsigned char>(text[at + 1])) &&
             std::isxdigit(static_cast<unsigned char>(text[at + 2]))) {
      out += static_cast<char>(std::strtol(text.substr(at + 1, 2).c_str(), nullptr, 16));
      at += 2;
    } else
      OCTET_FAIL(corrupt, "unknown escape in {}", text);
  }
  OCTET_CHECK(at < text.size(), corrupt, "unterminated string in {}", text);
  ++at;
  return out;
}

// What free_text wrote.
std::string read_free_text(const std::string& text) {
  if (text.empty() || text[0] != '"') return text;
  size_t at = 0;
  std::string out = unquote(text, at);
  OCTET_CHECK(at == text.size(), corrupt, "text after the string in {}", text);
  return out;
}

// Where a call ends and its scope or note begins: the first "  @ " or "  # " outside strings, or
// the end.
size_t end_of_code(const std::string& line) {
  for (size_t at = 0; at < line.size();) {
    if (line.compare(at, 4, "  @ ") == 0 || line.compare(at, 4, "  # ") == 0) return at;
    if (line[at] == '"')
      unquote(line, at);
    else
      ++at;
  }
  return line.size();
}

std::string trim(const std::string& s) {
  size_t first = s.find_first_not_of(" \t\r"), last = s.find_last_not_of(" \t\r");
  return first == std::string::npos ? "" : s.substr(first, last - first + 1);
}

// "(a, [1, 2], "x, y")" to its items; commas inside brackets and strings do not separate.
std::vector<std::string> split_list(const std::string& list) {
  OCTET_CHECK(list.size() >= 2 && list[0] == '(' && list.back() == ')', corrupt,
              "expected '(...)', got '{}'", list);
  std::vector<std::string> items;
  int depth = 0;
  size_t begin = 1, end = list.size() - 1;
  for (size_t at = 1; at < end;) {
    char c = list[at];
    if (c == '"') {
      unquote(list, at);
      continue;
    }
    depth += (c == '[') - (c == ']');
    if (c == ',' && depth == 0) {
      items.push_back(trim(list.substr(begin, at - begin)));
      begin = at + 1;
    }
    ++at;
  }
  OCTET_CHECK(depth == 0, corrupt, "unbalanced brackets in '{}'", list);
  std::string last = trim(list.substr(begin, end - begin));
  if (!items.empty() || !last.empty()) items.push_back(last);
  return items;
}

// Messages are one line, whatever a damaged text has in its strings.
std::string on_one_line(std::string message) {
  for (char& c : message)
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) c = '?';
  return message;
}

class Parser {
 public:
  Parser(std::string_view text, const std::map<std::string, Tensor>& constants)
      : text_(text), constants_(constants) {}

  Graph parse() {
    enum { before, inside, returned, closed } state = before;
    std::string line;
    while (next_line(line)) {
      if (line.empty()) continue;
      try {
        OCTET_CHECK(state != closed, corrupt, "text after the closing brace");
        if (state == before) {
          OCTET_CHECK(line.starts_with("graph ") && line.ends_with(" {"), corrupt,
                      "expected 'graph NAME {{', got '{}'", line);
          graph_.name = read_free_text(trim(line.substr(6, line.size() - 7)));
          state = inside;
        } else if (state == returned) {
          OCTET_CHECK(line == "}", corrupt, "expected '}}' after 'return', got '{}'", line);
          state = closed;
        } else if (line.starts_with("return ")) {
          std::vector<ValueId> outputs;
          for (const std::string& item : split_list(line.substr(7)))
            outputs.push_back(value_named(item));
          graph_.set_outputs(std::move(outputs));
          state = returned;
        } else {
          statement(line);
        }
      } catch (const Error& e) {
        OCTET_FAIL(corrupt, "graph text, line {}: {}", number_, on_one_line(e.what()));
      }
    }
    OCTET_CHECK(state == closed, corrupt,
                "graph text, line {}: the text ends before 'return (...)' and '}}'", number_);
    return std::move(graph_);
  }

 private:
  bool next_line(std::string& line) {
    if (at_ >= text_.size()) return false;
    size_t end = std::min(text_.find('\n', at_), text_.size());
    line = trim(std::string(text_.substr(at_, end - at_)));
    at_ = end + 1;
    ++number_;
    return true;
  }

  ValueId value_named(const std::string& item) const {
    OCTET_CHECK(item.starts_with("%"), corrupt, "expected a value's name, got '{}'", item);
    auto id = graph_.find(std::string_view(item).substr(1));
    OCTET_CHECK(id, corrupt, "{} is not defined", item);
    return *id;
  }

  // %a: TYPE[, %b: TYPE] = RIGHT[ stays float][  @ scope][  # note]
  void statement(const std::string& line) {
    Node node;
    size_t code = end_of_code(line), rest = code;
    if (line.compare(code, 4, "  @ ") == 0) {
      rest = code + 4;
      if (line[rest] == '"')
        node.scope = unquote(line, rest);
      else {
        rest = std::min(line.find("  # ", rest), line.size());
        node.scope = line.substr(code + 4, rest - code - 4);
      }
    }
    if (line.compare(rest, 4, "  # ") == 0)
      node.note = read_free_text(line.substr(rest + 4));
    else
      OCTET_CHECK(rest == line.size(), corrupt, "text after the scope: '{}'", line.substr(rest));
    size_t equals = line.find(" = ");
    OCTET_CHECK(equals < code, corrupt, "expected '%name: Type = ...', got '{}'", line);
    std::string left = line.substr(0, equals),
                right = trim(line.substr(equals + 3, code - equals - 3));
    if (right.ends_with(kStaysFloat)) {
      node.stays_float = true;
      right.resize(right.size() - kStaysFloat.size());
    }
    std::vector<Value> outputs;
    for (size_t i = 0; i < left.size();) {
      OCTET_CHECK(left[i] == '%', corrupt, "expected a value's name, got '{}'", left.substr(i));
      size_t colon = left.find(": ", i), end = left.find(", %", i);
      OCTET_CHECK(colon != std::string::npos && (end == std::string::npos || colon < end), corrupt,
                  "expected '%name: Type', got '{}'", left.substr(i));
      outputs.push_back(
          {left.substr(i + 1, colon - i - 1),
           parse_type(left.substr(colon + 2, end == std::string::npos ? end : end - colon - 2))});
      i = end == std::string::npos ? left.size() : end + 2;
    }
    OCTET_CHECK(!outputs.empty(), corrupt, "no result in '{}'", line);
    if (right == "input") {
      node.kind = NodeKind::input;
    } else if (right == "constant" || right.starts_with("constant ")) {
      node.kind = NodeKind::constant;
      node.value = constant(outputs[0], right.size() > 9 ? right.substr(9) : "");
    } else {
      call(node, right);
    }
    graph_.check_node(graph_.add_raw(std::move(node), outputs));
  }

  Tensor constant(const Value& value, const std::string& text) const {
    if (auto it = constants_.find(value.name); it != constants_.end()) return it->second;
    Shape shape = value.type.shape();
    double bytes = static_cast<double>(element_size(value.type.dtype));
    for (int64_t d : shape) bytes *= static_cast<double>(d);
    OCTET_CHECK(bytes <= 1e9, corrupt, "the constant %{} has {} and no data", value.name,
                human_bytes(bytes));
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
    OCTET_CHECK(static_cast<int64_t>(values.size()) == numel(shape), corrupt, "{} values for {}",
                values.size(), to_string(value.type));
    if (value.type.dtype == DType::int64) return Tensor::from(integers, shape);
    return Tensor::from(values, shape).to(value.type.dtype);
  }

  // op(%a, none, name=value, ...)
  void call(Node& node, const std::string& right) const {
    size_t open = right.find('(');
    OCTET_CHECK(open != std::string::npos, corrupt, "expected 'op(...)', got '{}'", right);
    node.op = right.substr(0, open);
    if (node.op.starts_with("module ")) {
      node.kind = NodeKind::module;
      node.op = node.op.substr(7);
    }
    Attrs attrs;
    for (const std::string& item : split_list(right.substr(open))) {
      size_t equals = item.find('=');
      if (item == "none") {
        node.inputs.push_back(kNone);
      } else if (item.starts_with("%")) {
        node.inputs.push_back(value_named(item));
      } else {
        OCTET_CHECK(equals != std::string::npos, corrupt,
                    "expected '%value', 'none' or 'name=value', got '{}'", item);
        std::string name = item.substr(0, equals), text = item.substr(equals + 1);
        OCTET_CHECK(!attrs.has(name), corrupt, "attribute '{}' is given twice", name);
        if (text.starts_with("%")) {
          attrs.set(name, FromOperand{static_cast<int64_t>(node.inputs.size())});
          node.inputs.push_back(value_named(text));
        } else if (text.starts_with("\""))
          attrs.set(name, read_free_text(text));
        else
          attrs.set(name, parse_attr(text));
      }
    }
    if (node.kind == NodeKind::call)
      node.attrs = ops::get(node.op).complete(attrs);
    else
      OCTET_CHECK(attrs.size() == 0, corrupt, "a module call has no attributes: '{}'", right);
  }

  std::string_view text_;
  const std::map<std::string, Tensor>& constants_;
  size_t at_ = 0;
  int number_ = 0;
  Graph graph_;
};

}  // namespace

std::string print(const Graph& g, const PrintOptions& options) {
  std::string out = fmt::format("graph {} {{\n", free_text(g.name));
  for (const Node& node : g.nodes()) {
    if (node.kind == NodeKind::constant && !options.constants) continue;
    std::vector<std::string> left;
    for (ValueId id : node.outputs)
      left.push_back(
          fmt::format("%{}: {}", g.value(id).name, to_string(g.type(id), !options.full)));
    std::string right = node.kind == NodeKind::input      ? "input"
                        : node.kind == NodeKind::constant ? "constant"
                                                          : call_text(g, node);
    if (node.kind == NodeKind::constant && prints_inline(node.value))
      right += " " + literal(node.value);
    out += fmt::format("  {} = {}", fmt::join(left, ", "), right);
    if (node.stays_float) out += kStaysFloat;
    if (!node.scope.empty()) out.append("  @ ").append(free_text(node.scope));
    if (!node.note.empty()) out.append("  # ").append(free_text(node.note));
    out += "\n";
  }
  std::vector<std::string> results;
  for (ValueId id : g.outputs()) results.push_back(fmt::format("%{}", g.value(id).name));
  return out + fmt::format("  return ({})\n}}\n", fmt::join(results, ", "));
}

Graph parse(std::string_view text, const std::map<std::string, Tensor>& constants) {
  return Parser(text, constants).parse();
}

}  // namespace octet::graph
