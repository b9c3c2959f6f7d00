"""What one architecture is made of, for the twin: the files `<profile>.yaml` beside this module.

Physics, spreads and what the hardware calls itself. Nothing here says what is good or bad: no limit that judges.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field
from ruamel.yaml import YAML

from burnin.errors import InputError
from burnin.rack.schema import Data, Topology
from burnin.twin.tools.versions import VERSIONS


class Slot(Data):
    """A PCIe card: its bus address as the kernel writes it, and its link's generation and lanes."""

    bdf: str
    gen: int
    lanes: int


class Nic(Slot):
    """A network card: its device's name, the speed of one port in Gb/s, how many ports it shows."""

    device: str
    fabric: Literal["infiniband", "ethernet"]
    gbps: int
    ports: int = 1


class Machine(Data):
    """The host of a compute tray."""

    vendor: str
    product: str
    bios: str
    cpu: str
    module_w: float = Field(description="what a module draws beside its GPUs, W")
    sockets: int
    memory_kb: int
    boot_s: float = Field(default=4, description="from power to SSH, s; real trays take minutes")
    cpu_idle_c: float
    cpu_load_c: float = Field(description="of a CPU whose GPUs are fully loaded, Cel")
    nics: list[Nic]
    nvmes: list[Slot]


class GpuFacts(Data):
    """What one GPU answers when asked who it is; lists go by NVML index."""

    name: str
    board_part: str
    vbios: str
    inforom: str
    inforom_oem: str
    inforom_ecc: str
    gpu_part: str = "N/A"
    pci_device: int
    pci_subsystem: int
    bdf: list[str]
    module_id: list[int]
    gpus_per_module: int
    architecture: int
    compute_capability: tuple[int, int]
    sms: int
    memory_mib: int
    reserved_mib: int
    bar1_mib: int
    limit_w: float
    limit_min_w: float
    module_limit_w: float | None
    module_limit_min_w: float | None
    clock_max_mhz: int
    clock_idle_mhz: int
    clock_mem_mhz: int
    clock_video_mhz: int
    clock_video_max_mhz: int
    pcie_gen: int
    remap_banks: int
    max_operating_c: int
    slowdown_margin_c: int
    shutdown_margin_c: int
    nvlinks: int
    nvlink_version: int
    nvlink_mbps: int
    c2c_links: int
    c2c_mbps: int
    platform_info: bool
    fabric_clique: int | None


class Driver(Data):
    """The driver of every tray."""

    version: str
    cuda: int


class Power(Data):
    """Electrical power of one GPU at activity a, clock f and die temperature T, W:

    fixed + hbm_idle + (hbm_full - hbm_idle) a + dynamic a v^2 f/f_ref + leakage v exp((T - leak_at_c) / leak_per_c),
    v = max(v_min, (f / f_ref)^v_exponent).
    """

    fixed_w: float
    hbm_idle_w: float
    hbm_full_w: float
    dynamic_w: float
    leakage_w: float
    leak_at_c: float
    leak_per_c: float
    f_ref_mhz: float
    v_exponent: float
    v_min: float


class Thermal(Data):
    """Die - TIM - plate - coolant: resistances in K/W (convection at nominal flow), capacities in J/K."""

    r_die: float
    r_tim: float
    r_plate: float
    r_convection: float
    flow_exponent: float
    stagnant: float = Field(description="fraction of nominal flow below which convection gets no worse")
    r_hbm: float
    c_die: float
    c_plate: float
    tau_hbm_s: float
    tau_coolant_s: float


class Coolant(Data):
    """The loop: `loops` lists GPU positions in flow order; each loop takes an equal share of the tray's flow."""

    supply_c: float
    tray_lpm: float
    w_per_k_per_lpm: float = Field(description="density x heat capacity")
    manifold_drop: float = Field(description="fraction of the pressure lost from the first tray to the last")
    own_rise: float = Field(description="share of its own coolant rise that a GPU sees")
    preheat: float = Field(description="share of an upstream GPU's coolant rise that a GPU sees")
    loops: list[list[int]]


