"""Page 05: gradients through samples."""

import math
from functools import partial

import torch
from numpy.polynomial.hermite_e import hermegauss
from torch.distributions import Normal

from vae_lib.answers import Exercise

EPS, WEIGHTS = map(torch.from_numpy, hermegauss(60))  # the weight function is exp(-eps^2 / 2), without 1 / sqrt(2 pi)


def _tensor(*numbers):
    return torch.tensor(numbers, dtype=torch.float64).squeeze()


def _average(values):
    """The average over the standard normal noise EPS of values (..., len(EPS)), by the rule of Gauss and Hermite."""
    return values @ WEIGHTS / math.sqrt(2 * math.pi)


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


SIMULATED, DRAWS = (5.726338, 5.724610), (1e7, 1e8)  # pathwise, score function


def _path(a):
    return a**3 + a.exp() * EPS


def _guesses():
    """One guess of the derivative by a for each noise: pathwise and score function."""
    a = _tensor(0.5).expand(len(EPS)).clone().requires_grad_()
    moving = _path(a)
    pathwise, = torch.autograd.grad(_f(moving).sum(), a, retain_graph=True)
    score, = torch.autograd.grad(Normal(a**3, a.exp()).log_prob(moving.detach()).sum(), a)
    return pathwise, _f(moving).detach() * score


def _true():
    return _slope(lambda a: _average(_f(_path(a))), 0.5)[0]


def _found(true, guesses, centre=None, draws=DRAWS):
    """The three numbers asked for. The guesses scatter about their own means, unless a centre is given."""
    spreads = [_average((guess - (_average(guess) if centre is None else centre)) ** 2).sqrt() for guess in guesses]
    return [true] + [(simulated - true) / spread * n**0.5 for simulated, spread, n in zip(SIMULATED, spreads, draws)]


simulation = Exercise("5.2", rtol=2e-4)  # of each number: the misses to about 0.0002


@simulation.right
def _():
    return _found(_true(), _guesses())


@simulation.mistake("The misses are counted in standard deviations of one guess. The simulations averaged many.")
def _():
    return _found(_true(), _guesses(), draws=(1, 1))


@simulation.mistake("The sign of the misses: a simulation that is too low misses by a negative number.")
def _():
    true, *misses = _found(_true(), _guesses())
    return [true, *(-miss for miss in misses)]


@simulation.mistake("The two simulations had different numbers of draws: ten million and a hundred million.")
def _():
    return _found(_true(), _guesses(), draws=(1e7, 1e7))


@simulation.mistake("The true value was rounded to four digits before the misses were computed. They are differences "
                    "in the third decimal: subtract first, and round last.")
def _():
    return _found(_true().round(decimals=3), _guesses())


def _other_chain(in_true, in_guesses, about_true=False):
    """The numbers found if the derivative of log sigma^2 by a, which is 2, is taken for another number."""
    sigma = math.exp(0.5)
    z, half = 0.125 + sigma * EPS, in_guesses / 2
    by_mu, by_log_var = _slope(lambda mu, log_var: _average(_f(mu + (0.5 * log_var).exp() * EPS)), 0.125, 1.0)
    true = 0.75 * by_mu + in_true * by_log_var
    guesses = ((2 * z + z.cos()) * (0.75 + half * sigma * EPS), _f(z) * (0.75 * EPS / sigma + half * (EPS**2 - 1)))
    return _found(true, guesses, true if about_true else None)


for message, chain in (
        ("In the true value the derivative of log sigma^2 by the parameter is taken as 1, and it is 2. No simulation "
         "misses by a thousand standard errors.", (1, 2)),
        ("The true value lacks the factor 2 of log sigma^2 = 2a, and the squared deviations are taken about it. The "
         "average of your guesses is another number: compare the two.", (1, 2, True)),
        ("The guesses contain half of sigma eps and half of eps^2 - 1, as if log sigma^2 were the parameter. Average "
         "a guess: it must be the true value.", (2, 1)),
        ("In the guesses the part of sigma is half of what it should be, so that the true value, about which the "
         "deviations are taken, is not their average.", (2, 1, True)),
        ("The factor 2 of log sigma^2 = 2a is forgotten in the true value and in both guesses. They agree with each "
         "other, but no simulation misses by a thousand standard errors.", (1, 1)),
        ("This is the path by mu alone. The parameter moves sigma as well, and both derivatives have to be added.",
         (0, 0)),
        ("The guesses have only the path by mu, the true value has both. Average a guess: it must be the true value.",
         (2, 0)),
        ("The guesses have only the path by mu, so the true value, about which the deviations are taken, is not their "
         "average.", (2, 0, True))):
    simulation.mistake(message)(partial(_other_chain, *chain))


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


