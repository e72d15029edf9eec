# Wrong versions of the lessons' core functions, kept in the source itself.
#
# A region is what a student writes in a lesson: 3 to 20 lines that are complete statements and
# declare nothing that later lines use (a function's body, a loop). Mutants are mistakes in it that
# the lesson's stage test must catch. All tags are comments, so ordinary builds ignore them:
#
#     //@ begin 05 select-row
#     //@ mutant ties-high: of equal scores the higher index wins
#     //~ for (; at > 0 && best[at - 1] <= s[j]; --at) {
#     for (; at > 0 && best[at - 1] < s[j]; --at) {
#       ...
#     }
#     //@ end
#
#   //@ begin NN name         a region of lesson NN
#   //@ mutant name: words    the next code line is wrong like this: it becomes the //~ lines that
#                             follow (none: it is deleted). Names are letters, digits and hyphens,
#                             and differ over the whole project.
#   //@ mutant(2) name: words the same for the next 2 code lines; mutant(0) inserts before the next
#   //@ end                   of the region
#
# Several mutants may stand above one line; each sees the region without the others' changes. A
# blank or comment line counts as a code line. Regions do not nest and work in headers, templates
# and lambdas, but not in macros. Keep tag lines within 100 columns: clang-format breaks longer ones.
#
#   awk -f tests/mutants.awk FILE              the file with all its mutants: each region becomes
#       if (focus_mutant("a")) { region with a } else if ... else { region }
#     where focus_mutant compares with the environment variable FOCUS_MUTANT, so that one build
#     holds every mutant of every lesson (tests/run_mutants.sh builds and runs it)
#   awk -v list=1 -f tests/mutants.awk FILES   one line each: lesson, region, mutant, place, words;
#     separated by tabs
#
# A malformed tag is reported with file and line, and the exit status is 1.

function fail(line, what) {
  print FILENAME ":" line ": " what | "cat 1>&2"
  failed = 1
}

function line_directive(line) { print "#line " line " \"" FILENAME "\"" }

# The region's code; with mutant m > 0 its lines are replaced.
function print_region(m,    i) {
  line_directive(code_line[1])
  for (i = 1; i <= lines; ++i) {
    if (m && i == first[m]) {
      line_directive(mutant_line[m])
      printf "%s", wrong[m]
      i += count[m]
      if (i > lines) break
      line_directive(code_line[i])
    } else if (i > 1 && code_line[i] != code_line[i - 1] + 1) {
      line_directive(code_line[i])
    }
    print code[i]
  }
}

function close_region(    m) {
  if (lines < 1 || lines > 20)
    fail(begin_line, "region '" region "' has " lines " lines of code, not 1 to 20")
  for (m = 1; m <= mutants; ++m) {
    if (first[m] + (count[m] ? count[m] - 1 : 0) > lines)
      fail(mutant_line[m], "mutant '" name[m] "' reaches beyond the end of its region")
    if (list)
      print lesson "\t" region "\t" name[m] "\t" FILENAME ":" mutant_line[m] "\t" words[m]
  }
  if (list || failed) return
  for (m = 1; m <= mutants; ++m) {
    print "if (focus_mutant(\"" name[m] "\")) {"
    print_region(m)
    print "} else"
  }
  print "{"
  print_region(0)
  print "}"
  line_directive(FNR + 1)
}

FNR == 1 && !list {
  print "#include \"focus_mutant.h\""
  line_directive(1)
}

/^[ \t]*\/\/@/ {
  tag = $0
  sub(/^[ \t]*\/\/@[ \t]*/, "", tag)
  if (tag ~ /^begin [0-9][0-9] [a-z0-9-]+$/) {
    if (inside) fail(FNR, "a region begins inside region '" region "'")
    split(tag, word, " ")
    lesson = word[2]
    region = word[3]
    begin_line = FNR
    inside = 1
    lines = mutants = taking = 0
  } else if (tag ~ /^mutant(\([0-9]+\))? [a-z0-9-]+: ./) {
    if (!inside) fail(FNR, "a mutant outside of a region")
    ++mutants
    count[mutants] = 1
    if (tag ~ /^mutant\(/) {
      count[mutants] = tag
      gsub(/^mutant\(|\).*$/, "", count[mutants])
      count[mutants] += 0
    }
    sub(/^[^ ]+ /, "", tag)
    name[mutants] = words[mutants] = tag
    sub(/:.*$/, "", name[mutants])
    sub(/^[^:]*: */, "", words[mutants])
    if (name[mutants] in seen) fail(FNR, "there is another mutant '" name[mutants] "'")
    seen[name[mutants]] = 1
    first[mutants] = lines + 1
    mutant_line[mutants] = FNR
    wrong[mutants] = ""
    taking = 1
  } else if (tag ~ /^end *$/) {
    if (!inside) fail(FNR, "an end without a begin")
    else close_region()
    inside = 0
  } else {
    fail(FNR, "unknown tag: begin NN name, mutant name: words, or end")
  }
  next
}

/^[ \t]*\/\/~/ {
  if (!inside || !taking) fail(FNR, "a //~ line that follows no mutant")
  replacement = $0
  sub(/\/\/~ ?/, "", replacement)
  wrong[mutants] = wrong[mutants] replacement "\n"
  next
}

inside {
  taking = 0
  code[++lines] = $0
  code_line[lines] = FNR
  next
}

!list

END {
  if (inside) fail(begin_line, "region '" region "' has no end")
  exit failed
}
