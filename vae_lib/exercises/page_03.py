"""Page 03: EM, and what it has to do with a VAE."""

from functools import cache

import torch
from scipy.optimize import minimize
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from vae_lib.answers import Exercise
from vae_lib.exact import LinearGaussian
from vae_lib.mixture import Mixture, m_step


def _tensor(*numbers):
    return torch.tensor(numbers, dtype=torch.float64).squeeze()


def _mixture(weights, means, variances):
    return Mixture(weights, means[:, None], variances[:, None, None])


def _numbers(theta):
    return torch.stack([theta.weights, theta.means[:, 0], theta.covariances[:, 0, 0]])


LEVELS = (torch.arange(100, dtype=torch.float64) + 0.5) / 100
X = torch.cat([Normal(*_tensor(mean, std)).icdf(LEVELS) for mean, std in ((-1, 0.6), (1.5, 1.2))])[:, None]
START = _mixture(_tensor(0.5, 0.5), _tensor(0, 0.3), _tensor(1, 1))


def _em_step(theta):
    return theta.em_step(X)


@cache
def _after(step, rounds=30):
    """log p(x) per point after the rounds, and the model."""
    theta = START
    for _ in range(rounds):
        theta = step(theta)
    return theta.log_px(X).mean(), theta


def _normals(x, weights, means, scales):
    """log p(x, k) of points (N,): (N, K)."""
    return weights.log() + Normal(means, scales).log_prob(x[:, None])


half_m_step = Exercise("3.1")


@half_m_step.right
def _():
    x, weights, path = X[:, 0], _tensor(0.5, 0.5), []
    means = _tensor(0, 0.3).requires_grad_()
    for _ in range(31):
        # by a mean m, the slope of the average log p(x) is its component's share times (new m - m)
        log_px = _normals(x, weights, means, 1).logsumexp(-1).mean()
        path.append(log_px.detach())
        slope, = torch.autograd.grad(log_px, means)
        share = _normals(x, weights, means, 1).softmax(-1).mean(0)
        means = (means + slope / share).detach().requires_grad_()
    best = _after(_em_step)[0]
    return "c" if torch.stack(path).diff().min() < -1e-9 else "a" if path[-1] > best - 0.01 else "b"


half_m_step.letters(
    a="Not falling is one thing, where it ends another: two of the three kinds of numbers never move.",
    c="Only the relation in the middle uses the M step. Does it need the best theta, or less?",
    d="After one round the means have moved. So have the responsibilities: the next round has work.")


def _hard(theta):
    return torch.nn.functional.one_hot(theta.log_joint(X).argmax(-1), 2).to(X)


def _heights(step, bound, rounds=30):
    log_px, theta = _after(step, rounds)
    return [log_px, theta.elbo(X, bound(theta)).mean()]


def _soft(theta):
    return theta.responsibilities(X)


def _hard_step(theta):
    return m_step(X, _hard(theta))


hard_em = Exercise("3.2", rtol=1e-4)


@hard_em.right
def _():
    x, joint = X[:, 0], _normals(X[:, 0], _tensor(0.5, 0.5), _tensor(0, 0.3), _tensor(1, 1))
    for _ in range(30):  # two heaps of points, and a Gaussian to each
        heaps = [x[joint.argmax(-1) == k] for k in range(2)]
        weights, means, scales = (torch.stack([of(heap) for heap in heaps]) for of in (
            lambda heap: _tensor(len(heap) / len(x)), torch.mean, lambda heap: heap.std(correction=0)))
        joint = _normals(x, weights, means, scales)
    return [joint.logsumexp(-1).mean(), joint.amax(-1).mean()]


@hard_em.mistake("These are the numbers of EM itself, whose responsibilities are not rounded to 0 and 1.")
def _():
    return _heights(_em_step, _soft)


@hard_em.mistake("Here q was rounded after the last round only. Every round does so, before its M step.")
def _():
    return _heights(_em_step, _hard)


@hard_em.mistake("These are the numbers after one round. Thirty are asked for.")
def _():
    return _heights(_hard_step, _hard, rounds=1)


@hard_em.mistake("The two are exchanged. A bound lies below log p.")
def _():
    return _heights(_hard_step, _hard)[::-1]


