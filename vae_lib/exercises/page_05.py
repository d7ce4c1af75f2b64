"""Page 05: gradients through samples."""

import math

import torch
from torch.distributions import Normal

from vae_lib.answers import Exercise

EPS = torch.linspace(-12, 12, 4801, dtype=torch.float64)
WEIGHTS = Normal(0.0, 1.0).log_prob(EPS).exp() * (EPS[1] - EPS[0])


def _tensor(*numbers):
    return torch.tensor(numbers, dtype=torch.float64).squeeze()


def _average(values):
    """The average over the standard normal noise EPS of values (..., len(EPS)), by the trapezoid rule."""
    return values @ WEIGHTS


def _variance(values):
    return _average((values - _average(values)[..., None]) ** 2)


def _f(z):
    return z**2 + z.sin()


def _slope(function, *at):
    at = [_tensor(value).requires_grad_() for value in at]
    return torch.stack(torch.autograd.grad(function(*at), at))


two_simulations = Exercise("5.1", cases=[(0.8, 0.5, 0.3, 1000), (-1.1, 0.7, 0.2, 40)])


@two_simulations.right
def _(mu, sigma, h, n):
    above, below = ((mu + step + sigma * EPS) ** 2 for step in (h, -h))
    fresh = (_variance(above) + _variance(below)) / (2 * h) ** 2
    return torch.stack([fresh, _variance((above - below) / (2 * h))]) / n


@two_simulations.mistake("These are the variances for one draw. An average over n draws scatters less.")
def _(mu, sigma, h, n):
    return n * two_simulations.solution(mu, sigma, h, n)


@two_simulations.mistake("With fresh noise both averages scatter, and the variances of independent terms add up, also "
                         "in a difference.")
def _(mu, sigma, h, n):
    return [_variance((mu + h + sigma * EPS) ** 2) / (4 * h**2 * n), 4 * sigma**2 / n]


@two_simulations.mistake("The fresh one is divided by 2h. A variance is divided by the square of the factor.")
def _(mu, sigma, h, n):
    fresh, same = two_simulations.solution(mu, sigma, h, n)
    return [2 * h * fresh, same]


@two_simulations.mistake("The fresh variance is taken at mu for both averages. They stand at mu + h and mu - h, and "
                         "the variance of f depends on the place.")
def _(mu, sigma, h, n):
    return [2 * _variance((mu + sigma * EPS) ** 2) / (4 * h**2 * n), 4 * sigma**2 / n]


@two_simulations.mistake("With the same noise the two averages are not independent: do not add their variances. Look "
                         "at one draw's difference first.")
def _(mu, sigma, h, n):
    return [two_simulations.solution(mu, sigma, h, n)[0]] * 2


def _path(phi):
    return phi**3 + phi.exp() * EPS


def _guesses():
    """One guess of the derivative by phi for each noise: pathwise and score function."""
    phi = _tensor(0.5).expand(len(EPS)).clone().requires_grad_()
    moving = _path(phi)
    pathwise, = torch.autograd.grad(_f(moving).sum(), phi, retain_graph=True)
    score, = torch.autograd.grad(Normal(phi**3, phi.exp()).log_prob(moving.detach()).sum(), phi)
    return pathwise, _f(moving).detach() * score


def _misses(of_one_draw=False, draws=(1e7, 1e8), sign=1, true=None):
    true = _slope(lambda phi: _average(_f(_path(phi))), 0.5)[0] if true is None else true
    found = [true]
    for guess, simulated, n in zip(_guesses(), (5.726338, 5.724610), draws):
        found.append(sign * (simulated - true) / (_average((guess - true) ** 2) / (1 if of_one_draw else n)).sqrt())
    return found


simulation = Exercise("5.2", rtol=2e-4)  # of the true value: the misses to four digits


@simulation.right
def _():
    return _misses()


@simulation.mistake("The misses are counted in standard deviations of one guess. The simulations averaged many.")
def _():
    return _misses(of_one_draw=True)


@simulation.mistake("The sign of the misses: a simulation that is too low misses by a negative number.")
def _():
    return _misses(sign=-1)


@simulation.mistake("The two simulations had different numbers of draws: ten million and a hundred million.")
def _():
    return _misses(draws=(1e7, 1e7))


@simulation.mistake("In the chain rule log sigma^2 is 2 phi here, and its derivative by phi is 2, not 1.")
def _():
    by_mu, by_log_var = _slope(lambda mu, v: _average(_f(mu + (0.5 * v).exp() * EPS)), 0.125, 1.0)
    return _misses(true=0.75 * by_mu + by_log_var)


price = Exercise("5.3", cases=[(0.8, 0.25), (-1.3, 2.0), (0.3, 1.7)])


@price.right
def _(mu, variance):
    return _slope(lambda v: _average((mu + v.sqrt() * EPS) ** 4), variance)[0]


