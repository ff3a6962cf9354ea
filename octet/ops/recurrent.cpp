// One layer of a recurrent network in one direction, over a whole sequence: lstm, gru and rnn, with
// PyTorch's gates in PyTorch's order and arithmetic. x is (T, N, in); the gates of all steps are
// projected from x at once, those of the hidden state step by step.
//
// Weights may be float32, float16 (computed with in float32), or codes: then both projections are
// linear_dynamic's, so that the whole sequence is quantized once and the hidden state at every
// step. Sigmoid and tanh are rounded from double.
//
// lengths: how many steps of each sequence of the batch count. Behind them y is 0 and the states
// stay; in reverse a sequence begins at its own last step.
#include <cmath>

#include "octet/base/parallel.h"
#include "octet/kernels/kernels.h"
#include "octet/ops/conv_impl.h"
#include "octet/ops/define_impl.h"
#include "octet/ops/unary_impl.h"

namespace octet::ops {
namespace {

enum class Cell { lstm, gru, rnn_tanh, rnn_relu };

// The operands' places in the schemas: lstm has a cell state before its weights, and a projection
// behind them.
struct Places {
  Cell cell;
  size_t weights;  // w_ih; w_hh, b_ih, b_hh, lstm's w_hr, and lengths follow
  int64_t gates;
  explicit Places(const Op& op, const Attrs& attrs) {
    cell = op.name() == "lstm" ? Cell::lstm : op.name() == "gru" ? Cell::gru : Cell::rnn_tanh;
    if (op.name() == "rnn" && attrs.get_string("nonlinearity") == "relu") cell = Cell::rnn_relu;
    weights = cell == Cell::lstm ? 3 : 2;
    gates = cell == Cell::lstm ? 4 : cell == Cell::gru ? 3 : 1;
  }
  size_t w_ih() const { return weights; }
  size_t w_hh() const { return weights + 1; }
  size_t b_ih() const { return weights + 2; }
  size_t b_hh() const { return weights + 3; }
  size_t w_hr() const { return weights + 4; }
  size_t lengths() const { return weights + (cell == Cell::lstm ? 5 : 4); }
};

std::vector<TensorType> infer_recurrent(const Types& t) {
  const std::string& who = t.op().name();
  if (who == "rnn") {
    const std::string& f = t.attrs().get_string("nonlinearity");
    OCTET_CHECK(f == "tanh" || f == "relu", invalid_argument,
                "rnn: nonlinearity=\"{}\"; expected \"tanh\" or \"relu\"", f);
  }
  const Places at(t.op(), t.attrs());
  const TensorType &x = t[0], &h = t[1], &w_ih = t[at.w_ih()];
  for (size_t i = 0; i < at.weights; ++i)
    OCTET_CHECK(t[i].dtype == DType::float32, invalid_argument, "{}: {} is {}; expected float32",
                who, t.op().params()[i].name, to_string(t[i]));
  OCTET_CHECK(x.dim() == 3 && h.dim() == 2, invalid_argument,
              "{}: expected x (steps, batch, features) and h0 (batch, hidden), got {} and {}", who,
              to_string(x), to_string(h));
  const bool projected = at.cell == Cell::lstm && t.has(at.w_hr());
  // (rows, columns) of a weight; all weights have one dtype.
  auto check_weight = [&](size_t i, const Dim& rows, const Dim& columns) {
    const TensorType& w = t[i];
    OCTET_CHECK(w.dim() == 2 && w.is_static() && w.dims[0] == rows && w.dims[1] == columns,
                invalid_argument, "{}: {} is {}; expected ({}, {})", who, t.op().params()[i].name,
                to_string(w), to_string(rows), to_string(columns));
    OCTET_CHECK(w.dtype == w_ih.dtype, invalid_argument,
                "{}: {} is {} and w_ih {}; expected one dtype", who, t.op().params()[i].name,
                to_string(w.dtype), to_string(w_ih.dtype));
    if (w.quantizer && w.quantizer->is_per_channel())
      OCTET_CHECK(w.quantizer->axis() == 0, invalid_argument,
                  "{}: {} is quantized along axis {}; its output channels are axis 0", who,
                  t.op().params()[i].name, w.quantizer->axis());
  };
  OCTET_CHECK(w_ih.dim() == 2 && w_ih.dims[0].known() && w_ih.dims[0].size() % at.gates == 0 &&
                  w_ih.dims[0].size() > 0,
              invalid_argument, "{}: w_ih is {}; expected ({} gates * hidden, features)", who,
              to_string(w_ih), at.gates);
  OCTET_CHECK(w_ih.dtype == DType::float32 || w_ih.dtype == DType::float16 ||
                  w_ih.dtype == DType::qint8 || w_ih.dtype == DType::quint8,
              invalid_argument, "{}: w_ih is {}; expected float32, float16, qint8 or quint8", who,
              to_string(w_ih));
  const Dim rows = w_ih.dims[0], hidden(rows.size() / at.gates),
            state = projected ? t[at.w_hr()].dims[0] : hidden;
  check_weight(at.w_ih(), rows, x.dims[2]);
  check_weight(at.w_hh(), rows, state);
  if (projected) check_weight(at.w_hr(), state, hidden);
  for (size_t i : {at.b_ih(), at.b_hh()})
    if (t.has(i))
      OCTET_CHECK(t[i].dtype == DType::float32 && t[i].dim() == 1 && t[i].dims[0] == rows,
                  invalid_argument, "{}: {} is {}; expected Float({})", who,
                  t.op().params()[i].name, to_string(t[i]), to_string(rows));
  auto check_state = [&](size_t i, const Dim& size) {
    OCTET_CHECK(t[i].dim() == 2 && t[i].dims[1] == size &&
                    (t[i].dims[0] == x.dims[1] || !t[i].dims[0].known() || !x.dims[1].known()),
                invalid_argument, "{}: {} is {}; expected ({}, {})", who, t.op().params()[i].name,
                to_string(t[i]), to_string(x.dims[1]), to_string(size));
  };
  if (const size_t i = at.lengths(); t.has(i))
    OCTET_CHECK(t[i].dtype == DType::int64 && t[i].dim() == 1 &&
                    (t[i].dims[0] == x.dims[1] || !t[i].dims[0].known() || !x.dims[1].known()),
                invalid_argument, "{}: lengths is {}; expected Long({})", who, to_string(t[i]),
                to_string(x.dims[1]));
  check_state(1, state);
  if (at.cell == Cell::lstm) check_state(2, hidden);
  OCTET_CHECK(x.dims[0] != Dim(0), invalid_argument, "{}: x is {}; expected at least one step", who,
              to_string(x));
  std::vector<TensorType> types{TensorType(DType::float32, {x.dims[0], x.dims[1], state}),
                                TensorType(DType::float32, {x.dims[1], state})};
  if (at.cell == Cell::lstm) types.push_back(TensorType(DType::float32, {x.dims[1], hidden}));
  return types;
}

// x * weight^T + bias for rows x, many times: the weight is packed once, and codes once for all
// calls.
class Projection {
 public:
  // `rule`: the attributes that say how x becomes codes, if the weight is codes.
  Projection(const Tensor& weight, const Tensor& bias, const Attrs& rule)
      : op_(get(weight.is_quantized() ? "linear_dynamic" : "linear")), size_(weight.size(0)) {
    const bool codes = weight.is_quantized();
    const Attrs attrs = op_.complete(codes ? rule : Attrs());
    operands_ = {Tensor(), codes ? weight : weight.to(DType::float32)};
    if (bias.defined()) operands_.push_back(bias);
    if (codes) {
      operands_[0] = Tensor::empty({0, weight.size(1)});
      kernel_ =
          packed_kernel(Call(op_, operands_, attrs, {TensorType(DType::float32, Shape{0, size_})}));
    } else {
      std::vector<std::optional<TensorType>> types{
          TensorType(DType::float32, {Dim("rows"), weight.size(1)})};
      for (size_t i = 1; i < operands_.size(); ++i) types.push_back(operands_[i].type());
      kernel_ = std::make_shared<CachedKernel>(
          make_spec(op_, attrs, types, operands_,
                    {TensorType(DType::float32, {Dim("rows"), size_})}, op_.name()));
    }
    OCTET_CHECK(kernel_->found(), unsupported, "{}: no engine has a kernel for weight {}",
                op_.name(), to_string(weight.type()));
  }
  // y (rows, size) of x (rows, features), both dense. Planned once for a number of rows.
  void operator()(const float* x, int64_t rows, float* y) {
    const Kernel& kernel = kernel_->kernel();
    if (rows != rows_) {
      std::vector<Shape> in{{rows, operands_[1].size(1)}};
      for (size_t i = 1; i < operands_.size(); ++i) in.push_back(operands_[i].shape());
      plan_ = kernel.plan(in, {{rows, size_}});
      scratch_ = Buffer::allocate(plan_->scratch_bytes());
      rows_ = rows;
    }
    const void* inputs[3] = {x};
    for (size_t i = 1; i < operands_.size(); ++i)
      inputs[i] = kernel.packs(i) ? nullptr : operands_[i].raw_data();
    void* outputs[] = {y};
    plan_->run({inputs, operands_.size()}, outputs, scratch_.data());
  }

