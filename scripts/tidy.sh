#!/bin/sh
# clang-tidy (Debian: clang-tidy) by .clang-tidy over octet/ and cli/: scripts/tidy.sh [REGEX of paths]
# About 15 minutes of CPU for all. Prints what it finds; exits with 1 if that is anything.
set -e
cd "$(dirname "$0")/.."
cmake -S . -B build-tidy -G Ninja -DCMAKE_BUILD_TYPE=Release -DOCTET_UNITY=OFF -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON \
  -DCMAKE_EXPORT_COMPILE_COMMANDS=ON --log-level=WARNING >/dev/null
# clang 14 has no std::source_location.
cat > build-tidy/source_location.h <<'EOF'
#include <version>
#ifndef __cpp_lib_source_location
namespace std {
struct source_location {
  static constexpr source_location current() { return {}; }
  constexpr unsigned line() const { return 0; }
  constexpr unsigned column() const { return 0; }
  constexpr const char* file_name() const { return ""; }
  constexpr const char* function_name() const { return ""; }
};
}  // namespace std
#endif
EOF
found=$(run-clang-tidy -p build-tidy -quiet -extra-arg=-include -extra-arg=$PWD/build-tidy/source_location.h \
  -extra-arg=-Wno-unknown-warning-option -extra-arg=-Wno-unused-command-line-argument \
  "^$PWD/(octet|cli)/.*${1:-}" 2>/dev/null | sed 's/\x1b\[[0-9;]*m//g' | grep -E '(warning|error): ' | sort -u || true)
[ -z "$found" ] || { echo "$found"; exit 1; }
