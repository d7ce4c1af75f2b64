"""The flow: that its Jacobian, its inverse and its draws are what its density says, and that it can be fitted."""

import math
from functools import partial

import pytest
import torch
from scipy import stats
from torch.distributions import Independent, Normal

from vae_lib.evaluation import held_out_elbo, importance_estimates, nll
from vae_lib.flow import Coupling, FlowVAE, RealNVP, folded, resampled_dreg_with_flow
from vae_lib.likelihoods import Gaussian
from vae_lib.models import dense_vae
from vae_lib.objectives import log_mean_exp, sleep_phase
from vae_lib.refinement import refine
from vae_lib.training import fit


def bent(latent_dim, seed=0, **sizes):
    """A flow in float64 whose couplings do something, as after training."""
    torch.manual_seed(seed)
    flow = RealNVP(latent_dim, **sizes).double()
    for coupling in flow.couplings:
        torch.nn.init.normal_(coupling.net[-1].weight, std=0.3)
        torch.nn.init.normal_(coupling.net[-1].bias, std=0.3)
    return flow


@pytest.mark.parametrize("latent_dim", [2, 6])
def test_the_log_determinant_is_that_of_autograds_jacobian(latent_dim):
    flow, z = bent(latent_dim, hidden=5, couplings=3), torch.randn(4, latent_dim, dtype=torch.float64)
    u, log_det = flow(z)
    jacobians = torch.stack([torch.autograd.functional.jacobian(lambda one: flow(one)[0], one) for one in z])
    signs, expected = torch.linalg.slogdet(jacobians)
    assert u.shape == z.shape and (signs.abs() == 1).all() and expected.abs().max() > 0.1
    torch.testing.assert_close(log_det, expected)


def test_a_coupling_keeps_one_half_scales_and_shifts_the_other_and_interleaves_them():
    coupling = bent(6, hidden=5).couplings[0]
    z = torch.randn(3, 6, dtype=torch.float64)
    u, log_det = coupling(z)
    assert torch.equal(u[:, 1::2], z[:, :3])
    log_scale, shift = coupling.net(z[:, :3]).chunk(2, -1)
    torch.testing.assert_close(u[:, 0::2], z[:, 3:] * log_scale.tanh().exp() + shift)
    torch.testing.assert_close(log_det, log_scale.tanh().sum(-1))
    torch.testing.assert_close(coupling.inverse(u), z)


def test_the_density_integrates_to_one_and_its_draws_follow_it():
    """Two latents: the mass of a grid's cells against the draws that fall into them, by a chi-square test."""
    flow = bent(2, seed=1, hidden=6, couplings=4)
    edges = torch.linspace(-12, 12, 1201, dtype=torch.float64)
    middles = (edges[:-1] + edges[1:]) / 2
    density = flow.log_prob(torch.cartesian_prod(middles, middles)).exp().detach().view(1200, 1200)
    mass = density * 0.02**2
    assert mass.sum().item() == pytest.approx(1, abs=1e-4)
    draws = flow.sample(20_000, torch.Generator().manual_seed(0))
    counts = torch.histogramdd(draws, [6, 6], range=[-12.0, 12.0] * 2).hist
    assert counts.sum() == 20_000
    expected = 20_000 * mass.view(6, 200, 6, 200).sum((1, 3))
    some = expected > 5
    assert some.sum() >= 4
    statistic = ((counts - expected) ** 2 / expected)[some].sum().item()
    assert 1e-4 < stats.chi2.sf(statistic, some.sum().item() - 1)


def test_a_new_flow_is_the_standard_normal():
    flow, z = RealNVP(4), torch.randn(2, 5, 4)
    expected = Independent(Normal(torch.zeros(4), torch.ones(4)), 1).log_prob(z)
    torch.testing.assert_close(flow.log_prob(z), expected)
    assert flow.log_prob(z).shape == (2, 5) and flow(z)[1].shape == (2, 5)


