#pragma once
// Faults of the system, for tests: a shared library that stands before the C library (linked first,
// or in LD_PRELOAD) and lets chosen calls fail. Calls on anything but regular files and folders,
// such as a terminal, are never touched and not counted.

#include <cstddef>

namespace octet::faults {

enum class Call {
  open,      // of a file that is to be made
  read,      // read and pread
  write,     // write
  sync,      // fsync
  close,     // close
  rename,    // rename
  allocate,  // operator new and aligned_alloc
  count_
};
enum class Fault {
  none,
  short_count,  // half of the bytes, at least one
  interrupted,  // EINTR, and nothing was done; once
  no_space,     // ENOSPC
  io_error,     // EIO
  torn,         // half of the bytes are written, then EIO
  kill          // half of the bytes are written, then SIGKILL
};

struct Plan {
  Call call = Call::write;
  Fault fault = Fault::none;
  long nth = 1;     // the first call that fails, from 1
  bool on = false;  // whether all calls after it fail too
};

// From now on calls are counted, from 1, and fail as planned.
void arm(const Plan& plan);
// How often it was called since arm(), up to disarm(), which ends counting and failing.
long count(Call call);
void disarm();

// Blocks that operator new gave and that are not freed yet.
long live_blocks();

}  // namespace octet::faults

// A process that is started with the library in LD_PRELOAD reads its plan from the environment:
// OCTET_FAULT="CALL FAULT NTH ON" in the numbers of the enumerations, and writes its counts, one a
// line, to the file that OCTET_FAULT_COUNTS names when it ends.
