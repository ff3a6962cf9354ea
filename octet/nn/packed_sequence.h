#pragma once
// Sequences of different lengths in one batch, as torch.nn.utils.rnn has them.
//
//   // x (T, N, features)
//   nn::utils::PackedSequence packed = nn::utils::pack_padded_sequence(x, {5, 3, 1});
//   nn::utils::PackedOutput out = lstm(packed);  // or lstm(packed.with(h0, c0))
//   // out.h_n, out.c_n: the last states
//   auto [y, lengths] = nn::utils::pad_packed_sequence(out.output);
//
// RNN, GRU and LSTM (float, dynamic and static) take one, as a Slot or as a module, and give for
// each sequence what they give for it alone: padding is never seen, and ranges found while running
// are each sequence's own. So they run one by one.
//
// How sequences are cut depends on numbers, so none of this can be traced: that is an Error.

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "octet/nn/module.h"

namespace octet::nn {
namespace utils {
inline namespace rnn {

// The steps of all sequences, longest sequence first: the first step of each, then the second of
// those that have one ...
struct PackedSequence {
  Tensor data;         // (all steps, ...)
  Tensor batch_sizes;  // int64 (longest length): how many sequences have that step
  // int64 (sequences): where the sequences stood in the batch; undefined: in that order
  Tensor sorted_indices;
  Tensor unsorted_indices;  // int64 (sequences): the way back
  // As modules take it: {data, batch_sizes, sorted_indices, unsorted_indices}, then the first
  // states (layers * directions, sequences, hidden), in the batch's order.
  // NOLINT
  operator std::vector<Tensor>() const {
    return {data, batch_sizes, sorted_indices, unsorted_indices};
  }
  std::vector<Tensor> with(const Tensor& h0, const Tensor& c0 = {}) const;
};

// What a recurrent network gives for one. The states are in the batch's order; c_n is an LSTM's.
struct PackedOutput {
  PackedSequence output;
  Tensor h_n, c_n;
  PackedOutput(const std::vector<Tensor>& results);  // NOLINT: implicit, of what the call gives
};

// input (T, N, ...), batch_first: (N, T, ...); lengths: int64 (N), 1 to T each. Unless
// enforce_sorted is false they must not increase (Error).
PackedSequence pack_padded_sequence(const Tensor& input, const Tensor& lengths,
                                    bool batch_first = false, bool enforce_sorted = true);
PackedSequence pack_padded_sequence(const Tensor& input, const std::vector<int64_t>& lengths,
                                    bool batch_first = false, bool enforce_sorted = true);
// Of sequences (length, ...), each its own.
PackedSequence pack_sequence(const std::vector<Tensor>& sequences, bool enforce_sorted = true);
// Sequences (length, ...) as one tensor (T, N, ...), T the longest length; batch_first: (N, T,
// ...).
Tensor pad_sequence(const std::vector<Tensor>& sequences, bool batch_first = false,
                    double padding_value = 0);
// The way back: (T, N, ...) or (N, T, ...) in the batch's order, and the lengths, int64 (N). T is
// the longest length, or total_length (Error if that is less; 0: not given).
std::pair<Tensor, Tensor> pad_packed_sequence(const PackedSequence& sequence,
                                              bool batch_first = false, double padding_value = 0,
                                              int64_t total_length = 0);

}  // namespace rnn

namespace detail {
// Are these the tensors of a PackedSequence, or their types, with states behind or without?
bool is_packed(const std::vector<Tensor>& inputs);
bool is_packed(const std::vector<TensorType>& inputs);
// Error (`unsupported`): what cannot be traced.
[[noreturn]] void fail_traced(const std::string& who);
// A network that has up to `states` states on the sequences of a PackedSequence; the tensors of a
// PackedOutput. `network` gets one sequence (T, features) and its states (layers * directions,
// hidden).
std::vector<Tensor> run_packed(
    const std::vector<Tensor>& inputs, size_t states, const std::string& who,
    const std::function<std::vector<Tensor>(const std::vector<Tensor>&)>& network);
}  // namespace detail
}  // namespace utils

template <>
struct Value<utils::PackedSequence> {
  static std::vector<Tensor> tensors(const utils::PackedSequence& x) { return x; }
  static utils::PackedSequence from(const std::vector<Tensor>& t) {
    return {t.at(0), t.at(1), t.at(2), t.at(3)};
  }
  static std::vector<std::string> names() {
    return {"data", "batch_sizes", "sorted_indices", "unsorted_indices"};
  }
};

}  // namespace octet::nn
