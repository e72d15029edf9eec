#!/bin/sh
# `make book`: README.md, the lessons, the pages on kernels and data, the instructors' pages and slides, as
# a site that needs no network.
#
#   lessons/book/make_book.sh [FOLDER]          FOLDER (default out/book) is replaced as a whole
#
# SOLUTIONS=no leaves out the code of the gaps and the instructors' pages: to hand out.
# KIT (default build/kit) is the program that knows the gaps of the source: a line
# <!-- code: NAME --> in a lesson becomes the folded code of region NAME.
set -u
cd "$(dirname "$0")/../.." || exit 2
out=${1:-out/book} kit=${KIT:-build/kit} here=lessons/book

if ! command -v pandoc > /dev/null; then
  echo "make book: pandoc is missing; get it with: apt-get install pandoc (Debian, Ubuntu) or brew install pandoc" >&2
  exit 2
fi
if [ -e "$out" ] && ! [ -e "$out/style.css" ]; then
  echo "make book: $out is there and holds no book: choose another folder, or remove it" >&2
  exit 2
fi
mkdir -p "$(dirname "$out")" && new=$(mktemp -d "$out.XXXXXX") || exit 2
code=$(mktemp -d) || exit 2
trap 'rm -rf "$new" "$code"' EXIT
trap 'exit 130' INT TERM

# In reading order: source, page.
attention=lessons/05-semantic-focus/results/attention.html
pages="README.md index.html lessons/README.md findings.html"
for readme in lessons/[0-9][0-9]-*/README.md; do
  folder=${readme%/README.md}
  pages="$pages $readme ${folder##*/}.html"
done
pages="$pages cuda/README.md kernels.html lessons/FINDINGS.md runs.html data/README.md data.html"
if [ "${SOLUTIONS:-yes}" != no ]; then
  pages="$pages lessons/TEACHING.md teaching.html"
  for notes in lessons/[0-9][0-9]-*/NOTES.md; do
    folder=${notes%/NOTES.md}
    pages="$pages $notes ${folder##*/}-notes.html"
  done
fi

title_of() { sed -n 's/^# *//p' "$1" | head -n 1; }

# --- the excerpts, first of all: a wrong name shall say where it stands ----------------------------

"$kit" excerpts "$code" || exit 2
set -- $pages
while [ $# -gt 0 ]; do
  grep -n '^<!-- code:' "$1" | sed 's/^\([0-9]*\):<!-- code: *\([^ ]*\) *-->.*/\1 \2/' > "$code/.names"
  while read -r line name; do
    if ! [ -f "$code/$name" ]; then
      echo "$1:$line: there is no gap '$name'; there are: $(ls "$code" | xargs)" >&2
      exit 2
    fi
  done < "$code/.names"
  shift 2
done

# --- what every page shows of the others ------------------------------------------------------------

# The book's table of contents.
list=$(
  set -- $pages
  while [ $# -gt 0 ]; do
    mark=
    case $1 in *NOTES.md) mark=' class="notes"' ;; esac
    printf '<li><a href="%s"%s>%s</a>' "$2" "$mark" "$(title_of "$1")"
    case $1 in
      lessons/14-*/README.md) printf '<ul><li><a href="scores.html">Scores to drag</a></li></ul>' ;;
      lessons/05-*/README.md) printf '<ul><li><a href="attention.html">What a query attends to</a></li></ul>' ;;
    esac
    echo '</li>'
    shift 2
  done
)
# list PAGE: the same, with the page marked.
list() { echo "$list" | sed "s|<a href=\"$1\"|& aria-current=\"page\"|"; }

# link PAGE WORDS: for previous and next; nothing for no page.
link() { [ -z "$1" ] || printf '<a href="%s" rel="%s"><small>%s</small> %s</a>' "$1" "$2" "$2" "$3"; }

# --- the pages ---------------------------------------------------------------------------------------

cp $here/style.css "$new/style.css"
sed 's|<!-- book: back -->|<p><a href="05-semantic-focus.html">← Lesson 05: semantic focus</a></p>|' \
  $attention > "$new/attention.html" || exit 2
sed 's|<!-- book: back -->|<p><a href="14-conditions.html">← Lesson 14: conditions</a></p>|' \
  lessons/14-conditions/scores.html > "$new/scores.html" || exit 2

# A screen for each lesson, to project: its question, its figure, what was measured.
{
  echo "# Slides"
  for readme in lessons/[0-9][0-9]-*/README.md; do
    folder=${readme%/README.md} && name=${folder##*/}
    printf '\n## %s\n\n' "$(title_of "$readme")"
    awk '/^\*\*Question\.\*\*/ {on = 1} on && /^$/ {exit} on' "$readme"
    [ ! -f "$folder/results/figure.svg" ] || printf '\n![Its figure](%s/results/figure.svg)\n' "$name"
    printf '\nMeasured: %s\n' "$(grep -F "(lessons/$name/README.md)" README.md | grep '^| \[' | cut -d '|' -f 5)"
  done
} > "$code/.slides.md"
BOOK_PAGES=$pages BOOK_SOURCE=lessons/slides.md BOOK_CODE=$code BOOK_ATTENTION=$attention \
  pandoc --from gfm+tex_math_dollars --to html5 --mathml --standalone --fail-if-warnings --section-divs \
  --template $here/template.html --lua-filter $here/filter.lua --metadata pagetitle="Slides" \
  --variable slides=1 --output "$new/slides.html" "$code/.slides.md" || exit 1

previous= previous_title=
set -- $pages
while [ $# -gt 0 ]; do
  source=$1 page=$2 title=$(title_of "$1")
  shift 2
  next=${2:-} next_title=
  [ $# -eq 0 ] || next_title=$(title_of "$1")
  BOOK_PAGES=$pages BOOK_SOURCE=$source BOOK_CODE=$code BOOK_ATTENTION=$attention \
    pandoc --from gfm+tex_math_dollars --to html5 --mathml --standalone --fail-if-warnings \
    --template $here/template.html --lua-filter $here/filter.lua --toc --toc-depth 2 \
    --metadata pagetitle="$title" --variable pages="$(list "$page")" \
    --variable previous="$(link "$previous" previous "$previous_title")" \
    --variable next="$(link "$next" next "$next_title")" \
    ${previous:+--variable inner=1} --output "$new/$page" "$source" || {
    echo "make book: $source could not be rendered" >&2
    exit 1
  }
  previous=$page previous_title=$title
done

rm -rf "$out" && mv "$new" "$out" && chmod 755 "$out" || exit 2
echo "open in a browser: $out/index.html"