 private:
  const Op& op_;
  std::vector<Tensor> operands_;
  int64_t size_ = 0, rows_ = -1;
  std::shared_ptr<const CachedKernel> kernel_;
  std::unique_ptr<KernelPlan> plan_;
  Buffer scratch_;
};

float sigmoid(float x) { return unary::Sigmoid<float>({})(x); }
float tanh_of(float x) { return unary::Tanh<float>({})(x); }

// A run through the sequence. What the gradient needs of it is kept if asked for.
struct Run {
  const Call& c;
  Places at;
  // `state` numbers of h; `hidden`, or fewer where it is projected
  int64_t steps, batch, features, hidden, state;
  bool reverse;
  Tensor y, hn, cn;  // cn: the cell state of the step that is run
  Tensor gates;      // (T, N, gates * hidden) after their nonlinearities
  Tensor cells;      // lstm: (T, N, hidden) the cell states
  // gru: (T, N, hidden), the hidden state's part of the new gate; lstm with projection: h before it
  Tensor before;

  Run(const Call& call, bool keep)
      : c(call),
        at(call.op(), call.attrs()),
        steps(c[0].size(0)),
        batch(c[0].size(1)),
        features(c[0].size(2)),
        hidden(c[at.w_ih()].size(0) / at.gates),
        state(c[1].size(1)),
        reverse(c.attrs().get_bool("reverse")) {
    make_projections();
    read_lengths();
    y = Tensor::empty({steps, batch, state});
    if (keep && at.cell == Cell::lstm) cells = Tensor::empty({steps, batch, hidden});
    if (keep && (at.cell == Cell::gru || to_state_)) before = Tensor::empty({steps, batch, hidden});
    if (at.cell == Cell::lstm) cn = c[2].clone();
    const Tensor first = c[1].contiguous();
    const float* h = first.data<float>();
    for (int64_t i = 0; i < steps; ++i) h = step(reverse ? steps - 1 - i : i, h);
    hn = Tensor::empty({batch, state});
    std::copy_n(h, batch * state, hn.data<float>());
    for (int64_t n = 0; n < batch && !lengths_.empty(); ++n)
      for (int64_t t = lengths_[n]; t < steps; ++t)
        std::fill_n(y.data<float>() + (t * batch + n) * state, state, 0.0f);
  }

