"""checkup finds each known fault in three networks, raises no alarm on correct models, and leaves a model as it was."""

import importlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from correct_models import minus_elbo, minus_elbo_of_all
from exhibits import (
    IMAGES,
    LATENTS,
    NETWORKS,
    PIXELS,
    broadcast,
    error_of,
    log_w_of,
    made_of,
    network,
    over_images,
    pixel_mean,
    right_bound,
    right_kl,
)
from odd_models import GREY, Plain, Softplus, TrunkAndHeads, encoder_draws_itself, halves, log_std
from published_forms import InForward, SpreadFirst, cross_entropy
from torch import nn
from torch.nn import functional as F

from course import pages
from vae_lib.checkup import checkup
from vae_lib.checkup.exhibits import EXHIBITS
from vae_lib.gaussian import reparameterize
from vae_lib.likelihoods import Gaussian
from vae_lib.loss_translator import translate_loss
from vae_lib.models import dense_ae

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "tests/benchmarks")
        yield importlib.import_module("checkup_table")


@pytest.fixture(scope="module")
def kept(benchmark):
    return benchmark.TABLE.read_text().splitlines()


# The table of hits and false alarms


@pytest.mark.parametrize("name", EXHIBITS)
def test_each_fault_is_caught_in_three_networks_and_no_other_is_named(name, benchmark, kept):
    line = benchmark.line_of_exhibit(name)
    assert line.split() == [name, *["caught"] * len(NETWORKS)] and line in kept


def test_no_correct_model_raises_an_alarm(subtests, benchmark, kept):
    for name in benchmark.MODELS:
        with subtests.test(name):
            line = benchmark.line_of_model(name)
            assert line.removeprefix(name).split()[0] == "none" and line in kept


def test_the_table_holds_every_exhibit_and_model_once(benchmark, kept):
    lines = [line for line in kept[2:] if line and not line.startswith(("exhibit ", "correct model "))]
    assert len(lines) == len(EXHIBITS) + len(benchmark.MODELS)


# Other forms of the same faults


def shown(model=None, images=IMAGES, **given):
    return checkup(model or network("dense"), images, **given).shown


@pytest.mark.parametrize("draw", [lambda mu, log_var, training: mu + torch.randn_like(mu),
                                  lambda mu, log_var, training: mu,
                                  lambda mu, log_var, training: mu + log_var * torch.randn_like(mu),
                                  lambda mu, log_var, training: mu + 1.1 * (log_var / 2).exp() * torch.randn_like(mu),
                                  lambda mu, log_var, training: mu + (log_var / 2).exp() * torch.rand_like(mu),
                                  lambda mu, log_var, training: mu + (log_var / 2).exp() * torch.randn(len(mu), 1),
                                  lambda mu, log_var, training: mu + (log_var / 2).exp() * torch.randn(1)])
def test_noise_that_ignores_log_var_or_misreads_it_is_caught(draw):
    assert shown(loss=made_of(draw=draw)) == ["noise_std"]


def test_noise_that_the_images_of_a_batch_share_is_no_fault_of_the_bound():
    loss = made_of(draw=lambda mu, log_var, training: mu + (log_var / 2).exp() * torch.randn(1, LATENTS))
    report = checkup(network("dense"), IMAGES, loss)
    assert not report.shown and "Not examined (all images of a batch get one and the same noise" in str(report)


def test_draws_may_be_made_in_a_loop():
    def loss(model, x):
        mu, log_var = model.encode(x)
        logits = [model.decode(reparameterize(mu, log_var)) for _ in range(3)]
        errors = [F.binary_cross_entropy_with_logits(part, x.flatten(1), reduction="sum") / len(x) for part in logits]
        return sum(errors) / 3 + right_kl(mu, log_var).sum(1).mean()
    report = checkup(Plain(sigmoid=False), IMAGES.flatten(1), loss)
    assert not report.shown and "the loss takes 3 draws of z for each image" in str(report)


