#pragma once
// What tune() has done so far, in memory and in a directory. All its decisions are made from what
// is here.

#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "octet/quant/tune/precision.h"
#include "octet/quant/tune/tune.h"

namespace octet::quant::tune_detail {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start);

class TuneState {
 public:
  struct Entry {
    TuneTrial trial;
    Recipe recipe;
  };

  // Of the work that `of` names; kept in `directory` ("": nowhere), with what is there if `resume`.
  // Error invalid_argument if that is of another work; corrupt.
  TuneState(const std::filesystem::path& directory, std::string of, bool resume);

  // Of this work, with the time before it was cut off.
  double seconds() const { return before_ + seconds_since(start_); }

  const Entry* find(const std::string& name) const;
  const Entry& add(Entry entry);

  // What layers could have instead, priced; and the layers that have weights of 4 bits.
  const std::optional<std::vector<PrecisionChange>>& changes() const { return changes_; }
  void set_changes(std::vector<PrecisionChange> changes);
  const std::optional<std::vector<std::string>>& narrowed() const { return narrowed_; }
  void set_narrowed(std::vector<std::string> layers);

  // The whole state as text, for a process without the directory; take() reads it.
  std::string to_text() const;
  void take(const std::string& text);

  static std::string to_text(const Entry& entry);
  static Entry entry_of(const std::string& text);

 private:
  std::filesystem::path file() const { return directory_ / "state.json"; }
  std::filesystem::path recipe_file(size_t number) const;
  void write() const;
  std::string state_text() const;  // of all but the recipes
  void take(const std::string& state, const std::function<std::string(size_t)>& recipe,
            const std::string& who);

  const std::filesystem::path directory_;
  const std::string of_;
  const Clock::time_point start_ = Clock::now();
  double before_ = 0;  // seconds
  std::vector<Entry> entries_;
  std::optional<std::vector<PrecisionChange>> changes_;
  std::optional<std::vector<std::string>> narrowed_;
};

std::string to_text(const std::vector<PrecisionChange>& changes);
std::vector<PrecisionChange> changes_of(const std::string& text);
std::string to_text(const std::vector<std::string>& names);
std::vector<std::string> names_of(const std::string& text);

}  // namespace octet::quant::tune_detail