@price.mistake("This is the average of f'' without the one half: compare with f(z) = z^2, whose average is mu^2 + "
               "sigma^2.")
def _(mu, variance):
    return _average(12 * (mu + variance**0.5 * EPS) ** 2)


@price.mistake("This takes f'' at the mean. Its average over q is larger, for z^2 averages to more than mu^2.")
def _(mu, variance):
    return 6 * mu**2


@price.mistake("This is the derivative by sigma. The one by sigma squared is asked for.")
def _(mu, variance):
    return _slope(lambda std: _average((mu + std * EPS) ** 4), variance**0.5)[0]


@price.mistake("This is the derivative by log sigma^2, which contains one more factor sigma^2.")
def _(mu, variance):
    return _slope(lambda v: _average((mu + (0.5 * v).exp() * EPS) ** 4), _tensor(variance).log())[0]


def _draws(draws, latent_dim):
    generator = torch.Generator().manual_seed(draws)
    f, scores = torch.randn(draws, generator=generator), torch.randn(draws, latent_dim, generator=generator)
    return f.double() + 3, scores.double()


baseline = Exercise("5.4", cases=[_draws(5, 3), _draws(2, 4)])


@baseline.right
def _(f, scores):
    others = [torch.cat([f[:k], f[k + 1:]]).mean() for k in range(len(f))]
    return torch.stack([(f[k] - others[k]) * scores[k] for k in range(len(f))]).mean(0)


@baseline.mistake("The baseline of a draw contains the draw itself. Then it is not independent of the score, and "
                  "every guess shrinks: try f = 1, 0 with two draws.")
def _(f, scores):
    return ((f - f.mean())[:, None] * scores).mean(0)


@baseline.mistake("This has no baseline: add 1,000 to f, and your answer changes.")
def _(f, scores):
    return (f[:, None] * scores).mean(0)


@baseline.mistake("The guesses are summed. The gradient is their average.")
def _(f, scores):
    return len(f) * baseline.solution(f, scores)


@baseline.mistake("The sum of the others is divided by K. There are K - 1 of them.")
def _(f, scores):
    return ((f - (f.sum() - f) / len(f))[:, None] * scores).mean(0)


waves = Exercise("5.5")


@waves.right
def _():
    """From the averages of cos(20 z) and cos(20 z) eps ** 2, which the characteristic function of eps gives."""
    mu, variance = 0.8, 0.25
    slope = 10 * math.cos(10 * mu) * math.exp(-50 * variance)  # of both guesses, on average
    wave = math.cos(20 * mu) * math.exp(-200 * variance)
    ratio = (50 * (1 + wave) - slope**2) / ((1 - wave * (1 - 400 * variance)) / (2 * variance) - slope**2)
    return "a" if ratio < 0.5 else "b" if ratio < 2 else "c" if ratio < 100 else "d"


waves.letters(
    a="The pathwise guess contains f'. How large is the slope of this f?",
    b="Both average to the same number, but that says nothing about how far they scatter. Estimate each "
      "variance.",
    d="The direction is right, the size is not: the pathwise variance grows with the square of the "
      "frequency. With which number is that to be compared?")


def _noise(n, seed):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed)).double()


def _surrogate(mu, log_var, eps, detach_f, detach_z):
    def loss(mu, log_var):
        z = mu + (0.5 * log_var).exp() * eps
        log_q = Normal(mu, (0.5 * log_var).exp()).log_prob(z.detach() if detach_z else z)
        return ((_f(z).detach() if detach_f else _f(z)) * log_q).mean()
    return _slope(loss, mu, log_var)


lost_score = Exercise("5.6", cases=[(0.8, -1.4, _noise(6, 0)), (-0.3, 0.6, _noise(9, 1))])


@lost_score.right
def _(mu, log_var, eps):
    sigma = _tensor(0.5 * log_var).exp()
    f = _f(mu + sigma * eps)
    return torch.stack([(f * eps / sigma).mean(), (f * (eps**2 - 1) / 2).mean()])


@lost_score.mistake("This is the function as it stood. Which two tensors carry the parameters besides the density?")
def _(mu, log_var, eps):
    return _surrogate(mu, log_var, eps, False, False)


@lost_score.mistake("Here f is a plain number now, but z still moves with mu inside log q. Then (z - mu) does not "
                    "change, and the gradient by mu is zero for every draw.")
def _(mu, log_var, eps):
    return _surrogate(mu, log_var, eps, True, False)


@lost_score.mistake("Now log q sees a fixed z, but f still passes a gradient on, and that is multiplied by log q, a "
                    "number that means nothing there.")
def _(mu, log_var, eps):
    return _surrogate(mu, log_var, eps, False, True)


@lost_score.mistake("This is the pathwise guess. It is a good one, but the score function is asked for, which never "
                    "differentiates f.")
def _(mu, log_var, eps):
    return _slope(lambda mu, v: _f(mu + (0.5 * v).exp() * eps).mean(), mu, log_var)
