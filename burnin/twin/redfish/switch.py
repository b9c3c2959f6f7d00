"""The BMC of an NVLink switch tray: a system with a serial, power, and eight leak detectors on MGX_BMC_0."""

from __future__ import annotations

from burnin.twin.rackstate import FloatRow
from burnin.twin.redfish.leaks import Leaks
from burnin.twin.redfish.logs import Log
from burnin.twin.redfish.root import Account, Made, collect_all, events, firmware, make_service, manager, root
from burnin.twin.redfish.tree import OK, ROOT, ref, refs, sensor

SYSTEM, CHASSIS = f"{ROOT}/Systems/System_0", f"{ROOT}/Chassis"
DETECTORS = [f"MGX_BMC_0_LeakDetector_{i}" for i in range(8)]
_VERSION = "88.0002.1950"


def make(serial: str, row: FloatRow, account: Account) -> Made:
    """The service of one switch tray's BMC."""
    tree, service = make_service(account)
    sel = Log(tree, SYSTEM, "SEL", account.now, service.tell)
    leaks = Leaks(tree, f"{CHASSIS}/MGX_BMC_0", DETECTORS, row, [sel], None, service.manners)
    board = f"{CHASSIS}/MGX_BMC_0"
    thermal = f"{board}/ThermalSubsystem"
    tree.put(
        thermal,
        "ThermalSubsystem.v1_3_0.ThermalSubsystem",
        {"LeakDetection": ref(f"{thermal}/LeakDetection"), "Status": OK},
        "Thermal Subsystem",
    )
    managed = {"ManagedBy": refs([f"{ROOT}/Managers/BMC_0"])}
    chassis = []
    power = sensor(tree, f"{CHASSIS}/Chassis_0", "Chassis_0_TotalHSC_Power_0", "Power", lambda: row["power_w"])
    asics = [
        sensor(tree, f"{CHASSIS}/MGX_NVSwitch_{i}", f"MGX_NVSwitch_{i}_TEMP_0", "Temperature", lambda: row["return_c"] + 15)
        for i in range(2)
    ]
    for name, sensors, more in (
        ("Chassis_0", [power], {}),
        ("MGX_BMC_0", leaks.sensors, {"ThermalSubsystem": ref(thermal)}),
        ("MGX_NVSwitch_0", asics[:1], {}),
        ("MGX_NVSwitch_1", asics[1:], {}),
    ):
        at = f"{CHASSIS}/{name}"
        tree.collect(f"{at}/Sensors", "Sensor", sensors, "Sensors")
        body = {"ChassisType": "Component", "Manufacturer": "NVIDIA", "Model": "N5200_LD", "SerialNumber": serial, "Status": OK}
        fixed = {**body, "PowerState": "On", "Links": managed, "Sensors": ref(f"{at}/Sensors"), **more}
        chassis.append(tree.put(at, "Chassis.v1_22_0.Chassis", fixed))
    tree.collect(f"{SYSTEM}/LogServices", "LogService", [sel.path])
    system = tree.put(
        SYSTEM,
        "ComputerSystem.v1_22_0.ComputerSystem",
        {
            "Manufacturer": "NVIDIA",
            "Model": "N5200_LD",
            "SerialNumber": serial,
            "PowerState": "On",
            "Status": OK,
            "SystemType": "Physical",
            "LogServices": ref(f"{SYSTEM}/LogServices"),
            "Links": {"Chassis": refs([f"{CHASSIS}/Chassis_0"]), **managed},
        },
    )
    links = collect_all(
        tree,
        {
            "Chassis": ("Chassis", chassis),
            "Systems": ("ComputerSystem", [system]),
            "Managers": ("Manager", [manager(tree, "BMC_0", _VERSION, [], account.now)]),
        },
    )
    links["UpdateService"] = firmware(tree, {"MGX_FW_BMC_0": (_VERSION, f"{ROOT}/Managers/BMC_0")})
    links["EventService"] = events(tree)
    root(tree, "NVIDIA", "N5200_LD", f"00000000-0000-0000-0000-{serial[-12:].rjust(12, '0').lower()}", links)
    return Made(service, lambda now_s: leaks.beat())
