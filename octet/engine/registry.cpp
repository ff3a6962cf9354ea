#include "octet/engine/registry.h"

#include <algorithm>
#include <deque>
#include <mutex>
#include <shared_mutex>

#include "octet/base/check_impl.h"
#include "octet/base/text.h"

namespace octet {

// The engines that come with octet: each is a folder, whose engine.cpp puts it together, and its
// place here, in the order in which they are listed.
namespace native {
Engine make_engine();
}
namespace onednn {
Engine make_engine();
}
#if !defined(OCTET_WITHOUT_XNNPACK)
namespace xnnpack {
Engine make_engine();
}
#endif
namespace reference {
Engine make_engine();
}
using EngineMaker = Engine (*)();
constexpr EngineMaker kEngines[] = {
    native::make_engine,
    onednn::make_engine,
#if !defined(OCTET_WITHOUT_XNNPACK)
    xnnpack::make_engine,
#endif
    reference::make_engine,
};

Engine::Engine(std::string name, const std::vector<std::string>& aliases, std::string summary,
               bool falls_back)
    : names_{std::move(name)}, summary_(std::move(summary)), falls_back_(falls_back) {
  names_.insert(names_.end(), aliases.begin(), aliases.end());
}

std::string Engine::title() const {
  if (names_.size() == 1) return name();
  return fmt::format("{} (also called {})", name(),
                     fmt::join(names_.begin() + 1, names_.end(), ", "));
}

void Engine::add(std::initializer_list<std::string_view> operators, const KernelMaker& maker) {
  for (std::string_view op : operators) makers_[std::string(op)].push_back(maker);
}

void Engine::add_for_any(KernelMaker maker) { for_any_.push_back(std::move(maker)); }

std::vector<std::string> Engine::operators() const {
  std::vector<std::string> names;
  for (const auto& [op, makers] : makers_) names.push_back(op);
  return names;
}

std::unique_ptr<Kernel> Engine::make(const OpSpec& spec) const {
  if (auto found = makers_.find(spec.op); found != makers_.end())
    for (const KernelMaker& maker : found->second)
      if (auto kernel = maker(spec)) return kernel;
  for (const KernelMaker& maker : for_any_)
    if (auto kernel = maker(spec)) return kernel;
  return nullptr;
}

namespace {

// Made when it is first asked for, which may be by a static object of another file; octet's own
// engines are in it from the start.
class Registry {
 public:
  static Registry& instance() {
    static Registry registry;
    return registry;
  }

  void add(Engine engine) {
    std::unique_lock lock(mutex_);
    for (const std::string& name : engine.names()) {
      OCTET_CHECK(!name.empty(), invalid_argument,
                  "an engine's name is empty; expected one that set_engine can select it by");
      const Engine* other = find(name);
      OCTET_CHECK(!other, invalid_argument,
                  "engine '{}' cannot be registered: '{}' is already a name of {}; choose another",
                  engine.name(), name, other->name());
    }
    engines_.push_back(std::move(engine));
  }

  const Engine& get(std::string_view name) const {
    std::shared_lock lock(mutex_);
    if (const Engine* engine = find(name)) return *engine;
    std::vector<std::string> known, listed;
    for (const Engine& e : engines_) {
      known.insert(known.end(), e.names().begin(), e.names().end());
      listed.push_back(e.title());
    }
    OCTET_FAIL(invalid_argument, "unknown engine '{}'{}; registered are {}", name,
               did_you_mean(name, known), fmt::join(listed, ", "));
  }

  std::vector<const Engine*> all() const {
    std::shared_lock lock(mutex_);
    std::vector<const Engine*> list;
    for (const Engine& e : engines_) list.push_back(&e);
    return list;
  }

 private:
  Registry() {
    for (EngineMaker make : kEngines) add(make());
  }

  // With the mutex held.
  const Engine* find(std::string_view name) const {
    for (const Engine& e : engines_)
      if (std::find(e.names().begin(), e.names().end(), name) != e.names().end()) return &e;
    return nullptr;
  }

  mutable std::shared_mutex mutex_;
  std::deque<Engine> engines_;  // none is ever removed, so that references stay valid
};

}  // namespace

void register_engine(Engine engine) { Registry::instance().add(std::move(engine)); }
const Engine& find_engine(std::string_view name) { return Registry::instance().get(name); }
std::vector<const Engine*> engines() { return Registry::instance().all(); }

}  // namespace octet
