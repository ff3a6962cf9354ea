// What networks that find objects need: samples of an image at given places and regions, and the
// best of overlapping boxes.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "octet/ops/define_impl.h"
#include "octet/ops/iterate_impl.h"

namespace octet::ops {
namespace {

// -- grid_sample ----------------------------------------------------------------------------------

enum class Sampling { nearest, linear, cubic };
enum class Outside { zeros, border, reflection };

struct GridModes {
  explicit GridModes(const Attrs& attrs) : align_corners(attrs.get_bool("align_corners")) {
    const std::string &mode_name = attrs.get_string("mode"),
                      &padding_name = attrs.get_string("padding_mode");
    OCTET_CHECK(
        mode_name == "nearest" || mode_name == "linear" || mode_name == "cubic", invalid_argument,
        "grid_sample: mode=\"{}\"; expected \"nearest\", \"linear\" or \"cubic\"", mode_name);
    OCTET_CHECK(padding_name == "zeros" || padding_name == "border" || padding_name == "reflection",
                invalid_argument,
                "grid_sample: padding_mode=\"{}\"; expected \"zeros\", \"border\" or "
                "\"reflection\"",
                padding_name);
    mode = mode_name == "nearest"  ? Sampling::nearest
           : mode_name == "linear" ? Sampling::linear
                                   : Sampling::cubic;
    outside = padding_name == "zeros"    ? Outside::zeros
              : padding_name == "border" ? Outside::border
                                         : Outside::reflection;
  }
  Sampling mode = Sampling::linear;
  Outside outside = Outside::zeros;
  bool align_corners;
};

// x mirrored at both ends until it lies between them.
double mirrored(double x, double low, double high) {
  const double range = high - low;
  if (range <= 0) return low;
  double away = x < low ? low - x : x > high ? x - high : -1;
  if (away < 0) return x;
  const double turns = std::floor(away / range), rest = away - turns * range;
  const bool from_low = (x < low) == (std::fmod(turns, 2) == 0);
  return from_low ? low + rest : high - rest;
}

// The elements along one dimension that a place is blended from; -1: an element outside.
struct GridTaps {
  int count = 0;
  int64_t at[4];
  double weight[4];
};

// The element that stands for element i of n.
int64_t element_for(int64_t i, int64_t n, const GridModes& modes) {
  if (i >= 0 && i < n) return i;
  if (modes.outside == Outside::zeros) return -1;
  if (modes.outside == Outside::border) return std::clamp<int64_t>(i, 0, n - 1);
  const double edge = modes.align_corners ? 0 : 0.5;
  const double inside = mirrored(static_cast<double>(i), -edge, static_cast<double>(n - 1) + edge);
  return std::clamp<int64_t>(static_cast<int64_t>(inside), 0, n - 1);
}

// `place`: -1 is the beginning and 1 the end of n elements.
GridTaps grid_taps(double place, int64_t n, const GridModes& modes) {
  const auto size = static_cast<double>(n);
  double x = modes.align_corners ? (place + 1) / 2 * (size - 1) : ((place + 1) * size - 1) / 2;
  GridTaps taps;
  // A place that is not a number, or so far away that elements cannot be counted.
  if (!(std::fabs(x) < 1e15))
    x = modes.outside == Outside::zeros ? -10 : std::isnan(x) ? 0 : std::clamp(x, -1e15, 1e15);
  if (modes.mode != Sampling::cubic) {
    const double edge = modes.align_corners ? 0 : 0.5;
    if (modes.outside == Outside::border) x = std::clamp(x, 0.0, size - 1);
    if (modes.outside == Outside::reflection) x = mirrored(x, -edge, size - 1 + edge);
  }
  const auto add = [&](int64_t i, double weight) {
    taps.at[taps.count] = element_for(i, n, modes);
    taps.weight[taps.count++] = weight;
  };
  if (modes.mode == Sampling::nearest) {
    add(static_cast<int64_t>(std::nearbyint(x)), 1);
    return taps;
  }
  const auto first = static_cast<int64_t>(std::floor(x));
  const double t = x - std::floor(x);
  if (modes.mode == Sampling::linear) {
    add(first, 1 - t);
    add(first + 1, t);
    return taps;
  }
  constexpr double a = -0.75;
  const auto near = [](double d) { return ((a + 2) * d - (a + 3)) * d * d + 1; };
  const auto far = [](double d) { return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a; };
  add(first - 1, far(t + 1));
  add(first, near(t));
  add(first + 1, near(1 - t));
  add(first + 2, far(2 - t));
  return taps;
}

TensorType infer_grid_sample(const Types& t) {
  need_floating(t);
  need_floating(t, 1);
  need_want(t);
  (void)GridModes(t.attrs());
  const std::vector<Dim>&x = t[0].dims, &grid = t[1].dims;
  bool fits = x.size() >= 3 && x.size() <= 5 && grid.size() == x.size() &&
              grid.back() == Dim(static_cast<int64_t>(x.size()) - 2) &&
              (x[0] == grid[0] || !x[0].known() || !grid[0].known());
  OCTET_CHECK(fits, invalid_argument,
              "grid_sample: x has shape {} and grid {}; expected (N, C, spatial...) and "
              "(N, spatial..., number of spatial dimensions)",
              dims_text(x), dims_text(grid));
  std::vector<Dim> dims{x[0], x[1]};
  dims.insert(dims.end(), grid.begin() + 1, grid.end() - 1);
  return t.result(std::move(dims), plain_dtype(t[0]));
}

Tensor eval_grid_sample(const Call& c) {
  const GridModes modes(c.attrs());
  const Tensor x = c[0].contiguous(), grid = c[1].to(DType::float64).contiguous();
  const int64_t spatial = x.dim() - 2, images = x.size(0), channels = x.size(1);
  OCTET_CHECK(grid.size(0) == images, invalid_argument, "grid_sample: grids for {} of {} images",
              grid.size(0), images);
  int64_t pixels = 1, places = 1;
  for (int64_t d = 0; d < spatial; ++d) {
    pixels *= x.size(d + 2);
    places *= grid.size(d + 1);
  }
  Tensor y = Tensor::empty(c.outputs()[0].shape(), x.dtype());
  if (y.numel() == 0) return y;
  OCTET_CHECK(pixels > 0, invalid_argument, "grid_sample: the images are empty");
  visit_float(x.dtype(), "grid_sample", [&](auto zero) {
    using T = decltype(zero);
    const T* in = x.data<T>();
    T* out = y.data<T>();
    const auto* where = grid.data<double>();
    parallel_ranges(images * places, std::max<int64_t>(1, kGrain / (8 * channels)),
                    [&](int64_t begin, int64_t end) {
                      std::vector<std::pair<int64_t, double>> sum, product;
                      for (int64_t i = begin; i < end; ++i) {
                        // The taps of all dimensions multiplied, the outermost first. The grid
                        // names the innermost dimension first.
                        sum.assign(1, {0, 1.0});
                        for (int64_t d = 0; d < spatial; ++d) {
                          const GridTaps taps =
                              grid_taps(where[i * spatial + spatial - 1 - d], x.size(d + 2), modes);
                          product.clear();
                          for (const auto& [at, weight] : sum)
                            for (int k = 0; k < taps.count; ++k)
                              if (taps.at[k] >= 0)
                                product.emplace_back(at * x.size(d + 2) + taps.at[k],
                                                     weight * taps.weight[k]);
                          sum.swap(product);
                        }
                        const int64_t image = i / places, place = i % places;
                        for (int64_t k = 0; k < channels; ++k) {
                          const T* plane = in + (image * channels + k) * pixels;
                          double v = 0;
                          for (const auto& [at, weight] : sum)
                            v += weight * static_cast<double>(plane[at]);
                          out[(image * channels + k) * places + place] = static_cast<T>(v);
                        }
                      }
                    });
  });
  return y;
}

// -- roi_align ------------------------------------------------------------------------------------

constexpr int64_t kMostSamples = 1 << 12;  // along one side of a cell

TensorType infer_roi_align(const Types& t) {
  need_floating(t);
  need_floating(t, 1);
  need_want(t);
  const Attrs& a = t.attrs();
  const std::vector<int64_t>& size = a.get_ints("output_size");
  const std::string &mode = a.get_string("mode"), &coordinates = a.get_string("coordinates");
  OCTET_CHECK(size.size() == 2 && size[0] > 0 && size[1] > 0, invalid_argument,
              "roi_align: output_size=[{}]; expected two sizes", fmt::join(size, ", "));
  OCTET_CHECK(a.get_int("sampling_ratio") <= kMostSamples, invalid_argument,
              "roi_align: sampling_ratio={}; expected {} or less", a.get_int("sampling_ratio"),
              kMostSamples);
  OCTET_CHECK(mode == "avg" || mode == "max", invalid_argument,
              "roi_align: mode=\"{}\"; expected \"avg\" or \"max\"", mode);
  OCTET_CHECK(coordinates == "half_pixel" || coordinates == "output_half_pixel", invalid_argument,
              "roi_align: coordinates=\"{}\"; expected \"half_pixel\" or \"output_half_pixel\"",
              coordinates);
  bool fits = t[0].dim() == 4 && t[1].dim() == 2 && t[1].dims[1] == Dim(4) && t[2].dim() == 1;
  OCTET_CHECK(fits && !is_floating(t[2].dtype), invalid_argument,
              "roi_align: x is {}, rois {} and images {}; expected (N, C, H, W), (count, 4) and "
              "integers (count)",
              to_string(t[0]), to_string(t[1]), to_string(t[2]));
  return t.result({t[1].dims[0], t[0].dims[1], size[0], size[1]}, plain_dtype(t[0]));
}

// Along one dimension of n elements: the two elements that a place lies between and the weight of
// the second; first -1: outside.
struct Between {
  int64_t first = -1, second = 0;
  double weight = 0;
};
Between between(double place, int64_t n) {
  if (!(place >= -1 && place <= static_cast<double>(n))) return {};
  place = std::max(place, 0.0);
  const auto first = static_cast<int64_t>(place);
  if (first >= n - 1) return {n - 1, n - 1, 0};
  return {first, first + 1, place - static_cast<double>(first)};
}

Tensor eval_roi_align(const Call& c) {
  const Attrs& a = c.attrs();
  const Tensor x = c[0].contiguous(), rois = c[1].to(DType::float64).contiguous(),
               images = c[2].to(DType::int64).contiguous();
  const bool half = a.get_string("coordinates") == "half_pixel",
             max = a.get_string("mode") == "max";
  const double scale = a.get_double("spatial_scale"), offset = half ? 0.5 : 0;
  const int64_t ratio = a.get_int("sampling_ratio"), channels = x.size(1), h = x.size(2),
                w = x.size(3), rows = a.get_ints("output_size")[0],
                columns = a.get_ints("output_size")[1];
  OCTET_CHECK(images.numel() == rois.size(0), invalid_argument,
              "roi_align: {} regions and the images of {}", rois.size(0), images.numel());
  for (int64_t i : images.to_vector<int64_t>())
    OCTET_CHECK(i >= 0 && i < x.size(0), invalid_argument, "roi_align: image {} of {}", i,
                x.size(0));
  Tensor y = Tensor::empty(c.outputs()[0].shape(), x.dtype());
  if (y.numel() == 0) return y;
  visit_float(x.dtype(), "roi_align", [&](auto zero) {
    using T = decltype(zero);
    parallel_ranges(rois.size(0), 1, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const double* roi = rois.data<double>() + r * 4;
        const double left = roi[0] * scale - offset, top = roi[1] * scale - offset;
        double width = roi[2] * scale - offset - left, height = roi[3] * scale - offset - top;
        if (!half) {
          width = std::max(width, 1.0);
          height = std::max(height, 1.0);
        }
        const double cell_w = width / static_cast<double>(columns),
                     cell_h = height / static_cast<double>(rows);
        const auto samples = [&](double cell) {
          OCTET_CHECK(ratio > 0 || cell < kMostSamples, invalid_argument,
                      "roi_align: region {} is too large", r);
          return ratio > 0 ? ratio : static_cast<int64_t>(std::ceil(cell));
        };
        const int64_t ny = samples(cell_h), nx = samples(cell_w);
        for (int64_t i = 0; i < rows; ++i) {
          for (int64_t j = 0; j < columns; ++j) {
            for (int64_t k = 0; k < channels; ++k) {
              const T* plane = x.data<T>() + (images.data<int64_t>()[r] * channels + k) * h * w;
              double sum = 0;
              bool any = false;
              for (int64_t sy = 0; sy < ny; ++sy) {
                const Between v =
                    between(top + (static_cast<double>(i) +
                                   (static_cast<double>(sy) + 0.5) / static_cast<double>(ny)) *
                                      cell_h,
                            h);
                for (int64_t sx = 0; sx < nx; ++sx) {
                  const Between u =
                      between(left + (static_cast<double>(j) +
                                      (static_cast<double>(sx) + 0.5) / static_cast<double>(nx)) *
                                         cell_w,
                              w);
                  double parts[4] = {0, 0, 0, 0};
                  if (v.first >= 0 && u.first >= 0) {
                    parts[0] = (1 - v.weight) * (1 - u.weight) * plane[v.first * w + u.first];
                    parts[1] = (1 - v.weight) * u.weight * plane[v.first * w + u.second];
                    parts[2] = v.weight * (1 - u.weight) * plane[v.second * w + u.first];
                    parts[3] = v.weight * u.weight * plane[v.second * w + u.second];
                  }
                  if (!max) {
                    sum += parts[0] + parts[1] + parts[2] + parts[3];
                  } else {  // of the weighted corners, as ONNX has it
                    const double most = *std::max_element(parts, parts + 4);
                    sum = any ? std::max(sum, most) : most;
                    any = true;
                  }
                }
              }
              if (!max) sum /= static_cast<double>(std::max<int64_t>(1, ny * nx));
              y.data<T>()[((r * channels + k) * rows + i) * columns + j] = static_cast<T>(sum);
            }
          }
        }
      }
    });
  });
  return y;
}

