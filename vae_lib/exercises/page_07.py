"""Page 07: the VAE without nonlinearity."""

import math
from functools import cache

import torch
from scipy.optimize import brentq, minimize_scalar
from torch.distributions import Normal, kl_divergence

from vae_lib.answers import Exercise
from vae_lib.exact import LinearGaussian


def _tensor(*numbers):
    return torch.tensor(numbers, dtype=torch.float64).squeeze()


price = Exercise("7.1")


def _price():
    """Gain and price, in nats, of a direction of eigenvalue 2 at the variance 1, by quadrature over its coordinate."""
    data, on, off = (Normal(_tensor(0.0), _tensor(variance).sqrt()) for variance in (2.0, 2.0, 1.0))
    y = torch.linspace(-20, 20, 4001, dtype=torch.float64)
    density = data.log_prob(y).exp()
    prices = kl_divergence(Normal(y / 2, math.sqrt(0.5)), Normal(0.0, 1.0))
    return [torch.trapezoid(density * values, y) for values in (on.log_prob(y) - off.log_prob(y), prices)]


@price.right
def _():
    return _price()


@price.mistake("The two are exchanged: the gain comes first, and it is the smaller one, 0.1534 nats beside a price of "
               "0.3466.")
def _():
    return _price()[::-1]


@price.mistake("The factor 1/2 is missing in both: gain and price together are what the reconstruction term rises by, "
               "1/2 nat, and yours add up to 1.")
def _():
    return [2 * value for value in _price()]


@price.mistake("The price is in bits. A bit is log 2 nats.")
def _():
    return [_price()[0], _price()[1] / math.log(2)]


@price.mistake("In the gain the -1 of the bracket is missing. With it, the gain is zero at an eigenvalue of s².")
def _():
    return [0.5 - 0.5 * math.log(2) + 0.5, _price()[1]]


def _turned(l1, l2, variance, angle):
    lengths = (_tensor(l1, l2) - variance).clamp_min(0).sqrt()
    turn = _tensor([math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)])
    return LinearGaussian(torch.eye(3, 2).double() * lengths @ turn, torch.zeros(3), variance)


rotation = Exercise("7.2", cases=[(3.0, 1.2, 0.5, 0.6), (2.5, 0.4, 0.7, 1.1), (4.0, 0.9, 0.2, 0.3),
                                  (1.0, 0.5, 2.0, 0.6)])


def _gap(l1, l2, variance, angle):
    precision = _turned(l1, l2, variance, angle).precision()
    return 0.5 * (precision.diagonal().log().sum() - precision.logdet())


@rotation.right
def _(l1, l2, variance, angle):
    model, x = _turned(l1, l2, variance, angle), torch.zeros(1, 3, dtype=torch.float64)
    return (model.log_px(x) - model.elbo(x, *model.best_diagonal_q(x))).squeeze()


@rotation.mistake("The factor 1/2 in front of the logarithm is missing: for the eigenvalues 3 and 1.2, s2 = 0.5 and "
                  "45 degrees this is 0.2029, twice the gap.")
def _(l1, l2, variance, angle):
    return 2 * _gap(l1, l2, variance, angle)


@rotation.mistake("In the second case one eigenvalue lies below the variance. Its latent has collapsed, and its "
                  "precision is 1, not the quotient.")
def _(l1, l2, variance, angle):
    first, second, share = l1 / variance, l2 / variance, math.cos(angle) ** 2
    mixed = (first * share + second * (1 - share)) * (first * (1 - share) + second * share)
    return 0.5 * math.log(mixed / (first * second))


@rotation.mistake("The sign is turned: a gap is log p(x) minus the ELBO.")
def _(l1, l2, variance, angle):
    return -_gap(l1, l2, variance, angle)


@rotation.mistake("This q has the posterior's own variances. The best diagonal q is narrower: it has the inverse of "
                  "the precision's diagonal.")
