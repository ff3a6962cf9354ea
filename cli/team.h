#pragma once
// The ranks that run a command together (docs/scaling.md).

#include "octet/dist/team.h"

namespace octet::cli {

// Of one, until start_team() finds that a launcher of MPI started this process among others.
dist::Team& team();
// Before any command. Of other ranks than the first nothing is printed but errors. WrongUsage if
// there are several ranks and this octet was built without MPI.
void start_team();

}  // namespace octet::cli
