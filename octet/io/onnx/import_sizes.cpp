// Shape arithmetic. Exporters compute shapes with Shape, Gather, Concat, Mul ... on small integer
// vectors; here they are worked out at import, entry by entry, with a name where a dimension is
// symbolic.
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <limits>

#include "octet/io/onnx/importer_impl.h"
#include "octet/ops/symbolic_impl.h"

namespace octet::io::onnx_impl {
namespace {

constexpr int64_t kMaxEntries = 64;  // of a vector that is taken for sizes

bool is_number(const Dim& d) { return d.name().empty(); }

struct Sizes {
  std::vector<Dim> entries;
  int64_t rank = 1;
};

std::optional<Sizes> sizes_of(const Val& v) {
  if (v.sizes) return Sizes{*v.sizes, v.rank()};
  if (!v.is_constant() || v.constant.dtype() != DType::int64 || v.constant.dim() > 1 ||
      v.constant.numel() > kMaxEntries)
    return std::nullopt;
  std::vector<int64_t> values = v.constant.to_vector<int64_t>();
  return Sizes{{values.begin(), values.end()}, v.constant.dim()};
}

using ops::exact_quotient, ops::Product;

// The product of sizes, its symbols in an order that does not depend on theirs.
Product product(const std::vector<Dim>& sizes) {
  Product p(sizes);
  std::sort(p.symbols.begin(), p.symbols.end());
  return p;
}

// The product of sizes that are remembered, remembered too.
Dim multiplied(Importer& im, const std::vector<Dim>& sizes) {
  Dim all(1);
  for (const Dim& d : sizes) {
    const Dim next = product({all, d}).dim();
    if (!is_number(next) && next != d) im.remember(next.name(), '*', all, d);
    all = next;
  }
  return all;
}

Dim arithmetic(Importer& im, const NodeView& n, const Dim& a, const Dim& b) {
  const std::string& op = n.op();
  int64_t r = 0;
  bool numbers = is_number(a) && is_number(b), overflow = false;
  if (op == "Add") {
    if (is_number(a) && a.size() == 0) return b;
    if (is_number(b) && b.size() == 0) return a;
    if (!numbers) return im.combined(a, '+', b);
    overflow = __builtin_add_overflow(a.size(), b.size(), &r);
  } else if (op == "Sub") {
    if (a == b) return 0;
    if (is_number(b) && b.size() == 0) return a;
    if (!numbers) return im.combined(a, '-', b);
    overflow = __builtin_sub_overflow(a.size(), b.size(), &r);
  } else if (op == "Mul") {
    return multiplied(im, {a, b});
  } else {  // Div, Mod
    bool mod = op == "Mod";
    if (is_number(b) && b.size() == 0) n.fail(ErrorCode::corrupt, "division by 0");
    if (auto exact = exact_quotient(product({a}), product({b})); exact && !numbers) {
      if (mod) return 0;
      if (const Dim whole = exact->dim(); !is_number(whole)) im.remember(whole.name(), '/', a, b);
      return exact->dim();
    }
    if (!numbers) return im.combined(a, mod ? '%' : '/', b);
    if (b.size() == -1)
      overflow = !mod && __builtin_sub_overflow(int64_t{0}, a.size(), &r);  // INT64_MIN / -1 traps
    else
      r = mod ? a.size() % b.size() : a.size() / b.size();
    // ONNX's integer Mod has the divisor's sign
    if (mod && r != 0 && (r < 0) != (b.size() < 0)) r += b.size();
  }
  if (overflow) n.fail(ErrorCode::corrupt, "a size overflows");
  return r;
}

// Broadcasts a scalar or a vector of one over the other.
std::optional<Sizes> each(const Sizes& a, const Sizes& b,
                          const std::function<Dim(const Dim&, const Dim&)>& fn) {
  size_t n = std::max(a.entries.size(), b.entries.size());
  if (a.entries.empty() || b.entries.empty()) n = 0;
  if ((a.entries.size() != n && a.entries.size() != 1) ||
      (b.entries.size() != n && b.entries.size() != 1))
    return std::nullopt;
  Sizes r{{}, std::max(a.rank, b.rank)};
  for (size_t i = 0; i < n; ++i)
    r.entries.push_back(
        fn(a.entries[a.entries.size() == 1 ? 0 : i], b.entries[b.entries.size() == 1 ? 0 : i]));
  return r;
}

// Whether two entries are equal, where that can be told: a symbolic size is never negative.
std::optional<bool> equal_entries(const Dim& a, const Dim& b) {
  if (is_number(a) && is_number(b)) return a.size() == b.size();
  if (a == b) return true;
  if (is_number(a) && a.size() < 0) return false;
  if (is_number(b) && b.size() < 0) return false;
  return std::nullopt;
}

Sizes gather(const NodeView& n, const Sizes& data, const Sizes& index) {
  axis_of(n, n.get_int("axis", 0), data.rank);
  auto size = static_cast<int64_t>(data.entries.size());
  Sizes r{{}, index.rank};
  for (const Dim& d : index.entries) {
    int64_t i = d.size() < 0 ? d.size() + size : d.size();
    if (i < 0 || i >= size) n.fail(ErrorCode::corrupt, "index {} of {} elements", d.size(), size);
    r.entries.push_back(data.entries[static_cast<size_t>(i)]);
  }
  return r;
}

bool all_numbers(const Sizes& s) {
  return std::all_of(s.entries.begin(), s.entries.end(), is_number);
}

// Slice of a vector with numbers for bounds; nullopt for other forms.
std::optional<Sizes> slice(Importer& im, const NodeView& n, const Sizes& data) {
  std::vector<int64_t> starts, ends, axes, steps;
  if (n.has("starts")) {
    starts = n.get_ints("starts");
    ends = n.get_ints("ends");
    axes = n.get_ints("axes");
  } else {
    starts = im.known_ints(n, 1, "starts");
    ends = im.known_ints(n, 2, "ends");
    axes = im.known_ints(n, 3, "axes");
    steps = im.known_ints(n, 4, "steps");
  }
  if (data.rank != 1 || starts.size() != 1 || ends.size() != 1 ||
      (!steps.empty() && steps != std::vector<int64_t>{1}))
    return std::nullopt;
  if (axes.size() > 1 || (!axes.empty() && axis_of(n, axes[0], 1) != 0)) return std::nullopt;
  auto size = static_cast<int64_t>(data.entries.size());
  auto resolve = [&](int64_t i) {
    return i < 0 ? std::max<int64_t>(i, -size) + size : std::min(i, size);
  };
  int64_t start = resolve(starts[0]), end = std::max(start, resolve(ends[0]));
  return Sizes{{data.entries.begin() + start, data.entries.begin() + end}, 1};
}

// Which elements a Where over sizes takes; nullopt if the condition is not a constant of that size.
std::optional<Sizes> choose(const Val& condition, const Sizes& a, const Sizes& b) {
  if (!condition.is_constant() || condition.constant.dtype() != DType::bool_ ||
      condition.constant.dim() > 1)
    return std::nullopt;
  std::vector<bool> take = condition.constant.to_vector<bool>();
  size_t n = std::max({take.size(), a.entries.size(), b.entries.size()});
  for (size_t s : {take.size(), a.entries.size(), b.entries.size()})
    if (s != n && s != 1) return std::nullopt;
  Sizes r{{}, std::max({condition.rank(), a.rank, b.rank})};
  for (size_t i = 0; i < n; ++i) {
    const Sizes& from = take[take.size() == 1 ? 0 : i] ? a : b;
    r.entries.push_back(from.entries[from.entries.size() == 1 ? 0 : i]);
  }
  return r;
}

void import_shape(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0);
  const ops::DimRange range =
      ops::dim_range(n.get_int("start", 0), n.get_int("end", x->rank()), x->rank());
  std::vector<Dim> entries;
  for (int64_t d = range.begin; d < range.end; ++d) {
    entries.push_back(x->dims()[static_cast<size_t>(d)]);
    if (!entries.back().known()) im.remember(entries.back().name(), x->id, d);
  }
  im.out(n, 0, sizes_val(n.output(0), entries, 1));
}

}  // namespace