@price.mistake("The second argument is taken for the standard deviation and squared. It is the variance already: at a "
               "mean of zero the answer is 6 times the argument.")
def _(mu, variance):
    return _average(6 * (mu + variance * EPS) ** 2)


@price.mistake("This is the average of z^4 itself. Its derivative by sigma squared is asked for.")
def _(mu, variance):
    return _average((mu + variance**0.5 * EPS) ** 4)


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


@baseline.mistake("The average over the guesses is divided by K - 1. There are K guesses; the K - 1 belongs to the "
                  "baselines only.")
def _(f, scores):
    return baseline.solution(f, scores) * len(f) / (len(f) - 1)


@baseline.mistake("The sum over all draws is divided by K - 1, but the draw's own f has not been taken out of it. With "
                  "equal f the result must be zero.")
def _(f, scores):
    return ((f - f.sum() / (len(f) - 1))[:, None] * scores).mean(0)


@baseline.mistake("The baseline is added. It has to be subtracted: with equal f the result must be zero.")
def _(f, scores):
    return ((f + (f.sum() - f) / (len(f) - 1))[:, None] * scores).mean(0)


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
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _surrogate(mu, log_var, eps, held=()):
    """The gradient of the average of f(z) log q(z), with the parts that are `held` cut off from the parameters."""
    def part(name, value):
        return value.detach() if name in held else value

    def loss(mu, log_var):
        z = mu + (0.5 * log_var).exp() * eps
        log_q = Normal(mu, (0.5 * log_var).exp()).log_prob(part("z in q", z))
        return (part("f", _f(z)) * part("log q", log_q)).mean()
    return _slope(loss, mu, log_var)


lost_score = Exercise("5.6", cases=[(0.8, -1.4, _noise(6, 561)), (-0.3, 0.6, _noise(9, 562))])


@lost_score.right
def _(mu, log_var, eps):
    sigma = _tensor(0.5 * log_var).exp()
    f = _f(mu + sigma * eps)
    return torch.stack([(f * eps / sigma).mean(), (f * (eps**2 - 1) / 2).mean()])


@lost_score.mistake("This is the function as it stood. Which two tensors carry the parameters besides the density?")
def _(mu, log_var, eps):
    return _surrogate(mu, log_var, eps)


@lost_score.mistake("Here f is a plain number now, but z still moves with mu inside log q. Then (z - mu) does not "
                    "change, and the gradient by mu is zero for every draw.")
def _(mu, log_var, eps):
    return _surrogate(mu, log_var, eps, {"f"})


@lost_score.mistake("Now log q sees a fixed z, but f still passes a gradient on, and that is multiplied by log q, a "
                    "number that means nothing there.")
def _(mu, log_var, eps):
    return _surrogate(mu, log_var, eps, {"z in q"})


@lost_score.mistake("This is the pathwise guess. It is a good one, but the score function is asked for, which never "
                    "differentiates f.")
def _(mu, log_var, eps):
    return _slope(lambda mu, v: _f(mu + (0.5 * v).exp() * eps).mean(), mu, log_var)


@lost_score.mistake("Here log q is cut off, and only f passes a gradient on, multiplied by the number log q. The score "
                    "is the derivative of log q, so log q must keep its parameters.")
def _(mu, log_var, eps):
    return _surrogate(mu, log_var, eps, {"log q"})


@lost_score.mistake("The guesses are summed over the noise. Their average is asked for: with each eps given twice the "
                    "result must stay.")
def _(mu, log_var, eps):
    return len(eps) * lost_score.solution(mu, log_var, eps)
