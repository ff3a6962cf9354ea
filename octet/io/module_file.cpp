#include "octet/io/module_file.h"

#include <algorithm>
#include <set>
#include <type_traits>

#include "octet/autograd/autograd.h"
#include "octet/io/fields_impl.h"
#include "octet/io/json_text_impl.h"
#include "octet/io/state_dict_impl.h"
#include "octet/nn/init.h"
#include "octet/nn/registry.h"

namespace octet::io {
namespace {

using nn::Module;
using nn::ModulePtr;

constexpr const char* kEntry = "octet.model";
constexpr int kMaxDepth = 1000;          // of submodules: what walks them is recursive
constexpr int64_t kMaxPlaces = 100'000;  // counting a shared module once per place

std::string join(const std::string& prefix, const std::string& name) {
  return prefix.empty() ? name : prefix + "." + name;
}

// How errors call a module.
std::string title(const std::string& path, const std::string& type) {
  return path.empty() ? fmt::format("the model ({})", type)
                      : fmt::format("module '{}' ({})", path, type);
}

// -- writing --------------------------------------------------------------------------------------

class Writer {
 public:
  explicit Writer(std::string file) : file_(std::move(file)) {}

  void write(const std::filesystem::path& path, const Module& model) {
    JsonText json;
    try {
      add(model, "", 0);
      json.begin('{').member("format", kFormat).member("modules", modules_).end('}');
    } catch (const Json::exception& e) {
      OCTET_FAIL(invalid_argument, "{}: a name, label or attribute of a module is not UTF-8: {}",
                 file_, e.what());
    }
    write_state(path, tensors_, {{kEntry, json.take()}});
  }

 private:
  // The number of the module in the file. Submodules come before the modules they are in.
  size_t add(const Module& module, const std::string& path, int depth) {
    if (auto it = numbers_.find(&module); it != numbers_.end()) return it->second;
    OCTET_CHECK(depth < kMaxDepth, unsupported, "{}: modules nest deeper than {}", file_,
                kMaxDepth);
    auto guarded = [&](auto&& fn) {
      try {
        return fn();
      } catch (const Error& e) {
        throw Error(e.code(),
                    fmt::format("{}: {}: {}", file_, title(path, module.type_name()), e.what()));
      }
    };
    JsonText json;
    json.begin('{').member("class", guarded([&] { return nn::registered_name(module); }));
    json.member("type", module.type_name()).member("training", module.training());
    if (std::string repr = module.extra_repr(); !repr.empty()) json.member("repr", repr);
    if (Attrs config = module.config(); config.size()) put_attrs(json.key("config"), config);
    put_tensors(json, module, path);
    // Children first: each is put into the file before the module it is in.
    JsonText children;
    children.begin('[');
    for (const auto& [name, child] : module.children()) {
      children.begin('[').value(name);
      if (child)
        children.value(add(*child, join(path, name), depth + 1));
      else
        children.null();
      children.end(']');
    }
    if (!module.children().empty()) json.member("children", children.end(']'));
    bool annotated = false;
    for (const auto& [name, annotation] : nn::annotations())
      if (auto data = guarded([&, save = annotation.save] { return save(module); })) {
        if (!annotated) json.key("annotations").begin('{');
        annotated = true;
        put_attrs(json.key(name), *data);
      }
    if (annotated) json.end('}');
    modules_.push_back(std::move(json.end('}')));
    return numbers_[&module] = modules_.size() - 1;
  }

  // Its tensors by name, which of them are trained, and its extra state; none that is empty.
  void put_tensors(JsonText& json, const Module& module, const std::string& path) {
    auto& m = const_cast<Module&>(module);  // listing tensors changes nothing
    std::vector<std::pair<std::string, std::string>> tensors, extra;
    std::vector<std::string> trained;
    for (const auto& [name, tensor] : m.own_tensors()) {
      if (!tensor->defined()) continue;
      tensors.emplace_back(name, store(join(path, name), *tensor));
      if (autograd::requires_grad(*tensor)) trained.push_back(name);
    }
    const auto state = module.extra_state();
    for (const auto& [name, tensor] : state)
      extra.emplace_back(name, store(join(path, name), tensor));
    const auto put = [&](const char* field, const auto& names) {
      if (names.empty()) return;
      json.key(field).begin('{');
      for (const auto& [name, in_file] : names) json.member(name, in_file);
      json.end('}');
    };
    put("tensors", tensors);
    if (!trained.empty()) json.member("requires_grad", trained);
    put("extra", extra);
  }

