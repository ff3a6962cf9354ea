# Read by ctest: what its tests find in their environment, unless the caller has set it.
macro(octet_default_environment name value)
  if(NOT DEFINED ENV{${name}})
    set(ENV{${name}} ${value})
  endif()
endmacro()
octet_default_environment(OMP_WAIT_POLICY passive)
octet_default_environment(OCTET_NUM_THREADS 1)
# For sanitizers; a program without them does not look. Undefined behaviour is an error, not a line on stderr.
octet_default_environment(UBSAN_OPTIONS "halt_on_error=1:print_stacktrace=1")
# Without die_after_fork=0 it ends every child of a process with threads as soon as the child starts one.
octet_default_environment(TSAN_OPTIONS "suppressions='${CMAKE_CURRENT_LIST_DIR}/tsan.supp':die_after_fork=0")
