// focus generate: a text model goes on with a prompt.
#include <algorithm>
#include <cmath>

#include "cli/command.h"
#include "text/text_model.h"
#include "error.h"
#include "rng.h"

namespace focus {

namespace {

struct Generate {
  std::string checkpoint, prompt;
  int tokens = 100, threads = default_threads();
  double temperature = 1;
  uint64_t seed = 1;
};

int generate(const Generate& o) {
  TextModel text = load_text_model(o.checkpoint);
  std::vector<TokenId> tokens = text.tokenizer.encode(o.prompt);
  if (tokens.empty()) fail_input("--prompt is empty: what should the text begin with?");
  Workers workers(o.threads);
  Tape<float> tape(workers);
  print(o.prompt);
  for (int i = 0; i < o.tokens; ++i) {
    const std::vector<float> logits = text.next_logits(tape, tokens);
    if (!std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); }))
      fail_run(o.checkpoint, ": a logit of token ", i + 1, " is not a finite number");
    // Token number i draws its own random number: more tokens begin with the same ones.
    const double uniform = Rng(o.seed, Stream::analysis, uint32_t(i)).uniform();
    tokens.push_back(draw_token(logits, o.temperature, uniform));
    print(std::string(text.tokenizer.bytes_of(tokens.back())));
  }
  print("\n");
  return 0;
}

}  // namespace

void add_generate_command(CLI::App& focus) {
  const auto [generating, g] =
      add_command(focus, "generate", "go on with a prompt, token by token", generate);
  add_file(generating, "--checkpoint", "FILE", g.checkpoint, "a model trained with --task text")
      ->required();
  generating.add_option("--prompt", g.prompt, "the beginning of the text; any bytes")
      ->required()
      ->type_name("TEXT");
  add_whole(generating, "--tokens", g.tokens, 1, 1'000'000, "how many tokens to add");
  add_number(generating, "--temperature", g.temperature, 0, 1000,
             "divides the logits: below 1 likelier tokens, 0 always the likeliest");
  add_whole(generating, "--seed", g.seed, 0, largest_seed, "other seeds draw other tokens");
  add_threads(generating, g.threads);
  generating.footer(
      "Prints the prompt and what comes after it; the same seed gives the same bytes.\n"
      "The model sees its last window of tokens. A pooled model whose prompt is shorter than that "
      "sees the\nprompt repeated.\n"
      "Example: focus generate --checkpoint out/austen/seed-1/last.safetensors --prompt \"It is a "
      "truth\"");
}

}  // namespace focus
