"""Training that is interrupted goes on to the same bits; what cannot be resumed is refused, and nothing is harmed."""

import math
import os
import resource
import signal
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from small_runs import (
    GREY,
    SHAPE,
    Steps,
    Toy,
    assert_same_bits,
    bound_of,
    noiseless,
    quiet,
    small_conv_vae,
    small_vae,
    stop_at,
    weights_of,
)

from vae_lib.checkpoints import name_of, read_tensors, save_weights, write_tensors
from vae_lib.likelihoods import Bernoulli, Gaussian
from vae_lib.models import dense_vae
from vae_lib.objectives import dreg

OPTIONS = {
    "plain": dict(steps=13, batch_size=8),
    "everything": dict(steps=13, batch_size=8, warm_up=9, decay=True, weight_decay=0.1, clip=1.0, ema=0.9,
                       checkpoint_every=3),
    "autocast": dict(steps=13, batch_size=8, autocast=True, ema=0.9, checkpoint_every=4),
    "muon": dict(steps=13, batch_size=8, muon=True, decay=True, weight_decay=0.1, checkpoint_every=3),
}


@pytest.mark.parametrize("stop", [2, 4, 7, 8, 13])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_resume_reaches_the_same_bits(tmp_path, options, stop):
    uninterrupted, interrupted = small_conv_vae(), small_conv_vae()
    history = quiet(uninterrupted, GREY, objective=Steps(), **options)
    path = tmp_path / "folder" / "run.safetensors"
    options = {**options, "checkpoint": path}
    with pytest.raises(KeyboardInterrupt):
        quiet(interrupted, GREY, objective=stop_at(stop), **options)
    stranger = small_conv_vae(seed=5 if path.exists() else 0)
    assert quiet(stranger, GREY, objective=Steps(), resume=True, **options) == history
    assert_same_bits(weights_of(stranger), weights_of(uninterrupted))
    finished = small_conv_vae(seed=6)
    assert quiet(finished, GREY, objective=Steps(), resume=True, **options) == history
    assert_same_bits(weights_of(finished), weights_of(uninterrupted))


def test_resume_can_go_further_than_planned(tmp_path):
    longer, prolonged = small_vae(), small_vae()
    options = dict(batch_size=8, ema=0.9)
    history = quiet(longer, GREY, steps=12, **options)
    for steps in (4, 12):
        again = quiet(prolonged, GREY, steps=steps, checkpoint=tmp_path / "run", resume=True, **options)
    assert again == history
    assert_same_bits(weights_of(prolonged), weights_of(longer))


KILLED = """
import sys, time, torch
sys.path.insert(0, {folder!r})
from small_runs import GREY, Steps, quiet, small_conv_vae
torch.set_num_threads({threads})
def slow(model, x, step):
    print(step, flush=True)
    time.sleep(0.02)
quiet(small_conv_vae(), GREY, objective=Steps(slow), steps=1000, batch_size=8, ema=0.9, checkpoint={path!r},
      checkpoint_every=3)
"""


