"""Settings of every test run: one thread in each worker and kernel, and paths that hold in any folder."""
import run

run.settle_environment(one_thread=True)  # before anything imports torch or starts a kernel


def pytest_configure(config):
    config.option.nbval_sanitize_with = str(config.rootpath / config.option.nbval_sanitize_with)


def pytest_collection_finish(session):
    """Count what the tests cover, not what pages run: nbval would count in each kernel, for 5 seconds a notebook."""
    session.config.option.cov_source = None