def test_the_reverse_of_a_variance_for_a_standard_deviation_is_caught():
    root = lambda mu, log_var, training: mu + (log_var / 4).exp() * torch.randn_like(mu)
    assert shown(loss=made_of(draw=root)) == ["std_as_variance"]
    squared = made_of(kl=lambda mu, log_var: 0.5 * (mu**2 + (2 * log_var).exp() - 2 * log_var - 1))
    assert shown(loss=squared) == ["std_as_variance"]


@pytest.mark.parametrize("kl, exhibit", [
    (lambda mu, log_var: 0.5 * (mu**2 + (log_var / 2).exp() - log_var / 2 - 1), "kl_sigma_for_variance"),
    (lambda mu, log_var: 0.5 * (mu**2 + log_var.exp()) - log_var - 0.5, "kl_half_at_prior"),
    (lambda mu, log_var: mu**2 + 0.5 * (log_var.exp() - log_var - 1), "kl_without_half"),
    (lambda mu, log_var: 0.5 * (mu**2 + log_var.exp() + log_var - 1), "kl_half_at_prior")])
def test_other_mixtures_in_the_kl_are_caught(kl, exhibit):
    assert shown(loss=made_of(kl=kl)) == [exhibit]


def test_a_missing_half_beside_a_full_density_is_caught():
    twice = made_of(kl=lambda mu, log_var: 2 * right_kl(mu, log_var))
    assert shown(network("dense", Gaussian(0.3)), GREY, loss=twice) == ["kl_without_half"]
    assert shown(network("dense", Gaussian(0.3)), GREY, loss=twice, beta=2) == []


def test_a_kl_summed_over_the_batch_is_caught():
    loss = made_of(reduce=lambda error, kl: error.mean() + kl.sum())
    assert shown(loss=loss) == ["loss_summed_over_batch"]


def test_sigmoids_are_counted_in_the_loss_and_in_a_likelihood():
    vae = network("dense")
    vae.decoder = nn.Sequential(vae.decoder, nn.Sigmoid())
    assert shown(vae) == ["sigmoid_twice"]
    in_the_loss = made_of(error=lambda model, x, output: -model.likelihood.log_prob(x, output.sigmoid()))
    assert shown(loss=in_the_loss) == ["sigmoid_twice"]
    vae.decoder.append(nn.Sigmoid())
    of_probabilities = made_of(error=lambda model, x, output: F.binary_cross_entropy(
        output, x, reduction="none").sum((1, 2, 3)))
    assert shown(vae, loss=of_probabilities) == ["sigmoid_twice"]


def test_one_head_is_enough():
    for place, layer in (("to_mu", nn.ReLU()), ("to_log_var", nn.ReLU()), ("to_mu", nn.BatchNorm1d(LATENTS))):
        vae = network("residual")
        setattr(vae.encoder, place, nn.Sequential(getattr(vae.encoder, place), layer))
        assert shown(vae) == ["relu_on_heads" if isinstance(layer, nn.ReLU) else "batch_norm_on_heads"]


def test_a_layer_behind_heads_that_have_died_is_found_and_heads_of_one_sign_are_no_fault():
    for layer, exhibit in ((nn.ReLU(), "relu_on_heads"), (nn.BatchNorm1d(LATENTS), "batch_norm_on_heads")):
        vae = network("dense")
        for number in vae.encoder.to_mu.parameters():
            nn.init.zeros_(number)
        vae.encoder.to_mu = nn.Sequential(vae.encoder.to_mu, layer)
        assert shown(vae) == [exhibit]
    cut_at_0_by_chance = network("dense")
    nn.init.zeros_(cut_at_0_by_chance.encoder.to_mu.weight)
    cut_at_0_by_chance.encoder.to_mu.bias.data = torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert shown(cut_at_0_by_chance) == []


