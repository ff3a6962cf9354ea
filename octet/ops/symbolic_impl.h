#pragma once
// Arithmetic of sizes, some of them symbolic. A result that is not a number is a name that says how
// it is made, in brackets: equal names are equal sizes. A very long name becomes "[#...]", a hash
// of it.

#include <optional>
#include <string>
#include <vector>

#include "octet/tensor/type.h"

namespace octet::ops {

// A product of sizes: a number times symbols. "N*49*[a+b]" has three factors; what is in brackets
// is one.
struct Product {
  int64_t number = 1;
  std::vector<std::string> symbols;

  Product() = default;
  explicit Product(const std::vector<Dim>& dims) {
    for (const Dim& d : dims) times(d);
  }
  void times(const Dim& dim);  // Error if the number overflows
  Dim dim() const;             // the symbols in their order, and the number
};
std::vector<std::string> factors(const std::string& name);
// Takes the symbols that a and b share out of both.
void cancel(Product& a, Product& b);
// a / b where it is exact whatever the symbols are.
std::optional<Product> exact_quotient(Product a, Product b);

// Dimensions start..end (excluded) of `rank`, as ONNX's Shape counts them: negative ones from the
// end, all cut to 0..rank. begin <= end.
struct DimRange {
  int64_t begin, end;
};
DimRange dim_range(int64_t start, int64_t end, int64_t rank);

// a + b: "[N+2]", and "[N+2]" + 1 is "[N+3]".
Dim plus(const Dim& a, int64_t b);
Dim plus(const Dim& a, const Dim& b);
Dim minus(const Dim& a, const Dim& b);  // "[a-b]"
// a / b rounded down, b >= 1: "[N/2]".
Dim divided(const Dim& a, const Dim& b);
// (a + b) / c rounded down: "[[N+1]/2]" for a = N, and "[[N+3]/4]" for a = "[[N+1]/2]".
Dim divided_sum(const Dim& a, int64_t b, int64_t c);
// What two symbolic sizes broadcast to: "[a|b]".
Dim either(const Dim& a, const Dim& b);

}  // namespace octet::ops
