"""The captioner `endpoint` against a server on loopback that speaks the OpenAI protocol, well and badly."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cer_pipeline import tables
from cer_pipeline.errors import CerError
from cer_pipeline.labels import BASIC, COMPOUND
from cer_pipeline.perception.captions.endpoint.client import (
    AnswerCache,
    ChatClient,
    EndpointError,
    Limits,
    WrongModel,
    health,
    same_model,
)
from cer_pipeline.perception.captions.prompts import PROMPTS, view_name
from cer_pipeline.perception.captions.quality import Answer, assess, labels_in
from cer_pipeline.perception.captions.specs import captions_stage
from cer_pipeline.perception.jpeg import decode_jpeg
from cer_pipeline.profiles import Profile, load_profile
from cer_pipeline.stage import StageContext
from cer_pipeline.store.fingerprint import stage_fingerprint
from tests.helpers.chat_server import CAPTION, MODEL, Server, answer
from tests.helpers.memory_inputs import MemoryInputs, NoWeights, rows, segment


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(*args: Any, **kwargs: Any) -> Server:
        started.append(Server(*args, **kwargs))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def profile(server: Server | str, *overrides: str) -> Profile:
    url = server if isinstance(server, str) else server.url
    quick = ("captions.backoff_s=0.01", "captions.retries=2", "captions_endpoint.prompts=['prompt1']")
    return load_profile(overrides=["captions.backend=endpoint", f"captions.url={url}", *quick, *overrides])


def shard(windows: int = 3, pictures: bool = True, width: int = 64) -> MemoryInputs:
    """A video of some windows with pictures, each of another grey level."""
    segments = [
        segment("v", i) | {"start_s": 2.0 * i, "end_s": 2.0 * i + 4, "first_sample": 10 * i, "samples": 20}
        for i in range(windows)
    ]
    frames: list[dict[str, Any]] = []
    for k in range(10 * windows + 10):
        image = cv2.imencode(".jpg", np.full((width * 9 // 16, width, 3), 3 * k % 256, np.uint8))[1].tobytes()
        frame = {"video_id": "v", "sample": k, "time_s": k / 5, "height": 360}
        frames.append(frame | ({"jpeg": image} if pictures else {"status": "no_video"}))
    return MemoryInputs({"segments": rows(tables.SEGMENTS, segments), "frames": rows(tables.FRAMES, frames)})


def captions(profile: Profile, inputs: MemoryInputs | None = None) -> tuple[list[dict[str, Any]], Counter[str]]:
    """The rows of the stage, and its counters."""
    inputs = inputs or shard()
    spec = captions_stage(profile)
    context = StageContext(profile=profile, weights=NoWeights(), inputs=inputs)
    table = spec.load()(context)(spec.plan(inputs, profile))
    assert table.schema.equals(tables.CAPTIONS.schema)
    return table.to_pylist(), context.counters


def outcomes(made: list[dict[str, Any]]) -> set[tuple[str, str | None]]:
    return {(row["status"], row["reason"]) for row in made}


def test_every_window_and_prompt_has_a_caption_of_its_own_pictures(serve: Callable[..., Server]) -> None:
    server = serve()
    two = profile(server, "captions_endpoint.prompts=['prompt1', 'prompt2']")
    made, counters = captions(two, shard(width=640))
    assert [(r["segment"], r["view"]) for r in made] == [
        (i, f"qwen2.5-vl-7b_{prompt}") for i in range(3) for prompt in ("prompt1", "prompt2")
    ]
    assert {(r["text"], r["prompt"], r["model"], r["status"]) for r in made} == {
        (CAPTION, "prompt1/1", MODEL, "ok"),
        (CAPTION, "prompt2/1", MODEL, "ok"),
    }
    assert counters["captions/prompt_tokens"] == 600 and counters["captions/completion_tokens"] == 120
    assert counters["calls/captions_endpoint"] == counters["captions/ok"] == 6
    contents = [p["messages"][0]["content"] for p in server.payloads]
    assert {len(content) for content in contents} == {21}
    assert sum("exactly one label" in content[-1]["text"] for content in contents) == 3
    url = contents[0][0]["image_url"]["url"]
    assert url.startswith("data:image/jpeg;base64,")
    data = np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8)
    assert np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)).shape == (252, 448, 3)
    assert len({json.dumps(content) for content in contents}) == 6


def test_captions_do_not_depend_on_the_order_of_the_answers(serve: Callable[..., Server]) -> None:
    def echo(_: Server, payload: dict[str, Any], index: int) -> tuple[int, Any]:
        time.sleep(0.15 - 0.03 * min(index, 4))  # the first request is answered last
        digest = sum(len(part["image_url"]["url"]) for part in payload["messages"][0]["content"][:-1])
        return 200, answer(f"{CAPTION} {digest}")

    slow, _ = captions(profile(serve(echo)), shard(5))
    one, _ = captions(profile(serve(echo), "captions.connections=1"), shard(5))
    assert [r["text"] for r in slow] == [r["text"] for r in one]


def test_no_more_requests_run_at_a_time_than_connections(serve: Callable[..., Server]) -> None:
    def slow(*_: Any) -> tuple[int, Any]:
        time.sleep(0.2)
        return 200, answer()

    server = serve(slow)
    captions(profile(server, "captions.connections=3"), shard(9))
    assert server.most_active == 3


def test_no_answer_is_paid_for_twice_and_a_dead_server_is_not_needed_for_kept_ones(
    serve: Callable[..., Server],
) -> None:
    server = serve()
    first, _ = captions(profile(server))
    server.stop()
    again, counters = captions(profile("http://127.0.0.1:9/v1"))
    assert again == first
    assert counters["captions/from_cache"] == 3 and not counters["calls/captions_endpoint"]
    other, counters = captions(profile(serve(), "captions_endpoint.max_tokens=100"))
    assert counters["calls/captions_endpoint"] == 3 and len(other) == 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(status: int, serve: Callable[..., Server]) -> None:
    server = serve(lambda _s, _p, i: (status, {"error": {"message": "busy"}}) if i == 0 else (200, answer()))
    made, counters = captions(profile(server), shard(1))
    assert outcomes(made) == {("ok", None)}
    assert len(server.payloads) == 2 and counters["captions/retries"] == 1


def test_retry_after_is_obeyed(serve: Callable[..., Server]) -> None:
    times: list[float] = []

    def reply(_s: Server, _p: Any, i: int) -> Any:
        times.append(time.monotonic())
        return (429, {}, {"Retry-After": "1"}) if i == 0 else (200, answer())

    captions(profile(serve(reply)), shard(1))
    assert times[1] - times[0] >= 0.99


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ((500, {"error": {"message": "out of\nmemory"}}), "the server answered HTTP 500: out of memory"),
        ((400, {"detail": "too many images"}), "the server answered HTTP 400: too many images"),
        ((200, b"<html>"), "is no chat completion: <html>"),
        ((200, {"choices": []}), "is no chat completion"),
        ((200, {"choices": [{"message": {"content": [1]}}]}), "is no chat completion"),
        ((200, b"[" * 100_000), "is no chat completion"),
        ((302, b"", {"Location": "http://127.0.0.1:9/"}), "the server answered HTTP 302"),
    ],
)
def test_a_request_without_an_answer_fails_in_one_line_and_is_not_kept(
    reply: Any, reason: str, serve: Callable[..., Server]
) -> None:
    server = serve(lambda *_: reply)
    made, counters = captions(profile(server), shard(1))
    assert [r["status"] for r in made] == ["failed"] and made[0]["text"] is None
    assert reason in made[0]["reason"] and "\n" not in made[0]["reason"]
    assert counters["captions/without_answer"] == 1
    server.reply = lambda *_: (200, answer())
    assert outcomes(captions(profile(server), shard(1))[0]) == {("ok", None)}


def test_one_window_without_an_answer_costs_only_itself(serve: Callable[..., Server]) -> None:
    server = serve(lambda _s, _p, i: (400, {"error": "no"}) if i == 1 else (200, answer()))
    made, _ = captions(profile(server, "captions.connections=1"))
    assert [r["status"] for r in made] == ["ok", "failed", "ok"]
    before = len(server.payloads)
    assert outcomes(captions(profile(server))[0]) == {("ok", None)}
    assert len(server.payloads) == before + 1


def test_an_answer_that_takes_too_long_fails(serve: Callable[..., Server]) -> None:
    release = threading.Event()
    server = serve(lambda *_: (release.wait(5), (200, answer()))[1])
    made, _ = captions(profile(server, "captions.timeout_s=0.2", "captions.retries=0"), shard(1))
    release.set()
    assert outcomes(made) == {("failed", f"no answer from {server.url} within 0.2 s")}


def test_a_dead_server_fails_all_windows_at_once_with_the_next_step() -> None:
    started = time.monotonic()
    made, counters = captions(profile("http://127.0.0.1:9/v1"), shard(40))
    assert time.monotonic() - started < 10
    (outcome,) = outcomes(made)
    assert outcome[0] == "failed"
    assert outcome[1] is not None
    what, _, then = outcome[1].partition(": ")
    assert what == "no server answers at http://127.0.0.1:9/v1"
    command = f"""vllm serve {MODEL} --limit-mm-per-prompt '{{"image": 20}}'"""
    assert then == f"start one (`{command}`) or set captions.url, then run again"
    assert not counters["calls/captions_endpoint"]


def test_a_server_of_another_model_is_not_asked(serve: Callable[..., Server]) -> None:
    server = serve(models=("other/model",))
    made, _ = captions(profile(server))
    expected = f"{server.url} serves other/model, not {MODEL}: set captions_endpoint.models"
    assert outcomes(made) == {("failed", expected)}
    assert server.payloads == []


def test_after_a_server_is_killed_and_restarted_only_what_is_missing_is_asked(serve: Callable[..., Server]) -> None:
    def dies(server: Server, _: Any, index: int) -> tuple[int, Any]:
        if index == 2:
            threading.Thread(target=server.stop, daemon=True).start()
            time.sleep(0.3)
        return 200, answer()

    first = Server(dies)
    made, _ = captions(profile(first, "captions.connections=1"), shard(6))
    done = sum(row["status"] == "ok" for row in made)
    assert 2 <= done < 6
    assert {r["status"] for r in made} == {"ok", "failed"}
    second = serve(port=first.port)
    again, _ = captions(profile(second), shard(6))
    assert outcomes(again) == {("ok", None)}
    assert len(second.payloads) == 6 - done


def test_each_model_has_its_own_server_and_its_views_with_every_prompt(serve: Callable[..., Server]) -> None:
    small = "Qwen/Qwen2.5-VL-3B-Instruct"
    first = serve()
    second = serve(lambda *_: (200, answer(f"{CAPTION} A lamp is on.", model=small)), models=(small,))
    both = profile(
        first,
        f"captions_endpoint.models=['{small}', '{MODEL}']",
        "captions_endpoint.prompts=['prompt1', 'prompt2']",
        f"captions.urls={{ '{small}' = '{second.url}' }}",
        f"captions.prices={{ '{small}' = [0.5, 2.0] }}",
    )
    made, counters = captions(both, shard(2))
    assert [(r["segment"], r["view"], r["model"]) for r in made] == [
        (i, f"{view}_{prompt}", model)
        for i in range(2)
        for view, model in (("qwen2.5-vl-3b", small), ("qwen2.5-vl-7b", MODEL))
        for prompt in ("prompt1", "prompt2")
    ]
    assert {(r["model"], r["text"].endswith("on.")) for r in made} == {(small, True), (MODEL, False)}
    assert [{p["model"] for p in s.payloads} for s in (first, second)] == [{MODEL}, {small}]
    assert counters["captions/cost_millionths"] == 4 * (100 * 0.5 + 20 * 2)


def test_a_dead_server_of_one_model_costs_only_its_views(serve: Callable[..., Server]) -> None:
    dead = "captions.urls={ other = 'http://127.0.0.1:9/v1' }"
    made, _ = captions(profile(serve(), f"captions_endpoint.models=['{MODEL}', 'other']", dead), shard(2))
    assert [(r["model"], r["status"]) for r in made] == [(MODEL, "ok"), ("other", "failed")] * 2


def test_an_answer_of_another_model_fails_in_one_line_and_is_not_kept(serve: Callable[..., Server]) -> None:
    server = serve(lambda *_: (200, answer(model="other/model\nx")))
    made, _ = captions(profile(server, "captions.connections=1"), shard(4))
    expected = f"{server.url} answered with other/model x, not {MODEL}"
    assert outcomes(made) == {("failed", expected)}
    assert len(server.payloads) == 1  # the next answers would be of that model too
    server.reply = lambda *_: (200, answer())
    again, counters = captions(profile(server), shard(4))
    assert outcomes(again) == {("ok", None)} and counters["calls/captions_endpoint"] == 4


@pytest.mark.parametrize(
    ("asked", "answered", "same"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("gpt-4o", None, True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o", "gpt-4o-mini-2024-07-18", False),
        (MODEL, MODEL.lower(), False),
    ],
)
def test_a_dated_version_and_a_server_that_names_no_model_are_the_same_model(
    asked: str, answered: str | None, same: bool
) -> None:
    assert same_model(asked, answered) is same


def test_of_equal_requests_one_is_sent(serve: Callable[..., Server]) -> None:
    def slow(*_: Any) -> tuple[int, Any]:
        time.sleep(0.1)
        return 200, answer()

    server = serve(slow)
    still = shard(6)
    frames = still.tables["frames"].to_pylist()
    still.tables["frames"] = rows(tables.FRAMES, [row | {"jpeg": frames[0]["jpeg"]} for row in frames])
    made, counters = captions(profile(server), still)
    assert outcomes(made) == {("ok", None)} and len(made) == 6
    assert len(server.payloads) == counters["calls/captions_endpoint"] == 1
    assert counters["captions/duplicates"] == 5 and counters["captions/completion_tokens"] == 20


def cut_off(*_: Any) -> tuple[int, bytes, dict[str, str]]:
    data = json.dumps(answer()).encode()
    return 200, data[: len(data) // 2], {"Content-Length": str(len(data)), "Connection": "close"}


def test_an_answer_that_was_cut_off_is_asked_for_again(serve: Callable[..., Server]) -> None:
    server = serve(lambda s, p, i: cut_off() if i == 0 else (200, answer()))
    made, counters = captions(profile(server), shard(1))
    assert outcomes(made) == {("ok", None)}
    assert len(server.payloads) == 2 and counters["captions/retries"] == 1


def test_an_answer_that_is_always_cut_off_fails_in_one_line(serve: Callable[..., Server]) -> None:
    server = serve(cut_off)
    made, _ = captions(profile(server), shard(1))
    assert outcomes(made) == {("failed", f"the answer of {server.url} was cut off")}
    assert len(server.payloads) == 3


def test_the_pictures_of_a_window_may_be_sent_as_one_video(serve: Callable[..., Server]) -> None:
    server = serve()
    made, _ = captions(profile(server, "captions_endpoint.pictures=video", "captions.connections=1"), shard(2))
    assert outcomes(made) == {("ok", None)}
    video, text = server.payloads[1]["messages"][0]["content"]
    start, *jpegs = video["video_url"]["url"].split(",")
    assert (video["type"], start, len(jpegs)) == ("video_url", "data:video/jpeg;base64", 20)
    assert text["text"].startswith("The 20 pictures")
    levels = [decode_jpeg(base64.b64decode(j)).mean() for j in jpegs]
    assert np.allclose(levels, [3 * k for k in range(10, 30)], atol=1)
    assert server.payloads[1]["media_io_kwargs"]["video"] == {
        "fps": 5.0,
        "frames_indices": list(range(20)),
        "total_num_frames": 20,
        "duration": 4.0,
        "do_sample_frames": False,
    }


def test_the_health_of_a_server_is_one_line(serve: Callable[..., Server]) -> None:
    server, other = serve(), serve(models=("a", "b"))
    assert health(server.url, MODEL, "") == f"{server.url} serves {MODEL}"
    with pytest.raises(WrongModel, match=f"{other.url} serves a, b, not {MODEL}: set captions_endpoint.models"):
        health(other.url, MODEL, "")
    with pytest.raises(EndpointError, match=re.escape("no server answers at http://127.0.0.1:9/v1")):
        health("http://127.0.0.1:9/v1", MODEL, "")


def test_two_models_whose_views_have_one_name_are_refused() -> None:
    with pytest.raises(CerError, match=r"captions_endpoint\.models: a value stands twice"):
        load_profile(overrides=["captions_endpoint.models=['a/m', 'b/M-Instruct']"])


def test_requests_that_fail_one_after_the_other_end_the_asking(serve: Callable[..., Server]) -> None:
    server = serve(lambda *_: (400, {"error": "no"}))
    made, _ = captions(profile(server, "captions.connections=1"), shard(20))
    assert len(server.payloads) == 8
    assert outcomes(made) == {("failed", "the server answered HTTP 400: no")}


def test_the_key_comes_from_the_environment_and_is_sent_as_a_bearer_token(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    captions(profile(server), shard(1))
    assert "Authorization" not in server.headers[0]
    monkeypatch.setenv("MY_KEY", "abc")
    captions(profile(server, "captions.key_variable=MY_KEY", "captions_endpoint.max_tokens=9"), shard(1))
    assert server.headers[1]["Authorization"] == "Bearer abc"


def test_a_window_without_pictures_is_not_asked_for(serve: Callable[..., Server]) -> None:
    server = serve()
    made, _ = captions(profile(server), shard(pictures=False))
    assert outcomes(made) == {("no_video", "the window has no picture")}
    assert server.payloads == []


@pytest.mark.parametrize(
    ("reply", "status", "kind"),
    [
        (answer(""), "no_caption", "empty"),
        (answer(None), "no_caption", "empty"),
        (answer("I'm sorry, but I can't help with identifying people."), "no_caption", "refused"),
        (answer(None, refusal="no"), "no_caption", "refused"),
        (answer(CAPTION, "content_filter"), "no_caption", "refused"),
        (answer(CAPTION, "length"), "no_caption", "cut_off"),
        (answer(" ".join([CAPTION] * 30)), "no_caption", "too_long"),
        (answer("Die Person hebt die Brauen und öffnet den Mund, während der Raum dunkel bleibt und ruhig wirkt."),
         "not_english", "wrong_language"),
        (answer("这个人看起来很惊讶。"), "not_english", "wrong_language"),
        (answer("**Sadly Fearful**"), "no_caption", "label_only"),
    ],
)  # fmt: skip
def test_an_answer_that_is_no_caption_has_a_status_and_a_count(
    reply: dict[str, Any], status: str, kind: str, serve: Callable[..., Server]
) -> None:
    made, counters = captions(profile(serve(lambda *_: (200, reply))), shard(1))
    assert [(r["status"], r["text"]) for r in made] == [(status, None)]
    assert made[0]["reason"].startswith(f"{kind}: ")
    assert counters[f"captions/{kind}"] == 1


@pytest.mark.parametrize(
    "text",
    [
        CAPTION,
        "The image does not contain a person, so there are no facial expressions to analyze.",
        "She is sad.",
        "The person says: I'm sorry. Then she smiles at the other, who is out of view.",
    ],
)
def test_captions_that_are_short_or_quote_a_refusal_are_captions(text: str) -> None:
    assert assess(text, "stop", 300) is Answer.OK


def test_a_compound_label_is_not_counted_as_its_parts() -> None:
    assert labels_in("A moment of fearfully surprised, not neutral; surprise fades.") == {
        "Fearfully Surprised",
        "Neutral",
        "Surprise",
    }
    assert labels_in("Another neutrality, surprised.") == set()


def test_the_second_prompt_names_every_label_and_the_first_none() -> None:
    assert all(label in PROMPTS["prompt2"] for label in (*BASIC, *COMPOUND))
    assert labels_in(PROMPTS["prompt1"]) == set()


def test_views_are_named_as_the_imported_ones() -> None:
    assert view_name("Qwen/Qwen2.5-VL-32B-Instruct", "prompt2") == "qwen2.5-vl-32b_prompt2"


def test_how_the_server_is_reached_changes_no_key_and_what_it_is_asked_does() -> None:
    def key(*overrides: str) -> str:
        chosen = profile("http://127.0.0.1:9/v1", *overrides)
        return stage_fingerprint(captions_stage(chosen), chosen, NoWeights())

    assert key() == key("captions.url=https://example.org/v1", "captions.connections=2", "captions.timeout_s=1")
    for changed in (
        "models=['other']",
        "prompts=['prompt2']",
        "picture_px=224",
        "max_tokens=99",
        "longest_words=9",
        "pictures=video",
    ):
        assert key() != key(f"captions_endpoint.{changed}")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("captions.url=localhost:8000", "captions.url"),
        ("captions.connections=0", "captions.connections"),
        ("captions.urls={ a = 'b' }", "captions.urls"),
        ("captions.prices={ a = [1.0] }", "captions.prices"),
        ("captions.prices={ a = [1.0, -1.0] }", "captions.prices"),
        ("captions_endpoint.models=[]", "captions_endpoint.models"),
        ("captions_endpoint.pictures=film", "captions_endpoint.pictures"),
        ("captions_endpoint.prompts=['prompt3']", "captions_endpoint.prompts"),
        ("captions_endpoint.prompts=['prompt1', 'prompt1']", "a value stands twice"),
        ("captions_endpoint.prompts=[]", "captions_endpoint.prompts"),
    ],
)
def test_a_setting_that_cannot_be_right_is_refused(override: str, line: str) -> None:
    with pytest.raises(CerError) as caught:
        load_profile(overrides=[override])
    assert line in caught.value.line()


def test_a_damaged_answer_on_disk_is_asked_for_again(serve: Callable[..., Server], home: Path) -> None:
    server = serve()
    captions(profile(server), shard(1))
    (kept,) = (home / "answers").rglob("*.json")
    kept.write_text("{")
    assert outcomes(captions(profile(server), shard(1))[0]) == {("ok", None)}
    assert len(server.payloads) == 2


def test_an_answer_without_end_is_given_up_on(serve: Callable[..., Server]) -> None:
    server = serve(lambda *_: (200, b"x" * (5 << 20)))
    with ChatClient(server.url, "", Limits(5, 0, 0, 1)) as client, pytest.raises(EndpointError, match="more than"):
        client.complete({"model": MODEL})


def test_an_empty_cache_knows_no_answer(tmp_path: Path) -> None:
    assert AnswerCache(tmp_path / "none").get("0" * 64) is None


def test_a_process_ends_without_waiting_for_its_requests() -> None:
    module = "cer_pipeline.perception.captions.endpoint.captioner"
    code = f"import time; from {module} import _in_thread; _in_thread(lambda _: time.sleep(60), {{}}); print('end')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout == "end\n"
