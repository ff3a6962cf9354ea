# Compiler launcher, linker, warnings and sanitizers. Nothing here changes what the code computes but the
# one line that must: -ffp-contract=off, without which GCC fuses a*b+c and results depend on the ISA.
find_program(OCTET_CCACHE ccache)
if(OCTET_CCACHE)
  # Paths are made relative, so that another clone of the repository finds what this one compiled. The sloppiness is
  # what ccache asks for before it keeps what was compiled with a precompiled header.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1
                                  CCACHE_SLOPPINESS=pch_defines,time_macros CCACHE_PCH_EXTSUM=1 ${OCTET_CCACHE})
endif()
find_program(OCTET_MOLD mold)
if(OCTET_MOLD AND NOT CMAKE_CROSSCOMPILING)   # a cross compiler looks for a mold of its architecture's name
  add_link_options(-fuse-ld=mold)
endif()

add_compile_options(-ffp-contract=off -fno-math-errno)
add_compile_options($<$<CONFIG:Debug>:-Og>)
# GCC collects garbage at half the size that most of our files need.
add_compile_options($<$<CXX_COMPILER_ID:GNU>:--param=ggc-min-heapsize=500000>)
# -O2, but what cmake/speed.cmake says otherwise of.
string(REPLACE "-O3" "-O2" CMAKE_CXX_FLAGS_RELEASE "${CMAKE_CXX_FLAGS_RELEASE}")

# What Debian's packages are hardened with: checked calls of the C library, stack protectors, and tables of addresses that nobody can
# write to once the program runs. docs/trust.md says what it costs. (Position independence is GCC's default and CMake's here.)
option(OCTET_HARDENING "Harden the library and programs against faults of their own" ON)
if(OCTET_HARDENING AND NOT OCTET_SANITIZE)
  add_compile_options(-fstack-protector-strong -fstack-clash-protection $<$<NOT:$<CONFIG:Debug>>:-D_FORTIFY_SOURCE=2>)
  add_link_options(-Wl,-z,relro -Wl,-z,now)
endif()
# The same bytes from a clone in any folder (scripts/reproducible.sh).
add_compile_options(-ffile-prefix-map=${PROJECT_SOURCE_DIR}=.)

# Of what "undefined" checks, three are left out: vptr wants the type information of libraries that have none, null finds what
# AddressSanitizer finds too, object-size sees nothing at -O1; they cost a fifth of the time to compile. More than -O1 -g1 takes
# two to six times as long (docs/architecture.md). Indices of the standard library's containers are checked as well.
if(OCTET_SANITIZE)
  set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1 -DNDEBUG")
  add_compile_definitions(_GLIBCXX_ASSERTIONS)
  add_compile_options(-fsanitize=${OCTET_SANITIZE} -fno-omit-frame-pointer)
  if(OCTET_SANITIZE MATCHES "undefined")
    add_compile_options(-fno-sanitize=vptr,null,object-size)
  endif()
  add_link_options(-fsanitize=${OCTET_SANITIZE})
endif()
if(OCTET_BUILD_FUZZERS)   # undefined behaviour ends a fuzzer, as the other findings do
  add_compile_options(-fno-sanitize-recover=all)
  include_directories(BEFORE SYSTEM ${PROJECT_SOURCE_DIR}/fuzz/compat)
endif()

add_library(octet_warnings INTERFACE)
target_compile_options(octet_warnings INTERFACE -Wall -Wextra -Wno-missing-field-initializers
                       $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)  # GCC 12 warns of std::string concatenation (GCC bug 105329)