// -- non_max_suppression --------------------------------------------------------------------------

struct Box {
  double y0, x0, y1, x1;
  double area() const { return (y1 - y0) * (x1 - x0); }
};

// Whether the boxes share more than `threshold` of what they cover together.
bool overlap(const Box& a, const Box& b, double threshold) {
  const double h = std::min(a.y1, b.y1) - std::max(a.y0, b.y0),
               w = std::min(a.x1, b.x1) - std::max(a.x0, b.x0);
  if (h <= 0 || w <= 0 || a.area() <= 0 || b.area() <= 0) return false;
  const double common = h * w;
  return common / (a.area() + b.area() - common) > threshold;
}

TensorType infer_suppression(const Types& t) {
  const std::vector<Dim>&boxes = t[0].dims, &scores = t[1].dims;
  const auto same = [](const Dim& a, const Dim& b) { return a == b || !a.known() || !b.known(); };
  OCTET_CHECK(boxes.size() == 3 && scores.size() == 3 && boxes[2] == Dim(4) &&
                  same(boxes[0], scores[0]) && same(boxes[1], scores[2]),
              invalid_argument,
              "non_max_suppression: boxes have shape {} and scores {}; expected (N, boxes, 4) and "
              "(N, classes, boxes)",
              dims_text(boxes), dims_text(scores));
  return TensorType(DType::int64, {unknown(), Dim(3)});
}

