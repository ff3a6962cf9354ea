// The team that MPI's launcher made. Compiled into the program alone, with OCTET_MPI: the library
// knows nothing of MPI.
#include <mpi.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "octet/base/check_impl.h"
#include "octet/base/cpu.h"
#include "octet/base/parallel.h"
#include "octet/dist/team.h"

namespace octet::dist {
namespace {

constexpr int kTag = 1, kFirstSumTag = 2;
constexpr int64_t kLargestMessage = int64_t{1} << 30;  // MPI counts in int

void check(int result, const char* what) {
  if (result == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(result, text, &length);
  OCTET_FAIL(internal, "MPI: {}: {}", what, std::string_view(text, static_cast<size_t>(length)));
}

// The launcher ends the other ranks with SIGTERM when one is gone. Only what a signal handler may
// call is called.
char g_farewell[256];
void stopped(int) {
  (void)!::write(STDERR_FILENO, g_farewell, std::strlen(g_farewell));
  ::_exit(1);
}

// The ranks on this machine that may use the same CPUs as this one, itself among them.
int ranks_on_these_cpus() {
  MPI_Comm machine;
  check(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &machine),
        "split");
  int ranks = 1;
  MPI_Comm_size(machine, &ranks);
  cpu_set_t mine;
  CPU_ZERO(&mine);
  ::sched_getaffinity(0, sizeof mine, &mine);
  std::vector<cpu_set_t> all(static_cast<size_t>(ranks));
  check(MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all.data(), sizeof mine, MPI_BYTE, machine),
        "allgather");
  MPI_Comm_free(&machine);
  return static_cast<int>(std::count_if(all.begin(), all.end(), [&](const cpu_set_t& theirs) {
    return std::memcmp(&theirs, &mine, sizeof mine) == 0;
  }));
}

// A sum on its way through reduce()'s tree and back: what r + 1, r + 2, r + 4, ... have is added to
// this rank's, which goes to r less its lowest bit; the whole comes back the same way.
class SumInTree {
 public:
  SumInTree(std::vector<float> values, int rank, int size, int tag)
      : values_(std::move(values)), rank_(rank), size_(size), tag_(tag) {
    if (values_.size() > static_cast<size_t>(INT_MAX))
      OCTET_FAIL(unsupported, "a sum of {} values: MPI counts to {}", values_.size(), INT_MAX);
    theirs_.resize(values_.size());
    go_on();
  }

  // Does what can be done without waiting. Whether all of it is done.
  bool progress() {
    while (receiving_ != MPI_REQUEST_NULL) {
      MPI_Status status;
      int arrived = 0;
      const int result = MPI_Test(&receiving_, &arrived, &status);
      int count = 0;
      if (result == MPI_SUCCESS && !arrived) return false;
      if (result == MPI_SUCCESS) MPI_Get_count(&status, MPI_FLOAT, &count);
      if (result != MPI_SUCCESS || count != static_cast<int>(theirs_.size()))
        OCTET_FAIL(internal, "another rank has another network: {} values, not {}",
                   result == MPI_SUCCESS ? std::to_string(count) : "more", theirs_.size());
      arrived_from_below_ ? add() : spread();
    }
    if (sending_.empty()) return true;
    int sent = 0;
    check(
        MPI_Testall(static_cast<int>(sending_.size()), sending_.data(), &sent, MPI_STATUSES_IGNORE),
        "send");
    if (sent) sending_.clear();
    return sent;
  }

  std::vector<float> take() { return std::move(whole_ ? theirs_ : values_); }
  int64_t bytes_up() const {
    return rank_ == 0 ? 0 : static_cast<int64_t>(values_.size() * sizeof(float));
  }

 private:
  // The next part from below, or on towards rank 0.
  void go_on() {
    for (; bit_ < size_ && !(rank_ & bit_); bit_ *= 2)
      if (rank_ + bit_ < size_) return receive(rank_ + bit_, true);
    if (rank_ == 0) return spread();
    send(values_, rank_ - bit_);
    receive(rank_ - bit_, false);
  }
  void add() {
    for (size_t i = 0; i < values_.size(); ++i) values_[i] += theirs_[i];
    bit_ *= 2;
    go_on();
  }
  // To those whose parts were added; the farthest have the longest way before them.
  void spread() {
    whole_ = rank_ != 0;
    for (int bit = bit_ / 2; bit > 0; bit /= 2)
      if (rank_ + bit < size_) send(whole_ ? theirs_ : values_, rank_ + bit);
  }
  void receive(int from, bool below) {
    arrived_from_below_ = below;
    check(MPI_Irecv(theirs_.data(), static_cast<int>(theirs_.size()), MPI_FLOAT, from, tag_,
                    MPI_COMM_WORLD, &receiving_),
          "receive");
  }
  void send(const std::vector<float>& values, int to) {
    check(MPI_Isend(values.data(), static_cast<int>(values.size()), MPI_FLOAT, to, tag_,
                    MPI_COMM_WORLD, &sending_.emplace_back()),
          "send");
  }

