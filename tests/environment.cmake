# Read by ctest: what its tests find in their environment, unless the caller has set it.
macro(octet_default_environment name value)
  if(NOT DEFINED ENV{${name}})
    set(ENV{${name}} ${value})
  endif()
endmacro()
octet_default_environment(OMP_WAIT_POLICY passive)
octet_default_environment(OCTET_NUM_THREADS 1)
