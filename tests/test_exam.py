"""The exam: every key is computed a second time, and the sheet gives no answer away."""

import itertools
import math
import os
import re
import xml.etree.ElementTree as ElementTree
from fractions import Fraction
from urllib.parse import unquote

import mpmath
import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit, xlogy
from scipy.stats import entropy, norm
from torch.nn import functional

from course import exam, pages
from course.question_bank import KL_LINES, TEMPLATES
from course.questions import draw, fill, is_fair, shown

SEEDS = range(50)
each_template = pytest.mark.parametrize("template", TEMPLATES, ids=[template.name for template in TEMPLATES])


@pytest.fixture(scope="module")
def questions():
    """Every template with every seed: {name: questions}."""
    return {template.name: [draw(template, seed) for seed in SEEDS] for template in TEMPLATES}


@pytest.fixture(scope="module")
def equations():
    """The numbers of all equations of the course."""
    return {number for path in pages.paths() for number in pages.equations(path)}


def numbers(text):
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", text)]


def exact(*values):
    """Numbers as they are printed, as fractions."""
    return [Fraction(str(value)) for value in values]


def average(f, mean, std):
    """The average of f over a Gaussian, by the trapezoidal rule, which is very exact for smooth functions."""
    z, step = np.linspace(mean - 12 * std, mean + 12 * std, 1201, retstep=True)
    return step * np.sum(norm.pdf(z, mean, std) * f(z))


def kl_integral(mean_q, std_q, mean_p, std_p):
    return average(lambda z: norm.logpdf(z, mean_q, std_q) - norm.logpdf(z, mean_p, std_p), mean_q, std_q)


def slope(f, x, h=1e-5):
    return (f(x + h) - f(x - h)) / (2 * h)


# The second route to each number: a function of what the question gives

def second_moment(slope, u):
    x = u * math.sqrt(slope**2 + 1)
    return average(lambda z: norm.pdf(x, slope * z) ** 2, 0, 1) / average(lambda z: norm.pdf(x, slope * z), 0, 1) ** 2


def elbo_of_a_line(slope, x, mu, variance, width):
    std = math.sqrt(width)
    return average(lambda z: norm.logpdf(x, slope * z, math.sqrt(variance)) + norm.logpdf(z) - norm.logpdf(z, mu, std),
                   mu, std)


def gap_of_a_diagonal(first, second, off):
    """The least divergence from the posterior of a Gaussian with independent latents, found by a search."""
    normal, zero = torch.distributions.MultivariateNormal, torch.zeros(2).double()
    posterior = normal(zero, precision_matrix=torch.tensor([[first, off], [off, second]]).double())

    def least(axis, other):
        def divergence(log_var):
            variances = [math.exp(log_var), other][::1 if axis == 0 else -1]
            q = normal(zero, torch.tensor(variances).double().diag())
            return torch.distributions.kl_divergence(q, posterior).item()
        found = minimize_scalar(divergence, bounds=(-4, 1), method="bounded", options={"xatol": 1e-7})
        return math.exp(found.x), found.fun
    variance, _ = least(0, 0.5)
    return least(1, variance)[1]


def log_px_of_a_model(reconstruction, kl, gap):
    """An integral over z: log p(x|z) = a + bz makes the posterior N(b, 1), and q = N(m, 1) gives the three numbers."""
    m = math.sqrt(2 * kl)
    b = m - math.sqrt(2 * gap)
    a = reconstruction - b * m
    assert [kl_integral(m, 1, 0, 1), kl_integral(m, 1, b, 1)] == pytest.approx([kl, gap])
    return math.log(average(lambda z: np.exp(a + b * z), 0, 1))


def responsibility(weights, x, means, variances):
    joint = [w * norm.pdf(x, m, math.sqrt(v)) for w, m, v in zip(weights, means, variances)]
    return joint[0] / sum(joint)


def pathwise(square, mu, std, eps, **line):
    def f(log_var):
        z = mu + math.exp(log_var / 2) * eps
        return square * z**2 + line["slope"] * z
    return slope(f, 2 * math.log(std))


