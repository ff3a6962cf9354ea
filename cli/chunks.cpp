#include "cli/chunks.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "cli/arguments.h"
#include "octet/base/error.h"
#include "octet/quant/observe/fake_quantize.h"

namespace octet::cli {
namespace {

// The observers that follow the data, by path.
std::map<std::string, quant::Observer*> observers_of(nn::Module& module) {
  std::map<std::string, quant::Observer*> all;
  for (const auto& [path, m] : module.named_modules())
    if (auto* observer = dynamic_cast<quant::Observer*>(m);
        observer && !observer->extra_state().empty())
      all[path] = observer;
  return all;
}

std::vector<Tensor*> statistics_of(nn::Module& module) {
  std::vector<Tensor*> all;
  for (const auto& [name, tensor] : module.named_buffers())
    if (tensor->dtype() == DType::float32) all.push_back(tensor);
  return all;
}

bool is_least(const std::string& key) { return key.ends_with("min_val"); }
bool is_most(const std::string& key) { return key.ends_with("max_val"); }

int64_t chunks_of_a_rank(int64_t chunks, const dist::Team& team) {
  const int64_t own = chunks / team.size();
  if (chunks % team.size() != 0 || !std::has_single_bit(static_cast<uint64_t>(own)))
    wrong_usage(fmt::format("--chunks {} do not fit {} ranks: expected {} times 1, 2, 4, 8, ...",
                            chunks, team.size(), team.size()));
  return own;
}

void append(std::vector<float>& to, const std::vector<float>& values) {
  to.insert(to.end(), values.begin(), values.end());
}

// So many gradients are sent together: 128 KB take 0.13 ms at 1 GB/s, several times what a message
// costs however short it is.
constexpr size_t kBucket = size_t{1} << 15;

}  // namespace

ChunkedStep::ChunkedStep(nn::Module& module, int64_t chunks, dist::Team& team)
    : team_(team), module_(module), chunks_(chunks), own_(chunks_of_a_rank(chunks, team)) {
  for (const auto& [path, observer] : observers_of(module))
    for (const auto& [key, value] : observer->extra_state())
      if (!is_least(key) && !is_most(key) && key != "num_batches")
        fail(ErrorCode::unsupported,
             fmt::format("--chunks: '{}' is a {}, whose '{}' cannot be joined: choose a --qconfig "
                         "with ranges that are least and largest values or their moving averages",
                         path, observer->type_name(), key));
}

void ChunkedStep::begin() {
  done_ = 0;
  begun_ = 0;
  nodes_.clear();
  sent_.clear();
  parameters_ = module_.parameters();
  observers_.clear();
  statistics_.clear();
  for (const auto& [path, observer] : observers_of(module_))
    observers_[path] = observer->extra_state();
  for (const Tensor* t : statistics_of(module_)) statistics_.push_back(t->detach().clone());
}

void ChunkedStep::begin_chunk() {
  if (done_ == own_ - 1)
    for (size_t i = 0; i < parameters_.size(); ++i)
      if (autograd::requires_grad(parameters_[i]))
        hooks_.push_back(
            std::make_unique<autograd::GradientHook>(parameters_[i], [this, i] { send(i); }));
  if (done_ == 0) return;  // all is as it was
  for (const auto& [path, observer] : observers_of(module_))
    observer->set_extra_state(observers_.at(path));
  size_t i = 0;
  for (Tensor* t : statistics_of(module_)) t->copy_from(statistics_[i++]);
}

// In the last own chunk: the parameter's gradient is that of all own chunks.
void ChunkedStep::send(size_t parameter) {
  std::vector<float> sum = autograd::grad(parameters_[parameter]).to_vector<float>();
  autograd::zero_grad(parameters_[parameter]);
  for (size_t n = nodes_.size(); n-- > 0;) {
    std::vector<float> before = std::move(nodes_[n].gradients[parameter]);
    nodes_[n].gradients[parameter].clear();
    for (size_t i = 0; i < before.size(); ++i) sum[i] = before[i] + sum[i];
  }
  put(parameter, sum);
  team_.progress();
}

void ChunkedStep::put(size_t parameter, const std::vector<float>& gradient) {
  sent_.push_back({parameter, begun_, bucket_.size()});
  append(bucket_, gradient);
  if (bucket_.size() >= kBucket) send_bucket();
}

void ChunkedStep::send_bucket() {
  if (bucket_.empty()) return;
  team_.begin_sum(std::exchange(bucket_, {}));
  ++begun_;
}

void ChunkedStep::end_chunk(double loss) {
  hooks_.clear();
  Node node;
  node.loss = loss;
  for (const Tensor& p : parameters_) {
    const Tensor g = autograd::grad(p);
    node.gradients.push_back(g.defined() ? g.to_vector<float>() : std::vector<float>());
    autograd::zero_grad(p);
  }
  for (const Tensor* t : statistics_of(module_))
    append(node.statistics, t->detach().to_vector<float>());
  for (const auto& [path, observer] : observers_of(module_))
    for (const auto& [key, value] : observer->extra_state())
      if (is_least(key) || is_most(key))
        append(is_least(key) ? node.least : node.most, value.to_vector<float>());
  nodes_.push_back(std::move(node));
  // Pairs of neighbours, then pairs of pairs: the team's sums go on in the same order.
  for (int64_t n = ++done_; n % 2 == 0; n /= 2) {
    nodes_[nodes_.size() - 2].add(nodes_.back());
    nodes_.pop_back();
  }
}

void ChunkedStep::give(const Node& all, const std::vector<std::vector<float>>& sums) {
  const auto take = [](const std::vector<float>& from, size_t& i, const Shape& shape) {
    Tensor t = Tensor::empty(shape);
    const auto n = static_cast<size_t>(t.numel());
    std::copy_n(from.begin() + static_cast<std::ptrdiff_t>(i), n, t.data<float>());
    i += n;
    return t;
  };
  for (const Place& place : sent_) {
    size_t at = place.offset;
    const Tensor& p = parameters_[place.parameter];
    autograd::set_grad(p, take(sums[place.sum], at, p.shape()));
  }
  size_t statistic = 0, least = 0, most = 0;
  for (Tensor* t : statistics_of(module_)) {
    Tensor mean = take(sums.back(), statistic, t->shape());
    float* x = mean.data<float>();
    for (int64_t i = 0; i < mean.numel(); ++i) x[i] /= static_cast<float>(chunks_);
    t->copy_from(mean);
  }
  for (const auto& [path, observer] : observers_of(module_)) {
    State state = observer->extra_state();
    for (auto& [key, value] : state)
      if (is_least(key) || is_most(key))
        value = is_least(key) ? take(all.least, least, value.shape())
                              : take(all.most, most, value.shape());
    observer->set_extra_state(state);
  }
  for (const auto& [path, m] : module_.named_modules())
    if (auto* fake = dynamic_cast<quant::FakeQuantizeBase*>(m);
        fake && fake->is_observer_enabled() && !fake->observer().empty())
      fake->follow_observer();
}

double ChunkedStep::finish() {
  Node& all = nodes_.at(0);
  // Gradients that no hook was called for.
  for (size_t i = 0; i < all.gradients.size(); ++i)
    if (!all.gradients[i].empty()) put(i, all.gradients[i]);
  send_bucket();
  team_.begin_sum(std::move(all.statistics));
  team_.reduce([&] { return all.to_bytes(); },
               [&](const std::string& bytes) {
                 Node theirs;
                 theirs.least = all.least, theirs.most = all.most;  // their sizes
                 theirs.from_bytes(bytes);
                 all.add(theirs);
               });
  if (team_.size() > 1) all.from_bytes(team_.broadcast(all.to_bytes()));
  give(all, team_.end_sums());
  return all.loss;
}

void ChunkedStep::Node::add(const Node& other) {
  const auto add = [](std::vector<float>& to, const std::vector<float>& from) {
    if (to.empty())
      to = from;
    else
      for (size_t i = 0; i < from.size(); ++i) to[i] += from[i];
  };
  for (size_t i = 0; i < other.gradients.size(); ++i) add(gradients[i], other.gradients[i]);
  add(statistics, other.statistics);
  for (size_t i = 0; i < least.size(); ++i) least[i] = std::min(least[i], other.least[i]);
  for (size_t i = 0; i < most.size(); ++i) most[i] = std::max(most[i], other.most[i]);
  loss += other.loss;
}

std::string ChunkedStep::Node::to_bytes() const {
  std::string bytes;
  for (const std::vector<float>* v : {&least, &most})
    bytes.append(reinterpret_cast<const char*>(v->data()), v->size() * sizeof(float));
  bytes.append(reinterpret_cast<const char*>(&loss), sizeof loss);
  return bytes;
}

// Into vectors that have their sizes, which are those of all ranks.
void ChunkedStep::Node::from_bytes(const std::string& bytes) {
  const char* at = bytes.data();
  const size_t expected = (least.size() + most.size()) * sizeof(float) + sizeof loss;
  if (bytes.size() != expected)
    fail(ErrorCode::internal, fmt::format("another rank trains another network: {} bytes, not {}",
                                          bytes.size(), expected));
  for (std::vector<float>* v : {&least, &most}) {
    std::memcpy(v->data(), at, v->size() * sizeof(float));
    at += v->size() * sizeof(float);
  }
  std::memcpy(&loss, at, sizeof loss);
}

LearningTeam::LearningTeam(int64_t chunks, dist::Team& team)
    : team_(team), chunks_(chunks), own_(chunks_of_a_rank(chunks, team)) {}

void LearningTeam::sum(std::vector<float>& values) {
  team_.begin_sum(std::move(values));
  values = std::move(team_.end_sums().front());
}

}  // namespace octet::cli
