// Bad input of the attention kernels: a message with the numbers, and the device works afterwards.
#include "cuda/attention/c_interface.h"
#include "cuda_run.h"

using namespace focus;
using namespace focus::test;

namespace {

struct Small : KernelRun {
  Small(Pattern pattern, int kept, int D = 16)
      : KernelRun({1, 9, 2, D}, pattern, kept, 0, normal_numbers({1, 9, 2, D}, 1),
                  normal_numbers({1, 9, 2, D}, 2), normal_numbers({1, 9, 2, D}, 3),
                  normal_numbers({1, 9, 2, D}, 4)) {}
  // The message of the InputError, "" if there is none.
  std::string error(gpu::Pass pass = gpu::Pass::forward) {
    try {
      gpu::attention(pattern, pass, call);
    } catch (const InputError& error) {
      return error.what();
    }
    return "";
  }
};

bool has(const std::string& text, const std::string& part) {
  if (text.find(part) != std::string::npos) return true;
  MESSAGE(text);
  return false;
}

}  // namespace

TEST_CASE("cuda errors: shapes, settings, pointers") {
  Small topk(Pattern::topk, 5);
  CHECK(topk.error() == "");
  topk.call.k.T = 8;
  CHECK(has(topk.error(), "k has shape (1,2,8,16), q has (1,2,9,16)"));
  topk.call.k.T = 9, topk.call.kept = 10;
  CHECK(has(topk.error(), "k = 10 for topk attention must be between 1 and 9"));
  topk.call.kept = 0;
  CHECK(has(topk.error(), "k = 0"));
  topk.call.kept = 5, topk.call.keys = nullptr;
  CHECK(has(topk.error(), "keys has no memory"));
  topk.call.keys = topk.keys.data();
  topk.call.q.data = reinterpret_cast<float*>(reinterpret_cast<char*>(topk.q.data()) + 2);
  CHECK(has(topk.error(), "not a multiple of 4"));
  topk.call.q.data = topk.q.data(), topk.call.q.B = 0;
  CHECK(has(topk.error(), "at least 1"));
  topk.call.q.B = 1, topk.pattern = Pattern::random;
  CHECK(has(topk.error(), "random has no GPU kernels"));
  topk.pattern = Pattern::banded, topk.call.lse = nullptr;
  CHECK(has(topk.error(), "lse has no memory"));
  topk.call.lse = topk.lse.data(), topk.call.global_tokens = 5;
  CHECK(has(topk.error(), "must be between 1 and 4"));
  topk.call.global_tokens = 0, topk.call.d_o = {};
  CHECK(has(topk.error(gpu::Pass::backward), "d_o has shape (0,0,0,0)"));
}

TEST_CASE("cuda errors: a rung that does not support the call says why; the front takes another") {
  Small narrow(Pattern::full, 0, 12);
  narrow.call.rung = 4;
  CHECK(has(narrow.error(), "rung 4"));
  CHECK(has(narrow.error(), "width 12, not a multiple of 4 from 16 to 128"));
  CHECK(narrow.run(gpu::Pass::forward) == 2);

  Small topk(Pattern::topk, 5);
  topk.call.rung = 4;
  CHECK(has(topk.error(), "topk has no rung 4"));
  // 4 bytes beside a multiple of 16: the slow rungs read one number at a time.
  const Numbers numbers = normal_numbers({1, 9, 2, 16}, 5);
  const std::vector<float> floats = as<float>(numbers);
  gpu::DeviceArray<float> shifted(floats.size() + 1);
  gpu::copy_to_device(shifted.data() + 1, floats.data(), floats.size() * sizeof(float));
  topk.call.q.data = shifted.data() + 1;
  topk.call.rung = 9;
  CHECK(has(topk.error(), "not multiples of 16 bytes"));
  CHECK(topk.run(gpu::Pass::forward) == 7);
  topk.call.q.data = topk.q.data();
  CHECK(topk.run(gpu::Pass::forward) >= 16);  // 17 needs tensor cores
}