 private:
  // Packs the weights, and computes what x gives the gates of all steps.
  void make_projections() {
    auto operand = [&](size_t i) { return c.has(i) ? c[i].contiguous() : Tensor(); };
    const Attrs rule{{"reduce_range", c.attrs().get_bool("reduce_range")},
                     {"rule", c.attrs().get_string("rule")}};
    Projection from_x(c[at.w_ih()], operand(at.b_ih()), rule);
    // A gru that resets the state before the product has two products with it: for its first two
    // gates, and for the third.
    const bool reset_before = at.cell == Cell::gru && !c.attrs().get_bool("reset_after");
    auto rows = [&](const Tensor& t, int64_t first, int64_t last) {
      return t.defined() && reset_before ? t.slice(0, first * hidden, last * hidden).clone() : t;
    };
    from_h_ = std::make_unique<Projection>(rows(c[at.w_hh()], 0, 2), rows(operand(at.b_hh()), 0, 2),
                                           rule);
    if (reset_before)
      from_reset_ = std::make_unique<Projection>(rows(c[at.w_hh()], 2, 3),
                                                 rows(operand(at.b_hh()), 2, 3), rule);
    if (at.cell == Cell::lstm && c.has(at.w_hr()))
      to_state_ = std::make_unique<Projection>(c[at.w_hr()], Tensor(), rule);
    const int64_t width = at.gates * hidden;
    of_h_.resize(static_cast<size_t>(batch * (reset_before ? 2 * hidden : width)));
    unprojected_.resize(to_state_ ? static_cast<size_t>(batch * hidden) : 0);
    reset_.resize(reset_before ? static_cast<size_t>(batch * hidden) : 0);
    of_reset_.resize(reset_.size());
    gates = Tensor::empty({steps, batch, width});
    from_x(c[0].contiguous().data<float>(), steps * batch, gates.data<float>());
  }