  std::vector<float> values_, theirs_;
  int rank_, size_, tag_, bit_ = 1;
  bool arrived_from_below_ = false, whole_ = false;  // the whole is in theirs_
  MPI_Request receiving_ = MPI_REQUEST_NULL;
  std::vector<MPI_Request> sending_;
};

class MpiTeam : public Team {
 public:
  MpiTeam() {
    int provided = 0;
    // Only the thread that starts the command calls MPI.
    if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS)
      OCTET_FAIL(internal, "MPI could not be started");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
    int64_t* shared = nullptr;
    check(MPI_Win_allocate(rank_ == 0 ? 2 * sizeof(int64_t) : 0, sizeof(int64_t), MPI_INFO_NULL,
                           MPI_COMM_WORLD, static_cast<void*>(&shared), &window_),
          "window");
    if (rank_ == 0) shared[kCounter] = shared[kFailures] = 0;
    check(MPI_Barrier(MPI_COMM_WORLD), "barrier");
    check(MPI_Win_lock_all(0, window_), "lock");
    if (!std::getenv("OCTET_NUM_THREADS"))
      set_num_threads(std::max(1, usable_cpus() / ranks_on_these_cpus()));
    std::snprintf(g_farewell, sizeof g_farewell,
                  "octet: rank %d of %d: stopped, because another rank ended or the job was "
                  "cancelled\n",
                  rank_, size_);
    std::signal(SIGTERM, stopped);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  int64_t next() override { return add_one(kCounter); }

  void restart_counter() override {
    check(MPI_Barrier(MPI_COMM_WORLD), "barrier");
    if (rank_ == 0) {
      const int64_t zero = 0;
      int64_t before = 0;
      MPI_Fetch_and_op(&zero, &before, MPI_INT64_T, 0, kCounter, MPI_REPLACE, window_);
      MPI_Win_flush(0, window_);
    }
    check(MPI_Barrier(MPI_COMM_WORLD), "barrier");
  }

  void reduce(const std::function<std::string()>& own,
              const std::function<void(const std::string&)>& merge) override {
    for (int bit = 1; bit < size_; bit *= 2) {
      if (rank_ & bit) {
        send(own(), rank_ - bit);
        return;
      }
      if (rank_ + bit < size_) merge(receive(rank_ + bit));
    }
  }

  std::string broadcast(const std::string& text) override {
    auto length = static_cast<int64_t>(text.size());
    check(MPI_Bcast(&length, 1, MPI_INT64_T, 0, MPI_COMM_WORLD), "broadcast");
    std::string all = rank_ == 0 ? text : std::string(static_cast<size_t>(length), '\0');
    for (int64_t at = 0; at < length; at += kLargestMessage)
      check(MPI_Bcast(all.data() + at, static_cast<int>(std::min(kLargestMessage, length - at)),
                      MPI_BYTE, 0, MPI_COMM_WORLD),
            "broadcast");
    return all;
  }

  void sum(int64_t* values, size_t n) override {
    check(MPI_Allreduce(MPI_IN_PLACE, values, static_cast<int>(n), MPI_INT64_T, MPI_SUM,
                        MPI_COMM_WORLD),
          "sum");
  }

  void begin_sum(std::vector<float> values) override {
    // MPI promises tags up to 32,767; messages of one tag do not overtake one another.
    const int tag = kFirstSumTag + static_cast<int>(begun_++ % 32000);
    sums_.push_back(std::make_unique<SumInTree>(std::move(values), rank_, size_, tag));
    sent_ += sums_.back()->bytes_up();
  }

  void progress() override {
    for (const auto& sum : sums_) sum->progress();
  }

  std::vector<std::vector<float>> end_sums() override {
    std::vector<std::vector<float>> all;
    for (const auto& sum : sums_) {
      while (!sum->progress()) {
        progress();
        ::sched_yield();  // ranks may share CPUs
      }
      all.push_back(sum->take());
    }
    sums_.clear();
    return all;
  }

  int64_t bytes_sent() const override { return sent_; }

  bool is_first_to_fail() override { return add_one(kFailures) == 0; }

  [[noreturn]] void abort(int code) override {
    MPI_Abort(MPI_COMM_WORLD, code);
    std::_Exit(code);
  }

  void leave() override {
    MPI_Win_unlock_all(window_);
    MPI_Win_free(&window_);
    MPI_Finalize();
    std::signal(SIGTERM, SIG_DFL);
  }

 private:
  enum Slot : MPI_Aint { kCounter = 0, kFailures = 1 };

  int64_t add_one(Slot slot) {
    const int64_t one = 1;
    int64_t before = 0;
    check(MPI_Fetch_and_op(&one, &before, MPI_INT64_T, 0, slot, MPI_SUM, window_), "counter");
    check(MPI_Win_flush(0, window_), "counter");
    return before;
  }

  void send(const std::string& bytes, int to) {
    const auto length = static_cast<int64_t>(bytes.size());
    check(MPI_Send(&length, 1, MPI_INT64_T, to, kTag, MPI_COMM_WORLD), "send");
    for (int64_t at = 0; at < length; at += kLargestMessage)
      check(MPI_Send(bytes.data() + at, static_cast<int>(std::min(kLargestMessage, length - at)),
                     MPI_BYTE, to, kTag, MPI_COMM_WORLD),
            "send");
    sent_ += length;
  }

  std::string receive(int from) {
    int64_t length = 0;
    check(MPI_Recv(&length, 1, MPI_INT64_T, from, kTag, MPI_COMM_WORLD, MPI_STATUS_IGNORE),
          "receive");
    std::string bytes(static_cast<size_t>(length), '\0');
    for (int64_t at = 0; at < length; at += kLargestMessage)
      check(MPI_Recv(bytes.data() + at, static_cast<int>(std::min(kLargestMessage, length - at)),
                     MPI_BYTE, from, kTag, MPI_COMM_WORLD, MPI_STATUS_IGNORE),
            "receive");
    return bytes;
  }

  int rank_ = 0, size_ = 1;
  MPI_Win window_ = MPI_WIN_NULL;
  int64_t sent_ = 0;
  uint64_t begun_ = 0;  // sums
  std::vector<std::unique_ptr<SumInTree>> sums_;
};

}  // namespace

std::unique_ptr<Team> mpi_team() { return std::make_unique<MpiTeam>(); }

}  // namespace octet::dist
