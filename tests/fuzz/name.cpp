// Names of recordings, as people and programs write them.
#include <charconv>

#include "nvr/recording.h"
#include "tests/fuzz/target.h"

namespace nvr::test {
namespace {

void run(std::span<const std::byte> input, Judgement& judgement) {
  const std::string_view text = text_of(input);
  const auto id = RecordingId::parse(text);
  if (!id) {
    judgement.require(id.error().code == Code::kInvalidArgument, "refused with another code");
    return judgement.reach("refused");
  }
  const bool is_decimal = text.find('/') != std::string_view::npos;
  judgement.reach(is_decimal ? "decimal" : "hexadecimal");
  if (!is_decimal) judgement.require(file_name_of(*id) == text, "a file's name does not come back the same");
  judgement.require(RecordingId::parse(file_name_of(*id)) == *id, "the file's name is of another recording");
  judgement.require(RecordingId::parse(to_string(*id)) == *id, "the decimal name is of another recording");
  judgement.require(RecordingId::from_composite(id->composite()) == *id, "the composite id loses something");
}

}  // namespace

const FuzzTarget name_target = {"name", run, {"decimal", "hexadecimal", "refused"}};

}  // namespace nvr::test
