"""What keeping telemetry costs: our blocks beside plain SQLAlchemy rows and Parquet, on the same readings, in one run.

    python -m bench.store [--hours 2] [--trays 18] [--repeat 5] [--seed 1]

Readings: every second, 60 columns per GPU (the whole catalogue: a GPU's own metrics and its share of the tray's), 4 GPUs
per tray, from a small model of a burn-in: idle, then full load; whole degrees, milliwatts with white and wandering noise,
clocks in steps of 15 MHz, counters that mostly stand still. `as sampled` is what today's agent reads: 14 metrics a second,
9 every five. Our ingest is the whole rack through `Store.keep`, second by second; the peers get one tray of it, because
rows would take all day. CPU is this process's; medians over the repetitions (for rows: over that many stretches).
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
from numpy.typing import NDArray

from burnin.events import Tick
from burnin.store import RunStart, Store, open_store
from burnin.telemetry.codec import SCALES

Floats = NDArray[np.float64]
RUN = "20261121-120000-beef"
RACK_GPUS, GPUS = 72, 4
SHIFT_S = 97
"""Trays are the same readings, so many seconds apart: no column compresses with another's help, so it costs nothing."""
FAST = (
    "gpu.temp", "gpu.tlimit", "hbm.temp", "gpu.power", "gpu.power_avg", "gpu.energy", "module.power", "gpu.clock_sm",
    "gpu.clock_mem", "gpu.util", "throttle.sw_power", "throttle.sw_thermal", "throttle.hw_thermal", "throttle.hw_brake",
)  # fmt: skip
SLOW = (
    "gpu.power_limit", "ecc.dram_ce", "ecc.dram_ue", "ecc.sram_ce", "ecc.sram_ue",
    "remap.correctable", "remap.uncorrectable", "remap.pending", "remap.failed",
)  # fmt: skip


# ---------------------------------------------------------------- readings