  // The tensor's name in the file: that of its first place.
  std::string store(std::string name, const Tensor& tensor) {
    OCTET_CHECK(tensor.defined(), invalid_argument, "{}: the state '{}' is an undefined tensor",
                file_, name);
    auto [it, is_new] = names_.try_emplace(tensor.id());
    if (!is_new) return it->second;
    while (tensors_.count(name)) name += "_";
    tensors_[name] = tensor;
    return it->second = name;
  }

  std::string file_;
  std::vector<JsonText> modules_;
  std::map<const Module*, size_t> numbers_;
  std::map<std::string, Tensor> tensors_;  // holds them, so that ids stay apart
  std::map<const void*, std::string> names_;
};

// -- reading --------------------------------------------------------------------------------------

// What the file says of one module.
struct Entry {
  std::string class_name, type, repr;
  bool training = true;
  Attrs config;
  std::map<std::string, std::string> tensors, extra;  // name -> name in the file
  std::set<std::string> requires_grad;
  std::vector<std::pair<std::string, int>> children;  // -1: an empty place
  std::map<std::string, Attrs> annotations;
};

class Reader {
 public:
  Reader(const SafetensorsFile& file, std::string path, std::vector<std::string>* notes)
      : path_(std::move(path)) {
    auto text = file.metadata.find(kEntry);
    OCTET_CHECK(text != file.metadata.end(), corrupt, "{}: no \"{}\" in the metadata: {}", path_,
                kEntry,
                file.metadata.count("octet.graph")
                    ? "this file holds a graph: use io::load_octet"
                    : "this file holds tensors without modules: use load_state_dict");
    const JsonDocument json_document =
        parse_json(text->second, fmt::format("{}: {}", path_, kEntry));
    const Json& json = *json_document;
    Fields root(json, fmt::format("{}: {}", path_, kEntry));
    check_format(root, path_, file.has_checksums, notes);
    const Json& list = root.raw("modules");
    OCTET_CHECK(list.is_array() && !list.empty(), corrupt, "{}: 'modules' is not a list of modules",
                root.where());
    std::vector<int> depth;
    std::vector<int64_t> places;
    for (size_t i = 0; i < list.size(); ++i) {
      Fields f(list[i], fmt::format("{}: module {}", root.where(), i));
      entries_.push_back(entry(f, i));
      depth.push_back(1);
      places.push_back(1);
      for (const auto& [name, child] : entries_.back().children) {
        if (child < 0) continue;
        depth[i] = std::max(depth[i], depth[child] + 1);
        places[i] += places[child];
        OCTET_CHECK(depth[i] <= kMaxDepth && places[i] <= kMaxPlaces, corrupt,
                    "{}: submodules nest too deep, or there are too many", f.where());
      }
    }
  }

  std::string print() const { return print(entries_.back(), ""); }

  ModulePtr make(SafetensorsFile file) {
    state_ = state_of(std::move(file), path_, nullptr);
    made_.resize(entries_.size());
    paths_.resize(entries_.size());
    ModulePtr root;
    {
      nn::init::Skip skip;
      autograd::NoGrad no_grad;
      root = build(entries_.size() - 1, "", nullptr);
    }
    for (size_t i = 0; i < made_.size(); ++i)
      OCTET_CHECK(made_[i], corrupt, "{}: {}: module {} is in no place", path_, kEntry, i);
    // From the outside in: train() goes to submodules too.
    for (size_t i = made_.size(); i-- > 0;)
      guarded(i, [&] { made_[i]->train(entries_[i].training); });
    auto known = nn::annotations();
    for (size_t i = made_.size(); i-- > 0;) {
      auto left = entries_[i].annotations;
      for (const auto& [name, annotation] : known) {
        auto data = left.extract(name);
        if (data) guarded(i, [&, a = &annotation] { a->load(*root, *made_[i], data.mapped()); });
      }
      OCTET_CHECK(left.empty(), unsupported, "{}: this program does not know the annotation '{}'",
                  where(i), left.begin()->first);
    }
    return root;
  }