def test_faults_are_found_behind_answers_of_other_forms():
    model, images, loss, validation = encoder_draws_itself()
    model.to_log_var.register_forward_hook(lambda module, inputs, answer: answer.relu())
    assert shown(model, images, loss=loss, validation=validation) == ["relu_on_heads"]
    model, images, loss, validation = halves()
    model.encoder.append(nn.ReLU())
    assert shown(model, images, loss=loss, validation=validation) == ["relu_on_heads"]


def test_the_worst_samples_are_found_in_a_training_loss_too():
    def loss(model, x):
        losses = -log_w_of(model, x, 6)
        return (losses.softmax(0) * losses).sum(0).mean()
    assert shown(loss=loss) == ["softmax_of_the_loss"]


def test_a_bound_or_a_validation_at_the_mean_is_caught():
    right = made_of()
    at_mean = made_of(draw=lambda mu, log_var, training: mu)
    assert shown(loss=right, validation=over_images(at_mean)) == ["eval_returns_mu"]
    assert shown(loss=right, bound=lambda model, x, num_samples: at_mean(model, x)) == ["eval_returns_mu"]


def test_a_bound_of_either_sign_or_for_each_image_is_read():
    for bound in (lambda model, x, k: -right_bound(model, x, k),
                  lambda model, x, k: -log_w_of(model, x, k).logsumexp(0)):
        report = checkup(network("dense"), IMAGES, bound=bound)
        assert not report.shown and "softmax_of_the_loss" in [found.exhibit for found in report.with_verdict("clear")]
    assert any("log 16" in remark for remark in report.remarks)  # the second drops log k


def test_faults_are_found_between_the_layers_of_one_forward():
    model = InForward()
    model.draw = lambda mu, log_var: mu + log_var.exp() * torch.randn_like(mu)
    assert shown(model, loss=cross_entropy) == ["std_as_variance"]
    model.fc21.register_forward_hook(lambda module, inputs, answer: answer.relu())
    assert shown(model, loss=cross_entropy) == ["std_as_variance", "relu_on_heads"]


def plain_loss_with(kl_of_image, latents=4):
    def loss(model, x):
        logits, mu, log_var = model(x)
        assert mu.shape[1] in (4, latents)
        error = F.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="none").sum(1)
        return (error + kl_of_image(right_kl(mu, log_var))).mean()
    return loss


def test_a_loss_for_one_size_of_batch_is_not_cleared_of_a_sum_over_it():
    def loss(model, x):
        assert len(x) == 8
        return made_of()(model, x)
    report = checkup(network("dense"), IMAGES, loss)
    said = {found.exhibit: found.evidence for found in report.with_verdict("not examined")}
    assert not report.shown and "other numbers cannot be tried" in said["loss_summed_over_batch"]


def test_a_weight_of_one_over_the_latents_is_no_average():
    weighed, averaged = lambda kl: kl.sum(1) / 4, lambda kl: kl.mean(1)
    assert shown(InForward(), loss=plain_loss_with(weighed, 8)) == []
    assert shown(InForward(), loss=plain_loss_with(averaged, 8)) == ["kl_mean_over_latents"]
    for either in (weighed, averaged):  # and a loss that takes 4 latents only
        report = checkup(InForward(), IMAGES, plain_loss_with(either))
        assert not report.shown and "and so may a weight that is meant" in str(report)


def test_a_log_standard_deviation_is_known_by_noise_and_kl_together():
    """The encoder of a tutorial keeps its KL as an attribute, with the 1/2 in the wrong place."""
    def loss(model, x):
        mu, log_std = model.encode(x.flatten(1))
        output = model.decode(mu + log_std.exp() * torch.randn_like(mu))
        kl = (log_std.exp() ** 2 + mu**2 - log_std - 0.5).sum()
        return ((x.flatten(1) - output) ** 2).sum() + kl
    report = checkup(Plain(), GREY, loss)
    assert report.shown == ["kl_half_at_prior"] and "lowest at a variance of 0.5" in str(report)


