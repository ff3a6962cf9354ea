#include "cli/chunks.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "cli/arguments.h"
#include "octet/autograd/autograd.h"
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

void append(std::vector<float>& to, const Tensor& t) {
  const std::vector<float> values = t.to_vector<float>();
  to.insert(to.end(), values.begin(), values.end());
}

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
  nodes_.clear();
  observers_.clear();
  statistics_.clear();
  for (const auto& [path, observer] : observers_of(module_))
    observers_[path] = observer->extra_state();
  for (const Tensor* t : statistics_of(module_)) statistics_.push_back(t->detach().clone());
}

void ChunkedStep::begin_chunk() {
  if (nodes_.empty()) return;  // the first one: all is as it was
  for (const auto& [path, observer] : observers_of(module_))
    observer->set_extra_state(observers_.at(path));
  size_t i = 0;
  for (Tensor* t : statistics_of(module_)) t->copy_from(statistics_[i++]);
}

ChunkedStep::Node ChunkedStep::taken(double loss) {
  Node node;
  node.loss = loss;
  has_gradient_.clear();  // as in each chunk of each rank
  for (const Tensor& p : module_.parameters()) {
    const Tensor g = autograd::grad(p);
    has_gradient_.push_back(g.defined());
    if (!g.defined()) continue;
    append(node.sums, g);
    autograd::zero_grad(p);
  }
  for (const Tensor* t : statistics_of(module_)) append(node.sums, t->detach());
  for (const auto& [path, observer] : observers_of(module_))
    for (const auto& [key, value] : observer->extra_state())
      if (is_least(key) || is_most(key)) append(is_least(key) ? node.least : node.most, value);
  return node;
}

void ChunkedStep::end_chunk(double loss) { nodes_.push_back(taken(loss)); }

void ChunkedStep::give(const Node& all) {
  size_t at = 0;
  const auto take = [](const std::vector<float>& from, size_t& i, const Shape& shape) {
    Tensor t = Tensor::empty(shape);
    const auto n = static_cast<size_t>(t.numel());
    std::copy_n(from.begin() + static_cast<std::ptrdiff_t>(i), n, t.data<float>());
    i += n;
    return t;
  };
  size_t number = 0;
  for (const Tensor& p : module_.parameters())
    if (has_gradient_[number++]) autograd::set_grad(p, take(all.sums, at, p.shape()));
  for (Tensor* t : statistics_of(module_)) {
    Tensor mean = take(all.sums, at, t->shape());
    float* x = mean.data<float>();
    for (int64_t i = 0; i < mean.numel(); ++i) x[i] /= static_cast<float>(chunks_);
    t->copy_from(mean);
  }
  size_t least = 0, most = 0;
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
  // Pairs of neighbours, then pairs of pairs: dist::Team::reduce goes on in the same order.
  for (size_t s = 1; s < nodes_.size(); s *= 2)
    for (size_t i = 0; i + s < nodes_.size(); i += 2 * s) nodes_[i].add(nodes_[i + s]);
  Node& all = nodes_.at(0);
  team_.reduce([&] { return all.to_bytes(); },
               [&](const std::string& theirs) {
                 Node other = all;
                 other.from_bytes(theirs);
                 all.add(other);
               });
  if (team_.size() > 1) all.from_bytes(team_.broadcast(all.to_bytes()));
  give(all);
  return all.loss;
}

void ChunkedStep::Node::add(const Node& other) {
  for (size_t i = 0; i < sums.size(); ++i) sums[i] += other.sums[i];
  for (size_t i = 0; i < least.size(); ++i) least[i] = std::min(least[i], other.least[i]);
  for (size_t i = 0; i < most.size(); ++i) most[i] = std::max(most[i], other.most[i]);
  loss += other.loss;
}

std::string ChunkedStep::Node::to_bytes() const {
  std::string bytes;
  for (const std::vector<float>* v : {&sums, &least, &most})
    bytes.append(reinterpret_cast<const char*>(v->data()), v->size() * sizeof(float));
  bytes.append(reinterpret_cast<const char*>(&loss), sizeof loss);
  return bytes;
}

// Into vectors that have their sizes, which are those of all ranks.
void ChunkedStep::Node::from_bytes(const std::string& bytes) {
  const char* at = bytes.data();
  size_t expected = sizeof loss;
  for (const std::vector<float>* v : {&sums, &least, &most}) expected += v->size() * sizeof(float);
  if (bytes.size() != expected)
    fail(ErrorCode::internal, fmt::format("another rank trains another network: {} bytes, not {}",
                                          bytes.size(), expected));
  for (std::vector<float>* v : {&sums, &least, &most}) {
    std::memcpy(v->data(), at, v->size() * sizeof(float));
    at += v->size() * sizeof(float);
  }
  std::memcpy(&loss, at, sizeof loss);
}

LearningTeam::LearningTeam(int64_t chunks, dist::Team& team)
    : team_(team), chunks_(chunks), own_(chunks_of_a_rank(chunks, team)) {}

void LearningTeam::sum(std::vector<float>& values) {
  if (team_.size() == 1) return;
  const size_t size = values.size() * sizeof(float);
  const auto bytes = [&] {
    return std::string(reinterpret_cast<const char*>(values.data()), size);
  };
  std::vector<float> theirs(values.size());
  const auto read = [&](const std::string& from, std::vector<float>& to) {
    if (from.size() != size)
      fail(ErrorCode::internal,
           fmt::format("another rank learns another network: {} bytes, not {}", from.size(), size));
    std::memcpy(to.data(), from.data(), size);
  };
  team_.reduce(bytes, [&](const std::string& from) {
    read(from, theirs);
    for (size_t i = 0; i < values.size(); ++i) values[i] += theirs[i];
  });
  read(team_.broadcast(team_.is_first() ? bytes() : std::string()), values);
}

}  // namespace octet::cli