def coin(logit, high, low):
    return slope(lambda a: high / (1 + math.exp(-a)) + low / (1 + math.exp(a)), logit)


def weights_of(loss, *arguments):
    """The slopes of a loss along each of its arguments."""
    return [slope(lambda t, i=i: loss(*(a + t * (i == j) for j, a in enumerate(arguments))), 0.0)
            for i in range(len(arguments))]


def variance_of_a_loss(shape, weight, kl_weight, low):
    def loss(error, kl):  # the error is added to one pixel, in the unit in which pixels lie in [0, 1]
        errors = np.zeros(shape)
        errors[0, 0, 0] = np.sqrt(error) * (1 - low)
        return weight * np.mean(errors**2) + kl_weight * kl
    w, c = weights_of(loss, 0.5, 3.0)
    return c / (2 * w)


def beta_of_a_cross_entropy(size, latents, reduced, weight, kl_weight):
    def loss(logit, kl):
        logits = torch.zeros(1, size, size).double()
        logits[0, 0, 0] = logit
        bce = functional.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))
        each = np.full(latents, kl / latents)
        return (weight * bce + kl_weight * (each.mean() if reduced == "averaged" else each.sum())).item()
    by_logit, c = weights_of(loss, 1.0, 3.0)
    return c * slope(lambda a: math.log(1 + math.exp(a)), 1.0) / by_logit


def price_of_a_variance(error, claimed):
    def mass(log_var):
        return norm.logpdf(math.sqrt(error), 0, math.exp(log_var / 2))
    best = minimize_scalar(lambda log_var: -mass(log_var), bounds=(-8, 2), method="bounded", options={"xatol": 1e-9})
    return 784 * (-best.fun - mass(math.log(claimed)))


def price_of_a_latent(eigenvalue, variance):
    """The average over two images, one standard deviation to either side of the mean."""
    kept = 1 - variance / eigenvalue
    return np.mean([kl_integral(sign * math.sqrt(kept), math.sqrt(1 - kept), 0, 1) for sign in (-1, 1)])


def leftover_variance(latents, eigenvalues):
    rest = np.array(eigenvalues[latents:])
    return minimize_scalar(lambda s2: np.sum(np.log(s2) + rest / s2), bounds=(0.01, 4), method="bounded",
                           options={"xatol": 1e-9}).x


