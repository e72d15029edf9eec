// From the bytes of a safetensors file to a Safetensors and back.
#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "error.h"
#include "files/printable.h"
#include "files/safetensors.h"

namespace focus {
namespace {

using Json = nlohmann::json;

constexpr char metadata_key[] = "__metadata__";

// A name from a file, fit for a message of one line.
std::string printable(const std::string& name) {
  return without_control(name.substr(0, 80));
}

// Parses one file's bytes; each member throws InputError that names `file`.
struct Parser {
  const std::string& file;
  const Safetensors::Limits& limits;

  template <class... Args>
  [[noreturn]] void fail(const Args&... args) const {
    fail_input(file, ": ", args..., "; the file is damaged or not safetensors");
  }

  // The JSON library would keep the last of two equal keys, and take any depth of nesting. A
  // tensor's shape is at depth 2, so whatever goes deeper is refused as soon as it opens.
  Json parse_header(std::string_view text) const {
    std::vector<std::set<std::string>> keys(4);
    const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
      const bool opens =
          event == Json::parse_event_t::object_start || event == Json::parse_event_t::array_start;
      if (opens && depth > 2) fail("the header is nested too deeply");
      if (event == Json::parse_event_t::object_start) keys[size_t(depth) + 1].clear();
      if (event == Json::parse_event_t::key) {
        const std::string& key = value.get_ref<const std::string&>();
        if (!keys[size_t(depth)].insert(key).second) {
          fail("the header has the key '", printable(key), "' twice");
        }
        if (depth == 1 && keys[1].size() > limits.tensors + 1) {
          fail("the header lists more than ", limits.tensors, " tensors");
        }
      }
      return true;
    };
    // The JSON library would skip a byte order mark and stop at a NUL.
    if (text.starts_with("\xef\xbb\xbf") || text.find('\0') != text.npos)
      fail("the header has bytes that are not JSON");
    try {
      return Json::parse(text.begin(), text.end(), watch);
    } catch (const Json::exception&) {
      fail("the header is not JSON");
    }
  }

  // A whole number that is not negative; `what` says of what.
  int64_t whole(const Json& value, const std::string& what) const {
    if (!value.is_number_unsigned() || !std::in_range<int64_t>(value.get<uint64_t>())) {
      fail(what, " must be whole numbers from 0 to 2^63 - 1");
    }
    return value.get<int64_t>();
  }

  struct Entry {
    StoredTensor tensor;  // without its bytes
    size_t begin, end;
  };

  Entry parse_entry(const std::string& name, const Json& json, size_t data_bytes) const {
    const std::string tensor = "tensor " + printable(name) + ": ";
    // Names end up in listings and messages, where a control character could do mischief.
    if (without_control(name) != name) fail(tensor, "the name has control characters");
    const auto member = [&](const char* key, Json::value_t type) -> const Json& {
      if (!json.is_object() || !json.contains(key) || json[key].type() != type) {
        fail(tensor, "needs dtype, shape and data_offsets, and has no proper ", key);
      }
      return json[key];
    };
    const std::string& type_name =
        member("dtype", Json::value_t::string).get_ref<const std::string&>();
    const Json& sizes = member("shape", Json::value_t::array);
    const Json& offsets = member("data_offsets", Json::value_t::array);

    const std::optional<DType> dtype = dtype_named(type_name);
    if (!dtype) {
      fail_input(file, ": ", tensor, "the type ", printable(type_name),
                 " is not known here; convert it to F32");
    }
    if (sizes.size() > limits.dimensions) {
      fail(tensor, "it has ", sizes.size(), " dimensions, more than ", limits.dimensions);
    }
    Shape64 shape;
    int64_t bytes = int64_t(bytes_of(*dtype));
    for (const Json& size : sizes) {
      shape.push_back(whole(size, tensor + "sizes"));
      if (__builtin_mul_overflow(bytes, shape.back(), &bytes)) {
        fail(tensor, "its shape is too large to count");
      }
    }
    if (offsets.size() != 2) fail(tensor, "data_offsets must be two numbers");
    const int64_t begin = whole(offsets[0], tensor + "data_offsets");
    const int64_t end = whole(offsets[1], tensor + "data_offsets");
    if (begin > end || size_t(end) > data_bytes) {
      fail(tensor, "data_offsets [", begin, ", ", end, "] are not within the ", data_bytes,
           " bytes of data");
    }
    if (end - begin != bytes) {
      fail(tensor, "shape ", shape_text(shape), " of ", type_name, " takes ", bytes,
           " bytes, but data_offsets [", begin, ", ", end, "] hold ", end - begin);
    }
    return {{name, *dtype, std::move(shape), {}}, size_t(begin), size_t(end)};
  }
};

}  // namespace

