// Rows of a table by index, and sums of them. Quantized tables (8 or 4 bits, usually with a scale
// and zero point per row that need not be whole) are read row by row: only the rows that are asked
// for become float.
#include <algorithm>
#include <limits>

#include "octet/base/parallel.h"
#include "octet/ops/define_impl.h"
#include "octet/tensor/affine.h"

namespace octet::ops {
namespace {

// The rows of a table as float32 numbers.
class Rows {
 public:
  explicit Rows(const Tensor& weight)
      : weight_(weight.is_quantized() || weight.dtype() == DType::float32
                    ? weight.contiguous()
                    : weight.to(DType::float32)),
        dtype_(weight_.dtype()),
        data_(weight_.raw_data()),
        columns_(weight_.size(1)),
        quantizer_(weight_.quantizer().get()) {}

  int64_t columns() const { return columns_; }

  void read(int64_t row, float* out) const {
    const int64_t first = row * columns_;
    if (!quantizer_) {
      std::copy_n(static_cast<const float*>(data_) + first, columns_, out);
      return;
    }
    switch (dtype_) {
      case DType::quint8:
        return decode(row, out, [&](int64_t j) {
          return int32_t{static_cast<const uint8_t*>(data_)[first + j]};
        });
      case DType::qint8:
        return decode(row, out, [&](int64_t j) {
          return int32_t{static_cast<const int8_t*>(data_)[first + j]};
        });
      case DType::quint16:
        return decode(row, out, [&](int64_t j) {
          return int32_t{static_cast<const uint16_t*>(data_)[first + j]};
        });
      case DType::qint16:
        return decode(row, out, [&](int64_t j) {
          return int32_t{static_cast<const int16_t*>(data_)[first + j]};
        });
      default:
        return decode(row, out, [&](int64_t j) { return packed_code(data_, dtype_, first + j); });
    }
  }

 private:
  // The formulas of Tensor::dequantize.
  template <typename Code>
  void decode(int64_t row, float* out, Code code) const {
    const double scale = quantizer_->scale(row);
    if (quantizer_->has_float_zero_points()) {
      const auto z = static_cast<float>(quantizer_->float_zero_points()[row]);
      for (int64_t j = 0; j < columns_; ++j)
        out[j] = affine::dequantize_float(code(j), static_cast<float>(scale), z);
    } else if (quantizer_->is_per_channel()) {
      const int64_t z = quantizer_->zero_point(row);
      for (int64_t j = 0; j < columns_; ++j)
        out[j] = static_cast<float>(static_cast<double>(code(j) - z) * scale);
    } else {
      const auto z = static_cast<int32_t>(quantizer_->zero_point());
      for (int64_t j = 0; j < columns_; ++j)
        out[j] = affine::dequantize(code(j), static_cast<float>(scale), z);
    }
  }

