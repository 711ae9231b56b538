"""What tests against the real control plane share. Started once for all of them, on first use:

`control`    etcd and kube-apiserver with RBAC: no controllers, until a test asks for `cluster`
`cluster`    `control` with kube-controller-manager, kube-scheduler and simulated nodes
`namespace`  a namespace of the test's own
`account`    `account(name, rules)`: a ServiceAccount in it with exactly these rights
`lab`        all of it in one, for tests of the closed loop

A test that stops programs or makes etcd forget makes its own `Control`. Tests that only want a fast API server, without
anybody who touches their Deployments, use a `Control` of their own too: controllers once started see every namespace.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from kube.apiclient import Json
from kube.controlplane import ALL, BASE, Control, missing
from kube.kubelet import Fleet
from kube.lab import Account, Cluster, Lab, clear, grant

_NUMBERS = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those with a control plane are slow, they need real programs, and the first of them waits until it has started."""
    for item in items:
        if Path(__file__).parent in item.path.parents and "control" in item.fixturenames:  # type: ignore[attr-defined]
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(400))
            if not missing(ALL if "cluster" in item.fixturenames else BASE):  # type: ignore[attr-defined]
                item.add_marker(pytest.mark.real)


@pytest.fixture(scope="session")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    if why := missing(BASE):
        pytest.skip(why)
    with Control(tmp_path_factory.mktemp("control")) as control:
        yield control


@pytest.fixture(scope="session")
def cluster(control: Control) -> Iterator[Cluster]:
    """Six nodes, two in each of the zones a, b, c, the group `web`; a test's own nodes come from `lab.nodes`."""
    if why := missing(ALL):
        pytest.skip(why)
    control.start_controller_manager()
    control.start_scheduler()
    fleet = Fleet(control.client("kubelet-token", "simulated-kubelet"))
    fleet.start()
    fleet.add("web", 6, labels={"node-group": "web"})
    yield Cluster(control, fleet)
    fleet.stop()
    control.close()
    fleet.join()


@pytest.fixture
def namespace(control: Control) -> Iterator[str]:
    name = f"t{next(_NUMBERS)}"
    control.admin.create("namespaces", {"metadata": {"name": name}})
    yield name
    clear(control, name)


@pytest.fixture
def account(control: Control, namespace: str) -> Callable[[str, Sequence[Json]], Account]:
    return lambda name, rules: grant(control, namespace, name, rules)


@pytest.fixture
def lab(cluster: Cluster, namespace: str) -> Iterator[Lab]:
    lab = Lab(cluster.control, cluster.fleet, namespace)
    yield lab
    lab.close()
