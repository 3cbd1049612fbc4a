"""A headless Chromium for tests and screenshots, driven by its DevTools protocol.

Debian's package `chromium` suffices. The browser resolves no name and gets its own profile, so that nothing leaves the
machine and nothing stays.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import websocket

SECONDS = 60


def program() -> str | None:
    """The browser of this machine, if there is one; `CHROMIUM` names another."""
    named = os.environ.get("CHROMIUM")
    return named or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One browser process and its connection."""

    def __init__(self, executable: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        command = [
            executable,
            "--headless=new",
            "--no-sandbox",  # root has no user namespace for it; the pages are the tests' own
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--remote-debugging-port=0",
            f"--user-data-dir={self._folder.name}",
        ]
        nowhere = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere)
        self._socket = websocket.create_connection(self._address(), timeout=SECONDS, suppress_origin=True)
        self._number = 0
        self._events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process and removes its profile."""
        self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    def _address(self) -> str:
        port = Path(self._folder.name) / "DevToolsActivePort"
        deadline = time.monotonic() + SECONDS
        while not port.is_file() or len(port.read_text().split()) < 2:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"Chromium did not start (exit code {self._process.poll()})")
            time.sleep(0.05)
        number, path = port.read_text().split()
        return f"ws://127.0.0.1:{number}{path}"

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Sends a command; returns its result and keeps the events that come before it."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message | ({"sessionId": session} if session else {})))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._events.append(answer)

    def wait(self, session: str, method: str) -> dict[str, Any]:
        """The next event of this name, also one that came already."""
        for event in self._events:
            if event.get("sessionId") == session and event["method"] == method:
                return event
        while True:
            event = json.loads(self._socket.recv())
            self._events.append(event)
            if event.get("sessionId") == session and event.get("method") == method:
                found: dict[str, Any] = event
                return found

    def events(self, session: str) -> list[dict[str, Any]]:
        """Everything that a page has reported so far."""
        return [event for event in self._events if event.get("sessionId") == session]

    def open(
        self, path: Path, *, width: int = 1200, height: int = 800, dark: bool = False, script: bool = True
    ) -> Page:
        """A new tab that has loaded a file."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, target)
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            page.call(f"{domain}.enable")
        page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        page.call("Emulation.setScriptExecutionDisabled", value=not script)
        page.call("Page.navigate", url=path.resolve().as_uri())
        self.wait(session, "Page.loadEventFired")
        return page


class Page:
    """A tab."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser, self._session, self._target = browser, session, target

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the DevTools protocol for this tab."""
        return self._browser.call(method, self._session, **parameters)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, promises awaited. The protocol may do so in a page without scripts."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description", "exception"))
        return answer["result"].get("value")

    def draw(self) -> None:
        """Waits until the page has been drawn: before that, what is drawn only in sight has no `innerText` and no roles."""
        self.run("new Promise(r => { requestAnimationFrame(() => requestAnimationFrame(r)); setTimeout(r, 10000); })")

    def press(self, key: str, code: int, text: str = "") -> None:
        """One key down and up."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text)

    def screenshot(self, *, whole: bool = True) -> bytes:
        """A PNG of the whole page, or of the window."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def pdf(self) -> bytes:
        """The page as it is printed."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=False)["data"])

    def problems(self) -> list[str]:
        """Errors and warnings of the console, exceptions, and issues such as violations of the policy."""
        self.run("0")  # what happened before has been reported when this is answered
        found = []
        for event in self._browser.events(self._session):
            said = event["params"]
            if event["method"] == "Log.entryAdded":
                found.append(said["entry"]["text"])
            elif event["method"] in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Audits.issueAdded"):
                found.append(json.dumps(said))
        return found

    def requests(self) -> list[str]:
        """Addresses that the page has asked for."""
        events = self._browser.events(self._session)
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def close(self) -> None:
        """Closes the tab."""
        self._browser.call("Target.closeTarget", targetId=self._target)