  Tensor weight_;
  DType dtype_;
  const void* data_;
  int64_t columns_;
  const Quantizer* quantizer_;
};

void check_table(const Types& t) {
  const std::string& who = t.op().name();
  const TensorType& w = t[0];
  OCTET_CHECK(w.dim() == 2, invalid_argument, "{}: weight is {}; expected (rows, numbers per row)",
              who, to_string(w));
  OCTET_CHECK(w.is_quantized() ? w.dtype != DType::qint32
                               : is_floating(w.dtype) && w.dtype != DType::float64,
              invalid_argument,
              "{}: weight is {}; expected float32, float16, bfloat16 or codes of 8 or 4 bits", who,
              to_string(w));
  if (w.quantizer && w.quantizer->is_per_channel())
    OCTET_CHECK(w.quantizer->axis() == 0, invalid_argument,
                "{}: weight {} is quantized per channel along axis {}; expected its rows, axis 0 "
                "(ch_axis=0)",
                who, dims_text(w.dims), w.quantizer->axis());
}

void check_integers(const Types& t, size_t i) {
  OCTET_CHECK(t[i].dtype == DType::int64 || t[i].dtype == DType::int32, invalid_argument,
              "{}: {} is {}; expected integers", t.op().name(), t.op().params()[i].name,
              to_string(t[i]));
}

std::vector<int64_t> checked_rows(const Tensor& index, int64_t rows, const std::string& who) {
  std::vector<int64_t> result = index.to(DType::int64).to_vector<int64_t>();
  for (int64_t i : result)
    OCTET_CHECK(i >= 0 && i < rows, invalid_argument,
                "{}: index {} is out of range for a table of {} rows", who, i, rows);
  return result;
}

// -- embedding_bag --------------------------------------------------------------------------------

TensorType infer_bag(const Types& t) {
  check_table(t);
  check_integers(t, 1);
  const std::string& mode = t.attrs().get_string("mode");
  OCTET_CHECK(mode == "sum" || mode == "mean" || mode == "max", invalid_argument,
              "embedding_bag: mode=\"{}\"; expected \"sum\", \"mean\" or \"max\"", mode);
  const int64_t padding = t.attrs().get_int("padding_idx");
  OCTET_CHECK(padding >= -1 && (!t[0].dims[0].known() || padding < t[0].dims[0].size()),
              invalid_argument,
              "embedding_bag: padding_idx={}; expected a row of {}, or -1 for none", padding,
              to_string(t[0]));
  const TensorType& indices = t[1];
  OCTET_CHECK(
      indices.dim() == (t.has("offsets") ? 1 : 2), invalid_argument,
      "embedding_bag: indices are {}; expected (bags, indices per bag), or (indices) with offsets",
      to_string(indices));
  Dim bags = indices.dims[0];
  if (t.has("offsets")) {
    check_integers(t, 2);
    OCTET_CHECK(t[2].dim() == 1, invalid_argument,
                "embedding_bag: offsets are {}; expected one dimension", to_string(t[2]));
    bags = t[2].dims[0];
    if (t.attrs().get_bool("include_last_offset")) {
      OCTET_CHECK(bags != Dim(0), invalid_argument,
                  "embedding_bag: offsets are empty; expected the end of the last bag");
      bags = plus(bags, -1);
    }
  }
  if (t.has("per_sample_weights")) {
    OCTET_CHECK(mode == "sum", invalid_argument,
                "embedding_bag: per_sample_weights go with mode=\"sum\", not \"{}\"", mode);
    OCTET_CHECK(
        t[3].dims == indices.dims && is_floating(t[3].dtype), invalid_argument,
        "embedding_bag: per_sample_weights are {}; expected one float for each of the indices {}",
        to_string(t[3]), dims_text(indices.dims));
  }
  return TensorType(DType::float32, {bags, t[0].dims[1]});
}

// Which entries of the flat list of indices make up each bag, without padding.
struct Bags {
  std::vector<int64_t> rows;   // the flat list
  std::vector<int64_t> begin;  // of each bag; one more for the end
  std::vector<float> weights;  // of each entry; empty: all 1
  int64_t padding = -1;
  int64_t count() const { return static_cast<int64_t>(begin.size()) - 1; }

  explicit Bags(const Call& c)
      : rows(checked_rows(c[1], c[0].size(0), "embedding_bag")),
        padding(c.attrs().get_int("padding_idx")) {
    const auto n = static_cast<int64_t>(rows.size());
    if (c.has(2)) {
      begin = c[2].to(DType::int64).to_vector<int64_t>();
      if (!c.attrs().get_bool("include_last_offset")) begin.push_back(n);
    } else {
      for (int64_t b = 0; b <= c[1].size(0); ++b) begin.push_back(b * c[1].size(1));
    }
    OCTET_CHECK(
        begin.front() == 0 && begin.back() <= n && std::is_sorted(begin.begin(), begin.end()),
        invalid_argument,
        "embedding_bag: offsets [{}] of {} indices; expected them to start at 0, not to fall, and "
        "to end by {}",
        fmt::join(begin, ", "), n, n);
    if (c.has(3)) weights = c[3].to(DType::float32).to_vector<float>();
  }

