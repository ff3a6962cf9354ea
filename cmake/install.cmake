# `cmake --install build`: the program, the library and the public headers (*_impl.h stay behind).
include(GNUInstallDirs)
install(TARGETS octet LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET octet-cli)
  install(TARGETS octet-cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(DIRECTORY octet DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.h" PATTERN "*_impl.h" EXCLUDE)
