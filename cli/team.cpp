#include "cli/team.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "cli/common.h"

namespace octet::cli {
namespace {
std::unique_ptr<dist::Team>& the_team() {
  static std::unique_ptr<dist::Team> team = dist::alone();
  return team;
}
}  // namespace

dist::Team& team() { return *the_team(); }

void start_team() {
  const int ranks = dist::launched_ranks();
  if (ranks < 2) return;
#ifdef OCTET_MPI
  the_team() = dist::mpi_team();
  if (team().is_first()) return;
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

void leave_team() {
  team().leave();
  the_team() = dist::alone();
}

}  // namespace octet::cli