ValPtr sizes_val(const std::string& name, std::vector<Dim> entries, int64_t rank) {
  auto count = static_cast<int64_t>(entries.size());
  Shape shape = rank == 0 ? Shape{} : Shape{count};
  if (std::all_of(entries.begin(), entries.end(), is_number)) {
    std::vector<int64_t> values;
    for (const Dim& d : entries) values.push_back(d.size());
    return constant_val(name, Tensor::from(values, shape));
  }
  auto v = std::make_shared<Val>();
  v->name = name;
  v->type = TensorType(DType::int64, shape);
  v->sizes = std::move(entries);
  return v;
}

bool fold_sizes(Importer& im, const NodeView& n, const std::vector<ValPtr>& inputs) {
  static const std::set<std::string> kSymbolic = {"Gather",  "Slice",      "Concat",  "Unsqueeze",
                                                  "Squeeze", "Cast",       "Reshape", "Equal",
                                                  "Where",   "ReduceProd", "Size"};
  static const std::set<std::string> kArithmetic = {"Add", "Sub", "Mul", "Div", "Mod"};
  if (!n.is_standard()) return false;
  bool arithmetic_op = kArithmetic.count(n.op()) != 0, symbolic = false;
  for (const ValPtr& v : inputs) symbolic |= v && v->sizes;
  // Without a symbol the operators themselves fold; only integer arithmetic is done here, where it
  // is exact.
  if (!arithmetic_op && !(symbolic && kSymbolic.count(n.op()))) return false;
  std::vector<Sizes> s;
  for (const ValPtr& v : inputs) {
    std::optional<Sizes> one = v ? sizes_of(*v) : std::nullopt;
    if (!one && n.op() == "Where" && s.empty()) one = Sizes{};  // the condition
    if (!one) return false;
    s.push_back(std::move(*one));
  }
  std::optional<Sizes> r;
  if (s.empty()) return false;
  if (arithmetic_op) {
    if (s.size() != 2 || n.get_int("fmod", 0) != 0) return false;
    r = each(s[0], s[1], [&](const Dim& a, const Dim& b) { return arithmetic(im, n, a, b); });
  } else if (n.op() == "Gather") {
    if (s.size() == 2 && s[0].rank == 1 && all_numbers(s[1])) r = gather(n, s[0], s[1]);
  } else if (n.op() == "Slice") {
    r = slice(im, n, s[0]);
  } else if (n.op() == "Concat") {
    r = Sizes{};
    axis_of(n, n.get_int("axis", 0), 1);
    for (const Sizes& part : s) {
      if (part.rank != 1) return false;
      r->entries.insert(r->entries.end(), part.entries.begin(), part.entries.end());
    }
  } else if (n.op() == "Unsqueeze" || n.op() == "Squeeze") {
    im.attr_or_input_ints(n, "axes", 1);
    bool up = n.op() == "Unsqueeze";
    if (s[0].rank == (up ? 0 : 1) && s[0].entries.size() == 1) r = Sizes{s[0].entries, up ? 1 : 0};
  } else if (n.op() == "Cast") {
    int64_t to = n.get_int("to", 0);
    if (to == onnx::TensorProto::INT64 || to == onnx::TensorProto::INT32) r = s[0];
  } else if (n.op() == "Reshape") {
    std::vector<int64_t> shape = im.known_ints(n, 1, "shape");
    n.ignore({"allowzero"});
    auto count = static_cast<int64_t>(s[0].entries.size());
    if (shape.size() == 1 && (shape[0] == -1 || shape[0] == count)) r = Sizes{s[0].entries, 1};
    if (shape.empty() && count == 1) r = Sizes{s[0].entries, 0};
  } else if (n.op() == "Equal") {
    std::optional<Sizes> bits = each(s[0], s[1], [](const Dim& a, const Dim& b) {
      auto known = equal_entries(a, b);
      return known ? Dim(static_cast<int64_t>(*known)) : Dim("?");
    });
    if (bits && all_numbers(*bits)) {
      im.out(n, 0,
             constant_val(n.output(0),
                          sizes_val("", bits->entries, bits->rank)->constant.to(DType::bool_)));
      return true;
    }
  } else if (n.op() == "Where" && s.size() == 3) {
    r = choose(*inputs[0], s[1], s[2]);
  } else if (n.op() == "ReduceProd") {
    bool keep = n.get_int("keepdims", 1) != 0;
    im.attr_or_input_ints(n, "axes", 1);
    r = Sizes{{multiplied(im, s[0].entries)}, keep ? s[0].rank : 0};
  }
  if (!r) return false;
  im.out(n, 0, sizes_val(n.output(0), std::move(r->entries), r->rank));
  return true;
}

