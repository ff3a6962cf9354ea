#pragma once
// Memory that lasts as long as a model.

#include <cstddef>

#include "octet/base/buffer.h"

namespace octet {

// As Buffer::allocate, for what is read again and again (packed weights, the memory of a program's runs): parts of larger blocks
// that the system may back with huge pages, which costs hundreds of times fewer page faults and fewer TLB misses. A larger block
// lives as long as one of its parts. Thread-safe.
Buffer allocate_lasting(size_t bytes);

}  // namespace octet
