// Typed access to an ONNX node's attributes.
#include <onnx/onnx_pb.h>

#include <cmath>
#include <cstdlib>

#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {

using onnx::AttributeProto;

double shortest(float value) {
  return std::isfinite(value) ? std::strtod(fmt::format("{}", value).c_str(), nullptr)
                              : static_cast<double>(value);
}

NodeView::NodeView(const onnx::NodeProto& proto, int64_t opset, const std::filesystem::path& dir)
    : proto_(proto), opset_(opset), dir_(dir) {
  name_ = proto.name();
  if (const std::string& doc = proto.doc_string(); doc.starts_with(kScopeMark))
    name_ = doc.substr(std::string_view(kScopeMark).size());
  const bool no_scope = proto.doc_string() == kScopeMark;
  for (const std::string& out : proto.output())
    if (name_.empty()) name_ = out;
  name_ = one_line(name_);
  if (!no_scope) scope_ = name_;
}

const std::string& NodeView::doc() const { return proto_.doc_string(); }

const std::string& NodeView::op() const { return proto_.op_type(); }

bool NodeView::is_standard() const {
  return proto_.domain().empty() || proto_.domain() == "ai.onnx";
}

size_t NodeView::input_count() const { return static_cast<size_t>(proto_.input_size()); }

const std::string& NodeView::input(size_t i) const { return proto_.input(static_cast<int>(i)); }

size_t NodeView::output_count() const { return static_cast<size_t>(proto_.output_size()); }

const std::string& NodeView::output(size_t i) const { return proto_.output(static_cast<int>(i)); }

const AttributeProto* NodeView::find(const std::string& attr) const {
  for (const AttributeProto& a : proto_.attribute())
    if (a.name() == attr) {
      read_.insert(attr);
      return &a;
    }
  return nullptr;
}

const AttributeProto* NodeView::find(const std::string& attr, int type, const char* kind) const {
  const AttributeProto* a = find(attr);
  if (!a) return nullptr;
  if (!a->ref_attr_name().empty())
    fail(ErrorCode::unsupported, "attribute '{}' refers to a function's attribute", attr);
  // Models older than IR 2 leave the type out.
  if (a->type() != type && a->type() != AttributeProto::UNDEFINED)
    fail(ErrorCode::corrupt, "attribute '{}' should be {}", attr, kind);
  return a;
}

int64_t NodeView::get_int(const std::string& attr, int64_t fallback) const {
  const AttributeProto* a = find(attr, AttributeProto::INT, "an integer");
  return a ? a->i() : fallback;
}

double NodeView::get_float(const std::string& attr, double fallback) const {
  const AttributeProto* a = find(attr, AttributeProto::FLOAT, "a number");
  return shortest(a ? a->f() : static_cast<float>(fallback));
}

std::string NodeView::get_string(const std::string& attr, const std::string& fallback) const {
  const AttributeProto* a = find(attr, AttributeProto::STRING, "a text");
  return a ? one_line(a->s()) : fallback;
}

std::vector<int64_t> NodeView::get_ints(const std::string& attr,
                                        const std::vector<int64_t>& fallback) const {
  const AttributeProto* a = find(attr, AttributeProto::INTS, "a list of integers");
  return a ? std::vector<int64_t>(a->ints().begin(), a->ints().end()) : fallback;
}

std::vector<double> NodeView::get_floats(const std::string& attr) const {
  const AttributeProto* a = find(attr, AttributeProto::FLOATS, "a list of numbers");
  return a ? std::vector<double>(a->floats().begin(), a->floats().end()) : std::vector<double>{};
}

std::vector<std::string> NodeView::get_strings(const std::string& attr) const {
  const AttributeProto* a = find(attr, AttributeProto::STRINGS, "a list of texts");
  std::vector<std::string> texts;
  if (a)
    for (const std::string& s : a->strings()) texts.push_back(one_line(s));
  return texts;
}

const onnx::GraphProto& NodeView::get_graph(const std::string& attr) const {
  const AttributeProto* a = find(attr, AttributeProto::GRAPH, "a graph");
  if (!a) fail(ErrorCode::corrupt, "attribute '{}' is missing", attr);
  return a->g();
}

const onnx::TensorProto& NodeView::get_tensor(const std::string& attr) const {
  const AttributeProto* a = find(attr, AttributeProto::TENSOR, "a tensor");
  if (!a) fail(ErrorCode::corrupt, "attribute '{}' is missing", attr);
  return a->t();
}

void NodeView::ignore(std::initializer_list<const char*> attrs) const {
  read_.insert(attrs.begin(), attrs.end());
}

std::vector<std::string> NodeView::unread() const {
  std::vector<std::string> names;
  for (const AttributeProto& a : proto_.attribute())
    if (!read_.count(a.name())) names.push_back(one_line(a.name()));
  return names;
}

int64_t axis_of(const NodeView& n, int64_t d, int64_t rank) {
  if (d < -rank || d >= rank) n.fail(ErrorCode::corrupt, "axis {} of a {}-d value", d, rank);
  return d < 0 ? d + rank : d;
}

int64_t known_dim(const NodeView& n, const Val& v, int64_t d, const char* why) {
  if (d < 0 || d >= v.rank())
    n.fail(ErrorCode::corrupt, "dimension {} of a {}-d value", d, v.rank());
  const Dim& dim = v.dims()[static_cast<size_t>(d)];
  if (!dim.known())
    n.needs_size("{} needs dimension {} ('{}') to be known at import", why, d, dim.name());
  return dim.size();
}

}  // namespace octet::io::onnx_impl