std::optional<int64_t> multiple_of(const Dim& size, const Dim& of) {
  auto quotient = exact_quotient(Product({size}), Product({of}));
  return quotient && quotient->symbols.empty() ? std::optional(quotient->number) : std::nullopt;
}

std::optional<std::vector<int64_t>> reshape_attr(const NodeView& n, const std::vector<Dim>& from,
                                                 const std::vector<Dim>& wanted, bool zero_copies) {
  std::vector<int64_t> shape;
  std::vector<size_t> unknown, inferred;
  Product all(from), rest;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const Dim& w = wanted[i];
    bool copies =
        i < from.size() &&
        (is_number(w) ? w.size() == 0 && (zero_copies || from[i] == Dim(0)) : from[i] == w);
    if (is_number(w) && w.size() == 0 && zero_copies && !copies)
      n.fail(ErrorCode::corrupt, "shape entry {} is 0, but the data has {} dimensions", i,
             from.size());
    if (is_number(w) && w.size() < -1)
      n.fail(ErrorCode::corrupt, "shape entry {} is {}", i, w.size());
    // a size of 0 where octet's 0 copies
    bool infer = is_number(w) && (w.size() == -1 || (w.size() == 0 && !copies));
    if (infer)
      inferred.push_back(i);
    else if (!is_number(w) && !copies)
      unknown.push_back(i);
    if (!infer) rest.times(copies ? from[i] : w);
    shape.push_back(copies ? 0 : is_number(w) && !infer ? w.size() : -1);
  }
  if (inferred.size() > 1) n.fail(ErrorCode::corrupt, "several entries of the shape are -1 or 0");
  if (!inferred.empty() && !unknown.empty()) {
    // A symbolic size that octet must infer, and one that ONNX infers: the latter must be a number
    // then.
    auto known = exact_quotient(all, rest);
    if (known && known->symbols.empty() && known->number > 0) {
      shape[inferred[0]] = known->number;
      inferred.clear();
    }
  }
  // With one unknown, octet infers it.
  if (unknown.size() + inferred.size() > 1) return std::nullopt;
  return shape;
}

