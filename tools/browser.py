"""A headless Chromium, driven by its DevTools protocol over a pipe: for tests, measurements and pictures of pages."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

INSTALL: Final = "apt-get install chromium"
_TIMEOUT: Final = 120.0
_KEYS: Final = {
    "Enter": 13,
    "Escape": 27,
    "ArrowUp": 38,
    "ArrowDown": 40,
    "Home": 36,
    "End": 35,
    "PageDown": 34,
    "Tab": 9,
}


class BrowserError(Exception):
    """The browser, or a script in the page, failed."""


def find() -> str | None:
    """Return the path of Chromium, or None."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One page in a headless Chromium without a network."""

    def __init__(self, program: str) -> None:
        self._folder = tempfile.mkdtemp(prefix="forge-browser-")
        commands, self._write = os.pipe()
        self._read, answers = os.pipe()
        # Chromium reads commands from descriptor 3 and writes answers to 4; ours are others, to overwrite none.
        its_ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (commands, answers)]
        shell = 'exec "$0" "$@" 3<&{} 4>&{}'.format(*its_ends)
        self._process = subprocess.Popen(
            [
                *("bash", "-c", shell, program),
                *("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"),
                *("--host-resolver-rules=MAP * ~NOTFOUND", "--hide-scrollbars", "--force-color-profile=srgb"),
                *("--disable-background-networking", "--disable-dev-shm-usage", "--lang=en-US"),
                *(f"--user-data-dir={self._folder}", "about:blank"),
            ],
            pass_fds=its_ends,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for end in (commands, answers, *its_ends):
            os.close(end)
        self._pending = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        """All events since the last `open`, such as exceptions in the page and requests that it made."""
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(each["targetId"] for each in targets if each["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the browser."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self._folder, ignore_errors=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._pending:
            if not select.select([self._read], [], [], _TIMEOUT)[0]:
                raise BrowserError(f"the browser has not answered for {_TIMEOUT:.0f} s")
            part = os.read(self._read, 1 << 20)
            if not part:
                raise BrowserError("the browser has ended")
            self._pending += part
        message, _, self._pending = self._pending.partition(b"\0")
        document: dict[str, Any] = json.loads(message)
        return document

    def open(self, file: Path, fragment: str = "") -> None:
        """Open a file, and wait until it is loaded."""
        self.events.clear()
        url = file.absolute().as_uri() + fragment
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=url)
        self._wait_for("Page.loadEventFired", after="Page.frameNavigated", url=url.partition("#")[0])

    def _wait_for(self, method: str, *, after: str, url: str) -> None:
        index, has_begun = 0, False
        while True:
            while index < len(self.events):
                event = self.events[index]
                index += 1
                if event.get("method") == after and event["params"]["frame"]["url"] == url:
                    has_begun = True
                elif has_begun and event.get("method") == method:
                    return
            self.events.append(self._receive())

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression in the page; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if details := answer.get("exceptionDetails"):
            raise BrowserError(str(details.get("exception", {}).get("description", details["text"])))
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key."""
        code = _KEYS.get(key) or ord(key.upper())
        text = {"Enter": "\r"}.get(key, "" if key in _KEYS else key)
        about = {"key": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text: str) -> None:
        """Type a text into what has the focus."""
        self.call("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """Click the middle of an element."""
        box = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'nearest'});"
            " const b = e.getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        self.move(*box)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def move(self, x: float, y: float) -> None:
        """Move the pointer."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def emulate(self, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Set the size of the window and the preferred colour scheme."""
        size = {"width": width, "height": height}
        self.call("Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, file: Path, *, whole: bool = False) -> None:
        """Write a picture of the page, as PNG."""
        options: Mapping[str, Any] = {"captureBeyondViewport": True} if whole else {}
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png", **options)["data"]))

    def pdf(self, file: Path) -> None:
        """Print the page."""
        data = self.call("Page.printToPDF", printBackground=True)["data"]
        file.write_bytes(base64.b64decode(data))

    @property
    def problems(self) -> list[str]:
        """Exceptions in the page, and errors in its log, since it was opened."""
        found = []
        for event in self.events:
            if event.get("method") == "Runtime.exceptionThrown":
                details = event["params"]["exceptionDetails"]
                found.append(str(details.get("exception", {}).get("description", details["text"])))
            elif event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
                found.append(str(event["params"]["entry"]["text"]))
        return found

    @property
    def requests(self) -> list[str]:
        """The addresses that the page asked for."""
        urls = [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith(("data:", "about:"))]