TEST_CASE("cuda errors: workspace, memory; the device works afterwards") {
  Small run(Pattern::full, 0);
  run.call.rung = 2;
  CHECK(has(run.error(), "rung 2 needs a workspace of 648 bytes, got 0"));
  CHECK_THROWS_WITH_AS(gpu::DeviceArray<float>(size_t{1} << 50),
                       doctest::Contains("out of GPU memory: 4503599627370496 bytes wanted"),
                       InputError);
  CHECK(run.run(gpu::Pass::forward) == 14);
  gpu::synchronize();
}

TEST_CASE("cuda: other languages' interface starts what attention() starts; errors as text") {
  for (const Pattern pattern : {Pattern::full, Pattern::topk, Pattern::banded}) {
    const Sizes sizes{2, 9, 3, 16};
    const int kept = pattern == Pattern::full ? 0 : 5;
    KernelRun runs[2]{{sizes, pattern, kept, 0, normal_numbers(sizes, 1), normal_numbers(sizes, 2),
                       normal_numbers(sizes, 3), normal_numbers(sizes, 4)},
                      {sizes, pattern, kept, 0, normal_numbers(sizes, 1), normal_numbers(sizes, 2),
                       normal_numbers(sizes, 3), normal_numbers(sizes, 4)}};
    KernelRun &own = runs[0], &other = runs[1];
    own.call.scores = nullptr;  // that interface has none
    for (gpu::Heads* x : {&own.call.q, &own.call.k, &own.call.v, &own.call.o, &own.call.d_o,
                          &own.call.dq, &own.call.dk, &own.call.dv})
      *x = gpu::heads_bhtd(x->data, sizes.B, sizes.H, sizes.T, sizes.D);
    const std::string name = name_of(pattern);
    for (const bool backward : {false, true}) {
      FocusAttentionCall c{name.c_str(),
                           backward,
                           sizes.B,
                           sizes.H,
                           sizes.T,
                           sizes.D,
                           kept,
                           0,
                           0,
                           other.q.data(),
                           other.k.data(),
                           other.v.data(),
                           other.o.data(),
                           other.lse.data(),
                           other.p.data(),
                           other.d_o.data(),
                           other.dq.data(),
                           other.dk.data(),
                           other.dv.data(),
                           other.keys.data(),
                           nullptr,
                           0,
                           nullptr};
      char message[100] = "";
      const long long bytes = focus_attention_workspace(&c, message, sizeof message);
      REQUIRE_MESSAGE(bytes >= 0, message);
      other.workspace = gpu::DeviceArray<float>(size_t(bytes + 3) / 4);
      c.workspace = other.workspace.data(), c.workspace_size = size_t(bytes);
      CHECK(focus_attention(&c, message, sizeof message) ==
            own.run(backward ? gpu::Pass::backward : gpu::Pass::forward));
      CHECK(std::string(message) == "");
    }
    gpu::synchronize();
    for (const auto x : {&KernelRun::o, &KernelRun::dq, &KernelRun::dk, &KernelRun::dv}) {
      CHECK((own.*x).host() == (other.*x).host());
      CHECK(std::isfinite((own.*x).host()[0]));
    }
  }
  FocusAttentionCall unknown{};
  unknown.pattern = "focused";
  char message[20];
  CHECK(focus_attention(&unknown, message, sizeof message) == -1);
  CHECK(std::string(message) == "attention 'focused'");
}

TEST_CASE("cuda: rows with a NaN score become NaN rows, others do not notice") {
  for (Pattern pattern : {Pattern::full, Pattern::topk, Pattern::banded, Pattern::block})
    for (const gpu::Rung& rung : gpu::ladder()) {
      if (rung.pass != gpu::Pass::forward || !rung.has_pattern(pattern)) continue;
      const Sizes s{1, 70, 1, 16};
      Numbers q = normal_numbers(s, 1);
      q[s.at(0, 3, 5)] = NAN;  // query 3 alone
      KernelRun run(s, pattern, pattern == Pattern::full ? 0 : 5, 0, q, normal_numbers(s, 2),
                    normal_numbers(s, 3), normal_numbers(s, 4));
      if (!run.supports(rung.number)) continue;  // those on tensor cores have tests of their own
      run.run(gpu::Pass::forward, rung.number);
      const std::vector<float> o = run.o.host();
      for (int i = 0; i < s.T; ++i)
        for (int c = 0; c < s.D; ++c)
          CHECK_MESSAGE(std::isnan(o[s.at(0, i, c)]) == (i == 3), "rung " << rung.number);
    }
}