  void read_lengths() {
    if (!c.has(at.lengths())) return;
    lengths_ = c[at.lengths()].contiguous().to_vector<int64_t>();
    OCTET_CHECK(std::ssize(lengths_) == batch, invalid_argument, "{}: {} lengths for a batch of {}",
                c.op().name(), lengths_.size(), batch);
    for (int64_t length : lengths_)
      OCTET_CHECK(length >= 0 && length <= steps, invalid_argument,
                  "{}: a sequence of length {} among {} steps", c.op().name(), length, steps);
  }

  // Step t from the state h; the state behind it, in y.
  const float* step(int64_t t, const float* h) {
    const int64_t width = at.gates * hidden, h_width = from_reset_ ? 2 * hidden : width;
    float *g = gates.data<float>() + t * batch * width, *y_t = y.data<float>() + t * batch * state,
          *next = to_state_ ? unprojected_.data() : y_t;
    (*from_h_)(h, batch, of_h_.data());
    const float* r = of_h_.data();
    if (from_reset_) {
      for (int64_t n = 0; n < batch; ++n)
        for (int64_t j = 0; j < hidden; ++j)
          reset_[n * hidden + j] =
              sigmoid(r[n * h_width + j] + g[n * width + j]) * h[n * hidden + j];
      (*from_reset_)(reset_.data(), batch, of_reset_.data());
    }
    for (int64_t n = 0; n < batch; ++n, g += width, r += h_width) {
      if (lengths_.empty() || t < lengths_[n])
        cell_step(t, n, g, r, h + n * hidden, next + n * hidden);
      else  // its cell state stays as it is
        std::fill_n(next + n * hidden, hidden, 0.0f);
    }
    if (to_state_) {
      if (before.defined())
        std::copy_n(next, batch * hidden, before.data<float>() + t * batch * hidden);
      (*to_state_)(next, batch, y_t);
    }
    for (int64_t n = 0; n < batch && !lengths_.empty(); ++n)  // the state goes on through y
      if (t >= lengths_[n]) std::copy_n(h + n * state, state, y_t + n * state);
    return y_t;
  }

