"""A model run with chosen answers in place of its encoder's and decoder's.

So a loss is read as a function of mu, log_var and the decoder's output, and the z that is drawn in between is seen.
Networks and losses stay black boxes.
"""

import copy
from contextlib import suppress
from operator import attrgetter

import torch

from vae_lib.checkup.answers import NotReadable, first_line, number_of
from vae_lib.checkup.keeping import numbers_in
from vae_lib.checkup.stand_ins import answering, watched

FROM_LOG_VAR = {"log_var": lambda log_var: log_var, "log_std": lambda log_var: log_var / 2,
                "std": lambda log_var: (log_var / 2).exp(), "variance": torch.exp}


class Probe:
    """Runs functions of a model while encoder and decoder answer what `ask` wants; x are the images to run them on.

    `spread` is what the encoder returns beside mu, a key of FROM_LOG_VAR; `stated`, whether anybody said so.
    """

    def __init__(self, model, x, seams, spread, stated):
        self.model, self.x, self.seams, self.spread, self.stated = model, x, seams, spread, stated
        self.latent_shape = tuple(seams.posterior.tensors[0].shape[1:])
        z, output = seams.decode.argument, seams.output.tensors[0]
        leading = z.shape[:z.dim() - len(self.latent_shape)]
        rows = leading.numel()
        dims = next(dims for dims in range(1, output.dim() + 1) if output.shape[:dims].numel() == rows)
        self.output_shape = tuple(output.shape[dims:])
        self.numbers = numbers_in(model)
        self.dtype = self.own_dtype = x.dtype

    def like(self, **changes):
        """The same probe with another x, latent_shape or output_shape: answers of that size are given."""
        other = copy.copy(self)
        vars(other).update(changes)
        return other

    def ask(self, function, mu=0.0, log_var=0.0, output=0.0, seed=0, training=True):
        """function(model, x) in nats, and the z that came to the decoder, a list of tensors.

        mu and log_var are numbers, or tensors (images, *latent_shape); output is a number, or a function of z that
        returns (*leading dimensions of z, *shape of one output). The draws depend on seed alone.
        Raises NotReadable where a call, the answers or the value do not have the form that a loss has.
        """
        x, latent_shape, drawn = self.x, self.latent_shape, []
        shape = (len(x), *latent_shape)
        mu, log_var = (torch.as_tensor(value, dtype=self.dtype, device=x.device).expand(shape)
                       for value in (mu, log_var))
        second = FROM_LOG_VAR[self.spread](log_var)

        def encode(argument):
            rows = image_of_row(argument, x)
            return self.seams.posterior.put(mu[rows].clone(), second[rows].clone())

        def decode(z):
            if z.shape[-len(latent_shape):] != latent_shape:
                raise NotReadable(f"the decoder got latents of shape {tuple(z.shape)}")
            drawn.append(z.detach())
            leading = z.shape[:z.dim() - len(latent_shape)]
            made = output(z) if callable(output) else z.new_full((*leading, *self.output_shape), output)
            return self.seams.output.put(made)

        for module, numbers in self.numbers:
            vars(module).update(numbers)
        if any(module.training is not training for module in self.model.modules()):
            self.model.train(training)
        reseed(seed, x.device)
        with torch.no_grad(), answering(self.model, self.seams, encode, decode):
            try:
                value = function(self.model, x.clone())
            except NotReadable:
                raise
            except Exception as error:  # whatever a foreign loss raises for answers that it did not expect
                raise NotReadable(first_line(error)) from error
        return value, drawn

    def value(self, function, **answers):
        """The number that `ask` gets: a float; NotReadable unless it is finite."""
        return number_of(self.ask(function, **answers)[0])

    def encoded(self, x, training):
        """Mean and spread, as the encoder itself returns them for images x; NotReadable where it takes no such.

        It runs alone, or, where it asks for more than images, in the model's own run.
        """
        seams, shape = self.seams, self.seams.encode.argument.shape[1:]
        names, x = seams.encode.name.split(", "), x.to(self.own_dtype, copy=True)
        self.model.train(training)
        with torch.no_grad():
            if len(names) == 1 and shape.numel() == x[0].numel():
                with suppress(Exception):
                    return seams.posterior.take(attrgetter(names[0])(self.model)(x.reshape(len(x), *shape)))
            calls, error = watched(self.model, lambda: seams.drive(self.model, x), names)
        answers = [next((call.answer for call in calls if call.name == name), None) for name in names]
        if any(answer is None for answer in answers):
            raise NotReadable(f"the encoder: {first_line(error) if error else 'it did not run'}")
        return seams.posterior.take(answers[0] if len(names) == 1 else tuple(answers))

    def decoded(self, z):
        """The decoder's own output, in eval mode, for latents (n, *latent_shape)."""
        if ", " in self.seams.decode.name:
            raise NotReadable(f"{self.seams.decode.name} are two parts")
        self.model.eval()
        with torch.no_grad():
            try:
                answer = attrgetter(self.seams.decode.name)(self.model)(z)
            except Exception as error:
                raise NotReadable(first_line(error)) from error
        return self.seams.output.take(answer)[0].reshape(len(z), -1)


def located(model, x, seams):
    """Whether z goes with mu, by the same distance, in a run of Seams; of two heads, whether the second matters too."""
    def run(mu, log_var):
        value, drawn = probe.ask(seams.drive, mu=mu, log_var=log_var)
        with suppress(NotReadable):
            return drawn, number_of(value)
        return drawn, None

    probe = Probe(model, x, seams, "log_var", stated=False)
    try:
        (here, _), (there, value), (wide, other) = run(0.0, 0.5), run(0.5, 0.5), run(0.5, 1.0)
    except NotReadable:
        return False
    moved = any(bool(((after - before - 0.5).abs() < 0.05).all()) for before, after in zip(here, there))
    matters = value != other or any(not torch.equal(one, two) for one, two in zip(there, wide))
    return moved and (matters or ", " not in seams.encode.name)


def image_of_row(argument, x):
    """Which image of x each row of an encoder's argument is: (rows,). As many different rows as images are in order."""
    if argument is not None and len(argument) == len(x) and not (argument == argument[:1]).all():
        return torch.arange(len(x), device=x.device)
    if argument is not None and argument[0].numel() == x[0].numel():
        same = (argument.reshape(len(argument), 1, -1) == x.reshape(1, len(x), -1)).all(-1)
        if same.any(1).all():
            return same.int().argmax(1)
    raise NotReadable("the encoder got something else than the images")


def reseed(seed, device):
    """Start the global stream of random numbers anew; torch.manual_seed is slow where there is no GPU."""
    (torch.default_generator if device.type == "cpu" else torch).manual_seed(seed)
