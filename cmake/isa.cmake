# Each file of octet/kernels/isa/ is compiled for its own instruction set and only called after a check of the
# CPU; the rest of the library is plain x86-64, or ARMv8.0. Nobody traps floating-point exceptions: told so, GCC makes selects of
# branches. -mtune is left alone: most kernels are written with intrinsics.
set(isa octet/kernels/isa)
# -O3 of intrinsics takes minutes with sanitizers.
set(octet_isa_level -O3)
if(OCTET_SANITIZE)
  set(octet_isa_level -O1)
endif()
if(OCTET_BUILD_FUZZERS)   # clang takes ten minutes for each of them with its instrumentation: `asan` looks at kernels
  list(APPEND octet_isa_level -fno-sanitize=all)
endif()
function(octet_isa file)
  if(EXISTS ${PROJECT_SOURCE_DIR}/${isa}/${file})
    set_source_files_properties(${isa}/${file} PROPERTIES COMPILE_OPTIONS "${octet_isa_level};-fno-trapping-math;${ARGN}")
  endif()
endfunction()
octet_isa(scalar.cpp)
if(octet_architecture STREQUAL "x86")
  octet_isa(avx2.cpp       -mavx2 -mfma -mf16c -mbmi2)
  octet_isa(avxvnni.cpp    -mavx2 -mfma -mf16c -mbmi2 -mavxvnni)
  octet_isa(avx512vnni.cpp -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx2 -mfma -mf16c -mbmi2 -mprefer-vector-width=512)
elseif(octet_architecture STREQUAL "arm")
  octet_isa(neon.cpp)
  octet_isa(dotprod.cpp -march=armv8.2-a+dotprod)
  octet_isa(i8mm.cpp    -march=armv8.2-a+dotprod+i8mm)
endif()
