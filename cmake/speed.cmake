# The time that a build takes. The headers of the standard library and fmt are parsed once: they are half of what most
# files cost. Nothing of octet's is among them, so that no edit compiles everything anew. -fpch-preprocess lets ccache
# find objects by the precompiled header's contents.
set(octet_precompiled <algorithm> <any> <array> <cmath> <cstdint> <cstring> <filesystem> <functional> <limits> <map>
                      <memory> <mutex> <numeric> <optional> <set> <source_location> <string> <string_view> <typeindex>
                      <unordered_map> <variant> <vector> <fmt/format.h>)
target_precompile_headers(octet PRIVATE ${octet_precompiled})
set(octet_precompiled_flags $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)
target_compile_options(octet PRIVATE ${octet_precompiled_flags})
# Their instruction sets are not those that the header was compiled for.
file(GLOB octet_isa_sources CONFIGURE_DEPENDS octet/kernels/isa/*.cpp)
set_source_files_properties(${octet_isa_sources} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)

# Loops over elements: -O3. What reads files, builds graphs and decides is called once and has none.
file(GLOB_RECURSE octet_fast_sources CONFIGURE_DEPENDS
     octet/autograd/*.cpp octet/base/*.cpp octet/engine/*.cpp octet/ops/*.cpp octet/tensor/*.cpp
     octet/quant/algorithms/*.cpp octet/quant/observe/*.cpp octet/nn/init.cpp octet/nn/loss.cpp octet/nn/optim.cpp
     octet/io/dataset.cpp octet/io/image*.cpp octet/io/npz.cpp)
set_source_files_properties(${octet_fast_sources} PROPERTIES COMPILE_OPTIONS "$<$<CONFIG:Release>:-O3>")
