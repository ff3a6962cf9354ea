#pragma once
// Python's pickles, as data. A pickle is a program for a stack machine that may call any function
// of Python; here nothing is ever called: the calls that it asks for become values that say which
// function and which arguments, and a function or class that is not on the caller's list is an
// Error.
//
// Read are the binary opcodes of protocols 2 to 5, those that Python writes. Reading does not
// recurse and takes time and memory linear in the pickle, within the limits below.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace octet::pickle {

constexpr uint64_t kMaxBytes = 100'000'000;      // of one pickle
constexpr size_t kMaxValues = size_t{1} << 22;   // that it makes
constexpr size_t kMaxOpcodes = size_t{1} << 24;  // that it runs
constexpr size_t kMaxNameBytes = 1000;           // of a function or class

enum class Kind : uint8_t {
  none,
  boolean,  // integer: 0 or 1
  integer,
  big,  // an integer beyond 64 bits: text holds its bytes, two's complement, the lowest first
  real,
  text,
  bytes,
  list,        // items; tuples and sets too
  dict,        // items: key, value, key, value ... in the order they were put in; the last one of
               // equal keys holds
  global,      // a function or class: text is "module.name"
  call,        // items: the function, a list of arguments. It was not called
  persistent,  // items: what the file calls something that lies outside of the pickle
};

using Ref = uint32_t;  // the number of a value in its document

struct Value {
  Kind kind = Kind::none;
  union {
    int64_t integer = 0;
    double real;
  };
  std::string_view text;  // in the pickle's bytes, which must live as long; of a global in the
                          // document
  std::vector<Ref> items;
};

// Values refer to each other by number; a list may hold itself.
class Document {
 public:
  const Value& operator[](Ref ref) const { return values_[ref]; }
  size_t size() const { return values_.size(); }
  Ref root() const { return root_; }
  const Value& item(const Value& of, size_t i) const { return values_[of.items[i]]; }

 private:
  friend class Machine;
  std::vector<Value> values_;
  std::set<std::string> names_;  // of globals
  Ref root_ = 0;
};

// Asked once for each function or class that a pickle names, "module.name" in printable ASCII: an
// Error for those that are not to be read. `outermost` of the pickle's own object, as opposed to
// what is in it.
using CheckGlobal = std::function<void(const std::string& name, bool outermost)>;

// Reads the pickle at the start of `bytes`, and says in `*used` how long it is. `where` begins
// errors: corrupt for what is no pickle or is cut short, unsupported for protocols beyond 5,
// opcodes of Python's text protocol and what is beyond the limits.
Document read(std::string_view bytes, const std::string& where, const CheckGlobal& check,
              size_t* used = nullptr);

// How Python calls a value of this kind, for errors: "a list".
const char* kind_name(Kind kind);

}  // namespace octet::pickle