@pytest.mark.parametrize("kl", [lambda mu, log_var: -right_kl(mu, log_var),
                                lambda mu, log_var: right_kl(mu, log_var) - mu**2])
@pytest.mark.parametrize("likelihood, images", [(None, IMAGES), (Gaussian(0.3), GREY)])
def test_a_sign_in_the_kl_is_caught(kl, likelihood, images):
    report = checkup(network("dense", likelihood), images, loss=made_of(kl=kl))
    assert report.shown == ["kl_half_at_prior"] and "without any lowest value" in str(report)


def test_a_mean_over_pixels_is_caught_beside_a_kl_of_the_whole_batch():
    loss = made_of(error=lambda model, x, output: F.mse_loss(output, x),
                   reduce=lambda error, kl: error + kl.sum())
    assert shown(loss=loss) == ["loss_summed_over_batch", "mean_mse_summed_kl"]


PAIRS = {
    "kl_without_half": {"kl": lambda mu, log_var: 2 * right_kl(mu, log_var)},
    "kl_half_at_prior": {"kl": lambda mu, log_var: mu**2 + log_var.exp() - log_var / 2 - 0.5},
    "kl_sigma_for_variance": {"kl": lambda mu, log_var: 0.5 * (mu**2 + (log_var / 2).exp() - log_var - 1)},
    "kl_mean_over_latents": {"reduce": lambda error, kl: (error + kl.mean(1)).mean()},
    "loss_summed_over_batch": {"reduce": lambda error, kl: error.sum() + kl.sum(1).mean()},
    "mean_mse_summed_kl": {"error": pixel_mean},
    "shapes_broadcast": {"error": broadcast},
    "gaussian_constant_on_bernoulli": {"error": lambda model, x, output: error_of(model, x, output)
                                       + PIXELS / 2 * np.log(2 * np.pi)},
}


@pytest.mark.parametrize("first, second", [
    ("kl_without_half", "kl_mean_over_latents"), ("kl_without_half", "loss_summed_over_batch"),
    ("kl_without_half", "mean_mse_summed_kl"), ("kl_without_half", "shapes_broadcast"),
    ("kl_half_at_prior", "kl_mean_over_latents"), ("kl_half_at_prior", "mean_mse_summed_kl"),
    ("kl_sigma_for_variance", "gaussian_constant_on_bernoulli"), ("kl_mean_over_latents", "shapes_broadcast")])
def test_one_fault_does_not_hide_another(first, second):
    assert shown(loss=made_of(**PAIRS[first], **PAIRS[second])) == [
        name for name in EXHIBITS if name in (first, second)]


def test_two_sigmoids_are_caught_where_the_output_has_settled_at_black():
    vae = network("dense")
    nn.init.constant_(vae.decoder.to_output.bias, -9.0)
    nn.init.zeros_(vae.decoder.to_output.weight)
    vae.decoder = nn.Sequential(vae.decoder, nn.Sigmoid())
    assert shown(vae, loss=made_of()) == ["sigmoid_twice"]


def test_logits_that_happen_to_lie_between_0_and_1_are_no_probabilities():
    vae = network("dense")
    nn.init.zeros_(vae.decoder.to_output.weight)
    nn.init.uniform_(vae.decoder.to_output.bias, 0.0, 1.0)
    assert shown(vae, loss=made_of()) == []


def test_a_wrong_draw_from_a_standard_deviation_is_caught_by_the_kl():
    def loss(model, x):
        mu, std = model.encode(x.flatten(1))
        output = model.decode(mu + std**2 * torch.randn_like(std))
        kl = 0.5 * (mu**2 + std**2 - 2 * std.log() - 1).sum(1)
        return (F.binary_cross_entropy(output, x.flatten(1), reduction="none").sum(1) + kl).mean()
    assert shown(Softplus(), loss=loss) == ["std_as_variance"]


