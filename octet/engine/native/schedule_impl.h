#pragma once
// How the work on a matrix is divided among the threads.

#include <algorithm>
#include <cstdint>

#include "octet/base/parallel.h"

namespace octet::native {

// As many tasks as a product of `rows` rows with that many weights is worth.
int64_t worthwhile_tasks(int64_t rows, int64_t weights);

// How many ranges of rows and of columns a result is cut into, and how many register tiles of
// mr x nr it has in all.
struct MatrixTasks {
  int64_t m_tiles, n_tiles, m_parts, n_parts;
};
// Of `images` results of m x n, none of which is 0.
MatrixTasks matrix_tasks(int64_t images, int64_t m, int64_t n, int64_t mr, int64_t nr,
                         int64_t work_per_element);

// Divides `images` independent results of m x n among the threads: calls run(image, m0, m1, n0, n1)
// for ranges of rows and columns whose edges are multiples of the register tile mr x nr.
// `work_per_element` is the number of multiply-adds of 8 bits that an element takes.
template <typename Run>
void split_matrix(int64_t images, int64_t m, int64_t n, int64_t mr, int64_t nr,
                  int64_t work_per_element, Run&& run) {
  if (images * m * n == 0) return;
  const MatrixTasks t = matrix_tasks(images, m, n, mr, nr, work_per_element);
  parallel_for(images * t.m_parts * t.n_parts, [&](int64_t task) {
    const int64_t image = task / (t.m_parts * t.n_parts), rest = task % (t.m_parts * t.n_parts);
    const int64_t i = rest / t.n_parts, j = rest % t.n_parts;
    const int64_t m0 = t.m_tiles * i / t.m_parts * mr, n0 = t.n_tiles * j / t.n_parts * nr;
    run(image, m0, std::min(m, t.m_tiles * (i + 1) / t.m_parts * mr), n0,
        std::min(n, t.n_tiles * (j + 1) / t.n_parts * nr));
  });
}

}  // namespace octet::native