def second_step_of_adam(first, second):
    m = v = 0.0
    for t, g in enumerate((first, second), 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        step = m / (1 - 0.9**t) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return step


def cost_of_the_noise(std):
    """A quadratic, averaged over the noise, with the curvature at which the ELBO has no slope along the width."""
    def lost(width):
        return average(lambda z: z**2 / 2, 0, width)
    curvatures = [-slope(lambda width: kl_integral(0, width, 0, 1), s) / slope(lost, s) for s in std]
    return sum(h * lost(s) for h, s in zip(curvatures, std))


def receptive_field(kernels, strides):
    seen = {0}
    for kernel, stride in reversed(list(zip(kernels, strides))):
        seen = {stride * i + u for i in seen for u in range(kernel)}
    return max(seen) - min(seen) + 1


def height_behind_two(height, kernel, stride, padding):
    for _ in range(2):
        rows = range(-padding, height + padding)
        height = sum(first + kernel - 1 in rows for first in rows[::stride])
    return height


def gain_of_a_gaussian(means, variance):
    def under_q(f):
        return np.mean([average(f, mean, math.sqrt(variance)) for mean in means])
    mean = under_q(lambda z: z)
    std = math.sqrt(under_q(lambda z: (z - mean) ** 2))
    return under_q(lambda z: norm.logpdf(z, mean, std) - norm.logpdf(z))


def error_of_a_draw(probs, target):
    return sum(math.prod(p if bit else 1 - p for p, bit in zip(probs, bits))
               * sum((bit - c) ** 2 for bit, c in zip(bits, target)) for bits in itertools.product([0, 1], repeat=3))


def log_mean(logs):
    with mpmath.workdps(40):
        return mpmath.log(mpmath.fsum(mpmath.exp(float(value)) for value in logs) / len(logs))


def effective_size(weights):
    """As many equal draws as have a mean with the same variance: over all signs of five draws of variance 1."""
    means = [np.average(signs, weights=weights) for signs in itertools.product([-1, 1], repeat=5)]
    return 1 / np.var(means)


def density_of_a_coupling(kept, moved, scale, shift):
    def flow(z):
        return np.array([z[0], z[1] * np.exp(scale) + shift])
    z, steps = np.array([kept, moved]), 1e-4 * np.eye(2)
    jacobian = np.array([(flow(z + step) - flow(z - step)) / 2e-4 for step in steps])
    return norm.logpdf(flow(z)).sum() + np.log(abs(np.linalg.det(jacobian)))


def weight_by_gradients(channels, size, latents, factor):
    x = torch.rand(2, channels * size**2, generator=torch.Generator().manual_seed(0)).double().round()
    logits, mu = torch.zeros_like(x).requires_grad_(), torch.ones(2, latents).double().requires_grad_()
    loss = factor * functional.binary_cross_entropy_with_logits(logits, x) + (mu**2 / 2).mean()
    by_logits, by_mu = torch.autograd.grad(loss, (logits, mu))
    return by_mu.mean() / (by_logits / (0.5 - x)).mean()


SECOND = {
    "density_of_a_pair": lambda mu, x, variance: norm.logpdf(x, mu, np.sqrt(variance)).sum(),
    "pixels_from_logits": lambda logits, x: math.log(math.prod(
        1 / (1 + math.exp(-a if bit else a)) for a, bit in zip(logits, x))),
    "draws_from_the_prior": lambda slope, latents, u, error: (second_moment(slope, u) ** latents - 1) * 1e4 / error**2,
    "log_of_a_mean": lambda logs: log_mean(logs),
    "elbo_of_a_line": elbo_of_a_line,
    "gap_of_a_diagonal": gap_of_a_diagonal,
    "log_px_from_three_numbers": log_px_of_a_model,
    "entropy_that_is_dropped": lambda std: -sum(average(lambda z, s=s: norm.logpdf(z, 0, s), 0, s) for s in std),
    "responsibility_of_the_first": responsibility,
    "variance_of_an_m_step": lambda x, q: np.cov(x, aweights=q, ddof=0),
    "kl_of_one_latent": lambda mu, std: kl_integral(mu, std, 0, 1),
    "kl_between_two": lambda mu_q, var_q, mu_p, var_p: kl_integral(mu_q, math.sqrt(var_q), mu_p, math.sqrt(var_p)),
    "price_of_a_narrower_posterior": lambda std, factor: (
        kl_integral(0.3, std / factor, 0, 1) - kl_integral(0.3, std, 0, 1)),
    "pathwise_guess": pathwise,
    "gradient_of_a_coin": coin,
    "variance_of_a_loss": variance_of_a_loss,
    "beta_of_a_cross_entropy": beta_of_a_cross_entropy,
    "price_of_a_variance": price_of_a_variance,
    "price_of_a_latent": price_of_a_latent,
    "leftover_variance": leftover_variance,
    "second_step_of_adam": second_step_of_adam,
    "cost_of_the_noise": cost_of_the_noise,
    "receptive_field": receptive_field,
    "parameters_of_a_block": lambda a, b: sum(map(np.size, [np.zeros((b, a, 3, 3)), *np.zeros((3, b))])),
    "height_behind_two": height_behind_two,
    "gain_of_a_gaussian": gain_of_a_gaussian,
    "least_divergence": lambda images, average: average - entropy(np.full(images, 1 / images)),
    "error_of_a_draw": error_of_a_draw,
    "importance_bound": lambda likely, prior, q: log_mean([sum(exact(a, b, -c)) for a, b, c in zip(likely, prior, q)]),
    "effective_size": effective_size,
    "bits_of_a_pixel": lambda nats, size: -math.log2(math.exp(-nats)) / size**2,
    "weighted_gradient": lambda log_w, slopes: slope(
        lambda t: float(log_mean([w + t * g for w, g in zip(log_w, slopes)])), 0.0),
    "density_of_a_coupling": density_of_a_coupling,
    "nats_left_out": lambda latents, factor, std: latents * (kl_integral(0, factor * std, 0, 1)
                                                             - kl_integral(0, std, 0, 1)),
    "weight_of_two_means": weight_by_gradients}


# Of the options, the one that is right by a second route: a function of the option and of what the question gives

def rightly_repaired(option, mean, variance, **lines):
    """Whether the function is wrong as it stands, and right once this line is repaired."""
    def kl(lines):
        names = {"math": math}
        exec("\n    ".join(["def kl(mu, log_var):", *lines]), names)
        return names["kl"](mu, log_var)
    mu, log_var = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)).double()
    q, p = (torch.distributions.Normal(m, s) for m, s in ((mu, log_var.div(2).exp()), (mean, math.sqrt(variance))))
    wanted = torch.distributions.kl_divergence(q, p).sum(-1)
    stands = list(lines.values())
    place = stands.index(option.strip("`"))
    repaired = stands[:place] + [fill(KL_LINES[place], dict(mean=mean, variance=variance))] + stands[place + 1:]
    close = [found.shape == wanted.shape and torch.allclose(found, wanted) for found in (kl(stands), kl(repaired))]
    return close == [False, True]


