# Run by CPack on what goes into the packages, before it makes them.

# It strips programs and shared libraries itself, and leaves archives alone.
file(GLOB_RECURSE archives ${CPACK_TEMPORARY_DIRECTORY}/*.a)
if(archives)
  execute_process(COMMAND strip --strip-debug --enable-deterministic-archives ${archives} COMMAND_ERROR_IS_FATAL ANY)
endif()

# systemd's units name programs by where CPack has installed them for the moment.
file(GLOB_RECURSE units ${CPACK_TEMPORARY_DIRECTORY}/*.service)
foreach(unit ${units})
  file(READ ${unit} text)
  string(REGEX REPLACE "ExecStart=[^ ]*/" "ExecStart=${CPACK_PACKAGING_INSTALL_PREFIX}/bin/" text "${text}")
  file(WRITE ${unit} "${text}")
endforeach()
