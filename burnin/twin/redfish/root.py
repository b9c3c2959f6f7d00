"""What every service has: its root, its manager, events, accounts of its firmware."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from burnin.twin.redfish.logs import Log, iso
from burnin.twin.redfish.service import SSE, Service
from burnin.twin.redfish.tree import OK, ROOT, Tree, ref


@dataclass(frozen=True, slots=True)
class Made:
    """A service and what must be called about ten times a second to keep it alive."""

    service: Service
    beat: Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Account:
    """The one account of every service of a rack, clocks, and chance for bad manners."""

    user: str
    password: str
    now: Callable[[], float]
    """Seconds since 1970."""
    clock_s: Callable[[], float]
    """Monotonic."""
    chance: Random


def make_service(account: Account, *, expands: bool = True) -> tuple[Tree, Service]:
    """An empty tree and the service in front of it."""
    tree = Tree()
    service = Service(tree, account.user, account.password, account.clock_s, account.chance, expands=expands)
    return tree, service


def root(tree: Tree, vendor: str, product: str, uuid: str, links: Mapping[str, str], *, expands: bool = True) -> None:
    """The service root. `links`: what else stands below it, name -> path."""
    features: dict[str, object] = {"ExcerptQuery": False, "FilterQuery": False, "OnlyMemberQuery": False, "SelectQuery": True}
    if expands:
        features["ExpandQuery"] = {"ExpandAll": True, "Levels": True, "Links": True, "MaxLevels": 6, "NoLinks": True}
    tree.put(
        ROOT,
        "ServiceRoot.v1_15_0.ServiceRoot",
        {
            "Id": "RootService",
            "Product": product,
            "ProtocolFeaturesSupported": features,
            "RedfishVersion": "1.17.0",
            "UUID": uuid,
            "Vendor": vendor,
            "SessionService": ref(f"{ROOT}/SessionService"),
            "Links": {"Sessions": ref(f"{ROOT}/SessionService/Sessions")},
            **{name: ref(path) for name, path in links.items()},
        },
        "Root Service",
    )


def events(tree: Tree) -> str:
    """An event service with server-sent events and no push. Returns its path."""
    at = f"{ROOT}/EventService"
    tree.collect(f"{at}/Subscriptions", "EventDestination", [])
    return tree.put(
        at,
        "EventService.v1_7_2.EventService",
        {
            "DeliveryRetryAttempts": 3,
            "EventFormatTypes": ["Event"],
            "RegistryPrefixes": ["OpenBMC", "ResourceEvent", "SensorEvent"],
            "ServerSentEventUri": SSE,
            "ServiceEnabled": True,
            "Status": {"State": "Enabled"},
            "Subscriptions": ref(f"{at}/Subscriptions"),
        },
        "Event Service",
    )


def manager(tree: Tree, name: str, version: str, logs: Sequence[Log], now: Callable[[], float], model: str = "OpenBmc") -> str:
    """A management controller. Returns its path."""
    at = f"{ROOT}/Managers/{name}"
    body = {
        "FirmwareVersion": version,
        "ManagerType": "BMC",
        "Model": model,
        "PowerState": "On",
        "Status": OK,
        "LogServices": ref(f"{at}/LogServices"),
        "DateTimeLocalOffset": "+00:00",
    }
    tree.collect(f"{at}/LogServices", "LogService", [log.path for log in logs])
    return tree.live(at, "Manager.v1_15_0.Manager", lambda: {**body, "DateTime": iso(now())}, f"{model} Manager")


def firmware(tree: Tree, versions: Mapping[str, tuple[str, str]]) -> str:
    """The update service and its inventory: name -> version and the resource it runs on. Returns the service's path."""
    at = f"{ROOT}/UpdateService"
    members = [
        tree.put(
            f"{at}/FirmwareInventory/{name}",
            "SoftwareInventory.v1_4_0.SoftwareInventory",
            {"RelatedItem": [ref(on)], "Status": OK, "Updateable": True, "Version": version},
            "Software Inventory",
        )
        for name, (version, on) in versions.items()
    ]
    tree.collect(f"{at}/FirmwareInventory", "SoftwareInventory", members)
    return tree.put(
        at,
        "UpdateService.v1_11_0.UpdateService",
        {"FirmwareInventory": ref(f"{at}/FirmwareInventory"), "ServiceEnabled": True, "Status": {"State": "Enabled"}},
        "Update Service",
    )


def collect_all(tree: Tree, kinds: Mapping[str, tuple[str, Sequence[str]]]) -> dict[str, str]:
    """Collections below the root: name -> (kind, members). Returns name -> path."""
    return {name: tree.collect(f"{ROOT}/{name}", kind, members) for name, (kind, members) in kinds.items()}
