"""JupyterLab on copies of the notebooks, and a real Chromium that looks at nothing outside this machine."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import warnings
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from lablib.doctor import find_browser

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"
START_SECONDS, RUN_SECONDS = 60, 120
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},  # every cell stands in the page, seen or not
}
PLOT_DATA = """() => [...document.querySelectorAll('.js-plotly-plot')].map(plot => plot.data.map(trace =>
    ['visible', 'x', 'y', 'z'].map(key => {
        const value = trace[key];
        const plain = part => ArrayBuffer.isView(part) || Array.isArray(part) ? [...part].map(plain) : part;
        return JSON.stringify(plain(value && value._inputArray || value));
    }).join()).join()).join()"""
PLOT_PATHS = """() => [...document.querySelectorAll('.js-plotly-plot .main-svg :is(path, image)')]
    .map(drawn => drawn.getAttribute('d') ?? drawn.getAttribute('href')).join()"""  # image: a heatmap


class Lab:
    """A running JupyterLab server on ``folder``, reached at ``address`` with ``token``."""

    def __init__(self, folder: Path, private: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address, self.token = f"http://127.0.0.1:{port}", secrets.token_hex(16)
        self._log = (private / "jupyterlab.log").open("w")
        for name, setting in SETTINGS.items():
            path = private / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(setting))
        places = {
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "IPYTHONDIR": "ipython",
        }
        environment = os.environ | {name: str(private / place) for name, place in places.items()}
        environment |= {"PYTHONPATH": str(ROOT), "LABLIB_MODE": "quick", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ServerApp.ip=127.0.0.1"]
        command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--allow-root"]
        command += [f"--IdentityProvider.token={self.token}", f"--ServerApp.root_dir={folder}"]
        self.process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=self._log, stderr=subprocess.STDOUT
        )
        self._wait(private / "jupyterlab.log")

    def _wait(self, log: Path) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.address}/api/status?token={self.token}", timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        self.stop()
        raise RuntimeError(f"JupyterLab did not start in {START_SECONDS} s:\n{log.read_text()[-3000:]}")

    def stop(self) -> None:
        """End the server (and with it its kernels) by its own process."""
        self.process.terminate()
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()


class NotebookPage:
    """One notebook in the browser: run it, move its controls, read its numbers and its plots."""

    def __init__(self, page, lab: Lab) -> None:
        self.page, self._lab = page, lab
        self.patience = 20.0  # seconds that a plot or a readout has to change
        self.page_errors: list[str] = []
        self.outside: list[str] = []
        page.on("pageerror", lambda error: self.page_errors.append(str(error)))
        page.route(lambda url: not url.startswith((lab.address, "data:", "blob:")), self._refuse)

    def _refuse(self, route) -> None:
        self.outside.append(route.request.url)
        route.abort()

    def open(self, name: str) -> None:
        """Open a notebook in a fresh workspace and wait for its kernel."""
        self.page.goto(f"{self._lab.address}/lab/tree/{name}?reset&token={self._lab.token}")
        self.page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=START_SECONDS * 1000)
        # the status bar, since the execution indicator reads idle too early
        idle = "() => /\\| Idle/.test(document.querySelector('#jp-main-statusbar')?.innerText)"
        self._until(idle, START_SECONDS, "the kernel is not idle")

    def run_all(self) -> None:
        """Run every cell and wait until each has its number; a cell that raised is an error here too."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_text("Run All Cells", exact=True).click()
        done = """() => [...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')]
            .every(prompt => /\\[\\d+\\]/.test(prompt.innerText))"""
        self._until(done, RUN_SECONDS, "the cells do not all finish")
        raised = self.page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]')
        assert raised.count() == 0, raised.first.inner_text()

    def nudge(self, label: str, steps: int = 3, key: str = "ArrowRight") -> tuple[str, str]:
        """Move a slider by the keyboard; return its readout before and after."""
        slider = self._control(label)
        handle, readout = slider.locator(".noUi-handle"), slider.locator(".widget-readout")
        before = readout.inner_text()
        handle.scroll_into_view_if_needed()
        handle.focus()
        for _ in range(steps):
            handle.press(key)
        self._poll(lambda: readout.inner_text() != before, f"the readout of {label!r} stays at {before}")
        return before, readout.inner_text()

    def choose(self, label: str, option: str) -> None:
        """Choose from a drop-down list."""
        self._control(label).locator("select").select_option(label=option)

    def press(self, text: str) -> None:
        """Press a button of a widget."""
        self.page.locator(".jp-OutputArea button.widget-button", has_text=text).first.click()

    def wait_for_text(self, pattern: str) -> None:
        """Wait until the outputs contain ``pattern`` (a JavaScript regular expression)."""
        found = f"""() => [...document.querySelectorAll('.jp-OutputArea')]
            .some(output => new RegExp({json.dumps(pattern)}).test(output.innerText))"""
        self._until(found, RUN_SECONDS, f"no output says {pattern!r}")

    def show(self, label: str) -> None:
        """Scroll to a control."""
        self._control(label).first.scroll_into_view_if_needed()

    def bar_positions(self) -> list:
        """Return the x of every bar trace on the page, None where it has lost them."""
        script = """() => [...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => plot.data)
            .filter(trace => trace.type === 'bar').map(trace => trace.x ? [...trace.x] : null)"""
        return self.page.evaluate(script)

    def changing(self, act, what: str):
        """Return ``act()``; assert that with it the plots' data and drawn paths both change."""
        self.page.wait_for_selector(".js-plotly-plot .main-svg")
        data, paths = self.page.evaluate(PLOT_DATA), self.page.evaluate(PLOT_PATHS)
        assert data
        assert paths
        done = act()
        self._poll(
            lambda: self.page.evaluate(PLOT_DATA) != data, f"{what}: the data of the plot stay the same"
        )
        self._poll(lambda: self.page.evaluate(PLOT_PATHS) != paths, f"{what}: the picture stays the same")
        return done

    def click_plot(self, number: int, x: float, y: float) -> None:
        """Click plot ``number`` of the page at a fraction of the width and height of its first panel."""
        panel = self.page.locator(".js-plotly-plot").nth(number).locator(".nsewdrag").first
        panel.scroll_into_view_if_needed()
        box = panel.bounding_box()
        position = {"x": x * box["width"], "y": y * box["height"]}
        panel.hover(position=position, force=True)
        self.page.wait_for_timeout(300)  # plotly looks for the point under the mouse before it takes a click
        panel.click(position=position, force=True)

    def screenshot(self, name: str) -> None:
        """Store what stands on the page now."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")

    def _control(self, label: str):
        exact = self.page.get_by_text(label, exact=True)
        return self.page.locator(".widget-inline-hbox:visible, .widget-inline-vbox:visible").filter(
            has=self.page.locator(".widget-label").and_(exact)
        )

    def _until(self, condition: str, seconds: float, otherwise: str) -> None:
        self._poll(lambda: self.page.evaluate(condition), otherwise, seconds)

    def _poll(self, condition, otherwise: str, seconds: float | None = None) -> None:
        seconds = seconds or self.patience
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{otherwise} (for {seconds} s)"
            self.page.wait_for_timeout(100)


def _skip(reason: str) -> None:
    warnings.warn(f"THE BROWSER TEST DID NOT RUN: {reason}", pytest.PytestWarning, stacklevel=2)
    pytest.skip(f"THE BROWSER TEST DID NOT RUN: {reason}")


@pytest.fixture(scope="session")
def chromium():
    """A running Chromium; without one every browser test is skipped, with a warning line in the summary."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")  # the warning is for the reader, not a failure
        path = find_browser()
        if path is None:
            _skip("no Chromium or Chrome found; install one, or set LABLIB_CHROMIUM=PATH")
        try:
            from playwright.sync_api import sync_playwright
        except ImportError:
            _skip("playwright is not installed: pip install -c constraints.txt -e '.[test]'")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def notebooks_folder(tmp_path_factory):
    """Copies of the notebooks, so that nothing the browser saves reaches the tree.

    Of 04, 05 and 07 the code is kept that imports and that makes or shows the explorers; nbval runs the rest.
    """
    folder = tmp_path_factory.mktemp("lab") / "notebooks"
    shutil.copytree(ROOT / "notebooks", folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    kept = {"04": "explorer.box", "05": "explorer.box", "07": ".box"}
    for path, shown in [(path, kept[number]) for number in kept for path in folder.glob(f"{number}_*.ipynb")]:
        content = nbformat.read(path, as_version=4)
        first = next(cell for cell in content.cells if cell.cell_type == "code")
        content.cells = [
            cell
            for cell in content.cells
            if cell.cell_type == "markdown" or cell is first or shown in cell.source
        ]
        nbformat.write(content, path)
    return folder


@pytest.fixture(scope="session")
def lab(chromium, notebooks_folder, tmp_path_factory):
    """JupyterLab serving the copies; it needs the browser, so that none starts where there is no browser."""
    server = Lab(notebooks_folder, tmp_path_factory.mktemp("jupyter"))
    yield server
    server.stop()


@pytest.fixture
def notebook(chromium, lab, request):
    """A fresh page; afterwards, no script may have failed and no request may have left the machine.

    How the page stood at the end is kept as build/screenshots/NAME_OF_THE_TEST.png, after a failure too.
    """
    context = chromium.new_context(viewport={"width": 1500, "height": 1400})
    page = NotebookPage(context.new_page(), lab)
    yield page
    page.screenshot(request.node.name)
    context.close()
    assert page.page_errors == []
    assert page.outside == []


@pytest.fixture
def page(notebook, notebooks_folder, request):
    """A notebook of the ``CELLS`` of the test's file alone, run."""
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    cells = [new_code_cell(source) for source in request.module.CELLS.split("\n---\n")]
    name = f"{request.module.__name__.rpartition('.')[2]}.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), notebooks_folder / name)
    notebook.patience = 60.0  # several plots at once keep the page busy at first
    notebook.open(name)
    notebook.run_all()
    return notebook
