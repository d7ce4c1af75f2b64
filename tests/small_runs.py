"""Small models and objectives for the tests of training."""

import functools

import torch
from torch import nn
from torch.distributions import Normal

from vae_lib.models import conv_vae, dense_vae
from vae_lib.objectives import Bound, elbo
from vae_lib.training import fit

SHAPE = (1, 4, 4)
GREY = torch.randint(0, 256, (40, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
quiet = functools.partial(fit, device="cpu", progress=False)


def small_vae(seed=0, **options):
    torch.manual_seed(seed)
    return dense_vae(SHAPE, (5,), 2, **options)


def small_conv_vae(seed=0):
    torch.manual_seed(seed)
    return conv_vae(SHAPE, (3, 4), 2)


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


class Toy(nn.Module):
    """Two numbers to learn, and objectives with gradients that the test chooses."""

    def __init__(self, size=1):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(size)), nn.Parameter(torch.zeros(1))


def bound_of(x, *values):
    """The same three values, of shape (1,), for each image of x."""
    return Bound(*(value.expand(len(x)) for value in values))


class Steps:
    """The ELBO, after a call of before(model, x, step), and changed by `change` at `bad_step`."""

    def __init__(self, before=lambda model, x, step: None, bad_step=None, change=None):
        self.before, self.bad_step, self.change, self.step = before, bad_step, change, 0

    def __call__(self, model, x):
        self.step += 1
        self.before(model, x, self.step)
        bound = elbo(model, x)
        return self.change(bound) if self.step == self.bad_step else bound

    def __repr__(self):
        return "elbo in steps"


def stop_at(stop):
    """An objective that is interrupted in that step, as by the reader's hand."""
    def before(model, x, step):
        if step == stop:
            raise KeyboardInterrupt
    return Steps(before)


def noiseless(model, x):
    """A bound without noise, by torch.distributions: z is the mean of q."""
    mu, log_var = model.encoder(x)
    log_px_given_z = Normal(model.decoder(mu), 0.5**0.5).log_prob(x).sum((1, 2, 3))
    kl = torch.distributions.kl_divergence(Normal(mu, (log_var / 2).exp()), Normal(0.0, 1.0)).sum(1)
    return Bound(log_px_given_z - kl, log_px_given_z, kl)
