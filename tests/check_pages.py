"""What a lesson's page names must be in that lesson's student tree.

    tests/check_pages.py KIT FOCUS [LESSON...]

For each lesson a tree is made (`kit start NN`), and in its page and its hints are looked up: links, files,
`make` targets, flags of `focus`, and names of functions, types and variables in code spans. A passage that
says "full checkout" may name what only the checkout has, and one that says "comes with lesson" what is not there yet.
A lesson that is named by its number, also in an instructor's notes, must exist or be planned in lessons/README.md. Last line: N passed, N failed.
"""
import json
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FILE = re.compile(r"^[\w./*-]+\.(h|cpp|cu|cuh|csv|md|py|sh|txt|svg|html|json|mk|tsv|safetensors)$")
ELSEWHERE = re.compile(r"full\s+checkout|comes\s+with\s+lesson")
NAME = re.compile(r"[A-Za-z_]\w*(?:(?:::|\.)[A-Za-z_]\w*)*")
# Words of C++, CUDA, the shell and the mathematics, and a reader's own, which no source needs to hold.
KNOWN = set("""float double int bool void auto const for while if else return true false struct class
    __global__ __device__ __host__ __shfl_sync __shfl_xor_sync __ballot_sync __match_any_sync
    __syncthreads __syncwarp __threadfence cudaMalloc cudaFree cudaMemcpy blockIdx threadIdx gridDim
    blockDim gdb print next break run git clone apt get install cd less std""".split())


def text_of(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def spans(page):
    """(code span or line of a block, its paragraph) of a page; figures' and formulas' text left out."""
    page = re.sub(r"\$\$.*?\$\$", "", page, flags=re.S)
    page = re.sub(r"^```\n.*?^```$", "", page, flags=re.S | re.M)  # drawings
    page = re.sub(r"\$[^$\n]+\$", "", page)
    paragraphs = re.split(r"\n\s*\n", page)
    for i, paragraph in enumerate(paragraphs):
        around = "\n\n".join(paragraphs[max(0, i - 1):i + 2])
        if paragraph.startswith("    "):
            before = paragraphs[i - 1] if i else ""
            for line in paragraph.split("\n"):
                yield line.split("  #")[0].strip(), before + line
        else:
            for span in re.findall(r"`([^`]+)`", paragraph):
                yield span.replace("\n", " "), around


class Tree:
    def __init__(self, folder, lesson):
        self.folder, self.lesson = folder, lesson
        self.files, words = set(), set()
        for where, folders, files in os.walk(folder):
            folders[:] = [f for f in folders if f not in ("build", "golden")]
            for name in files:
                path = os.path.relpath(os.path.join(where, name), folder)
                self.files.add(path)
                if re.search(r"\.(h|cpp|cu|cuh|csv|mk|sh|tsv)$|Makefile$", name):
                    words.update(re.findall(r"\w+", text_of(os.path.join(where, name))))
        self.words = words
        database = subprocess.run(["make", "-C", folder, "-pn", "NVCC=", "help"], capture_output=True,
                                  text=True, check=False).stdout
        self.targets = set(re.findall(r"^([\w./-]+):(?!=)", database, flags=re.M))

    def has_file(self, name):
        name = name.rstrip("/").removeprefix("./")
        pattern = re.compile(re.escape(name).replace(r"\*", "[^/]*"))
        return any(pattern.fullmatch(path) or path.endswith("/" + name) or path.startswith(name + "/")
                   or pattern.fullmatch(os.path.basename(path)) or f"/{name}/" in path
                   for path in self.files)


def flags_of(focus, cache={}):
    if not cache:
        commands = ["train", "resume", "predict", "show", "eval", "check", "study", "curves",
                    "stability", "surface", "text prepare", "text encode", "text decode", "generate",
                    "data generate", "data verify", "bench step", "bench attention", "bench one-launch", "bench device"]
        for command in commands:
            text = subprocess.run([focus, *command.split(), "--help"], capture_output=True, text=True,
                                  check=False).stdout
            cache[command] = set(re.findall(r"--[a-z][\w-]*", text))
        cache["study merge"] = cache["study compact"] = cache["study"]
    return cache


def fault_of_command(line, tree, focus):
    """What is wrong with a line that one could type, or None; NotImplemented if it is no command."""
    words = re.sub(r"^(?:[A-Z]+=\S+ )+|^\(gdb\).*", "", line).split()
    if not words:
        return NotImplemented if not line else None
    if words[0] == "make":
        for target in words[1:]:
            if "=" in target or target == "…" or "NN" in target:
                continue
            target = target.replace("build/debug/", "build/")
            if target not in tree.targets and not target.startswith("start-"):
                return f"there is no target {target}"
        return None
    if words[0] in ("focus", "build/focus"):
        flags = flags_of(focus)
        command = " ".join(words[1:3]) if " ".join(words[1:3]) in flags else " ".join(words[1:2])
        if len(words) == 1 or words[1].startswith("-"):
            return None
        if command not in flags:
            return f"focus has no command {words[1]}"
        wrong = [w for w in words if w.startswith("--") and w.split("=")[0] not in flags[command]]
        return f"focus {command} has no {wrong[0]}" if wrong else None
    return NotImplemented


def faults_of_page(page, tree, focus, folder):
    for line, around in spans(page):
        if ELSEWHERE.search(around):
            continue
        fault = fault_of_command(line, tree, focus)
        if fault is not NotImplemented:
            if fault:
                yield f"{line}: {fault}"
            continue
        if line.startswith("--"):
            if not any(line.split()[0].split("=")[0] in flags for flags in flags_of(focus).values()) \
                    and not any(line.split()[0] in text_of(os.path.join(tree.folder, f))
                                for f in tree.files if f.startswith(folder) and f.endswith(".cpp")):
                yield f"{line}: no command has this flag"
            continue
        if FILE.match(line) or re.match(r"^[\w.-]+/[\w./*-]*$", line):
            if not line.startswith(("out/", "work/", "build/")) and not tree.has_file(line):
                yield f"{line}: there is no such file"
            continue
        for name in NAME.findall(re.sub(r'"[^"]*"', "", line)):
            for word in re.split(r"::|\.", name):
                if len(word) > 2 and ("_" in word or word == line.rstrip("()")) \
                        and word not in KNOWN and word not in tree.words:
                    yield f"{line}: nothing is called {word}"
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page):
        path = os.path.normpath(os.path.join(folder, target))
        if path not in tree.files and not os.path.isdir(os.path.join(tree.folder, path)):
            passage = page[max(0, page.find(target) - 300):page.find(target) + 300]
            later = re.match(r"lessons/(\d\d)-", path)
            if later and later.group(1) > tree.lesson and os.path.exists(os.path.join(ROOT, path)):
                continue  # the way to a later lesson
            if not ELSEWHERE.search(passage):
                yield f"({target}): a link to what is not there"