def slope_of_a_step(option, edge, mu, std):
    draws = mu + std * np.random.default_rng(0).standard_normal(1000)
    by_draw = {0.0} if not np.any((draws + 1e-9 > edge) != (draws - 1e-9 > edge)) else {}
    derivative = slope(lambda m: norm.sf(edge, m, std), mu)
    said = numbers(option)
    return said[0] in by_draw and said[-1] == pytest.approx(derivative, rel=1e-3)


def fits(option, kind, low, high):
    """Whether the loss exists for every a, and has the least value 0 at each pixel value."""
    formula, loss = re.fullmatch(r"Output `(.+)`, (.+)\.", option).groups()
    a = np.linspace(-40, 300, 34001)
    output = eval(formula, {"a": a, "sigmoid": expit, "tanh": np.tanh})
    for x in [low, high] if kind.startswith("black") else np.linspace(low, high, 7):
        if loss == "squared error":
            losses = ((x - output) / (high - low)) ** 2
        elif loss == "cross entropy with logits":
            losses = np.logaddexp(0, output) - x * output
        elif output.min() < 0 or output.max() > 1:
            return False
        else:
            losses = -xlogy(x, output) - xlogy(1 - x, 1 - output)
        if not abs(losses.min()) < 1e-3:
            return False
    return True


def active(option, eigenvalues, variance, beta):
    """Count the directions in which the objective asks for a decoder that uses its latent, z = ux + noise to x = wz."""
    w, u = np.meshgrid(np.arange(0, 2.5, 0.025), np.arange(0, 1.5, 0.025), indexing="ij")
    width = beta / (beta + w**2 / variance)  # where -w^2 width / (2 s^2) + beta (log width - width) / 2 is highest
    used = 0
    for eigenvalue in eigenvalues[:7]:
        error = eigenvalue * (1 - w * u) ** 2 + w**2 * width
        kl = (eigenvalue * u**2 + width - np.log(width) - 1) / 2
        used += np.unravel_index(np.argmin(error / (2 * variance) + beta * kl), w.shape)[0] > 0
    return int(option) == used


def best_bound(option, betas, distortions, rates):
    bounds = [-d - r for d, r in zip(exact(*distortions), exact(*rates))]
    run, value = re.fullmatch(r"Run (\d), \$(.+)\$ nats\.", option).groups()
    return bounds.index(max(bounds)) == int(run) - 1 and max(bounds) == Fraction(value)


def first_value(option, size, batch, printed):
    coins = -math.log(0.5) * size**2
    expected = {"As": coins, "The loss averages": coins / size**2, "The loss adds": coins * batch,
                "The loss takes": size**2}
    return [value for start, value in expected.items() if option.startswith(start)] == [pytest.approx(float(printed))]


