"""Opens every page of the book in a browser, wide and light, narrow and dark (check_book.sh calls it).

    check_book.py BROWSER FOLDER [SCREENSHOTS]

The browser is driven over a pipe by the DevTools protocol: JSON messages that end in a zero byte,
file descriptor 3 to the browser, 4 from it. So this needs nothing but Python's own library.
"""
import base64, json, math, os, pathlib, random, shutil, subprocess, sys, tempfile, time

WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
TIMEOUT = 60  # seconds for one answer: a hung browser fails the check instead of hanging it


class Browser:
    def __init__(self, program):
        self.profile = tempfile.mkdtemp()
        from_us, to_browser = os.pipe()
        from_browser, to_us = os.pipe()

        def connect():  # in the child: the ends that the browser expects at 3 and 4
            a, b = os.dup(from_us), os.dup(to_us)
            os.dup2(a, 3), os.dup2(b, 4)

        self.process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--hide-scrollbars", "--remote-debugging-pipe", "--user-data-dir=" + self.profile,
             "about:blank"],
            preexec_fn=connect, close_fds=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(from_us), os.close(to_us)
        self.out, self.pipe = to_browser, from_browser
        os.set_blocking(self.pipe, False)
        self.buffer, self.last_id, self.session, self.events = b"", 0, None, []
        target = next(t for t in self.call("Target.getTargets")["targetInfos"]
                      if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=target["targetId"],
                                 flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")

    def receive(self):
        end = time.monotonic() + TIMEOUT
        while b"\0" not in self.buffer:
            try:
                chunk = os.read(self.pipe, 1 << 20)
                if not chunk:
                    raise RuntimeError("the browser has ended")
                self.buffer += chunk
            except BlockingIOError:
                if time.monotonic() > end:
                    raise RuntimeError("the browser does not answer")
                time.sleep(0.002)
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **params):
        self.last_id += 1
        message = {"id": self.last_id, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.last_id:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def open(self, path):
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self.receive())

    def evaluate(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                           awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description", expression))
        return answer["result"].get("value")

    def complaints(self):
        found = []
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(params["exceptionDetails"]["exception"].get("description", "exception"))
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
                found.append(" ".join(str(a.get("value")) for a in params["args"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(params["entry"]["text"] + " " + params["entry"].get("url", ""))
            elif method == "Network.requestWillBeSent":
                url = params["request"]["url"]
                if not url.startswith(("file:", "data:")):
                    found.append("asks the network for " + url)
        return found

    def screenshot(self):
        return self.call("Page.captureScreenshot", format="png")["data"]

    def colours(self, png):
        """How many different colours a picture has."""
        return self.evaluate("""(async () => {
            const image = new Image();
            image.src = "data:image/png;base64,%s";
            await image.decode();
            const canvas = new OffscreenCanvas(image.width, image.height), g = canvas.getContext("2d");
            g.drawImage(image, 0, 0);
            return new Set(new Uint32Array(g.getImageData(0, 0, image.width, image.height).data.buffer)).size;
        })()""" % png)

    def close(self):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)


# What a page says of itself: its links as written, its broken figures, and what sticks out of it.
# The width comes from us: a phone zooms out to what is too wide, and innerWidth grows with it.
PAGE = """((width) => ({
  links: [...document.querySelectorAll("a[href], link[href]")].map((a) => a.getAttribute("href")),
  ids: [...document.querySelectorAll("[id]")].map((e) => e.id),
  broken: [...document.images].filter((i) => !i.complete || !i.naturalWidth)
    .map((i) => i.alt || i.src.slice(0, 60)),
  overflow: Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) - width,
  unmarked: [...document.querySelectorAll(".scroll, .equation, .long, .figure")].filter((e) =>
      e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).backgroundImage === "none" &&
      getComputedStyle(e, "::after").content === "none")
    .slice(0, 3).map((e) => e.className + " " + e.textContent.trim().slice(0, 40)),
  wide: [...document.querySelectorAll("body *")].filter((e) =>
      e.getBoundingClientRect().right > width + 1 &&
      !e.parentElement.closest(".scroll, .figure, .equation, .long, pre"))
    .slice(0, 3).map((e) => e.tagName.toLowerCase() + " " + e.textContent.trim().slice(0, 40)),
  text: document.body.innerText.trim().length,
  raw: (() => {  // what no reader of markdown took for mathematics or a comment; code may hold it
    const text = document.body.cloneNode(true);
    text.querySelectorAll("code, pre, script, style").forEach((e) => e.remove());
    return text.textContent.match(/\\$[^$\\n]+\\$|<!--/g) || [];
  })(),
}))(%d)"""


def check_links(folder, page, found, ids):
    for link in found["links"]:
        if link.startswith(("https://", "http://", "data:")):
            continue
        path, _, anchor = link.partition("#")
        target = (folder / path).resolve() if path else page.resolve()
        if not target.is_file():
            yield f"a link to {link}, which is not there"
        elif anchor and target.suffix == ".html" and anchor not in ids[target]:
            yield f"a link to {link}: no such place on that page"


def check_recording():
    """The recorded page is its template with the data put in."""
    lesson = pathlib.Path("lessons/05-semantic-focus")
    before, after = (lesson / "attention.html").read_text().split("@DATA@")
    page = (lesson / "results/attention.html").read_text()
    if not page.startswith(before) or not page.endswith(after):
        yield "attention.html has changed since results/attention.html was recorded"


def check_attention(browser):
    picture = "[0, 1].map((v) => document.getElementById('map-' + v).toDataURL())"
    slider = "const e = document.getElementById('epoch');"
    before = browser.evaluate(picture)
    browser.evaluate(slider + "e.value = e.max; e.dispatchEvent(new Event('input'))")
    after = browser.evaluate(picture)
    for name, a, b in zip(("full", "top-k"), before, after):
        if a == b:
            yield f"the slider does not change what is drawn of {name}"
    words = "document.getElementById('query-title').textContent + document.getElementById('bars').innerText"
    first = browser.evaluate(words)
    browser.evaluate("document.getElementById('map-1').dispatchEvent("
                     "new KeyboardEvent('keydown', {key: 'ArrowDown'}))")
    if browser.evaluate(words) == first:
        yield "the arrow keys do not choose a query"
    browser.evaluate("document.querySelector('#block input').click()")
    if browser.evaluate(picture) == after:
        yield "the choice of a block does not change what is drawn"


def scores_numbers(s, k, epsilon, before):
    """What the page of scores shows, from lesson 14's formulas: kept weights, then the table."""
    order = sorted(range(len(s)), key=lambda j: (-s[j], j))
    kept, f = order[:k], [s[j] for j in order]
    full, sparse = ([math.exp(s[j] - f[0]) * (j in keys) for j in range(len(s))]
                    for keys in (order, kept))
    full, sparse = [x / sum(full) for x in full], [x / sum(sparse) for x in sparse]
    delta_s, delta_h, separation = f[0] - f[-1], f[0] - f[k - 1], f[k - 1] - f[k]
    movement = bound = 2 * math.tanh(epsilon / 2)
    # The page's scores are decimals: a tie is one up to their rounding.
    exchanged = [m for m in range(1, min(k, len(s) - k) + 1)
                 if f[k - m] - f[k + m - 1] <= 2 * epsilon + 1e-9]
    if exchanged:
        m, past = exchanged[-1], 2 * epsilon - separation
        others = [math.exp(-past)] * (k - m)
        if others and past < delta_h - 1e-9:
            others[0] = math.exp(delta_h - past)
        bound = min(2, movement + 2 * m / (m + sum(others)))
    return full + sparse, [
        delta_s, delta_h, separation, separation / 2, movement, bound,
        2 / (1 + (k - 1) * math.exp(delta_h)), 2 / (k - 1 + math.exp(delta_h)),
        sum(abs(a - b) for a, b in zip(sparse, before or sparse)),
        (delta_h + math.log(2 * (1 + 1 / max(separation, 1e-9)))) / max(delta_s, 1e-9)]


def check_scores_numbers(browser):
    random.seed(14)
    before = browser.evaluate("last = null")
    for trial in range(60):
        most = 120 if trial % 2 else 20
        s = [random.randint(-20, most) / 20 for _ in range(8)]
        k, epsilon = random.randint(1, 7), random.randint(0, 200) / 100
        if trial % 3 == 0:  # a tie, where it can be at the edge of the kept keys
            s[5] = s[2]
            k = min(7, 1 + sum(x > s[2] for x in s))
        if trial == 0:  # half the separation, where 2 * 0.15 < 0.4 - 0.1 in floating point
            s, k, epsilon = [2, 1.4, 0.9, 0.4, 0.1, -0.3, -0.8, -1.2], 4, 0.15
        bars, shown = browser.evaluate(
            f"(() => {{ {json.dumps(s)}.forEach((x, j) => {{ inputs[j].value = x; }});"
            f"document.getElementById('k').value = {k}; epsilon.value = {epsilon}; draw();"
            "const bars = (n) => inputs.map((i) => parseFloat("
            "i.parentElement.querySelectorAll('i')[n].style.width) / 100);"
            "return [bars(0).concat(bars(1)),"
            "[...numbers.rows].map((r) => parseFloat(r.cells[1].innerText))]; })()")
        weights, wanted = scores_numbers(s, k, epsilon, before)
        before = weights[8:]
        for what, got, right in (("bar", bars, weights), ("number", shown, wanted)):
            for n, (a, b) in enumerate(zip(got, right, strict=True)):
                # Shown with three decimals, from a thousand on with three digits.
                if not abs(a - b) <= 6e-4 + 6e-3 * abs(b) * (abs(b) >= 1000):
                    yield f"{what} {n + 1} of scores {s}, k {k}, epsilon {epsilon}: {a}, not {b}"


def check_scores(browser):
    numbers = "document.getElementById('numbers').innerText"
    before = browser.evaluate(numbers)
    browser.evaluate("{const e = document.querySelector('#keys input'); e.value = 5;"
                     "e.dispatchEvent(new Event('input'))}")
    moved = browser.evaluate(numbers)
    if moved == before:
        yield "a score that is dragged changes no number"
    browser.evaluate("document.getElementById('tie').click()")
    if "\t0.000" not in browser.evaluate(numbers).split("largest dropped")[1][:12]:
        yield "the tie has a separation"
    # As a reader does it: the arrow keys, then a finger.
    score = "document.querySelector('#keys input').value"
    browser.evaluate("document.querySelector('#keys input').focus()")
    at = browser.evaluate(score)
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key="ArrowLeft", code="ArrowLeft",
                     windowsVirtualKeyCode=37)
    if not float(browser.evaluate(score)) < float(at):
        yield "an arrow key does not move the score"
    left, top, width, height = browser.evaluate(
        "(r => [r.left, r.top, r.width, r.height])"
        "(document.querySelector('#keys input').getBoundingClientRect())")
    at = browser.evaluate(numbers)
    for kind, share in (("touchStart", 0.9), ("touchMove", 0.6), ("touchMove", 0.3),
                        ("touchEnd", None)):
        points = [{"x": left + width * share, "y": top + height / 2}] if share else []
        browser.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)
    if browser.evaluate(numbers) == at:
        yield "a finger does not move the score"
    browser.evaluate("document.getElementById('k').value = 2")
    browser.evaluate("document.getElementById('reset').click()")
    if browser.evaluate(numbers) != before:
        yield "the start does not come back"
    yield from check_scores_numbers(browser)


def main():
    folder, shots = pathlib.Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None
    pages = sorted(folder.glob("*.html"))
    passed = failed = 0

    def verdict(what, wrong):
        nonlocal passed, failed
        wrong = list(wrong)
        passed, failed = passed + (not wrong), failed + bool(wrong)
        for words in wrong:
            print(f"FAILED {what}: {words}")

    if len(pages) < 2:
        print(f"FAILED {folder}: {len(pages)} pages")
        failed += 1
    verdict("the recorded attention page", check_recording())
    browser = Browser(sys.argv[1])
    try:
        ids, seen = {}, {}
        for page in pages:
            browser.open(page)
            seen[page] = browser.evaluate(PAGE % 10000)
            ids[page.resolve()] = set(seen[page]["ids"])
        for page in pages:
            verdict(f"{page.name}, links", check_links(folder, page, seen[page], ids))
            verdict(f"{page.name}, text", [f"not rendered: {raw}" for raw in seen[page]["raw"]])
        # What is wide does not depend on colours, nor what is blank on the width: each once.
        for (name, (width, height)), scheme in zip(WIDTHS.items(), ("light", "dark")):
            browser.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                         deviceScaleFactor=1, mobile=name == "phone")
            browser.call("Emulation.setEmulatedMedia",
                         features=[{"name": "prefers-color-scheme", "value": scheme}])
            for page in pages:
                if page.stem.endswith("-notes") and name != "phone":
                    continue
                browser.open(page)
                found, png = browser.evaluate(PAGE % width), browser.screenshot()
                wrong = [f"a broken figure: {f}" for f in found["broken"]]
                if found["overflow"] > 0 or found["wide"]:
                    wrong.append(f"{found['overflow']} pixels wider than the screen: "
                                 + "; ".join(found["wide"]))
                wrong += [f"scrolls without a sign of it: {what}" for what in found["unmarked"]]
                # A page of text has hundreds of shades at its letters' edges.
                if found["text"] < 200 or not browser.colours(png) > 20:
                    wrong.append("the page is blank")
                if page.name.startswith("attention"):
                    wrong += check_attention(browser)
                if page.name == "scores.html":
                    wrong += check_scores(browser)
                wrong += browser.complaints()
                verdict(f"{page.name}, {name}, {scheme}", wrong)
                if shots:
                    os.makedirs(shots, exist_ok=True)
                    full = browser.call("Page.captureScreenshot", format="png",
                                        captureBeyondViewport=True)["data"]
                    pathlib.Path(shots, f"{page.stem}-{name}-{scheme}.png").write_bytes(
                        base64.b64decode(full))
    except RuntimeError as error:
        print(f"FAILED {error}")
        failed += 1
    finally:
        browser.close()
    skipped = int(os.environ.get("SKIPPED", "0"))
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed else 0


sys.exit(main())