Safetensors Safetensors::parse(std::string_view bytes, const std::string& name,
                               const Limits& limits) {
  const Parser parser{name, limits};
  uint64_t header_bytes = 0;
  if (bytes.size() < sizeof header_bytes) parser.fail("it has only ", bytes.size(), " bytes");
  std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
  bytes.remove_prefix(sizeof header_bytes);
  if (header_bytes > bytes.size() || header_bytes > limits.header_bytes) {
    parser.fail("the header claims ", header_bytes, " bytes, but ", bytes.size(),
                " follow and at most ", limits.header_bytes, " are read");
  }
  const Json header = parser.parse_header(bytes.substr(0, header_bytes));
  if (!header.is_object()) parser.fail("the header is not a JSON object");
  const std::string_view data = bytes.substr(header_bytes);

  Safetensors result(name);
  std::vector<Parser::Entry> entries;
  for (const auto& [key, value] : header.items()) {
    if (key != metadata_key) {
      entries.push_back(parser.parse_entry(key, value, data.size()));
      continue;
    }
    if (value.is_null()) continue;  // as if it were not there
    if (!value.is_object()) parser.fail("__metadata__ is not a JSON object");
    for (const auto& [setting, text] : value.items()) {
      if (!text.is_string()) parser.fail("__metadata__: ", printable(setting), " is not a string");
      result.metadata[setting] = text.get<std::string>();
    }
  }

  // In the order of their data, each tensor must begin where the one before it ended.
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end, a.tensor.name) < std::tie(b.begin, b.end, b.tensor.name);
  });
  size_t covered = 0;
  for (Parser::Entry& entry : entries) {
    if (entry.begin != covered) {
      parser.fail("tensor ", printable(entry.tensor.name), " begins at byte ", entry.begin,
                  ", but the one before it ends at ", covered);
    }
    covered = entry.end;
    const auto* first = reinterpret_cast<const std::byte*>(data.data());
    entry.tensor.bytes.assign(first + entry.begin, first + entry.end);
    result.add(std::move(entry.tensor));
  }
  if (covered != data.size()) {
    parser.fail(data.size() - covered, " bytes at the end belong to no tensor");
  }
  return result;
}

std::string Safetensors::serialize() const {
  // Wider elements first, otherwise as added: then every tensor is aligned to its element, which
  // PyTorch's reader needs, without the holes that the format forbids.
  std::vector<const StoredTensor*> order;
  for (const StoredTensor& tensor : tensors_) order.push_back(&tensor);
  std::ranges::sort(order, {},
                    [](const StoredTensor* t) { return std::pair(-int(bytes_of(t->dtype)), t); });

  nlohmann::ordered_json::object_t header;
  if (!metadata.empty()) header.emplace_back(metadata_key, metadata);
  size_t end = 0;
  for (const StoredTensor* tensor : order) {
    const size_t begin = end;
    end += tensor->bytes.size();
    header.emplace_back(tensor->name, nlohmann::ordered_json{{"dtype", name_of(tensor->dtype)},
                                                             {"shape", tensor->shape},
                                                             {"data_offsets", {begin, end}}});
  }
  // A setting may hold bytes that are not UTF-8 (a path, say): they become replacement marks.
  std::string text = nlohmann::ordered_json(std::move(header))
                         .dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');

  const uint64_t header_bytes = text.size();
  std::string bytes(sizeof header_bytes, '\0');
  std::memcpy(bytes.data(), &header_bytes, sizeof header_bytes);
  bytes.reserve(bytes.size() + text.size() + end);
  bytes += text;
  for (const StoredTensor* tensor : order) {
    bytes.append(reinterpret_cast<const char*>(tensor->bytes.data()), tensor->bytes.size());
  }
  return bytes;
}

}  // namespace focus
