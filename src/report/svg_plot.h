// A figure as SVG or PNG, drawn by gnuplot.
//
// gnuplot is optional: without it there are still the text plots and metrics.csv.
//
// In svg_plot.cpp, gnuplot_script.cpp.
#pragma once

#include <filesystem>
#include <string>

#include "report/figure.h"

namespace focus {

enum class ImageKind { svg, png };

// Draws `figure` into `path`, whose extension (.svg or .png) says how; the folder must exist. The
// same figure gives the same bytes. One legend serves all panels. Returns false, with one sentence
// for the user in `why_not` (which may be null), when gnuplot is missing or fails. Throws
// InputError for another extension and when the path cannot be written.
bool write_figure(const Figure& figure, const std::filesystem::path& path, std::string* why_not);

// gnuplot's input: data and commands in one text; the picture goes to its standard output. Series
// are thinned to at most 400 points each, which is all one can see.
std::string gnuplot_script(const Figure& figure, ImageKind kind);

}  // namespace focus