  // Step t of sequence n. g: what x gives the gates; r: what h gives them.
  void cell_step(int64_t t, int64_t n, float* g, const float* r, const float* h, float* out) {
    const int64_t kept = (t * batch + n) * hidden;
    if (at.cell == Cell::lstm)
      lstm_step(g, r, cn.data<float>() + n * hidden, out,
                cells.defined() ? cells.data<float>() + kept : nullptr);
    else if (from_reset_)
      reset_before_step(g, r, of_reset_.data() + n * hidden, h, out);
    else if (at.cell == Cell::gru)
      gru_step(g, r, h, out, before.defined() ? before.data<float>() + kept : nullptr);
    else
      for (int64_t j = 0; j < hidden; ++j)
        out[j] = g[j] =
            at.cell == Cell::rnn_relu ? std::max(r[j] + g[j], 0.0f) : tanh_of(r[j] + g[j]);
  }

  // g: what x gives the gates; r: what h gives them. g becomes the gates themselves.
  void lstm_step(float* g, const float* r, float* cell, float* h, float* kept) const {
    kernels::table().lstm_gates(g, r, hidden, cell, h, hidden);
    if (kept) std::copy(cell, cell + hidden, kept);
  }

  // of_reset: what the reset state gives the candidate.
  void reset_before_step(const float* g, const float* r, const float* of_reset, const float* old,
                         float* h) const {
    for (int64_t j = 0; j < hidden; ++j) {
      const float update = sigmoid(r[hidden + j] + g[hidden + j]),
                  candidate = tanh_of(g[2 * hidden + j] + of_reset[j]);
      h[j] = (old[j] - candidate) * update + candidate;
    }
  }

  void gru_step(float* g, const float* r, const float* old, float* h, float* kept) const {
    for (int64_t j = 0; j < hidden; ++j) {
      float &reset = g[j], &update = g[hidden + j], &candidate = g[2 * hidden + j];
      reset = sigmoid(r[j] + reset);
      update = sigmoid(r[hidden + j] + update);
      candidate = tanh_of(candidate + r[2 * hidden + j] * reset);
      h[j] = (old[j] - candidate) * update + candidate;
      if (kept) kept[j] = r[2 * hidden + j];
    }
  }

