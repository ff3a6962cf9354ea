#pragma once
// Where the data of the Data* tests is. It is not part of the repository: such a test skips itself
// without it.

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

namespace octet::testing {

// OCTET_DATA, or shared/data beside the repository, whose root tests run in.
inline std::filesystem::path data_dir() {
  if (const char* dir = std::getenv("OCTET_DATA"); dir && *dir) return dir;
  return std::filesystem::path("..") / "shared" / "data";
}

// Inputs of public reports and hostile files, beside data_dir().
inline std::filesystem::path cases_dir() { return data_dir() / ".." / "cases"; }

}  // namespace octet::testing

// First line of a test: skips it unless data_dir() has the file (or directory) of that relative
// name.
#define OCTET_NEED_DATA(name)                                               \
  if (!std::filesystem::exists(::octet::testing::data_dir() / (name)))      \
  GTEST_SKIP() << "no " << (::octet::testing::data_dir() / (name)).string() \
               << "; set OCTET_DATA to the directory "                      \
               << "that has it"

// The same for a file of cases_dir().
#define OCTET_NEED_CASE(name)                                                \
  if (!std::filesystem::exists(::octet::testing::cases_dir() / (name)))      \
  GTEST_SKIP() << "no " << (::octet::testing::cases_dir() / (name)).string() \
               << "; set OCTET_DATA to the directory "                       \
               << "beside it"
