"""What tests against the real control plane share. Started once for all of them, on first use:

`control`    etcd and kube-apiserver with RBAC: no controllers, until a test asks for `cluster`
`cluster`    `control` with kube-controller-manager, kube-scheduler and simulated nodes
`namespace`  a namespace of the test's own
`account`    `account(name, rules)`: a ServiceAccount in it with exactly these rights
`lab`        all of it in one, for tests of the closed loop
`quiet`      a control plane without controllers, so that nobody but actions writes, and `world` in it: what actions speak of

A test that stops programs or makes etcd forget makes its own `Control`. Tests that only want a fast API server, without
anybody who touches their Deployments, use a `Control` of their own too: controllers once started see every namespace.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from kube.apiclient import Json
from kube.controlplane import ALL, BASE, Control, missing, until
from kube.kubelet import Fleet
from kube.lab import RBAC, Account, Cluster, Lab, clear, grant
from kube.world import World

from aiops import rbac

_NUMBERS = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those with a control plane are slow, they need real programs, and the first of them waits until it has started."""
    for item in items:
        used = set(getattr(item, "fixturenames", ()))
        if Path(__file__).parent in item.path.parents and used & {"control", "quiet"}:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(400))
            if not missing(ALL if "cluster" in used else BASE):
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


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """The user `aiops` (aiops-token) has the rights of all actions, and in the namespace `aiops` those of the leader."""
    if why := missing(BASE):
        pytest.skip(why)
    with Control(tmp_path_factory.mktemp("quiet"), {"aiops": "aiops-token"}) as control:
        admin, user = control.admin, [{"kind": "User", "name": "aiops"}]
        until(lambda: admin.find("namespaces", None, "default"), what="namespaces")
        admin.create("namespaces", {"metadata": {"name": "aiops"}})
        rights = rbac.EVERY_ACTION.union(*rbac.actions().values())
        admin.create("clusterroles", rbac.cluster_role("aiops-acts", rights, "all"))
        admin.create("clusterrolebindings", {"metadata": {"name": "aiops-acts"}, "subjects": user, "roleRef": {
            "apiGroup": RBAC, "kind": "ClusterRole", "name": "aiops-acts"}})
        admin.create("roles", rbac.leader_role(), "aiops")
        admin.create("rolebindings", rbac.leader_binding() | {"subjects": user}, "aiops")
        yield control


@pytest.fixture(scope="module")
def world(quiet: Control) -> World:
    """An hour before the action: whoever made it all made it long ago."""
    made = World(quiet.admin, float(round(time.time())) + 3600.0)
    made.fill()
    return made