TEST_CASE("cuda: a NaN key poisons every row that scores it, in every pattern") {
  for (Pattern pattern : {Pattern::full, Pattern::topk, Pattern::banded})
    for (const gpu::Rung& rung : gpu::ladder()) {
      if (rung.pass != gpu::Pass::forward || !rung.has_pattern(pattern)) continue;
      const Sizes s{1, 70, 1, 16};
      Numbers k = normal_numbers(s, 2);
      k[s.at(0, 66, 0)] = NAN;
      const int kept = pattern == Pattern::full ? 0 : 5;
      KernelRun run(s, pattern, kept, 0, normal_numbers(s, 1), k, normal_numbers(s, 3),
                    normal_numbers(s, 4));
      if (!run.supports(rung.number)) continue;  // those on tensor cores have tests of their own
      run.run(gpu::Pass::forward, rung.number);
      const std::vector<float> o = run.o.host();
      for (int i = 0; i < s.T; ++i) {
        const bool sees = pattern != Pattern::banded ||
                          reference_sees({.pattern = pattern, .k = kept}, s.T, i, 66);
        CHECK_MESSAGE(std::isnan(o[s.at(0, i, 0)]) == sees, "rung " << rung.number << " row " << i);
      }
      // The lists of such rows are keys that exist.
      if (pattern == Pattern::topk)
        for (int key : run.keys.host()) CHECK((key >= 0 && key < s.T));
    }
}

TEST_CASE("cuda: huge, tiny and infinite scores") {
  const Sizes s{1, 67, 1, 16};
  for (double size : {0x1p-66, 32.0, 0x1p13})  // powers of two keep products exact
    for (Pattern pattern : {Pattern::full, Pattern::topk, Pattern::banded}) {
      Numbers q = quarters(size_t(s.T * s.D), 1);
      const Numbers k = quarters(q.size(), 2), v = normal_numbers(s, 3), d_o = normal_numbers(s, 4);
      for (double& x : q) x = double(float(x * size));
      const int kept = pattern == Pattern::full ? 0 : 5;
      const AttentionSettings settings{.pattern = pattern, .k = kept};
      const AttentionResult wanted =
          reference_attention(s, q, k, v, reference_mask(settings, s, q, k), {}, 1, d_o);
      for (const gpu::Rung& rung : gpu::ladder()) {
        if (rung.pass != gpu::Pass::forward || !rung.has_pattern(pattern)) continue;
        KernelRun run(s, pattern, kept, 0, q, k, v, d_o);
        if (!run.supports(rung.number)) continue;  // those on tensor cores have tests of their own
        run.run(gpu::Pass::forward, rung.number);
        // A score of 1e5 is good to 1e-2 in float32; ties stay ties.
        CHECK(too_far(str(name_of(pattern), " rung ", rung.number, " size ", size), run.o, wanted.o,
                      size > 1000 ? 1e-3 : float_limit) == "");
      }
    }
  // A key with a score of minus infinity for every query weighs nothing; with plus infinity its
  // row cannot be computed and says so.
  for (double sign : {-1.0, 1.0})
    for (const gpu::Rung& rung : gpu::ladder()) {
      if (rung.pass != gpu::Pass::forward || rung.has_pattern(Pattern::block)) continue;
      const Pattern pattern = rung.has_pattern(Pattern::full) ? Pattern::full : Pattern::topk;
      Numbers q = normal_numbers(s, 1), k = normal_numbers(s, 2);
      for (int t = 0; t < s.T; ++t) q[s.at(0, t, 0)] = 1;
      k[s.at(0, 0, 0)] = sign * INFINITY;
      KernelRun run(s, pattern, pattern == Pattern::full ? 0 : 5, 0, q, k, normal_numbers(s, 3),
                    normal_numbers(s, 4));
      if (!run.supports(rung.number)) continue;  // those on tensor cores have tests of their own
      run.run(gpu::Pass::forward, rung.number);
      for (float x : run.o.host())
        CHECK_MESSAGE(std::isnan(x) == (sign > 0), "rung " << rung.number << " sign " << sign);
    }
}
