// What the kit's programs do about errors: one line, and the status.
#pragma once

#include <filesystem>
#include <iostream>

#include "error.h"
#include "files/atomic_file.h"

namespace focus::kit {

// 2: the user can help it; 1: not.
template <class Run>
int run_tool(const Run& run) {
  try {
    return run();
  } catch (const RunError& error) {
    std::cerr << error.what() << "\n";
    return 1;
  } catch (const std::filesystem::filesystem_error& error) {
    std::cerr << file_problem("cannot use", error.path1(), error.code().value()) << "\n";
    return 2;
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 2;
  }
}

}  // namespace focus::kit
