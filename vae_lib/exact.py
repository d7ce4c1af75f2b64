"""Models whose log p(x) and posterior are known, so that the bound's gap can be measured (pages 01 to 03, 07, 11, 12).

Everything is in float64 and in nats; other floating-point tensors are converted, and gradients pass through.
For each model log p(x), the ELBO of a Gaussian q and KL(q || posterior) are three computations, none of them
the difference of the other two, so that log p(x) = ELBO + KL can be checked.
"""

import math

import torch

from vae_lib.gaussian import kl_to_standard_normal, log_normal
from vae_lib.guards import float64, function, integer, interval, positive, takes
from vae_lib.likelihoods import Gaussian
from vae_lib.models import dense_vae


class LinearGaussian:
    """Probabilistic PCA: x = weight z + bias + noise, with z ~ N(0, I) and noise ~ N(0, variance I).

    weight (D, k), bias (D,), variance a positive number. Tipping & Bishop 1999; Bishop 2006 (PRML), equations
    2.113 and 2.114. Raises TypeError or ValueError for other types and shapes, other variances and NaN.
    """

    def __init__(self, weight, bias, variance):
        self.weight = float64("weight", weight, "D", "k")
        self.bias = float64("bias", bias, self.weight.shape[0])
        self.variance = positive("variance", variance)
        self.data_dim, self.latent_dim = self.weight.shape

    @classmethod
    def maximum_likelihood(cls, x, latent_dim, variance=None):
        """The model of highest log p(x) over data x (N, D), N >= 2, in closed form: an eigendecomposition.

        Each of the `latent_dim` largest eigenvalues of the data's covariance (divided by N) gives a column of
        length sqrt(eigenvalue - variance). Unless a variance is stated it is the mean of the eigenvalues left
        over. With a stated one, directions whose eigenvalue lies below it collapse: their columns are zero.
        Raises TypeError or ValueError for other types and shapes, for latent_dim outside 1 to D (to D - 1
        without a variance), and where no variance would be left over. Equations (7.4), with no rotation, and
        (7.6); Tipping & Bishop 1999, equations 7 and 8.
        """
        x = float64("x", x, "N", "D")
        largest = x.shape[1] - (variance is None)
        if len(x) < 2 or largest == 0:
            wanted = "at least 2 points" if len(x) < 2 else "points of at least 2 numbers, or a stated variance"
            raise ValueError(f"x: wanted {wanted}, got shape {tuple(x.shape)}")
        latent_dim = integer("latent_dim", latent_dim, at_most=largest)
        bias = x.mean(0)
        centred = x - bias
        eigenvalues, directions = torch.linalg.eigh(centred.mT @ centred / len(x))
        eigenvalues, directions = eigenvalues.flip(0), directions.flip(1)
        if variance is None:
            variance = eigenvalues[latent_dim:].mean().item()
            if not variance > 1e-12 * eigenvalues[0].item():
                raise ValueError(f"x: wanted more than {latent_dim} directions that vary, or a stated variance, got "
                                 f"a mean variance of {variance:g} in the other directions")
        lengths = (eigenvalues - positive("variance", variance)).clamp_min(0).sqrt()
        return cls((directions * lengths)[:, :latent_dim], bias, variance)

    @takes(num=integer)
    def sample(self, num, generator=None):
        """Draw x (num, D) and the z (num, k) that it comes from, of the prior and the likelihood."""
        z = self.weight.new_empty(num, self.latent_dim).normal_(generator=generator)
        noise = self.weight.new_empty(num, self.data_dim).normal_(generator=generator)
        return z @ self.weight.mT + self.bias + self.variance**0.5 * noise, z

    def log_joint(self, x, z):
        """log p(x, z) = log p(x|z) + log p(z). Shapes: (..., D) and (..., k), broadcast, to (...)."""
        x, z = float64("x", x, "...", self.data_dim), float64("z", z, "...", self.latent_dim)
        log_px_given_z = log_normal(x, z @ self.weight.mT + self.bias, x.new_tensor(math.log(self.variance)))
        return log_px_given_z + log_normal(z, torch.zeros_like(z), torch.zeros_like(z))

    def log_px(self, x):
        """log p(x) = log N(x; bias, weight weight^T + variance I), by a Cholesky factor of that D x D matrix.

        Shapes: (N, D) to (N,). Equation (1.4); PRML 2.115; Tipping & Bishop 1999.
        """
        residual = float64("x", x, "N", self.data_dim) - self.bias
        covariance = self.weight @ self.weight.mT + self.variance * torch.eye(self.data_dim).to(self.weight)
        factor = torch.linalg.cholesky(covariance)
        whitened = torch.linalg.solve_triangular(factor.mT, residual, upper=True, left=False)
        log_determinant = 2 * factor.diagonal().log().sum()
        return -0.5 * ((whitened**2).sum(1) + log_determinant + self.data_dim * math.log(2 * math.pi))

    def precision(self):
        """The posterior's inverse covariance I + weight^T weight / variance, the same for every x: (k, k)."""
        return torch.eye(self.latent_dim).to(self.weight) + self.weight.mT @ self.weight / self.variance

    def posterior(self, x):
        """The posterior p(z|x), a Gaussian with correlated latents: means (N, k) and covariance (k, k).

        Shapes: x (N, D). Equation (1.9); PRML 2.116 and 2.117.
        """
        residual = float64("x", x, "N", self.data_dim) - self.bias
        covariance = torch.cholesky_inverse(torch.linalg.cholesky(self.precision()))
        return residual @ self.weight @ covariance / self.variance, covariance

    def elbo(self, x, mu, log_var):
        """The ELBO of q = N(mu, diag(exp(log_var))), with both expectations in closed form.

        Shapes: x (N, D), mu and log_var (N, k), where any N may be 1, to (N,). Equation (2.7); Kingma &
        Welling 2014, equation 3.
        """
        x = float64("x", x, "N", self.data_dim)
        mu, log_var = (float64(*named, "N", self.latent_dim) for named in (("mu", mu), ("log_var", log_var)))
        squared_error = ((x - mu @ self.weight.mT - self.bias) ** 2).sum(1)
        spread = log_var.exp() @ (self.weight**2).sum(0)
        constant = self.data_dim * math.log(2 * math.pi * self.variance)
        log_px_given_z = -0.5 * ((squared_error + spread) / self.variance + constant)
        return log_px_given_z - kl_to_standard_normal(mu, log_var)

    def kl_to_posterior(self, x, mu, log_var):
        """KL(q || p(z|x)) of q = N(mu, diag(exp(log_var))), from a diagonal Gaussian to a correlated one.

        Shapes: x (N, D), mu and log_var (N, k), where any N may be 1, to (N,). The gap of equation (2.5).
        """
        mu, log_var = (float64(*named, "N", self.latent_dim) for named in (("mu", mu), ("log_var", log_var)))
        precision, distance = self.precision(), mu - self.posterior(x)[0]
        trace = log_var.exp() @ precision.diagonal()
        squared_distance = ((distance @ precision) * distance).sum(1)
        return 0.5 * (trace + squared_distance - self.latent_dim - precision.logdet() - log_var.sum(1))

    def best_diagonal_q(self, x):
        """The diagonal Gaussian that minimises KL(q || p(z|x)): same mean, inverse diagonal of the precision.

        Shapes: x (N, D) to mu and log_var (N, k). The KL that remains is the approximation gap. Equation
        (2.10); PRML, section 10.1.2.
        """
        mean, _ = self.posterior(x)
        return mean, -self.precision().diagonal().log().expand_as(mean)


