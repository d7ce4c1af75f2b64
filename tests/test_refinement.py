"""Refined proposals, and bounds from both sides, against models whose log p(x) is known."""

from functools import partial

import pytest
import torch
from affine_vae import LIKELIHOOD, X, close, exact_vae, normals
from torch import nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal, kl_divergence

from vae_lib.annealing import ais, importance_sandwich, own_images
from vae_lib.evaluation import average_estimates, importance_estimates, nll
from vae_lib.exact import NonlinearModel
from vae_lib.flow import FlowVAE, RealNVP
from vae_lib.likelihoods import Gaussian
from vae_lib.models import dense_ae, dense_vae
from vae_lib.refinement import Gaps, Proposal, encoder_proposal, gaps, log_joint, refine, stratified_elbo
from vae_lib.residual import residual_vae

QUIET = dict(progress=False)
FAST = dict(steps=100, learning_rate=0.1) | QUIET
FEW = X[:12]


def posterior(exact, x):
    return MultivariateNormal(*exact.posterior(x.flatten(1)))


def gaussian(q):
    return MultivariateNormal(q.loc[:, 0], scale_tril=q.scale_tril[:, 0])


def elbos(found):
    return found.log_px_given_z - found.kl


def misled_vae(shift=0.3, widen=0.6):
    """The affine VAE and its exact model, by default with an encoder that errs."""
    return exact_vae(shift, widen)


@pytest.fixture(scope="module")
def refined():
    """The misled VAE, the exact model, and the refined q of a few images, by family."""
    model, exact = misled_vae()
    diagonal = refine(model, FEW, "diagonal", **FAST)
    return model, exact, {"diagonal": diagonal, "full": refine(model, FEW, "full", start=diagonal, **FAST)}


# --- refine

def test_the_diagonal_family_reaches_the_best_diagonal_gaussian(refined):
    model, exact, q = refined
    mu, log_var = q["diagonal"].loc[:, 0], 2 * q["diagonal"].scale_tril[:, 0].diagonal(dim1=1, dim2=2).log()
    mean = exact.posterior(FEW.flatten(1))[0]
    best = exact.elbo(FEW.flatten(1), mean, -exact.precision().diagonal().log().expand_as(mean))
    close(exact.elbo(FEW.flatten(1), mu, log_var), best, 2e-3)
    assert not q["diagonal"].scale_tril[..., 1, 0].any()
    assert (best - exact.elbo(FEW.flatten(1), *model.encoder(FEW))).min() > 0.5


def test_the_full_family_reaches_log_px(refined):
    model, exact, q = refined
    gap = {family: kl_divergence(gaussian(found), posterior(exact, FEW)) for family, found in q.items()}
    assert gap["full"].max() < 1e-3 and gap["diagonal"].min() > 0.02
    found = importance_estimates(model, FEW, 200, q=q["full"], **QUIET)
    close(elbos(found), exact.log_px(FEW.flatten(1)), 0.01)
    close(found.log_px, exact.log_px(FEW.flatten(1)), 0.002)
    assert found.effective_sample_size.min() > 195
    before = importance_estimates(model, FEW, 200, **QUIET)
    assert before.effective_sample_size.max() < 130


class Square(nn.Module):
    """x ~ N(z^2, 0.3^2) for one latent and one pixel: two modes. The encoder answers with one wide Gaussian."""

    def __init__(self):
        super().__init__()
        self.likelihood, self.weight = Gaussian(0.09), nn.Parameter(torch.ones(1, dtype=torch.float64))

    def encoder(self, x):
        return torch.full_like(x[:, 0, 0], 0.2), torch.zeros_like(x[:, 0, 0])

    def decoder(self, z):
        return (self.weight * z**2)[..., None, None]


