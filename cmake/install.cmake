# `cmake --install BUILD [--component core|cli]`: the library with its headers, find_package(octet) and pkg-config's octet.pc,
# and the program. `cpack` in the build folder makes Debian packages and a relocatable .tar.gz.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(octet_cmake ${CMAKE_INSTALL_LIBDIR}/cmake/octet)

# Installed together, anywhere: the program finds the library beside it.
file(RELATIVE_PATH octet_bin_to_lib /${CMAKE_INSTALL_BINDIR} /${CMAKE_INSTALL_LIBDIR})
install(TARGETS octet EXPORT octetTargets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT core NAMELINK_COMPONENT dev
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT dev)
install(EXPORT octetTargets NAMESPACE octet:: DESTINATION ${octet_cmake} COMPONENT dev)
if(OCTET_BUILD_CLI)
  # In the build folder too: the room that a longer path takes stays in the installed program, whose bytes would depend on it.
  set_target_properties(octet-cli PROPERTIES INSTALL_RPATH "$ORIGIN/${octet_bin_to_lib}" BUILD_RPATH_USE_ORIGIN ON)
  install(TARGETS octet-cli EXPORT octetCliTargets RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT cli)
  install(EXPORT octetCliTargets NAMESPACE octet:: DESTINATION ${octet_cmake} COMPONENT cli)

  # The manual page and completions, written by the program.
  foreach(file "man octet.1.gz ${CMAKE_INSTALL_MANDIR}/man1" "bash octet ${CMAKE_INSTALL_DATADIR}/bash-completion/completions"
               "zsh _octet ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions"
               "fish octet.fish ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d")
    string(REPLACE " " ";" file "${file}")
    list(GET file 0 format)
    list(GET file 1 name)
    list(GET file 2 folder)
    set(output ${PROJECT_BINARY_DIR}/reference/${format}/${name})
    set(filter "")
    if(format STREQUAL man)
      set(filter | gzip -9n)
    endif()
    add_custom_command(OUTPUT ${output} DEPENDS octet-cli VERBATIM
                       COMMAND ${CMAKE_COMMAND} -E make_directory ${PROJECT_BINARY_DIR}/reference/${format}
                       COMMAND octet-cli reference ${format} ${filter} > ${output})
    list(APPEND octet_reference ${output})
    install(FILES ${output} DESTINATION ${folder} COMPONENT cli)
  endforeach()
  add_custom_target(octet_reference ALL DEPENDS ${octet_reference})
endif()

# The headers that octet/octet.h includes; others are octet's own, as all *_impl.h are.
set(octet_private_headers base/file.h base/lasting.h base/progress.h engine/reorder.h graph/passes/cancel_permutes.h
    graph/passes/fuse_lookups.h graph/passes/move_codes.h io/image.h kernels/kernels.h nn/trace.h ops/unary.h
    quant/observe/aciq.h quant/observe/range_search.h runtime/memory_plan.h)
list(TRANSFORM octet_private_headers PREPEND "octet/" OUTPUT_VARIABLE octet_private_paths)
file(GLOB_RECURSE octet_headers CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR} octet/*.h)
list(FILTER octet_headers EXCLUDE REGEX "_impl[.]h$")
list(REMOVE_ITEM octet_headers ${octet_private_paths})
foreach(header ${octet_headers})
  cmake_path(GET header PARENT_PATH folder)
  install(FILES ${header} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/${folder} COMPONENT dev)
endforeach()

set(OCTET_SHARED ${BUILD_SHARED_LIBS})
configure_package_config_file(cmake/octetConfig.cmake.in octetConfig.cmake INSTALL_DESTINATION ${octet_cmake})
write_basic_package_version_file(octetConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/octetConfig.cmake ${PROJECT_BINARY_DIR}/octetConfigVersion.cmake
              cmake/dependencies.cmake DESTINATION ${octet_cmake} COMPONENT dev)

set(OCTET_PC_LIBS "-L\${libdir} -loctet")
set(OCTET_PC_LIBS_PRIVATE "-lfmt -ldnnl -lonnx -lonnx_proto -lprotobuf -lz -ljpeg -lpng -lre2 -lxxhash -lgomp -lpthread")
if(OCTET_WITH_XNNPACK)
  string(PREPEND OCTET_PC_LIBS_PRIVATE "-lXNNPACK ")
endif()
if(NOT BUILD_SHARED_LIBS)
  set(OCTET_PC_LIBS "-L\${libdir} -Wl,--whole-archive -l:liboctet.a -Wl,--no-whole-archive ${OCTET_PC_LIBS_PRIVATE}")
  set(OCTET_PC_LIBS_PRIVATE "")
endif()
file(RELATIVE_PATH OCTET_PC_TO_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(cmake/octet.pc.in octet.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/octet.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT dev)