def lessons_named(page, numbers):
    for match in re.finditer(r"[Ll]essons? (\d\d)((?:(?:, | and | to )\d\d)*)", page):
        for number in re.findall(r"\d\d", match.group(1) + match.group(2)):
            if number not in numbers:
                yield f"lesson {number}: there is none"


def main():
    kit, focus = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    only = sys.argv[3:]
    with open(os.path.join(ROOT, "lessons/manifest.json"), encoding="utf-8") as f:
        folders = [lesson["folder"] for lesson in json.load(f)["lessons"]]
    numbers = {folder[:2] for folder in folders}
    numbers.update(re.findall(r"planned, lesson (\d\d)", text_of(os.path.join(ROOT, "lessons/README.md"))))
    passed = failed = 0

    def told(what, faults):
        nonlocal passed, failed
        faults = sorted(set(faults))
        for fault in faults:
            print(f"FAILED  {what}: {fault}")
        failed += len(faults)
        passed += not faults
        if not faults:
            print(f"ok      {what}")

    with tempfile.TemporaryDirectory() as temporary:
        for folder in folders:
            if only and folder[:2] not in only:
                continue
            where = os.path.join("lessons", folder)
            page = text_of(os.path.join(ROOT, where, "README.md"))
            told(f"{where}: lessons that it names", lessons_named(page, numbers))
            notes = os.path.join(ROOT, where, "NOTES.md")
            if os.path.exists(notes):
                told(f"{where}/NOTES.md: lessons that it names", lessons_named(text_of(notes), numbers))
                commands = [line for line, _ in spans(text_of(notes)) if line.startswith("build/focus ")]
                told(f"{where}/NOTES.md: commands of focus", (
                    f"{line}: {fault}" for line in commands
                    if (fault := fault_of_command(line, None, focus)) is not None))
            if folder.startswith("00"):
                continue
            made = os.path.join(temporary, folder)
            subprocess.run([kit, "start", folder[:2], made], check=True, capture_output=True, cwd=ROOT)
            tree = Tree(made, folder[:2])
            told(f"{where}/README.md", faults_of_page(page, tree, focus, where))
            gaps = os.path.join(ROOT, where, "gaps")
            for name in sorted(os.listdir(gaps)) if os.path.isdir(gaps) else []:
                # Pseudocode and mistakes name what a student writes: hints are the prose.
                told(f"{where}/gaps/{name}", faults_of_page(
                    re.sub(r"^    .*\n", "\n", text_of(os.path.join(gaps, name)).split("## Mistake")[0],
                           flags=re.M), tree, focus, where))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
