#include "octet/nn/packed_sequence.h"

#include <algorithm>
#include <numeric>

#include "octet/base/check_impl.h"
#include "octet/ops/functional.h"
#include "octet/ops/op.h"

namespace octet::nn::utils {
namespace {

Tensor index_tensor(const std::vector<int64_t>& values) {
  const auto n = static_cast<int64_t>(values.size());
  return Tensor::from(values, {n});
}

// The rows of x at index, which has any shape.
Tensor rows(const Tensor& x, const Tensor& index) {
  return ops::call("index_select", {x, index}, {{"dim", int64_t{0}}});
}

// How a PackedSequence is cut, checked. Places: in the packed order, longest first.
struct Layout {
  std::vector<int64_t> sizes;    // by step
  std::vector<int64_t> starts;   // by step: the row of its first place
  std::vector<int64_t> lengths;  // by place
  std::vector<int64_t> batch;    // by place: where the sequence stands in the batch
  int64_t count() const { return static_cast<int64_t>(lengths.size()); }

  Layout(const PackedSequence& p, const std::string& who) {
    for (const Tensor* t : {&p.data, &p.batch_sizes, &p.sorted_indices, &p.unsorted_indices})
      if (t->defined() && t->is_symbolic()) detail::fail_traced(who);
    OCTET_CHECK(p.data.defined() && p.data.dim() >= 1 && p.batch_sizes.defined() &&
                    p.batch_sizes.dtype() == DType::int64 && p.batch_sizes.dim() == 1 &&
                    p.batch_sizes.numel() > 0,
                invalid_argument,
                "{}: a PackedSequence of data {} and batch_sizes {}; expected those of "
                "pack_padded_sequence",
                who, p.data.defined() ? octet::to_string(p.data.type()) : "none",
                p.batch_sizes.defined() ? octet::to_string(p.batch_sizes.type()) : "none");
    sizes = p.batch_sizes.to_vector<int64_t>();
    int64_t total = 0;
    for (size_t t = 0; t < sizes.size(); ++t) {
      OCTET_CHECK(sizes[t] >= 1 && (t == 0 || sizes[t] <= sizes[t - 1]), invalid_argument,
                  "{}: batch_sizes of a PackedSequence: {} at step {}; expected 1 or more, none "
                  "above the one before",
                  who, sizes[t], t);
      starts.push_back(total);
      total += sizes[t];
    }
    OCTET_CHECK(total == p.data.size(0), invalid_argument,
                "{}: a PackedSequence of data {} with {} steps in its batch_sizes", who,
                octet::to_string(p.data.type()), total);
    lengths.assign(static_cast<size_t>(sizes[0]), 0);
    for (int64_t n : sizes)
      for (int64_t i = 0; i < n; ++i) ++lengths[static_cast<size_t>(i)];
    batch.resize(lengths.size());
    std::iota(batch.begin(), batch.end(), 0);
    if (!p.sorted_indices.defined()) return;
    const bool fits =
        p.sorted_indices.dtype() == DType::int64 && p.sorted_indices.numel() == sizes[0];
    std::vector<int64_t> given =
                             fits ? p.sorted_indices.to_vector<int64_t>() : std::vector<int64_t>(),
                         sorted = given;
    std::sort(sorted.begin(), sorted.end());
    OCTET_CHECK(sorted == batch, invalid_argument,
                "{}: sorted_indices {} of a PackedSequence; expected each of {} sequences once",
                who, octet::to_string(p.sorted_indices.type()), sizes[0]);
    batch = std::move(given);
  }

  // The rows of the sequence at a place.
  std::vector<int64_t> rows_of(int64_t place) const {
    std::vector<int64_t> index;
    for (int64_t t = 0; t < lengths[static_cast<size_t>(place)]; ++t)
      index.push_back(starts[static_cast<size_t>(t)] + place);
    return index;
  }
};

PackedSequence pack(const Tensor& input, const std::vector<int64_t>& lengths, bool batch_first,
                    bool enforce_sorted, const char* who) {
  if (input.is_symbolic()) detail::fail_traced(who);
  const auto count = static_cast<int64_t>(lengths.size());
  OCTET_CHECK(input.dim() >= 2 && count >= 1 && input.size(batch_first ? 0 : 1) == count,
              invalid_argument, "{}: input {} and {} lengths; expected {} and a length for each",
              who, octet::to_string(input.type()), count,
              batch_first ? "(N, T, ...)" : "(T, N, ...)");
  const int64_t steps = input.size(batch_first ? 1 : 0);
  for (int64_t n : lengths)
    OCTET_CHECK(n >= 1 && n <= steps, invalid_argument,
                "{}: length {} of an input {}; expected 1 to {}", who, n,
                octet::to_string(input.type()), steps);
  std::vector<int64_t> order(lengths.size());
  std::iota(order.begin(), order.end(), 0);
  auto length = [&](int64_t n) { return lengths[static_cast<size_t>(n)]; };
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return length(a) > length(b); });
  OCTET_CHECK(!enforce_sorted || std::is_sorted(order.begin(), order.end()), invalid_argument,
              "{}: the lengths increase; expected the longest first: sort them, or give "
              "enforce_sorted=false",
              who);
  std::vector<int64_t> index, sizes;
  for (int64_t t = 0; t < length(order[0]); ++t) {
    int64_t n = 0;
    for (; n < count && length(order[static_cast<size_t>(n)]) > t; ++n) {
      const int64_t at = order[static_cast<size_t>(n)];
      index.push_back(batch_first ? at * steps + t : t * count + at);
    }
    sizes.push_back(n);
  }
  Shape shape(input.shape().begin() + 1, input.shape().end());
  shape[0] = steps * count;
  PackedSequence packed{rows(input.reshape(shape), index_tensor(std::move(index))),
                        index_tensor(std::move(sizes)),
                        {},
                        {}};
  if (enforce_sorted) return packed;
  std::vector<int64_t> back(order.size());
  for (size_t i = 0; i < order.size(); ++i)
    back[static_cast<size_t>(order[i])] = static_cast<int64_t>(i);
  packed.sorted_indices = index_tensor(std::move(order));
  packed.unsorted_indices = index_tensor(std::move(back));
  return packed;
}