def test_two_modes_take_a_mixture():
    model, x = Square(), torch.tensor([1.0, 1.5], dtype=torch.float64).view(2, 1, 1, 1)
    exact = NonlinearModel(torch.square, 0.09)
    log_px, best_gaussian = exact.log_px(x.flatten()), exact.elbo(x.flatten(), *exact.best_gaussian_q(x.flatten()))
    widths, apart = torch.full((2, 2, 1, 1), 0.2), torch.tensor([-0.5, 0.6]).view(1, 2, 1).expand(2, 2, 1)
    start = Proposal(torch.zeros(2, 2), apart, widths)
    q = refine(model, x, "mixture", steps=150, num_samples=16, learning_rate=0.1, start=start, **QUIET)
    found = importance_estimates(model, x, 4000, q=q, **QUIET)
    close(found.log_px, log_px, 0.02)
    assert (log_px - elbos(found)).max() < 0.05 and (log_px - best_gaussian).min() > 0.6
    close(q.logits.softmax(-1), torch.full((2, 2), 0.5), 0.02)


def test_the_mixture_starts_from_the_full_and_the_full_from_the_diagonal():
    model, _ = misled_vae()
    options = dict(steps=2, num_samples=2, components=3, **QUIET)
    diagonal = refine(model, FEW, "diagonal", **options)
    full = refine(model, FEW, "full", start=diagonal, **options)
    mixture = refine(model, FEW, "mixture", start=full, **options)
    for family, expected in (("full", full), ("mixture", mixture)):
        assert all(map(torch.equal, refine(model, FEW, family, **options).parts(), expected.parts()))
    assert mixture.logits.shape == (12, 3)
    again = refine(model, FEW, "mixture", start=mixture, **options | dict(components=5))
    assert again.logits.shape == (12, 3), "a start that has components keeps them"


def test_a_climb_that_fails_leaves_the_start():
    model, _ = misled_vae()
    start = encoder_proposal(model, FEW)
    for rate in (3.0, 1e4):
        q = refine(model, FEW, "full", steps=2, learning_rate=rate, start=start, **QUIET)
        assert all(map(torch.equal, q.parts(), start.parts()))
    q = refine(model, FEW, "mixture", steps=2, learning_rate=1e4, start=start, **QUIET)
    z = normals(5, 12, 2)
    close(q.log_prob(z), start.log_prob(z), 1e-12)


def test_each_image_is_judged_alone():
    """The encoder is right about half of the images, and one large step can only harm them."""
    model, exact = misled_vae()
    shift = torch.tensor([0.0, 6.0]).double().repeat(6)[:, None]
    model.encoder = lambda x: (exact.posterior(x.flatten(1))[0] + shift, torch.full((12, 2), -1.9).double())
    start = encoder_proposal(model, FEW)
    q = refine(model, FEW, "diagonal", steps=1, learning_rate=1.2, start=start, **QUIET)
    kept = (q.loc == start.loc).flatten(1).all(1)
    assert kept[::2].all() and not kept[1::2].any()


def test_the_elbo_has_exact_gradients_to_the_weights_of_components():
    q = Proposal(torch.tensor([[0.3, -0.4, 1.0]]), normals(1, 3, 2), torch.eye(2).expand(1, 3, 2, 2) * 0.5)
    q.logits.requires_grad_()
    heights = torch.tensor([1.0, 5.0, -2.0]).double()
    joint = lambda z: heights[:, None] + q.detach().log_prob(z)
    for odd in 1, 3, 2.0:
        with pytest.raises(ValueError, match="num_samples: wanted an even integer, 2 or more, got"):
            stratified_elbo(joint, q, odd)
    elbo = stratified_elbo(joint, q, 2)
    close(elbo, (q.logits.softmax(-1) @ heights).detach(), 1e-12)
    elbo.sum().backward()
    weights = q.logits.detach().softmax(-1)
    close(q.logits.grad, weights * (heights - weights @ heights), 1e-12)


def test_with_another_prior_the_full_family_reaches_its_posterior():
    model, _ = misled_vae()
    prior = MultivariateNormal(torch.tensor([0.5, -0.3]).double(), torch.tensor([[0.81, 0.36], [0.36, 0.65]]).double())
    options = dict(prior=prior, **QUIET)
    q = refine(model, FEW, "full", steps=150, learning_rate=0.1, start=encoder_proposal(model, FEW), **options)
    found = importance_estimates(model, FEW, 200, q=q, **options)
    weight, bias = model.to_output.weight.detach(), model.to_output.bias.detach()
    covariance = weight @ prior.covariance_matrix @ weight.T + LIKELIHOOD.variance * torch.eye(6).double()
    close(found.log_px, MultivariateNormal(weight @ prior.mean + bias, covariance).log_prob(FEW.flatten(1)), 0.01)
    assert found.effective_sample_size.min() > 190
    close(elbos(found), found.log_px, 0.03)