def right_line(option, samples, images):
    """Run the line on few draws and images."""
    code = re.sub(rf"\b{samples}\b", "3", re.sub(rf"\b{images}\b", "5", option.strip("`")))
    log_w = torch.randn(3, 5, generator=torch.Generator().manual_seed(1)).double()
    wanted = -np.mean([math.log(sum(math.exp(w) for w in draws) / 3) for draws in log_w.T.tolist()])
    return eval(code, {"log_w": log_w, "math": math}).item() == pytest.approx(wanted)


def encoder_alone(option, log_px, before, after):
    level, start, end = exact(shown(log_px), shown(before), shown(after))
    return [Fraction(number) for number in re.findall(r"-?\d+\.?\d*", option)] == [level, level - start, level - end]


def sees_a_mean(option, latents, mu, std):
    """Whether a KL that is averaged over the latents fails the test of the option."""
    count, m, s = numbers(option)[:3]
    summed = count * kl_integral(m, s, 0, 1)
    return summed / count < -1e-6 if "at least" in option else abs(summed / count - summed) > 1e-6


RIGHT = {
    "test_that_sees_a_mean": sees_a_mean,
    "encoder_alone": encoder_alone,
    "line_of_a_kl": rightly_repaired,
    "gradient_of_a_step": slope_of_a_step,
    "range_activation_loss": fits,
    "active_latents": active,
    "validate_at_one": best_bound,
    "first_value": first_value,
    "order_of_the_sums": right_line,
    "bounds_of_two_encoders": lambda option, **bounds: re.fullmatch(
        r"It has not changed, and is at least \$(.+)\$\.", option) is not None and numbers(option) == [
            max(float(shown(bound)) for bound in bounds.values())]}


def test_every_template_has_a_second_route():
    assert [*sorted(SECOND.keys() | RIGHT.keys())] == sorted(template.name for template in TEMPLATES)
    assert not SECOND.keys() & RIGHT.keys()
    assert len(TEMPLATES) >= 26
    assert {page: sum(template.page[:2] == page for template in TEMPLATES) >= 2 for page in exam.PAGES} == {
        f"{page:02}": True for page in range(14)}


@each_template
def test_the_key_is_right_by_a_second_route(template, questions):
    for question in questions[template.name]:
        if template.name in SECOND:
            second = SECOND[template.name](**question.given)
            assert float(second) == pytest.approx(question.right, rel=1e-5, abs=1e-6), question.text
        else:
            right = [option for option in question.options if RIGHT[template.name](option, **question.given)]
            assert right == [question.right], question.text


@each_template
def test_wrong_answers_can_be_told_from_the_right_one(template, questions):
    for question in questions[template.name]:
        assert len(question.wrong) >= 3
        if question.options:
            assert len(set(question.options)) == len(question.options) == 4
            assert question.options.count(question.right) == 1
            assert set(question.options) == {question.right, *question.wrong.values()}
        else:
            printed = [float(shown(answer)) for answer in question.wrong.values()]
            assert len({*printed, float(shown(question.right))}) == len(printed) + 1
            assert abs(float(shown(question.right)) - question.right) <= question.tolerance / 2
            four_digits = question.right if isinstance(question.right, int) else float(f"{question.right:.4g}")
            assert abs(four_digits - question.right) <= question.tolerance  # as the sheet asks for
            assert min(abs(answer - question.right) for answer in printed) > question.tolerance


@each_template
def test_seeds_give_other_numbers_and_the_text_states_all_that_are_given(template, questions):
    drawn = questions[template.name]
    assert len({(question.text, question.right) for question in drawn}) >= 30
    if template.name in RIGHT:
        assert {question.options.index(question.right) for question in drawn} == {0, 1, 2, 3}
    for question in drawn:
        for value in question.given.values():
            rows = [value] if f"{shown(value)}" in question.text or not isinstance(value, list) else value
            assert all(shown(part) in question.text for part in rows)
        for text in (question.text, question.solution, *question.wrong, *question.options):
            assert not re.search(r"<|\bnan\b|\binf\b|\de[-+]\d", text), text


