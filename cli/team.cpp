#include "cli/team.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "cli/common.h"

namespace octet::cli {
namespace {
std::unique_ptr<dist::Team>& the_team() {
  static std::unique_ptr<dist::Team> team = dist::alone();
  return team;
}

#ifdef OCTET_MPI
// Whether what started this process, which hands on what it writes, writes to a terminal.
bool launcher_has_terminal() {
  const std::string path = fmt::format("/proc/{}/fd/2", ::getppid());
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_NOCTTY | O_CLOEXEC);
  if (descriptor < 0) return false;
  const bool terminal = ::isatty(descriptor) != 0;
  ::close(descriptor);
  return terminal;
}
#endif

}  // namespace

dist::Team& team() { return *the_team(); }

void start_team() {
  const int ranks = dist::launched_ranks();
  if (ranks < 2) return;
#ifdef OCTET_MPI
  the_team() = dist::mpi_team();
  if (team().is_first()) {
    if (launcher_has_terminal()) ::setenv("OCTET_PROGRESS", "1", 0);
    return;
  }
  silence();
  if (const int nothing = ::open("/dev/null", O_WRONLY); nothing >= 0) {
    ::dup2(nothing, STDOUT_FILENO);
    ::close(nothing);
  }
#else
  wrong_usage(fmt::format(
      "started on {} ranks, but this octet was built without MPI: build it with -DOCTET_MPI=ON, or "
      "share the work by octet calibrate --shard",
      ranks));
#endif
}

std::vector<std::string> share(size_t n, const std::function<std::string(size_t)>& job) {
  // A record is the job's number, how many bytes it gave, and these.
  std::string records;
  const auto put = [&](int64_t number) {
    records.append(reinterpret_cast<const char*>(&number), sizeof number);
  };
  team().restart_counter();
  for (int64_t i = team().next(); i < static_cast<int64_t>(n); i = team().next()) {
    const std::string result = job(static_cast<size_t>(i));
    put(i);
    put(std::ssize(result));
    records += result;
  }
  team().reduce([&] { return records; }, [&](const std::string& theirs) { records += theirs; });
  records = team().broadcast(records);
  std::vector<std::string> results(n);
  for (size_t at = 0; at < records.size();) {
    int64_t numbers[2];
    std::memcpy(numbers, records.data() + at, sizeof numbers);
    at += sizeof numbers;
    results[static_cast<size_t>(numbers[0])] = records.substr(at, static_cast<size_t>(numbers[1]));
    at += static_cast<size_t>(numbers[1]);
  }
  return results;
}

void leave_team() {
  team().leave();
  the_team() = dist::alone();
}

}  // namespace octet::cli