 private:
  // Number `i` in the file; modules in it have smaller numbers.
  static Entry entry(const Fields& f, size_t i) {
    Entry e;
    e.class_name = f.get<std::string>("class");
    e.type = f.get<std::string>("type");
    e.repr = f.get<std::string>("repr", "");
    e.training = f.get<bool>("training");
    if (f.has("config")) e.config = parse_attrs(f, "config");
    using Names = std::map<std::string, std::string>;
    e.tensors = f.get<Names>("tensors", Names());
    e.extra = f.get<Names>("extra", Names());
    e.requires_grad = f.get<std::set<std::string>>("requires_grad", {});
    for (const std::string& name : e.requires_grad)
      OCTET_CHECK(e.tensors.count(name), corrupt,
                  "{}: 'requires_grad' names '{}', which is not in 'tensors'", f.where(), name);
    Json none = Json::array();
    const Json& children = f.has("children") ? f.raw("children") : none;
    OCTET_CHECK(children.is_array(), corrupt, "{}: 'children' is not a list", f.where());
    for (const Json& child : children) {
      OCTET_CHECK(child.is_array() && child.size() == 2 && child[0].is_string() &&
                      (child[1].is_null() ||
                       (child[1].is_number_unsigned() && child[1].get<uint64_t>() < i)),
                  corrupt, "{}: 'children' holds {}, which is not a name and an earlier module",
                  f.where(), brief(child));
      e.children.emplace_back(child[0].get<std::string>(),
                              child[1].is_null() ? -1 : child[1].get<int>());
    }
    if (f.has("annotations")) {
      Fields annotations(f.raw("annotations"), f.where() + ": annotations");
      for (const auto& [name, data] : f.raw("annotations").items())
        e.annotations.emplace(name, parse_attrs(annotations, name.c_str()));
    }
    return e;
  }

  std::string where(size_t i) const {
    return fmt::format("{}: {}", path_, title(paths_[i], entries_[i].type));
  }

  // What a module's class says is wrong is wrong with the file.
  template <typename Fn>
  std::invoke_result_t<Fn> guarded(size_t i, Fn&& fn) const {
    try {
      return fn();
    } catch (const Error& e) {
      bool as_it_is = e.code() == ErrorCode::not_found || e.code() == ErrorCode::unsupported;
      throw Error(as_it_is ? e.code() : ErrorCode::corrupt,
                  fmt::format("{}: {}", where(i), e.what()));
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception& e) {
      OCTET_FAIL(corrupt, "{}: {}", where(i), e.what());
    }
  }

  // Module `i` with all in it. `candidate` is what the constructor of the module around it put
  // there.
  ModulePtr build(size_t i, const std::string& path, const ModulePtr& candidate) {
    if (made_[i]) return made_[i];
    const Entry& e = entries_[i];
    paths_[i] = path;
    bool takes = candidate && !used_.count(candidate.get()) &&
                 nn::is_registered_as(*candidate, e.class_name) &&
                 guarded(i, [&] { return candidate->config(); }) == e.config;
    ModulePtr module =
        takes ? candidate : guarded(i, [&] { return nn::make_registered(e.class_name, e.config); });
    OCTET_CHECK(module && nn::is_registered_as(*module, e.class_name), unsupported,
                "{}: from_config of the class {} made {}", where(i), e.class_name,
                module ? "a " + module->type_name() : "nothing");
    used_.insert(module.get());
    made_[i] = module;
    fill_places(i, *module);
    guarded(i, [&] { set_tensors(e, *module); });
    guarded(i, [&] { set_extra(e, *module); });
    return module;
  }

  void fill_places(size_t i, Module& module) {
    const Entry& e = entries_[i];
    auto constructed = module.children();
    auto find = [](const auto& list, const std::string& name) {
      return std::find_if(list.begin(), list.end(),
                          [&](const auto& child) { return child.first == name; });
    };
    std::vector<std::string> missing;
    for (const auto& [name, child] : constructed)
      if (find(e.children, name) == e.children.end()) missing.push_back(name);
    OCTET_CHECK(
        missing.empty(), corrupt,
        "{}: its class makes the submodule{} {}, which the file does not have: the class is not "
        "as it was when the model was saved",
        where(i), missing.size() == 1 ? "" : "s", fmt::join(missing, ", "));
    for (const auto& [name, child] : constructed) module.remove_child(name);
    for (const auto& [name, child] : e.children) {
      auto before = find(constructed, name);
      OCTET_CHECK(child >= 0 || before != constructed.end(), corrupt,
                  "{}: its class has no place '{}' to be left empty", where(i), name);
      ModulePtr made;
      if (child >= 0)
        made = build(child, join(paths_[i], name),
                     before == constructed.end() ? nullptr : before->second);
      guarded(i, [&, n = &name] { module.add_child(*n, made); });
    }
  }

