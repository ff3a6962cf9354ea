// Einsum: products and sums of operands whose dimensions have labels. Operands are joined two at a
// time by a matrix product, with the labels that both have and the result keeps as its batch.
#include <algorithm>
#include <cctype>

#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

using Labels = std::vector<int>;  // letters, or kEllipsis + the place from the end in "..."
constexpr int kEllipsis = 1000;

bool has_label(const Labels& labels, int label) {
  return std::find(labels.begin(), labels.end(), label) != labels.end();
}

struct Operand {
  ValPtr value;
  Labels labels;
};

class Einsum {
 public:
  Einsum(Importer& im, const NodeView& n) : im_(im), n_(n) {}

  void run() {
    read();
    for (Operand& o : operands_) take_diagonals(o);
    Operand y = operands_[0];
    for (size_t i = 1; i < operands_.size(); ++i) {
      Labels kept = output_;
      for (size_t k = i + 1; k < operands_.size(); ++k)
        kept.insert(kept.end(), operands_[k].labels.begin(), operands_[k].labels.end());
      y = joined(y, operands_[i], kept);
    }
    sum_others(y, output_);
    for (int label : output_)
      if (!has_label(y.labels, label)) n_.fail(ErrorCode::corrupt, "'{}'", equation_);
    im_.out(n_, 0, in_order(y, output_));
  }