  // Calls fn(entry) for every entry of bag b; returns their number.
  template <typename Fn>
  int64_t each(int64_t b, Fn&& fn) const {
    int64_t n = 0;
    for (int64_t e = begin[b]; e < begin[b + 1]; ++e)
      if (rows[e] != padding) {
        fn(e);
        ++n;
      }
    return n;
  }
};

constexpr int64_t kBagGrain = 16384;  // numbers per task

Tensor eval_bag(const Call& c) {
  const Rows table(c[0]);
  const Bags bags(c);
  const std::string& mode = c.attrs().get_string("mode");
  const int64_t columns = table.columns();
  Tensor y = Tensor::empty({bags.count(), columns});
  float* out = y.data<float>();
  parallel_ranges(
      bags.count(), std::max<int64_t>(1, kBagGrain / std::max<int64_t>(1, columns)),
      [&](int64_t begin, int64_t end) {
        std::vector<float> row(columns);
        std::vector<double> sum(columns);
        for (int64_t b = begin; b < end; ++b) {
          const bool max = mode == "max";
          std::fill(sum.begin(), sum.end(), max ? -std::numeric_limits<double>::infinity() : 0);
          const int64_t n = bags.each(b, [&](int64_t e) {
            table.read(bags.rows[e], row.data());
            const double w = bags.weights.empty() ? 1 : bags.weights[e];
            for (int64_t j = 0; j < columns; ++j)
              sum[j] = max ? std::max<double>(sum[j], row[j]) : sum[j] + w * row[j];
          });
          for (int64_t j = 0; j < columns; ++j)
            out[b * columns + j] =
                n == 0
                    ? 0
                    : static_cast<float>(mode == "mean" ? sum[j] / static_cast<double>(n) : sum[j]);
        }
      });
  return y;
}

// dweight: each entry's row gets dy of its bag times its weight, 1/n in a mean; of a maximum, the
// first entry that has it. dper_sample_weights: dy . row.
std::vector<Tensor> bag_gradients(const Grad& g) {
  const Call& c = g.call();
  const Rows table(c[0]);
  const Bags bags(c);
  const std::string& mode = c.attrs().get_string("mode");
  const int64_t columns = table.columns();
  const Tensor dy_tensor = g.dy().contiguous();
  const float* dy = dy_tensor.data<float>();
  Tensor dweight = g.needs(0) ? Tensor::zeros(c[0].shape()) : Tensor();
  Tensor dsample = g.needs(3) ? Tensor::zeros({static_cast<int64_t>(bags.rows.size())}) : Tensor();
  std::vector<float> row(columns);
  for (int64_t b = 0; b < bags.count(); ++b, dy += columns) {
    if (mode == "max" && g.needs(0)) {
      std::vector<float> best(columns, -std::numeric_limits<float>::infinity());
      std::vector<int64_t> from(columns, -1);
      bags.each(b, [&](int64_t e) {
        table.read(bags.rows[e], row.data());
        for (int64_t j = 0; j < columns; ++j)
          if (from[j] < 0 || row[j] > best[j]) {
            best[j] = row[j];
            from[j] = bags.rows[e];
          }
      });
      for (int64_t j = 0; j < columns; ++j)
        if (from[j] >= 0) dweight.data<float>()[from[j] * columns + j] += dy[j];
      continue;
    }
    const int64_t n = bags.each(b, [](int64_t) {});
    bags.each(b, [&](int64_t e) {
      const float w = mode == "mean"         ? 1.0f / static_cast<float>(n)
                      : bags.weights.empty() ? 1
                                             : bags.weights[e];
      if (g.needs(0))
        for (int64_t j = 0; j < columns; ++j)
          dweight.data<float>()[bags.rows[e] * columns + j] += w * dy[j];
      if (g.needs(3)) {
        table.read(bags.rows[e], row.data());
        double dot = 0;
        for (int64_t j = 0; j < columns; ++j) dot += static_cast<double>(dy[j]) * row[j];
        dsample.data<float>()[e] = static_cast<float>(dot);
      }
    });
  }
  std::vector<Tensor> result(c.inputs().size());
  result[0] = dweight;
  if (g.needs(3)) result[3] = dsample.reshape(c[3].shape());
  return result;
}

}  // namespace

// Row index[...] of a quantized table in float32: y = (q - z) * s with the row's s and z.
OCTET_OP(embedding_byte, "embedding_byte(weight, index) -> y", QRule::weights,
         Doc{"rows of a table of 8- or 4-bit codes as float; scale and zero point usually per row"},
         infer([](const Types& t) {
           check_table(t);
           check_integers(t, 1);
           std::vector<Dim> dims = t[1].dims;
           dims.push_back(t[0].dims[1]);
           return TensorType(DType::float32, std::move(dims));
         }),
         eval([](const Call& c) {
           return call("embedding", {c[0].to(DType::float32), c[1]});
         }),
         quantized([](const Call& c) {
           const Rows table(c[0]);
           const std::vector<int64_t> rows = checked_rows(c[1], c[0].size(0), "embedding_byte");
           Tensor y = Tensor::empty(c.outputs()[0].shape());
           float* out = y.data<float>();
           parallel_ranges(static_cast<int64_t>(rows.size()),
                           std::max<int64_t>(1, kBagGrain / std::max<int64_t>(1, table.columns())),
                           [&](int64_t begin, int64_t end) {
                             for (int64_t i = begin; i < end; ++i)
                               table.read(rows[i], out + i * table.columns());
                           });
           return y;
         }))

// Bags of rows, each summed, averaged or maximized (element by element); an empty bag gives zeros.
// indices are (bags, indices per bag), or one list in which offsets (bags) says where each bag
// begins; with include_last_offset it also ends with where the last one ends. Entries equal to
// padding_idx (-1: none) count for nothing. Sums are taken in double and rounded once.
OCTET_OP(
    embedding_bag,
    "embedding_bag(weight, indices, offsets?, per_sample_weights?, *, mode=\"mean\", "
    "include_last_offset=false, "
    "padding_idx=-1) -> y",
    QRule::weights,
    Doc{"sum, mean or maximum of bags of a table's rows; the table float, or codes of 8 or 4 bits"},
    infer(infer_bag), eval(eval_bag), quantized(eval_bag), gradients(bag_gradients))

}  // namespace octet::ops
