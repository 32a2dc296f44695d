"""The page to try a model, driven in Chromium as people do: by keyboard and mouse, in the dark and on a phone."""

import contextlib
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright
from serving.columns import Contract
from serving.http import page as page_module
from serving.http.instances import Reader
from serving.http.problem import Problem

from tests.serving.contracts import ALL, CLASSIFICATION, IMAGE, MIXED, REGRESSION, TEXT, Tried, picture_of_seven

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
REQUEST_ID = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
# The name of a stage comes before every path.
STAGE = "/staging"


@dataclass
class Served:
    """A page that is being served, and what was asked of the model behind it."""

    url: str
    bodies: list[bytes] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


@contextlib.contextmanager
def serving_at(tried: Tried, key: str | None = None) -> Iterator[Served]:
    """Serve the page and POST predict of a model as routes.py and a stage do; with `key`, calls need it."""
    served = Served("")
    reader = Reader(tried.contract, 100)
    card = {"name": tried.name, "version": "1598f53687de"}
    content, headers = page_module.html_of(tried.contract, card, tried.example)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path in (STAGE, f"{STAGE}/")
            self.reply(HTTPStatus.OK if known else HTTPStatus.NOT_FOUND, content, "text/html; charset=utf-8", headers)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            served.bodies.append(body)
            served.keys.append(self.headers["x-api-key"])
            if self.path != f"{STAGE}/predict" or self.headers["x-api-key"] != key:
                self.reply(HTTPStatus.FORBIDDEN, '{"message": "Forbidden"}', "application/json")
                return
            try:
                instances = reader.from_json(body)
                answer = tried.contract.answer(tried.predict(instances.columns), instances.rows)
                found: Any = {"predictions": tried.contract.predictions(answer.columns), "model": card}
                self.reply(HTTPStatus.OK, msgspec.json.encode(found).decode(), "application/json")
            except Problem as problem:
                document = json.dumps(problem.document(REQUEST_ID))
                self.reply(problem.status, document, "application/problem+json")

        def reply(self, status: HTTPStatus, text: str, media_type: str, more: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"content-type": media_type, "x-request-id": REQUEST_ID, **(more or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        served.url = f"http://127.0.0.1:{server.server_address[1]}{STAGE}/"
        try:
            yield served
        finally:
            server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        missing = "there is no Chromium on this machine: apt-get install chromium"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page whose errors, and whose requests to anybody else, fail the test."""
    with browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(10_000)
        seen: list[str] = []
        requests: list[Request] = []
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.on("console", lambda message: seen.append(message.text) if "Content Security" in message.text else None)
        page.on("request", lambda request: requests.append(request))
        yield page
        assert seen == []
        own = page.evaluate("location.origin")
        assert {request.url for request in requests if not request.url.startswith((own, "blob:", "data:"))} == set()


def sent(served: Served) -> dict[str, Any]:
    """The instance in the last request."""
    [instance] = json.loads(served.bodies[-1])["instances"]
    return instance


@pytest.mark.parametrize("kind", ALL)
def test_the_example_is_filled_in_and_its_answer_drawn(page: Page, kind: str):
    with serving_at(ALL[kind]) as served:
        page.goto(served.url)
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer .facts")).to_contain_text(REQUEST_ID)
        expect(page.locator("#answer .facts")).to_contain_text(re.compile(r"Answered in \d+ ms"))
        given = {key: value for key, value in sent(served).items() if key in ALL[kind].example}
        assert given == ALL[kind].example


def test_a_flower_is_entered_and_classified_by_keyboard_alone(page: Page):
    with serving_at(CLASSIFICATION) as served:
        page.goto(served.url)
        page.get_by_label("sepal_length").focus()
        for number in ("6.3", "3.3", "6.0", "2.5"):
            page.keyboard.press("ControlOrMeta+a")
            page.keyboard.type(number)
            page.keyboard.press("Tab")
        expect(page.get_by_role("button", name="Predict")).to_be_focused()
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.keyboard.press("Enter")
        expect(page.locator("#answer .big")).to_have_text("versicolor")
        assert sent(served) == {"sepal_length": 6.3, "sepal_width": 3.3, "petal_length": 6.0, "petal_width": 2.5}


def test_shares_are_bars_and_the_chosen_one_stands_out(page: Page):
    with serving_at(CLASSIFICATION) as served:
        page.goto(served.url)
        page.get_by_role("button", name="Predict").click()
        expect(page.locator(".bars li")).to_have_text(["versicolor85.1 %", "virginica12.1 %", "setosa2.8 %"])
        expect(page.locator(".bars .chosen")).to_have_count(1)
        widths = page.eval_on_selector_all(
            ".bars .fill", "bars => bars.map((bar) => bar.getBoundingClientRect().width)"
        )
        assert widths == sorted(widths, reverse=True)
        assert widths[0] > 5 * widths[1]


def test_the_arrow_keys_and_the_slider_move_a_number_by_what_matters_in_its_range(page: Page):
    with serving_at(CLASSIFICATION) as served:
        page.goto(served.url)
        number = page.get_by_label("petal_width")
        number.press("ArrowUp")
        expect(number).to_have_value("1.4")
        page.locator("input[type=range]").last.fill("2.1")
        expect(number).to_have_value("2.1")


def test_a_number_is_drawn_with_its_unit_and_interval(page: Page):
    with serving_at(REGRESSION) as served:
        page.goto(served.url)
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer .big")).to_have_text("195.81points")
        expect(page.locator("#answer .note")).to_have_text(
            "90 % of the true values are expected between 134.31 and 279.06."
        )
        expect(page.locator(".output")).to_have_count(1)  # the bounds are part of the drawing
        box = {name: page.locator(f".interval .{name}").bounding_box() for name in ("axis", "band", "dot")}
        axis, band, dot = box["axis"], box["band"], box["dot"]
        assert axis["x"] < band["x"] < dot["x"] < band["x"] + band["width"] < axis["x"] + axis["width"]


def test_a_picture_is_chosen_previewed_and_sent(page: Page):
    with serving_at(IMAGE) as served:
        page.goto(served.url)
        expect(page.locator(".drop small")).to_have_text("example.png, 28 \u00d7 28 pixels, 133 bytes")
        content = picture_of_seven("JPEG")
        page.get_by_label("image").set_input_files({"name": "my 7.jpg", "mimeType": "image/jpeg", "buffer": content})
        expect(page.locator(".drop small")).to_contain_text("my 7.jpg, 28 \u00d7 28 pixels")
        expect(page.locator("#curl")).to_contain_text("--data-binary '@my 7.jpg'")
        expect(page.locator("#curl")).to_contain_text("-H 'content-type: image/jpeg'")
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer .big")).to_have_text("7")
        # Digits stand in their own order.
        expect(page.locator(".bars .name")).to_have_text(list("0123456789"))


def test_a_picture_is_dropped(page: Page):
    with serving_at(IMAGE) as served:
        page.goto(served.url)
        page.get_by_role("button", name="Remove the picture").click()
        expect(page.locator(".drop small")).to_have_text("PNG, JPEG, WEBP")
        transfer = page.evaluate_handle(
            "bytes => { const transfer = new DataTransfer();"
            "transfer.items.add(new File([new Uint8Array(bytes)], 'a.png', {type: 'image/png'})); return transfer; }",
            list(picture_of_seven()),
        )
        page.dispatch_event(".drop", "drop", {"dataTransfer": transfer})
        expect(page.locator(".drop img")).to_be_visible()
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer .big")).to_have_text("7")


def test_what_is_not_a_picture_is_refused_at_its_field(page: Page):
    with serving_at(IMAGE) as served:
        page.goto(served.url)
        page.get_by_label("image").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"})
        page.get_by_role("button", name="Predict").click()
        expect(page.locator(".error:visible")).to_have_count(1)
        expect(page.locator(".error:visible")).to_contain_text("picture")


def test_text_is_typed_and_its_answer_is_text(page: Page):
    with serving_at(TEXT) as served:
        page.goto(served.url)
        # The example contains what would end the element that it is embedded in.
        expect(page.get_by_label("text")).to_have_value(TEXT.example["text"])
        page.get_by_label("text").fill('"Quoted", it\'s\nfine 🙂')
        page.get_by_role("button", name="Predict").click()
        expect(page.locator(".output .long")).to_contain_text("asks for the invoice")
        assert sent(served) == {"text": '"Quoted", it\'s\nfine 🙂'}
        expect(page.locator("#curl")).to_contain_text("it'\\''s\\nfine 🙂")


def test_every_kind_of_field_is_sent_as_the_schema_wants_it(page: Page):
    with serving_at(MIXED) as served:
        page.goto(served.url)
        page.get_by_label("heating").select_option("heat pump")
        page.get_by_role("group", name="lift").get_by_label("yes").check()
        page.get_by_label("garden").uncheck()
        page.get_by_label("energy").fill("59.5")
        page.get_by_label("built").fill("2001-02-03")
        page.get_by_label("listed_at").fill("2026-11-21T09:30:00")
        page.get_by_label("prices").fill("310000, 299000.5")
        page.get_by_label("viewing").fill("17:30:00")
        page.get_by_label("remarks").fill("<b>quiet</b>")
        page.get_by_role("group", name="storey").get_by_label("missing").check()
        page.get_by_label("north").fill("0.25")
        page.get_by_label("south").fill("0.75")
        page.get_by_label("parcel").fill("9007199254740993")  # more than a number of JavaScript can hold
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer .facts")).to_be_visible()
        assert sent(served) == {
            "living area": 84.5, "rooms": 4, "heating": "heat pump", "garden": False, "lift": True, "energy": 59.5,
            "built": "2001-02-03", "listed_at": "2026-11-21T09:30:00Z", "position": [52.52, 13.4],
            "prices": [310000, 299000.5], "storey": None, "viewing": "17:30:00", "remarks": "<b>quiet</b>",
            "photo": None, "weights": {"north": 0.25, "south": 0.75}, "parcel": 9007199254740993,
        }  # fmt: skip


def test_several_outputs_are_drawn_each_in_its_way(page: Page):
    with serving_at(MIXED) as served:
        page.goto(served.url)
        page.get_by_role("button", name="Predict").click()

        def output(key: str):
            return page.locator(f'.output[data-output="{key}"]')

        expect(output("price")).to_contain_text("355,787.3€")
        expect(output("score")).to_contain_text("on a scale from 0 to 100")
        expect(output("sold_by")).to_contain_text("missing")
        expect(output("recommended")).to_contain_text("yes")
        expect(output("effects").locator("li")).to_have_text(["size81,200 €", "place12,000 €", "age-30,500 €"])
        expect(output("embedding").locator(".columns span")).to_have_count(8)
        expect(output("embedding").locator(".values li")).to_have_count(8)
        expect(output("note")).to_contain_text("missing")


def test_a_refusal_is_shown_at_its_field_and_goes_away(page: Page):
    with serving_at(CLASSIFICATION) as served:
        page.goto(served.url)
        number = page.get_by_label("petal_length")
        number.fill("99.5")
        page.get_by_role("button", name="Predict").click()
        expect(page.locator(".refusal")).to_contain_text("petal_length: expected a number between 0.1 and 30, got 99.5")
        error = page.locator(".error:visible")
        expect(error).to_have_text("Expected a number between 0.1 and 30, got 99.5")
        expect(number).to_have_attribute("aria-invalid", "true")
        assert error.get_attribute("id") in number.get_attribute("aria-describedby").split()
        expect(number).to_be_focused()
        expect(page.locator("#answer .facts")).to_contain_text(REQUEST_ID)
        number.fill("4.5")
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer .big")).to_have_text("versicolor")
        expect(page.locator(".error:visible")).to_have_count(0)


def test_an_empty_field_that_must_not_be_missing_is_refused_at_its_place(page: Page):
    with serving_at(MIXED) as served:
        page.goto(served.url)
        page.get_by_role("button", name="Clear").click()
        page.get_by_label("rooms").fill("3")
        page.get_by_role("button", name="Predict").click()
        expect(page.locator(".error:visible")).to_have_text("Is missing; expected a number")
        expect(page.get_by_label("living area")).to_be_focused()


def test_a_key_is_asked_for_where_one_is_needed_and_never_kept(page: Page):
    with serving_at(CLASSIFICATION, key="s3cret") as served:
        page.goto(served.url)
        expect(page.get_by_label("API key")).to_be_hidden()
        page.get_by_role("button", name="Predict").click()
        expect(page.get_by_label("API key")).to_be_focused()
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_text("This key was refused.")).to_be_visible()
        page.get_by_label("API key").fill("s3cret")
        page.keyboard.press("Enter")
        expect(page.locator("#answer .big")).to_have_text("versicolor")
        assert served.keys == [None, "wrong", "s3cret"]
        expect(page.locator("#curl")).to_contain_text('-H "x-api-key: $API_KEY"')
        assert "s3cret" not in page.content()
        assert (
            page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])") == '[{},{},""]'
        )
        page.reload()
        page.get_by_role("button", name="Predict").click()
        expect(page.get_by_label("API key")).to_have_value("")


def test_of_very_many_shares_the_largest_are_shown(page: Page):
    keys = [f"word-{number:02}" for number in range(50)]
    many = msgspec.defstruct("Many", [("words", dict[Literal[tuple(keys)], float])], frozen=True)

    def predict(columns):
        return {"words": np.tile(np.arange(50) / 1225, (len(columns["text"]), 1))}

    with serving_at(Tried(Contract(TEXT.contract.instance, many), TEXT.example, predict, "topics")) as served:
        page.goto(served.url)
        page.get_by_role("button", name="Predict").click()
        expect(page.locator(".bars li:visible .name")).to_have_text(keys[:29:-1])
        page.get_by_text("30 more").click()
        expect(page.locator(".bars li:visible")).to_have_count(50)


def test_an_api_that_is_gone_is_said_to_be_out_of_reach(page: Page):
    with serving_at(CLASSIFICATION) as served:
        page.goto(served.url)
        page.route("**/predict", lambda route: route.abort())
        page.get_by_role("button", name="Predict").click()
        expect(page.locator(".refusal")).to_contain_text("can't be reached")
        expect(page.get_by_role("button", name="Predict")).to_be_visible()


def test_the_page_works_below_a_stage_with_and_without_a_slash(page: Page):
    with serving_at(CLASSIFICATION) as served:
        page.goto(served.url.rstrip("/"))
        expect(page.get_by_role("link", name="OpenAPI document")).to_have_attribute("href", f"{served.url}openapi.json")
        expect(page.get_by_role("link", name="Model card")).to_have_attribute("href", f"{served.url}model")
        expect(page.locator("#curl")).to_contain_text(f"curl {served.url}predict ")
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer .big")).to_have_text("versicolor")


def test_the_command_is_copied(page: Page):
    with serving_at(CLASSIFICATION) as served:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.goto(served.url)
        page.get_by_role("button", name="Copy").click()
        expect(page.locator("#copied")).to_have_text("The command is on the clipboard.")
        assert page.evaluate("navigator.clipboard.readText()") == page.locator("#curl").inner_text()


def test_the_command_sends_what_the_page_sends(page: Page, tmp_path: Path):
    with serving_at(MIXED) as served:
        page.goto(served.url)
        page.get_by_label("remarks").fill('It\'s "fine" $HOME `x` \\ 🙂')
        photo = {"name": "the house's.png", "mimeType": "image/png", "buffer": picture_of_seven()}
        page.get_by_label("photo").set_input_files(photo)
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer .facts")).to_be_visible()
        (tmp_path / photo["name"]).write_bytes(photo["buffer"])
        # The shell reads the command; what stands in for curl prints its words.
        script = 'curl() { printf "%s\\0" "$@"; }\n' + page.locator("#curl").inner_text()
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, check=True, timeout=10)
        url, *_, body = done.stdout.decode().rstrip("\0").split("\0")
        assert url == f"{served.url}predict"
        assert json.loads(body) == json.loads(served.bodies[-1])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ALL)
def test_a_phone_shows_it_without_scrolling_sideways_in_light_and_dark(page: Page, kind: str, scheme: str):
    with serving_at(ALL[kind]) as served:
        page.set_viewport_size({"width": 390, "height": 844})
        page.emulate_media(color_scheme=scheme)
        page.goto(served.url)
        page.get_by_role("button", name="Predict").click()
        expect(page.locator("#answer .facts")).to_be_visible()
        page.get_by_text("Answer as JSON").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        background, text = (
            sum(map(int, re.findall(r"\d+", page.evaluate(f"getComputedStyle(document.body)['{name}']"))))
            for name in ("backgroundColor", "color")
        )
        assert (background < text) == (scheme == "dark")


@pytest.mark.parametrize("kind", ALL)
def test_every_control_has_a_name_for_those_who_do_not_see_it(page: Page, kind: str):
    with serving_at(ALL[kind]) as served:
        page.goto(served.url)
        unnamed = page.eval_on_selector_all(
            "input:not([aria-hidden]), select, textarea",
            "all => all.filter((it) => ![...it.labels].some((label) => label.textContent.trim())).map((it) => it.id)",
        )
        assert unnamed == []
        expect(page.locator("#answer")).to_have_attribute("aria-live", "polite")


def test_names_and_texts_cannot_become_markup():
    hostile = "</script><script>alert(1)</script>"
    html, headers = page_module.html_of(TEXT.contract, {"name": hostile, "version": "&"}, {"text": hostile + "\u2028"})
    assert "<script>alert" not in html
    assert html.count("<script>") == 1
    assert "'unsafe-inline'" not in headers["content-security-policy"]
    assert (
        json.loads(html.partition('id="data">')[2].partition("</script>")[0])["example"]["text"] == hostile + "\u2028"
    )


def test_a_page_without_an_example_starts_empty(page: Page):
    with serving_at(Tried(CLASSIFICATION.contract, {}, CLASSIFICATION.predict, "iris")) as served:
        page.goto(served.url)
        expect(page.get_by_label("petal_length")).to_have_value("")