  std::unique_ptr<Projection> from_h_, from_reset_, to_state_;
  std::vector<int64_t> lengths_;                              // empty: all steps count
  std::vector<float> of_h_, unprojected_, reset_, of_reset_;  // of one step
};

std::vector<Tensor> eval_recurrent(const Call& c) {
  const Places places(c.op(), c.attrs());
  if (places.cell == Cell::lstm && c[places.w_ih()].is_quantized() && !c.has(places.lengths()))
    if (auto kernel = packed_kernel(c, places.w_ih()); kernel->found())
      return kernel->run(c.inputs(), c.outputs());
  Run run(c, false);
  if (run.at.cell == Cell::lstm) return {run.y, run.hn, run.cn};
  return {run.y, run.hn};
}

// The gradients of one step of one sequence by the sums of its gates (dx), and by the cell state
// before it (in dcell), of those by the state (dh) and the cell state behind it.
void lstm_slopes(const float* gates, const float* cell, const float* cell_old, const float* dh,
                 float* dcell, float* dx, int64_t hidden) {
  for (int64_t j = 0; j < hidden; ++j) {
    const float in = gates[j], forget = gates[hidden + j], candidate = gates[2 * hidden + j],
                out = gates[3 * hidden + j];
    const float squashed = tanh_of(cell[j]);
    dcell[j] += dh[j] * out * (1 - squashed * squashed);
    dx[j] = dcell[j] * candidate * in * (1 - in);
    dx[hidden + j] = dcell[j] * cell_old[j] * forget * (1 - forget);
    dx[2 * hidden + j] = dcell[j] * in * (1 - candidate * candidate);
    dx[3 * hidden + j] = dh[j] * squashed * out * (1 - out);
    dcell[j] *= forget;
  }
}

// The same by what x (dx) and the state (dr) give the gates, and by the state before the step but
// through the gates (dh_old). `of_state` is the state's part of the candidate.
void gru_slopes(const float* gates, const float* of_state, const float* h_old, const float* dh,
                float* dh_old, float* dx, float* dr, int64_t hidden) {
  for (int64_t j = 0; j < hidden; ++j) {
    const float reset = gates[j], update = gates[hidden + j], candidate = gates[2 * hidden + j];
    const float dcandidate = dh[j] * (1 - update) * (1 - candidate * candidate);
    dx[j] = dr[j] = dcandidate * of_state[j] * reset * (1 - reset);
    dx[hidden + j] = dr[hidden + j] = dh[j] * (h_old[j] - candidate) * update * (1 - update);
    dx[2 * hidden + j] = dcandidate;
    dr[2 * hidden + j] = dcandidate * reset;
    dh_old[j] = dh[j] * update;
  }
}

Tensor product(const Tensor& a, const Tensor& b) { return call("matmul", {a, b}); }

// (steps, batch, size) as (steps * batch, size).
Tensor step_rows(const Tensor& t) { return t.reshape({t.size(0) * t.size(1), t.size(2)}); }

// The sum over steps and batch of a^T b.
Tensor step_products(const Tensor& a, const Tensor& b) {
  return product(step_rows(a).transpose(0, 1), step_rows(b));
}

// Back through time. The gradients by the gates before their nonlinearities are collected for all
// steps; those by x and the weights are matrix products of them at the end.
std::vector<Tensor> recurrent_gradients(const Grad& g) {
  const Call& c = g.call();
  OCTET_CHECK(!c.has(Places(c.op(), c.attrs()).lengths()), unsupported,
              "{}: no gradient with lengths", c.op().name());
  OCTET_CHECK(c.op().name() != "gru" || c.attrs().get_bool("reset_after"), unsupported,
              "gru: no gradient with reset_after=false");
  const Run run(c, true);
  const Places& at = run.at;
  for (size_t i = at.weights; i < c.inputs().size(); ++i)
    OCTET_CHECK(!c.has(i) || c[i].dtype() == DType::float32, unsupported,
                "{}: no gradient through {} weights: train with float32 ones", c.op().name(),
                to_string(c[i].dtype()));
  const int64_t steps = run.steps, batch = run.batch, hidden = run.hidden,
                width = at.gates * hidden;
  const bool lstm = at.cell == Cell::lstm, gru = at.cell == Cell::gru,
             projected = lstm && c.has(at.w_hr());
  // By the gates' sums from x (`of_x`) and from h: they differ in gru's new gate only.
  Tensor of_x = Tensor::empty({steps, batch, width}),
         of_h = gru ? Tensor::empty({steps, batch, width}) : of_x;
  // dh at every step
  Tensor of_projection = projected ? Tensor::empty({steps, batch, run.state}) : Tensor();
  // h before every step
  Tensor previous = Tensor::empty({steps, batch, run.state});
  const Tensor dy = g.dy(0).contiguous();
  Tensor dh = g.dy(1).clone(), dc = lstm ? g.dy(2).clone() : Tensor();
  const Tensor w_hh = c[at.w_hh()];
  const Tensor first_cell = lstm ? c[2].contiguous() : Tensor();
  for (int64_t i = steps - 1; i >= 0; --i) {
    // the step before
    const int64_t t = run.reverse ? steps - 1 - i : i, last = run.reverse ? t + 1 : t - 1;
    const Tensor h_old = i == 0 ? c[1] : run.y.select(0, last);
    previous.select(0, t).copy_from(h_old);
    const Tensor old = h_old.contiguous();
    dh = call("add", {dh, dy.select(0, t)}).contiguous();
    if (projected) {
      of_projection.select(0, t).copy_from(dh);
      dh = product(dh, c[at.w_hr()]).contiguous();
    }
    Tensor dh_old = gru ? Tensor::empty({batch, hidden}) : Tensor();
    const float* cell_old = !lstm    ? nullptr
                            : i == 0 ? first_cell.data<float>()
                                     : run.cells.data<float>() + last * batch * hidden;
    for (int64_t n = 0; n < batch; ++n) {
      const float* gate = run.gates.data<float>() + (t * batch + n) * width;
      float *dx = of_x.data<float>() + (t * batch + n) * width,
            *dr = of_h.data<float>() + (t * batch + n) * width;
      const float* d = dh.data<float>() + n * hidden;
      const int64_t row = (t * batch + n) * hidden;
      if (lstm)
        lstm_slopes(gate, run.cells.data<float>() + row, cell_old + n * hidden, d,
                    dc.data<float>() + n * hidden, dx, hidden);
      else if (gru)
        gru_slopes(gate, run.before.data<float>() + row, old.data<float>() + n * hidden, d,
                   dh_old.data<float>() + n * hidden, dx, dr, hidden);
      else
        for (int64_t j = 0; j < hidden; ++j)
          dx[j] =
              at.cell == Cell::rnn_relu ? (gate[j] > 0 ? d[j] : 0) : d[j] * (1 - gate[j] * gate[j]);
    }
    dh = product(of_h.select(0, t), w_hh);
    if (gru) dh = call("add", {dh, dh_old});
  }
  std::vector<Tensor> result(c.inputs().size());
  auto give = [&](size_t i, const std::function<Tensor()>& gradient) {
    if (g.needs(i)) result[i] = gradient();
  };
  give(0, [&] { return product(step_rows(of_x), c[at.w_ih()]).reshape(c[0].shape()); });
  give(1, [&] { return dh; });
  if (lstm) give(2, [&] { return dc; });
  give(at.w_ih(), [&] { return step_products(of_x, c[0].contiguous()); });
  give(at.w_hh(), [&] { return step_products(of_h, previous); });
  give(at.b_ih(), [&] { return sum_to(of_x, {width}); });
  give(at.b_hh(), [&] { return sum_to(of_h, {width}); });
  if (projected) give(at.w_hr(), [&] { return step_products(of_projection, run.before); });
  return result;
}

}  // namespace

// Gates in the order input, forget, candidate, output: c' = f*c + i*g, h' = o*tanh(c'), times w_hr
// where that is given.
OCTET_OP(lstm,
         "lstm(x, h0, c0, w_ih, w_hh, b_ih?, b_hh?, w_hr?, lengths?, *, reverse=false, "
         "reduce_range=false, rule=\"pytorch\") -> y, hn, cn",
         QRule::weights,
         Doc{"one LSTM layer over x (steps, batch, features); weights float32, float16 or codes "
             "(dynamic); y has every step's h, 0 behind lengths"},
         infer_many(infer_recurrent), eval_many(eval_recurrent), Quantized{eval_recurrent},
         gradients(recurrent_gradients))

// Gates in the order reset, update, new: n = tanh(x_n + r*h_n), where h_n has its bias, and h' = (h
// - n)*z + n. Without reset_after: n = tanh(x_n + w_hn (r*h) + b_hn).
OCTET_OP(gru,
         "gru(x, h0, w_ih, w_hh, b_ih?, b_hh?, lengths?, *, reverse=false, reduce_range=false, "
         "rule=\"pytorch\", reset_after=true) -> y, hn",
         QRule::weights,
         Doc{"one GRU layer over x (steps, batch, features), the reset gate applied after the "
             "product (PyTorch's) or before it; as lstm"},
         infer_many(infer_recurrent), eval_many(eval_recurrent), Quantized{eval_recurrent},
         gradients(recurrent_gradients))

OCTET_OP(rnn,
         "rnn(x, h0, w_ih, w_hh, b_ih?, b_hh?, lengths?, *, nonlinearity=\"tanh\", reverse=false, "
         "reduce_range=false, rule=\"pytorch\") -> y, hn",
         QRule::weights,
         Doc{"one layer of h' = tanh(w_ih x + b_ih + w_hh h + b_hh), or relu of that; as lstm"},
         infer_many(infer_recurrent), eval_many(eval_recurrent), Quantized{eval_recurrent},
         gradients(recurrent_gradients))

}  // namespace octet::ops
