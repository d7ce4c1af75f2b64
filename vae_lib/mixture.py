"""A mixture of Gaussians, whose posterior is a table of responsibilities, and EM (page 03).

Everything is in float64 and in nats, sums over components are log-sum-exp, and gradients pass through. Data
x have shape (N, D), responsibilities q (N, K): each row of q is a distribution over the K components.
EM climbs F(q, theta), the ELBO averaged over x, one argument at a time (Neal & Hinton 1998): its E step
is q = theta.responsibilities(x), its M step theta = m_step(x, q).
"""

import torch

from vae_lib.gaussian import log_normal
from vae_lib.guards import distributions, float64, integer, positive, takes

TINY = torch.finfo(torch.float64).tiny  # stands for zero where a logarithm is multiplied by zero


class Mixture:
    """p(x) = sum_k weights[k] N(x; means[k], covariances[k]); the latent z is the number k of the component.

    Shapes: weights (K,), means (K, D), covariances (K, D, D). PRML, section 9.2. Raises TypeError or ValueError
    for other types and shapes, NaN, weights that are negative or do not sum to one, and covariances that are
    not symmetric and positive definite.
    """

    def __init__(self, weights, means, covariances):
        self.means = float64("means", means, "K", "D")
        num, dim = self.means.shape
        self.weights = distributions("weights", weights, num)
        self.covariances = float64("covariances", covariances, num, dim, dim)
        self._factors, failed = torch.linalg.cholesky_ex(self.covariances)
        symmetric = self.covariances.isclose(self.covariances.mT).flatten(1).all(1)
        wrong = self.covariances[(failed > 0) | ~symmetric]
        if len(wrong):
            raise ValueError(f"covariances: wanted symmetric positive definite matrices, got {wrong[0].tolist()}")

    @classmethod
    def from_data(cls, x, num_components, seed=0, min_variance=1e-6):
        """Where EM may start: means at points of x drawn from `seed`, the data's covariance, equal weights.

        Shapes: x (N, D), N >= num_components. Raises TypeError or ValueError for other inputs.
        """
        x = float64("x", x, "N", "D")
        num_components = integer("num_components", num_components, at_most=len(x))
        whole = m_step(x, torch.ones_like(x[:, :1]), min_variance)
        chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:num_components]
        weights = torch.full_like(x[:num_components, 0], 1 / num_components)
        return cls(weights, x[chosen], whole.covariances.expand(num_components, -1, -1))

    @takes(num=integer)
    def sample(self, num, generator=None):
        """Draw x (num, D) and the components z (num,), int64, that they come from."""
        z = torch.multinomial(self.weights, num, replacement=True, generator=generator)
        eps = self.means.new_empty(num, self.means.shape[1]).normal_(generator=generator)
        return self.means[z] + (self._factors[z] @ eps[..., None])[..., 0], z

    def log_joint(self, x):
        """log p(x, z = k) = log weights[k] + log N(x; means[k], covariances[k]). Shapes: (N, D) to (N, K).

        It is -inf for a component of weight zero.
        """
        residual = float64("x", x, "N", self.means.shape[1])[:, None] - self.means
        eps = torch.linalg.solve_triangular(self._factors, residual.permute(1, 2, 0), upper=False).mT
        log_px_given_z = log_normal(eps, torch.zeros_like(eps), torch.zeros_like(eps)).mT
        log_determinants = self._factors.diagonal(dim1=-2, dim2=-1).log().sum(1)
        log_weights = self.weights.clamp_min(TINY).log().where(self.weights > 0, -torch.inf)
        return log_weights + log_px_given_z - log_determinants

    def log_px(self, x):
        """log p(x) = log sum_k p(x, z = k). Shapes: (N, D) to (N,)."""
        return self.log_joint(x).logsumexp(1)

    def responsibilities(self, x):
        """The E step: the posterior p(z = k|x). Shapes: (N, D) to (N, K). Equation (3.2); PRML 9.13."""
        return self.log_joint(x).softmax(1)

    def elbo(self, x, q):
        """The ELBO of any q, sum_k q_k (log p(x, z = k) - log q_k). Shapes: (N, D) and (N, K) to (N,).

        Its mean over the points is F of equation (3.1).
        """
        log_joint = self.log_joint(x)
        q = distributions("q", q, *log_joint.shape)
        return (q * (log_joint.where(q > 0, 0.0) - q.clamp_min(TINY).log())).sum(1)

    def kl_to_posterior(self, x, q):
        """KL(q || p(z|x)), a sum over components; 0 or more, up to rounding. Shapes: (N, D) and (N, K) to (N,).

        The gap of equation (3.1), where it is averaged over the points.
        """
        log_pz_given_x = self.log_joint(x).log_softmax(1)
        q = distributions("q", q, *log_pz_given_x.shape)
        return (q * (q.clamp_min(TINY).log() - log_pz_given_x.where(q > 0, 0.0))).sum(1)

    def em_step(self, x, min_variance=1e-6):
        """A new Mixture, one E step and one M step on: the mean of log p(x) over x never falls. Equation (3.4)."""
        return m_step(x, self.responsibilities(x), min_variance)


def m_step(x, q, min_variance=1e-6):
    """The M step: the Mixture that maximises the ELBO, summed over x, of responsibilities q.

    It maximises among covariances without a variance below `min_variance`, in any direction, in the square of the
    unit of x: a component could otherwise close in on one point, where p(x) has no upper bound. From a Mixture that
    obeys this, EM never lowers log p(x). A component that no point has any part in gets weight zero, with which EM
    leaves it; the ELBO does not depend on its mean and covariance, which are set to those of all data. Shapes: x (N,
    D), q (N, K). Raises TypeError or ValueError for other inputs. Equation (3.3); PRML 9.24 to 9.26.
    """
    x = float64("x", x, "N", "D")
    q = distributions("q", q, len(x), "K")
    counts = q.sum(0)
    shares = torch.where(counts > 0, q / torch.where(counts > 0, counts, 1.0), 1 / len(x)).mT
    means = shares @ x
    residual = x - means[:, None]
    covariances = (shares[..., None] * residual).mT @ residual
    return Mixture(counts / counts.sum(), means, at_least(covariances, positive("min_variance", min_variance)))


def at_least(covariances, min_variance):
    """The covariances with eigenvalues below min_variance raised to it: the nearest in likelihood. (..., D, D)."""
    eigenvalues, directions = torch.linalg.eigh(covariances)
    if (eigenvalues >= min_variance).all():
        return covariances
    return directions * eigenvalues.clamp_min(min_variance)[..., None, :] @ directions.mT
