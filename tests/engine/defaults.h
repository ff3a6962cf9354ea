#pragma once

#include "octet/base/cpu.h"
#include "octet/base/parallel.h"
#include "octet/engine/engine.h"

namespace octet::testing {

// Puts the process's choices back.
struct Defaults {
  Isa isa = current_isa();
  int threads = num_threads();
  ~Defaults() {
    set_isa(isa);
    set_num_threads(threads);
    set_engine("native");
  }
};

}  // namespace octet::testing