class Loop(Data):
    """The loop around the trays: what their manifold resists, and the CDU that drives it. Pressures in kPa.

    At a pressure difference dp a branch takes its nominal flow x (dp / dp_kpa)^(1 / dp_exponent). The pumps together give
    pump_head_kpa x speed^2, less what pumps, heat exchanger and filter lose: (pump_loss_kpa + filter_kpa) x (flow / nominal)^2.
    """

    dp_kpa: float = Field(description="across the manifold when every branch has its nominal flow; the CDU holds it")
    dp_exponent: float
    switch_lpm: float = Field(description="nominal flow of a switch tray")
    return_kpa: float = Field(description="static pressure, where the coolant comes back")
    volume_l: float
    pump_head_kpa: float = Field(description="at full speed, without flow")
    pump_loss_kpa: float
    filter_kpa: float = Field(description="of the clean filter")
    pump_rpm: float = Field(description="full speed")
    tau_pump_s: float
    tau_supply_s: float
    flow_gain: float = Field(description="error of the flow meter: relative standard deviation")
    flow_noise: float = Field(description="of one reading: relative standard deviation")
    rtd_k: float = Field(description="offset of a coolant temperature sensor: standard deviation")
    rtd_noise_k: float
    pressure_noise_kpa: float


class Housing(Data):
    """What a rack has beside GPUs: power of switch trays, what a compute tray gives to the air, power shelves."""

    switch_idle_w: float
    switch_load_w: float
    tray_air_w: float = Field(description="of a compute tray: fans, network cards, drives")
    shelves: int
    psus: int = Field(description="in a shelf")
    psu_w: float = Field(description="what a power supply can give")
    psu_efficiency: float
    psu_share: float = Field(description="relative standard deviation of a power supply's share")
    busbar_v: float


class Spread(Data):
    """How healthy parts differ: relative standard deviations."""

    capacitance: float
    voltage: float
    leakage: float
    tim: float
    plate: float
    convection: float
    branch: float = Field(description="of a tray's hydraulic resistance")
    hbm: float = Field(description="of the memory's resistance to its plate")


class Sensors(Data):
    """How sensors lie: standard deviations."""

    temp_offset_k: float
    temp_noise_k: float
    power_gain: float
    power_noise_w: float


class Rates(Data):
    """How fast a healthy GPU computes and copies, one job at a time. Copies in GB/s, one way."""

    gemm_tflops: float = Field(description="bf16 tensor kernels of ours")
    fma_tflops: float = Field(description="fp32 kernels of ours")
    hbm_gbps: float = Field(description="read and written")
    h2d_gbps: float
    d2h_gbps: float
    d2d_gbps: float
    p2p_gbps: float | None = Field(description="to another GPU of the tray; null where none can be reached")


class Nccl(Data):
    """Collectives of the library that every tray has: bus bandwidth by operation and number of GPUs, GB/s, large sizes."""

    version: int
    latency_us: float
    busbw: dict[str, dict[int, float]] = Field(description="between the numbers given: along the logarithm of the number")
    network_gbps: float = Field(description="where NVLink is switched off")


class Model(Data):
    """One architecture as the twin builds it."""

    profile: str
    about: str
    topology: Topology
    machine: Machine
    driver: Driver
    gpu: GpuFacts
    kernels: dict[str, float] = Field(description="activity of a load kernel, by its name")
    rates: Rates
    nccl: Nccl
    power: Power
    thermal: Thermal
    coolant: Coolant
    loop: Loop | None = Field(default=None, description="null where the coolant is given, not pumped by a CDU of the rack's")
    housing: Housing | None = None
    spread: Spread
    sensors: Sensors
    tools: dict[str, str] = Field(default_factory=dict, description="versions of tools, where not the twin's own default")


def profiles() -> list[str]:
    """Profiles of which a twin can be made."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.yaml"))


def with_tools(model: Model, tools: Mapping[str, str]) -> Model:
    """The same with other versions of tools. Raises InputError for one that the twin has not got."""
    for name, said in tools.items():
        if said not in VERSIONS.get(name, ()):
            known = "; ".join(f"{tool} {', '.join(versions)}" for tool, versions in VERSIONS.items())
            raise InputError(f"the twin has no {name} {said}; it has {known}")
    return model.model_copy(update={"tools": {**model.tools, **tools}})


def load(profile: str) -> Model:
    """The model of one profile. Raises InputError when there is none."""
    if profile not in profiles():
        raise InputError(f"there is no twin of {profile!r}; there are {', '.join(profiles())}")
    return Model.model_validate(YAML(typ="safe").load(Path(__file__).with_name(f"{profile}.yaml")))