 private:
  Labels parse(const std::string& text, int64_t rank, int ellipsis_rank) {
    Labels labels;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text.compare(i, 3, "...") == 0) {
        const int dims = rank < 0 ? ellipsis_rank
                                  : static_cast<int>(rank - static_cast<int64_t>(text.size()) + 3);
        for (int d = dims; d-- > 0;) labels.push_back(kEllipsis + d);
        ellipsis_ = std::max(ellipsis_, dims);
        i += 2;
      } else if (std::isalpha(static_cast<unsigned char>(text[i]))) {
        labels.push_back(text[i]);
      } else {
        n_.fail(ErrorCode::corrupt, "the equation '{}'", equation_);
      }
    }
    if (rank >= 0 && static_cast<int64_t>(labels.size()) != rank)
      n_.fail(ErrorCode::corrupt, "'{}' for a {}-d value", text, rank);
    return labels;
  }

  void read() {
    equation_ = n_.get_string("equation", "");
    std::string text = equation_;
    std::erase(text, ' ');
    const size_t arrow = text.find("->");
    std::string left = text.substr(0, arrow);
    size_t i = 0;
    for (size_t from = 0; from <= left.size(); ++i) {
      const size_t comma = std::min(left.find(',', from), left.size());
      if (i >= n_.input_count())
        n_.fail(ErrorCode::corrupt, "'{}' for {} inputs", equation_, n_.input_count());
      ValPtr v = im_.in(n_, i);
      operands_.push_back({v, parse(left.substr(from, comma - from), v->rank(), 0)});
      from = comma + 1;
    }
    if (i != n_.input_count())
      n_.fail(ErrorCode::corrupt, "'{}' for {} inputs", equation_, n_.input_count());
    if (arrow != std::string::npos) {
      output_ = parse(text.substr(arrow + 2), -1, ellipsis_);
      Labels sorted = output_;
      std::sort(sorted.begin(), sorted.end());
      if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end())
        n_.fail(ErrorCode::corrupt, "'{}' gives a label twice", equation_);
      return;
    }
    // "..." first, then the labels that are there once, by the alphabet.
    for (int d = ellipsis_; d-- > 0;) output_.push_back(kEllipsis + d);
    for (int label = 1; label < 128; ++label) {
      int64_t count = 0;
      for (const Operand& o : operands_)
        count += std::count(o.labels.begin(), o.labels.end(), label);
      if (count == 1) output_.push_back(label);
    }
  }

  // A label that an operand has twice: only elements with equal indices count.
  void take_diagonals(Operand& o) {
    for (size_t i = 0; i < o.labels.size(); ++i)
      for (size_t k = i + 1; k < o.labels.size(); ++k) {
        if (o.labels[i] != o.labels[k]) continue;
        const int64_t size = known_dim(n_, *o.value, static_cast<int64_t>(i), "a diagonal");
        if (o.value->dims()[k] != Dim(size))
          n_.fail(ErrorCode::corrupt, "'{}' of {}", equation_, to_string(o.value->type));
        std::vector<int64_t> order{static_cast<int64_t>(i), static_cast<int64_t>(k)};
        Labels labels{o.labels[i]};
        std::vector<Dim> dims{size * size};
        for (size_t d = 0; d < o.labels.size(); ++d) {
          if (d == i || d == k) continue;
          order.push_back(static_cast<int64_t>(d));
          labels.push_back(o.labels[d]);
          dims.push_back(o.value->dims()[d]);
        }
        ValPtr v = im_.call(n_, "permute", {o.value}, {{"dims", order}});
        v = reshaped(v, dims);
        std::vector<int64_t> places;
        for (int64_t p = 0; p < size; ++p) places.push_back(p * (size + 1));
        ValPtr index = constant_val("", Tensor::from(places, {size}));
        o = {im_.call(n_, "index_select", {v, index}, {{"dim", int64_t{0}}}), labels};
        return take_diagonals(o);
      }
  }

  void sum_others(Operand& o, const Labels& kept) {
    std::vector<int64_t> dims;
    Labels rest;
    for (size_t d = 0; d < o.labels.size(); ++d) {
      if (has_label(kept, o.labels[d]))
        rest.push_back(o.labels[d]);
      else
        dims.push_back(static_cast<int64_t>(d));
    }
    if (dims.empty()) return;
    o = {im_.call(n_, "sum", {o.value}, {{"dim", dims}, {"keepdim", false}}), rest};
  }

  ValPtr in_order(const Operand& o, const Labels& labels) {
    std::vector<int64_t> order;
    bool same = true;
    for (int label : labels) {
      const auto at = std::find(o.labels.begin(), o.labels.end(), label) - o.labels.begin();
      same &= at == static_cast<std::ptrdiff_t>(order.size());
      order.push_back(at);
    }
    return same ? o.value : im_.call(n_, "permute", {o.value}, {{"dims", order}});
  }

  ValPtr reshaped(const ValPtr& v, const std::vector<Dim>& dims) {
    return emit_reshape(im_, n_, v, dims, false);
  }

  // The dimensions of these labels, whose sizes are remembered for what is computed at run time.
  std::vector<Dim> sizes(const Operand& o, const Labels& labels) {
    std::vector<Dim> dims;
    for (int label : labels) {
      const auto at = std::find(o.labels.begin(), o.labels.end(), label) - o.labels.begin();
      dims.push_back(o.value->dims()[static_cast<size_t>(at)]);
      if (!dims.back().known()) im_.remember(dims.back().name(), o.value->id, at);
    }
    return dims;
  }

  // `count` dimensions from `first` on as one, none as one of size 1.
  ValPtr merged(const ValPtr& v, size_t first, size_t count) {
    const auto from = static_cast<int64_t>(first), to = static_cast<int64_t>(first + count) - 1;
    if (count == 1) return v;
    if (count == 0) return im_.call(n_, "unsqueeze", {v}, {{"dim", from}});
    return im_.call(n_, "flatten", {v}, {{"start_dim", from}, {"end_dim", to}});
  }

  Operand joined(Operand a, Operand b, const Labels& kept) {
    Labels of_a = kept, of_b = kept;
    of_a.insert(of_a.end(), b.labels.begin(), b.labels.end());
    of_b.insert(of_b.end(), a.labels.begin(), a.labels.end());
    sum_others(a, of_a);
    sum_others(b, of_b);
    Labels batch, summed, rows, columns;
    for (int label : a.labels) {
      if (!has_label(b.labels, label))
        rows.push_back(label);
      else
        (has_label(kept, label) ? batch : summed).push_back(label);
    }
    for (int label : b.labels)
      if (!has_label(a.labels, label)) columns.push_back(label);
    const auto together = [](const Labels& x, const Labels& y, const Labels& z) {
      Labels all = x;
      all.insert(all.end(), y.begin(), y.end());
      all.insert(all.end(), z.begin(), z.end());
      return all;
    };
    const Labels all = together(batch, rows, columns);
    ValPtr left = in_order(a, together(batch, rows, summed)),
           right = in_order(b, together(batch, summed, columns));
    if (summed.empty()) {  // an outer product
      for (size_t i = 0; i < columns.size(); ++i)
        left = im_.call(n_, "unsqueeze", {left}, {{"dim", left->rank()}});
      for (size_t i = 0; i < rows.size(); ++i)
        right = im_.call(n_, "unsqueeze", {right}, {{"dim", static_cast<int64_t>(batch.size())}});
      return {im_.call(n_, "mul", {left, right}), all};
    }
    // Without a batch the product goes over the last dimension of as many rows as there are.
    const bool rows_stay = batch.empty() && !rows.empty();
    left = merged(left, batch.size() + rows.size(), summed.size());
    if (!rows_stay) left = merged(left, batch.size(), rows.size());
    right = merged(merged(right, batch.size() + summed.size(), columns.size()), batch.size(),
                   summed.size());
    ValPtr y = emit_matmul(im_, n_, left, right);
    if ((rows.size() <= 1 || rows_stay) && columns.size() <= 1) {
      if (columns.empty()) y = im_.call(n_, "squeeze", {y}, {{"dim", y->rank() - 1}});
      if (rows.empty())
        y = im_.call(n_, "squeeze", {y}, {{"dim", static_cast<int64_t>(batch.size())}});
      return {y, all};
    }
    std::vector<Dim> dims(y->dims().begin(),
                          y->dims().begin() + static_cast<std::ptrdiff_t>(batch.size()));
    im_.remember_sizes(*y);
    for (const Dim& d : sizes(a, rows)) dims.push_back(d);
    for (const Dim& d : sizes(b, columns)) dims.push_back(d);
    return {reshaped(y, dims), all};
  }

  Importer& im_;
  const NodeView& n_;
  std::string equation_;
  std::vector<Operand> operands_;
  Labels output_;
  int ellipsis_ = 0;
};

}  // namespace

void add_einsum(Handlers& h) {
  h["Einsum"] = [](Importer& im, const NodeView& n) { Einsum(im, n).run(); };
}

}  // namespace octet::io::onnx_impl