Tensor plain_doubles(const Tensor& x) {
  return (x.is_quantized() ? x.dequantize() : x).to(DType::float64).contiguous();
}

Tensor eval_suppression(const Call& c) {
  const Tensor boxes = plain_doubles(c[0]), scores = plain_doubles(c[1]);
  const Attrs& a = c.attrs();
  const int64_t images = scores.size(0), classes = scores.size(1), count = scores.size(2),
                most = a.get_int("max_output");
  const double iou = a.get_double("iou_threshold"), least = a.get_double("score_threshold");
  const bool center = a.get_bool("center_point_box");
  OCTET_CHECK(iou >= 0 && iou <= 1, invalid_argument,
              "non_max_suppression: iou_threshold={}; expected 0 to 1", iou);
  OCTET_CHECK(boxes.size(0) == images && boxes.size(1) == count, invalid_argument,
              "non_max_suppression: boxes have shape {} and scores {}", to_string(boxes.shape()),
              to_string(scores.shape()));
  std::vector<int64_t> selected;
  std::vector<Box> all(static_cast<size_t>(count));
  for (int64_t n = 0; n < images; ++n) {
    for (int64_t i = 0; i < count; ++i) {
      const double* b = boxes.data<double>() + (n * count + i) * 4;
      all[i] = center ? Box{b[1] - b[3] / 2, b[0] - b[2] / 2, b[1] + b[3] / 2, b[0] + b[2] / 2}
                      : Box{std::min(b[0], b[2]), std::min(b[1], b[3]), std::max(b[0], b[2]),
                            std::max(b[1], b[3])};
    }
    for (int64_t k = 0; k < classes; ++k) {
      const double* score = scores.data<double>() + (n * classes + k) * count;
      std::vector<int64_t> order;
      for (int64_t i = 0; i < count; ++i)
        if (score[i] > least) order.push_back(i);
      std::stable_sort(order.begin(), order.end(),
                       [&](int64_t i, int64_t j) { return score[i] > score[j]; });
      std::vector<int64_t> kept;
      for (int64_t i : order) {
        if (std::ssize(kept) >= most) break;
        const bool hidden = std::any_of(kept.begin(), kept.end(),
                                        [&](int64_t j) { return overlap(all[i], all[j], iou); });
        if (!hidden) kept.push_back(i);
      }
      for (int64_t i : kept) selected.insert(selected.end(), {n, k, i});
    }
  }
  return Tensor::from(selected, {std::ssize(selected) / 3, 3});
}

}  // namespace

