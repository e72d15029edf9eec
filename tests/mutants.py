#!/usr/bin/env python3
"""Which changes of the lessons' gaps does no stage test notice?

    tests/mutants.py NN [GAP...]       a lesson, or some of its gaps; in the root
    tests/mutants.py --list NN [GAP...]   the mutants, without running them
    tests/mutants.py --again LOG NN       those that survived in that output

Makes mutants of every gap: a comparison, an operator, a constant or a sign changed, a statement
dropped, two neighbouring arguments or both results of a choice swapped. All of a lesson's mutants
are compiled into one stage test, and the environment variable FOCUS_MUTANT chooses one, so that a
mutant costs a run and no compilation. What does not compile is no mutant.

A mutant that passes the test either shows what the test does not see, or computes the same. Those
that are known to, with the reason, are in tests/mutants.tsv: GAP<TAB>LINE<TAB>BECOMES<TAB>WHY. Exit
status 1 if others survive. Works in build/mutants.
"""
import concurrent.futures
import glob
import os
import pathlib
import re
import subprocess
import sys

SWAPS = {
    '<': ['<=', '>'], '<=': ['<', '>'], '>': ['>=', '<'], '>=': ['>', '<'], '==': ['!='], '!=': ['=='],
    '+': ['-'], '-': ['+'], '*': ['/'], '/': ['*'], '%': ['/'],
    '+=': ['-=', '='], '-=': ['+='], '*=': ['=', '/='], '/=': ['*='], '|=': ['='], '&=': ['|='],
    '&&': ['||'], '||': ['&&'], '&': ['|'], '|': ['&'], '>>': ['<<'], '<<': ['>>'],
}
OPERATOR = re.compile(r'(?<= )(<=|>=|==|!=|\+=|-=|\*=|/=|\|=|&=|&&|\|\||<<|>>|[-<>+*/%&|])(?= )')
NUMBER = re.compile(r'(?<![\w.])(\d+\.\d*|\d+)(f|u)?(?![\w.])')


def read_gaps(number):
    """[(file, gap name, first line's number, lines)] of a lesson."""
    gaps = []
    for path in sorted(glob.glob('src/**/*', recursive=True) + glob.glob('cuda/**/*', recursive=True)):
        if not path.endswith(('.h', '.cpp', '.cu', '.cuh')):
            continue
        gap = None
        for at, line in enumerate(open(path).read().split('\n'), 1):
            begin = re.match(r'\s*//@ gap (\d\d) ([a-z0-9-]+)', line)
            if begin:
                gap = (path, begin[2], at + 1, []) if begin[1] == number else None
            elif re.match(r'\s*//@ end', line):
                if gap:
                    gaps.append(gap)
                gap = None
            elif gap:
                gap[3].append(line)
    return gaps


def without_comment(line):
    at = line.find('//')
    return line if at < 0 else line[:at].rstrip()


def statements(lines):
    """(first, last) of statements that stand on lines of their own."""
    found, first, depth = [], None, 0
    for at, line in enumerate(lines):
        code = without_comment(line).strip()
        if not code or code.startswith('#'):
            continue
        if first is None:
            first, depth = at, 0
        depth += code.count('(') - code.count(')') + code.count('{') - code.count('}')
        if depth <= 0 and code.endswith(';'):
            found.append((first, at))
        if depth <= 0 and code.endswith((';', '{', '}')) or code.endswith('{'):
            first = None
    return found


def arguments(code):
    """(begin, end) of each argument of each call, grouped by call."""
    for call in re.finditer(r'[\w>]\(', code):
        depth, begin, parts = 0, call.end(), []
        for at in range(call.end(), len(code)):
            c = code[at]
            if c in '([{':
                depth += 1
            elif c in ')]}':
                if depth == 0:
                    parts.append((begin, at))
                    yield parts
                    break
                depth -= 1
            elif c == ',' and depth == 0:
                parts.append((begin, at))
                begin = at + 1


def mutants(lines):
    """Pairs of an index range of lines and what it becomes."""
    made = []
    for at, line in enumerate(lines):
        code = without_comment(line)
        if not code.strip() or code.strip().startswith('#'):
            continue
        def replace(begin, end, text):
            made.append((at, at, code[:begin] + text + code[end:]))
        for m in OPERATOR.finditer(code):
            for other in SWAPS.get(m[0], []):
                replace(m.start(), m.end(), other)
        for m in NUMBER.finditer(code):
            tail = m[2] or ''
            if '.' in m[1]:
                replace(m.start(), m.end(), repr(float(m[1]) * 1.01 + (float(m[1]) == 0)) + tail)
                continue
            value = int(m[1])
            for other in {value + 1, max(value - 1, 0)} - {value}:
                replace(m.start(), m.end(), str(other) + tail)
        for m in re.finditer(r'(?<=[(,=?:] )-(?=[\w(])|(?<=\()-(?=[\w(])|!(?=[\w(])', code):
            replace(m.start(), m.end(), '')
        for m in re.finditer(r'\b(true|false)\b', code):
            replace(m.start(), m.end(), 'false' if m[0] == 'true' else 'true')
        for parts in arguments(code):
            for (a, b), (c, d) in zip(parts, parts[1:]):
                if code[a:b].strip() != code[c:d].strip():
                    replace(a, d, code[c:d].strip() + ', ' + code[a:b].strip())
        choice = re.search(r'\? ([^?:;]+) : ([^?:;,)]+)', code)
        if choice:
            replace(choice.start(), choice.end(), '? ' + choice[2] + ' : ' + choice[1])
    for first, last in statements(lines):
        if not lines[first].strip().startswith('return'):  # the compiler finds that
            made.append((first, last, ';'))
    seen, unique = set(), []
    for one in made:
        if one not in seen:
            seen.add(one)
            unique.append(one)
    return unique


