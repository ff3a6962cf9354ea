# The time that a build takes (docs/architecture.md says how to measure it) and the speed of what it builds.

option(OCTET_UNITY "Compile small sources of a folder together; off for tools that want each by itself (clang-tidy)" ON)

# The headers of the standard library and fmt are parsed once. None of octet's are among them, so that no edit compiles
# everything anew. No two compilations of a precompiled header are the same bytes, so ccache is given a text that says
# what is in it (CCACHE_PCH_EXTSUM in toolchain.cmake); -fpch-preprocess shows it where the header is used. Further arguments are
# more headers.
function(octet_precompile target)
  set(headers <algorithm> <any> <array> <cmath> <cstdint> <cstring> <filesystem> <functional> <limits> <map> <memory>
              <mutex> <numeric> <optional> <set> <source_location> <string> <string_view> <typeindex> <unordered_map>
              <variant> <vector> <fmt/format.h> ${ARGN})
  target_precompile_headers(${target} PRIVATE ${headers})
  target_compile_options(${target} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)
  file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/CMakeFiles/${target}.dir/cmake_pch.hxx.gch.sum @ONLY
       CONTENT "${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION} fmt ${fmt_VERSION} ${headers}\n")
endfunction()

# -O3 for loops over elements, -O1 for what runs once for a network (its file is read, its graph built, how it is quantized
# decided) or calls operators, -O2 (toolchain.cmake) for the rest. -O1 takes two thirds of the time of -O3 to compile; runs and
# the loading of models took the same time in measurements. (-O1 with the vectorizer, in half the time, made means of rows and
# cumsum 25% slower.)
set(octet_fast_flags $<$<CONFIG:Release>:-O3>)
set(octet_once_flags $<$<CONFIG:Release>:-O1>)
file(GLOB_RECURSE octet_fast_sources CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}
     octet/autograd/*.cpp octet/base/*.cpp octet/engine/*.cpp octet/ops/*.cpp octet/tensor/*.cpp octet/quant/algorithms/*.cpp
     octet/quant/observe/*.cpp octet/debug/compare_stats.cpp octet/debug/detector.cpp octet/debug/metrics.cpp
     octet/debug/model_report*.cpp octet/debug/saturation.cpp octet/io/dataset.cpp octet/io/image*.cpp octet/io/npz.cpp
     octet/nn/init.cpp octet/nn/loss.cpp octet/nn/optim.cpp octet/quant/workflow/findings.cpp)
file(GLOB_RECURSE octet_once_sources CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}
     octet/debug/*.cpp octet/graph/*.cpp octet/io/*.cpp octet/nn/*.cpp octet/quant/*.cpp octet/runtime/compile.cpp)
list(REMOVE_ITEM octet_once_sources ${octet_fast_sources})
foreach(kind fast once)
  set_source_files_properties(${octet_${kind}_sources} PROPERTIES COMPILE_OPTIONS "${octet_${kind}_flags}")
endforeach()

# Of `sources`, each `count` become one translation unit of the target, compiled with these options: what their headers define is
# compiled once for all of them. Its text names them relative to the root, so that ccache finds it from another clone. So names in
# the unnamed namespaces of a folder must differ.
function(octet_unite target name count options)
  set(rest ${ARGN})
  list(LENGTH rest left)
  while(left GREATER 1)
    list(SUBLIST rest 0 ${count} part)
    list(REMOVE_ITEM rest ${part})
    list(LENGTH rest left)
    list(TRANSFORM part PREPEND ${PROJECT_SOURCE_DIR}/ OUTPUT_VARIABLE files)
    set_source_files_properties(${files} PROPERTIES HEADER_FILE_ONLY ON)
    list(GET part 0 first)
    cmake_path(GET first STEM first)
    set(unit ${PROJECT_BINARY_DIR}/together/${name}_${first}.cpp)
    list(TRANSFORM part REPLACE "(.+)" "#include \"\\1\"\n")
    string(JOIN "" text ${part})
    file(CONFIGURE OUTPUT ${unit} CONTENT "${text}" @ONLY)
    target_sources(${target} PRIVATE ${unit})
    set_source_files_properties(${unit} PROPERTIES COMPILE_OPTIONS "${options}")
    if(options MATCHES "sanitize")   # the precompiled header was made with sanitizers
      set_source_files_properties(${unit} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
    endif()
  endwhile()
endfunction()

# The library's sources that fit the patterns, `count` at a time.
function(octet_together name count)
  if(NOT OCTET_UNITY)
    return()
  endif()
  # Of fuzzers: what comes long after bytes were read is not looked at, and takes a third of the time to compile.
  set(unwatched "")
  if(OCTET_BUILD_FUZZERS AND name MATCHES "^(algorithms|debug|modules|nn|observe|onednn|tune|workflow)$")
    set(unwatched ";-fno-sanitize=all;-O0")
  endif()
  file(GLOB sources CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR} ${ARGN})
  set(plain ${sources})
  list(REMOVE_ITEM plain ${octet_fast_sources} ${octet_once_sources})
  foreach(kind fast once)
    set(${kind} "")
    foreach(source ${sources})
      if(source IN_LIST octet_${kind}_sources)
        list(APPEND ${kind} ${source})
      endif()
    endforeach()
  endforeach()
  foreach(kind fast plain once)
    octet_unite(octet ${name} ${count} "${octet_${kind}_flags}${unwatched}" ${${kind}})
  endforeach()
endfunction()
octet_together(base 4 octet/base/[a-i]*.cpp octet/base/[m-z]*.cpp)
octet_together(debug 4 octet/debug/*.cpp)
octet_together(engine 8 octet/engine/*.cpp)
octet_together(native 6 octet/engine/native/*.cpp)
octet_together(reference 8 octet/engine/reference/*.cpp)
octet_together(onednn 8 octet/engine/onednn/*.cpp)
octet_together(graph 5 octet/graph/*.cpp)
octet_together(passes 6 octet/graph/passes/*.cpp)
octet_together(onnx_import 7 octet/io/onnx/import*.cpp)
octet_together(onnx_export 8 octet/io/onnx/export*.cpp)
octet_together(io 6 octet/io/d*.cpp octet/io/idx.cpp octet/io/module_file.cpp octet/io/s*.cpp octet/io/zip.cpp)
octet_together(pytorch 2 octet/io/p*.cpp)
octet_together(image 5 octet/io/image.cpp octet/io/image_bmp.cpp octet/io/npz.cpp)
octet_together(nn 6 octet/nn/*.cpp)
octet_together(algorithms 3 octet/quant/algorithms/*.cpp)
octet_together(backend 6 octet/quant/backend/*.cpp)
octet_together(modules 6 octet/quant/modules/*.cpp)
octet_together(observe 6 octet/quant/observe/*.cpp)
octet_together(tune 3 octet/quant/tune/*.cpp)
octet_together(workflow 4 octet/quant/workflow/*.cpp)
octet_together(ops_layers 7 octet/ops/[cdfil]*.cpp)
octet_together(ops_moves 5 octet/ops/m*.cpp octet/ops/n*.cpp octet/ops/q*.cpp octet/ops/rea*.cpp octet/ops/rec*.cpp)
octet_together(ops_rest 5 octet/ops/s*.cpp octet/ops/t*.cpp)
octet_together(runtime 3 octet/runtime/*.cpp)
octet_together(tensor 6 octet/tensor/[a-s]*.cpp octet/tensor/type.cpp)

octet_precompile(octet)
# Their instruction sets are not those that the header was compiled for.
file(GLOB octet_isa_sources CONFIGURE_DEPENDS octet/kernels/isa/*.cpp)
set_source_files_properties(${octet_isa_sources} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
