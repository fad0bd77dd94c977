# Debian packages by CPack: `cpack --config BUILD/CPackConfig.cmake`. What is installed without saying for which goes to
# nvr-readerd. The library's package is named by its SONAME, as Debian wants it; programs have the library in them.
set(nvr_maintainer "nvr-readerd developers <nvr-readerd@example.org>")
set(nvr_soname_package libnvr-client${PROJECT_VERSION_MAJOR})

# Debian's papers, for each package; gzip without name and time, so that equal sources give equal packages.
find_program(NVR_GZIP gzip REQUIRED)
configure_file(${CMAKE_CURRENT_LIST_DIR}/debian/changelog.in debian/changelog @ONLY)
file(COPY_FILE ${CMAKE_CURRENT_LIST_DIR}/debian/copyright ${PROJECT_BINARY_DIR}/debian/copyright ONLY_IF_DIFFERENT)
execute_process(COMMAND ${NVR_GZIP} -9nkf ${PROJECT_BINARY_DIR}/debian/changelog COMMAND_ERROR_IS_FATAL ANY)
set(nvr_lab)
if(NVR_BUILD_LAB)
  set(nvr_lab nvr-readerd-lab)
endif()
foreach(package nvr-readerd ${nvr_lab} ${nvr_soname_package} libnvr-client-dev)
  if(package STREQUAL nvr_soname_package)
    set(component libnvr-client)
  else()
    set(component ${package})
  endif()
  install(FILES ${PROJECT_BINARY_DIR}/debian/changelog.gz ${PROJECT_BINARY_DIR}/debian/copyright
    DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${package} COMPONENT ${component})
endforeach()

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME nvr-readerd)
set(CPACK_PACKAGE_CONTACT "${nvr_maintainer}")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
# What a core dump needs goes into packages of its own, NAME-dbgsym, where the build has any: CPack then strips by itself.
if(CMAKE_BUILD_TYPE MATCHES "Deb")
  set(CPACK_DEBIAN_DEBUGINFO_PACKAGE ON)
else()
  set(CPACK_STRIP_FILES ON)
endif()
set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_CURRENT_LIST_DIR}/finish_packages.cmake)
set(CPACK_COMPONENTS_ALL nvr-readerd ${nvr_lab} libnvr-client libnvr-client-dev)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_MAINTAINER "${nvr_maintainer}")
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# Or CPack puts it before each package's own.
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "")

set(CPACK_DEBIAN_NVR-READERD_PACKAGE_NAME nvr-readerd)
set(CPACK_DEBIAN_NVR-READERD_PACKAGE_SECTION video)
set(CPACK_DEBIAN_NVR-READERD_DESCRIPTION
"reads video recordings from a disk on behalf of others
One daemon for each disk reads recordings in a thread of its own and hands
them to recorders and streamers through shared memory. Whatever a stalled or
failing disk does, it never reaches their threads: they get a chunk, an
error, or their deadline, on time.

This package has the daemon, the programs that ask it (nvr-readerctl), read
through it (nvr-cat) and serve recordings over HTTP (nvr-streamer).")
# systemd reads its units, and makes the streamer's user.
set(CPACK_DEBIAN_NVR-READERD_PACKAGE_CONTROL_EXTRA
  "${CMAKE_CURRENT_LIST_DIR}/debian/postinst;${CMAKE_CURRENT_LIST_DIR}/debian/postrm")

set(CPACK_DEBIAN_NVR-READERD-LAB_PACKAGE_NAME nvr-readerd-lab)
set(CPACK_DEBIAN_NVR-READERD-LAB_PACKAGE_SECTION video)
set(CPACK_DEBIAN_NVR-READERD-LAB_DESCRIPTION
"laboratory of nvr-readerd: a disk to break, and a benchmark
nvr-slowdisk and nvr-slow-disk make a disk that is as slow as one says, hangs
and fails on demand. nvr-bench measures readers of recordings on it, and on
real ones. Not for machines that record.")

set(CPACK_DEBIAN_LIBNVR-CLIENT_PACKAGE_NAME ${nvr_soname_package})
set(CPACK_DEBIAN_LIBNVR-CLIENT_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_LIBNVR-CLIENT_PACKAGE_MULTIARCH same)
# By hand: CPack makes neither of these; the scripts that call ldconfig, which it does make, do no harm beside the trigger.
file(WRITE ${PROJECT_BINARY_DIR}/debian/shlibs
  "libnvr-client ${PROJECT_VERSION_MAJOR} ${nvr_soname_package} (>= ${PROJECT_VERSION})\n")
file(WRITE ${PROJECT_BINARY_DIR}/debian/triggers "activate-noawait ldconfig\n")
set(CPACK_DEBIAN_LIBNVR-CLIENT_PACKAGE_CONTROL_EXTRA
  "${PROJECT_BINARY_DIR}/debian/shlibs;${PROJECT_BINARY_DIR}/debian/triggers")
set(CPACK_DEBIAN_LIBNVR-CLIENT_DESCRIPTION
"client library of nvr-readerd
With it a recorder or streamer reads recordings that a disk of its own never
sees: nvr-readerd reads them and hands them over through shared memory, with
deadlines that hold while the disk hangs. For C++20 and for C.")

set(CPACK_DEBIAN_LIBNVR-CLIENT-DEV_PACKAGE_NAME libnvr-client-dev)
set(CPACK_DEBIAN_LIBNVR-CLIENT-DEV_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_LIBNVR-CLIENT-DEV_PACKAGE_SUGGESTS libboost-dev)  # of nvr/asio.h
set(CPACK_DEBIAN_LIBNVR-CLIENT-DEV_PACKAGE_MULTIARCH same)
set(CPACK_DEBIAN_LIBNVR-CLIENT-DEV_PACKAGE_DEPENDS
  "${nvr_soname_package} (= ${PROJECT_VERSION}), libexpected-dev")
set(CPACK_DEBIAN_LIBNVR-CLIENT-DEV_DESCRIPTION
"client library of nvr-readerd, development files
What is needed to build programs on libnvr-client: headers for C++20 and C,
the static library, a CMake package, a pkg-config file and nvr-client(3).")
install(FILES ${PROJECT_SOURCE_DIR}/README.md DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/nvr-readerd)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/client/examples/ DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/libnvr-client-dev/examples
  COMPONENT libnvr-client-dev FILES_MATCHING PATTERN "reader.*" PATTERN "*.cpp")
include(CPack)
