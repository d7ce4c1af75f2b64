"""How fast `fit` trains, beside other ways to train the same networks: `python3 run.py benchmark`.

It needs the full MNIST in the folder that VAE_DATA names. pythae takes part if it is installed (`pip install pythae`).
All ways take turns, several rounds long, and each is represented by its fastest round, so that what else the machine
does weighs little. Options: --rounds N, --steps N (of the article's network in a round).
"""

import argparse
import contextlib
import datetime
import importlib.util
import io
import math
import os
import platform
import tempfile
import time

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from vae_lib.data import load, to_article, to_unit
from vae_lib.models import article_conv_vae, dense_vae
from vae_lib.objectives import article_loss, elbo
from vae_lib.training import fit

BATCH = 128


def small_vae():
    """784-400-20 and back, as in PyTorch's example of a VAE."""
    torch.manual_seed(0)
    return dense_vae(hidden=(400,), latent_dim=20)


def article_vae():
    torch.manual_seed(0)
    return article_conv_vae()


def timed(work):
    """The seconds that work() takes, and what it returns."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def mnist_loader(transform, **options):
    """torchvision's MNIST, each image opened and transformed on its own whenever it is needed."""
    train = datasets.MNIST(os.environ["VAE_DATA"], train=True, transform=transform)
    return DataLoader(train, batch_size=BATCH, shuffle=True, **options)


def stock_epoch():
    """An epoch as much example code has it: a loader with transforms, binary cross entropy, Adam."""
    model, loader = small_vae(), mnist_loader(transforms.ToTensor())
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def epoch():
        total = 0.0
        for x, _ in loader:
            optimizer.zero_grad()
            output, mu, log_var = model(x)
            error = F.binary_cross_entropy(output.sigmoid(), x, reduction="sum")
            loss = error - 0.5 * torch.sum(1 + log_var - mu**2 - log_var.exp())
            loss.backward()
            total += loss.item()
            optimizer.step()
        return total / len(loader.dataset)

    return timed(epoch)


def pythae_epoch(images):
    """An epoch of pythae's trainer, with layers of the same widths."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    class Encoder(BaseEncoder):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            mu, log_var = self.inner(x)
            return ModelOutput(embedding=mu, log_covariance=log_var)

    class Decoder(BaseDecoder):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, z):
            return ModelOutput(reconstruction=self.inner(z).sigmoid())

    inner = small_vae()
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=20, reconstruction_loss="bce")
    model = VAE(config, encoder=Encoder(inner.encoder), decoder=Decoder(inner.decoder))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        options = BaseTrainerConfig(output_dir=folder, per_device_train_batch_size=BATCH, num_epochs=1,
                                    learning_rate=1e-3, optimizer_cls="Adam", no_cuda=True)
        data = BaseDataset(to_unit(images), torch.zeros(len(images)))
        trainer = BaseTrainer(model, data, training_config=options)
        trainer.prepare_training()
        return timed(lambda: float(trainer.train_step(epoch=1)))


def fit_epoch(images):
    steps = len(images) // BATCH
    model = small_vae()

    def epoch():
        history = fit(model, images, steps=steps, batch_size=BATCH, binarized=False, device="cpu", progress=False)
        return -sum(history["elbo"]) / steps

    return timed(epoch)


def bare_epoch(images):
    """As many steps on one batch that is there already: forward, backward, optimiser, and nothing else."""
    model, x = small_vae(), to_unit(images[:BATCH])
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)

    def epoch():
        for _ in range(len(images) // BATCH):
            loss = -elbo(model, x).elbo.mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return timed(epoch)


def article_loop(steps):
    """Steps as the article's code takes them: four workers resize each image, networks in float32. Seconds, losses."""
    resize = transforms.Compose([transforms.Resize(64), transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])
    model, batches = article_vae().requires_grad_(True), iter(mnist_loader(resize, num_workers=4))  # every bias too
    optimizer, losses = torch.optim.Adam(model.parameters(), 1e-3), []

    def step():
        x, _ = next(batches)
        output, mu, log_var = model(x)
        loss = article_loss(x, output, mu, log_var).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    step()  # workers start, and kernels are chosen
    return timed(lambda: [step() for _ in range(steps - 1)])[0] / (steps - 1), losses


def article_fit(images, steps):
    """The same steps by fit, in bfloat16, on images resized beforehand; its bound is turned back into that loss."""
    constant = 0.5 * math.log(math.pi) * 64 * 64
    pixels = to_article(images[:BATCH * steps])
    model = article_vae()
    fit(model, pixels, steps=1, batch_size=BATCH, autocast=True, device="cpu", progress=False)
    model = article_vae()
    taken, history = timed(lambda: fit(model, pixels, steps=steps, batch_size=BATCH, autocast=True, device="cpu",
                                       progress=False))
    return taken / steps, [-bound - constant for bound in history["elbo"]]


def profile(title, work):
    """Print which operations the time of one run goes into."""
    with torch.profiler.profile() as profiler:
        work()
    rows = sorted(profiler.key_averages(), key=lambda row: -row.self_cpu_time_total)
    total = sum(row.self_cpu_time_total for row in rows)
    print(f"\n{title}: where the time goes")
    for row in rows[:10]:
        print(f"  {row.key[:44]:<44} {100 * row.self_cpu_time_total / total:5.1f} %  {row.count:6,} calls")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=24)
    options = parser.parse_args()
    images = load("MNIST").train
    if len(images) < 60_000:
        raise SystemExit("speed: the full MNIST is needed; VAE_DATA names its folder")
    print(f"{datetime.date.today()}, {platform.machine()}, {torch.get_num_threads()} threads, "
          f"torch {torch.__version__}")

    ways = {"fit": lambda: fit_epoch(images), "bare step": lambda: bare_epoch(images), "stock loop": stock_epoch}
    if importlib.util.find_spec("pythae"):
        ways["pythae"] = lambda: pythae_epoch(images)
    rounds = [{name: way() for name, way in ways.items()} for _ in range(options.rounds)]
    best = {name: min(found[name] for found in rounds) for name in ways}
    print("\n784-400-20 on grey pixels, batch 128, one epoch of 60,000 images; loss: its mean, in nats an image")
    for name, (taken, loss) in sorted(best.items(), key=lambda item: item[1]):
        every = ", ".join(f"{found[name][0]:.2f}" for found in rounds)
        loss = "one batch" if name == "bare step" else f"{loss:9.1f}"
        print(f"  {name:<12} {taken:6.2f} s   {taken / best['fit'][0]:5.2f} x fit   loss {loss}   (rounds: {every})")

    rounds = [(article_fit(images, options.steps), article_loop(options.steps)) for _ in range(options.rounds)]
    (fit_time, fit_losses), (loop_time, loop_losses) = (min(both) for both in zip(*rounds))
    print(f"\nthe article's network at 64x64, batch 128, {options.steps} steps a round, a step, and an epoch of 468")
    for name, taken in (("fit", fit_time), ("article's loop", loop_time)):
        print(f"  {name:<14} {taken:6.3f} s  {468 * taken:7.0f} s  {taken / fit_time:5.2f} x fit")
    print("  the loss at steps " + ", ".join(f"{i + 1}: {fit_losses[i]:.0f} and {loop_losses[i]:.0f}"
                                             for i in range(options.steps // 4 - 1, options.steps, options.steps // 4)))

    profile("784-400-20, one epoch of fit", lambda: fit_epoch(images))
    profile("the article's network, fit", lambda: article_fit(images, 4))


if __name__ == "__main__":
    main()