// x (N, C, spatial...) at the places that grid (N, spatial..., how many) gives for each element of
// the result: -1 is the beginning of a dimension and 1 its end, the innermost dimension first; ends
// are the centers of the outer elements (align_corners) or their edges. mode: "nearest" (halves to
// even), "linear" or "cubic". padding_mode: what is outside is 0 ("zeros"), the nearest element
// ("border"), or mirrored at the ends ("reflection").
OCTET_OP(
    grid_sample,
    "grid_sample(x, grid, *, mode=\"linear\", padding_mode=\"zeros\", align_corners=false) -> y",
    QRule::own, infer(infer_grid_sample), widened(eval_grid_sample),
    Doc{"x at the places of grid; mode: \"nearest\", \"linear\" or \"cubic\"; padding_mode: "
        "\"zeros\", \"border\" or \"reflection\""})

// Cells of output_size over regions (x0, y0, x1, y1) of images of x (N, C, H, W), multiplied by
// spatial_scale: each the mean (or maximum) of sampling_ratio x sampling_ratio samples (0: one for
// each element). coordinates: "half_pixel", or "output_half_pixel": elements lie on whole numbers,
// and regions are at least 1 wide and high.
OCTET_OP(roi_align,
         "roi_align(x, rois, images, *, output_size, sampling_ratio=0, spatial_scale=1., "
         "mode=\"avg\", coordinates=\"half_pixel\") -> y",
         QRule::own, infer(infer_roi_align), widened(eval_roi_align),
         Doc{"cells over regions of images; mode: \"avg\" or \"max\"; coordinates: \"half_pixel\" "
             "or \"output_half_pixel\""})

// The boxes of (N, boxes, 4), at most max_output for each image and class, whose scores (N,
// classes, boxes) are above score_threshold and that no better one overlaps by more than
// iou_threshold: rows of image, class and box. Boxes are (y0, x0, y1, x1), corners in any order, or
// with center_point_box (x, y, width, height).
OCTET_OP(non_max_suppression,
         "non_max_suppression(boxes, scores, *, max_output=0, iou_threshold=0., "
         "score_threshold=-inf, center_point_box=false) -> selected",
         QRule::own, infer(infer_suppression), eval(eval_suppression), quantized(eval_suppression),
         open_attrs({{"max_output", AttrKind::integer},
                     {"iou_threshold", AttrKind::number},
                     {"score_threshold", AttrKind::number}},
                    infer_suppression),
         Traits{.data_sized = true}, Doc{"the best of overlapping boxes: image, class and box"})

}  // namespace octet::ops
