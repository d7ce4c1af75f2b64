"""Settings of every test run: one thread in each worker and kernel, and paths that hold in any folder."""
import run

run.settle_environment(one_thread=True)  # before anything imports torch or starts a kernel


def pytest_configure(config):
    config.option.nbval_sanitize_with = str(config.rootpath / config.option.nbval_sanitize_with)
