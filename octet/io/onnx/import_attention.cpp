// Attention as matrix products and a softmax: ONNX's (opset 23), and com.microsoft's Attention and
// MultiHeadAttention.
#include <cfloat>
#include <cmath>

#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

// (batch, steps, heads * size) to (batch, heads, steps, size).
ValPtr split_heads(Importer& im, const NodeView& n, const ValPtr& x, int64_t heads) {
  if (x->rank() != 3 || heads < 1)
    n.fail(ErrorCode::corrupt, "{} for {} heads; expected (batch, steps, features)",
           to_string(x->type), heads);
  const int64_t features = known_dim(n, *x, 2, "attention");
  if (features % heads != 0)
    n.fail(ErrorCode::corrupt, "{} features for {} heads", features, heads);
  ValPtr y =
      im.call(n, "reshape", {x}, {{"shape", std::vector<int64_t>{0, 0, heads, features / heads}}});
  return im.call(n, "permute", {y}, {{"dims", std::vector<int64_t>{0, 2, 1, 3}}});
}

ValPtr join_heads(Importer& im, const NodeView& n, const ValPtr& x) {
  ValPtr y = im.call(n, "permute", {x}, {{"dims", std::vector<int64_t>{0, 2, 1, 3}}});
  return im.call(n, "flatten", {y}, {{"start_dim", int64_t{2}}});
}

// What is attended to: queries, keys and values as (batch, heads, steps, size), and how.
struct Heads {
  ValPtr q, k, v;
  double scale = 0;         // of the scores; 0: 1 / sqrt(size)
  double softcap = 0;       // scores become softcap * tanh(scores / softcap); 0: they stay
  std::vector<ValPtr> add;  // to the scores, after scaling
  ValPtr keep;              // a bool: scores elsewhere are left out
  bool causal = false;      // a query attends to no key behind it
  ValPtr past;              // keys from before the first query, which count among k
};

// Element (i, j) says whether query i may attend to key j.
ValPtr causal_mask(Importer& im, const NodeView& n, const Heads& h) {
  ValPtr rows = count_up(im, n, h.q, 2), columns = count_up(im, n, h.k, 2);
  if (h.past) {
    ValPtr before = im.call(n, "shape", {h.past}, {{"start", int64_t{2}}, {"end", int64_t{3}}});
    rows = im.call(n, "add", {rows, before});
  }
  rows = im.call(n, "unsqueeze", {rows}, {{"dim", int64_t{1}}});
  return im.call(n, "greater_equal", {rows, columns});
}

ValPtr attend(Importer& im, const NodeView& n, const Heads& h) {
  const double size = static_cast<double>(known_dim(n, *h.q, 3, "attention"));
  ValPtr keys = im.call(n, "permute", {h.k}, {{"dims", std::vector<int64_t>{0, 1, 3, 2}}});
  ValPtr scores = im.call(n, "matmul", {h.q, keys});
  scores = im.call(n, "mul", {scores, im.scalar(n, h.scale != 0 ? h.scale : 1 / std::sqrt(size))});
  if (h.softcap != 0) {
    scores = im.call(n, "tanh", {im.call(n, "div", {scores, im.scalar(n, h.softcap)})});
    scores = im.call(n, "mul", {scores, im.scalar(n, h.softcap)});
  }
  for (const ValPtr& v : h.add) scores = im.call(n, "add", {scores, v});
  ValPtr least = im.scalar(n, -FLT_MAX);
  if (h.keep) scores = im.call(n, "where", {h.keep, scores, least});
  if (h.causal) scores = im.call(n, "where", {causal_mask(im, n, h), scores, least});
  ValPtr weights = im.call(n, "softmax", {scores}, {{"dim", int64_t{-1}}});
  return im.call(n, "matmul", {weights, h.v});
}

// com.microsoft's masks: (batch, keys) and (batch, queries, keys) with 0 where a key is not to be
// attended to, or the number of keys of each text, as something to add to the scores.
ValPtr mask_bias(Importer& im, const NodeView& n, const ValPtr& mask, const Heads& h,
                 double filter) {
  ValPtr keep;
  if (mask->rank() == 1) {
    if (mask->dims()[0] != h.q->dims()[0])
      n.unsupported("a mask of {} for {}", to_string(mask->type), to_string(h.q->type));
    ValPtr lengths =
        im.call(n, "unsqueeze", {im.cast(n, mask, DType::int64)}, {{"dim", int64_t{1}}});
    keep = im.call(n, "less", {count_up(im, n, h.k, 2), lengths});
  } else if (mask->rank() == 2 || mask->rank() == 3) {
    keep = im.call(n, "greater", {im.cast(n, mask, DType::int64), im.scalar(n, 0, DType::int64)});
  } else {
    n.unsupported("a mask of {}", to_string(mask->type));
  }
  // (batch, heads, queries, keys)
  while (keep->rank() < 4) keep = im.call(n, "unsqueeze", {keep}, {{"dim", int64_t{1}}});
  return im.call(n, "where", {keep, im.scalar(n, 0), im.scalar(n, filter)});
}