def test_draws_depend_on_their_generator_and_turn_back_into_normal_ones():
    flow = bent(4).float()
    first, same, other = (flow.sample(3, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert first.shape == (3, 4) and not first.requires_grad
    torch.testing.assert_close(flow(first)[0], torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))
    assert flow.double().sample(3).dtype == torch.float64


@pytest.mark.parametrize("latent_dim, couplings", [(2, 2), (6, 3), (40, 6)])
def test_every_latent_is_moved_with_as_many_couplings_as_the_docstring_says(latent_dim, couplings):
    flow, z = bent(latent_dim, hidden=4, couplings=couplings), torch.randn(1, latent_dim, dtype=torch.float64)
    assert not torch.isin(flow(z)[0], z).any()


def dense(latent_dim=2, seed=0):
    torch.manual_seed(seed)
    return dense_vae((1, 1, 3), (7,), latent_dim, likelihood=Gaussian(0.5)).double()


def test_a_folded_flow_leaves_the_density_of_images_as_it_was():
    """Quadrature over two latents: p(x|z) r(z) before, p(x|u) N(u; 0, I) afterwards."""
    vae, flow, images = dense(), bent(2, seed=1, hidden=6, couplings=4), torch.randn(5, 1, 1, 3, dtype=torch.float64)
    points = torch.linspace(-12, 12, 601, dtype=torch.float64)
    z = torch.cartesian_prod(points, points)[:, None]

    def density(model, log_prior):
        with torch.no_grad():
            return (model.likelihood.log_prob(images, model.decoder(z)) + log_prior).exp().sum(0) * 0.04**2

    other = folded(vae, flow)
    before = density(vae, flow.log_prob(z))
    after = density(other, Independent(Normal(torch.zeros(2), torch.ones(2)), 1).log_prob(z))
    torch.testing.assert_close(after, before, rtol=1e-6, atol=0)
    with_normal = density(vae, Independent(Normal(torch.zeros(2), torch.ones(2)), 1).log_prob(z))
    assert ((with_normal / before - 1).abs() > 0.01).all()
    assert importance_estimates(other, images, 20_000, progress=False).log_px == pytest.approx(before.log(), abs=0.1)


def test_a_folded_vae_starts_with_the_flows_means_and_shares_nothing():
    vae, flow, x = dense(), bent(2, hidden=6, couplings=4), torch.randn(64, 1, 1, 3)
    other = folded(vae, flow)
    mu, log_var = vae.encoder(x.double())
    torch.testing.assert_close(other.encoder(x.double()), (flow(mu)[0], log_var))
    u = torch.randn(4, 3, 2, dtype=torch.float64)
    torch.testing.assert_close(other.decoder(flow(u)[0]), vae.decoder(u))
    places = [weights.data_ptr() for model in (vae, flow, other) for weights in model.parameters()]
    assert len(set(places)) == len(places)
    before = [weights.clone() for weights in other.decoder.parameters()]
    fit(other, x.double(), steps=3, batch_size=16, objective=sleep_phase, progress=False)
    assert all(map(torch.equal, before, other.decoder.parameters()))
    assert not torch.equal(other.encoder(x.double())[0], flow(mu)[0])


def test_a_folded_flow_keeps_its_precision_under_autocast():
    vae, flow = dense().float(), bent(2, hidden=6, couplings=4).float()
    other, u, x = folded(vae, flow), torch.randn(9, 2), torch.randn(9, 1, 1, 3)
    exact = flow.inverse(u)
    with torch.autocast("cpu", torch.bfloat16):
        mu = vae.encoder(x)[0].float()
        found, output = other.encoder(x)[0], other.decoder(u)
        expected, rough = vae.decoder(exact), vae.decoder(flow.inverse(u))
    assert torch.equal(found, flow(mu)[0]) and found.dtype == torch.float32
    assert torch.equal(output, expected) and not torch.equal(output, rough) and output.dtype == torch.bfloat16
    rounded = u.bfloat16()  # latents of an encoder under autocast
    assert torch.equal(other.decoder(rounded), vae.decoder(flow.inverse(rounded.float())))


def test_a_folded_flow_takes_the_type_of_the_vae():
    other = folded(dense(), RealNVP(2))
    assert {weights.dtype for weights in other.parameters()} == {torch.float64}


def test_a_flow_vae_trains_copies_of_encoder_decoder_and_flow_at_once():
    vae, flow, x = dense(), bent(2, hidden=6, couplings=4), torch.randn(64, 1, 1, 3).double()
    model = FlowVAE(vae, flow)
    before = {name: weights.clone() for name, weights in model.named_parameters()}
    fit(model, x, steps=2, batch_size=16, objective=partial(resampled_dreg_with_flow, num_samples=4), progress=False)
    assert not any(torch.equal(before[name], weights) for name, weights in model.named_parameters())
    for part, old in ((vae, ""), (flow, "flow.")):
        assert all(torch.equal(before[old + name], weights) for name, weights in part.named_parameters())


def test_the_gradients_of_a_flow_vae_are_those_of_the_weights_with_its_flow_as_prior():
    """Many copies of one image and its samples. The density of z is torch's, of the pushed-forward normal."""
    copies, x = 40_000, torch.randn(1, 1, 1, 3, generator=torch.Generator().manual_seed(2)).double()
    model = FlowVAE(dense(), bent(2, seed=1, hidden=6, couplings=4))
    epsilon = torch.randn(4, 1, 2, generator=torch.Generator().manual_seed(0)).double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn_like", lambda like, **_: epsilon.expand_as(like))
        bound = resampled_dreg_with_flow(model, x.expand(copies, 1, 1, 3), 4, torch.Generator().manual_seed(1)).elbo
    found = torch.autograd.grad(bound.mean(), list(model.parameters()))

    mu, log_var = model.encoder(x)
    z = mu + (0.5 * log_var).exp() * epsilon
    still = z.detach().requires_grad_()
    jacobians = torch.func.vmap(torch.func.jacrev(lambda z: model.flow(z)[0]))(still[:, 0])
    log_r = Normal(0.0, 1.0).log_prob(model.flow(still)[0]).sum(-1) + torch.linalg.slogdet(jacobians).logabsdet[:, None]
    log_q = Normal(mu, (0.5 * log_var).exp()).log_prob(still).sum(-1)
    log_w = model.likelihood.log_prob(x, model.decoder(still)) + log_r - log_q.detach()
    torch.testing.assert_close(bound.detach(), log_mean_exp(log_w).detach().expand(copies))
    of_model = [*model.decoder.parameters(), *model.flow.parameters()]
    expected = {id(weights): gradient for weights, gradient in
                zip(of_model, torch.autograd.grad(log_mean_exp(log_w).sum(), of_model, retain_graph=True))}
    through_q = Normal(mu.detach(), (0.5 * log_var).exp().detach()).log_prob(still).sum(-1)
    slope, = torch.autograd.grad((log_w + log_q.detach() - through_q).sum(), still)
    weight = log_w.detach().softmax(0)[..., None]
    of_encoder = list(model.encoder.parameters())
    expected |= {id(weights): gradient for weights, gradient in
                 zip(of_encoder, torch.autograd.grad(z, of_encoder, weight**2 * slope))}
    for weights, gradient in zip(model.parameters(), found):
        assert (gradient - expected[id(weights)]).norm() < 0.05 * gradient.norm() + 1e-3


def test_a_flow_vae_is_measured_with_its_flow_and_folded_with_no_other():
    model, x = FlowVAE(dense(), bent(2, hidden=6, couplings=4)), torch.randn(9, 1, 1, 3).double()
    for measure in (partial(nll, progress=False), held_out_elbo, partial(refine, progress=False, steps=1)):
        with pytest.raises(ValueError, match="^prior: wanted model.flow, the prior of this FlowVAE, got None"):
            measure(model, x)
    for make in (folded, FlowVAE):
        with pytest.raises(ValueError, match="^flow: wanted that of the FlowVAE, vae.flow, got another"):
            make(model, RealNVP(2))
    z = torch.randn(9, 2).double()
    for whole in folded(model), folded(model, model.flow):
        torch.testing.assert_close(whole.decoder(model.flow(z)[0]), model.decoder(z))
    with pytest.raises(TypeError, match="^model: wanted a FlowVAE, got VAE"):
        resampled_dreg_with_flow(dense(), x, 2)


@pytest.mark.parametrize("make", [folded, FlowVAE])
@pytest.mark.parametrize("vae, flow, error, message", [
    (dense(), RealNVP(4), ValueError, "flow: wanted latent_dim 2, as the VAE has, got 4"),
    (RealNVP(2), dense(), TypeError, "vae: wanted a VAE, got RealNVP"),
    (dense(), None, TypeError, "flow: wanted a RealNVP, got None"),
])
def test_what_cannot_be_joined_is_refused(make, vae, flow, error, message):
    with pytest.raises(error, match=message):
        make(vae, flow)


def test_a_flow_learns_a_shape_that_no_gaussian_has():
    """A ring: the fitted Gaussian's mean log density is known, the ring's entropy is too."""
    def ring(count):
        angle = 2 * math.pi * torch.rand(count)
        return torch.stack([angle.cos(), angle.sin()], 1) * (2 + 0.1 * torch.randn(count, 1))

    torch.manual_seed(0)
    flow, held_out = RealNVP(2, hidden=32), ring(4000)
    optimizer = torch.optim.Adam(flow.parameters(), 3e-3)
    for _ in range(400):
        optimizer.zero_grad()
        (-flow.log_prob(ring(256)).mean()).backward()
        optimizer.step()
    gaussian = stats.multivariate_normal([0, 0], torch.cov(held_out.T).numpy())
    best = -math.log(2 * math.pi * 2) - 0.5 * math.log(2 * math.pi * math.e * 0.01)  # near: radius 2, thin
    found = flow.log_prob(held_out).mean().item()
    assert gaussian.logpdf(held_out.numpy()).mean() + 0.8 < found < best + 0.05


@pytest.mark.parametrize("sizes, message", [
    (dict(latent_dim=3), "latent_dim: wanted an even integer, 2 or more, got 3"),
    (dict(latent_dim=True), "latent_dim: wanted an even integer, 2 or more, got True"),
    (dict(latent_dim=4, hidden=0), "hidden: wanted an integer, 1 or more, got 0"),
    (dict(latent_dim=4, couplings=2.0), "couplings: wanted an integer, 1 or more, got 2.0"),
])
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        RealNVP(**sizes)


def test_latents_of_another_dimension_and_no_draws_are_refused():
    with pytest.raises(ValueError, match=r"z: wanted latents of shape \(..., 4\), got \(2, 3\)"):
        RealNVP(4).log_prob(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"u: wanted latents of shape \(..., 4\), got \(2, 3\)"):
        RealNVP(4).inverse(u=torch.zeros(2, 3))
    with pytest.raises(ValueError, match="num_samples: wanted an integer, 1 or more, got 0"):
        RealNVP(4).sample(0)
    assert Coupling(4, 2).net[0].in_features == 2