@hard_em.mistake("F was computed with the responsibilities. Here q is certain, and its gap is not zero.")
def _():
    return _heights(_hard_step, _soft)


@hard_em.mistake("These are sums over the 200 points. An average is asked for.")
def _():
    return [200 * height for height in _heights(_hard_step, _hard)]


worse = Exercise("3.3", cases=[
    (_tensor(-2, -1.1, 0.4, 0.9, 2.5), _tensor(0.35, 0.65), _tensor(-0.8, 1.3), _tensor(0.6, 1.7)),
    (_tensor(-2, -0.7, 0.4, 2.2), _tensor(0.2, 0.5, 0.3), _tensor(-1.1, 0.3, 1.8), _tensor(0.5, 2.1, 0.8))])


def _torch_round(x, weights, means, scales, dim=-1):
    q = _normals(x, weights, means, scales).softmax(dim)
    shares = q / q.sum(0)
    new = (shares * x[:, None]).sum(0)
    return torch.stack([q.mean(0), new, (shares * (x[:, None] - new) ** 2).sum(0)])


@worse.right
def _(x, weights, means, variances):
    return _numbers(_mixture(weights, means, variances).em_step(x[:, None]))


@worse.mistake("This is the round as it stood. Which line is right only where all variances are 1?")
def _(x, weights, means, variances):
    return _torch_round(x, weights, means, variances)


@worse.mistake("The E step is right now. But the third row has standard deviations, and variances are wanted.")
def _(x, weights, means, variances):
    weights, means, variances = _torch_round(x, weights, means, variances.sqrt())
    return torch.stack([weights, means, variances.sqrt()])


@worse.mistake("The root was put on the new variances. It belongs where the E step takes a standard deviation.")
def _(x, weights, means, variances):
    weights, means, variances = _torch_round(x, weights, means, variances)
    return torch.stack([weights, means, variances.sqrt()])


@worse.mistake("The new variances are taken around the old means. This never falls, but it is no M step.")
def _(x, weights, means, variances):
    new = _torch_round(x, weights, means, variances.sqrt())
    return torch.stack([new[0], new[1], new[2] + (new[1] - means) ** 2])


@worse.mistake("Here the responsibilities of a component sum to one. Those of a point should.")
def _(x, weights, means, variances):
    return _torch_round(x, weights, means, variances.sqrt(), dim=0)


in_the_plane = Exercise("3.4", cases=[(0.3, 0.25, 0.94), (0.7, 1.2, 0.94), (-0.5, 0.6, 1.7)])


@in_the_plane.right
def _(b, s2, V):
    x = _tensor(V**0.5, -(V**0.5))[:, None]
    mu, covariance = LinearGaussian(_tensor(b).view(1, 1), _tensor(0).view(1), s2).posterior(x)
    low, middle, high = (LinearGaussian(_tensor(slope).view(1, 1), _tensor(0).view(1), s2)
                         .elbo(x, mu, covariance.log().expand(2, 1)).mean() for slope in (-1, 0, 1))
    return (low - high) / (low + high - 2 * middle) / 2  # where the parabola through three of its points has its top


@in_the_plane.mistake("The posterior's width is left out: the average of z squared is more than mu squared.")
def _(b, s2, V):
    return (b**2 + s2) / b


@in_the_plane.mistake("The width of q is the prior's here. The E step sets it to the posterior's.")
def _(b, s2, V):
    alpha = b / (b**2 + s2)
    return alpha * V / (alpha**2 * V + 1)


@in_the_plane.mistake("Averaged over the points, x squared is V. Here it is 1.")
def _(b, s2, V):
    alpha = b / (b**2 + s2)
    return alpha / (alpha**2 + s2 / (b**2 + s2))


@in_the_plane.mistake("This is what the E step does, the slope of the posterior's mean. The decoder's is wanted.")
def _(b, s2, V):
    return b / (b**2 + s2)


turns = Exercise("3.5", cases=[(0.1, 0.1, 0), (0.1, 0.1, 3), (0.4, -0.2, 1)])


