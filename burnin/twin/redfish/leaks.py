"""Leak detection of a chassis: detectors, the sensors behind them, the policy, and the alarm when one gets wet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from burnin.twin.rackstate import FloatRow
from burnin.twin.redfish.logs import Log
from burnin.twin.redfish.service import Manners
from burnin.twin.redfish.tree import Body, Tree, health, ref, sensor

THRESHOLDS = {"LowerCritical": 1.3, "UpperCritical": 2.0}
"""Captured."""


class Leaks:
    """The detectors of one chassis; `on_leak` is called when its policy says to react; None where there is no policy."""

    def __init__(
        self,
        tree: Tree,
        chassis: str,
        names: Sequence[str],
        row: FloatRow,
        logs: Sequence[Log],
        on_leak: Callable[[], None] | None,
        manners: Manners,
    ) -> None:
        self._manners = manners
        self._row, self._logs, self._on_leak, self._names = row, logs, on_leak, names
        self._was = dict.fromkeys(names, "OK")
        self.policy = False
        at = f"{chassis}/ThermalSubsystem/LeakDetection"
        self._at = {name: f"{at}/LeakDetectors/{name}" for name in names}
        self.sensors = [
            sensor(tree, chassis, name, "Voltage", self._volts(i), thresholds=THRESHOLDS, span=(0.0, 3.3), digits=4)
            for i, name in enumerate(names)
        ]
        for i, name in enumerate(names):
            tree.live(self._at[name], "LeakDetector.v1_1_0.LeakDetector", self._detector(i))
        tree.collect(f"{at}/LeakDetectors", "LeakDetector", self._at.values(), "Leak Detector Collection")
        tree.live(
            at,
            "LeakDetection.v1_0_0.LeakDetection",
            lambda: {"LeakDetectors": ref(f"{at}/LeakDetectors"), "Status": self._status()},
            "Leak Detection Systems",
        )
        if on_leak is not None:
            self._policy(tree, chassis)

    def beat(self) -> None:
        """See whether a detector got wet or dry; log it, and react where the policy says so."""
        for i, name in enumerate(self._names):
            state = self.state(i)
            if state == self._was[name]:
                continue
            self._was[name] = state
            volts = f"{self._row[f'leak{i}_v']:.3f}"
            for log in self._logs:
                if state == "OK":
                    log.add("OK", "ResourceEvent.1.0.ResourceErrorsCorrected", [name], f"{name} is dry again", self._at[name])
                else:
                    text = f"Leakage detected by {name} ({volts} V)"
                    log.add("Critical", "ResourceEvent.1.0.ResourceErrorsDetected", [name, "Leak Detected"], text, self._at[name])
        if self._on_leak is not None and self.policy and any(state != "OK" for state in self._was.values()):
            self._on_leak()

    def state(self, number: int) -> str:
        """OK or Critical, as the voltage says; OK from one that lies."""
        return "OK" if self._manners.lies else health(self._row[f"leak{number}_v"], THRESHOLDS)

    def _volts(self, number: int) -> Callable[[], float]:
        return lambda: self._row[f"leak{number}_v"]

    def _detector(self, number: int) -> Callable[[], Body]:
        def make() -> Body:
            state = self.state(number)
            return {"DetectorState": state, "LeakDetectorType": "Moisture", "Status": {"Health": state, "State": "Enabled"}}

        return make

    def _status(self) -> Body:
        worst = "Critical" if any(self.state(i) != "OK" for i in range(len(self._names))) else "OK"
        return {"Health": worst, "HealthRollup": worst, "State": "Enabled"}

    def _policy(self, tree: Tree, chassis: str) -> None:
        """What the BMC does by itself when a detector is Critical: nothing, as delivered."""
        at = f"{chassis}/Oem/Nvidia/Policies"
        path = f"{at}/LeakDetectionPolicy"
        body: Body = {
            "PolicyConditionLogic": "AnyOf",
            "PolicyConditions": [
                {"Property": f"{detector}/#DetectorState", "PropertyStringValue": "Critical"} for detector in self._at.values()
            ],
            "PolicyReactions": [{"CommonReaction": "HardPowerOff", "ReactionDelaySeconds": 0.0}],
            "Status": {"Health": "OK", "State": "Enabled"},
        }
        tree.live(
            path, "NvidiaPolicy.v1_0_0.NvidiaPolicy", lambda: {**body, "PolicyEnabled": self.policy}, "Policy for Leak Detection"
        )
        tree.collect(at, "NvidiaPolicy", [path], "Policy Collection")

        def set_policy(given: Body) -> None:
            wanted = given.get("PolicyEnabled")
            if set(given) != {"PolicyEnabled"} or not isinstance(wanted, bool):
                raise ValueError("only PolicyEnabled can be set, to true or false")
            self.policy = wanted

        tree.settable[path] = set_policy
