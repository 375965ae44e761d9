"""What holds for every test: quick sizes, two threads, fixed seeds, and no network but this machine's own."""

import os
import random
import signal
import socket
import sys
from ipaddress import ip_address

import numpy as np
import pytest
from hypothesis import settings

os.environ.setdefault("LABLIB_MODE", "quick")
os.environ.setdefault("OMP_NUM_THREADS", "2")  # read by torch and BLAS when they load
os.environ.setdefault("MPLBACKEND", "Agg")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start a job in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("lab", deadline=None, derandomize=True)
settings.load_profile("lab")


def _is_local(address: object) -> bool:
    """Whether a socket address is a Unix path or on this machine (a name is looked up nowhere but here)."""
    if not isinstance(address, tuple):
        return True
    host = str(address[0])
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True, scope="session")
def no_network():
    """Refuse every connection and look-up that leaves the machine."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self, address):
        if not _is_local(address):
            raise ConnectionRefusedError(f"tests open no connection to {address}")
        return connect(self, address)

    def guarded_look_up(host, *args, **kwargs):
        if host is not None and not _is_local((host,)):
            raise socket.gaierror(f"tests look up no host: {host}")
        return look_up(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket, "getaddrinfo", guarded_look_up)
        yield


THREADS = int(os.environ["OMP_NUM_THREADS"])


@pytest.fixture(autouse=True)
def fixed_seeds():
    """Start every test from the same random state and threads, so that order and selection change nothing.

    numba, when it starts, sets torch's number of threads to all cores; two test processes then wait for one another.
    """
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - for third-party code that still draws from the global state
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
        sys.modules["torch"].set_num_threads(THREADS)