def gpu(rng: np.random.Generator, n: int) -> dict[str, Floats]:
    """60 columns of `n` seconds."""
    load = (np.arange(n) > n // 10).astype(float)
    wander = _lag(rng.normal(0, 1.2, n) / 0.05, 0.05)
    average = 150 + load * 1230 + (wander + rng.normal(0, 2, n)) * (0.1 + load)
    power = average + rng.normal(0, 6, n) * (0.1 + load)
    heat = _lag(average * 0.031, 1 / 25)
    celsius = 25 + heat + rng.normal(0, 0.25, n)

    def rare(per_day: float) -> Floats:
        return np.cumsum(rng.random(n) < per_day / 86400).astype(float)

    def held(values: NDArray[np.floating[Any]], every: int) -> Floats:
        return np.repeat(values[::every], every)[:n]

    zero = np.zeros(n)
    return {
        "gpu.temp": celsius.round(),
        "gpu.tlimit": (88 - celsius).round(),
        "hbm.temp": (celsius + 8 + rng.normal(0, 0.2, n)).round(),
        "gpu.power": power.round(3),
        "gpu.power_avg": average.round(3),
        "gpu.energy": (3e8 + np.cumsum(average)).round(3),
        "module.power": (average + rng.normal(180, 1.5, n)).round(3),
        "gpu.clock_sm": np.where(load > 0, 1920 - 15 * rng.normal(2, 1, n).round().clip(0, 6), 345.0),
        "gpu.clock_mem": zero + 3996,
        "gpu.util": np.where(load > 0, 1.0, 0.0) - 0.01 * (rng.random(n) < 0.01) * load,
        "throttle.sw_power": np.cumsum(load * rng.uniform(0.6, 0.99, n)).round(6),
        **dict.fromkeys(("throttle.sw_thermal", "throttle.hw_thermal", "throttle.hw_brake"), zero),
        "gpu.power_limit": zero + 1400,
        "ecc.dram_ce": rare(3),
        **dict.fromkeys(("ecc.dram_ue", "ecc.sram_ce", "ecc.sram_ue"), zero),
        **dict.fromkeys(("remap.correctable", "remap.uncorrectable", "remap.pending", "remap.failed"), zero),
        "nvlink.state": zero + 1,
        "nvlink.speed": zero + 53.125,
        "nvlink.rx_bytes": np.cumsum(load * rng.integers(700 * 10**9, 705 * 10**9, n)).round(),
        "nvlink.tx_bytes": np.cumsum(load * rng.integers(700 * 10**9, 705 * 10**9, n)).round(),
        "nvlink.symbol_errors": rare(1),
        "nvlink.symbol_ber": zero + 1.5e-254,
        "nvlink.effective_errors": zero,
        "nvlink.effective_ber": zero + 1.5e-254,
        "nvlink.raw_ber": held(rng.integers(10, 99, n) * 1e-9, 60),
        "nvlink.recovery_ok": rare(2),
        **dict.fromkeys(("nvlink.recovery_failed", "nvlink.rx_errors", "nvlink.integrity_errors"), zero),
        **dict.fromkeys(("c2c.crc", "c2c.replay", "pcie.replay", "xid"), zero),
        "pcie.gen": zero + 6,
        "pcie.width": zero + 16,
        "fabric.state": zero + 3,
        "fabric.health": zero + 1,
        "cpu.temp": (40 + heat / 4 + rng.normal(0, 0.3, n)).round(),
        **dict.fromkeys(("cpu.edac_ce", "cpu.edac_ue", "nic.symbol_errors", "nic.link_flaps", "nvme.media_errors"), zero),
        "nic.temp": (48 + heat / 8 + rng.normal(0, 0.2, n)).round(),
        "nvme.temp": (36 + heat / 20 + rng.normal(0, 0.1, n)).round(),
        "tray.power": held((4 * average + rng.normal(900, 8, n)).round(), 5),
        "psu.power": held((3 * average + rng.normal(100, 8, n)).round(), 5),
        "coolant.supply_temp": held((25 + rng.normal(0, 0.05, n)).round(1), 5),
        "coolant.return_temp": held((25 + heat / 5 + rng.normal(0, 0.05, n)).round(1), 5),
        "coolant.flow": held((130 + rng.normal(0, 0.3, n)).round(1), 5),
        "coolant.dp": held((90 + rng.normal(0, 0.3, n)).round(1), 5),
        "coolant.pressure": held((250 + rng.normal(0, 0.5, n)).round(1), 5),
        "leak.voltage": held((1.65 + rng.normal(0, 0.004, n)).round(3), 5),
    }


def _lag(values: Floats, k: float) -> Floats:
    """First-order lag: each second, `k` of the way to the value."""
    out, now = np.empty_like(values), 0.0
    for i, value in enumerate(values):
        now += (value - now) * k
        out[i] = now
    return out


@dataclass(frozen=True)
class Readings:
    """One tray's columns, long enough for every tray to begin SHIFT_S after the one before."""

    seconds: int
    columns: Mapping[tuple[str, str], Floats]
    jitter_ms: NDArray[np.int64]

    def tray(self) -> tuple[Floats, NDArray[np.int64]]:
        """The first tray's values, a row per column, and their times."""
        values = np.stack([v[: self.seconds] for v in self.columns.values()])
        return values, np.arange(self.seconds) * 1000 + self.jitter_ms[: self.seconds]


def readings(seconds: int, trays: int, seed: int) -> Readings:
    """The model's readings of one tray's four GPUs."""
    rng = np.random.default_rng(seed)
    n = seconds + SHIFT_S * trays
    columns = {(f"g{g}", metric): values for g in range(GPUS) for metric, values in gpu(rng, n).items()}
    return Readings(seconds, columns, rng.integers(0, 4, n))


def ticks(data: Readings, trays: int, cadence: Mapping[int, tuple[str, ...] | None]) -> Iterator[list[Tick]]:
    """What a rack's trays send, ten seconds at a time; `cadence`: every so many seconds these metrics (None: all)."""
    groups = []
    for every, metrics in cadence.items():
        keys = [key for key in data.columns if metrics is None or key[1] in metrics]
        names = [tuple((f"t{t:02}.{part}", metric) for part, metric in keys) for t in range(trays)]
        groups.append((every, names, np.stack([data.columns[key] for key in keys], axis=1)))
    for begin in range(0, data.seconds, 10):
        batch = []
        for every, names, matrix in groups:
            for t in range(trays):
                at = begin + t * SHIFT_S
                for i, row in enumerate(matrix[at : at + 10 : every].tolist()):
                    s = begin + i * every
                    batch.append(Tick(f"t{t:02}", s + int(data.jitter_ms[s]) / 1000, names[t], tuple(row)))
        yield batch


# ---------------------------------------------------------------- ours


@dataclass(frozen=True)
class Kept:
    """What one ingest cost."""

    values: int
    cpu_s: float
    bytes: int
    rollup_bytes: int


def ours(path: Path, data: Readings, trays: int, cadence: Mapping[int, tuple[str, ...] | None]) -> Kept:
    """A whole run through the store, in batches of a second, as the writer's thread would give them."""
    store = open_store(path)
    store.begin_run(RunStart(RUN, "R-1", "gb300-nvl72", None, False, True, "bench", "2026-11-21T12:00:00Z", {}))
    values, cpu_s = 0, 0.0
    for batch in ticks(data, trays, cadence):
        values += sum(len(tick.values) for tick in batch)
        seconds: dict[int, list[Tick]] = {}
        for tick in batch:
            seconds.setdefault(int(tick.t_s), []).append(tick)
        began = time.process_time()
        for second in sorted(seconds):
            store.keep(seconds[second])
        cpu_s += time.process_time() - began
    began = time.process_time()
    store.end_run(RUN, "2026-11-21T14:00:00Z", "COMPLETE")
    cpu_s += time.process_time() - began
    store.close()
    with closing(sqlite3.connect(path)) as db:
        ((pages,), (free,), (size,)) = (
            db.execute(f"PRAGMA {p}").fetchone() for p in ("page_count", "freelist_count", "page_size")
        )
        sizes = dict(db.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name"))
    return Kept(values, cpu_s, (pages - free) * size, sizes["rollup_row"] + sizes["series"])


def our_queries(store: Store) -> dict[str, Callable[[], object]]:
    """The three questions, of one tray."""
    rollup = sa.text("SELECT part, metric, t0_s, n, min, mean, max FROM rollup WHERE run = :run AND part LIKE 't00.%'")
    highest = sa.text(
        "SELECT part, max(max) FROM rollup WHERE run = :run AND metric = 'gpu.power' AND part LIKE 't00.%' GROUP BY part"
    )
    engine = sa.create_engine(f"sqlite:///{store.path}")

    def ask(query: sa.TextClause) -> list[Any]:
        with engine.connect() as connection:
            return list(connection.execute(query, {"run": RUN}))

    return {
        "one series": lambda: store.telemetry(RUN, ("t00.g2",), ("gpu.power",)).of("t00.g2", "gpu.power").v,
        "max per GPU": lambda: ask(highest),
        "all 60 s rollups": lambda: ask(rollup),
    }


# ---------------------------------------------------------------- peers


def rows(path: Path, data: Readings, repeat: int) -> tuple[int, list[float], dict[str, Callable[[], object]]]:
    """Plain rows through SQLAlchemy, ten seconds a batch: bytes, CPU seconds per value of each stretch, queries."""
    engine = sa.create_engine(f"sqlite:///{path}")
    metadata = sa.MetaData()
    table = sa.Table(
        "reading",
        metadata,
        sa.Column("series", sa.Integer, primary_key=True),
        sa.Column("t_ms", sa.Integer, primary_key=True),
        sa.Column("value", sa.Double, nullable=False),
        sqlite_with_rowid=False,
    )
    metadata.create_all(engine)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    values, t_ms = data.tray()
    costs = []
    for stretch in np.array_split(np.arange(data.seconds), repeat):
        began = time.process_time()
        for chunk in np.array_split(stretch, max(1, len(stretch) // 10)):
            batch = [
                {"series": number, "t_ms": t, "value": v}
                for number, column in enumerate(values[:, chunk].tolist())
                for t, v in zip(t_ms[chunk].tolist(), column, strict=True)
            ]
            with engine.begin() as connection:
                connection.execute(sa.insert(table), batch)
        costs.append((time.process_time() - began) / (len(stretch) * len(values)))
    engine.dispose()

    def ask(query: str) -> list[Any]:
        with engine.connect() as connection:
            return list(connection.exec_driver_sql(query))

    keys = list(data.columns)
    power = [keys.index((f"g{g}", "gpu.power")) for g in range(GPUS)]
    queries: dict[str, Callable[[], object]] = {
        "one series": lambda: np.array([v for (v,) in ask(f"SELECT value FROM reading WHERE series = {power[2]} ORDER BY t_ms")]),
        "max per GPU": lambda: ask(f"SELECT series, max(value) FROM reading WHERE series IN {tuple(power)} GROUP BY series"),
        "all 60 s rollups": lambda: ask(
            "SELECT series, t_ms / 60000, count(value), min(value), avg(value), max(value) FROM reading GROUP BY 1, 2"
        ),
    }
    return path.stat().st_size, costs, queries


def parquet(
    path: Path, data: Readings, repeat: int, *, fixed: bool = False, **options: Any
) -> tuple[int, list[float], dict[str, Callable[[], object]]]:
    """One wide table, a row group per half hour: bytes, CPU seconds per value of each whole write, queries.

    `fixed`: the strongest form that Parquet has for this, where somebody told it each column's scale: integers, delta-coded.
    """
    values, t_ms = data.tray()
    names = _names(data)
    scales = {name: _scale(column) for name, column in zip(names, values, strict=True)} if fixed else dict.fromkeys(names)
    if fixed:
        whole = [name for name, scale in scales.items() if scale]
        options = {"use_dictionary": False, "column_encoding": dict.fromkeys(["t_ms", *whole], "DELTA_BINARY_PACKED")}
    costs = []
    for _ in range(repeat):
        began = time.process_time()
        columns = {
            name: np.rint(column * scales[name]).astype(np.int64) if scales[name] else column
            for name, column in zip(names, values, strict=True)
        }
        pq.write_table(pa.table({"t_ms": t_ms, **columns}), path, compression="zstd", row_group_size=1800, **options)
        costs.append((time.process_time() - began) / values.size)

    def column(*wanted: str) -> list[Floats]:
        return [c.to_numpy() for c in pq.read_table(path, columns=list(wanted), use_threads=False).columns]

    def minutes() -> object:
        table = pq.read_table(path, use_threads=False)
        begin = np.flatnonzero(np.diff(table["t_ms"].to_numpy() // 60000, prepend=-1))
        many = [table[name].to_numpy() for name in names]
        return [(np.minimum.reduceat(v, begin), np.add.reduceat(v, begin), np.maximum.reduceat(v, begin)) for v in many]

    queries: dict[str, Callable[[], object]] = {
        "one series": lambda: column("g2.gpu.power"),
        "max per GPU": lambda: [v.max() for v in column(*(f"g{g}.gpu.power" for g in range(GPUS)))],
        "all 60 s rollups": minutes,
    }
    return path.stat().st_size, costs, queries


def _names(data: Readings) -> list[str]:
    return [f"{part}.{metric}" for part, metric in data.columns]


def _scale(values: Floats) -> int | None:
    return next((scale for scale in SCALES if (np.rint(values * scale) / scale == values).all()), None)


# ---------------------------------------------------------------- the table


def latency_ms(query: Callable[[], object], repeat: int) -> float:
    """Median wall time of a warm query."""
    query()
    times = []
    for _ in range(max(repeat, 5)):
        began = time.perf_counter()
        query()
        times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times)


def main() -> None:
    """Measures, and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--hours", type=float, default=2)
    parser.add_argument("--trays", type=int, default=18)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    data = readings(int(given.hours * 3600), given.trays, given.seed)
    count = data.seconds * len(data.columns)
    with tempfile.TemporaryDirectory(prefix="burnin-bench-") as folder:
        at = Path(folder)
        every_second = [ours(at / f"ours{i}.db", data, given.trays, {1: None}) for i in range(given.repeat)]
        sampled = ours(at / "sampled.db", data, given.trays, {1: FAST, 5: SLOW})
        kept = every_second[-1]
        per_value = statistics.median(one.cpu_s / one.values for one in every_second)
        store = open_store(at / f"ours{given.repeat - 1}.db", create=False)
        mine = {name: latency_ms(query, given.repeat) for name, query in our_queries(store).items()}
        peers = {
            "rows, SQLAlchemy": rows(at / "rows.db", data, given.repeat),
            "Parquet zstd": parquet(at / "plain.parquet", data, given.repeat),
            "Parquet zstd split": parquet(
                at / "split.parquet", data, given.repeat, use_dictionary=False, use_byte_stream_split=_names(data)
            ),
            "Parquet zstd delta": parquet(at / "fixed.parquet", data, given.repeat, fixed=True),
        }
        print(
            f"{kept.values / 1e6:.1f} M values: {given.trays} trays x {GPUS} GPUs x 60 columns x {data.seconds} s; "
            "peers: one tray.\n"
            "In brackets: the peer's CPU or time over ours. CPU of a rack: share of a core at 60 x 72 values/s.\n"
        )
        print(f"{'':20} {'B/value':>8} {'ingest':>14} {'CPU of a rack':>14} " + " ".join(f"{name:>17}" for name in mine))
        _line("burnin, with rollups", kept.bytes / kept.values, per_value, mine, None)
        print(f"{'  of that rollups':20} {kept.rollup_bytes / kept.values:8.3f}")
        for name, (size, costs, queries) in peers.items():
            theirs = {question: latency_ms(query, given.repeat) for question, query in queries.items()}
            _line(name, size / count, statistics.median(costs), theirs, (kept.bytes / kept.values, per_value, mine))
        per_rack, rate = 18 / given.trays / data.seconds, sampled.values / data.seconds / given.trays / GPUS
        print(
            f"\nas sampled by today's agent ({rate:.1f} values per GPU and second): "
            f"{sampled.bytes / sampled.values:.3f} B/value (rollups {sampled.rollup_bytes / sampled.values:.3f}), "
            f"{sampled.cpu_s * per_rack:.3%} of a core per rack, {sampled.bytes * per_rack * 86400 / 1e6:.0f} MB a rack and day"
        )
        spread = [one.cpu_s / one.values * RACK_GPUS * 60 for one in every_second]
        print(f"CPU of a rack at 1 Hz over {given.repeat} ingests: {min(spread):.3%} to {max(spread):.3%} of a core")


def _line(
    name: str, size: float, cost: float, asked: Mapping[str, float], ref: tuple[float, float, Mapping[str, float]] | None
) -> None:
    def times(value: float, mine: float | None) -> str:
        return f" ({value / mine:.2g}x)" if mine else ""

    cells = [
        f"{size:8.3f}",
        f"{1e-6 / cost:.2f} M/s{times(cost, ref and ref[1])}".rjust(14),
        f"{cost * RACK_GPUS * 60:.3%}".rjust(14),
        *(f"{ms:.1f} ms{times(ms, ref and ref[2][question])}".rjust(17) for question, ms in asked.items()),
    ]
    print(f"{name:20} " + " ".join(cells))


if __name__ == "__main__":
    main()