def test_refining_leaves_model_and_random_state_alone():
    torch.manual_seed(0)
    model = residual_vae((1, 4, 4), channels=(3,), latent_dim=2).train()
    x, before = (normals(6, 1, 4, 4) > 0).float(), {name: part.clone() for name, part in model.state_dict().items()}
    state, options = torch.random.get_rng_state(), dict(steps=3, components=2, **QUIET)
    first, same, other = (refine(model, x, "mixture", seed=seed, **options) for seed in (1, 1, 2))
    gaps(model, x, 10, 10, steps=2, progress=False)
    ais(model, *own_images(model, 2), temperatures=2, progress=False)
    assert torch.equal(torch.random.get_rng_state(), state) and model.training
    assert all(torch.equal(part, before[name]) for name, part in model.state_dict().items())
    assert all(weights.grad is None and weights.requires_grad for weights in model.parameters())
    assert torch.equal(first.loc, same.loc) and not torch.equal(first.loc, other.loc)
    assert not any(part.requires_grad for part in first.parts())


def test_the_draws_that_choose_q_are_not_those_that_measure_it(monkeypatch):
    """Else a q that suits its draws would be measured too high, though one seed serves for both."""
    model, seen = misled_vae()[0], []
    draw = Proposal.noise
    monkeypatch.setattr(Proposal, "noise", lambda *arguments: seen.append(draw(*arguments)) or seen[-1])
    x, z = own_images(model, 12)
    q = refine(model, x, "mixture", steps=40, **QUIET)
    chosen_by = torch.cat([noise.flatten() for noise in seen] + [z.flatten()])
    seen.clear()
    importance_estimates(model, x, 500, q=q, **QUIET)
    measured_by = torch.cat([noise.flatten() for noise in seen])
    assert len(chosen_by) > 10_000 and len(measured_by) > 20_000
    assert not torch.isin(measured_by, chosen_by).any()


def test_bfloat16_is_for_networks_alone():
    torch.manual_seed(0)
    model, x = residual_vae((1, 8, 8), channels=(4,), latent_dim=2), (normals(4, 1, 8, 8) > 0).float()
    q = [refine(model, x, "full", steps=8, autocast=autocast, **QUIET) for autocast in (False, True)]
    assert not torch.equal(q[0].loc, q[1].loc)
    close(q[1].loc, q[0].loc, 0.1)
    for autocast in (False, True):
        found = importance_estimates(model, x, 50, q=q[0], autocast=autocast, **QUIET)
        close(found.log_px, importance_estimates(model, x, 50, q=q[0], **QUIET).log_px, 0.05)