def _(l1, l2, variance, angle):
    precision = _turned(l1, l2, variance, angle).precision()
    spread = torch.linalg.inv(precision).diagonal()
    return 0.5 * (spread @ precision.diagonal() - 2 - spread.log().sum() - precision.logdet())


EIGENVALUES = _tensor(3.0, 1.7, 0.9, 0.4, 0.2, 0.1, 0.1, 0.05)


def _mean_log_px(variance, latents=3):
    """The best average log density of data with these eigenvalues, by a density with the best covariance."""
    kept = torch.cat([EIGENVALUES[:latents].clamp_min(variance), torch.full((8 - latents,), variance).double()])
    points = math.sqrt(8) * EIGENVALUES.sqrt().diag()  # with their negatives, data of this covariance
    return Normal(torch.zeros(8).double(), kept.sqrt()).log_prob(points).sum(-1).mean().item()


@cache
def _best():
    """The variance that SciPy finds to be best, with 3 latents."""
    return minimize_scalar(lambda variance: -_mean_log_px(variance), bounds=(0.02, 0.8), method="bounded",
                           options={"xatol": 1e-6}).x


best = Exercise("7.3", rtol=2e-4)  # of each number: four digits


@best.right
def _():
    return [_best(), _mean_log_px(_best()) - _mean_log_px(1.2)]


@best.mistake("At the variance 1.2 the third direction has collapsed. With k = 3 in (7.5) its eigenvalue is treated "
              "as if active.")
def _():
    active, rest = EIGENVALUES[:3].log() + 1, math.log(1.2) + EIGENVALUES[3:] / 1.2
    return [_best(), _mean_log_px(_best()) + 0.5 * (8 * math.log(2 * math.pi) + active.sum() + rest.sum())]


@best.mistake("The best variance is the average of the eigenvalues that are left over, not of all.")
def _():
    return [EIGENVALUES.mean(), _mean_log_px(EIGENVALUES.mean().item()) - _mean_log_px(1.2)]


@best.mistake("The sum of the left-over eigenvalues is divided by D here. It is spread over D - J directions.")
def _():
    wrong = EIGENVALUES[3:].sum().item() / 8
    return [wrong, _mean_log_px(wrong) - _mean_log_px(1.2)]


@best.mistake("The factor 1/2 in front of (7.5) is missing: at s2 = 1.2 the value of (7.5) is -10.44 nats, and yours "
              "is twice that.")
def _():
    return [_best(), 2 * (_mean_log_px(_best()) - _mean_log_px(1.2))]


@best.mistake("This is the price for one pixel. The price for one image is asked for.")
def _():
    return [_best(), (_mean_log_px(_best()) - _mean_log_px(1.2)) / 8]


free = Exercise("7.4")


@free.right
def _():
    """Where the objective is highest without the KL, for codes from wider to ever narrower than the best ones."""
    model, x = LinearGaussian(torch.eye(4, 2) * 1.5, torch.zeros(4), 0.8), torch.eye(4).double()
    mu, log_var = model.best_diagonal_q(x)

    def without_kl(log_var):
        return model.elbo(x, mu, log_var).mean() + kl_divergence(
            Normal(mu, (0.5 * log_var).exp()), Normal(0.0, 1.0)).sum(-1).mean()

    steps = range(-3, 21)
    heights = torch.stack([without_kl(log_var - step) for step in steps])
    best = steps[heights.argmax()]
    if best == steps[-1]:  # the narrower, the higher: up to a ceiling, or beyond all bounds
        return "c" if heights[-1] - heights[-2] < 1e-6 else "d"
    return "a" if best == 0 else "b"


free.letters(
    a="The noise of the codes costs reconstruction, and only the KL holds on to it. What does it do when the "
      "KL is gone?",
    b="Who would pull the codes to the prior? That is the KL's work.",
    d="The objective has a ceiling: a squared error is not below zero. What goes on without end is something "
      "else.")


def _level(eigenvalues, error):
    return brentq(lambda level: eigenvalues.clamp_max(level).sum().item() - error, 0, eigenvalues.max().item())


