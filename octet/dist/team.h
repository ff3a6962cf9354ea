#pragma once
// The processes that do one command together (`mpirun -n 4 octet quantize ...`), and what they say
// to each other. Known by the program alone. Rank 0 shows and writes the results.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace octet::dist {

class Team {
 public:
  virtual ~Team() = default;
  virtual int rank() const = 0;  // 0 .. size() - 1
  virtual int size() const = 0;
  bool is_first() const { return rank() == 0; }

  // The next number of a counter that all ranks share: 0, 1, 2, ..., each given once. Who is quick
  // takes more work.
  virtual int64_t next() = 0;
  // All ranks have come here. next() begins at 0 again.
  virtual void restart_counter() = 0;

  // The tree in which parts come together: rank r takes what r + 1, r + 2, r + 4, ... have, in this
  // order, and then hands all of it to r less its lowest bit. `merge(theirs)` adds a part to this
  // rank's; `own()` is what it hands on. In the end rank 0 has everything.
  virtual void reduce(const std::function<std::string()>& own,
                      const std::function<void(const std::string& theirs)>& merge) = 0;
  // Rank 0's text, everywhere.
  virtual std::string broadcast(const std::string& text) = 0;
  // The sums over all ranks, everywhere.
  virtual void sum(int64_t* values, size_t n) = 0;

  // Sums over all ranks while this one goes on computing, all begun in the same order everywhere:
  // begin_sum() starts one, progress() moves those that were begun on, and end_sums() waits for all
  // of them and gives them in that order. They are added in reduce()'s tree, so their bits are the
  // same on all ranks and what reduce() would give. Error internal, naming the sizes, if a rank
  // has another number of values.
  virtual void begin_sum(std::vector<float> values) = 0;
  virtual void progress() {}
  virtual std::vector<std::vector<float>> end_sums() = 0;

  // What was sent by this rank in reduce() and towards rank 0 for sums, in bytes.
  virtual int64_t bytes_sent() const { return 0; }

  // For errors: true for the first rank that asks. It says what is wrong; the others are quiet.
  virtual bool is_first_to_fail() = 0;
  // Ends all ranks. Does not return.
  [[noreturn]] virtual void abort(int code) = 0;
  // The others need not wait for this process: after the last word. Nothing else is called then.
  virtual void leave() = 0;
};

// A team of one.
std::unique_ptr<Team> alone();

// Whether a launcher of MPI (mpirun, mpiexec, srun with PMI) started this process among others, by
// its environment; and how many there are (1 if it does not say).
int launched_ranks();

// The team that the launcher made. Built with OCTET_MPI only; once in a process. So many threads as
// are this rank's share of the CPUs are set, unless OCTET_NUM_THREADS says how many: where the
// launcher binds ranks to CPUs these are its own.
std::unique_ptr<Team> mpi_team();

}  // namespace octet::dist
