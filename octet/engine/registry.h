#pragma once
// The registry of engines: their names, and their kernels by operator.
//
// A program adds an engine of its own with one call, and then selects it as those of octet's:
//
//   Engine mine("mine", {}, "a relu of my own");
//   mine.add({"relu"}, [](const OpSpec& spec) -> std::unique_ptr<Kernel> {
//     if (spec.inputs[0].dtype != DType::quint8) return nullptr;  // the next engine is asked
//     return nullptr;  // or a kernel: a class derived from Kernel
//   });
//   register_engine(std::move(mine));
//   set_engine("mine");
//
// examples/custom_engine is a whole program; docs/extending.md says what a kernel has to keep.

#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "octet/engine/engine.h"

namespace octet {

// Makes a kernel for a call, or returns null where the call is not one that it takes. Asked by
// several threads at once.
using KernelMaker = std::function<std::unique_ptr<Kernel>(const OpSpec& spec)>;

// A name, and makers of kernels by the operator's name.
class Engine {
 public:
  // `aliases` select it too. `summary` is a few words for lists of engines and the command line's
  // help. `falls_back`: whether the other engines are asked for what it lacks; without, operators
  // that it lacks are evaluated by their own definition (reference is such an engine).
  explicit Engine(std::string name, const std::vector<std::string>& aliases = {},
                  std::string summary = "", bool falls_back = true);

  // Adds a maker for these operators. The makers of an operator are asked in the order in which
  // they were added, and the first kernel is taken.
  void add(std::initializer_list<std::string_view> operators, const KernelMaker& maker);
  // Adds a maker that is asked for every operator, after those that were added by name: for kernels
  // that go by what a call is, not by its operator (OpSpec::table).
  void add_for_any(KernelMaker maker);

  const std::string& name() const { return names_[0]; }
  const std::vector<std::string>& names() const { return names_; }  // its own, then its aliases
  std::string title() const;  // for lists: "native (also called fbgemm, x86)"
  const std::string& summary() const { return summary_; }
  bool falls_back() const { return falls_back_; }
  std::vector<std::string> operators() const;  // that makers were added for, by name

  // Null: this engine has no kernel for the call.
  std::unique_ptr<Kernel> make(const OpSpec& spec) const;

 private:
  std::vector<std::string> names_;
  std::string summary_;
  bool falls_back_;
  std::map<std::string, std::vector<KernelMaker>, std::less<>> makers_;
  std::vector<KernelMaker> for_any_;
};

// Adds an engine for the rest of the process, which may be done before main() and by several
// threads. Error if the name, or an alias, is empty or another engine's.
void register_engine(Engine engine);

// The engine with that name or alias. Error: unknown, with the nearest names and all of them. The
// reference stays valid.
const Engine& find_engine(std::string_view name);

// All engines: octet's own (native, onednn, xnnpack, reference), then those that were registered.
std::vector<const Engine*> engines();

}  // namespace octet
