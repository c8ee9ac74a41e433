"""Just enough of the WebDriver protocol to click in a headless Chromium, over its own driver."""

import base64
import json
import re
import shutil
import subprocess
from contextlib import contextmanager
from urllib.request import Request, urlopen

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


class Browser:
    """One window."""

    def __init__(self, root: str, folder: str, width: int, height: int) -> None:
        options = {"args": [*FLAGS, f"--user-data-dir={folder}/profile"]}
        options["binary"] = shutil.which("chromium")
        self.address = root + "/session"
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        self.address += "/" + self.call("", wanted)["sessionId"]
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        command = {"cmd": "Emulation.setDeviceMetricsOverride", "params": size}
        self.call("/goog/cdp/execute", command)

    def call(self, path: str, data: dict | None = None, method: str = "POST"):
        body = None if data is None else json.dumps(data).encode()
        head = {"Content-Type": "application/json"}
        request = Request(self.address + path, body, head, method=method)  # noqa: S310
        with urlopen(request, timeout=120) as reply:  # noqa: S310
            return json.loads(reply.read())["value"]

    def open(self, path: str) -> None:
        self.call("/url", {"url": f"file://{path}"})

    def run(self, script: str):
        """Return what a script returns."""
        return self.call("/execute/sync", {"script": script, "args": []})

    def find(self, selector: str, place: int = 0) -> str:
        found = self.call("/elements", {"using": "css selector", "value": selector})
        return next(iter(found[place].values()))

    def click(self, selector: str, place: int = 0) -> None:
        self.call(f"/element/{self.find(selector, place)}/click", {})

    def type(self, selector: str, text: str) -> None:
        self.call(f"/element/{self.find(selector)}/value", {"text": text})

    def picture(self) -> bytes:
        return base64.b64decode(self.call("/screenshot", method="GET"))


@contextmanager
def browser(folder, width: int, height: int):
    """Start a driver and a window with a profile of its own in ``folder``; end both."""
    command = [shutil.which("chromedriver") or "chromedriver", "--port=0"]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        lines = iter(driver.stdout.readline, "")
        port = next(m[1] for m in (re.search(r"on port (\d+)\.", one) for one in lines) if m)
        window = Browser(f"http://127.0.0.1:{port}", str(folder), width, height)
        try:
            yield window
        finally:
            window.call("", method="DELETE")
    finally:
        driver.kill()
        driver.wait()
        driver.stdout.close()
