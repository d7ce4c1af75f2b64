"""The live page, driven through Chromium: its numbers are the library's, and a hand changes them."""

import math

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from scipy.ndimage import label

from course import browser, live
from vae_lib.data import fixed_binarization, sample
from vae_lib.recipes import pretrained

pytestmark = pytest.mark.skipif(browser.chromium() is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return live.build(tmp_path_factory.mktemp("live") / "live.html")


@pytest.fixture(scope="module")
def page(chromium, built):
    """The page once its grid is prepared; `page.asked` lists the addresses that it asked for."""
    context = chromium.new_context(has_touch=True, viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.asked, page.wrong = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.goto(built.as_uri())
    page.wait_for_function("vae.state.complete", timeout=60_000)
    yield page
    assert page.wrong == []
    context.close()


def numbers(page):
    return [text.removeprefix("≈ ") for text in page.locator("dd").all_inner_texts()]


# The witness: the library's model in float64, summed at points of its own

@torch.no_grad()
def log_joint(model, x, z):
    prior = -(z**2).sum(1) / 2 - math.log(2 * math.pi)
    return torch.cat([model.likelihood.log_prob(x, model.decoder(part)) for part in z.split(5000)]) + prior


@torch.no_grad()
def log_px_by_refinement(model, digits, step=0.05, parts=6):
    """log p(x) of each image: the cells of a grid over [-7, 7]**2 that hold mass, each cut into parts * parts."""
    axis = torch.arange(-7, 7, step, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    x = digits.flatten(1)
    first = []
    for part in z.split(10_000):
        logits = model.decoder(part).flatten(1)
        first.append(logits @ x.T - torch.nn.functional.softplus(logits).sum(1, keepdim=True))
    first = torch.cat(first) - (z**2).sum(1, keepdim=True) / 2
    middles = (torch.arange(parts, dtype=torch.float64) - (parts - 1) / 2) * step / parts
    within, found = torch.cartesian_prod(middles, middles), []
    for image, values in zip(digits, first.T):
        near = torch.nn.functional.max_pool2d(values.view(1, len(axis), -1), 3, 1, 1).flatten()
        cells = z[near > values.max() - 18]
        points = (cells[:, None] + within).flatten(0, 1)
        found.append(log_joint(model, image, points).logsumexp(0) + 2 * math.log(step / parts))
    return torch.stack(found)


@torch.no_grad()
def reconstruction(model, x, mu, std, points=33):
    """E_q log p(x|z) of one image by the trapezoid rule, `points` over 16 standard deviations of each latent."""
    eps = torch.linspace(-8, 8, points, dtype=torch.float64)
    log_q = -eps**2 / 2
    weights = torch.outer(log_q.exp(), log_q.exp()).flatten()
    z = mu + std * torch.cartesian_prod(eps, eps)
    return (weights @ model.likelihood.log_prob(x, model.decoder(z))) / weights.sum()


def test_its_numbers_are_those_of_the_library_in_float64(page):
    model = pretrained("two_latents").double().requires_grad_(False)
    digits = fixed_binarization(sample().test)[:50].double()
    mu, log_var = model.encoder(digits)
    std = (log_var / 2).exp()
    log_px = log_px_by_refinement(model, digits)
    kl = 0.5 * (mu**2 + std**2 - log_var - 1).sum(1)
    elbo = torch.stack([reconstruction(model, *each) for each in zip(digits, mu, std)]) - kl
    found = page.evaluate("""digits => digits.map(x => {
        const {mu, logVar, logPx, elbo, gap} = vae.measure(x);
        return [mu, logVar, [logPx, elbo, gap], vae.decode(mu)].map(each => Array.from(each))})""",
                          digits.flatten(1).tolist())
    columns = [torch.tensor(column, dtype=torch.float64) for column in zip(*found)]
    wanted = [mu, log_var, torch.stack([log_px, elbo, log_px - elbo], 1), model.decoder(mu).flatten(1)]
    off = [(ours - theirs).abs().amax(0).max().item() for ours, theirs in zip(columns, wanted)]
    off_nats = (columns[2] - wanted[2]).abs().amax(0).tolist()
    print(f"largest differences: mu {off[0]:.1e}, log_var {off[1]:.1e}, logits {off[3]:.1e}, "
          "log p(x) {:.1e}, ELBO {:.1e}, gap {:.1e}".format(*off_nats))
    assert max(off) < 1e-3, "of the first 200 digits, log p(x) differed by 1.7e-6 at most and the gap by 5.2e-6"
    assert (columns[2][:, 2] > 0).all()


def test_a_wide_q_has_its_expectation_too(page):
    """The empty sheet: the nodes of Gauss and Hermite's rule miss 6 nats there with 10 x 10, and 2 with 16 x 16."""
    model = pretrained("two_latents").double().requires_grad_(False)
    x = torch.zeros(1, 1, 28, 28, dtype=torch.float64)
    mu, log_var = model.encoder(x)
    found = page.evaluate("vae.measure(new Float64Array(784)).reconstruction")
    assert abs(found - reconstruction(model, x[0], mu, (log_var / 2).exp(), 161).item()) < 1e-3


def test_it_is_one_small_file_that_asks_for_nothing_else(page, built):
    assert built.stat().st_size <= 2_000_000
    assert page.asked == [built.as_uri()]


def drag(page, name, points):
    """Draw through points, given as shares of the element's box, by mouse."""
    box = page.locator(name).bounding_box()
    places = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def test_a_stroke_by_mouse_changes_the_numbers(page):
    page.get_by_role("button", name="Clear").click()
    page.locator("#pad").scroll_into_view_if_needed()
    before = numbers(page)
    drag(page, "#pad", [(0.5, 0.1), (0.48, 0.9)])
    page.wait_for_function("before => document.getElementById('log-px').textContent !== before", arg=before[0])
    assert all(now != then for now, then in zip(numbers(page), before))
    page.wait_for_function("vae.state.found.exact")
    assert "≈" not in page.locator("dl").inner_text()


def test_a_stroke_by_finger_changes_the_numbers(page):
    page.get_by_role("button", name="Clear").click()
    before = numbers(page)
    box = page.locator("#pad").bounding_box()
    session = page.context.new_cdp_session(page)
    for kind, share in (("touchStart", 0.1), ("touchMove", 0.4), ("touchMove", 0.9), ("touchEnd", None)):
        place = [] if share is None else [{"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] * share}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": place})
    page.wait_for_function("before => document.getElementById('log-px').textContent !== before", arg=before[0])
    assert all(now != then for now, then in zip(numbers(page), before))


@pytest.mark.parametrize("name", ["map", "close"])
def test_arrow_keys_move_the_point_and_change_the_picture(page, name):
    page.get_by_role("button", name="3", exact=True).click()
    picture = "document.getElementById('point-mean').toDataURL()"
    page.locator(f"#{name}").focus()
    for key, axis, sign in (("ArrowLeft", 0, -1), ("ArrowRight", 0, 1), ("ArrowUp", 1, 1), ("ArrowDown", 1, -1)):
        before, seen = page.evaluate("vae.state.point"), page.evaluate(picture)
        page.keyboard.press(f"Shift+{key}")
        after = page.evaluate("vae.state.point")
        assert sign * (after[axis] - before[axis]) > 0 and after[1 - axis] == before[1 - axis]
        assert page.evaluate(picture) != seen
    page.keyboard.press("Home")
    page.wait_for_function("String(vae.state.point) === String(vae.state.found.mu)")


EXACT = """async name => {
    vae.choose(name);
    while (!vae.state.found.exact) await new Promise(resolve => setTimeout(resolve));
    const {logPx, gap, density, wide} = vae.state.found;
    return {logPx, gap, density: Array.from(density), wide}; }"""


def test_the_examples_show_what_their_words_say(page):
    measured = {name: page.evaluate(EXACT, name) for name in page.evaluate("Object.keys(vae.presets)")}
    digits = [measured[name] for name in "0123456789"]
    assert measured["letter"]["logPx"] < min(digit["logPx"] for digit in digits) - 10
    assert measured["empty"]["gap"] > 50
    modes = [label(torch.tensor(each["density"]).view(-1, each["wide"]) > 0.2)[1]
             for each in (measured["8"], measured["4 or 9"])]
    assert modes == [2, 1]
    assert digits[8]["gap"] > 2
    for name, seen in (("8", False), ("empty", True)):
        page.evaluate("name => vae.choose(name)", name)
        assert page.locator("#outside").is_visible() == seen
    assert measured["empty"]["logPx"] > max(digit["logPx"] for digit in digits)


def test_an_example_is_seen_where_its_words_point(page):
    page.get_by_role("button", name="4 or 9").click()
    top, bottom = page.evaluate("""() => {
        const {top, bottom} = document.getElementById("close").getBoundingClientRect();
        return [top, bottom]}""")
    assert 0 <= top < bottom <= page.viewport_size["height"]


def test_the_exact_numbers_leave_a_hand_its_turn_and_give_way_to_it(page):
    """The work behind them, some 2,000 runs of the decoder, is cut: other tasks have their turn in between."""
    turns = page.evaluate("""async () => {
        vae.choose("8");
        let turns = 0;
        for (; !vae.state.found.exact; turns++) await new Promise(resolve => setTimeout(resolve));
        return turns; }""")
    assert turns > 5
    page.evaluate("""async () => {
        vae.choose("8");
        for (let i = 0; i < 3; i++) await new Promise(resolve => setTimeout(resolve)); }""")
    found = page.evaluate(EXACT, "1")
    assert found["logPx"] == page.evaluate("vae.measure(vae.state.x).logPx")


def test_an_update_is_timed(page):
    code = "name => { vae.choose(name); return vae.times().at(-1) }"
    milliseconds = sorted(page.evaluate(code, name) for name in "0123456789" * 2)
    print(f"an update of the page while one draws: {milliseconds[10]:.0f} ms")
    assert abs(int(page.locator("#milliseconds").text_content()) - page.evaluate("vae.times().at(-1)")) <= 0.5


@pytest.mark.parametrize("width", [1280, 390, 360])
def test_it_fits_its_window(page, width):
    page.set_viewport_size({"width": width, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("scrollTo(0, 0)")
    lowest = page.evaluate("Math.max(...['pad', 'log-px', 'elbo'].map(id => byId(id).getBoundingClientRect().bottom))")
    assert lowest <= 740, "the numbers are not seen as one draws"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(page, scheme):
    page.emulate_media(color_scheme=scheme)
    found = [(fault["id"], fault["impact"], [node["html"] for node in fault["nodes"]])
             for fault in Axe().run(page).response["violations"] if fault["impact"] in ("serious", "critical")]
    assert found == []