def test_validation_at_the_beta_that_is_meant_is_no_fault():
    half = made_of(reduce=lambda error, kl: (error + 0.5 * kl.sum(1)).mean())
    assert shown(loss=half, validation=over_images(half), beta=0.5) == []
    assert shown(loss=half, validation=over_images(half)) == ["validation_at_another_beta"]


# What it says


@pytest.mark.parametrize("error, weight, kl_weight", [("cross entropy", 1, 1), ("cross entropy", 0.5, 3),
                                                      ("squared error", 1, 1), ("squared error", 7, 0.2)])
def test_it_reads_what_the_translator_makes_of_the_loss(error, weight, kl_weight):
    def of_image(model, x, output):
        if error == "squared error":
            return weight * ((x - output) ** 2).sum((1, 2, 3))
        return weight * F.binary_cross_entropy_with_logits(output, x, reduction="none").sum((1, 2, 3))
    loss = made_of(error=of_image, reduce=lambda error, kl: (error + kl_weight * kl.sum(1)).mean())
    found = checkup(network("dense"), IMAGES, loss=loss).translation
    wanted = translate_loss(error, weight=weight, kl_weight=kl_weight, pixels=PIXELS)
    for one, other in zip(found, wanted):
        assert one == pytest.approx(other) if other is not None else one is None


def test_the_articles_loss_is_named_for_what_it_is(benchmark):
    report = checkup(*benchmark.MODELS["the article's fully connected network"]())
    constant = 128 * np.log(np.pi)  # 256 pixels, half a nat times log pi each
    text = str(report)
    assert text.startswith("no fault found (15 of 19 exhibits examined)\n")
    assert f"variance s2 = 0.5 at beta = 1, without its constant of {constant:.2f} nats an image." in text
    assert "the decoder is affine" in text and report.translation.variance_on_unit_range == 0.125
    assert "Not examined (no bound given): log_weights_over_images, softmax_of_the_loss" in text


def test_a_fault_comes_with_evidence_cure_and_section():
    report = checkup(network("dense"), IMAGES, loss=made_of(kl=lambda mu, log_var: 2 * right_kl(mu, log_var)))
    lines = str(report).splitlines()
    assert lines[0] == "1 fault: kl_without_half (15 of 19 exhibits examined)"
    assert lines[2:6] == [
        "kl_without_half: The KL lacks its 1/2.",
        "  Evidence: a latent costs +1 mu^2 +1 exp(log_var) -1 log_var and a constant; beta = 2.",
        "  What to do: Use 1/2 (mu^2 + sigma^2 - log sigma^2 - 1). If twice the KL is meant, say beta=2.",
        "  Explained in 04_gaussian_kl.ipynb#One-latent:-three-integrals"]


def test_coefficients_of_the_kl_are_in_nats_if_a_nat_is_known():
    twice = lambda model, x: 20 * made_of(kl=lambda mu, log_var: 2 * right_kl(mu, log_var))(model, x)
    known = "a latent costs +1 mu^2 +1 exp(log_var) -1 log_var and a constant; beta = 2"
    for likelihood, images in ((None, IMAGES), (Gaussian(0.3), GREY)):
        assert known in str(checkup(network("dense", likelihood), images, twice))
    of_error = made_of(error=lambda model, x, output: 7 * ((x - output) ** 2).sum((1, 2, 3)))
    assert "-0.5 log_var and a constant, in units of the loss; 2 s2 beta" in str(checkup(Plain(), GREY, plain_sse))
    assert "in units of the loss" in str(checkup(network("dense"), GREY, of_error))


def plain_sse(model, x):
    output, mu, log_var = model(x)
    return ((output - x.flatten(1)) ** 2).sum(1).mean() + right_kl(mu, log_var).sum(1).mean()