def words_of(gap, first, last):
    return ' '.join(without_comment(line).strip() for line in gap[3][first:last + 1])


def render(path, gaps, active):
    """The file, with every active mutant beside the code."""
    lines, out, at = open(path).read().split('\n'), ['#include "focus_mutant.h"'], 0
    for gap in sorted((g for g in gaps if g[0] == path), key=lambda g: g[2]):
        out.append('#line %d "%s"' % (at + 1, path))
        out += lines[at:gap[2] - 1]
        for number, (its_gap, first, last, text) in active.items():
            if its_gap is gap:
                out.append('if (focus_mutant == %d) {\n#line 1 "mutant-%d"' % (number, number))
                out += gap[3][:first] + [text] + gap[3][last + 1:]
                out.append('} else')
        out.append('{\n#line %d "%s"' % (gap[2], path))
        out += gap[3] + ['}']
        at = gap[2] - 1 + len(gap[3])
    out.append('#line %d "%s"' % (at + 1, path))
    return '\n'.join(out + lines[at:])


def main():
    args = [a for a in sys.argv[1:] if a != '--list']
    again = None
    if '--again' in args:
        at = args.index('--again')
        again = {tuple(re.sub(r'^(ALIVE|known) +', '', line).split('\t'))
                 for line in open(args[at + 1]).read().split('\n') if line.startswith(('ALIVE', 'known'))}
        del args[at:at + 2]
    if not args or args[0] in ('-h', '--help'):
        print(__doc__)
        return 2 if not args else 0
    number, names = args[0], args[1:]
    gaps = [g for g in read_gaps(number) if not names or g[1] in names]
    if not gaps:
        print('lesson', number, 'has no such gaps')
        return 2
    active = {}
    for gap in gaps:
        for first, last, text in mutants(gap[3]):
            if again is None or (gap[1], words_of(gap, first, last), text.strip()) in again:
                active[len(active) + 1] = (gap, first, last, text)
    if '--list' in sys.argv:
        for n, (gap, first, last, text) in active.items():
            print('%d %s:%d  %s  ->  %s' % (n, gap[0], gap[2] + first, words_of(gap, first, last),
                                            text.strip()))
        return 0

    tree = pathlib.Path('build/mutants') / number
    for folder in ('src', 'cuda'):
        for path in glob.glob(folder + '/**/*', recursive=True):
            if os.path.isfile(path):
                target = tree / path
                target.parent.mkdir(parents=True, exist_ok=True)
                text = open(path, 'rb').read()
                if path not in {g[0] for g in gaps} and (not target.exists() or target.read_bytes() != text):
                    target.write_bytes(text)
    (tree / 'src/focus_mutant.h').write_text(
        '#pragma once\n#include <cstdlib>\ninline const int focus_mutant = '
        'std::getenv("FOCUS_MUTANT") ? std::atoi(std::getenv("FOCUS_MUTANT")) : 0;\n')
    for link in ('tests', 'lessons'):
        if not (tree / link).exists():
            os.symlink('../../../' + link, tree / link)
    subprocess.run(['tests/reuse_objects.sh', str(tree)], check=True)
    stage = 'build/stage-' + number
    make = ['make', '-k', '--no-print-directory', '-C', str(tree), '-f', '../../../Makefile', 'NVCC=', 'WERROR=',
            'JOBS=' + os.environ.get('JOBS', str(os.cpu_count())),
            'FLAGS_release=-O1 -DNDEBUG -D_GLIBCXX_ASSERTIONS -w -fmax-errors=0', stage]
    made = len(active)
    for _ in range(12):
        for path in {g[0] for g in gaps}:
            (tree / path).write_text(render(path, gaps, active))
        done = subprocess.run(make, capture_output=True, text=True)
        if done.returncode == 0:
            break
        bad = {int(n) for n in re.findall(r'mutant-(\d+):\d+', done.stderr)} & set(active)
        if not bad:
            print(done.stdout[-3000:], done.stderr[-3000:])
            return 2
        for n in bad:
            del active[n]
    else:
        return 2
    print('lesson %s: %d mutants, %d more that do not compile' % (number, len(active), made - len(active)))

    def survives(n):
        env = dict(os.environ, FOCUS_MUTANT=str(n), FOCUS_SECONDS='10', MALLOC_PERTURB_='85')
        try:
            return subprocess.run([stage, '--no-colors', '--abort-after=1'], cwd=tree, env=env, timeout=600,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
        except subprocess.TimeoutExpired:
            return False
    if not survives(0):
        print('the stage test fails as it is')
        return 2
    harmless = set()
    if os.path.exists('tests/mutants.tsv'):
        for line in open('tests/mutants.tsv').read().split('\n'):
            harmless.add(tuple(line.split('\t')[:3]))
    with concurrent.futures.ThreadPoolExecutor(int(os.environ.get('JOBS', os.cpu_count()))) as pool:
        alive = [n for n, lives in zip(active, pool.map(survives, active)) if lives]
    new = 0
    for n in alive:
        gap, first, last, text = active[n]
        before = words_of(gap, first, last)
        known = (gap[1], before, text.strip()) in harmless
        new += not known
        print('%s %s\t%s\t%s' % ('known ' if known else 'ALIVE ', gap[1], before, text.strip()))
    print('%d of %d survive, %d of them not known to be harmless' % (len(alive), len(active), new))
    return 1 if new else 0


sys.exit(main())
