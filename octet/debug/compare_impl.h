#pragma once
// The parts of compare(): which values belong together, sums over values, and rewriting the
// quantized graph.

#include <array>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "octet/debug/compare.h"
#include "octet/debug/metrics.h"
#include "octet/ops/op.h"
#include "octet/runtime/program.h"

namespace octet::debug::detail {

// -- matching (compare_match.cpp) -----------------------------------------------------------------

struct Match {
  // By value of the quantized graph: the float graph's that it stands for; kNone.
  std::vector<graph::ValueId> of;
  // By value of the float graph: the first values that stand for it, as floats and as codes; kNone.
  std::vector<graph::ValueId> floats, codes;
  // By node of the float graph: the call of the quantized graph that computes it; -1.
  std::vector<graph::NodeId> node;
  // By node of the float graph: that call lacks the bias, which is added behind it.
  std::vector<bool> bias_apart;
};
Match match(const graph::Graph& f, const graph::Graph& q);

// quantize, dequantize, requantize: what only changes how a value is written.
bool is_conversion(const graph::Node& node);
// The place of the weight among the operands: a constant, or a parameter called weight; nullopt.
std::optional<size_t> weight_operand(const graph::Graph& g, const graph::Node& node);
// The dimension of the weight along which the output channels lie.
int64_t weight_axis(const graph::Node& node, const Tensor& weight);
// The dimension of a layer's result along which the channels lie.
int64_t channel_axis(const graph::Node& node, int64_t dims);

// Layers with a lower one come first: faults of accuracy, those left float, all others.
int rank_of(Fault fault);

// Runs the program five times and gives each call's share of the time: 0..1, of steps one after
// another the same call may come more than once. Nothing if the clock saw no time pass.
void share_time(const runtime::Program& program, const std::vector<Tensor>& inputs,
                const std::function<void(const graph::Node&, double share)>& add);

// -- sums (compare_stats.cpp) ---------------------------------------------------------------------

// Of pairs of values, by channel. All in double between calls.
struct PairSums {
  std::vector<double> xx, yy, dd;                 // by channel
  std::vector<float> x_min, x_max, y_min, y_max;  // by channel
  double max_error = 0;
  int64_t count = 0;
  // dd, y_min and y_max are all that is wanted; else y_min and y_max are not.
  bool only_noise = false;
  void merge(const PairSums& other);
  double signal() const;
  double noise() const;
  double sqnr() const;
  double cosine() const;
};

struct SampleRange {
  float min = 0, max = 0;
};

// Adds x (float32) and y (float32 or quantized), of equal shapes, with channels along `axis` (-1:
// all are one). The ranges of x in each of `batch` samples along dimension 0; one for all of them
// if dimension 0 is another. Elements of x that are not finite are left out.
std::vector<SampleRange> add_pair(PairSums& sums, const Tensor& x, const Tensor& y, int64_t axis,
                                  int64_t batch);

// Values by the code that they would have, and the error of the codes.
struct GridSums {
  std::vector<uint64_t> counts = std::vector<uint64_t>(512);
  double error = 0, clipping = 0;  // sums of squares; that of values beyond the codes
  void merge(const GridSums& other);
};
// What is known of the ranges of samples, in whatever order they come: those of the samples up to
// each power of two, and the samples with the largest magnitudes.
struct SeenRanges {
  // [k]: of samples whose number from 1 on is above 2^(k-1) and at most 2^k, and the last of them.
  struct Bucket {
    int64_t last = 0;  // 0: none
    SampleRange range;
  };
  std::array<Bucket, 64> buckets;
  static constexpr size_t kKept = 8;
  std::vector<std::pair<float, int64_t>> largest;  // magnitude and sample; the largest first
  // `seen`: how many samples there are up to the end of those that the range is of.
  void add(int64_t sample, int64_t seen, const SampleRange& range);
  void merge(const SeenRanges& other);
  // After 1, 2, 4, ... samples, and all.
  std::vector<RangeAfter> after() const;

 private:
  void keep_largest(float magnitude, int64_t sample);
};

// Sums as bytes, for another process of the same program.
class Packer {
 public:
  template <typename T>
  Packer& put(const T& plain) {
    static_assert(std::is_trivially_copyable_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&plain), sizeof plain);
    return *this;
  }
  Packer& put(const PairSums& sums);
  Packer& put(const GridSums& sums);
  Packer& put(const SeenRanges& ranges);
  const std::string& bytes() const { return bytes_; }

 private:
  template <typename T>
  Packer& put_list(const std::vector<T>& list);
  std::string bytes_;
};
// Error internal where the bytes end too early: the processes compare other networks.
class Unpacker {
 public:
  explicit Unpacker(const std::string& bytes) : rest_(bytes) {}
  template <typename T>
  T take() {
    T plain;
    copy(&plain, sizeof plain);
    return plain;
  }
  PairSums take_sums();
  GridSums take_grid();
  SeenRanges take_ranges();

 private:
  void copy(void* to, size_t bytes);
  template <typename T>
  std::vector<T> take_list();
  std::string_view rest_;
};

void add_grid(GridSums& sums, const Tensor& x, double scale, int64_t zero_point, int64_t quant_min,
              int64_t quant_max, int64_t batch);

// -- rewriting (compare_rewrite.cpp) --------------------------------------------------------------

// The quantized graph with other qparams for values and all that share them because an operator
// keeps its operand's. nullopt if one has fixed qparams, or the graph would not be sound.
using Quantizers = std::vector<std::pair<graph::ValueId, QuantizerPtr>>;
std::optional<graph::Graph> with_quantizers(const graph::Graph& q, const Quantizers& quantizers);
// With the weight of a node quantized anew, per channel, from the float one.
std::optional<graph::Graph> with_weight(const graph::Graph& q, graph::NodeId node,
                                        const Tensor& weight);
// With these nodes of the float graph computed in float: they read each other's floats, and their
// results become the codes that the others read.
std::optional<graph::Graph> with_float(const graph::Graph& f, const graph::Graph& q,
                                       const Match& match, const std::set<graph::NodeId>& nodes);
// With a layer quantized that computes in float: its operands' codes are those that the graph has
// (nullopt if it has none), its weight is quantized per channel, its result as `result` says.
std::optional<graph::Graph> with_codes(const graph::Graph& q, graph::NodeId node,
                                       const ops::QType& result);
// The weight quantized per channel, symmetrically, along that axis.
Tensor per_channel_weight(const Tensor& weight, int64_t axis, DType dtype);

}  // namespace octet::debug::detail
