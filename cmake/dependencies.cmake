# The libraries that octet is made of, as targets. The build uses this file, and so does an installed package that is
# static (octetConfig.cmake): its programs link what it links.
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(Protobuf REQUIRED)
find_package(ONNX REQUIRED)
find_package(ZLIB REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)   # only to set the thread count of oneDNN
# Found by name, not by their packages' targets, which add compile options to every file; Debian's dnnl-config.cmake wants
# OpenCL headers that the CPU engine does not.
if(OCTET_WITH_XNNPACK)
  set(octet_xnnpack XNNPACK)
endif()
foreach(octet_library dnnl ${octet_xnnpack} jpeg png re2 xxhash)
  if(NOT TARGET octet_dependency::${octet_library})
    string(TOUPPER OCTET_${octet_library} octet_variable)
    find_library(${octet_variable} ${octet_library} REQUIRED)
    add_library(octet_dependency::${octet_library} UNKNOWN IMPORTED)
    set_target_properties(octet_dependency::${octet_library} PROPERTIES IMPORTED_LOCATION "${${octet_variable}}")
  endif()
endforeach()