CASES = [(_tensor(4.0, 2.5, 1.1, 0.6, 0.3), 2.2), (_tensor(3.0, 1.7, 0.9, 0.4, 0.2, 0.1, 0.05), 1.9),
         (_tensor(4.0, 1.0, 0.5), 4.0), (_tensor(3.0, 2.0, 1.0), 0.9),  # one direction above the level, then all
         (_tensor(4.0, 2.0, 1.0, 0.5, 0.1), 4.0)]  # those below the first level are not all that are below the last
water = Exercise("7.5", cases=CASES, rtol=1e-4)  # an interval may be halved until it is short


def _with_rate(eigenvalues, level):
    """The rate as a KL to the prior: of the posterior of an x whose squares equal their averages, the eigenvalues."""
    lengths = (eigenvalues - level).clamp_min(0).sqrt()
    mu, covariance = LinearGaussian(lengths.diag(), 0 * lengths, level).posterior(eigenvalues.sqrt()[None])
    return [level, kl_divergence(Normal(mu, covariance.diagonal().sqrt()), Normal(0.0, 1.0)).sum()]


@water.right
def _(eigenvalues, error):
    return _with_rate(eigenvalues, _level(eigenvalues, error))


@water.mistake("The error is shared out equally. But a direction cannot have a larger error than its eigenvalue.")
def _(eigenvalues, error):
    return _with_rate(eigenvalues, error / len(eigenvalues))


@water.mistake("The rate is in bits. Wanted are nats.")
def _(eigenvalues, error):
    level, rate = water.solution(eigenvalues, error)
    return [level, rate / math.log(2)]


@water.mistake("In the rate, directions below the level count with a negative KL. They have collapsed, and pay "
               "nothing.")
def _(eigenvalues, error):
    level = _level(eigenvalues, error)
    return [level, 0.5 * (eigenvalues / level).log().sum()]


@water.mistake("The rate lacks the factor 1/2 of (7.9): one eigenvalue of 4 and an error of 1 have the rate 0.6931, "
               "and here 1.386.")
def _(eigenvalues, error):
    level, rate = water.solution(eigenvalues, error)
    return [level, 2 * rate]


def _case(seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = (5, 2), (5,), (3, 5), (3, 2), (3, 2)
    weight, bias, x, mu, log_var = (torch.randn(shape, generator=generator).double() for shape in shapes)
    return weight, bias, 0.3 + seed, x, mu, log_var


record = Exercise("7.6", cases=[_case(0), _case(1)])


@record.right
def _(weight, bias, variance, x, mu, log_var):
    model = LinearGaussian(weight, bias, variance)
    return model.log_px(x) - model.kl_to_posterior(x, mu, log_var)


def _noise(weight, log_var):
    """The squared error that the noise of z adds, on average."""
    return log_var.exp() @ (weight**2).sum(0)


@record.mistake("This is the function as it stood. Which z does the decoder see here, and which does the bound ask "
                "for?")
def _as_it_stood(weight, bias, variance, x, mu, log_var):
    return record.solution(weight, bias, variance, x, mu, log_var) + 0.5 * _noise(weight, log_var) / variance


@record.mistake("The term has the wrong sign: a noisy z makes the expected error larger, and the bound lower.")
def _(weight, bias, variance, x, mu, log_var):
    return _as_it_stood(weight, bias, variance, x, mu, log_var) + 0.5 * _noise(weight, log_var) / variance


@record.mistake("The standard deviation of z stands where its variance belongs.")
def _(weight, bias, variance, x, mu, log_var):
    return _as_it_stood(weight, bias, variance, x, mu, log_var) - 0.5 * _noise(weight, 0.5 * log_var) / variance


@record.mistake("The noise in the error is not weighted with 1 / (2 s2), as every squared error is.")
def _(weight, bias, variance, x, mu, log_var):
    return _as_it_stood(weight, bias, variance, x, mu, log_var) - _noise(weight, log_var)