std::optional<std::vector<int64_t>> expand_attr(const NodeView& n, const std::vector<Dim>& from,
                                                const std::vector<Dim>& wanted) {
  size_t rank = std::max(from.size(), wanted.size());
  std::vector<int64_t> shape(rank, 1);  // 1 keeps the data's size, as ONNX's Expand has it
  for (size_t i = 0; i < rank; ++i) {
    const Dim& f = i < from.size() ? from[from.size() - 1 - i] : Dim(1);
    const Dim& w = i < wanted.size() ? wanted[wanted.size() - 1 - i] : Dim(1);
    int64_t& out = shape[rank - 1 - i];
    if (w == f || w == Dim(1))
      out = f.known() ? f.size() : 1;
    else if (!is_number(w))
      return std::nullopt;
    else if (w.size() < 0 || w.size() > std::numeric_limits<int32_t>::max())
      n.fail(ErrorCode::corrupt, "a size of {}", w.size());
    else
      out = w.size();
  }
  return shape;
}

void add_sizes(Handlers& h) {
  h["Shape"] = import_shape;
  h["Size"] = [](Importer& im, const NodeView& n) {
    ValPtr x = im.in(n, 0);
    im.remember_sizes(*x);
    im.out(n, 0, sizes_val(n.output(0), {multiplied(im, x->dims())}, 0));
  };
  // the divisor's sign, or with fmod the dividend's
  h["Mod"] = [](Importer& im, const NodeView& n) {
    im.out(
        n, 0,
        im.call(n, n.get_int("fmod", 0) != 0 ? "fmod" : "remainder", {im.in(n, 0), im.in(n, 1)}));
  };
}

}  // namespace octet::io::onnx_impl
