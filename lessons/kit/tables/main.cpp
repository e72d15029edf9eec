// Writes the tables of the pages that hold measured numbers: `make tables`.
//
//   tables [--check]      in the root; --check: only says whether they are current
#include <cstring>
#include <iostream>

#include "../tool.h"
#include "tables.h"

int main(int argc, char** argv) {
  using namespace focus::kit;
  const bool check = argc == 2 && std::strcmp(argv[1], "--check") == 0;
  if (argc > 1 && !check) {
    const bool help = std::strcmp(argv[1], "--help") == 0 || std::strcmp(argv[1], "-h") == 0;
    (help ? std::cout : std::cerr)
        << "Writes the tables of measured numbers, in the root\n"
           "Usage: tables [--check]   (only say whether they are current)\n";
    return help ? 0 : 2;
  }
  return run_tool([&] { return write_tables(read_manifest("."), check); });
}
