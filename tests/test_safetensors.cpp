// Safetensors: what is written comes back, and hostile files are refused with one clear line.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>

#include "error.h"
#include "files/safetensors.h"

using namespace focus;
using doctest::Contains;

namespace {

// A file from a header and data, with a true header length.
std::string file_of(const std::string& header, size_t data_bytes = 0) {
  const uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + std::string(data_bytes, '\1');
}

std::string entry(const char* name, const char* dtype, const char* shape, const char* offsets) {
  return str("\"", name, "\":{\"dtype\":\"", dtype, "\",\"shape\":", shape,
             ",\"data_offsets\":", offsets, "}");
}

doctest::String message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const InputError& error) {
    const std::string message = error.what();
    CHECK(message.find('\n') == std::string::npos);
    CHECK(message.size() < 400);
    return message.c_str();
  }
  return "nothing was wrong";
}

doctest::String refusal(const std::string& bytes) {
  const doctest::String message = message_of([&] { Safetensors::parse(bytes, "w.safetensors"); });
  CHECK(message == Contains("w.safetensors: "));
  return message;
}

// The refusal of a header with the entries given.
doctest::String entries(const std::string& text, size_t data_bytes = 8) {
  return refusal(file_of("{" + text + "}", data_bytes));
}

}  // namespace

TEST_CASE("safetensors: every type, awkward shapes and settings come back") {
  Safetensors file;
  file.metadata = {{"k", "5"}, {"rate", "1e-05"}, {"quoted \"name\"", "line\nbreak, µ"}};
  file.add("bytes", {3}, std::vector<uint8_t>{1, 2, 255});
  file.add("weights", {2, 3}, std::vector<float>{1.5f, -0.0f, 3e38f, 4, 5, 1e-45f});
  file.add("scalar", {}, std::vector<double>{0.1});
  file.add("empty", {0, 7}, std::vector<float>{});
  file.add("ids", {1, 2, 1}, std::vector<int32_t>{-7, 2147483647});
  file.add("counter", {1}, std::vector<int64_t>{-(int64_t{1} << 40)});

  const std::string bytes = file.serialize();
  uint64_t header_bytes;
  std::memcpy(&header_bytes, bytes.data(), 8);
  CHECK(header_bytes % 8 == 0);
  const Safetensors back = Safetensors::parse(bytes, "copy");
  CHECK(back.metadata == file.metadata);
  CHECK(back.tensors().size() == 6);
  CHECK(back.values<uint8_t>("bytes") == std::vector<uint8_t>{1, 2, 255});
  CHECK(back.values<float>("weights", {2, 3}) == file.values<float>("weights"));
  CHECK(std::signbit(back.values<float>("weights")[1]));
  CHECK(back.values<double>("scalar", {}) == std::vector<double>{0.1});
  CHECK(back.values<float>("empty", {0, 7}).empty());
  CHECK(back.values<int32_t>("ids", {1, 2, 1}) == std::vector<int32_t>{-7, 2147483647});
  CHECK(back.values<int64_t>("counter")[0] == -(int64_t{1} << 40));
  CHECK(back.find("weight") == nullptr);
  // A second writing gives the same bytes: the order of the data is settled by then.
  CHECK(back.serialize() == bytes);
}

TEST_CASE("safetensors: half precision is decoded exactly") {
  Safetensors file;
  // 1, -2, the smallest subnormal 2^-24, the largest 65504, then infinity
  const std::vector<uint16_t> halves = {0x3c00, 0xc000, 0x0001, 0x7bff, 0x7c00};
  std::vector<std::byte> bytes(10);
  std::memcpy(bytes.data(), halves.data(), 10);
  file.add({"half", DType::F16, {5}, bytes});
  const std::vector<double> values = file.values<double>("half");
  CHECK(values == std::vector<double>{1, -2, 0x1p-24, 65504, INFINITY});
  const std::vector<uint16_t> brains = {0x3f80, 0xc049};  // 1, -3.140625
  bytes.resize(4);
  std::memcpy(bytes.data(), brains.data(), 4);
  file.add({"brain", DType::BF16, {2}, bytes});
  CHECK(file.values<float>("brain") == std::vector<float>{1, -3.140625f});
}

