# The preset `arm`.
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(octet_cross_build build-arm)
include(${CMAKE_CURRENT_LIST_DIR}/cross.cmake)
