// A panel as text, for terminals.
#pragma once

#include <string>

#include "report/figure.h"

namespace focus {

// Exactly max(height, 8) lines, each ending in a newline and at most max(width, 30) columns wide:
//
//   title
//   100 |              ***oooo     the plot, in plain ASCII: one glyph for each series; where two
//    50 |+#+#+o+#**             share a cell the columns take turns
//       +------------------
//        0      20      40
//          x label (and the y label)
//   o full  * topk(5)              the legend, as many lines as it needs
//
// The height does not depend on the data, so a caller can redraw the plot in place. Points that
// the axes cannot show (NaN, infinite, not positive on a logarithmic axis) are skipped; points
// outside a given range are not drawn. `colour` adds ANSI colours, which take no columns.
// Bands are not drawn.
std::string text_plot(const Panel& panel, int width, int height, bool colour);

}  // namespace focus