// One row of `value`, of x's kind.
Tensor row_of(const Tensor& x, double value) {
  Shape shape = x.shape();
  shape[0] = 1;
  if (!x.is_quantized()) return Tensor::full(shape, value, x.dtype());
  return octet::quantize(Tensor::full(shape, value), x.quantizer(), x.dtype());
}

std::vector<int64_t> lengths_of(const std::vector<Tensor>& sequences, const char* who) {
  OCTET_CHECK(!sequences.empty(), invalid_argument, "{}: no sequences", who);
  std::vector<int64_t> lengths;
  for (const Tensor& s : sequences) {
    if (s.is_symbolic()) detail::fail_traced(who);
    const Shape& first = sequences[0].shape();
    OCTET_CHECK(
        s.dim() >= 1 && s.dim() == sequences[0].dim() && s.size(0) >= 1 &&
            std::equal(first.begin() + 1, first.end(), s.shape().begin() + 1),
        invalid_argument,
        "{}: sequences {} and {}; expected one step or more, and the same shape but for the length",
        who, octet::to_string(sequences[0].type()), octet::to_string(s.type()));
    lengths.push_back(s.size(0));
  }
  return lengths;
}

Tensor pad_sequences(const std::vector<Tensor>& sequences, bool batch_first, double value,
                     const char* who) {
  const std::vector<int64_t> lengths = lengths_of(sequences, who);
  const int64_t steps = *std::max_element(lengths.begin(), lengths.end());
  std::vector<Tensor> padded;
  for (const Tensor& s : sequences) {
    std::vector<int64_t> pads(2 * static_cast<size_t>(s.dim()), 0);
    pads.back() = steps - s.size(0);
    padded.push_back(functional::pad(s, pads, "constant", value));
  }
  return functional::stack(padded, batch_first ? 0 : 1);
}

}  // namespace