@turns.right
def _(b, alpha, encoder_steps, s2=0.25, V=0.94):
    b, alpha = (_tensor(slope).requires_grad_() for slope in (b, alpha))
    for _ in range(20):
        for moved in encoder_steps * [alpha] + 5 * [b]:
            elbo = -V * (1 - alpha * b) ** 2 / (2 * s2) - V * alpha**2 / 2 - (b**2 / s2).log1p() / 2
            moved.data += 0.05 * torch.autograd.grad(elbo, moved)[0]
    return [b, alpha]


def _slopes(b, alpha, s2=0.25, V=0.94):
    misfit = V * (1 - alpha * b) / s2
    return alpha * misfit - b / (b**2 + s2), b * misfit - V * alpha


def _turns(b, alpha, encoder_steps, decoder_steps=5, order="ed"):
    for _ in range(20):
        for turn in order:
            for _ in range(encoder_steps if turn == "e" else decoder_steps):
                by_b, by_alpha = _slopes(b, alpha)
                alpha += 0.05 * by_alpha * (turn in "eb")
                b += 0.05 * by_b * (turn in "db")
    return [b, alpha]


@turns.mistake("The decoder moves first here. In each round the encoder has the first turn.")
def _(b, alpha, encoder_steps):
    return _turns(b, alpha, encoder_steps, order="de")


@turns.mistake("The numbers of steps are exchanged: the decoder takes five in each round.")
def _(b, alpha, encoder_steps):
    return _turns(b, alpha, 5, decoder_steps=encoder_steps)


@turns.mistake("In the decoder's turns alpha moves too. It should stay there.")
def _(b, alpha, encoder_steps):
    return _turns(b, alpha, encoder_steps, order="eb")


@turns.mistake("These are 20 decoder steps, one in each round. There should be five in each.")
def _(b, alpha, encoder_steps):
    return _turns(b, alpha, encoder_steps, decoder_steps=1)


new_points = Exercise("3.6", cases=[
    (_tensor([2.5, 1.1], [1.1, 1.9]), _tensor(0.3, -0.2), _tensor(0.25, -0.1), _tensor(-0.7, -0.9)),
    (_tensor([2.5, 1.1, -0.4], [1.1, 1.9, 0.3], [-0.4, 0.3, 1.4]),
     _tensor(2.4, -1.6, 0.7), _tensor(1.9, -0.8, 0.2), _tensor(-0.7, -0.9, -0.2))])


def _gap(precision, mean, mu, variance):
    return kl_divergence(MultivariateNormal(mu, variance.diag()), MultivariateNormal(mean, precision_matrix=precision))


def _best_gap(precision, mean, mu, log_var):
    """The gap of the best diagonal q, which SciPy finds by descent from the encoder's."""
    def gap_and_slope(numbers):
        q = torch.from_numpy(numbers).view(2, -1).clone().requires_grad_()
        gap = _gap(precision, mean, q[0], q[1].exp())
        return gap.item(), torch.autograd.grad(gap, q)[0].flatten().numpy()
    return minimize(gap_and_slope, torch.cat([mu, log_var]).numpy(), jac=True, options={"gtol": 1e-9}).fun


def _parts(precision, mean, mu, log_var, best):
    approximation = _gap(precision, mean, mean, best)
    return [approximation, _gap(precision, mean, mu, log_var.exp()) - approximation]


@new_points.right
def _(precision, mean, mu, log_var):
    approximation = _best_gap(precision, mean, mu, log_var)
    return [approximation, _gap(precision, mean, mu, log_var.exp()) - approximation]


@new_points.mistake("The best q does not have the variances of the posterior's latents: it is narrower.")
def _(precision, mean, mu, log_var):
    return _parts(precision, mean, mu, log_var, precision.inverse().diag())


@new_points.mistake("The two parts are exchanged. The approximation gap knows nothing of the encoder.")
def _(precision, mean, mu, log_var):
    return new_points.solution(precision, mean, mu, log_var)[::-1]


@new_points.mistake("The second number is the whole gap. The amortization gap is what is left of it after the first.")
def _(precision, mean, mu, log_var):
    approximation, rest = new_points.solution(precision, mean, mu, log_var)
    return [approximation, approximation + rest]


@new_points.mistake("Here the best q keeps the variances of the encoder. It is free to choose its own.")
def _(precision, mean, mu, log_var):
    return _parts(precision, mean, mu, log_var, log_var.exp())