// Part `i` of several along the first dimension, without it.
ValPtr part_of(Importer& im, const NodeView& n, const ValPtr& x, int64_t i) {
  ValPtr one = im.call(n, "slice", {x}, {{"dim", int64_t{0}}, {"start", i}, {"end", i + 1}});
  return im.call(n, "squeeze", {one}, {{"dim", int64_t{0}}});
}

// Keys and values behind those from before.
void prepend(Importer& im, const NodeView& n, Heads& h, const ValPtr& keys, const ValPtr& values) {
  h.past = keys;
  h.k = im.call(n, "cat", {keys, h.k}, {{"dim", int64_t{2}}});
  h.v = im.call(n, "cat", {values, h.v}, {{"dim", int64_t{2}}});
}

// x * weights + bias gives queries, keys and values one behind another.
void import_ms_attention(Importer& im, const NodeView& n) {
  if (n.get_int("do_rotary", 0) != 0) n.unsupported("do_rotary");
  if (n.get_int("past_present_share_buffer", 0) != 0) n.unsupported("past_present_share_buffer");
  n.ignore({"rotary_embedding_dim"});
  ValPtr x = im.in(n, 0), w = im.in(n, 1), bias = im.optional_in(n, 2);
  if (x->rank() != 3 || w->rank() != 2)
    n.fail(ErrorCode::corrupt, "input and weights are {} and {}", to_string(x->type),
           to_string(w->type));
  const int64_t all = known_dim(n, *w, 1, "attention"), heads = n.get_int("num_heads", 0);
  const std::vector<int64_t> sizes =
      n.get_ints("qkv_hidden_sizes", std::vector<int64_t>(3, all / 3));
  if (sizes.size() != 3 || sizes[0] + sizes[1] + sizes[2] != all)
    n.fail(ErrorCode::corrupt, "{} weights for queries, keys and values of {}", all,
           fmt::join(sizes, ", "));
  ValPtr joined;
  if (w->is_weight() && bias && bias->is_weight()) {
    joined =
        im.call(n, "linear", {with_size(im, n, x, 2, w->constant.size(0)), im.transposed(w), bias});
  } else {
    joined = emit_matmul(im, n, x, w);
    if (bias) joined = im.call(n, "add", {joined, bias});
  }
  std::vector<ValPtr> parts =
      im.calls(n, "split", {joined}, {{"sizes", sizes}, {"dim", int64_t{2}}});
  for (ValPtr& p : parts) p = split_heads(im, n, p, heads);
  Heads h{parts[0], parts[1], parts[2]};
  h.scale = n.get_float("scale", 0);
  h.causal = n.get_int("unidirectional", 0) != 0;
  if (n.has_input(6)) n.unsupported("past_sequence_length");
  if (n.has_input(4)) {
    ValPtr past = im.in(n, 4);
    prepend(im, n, h, part_of(im, n, past, 0), part_of(im, n, past, 1));
  }
  if (im.wants_output(n, 1)) {
    const Attrs first{{"dim", int64_t{0}}};
    im.out(n, 1,
           im.call(n, "cat",
                   {im.call(n, "unsqueeze", {h.k}, first), im.call(n, "unsqueeze", {h.v}, first)},
                   first));
  }
  const double filter = n.get_float("mask_filter_value", -10000);
  if (n.has_input(3)) h.add.push_back(mask_bias(im, n, im.in(n, 3), h, filter));
  if (n.has_input(5)) h.add.push_back(im.in(n, 5));
  im.out(n, 0, join_heads(im, n, attend(im, n, h)));
}