inline namespace rnn {

std::vector<Tensor> PackedSequence::with(const Tensor& h0, const Tensor& c0) const {
  std::vector<Tensor> inputs = *this;
  inputs.push_back(h0);
  if (c0.defined()) inputs.push_back(c0);
  return inputs;
}

PackedOutput::PackedOutput(const std::vector<Tensor>& results) {
  OCTET_CHECK(detail::is_packed(results) && results.size() >= 5 && results.size() <= 6,
              invalid_argument,
              "PackedOutput of {} results; expected those of a recurrent network called with a "
              "PackedSequence",
              results.size());
  output = Value<PackedSequence>::from(results);
  h_n = results[4];
  if (results.size() == 6) c_n = results[5];
}

PackedSequence pack_padded_sequence(const Tensor& input, const Tensor& lengths, bool batch_first,
                                    bool enforce_sorted) {
  if (lengths.is_symbolic()) detail::fail_traced("pack_padded_sequence");
  OCTET_CHECK(lengths.dtype() == DType::int64 && lengths.dim() == 1, invalid_argument,
              "pack_padded_sequence: lengths are {}; expected int64 (N)",
              octet::to_string(lengths.type()));
  return pack(input, lengths.to_vector<int64_t>(), batch_first, enforce_sorted,
              "pack_padded_sequence");
}

PackedSequence pack_padded_sequence(const Tensor& input, const std::vector<int64_t>& lengths,
                                    bool batch_first, bool enforce_sorted) {
  return pack(input, lengths, batch_first, enforce_sorted, "pack_padded_sequence");
}

PackedSequence pack_sequence(const std::vector<Tensor>& sequences, bool enforce_sorted) {
  return pack(pad_sequences(sequences, false, 0, "pack_sequence"),
              lengths_of(sequences, "pack_sequence"), false, enforce_sorted, "pack_sequence");
}

Tensor pad_sequence(const std::vector<Tensor>& sequences, bool batch_first, double padding_value) {
  return pad_sequences(sequences, batch_first, padding_value, "pad_sequence");
}

std::pair<Tensor, Tensor> pad_packed_sequence(const PackedSequence& sequence, bool batch_first,
                                              double padding_value, int64_t total_length) {
  const Layout layout(sequence, "pad_packed_sequence");
  const auto longest = static_cast<int64_t>(layout.sizes.size());
  OCTET_CHECK(total_length == 0 || total_length >= longest, invalid_argument,
              "pad_packed_sequence: total_length={}; expected {}, the longest length, or more",
              total_length, longest);
  const int64_t steps = std::max(total_length, longest), count = layout.count(),
                blank = sequence.data.size(0);
  std::vector<int64_t> index(static_cast<size_t>(steps * count), blank),
      lengths(static_cast<size_t>(count));
  for (int64_t place = 0; place < count; ++place) {
    const int64_t n = layout.batch[static_cast<size_t>(place)];
    const std::vector<int64_t> of = layout.rows_of(place);
    lengths[static_cast<size_t>(n)] = static_cast<int64_t>(of.size());
    for (int64_t t = 0; t < static_cast<int64_t>(of.size()); ++t)
      index[static_cast<size_t>(batch_first ? n * steps + t : t * count + n)] =
          of[static_cast<size_t>(t)];
  }
  Tensor x = sequence.data;
  if (std::count(index.begin(), index.end(), blank) > 0)
    x = functional::cat({x, row_of(x, padding_value)}, 0);
  const Shape shape = batch_first ? Shape{count, steps} : Shape{steps, count};
  return {rows(x, Tensor::from(index, shape)), index_tensor(std::move(lengths))};
}

}  // namespace rnn

namespace detail {

bool is_packed(const std::vector<Tensor>& inputs) {
  return inputs.size() >= 4 && inputs[1].defined() && inputs[1].dtype() == DType::int64 &&
         inputs[1].dim() == 1;
}
bool is_packed(const std::vector<TensorType>& inputs) {
  return inputs.size() >= 4 && inputs[1].dtype == DType::int64 && inputs[1].dim() == 1;
}

void fail_traced(const std::string& who) {
  OCTET_FAIL(unsupported,
             "{}: a PackedSequence cannot be traced, its sequences are cut by numbers: keep the "
             "module that packs "
             "and runs them as a leaf, or use the eager workflows (prepare, quantize_dynamic)",
             who);
}

std::vector<Tensor> run_packed(
    const std::vector<Tensor>& inputs, size_t states, const std::string& who,
    const std::function<std::vector<Tensor>(const std::vector<Tensor>&)>& network) {
  OCTET_CHECK(inputs.size() <= 4 + states, invalid_argument,
              "{}: a PackedSequence and {} states given; it has {}", who, inputs.size() - 4,
              states);
  const PackedSequence packed = Value<PackedSequence>::from(inputs);
  const Layout layout(packed, who);
  for (size_t i = 4; i < inputs.size(); ++i)
    OCTET_CHECK(
        !inputs[i].defined() || (inputs[i].dim() == 3 && inputs[i].size(1) == layout.count()),
        invalid_argument,
        "{}: state {} is {}; expected (layers * directions, {} sequences, hidden)", who, i - 4,
        octet::to_string(inputs[i].type()), layout.count());
  std::vector<Tensor> ys;
  std::vector<std::vector<Tensor>> last(states, std::vector<Tensor>(layout.lengths.size()));
  // rows of all ys, in the packed order
  std::vector<int64_t> order(static_cast<size_t>(packed.data.size(0)));
  int64_t row = 0;
  for (int64_t place = 0; place < layout.count(); ++place) {
    const int64_t n = layout.batch[static_cast<size_t>(place)];
    const std::vector<int64_t> of = layout.rows_of(place);
    for (int64_t at : of) order[static_cast<size_t>(at)] = row++;
    std::vector<Tensor> one{rows(packed.data, index_tensor(of))};
    for (size_t i = 4; i < inputs.size(); ++i)
      one.push_back(inputs[i].defined() ? inputs[i].select(1, n) : Tensor());
    const std::vector<Tensor> results = network(one);
    ys.push_back(results.at(0));
    for (size_t i = 0; i < states; ++i) last[i][static_cast<size_t>(n)] = results.at(i + 1);
  }
  std::vector<Tensor> results =
      PackedSequence{rows(functional::cat(ys, 0), index_tensor(std::move(order))),
                     packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices};
  for (const std::vector<Tensor>& each : last) results.push_back(functional::stack(each, 1));
  return results;
}

}  // namespace detail
}  // namespace octet::nn::utils