@pytest.mark.parametrize("loss, images, remark", [
    (lambda model, x: -made_of()(model, x), IMAGES, "the loss falls as the error grows"),
    (made_of(), 2 * IMAGES - 1, "pixels from -1 to 1 enter a cross entropy, which wants 0 to 1"),
    (made_of(reduce=lambda error, kl: error.sum() + kl.sum(1).mean()), IMAGES, "0.125 times the KL, for a batch of 8"),
    (made_of(kl=lambda mu, log_var: 0 * mu), IMAGES, "the KL was not read: it has no KL"),
])
def test_what_is_worth_knowing_is_said(loss, images, remark):
    assert remark in str(checkup(network("dense"), images, loss=loss))


def test_a_forward_that_copies_at_the_mean_says_nothing_of_the_noise_in_training():
    model = InForward()
    model.draw = lambda mu, log_var: mu + 0 * log_var
    assert shown(model, loss=cross_entropy) == ["noise_std"]
    model = Plain()
    model.forward = lambda x: model.decode(model.encode(x.flatten(1))[0])
    report = checkup(model, IMAGES)
    said = {found.exhibit: found.evidence for found in report.with_verdict("not examined")}
    assert not report.shown and "only a loss tells how training draws z" in said["noise_std"]
    assert said["eval_returns_mu"] == "z is mu itself in training too" and all(said.values())


def test_weights_that_are_nan_are_said_and_the_loss_is_read_all_the_same():
    model = network("dense")
    model.encoder.to_mu.weight.data[0, 0] = torch.nan
    report = checkup(model, IMAGES, made_of())
    said = {found.exhibit: found.evidence for found in report.with_verdict("not examined")}
    assert "some weights are NaN" in str(report) and report.translation.beta == pytest.approx(1)
    assert said["relu_on_heads"] == "the encoder returns NaN for mu" and not report.shown


def test_text_dict_and_table_hold_the_same():
    report = checkup(network("dense"), GREY, loss=made_of(), bound=right_bound)
    held = json.loads(json.dumps(report.as_dict()))
    assert held["verdict"] == report.verdict and [found["exhibit"] for found in held["findings"]] == list(EXHIBITS)
    assert held["translation"]["beta"] == pytest.approx(1) and len(held["remarks"]) == 2
    table = report._repr_html_()
    assert table.count("<tr>") == 1 + len(EXHIBITS) and report.verdict in table and "pixels are grey" in table


def test_the_noise_comes_as_a_picture():
    tenth = lambda mu, log_var, training: mu + 0.1 * (log_var / 2).exp() * torch.randn_like(mu)
    report = checkup(network("dense"), IMAGES, loss=made_of(draw=tenth))
    assert report.picture().png.startswith(b"\x89PNG") and "standard deviation 0.1" in report.picture().alt
    assert report.noise.std() == pytest.approx(0.1, rel=0.05)


def test_every_section_that_it_names_exists():
    for *_, place in EXHIBITS.values():
        name, _, anchor = place.partition("#")
        lines = "\n".join(source for _, source in pages.cells(ROOT / pages.FOLDER / name, "markdown")).splitlines()
        headings = {line.lstrip("# ").replace(" ", "-") for line in lines if line.startswith("#")}
        assert anchor in headings, place


# What it leaves alone


def state(model):
    return ({name: value.clone() for name, value in model.state_dict().items()},
            [(name, module.training, sorted(vars(module)), len(module._forward_hooks))
             for name, module in model.named_modules()],
            [(weights.grad, weights.requires_grad) for weights in model.parameters()],
            torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())


def assert_same(before, after):
    assert all(torch.equal(value, after[0][name]) for name, value in before[0].items())
    assert torch.equal(before[3], after[3])
    assert before[1:3] + before[4:] == after[1:3] + after[4:]


@pytest.mark.parametrize("loss", [
    minus_elbo, lambda model, x: np.random.rand() * random.random() * minus_elbo(model, x)])