@each_template
def test_sections_and_equations_are_those_of_the_course(template, questions, equations):
    path = pages.FOLDER / f"{template.page}.ipynb"
    prose = "\n".join(text for _, text in pages.cells(path, "markdown"))
    assert re.search(rf"(?m)^## {re.escape(template.section)}$", prose)
    named = set(re.findall(r"\((\d+\.\d+)\)", template.make.__doc__))
    assert named <= equations


def test_one_seed_gives_one_question_on_every_computer():
    template, = (template for template in TEMPLATES if template.name == "kl_of_one_latent")
    assert [draw(template, seed).given for seed in (0, 1)] == [{"mu": 1.0, "std": 1.5}, {"mu": -1.0, "std": 0.5}]


def question_of(right, wrong):
    template, = (template for template in TEMPLATES if template.name == "kl_of_one_latent")
    return draw(template, 0)._replace(right=right, wrong=dict(enumerate(wrong)), tolerance=0.01)


@pytest.mark.parametrize("right, wrong, fair", [
    (1.5, [1.6, 2.0, 3.0], True),
    (1.5, [1.51, 2.0, 3.0], False),
    (1.5, [1.6, 2.0, 2.00001], False),
    (0.04, [1.6, 2.0, 3.0], False),
    ("a", ["b", "c", "d"], True),
    ("a", ["b", "c", "b"], False),
])
def test_numbers_that_blur_the_answers_are_drawn_again(right, wrong, fair):
    assert is_fair(question_of(right, wrong)) == fair


@pytest.mark.parametrize("text, filled", [
    ("$<a>-<b>$", "$1.5-(-2)$"), ("$<b>-<a>$", "$-2-1.5$"), ("$<b>^2$", "$(-2)^2$"), (r"\cdot <b>", r"\cdot (-2)"),
    ("$=<b>$", "$=-2$"), ("$<list>$", r"$(1.5,\ {-2})$"), ("<word>", "x"), ("`a < b`", "`a < b`")])
def test_names_in_a_text_are_filled_in(text, filled):
    assert fill(text, {"a": 1.5, "b": -2.0, "list": [1.5, -2.0], "word": "x"}) == filled


@pytest.mark.parametrize("value, text", [
    (7, "7"), (0.1 + 0.2, "0.3"), (2 / 3, "0.6667"), (-868.768, "-868.77"), (25.0, "25"), (12345.6, "12346")])
def test_numbers_in_print(value, text):
    assert shown(value) == text


# The sheet and its key

def write(folder, *args):
    exam.main(list(args), folder=folder)
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    return write(tmp_path_factory.mktemp("exam"), "--questions", str(len(TEMPLATES)), "--seed", "3")


def test_questions_are_spread_over_the_pages_that_are_asked_for():
    for number in (1, 2, 5, 13, 20):
        found = exam.chosen(exam.PAGES, number, seed=number)
        assert len({template.name for template in found}) == number
        assert len({template.page for template in found}) == min(number, 14)
    assert [template.page[:2] for template in exam.chosen(["02", "04"], 4, seed=0)] == ["02", "02", "04", "04"]
    assert exam.chosen(exam.PAGES, 8, seed=1) != exam.chosen(exam.PAGES, 8, seed=2)


def test_one_seed_gives_one_sheet(tmp_path, capsys):
    first, again, other = (write(tmp_path / name, "--pages", wish, "--questions", "4", "--seed", seed)
                           for name, wish, seed in (("a", "02,04", "7"), ("b", "04,02", "7"), ("c", "02,04", "8")))
    assert list(first) == ["key.html", "key.md", "sheet.html", "sheet.md"]
    assert first == again
    assert all(first[name] != other[name] for name in first)
    assert capsys.readouterr().out.startswith("4 questions, 1")
    assert "Seed 7 · 4 questions · 1" in first["sheet.md"] and "Seed 7 · 4 questions · 1" in first["key.md"]
    assert "`python3 run.py exam --seed 7 --pages 02,04 --questions 4` writes" in first["key.md"]


