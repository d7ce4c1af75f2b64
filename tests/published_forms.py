"""Correct VAEs in forms in which people publish them, on which `checkup` may raise no alarm: as in `odd_models`."""

from dataclasses import dataclass

import torch
from exhibits import IMAGES, right_kl
from odd_models import GREY, Plain, plain_loss
from torch import nn
from torch.nn import functional as F

from vae_lib.gaussian import reparameterize


def cross_entropy(model, x):
    """Of a model whose forward returns logits, mu and log_var."""
    logits, mu, log_var = model(x)
    error = F.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="none").sum(1)
    return (error + right_kl(mu, log_var).sum(1)).mean()


class InForward(nn.Module):
    """Five layers and one forward: no part returns mu and log_var, none turns z into an image."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc21, self.fc22 = nn.Linear(64, 16), nn.Linear(16, 4), nn.Linear(16, 4)
        self.fc3, self.fc4 = nn.Linear(4, 16), nn.Linear(16, 64)

    def draw(self, mu, log_var):
        return reparameterize(mu, log_var)

    def forward(self, x):
        features = self.fc1(x.flatten(1)).relu()
        mu, log_var = self.fc21(features), self.fc22(features)
        return self.fc4(self.fc3(self.draw(mu, log_var)).relu()), mu, log_var


def layers_in_forward():
    return InForward(), IMAGES, cross_entropy


class Recurrent(InForward):
    """Rows of pixels enter one after another; the two layers take views of the last state."""

    def __init__(self):
        super().__init__()
        self.rows = nn.GRU(8, 16, batch_first=True)

    def forward(self, x):
        _, state = self.rows(x.squeeze(1))
        mu, log_var = self.fc21(state[0]), self.fc22(state[0])
        return self.fc4(self.fc3(self.draw(mu, log_var)).relu()), mu, log_var


def recurrent():
    return Recurrent(), IMAGES, cross_entropy


class SpreadFirst(nn.Module):
    """One layer for both, and log_var is the first half of what it returns."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 8)), nn.Linear(4, 64)

    def forward(self, x):
        log_var, mu = self.encoder(x).chunk(2, 1)
        return self.decoder(reparameterize(mu, log_var)), mu, log_var


def log_var_comes_first():
    return SpreadFirst(), IMAGES, cross_entropy


@dataclass
class Decoded:
    sample: torch.Tensor


class Posterior:
    """An object that holds the mean and, three times, the spread."""

    def __init__(self, moments):
        self.mean, self.logvar = moments.chunk(2, 1)
        self.std, self.var = (self.logvar / 2).exp(), self.logvar.exp()

    def sample(self):
        return self.mean + self.std * torch.randn_like(self.std)


class OfObjects(nn.Module):
    """encode returns an object with a distribution, decode one with an image; a convolution stands before and after."""

    def __init__(self):
        super().__init__()
        self.encoder, self.quant_conv = nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 4, 1)
        self.post_quant_conv, self.decoder = nn.Conv2d(2, 2, 1), nn.ConvTranspose2d(2, 1, 2, 2)

    def encode(self, x):
        return {"latent_dist": Posterior(self.quant_conv(self.encoder(x)))}

    def decode(self, z):
        return Decoded(sample=self.decoder(self.post_quant_conv(z)))

    def forward(self, x):
        return self.decode(self.encode(x)["latent_dist"].mean)


def answers_are_objects():
    def loss(model, x):
        q = model.encode(x)["latent_dist"]
        error = F.mse_loss(model.decode(q.sample()).sample, x, reduction="sum") / len(x)
        return error + right_kl(q.mean, q.logvar).sum((1, 2, 3)).mean()
    return OfObjects(), GREY, loss


class Around(nn.Module):
    """The methods encode and decode are those of a module inside."""

    def __init__(self):
        super().__init__()
        self.vae = Plain()

    def forward(self, x):
        mu, log_var = self.vae.encode(x.flatten(1))
        return self.vae.decode(reparameterize(mu, log_var)), mu, log_var


def methods_of_a_module_inside():
    return Around(), IMAGES, plain_loss


class InPlace(Plain):
    """Images are scaled, and a standard deviation is made, where they stand."""

    def forward(self, x):
        x.mul_(2).sub_(1)
        mu, log_var = self.encode(x.flatten(1))
        std = log_var.mul_(0.5).exp_()
        return self.decode(mu + std * torch.randn_like(std)), mu, std


def in_place():
    def loss(model, x):
        output, mu, std = model(x)
        kl = 0.5 * (mu**2 + std**2 - 2 * std.log() - 1).sum(1)
        return (((x.flatten(1) - output) ** 2).sum(1) + kl).mean()
    return InPlace(), IMAGES, loss


class OfLabels(nn.Module):
    """encode(x, labels) and decode(z, labels)."""

    def __init__(self):
        super().__init__()
        self.to_both, self.to_logits = nn.Linear(74, 8), nn.Linear(14, 64)

    def encode(self, x, labels):
        return self.to_both(torch.cat([x, labels], 1)).chunk(2, 1)

    def decode(self, z, labels):
        return self.to_logits(torch.cat([z, labels], 1))


def labels():
    def loss(model, x):
        of_x = F.one_hot(torch.arange(len(x)) % 10, 10).to(x)
        mu, log_var = model.encode(x.flatten(1), of_x)
        logits = model.decode(reparameterize(mu, log_var), of_x)
        error = F.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="none").sum(1)
        return (error + right_kl(mu, log_var).sum(1)).mean()
    return OfLabels(), IMAGES, loss


PUBLISHED = (layers_in_forward, recurrent, log_var_comes_first, answers_are_objects, methods_of_a_module_inside,
             in_place, labels)
