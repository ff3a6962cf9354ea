# cpack: liboctet, liboctet-dev, octet-tools and python3-octet as Debian packages, and one relocatable .tar.gz of all. What is
# Debian's alone (copyright, changelog, scripts, the tags of lintian that stay, with their reasons) is in cmake/debian/.
set(CPACK_GENERATOR DEB TGZ)
set(CPACK_PACKAGE_VENDOR "the octet authors")
set(CPACK_PACKAGE_CONTACT "the octet authors <octet@example.org>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "")   # each package has its own
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL core dev cli)
if(OCTET_BUILD_PYTHON)
  list(APPEND CPACK_COMPONENTS_ALL python)
endif()
set(CPACK_ARCHIVE_COMPONENT_INSTALL OFF)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${PROJECT_BINARY_DIR}/lib)
set(octet_debian ${PROJECT_SOURCE_DIR}/cmake/debian)
set(octet_same_version "liboctet${octet_soversion} (= ${PROJECT_VERSION})")

# A package: its component, name and section, what it depends on besides the libraries it is linked with, its first line and its
# description.
function(octet_debian_package component package section depends summary description)
  string(TOUPPER ${component} key)
  set(CPACK_DEBIAN_${key}_PACKAGE_NAME ${package} PARENT_SCOPE)
  set(CPACK_DEBIAN_${key}_PACKAGE_SECTION ${section} PARENT_SCOPE)
  set(CPACK_DEBIAN_${key}_PACKAGE_DEPENDS "${depends}" PARENT_SCOPE)
  set(CPACK_DEBIAN_${key}_DESCRIPTION "${summary}\n${description}" PARENT_SCOPE)
  file(GLOB scripts ${octet_debian}/${component}/*)
  set(CPACK_DEBIAN_${key}_PACKAGE_CONTROL_EXTRA ${scripts} PARENT_SCOPE)
  set(CPACK_DEBIAN_${key}_PACKAGE_CONTROL_STRICT_PERMISSION ON PARENT_SCOPE)
  install(FILES ${octet_debian}/copyright ${PROJECT_BINARY_DIR}/changelog.gz
          DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${package} COMPONENT ${component})
  if(EXISTS ${octet_debian}/overrides/${component})
    install(FILES ${octet_debian}/overrides/${component} RENAME ${package}
            DESTINATION ${CMAKE_INSTALL_DATADIR}/lintian/overrides COMPONENT ${component})
  endif()
endfunction()
configure_file(${octet_debian}/changelog.in changelog @ONLY)
execute_process(COMMAND gzip -9nc ${PROJECT_BINARY_DIR}/changelog OUTPUT_FILE ${PROJECT_BINARY_DIR}/changelog.gz
                COMMAND_ERROR_IS_FATAL ANY)

set(octet_about "octet reads networks from ONNX and PyTorch, quantizes them to 8 bits and fewer,
after training or with it, says where accuracy is lost, and runs them on x86-64
CPUs.
")
octet_debian_package(core liboctet${octet_soversion} libs "" "quantized neural networks, shared library"
  "${octet_about}This package has the library.")
octet_debian_package(dev liboctet-dev libdevel "${octet_same_version}" "quantized neural networks, headers for C++ and C"
  "${octet_about}This package has the headers, for CMake's find_package and for pkg-config.")
octet_debian_package(cli octet-tools science "${octet_same_version}" "quantized neural networks, command line"
  "${octet_about}This package has the program octet, its manual page and completions.")
if(OCTET_BUILD_PYTHON)
  octet_debian_package(python python3-octet python "${octet_same_version}, ${octet_python_depends}"
    "quantized neural networks, for Python"
    "${octet_about}This package has the Python module, with the names of torch.ao.quantization.")
endif()
include(CPack)