def test_the_sheet_gives_no_answer_away(questions):
    """It stays as it is when another option is the right one, and when right numbers and solutions are others."""
    asked = [drawn[3] for drawn in questions.values()]
    others = [question._replace(right=question.options[-1] if question.options else -1.25, solution="- Another.",
                                wrong={"done something else": (question.options or [7])[0]}, tolerance=0.5)
              for question in asked]
    assert exam.sheet(asked, 3) == exam.sheet(others, 3)
    assert exam.key(asked, 3, ["04"]) != exam.key(others, 3, ["04"])


def test_the_key_has_answer_solution_section_and_mistakes(questions, everything):
    for drawn in questions.values():
        question = drawn[3]
        assert question.text in everything["sheet.md"] and question.text in everything["key.md"]
        assert question.solution in everything["key.md"] and question.solution not in everything["sheet.md"]
        assert f"[{question.template.section}](" in everything["key.md"]
        assert all(f" has {why}." in everything["key.md"] for why in question.wrong)
    number, choice = (questions[name][3] for name in ("kl_of_one_latent", "active_latents"))
    band = f"(accept ${shown(number.right - 0.01)}$ to ${shown(number.right + 0.01)}$)"
    assert exam.answer(number).startswith(f"**Answer: ${shown(number.right)}$** nats {band}. Page 04, [One latent")
    assert exam.answer(choice).startswith(f"**Answer: {'ABCD'[choice.options.index(choice.right)]}**. Page 07, [Wh")


@pytest.mark.parametrize("name", ["sheet.html", "key.html"])
def test_the_html_is_well_formed_and_needs_no_network(everything, name):
    root = ElementTree.fromstring(everything[name])
    assert set(re.findall(r"https?://[^\s\"<]+", everything[name])) == {"http://www.w3.org/2000/svg"}
    assert {element.tag for element in root.iter()} & {"script", "link", "img", "iframe"} == set()
    assert "url(" not in everything[name] and "@import" not in everything[name]
    texts = [element.text or "" for element in root.iter() if element.tag not in ("code", "style")]
    texts += [element.tail or "" for element in root.iter()]
    assert not re.search(r"[$\\]", "".join(texts))
    formulas = [element for element in root.iter("{http://www.w3.org/2000/svg}svg")]
    assert len(formulas) > 100
    assert all(element.get("aria-label") and len(element[0].get("d")) > 20 for element in formulas)
    assert len(root.findall(".//section")) == len(TEMPLATES)


def test_links_of_the_key_lead_to_sections(everything):
    links = [element.get("href") for element in ElementTree.fromstring(everything["key.html"]).iter("a")]
    assert len(links) == len(TEMPLATES)
    for link in links:
        name, anchor = unquote(link).split("#")
        path = os.path.normpath(f"build/exam/{name}")  # the folder need not be there
        prose = "\n".join(text for _, text in pages.cells(path, "markdown"))
        assert anchor in {heading.replace(" ", "-") for heading in re.findall(r"(?m)^#+ (.+)$", prose)}


@pytest.mark.parametrize("args, message", [
    (["--pages", "02,44"], "argument --pages: wanted some of 00, 01, .*, 13, with commas between, got '44'"),
    (["--pages", "4"], "got '4'"),
    (["--pages", ""], "got ''"),
    (["--pages", "02,04", "--questions", "12"], "--questions: wanted 1 to 8, as many as pages 02, 04 have, got 12"),
    (["--questions", "0"], "got 0"),
    (["--questions", "many"], "--questions: invalid int value: 'many'"),
    (["--seed", "1.5"], "--seed: invalid int value: '1.5'"),
])
def test_wrong_arguments_are_named(args, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        exam.main(args, folder=tmp_path / "exam")
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "exam").exists()


def test_nothing_is_written_where_a_formula_cannot_be_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(exam, "sheet", lambda questions, seed: r"$\nosuchsymbol$")
    with pytest.raises(ValueError, match="nosuchsymbol"):
        exam.main([], folder=tmp_path / "exam")
    assert not (tmp_path / "exam").exists()