void import_multi_head(Importer& im, const NodeView& n) {
  const int64_t heads = n.get_int("num_heads", 0);
  ValPtr q = im.in(n, 0), k = im.optional_in(n, 1), v = im.optional_in(n, 2);
  if (q->rank() != 3 || !k || !v || k->rank() == 5)
    n.unsupported("queries, keys and values packed into one operand");
  for (size_t i : {8, 9})
    if (n.has_input(i)) n.unsupported("input {}", i);
  if (im.wants_output(n, 3)) n.unsupported("the output qk");
  if (n.has_input(3)) {
    ValPtr bias = im.in(n, 3);
    const int64_t size = known_dim(n, *q, 2, "attention");
    const std::vector<int64_t> sizes{size, size, known_dim(n, *bias, 0, "attention") - 2 * size};
    std::vector<ValPtr> parts =
        im.calls(n, "split", {bias}, {{"sizes", sizes}, {"dim", int64_t{0}}});
    q = im.call(n, "add", {q, parts[0]});
    if (k->rank() == 3) {
      k = im.call(n, "add", {k, parts[1]});
      v = im.call(n, "add", {v, parts[2]});
    }
  }
  Heads h{split_heads(im, n, q, heads), k->rank() == 4 ? k : split_heads(im, n, k, heads),
          v->rank() == 4 ? v : split_heads(im, n, v, heads)};
  h.scale = n.get_float("scale", 0);
  h.causal = n.get_int("unidirectional", 0) != 0;
  if (n.has_input(6)) prepend(im, n, h, im.in(n, 6), im.in(n, 7));
  const double filter = n.get_float("mask_filter_value", -10000);
  if (n.has_input(4)) h.add.push_back(mask_bias(im, n, im.in(n, 4), h, filter));
  if (n.has_input(5)) h.add.push_back(im.in(n, 5));
  if (im.wants_output(n, 1)) im.out(n, 1, h.k);
  if (im.wants_output(n, 2)) im.out(n, 2, h.v);
  im.out(n, 0, join_heads(im, n, attend(im, n, h)));
}

// Each head of keys or values `times` times, for as many heads of queries.
ValPtr repeat_heads(Importer& im, const NodeView& n, const ValPtr& x, int64_t times) {
  if (times == 1) return x;
  ValPtr y = im.call(n, "unsqueeze", {x}, {{"dim", int64_t{2}}});
  y = im.call(n, "expand", {y}, {{"shape", std::vector<int64_t>{-1, -1, times, -1, -1}}});
  return im.call(n, "flatten", {y}, {{"start_dim", int64_t{1}}, {"end_dim", int64_t{2}}});
}

void import_onnx_attention(Importer& im, const NodeView& n) {
  n.ignore({"softmax_precision", "qk_matmul_output_mode"});
  if (im.wants_output(n, 3)) n.unsupported("the output qk_matmul_output");
  if (n.has_input(6)) n.unsupported("nonpad_kv_seqlen");
  ValPtr q = im.in(n, 0), k = im.in(n, 1), v = im.in(n, 2);
  const bool joined = q->rank() == 3;
  if (joined) {
    const int64_t q_heads = n.get_int("q_num_heads", 0), kv_heads = n.get_int("kv_num_heads", 0);
    q = split_heads(im, n, q, q_heads);
    k = split_heads(im, n, k, kv_heads);
    v = split_heads(im, n, v, kv_heads);
  } else if (q->rank() != 4 || k->rank() != 4 || v->rank() != 4) {
    n.fail(ErrorCode::corrupt, "Q, K and V are {}, {} and {}", to_string(q->type),
           to_string(k->type), to_string(v->type));
  }
  n.ignore({"q_num_heads", "kv_num_heads"});
  Heads h{q, k, v};
  if (n.has_input(4)) prepend(im, n, h, im.in(n, 4), im.in(n, 5));
  if (im.wants_output(n, 1)) im.out(n, 1, h.k);
  if (im.wants_output(n, 2)) im.out(n, 2, h.v);
  const int64_t q_heads = known_dim(n, *q, 1, "attention"),
                kv_heads = known_dim(n, *k, 1, "attention");
  if (kv_heads < 1 || q_heads % kv_heads != 0)
    n.fail(ErrorCode::corrupt, "{} heads of queries for {} of keys", q_heads, kv_heads);
  h.k = repeat_heads(im, n, h.k, q_heads / kv_heads);
  h.v = repeat_heads(im, n, h.v, q_heads / kv_heads);
  h.scale = n.get_float("scale", 0);
  h.softcap = n.get_float("softcap", 0);
  h.causal = n.get_int("is_causal", 0) != 0;
  if (ValPtr mask = im.optional_in(n, 3)) {
    if (mask->type.dtype == DType::bool_)
      h.keep = mask;
    else
      h.add.push_back(mask);
  }
  ValPtr y = attend(im, n, h);
  im.out(n, 0, joined ? join_heads(im, n, y) : y);
}

}  // namespace

void add_attention(Handlers& h) {
  h["Attention"] = import_onnx_attention;
  h["com.microsoft.Attention"] = import_ms_attention;
  h["com.microsoft.MultiHeadAttention"] = import_multi_head;
}

}  // namespace octet::io::onnx_impl
