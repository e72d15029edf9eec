"""Measured numbers in the texts: each must stand in a recording.

    tests/check_numbers.py

Looks at the pages' prose and tables that no program writes, for numbers with a unit of time or rate (ms, µs, s of a GPU's
table, TFLOP/s, TB/s, GB/s). Each has to be, rounded as it is shown, a number of a recorded file (cuda/results,
tests/pytorch/results, a lesson's results or predictions); ms there may be µs here. Ratios ("9.6 times") are
looked up where the paragraph names attention_h200.csv. What is worked out by hand in the text stands in tests/numbers_by_hand.txt, with the reason. Last line: N passed, N failed.
"""
import bisect
import glob
import os
import re
import sys

os.chdir(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NUMBER = re.compile(r"(?<![\w.,])(\d+(?: \d{3})*(?:\.\d+)?)((?:(?: and | to | or |, | against | instead of | / )\d+(?:\.\d+)?)*) ?"
                    r"(ms|µs|TFLOP/s|TB/s|GB/s)\b")


def recorded():
    values = set()
    for name in (glob.glob("cuda/results/*.csv") + glob.glob("tests/pytorch/results/*")
                 + glob.glob("lessons/*/predictions.csv")):
        # Learning curves hold every number there is.
        if name.endswith(".svg") or os.path.isdir(name) or "even_pairs_" in name and "seconds" not in name:
            continue
        with open(name, encoding="utf-8") as f:
            values.update(float(x) for x in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?:e-?\d+)?", f.read()))
    return sorted(values)


def stands_in(values, text, unit):
    if unit == "µs" and stands_in([1000 * v for v in values], text, "ms"):
        return True
    if unit == "TB/s" and stands_in([v / 1000 for v in values], text, "GB/s"):
        return True
    number = float(text.replace(" ", ""))
    half = 0.5 * 10 ** -(len(text.split(".")[1]) if "." in text else 0) * 1.0001
    at = bisect.bisect_left(values, number - half)
    return at < len(values) and values[at] <= number + half


def by_hand():
    known = {}
    with open("tests/numbers_by_hand.txt", encoding="utf-8") as f:
        for line in f:
            if line.strip() and not line.startswith("#"):
                page, number, _ = line.rstrip("\n").split("\t")
                known[page, number] = False
    return known


def main():
    values, known, passed, failed = recorded(), by_hand(), 0, 0
    for page in (["README.md", "cuda/README.md", "cuda/fast/README.md", "tests/pytorch/README.md"]
                 + sorted(glob.glob("lessons/[0-9]*/README.md") + glob.glob("lessons/[0-9]*/NOTES.md"))):
        with open(page, encoding="utf-8") as f:
            text = f.read()
        text = re.sub(r"<!-- table: .*?<!-- end of table -->", lambda m: "\n" * m.group(0).count("\n"), text, flags=re.S)
        text = text.replace("$", "")
        for match in NUMBER.finditer(text):
            for number in re.findall(r"\d+(?: \d{3})*(?:\.\d+)?", match.group(1) + match.group(2)):
                if (page, f"{number} {match.group(3)}") in known:  # though a recording may have it, too
                    known[page, f"{number} {match.group(3)}"] = True
                    passed += 1
                elif stands_in(values, number, match.group(3)):
                    passed += 1
                else:
                    line = text.count("\n", 0, match.start()) + 1
                    print(f"FAILED  {page}:{line}: {number} {match.group(3)} stands in no recording")
                    failed += 1
        for paragraph in re.split(r"\n\s*\n", text):
            for ratio in re.findall(r"(\d+\.\d+)\s+times", paragraph) if "attention_h200.csv" in paragraph else []:
                if stands_in(values, ratio, "times"):
                    passed += 1
                else:
                    print(f"FAILED  {page}: {ratio} times stands in no recording")
                    failed += 1
    for (page, number), used in known.items():
        if not used:
            print(f"FAILED  tests/numbers_by_hand.txt: {page} has no {number} any more")
            failed += 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
