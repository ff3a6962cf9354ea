#pragma once
// Named attributes of an operator call: strides, axes, flags.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace octet {

// The value of an attribute that an operand of the call gives when it runs: numbers that are known
// only then, such as the shape of a reshape.
struct FromOperand {
  int64_t index = 0;  // its place among the call's operands
  // Not trivial: GCC 12 takes a variant of trivial types, strings and vectors for one that always
  // holds a value, and destroys it even where memory ran out while that value was copied.
  constexpr ~FromOperand() {}
  bool operator==(const FromOperand&) const = default;
};

using Attr = std::variant<int64_t, double, bool, std::string, std::vector<int64_t>,
                          std::vector<double>, FromOperand>;

// "3", "0.5", "true", "\"relu\"", "[1, 1]", "[0.5, 1.]", "$1" (FromOperand) — and parse_attr
// reads each back to the same value and type (a double always has a point, an exponent, or is
// inf/nan; an empty list is "[]" of integers).
std::string to_string(const Attr& attr);
Attr parse_attr(const std::string& text);

// Attributes by name, printed in name order. get_* return the value or throw an Error naming the
// attribute.
class Attrs {
 public:
  // Defined in attrs.cpp, as is all that walks the map: else every file that includes this header
  // would compile it.
  Attrs();
  Attrs(std::initializer_list<std::pair<const std::string, Attr>> items);
  Attrs(const Attrs& other);
  Attrs(Attrs&& other) noexcept;
  Attrs& operator=(const Attrs& other);
  Attrs& operator=(Attrs&& other) noexcept;
  ~Attrs();

  bool has(const std::string& name) const;
  Attrs& set(const std::string& name, Attr value);
  void erase(const std::string& name);

  int64_t get_int(const std::string& name) const;
  double get_double(const std::string& name) const;  // integers convert
  bool get_bool(const std::string& name) const;
  const std::string& get_string(const std::string& name) const;
  const std::vector<int64_t>& get_ints(const std::string& name) const;
  std::vector<double> get_doubles(const std::string& name) const;  // integers convert
  const Attr& get(const std::string& name) const;
  // The operand that gives the attribute, if one does.
  std::optional<size_t> operand(const std::string& name) const;
  bool any_operand() const;  // does an operand give any of them?

  auto begin() const { return map_.begin(); }
  auto end() const { return map_.end(); }
  size_t size() const { return map_.size(); }
  bool operator==(const Attrs& other) const;

 private:
  std::map<std::string, Attr> map_;
};

}  // namespace octet