def test_kill_9_in_the_middle_then_resume(tmp_path):
    path = tmp_path / "run.safetensors"
    code = KILLED.format(folder=os.path.dirname(__file__), threads=torch.get_num_threads(), path=str(path))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line) == 20:
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL and path.exists()
    assert 3 <= len(read_tensors(path)[0]["history/elbo"]) <= 21
    uninterrupted, resumed = small_conv_vae(), small_conv_vae(seed=1)
    options = dict(objective=Steps(), steps=30, batch_size=8, ema=0.9, checkpoint_every=3)
    history = quiet(uninterrupted, GREY, **options)
    assert quiet(resumed, GREY, checkpoint=path, resume=True, **options) == history
    assert_same_bits(weights_of(resumed), weights_of(uninterrupted))


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path):
    path = tmp_path / "run.safetensors"
    options = dict(batch_size=8, checkpoint=path, resume=True)
    quiet(small_vae(), GREY, steps=5, **options)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            quiet(small_vae(), GREY, steps=10, **options)
        with pytest.raises(OSError, match="File too large"):
            save_weights(dense_vae(), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert len(quiet(small_vae(), GREY, steps=10, **options)["elbo"]) == 10
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_file_is_replaced_in_one_move(tmp_path):
    """Whoever has the old file open still reads all of it: nothing is ever written into it."""
    path = tmp_path / "weights.safetensors"
    save_weights(small_vae(), path)
    before = path.read_bytes()
    with open(path, "rb") as file:
        save_weights(small_vae(seed=1), path)
        assert file.read() == before != path.read_bytes()


CHANGES = {
    "log_px_given_z is nan": lambda bound: bound._replace(log_px_given_z=bound.log_px_given_z * math.nan),
    "kl is inf": lambda bound: bound._replace(elbo=bound.elbo - math.inf, kl=bound.kl + math.inf),
    "elbo is nan": lambda bound: bound._replace(elbo=bound.elbo * math.nan),
}


@pytest.mark.parametrize("message", CHANGES)
def test_a_bound_that_is_not_finite_stops_before_any_harm(tmp_path, message):
    path, model, seen = tmp_path / "run.safetensors", small_conv_vae(), []
    objective = Steps(lambda model, x, step: seen.append(weights_of(model)), 6, CHANGES[message])
    with pytest.raises(FloatingPointError, match=f"^step 6: {message}"):
        quiet(model, GREY, steps=9, batch_size=8, objective=objective, checkpoint=path, checkpoint_every=4)
    saved, _ = read_tensors(path)
    assert len(saved["history/elbo"]) == 4
    assert_same_bits({name: saved[f"model/{name}"] for name in seen[4]}, seen[4])
    assert all(value.isfinite().all() for value in model.state_dict().values()) and not model.training


def test_weights_that_are_not_finite_are_never_written(tmp_path):
    """The bound can still be finite when its gradient is not."""
    path, model = tmp_path / "run.safetensors", Toy()
    with pytest.raises(FloatingPointError, match="model.a is not finite: .*run.safetensors was not written"):
        quiet(model, GREY, steps=1, objective=root, checkpoint=path, batch_size=4)
    assert list(tmp_path.iterdir()) == []


def root(model, x):
    """A bound of 0 with the gradient infinity times 0."""
    return bound_of(x, model.a.abs().sqrt(), model.b, 0 * model.b)


@pytest.mark.parametrize("options", [dict(), dict(ema=0.9)])
def test_weights_that_are_not_finite_in_the_last_step_never_come_back_in_silence(options):
    with pytest.raises(FloatingPointError, match="^a is not finite: step 1 has diverged"):
        quiet(Toy(), GREY, steps=1, objective=root, batch_size=4, **options)


OTHER = {
    "batch_size=8, got batch_size=4": dict(batch_size=4),
    "learning_rate=0.001, got learning_rate=0.002": dict(learning_rate=0.002),
    "seed=0, got seed=1": dict(seed=1),
    "binarized=True, got binarized=False": dict(binarized=False),
    "output_bias=False, got output_bias=True": dict(output_bias=True),
    "warm_up=0, got warm_up=5": dict(warm_up=5),
    "decay=False, got decay=over 10 steps": dict(decay=True),
    "weight_decay=0.0, got weight_decay=0.1": dict(weight_decay=0.1),
    "clip=None, got clip=1.0": dict(clip=1.0),
    "ema=None, got ema=0.9": dict(ema=0.9),
    "autocast=False, got autocast=True": dict(autocast=True),
    "objective=vae_lib.objectives.elbo, got objective=small_runs.noiseless": dict(objective=noiseless),
    r"objective=.*elbo, got objective=.*dreg\(num_samples=3\)": dict(objective=partial(dreg, num_samples=3)),
    r"images=torch.uint8 \(40, 1, 4, 4\) \w+, got images=torch.uint8 \(39, 1, 4, 4\)": dict(images=GREY[1:]),
    r"images=torch.uint8 .*, got images=torch.uint8 \(40, 1, 4, 4\)": dict(images=GREY.flip(1, 2)),
}


@pytest.mark.parametrize("message", OTHER)
def test_resume_refuses_other_settings(tmp_path, message):
    path, model = tmp_path / "run.safetensors", small_vae(seed=1)
    quiet(small_vae(), GREY, steps=5, batch_size=8, checkpoint=path)
    before, stored = weights_of(model), path.read_bytes()
    with pytest.raises(ValueError, match=f"^resume: .*run.safetensors was written with {message}"):
        options = {"images": GREY, "batch_size": 8, **OTHER[message]}
        quiet(model, steps=10, checkpoint=path, resume=True, **options)
    assert_same_bits(weights_of(model), before)
    assert path.read_bytes() == stored


@pytest.mark.parametrize("texts", [{"checkpoint": '{"format": "checkpoint of vae_lib.training.fit, 1"}'}, {}])
def test_resume_refuses_another_format(tmp_path, texts):
    write_tensors(tmp_path / "run", {"weights": torch.ones(1)}, texts)
    with pytest.raises(ValueError, match="^checkpoint: wanted a 'checkpoint of .*fit, 5', got .*run"):
        quiet(small_vae(), GREY, steps=5, batch_size=8, checkpoint=tmp_path / "run", resume=True)


class Other(Gaussian):
    """A likelihood of the reader's own, with the repr of its parent."""


@pytest.mark.parametrize("other, message", [
    (dict(likelihood=Gaussian(0.5)), r"Gaussian\(0.25\) in the file, Gaussian\(0.5\) here"),
    (dict(likelihood=Other(0.25)), r"Gaussian\(0.25\) in the file, Other\(0.25\) here"),
    (dict(likelihood=Bernoulli()), r"Gaussian\(0.25\) in the file, Bernoulli\(\) here"),
    (dict(activation=torch.nn.Tanh), r"ReLU\(\) in the file, .*Tanh\(\) here"),
])
def test_resume_refuses_a_model_that_computes_otherwise_with_the_same_weights(tmp_path, other, message):
    options = dict(batch_size=8, checkpoint=tmp_path / "run", resume=True)
    made = dict(likelihood=Gaussian(0.25))
    quiet(small_vae(**made), GREY, steps=5, **options)
    with pytest.raises(ValueError, match=f"run does not fit this model: .*{message}"):
        quiet(small_vae(**made | other), GREY, steps=10, **options)
    with pytest.raises(ValueError, match="fit this model: torch.float32 in the file, torch.float64 here"):
        quiet(small_vae(**made).double(), GREY, steps=10, **options)
    assert len(quiet(small_vae(seed=1, **made), GREY, steps=10, **options)["elbo"]) == 10


class Silent(Gaussian):
    """A likelihood of the reader's own."""


@pytest.mark.parametrize("address", ["0x7f69bbf19780", "0x000001D5B8C04B50"])
def test_a_likelihood_without_a_repr_goes_by_its_class(tmp_path, monkeypatch, address):
    options = dict(batch_size=8, checkpoint=tmp_path / "run", resume=True)
    addresses = iter(range(99))
    monkeypatch.setattr(Silent, "__repr__", lambda self: f"<Silent object at {address}{next(addresses):02}>")
    for steps in 5, 10:
        assert len(quiet(small_vae(likelihood=Silent(0.5)), GREY, steps=steps, **options)["elbo"]) == steps
    with pytest.raises(ValueError, match="<Silent object> in the file, Gaussian"):
        quiet(small_vae(likelihood=Gaussian(0.5)), GREY, steps=12, **options)


def test_a_pickle_is_refused_and_never_loaded(tmp_path):
    torch.save({"settings": 1}, tmp_path / "run")
    with pytest.raises(ValueError, match="run is truncated or no safetensors file"):
        quiet(small_vae(), GREY, steps=5, batch_size=8, checkpoint=tmp_path / "run", resume=True)


@pytest.mark.parametrize("one, other", [
    (small_vae(), small_vae(seed=1)), (torch.zeros(2000, dtype=torch.bool), torch.arange(2000) == 1000),
    (torch.zeros(4000)[::2], (torch.arange(4000) == 2000).float()[::2]),
    (torch.zeros(2000).bfloat16(), (torch.arange(2000) == 1000).bfloat16()),
    (torch.zeros(()), torch.ones(())), (torch.zeros(0), torch.zeros(0).double())])
def test_an_objective_with_other_numbers_is_another_one(one, other):
    for objective in partial(partial, dreg), lambda vae: partial(dreg, vae=vae):
        names = [name_of(objective(given)) for given in (one, other, one)]
        assert names[0] == names[2] != names[1]


def test_a_module_with_other_weights_is_another_objective():
    assert name_of(small_vae()) == name_of(small_vae()) != name_of(small_vae(seed=1))


@pytest.mark.parametrize("objective", [lambda model, x: noiseless(model, x), partial(lambda model, x: None),
                                       type("Nameless", (), {"__call__": noiseless})()])
def test_a_checkpoint_wants_an_objective_that_can_be_told_from_others(tmp_path, objective):
    """Two lambdas have one name: one could go on from the other's checkpoint."""
    with pytest.raises(ValueError, match="^objective: wanted, for a checkpoint, a function that is defined at the top"):
        quiet(small_vae(), GREY, steps=5, batch_size=8, checkpoint=tmp_path / "run", objective=objective)
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_numpy_are_numbers_in_a_checkpoint_too(tmp_path):
    options = dict(batch_size=8, learning_rate=0.5**10, seed=3, warm_up=2, clip=2.0, ema=0.5, checkpoint_every=2)
    given = {name: (np.float32 if isinstance(value, float) else np.int64)(value) for name, value in options.items()}
    history = quiet(small_vae(), GREY, steps=np.int16(4), checkpoint=tmp_path / "run", **given)
    assert history == quiet(small_vae(), GREY, steps=4, **options)
    assert len(quiet(small_vae(), GREY, steps=6, checkpoint=tmp_path / "run", resume=True, **options)["elbo"]) == 6


def test_decay_holds_for_the_number_of_steps_it_began_with(tmp_path):
    quiet(small_vae(), GREY, steps=5, batch_size=8, checkpoint=tmp_path / "run", decay=True)
    with pytest.raises(ValueError, match="decay=over 5 steps, got decay=over 10 steps"):
        quiet(small_vae(), GREY, steps=10, batch_size=8, checkpoint=tmp_path / "run", resume=True, decay=True)


def test_resume_refuses_another_model_fewer_steps_and_other_files(tmp_path):
    path = tmp_path / "run.safetensors"
    options = dict(batch_size=8, checkpoint=path, resume=True)
    quiet(small_vae(), GREY, steps=5, **options)
    wider, frozen = dense_vae(SHAPE, (6,), 2), small_vae()
    frozen.decoder.requires_grad_(False)
    with pytest.raises(ValueError, match=r"fit this model: decoder.* is \(5,\) in the file, \(6,\) here"):
        quiet(wider, GREY, steps=10, **options)
    with pytest.raises(ValueError, match="fit this model: it trained other weights than encoder"):
        quiet(frozen, GREY, steps=10, **options)
    with pytest.raises(ValueError, match="^steps: .*run.safetensors has 5 steps behind it, got 4"):
        quiet(small_vae(), GREY, steps=4, **options)
    with pytest.raises(FileExistsError, match="^checkpoint: .*run.safetensors exists; .* resume=True"):
        quiet(small_vae(), GREY, steps=5, batch_size=8, checkpoint=path)
    with pytest.raises(ValueError, match="^checkpoint: wanted a path to resume from, got None"):
        quiet(small_vae(), GREY, steps=5, batch_size=8, resume=True)
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:len(whole) // 2], whole[:5], b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="run.safetensors is truncated or no safetensors file"):
            quiet(small_vae(), GREY, steps=10, **options)
    save_weights(small_vae(), path)
    with pytest.raises(ValueError, match="^checkpoint: wanted .*got 'a file of another kind': .*run.safetensors"):
        quiet(small_vae(), GREY, steps=10, **options)