@pytest.mark.parametrize("family, at_once", [("diagonal", 24), ("mixture", 24), ("mixture", 1)])
def test_no_more_pairs_are_decoded_at_a_time_than_stated(family, at_once):
    model, _ = misled_vae()
    decoded, decode = [], model.decoder
    model.decoder = lambda z: decoded.append(z.numel() // 2) or decode(z)
    refine(model, FEW[:6], family, steps=2, num_samples=4, components=3, batch_size=at_once, **QUIET)
    assert max(decoded) == max(at_once, 6 if family == "mixture" else 4)


# --- evaluation with a q

def test_a_refined_q_is_drawn_from_and_weighed_in_any_batches(refined):
    model, exact, q = refined
    log_px = exact.log_px(FEW.flatten(1))
    for batch_size in (1, 7, 64, 1000):
        found = average_estimates(importance_estimates(model, FEW, 30, batch_size, q=q["full"], **QUIET), 30)
        assert found.nll == pytest.approx(-log_px.mean().item(), abs=0.005)
        assert found.elbo == pytest.approx(-found.nll, abs=0.02) and found.kl > 1
    wide = Proposal(*q["diagonal"].parts()[:2], 1.5 * q["diagonal"].scale_tril)
    found = importance_estimates(model, FEW, 20_000, 20_000, q=wide, **QUIET)
    mu, log_var = wide.loc[:, 0], 2 * wide.scale_tril[:, 0].diagonal(dim1=1, dim2=2).log()
    close(found.log_px, log_px, 0.03)
    close(elbos(found), exact.elbo(FEW.flatten(1), mu, log_var), 0.04)
    prior = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    close(found.kl, kl_divergence(gaussian(wide), prior), 0.04)


def test_the_encoders_q_as_a_proposal_is_the_encoders_q():
    model, _ = misled_vae()
    q, z = encoder_proposal(model, FEW), normals(3, 12, 2)
    mu, log_var = model.encoder(FEW)
    close(q.log_prob(z), MultivariateNormal(mu, log_var.exp().diag_embed()).log_prob(z), 1e-12)
    with_q, without = (nll(model, FEW, 5000, refine=given, **QUIET) for given in (lambda *args, **options: q, None))
    assert with_q.nll == pytest.approx(without.nll, abs=0.02) and with_q.elbo == pytest.approx(without.elbo, abs=0.1)


def test_nll_draws_from_a_q_that_it_lets_refine():
    """On an exact model the refined q is the posterior, and every draw has the same weight."""
    model, exact = misled_vae()
    with_q, without = (nll(model, FEW, 50, refine=given, **QUIET) for given in (partial(refine, family="full"), None))
    log_px = exact.log_px(FEW.flatten(1)).mean().item()
    assert with_q.nll == pytest.approx(-log_px, abs=0.005) and without.nll > with_q.nll + 0.01
    assert with_q.effective_sample_size > 45 > 25 > without.effective_sample_size


def test_nll_hands_its_options_on_to_what_refines():
    seen, (model, _), prior = {}, misled_vae(), MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    options = dict(batch_size=7, seed=3, autocast=False, progress=False, prior=prior)
    nll(model, FEW, 5, refine=lambda model, x, **given: seen.update(given) or encoder_proposal(model, x), **options)
    assert seen == options


@pytest.mark.parametrize("options, error, message", [
    (dict(refine="full"), TypeError, "refine: wanted a function, got str"),
    (dict(refine=lambda *args, **options: None), TypeError, "refine: wanted a Proposal, .* got None"),
    (dict(refine=refine, num_samples=0), ValueError, "num_samples: wanted an integer, 1 or more, got 0")])
def test_nll_refuses_what_does_not_refine(options, error, message):
    with pytest.raises(error, match=message):
        nll(misled_vae()[0], FEW, **options, **QUIET)


def test_a_mixture_draws_its_components_by_their_weights():
    factor = torch.tensor([[[[0.5, 0.0], [0.3, 0.2]], [[1.0, 0.0], [-0.4, 0.6]]]]).double()
    q = Proposal(torch.tensor([[0.0, 1.0]]), torch.tensor([[[-2.0, 0.0], [1.0, 1.0]]]), factor)
    expected = MixtureSameFamily(Categorical(logits=q.logits[0]), MultivariateNormal(q.loc[0], scale_tril=factor[0]))
    z = q.sample(100_000, torch.Generator().manual_seed(0))
    close(z.mean(0)[0], expected.mean, 0.03)
    close(z[:, 0].var(0), expected.variance, 0.05)
    close(q.log_prob(z[:50])[:, 0], expected.log_prob(z[:50, 0]), 1e-12)
    assert 0 < (z[:, 0, 0] < -1.0).double().mean() - 0.26 < 0.04
    close(q.log_prob(z[:9]), q.repeated(6).log_prob(z[:9]), 1e-12)


def test_the_joint_density_is_that_of_the_model():
    model, exact = misled_vae()
    z = normals(4, 12, 2)
    close(log_joint(model, FEW, z).detach(), exact.log_joint(FEW.flatten(1), z), 1e-12)


# --- gaps

def test_gaps_are_those_of_the_exact_model():
    model, exact = misled_vae()
    x = X[:20]
    found = gaps(model, x, 500, 500, components=2, **FAST)
    pixels, encoded = x.flatten(1), model.encoder(x)
    best = exact.elbo(pixels, exact.posterior(pixels)[0], -exact.precision().diagonal().log()[None])
    close(found.encoder, exact.elbo(pixels, *encoded), 0.5)
    close(found.diagonal, best, 0.05)
    for part in (found.full, found.mixture, found.log_px):
        close(part, exact.log_px(pixels), 0.03)
    assert (found.effective_size > 450).all() and (found.effective_size_by_encoder < 300).all()
    means = found.means()
    expected = {"amortization": best - exact.elbo(pixels, *encoded), "family": exact.log_px(pixels) - best,
                "full": exact.log_px(pixels) - best, "mixture": 0.0 * best, "left": 0.0 * best, "missed": 0.0 * best}
    assert list(means) == list(expected)
    for name, values in expected.items():
        assert means[name][0] == pytest.approx(values.mean().item(), abs=0.03), name
        assert 0 < means[name][1] < 0.05


def test_the_means_of_gaps_and_their_standard_errors():
    parts = [[-10.0, -12.0], [-9.0, -9.0], [-8.0, -8.5], [-7.0, -8.0], [-6.5, -7.0], [-7.0, -9.0],
             [50.0, 60.0], [5.0, 6.0]]
    found = Gaps(*torch.tensor(parts).double())
    means = {name: pytest.approx(pair) for name, pair in found.means().items()}
    assert means == {"amortization": (2.0, 1.0), "family": (2.25, 0.25), "full": (0.75, 0.25),
                     "mixture": (0.75, 0.25), "left": (0.75, 0.25), "missed": (1.25, 0.75)}
    with pytest.raises(ValueError, match="log_px: wanted .* N >= 2"):
        Gaps(*(part[:1] for part in found)).means()


# --- from both sides

def misses(sandwich, exact, x):
    """How far the mean bounds lie from log p(x), in nats and in standard errors: for the lower and the upper one."""
    off = torch.stack(sandwich) - exact.log_px(x.flatten(1))
    return off.mean(1), off.mean(1) / (off.std(1) / len(x) ** 0.5)


def test_importance_weights_bound_log_px_from_both_sides_and_the_bounds_meet():
    model, exact = misled_vae(0.5, 1.0)
    x, z = own_images(model, 500)
    (low, high), (below, above) = misses(importance_sandwich(model, x, z, 3, **QUIET), exact, x)
    assert below < -5 and above > 5 and high - low > 1
    (low, high), _ = misses(importance_sandwich(model, x, z, 300, **QUIET), exact, x)
    assert abs(low) < 0.05 and abs(high) < 0.05


def test_importance_bounds_with_the_posterior_for_q_are_log_px():
    model, exact = misled_vae()
    x, z = own_images(model, 5)
    mean, covariance = exact.posterior(x.flatten(1))
    q = Proposal(torch.zeros(5, 1), mean[:, None], torch.linalg.cholesky(covariance).expand(5, 1, 2, 2))
    for bound in importance_sandwich(model, x, z, 2, q=q, batch_size=3, **QUIET):
        close(bound, exact.log_px(x.flatten(1)), 1e-9)
    for bound in ais(model, x, z, q=q, temperatures=4, chains=2, **QUIET):
        close(bound, exact.log_px(x.flatten(1)), 1e-9)


def test_annealed_bounds_lie_below_and_above_and_meet_as_temperatures_grow():
    model, exact = misled_vae(0.5, 1.0)
    x, z = own_images(model, 300)
    widths = []
    for temperatures, chains in ((2, 1), (8, 2), (30, 4)):
        sandwich = ais(model, x, z, temperatures=temperatures, chains=chains, leapfrogs=3, batch_size=2000, **QUIET)
        (low, high), (below, above) = misses(sandwich, exact, x)
        assert below < 3 and above > -3
        widths.append(high - low)
    assert below < 3 and low > -0.1 and high < 0.1
    assert widths[0] > 1 > widths[1] > 2 * widths[2]


def test_one_temperature_is_importance_weighting():
    """Then no chain moves: below is log mean w, above minus log of 1 / w at the image's own z."""
    model, exact = misled_vae()
    x, z = own_images(model, 4)
    q = encoder_proposal(model, x)
    lower, upper = ais(model, x, z, temperatures=1, chains=3, **QUIET)
    log_w = exact.log_joint(x.flatten(1), z) - q.log_prob(z)
    close(upper, log_w, 1e-10)
    assert ais(model, x, temperatures=1, chains=3, **QUIET).upper is None
    many = ais(model, x, temperatures=1, chains=5000, batch_size=20_000, **QUIET).lower
    close(many, exact.log_px(x.flatten(1)), 0.1)


def test_annealing_takes_each_image_with_its_own_z_and_q(refined):
    model, exact, _ = refined
    x, z = own_images(model, 12, seed=3)
    start = refine(model, x, "full", start=encoder_proposal(model, x), **FAST)
    for batch_size in (1, 8, 500):
        for bound in ais(model, x, z, q=start, temperatures=3, chains=2, batch_size=batch_size, **QUIET):
            close(bound, exact.log_px(x.flatten(1)), 0.1)


def test_own_images_come_from_the_prior_and_the_likelihood():
    model, exact = misled_vae()
    x, z = own_images(model, 4000)
    close(z.mean(0), torch.zeros(2), 0.08)
    close(torch.cov(z.T), torch.eye(2), 0.1)
    noise = (x - model.decoder(z)).detach()
    assert x.shape == (4000, 1, 2, 3) and noise.var().item() == pytest.approx(LIKELIHOOD.variance, rel=0.05)
    assert not torch.equal(x, own_images(model, 4000, seed=1)[0]) and not x.requires_grad


# --- arguments

def test_progress_is_shown_unless_it_is_not_wanted(capsys):
    model, _ = misled_vae()
    for function, options in ((refine, dict(steps=1)), (ais, dict(temperatures=1))):
        function(model, FEW, **options)
        assert "12/12" in capsys.readouterr().err
        function(model, FEW, **options, **QUIET)
        assert not capsys.readouterr().err


START = encoder_proposal(misled_vae()[0], FEW)
FULL = Proposal(START.logits, START.loc, START.scale_tril + torch.ones(2, 2).tril(-1))


@pytest.mark.parametrize("options, message", [
    (dict(family="flow"), "family: wanted 'diagonal' or 'full' or 'mixture', got 'flow'"),
    (dict(steps=0), "steps: wanted an integer, 1 or more, got 0"),
    (dict(num_samples=3), "num_samples: wanted an even integer, 2 or more, got 3"),
    (dict(learning_rate=0), "learning_rate: wanted a positive finite number, got 0"),
    (dict(components=1), "components: wanted an integer, 2 or more, got 1"),
    (dict(spread=-1), "spread: wanted a finite number, 0 or more, got -1"),
    (dict(batch_size=0), "batch_size: wanted an integer, 1 or more, got 0"),
    (dict(prior=3), "prior: wanted a density"), (dict(seed=-1), "seed: wanted an integer, 0 or more, got -1"),
    (dict(x=X[0]), "x: wanted a floating-point tensor"),
    (dict(start=FULL, family="diagonal"), 'start: wanted, for "diagonal", one .* independent latents, got correlated'),
    (dict(start=START.repeated(3), family="diagonal"), "independent latents, got 3 Gaussians"),
    (dict(start=3), "start: wanted a Proposal, as `refine` makes it, got 3"),
    (dict(start=encoder_proposal(misled_vae()[0], X[:3])), "start: wanted a Proposal for 12 images, .* got one for 3"),
])
def test_refine_refuses(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        refine(**{"model": misled_vae()[0], "x": FEW, "progress": False, **options})


@pytest.mark.parametrize("q, error, message", [
    (Proposal, TypeError, "q: wanted a Proposal"), ("full", TypeError, "q: wanted a Proposal"),
    (encoder_proposal(misled_vae()[0], X[:3]), ValueError, "q: wanted a Proposal for 12 images, .* got one for 3")])
@pytest.mark.parametrize("function", [importance_estimates, ais, partial(importance_sandwich, z=normals(12, 2))])
def test_a_q_that_does_not_fit_is_refused(function, q, error, message):
    with pytest.raises(error, match=message):
        function(misled_vae()[0], FEW, q=q, **QUIET)


@pytest.mark.parametrize("function", [ais, own_images, partial(importance_sandwich, z=normals(12, 2))])
def test_annealing_refuses_a_vae_with_a_prior_of_its_own(function):
    model = FlowVAE(dense_vae((1, 2, 3), (4,), 2), RealNVP(2)).double()
    with pytest.raises(ValueError, match=r"^model: wanted a VAE with the prior N\(0, I\), got a FlowVAE: `folded`"):
        function(model, 3 if function is own_images else FEW.sigmoid())


@pytest.mark.parametrize("model", [RealNVP(2), dense_ae((1, 2, 3), (4,), 2), "conv_mnist"], ids=["flow", "AE", "name"])
@pytest.mark.parametrize("function", [ais, own_images, partial(importance_sandwich, z=normals(12, 2))])
def test_annealing_refuses_what_is_no_vae(function, model):
    with pytest.raises(TypeError, match=f"^model: wanted a VAE, got {type(model).__name__}$"):
        function(model, 3 if function is own_images else FEW)


@pytest.mark.parametrize("function, options, message", [
    (ais, dict(temperatures=0), "temperatures: wanted an integer, 1 or more, got 0"),
    (ais, dict(chains=1.5), "chains: wanted an integer"), (ais, dict(leapfrogs=0), "leapfrogs: wanted an integer"),
    (ais, dict(batch_size=0), "batch_size: wanted an integer"),
    (ais, dict(q=encoder_proposal(misled_vae()[0], FEW).repeated(3)), "q: wanted one Gaussian an image, got a mix.* 3"),
    (ais, dict(z=torch.zeros(12, 3)), r"z: wanted .* of shape \(12, 2\), got float32 of shape \(12, 3\)"),
    (importance_sandwich, dict(z=torch.zeros(2, 2)), r"z: wanted .* of shape \(12, 2\)"),
    (importance_sandwich, dict(z=torch.zeros(12, 2), batch_size=0), "batch_size: wanted an integer"),
    (importance_sandwich, dict(z=torch.zeros(12, 2), num_samples=1), "num_samples: wanted an integer, 2 or more"),
    (gaps, dict(elbo_samples=0), "elbo_samples: wanted an integer, 1 or more, got 0"),
    (gaps, dict(num_samples=0), "num_samples: wanted an integer, 1 or more, got 0"),
])
def test_bounds_refuse(function, options, message):
    with pytest.raises(ValueError, match=message):
        function(misled_vae()[0], FEW, **QUIET, **options)


def test_a_diverged_model_has_no_bounds():
    model, _ = misled_vae()
    decode = model.decoder
    model.decoder = lambda z: decode(z) * torch.nan
    with pytest.raises(FloatingPointError, match="log_w is not finite: the model"):
        ais(model, FEW, temperatures=2, **QUIET)


def test_a_z_at_which_the_model_diverges_has_no_upper_bound():
    model, _ = misled_vae()
    decode, far = model.decoder, torch.full((12, 2), 1e3).double()
    model.decoder = lambda z: decode(z) * torch.where(z.abs().amax() > 900, torch.nan, 1.0)
    with pytest.raises(FloatingPointError, match="upper is not finite: the model"):
        importance_sandwich(model, FEW, far, 3, **QUIET)


def test_a_prior_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"prior: .* to turn shape \(.*12, 2\) into \(.*12\), got \(.*12, 2\)"):
        refine(misled_vae()[0], FEW, "diagonal", steps=1, prior=Normal(0.0, 1.0), **QUIET)


def test_the_number_of_own_images_is_checked():
    with pytest.raises(ValueError, match="num_images: wanted an integer, 1 or more, got 0"):
        own_images(misled_vae()[0], 0)
