#pragma once
// The ranks that run a command together (docs/scaling.md).

#include <functional>
#include <string>
#include <vector>

#include "octet/dist/team.h"

namespace octet::cli {

// Of one, until start_team() finds that a launcher of MPI started this process among others.
dist::Team& team();
// Before any command. Of other ranks than the first nothing is printed but errors. WrongUsage if
// there are several ranks and this octet was built without MPI.
void start_team();
// This process goes on alone, or ends: the others need not wait for it. After the last word between
// them.
void leave_team();

// Each of job(0) .. job(n - 1) is done by one of the ranks, whoever is free. What they gave, on all
// of them.
std::vector<std::string> share(size_t n, const std::function<std::string(size_t)>& job);

}  // namespace octet::cli