def test_the_model_and_the_random_streams_are_as_before(loss):
    vae = network("convolutional")
    vae.encoder.stages.eval()
    vae.decoder.from_latent.weight.requires_grad_(False)
    before = state(vae)
    checkup(vae, IMAGES, loss, minus_elbo_of_all, right_bound)
    assert_same(before, state(vae))


@pytest.mark.filterwarnings("ignore:.*jit.* is deprecated")
def test_scripted_parts_are_examined_and_a_scripted_model_is_refused():
    model = SpreadFirst()
    model.encoder, model.decoder = torch.jit.script(model.encoder), torch.jit.script(model.decoder)
    model.decoder.eval()
    before = state(model)
    assert checkup(model, IMAGES, cross_entropy).translation.beta == pytest.approx(1)
    assert_same(before, state(model))
    with pytest.raises(ValueError, match="a scripted model hides its parts"):
        checkup(torch.jit.trace(SpreadFirst(), IMAGES, check_trace=False), IMAGES, cross_entropy)


def test_a_compiled_model_is_examined_as_it_was_before():
    class Compiled(nn.Module):  # as torch.compile returns it, which takes seconds to import
        def __init__(self):
            super().__init__()
            self._orig_mod = SpreadFirst()
    assert checkup(Compiled(), IMAGES, cross_entropy).translation.beta == pytest.approx(1)


def test_a_counter_in_the_model_is_set_back():
    model = TrunkAndHeads()
    model.steps = 3
    checkup(model, IMAGES, lambda model, x: model.loss_function(*model(x)))
    assert model.steps == 3


def test_the_model_is_as_before_after_an_interrupt():
    vae, calls = network("convolutional"), []

    def loss(model, x):
        calls.append(1)
        if len(calls) == 40:
            raise KeyboardInterrupt
        return minus_elbo(model, x)
    before = state(vae)
    with pytest.raises(KeyboardInterrupt):
        checkup(vae, IMAGES, loss)
    assert_same(before, state(vae))


def test_a_step_of_training_is_refused_and_undone():
    vae = network("dense")

    def step(model, x):
        with torch.enable_grad():
            loss = minus_elbo(model, x)
            loss.backward()
        for weights in model.parameters():
            weights.sub_(0.1 * weights.grad)
        return loss
    before = state(vae)
    with pytest.raises(ValueError, match="loss: wanted a function that computes the loss, got one that changes the we"):
        checkup(vae, IMAGES, step)
    assert_same(before, state(vae))


def test_one_seed_gives_one_report():
    reports = [checkup(network("dense"), IMAGES, minus_elbo, seed=seed) for seed in (1, 1)]
    assert str(reports[0]) == str(reports[1]) and torch.equal(reports[0].noise, reports[1].noise)


# Models of other names, and what it refuses


class Renamed(nn.Module):
    """Two encoders, of which the first is not the one that counts."""

    def __init__(self):
        super().__init__()
        self.other, self.net = network("dense").encoder, network("dense", seed=1)

    def forward(self, x):
        self.other(x)
        return self.net(x)


def test_parts_can_be_named():
    loss = lambda model, x: minus_elbo(model.net, x) + 0 * model.other(x)[0].sum()
    report = checkup(Renamed(), IMAGES, loss, encode="net.encoder", decode="net.decoder")
    assert not report.shown and report.translation.beta == pytest.approx(1)
    named = checkup(InForward(), IMAGES, cross_entropy, encode="fc21, fc22", decode="fc3, fc4")
    assert named.as_dict() == checkup(InForward(), IMAGES, cross_entropy).as_dict()


def made_in_inference_mode():
    with torch.inference_mode():
        return network("dense")


