#include "octet/ops/symbolic_impl.h"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <utility>

#include "octet/base/check_impl.h"

namespace octet::ops {
namespace {

std::string text(const Dim& d) { return d.known() ? std::to_string(d.size()) : d.name(); }

// "[x+3]", "[x-3]" or "[x/3]" as x, the sign and 3; nullopt for other names.
struct Term {
  std::string name;
  char sign;
  int64_t number;
};
std::optional<Term> split(const std::string& name) {
  if (name.size() < 4 || name.front() != '[' || name.back() != ']') return std::nullopt;
  int depth = 0;
  size_t at = 0;
  for (size_t i = 1; i + 1 < name.size(); ++i) {
    depth += (name[i] == '[') - (name[i] == ']');
    if (depth < 0) return std::nullopt;
    if (depth == 0 && (name[i] == '+' || name[i] == '-' || name[i] == '/')) at = i;
  }
  const std::string digits = at ? name.substr(at + 1, name.size() - at - 2) : "";
  if (digits.empty() || digits.size() > 9 ||
      digits.find_first_not_of("0123456789") != std::string::npos)
    return std::nullopt;
  return Term{name.substr(1, at - 1), name[at], std::stoll(digits)};
}

Dim named(std::string name) {
  constexpr size_t kLongest = 100;
  if (name.size() <= kLongest) return Dim(std::move(name));
  uint64_t hash = 14695981039346656037u;  // FNV-1a
  for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  return Dim(fmt::format("[#{:016x}]", hash));
}

}  // namespace

std::vector<std::string> factors(const std::string& name) {
  std::vector<std::string> parts(1);
  int depth = 0;
  for (char c : name) {
    depth += (c == '[') - (c == ']');
    if (c == '*' && depth == 0)
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

void Product::times(const Dim& dim) {
  const auto count = [&](int64_t n) {
    OCTET_CHECK(!__builtin_mul_overflow(number, n, &number), corrupt, "a size overflows");
  };
  if (dim.name().empty()) return count(dim.size());
  for (std::string& factor : factors(dim.name())) {
    const bool digits = !factor.empty() && factor.size() <= 18 &&
                        factor.find_first_not_of("0123456789") == std::string::npos;
    if (digits)
      count(std::stoll(factor));
    else
      symbols.push_back(std::move(factor));
  }
}

Dim Product::dim() const {
  if (number == 0 || symbols.empty()) return number;
  Dim result(1);
  for (const std::string& symbol : symbols) result = multiply(result, Dim(symbol));
  return multiply(result, Dim(number));
}

void cancel(Product& a, Product& b) {
  std::erase_if(b.symbols, [&](const std::string& symbol) {
    const auto at = std::find(a.symbols.begin(), a.symbols.end(), symbol);
    if (at == a.symbols.end()) return false;
    a.symbols.erase(at);
    return true;
  });
}

std::optional<Product> exact_quotient(Product a, Product b) {
  cancel(a, b);
  if (!b.symbols.empty() || b.number <= 0 || a.number % b.number != 0) return std::nullopt;
  a.number /= b.number;
  return a;
}

DimRange dim_range(int64_t start, int64_t end, int64_t rank) {
  const auto at = [&](int64_t d) { return std::clamp<int64_t>(d < 0 ? d + rank : d, 0, rank); };
  return {at(start), std::max(at(start), at(end))};
}

Dim plus(const Dim& a, int64_t b) {
  if (a.known()) return a.size() + b;
  if (b == 0) return a;
  if (auto term = split(a.name()); term && term->sign != '/')
    return plus(Dim(term->name), b + (term->sign == '+' ? term->number : -term->number));
  return named(fmt::format("[{}{}{}]", a.name(), b > 0 ? "+" : "-", std::abs(b)));
}

Dim plus(const Dim& a, const Dim& b) {
  if (b.known()) return plus(a, b.size());
  if (a.known()) return plus(b, a.size());
  return named(fmt::format("[{}+{}]", a.name(), b.name()));
}

Dim minus(const Dim& a, const Dim& b) {
  if (a == b) return 0;
  return b.known() ? plus(a, -b.size()) : named(fmt::format("[{}-{}]", text(a), b.name()));
}

Dim divided(const Dim& a, const Dim& b) {
  if (a.known() && b.known() && b.size() > 0) return a.size() / b.size();
  if (b == Dim(1)) return a;
  if (a == b) return 1;
  if (b.known())
    if (auto term = split(a.name()); term && term->sign == '/')
      return named(fmt::format("[{}/{}]", term->name, term->number * b.size()));
  return named(fmt::format("[{}/{}]", text(a), text(b)));
}

Dim divided_sum(const Dim& a, int64_t b, int64_t c) {
  if (!a.known())
    if (auto term = split(a.name()); term && term->sign == '/')
      return divided(plus(Dim(term->name), b * term->number), Dim(c * term->number));
  return divided(plus(a, b), Dim(c));
}

Dim either(const Dim& a, const Dim& b) {
  return a == b ? a : named(fmt::format("[{}|{}]", text(a), text(b)));
}

}  // namespace octet::ops
