#include "octet/engine/native/schedule_impl.h"

#include <algorithm>
#include <utility>

namespace octet::native {

int64_t worthwhile_tasks(int64_t rows, int64_t weights) {
  // Handing out work costs a few microseconds, in which a core does about a million multiply-adds:
  // smaller tasks are not worth it; few rows take as long as reading the weights does.
  constexpr int64_t kRowsThatHideReading = 3;
  return std::max(rows, kRowsThatHideReading) * weights / (1'000'000 * wake_cost());
}

MatrixTasks matrix_tasks(int64_t images, int64_t m, int64_t n, int64_t mr, int64_t nr,
                         int64_t work_per_element) {
  const int64_t m_tiles = (m + mr - 1) / mr, n_tiles = (n + nr - 1) / nr;
  // Four tasks a thread even out what is left.
  int64_t wanted = num_threads() == 1
                       ? 1
                       : std::min<int64_t>(num_threads() * 4,
                                           worthwhile_tasks(m, n * work_per_element * images));
  if (wanted > num_threads()) wanted -= wanted % num_threads();  // as many for each
  int64_t parts = std::max<int64_t>(1, (wanted + images - 1) / images);
  // Rows first: a thread then reads all weights but only its rows. Columns first where there are
  // too few rows (a matrix-vector product), so that weights are streamed once in all, or where the
  // threads would otherwise wait for the last: 49 rows are 5 tiles, which two threads share as 3
  // and 2.
  auto divide = [parts](int64_t first_tiles, int64_t second_tiles) {
    const int64_t first = std::min(parts, first_tiles);
    return std::pair(first, std::min(std::max<int64_t>(1, parts / first), second_tiles));
  };
  // Elements of the thread that ends last: as many average tasks as each gets, and what the largest
  // task has above them.
  auto last_thread = [&](int64_t m_parts, int64_t n_parts) {
    const double tasks = static_cast<double>(m_parts * n_parts),
                 average = static_cast<double>(m * n) / tasks;
    const int64_t rows = std::min(m, (m_tiles + m_parts - 1) / m_parts * mr),
                  columns = std::min(n, (n_tiles + n_parts - 1) / n_parts * nr);
    const int64_t rounds = (images * m_parts * n_parts + num_threads() - 1) / num_threads();
    return static_cast<double>(rounds - 1) * average + static_cast<double>(rows * columns);
  };
  auto [m_parts, n_parts] = divide(m_tiles, n_tiles);
  const auto [columns_first, rows_second] = divide(n_tiles, m_tiles);
  const bool few_rows = m < 4 * mr && n_tiles > m_parts;
  if (few_rows || last_thread(rows_second, columns_first) < 0.97 * last_thread(m_parts, n_parts)) {
    m_parts = rows_second;
    n_parts = columns_first;
  }
  return {m_tiles, n_tiles, m_parts, n_parts};
}

}  // namespace octet::native
