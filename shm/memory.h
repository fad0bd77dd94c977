// The types that the rings and the wake protocol are templates over. The programs use SharedMemory;
// tests/proof runs the same code on a memory of its own, where it explores all that the C++ memory model
// allows.
#pragma once

#include "shm/protocol.h"

namespace nvr::shm {

// Memory as the programs have it. Any other `Memory` has types of the same names, with the same operations.
struct SharedMemory {
  using Word = shm::Word;
  using PublicationHeader = shm::PublicationHeader;
  using CreditHeader = shm::CreditHeader;
  using WriteHeader = shm::WriteHeader;
  // Places in the rings, ordered by an index.
  using CommandCell = shm::CommandCell;
  using ReturnCell = shm::Word;
  using DescriptorCell = shm::Descriptor;
};

}  // namespace nvr::shm
