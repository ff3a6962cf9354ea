# The preset `s390x`: a big-endian architecture.
set(CMAKE_SYSTEM_PROCESSOR s390x)
set(octet_cross_build build-s390x)
include(${CMAKE_CURRENT_LIST_DIR}/cross.cmake)