TEST_CASE("safetensors: what a reader asks for and does not get is named") {
  Safetensors file("run/last.safetensors");
  file.metadata = {{"k", "5"}, {"lr", "0.1"}, {"bad", "5 "}, {"huge", "1e999"}};
  file.add("w", {2, 3}, std::vector<float>(6, 1.0f));
  file.add("big", {2}, std::vector<double>{1, 1e300});
  file.add("broken", {3}, std::vector<float>{1, 2, std::nanf("")});
  file.add("ids", {1}, std::vector<int64_t>{int64_t{1} << 31});

  CHECK(message_of([&] { file.require("v"); }) == Contains("run/last.safetensors: tensor v"));
  CHECK(message_of([&] { file.require("w", {3, 2}); }) == Contains("has shape [2, 3], but [3, 2]"));
  CHECK(message_of([&] {
          file.require("w", {2, 3}, {DType::F64, DType::I64});
        }) == Contains("tensor w is of type F32, but F64 or I64"));
  CHECK(&file.require("w", {2, 3}, {DType::F64, DType::F32}) == file.find("w"));
  CHECK(message_of([&] { file.values<int32_t>("w"); }) == Contains("whole numbers"));
  CHECK(message_of([&] { file.values<float>("ids"); }) == Contains("floating-point numbers"));
  CHECK(message_of([&] { file.values<float>("big"); }) == Contains("element 1"));
  CHECK(file.values<double>("big")[1] == 1e300);
  CHECK(message_of([&] { file.values<int32_t>("ids"); }) == Contains("too large for 32 bits"));
  CHECK(message_of([&] { file.require_finite("broken"); }) == Contains("NaN at element 2"));
  file.require_finite("w");

  CHECK(file.integer_setting("k", 1, 5) == 5);
  CHECK(file.number_setting("lr") == 0.1);
  CHECK(message_of([&] { file.integer_setting("k", 1, 4); }) == Contains("from 1 to 4"));
  CHECK(message_of([&] { file.integer_setting("bad", 1, 9); }) == Contains("bad = '5 '"));
  CHECK(message_of([&] { file.integer_setting("lr", 0, 9); }) == Contains("whole number"));
  CHECK(message_of([&] { file.number_setting("huge"); }) == Contains("finite"));
  CHECK(message_of([&] { file.setting("heads"); }) == Contains("'heads' is missing"));
  CHECK_THROWS_AS(file.add("w", {1}, std::vector<float>{1}), std::logic_error);
  CHECK_THROWS_AS(file.add("x", {2}, std::vector<float>{1}), std::logic_error);
}

TEST_CASE("safetensors: a lying header length") {
  const std::string good = file_of("{}");
  CHECK_NOTHROW(Safetensors::parse(good, "f"));
  CHECK(refusal("") == Contains("only 0 bytes"));
  CHECK(refusal(good.substr(0, 7)) == Contains("only 7 bytes"));
  std::string bytes = good;
  bytes[0] = 3;
  CHECK(refusal(bytes) == Contains("claims 3 bytes, but 2 follow"));
  std::fill(bytes.begin(), bytes.begin() + 8, '\xff');
  CHECK(refusal(bytes) == Contains("claims 18446744073709551615 bytes"));
  std::fill(bytes.begin(), bytes.begin() + 8, '\0');
  CHECK(refusal(bytes) == Contains("not JSON"));
  const Safetensors::Limits small{.header_bytes = 1};
  CHECK(message_of([&] { Safetensors::parse(good, "f", small); }) == Contains("at most 1"));
}

TEST_CASE("safetensors: headers that are not what they must be") {
  for (const char* text :
       {"", " ", "{", "{}x", "{\"a\":}", "\xff\xfe", "{\"\xff\":1}", "\xef\xbb\xbf{}"}) {
    CHECK(refusal(file_of(text)) == Contains("not JSON"));
  }
  CHECK(refusal(file_of(std::string("{}\0\0", 4))) == Contains("not JSON"));
  for (const char* text : {"[]", "null", "7", "\"text\"", "[[1]]"}) {
    CHECK(refusal(file_of(text)) == Contains("not a JSON object"));
  }
  for (const char* open : {"[", "{\"a\":"}) {
    std::string deep;
    for (int i = 0; i < 10000; ++i) deep += open;
    CHECK(refusal(file_of(deep)) == Contains("nested too deeply"));
    CHECK(refusal(file_of("{\"w\":{\"shape\":" + deep)) == Contains("nested too deeply"));
  }
  const std::string a = entry("a", "U8", "[8]", "[0,8]");
  CHECK(entries(a + "," + a) == Contains("the key 'a' twice"));
  CHECK(entries(R"("a":{"shape":[8],"dtype":"U8","shape":[8],"data_offsets":[0,8]})") ==
        Contains("the key 'shape' twice"));
  CHECK(entries(R"("__metadata__":{"x":"1","x":"2"})", 0) == Contains("the key 'x' twice"));
  CHECK(entries(R"("__metadata__":{"epoch":5})", 0) == Contains("epoch is not a string"));
  CHECK(entries(R"("__metadata__":["epoch"])", 0) == Contains("__metadata__ is not"));
  CHECK(Safetensors::parse(file_of(R"({"__metadata__":null})"), "f").metadata.empty());
  CHECK(entries(entry("a\\u001b[2J", "U8", "[8]", "[0,8]")) == Contains("control characters"));
  CHECK(entries(entry("a\\u009b2J", "U8", "[8]", "[0,8]")) == Contains("control characters"));
  const std::string two = file_of("{" + a + "," + entry("b", "U8", "[0]", "[8,8]") + "}", 8);
  CHECK(Safetensors::parse(two, "f").tensors().size() == 2);
  const Safetensors::Limits one{.tensors = 0};
  CHECK(message_of([&] { Safetensors::parse(two, "f", one); }) == Contains("more than 0 tensors"));
}