def linear_vae(exact, log_var=None):
    """A LinearGaussian as a VAE with one linear layer each way, in float64, on images of the shape (1, 1, D).

    Its encoder has the posterior's means and, the same for every x, the log variances log_var (k,): those of
    `best_diagonal_q` unless others are given. Its decoder and its likelihood are the model's.
    """
    vae = dense_vae((1, 1, exact.data_dim), (), exact.latent_dim, likelihood=Gaussian(exact.variance)).double()
    at_zero = exact.posterior(torch.zeros(1, exact.data_dim))[0]
    slopes = (exact.posterior(torch.eye(exact.data_dim))[0] - at_zero).T
    log_var = -exact.precision().diagonal().log() if log_var is None else log_var
    for layer, weight, bias in ((vae.encoder.to_mu, slopes, at_zero[0]), (vae.encoder.to_log_var, 0 * slopes, log_var),
                                (vae.decoder.to_output, exact.weight, exact.bias)):
        layer.weight.data.copy_(weight)
        layer.bias.data.copy_(bias)
    return vae


class NonlinearModel:
    """One latent z ~ N(0, 1) and one number x ~ N(decode(z), variance), solved by quadrature.

    `decode` maps a float64 tensor of any shape to one of the same shape, element by element; it is called afresh each
    time, so it may be training. Integrals over z use the `points` of `grid`, equally spaced from `low` to `high`;
    expectations under q a quarter as many (500 at least), from 12 of its standard deviations below its mean to 12
    above, however narrow it is. These trapezoidal rules are exact to rounding for smooth functions (Trefethen &
    Weideman 2014); where `decode` has kinks the error falls as the square of the step, and where it oscillates
    between two of the points the result is wrong. Raises TypeError or ValueError for other inputs.
    """

    def __init__(self, decode, variance, low=-10.0, high=10.0, points=4001):
        function("decode", decode, "a function of z")
        points = integer("points", points, at_least=3)
        low, high = interval("low and high", (low, high))
        self.decode, self.variance = decode, positive("variance", variance)
        self.grid = torch.linspace(low, high, points, dtype=torch.float64)
        output = decode(self.grid)
        if float64("decode(z)", output, points).dtype != output.dtype:
            raise TypeError(f"decode(z): wanted float64, as z is, got {output.dtype}")

    @takes(num=integer)
    def sample(self, num, generator=None):
        """Draw x (num,) and the z (num,) that it comes from, of the prior and the likelihood."""
        z, noise = self.grid.new_empty(2, num).normal_(generator=generator)
        return self.decode(z) + self.variance**0.5 * noise, z

    def log_joint(self, x, z):
        """log p(x, z) = log p(x|z) + log p(z), element by element. Shapes: (...) and (...), broadcast."""
        x, z = float64("x", x, "..."), float64("z", z, "...")
        return self._log_px_given_z(x, z) + _log_scalar_normal(z, torch.zeros_like(z), torch.zeros_like(z))

    def log_px(self, x):
        """log p(x), by the trapezoidal rule on the grid. Shapes: (N,) to (N,).

        Raises ValueError for x whose posterior is too narrow for the grid's steps, or reaches its ends.
        """
        return self._log_integrals(float64("x", x, "N"))[0]

    def posterior_density(self, x):
        """The density p(z|x) on `grid`. Shapes: x (N,) to (N, points). Raises as `log_px` does."""
        log_px = self.log_px(x)
        return (self.log_joint(x[:, None], self.grid) - log_px[:, None]).exp()

    def elbo(self, x, mu, log_var):
        """The ELBO of q = N(mu, exp(log_var)): E_q[log p(x|z)] by quadrature, KL(q || prior) in closed form.

        Shapes: (...), broadcast against each other, to (...). Kingma & Welling 2014, equation 3.
        """
        x, mu, log_var = (float64(*named, "...") for named in (("x", x), ("mu", mu), ("log_var", log_var)))
        z, _, weights = self._quadrature_under(mu, log_var)
        log_px_given_z = (weights * self._log_px_given_z(x[..., None], z)).sum(-1)
        return log_px_given_z - kl_to_standard_normal(mu[..., None], log_var[..., None])

    def kl_to_posterior(self, x, mu, log_var):
        """KL(q || p(z|x)) of q = N(mu, exp(log_var)), as the expectation of log q(z) - log p(z|x) under q.

        Here p(z|x) is normalised by the midpoint rule, not by `log_px`. Shapes as for `elbo`; raises as
        `log_px` does.
        """
        x, mu, log_var = (float64(*named, "...") for named in (("x", x), ("mu", mu), ("log_var", log_var)))
        z, eps, weights = self._quadrature_under(mu, log_var)
        log_pz_given_x = self.log_joint(x[..., None], z) - self._log_integrals(x)[1][..., None]
        # from eps, as z - mu is rounded to zero where q is narrower than the step between two numbers
        log_q_eps = _log_scalar_normal(eps, torch.zeros_like(eps), torch.zeros_like(eps))
        log_qz_given_x = log_q_eps - 0.5 * log_var[..., None]
        return (weights * (log_qz_given_x - log_pz_given_x)).sum(-1)

    def best_gaussian_q(self, x):
        """The Gaussian of highest ELBO for each x, by a search and damped Newton steps from its best six.

        Shapes: x (N,) to mu and log_var (N,), without gradients. log p(x) less its ELBO is the approximation
        gap; its ELBO less that of an encoder's q is the amortization gap (Cremer, Li & Duvenaud 2018).
        """
        x = float64("x", x, "N").detach()
        starts = self._starts(x)
        xs, q = x.repeat(len(starts)), torch.cat([self._highest(x, group) for group in starts])
        fractions = torch.tensor([0.0, 0.1, 1.0]).to(q)[:, None, None]
        for _ in range(20):
            gradient, hessian = self._derivatives(xs, q)
            if gradient.abs().max() < 1e-7:
                break
            curvatures, axes = torch.linalg.eigh(hessian)
            ascent = axes @ ((axes.mT @ gradient[..., None]) / curvatures.abs().clamp_min(0.01)[..., None])
            q = self._highest(xs, q + fractions * ascent[..., 0])
        return self._highest(x, q.reshape(len(starts), -1, 2)).unbind(1)

    @torch.no_grad()
    def _highest(self, x, candidates):
        """For each x the pair (mu, log_var) of highest ELBO: candidates (M, N, 2) to (N, 2)."""
        best = torch.stack([self.elbo(x, q[:, 0], q[:, 1]) for q in candidates]).argmax(0)
        return candidates[best, torch.arange(len(x))]

    @torch.no_grad()
    def _starts(self, x):
        """For each of six widths, 41 quantiles of each posterior, as pairs (mu, log_var): (6, 41, N, 2)."""
        mass = self.posterior_density(x) * (self.grid[1] - self.grid[0])
        std = (mass @ self.grid**2 - (mass @ self.grid) ** 2).sqrt()
        levels = (torch.arange(41).to(mass) + 0.5) / 41
        mu = self.grid[torch.searchsorted(mass.cumsum(1), levels.repeat(len(x), 1))].T
        widths = [2 * (scale * std).log().expand_as(mu) for scale in (1.0, 0.7, 0.5, 0.25, 0.12, 0.06)]
        return torch.stack([torch.stack([mu, log_var], -1) for log_var in widths])

    def _derivatives(self, x, q):
        """Gradient (N, 2) and Hessian (N, 2, 2) of the ELBO of each x in mu and log_var, by autograd."""
        with torch.enable_grad():
            q = q.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.elbo(x, q[:, 0], q[:, 1]).sum(), q, create_graph=True)
            rows = [torch.autograd.grad(gradient[:, i].sum(), q, retain_graph=True)[0] for i in (0, 1)]
        return gradient.detach(), torch.stack(rows, 1)

    def _log_px_given_z(self, x, z):
        return _log_scalar_normal(x, self.decode(z), torch.full_like(z, math.log(self.variance)))

    def _quadrature_under(self, mu, log_var):
        """Points z = mu + std * eps (..., P), eps (P,), and weights (P,) that sum to one, for expectations under q."""
        eps = torch.linspace(-12, 12, max(len(self.grid) // 4, 500), dtype=torch.float64)
        weights = (eps[1] - eps[0]) * (-0.5 * eps**2).exp() / math.sqrt(2 * math.pi)
        return mu[..., None] + (0.5 * log_var[..., None]).exp() * eps, eps, weights

    def _log_integrals(self, x):
        """log p(x) by the trapezoidal rule, and by the midpoint rule half-way between the grid's points.

        Refuses x unless the two agree to 1e-6 and the posterior has died out at the ends of the grid, which
        need no factor 1/2 therefore. Shapes: (...) to two of (...).
        """
        step = self.grid[1] - self.grid[0]
        log_joint = self.log_joint(x[..., None], self.grid)
        trapezoid = log_joint.logsumexp(-1) + step.log()
        midpoint = self.log_joint(x[..., None], self.grid[:-1] + step / 2).logsumexp(-1) + step.log()
        at_ends = (log_joint[..., [0, -1]] - trapezoid[..., None]).max()
        if not ((trapezoid - midpoint).abs().max() <= 1e-6 and at_ends <= math.log(1e-10)):
            raise ValueError(f"x: wanted values whose posterior fits a grid of {len(self.grid)} points from "
                             f"{self.grid[0]:g} to {self.grid[-1]:g}; change low, high or points")
        return trapezoid, midpoint


def _log_scalar_normal(x, mu, log_var):
    """The log density of N(mu, exp(log_var)), element by element."""
    return log_normal(x[..., None], mu[..., None], log_var[..., None])
