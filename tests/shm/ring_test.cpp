// The rings: order, wrapping, what a hostile index does, and races under TSan (both ends in one mapping).
#include "shm/ring.h"

#include <catch2/catch.hpp>
#include <cstdint>
#include <limits>
#include <memory>
#include <thread>
#include <vector>

#include "shm/clock.h"
#include "shm/segment.h"

namespace nvr::shm {
namespace {

constexpr Geometry kGeometry{.streams = 2, .slots = 4};

// R and W in private memory, seen by both ends through the same addresses.
struct Memory {
  std::unique_ptr<std::byte[], void (*)(std::byte*)> r{allocate(kGeometry.read_bytes()), release};
  std::unique_ptr<std::byte[], void (*)(std::byte*)> w{allocate(kGeometry.write_bytes()), release};
  WritableView r_writable{r.get(), kGeometry};
  ReadableView r_readable{r.get(), kGeometry};
  WritableView w_writable{w.get(), kGeometry};
  ReadableView w_readable{w.get(), kGeometry};

  static std::byte* allocate(std::uint64_t bytes) {
    auto* const memory = static_cast<std::byte*>(::operator new (bytes, std::align_val_t{4096}));
    std::fill_n(memory, bytes, std::byte{0});
    return memory;
  }
  static void release(std::byte* memory) { ::operator delete (memory, std::align_val_t{4096}); }
};

TEST_CASE("motion: an index is believed by how far it moved, across the wrap") {
  CHECK(motion(5, 3, 4) == 2u);
  CHECK(motion(1, 0xffffffff, 4) == 2u);
  CHECK(motion(3, 3, 4) == 0u);
  CHECK(motion(7, 3, 4) == 4u);
  CHECK_FALSE(motion(8, 3, 4).has_value());
  CHECK_FALSE(motion(2, 3, 4).has_value());  // backwards
}

TEST_CASE("descriptor ring: delivers in order across the wrap of the index, and only what was published") {
  Memory memory;
  const std::uint32_t capacity = kGeometry.descriptor_capacity();
  DescriptorProducer producer(memory.r_writable.publication(0), memory.r_writable.descriptors(0), capacity,
                              kFirstIndex);
  DescriptorConsumer consumer(memory.r_readable.publication(0), memory.r_readable.descriptors(0), capacity,
                              kFirstIndex);
  std::uint64_t put = 0;
  std::uint64_t taken = 0;
  for (int round = 0; round < 100; ++round) {
    for (std::uint32_t i = 0; i < capacity - 1; ++i) producer.put({.generation = 1, .offset = put++});
    CHECK(consumer.look() == DescriptorConsumer::Look::kEmpty);
    producer.publish();
    while (consumer.look() == DescriptorConsumer::Look::kReady) REQUIRE(consumer.take().offset == taken++);
    REQUIRE(taken == put);
  }
}

TEST_CASE("descriptor ring: an index that moved too far is corrupt") {
  Memory memory;
  const std::uint32_t capacity = kGeometry.descriptor_capacity();
  DescriptorConsumer consumer(memory.r_readable.publication(0), memory.r_readable.descriptors(0), capacity,
                              0);
  memory.r_writable.publication(0).head.store(capacity + 1);
  CHECK(consumer.look() == DescriptorConsumer::Look::kCorrupt);
  memory.r_writable.publication(0).head.store(std::numeric_limits<std::uint32_t>::max());
  CHECK(consumer.look() == DescriptorConsumer::Look::kCorrupt);
}

TEST_CASE("return ring: gives numbers back in order, and refuses an index that moved too far") {
  Memory memory;
  ReturnProducer producer(memory.w_writable.credit(1), memory.w_writable.returns(1), kGeometry.slots,
                          kFirstIndex);
  ReturnConsumer consumer(memory.w_readable.credit(1), memory.w_readable.returns(1), kGeometry.slots,
                          kFirstIndex);
  std::uint32_t expected = 0;
  const auto expect_next = [&](std::uint32_t slot) { return slot == expected++ % kGeometry.slots; };
  for (std::uint32_t i = 0; i < 100; ++i) {
    producer.put(i % kGeometry.slots);
    if (i % 3 == 2) REQUIRE(consumer.take(expect_next));
  }
  REQUIRE(consumer.take(expect_next));
  CHECK(expected == 100);
  memory.w_writable.credit(1).return_tail.fetch_add(kGeometry.slots + 1);
  CHECK_FALSE(consumer.take([](std::uint32_t) { return true; }));
}

TEST_CASE("return ring: stops at the number that is objected to") {
  Memory memory;
  ReturnProducer producer(memory.w_writable.credit(0), memory.w_writable.returns(0), kGeometry.slots,
                          kFirstIndex);
  ReturnConsumer consumer(memory.w_readable.credit(0), memory.w_readable.returns(0), kGeometry.slots,
                          kFirstIndex);
  producer.put(0);
  producer.put(99);
  producer.put(1);
  std::vector<std::uint32_t> seen;
  CHECK_FALSE(consumer.take([&](std::uint32_t slot) {
    seen.push_back(slot);
    return slot < kGeometry.slots;
  }));
  CHECK(seen == std::vector<std::uint32_t>{0, 99});
}

TEST_CASE("command ring: carries every field, holds what a client may post, refuses too much motion") {
  Memory memory;
  CommandProducer producer(memory.w_writable.write_header(), memory.w_writable.commands(),
                           kGeometry.command_capacity(), kFirstIndex);
  CommandConsumer consumer(memory.w_readable.write_header(), memory.w_readable.commands(),
                           kGeometry.command_capacity(), kFirstIndex);
  for (int round = 0; round < 10; ++round) {
    for (std::uint32_t i = 0; i < kGeometry.command_capacity(); ++i)
      producer.put({.opcode = Opcode::kOpen,
                    .stream = i,
                    .generation = i + 1,
                    .priority = Priority::kExport,
                    .cache = CachePolicy::kDrop,
                    .flags = kOpenToEnd,
                    .recording = i + 2,
                    .begin = i + 3,
                    .end = i + 4});
    std::uint32_t next = 0;
    REQUIRE(consumer.take([&](const Command& command) {
      const std::uint32_t i = next++;
      return command.opcode == Opcode::kOpen && command.stream == i && command.generation == i + 1 &&
             command.priority == Priority::kExport && command.cache == CachePolicy::kDrop &&
             command.flags == kOpenToEnd && command.recording == i + 2 && command.begin == i + 3 &&
             command.end == i + 4;
    }));
    CHECK(next == kGeometry.command_capacity());
  }
  memory.w_writable.write_header().command_tail.fetch_add(kGeometry.command_capacity() + 1);
  CHECK_FALSE(consumer.take([](const Command&) { return true; }));
}

TEST_CASE("rings: two threads, a slot is never in two hands") {
  // The daemon's part lends slots with a value in them; the client's part checks the value and returns the
  // slot. TSan sees every access to slots, descriptors and return cells.
  Memory memory;
  const std::uint32_t capacity = kGeometry.descriptor_capacity();
  constexpr std::uint64_t kCount = 20'000;
  std::thread daemon([&] {
    DescriptorProducer descriptors(memory.r_writable.publication(0), memory.r_writable.descriptors(0),
                                   capacity, kFirstIndex);
    memory.w_writable.credit(0).return_tail.store(kFirstIndex);
    memory.r_writable.read_header().heartbeat.store(1);  // both ends' indices are set
    ReturnConsumer returns(memory.w_readable.credit(0), memory.w_readable.returns(0), kGeometry.slots,
                           kFirstIndex);
    std::uint64_t free = (1 << kGeometry.slots) - 1;
    for (std::uint64_t value = 0; value < kCount;) {
      REQUIRE(returns.take([&](std::uint32_t slot) {
        free |= std::uint64_t{1} << slot;
        return true;
      }));
      if (free == 0) {
        std::this_thread::yield();
        continue;
      }
      const auto slot = static_cast<std::uint32_t>(std::countr_zero(free));
      free &= ~(std::uint64_t{1} << slot);
      *reinterpret_cast<std::uint64_t*>(memory.r_writable.slot(0, slot)) = value;
      descriptors.put({.slot = static_cast<std::uint16_t>(slot), .offset = value++});
      descriptors.publish();
    }
  });
  while (memory.r_readable.read_header().heartbeat.load() == 0) std::this_thread::yield();
  DescriptorConsumer descriptors(memory.r_readable.publication(0), memory.r_readable.descriptors(0), capacity,
                                 kFirstIndex);
  ReturnProducer returns(memory.w_writable.credit(0), memory.w_writable.returns(0), kGeometry.slots,
                         kFirstIndex);
  std::uint64_t wrong = 0;
  for (std::uint64_t expected = 0; expected < kCount;) {
    const auto look = descriptors.look();
    if (look == DescriptorConsumer::Look::kCorrupt) {
      ++wrong;
      break;
    }
    if (look == DescriptorConsumer::Look::kEmpty) {
      std::this_thread::yield();
      continue;
    }
    const Descriptor descriptor = descriptors.take();
    wrong += descriptor.offset != expected ? 1 : 0;
    wrong += *reinterpret_cast<const std::uint64_t*>(memory.r_readable.slot(0, descriptor.slot)) != expected
                 ? 1
                 : 0;
    ++expected;
    returns.put(descriptor.slot);
  }
  daemon.join();
  CHECK(wrong == 0);
}

TEST_CASE("geometry: regions do not overlap, and words of different writers lie apart") {
  for (std::uint32_t streams : {1u, 2u, 3u, 16u, 256u}) {
    for (std::uint32_t slots : {2u, 8u, 64u}) {
      const Geometry g{streams, slots};
      REQUIRE(g.is_valid());
      CAPTURE(streams, slots);
      CHECK(g.publication_offset(0) == sizeof(ReadHeader));
      CHECK(g.slot_offset(0, 0) >= g.publication_offset(streams));
      CHECK(g.slot_offset(0, 0) % 4096 == 0);
      CHECK(g.slot_offset(streams - 1, slots - 1) + kSlotBytes == g.read_bytes());
      CHECK(g.publication_bytes() % kWriterDistance == 0);
      CHECK(g.credit_offset(0) >= g.command_offset() + g.command_capacity() * sizeof(CommandCell));
      CHECK(g.credit_offset(0) % kWriterDistance == 0);
      CHECK(g.credit_bytes() % kWriterDistance == 0);
      CHECK(g.credit_offset(streams) <= g.write_bytes());
      CHECK(g.command_capacity() >= 5 * streams);
      CHECK(g.descriptor_capacity() >= slots + 2);
    }
  }
  CHECK_FALSE(Geometry{0, 32}.is_valid());
  CHECK_FALSE(Geometry{257, 32}.is_valid());
  CHECK_FALSE(Geometry{1, 1}.is_valid());
  CHECK_FALSE(Geometry{1, 24}.is_valid());
  CHECK_FALSE(Geometry{1, 128}.is_valid());
}

}  // namespace
}  // namespace nvr::shm