TEST_CASE("safetensors: entries that lie about type, shape or place") {
  const auto one = [](const char* dtype, const char* shape, const char* offsets) {
    return entries(entry("w", dtype, shape, offsets));
  };
  CHECK_NOTHROW(Safetensors::parse(file_of("{" + entry("w", "F32", "[2]", "[0,8]") + "}", 8), "f"));
  CHECK(one("F8_E4M3", "[8]", "[0,8]") == Contains("the type F8_E4M3 is not known"));
  CHECK(one("F32", "[3]", "[0,8]") ==
        Contains("[3] of F32 takes 12 bytes, but data_offsets [0, 8]"));
  CHECK(one("F32", "[1]", "[0,8]") == Contains("takes 4 bytes"));
  CHECK(one("F32", "[2]", "[0,12]") == Contains("[0, 12] are not within the 8 bytes"));
  CHECK(one("F32", "[2]", "[8,0]") == Contains("not within"));
  CHECK(one("F32", "[2]", "[0]") == Contains("two numbers"));
  CHECK(one("F32", "[2]", "[0,8,8]") == Contains("two numbers"));
  for (const char* size : {"-2", "2.0", "\"2\"", "1e1", "9223372036854775808", "null", "true"}) {
    CHECK(one("F32", str("[", size, "]").c_str(), "[0,8]") == Contains("w: sizes must be whole"));
    CHECK(one("F32", "[2]", str("[0,", size, "]").c_str()) == Contains("w: data_offsets must be"));
  }
  CHECK(one("F32", "[4611686018427387904]", "[0,0]") == Contains("too large to count"));
  CHECK(one("U8", "[4294967296,4294967296]", "[0,0]") == Contains("too large to count"));
  CHECK(one("U8", "[1,1,1,1,1,1,1,1,8]", "[0,8]") == Contains("9 dimensions"));
  CHECK(entries(R"("w":{"dtype":"F32","shape":[2]})") == Contains("no proper data_offsets"));
  CHECK(entries(R"("w":{"dtype":"F32","shape":2,"data_offsets":[0,8]})") == Contains("shape"));
  CHECK(entries(R"("w":{"dtype":5,"shape":[2],"data_offsets":[0,8]})") == Contains("dtype"));
  CHECK(entries(R"("w":[0,8])") == Contains("tensor w: needs"));

  // Together the tensors must cover every byte once.
  const auto pair = [](const char* a, const char* b) {
    return entries(entry("a", "U8", "[4]", a) + "," + entry("b", "U8", "[4]", b), 12);
  };
  CHECK(pair("[0,4]", "[2,6]") == Contains("b begins at byte 2, but the one before it ends at 4"));
  CHECK(pair("[0,4]", "[0,4]") == Contains("b begins at byte 0"));
  CHECK(pair("[4,8]", "[8,12]") == Contains("a begins at byte 4"));
  CHECK(pair("[0,4]", "[8,12]") == Contains("b begins at byte 8"));
  CHECK(pair("[4,8]", "[0,4]") == Contains("4 bytes at the end"));
}

TEST_CASE("safetensors: files on disk") {
  namespace fs = std::filesystem;
  const fs::path folder = fs::temp_directory_path() / "focus-test-safetensors";
  fs::remove_all(folder);
  fs::create_directories(folder);
  Safetensors file;
  file.add("w", {3}, std::vector<float>{1, 2, 3});
  file.write(folder / "w.safetensors");
  file.metadata["epoch"] = "2";
  file.write(folder / "w.safetensors");
  const Safetensors back = Safetensors::read(folder / "w.safetensors");
  CHECK(back.setting("epoch") == "2");
  CHECK(back.values<float>("w") == std::vector<float>{1, 2, 3});
  CHECK(std::distance(fs::directory_iterator(folder), {}) == 1);  // no temporary file is left

  CHECK(message_of([&] { Safetensors::read(folder); }) == Contains("it is a folder"));
  CHECK(message_of([&] { Safetensors::read(folder / "none"); }) == Contains("No such file"));
  const Safetensors::Limits small{.file_bytes = 10};
  CHECK(message_of([&] { Safetensors::read(folder / "w.safetensors", small); }) ==
        Contains("more than 10 bytes"));
  CHECK(message_of([&] { file.write(folder / "none" / "w"); }) == Contains("create the folder"));
  CHECK(message_of([&] { file.write(folder); }) == Contains("it is a folder"));
  CHECK(message_of([&] { file.write("/dev/full"); }) == Contains("not a regular file"));
  fs::remove_all(folder);
}