class HiddenTwiceTheCode(nn.Module):
    """A plain autoencoder, with layers that have as many units as mu and log_var would."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 4))
        self.decoder = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 64))

    def forward(self, x):
        return self.decoder(self.encoder(x))


def test_a_second_answer_can_be_named():
    model, images, loss = log_std()
    right = checkup(model, images, loss, spread="log_std")
    assert not right.shown and not checkup(model, images, loss).shown
    assert shown(spread="log_std", loss=made_of()) == ["kl_sigma_for_variance"]


@pytest.mark.parametrize("given, error, said", [
    ({"model": 3}, TypeError, "model: wanted a torch.nn.Module that encodes and decodes, got int"),
    ({"images": IMAGES.byte()}, TypeError, "images: wanted a floating-point tensor"),
    ({"images": IMAGES[:5]}, ValueError, r"images: wanted .* N >= 8, got float32 of shape \(5, 1, 8, 8\)"),
    ({"images": IMAGES[:1].repeat(9, 1, 1, 1)}, ValueError, "images: wanted at least 8 different ones, got 1"),
    ({"images": IMAGES / 0}, ValueError, "images: wanted finite numbers"),
    ({"loss": 0.5}, TypeError, "loss: wanted a function of the model and images, or None, got 0.5"),
    ({"spread": "sigma"}, ValueError, "spread: wanted 'log_var' or 'log_std' or 'std' or 'variance', got 'sigma'"),
    ({"beta": 0}, ValueError, "beta: wanted a positive finite number, got 0"),
    ({"seed": -1}, ValueError, "seed: wanted an integer, 0 or more, got -1"),
    ({"model": dense_ae((1, 8, 8), (16,), 4)}, ValueError, r"model: wanted a VAE with a part that returns \(mu, log"),
    ({"model": HiddenTwiceTheCode(), "images": IMAGES.flatten(1)}, ValueError, "model: wanted a VAE with a part that"),
    ({"model": network("dense").to("meta")}, ValueError, "model: wanted weights with numbers, got .* on the device"),
    ({"model": nn.LazyLinear(3)}, ValueError, "model: wanted weights with numbers, got the lazy weight: run the model"),
    ({"model": made_in_inference_mode()}, ValueError, "model: wanted weights that can be set back, got .* made in"),
    ({"images": IMAGES.to("meta")}, ValueError, "images: wanted numbers, got a tensor on the device meta"),
    ({"encode": "to_mu, to_spread"}, ValueError, "encode: wanted the name of a part of the model, got 'to_mu, to_spr"),
    ({"encode": "inference"}, ValueError, "encode: wanted the name of a part of the model, got 'inference'"),
    ({"images": IMAGES[:, :, :4]}, ValueError, "Found: .* wanted images of shape"),
])
def test_bad_arguments_are_refused(given, error, said):
    with pytest.raises(error, match=said):
        checkup(**{"model": network("dense"), "images": IMAGES} | given)


@pytest.mark.parametrize("loss, reason", [
    (lambda model, x: model(x)[0], "wanted one number, got Tensor (8, 1, 8, 8)"),
    (lambda model, x: minus_elbo(model, x) * float("nan"), "it gave nan"),
    (lambda model, x: {"total": minus_elbo(model, x)}, "wanted one number, got dict without the key 'loss'"),
    (lambda model, x: minus_elbo(model, x).backward(), "it asks for gradients"),
    (lambda model, x: 0 * minus_elbo(model, x), "it does not depend on the decoder's output"),
    (lambda model, x: minus_elbo(model, x) if x.std() > 2 else 1 / 0, "it raised ZeroDivisionError"),
])
def test_a_loss_that_cannot_be_read_is_said(loss, reason):
    report = checkup(network("dense"), IMAGES, loss)
    said = {found.exhibit: found.evidence for found in report.with_verdict("not examined")}
    assert not report.shown and reason in said["kl_without_half"]


def test_a_plain_model_is_examined_without_its_loss():
    report = checkup(Plain(), IMAGES.flatten(1))
    examined = [found.exhibit for found in report.with_verdict("clear")]
    assert examined == ["noise_std", "std_as_variance", "relu_on_heads", "batch_norm_on_heads", "eval_returns_mu"]