  const Tensor& tensor(const std::string& name) const {
    auto it = state_.find(name);
    OCTET_CHECK(it != state_.end(), corrupt, "tensor '{}' is not in the file", name);
    return it->second;
  }

  // Error naming what is only in one of both.
  template <typename Names>
  static void expect_same_names(const char* what, const std::vector<std::string>& expected,
                                const Names& given) {
    std::vector<std::string> missing, unexpected;
    for (const std::string& name : expected)
      if (!given.count(name)) missing.push_back(name);
    for (const auto& [name, key] : given)
      if (std::find(expected.begin(), expected.end(), name) == expected.end())
        unexpected.push_back(name);
    OCTET_CHECK(missing.empty() && unexpected.empty(), corrupt,
                "the {} of its class are not those of the file (missing: {}; "
                "unexpected: {})",
                what, missing.empty() ? "none" : fmt::format("{}", fmt::join(missing, ", ")),
                unexpected.empty() ? "none" : fmt::format("{}", fmt::join(unexpected, ", ")));
  }

  void set_tensors(const Entry& e, Module& module) const {
    auto own = module.own_tensors();
    std::vector<std::string> expected;
    for (const auto& [name, place] : own)
      if (place->defined() || e.tensors.count(name)) expected.push_back(name);
    expect_same_names("parameters and buffers", expected, e.tensors);
    for (const auto& [name, place] : own) {
      auto it = e.tensors.find(name);
      if (it == e.tensors.end()) continue;
      const Tensor& value = tensor(it->second);
      OCTET_CHECK(!place->defined() || place->shape() == value.shape(), corrupt,
                  "its class makes '{}' of shape {}, the file has {}: config() and from_config "
                  "(nn/registry.h) must say what shapes it",
                  name, octet::to_string(place->shape()), octet::to_string(value.shape()));
      *place = value;
      if (e.requires_grad.count(name)) autograd::set_requires_grad(*place);
    }
  }

  void set_extra(const Entry& e, Module& module) const {
    std::vector<std::string> expected;
    for (const auto& [name, value] : module.extra_state()) expected.push_back(name);
    expect_same_names("extra state", expected, e.extra);
    if (expected.empty()) return;
    std::map<std::string, Tensor> state;
    for (const auto& [name, key] : e.extra) state[name] = tensor(key);
    module.set_extra_state(state);
  }

  // nn::to_string's form.
  std::string print(const Entry& e, const std::string& indent) const {
    std::string out = e.type + "(" + e.repr;
    if (e.children.empty()) return out + ")";
    out += "\n";
    for (const auto& [name, child] : e.children)
      out += fmt::format("{}  ({}): {}\n", indent, name,
                         child < 0 ? "None" : print(entries_[child], indent + "  "));
    return out + indent + ")";
  }

  std::string path_;
  std::vector<Entry> entries_;
  std::map<std::string, Tensor> state_;
  std::vector<ModulePtr> made_;
  std::vector<std::string> paths_;
  std::set<const Module*> used_;
};

// What goes wrong with JSON is wrong with the file.
template <typename Fn>
auto reading(const std::filesystem::path& path, Fn&& fn) {
  try {
    return fn();
  } catch (const Json::exception& e) {
    OCTET_FAIL(corrupt, "{}: {}: {}", path.string(), kEntry, e.what());
  }
}

}  // namespace

bool is_model_file(const std::filesystem::path& path) {
  return read_safetensors_metadata(path).count(kEntry);
}

std::string describe_model(const std::filesystem::path& path) {
  return reading(path,
                 [&] { return Reader(read_safetensors(path), path.string(), nullptr).print(); });
}

}  // namespace octet::io

namespace octet {

void save_model(const std::filesystem::path& path, const nn::Module& model) {
  model.check_state();
  io::Writer(path.string()).write(path, model);
}

nn::ModulePtr load_model(const std::filesystem::path& path, std::vector<std::string>* notes) {
  return io::reading(path, [&] {
    SafetensorsFile file = read_safetensors(path);
    io::Reader reader(file, path.string(), notes);
    return reader.make(std::move(file));
  });
}

}  // namespace octet
