"""The Dagster UI in a browser: the graph with all groups, a materialised partition, and its plot."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cer_pipeline.zoo import Zoo

pytestmark = [pytest.mark.slow, pytest.mark.browser]
REPOSITORY = Path(__file__).resolve().parents[2]
CER = [sys.executable, "-c", "from cer_pipeline.cli import main; main()"]
START_S = 180.0
PAGE_S = 60.0
CHROMIUM_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1800,1000",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no browser: install the packages chromium and chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in CHROMIUM_FLAGS:
        options.add_argument(flag)
    opened = webdriver.Chrome(options=options, service=Service(driver))
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, media: Path, weights: Zoo) -> Iterator[str]:
    """The address of `cer ui` over a home in which one clip has been processed."""
    base = tmp_path_factory.mktemp("ui")
    (base / "clips").mkdir()
    shutil.copyfile(media / "single_face.mp4", base / "clips" / "single_face.mp4")
    env = os.environ | {"CER_HOME": str(base / "home"), "PYTHONPATH": str(REPOSITORY)}
    for words in (["corpus", "add", "ui", str(base / "clips")], ["run", "ui"]):
        subprocess.run([*CER, *words], env=env, cwd=REPOSITORY, check=True, capture_output=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [*CER, "ui", "--port", str(port)],
        env=env,
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait(lambda: answers(f"{address}/server_info"), START_S)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def wait(condition: Callable[[], Any], seconds: float = PAGE_S) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError(f"nothing within {seconds:.0f} s")


def text_of(browser: Any) -> str:
    return browser.execute_script("return document.body.innerText")


def test_the_graph_shows_all_groups(browser: Any, page: str) -> None:
    browser.get(f"{page}/asset-groups")
    groups = ("ingest", "perception", "features", "probabilities", "fusion", "predictions")
    assert wait(lambda: all(group in text_of(browser) for group in groups))


def test_a_materialised_partition_shows_its_numbers_and_its_plot(browser: Any, page: str) -> None:
    from selenium.webdriver.common.by import By

    browser.get(f"{page}/assets/probabilities/face_static?view=partitions&partition=ui-s000")
    shown = wait(lambda: text if "rows_by_status" in (text := text_of(browser)) else "")
    assert "Materialized" in shown
    assert "process_shard" in shown
    assert "data.parquet" in shown
    browser.find_elements(By.XPATH, "//*[text()='[Show Markdown]']")[-1].click()
    image = wait(lambda: browser.find_elements(By.CSS_SELECTOR, "img[src^='data:image/png']"))[0]
    wait(lambda: browser.execute_script("return arguments[0].naturalWidth", image) > 300)
    target = os.environ.get("CER_SCREENSHOTS")  # a folder to keep the pictures of docs/ in
    if target:
        browser.save_screenshot(str(Path(target) / "ui_partition.png"))


def test_a_run_of_the_command_line_is_listed(browser: Any, page: str) -> None:
    browser.get(f"{page}/runs")
    assert wait(lambda: "process_shard" in text_of(browser) and "Success" in text_of(browser))
