// Where the elements of an operand lie in memory does not change a bit of the result: every
// operator that takes tensors of one shape, with each dtype that it takes.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>
#include <optional>

#include "octet/autograd/autograd.h"
#include "octet/base/error.h"
#include "octet/ops/functional.h"
#include "octet/ops/op.h"
#include "octet/tensor/tensor.h"

namespace octet::testing {
namespace {

using Tensors = std::vector<Tensor>;

constexpr DType kDTypes[] = {DType::float32, DType::float64, DType::float16, DType::bfloat16,
                             DType::int64,   DType::int32,   DType::int16,   DType::int8,
                             DType::uint8,   DType::bool_};

// Values that most functions are defined for: 0.1 to 0.9, or whole numbers from 1 to 5.
Tensor values(const Shape& shape, DType dtype, uint64_t seed) {
  if (dtype == DType::bool_) return Tensor::rand(shape, seed, 0, 2).to(DType::int32).to(dtype);
  return is_floating(dtype) ? Tensor::rand(shape, seed, 0.1, 0.9).to(dtype)
                            : Tensor::rand(shape, seed, 1, 5.99).to(DType::int32).to(dtype);
}

// The same values, the last dimension first in memory.
Tensor transposed(const Tensor& t) {
  const int64_t last = t.dim() - 1;
  return t.transpose(0, last).contiguous().transpose(0, last);
}

// The same values, with gaps of one element between neighbours.
Tensor with_gaps(const Tensor& t) {
  const int64_t last = t.dim() - 1;
  Shape wide = t.shape();
  wide.back() *= 2;
  Tensor spread = Tensor::zeros(wide).to(t.dtype()).slice(last, 0, wide.back(), 2);
  spread.copy_from(t);
  return spread;
}

std::string bytes_of(const Tensors& results) {
  std::string bytes;
  for (const Tensor& result : results) {
    if (!result.defined()) continue;
    const Tensor dense = result.contiguous();
    bytes += to_string(dense.type());
    bytes.append(static_cast<const char*>(dense.raw_data()), static_cast<size_t>(dense.nbytes()));
  }
  return bytes;
}

std::optional<std::string> result_of(const ops::Op& op, const Tensors& operands,
                                     const Attrs& attrs) {
  try {
    return bytes_of(ops::call_all(op.name(), operands, attrs));
  } catch (const Error&) {
    return std::nullopt;  // not such operands
  }
}

size_t required_operands(const ops::Op& op) {
  return static_cast<size_t>(std::count_if(op.params().begin(), op.params().end(),
                                           [](const ops::Param& p) { return !p.optional; }));
}

const std::vector<Attrs>& attributes() {
  static const std::vector<Attrs> all{{},
                                      {{"dim", int64_t{0}}},
                                      {{"dim", int64_t{1}}},
                                      {{"dim", std::vector<int64_t>{0}}},
                                      {{"dim", std::vector<int64_t>{1}}},
                                      {{"dims", std::vector<int64_t>{1, 0}}}};
  return all;
}

// fn(operator, number of operands, dtype, attributes) for all that may fit together.
template <typename Fn>
void for_each_call(Fn&& fn) {
  for (const ops::Op* op : ops::all()) {
    const size_t n = required_operands(*op);
    if (n == 0 || n > 3) continue;
    for (const DType dtype : kDTypes)
      for (const Attrs& attrs : attributes()) fn(*op, n, dtype, attrs);
  }
}

TEST(Strides, NoLayoutOfTheOperandsChangesAResult) {
  int64_t calls = 0;
  for_each_call([&](const ops::Op& op, size_t n, DType dtype, const Attrs& attrs) {
    Tensors dense;
    for (size_t i = 0; i < n; ++i) dense.push_back(values({6, 7}, dtype, 10 + i));
    const auto want = result_of(op, dense, attrs);
    if (!want || result_of(op, dense, attrs) != want) return;  // random numbers
    for (size_t layouts = 1; layouts < (1U << n) * 2; ++layouts) {
      Tensors laid = dense;
      for (size_t i = 0; i < n; ++i)
        if (layouts >> (i + 1) & 1) laid[i] = transposed(laid[i]);
      if (layouts & 1) laid.back() = with_gaps(laid.back());
      ++calls;
      EXPECT_EQ(result_of(op, laid, attrs), want)
          << op.name() << " of " << to_string(dtype) << ", layouts " << layouts;
    }
  });
  fmt::print("{} calls\n", calls);
  EXPECT_GT(calls, 3000);
}

TEST(Strides, WhatIsBroadcastIsWhatIsRepeated) {
  int64_t calls = 0;
  const std::pair<Shape, Shape> shapes[] = {
      {{6, 7}, {1}}, {{1, 1}, {6, 7}}, {{6, 1}, {1, 7}}, {{6, 7}, {7}}, {{6, 1}, {6, 7}}};
  for (const ops::Op* op : ops::all()) {
    if (required_operands(*op) != 2) continue;
    for (const DType dtype : kDTypes)
      for (const auto& [a, b] : shapes) {
        const Tensor x = values(a, dtype, 1), y = values(b, dtype, 2);
        const Tensors repeated{x.expand({6, 7}).contiguous(), y.expand({6, 7}).contiguous()};
        const auto want = result_of(*op, repeated, {});
        const auto got = result_of(*op, {x, y}, {});
        if (!want || !got || result_of(*op, repeated, {}) != want) continue;
        if (got->size() != want->size()) continue;  // it does not broadcast
        for (const Tensors& operands : {Tensors{x, y},
                                        {with_gaps(x), y},
                                        {x, with_gaps(y)},
                                        {transposed(x), transposed(y)}}) {
          ++calls;
          EXPECT_EQ(result_of(*op, operands, {}), want)
              << op->name() << " of " << to_string(dtype) << " " << to_string(a) << " and "
              << to_string(b);
        }
      }
  }
  fmt::print("{} calls\n", calls);
  EXPECT_GT(calls, 3000);
}

// What memory held before it was asked for is in no result: no operator reads beyond its operands,
// as one would that took elements for wider ones than they are.
TEST(Strides, NoResultDependsOnWhatMemoryHeld) {
#if !defined(__GLIBC__) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "needs glibc's malloc";
#else
  int64_t calls = 0;
  for_each_call([&](const ops::Op& op, size_t n, DType dtype, const Attrs& attrs) {
    std::optional<std::string> results[2];
    for (const int fill : {0x00, 0x7f}) {
      mallopt(M_PERTURB, fill ^ 0xff);
      Tensors operands;
      for (size_t i = 0; i < n; ++i) operands.push_back(values({6, 7}, dtype, 10 + i));
      results[fill ? 1 : 0] = result_of(op, operands, attrs);
    }
    mallopt(M_PERTURB, 0);
    if (!results[0]) return;
    ++calls;
    EXPECT_EQ(results[0], results[1]) << op.name() << " of " << to_string(dtype);
  });
  fmt::print("{} calls\n", calls);
  EXPECT_GT(calls, 900);
#endif
}

// The gradients of sum(c * op(operands)), laid out in memory as the operands are.
std::optional<std::string> gradients_of(const ops::Op& op, const Tensors& operands, const Tensor& c,
                                        bool transpose) {
  try {
    Tensors leaves, used;
    for (const Tensor& t : operands) {
      leaves.push_back(transpose ? t.transpose(0, 1).contiguous() : t.clone());
      autograd::set_requires_grad(leaves.back());
      used.push_back(
          transpose ? ops::call("permute", {leaves.back()}, {{"dims", std::vector<int64_t>{1, 0}}})
                    : leaves.back());
    }
    const Tensor y = ops::call(op.name(), used);
    if (y.shape() != c.shape() || !autograd::requires_grad(y)) return std::nullopt;
    autograd::backward((y * (transpose ? transposed(c) : c)).sum());
    Tensors gradients;
    for (const Tensor& leaf : leaves) {
      const Tensor g = autograd::grad(leaf);
      gradients.push_back(transpose && g.defined() ? g.transpose(0, 1) : g);
    }
    return bytes_of(gradients);
  } catch (const Error&) {
    return std::nullopt;
  }
}

TEST(Strides, NoLayoutChangesAGradient) {
  int64_t calls = 0;
  for (const ops::Op* op : ops::all()) {
    const size_t n = required_operands(*op);
    if (n == 0 || n > 2 || !op->gradient() || op->output_count() != 1) continue;
    for (const DType dtype : {DType::float32, DType::float64}) {
      Tensors dense;
      for (size_t i = 0; i < n; ++i) dense.push_back(values({6, 6}, dtype, 10 + i));
      const Tensor c = values({6, 6}, dtype, 20);
      const auto want = gradients_of(*op, dense, c, false);
      if (!want || gradients_of(*op, dense, c, false) != want) continue;  // random numbers
      ++calls;
      EXPECT_EQ(gradients_of(*op, dense, c, true), want)
          << op->name() << " of " << to_string(dtype);
    }
  }
  fmt::print("{} calls\n", calls);
  EXPECT_GT(calls, 60);
}

}  // namespace
}  // namespace octet::testing
