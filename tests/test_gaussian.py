"""Every formula of `gaussian` against torch.distributions, SymPy and quadrature."""

import math

import pytest
import sympy
import torch
from scipy.integrate import quad
from torch.distributions import Independent, Normal, kl_divergence

from vae_lib.gaussian import kl_between_normals, kl_to_standard_normal, log_normal, reparameterize

MU, LOG_VAR = torch.randn(2, 5, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def independent_normal(mu, log_var):
    """The same distribution, from torch."""
    return Independent(Normal(mu, (0.5 * log_var).exp()), 1)


def test_log_normal_equals_torch_distributions():
    x = torch.randn(4, 1, 7, 3, dtype=torch.float64)
    expected = independent_normal(MU, LOG_VAR).log_prob(x)
    assert expected.shape == (4, 5, 7)
    torch.testing.assert_close(log_normal(x, MU, LOG_VAR), expected, rtol=0, atol=1e-12)


def test_log_normal_integrates_to_one():
    density = lambda x: log_normal(*torch.tensor([[x], [0.3], [-1.2]], dtype=torch.float64)).exp().item()
    assert quad(density, -20, 20, points=[0.3])[0] == pytest.approx(1.0, abs=1e-10)


def test_kl_to_standard_normal_equals_torch_distributions():
    prior = independent_normal(torch.zeros_like(MU), torch.zeros_like(MU))
    expected = kl_divergence(independent_normal(MU, LOG_VAR), prior)
    torch.testing.assert_close(kl_to_standard_normal(MU, LOG_VAR), expected, rtol=0, atol=1e-12)


def test_kl_to_standard_normal_equals_the_symbolic_integral():
    mu, z = sympy.symbols("mu z", real=True)
    sigma = sympy.symbols("sigma", positive=True)
    log_ratio = -sympy.log(sigma) + z**2 / 2 - (z - mu) ** 2 / (2 * sigma**2)
    density = sympy.exp(-((z - mu) ** 2) / (2 * sigma**2)) / (sigma * sympy.sqrt(2 * sympy.pi))
    symbolic = sympy.integrate(sympy.expand(density * log_ratio), (z, -sympy.oo, sympy.oo))
    expected = float(symbolic.subs({mu: sympy.Rational(-7, 5), sigma: sympy.Rational(1, 3)}))
    mean, log_var = torch.tensor([[-1.4], [2 * math.log(1 / 3)]], dtype=torch.float64)
    assert kl_to_standard_normal(mean, log_var).item() == pytest.approx(expected, abs=1e-12)


def test_kl_between_normals_equals_torch_distributions():
    mu_p, log_var_p = torch.randn(2, 3, dtype=torch.float64)
    expected = kl_divergence(independent_normal(MU, LOG_VAR), independent_normal(mu_p, log_var_p).expand((5, 7)))
    torch.testing.assert_close(kl_between_normals(MU, LOG_VAR, mu_p, log_var_p), expected, rtol=0, atol=1e-11)


def test_a_divergence_near_zero_is_zero_up_to_rounding():
    mu, log_var = 1e-4 * torch.randn(2, 1000, 1, generator=torch.Generator().manual_seed(0))
    for kl in (kl_to_standard_normal(mu, log_var), kl_between_normals(mu, log_var, mu, log_var)):
        assert -1e-6 < kl.min() <= 0 and kl.max() < 1e-6


@pytest.mark.parametrize("dtype, lowest", [(torch.float32, -177.0), (torch.float64, -1419.0)])
def test_narrow_gaussians_have_finite_densities_down_to_where_the_standard_deviation_is_too_small(dtype, lowest):
    mu, log_var = torch.ones(2, 3, dtype=dtype), torch.full((2, 3), lowest, dtype=dtype, requires_grad=True)
    density = log_normal(mu, mu, log_var)
    torch.testing.assert_close(density, -1.5 * (math.log(2 * math.pi) + log_var[:, 0]))
    assert kl_between_normals(mu, log_var, mu, log_var).eq(0).all()
    density.sum().backward()
    assert log_var.grad.eq(-0.5).all()
    for found in (log_normal(mu, mu, 1.1 * log_var - 20), kl_between_normals(mu, log_var, mu, 1.1 * log_var - 20)):
        assert not found.isfinite().any()  # which fit, held_out_elbo and nll refuse


@pytest.mark.parametrize("log_var", [-80.0, 80.0])
def test_in_float32_narrow_and_wide_gaussians_have_the_density_and_divergence_of_float64(log_var):
    mu, wide = torch.tensor([0.0, 1.5, -3.0]) * math.exp(log_var / 2), torch.full((3,), log_var)
    pair = mu, wide, 2 * mu, wide + 0.5
    for formula, args in ((log_normal, pair[:3:2] + pair[1:2]), (kl_between_normals, pair)):
        expected = formula(*(argument.double() for argument in args))
        torch.testing.assert_close(formula(*args).double(), expected, rtol=1e-5, atol=1e-5)
    q, p = Normal(mu.double(), (wide.double() / 2).exp()), Normal(2 * mu.double(), (wide.double() / 2 + 0.25).exp())
    torch.testing.assert_close(kl_between_normals(*pair).double(), kl_divergence(q, p).sum(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_and_answered_in_float32(dtype):
    """In float16 exp(14) is infinite; a sum of 2,000 squares would be rounded in both."""
    mu, log_var = torch.randn(2, 2000, generator=torch.Generator().manual_seed(0)).to(dtype)
    log_var[0] = 14.0
    for formula, args in ((log_normal, (mu, log_var, log_var)), (kl_to_standard_normal, (mu, log_var)),
                          (kl_between_normals, (mu, log_var, log_var, mu))):
        found, expected = formula(*args), formula(*(argument.float() for argument in args))
        assert found.dtype == torch.float32 and found.isfinite() and found == expected
    found = kl_to_standard_normal(mu=mu.requires_grad_(), log_var=log_var)  # by name too, and with gradients
    found.backward()
    assert mu.grad.dtype == dtype and torch.equal(mu.grad, mu.detach())


def test_reparameterize_has_the_right_mean_and_variance():
    mu, log_var = torch.tensor([[2.0, -1.0], [0.5, -3.0]], dtype=torch.float64)
    n = 200_000
    z = reparameterize(mu.expand(n, 2), log_var.expand(n, 2), torch.Generator().manual_seed(1))
    variance = log_var.exp()
    assert ((z.mean(0) - mu).abs() < 4 * (variance / n).sqrt()).all()
    assert ((z.var(0) - variance).abs() < 4 * variance * math.sqrt(2 / n)).all()


def test_reparameterize_is_differentiable_and_repeatable():
    mu, log_var = (t.clone().requires_grad_() for t in (MU, LOG_VAR))
    z = reparameterize(mu, log_var, torch.Generator().manual_seed(2))
    eps = torch.randn(MU.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(z, MU + (0.5 * LOG_VAR).exp() * eps)
    z.sum().backward()
    torch.testing.assert_close(mu.grad, torch.ones_like(mu))
    torch.testing.assert_close(log_var.grad, 0.5 * (z - mu).detach())
